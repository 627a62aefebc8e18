"""Calls that were let through unpaid, handles that could not be written, renewals, agents: after a failure."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from tests.protocols.house import add_peer, add_trunk
from tests.support import UK_FIXED, Customer, World, runtime, until
from tollkeeper.core.reasons import Reason
from tollkeeper.core.records import Outcome
from tollkeeper.errors import Busy
from tollkeeper.servers import agents as agents_module
from tollkeeper.servers import switchboard as switchboard_module
from tollkeeper.servers.agents import Agents
from tollkeeper.servers.asks import Ask, Verdict
from tollkeeper.servers.live_calls import LiveCall, LiveCalls
from tollkeeper.servers.switchboard import Switchboard
from tollkeeper.services import handles as handles_module
from tollkeeper.store import peers as peer_store
from tollkeeper.store.peers import Peer


class Desk:
    """A switchboard whose peer is trusted for 100 seconds; its calls carry the trunk's prefix."""

    def __init__(self, world: World, acme: Customer, parts: Any, peer: Peer) -> None:
        self.world, self.acme, self.parts, self.peer = world, acme, parts, peer
        self.board: Switchboard = parts.board
        self.now: datetime

    async def ask(self, call_id: str, **more: Any) -> Verdict:
        """Authorise a call as the trunk writes its numbers."""
        return await self.board.authorise(self.peer, Ask(call_id, f"77#{UK_FIXED}", **more))

    def away(self) -> pytest.MonkeyPatch:
        """Nothing can be charged until ``undo``."""

        async def submit(*_: object) -> Any:
            raise Busy("the database does not answer")

        patch = pytest.MonkeyPatch()
        patch.setattr(self.parts.lane, "submit", submit)
        return patch


@pytest.fixture
async def desk(database_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Desk]:
    """The desk, begun."""
    monkeypatch.setattr(switchboard_module, "RISK_LOOK_SECONDS", 0.05)
    from tollkeeper.wiring import system_clock

    begun = system_clock()
    with World(database_url) as world:
        acme = world.customer("acme", balance="100")
        add_trunk(world, "acme-in", acme)
        world.sql("UPDATE trunk SET tech_prefix = '77#' WHERE code = 'acme-in'")
        peer = add_peer(
            world, "sw", "kamailio", trunk="acme-in", options={"slice": 10},
            on_failure="allow", risk_seconds=100,
        )  # fmt: skip
        made: Desk
        async with runtime(database_url, clock=lambda: made.now) as parts:
            made = Desk(world, acme, parts, peer)
            made.now = begun
            await parts.board.start()
            yield made
            await parts.board.stop()


async def test_a_call_at_risk_is_charged_for_the_number_that_its_trunk_means(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The trunk's prefix is taken off afterwards, too: the call is not lost as one that nobody can dial."""
    outage = desk.away()
    assert (await desk.ask("r")).on_risk
    outage.undo()
    done = await desk.board.stop_call(desk.peer, "r", 5_000)
    assert done.outcome is Outcome.CLOSED
    assert desk.world.wallet(desk.acme).balance == Decimal("99.95")


async def test_a_call_at_risk_of_which_nothing_is_heard_gives_its_seconds_back(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is authorised as soon as that works, so that it is charged or expires as any other."""
    outage = desk.away()
    assert [(await desk.ask(f"r{n}")).granted for n in range(2)] == [10, 10]
    await asyncio.sleep(0.1)
    assert desk.board.risks.seconds(desk.peer) == 20
    outage.undo()
    await until(lambda: desk.board.risks.seconds(desk.peer) == 0)
    live = desk.world.sql("SELECT key FROM live_session ORDER BY key")
    assert [row["key"] for row in live] == ["sw/r0", "sw/r1"]


async def test_a_call_at_risk_whose_id_was_used_before_is_charged_beside_the_first(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not as late usage of a call that has closed."""
    await desk.ask("r")
    await desk.board.stop_call(desk.peer, "r", 1_000)
    desk.now += timedelta(seconds=31)
    outage = desk.away()
    assert (await desk.ask("r")).on_risk
    outage.undo()
    done = await desk.board.stop_call(desk.peer, "r", 5_000)
    assert (done.outcome, done.call_id) == (Outcome.CLOSED, "r~2")
    assert desk.world.wallet(desk.acme).balance == Decimal("99.94")
    assert desk.world.wallet(desk.acme).held == 0


async def test_an_early_stop_that_cannot_be_settled_is_settled_when_asked_again(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is raised, and what was held goes back."""
    await desk.board.stop_call(desk.peer, "e", 0)
    real = desk.parts.charging.stop

    async def busy(**_: object) -> Any:
        raise Busy("the lane is full")

    monkeypatch.setattr(desk.parts.charging, "stop", busy)
    assert (await desk.ask("e")).busy
    monkeypatch.setattr(desk.parts.charging, "stop", real)
    assert (await desk.ask("e")).reason is Reason.EXPIRED
    assert desk.world.wallet(desk.acme).held == 0


async def test_a_stop_that_was_not_taken_is_no_early_one(desk: Desk) -> None:
    """Usage that nobody can have had does not come back with the next call."""
    odd = await desk.board.stop_call(desk.peer, "o", -5)
    assert odd.reason is Reason.UNKNOWN_SESSION
    assert (await desk.ask("o")).allowed


async def test_handles_that_could_not_be_written_are_written_later(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process can end the call, too; the call's next messages bring no news of it."""
    monkeypatch.setattr(handles_module, "AGAIN_SECONDS", 0.01)
    real, failed = peer_store.keep_handles, asyncio.Event()

    async def failing(*_: object) -> None:
        failed.set()
        raise Busy("the database does not answer")

    monkeypatch.setattr(peer_store, "keep_handles", failing)
    desk.board.handles.keep("sw/h", {"id": "1"})
    await failed.wait()
    monkeypatch.setattr(peer_store, "keep_handles", real)
    desk.board.handles.keep("sw/h", {"id": "1"})
    await until(lambda: desk.world.one("SELECT count(*) FROM call_handle") == 1)


async def test_a_handle_that_cannot_be_kept_does_not_keep_others_from_it(desk: Desk) -> None:
    """A database takes no zero characters."""
    desk.board.handles.keep("sw/odd", {"id": "\0"})
    desk.board.handles.keep("sw/good", {"id": "1"})
    await until(lambda: desk.world.one("SELECT count(*) FROM call_handle") == 1)


# --- renewals ------------------------------------------------------------------------------------


class Switch:
    """What LiveCalls asks of a switch; notes how many renewals are under way."""

    def __init__(self, board: Switchboard, peer: Peer) -> None:
        self.told: list[tuple[str, int]] = []
        self.now = self.most = 0
        self.asked: list[str] = []
        self.go = asyncio.Event()
        self.live = LiveCalls(
            board, peer, extend=self.extend, hang_up=self.hang_up, alive=self.alive
        )

    async def alive(self, call: LiveCall) -> bool:
        """All are; it takes a while to say so."""
        self.asked.append(call.call_id)
        self.now += 1
        self.most = max(self.most, self.now)
        await self.go.wait()
        self.now -= 1
        return True

    async def extend(self, call: LiveCall, seconds: int) -> None:
        """Remember."""
        self.told.append((call.call_id, seconds))

    async def hang_up(self, call: LiveCall, reason: str) -> None:
        """Nobody is ended here."""
        raise AssertionError(f"{call.call_id} {reason}")


async def test_a_storm_of_payments_renews_each_call_one_at_a_time_and_few_at_once(
    desk: Desk,
) -> None:
    """Ten notices, fifty calls: no call is asked about twice at once, nor all of them together."""
    switch = Switch(desk.board, desk.peer)
    verdict = await desk.ask("s")
    for number in range(50):
        call = switch.live.add(f"s{number}" if number else "s", verdict)
        call.final = True
        switch.live.answered(call.call_id)
    try:
        for _ in range(10):
            switch.live._money_changed(desk.acme.id)
            await asyncio.sleep(0)
        await until(lambda: switch.now == switch.most and switch.most > 1)
        assert switch.most <= 32
        assert len(switch.asked) == len(set(switch.asked))
    finally:
        await switch.live.stop()


# --- agents --------------------------------------------------------------------------------------


class Agent:
    """An agent that only runs; how many do is counted."""

    running = 0

    def __init__(self, *_: object) -> None:
        pass

    async def run(self) -> None:
        """Run."""
        Agent.running += 1
        try:
            await asyncio.Event().wait()
        finally:
            Agent.running -= 1


@asynccontextmanager
async def running(board: Switchboard) -> AsyncIterator[None]:
    """The agents of one process."""
    agents = Agents(board, {"kamailio": Agent})
    await agents.start()
    try:
        yield
    finally:
        await agents.stop()


async def test_after_the_database_was_away_there_is_one_agent_again(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two at one switch would each send a parked call on; whoever lost its lock stays only if it is free."""
    monkeypatch.setattr(agents_module, "LOOK_SECONDS", 0.05)
    locks = "FROM pg_locks WHERE locktype = 'advisory' AND classid = 7203 AND granted"
    Agent.running = 0
    async with running(desk.board), running(desk.board):
        await until(lambda: Agent.running == 1)
        for _ in range(3):
            desk.world.sql(f"SELECT pg_terminate_backend(pid) {locks}")
            await until(lambda: desk.world.one(f"SELECT count(*) {locks}") == 1)
            await until(lambda: Agent.running == 1)
            await asyncio.sleep(0.2)
            assert Agent.running == 1
    assert Agent.running == 0
