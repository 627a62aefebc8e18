"""Calling cards: PINs that are shown once, money at the first use, one call at a time, fees, the end."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from tests.services.cards_world import access, card_row, cards_of, id_of, make, terms_of
from tests.services.money_world import CENT_A_SECOND, Clock, answered, call, prove, stop
from tests.support import UNSOLD, World, runtime
from tollkeeper.core.cards import digits_for, make_pin, read_pin
from tollkeeper.core.reasons import Reason
from tollkeeper.core.records import Outcome
from tollkeeper.errors import Conflict, InvalidInput, NotFound
from tollkeeper.services import card_batches, wallets

D = Decimal
CALLER = "442071230000"


@pytest.fixture
def world(database_url: str) -> Iterator[World]:
    """A reseller, north, with 25 and the plan that it buys by; acme beside it."""
    with World(database_url) as made:
        made.reseller("north", balance="25")
        made.customer("acme")
        made.sql("SELECT ensure_partitions((now() AT TIME ZONE 'UTC')::date - 3, 60)")
        yield made


def wrong_pins(count: int) -> list[str]:
    return [make_pin(number, 12) for number in range(count)]


# --- PINs ----------------------------------------------------------------------------------------


def test_a_pin_is_read_as_it_is_keyed_and_a_slip_is_found() -> None:
    pin = make_pin(12345678901, 12)
    assert len(pin) == 12
    assert read_pin(f" {pin[:4]}-{pin[4:8]} {pin[8:]}") == pin
    for place in range(12):
        slip = pin[:place] + str((int(pin[place]) + 1) % 10) + pin[place + 1 :]
        assert read_pin(slip) is None
    assert read_pin("123456789") is None
    assert read_pin("٠" * 12) is None


def test_many_cards_need_long_pins() -> None:
    """One PIN in ten millions is good, so that guessing is no way to make calls."""
    assert [digits_for(count) for count in (1, 100, 101, 1000, 1001, 10_000)] == [
        10, 10, 11, 11, 12, 12,
    ]  # fmt: skip


# --- make and use --------------------------------------------------------------------------------


async def test_a_card_has_its_money_and_its_validity_from_the_first_use_on(world: World) -> None:
    clock = Clock()
    async with runtime(world.url, clock=clock) as parts:
        made = await make(parts)
        card = made.cards[0]
        assert (card.code, card.serial, len(card.pin)) == ("gold-00001", 1, 12)
        assert card_row(world, card.code)["balance"] == 0
        clock.forward(days=20)
        used = await access(parts, card.pin, called=CENT_A_SECOND)
        assert used.first_use
        assert (used.card.status, used.card.balance, used.seconds) == ("active", 3, 300)
        lasts = used.card.expires_at - clock()
        assert timedelta(days=30, seconds=-5) < lasts <= timedelta(days=30)
        clock.forward(days=1)
        again = await access(parts, card.pin)
        assert (again.first_use, again.card.balance, again.seconds) == (False, 3, None)
        assert again.card.expires_at == used.card.expires_at
        (entry,) = world.sql("SELECT * FROM entry WHERE code = 'voucher'")
        assert entry["amount"] == 3
        (batch,) = await card_batches.list_batches(parts.database)
        assert (batch.cards, batch.unused, batch.used) == (2, 1, 1)
        await prove(parts)


async def test_no_pin_is_stored_anywhere(world: World) -> None:
    """Neither the cards, nor the audit trail, nor anything else knows one, after use and wrong tries."""
    async with runtime(world.url) as parts:
        made = await make(parts, count=20)
        await access(parts, made.cards[0].pin, caller=CALLER, remember=True)
        with pytest.raises(NotFound):
            await access(parts, wrong_pins(1)[0], caller=CALLER)
        tables = world.sql(
            "SELECT relname FROM pg_class WHERE relkind IN ('r', 'p') AND relnamespace = 'public'::regnamespace"
        )
        assert {"calling_card", "audit", "outbox", "pin_attempt"} <= {r["relname"] for r in tables}
        pins = [card.pin for card in made.cards] + wrong_pins(1)
        for row in tables:
            text = str(world.sql(f"SELECT t::text FROM {row['relname']} t"))
            assert not [pin for pin in pins if pin in text]
        hashes = {bytes(row["pin_hash"]) for row in world.sql("SELECT pin_hash FROM calling_card")}
        assert {len(one) for one in hashes} == {32}
        assert len(hashes) == 20


async def test_ten_thousand_cards_are_made_with_a_pin_each(world: World) -> None:
    async with runtime(world.url) as parts:
        made = await make(parts, count=10_000)
        assert len({card.pin for card in made.cards}) == 10_000
        assert (
            world.one("SELECT count(*) FROM wallet w JOIN calling_card c USING (party_id)")
            == 10_000
        )
        assert made.batch.unused == 10_000
        await parts.directory.load()
        with pytest.raises(NotFound):
            parts.directory.party(made.cards[0].code)  # until it is used it is nobody
        used = await access(parts, made.cards[-1].pin)
        assert used.card.code == "gold-10000"


async def test_a_cards_calls_are_those_of_any_party_and_one_at_a_time(world: World) -> None:
    """32 calls of one card at once: one is granted, whatever its money would cover."""
    async with runtime(world.url) as parts:
        card = (await make(parts)).cards[0]
        await access(parts, card.pin)
        replies = await asyncio.gather(*(call(parts, f"c{n}", 10, card.code) for n in range(32)))
        granted = [n for n, reply in enumerate(replies) if reply.outcome is Outcome.GRANTED]
        assert len(granted) == 1
        assert {r.reason for r in replies} == {Reason.NONE, Reason.CONCURRENCY_LIMIT}
        name = f"c{granted[0]}"
        await answered(parts, name)
        done = await stop(parts, name, 10)
        assert done.charge == D("0.1")
        assert (await call(parts, "next", 10, card.code)).outcome is Outcome.GRANTED
        await prove(parts)


async def test_what_is_announced_counts_what_a_live_call_holds(world: World) -> None:
    async with runtime(world.url) as parts:
        card = (await make(parts)).cards[0]
        await access(parts, card.pin)
        await call(parts, "a", 100, card.code)
        told = await access(parts, card.pin, called=CENT_A_SECOND)
        assert (told.card.balance, told.card.available, told.seconds) == (3, 2, 200)
        told = await access(parts, card.pin, called=UNSOLD)
        assert (told.seconds, told.reason) == (0, "no_rate")


async def test_clients_that_race_for_the_first_use_put_the_money_in_once(world: World) -> None:
    async with runtime(world.url) as parts:
        card = (await make(parts)).cards[0]
        found = await asyncio.gather(*(access(parts, card.pin) for _ in range(32)))
        assert sum(one.first_use for one in found) == 1
        assert {one.card.balance for one in found} == {D(3)}
        await prove(parts)


# --- callers -------------------------------------------------------------------------------------


async def test_a_caller_that_is_remembered_needs_no_pin(world: World) -> None:
    async with runtime(world.url) as parts:
        one, two = (await make(parts)).cards
        with pytest.raises(NotFound) as unknown:
            await access(parts, caller=CALLER)
        assert unknown.value.code == "unknown_caller"
        await access(parts, one.pin, caller=f"+{CALLER}", remember=True)
        assert (await access(parts, caller=CALLER)).card.code == one.code
        await access(parts, two.pin, caller=CALLER, remember=True)
        found = await access(parts, caller=CALLER, called=CENT_A_SECOND)
        assert (found.card.code, found.card.callers) == (two.code, [CALLER])
        changed = await card_batches.change_card(
            parts.database, two.code, callers=[], actor="t", clock=parts.clock
        )
        assert changed.callers == []
        with pytest.raises(NotFound):
            await access(parts, caller=CALLER)


async def test_a_number_may_be_known_to_several_sellers(world: World) -> None:
    """Who asks for all of them says whose card it is; who asks for one seller is told of that one only."""
    north = id_of(world, "north")
    world.sql("UPDATE rate_plan SET owner_id = NULL")
    async with runtime(world.url) as parts:
        ours = (await make(parts)).cards[0]
        theirs = (await make(parts, "blue", owner="north")).cards[0]
        await access(parts, ours.pin, caller=CALLER, remember=True)
        await access(parts, theirs.pin, caller=CALLER, remember=True, scope=north)
        with pytest.raises(Conflict) as both:
            await access(parts, caller=CALLER)
        assert both.value.code == "ambiguous_caller"
        assert (await access(parts, caller=CALLER, owner="north")).card.code == theirs.code
        assert (await access(parts, caller=CALLER, scope=north)).card.code == theirs.code


# --- guessing ------------------------------------------------------------------------------------


async def test_five_wrong_pins_lock_a_caller_and_no_other(world: World) -> None:
    clock = Clock()
    async with runtime(world.url, clock=clock) as parts:
        card = (await make(parts)).cards[0]
        for pin in wrong_pins(5):
            with pytest.raises(NotFound, match="there is no card with this PIN"):
                await access(parts, pin, caller=CALLER, key_id=1)
        with pytest.raises(Conflict, match="too many wrong PINs") as locked:
            await access(parts, card.pin, caller=CALLER, key_id=1)
        assert locked.value.code == "too_many_attempts"
        assert (await access(parts, card.pin, caller="442071230001", key_id=1)).first_use
        clock.forward(minutes=14)
        with pytest.raises(Conflict):
            await access(parts, card.pin, caller=CALLER, key_id=1)
        clock.forward(minutes=1, seconds=1)
        assert not (await access(parts, card.pin, caller=CALLER, key_id=1)).first_use


async def test_callers_that_give_no_number_are_one_caller(world: World) -> None:
    async with runtime(world.url) as parts:
        card = (await make(parts)).cards[0]
        for number, pin in enumerate(wrong_pins(5)):
            with pytest.raises(NotFound):
                await access(parts, pin, caller=("", "anonymous")[number % 2], key_id=1)
        with pytest.raises(Conflict):
            await access(parts, card.pin, key_id=1)
        assert (await access(parts, card.pin, key_id=2)).first_use


async def test_a_key_is_locked_when_many_callers_guess_through_it(world: World) -> None:
    """Another number for every guess does not help: a hundred wrong ones lock the key."""
    async with runtime(world.url) as parts:
        card = (await make(parts)).cards[0]
        for number, pin in enumerate(wrong_pins(100)):
            with pytest.raises(NotFound):
                await access(parts, pin, caller=str(442071230000 + number), key_id=1)
        with pytest.raises(Conflict) as locked:
            await access(parts, card.pin, caller="15551230000", key_id=1)
        assert locked.value.code == "too_many_attempts"
        assert (await access(parts, card.pin, caller="15551230000", key_id=2)).first_use


async def test_guesses_at_the_same_moment_are_counted_one_by_one(world: World) -> None:
    async with runtime(world.url) as parts:
        results = await asyncio.gather(
            *(access(parts, pin, caller=CALLER, key_id=1) for pin in wrong_pins(32)),
            return_exceptions=True,
        )
        kinds = [type(one) for one in results]
        assert (kinds.count(NotFound), kinds.count(Conflict)) == (5, 27)
        await cards_of(parts).forget_guesses()
        assert world.one("SELECT count(*) FROM pin_attempt") == 10


# --- when it is not to be ------------------------------------------------------------------------


async def test_blocked_cards_and_batches_make_no_calls(world: World) -> None:
    async with runtime(world.url) as parts:
        one, two = (await make(parts)).cards
        await access(parts, one.pin)

        async def refused(pin: str) -> str:
            with pytest.raises(Conflict) as error:
                await access(parts, pin)
            return error.value.code

        async def reason() -> Reason:
            await parts.directory.load()
            reply = await call(parts, f"s{next(names)}", 10, one.code)
            return Reason(reply.reason)

        names = iter(range(100))
        for blocked, expected in ((True, Reason.PARTY_SUSPENDED), (False, Reason.NONE)):
            card = await card_batches.change_card(
                parts.database, one.code, blocked=blocked, actor="t", clock=parts.clock
            )
            assert card.status == ("blocked" if blocked else "active")
            assert await reason() is expected
        await stop(parts, "s1", 0)
        await card_batches.set_batch_blocked(parts.database, "gold", blocked=True, actor="t")
        assert await refused(one.pin) == await refused(two.pin) == "card_blocked"
        assert await reason() is Reason.PARTY_SUSPENDED
        await card_batches.change_card(
            parts.database, two.code, blocked=True, actor="t", clock=parts.clock
        )
        await card_batches.set_batch_blocked(parts.database, "gold", blocked=False, actor="t")
        assert await reason() is Reason.NONE
        assert await refused(two.pin) == "card_blocked"


@pytest.mark.parametrize(
    ("field", "more"),
    [
        ("count", {"count": 0}),
        ("count", {"count": 10_001}),
        ("amount", {"amount": D(0)}),
        ("plan", {"plan": "nowhere"}),
        ("plan", {"currency": "EUR"}),
        ("valid_days", {"valid_days": 0}),
        ("pin_digits", {"pin_digits": 9}),
        ("pin_digits", {"pin_digits": 10, "count": 101}),
        ("pin_digits", {"pin_digits": 17}),
        ("fee_days", {"fee_amount": D(1)}),
        ("fee_amount", {"fee_amount": D(-1), "fee_days": 1}),
        ("owner", {"owner": "acme"}),
        ("on_expiry", {"on_expiry": "burn"}),
        ("code", {"code": "x" * 51}),
    ],
)
async def test_a_batch_out_of_bounds_is_refused(
    world: World, field: str, more: dict[str, Any]
) -> None:
    async with runtime(world.url) as parts:
        with pytest.raises(InvalidInput, match=rf"^{field}: "):
            await make(parts, **more)
        assert world.one("SELECT count(*) FROM party WHERE kind = 'card'") == 0


async def test_a_batch_whose_codes_are_taken_is_refused(world: World) -> None:
    async with runtime(world.url) as parts:
        with pytest.raises(InvalidInput, match=r"^expires_at: "):
            await make(parts, expires_at=parts.clock() - timedelta(seconds=1))
        await make(parts)
        with pytest.raises(Conflict) as taken:
            await make(parts)
        assert taken.value.code == "batch_exists"
        world.customer("blue-00002")
        with pytest.raises(Conflict, match='"blue-00002" of a card is taken'):
            await make(parts, "blue")


# --- a reseller's --------------------------------------------------------------------------------


async def test_a_resellers_card_is_paid_by_it_and_its_calls_are_charged_to_both(
    world: World,
) -> None:
    """25 in its wallet: two cards of 10 can be used; each call also costs the reseller what it buys for."""
    north = id_of(world, "north")
    shop = world.plan("shop", world.card("shop-usd"))
    world.sql("UPDATE rate_plan SET owner_id = %s WHERE id = %s", north, shop)
    clock = Clock()
    async with runtime(world.url, clock=clock) as parts:
        with pytest.raises(InvalidInput, match="there is no plan"):
            await make(parts, plan="retail", scope=north)
        made = await make(parts, plan="shop", amount=D(10), count=3, scope=north, valid_days=9)
        assert made.batch.owner == "north"
        for card in made.cards[:2]:
            await access(parts, card.pin, scope=north)
        with pytest.raises(Conflict) as refused:
            await access(parts, made.cards[2].pin, scope=north)
        assert refused.value.code == "card_not_covered"
        assert card_row(world, made.cards[2].code)["status"] == "unused"
        code = made.cards[0].code
        assert (await call(parts, "a", 100, code)).granted_seconds == 100
        await answered(parts, "a")
        await stop(parts, "a", 100)
        (wallet,) = await wallets.get_wallets(parts.database, "north")
        assert (wallet.balance, card_row(world, code)["balance"]) == (4, 9)
        clock.forward(days=10)
        terms = terms_of(parts)
        assert (await terms.expire(), await terms.settle()) == (2, 2)
        (wallet,) = await wallets.get_wallets(parts.database, "north")
        assert wallet.balance == 23
        await prove(parts)


async def test_a_resellers_cards_do_not_exist_for_others(world: World) -> None:
    north = id_of(world, "north")
    south = world.reseller("south").id
    async with runtime(world.url) as parts:
        card = (await make(parts, owner="north")).cards[0]
        with pytest.raises(NotFound, match="there is no card with this PIN"):
            await access(parts, card.pin, scope=south)
        for scope in (south, id_of(world, "acme")):
            with pytest.raises(NotFound):
                await card_batches.get_batch(parts.database, "gold", scope=scope)
            with pytest.raises(NotFound):
                await card_batches.change_card(
                    parts.database, card.code, blocked=True, actor="t", clock=parts.clock, scope=scope
                )  # fmt: skip
            assert await card_batches.list_cards(parts.database, scope=scope) == []
        seen = await card_batches.list_cards(parts.database, batch="gold", scope=north)
        assert [one.code for one in seen] == ["gold-00001", "gold-00002"]
