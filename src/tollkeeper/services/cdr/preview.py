"""A dry run: a file read, mediated and priced as by loading it, and nothing written."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal

from tollkeeper.errors import InvalidInput, NotFound
from tollkeeper.services.cdr.files import Money, money_of
from tollkeeper.services.cdr.halves import Halves
from tollkeeper.services.cdr.knowledge import Knowledge
from tollkeeper.services.cdr.load import LoadJob, Progress, Say
from tollkeeper.services.cdr.prepare import Prepared, fresh_rows, prepare
from tollkeeper.services.cdr.records import Held
from tollkeeper.services.cdr.reference import microseconds
from tollkeeper.store import usage_files as files
from tollkeeper.store.cdr_files import read_currencies
from tollkeeper.store.db import Database
from tollkeeper.store.usage_files import Counts
from tollkeeper.wire.cdr.columns import open_parts
from tollkeeper.wire.cdr.compressed import open_stream
from tollkeeper.wire.cdr.format import ReadOptions
from tollkeeper.wire.cdr.formats import format_of
from tollkeeper.wire.cdr.mapping import load_mapping
from tollkeeper.wire.cdr.part import Part

SHOWN_MAX = 20
"""Problems that are kept; all are counted."""


@dataclass(slots=True)
class Preview:
    """What loading a file would make of it, as the books are now.

    ``problems`` are the first records that would be put aside, ``waiting`` halves of calls
    whose other one is not there. ``error`` is why the rest of the file cannot be read.
    """

    counts: Counts = field(default_factory=Counts)
    reasons: Counter[str] = field(default_factory=Counter)
    mismatches: Counter[str] = field(default_factory=Counter)
    money: tuple[Money, ...] = ()
    problems: list[Held] = field(default_factory=list)
    waiting: int = 0
    error: str = ""


async def preview_file(
    database: Database,
    job: LoadJob,
    *,
    clock: Callable[[], datetime],
    say: Say = lambda _: None,
) -> Preview:
    """Do all that loading does but writing, from the beginning of the file.

    Raises:
        InvalidInput: the format or mapping is wrong. NotFound: there is no such file.
    """
    format_ = format_of(job.format)
    options = ReadOptions(
        timezone=job.timezone,
        mapping=load_mapping(job.mapping) if job.mapping is not None else None,
        encoding=job.encoding,
    )
    knowledge = Knowledge(database, job.switch, policy=job.policy, clock=clock, threads=job.threads)
    work = _Preview(database, job.switch, knowledge, clock)
    try:
        with job.path.open("rb") as stream:
            size = job.path.stat().st_size
            parts = open_parts(open_stream(stream), format_, options, records=job.records_per_part)
            while (part := await asyncio.to_thread(next, parts, None)) is not None:
                await work.take(part)
                say(Progress("pricing", part.offset, size))
    except InvalidInput as problem:
        work.found.error = problem.detail
    except FileNotFoundError:
        raise NotFound(f"there is no file {job.path}", code="unknown_file", field="file") from None
    except (IsADirectoryError, PermissionError) as error:
        raise InvalidInput(f"{job.path} cannot be read: {error.strerror}", field="file") from None
    return await work.end()


class _Preview:
    """A dry run on its way through the parts."""

    def __init__(
        self,
        database: Database,
        switch: str,
        knowledge: Knowledge,
        clock: Callable[[], datetime],
    ) -> None:
        self.found = Preview()
        self._database = database
        self._switch = switch
        self._knowledge = knowledge
        self._clock = clock
        self._halves = Halves(0)
        self._waiting: set[tuple[str, bool]] = set()
        self._posted: dict[tuple[int, str], Decimal] = {}

    async def take(self, part: Part) -> None:
        """Judge and price one part."""
        if keys := self._halves.unknown(part.halves):
            async with self._database.read() as connection:
                stored = await files.read_halves(connection, self._switch, keys)
            self._halves.recall(keys, stored)
        frame, change = self._halves.join(part)
        work, sessions = await self._knowledge.work_for(frame)
        fresh, keys_, duplicate = await asyncio.to_thread(fresh_rows, frame, work)
        prepared = await asyncio.to_thread(
            prepare, fresh, keys_, duplicate=duplicate, refused=part.refused, found=sessions,
            work=work, now_us=microseconds(self._clock()),
        )  # fmt: skip
        self._add(prepared, part.skipped)
        self._waiting |= {(one.half.key, one.half.begins) for one in change.waiting}
        self._waiting -= set(change.joined)

    def _add(self, prepared: Prepared, skipped: int) -> None:
        found, had = self.found, self.found.counts
        found.counts = Counts(
            records=had.records + prepared.records,
            rated=had.rated + prepared.rated,
            matched=had.matched + prepared.matched,
            duplicate=had.duplicate + prepared.duplicate,
            quarantined=had.quarantined + len(prepared.held),
            skipped=had.skipped + skipped,
        )
        found.reasons.update({reason.value: n for reason, n in prepared.reasons.items()})
        found.mismatches.update({kind.value: n for kind, n in prepared.notes.counts.items()})
        found.problems += prepared.held[: SHOWN_MAX - len(found.problems)]
        for wallet, code, amount in prepared.assembled.sums if prepared.assembled else ():
            place = (wallet, code.value)
            self._posted[place] = self._posted.get(place, Decimal(0)) + amount

    async def end(self) -> Preview:
        """Add the money up by currency."""
        async with self._database.read() as connection:
            currencies = await read_currencies(connection, [wallet for wallet, _ in self._posted])
        posted = [
            (currencies[wallet], code, amount, 1) for (wallet, code), amount in self._posted.items()
        ]
        self.found.money = money_of(posted)
        self.found.waiting = len(self._waiting)
        return self.found
