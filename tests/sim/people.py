"""What people do while calls are up: pay, suspend, park, change prices and caps, end calls."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING

from tests.sim.node import PACKAGE_METER, SPEND_METER, no_limits, owner
from tests.sim.plan import EPOCH, TARIFFS, TIERED
from tollkeeper.core.ledger import Code
from tollkeeper.core.records import Kill

if TYPE_CHECKING:
    from tests.sim.simulation import Simulation


class People:
    """The operator's staff of one run."""

    def __init__(self, run: Simulation) -> None:
        self._run = run

    async def operate(self) -> None:
        """Do something every now and then."""
        while True:
            await asyncio.sleep(self._run.chance.expovariate(1 / self._run.plan.operator_every))
            id_ = self._run.chance.choice(list(self._run.books.wallets))
            act = self._run.chance.randint(0, 8)
            if act <= 1:
                await self.pay(id_, Decimal(self._run.chance.randint(1, 2000)) / 100, Code.TOPUP)
            elif act == 2:
                await self.pay(
                    id_, Decimal(self._run.chance.randint(1, 100)) / 100, Code.WITHDRAWAL
                )
            elif act == 3:
                await self.change(id_, credit_limit=Decimal(self._run.chance.choice([0, 1, 5])))
            elif act == 4:
                self._run.loop.create_task(self._suspend_for_a_while(id_))
            elif act == 5:
                self.change_tariff(id_)
                self._run.directory.version += 1
            elif act == 6:
                self._run.loop.create_task(self._park_for_a_while(id_))
            elif act == 7:
                meter = self._run.chance.choice([PACKAGE_METER, SPEND_METER])
                await self.raise_cap(meter, Decimal(self._run.chance.choice([1, 60])))
            elif self._run.books.live:
                key = self._run.chance.choice(sorted(self._run.books.live))
                node = self._run.chance.choice(self._run.nodes)
                if node.up:
                    token = owner.set(node.name)
                    self._run.loop.create_task(node.handle(Kill(key, "operator"), "kill", b"{}"))
                    owner.reset(token)

    async def _suspend_for_a_while(self, id_: int) -> None:
        kill = self._run.chance.random() < 0.5
        self._run.directory.limits[id_] = no_limits(suspended=True, kill_on_suspend=kill)
        await asyncio.sleep(self._run.chance.uniform(1, 20))
        self._run.directory.limits[id_] = no_limits()

    async def _park_for_a_while(self, id_: int) -> None:
        await self.change(id_, parked=True)
        await asyncio.sleep(self._run.chance.uniform(1, 20))
        await self.change(id_, parked=False)

    async def pay(self, id_: int, amount: Decimal, code: Code) -> None:
        """Pay in, or out what is there."""
        async with self._run.database.rows([id_]):
            if code is Code.WITHDRAWAL and self._run.books.wallets[id_].available < amount:
                return
            now = EPOCH + timedelta(seconds=self._run.loop.time())
            self._run.books.top_up(id_, amount, now, code)
            self._run.model.paid_in[id_] += amount if code is Code.TOPUP else -amount

    async def change(self, id_: int, **values: object) -> None:
        """Change a wallet's row."""
        async with self._run.database.rows([id_]):
            self._run.books.change_wallet(id_, **values)

    async def raise_cap(self, id_: int, more: Decimal) -> None:
        """Sell some more of a package, or let more be spent."""
        async with self._run.database.rows([], [id_]):
            cap = self._run.books.meters[id_].cap
            if cap is not None:
                self._run.books.change_meter(id_, cap=cap + more)

    def change_tariff(self, id_: int) -> None:
        """Another price for calls from now on; where volume counts it stays, so that sums can be told."""
        own = self._run.directory.terms.get(id_)
        plain = own is None or not (own.tier or own.packages)
        self._run.directory.tariffs[id_] = self._run.chance.choice(TARIFFS) if plain else TIERED
