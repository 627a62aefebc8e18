"""Packages: part of the plan or bought, used before money, gone on with, taken over, let end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from tests.support import UK_FIXED, Customer, Row, World, runtime, tariff, until
from tollkeeper.core.periods import period_of, term_after
from tollkeeper.errors import Conflict, NotFound
from tollkeeper.services.meters import zone_of
from tollkeeper.services.packages import Packages
from tollkeeper.services.verify import verify
from tollkeeper.store.packages import Sale

TERMS = {
    "packages": [
        {"code": "free100", "units": 100, "rollover": 30, "exclusions": ["44909", "33"]},
        {
            "code": "france",
            "units": 60,
            "destinations": ["33"],
            "price": "5",
            "currency": "USD",
            "rollover": 20,
        },
        {
            "code": "once",
            "units": 10,
            "destinations": ["33"],
            "period": "day",
            "price": "1",
            "currency": "USD",
            "renew": False,
        },
    ]
}
PARIS = "33145678901"


@dataclass
class Clock:
    """A clock that is set by hand, in step with the database's days."""

    ahead: timedelta = field(default_factory=timedelta)

    def __call__(self) -> datetime:
        """The time now."""
        return datetime.now(UTC) + self.ahead


@dataclass
class Desk:
    """A customer whose plan has packages."""

    world: World
    parts: Any
    acme: Customer
    clock: Clock
    packages: Packages

    async def buy(self, package: str = "france", request: str | None = None) -> Sale:
        """Buy, and wait until the process knows."""
        sale = await self.packages.buy(party="acme", package=package, actor="test", request=request)
        await self.parts.directory.refresh("party", self.acme.id)
        return sale

    async def call(self, name: str, seconds: int, called: str = PARIS) -> Decimal:
        """A whole call; what it cost."""
        charging = self.parts.charging
        await charging.authorise(
            switch="sw1", session_id=name, party="acme", called=called, requested_seconds=seconds
        )
        reply, _ = await charging.stop(switch="sw1", session_id=name, used_ms=seconds * 1000)
        assert isinstance(reply.charge, Decimal)
        return reply.charge

    async def proven(self) -> None:
        """The books hold."""
        report = await verify(self.parts.database)
        assert report.clean, report.findings

    async def go_on(self) -> int:
        """What the job does, and the process told of it."""
        done = await self.packages.go_on()
        await self.parts.directory.refresh("party", self.acme.id)
        return done


@pytest.fixture
async def desk(database_url: str) -> AsyncIterator[Desk]:
    """100 free minutes a month everywhere but France; an hour of France for 5 dollars. 0.6 a minute."""
    clock = Clock()
    with World(database_url) as world:
        world.sql("SELECT ensure_partitions((now() AT TIME ZONE 'UTC')::date - 3, 120)")
        card = world.card("all", [Row("", "World", tariff("0.6"))])
        acme = world.customer(plan=world.plan("minutes", card, terms=TERMS))
        async with runtime(database_url, clock=clock) as parts:
            packages = Packages(parts.database, parts.directory, parts.charging, clock)
            yield Desk(world, parts, acme, clock, packages)


async def test_minutes_of_the_plan_are_used_before_money(desk: Desk) -> None:
    """90 of 100 minutes, then 20 minutes: ten free and ten at 0.6; excluded numbers always pay."""
    assert await desk.call("a", 90 * 60, UK_FIXED) == 0
    assert await desk.call("b", 60, "44909123456") == Decimal("0.6")
    assert await desk.call("c", 20 * 60, UK_FIXED) == 6
    meter = desk.world.meter(desk.acme, "package")
    assert (meter["used"], meter["held"], meter["cap"], meter["unit"]) == (6000, 0, 6000, "second")
    await desk.proven()


async def test_unused_minutes_of_the_plan_are_taken_over_up_to_the_bound(desk: Desk) -> None:
    """Of 10 minutes used 90 are left; 30 come over: 130 in the next month, then 100 again at most + 30."""
    begin, end = period_of("month", desk.clock(), UTC)
    await desk.call("a", 600, UK_FIXED)
    desk.clock.ahead = end - begin
    await desk.call("b", 60, UK_FIXED)
    caps = desk.world.sql("SELECT cap, begins_at FROM meter ORDER BY begins_at")
    assert [row["cap"] for row in caps] == [6000, 7800]
    assert caps[1]["begins_at"] == end


async def test_a_package_is_bought_once_and_used_before_money(desk: Desk) -> None:
    """5 dollars, then an hour of France for nothing, then 0.6 a minute."""
    sale = await desk.buy(request="r1")
    again = await desk.buy(request="r1")
    assert (sale.status, again.id) == ("active", sale.id)
    assert desk.world.wallet(desk.acme).balance == 95
    assert await desk.call("a", 3_590) == 0
    assert await desk.call("b", 20) == Decimal("0.1")
    with pytest.raises(Conflict, match="another request"):
        await desk.buy("once", request="r1")
    await desk.proven()


async def test_a_package_that_ends_sooner_is_used_first(desk: Desk) -> None:
    """Two purchases: the ten minutes of the day go before the hour of the month."""
    hour, day = await desk.buy(), await desk.buy("once")
    assert await desk.call("a", 300) == 0
    used = {row["id"]: row["used"] for row in desk.world.sql("SELECT id, used FROM meter")}
    assert (used[day.meter_id], used[hour.meter_id]) == (300, 0)


async def test_many_calls_share_the_last_minute(desk: Desk) -> None:
    """Of 60 minutes 32 calls of two minutes at once get 60 together, exactly; the rest is paid."""
    await desk.buy()
    charges = await asyncio.gather(*(desk.call(f"c{n}", 120) for n in range(32)))
    # 32 x 120 s are 3,840 s; 240 s are paid at a cent a second.
    assert sum(charges) == Decimal("2.4")
    assert desk.world.meter(desk.acme, "package")["used"] == 3600
    await desk.proven()


async def test_what_the_money_does_not_cover_is_not_bought(desk: Desk) -> None:
    """Refused, with the reason; no minutes, no charge, and it may be tried again."""
    desk.world.sql(
        "UPDATE wallet SET debited = credited - 2, stamp = stamp + 1 WHERE id = %s",
        desk.acme.wallet_id,
    )
    sale = await desk.buy()
    assert (sale.status, sale.reason) == ("refused", "insufficient_funds")
    assert desk.parts.directory.party("acme").bought == ()
    desk.world.top_up(desk.acme, "10")
    assert (await desk.buy()).status == "active"


async def test_what_is_no_package_to_buy_is_said(desk: Desk) -> None:
    """One that is part of the plan, and one that the plan does not have."""
    with pytest.raises(Conflict, match="nothing to buy"):
        await desk.buy("free100")
    with pytest.raises(NotFound, match="no package"):
        await desk.buy("mars")


async def test_a_package_renews_itself_with_what_is_taken_over(desk: Desk) -> None:
    """After a month: 5 dollars again, an hour and 20 of the 50 minutes left; twice asked, once done."""
    sale = await desk.buy()
    await desk.call("a", 600)
    desk.clock.ahead = sale.ends_at - desk.clock() + timedelta(seconds=1)
    assert [await desk.go_on(), await desk.go_on()] == [1, 0]
    assert desk.world.wallet(desk.acme).balance == 90
    (bought,) = desk.parts.directory.party("acme").bought
    assert bought.begins_at == sale.ends_at
    cap = desk.world.one("SELECT cap FROM meter WHERE id = %s", bought.meter_id)
    assert cap == 3600 + 20 * 60
    assert await desk.call("b", 600) == 0
    await desk.proven()


async def test_terms_that_went_by_unseen_are_not_charged(desk: Desk) -> None:
    """Nobody looked for three months: one term is charged, the one that is on now."""
    sale = await desk.buy()
    ahead = term_after("month", sale.bought_at, 3, UTC) - desk.clock() + timedelta(days=1)
    desk.clock.ahead = ahead
    await desk.go_on()
    assert desk.world.wallet(desk.acme).balance == 90
    (now,) = await desk.packages.sales(party="acme")
    assert (now.term, now.begins_at) == (3, term_after("month", sale.bought_at, 3, UTC))


@pytest.mark.parametrize("package", ["once", "france"])
async def test_a_package_that_is_not_renewed_ends(desk: Desk, package: str) -> None:
    """One that never renews, and one that was told not to."""
    sale = await desk.buy(package)
    if sale.renew:
        await desk.packages.set_renew(party="acme", sale_id=sale.id, renew=False, actor="test")
    desk.clock.ahead = sale.ends_at - desk.clock() + timedelta(seconds=1)
    before = desk.world.wallet(desk.acme).balance
    await desk.go_on()
    assert desk.world.wallet(desk.acme).balance == before
    assert await desk.packages.sales(party="acme") == []
    (ended,) = await desk.packages.sales(party="acme", ended=True)
    assert (ended.status, ended.reason) == ("ended", "not renewed")
    assert await desk.call("b", 60) == Decimal("0.6")
    with pytest.raises(Conflict, match="over already"):
        await desk.packages.set_renew(party="acme", sale_id=sale.id, renew=True, actor="test")


async def test_a_sale_that_was_left_in_the_middle_is_finished(desk: Desk) -> None:
    """Charged but not yet counting, because the process died: its charge is not made again."""
    sale = await desk.buy()
    desk.world.sql("UPDATE package_sale SET status = 'pending', meter_id = NULL")
    desk.clock.ahead = timedelta(minutes=1)
    assert await desk.go_on() == 1
    assert desk.world.wallet(desk.acme).balance == 95
    (found,) = await desk.packages.sales(party="acme")
    assert (found.status, found.meter_id) == ("active", sale.meter_id)


async def test_other_processes_hear_of_a_purchase(desk: Desk) -> None:
    """The notice comes with the commit."""
    async with runtime(desk.world.url, clock=desk.clock) as other:
        await desk.packages.buy(party="acme", package="france", actor="test")
        await until(lambda: len(other.directory.party("acme").bought) == 1)


def test_a_month_that_began_on_the_31st_ends_on_the_last_day_and_comes_back() -> None:
    """31 January, 28 February, 31 March: counted from the beginning, never from the last one."""
    anchor = datetime(2026, 1, 31, 12, tzinfo=UTC)
    found = [term_after("month", anchor, number, UTC) for number in range(4)]
    assert [(d.month, d.day) for d in found] == [(1, 31), (2, 28), (3, 31), (4, 30)]


@pytest.mark.parametrize(
    ("zone", "at", "hours"),
    [
        ("Europe/Berlin", "2026-03-29T10:00+02:00", 23),
        ("Europe/Berlin", "2026-10-25T10:00+01:00", 25),
        ("America/Santiago", "2026-09-06T10:00-03:00", 23),
        ("Asia/Kathmandu", "2026-05-01T10:00+05:45", 24),
    ],
)
def test_a_local_day_is_as_long_as_the_clock_says(zone: str, at: str, hours: int) -> None:
    """Also where midnight itself is skipped; days lie edge to edge."""
    begin, end = period_of("day", datetime.fromisoformat(at), zone_of(zone))
    assert end - begin == timedelta(hours=hours)
    assert period_of("day", end, zone_of(zone))[0] == end
    assert period_of("day", end - timedelta(microseconds=1), zone_of(zone)) == (begin, end)


def test_weeks_begin_on_monday_and_months_on_the_first() -> None:
    """In the zone's own time."""
    at = datetime(2026, 11, 1, 3, tzinfo=UTC)  # still Saturday, 31 October, in New York
    begin, end = period_of("month", at, zone_of("America/New_York"))
    assert (begin, end) == (
        datetime(2026, 10, 1, 4, tzinfo=UTC),
        datetime(2026, 11, 1, 4, tzinfo=UTC),
    )
    begin, _ = period_of("week", at, zone_of("America/New_York"))
    assert begin == datetime(2026, 10, 26, 4, tzinfo=UTC)
