"""Taking a file or a re-rating back: reversals of what it cost, in one batch, and nothing deleted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal

from tollkeeper.core.ledger import Code
from tollkeeper.errors import Busy, Conflict, NotFound
from tollkeeper.store import rerate as store
from tollkeeper.store import usage
from tollkeeper.store import usage_files as files
from tollkeeper.store.changes import record
from tollkeeper.store.db import Connection, Database
from tollkeeper.store.loading import loading
from tollkeeper.store.outbox import ensure_partitions
from tollkeeper.store.usage import WalletSum
from tollkeeper.store.usage_files import NewBatch, add_batch, lock_switch, undo_batches

EVERYTHING = "*"
"""The lock of whoever revises records that are in the books, of whatever switch."""

_OPPOSITE = {
    Code.RATED: Code.REVERSAL,
    Code.REVERSAL: Code.RATED,
    Code.COST: Code.COST_REVERSAL,
    Code.COST_REVERSAL: Code.COST,
}


@dataclass(frozen=True, slots=True)
class RollbackReport:
    """The batch that took others back, and the entries that it posted."""

    batch_id: int
    undone: tuple[int, ...]
    entries: int


async def roll_back_file(
    database: Database, file_id: int, *, actor: str, reason: str, clock: Callable[[], datetime]
) -> RollbackReport:
    """Take a file's records out of the books; afterwards it may be loaded again.

    Raises:
        NotFound: there is no such file.
        Conflict: it was rolled back before, a re-rating of its records stands, or a day of it is
            archived.
        Busy: records of its switch are being loaded, or others are being revised.
    """
    async with database.read() as connection:
        file = await files.read_file(connection, file_id)
    if file is None:
        raise NotFound(f"there is no file {file_id}", code="unknown_file", field="file")
    async with loading(database.url, file.switch) as connection:
        await _revise_alone(connection)
        await ensure_partitions(connection, clock().date(), 2)
        async with connection.transaction():
            # Read again: it may have been rolled back while we waited.
            file = await files.read_file(connection, file_id)
            if file is None or file.status == "rolled_back":
                raise Conflict(f"file {file_id} was rolled back before", code="already_rolled_back")
            found = await files.batches_of_file(connection, file_id)
            batches = [id_ for id_, undone_by in found.items() if undone_by is None]
            days = await _takeable(connection, batches)
            now = clock()
            batch_id = await add_batch(
                connection,
                NewBatch("rollback", now, switch=file.switch, actor=actor, note=f"file {file.name}: {reason}"),
            )  # fmt: skip
            sums = [
                opposite(wallet_id, Code(code), amount)
                for wallet_id, code, amount in await store.present_money(connection, batches, days)
            ]
            await store.take_back_hours(connection, batch_id, batches, days)
            await usage.drop_keys(connection, batches)
            await store.close_file(connection, file_id, at=now, by=actor)
            await files.end_file(connection, file_id, "rolled_back", at=now, error=reason)
            report = await _finish(
                connection, batch_id, batches, sums, now=now, actor=actor,
                reason=f"file {file.name} taken back: {reason}",
            )  # fmt: skip
            await record(
                connection, actor=actor, action="cdr.rollback", subject=f"file {file_id}",
                detail={"batches": batches, "reason": reason}, notice=f"file:{file_id}",
            )  # fmt: skip
    return report


async def roll_back_rerate(
    database: Database, batch_id: int, *, actor: str, reason: str, clock: Callable[[], datetime]
) -> RollbackReport:
    """Take a re-rating back: its records cost again what they cost before it.

    Raises:
        NotFound: there is no such re-rating.
        Conflict: it was taken back before, or a later one revised the same records.
        Busy: others are being revised.
    """
    async with loading(database.url, EVERYTHING) as connection:
        await ensure_partitions(connection, clock().date(), 2)
        async with connection.transaction():
            batch = await store.lock_batch(connection, batch_id)
            if batch is None or batch.kind != "rerate":
                raise NotFound(f"there is no re-rating {batch_id}", code="unknown_rerating")
            if batch.undone_by is not None:
                raise Conflict(
                    f"re-rating {batch_id} was taken back before, by batch {batch.undone_by}",
                    code="already_rolled_back",
                )
            _refuse_later(await store.revisions_after(connection, batch_id))
            now = clock()
            by = await add_batch(
                connection,
                NewBatch("rollback", now, actor=actor, note=f"re-rating {batch_id}: {reason}"),
            )
            sums = [
                opposite(wallet_id, Code(code), amount)
                for wallet_id, code, amount in await store.entries_of_batch(connection, batch_id)
            ]
            await store.negate_hours(connection, by, [batch_id])
            report = await _finish(
                connection, by, [batch_id], sums, now=now, actor=actor,
                reason=f"re-rating {batch_id} taken back: {reason}",
            )  # fmt: skip
            await record(
                connection, actor=actor, action="cdr.rollback", subject=f"re-rating {batch_id}",
                detail={"reason": reason}, notice=f"batch:{batch_id}",
            )  # fmt: skip
    return report


def opposite(wallet_id: int, code: Code, amount: Decimal) -> WalletSum:
    """The posting that takes another one back; a negative amount is one the other way round."""
    taken_back = _OPPOSITE[code]
    if amount < 0:
        return WalletSum(wallet_id, code, -amount)
    return WalletSum(wallet_id, taken_back, amount)


async def _revise_alone(connection: Connection) -> None:
    if not await lock_switch(connection, EVERYTHING):
        raise Busy("records are being re-rated; wait until that is done", code="rerating")


async def _takeable(connection: Connection, batches: Sequence[int]) -> list[date]:
    """The days of batches that can be taken back."""
    _refuse_later(await store.later_reratings(connection, batches))
    days = await store.days_of_batches(connection, batches)
    archived = await store.archived_days(connection, days)
    if archived:
        raise Conflict(
            f"records of {archived[0]:%Y-%m-%d} are archived and cannot be taken back any more; "
            "correct the money with adjustments",
            code="archived",
        )
    return days


def _refuse_later(later: Sequence[int]) -> None:
    if later:
        raise Conflict(
            f"re-rating {later[-1]} stands on these records; take that back first",
            code="rerated_later",
        )


async def _finish(
    connection: Connection,
    batch_id: int,
    undone: Sequence[int],
    sums: Sequence[WalletSum],
    *,
    now: datetime,
    actor: str,
    reason: str,
) -> RollbackReport:
    await undo_batches(connection, undone, batch_id)
    entries = await usage.post_batch(
        connection, batch_id, now, sums, actor=actor, reason=reason[:500]
    )
    return RollbackReport(batch_id, tuple(undone), entries)
