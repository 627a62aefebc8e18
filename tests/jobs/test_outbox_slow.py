"""Kill requests of many switches: one that hangs, or cannot be asked at all, delays only itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.support import UK_FIXED, World, runtime, until
from tollkeeper.jobs import timers


class Switches:
    """Three switches: one answers, one hangs, one cannot be asked at all."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.hanging = asyncio.Event()
        self.most = self.now = 0

    def elsewhere(self) -> Iterable[str]:
        """None."""
        return ()

    def knows(self, switch: str) -> bool:
        """All."""
        return bool(switch)

    async def end(self, switch: str, call_id: str, reason: str) -> None:
        """Answer, hang, or break."""
        self.asked.append(f"{switch}/{call_id} {reason}")
        if switch == "broken":
            raise ValueError("an address that no client can read")
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            if switch == "slow":
                await self.hanging.wait()
            await asyncio.sleep(0)
        finally:
            self.now -= 1


@asynccontextmanager
async def desk(
    url: str, *, slow: int, quick: int = 1
) -> AsyncIterator[tuple[World, Any, Switches]]:
    """Calls of the three switches that are to be ended, those of the slow one first."""
    with World(url) as world:
        world.customer(balance="1000")
        async with runtime(url) as parts:
            parts.timers.switches = switches = Switches()
            for switch, calls in (("slow", slow), ("broken", 1), ("quick", quick)):
                for number in range(calls):
                    call = {"switch": switch, "session_id": f"c{number}"}
                    await parts.charging.authorise(**call, party="acme", called=UK_FIXED)
                    await parts.charging.kill(**call, why="fraud")
            yield world, parts, switches
            await parts.timers.stop()


async def test_a_switch_that_hangs_delays_no_other(database_url: str) -> None:
    """Forty requests wait for it; the other one's call is ended at once, and so is a later one."""
    async with desk(database_url, slow=40) as (world, parts, switches):
        parts.timers.start(tick=0.01)
        await until(lambda: "quick/c0 fraud" in switches.asked, seconds=2)
        await parts.charging.authorise(
            switch="quick", session_id="later", party="acme", called=UK_FIXED
        )
        await parts.charging.kill(switch="quick", session_id="later", why="fraud")
        await until(lambda: "quick/later fraud" in switches.asked, seconds=2)
        assert 1 <= switches.most <= timers.AT_ONCE + 1
        free = "SELECT count(*) FROM (SELECT FROM outbox FOR UPDATE SKIP LOCKED) AS free"
        # No transaction holds what a switch is asked for.
        await until(lambda: world.one(free) == 43)
        switches.hanging.set()
        await until(lambda: len(set(switches.asked)) == 43)


async def test_a_request_that_cannot_be_sent_is_tried_again_and_holds_up_nobody(
    database_url: str,
) -> None:
    """Whatever is raised counts as a refusal: the row is tried later, then given up."""
    async with desk(database_url, slow=0, quick=3) as (world, parts, switches):
        await parts.timers.deliver_due()
        assert len(switches.asked) == 4
        rows = world.sql("SELECT payload->>'key' AS key, attempts, done_at FROM outbox ORDER BY id")
        kept = {r["key"]: (r["attempts"], r["done_at"] is None) for r in rows}
        assert kept["broken/c0"] == (1, True)
        assert [kept[f"quick/c{n}"] for n in range(3)] == [(1, False)] * 3


async def test_no_answer_in_time_is_no_answer(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A switch that hangs is asked again later, as one that refuses."""
    monkeypatch.setattr(timers, "DELIVER_SECONDS", 0.05)
    async with desk(database_url, slow=1, quick=0) as (world, parts, _switches):
        await parts.timers.deliver_due()
        row = world.sql("SELECT attempts, last_error, done_at FROM outbox ORDER BY id")[0]
        assert (row["attempts"], row["done_at"]) == (1, None)
        assert "did not answer" in row["last_error"]


async def test_what_was_not_sent_when_a_process_ends_is_due_at_once_for_the_next(
    database_url: str,
) -> None:
    """Nobody waits for the time that the rows were put off."""
    async with desk(database_url, slow=2, quick=0) as (_world, parts, switches):
        sending = asyncio.create_task(parts.timers.deliver_due())
        await until(lambda: "slow/c1 fraud" in switches.asked)
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
        switches.asked.clear()
        switches.hanging.set()
        await parts.timers.deliver_due()
        assert {one for one in switches.asked if one.startswith("slow")} == {
            "slow/c0 fraud",
            "slow/c1 fraud",
        }
