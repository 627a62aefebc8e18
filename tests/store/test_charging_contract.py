"""What the lane relies on in a store: the same tests for the one in memory and for PostgreSQL."""

from __future__ import annotations

import asyncio
import random
from datetime import timedelta
from decimal import Decimal

import msgspec
import pytest

from tests.core.world import pin_of
from tests.store.charging_backends import NOON, Backend, MemoryBackend, PostgresBackend
from tests.store.charging_writer import (
    Writer,
    assert_books_are_sound,
    authorise,
    charge,
    ordered,
    refused,
    session_of,
)
from tollkeeper.core.audit import audit
from tollkeeper.core.batch import Batch, Change, GuardRefused, StaleRead
from tollkeeper.core.rating import Tariff
from tollkeeper.core.reasons import Reason
from tollkeeper.core.records import (
    Command,
    Expire,
    Kill,
    Offer,
    Role,
    Start,
    Stop,
    Update,
)

D = Decimal
TODAY = NOON.date()


# --- reading and writing sessions ----------------------------------------------------------------


async def test_an_opened_session_is_found_with_its_message_and_answer(backend: Backend) -> None:
    batch = await Writer(backend.store).batch(authorise("a"))
    await backend.store.apply(batch)
    found = await backend.store.load(["switch/a", "switch/b"], TODAY)
    assert set(found) == {"switch/a"}
    assert found["switch/a"].session == batch.written[0].decision.session
    answered = found["switch/a"].messages["m1"]
    assert (answered.digest, answered.reply) == ("d1", batch.written[0].decision.reply)
    wallet = (await backend.store.wallets([1]))[1]
    assert (wallet.held, wallet.live, wallet.available) == (D(3), 1, D(7))
    assert_books_are_sound(backend)


async def test_a_wallet_that_is_not_there_is_left_out(backend: Backend) -> None:
    assert set(await backend.store.wallets([1, 2, 99])) == {1, 2}
    async with backend.store.locked([1, 99]) as unit:
        assert set(unit.wallets) == {1}


async def test_the_whole_life_of_a_session_is_kept(backend: Backend) -> None:
    writer = Writer(backend.store)
    for command in (
        authorise("a"),
        Start("switch/a"),
        Update("switch/a", 60_000),
        Kill("switch/a", 'it\'s "odd" \\ {,}'),
        Stop("switch/a", 90_000, "16"),
        Update("switch/a", 100_000),
    ):
        await writer.write(command)
    session = await session_of(backend, "a")
    assert (session.version, session.legs[0].charged) == (6, D("1.00"))
    books = backend.snapshot()
    assert [(e.code, e.amount, e.wallet_version, e.balance_after) for e in books.entries] == [
        ("topup", D(10), 1, D(10)),
        ("usage", D("0.90"), 2, D("9.10")),
        ("late", D("0.10"), 3, D("9.00")),
    ]
    assert [kind for kind, _, _ in backend.outbox()] == ["session.kill", "session.late"]
    assert backend.outbox()[0][2] == 'it\'s "odd" \\ {,}'
    assert_books_are_sound(backend)


async def test_a_refusal_is_kept_and_found_again(backend: Backend) -> None:
    await Writer(backend.store).write(authorise("a", wallet=2))
    session = await session_of(backend, "a")
    assert session.reason is Reason.INSUFFICIENT_FUNDS
    assert_books_are_sound(backend)


async def test_many_kinds_of_change_go_into_one_batch(backend: Backend) -> None:
    writer = Writer(backend.store)
    await writer.write(*[authorise(name, seconds=50) for name in "abcd"])
    await writer.write(Stop("switch/d", 10_000))
    batch = await writer.batch(
        Stop("switch/a", 20_000),
        Start("switch/b"),
        Update("switch/c", 30_000),
        Stop("switch/d", 12_000),
        authorise("e"),
        authorise("f", wallet=2),
        charge("g"),
    )
    assert {written.change for written in batch.written} == set(Change)
    await backend.store.apply(batch)
    assert_books_are_sound(backend)


# --- what has changed since is noticed, and then nothing is written --------------------------------


async def test_a_wallet_that_has_changed_stops_the_batch(backend: Backend) -> None:
    batch = await Writer(backend.store).batch(authorise("a"))
    backend.change_wallet(1, credit_limit=D(5))
    await refused(backend, batch)


async def test_a_session_that_has_changed_stops_the_batch(backend: Backend) -> None:
    writer = Writer(backend.store)
    await writer.write(authorise("a"))
    batches = [
        await writer.batch(command)
        for command in (Start("switch/a"), Kill("switch/a", "x"), Stop("switch/a", 1000))
    ]
    await writer.write(Start("switch/a"))
    for batch in batches:
        await refused(backend, batch)


async def test_a_closed_session_that_has_changed_stops_the_batch(backend: Backend) -> None:
    """More usage within the same minute costs nothing more: no wallet is touched that could tell."""
    writer = Writer(backend.store)
    by_minute = Offer(Role.CUSTOMER, 1, 1, pin_of(Tariff(D("0.60"), D("0.60"), 60, 60)))
    await writer.write(authorise("a", offers=(by_minute,)))
    await writer.write(Stop("switch/a", 1000))
    batch = await writer.batch(Stop("switch/a", 2000))
    late = msgspec.structs.replace(batch, before={}, after={})
    await backend.store.apply(batch)
    await refused(backend, late)


async def test_a_session_closed_elsewhere_is_not_closed_again(backend: Backend) -> None:
    writer = Writer(backend.store)
    await writer.write(authorise("a"))
    stop = await writer.batch(Stop("switch/a", 1000))
    expire = await writer.batch(Expire("switch/a"), now=NOON + timedelta(hours=1))
    await backend.store.apply(stop)
    await refused(backend, expire)
    assert_books_are_sound(backend)


@pytest.mark.parametrize("end", [None, Stop("switch/a", 0)])
@pytest.mark.parametrize("wallet", [1, 2])
async def test_an_id_in_use_is_not_opened_or_refused_again(
    backend: Backend, end: Command | None, wallet: int
) -> None:
    """Whether the session of that id is live or closed, and whether a grant or a refusal comes."""
    writer = Writer(backend.store)
    again = await writer.batch(authorise("a", wallet=wallet))
    await writer.write(authorise("a", seconds=20))
    if end is not None:
        await writer.write(end)
    wallets = await backend.store.wallets([wallet])
    fresh = writer.decide([authorise("a", wallet=wallet)], {}, wallets, NOON)
    await refused(backend, again)
    await refused(backend, fresh)


async def test_one_stale_session_stops_the_whole_batch(backend: Backend) -> None:
    writer = Writer(backend.store)
    await writer.write(authorise("a"), authorise("b"))
    batch = await writer.batch(Stop("switch/a", 5000), Start("switch/b"), authorise("c"))
    await writer.write(Start("switch/b"))
    await refused(backend, batch)


async def test_f22_an_id_may_be_used_again_when_its_day_is_long_over(backend: Backend) -> None:
    """The session of two days ago is found only where it is asked for, and the newest wins."""
    writer, before = Writer(backend.store), NOON - timedelta(days=2)
    await writer.write(authorise("a"), now=before)
    await writer.write(Stop("switch/a", 5000), now=before)
    since = TODAY - timedelta(days=1)
    assert await backend.store.load(["switch/a"], since) == {}
    old = await backend.store.load(["switch/a"], since, everywhere=["switch/a"])
    assert old["switch/a"].session.opened_at == before
    assert set(old["switch/a"].messages) == {"m1", "m2"}
    wallets = await backend.store.wallets([1])
    await backend.store.apply(writer.decide([authorise("a")], {}, wallets, NOON))
    assert (await session_of(backend, "a")).opened_at == NOON
    await writer.write(Stop("switch/a", 7000))
    assert (await session_of(backend, "a")).used_ms == 7000
    assert_books_are_sound(backend)


async def test_an_id_of_yesterday_is_not_used_again(backend: Backend) -> None:
    writer, yesterday = Writer(backend.store), NOON - timedelta(days=1)
    await writer.write(authorise("a"), now=yesterday)
    await writer.write(Stop("switch/a", 5000), now=yesterday)
    found = await backend.store.load(["switch/a"], yesterday.date())
    assert found["switch/a"].session.used_ms == 5000
    wallets = await backend.store.wallets([1])
    await refused(backend, writer.decide([authorise("a")], {}, wallets, NOON))


async def test_a_call_over_midnight_is_one_session(backend: Backend) -> None:
    writer, late = Writer(backend.store), NOON + timedelta(hours=11, minutes=59)
    await writer.write(authorise("a"), now=late)
    tomorrow = late + timedelta(minutes=3)
    await writer.write(Stop("switch/a", 90_000), now=tomorrow)
    await writer.write(Stop("switch/a", 95_000), now=tomorrow)
    assert (await session_of(backend, "a")).legs[0].charged == D("0.95")
    assert_books_are_sound(backend)


# --- the last guard --------------------------------------------------------------------------------


async def test_holds_beyond_the_money_are_refused_by_the_store_itself(backend: Backend) -> None:
    """Even if the deciding were wrong: here it believes in money that is not there."""
    writer = Writer(backend.store)
    wallets = await backend.store.wallets([2])
    rich = {2: msgspec.structs.replace(wallets[2], credited=D(10))}
    batch = writer.decide([authorise("a", wallet=2)], {}, rich, NOON)
    assert batch.guarded == {2}
    await refused(backend, batch, GuardRefused)


async def test_what_was_used_is_taken_even_below_zero(backend: Backend) -> None:
    writer = Writer(backend.store)
    await writer.write(authorise("a", seconds=1000))
    await writer.write(Stop("switch/a", 1_100_000))
    wallet = (await backend.store.wallets([1]))[1]
    assert wallet.available == D("-1.00")
    assert_books_are_sound(backend)


# --- wallets under lock ------------------------------------------------------------------------------


async def test_a_locked_unit_writes_when_its_block_ends(backend: Backend) -> None:
    async with backend.store.locked([1, 2]) as unit:
        batch = Writer(backend.store).decide([authorise("a")], {}, {1: unit.wallets[1]}, NOON)
        await unit.apply(batch)
    assert (await session_of(backend, "a")).open
    assert_books_are_sound(backend)


async def _fail(backend: Backend, batch: Batch) -> None:
    """Write a batch under lock and then come to grief before the commit."""

    async def write_and_fail() -> None:
        async with backend.store.locked(sorted(batch.after)) as unit:
            await unit.apply(batch)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await write_and_fail()


async def test_a_locked_unit_that_fails_leaves_no_trace(backend: Backend) -> None:
    before = ordered(backend.snapshot())
    wallets = await backend.store.wallets([1])
    await _fail(backend, Writer(backend.store).decide([authorise("a")], {}, wallets, NOON))
    assert ordered(backend.snapshot()) == before


async def test_a_wallet_under_lock_makes_others_wait(backend: Backend) -> None:
    """The second unit sees what the first one wrote."""
    other, order = backend.another(), []

    async def second() -> D:
        async with other.locked([1, 2]) as unit:
            order.append("second")
            return unit.wallets[1].held

    async with backend.store.locked([1]) as unit:
        waiting = asyncio.create_task(second())
        done, _ = await asyncio.wait([waiting], timeout=0.2)
        assert not done
        order.append("first")
        await unit.apply(Writer(backend.store).decide([authorise("a")], {}, unit.wallets, NOON))
    assert await waiting == D(3)
    assert order == ["first", "second"]


async def test_a_revenue_account_first_named_in_a_failed_unit_is_named_again(
    backend: Backend,
) -> None:
    """What a rolled back transaction has created must not be remembered as if it were there."""
    writer = Writer(backend.store)
    await writer.write(authorise("a", service="rare"))
    stop = await writer.batch(Stop("switch/a", 1000))
    await _fail(backend, stop)
    await backend.store.apply(stop)
    assert len(backend.snapshot().entries) == 2
    assert_books_are_sound(backend)


# --- step by step the same ---------------------------------------------------------------------------


def _random_command(chance: random.Random, names: list[str]) -> Command:
    key = f"switch/{chance.choice(names)}"
    used = chance.choice([0, 1000, 30_000, 77_500, 400_000])
    return chance.choice(
        [
            authorise(key.partition("/")[2], chance.choice([1, 2]), chance.choice([60, 300, 900])),
            Start(key),
            Update(key, used),
            Stop(key, used),
            Kill(key, "why"),
            Expire(key),
        ]
    )


@pytest.mark.parametrize("seed", range(6))
async def test_both_stores_do_the_same_step_by_step(database_url: str, seed: int) -> None:
    """Random batches, a third of them stale: both take or refuse them alike, and end alike."""
    chance, names = random.Random(seed), [f"s{n}" for n in range(12)]
    memory, postgres = MemoryBackend(), PostgresBackend(database_url)
    for made in (memory, postgres):
        made.add_wallet(1, D(20))
        made.add_wallet(2, D(3))
    writer, now, kept, refusals = Writer(memory.store, seed), NOON, [], 0
    for _ in range(60):
        now += timedelta(seconds=chance.randint(0, 400))
        commands = {c.key: c for c in (_random_command(chance, names) for _ in range(5))}
        batch = await writer.batch(*commands.values(), now=now)
        kept.append(batch)
        if chance.random() < 0.3:
            batch = chance.choice(kept[-4:])
        if chance.random() < 0.1:
            limit = D(chance.randint(0, 3))
            for made in (memory, postgres):
                made.change_wallet(2, credit_limit=limit)
        ends = [await _end(made.store, batch) for made in (memory, postgres)]
        assert ends[0] == ends[1]
        refusals += ends[0] is not None
    await postgres.close()
    assert refusals > 3
    assert ordered(memory.snapshot()) == ordered(postgres.snapshot())
    assert memory.outbox() == postgres.outbox()
    assert audit(memory.snapshot(), now, timedelta(days=9)) == []


async def _end(store: object, batch: Batch) -> type[Exception] | None:
    try:
        await store.apply(batch)  # type: ignore[attr-defined]
    except StaleRead as error:
        return type(error)
    return None
