"""Explaining a session: every figure of the page is there, and is the one that was posted."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import pytest
from rich.console import Console

from tests.support import BLOCKED, UK_FIXED, UK_MOBILE, Customer, World, runtime
from tollkeeper.cli.books import render
from tollkeeper.errors import Conflict, NotFound
from tollkeeper.services.explain import Explanation, explain


class Desk:
    """A customer of a switch, and the page of a call as text."""

    def __init__(self, world: World, customer: Customer, parts: Any) -> None:
        self.world, self.customer, self.parts = world, customer, parts

    async def call(self, name: str, called: str, seconds: int = 60, switch: str = "sw1") -> Any:
        """Authorise a call."""
        reply, _ = await self.parts.charging.authorise(
            switch=switch, session_id=name, party="acme", called=called, caller="4930[/b]1",
            requested_seconds=seconds,
        )  # fmt: skip
        return reply

    async def stop(self, name: str, used_ms: int, cause: str = "16") -> Any:
        """Stop a call."""
        reply, _ = await self.parts.charging.stop(
            switch="sw1", session_id=name, used_ms=used_ms, cause=cause
        )
        return reply

    async def explain(self, name: str) -> Explanation:
        """Explain a session."""
        return await explain(self.parts.database, name)

    async def page(self, name: str) -> str:
        """What the command prints, on one line, so that the layout does not matter."""
        console = Console(width=200, record=True, file=io.StringIO())
        console.print(render(await self.explain(name)), markup=False)
        return " ".join(console.export_text().split())


@pytest.fixture
async def desk(database_url: str) -> AsyncIterator[Desk]:
    """A customer with 100 USD."""
    with World(database_url) as world:
        customer = world.customer(balance="100")
        world.key("charge", switch="sw1")
        world.key("charge", switch="sw2")
        async with runtime(database_url) as parts:
            yield Desk(world, customer, parts)


async def test_a_settled_call_shows_how_its_amount_came_about(desk: Desk) -> None:
    """Messages, rate row, intervals, sum, hold and entry, all of them and all in agreement."""
    await desk.call("m1", "+44 7700 900123", 180)
    await desk.parts.charging.start(switch="sw1", session_id="m1")
    await desk.stop("m1", 61_200)
    found = await desk.explain("sw1/m1")
    (leg,) = found.legs
    assert [m.request["type"] for m in found.messages] == ["authorise", "start", "stop"]
    assert (leg.rate.card, leg.rate.version, leg.rate.prefix) == ("retail-usd", 1, "447")
    assert leg.rate.row == 2
    assert (leg.price.seconds, leg.price.billed_seconds) == (62, 120)
    # 0.01 + 2 x 0.065; held for 180 s: 0.01 + 3 x 0.065.
    assert leg.price.exact == leg.charged == Decimal("0.140000")
    assert (leg.hold.taken, leg.hold.settled) == (Decimal("0.205"), Decimal("0.140"))
    assert (leg.hold.released, leg.hold.still_held) == (Decimal("0.065"), 0)
    assert leg.agrees
    (entry,) = leg.entries
    assert (entry.code, entry.debit, entry.credit) == ("usage", "wallet:acme", "revenue:voice")
    assert entry.balance_after == Decimal("99.86")
    page = await desk.page("sw1/m1")
    for words in (
        "m1 of switch sw1",
        "4930[/b]1 to 447700900123 (sent as +44 7700 900123), voice",
        "Settled after 61.2 s of use; 180 s were granted in all.",
        'card retail-usd version 1, row 2: prefix "447" = United Kingdom Mobile',
        "0.065 USD/min, 60/60 s, connect fee 0.01",
        "61.2 s used, 62 s counted (any second begun), 120 s billed",
        "connect 0.01 + 60 s x 0.065/min + 1 x 60 s x 0.065/min",
        "Charge: 0.14 USD",
        "0.205 USD was set aside; 0.14 settled, 0.065 released",
        "wallet:acme -> revenue:voice 99.86",
    ):
        assert words in page


async def test_the_one_rounding_is_shown_with_its_mode_and_decimals(desk: Desk) -> None:
    """7 s of 0.0065 a minute by 6 s steps: 12 s cost 0.0013, and at other decimals it is rounded."""
    desk.world.sql("UPDATE rate_card SET decimals = 3, rounding = 'up'")
    await desk.parts.directory.load()
    async with runtime(desk.world.url) as fresh:  # compiles the card with its new rounding
        await fresh.charging.authorise(
            switch="sw1", session_id="r", party="acme", called="12125550100"
        )
        await fresh.charging.stop(switch="sw1", session_id="r", used_ms=7000)
    (leg,) = (await desk.explain("sw1/r")).legs
    assert (leg.price.exact, leg.price.amount) == (Decimal("0.0013"), Decimal("0.002"))
    assert "0.0013 exactly, rounded once up, to 3 decimals (up)" in await desk.page("sw1/r")


async def test_overrun_and_late_usage_are_named(desk: Desk) -> None:
    """F2, F8: what was used above the hold and what came after the end are lines of their own."""
    await desk.call("o", UK_FIXED, 10)
    await desk.stop("o", 15_000)
    await desk.stop("o", 18_000, cause="later")
    (leg,) = (await desk.explain("sw1/o")).legs
    assert (leg.hold.settled, leg.hold.overrun, leg.hold.late) == (
        Decimal("0.10"),
        Decimal("0.05"),
        Decimal("0.03"),
    )
    assert [entry.code for entry in leg.entries] == ["usage", "overrun", "late"]
    assert leg.charged == Decimal("0.18")
    assert leg.agrees
    page = await desk.page("sw1/o")
    assert "0.05 USD was used above the hold (overrun)" in page
    assert "0.03 USD was reported after the end (late)" in page


async def test_a_reason_is_a_part_of_the_line_that_it_stands_in(desk: Desk) -> None:
    """A sentence of its own, with its full stop, would end the line in the middle."""
    await desk.call("k", UK_FIXED, 60)
    await desk.parts.charging.kill(switch="sw1", session_id="k", why="fraud desk")
    await desk.parts.charging.update(switch="sw1", session_id="k", used_ms=10_000)
    page = await desk.page("sw1/k")
    assert ", the operator ended the session" in page
    assert "session.," not in page


async def test_a_live_call_shows_what_is_held_and_what_it_costs_so_far(desk: Desk) -> None:
    """Nothing is charged yet; the hold is still there."""
    await desk.call("l", UK_FIXED, 60)
    await desk.parts.charging.update(switch="sw1", session_id="l", used_ms=30_000)
    (leg,) = (await desk.explain("sw1/l")).legs
    assert (leg.hold.taken, leg.hold.still_held, leg.hold.released) == (
        Decimal("0.90"),
        Decimal("0.90"),
        0,
    )
    assert leg.price.amount == Decimal("0.30")
    assert leg.charged == 0
    page = await desk.page("sw1/l")
    assert "Still open: answered; 90 s were granted in all." in page
    assert "It would cost so far: 0.30 USD" in page
    assert "0.90 USD was set aside; 0.90 still held" in page


async def test_a_refused_call_says_why_and_that_nothing_was_charged(desk: Desk) -> None:
    """I10: the refusal is a stored session with its message."""
    await desk.call("no", BLOCKED)
    found = await desk.explain("sw1/no")
    assert found.story == "Refused: destination blocked. Nothing was held or charged."
    assert [m.reply.reason.value for m in found.messages] == ["destination_blocked"]
    assert "Nothing was held or charged" in await desk.page("sw1/no")


async def test_a_released_call_gave_everything_back(desk: Desk) -> None:
    """F15: never answered."""
    await desk.call("ring", UK_MOBILE)
    await desk.stop("ring", 0)
    (leg,) = (await desk.explain("sw1/ring")).legs
    assert (leg.hold.taken, leg.hold.released, leg.charged) == (
        Decimal("0.075"),
        Decimal("0.075"),
        0,
    )
    assert leg.entries == ()


async def test_reports_that_look_wrong_are_noted(desk: Desk) -> None:
    """F7, F20: less usage than before, and more usage than time has passed."""
    await desk.call("odd", UK_FIXED)
    await desk.parts.charging.update(switch="sw1", session_id="odd", used_ms=600_000)
    await desk.stop("odd", 5_000)
    found = await desk.explain("sw1/odd")
    assert len(found.marks) == 2
    page = await desk.page("sw1/odd")
    assert "less usage than one before" in page
    assert "more usage was reported than time had passed" in page


async def test_a_session_is_found_by_any_of_its_names(desk: Desk) -> None:
    """switch/id, our id, or the id alone while only one switch knows it."""
    reply = await desk.call("name", UK_FIXED)
    for name in ("sw1/name", reply.id, "name"):
        assert (await desk.explain(name)).session.id == reply.id
    await desk.call("name", UK_FIXED, switch="sw2")
    with pytest.raises(Conflict, match="sw1/name, sw2/name"):
        await desk.explain("name")
    assert (await desk.explain("sw1/name")).session.id == reply.id


@pytest.mark.parametrize(
    "name",
    ["nothing", "sw1/nothing", "00000000-0000-7000-8000-000000000000", "", "/", "%", "a\u2028b"],
)
async def test_an_unknown_session_is_not_found(desk: Desk, name: str) -> None:
    """A clear error, whatever the name looks like."""
    with pytest.raises(NotFound, match="there is no session"):
        await desk.explain(name)


async def test_a_charge_that_was_tampered_with_shows_in_the_explanation(desk: Desk) -> None:
    """I19: the arithmetic is done again, so a difference is visible."""
    await desk.call("t", UK_FIXED)
    await desk.stop("t", 10_000)
    desk.world.sql(
        "UPDATE closed_session SET body = jsonb_set(body::jsonb, '{used_ms}', '20000')::json"
    )
    (leg,) = (await desk.explain("sw1/t")).legs
    assert not leg.agrees
    assert "But 0.10 was charged: run verify." in await desk.page("sw1/t")
