"""What the records, their batches and their money add up to, for the proof of the books.

Days that were moved out of the database are not read again: what they held by batch was noted when
they left (:func:`note_leaving`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal

from psycopg.rows import DictRow

from tollkeeper.core.audit_usage import (
    BatchLine,
    FileLine,
    HourLine,
    LegTotal,
    OddRevision,
    Outcomes,
    Place,
    Stored,
)
from tollkeeper.core.money import ZERO
from tollkeeper.core.usage import EFFECTIVE_Q850, EFFECTIVE_SIP, State
from tollkeeper.store.db import Connection, queries
from tollkeeper.store.usage import MEASURES

_SQL = queries("verify_usage")

_LegKey = tuple[int, int, int, str]


@dataclass(slots=True)
class Sums:
    """Records by batch and outcome, and legs by batch, changing batch, wallet and side."""

    rated: dict[int, int] = field(default_factory=lambda: defaultdict(int))
    matched: dict[int, int] = field(default_factory=lambda: defaultdict(int))
    amounts: dict[_LegKey, Decimal] = field(default_factory=lambda: defaultdict(lambda: ZERO))

    @property
    def records(self) -> int:
        """How many records there are."""
        return sum(self.rated.values()) + sum(self.matched.values())

    def legs(self) -> list[LegTotal]:
        """The legs that come to anything."""
        return [LegTotal(*key, amount) for key, amount in self.amounts.items() if amount]

    def stored(self, quarantined: dict[int, int]) -> dict[int, Stored]:
        """How many records there are of each batch, those in quarantine included."""
        ids = self.rated.keys() | self.matched.keys() | quarantined.keys()
        return {
            id_: Stored(self.rated.get(id_, 0), self.matched.get(id_, 0), quarantined.get(id_, 0))
            for id_ in ids
        }


async def read_files(connection: Connection) -> list[FileLine]:
    """All files by their own counters."""
    rows = await (await connection.execute(_SQL["files"])).fetchall()
    return [
        FileLine(row.pop("id"), row.pop("name"), row.pop("lines_done"), Outcomes(**row))
        for row in rows
    ]


async def read_batches(connection: Connection) -> list[BatchLine]:
    """All batches by their own counters, in the order in which they were written."""
    rows = await (await connection.execute(_SQL["batches"])).fetchall()
    counts = ("records", "rated", "matched", "duplicate", "quarantined")
    return [
        BatchLine(outcomes=Outcomes(**{name: row.pop(name) for name in counts}), **row)
        for row in rows
    ]


async def read_quarantined(connection: Connection) -> dict[int, int]:
    """How many records of each batch were put into quarantine, whatever became of them there."""
    rows = await (await connection.execute(_SQL["quarantined"])).fetchall()
    return {row["batch_id"]: row["quarantined"] for row in rows}


async def read_posted(connection: Connection) -> dict[Place, Decimal]:
    """What each batch posted to each wallet: a charge on the sell side and an earning are positive."""
    rows = await (await connection.execute(_SQL["posted"])).fetchall()
    return {(row["batch_id"], row["wallet_id"], row["side"]): row["amount"] for row in rows}


async def read_days(connection: Connection, tables: Sequence[str]) -> list[date]:
    """The days that have a partition of one of these tables."""
    rows = await (await connection.execute(_SQL["days"], (list(tables),))).fetchall()
    return [row["day"] for row in rows]


async def add_day(
    connection: Connection,
    day: date,
    sums: Sums,
    tables: Iterable[str] = ("usage", "usage_leg", "usage_revision"),
) -> None:
    """Add what these tables hold of a day."""
    wanted = set(tables)
    if "usage" in wanted:
        for row in await _of_day(connection, "day_records", day):
            batch, rated = row["batch_id"], row["state"] == State.RATED.value
            (sums.rated if rated else sums.matched)[batch] += row["records"]
            if rated:
                # Of a call that was charged live, only the vendor's leg was posted by the batch.
                sums.amounts[batch, 0, row["sell_wallet"], "sell"] += row["charge"]
            sums.amounts[batch, 0, row["buy_wallet"], "buy"] += row["cost"]
    if "usage_leg" in wanted:
        for row in await _of_day(connection, "day_legs", day):
            sums.amounts[row["batch_id"], 0, row["wallet_id"], "sell"] += row["amount"]
    if "usage_revision" in wanted:
        for row in await _of_day(connection, "day_changes", day):
            key = (row["batch_id"], row["by_batch"], row["wallet_id"], row["side"])
            sums.amounts[key] += row["amount"]


async def add_archived(connection: Connection, sums: Sums) -> None:
    """Add what the days held that were moved out of the database."""
    for row in await (await connection.execute(_SQL["archived_batches"])).fetchall():
        sums.rated[row["batch_id"]] += row["rated"]
        sums.matched[row["batch_id"]] += row["matched"]
    for row in await (await connection.execute(_SQL["archived_legs"])).fetchall():
        key = (row["batch_id"], row["by_batch"], row["wallet_id"], row["side"])
        sums.amounts[key] += row["amount"]


async def whole_days(connection: Connection) -> list[date]:
    """The days whose records are all here: none of them was archived or purged."""
    return [row["day"] for row in await (await connection.execute(_SQL["whole_days"])).fetchall()]


async def odd_revisions(connection: Connection, day: date) -> list[OddRevision]:
    """Revisions of a day's records that do not begin where the leg stood; the first 1000."""
    return [OddRevision(**row) for row in await _of_day(connection, "odd_revisions", day)]


async def odd_hours(connection: Connection, day: date) -> list[HourLine]:
    """Hourly sums of a day that are not those of its records; the first 1000."""
    causes = {"q850": sorted(EFFECTIVE_Q850), "sip": sorted(EFFECTIVE_SIP)}
    return [
        HourLine(
            hour=row["hour"],
            group=(
                f"customer {row['customer_id']} vendor {row['vendor_id']} "
                f"trunks {row['trunk_in']} to {row['trunk_out']} {row['service']} "
                f'{row["prefix"]} "{row["destination"]}" '
                f"{row['sell_currency']}/{row['buy_currency']}"
            ),
            stands=dict(zip(MEASURES, row["stands"], strict=True)),
            derived=dict(zip(MEASURES, row["derived"], strict=True)),
        )
        for row in await _of_day(connection, "odd_hours", day, **causes)
    ]


async def _of_day(connection: Connection, query: str, day: date, **values: object) -> list[DictRow]:
    # Never a prepared statement: only a plan that knows the day leaves out the other partitions.
    cursor = await connection.execute(_SQL[query], {"day": day, **values}, prepare=False)
    return await cursor.fetchall()


async def note_leaving(connection: Connection, day: date, tables: Sequence[str]) -> None:
    """Note what these tables hold of a day, in the transaction that drops its partitions.

    Without it the proof of the books would miss the records. A day may leave in several parts.
    """
    there = []
    for table in tables:
        cursor = await connection.execute(_SQL["exists"], (f"{table}_{day:%Y%m%d}",))
        row = await cursor.fetchone()
        if row is not None and row["there"]:
            there.append(table)
    sums = Sums()
    await add_day(connection, day, sums, there)
    ids = sorted(sums.rated.keys() | sums.matched.keys())
    counts = ([sums.rated.get(id_, 0) for id_ in ids], [sums.matched.get(id_, 0) for id_ in ids])
    await connection.execute(_SQL["note_batches"], (day, ids, *counts))
    legs = sums.legs()
    columns = (
        [leg.batch_id for leg in legs],
        [leg.by_batch for leg in legs],
        [leg.wallet_id for leg in legs],
        [leg.side for leg in legs],
        [leg.amount for leg in legs],
    )
    await connection.execute(_SQL["note_legs"], (day, *columns))
