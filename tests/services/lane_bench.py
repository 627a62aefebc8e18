"""Two lanes on one database in memory, played in virtual time, for tests that need an exact order of events."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from decimal import Decimal

import msgspec

from tests.core.world import PER_SECOND, pin_of
from tests.sim.books import MemoryBooks
from tests.sim.loop import VirtualLoop
from tests.sim.store import MemoryChargingStore, MemoryDatabase
from tests.store.charging_backends import NOON
from tollkeeper.core.audit import audit
from tollkeeper.core.ledger import Code
from tollkeeper.core.records import Authorise, Command, Limits, Offer, Policy, Reply, Role, Wallet
from tollkeeper.services.lane import Lane

D = Decimal


class Bench:
    """Two lanes on one database in memory, with a hand on the clock and on the store."""

    def __init__(self) -> None:
        self.now = NOON
        self.limits = Limits()
        self.limits_by: dict[int, Limits] = {}
        self.steps: list[str] = []
        self.pauses: dict[str, asyncio.Event] = {}
        self.books = MemoryBooks()
        self.books.add_wallet(Wallet(1, 1, "USD"))
        self.books.top_up(1, D(10), NOON, Code.TOPUP)
        database = MemoryDatabase(self.books)
        self.lanes = [self._lane(MemoryChargingStore(database, self._fault), n) for n in range(2)]

    def _lane(self, store: MemoryChargingStore, number: int) -> Lane:
        count = iter(range(1000))
        return Lane(
            store,
            self,
            clock=lambda: self.now,
            new_id=lambda: f"id-{number}-{next(count)}",
            policy=Policy(),
        )

    async def _fault(self, step: str) -> None:
        self.steps.append(step)
        await asyncio.sleep(0.001)
        if step in self.pauses:
            await self.pauses[step].wait()

    def limits_of(self, party_id: int) -> Limits:
        """As the lane asks."""
        return self.limits_by.get(party_id, self.limits)

    def wallets_of(self, party_id: int) -> tuple[int, ...]:
        """As the lane asks."""
        return (party_id,)

    def hears_ended(self, party_id: int) -> bool:  # noqa: ARG002 (called by name)
        """As the lane asks: nobody listens."""
        return False

    async def send(
        self, command: Command, message_id: str = "", lane: int = 0
    ) -> tuple[Reply, bool]:
        """Submit; without an id the message is named by its content."""
        request = msgspec.json.encode(msgspec.to_builtins(command))
        name = message_id or f"{type(command).__name__} {request.decode()}"
        return await self.lanes[lane].submit(command, name, request)


def authorise(name: str, wallet: int = 1, seconds: int = 300) -> Authorise:
    """An Authorise at one cent a second."""
    offer = Offer(Role.CUSTOMER, wallet, wallet, pin_of(PER_SECOND))
    return Authorise(f"s/{name}", wallet, "4420", offers=(offer,), requested_seconds=seconds)


def play(scene: Callable[[Bench], Awaitable[None]]) -> None:
    """Run a scene in virtual time, then check the books."""
    loop = VirtualLoop()

    @asynccontextmanager
    async def bench() -> AsyncIterator[Bench]:
        made = Bench()
        for lane in made.lanes:
            lane.start()
        yield made
        for lane in made.lanes:
            await lane.stop()
        assert audit(made.books.snapshot(), made.now, timedelta(days=9)) == []

    async def act() -> None:
        async with bench() as made, asyncio.timeout(3600):
            await scene(made)

    try:
        loop.run_until_complete(act())
    finally:
        loop.close()
