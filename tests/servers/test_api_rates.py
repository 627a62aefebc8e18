"""Rate cards over HTTP: a sheet goes in, its account comes back, and running processes follow."""

from __future__ import annotations

import gzip
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from tests.support import World, runtime, until
from tollkeeper.servers.api.app import create_app
from tollkeeper.servers.api.context import Services

SHEET = b"""prefix,destination,rate,increments
44,United Kingdom,0.02,1/1
447,United Kingdom Mobile,0.05,60/60
49,Germany,cheap,30/6
"""
CARDS = "/v1/cards"
IMPORTS = f"{CARDS}/wholesale/imports"


@dataclass
class Api:
    """A client with a key, the process it speaks to, and the world behind it."""

    world: World
    parts: Any
    client: httpx.AsyncClient

    async def get(self, path: str, **query: Any) -> Any:
        """Read something that must be there."""
        answer = await self.client.get(path, params=query)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def load(self, data: bytes = SHEET, **query: Any) -> httpx.Response:
        """Import a sheet sent as the body."""
        return await self.client.post(IMPORTS, content=data, params=query)

    async def activate(self, version: int) -> httpx.Response:
        """Activate a version."""
        return await self.client.post(f"{CARDS}/wholesale/activate", json={"version": version})


@pytest.fixture
def world(database_url: str) -> Iterator[World]:
    with World(database_url) as made:
        yield made


@pytest.fixture
async def api(world: World) -> AsyncIterator[Api]:
    token = world.key("manage")
    async with runtime(world.url) as parts:
        services = Services(parts.database, parts.directory, parts.charging, parts.clock)
        transport = httpx.ASGITransport(create_app(services), raise_app_exceptions=False)
        async with httpx.AsyncClient(
            transport=transport,
            base_url="http://test",
            headers={"Authorization": f"Bearer {token}"},
        ) as client:
            api = Api(world, parts, client)
            made = await client.post(CARDS, json={"code": "wholesale", "currency": "USD"})
            assert made.status_code == 201, made.text
            yield api


def problem(response: httpx.Response, status: int, code: str, field: str | None = None) -> str:
    assert response.headers["content-type"] == "application/problem+json", response.text
    body = response.json()
    assert (response.status_code, body["code"], body.get("field")) == (status, code, field), body
    return str(body["detail"])


async def test_a_card_is_created_and_shown(api: Api) -> None:
    card = await api.get(f"{CARDS}/wholesale")
    assert (card["currency"], card["rounding"], card["decimals"]) == ("USD", "half_up", 6)
    assert (card["active_version"], card["name"]) == (None, "wholesale")
    first = await api.get(CARDS, limit=1)
    assert [item["code"] for item in first["items"]] == ["retail-usd"]
    second = await api.get(CARDS, limit=1, after=first["next"])
    assert ([item["code"] for item in second["items"]], second["next"]) == (["wholesale"], None)
    again = await api.client.post(CARDS, json={"code": "wholesale", "currency": "USD"})
    problem(again, 409, "card_exists", "code")


@pytest.mark.parametrize(
    "body",
    [
        {"code": "x"},
        {"code": "x", "currency": "usd"},
        {"code": "x y", "currency": "USD"},
        {"code": "x", "currency": "USD", "decimals": 9},
        {"code": "x", "currency": "USD", "rounding": "bankers"},
        {"code": "x", "currency": "USD", "colour": "red"},
    ],
)
async def test_a_card_that_makes_no_sense_is_refused(api: Api, body: dict[str, object]) -> None:
    answer = await api.client.post(CARDS, json=body)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_input")


async def test_from_a_sheet_to_a_price_that_a_running_process_charges(api: Api) -> None:
    answer = await api.load(file_name="march.csv")
    assert answer.status_code == 201, answer.text
    report = answer.json()
    assert (
        report["version"],
        report["rows_in"],
        report["rows_stored"],
        report["rows_refused"],
    ) == (1, 3, 2, 1)
    assert (report["counts"]["new"], report["file_name"]) == (2, "march.csv")
    assert (report["refusals"][0]["line"], report["refusals"][0]["value"]) == (4, "cheap")
    card_id = api.world.one("SELECT id FROM rate_card WHERE code = 'wholesale'")
    assert api.parts.directory.card(card_id) is None
    activated = await api.activate(1)
    assert (activated.status_code, activated.json()["status"]) == (200, "active")
    await until(lambda: api.parts.directory.card(card_id) is not None, what="the new card")
    found = await api.get(f"{CARDS}/wholesale/lookup", number="+447700900123")
    assert (found["number"], found["card"], found["version"]) == ("447700900123", "wholesale", 1)
    assert (found["rate"]["prefix"], found["rate"]["next_price"], found["price_180_seconds"]) == (
        "447",
        "0.05",
        "0.15",
    )
    problem(await api.activate(1), 409, "already_active")


async def test_versions_refusals_and_changes_are_read_page_by_page(api: Api) -> None:
    await api.load()
    await api.activate(1)
    await api.load(SHEET.replace(b"0.02", b"0.03").replace(b"cheap", b"0.01"))
    versions = await api.get(f"{CARDS}/wholesale/versions", limit=1)
    assert ([v["version"] for v in versions["items"]], versions["next"]) == ([2], 2)
    versions = await api.get(f"{CARDS}/wholesale/versions", limit=1, after=2)
    assert ([v["version"] for v in versions["items"]], versions["next"]) == ([1], None)
    one = await api.get(f"{CARDS}/wholesale/versions/2")
    assert (one["status"], one["base_version"], one["summary"]["counts"]["increased"]) == (
        "draft",
        1,
        1,
    )
    refusals = await api.get(f"{CARDS}/wholesale/versions/1/refusals")
    assert [(r["line"], r["field"]) for r in refusals["items"]] == [(4, "rate")]
    changes = await api.get(f"{CARDS}/wholesale/versions/2/changes", limit=1)
    (first,) = changes["items"]
    assert (first["prefix"], first["status"], first["old_price"], first["new_price"]) == (
        "44",
        "increased",
        "0.02",
        "0.03",
    )
    rest = await api.get(f"{CARDS}/wholesale/versions/2/changes", after=changes["next"])
    assert ([c["status"] for c in rest["items"]], rest["next"]) == (["new"], None)
    only = await api.get(f"{CARDS}/wholesale/versions/2/changes", status="closed")
    assert only == {"items": [], "next": None}


async def test_a_dry_run_answers_200_and_leaves_no_version(api: Api) -> None:
    answer = await api.load(dry_run="true")
    assert (answer.status_code, answer.json()["version"], answer.json()["rows_stored"]) == (
        200,
        None,
        2,
    )
    assert (await api.get(f"{CARDS}/wholesale/versions"))["items"] == []


async def test_a_sheet_may_come_as_a_form_or_gzipped(api: Api) -> None:
    form = await api.client.post(IMPORTS, files={"file": ("april.csv", SHEET, "text/csv")})
    assert (form.status_code, form.json()["file_name"], form.json()["rows_stored"]) == (
        201,
        "april.csv",
        2,
    )
    packed = await api.load(gzip.compress(SHEET))
    assert (packed.status_code, packed.json()["rows_stored"]) == (201, 2)
    empty = await api.client.post(IMPORTS, files={"other": (None, b"x")})
    problem(empty, 422, "invalid_input", "file")


async def test_sheet_options_are_obeyed_and_checked(api: Api) -> None:
    bare = b"United Kingdom;44;0,0005\nGermany;49;0,0001\n"
    answer = await api.load(
        bare,
        columns="destination=1;prefix=2;rate=3",
        header="no",
        per="second",
        increments="6/6",
        mode="partial",
    )
    assert answer.status_code == 201, answer.text
    await api.activate(1)
    found = await api.get(f"{CARDS}/wholesale/lookup", number="442071838750")
    assert (found["rate"]["next_price"], found["rate"]["first_interval"]) == ("0.03", 6)
    problem(await api.load(timezone="Mars/Base"), 422, "invalid_input", "timezone")
    problem(await api.load(columns="colour=red"), 422, "invalid_input", "columns")
    problem(await api.load(colour="red"), 422, "invalid_input", "colour")
    problem(await api.load(mode="half"), 422, "invalid_input", "mode")


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "empty_file"),
        (bytes(range(256)) * 8, "not_a_rate_sheet"),
        (b"prefix,rate\n44,?\n", "all_rows_refused"),
        (b"colour,size\nred,2\n", "unknown_columns"),
    ],
)
async def test_what_is_no_sheet_is_a_problem_and_never_a_fault(
    api: Api, data: bytes, code: str
) -> None:
    answer = await api.load(data)
    assert (answer.status_code, answer.json()["code"]) == (422, code)


async def test_what_does_not_exist_is_404(api: Api) -> None:
    missing = f"{CARDS}/nosuch"
    for answer in (
        await api.client.get(missing),
        await api.client.get(f"{missing}/versions"),
        await api.client.post(f"{missing}/imports", content=SHEET),
        await api.client.post(f"{missing}/activate", json={"version": 1}),
        await api.client.post(f"{missing}/rollback"),
    ):
        problem(answer, 404, "unknown_card", "card")
    problem(await api.activate(9), 404, "unknown_version", "version")
    nothing = await api.client.get(f"{CARDS}/wholesale/lookup", params={"number": "44"})
    problem(nothing, 404, "unknown_prefix", "number")


async def test_rolling_back_returns_to_the_version_before(api: Api) -> None:
    for _ in range(2):
        version = (await api.load()).json()["version"]
        await api.activate(version)
    stale = await api.client.post(f"{CARDS}/wholesale/rollback", json={"expected": 1})
    problem(stale, 409, "active_changed")
    back = await api.client.post(f"{CARDS}/wholesale/rollback", json={"expected": 2})
    assert (back.status_code, back.json()["version"]) == (200, 1)
    more = await api.client.post(f"{CARDS}/wholesale/rollback")
    problem(more, 409, "nothing_to_roll_back")


async def test_reading_takes_one_scope_and_changing_another(api: Api) -> None:
    reader = {"Authorization": f"Bearer {api.world.key('read')}"}
    charger = {"Authorization": f"Bearer {api.world.key('charge')}"}
    await api.parts.directory.load()
    listed = await api.client.get(CARDS, headers=reader)
    assert listed.status_code == 200
    problem(await api.client.get(CARDS, headers=charger), 403, "scope_missing")
    for path, body in (("imports", None), ("activate", {"version": 1}), ("rollback", {})):
        answer = await api.client.post(f"{CARDS}/wholesale/{path}", json=body, headers=reader)
        problem(answer, 403, "scope_missing")


async def test_the_document_describes_the_routes_and_the_file(api: Api) -> None:
    document = await api.get("/openapi.json")
    upload = document["paths"]["/v1/cards/{code}/imports"]["post"]
    assert set(upload["requestBody"]["content"]) == {
        "text/csv",
        "application/octet-stream",
        "multipart/form-data",
    }
    assert {"mode", "dry_run", "columns"} <= {
        parameter["name"] for parameter in upload["parameters"]
    }
    assert {"200", "201", "404", "413", "422"} <= set(upload["responses"])
