"""A call charges every level of the tree: each by its own plan, in its own currency, in one decision."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import pytest

from tests.support import Customer, Row, World, runtime, tariff, until
from tollkeeper.core.records import Outcome, Reply, Role
from tollkeeper.errors import NotFound
from tollkeeper.services.uses import Use
from tollkeeper.services.verify import verify

PARIS = "33145678901"
MARS = "99912345678"


@dataclass
class Tree:
    """Three levels: ``north`` (USD) sells to ``harbour`` (GBP), which sells to ``acme`` (EUR)."""

    world: World
    parts: Any
    north: Customer
    harbour: Customer
    acme: Customer

    async def authorise(self, name: str = "x", **more: Any) -> Reply:
        """Authorise a call of acme to Paris, or of whom and where to is given."""
        given = {"party": "acme", "called": PARIS, **more}
        reply, _ = await self.parts.charging.authorise(switch="sw1", session_id=name, **given)
        assert isinstance(reply, Reply)
        return reply

    async def call(self, name: str, seconds: int, **more: Any) -> None:
        """A whole call."""
        reply = await self.authorise(name, **more)
        assert reply.outcome is Outcome.GRANTED, reply
        await self.parts.charging.start(switch="sw1", session_id=name)
        await self.parts.charging.stop(switch="sw1", session_id=name, used_ms=seconds * 1000)

    def spent(self, party: Customer) -> Decimal:
        """What a wallet was debited."""
        return self.world.wallet(party).debited

    async def proven(self) -> None:
        """The books hold."""
        report = await verify(self.parts.database)
        assert report.clean, report.findings


@pytest.fixture
async def tree(database_url: str) -> AsyncIterator[Tree]:
    """Wallets of 100 each. What each pays for Paris: acme 0.12 EUR, harbour 0.08 USD, north 0.06 USD a minute."""
    with World(database_url) as world:
        retail = world.card(
            "retail-eur",
            [Row("33", "France", tariff("0.12", 60, 60)), Row("44", "UK", tariff("1"))],
            "EUR",
        )
        gold = world.card("gold-usd", [Row("33", "France", tariff("0.08"))], "USD")
        wholesale = world.card(
            "wholesale-usd",
            [
                Row("331", "Paris", tariff("0.06", 6, 6, connect_fee="0.001")),
                Row("999", "Mars", tariff("9")),
            ],
            "USD",
        )
        world.fx("EUR", "USD", "1.25")
        world.fx("EUR", "GBP", "0.80")
        north = world.reseller("north", plan=world.plan("wholesale", wholesale))
        harbour = world.reseller(
            "harbour", plan=world.plan("north-gold", gold), currency="GBP", parent=north
        )
        acme = world.customer(
            "acme", plan=world.plan("harbour-retail", retail), currency="EUR", parent=harbour
        )
        async with runtime(database_url) as parts:
            yield Tree(world, parts, north, harbour, acme)


async def test_three_levels_in_three_currencies_are_charged_to_the_last_digit(tree: Tree) -> None:
    """125 s: acme 3 min x 0.12 EUR; harbour 125/60 x 0.08 USD in GBP; north 126/60 x 0.06 + 0.001 USD.

    A dollar is 0.80 / 1.25 = 0.64 pounds, so harbour's minute is 0.0512 GBP: 125 s are 0.106667.
    """
    await tree.call("x", 125)
    assert tree.spent(tree.acme) == Decimal("0.36")
    assert tree.spent(tree.harbour) == Decimal("0.106667")
    assert tree.spent(tree.north) == Decimal("0.127")
    session = await tree.parts.charging.session("sw1/x")
    assert [leg.role for leg in session.legs] == [Role.CUSTOMER, Role.RESELLER, Role.RESELLER]
    assert [leg.pin.currency for leg in session.legs] == ["EUR", "GBP", "USD"]
    assert [step.kind for step in session.legs[1].pin.steps] == ["fx"]
    assert session.legs[1].pin.tariff.next_price == Decimal("0.0512")
    assert all(tree.world.wallet(w).held == 0 for w in (tree.acme, tree.harbour, tree.north))
    await tree.proven()


async def test_the_grant_is_what_the_poorest_level_can_pay(tree: Tree) -> None:
    """North has 0.061 USD: connect 0.001 and 60 s at 0.06 a minute; acme could pay for hours."""
    poor = tree.world.reseller(
        "poor",
        balance="0.061",
        plan=tree.world.one("SELECT id FROM rate_plan WHERE code = 'wholesale'"),
    )
    child = tree.world.customer(
        "child",
        currency="EUR",
        parent=poor,
        plan=tree.world.one("SELECT id FROM rate_plan WHERE code = 'harbour-retail'"),
    )
    await until(lambda: _known(tree, child.code))
    reply = await tree.authorise("y", party="child", requested_seconds=300)
    assert (reply.outcome, reply.granted_seconds, reply.final) == (Outcome.GRANTED, 60, True)
    assert tree.world.wallet(poor).available == 0
    assert tree.world.wallet(child).held == Decimal("0.12")


def _known(tree: Tree, code: str) -> bool:
    try:
        tree.parts.directory.party(code)
    except NotFound:
        return False
    return True


async def test_an_empty_reseller_refuses_its_customers_calls_and_is_named_to_the_operator(
    tree: Tree,
) -> None:
    """Acme has money; north's is gone: refused by north, "upstream" for acme and harbour."""
    tree.world.sql(
        "UPDATE wallet SET credit_limit = 0, debited = credited, stamp = stamp + 1 WHERE id = %s",
        tree.north.wallet_id,
    )
    reply = await tree.authorise()
    assert (reply.outcome.value, reply.reason.value) == ("refused", "insufficient_funds")
    assert reply.refused_by == tree.north.id
    charging = tree.parts.charging
    assert charging.shown_reason(reply, None) == (reply.reason, "north")
    assert charging.shown_reason(reply, tree.acme.id)[0].value == "upstream_refused"
    assert charging.shown_reason(reply, tree.harbour.id) == (
        charging.shown_reason(reply, tree.acme.id)
    )
    assert charging.shown_reason(reply, tree.north.id) == (reply.reason, None)


async def test_a_resellers_zero_stops_calls_that_are_up_at_the_next_decision(tree: Tree) -> None:
    """The call goes on to the end of its grant and not a second longer."""
    reply = await tree.authorise(requested_seconds=60)
    assert reply.granted_seconds == 60
    await tree.parts.charging.start(switch="sw1", session_id="x")
    wallet = tree.world.wallet(tree.harbour)
    tree.world.sql(
        "UPDATE wallet SET debited = credited - held, stamp = stamp + 1 WHERE id = %s", wallet.id
    )
    reply, _ = await tree.parts.charging.update(switch="sw1", session_id="x", used_ms=40_000)
    assert (reply.granted_seconds, reply.final, reply.reason.value) == (
        60,
        True,
        "insufficient_funds",
    )
    assert reply.refused_by == tree.harbour.id
    assert (await tree.authorise("z")).outcome is Outcome.REFUSED


@pytest.mark.parametrize(
    ("called", "reason", "by"),
    [("44123456789", "no_rate", "harbour"), (MARS, "no_rate", "acme")],
)
async def test_a_level_that_does_not_buy_a_destination_carries_it_for_nobody(
    tree: Tree, called: str, reason: str, by: str
) -> None:
    """Acme may sell the UK as it likes: harbour cannot buy it. Mars is sold by north and not to acme."""
    reply = await tree.authorise(called=called)
    assert (reply.outcome, reply.reason.value) == (Outcome.REFUSED, reason)
    assert tree.parts.charging.shown_reason(reply, None)[1] == by


async def test_a_suspended_reseller_stops_everybody_below_it(tree: Tree) -> None:
    """Suspension is looked for at every level, also at one that has no plan."""
    tree.world.sql("UPDATE party SET status = 'suspended' WHERE id = %s", tree.harbour.id)
    tree.world.notify(f"party:{tree.harbour.id}")
    await until(lambda: tree.parts.directory.suspended_above(tree.acme.id) == tree.harbour.id)
    reply = await tree.authorise()
    assert (reply.reason.value, reply.refused_by) == ("party_suspended", tree.harbour.id)


async def test_without_an_exchange_rate_there_is_no_call(tree: Tree) -> None:
    """Harbour's card is in dollars, its wallet in pounds, and nobody knows the rate."""
    tree.world.sql("DELETE FROM fx_rate")
    tree.world.notify("fx:0")
    await until(
        lambda: tree.parts.directory.exchange(tree.parts.clock().date())("USD", "GBP") is None
    )
    reply = await tree.authorise()
    assert (reply.reason.value, reply.refused_by) == ("no_fx_rate", tree.harbour.id)


async def test_a_user_spends_its_customers_money_within_its_own_limits(tree: Tree) -> None:
    """One call at once for the extension; the legs are those of the customer and the levels above."""
    tree.world.user("acme-101", tree.acme, max_sessions=1)
    await until(lambda: _known(tree, "acme-101"))
    await tree.call("u", 60, party="acme-101")
    assert tree.spent(tree.acme) == Decimal("0.12")
    assert (await tree.authorise("u1", party="acme-101")).outcome is Outcome.GRANTED
    refused = await tree.authorise("u2", party="acme-101")
    assert refused.reason.value == "concurrency_limit"
    assert (await tree.authorise("a1")).outcome is Outcome.GRANTED
    await tree.parts.charging.stop(switch="sw1", session_id="u1", used_ms=0)
    assert (await tree.authorise("u3", party="acme-101")).outcome is Outcome.GRANTED


async def test_a_key_of_a_party_charges_its_own_subtree_only(tree: Tree) -> None:
    """To a stranger's key a party does not exist, and a session of another is unknown."""
    assert (await tree.authorise("own", scope=tree.harbour.id)).outcome is Outcome.GRANTED
    with pytest.raises(NotFound, match="there is no party"):
        await tree.authorise("other", party="north", scope=tree.harbour.id)
    with pytest.raises(NotFound, match="no session"):
        await tree.parts.charging.stop(
            switch="sw1", session_id="own", used_ms=0, scope=tree.world.customer("alone").id
        )


async def test_a_quote_tells_the_customers_price_and_what_every_level_can_pay(tree: Tree) -> None:
    """90 s cost acme 0.24 EUR; north's 0.061 USD last for a minute."""
    quote = await tree.parts.charging.quote(Use("acme", PARIS), units=90)
    assert (quote.amount, quote.pin.currency) == (Decimal("0.24"), "EUR")
    assert quote.affordable_units == 14_400
    tree.world.sql(
        "UPDATE wallet SET debited = credited - 0.061 WHERE id = %s", tree.north.wallet_id
    )
    quote = await tree.parts.charging.quote(Use("acme", PARIS), units=90)
    assert (quote.affordable_units, quote.available) == (60, Decimal(100))
