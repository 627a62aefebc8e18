"""Recognising files and proposing mappings for tables nobody has seen before."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tollkeeper.core.usage import Usage
from tollkeeper.errors import InvalidInput
from tollkeeper.wire.cdr.formats import FORMATS, format_of
from tollkeeper.wire.cdr.sniff import Guess, sniff

HEADER = "Session ID;Setup Time;Connect Time;CLI;CLD;Duration;Cost;Currency;Release Cause"
ROW = "a{0};13/07/2026 12:00:0{0};13/07/2026 12:00:05;390612{0};4420{0};00:01:1{0};0.0{0};EUR;16"


def look(text: str | bytes, name: str = "x.csv") -> Guess:
    return sniff(text.encode() if isinstance(text, str) else text, name, FORMATS)


def table(header: str = HEADER, count: int = 7) -> str:
    return "\n".join([header, *(ROW.format(number) for number in range(count))]) + "\n"


def test_a_table_of_semicolons_european_dates_and_clock_durations_is_understood() -> None:
    guess = look(table())
    assert guess.mapping is not None
    assert guess.format == "csv"
    assert guess.mapping.delimiter == ";"
    assert guess.mapping.to_dict()["fields"] == {
        "call_id": "Session ID",
        "start": {"column": "Setup Time", "time": "%d/%m/%Y %H:%M:%S"},
        "answer": {"column": "Connect Time", "time": "%d/%m/%Y %H:%M:%S"},
        "duration": {"column": "Duration", "unit": "hh:mm:ss"},
        "caller": "CLI",
        "called": "CLD",
        "q850": "Release Cause",
        "price": "Cost",
        "currency": "Currency",
    }
    assert len(guess.rows) == 5
    assert all(isinstance(item, Usage) for item in guess.rows)
    assert any("proposal" in note for note in guess.notes)


def test_dates_that_could_be_read_both_ways_are_pointed_out() -> None:
    guess = look(table().replace("13/07", "03/07"))
    assert any("cannot be told apart" in note for note in guess.notes)


def test_a_doubled_header_is_proposed_by_number() -> None:
    guess = look(table(HEADER.replace("Currency", "CLD")))
    assert guess.mapping is not None
    rule = guess.mapping.rule("called")
    assert rule is not None
    assert rule.column == "c5"
    assert any("more than once" in note for note in guess.notes)
    assert all(isinstance(item, Usage) for item in guess.rows)


def test_what_excel_adds_is_passed_over() -> None:
    for data in (
        ("sep=;\n" + table()).encode(),
        table().encode("utf-16"),
        table().encode("utf-8-sig"),
    ):
        guess = look(data)
        assert guess.format == "csv"
        assert any(isinstance(item, Usage) for item in guess.rows)


def test_json_lines_are_understood_with_their_paths() -> None:
    rows = "".join(
        f'{{"call":{{"id":"c{n}","from":"390612","to":"4420{n}"}},"start_time":{1_700_000_000 + n},"billsec":{n}}}\n'
        for n in range(3)
    )
    guess = look(rows, "x.jsonl")
    assert guess.format == "jsonl"
    assert guess.mapping is not None
    assert guess.mapping.to_dict()["fields"] == {
        "call_id": "call.id",
        "start": {"column": "start_time", "time": "epoch"},
        "duration": {"column": "billsec", "unit": "s"},
        "caller": "call.from",
        "called": "call.to",
    }
    assert all(isinstance(item, Usage) for item in guess.rows)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "empty"),
        (b" \r\n\n", "empty"),
        (b"PK\x03\x04xxxx", "Excel"),
        (b"\x1f\x8bxxxx", "gzip"),
        (b"hello world\nthis is text\n", "neither"),
        (b"\x00\x01\x02" * 100, "neither"),
        (b"a,b\n1,2\n", "No whole mapping"),
    ],
)
def test_what_is_no_cdr_file_is_said_in_one_sentence(data: bytes, said: str) -> None:
    guess = look(data)
    assert any(said in note for note in guess.notes)
    assert guess.mapping is None
    assert guess.confidence < 50


def test_formats_are_found_by_code() -> None:
    assert format_of("csv") is FORMATS["csv"]
    with pytest.raises(InvalidInput, match="asterisk-csv"):
        format_of("word")


@settings(max_examples=150, deadline=None)
@given(
    st.one_of(
        st.binary(max_size=300),
        st.text(alphabet=',;|\t"\n{}:0123456789-ab ', max_size=300).map(str.encode),
    )
)
def test_sniffing_raises_nothing_whatever_the_bytes(data: bytes) -> None:
    guess = look(data)
    assert 0 <= guess.confidence <= 100
    assert len(guess.rows) <= 5


def test_a_column_whose_values_belie_its_name_is_tried_as_something_else() -> None:
    """Addresses in "source" are no callers, and 486 is no cause of Q.850."""
    head = (
        b"id,start,source,called,seconds,cause\n"
        b"a1,2026-03-01 12:00:00,192.0.2.7,442071838750,10,200\n"
        b"a2,2026-03-01 12:00:05,192.0.2.7,442071838751,0,486\n"
    )
    guess = sniff(head, "x.csv", FORMATS)
    assert guess.mapping is not None
    first = guess.rows[0]
    assert isinstance(first, Usage)
    assert (first.ip_in, first.sip, first.q850, first.caller) == ("192.0.2.7", 200, None, "")
