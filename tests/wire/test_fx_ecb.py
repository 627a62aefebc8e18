"""Files of exchange rates: all forms of the ECB's, plain lines, and what is no such file."""

from __future__ import annotations

import io
import zipfile
from datetime import date
from decimal import Decimal

import pytest

from tollkeeper.errors import InvalidInput
from tollkeeper.wire import fx_csv, fx_ecb
from tollkeeper.wire.fx_csv import GivenRate
from tollkeeper.wire.fx_ecb import read_fx
from tollkeeper.wire.nanp_csv import GivenPlace, read_places

DAILY_XML = b"""<?xml version="1.0" encoding="UTF-8"?>
<gesmes:Envelope xmlns:gesmes="http://www.gesmes.org/xml/2002-08-01"
                 xmlns="http://www.ecb.int/vocabulary/2002-08-01/eurofxref">
  <gesmes:subject>Reference rates</gesmes:subject>
  <gesmes:Sender><gesmes:name>European Central Bank</gesmes:name></gesmes:Sender>
  <Cube>
    <Cube time='2026-03-02'>
      <Cube currency='USD' rate='1.0847'/>
      <Cube currency='JPY' rate='162.35'/>
    </Cube>
    <Cube time='2026-02-27'>
      <Cube currency='USD' rate='1.0801'/>
    </Cube>
  </Cube>
</gesmes:Envelope>
"""
HISTORY_CSV = """Date,USD,JPY,CYP,
2026-03-02,1.0847,162.35,N/A,
2026-02-27,1.0801,161.9,N/A,
"""


def eur(quote: str, day: str, rate: str) -> GivenRate:
    return GivenRate("EUR", quote, date.fromisoformat(day), Decimal(rate))


MARCH = [eur("USD", "2026-03-02", "1.0847"), eur("JPY", "2026-03-02", "162.35")]


def zipped(**files: str | bytes) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return packed.getvalue()


def test_the_xml_of_the_day_and_of_all_days_is_read_by_its_cubes() -> None:
    sheet = read_fx(DAILY_XML)
    assert sheet.format == "ecb_xml"
    assert list(sheet.rates) == [*MARCH, eur("USD", "2026-02-27", "1.0801")]
    assert sheet.refused == ()


def test_the_history_has_a_column_for_each_currency_and_na_is_no_rate() -> None:
    sheet = read_fx(HISTORY_CSV.encode())
    assert sheet.format == "ecb_csv"
    assert list(sheet.rates) == [
        *MARCH,
        eur("USD", "2026-02-27", "1.0801"),
        eur("JPY", "2026-02-27", "161.9"),
    ]


def test_the_file_of_the_day_writes_its_day_in_words_and_comes_in_a_zip() -> None:
    text = "Date, USD, JPY, \n02 March 2026, 1.0847, 162.35, \n"
    assert list(read_fx(zipped(**{"eurofxref.csv": text})).rates) == MARCH
    assert list(read_fx(zipped(**{"eurofxref-hist.csv": HISTORY_CSV})).rates)[:2] == MARCH


@pytest.mark.parametrize(
    "text",
    [
        "base,quote,day,rate\nEUR,USD,2026-03-02,1.0847\n",
        "EUR,USD,2026-03-02,1.0847\n",
        "day;rate;quote;base\n2026-03-02;1.0847;usd;eur\n",
    ],
)
def test_plain_lines_are_read_with_titles_in_any_order_or_without(text: str) -> None:
    assert read_fx(text.encode()).rates == (eur("USD", "2026-03-02", "1.0847"),)


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("EUR,USD,2026-02-30,1.1", "not a day"),
        ("EUR,USD,2026-03-02,0", "not a rate"),
        ("EUR,USD,2026-03-02,-1", "not a rate"),
        ("EUR,USD,2026-03-02,1e3", "not a rate"),
        ("EUR,USD,2026-03-02,NaN", "not a rate"),
        ("EUR,USD,2026-03-02,1.1234567890123", "at most 12 decimals"),
        ("EUR,EUR,2026-03-02,1", "same currency"),
        ("EURO,USD,2026-03-02,1", "not a currency"),
        ("EUR,USD,2026-03-02", "3 cell(s)"),
        ("GBP,USD,2026-03-01,1.3", "stands there already as 1.25"),
    ],
)
def test_a_bad_line_is_told_and_the_others_are_kept(line: str, why: str) -> None:
    text = f"base,quote,day,rate\nGBP,USD,2026-03-01,1.25\n{line}\nGBP,USD,2026-03-02,1.26\n"
    sheet = read_fx(text.encode())
    assert [rate.rate for rate in sheet.rates] == [Decimal("1.25"), Decimal("1.26")]
    (bad,) = sheet.refused
    assert (bad.line, bad.text) == (3, line)
    assert why in bad.reason


def test_a_bad_rate_in_a_cube_is_told_and_the_others_are_kept() -> None:
    sheet = read_fx(DAILY_XML.replace(b"162.35", b"many"))
    assert [rate.quote for rate in sheet.rates] == ["USD", "USD"]
    assert "not a rate" in sheet.refused[0].reason


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\n\n",
        b"\xff\xfe\x00",
        b"<html>",
        b"<a><b></a>",
        b'<!DOCTYPE a [<!ENTITY x "y">]><a>&x;</a>',
        b"PK\x03\x04rubbish",
        zipped(a="EUR,USD,2026-03-02,1", b="EUR,USD,2026-03-02,1"),
    ],
)
def test_what_is_no_file_of_rates_is_refused_in_a_sentence(data: bytes) -> None:
    with pytest.raises(InvalidInput) as caught:
        read_fx(data)
    assert caught.value.code == "not_fx_rates"
    assert "\n" not in caught.value.detail


def test_a_zip_bomb_and_a_file_without_end_are_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fx_ecb, "BYTES_MAX", 1000)
    with pytest.raises(InvalidInput, match="larger than"):
        read_fx(zipped(a=b"0" * 100_000))
    with pytest.raises(InvalidInput, match="larger than"):
        read_fx(b"0" * 1001)


def test_a_file_of_something_else_is_given_up_early(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fx_csv, "REFUSED_MAX", 3)
    with pytest.raises(InvalidInput, match="more than 3 lines are no exchange rates"):
        read_fx(b"one,two,three,four\n" * 10)


# --- office codes --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "npa,nxx,state,lata,ocn\n212,555,NY,132,9104\n",
        "NPANXX,State,LATA,OCN\n212555,ny,132,9104\n",
        "NPA-NXX;ST;lata;ocn;rate center\n212-555;NY;132;9104;Manhattan\n",
    ],
)
def test_office_codes_are_read_in_one_column_or_two(text: str) -> None:
    sheet = read_places(text.encode())
    assert sheet.places == (GivenPlace("212555", "NY", "132", "9104"),)
    assert sheet.refused == ()


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("112,555,NY", "not an office code"),
        ("212,155,NY", "not an office code"),
        ("212,55,NY", "not an office code"),
        ("212,556,New York", "not a state"),
        ("212,555,NJ", "is in NY by an earlier line"),
    ],
)
def test_what_is_no_office_code_is_told(line: str, why: str) -> None:
    sheet = read_places(f"npa,nxx,state\n212,555,NY\n{line}\n".encode())
    assert len(sheet.places) == 1
    assert (sheet.refused[0].line, why in sheet.refused[0].reason) == (3, True)


@pytest.mark.parametrize("data", [b"", b"212,555,NY\n", b"npa,nxx,state\n", b"\xff\xff"])
def test_a_file_without_titles_or_office_codes_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidInput):
        read_places(data)
