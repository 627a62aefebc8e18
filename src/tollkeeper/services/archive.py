"""Days of records move out of the database into Parquet files, and are purged when their time is over.

A day moves in one transaction: writers wait, readers do not. Its records are copied out, sorted,
stored, read back and compared with what the database adds up to; then the part is noted and the
partition dropped by the same commit. So at any moment a day's records are in the one place or in
the other. Files that never became a part are named in the database before they are written, and
the next run deletes them.
"""

from __future__ import annotations

import asyncio
import secrets
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path

import pyarrow as pa

from tollkeeper.errors import Breach, Busy, InvalidInput, SetupError
from tollkeeper.settings import Settings
from tollkeeper.store import archive as store
from tollkeeper.store import archive_files as files
from tollkeeper.store.archive import ArchivePart, PurgeDay
from tollkeeper.store.archive_files import RowWriter, Totals
from tollkeeper.store.changes import record
from tollkeeper.store.db import Connection, Database
from tollkeeper.store.usage_search import no_time_limit
from tollkeeper.store.verify_usage import note_leaving

__all__ = [
    "ArchivePart",
    "ArchivePlace",
    "PurgeDay",
    "PurgeReport",
    "archive_day",
    "archive_due",
    "check_part",
    "due_days",
    "list_parts",
    "place_for",
    "policy_days",
    "purge",
]

Say = Callable[[str, int, int], None]
"""Told how far a stage is: its name, rows done, rows in all."""

QUIET = timedelta(hours=24)
"""A day is left alone for so long after a batch wrote to it: a backlog comes in many files."""

BLOCK_BYTES = 4 * 1024 * 1024
DROP_ATTEMPTS = 10
DROP_PAUSE_SECONDS = 3.0
"""Each attempt makes everybody wait for two seconds at most; in between the others go on."""


@dataclass(frozen=True, slots=True)
class ArchivePlace:
    """Where parts are stored, and the folder of this machine in which they are made."""

    uri: str
    work: Path


@dataclass(frozen=True, slots=True)
class PurgeReport:
    """What a purge takes: whatever is kept of days before ``before``."""

    before: date
    days: tuple[PurgeDay, ...]
    dry_run: bool


def place_for(settings: Settings) -> ArchivePlace:
    """The archive by the settings.

    Raises:
        SetupError: the address is none that can be used.
    """
    uri = files.root_uri(settings.archive_url, settings.data_dir)
    return ArchivePlace(uri, settings.data_dir / "archive-work")


def policy_days(settings: Settings, now: datetime) -> tuple[date, date | None]:
    """The days before which records are archived and purged; None where they are kept for ever."""
    archive = now.date() - timedelta(days=settings.archive_after_days)
    keep = settings.usage_keep_days
    return archive, now.date() - timedelta(days=keep) if keep else None


def _nothing(_stage: str, _done: int, _total: int) -> None:
    """Say nothing."""


# --- archiving -----------------------------------------------------------------------------------


async def due_days(
    database: Database, *, before: date, now: datetime, limit: int = 1000
) -> list[date]:
    """The days that are old enough to be archived, the oldest first."""
    async with database.read() as connection:
        return await store.read_due(connection, before=before, quiet_since=now - QUIET, limit=limit)


async def archive_due(
    database: Database,
    place: ArchivePlace,
    *,
    before: date,
    now: datetime,
    limit: int = 1000,
    progress: Say = _nothing,
) -> list[ArchivePart]:
    """Archive the days that are due, one after the other, until ``limit`` parts were made.

    Raises: as :func:`archive_day`; the days before are archived then.
    """
    made: list[ArchivePart] = []
    for day in await due_days(database, before=before, now=now):
        if len(made) >= limit:
            break
        part = await archive_day(database, place, day, now=now, progress=progress)
        if part is not None:
            made.append(part)
    return made


async def archive_day(
    database: Database, place: ArchivePlace, day: date, *, now: datetime, progress: Say = _nothing
) -> ArchivePart | None:
    """Move the records of a day to the archive; None where it has none (its partition goes too).

    Raises:
        Busy: another process archives, or the partition is in use; nothing has changed.
        SetupError: the files cannot be written; nothing has changed.
        Breach: what was stored is not what the database holds; nothing has changed.
    """
    async with database.write() as connection:
        await no_time_limit(connection)
        await _alone(connection)
        await _clean(database, place)
        held = await store.hold_day(connection, day)
        if held is None:
            return None
        if held.rows == 0:
            await _drop(connection, day, ("usage",))
            return None
        number = await store.next_part(connection, day)
        name = f"part-{number}-{secrets.token_hex(4)}"
        uri = files.below(place.uri, "usage", f"{day:%Y}", f"{day:%m}", f"{day:%d}", name)
        async with database.write() as other:
            await store.add_trash(other, uri, now)
        facts = await _store(connection, place, day, uri=uri, held=held, progress=progress)
        part = await store.add_part(
            connection, day=day, part=number, uri=uri, totals=held, files=facts, main=files.USAGE, at=now
        )  # fmt: skip
        await store.clear_trash(connection, uri)
        # The proof of the books still adds up what has left.
        await note_leaving(connection, day, ("usage",))
        await _drop(connection, day, ("usage",))
        return part


async def _alone(connection: Connection) -> None:
    if not await store.take_archiver(connection):
        raise Busy("another process is archiving or purging; try again later", code="archive_busy")


async def _store(
    connection: Connection,
    place: ArchivePlace,
    day: date,
    *,
    uri: str,
    held: Totals,
    progress: Say,
) -> dict[str, files.FileFact]:
    """Copy the day out, make its files, store them, and make sure that they hold the same."""
    try:
        folder = await asyncio.to_thread(_work_folder, place.work)
        try:
            unsorted = folder / "unsorted.parquet"
            told = _Told(progress, f"{day} copied", held.rows)
            await collect(store.copy_day(connection, day), unsorted, told)
            progress(f"{day} sorted", 0, held.rows)
            await asyncio.to_thread(files.sort_part, unsorted, folder)
            progress(f"{day} stored", 0, held.rows)
            facts = await asyncio.to_thread(files.store_part, folder, uri)
        finally:
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
        progress(f"{day} checked", 0, held.rows)
        found, again = await asyncio.to_thread(files.read_back, uri)
    except pa.ArrowInvalid as error:
        raise Breach(f"{day} cannot be archived, a record does not fit: {error}") from error
    except OSError as error:
        raise SetupError(
            f"{day} cannot be archived to {uri}: {error}; its records stay in the database."
        ) from error
    if found != held or again != facts:
        raise Breach(
            f"{day} was not archived: {uri} holds {found.rows} records of {found.charge} and "
            f"{found.cost}, the database {held.rows} of {held.charge} and {held.cost}"
        )
    progress(f"{day} checked", held.rows, held.rows)
    return facts


def _work_folder(work: Path) -> Path:
    work.mkdir(parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(prefix="day-", dir=work))


@dataclass(slots=True)
class _Told:
    """Counts rows for a progress callback."""

    progress: Say
    stage: str
    total: int

    def __call__(self, rows: int) -> None:
        """Tell how many rows are done."""
        self.progress(self.stage, rows, self.total)


async def collect(
    lines: AsyncIterator[bytes], path: Path, told: Callable[[int], None] = lambda _: None
) -> int:
    """Write records that come as CSV to a file, in their order; returns how many there were."""
    writer = await asyncio.to_thread(RowWriter, path)
    try:
        block: list[bytes] = []
        size = 0
        async for line in lines:
            block.append(line)
            size += len(line)
            if size >= BLOCK_BYTES:
                await asyncio.to_thread(writer.add, b"".join(block))
                told(writer.rows)
                block, size = [], 0
        if block:
            await asyncio.to_thread(writer.add, b"".join(block))
            told(writer.rows)
    finally:
        await asyncio.to_thread(writer.close)
    return writer.rows


async def _drop(connection: Connection, day: date, tables: Sequence[str]) -> None:
    for attempt in range(DROP_ATTEMPTS):
        if attempt:
            await asyncio.sleep(DROP_PAUSE_SECONDS)
        if await store.drop_day(connection, day, tables):
            return
    raise Busy(f"the records of {day} are in use; try again later", code="archive_busy")


async def _clean(database: Database, place: ArchivePlace) -> None:
    """Delete what belongs to no part. Only the one archiver may: nobody else is writing then."""
    async with database.read() as connection:
        for uri in await store.read_trash(connection):
            await asyncio.to_thread(files.remove_part, uri)
            await store.clear_trash(connection, uri)
    for left in await asyncio.to_thread(lambda: list(place.work.glob("day-*"))):
        await asyncio.to_thread(shutil.rmtree, left, ignore_errors=True)


# --- looking -------------------------------------------------------------------------------------


async def list_parts(database: Database, *, since: date, until: date) -> list[ArchivePart]:
    """The archived parts of the days from ``since`` to ``until``, the last included."""
    async with database.read() as connection:
        return await store.read_parts(connection, since, until)


async def check_part(part: ArchivePart) -> None:
    """Read a part to its end and compare it with what was noted when it was made.

    Raises:
        Breach: it is not what it was, or not there.
    """
    try:
        found, facts = await asyncio.to_thread(files.read_back, part.uri)
    except (OSError, pa.ArrowInvalid) as error:
        raise Breach(f"the archived part {part.uri} cannot be read: {error}") from error
    now = {name: {"bytes": fact.bytes, "sha256": fact.sha256} for name, fact in facts.items()}
    if found != Totals(part.rows, part.charge, part.cost) or now != part.files:
        raise Breach(f"the archived part {part.uri} is not what was stored; restore it from a copy")


# --- purging -------------------------------------------------------------------------------------


async def purge(
    database: Database,
    place: ArchivePlace,
    *,
    before: date,
    policy: date | None,
    now: datetime,
    actor: str,
    dry_run: bool = True,
) -> PurgeReport:
    """Delete records, their keys and archived files of days before ``before``; or say what would go.

    Hourly sums and the journal stay. ``policy`` is the day before which the settings let records
    go, None that they are kept for ever. After a crash the next purge finishes the work.

    Raises:
        InvalidInput: the settings keep these records.
        Busy: another process archives, or a partition is in use; what was done stays done.
    """
    if policy is None:
        raise InvalidInput(
            "usage_keep_days is 0, so records are kept for ever; set the days to keep them first",
            field="before",
        )
    if before > policy:
        raise InvalidInput(
            f"before: by usage_keep_days records from {policy} on are kept; choose no later day",
            field="before",
        )
    async with database.write() as connection:
        await _alone(connection)
        plan = tuple(await store.read_purge_plan(connection, before))
        report = PurgeReport(before, plan, dry_run)
        if dry_run or not plan:
            return report
        await store.set_purged_before(connection, before)
        await record(
            connection,
            actor=actor,
            action="usage.purge",
            subject=f"usage before {before}",
            detail=_detail(plan),
            notice="usage:purged",
        )
    for each in plan:
        await _purge_day(database, each.day, now)
    async with database.write() as connection:
        await _alone(connection)
        await _clean(database, place)
    return report


def _detail(plan: Sequence[PurgeDay]) -> dict[str, object]:
    return {
        "first": str(plan[0].day),
        "last": str(plan[-1].day),
        "days": len(plan),
        "table_bytes": sum(each.table_bytes for each in plan),
        "archived_rows": sum(each.archived_rows for each in plan),
        "archived_bytes": sum(each.archived_bytes for each in plan),
    }


async def _purge_day(database: Database, day: date, now: datetime) -> None:
    async with database.write() as connection:
        await _alone(connection)
        for uri in await store.purge_parts(connection, day, now):
            await store.add_trash(connection, uri, now)
        await note_leaving(connection, day, store.PURGED)
        await _drop(connection, day, store.PURGED)
