"""Columns of numbers are normalised as the core does it, one by one."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tollkeeper.bulk.numbers import align_column, aligned, normalise_column
from tollkeeper.core.numbering import DEFAULT_RULES, DialRules, normalise
from tollkeeper.errors import InvalidInput

RULES = [
    DEFAULT_RULES,
    DialRules(),
    DialRules(tech_prefix="99#", tech_prefix_required=True),
    DialRules(tech_prefix="77", national="0", country_code="39"),
    DialRules(international=("",), national="0", country_code="39"),
    DialRules(international=(), national="0", country_code="+44"),
    DialRules(international=("9011", "00", "+"), national="1", country_code="1" * 12),
    DialRules(tech_prefix="é", national="٠", country_code="39"),
    DialRules(tech_prefix="1-2", international=("00", "0"), national="8"),
]

raw = st.one_of(
    st.text(max_size=20),
    st.text(alphabet="0123456789", max_size=20),
    st.text(alphabet="0123456789+#.-() /\t@", max_size=24),
    st.builds(
        lambda *parts: "".join(parts),
        st.sampled_from(
            ["", " ", "\x1c\r\n", "\u00a0", "tel:", "sip:", "tel:sip:", "sip:tel:", "te"]
        ),
        st.sampled_from(["", "99#", "77", "é", "1-2", "12"]),
        st.sampled_from(["", "+", "00", "011", "0", "9011", "٠"]),
        st.text(alphabet="0123456789", max_size=17),
        st.sampled_from(["", "@host", ";x=1", "x", "\x00", "٣", " " * 70, "\x0b", "\x1f", "."]),
    ),
)


def expected(text: str, rules: DialRules) -> str:
    try:
        return normalise(text, rules)
    except InvalidInput:
        return ""


@settings(max_examples=500)
@given(st.lists(st.tuples(raw, st.integers(0, len(RULES) - 1)), max_size=30))
@example([("", 0), ("+", 0), ("00", 0), ("@", 0), ("tel:", 0), ("1" * 15, 0), ("1" * 16, 0)])
@example([("x" * 5000, 0), (" " * 100 + "391", 0), ("39\u00a0", 0), ("٣٩", 0), ("²", 0)])
def test_a_column_is_normalised_as_the_core_does(rows: list[tuple[str, int]]) -> None:
    """Whatever the characters: the same digits, and the same rows refused."""
    column = pl.Series("called", [text for text, _ in rows], dtype=pl.String)
    number, digits, text, bad = normalise_column(column, np.array([n for _, n in rows], int), RULES)
    wanted = [expected(text, RULES[n]) for text, n in rows]
    assert text.to_list() == wanted
    assert text.name == "called"
    assert number.tolist() == [aligned(each) for each in wanted]
    assert digits.tolist() == [len(each) for each in wanted]
    assert bad.tolist() == [each == "" for each in wanted]


def test_a_null_is_an_empty_text_and_slices_are_themselves() -> None:
    column = pl.Series([None, "+39 06", "0039", "é", "39\u2003"])
    number, _, text, bad = normalise_column(
        column.slice(0, 5), np.zeros(5, np.int8), [DEFAULT_RULES]
    )
    assert text.to_list() == ["", "3906", "39", "", "39"]
    assert bad.tolist() == [True, False, False, True, False]
    assert number[1] == 3906 * 10**14
    _, _, text, _ = normalise_column(column.slice(1, 2), np.zeros(2, np.int64), [DEFAULT_RULES])
    assert text.to_list() == ["3906", "39"]


def test_rules_that_are_not_there_are_refused() -> None:
    for rule in ([1], [-1]):
        with pytest.raises(ValueError, match="not among the rules"):
            normalise_column(pl.Series(["1"]), np.array(rule), [DEFAULT_RULES])
    with pytest.raises(ValueError, match="differ in number"):
        normalise_column(pl.Series(["1"]), np.array([0, 0]), [DEFAULT_RULES])


@given(
    st.lists(st.one_of(raw, st.none(), st.text(alphabet="0123456789", max_size=19)), max_size=30)
)
def test_digits_are_aligned_and_nothing_else(texts: list[str | None]) -> None:
    number, digits, bad = align_column(pl.Series(texts, dtype=pl.String))
    for at, text in enumerate(texts):
        good = text is not None and len(text) <= 18 and all(c in "0123456789" for c in text)
        assert bad[at] == (not good)
        if text is not None and good:
            assert (number[at], digits[at]) == (aligned(text), len(text))
        else:
            assert (number[at], digits[at]) == (0, 0)
