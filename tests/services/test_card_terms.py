"""Calling cards as time goes by: maintenance fees, and what becomes of the money at the end."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal

import pytest

from tests.services.cards_world import access, card_row, make, terms_of
from tests.services.money_world import CENT_A_SECOND, Clock, answered, call, goes_on, prove, stop
from tests.support import World, runtime
from tollkeeper.core.reasons import Reason
from tollkeeper.core.records import Outcome
from tollkeeper.errors import Conflict
from tollkeeper.services import wallets

D = Decimal


@pytest.fixture
def world(database_url: str) -> Iterator[World]:
    """The operator alone, with days to come in which money can be booked."""
    with World(database_url) as made:
        made.sql("SELECT ensure_partitions((now() AT TIME ZONE 'UTC')::date - 3, 60)")
        yield made


# --- the end -------------------------------------------------------------------------------------


async def test_an_expired_card_is_refused_where_calls_are_authorised(world: World) -> None:
    """By its date alone, before any job has looked; a call that is up goes on."""
    clock = Clock()
    async with runtime(world.url, clock=clock) as parts:
        card, fresh = (await make(parts, valid_days=1)).cards
        await access(parts, card.pin)
        clock.forward(hours=23, minutes=58)
        assert (await call(parts, "a", 60, card.code)).outcome is Outcome.GRANTED
        await answered(parts, "a")
        clock.forward(minutes=3)
        refused = await call(parts, "b", 60, card.code)
        assert refused.reason is Reason.CARD_EXPIRED
        with pytest.raises(Conflict) as error:
            await access(parts, card.pin)
        assert error.value.code == "card_expired"
        assert (await goes_on(parts, "a", 60)).granted_seconds == 120
        terms = terms_of(parts)
        assert await terms.expire() == 1
        assert await terms.settle() == 0, "not while a call is up"
        await stop(parts, "a", 100)
        assert await terms.settle() == 1
        row = card_row(world, card.code)
        assert (row["status"], row["balance"], row["unsettled"]) == ("expired", 0, False)
        (entry,) = world.sql("SELECT * FROM entry WHERE code = 'withdrawal'")
        assert entry["amount"] == 2
        clock.forward(days=400)
        with pytest.raises(Conflict, match="this card was good until"):
            await access(parts, fresh.pin)
        assert await terms.expire() == 1
        assert await terms.settle() == 0
        await prove(parts)


async def test_what_is_left_stays_on_cards_that_keep_it(world: World) -> None:
    clock = Clock()
    async with runtime(world.url, clock=clock) as parts:
        card = (await make(parts, on_expiry="keep")).cards[0]
        await access(parts, card.pin)
        clock.forward(days=31)
        terms = terms_of(parts)
        assert (await terms.expire(), await terms.settle(), await terms.settle()) == (1, 1, 0)
        assert card_row(world, card.code)["balance"] == 3
        await prove(parts)


# --- fees ----------------------------------------------------------------------------------------


async def test_a_fee_is_due_every_so_many_days_after_the_first_use(world: World) -> None:
    """Once each, however many look; an unused card pays none; the last one takes what is left."""
    clock = Clock()
    async with runtime(world.url, clock=clock) as parts:
        card, _ = (await make(parts, fee_amount=D("1.2"), fee_days=7, valid_days=300)).cards
        clock.forward(days=20)
        terms = terms_of(parts)
        assert await terms.take_fees() == 0
        await access(parts, card.pin)
        clock.forward(days=6)
        assert await terms.take_fees() == 0
        clock.forward(days=1)
        await asyncio.gather(*(terms.take_fees() for _ in range(8)))
        assert card_row(world, card.code)["balance"] == D("1.8")
        clock.forward(days=14)
        while await terms.take_fees():
            pass
        row = card_row(world, card.code)
        assert (row["balance"], row["fees"], row["status"]) == (0, 3, "used_up")
        assert row["next_fee_at"] - row["first_used_at"] == timedelta(days=28)
        told = await access(parts, card.pin, called=CENT_A_SECOND)
        assert (told.card.status, told.seconds) == ("used_up", 0)
        charged = world.sql(
            "SELECT key, body::text FROM closed_session WHERE key LIKE 'cards/%%' ORDER BY key"
        )
        assert [row["key"] for row in charged] == [f"cards/{row['id']}-{n}" for n in (1, 2, 3)]
        await wallets.top_up(
            parts.database, party=card.code, currency="USD", amount=D(5), reason="x", actor="t",
            clock=clock,
        )  # fmt: skip
        told = await access(parts, card.pin, called=CENT_A_SECOND)
        assert (told.card.status, told.seconds) == ("active", 500)
        await prove(parts)


async def test_the_rest_is_not_taken_from_under_a_call_that_is_up(world: World) -> None:
    clock = Clock()
    async with runtime(world.url, clock=clock) as parts:
        card = (await make(parts, fee_amount=D(2), fee_days=1)).cards[0]
        await access(parts, card.pin)
        clock.forward(hours=23, minutes=59)
        await call(parts, "a", 200, card.code)
        await answered(parts, "a")
        clock.forward(minutes=1)
        terms = terms_of(parts)
        assert await terms.take_fees() == 1
        row = card_row(world, card.code)
        assert (row["balance"], row["fees"], row["status"]) == (3, 0, "active")
        await stop(parts, "a", 150)
        clock.forward(minutes=1, seconds=1)
        assert await terms.take_fees() == 1
        row = card_row(world, card.code)
        assert (row["balance"], row["fees"], row["status"]) == (0, 1, "used_up")
        assert world.one("SELECT amount FROM entry WHERE code = 'adjust_down'") == D("1.5")
        await prove(parts)
