"""Events, data sessions, the tree and packages over HTTP."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import httpx
import pytest

from tests.support import UK_FIXED, Customer, Row, World, api, tariff
from tollkeeper.services.verify import verify

MOBILE = "447700900123"
PACKAGES = {
    "packages": [
        {"code": "hour", "units": 60, "price": "5", "currency": "USD"},
        {"code": "dear", "units": 60, "price": "500", "currency": "USD"},
    ]
}


@dataclass
class Wire:
    """A client with keys of the operator, of the reseller north and of its customer acme."""

    client: httpx.AsyncClient
    world: World
    parts: Any
    north: Customer
    acme: Customer
    tokens: dict[str, str]

    async def ask(
        self, path: str, by: str = "operator", method: str = "POST", **options: Any
    ) -> httpx.Response:
        """Send a request with somebody's key."""
        headers = {"authorization": f"Bearer {self.tokens[by]}", **options.pop("headers", {})}
        return await self.client.request(method, f"/v1/{path}", headers=headers, **options)

    async def ok(self, path: str, by: str = "operator", **body: Any) -> dict[str, Any]:
        """POST and read an answer that must be 200."""
        response = await self.ask(path, by, json=body)
        assert response.status_code == 200, response.text
        answer: dict[str, Any] = response.json()
        return answer

    async def problem(self, path: str, by: str = "operator", **body: Any) -> tuple[int, str]:
        """POST and read a problem: status and code."""
        response = await self.ask(path, by, json=body)
        assert response.headers["content-type"] == "application/problem+json", response.text
        return response.status_code, response.json()["code"]

    async def event(self, name: str = "e1", by: str = "operator", **more: Any) -> dict[str, Any]:
        """Charge a message to acme."""
        return await self.ok(
            "events", by, **{"event_id": name, "party": "acme", "called": MOBILE, **more}
        )


def bounded(world: World, party: Customer, switch: str) -> str:
    """A key that is bounded to a party."""
    token = f"tk_bounded{party.id:022d}"
    world.sql(
        "INSERT INTO api_key (name, hash, scopes, switch, party_id) VALUES (%s, %s, %s, %s, %s)",
        f"key of {party.code}",
        hashlib.sha256(token.encode()).digest(),
        ["charge", "read", "manage"],
        switch,
        party.id,
    )
    return token


@pytest.fixture
async def wire(database_url: str) -> AsyncIterator[Wire]:
    """Acme pays 0.05 a segment and 0.6 a minute, north 0.03 and 0.6; data is 0.01 a megabyte at both."""
    with World(database_url) as world:
        voice = world.card("voice", [Row("44", "United Kingdom", tariff("0.6"))])
        data = world.card(
            "data", [Row("", "Home", tariff("0.01", 1000, 1000))], service="data", per=1_000_000
        )
        retail = world.card("sms", [Row("44", "UK", tariff("0.05"))], service="sms", per=1)
        cost = world.card("sms-ws", [Row("44", "UK", tariff("0.03"))], service="sms", per=1)
        north = world.reseller("north", plan=world.plan("ws", voice, data, cost))
        acme = world.customer(
            plan=world.plan("rt", voice, data, retail, terms=PACKAGES), parent=north
        )
        tokens = {
            "operator": world.key("charge", "manage", "read"),
            "north": bounded(world, north, "north-sw"),
            "acme": bounded(world, acme, "acme-sw"),
        }
        async with api(database_url) as (client, parts):
            yield Wire(client, world, parts, north, acme, tokens)


async def test_a_message_is_charged_answered_and_refunded(wire: Wire) -> None:
    """Two segments of UCS-2; the same again is a repeat; the refund gives all of it back."""
    answer = await wire.event(text="\u041f" * 71)
    assert answer == {
        "outcome": "charged",
        "event_id": "e1",
        "id": answer["id"],
        "unit": "message",
        "units": 2,
        "reason": "",
        "reason_text": "Allowed.",
        "currency": "USD",
        "charge": "0.100000",
        "repeated": False,
        "refused_by": None,
    }
    assert await wire.event(text="\u041f" * 71) == {**answer, "repeated": True}
    refund = await wire.ok("events/e1/refund", units=1, reason="undelivered")
    assert (refund["outcome"], refund["charge"]) == ("refunded", "0.050000")
    assert Decimal((await wire.ok("events/e1/refund"))["charge"]) == 0
    assert wire.world.wallet(wire.acme).balance == 100
    assert wire.world.wallet(wire.north).balance == 100
    report = await verify(wire.parts.database)
    assert report.clean, report.findings


async def test_who_may_refund_for_which_reason(wire: Wire) -> None:
    """A switch says what was not delivered, the operator's own that it failed, a human all else."""
    wire.tokens["smsc"] = wire.world.key("charge")
    await wire.parts.directory.load()
    await wire.event(by="smsc", segments=3)
    for reason in ("", "goodwill", "Undelivered"):
        told = await wire.problem("events/e1/refund", "smsc", reason=reason)
        assert told == (403, "scope_missing")
    assert (await wire.ok("events/e1/refund", "smsc", units=1, reason="undelivered"))[
        "charge"
    ] == "0.100000"
    assert (await wire.ok("events/e1/refund", "smsc", units=2, reason="failed"))[
        "charge"
    ] == "0.050000"
    assert Decimal((await wire.ok("events/e1/refund", reason="goodwill"))["charge"]) == 0
    await wire.event("own", by="acme")
    for reason in ("", "failed", "goodwill"):
        told = await wire.problem("events/own/refund", "acme", reason=reason)
        assert told == (403, "operator_only")
    assert wire.world.wallet(wire.acme).balance == Decimal("99.95")
    assert (
        Decimal((await wire.ok("events/own/refund", "acme", reason="undelivered"))["charge"]) == 0
    )
    assert wire.world.wallet(wire.acme).balance == 100


async def test_a_plan_that_gives_nothing_back_is_obeyed(wire: Wire) -> None:
    """Told over HTTP, in force for what was charged before, too."""
    terms = {**PACKAGES, "refunds": [{"service": "sms", "undelivered": "none"}]}
    await wire.event()
    put = await wire.ask("plans/rt/terms", method="PUT", json=terms)
    assert put.status_code == 200, put.text
    assert put.json()["refunds"] == [
        {"service": "sms", "undelivered": "none", "within_hours": None}
    ]
    await wire.parts.directory.refresh("plan", 0)
    told = await wire.problem("events/e1/refund", reason="undelivered")
    assert told == (409, "not_refundable")
    assert Decimal((await wire.ok("events/e1/refund", reason="goodwill"))["charge"]) == 0


async def test_sixteen_hundred_emoji_fit_into_a_request(wire: Wire) -> None:
    """Each is written as twelve characters of escapes; 33 fit into a segment: 49."""
    assert (await wire.event(text="\U0001f600" * 1_600))["units"] == 49


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"party": "nobody"}, (404, "unknown_party")),
        ({"text": "a", "units": 1}, (422, "invalid_input")),
        ({"text": "x" * 39_016}, (422, "invalid_field")),
        ({"segments": 256}, (422, "invalid_field")),
        ({"segments": 0}, (422, "invalid_field")),
        ({"units": -1}, (422, "invalid_field")),
        ({"units": 10**14}, (422, "invalid_field")),
        ({"event_id": "../x"}, (422, "invalid_field")),
        ({"network": "abc"}, (422, "invalid_field")),
        ({"lrn": "1"}, (422, "invalid_field")),
        ({"called": "abc"}, (422, "invalid_number")),
        ({"colour": "red"}, (422, "invalid_field")),
    ],
)
async def test_a_wrong_event_is_refused_clearly(
    wire: Wire, body: dict[str, Any], expected: tuple[int, str]
) -> None:
    """Nothing is charged, and the field is named."""
    given = {"event_id": "e1", "party": "acme", "called": MOBILE, **body}
    assert await wire.problem("events", **given) == expected
    assert wire.world.wallet(wire.acme).balance == 100


async def test_half_a_surrogate_pair_is_no_text(wire: Wire) -> None:
    """It is no character, so it cannot be sent."""
    body = f'{{"event_id": "e", "party": "acme", "called": "{MOBILE}", "text": "\\ud800"}}'
    response = await wire.ask("events", content=body.encode())
    assert (response.status_code, response.json()["code"]) == (400, "invalid_json")


async def test_refunds_of_what_is_not_there_or_not_closed_are_problems(wire: Wire) -> None:
    """An unknown event, a call that is up, and an address that is none."""
    assert await wire.problem("events/none/refund") == (404, "unknown_session")
    await wire.ok("sessions", session_id="up", party="acme", called=UK_FIXED)
    status, _ = await wire.problem("events/up/refund")
    assert status == 409
    assert (await wire.ask("events", method="PUT")).status_code == 405
    assert (await wire.ask("events/a/b/refund")).status_code == 404


async def test_a_data_session_speaks_of_bytes(wire: Wire) -> None:
    """Granted, reported with a counter of 32 bits, and settled."""
    given = {"party": "acme", "called": "internet", "service": "data"}
    answer = await wire.ok("sessions", session_id="d", requested_units=50_000_000, **given)
    assert (answer["unit"], answer["granted_units"]) == ("byte", 50_000_000)
    answer = await wire.ok("sessions/d/update", used_bytes=4_294_000_000, counter_bits=32)
    answer = await wire.ok("sessions/d/stop", used_bytes=32_704, counter_bits=32)
    assert (answer["used_ms"], answer["charge"]) == (4_295_000_000_000, "42.950000")


@pytest.mark.parametrize(
    "body",
    [
        {"used_bytes": 1, "used_units": 1},
        {"used_seconds": 1, "used_bytes": 1},
        {},
        {"used_bytes": 2**32, "counter_bits": 32},
        {"used_ms": 5, "counter_bits": 32},
        {"used_bytes": 5, "counter_bits": 16},
    ],
)
async def test_usage_is_said_once_and_in_bounds(wire: Wire, body: dict[str, Any]) -> None:
    """The call is as it was."""
    await wire.ok("sessions", session_id="x", party="acme", called=UK_FIXED)
    status, code = await wire.problem("sessions/x/update", **body)
    assert (status, code in {"invalid_usage", "invalid_field"}) == (422, True)


async def test_who_refused_is_told_to_the_operator_alone(wire: Wire) -> None:
    """North has no money: the operator reads so, north that its money is gone, acme only "upstream"."""
    wire.world.sql("UPDATE wallet SET debited = credited WHERE id = %s", wire.north.wallet_id)
    call = {"session_id": "x", "party": "acme", "called": UK_FIXED}
    seen = {by: await wire.ok("sessions", by, **call) for by in ("operator", "north", "acme")}
    shown = {by: (a["reason"], a["refused_by"]) for by, a in seen.items()}
    assert shown == {
        "operator": ("insufficient_funds", "north"),
        "north": ("insufficient_funds", None),
        "acme": ("upstream_refused", None),
    }
    assert seen["acme"]["sip_code"] == 403
    assert (await wire.event("m", "acme", segments=1))["reason"] == "upstream_refused"


async def test_a_bounded_key_knows_its_own_subtree_only(wire: Wire) -> None:
    """Acme may not charge north, and not touch what it has not opened."""
    assert await wire.problem(
        "sessions", "acme", session_id="a", party="north", called=UK_FIXED
    ) == (404, "unknown_party")
    assert await wire.problem("quote", "acme", party="north", called=UK_FIXED) == (
        404, "unknown_party",
    )  # fmt: skip
    opened = await wire.ok("sessions", "north", session_id="n", party="north", called=UK_FIXED)
    assert await wire.problem(f"sessions/{opened['id']}/kill", "acme", reason="x") == (
        404, "unknown_session",
    )  # fmt: skip


async def test_a_quote_is_in_units_and_lasts_as_long_as_every_levels_money(wire: Wire) -> None:
    """Three megabytes are three cents; north's 0.06 covers two messages of acme's plenty."""
    answer = await wire.ok("quote", party="acme", called="web", service="data", units=3_000_000)
    assert (answer["price"], answer["unit"], answer["units"]) == ("0.030000", "byte", 3_000_000)
    wire.world.sql(
        "UPDATE wallet SET debited = credited - 0.06 WHERE id = %s", wire.north.wallet_id
    )
    answer = await wire.ok("quote", party="acme", called=MOBILE, service="sms")
    assert (answer["price"], answer["affordable_units"]) == ("0.050000", 2)
    status, _ = await wire.problem("quote", party="acme", called=MOBILE, seconds=1, units=1)
    assert status == 422


async def test_a_package_is_bought_seen_and_let_end(wire: Wire) -> None:
    """Once for each Idempotency-Key; refused where the money does not cover it."""
    path, header = "parties/acme/packages", {"Idempotency-Key": "k1"}
    bought = [await wire.ask(path, json={"package": "hour"}, headers=header) for _ in range(2)]
    assert [response.status_code for response in bought] == [201, 201]
    first, second = (response.json() for response in bought)
    assert (first["status"], first["id"]) == ("active", second["id"])
    assert (first["price"], first["included"], first["unit"]) == ("5.00", 3600, "second")
    assert wire.world.wallet(wire.acme).balance == 95
    listed = (await wire.ask(path, method="GET")).json()["items"]
    assert [(item["package"], item["left"]) for item in listed] == [("hour", 3600)]
    header = {"Idempotency-Key": "k2"}
    dear = (await wire.ask(path, json={"package": "dear"}, headers=header)).json()
    assert (dear["status"], dear["reason"]) == ("refused", "insufficient_funds")
    changed = await wire.ask(f"{path}/{first['id']}", method="PATCH", json={"renew": False})
    assert changed.json()["renew"] is False
    unknown = await wire.ask(path, json={"package": "none"}, headers={"Idempotency-Key": "k3"})
    assert (unknown.status_code, unknown.json()["code"]) == (404, "unknown_package")
    assert wire.world.wallet(wire.acme).balance == Decimal(95)


async def test_a_reseller_buys_packages_for_its_customers_not_for_itself(wire: Wire) -> None:
    """Acme's key may look and not buy."""
    path, body = "parties/acme/packages", {"package": "hour"}
    own = await wire.ask(path, "acme", json=body, headers={"Idempotency-Key": "a"})
    assert (own.status_code, own.json()["code"]) == (403, "own_party")
    response = await wire.ask(path, "north", json=body, headers={"Idempotency-Key": "a"})
    assert response.status_code == 201
    seen = await wire.ask(path, "acme", method="GET")
    assert len(seen.json()["items"]) == 1


async def test_the_routes_are_part_of_the_document(wire: Wire) -> None:
    """Events and their refund, with the fields that decode them."""
    document = (await wire.ask("../openapi.json", method="GET")).json()
    assert {"/v1/events", "/v1/events/{event_id}/refund"} <= document["paths"].keys()
    fields = document["components"]["schemas"]["EventRequest"]["properties"]
    assert {"text", "segments", "units", "network", "lrn"} <= fields.keys()


async def test_an_extensions_key_is_not_told_what_its_calls_cost(wire: Wire) -> None:
    """It calls and is not shown the money of the one that pays; a quote is refused."""
    user = wire.world.user("acme-101", wire.acme)
    wire.tokens["user"] = bounded(wire.world, user, "phone")
    await wire.parts.directory.load()
    answer = await wire.event("u", "user", party="acme-101", segments=1)
    assert (answer["outcome"], answer["charge"], answer["currency"]) == ("charged", None, "")
    assert wire.world.wallet(wire.acme).debited == Decimal("0.05")
    assert await wire.problem("quote", "user", party="acme-101", called=UK_FIXED) == (
        403,
        "operator_only",
    )
