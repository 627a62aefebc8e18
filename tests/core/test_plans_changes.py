"""What a call that is split at a change of rate will cost, told when it begins."""

from __future__ import annotations

from datetime import UTC, timedelta

from tests.core.prices import (
    ALL_DAYS,
    AZ,
    LONDON,
    MARCH,
    OFFICE,
    UK,
    D,
    ask,
    card,
    cost,
    flat,
    plan,
    z,
)
from tollkeeper.core.plans import (
    Conditions,
    PlanCard,
    Priced,
    Profile,
    Promotion,
    Question,
    Window,
    next_change,
)
from tollkeeper.core.reasons import Reason
from tollkeeper.core.tariff import Card, PrefixTable, RateRow

# --- changes while a call is up ------------------------------------------------------------------

SPLIT = plan(
    PlanCard(card(3, "peak", p44=flat("0.020", "0.1")), "plan", Conditions(profile=OFFICE)),
    PlanCard(AZ, "fallback"),
    promotions=(
        Promotion("evening", D(50), ("44",), profile=Profile("evening", LONDON, (Window(ALL_DAYS, 1200, 1260),))),
    ),
)  # fmt: skip


def test_a_call_that_is_split_knows_the_prices_to_come() -> None:
    """From 17:30: peak to 18:00, then 0.010, half of it from 20:00 to 21:00; the fees stay."""
    answer = ask(SPLIT, at=z("2026-03-10T17:30"), until=z("2026-03-10T21:30"))
    assert isinstance(answer, Priced)
    assert cost(answer, 60) == D("0.120")
    assert [(one.at, one.tariff.next_price) for one in answer.later] == [
        (z("2026-03-10T18:00"), D("0.010")),
        (z("2026-03-10T20:00"), D("0.005")),
        (z("2026-03-10T21:00"), D("0.010")),
    ]
    assert {one.tariff.connect_fee for one in answer.later} == {D("0.1")}
    assert answer.later[1].label == "to 44 (az v1, evening)"


def test_only_changes_before_the_end_are_told() -> None:
    answer = ask(SPLIT, at=z("2026-03-10T17:30"), until=z("2026-03-10T18:00"))
    assert isinstance(answer, Priced)
    assert answer.later == ()
    assert next_change(SPLIT, Question("voice", UK), z("2026-03-10T17:30")) == z("2026-03-10T18:00")
    assert next_change(plan(), Question("voice", UK), MARCH) is None


def test_a_row_that_ends_is_followed_by_the_next_and_nothing_by_the_last() -> None:
    """0.010 to noon, 0.011 to one, then nothing is sold: 0.011 goes on."""
    noon, one = z("2026-03-10T12:00"), z("2026-03-10T13:00")
    table = PrefixTable([
        RateRow("44", "old", flat("0.010"), valid_to=noon),
        RateRow("44", "new", flat("0.011"), valid_from=noon, valid_to=one),
    ])  # fmt: skip
    dated = plan(PlanCard(Card(30, "dated", 2, "USD", table), "plan"))
    answer = ask(dated, at=noon - timedelta(minutes=10), until=noon + timedelta(hours=4))
    assert isinstance(answer, Priced)
    assert [(later.at, later.tariff.next_price) for later in answer.later] == [(noon, D("0.011"))]
    assert ask(dated, at=one) is Reason.NO_RATE


def test_equal_prices_are_one_and_at_most_16_changes_are_told() -> None:
    half_hours = tuple(Window(ALL_DAYS, hour * 60, hour * 60 + 30) for hour in range(24))
    often = Profile("often", UTC, half_hours)
    changing = plan(
        PlanCard(card(3, "peak", p44=flat("0.020")), "plan", Conditions(profile=often)),
        PlanCard(AZ, "fallback"),
    )
    answer = ask(changing, at=MARCH, until=MARCH + timedelta(days=2))
    assert isinstance(answer, Priced)
    assert len(answer.later) == 16
    same = plan(
        PlanCard(card(3, "peak", p44=flat("0.010")), "plan", Conditions(profile=often)),
        PlanCard(AZ, "fallback"),
    )
    answer = ask(same, at=MARCH, until=MARCH + timedelta(days=2))
    assert isinstance(answer, Priced)
    assert answer.later == ()


def test_a_price_to_come_is_for_the_same_number_of_units() -> None:
    """Peak is 0.020 for 60 units, what follows 0.0002 for each: 60 x 0.0002 = 0.012."""
    two = plan(
        PlanCard(card(3, "peak", p44=flat("0.020")), "plan", Conditions(profile=OFFICE)),
        PlanCard(card(4, "each", p44=flat("0.0002", per=1)), "fallback"),
    )
    answer = ask(two, at=z("2026-03-10T17:30"), until=z("2026-03-10T19:00"))
    assert isinstance(answer, Priced)
    assert [(one.tariff.next_price, one.tariff.per) for one in answer.later] == [(D("0.012"), 60)]


def test_a_promotion_that_begins_and_ends_changes_the_price_of_a_split_call() -> None:
    """0.010, from 13:00 to 14:00 half of it."""
    lunch = Promotion("lunch", D(50), ("44",), z("2026-03-10T13:00"), z("2026-03-10T14:00"))
    elsewhere = Promotion("else", D(50), ("49",), z("2026-03-10T12:30"))
    answer = ask(plan(promotions=(elsewhere, lunch)), until=z("2026-03-10T16:00"))
    assert isinstance(answer, Priced)
    assert [(one.at, one.tariff.next_price) for one in answer.later] == [
        (z("2026-03-10T13:00"), D("0.005")),
        (z("2026-03-10T14:00"), D("0.010")),
    ]


def test_changes_of_a_deck_of_office_codes_are_looked_for_by_the_lrn() -> None:
    """The number dialled keeps its price; the office that the number is ported to has a new one at one."""
    one = z("2026-03-10T13:00")
    table = PrefixTable([
        RateRow("1201200", "dialled", flat("0.009")),
        RateRow("1716200", "old", flat("0.003"), valid_to=one),
        RateRow("1716200", "new", flat("0.004"), valid_from=one),
    ])  # fmt: skip
    deck = plan(PlanCard(Card(1, "intra", 1, "USD", table), "plan", Conditions("intrastate")))
    answer = ask(
        deck, "12012000100", caller="12125550100", lrn="7162000000", until=z("2026-03-10T16:00")
    )
    assert isinstance(answer, Priced)
    assert answer.pin.tariff.next_price == D("0.003")
    assert [(each.at, each.tariff.next_price) for each in answer.later] == [(one, D("0.004"))]
