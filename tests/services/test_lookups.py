"""Lookups: charged before they are asked, given back where there is no answer, asked once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any

import pytest

from tests.services.supplying import Died, Shop, add_supplier, shop
from tollkeeper.errors import Conflict, InvalidInput, NotFound
from tollkeeper.services.lookups import Lookups, Query

FRESH, CACHED, NOTHING = Decimal("0.005"), Decimal("0.001"), Decimal(0)
BERLIN = "493012345678"


@asynccontextmanager
async def desk(url: str, *, balance: str = "100", **rules: Any) -> AsyncIterator[Shop]:
    """The shop, with a supplier of lookups; ``rules`` are its settings.lookup."""
    async with shop(url, balance=balance) as s:
        add_supplier(
            s.world, s.sky.url, code="hlr", kind="lookup", items={},
            lookup={"kinds": ["hlr", "mnp"], "ttl_seconds": 3600, **rules},
        )  # fmt: skip
        yield s


async def ask(lookups: Lookups, request_id: str = "q1", **changes: Any) -> Query:
    wanted = {"party": "acme", "number": f"+{BERLIN}", "kind": "hlr", "request_id": request_id}
    return await lookups.lookup(**{**wanted, **changes})


async def test_an_answer_is_charged_and_read(database_url: str) -> None:
    async with desk(database_url) as s:
        found = await ask(s.supplies.lookups)
        assert (found.status, found.number, found.cached) == ("done", BERLIN, False)
        assert found.answer == {"mcc_mnc": "26201", "ported": True}
        assert (found.charge, found.currency) == (FRESH, "USD")
        assert s.money() == (FRESH, NOTHING)
        (request,) = s.sky.requests
        assert (request.path, request.query) == (f"/numbers/{BERLIN}", {"type": "hlr"})
        assert await s.clean()


async def test_the_same_request_is_charged_once_and_answered_the_same(database_url: str) -> None:
    async with desk(database_url, ttl_seconds=0) as s:
        first = await ask(s.supplies.lookups)
        s.sky.known_numbers = False
        again = await ask(s.again().lookups)
        assert again == first
        assert s.money() == (FRESH, NOTHING)
        assert len(s.sky.requests) == 1
        with pytest.raises(Conflict):
            await ask(s.supplies.lookups, number="4930999")
        with pytest.raises(Conflict):
            await ask(s.supplies.lookups, kind="mnp")


@pytest.mark.parametrize(
    ("charge_cached", "second"), [("yes", FRESH), ("no", None), ("separately", CACHED)]
)
async def test_what_is_kept_costs_what_the_policy_says(
    database_url: str, charge_cached: str, second: Decimal | None
) -> None:
    async with desk(database_url, charge_cached=charge_cached) as s:
        await ask(s.supplies.lookups, "q1")
        found = await ask(s.supplies.lookups, "q2")
        assert (found.cached, found.answer, found.charge) == (
            True,
            {"mcc_mnc": "26201", "ported": True},
            second,
        )
        assert len(s.sky.requests) == 1
        assert s.money() == (FRESH + (second or 0), NOTHING)


async def test_what_is_kept_is_of_one_kind_and_for_a_while(database_url: str) -> None:
    async with desk(database_url) as s:
        await ask(s.supplies.lookups, "q1")
        assert not (await ask(s.supplies.lookups, "q2", kind="mnp")).cached
        s.clock.forward(seconds=3599)
        assert (await ask(s.supplies.lookups, "q3")).cached
        s.clock.forward(seconds=2)
        assert not (await ask(s.supplies.lookups, "q4")).cached
        s.clock.forward(seconds=3601)
        await s.supplies.lookups.purge()
        assert s.world.one("SELECT count(*) FROM lookup_cache") == 0


@pytest.mark.parametrize("fault", [500, "drop", "garbage", "slow", "huge"])
async def test_a_supplier_that_fails_costs_nothing(database_url: str, fault: str | int) -> None:
    async with desk(database_url) as s:
        s.sky.faults = [fault] * 3
        found = await ask(s.supplies.lookups)
        assert (found.status, found.reason, found.charge) == ("failed", "supplier_failed", NOTHING)
        assert s.world.one("SELECT sum(credited - debited) FROM wallet") == Decimal(100)
        assert s.world.one("SELECT count(*) FROM lookup_cache") == 0
        assert (await ask(s.supplies.lookups)).status == "failed"
        assert (await ask(s.supplies.lookups, "q2")).status == "done"
        assert await s.clean()


async def test_a_supplier_that_refuses_costs_nothing(database_url: str) -> None:
    async with desk(database_url) as s:
        s.sky.faults = [403]
        found = await ask(s.supplies.lookups)
        assert (found.status, found.reason, found.charge) == ("failed", "supplier_refused", NOTHING)


@pytest.mark.parametrize(("refund", "charge"), [(True, NOTHING), (False, FRESH)])
async def test_an_unknown_number_costs_what_the_rule_says(
    database_url: str, refund: bool, charge: Decimal
) -> None:
    async with desk(database_url, refund_not_found=refund) as s:
        s.sky.known_numbers = False
        found = await ask(s.supplies.lookups)
        assert (found.status, found.answer, found.charge) == ("not_found", {}, charge)
        assert s.world.one("SELECT sum(credited - debited) FROM wallet") == 100 - charge


async def test_without_money_or_a_price_nobody_is_asked(database_url: str) -> None:
    async with desk(database_url, balance="0.004") as s:
        poor = await ask(s.supplies.lookups)
        unsold = await ask(s.supplies.lookups, "q2", number="33123456789")
        assert (poor.status, poor.reason) == ("refused", "insufficient_funds")
        assert (unsold.status, unsold.reason) == ("refused", "no_rate")
        assert s.sky.requests == []


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"party": "nobody"}, NotFound),
        ({"number": "call me"}, InvalidInput),
        ({"kind": "fortune"}, InvalidInput),
        ({"request_id": ""}, InvalidInput),
    ],
)
async def test_what_cannot_be_asked_is_an_error(
    database_url: str, changes: dict[str, Any], error: type[Exception]
) -> None:
    async with desk(database_url) as s:
        with pytest.raises(error):
            await ask(s.supplies.lookups, **changes)
        assert s.world.one("SELECT count(*) FROM lookup_query") == 0


@pytest.mark.parametrize("step", ["written", "paid", "charged", "answered", "done"])
async def test_a_death_after_any_step_charges_once_and_leaves_an_answer(
    database_url: str, step: str
) -> None:
    async with desk(database_url) as s:
        _dying(s.supplies.lookups, step)
        with pytest.raises(Died):
            await ask(s.supplies.lookups)
        s.clock.forward(days=3)
        await s.jobs(times=2)
        found = await ask(s.again().lookups)
        assert (found.status, found.charge) == ("done", FRESH)
        assert s.money() == (FRESH, NOTHING)
        assert await s.clean()


@pytest.mark.parametrize("step", ["written", "paid", "charged", "failed", "given back"])
async def test_a_death_on_the_way_to_a_failure_gives_all_back(database_url: str, step: str) -> None:
    async with desk(database_url) as s:
        s.sky.faults = [500] * 30
        _dying(s.supplies.lookups, step)
        with pytest.raises(Died):
            await ask(s.supplies.lookups)
        await s.jobs(times=4)
        found = await ask(s.again().lookups)
        assert (found.status, found.charge) == ("failed", NOTHING)
        assert s.world.one("SELECT sum(credited - debited) FROM wallet") == Decimal(100)
        assert await s.clean()


async def test_ten_at_once_on_money_for_four(database_url: str) -> None:
    async with desk(database_url, balance="0.02", ttl_seconds=0) as s:
        found = await asyncio.gather(*(ask(s.supplies.lookups, f"q{n}") for n in range(10)))
        assert sorted(q.status for q in found) == ["done"] * 4 + ["refused"] * 6
        assert len(s.sky.requests) == 4


def _dying(lookups: Lookups, step: str) -> None:
    def passed(at: str, _: int) -> None:
        if at == step:
            raise Died

    lookups._passed = passed  # type: ignore[method-assign]
