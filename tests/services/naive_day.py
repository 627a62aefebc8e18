"""A day's file computed a second time, slowly and in another way, to compare with.

The lines are read by Python's csv, prefixes are looked up in dictionaries, one length after the
other, and prices are those of ``tests.core.naive``. Nothing is shared with what is tested but the
decks and the names of their price elements.
"""

from __future__ import annotations

import csv
import re
from collections import Counter, defaultdict
from collections.abc import Container
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

from tests.core.naive import naive_price
from tollkeeper.cli.bench.cdr_world import Deck
from tollkeeper.core.tariff import RateRow

_TIME = re.compile(r"[0-9]{4}-[01][0-9]-[0-3][0-9] [0-2][0-9]:[0-5][0-9]:[0-5][0-9]\.[0-9]{3}")
_DURATION = re.compile(r"([0-9]+)\.([0-9]{3})")
_LONGEST = 18

Group = tuple[datetime, str, str]
"""An hour, a customer and a vendor, by the names of their trunks."""


@dataclass
class Sums:
    """What is added up by the hour."""

    attempts: int = 0
    answers: int = 0
    duration_ms: int = 0
    charge: Decimal = Decimal(0)
    cost: Decimal = Decimal(0)


@dataclass
class Naive:
    """What the file comes to: counts by outcome, money by trunk, sums by the hour.

    ``charges`` and the hours' charge are of calls that were not charged live.
    """

    counts: Counter[str] = field(default_factory=Counter)
    charges: dict[str, Decimal] = field(default_factory=lambda: defaultdict(Decimal))
    costs: dict[str, Decimal] = field(default_factory=lambda: defaultdict(Decimal))
    hours: dict[Group, Sums] = field(default_factory=lambda: defaultdict(Sums))


class _Book:
    """Decks as dictionaries."""

    def __init__(self, decks: list[Deck]) -> None:
        self._decks = [
            [(version.since, {row.prefix: row for row in version.rows}) for version in deck]
            for deck in decks
        ]
        self._prices: dict[tuple[int, int], Decimal] = {}

    def row(self, deck: int, number: str, at: datetime) -> RateRow | None:
        """The row of the longest prefix in the version of that time that is in force."""
        versions = self._decks[deck]
        rows = versions[0][1]
        for since, later in versions[1:]:
            if at >= since:
                rows = later
        for length in range(min(len(number), _LONGEST), -1, -1):
            row = rows.get(number[:length])
            if row is not None and (row.valid_from is None or row.valid_from <= at):
                return row
        return None

    def price(self, row: RateRow, seconds: int) -> Decimal:
        """The price of a call; equal ones are computed once."""
        key = id(row.tariff), seconds
        if key not in self._prices:
            self._prices[key] = naive_price(row.tariff, seconds)
        return self._prices[key]


def compute(path: Path, sells: list[Deck], buys: list[Deck], live: Container[str]) -> Naive:
    """Compute a file of ``tollkeeper.cli.bench.cdr_day``; ``live`` are ids of calls charged live."""
    sell_book, buy_book = _Book(sells), _Book(buys)
    found = Naive()
    seen: set[tuple[str, str]] = set()
    with path.open(encoding="utf-8", newline="") as file:
        for cells in list(csv.reader(file))[1:]:
            if not _is_good(cells):
                found.counts["quarantined"] += 1
                continue
            if (cells[0], cells[6]) in seen:
                found.counts["duplicate"] += 1
                continue
            seen.add((cells[0], cells[6]))
            _add(found, cells, sell_book, buy_book, live, len(sells))
    return found


def _is_good(cells: list[str]) -> bool:
    return (
        len(cells) == 15
        and cells[0] != ""
        and _TIME.fullmatch(cells[6]) is not None
        and not cells[6].startswith("0000")
        and _DURATION.fullmatch(cells[9]) is not None
    )


def _add(
    found: Naive,
    cells: list[str],
    sell_book: _Book,
    buy_book: _Book,
    live: Container[str],
    sells: int,
) -> None:
    call_id, customer, vendor, called = cells[0], cells[1], cells[3], cells[5]
    start = datetime.fromisoformat(cells[6]).replace(tzinfo=UTC)
    whole, rest = cells[9].split(".")
    seconds = int(whole) + (int(rest) > 0)
    sold = sell_book.row((int(customer[5:]) - 1) % sells, called, start)
    charged_live = call_id in live
    if not charged_live and seconds and (sold is None or sold.blocked):
        found.counts["quarantined"] += 1
        return
    sums = found.hours[start.replace(minute=0, second=0, microsecond=0), customer, vendor]
    sums.attempts += 1
    sums.answers += cells[7] != ""
    sums.duration_ms += int(whole) * 1000 + int(rest)
    if charged_live:
        found.counts["matched"] += 1
    else:
        found.counts["rated"] += 1
        if sold is not None and not sold.blocked:
            charge = sell_book.price(sold, seconds)
            found.charges[customer] += charge
            sums.charge += charge
    bought = buy_book.row(int(vendor[5:]) - 1, called, start)
    if bought is not None and not bought.blocked:
        cost = buy_book.price(bought, seconds)
        found.costs[vendor] += cost
        sums.cost += cost
