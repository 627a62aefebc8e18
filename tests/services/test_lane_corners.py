"""Corners of the lane that need an exact order of events: played on the store in memory."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from decimal import Decimal

import pytest

from tests.services.lane_bench import Bench, authorise, play
from tollkeeper.core.records import Expire, Outcome, Start, Stop, Update

D = Decimal


def test_f22_an_id_used_again_days_later_is_a_new_session_even_if_the_old_one_is_in_memory() -> (
    None
):
    """The stored answer of a call long over must not let a new call through for nothing."""

    async def scene(bench: Bench) -> None:
        first, _ = await bench.send(authorise("a"))
        await bench.send(Stop("s/a", 5000))
        again, repeated = await bench.send(authorise("a"))
        assert repeated
        assert again == first
        bench.now += timedelta(days=2)
        later, repeated = await bench.send(authorise("a"))
        assert not repeated
        assert later.id != first.id
        assert bench.books.live["s/a"].id == later.id

    play(scene)


def test_f5_late_usage_in_one_batch_with_an_extension_does_not_block_both() -> None:
    """The extension takes the last money, the late usage goes below: each must be possible."""

    async def scene(bench: Bench) -> None:
        await bench.send(authorise("late", seconds=10))
        await bench.send(Stop("s/late", 1000))
        await bench.send(authorise("up", seconds=900))
        bench.pauses["apply"] = asyncio.Event()
        first = asyncio.ensure_future(bench.send(authorise("other", seconds=1)))
        await asyncio.sleep(0.1)
        both = [
            asyncio.ensure_future(bench.send(Update("s/up", 890_000))),
            asyncio.ensure_future(bench.send(Update("s/late", 60_000))),
        ]
        await asyncio.sleep(0.1)
        bench.pauses["apply"].set()
        await first
        extended, late = [reply for reply, _ in await asyncio.gather(*both)]
        assert extended.outcome is Outcome.ACTIVE
        assert late.charge == D("0.60")

    play(scene)


def test_a_session_that_another_node_has_moved_on_is_expired_by_what_stands() -> None:
    """This node remembers a longer life; the job must not wait for what is no longer true."""

    async def scene(bench: Bench) -> None:
        await bench.send(authorise("a", seconds=300))
        bench.now += timedelta(seconds=5)
        await bench.send(Start("s/a"))
        await bench.send(Update("s/a", 295_000, extend=False), lane=1)
        bench.now += timedelta(seconds=66)
        assert bench.books.due(bench.now) == ["s/a"]
        reply, _ = await bench.send(Expire("s/a"), "expire")
        assert reply.outcome is Outcome.CLOSED
        assert reply.charge == D("2.95")

    play(scene)


def test_a_request_that_cannot_be_decided_harms_no_other_and_waits_for_the_batch_under_way() -> (
    None
):
    """A wallet that is not there: only that call fails, and no transaction is opened in between."""

    async def scene(bench: Bench) -> None:
        bench.pauses["applying"] = asyncio.Event()
        flying = asyncio.ensure_future(bench.send(authorise("a", seconds=10)))
        await asyncio.sleep(0.1)
        assert bench.steps[-1] == "applying"
        bad = asyncio.ensure_future(bench.send(authorise("bad", wallet=99)))
        good = asyncio.ensure_future(bench.send(authorise("good", seconds=10)))
        await asyncio.sleep(0.5)
        assert "lock" not in bench.steps
        bench.pauses["applying"].set()
        assert (await flying)[0].outcome is Outcome.GRANTED
        assert (await good)[0].outcome is Outcome.GRANTED
        with pytest.raises(KeyError):
            await bad

    play(scene)


def test_a_repeat_at_another_node_gets_the_stored_answer() -> None:
    """F3 and F12: whichever node it reaches, and whatever that node remembers."""

    async def scene(bench: Bench) -> None:
        for node in (0, 1):
            await bench.send(authorise(f"n{node}"), lane=node)
        opened = [await bench.send(authorise("a"), lane=node) for node in (0, 1, 0)]
        assert [repeated for _, repeated in opened] == [False, True, True]
        assert len({reply.id for reply, _ in opened}) == 1
        stops = [await bench.send(Stop("s/a", 60_000), lane=node) for node in (1, 0, 1)]
        assert [repeated for _, repeated in stops] == [False, True, True]
        assert stops[0][0] == stops[1][0] == stops[2][0]
        assert bench.books.wallets[1].debited == D("0.60")

    play(scene)


def test_f12_two_nodes_given_the_same_message_at_once_apply_it_once() -> None:
    async def scene(bench: Bench) -> None:
        answers = await asyncio.gather(*[bench.send(authorise("a"), lane=n % 2) for n in range(8)])
        assert sum(not repeated for _, repeated in answers) == 1
        assert len({reply.id for reply, _ in answers}) == 1
        stops = await asyncio.gather(*[bench.send(Stop("s/a", 9000), lane=n % 2) for n in range(8)])
        assert sum(not repeated for _, repeated in stops) == 1
        assert bench.books.wallets[1].debited == D("0.09")

    play(scene)


def test_f13_calls_that_race_for_one_balance_never_hold_more_than_it_has() -> None:
    async def scene(bench: Bench) -> None:
        answers = await asyncio.gather(
            *[bench.send(authorise(f"c{n}", seconds=90), lane=n % 2) for n in range(32)]
        )
        granted = [reply.granted_seconds for reply, _ in answers]
        assert sum(granted) == 1000
        assert bench.books.wallets[1].available == 0

    play(scene)


def test_lanes_stop_only_when_all_are_answered() -> None:
    async def scene(bench: Bench) -> None:
        asked = [asyncio.ensure_future(bench.send(authorise(f"c{n}"))) for n in range(5)]
        await asyncio.sleep(0)
        await bench.lanes[0].stop()
        assert all(future.done() for future in asked)
        assert {reply.outcome for reply, _ in [future.result() for future in asked]} == {
            Outcome.GRANTED,
            Outcome.REFUSED,
        }

    play(scene)
