"""Archiving and purging by the clock: a day at a time, by whichever process comes first."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

import structlog

from tollkeeper.errors import Busy
from tollkeeper.services.archive import due_days, place_for, policy_days
from tollkeeper.services.archive_worker import Job, archive_in_process
from tollkeeper.settings import Settings
from tollkeeper.store.archive import read_purge_plan
from tollkeeper.store.db import Database

_log = structlog.get_logger()


class Archiving:
    """The archiving of one process, as the settings want it."""

    def __init__(
        self, *, database: Database, settings: Settings, clock: Callable[[], datetime]
    ) -> None:
        self._database = database
        self._settings = settings
        self._clock = clock

    async def step(self) -> bool:
        """Archive one day and purge what is past its time; True when more days wait.

        Does nothing, cheaply, where nothing is due or another process is at it.
        """
        now = self._clock()
        archive_before, purge_before = policy_days(self._settings, now)
        if not await self._due(now):
            return False
        place = place_for(self._settings)
        job = Job(
            url=self._database.url,
            uri=place.uri,
            work=str(place.work),
            archive_before=archive_before,
            purge_before=purge_before,
            now=now,
        )
        try:
            done = await archive_in_process(job)
        except Busy as error:
            _log.info("archive.waits", detail=error.detail)
            return False
        for day in done.archived:
            _log.info("archive.day", day=str(day))
        if done.purged:
            _log.info("archive.purged", days=done.purged, before=str(purge_before))
        return done.more

    async def _due(self, now: datetime) -> bool:
        archive_before, purge_before = policy_days(self._settings, now)
        if await due_days(self._database, before=archive_before, now=now, limit=1):
            return True
        if purge_before is None:
            return False
        async with self._database.read() as connection:
            return bool(await read_purge_plan(connection, purge_before))
