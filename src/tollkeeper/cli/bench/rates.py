"""Rate tables: lookup with price in 300,000 prefixes, compiling and importing 200,000 rows."""

from __future__ import annotations

import random
import statistics
import time
import tracemalloc
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal

from tollkeeper.cli.bench.engine import NUMBERS
from tollkeeper.core.rating import Tariff, price
from tollkeeper.core.tariff import Card, PrefixTable, RateRow, find_rate
from tollkeeper.services.rates import activate, create_card, import_sheet
from tollkeeper.store.db import Database
from tollkeeper.store.rates import load_card

LOOKUP_ROWS = 300_000
IMPORT_ROWS = 200_000
SEED = 11


@dataclass(frozen=True, slots=True)
class Imported:
    """Seconds to import and activate a sheet, and to compile it as each process does."""

    card_id: int
    import_seconds: float
    compile_seconds: float
    megabytes: float


def prefixes(count: int) -> list[str]:
    """``count`` different prefixes of 2 to 9 digits, clustered as real decks are."""
    dice = random.Random(SEED)  # noqa: S311 - figures that can be repeated, no secrets
    # The short ones make sure that every number of the load finds a rate.
    found = {number[:2] for number in NUMBERS} | {str(n) for n in range(20, 1000)}
    heads = sorted(found)
    while len(found) < count:
        found.add(dice.choice(heads) + str(dice.randrange(10**5, 10**6))[: dice.randint(1, 6)])
    return sorted(found)


def sheet(count: int) -> bytes:
    """A rate sheet of ``count`` rows as a carrier sends it."""
    return "\n".join(_lines(count)).encode()


def _lines(count: int) -> Iterator[str]:
    dice = random.Random(SEED)  # noqa: S311 - as above
    yield "Prefix,Destination,Rate,Increment"
    for number, prefix in enumerate(prefixes(count)):
        yield f"{prefix},Destination {number % 2000},{dice.randrange(20, 5000) / 10000:.4f},{dice.choice(('1/1', '60/1', '6/6', '60/60'))}"


def lookup_microseconds(rounds: int = 100_000) -> float:
    """Median time to find the rate of a number among 300,000 prefixes and to price a call by it."""
    tariffs = [
        Tariff(Decimal(n).scaleb(-4), Decimal(n).scaleb(-4), first, step)
        for n in range(50, 250)
        for first, step in ((1, 1), (60, 1), (6, 6))
    ]
    known = prefixes(LOOKUP_ROWS)
    dice = random.Random(SEED)  # noqa: S311 - as above
    table = PrefixTable(RateRow(p, "bench", dice.choice(tariffs)) for p in known)
    cards = (Card(1, "bench", 1, "USD", table),)
    numbers = [(dice.choice(known) + "123456789")[:13] for _ in range(rounds)]
    now = datetime.now(UTC)
    taken = []
    for _ in range(5):
        began = time.perf_counter()
        for number in numbers:
            match = find_rate(cards, number, now)
            if match is not None:
                price(match.row.tariff, 95)
        taken.append((time.perf_counter() - began) / rounds * 1e6)
    return statistics.median(taken)


async def import_200k(database: Database) -> Imported:
    """Import and activate 200,000 rows through the ordinary use case; then compile them."""
    data = sheet(IMPORT_ROWS)
    now = datetime.now(UTC)
    card = await create_card(database, code="bench", currency="USD", actor="bench", name="Bench")
    began = time.perf_counter()
    report = await import_sheet(
        database, card="bench", data=data, actor="bench", now=now, file_name="bench.csv"
    )
    assert report.version is not None
    await activate(database, card="bench", version=report.version, actor="bench", now=now)
    imported = time.perf_counter() - began
    tracemalloc.start()
    async with database.read() as connection:
        kept = await load_card(connection, card.id)
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept is not None
    assert kept.table.size == IMPORT_ROWS
    began = time.perf_counter()
    async with database.read() as connection:
        await load_card(connection, card.id)
    return Imported(card.id, imported, time.perf_counter() - began, size / 2**20)
