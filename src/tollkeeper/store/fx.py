"""Exchange rates by day, and where North American office codes lie."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal

from tollkeeper.store.db import Connection, queries

_SQL = queries("fx")


@dataclass(frozen=True, slots=True)
class DatedRate:
    """One unit of ``base`` costs ``rate`` units of ``quote`` from ``day`` on, until the next one."""

    base: str
    quote: str
    day: date
    rate: Decimal
    source: str
    loaded_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class OfficeCode:
    """Where a North American office code (NPA-NXX, six digits) lies."""

    npanxx: str
    state: str
    lata: str = ""
    ocn: str = ""


async def read_recent(connection: Connection, since: date) -> list[DatedRate]:
    """Read the rates from a day on."""
    rows = await (await connection.execute(_SQL["recent"], (since,))).fetchall()
    return [DatedRate(**row) for row in rows]


async def read_days(connection: Connection, first: date, last: date) -> list[DatedRate]:
    """Read the rates of some days, the first and the last one included."""
    rows = await (await connection.execute(_SQL["days"], (first, last))).fetchall()
    return [DatedRate(**row) for row in rows]


async def read_rates(
    connection: Connection,
    *,
    base: str | None,
    quote: str | None,
    day: date | None,
    before: tuple[date, str, str] | None,
    limit: int,
) -> list[DatedRate]:
    """Read rates, the newest day first; ``day``: of each pair the one in force on that day."""
    last = before or (None, None, None)
    values = {"base": base, "quote": quote, "day": day, "limit": limit}
    sql = _SQL["in_force"] if day is not None else _SQL["rates"]
    given = {**values, "last_day": last[0], "last_base": last[1], "last_quote": last[2]}
    rows = await (await connection.execute(sql, given)).fetchall()
    return [DatedRate(**row) for row in rows]


async def read_rate(connection: Connection, base: str, quote: str, day: date) -> DatedRate | None:
    """Read the rate that was given for this very day."""
    row = await (await connection.execute(_SQL["rate"], (base, quote, day))).fetchone()
    return DatedRate(**row) if row is not None else None


async def write_rates(connection: Connection, rates: Sequence[DatedRate]) -> tuple[int, int]:
    """Store rates; returns how many are new, and how many had another value before."""
    values = (
        [rate.base for rate in rates],
        [rate.quote for rate in rates],
        [rate.day for rate in rates],
        [rate.rate for rate in rates],
        [rate.source for rate in rates],
    )
    rows = await (await connection.execute(_SQL["write"], values)).fetchall()
    added = sum(1 for row in rows if row["added"])
    return added, len(rows) - added


async def currency_pairs(connection: Connection) -> set[tuple[str, str]]:
    """The pairs that there is any rate of."""
    rows = await (await connection.execute(_SQL["pairs"])).fetchall()
    return {(row["base"], row["quote"]) for row in rows}


async def read_places(connection: Connection) -> dict[str, str]:
    """The state of each office code."""
    places: dict[str, str] = {}
    state_of = places.setdefault
    names: dict[str, str] = {}
    for row in await (await connection.execute(_SQL["places"])).fetchall():
        state = row["state"]
        state_of(row["npanxx"], names.setdefault(state, state))
    return places


async def write_places(connection: Connection, codes: Iterable[OfficeCode]) -> int:
    """Store office codes, in place of what was known of them; returns how many changed or are new."""
    listed = list(codes)
    values = (
        [one.npanxx for one in listed],
        [one.state for one in listed],
        [one.lata for one in listed],
        [one.ocn for one in listed],
    )
    cursor = await connection.execute(_SQL["write_places"], values)
    return cursor.rowcount


async def clear_places(connection: Connection) -> None:
    """Forget all office codes."""
    await connection.execute(_SQL["clear_places"])


async def count_places(connection: Connection) -> int:
    """How many office codes are known."""
    row = await (await connection.execute(_SQL["count_places"])).fetchone()
    return int(row["known"]) if row is not None else 0
