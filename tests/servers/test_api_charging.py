"""The charging routes over HTTP: every one of them, repeats, conflicts and bad input."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import httpx
import pytest

from tests.support import BLOCKED, UK_FIXED, UK_MOBILE, UNSOLD, Customer, World, api
from tollkeeper.services.verify import verify


@dataclass
class Wire:
    """A client with a charging key, and what is behind it."""

    client: httpx.AsyncClient
    world: World
    customer: Customer
    parts: Any
    token: str

    async def post(self, path: str, body: Any = None, **options: Any) -> httpx.Response:
        """POST JSON."""
        return await self.client.post(f"/v1/{path}", json=body, **options)

    async def ok(self, path: str, **body: Any) -> dict[str, Any]:
        """POST and read an answer that must be 200."""
        response = await self.post(path, body)
        assert response.status_code == 200, response.text
        assert response.headers["content-type"] == "application/json"
        answer: dict[str, Any] = response.json()
        return answer

    async def problem(self, path: str, body: Any = None, **options: Any) -> tuple[int, str, str]:
        """POST and read a problem document: status, code and field."""
        return read_problem(await self.post(path, body, **options))

    async def authorise(self, session_id: str = "x", **more: Any) -> dict[str, Any]:
        """Authorise a call that is granted."""
        body = {"session_id": session_id, "party": "acme", "called": UK_FIXED, **more}
        return await self.ok("sessions", **body)


def read_problem(response: httpx.Response) -> tuple[int, str, str]:
    """Status, code and field of a problem document, whose form is checked."""
    assert response.headers["content-type"] == "application/problem+json", response.text
    document = response.json()
    assert document["status"] == response.status_code
    assert document["type"] == f"urn:tollkeeper:problem:{document['code']}"
    assert document["title"]
    assert len(document["detail"]) > 10
    assert document.keys() <= {"type", "title", "status", "detail", "code", "field"}
    return response.status_code, document["code"], document.get("field", "")


@pytest.fixture
async def wire(database_url: str) -> AsyncIterator[Wire]:
    """A customer with 100 USD at a cent a second, and a key of the switch sw1."""
    with World(database_url) as world:
        customer = world.customer(balance="100")
        token = world.key("charge", "read")
        async with api(database_url) as (client, parts):
            client.headers["authorization"] = f"Bearer {token}"
            yield Wire(client, world, customer, parts, token)
            report = await verify(parts.database)
            assert report.clean, report.findings


# --- the life of a call --------------------------------------------------------------------------


async def test_a_call_from_beginning_to_end(wire: Wire) -> None:
    """Authorise, start, update, stop: each answer says what the switch needs."""
    answer = await wire.authorise(requested_seconds=60, caller="+4930123456")
    assert answer["outcome"] == "granted"
    assert (answer["granted_seconds"], answer["final"], answer["terminate"]) == (60, False, False)
    assert (answer["session_id"], answer["currency"], answer["repeated"]) == ("x", "USD", False)
    assert (answer["sip_code"], answer["reason"], answer["charge"]) == (200, "", None)
    assert answer["expires_at"].endswith("Z")
    answer = await wire.ok("sessions/x/start")
    assert (answer["outcome"], answer["granted_seconds"]) == ("active", 60)
    answer = await wire.ok("sessions/x/update", used_seconds=45)
    assert (answer["granted_seconds"], answer["used_ms"]) == (105, 45_000)
    answer = await wire.ok("sessions/x/update", used_ms=100_500, extend=False)
    assert (answer["granted_seconds"], answer["used_ms"]) == (105, 100_500)
    answer = await wire.ok("sessions/x/stop", used_ms=100_700, cause="normal clearing")
    assert (answer["outcome"], answer["charge"]) == ("closed", "1.010000")
    assert wire.world.wallet(wire.customer).balance == Decimal("98.99")


async def test_every_message_again_gets_the_same_answer(wire: Wire) -> None:
    """F3: only ``repeated`` differs; nothing is charged or held twice."""
    steps: list[tuple[str, dict[str, Any]]] = [
        ("sessions", {"session_id": "x", "party": "acme", "called": UK_FIXED}),
        ("sessions/x/start", {}),
        ("sessions/x/update", {"used_seconds": 20}),
        ("sessions/x/update", {"used_seconds": 30, "request_id": "cc-2"}),
        ("sessions/x/kill", {"reason": "test"}),
        ("sessions/x/stop", {"used_seconds": 40, "request_id": "cc-3"}),
    ]
    first = [await wire.ok(path, **body) for path, body in steps]
    for (path, body), answer in zip(reversed(steps), reversed(first), strict=True):
        assert await wire.ok(path, **body) == {**answer, "repeated": True}
    assert wire.world.wallet(wire.customer).balance == Decimal("99.60")


async def test_the_same_id_with_other_content_is_a_conflict(wire: Wire) -> None:
    """The contradiction is named and nothing is changed."""
    await wire.authorise()
    body = {"session_id": "x", "party": "acme", "called": UK_MOBILE}
    assert await wire.problem("sessions", body) == (409, "session_id_reused", "")
    await wire.ok("sessions/x/update", used_seconds=10, request_id="r")
    body = {"used_seconds": 11, "request_id": "r"}
    assert await wire.problem("sessions/x/update", body) == (409, "message_id_reused", "")
    await wire.ok("sessions/x/stop", used_seconds=12)
    assert wire.world.wallet(wire.customer).balance == Decimal("99.88")


async def test_a_switch_that_sends_no_start_is_served_too(wire: Wire) -> None:
    """F4: stop before start, update before start, start after stop."""
    await wire.authorise("a", start_expected=False)
    assert (await wire.ok("sessions/a/stop", used_seconds=10))["charge"] == "0.100000"
    await wire.authorise("b")
    assert (await wire.ok("sessions/b/update", used_seconds=10))["outcome"] == "active"
    assert (await wire.ok("sessions/b/start"))["used_ms"] == 10_000
    await wire.ok("sessions/b/stop", used_seconds=10)
    assert (await wire.ok("sessions/b/start"))["outcome"] == "closed"


async def test_usage_that_goes_down_never_lowers_the_charge(wire: Wire) -> None:
    """F7: the highest usage counts, and the session is marked."""
    await wire.authorise()
    await wire.ok("sessions/x/update", used_seconds=50)
    await wire.ok("sessions/x/update", used_seconds=20)
    assert (await wire.ok("sessions/x/stop", used_seconds=5))["charge"] == "0.500000"
    shown = (await wire.client.get("/v1/sessions/x")).json()
    assert "usage_went_down" in shown["marks"]


async def test_a_clock_that_is_off_by_hours_is_marked_and_does_not_change_the_charge(
    wire: Wire,
) -> None:
    """F20: usage beyond the time that has passed is charged as reported, and listed."""
    await wire.authorise()
    answer = await wire.ok("sessions/x/stop", used_seconds=7200)
    assert answer["charge"] == "72.000000"
    shown = (await wire.client.get("/v1/sessions/x")).json()
    assert shown["marks"] == ["usage_ahead_of_clock"]


@pytest.mark.parametrize(
    ("called", "reason", "sip", "hunt"),
    [
        (UNSOLD, "no_rate", 404, True),
        (BLOCKED, "destination_blocked", 403, True),
        ("44909555", "insufficient_funds", 402, True),
    ],
)
async def test_a_refusal_is_an_answer_with_its_sip_code(
    wire: Wire, called: str, reason: str, sip: int, hunt: bool
) -> None:
    """F33: 200 with outcome refused, never a price of zero; and it stays refused."""
    wire.world.sql("UPDATE wallet SET credit_limit = 0")
    poor = wire.world.customer("poor", balance="0.50")
    await wire.parts.directory.load()
    body = {"session_id": "no", "party": poor.code, "called": called}
    answer = await wire.ok("sessions", **body)
    assert (answer["outcome"], answer["reason"], answer["sip_code"]) == ("refused", reason, sip)
    assert answer["stop_hunting"] is hunt
    assert answer["granted_seconds"] == 0
    assert answer["reason_text"]
    assert (await wire.ok("sessions", **body))["repeated"] is True
    # A refused call that is stopped with usage all the same: the switch let it run.
    assert (await wire.problem("sessions/no/stop", {"used_seconds": 9}))[1] == "session_refused"
    assert (await wire.ok("sessions/no/stop", used_seconds=0))["outcome"] == "closed"


async def test_a_quote_holds_nothing(wire: Wire) -> None:
    """The price of the seconds asked, how long the money lasts, and the rate."""
    answer = await wire.ok("quote", party="acme", called="+44 20 7183 8750", seconds=90)
    assert (answer["price"], answer["affordable_seconds"]) == ("0.900000", 10_000)
    assert (answer["destination"], answer["prefix"]) == ("United Kingdom", "44")
    assert (answer["rate"]["first_price"], answer["rate"]["next_interval"]) == ("0.6", 1)
    assert wire.world.wallet(wire.customer).held == 0
    assert (await wire.problem("quote", {"party": "acme", "called": UNSOLD}))[:2] == (
        404,
        "no_rate",
    )


async def test_kill_asks_the_switch_to_end_the_call(wire: Wire) -> None:
    """The next answer says terminate; a closed session cannot be killed."""
    await wire.authorise()
    assert (await wire.ok("sessions/x/kill", reason="fraud"))["terminate"] is True
    answer = await wire.ok("sessions/x/update", used_seconds=10)
    assert (answer["terminate"], answer["final"], answer["reason"]) == (True, True, "killed")
    await wire.ok("sessions/x/stop", used_seconds=11)
    body = {"reason": "too late"}
    assert (await wire.problem("sessions/x/kill", {"reason": "again"}))[0] == 409
    assert (await wire.problem("sessions/y/kill", body))[:2] == (404, "unknown_session")


async def test_two_switches_may_use_the_same_session_id(wire: Wire) -> None:
    """R2: an id belongs to its switch; one never sees the other's call."""
    await wire.authorise("same", requested_seconds=30)
    other = wire.world.key("charge", "read", switch="sw2")
    await wire.parts.directory.load()
    headers = {"authorization": f"Bearer {other}"}
    assert (await wire.problem("sessions/same/start", {}, headers=headers))[0] == 404
    body = {"session_id": "same", "party": "acme", "called": UK_MOBILE}
    assert (await wire.post("sessions", body, headers=headers)).json()["repeated"] is False
    await wire.ok("sessions/same/stop", used_seconds=5)
    shown = (await wire.client.get("/v1/sessions/same", headers=headers)).json()
    assert (shown["switch"], shown["state"]) == ("sw2", "authorised")


# --- bad input -----------------------------------------------------------------------------------

BAD_BODIES: dict[str, tuple[str, Any, int, str]] = {
    "no party": ("sessions", {"session_id": "b", "called": "44"}, 422, ""),
    "unknown party": (
        "sessions", {"session_id": "b", "party": "nobody", "called": "44"}, 404, "party",
    ),
    "letters called": (
        "sessions", {"session_id": "b", "party": "acme", "called": "abc"}, 422, "called",
    ),
    "nothing called": (
        "sessions", {"session_id": "b", "party": "acme", "called": ""}, 422, "called",
    ),
    "16 digits": (
        "sessions", {"session_id": "b", "party": "acme", "called": "4" * 16}, 422, "called",
    ),
    "a number as number": (
        "sessions", {"session_id": "b", "party": "acme", "called": 442071838750}, 422, "called",
    ),
    "an id with a slash": (
        "sessions", {"session_id": "a/b", "party": "acme", "called": "44"}, 422, "session_id",
    ),
    "an empty id": (
        "sessions", {"session_id": "", "party": "acme", "called": "44"}, 422, "session_id",
    ),
    "an id too long": (
        "sessions", {"session_id": "x" * 129, "party": "acme", "called": "44"}, 422, "session_id",
    ),
    "no seconds": (
        "sessions",
        {"session_id": "b", "party": "acme", "called": "44", "requested_seconds": 0},
        422, "requested_seconds",
    ),
    "seconds as float": (
        "sessions",
        {"session_id": "b", "party": "acme", "called": "44", "requested_seconds": 1.5},
        422, "requested_seconds",
    ),
    "an unknown field": (
        "sessions", {"session_id": "b", "party": "acme", "called": "44", "price": "0"}, 422, "",
    ),
    "an unknown service": (
        "sessions", {"session_id": "b", "party": "acme", "called": "44", "service": "Voice!"},
        422, "service",
    ),
    "negative usage": ("sessions/x/update", {"used_seconds": -1}, 422, "used_seconds"),
    "endless usage": ("sessions/x/stop", {"used_seconds": 10**30}, 422, "used_seconds"),
    "usage as text": ("sessions/x/stop", {"used_seconds": "5"}, 422, "used_seconds"),
    "usage twice": ("sessions/x/stop", {"used_seconds": 5, "used_ms": 5}, 422, "used_seconds"),
    "no usage": ("sessions/x/stop", {}, 422, "used_seconds"),
    "a control character": ("sessions/x/stop", {"used_seconds": 1, "cause": "\x00"}, 422, "cause"),
    "a request id with spaces": (
        "sessions/x/update", {"used_seconds": 1, "request_id": "a b"}, 422, "request_id",
    ),
    "a list": ("sessions", [], 422, ""),
    "null": ("sessions", None, 422, ""),
    "no reason": ("sessions/x/kill", {}, 422, ""),
    "a blank reason": ("sessions/x/kill", {"reason": " "}, 422, "reason"),
    "a session that is not there": ("sessions/nothing/stop", {"used_seconds": 1}, 404, ""),
    "an id that cannot be": ("sessions/%00/stop", {"used_seconds": 1}, 404, ""),
    "a quote for ever": ("quote", {"party": "acme", "called": "44", "seconds": 10**9}, 422, "seconds"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_BODIES)
async def test_bad_input_is_named_and_changes_nothing(wire: Wire, case: str) -> None:
    """The field and a sentence; the wallet and the sessions are as before."""
    await wire.authorise()
    before = (wire.world.wallet(wire.customer), wire.world.sql("SELECT * FROM session_message"))
    path, body, status, field = BAD_BODIES[case]
    found = await wire.problem(path, body)
    assert (found[0], found[2]) == (status, field)
    after = (wire.world.wallet(wire.customer), wire.world.sql("SELECT * FROM session_message"))
    assert after == before


RAW = {
    "no JSON": b"hello",
    "half of it": b'{"session_id": "x"',
    "not UTF-8": b'{"session_id": "\xff\xfe"}',
    "NaN": b'{"session_id": "x", "party": "acme", "called": "44", "requested_seconds": NaN}',
    "deep": b"[" * 10_000,
    "a number beyond all": (
        b'{"session_id": "x", "party": "acme", "called": "44", "requested_seconds": 1'
        + b"0" * 5000
        + b"}"
    ),
    "1e400": b'{"session_id": "x", "party": "acme", "called": "44", "requested_seconds": 1e400}',
    "a lone surrogate": b'{"session_id": "x", "party": "\\ud800", "called": "44"}',
}


@pytest.mark.parametrize("case", RAW)
async def test_bytes_that_are_no_request_get_a_problem_and_no_500(wire: Wire, case: str) -> None:
    """Whatever comes, the answer is a 400 or 422 with a sentence."""
    response = await wire.client.post("/v1/sessions", content=RAW[case])
    status, _, _ = read_problem(response)
    assert status in {400, 422}


@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"])
async def test_another_method_than_post_is_answered_with_what_is_allowed(
    wire: Wire, method: str
) -> None:
    """405 with Allow, as for any other route."""
    for path in ("quote", "sessions/x/start", "sessions/x/kill"):
        response = await wire.client.request(method, f"/v1/{path}")
        assert read_problem(response)[:2] == (405, "method_not_allowed")
        assert response.headers["allow"] == "POST"
    if method != "GET":
        response = await wire.client.request(method, "/v1/sessions")
        assert (response.status_code, response.headers["allow"]) == (405, "GET, POST")


async def test_a_body_that_is_too_large_is_refused(wire: Wire) -> None:
    """A charging request is never 16 KiB."""
    body = {"session_id": "x", "party": "acme", "called": "44", "caller": "1" * 20_000}
    assert (await wire.problem("sessions", body))[:2] == (413, "body_too_large")


async def test_without_a_key_or_with_a_wrong_one_nothing_is_told(wire: Wire) -> None:
    """401 with how to log in; 403 where the key lacks the scope."""
    body = {"session_id": "x", "party": "acme", "called": UK_FIXED}
    for value in ("", "Bearer", "Bearer wrong", "Basic dXNlcjpwYXNz", f"Bearer {wire.token}x"):
        response = await wire.post("sessions", body, headers={"authorization": value})
        assert read_problem(response)[0] == 401
        assert response.headers["www-authenticate"].startswith("Bearer")
    reader = wire.world.key("read")
    await wire.parts.directory.load()
    response = await wire.post("sessions", body, headers={"authorization": f"Bearer {reader}"})
    assert read_problem(response)[:2] == (403, "scope_missing")
    assert wire.world.one("SELECT count(*) FROM live_session") == 0


# --- looking at sessions -------------------------------------------------------------------------


async def test_live_sessions_are_listed_page_by_page(wire: Wire) -> None:
    """In the order of switch and id; by party too; closed ones are not among them."""
    wire.world.customer("other", balance="5")
    await wire.parts.directory.load()
    for number in range(5):
        await wire.authorise(f"s{number}", party="other" if number == 3 else "acme")
    await wire.ok("sessions/s0/stop", used_seconds=1)
    seen: list[str] = []
    after = ""
    while True:
        page = (await wire.client.get("/v1/sessions", params={"limit": 2, "after": after})).json()
        seen += [item["session_id"] for item in page["items"]]
        if page["next"] is None:
            break
        after = page["next"]
    assert seen == ["s1", "s2", "s3", "s4"]
    page = (await wire.client.get("/v1/sessions", params={"party": "other"})).json()
    assert [(i["session_id"], i["party"]) for i in page["items"]] == [("s3", "other")]
    (leg,) = page["items"][0]["legs"]
    assert (leg["held"], leg["charged"], leg["destination"]) == ("3.00", "0.00", "United Kingdom")
    response = await wire.client.get("/v1/sessions", params={"party": "nobody"})
    assert read_problem(response)[:2] == (404, "unknown_party")
    response = await wire.client.get("/v1/sessions", params={"limit": 0})
    assert read_problem(response)[0] == 422


async def test_a_session_is_shown_and_explained_by_its_names(wire: Wire) -> None:
    """The switch's own id, ours, and that of another switch by its name."""
    answer = await wire.authorise(requested_seconds=10)
    await wire.ok("sessions/x/stop", used_ms=12_345)
    shown = [
        (await wire.client.get(path)).json()
        for path in ("/v1/sessions/x", f"/v1/sessions/{answer['id']}", "/v1/sessions/x?switch=sw1")
    ]
    assert shown[0] == shown[1] == shown[2]
    assert (shown[0]["ending"], shown[0]["used_ms"], shown[0]["party"]) == (
        "settled",
        12_345,
        "acme",
    )
    found = (await wire.client.get(f"/v1/sessions/{answer['id']}/explain")).json()
    assert found["session"] == shown[0]
    (leg,) = found["legs"]
    assert (leg["seconds"], leg["billed_seconds"], leg["amount"], leg["charged"]) == (
        13, 13, "0.13", "0.13",
    )  # fmt: skip
    assert (leg["hold"]["taken"], leg["hold"]["overrun"], leg["agrees"]) == ("0.10", "0.03", True)
    assert [e["code"] for e in leg["entries"]] == ["usage", "overrun"]
    assert leg["arithmetic"] == "1 s x 0.6/min + 12 x 1 s x 0.6/min"
    assert leg["tariff"]["rounding"] == "half_up"
    assert [m["request"]["type"] for m in found["messages"]] == ["authorise", "stop"]
    for path in (
        "/v1/sessions/y",
        "/v1/sessions/x?switch=sw9",
        "/v1/sessions/x/explain?switch=sw9",
    ):
        assert read_problem(await wire.client.get(path))[:2] == (404, "unknown_session")


async def test_the_openapi_document_has_all_routes_of_a_session(wire: Wire) -> None:
    """The lean routes are documented beside the others, from the records that decode them."""
    document = (await wire.client.get("/openapi.json")).json()
    routes = {
        (method, path)
        for path, operations in document["paths"].items()
        for method in operations
        if "/sessions" in path or "/quote" in path
    }
    assert routes == {
        ("get", "/v1/sessions"),
        ("post", "/v1/sessions"),
        ("get", "/v1/sessions/{session_id}"),
        ("get", "/v1/sessions/{session_id}/explain"),
        ("post", "/v1/sessions/{session_id}/start"),
        ("post", "/v1/sessions/{session_id}/update"),
        ("post", "/v1/sessions/{session_id}/stop"),
        ("post", "/v1/sessions/{session_id}/kill"),
        ("post", "/v1/quote"),
    }
    assert json.dumps(document)
