"""What holds for every plan: the plain case is the card's row, and steps do what they say."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

from hypothesis import given
from hypothesis import strategies as st

from tollkeeper.core.fx import FxRate, pick
from tollkeeper.core.markup import figures, scaled
from tollkeeper.core.nanp import jurisdiction
from tollkeeper.core.plans import (
    Conditions,
    Plan,
    PlanCard,
    Priced,
    Profile,
    Promotion,
    Question,
    Surcharge,
    Window,
    next_change,
    price_question,
)
from tollkeeper.core.profiles import contains, next_edge
from tollkeeper.core.rating import Tariff
from tollkeeper.core.reasons import Reason
from tollkeeper.core.tariff import Card, PrefixTable, RateRow, find_rate

D = Decimal
T0 = datetime(2026, 3, 1, tzinfo=UTC)
ZONES = [
    ZoneInfo(name)
    for name in ("Europe/London", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe")
]

digits = st.text(alphabet="12", max_size=5)
days = st.none() | st.integers(-3, 3)
prices = st.decimals(0, 10, places=6)
moments = st.builds(lambda minutes: T0 + timedelta(minutes=minutes), st.integers(0, 400 * 1440))


def _day(number: int | None) -> datetime | None:
    return None if number is None else T0 + timedelta(days=number)


rows = st.builds(
    lambda prefix, price, blocked, start, end: RateRow(
        prefix, f"to {prefix}", Tariff(price, price), blocked, _day(start), _day(end)
    ),
    digits, prices, st.booleans(), days, days,
)  # fmt: skip
tables = st.lists(st.lists(rows, max_size=8), max_size=3)


def _cards(listed: list[list[RateRow]]) -> list[Card]:
    return [Card(n, f"card{n}", 1, "USD", PrefixTable(found)) for n, found in enumerate(listed)]


def _ask(plan: Plan, called: str, at: datetime, **more: object) -> Priced | Reason:
    return price_question(
        plan,
        Question("voice", called),
        at,
        party_id=1,
        wallets={"USD": 1},
        exchange=lambda *_: None,
        places={},
        **more,  # type: ignore[arg-type]
    )


@given(tables, digits, st.integers(-4, 4))
def test_without_conditions_the_row_is_the_one_of_the_cards(
    listed: list[list[RateRow]], called: str, day: int
) -> None:
    """The same card, row and tariff (the very object) as the lookup over plain cards gives."""
    cards, at = _cards(listed), T0 + timedelta(days=day)
    plan = Plan(1, "p", "voice", tuple(PlanCard(card, "plan") for card in cards))
    expected, answer = find_rate(cards, called, at), _ask(plan, called, at)
    if expected is None:
        assert answer is Reason.NO_RATE
    elif expected.row.blocked:
        assert answer is Reason.DESTINATION_BLOCKED
    else:
        assert isinstance(answer, Priced)
        assert answer.pin.card == expected.card.code
        assert answer.pin.prefix == expected.row.prefix
        assert answer.pin.tariff is expected.row.tariff
        assert answer.pin.steps == ()


windows = st.builds(
    Window, st.frozensets(st.integers(0, 6), min_size=1, max_size=3), st.integers(0, 1439), st.integers(0, 1440)
)  # fmt: skip
profiles = st.builds(
    lambda zone, found: Profile("p", zone, tuple(found)),
    st.sampled_from(ZONES),
    st.lists(windows, max_size=2),
)


@given(profiles, moments)
def test_nothing_changes_before_the_next_edge_and_something_at_it(
    profile: Profile, after: datetime
) -> None:
    state, edge = contains(profile, after), next_edge(profile, after)
    until = edge or after + timedelta(days=8)
    assert until > after
    moment = after
    while moment < until:
        assert contains(profile, moment) is state
        moment += timedelta(minutes=7)
    assert contains(profile, until - timedelta(microseconds=1)) is state
    if edge is not None:
        assert contains(profile, edge) is not state


@given(tables, profiles, profiles, digits, moments)
def test_the_answer_is_the_same_until_the_next_change(
    listed: list[list[RateRow]], hours: Profile, sale: Profile, called: str, at: datetime
) -> None:
    at = T0 - timedelta(days=4) + (at - T0) / 50
    cards = [
        PlanCard(card, "plan", Conditions(profile=hours) if n else Conditions())
        for n, card in enumerate(_cards(listed))
    ]
    plan = Plan(1, "p", "voice", tuple(cards), (Promotion("sale", D(10), profile=sale),))
    change = next_change(plan, Question("voice", called), at)
    last = (change or at + timedelta(days=8)) - timedelta(microseconds=1)
    first = _ask(plan, called, at)
    for share in range(1, 9):
        assert _ask(plan, called, at + (last - at) * share / 8) == first


@given(tables, profiles, digits, moments)
def test_the_prices_to_come_are_those_asked_for_then(
    listed: list[list[RateRow]], hours: Profile, called: str, at: datetime
) -> None:
    """At any moment of a split call its price is what a new call would pay, or the last one sold."""
    at = T0 - timedelta(days=4) + (at - T0) / 50
    until = at + timedelta(days=1)
    cards = [
        PlanCard(card, "plan", Conditions(profile=hours) if n else Conditions())
        for n, card in enumerate(_cards(listed))
    ]
    plan = Plan(1, "p", "voice", tuple(cards))
    answer = _ask(plan, called, at, split=True, until=until)
    if not isinstance(answer, Priced):
        return
    assert list(answer.later) == sorted(answer.later, key=lambda one: one.at)
    before = answer.pin.tariff
    for one in answer.later:
        assert at < one.at < until
        assert one.tariff != before
        before = one.tariff
    if len(answer.later) == 16:
        return
    for quarter in range(96):
        moment = at + timedelta(minutes=15 * quarter)
        then = _ask(plan, called, moment)
        if isinstance(then, Priced):
            in_force = [one.tariff for one in answer.later if one.at <= moment] or [
                answer.pin.tariff
            ]
            assert in_force[-1].next_price == then.pin.tariff.next_price


tariffs = st.builds(
    Tariff, prices, prices, connect_fee=prices, attempt_fee=prices, minimum=prices, surcharge=prices,
    cap=st.none() | prices,
)  # fmt: skip


@given(tariffs, st.decimals(0, 100, places=4))
def test_a_promotion_takes_its_percent_off_every_amount(tariff: Tariff, percent: Decimal) -> None:
    plan = Plan(
        1, "p", "voice",
        (PlanCard(Card(1, "c", 1, "USD", PrefixTable([RateRow("", "all", tariff)])), "plan"),),
        (Promotion("sale", percent),),
    )  # fmt: skip
    answer = _ask(plan, "1", T0)
    assert isinstance(answer, Priced)
    for name in ("first_price", "next_price", "connect_fee", "attempt_fee", "minimum", "surcharge"):
        paid, listed = getattr(answer.pin.tariff, name), getattr(tariff, name)
        assert paid == listed * (100 - percent) / 100
    assert (answer.pin.tariff.cap is None) is (tariff.cap is None)


@given(tariffs, st.lists(prices, max_size=4), st.randoms(use_true_random=False))
def test_surcharges_add_up_in_any_order(
    tariff: Tariff, amounts: list[Decimal], chance: object
) -> None:
    """All that apply are added; percents are of the prices before any of them."""
    found = [Surcharge(f"s{n}", amount, amount) for n, amount in enumerate(amounts)]
    shuffled = found[:]
    chance.shuffle(shuffled)  # type: ignore[attr-defined]
    card = PlanCard(Card(1, "c", 1, "USD", PrefixTable([RateRow("", "all", tariff)])), "plan")
    one = _ask(Plan(1, "p", "voice", (card,), surcharges=tuple(found)), "1", T0)
    other = _ask(Plan(1, "p", "voice", (card,), surcharges=tuple(shuffled)), "1", T0)
    assert isinstance(one, Priced)
    assert isinstance(other, Priced)
    assert one.pin.tariff == other.pin.tariff
    assert one.pin.tariff.surcharge == tariff.surcharge + sum(amounts)


@given(tariffs)
def test_a_factor_of_one_changes_nothing(tariff: Tariff) -> None:
    assert scaled(tariff, D(1)) == tariff
    assert figures(tariff, tariff) == "no price changes"


rates = st.decimals("0.0001", "10000", places=6)


@given(rates, rates)
def test_a_cross_is_the_two_rates_after_each_other(one: Decimal, two: Decimal) -> None:
    day = T0.date()
    given_rates = {("EUR", "USD"): [(day, one, "x")], ("EUR", "GBP"): [(day, two, "x")]}
    inverse = pick(given_rates, "USD", "EUR", day)
    crossed = pick(given_rates, "USD", "GBP", day)
    assert isinstance(inverse, FxRate)
    assert abs(inverse.rate * one - 1) <= one * D("0.000000000001")
    assert crossed is not None
    assert abs(crossed.rate * one - two) <= one * D("0.000000000001")


offices = st.sampled_from(["1212555", "1716200", "1201200", "1800555", "1999999", "44"])


@given(offices, offices)
def test_a_jurisdiction_is_the_same_in_both_directions(one: str, other: str) -> None:
    """But for toll-free numbers and callers abroad, which are told by the called side alone."""
    places = {"212555": "NY", "716200": "NY", "201200": "NJ"}
    caller, called = one + "0100", other + "0100"
    there, back = jurisdiction(caller, called, "", places), jurisdiction(called, caller, "", places)
    if there and back:
        assert there == back
    assert (there == "") is (len(called) != 11)
