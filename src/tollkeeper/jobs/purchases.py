"""What runs by the clock for orders at suppliers: asking on, keeping holds, ending what is over.

Any number of processes may do this at once: each takes what no other is at.
"""

from __future__ import annotations

import asyncio

from tollkeeper.jobs.timers import every
from tollkeeper.services.supplies import Supplies
from tollkeeper.services.tasks import end

MINUTE, HOUR = 60.0, 3600.0
HOLD_SECONDS = 10.0
"""Often enough that no hold ends within the margin in which it is prolonged."""


class PurchaseJobs:
    """The jobs of one process."""

    def __init__(self, supplies: Supplies) -> None:
        self._supplies = supplies
        self._tasks: list[asyncio.Task[None]] = []

    def start(self, *, tick: float = 1.0) -> None:
        """Begin; ``tick`` is the pause in seconds between looks for orders whose time has come."""
        supplies = self._supplies
        jobs = [
            (tick, supplies.purchases.advance),
            (HOLD_SECONDS, supplies.purchases.keep_holds),
            (5 * tick, supplies.lookups.advance),
            (MINUTE, supplies.esims.expire),
            (HOUR, supplies.lookups.purge),
        ]
        self._tasks = [
            asyncio.create_task(every(pause, job), name=job.__qualname__) for pause, job in jobs
        ]

    async def stop(self) -> None:
        """End all jobs; what was not finished is done by the next process."""
        await end(self._tasks)
        self._tasks = []
