"""The routes of usage records: search by pages, export as a file, sums by the hour."""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncIterator
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.servers.management import Api, client_of, problem
from tests.services.usage_rows import DAY, FIRST, NOW, Books, fill
from tests.support import runtime
from tollkeeper.services.archive import ArchivePlace, archive_day

SPAN = {"from": "2026-03-01", "to": "2026-03-02T00:00:00Z"}


@pytest_asyncio.fixture
async def api(database_url: str) -> AsyncIterator[Api]:
    books = Books(database_url)
    token = books.world.key("read")
    async with (
        runtime(database_url, clock=lambda: NOW) as parts,
        client_of(parts, token) as client,
    ):
        made = Api(books.world, parts, client)
        made.books = books  # type: ignore[attr-defined]
        yield made
    books.world.close()


async def search(api: Api, **query: Any) -> dict[str, Any]:
    answer = await api.call("GET", "/v1/usage", params=query)
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


async def test_records_come_page_by_page_from_partitions_and_archive(
    api: Api, tmp_path: Path
) -> None:
    books: Books = api.books  # type: ignore[attr-defined]
    names = fill(books)
    place = ArchivePlace((tmp_path / "archive").as_uri(), tmp_path / "work")
    await archive_day(api.parts.database, place, DAY, now=NOW)
    late = books.add(books.batch(), 1, FIRST + timedelta(hours=1))
    given: list[tuple[int, int]] = []
    page: dict[str, Any] = {"next": ""}
    while page["next"] is not None:
        page = await search(api, **SPAN, limit=20, after=page["next"])
        given += [(item["batch"], item["line"]) for item in page["items"]]
    assert given == [*names, (late["batch_id"], 1)]


async def test_a_record_is_shown_whole(api: Api) -> None:
    books: Books = api.books  # type: ignore[attr-defined]
    row = books.add(books.batch(), 7, FIRST)
    (item,) = (await search(api, call_id=row["call_id"]))["items"]
    assert item == {
        "start": "2026-03-01T00:00:00Z", "answer": "2026-03-01T00:00:03Z", "duration_ms": 61_500,
        "call_id": row["call_id"], "leg": "", "caller": "390612345678", "called": "442071838750", "service": "voice",
        "destination": "United Kingdom", "customer": "acme", "trunk_in": "acme-in", "vendor": "vend",
        "trunk_out": "vend-out", "state": "rated", "sip": 200, "q850": 16, "pdd_ms": 1200, "mos": "4.12",
        "sell_card": "retail-usd", "sell_card_version": 1, "sell_prefix": "44", "sell_billed": 62, "charge": "0.62",
        "sell_currency": "USD", "buy_card": "", "buy_card_version": 0, "buy_prefix": "442", "buy_billed": 62,
        "cost": "0.31000001", "buy_currency": "EUR", "session_id": "", "switch": "sw1", "file": "march.csv",
        "day": "2026-03-01", "batch": row["batch_id"], "line": 7,
    }  # fmt: skip


async def test_each_parameter_of_a_search_is_understood(api: Api) -> None:
    books: Books = api.books  # type: ignore[attr-defined]
    batch = books.batch()
    books.add(batch, 1, FIRST, called="4911", caller="101", customer_id=books.beta.id)
    books.add(batch, 2, FIRST, called="4922", caller="102", vendor_id=0)
    for query, line in (
        ({"called": "4911"}, 1),
        ({"called": "492*", **SPAN}, 2),
        ({"caller": "101"}, 1),
        ({"customer": "acme", **SPAN}, 2),
        ({"vendor": "vend", **SPAN}, 1),
    ):
        assert [item["line"] for item in (await search(api, **query))["items"]] == [line], query


@pytest.mark.parametrize(
    ("path", "query", "field"),
    [
        ("", {"called": "44*", "from": "2026-01-01", "to": "2026-03-01"}, "called"),
        ("", {"from": "yesterday"}, "from"),
        ("", {"from": "2026-03-02", "to": "2026-03-01"}, "from"),
        ("", {"customer": "nobody"}, "customer"),
        ("", {"after": "x"}, "after"),
        ("", {"limit": "0"}, "limit"),
        ("", {"colour": "red"}, "colour"),
        ("/export", {"format": "pdf"}, "format"),
        ("/export", {"timezone": "Mars/Olympus"}, "timezone"),
        ("/export", {"vendor": "nobody"}, "vendor"),
        ("/report", {"by": "colour"}, "by"),
        ("/report", {"by": "day,"}, "by"),
    ],
)
async def test_a_wrong_parameter_is_named(
    api: Api, path: str, query: dict[str, str], field: str
) -> None:
    answer = await api.call("GET", f"/v1/usage{path}", params=query)
    assert (answer.status_code, answer.json()["field"]) == (422, field), answer.text


@pytest.mark.parametrize("path", ["", "/export", "/report"])
async def test_only_a_key_that_may_read_is_let_in(api: Api, path: str) -> None:
    token = api.world.key("charge")
    await api.parts.directory.load()
    async with client_of(api.parts, token) as client:
        problem(await client.get(f"/v1/usage{path}"), 403, "scope_missing")


async def test_an_export_is_a_file_with_a_name(api: Api) -> None:
    books: Books = api.books  # type: ignore[attr-defined]
    names = fill(books)
    answer = await api.call("GET", "/v1/usage/export", params={**SPAN, "customer": "acme"})
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert answer.headers["content-disposition"] == 'attachment; filename="usage-acme.csv"'
    rows = list(csv.DictReader(io.StringIO(answer.text, newline="")))
    assert [(int(row["batch"]), int(row["line"])) for row in rows] == names
    assert rows[0]["start"] == "2026-03-01T01:00:00.000+01:00"
    for kind, magic in (("xlsx", b"PK"), ("parquet", b"PAR1")):
        answer = await api.call("GET", "/v1/usage/export", params={**SPAN, "format": kind})
        assert answer.content.startswith(magic)


async def test_sums_come_by_what_is_asked_for(api: Api) -> None:
    books: Books = api.books  # type: ignore[attr-defined]
    books.days(DAY)
    for customer, attempts in ((books.acme.id, 3), (books.beta.id, 8)):
        api.world.sql(
            "INSERT INTO usage_hour VALUES (%s, %s, 1, %s, 0, 0, 0, 'voice', 'UK', '44', 'USD', '', %s, 2, 2, 90000, 90, 0,"
            " 700, 1, %s, 0)",
            DAY, FIRST, customer, attempts, Decimal("1.25"),
        )  # fmt: skip
    answer = await api.call("GET", "/v1/usage/report", params={**SPAN, "by": "customer,day"})
    one, two = answer.json()["items"]
    assert one == {
        "day": "2026-03-01", "hour": None, "customer": "acme", "vendor": "", "trunk_in": "", "trunk_out": "",
        "service": "", "destination": "", "prefix": "", "sell_currency": "USD", "buy_currency": "", "attempts": 3,
        "answers": 2, "effective": 2, "duration_ms": 90_000, "sell_billed": 90, "buy_billed": 0, "revenue": "1.25",
        "cost": "0.00", "margin": "1.25", "margin_percent": "100.00", "asr": "66.67", "ner": "66.67", "acd_ms": 45_000, "pdd_average_ms": 700,
    }  # fmt: skip
    assert (two["customer"], two["asr"]) == ("beta", "25.00")
    asked = {**SPAN, "by": "customer", "currency": "EUR"}
    page = (await api.call("GET", "/v1/usage/report", params=asked)).json()
    assert (page["unconverted"], page["items"][0]["sell_currency"]) == (["USD"], "USD")
    books.world.fx("EUR", "USD", "1.25")
    books.world.sql("UPDATE fx_rate SET day = %s", DAY)
    page = (await api.call("GET", "/v1/usage/report", params=asked)).json()
    one = page["items"][0]
    assert (page["unconverted"], one["sell_currency"], one["revenue"]) == ([], "EUR", "1.00")
    page = (await api.call("GET", "/v1/usage/report", params={**SPAN, "limit": 1})).json()
    assert ([item["customer"] for item in page["items"]], page["next"]) == (["acme"], 1)
    page = (
        await api.call("GET", "/v1/usage/report", params={**SPAN, "limit": 1, "skip": 1})
    ).json()
    assert ([item["customer"] for item in page["items"]], page["next"]) == (["beta"], None)


async def test_the_document_describes_the_routes(api: Api) -> None:
    document = (await api.call("GET", "/openapi.json")).json()
    export = document["paths"]["/v1/usage/export"]["get"]
    assert set(export["responses"]["200"]["content"]) >= {
        "text/csv",
        "application/vnd.apache.parquet",
    }
    names = {parameter["name"] for parameter in document["paths"]["/v1/usage"]["get"]["parameters"]}
    assert names == {
        "from",
        "to",
        "caller",
        "called",
        "customer",
        "vendor",
        "call_id",
        "limit",
        "after",
    }
