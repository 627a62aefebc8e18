"""Money is exact, bounded, and never a float."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.core.naive import naive_round
from tollkeeper.core.money import (
    LIMIT,
    SCALE,
    ULP,
    Rounding,
    parse_amount,
    parse_currency,
    plain,
    quantum,
    round_money,
)
from tollkeeper.errors import InvalidInput

D = Decimal


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("0", "0"),
        ("12.50", "12.5"),
        ("-3", "-3"),
        ("+0.00000001", "0.00000001"),
        ("999999999999999.99999999", "999999999999999.99999999"),
    ],
)
def test_a_decimal_string_is_an_amount(text: str, amount: str) -> None:
    assert parse_amount(text) == D(amount)


@pytest.mark.parametrize(
    "wrong",
    [
        "", " ", "1 ", " 1", "1,5", "1.", ".5", "1e3", "1E400", "NaN", "Infinity", "-inf", "0x10",
        "1_000", "--1", "1.123456789", "1" * 17, "1000000000000000", "-1000000000000000",
        "\u0661\u0662", "1\n", "9" * 5000, 1.5, 1, None, D("1.5"), True, b"1", [], {},
    ],
)  # fmt: skip
def test_anything_else_is_refused_by_name(wrong: object) -> None:
    """No exponent, no NaN, no float, nothing beyond eight decimals or 10^15."""
    with pytest.raises(InvalidInput) as caught:
        parse_amount(wrong, field="topup")
    assert caught.value.code == "invalid_amount"
    assert caught.value.field == "topup"
    assert len(caught.value.detail) < 200


@given(st.decimals(min_value=-LIMIT + 1, max_value=LIMIT - 1, places=SCALE))
def test_what_is_written_plainly_reads_back_the_same(amount: Decimal) -> None:
    text = plain(amount)
    assert parse_amount(text) == amount
    assert len(text.partition(".")[2]) >= 2
    assert "E" not in text


@pytest.mark.parametrize(
    ("amount", "text"),
    [("0", "0.00"), ("1E+2", "100.00"), ("1.50000000", "1.50"), ("0.00000010", "0.0000001")],
)
def test_plain_keeps_two_decimals_and_drops_idle_zeros(amount: str, text: str) -> None:
    assert plain(D(amount)) == text


@given(
    st.one_of(
        st.decimals(0, 10**6, places=9),
        st.integers(0, 10**6).map(lambda n: D(n * 5) / 1000),
        st.integers(0, 10**4).map(lambda n: D(n * 10 + 5).scaleb(-9)),
    ),
    st.integers(0, 8),
    st.sampled_from(Rounding),
)
def test_rounding_agrees_with_whole_numbers(amount: Decimal, decimals: int, mode: Rounding) -> None:
    """Ties come often: the amounts have few decimals, most of them a 5."""
    assert round_money(amount, decimals, mode) == naive_round(Fraction(amount), decimals, mode)


def test_the_smallest_steps() -> None:
    assert quantum(0) == 1
    assert quantum(SCALE) == ULP == D("0.00000001")


def test_a_currency_is_three_capital_letters() -> None:
    assert parse_currency("USD") == "USD"
    for wrong in ("usd", "US", "USDT", "U$D", "", "\u00c4BC", "USD\n"):
        with pytest.raises(InvalidInput) as caught:
            parse_currency(wrong)
        assert caught.value.code == "invalid_currency"
