"""The other order of arrival: a session that closes after a file has priced its call.

The session has charged the customer, so what the file charged is taken back: one batch of reversals,
a revision for each record, and a line in the mismatches. Looking again at the last quarter of an
hour each time finds what was being written while it was looked at before; taking back what was
taken back already is impossible, because the record's present charge is zero then.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import date, datetime, timedelta

import numpy as np
import polars as pl

from tollkeeper.bulk.keys import session_keys
from tollkeeper.core.ledger import Code
from tollkeeper.core.money import plain
from tollkeeper.core.usage import Mismatch
from tollkeeper.services.cdr.assemble import units
from tollkeeper.services.cdr.match import Hashes
from tollkeeper.services.cdr.records import Noted
from tollkeeper.services.cdr.reference import EPOCH, microseconds
from tollkeeper.services.cdr.write import noted_frame
from tollkeeper.store import late_match as store
from tollkeeper.store import usage
from tollkeeper.store.db import Connection, Database
from tollkeeper.store.late_match import PricedRecord
from tollkeeper.store.outbox import ensure_partitions
from tollkeeper.store.reference import read_secret
from tollkeeper.store.usage import WalletSum
from tollkeeper.store.usage_files import NewBatch, add_batch

LOOK_BACK = timedelta(minutes=15)
"""Far longer than a part takes from looking at the sessions to its commit."""
FIRST_LOOK = timedelta(days=2)
BATCH_MAX = 1_000


class LateMatch:
    """The search of one process; it keeps the hashes of the last days in memory."""

    def __init__(self, database: Database, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._clock = clock
        self._hashes: dict[tuple[str, date], tuple[int, Hashes]] = {}

    async def run(self) -> int:
        """Look at the sessions that closed lately; returns how many records were taken back."""
        now = self._clock()
        async with self._database.write() as connection:
            mark = await store.lock_mark(connection)
            since = now - FIRST_LOOK if mark is None else mark - LOOK_BACK
            closed = await store.closed_since(
                connection, since, now, (since - timedelta(days=2)).date()
            )
            found = await self._suspects(connection, closed)
            records = [
                one
                for switch, call_id, day in found[:BATCH_MAX]
                for one in await store.read_priced(connection, switch, call_id, _around(day))
            ]
            if records:
                await self._take_back(connection, records, now)
            if len(found) <= BATCH_MAX:
                await store.set_mark(connection, now)
        return len(records)

    async def _suspects(
        self, connection: Connection, closed: Sequence[tuple[str, date, datetime]]
    ) -> list[tuple[str, str, date]]:
        """Sessions whose key is among those of records that a file priced: (switch, id, day)."""
        by_place: dict[tuple[str, date], list[str]] = {}
        for key, day, _ in closed:
            switch, _, call_id = key.partition("/")
            for near in _around(day):
                by_place.setdefault((switch, near), []).append(call_id)
        if not by_place:
            return []
        days = [day for _, day in by_place]
        switches = sorted({switch for switch, _ in by_place})
        places = await store.days_with_files(connection, min(days), max(days), switches)
        secret = await read_secret(connection)
        self._hashes = {place: held for place, held in self._hashes.items() if place in places}
        found = set()
        for place in places:
            ids = by_place.get(place, [])
            known = await self._know(connection, *place)
            hashes = session_keys(place[0], pl.Series(ids, dtype=pl.String), secret)
            for n in np.flatnonzero(np.isin(hashes, known)).tolist():
                found.add((place[0], ids[n], place[1]))
        return sorted(found)

    async def _know(self, connection: Connection, switch: str, day: date) -> Hashes:
        after, hashes = self._hashes.get((switch, day), (0, np.zeros(0, dtype=np.uint64)))
        new = await store.read_matches(connection, day, switch, after)
        if new:
            packed = [np.frombuffer(data, dtype="<u8").astype(np.uint64) for _, data in new]
            hashes = np.concatenate([hashes, *packed])
            self._hashes[switch, day] = (new[-1][0], hashes)
        return hashes

    async def _take_back(
        self, connection: Connection, records: Sequence[PricedRecord], now: datetime
    ) -> None:
        await ensure_partitions(connection, now.date(), 2)
        batch_id = await add_batch(
            connection,
            NewBatch("late_match", now, actor="matching", note=f"{len(records)} calls were charged live"),
        )  # fmt: skip
        await usage.copy_revisions(connection, batch_id, _revisions(records))
        await usage.copy_hours(connection, batch_id, _hours(records))
        notes = [_noted(one) for one in records]
        await usage.copy_mismatches(
            connection, noted_frame(notes), batch_id=batch_id, file_id=None, at=now
        )
        totals: dict[int, WalletSum] = {}
        for one in records:
            before = totals.get(one.wallet_id)
            amount = one.amount + (before.amount if before is not None else 0)
            totals[one.wallet_id] = WalletSum(one.wallet_id, Code.REVERSAL, amount)
        await usage.post_batch(
            connection, batch_id, now, list(totals.values()), actor="matching",
            reason="charged live, and by a file before that",
        )  # fmt: skip


def _around(day: date) -> list[date]:
    return [day + timedelta(days=n) for n in (-1, 0, 1)]


def _revisions(records: Sequence[PricedRecord]) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "day": [one.day for one in records],
            "batch_id": pl.Series([one.batch_id for one in records], dtype=pl.Int64),
            "line": pl.Series([one.line for one in records], dtype=pl.Int64),
            "leg": pl.Series([0 for _ in records], dtype=pl.Int16),
            "wallet_id": pl.Series([one.wallet_id for one in records], dtype=pl.Int64),
            "version_id": pl.Series([one.version_id for one in records], dtype=pl.Int64),
            "row_no": pl.Series([one.row_no for one in records], dtype=pl.Int32),
            "prefix": [one.prefix for one in records],
            "destination": [one.destination for one in records],
            "billed": pl.Series([one.billed for one in records], dtype=pl.Int32),
            "amount": pl.Series([0 for _ in records], dtype=pl.Int64),
            "was": pl.Series([units(one.amount) for one in records], dtype=pl.Int64),
        }
    )


def _hours(records: Sequence[PricedRecord]) -> pl.DataFrame:
    """The charge alone is taken out of the hourly sums; the call took place."""
    nothing = dict.fromkeys(
        ("attempts", "answers", "effective", "duration_ms", "sell_billed", "buy_billed", "pdd_ms",
         "pdd_count", "cost"), 0,
    )  # fmt: skip
    rows = [
        {
            "day": one.day,
            "hour": one.start_at.replace(minute=0, second=0, microsecond=0),
            "customer_id": one.customer_id, "vendor_id": one.vendor_id, "trunk_in": one.trunk_in,
            "trunk_out": one.trunk_out, "service": one.service, "destination": one.destination,
            "prefix": one.prefix, "sell_currency": one.sell_currency,
            "buy_currency": one.buy_currency, "revenue": -units(one.amount), **nothing,
        }
        for one in records
    ]  # fmt: skip
    return pl.DataFrame(rows).with_columns(pl.col("hour").cast(pl.Datetime("us", "UTC")))


def _noted(one: PricedRecord) -> Noted:
    return Noted(
        line=one.line,
        kind=Mismatch.CHARGE_DIFFERS,
        day=microseconds(EPOCH.combine(one.day, EPOCH.timetz())) // 86_400_000_000,
        call_id=one.call_id,
        customer_id=one.customer_id,
        vendor_id=one.vendor_id,
        expected="0.00",
        found=plain(one.amount),
        detail="charged by a file first and live later; what the file charged was taken back",
    )
