"""Writing records into the books: rows by binary COPY into their days, keys, and the money.

All of it is meant to happen in the one transaction that also moves the file on; only
:func:`ensure_days` comes before, in a transaction of its own. Money is int64 of 10^-8 in columns.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from uuid import UUID

import msgspec
import polars as pl
import psycopg
from psycopg.rows import tuple_row

from tollkeeper.core.ledger import Account, Code, Posting, check_posting, other_side
from tollkeeper.core.records import Session
from tollkeeper.errors import Breach
from tollkeeper.store.copy import POLARS, Kind, copy_frame
from tollkeeper.store.db import Connection, queries

_SQL = queries("usage")
_decode_session = msgspec.json.Decoder(Session).decode

DAILY = ("usage", "usage_leg", "usage_revision", "usage_hour", "usage_key")
"""The tables of records that have a partition for each day."""

USAGE: dict[str, Kind] = {
    "day": Kind.DATE, "batch_id": Kind.INT8, "line": Kind.INT8, "start_at": Kind.TIME,
    "answer_at": Kind.TIME, "duration_ms": Kind.INT8, "call_id": Kind.TEXT, "leg": Kind.TEXT,
    "caller": Kind.TEXT, "called": Kind.TEXT, "service": Kind.TEXT, "customer_id": Kind.INT8,
    "vendor_id": Kind.INT8, "trunk_in": Kind.INT8, "trunk_out": Kind.INT8, "sip": Kind.INT2,
    "q850": Kind.INT2, "pdd_ms": Kind.INT4, "mos": Kind.INT2, "state": Kind.TEXT,
    "session_id": Kind.UUID, "destination": Kind.TEXT, "sell_wallet": Kind.INT8,
    "sell_version": Kind.INT8, "sell_row": Kind.INT4, "sell_prefix": Kind.TEXT,
    "sell_billed": Kind.INT4, "charge": Kind.NUMERIC, "buy_wallet": Kind.INT8,
    "buy_version": Kind.INT8, "buy_row": Kind.INT4, "buy_prefix": Kind.TEXT,
    "buy_billed": Kind.INT4, "cost": Kind.NUMERIC,
}  # fmt: skip
LEGS: dict[str, Kind] = {
    "day": Kind.DATE, "batch_id": Kind.INT8, "line": Kind.INT8, "level": Kind.INT2,
    "party_id": Kind.INT8, "wallet_id": Kind.INT8, "version_id": Kind.INT8, "row_no": Kind.INT4,
    "prefix": Kind.TEXT, "billed": Kind.INT4, "charge": Kind.NUMERIC,
}  # fmt: skip
REVISIONS: dict[str, Kind] = {
    "day": Kind.DATE, "batch_id": Kind.INT8, "line": Kind.INT8, "leg": Kind.INT2,
    "by_batch": Kind.INT8, "wallet_id": Kind.INT8, "version_id": Kind.INT8, "row_no": Kind.INT4,
    "prefix": Kind.TEXT, "destination": Kind.TEXT, "billed": Kind.INT4, "amount": Kind.NUMERIC,
    "was": Kind.NUMERIC,
}  # fmt: skip
HOURS: dict[str, Kind] = {
    "day": Kind.DATE, "hour": Kind.TIME, "batch_id": Kind.INT8, "customer_id": Kind.INT8,
    "vendor_id": Kind.INT8, "trunk_in": Kind.INT8, "trunk_out": Kind.INT8, "service": Kind.TEXT,
    "destination": Kind.TEXT, "prefix": Kind.TEXT, "sell_currency": Kind.TEXT,
    "buy_currency": Kind.TEXT, "attempts": Kind.INT8, "answers": Kind.INT8, "effective": Kind.INT8,
    "duration_ms": Kind.INT8, "sell_billed": Kind.INT8, "buy_billed": Kind.INT8,
    "pdd_ms": Kind.INT8, "pdd_count": Kind.INT8, "revenue": Kind.NUMERIC, "cost": Kind.NUMERIC,
}  # fmt: skip
QUARANTINE: dict[str, Kind] = {
    "batch_id": Kind.INT8, "file_id": Kind.INT8, "switch": Kind.TEXT, "line": Kind.INT8,
    "reason": Kind.TEXT, "field": Kind.TEXT, "value": Kind.TEXT, "detail": Kind.TEXT,
    "raw": Kind.TEXT, "record": Kind.JSONB, "at": Kind.TIME,
}  # fmt: skip
MISMATCHES: dict[str, Kind] = {
    "kind": Kind.TEXT, "day": Kind.DATE, "batch_id": Kind.INT8, "file_id": Kind.INT8,
    "line": Kind.INT8, "call_id": Kind.TEXT, "customer_id": Kind.INT8, "vendor_id": Kind.INT8,
    "session_id": Kind.UUID, "expected": Kind.TEXT, "found": Kind.TEXT, "detail": Kind.TEXT,
    "at": Kind.TIME,
}  # fmt: skip
MEASURES = (
    "attempts", "answers", "effective", "duration_ms", "sell_billed", "buy_billed", "pdd_ms",
    "pdd_count", "revenue", "cost",
)  # fmt: skip
"""The columns of hourly sums that are added up; the others say of what they are the sums."""


def schema_of(kinds: Mapping[str, Kind]) -> pl.Schema:
    """The polars schema of a table's frame: times are microseconds since 1970, money 10^-8."""
    return pl.Schema({name: POLARS[kind] for name, kind in kinds.items()})


RATED = schema_of(USAGE)
"""The frame of rated records: the columns of the table ``usage``. Ids are 0 for nobody and nothing;
null is allowed where the table allows it."""


@dataclass(frozen=True, slots=True)
class WalletSum:
    """What a batch posts to a wallet: ``amount`` is positive, the code gives the direction.

    ``currency`` is what the amount is in ("": in whatever the wallet is); ``service`` names the
    account on the other side.
    """

    wallet_id: int
    code: Code
    amount: Decimal
    currency: str = ""
    service: str = "voice"


@dataclass(frozen=True, slots=True)
class KeyRow:
    """The keys that one batch added to a day: packed as ``bulk.keys`` has them."""

    id: int
    batch_id: int
    keys: bytes
    matches: bytes


# --- days ----------------------------------------------------------------------------------------


async def ensure_days(connection: Connection, days: Iterable[date]) -> int:
    """Make the partitions that records of these UTC days need; returns how many were made.

    Cheap where they are all there. To be called outside of the transaction that loads: other
    loads wait while the partitions are being made.
    """
    wanted = sorted(set(days))
    cursor = await connection.execute(_SQL["missing_days"], (list(DAILY), wanted))
    missing = [row["day"] for row in await cursor.fetchall()]
    made = 0
    for first, count in _runs(missing):
        row = await (
            await connection.execute(_SQL["ensure_days"], (list(DAILY), first, count))
        ).fetchone()
        assert row is not None
        made += row["made"]
    return made


def _runs(days: Sequence[date]) -> list[tuple[date, int]]:
    """Days in a row as (first, how many)."""
    runs: list[tuple[date, int]] = []
    for day in days:
        if runs and runs[-1][0] + timedelta(days=runs[-1][1]) == day:
            runs[-1] = (runs[-1][0], runs[-1][1] + 1)
        else:
            runs.append((day, 1))
    return runs


# --- rows ----------------------------------------------------------------------------------------


async def copy_usage(connection: Connection, batch_id: int, frame: pl.DataFrame) -> int:
    """Append records (the columns of :data:`RATED`) to the partitions of their days.

    Raises:
        psycopg.Error: a day has no partition, see :func:`ensure_days`; nothing is stored.
    """
    return await _copy_days(connection, "usage", USAGE, frame, batch_id=batch_id)


async def copy_legs(connection: Connection, batch_id: int, frame: pl.DataFrame) -> int:
    """Append the legs of resellers that were priced here: the columns of :data:`LEGS`."""
    return await _copy_days(connection, "usage_leg", LEGS, frame, batch_id=batch_id)


async def copy_revisions(connection: Connection, by_batch: int, frame: pl.DataFrame) -> int:
    """Append what a batch made of legs: the columns of :data:`REVISIONS`.

    ``batch_id`` and ``line`` of the frame name the record; ``by_batch`` is who revised it.
    """
    return await _copy_days(connection, "usage_revision", REVISIONS, frame, by_batch=by_batch)


async def copy_hours(connection: Connection, batch_id: int, frame: pl.DataFrame) -> int:
    """Append hourly sums: the columns of :data:`HOURS`."""
    return await _copy_days(connection, "usage_hour", HOURS, frame, batch_id=batch_id)


async def copy_quarantine(
    connection: Connection,
    frame: pl.DataFrame,
    *,
    batch_id: int,
    file_id: int | None,
    switch: str,
    at: datetime,
) -> int:
    """Put records aside: line, reason, field, value, detail, raw, and record (JSON or null)."""
    file = pl.lit(file_id, pl.Int64)
    given = frame.with_columns(
        pl.lit(batch_id, pl.Int64).alias("batch_id"), file.alias("file_id"),
        pl.lit(switch).alias("switch"), pl.lit(at).alias("at"),
    )  # fmt: skip
    return await copy_frame(connection, "cdr_quarantine", QUARANTINE, given)


async def copy_mismatches(
    connection: Connection, frame: pl.DataFrame, *, batch_id: int, file_id: int | None, at: datetime
) -> int:
    """Note what is worth a look.

    The frame has kind, day, line, call_id, customer_id, vendor_id, session_id, expected, found and
    detail.
    """
    given = frame.with_columns(
        pl.lit(batch_id, pl.Int64).alias("batch_id"),
        pl.lit(file_id, pl.Int64).alias("file_id"),
        pl.lit(at).alias("at"),
    )
    return await copy_frame(connection, "cdr_mismatch", MISMATCHES, given)


async def _copy_days(
    connection: Connection,
    table: str,
    kinds: Mapping[str, Kind],
    frame: pl.DataFrame,
    **constants: int,
) -> int:
    """Straight into the partition of each day: the rows need not be routed one by one."""
    if frame.is_empty():
        return 0
    numbers = [pl.lit(value, pl.Int64).alias(name) for name, value in constants.items()]
    given = frame.with_columns(pl.col("day").cast(pl.Date), *numbers).select(*kinds)
    one_day = given["day"].min() == given["day"].max()
    parts = [given] if one_day else given.partition_by("day", maintain_order=True)
    for part in parts:
        day: date = part["day"][0]
        await copy_frame(connection, f"{table}_{day:%Y%m%d}", kinds, part)
    return frame.height


async def compact_hours(connection: Connection, before: date) -> int:
    """Put the sums of each hour of the days before ``before`` together into one row a group.

    Returns how many rows were saved. Safe beside loads: what they add stays as it is.
    """
    saved = 0
    cursor = await connection.execute(_SQL["scattered_days"], (before,))
    for row in await cursor.fetchall():
        counted = await (
            await connection.execute(_SQL["compact_hours"], {"day": row["day"]})
        ).fetchone()
        assert counted is not None
        saved += counted["saved"]
    return saved


# --- keys ----------------------------------------------------------------------------------------


async def read_secret(connection: Connection) -> bytes:
    """The secret of the hashes, 16 bytes."""
    row = await (await connection.execute(_SQL["secret"], binary=True)).fetchone()
    assert row is not None
    return bytes(row["secret"])


async def add_keys(
    connection: Connection, batch_id: int, switch: str, day: date, *, keys: bytes, matches: bytes
) -> None:
    """Note which records of a day a batch has put into the books."""
    await connection.execute(_SQL["add_keys"], (day, switch, batch_id, keys, matches))


async def read_keys(
    connection: Connection, day: date, switch: str, *, after_id: int = 0
) -> list[KeyRow]:
    """The keys of a day that came after ``after_id``, in the order in which they were added."""
    cursor = await connection.execute(_SQL["keys"], (day, switch, after_id), binary=True)
    return [KeyRow(**row) for row in await cursor.fetchall()]


async def drop_keys(connection: Connection, batch_ids: Sequence[int]) -> int:
    """Forget the keys of batches that are taken back: their records may come again."""
    return (await connection.execute(_SQL["drop_keys"], (list(batch_ids),))).rowcount


# --- money ---------------------------------------------------------------------------------------


async def post_batch(
    connection: Connection,
    batch_id: int,
    at: datetime,
    sums: Sequence[WalletSum],
    *,
    actor: str,
    reason: str,
) -> int:
    """Post what a batch costs each wallet, in the order given; returns the number of entries.

    Locks the wallets until the transaction ends, so this comes last in it; sums of zero are left
    out. ``at`` is the time of the entries and should be read just before.

    Raises:
        Breach: a wallet is missing or in another currency, or a sum is no legal posting.
    """
    given = [each for each in sums if each.amount]
    if not given:
        return 0
    for each in given:
        check_posting(Posting(each.wallet_id, 0, each.code, each.amount))
        if other_side(each.code) not in {Account.REVENUE, Account.COST}:
            raise Breach(f"batch {batch_id} cannot post {each.code}: that is no code of records")
    columns = (
        [each.wallet_id for each in given],
        [each.code.value for each in given],
        [each.amount for each in given],
        [each.currency for each in given],
        [each.service for each in given],
    )
    try:
        cursor = await connection.execute(
            _SQL["post_batch"], (batch_id, at, actor, reason, *columns)
        )
    except psycopg.Error as error:
        if error.sqlstate in {"TK010", "TK011"}:
            raise Breach(f"{error.diag.message_primary}; nothing was posted") from error
        raise
    row = await cursor.fetchone()
    assert row is not None
    made: int = row["made"]
    return made


# --- sessions that were charged live -------------------------------------------------------------


async def new_sessions(
    connection: Connection, switch: str, since_day: date, until_day: date, closed_after: datetime
) -> tuple[list[str], datetime]:
    """Keys of sessions opened on these days (the last included) that closed after a time.

    Also the time of the last of them, which is what to ask for next (or ``closed_after``). The
    time of closing is that of the decision, written a moment later: overlap by some seconds.
    Refused ones, which charged nothing, are left out.
    """
    async with connection.cursor(row_factory=tuple_row) as cursor:
        values = (since_day, until_day, closed_after, f"{switch}/")
        await cursor.execute(_SQL["new_sessions"], values)
        rows = await cursor.fetchall()
    return [key for key, _ in rows], max((at for _, at in rows), default=closed_after)


async def live_keys(connection: Connection, switch: str) -> list[str]:
    """Keys of all sessions of a switch that are open now."""
    async with connection.cursor(row_factory=tuple_row) as cursor:
        await cursor.execute(_SQL["live_keys"], (f"{switch}/",))
        return [key for (key,) in await cursor.fetchall()]


async def sessions_by_key(
    connection: Connection,
    keys: Sequence[str],
    *,
    since_day: date = date(2000, 1, 1),
    until_day: date = date(2200, 1, 1),
) -> list[Session]:
    """Closed sessions with these keys opened on these days, by day: a key may be used again later."""
    cursor = await connection.execute(_SQL["sessions_by_key"], (list(keys), since_day, until_day))
    return [_decode_session(row["body"]) for row in await cursor.fetchall()]


async def sessions_by_id(connection: Connection, ids: Sequence[UUID]) -> dict[UUID, Session]:
    """Closed sessions by their ids."""
    cursor = await connection.execute(_SQL["sessions_by_id"], (list(ids),))
    return {row["id"]: _decode_session(row["body"]) for row in await cursor.fetchall()}
