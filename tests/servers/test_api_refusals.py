"""What the management routes refuse and how, who may ask, and what the document says of it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest
import pytest_asyncio

from tests.servers.management import Api, client_of, problem
from tests.support import CARD, World, runtime, until
from tollkeeper.errors import Busy
from tollkeeper.servers.api.guard import JSON_MAX_BYTES, SHEET_MAX_BYTES


@pytest.fixture
def world(database_url: str) -> Iterator[World]:
    with World(database_url) as made:
        yield made


@pytest_asyncio.fixture
async def api(world: World) -> AsyncIterator[Api]:
    token = world.key("manage")
    async with runtime(world.url) as parts, client_of(parts, token) as client:
        yield Api(world, parts, client)


# --- bad input -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"", 422, "invalid_input"),
        (b"{", 400, "invalid_json"),
        (b"\xff\xfe", 400, "invalid_json"),
        (b"\xef\xbb\xbf{}", 400, "invalid_json"),
        (b"[" * 100_000, 400, "invalid_json"),
        (b'{"a": ' * 50_000, 400, "invalid_json"),
        (b'{"code": "a", "code": "b", "name": "x"}', 400, "invalid_json"),
        (b'{"code": "a", "name": NaN}', 400, "invalid_json"),
        (b"[]", 422, "invalid_input"),
        (b'"text"', 422, "invalid_input"),
        (b"null", 422, "invalid_input"),
        (b'{"code": "a", "name": "nul\\u0000"}', 422, "invalid_input"),
        (b'{"code": "a", "name": "\\ud800"}', 422, "invalid_input"),
        (b'{"code": "a", "name": "x", "\\ud800": 1}', 422, "invalid_input"),
        (b'{"code": "a", "name": "x", "colour": "red"}', 422, "invalid_input"),
        (b'{"code": "a", "name": "x", "max_cps": 1e400}', 422, "invalid_input"),
        (b'{"code": "a", "name": "x", "max_cps": 99999999999999999999}', 422, "invalid_input"),
        (b'{"code": "a", "name": "x", "max_cps": "5"}', 422, "invalid_input"),
        (b'{"code": "a", "name": "x", "max_cps": true}', 422, "invalid_input"),
        (b'{"code": "a", "name": "x", "kill_on_suspend": "yes"}', 422, "invalid_input"),
        (b'{"code": "a", "name": "x", "timezone": "Mars/Olympus"}', 422, "unknown_timezone"),
        (b'{"code": "a", "name": "x", "dial_rules": {"national": "0"}}', 422, "invalid_input"),
        (b'{"code": "a/b", "name": "x"}', 422, "invalid_input"),
    ],
)
async def test_a_body_that_makes_no_sense_is_refused_in_one_sentence(
    api: Api, body: bytes, status: int, code: str
) -> None:
    headers = {"Content-Type": "application/json"}
    answer = await api.call("POST", "/v1/parties", content=body, headers=headers)
    problem(answer, status, code, answer.json().get("field"))
    assert api.world.one("SELECT count(*) FROM party") == 0


async def test_the_field_at_fault_is_named_with_its_place(api: Api) -> None:
    answer = await api.call(
        "POST",
        "/v1/parties",
        json={"code": "a", "name": "x", "wallets": [{"currency": "USD", "top_up": 5}]},
    )
    sentence = problem(answer, 422, "invalid_input", "wallets.0.top_up")
    assert "decimal string" in sentence


@pytest.mark.parametrize(
    "code", ["%00", "%FF", "a%20b", "a%2Fb", "..", "%2e%2e", "a'b", "%F0%9F%98%80", "x" * 64, "-"]
)
async def test_an_odd_code_in_the_address_is_no_fault_of_ours(api: Api, code: str) -> None:
    for path in (f"/v1/parties/{code}", f"/v1/parties/{code}/wallets", f"/v1/plans/{code}"):
        answer = await api.call("GET", path)
        assert answer.status_code in {404, 422}, answer.text
        assert answer.headers["content-type"] == "application/problem+json"


async def test_a_body_of_another_type_is_refused(api: Api) -> None:
    for kind in ("text/plain", "application/xml", "application/x-www-form-urlencoded", "json"):
        answer = await api.call(
            "POST", "/v1/parties", content=b"{}", headers={"Content-Type": kind}
        )
        problem(answer, 415, "wrong_content_type")
    problem(await api.call("POST", "/v1/parties", content=b"{}"), 415, "wrong_content_type")


@pytest.mark.parametrize("announced", [True, False])
async def test_a_body_too_large_is_refused(api: Api, announced: bool) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(JSON_MAX_BYTES // 65_536 + 1):
            yield b" " * 65_536

    body = b" " * (JSON_MAX_BYTES + 1) if announced else pieces()
    headers = {"Content-Type": "application/json"}
    answer = await api.call("POST", "/v1/parties", content=body, headers=headers)
    problem(answer, 413, "body_too_large")


async def test_a_sheet_too_large_is_refused_by_what_it_announces(api: Api) -> None:
    headers = {"Content-Length": str(SHEET_MAX_BYTES + 1), "Content-Type": "text/csv"}
    path = f"/v1/cards/{CARD}/imports"
    answer = await api.call("POST", path, content=b"x", headers=headers)
    problem(answer, 413, "body_too_large")


async def test_addresses_and_methods_that_are_not_there_are_problems_too(api: Api) -> None:
    problem(await api.call("GET", "/v1/nothing"), 404, "no_such_route")
    for path, allowed in (
        ("/v1/parties", "GET, POST"),
        ("/v1/parties/acme", "GET, PATCH"),
        ("/v1/sessions", "GET, POST"),
    ):
        answer = await api.call("DELETE", path)
        problem(answer, 405, "method_not_allowed")
        assert answer.headers["allow"] == allowed


async def test_a_whole_number_may_be_written_with_a_point(api: Api) -> None:
    """As JSON Schema has it: 5.0 is an integer, 5.5 is none."""
    made = await api.call("POST", "/v1/parties", json={"code": "a", "name": "A", "max_cps": 5.0})
    assert made.json()["max_cps"] == 5
    answer = await api.call("PATCH", "/v1/parties/a", json={"max_cps": 5.5})
    problem(answer, 422, "invalid_input", "max_cps")


async def test_a_fault_inside_tells_nothing_of_itself(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: object, **__: object) -> None:
        raise RuntimeError("secret detail")

    monkeypatch.setattr("tollkeeper.services.parties.get_party", broken)
    answer = await api.call("GET", "/v1/parties/acme")
    assert "secret" not in problem(answer, 500, "internal")


async def test_a_database_that_is_away_is_said_so(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    @asynccontextmanager
    async def away(_: object, **_scope: object) -> AsyncIterator[None]:
        raise Busy("the database does not answer", code="database_away")
        yield

    monkeypatch.setattr("tollkeeper.store.db.Database.read", away)
    for path in ("/healthz", "/v1/parties"):
        answer = await api.call("GET", path)
        problem(answer, 503, "database_away")
        assert answer.headers["retry-after"] == "1"


# --- who may ask ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "header", ["", "Bearer", "Bearer ", "Basic dGs6", "Bearer tk_unknown", "Bearer " + "x" * 9999]
)
async def test_without_a_valid_key_nothing_is_answered(world: World, header: str) -> None:
    async with runtime(world.url) as parts, client_of(parts, "") as client:
        for method, path in (("GET", "/v1/parties"), ("POST", "/v1/nothing"), ("GET", "/metrics")):
            headers = {"Authorization": header, "Content-Type": "text/plain"}
            answer = await client.request(method, path, content=b"{", headers=headers)
            assert answer.headers["www-authenticate"].startswith("Bearer")
            problem(answer, 401, answer.json()["code"])


async def test_a_key_may_do_what_its_scopes_say(world: World) -> None:
    world.customer()
    tokens = {scope: world.key(scope) for scope in ("read", "charge", "manage")}
    async with runtime(world.url) as parts:
        for scope, may_read, may_manage in (
            ("read", True, False),
            ("charge", False, False),
            ("manage", True, True),
        ):
            async with client_of(parts, tokens[scope]) as client:
                read = await client.get("/v1/parties/acme")
                change = await client.patch("/v1/parties/acme", json={})
                assert read.status_code == (200 if may_read else 403)
                assert change.status_code == (200 if may_manage else 403)
                for answer in (read, change):
                    if answer.status_code == 403:
                        problem(answer, 403, "scope_missing")
                        assert "insufficient_scope" in answer.headers["www-authenticate"]


async def test_a_key_works_from_its_making_to_its_end(api: Api) -> None:
    made = await api.call("POST", "/v1/keys", json={"name": "reader", "scopes": ["read"]})
    assert made.status_code == 201
    assert made.headers["cache-control"] == "no-store"
    key = made.json()
    async with client_of(api.parts, key["secret"]) as client:

        async def status() -> int:
            return (await client.get("/v1/parties")).status_code

        async def works() -> bool:
            return await status() == 200

        async def ended() -> bool:
            return await status() == 401

        await until(works)
        assert (await client.get("/v1/keys")).status_code == 403
        done = await api.call("DELETE", f"/v1/keys/{key['id']}")
        assert (done.status_code, done.content) == (204, b"")
        await until(ended)
    listed = (await api.call("GET", "/v1/keys")).json()["items"]
    assert listed[-1]["revoked_at"] is not None
    assert key["secret"] not in json.dumps(listed)
    problem(await api.call("DELETE", "/v1/keys/999"), 404, "unknown_key")
    problem(await api.call("DELETE", f"/v1/keys/{listed[0]['id']}"), 409, "own_key")


# --- the document and the plain pages ------------------------------------------------------------


async def test_health_needs_no_key_and_metrics_do(world: World) -> None:
    token = world.key("read")
    async with runtime(world.url) as parts, client_of(parts, "") as client:
        assert (await client.get("/healthz")).json() == {"status": "ok"}
        page = await client.get("/metrics", headers={"Authorization": f"Bearer {token}"})
        assert page.headers["content-type"].startswith("text/plain; version=0.0.4")
        assert "tollkeeper_" in page.text


async def test_the_document_shows_every_error_as_a_problem(api: Api) -> None:
    document = (await api.call("GET", "/openapi.json")).json()
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            statuses = set(operation["responses"])
            if path != "/healthz":
                assert {"401", "403", "422", "503"} <= statuses, (method, path)
                assert operation["security"] == [{"apiKey": []}], (method, path)
            for status, response in operation["responses"].items():
                if status >= "400":
                    assert list(response["content"]) == ["application/problem+json"], (path, status)
    assert {"/v1/sessions", "/v1/quote", "/v1/parties", "/v1/cards"} <= document["paths"].keys()
    amount = document["components"]["schemas"]["TopUp"]["properties"]["amount"]
    assert amount["type"] == "string"
    assert "float" not in json.dumps(document)


async def test_every_name_in_the_document_leads_somewhere(api: Api) -> None:
    document = (await api.call("GET", "/openapi.json")).json()
    text = json.dumps(document)
    known = document["components"]["schemas"].keys()
    named = {part.split('"')[0] for part in text.split("#/components/schemas/")[1:]}
    assert named <= known
    ids = [o["operationId"] for p in document["paths"].values() for o in p.values()]
    assert len(ids) == len(set(ids))
