"""Re-rating: what records would cost by other rates, and the batch that makes it so.

The records stay as they are; what a leg costs from now on is a revision beside them, and the
money moves by reversals and new entries, dated today. So nothing that was invoiced changes: the
difference is on the next invoice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal

import numpy as np
import polars as pl

from tollkeeper.bulk.kernel import PRICED
from tollkeeper.bulk.numbers import align_column
from tollkeeper.core.ledger import Code
from tollkeeper.core.usage import State
from tollkeeper.errors import Conflict, InvalidInput
from tollkeeper.services.cdr.assemble import group_hours, money
from tollkeeper.services.cdr.legs import Leg, price_columns
from tollkeeper.services.cdr.records import Flags
from tollkeeper.services.cdr.reference import (
    RateChoice,
    Reference,
    microseconds,
    read_reference,
)
from tollkeeper.services.cdr.rollback import EVERYTHING
from tollkeeper.store import rerate as store
from tollkeeper.store import usage
from tollkeeper.store.changes import record
from tollkeeper.store.db import Connection, Database
from tollkeeper.store.loading import loading
from tollkeeper.store.outbox import ensure_partitions
from tollkeeper.store.rerate import Selection
from tollkeeper.store.usage import WalletSum
from tollkeeper.store.usage_files import NewBatch, add_batch

__all__ = ["Change", "RateChoice", "RerateJob", "RerateReport", "Selection", "rerate"]

Say = Callable[[int, int], None]
"""Days done, days in all."""

_SUMMARY = {
    "side": pl.String(), "party": pl.Int64(), "destination": pl.String(), "currency": pl.String(),
    "calls": pl.Int64(), "was": pl.Int128(), "amount": pl.Int128(),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class RerateJob:
    """What is to be re-rated, and by which rates: by default by those in force now."""

    selection: Selection
    choice: RateChoice = field(default_factory=lambda: RateChoice(as_of_call=False))
    actor: str = ""
    reason: str = ""
    apply: bool = False


@dataclass(frozen=True, slots=True)
class Change:
    """What changes for one party and destination; ``side`` is sell, buy or resell."""

    side: str
    party: str
    destination: str
    currency: str
    calls: int
    was: Decimal
    amount: Decimal

    @property
    def difference(self) -> Decimal:
        """What it costs more (or less) than before."""
        return self.amount - self.was


@dataclass(frozen=True, slots=True)
class RerateReport:
    """What a re-rating changes, or has changed where ``batch_id`` is given.

    ``records`` were looked at; of these ``changed`` cost something else, ``unpriced`` have no rate
    now and stay as they are, and ``live`` were charged live and keep their customer's leg.
    """

    records: int
    changed: int
    unpriced: int
    live: int
    changes: tuple[Change, ...]
    batch_id: int | None = None


async def rerate(
    database: Database, job: RerateJob, *, clock: Callable[[], datetime], say: Say = lambda *_: None
) -> RerateReport:
    """Price records anew; without ``job.apply`` nothing is written.

    Raises:
        InvalidInput: no time to look at, or no reason for what is to be applied.
        Conflict: days of it are archived. Busy: others are being revised.
        NotFound: a card or version that is to be used does not exist.
    """
    wanted = job.selection
    if wanted.since >= wanted.until:
        raise InvalidInput("until: the period must end after it begins", field="until")
    if job.apply and not job.reason.strip():
        raise InvalidInput("reason: say why this is re-rated", field="reason")
    reference = await read_reference(
        database, "", since=microseconds(wanted.since), until=microseconds(wanted.until), choice=job.choice
    )  # fmt: skip
    work = _Rerating(job, reference)
    async with loading(database.url, EVERYTHING) as connection:
        days = await store.read_days(connection, wanted)
        archived = await store.archived_days(connection, days)
        work.refuse_archived(archived)
        await ensure_partitions(connection, clock().date(), 2)
        async with connection.transaction():
            batch_id = await work.begin(connection, clock()) if job.apply else None
            for done, day in enumerate(days):
                say(done, len(days))
                for batch in await store.read_batches(connection, wanted, day):
                    await work.revise(connection, day, batch)
            say(len(days), len(days))
            report = work.report(batch_id)
            if batch_id is not None:
                await work.finish(connection, batch_id, report, clock())
    return report


class _Rerating:
    """One re-rating on its way through the days: what it has found, and what it has written."""

    def __init__(self, job: RerateJob, reference: Reference) -> None:
        self._job = job
        self._reference = reference
        self._batch_id: int | None = None
        self._totals: dict[tuple[int, Code], int] = {}
        self._summary = pl.DataFrame(schema=_SUMMARY)
        self._records = self._changed = self._unpriced = self._live = 0

    def refuse_archived(self, days: Sequence[date]) -> None:
        """Archived records cannot be revised in place."""
        if days:
            raise Conflict(
                f"records of {days[0]:%Y-%m-%d} are archived; re-rate what is in the database, or "
                "the archive with --engine as a dry run",
                code="archived",
            )

    async def begin(self, connection: Connection, now: datetime) -> int:
        """Enter the batch that everything is written by."""
        job = self._job
        batch = NewBatch("rerate", now, file_id=None, actor=job.actor, note=job.reason)
        self._batch_id = await add_batch(connection, batch)
        return self._batch_id

    async def revise(self, connection: Connection, day: date, batch: int) -> None:
        """Price one batch's records of a day anew."""
        frame = await store.read_records(connection, self._job.selection, day, batch)
        if frame.is_empty():
            return
        self._records += len(frame)
        sell = await asyncio.to_thread(self._price, frame, "customer_id", "sell")
        buy = await asyncio.to_thread(self._price, frame, "vendor_id", "buy")
        rated = (frame["state"] == State.RATED.value).to_numpy()
        self._live += int((~rated).sum())
        sold = self._new(frame, sell, "sell", "charge", "sell_wallet", rated)
        bought = self._new(frame, buy, "buy", "cost", "buy_wallet", np.ones(len(frame), np.bool_))
        changed = sold["changed"].to_numpy() | bought["changed"].to_numpy()
        legs = await store.read_legs(connection, day, batch)
        resold = self._resold(frame, legs)
        self._changed += int(changed.sum())
        if self._batch_id is None:
            return
        revisions = [
            _revisions(frame, sold, 0, day, batch),
            _revisions(frame, bought, 1, day, batch),
            *(_revisions(part, new, level + 1, day, batch) for level, part, new in resold),
        ]
        await usage.copy_revisions(connection, self._batch_id, pl.concat(revisions))
        hours = [_hours(frame, sold, bought, changed, sign=sign) for sign in (-1, 1)]
        await usage.copy_hours(connection, self._batch_id, pl.concat(hours))

    def _price(self, frame: pl.DataFrame, party: str, side: str) -> Leg:
        number, digits, _ = align_column(frame["called"])
        return price_columns(
            self._reference,
            frame[party].to_numpy(),
            side,
            service=frame["service"],
            number=number,
            digits=digits,
            start=frame["start"].to_numpy(),
            duration_ms=frame["duration_ms"].to_numpy(),
        )

    def _new(
        self,
        frame: pl.DataFrame,
        leg: Leg,
        side: str,
        amount: str,
        wallet: str,
        ours: Flags,
    ) -> pl.DataFrame:
        """What the leg of each row is from now on; the old where it has no price any more."""
        was, old_wallet = frame[amount].to_numpy(), frame[wallet].to_numpy()
        priced = (leg.status == PRICED) & (leg.wallet > 0) & ours
        self._unpriced += int((ours & ~priced & (leg.party > 0) & (was != 0)).sum())
        changed = (
            priced
            & ((leg.amount != was) | (leg.wallet != old_wallet))
            & ~((leg.amount == 0) & (was == 0))
        )
        described = self._reference.book.describe(leg.row.astype(np.int32))
        new = described.with_columns(
            pl.Series("party", leg.party),
            pl.Series("old_wallet", old_wallet),
            pl.Series("wallet_id", np.where(changed, leg.wallet, old_wallet)),
            pl.Series("billed", leg.billed),
            pl.Series("amount", np.where(changed, leg.amount, was)),
            pl.Series("was", was),
            pl.Series("changed", changed),
        )
        self._count(new.filter("changed"), side)
        return new

    def _resold(
        self, frame: pl.DataFrame, legs: pl.DataFrame
    ) -> list[tuple[int, pl.DataFrame, pl.DataFrame]]:
        """The resellers' legs of these records, level by level."""
        found = []
        chosen = legs.join(frame.drop("prefix"), on="line", how="inner", maintain_order="left")
        for (level,), part in chosen.partition_by(
            "level", as_dict=True, maintain_order=True
        ).items():
            leg = self._price(part, "party_id", "sell")
            ours = np.ones(len(part), np.bool_)
            found.append(
                (int(level), part, self._new(part, leg, "resell", "amount", "wallet_id", ours))
            )
        return found

    def _count(self, changed: pl.DataFrame, side: str) -> None:
        for wallet, amount, code in _moves(changed, side):
            self._totals[wallet, code] = self._totals.get((wallet, code), 0) + amount
        grouped = changed.group_by(
            pl.lit(side).alias("side"), "party", "destination", "currency"
        ).agg(
            pl.len().cast(pl.Int64).alias("calls"),
            pl.col("was").cast(pl.Int128).sum(),
            pl.col("amount").cast(pl.Int128).sum(),
        )
        self._summary = (
            pl.concat([self._summary, grouped.select(_SUMMARY.keys())])
            .group_by("side", "party", "destination", "currency")
            .agg(pl.col("calls", "was", "amount").sum())
            .select(_SUMMARY.keys())
        )

    def report(self, batch_id: int | None) -> RerateReport:
        """What was found, the largest differences first."""
        parties = self._reference.parties
        changes = [
            Change(
                side, parties[party].code, destination, currency, calls, money(was), money(amount)
            )
            for side, party, destination, currency, calls, was, amount in self._summary.iter_rows()
        ]
        changes.sort(key=lambda one: (-abs(one.difference), one.side, one.party, one.destination))
        return RerateReport(
            records=self._records,
            changed=self._changed,
            unpriced=self._unpriced,
            live=self._live,
            changes=tuple(changes),
            batch_id=batch_id,
        )

    async def finish(
        self, connection: Connection, batch_id: int, report: RerateReport, now: datetime
    ) -> None:
        """Post the money of all days, and write down what was done."""
        job = self._job
        sums = [
            WalletSum(wallet, code, money(total))
            for (wallet, code), total in sorted(self._totals.items())
            if total and wallet
        ]
        await usage.post_batch(
            connection,
            batch_id,
            now,
            sums,
            actor=job.actor,
            reason=f"re-rating: {job.reason}"[:500],
        )
        summary = {
            "records": report.records, "changed": report.changed, "unpriced": report.unpriced,
            "since": job.selection.since.isoformat(), "until": job.selection.until.isoformat(),
        }  # fmt: skip
        await store.set_summary(connection, batch_id, summary, job.reason)
        await record(
            connection, actor=job.actor, action="cdr.rerate", subject=f"batch {batch_id}",
            detail={**summary, "reason": job.reason}, notice=f"batch:{batch_id}",
        )  # fmt: skip


def _moves(changed: pl.DataFrame, side: str) -> Iterator[tuple[int, int, Code]]:
    """Reversals of what was charged, and the new charges, by wallet."""
    back, again = (Code.COST_REVERSAL, Code.COST) if side == "buy" else (Code.REVERSAL, Code.RATED)
    for wallet, amount, code in (("old_wallet", "was", back), ("wallet_id", "amount", again)):
        for id_, total in (
            changed.group_by(wallet).agg(pl.col(amount).cast(pl.Int128).sum()).iter_rows()
        ):
            yield id_, total, code


def _revisions(
    frame: pl.DataFrame, new: pl.DataFrame, leg: int, day: date, batch: int
) -> pl.DataFrame:
    return (
        new.with_columns(frame["line"])
        .filter("changed")
        .select(
            pl.lit(day).alias("day"),
            pl.lit(batch, pl.Int64).alias("batch_id"),
            "line",
            pl.lit(leg, pl.Int16).alias("leg"),
            "wallet_id",
            "version_id",
            pl.col("row_no").cast(pl.Int32),
            "prefix",
            "destination",
            pl.col("billed").cast(pl.Int32),
            "amount",
            "was",
        )
    )


def _hours(
    frame: pl.DataFrame,
    sold: pl.DataFrame,
    bought: pl.DataFrame,
    changed: Flags,
    *,
    sign: int,
) -> pl.DataFrame:
    """The changed records in the hourly sums: taken out as they were, put in as they are."""
    rows = frame
    if sign > 0:

        def pick(new: pl.DataFrame, name: str, old: str) -> pl.Series:
            return (
                pl.select(pl.when(new["changed"]).then(new[name]).otherwise(frame[old]))
                .to_series()
                .alias(old)
            )

        rows = frame.with_columns(
            pick(sold, "destination", "destination"), pick(sold, "prefix", "prefix"),
            pick(sold, "currency", "sell_currency"), pick(sold, "billed", "sell_billed"),
            pick(sold, "amount", "charge"), pick(bought, "currency", "buy_currency"),
            pick(bought, "billed", "buy_billed"), pick(bought, "amount", "cost"),
        )  # fmt: skip
    return group_hours(rows.filter(pl.Series(changed)).rename({"charge": "revenue"}), sign=sign)
