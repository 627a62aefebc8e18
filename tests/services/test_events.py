"""One-shot uses: messages, lookups and fees, charged at once at every level, and given back."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from psycopg.types.json import Jsonb

from tests.support import Customer, Row, World, runtime, tariff
from tollkeeper.core.records import Outcome, Reply, Unit
from tollkeeper.errors import Conflict, InvalidInput, NotFound
from tollkeeper.services.offers import Fixed
from tollkeeper.services.uses import Use
from tollkeeper.services.verify import verify

MOBILE = "447700900123"


@dataclass
class Shop:
    """acme buys messages and lookups from north, which buys them from the operator."""

    world: World
    parts: Any
    north: Customer
    acme: Customer

    async def event(self, name: str = "e1", **more: Any) -> Reply:
        """Charge an event to acme."""
        given = {"party": "acme", "called": MOBILE, **more}
        reply, _ = await self.parts.charging.charge_event(switch="smsc", event_id=name, **given)
        assert isinstance(reply, Reply)
        return reply

    async def refund(self, name: str = "e1", units: int | None = None, **more: Any) -> Reply:
        """Give an event's charge back."""
        reply, _ = await self.parts.charging.refund(
            switch="smsc", event_id=name, units=units, **more
        )
        assert isinstance(reply, Reply)
        return reply

    async def back(self, plan: str, **rule: Any) -> None:
        """Say in a plan what is given back of undelivered messages."""
        terms = {"refunds": [{"service": "sms", **rule}]}
        self.world.sql("UPDATE rate_plan SET terms = %s WHERE code = %s", Jsonb(terms), plan)
        await self.parts.directory.refresh("plan", 0)

    def balances(self) -> tuple[Decimal, Decimal]:
        """What acme and north have."""
        return self.world.wallet(self.acme).balance, self.world.wallet(self.north).balance

    async def proven(self) -> None:
        """The books hold."""
        report = await verify(self.parts.database)
        assert report.clean, report.findings


@pytest.fixture
async def shop(database_url: str) -> AsyncIterator[Shop]:
    """Acme pays 0.05 a segment and 0.02 a lookup; north 0.03 and 0.01; both have 10."""
    with World(database_url) as world:
        cards = {}
        for name, sms, lookup in (("retail", "0.05", "0.02"), ("wholesale", "0.03", "0.01")):
            row = [Row("44", "United Kingdom", tariff(sms))]
            by_network = [Row("23410", "O2", tariff("0.2"))]
            cards[name] = (
                world.card(f"{name}-sms", row, service="sms", per=1),
                world.card(f"{name}-net", by_network, service="sms", per=1, key="network"),
                world.card(
                    f"{name}-hlr", [Row("", "World", tariff(lookup))], service="lookup", per=1
                ),
            )
        north = world.reseller("north", balance="10", plan=world.plan("ws", *cards["wholesale"]))
        acme = world.customer(balance="10", plan=world.plan("rt", *cards["retail"]), parent=north)
        async with runtime(database_url) as parts:
            yield Shop(world, parts, north, acme)


@pytest.mark.parametrize(
    ("text", "segments"),
    [
        ("hello", 1),
        ("a" * 160, 1),
        ("a" * 161, 2),
        ("\U0001f600", 1),
        ("\U0001f600" * 36, 2),
        ("x" * 1_600, 11),
        ("\U0001f600" * 1_600, 49),
    ],
)
async def test_a_message_costs_its_segments_at_every_level(
    shop: Shop, text: str, segments: int
) -> None:
    """160 septets or 70 UTF-16 units in one, 153 or 67 in each of several; 33 emoji fit one of those."""
    reply = await shop.event(text=text)
    assert (reply.outcome, reply.unit, reply.used_ms) == (
        Outcome.CHARGED, Unit.MESSAGE, segments * 1000,
    )  # fmt: skip
    assert reply.charge == Decimal("0.05") * segments
    assert shop.balances() == (10 - Decimal("0.05") * segments, 10 - Decimal("0.03") * segments)
    await shop.proven()


async def test_the_same_event_again_is_charged_once(shop: Shop) -> None:
    """Another text under the same id is another message, even of the same length."""
    first = await shop.event(text="hello")
    again, repeated = await shop.parts.charging.charge_event(
        switch="smsc", event_id="e1", party="acme", called=MOBILE, text="hello"
    )
    assert (again, repeated) == (first, True)
    with pytest.raises(Conflict, match="other content"):
        await shop.event(text="hallo")
    assert shop.balances() == (Decimal("9.95"), Decimal("9.97"))


async def test_all_segments_are_paid_for_or_none(shop: Shop) -> None:
    """North's money covers 3 of 4 segments: refused, and nobody is charged."""
    shop.world.sql("UPDATE wallet SET debited = credited - 0.1 WHERE id = %s", shop.north.wallet_id)
    reply = await shop.event(segments=4)
    assert (reply.outcome, reply.reason.value, reply.refused_by) == (
        Outcome.REFUSED, "insufficient_funds", shop.north.id,
    )  # fmt: skip
    assert shop.balances() == (Decimal(10), Decimal("0.1"))
    assert (await shop.event("e2", segments=3)).outcome is Outcome.CHARGED


async def test_an_undelivered_message_is_refunded_at_every_level_once(shop: Shop) -> None:
    """First one of three segments, then all of them; asked again nothing more comes back."""
    await shop.event(segments=3)
    assert (await shop.refund(units=1)).charge == Decimal("0.10")
    assert shop.balances() == (Decimal("9.90"), Decimal("9.94"))
    assert (await shop.refund(units=1)).charge == Decimal("0.10")
    assert (await shop.refund()).charge == 0
    assert (await shop.refund()).charge == 0
    assert shop.balances() == (Decimal(10), Decimal(10))
    await shop.proven()


async def test_a_plan_may_give_nothing_back_for_what_was_not_delivered(shop: Shop) -> None:
    """The rule is that of now; it is for this service and this reason only."""
    await shop.event(segments=3)
    await shop.event("l1", service="lookup")
    assert (await shop.refund(units=1, why="undelivered")).charge == Decimal("0.10")
    await shop.back("rt", undelivered="none")
    with pytest.raises(
        Conflict, match="the plan of acme gives nothing back for undelivered sms"
    ) as no:
        await shop.refund(why="undelivered")
    assert no.value.code == "not_refundable"
    assert (await shop.refund("l1", why="undelivered")).charge == 0
    assert (await shop.refund(units=1, why="undelivered")).charge == Decimal("0.10")
    assert shop.balances() == (Decimal("9.90"), Decimal("9.94"))
    assert (await shop.refund(why="failed")).charge == 0
    assert shop.balances() == (Decimal(10), Decimal(10))
    await shop.proven()


async def test_what_is_given_back_for_some_hours_is_not_given_back_later(shop: Shop) -> None:
    """Two hours to the microsecond; a refund that was given may be asked for again at any time."""
    await shop.back("rt", within_hours=2)
    await shop.event(segments=3)
    charged = await shop.parts.charging.session("smsc/e1")
    last = charged.opened_at + timedelta(hours=2)
    async with runtime(shop.world.url, clock=lambda: last) as later:
        reply, _ = await later.charging.refund(
            switch="smsc", event_id="e1", units=1, why="undelivered"
        )
        assert reply.charge == Decimal("0.10")
    now = last + timedelta(microseconds=1)
    async with runtime(shop.world.url, clock=lambda: now) as later:
        refund = later.charging.refund
        with pytest.raises(Conflict, match="within 2 hours only") as late:
            await refund(switch="smsc", event_id="e1", units=2, why="undelivered")
        assert late.value.code == "refund_too_late"
        again, _ = await refund(switch="smsc", event_id="e1", units=1, why="undelivered")
        assert again.charge == Decimal("0.10")
        assert (await refund(switch="smsc", event_id="e1", why="lost"))[0].charge == 0
    await shop.proven()


async def test_a_refund_takes_from_all_so_every_level_must_give_it(shop: Shop) -> None:
    """North's plan gives nothing back; whoever may not know of north is not told of it."""
    await shop.event()
    await shop.back("ws", undelivered="none")
    for scope, told in ((None, "the plan of north"), (shop.acme.id, "a plan above")):
        with pytest.raises(Conflict, match=told) as no:
            await shop.refund(why="undelivered", scope=scope)
        assert ("north" in no.value.detail) is (scope is None)
    assert shop.balances() == (Decimal("9.95"), Decimal("9.97"))


async def test_what_was_never_charged_cannot_be_refunded(shop: Shop) -> None:
    """An unknown event and a refused one."""
    for why in ("", "undelivered"):
        with pytest.raises(NotFound):
            await shop.refund("nothing", why=why)
    assert (await shop.event(called="33123456789", segments=1)).outcome is Outcome.REFUSED
    await shop.back("rt", undelivered="none")
    for why in ("", "undelivered"):
        with pytest.raises(Conflict, match="was refused"):
            await shop.refund(why=why)


async def test_a_price_may_be_by_network(shop: Shop) -> None:
    """A card whose key is the network is looked up by MCC and MNC, and its longer prefix wins."""
    assert (await shop.event(segments=1, network="23410")).charge == Decimal("0.20")
    assert (await shop.event("e2", segments=1, network="23430")).charge == Decimal("0.05")


async def test_a_lookup_is_charged_by_the_piece(shop: Shop) -> None:
    """One unit if nothing else is said."""
    reply = await shop.event(service="lookup")
    assert (reply.charge, reply.unit) == (Decimal("0.02"), Unit.ITEM)
    quote = await shop.parts.charging.quote(Use("acme", MOBILE, "lookup"), units=5)
    assert (quote.amount, quote.affordable_units) == (Decimal("0.10"), 499)


async def test_units_are_said_once(shop: Shop) -> None:
    """Text and units contradict each other; a lookup has no text."""
    for more in ({"text": "a", "units": 2}, {"service": "lookup", "segments": 1}):
        with pytest.raises(InvalidInput):
            await shop.event(**more)
    assert shop.balances() == (Decimal(10), Decimal(10))


async def test_a_fee_with_a_price_of_its_own_concerns_the_party_alone(shop: Shop) -> None:
    """It is charged once under its key, however long ago that was."""
    fixed = Fixed("number 17", Decimal("1.50"), "USD")
    fee = {"called": "did-17", "service": "fee", "fixed": fixed, "once": True}
    assert (await shop.event("did-17-2026-11", **fee)).charge == Decimal("1.50")
    assert shop.balances() == (Decimal("8.50"), Decimal(10))
    shop.world.sql("SELECT ensure_partitions((now() AT TIME ZONE 'UTC')::date, 60)")
    now = shop.parts.clock() + timedelta(days=40)
    async with runtime(shop.world.url, clock=lambda: now) as later:
        reply, repeated = await later.charging.charge_event(
            switch="smsc", event_id="did-17-2026-11", party="acme", **fee
        )
    assert (reply.charge, repeated) == (Decimal("1.50"), True)
    assert shop.balances() == (Decimal("8.50"), Decimal(10))


async def test_a_fee_in_another_currency_is_exchanged(shop: Shop) -> None:
    """2 EUR at 1.25 are 2.50 USD; without a rate the fee is refused."""
    fixed = Fixed("setup", Decimal(2), "EUR")
    refused = await shop.event("f1", called="setup", service="fee", fixed=fixed)
    assert refused.reason.value == "no_fx_rate"
    shop.world.fx("EUR", "USD", "1.25")
    await shop.parts.directory.refresh("fx", 0)
    reply = await shop.event("f2", called="setup", service="fee", fixed=fixed)
    assert reply.charge == Decimal("2.50")
