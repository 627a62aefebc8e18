"""Mappings: what they may say, and how rows are read by them."""

from __future__ import annotations

import io
import json
import time
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.wire.cdr.shared import us
from tollkeeper.core.usage import Item, Refused, Skipped, Usage
from tollkeeper.errors import InvalidInput
from tollkeeper.wire.cdr.format import ReadOptions
from tollkeeper.wire.cdr.mapping import load_mapping
from tollkeeper.wire.cdr.rows import read_rows

TOML = """
format = "csv"
delimiter = ";"
comment = "#"
[fields]
call_id = "uniqueid"
start = { column = "calldate", time = "%Y-%m-%d %H:%M:%S", zone = "Europe/Rome" }
end = { column = "hangup", time = "epoch" }
duration = { column = "billsec", unit = "s" }
caller = { column = "src", strip = "+", prefix = "39" }
called = { column = "dst", extract = "^sip:([^@]+)@", cut = 2 }
trunk_in = { constant = "main" }
sip = { column = "disposition", values = { ANSWERED = "200", BUSY = "486" } }
price = "cost"
currency = { constant = "eur" }
[[filters]]
column = "disposition"
in = ["ANSWERED", "BUSY"]
[[filters]]
column = "dst"
matches = "^sip:"
"""
HEADER = "uniqueid;calldate;hangup;billsec;src;dst;disposition;cost\n"
SIMPLE: dict[str, Any] = {
    "fields": {
        "call_id": "id",
        "start": {"column": "at", "time": "epoch"},
        "duration": "sec",
        "called": "to",
    }
}


def read(mapping: str | dict[str, Any], data: str | bytes, timezone: str = "UTC") -> list[Item]:
    raw = data.encode() if isinstance(data, str) else data
    options = ReadOptions(timezone=timezone, mapping=load_mapping(mapping))
    return list(read_rows(io.BytesIO(raw), options))


def one(mapping: str | dict[str, Any], data: str | bytes) -> Item:
    (found,) = [item for item in read(mapping, data) if not isinstance(item, Skipped)]
    return found


def test_every_rule_of_a_mapping_has_its_effect() -> None:
    row = "a1;2026-07-01 12:00:00;1782900070;60.5;+0612;sip:0044201@x;ANSWERED;0.0125\n"
    assert one(TOML, HEADER + row) == Usage(
        line=2,
        call_id="a1",
        start=us(2026, 7, 1, 10),
        end=1_782_900_070_000_000,
        answer=1_782_900_009_500_000,
        duration_ms=60_500,
        caller="390612",
        called="44201",
        trunk_in="main",
        sip=200,
        price=Decimal("0.0125"),
        currency="EUR",
    )


def test_rows_that_a_filter_leaves_out_are_skipped_and_counted() -> None:
    rows = (
        "# a comment\n\n"
        "a1;2026-07-01 12:00:00;0;0;1;sip:00@x;FAILED;\n"
        "a2;2026-07-01 12:00:00;0;0;1;tel:00;BUSY;\n"
        "a3;2026-07-01 12:00:00;0;0;1;sip:0044@x;BUSY;\n"
    )
    found = read(TOML, HEADER + rows)
    assert [type(item) for item in found] == [Skipped] * 5 + [Usage]
    assert [item.line for item in found] == [1, 2, 3, 4, 5, 6]
    last = found[-1]
    assert isinstance(last, Usage)
    assert (last.sip, last.answer, last.end) == (486, None, None)


def test_a_mapping_reads_the_same_from_toml_json_and_its_own_dictionary() -> None:
    mapping = load_mapping(TOML)
    assert load_mapping(mapping.to_dict()) == mapping
    assert load_mapping(json.dumps(mapping.to_dict())) == mapping


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"format": "xlsx"}, "format"),
        ({"fields": {}}, "fields"),
        ({"fields": {"start": "a", "duration": "b"}}, "fields.call_id"),
        ({"fields": {"call_id": "a", "duration": "b"}}, "fields.start"),
        ({"fields": {"call_id": "a", "start": "b"}}, "fields.duration"),
        ({"delimiter": ",,"}, "delimiter"),
        ({"delimiter": '"'}, "quote"),
        ({"header": "yes"}, "header"),
        ({"header": False}, "fields"),
        ({"encoding": "klingon"}, "encoding"),
        ({"columns": -1}, "columns"),
        ({"typo": 1}, "typo"),
        ({"filters": [{"column": "x"}]}, "filters[0]"),
        ({"filters": [{"column": "x", "matches": "("}]}, "filters[0]"),
        ({"filters": {"column": "x"}}, "filters"),
    ],
)
def test_a_wrong_mapping_names_the_key(change: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        load_mapping({**SIMPLE, **change})
    assert caught.value.field == field
    assert caught.value.detail.endswith(".")


@pytest.mark.parametrize(
    ("name", "rule", "field"),
    [
        ("duration_ms", "x", "fields.duration_ms"),
        ("called", {}, "fields.called"),
        ("called", {"column": "x", "constant": "y"}, "fields.called"),
        ("called", {"column": "x", "extract": "no group"}, "fields.called.extract"),
        ("called", {"column": "x", "extract": "(a)(b)"}, "fields.called.extract"),
        ("called", {"column": "x", "cut": "2"}, "fields.called.cut"),
        ("called", {"column": "x", "time": "iso"}, "fields.called.time"),
        ("called", {"column": "x", "unit": "s"}, "fields.called.unit"),
        ("duration", {"column": "x", "unit": "h"}, "fields.duration.unit"),
        ("duration", {"column": "x", "cut": 1}, "fields.duration"),
        ("start", {"column": "x", "time": "%Q"}, "time"),
        ("start", {"column": "x", "time": "iso", "zone": "Mars"}, "timezone"),
        ("start", {"column": "x", "time": "epoch", "zone": "UTC"}, "fields.start.zone"),
        ("start", ["x"], "fields.start"),
        ("sip", {"column": "x", "values": {"A": []}}, "fields.sip.values.A"),
    ],
)
def test_a_wrong_rule_names_the_key(name: str, rule: object, field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        load_mapping({"fields": {**SIMPLE["fields"], name: rule}})
    assert caught.value.field == field


@pytest.mark.parametrize(
    "text", ["", "= 1", "{", "[]", "fields = 1", "[" * 100_000, '{"a":' * 100_000]
)
def test_text_that_is_no_mapping_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        load_mapping(text)


def test_a_doubled_header_is_refused_only_where_it_matters() -> None:
    """The advice, the column's number, works."""
    data = "id,at,sec,to,to,x,x\na,1700000000,1,44,45,,\n"
    with pytest.raises(InvalidInput, match="c4"):
        read(SIMPLE, data)
    by_number = {"fields": {**SIMPLE["fields"], "called": "c5"}}
    found = one(by_number, data)
    assert isinstance(found, Usage)
    assert found.called == "45"


def test_a_wrong_delimiter_is_told_from_the_header() -> None:
    with pytest.raises(InvalidInput) as caught:
        read(SIMPLE, "id;at;sec;to\na;1700000000;1;44\n")
    assert "delimiter" in caught.value.detail


def test_columns_are_found_whatever_their_case() -> None:
    assert isinstance(one(SIMPLE, "ID, At ,SEC,TO\na,1700000000,1,44\n"), Usage)


@pytest.mark.parametrize(
    ("row", "field", "said"),
    [
        ("a,1700000000,1", "line", "3 columns"),
        ("a,1700000000,1,44,x", "line", "5 columns"),
        ('a,1700000000,1,"44', "line", "quotes"),
        ('a,1700000000,1,"4"4', "line", "quotes"),
        (",1700000000,1,44", "call_id", "missing"),
        ("a,,1,44", "start", "missing"),
        ("a,0,1,44", "start", "missing"),
        ("a,1700000000,-1,44", "duration", "negative"),
        ("a,1700000000,4294967286,44", "duration", "-10 written in 32 bits"),
        ("a,1700000000,1,4.4E+11", "called", "Excel"),
        ("4.4E+11,1700000000,1,44", "call_id", "Excel"),
        ("a,2023-11-14,1,44", "start", "epoch"),
        ("a,1700000000,1,4\x004", "called", "control"),
        ("a" * 300 + ",1700000000,1,44", "call_id", "255"),
    ],
)
def test_a_bad_row_is_refused_by_field_and_the_next_is_read(
    row: str, field: str, said: str
) -> None:
    found = read(SIMPLE, f"id,at,sec,to\n{row}\nb,1700000000,1,44\n")
    bad = found[1]
    assert isinstance(bad, Refused)
    assert (bad.line, bad.field) == (2, field)
    assert said in bad.reason
    assert bad.raw.startswith(row[:20].replace("\0", "\u2400")[:20])
    assert isinstance(found[2], Usage)


def test_one_empty_column_more_is_forgiven() -> None:
    assert isinstance(one(SIMPLE, "id,at,sec,to\na,1700000000,1,44,\n"), Usage)


def test_a_million_columns_are_one_refusal_and_take_no_time() -> None:
    data = "id,at,sec,to\n" + "," * 1_000_000 + "\n" + "," * 3_000_000 + "\na,1700000000,1,44\n"
    began = time.perf_counter()
    found = read(SIMPLE, data)
    assert time.perf_counter() - began < 2
    assert [type(item) for item in found] == [Skipped, Refused, Refused, Usage]
    assert "4,096 columns" in found[1].reason  # type: ignore[union-attr]
    assert "3,000,000 bytes" in found[2].reason  # type: ignore[union-attr]
    with pytest.raises(InvalidInput, match="header"):
        read(SIMPLE, "," * 1_000_000)


def test_mixed_encodings_and_mojibake_cost_no_record() -> None:
    rows = (
        b"id,at,sec,to\nM\xc3\xa1,1700000000,1,44\nM\xe1,1700000000,1,44\nM\x81,1700000000,1,44\n"
    )
    found = [item for item in read(SIMPLE, rows) if isinstance(item, Usage)]
    assert [item.call_id for item in found] == ["Má", "Má", "M\x81"]


def test_a_table_of_excel_in_utf_16_is_read() -> None:
    data = "id\tat\tsec\tto\na\t1700000000\t1\t44\n".encode("utf-16")
    assert isinstance(one({**SIMPLE, "delimiter": "\\t"}, data), Usage)


def test_an_answer_is_worked_out_where_it_is_not_given() -> None:
    """It is end - duration, or the start; nothing for a call of no duration."""
    mapping = {
        "fields": {
            **SIMPLE["fields"],
            "end": {"column": "end", "time": "epoch"},
            "answer": {"column": "ans", "time": "epoch", "else": "ans2"},
        }
    }
    header = "id,at,sec,to,end,ans,ans2\n"
    for row, answer in (
        ("a,1000,5,44,1020,,", 1_015_000_000),
        ("a,1000,5,44,,,", 1_000_000_000),
        ("a,1000,0,44,1020,,", None),
        ("a,1000,5,44,1020,1014,", 1_014_000_000),
        ("a,1000,5,44,1020,,1013", 1_013_000_000),
    ):
        found = one(mapping, header + row)
        assert isinstance(found, Usage)
        assert found.answer == answer, row


def test_without_a_duration_it_is_end_minus_answer() -> None:
    fields = {name: rule for name, rule in SIMPLE["fields"].items() if name != "duration"}
    mapping = {
        "fields": {
            **fields,
            "end": {"column": "end", "time": "epoch"},
            "answer": {"column": "ans", "time": "epoch"},
        }
    }
    header = "id,at,to,end,ans\n"
    good, missed, negative, open_ = read(
        mapping, header + "a,10,4,70.5,11\nb,10,4,70,\nc,10,4,70,71\nd,10,4,,71\n"
    )[1:]
    assert isinstance(good, Usage)
    assert good.duration_ms == 59_500
    assert isinstance(missed, Usage)
    assert (missed.duration_ms, missed.answer) == (0, None)
    assert isinstance(negative, Refused)
    assert "negative" in negative.reason
    assert isinstance(open_, Refused)
    assert open_.field == "duration"


JSONL: dict[str, Any] = {
    "format": "jsonl",
    "fields": {
        "call_id": "id",
        "start": {"column": "times.start", "time": "iso"},
        "duration": {"column": "times.ms", "unit": "ms"},
        "called": "legs.0.to",
        "price": "cost",
        "service": "kind",
    },
}


def test_json_lines_are_read_by_paths_and_lose_no_digit() -> None:
    row = '{"id":12345678901234567890,"times":{"start":"2026-02-01T03:04:05Z","ms":1500},"legs":[{"to":"+44"}],"cost":0.10000000000000001e0}'
    found = read(JSONL, row.replace("e0", "")[:-1] + "}")[0]
    assert found == Refused(1, "price", "0.10000000000000001", found.reason, found.raw)  # type: ignore[union-attr]
    good = one(JSONL, row.replace("0.10000000000000001e0", "0.10"))
    assert good == Usage(
        line=1,
        call_id="12345678901234567890",
        start=us(2026, 2, 1, 3, 4, 5),
        answer=us(2026, 2, 1, 3, 4, 5),
        duration_ms=1_500,
        called="+44",
        price=Decimal("0.10"),
    )


@pytest.mark.parametrize(
    "row",
    [
        "{",
        "[1]",
        "null",
        '"x"',
        "nan",
        '{"id":{"a":1},"times":{"start":"x"}}',
        '{"id":"\\ud800","times":{}}',
        "[" * 100_000,
    ],
)
def test_a_line_that_is_no_such_json_is_refused(row: str) -> None:
    found = one(JSONL, row)
    assert isinstance(found, Refused)
    found.raw.encode()


def test_a_mapping_is_needed() -> None:
    with pytest.raises(InvalidInput, match="sniff"):
        list(read_rows(io.BytesIO(b"a"), ReadOptions()))


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=400), st.sampled_from(["csv", "headed", "jsonl"]))
def test_whatever_the_bytes_every_line_is_accounted_for(data: bytes, kind: str) -> None:
    """One item a line, in order, and nothing but InvalidInput for a header that does not fit."""
    if kind == "jsonl":
        mapping = JSONL
    elif kind == "headed":
        mapping, data = SIMPLE, b"id,at,sec,to\n" + data
    else:
        mapping = {
            "header": False,
            "fields": {"call_id": 1, "start": {"column": 2, "time": "epoch"}, "duration": 3},
        }
    found = read(mapping, data)
    wide = data.startswith((b"\xff\xfe", b"\xfe\xff"))
    if not wide:
        plain = data.removeprefix(b"\xef\xbb\xbf")
        count = plain.count(b"\n") + (not plain.endswith(b"\n") and plain != b"")
        assert [item.line for item in found] == list(range(1, count + 1))
    for item in found:
        if isinstance(item, Refused):
            assert "\0" not in item.raw + item.value
            (item.raw + item.value).encode()


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300))
def test_whatever_the_header_only_invalid_input_is_raised(data: bytes) -> None:
    try:
        found = read(SIMPLE, data)
    except InvalidInput:
        return
    assert all(isinstance(item, Skipped) for item in found[:1])
