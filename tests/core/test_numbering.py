"""Numbers become E.164 digits, whatever a switch puts around them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tollkeeper.core.numbering import DEFAULT_RULES, DIGITS_MAX, DialRules, normalise
from tollkeeper.errors import InvalidInput

TECH = DialRules(tech_prefix="7700#")
MUST = DialRules(tech_prefix="7700#", tech_prefix_required=True)
SPAIN = DialRules(international=("00",), national="0", country_code="34")


@pytest.mark.parametrize(
    ("raw", "rules", "digits"),
    [
        ("442071234567", DEFAULT_RULES, "442071234567"),
        ("+442071234567", DEFAULT_RULES, "442071234567"),
        ("00442071234567", DEFAULT_RULES, "442071234567"),
        ("011442071234567", DEFAULT_RULES, "442071234567"),
        ("+44 (20) 7123-4567", DEFAULT_RULES, "442071234567"),
        ("44.20.7123/4567", DEFAULT_RULES, "442071234567"),
        ("tel:+442071234567", DEFAULT_RULES, "442071234567"),
        ("sip:442071234567@203.0.113.9", DEFAULT_RULES, "442071234567"),
        ("  442071234567 ", DEFAULT_RULES, "442071234567"),
        ("7700#442071234567", TECH, "442071234567"),
        ("7700#+442071234567", TECH, "442071234567"),
        ("442071234567", TECH, "442071234567"),
        ("7700#00442071234567", MUST, "442071234567"),
        ("0912345678", SPAIN, "34912345678"),
        ("0034912345678", SPAIN, "34912345678"),
        ("+34912345678", SPAIN, "34912345678"),
        ("112", DEFAULT_RULES, "112"),
        ("123456789012345", DEFAULT_RULES, "123456789012345"),
    ],
)
def test_a_number_is_brought_to_digits(raw: str, rules: DialRules, digits: str) -> None:
    assert normalise(raw, rules) == digits


@pytest.mark.parametrize(
    ("raw", "rules"),
    [
        ("", DEFAULT_RULES),
        ("+", DEFAULT_RULES),
        ("00", DEFAULT_RULES),
        ("anonymous", DEFAULT_RULES),
        ("4420712O4567", DEFAULT_RULES),
        ("1234567890123456", DEFAULT_RULES),
        ("+1234567890123456", DEFAULT_RULES),
        ("++44", DEFAULT_RULES),
        ("44*20", DEFAULT_RULES),
        ("\u0664\u0664\u0662\u0660", DEFAULT_RULES),
        ("44\x00", DEFAULT_RULES),
        ("4" * 10_000, DEFAULT_RULES),
        ("442071234567", MUST),
        ("7700#", MUST),
    ],
)
def test_what_cannot_be_called_is_refused_by_name(raw: str, rules: DialRules) -> None:
    with pytest.raises(InvalidInput) as caught:
        normalise(raw, rules)
    assert caught.value.code == "invalid_number"
    assert caught.value.field == "called"
    assert len(caught.value.detail) < 250


@given(st.text(max_size=40))
def test_any_text_gives_digits_or_a_refusal(raw: str) -> None:
    try:
        digits = normalise(raw)
    except InvalidInput:
        return
    assert digits.isascii()
    assert digits.isdigit()
    assert 1 <= len(digits) <= DIGITS_MAX


@given(st.from_regex(r"[1-9][0-9]{0,14}", fullmatch=True))
def test_every_way_to_mark_a_number_means_the_same(digits: str) -> None:
    assert {normalise(mark + digits) for mark in ("+", "00", "011", "tel:+")} == {digits}
