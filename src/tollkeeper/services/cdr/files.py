"""Files of records as they are looked at: what became of each, its steps, its money, and what is odd."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from itertools import groupby

import msgspec

from tollkeeper.core.usage import Mismatch, Quarantine, Usage
from tollkeeper.errors import Busy, Conflict, InvalidInput, NotFound
from tollkeeper.services.cdr.records import Held
from tollkeeper.services.cdr.write import held_frame
from tollkeeper.store import cdr_files as store
from tollkeeper.store import usage
from tollkeeper.store.cdr_files import Batch, BatchFilter, FileFilter, MismatchRow, OldHalf
from tollkeeper.store.db import Connection, Database
from tollkeeper.store.loading import loading
from tollkeeper.store.parties import read_party
from tollkeeper.store.rerate import Selection
from tollkeeper.store.usage_files import CdrFile, Counts, NewBatch, NewFile, add_batch, read_file

__all__ = [
    "Batch",
    "BatchFilter",
    "CdrFile",
    "FileFilter",
    "FileView",
    "MismatchPage",
    "Money",
    "adopt",
    "expire_halves",
    "get_file",
    "list_batches",
    "list_files",
    "mismatches",
    "only_switch",
    "select_records",
]

PAGE_MAX = 1_001
"""A page, and the one more that says that another follows."""
BATCHES_SHOWN = 1_000
DEFAULT_SWITCH = "main"
"""Whose records they are where no switch is known: it could be any."""
STATUSES = ("loading", "done", "failed", "rolled_back")
KINDS = ("load", "replay", "rerate", "rollback", "late_match")
HALF_PATIENCE = timedelta(hours=48)
"""A switch ends its calls within a day; a file may be a day late."""


@dataclass(frozen=True, slots=True)
class Money:
    """What records of a file cost in one currency, by the entries that its loading posted.

    ``charged`` is what customers, and resellers above them, were charged (less what was given
    back), ``cost`` what vendors were credited.
    """

    currency: str
    charged: Decimal = Decimal(0)
    cost: Decimal = Decimal(0)


@dataclass(frozen=True, slots=True)
class FileView:
    """A file with all that became of it.

    ``reasons`` are records that wait in quarantine, by reason, and ``settled`` those that were
    played again or given up. ``batches`` are its parts, the first thousand of them.
    """

    file: CdrFile
    reasons: dict[str, int] = field(default_factory=dict)
    settled: dict[str, int] = field(default_factory=dict)
    money: tuple[Money, ...] = ()
    batches: tuple[Batch, ...] = ()


@dataclass(frozen=True, slots=True)
class MismatchPage:
    """A page of mismatches, and how many of each kind the period has."""

    items: list[MismatchRow]
    counts: dict[str, int]


async def list_files(
    database: Database,
    wanted: FileFilter | None = None,
    *,
    before: int | None = None,
    limit: int = 100,
) -> list[CdrFile]:
    """List files, the newest first.

    Raises:
        InvalidInput: there is no such status.
    """
    wanted = wanted or FileFilter()
    _one_of(wanted.status, STATUSES, "status")
    async with database.read() as connection:
        return await store.read_files(connection, wanted, before=before, limit=_page(limit))


async def get_file(database: Database, file_id: int) -> FileView:
    """Show a file.

    Raises:
        NotFound: there is no such file.
    """
    async with database.read() as connection:
        file = await read_file(connection, file_id)
        if file is None:
            raise NotFound(f"there is no file {file_id}", code="unknown_file", field="file")
        batches = await store.read_batches(
            connection, BatchFilter(file_id=file_id), before=None, limit=BATCHES_SHOWN
        )
        counted = await store.count_reasons(connection, file_id)
        money = await store.read_money(
            connection,
            [batch.id for batch in batches],
            sorted({batch.at.astimezone(UTC).date() for batch in batches}),
        )
    reasons = {reason: count for reason, status, count in counted if status == "open"}
    settled: dict[str, int] = {}
    for _, status, count in counted:
        if status != "open":
            settled[status] = settled.get(status, 0) + count
    return FileView(file, reasons, settled, money_of(money), tuple(reversed(batches)))


def money_of(posted: list[tuple[str, str, Decimal, int]]) -> tuple[Money, ...]:
    """What was posted (currency, code, sum, entries), as what it means, by currency."""
    charged: dict[str, Decimal] = {}
    cost: dict[str, Decimal] = {}
    for currency, code, amount, _ in posted:
        sums = cost if code.startswith("cost") else charged
        signed = -amount if code.endswith("reversal") else amount
        sums[currency] = sums.get(currency, Decimal(0)) + signed
    return tuple(
        Money(one, charged.get(one, Decimal(0)), cost.get(one, Decimal(0)))
        for one in sorted(charged.keys() | cost.keys())
    )


async def adopt(connection: Connection, file: CdrFile, new: NewFile) -> CdrFile:
    """Let a file that is to be loaded again be read as it is said to be now.

    Raises:
        Conflict: a part of it is in the books, and was read in another way.
    """
    told = (new.format, new.mapping, new.timezone)
    if file.status == "done" or told == (file.format, file.mapping, file.timezone):
        return file
    if file.lines_done:
        raise Conflict(
            f"{file.lines_done} lines of this file are in the books, read as {file.format} by other "
            f"settings; go on with those, or roll file {file.id} back first",
            code="read_otherwise",
            field="format",
        )
    await store.set_reading(connection, file.id, new)
    return replace(file, format=new.format, mapping=new.mapping, timezone=new.timezone)


async def list_batches(
    database: Database,
    wanted: BatchFilter | None = None,
    *,
    before: int | None = None,
    limit: int = 100,
) -> list[Batch]:
    """List what was written step by step, the newest first.

    Raises:
        InvalidInput: there is no such kind.
    """
    wanted = wanted or BatchFilter()
    _one_of(wanted.kind, KINDS, "kind")
    async with database.read() as connection:
        return await store.read_batches(connection, wanted, before=before, limit=_page(limit))


async def mismatches(
    database: Database,
    *,
    first: date,
    last: date,
    kind: str | None = None,
    customer: str | None = None,
    before: int | None = None,
    limit: int = 100,
) -> MismatchPage:
    """List what does not fit about records of calls of the days ``first`` to ``last``, newest first.

    Raises:
        InvalidInput: the days are in the wrong order, or there is no such kind.
        NotFound: there is no such customer.
    """
    _one_of(kind, tuple(Mismatch), "kind")
    if last < first:
        raise InvalidInput("to: the last day is before the first one", field="to")
    async with database.read() as connection:
        party = await _party_id(connection, customer, "customer")
        wanted = store.MismatchFilter(first, last, kind, party)
        items = await store.read_mismatches(connection, wanted, before=before, limit=_page(limit))
        counts = await store.count_mismatches(connection, wanted)
    return MismatchPage(items, counts)


async def select_records(
    database: Database,
    *,
    since: datetime,
    until: datetime,
    customer: str | None = None,
    vendor: str | None = None,
    called: str | None = None,
    destination: str | None = None,
    file_id: int | None = None,
) -> Selection:
    """Say which records are meant, with parties by their codes.

    Raises:
        NotFound: there is no such party or file. InvalidInput: ``called`` is no beginning of a number.
    """
    if called is not None and not (called.isascii() and called.isdigit()):
        raise InvalidInput("called: give the digits that called numbers begin with", field="called")
    async with database.read() as connection:
        if file_id is not None and await read_file(connection, file_id) is None:
            raise NotFound(f"there is no file {file_id}", code="unknown_file", field="file")
        return Selection(
            since=since,
            until=until,
            customer=await _party_id(connection, customer, "customer"),
            vendor=await _party_id(connection, vendor, "vendor"),
            called=called,
            destination=destination,
            file_id=file_id,
        )


async def only_switch(database: Database) -> str:
    """The switch whose records are meant when none is named: the one that there is.

    Raises:
        InvalidInput: there are several.
    """
    async with database.read() as connection:
        switches = await store.read_switches(connection)
    if len(switches) > 1:
        raise InvalidInput(
            f"switch: say whose records these are; there are {', '.join(switches[:20])}",
            field="switch",
        )
    return switches[0] if switches else DEFAULT_SWITCH


async def _party_id(connection: Connection, code: str | None, field_: str) -> int | None:
    if code is None:
        return None
    party = await read_party(connection, code)
    if party is None:
        raise NotFound(f"{field_}: there is no party {code}", code="unknown_party", field=field_)
    return party.id


def _one_of(value: str | None, known: tuple[str, ...], field_: str) -> None:
    if value is not None and value not in known:
        raise InvalidInput(
            f'{field_}: "{value[:40]}" is none; it is one of {", ".join(known)}', field=field_
        )


def _page(limit: int) -> int:
    return max(1, min(limit, PAGE_MAX))


# --- halves --------------------------------------------------------------------------------------


async def expire_halves(
    database: Database, before: datetime, *, actor: str, clock: Callable[[], datetime]
) -> int:
    """Put halves of calls whose other one has not come into quarantine; returns how many.

    These are the halves of calls from before ``before`` in files that came before it. They count
    as records of their files from now on. A switch whose records are being loaded is left out.
    """
    async with database.read() as connection:
        switches = await store.switches_with_old_halves(connection, before)
    moved = 0
    for switch in switches:
        try:
            async with loading(database.url, switch) as connection, connection.transaction():
                halves = await store.take_old_halves(connection, switch, before)
                halves.sort(key=lambda one: (one.file_id, one.line))
                for file_id, own in groupby(halves, key=lambda one: one.file_id):
                    moved += await _put_aside(
                        connection, switch, file_id, list(own), actor=actor, now=clock()
                    )
        except Busy as error:
            if error.code != "switch_loading":
                raise
    return moved


async def _put_aside(
    connection: Connection,
    switch: str,
    file_id: int,
    halves: list[OldHalf],
    *,
    actor: str,
    now: datetime,
) -> int:
    """Halves of one file, in a batch of that file."""
    held = [_held(one) for one in halves]
    batch = NewBatch(
        "load",
        now,
        file_id=file_id,
        switch=switch,
        counts=Counts(records=len(held), quarantined=len(held)),
        actor=actor,
        note=f"{len(held)} halves of calls whose other half has not come",
        summary={"quarantine": {Quarantine.MALFORMED.value: len(held)}},
    )
    batch_id = await add_batch(connection, batch)
    await usage.copy_quarantine(
        connection, held_frame(held), batch_id=batch_id, file_id=file_id, switch=switch, at=now
    )
    await store.add_counts(connection, file_id, len(held))
    return len(held)


def _held(half: OldHalf) -> Held:
    """A half as a record that waits; that of a begin can be mended by giving its duration."""
    if not half.begins:
        detail = (
            "the end of a call whose begin has not come; load the file that has it and drop this"
        )
        return Held(half.line, Quarantine.MALFORMED, "start", "", detail, raw=half.raw)
    detail = (
        "the begin of a call whose end has not come; give its duration_ms and play it again, or "
        "drop it"
    )
    record = None
    if half.record is not None:
        # Played again as it is it would be a call that nobody answered, which nobody knows.
        usage_ = msgspec.json.decode(half.record, type=Usage)
        record = msgspec.json.encode(msgspec.structs.replace(usage_, duration_ms=-1)).decode()
    return Held(half.line, Quarantine.MALFORMED, "duration_ms", "", detail, half.raw, record)
