"""What ends by the clock in wallets: temporary limits and bonus credit.

Each look is safe in any number of processes; what one of them has done the others find done.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime

from tollkeeper.jobs.timers import every
from tollkeeper.services.bonuses import expire_due
from tollkeeper.services.tasks import end
from tollkeeper.services.vouchers import forget_guesses
from tollkeeper.services.wallet_terms import end_temporary
from tollkeeper.store.db import Database

BATCH = 200
TICK_SECONDS = 0.5
"""Twice a second, so that what ends is taken back within a second."""
HOUSE_SECONDS = 3600.0


class WalletTerms:
    """The jobs of one process."""

    def __init__(self, *, database: Database, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._clock = clock
        self._tasks: list[asyncio.Task[None]] = []

    def start(self, *, tick: float = TICK_SECONDS) -> None:
        """Begin; ``tick`` is the pause in seconds between looks."""
        self._tasks = [
            asyncio.create_task(every(tick, self.end_limits), name="limits"),
            asyncio.create_task(every(tick, self.expire_bonus), name="bonus"),
            asyncio.create_task(every(HOUSE_SECONDS, self.keep_house), name="guesses"),
        ]

    async def stop(self) -> None:
        """End them; what was not finished is done by the next process."""
        await end(self._tasks)
        self._tasks = []

    async def end_limits(self) -> bool:
        """Take back temporary limits that have ended; True when there may be more."""
        return await end_temporary(self._database, self._clock(), BATCH) == BATCH

    async def expire_bonus(self) -> bool:
        """Take back bonus that has expired; True when there may be more."""
        return await expire_due(self._database, self._clock(), BATCH) == BATCH

    async def keep_house(self) -> bool:
        """Forget wrong voucher codes that do not lock anybody any more; never more to do at once."""
        await forget_guesses(self._database, self._clock())
        return False
