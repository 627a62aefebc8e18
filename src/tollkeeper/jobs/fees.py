"""What runs by the clock for fees and numbers: what is due each day, week or month, and quarantine."""

from __future__ import annotations

import asyncio

from tollkeeper.jobs.timers import every
from tollkeeper.services.commitments import Commitments
from tollkeeper.services.dids import Dids
from tollkeeper.services.fees import Fees
from tollkeeper.services.tasks import end

BATCH = 100
MINUTE = 60.0


class FeeJobs:
    """The jobs of one process; any number may, and what one leaves the next one goes on with."""

    def __init__(self, fees: Fees, dids: Dids, commitments: Commitments) -> None:
        self._fees = fees
        self._dids = dids
        self._commitments = commitments
        self._tasks: list[asyncio.Task[None]] = []

    def start(self, *, tick: float = 5.0) -> None:
        """Begin; ``tick`` is the pause in seconds between looks."""
        self._tasks = [
            asyncio.create_task(every(tick, self.charge_fees), name="fees"),
            asyncio.create_task(every(tick, self.look_after_numbers), name="numbers"),
            asyncio.create_task(every(MINUTE, self.charge_commitments), name="commitments"),
        ]

    async def stop(self) -> None:
        """End all jobs; what was not finished is done by the next process."""
        await end(self._tasks)
        self._tasks = []

    async def charge_fees(self) -> bool:
        """Charge what is due; True when there may be more."""
        return await self._fees.go_on(limit=BATCH) == BATCH

    async def look_after_numbers(self) -> bool:
        """Go on with orders and end quarantines; True when there may be more."""
        return await self._dids.go_on(limit=BATCH) == BATCH

    async def charge_commitments(self) -> bool:
        """Open months and charge those that are over; True when there may be more."""
        return await self._commitments.go_on(limit=BATCH) == BATCH
