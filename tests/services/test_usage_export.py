"""Exports hold every record once, exactly, in a form that spreadsheets and programs read."""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import pytest_asyncio

from tests.services.usage_rows import DAY, FIRST, NOW, Books, fill
from tollkeeper.errors import Busy, InvalidInput
from tollkeeper.services import usage_export
from tollkeeper.services.archive import ArchivePlace, archive_day
from tollkeeper.services.usage_export import prepare
from tollkeeper.services.usage_files import HEADER, CsvWriter, XlsxWriter, guarded
from tollkeeper.services.usage_search import UsageQuery, UsageView
from tollkeeper.store.db import Database

SPAN = {"since": FIRST, "until": FIRST + timedelta(days=3)}


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


async def exported(database: Database, kind: str, **query: Any) -> bytes:
    zone = query.pop("timezone", None)
    export = await prepare(database, UsageQuery(**query), kind=kind, now=NOW, timezone=zone)
    return b"".join([chunk async for chunk in export.chunks()])


def read_csv(data: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(data.decode("utf-8"), newline="")))


def read_xlsx(data: bytes) -> list[dict[str, Any]]:
    book = openpyxl.load_workbook(io.BytesIO(data), read_only=True)
    rows = []
    for sheet in book.worksheets:
        head, *body = sheet.iter_rows(values_only=True)
        assert tuple(head) == HEADER
        rows += [dict(zip(HEADER, row, strict=False)) for row in body]
    return rows


async def test_csv_has_times_with_their_offset_and_exact_money(
    books: Books, database: Database
) -> None:
    """In the customer's zone, on both sides of the change to summer time."""
    batch = books.batch()
    night = datetime(2026, 3, 29, 0, 59, 59, 999_000, tzinfo=UTC)
    books.add(batch, 1, night, charge=Decimal("123456789012345.00000001"), mos=405, caller="+39 06")
    books.add(
        batch, 2, night + timedelta(seconds=1), answer_at=None, mos=None, sip=None, cost=Decimal(0)
    )
    span = {"since": night, "until": night + timedelta(hours=1)}
    one, two = read_csv(await exported(database, "csv", customer="acme", **span))
    assert tuple(one) == HEADER
    assert one["start"] == "2026-03-29T01:59:59.999+01:00"
    assert two["start"] == "2026-03-29T03:00:00.999+02:00"
    assert (one["charge"], one["sell_currency"]) == ("123456789012345.00000001", "USD")
    assert (one["cost"], one["buy_currency"], two["cost"]) == ("0.31000001", "EUR", "0.00")
    assert (one["customer"], one["vendor"], one["trunk_in"]) == ("acme", "vend", "acme-in")
    assert (one["mos"], two["mos"], two["answer"], two["sip"]) == ("4.05", "", "", "")
    assert (one["caller"], one["called"]) == ("'+39 06", "442071838750")
    other = read_csv(await exported(database, "csv", vendor="vend", timezone="Asia/Tokyo", **span))
    assert other[0]["start"] == "2026-03-29T09:59:59.999+09:00"
    assert read_csv(await exported(database, "csv", **span))[0]["start"].endswith("+00:00")


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("=1+1", "'=1+1"),
        ("+39", "'+39"),
        ("-1", "'-1"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("\t=1", "'\t=1"),
        ("\r=1", "'\r=1"),
        ("\n=1", "'\n=1"),
        ("plain", "plain"),
        ("", ""),
    ],
)
async def test_a_text_is_never_a_formula(
    books: Books, database: Database, text: str, written: str
) -> None:
    assert guarded(text) == written
    books.add(books.batch(), 1, FIRST, call_id=text, destination=text)
    (row,) = read_csv(await exported(database, "csv", **SPAN))
    assert (row["call_id"], row["destination"]) == (written, written)
    (cells,) = read_xlsx(await exported(database, "xlsx", **SPAN))
    # A workbook's XML reads a carriage return as a line feed.
    assert (cells["destination"] or "").replace("\r", "\n") in {written.replace("\r", "\n"), written.replace("\r", "_x000D_")}  # fmt: skip


@pytest.mark.parametrize("kind", ["csv", "xlsx", "parquet"])
async def test_nothing_found_is_a_file_with_a_header(database: Database, kind: str) -> None:
    data = await exported(database, kind, **SPAN)
    if kind == "csv":
        assert data.decode() == ",".join(HEADER) + "\r\n"
    elif kind == "xlsx":
        assert read_xlsx(data) == []
    else:
        assert pq.read_table(pa.BufferReader(data)).schema.names == list(HEADER)


async def test_a_workbook_keeps_numbers_of_telephones_and_exact_amounts(
    books: Books, database: Database
) -> None:
    batch = books.batch()
    books.add(
        batch, 1, FIRST, called="004420", charge=Decimal("0.1"), cost=Decimal("12345678.12345678")
    )
    (row,) = read_xlsx(await exported(database, "xlsx", **SPAN))
    assert (row["called"], row["charge"]) == ("004420", 0.1)
    assert row["cost"] == "12345678.12345678"
    assert (row["duration_ms"], row["start"]) == (61_500, "2026-03-01T00:00:00.000+00:00")


def test_a_full_sheet_is_followed_by_another() -> None:
    values: dict[str, Any] = dict.fromkeys(HEADER, "")
    values |= {"start": FIRST, "answer": None, "day": DAY, "charge": Decimal(1), "cost": Decimal(0)}
    for name in (
        "duration_ms",
        "batch",
        "sell_billed",
        "buy_billed",
        "sell_card_version",
        "buy_card_version",
    ):
        values[name] = 0
    values |= dict.fromkeys(("sip", "q850", "pdd_ms", "mos"))
    rows = [UsageView(**{**values, "line": n}) for n in range(25)]
    writer = XlsxWriter(ZoneInfo("UTC"), sheet_rows=11)
    assert writer.add(rows[:13]) + writer.add(rows[13:]) == b""
    data = b"".join(writer.finish())
    writer.close()
    assert openpyxl.load_workbook(io.BytesIO(data)).sheetnames == ["usage 1", "usage 2", "usage 3"]
    assert [row["line"] for row in read_xlsx(data)] == list(range(25))


async def test_parquet_keeps_types(books: Books, database: Database) -> None:
    books.add(books.batch(), 1, FIRST + timedelta(microseconds=1), mos=405)
    table = pq.read_table(
        pa.BufferReader(await exported(database, "parquet", customer="acme", **SPAN))
    )
    assert table.schema.field("start").type == pa.timestamp("us", tz="Europe/Rome")
    assert table.schema.field("charge").type == pa.decimal128(28, 8)
    (row,) = table.to_pylist()
    assert row["start"] == FIRST + timedelta(microseconds=1)
    assert (row["charge"], row["mos"], row["called"]) == (Decimal("0.62"), 405, "442071838750")


@pytest.mark.parametrize("kind", ["csv", "xlsx", "parquet"])
async def test_an_export_has_every_record_once_whatever_is_archived(
    books: Books, database: Database, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(usage_export, "STEP_ROWS", 7)
    for n in range(3):
        fill(books, DAY + timedelta(days=n))
    undone = books.batch()
    revised = books.add(books.batch(), 1, FIRST)
    books.add(undone, 1, FIRST)
    books.undo(undone)
    books.revise(revised, 0, books.batch("rerate"), "7.5")

    async def rows(**query: Any) -> list[tuple[str, str, str]]:
        data = await exported(database, kind, **query)
        if kind == "csv":
            given: list[dict[str, Any]] = read_csv(data)  # type: ignore[assignment]
        elif kind == "xlsx":
            given = read_xlsx(data)
        else:
            given = pq.read_table(pa.BufferReader(data)).to_pylist()
        return [
            (str(row["batch"]), str(row["line"]), f"{Decimal(str(row['charge'])):.8f}")
            for row in given
        ]

    whole, one = await rows(**SPAN), await rows(caller="391")
    assert len(whole) == 151
    assert len(one) == 30
    assert (str(revised["batch_id"]), "1", "7.50000000") in whole
    place = ArchivePlace((tmp_path / "archive").as_uri(), tmp_path / "work")
    await archive_day(database, place, DAY, now=NOW)
    await archive_day(database, place, DAY + timedelta(days=2), now=NOW)
    late = books.add(books.batch(), 1, FIRST + timedelta(seconds=5, milliseconds=500))
    after = await rows(**SPAN)
    assert [row for row in after if row[0] != str(late["batch_id"])] == whole
    # In its place, not at the end.
    assert [row[0] for row in after].index(str(late["batch_id"])) == 7
    assert await rows(caller="391") == one
    part = {"since": FIRST + timedelta(seconds=30), "until": FIRST + timedelta(days=1, seconds=10)}
    assert len(await rows(**part)) == 30


async def test_progress_is_told_and_only_some_exports_run_at_once(
    books: Books, database: Database
) -> None:
    fill(books)
    export = await prepare(database, UsageQuery(**SPAN), kind="csv", now=NOW)  # type: ignore[arg-type]
    told: list[int] = []
    running = [export.chunks(told.append) for _ in range(usage_export.EXPORTS_MAX)]
    for chunks in running:
        assert await anext(chunks)
    with pytest.raises(Busy):
        await anext(export.chunks())
    for chunks in running:
        async for _ in chunks:
            pass
    assert told == [50, 50]
    assert await anext(export.chunks())


async def test_an_export_that_is_given_up_frees_its_place(books: Books, database: Database) -> None:
    fill(books)
    export = await prepare(database, UsageQuery(**SPAN), kind="xlsx", now=NOW)  # type: ignore[arg-type]
    for _ in range(usage_export.EXPORTS_MAX + 1):
        chunks = export.chunks()
        assert (await anext(chunks)).startswith(b"PK")
        await chunks.aclose()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"kind": "pdf"}, "format"),
        ({"kind": "csv", "timezone": "Mars/Olympus"}, "timezone"),
    ],
)
async def test_a_wrong_form_is_refused(
    database: Database, arguments: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidInput) as caught:
        await prepare(database, UsageQuery(), now=NOW, **arguments)
    assert caught.value.field == field


def test_lines_of_csv_end_as_the_standard_says() -> None:
    assert b"".join(CsvWriter(ZoneInfo("UTC")).finish()).endswith(b"line\r\n")
