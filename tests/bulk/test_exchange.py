"""Amounts of two currencies compared over columns: as exact as whole numbers are."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tollkeeper.bulk.exchange import worth_less

AMOUNTS = st.lists(
    st.tuples(st.integers(0, 2**63 - 1), st.integers(0, 2**63 - 1)), min_size=1, max_size=8
)
RATES = st.decimals("0.000000000001", "999999999999", places=12)


def _compare(pairs: list[tuple[int, int]], rate: str | Decimal) -> list[bool]:
    amount, than = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
    found: list[bool] = worth_less(amount, than, Decimal(rate)).tolist()
    return found


def test_a_hundred_millionth_too_little_is_less() -> None:
    """0.60 USD at 0.925 are 0.555 EUR: as much as 0.555 EUR, less than 0.55500001."""
    assert _compare(
        [(60_000_000, 55_499_999), (60_000_000, 55_500_000), (60_000_000, 55_500_001)], "0.925"
    ) == [False, False, True]


def test_amounts_beyond_64_bits_are_compared_exactly() -> None:
    """90 billion at a third: 30 billion less a hundredth and 3 tenths; one 10^-8 decides."""
    amount, rate = 9 * 10**18, "0.333333333333"
    worth = 2_999_999_999_997_000_000
    assert _compare([(amount, worth), (amount, worth + 1)], rate) == [False, True]


def test_nothing_is_less_than_something_only() -> None:
    assert _compare([(0, 0), (0, 1), (1, 0)], "999999999999.123456789012") == [False, True, False]
    assert worth_less(np.zeros(0, np.int64), np.zeros(0, np.int64), Decimal("1.1")).tolist() == []


@given(AMOUNTS, RATES)
def test_it_is_what_fractions_say(pairs: list[tuple[int, int]], rate: Decimal) -> None:
    """The same answer as exact fractions of Python give."""
    assert _compare(pairs, rate) == [one * Fraction(rate) < other for one, other in pairs]
