"""What the tests of rate cards share: a small sheet, and short ways to import and activate it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import psycopg

from tollkeeper.services import rates
from tollkeeper.services.rates import ImportReport, RateVersion
from tollkeeper.store.db import Database

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
LATER = NOW + timedelta(days=30)
FIRST = b"""prefix,destination,rate,increments
44,United Kingdom,0.02,1/1
447,United Kingdom Mobile,0.05,60/60
49,Germany,0.01,30/6
"""


@asynccontextmanager
async def with_card(url: str) -> AsyncIterator[Database]:
    """A database with the empty card "retail"."""
    opened = Database(url, size=6)
    await opened.open()
    await rates.create_card(opened, code="retail", currency="USD", actor="test")
    yield opened
    await opened.close()


async def load(
    database: Database, data: bytes, *, card: str = "retail", now: datetime = NOW, **more: object
) -> ImportReport:
    return await rates.import_sheet(
        database,
        card=card,
        data=data,
        actor="test",
        now=now,
        **more,  # type: ignore[arg-type]
    )


async def activate(
    database: Database, version: int | None, *, card: str = "retail", **more: bool
) -> RateVersion:
    assert version is not None
    return await rates.activate(database, card=card, version=version, actor="test", now=NOW, **more)


async def load_active(database: Database, data: bytes, **more: object) -> ImportReport:
    report = await load(database, data, **more)
    await activate(database, report.version)
    return report


async def price_of(database: Database, number: str, at: datetime = NOW) -> Decimal:
    found = await rates.lookup(database, number, card="retail", now=at)
    return found.chosen.row.tariff.next_price


def rows_in(url: str, query: str) -> list[tuple[object, ...]]:
    with psycopg.connect(url) as connection:
        return connection.execute(query).fetchall()  # type: ignore[call-overload, no-any-return]


def everything(url: str) -> list[list[tuple[object, ...]]]:
    tables = ("rate_card", "rate_version", "rate_row", "rate_refusal", "rate_change", "audit")
    return [rows_in(url, f"SELECT * FROM {table} ORDER BY 1, 2") for table in tables]
