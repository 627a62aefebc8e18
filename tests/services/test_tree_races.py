"""Many customers of one reseller at once: its money is shared out to the last cent, and never more."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import pytest

from tests.support import UK_FIXED, Customer, Row, World, gathered, runtime, tariff, until
from tollkeeper.core.records import Outcome
from tollkeeper.services.verify import verify

CLIENTS = 32
SECONDS = 60


@dataclass
class House:
    """A reseller with 32 customers, and two processes on one database."""

    world: World
    parts: list[Any]
    north: Customer
    children: list[Customer]

    async def authorise(self, number: int, name: str) -> Any:
        """A minute's call of one of the children, on one of the processes."""
        reply, _ = await self.parts[number % len(self.parts)].charging.authorise(
            switch="sw1",
            session_id=name,
            party=self.children[number].code,
            called=UK_FIXED,
            requested_seconds=SECONDS,
        )
        return reply

    async def proven(self) -> None:
        """The books hold."""
        report = await verify(self.parts[0].database)
        assert report.clean, report.findings


@pytest.fixture
async def house(database_url: str) -> AsyncIterator[House]:
    """Every child has plenty; a minute costs the reseller 0.30, and it has 16 of them."""
    with World(database_url) as world:
        row = [Row("44", "United Kingdom", tariff("0.3", 60, 60))]
        plan = world.plan("wholesale", world.card("wholesale", row))
        north = world.reseller("north", balance=Decimal("0.30") * (CLIENTS // 2), plan=plan)
        children = [world.customer(f"child{n:02}", parent=north) for n in range(CLIENTS)]
        async with gathered(runtime(database_url), runtime(database_url)) as parts:
            yield House(world, parts, north, children)


async def test_32_clients_on_money_for_16_get_exactly_16_calls(house: House) -> None:
    """Two processes, one wallet: half are granted, half refused by the reseller; nothing overspent."""
    replies = await asyncio.gather(*(house.authorise(n, f"c{n}") for n in range(CLIENTS)))
    outcomes = Counter(reply.outcome for reply in replies)
    assert outcomes == {Outcome.GRANTED: CLIENTS // 2, Outcome.REFUSED: CLIENTS // 2}
    refused = [reply for reply in replies if reply.outcome is Outcome.REFUSED]
    assert {(r.reason.value, r.refused_by) for r in refused} == {
        ("insufficient_funds", house.north.id)
    }
    wallet = house.world.wallet(house.north)
    assert (wallet.available, wallet.live) == (0, CLIENTS // 2)
    await asyncio.gather(
        *(
            house.parts[(n + 1) % 2].charging.stop(
                switch="sw1", session_id=f"c{n}", used_ms=SECONDS * 1000
            )
            for n, reply in enumerate(replies)
            if reply.outcome is Outcome.GRANTED
        )
    )
    wallet = house.world.wallet(house.north)
    assert (wallet.balance, wallet.held, wallet.live) == (0, 0, 0)
    charged = sum(house.world.wallet(child).debited for child in house.children)
    assert charged == Decimal("0.60") * (CLIENTS // 2)
    await house.proven()


async def test_events_of_many_children_share_the_resellers_money(house: House) -> None:
    """Fees of calls' length: 32 ask at once, 16 are charged, and the wallet stands at 0."""

    async def event(number: int) -> Any:
        reply, _ = await house.parts[number % 2].charging.charge_event(
            switch="x",
            event_id=f"e{number}",
            party=house.children[number].code,
            called=UK_FIXED,
            service="voice",
            units=SECONDS,
        )
        return reply.outcome

    outcomes = Counter(await asyncio.gather(*(event(n) for n in range(CLIENTS))))
    assert outcomes == {Outcome.CHARGED: CLIENTS // 2, Outcome.REFUSED: CLIENTS // 2}
    assert house.world.wallet(house.north).balance == 0
    await house.proven()


async def test_money_for_the_reseller_lets_its_customers_call_again(house: House) -> None:
    """The next decision sees a top-up, and the next one sees that it is gone."""
    await asyncio.gather(*(house.authorise(n, f"c{n}") for n in range(CLIENTS)))
    assert (await house.authorise(0, "before")).outcome is Outcome.REFUSED
    house.world.top_up(house.north, "0.30")
    assert (await house.authorise(1, "after")).outcome is Outcome.GRANTED
    assert (await house.authorise(0, "gone")).outcome is Outcome.REFUSED


async def test_the_last_minutes_of_a_resellers_day_are_shared_exactly(house: House) -> None:
    """A cap of 3.00 a day covers ten minutes, whoever asks and on whichever process."""
    house.world.top_up(house.north, "100")
    house.world.sql("UPDATE wallet SET daily_cap = 3 WHERE id = %s", house.north.wallet_id)
    house.world.notify(f"party:{house.north.id}")
    await until(lambda: all(p.directory.party("north").caps for p in house.parts))
    replies = await asyncio.gather(*(house.authorise(n, f"c{n}") for n in range(CLIENTS)))
    reasons = Counter(reply.reason.value for reply in replies)
    assert reasons == {"": 10, "spend_limit": CLIENTS - 10}
    meter = house.world.meter(house.north, "spend")
    assert (meter["held"], meter["cap"]) == (3, 3)
    house.world.sql("UPDATE wallet SET daily_cap = 3.6 WHERE id = %s", house.north.wallet_id)
    house.world.notify(f"party:{house.north.id}")
    await until(lambda: all(p.directory.party("north").caps["USD"].daily > 3 for p in house.parts))
    more = [(await house.authorise(n, f"d{n}")).outcome for n in range(4)]
    assert more == [Outcome.GRANTED] * 2 + [Outcome.REFUSED] * 2
    await house.proven()
