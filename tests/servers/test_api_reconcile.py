"""Comparing over HTTP: the file is the body, the answer a report, or the findings for the partner."""

from __future__ import annotations

import csv
import gzip
import io
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from tests.servers.management import client_of, problem
from tests.services.reconcile_world import MAPPING, Books, call, file_of, later
from tests.support import runtime
from tollkeeper.servers.api import reconcile as routes

RECONCILE = "/v1/reconcile"
ASSURANCE = "/v1/cdr/assurance"


@pytest.fixture
def books(database_url: str) -> Iterator[Books]:
    with Books(database_url) as made:
        yield made


@pytest.fixture
async def client(books: Books) -> AsyncIterator[httpx.AsyncClient]:
    token = books.key("read")
    async with runtime(books.url) as parts, client_of(parts, token) as made:
        yield made


async def send(
    client: httpx.AsyncClient, *lines: str, headers: dict[str, str] | None = None, **query: Any
) -> httpx.Response:
    """Send a file of acme, unless the query names somebody else."""
    if not {"vendor", "switch", "customer"} & query.keys():
        query["customer"] = "acme"
    data = file_of(*lines).getvalue()
    query = {"mapping": MAPPING, **query}
    return await client.post(RECONCILE, content=data, params=query, headers=headers or {})


async def test_the_answer_is_the_report(books: Books, client: httpx.AsyncClient) -> None:
    books.record("a")
    books.record("b", start=later(60), duration_ms=30_000)
    answer = await send(
        client,
        call("a", price="0.6", no=1),
        call("b", start=later(60), price="0.7", no=2),
        call("c", start=later(120), price="0.1", no=4),
    )
    assert answer.status_code == 200, answer.text
    report = answer.json()
    assert report["counts"] == {"missing_here": 1, "duration_and_price": 1}
    money = [report[name] for name in ("currency", "their_total", "our_total", "difference")]
    assert money == ["USD", "1.40", "1.20", "0.20"]
    assert report["parts"]["missing_here"] == "0.10"
    assert report["gaps"] == [{"first": 3, "last": 3, "missing": 1}]
    assert report["verdict"].startswith("acme counts 1.40 USD and we charged 1.20 USD: 0.20 USD")
    (day,) = report["days"]
    assert (day["day"], day["their_records"], day["our_records"]) == ("2026-03-01", 3, 2)
    assert [(f["kind"], f["line"], f["our_ms"]) for f in report["findings"]] == [
        ("duration_and_price", 3, 30_000),
        ("missing_here", 4, None),
    ]
    assert report["findings"][0]["their_start"] == "2026-03-01T12:01:00Z"


async def test_the_findings_are_a_file_for_the_partner_when_asked_for(
    books: Books, client: httpx.AsyncClient
) -> None:
    books.record("a")
    answer = await send(
        client,
        call("a", price="0.4"),
        vendor="carrier",
        headers={"Accept": "text/csv"},
    )
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/csv")
    assert "reconcile-carrier-20260301.csv" in answer.headers["content-disposition"]
    (row,) = csv.DictReader(io.StringIO(answer.text))
    assert (row["finding"], row["your_amount"], row["our_amount"]) == (
        "price differs",
        "0.4",
        "0.3",
    )


async def test_only_so_many_findings_are_shown_as_asked(
    books: Books, client: httpx.AsyncClient
) -> None:
    lines = [call(f"c{n}", called=f"33{n}") for n in range(5)]
    report = (await send(client, *lines, shown=2)).json()
    assert (report["counts"], len(report["findings"])) == ({"missing_here": 5}, 2)


async def test_a_compressed_file_is_understood(books: Books, client: httpx.AsyncClient) -> None:
    books.record("a")
    data = gzip.compress(file_of(call("a")).getvalue())
    query = {"customer": "acme", "mapping": MAPPING}
    answer = await client.post(RECONCILE, content=data, params=query)
    assert (answer.status_code, answer.json()["agreed"]) == (200, 1)


@pytest.mark.parametrize(
    ("query", "status", "code", "field"),
    [
        ({"customer": "nobody"}, 404, "unknown_party", "customer"),
        ({"vendor": "carrier", "customer": "acme"}, 422, "invalid_input", "customer"),
        ({"mapping": "format = 'csv'"}, 422, "invalid_input", None),
        ({"money": "1e3"}, 422, "invalid_amount", "money"),
        ({"money": "NaN"}, 422, "invalid_amount", "money"),
        ({"format": "morse"}, 422, "unknown_format", "format"),
        ({"timezone": "Mars/Base"}, 422, "unknown_timezone", "timezone"),
        ({"since": "2026-03-01T00:00:00"}, 422, "invalid_input", "since"),
        ({"seconds": "-1"}, 422, "invalid_input", "seconds"),
        ({"colour": "red"}, 422, "invalid_input", "colour"),
    ],
)
async def test_a_wrong_question_is_a_problem(
    books: Books,
    client: httpx.AsyncClient,
    query: dict[str, str],
    status: int,
    code: str,
    field: str | None,
) -> None:
    answer = await send(client, call("a"), **query)
    body = answer.json()
    assert answer.headers["content-type"] == "application/problem+json"
    assert (answer.status_code, body["code"]) == (status, code), body
    assert field is None or body["field"] == field


async def test_an_empty_body_is_a_problem(books: Books, client: httpx.AsyncClient) -> None:
    answer = await client.post(RECONCILE, params={"customer": "acme"})
    problem(answer, 422, "invalid_input", "file")


async def test_a_file_that_is_too_large_is_refused(
    books: Books, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(routes, "FILE_MAX_BYTES", 100)
    problem(await send(client, *[call("a")] * 9), 413, "body_too_large")


async def test_one_file_is_compared_at_a_time(books: Books, client: httpx.AsyncClient) -> None:
    async with routes._one:
        problem(await send(client, call("a")), 503, "busy")
    books.record("a")
    assert (await send(client, call("a"))).status_code == 200


async def test_a_key_that_may_not_read_may_not_compare(books: Books) -> None:
    token = books.key("charge")
    async with runtime(books.url) as parts, client_of(parts, token) as client:
        problem(await send(client, call("a")), 403, "scope_missing")
        problem(await client.get(ASSURANCE, params={"day": "2026-03-01"}), 403, "scope_missing")


async def test_a_day_is_looked_at(books: Books, client: httpx.AsyncClient) -> None:
    books.sql(
        "INSERT INTO cdr_quarantine (batch_id, switch, line, reason, detail, at)"
        " VALUES (%s, 'sw1', 1, 'no_rate', 'why', '2026-03-01T10:00:00Z')",
        books.batch_id,
    )
    answer = await client.get(ASSURANCE, params={"day": "2026-03-01"})
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert found["unrated"] == [
        {"switch": "sw1", "reason": "no_rate", "records": 1, "example": "why"}
    ]
    assert (found["clean"], found["unmatched_count"], found["silent"]) == (False, 0, [])


async def test_a_day_to_come_cannot_be_looked_at(books: Books, client: httpx.AsyncClient) -> None:
    ahead = f"{datetime.now(UTC) + timedelta(days=2):%Y-%m-%d}"
    problem(await client.get(ASSURANCE, params={"day": ahead}), 422, "invalid_input", "day")
