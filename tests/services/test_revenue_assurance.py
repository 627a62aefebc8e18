"""Revenue assurance: what was used and did not become money is found, day by day."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

import pytest
from psycopg.types.json import Jsonb

from tests.services.reconcile_world import NOON, Books
from tollkeeper.errors import InvalidInput
from tollkeeper.services.revenue_assurance import Assurance, assure
from tollkeeper.store.db import Database

DAY = NOON.date()


@pytest.fixture
def books(database_url: str) -> Iterator[Books]:
    with Books(database_url) as made:
        yield made


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    made = Database(database_url, size=2)
    await made.open()
    yield made
    await made.close()


async def look(database: Database, day: date = DAY, **more: Any) -> Assurance:
    """Look at a day from the evening after."""
    return await assure(database, day, now=NOON + timedelta(days=1), **more)


def closed(books: Books, key: str, *, charge: str = "1", day: date = DAY) -> None:
    """A session of acme that was charged live."""
    books.sql("SELECT ensure_partitions(%s::date, 1)", day)
    body = {"legs": [{"party_id": books.acme.id, "wallet_id": books.acme.wallet_id}]}
    books.sql(
        "INSERT INTO closed_session VALUES (%s, gen_random_uuid(), %s, %s, %s, 'settled', %s, 1, %s)",
        day, key, books.acme.id, NOON, Decimal(charge), Jsonb(body),
    )  # fmt: skip


def hour(books: Books, destination: str, revenue: str, cost: str, **columns: Any) -> None:
    """Sums of an hour."""
    row: dict[str, Any] = {
        "day": DAY, "hour": NOON, "batch_id": books.batch_id, "customer_id": books.acme.id,
        "vendor_id": books.carrier.id, "trunk_in": 0, "trunk_out": 0, "service": "voice",
        "destination": destination, "prefix": "44", "sell_currency": "USD", "buy_currency": "USD",
        "attempts": 1, "answers": 1, "effective": 1, "duration_ms": 60_000, "sell_billed": 60,
        "buy_billed": 60, "pdd_ms": 0, "pdd_count": 0, "revenue": Decimal(revenue),
        "cost": Decimal(cost), **columns,
    }  # fmt: skip
    marks = ", ".join(["%s"] * len(row))
    books.sql(f"INSERT INTO usage_hour ({', '.join(row)}) VALUES ({marks})", *row.values())


async def test_a_day_without_anything_is_clean(books: Books, database: Database) -> None:
    assert (await look(database)).clean


async def test_records_in_quarantine_are_counted_by_reason(
    books: Books, database: Database
) -> None:
    undone = books.batch()
    books.undo(undone)
    for batch, reason, status, at in (
        (books.batch_id, "no_rate", "open", NOON),
        (books.batch_id, "no_rate", "open", NOON),
        (books.batch_id, "no_rate", "replayed", NOON),
        (books.batch_id, "bad_time", "open", NOON - timedelta(days=1)),
        (undone, "no_rate", "open", NOON),
    ):
        books.sql(
            "INSERT INTO cdr_quarantine (batch_id, switch, line, reason, detail, status, at)"
            " VALUES (%s, 'sw1', 1, %s, 'why', %s, %s)",
            batch, reason, status, at,
        )  # fmt: skip
    found = await look(database)
    assert [(u.switch, u.reason, u.records) for u in found.unrated] == [("sw1", "no_rate", 2)]
    assert (found.unrated_in_all, found.clean) == (3, False)


async def test_sessions_that_no_file_names_are_found_where_files_come(
    books: Books, database: Database
) -> None:
    """Of a switch that never delivers files nothing can be said."""
    books.sql(
        "INSERT INTO cdr_file (switch, name, sha256, bytes, format, status)"
        " VALUES ('sw1', 'f', 'x', 1, 'csv', 'done')"
    )
    books.record("named")
    books.record("at midnight", start=NOON - timedelta(days=1))
    undone = books.batch()
    books.record("taken back", batch_id=undone)
    books.undo(undone)
    for key in ("sw1/named", "sw1/at midnight", "sw1/taken back", "sw1/missed", "sw2/missed"):
        closed(books, key)
    closed(books, "sw1/free", charge="0")
    found = await look(database)
    assert [(u.key, u.party, u.charge, u.currency) for u in found.unmatched] == [
        ("sw1/missed", "acme", Decimal(1), "USD"),
        ("sw1/taken back", "acme", Decimal(1), "USD"),
    ]
    assert (found.unmatched_count, found.unmatched_charge) == (2, {"USD": Decimal(2)})


async def test_margins_are_looked_at_by_destination_and_by_currency(
    books: Books, database: Database
) -> None:
    hour(books, "UK", "1", "3")
    hour(books, "UK", "1", "0.5")
    hour(books, "Italy", "2", "1")
    hour(books, "Spain", "1", "9", buy_currency="EUR")
    found = await look(database)
    assert [(loss.destination, loss.revenue, loss.cost) for loss in found.losses] == [
        ("UK", Decimal(2), Decimal("3.5"))
    ]
    assert [(t.currency, t.revenue, t.cost, t.margin) for t in found.trade] == [
        ("EUR", Decimal(0), Decimal(9), Decimal(-9)),
        ("USD", Decimal(5), Decimal("4.5"), Decimal("0.5")),
    ]


async def test_running_numbers_are_missing_when_no_part_has_them(
    books: Books, database: Database
) -> None:
    def part(switch: str, file: str, first: int, last: int, *gaps: list[int]) -> None:
        file_id = books.one(
            "INSERT INTO cdr_file (switch, name, sha256, bytes, format) VALUES (%s, %s, %s, 1, 'csv')"
            " ON CONFLICT (switch, sha256) WHERE status <> 'rolled_back' DO UPDATE SET bytes = 1"
            " RETURNING id",
            switch, file, file,
        )  # fmt: skip
        numbers = {"first": first, "last": last, "gaps": gaps}
        books.batch(switch, file_id=file_id, summary=Jsonb({"sequence": numbers}))

    part("sw1", "a", 1, 10, [3, 4], [7, 7])
    part("sw1", "a", 7, 7)
    part("sw1", "b", 15, 20)
    part("sw2", "c", 100, 110)
    found = await look(database)
    assert [(g.switch, g.file, g.first, g.last) for g in found.gaps] == [
        ("sw1", "a", 3, 4),
        ("sw1", "", 11, 14),
    ]
    assert (found.gap_count, found.gap_records) == (2, 6)


async def test_sources_that_fell_silent_are_named(books: Books, database: Database) -> None:
    def source(code: str, kind: str, file_age: timedelta | None, enabled: bool = True) -> None:
        made = books.one(
            "INSERT INTO cdr_source (code, kind, switch, format, enabled, created_at)"
            " VALUES (%s, %s, 'sw1', 'csv', %s, %s) RETURNING id",
            code, kind, enabled, NOON - timedelta(days=9),
        )  # fmt: skip
        if file_age is not None:
            books.sql(
                "INSERT INTO cdr_file (source_id, switch, name, sha256, bytes, format, created_at)"
                " VALUES (%s, 'sw1', %s, %s, 1, 'csv', %s)",
                made, code, code, NOON + timedelta(days=1) - file_age,
            )  # fmt: skip

    source("fresh", "sftp", timedelta(minutes=59))
    source("late", "sftp", timedelta(minutes=61))
    source("never", "directory", None)
    source("off", "sftp", None, enabled=False)
    source("by-hand", "manual", None)
    found = await look(database)
    assert [s.code for s in found.silent] == ["late", "never"]
    assert [s.code for s in (await look(database, polls=62)).silent] == ["never"]


async def test_only_days_that_have_begun_can_be_looked_at(books: Books, database: Database) -> None:
    with pytest.raises(InvalidInput, match="until today"):
        await look(database, NOON.date() + timedelta(days=2))
