"""What the database knows of archived days: their parts, what is to be deleted, how far was purged."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import LiteralString

import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb

from tollkeeper.store.archive_files import FileFact, Totals
from tollkeeper.store.archive_search import Part
from tollkeeper.store.db import Connection, queries

_SQL = queries("archive")

PURGED = ("usage", "usage_leg", "usage_revision", "usage_key")
"""The tables whose old days are purged. Hourly sums stay: they name no number and no call."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchivePart:
    """Records of one day that were moved out at one time.

    ``charge`` and ``cost`` are sums over all currencies: checksums. ``sha256`` is that of the file
    of records; ``files`` has all of them.
    """

    day: date
    part: int
    uri: str
    rows: int
    bytes: int
    charge: Decimal
    cost: Decimal
    sha256: str
    files: Mapping[str, Mapping[str, object]]
    at: datetime
    purged_at: datetime | None = None

    @property
    def place(self) -> Part:
        """Where it is found."""
        return Part(self.day, self.uri)


@dataclass(frozen=True, slots=True)
class PurgeDay:
    """What is kept of a day: bytes of its tables, archived parts with their rows and bytes."""

    day: date
    table_bytes: int
    parts: int
    archived_rows: int
    archived_bytes: int


# --- moving a day out ----------------------------------------------------------------------------


async def take_archiver(connection: Connection) -> bool:
    """Be the only one who archives or purges until this transaction ends; False if another is."""
    row = await (await connection.execute(_SQL["take"])).fetchone()
    assert row is not None
    return bool(row["taken"])


async def read_due(
    connection: Connection, *, before: date, quiet_since: datetime, limit: int
) -> list[date]:
    """The oldest days before ``before`` that nothing was written to after ``quiet_since``."""
    values = {"before": before, "quiet": quiet_since, "limit": limit}
    rows = await (await connection.execute(_SQL["due"], values, prepare=False)).fetchall()
    return [row["day"] for row in rows]


async def hold_day(connection: Connection, day: date) -> Totals | None:
    """Keep writers away from a day's records until the transaction ends; what they add up to.

    None when the day has no partition.
    """
    cursor = await connection.execute(_SQL["exists"], (_name("usage", day),))
    row = await cursor.fetchone()
    if row is None or not row["there"]:
        return None
    await connection.execute(_on_day(_SQL["hold"], day))
    found = await (await connection.execute(_on_day(_SQL["totals"], day))).fetchone()
    assert found is not None
    return Totals(found["rows"], found["charge"], found["cost"])


async def copy_day(connection: Connection, day: date) -> AsyncIterator[bytes]:
    """All records of a day's partition as lines of CSV, in no order, undone batches too."""
    async with (
        connection.cursor() as cursor,
        cursor.copy(_on_day(_SQL["copy"], day)) as copy,
    ):
        async for line in copy:
            yield bytes(line)


async def drop_day(connection: Connection, day: date, tables: Sequence[str]) -> bool:
    """Drop a day's partitions of these tables; False when the locks could not be had just now.

    Readers and writers of all days wait meanwhile, so it gives up after two seconds. In a
    transaction only: what it held before, it still holds when it gave up.
    """
    try:
        async with connection.transaction():
            await connection.execute(_SQL["short_wait"])
            for table in tables:
                parent = sql.SQL(_SQL["lock_parent"]).format(parent=sql.Identifier(table))
                await connection.execute(parent)
                await connection.execute(_on_day(_SQL["drop"], day, table))
    except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected):
        return False
    return True


def _name(table: str, day: date) -> str:
    return f"{table}_{day:%Y%m%d}"


def _on_day(text: LiteralString, day: date, table: str = "usage") -> sql.Composed:
    return sql.SQL(text).format(partition=sql.Identifier(_name(table, day)))


# --- parts ---------------------------------------------------------------------------------------


async def next_part(connection: Connection, day: date) -> int:
    """The number of a day's next part, from 1."""
    row = await (await connection.execute(_SQL["next_part"], (day,))).fetchone()
    assert row is not None
    number: int = row["part"]
    return number


async def add_part(
    connection: Connection,
    *,
    day: date,
    part: int,
    uri: str,
    totals: Totals,
    files: Mapping[str, FileFact],
    main: str,
    at: datetime,
) -> ArchivePart:
    """Note a part that is complete; ``main`` is the file of records among its files."""
    facts = {name: asdict(fact) for name, fact in files.items()}
    size = sum(fact.bytes for fact in files.values())
    values = (
        day, part, uri, totals.rows, size, totals.charge, totals.cost, files[main].sha256,
        Jsonb(facts), at,
    )  # fmt: skip
    await connection.execute(_SQL["add_part"], values)
    return ArchivePart(
        day=day, part=part, uri=uri, rows=totals.rows, bytes=size, charge=totals.charge,
        cost=totals.cost, sha256=files[main].sha256, files=facts, at=at,
    )  # fmt: skip


async def read_parts(connection: Connection, first: date, last: date) -> list[ArchivePart]:
    """The parts of the days from ``first`` to ``last`` that can be read."""
    rows = await (await connection.execute(_SQL["parts"], (first, last))).fetchall()
    return [ArchivePart(**row) for row in rows]


async def add_trash(connection: Connection, uri: str, at: datetime) -> None:
    """Note a folder that is to be deleted unless it becomes a part."""
    await connection.execute(_SQL["add_trash"], (uri, at))


async def read_trash(connection: Connection) -> list[str]:
    """The folders that are to be deleted."""
    return [row["uri"] for row in await (await connection.execute(_SQL["trash"])).fetchall()]


async def clear_trash(connection: Connection, uri: str) -> None:
    """A folder was deleted, or is a part now."""
    await connection.execute(_SQL["clear_trash"], (uri,))


# --- purging -------------------------------------------------------------------------------------


async def read_purge_plan(connection: Connection, before: date) -> list[PurgeDay]:
    """The days before ``before`` of which anything is kept that a purge takes."""
    values = {"before": before, "parents": list(PURGED)}
    rows = await (await connection.execute(_SQL["purge_plan"], values)).fetchall()
    return [PurgeDay(**row) for row in rows]


async def purge_parts(connection: Connection, day: date, at: datetime) -> list[str]:
    """Mark a day's parts as purged; returns the folders that are to be deleted."""
    rows = await (await connection.execute(_SQL["purge_parts"], (at, day))).fetchall()
    return [row["uri"] for row in rows]


async def read_purged_before(connection: Connection) -> date:
    """Days before this one were purged: whether their records are known cannot be told any more."""
    row = await (await connection.execute(_SQL["purged_before"])).fetchone()
    assert row is not None
    day: date = row["before"]
    return day


async def set_purged_before(connection: Connection, before: date) -> None:
    """Note how far was purged; it only ever moves on."""
    await connection.execute(_SQL["set_purged_before"], (before,))
