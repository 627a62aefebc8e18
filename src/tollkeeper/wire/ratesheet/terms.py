"""The cells of a row that price it, together: read once for every distinct combination.

A deck of 200,000 rows has a few thousand distinct combinations of price, increments, dates and
flags; reading each once, and sharing the equal tariffs, is what makes a large sheet quick.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING

from tollkeeper.core.money import ZERO
from tollkeeper.core.rating import Tariff
from tollkeeper.wire.ratesheet.problem import CellProblem
from tollkeeper.wire.ratesheet.values import (
    DateReader,
    PriceReader,
    read_flag,
    read_increments,
    read_seconds,
)

if TYPE_CHECKING:
    from tollkeeper.wire.ratesheet.options import SheetOptions

TERM_FIELDS = (
    "rate",
    "first_rate",
    "next_rate",
    "connect_fee",
    "attempt_fee",
    "minimum",
    "cap",
    "surcharge",
    "free_below",
    "included_seconds",
    "increments",
    "first_interval",
    "next_interval",
    "seconds_allowed",
    "blocked",
    "enabled",
    "status",
    "effective",
    "end",
)

_FEES = ("connect_fee", "attempt_fee", "minimum", "surcharge")
_BLANK = frozenset({"", "-"})
_CLOSED = frozenset(
    {
        "closed",
        "close",
        "deleted",
        "delete",
        "removed",
        "remove",
        "discontinued",
        "withdrawn",
        "cancelled",
        "canceled",
        "terminated",
        "expired",
    }
)
_OPEN = frozenset(
    {
        "",
        "-",
        "active",
        "open",
        "enabled",
        "valid",
        "current",
        "new",
        "increase",
        "increased",
        "decrease",
        "decreased",
        "unchanged",
        "same",
        "change",
        "changed",
        "update",
        "updated",
        "add",
        "added",
        "amended",
        "unblocked",
        "yes",
        "no change",
        "price increase",
        "price decrease",
        "new code",
    }
)


@dataclass(frozen=True, slots=True)
class Terms:
    """What a row says beside its codes and names. ``free`` marks a row sold at price 0."""

    tariff: Tariff
    blocked: bool
    closed: bool
    valid_from: datetime | None
    valid_to: datetime | None
    free: bool


class TermsReader:
    """Reads the term cells of one sheet, given in the order of ``fields``."""

    def __init__(
        self, options: SheetOptions, fields: tuple[str, ...], *, decimal: str, per_second: bool
    ) -> None:
        self._options = options
        self._fields = fields
        self.per_second = per_second
        self._times = 60 if per_second else 1
        self._default = read_increments(options.increments)
        self._words = frozenset(word.casefold() for word in options.blocked_words)
        self._tariffs: dict[Tariff, Tariff] = {}
        self._dates = DateReader(
            date_format=options.date_format,
            timezone=options.timezone,
            end_inclusive=options.end_inclusive,
        )
        self.prices = PriceReader(
            decimal=decimal,
            currency=options.currency,
            price_max=options.price_max,
            decimals_max=options.price_decimals,
        )
        self.status_numbers: set[str] = set()
        self.lone_increment = self.paired_increments = False
        """What the column of increments held, where there is one alone: ``6``, ``60/6`` or both."""
        yes_no = options.seconds_allowed
        self._allowed = (read_increments(yes_no[0]), read_increments(yes_no[1])) if yes_no else None

    def read(self, cells: tuple[str, ...]) -> Terms:
        """Read one combination of cells.

        Raises:
            CellProblem: naming the first cell that has no meaning.
        """
        given = dict(zip(self._fields, cells, strict=True))
        blocked, closed = self._flags(given)
        valid_from = self._dates.start(given["effective"]) if "effective" in given else None
        valid_to = self._dates.end(given["end"]) if "end" in given else None
        if valid_from is not None and valid_to is not None and valid_to <= valid_from:
            raise CellProblem("end", given["end"], "the row ends before it begins")
        first_price, next_price = self._rates(given, priced=not (blocked or closed))
        first_interval, next_interval = self._intervals(given)
        fees = {name: self._fee(given, name) for name in _FEES}
        tariff = Tariff(
            first_price,
            next_price,
            first_interval,
            next_interval,
            connect_fee=fees["connect_fee"],
            attempt_fee=fees["attempt_fee"],
            minimum=fees["minimum"],
            free_below=self._free_below(given),
            surcharge=fees["surcharge"],
            cap=self.prices.read("cap", given["cap"])
            if given.get("cap", "").strip() not in _BLANK
            else None,
            decimals=self._options.decimals,
            rounding=self._options.rounding,
            per=self._options.units,
        )
        tariff = self._tariffs.setdefault(tariff, tariff)
        free = not (blocked or closed or first_price or next_price or any(fees.values()))
        return Terms(tariff, blocked, closed, valid_from, valid_to, free)

    def _flags(self, given: dict[str, str]) -> tuple[bool, bool]:
        """Tell whether the row is blocked and whether it is closed."""
        blocked = "blocked" in given and read_flag(given["blocked"], "blocked")
        enabled = given.get("enabled", "").strip()
        if enabled and not read_flag(enabled, "enabled"):
            blocked = True
        closed = False
        for field in ("status", "rate"):
            word = " ".join(given.get(field, "").casefold().split())
            if word in self._words:
                blocked = True
            elif word in _CLOSED:
                closed = True
            elif field == "status" and word not in _OPEN:
                blocked = self._status(given[field], word) or blocked
        return blocked, closed

    def _status(self, cell: str, word: str) -> bool:
        """Tell whether a status that is no known word blocks. Numbers mean opposite things in different systems."""
        active = self._options.status_active
        if active is not None:
            return word != active.strip().casefold()
        if word.isascii() and word.isdigit():
            self.status_numbers.add(word)
            return False
        raise CellProblem(
            "status", cell, "not a known status; say which value means active by status_active"
        )

    def _rates(self, given: dict[str, str], *, priced: bool) -> tuple[Decimal, Decimal]:
        """Read first and next price per minute; a row that is not sold may have none."""

        def read(field: str) -> Decimal | None:
            cell = given.get(field, "")
            word = " ".join(cell.casefold().split())
            if not priced and (word in _BLANK or word in self._words or word in _CLOSED):
                return ZERO
            if field != "rate" and word in _BLANK:
                return None
            return self.prices.read(field, cell, times=self._times)

        rate = read("rate") if "rate" in given else None
        first = read("first_rate") if "first_rate" in given else rate
        following = read("next_rate") if "next_rate" in given else rate
        first = rate if first is None else first
        following = rate if following is None else following
        if first is None or following is None:
            raise CellProblem(
                "first_rate" if first is None else "next_rate", "", "the price is missing"
            )
        return first, following

    def _intervals(self, given: dict[str, str]) -> tuple[int, int]:
        """Resolve the increments: own columns, then the pair, then per second or minute, then the default."""
        first = following = 0
        if given.get("next_interval", "").strip():
            pair = read_increments(given["next_interval"], "next_interval")
            if any(mark in given["next_interval"] for mark in "/:+-"):
                self.paired_increments = True
            else:
                self.lone_increment = True
            # An "increment" column may hold 6, or the pair 60/6.
            first, following = pair if pair[0] != pair[1] else (0, pair[1])
        cell = given.get("first_interval", "").strip()
        if cell:
            pair = (
                read_increments(cell, "first_interval")
                if not cell.isdigit()
                else (read_seconds(cell, "first_interval"),) * 2
            )
            first = pair[0] or first
            following = following or (pair[1] if pair[0] != pair[1] else 0)
        if given.get("increments", "").strip():
            pair = read_increments(given["increments"])
            first, following = first or pair[0], following or pair[1]
        if (
            not first
            and not following
            and self._allowed is not None
            and given.get("seconds_allowed", "").strip()
        ):
            return (
                self._allowed[0]
                if read_flag(given["seconds_allowed"], "seconds_allowed")
                else self._allowed[1]
            )
        if not first and not following:
            return self._default
        # One alone: a lone increment counts from the start, a lone first interval keeps the default after it.
        return first or following, following or self._default[1]

    def _fee(self, given: dict[str, str], field: str) -> Decimal:
        cell = given.get(field, "")
        if cell.strip() in _BLANK:
            return ZERO
        return self.prices.read(field, cell, times=self._times if field == "surcharge" else 1)

    def _free_below(self, given: dict[str, str]) -> int:
        included = given.get("included_seconds", "").strip()
        if included and read_seconds(included, "included_seconds"):
            raise CellProblem(
                "included_seconds",
                included,
                "seconds free in every call are no price element here; read the column as free_below or not at all",
            )
        cell = given.get("free_below", "").strip()
        return read_seconds(cell, "free_below") if cell not in _BLANK else 0
