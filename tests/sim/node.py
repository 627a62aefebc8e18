"""A server node: a lane, the job that expires sessions, and a door for requests."""

from __future__ import annotations

import asyncio
import contextvars
import random
import uuid
from collections.abc import Callable
from datetime import datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING

from tests.sim.plan import EPOCH, MESSAGE, TIER_STEPS, Plan
from tests.sim.store import Fault, MemoryChargingStore, MemoryDatabase
from tollkeeper.core.batch import StoreAway
from tollkeeper.core.rating import Tariff
from tollkeeper.core.records import (
    CallCount,
    Command,
    Expire,
    Limits,
    Offer,
    Pin,
    Policy,
    Reply,
    Role,
)
from tollkeeper.core.terms import Package, Spend, Terms, Tier, TierStep
from tollkeeper.errors import TollkeeperError
from tollkeeper.services.lane import Lane

if TYPE_CHECKING:
    from tests.sim.loop import VirtualLoop

owner: contextvars.ContextVar[str] = contextvars.ContextVar("owner", default="")
"""Whose task this is: what a crash takes with it."""

EXPIRE_EVERY = 5.0


TIER_METER, PACKAGE_METER, SPEND_METER, CALLS_METER = 1, 2, 3, 4


class Directory:
    """The parties as all nodes see them: prices on offer, limits, wallets.

    The first customer is a reseller's, and that one another's: its calls have three legs. It has volume
    tiers, a package and an extension's bound on calls, and its reseller a cap on what it spends, as the
    plan says.
    """

    def __init__(self, plan: Plan) -> None:
        self.tariffs: dict[int, Tariff] = {}
        self.version = 1
        self.limits: dict[int, Limits] = {}
        self.reseller = plan.customers + 1
        self.above = plan.customers + 2
        self.terms: dict[int, Terms] = {}
        steps = tuple(TierStep(start, price) for start, price in TIER_STEPS)
        own = Terms(
            packages=(Package(PACKAGE_METER, "minutes"),) if plan.package_units else (),
            tier=Tier(TIER_METER, "volume", steps) if plan.tier else None,
        )
        if own != Terms():
            self.terms[1] = own
        if plan.spend_cap is not None:
            self.terms[self.reseller] = Terms(spend=(Spend(SPEND_METER, "day"),))
        self.counts = (
            () if plan.calls_most is None else (CallCount(CALLS_METER, 1, plan.calls_most),)
        )

    def levels(self, party: int) -> list[tuple[Role, int]]:
        """Who pays for a call of this party."""
        above = [self.reseller, self.above] if party == 1 else []
        return [(Role.CUSTOMER, party), *((Role.RESELLER, id_) for id_ in above)]

    def offers(self, party: int) -> tuple[Offer, ...]:
        """The legs of a call of this party at the prices of this moment."""
        return tuple(
            Offer(role, id_, id_, self._pin(id_, self.tariffs[id_]), self.terms.get(id_))
            for role, id_ in self.levels(party)
        )

    def messages(self, party: int) -> tuple[Offer, ...]:
        """The legs of a message."""
        return tuple(
            Offer(role, id_, id_, self._pin(id_, MESSAGE)) for role, id_ in self.levels(party)
        )

    def _pin(self, id_: int, tariff: Tariff) -> Pin:
        return Pin(id_, f"card{id_}", self.version, 1, "44", "UK", self.currency(id_), tariff)

    def currency(self, id_: int) -> str:
        """The currency of a party's wallet: the topmost reseller has another one."""
        return "EUR" if id_ == self.above else "USD"

    def counts_of(self, party: int) -> tuple[CallCount, ...]:
        """What a call of this party is counted on."""
        return self.counts if party == 1 else ()

    def limits_of(self, party_id: int) -> Limits:
        """As the lane asks."""
        return self.limits[party_id]

    def wallets_of(self, party_id: int) -> tuple[int, ...]:
        """As the lane asks."""
        return (party_id,)

    def hears_ended(self, party_id: int) -> bool:  # noqa: ARG002 (called by name)
        """As the lane asks: nobody listens."""
        return False


class Node:
    """One process. ``crash`` ends it at whatever await it stands; ``begin`` starts it afresh."""

    def __init__(
        self,
        name: str,
        loop: VirtualLoop,
        plan: Plan,
        chance: random.Random,
        database: MemoryDatabase,
        directory: Directory,
        fault: Fault,
        on_crash: Callable[[str], None],
    ) -> None:
        self.name = name
        self.up = False
        self.life = 0
        self.directory = directory
        self.crashes = 0
        self._loop = loop
        self._plan = plan
        self._chance = chance
        self._database = database
        self._fault = fault
        self._on_crash = on_crash
        self._skew = timedelta(seconds=chance.uniform(-0.5, 0.5))
        self.lane: Lane
        self._jobs: asyncio.Task[None]

    def clock(self) -> datetime:
        """This node's clock, off by a little."""
        return EPOCH + timedelta(seconds=self._loop.time()) + self._skew

    def begin(self) -> None:
        """Start with empty caches."""
        token = owner.set(self.name)
        plan = self._plan
        self.lane = Lane(
            MemoryChargingStore(self._database, self._fault),
            self.directory,
            clock=self.clock,
            new_id=lambda: str(uuid.UUID(int=self._chance.getrandbits(128), version=4)),
            policy=Policy(silent_tail=plan.silent_tail),
            batch_max=plan.batch_max,
            queue_max=plan.queue_max,
            optimistic=plan.optimistic,
        )
        self.lane.start()
        self._jobs = self._loop.create_task(self._expire_for_ever())
        self.up = True
        self.life += 1
        owner.reset(token)

    def crash(self) -> None:
        """Drop everything that is not in the database."""
        self.up = False
        self.crashes += 1
        self._on_crash(self.name)

    @property
    def sound(self) -> bool:
        """Whether the lane's own loop and the jobs still run."""
        task = self.lane._task
        return task is not None and not task.done() and not self._jobs.done()

    async def handle(self, command: Command, message_id: str, request: bytes) -> Reply | str:
        """Carry out a request as a server would: an answer, or the code of an error."""
        try:
            reply, _ = await self.lane.submit(command, message_id, request)
        except TollkeeperError as error:
            return error.code
        return reply

    async def _expire_for_ever(self) -> None:
        while True:
            await asyncio.sleep(EXPIRE_EVERY)
            try:
                await self._fault("due")
            except StoreAway:
                continue
            keys = self._database.books.due(self.clock())
            requests = [self.handle(Expire(key), "expire", b"{}") for key in keys]
            await asyncio.gather(*requests)


def no_limits(*, suspended: bool = False, kill_on_suspend: bool = False) -> Limits:
    """What a party may do unless the operator says otherwise."""
    return Limits(
        suspended, kill_on_suspend, max_sessions=40, max_cost=Decimal(30), max_seconds=900
    )
