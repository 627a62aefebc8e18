"""Rating is exact: properties against a second, slow implementation, and prices worked by hand."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.core.naive import naive_billed, naive_price, naive_round
from tollkeeper.core.money import Rounding
from tollkeeper.core.rating import (
    SECONDS_MAX,
    UNITS_MAX,
    Tariff,
    afford,
    billed_seconds,
    bought,
    explain_price,
    price,
    seconds_of,
)

D = Decimal
amounts = st.decimals(min_value=0, max_value=10, places=6)
fees = st.one_of(st.just(D(0)), st.decimals(min_value=0, max_value=2, places=4))
intervals = st.one_of(st.sampled_from([1, 6, 10, 30, 60, 90]), st.integers(1, 200))


@st.composite
def tariffs(draw: st.DrawFn) -> Tariff:
    """Any tariff: every element may be absent, and prices have up to eight decimals."""
    return Tariff(
        first_price=draw(st.one_of(st.just(D(0)), amounts, st.decimals(0, 5, places=8))),
        next_price=draw(st.one_of(st.just(D(0)), amounts, st.decimals(0, 5, places=8))),
        first_interval=draw(intervals),
        next_interval=draw(intervals),
        connect_fee=draw(fees),
        attempt_fee=draw(fees),
        minimum=draw(fees),
        free_below=draw(st.one_of(st.just(0), st.integers(0, 100))),
        surcharge=draw(fees),
        cap=draw(st.one_of(st.none(), fees)),
        decimals=draw(st.integers(0, 8)),
        rounding=draw(st.sampled_from(Rounding)),
        per=draw(st.sampled_from([60, 60, 60, 1, 1000, 1024, 10**6, 2**20, 2**31])),
    )


seconds = st.one_of(st.integers(0, 400), st.integers(0, 20_000))
money = st.one_of(st.decimals(0, 20, places=8), st.decimals(0, 20, places=2))


@given(tariffs(), seconds)
def test_the_price_equals_a_price_computed_in_fractions(tariff: Tariff, used: int) -> None:
    assert price(tariff, used) == naive_price(tariff, used)
    assert billed_seconds(tariff, used) == naive_billed(tariff, used)


@given(
    st.decimals(0, 10**14, places=8),
    st.decimals(0, 10**14, places=8),
    st.integers(1, 86_400),
    st.integers(1, SECONDS_MAX),
    st.sampled_from(Rounding),
)
@example(D("99999999999999.99999999"), D("77777777777777.12345679"), 3600, 86_399, Rounding.HALF_UP)
def test_the_price_is_exact_even_for_absurd_rates(
    first: Decimal, following: Decimal, step: int, used: int, mode: Rounding
) -> None:
    """Rates with 22 digits times a million seconds need more than the usual 28 digits."""
    following_step = min(86_400, max(step, used // 50))
    tariff = Tariff(first, following, step, following_step, decimals=8, rounding=mode)
    assert price(tariff, used) == naive_price(tariff, used)
    by_two_gigabytes = msgspec.structs.replace(tariff, per=2**31)
    assert price(by_two_gigabytes, used * 10**6) == naive_round(
        _by_fractions(by_two_gigabytes, used * 10**6), 8, mode
    )


def _by_fractions(tariff: Tariff, used: int) -> Fraction:
    """As the naive price, without walking through a million intervals."""
    over = max(0, used - tariff.first_interval)
    more = -(-over // tariff.next_interval) * tariff.next_interval
    total = (
        Fraction(tariff.first_price) * tariff.first_interval + Fraction(tariff.next_price) * more
    )
    return total / tariff.per


@given(tariffs(), money, st.integers(1, 20_000))
def test_what_money_buys_costs_no_more_than_it_and_one_interval_more_would(
    tariff: Tariff, funds: Decimal, longest: int
) -> None:
    """price(bought(money)) <= money < price of one interval more, in every rounding mode."""
    usage = bought(tariff, funds, longest)
    assert 0 <= usage <= longest
    if usage:
        assert price(tariff, usage) <= funds
    if usage < longest:
        more = usage + tariff.next_interval if usage else tariff.first_interval
        assert price(tariff, min(more, longest)) > funds


@given(tariffs(), money, st.integers(1, 3_000))
def test_a_grant_ends_on_a_paid_boundary_or_at_the_limit(
    tariff: Tariff, funds: Decimal, longest: int
) -> None:
    usage, cost = afford(tariff, funds, longest)
    if usage:
        assert cost == price(tariff, usage)
        assert usage == longest or billed_seconds(tariff, usage) == usage


@given(tariffs(), money, st.integers(1, 2_000))
def test_no_longer_grant_on_a_boundary_is_affordable(
    tariff: Tariff, funds: Decimal, longest: int
) -> None:
    """The search agrees with trying every second from the top down."""
    boundary = [n for n in range(longest, 0, -1) if n == longest or naive_billed(tariff, n) == n]
    best = next((n for n in boundary if naive_price(tariff, n) <= funds), 0)
    assert bought(tariff, funds, longest) == best


@given(tariffs(), seconds, seconds)
def test_longer_calls_never_cost_less(tariff: Tariff, one: int, other: int) -> None:
    short, long = sorted((one, other))
    assert price(tariff, short) <= price(tariff, long)


@given(tariffs(), money, money, st.integers(1, 20_000))
def test_more_money_never_buys_less(tariff: Tariff, one: Decimal, other: Decimal, top: int) -> None:
    less, more = sorted((one, other))
    assert bought(tariff, less, top) <= bought(tariff, more, top)


@given(tariffs(), seconds)
def test_the_explanation_ends_in_the_same_amount(tariff: Tariff, used: int) -> None:
    told = explain_price(tariff, used)
    assert told.amount == price(tariff, used)
    # The exact amount may end in a cut row of 3s or 6s, which rounds like the endless one.
    assert naive_round(Fraction(told.exact), tariff.decimals, tariff.rounding) == told.amount


def test_negative_money_buys_nothing_even_where_the_price_is_zero() -> None:
    """A wallet below its limit opens no new call, not even a free one."""
    free = Tariff(D(0), D(0))
    assert bought(free, D(-1), 60) == 0
    assert bought(free, D(0), 60) == 60


def test_a_zero_price_is_granted_up_to_the_limit_and_divides_by_nothing() -> None:
    """F32: toll free and zero-priced destinations need no money; the grant is capped."""
    assert afford(Tariff(D(0), D(0)), D(0), 14_400) == (14_400, D(0))
    assert afford(Tariff(D(0), D(0)), D(0), SECONDS_MAX * 9) == (SECONDS_MAX, D(0))
    assert afford(Tariff(D(0), D(0), per=1), D(0), UNITS_MAX * 9) == (UNITS_MAX, D(0))


def test_a_long_free_start_is_granted_up_to_its_last_second() -> None:
    """Free below an hour on a card billed by the second: the money does not reach beyond."""
    tariff = Tariff(D(60), D(60), 1, 1, free_below=3600)
    assert bought(tariff, D(1), 14_400) == 3599


# --- prices worked by hand -----------------------------------------------------------------------

INCREMENTS = """
    increment |  7 s | 31 s | 61 s | 95 s | 121 s
    1/1       |    7 |   31 |   61 |   95 |   121
    6/6       |   12 |   36 |   66 |   96 |   126
    30/6      |   30 |   36 |   66 |   96 |   126
    60/60     |   60 |   60 |  120 |  120 |   180
    60/1      |   60 |   60 |   61 |   95 |   121
    60/6      |   60 |   60 |   66 |   96 |   126
    10/60     |   10 |   70 |   70 |  130 |   130
    5/30      |   35 |   35 |   65 |   95 |   125
    90/60     |   90 |   90 |   90 |  150 |   150
"""


def _increments() -> list[tuple[str, int, int]]:
    rows = [[cell.strip() for cell in line.split("|")] for line in INCREMENTS.strip().splitlines()]
    head, *lines = rows
    return [
        (line[0], int(used.removesuffix(" s")), int(billed))
        for line in lines
        for used, billed in zip(head[1:], line[1:], strict=True)
    ]


def _by_increment(text: str, rate: str = "0.06", **more: object) -> Tariff:
    first, following = text.split("/")
    return Tariff(D(rate), D(rate), int(first), int(following), **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(("increment", "used", "billed"), _increments())
def test_seconds_are_billed_from_the_end_of_the_first_interval(
    increment: str, used: int, billed: int
) -> None:
    tariff = _by_increment(increment)
    assert billed_seconds(tariff, used) == billed
    assert price(tariff, used) == D(billed) / 1000


@pytest.mark.parametrize(
    ("rate", "increment", "used", "amount"),
    [
        ("0.05", "30/6", 45, "0.04"),
        ("0.006", "30/6", 32, "0.0036"),
        ("0.006", "30/6", 57, "0.006"),
        ("0.006", "30/6", 75, "0.0078"),
        ("0.0065", "60/1", 60, "0.0065"),
    ],
)
def test_worked_prices(rate: str, increment: str, used: int, amount: str) -> None:
    assert price(_by_increment(increment, rate), used) == D(amount)


def test_ten_minutes_at_five_cents_cost_fifty_cents() -> None:
    """Rounding the price of each second to four decimals would give 0.4980."""
    assert price(_by_increment("1/1", "0.05", decimals=4), 600) == D("0.50")
    assert price(_by_increment("1/1", "0.05", decimals=4, rounding=Rounding.UP), 60) == D("0.05")


def test_a_leg_is_rounded_once_and_not_per_part() -> None:
    """0.15 to connect and 24 s at 0.05: 0.17 exactly; rounding up each part would make it 0.18."""
    tariff = _by_increment("1/1", "0.05", connect_fee=D("0.15"), decimals=2, rounding=Rounding.UP)
    assert price(tariff, 24) == D("0.17")


@pytest.mark.parametrize(
    ("mode", "amount"),
    [
        (Rounding.HALF_UP, "0.01"),
        (Rounding.HALF_EVEN, "0.00"),
        (Rounding.UP, "0.01"),
        (Rounding.DOWN, "0.00"),
    ],
)
def test_each_rounding_mode_does_what_its_name_says(mode: Rounding, amount: str) -> None:
    tariff = _by_increment("60/60", "0.005", decimals=2, rounding=mode)
    assert price(tariff, 60) == D(amount)


def test_a_connection_fee_can_be_a_minimum_charge() -> None:
    assert price(_by_increment("60/60", "0.20", minimum=D("0.01")), 60) == D("0.20")
    assert price(_by_increment("60/60", "0.003", minimum=D("0.01")), 60) == D("0.01")


def test_a_cap_bounds_the_call_but_not_the_attempt_fee() -> None:
    tariff = _by_increment("60/60", "1", cap=D("2.50"), attempt_fee=D("0.05"))
    assert price(tariff, 600) == D("2.55")
    assert bought(tariff, D("2.55"), 14_400) == 14_400
    assert bought(tariff, D("2.54"), 14_400) == 120


def test_a_surcharge_counts_on_every_billed_second() -> None:
    tariff = _by_increment("30/6", "0.06", surcharge=D("0.06"))
    assert price(tariff, 31) == D("0.072")


# --- traps known from other billing systems ------------------------------------------------------


@pytest.mark.parametrize(
    ("used_ms", "whole"),
    [(0, 0), (1, 1), (400, 1), (500, 1), (1000, 1), (1001, 2), (320_400, 321), (320_500, 321)],
)
def test_trap_4_any_started_second_counts(used_ms: int, whole: int) -> None:
    assert seconds_of(used_ms) == whole


@pytest.mark.parametrize("increment", ["60/6", "10/60", "60/10", "1/1", "30/6"])
def test_trap_4_boundaries_of_the_intervals(increment: str) -> None:
    """0, I-1, I, I+1, I+N and I+N+1 seconds."""
    tariff = _by_increment(increment)
    first, step = tariff.first_interval, tariff.next_interval
    assert billed_seconds(tariff, 0) == 0
    assert billed_seconds(tariff, max(1, first - 1)) == first
    assert billed_seconds(tariff, first) == first
    assert billed_seconds(tariff, first + 1) == first + step
    assert billed_seconds(tariff, first + step) == first + step
    assert billed_seconds(tariff, first + step + 1) == first + 2 * step


def test_trap_4_ten_sixty_is_not_sixty_ten() -> None:
    assert billed_seconds(_by_increment("10/60"), 61) == 70
    assert billed_seconds(_by_increment("60/10"), 61) == 70
    assert billed_seconds(_by_increment("10/60"), 71) == 130
    assert billed_seconds(_by_increment("60/10"), 71) == 80


def test_trap_7_the_minimum_of_a_card_counts_in_what_money_buys() -> None:
    """Money for 59 s of a 60/60 card buys nothing: the call would be billed 60."""
    assert bought(_by_increment("60/60", "0.60"), D("0.59"), 3600) == 0
    assert bought(_by_increment("1/1", "0.60"), D("0.59"), 3600) == 59


def test_trap_7_a_minute_and_a_half_of_money_on_a_minute_card_buys_one_minute() -> None:
    assert bought(_by_increment("60/60", "0.10"), D("0.15"), 3600) == 60


def test_trap_8_a_connect_fee_above_the_balance_refuses() -> None:
    tariff = _by_increment("1/1", "0.01", connect_fee=D("1.00"))
    assert bought(tariff, D("0.99"), 3600) == 0
    assert bought(tariff, D("1.00"), 3600) == 0
    assert bought(tariff, D("1.01"), 3600) == 60


def test_trap_8_a_negative_rate_is_no_tariff() -> None:
    with pytest.raises(ValueError, match="not negative"):
        Tariff(D("-0.01"), D("0.01"))


@pytest.mark.parametrize(
    "wrong",
    [
        {"first_interval": 0},
        {"next_interval": 0},
        {"first_interval": 86_401},
        {"decimals": 9},
        {"decimals": -1},
        {"first_price": D("NaN")},
        {"next_price": D("Infinity")},
        {"cap": D("NaN")},
        {"cap": D(-1)},
        {"per": 0},
        {"per": 7},
        {"per": 3600},
        {"per": 2**32},
        {"per": 1, "next_interval": 0},
        {"per": 1, "first_interval": 2**31 + 1},
        {"free_below": -1},
        {"minimum": D("-0.1")},
    ],
)
def test_a_tariff_that_arithmetic_cannot_rely_on_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"are|is"):
        Tariff(**({"first_price": D(1), "next_price": D(1)} | wrong))  # type: ignore[arg-type]


def test_free_below_is_free_until_it_is_reached_and_then_all_is_paid() -> None:
    """F32: free seconds; the attempt fee is owed all the same."""
    tariff = _by_increment("1/1", "0.60", free_below=6, attempt_fee=D("0.001"))
    assert price(tariff, 5) == D("0.001")
    assert price(tariff, 6) == D("0.061")
    assert explain_price(tariff, 5).note == "free below 6 s"
    assert "nothing used" in explain_price(tariff, 0).note


def test_the_explanation_spells_out_each_part() -> None:
    tariff = Tariff(
        D("0.05"), D("0.04"), 30, 6, D("0.01"), D("0.002"), surcharge=D("0.03"), cap=D("0.02")
    )
    told = explain_price(tariff, 32)
    assert told.billed_seconds == 36
    assert told.note == (
        "(connect 0.01 + 30 s x 0.05/min + 1 x 6 s x 0.04/min + surcharge 36 s x 0.03/min), "
        "capped at 0.02 + attempt fee 0.002"
    )
    each = Tariff(D("0.05"), D("0.04"), 1, 1, free_below=2, per=1)
    assert explain_price(each, 3).note == "1 units x 0.05 each + 2 x 1 units x 0.04 each"
    assert explain_price(each, 1).note == "free below 2 units"
    data = Tariff(D("0.10"), D("0.10"), 1000, 1000, per=10**6)
    assert explain_price(data, 1500).note == (
        "1000 units x 0.10 per 1000000 + 1 x 1000 units x 0.10 per 1000000"
    )
    low = explain_price(_by_increment("60/60", "0.003", minimum=D("0.01")), 60)
    assert low.note == "(60 s x 0.003/min), raised to the minimum charge 0.01"
