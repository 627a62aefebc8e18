"""The euro reference rates of the European Central Bank, in all forms that it publishes.

``eurofxref-daily.xml`` and ``eurofxref-hist.xml`` (cubes in cubes), ``eurofxref-hist.csv`` (a
column for each currency, N/A where there is none), ``eurofxref.csv`` (the same with days such as
"05 January 2024"), and the zip files that these CSV files come in. Source:
https://www.ecb.europa.eu/stats/policy_and_exchange_rates/euro_reference_exchange_rates.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from datetime import date
from xml.etree.ElementTree import ParseError

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import iterparse

from tollkeeper.errors import InvalidInput
from tollkeeper.wire.fx_csv import (
    BYTES_MAX,
    FIRST_YEAR,
    LAST_YEAR,
    FxSheet,
    Gathering,
    decode,
    lines_of,
    read_day,
    read_lines,
)

EURO = "EUR"
NAMESPACE = "{http://www.ecb.int/vocabulary/2002-08-01/eurofxref}"
CUBE = NAMESPACE + "Cube"
ABSENT = frozenset(("", "N/A"))
_ZIP_MAGIC = b"PK\x03\x04"
_MONTHS = (
    "january", "february", "march", "april", "may", "june",
    "july", "august", "september", "october", "november", "december",
)  # fmt: skip


def read_fx(data: bytes) -> FxSheet:
    """Read a file of exchange rates: one of the ECB's, or lines ``base,quote,day,rate``.

    Raises:
        InvalidInput: too large, no such file, or nothing in it is a rate.
    """
    if len(data) > BYTES_MAX:
        raise _too_large()
    if data.startswith(_ZIP_MAGIC):
        data = _unzipped(data)
    if data.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<"):
        sheet = _read_xml(data)
    else:
        text = decode(data)
        sheet = read_ecb_csv(text) if _is_ecb(text) else read_lines(text)
    if not sheet.rates and not sheet.refused:
        raise InvalidInput(
            "there is no exchange rate in the file: give lines base,quote,day,rate or a file of the ECB",
            code="not_fx_rates",
        )
    return sheet


def _too_large() -> InvalidInput:
    return InvalidInput(
        f"the file is larger than {BYTES_MAX // 2**20} MiB: is it one of exchange rates?",
        code="file_too_large",
    )


def _unzipped(data: bytes) -> bytes:
    """The one file in a zip, inflated no further than is allowed."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            files = [info for info in archive.infolist() if not info.is_dir()]
            if len(files) != 1:
                raise InvalidInput(
                    f"the zip holds {len(files)} files, not the one with the rates",
                    code="not_fx_rates",
                )
            with archive.open(files[0]) as inside:
                text = inside.read(BYTES_MAX + 1)
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError) as error:
        raise InvalidInput(
            f"the zip cannot be read ({error}); send it again", code="not_fx_rates"
        ) from error
    if len(text) > BYTES_MAX:
        raise _too_large()
    return text


def _read_xml(data: bytes) -> FxSheet:
    """Cubes with a time, and in them one cube for each currency."""
    found = Gathering()
    day: date | None = None
    count = 0
    try:
        for event, element in iterparse(io.BytesIO(data), events=("start", "end")):
            if element.tag != CUBE:
                continue
            if event == "end":
                element.clear()
                continue
            count += 1
            if (time := element.get("time")) is not None:
                day = read_day(time)
                if day is None:
                    found.refuse(count, f'"{time[:20]}" is not a day', f"time={time}")
            elif (currency := element.get("currency")) is not None:
                rate = element.get("rate") or ""
                if day is None:
                    found.refuse(count, "the rate belongs to no day", f"{currency} {rate}")
                elif rate not in ABSENT:
                    found.take(count, f"{currency} {rate}", EURO, currency, day, rate)
    except (ParseError, DefusedXmlException, UnicodeDecodeError, LookupError, ValueError) as error:
        raise InvalidInput(
            f"the file is not the XML of the ECB's reference rates ({error or type(error).__name__})",
            code="not_fx_rates",
        ) from error
    return found.sheet("ecb_xml")


def _is_ecb(text: str) -> bool:
    first = next(lines_of(text[:10_000]), None)
    return first is not None and first[1][0].casefold() == "date"


def read_ecb_csv(text: str) -> FxSheet:
    """Read a column of days and a column for each currency, as euros are quoted.

    Raises:
        InvalidInput: very much of it is no rate.
    """
    found = Gathering()
    currencies: list[str] = []
    for number, cells, line in lines_of(text):
        if not currencies:
            currencies = cells[1:]
            continue
        day = _day(cells[0])
        if day is None:
            found.refuse(number, f'"{cells[0][:20]}" is not a day', line)
            continue
        # A comma at the end of each line makes one more cell, with nothing in it.
        for currency, rate in zip(currencies, cells[1:], strict=False):
            if currency and rate not in ABSENT:
                found.take(number, line, EURO, currency, day, rate)
    return found.sheet("ecb_csv")


def _day(text: str) -> date | None:
    """``2024-01-05``, or ``05 January 2024`` as in the file of the day."""
    words = text.casefold().split()
    if len(words) != 3 or words[1] not in _MONTHS or not (words[0] + words[2]).isdecimal():
        return read_day(text)
    try:
        day = date(int(words[2]), _MONTHS.index(words[1]) + 1, int(words[0]))
    except ValueError:
        return None
    return day if FIRST_YEAR <= day.year <= LAST_YEAR else None
