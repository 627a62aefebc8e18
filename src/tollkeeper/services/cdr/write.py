"""Writing a prepared part: all of it, and where the next one begins, in one transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import date, datetime
from decimal import Decimal

import polars as pl

from tollkeeper.core.usage import State
from tollkeeper.services.cdr.assemble import DAY_US, Assembled, units
from tollkeeper.services.cdr.prepare import Prepared
from tollkeeper.services.cdr.records import Held, Noted
from tollkeeper.services.cdr.reference import moment_of
from tollkeeper.store import usage as store
from tollkeeper.store.db import Connection
from tollkeeper.store.outbox import ensure_partitions
from tollkeeper.store.usage import WalletSum
from tollkeeper.store.usage_files import Counts, NewBatch, StoredHalf, add_batch, replace_halves

_HELD = {name: pl.String() for name in ("reason", "field", "value", "detail", "raw", "record")} | {
    "line": pl.Int64()
}
_NOTED = {
    name: pl.String() for name in ("kind", "call_id", "session_id", "expected", "found", "detail")
} | {
    "day": pl.Int32(),
    "line": pl.Int64(),
    "customer_id": pl.Int64(),
    "vendor_id": pl.Int64(),
}


@dataclass(frozen=True, slots=True)
class HalfChange:
    """What happens to the halves of calls: these found each other, and those wait from now on."""

    joined: Sequence[tuple[str, bool]] = ()
    waiting: Sequence[StoredHalf] = ()


@dataclass(frozen=True, slots=True)
class Step:
    """What a batch is: its kind, its file, and the lines that it covers."""

    kind: str
    switch: str
    actor: str
    reason: str
    file_id: int | None = None
    first_line: int = 0
    last_line: int = 0
    skipped: int = 0
    note: str = ""
    halves: HalfChange = field(default_factory=HalfChange)
    sequence: Mapping[str, object] = field(default_factory=dict)


async def ensure_days(connection: Connection, prepared: Prepared, now: datetime) -> None:
    """Make the partitions that a part needs, before its transaction begins."""
    # No server need be running that makes those of the journal ahead.
    await ensure_partitions(connection, now.date(), 2)
    if prepared.keys:
        await store.ensure_days(connection, [day_date(day) for day in prepared.keys])


async def write_batch(
    connection: Connection, step: Step, prepared: Prepared, *, now: datetime
) -> tuple[int, Counts]:
    """Write a prepared part within the caller's transaction; returns its batch and its counts.

    The wallets are locked last, so that live calls wait for no more than the commit.
    """
    counts = Counts(
        records=prepared.records,
        rated=prepared.rated,
        matched=prepared.matched,
        duplicate=prepared.duplicate,
        quarantined=len(prepared.held),
        skipped=step.skipped,
    )
    batch = NewBatch(
        kind=step.kind,
        at=now,
        file_id=step.file_id,
        switch=step.switch,
        first_line=step.first_line,
        last_line=step.last_line,
        counts=counts,
        actor=step.actor,
        note=step.note,
        summary={**_summary(prepared), **({"sequence": step.sequence} if step.sequence else {})},
    )
    batch_id = await add_batch(connection, batch)
    await _copy(connection, batch_id, step, prepared, now)
    await replace_halves(
        connection, step.switch, joined=step.halves.joined, waiting=step.halves.waiting
    )
    for day, (keys, matches) in prepared.keys.items():
        await store.add_keys(
            connection, batch_id, step.switch, day_date(day), keys=keys, matches=matches
        )
    if prepared.assembled is not None:
        sums = [WalletSum(*one) for one in prepared.assembled.sums]
        await store.post_batch(
            connection, batch_id, now, sums, actor=step.actor, reason=step.reason
        )
    return batch_id, counts


async def _copy(
    connection: Connection, batch_id: int, step: Step, prepared: Prepared, now: datetime
) -> None:
    assembled = prepared.assembled
    if assembled is not None:
        await store.copy_usage(connection, batch_id, assembled.usage)
        if not assembled.legs.is_empty():
            await store.copy_legs(connection, batch_id, assembled.legs)
        if assembled.revisions:
            await store.copy_revisions(connection, batch_id, revision_frame(assembled, batch_id))
        await store.copy_hours(connection, batch_id, assembled.hours)
    if prepared.held:
        await store.copy_quarantine(
            connection,
            held_frame(prepared.held),
            batch_id=batch_id,
            file_id=step.file_id,
            switch=step.switch,
            at=now,
        )
    if prepared.notes.listed:
        await store.copy_mismatches(
            connection,
            noted_frame(prepared.notes.listed),
            batch_id=batch_id,
            file_id=step.file_id,
            at=now,
        )


def day_date(day: int) -> date:
    """The UTC day of its number since 1970."""
    return moment_of(day * DAY_US).date()


def held_frame(held: Sequence[Held]) -> pl.DataFrame:
    """Records that were put aside, as columns."""
    rows = [asdict(one) | {"reason": one.reason.value} for one in held]
    return pl.DataFrame(rows, schema=_HELD)


def noted_frame(noted: Sequence[Noted]) -> pl.DataFrame:
    """Mismatches as columns."""
    rows = [asdict(one) | {"kind": one.kind.value} for one in noted]
    return pl.DataFrame(rows, schema=_NOTED).with_columns(pl.col("day").cast(pl.Date))


def revision_frame(assembled: Assembled, batch_id: int) -> pl.DataFrame:
    """The corrections of live charges, as revisions of the batch's own records."""
    rows = [one.row for one in assembled.revisions]
    picked = assembled.usage[rows]
    return picked.select(
        "day",
        "line",
        pl.lit(batch_id, pl.Int64).alias("batch_id"),
        pl.lit(0, pl.Int16).alias("leg"),
        pl.col("sell_wallet").alias("wallet_id"),
        pl.col("sell_version").alias("version_id"),
        pl.col("sell_row").alias("row_no"),
        pl.col("sell_prefix").alias("prefix"),
        "destination",
        pl.col("sell_billed").alias("billed"),
        pl.Series("amount", [units(one.amount) for one in assembled.revisions], dtype=pl.Int64),
        pl.Series("was", [units(one.was) for one in assembled.revisions], dtype=pl.Int64),
    )


def _summary(prepared: Prepared) -> Mapping[str, object]:
    """What a batch did, for people: reasons, mismatches, and money by kind of posting."""
    money: dict[str, Decimal] = {}
    for _, code, amount in prepared.assembled.sums if prepared.assembled is not None else ():
        money[code.value] = money.get(code.value, Decimal(0)) + amount
    return {
        "quarantine": {reason.value: count for reason, count in prepared.reasons.items()},
        "mismatches": {kind.value: count for kind, count in prepared.notes.counts.items()},
        "money": {code: str(amount) for code, amount in money.items()},
        "states": {State.RATED.value: prepared.rated, State.MATCHED.value: prepared.matched},
    }
