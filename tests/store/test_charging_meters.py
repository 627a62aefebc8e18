"""Meters, one-shot charges and refunds in the stores of the lane: the same for both."""

from __future__ import annotations

import asyncio
from decimal import Decimal

import msgspec
import pytest

from tests.store.charging_backends import NOON, Backend
from tests.store.charging_writer import (
    Writer,
    assert_books_are_sound,
    authorise,
    charge,
    refused,
    session_of,
)
from tollkeeper.core.batch import Batch, Change, GuardRefused, StaleRead, tally
from tollkeeper.core.records import Ending, Refund, Start, State, Stop
from tollkeeper.core.terms import Count, Meter

D = Decimal


def counting(batch: Batch, meters: dict[int, Meter], *counts: Count) -> Batch:
    """The batch with changes of meters, whatever the core makes of such sessions."""
    after = dict(meters)
    for count in counts:
        after[count.meter_id] = tally(after[count.meter_id], count)
    ids = {count.meter_id for count in counts}
    return msgspec.structs.replace(
        batch,
        meters_before=meters,
        meters_after={id_: after[id_] for id_ in ids},
        meters_guarded={count.meter_id for count in counts if count.guarded},
    )


async def test_meters_are_written_with_the_batch_and_read_again(backend: Backend) -> None:
    for id_ in (3, 5, 7):
        backend.add_meter(id_, cap=D(100))
    meters = await backend.store.meters([3, 5, 7, 99])
    assert set(meters) == {3, 5, 7}
    batch = counting(
        await Writer(backend.store).batch(authorise("a")),
        meters,
        Count(7, held=D(100), guarded=True),
        Count(3, used=D("12.5"), base=D("0.00000000012")),
    )
    await backend.store.apply(batch)
    assert backend.meters() == await backend.store.meters([3, 5, 7])
    assert backend.meters() == {
        3: Meter(3, 1, used=D("12.5"), base=D("0.00000000012"), cap=D(100), stamp=1),
        5: Meter(5, 1, cap=D(100)),
        7: Meter(7, 1, held=D(100), cap=D(100), stamp=1),
    }


async def test_a_meter_that_has_changed_stops_the_batch(backend: Backend) -> None:
    """Also one that the decisions only looked at: it is in the batch without a change."""
    backend.add_meter(3, cap=D(100))
    meters = await backend.store.meters([3])
    opened = await Writer(backend.store).batch(authorise("a"))
    backend.change_meter(3, cap=D(90))
    await refused(backend, counting(opened, meters, Count(3, used=D(1))))
    await refused(backend, counting(opened, meters, Count(3)))


async def test_a_meter_that_is_not_there_stops_the_batch(backend: Backend) -> None:
    opened = await Writer(backend.store).batch(authorise("a"))
    await refused(backend, counting(opened, {3: Meter(3, 1)}, Count(3, used=D(1))))


async def test_more_than_a_cap_is_refused_by_the_store_itself(backend: Backend) -> None:
    """Even if the deciding were wrong; but what was used already is counted even above the cap."""
    backend.add_meter(3, cap=D(100))
    backend.add_meter(4)
    backend.change_meter(3, used=D(60))
    meters = await backend.store.meters([3, 4])
    opened = await Writer(backend.store).batch(authorise("a"))
    over = Count(3, held=D(41), guarded=True)
    await refused(backend, counting(opened, meters, over), GuardRefused)
    await refused(backend, counting(opened, meters, Count(4, held=D(1)), over), GuardRefused)
    await backend.store.apply(
        counting(opened, meters, Count(3, used=D(41)), Count(4, held=D(10**9), guarded=True))
    )
    assert backend.meters()[3].left == D(-1)


async def test_a_cap_that_is_exactly_reached_is_not_passed(backend: Backend) -> None:
    backend.add_meter(3, cap=D(100))
    meters = await backend.store.meters([3])
    opened = await Writer(backend.store).batch(authorise("a"))
    await backend.store.apply(counting(opened, meters, Count(3, held=D(100), guarded=True)))
    assert backend.meters()[3].left == 0


async def test_two_stores_race_for_the_last_units_of_a_meter(backend: Backend) -> None:
    """Thirty-two batches, each on what its store last saw: what they take together is the cap."""
    backend.add_meter(3, cap=D(100))
    stores = [backend.store, backend.another()]
    writers = [Writer(store, seed) for seed, store in enumerate(stores)]
    taken: list[int] = []

    async def take(number: int, units: int) -> None:
        store = stores[number]
        for attempt in range(16):
            meters = await store.meters([3])
            if meters[3].left < units:
                return
            name = f"{number}-{units}-{attempt}"
            opened = await writers[number].batch(authorise(name, seconds=1))
            count = Count(3, used=D(units), guarded=True)
            try:
                await store.apply(counting(opened, meters, count))
            except StaleRead:
                continue
            taken.append(units)
            return

    async def one_after_the_other(number: int) -> None:
        for units in range(1, 17):
            await take(number, units)

    await asyncio.gather(*(one_after_the_other(number) for number in range(2)))
    meter = backend.meters()[3]
    assert meter.used == sum(taken)
    assert meter.stamp == len(taken)
    assert 100 - 16 < sum(taken) <= 100


async def test_meters_under_lock_make_others_wait(backend: Backend) -> None:
    """The second unit sees what the first one wrote, though they share no wallet."""
    backend.add_meter(3, cap=D(100))
    other = backend.another()

    async def second() -> Decimal:
        async with other.locked([2], [3]) as unit:
            return unit.meters[3].used

    async with backend.store.locked([1], [3]) as unit:
        waiting = asyncio.create_task(second())
        done, _ = await asyncio.wait([waiting], timeout=0.2)
        assert not done
        opened = Writer(backend.store).decide([authorise("a")], {}, unit.wallets, NOON)
        await unit.apply(counting(opened, unit.meters, Count(3, used=D(7))))
    assert await waiting == D(7)


async def test_what_is_set_aside_on_a_meter_is_never_less_than_nothing(backend: Backend) -> None:
    backend.add_meter(3)
    meters = await backend.store.meters([3])
    opened = await Writer(backend.store).batch(authorise("a"))
    with pytest.raises(Exception, match=r"meter_held_check|own checks"):
        await backend.store.apply(counting(opened, meters, Count(3, held=D(-1))))
    assert backend.meters() == meters


# --- charges and refunds -----------------------------------------------------------------------------


async def test_a_charge_is_kept_as_a_closed_session_with_its_answer(backend: Backend) -> None:
    writer = Writer(backend.store)
    batch = await writer.batch(charge("a"))
    assert [written.change for written in batch.written] == [Change.EVENT]
    await backend.store.apply(batch)
    session = await session_of(backend, "a")
    assert (session.state, session.ending, session.version) == (State.CLOSED, Ending.SETTLED, 1)
    known = (await backend.store.load(["switch/a"], NOON.date()))["switch/a"]
    assert known.messages["m1"].reply == batch.written[0].decision.reply
    entry = backend.snapshot().entries[-1]
    assert (entry.code, entry.debit_kind, entry.credit_kind) == ("usage", "wallet", "revenue")
    assert (entry.amount, entry.balance_after) == (D("0.10"), D("9.90"))
    wallet = (await backend.store.wallets([1]))[1]
    assert (wallet.held, wallet.live, wallet.balance) == (0, 0, D("9.90"))
    assert_books_are_sound(backend)


@pytest.mark.parametrize("first", ["charge", "call", "closed call"])
async def test_an_id_in_use_is_not_charged(backend: Backend, first: str) -> None:
    writer = Writer(backend.store)
    again = await writer.batch(charge("a"))
    await writer.write(charge("a") if first == "charge" else authorise("a"))
    if first == "closed call":
        await writer.write(Stop("switch/a", 0))
    fresh = writer.decide([charge("a")], {}, await backend.store.wallets([1]), NOON)
    await refused(backend, again)
    await refused(backend, fresh)
    assert_books_are_sound(backend)


async def test_a_charge_beyond_the_money_is_refused_by_the_store_itself(backend: Backend) -> None:
    wallets = await backend.store.wallets([2])
    rich = {2: msgspec.structs.replace(wallets[2], credited=D(10))}
    batch = Writer(backend.store).decide([charge("a", wallet=2)], {}, rich, NOON)
    assert batch.guarded == {2}
    await refused(backend, batch, GuardRefused)


async def test_a_refund_is_written_to_the_closed_session(backend: Backend) -> None:
    """The money comes back from where it went; the session says so, and is refunded once."""
    writer = Writer(backend.store)
    await writer.write(charge("a"))
    again = await writer.batch(Refund("switch/a", why="undelivered"))
    batch = await writer.batch(Refund("switch/a", why="undelivered"))
    assert [written.change for written in batch.written] == [Change.LATE]
    await backend.store.apply(batch)
    entry = backend.snapshot().entries[-1]
    assert (entry.code, entry.debit_kind, entry.credit_kind) == ("refund", "revenue", "wallet")
    assert (entry.amount, entry.balance_after) == (D("0.10"), D(10))
    session = await session_of(backend, "a")
    assert (session.version, session.legs[0].charged) == (2, 0)
    await refused(backend, again)
    assert (await writer.batch(Refund("switch/a", why="undelivered"))).written == []
    assert_books_are_sound(backend)


async def test_charges_calls_and_meters_go_into_one_batch(backend: Backend) -> None:
    backend.add_meter(3, cap=D(100))
    writer = Writer(backend.store)
    await writer.write(authorise("a", seconds=60), charge("b"))
    batch = await writer.batch(
        Refund("switch/b", 1), Start("switch/a"), charge("c"), charge("d", wallet=2)
    )
    changes = [written.change for written in batch.written]
    assert changes == [Change.LATE, Change.UPDATE, Change.EVENT, Change.REFUSE]
    meters = await backend.store.meters([3])
    await backend.store.apply(counting(batch, meters, Count(3, used=D(2), guarded=True)))
    assert backend.meters()[3].used == 2
    wallet = (await backend.store.wallets([1]))[1]
    assert (wallet.balance, wallet.held) == (D("9.85"), D("0.60"))
