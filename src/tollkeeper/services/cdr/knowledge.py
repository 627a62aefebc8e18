"""What must be known to judge the next part of a switch's records, kept up as parts go by.

Whoever has one holds the lock of the switch, so that nobody else adds records of it meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta

import numpy as np
import polars as pl

from tollkeeper.bulk.keys import unpack
from tollkeeper.bulk.keyset import KeySet
from tollkeeper.core.records import Session
from tollkeeper.services.cdr.assemble import DAY_US
from tollkeeper.services.cdr.match import KnownSessions
from tollkeeper.services.cdr.mediate import FUTURE_US, YEAR_2000
from tollkeeper.services.cdr.prepare import Batchwise, LoadPolicy, session_candidates
from tollkeeper.services.cdr.records import Ints
from tollkeeper.services.cdr.reference import (
    AS_OF_CALL,
    EPOCH,
    RateChoice,
    Reference,
    microseconds,
    read_reference,
)
from tollkeeper.services.cdr.write import day_date
from tollkeeper.store import usage as store
from tollkeeper.store.db import Database

MARGIN_US = 86_400_000_000
"""How far around its calls the picture of a file reaches: files are not quite in order."""
CLOSING_SLACK = timedelta(seconds=60)
"""A session's time of closing is that of the decision; it is seen in the database some time later."""

Found = dict[str, list[Session]]


class Knowledge:
    """The picture, the records in the books and the sessions of one switch."""

    def __init__(
        self,
        database: Database,
        switch: str,
        *,
        policy: LoadPolicy,
        clock: Callable[[], datetime],
        threads: int = 1,
        choice: RateChoice = AS_OF_CALL,
    ) -> None:
        self.switch = switch
        self._choice = choice
        self._database = database
        self._policy = policy
        self._clock = clock
        self._threads = threads
        self._known = KeySet()
        self._days: set[int] = set()
        self._reference: Reference | None = None
        self._sessions: KnownSessions | None = None
        self._sessions_upto = EPOCH
        self._session_days: tuple[int, int] | None = None

    async def work_for(self, frame: pl.DataFrame) -> tuple[Batchwise, Found]:
        """All that these records are judged by; and the sessions that they may belong to, by key."""
        starts = frame["start"].to_numpy()
        now_us = microseconds(self._clock())
        sane = starts[(starts >= YEAR_2000) & (starts <= now_us + FUTURE_US)]
        low, high = (int(sane.min()), int(sane.max())) if len(sane) else (now_us, now_us)
        reference = await self._refer(low, high)
        sessions = await self._know_sessions(
            reference.secret, low // DAY_US - 1, high // DAY_US + 1
        )
        await self._know_days(sane)
        work = Batchwise(
            switch=self.switch,
            reference=reference,
            policy=self._policy,
            known=self._known,
            sessions=sessions,
            threads=self._threads,
        )
        found: Found = {}
        wanted = await asyncio.to_thread(session_candidates, frame, work)
        if wanted:
            async with self._database.read() as connection:
                for session in await store.sessions_by_key(connection, wanted):
                    found.setdefault(session.key, []).append(session)
        return work, found

    async def _refer(self, low: int, high: int) -> Reference:
        """The picture for calls of this time; taken again where it does not reach."""
        reference = self._reference
        if reference is None or low < reference.covers[0] or high > reference.covers[1]:
            since, until = low - MARGIN_US, max(high, microseconds(self._clock())) + MARGIN_US
            if reference is not None:
                since = min(since, reference.covers[0])
            reference = await read_reference(
                self._database, self.switch, since=since, until=until, choice=self._choice
            )
            self._reference = reference
        return reference

    async def _know_sessions(self, secret: bytes, first: int, last: int) -> KnownSessions:
        """Learn the sessions of these days; of days that are known, only what has closed since."""
        sessions = self._sessions
        if sessions is None:
            sessions = self._sessions = KnownSessions(self.switch, secret)
        days, upto = self._session_days, self._sessions_upto
        if days is None or first < days[0] or last > days[1]:
            upto = EPOCH
            days = (first, last) if days is None else (min(first, days[0]), max(last, days[1]))
        async with self._database.read() as connection:
            # Open ones first: a session that closes in between is then in both, never in neither.
            live = await store.live_keys(connection, self.switch)
            closed, upto = await store.new_sessions(
                connection, self.switch, day_date(days[0]), day_date(days[1]), upto
            )
        sessions.note_live(live)
        sessions.note_closed(closed)
        self._session_days = days
        self._sessions_upto = max(EPOCH, upto - CLOSING_SLACK)
        return sessions

    async def _know_days(self, starts: Ints) -> None:
        """Learn which records of the days of these calls are in the books."""
        for day in sorted(set(np.unique(starts // DAY_US).tolist()) - self._days):
            async with self._database.read() as connection:
                for row in await store.read_keys(connection, day_date(day), self.switch):
                    self._known.add(unpack(row.keys))
            self._days.add(day)
