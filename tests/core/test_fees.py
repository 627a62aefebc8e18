"""Proration, shortfall and commission, worked out by hand."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tollkeeper.core.fees import commission, prorate, shortfall
from tollkeeper.core.money import Rounding
from tollkeeper.core.periods import term_after
from tollkeeper.errors import InvalidInput

D = Decimal
UP, EVEN, DOWN = Rounding.HALF_UP, Rounding.HALF_EVEN, Rounding.DOWN


def d(text: str) -> date:
    return date.fromisoformat(text)


PRORATED = [
    # 10.00 x 16/31 = 5.1612...
    pytest.param("10", "2026-01-01", "2026-02-01", "2026-01-16", "2026-02-01", "5.16", id="16 of 31"),
    # 10.00 x 15/30
    pytest.param("10", "2026-04-01", "2026-05-01", "2026-04-16", "2026-05-01", "5.00", id="15 of 30"),
    # 10.00 x 13/28 = 4.6428...
    pytest.param("10", "2026-02-01", "2026-03-01", "2026-02-16", "2026-03-01", "4.64", id="13 of 28"),
    # 10.00 x 14/29 = 4.8275...
    pytest.param("10", "2028-02-01", "2028-03-01", "2028-02-16", "2028-03-01", "4.83", id="14 of 29"),
    # a period from the 31st to the last of February: 28 days, 8 used
    pytest.param("28", "2026-01-31", "2026-02-28", "2026-02-20", "2026-02-28", "8.00", id="month end"),
    # and the one after it, to 31 March: 31 days
    pytest.param("31", "2026-02-28", "2026-03-31", "2026-03-01", "2026-03-31", "30.00", id="the next"),
    pytest.param("10", "2026-01-01", "2026-02-01", "2025-12-05", "2026-03-01", "10.00", id="all of it"),
    pytest.param("10", "2026-01-01", "2026-02-01", "2026-02-01", "2026-03-01", "0.00", id="after it"),
    pytest.param("10", "2026-01-01", "2026-02-01", "2026-01-31", "2026-02-09", "0.32", id="one day"),
    pytest.param("10", "2026-01-01", "2026-02-01", "2026-01-07", "2026-01-07", "0.00", id="no day"),
]  # fmt: skip


@pytest.mark.parametrize(("amount", "begin", "end", "used_from", "used_to", "expected"), PRORATED)
def test_fees_are_prorated_by_days(
    amount: str, begin: str, end: str, used_from: str, used_to: str, expected: str
) -> None:
    share = prorate(D(amount), d(begin), d(end), d(used_from), d(used_to), 2, UP)
    assert share == D(expected)


def test_the_rounding_of_a_share_is_the_one_asked_for() -> None:
    # 0.30 x 1/4 of a term of 4 days = 0.075
    term = (d("2026-01-01"), d("2026-01-05"), d("2026-01-01"), d("2026-01-02"))
    assert prorate(D("0.30"), *term, 2, UP) == D("0.08")
    assert prorate(D("0.30"), *term, 2, DOWN) == D("0.07")
    assert prorate(D("0.10"), *term, 2, EVEN) == D("0.02")


def test_terms_that_begin_on_the_31st_are_prorated_by_their_own_days() -> None:
    begin, end = (
        term_after("month", datetime(2026, 1, 31, tzinfo=UTC), n, UTC).date() for n in (0, 1)
    )
    # 31 January to 28 February: 28 days; 14 of them
    assert prorate(D(10), begin, end, end - timedelta(days=14), end, 2, UP) == D(5)


@pytest.mark.parametrize(
    ("begin", "end", "used_from", "used_to", "field"),
    [
        ("2026-01-01", "2026-01-01", "2026-01-01", "2026-01-01", "end"),
        ("2026-01-01", "2026-02-01", "2026-01-10", "2026-01-09", "used_to"),
    ],
)
def test_days_the_wrong_way_round_are_refused(
    begin: str, end: str, used_from: str, used_to: str, field: str
) -> None:
    with pytest.raises(InvalidInput) as refused:
        prorate(D(1), d(begin), d(end), d(used_from), d(used_to), 2, UP)
    assert refused.value.field == field


days = st.dates(date(2020, 1, 1), date(2030, 1, 1))


@given(st.decimals(0, 10_000, places=4), days, st.integers(1, 366), st.integers(0, 366))
def test_two_parts_of_a_period_are_the_whole_of_it(
    amount: Decimal, begin: date, length: int, cut: int
) -> None:
    """Up to one step of rounding for each part."""
    end, middle = begin + timedelta(days=length), begin + timedelta(days=min(cut, length))
    parts = prorate(amount, begin, end, begin, middle, 8, EVEN) + prorate(
        amount, begin, end, middle, end, 8, EVEN
    )
    assert abs(parts - amount) <= D("0.00000001")


def test_a_commitment_leaves_what_was_not_spent() -> None:
    assert shortfall(D("500"), D("420.5")) == D("79.5")
    assert shortfall(D("500"), D("500.01")) == 0


def test_commissions_are_rounded_once_and_a_loss_earns_nothing() -> None:
    # 12.5 % of 333.33 = 41.66625
    assert commission(D("12.5"), D("333.33"), 2, UP) == D("41.67")
    assert commission(D("12.5"), D("333.33"), 4, EVEN) == D("41.6662")
    assert commission(D("12.5"), D("-10"), 2, UP) == 0
