"""What depends on use, from the plan to the money: tiers, packages, caps and rates to come."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from tests.support import UK_FIXED, Customer, Row, World, runtime, tariff
from tollkeeper.core.records import Outcome
from tollkeeper.services.verify import verify

TIER = {
    "code": "volume",
    "steps": [{"from": 0, "price": "0.60"}, {"from": 2, "price": "0.30"}],
    "destinations": ["44"],
}


@asynccontextmanager
async def selling(
    url: str, terms: dict[str, Any], now: datetime, **columns: Any
) -> AsyncIterator[tuple[World, Any, Customer]]:
    """Acme on a plan with these terms, a cent a second, at a moment that does not pass."""
    with World(url) as world:
        card = world.card("card", [Row("", "World", tariff("0.6"))])
        acme = world.customer(plan=world.plan("terms", card, terms=terms), **columns)
        async with runtime(url, clock=lambda: now) as parts:
            yield world, parts, acme
            report = await verify(parts.database)
            assert report.clean, report.findings


async def call(parts: Any, name: str, seconds: int, called: str = UK_FIXED) -> Decimal:
    """A whole call; what it cost."""
    charging = parts.charging
    await charging.authorise(
        switch="sw1", session_id=name, party="acme", called=called, requested_seconds=seconds
    )
    await charging.start(switch="sw1", session_id=name)
    reply, _ = await charging.stop(switch="sw1", session_id=name, used_ms=seconds * 1000)
    assert isinstance(reply.charge, Decimal)
    return reply.charge


async def test_a_tier_is_counted_in_real_time_and_split_inside_a_call(database_url: str) -> None:
    """From the third minute on at half the price: 90 s, then 60 s of which 30 s are cheaper."""
    async with selling(database_url, {"tiers": [TIER]}, datetime.now(UTC)) as (world, parts, acme):
        assert await call(parts, "a", 90) == Decimal("0.90")
        assert await call(parts, "b", 60) == Decimal("0.45")
        assert await call(parts, "c", 60) == Decimal("0.30")
        assert await call(parts, "other", 60, "33123456789") == Decimal("0.60")
        meter = world.meter(acme, "tier")
        assert (meter["used"], meter["code"]) == (210, "terms/voice/volume/month")


async def test_calls_at_once_fill_a_tier_without_gap(database_url: str) -> None:
    """20 calls of 12 s are 240 s: 120 at a cent and 120 at half a cent, whoever ends first."""
    async with selling(database_url, {"tiers": [TIER]}, datetime.now(UTC)) as (_, parts, _acme):
        charges = await asyncio.gather(*(call(parts, f"c{n}", 12) for n in range(20)))
        assert sum(charges) == Decimal("1.80")


async def test_a_call_is_split_at_the_change_of_its_rate(database_url: str) -> None:
    """Half the price from a minute after the beginning on: 60 x 0.01 + 60 x 0.005; pinned: 120 x 0.01."""
    now = datetime.now(UTC)
    begins_at = (now + timedelta(seconds=60)).isoformat()
    terms = {"promotions": [{"code": "half", "percent": "50", "begins_at": begins_at}]}
    async with selling(database_url, terms, now, rate_change="split") as (world, parts, acme):
        assert await call(parts, "split", 120) == Decimal("0.90")
        world.sql("UPDATE party SET rate_change = 'pin' WHERE id = %s", acme.id)
        await parts.directory.refresh("party", acme.id)
        assert await call(parts, "pinned", 120) == Decimal("1.20")


async def test_days_and_months_bound_what_is_spent(database_url: str) -> None:
    """A dollar a day: 100 s; the 101st is not granted, nor anything after it. Events count, too."""
    async with selling(database_url, {}, datetime.now(UTC)) as (world, parts, acme):
        world.sql("UPDATE wallet SET daily_cap = 1, monthly_cap = 50 WHERE id = %s", acme.wallet_id)
        await parts.directory.refresh("party", acme.id)
        assert await call(parts, "a", 70) == Decimal("0.70")
        reply, _ = await parts.charging.authorise(
            switch="sw1", session_id="b", party="acme", called=UK_FIXED
        )
        assert (reply.granted_seconds, reply.final) == (30, True)
        again, _ = await parts.charging.authorise(
            switch="sw1", session_id="c", party="acme", called=UK_FIXED
        )
        assert (again.outcome, again.reason.value) == (Outcome.REFUSED, "spend_limit")
        used = world.sql("SELECT code, used, held, cap FROM meter ORDER BY code")
        assert [tuple(row.values()) for row in used] == [
            ("USD/day", Decimal("0.7"), Decimal("0.3"), 1),
            ("USD/month", Decimal("0.7"), Decimal("0.3"), 50),
        ]
