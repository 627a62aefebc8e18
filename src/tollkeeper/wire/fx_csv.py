"""Exchange rates as lines ``base,quote,day,rate``, and what every reader of rates gives back.

Good lines are kept, each bad one is told with its number and the reason.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from decimal import Decimal

from tollkeeper.errors import InvalidInput

BYTES_MAX = 16 * 1024 * 1024
"""All rates of the ECB since 1999 are 2 MB as CSV and 9 MB as XML."""

RATES_MAX = 1_000_000
REFUSED_MAX = 1000
"""With more bad lines than this it is another file."""

RATE_MAX = Decimal(10) ** 15
FIRST_YEAR, LAST_YEAR = 1970, 2199
COLUMNS = ("base", "quote", "day", "rate")
_CURRENCY = re.compile(r"[A-Z]{3}")
_RATE = re.compile(r"[0-9]{1,15}(\.[0-9]{1,12})?")


@dataclass(frozen=True, slots=True)
class GivenRate:
    """One unit of ``base`` costs ``rate`` units of ``quote`` on ``day``."""

    base: str
    quote: str
    day: date
    rate: Decimal


@dataclass(frozen=True, slots=True)
class BadLine:
    """A line that was not taken, and why."""

    line: int
    reason: str
    text: str


@dataclass(frozen=True, slots=True)
class FxSheet:
    """What a file of rates holds: ``format`` says how it was read."""

    format: str
    rates: tuple[GivenRate, ...]
    refused: tuple[BadLine, ...]


class Gathering:
    """Rates and refusals as they are found, within bounds."""

    def __init__(self) -> None:
        self.rates: dict[tuple[str, str, date], GivenRate] = {}
        self.refused: list[BadLine] = []

    def take(self, line: int, text: str, base: str, quote: str, day: date, rate: str) -> None:
        """Keep a rate, or note why not.

        Raises:
            InvalidInput: more rates or refusals than any such file has.
        """
        problem = _problem(base, quote, rate)
        if problem:
            self.refuse(line, problem, text)
            return
        given = GivenRate(base, quote, day, Decimal(rate))
        before = self.rates.setdefault((base, quote, day), given)
        if before.rate != given.rate:
            self.refuse(
                line, f"{base}/{quote} of {day} stands there already as {before.rate:f}", text
            )
        if len(self.rates) > RATES_MAX:
            raise InvalidInput(
                f"the file has more than {RATES_MAX:,} rates; send it in parts",
                code="file_too_large",
            )

    def refuse(self, line: int, reason: str, text: str) -> None:
        """Note a line that is not taken."""
        self.refused.append(BadLine(line, reason, text[:200]))
        if len(self.refused) > REFUSED_MAX:
            first = self.refused[0]
            raise InvalidInput(
                f"more than {REFUSED_MAX} lines are no exchange rates, beginning with line {first.line}: "
                f"{first.reason}; is it such a file?",
                code="not_fx_rates",
            )

    def sheet(self, name: str) -> FxSheet:
        """All that was found."""
        return FxSheet(name, tuple(self.rates.values()), tuple(self.refused))


def _problem(base: str, quote: str, rate: str) -> str:
    for currency in (base, quote):
        if _CURRENCY.fullmatch(currency) is None:
            return f'"{currency[:10]}" is not a currency code such as USD'
    if base == quote:
        return "base and quote are the same currency"
    if _RATE.fullmatch(rate) is None or not Decimal(rate):
        return f'"{rate[:30]}" is not a rate: a number above 0 with at most 12 decimals'
    return ""


def read_day(text: str) -> date | None:
    """A day as ``2026-03-01``; None where it is none."""
    try:
        day = date.fromisoformat(text) if len(text) == 10 else None
    except ValueError:
        return None
    return day if day is not None and FIRST_YEAR <= day.year <= LAST_YEAR else None


def lines_of(text: str) -> Iterator[tuple[int, list[str], str]]:
    """The number, the cells without blanks around them, and the text of each line that is not empty."""
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            delimiter = ";" if line.count(";") > line.count(",") else ","
            cells = next(csv.reader([line], delimiter=delimiter))
            yield number, [cell.strip() for cell in cells], line


def decode(data: bytes) -> str:
    """The text of a file, which is UTF-8.

    Raises:
        InvalidInput: it is not.
    """
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidInput(
            f"the file is not text in UTF-8 (at byte {error.start})", code="not_fx_rates"
        ) from error


def read_lines(text: str) -> FxSheet:
    """Read lines ``base,quote,day,rate``, with or without a line of titles in any order.

    Raises:
        InvalidInput: nothing in it is a rate, or very much of it is none.
    """
    found = Gathering()
    order = list(COLUMNS)
    for place, (number, cells, line) in enumerate(lines_of(text)):
        titles = [cell.casefold() for cell in cells]
        if place == 0 and set(COLUMNS) <= set(titles):
            order = titles
            continue
        if len(cells) < len(order):
            found.refuse(number, f"{len(cells)} cell(s) in place of {','.join(order)}", line)
            continue
        given = dict(zip(order, cells, strict=False))
        day = read_day(given["day"])
        if day is None:
            found.refuse(number, f'"{given["day"][:20]}" is not a day such as 2026-03-01', line)
            continue
        found.take(number, line, given["base"].upper(), given["quote"].upper(), day, given["rate"])
    return found.sheet("csv")
