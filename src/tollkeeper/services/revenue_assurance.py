"""Revenue assurance: whether all that was used became money, and all that was bought was sold.

One look at one day (UTC). Nothing is changed: each finding says where to go on looking.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal

from tollkeeper.core.money import ZERO
from tollkeeper.errors import InvalidInput
from tollkeeper.services.fields import check_integer
from tollkeeper.store import revenue_assurance as store
from tollkeeper.store.db import Database
from tollkeeper.store.reconcile import archived_days
from tollkeeper.store.revenue_assurance import Loss, Numbers, Silent, Trade, Unmatched, Unrated

SHOWN = 100
"""Unmatched sessions, losses and gaps that a look lists; all are counted."""
LOSSES_MAX = 1_000
POLLS = 60
"""A source that brought nothing for so many of its intervals is called silent: an hour by default."""

__all__ = [
    "Assurance",
    "Gap",
    "Loss",
    "Silent",
    "Trade",
    "Unmatched",
    "Unrated",
    "assure",
    "gaps_of",
]


@dataclass(frozen=True, slots=True)
class Gap:
    """Running numbers of a switch that never came; ``file`` is "" where they lie between files."""

    switch: str
    file: str
    first: int
    last: int

    @property
    def missing(self) -> int:
        """How many."""
        return self.last - self.first + 1


@dataclass(frozen=True, slots=True)
class Assurance:
    """What a look at a day found.

    ``unrated`` are records that came on that day and are still in quarantine, ``unrated_in_all``
    those of all days. ``unmatched`` are the first of ``unmatched_count`` sessions, which come to
    ``unmatched_charge`` by currency; None where that cannot be told, because the records of the day
    are in the archive. ``gaps`` are of the files that were loaded on that day.
    """

    day: date
    unrated: tuple[Unrated, ...]
    unrated_in_all: int
    unmatched: tuple[Unmatched, ...]
    unmatched_count: int | None
    unmatched_charge: dict[str, Decimal]
    losses: tuple[Loss, ...]
    loss_count: int
    trade: tuple[Trade, ...]
    gaps: tuple[Gap, ...]
    gap_count: int
    gap_records: int
    silent: tuple[Silent, ...]

    @property
    def clean(self) -> bool:
        """True when nothing asks for a look."""
        return not (self.unrated or self.unmatched_count or self.losses or self.gaps or self.silent)


async def assure(database: Database, day: date, *, now: datetime, polls: int = POLLS) -> Assurance:
    """Look at one day.

    Raises:
        InvalidInput: the day has not begun, lies before 2000, or ``polls`` makes no sense.
    """
    check_integer(polls, field="polls", least=1, most=100_000)
    if not date(2000, 1, 1) <= day <= now.astimezone(UTC).date():
        raise InvalidInput("day: choose a day from 2000-01-01 until today", field="day")
    since = datetime.combine(day, time(), UTC)
    until = since + timedelta(days=1)
    around = timedelta(days=1)
    async with database.read() as connection:
        unrated, in_all = await store.read_unrated(connection, since=since, until=until)
        unmatched = None
        if not await archived_days(connection, day - around, day + around):
            unmatched = await store.read_unmatched(connection, day)
        losses = await store.read_losses(connection, day, most=LOSSES_MAX)
        trade = await store.read_trade(connection, day)
        numbers = await store.read_numbers(connection, since=since, until=until)
        silent = await store.read_silent(connection, now=now, polls=polls)
    gaps = gaps_of(numbers)
    return Assurance(
        day=day,
        unrated=tuple(unrated),
        unrated_in_all=in_all,
        unmatched=tuple((unmatched or [])[:SHOWN]),
        unmatched_count=None if unmatched is None else len(unmatched),
        unmatched_charge=_by_currency(unmatched or []),
        losses=tuple(losses[:SHOWN]),
        loss_count=len(losses),
        trade=tuple(trade),
        gaps=tuple(gaps[:SHOWN]),
        gap_count=len(gaps),
        gap_records=sum(gap.missing for gap in gaps),
        silent=tuple(silent),
    )


def _by_currency(sessions: Iterable[Unmatched]) -> dict[str, Decimal]:
    sums: dict[str, Decimal] = {}
    for session in sessions:
        sums[session.currency] = sums.get(session.currency, ZERO) + session.charge
    return dict(sorted(sums.items()))


def gaps_of(numbers: Sequence[Numbers]) -> list[Gap]:
    """The running numbers that are in no part of a switch's files, in order.

    What one part lacks another may bring: only what none of them has is missing.
    """
    found: list[Gap] = []
    for switch in sorted({part.switch for part in numbers}):
        parts = [part for part in numbers if part.switch == switch]
        spans: dict[str, tuple[int, int]] = {}
        for part in parts:
            low, high = spans.get(part.file, (part.first, part.last))
            spans[part.file] = (min(low, part.first), max(high, part.last))
        for first, last in _missing(run for part in parts for run in _runs(part)):
            inside = [f for f, (low, high) in spans.items() if low < first and last < high]
            found.append(Gap(switch, min(inside, default=""), first, last))
    return found


def _runs(part: Numbers) -> Iterable[tuple[int, int]]:
    """The stretches of numbers that a part has."""
    first = part.first
    for low, high in part.gaps:
        yield first, low - 1
        first = high + 1
    yield first, part.last


def _missing(runs: Iterable[tuple[int, int]]) -> Iterable[tuple[int, int]]:
    """What lies between the runs and in none of them."""
    upto: int | None = None
    for first, last in sorted(runs):
        if upto is not None and first > upto + 1:
            yield upto + 1, first - 1
        upto = last if upto is None else max(upto, last)
