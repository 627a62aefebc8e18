"""Our side of a comparison: the legs of one party, or the records of one switch, day by day."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import date, datetime
from typing import Literal

import polars as pl
from psycopg import sql

from tollkeeper.bulk.reconcile import AMOUNT_MAX, OURS
from tollkeeper.core.money import SCALE
from tollkeeper.core.numbering import DialRules
from tollkeeper.store.db import Connection, queries
from tollkeeper.store.directory import dial_rules_of
from tollkeeper.store.usage_search import no_time_limit

Side = Literal["customer", "reseller", "vendor", "switch"]

CHUNK_BYTES = 8 * 1024 * 1024
"""Lines are made into a frame when so many bytes of them are there."""

_SQL = queries("reconcile")


@dataclass(frozen=True, slots=True)
class Whose:
    """Which records: of a party (its id), or of a switch. ``currency`` is that of the amounts."""

    side: Side
    currency: str
    party: int = 0
    switch: str = ""


@dataclass(frozen=True, slots=True)
class Partner:
    """A party as a comparison needs it; ``currencies`` are those of its wallets."""

    id: int
    code: str
    kind: str
    dial_rules: DialRules
    currencies: tuple[str, ...]


async def read_partner(connection: Connection, code: str) -> Partner | None:
    """Read a party by code."""
    row = await (await connection.execute(_SQL["party"], (code,))).fetchone()
    if row is None:
        return None
    return Partner(
        id=row["id"],
        code=row["code"],
        kind=row["kind"],
        dial_rules=dial_rules_of(row["dial_rules"]),
        currencies=tuple(row["currencies"]),
    )


async def is_known_switch(connection: Connection, switch: str) -> bool:
    """Tell whether records of this switch ever came, or are to come."""
    row = await (await connection.execute(_SQL["known_switch"], {"switch": switch})).fetchone()
    return row is not None and bool(row["known"])


async def count_held(connection: Connection, switch: str) -> int:
    """Count the records of a switch that are in quarantine."""
    row = await (await connection.execute(_SQL["held"], (switch,))).fetchone()
    return 0 if row is None else int(row["held"])


async def archived_days(connection: Connection, first: date, last: date) -> list[date]:
    """The days from ``first`` to ``last`` that are not in the database any more."""
    rows = await (await connection.execute(_SQL["archived"], (first, last))).fetchall()
    return [row["day"] for row in rows]


async def copy_day(
    connection: Connection, whose: Whose, day: date, *, since: datetime, until: datetime
) -> AsyncIterator[pl.DataFrame]:
    """Read what began on ``day`` (UTC) and in [since, until), as frames of the schema ``OURS``.

    One statement a day, so that no snapshot is held for long. Needs a transaction.
    """
    values = {
        "day": day,
        "since": since,
        "until": until,
        "currency": whose.currency,
        "party": whose.party,
        "switch": whose.switch,
        "most": AMOUNT_MAX // 10**SCALE,
    }
    await no_time_limit(connection)
    statement = sql.SQL("COPY ({}) TO STDOUT (FORMAT csv)").format(sql.SQL(_SQL[whose.side]))
    held = bytearray()
    async with connection.cursor() as cursor, cursor.copy(statement, values) as copy:
        async for line in copy:
            held += line
            if len(held) >= CHUNK_BYTES:
                yield _frame(bytes(held))
                held.clear()
    if held:
        yield _frame(bytes(held))


def _frame(lines: bytes) -> pl.DataFrame:
    # PostgreSQL writes an empty text as "" and leaves the cell of a null empty; Polars reads it so.
    return pl.read_csv(io.BytesIO(lines), has_header=False, schema=OURS)
