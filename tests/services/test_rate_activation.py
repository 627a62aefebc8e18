"""Versions of a rate card: activated once, rolled back as they were, and safe in races."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from decimal import Decimal

import psycopg
import pytest

from tests.services.rate_cards import (
    FIRST,
    LATER,
    NOW,
    activate,
    load,
    load_active,
    price_of,
    rows_in,
    with_card,
)
from tollkeeper.errors import Conflict
from tollkeeper.services import rates
from tollkeeper.services.rates import RateVersion
from tollkeeper.store.db import Database
from tollkeeper.store.rates import active_versions


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    async with with_card(database_url) as opened:
        yield opened


async def test_a_version_is_activated_once(database: Database) -> None:
    await load_active(database, FIRST)
    with pytest.raises(Conflict, match="already active"):
        await activate(database, 1)


async def test_of_two_who_activate_the_same_version_at_once_one_wins(database: Database) -> None:
    await load(database, FIRST)
    outcomes = await asyncio.gather(
        *(activate(database, 1) for _ in range(5)), return_exceptions=True
    )
    lost = [outcome for outcome in outcomes if isinstance(outcome, Conflict)]
    assert (len(outcomes), len(lost)) == (5, 4)
    assert {error.code for error in lost} == {"already_active"}


async def test_of_two_drafts_activated_at_once_the_second_is_told_its_base_has_changed(
    database: Database,
) -> None:
    await load_active(database, FIRST)
    for price in (b"0.03", b"0.04"):
        await load(database, FIRST.replace(b"0.02", price))
    outcomes = await asyncio.gather(
        activate(database, 2), activate(database, 3), return_exceptions=True
    )
    (lost,) = [outcome for outcome in outcomes if isinstance(outcome, Conflict)]
    (won,) = [outcome for outcome in outcomes if isinstance(outcome, RateVersion)]
    assert lost.code == "base_changed"
    assert f"version {won.version} is active now" in lost.detail
    (card,) = await rates.list_cards(database)
    assert card.active_version == won.version
    other = 5 - won.version
    forced = await activate(database, other, force=True)
    assert (forced.status, forced.replaced_version) == ("active", won.version)


async def test_rolling_back_returns_to_the_version_before_as_it_was(
    database: Database, database_url: str
) -> None:
    await load_active(database, FIRST)
    before = rows_in(database_url, "SELECT * FROM rate_row WHERE version_id = 1 ORDER BY row_no")
    await load_active(database, FIRST.replace(b"0.02", b"0.03"))
    await load_active(database, FIRST.replace(b"0.02", b"0.04"))
    for version, price in ((2, "0.03"), (1, "0.02")):
        made = await rates.roll_back(database, card="retail", actor="test", now=LATER)
        assert (made.version, made.status) == (version, "active")
        assert await price_of(database, "442071838750") == Decimal(price)
    with pytest.raises(Conflict) as caught:
        await rates.roll_back(database, card="retail", actor="test", now=LATER)
    assert caught.value.code == "nothing_to_roll_back"
    after = rows_in(database_url, "SELECT * FROM rate_row WHERE version_id = 1 ORDER BY row_no")
    assert after == before
    with pytest.raises(Conflict, match="roll back to return to it"):
        await activate(database, 3)


async def test_a_version_that_was_rolled_back_is_not_what_a_later_one_returns_to(
    database: Database,
) -> None:
    await load_active(database, FIRST)
    await load_active(database, FIRST.replace(b"0.02", b"0.03"))
    await rates.roll_back(database, card="retail", actor="test", now=NOW)
    await load_active(database, FIRST.replace(b"0.02", b"0.04"))
    made = await rates.roll_back(database, card="retail", actor="test", now=NOW)
    assert made.version == 1


async def test_two_who_roll_back_the_same_version_go_back_one_step_only(
    database: Database,
) -> None:
    for price in (b"0.02", b"0.03", b"0.04"):
        await load_active(database, FIRST.replace(b"0.02", price))
    outcomes = await asyncio.gather(
        *(
            rates.roll_back(database, card="retail", actor="test", now=NOW, expected=3)
            for _ in range(2)
        ),
        return_exceptions=True,
    )
    (lost,) = [outcome for outcome in outcomes if isinstance(outcome, Conflict)]
    assert lost.code == "active_changed"
    (card,) = await rates.list_cards(database)
    assert card.active_version == 2


async def test_an_activation_is_announced_and_written_down(
    database: Database, database_url: str
) -> None:
    await load(database, FIRST)
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as listener:
        await listener.execute("LISTEN tollkeeper")
        await activate(database, 1)
        heard = [notice.payload async for notice in listener.notifies(timeout=5, stop_after=1)]
    async with database.read() as connection:
        (card_id,) = await active_versions(connection)
    assert heard == [f"card:{card_id}"]
    trail = rows_in(database_url, "SELECT actor, action, subject FROM audit ORDER BY id")
    assert trail == [
        ("test", "card.create", "card retail"),
        ("test", "card.import", "card retail"),
        ("test", "card.activate", "card retail"),
    ]
