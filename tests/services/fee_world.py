"""A tree of three levels that buys numbers, and a clock that stands in April 2027."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from tests.support import Customer, Row, World, runtime, tariff
from tollkeeper.gateways.supplier import Suppliers
from tollkeeper.services.commitments import Commitments
from tollkeeper.services.did_inventory import load_inventory
from tollkeeper.services.supplies import Supplies, make_supplies
from tollkeeper.services.verify import verify
from tollkeeper.wiring import new_id

ROMAN, MILANESE, FREE = "390612345678", "390287654321", "80012345"
INVENTORY = f"""number,country,kind,item,quarantine_days,grace_days
{ROMAN},IT,geographic,,10,3
{MILANESE},it,,,,
+{FREE},US,toll-free,999,0,7
"""


def at(text: str) -> datetime:
    """A moment in UTC."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


class Clock:
    """A clock that a test sets."""

    def __init__(self, now: str) -> None:
        self.now = at(now)

    def __call__(self) -> datetime:
        """The time now."""
        return self.now


@dataclass
class Numbers:
    """Acme buys from south, which buys from north, which buys from the operator."""

    world: World
    parts: Any
    clock: Clock
    gateway: Suppliers
    supplies: Supplies
    north: Customer
    south: Customer
    acme: Customer

    def again(self) -> Supplies:
        """Another process's use cases, on the same database."""
        return make_supplies(
            database=self.parts.database,
            charging=self.parts.charging,
            gateway=self.gateway,
            clock=self.clock,
            new_id=new_id,
        )

    def minimums(self) -> Commitments:
        """The use cases of commitments."""
        return Commitments(
            self.parts.database, self.parts.directory, self.parts.charging, self.clock
        )

    def spent(self) -> tuple[Decimal, ...]:
        """What acme, south and north have paid."""
        return tuple(
            Decimal(1000) - self.world.wallet(one).balance
            for one in (self.acme, self.south, self.north)
        )

    async def order(self, number: str = ROMAN, request: str = "d1", **more: Any) -> Any:
        """Order a number for acme."""
        return await self.supplies.dids.order(
            **{"party": "acme", "number": number, "request_id": request, "actor": "test", **more}
        )

    async def load(self, text: str = INVENTORY) -> Any:
        """Import an inventory."""
        return await load_inventory(
            self.parts.database, text.encode(), now=self.clock(), actor="test"
        )

    def status(self, number: str = ROMAN) -> str:
        """Where a number stands."""
        return str(self.world.one("SELECT status FROM did WHERE number = %s", number))

    def forward(self, moment: str) -> None:
        """Let time pass; the days in between are not needed."""
        self.clock.now = at(moment)
        self.world.sql("SELECT ensure_partitions(%s::date - 1, 2)", self.clock.now.date())

    async def run_until(self, moment: str, *, process: Supplies | None = None) -> None:
        """Let time pass, and the jobs look."""
        self.forward(moment)
        supplies = process or self.supplies
        while await supplies.fees.go_on() + await supplies.dids.go_on():
            pass

    async def proven(self) -> None:
        """The books hold."""
        report = await verify(self.parts.database)
        assert report.clean, report.findings


def plan(world: World, code: str, setup: str, monthly: str, **terms: Any) -> int:
    """A plan of numbers, of fees in class 7 and of calls at 0.6 a minute."""
    cards = [
        world.card(f"{code}-setup", [Row("", "All", tariff(setup))], service="did_setup", per=1),
        world.card(
            f"{code}-did",
            [Row("39", "Italy", tariff(monthly)), Row("999", "Free", tariff("50"))],
            service="did",
            per=1,
        ),
        world.card(f"{code}-fee", [Row("7", "Line", tariff(monthly))], service="fee", per=1),
        world.card(f"{code}-voice", [Row("", "World", tariff("0.6"))]),
        world.card(f"{code}-in", [Row("39", "Italy", tariff("0.06"))], service="voice_in"),
    ]
    return world.plan(code, *cards, terms=terms or None)


@asynccontextmanager
async def numbers(
    url: str,
    *,
    now: str = "2027-04-16T09:00",
    zone: str = "Europe/Rome",
    monthly: tuple[str, str, str] = ("10", "7", "4"),
    **terms: Any,
) -> AsyncIterator[Numbers]:
    """Set-up costs acme 5, south 3 and north 1; a month 10, 7 and 4; each has 1000 dollars."""
    clock, gateway = Clock(now), Suppliers()
    with World(url) as world:
        world.sql("SELECT ensure_partitions(%s::date - 1, 2)", clock.now.date())
        retail = plan(world, "n-retail", "5", monthly[0], **terms)
        middle, top = plan(world, "n-sub", "3", monthly[1]), plan(world, "n-top", "1", monthly[2])
        north = world.reseller("north", balance="1000", plan=top)
        south = world.reseller("south", balance="1000", plan=middle, parent=north)
        acme = world.customer(balance="1000", plan=retail, parent=south, timezone=zone)
        async with runtime(url, clock=clock) as parts:
            supplies = make_supplies(
                database=parts.database,
                charging=parts.charging,
                gateway=gateway,
                clock=clock,
                new_id=new_id,
            )
            made = Numbers(world, parts, clock, gateway, supplies, north, south, acme)
            await made.load()
            try:
                yield made
            finally:
                await gateway.close()
