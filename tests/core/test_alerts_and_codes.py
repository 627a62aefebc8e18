"""When a percent is crossed, and what is a voucher code."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tollkeeper.core.alerts import crossed, fallen
from tollkeeper.core.vouchers import DIGITS, check_digit, make_code, read_code, show_code

D = Decimal


@pytest.mark.parametrize(
    ("used", "told", "events"),
    [
        ("49.99", (), ()),
        ("50", (), (50,)),
        ("100", (), (50, 80, 100)),
        ("100", (50, 80), (100,)),
        ("-10", (), ()),
    ],
)
def test_each_percent_is_told_once_when_it_is_reached(
    used: str, told: tuple[int, ...], events: tuple[int, ...]
) -> None:
    assert crossed(D(used), D(100), (50, 80, 100), told) == events


def test_a_crossing_is_told_again_only_after_the_use_has_fallen_well_below() -> None:
    assert fallen(D("79.99"), D(100), (50, 80)) == ()
    assert fallen(D(75), D(100), (50, 80)) == ()
    assert fallen(D("74.99"), D(100), (50, 80)) == (80,)
    assert fallen(D(0), D(0), (50,)) == (50,), "a limit that is gone can be used up again"
    assert crossed(D(10), D(0), (50,), ()) == ()


def test_the_check_digit_is_that_of_card_numbers() -> None:
    """The example of ISO/IEC 7812-1 that everybody knows: 7992739871 and 3."""
    assert check_digit("7992739871") == "3"


@given(st.integers(0, 10**15 - 1), st.integers(0, DIGITS - 1), st.integers(1, 9))
def test_a_code_reads_back_and_no_single_wrong_digit_does(
    number: int, place: int, more: int
) -> None:
    code = make_code(number)
    assert len(code) == DIGITS
    assert read_code(f" {show_code(code)} ") == read_code(code) == code
    wrong = code[:place] + str((int(code[place]) + more) % 10) + code[place + 1 :]
    assert read_code(wrong) is None


@pytest.mark.parametrize("text", ["", "1234", "x" * 16, "1" * 17, "\u0661" * 16])  # Arabic digits
def test_other_texts_are_no_codes(text: str) -> None:
    assert read_code(text) is None
