"""The quarantine: records that could not go into the books, mended and played again.

Playing again is a load like any other: it holds the lock of the switch, knows what is in the books
already, and closes the old rows in the transaction that puts the records into the books.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import msgspec
import polars as pl

from tollkeeper.bulk.frames import PARSED, frame_of
from tollkeeper.core.usage import Quarantine, Usage
from tollkeeper.errors import InvalidInput, NotFound
from tollkeeper.services.cdr.knowledge import Knowledge
from tollkeeper.services.cdr.prepare import LoadPolicy, Prepared, fresh_rows, prepare
from tollkeeper.services.cdr.records import Held
from tollkeeper.services.cdr.reference import RateChoice, microseconds
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
    """Play records in quarantine again, by the trunks, parties and plans as they are now.

    Rates are those in force when a call began; but what had no rate then, or was blocked, is
    priced by the rates in force now, so that completing a card helps.

    Raises:
        InvalidInput: the filter is wrong. Busy: records of the switch are being loaded.
    """
    _check(wanted)
    report = ReplayReport()
    async with database.read() as connection:
        switches = await store.switches_of(connection, wanted)
    reasons = [wanted.reason] if wanted.reason is not None else _ORDER
    for switch in switches:
        async with loading(database.url, switch) as connection:
            played: set[int] = set()
            for reason in reasons:
                # Anew for each: the rounds before have added records.
                work = _Replay(
                    connection,
                    Knowledge(
                        database,
                        switch,
                        policy=policy,
                        clock=clock,
                        choice=RateChoice(as_of_call=reason not in _UNPRICED),
                    ),
                    actor=actor,
                    clock=clock,
                )
                chosen = replace(wanted, switch=switch, status="open", reason=reason)
                after = 0
                while rows := await store.read_quarantine(
                    connection, chosen, after=after, limit=REPLAY_PART
                ):
                    after = rows[-1].id
                    fresh = [row for row in rows if row.id not in played]
                    played.update(row.id for row in fresh)
                    for part in _by_file(fresh):
                        report = await work.play(part, report)
                    say(report.played)
    return report


_UNPRICED = frozenset({Quarantine.NO_RATE.value, Quarantine.BLOCKED.value})
_ORDER = sorted((one.value for one in Quarantine), key=lambda reason: reason in _UNPRICED)


def _by_file(rows: Sequence[Quarantined]) -> Iterator[list[Quarantined]]:
    """A batch belongs to one file, so that taking the file back takes it along."""
    by_file: dict[int | None, list[Quarantined]] = {}
    for row in rows:
        by_file.setdefault(row.file_id, []).append(row)
    yield from by_file.values()


class _Replay:
    """Playing the records of one switch again."""

    def __init__(
        self,
        connection: Connection,
        knowledge: Knowledge,
        *,
        actor: str,
        clock: Callable[[], datetime],
    ) -> None:
        self._connection = connection
        self._knowledge = knowledge
        self._actor = actor
        self._clock = clock

    async def play(self, rows: Sequence[Quarantined], report: ReplayReport) -> ReplayReport:
        """Play records of one file again, and close those that are in the books then."""
        readable = {row.id: row for row in rows if row.record is not None}
        report = replace(report, unreadable=report.unreadable + len(rows) - len(readable))
        if not readable:
            return report
        # The number of the row stands in for the line until all is judged: it is unique.
        usages = [
            msgspec.structs.replace(_decode(row.record or ""), line=row.id)
            for row in readable.values()
        ]
        frame = frame_of(usages)
        now = self._clock()
        work, found = await self._knowledge.work_for(frame)
        fresh, keys, duplicate = await asyncio.to_thread(fresh_rows, frame, work)
        prepared: Prepared = await asyncio.to_thread(
            prepare, fresh, keys, duplicate=duplicate, refused=[], found=found, work=work,
            now_us=microseconds(now),
        )  # fmt: skip
        still = {one.line: one for one in prepared.held}
        prepared.held = []
        lines = {id_: row.line for id_, row in readable.items()}
        _as_in_file(prepared, lines)
        first = next(iter(readable.values()))
        step = Step(
            kind="replay",
            switch=self._knowledge.switch,
            actor=self._actor,
            reason=f"{prepared.rated + prepared.matched} records out of quarantine",
            file_id=first.file_id,
            first_line=min(lines.values()),
            last_line=max(lines.values()),
        )
        connection = self._connection
        await ensure_days(connection, prepared, now)
        async with connection.transaction():
            if prepared.records:
                batch_id, _ = await write_batch(connection, step, prepared, now=now)
                done = [id_ for id_ in readable if id_ not in still]
                await store.resolve(connection, done, at=now, by=self._actor, batch_id=batch_id)
            await store.set_reasons(connection, [_reason(one) for one in still.values()])
        return replace(
            report,
            played=report.played + len(readable),
            rated=report.rated + prepared.rated,
            matched=report.matched + prepared.matched,
            duplicate=report.duplicate + prepared.duplicate,
            still=report.still + len(still),
        )


def _as_in_file(prepared: Prepared, lines: Mapping[int, int]) -> None:
    """Give the records the lines that they have in their file."""
    prepared.notes.listed = [replace(one, line=lines[one.line]) for one in prepared.notes.listed]
    assembled = prepared.assembled
    if assembled is None:
        return
    line = pl.col("line").replace_strict(lines, return_dtype=pl.Int64)
    assembled.usage = assembled.usage.with_columns(line)
    if not assembled.legs.is_empty():
        assembled.legs = assembled.legs.with_columns(line)


def _reason(one: Held) -> tuple[int, str, str, str, str]:
    return one.line, one.reason.value, one.field, one.value, one.detail


def _check(wanted: Filter) -> None:
    if wanted.reason is not None and wanted.reason not in {one.value for one in Quarantine}:
        raise InvalidInput(
            f'reason: "{wanted.reason}" is none; it is one of {", ".join(Quarantine)}',
            field="reason",
        )
