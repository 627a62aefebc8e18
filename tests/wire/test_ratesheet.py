"""Reading whole rate sheets: what becomes of every line of a file."""

from __future__ import annotations

import gzip
import io
import time
import zipfile
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tollkeeper.errors import InvalidInput
from tollkeeper.wire.ratesheet import Closing, Repeat, Sheet, SheetOptions, read_sheet

if TYPE_CHECKING:
    from tollkeeper.core.tariff import RateRow


def read(text: str, **options: Any) -> Sheet:
    return read_sheet(text.encode(), SheetOptions(**options))


def rows(sheet: Sheet) -> list[RateRow]:
    return [row for _, row in sheet.rows]


def prefixes(sheet: Sheet) -> list[str]:
    return [row.prefix for _, row in sheet.rows]


def only(sheet: Sheet) -> RateRow:
    assert sheet.refused == []
    assert len(sheet.rows) == 1
    return sheet.rows[0].row


def reasons(sheet: Sheet) -> list[tuple[int, str]]:
    return [(refusal.line, refusal.reason) for refusal in sheet.refused]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_any_delimiter_line_end_and_encoding_is_found_out(
    end: str, mark: str, encoding: str
) -> None:
    lines = ["Prefix,Destination,Rate", "225,Côte d'Ivoire,0.2", "93,Kabul,0.1", ""]
    sheet = read_sheet(end.join(lines).replace(",", mark).encode(encoding))
    assert [(r.prefix, r.destination, r.tariff.next_price) for r in rows(sheet)] == [
        ("225", "Côte d'Ivoire", Decimal("0.2")),
        ("93", "Kabul", Decimal("0.1")),
    ]
    assert [line for line, _ in sheet.rows] == [2, 3]


def test_the_header_is_found_below_a_letterhead_and_line_numbers_are_those_of_the_file() -> None:
    text = "ACME Telecom\n\nRates in USD,,\nCode,Name,Price\n93,Kabul,0.1\nx,Bad,0.1\n"
    sheet = read(text)
    assert sheet.rows[0].line == 5
    assert sheet.refused[0].line == 6
    assert sheet.refused[0].raw == "x,Bad,0.1"
    assert any("The header is in line 4" in note for note in sheet.notes)


def test_excel_may_name_the_delimiter_in_a_line_of_its_own() -> None:
    sheet = read("sep=|\nPrefix|Rate\n93|0,1\n")
    assert (sheet.delimiter, only(sheet).tariff.next_price) == ("|", Decimal("0.1"))


@pytest.mark.parametrize(
    ("header", "line", "expected"),
    [
        ("code,price,interval", "93,0.1,60/1", (60, 1)),
        ("code,price,inc", "93,0.1,6", (6, 6)),
        ("code,price,init_inc,inc", "93,0.1,30,6", (30, 6)),
        ("code,price,init_inc,inc", "93,0.1,0,6", (6, 6)),
        ("code,price,Min,Int", "93,0.1,1,1", (1, 1)),
        ("code,price,Initial Interval", "93,0.1,30", (30, 60)),
        ("code,price,billing increment", "93,0.1,", (60, 60)),
        ("code,price,seconds_allowed", "93,0.1,Y", (1, 1)),
        ("code,price,seconds_allowed", "93,0.1,N", (60, 60)),
        ("code,price,seconds_allowed,increments", "93,0.1,N,30/6", (30, 6)),
    ],
)
def test_increments_come_from_whichever_column_gives_them(
    header: str, line: str, expected: tuple[int, int]
) -> None:
    tariff = only(read(f"{header}\n{line}\n")).tariff
    assert (tariff.first_interval, tariff.next_interval) == expected


@pytest.mark.parametrize(
    ("increments", "note"),
    [
        ("60/1 60/60", None),
        ("60:60 30-6", None),
        ("6 60", "Only one increment is given: it is the first interval too."),
        ("6 60/1", "Where only one increment is given: it is the first interval too."),
    ],
)
def test_a_lone_increment_is_noted_only_where_there_is_one(
    increments: str, note: str | None
) -> None:
    lines = [f"9{n},0.1,{each}" for n, each in enumerate(increments.split(), 1)]
    sheet = read("code,price,interval\n" + "\n".join(lines) + "\n")
    notes = [each for each in sheet.notes if "increment is given" in each]
    assert notes == ([] if note is None else [note])


def test_the_options_decide_what_no_column_says() -> None:
    row = only(read("code,price\n93,0.1\n", increments="30/6", decimals=4, rounding="up"))
    assert (row.tariff.first_interval, row.tariff.next_interval) == (30, 6)
    assert (row.tariff.decimals, row.tariff.rounding) == (4, "up")
    text = "code,price,seconds_allowed\n93,0.1,maybe\n"
    assert only(read(text, seconds_allowed=None)).tariff.first_interval == 60
    assert (
        only(
            read(text.replace("maybe", "Y"), seconds_allowed=("1/1", "60/1"))
        ).tariff.first_interval
        == 1
    )


def test_all_price_elements_are_read() -> None:
    header = "Dial Code,First Rate,Next Rate,Connect Fee,Attempt Fee,Minimum Charge,Max Cost,Surcharge,Grace,Increments"
    tariff = only(read(f"{header}\n93,0.2,0.1,0.05,0.001,0.02,5,0.003,3,60/1\n")).tariff
    assert tariff.first_price == Decimal("0.2")
    assert tariff.next_price == Decimal("0.1")
    assert tariff.connect_fee == Decimal("0.05")
    assert tariff.attempt_fee == Decimal("0.001")
    assert tariff.minimum == Decimal("0.02")
    assert tariff.cap == Decimal(5)
    assert tariff.surcharge == Decimal("0.003")
    assert tariff.free_below == 3


def test_prices_per_second_are_kept_per_minute_but_the_connect_fee_is_not_touched() -> None:
    told = only(read("code,price,setup fee\n93,0.001,0.05\n", per="second")).tariff
    titled = only(read("code,Rate per second,setup fee\n93,0.001,0.05\n")).tariff
    assert told == titled
    assert (told.next_price, told.connect_fee) == (Decimal("0.06"), Decimal("0.05"))


def test_seconds_that_are_free_in_every_call_are_refused_rather_than_forgotten() -> None:
    sheet = read("code,price,includedseconds\n93,0.1,0\n94,0.1,30\n")
    assert prefixes(sheet) == ["93"]
    assert sheet.refused[0].column == "includedseconds"


def test_country_and_area_columns_are_put_together() -> None:
    split = read("Country Code,Area Code,Rate\n234,91-93\t,0.1\n234,,0.2\n,95,0.1\n")
    assert prefixes(split) == ["23491", "23492", "23493", "234"]
    assert reasons(split) == [(4, "the country code is missing")]
    assert split.expanded == 2
    assert prefixes(read("Country Code,Code,Rate\n234,91,0.1\n1,201,0.2\n")) == ["23491", "1201"]
    full = read("Country Code,Code,Rate\n234,23491,0.1\n1,1201,0.2\n")
    assert prefixes(full) == ["23491", "1201"]
    assert "Country Code" in full.unknown


def test_country_codes_that_stand_in_some_codes_only_are_asked_about() -> None:
    text = "Country Code,Code,Rate\n234,23491,0.1\n1,201,0.2\n"
    with pytest.raises(InvalidInput, match="country_codes"):
        read(text)
    assert prefixes(read(text, country_codes="split")) == ["23423491", "1201"]
    assert prefixes(read(text, country_codes="full")) == ["23491", "201"]


def test_a_column_of_range_ends_is_read_with_the_column_of_their_starts() -> None:
    assert prefixes(read("code1,code2,rate\n9381,9383,0.1\n9370,,0.1\n")) == [
        "9381",
        "9382",
        "9383",
        "9370",
    ]


def test_blocked_rows_are_rows_and_need_no_price() -> None:
    sheet = read("code,price,blocked\n93,0.1,Y\n94,,Y\n95,0.1,N\n96,blocked,N\n97,,N\n98,0.1,eh\n")
    assert [(r.prefix, r.blocked) for r in rows(sheet)] == [
        ("93", True),
        ("94", True),
        ("95", False),
        ("96", True),
    ]
    assert reasons(sheet) == [(6, "the price is missing"), (7, "neither yes nor no")]


def test_words_of_a_status_column_block_close_or_change_nothing() -> None:
    text = "code,price,status,effective date\n93,0.1,Active,\n94,,Blocked,\n95,,Closed,2030-01-01\n96,,deleted,\n97,1,odd,\n"
    sheet = read(text)
    assert [(r.prefix, r.blocked) for r in rows(sheet)] == [("93", False), ("94", True)]
    assert sheet.closings == [
        Closing(4, "95", "", datetime(2030, 1, 1, tzinfo=UTC)),
        Closing(5, "96", "", None),
    ]
    assert sheet.closing_times["96"] is None
    assert [line for line, _ in reasons(sheet)] == [6]
    assert sheet.rows_in == 5


def test_status_numbers_are_asked_about_unless_they_are_all_alike() -> None:
    assert only(read("code,price,status\n93,0.1,0\n")).blocked is False
    text = "code,price,status\n93,0.1,0\n94,0.1,1\n"
    with pytest.raises(InvalidInput, match="status_active"):
        read(text)
    assert [r.blocked for r in rows(read(text, status_active="0"))] == [False, True]
    assert [r.blocked for r in rows(read(text, status_active="1"))] == [True, False]


def test_the_same_prefix_with_another_start_is_a_change_in_time_and_no_repeat() -> None:
    sheet = read("code,price,effective date\n93,0.1,\n93,0.2,2030-01-01\n")
    assert [r.valid_from for r in rows(sheet)] == [None, datetime(2030, 1, 1, tzinfo=UTC)]
    assert sheet.contradictions == []


REPEATS = "code,price\n93,0.1\n93,0.10\n93,0.2\n94,0.1\n"


def test_a_contradicting_repeat_is_refused_with_both_lines_and_an_identical_one_is_listed() -> None:
    sheet = read(REPEATS)
    assert prefixes(sheet) == ["93", "94"]
    assert sheet.repeats == [Repeat(3, 2, "93", ())]
    assert sheet.contradictions == [Repeat(4, 2, "93", ("tariff",))]
    assert reasons(sheet) == [
        (4, "contradicts line 2: 0.1/min in 60/60 there, 0.2/min in 60/60 here")
    ]
    assert (sheet.rows_in, sheet.repeated) == (4, 1)


def test_the_first_or_the_last_of_contradicting_rows_may_be_kept() -> None:
    first = read(REPEATS, on_repeat="first")
    assert [r.tariff.next_price for r in rows(first)] == [Decimal("0.1"), Decimal("0.1")]
    last = read(REPEATS, on_repeat="last")
    assert [(line, r.tariff.next_price) for line, r in last.rows] == [
        (4, Decimal("0.2")),
        (5, Decimal("0.1")),
    ]
    assert last.repeats == [Repeat(3, 2, "93", ()), Repeat(2, 4, "93", ("tariff",))]
    assert last.refused == first.refused == []
    assert (last.repeated, len(last.contradictions)) == (1, 1)


def test_a_row_that_prices_and_a_row_that_closes_the_same_code_contradict_each_other() -> None:
    text = "code,price,status\n93,0.1,active\n93,,closed\n"
    assert read(text).contradictions == [Repeat(3, 2, "93", ("tariff", "closed"))]
    with pytest.raises(InvalidInput, match="price and close"):
        read(text, on_repeat="last")


def test_a_stray_quotation_mark_costs_its_own_line_only() -> None:
    sheet = read(
        'code,name,price\n93,"Kabul,0.1\n94,Ceylon,0.1\n95,Bur"ma,0.1\n96,"Line\nbreak",0.1\n97,"a,b",0.1\n'
    )
    assert [(line, r.prefix, r.destination) for line, r in sheet.rows] == [
        (3, "94", "Ceylon"),
        (4, "95", 'Bur"ma'),
        (5, "96", "Line break"),
        (7, "97", "a,b"),
    ]
    assert reasons(sheet) == [(2, "the quotation marks of the line do not match")]


def test_a_line_with_more_cells_than_the_sheet_is_refused_as_it_may_be_shifted() -> None:
    sheet = read("code,price,connect fee\n93,0,1175,0\n94,0.1,0,,\n95,0.1\n")
    assert prefixes(sheet) == ["94", "95"]
    assert "4 cells where the sheet has 3" in sheet.refused[0].reason


def test_blank_lines_are_counted_and_are_no_rows() -> None:
    sheet = read("code,price\n\n93,0.1\n,\n  \n94,0.1\n\n")
    assert (len(sheet.rows), sheet.blank, sheet.lines) == (2, 4, 2)


def test_columns_may_be_told_by_title_by_position_or_left_out() -> None:
    text = "Foo,Bar,Rate,Effective Date\n93,0.1,9,05/06/2014\n"
    row = only(read(text, columns={"prefix": "foo", "rate": 2, "effective": None}))
    assert (row.prefix, row.tariff.next_price, row.valid_from) == ("93", Decimal("0.1"), None)
    with pytest.raises(InvalidInput, match='no column called "Quux"'):
        read(text, columns={"prefix": "Quux"})


def test_a_sheet_without_header_is_read_by_positions() -> None:
    columns = {"destination": 1, "prefix": 2, "rate": 3}
    for header in (False, "auto"):
        sheet = read("Afghanistan,93,0.1\nAlbania,355,0.2\n", columns=columns, header=header)
        assert prefixes(sheet) == ["93", "355"]
        assert sheet.rows[0].line == 1
    with_header = read("Name,Code,Rate\nAfghanistan,93,0.1\n", columns=columns)
    assert (prefixes(with_header), with_header.refused) == (["93"], [])
    with pytest.raises(InvalidInput, match="header row"):
        read("Afghanistan,93,0.1\n")
    with pytest.raises(InvalidInput, match="positions"):
        read("Afghanistan,93,0.1\n", header=False)
    with pytest.raises(InvalidInput, match="column 3 does not exist"):
        read("93,0.1\n", header=False, columns={"prefix": 1, "rate": 3})


def test_unknown_columns_are_named_and_no_error() -> None:
    sheet = read("code,price,Quality,Ticket\n93,0.1,A,7\n")
    assert sheet.unknown == ["Quality", "Ticket"]
    assert "Not read: Quality, Ticket." in sheet.notes


def test_a_sheet_of_names_without_codes_is_refused_with_what_was_seen() -> None:
    with pytest.raises(InvalidInput, match="no column of dialling codes") as caught:
        read("Country,Rate,Slot\nAlbania,0.1,flat\n")
    assert "Country, Rate, Slot" in caught.value.detail
    with pytest.raises(InvalidInput, match="no column of prices"):
        read("Country,Code\nAlbania,355\n")


def zipped() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("deck.csv", "code,price\n93,0.1\n")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b" \r\n \n", "empty"),
        (b"\xef\xbb\xbf", "empty"),
        (gzip.compress(b"", mtime=0), "empty"),
        (b"code,price\n", "no rows"),
        (zipped(), "zip archive"),
        (b"\xd0\xcf\x11\xe0abc", "Excel"),
        (b"%PDF-1.7\n", "PDF"),
        (b"<!DOCTYPE html><html>", "web page"),
        (bytes(range(256)) * 10, "binary"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "binary"),
        (gzip.compress(b"code,price\n93,0.1\n", mtime=0)[:-9], "cut short"),
        (gzip.compress(b"code,price\n93,0.1\n", mtime=0)[:-8] + b"\0" * 8, "damaged"),
    ],
)
def test_what_is_no_rate_sheet_is_refused_in_a_sentence(data: bytes, reason: str) -> None:
    with pytest.raises(InvalidInput, match=reason):
        read_sheet(data)


def test_gzip_is_unpacked_member_after_member() -> None:
    data = (
        gzip.compress(b"code,price\n93,0.1\n", mtime=0)
        + gzip.compress(b"94,0.2\n", mtime=0)
        + b"\0\0"
    )
    assert prefixes(read_sheet(data)) == ["93", "94"]


def test_a_file_over_the_bound_is_refused_at_once_however_it_comes() -> None:
    """200 MB of chunks, a gzip bomb and a large block: none is taken in whole."""
    taken = 0

    def chunks() -> Iterator[bytes]:
        nonlocal taken
        for _ in range(200):
            taken += 1
            yield b"0" * 2**20

    began = time.monotonic()
    with pytest.raises(InvalidInput, match="larger than 64 MiB"):
        read_sheet(chunks())
    assert taken == 65
    with pytest.raises(InvalidInput, match="larger than 64 MiB"):
        read_sheet(gzip.compress(b"\0" * (200 * 2**20), 1))
    with pytest.raises(InvalidInput, match="larger than 10 bytes"):
        read_sheet(b"code,price\n", SheetOptions(bytes_max=10))
    assert time.monotonic() - began < 10


def test_lines_codes_and_refusals_are_bounded() -> None:
    with pytest.raises(InvalidInput, match="more than 3 lines"):
        read("code,price\n1,1\n2,1\n3,1\n4,1\n", rows_max=3)
    with pytest.raises(InvalidInput, match="more than 50 codes"):
        read("code,price\n100-199,1\n", rows_max=50)
    with pytest.raises(InvalidInput, match="More than 2 rows were refused, the first in line 2"):
        read("code,price\na,1\nb,1\nc,1\n", refused_max=2)
    long_line = read("code,name,price\n93," + "x" * 70_000 + ",1\n94,,1\n")
    assert reasons(long_line) == [(2, "the line is longer than 65,536 characters")]
    assert len(long_line.refused[0].raw) == 500


@pytest.mark.parametrize(
    "options",
    [
        {"delimiter": ";;"},
        {"decimal": "'"},
        {"encoding": "rot13"},
        {"encoding": "unicode_escape"},
        {"encoding": "nonsense"},
        {"increments": "fast"},
        {"seconds_allowed": ("1/1", "")},
        {"prefix_add": "+1"},
        {"columns": {"colour": 1}},
        {"columns": {"prefix": 0}},
        {"decimals": 9},
        {"price_max": Decimal("NaN")},
        {"on_repeat": "guess"},
        {"per": "hour"},
    ],
)
def test_options_that_make_no_sense_are_refused_by_name(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput) as caught:
        SheetOptions(**options)
    assert caught.value.field == next(iter(options))


def test_equal_tariffs_are_one_object() -> None:
    first, second, third = rows(read("code,price,note\n93,0.1,a\n94,0.10,b\n95,0.2,c\n"))
    assert first.tariff is second.tariff
    assert first.tariff is not third.tariff


def account_for(sheet: Sheet) -> list[int]:
    """The line of every code that the sheet asks for, from where it ended up."""
    return sorted(
        [row.line for row in sheet.rows]
        + [refusal.line for refusal in sheet.refused]
        + [repeat.line for repeat in sheet.repeats]
        + [closing.line for closing in sheet.closings]
    )


@given(st.lists(st.text(max_size=30), max_size=12), st.sampled_from(["refuse", "first", "last"]))
def test_no_line_of_arbitrary_text_is_lost(lines: list[str], on_repeat: str) -> None:
    """Every line that is not blank is a row, a refusal, a repeat or a closing; or the file is refused."""
    text = "code,price,blocked\n93,0.1,\n" + "\n".join(lines)
    data = text.encode("utf-8", "replace")
    try:
        sheet = read_sheet(data, SheetOptions(encoding="utf-8", delimiter=",", on_repeat=on_repeat))  # type: ignore[arg-type]
    except InvalidInput:
        return
    physical = data.decode().replace("\r\n", "\n").replace("\r", "\n").rstrip("\x1a").split("\n")
    filled = [n for n, line in enumerate(physical, 1) if n > 1 and line.strip(", \t")]
    accounted = account_for(sheet)
    assert sheet.rows_in == len(accounted)
    # A quoted cell may hold a line break: its later lines belong to the record of the first.
    joined = set(filled) - set(accounted)
    assert all(
        '"' in "".join(physical[max(0, n - 5) : n]) for n in joined if physical[n - 1].strip()
    )


CELLS = st.sampled_from(
    [
        "93",
        "94",
        "+95",
        "91-93,95",
        "4.4E+11",
        "",
        "0.1",
        "0,1",
        "abc",
        "Y",
        "closed",
        "60/1",
        "-1",
        "1e9",
        "=1",
        "2030-01-01",
    ]
)


@given(st.lists(st.lists(CELLS, max_size=7), max_size=30), st.sampled_from(["refuse", "first"]))
def test_no_row_of_likely_cells_is_lost(table: list[list[str]], on_repeat: str) -> None:
    header = "code;price;blocked;increments;status;effective date"
    text = "\n".join([header, "93;0.1;;;;", *(";".join(line) for line in table), ""])
    sheet = read(text, on_repeat=on_repeat)
    written = {n for n, line in enumerate(table, 3) if any(cell.strip() for cell in line)}
    assert set(account_for(sheet)) - {2} == written
    assert sheet.blank == len(table) - len(written)
    assert len({(row.prefix, row.valid_from) for row in rows(sheet)}) == len(sheet.rows)


@given(st.binary(max_size=400))
def test_arbitrary_bytes_are_read_or_refused_and_never_crash(data: bytes) -> None:
    for block in (data, b"code;price\n" + data):
        try:
            sheet = read_sheet(block)
        except InvalidInput:
            continue
        assert sheet.rows_in == len(account_for(sheet)) > 0
