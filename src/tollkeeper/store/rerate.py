"""Reading records to price them anew, and what is needed to take batches back."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal

import polars as pl
from psycopg import sql
from psycopg.types.json import Jsonb

from tollkeeper.core.usage import EFFECTIVE_Q850, EFFECTIVE_SIP
from tollkeeper.store.db import Connection, queries

_SQL = queries("rerate")

RECORDS = pl.Schema(
    {
        "line": pl.Int64(), "start": pl.Int64(), "answer": pl.Int64(), "duration_ms": pl.Int64(),
        "called": pl.String(), "service": pl.String(), "customer_id": pl.Int64(),
        "vendor_id": pl.Int64(), "trunk_in": pl.Int64(), "trunk_out": pl.Int64(),
        "sip": pl.Int16(), "q850": pl.Int16(), "pdd_ms": pl.Int32(), "state": pl.String(),
        "destination": pl.String(), "prefix": pl.String(), "sell_wallet": pl.Int64(),
        "sell_billed": pl.Int64(), "charge": pl.Int64(), "buy_wallet": pl.Int64(),
        "buy_billed": pl.Int64(), "cost": pl.Int64(), "sell_currency": pl.String(),
        "buy_currency": pl.String(),
    }
)  # fmt: skip
"""Records at their present value: times in microseconds, money in 10^-8."""

LEGS = pl.Schema(
    {
        "line": pl.Int64(), "level": pl.Int64(), "party_id": pl.Int64(), "wallet_id": pl.Int64(),
        "amount": pl.Int64(),
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Selection:
    """Which records: calls that began in [since, until), and None is any.

    ``called`` is a prefix of the called number, the others are ids and a destination's name.
    """

    since: datetime
    until: datetime
    customer: int | None = None
    vendor: int | None = None
    called: str | None = None
    destination: str | None = None
    file_id: int | None = None


@dataclass(frozen=True, slots=True)
class BatchRow:
    """A batch that may be taken back."""

    id: int
    kind: str
    file_id: int | None
    switch: str
    undone_by: int | None


async def read_days(connection: Connection, wanted: Selection) -> list[date]:
    """The days with such records, whether they are in the database or archived."""
    # The end is exclusive: a period up to midnight has nothing of the day that begins then.
    last = (wanted.until - timedelta(microseconds=1)).date()
    values = {"since": wanted.since.date(), "until": last, "file_id": wanted.file_id}
    rows = await (await connection.execute(_SQL["days"], values)).fetchall()
    return [row["day"] for row in rows]


async def read_batches(connection: Connection, wanted: Selection, day: date) -> list[int]:
    """The batches that have records of a day and were not taken back."""
    values = {"day": day, "file_id": wanted.file_id}
    rows = await (await connection.execute(_SQL["batches"], values)).fetchall()
    return [row["batch_id"] for row in rows]


async def read_records(
    connection: Connection, wanted: Selection, day: date, batch_id: int
) -> pl.DataFrame:
    """One batch's records of a day, a frame of :data:`RECORDS`; needs a transaction."""
    values = {
        "day": day, "batch_id": batch_id, "since_at": wanted.since, "until_at": wanted.until,
        "customer": wanted.customer, "vendor": wanted.vendor, "called": wanted.called,
        "destination": wanted.destination,
    }  # fmt: skip
    return await copy_frame(connection, "records", values, RECORDS)


async def read_legs(connection: Connection, day: date, batch_id: int) -> pl.DataFrame:
    """The resellers' legs of one batch's records of a day, a frame of :data:`LEGS`."""
    return await copy_frame(connection, "legs", {"day": day, "batch_id": batch_id}, LEGS)


async def copy_frame(
    connection: Connection, query: str, values: Mapping[str, object], schema: pl.Schema
) -> pl.DataFrame:
    """What a query of ``rerate.sql`` selects, as a frame."""
    statement = sql.SQL("COPY ({}) TO STDOUT (FORMAT csv)").format(sql.SQL(_SQL[query]))
    held = bytearray()
    async with connection.cursor() as cursor, cursor.copy(statement, values) as copy:
        async for line in copy:
            held += line
    if not held:
        return pl.DataFrame(schema=schema)
    # PostgreSQL writes an empty text as "" and leaves the cell of a null empty; Polars reads it so.
    return pl.read_csv(io.BytesIO(held), has_header=False, schema=schema)


async def archived_days(connection: Connection, days: Sequence[date]) -> list[date]:
    """Those of the days that are archived."""
    rows = await (await connection.execute(_SQL["archived"], (list(days),))).fetchall()
    return [row["day"] for row in rows]


async def days_of_batches(connection: Connection, batches: Sequence[int]) -> list[date]:
    """The days that batches have records of."""
    rows = await (await connection.execute(_SQL["days_of_batches"], (list(batches),))).fetchall()
    return [row["day"] for row in rows]


async def lock_batch(connection: Connection, batch_id: int) -> BatchRow | None:
    """Read and lock a batch."""
    row = await (await connection.execute(_SQL["batch"], (batch_id,))).fetchone()
    return None if row is None else BatchRow(**row)


async def later_reratings(connection: Connection, batches: Sequence[int]) -> list[int]:
    """Re-ratings that still count of records that these batches wrote."""
    rows = await (await connection.execute(_SQL["later_revisions"], (list(batches),))).fetchall()
    return [row["by_batch"] for row in rows]


async def revisions_after(connection: Connection, batch_id: int) -> list[int]:
    """Batches that still count and revised the same legs after this one."""
    rows = await (await connection.execute(_SQL["revisions_after"], (batch_id,))).fetchall()
    return [row["by_batch"] for row in rows]


async def present_money(
    connection: Connection, batches: Sequence[int], days: Sequence[date]
) -> list[tuple[int, str, Decimal]]:
    """What batches have cost each wallet as it stands: (wallet, rated or cost, amount)."""
    values = {"batches": list(batches), "days": list(days)}
    rows = await (await connection.execute(_SQL["present_money"], values)).fetchall()
    return [(row["wallet_id"], row["code"], row["amount"]) for row in rows]


async def entries_of_batch(connection: Connection, batch_id: int) -> list[tuple[int, str, Decimal]]:
    """What a batch posted: (wallet, code, amount)."""
    rows = await (await connection.execute(_SQL["entries_of_batch"], (batch_id,))).fetchall()
    return [(row["wallet_id"], row["code"], row["amount"]) for row in rows]


async def take_back_hours(
    connection: Connection, by: int, batches: Sequence[int], days: Sequence[date]
) -> None:
    """Take the records of batches out of the hourly sums."""
    values = {
        "by": by, "batches": list(batches), "days": list(days),
        "effective_q850": sorted(EFFECTIVE_Q850), "effective_sip": sorted(EFFECTIVE_SIP),
    }  # fmt: skip
    await connection.execute(_SQL["take_back_hours"], values)


async def negate_hours(connection: Connection, by: int, batches: Sequence[int]) -> None:
    """Take back what re-ratings changed in the hourly sums."""
    await connection.execute(_SQL["negate_hours"], (by, list(batches)))


async def close_file(connection: Connection, file_id: int, *, at: datetime, by: str) -> None:
    """Close what a file left in quarantine, and forget the halves of calls that it brought."""
    await connection.execute(_SQL["close_quarantine"], (at, by, file_id))
    await connection.execute(_SQL["drop_file_halves"], (file_id,))


async def set_summary(
    connection: Connection, batch_id: int, summary: Mapping[str, object], note: str
) -> None:
    """Say for people what a batch has done."""
    await connection.execute(_SQL["set_summary"], (Jsonb(dict(summary)), note, batch_id))
