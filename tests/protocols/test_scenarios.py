"""The same calls through every protocol, against the real thing where there is one.

A second of a call costs exactly one cent. Whatever a protocol is like, these hold: what is granted is
paid for, what was talked is charged once, and no call outlives its money.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from decimal import Decimal
from typing import Any

import pytest

from tests.protocols.driver import SLICE, Driver
from tests.protocols.drivers import DRIVERS, driver_class
from tests.protocols.house import House, add_trunk, top_up
from tests.support import UK_FIXED, Customer, World, until
from tollkeeper.services.verify import verify

CENT = Decimal("0.01")
SLACK_SECONDS = 2
"""A real switch's timers end a call up to a second late, and tell it after the fact."""


class Scene:
    """A house, a customer and the switches that call for it."""

    def __init__(self, world: World, house: House, kind: type[Driver], stack: AsyncExitStack):
        self.world, self.house = world, house
        self.acme: Customer
        self._kind, self._stack = kind, stack

    async def switch(self, number: int = 1) -> Driver:
        """A switch that is connected."""
        driver = self._kind(number)
        self._stack.push_async_callback(driver.close)
        await driver.open(self.house, self.world, "acme-in")
        return driver

    def customer(self, balance: str) -> None:
        """The customer whose trunk all calls come by."""
        self.acme = self.world.customer("acme", balance=balance)
        add_trunk(self.world, "acme-in", self.acme)

    def closed(self) -> list[dict[str, Any]]:
        """The sessions that have ended, refused ones not among them."""
        return self.world.sql(
            "SELECT key, ending, charge, (body->>'used_ms')::bigint AS used_ms FROM closed_session"
            " WHERE ending <> 'refused' ORDER BY closed_at"
        )

    def up(self) -> int:
        """How many sessions are open."""
        return int(self.world.one("SELECT count(*) FROM live_session"))

    async def settled(self, *, seconds: float = 15.0) -> None:
        """Wait until nothing is open and nothing held, then prove the books."""
        await until(lambda: self.up() == 0, seconds=seconds, what="no session is open")
        assert self.world.wallet(self.acme).held == 0
        report = await verify(self.house.parts.database)
        assert report.clean, report.findings


@pytest.fixture(params=sorted(DRIVERS))
async def scene(request: pytest.FixtureRequest, database_url: str) -> AsyncIterator[Scene]:
    """A running house with the listeners of one protocol."""
    kind = driver_class(request.param)
    if reason := kind.missing():
        pytest.skip(reason)
    async with AsyncExitStack() as stack:
        world = stack.enter_context(World(database_url))
        house = House(database_url, **kind(1).settings())
        await house.start()
        stack.push_async_callback(house.stop)
        yield Scene(world, house, kind, stack)


async def test_a_call_that_is_paid_for_is_charged_to_the_second(scene: Scene) -> None:
    """Enough money: the grant is told, the use is charged as the switch reported it."""
    scene.customer("100")
    switch = await scene.switch()
    begun = await switch.begin("one", UK_FIXED)
    assert begun.allowed
    assert begun.granted in {None, SLICE}
    await switch.talk("one", 2)
    used_ms = await switch.hang_up("one")
    await scene.settled()
    (session,) = scene.closed()
    assert session["used_ms"] == used_ms
    assert session["charge"] == CENT * -(-used_ms // 1000)
    assert scene.world.wallet(scene.acme).balance == Decimal(100) - session["charge"]


async def test_without_money_a_call_is_refused_and_nothing_is_held(scene: Scene) -> None:
    """Not enough money for one second."""
    scene.customer("0.009")
    switch = await scene.switch()
    begun = await switch.begin("poor", UK_FIXED)
    assert not begun.allowed
    await scene.settled()
    assert scene.closed() == []
    assert scene.world.one("SELECT body->>'reason' FROM closed_session") == "insufficient_funds"


async def test_a_call_ends_when_its_money_does(scene: Scene) -> None:
    """The money is for three seconds; the call wants to go on and is ended."""
    scene.customer("0.03")
    switch = await scene.switch()
    begun = await switch.begin("short", UK_FIXED)
    assert begun.allowed
    assert begun.granted in {None, 3}
    assert await switch.ended("short", within=8)
    await scene.settled()
    (session,) = scene.closed()
    assert 2_000 <= session["used_ms"] <= (3 + SLACK_SECONDS) * 1000
    assert scene.world.wallet(scene.acme).balance >= -CENT * SLACK_SECONDS


async def test_a_top_up_extends_the_call_that_is_up(scene: Scene) -> None:
    """Three seconds are paid for, then more money comes: the call goes on where the protocol allows it."""
    scene.customer("0.03")
    switch = await scene.switch()
    assert (await switch.begin("longer", UK_FIXED)).allowed
    await switch.talk("longer", 1)
    top_up(scene.world, scene.acme, "1")
    if switch.extends:
        await switch.talk("longer", 6)
        used_ms = await switch.hang_up("longer")
        assert used_ms >= 5_000
    else:
        assert await switch.ended("longer", within=8)
        begun = await switch.begin("next", UK_FIXED)
        assert begun.allowed
        assert begun.granted in {None, SLICE}
        await switch.hang_up("next")
    await scene.settled()


async def test_a_call_whose_end_was_lost_is_closed_without_the_switch(scene: Scene) -> None:
    """Nothing is heard any more: what was reported is charged, the rest of the hold goes back."""
    scene.customer("1")
    switch = await scene.switch()
    assert (await switch.begin("lost", UK_FIXED)).allowed
    await switch.talk("lost", 2)
    await switch.lose_stop("lost")
    await scene.settled(seconds=25)
    (session,) = scene.closed()
    assert session["charge"] <= CENT * (2 * SLICE + SLACK_SECONDS)


async def test_what_is_said_twice_is_done_once(scene: Scene) -> None:
    """The answer was lost, so each message comes again."""
    scene.customer("1")
    switch = await scene.switch()
    assert (await switch.begin("twice", UK_FIXED)).allowed
    await switch.repeat()
    assert scene.up() == 1
    await switch.talk("twice", 2)
    await switch.repeat()
    used_ms = await switch.hang_up("twice")
    await switch.repeat()
    await scene.settled()
    (session,) = scene.closed()
    assert session["charge"] == CENT * -(-used_ms // 1000)
    assert scene.world.wallet(scene.acme).balance == 1 - session["charge"]


async def test_a_restart_of_the_switch_loses_no_money(scene: Scene) -> None:
    """Its calls are gone: they are closed at what was reported. If they go on, so does their charge."""
    scene.customer("1")
    switch = await scene.switch()
    assert (await switch.begin("cut", UK_FIXED)).allowed
    await switch.talk("cut", 2)
    await switch.restart()
    if switch.keeps_calls:
        await switch.hang_up("cut")
    await scene.settled(seconds=25)
    (session,) = scene.closed()
    assert session["charge"] <= CENT * (2 * SLICE + SLACK_SECONDS)
    begun = await switch.begin("after", UK_FIXED)
    assert begun.allowed
    await switch.hang_up("after")
    await scene.settled()


async def test_our_restart_in_mid_call_changes_nothing(scene: Scene) -> None:
    """The call goes on, is renewed by whoever is there, and is charged once for all of it."""
    scene.customer("1")
    switch = await scene.switch()
    assert (await switch.begin("on", UK_FIXED)).allowed
    await switch.talk("on", 1)
    await scene.house.restart()
    await switch.talk("on", 6)
    used_ms = await switch.hang_up("on")
    await scene.settled()
    (session,) = scene.closed()
    assert used_ms >= 5_000
    assert session["charge"] == CENT * -(-used_ms // 1000)


async def test_two_switches_never_spend_the_same_money(scene: Scene) -> None:
    """Ten seconds are paid for; eight calls want four each at once."""
    scene.customer("0.10")
    one, two = await scene.switch(1), await scene.switch(2)
    calls = [(switch, f"{switch.switch}-{n}") for switch in (one, two) for n in range(4)]
    begun = await asyncio.gather(*(switch.begin(call, UK_FIXED) for switch, call in calls))
    wallet = scene.world.wallet(scene.acme)
    assert wallet.available >= 0
    allowed = [pair for pair, answer in zip(calls, begun, strict=True) if answer.allowed]
    assert 2 <= len(allowed) <= 5
    assert scene.up() == len(allowed)
    for switch, call in allowed:
        await switch.hang_up(call)
    await scene.settled()
    assert scene.world.wallet(scene.acme).balance >= -CENT * SLACK_SECONDS * len(allowed)
