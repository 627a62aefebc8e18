"""Collecting: what lies at a source is taken into the spool, loaded, and put away; each file once.

The order of steps makes every crash harmless. A file is copied to the spool and becomes complete
there by one rename; then it is loaded, which is known by its content from then on (``cdr_file``);
then it is put away at the source; then its copy is removed. Whatever was cut short is begun again
at the step that was not done, and steps that were done find that out.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

import psycopg
import structlog

from tollkeeper.errors import Busy, Forbidden, InvalidInput, TollkeeperError
from tollkeeper.gateways.vos3000_db import DayTables, Vos3000Tables
from tollkeeper.services import collect_files, collect_tables
from tollkeeper.services.cdr_sources import get_source
from tollkeeper.services.collect_files import Connect, connect_files
from tollkeeper.services.source_settings import FileSettings, TableSettings, read_settings
from tollkeeper.services.spool import Spool, SpooledFile, check_name, printable, spool_stream
from tollkeeper.store import cdr_sources as store
from tollkeeper.store.cdr_sources import CdrSource, KnownFile, NewFile
from tollkeeper.store.db import Database

__all__ = [
    "CollectReport",
    "FileOutcome",
    "Load",
    "Pushed",
    "Spool",
    "SpooledFile",
    "collect_once",
    "push_file",
    "retry_failed",
    "spool_stream",
]

ERROR_MAX = 500
ACTOR = "collector"

Clock = Callable[[], datetime]
_log = structlog.get_logger()


class Load(Protocol):
    """Loads one file. May be called again for one that it has loaded, or loaded a part of.

    Raises Busy (or a psycopg.OperationalError) when it should be tried again later; whatever else
    it raises says that this file cannot be loaded.
    """

    def __call__(self, file: SpooledFile) -> Awaitable[object]:
        """Load it; what comes back is handed on in the report."""


@dataclass(frozen=True, slots=True)
class FileOutcome:
    """What became of one file in a round.

    ``status`` is loaded, known (its content was loaded before), failed, waiting (not complete yet)
    or left (could not be taken; the next round tries again). ``detail`` says why, ``result`` is
    what the loading answered.
    """

    name: str
    status: str
    sha256: str = ""
    bytes: int = 0
    detail: str = ""
    result: object = None


@dataclass(frozen=True, slots=True)
class CollectReport:
    """One round at one source. ``error`` is what was wrong, "" for nothing.

    ``busy`` is True when another process was collecting from the source, and nothing was done.
    """

    source: str
    files: tuple[FileOutcome, ...] = ()
    error: str = ""
    busy: bool = False

    def count(self, status: str) -> int:
        """How many files had this outcome."""
        return sum(file.status == status for file in self.files)


async def connect_tables(source: CdrSource) -> DayTables:
    """Connect to the day tables of a source of the kind mysql.

    Raises:
        FilesFailed: the database is away or refuses.
    """
    settings = read_settings(source.kind, source.settings, source.secret)
    assert isinstance(settings, TableSettings)
    return await Vos3000Tables.connect(
        host=settings.host,
        port=settings.port,
        user=settings.user,
        secret=source.secret,
        database=settings.database,
        tls=settings.tls,
    )


async def collect_once(
    database: Database,
    source: CdrSource,
    spool: Spool,
    load: Load,
    clock: Clock,
    *,
    connect: Connect = connect_files,
    tables: Callable[[CdrSource], Awaitable[DayTables]] = connect_tables,
) -> CollectReport:
    """Make one round: load what the spool still holds, then take and load what is complete.

    What goes wrong is in the report and in the source's ``last_error``; nothing is lost by it.

    Raises:
        Busy: the database is away.
    """
    async with store.right_to_run(database.url, source.id) as taken:
        if not taken:
            return CollectReport(source.code, busy=True)
        began = clock()
        worker = _Round(database, source, spool, load, clock)
        try:
            stopped = await worker.run(connect, tables)
        except Busy as error:
            # Where it is the database that is away, noting it fails too: the caller is told then.
            stopped = error.detail
        fault = worker.fault(stopped)
        async with database.write() as connection:
            await store.note_run(connection, source.id, began, fault[:ERROR_MAX])
    if fault:
        _log.warning("collect.fault", source=source.code, error=fault)
    return CollectReport(source.code, tuple(worker.outcomes), fault)


class _Round:
    """One round at one source; the ``Taker`` of the modules that know where things lie."""

    def __init__(
        self, database: Database, source: CdrSource, spool: Spool, load: Load, clock: Clock
    ) -> None:
        self.database = database
        self.source = source
        self.spool = spool
        self.clock = clock
        self.outcomes: list[FileOutcome] = []
        self._load = load

    async def run(
        self, connect: Connect, tables: Callable[[CdrSource], Awaitable[DayTables]]
    ) -> str:
        """Do it; returns what ended it early, "" for nothing."""
        self.spool.sweep(self.source.code)
        settings = read_settings(self.source.kind, self.source.settings, self.source.secret)
        waiting = self.spool.ready(self.source.code, self.source)
        if isinstance(settings, TableSettings):
            await collect_tables.catch_up(self, waiting)
        for file in waiting:
            await self.take(file)
        try:
            if isinstance(settings, FileSettings):
                await collect_files.collect(self, settings, connect)
            elif isinstance(settings, TableSettings):
                await collect_tables.collect(self, settings, tables)
        except TollkeeperError as error:
            return error.detail
        return ""

    def report(self, name: str, status: str, detail: str = "", *, size: int = 0) -> None:
        """Note what became of a file that did not get into the spool."""
        self.outcomes.append(FileOutcome(printable(name), status, bytes=size, detail=detail))

    async def take(self, file: SpooledFile) -> FileOutcome:
        """Load a file of the spool, unless its content is known.

        Raises:
            Busy: it cannot be loaded now; it stays in the spool.
        """
        outcome = await self._taken(file)
        self.outcomes.append(outcome)
        return outcome

    async def _taken(self, file: SpooledFile) -> FileOutcome:
        known = await _find(self.database, file)
        if known is not None and known.status == "done":
            self.spool.done(file)
            return FileOutcome(file.name, "known", file.sha256, file.bytes)
        if known is not None and known.status == "failed":
            self.spool.fail(self.source.code, file)
            return FileOutcome(file.name, "failed", file.sha256, file.bytes, known.error)
        try:
            result = await self._load(file)
        except Busy:
            raise
        except psycopg.OperationalError as error:
            raise Busy(
                "the database does not answer; the file waits in the spool", code="database_away"
            ) from error
        except TollkeeperError as error:
            return await self._failed(file, error.detail)
        except OSError as error:
            # Readers of compressed files raise it for bad content too, without a number then.
            if error.errno is None:
                return await self._failed(file, str(error))
            raise Busy(f"{file.name}: {error.strerror}; the file waits in the spool") from error
        except Exception as error:  # noqa: BLE001 - one file that trips us must not stop the others
            _log.exception("collect.load_failed", source=self.source.code, file=file.name)
            return await self._failed(
                file, f"something went wrong inside ({type(error).__name__}: {error})"
            )
        self.spool.done(file)
        return FileOutcome(file.name, "loaded", file.sha256, file.bytes, result=result)

    async def _failed(self, file: SpooledFile, why: str) -> FileOutcome:
        why = why.replace("\x00", "")[:ERROR_MAX]
        async with self.database.write() as connection:
            await store.fail_file(
                connection, _new_file(file, self.source, ACTOR), why, self.clock()
            )
        self.spool.fail(self.source.code, file)
        return FileOutcome(file.name, "failed", file.sha256, file.bytes, why)

    def fault(self, stopped: str) -> str:
        """One sentence about what was wrong in the round; "" for nothing."""
        bad = [each for each in self.outcomes if each.status in {"failed", "left"}]
        first = f"{bad[0].name}: {bad[0].detail}" if bad else ""
        more = f" (and {len(bad) - 1} more files)" if len(bad) > 1 else ""
        return "; ".join(part for part in (stopped, first + more) if part)


# --- files that are brought ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Pushed:
    """A file that was brought: ``new`` is False when its content was known already."""

    id: int
    status: str
    name: str
    sha256: str
    bytes: int
    new: bool


async def push_file(
    database: Database,
    spool: Spool,
    code: str,
    *,
    name: str,
    chunks: AsyncIterable[bytes],
    expected: int = 0,
    switch: str | None = None,
    actor: str,
) -> Pushed:
    """Take a file that is sent to a source of the kind http; the next round loads it.

    When this returns, the file is safe. One that failed before is tried again. ``switch`` is the
    one that the caller may speak for; None is any.

    Raises:
        NotFound: no such source. Forbidden: it is another switch's. FileTooLarge, SpoolFull.
        InvalidInput: the source is of another kind or disabled, or the file is empty.
    """
    source = await get_source(database, code)
    if switch is not None and switch != source.switch:
        raise Forbidden(
            f'this API key speaks for the switch "{switch}", and {code} is of "{source.switch}"',
            code="wrong_switch",
        )
    if source.kind != "http":
        raise InvalidInput(f"{code} collects by itself: its kind is {source.kind}, not http")
    if not source.enabled:
        raise InvalidInput(f"{code} is disabled; it takes no files")
    check_name(name)
    with spool.receive(source.code, expected=expected) as incoming:
        async for data in chunks:
            await asyncio.to_thread(incoming.write, data)
        if not incoming.bytes:
            raise InvalidInput("the file is empty", code="empty_file")
        sha256, size = incoming.sha256, incoming.bytes
        async with database.read() as connection:
            known = await store.find_file(connection, source.switch, sha256)
        if known is not None and known.status == "done":
            return Pushed(known.id, known.status, known.name, sha256, size, new=False)
        if known is not None and known.status == "failed":
            spool.retry(source.code, sha256)
        file = await asyncio.to_thread(spool.keep, incoming, source.code, name, source)
    async with database.write() as connection:
        await store.revive_file(connection, source.switch, sha256)
        made = await store.announce_file(connection, _new_file(file, source, actor))
        known = await store.find_file(connection, source.switch, sha256)
        await store.run_soon(connection, source.id)
    assert known is not None
    new = made is not None or known.status == "loading"
    return Pushed(known.id, known.status, known.name, sha256, size, new=new)


async def retry_failed(database: Database, source: CdrSource, spool: Spool) -> int:
    """Let the files of a source that could not be loaded be tried again; returns how many."""
    failed: Sequence[SpooledFile] = spool.failed(source.code, source)
    for file in failed:
        async with database.write() as connection:
            await store.revive_file(connection, source.switch, file.sha256)
        spool.retry(source.code, file.sha256)
    return len(failed)


async def _find(database: Database, file: SpooledFile) -> KnownFile | None:
    assert file.source is not None
    async with database.read() as connection:
        return await store.find_file(connection, file.source.switch, file.sha256)


def _new_file(file: SpooledFile, source: CdrSource, actor: str) -> NewFile:
    return NewFile(
        source_id=source.id,
        switch=source.switch,
        name=file.name,
        sha256=file.sha256,
        bytes=file.bytes,
        format=source.format,
        mapping=source.mapping,
        timezone=source.timezone,
        actor=actor,
    )
