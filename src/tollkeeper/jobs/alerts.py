"""Looking every second whether somebody is to be told of a limit or a cap."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime

from tollkeeper.jobs.timers import every
from tollkeeper.services.alerts import Alerts
from tollkeeper.services.tasks import end
from tollkeeper.store.db import Database

TICK_SECONDS = 1.0
HOUSE_SECONDS = 3600.0


class AlertJobs:
    """The jobs of one process."""

    def __init__(self, *, database: Database, clock: Callable[[], datetime]) -> None:
        self._alerts = Alerts(database)
        self._clock = clock
        self._tasks: list[asyncio.Task[None]] = []

    def start(self, *, tick: float = TICK_SECONDS) -> None:
        """Begin; ``tick`` is the pause in seconds between looks."""
        self._tasks = [
            asyncio.create_task(every(tick, self.look), name="alerts"),
            asyncio.create_task(every(HOUSE_SECONDS, self.keep_house), name="alerts-house"),
        ]

    async def stop(self) -> None:
        """End both."""
        await end(self._tasks)
        self._tasks = []

    async def look(self) -> bool:
        """Tell what has been crossed; never more to do at once."""
        await self._alerts.look(self._clock())
        return False

    async def keep_house(self) -> bool:
        """Forget what is long over."""
        await self._alerts.keep_house(self._clock())
        return False
