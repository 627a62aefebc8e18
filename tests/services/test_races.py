"""Many at once: clients, lanes and processes that want the same money or say the same thing.

Every test ends with the proof of the books. The lanes are real, each with a connection of its own
to one PostgreSQL, as two processes would be.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any

import psycopg
import pytest

from tests.support import UK_FIXED, UK_MOBILE, World, gathered, runtime, settings, until
from tollkeeper.core.records import Outcome
from tollkeeper.errors import Busy, Conflict
from tollkeeper.services.verify import verify
from tollkeeper.services.wallets import top_up

CLIENTS = 32
LANES = {
    "both decide on what they remember": (True, True),
    "one remembers, one locks": (True, False),
    "both lock": (False, False),
}


@asynccontextmanager
async def two_lanes(url: str, modes: tuple[bool, bool] = (True, True)) -> AsyncIterator[list[Any]]:
    """Two processes' parts on one database."""
    async with gathered(*(runtime(url, optimistic=mode) for mode in modes)) as parts:
        yield parts


async def authorise(parts: Any, name: str, seconds: int, called: str = UK_FIXED) -> Any:
    """The answer to an authorisation of ``acme``."""
    reply, _ = await parts.charging.authorise(
        switch="sw1", session_id=name, party="acme", called=called, requested_seconds=seconds
    )
    return reply


async def stop(parts: Any, name: str, used_ms: int, **more: Any) -> Any:
    """The answer to a stop."""
    reply, _ = await parts.charging.stop(switch="sw1", session_id=name, used_ms=used_ms, **more)
    return reply


async def prove(parts: Any) -> None:
    """The books hold."""
    report = await verify(parts.database)
    assert report.clean, report.findings


def no_deadlocks(world: World) -> None:
    """Nothing was ever in each other's way so that PostgreSQL had to choose a victim."""
    count = world.one("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")
    assert count == 0


# --- one wallet ----------------------------------------------------------------------------------


@pytest.mark.parametrize("modes", LANES.values(), ids=LANES.keys())
async def test_f13_clients_racing_for_one_wallet_are_granted_no_more_than_it_has(
    database_url: str, modes: tuple[bool, bool]
) -> None:
    """F13: 32 clients on two lanes; held money never exceeds the balance, and all of it is used."""
    rng = random.Random(13)
    with World(database_url) as world:
        customer = world.customer(balance="12.34")  # 1234 seconds
        async with two_lanes(database_url, modes) as lanes:

            async def client(number: int) -> int:
                granted = 0
                for call in range(6):
                    parts = lanes[rng.randrange(2)]
                    reply = await authorise(parts, f"c{number}-{call}", rng.randrange(1, 60))
                    granted += reply.granted_seconds
                return granted

            granted = await asyncio.gather(*(client(number) for number in range(CLIENTS)))
            wallet = world.wallet(customer)
            assert sum(granted) == 1234
            assert (wallet.held, wallet.available) == (Decimal("12.34"), 0)
            await prove(lanes[0])
            no_deadlocks(world)


@pytest.mark.parametrize("modes", LANES.values(), ids=LANES.keys())
async def test_calls_that_come_and_go_on_two_lanes_charge_exactly_what_was_used(
    database_url: str, modes: tuple[bool, bool]
) -> None:
    """Authorise, extend and stop of one wallet, each message on any lane: no cent lost or made."""
    rng = random.Random(5)
    with World(database_url) as world:
        customer = world.customer(balance="1000")
        async with two_lanes(database_url, modes) as lanes:

            def any_lane() -> Any:
                return lanes[rng.randrange(2)]

            async def client(number: int) -> int:
                used = 0
                for call in range(5):
                    name = f"c{number}-{call}"
                    reply = await authorise(any_lane(), name, 20)
                    assert reply.outcome is Outcome.GRANTED
                    seconds = rng.randrange(0, 60)
                    if seconds > 20:
                        await any_lane().charging.update(
                            switch="sw1", session_id=name, used_ms=20_000
                        )
                    await stop(any_lane(), name, seconds * 1000)
                    used += seconds
                return used

            used = sum(await asyncio.gather(*(client(number) for number in range(CLIENTS))))
            wallet = world.wallet(customer)
            assert wallet.balance == 1000 - Decimal(used) / 100
            assert (wallet.held, wallet.live) == (0, 0)
            await prove(lanes[0])
            no_deadlocks(world)


async def test_top_ups_during_a_race_are_neither_lost_nor_spent_twice(database_url: str) -> None:
    """Money that comes while 32 clients take it is there at once, and only once."""
    with World(database_url) as world:
        customer = world.customer(balance="1.00")
        async with two_lanes(database_url) as lanes:

            async def client(number: int) -> int:
                granted = 0
                for call in range(10):
                    reply = await authorise(lanes[number % 2], f"c{number}-{call}", 5)
                    granted += reply.granted_seconds
                return granted

            async def pay(number: int) -> None:
                for _ in range(5):
                    await top_up(
                        lanes[number % 2].database,
                        party="acme",
                        currency="USD",
                        amount=Decimal("0.10"),
                        reason="race",
                        actor="test",
                        clock=lanes[0].clock,
                    )

            payers = [pay(number) for number in range(8)]
            *granted, _ = await asyncio.gather(
                *(client(number) for number in range(CLIENTS)), asyncio.gather(*payers)
            )
            wallet = world.wallet(customer)
            assert wallet.credited == Decimal("5.00")
            assert wallet.held == Decimal(sum(granted)) / 100 <= wallet.credited
            await prove(lanes[0])
            no_deadlocks(world)
            # What is left is taken to the last cent: nothing was forgotten anywhere.
            last = await authorise(lanes[1], "last", 3600)
            assert last.granted_seconds == 500 - sum(granted)


async def test_limits_hold_over_two_lanes(database_url: str) -> None:
    """Concurrent sessions are counted in the database, not in each process."""
    with World(database_url) as world:
        world.customer(balance="1000", max_sessions=10)
        async with two_lanes(database_url) as lanes:
            replies = await asyncio.gather(
                *(authorise(lanes[number % 2], f"c{number}", 10) for number in range(CLIENTS))
            )
            granted = [reply for reply in replies if reply.outcome is Outcome.GRANTED]
            refused = {reply.reason.value for reply in replies if reply.outcome is Outcome.REFUSED}
            assert len(granted) == 10
            assert refused == {"concurrency_limit"}
            await prove(lanes[0])


# --- one message ---------------------------------------------------------------------------------


@pytest.mark.parametrize("modes", LANES.values(), ids=LANES.keys())
async def test_f12_two_lanes_that_get_the_same_message_at_once_apply_it_once(
    database_url: str, modes: tuple[bool, bool]
) -> None:
    """F12, F10: every message of a call goes to both lanes at the same moment; both answer the same."""
    with World(database_url) as world:
        customer = world.customer(balance="100")
        async with two_lanes(database_url, modes) as lanes:
            for number in range(20):
                name = f"call-{number}"
                steps: list[Any] = [
                    lambda parts, name=name: parts.charging.authorise(
                        switch="sw1", session_id=name, party="acme", called=UK_FIXED,
                        requested_seconds=30,
                    ),
                    lambda parts, name=name: parts.charging.start(switch="sw1", session_id=name),
                    lambda parts, name=name: parts.charging.update(
                        switch="sw1", session_id=name, used_ms=20_000
                    ),
                    lambda parts, name=name: parts.charging.stop(
                        switch="sw1", session_id=name, used_ms=40_000
                    ),
                ]  # fmt: skip
                for step in steps:
                    (one, first), (other, second) = await asyncio.gather(
                        step(lanes[0]), step(lanes[1])
                    )
                    assert one == other
                    assert sorted([first, second]) == [False, True]
                    assert (await step(lanes[number % 2]))[0] == one
            wallet = world.wallet(customer)
            assert wallet.balance == 100 - 20 * Decimal("0.40")
            assert (wallet.held, wallet.live) == (0, 0)
            assert world.one("SELECT count(*) FROM closed_session") == 20
            await prove(lanes[0])


async def test_f3_a_repeat_with_other_content_is_refused_and_changes_nothing(
    database_url: str,
) -> None:
    """The same id with another content is an error wherever and whenever it comes."""
    with World(database_url) as world:
        customer = world.customer(balance="100")
        async with two_lanes(database_url) as lanes:
            both = await asyncio.gather(
                authorise(lanes[0], "x", 30),
                authorise(lanes[1], "x", 60),
                return_exceptions=True,
            )
            (conflict,) = [result for result in both if isinstance(result, Conflict)]
            (granted,) = [result for result in both if not isinstance(result, BaseException)]
            assert conflict.code == "session_id_reused"
            assert world.wallet(customer).held == Decimal(granted.granted_seconds) / 100
            for parts in lanes:
                with pytest.raises(Conflict):
                    await authorise(parts, "x", 45)
            await stop(lanes[0], "x", 10_000, request_id="r1")
            for parts in lanes:
                with pytest.raises(Conflict, match="stop:r1"):
                    await stop(parts, "x", 11_000, request_id="r1")
            assert world.wallet(customer).balance == Decimal("99.90")
            await prove(lanes[0])


async def test_i10_a_refused_call_stays_refused_on_every_lane_whatever_money_comes(
    database_url: str,
) -> None:
    """I10: the refusal is stored; only another id can be granted."""
    with World(database_url) as world:
        customer = world.customer(balance="0.001")
        async with two_lanes(database_url) as lanes:
            replies = await asyncio.gather(
                *(authorise(lanes[n % 2], "poor", 30) for n in range(CLIENTS))
            )
            assert {(r.outcome, r.reason.value, r.id) for r in replies} == {
                (Outcome.REFUSED, "insufficient_funds", replies[0].id)
            }
            world.top_up(customer, "100")
            for parts in lanes:
                again = await authorise(parts, "poor", 30)
                assert (again.outcome, again.id) == (Outcome.REFUSED, replies[0].id)
            assert (await authorise(lanes[0], "rich", 30)).outcome is Outcome.GRANTED
            await prove(lanes[0])


async def test_stops_and_updates_of_one_call_in_any_order_charge_the_highest_usage(
    database_url: str,
) -> None:
    """F5, F6: 32 reports of one call at once on two lanes: the charge is that of the largest."""
    with World(database_url) as world:
        customer = world.customer(balance="100")
        async with two_lanes(database_url) as lanes:
            await authorise(lanes[0], "x", 300)
            reports = [
                lanes[n % 2].charging.update(
                    switch="sw1", session_id="x", used_ms=n * 1000, extend=False
                )
                for n in range(1, 32)
            ]
            random.Random(6).shuffle(reports)
            await asyncio.gather(*reports, stop(lanes[1], "x", 17_000))
            # Whichever came first, each was applied or was below what is known.
            assert world.wallet(customer).balance == Decimal("99.69")
            await prove(lanes[0])


# --- too much, too slow, gone --------------------------------------------------------------------


async def test_f28_overload_sheds_new_calls_first_and_stops_last(database_url: str) -> None:
    """F28: a full lane says busy at once; calls that are up are settled while new ones are turned away."""
    with World(database_url) as world:
        customer = world.customer(balance="1000")
        small = settings(lane_queue_max=40, lane_batch_max=8)
        async with runtime(database_url, settings=small) as parts:
            for number in range(12):
                await authorise(parts, f"up-{number}", 60)
            with psycopg.connect(database_url) as blocker:
                blocker.execute(
                    "SELECT 1 FROM wallet WHERE id = %s FOR UPDATE", (customer.wallet_id,)
                )
                first = asyncio.create_task(authorise(parts, "stuck", 10))
                await until(lambda: parts.lane.waiting == 0)
                second = asyncio.create_task(authorise(parts, "stuck-too", 10))
                await asyncio.sleep(0)
                waiting = [
                    asyncio.create_task(authorise(parts, f"new-{number}", 10))
                    for number in range(40)
                ]
                await until(lambda: parts.lane.shed >= 10)
                shed = [task for task in waiting if task.done()]
                assert len(shed) >= 10
                assert all(
                    isinstance(task.exception(), Busy) and task.exception().code == "overloaded"
                    for task in shed
                )
                # There is still room for those that are up: none of them is turned away.
                stops = [
                    asyncio.create_task(stop(parts, f"up-{number}", 10_000)) for number in range(8)
                ]
                await asyncio.sleep(0)
                await asyncio.sleep(0)
                assert not any(task.done() for task in stops)
                blocker.rollback()
                replies = await asyncio.gather(*stops)
            assert {str(reply.charge) for reply in replies} == {"0.100000"}
            await asyncio.gather(first, second, *waiting, return_exceptions=True)
            assert parts.lane.waiting == 0
            await prove(parts)


async def test_a_lock_that_is_not_given_back_ends_in_busy_in_time_and_then_all_goes_on(
    database_url: str,
) -> None:
    """A stuck transaction elsewhere delays nobody beyond a switch's patience, and loses nothing."""
    with World(database_url) as world:
        customer = world.customer(balance="100")
        async with runtime(database_url) as parts:
            await authorise(parts, "up", 60)
            loop = asyncio.get_running_loop()
            with psycopg.connect(database_url) as blocker:
                blocker.execute(
                    "SELECT 1 FROM wallet WHERE id = %s FOR UPDATE", (customer.wallet_id,)
                )
                began = loop.time()
                with pytest.raises(Busy):
                    await authorise(parts, "new", 60)
                assert loop.time() - began < 5
                with pytest.raises(Busy):
                    await stop(parts, "up", 10_000)
                assert loop.time() - began < 15
                blocker.rollback()
            await until(lambda: _granted(parts, "new"))
            assert str((await stop(parts, "up", 10_000)).charge) == "0.100000"
            assert world.wallet(customer).held == Decimal("0.60")
            await prove(parts)


async def _granted(parts: Any, name: str) -> bool:
    try:
        return (await authorise(parts, name, 60)).outcome is Outcome.GRANTED
    except Busy:
        return False


async def test_a_connection_that_is_cut_loses_nothing(database_url: str) -> None:
    """F9, F10: the lane's connection is ended by the server again and again while calls go on."""
    with World(database_url) as world:
        customer = world.customer(balance="1000")
        async with two_lanes(database_url) as lanes:
            over = asyncio.Event()
            cut = 0

            async def cutter() -> None:
                nonlocal cut
                while not over.is_set() and cut < 16:
                    cut += world.one(
                        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
                        " WHERE datname = current_database() AND query LIKE '%%charge_batch%%'"
                        " AND pid <> pg_backend_pid()"
                    )
                    await asyncio.sleep(0.01)

            async def client(number: int) -> int:
                used = 0
                for call in range(12):
                    name, seconds = f"c{number}-{call}", (number + call) % 30
                    await _insist(lambda name=name: authorise(lanes[number % 2], name, 30))
                    await _insist(
                        lambda name=name, seconds=seconds: stop(
                            lanes[(number + 1) % 2], name, seconds * 1000
                        )
                    )
                    used += seconds
                return used

            cutting = asyncio.create_task(cutter())
            used = sum(await asyncio.gather(*(client(number) for number in range(CLIENTS))))
            over.set()
            await cutting
            wallet = world.wallet(customer)
            assert cut > 0
            assert wallet.balance == 1000 - Decimal(used) / 100
            assert (wallet.held, wallet.live) == (0, 0)
            await prove(lanes[0])


async def _insist(ask: Any) -> Any:
    """Ask again for as long as the answer is busy, as a switch does."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + 30
    while True:
        try:
            return await ask()
        except Busy:
            assert loop.time() < deadline
            await asyncio.sleep(0.01)


async def test_a_client_that_hangs_up_while_it_waits_disturbs_nobody(database_url: str) -> None:
    """Cancelled requests may or may not have been carried out; asked again they get one answer."""
    rng = random.Random(7)
    with World(database_url) as world:
        customer = world.customer(balance="1000")
        async with runtime(database_url) as parts:
            for turn in range(10):
                tasks = [
                    asyncio.create_task(authorise(parts, f"t{turn}-{n}", 30))
                    for n in range(CLIENTS)
                ]
                for _ in range(rng.randrange(6)):
                    await asyncio.sleep(0)
                for task in rng.sample(tasks, CLIENTS // 2):
                    task.cancel()
                results = await asyncio.gather(*tasks, return_exceptions=True)
                failures = [
                    r
                    for r in results
                    if isinstance(r, BaseException) and not isinstance(r, asyncio.CancelledError)
                ]
                assert failures == []
            replies = await asyncio.gather(
                *(authorise(parts, f"t{t}-{n}", 30) for t in range(10) for n in range(CLIENTS))
            )
            assert {reply.outcome for reply in replies} == {Outcome.GRANTED}
            wallet = world.wallet(customer)
            assert wallet.held == Decimal("0.30") * 10 * CLIENTS
            assert wallet.live == 10 * CLIENTS
            await prove(parts)


async def test_a_wallet_parked_during_a_race_takes_no_new_hold_afterwards(
    database_url: str,
) -> None:
    """I20: from the moment that the parking is committed nothing more is held on it."""
    with World(database_url) as world:
        customer = world.customer(balance="1000")
        async with two_lanes(database_url) as lanes:

            async def client(number: int) -> None:
                for call in range(10):
                    await authorise(lanes[number % 2], f"c{number}-{call}", 10, UK_MOBILE)

            clients = asyncio.gather(*(client(number) for number in range(CLIENTS)))
            await until(lambda: lanes[0].lane.operations > 50)
            # In a thread: a lane may be holding the row, and it needs the event loop to let go.
            parked = await asyncio.to_thread(
                world.sql,
                "UPDATE wallet SET parked = true, stamp = stamp + 1 WHERE id = %s RETURNING held",
                customer.wallet_id,
            )
            await clients
            assert world.wallet(customer).held == parked[0]["held"]
            reply = await authorise(lanes[1], "after", 10)
            assert (reply.outcome, reply.reason.value) == (Outcome.REFUSED, "wallet_parked")
            await prove(lanes[0])
