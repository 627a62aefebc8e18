"""Files of others: what lies in a folder here or on a server, fetched and then put away.

Every store is one folder, never those below it. Names are plain names; one whose bytes are no
UTF-8 keeps them as surrogates (PEP 383), so that it can be asked for again. ``mtime`` is in
microseconds since 1970, as exact as the server tells it: it is compared, never computed with.
"""

from __future__ import annotations

import asyncio
import errno
import fnmatch
import os
import shutil
import stat as modes
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from tollkeeper.errors import TollkeeperError

T = TypeVar("T")
Files = list["RemoteFile"]

CHUNK_BYTES = 1024 * 1024

Write = Callable[[bytes], object]
"""Takes the next bytes of a file that is fetched; may be called from another thread."""


class FilesFailed(TollkeeperError):
    """The store cannot be reached, or refused what was asked; it is tried again later."""

    code = "source_failed"
    http_status = 503


class FileGone(FilesFailed):
    """The file is not there any more."""

    code = "file_gone"


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file as its store lists it; two equal ones are taken for the same content."""

    name: str
    bytes: int
    mtime: int


class FileStore(Protocol):
    """One folder of files. All methods raise FilesFailed."""

    async def list(self, pattern: str) -> Files:
        """Return the plain files whose names match a pattern of * ? [] (case counts), by name."""

    async def stat(self, name: str) -> RemoteFile | None:
        """Look at one file again; None when it is gone."""

    async def fetch(self, name: str, write: Write) -> None:
        """Hand over the content from the beginning to the end.

        Raises:
            FileGone: it is not there. What ``write`` raises comes through as it is.
        """

    async def move_to(self, name: str, folder: str, new_name: str) -> None:
        """Move a file to another folder of the store, which is made if need be; never overwrites."""

    async def delete(self, name: str) -> None:
        """Delete a file; one that is gone already is fine."""

    async def close(self) -> None:
        """Give back the connection; what is under way ends with an error."""


class LocalFolder:
    """A folder that this machine sees: a disk, or a share that is mounted."""

    def __init__(self, path: str) -> None:
        self._path = Path(path)

    async def list(self, pattern: str) -> Files:
        """As :meth:`FileStore.list`."""
        return await self._work(lambda: self._list(pattern))

    def _list(self, pattern: str) -> Files:
        found = []
        with os.scandir(self._path) as entries:
            for entry in entries:
                if fnmatch.fnmatchcase(entry.name, pattern):
                    file = self._stat(entry.name)
                    found += [file] if file is not None else []
        return sorted(found, key=lambda file: file.name)

    async def stat(self, name: str) -> RemoteFile | None:
        """As :meth:`FileStore.stat`."""
        return await self._work(lambda: self._stat(name))

    def _stat(self, name: str) -> RemoteFile | None:
        try:
            found = (self._path / name).stat()
        except FileNotFoundError:
            return None
        if not modes.S_ISREG(found.st_mode):
            return None
        return RemoteFile(name, found.st_size, found.st_mtime_ns // 1000)

    async def fetch(self, name: str, write: Write) -> None:
        """As :meth:`FileStore.fetch`."""
        # Only the reading is our business here: an error of the writing must stay what it is.
        try:
            stream = await asyncio.to_thread((self._path / name).open, "rb")
        except FileNotFoundError as error:
            raise FileGone(f"{name}: the file is not there any more") from error
        except OSError as error:
            raise self._failed(error) from error

        def copy() -> None:
            with stream:
                while True:
                    try:
                        data = stream.read(CHUNK_BYTES)
                    except OSError as error:
                        raise self._failed(error) from error
                    if not data:
                        return
                    write(data)

        await asyncio.to_thread(copy)

    async def move_to(self, name: str, folder: str, new_name: str) -> None:
        """As :meth:`FileStore.move_to`."""

        def move() -> None:
            target = self._path / folder
            target.mkdir(parents=True, exist_ok=True)
            if (target / new_name).exists():
                raise FileExistsError(
                    errno.EEXIST, os.strerror(errno.EEXIST), str(target / new_name)
                )
            shutil.move(self._path / name, target / new_name)

        await self._work(move)

    async def delete(self, name: str) -> None:
        """As :meth:`FileStore.delete`."""
        await self._work(lambda: (self._path / name).unlink(missing_ok=True))

    async def close(self) -> None:
        """Nothing is held."""

    async def _work(self, work: Callable[[], T]) -> T:
        try:
            return await asyncio.to_thread(work)
        except OSError as error:
            raise self._failed(error) from error

    def _failed(self, error: OSError) -> FilesFailed:
        return FilesFailed(f"{error.filename or self._path}: {error.strerror or error}")


class NullFiles:
    """A store in memory, for tests and for set-ups without a server."""

    def __init__(self, files: dict[str, bytes] | None = None) -> None:
        self.files = dict(files or {})
        self.mtimes: dict[str, int] = {}
        self.moved: dict[str, bytes] = {}
        self.closed = False

    async def list(self, pattern: str) -> Files:
        """As :meth:`FileStore.list`."""
        return [
            RemoteFile(name, len(data), self.mtimes.get(name, 0))
            for name, data in sorted(self.files.items())
            if fnmatch.fnmatchcase(name, pattern)
        ]

    async def stat(self, name: str) -> RemoteFile | None:
        """As :meth:`FileStore.stat`."""
        if name not in self.files:
            return None
        return RemoteFile(name, len(self.files[name]), self.mtimes.get(name, 0))

    async def fetch(self, name: str, write: Write) -> None:
        """As :meth:`FileStore.fetch`."""
        if name not in self.files:
            raise FileGone(f"{name}: the file is not there any more")
        write(self.files[name])

    async def move_to(self, name: str, folder: str, new_name: str) -> None:
        """As :meth:`FileStore.move_to`."""
        target = f"{folder}/{new_name}"
        if target in self.moved:
            raise FilesFailed(f"{target}: there is such a file already")
        self.moved[target] = self.files.pop(name)

    async def delete(self, name: str) -> None:
        """As :meth:`FileStore.delete`."""
        self.files.pop(name, None)

    async def close(self) -> None:
        """Remember that it was closed."""
        self.closed = True
