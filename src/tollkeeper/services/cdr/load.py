"""Loading a file: part by part, each part one transaction, from where the last load stopped.

While one part is written, the next one is read, mediated and priced in a thread. The connection
that writes holds the lock of the switch, so that nobody else loads records of that switch; if it is
lost, so is the lock, and with it the part that was being written, and nothing else.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import BinaryIO

import psycopg

from tollkeeper.bulk.reconcile import sequence_summary
from tollkeeper.core.usage import Half
from tollkeeper.errors import Busy, InvalidInput, NotFound
from tollkeeper.services.cdr.files import adopt
from tollkeeper.services.cdr.halves import Halves
from tollkeeper.services.cdr.knowledge import Knowledge
from tollkeeper.services.cdr.prepare import (
    LoadPolicy,
    Prepared,
    fresh_rows,
    prepare,
)
from tollkeeper.services.cdr.raw import raw_lines
from tollkeeper.services.cdr.reference import microseconds
from tollkeeper.services.cdr.write import HalfChange, Step, ensure_days, write_batch
from tollkeeper.store import usage_files as files
from tollkeeper.store.db import Connection, Database
from tollkeeper.store.loading import loading
from tollkeeper.store.usage_files import CdrFile, NewFile
from tollkeeper.wire.cdr.columns import open_parts
from tollkeeper.wire.cdr.compressed import open_stream
from tollkeeper.wire.cdr.format import Format, ReadOptions
from tollkeeper.wire.cdr.formats import FORMATS
from tollkeeper.wire.cdr.mapping import load_mapping
from tollkeeper.wire.cdr.part import RECORDS, Part

HASH_BLOCK = 4 << 20
ARCHIVED_MEANWHILE = 3
"""How often a part is tried while days that it needs are being archived."""

Say = Callable[["Progress"], None]


@dataclass(frozen=True, slots=True)
class LoadJob:
    """A file to load: where it lies, how it is called, whose it is, and how it is to be read.

    ``format`` is a code of ``FORMATS``; ``mapping`` is needed by csv and jsonl. ``sha256`` saves
    reading the file once more where it is known.
    """

    path: Path
    switch: str
    format: str
    name: str = ""
    mapping: dict[str, object] | None = None
    timezone: str = "UTC"
    encoding: str = "utf-8"
    sha256: str = ""
    source_id: int | None = None
    actor: str = ""
    policy: LoadPolicy = field(default_factory=LoadPolicy)
    records_per_part: int = RECORDS
    threads: int = 1


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a load is: bytes of the file (unpacked where ``total`` is 0), and what became of records."""

    stage: str
    done: int
    total: int
    file: CdrFile | None = None


@dataclass(frozen=True, slots=True)
class FileReport:
    """What became of a file. ``known``: it was in the books before, and nothing was done.

    ``resumed``: an earlier load had stopped in the middle. ``waiting``: begins of calls of this
    switch whose end has not come, and the reverse.
    """

    file: CdrFile
    known: bool = False
    resumed: bool = False
    waiting: int = 0


async def load_file(
    database: Database,
    job: LoadJob,
    *,
    clock: Callable[[], datetime],
    say: Say = lambda _: None,
) -> FileReport:
    """Load a file into the books, or go on where an earlier load of it stopped.

    Raises:
        InvalidInput: the format or mapping is wrong, or the file changed while it was read.
        NotFound: there is no such file.
        Conflict: a part of it is in the books, read by another format or mapping.
        Busy: another load of this switch is running, or the database is away; what was written
            stays, and the same call goes on from there.
    """
    format_ = FORMATS.get(job.format)
    if format_ is None:
        raise InvalidInput(
            f'there is no format "{job.format}"; it is one of {", ".join(sorted(FORMATS))}',
            code="unknown_format",
            field="format",
        )
    options = ReadOptions(
        timezone=job.timezone,
        mapping=load_mapping(job.mapping) if job.mapping is not None else None,
        encoding=job.encoding,
    )
    try:
        with job.path.open("rb") as stream:
            load = _Load(database, job, format_, options, clock=clock, say=say, stream=stream)
            return await load.run()
    except FileNotFoundError:
        raise NotFound(f"there is no file {job.path}", code="unknown_file", field="file") from None
    except (IsADirectoryError, PermissionError) as error:
        raise InvalidInput(f"{job.path} cannot be read: {error.strerror}", field="file") from None


def digest(stream: BinaryIO, size: int, say: Callable[[int], None]) -> str:
    """The SHA-256 of the first ``size`` bytes of a file; ``say`` gets the bytes read so far."""
    found = hashlib.sha256()
    done = 0
    while block := stream.read(min(HASH_BLOCK, size - done)):
        found.update(block)
        done += len(block)
        say(done)
    return found.hexdigest()


def check_packed(stream: BinaryIO) -> None:
    """Unpack a packed file to its end, whose checksum alone tells whether its bytes are right.

    One that is cut short passes: what there is of it can be read.

    Raises:
        InvalidInput: it is damaged, a bomb, or packed in a way that is not known.
    """
    stream.seek(0)
    plain = open_stream(stream)
    if plain is stream:
        return
    try:
        while plain.read(HASH_BLOCK):
            pass
    except InvalidInput as error:
        if error.code != "truncated_file":
            raise


@dataclass(frozen=True, slots=True)
class _Ready:
    """A part that only has to be written."""

    part: Part
    prepared: Prepared
    halves: HalfChange
    sequence: dict[str, object]


class _Load:
    """One load of one file."""

    def __init__(
        self,
        database: Database,
        job: LoadJob,
        format_: Format,
        options: ReadOptions,
        *,
        clock: Callable[[], datetime],
        say: Say,
        stream: BinaryIO,
    ) -> None:
        self._database = database
        self._job = job
        self._format = format_
        self._options = options
        self._clock = clock
        self._say = say
        self._stream = stream
        stat = os.fstat(stream.fileno())
        self._stamp = (stat.st_size, stat.st_mtime_ns)
        self._knowledge = Knowledge(
            database, job.switch, policy=job.policy, clock=clock, threads=job.threads
        )
        self._halves = Halves(0)

    async def run(self) -> FileReport:
        """Load what is not loaded yet."""
        job, size = self._job, self._stamp[0]
        sha256 = job.sha256 or await asyncio.to_thread(
            digest, self._stream, size, lambda done: self._say(Progress("reading", done, size))
        )
        await asyncio.to_thread(check_packed, self._stream)
        try:
            async with loading(self._database.url, job.switch) as connection:
                new = NewFile(
                    switch=job.switch,
                    name=job.name or job.path.name,
                    sha256=sha256,
                    bytes=size,
                    format=job.format,
                    mapping=job.mapping,
                    timezone=job.timezone,
                    source_id=job.source_id,
                    actor=job.actor,
                )
                file = await files.open_file(connection, new, self._clock())
                if file.status == "done":
                    return FileReport(file, known=True)
                file = await adopt(connection, file, new)
                if file.status == "failed":
                    await files.resume_file(connection, file.id)
                    file = replace(file, status="loading")
                return await self._load(connection, file)
        except psycopg.errors.DiskFull as error:
            raise Busy(
                f"the database's disk is full; {job.name or job.path.name} is loaded as far as it "
                "went, make room and run the same again to go on",
                code="database_full",
            ) from error
        except psycopg.OperationalError as error:
            raise Busy(
                f"the database went away while {job.name or job.path.name} was loaded; what was "
                "written stays, run the same again to go on",
                code="database_away",
            ) from error

    async def _load(self, connection: Connection, file: CdrFile) -> FileReport:
        resumed = file.lines_done > 0
        self._halves = Halves(file.id)
        parts = self._parts(file)
        upcoming = asyncio.create_task(self._produce(parts))
        status, error = "done", ""
        try:
            while (ready := await upcoming) is not None:
                upcoming = asyncio.create_task(self._produce(parts))
                self._check_unchanged()
                await self._write(connection, file, ready)
                file = await _again(connection, file)
                self._say(Progress("loading", ready.part.offset, self._stamp[0], file))
                del ready
        except InvalidInput as problem:
            # What could be read is in the books; the rest of the file is not to be read at all.
            # It may quote the file, and PostgreSQL's texts hold no NUL.
            status, error = "failed", problem.detail.replace("\x00", "")
        finally:
            upcoming.cancel()
            await asyncio.gather(upcoming, return_exceptions=True)
        await files.end_file(connection, file.id, status, at=self._clock(), error=error)
        waiting = len(await files.read_halves(connection, self._job.switch))
        return FileReport(await _again(connection, file), resumed=resumed, waiting=waiting)

    async def _write(self, connection: Connection, file: CdrFile, ready: _Ready) -> None:
        """One part, and where the next one begins, in one transaction."""
        part, prepared = ready.part, ready.prepared
        if self._format.by_line and any(not one.raw for one in prepared.held):
            # A reader that goes record by record knows no offsets: its lines are counted from the top.
            known = part.offset > file.offset_bytes
            prepared.held = await asyncio.to_thread(
                raw_lines,
                self._job.path,
                prepared.held,
                begin=file.offset_bytes if known else 0,
                end=part.offset if known else None,
                line=file.lines_done if known else 0,
            )
        step = Step(
            kind="load",
            switch=file.switch,
            actor=file.actor,
            reason=f"{file.name}, lines {file.lines_done + 1} to {part.line}"[:500],
            file_id=file.id,
            first_line=file.lines_done + 1,
            last_line=part.line,
            skipped=part.skipped,
            halves=ready.halves,
            sequence=ready.sequence,
        )
        for attempt in range(ARCHIVED_MEANWHILE):
            await ensure_days(connection, prepared, self._clock())
            try:
                async with connection.transaction():
                    _, counts = await write_batch(connection, step, prepared, now=self._clock())
                    await files.advance_file(
                        connection, file, offset=part.offset, line=part.line, counts=counts
                    )
                break
            except psycopg.errors.UndefinedTable:
                # A day was archived between the two: make its partition again.
                if attempt + 1 == ARCHIVED_MEANWHILE:
                    raise

    def _parts(self, file: CdrFile) -> Iterator[Part]:
        self._stream.seek(0)
        return open_parts(
            self._stream,
            self._format,
            self._options,
            offset=file.offset_bytes,
            line=file.lines_done,
            records=self._job.records_per_part,
        )

    async def _produce(self, parts: Iterator[Part]) -> _Ready | None:
        """Read the next part and do all that can be done before it is written."""
        part = await asyncio.to_thread(next, parts, None)
        if part is None:
            return None
        await self._recall_halves(part.halves)
        frame, halves = self._halves.join(part)
        sequence = sequence_summary(part.frame["sequence"]) or {}
        # Two parts are in hand at a time: what is not needed any more is let go at once.
        part = replace(part, frame=part.frame.clear())
        work, found = await self._knowledge.work_for(frame)
        fresh, keys, duplicate = await asyncio.to_thread(fresh_rows, frame, work)
        del frame
        prepared = await asyncio.to_thread(
            prepare,
            fresh,
            keys,
            duplicate=duplicate,
            refused=part.refused,
            found=found,
            work=work,
            now_us=microseconds(self._clock()),
        )
        return _Ready(part, prepared, halves, sequence)

    async def _recall_halves(self, halves: list[Half]) -> None:
        keys = self._halves.unknown(halves)
        if keys:
            async with self._database.read() as connection:
                stored = await files.read_halves(connection, self._job.switch, keys)
            self._halves.recall(keys, stored)

    def _check_unchanged(self) -> None:
        stat = os.fstat(self._stream.fileno())
        if (stat.st_size, stat.st_mtime_ns) != self._stamp:
            raise InvalidInput(
                "the file changed while it was read; load it again when it is complete: what is in "
                "the books is not taken twice",
                code="file_changed",
                field="file",
            )


async def _again(connection: Connection, file: CdrFile) -> CdrFile:
    """The file as it stands now."""
    found = await files.read_file(connection, file.id)
    assert found is not None, "files are never deleted"
    return found
