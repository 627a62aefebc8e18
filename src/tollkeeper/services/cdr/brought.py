"""Files that are brought to be loaded at once: safe in the spool first, loaded as soon as may be.

A file that is brought is entered as loading before its sender is answered, and lies in the spool
until it is loaded. So whatever happens to the process that loads it, another one goes on with it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

import structlog

from tollkeeper.errors import Busy, InvalidInput, NotFound, TollkeeperError
from tollkeeper.services.cdr.files import adopt
from tollkeeper.services.cdr.load import LoadJob
from tollkeeper.services.cdr.worker import Worker
from tollkeeper.services.fields import check_code, check_timezone
from tollkeeper.services.spool import Spool, SpooledFile, check_name
from tollkeeper.services.tasks import end
from tollkeeper.store.cdr_files import is_loading
from tollkeeper.store.db import Database
from tollkeeper.store.usage_files import (
    CdrFile,
    NewFile,
    end_file,
    find_file,
    open_file,
    read_file,
    resume_file,
)
from tollkeeper.wire.cdr.compressed import open_stream
from tollkeeper.wire.cdr.format import HEAD_BYTES
from tollkeeper.wire.cdr.formats import FORMATS, format_of
from tollkeeper.wire.cdr.mapping import load_mapping
from tollkeeper.wire.cdr.sniff import SURE, Guess, sniff

AUTO = "auto"
OWNER = ".brought."
"""Before the switch, the folder in the spool; no source's code begins with a dot."""

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Brought:
    """What is said about a file that is brought. ``format`` may be ``auto``."""

    switch: str
    name: str
    format: str = AUTO
    mapping: dict[str, object] | None = None
    timezone: str = "UTC"
    actor: str = ""


def check_brought(what: Brought) -> None:
    """Check what can be checked before a byte of the file is there.

    Raises:
        InvalidInput: a name, a format, a zone or the mapping is wrong.
    """
    check_code(what.switch, field="switch")
    check_name(what.name)
    check_timezone(what.timezone)
    if what.mapping is not None:
        mapping = load_mapping(what.mapping)
        if what.format not in {AUTO, mapping.format}:
            raise InvalidInput(
                f"the mapping is for {mapping.format}, and the format is {what.format}",
                field="mapping",
            )
    elif what.format in {"csv", "jsonl"}:
        raise InvalidInput(
            f"mapping: the format {what.format} needs one, which says what each column is",
            code="mapping_missing",
            field="mapping",
        )
    if what.format != AUTO:
        format_of(what.format)


def sniff_file(path: Path, name: str) -> Guess:
    """Recognise a file by its first bytes, unpacked.

    Raises:
        NotFound: there is no such file. InvalidInput: it cannot be read.
    """
    try:
        with path.open("rb") as stream:
            head = open_stream(stream).read(HEAD_BYTES)
    except FileNotFoundError:
        raise NotFound(f"there is no file {path}", code="unknown_file", field="file") from None
    except OSError as error:
        raise InvalidInput(f"{path}: {error.strerror or error}", field="file") from error
    return sniff(head, _plain_name(name), FORMATS)


def sure_format(guess: Guess, mapping: dict[str, object] | None) -> str:
    """The code of the format to read a file by, whose owner did not name one.

    Raises:
        InvalidInput: it was not recognised well enough.
    """
    if mapping is not None:
        return load_mapping(mapping).format
    if guess.format and guess.confidence >= SURE:
        return guess.format
    if guess.mapping is not None:
        raise InvalidInput(
            f"the file is {guess.format} of which nobody knows what each column is; have a mapping "
            'proposed ("cdr sniff", or /v1/cdr/sniff), check it, and give it along',
            code="mapping_missing",
            field="mapping",
        )
    why = " ".join(guess.notes) or "Nothing is known that looks like it."
    raise InvalidInput(f"the format was not recognised; name it. {why}", code="unknown_format", field="format")  # fmt: skip


def _plain_name(name: str) -> str:
    for suffix in (".gz", ".zst", ".bz2", ".xz"):
        name = name.removesuffix(suffix)
    return name


class Bringing:
    """The files that are brought to one server process, and those that are left of another."""

    def __init__(
        self, *, database: Database, spool: Spool, worker: Worker, clock: Callable[[], datetime]
    ) -> None:
        self._database = database
        self._spool = spool
        self._worker = worker
        self._clock = clock
        self._tasks: dict[int, asyncio.Task[None]] = {}

    async def bring(
        self, what: Brought, chunks: AsyncIterable[bytes], *, expected: int = 0, patience: float
    ) -> tuple[CdrFile, bool]:
        """Take a file and begin to load it; waits ``patience`` seconds for the end of that.

        Returns the file as it stands then, and whether it was in the books before. A file that
        failed before is loaded again, from where it stopped.

        Raises:
            InvalidInput: what is said about it is wrong, or it is empty or not recognised.
            Conflict: a part of it is loaded, by another format. FileTooLarge, SpoolFull: as the spool
            says.
        """
        check_brought(what)
        owner = OWNER + what.switch
        self._spool.sweep(owner)
        with self._spool.receive(owner, expected=expected) as incoming:
            async for data in chunks:
                await asyncio.to_thread(incoming.write, data)
            if not incoming.bytes:
                raise InvalidInput("the file is empty", code="empty_file", field="file")
            if what.format == AUTO:
                guess = await asyncio.to_thread(sniff_file, incoming.path, what.name)
                what = replace(what, format=sure_format(guess, what.mapping))
            new = NewFile(
                switch=what.switch,
                name=what.name,
                sha256=incoming.sha256,
                bytes=incoming.bytes,
                format=what.format,
                mapping=what.mapping,
                timezone=what.timezone,
                actor=what.actor,
            )
            async with self._database.write() as connection:
                entered = await open_file(connection, new, self._clock())
                if entered.status == "done":
                    return entered, True
                if entered.status == "failed":
                    await adopt(connection, entered, new)
                    await resume_file(connection, entered.id)
            # Only now: a file in the spool without a line in the books would belong to nobody.
            spooled = await asyncio.to_thread(self._spool.keep, incoming, owner, what.name, None)
        task = self._begin(entered.id, what.switch, spooled)
        await asyncio.wait([task], timeout=patience)
        async with self._database.read() as connection:
            file = await read_file(connection, entered.id)
        assert file is not None, "files are never deleted"
        return file, False

    async def go_on(self) -> bool:
        """Load what lies in the spool and nobody is loading; a job by the clock."""
        for folder in sorted(self._spool.root.glob(f"{OWNER}*")):
            switch = folder.name.removeprefix(OWNER)
            for spooled in self._spool.ready(folder.name):
                async with self._database.read() as connection:
                    file = await find_file(connection, switch, spooled.sha256)
                    busy = await is_loading(connection, switch)
                if file is None or file.status in {"done", "failed"}:
                    self._spool.done(spooled)
                elif not busy and file.id not in self._tasks:
                    await asyncio.wait([self._begin(file.id, switch, spooled)])
        return False

    async def stop(self) -> None:
        """End all loads; another process, or this one when it runs again, goes on with them."""
        await end(self._tasks.values())
        self._tasks = {}

    def _begin(self, file_id: int, switch: str, spooled: SpooledFile) -> asyncio.Task[None]:
        running = self._tasks.get(file_id)
        if running is not None:
            return running
        task = asyncio.create_task(self._load(file_id, switch, spooled), name=f"load {file_id}")
        self._tasks[file_id] = task
        task.add_done_callback(lambda _: self._tasks.pop(file_id, None))
        return task

    async def _load(self, file_id: int, switch: str, spooled: SpooledFile) -> None:
        async with self._database.read() as connection:
            file = await read_file(connection, file_id)
        assert file is not None, "files are never deleted"
        job = LoadJob(
            spooled.path,
            switch,
            file.format,
            name=file.name,
            mapping=None if file.mapping is None else dict(file.mapping),
            timezone=file.timezone,
            sha256=file.sha256,
            actor=file.actor,
        )
        try:
            await self._worker.load(job)
        except Busy as error:
            _log.info("cdr.waits", file=file.name, switch=switch, why=error.detail)
            return
        except TollkeeperError as error:
            _log.warning("cdr.failed", file=file.name, switch=switch, why=error.detail)
            async with self._database.write() as connection:
                await end_file(
                    connection, file_id, "failed", at=self._clock(), error=error.detail[:500]
                )
        with suppress(FileNotFoundError):
            self._spool.done(spooled)
