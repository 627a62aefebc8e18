"""A day over real decks: the counts are what the generator put in, the money is what naive code says."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tests.services.naive_day import Naive, compute
from tests.services.test_cdr_load import proven
from tests.support import World
from tollkeeper.cli.bench.cdr_day import MAPPING, Day, write_day
from tollkeeper.cli.bench.cdr_world import SWITCH, Deck, Version, charge_live, make_world
from tollkeeper.core.tariff import RateRow
from tollkeeper.services.cdr.load import FileReport, LoadJob, load_file
from tollkeeper.store.db import Database
from tollkeeper.wire.ratesheet import read_sheet

ROOT = Path(__file__).parents[2]
DECKS = Path(os.environ.get("TOLLKEEPER_SHARED_DATA", ROOT.parent / "shared" / "data")) / "decks"
LINES = 120_000
DAY = date(2026, 3, 1)
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
NOW = NOON + timedelta(days=1)
LONG_AGO = NOON - timedelta(days=300)


def rows_of(name: str) -> list[RateRow]:
    """The rows of a real deck, numbered."""
    sheet = read_sheet((DECKS / name).read_bytes())
    return [replace(line.row, row_id=number) for number, line in enumerate(sheet.rows, 1)]


def sold_at(rows: list[RateRow], markup: Decimal) -> list[RateRow]:
    """What a deck is sold for: all destinations that are not blocked, dearer."""
    kept = [row for row in rows if not row.blocked]
    return [
        replace(
            row,
            row_id=number,
            tariff=type(row.tariff)(
                row.tariff.first_price * markup,
                row.tariff.next_price * markup,
                row.tariff.first_interval,
                row.tariff.next_interval,
            ),
        )
        for number, row in enumerate(kept, 1)
    ]


@pytest.fixture
def world(database_url: str) -> Iterator[World]:
    """Eyes on the database of this test."""
    with World(database_url) as made:
        yield made


async def load(database: Database, path: Path, **more: Any) -> FileReport:
    """Load the day's file."""
    job = LoadJob(path, SWITCH, "csv", mapping=MAPPING, actor="test")
    return await load_file(database, replace(job, **more), clock=lambda: NOW)


@pytest.mark.skipif(
    not DECKS.is_dir(), reason="no real decks here; TOLLKEEPER_SHARED_DATA names their folder"
)
async def test_a_day_over_real_decks_balances_and_costs_what_naive_code_says(
    database_url: str, world: World, tmp_path: Path
) -> None:
    """120,000 records, 40 customers, 3 vendors; every one computed again, to the last digit."""
    aria, wavecrest = rows_of("aria_2022-02.csv"), rows_of("wavecrest_2022-03.csv")
    buys: list[Deck] = [
        [Version(LONG_AGO, aria)],
        [Version(LONG_AGO, wavecrest)],
        [Version(LONG_AGO, rows_of("astpp_outbound_routes.csv"))],
    ]
    sells: list[Deck] = [
        [
            Version(LONG_AGO, sold_at(deck, Decimal("1.3"))),
            Version(NOON, sold_at(deck, Decimal("1.15"))),
        ]
        for deck in (aria, wavecrest)
    ]
    common = {row.prefix for row in sells[0][0].rows} & {row.prefix for row in sells[1][0].rows}
    day = write_day(tmp_path / "day.csv", LINES, prefixes=sorted(common), day=DAY, seed=3)
    database = Database(database_url, size=3)
    await database.open()
    try:
        made = await make_world(database, sells=sells, buys=buys, now=NOON)
        assert await charge_live(database, made, day) == len(day.live.call_id) > LINES // 200
        report = await load(database, day.path, records_per_part=40_000)
    finally:
        await database.close()
    file = report.file
    assert (file.status, file.records) == ("done", day.lines)
    assert (file.rated, file.matched, file.duplicate, file.quarantined) == (
        day.plain,
        len(day.live.call_id),
        day.duplicates,
        day.malformed,
    )
    naive = compute(day.path, sells, buys, set(day.live.call_id))
    assert naive.counts == {
        "rated": file.rated,
        "matched": file.matched,
        "duplicate": file.duplicate,
        "quarantined": file.quarantined,
    }
    _same_money(world, naive)
    _same_hours(world, naive)
    assert min(day.duplicates, day.malformed) == LINES // 1000
    await proven(database_url)


def _same_money(world: World, naive: Naive) -> None:
    """What was posted to each wallet, and what the records say, is what naive code says."""
    for code, amounts in (("rated", naive.charges), ("cost", naive.costs)):
        posted = world.sql(
            "SELECT p.code, sum(e.amount) AS amount FROM entry e JOIN wallet w ON w.id = e.wallet_id"
            " JOIN party p ON p.id = w.party_id WHERE e.code = %s AND e.batch_id IS NOT NULL GROUP BY 1",
            code,
        )
        assert {row["code"]: row["amount"] for row in posted} == {
            name: amount for name, amount in amounts.items() if amount
        }
        assert len(posted) == (40 if code == "rated" else 3)


def _same_hours(world: World, naive: Naive) -> None:
    """The hourly sums, and the records grouped by the hour, are those of naive code."""
    names = " JOIN party c ON c.id = customer_id JOIN party v ON v.id = vendor_id GROUP BY 1, 2, 3"
    hours = world.sql(
        "SELECT hour, c.code AS customer, v.code AS vendor, sum(attempts)::int AS attempts,"
        " sum(answers)::int AS answers, sum(duration_ms)::bigint AS duration_ms, sum(cost) AS cost"
        " FROM usage_hour" + names
    )
    assert {
        (row["hour"], row["customer"], row["vendor"]): (
            row["attempts"], row["answers"], row["duration_ms"], row["cost"],
        )
        for row in hours
    } == {
        group: (sums.attempts, sums.answers, sums.duration_ms, sums.cost)
        for group, sums in naive.hours.items()
    }  # fmt: skip
    records = world.sql(
        "SELECT date_trunc('hour', start_at) AS hour, c.code AS customer, v.code AS vendor,"
        " coalesce(sum(charge) FILTER (WHERE state = 'rated'), 0) AS charge FROM usage" + names
    )
    assert {(row["hour"], row["customer"], row["vendor"]): row["charge"] for row in records} == {
        group: sums.charge for group, sums in naive.hours.items()
    }


def test_the_same_seed_writes_the_same_file(tmp_path: Path) -> None:
    """Whatever the machine: so that a figure can be measured again."""
    prefixes = ["44", "447", "1", "49151", "3933"]
    days: list[Day] = [
        write_day(tmp_path / f"{n}.csv", 20_000, prefixes=prefixes, seed=seed)
        for n, seed in enumerate((7, 7, 8))
    ]
    first, again, other = (one.path.read_bytes() for one in days)
    assert first == again != other
    assert days[0].live.call_id == days[1].live.call_id
    lines = first.decode().splitlines()
    assert len(lines) == 20_001
    assert days[0].duplicates == days[0].malformed == 20
    assert days[0].plain == 20_000 - 40 - len(days[0].live.call_id)
