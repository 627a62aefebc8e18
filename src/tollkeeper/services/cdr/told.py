"""Calls that a switch reported by a protocol and that could not be charged: they wait in quarantine.

RFC 2866 section 4.1: what is answered is recorded. There a record is mended and played again as one of
a file would be, and what a live session was charged for meanwhile is matched, not charged again.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import msgspec

from tollkeeper.core.reasons import MEANINGS, Reason
from tollkeeper.core.usage import Quarantine, Usage
from tollkeeper.store import quarantine as store
from tollkeeper.store.db import Database
from tollkeeper.store.usage_files import Counts, NewBatch, add_batch

RAW_MAX = 4_000
REASONS: dict[Reason, tuple[Quarantine, str]] = {
    Reason.UNKNOWN_CUSTOMER: (Quarantine.UNKNOWN_CUSTOMER, "trunk_in"),
    Reason.NO_RATE: (Quarantine.NO_RATE, "called"),
    Reason.DESTINATION_BLOCKED: (Quarantine.BLOCKED, "called"),
    Reason.INVALID_NUMBER: (Quarantine.BAD_NUMBER, "called"),
}
"""Where a refusal has the meaning of a reason that records of files have too: that, and the field."""


@dataclass(frozen=True, slots=True)
class Told:
    """A report that could not be charged. ``name`` tells it from all others; ``raw`` is it as text."""

    name: str
    switch: str
    peer: str
    reason: Reason
    usage: Usage
    raw: str


async def was_put_aside(database: Database, name: str) -> bool:
    """Tell whether the report of this name is, or was, in quarantine."""
    async with database.read() as connection:
        return await store.is_told(connection, name)


async def put_aside(database: Database, told: Told, now: datetime) -> bool:
    """Put a report into quarantine; False: it was there before.

    Raises:
        Busy: nothing can be written at the moment.
    """
    quarantine, field = REASONS.get(told.reason, (Quarantine.NOT_CHARGED, ""))
    async with database.write() as connection:
        await store.lock_told(connection, told.name)
        if await store.is_told(connection, told.name):
            return False
        batch_id = await add_batch(
            connection,
            NewBatch(
                kind="load",
                at=now,
                switch=told.switch,
                first_line=1,
                last_line=1,
                counts=Counts(records=1, quarantined=1),
                actor=f"peer:{told.peer}",
                note="reported by its switch, and not charged",
                summary={"quarantine": {quarantine.value: 1}},
            ),
        )
        await store.add_told(
            connection,
            batch_id=batch_id,
            switch=told.switch,
            reason=quarantine.value,
            field=field,
            value=str(getattr(told.usage, field))[:255] if field else "",
            detail=f"{told.peer} reported the call, and it was not charged: "
            f"{MEANINGS[told.reason].text}",
            raw=told.raw[:RAW_MAX],
            record=msgspec.json.encode(told.usage).decode(),
            at=now,
            told=told.name,
        )
    return True
