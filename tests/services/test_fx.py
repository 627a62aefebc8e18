"""Exchange rates: set, imported, corrected, looked up by day."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pytest

from tests.support import World, runtime, until
from tollkeeper.core.plans import Exchange
from tollkeeper.errors import InvalidInput
from tollkeeper.services import fx
from tollkeeper.services.fx_book import FxBook
from tollkeeper.store.db import Database
from tollkeeper.store.fx import DatedRate

MARCH = date(2026, 3, 2)


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    made = Database(database_url, size=2)
    await made.open()
    yield made
    await made.close()


async def put(database: Database, day: date, rate: str, pair: str = "EURUSD") -> DatedRate:
    return await fx.set_rate(
        database, base=pair[:3], quote=pair[3:], day=day, rate=Decimal(rate), actor="t"
    )


async def test_a_rate_is_kept_by_day_and_the_newest_comes_first(database: Database) -> None:
    await put(database, date(2026, 2, 27), "1.0801")
    made = await put(database, MARCH, "1.0847")
    assert (made.rate, made.source) == (Decimal("1.0847"), "set")
    assert [rate.day for rate in await fx.list_rates(database)] == [MARCH, date(2026, 2, 27)]
    (then,) = await fx.list_rates(database, base="EUR", day=date(2026, 3, 1))
    assert then.rate == Decimal("1.0801")
    assert await fx.list_rates(database, quote="GBP") == []
    assert await fx.list_rates(database, day=date(2026, 1, 1)) == []


async def test_a_correction_replaces_the_day_and_both_are_in_the_audit_trail(
    database: Database, database_url: str
) -> None:
    await put(database, MARCH, "1.0847")
    await put(database, MARCH, "1.0857")
    (rate,) = await fx.list_rates(database)
    assert rate.rate == Decimal("1.0857")
    with World(database_url) as world:
        trail = world.sql(
            "SELECT detail->>'rate' AS rate FROM audit WHERE action = 'fx.set' ORDER BY id"
        )
    assert [row["rate"] for row in trail] == ["1.0847", "1.0857"]


@pytest.mark.parametrize(
    ("field", "changes"),
    [
        ("base", {"base": "euro"}),
        ("quote", {"quote": "EUR"}),
        ("day", {"day": date(1066, 1, 1)}),
        ("rate", {"rate": Decimal(0)}),
        ("rate", {"rate": Decimal(-1)}),
        ("rate", {"rate": Decimal("NaN")}),
        ("rate", {"rate": Decimal("1E-13")}),
        ("rate", {"rate": Decimal("1E+15")}),
    ],
)
async def test_what_is_no_rate_is_refused(
    database: Database, field: str, changes: dict[str, object]
) -> None:
    values = {"base": "EUR", "quote": "USD", "day": MARCH, "rate": Decimal(1), **changes}
    with pytest.raises(InvalidInput) as caught:
        await fx.set_rate(database, actor="t", **values)  # type: ignore[arg-type]
    assert caught.value.field == field
    assert await fx.list_rates(database) == []


async def test_an_import_says_what_is_new_corrected_and_refused(database: Database) -> None:
    await put(database, MARCH, "1.0847")
    await put(database, date(2026, 3, 3), "1.1")
    text = (
        "base,quote,day,rate\nEUR,USD,2026-03-02,1.0847\nEUR,USD,2026-03-03,1.09\n"
        "EUR,USD,2026-03-04,1.08\nEUR,USD,yesterday,1\n"
    )
    report = await fx.import_rates(database, text.encode(), actor="t")
    assert (report.given, report.added, report.corrected, report.unchanged) == (3, 1, 1, 1)
    assert (report.first_day, report.last_day) == (MARCH, date(2026, 3, 4))
    assert [bad.line for bad in report.refused] == [5]
    (newest, *_) = await fx.list_rates(database)
    assert (newest.rate, newest.source) == (Decimal("1.08"), "file")
    with pytest.raises(InvalidInput, match="every one of the 1 line"):
        await fx.import_rates(database, b"base,quote,day,rate\nEUR,USD,today,1\n", actor="t")


async def test_very_many_rates_go_in_at_once(database: Database) -> None:
    first = date(2000, 1, 1)
    lines = [f"EUR,USD,{first + timedelta(days=n)},1.{n:04d}" for n in range(9000)]
    report = await fx.import_rates(database, "\n".join(lines).encode(), actor="t")
    assert (report.given, report.added) == (9000, 9000)
    found: list[DatedRate] = []
    while page := await fx.list_rates(
        database,
        limit=4000,
        before=(found[-1].day, found[-1].base, found[-1].quote) if found else None,
    ):
        found += page
    assert len(found) == 9000 == len({rate.day for rate in found})


def rate_of(exchange: Exchange, base: str, quote: str) -> Decimal | None:
    found = exchange(base, quote)
    return None if found is None else found.rate


def test_the_book_gives_the_rates_of_each_day() -> None:
    book = FxBook(
        [
            DatedRate("EUR", "USD", date(2026, 3, 2), Decimal("1.25"), "ecb"),
            DatedRate("EUR", "USD", date(2026, 3, 1), Decimal("1.2"), "ecb"),
        ]
    )
    assert rate_of(book.exchange(date(2026, 3, 1)), "EUR", "USD") == Decimal("1.2")
    assert rate_of(book.exchange(date(2026, 3, 2)), "USD", "EUR") == Decimal("0.8")
    assert rate_of(book.exchange(date(2026, 2, 28)), "EUR", "USD") is None
    assert rate_of(book.exchange(date(2026, 5, 1)), "EUR", "USD") is None
    assert rate_of(book.exchange(date(2026, 3, 2)), "GBP", "USD") is None
    for day in range(1, 29):
        assert rate_of(book.exchange(date(2026, 3, day)), "EUR", "EUR") == 1


async def test_every_process_hears_of_a_new_rate_and_of_office_codes(database_url: str) -> None:
    """The directory reads them again when it is told, not only at the start."""
    today = datetime.now(UTC).date()
    with World(database_url):
        async with runtime(database_url) as parts:
            directory = parts.directory
            assert rate_of(directory.exchange(today), "EUR", "USD") is None
            await put(parts.database, today, "1.25")
            await until(lambda: rate_of(directory.exchange(today), "EUR", "USD") == Decimal("1.25"))
            report = await fx.import_places(
                parts.database, b"npa,nxx,state\n212,555,NY\n213,555,CA\n", actor="t"
            )
            assert (report.given, report.changed, report.known) == (2, 2, 2)
            await until(lambda: dict(directory.places) == {"212555": "NY", "213555": "CA"})
            report = await fx.import_places(
                parts.database, b"npanxx,state\n212555,NY\n", actor="t", replace=True
            )
            assert report.known == 1
            await until(lambda: dict(directory.places) == {"212555": "NY"})
