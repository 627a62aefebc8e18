"""What is asked about files of records, their batches and mismatches; and the care of what they left."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date, datetime
from decimal import Decimal

from psycopg.types.json import Jsonb

from tollkeeper.store.db import Connection, queries
from tollkeeper.store.usage_files import CdrFile, NewFile, lock_key

_SQL = queries("cdr_files")


@dataclass(frozen=True, slots=True)
class FileFilter:
    """Which files are meant; None is any. ``since`` is when they were first seen."""

    switch: str | None = None
    status: str | None = None
    since: datetime | None = None


@dataclass(frozen=True, slots=True)
class BatchFilter:
    """Which batches are meant; None is any."""

    kind: str | None = None
    file_id: int | None = None
    switch: str | None = None


@dataclass(frozen=True, slots=True)
class MismatchFilter:
    """Which mismatches are meant: of calls of the days ``first`` to ``last``; None is any."""

    first: date
    last: date
    kind: str | None = None
    customer: int | None = None


@dataclass(frozen=True, slots=True)
class Batch:
    """One committed step; ``undone_by`` is the batch that took it back.

    ``summary`` holds for people what it did: counts by quarantine reason and mismatch, and sums.
    """

    id: int
    kind: str
    file_id: int | None
    file: str
    switch: str
    first_line: int
    last_line: int
    records: int
    rated: int
    matched: int
    duplicate: int
    quarantined: int
    skipped: int
    actor: str
    note: str
    summary: Mapping[str, object]
    at: datetime
    undone_by: int | None


@dataclass(frozen=True, slots=True)
class MismatchRow:
    """Something about a record in the books that does not fit; parties by code, "" for nobody."""

    id: int
    kind: str
    day: date
    batch_id: int
    file_id: int | None
    file: str
    line: int
    call_id: str
    customer: str
    vendor: str
    session_id: str | None
    expected: str
    found: str
    detail: str
    at: datetime


@dataclass(frozen=True, slots=True)
class OldHalf:
    """A begin or an end of a call whose other one has not come; ``record`` is the JSON of a usage."""

    file_id: int
    key: str
    begins: bool
    at: datetime
    line: int
    raw: str
    record: str | None


async def read_files(
    connection: Connection, wanted: FileFilter, *, before: int | None, limit: int
) -> list[CdrFile]:
    """Read files below a number, the newest first."""
    values = {**asdict(wanted), "before": before, "limit": limit}
    rows = await (await connection.execute(_SQL["files"], values)).fetchall()
    return [CdrFile(**row) for row in rows]


async def read_batches(
    connection: Connection, wanted: BatchFilter, *, before: int | None, limit: int
) -> list[Batch]:
    """Read batches below a number, the newest first."""
    values = {**asdict(wanted), "before": before, "limit": limit}
    rows = await (await connection.execute(_SQL["batches"], values)).fetchall()
    return [Batch(**row) for row in rows]


async def count_reasons(connection: Connection, file_id: int) -> list[tuple[str, str, int]]:
    """How many records of a file were put aside: (reason, status, count)."""
    rows = await (await connection.execute(_SQL["reasons"], (file_id,))).fetchall()
    return [(row["reason"], row["status"], row["records"]) for row in rows]


async def read_money(
    connection: Connection, batches: Sequence[int], days: Sequence[date]
) -> list[tuple[str, str, Decimal, int]]:
    """What batches posted on these days: (currency, code, sum, entries)."""
    values = {"batches": list(batches), "days": list(days)}
    rows = await (await connection.execute(_SQL["file_money"], values)).fetchall()
    return [(row["currency"], row["code"], row["amount"], row["entries"]) for row in rows]


async def read_currencies(connection: Connection, wallets: Sequence[int]) -> dict[int, str]:
    """The currencies of wallets."""
    rows = await (await connection.execute(_SQL["wallet_currencies"], (list(wallets),))).fetchall()
    return {row["id"]: row["currency"] for row in rows}


async def read_mismatches(
    connection: Connection, wanted: MismatchFilter, *, before: int | None, limit: int
) -> list[MismatchRow]:
    """Read mismatches below a number, the newest first; those of what was taken back are gone."""
    values = {**asdict(wanted), "before": before, "limit": limit}
    rows = await (await connection.execute(_SQL["mismatches"], values)).fetchall()
    return [MismatchRow(**row) for row in rows]


async def count_mismatches(connection: Connection, wanted: MismatchFilter) -> dict[str, int]:
    """How many mismatches of each kind are listed; the kind of the filter does not matter."""
    rows = await (await connection.execute(_SQL["count_mismatches"], asdict(wanted))).fetchall()
    return {row["kind"]: row["records"] for row in rows}


# --- care ----------------------------------------------------------------------------------------


async def switches_with_old_halves(connection: Connection, before: datetime) -> list[str]:
    """The switches that have halves from before a moment, in files that came before it."""
    rows = await (
        await connection.execute(_SQL["switches_with_old_halves"], {"before": before})
    ).fetchall()
    return [row["switch"] for row in rows]


async def take_old_halves(connection: Connection, switch: str, before: datetime) -> list[OldHalf]:
    """Remove the halves of a switch from before a moment, and give them."""
    values = {"switch": switch, "before": before}
    rows = await (await connection.execute(_SQL["take_old_halves"], values)).fetchall()
    return [OldHalf(**row) for row in rows]


async def add_counts(connection: Connection, file_id: int, quarantined: int) -> None:
    """Count records of a file that were put aside after it was loaded."""
    await connection.execute(_SQL["add_counts"], {"id": file_id, "records": quarantined})


async def set_reading(connection: Connection, file_id: int, new: NewFile) -> None:
    """Store how a file is to be read: its format, mapping and time zone."""
    mapping = None if new.mapping is None else Jsonb(dict(new.mapping))
    await connection.execute(_SQL["set_reading"], (new.format, mapping, new.timezone, file_id))


async def is_loading(connection: Connection, switch: str) -> bool:
    """Whether somebody is loading records of a switch just now."""
    row = await (await connection.execute(_SQL["is_loading"], {"key": lock_key(switch)})).fetchone()
    return row is not None and bool(row["loading"])


async def loaded_days(connection: Connection, since: datetime) -> list[date]:
    """The days of records that batches have written since a moment."""
    rows = await (await connection.execute(_SQL["loaded_days"], (since,))).fetchall()
    return [row["day"] for row in rows]


async def summarize(connection: Connection, days: Sequence[date]) -> int:
    """Bring the block range indexes of the records of these days up to date; how many ranges."""
    row = await (await connection.execute(_SQL["summarize"], (list(days),))).fetchone()
    return int(row["ranges"] or 0) if row is not None else 0


async def ended_calls(connection: Connection, limit: int) -> list[int]:
    """Records in quarantine because their call was being charged live, and is no more."""
    rows = await (await connection.execute(_SQL["ended_calls"], (limit,))).fetchall()
    return [row["id"] for row in rows]


async def read_switches(connection: Connection) -> list[str]:
    """The switches that charge live, or whose records are or were taken."""
    rows = await (await connection.execute(_SQL["switches"])).fetchall()
    return [row["switch"] for row in rows]
