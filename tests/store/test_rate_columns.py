"""A version's rows as columns are the same rows."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import numpy as np
import pytest

from tests.support import World
from tollkeeper.bulk.book import RateColumns
from tollkeeper.core.rating import Tariff
from tollkeeper.core.tariff import RateRow
from tollkeeper.store import rate_columns, rates
from tollkeeper.store.db import Database

SINCE = datetime(2026, 2, 1, 3, 4, 5, 678901, tzinfo=UTC)


@pytest.fixture
def world(database_url: str) -> Iterator[World]:
    """A database with one card."""
    with World(database_url) as made:
        yield made


def rows(count: int) -> list[RateRow]:
    """Rows with everything that a row can have."""
    dice = random.Random(4)
    return [
        RateRow(
            str(10_000 + number),
            dice.choice(["Italy, mobile", "Côte d'Ivoire\n(2nd line)", 'a "name"', "", "NULL"]),
            Tariff(
                Decimal(dice.randrange(9)), Decimal("0.00000001"), dice.choice([1, 60]), 6,
                connect_fee=Decimal(dice.randrange(2)), cap=dice.choice([None, Decimal("0.5")]),
                decimals=4,
            ),
            blocked=dice.random() < 0.2,
            valid_from=dice.choice([None, SINCE]),
            valid_to=dice.choice([None, SINCE + timedelta(days=1)]),
            row_id=number,
        )
        for number in range(1, count + 1)
    ]  # fmt: skip


@pytest.mark.parametrize("count", [0, 1, 2_500])
async def test_columns_are_what_the_rows_are(
    database_url: str, world: World, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    """Over several pages, with every tariff, time, name and blocked row."""
    monkeypatch.setattr(rate_columns, "COLUMN_ROWS", 700)
    given = rows(count)
    version_id = world.one(
        "INSERT INTO rate_version (card_id, version, status, mode, rows_in, rows_stored, rows_refused, row_count,"
        " created_by) VALUES (%s, 2, 'draft', 'full', %s, %s, 0, %s, 'test') RETURNING id",
        world.card_id, count, count, count,
    )  # fmt: skip
    world.sql("UPDATE rate_card SET decimals = 4 WHERE id = %s", world.card_id)
    database = Database(database_url, size=1)
    await database.open()
    try:
        async with database.write() as connection:
            await rates.copy_rows(connection, version_id, given, lambda _: None)
            card = await rates.read_card(connection, "retail-usd")
            version = await rates.read_version(connection, world.card_id, 2)
            assert card is not None
            assert version is not None
            found = await rate_columns.read_columns(connection, card, version)
    finally:
        await database.close()
    expected = RateColumns.of(given)
    assert len(found) == len(expected) == count
    for name in ("prefix", "destination"):
        assert getattr(found, name).to_list() == getattr(expected, name).to_list()
    for name in ("row_no", "since", "until"):
        assert np.array_equal(getattr(found, name), getattr(expected, name))
    assert priced(found) == priced(expected) == [None if r.blocked else r.tariff for r in given]


def priced(columns: RateColumns) -> list[Tariff | None]:
    """The tariff of each row, None where it is blocked."""
    return [None if place < 0 else columns.tariffs[place] for place in columns.tariff]
