"""The guarantees of the records that came as files (I21, I22, I23), as ``core.audit`` has the others."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from tollkeeper.core.findings import Finding
from tollkeeper.core.money import ZERO

WITH_RECORDS = frozenset({"load", "replay"})
"""Kinds of batch that put records into the books; the others change what is there."""


@dataclass(frozen=True, slots=True)
class Outcomes:
    """What became of records."""

    records: int = 0
    rated: int = 0
    matched: int = 0
    duplicate: int = 0
    quarantined: int = 0

    def __add__(self, other: Outcomes) -> Outcomes:
        """Both together."""
        return Outcomes(
            self.records + other.records,
            self.rated + other.rated,
            self.matched + other.matched,
            self.duplicate + other.duplicate,
            self.quarantined + other.quarantined,
        )

    @property
    def balance(self) -> int:
        """Records of which nothing became: zero when all is well."""
        return self.records - self.rated - self.matched - self.duplicate - self.quarantined


@dataclass(frozen=True, slots=True)
class FileLine:
    """A file by its own counters; ``lines_done`` is the last line that was looked at."""

    id: int
    name: str
    lines_done: int
    outcomes: Outcomes


@dataclass(frozen=True, slots=True)
class BatchLine:
    """A batch by its own counters; ``undone_by`` is the batch that took it back (0: none did)."""

    id: int
    kind: str
    file_id: int
    first_line: int
    last_line: int
    outcomes: Outcomes
    undone_by: int = 0


@dataclass(frozen=True, slots=True)
class Stored:
    """The rows that there are of a batch, those in the archive included."""

    rated: int = 0
    matched: int = 0
    quarantined: int = 0


def check_files(files: Iterable[FileLine], batches: Iterable[BatchLine]) -> Iterator[Finding]:
    """A file is the sum of the batches that loaded it, and these share no line (I21)."""
    loads: dict[int, list[BatchLine]] = defaultdict(list)
    for batch in batches:
        if batch.kind == "load":
            loads[batch.file_id].append(batch)
    for file in files:
        subject = f"file {file.id} {file.name}"
        if file.outcomes.balance:
            yield Finding("I21.file", subject, _unbalanced(file.outcomes))
        own = sorted(loads[file.id], key=lambda batch: batch.id)
        total = sum((batch.outcomes for batch in own), Outcomes())
        if file.outcomes != total:
            yield Finding(
                "I21.sum", subject, f"says {_show(file.outcomes)}, its batches {_show(total)}"
            )
        line = 0
        for batch in own:
            if batch.first_line and batch.first_line <= line:
                detail = (
                    f"batch {batch.id} begins at line {batch.first_line}, {line} was done before"
                )
                yield Finding("I21.twice", subject, detail)
            line = max(line, batch.last_line)
        if line > file.lines_done:
            yield Finding(
                "I21.lines", subject, f"stands at line {file.lines_done}, {line} was done"
            )


def check_batches(batches: Iterable[BatchLine], stored: Mapping[int, Stored]) -> Iterator[Finding]:
    """What a batch says became of its records is what is there of them (I21)."""
    known = set()
    for batch in batches:
        known.add(batch.id)
        subject, own = f"batch {batch.id}", stored.get(batch.id, Stored())
        if batch.outcomes.balance:
            yield Finding("I21.batch", subject, _unbalanced(batch.outcomes))
        says = batch.outcomes if batch.kind in WITH_RECORDS else Outcomes()
        for name in ("rated", "matched", "quarantined"):
            said, there = getattr(says, name), getattr(own, name)
            if said != there:
                yield Finding(f"I21.{name}", subject, f"says {said}, {there} are there")
    for id_ in sorted(stored.keys() - known):
        yield Finding("I21.stray", f"batch {id_}", "has records, yet there is no such batch")


# --- money ---------------------------------------------------------------------------------------

Place = tuple[int, int, str]
"""A batch, a wallet, and the side: ``sell`` (what it pays) or ``buy`` (what it earns)."""


@dataclass(frozen=True, slots=True)
class LegTotal:
    """The sum of legs on one wallet: of the records of ``batch_id`` as it wrote them.

    With ``by_batch`` it is by how much that batch changed them.
    """

    batch_id: int
    by_batch: int
    wallet_id: int
    side: str
    amount: Decimal


def expected_postings(legs: Iterable[LegTotal], undone: Mapping[int, int]) -> dict[Place, Decimal]:
    """What each batch must have posted.

    A batch posts the legs that began to count with it, and takes back those that ceased to: when
    the batch of their record, or the one that changed them, was taken back. ``undone`` says by
    whom.
    """
    sums: dict[Place, Decimal] = defaultdict(lambda: ZERO)
    for leg in legs:
        begin = leg.by_batch or leg.batch_id
        sums[begin, leg.wallet_id, leg.side] += leg.amount
        ends = [undone[id_] for id_ in (leg.batch_id, leg.by_batch) if undone.get(id_)]
        if ends:
            sums[min(ends), leg.wallet_id, leg.side] -= leg.amount
    return dict(sums)


def check_postings(
    expected: Mapping[Place, Decimal], posted: Mapping[Place, Decimal]
) -> Iterator[tuple[Finding, int]]:
    """What each batch posted to each wallet is what its legs add up to (I22); with the wallet."""
    for place in sorted(expected.keys() | posted.keys()):
        batch_id, wallet_id, side = place
        must, does = expected.get(place, ZERO), posted.get(place, ZERO)
        if must != does:
            detail = f"posted {does} to wallet {wallet_id} ({side}), its legs make {must}"
            yield Finding(f"I22.{side}", f"batch {batch_id}", detail), wallet_id


@dataclass(frozen=True, slots=True)
class OddRevision:
    """A revision that does not begin where the leg stood: ``was`` against what counted before."""

    by_batch: int
    batch_id: int
    line: int
    leg: int
    was: Decimal
    counted: Decimal


def check_revision(odd: OddRevision) -> Iterator[Finding]:
    """A revision changes the amount that counted before it (I22)."""
    if odd.was != odd.counted:
        yield Finding(
            "I22.was",
            f"batch {odd.by_batch}",
            f"took leg {odd.leg} of line {odd.line} of batch {odd.batch_id} to be {odd.was}, "
            f"and it was {odd.counted}",
        )


# --- hourly sums ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class HourLine:
    """One group of hourly sums: what stands, and what the records add up to, by measure."""

    hour: datetime
    group: str
    stands: Mapping[str, Decimal]
    derived: Mapping[str, Decimal]


def check_hour(line: HourLine) -> Iterator[Finding]:
    """Each measure of the hour is the sum over its records (I23)."""
    odd = [
        f"{name} stands at {line.stands.get(name, ZERO)}, adds up to {line.derived.get(name, ZERO)}"
        for name in sorted(line.stands.keys() | line.derived.keys())
        if line.stands.get(name, ZERO) != line.derived.get(name, ZERO)
    ]
    if odd:
        subject = f"hour {line.hour.isoformat(timespec='minutes')} {line.group}"
        yield Finding("I23.hour", subject, "; ".join(odd))


def _unbalanced(outcomes: Outcomes) -> str:
    return f"{_show(outcomes)}: {outcomes.balance} without an outcome"


def _show(outcomes: Outcomes) -> str:
    return (
        f"{outcomes.records} records, {outcomes.rated} rated, {outcomes.matched} matched, "
        f"{outcomes.duplicate} duplicate, {outcomes.quarantined} quarantined"
    )
