"""Data sessions: bytes are granted, reported and charged, over counters that begin again."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import pytest

from tests.support import Customer, Row, World, runtime, tariff
from tollkeeper.core.records import Outcome, Reply, Unit
from tollkeeper.errors import InvalidInput
from tollkeeper.services.charging import WRAP_32
from tollkeeper.services.uses import Use
from tollkeeper.services.verify import verify

MB = 1_000_000


@dataclass
class Network:
    """A customer with data, and the gateway that asks for it."""

    world: World
    parts: Any
    acme: Customer

    async def open(self, name: str = "d1", **more: Any) -> Reply:
        """Ask for volume."""
        reply, _ = await self.parts.charging.authorise(
            switch="ggsn", session_id=name, party="acme", called="internet", service="data", **more
        )
        assert isinstance(reply, Reply)
        return reply

    async def report(self, used: int, name: str = "d1", **more: Any) -> Reply:
        """Report cumulative bytes and ask for more."""
        reply, _ = await self.parts.charging.update(
            switch="ggsn", session_id=name, used_ms=used * 1000, **more
        )
        assert isinstance(reply, Reply)
        return reply

    async def close(self, used: int, name: str = "d1", **more: Any) -> Reply:
        """Report the last of it."""
        reply, _ = await self.parts.charging.stop(
            switch="ggsn", session_id=name, used_ms=used * 1000, **more
        )
        assert isinstance(reply, Reply)
        return reply

    def balance(self) -> Decimal:
        """What the customer has."""
        return self.world.wallet(self.acme).balance


@pytest.fixture
async def network(database_url: str) -> AsyncIterator[Network]:
    """A cent a megabyte of 1,000,000 bytes, by the 10,000 bytes; ten dollars."""
    with World(database_url) as world:
        rows = [Row("", "Home", tariff("0.01", 10_000, 10_000)), Row("310", "Roaming", tariff("1"))]
        card = world.card("data", rows, service="data", per=MB, key="network")
        home = world.card("home", rows[:1], service="data", per=MB)
        acme = world.customer(balance="10", plan=world.plan("mobile", card, home))
        async with runtime(database_url) as parts:
            yield Network(world, parts, acme)


async def test_a_data_session_is_granted_and_charged_in_bytes(network: Network) -> None:
    """25,000,001 bytes are billed as 25,010,000: 0.2501 dollars. No START is waited for."""
    reply = await network.open()
    assert (reply.outcome, reply.unit, reply.granted_seconds) == (
        Outcome.GRANTED, Unit.BYTE, 10 * MB,
    )  # fmt: skip
    reply = await network.report(8 * MB)
    assert (reply.granted_seconds, reply.unit) == (18 * MB, Unit.BYTE)
    reply = await network.close(25_000_001)
    assert (reply.outcome, reply.charge) == (Outcome.CLOSED, Decimal("0.2501"))
    assert network.balance() == Decimal("9.7499")
    report = await verify(network.parts.database)
    assert report.clean, report.findings


async def test_a_slice_may_be_asked_for_in_bytes(network: Network) -> None:
    """More than any call has seconds: 500 MB."""
    reply = await network.open(requested_seconds=500 * MB)
    assert (reply.granted_seconds, reply.final) == (500 * MB, False)
    assert network.world.wallet(network.acme).held == 5


async def test_the_last_grant_is_what_the_money_covers(network: Network) -> None:
    """Ten dollars are 1,000 MB, and the answer says that no more will come."""
    reply = await network.open(requested_seconds=2_000 * MB)
    assert (reply.granted_seconds, reply.final) == (1_000 * MB, True)


async def test_a_counter_of_32_bits_that_begins_again_goes_on_counting(network: Network) -> None:
    """4,294,000,000 bytes, then 1,000,000 after 2^32: 4,295,967,296 in all, which are 42.9597."""
    network.world.top_up(network.acme, "90")
    await network.open(requested_seconds=5_000 * MB)
    await network.report(4_294 * MB, wraps_at=WRAP_32)
    reply = await network.report(MB, wraps_at=WRAP_32)
    assert reply.used_ms == 4_295_967_296_000
    reply = await network.close(MB, wraps_at=WRAP_32)
    assert reply.used_ms == 4_295_967_296_000
    # 4,295,970,000 are billed: 4295.97 MB x 0.01
    assert reply.charge == Decimal("42.9597")


async def test_a_network_has_its_own_price(network: Network) -> None:
    """Roaming in network 310260 costs a dollar a megabyte."""
    await network.open("roam", network="310260")
    assert (await network.close(1, "roam")).charge == Decimal("0.000001")
    quote = await network.parts.charging.quote(
        Use("acme", "internet", "data", network="310260"), units=3 * MB
    )
    assert (quote.amount, quote.unit) == (Decimal(3), Unit.BYTE)


async def test_usage_beyond_belief_is_refused(network: Network) -> None:
    """A counter of petabytes is a mistake of the sender; nothing is changed."""
    await network.open()
    with pytest.raises(InvalidInput):
        await network.close(10**17)
    assert (await network.close(0)).charge == 0
