"""What becomes of packages when their terms are over."""

from __future__ import annotations

import asyncio

from tollkeeper.jobs.timers import every
from tollkeeper.services.packages import Packages
from tollkeeper.services.tasks import end

BATCH = 100


class PackageJobs:
    """Renews and ends packages; any number of processes may, and what one leaves the next one ends."""

    def __init__(self, packages: Packages) -> None:
        self._packages = packages
        self._tasks: list[asyncio.Task[None]] = []

    def start(self, *, tick: float = 5.0) -> None:
        """Begin; ``tick`` is the pause in seconds between looks."""
        self._tasks = [asyncio.create_task(every(tick, self.go_on), name="packages")]

    async def stop(self) -> None:
        """End; what was not finished is done by the next process."""
        await end(self._tasks)
        self._tasks = []

    async def go_on(self) -> bool:
        """Take what is due; True when there may be more."""
        return await self._packages.go_on(limit=BATCH) == BATCH
