"""Proving the books of records that came as files: I21, I22 and I23 of ``core.audit``."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from tollkeeper.core.audit import Finding
from tollkeeper.core.audit_usage import (
    check_batches,
    check_files,
    check_hour,
    check_postings,
    check_revision,
    expected_postings,
)
from tollkeeper.store import verify_usage as store
from tollkeeper.store.db import Connection

Add = Callable[[Iterable[Finding], Iterable[int]], None]
"""Takes findings and the wallets that they concern."""

Tell = Callable[[int, int], None]
"""Told how many days are done, and how many there are."""


async def check_usage(connection: Connection, add: Add, tell: Tell) -> int:
    """Hold files, batches, postings and hourly sums against the records; returns how many there are.

    To be called in a transaction that sees one moment.
    """
    batches = await store.read_batches(connection)
    sums = store.Sums()
    await store.add_archived(connection, sums)
    days = await store.read_days(connection, ("usage", "usage_leg", "usage_revision"))
    # Hourly sums outlive their records: only where all of these are there can they be derived.
    whole = set(await store.whole_days(connection))
    for done, day in enumerate(days):
        tell(done, len(days))
        await store.add_day(connection, day, sums)
        for odd in await store.odd_revisions(connection, day):
            add(check_revision(odd), ())
        if day in whole:
            for line in await store.odd_hours(connection, day):
                add(check_hour(line), ())
    tell(len(days), len(days))
    add(check_files(await store.read_files(connection), batches), ())
    stored = sums.stored(await store.read_quarantined(connection))
    add(check_batches(batches, stored), ())
    undone = {batch.id: batch.undone_by for batch in batches if batch.undone_by}
    expected = expected_postings(sums.legs(), undone)
    for finding, wallet_id in check_postings(expected, await store.read_posted(connection)):
        add([finding], [wallet_id])
    return sums.records
