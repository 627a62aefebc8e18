"""Decks: what a new rate sheet changes against the card now in force, and the card it leads to.

Times go forward only: a row of the sheet that starts in the past starts when the next version is
activated, so nothing that was already rated can change; a row that starts later leaves the old
one in force until then. Versions of a card keep its history, so a code that is closed is simply
not in the next version (or ends there, where the sheet starts later).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Literal

from tollkeeper.core.rating import Tariff, price
from tollkeeper.core.tariff import RateRow
from tollkeeper.errors import InvalidInput

Mode = Literal["full", "partial"]
"""Full: codes that the sheet does not name are closed. Partial: they stay as they are."""

REFERENCE_TIMES = (1, 3)
"""The usages by whose price a row has become dearer or cheaper, in times of what prices are for: calls of
60 and of 180 seconds, one message and three."""

SUSPICIOUS_TIMES = 10
"""A price that rose to more than so many times the old, or fell below that part of it, is flagged."""

_Held = RateRow | tuple[RateRow, ...]
_Reference = tuple[Decimal, ...]


class Status(StrEnum):
    """What becomes of a prefix."""

    NEW = "new"
    INCREASED = "increased"
    DECREASED = "decreased"
    UNCHANGED = "unchanged"
    CHANGED = "changed"
    """Other terms (increments, fees, end), neither dearer nor cheaper on both reference calls."""
    CLOSED = "closed"
    BLOCKED = "blocked"
    """Not sold from now on, whether it was before or is new."""
    UNBLOCKED = "unblocked"


@dataclass(frozen=True, slots=True)
class Change:
    """What one row of the sheet does, or what happens to a code that is closed.

    ``old`` is the row that would be in force at ``effective`` without the sheet; ``effective`` is
    UTC, None meaning at activation. Prices are those of a call of 60 seconds (of one message, of what
    prices are for), all fees included.
    """

    prefix: str
    destination: str
    status: Status
    old: RateRow | None
    new: RateRow | None
    effective: datetime | None
    old_price: Decimal | None
    new_price: Decimal | None
    suspicious: bool = False


@dataclass(frozen=True, slots=True)
class DeckChange:
    """The outcome of a comparison: a change for every row of the sheet and every closed code.

    ``counts`` has every status. ``renamed`` counts rows that only carry another name, ``over``
    rows of the sheet that had ended before ``at`` and change nothing, ``backdated`` rows that
    start in the past and so start at activation, ``kept`` codes that the sheet does not name
    (partial sheets only), ``superseded`` later changes already planned that the sheet replaces.
    """

    changes: tuple[Change, ...]
    counts: Mapping[Status, int]
    suspicious: int
    renamed: int
    over: int
    backdated: int
    kept: int
    superseded: int

    def __iter__(self) -> Iterator[Change]:
        """Give the changes in the order of the sheet, then the closed codes."""
        return iter(self.changes)

    def with_status(self, status: Status) -> Iterator[Change]:
        """Give the changes of one status."""
        return (change for change in self.changes if change.status is status)

    def notes(self) -> list[str]:
        """Sentences for the person who decides on the activation."""
        found = []
        if self.suspicious:
            found.append(
                f"{self.suspicious} price(s) moved by more than {SUSPICIOUS_TIMES} times: check them first."
            )
        if self.backdated:
            found.append(
                f"{self.backdated} row(s) are dated in the past: they apply from activation, nothing is rated again."
            )
        if self.over:
            found.append(f"{self.over} row(s) had ended already and change nothing.")
        if self.superseded:
            found.append(
                f"{self.superseded} change(s) planned for later are replaced by this sheet."
            )
        if self.renamed:
            found.append(f"{self.renamed} row(s) carry another destination name.")
        closed = self.counts[Status.CLOSED]
        if closed * 2 > sum(self.counts.values()):
            found.append(f"{closed} codes would be closed, more than stay: is this a full sheet?")
        return found


def compare(
    current: Iterable[RateRow],
    new: Iterable[RateRow],
    *,
    at: datetime,
    mode: Mode,
    closing: Mapping[str, datetime | None] | None = None,
) -> DeckChange:
    """Compare a sheet with the rows of the active version, for activation at ``at`` (UTC).

    ``closing`` names codes that the sheet closes in so many words, and when (None: at activation).

    Raises:
        InvalidInput: a full sheet without rows, which would close every code.
    """
    return _Comparison(current, new, at, mode, closing or {}).run()


def merge(
    current: Iterable[RateRow],
    new: Iterable[RateRow],
    *,
    at: datetime,
    mode: Mode,
    closing: Mapping[str, datetime | None] | None = None,
) -> list[RateRow]:
    """Give the rows of the next version: drafts (``row_id`` 0) that :func:`compare` describes.

    Raises:
        InvalidInput: a full sheet without rows, which would close every code.
    """
    old_by_prefix, new_by_prefix = _by_prefix(current), _by_prefix(new)
    ends = _ends(new_by_prefix, closing or {}, at, mode, old_by_prefix)
    out: list[RateRow] = []
    for prefix, held in old_by_prefix.items():
        if prefix not in ends:
            out.extend(_with_end(row, row.valid_to) for row in _each(held))
            continue
        end = ends[prefix]
        if end is None:
            continue
        for row in _each(held):
            starts_later = row.valid_from is not None and row.valid_from >= end
            if not starts_later and not _is_over(row, at):
                out.append(_with_end(row, end if row.valid_to is None else min(end, row.valid_to)))
    for held in new_by_prefix.values():
        out.extend(_timeline(held, at))
    return out


def _by_prefix(rows: Iterable[RateRow]) -> dict[str, _Held]:
    table: dict[str, _Held] = {}
    for row in rows:
        held = table.get(row.prefix)
        if held is None:
            table[row.prefix] = row
        else:
            table[row.prefix] = (*_each(held), row)
    return table


def _each(held: _Held) -> tuple[RateRow, ...]:
    return held if isinstance(held, tuple) else (held,)


def _is_over(row: RateRow, at: datetime) -> bool:
    return row.valid_to is not None and row.valid_to <= at


def _with_end(row: RateRow, end: datetime | None) -> RateRow:
    """Copy a row into a draft with this end."""
    if row.row_id == 0 and row.valid_to == end:
        return row
    return RateRow(row.prefix, row.destination, row.tariff, row.blocked, row.valid_from, end)


def _timeline(held: _Held, at: datetime) -> tuple[RateRow, ...]:
    """Lay the rows of one prefix end to end from ``at`` on, by the rule "latest begun in force".

    A row in force at ``at`` starts with the version (None), whatever date it carries.
    """
    if isinstance(held, RateRow):
        if _is_over(held, at):
            return ()
        if held.valid_from is None or held.valid_from > at:
            return (held if held.row_id == 0 else _with_end(held, held.valid_to),)
        return (
            RateRow(held.prefix, held.destination, held.tariff, held.blocked, None, held.valid_to),
        )
    alive = [row for row in held if not _is_over(row, at)]
    moments = {at}
    moments.update(
        row.valid_from for row in alive if row.valid_from is not None and row.valid_from > at
    )
    moments.update(row.valid_to for row in alive if row.valid_to is not None)
    ordered = sorted(moments)
    out: list[RateRow] = []
    source: RateRow | None = None
    for moment, following in zip(ordered, [*ordered[1:], None], strict=True):
        row = _in_force(alive, moment)
        if row is not None and row is source:
            last = out.pop()
            out.append(
                RateRow(
                    row.prefix, row.destination, row.tariff, row.blocked, last.valid_from, following
                )
            )
        elif row is not None:
            start = None if moment == at else moment
            out.append(
                RateRow(row.prefix, row.destination, row.tariff, row.blocked, start, following)
            )
        source = row
    return tuple(out)


def _in_force(rows: Iterable[RateRow], at: datetime) -> RateRow | None:
    best: RateRow | None = None
    for row in rows:
        if row.in_force(at) and (best is None or _begins_after(row, best)):
            best = row
    return best


def _begins_after(row: RateRow, other: RateRow) -> bool:
    if row.valid_from is None or other.valid_from is None:
        return row.valid_from is not None
    return row.valid_from > other.valid_from


def _ends(
    new_by_prefix: Mapping[str, _Held],
    closing: Mapping[str, datetime | None],
    at: datetime,
    mode: Mode,
    old_by_prefix: Mapping[str, _Held],
) -> dict[str, datetime | None]:
    """Tell which old codes end, and when: None at activation. Codes that stay are not in it."""
    if mode not in ("full", "partial"):
        raise InvalidInput('mode: "full" or "partial"', field="mode")
    if at.tzinfo is None:
        raise ValueError("times are UTC-aware inside")
    ends: dict[str, datetime | None] = {}
    begins: list[datetime | None] = []
    for prefix, held in new_by_prefix.items():
        segments = _timeline(held, at)
        begin = segments[0].valid_from if segments else None
        ends[prefix] = begin
        if segments:
            begins.append(begin)
    if mode == "full":
        if not new_by_prefix and old_by_prefix:
            raise InvalidInput(
                "A full sheet without rows would close every code of the card.", code="empty_sheet"
            )
        # A full sheet that only starts later closes the codes it leaves out at that moment, not now.
        later = [begin for begin in begins if begin is not None]
        whole = min(later) if later and len(later) == len(begins) else None
        for prefix in old_by_prefix:
            ends.setdefault(prefix, whole)
    for prefix, moment in closing.items():
        end = moment if moment is not None and moment > at else None
        if prefix in new_by_prefix:
            begin = ends[prefix]
            end = None if end is None or begin is None else min(end, begin)
        ends[prefix] = end
    return ends


class _Comparison:
    """One run of :func:`compare`: the tables, and the counters it fills."""

    def __init__(
        self,
        current: Iterable[RateRow],
        new: Iterable[RateRow],
        at: datetime,
        mode: Mode,
        closing: Mapping[str, datetime | None],
    ) -> None:
        self._old = _by_prefix(current)
        self._new = _by_prefix(new)
        self._at = at
        self._ends = _ends(self._new, closing, at, mode, self._old)
        self._closing = closing
        # Keyed by identity first: decks share their tariffs, and hashing twelve fields costs more.
        # The tables above keep every tariff alive, so no id is used twice.
        self._by_id: dict[int, _Reference] = {}
        self._by_tariff: dict[Tariff, _Reference] = {}
        self._verdicts: dict[tuple[int, int], tuple[Status, bool]] = {}
        self._changes: list[Change] = []
        self._renamed = self._over = self._backdated = self._superseded = 0

    def run(self) -> DeckChange:
        """Judge every prefix of the sheet, then the codes that it closes."""
        at = self._at
        for prefix, held in self._new.items():
            for row in _each(held):
                if _is_over(row, at):
                    self._over += 1
                elif row.valid_from is not None and row.valid_from < at:
                    self._backdated += 1
            segments, old = _timeline(held, at), self._old_rows(prefix)
            if not segments:
                self._close(prefix, old)
                continue
            if len(old) > 1 or (old and old[0].valid_from is not None):
                self._count_superseded(old, segments)
            previous: RateRow | None = None
            for row in segments:
                self._judge(row, _in_force(old, row.valid_from or at) or previous)
                previous = row
        for prefix in self._ends:
            if prefix not in self._new and prefix in self._old:
                self._close(prefix, self._old_rows(prefix))
        counts = Counter(change.status for change in self._changes)
        return DeckChange(
            changes=tuple(self._changes),
            counts={status: counts.get(status, 0) for status in Status},
            suspicious=sum(1 for change in self._changes if change.suspicious),
            renamed=self._renamed,
            over=self._over,
            backdated=self._backdated,
            kept=sum(1 for prefix in self._old if prefix not in self._ends),
            superseded=self._superseded,
        )

    def _old_rows(self, prefix: str) -> tuple[RateRow, ...]:
        """Give the rows of the active version that are not over, end to end."""
        held = self._old.get(prefix)
        if held is None or (isinstance(held, RateRow) and _is_over(held, self._at)):
            return ()
        return (held,) if isinstance(held, RateRow) else _timeline(held, self._at)

    def _count_superseded(self, old: tuple[RateRow, ...], segments: tuple[RateRow, ...]) -> None:
        """Count later starts of the active version that the sheet neither leaves nor repeats."""
        begun = {row.valid_from for row in segments}
        first = segments[0].valid_from or self._at
        for row in old:
            start = row.valid_from
            if start is not None and start > self._at and start >= first and start not in begun:
                self._superseded += 1

    def _judge(self, row: RateRow, old: RateRow | None) -> None:
        """Record what a row of the sheet does against the row it follows."""
        new_price = self._reference(row.tariff)[0]
        if old is None:
            status = Status.BLOCKED if row.blocked else Status.NEW
            self._changes.append(
                Change(
                    row.prefix, row.destination, status, None, row, row.valid_from, None, new_price
                )
            )
            return
        key = (id(old.tariff), id(row.tariff))
        verdict = self._verdicts.get(key)
        if verdict is None:
            verdict = self._verdicts[key] = self._verdict(old.tariff, row.tariff)
        status, suspicious = verdict
        if row.blocked != old.blocked:
            status = Status.BLOCKED if row.blocked else Status.UNBLOCKED
        elif row.blocked and status is not Status.UNCHANGED:
            # Nobody pays the price of a blocked row: dearer or cheaper would mislead.
            status = Status.CHANGED
        if status is Status.UNCHANGED:
            if row.valid_to != old.valid_to:
                status = Status.CHANGED
            elif row.destination != old.destination:
                self._renamed += 1
        self._changes.append(
            Change(
                row.prefix,
                row.destination,
                status,
                old,
                row,
                row.valid_from,
                self._reference(old.tariff)[0],
                new_price,
                suspicious and not row.blocked,
            )
        )

    def _close(self, prefix: str, old: tuple[RateRow, ...]) -> None:
        """Record a code that ends; one whose rows had all ended before is none."""
        if not old:
            return
        row, end = old[0], self._ends[prefix]
        self._changes.append(
            Change(
                prefix,
                row.destination,
                Status.CLOSED,
                row,
                None,
                end,
                self._reference(row.tariff)[0],
                None,
            )
        )

    def _reference(self, tariff: Tariff) -> _Reference:
        """Prices of the reference calls, worked out once for a tariff."""
        found = self._by_id.get(id(tariff))
        if found is None:
            found = self._by_tariff.get(tariff)
            if found is None:
                found = tuple(price(tariff, times * tariff.per) for times in REFERENCE_TIMES)
                self._by_tariff[tariff] = found
            self._by_id[id(tariff)] = found
        return found

    def _verdict(self, old: Tariff, new: Tariff) -> tuple[Status, bool]:
        """Judge two tariffs by the reference calls: dearer, cheaper, or neither; and whether wildly."""
        if old == new:
            return Status.UNCHANGED, False
        before, after = self._reference(old), self._reference(new)
        dearer = any(b < a for b, a in zip(before, after, strict=True))
        cheaper = any(b > a for b, a in zip(before, after, strict=True))
        wild = any(
            a > b * SUSPICIOUS_TIMES or a * SUSPICIOUS_TIMES < b
            for b, a in zip(before, after, strict=True)
        )
        if dearer != cheaper:
            return (Status.INCREASED if dearer else Status.DECREASED), wild
        return Status.CHANGED, wild
