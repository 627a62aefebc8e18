"""The spool: a folder where files rest between the moment they came and the moment they are loaded.

``<spool>/<source>/incoming/`` holds what is being written, ``ready/`` what is complete, ``failed/``
what could not be loaded. A complete file is named by its content (SHA-256) and the name it came
with, and got there by one rename: whatever is in ``ready/`` is whole, after any crash. The lock of
a file in ``incoming/`` goes with the process that holds it, so what dead processes left is told
from what is being written, and is removed.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import hashlib
import os
import re
import secrets
import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from tollkeeper.errors import Busy, InvalidInput, TollkeeperError
from tollkeeper.store.cdr_sources import CdrSource

CHUNK_BYTES = 1024 * 1024
SPARE_BYTES = 64 * 1024 * 1024
"""Left free on the disk of the spool: it is often the disk of the database too."""

BY_HAND = ".stdin"
"""Folder of what has no source; no source's code begins with a dot."""

NAME_BYTES = 180
"""Of the name a file came with; with the hash before it, it must fit into 255 bytes."""

_READY = re.compile(r"([0-9a-f]{64})\.(.+)", re.DOTALL)
_FULL = (errno.ENOSPC, errno.EDQUOT)


class SpoolFull(Busy):
    """There is no room for a file; it stays where it is and is asked for again."""

    code = "spool_full"


class FileTooLarge(TollkeeperError):
    """A file is larger than cdr_file_max_bytes."""

    code = "body_too_large"
    http_status = 413


@dataclass(frozen=True, slots=True)
class SpooledFile:
    """A complete file in the spool. ``name`` is the one it came with, printable.

    ``source`` is None for one that came by hand.
    """

    path: Path
    name: str
    sha256: str
    bytes: int
    source: CdrSource | None


def printable(name: str) -> str:
    r"""A name as it is shown and stored: what is no UTF-8 or cannot be seen is written out, as \xNN."""
    text = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def check_name(name: str) -> str:
    """Return a plain file name.

    Raises:
        InvalidInput: empty, with a slash or a control character, "." or "..", or too long.
    """
    plain = name.isprintable() and "/" not in name and name not in {"", ".", ".."}
    if not plain or len(name.encode("utf-8", "surrogateescape")) > 255:
        raise InvalidInput(
            "name: give a plain file name without slashes and control characters", field="name"
        )
    return name


class Incoming:
    """A file on its way in: written, counted and hashed; kept or dropped at the end.

    ``write`` may be called from another thread than the rest.
    """

    def __init__(self, path: Path, descriptor: int, *, most: int) -> None:
        self._path = path
        self._descriptor = descriptor
        self._most = most
        self._hash = hashlib.sha256()
        self._lock = threading.Lock()
        self._open = True
        self.bytes = 0

    def write(self, data: bytes) -> None:
        """Append some bytes.

        Raises:
            FileTooLarge: more than a file may have. SpoolFull: the disk is full.
        """
        with self._lock:
            if not self._open:
                raise ValueError("the file was closed while it was written")
            self.bytes += len(data)
            if self.bytes > self._most:
                raise FileTooLarge(
                    f"the file is larger than {self._most} bytes; the setting cdr_file_max_bytes "
                    "allows more"
                )
            self._hash.update(data)
            view = memoryview(data)
            with told(self._path):
                while view:
                    view = view[os.write(self._descriptor, view) :]

    @property
    def path(self) -> Path:
        """Where it is being written."""
        return self._path

    @property
    def sha256(self) -> str:
        """The hash of what was written so far."""
        return self._hash.hexdigest()

    def keep(self, ready: Path, name: str, source: CdrSource | None) -> SpooledFile:
        """Move the file among the complete ones; what is there already is not doubled."""
        sha256 = self.sha256
        target = ready / f"{sha256}.{_short(name)}"
        with told(self._path):
            os.fsync(self._descriptor)
            if there := _of_content(ready, sha256):
                target = there
                self.drop()
            else:
                self._path.rename(target)
                _sync_folder(ready)
                self._close()
        return SpooledFile(target, target.name[len(sha256) + 1 :], sha256, self.bytes, source)

    def drop(self) -> None:
        """Forget the file; nothing happens to one that was kept."""
        if self._open:
            self._path.unlink(missing_ok=True)
            self._close()

    def _close(self) -> None:
        with self._lock:
            self._open = False
            os.close(self._descriptor)


class Spool:
    """The spool of one machine; ``max_bytes`` is the most that one file may have."""

    def __init__(self, root: Path, *, max_bytes: int) -> None:
        self.root = root
        self.max_bytes = max_bytes

    @contextlib.contextmanager
    def receive(self, owner: str, *, expected: int = 0) -> Iterator[Incoming]:
        """A new file of a source; it is dropped at the end of the block unless it was kept.

        ``expected`` is the number of bytes that are announced, 0 when nobody knows.

        Raises:
            FileTooLarge: more is announced than a file may have. SpoolFull: no room for that.
        """
        folder = self._folder(owner, "incoming")
        if expected > self.max_bytes:
            raise FileTooLarge(
                f"the file has {expected} bytes and may have {self.max_bytes}; the setting "
                "cdr_file_max_bytes allows more"
            )
        with told(folder):
            free = shutil.disk_usage(folder).free
        if free < expected + SPARE_BYTES:
            raise SpoolFull(
                f"the disk of the spool folder {self.root} has {free} bytes free and a file of "
                f"{expected} is waiting; make room, nothing is lost meanwhile"
            )
        incoming = _create(folder, most=self.max_bytes)
        try:
            yield incoming
        finally:
            incoming.drop()

    def keep(self, incoming: Incoming, owner: str, name: str, source: CdrSource | None) -> SpooledFile:  # fmt: skip
        """Take a file that is complete in."""
        return incoming.keep(self._folder(owner, "ready"), name, source)

    def ready(self, owner: str, source: CdrSource | None = None) -> list[SpooledFile]:
        """The complete files of a source that wait to be loaded, in the order in which they came."""
        return self._files(owner, "ready", source)

    def failed(self, owner: str, source: CdrSource | None = None) -> list[SpooledFile]:
        """The files of a source that could not be loaded."""
        return self._files(owner, "failed", source)

    def _files(self, owner: str, state: str, source: CdrSource | None) -> list[SpooledFile]:
        found = []
        for path in self._folder(owner, state).iterdir():
            match = _READY.fullmatch(path.name)
            # One that was loaded and removed by another process meanwhile is not waiting any more.
            with contextlib.suppress(FileNotFoundError):
                if match is not None:
                    facts = path.stat()
                    file = SpooledFile(path, match[2], match[1], facts.st_size, source)
                    found.append((facts.st_mtime_ns, match[2], file))
        return [file for _, _, file in sorted(found, key=lambda each: each[:2])]

    def done(self, file: SpooledFile) -> None:
        """Remove a file that was loaded."""
        file.path.unlink(missing_ok=True)

    def fail(self, owner: str, file: SpooledFile) -> None:
        """Put a file aside that cannot be loaded."""
        with contextlib.suppress(FileNotFoundError):
            file.path.rename(self._folder(owner, "failed") / file.path.name)

    def retry(self, owner: str, sha256: str) -> None:
        """Let a file that was put aside wait for loading again; nothing happens if there is none."""
        found = _of_content(self._folder(owner, "failed"), sha256)
        if found is not None:
            found.rename(self._folder(owner, "ready") / found.name)

    def sweep(self, owner: str) -> None:
        """Remove what processes that are gone were writing."""
        for path in self._folder(owner, "incoming").iterdir():
            with contextlib.suppress(OSError):
                descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    path.unlink(missing_ok=True)
                finally:
                    os.close(descriptor)

    def _folder(self, owner: str, state: str) -> Path:
        folder = self.root / owner / state
        with told(folder):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return folder


async def spool_stream(stream: BinaryIO, spool: Spool, *, name: str = "stdin") -> SpooledFile:
    """Take all that a stream gives (standard input, for instance) into the spool.

    Raises:
        InvalidInput: it gives nothing. FileTooLarge, SpoolFull: as :meth:`Spool.receive`.
    """
    check_name(name)

    def copy() -> SpooledFile:
        with spool.receive(BY_HAND) as incoming:
            while data := stream.read(CHUNK_BYTES):
                incoming.write(data)
            if not incoming.bytes:
                raise InvalidInput(f"{name}: there is nothing in it", code="empty_file")
            return spool.keep(incoming, BY_HAND, name, None)

    return await asyncio.to_thread(copy)


def _create(folder: Path, *, most: int) -> Incoming:
    while True:
        path = folder / f"{secrets.token_hex(16)}.part"
        with told(path):
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            descriptor = os.open(path, flags, 0o600)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        # Somebody who swept between the two lines above took it for left behind.
        if os.fstat(descriptor).st_nlink:
            return Incoming(path, descriptor, most=most)
        os.close(descriptor)


def _of_content(folder: Path, sha256: str) -> Path | None:
    return next(folder.glob(f"{sha256}.*"), None)


def _short(name: str) -> str:
    """The end of a name, which tells more than its beginning: the type, often the day."""
    data = printable(name).replace("/", "_").encode()
    return (
        data.decode() if len(data) <= NAME_BYTES else data[-NAME_BYTES:].decode("utf-8", "ignore")
    )


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def told(path: Path) -> Iterator[None]:
    """Faults of the disk become one sentence.

    Raises:
        SpoolFull: it is full. Busy: any other; the work can be done again.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise SpoolFull(
                f"the disk of the spool folder {path.parent} is full; make room, nothing is lost "
                "meanwhile"
            ) from error
        raise Busy(
            f"the spool folder cannot be used: {error.filename or path}: {error.strerror or error}",
            code="spool_away",
        ) from error
