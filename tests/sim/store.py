"""The store of the lane in memory: the same meaning as PostgreSQL's, and faults on request."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import date

from tests.sim.books import MemoryBooks
from tollkeeper.core.batch import Batch, Known
from tollkeeper.core.records import Wallet

Fault = Callable[[str], Awaitable[None]]
"""Called on the way to the database and on the way back: may wait, or raise StoreAway."""


async def no_fault(operation: str) -> None:
    """Let others run, as every real call would."""
    await asyncio.sleep(0)


class MemoryDatabase:
    """The books with their row locks: what all stores of all nodes share."""

    def __init__(self, books: MemoryBooks) -> None:
        self.books = books
        self._locks: dict[int, asyncio.Lock] = defaultdict(asyncio.Lock)

    @asynccontextmanager
    async def rows(self, ids: Iterable[int]) -> AsyncIterator[None]:
        """Hold the rows of wallets, taken in the order of their ids."""
        async with AsyncExitStack() as stack:
            for id_ in sorted(ids):
                await stack.enter_async_context(self._locks[id_])
            yield


class MemoryChargingStore:
    """One node's connection to the books."""

    def __init__(self, database: MemoryDatabase, fault: Fault = no_fault) -> None:
        self._database = database
        self._books = database.books
        self._fault = fault

    async def load(
        self, keys: Iterable[str], since: date, *, everywhere: Iterable[str] = ()
    ) -> dict[str, Known]:
        """Read sessions with their messages."""
        await self._fault("load")
        found = self._books.load(keys, since, everywhere)
        await self._fault("loaded")
        return found

    async def wallets(self, ids: Sequence[int]) -> dict[int, Wallet]:
        """Read wallets."""
        await self._fault("wallets")
        found = {id_: self._books.wallets[id_] for id_ in ids if id_ in self._books.wallets}
        await self._fault("wallets read")
        return found

    def encode(self, batch: Batch) -> None:
        """Nothing is sent anywhere."""

    async def apply(self, batch: Batch) -> None:
        """Write a batch, all or nothing; a fault on the way back leaves it written."""
        await self._fault("apply")
        async with self._database.rows(batch.after):
            await self._fault("applying")
            self._books.apply(batch)
        await self._fault("applied")

    @asynccontextmanager
    async def locked(self, ids: Sequence[int]) -> AsyncIterator[MemoryUnit]:
        """Hold wallets; what the unit was given is written when the block ends well."""
        await self._fault("lock")
        async with self._database.rows(ids):
            known = {id_: self._books.wallets[id_] for id_ in ids if id_ in self._books.wallets}
            unit = MemoryUnit(self._books, known, self._fault)
            yield unit
            await self._fault("commit")
            for batch in unit.batches:
                self._books.apply(batch)
        await self._fault("committed")

    async def close(self) -> None:
        """Nothing is open."""


class MemoryUnit:
    """Wallets under lock, and the batch that waits for the commit."""

    def __init__(self, books: MemoryBooks, wallets: dict[int, Wallet], fault: Fault) -> None:
        self.wallets = wallets
        self.batches: list[Batch] = []
        self._books = books
        self._fault = fault

    async def apply(self, batch: Batch) -> None:
        """Check the batch now, write it with the commit."""
        await self._fault("apply locked")
        self._books.check(batch)
        self.batches.append(batch)
