"""Records are found wherever they lie, in one order, at their present value."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.services.usage_rows import FIRST, NOW, Books, all_pages, found, names_of
from tollkeeper.errors import InvalidInput
from tollkeeper.services import usage_search
from tollkeeper.services.archive import ArchivePlace, archive_day
from tollkeeper.services.usage_margins import report_in
from tollkeeper.services.usage_search import UsageQuery, read_cursor, report, search
from tollkeeper.store.db import Database

DAY = FIRST.date()
EVERYTHING = {"since": FIRST - timedelta(days=1), "until": FIRST + timedelta(days=20)}


@pytest.fixture
def books(database_url: str) -> Iterator[Books]:
    made = Books(database_url)
    yield made
    made.world.close()


@pytest_asyncio.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    made = Database(database_url, size=3)
    await made.open()
    yield made
    await made.close()


@pytest.fixture
def place(tmp_path: Path) -> ArchivePlace:
    return ArchivePlace((tmp_path / "archive").as_uri(), tmp_path / "work")


async def test_a_record_is_shown_with_names_for_its_ids(books: Books, database: Database) -> None:
    batch = books.batch()
    books.add(batch, 7, FIRST + timedelta(hours=1))
    (view,) = (await search(database, UsageQuery(**EVERYTHING), now=NOW)).items
    assert (view.customer, view.vendor) == ("acme", "vend")
    assert (view.trunk_in, view.trunk_out) == ("acme-in", "vend-out")
    assert (view.charge, view.sell_currency) == (Decimal("0.62"), "USD")
    assert (view.cost, view.buy_currency) == (Decimal("0.31000001"), "EUR")
    assert (view.sell_card, view.sell_card_version) == ("retail-usd", 1)
    assert (view.buy_card, view.buy_card_version) == ("", 0)
    assert (view.switch, view.file, view.batch, view.line) == ("sw1", "march.csv", batch, 7)


async def test_each_parameter_narrows_the_search(books: Books, database: Database) -> None:
    batch = books.batch()
    books.add(batch, 1, FIRST, called="4911", caller="101", call_id="a")
    books.add(batch, 2, FIRST + timedelta(hours=5), called="4912", caller="101", call_id="b")
    books.add(
        batch, 3, FIRST + timedelta(days=9), called="4911", caller="102", call_id="c",
        customer_id=books.beta.id, vendor_id=0,
    )  # fmt: skip

    async def lines(**query: Any) -> list[int]:
        return [line for _, line in await found(database, **query)]

    assert await lines(called="4911") == [1, 3]
    assert await lines(called="+49 11") == [1, 3]
    assert await lines(called="491*", **EVERYTHING) == [1, 2, 3]
    assert await lines(called="4912*", **EVERYTHING) == [2]
    assert await lines(caller="101") == [1, 2]
    assert await lines(caller="101", called="4912") == [2]
    assert await lines(call_id="c") == [3]
    assert await lines(customer="beta", **EVERYTHING) == [3]
    assert await lines(vendor="vend", **EVERYTHING) == [1, 2]
    assert await lines(called="4911", since=FIRST + timedelta(seconds=1)) == [3]
    assert await lines(since=FIRST, until=FIRST + timedelta(hours=5)) == [1]
    assert await lines(called="9") == []


async def test_without_a_time_a_list_is_of_the_last_day(books: Books, database: Database) -> None:
    batch = books.batch()
    books.add(batch, 1, NOW - timedelta(days=2))
    books.add(batch, 2, NOW - timedelta(hours=2))
    assert await found(database) == [(batch, 2)]
    assert await found(database, called="442071838750") == [(batch, 1), (batch, 2)]


async def test_an_empty_book_answers_with_an_empty_page(database: Database) -> None:
    page = await search(database, UsageQuery(since=FIRST), now=NOW)
    assert (page.items, page.next) == ((), None)


async def test_records_of_a_batch_that_was_taken_back_do_not_exist(
    books: Books, database: Database, place: ArchivePlace
) -> None:
    """Also when the batch is taken back after its records were archived."""
    kept, gone, later = books.batch(), books.batch(), books.batch()
    for batch in (kept, gone, later):
        books.add(batch, 1, FIRST)
    books.undo(gone)
    assert await found(database, **EVERYTHING) == [(kept, 1), (later, 1)]
    await archive_day(database, place, DAY, now=NOW)
    assert await found(database, **EVERYTHING) == [(kept, 1), (later, 1)]
    books.undo(later)
    for query in (EVERYTHING, {"caller": "390612345678"}, {"called": "442071838750"}):
        assert await found(database, **query) == [(kept, 1)]
    assert await found(database, call_id=f"call-{later}-1") == []


async def test_the_last_re_rating_that_was_not_taken_back_is_the_value_of_a_leg(
    books: Books, database: Database, place: ArchivePlace
) -> None:
    batch = books.batch()
    row = books.add(batch, 1, FIRST)
    books.add(batch, 2, FIRST)
    first, second, third = (books.batch("rerate") for _ in range(3))
    books.revise(row, 0, first, "0.7")
    books.revise(row, 0, second, "0.8", destination="City of London")
    books.revise(row, 0, third, "0.9")
    books.revise(row, 1, second, "0.4")
    books.undo(third)

    async def check() -> None:
        one, two = (await search(database, UsageQuery(**EVERYTHING), now=NOW)).items
        assert (one.charge, one.cost) == (Decimal("0.8"), Decimal("0.4"))
        assert (one.sell_prefix, one.sell_billed, one.destination) == ("4420", 70, "City of London")
        assert (one.buy_prefix, one.buy_card) == ("4420", "retail-usd")
        assert (two.charge, two.cost) == (Decimal("0.62"), Decimal("0.31000001"))

    await check()
    await archive_day(database, place, DAY, now=NOW)
    await check()
    books.undo(second)
    one, _ = (await search(database, UsageQuery(**EVERYTHING), now=NOW)).items
    assert (one.charge, one.cost, one.destination) == (
        Decimal("0.7"),
        Decimal("0.31000001"),
        "London",
    )


# --- one order over partitions and archive -------------------------------------------------------


def _scattered(books: Books, seed: int) -> list[dict[str, Any]]:
    dice = random.Random(seed)
    batches = [books.batch() for _ in range(4)]
    rows = []
    for line in range(1, 301):
        start = FIRST + timedelta(seconds=dice.randrange(6 * 86_400 // 30) * 30)
        rows.append(
            books.row(
                dice.choice(batches),
                line,
                start,
                called=f"44{dice.randrange(6)}",
                caller=f"39{dice.randrange(5)}",
                call_id=f"id{dice.randrange(30)}",
                customer_id=dice.choice((books.acme.id, books.beta.id)),
            )
        )
    books.add_all(rows)
    books.undo(batches[2])
    return [row for row in rows if row["batch_id"] != batches[2]]


def _naive(rows: list[dict[str, Any]], **wanted: Any) -> list[tuple[int, int]]:
    since, until = wanted.pop("since", FIRST), wanted.pop("until", NOW)
    prefix = wanted.pop("prefix", "")
    hits = [
        row
        for row in rows
        if since <= row["start_at"] < until
        and row["called"].startswith(prefix)
        and all(row[name] == value for name, value in wanted.items())
    ]
    hits.sort(key=lambda row: (row["start_at"], row["batch_id"], row["line"]))
    return [(row["batch_id"], row["line"]) for row in hits]


@pytest.mark.parametrize("archived", [(), (0, 1, 4), (0, 1, 2, 3, 4, 5)])
@pytest.mark.parametrize("limit", [7, 1000])
async def test_pages_over_partitions_and_archive_are_one_ordered_list(
    books: Books, database: Database, place: ArchivePlace, archived: tuple[int, ...], limit: int
) -> None:
    """Every search, page by page, is what sorting and filtering a plain list gives."""
    rows = _scattered(books, seed=limit)
    for number in archived:
        await archive_day(database, place, DAY + timedelta(days=number), now=NOW)
    assert len(books.partitions()) == 6 - len(archived)
    # Records of an archived day that come late lie in a partition again.
    late = [books.row(books.batch(), n, FIRST + timedelta(hours=3 * n), called="441") for n in range(1, 9)]  # fmt: skip
    books.add_all(late)
    rows += late
    some = {"since": FIRST + timedelta(hours=30), "until": FIRST + timedelta(hours=100)}
    for query, naive in (
        ({"since": FIRST}, {}),
        (some, some),
        ({"called": "441"}, {"called": "441"}),
        ({"caller": "393"}, {"caller": "393"}),
        ({"caller": "393", "called": "442", **some}, {"caller": "393", "called": "442", **some}),
        ({"call_id": "id7"}, {"call_id": "id7"}),
        ({"called": "44*", "since": FIRST, "until": FIRST + timedelta(days=9)}, {"prefix": "44"}),
        ({"customer": "beta", "since": FIRST}, {"customer_id": books.beta.id}),
        ({"caller": "391", "customer": "acme"}, {"caller": "391", "customer_id": books.acme.id}),
    ):
        given = await all_pages(database, limit=limit, **query)
        expected = _naive(rows, **naive)
        assert names_of(given) == expected, query
        assert expected, query


async def test_a_page_that_takes_too_long_is_short_and_goes_on(
    books: Books, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = _scattered(books, seed=3)
    monkeypatch.setattr(usage_search, "PAGE_SECONDS", -1.0)
    end = FIRST + timedelta(hours=12)
    page = await search(database, UsageQuery(since=FIRST, until=end), now=NOW, limit=1000)
    assert page.next is not None
    assert len(page.items) < 20
    given = await all_pages(database, limit=1000, since=FIRST, until=end)
    assert names_of(given) == _naive(rows, until=end)
    assert len(given) > 10


async def test_more_records_of_a_caller_than_are_looked_up_at_once_are_all_found(
    books: Books, database: Database, place: ArchivePlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tollkeeper.store import archive_search

    monkeypatch.setattr(archive_search, "CANDIDATES", 5)
    batch = books.batch()
    rows = [
        books.row(batch, n, FIRST + timedelta(minutes=n), called=f"44{n % 9}") for n in range(60)
    ]
    # A condition that the small file does not know leaves few of what it names.
    rows[50]["customer_id"] = rows[51]["customer_id"] = books.beta.id
    books.add_all(rows)
    await archive_day(database, place, DAY, now=NOW)
    assert await found(database, caller="390612345678") == _naive(rows)
    assert await found(database, caller="390612345678", customer="beta", limit=1) == [(batch, 50)]


async def test_one_number_is_found_through_its_index(books: Books) -> None:
    """Without reading the partition: a search of a month must not read a month."""
    batch = books.batch()
    books.days(DAY)
    row = books.row(batch, 0, FIRST)
    books.add_all([row])
    books.world.sql(
        "INSERT INTO usage SELECT day, batch_id, n, start_at + n * interval '1 second', answer_at, duration_ms,"
        " 'c' || n, leg, (390000000000 + n)::text, (440000000000 + n)::text, service, customer_id, vendor_id, trunk_in,"
        " trunk_out, sip, q850, pdd_ms, mos, state, session_id, destination, sell_wallet, sell_version, sell_row,"
        " sell_prefix, sell_billed, charge, buy_wallet, buy_version, buy_row, buy_prefix, buy_billed, cost"
        " FROM usage, generate_series(1, 40000) AS n"
    )
    books.world.sql("ANALYZE usage")
    books.world.sql("SELECT brin_summarize_new_values(indexrelid) FROM pg_index WHERE indrelid = 'usage_20260301'::regclass")  # fmt: skip
    from tollkeeper.store.db import queries
    from tollkeeper.store.usage_search import UsageFilter

    for name, value in (
        ("called", "440000031000"),
        ("caller", "390000031000"),
        ("call_id", "c31000"),
    ):
        wanted = UsageFilter(since=FIRST, until=FIRST + timedelta(days=1), **{name: value})  # type: ignore[arg-type]
        cursor = books.world._connection.execute(
            "EXPLAIN " + queries("usage_search")["rows"], wanted.values(10), prepare=False
        )
        plan = "\n".join(row["QUERY PLAN"] for row in cursor.fetchall())
        assert "Bitmap Index Scan on usage_20260301_" in plan, plan
        assert f"Index Cond: (({name} = '{value}'::text)" in plan, plan
        assert "usage_20260302" not in plan


# --- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"called": "44*"}, None),
        ({"called": "44*", "since": NOW - timedelta(days=32), "until": NOW}, "called"),
        ({"called": "*"}, "called"),
        ({"called": "ab*", "since": NOW - timedelta(days=1)}, "called"),
        ({"called": ""}, "called"),
        ({"caller": "x" * 256}, "caller"),
        ({"call_id": " "}, "call_id"),
        ({"customer": "nobody"}, "customer"),
        ({"vendor": "nobody"}, "vendor"),
        ({"since": NOW, "until": NOW}, "from"),
        ({"since": datetime(2026, 1, 1)}, "from"),  # noqa: DTZ001 - that is what is refused
        ({"until": datetime(1999, 1, 1, tzinfo=UTC)}, "to"),
        ({"after": "x"}, "after"),
        ({"after": "1.2"}, "after"),
        ({"after": "99999999999999999.1.1"}, "after"),
        ({"after": "1.9999999999999999999.1"}, "after"),
    ],
)
async def test_a_wrong_parameter_is_named(
    database: Database, query: dict[str, Any], field: str | None
) -> None:
    if field is None:
        await search(database, UsageQuery(**query), now=NOW)
        return
    with pytest.raises(InvalidInput) as caught:
        await search(database, UsageQuery(**query), now=NOW)
    assert caught.value.field == field


def test_a_cursor_is_the_place_of_a_record() -> None:
    key = (datetime(2026, 3, 1, 12, 30, 15, 123456, tzinfo=UTC), 2**40, 7)
    assert read_cursor(usage_search.cursor_of(key)) == key


# --- hourly sums ---------------------------------------------------------------------------------


def _hour(books: Books, hour: int, **values: Any) -> None:
    start = FIRST + timedelta(hours=hour)
    usual: dict[str, Any] = {
        "day": start.date(), "hour": start, "batch_id": 1, "customer_id": books.acme.id, "vendor_id": books.vend.id,
        "trunk_in": books.trunk_in, "trunk_out": books.trunk_out, "service": "voice", "destination": "UK",
        "prefix": "44", "sell_currency": "USD", "buy_currency": "USD", "attempts": 10, "answers": 4, "effective": 7,
        "duration_ms": 360_000, "sell_billed": 400, "buy_billed": 380, "pdd_ms": 9000, "pdd_count": 6,
        "revenue": Decimal("4.5"), "cost": Decimal("3.25"),
    }  # fmt: skip
    given = {**usual, **values}
    books.days(start.date())
    books.world.sql(
        f"INSERT INTO usage_hour ({', '.join(given)}) VALUES ({', '.join(['%s'] * len(given))})",
        *given.values(),
    )


async def test_hourly_sums_are_grouped_by_what_is_asked_for(
    books: Books, database: Database
) -> None:
    _hour(books, 1)
    _hour(books, 1, batch_id=2)
    _hour(
        books,
        2,
        customer_id=books.beta.id,
        attempts=0,
        answers=0,
        effective=0,
        duration_ms=0,
        pdd_count=0,
    )
    span = {"since": FIRST, "until": FIRST + timedelta(days=1)}
    acme, beta = await report(database, now=NOW, by=["customer"], **span)  # type: ignore[arg-type]
    assert (acme.customer, acme.attempts, acme.revenue) == ("acme", 20, Decimal(9))
    assert (acme.asr, acme.ner, acme.acd_ms) == (Decimal("40.00"), Decimal("70.00"), 90_000)
    assert (acme.pdd_average_ms, acme.margin) == (1500, Decimal("2.5"))
    assert (beta.customer, beta.asr, beta.acd_ms, beta.pdd_average_ms) == ("beta", None, None, None)
    hours = await report(database, now=NOW, by=["hour", "vendor"], **span)  # type: ignore[arg-type]
    assert [(h.hour, h.vendor, h.customer) for h in hours] == [
        (FIRST + timedelta(hours=1), "vend", ""),
        (FIRST + timedelta(hours=2), "vend", ""),
    ]
    late = await report(database, now=NOW, by=[], since=FIRST + timedelta(hours=1, minutes=59))
    assert [h.attempts for h in late] == [20]


async def test_sums_keep_currencies_apart_and_leave_out_what_was_taken_back(
    books: Books, database: Database
) -> None:
    _hour(books, 1)
    _hour(books, 1, sell_currency="EUR")
    _hour(books, 1, destination="gone")
    negative = {
        name: -value
        for name, value in (
            ("attempts", 10), ("answers", 4), ("effective", 7), ("duration_ms", 360_000), ("sell_billed", 400),
            ("buy_billed", 380), ("pdd_ms", 9000), ("pdd_count", 6), ("revenue", Decimal("4.5")), ("cost", Decimal("3.25")),
        )
    }  # fmt: skip
    _hour(books, 1, destination="gone", batch_id=9, **negative)
    sums = await report(database, now=NOW, by=["destination"], since=FIRST)
    assert [(s.destination, s.sell_currency, s.margin) for s in sums] == [
        ("UK", "EUR", None),
        ("UK", "USD", Decimal("1.25")),
    ]
    assert (
        len(await report(database, now=NOW, by=["destination"], since=FIRST, limit=1, skip=1)) == 1
    )


async def test_sums_are_brought_into_one_currency_by_the_rate_of_each_day(
    books: Books, database: Database
) -> None:
    """4.50 USD at 0.80, then at 0.90, are 3.60 + 4.05 = 7.65 EUR; 3.25 USD then 2 EUR cost 2.60 + 2 = 4.60.

    The margin is 3.05, 39.87 % (305 / 765). GBP has no rate into EUR and stays, PLN had one too long ago.
    """
    for day, base, rate in (
        ("2026-03-01", "USD", "0.8"),
        ("2026-03-02", "USD", "0.9"),
        ("2026-02-17", "PLN", "0.2"),
    ):
        books.world.sql(
            "INSERT INTO fx_rate (base, quote, day, rate, source) VALUES (%s, 'EUR', %s, %s, 't')",
            base, day, Decimal(rate),
        )  # fmt: skip
    _hour(books, 1)
    _hour(books, 25, buy_currency="EUR", cost=Decimal(2))
    _hour(books, 2, sell_currency="GBP")
    _hour(books, 3, sell_currency="EUR", buy_currency="PLN")
    found = await report_in(database, "EUR", now=NOW, by=["customer"], since=FIRST)
    assert found.unconverted == ("GBP", "PLN")
    assert [
        (s.day, s.sell_currency, s.buy_currency, s.attempts, s.revenue, s.cost, s.margin, s.margin_percent)
        for s in found.groups
    ] == [
        (None, "EUR", "EUR", 20, Decimal("7.65"), Decimal("4.60"), Decimal("3.05"), Decimal("39.87")),
        (None, "EUR", "PLN", 10, Decimal("4.5"), Decimal("3.25"), None, None),
        (None, "GBP", "USD", 10, Decimal("4.5"), Decimal("3.25"), None, None),
    ]  # fmt: skip
    hours = await report_in(database, "EUR", now=NOW, by=["hour"], since=FIRST, limit=1, skip=1)
    assert [(s.hour, s.sell_currency) for s in hours.groups] == [
        (FIRST + timedelta(hours=2), "GBP")
    ]
    (seen,) = (
        await report_in(
            database,
            "USD",
            now=NOW,
            by=["day"],
            since=FIRST + timedelta(days=1),
            scope=books.acme.id,
        )
    ).groups
    assert (seen.day, seen.revenue, seen.cost, seen.buy_currency) == (
        DAY + timedelta(days=1),
        Decimal("4.5"),
        0,
        "",
    )
    with pytest.raises(InvalidInput) as caught:
        await report_in(database, "euro", now=NOW, by=[])
    assert caught.value.field == "currency"


async def test_sums_by_something_unknown_are_refused(database: Database) -> None:
    with pytest.raises(InvalidInput) as caught:
        await report(database, now=NOW, by=["colour"])
    assert caught.value.field == "by"
