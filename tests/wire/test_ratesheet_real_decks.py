"""Decks as real suppliers sent them, counted row by row."""

from __future__ import annotations

import gzip
import os
import time
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest

from tollkeeper.core.tariff import PrefixTable
from tollkeeper.errors import InvalidInput
from tollkeeper.wire.ratesheet import Repeat, Sheet, SheetOptions, read_sheet

ROOT = Path(__file__).parents[2]
DECKS = Path(os.environ.get("TOLLKEEPER_SHARED_DATA", ROOT.parent / "shared" / "data")) / "decks"

pytestmark = pytest.mark.skipif(
    not DECKS.is_dir(), reason="no real decks here; TOLLKEEPER_SHARED_DATA names their folder"
)


def deck(name: str) -> bytes:
    return (DECKS / name).read_bytes()


def accounted(sheet: Sheet) -> tuple[int, int, int, int]:
    """Rows in, rows, refused, repeated."""
    return sheet.rows_in, len(sheet.rows), len(sheet.refused), len(sheet.repeats)


def test_aria_is_read_and_its_repeats_are_reported() -> None:
    """26 prefixes stand more than once, in 35 lines too many.

    Two of them contradict (billed by the second or by the minute); the others repeat themselves.
    """
    sheet = read_sheet(deck("aria_2022-02.csv"))
    assert accounted(sheet) == (23_611, 23_576, 2, 33)
    assert sheet.contradictions == [
        Repeat(14_512, 14_510, "9596", ("tariff",)),
        Repeat(14_514, 14_511, "95968", ("tariff",)),
    ]
    assert (
        sheet.refused[0].reason
        == "contradicts line 14510: 0.2/min in 1/1 there, 0.2/min in 60/60 here"
    )
    repeated = {repeat.prefix for repeat in sheet.repeats + sheet.contradictions}
    assert len(repeated) == 26
    assert sum(row.blocked for _, row in sheet.rows) == 5_674
    minutes = sum(row.tariff.first_interval == 60 for _, row in sheet.rows)
    seconds = sum(row.tariff.first_interval == 1 for _, row in sheet.rows)
    assert (minutes, seconds) == (3_345, 20_231)


def test_aria_without_its_increments_repeats_itself_only() -> None:
    sheet = read_sheet(
        deck("aria_2022-02.csv"), SheetOptions(seconds_allowed=None, increments="1/1")
    )
    assert accounted(sheet) == (23_611, 23_576, 0, 35)
    assert sheet.contradictions == []


def test_wavecrest_is_read_whole() -> None:
    sheet = read_sheet(deck("wavecrest_2022-03.csv"))
    assert accounted(sheet) == (20_206, 20_206, 0, 0)
    assert sum(row.blocked for _, row in sheet.rows) == 2_488
    row = sheet.rows[0].row
    assert (row.prefix, row.destination, row.blocked) == ("93", "Afghanistan", True)
    assert row.valid_from is not None
    assert row.valid_from.isoformat() == "2022-03-02T10:15:57.281132+00:00"


def test_astpp_patterns_are_prefixes_in_steps_of_six_seconds() -> None:
    sheet = read_sheet(deck("astpp_outbound_routes.csv"))
    assert accounted(sheet) == (36_205, 36_205, 0, 0)
    increments = [(row.tariff.first_interval, row.tariff.next_interval) for _, row in sheet.rows]
    assert (increments.count((6, 6)), increments.count((1, 1))) == (36_204, 1)
    assert sheet.rows[0].row.prefix == "93"
    assert sheet.rows[0].row.tariff.next_price == Decimal("0.2093")
    assert "1 line(s) are sold at price 0." in sheet.notes


def test_asterisell_has_quoted_decimal_commas() -> None:
    sheet = read_sheet(deck("asterisell_international_example.csv"))
    assert accounted(sheet) == (11_894, 11_894, 0, 0)
    assert sheet.decimal == ","
    first = sheet.rows[0].row
    assert (first.prefix, first.tariff.next_price) == ("88299", Decimal("1.9989"))
    assert first.destination == "AeroMobile - GSM aircraft"


def test_north_america_gets_its_country_code_and_is_read_in_seconds() -> None:
    data = deck("nanp_npanxx_scrub.csv.gz")
    began = time.monotonic()
    sheet = read_sheet(data)
    taken = time.monotonic() - began
    assert accounted(sheet) == (184_215, 184_215, 0, 0)
    assert len({id(row.tariff) for _, row in sheet.rows}) == 2_978
    assert {len(row.prefix) for _, row in sheet.rows} == {7}
    table = PrefixTable(row for _, row in sheet.rows)
    found = table.find("12012015550", datetime(2030, 1, 1, tzinfo=UTC))
    assert found is not None
    assert (found.prefix, found.tariff.next_price) == ("1201201", Decimal("0.011301"))
    assert taken < 10, f"{taken:.1f} s: 2 to 3 are meant, on a machine with nothing else to do"


def test_the_same_deck_may_come_in_chunks_unpacked_and_told() -> None:
    data = gzip.decompress(deck("nanp_npanxx_scrub.csv.gz"))
    head = data[: data.index(b"\n", 100_000) + 1]
    chunks = (head[start : start + 4_096] for start in range(0, len(head), 4_096))
    told = read_sheet(chunks, SheetOptions(prefix_add="1", columns={"prefix": "NPANXX", "rate": 2}))
    assert told.rows == read_sheet(head).rows


@pytest.mark.parametrize(
    ("name", "missing", "seen"),
    [
        (
            "interconn_it_rates.csv",
            "no column of dialling codes",
            "traffic_direction, rate, time_slot",
        ),
        (
            "sms_by_network_batchpack.csv",
            "no column of dialling codes",
            "ISO, Country, Description, Price",
        ),
        ("pbxware_destinations.csv", "no column of prices", "code1, code2, route, destination"),
    ],
)
def test_a_deck_that_cannot_be_rated_says_what_is_missing(
    name: str, missing: str, seen: str
) -> None:
    with pytest.raises(InvalidInput, match=missing) as caught:
        read_sheet(deck(name))
    assert seen in caught.value.detail


def snippets() -> dict[str, bytes]:
    """The layouts of suppliers by their title, with a line break after each."""
    text = (DECKS / "asterisell_supplier_format_snippets.txt").read_text(encoding="utf-8")
    blocks = text.split("### ")[1:]
    return {
        f"{n} {block.splitlines()[0]}": block.partition("\n")[2].encode()
        for n, block in enumerate(blocks)
    }


def layout(number: int) -> bytes:
    return next(block for title, block in snippets().items() if title.startswith(f"{number} "))


@pytest.mark.parametrize(
    ("number", "options", "first"),
    [
        (0, {}, ("937", "Afghanistan Mobile", "0.1175")),
        (1, {}, ("93", "Afghanistan", "0.1175")),
        (6, {}, ("93", "Afghanistan", "0.1230")),
        (7, {}, ("93", "Afghanistan", "0.1230")),
        (
            8,
            {"columns": {"destination": 1, "prefix": 2, "rate": 3}},
            ("93", "Afghanistan", "0.1230"),
        ),
        (9, {}, ("39178221", "Italia - Tiscali", "0.0826")),
        (10, {}, ("355", "Albania", "0.066")),
        (11, {"columns": {"prefix": 1, "destination": 2, "rate": 3}}, ("355", "Albania", "0.066")),
        (14, {}, ("3931", "Mobile prefix", "0.04")),
        (16, {}, ("112", "Carabinieri", "0")),
    ],
)
def test_layouts_of_other_suppliers_are_read(
    number: int, options: dict[str, object], first: tuple[str, str, str]
) -> None:
    sheet = read_sheet(layout(number), SheetOptions(**options))  # type: ignore[arg-type]
    assert sheet.refused == []
    row = sheet.rows[0].row
    assert (row.prefix, row.destination, row.tariff.next_price) == (
        first[0],
        first[1],
        Decimal(first[2]),
    )
