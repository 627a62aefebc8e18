"""What runs by the clock for records that come as files.

Any number of processes may do this at once; what one of them is at, the others leave to it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta

import structlog

from tollkeeper.errors import Busy
from tollkeeper.jobs.archiving import Archiving
from tollkeeper.jobs.timers import every
from tollkeeper.services.cdr.brought import Bringing
from tollkeeper.services.cdr.files import HALF_PATIENCE, expire_halves
from tollkeeper.services.cdr.late_match import LateMatch
from tollkeeper.services.cdr.quarantine import Filter
from tollkeeper.services.cdr.worker import Worker
from tollkeeper.services.tasks import end
from tollkeeper.store import cdr_files, usage
from tollkeeper.store.db import Database

ACTOR = "matching"
REPLAY_MAX = 10_000
MINUTE, HOUR = 60.0, 3600.0
FRESH_DAYS = 3
"""Days of calls that files usually bring."""
FRESH_HOURS = timedelta(hours=2)

_log = structlog.get_logger()


class CdrJobs:
    """The jobs of one process. Without ``bringing`` or ``archiving`` there is none of that kind."""

    def __init__(
        self,
        *,
        database: Database,
        worker: Worker,
        clock: Callable[[], datetime],
        bringing: Bringing | None = None,
        archiving: Archiving | None = None,
    ) -> None:
        self._database = database
        self._worker = worker
        self._clock = clock
        self._bringing = bringing
        self._archiving = archiving
        self._late = LateMatch(database, clock)
        self._tasks: list[asyncio.Task[None]] = []

    def start(self, *, minute: float = MINUTE, hour: float = HOUR) -> None:
        """Begin; ``minute`` and ``hour`` are the pauses in seconds."""
        jobs = [
            (minute, self.match_late),
            (minute, self.replay_ended),
            (hour, self.compact),
            (hour, self.summarize),
            (hour, self.expire),
        ]
        if self._bringing is not None:
            jobs.append((minute, self._bringing.go_on))
        if self._archiving is not None:
            jobs.append((hour, self._archiving.step))
        self._tasks = [
            asyncio.create_task(every(pause, job), name=job.__name__) for pause, job in jobs
        ]

    async def stop(self) -> None:
        """End all jobs; what was not finished is done by the next process."""
        await end(self._tasks)
        self._tasks = []

    async def match_late(self) -> bool:
        """Take back what files charged for calls that turned out to be charged live."""
        if taken_back := await self._late.run():
            _log.info("match.late", records=taken_back)
        return False

    async def replay_ended(self) -> bool:
        """Play the records again that waited for the end of their live call; True if more wait."""
        async with self._database.read() as connection:
            ids = await cdr_files.ended_calls(connection, REPLAY_MAX)
        if not ids:
            return False
        try:
            report = await self._worker.replay(
                Filter(reason="session_open", ids=tuple(ids)), actor=ACTOR
            )
        except Busy as error:
            _log.info("replay.waits", why=error.detail)
            return False
        _log.info("replay.ended_calls", played=report.played, still=report.still)
        return len(ids) == REPLAY_MAX and report.still == 0

    async def compact(self) -> bool:
        """Put the hourly sums of the days before yesterday together."""
        async with self._database.write() as connection:
            before = self._clock().date() - timedelta(days=1)
            if saved := await usage.compact_hours(connection, before):
                _log.info("hours.compacted", rows=saved)
        return False

    async def summarize(self) -> bool:
        """Bring the block range indexes of days that records came for up to date."""
        now = self._clock()
        fresh = {now.date() - timedelta(days=n) for n in range(FRESH_DAYS)}
        async with self._database.read() as connection:
            fresh |= set(await cdr_files.loaded_days(connection, now - FRESH_HOURS))
            for day in sorted(fresh):
                await cdr_files.summarize(connection, [day])
        return False

    async def expire(self) -> bool:
        """Put halves of calls that waited too long into quarantine."""
        before = self._clock() - HALF_PATIENCE
        moved = await expire_halves(self._database, before, actor=ACTOR, clock=self._clock)
        if moved:
            _log.warning("halves.expired", halves=moved)
        return False
