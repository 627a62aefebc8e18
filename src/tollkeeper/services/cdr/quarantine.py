"""The quarantine: records that could not go into the books, mended and played again.

Playing again is a load like any other: it holds the lock of the switch, knows what is in the books
already, and closes the old rows in the transaction that puts the records into the books.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import msgspec

from tollkeeper.bulk.frames import PARSED, frame_of
from tollkeeper.core.usage import Quarantine, Usage
from tollkeeper.errors import InvalidInput, NotFound
from tollkeeper.services.cdr.knowledge import Knowledge
from tollkeeper.services.cdr.prepare import LoadPolicy, Prepared, fresh_rows, prepare
from tollkeeper.services.cdr.records import Held
from tollkeeper.services.cdr.reference import microseconds
from tollkeeper.services.cdr.write import Step, ensure_days, write_batch
from tollkeeper.store import quarantine as store
from tollkeeper.store.changes import record
from tollkeeper.store.db import Connection, Database
from tollkeeper.store.loading import loading
from tollkeeper.store.quarantine import Filter, Quarantined

__all__ = ["Filter", "Quarantined", "ReplayReport", "count", "drop", "fix", "listed", "replay"]

PAGE_MAX = 1_000
REPLAY_PART = 50_000
"""Records that are played again in one transaction."""

_decode = msgspec.json.Decoder(Usage).decode
_FIXABLE = frozenset(PARSED.names()) - {"line"}


@dataclass(frozen=True, slots=True)
class ReplayReport:
    """What became of records that were played again; ``still`` were put aside once more.

    ``unreadable`` were never records: only their source can mend them.
    """

    played: int = 0
    rated: int = 0
    matched: int = 0
    duplicate: int = 0
    still: int = 0
    unreadable: int = 0


async def listed(
    database: Database, wanted: Filter, *, after: int = 0, limit: int = 100
) -> list[Quarantined]:
    """List records in quarantine, the oldest first."""
    _check(wanted)
    async with database.read() as connection:
        return await store.read_quarantine(
            connection, wanted, after=after, limit=max(1, min(limit, PAGE_MAX))
        )


async def count(database: Database) -> list[tuple[str, str, int, datetime]]:
    """How many records wait: (switch, reason, count, since when)."""
    async with database.read() as connection:
        return await store.count_open(connection)


async def drop(
    database: Database, ids: Sequence[int], *, why: str, actor: str, now: datetime
) -> int:
    """Give records up for good; they stay listed as dropped. Returns how many there were.

    Raises:
        InvalidInput: without saying why.
    """
    if not why.strip():
        raise InvalidInput("why: say why these records are given up", field="why")
    async with database.write() as connection:
        dropped = await store.drop(connection, ids, at=now, by=actor)
        await record(
            connection, actor=actor, action="quarantine.drop", subject=f"{dropped} records",
            detail={"ids": list(ids)[:1000], "why": why}, notice="quarantine:0",
        )  # fmt: skip
    return dropped


async def fix(
    database: Database, id_: int, values: Mapping[str, object], *, actor: str
) -> Quarantined:
    """Correct fields of a record in quarantine; it stays there until it is played again.

    Raises:
        NotFound: there is no such record, or it is not open. InvalidInput: a field or a value is
            wrong, or the record could never be read.
    """
    unknown = sorted(set(values) - _FIXABLE)
    if unknown:
        raise InvalidInput(
            f"{unknown[0]}: a record has no such field; it has {', '.join(sorted(_FIXABLE))}",
            field=unknown[0],
        )
    async with database.write() as connection:
        found = await store.read_one(connection, id_)
        if found is None or found.status != "open":
            raise NotFound(f"no record {id_} is in quarantine", code="unknown_record")
        if found.record is None:
            raise InvalidInput(
                f"record {id_} could not be read at all; correct its file and load that again",
                code="unreadable_record",
            )
        changed = {**msgspec.json.decode(found.record), **values}
        try:
            usage = msgspec.convert(changed, Usage)
        except msgspec.ValidationError as error:
            raise InvalidInput(f"the record cannot be so: {error}", field="values") from None
        await store.set_record(connection, id_, msgspec.json.encode(usage).decode())
        await record(
            connection, actor=actor, action="quarantine.fix", subject=f"record {id_}",
            detail={name: str(value) for name, value in values.items()}, notice="quarantine:0",
        )  # fmt: skip
        again = await store.read_one(connection, id_)
    assert again is not None
    return again


async def replay(
    database: Database,
    wanted: Filter,
    *,
    policy: LoadPolicy,
    actor: str,
    clock: Callable[[], datetime],
    say: Callable[[int], None] = lambda _: None,
) -> ReplayReport:
    """Play records in quarantine again, by the rules and rates as they are now.

    Raises:
        InvalidInput: the filter is wrong. Busy: records of the switch are being loaded.
    """
    _check(wanted)
    report = ReplayReport()
    async with database.read() as connection:
        switches = await store.switches_of(connection, wanted)
    for switch in switches:
        async with loading(database.url, switch) as connection:
            knowledge = Knowledge(database, switch, policy=policy, clock=clock)
            after = 0
            while rows := await store.read_quarantine(
                connection,
                replace(wanted, switch=switch, status="open"),
                after=after,
                limit=REPLAY_PART,
            ):
                after = rows[-1].id
                report = await _replay(
                    connection, knowledge, rows, report, actor=actor, clock=clock
                )
                say(report.played)
    return report


async def _replay(
    connection: Connection,
    knowledge: Knowledge,
    rows: Sequence[Quarantined],
    report: ReplayReport,
    *,
    actor: str,
    clock: Callable[[], datetime],
) -> ReplayReport:
    readable = [row for row in rows if row.record is not None]
    unreadable = len(rows) - len(readable)
    if not readable:
        return replace(report, unreadable=report.unreadable + unreadable)
    # The number of the row stands in for the line: two files may share line numbers.
    usages = [msgspec.structs.replace(_decode(row.record or ""), line=row.id) for row in readable]
    frame = frame_of(usages)
    now = clock()
    work, found = await knowledge.work_for(frame)
    fresh, keys, duplicate = await asyncio.to_thread(fresh_rows, frame, work)
    prepared: Prepared = await asyncio.to_thread(
        prepare, fresh, keys, duplicate=duplicate, refused=[], found=found, work=work,
        now_us=microseconds(now),
    )  # fmt: skip
    still = {one.line: one for one in prepared.held}
    prepared.held = []
    step = Step(
        kind="replay",
        switch=knowledge.switch,
        actor=actor,
        reason=f"{prepared.rated + prepared.matched} records out of quarantine",
        first_line=readable[0].id,
        last_line=readable[-1].id,
    )
    await ensure_days(connection, prepared, now)
    async with connection.transaction():
        batch_id, _ = await write_batch(connection, step, prepared, now=now)
        done = [row.id for row in readable if row.id not in still]
        await store.resolve(connection, done, at=now, by=actor, batch_id=batch_id)
        await store.set_reasons(connection, [_reason(one) for one in still.values()])
    return ReplayReport(
        played=report.played + len(readable),
        rated=report.rated + prepared.rated,
        matched=report.matched + prepared.matched,
        duplicate=report.duplicate + prepared.duplicate,
        still=report.still + len(still),
        unreadable=report.unreadable + unreadable,
    )


def _reason(one: Held) -> tuple[int, str, str, str, str]:
    return one.line, one.reason.value, one.field, one.value, one.detail


def _check(wanted: Filter) -> None:
    if wanted.reason is not None and wanted.reason not in {one.value for one in Quarantine}:
        raise InvalidInput(
            f'reason: "{wanted.reason}" is none; it is one of {", ".join(Quarantine)}',
            field="reason",
        )
