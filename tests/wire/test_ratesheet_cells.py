"""What single cells of a rate sheet mean, and which are refused rather than guessed."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest

from tollkeeper.wire.ratesheet.codes import read_codes
from tollkeeper.wire.ratesheet.header import _TITLES, squash
from tollkeeper.wire.ratesheet.options import FIELDS
from tollkeeper.wire.ratesheet.problem import CellProblem
from tollkeeper.wire.ratesheet.values import (
    DateReader,
    PriceReader,
    join_names,
    read_flag,
    read_increments,
    sniff_decimal,
)


@pytest.mark.parametrize(
    ("cell", "codes"),
    [
        ("93", "93"),
        (" +93 ", "93"),
        ("'93", "93"),
        ("0093", "93"),
        ("011420", "420"),
        ("^93.*", "93"),
        ("^93", "93"),
        ("93*", "93"),
        ("93%", "93"),
        ("_93X.", "93"),
        ("93.0", "93"),
        ("93[7-9]", "937 938 939"),
        ("066[1-3]", None),
        ("66[13]", "661 663"),
        ("370,371", "370 371"),
        ("370; 371;372", "370 371 372"),
        ("370\n371", "370 371"),
        ("93,9370", "93 9370"),
        ("9370-9373", "9370 9371 9372 9373"),
        ("91-93,95", "91 92 93 95"),
        ("0091-0093", "91 92 93"),
        ("61 38,39", "6138 6139"),
        ("61 38, 61 39", "6138 6139"),
        ("234 91-93,95", "23491 23492 23493 23495"),
        ("1 201", "1201"),
        ("+44 20 7", "44207"),
        ("(44) 20 7", "44207"),
        ("44 7700", "447700"),
        ("93 70", "9370"),
        ("7 7", "77"),
        ("61 38 - 39", "6138 6139"),
    ],
)
def test_a_code_is_read_in_every_notation_that_has_one_meaning(
    cell: str, codes: str | None
) -> None:
    if codes is None:
        with pytest.raises(CellProblem, match="begins with 0"):
            read_codes(cell)
    else:
        assert " ".join(read_codes(cell)) == codes


@pytest.mark.parametrize(
    ("cell", "reason"),
    [
        ("", "missing"),
        ("*", "missing"),
        ("4.4E+11", "digits"),
        ("4,4e11", "digits"),
        ("8-11", "unequal widths"),
        ("9370-79", "unequal widths"),
        ("95-91", "ends before it begins"),
        ("93[9-7]", "ends before it begins"),
        ("1000-99999", "unequal widths"),
        ("100000-199999", "more than 10,000"),
        ("9370,71", "in full"),
        ("9370 9371", "separated by blanks"),
        ("93 94 95", "more than one code in the cell"),
        ("93 94", "more than one code in the cell"),
        ("370 371", "more than one code in the cell"),
        ("44 20 7", "more than one code in the cell"),
        ("93, 94 95 96", "more than one code in the cell|in more than one way"),
        ("93,,94", "empty"),
        ("021", "begins with 0"),
        ("Afghanistan", "not a code"),
        ("93a", "not a code"),
        ("-93", "not a range"),
        ("93.5", "not a code"),
        ("=93", "formula"),
        ("1234567890123456789", "longer than 18"),
        ("\u0669\u0663", "not a code"),
        ("1.000", "not a code"),
    ],
)
def test_a_code_that_is_damaged_or_ambiguous_is_refused(cell: str, reason: str) -> None:
    with pytest.raises(CellProblem, match=reason):
        read_codes(cell)


def test_items_after_a_country_code_of_their_own_column_are_suffixes() -> None:
    assert read_codes("91-93,95", country="234") == ("23491", "23492", "23493", "23495")
    assert read_codes("", country="+234") == ("234",)
    assert read_codes("08-11", country="62") == ("6208", "6209", "6210", "6211")
    with pytest.raises(CellProblem, match="unequal widths"):
        read_codes("8-11", country="62")
    with pytest.raises(CellProblem, match="not a country code"):
        read_codes("91", country="NG")


@pytest.mark.parametrize(
    ("cell", "add", "code"),
    [
        ("201200", None, "1201200"),
        ("201-200", None, "1201200"),
        ("2012001", None, "12012001"),
        ("1201200", None, "1201200"),
        ("201200.0", None, "1201200"),
        ("201", None, "1201"),
        ("201200", "1", "1201200"),
        ("201200", "", "201200"),
    ],
)
def test_north_american_codes_get_their_country_code_once(
    cell: str, add: str | None, code: str
) -> None:
    assert read_codes(cell, add=add, nanp=True) == (code,)


def prices(decimal: str = ".", currency: str | None = None) -> PriceReader:
    return PriceReader(decimal=decimal, currency=currency, price_max=Decimal(1000), decimals_max=8)


@pytest.mark.parametrize(
    ("decimal", "cell", "price"),
    [
        (".", "0.1175", "0.1175"),
        (".", ".5", "0.5"),
        (".", "1", "1"),
        (".", "$0.05", "0.05"),
        (".", "0.05 USD", "0.05"),
        (".", "EUR 0.05/min", "0.05"),
        (".", "+0.05", "0.05"),
        (".", "0.1000000000000", "0.1"),
        (".", "1,000", "1000"),
        (",", "0,1175", "0.1175"),
        (",", "1.000,0", "1000.0"),
        (",", "3", "3"),
        ("mixed", "0,05", "0.05"),
        ("mixed", "0.05", "0.05"),
        ("mixed", "0,117", "0.117"),
    ],
)
def test_a_price_is_read_exactly(decimal: str, cell: str, price: str) -> None:
    assert prices(decimal).read("rate", cell) == Decimal(price)


@pytest.mark.parametrize(
    ("decimal", "cell", "reason"),
    [
        (".", "", "missing"),
        (".", "free", "not a price"),
        (".", "NaN", "not a price"),
        (".", "Infinity", "not a price"),
        (".", "-0.05", "negative"),
        (".", "$-0.05", "negative"),
        (".", "(0.05)", "not a price"),
        (".", "1E-05", "scientific"),
        (".", "1e400", "scientific"),
        (".", "1175", "absurd"),
        (".", "0,1175", "decimal mark"),
        (",", "0.1175", "decimal mark"),
        (".", "0.123456789", "more than 8 decimals"),
        (".", "0.30000000000000004", "more than 8 decimals"),
        (".", "=A1*2", "formula"),
        (".", "1.2.3", "not a price"),
        ("mixed", "1,175", "decimals or thousands"),
        ("mixed", "1.175", "decimals or thousands"),
        (".", "5%", "not a price"),
        (".", "0.05 sec", "not a price"),
        (".", "5 ct", "not a price"),
    ],
)
def test_a_price_that_is_no_plain_price_is_refused(decimal: str, cell: str, reason: str) -> None:
    with pytest.raises(CellProblem, match=reason):
        prices(decimal).read("rate", cell)


def test_a_price_per_second_is_kept_per_minute_without_rounding() -> None:
    assert prices().read("rate", "0.0005123", times=60) == Decimal("0.030738")


def test_prices_in_another_currency_than_the_card_are_refused() -> None:
    assert prices(currency="CAD").read("rate", "$0.05") == Decimal("0.05")
    with pytest.raises(CellProblem, match="in €, the card in USD"):
        prices(currency="USD").read("rate", "€0.05")
    mixed = prices()
    mixed.read("rate", "$0.05")
    with pytest.raises(CellProblem, match="those before it in"):
        mixed.read("rate", "0.05 EUR")


@pytest.mark.parametrize(
    ("cells", "mark"),
    [
        (["0.1175", "1"], "."),
        (["0,1175", "1"], ","),
        (["1.234", "2.345"], "."),
        (["1,234", "2,345"], "mixed"),
        (["1,234.50", "2"], "."),
        (["1.234,50", "2"], ","),
        (["0.05", "0,06"], "mixed"),
        (["1", "2"], "mixed"),
        ([], "mixed"),
    ],
)
def test_the_decimal_mark_is_told_from_the_prices(cells: list[str], mark: str) -> None:
    assert sniff_decimal(cells) == mark


@pytest.mark.parametrize(
    ("cell", "pair"),
    [
        ("60/1", (60, 1)),
        ("30-6", (30, 6)),
        ("60 / 60", (60, 60)),
        ("6", (6, 6)),
        ("60s/1s", (60, 1)),
        ("1+1", (1, 1)),
    ],
)
def test_increments_are_first_and_next_interval(cell: str, pair: tuple[int, int]) -> None:
    assert read_increments(cell) == pair


@pytest.mark.parametrize("cell", ["", "0/1", "60/0", "Jan-60", "1/1/1", "86401", "1.5", "-6"])
def test_increments_that_cannot_be_are_refused(cell: str) -> None:
    with pytest.raises(CellProblem):
        read_increments(cell)


def dates(date_format: str = "auto", zone: str = "UTC", *, inclusive: bool = True) -> DateReader:
    return DateReader(date_format=date_format, timezone=ZoneInfo(zone), end_inclusive=inclusive)


@pytest.mark.parametrize(
    ("date_format", "cell", "moment"),
    [
        ("auto", "2022-02-15", datetime(2022, 2, 15, tzinfo=UTC)),
        ("auto", "20220215", datetime(2022, 2, 15, tzinfo=UTC)),
        ("auto", "2022/2/5", datetime(2022, 2, 5, tzinfo=UTC)),
        ("auto", "2022-02-15 14:30:55.477103", datetime(2022, 2, 15, 14, 30, 55, 477103, UTC)),
        ("auto", "2022-02-15T14:30Z", datetime(2022, 2, 15, 14, 30, tzinfo=UTC)),
        ("auto", "2022-02-15T14:30:00+02:00", datetime(2022, 2, 15, 12, 30, tzinfo=UTC)),
        ("auto", "22/02/2010", datetime(2010, 2, 22, tzinfo=UTC)),
        ("auto", "02/22/2010", datetime(2010, 2, 22, tzinfo=UTC)),
        ("auto", "05/05/2010", datetime(2010, 5, 5, tzinfo=UTC)),
        ("auto", "05.06.2014", datetime(2014, 6, 5, tzinfo=UTC)),
        ("day_first", "05/06/2014", datetime(2014, 6, 5, tzinfo=UTC)),
        ("month_first", "05/06/2014", datetime(2014, 5, 6, tzinfo=UTC)),
        ("day_first", "05/06/14", datetime(2014, 6, 5, tzinfo=UTC)),
        ("auto", "15-Feb-2022", datetime(2022, 2, 15, tzinfo=UTC)),
        ("auto", "Feb 15, 2022", datetime(2022, 2, 15, tzinfo=UTC)),
        ("auto", "15 February 2022 1:05 PM", datetime(2022, 2, 15, 13, 5, tzinfo=UTC)),
        ("auto", "", None),
        ("auto", "Immediate", None),
    ],
)
def test_a_start_is_read_into_utc(date_format: str, cell: str, moment: datetime | None) -> None:
    assert dates(date_format).start(cell) == moment


@pytest.mark.parametrize(
    ("cell", "reason"),
    [
        ("05/06/2014", "day first or month first"),
        ("13/02/22", "day first or month first"),
        ("44607", "spreadsheet"),
        ("31/02/2022", "no such date"),
        ("2022-13-01", "no such date"),
        ("15022022", "year"),
        ("0001-01-01", "year"),
        ("9999-12-31", "year"),
        ("2022-02-15 25:00", "no such date"),
        ("2022-02-15 13:00 pm", "no such date"),
        ("2022-02-15 10:00 +99:00", "no such date"),
        ("soon", "not a date"),
        ("15-Foo-2022", "no such month"),
    ],
)
def test_a_date_that_is_ambiguous_or_impossible_is_refused(cell: str, reason: str) -> None:
    with pytest.raises(CellProblem, match=reason):
        dates().start(cell)


def test_dates_without_a_zone_are_in_the_zone_of_the_sheet() -> None:
    assert dates(zone="Europe/Rome").start("2022-07-01") == datetime(2022, 6, 30, 22, tzinfo=UTC)


def test_a_bare_end_date_is_the_last_day_in_force() -> None:
    assert dates().end("2022-12-31") == datetime(2023, 1, 1, tzinfo=UTC)
    assert dates(inclusive=False).end("2022-12-31") == datetime(2022, 12, 31, tzinfo=UTC)
    assert dates().end("2022-12-31 12:00") == datetime(2022, 12, 31, 12, tzinfo=UTC)
    assert dates().end("9999-12-31") is None


def test_flags_are_yes_or_no_and_nothing_else() -> None:
    assert [read_flag(cell, "blocked") for cell in ("Y", "N", "", "1", "false")] == [
        True,
        False,
        False,
        True,
        False,
    ]
    with pytest.raises(CellProblem, match="neither"):
        read_flag("maybe", "blocked")


@pytest.mark.parametrize(
    ("parts", "name"),
    [
        (("Afghanistan", "", "Telecom"), "Afghanistan - Telecom"),
        (("AF", "Afghanistan - Mobile", ""), "Afghanistan - Mobile"),
        (("Italy", "Italy Rome", ""), "Italy Rome"),
        (("Italy", "", ""), "Italy"),
        (("", "", ""), ""),
        (("", " Two\n lines\x00 ", ""), "Two lines"),
    ],
)
def test_a_name_is_made_of_the_columns_that_name_the_place(
    parts: tuple[str, str, str], name: str
) -> None:
    assert join_names(*parts) == name


def test_every_title_names_one_field_and_every_field_has_titles() -> None:
    titles = [title for words in _TITLES.values() for title in words.split()]
    assert sorted(titles) == sorted(set(titles))
    assert set(_TITLES) == set(FIELDS)
    assert [title for title in titles if squash(title) != title] == []


@pytest.mark.parametrize(
    ("title", "short"),
    [
        ("Rate per Minute (USD)", "rateminute"),
        ("RATE/MIN", "ratemin"),
        ("NPA-NXX", "npanxx"),
        ("Dial Code", "dialcode"),
        ("(USD)", "usd"),
        ("Località", "localita"),
        ("#", ""),
    ],
)
def test_titles_are_compared_by_their_letters(title: str, short: str) -> None:
    assert squash(title) == short
