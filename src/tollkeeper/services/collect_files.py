"""Which files of a folder are complete, and taking them one by one."""

from __future__ import annotations

import asyncio
import fnmatch
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Protocol

from tollkeeper.gateways.files import FileGone, FilesFailed, FileStore, LocalFolder, RemoteFile
from tollkeeper.gateways.ftp import Ftp
from tollkeeper.gateways.sftp import Sftp
from tollkeeper.services.source_settings import (
    FileSettings,
    FolderSettings,
    FtpSettings,
    SftpSettings,
    marker_of,
    read_settings,
)
from tollkeeper.services.spool import FileTooLarge, Spool, SpooledFile, printable
from tollkeeper.store import cdr_sources as store
from tollkeeper.store.cdr_sources import CdrSource
from tollkeeper.store.db import Database

Connect = Callable[[CdrSource], Awaitable[FileStore]]

UNFINISHED = (".tmp", ".temp", ".part", ".partial", ".filepart", ".crdownload", ".swp", "~")
"""Ends of names under which programs write what is not whole yet."""

NOTE_EVERY = 50
"""Files taken before the position is stored; after a crash that many are fetched again, and known."""


class Outcome(Protocol):
    """What became of a file of the spool."""

    @property
    def status(self) -> str:
        """``loaded``, ``known`` or ``failed``."""


class Taker(Protocol):
    """A round: what it works with, and where files go."""

    database: Database
    source: CdrSource
    spool: Spool
    clock: Callable[[], datetime]

    async def take(self, file: SpooledFile) -> Outcome:
        """Load a file of the spool; raises Busy when it must wait."""

    def report(self, name: str, status: str, detail: str = "", *, size: int = 0) -> None:
        """Note what became of a file that did not get into the spool."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is to be done with a file: ``take``, ``put_away``, ``wait``, ``refuse``, or nothing (``skip``)."""

    file: RemoteFile
    action: str
    why: str = ""


async def connect_files(source: CdrSource) -> FileStore:
    """Connect to the folder of a source.

    Raises:
        FilesFailed: it cannot be reached.
    """
    settings = read_settings(source.kind, source.settings, source.secret)
    if isinstance(settings, FolderSettings):
        return LocalFolder(settings.path)
    if isinstance(settings, SftpSettings):
        return await Sftp.connect(
            host=settings.host,
            port=settings.port,
            user=settings.user,
            secret=source.secret,
            host_key=settings.host_key,
            path=settings.path,
        )
    assert isinstance(settings, FtpSettings)
    return await Ftp.connect(
        host=settings.host,
        port=settings.port,
        user=settings.user,
        secret=source.secret,
        path=settings.path,
        tls=settings.tls,
        fingerprint=settings.certificate_sha256,
    )


async def look(
    files: FileStore, settings: FileSettings, known: Mapping[str, Any], now: datetime
) -> list[Verdict]:
    """List a folder and say of each file what is to be done with it, the oldest first.

    ``known`` is what was noted at earlier looks, by the printable name.

    Raises:
        FilesFailed: the folder cannot be listed.
    """
    listed = await files.list("*" if settings.done_marker else settings.pattern)
    times = {file.name: file.mtime for file in listed}
    wanted = [file for file in listed if fnmatch.fnmatchcase(file.name, settings.pattern)]
    markers = {marker_of(settings, file.name) for file in wanted}
    wanted.sort(key=lambda file: (file.mtime, file.name))
    return [
        _verdict(file, known.get(printable(file.name)), settings, times, now)
        for file in wanted
        if file.name not in markers
    ]


def _verdict(
    file: RemoteFile,
    noted: Mapping[str, Any] | None,
    settings: FileSettings,
    times: Mapping[str, int],
    now: datetime,
) -> Verdict:
    name = file.name
    if "/" in name or name in {".", ".."} or any(ord(c) < 32 or ord(c) == 127 for c in name):
        return Verdict(file, "refuse", "its name has a slash or a control character; rename it")
    if name.startswith(".") or name.lower().endswith(UNFINISHED):
        return Verdict(file, "skip", "its name says that it is still being written")
    if not file.bytes:
        return Verdict(file, "skip", "it is empty")
    unchanged = noted is not None and (noted["bytes"], noted["mtime"]) == (file.bytes, file.mtime)
    if unchanged and noted is not None and "sha256" in noted:
        done = settings.after == "keep" or noted.get("failed", False)
        return Verdict(file, "skip" if done else "put_away", "it was taken before")
    if settings.done_marker:
        marker = marker_of(settings, name)
        if marker not in times:
            return Verdict(file, "wait", f"its marker {marker} is not there yet")
        if times[marker] >= file.mtime:
            return Verdict(file, "take")
        # The marker is of an earlier file of that name, or clocks are odd: only rest can tell.
    if not settings.settle_seconds:
        return Verdict(file, "take")
    if not unchanged or noted is None:
        return Verdict(file, "wait", "it is new or has changed since the last look")
    rested = now - datetime.fromisoformat(noted["since"])
    if rested < timedelta(seconds=settings.settle_seconds):
        return Verdict(file, "wait", "it changed a moment ago")
    return Verdict(file, "take")


async def collect(taker: Taker, settings: FileSettings, connect: Connect) -> None:
    """Take what is complete, load it, put it away.

    Raises:
        FilesFailed: the folder cannot be reached. Busy: nothing more can be loaded now.
    """
    async with taker.database.read() as connection:
        before = await store.read_position(connection, taker.source.id)
    work = _Folder(taker, settings, connect, dict(before.get("files", {})))
    await work.open()
    try:
        await work.go()
    finally:
        await work.close()
        await work.note()


class _Folder:
    """One look at a folder and the taking of what it shows."""

    def __init__(
        self, taker: Taker, settings: FileSettings, connect: Connect, noted: dict[str, Any]
    ) -> None:
        self._taker = taker
        self._settings = settings
        self._connect = connect
        self._noted = noted
        self._stored = {name: dict(each) for name, each in noted.items()}
        self._files: FileStore | None = None
        self._since_note = 0

    async def open(self) -> None:
        """Connect."""
        self._files = await self._connect(self._taker.source)

    async def close(self) -> None:
        """Disconnect."""
        if self._files is not None:
            files, self._files = self._files, None
            await files.close()

    @property
    def _open(self) -> FileStore:
        assert self._files is not None
        return self._files

    async def go(self) -> None:
        """Look, and act on what there is."""
        verdicts = await look(self._open, self._settings, self._noted, self._taker.clock())
        # What is not listed any more need not be remembered: its content is known by its hash.
        listed = {printable(verdict.file.name) for verdict in verdicts}
        self._noted = {name: each for name, each in self._noted.items() if name in listed}
        for verdict in verdicts:
            file = verdict.file
            if verdict.action == "wait":
                self._note_seen(file)
                self._taker.report(file.name, "waiting", verdict.why, size=file.bytes)
            elif verdict.action == "refuse":
                self._taker.report(file.name, "left", verdict.why, size=file.bytes)
        await self.note()
        for verdict in verdicts:
            if verdict.action == "take":
                await self._take(verdict.file)
            elif verdict.action == "put_away":
                sha256 = self._noted[printable(verdict.file.name)]["sha256"]
                await self._put_away(verdict.file, sha256)
            self._since_note += verdict.action == "take"
            if self._since_note >= NOTE_EVERY:
                await self.note()

    async def note(self) -> None:
        """Store what was seen and taken, if anything is new."""
        self._since_note = 0
        if self._noted != self._stored:
            async with self._taker.database.write() as connection:
                await store.write_position(
                    connection, self._taker.source.id, {"files": self._noted}
                )
            self._stored = {name: dict(each) for name, each in self._noted.items()}

    def _note_seen(self, file: RemoteFile) -> None:
        key = printable(file.name)
        noted = self._noted.get(key)
        if noted is None or (noted["bytes"], noted["mtime"]) != (file.bytes, file.mtime):
            now = self._taker.clock().isoformat()
            self._noted[key] = {"bytes": file.bytes, "mtime": file.mtime, "since": now}

    async def _take(self, file: RemoteFile) -> None:
        try:
            spooled = await self._fetch(file)
        except FileGone as error:
            self._taker.report(file.name, "left", error.detail, size=file.bytes)
            return
        except (FilesFailed, FileTooLarge) as error:
            # The others get a connection that is in order; if there is none to be had, that is
            # what ends the round.
            self._taker.report(file.name, "left", error.detail, size=file.bytes)
            await self.close()
            await self.open()
            return
        if spooled is None:
            return
        outcome = await self._taker.take(spooled)
        self._note_seen(file)
        noted = self._noted[printable(file.name)]
        noted["sha256"] = spooled.sha256
        if outcome.status == "failed":
            noted["failed"] = True
        else:
            await self._put_away(file, spooled.sha256)

    async def _fetch(self, file: RemoteFile) -> SpooledFile | None:
        """Copy a file into the spool; None when it changed meanwhile."""
        taker = self._taker
        with taker.spool.receive(taker.source.code, expected=file.bytes) as incoming:
            await self._open.fetch(file.name, incoming.write)
            again = await self._open.stat(file.name)
            if again != file or incoming.bytes != file.bytes:
                if again is not None:
                    self._note_seen(again)
                taker.report(file.name, "waiting", "it changed while it was read", size=file.bytes)
                return None
            return await asyncio.to_thread(
                taker.spool.keep, incoming, taker.source.code, file.name, taker.source
            )

    async def _put_away(self, file: RemoteFile, sha256: str) -> None:
        settings = self._settings
        if settings.after == "keep":
            return
        marker = marker_of(settings, file.name)
        if marker:
            # Without its marker the file is only known by this note, should we die on the way.
            await self.note()
        try:
            # The marker first: a later file of the same name must not find this one's.
            for name in [marker, file.name] if marker else [file.name]:
                await self._away(name, sha256)
        except FilesFailed as error:
            self._taker.report(
                file.name,
                "left",
                f"it was loaded but cannot be put away: {error.detail}",
                size=file.bytes,
            )
        else:
            self._noted.pop(printable(file.name), None)

    async def _away(self, name: str, sha256: str) -> None:
        if self._settings.after == "delete":
            await self._open.delete(name)
            return
        if await self._open.stat(name) is None:
            return
        try:
            await self._open.move_to(name, self._settings.move_to, name)
        except FilesFailed:
            # Of the same name, but from another day: neither may take the place of the other.
            await self._open.move_to(name, self._settings.move_to, f"{name}.{sha256[:12]}")


def summary(verdicts: Iterable[Verdict]) -> list[tuple[str, int, str]]:
    """Name, bytes and what is to be done, for people."""
    words = {"take": "would be taken", "put_away": "would be put away", "wait": "waits"}
    return [
        (
            printable(each.file.name),
            each.file.bytes,
            words.get(each.action, "left alone") + (f": {each.why}" if each.why else ""),
        )
        for each in verdicts
    ]
