"""What many tasks hand in is written together, again until it succeeds, and nobody waits for ever."""

from __future__ import annotations

import asyncio

import pytest

from tests.support import until
from tollkeeper.errors import Busy
from tollkeeper.servers.smpp import batches as smpp_batches
from tollkeeper.servers.smpp.batches import Batches


class Desk:
    """Writes, or does not while it is away."""

    def __init__(self) -> None:
        self.away = 0
        self.hangs = False
        self.written: list[list[int]] = []

    async def work(self, items: list[int]) -> None:
        """One transaction."""
        if self.hangs:
            await asyncio.Event().wait()
        if self.away:
            self.away -= 1
            raise Busy("away")
        self.written.append(items)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smpp_batches, "AGAIN_SECONDS", 0.01)
    monkeypatch.setattr(smpp_batches, "PATIENCE_SECONDS", 0.1)


async def test_what_waits_together_is_written_together_in_its_order() -> None:
    desk = Desk()
    batches = Batches("test", desk.work)
    batches.start()
    futures = [batches.add(number) for number in range(1200)]
    assert await asyncio.gather(*futures) == [True] * 1200
    assert [len(batch) for batch in desk.written] == [500, 500, 200]
    assert sum(len(set(batch)) for batch in desk.written) == 1200
    assert desk.written[0][:3] == [0, 1, 2]
    await batches.stop()


async def test_what_fails_is_written_later_once() -> None:
    desk = Desk()
    desk.away = 3
    batches = Batches("test", desk.work)
    batches.start()
    assert await asyncio.gather(batches.add(1), batches.add(2)) == [True, True]
    assert desk.written == [[1, 2]]
    await batches.stop()


async def test_nobody_waits_longer_than_the_patience_and_it_is_written_all_the_same() -> None:
    """A database that hangs counts as one that is away."""
    desk = Desk()
    desk.hangs = True
    batches = Batches("test", desk.work)
    batches.start()
    assert await asyncio.wait_for(batches.add(7), 2) is False
    desk.hangs = False
    await until(lambda: desk.written == [[7]])
    await batches.stop()


async def test_the_end_does_not_wait_for_a_database_that_is_away() -> None:
    desk = Desk()
    desk.away = 10**6
    batches = Batches("test", desk.work)
    batches.start()
    future = batches.add(1)
    await asyncio.wait_for(batches.stop(), 2)
    assert future.result() is False


async def test_what_waits_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smpp_batches, "WAITING_MAX", 3)
    batches = Batches("test", Desk().work)
    futures = [batches.add(number) for number in range(5)]
    assert [one.done() for one in futures] == [True, True, False, False, False]
    assert futures[0].result() is False
