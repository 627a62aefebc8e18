"""Handles: by what a call that is up is reached at its switch, where its id alone does not do.

They are kept in memory and written to the database a moment later, many at a time: no call waits for
them. Whoever asks in another process, or after a restart, finds them there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping

import psycopg
import structlog

from tollkeeper.errors import Busy
from tollkeeper.services.tasks import end
from tollkeeper.store import peers as store
from tollkeeper.store.db import Database

FLUSH_SECONDS = 0.05
AGAIN_SECONDS = 1.0
"""What could not be written is tried again so much later."""
KNOWN_MAX = 200_000
"""Calls up at once that one process remembers; beyond, the oldest are asked of the database."""
_log = structlog.get_logger()


class Handles:
    """The handles of one process's calls."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._known: dict[str, Mapping[str, object]] = {}
        self._changed: set[str] = set()
        self._gone: set[str] = set()
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to write."""
        self._task = asyncio.create_task(self._run(), name="handles")

    async def stop(self) -> None:
        """Write what is left, then end."""
        if self._task is not None:
            await end([self._task])
            self._task = None
            await self._flush()

    def keep(self, key: str, handle: Mapping[str, object]) -> None:
        """Note how a call is reached; ``key`` is ``switch/session_id``."""
        if self._known.get(key) == handle:
            return
        while len(self._known) >= KNOWN_MAX:
            self._known.pop(next(iter(self._known)))
        self._known[key] = handle
        self._gone.discard(key)
        self._changed.add(key)
        self._wake.set()

    def forget(self, key: str) -> None:
        """The call is over."""
        written = self._known.pop(key, None) is not None and key not in self._changed
        self._changed.discard(key)
        if written:
            self._gone.add(key)
            self._wake.set()

    async def find(self, key: str) -> Mapping[str, object] | None:
        """How a call is reached; None where nobody has noted it."""
        found = self._known.get(key)
        if found is not None:
            return found
        async with self._database.read() as connection:
            return await store.read_handle(connection, key)

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            await asyncio.sleep(FLUSH_SECONDS)
            if not await self._flush():
                await asyncio.sleep(AGAIN_SECONDS)

    async def _flush(self) -> bool:
        """Write what has changed; False where that could not be done and is to be tried again."""
        self._wake.clear()
        changed = {key: self._known[key] for key in self._changed if key in self._known}
        gone = self._gone
        self._changed, self._gone = set(), set()
        if not changed and not gone:
            return True
        written = False
        try:
            await self._write(changed, gone)
            written = True
        except psycopg.DataError:
            written = await self._one_by_one(changed, gone)
        except (psycopg.Error, Busy, OSError) as error:
            _log.warning("handles.not_written", calls=len(changed), error=str(error))
        finally:
            if not written:
                # The calls go on. Their next messages bring the same handles, which are no news then.
                self._changed |= {key for key in changed if key in self._known}
                self._gone |= {key for key in gone if key not in self._known}
                self._wake.set()
        return written

    async def _write(
        self, changed: Mapping[str, Mapping[str, object]], gone: Iterable[str]
    ) -> None:
        async with self._database.write() as connection:
            if changed:
                await store.keep_handles(connection, changed)
            if gone:
                await store.forget_handles(connection, gone)

    async def _one_by_one(
        self, changed: Mapping[str, Mapping[str, object]], gone: Iterable[str]
    ) -> bool:
        """One of them cannot be kept at all, which is no matter of the others."""
        try:
            await self._write({}, gone)
            for key, handle in changed.items():
                try:
                    await self._write({key: handle}, ())
                except psycopg.DataError as error:
                    _log.warning("handle.refused", call=key, error=str(error))
        except (psycopg.Error, Busy, OSError) as error:
            _log.warning("handles.not_written", calls=len(changed), error=str(error))
            return False
        return True
