"""One id, several calls, several processes: each call is charged once, and nothing stays held."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.protocols.house import add_peer, add_trunk
from tests.support import UK_FIXED, Customer, World, gathered, runtime
from tollkeeper.core.records import Outcome
from tollkeeper.errors import Busy
from tollkeeper.gateways.kill import KillFailed
from tollkeeper.servers.asks import Ask, call_id_of, switch_id_of
from tollkeeper.servers.switchboard import Switchboard
from tollkeeper.services.verify import verify
from tollkeeper.store.peers import Peer

CENT = Decimal("0.01")
"""What a second of the number called costs."""
_ids = itertools.count(1)


class Clock:
    """The time, moved by hand."""

    def __init__(self) -> None:
        from tollkeeper.wiring import system_clock

        self.now: datetime = system_clock()

    def __call__(self) -> datetime:
        """The time as it was set."""
        return self.now


class Two:
    """Two processes on one database, and a peer whose calls are acme's."""

    def __init__(self, world: World, acme: Customer, peer: Peer, parts: list[Any]) -> None:
        self.world, self.acme, self.peer, self.parts = world, acme, peer, parts
        self.boards: list[Switchboard] = [one.board for one in parts]
        self.clock: Clock

    async def ask(self, which: int, call_id: str, called: str = UK_FIXED, **more: Any) -> Any:
        """Authorise a call at one of the processes."""
        return await self.boards[which].authorise(self.peer, Ask(call_id, called, **more))

    def spent(self) -> Decimal:
        """What acme has paid so far."""
        return Decimal(1000) - self.world.wallet(self.acme).balance

    def held(self) -> Decimal:
        """What is held of acme's money."""
        return self.world.wallet(self.acme).held


@pytest.fixture
async def two(database_url: str) -> AsyncIterator[Two]:
    """Two processes that have begun."""
    clock = Clock()
    with World(database_url) as world:
        acme = world.customer("acme", balance="1000")
        add_trunk(world, "acme-in", acme)
        peer = add_peer(world, "sw", "kamailio", trunk="acme-in", options={"slice": 10})
        async with gathered(
            runtime(database_url, clock=clock), runtime(database_url, clock=clock)
        ) as parts:
            for one in parts:
                await one.board.start()
            made = Two(world, acme, peer, parts)
            made.clock = clock
            yield made
            for one in parts:
                await one.board.stop()


async def second_call(two: Two) -> None:
    """Call "c" lasts 2 seconds at the first process, which then opens another call of that id."""
    await two.ask(0, "c")
    await two.boards[0].stop_call(two.peer, "c", 2_000)
    two.clock.now += timedelta(seconds=31)
    assert (await two.ask(0, "c")).call_id == "c~2"


async def test_the_stop_of_a_second_call_finds_it_in_a_process_that_did_not_open_it(
    two: Two,
) -> None:
    """It is not taken for late usage of the first call."""
    await second_call(two)
    done = await two.boards[1].stop_call(two.peer, "c", 7_000)
    assert (done.call_id, done.outcome) == ("c~2", Outcome.CLOSED)
    assert (two.spent(), two.held()) == (Decimal("0.09"), 0)


async def test_a_stop_that_says_the_same_as_the_first_calls_ends_the_second(two: Two) -> None:
    """It is no repeat: the answer stored for the first call must not leave the second one open."""
    await second_call(two)
    assert (await two.boards[1].answered(two.peer, "c")).call_id == "c~2"
    done = await two.boards[1].stop_call(two.peer, "c", 2_000)
    assert done.call_id == "c~2"
    assert (two.spent(), two.held()) == (Decimal("0.04"), 0)


async def test_late_usage_of_a_second_call_is_not_charged_to_the_first(two: Two) -> None:
    """Both have closed: what comes now is of the later one, whoever hears of it."""
    await second_call(two)
    await two.boards[0].stop_call(two.peer, "c", 0)
    await two.boards[1].stop_call(two.peer, "c", 5_000)
    charged = two.world.sql("SELECT key, charge FROM closed_session ORDER BY key")
    assert {row["key"]: row["charge"] for row in charged} == {
        "sw/c": Decimal("0.02"),
        "sw/c~2": Decimal("0.05"),
    }


async def test_a_process_whose_memory_of_an_id_is_old_asks_the_database(two: Two) -> None:
    """The first process knows of two calls; the other one has opened a third."""
    await second_call(two)
    await two.boards[0].stop_call(two.peer, "c", 1_000)
    two.clock.now += timedelta(seconds=31)
    assert (await two.ask(1, "c")).call_id == "c~3"
    done = await two.boards[0].stop_call(two.peer, "c", 4_000)
    assert done.call_id == "c~3"
    assert (two.spent(), two.held()) == (Decimal("0.07"), 0)


async def test_an_id_that_is_used_often_is_no_slower_to_open(two: Two) -> None:
    """The fortieth call of an id asks as few questions as the third."""
    for number in range(1, 41):
        verdict = await two.ask(number % 2, "c", fresh=True)
        assert verdict.call_id == ("c" if number == 1 else f"c~{number}")
        await two.boards[number % 2].stop_call(two.peer, "c", 1_000, request_id=str(number))
    assert (two.spent(), two.held()) == (Decimal("0.40"), 0)


async def test_a_caller_who_chooses_the_id_of_anothers_second_call_does_not_get_it(
    two: Two,
) -> None:
    """Callers choose their Call-IDs: "c~2" as a switch's own id is another call than c's second one."""
    await second_call(two)
    other = await two.ask(1, "c~2")
    assert (other.repeated, other.call_id) == (False, call_id_of("c~2"))
    await two.boards[1].stop_call(two.peer, "c~2", 9_000)
    live = [row["key"] for row in two.world.sql("SELECT key FROM live_session ORDER BY key")]
    assert live == ["sw/c~2"]
    assert switch_id_of("c~2") == "c"
    assert switch_id_of("a~b@host") == "a~b@host"


async def test_an_id_with_a_tilde_is_no_other_call_after_our_restart(two: Two) -> None:
    """A session "x~y" is no reason to take "x" for it."""
    await two.ask(0, "x~y")
    await two.ask(0, "x")
    async with runtime(two.world.url, clock=two.clock) as parts:
        await parts.board.start()
        done = await parts.board.stop_call(two.peer, "x", 3_000)
        await parts.board.stop()
    assert done.call_id == "x"
    assert [row["key"] for row in two.world.sql("SELECT key FROM live_session")] == ["sw/x~y"]


class Ender:
    """A switch that remembers whom it was to end."""

    def __init__(self) -> None:
        self.ended: list[str] = []

    async def end(self, switch: str, call_id: str, reason: str) -> None:
        """Remember."""
        self.ended.append(f"{switch}/{call_id} {reason}")


async def test_a_kill_that_comes_late_does_not_end_the_next_call_of_the_id(two: Two) -> None:
    """The switch knows only the plain id: it would end the wrong one."""
    await second_call(two)
    ender = Ender()
    board = two.boards[1]
    board.reach.add("sw", ender)
    await board.end("sw", "c", "suspended")
    assert ender.ended == []
    await board.end("sw", "c~2", "suspended")
    assert ender.ended == ["sw/c~2 suspended"]
    await board.stop_call(two.peer, "c", 3_000)
    await board.end("sw", "c~2", "suspended")
    assert len(ender.ended) == 1, "its switch has said that it ended"


async def test_a_kill_waits_while_nobody_can_say_which_call_it_is(
    two: Two, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is tried again, not sent on trust."""
    await two.ask(0, "c")

    async def away(*_: object) -> Any:
        raise Busy("the database does not answer")

    monkeypatch.setattr(two.boards[0]._ids, "newest", away)
    with pytest.raises(KillFailed):
        await two.boards[0].end("sw", "c", "suspended")


async def test_a_restart_of_the_switch_does_not_close_what_began_after_it(two: Two) -> None:
    """The list of open calls may be read when new ones are there already."""
    await two.ask(0, "old")
    real = two.boards[0].open_calls

    async def late(peer: Peer) -> Any:
        two.clock.now += timedelta(milliseconds=5)
        await two.ask(1, "new")
        return await real(peer)

    two.boards[0].open_calls = late  # type: ignore[method-assign]
    assert await two.boards[0].restarted(two.peer) == 1
    assert [row["key"] for row in two.world.sql("SELECT key FROM live_session")] == ["sw/new"]


# --- any order -----------------------------------------------------------------------------------

_words = st.one_of(
    st.just(("authorise", 0)),
    st.just(("start", 0)),
    st.tuples(st.just("interim"), st.integers(0, 30)),
)
_calls = st.tuples(
    st.lists(st.tuples(_words, st.integers(0, 1), st.booleans()), max_size=6),
    st.lists(st.tuples(st.integers(0, 30), st.integers(0, 1)), min_size=1, max_size=3),
    st.sampled_from(["wait", "fresh", "restart"]),
    st.integers(0, 1),
)


@given(st.lists(_calls, min_size=2, max_size=3))
@settings(
    max_examples=30,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
async def test_calls_that_share_an_id_are_each_charged_once_for_their_highest_usage(
    two: Two, calls: list[Any]
) -> None:
    """Whatever is repeated, lost or out of order, and whichever process hears of it."""
    call_id = f"p{next(_ids)}"
    before = two.spent()
    due = Decimal(0)
    for words, stops, ending, opens in calls:
        fresh = {"fresh": ending == "fresh"}
        await two.ask(opens, call_id, fresh=True)
        highest = 0
        for (word, seconds), which, twice in words:
            for _ in range(1 + twice):
                highest = max(highest, await _say(two, which, call_id, word, seconds))
        if ending == "restart":
            await two.boards[opens].restarted(two.peer)
        else:
            for seconds, which in stops:
                await two.boards[which].stop_call(two.peer, call_id, seconds * 1000)
                highest = max(highest, seconds)
        if not fresh["fresh"] and ending == "wait":
            two.clock.now += timedelta(seconds=31)
        due += highest * CENT
    assert two.spent() - before == due
    assert two.held() == 0
    assert two.world.one("SELECT count(*) FROM live_session") == 0
    assert (await verify(two.parts[0].database)).clean


async def _say(two: Two, which: int, call_id: str, word: str, seconds: int) -> int:
    board = two.boards[which]
    if word == "authorise":
        await two.ask(which, call_id)
    elif word == "start":
        await board.answered(two.peer, call_id)
    else:
        await board.interim(two.peer, call_id, seconds * 1000)
    return seconds
