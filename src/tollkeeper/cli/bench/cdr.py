"""Records by the million: the kernel, a day's file into the books, and the archive.

Each figure stands beside what it is to be compared with, measured in the same run: reading the
file and nothing else, and pricing records one by one as the charging core does.
"""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import msgspec
import numpy as np
import polars as pl

from tollkeeper.bulk.book import CardSpan, RateBook, micros
from tollkeeper.bulk.kernel import lookup, price_rows, rate
from tollkeeper.bulk.numbers import align_column
from tollkeeper.cli.bench.archive import measure
from tollkeeper.cli.bench.cdr_day import CUSTOMERS, Day, write_day
from tollkeeper.cli.bench.cdr_load import Loaded, Order
from tollkeeper.cli.bench.cdr_world import CdrWorld, Deck, charge_live, made_decks, make_world
from tollkeeper.cli.bench.rates import LOOKUP_ROWS, prefixes
from tollkeeper.core.numbering import normalise
from tollkeeper.core.rating import price, seconds_of
from tollkeeper.core.tariff import Card, PrefixTable, find_rate
from tollkeeper.store.bench_cdr import load_totals
from tollkeeper.store.db import Database

DAY = date(2026, 3, 1)
CHANGE = datetime(2026, 3, 1, 12, tzinfo=UTC)
"""At noon all cards change to their second version."""
NOW = CHANGE + timedelta(days=1)
KERNEL_RECORDS = 4_000_000
ONE_BY_ONE = 50_000
THREADS = 2
ROUNDS = 3
SEED = 23

Note = Callable[[str, float, str], None]


@dataclass(frozen=True, slots=True)
class Decks:
    """The prefixes and cards of all parts of this benchmark."""

    prefixes: list[str]
    sells: list[Deck]
    buys: list[Deck]

    @classmethod
    def make(cls) -> Decks:
        """Cards of 300,000 prefixes in two versions each."""
        known = prefixes(LOOKUP_ROWS)
        sells, buys = made_decks(known, CHANGE, sells=1)
        return cls(known, sells, buys)


# --- the kernel ------------------------------------------------------------------------------------


def kernel(decks: Decks, note: Note) -> None:
    """Find and price calls on all cards, versions included, and one by one as the core does."""
    cards = [*decks.sells, *decks.buys]
    book = RateBook.compile({n: [_spans(n, deck)] for n, deck in enumerate(cards)})
    dice = np.random.default_rng(SEED)
    plan = dice.integers(0, len(cards), KERNEL_RECORDS).astype(np.int32)
    at = micros(CHANGE) + dice.integers(-43_200_000_000, 43_200_000_000, KERNEL_RECORDS)
    duration = np.where(
        dice.random(KERNEL_RECORDS) < 0.62, dice.integers(1, 600_000, KERNEL_RECORDS), 0
    )
    number, digits = _numbers(decks.prefixes, dice)
    calls = (book, plan, number, digits, at)
    row = lookup(*calls, threads=THREADS)
    price_rows(book, row, duration, threads=THREADS)
    for name, work in (
        ("bulk_kernel_rows_per_s", lambda: rate(*calls, duration, threads=THREADS)),
        ("bulk_lookup_rows_per_s", lambda: lookup(*calls, threads=THREADS)),
        ("bulk_price_rows_per_s", lambda: price_rows(book, row, duration, threads=THREADS)),
    ):
        note(name, KERNEL_RECORDS / min(_seconds(work) for _ in range(ROUNDS)), "records/s, two versions of 300,000 prefixes")  # fmt: skip


def _spans(card_id: int, deck: Deck) -> list[CardSpan]:
    edges = [*(micros(version.since) for version in deck[1:]), None]
    return [
        CardSpan(card_id, 10 * card_id + n, "USD", version.rows, edges[n - 1] if n else None, end)
        for n, (version, end) in enumerate(zip(deck, edges, strict=True))
    ]


def _numbers(
    known: list[str], dice: np.random.Generator
) -> tuple[np.ndarray[tuple[int], np.dtype[np.int64]], np.ndarray[tuple[int], np.dtype[np.int8]]]:
    """Numbers to call, aligned: any prefix as often as the other, which is the hardest there is."""
    prefix, length, _ = align_column(pl.Series(known))
    pick = dice.integers(0, len(known), KERNEL_RECORDS)
    digits = np.minimum(15, length[pick].astype(np.int64) + dice.integers(3, 7, KERNEL_RECORDS))
    room = 10 ** (digits - length[pick])
    tail = dice.integers(0, 10**6, KERNEL_RECORDS) % room
    return prefix[pick] + tail * 10 ** (18 - digits), digits.astype(np.int8)


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def one_by_one(decks: Decks, note: Note) -> None:
    """The baseline: the sell and buy legs of a record by the charging core, one record at a time."""
    dice = random.Random(SEED)  # noqa: S311 - figures that can be repeated, no secrets
    sell, buy = (
        (Card(n, "bench", 1, "USD", PrefixTable(deck[0].rows)),)
        for n, deck in enumerate((decks.sells[0], decks.buys[0]))
    )
    calls = [
        ((dice.choice(decks.prefixes) + "123456789")[:13], dice.randrange(600_000))
        for _ in range(ONE_BY_ONE)
    ]

    def work() -> None:
        for called, duration_ms in calls:
            number = normalise(called)
            for cards in (sell, buy):
                match = find_rate(cards, number, CHANGE)
                assert match is not None
                price(match.row.tariff, seconds_of(duration_ms))

    note("cdr_core_one_by_one_rows_per_s", ONE_BY_ONE / _seconds(work), "records/s, both legs by the charging core")  # fmt: skip


# --- a file ----------------------------------------------------------------------------------------


async def day_file(url: str, folder: Path, decks: Decks, records: int, note: Note) -> None:
    """A day's file into a migrated database, by a process of its own.

    Raises:
        RuntimeError: the counts or the money do not add up.
    """
    began = time.perf_counter()
    day = write_day(folder / "day.csv", records, prefixes=decks.prefixes, day=DAY)
    note("cdr_generate_rows_per_s", records / (time.perf_counter() - began), "records/s made up and written")  # fmt: skip
    database = Database(url)
    await database.open()
    try:
        world = await make_world(database, sells=decks.sells, buys=decks.buys, now=CHANGE)
        await charge_live(database, world, day)
        note("cdr_read_file_rows_per_s", records / _seconds(lambda: _read(day.path)), "records/s, reading the file and nothing else")  # fmt: skip
        order = Order(url, str(day.path), NOW, threads=THREADS)
        loaded = await asyncio.to_thread(_load, order)
        note("cdr_file_to_db_rows_per_s", loaded.records / loaded.seconds, f"records/s of {records:,} in the books")  # fmt: skip
        note("cdr_load_cpu_share", loaded.cpu_seconds / loaded.seconds, "cores used by the loading process")  # fmt: skip
        note("cdr_peak_mib", loaded.peak_mib, "MiB at most in the loading process")
        await _check(database, day, world, loaded)
    finally:
        await database.close()
        day.path.unlink(missing_ok=True)


def _read(path: Path) -> None:
    with path.open("rb") as file:
        while file.read(1 << 20):
            pass


def _load(order: Order) -> Loaded:
    command = [sys.executable, "-m", "tollkeeper.cli.bench.cdr_load"]
    done = subprocess.run(  # noqa: S603 - our own program
        [*command, msgspec.json.encode(order).decode()], stdout=subprocess.PIPE, check=True
    )
    return msgspec.json.decode(done.stdout, type=Loaded)


async def _check(database: Database, day: Day, world: CdrWorld, loaded: Loaded) -> None:
    """Speed is worth nothing if records are lost: counts and sums, each against the others."""
    async with database.read() as connection:
        totals = await load_totals(connection)
    pairs: dict[str, tuple[object, object]] = {
        "status": (loaded.status, "done"),
        "records": (loaded.records, day.lines),
        "rated": (loaded.rated, day.plain),
        "matched": (loaded.matched, len(day.live.call_id)),
        "duplicate": (loaded.duplicate, day.duplicates),
        "quarantined": (loaded.quarantined, day.malformed),
        "rows": (totals.usage, day.plain + len(day.live.call_id)),
        "attempts": (totals.attempts, totals.usage),
        "charge": (totals.charge, totals.posted_charge),
        "cost": (totals.cost, totals.posted_cost),
        "customers": (len(world.customers), CUSTOMERS),
    }
    odd = {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}
    if odd:
        raise RuntimeError(f"the load does not add up: {odd}")


# --- the archive -----------------------------------------------------------------------------------


async def archive(folder: Path, records: int, note: Note) -> None:
    """Search one number, one caller and one call over archived records."""
    found = await measure(folder, records=records)
    figures = {name: value for name, value in found.items() if isinstance(value, int | float)}
    for name in ("called_s", "caller_s", "call_id_s"):
        note(f"archive_search_{name}", float(figures[name]), f"s over {records:,} archived records")
    slowest = max(float(figures[name]) for name in ("called_s", "caller_s", "call_id_s"))
    note("archive_search_s", slowest, "s, the slowest of them")
