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
from tollkeeper.core.terms import Meter

Fault = Callable[[str], Awaitable[None]]
"""Called on the way to the database and on the way back: may wait, or raise StoreAway."""


async def no_fault(operation: str) -> None:
    """Let others run, as every real call would."""
    await asyncio.sleep(0)


class MemoryDatabase:
    """The books with their row locks: what all stores of all nodes share."""

    def __init__(self, books: MemoryBooks) -> None:
        self.books = books
        self._locks: dict[tuple[str, int], asyncio.Lock] = defaultdict(asyncio.Lock)

    @asynccontextmanager
    async def rows(self, wallets: Iterable[int], meters: Iterable[int] = ()) -> AsyncIterator[None]:
        """Hold the rows of wallets, then of meters, each taken in the order of their ids."""
        rows = [("wallet", id_) for id_ in sorted(wallets)]
        rows += [("meter", id_) for id_ in sorted(meters)]
        async with AsyncExitStack() as stack:
            for row in rows:
                await stack.enter_async_context(self._locks[row])
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

    async def meters(self, ids: Sequence[int]) -> dict[int, Meter]:
        """Read meters."""
        await self._fault("meters")
        found = {id_: self._books.meters[id_] for id_ in ids if id_ in self._books.meters}
        await self._fault("meters read")
        return found

    def encode(self, batch: Batch) -> None:
        """Nothing is sent anywhere."""

    async def apply(self, batch: Batch) -> None:
        """Write a batch, all or nothing; a fault on the way back leaves it written."""
        await self._fault("apply")
        async with self._database.rows(batch.after, batch.meters_after):
            await self._fault("applying")
            self._books.apply(batch)
        await self._fault("applied")

    @asynccontextmanager
    async def locked(
        self, wallet_ids: Sequence[int], meter_ids: Sequence[int] = ()
    ) -> AsyncIterator[MemoryUnit]:
        """Hold wallets and meters; what the unit was given is written when the block ends well."""
        await self._fault("lock")
        books = self._books
        async with self._database.rows(wallet_ids, meter_ids):
            wallets = {id_: books.wallets[id_] for id_ in wallet_ids if id_ in books.wallets}
            meters = {id_: books.meters[id_] for id_ in meter_ids if id_ in books.meters}
            unit = MemoryUnit(books, wallets, meters, self._fault)
            yield unit
            await self._fault("commit")
            for batch in unit.batches:
                books.apply(batch)
        await self._fault("committed")

    async def close(self) -> None:
        """Nothing is open."""


class MemoryUnit:
    """Wallets and meters under lock, and the batch that waits for the commit."""

    def __init__(
        self,
        books: MemoryBooks,
        wallets: dict[int, Wallet],
        meters: dict[int, Meter],
        fault: Fault,
    ) -> None:
        self.wallets = wallets
        self.meters = meters
        self.batches: list[Batch] = []
        self._books = books
        self._fault = fault

    async def apply(self, batch: Batch) -> None:
        """Check the batch now, write it with the commit."""
        await self._fault("apply locked")
        self._books.check(batch)
        self.batches.append(batch)
