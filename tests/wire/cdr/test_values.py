"""Single fields and lines: what is read, and what is refused with advice."""

from __future__ import annotations

import io
from decimal import Decimal

import pytest

from tests.wire.cdr.shared import Endless, us
from tollkeeper.errors import InvalidInput
from tollkeeper.wire.cdr.values import (
    FieldProblem,
    TooLong,
    decimal_price,
    decode,
    duration_ms,
    integer,
    ip_text,
    lines,
    mos_hundredths,
    number_text,
    plain_text,
    q850_cause,
    raw_text,
    sip_status,
    time_reader,
)


@pytest.mark.parametrize(
    ("text", "unit", "expected"),
    [
        ("12", "s", 12_000),
        ("12.345", "s", 12_345),
        ("12.3455", "s", 12_346),
        ("0.0004", "s", 0),
        ("1500", "ms", 1_500),
        ("1500.5", "ms", 1_501),
        ("67539896", "us", 67_540),
        ("499", "us", 0),
        ("01:02:03", "hh:mm:ss", 3_723_000),
        ("100:00:00.5", "hh:mm:ss", 360_000_500),
        ("02:03", "hh:mm:ss", 123_000),
        ("75", "hh:mm:ss", 75_000),
        ("-0", "s", 0),
        ("10000000", "s", 10_000_000_000),
        ("4294967290", "us", 4_294_967),
    ],
)
def test_durations_are_the_nearest_millisecond(text: str, unit: str, expected: int) -> None:
    assert duration_ms(text, unit) == expected


@pytest.mark.parametrize(
    ("text", "unit", "said"),
    [
        ("-6", "s", "negative"),
        ("-0.001", "s", "negative"),
        ("-00:00:05", "hh:mm:ss", "negative"),
        ("4294967290", "s", "-6 written in 32 bits"),
        ("4294967295", "ms", "-1 written in 32 bits"),
        ("10000001", "s", "115 days"),
        ("", "s", "missing"),
        ("1e3", "s", "not a duration"),
        ("1,5", "s", "not a duration"),
        ("00:61:00", "hh:mm:ss", "not a duration"),
        ("NaN", "s", "not a duration"),
        ("\u0661", "s", "not a duration"),
        ("9" * 40, "s", "not a duration"),
    ],
)
def test_impossible_durations_are_refused(text: str, unit: str, said: str) -> None:
    with pytest.raises(FieldProblem) as caught:
        duration_ms(text, unit)
    assert said in caught.value.reason
    assert caught.value.field == "duration"


@pytest.mark.parametrize(
    ("layout", "zone", "text", "expected"),
    [
        ("%Y-%m-%d %H:%M:%S", "UTC", "2026-01-31 12:00:00", us(2026, 1, 31, 12)),
        ("%Y-%m-%d %H:%M:%S", "Europe/Rome", "2026-07-31 12:00:00", us(2026, 7, 31, 10)),
        ("%F %T", "Asia/Kolkata", " 2026-07-31 12:00:00 ", us(2026, 7, 31, 6, 30)),
        ("%d/%m/%Y %H:%M", "UTC", "1/2/2026 3:04", us(2026, 2, 1, 3, 4)),
        ("%m/%d/%Y %I:%M:%S %p", "UTC", "02/01/2026 12:04:05 am", us(2026, 2, 1, 0, 4, 5)),
        ("%d %b %Y %H:%M:%S.%f %z", "UTC", "1 Feb 2026 03:04:05.123456789 +0530", us(2026, 1, 31, 21, 34, 5, 123_456)),
        ("%d-%B-%y %H:%M:%S", "UTC", "01-february-69 00:00:00", us(1969, 2, 1)),
        ("%Y%m%d%H%M%S", "UTC", "20260201030405", us(2026, 2, 1, 3, 4, 5)),
        ("iso", "UTC", "2026-02-01T03:04:05Z", us(2026, 2, 1, 3, 4, 5)),
        ("iso", "Europe/Rome", "2026-02-01 03:04:05.5", us(2026, 2, 1, 2, 4, 5, 500_000)),
        ("iso", "Europe/Rome", "20260201T030405-03:00", us(2026, 2, 1, 6, 4, 5)),
        ("epoch", "Europe/Rome", "1436280728", us(2015, 7, 7, 14, 52, 8)),
        ("epoch", "UTC", "1436280728.4711534", us(2015, 7, 7, 14, 52, 8, 471_153)),
        ("epoch_ms", "UTC", "1436280728471", us(2015, 7, 7, 14, 52, 8, 471_000)),
        ("epoch_us", "UTC", "1436280728471153", us(2015, 7, 7, 14, 52, 8, 471_153)),
    ],
)  # fmt: skip
def test_times_of_many_layouts(layout: str, zone: str, text: str, expected: int) -> None:
    assert time_reader(layout, zone)(text, "start") == expected


def test_an_hour_that_comes_twice_is_its_first_and_a_skipped_one_is_refused() -> None:
    """Rome leaves summer time on 25 October 2026 and enters it on 29 March 2026."""
    read = time_reader("%Y-%m-%d %H:%M:%S", "Europe/Rome")
    assert read("2026-10-25 02:30:00", "start") == us(2026, 10, 25, 0, 30)
    with pytest.raises(FieldProblem, match="skip that hour"):
        read("2026-03-29 02:30:00", "start")


@pytest.mark.parametrize(
    ("layout", "text", "said"),
    [
        ("%Y-%m-%d %H:%M:%S", "45133.07766", "Excel"),
        ("%Y-%m-%d %H:%M:%S", "########", "Excel"),
        ("%Y-%m-%d %H:%M:%S", "2026-13-01 00:00:00", "day and month"),
        ("%Y-%m-%d %H:%M:%S", "2026-02-30 00:00:00", "day and month"),
        ("%Y-%m-%d %H:%M:%S", "2026-02-01 24:00:00", "no time of the calendar"),
        ("%Y-%m-%d %H:%M:%S", "2026-02-01", "not a time written as"),
        ("%Y-%m-%d %H:%M:%S", "", "missing"),
        ("epoch", "1436280728471", "epoch_ms"),
        ("epoch", "1.43628E+09", "Excel"),
        ("epoch", "-1", "not a time"),
        ("iso", "0000-00-00T00:00:00Z", "no time of the calendar"),
    ],
)
def test_what_is_no_time_is_refused(layout: str, text: str, said: str) -> None:
    with pytest.raises(FieldProblem) as caught:
        time_reader(layout)(text, "start")
    assert said in caught.value.reason


@pytest.mark.parametrize(
    "layout", ["", "%Q", "%H:%M:%S", "%Y-%m-%d %I:%M", "%Y-%m-%d %Y", "%", "now"]
)
def test_a_layout_that_is_none_is_said_at_once(layout: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        time_reader(layout)
    assert "layout" in caught.value.detail


@pytest.mark.parametrize("zone", ["Mars/Olympus", "../etc/passwd", "", "Europe/Rome\0"])
def test_a_zone_that_is_none_is_said_at_once(zone: str) -> None:
    with pytest.raises(InvalidInput):
        time_reader("iso", zone)


@pytest.mark.parametrize("text", ["4.4E+11", "4,4E+11", "44E+10", "4.42012e11", "442012345678.0"])
def test_numbers_that_a_spreadsheet_shortened_are_refused_with_advice(text: str) -> None:
    with pytest.raises(FieldProblem) as caught:
        number_text(text, "called")
    assert "without opening it in Excel" in caught.value.reason


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (" +442012345678 ", "+442012345678"),
        ('="00442012345678"', "00442012345678"),
        ("'00442012345678", "00442012345678"),
        ("sip:44201@example.net", "sip:44201@example.net"),
        ("548625e1", "548625e1"),
        ("", ""),
    ],
)
def test_numbers_stay_as_they_were_written(text: str, expected: str) -> None:
    assert number_text(text, "called") == expected


@pytest.mark.parametrize("text", ["a\0b", "a\x1bb", "x" * 256, "\ud800"])
def test_texts_that_cannot_be_stored_are_refused(text: str) -> None:
    with pytest.raises(FieldProblem):
        plain_text(text, "call_id")


def test_small_readers() -> None:
    assert [sip_status(one) for one in ("200", "0", "", "487.0")] == [200, None, None, 487]
    assert [q850_cause(one) for one in ("16", "-", "127")] == [16, None, 127]
    assert [mos_hundredths(one) for one in ("4.50", "4.5", "4.567", "0", "")] == [
        450,
        450,
        456,
        None,
        None,
    ]
    assert [ip_text(one, "ip_in") for one in ("192.0.2.1:5060", "[2001:db8::1]:5060", "2001:db8::1", "gw.example:5060")] == [
        "192.0.2.1", "2001:db8::1", "2001:db8::1", "gw.example:5060",
    ]  # fmt: skip
    assert decimal_price("0.01250") == Decimal("0.01250")
    assert decimal_price(" ") is None
    for bad in (lambda: sip_status("99"), lambda: q850_cause("128"), lambda: mos_hundredths("93"),
                lambda: decimal_price("1e400"), lambda: integer("x", "sequence", 0, 9)):  # fmt: skip
        with pytest.raises(FieldProblem):
            bad()


def test_lines_have_numbers_and_neither_ends_nor_marks() -> None:
    data = b"\xef\xbb\xbfa\r\n\r\nb\rc\nlast"
    assert list(lines(io.BytesIO(data))) == [(1, b"a"), (2, b""), (3, b"b\rc"), (4, b"last")]
    assert list(lines(io.BytesIO(b""))) == []
    assert list(lines(io.BytesIO(b"a\n"))) == [(1, b"a")]


def test_lines_of_utf_16_are_utf_8() -> None:
    for name in ("utf-16", "utf-16-le"):
        data = "Málaga\nb".encode(name)
        assert list(lines(io.BytesIO(data), name)) == [(1, "Málaga".encode()), (2, b"b")]
    assert list(lines(io.BytesIO("a\nb".encode("utf-16")))) == [(1, b"a"), (2, b"b")]


def test_a_line_of_200_mib_is_told_and_never_held() -> None:
    """What follows it is read as if it were not there."""
    size = 200 * 2**20
    stream = Endless(b"one\n", b"x", size, b"\nthree\n")
    found = list(lines(stream))  # type: ignore[arg-type]
    assert [number for number, _ in found] == [1, 2, 3]
    assert isinstance(found[1][1], TooLong)
    assert found[1][1].length == size
    assert len(found[1][1].head) < 20_000
    assert (found[0][1], found[2][1]) == (b"one", b"three")


def test_text_of_a_wrong_encoding_is_still_text() -> None:
    assert decode("Málaga".encode()) == "Málaga"
    assert decode("Málaga".encode("cp1252")) == "Málaga"
    assert decode(b"\x81\xff") == "\x81ÿ"
    with pytest.raises(InvalidInput, match="encoding"):
        list(lines(io.BytesIO(b"a"), "klingon"))
    with pytest.raises(InvalidInput, match="encoding"):
        list(lines(io.BytesIO(b"a"), "hex"))


def test_a_kept_record_can_be_stored() -> None:
    assert raw_text(b"a\0b") == "a\u2400b"
    assert raw_text("\ud800x") == "?x"
    assert len(raw_text(b"y" * 10_000)) == 4_000
