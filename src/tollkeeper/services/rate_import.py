"""An import, as the worker process does it: read the sheet, compare it, store a draft version."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal

from tollkeeper.core.deck import Change, DeckChange, Mode, Status, compare, merge
from tollkeeper.core.money import Rounding
from tollkeeper.core.records import Unit
from tollkeeper.core.services import service_of
from tollkeeper.core.tariff import RateRow
from tollkeeper.errors import InvalidInput, NotFound
from tollkeeper.store.changes import record
from tollkeeper.store.db import Database
from tollkeeper.store.rates import (
    RateCard,
    RateChange,
    RateRefusal,
    RateVersion,
    add_version,
    copy_changes,
    copy_refusals,
    copy_rows,
    read_card,
    read_rows,
    read_version,
    same_file,
    take_version,
)
from tollkeeper.wire.ratesheet import Sheet, SheetOptions, read_sheet
from tollkeeper.wire.ratesheet.decode import read_text
from tollkeeper.wire.ratesheet.header import find_layout

Say = Callable[[str, int, int], None]
"""Told the stage, the rows done in it and their total (0: not known)."""

MOVES_SHOWN = 10
SUSPICIOUS_SHOWN = 50
REFUSALS_SHOWN = 100
VOICE_INCREMENTS = SheetOptions().increments

# What a person looks at first; what is unchanged is only counted.
_ORDER = {
    status: place
    for place, status in enumerate(
        (
            Status.INCREASED,
            Status.DECREASED,
            Status.CLOSED,
            Status.BLOCKED,
            Status.UNBLOCKED,
            Status.CHANGED,
            Status.NEW,
        )
    )
}
_ENDLESS = Decimal("Infinity")


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportJob:
    """All that an import needs to know; ``at`` (UTC) is the moment it is made for."""

    url: str
    card: str
    data: bytes
    options: SheetOptions
    mode: Mode
    dry_run: bool
    file_name: str
    actor: str
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportReport:
    """What became of a sheet.

    ``version`` is the draft that was stored; None for a dry run. ``rows_in`` = ``rows_stored`` +
    ``rows_refused`` + ``rows_repeated`` + ``rows_closing``; ``row_count`` is the length of the
    card after activation. ``counts`` has every status of :class:`~tollkeeper.core.deck.Status`.
    ``moves``, ``suspicious_rows`` and ``refusals`` show the first of what may be many.
    ``timing_ms`` says how long each stage took.
    """

    card: str
    currency: str
    version: int | None
    base_version: int | None
    mode: str
    dry_run: bool
    file_name: str
    sha256: str
    rows_in: int
    rows_stored: int
    rows_refused: int
    rows_repeated: int
    rows_closing: int
    row_count: int
    counts: dict[str, int]
    suspicious: int
    notes: tuple[str, ...] = ()
    columns: dict[str, str] = field(default_factory=dict)
    moves: tuple[RateChange, ...] = ()
    suspicious_rows: tuple[RateChange, ...] = ()
    refusals: tuple[RateRefusal, ...] = ()
    timing_ms: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Result:
    """A sheet that was read and compared: what there is to store and to report."""

    card: RateCard
    base: RateVersion | None
    sheet: Sheet
    header: str
    deck: DeckChange
    changes: Sequence[RateChange]
    rows: Sequence[RateRow]
    refusals: Sequence[RateRefusal]
    notes: tuple[str, ...]
    sha256: str


async def run_import(database: Database, job: ImportJob, say: Say) -> ImportReport:
    """Read, compare and, unless it is a dry run, store a draft version. Nothing is half stored.

    Raises:
        NotFound: no such card.
        InvalidInput: the file is no rate sheet, the options do not fit it, it is in another
            currency, or (not in a dry run) every row of it was refused.
    """
    watch = _Watch()
    async with database.read() as connection:
        card = await read_card(connection, job.card)
        if card is None:
            raise NotFound(f'there is no rate card "{job.card}"', code="unknown_card", field="card")
        options = _options_for(card, job.options)
        say("reading", 0, 0)
        sheet = read_sheet(job.data, options)
        say("reading", sheet.rows_in, sheet.rows_in)
        watch.lap("read")
        base, current = None, []
        if card.active_version is not None:
            base = await read_version(connection, card.id, card.active_version)
            assert base is not None, "an active version is never deleted"
            say("comparing", 0, base.row_count)
            current = await read_rows(connection, card, base)
        sha256 = hashlib.sha256(job.data).hexdigest()
        again = await same_file(connection, card.id, sha256)
    say("comparing", 0, len(sheet.rows))
    result = _compare(job, card, base, current, sheet, options, sha256, again)
    say("comparing", len(sheet.rows), len(sheet.rows))
    watch.lap("compare")
    version = None
    if not job.dry_run:
        if not sheet.rows and not sheet.closings:
            raise _nothing_left(sheet)
        version = await _store(database, job, result, say)
        watch.lap("store")
    return _report(job, result, version, watch.laps)


def _options_for(card: RateCard, options: SheetOptions) -> SheetOptions:
    """The card says how legs are rounded, which currency its prices are in, and what they are for."""
    if options.currency is not None and options.currency != card.currency:
        raise InvalidInput(
            f'the card "{card.code}" is in {card.currency}, not in {options.currency}',
            code="wrong_currency",
            field="currency",
        )
    made = replace(
        options,
        currency=card.currency,
        decimals=card.decimals,
        rounding=Rounding(card.rounding),
        units=card.per,
    )
    if service_of(card.service).unit is Unit.SECOND:
        return made
    # What is not time has no minutes: each unit counts, unless the sheet or the caller says otherwise.
    plain = options.increments == VOICE_INCREMENTS
    return replace(made, per="minute", increments="1/1" if plain else options.increments)


def _compare(
    job: ImportJob,
    card: RateCard,
    base: RateVersion | None,
    current: Sequence[RateRow],
    sheet: Sheet,
    options: SheetOptions,
    sha256: str,
    again: int | None,
) -> _Result:
    new = [row for _, row in sheet.rows]
    if not new and not sheet.closings:
        # Every row was refused: that is no wish to close anything.
        deck = compare((), (), at=job.at, mode="partial")
        rows: list[RateRow] = []
    else:
        closing = sheet.closing_times
        deck = compare(current, new, at=job.at, mode=job.mode, closing=closing)
        rows = merge(current, new, at=job.at, mode=job.mode, closing=closing)
        rows.sort(key=_place)
    notes = [*sheet.notes, *deck.notes()]
    if again is not None:
        notes.append(f"Version {again} was made from this very file.")
    return _Result(
        card=card,
        base=base,
        sheet=sheet,
        header=_header(job.data, options) if sheet.refused else "",
        deck=deck,
        changes=_ordered(deck),
        rows=rows,
        refusals=[RateRefusal(seq, *refusal) for seq, refusal in enumerate(sheet.refused, 1)],
        notes=tuple(notes),
        sha256=sha256,
    )


def _place(row: RateRow) -> tuple[str, str]:
    # Times of one prefix in order; as text they sort like themselves, being all in UTC.
    return row.prefix, "" if row.valid_from is None else row.valid_from.isoformat()


def _header(data: bytes, options: SheetOptions) -> str:
    """The line of titles, which makes a file of refused lines readable again; "" if there is none."""
    lines = read_text(data, options).lines
    layout = find_layout(lines, options)
    return lines[layout.first - 1] if layout.has_header else ""


def _ordered(deck: DeckChange) -> list[RateChange]:
    """Changes without the unchanged, suspicious ones first, then by status, the largest move first."""
    found = [change for change in deck if change.status is not Status.UNCHANGED]
    found.sort(key=lambda c: (not c.suspicious, _ORDER[c.status], -_times(c)))
    return [
        RateChange(
            seq,
            change.status.value,
            change.prefix,
            change.destination,
            change.effective,
            change.old_price,
            change.new_price,
            change.suspicious,
        )
        for seq, change in enumerate(found, 1)
    ]


def _times(change: Change | RateChange) -> Decimal:
    """How many times the smaller price the larger one is; 1 where there is no pair of prices."""
    old, new = change.old_price, change.new_price
    if old is None or new is None or old == new:
        return Decimal(1)
    low, high = min(old, new), max(old, new)
    return high / low if low else _ENDLESS


def _nothing_left(sheet: Sheet) -> InvalidInput:
    shown = "; ".join(
        f"line {refusal.line}: {refusal.reason}"
        + (f' ("{refusal.value}")' if refusal.value else "")
        for refusal in sheet.refused[:3]
    )
    return InvalidInput(
        f"every one of the {sheet.rows_in} row(s) was refused, so there is no new version: {shown}; "
        "a dry run lists them",
        code="all_rows_refused",
    )


async def _store(database: Database, job: ImportJob, result: _Result, say: Say) -> int:
    """Write the draft, all or nothing; return its number."""
    card, sheet, total = result.card, result.sheet, len(result.rows)
    # A number of its own first: the card must not stay locked while its rows are written. A number
    # whose import then fails is never used.
    async with database.write() as connection:
        number = await take_version(connection, card.id)
    async with database.write() as connection:
        version = RateVersion(
            version=number,
            base_version=result.base.version if result.base is not None else None,
            mode=job.mode,
            file_name=job.file_name,
            sha256=result.sha256,
            rows_in=sheet.rows_in,
            rows_stored=len(sheet.rows),
            rows_refused=len(sheet.refused),
            rows_repeated=len(sheet.repeats),
            rows_closing=len(sheet.closings),
            row_count=total,
            summary=_summary(result),
            created_by=job.actor,
            created_at=job.at,
        )
        version_id = await add_version(connection, card.id, version)
        await copy_rows(connection, version_id, result.rows, lambda n: say("storing", n, total))
        await copy_refusals(connection, version_id, result.refusals)
        await copy_changes(connection, version_id, result.changes)
        await record(
            connection,
            actor=job.actor,
            action="card.import",
            subject=f"card {card.code}",
            detail={"version": number, "file": version.file_name, "sha256": result.sha256},
            notice=f"card:{card.id}",
        )
    return number


def _summary(result: _Result) -> dict[str, object]:
    deck, sheet = result.deck, result.sheet
    return {
        "counts": {status.value: count for status, count in deck.counts.items()},
        "suspicious": deck.suspicious,
        "renamed": deck.renamed,
        "over": deck.over,
        "backdated": deck.backdated,
        "kept": deck.kept,
        "superseded": deck.superseded,
        "notes": list(result.notes),
        "columns": sheet.columns,
        "delimiter": sheet.delimiter,
        "header": result.header,
    }


def _report(
    job: ImportJob, result: _Result, version: int | None, timing_ms: dict[str, int]
) -> ImportReport:
    deck, sheet, changes = result.deck, result.sheet, result.changes
    moved = sorted(
        (c for c in changes if c.status in {Status.INCREASED, Status.DECREASED}),
        key=_times,
        reverse=True,
    )
    return ImportReport(
        card=result.card.code,
        currency=result.card.currency,
        version=version,
        base_version=result.base.version if result.base is not None else None,
        mode=job.mode,
        dry_run=job.dry_run,
        file_name=job.file_name,
        sha256=result.sha256,
        rows_in=sheet.rows_in,
        rows_stored=len(sheet.rows),
        rows_refused=len(sheet.refused),
        rows_repeated=len(sheet.repeats),
        rows_closing=len(sheet.closings),
        row_count=len(result.rows),
        counts={status.value: count for status, count in deck.counts.items()},
        suspicious=deck.suspicious,
        notes=result.notes,
        columns=sheet.columns,
        moves=tuple(moved[:MOVES_SHOWN]),
        suspicious_rows=tuple([c for c in changes if c.suspicious][:SUSPICIOUS_SHOWN]),
        refusals=tuple(result.refusals[:REFUSALS_SHOWN]),
        timing_ms=timing_ms,
    )


class _Watch:
    """Milliseconds between laps."""

    def __init__(self) -> None:
        self.laps: dict[str, int] = {}
        self._last = time.monotonic_ns()

    def lap(self, name: str) -> None:
        now = time.monotonic_ns()
        self.laps[name] = (now - self._last) // 1_000_000
        self._last = now
