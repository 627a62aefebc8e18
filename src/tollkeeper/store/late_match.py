"""Reading what is needed to find sessions that closed after their records had been priced."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal

from tollkeeper.store.db import Connection, queries

_SQL = queries("late_match")


@dataclass(frozen=True, slots=True)
class PricedRecord:
    """A record whose customer was charged by the file: where it is, and what the leg costs now."""

    day: date
    batch_id: int
    line: int
    call_id: str
    customer_id: int
    vendor_id: int
    start_at: datetime
    wallet_id: int
    version_id: int
    row_no: int
    prefix: str
    destination: str
    billed: int
    amount: Decimal
    trunk_in: int
    trunk_out: int
    service: str
    sell_currency: str
    buy_currency: str


async def lock_mark(connection: Connection) -> datetime | None:
    """Up to when closed sessions have been looked at; locks out others. None: never yet."""
    row = await (await connection.execute(_SQL["mark"])).fetchone()
    assert row is not None
    upto: datetime | None = row["upto"]
    return upto


async def set_mark(connection: Connection, upto: datetime) -> None:
    """Note up to when closed sessions have been looked at."""
    await connection.execute(_SQL["set_mark"], (upto,))


async def closed_since(
    connection: Connection, since: datetime, until: datetime, first_day: date
) -> list[tuple[str, date, datetime]]:
    """Sessions that closed in (since, until] and were charged: (key, day of opening, closed at)."""
    values = {"since": since, "until": until, "first_day": first_day}
    rows = await (await connection.execute(_SQL["closed_since"], values)).fetchall()
    return [(row["key"], row["opened_day"], row["closed_at"]) for row in rows]


async def days_with_files(
    connection: Connection, first: date, last: date, switches: Sequence[str]
) -> list[tuple[str, date]]:
    """Switches and days of which records are in the books."""
    rows = await (await connection.execute(_SQL["days"], (first, last, list(switches)))).fetchall()
    return [(row["switch"], row["day"]) for row in rows]


async def read_matches(
    connection: Connection, day: date, switch: str, after: int
) -> list[tuple[int, bytes]]:
    """The packed session keys of records that were priced by files: (id, keys)."""
    rows = await (
        await connection.execute(_SQL["matches"], (day, switch, after), binary=True)
    ).fetchall()
    return [(row["id"], bytes(row["matches"])) for row in rows]


async def read_priced(
    connection: Connection, switch: str, call_id: str, days: Sequence[date]
) -> list[PricedRecord]:
    """The records of a call whose customer was charged by a file and still is."""
    values = {"switch": switch, "call_id": call_id, "days": list(days)}
    rows = await (await connection.execute(_SQL["priced_records"], values)).fetchall()
    return [PricedRecord(**row) for row in rows]
