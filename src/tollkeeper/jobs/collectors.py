"""Collecting by the clock: each enabled source in its own rhythm, a few at a time.

Any number of processes may do this at once: the right to collect from a source is held by one of
them, and what it did not finish is finished by the next.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime

import structlog

from tollkeeper.errors import Busy
from tollkeeper.services.collect import CollectReport, Load, collect_once
from tollkeeper.services.spool import Spool
from tollkeeper.services.tasks import end
from tollkeeper.store.cdr_sources import CdrSource, due_sources
from tollkeeper.store.db import Database

AT_ONCE = 2
"""Sources collected from at a time in one process: each may keep a core busy with loading."""

_log = structlog.get_logger()

Collect = Callable[[Database, CdrSource, Spool, Load, Callable[[], datetime]], Awaitable[CollectReport]]  # fmt: skip


class Collectors:
    """The collecting of one process."""

    def __init__(
        self,
        *,
        database: Database,
        spool: Spool,
        load: Load,
        clock: Callable[[], datetime],
        at_once: int = AT_ONCE,
        collect: Collect = collect_once,
    ) -> None:
        self._database = database
        self._spool = spool
        self._load = load
        self._clock = clock
        self._at_once = at_once
        self._collect = collect
        self._loop: asyncio.Task[None] | None = None
        self._running: dict[int, asyncio.Task[None]] = {}

    def start(self, *, tick: float = 1.0) -> None:
        """Begin; ``tick`` is the pause in seconds between looks for sources that are due."""
        self._loop = asyncio.create_task(self._run(tick), name="collectors")

    async def stop(self) -> None:
        """End all rounds; files that were not finished wait in the spool."""
        if self._loop is not None:
            await end([self._loop])
            self._loop = None
        await end(self._running.values())
        self._running = {}

    async def begin_due(self) -> int:
        """Begin rounds at sources that are due, as many as may run; returns how many."""
        # A round that ends while we look is still due in what we read: it would be begun again at once.
        at_work = set(self._running)
        async with self._database.read() as connection:
            due = await due_sources(connection, self._clock())
        begun = 0
        for source in due:
            if len(self._running) >= self._at_once:
                break
            if source.id not in at_work and source.id not in self._running:
                task = asyncio.create_task(self._round(source), name=f"collect {source.code}")
                self._running[source.id] = task
                begun += 1
        return begun

    async def _round(self, source: CdrSource) -> None:
        try:
            report = await self._collect(
                self._database, source, self._spool, self._load, self._clock
            )
        except (Busy, OSError) as error:
            _log.warning("collect.waits", source=source.code, error=str(error))
        except Exception:  # noqa: BLE001 - the other sources go on
            _log.exception("collect.failed", source=source.code)
        else:
            if loaded := report.count("loaded"):
                _log.info("collect.loaded", source=source.code, files=loaded)
        finally:
            self._running.pop(source.id, None)

    async def _run(self, tick: float) -> None:
        while True:
            try:
                await self.begin_due()
            except (Busy, OSError) as error:
                _log.warning("job.waits", job="collectors", error=str(error))
            except Exception:  # noqa: BLE001 - a job that ends would be missed by nobody
                _log.exception("job.failed", job="collectors")
            await asyncio.sleep(tick)
