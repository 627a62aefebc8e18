"""Records exported as one file, streamed: bounded memory, and no transaction waits for the taker.

A day is copied out of the database to a temporary file as fast as it goes, then written at the
pace of whoever takes it; archived days come straight from their files.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, time, timedelta
from heapq import merge
from itertools import chain, islice
from operator import attrgetter
from pathlib import Path
from zoneinfo import ZoneInfo

from tollkeeper.errors import Busy
from tollkeeper.services.archive import collect
from tollkeeper.services.fields import check_choice, check_timezone
from tollkeeper.services.usage_files import WRITERS, Writer
from tollkeeper.services.usage_search import UsageQuery, filter_of, gone, read_page, show
from tollkeeper.store.archive import read_parts
from tollkeeper.store.archive_files import batches_of
from tollkeeper.store.archive_search import open_parts, rows_of
from tollkeeper.store.db import Database
from tollkeeper.store.parties import read_party
from tollkeeper.store.usage_search import (
    FIRST_KEY,
    Names,
    UsageFilter,
    UsageRow,
    copy_rows,
    fence,
    read_undone,
)

__all__ = ["EXPORTS_MAX", "KINDS", "Export", "prepare", "stream_rows"]

KINDS = tuple(WRITERS)
EXPORTS_MAX = 2
"""Exports of one process at a time: each takes up to a core, and a day's records on the disk."""

STEP_ROWS = 500
"""Rows made into bytes at once: a few milliseconds, so that calls are answered in between."""

PAGE_ROWS = 1000
_running: set[object] = set()


@dataclass(frozen=True, slots=True)
class Export:
    """An export that can begin: ``name`` is what its file may be called."""

    database: Database
    wanted: UsageFilter | None
    kind: str
    zone: ZoneInfo
    name: str
    scope: int | None = None

    @property
    def media_type(self) -> str:
        """The type of the file for HTTP."""
        return WRITERS[self.kind][1]

    async def chunks(
        self, progress: Callable[[int], None] = lambda _: None
    ) -> AsyncIterator[bytes]:
        """The bytes of the file; ``progress`` gets the rows done.

        Raises:
            Busy: too many exports run in this process. Conflict: an archived part is missing.
        """
        if len(_running) >= EXPORTS_MAX:
            raise Busy(
                f"{EXPORTS_MAX} exports are running already; try again when one is done",
                code="exports_running",
            )
        mark = object()
        _running.add(mark)
        writer: Writer | None = None
        try:
            writer = await asyncio.to_thread(WRITERS[self.kind][0], self.zone)
            async for chunk in self._write(writer, progress):
                yield chunk
        finally:
            _running.discard(mark)
            if writer is not None:
                await asyncio.to_thread(writer.close)

    async def _write(self, writer: Writer, progress: Callable[[int], None]) -> AsyncIterator[bytes]:
        names, done = Names(), 0
        if self.wanted is not None:
            async for rows in stream_rows(self.database, self.wanted):
                shown = await show(self.database, names, rows, scope=self.scope)
                if chunk := await asyncio.to_thread(writer.add, shown):
                    yield chunk
                done += len(rows)
                progress(done)
        rest = await asyncio.to_thread(writer.finish)
        while chunk := await asyncio.to_thread(next, rest, b""):
            yield chunk


async def prepare(
    database: Database,
    query: UsageQuery,
    *,
    kind: str,
    now: datetime,
    timezone: str | None = None,
    scope: int | None = None,
) -> Export:
    """Check what is to be exported; nothing is read yet.

    Times are in ``timezone``; left out, in that of the customer, else of the vendor that is asked
    for, else UTC.

    Raises:
        InvalidInput: naming the parameter.
    """
    check_choice(kind, KINDS, field="format")
    zone = check_timezone(timezone) if timezone is not None else None
    wanted = await filter_of(database, query, now=now, scope=scope)
    if zone is None:
        zone = await _zone(database, query.customer or query.vendor)
    who = "-".join(name for name in ("usage", query.customer, query.vendor) if name)
    return Export(database, wanted, kind, ZoneInfo(zone), f"{who}.{kind}", scope)


async def _zone(database: Database, party: str | None) -> str:
    if party is None:
        return "UTC"
    async with database.read() as connection:
        found = await read_party(connection, party)
    return found.timezone if found is not None else "UTC"


# --- records -------------------------------------------------------------------------------------


async def stream_rows(
    database: Database, wanted: UsageFilter, *, rows: int = STEP_ROWS
) -> AsyncIterator[list[UsageRow]]:
    """All records that are wanted in their order, as they were loaded, over partitions and archive.

    Raises:
        Conflict: an archived part is missing.
    """
    if wanted.exact:
        async for page in _pages(database, wanted):
            yield page
        return
    begin = max(wanted.since, wanted.after[0]) if wanted.after > FIRST_KEY else wanted.since
    while begin < wanted.until:
        midnight = datetime.combine(begin.astimezone(UTC).date(), time(), UTC) + timedelta(days=1)
        end = min(midnight, wanted.until)
        async for page in _day(database, replace(wanted, since=begin, until=end), rows):
            yield page
        begin = end


async def _pages(database: Database, wanted: UsageFilter) -> AsyncIterator[list[UsageRow]]:
    while True:
        page, _ = await read_page(database, wanted, limit=PAGE_ROWS)
        if page:
            yield page
        if len(page) < PAGE_ROWS:
            return
        wanted = replace(wanted, after=page[-1].key)


async def _day(database: Database, wanted: UsageFilter, rows: int) -> AsyncIterator[list[UsageRow]]:
    with tempfile.TemporaryDirectory(prefix="tollkeeper-export-") as folder:
        work = Path(folder)
        copied = work / "copied.parquet"
        async with database.write() as connection:
            await fence(connection)
            parts = [part.place for part in await read_parts(connection, *wanted.days)]
            undone = await read_undone(connection) if parts else []
            await collect(copy_rows(connection, wanted), copied)
        stored = chain.from_iterable(rows_of(batch) for batch in batches_of(copied, rows))
        found: Iterator[UsageRow] = stored
        if parts:
            archived = open_parts(parts, wanted, undone=undone, work=work / "sorting", rows=rows)
            found = merge(stored, chain.from_iterable(archived), key=attrgetter("key"))
        while page := await asyncio.to_thread(_take, found, rows):
            yield page


def _take(found: Iterator[UsageRow], rows: int) -> list[UsageRow]:
    try:
        return list(islice(found, rows))
    except OSError as error:
        raise gone(error) from error
