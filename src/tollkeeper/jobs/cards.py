"""What comes with time on calling cards: fees, the end of their validity, guesses to forget."""

from __future__ import annotations

import asyncio

from tollkeeper.jobs.timers import every
from tollkeeper.services.card_terms import CardTerms
from tollkeeper.services.cards import Cards
from tollkeeper.services.tasks import end

FEES, EXPIRING, SETTLING = 100, 1000, 100
HOUSE_SECONDS = 3600.0


class CardJobs:
    """The jobs of one process; any number of processes may have them."""

    def __init__(self, terms: CardTerms, cards: Cards) -> None:
        self._terms = terms
        self._cards = cards
        self._tasks: list[asyncio.Task[None]] = []

    def start(self, *, tick: float = 5.0) -> None:
        """Begin; ``tick`` is the pause in seconds between looks."""
        self._tasks = [
            asyncio.create_task(every(tick, self.take_fees), name="card fees"),
            asyncio.create_task(every(tick, self.end_cards), name="card ends"),
            asyncio.create_task(every(HOUSE_SECONDS, self.keep_house), name="card guesses"),
        ]

    async def stop(self) -> None:
        """End them; what was not finished is done by the next process."""
        await end(self._tasks)
        self._tasks = []

    async def take_fees(self) -> bool:
        """Take fees that are due; True when there may be more."""
        return await self._terms.take_fees(limit=FEES) == FEES

    async def end_cards(self) -> bool:
        """End cards whose time is over and let the rest go back; True when there may be more."""
        ended = await self._terms.expire(limit=EXPIRING)
        settled = await self._terms.settle(limit=SETTLING)
        return ended == EXPIRING or settled == SETTLING

    async def keep_house(self) -> bool:
        """Forget wrong PINs that lock nobody any more; never more to do at once."""
        await self._cards.forget_guesses()
        return False
