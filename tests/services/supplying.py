"""A customer who can buy eSIMs and lookups, a supplier on loopback, and processes that die at a step."""

from __future__ import annotations

import copy
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from psycopg.types.json import Jsonb

from tests.gateways.platform import SECRET, SETTINGS, Platform, platform
from tests.support import Row, World, runtime, tariff
from tollkeeper.gateways.supplier import SupplierGateway, Suppliers
from tollkeeper.services.supplies import Supplies, make_supplies
from tollkeeper.services.verify import verify
from tollkeeper.wiring import new_id

ITEMS = {
    "eu-5gb": {
        "rate_key": "3005",
        "name": "Europe 5 GB",
        "supplier_item": "EU5",
        "data_bytes": 5_000_000_000,
        "package": "esim",
        "days": 30,
    },
    "payg": {"rate_key": "31", "name": "Pay as you go", "days": 365},
    "unpriced": {"rate_key": "77"},
}


class Died(BaseException):
    """The process ended here; nothing catches it on its way."""


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = datetime.now(UTC)

    def __call__(self) -> datetime:
        """The time now."""
        return self.now

    def forward(self, **span: Any) -> None:
        """Let time pass."""
        self.now += timedelta(**span)


def sell(world: World, service: str, *rows: Row) -> None:
    """Put a card of a service, priced per item, into the plan."""
    card_id = world.card(service, rows)
    world.sql("UPDATE rate_card SET service = %s, per = 1 WHERE id = %s", service, card_id)
    world.sql(
        "INSERT INTO rate_plan_card (plan_id, position, card_id)"
        " SELECT %s, max(position) + 1, %s FROM rate_plan_card",
        world.plan_id,
        card_id,
    )


def add_supplier(
    world: World, url: str, *, code: str = "sky", kind: str = "esim", **changes: Any
) -> None:
    """The made-up supplier; ``changes`` are settings."""
    settings = {**copy.deepcopy(SETTINGS), "items": ITEMS, **changes}
    world.sql(
        "INSERT INTO supplier (code, kind, base_url, secret, settings) VALUES (%s, %s, %s, %s, %s)"
        " ON CONFLICT (code) DO UPDATE SET settings = excluded.settings, base_url = excluded.base_url",
        code,
        kind,
        url,
        SECRET,
        Jsonb(settings),
    )


@dataclass
class Shop:
    """What the tests of buying work with."""

    world: World
    parts: Any
    sky: Platform
    supplies: Supplies
    clock: Clock
    gateway: SupplierGateway

    def again(self) -> Supplies:
        """Another process's use cases, on the same database."""
        return make_supplies(
            database=self.parts.database,
            charging=self.parts.charging,
            gateway=self.gateway,
            clock=self.clock,
            new_id=new_id,
        )

    def money(self) -> tuple[Decimal, Decimal]:
        """What acme has spent, and what is held."""
        (row,) = self.world.sql(
            "SELECT w.debited, w.held FROM wallet w JOIN party p ON p.id = w.party_id WHERE p.code = 'acme'"
        )
        return row["debited"].normalize() + 0, row["held"].normalize() + 0

    async def jobs(self, times: int = 6, **step: Any) -> Supplies:
        """Let a process's jobs run, with time between the rounds."""
        other = self.again()
        for _ in range(times):
            self.clock.forward(**(step or {"seconds": 40}))
            await other.purchases.keep_holds()
            await other.purchases.advance()
            await other.lookups.advance()
        return other

    async def clean(self) -> bool:
        """The books prove themselves."""
        return (await verify(self.parts.database)).clean


@asynccontextmanager
async def shop(url: str, *, balance: str = "100", **changes: Any) -> AsyncIterator[Shop]:
    """Acme buys eSIMs for 9 or 2, lookups for 0.005 (0.001 from what is kept)."""
    clock = Clock()
    with World(url) as world:
        sell(world, "esim", Row("3005", "5 GB", tariff("9")), Row("31", "PAYG", tariff("2")))
        sell(world, "lookup", Row("49", "Germany", tariff("0.005")))
        sell(world, "lookup_cached", Row("", "Anything", tariff("0.001")))
        world.customer("acme", balance=balance)
        gateway = Suppliers()
        async with platform() as sky, runtime(url, clock=clock) as parts:
            add_supplier(world, sky.url, **changes)
            supplies = make_supplies(
                database=parts.database,
                charging=parts.charging,
                gateway=gateway,
                clock=clock,
                new_id=new_id,
            )
            try:
                yield Shop(world, parts, sky, supplies, clock, gateway)
            finally:
                await gateway.close()
