"""Meters as they are made and looked at; only the charging lane counts on them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from tollkeeper.core.money import ZERO
from tollkeeper.core.terms import Meter
from tollkeeper.store.db import Connection, queries

_SQL = queries("meters")


@dataclass(frozen=True, slots=True)
class MeterKey:
    """What a meter counts: of whom, what, and from when on (UTC). No two meters have the same."""

    party_id: int
    kind: str
    code: str
    begins_at: datetime


async def find_meter(connection: Connection, key: MeterKey) -> tuple[int, Decimal | None] | None:
    """Return id and cap of a meter."""
    values = (key.party_id, key.kind, key.code, key.begins_at)
    row = await (await connection.execute(_SQL["find"], values)).fetchone()
    return (row["id"], row["cap"]) if row is not None else None


async def add_meter(
    connection: Connection,
    key: MeterKey,
    *,
    ends_at: datetime | None,
    unit: str,
    cap: Decimal | None,
) -> int | None:
    """Insert a meter that stands at 0; None where there is one. Waits for who is just inserting it."""
    values = (key.party_id, key.kind, key.code, key.begins_at, unit, ends_at, cap)
    row = await (await connection.execute(_SQL["add"], values)).fetchone()
    return row["id"] if row is not None else None


async def set_cap(connection: Connection, meter_id: int, cap: Decimal | None) -> None:
    """Change the cap of a meter and tell all processes, unless it is that already."""
    await connection.execute(_SQL["set_cap"], {"id": meter_id, "cap": cap})


async def unused_before(connection: Connection, key: MeterKey) -> Decimal:
    """Return what is left of the meter that ended when this one begins; 0 where there was none."""
    values = (key.party_id, key.kind, key.code, key.begins_at)
    row = await (await connection.execute(_SQL["unused"], values)).fetchone()
    return ZERO if row is None or row["unused"] is None else row["unused"]


async def read_meters(connection: Connection, ids: Iterable[int]) -> dict[int, Meter]:
    """Read meters as they stand."""
    rows = await (await connection.execute(_SQL["states"], (list(ids),))).fetchall()
    return {row["id"]: Meter(**row) for row in rows}
