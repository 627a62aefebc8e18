"""Rate cards, compiled: which row prices this number at this moment.

Longest prefix wins over all cards of a plan; among equal prefixes the card that stands first in
the plan wins. A row that is not in force at that time does not hide a shorter one that is.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import msgspec

from tollkeeper.core.rating import Tariff

PREFIX_MAX = 18
"""Digits in a prefix: 15 of E.164 and room for a routing or ported-number mark."""

HEAD = 4
"""Digits by which a table groups the lengths of its prefixes."""


@dataclass(frozen=True, slots=True)
class RateRow:
    """One line of a rate card.

    ``valid_from`` is inclusive, ``valid_to`` exclusive, both UTC; None is unbounded. A blocked
    row is a destination that is not sold: it wins like any other and then refuses.
    ``row_id`` is the number under which the store keeps the row (0 while it is only a draft).
    """

    prefix: str
    destination: str
    tariff: Tariff
    blocked: bool = False
    valid_from: datetime | None = None
    valid_to: datetime | None = None
    row_id: int = 0

    def in_force(self, at: datetime) -> bool:
        """Tell whether the row applies at ``at`` (UTC)."""
        if self.valid_from is not None and at < self.valid_from:
            return False
        return self.valid_to is None or at < self.valid_to


_BEGINNING = datetime.min.replace(tzinfo=UTC)


class PrefixTable:
    """An immutable table of one card version: longest valid prefix of a number in a few probes.

    Rows are kept by prefix in one dictionary; the prefix lengths that occur are kept per first
    four digits, so a lookup probes few lengths that cannot match.
    """

    __slots__ = ("_lengths", "_rows", "size")

    def __init__(self, rows: Iterable[RateRow]) -> None:
        table: dict[str, RateRow | tuple[RateRow, ...]] = {}
        lengths: dict[str, set[int]] = {}
        size = 0
        for row in rows:
            size += 1
            prefix = row.prefix
            held = table.get(prefix)
            if held is None:
                table[prefix] = row
                if len(prefix) >= HEAD:
                    lengths.setdefault(prefix[:HEAD], set()).add(len(prefix))
            else:
                versions = held if isinstance(held, tuple) else (held,)
                table[prefix] = tuple(sorted((*versions, row), key=_newest_first, reverse=True))
        self._rows = table
        self._lengths = {
            head: tuple(sorted(found, reverse=True)) for head, found in lengths.items()
        }
        self.size = size

    def find(self, number: str, at: datetime) -> RateRow | None:
        """Return the row of the longest prefix of ``number`` in force at ``at``, or None."""
        rows = self._rows
        for length in self._lengths.get(number[:HEAD], ()):
            # A slice longer than the number is the number itself: not a prefix of that length.
            if length > len(number):
                continue
            held = rows.get(number[:length])
            if held is not None:
                # Nearly every row is one that is always in force: no further look at it.
                if type(held) is RateRow and held.valid_from is None and held.valid_to is None:
                    return held
                row = _choose(held, at)
                if row is not None:
                    return row
        for short in (number[:3], number[:2], number[:1], ""):
            held = rows.get(short)
            if held is not None:
                row = _choose(held, at)
                if row is not None:
                    return row
        return None

    def next_edge(self, number: str, after: datetime) -> datetime | None:
        """Return when, later than ``after``, a row that could price ``number`` begins or ends; or None."""
        found: datetime | None = None
        for length in range(min(len(number), PREFIX_MAX) + 1):
            held = self._rows.get(number[:length])
            if held is None:
                continue
            for row in held if isinstance(held, tuple) else (held,):
                for edge in (row.valid_from, row.valid_to):
                    if edge is not None and edge > after and (found is None or edge < found):
                        found = edge
        return found


def _newest_first(row: RateRow) -> tuple[bool, datetime]:
    return (row.valid_from is not None, row.valid_from or _BEGINNING)


def _choose(held: RateRow | tuple[RateRow, ...], at: datetime) -> RateRow | None:
    """Of the rows of one prefix, the latest begun that is in force."""
    if isinstance(held, RateRow):
        return (
            held
            if (held.valid_from is None and held.valid_to is None) or held.in_force(at)
            else None
        )
    for row in held:
        if row.in_force(at):
            return row
    return None


@dataclass(frozen=True, slots=True)
class Card:
    """A compiled card version: what a lookup needs and what a charge must remember."""

    card_id: int
    code: str
    version: int
    currency: str
    table: PrefixTable


class Match(msgspec.Struct, frozen=True, gc=False):
    """The row that prices a number, and the card version it stands on."""

    card: Card
    row: RateRow


def find_rate(cards: Sequence[Card], number: str, at: datetime) -> Match | None:
    """Choose over all cards of a plan: longest prefix first, then the order of the cards."""
    best: Match | None = None
    best_length = -1
    for card in cards:
        row = card.table.find(number, at)
        if row is not None and len(row.prefix) > best_length:
            best = Match(card, row)
            best_length = len(row.prefix)
    return best
