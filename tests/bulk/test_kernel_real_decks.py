"""Decks as real suppliers sent them: the kernel and the core find the same rows and prices."""

from __future__ import annotations

import os
import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.bulk.cards import Call, Core, answers, kernel
from tollkeeper.bulk.book import CardSpan, RateBook, micros
from tollkeeper.bulk.tariffs import BLOCKED, NO_RATE, PRICED
from tollkeeper.core.tariff import RateRow
from tollkeeper.wire.ratesheet import read_sheet

ROOT = Path(__file__).parents[2]
DECKS = Path(os.environ.get("TOLLKEEPER_SHARED_DATA", ROOT.parent / "shared" / "data")) / "decks"
CALLS = 20_000

pytestmark = pytest.mark.skipif(
    not DECKS.is_dir(), reason="no real decks here; TOLLKEEPER_SHARED_DATA names their folder"
)


def rows_of(name: str) -> list[RateRow]:
    sheet = read_sheet((DECKS / name).read_bytes())
    return [replace(line.row, row_id=number) for number, line in enumerate(sheet.rows, 1)]


def test_two_real_decks_are_rated_as_by_the_core() -> None:
    """Each alone, both ways round, and one as two versions: 20,000 calls to their own prefixes."""
    aria, wavecrest = rows_of("aria_2022-02.csv"), rows_of("wavecrest_2022-03.csv")
    change = micros(datetime(2022, 3, 15, tzinfo=UTC))
    one = [CardSpan(1, 1, "USD", aria)]
    two = [CardSpan(2, 2, "USD", wavecrest)]
    # The first version has every second row, so that calls fall back to shorter prefixes.
    both = [CardSpan(3, 3, "USD", aria[::2], None, change), CardSpan(3, 4, "USD", aria, change)]
    plans = {1: [one], 2: [two], 3: [one, two], 4: [two, one], 5: [both, two]}
    draw = random.Random(20220302)
    prefixes = [row.prefix for row in aria + wavecrest]
    start = datetime(2022, 2, 20, tzinfo=UTC)
    calls = [
        Call(
            draw.choice(list(plans)),
            (draw.choice(prefixes) + "".join(draw.choices("0123456789", k=draw.randrange(9))))[:15],
            start + timedelta(seconds=draw.randrange(40 * 86_400)),
            draw.choice([0, draw.randrange(400_000), draw.randrange(10**7)]),
        )
        for _ in range(CALLS)
    ]
    book, core = RateBook.compile(plans), Core(plans)
    found = answers(book, kernel(book, calls, threads=2))
    assert found == [core.answer(call) for call in calls]
    seen = {status: sum(one.status == status for one in found) for status in (0, 1, 2)}
    assert min(seen[PRICED], seen[BLOCKED], seen[NO_RATE]) > CALLS // 50, seen
