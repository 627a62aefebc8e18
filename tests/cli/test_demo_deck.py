"""The demonstration's deck: large, true in its names, the same each time, and free of contradiction."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from datetime import date
from decimal import Decimal

import phonenumbers
import pytest

from tollkeeper.cli.demo.deck import (
    BLEMISHES,
    DeckRow,
    change_sheet,
    country_name,
    make_deck,
    sheet,
)
from tollkeeper.cli.demo.traffic import (
    UNKNOWN_PREFIX,
    Fate,
    Numbers,
    plan_calls,
    slips_of,
)
from tollkeeper.wire.ratesheet import read_sheet

TODAY = date(2026, 3, 1)


@pytest.fixture(scope="module")
def deck() -> list[DeckRow]:
    """The deck, made once."""
    return make_deck()


@pytest.fixture(scope="module")
def by_prefix(deck: list[DeckRow]) -> dict[str, DeckRow]:
    """The deck by prefix."""
    return {row.prefix: row for row in deck}


def test_the_deck_has_20000_prefixes_each_once(deck: list[DeckRow]) -> None:
    """No prefix stands twice, so nothing contradicts."""
    assert len(deck) >= 20_000
    assert len({row.prefix for row in deck}) == len(deck)
    assert all(row.prefix.isdigit() and row.prefix[0] != "0" for row in deck)


def test_the_same_deck_is_made_each_time(deck: list[DeckRow]) -> None:
    """Line by line, with the same prices."""
    assert make_deck() == deck
    assert sheet(make_deck()) == sheet(deck)
    assert change_sheet(deck, TODAY) == change_sheet(make_deck(), TODAY)


def test_every_country_of_the_numbering_plan_is_priced(by_prefix: dict[str, DeckRow]) -> None:
    """A number of any region that the library knows has a prefix of that region's own."""
    missing = []
    for region in phonenumbers.SUPPORTED_REGIONS:
        example = phonenumbers.example_number(region)
        if example is None:
            continue
        digits = phonenumbers.format_number(example, phonenumbers.PhoneNumberFormat.E164)[1:]
        if not any(digits[:length] in by_prefix for length in range(1, len(digits))):
            missing.append(region)
    assert missing == []


def test_names_are_true(by_prefix: dict[str, DeckRow]) -> None:
    """Countries that share a code are told apart; areas and operators have their names."""
    assert by_prefix["1"].country == "United States"
    assert by_prefix["1204"].destination == "Canada - Manitoba"
    assert by_prefix["1242"].country == "Bahamas"
    assert by_prefix["77"].country == "Kazakhstan"
    assert by_prefix["44"].country == "United Kingdom"
    assert by_prefix["4930"].destination == "Germany - Berlin"
    assert by_prefix["8816"].destination == "Iridium"
    mobiles = [row for row in by_prefix.values() if row.kind == "mobile"]
    assert len(mobiles) > 10_000
    assert all(row.destination.startswith(f"{row.country} - Mobile - ") for row in mobiles)
    assert country_name("DE") == "Germany"


def test_prices_are_plausible(deck: list[DeckRow]) -> None:
    """Mobiles are dearer than landlines nearly everywhere, satellites dear, premium not sold."""
    assert all(Decimal("0.001") < row.rate < 10 for row in deck)
    assert all(row.rate == row.rate.quantize(Decimal("0.0001")) for row in deck)
    by_country: dict[str, dict[str, list[Decimal]]] = {}
    for row in deck:
        by_country.setdefault(row.region, {}).setdefault(row.kind, []).append(row.rate)
    pairs = [
        (k["fixed"], k["mobile"]) for k in by_country.values() if "fixed" in k and "mobile" in k
    ]
    dearer = sum(sum(m) / len(m) > sum(f) / len(f) for f, m in pairs)
    assert dearer > 0.95 * len(pairs) > 100
    assert all(row.rate > 3 for row in deck if row.kind == "special" and not row.blocked)
    assert all(row.blocked for row in deck if row.kind == "premium")
    assert Counter(row.blocked for row in deck)[True] < 50


def test_the_sheet_is_read_back_without_loss(deck: list[DeckRow]) -> None:
    """Every row of the deck is stored; every blemish is refused with a reason."""
    clean = read_sheet(sheet(deck))
    assert (len(clean.rows), clean.refused, clean.contradictions) == (len(deck), [], [])
    rates = {row.prefix: row.tariff.first_price for _, row in clean.rows}
    assert all(rates[row.prefix] == row.rate for row in deck)
    blemished = read_sheet(sheet(deck, blemishes=True))
    assert len(blemished.rows) == len(deck)
    assert [refusal.line for refusal in blemished.refused] == [
        len(deck) + 2 + number for number in range(len(BLEMISHES))
    ]
    assert all(refusal.reason for refusal in blemished.refused)


def test_the_change_sheet_has_rises_with_notice_and_falls_at_once(
    deck: list[DeckRow], by_prefix: dict[str, DeckRow]
) -> None:
    """As carriers do it; and one new code."""
    change = read_sheet(change_sheet(deck, TODAY))
    assert change.refused == []
    rises = falls = new = 0
    for _, row in change.rows:
        old = by_prefix.get(row.prefix)
        if old is None:
            new += 1
        elif row.valid_from is not None:
            rises += 1
            assert row.tariff.first_price > old.rate
            assert row.valid_from.date() == date(2026, 3, 8)
        else:
            falls += 1
            assert row.tariff.first_price < old.rate
    assert rises > 300
    assert falls > 300
    assert new == 1


# --- traffic -------------------------------------------------------------------------------------


def test_the_same_seed_plans_the_same_calls(deck: list[DeckRow]) -> None:
    """Down to the slips of the network; another seed plans others."""
    shares = {"a": 0.7, "b": 0.3}

    def plan(seed: int) -> list[object]:
        calls = plan_calls(Numbers(deck), shares, seconds=5, calls_per_second=40, seed=seed)
        return [(call, list(itertools.islice(slips_of(call), 4))) for call in calls]

    assert plan(1) == plan(1)
    assert plan(1) != plan(2)


def test_calls_are_realistic(deck: list[DeckRow], by_prefix: dict[str, DeckRow]) -> None:
    """The rate of arrival, the shares of the parties, the answered ones, the numbers called."""
    calls = list(
        plan_calls(
            Numbers(deck),
            {"a": 0.7, "b": 0.3},
            seconds=50,
            calls_per_second=80,
            seed=3,
            punctual="b",
        )
    )
    assert 3_600 < len(calls) < 4_400
    assert [call.at for call in calls] == sorted(call.at for call in calls)
    assert 0.6 < sum(call.party == "a" for call in calls) / len(calls) < 0.8
    assert 0.55 < sum(call.talk_seconds > 0 for call in calls) / len(calls) < 0.7
    assert {call.fate for call in calls if call.party == "a"} == set(Fate)
    assert Fate.LATE not in {call.fate for call in calls if call.party == "b"}
    assert all(call.called.isdigit() and len(call.called) <= 15 for call in calls)
    unsold = [
        call
        for call in calls
        if not any(call.called[:length] in by_prefix for length in range(1, 10))
    ]
    assert unsold
    assert all(call.called.startswith(UNKNOWN_PREFIX) for call in unsold)
    assert len({call.called for call in calls}) > 0.95 * len(calls)


def test_numbers_go_where_wholesale_traffic_goes(
    deck: list[DeckRow], by_prefix: dict[str, DeckRow]
) -> None:
    """India and the United States lead; mobiles are the most."""
    numbers, random_ = Numbers(deck), random.Random(5)
    seen: Counter[str] = Counter()
    kinds: Counter[str] = Counter()
    for _ in range(4_000):
        called = numbers.draw(random_)
        match = next((called[:n] for n in range(9, 0, -1) if called[:n] in by_prefix), None)
        if match is not None:
            seen[by_prefix[match].region] += 1
            kinds[by_prefix[match].kind] += 1
    assert {region for region, _ in seen.most_common(3)} <= {"IN", "US", "MX", "BD", "PK"}
    assert kinds["mobile"] > kinds["fixed"] > kinds["premium"] > 0
    assert len(seen) > 80
