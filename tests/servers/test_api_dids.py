"""Numbers and fees over HTTP, as the operator and as a party."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from tests.servers.management import problem
from tests.services.fee_world import FREE, INVENTORY, MILANESE, ROMAN, plan
from tests.support import Customer, World
from tests.support import api as whole_api


@dataclass
class Desk:
    """Acme buys from south; both have keys of their own."""

    world: World
    client: httpx.AsyncClient
    tokens: dict[str, str]

    async def send(self, who: str, method: str, path: str, **options: Any) -> httpx.Response:
        """Send a request with somebody's key."""
        headers = {"Authorization": f"Bearer {self.tokens[who]}", **options.pop("headers", {})}
        return await self.client.request(method, path, headers=headers, **options)

    async def order(self, who: str = "acme", number: str = ROMAN, name: str = "d1") -> Any:
        """Order a number for acme."""
        body = {"request_id": name, "party": "acme", "number": number}
        return await self.send(who, "POST", "/v1/did-orders", json=body)


def token_of(world: World, party: Customer) -> str:
    """A key that is bounded to a party."""
    token = f"tk_party{party.id:027d}"
    world.sql(
        "INSERT INTO api_key (name, hash, scopes, switch, party_id) VALUES (%s, %s, %s, 'sw1', %s)",
        party.code,
        hashlib.sha256(token.encode()).digest(),
        ["charge", "read", "manage"],
        party.id,
    )
    return token


@pytest.fixture
async def desk(database_url: str) -> AsyncIterator[Desk]:
    with World(database_url) as world:
        south = world.reseller("south", balance="1000", plan=plan(world, "n-sub", "3", "7"))
        acme = world.customer(balance="1000", plan=plan(world, "n-retail", "5", "10"), parent=south)
        tokens = {one.code: token_of(world, one) for one in (south, acme, world.customer("other"))}
        tokens["operator"] = world.key("read", "manage", "charge")
        async with whole_api(database_url) as (client, _):
            made = Desk(world, client, tokens)
            answer = await made.send(
                "operator", "POST", "/v1/did-inventory/imports",
                content=INVENTORY.encode() + b"x,IT,,,,\n", headers={"Content-Type": "text/csv"},
            )  # fmt: skip
            assert answer.status_code == 201, answer.text
            body = answer.json()
            assert (body["given"], body["added"], body["refused"]) == (3, 3, 1)
            assert body["refusals"][0]["line"] == 5
            yield made


async def test_a_party_searches_orders_routes_and_releases(desk: Desk) -> None:
    found = (await desk.send("acme", "GET", "/v1/dids", params={"prefix": "39"})).json()
    assert [one["number"] for one in found["items"]] == [MILANESE, ROMAN]
    order = (await desk.order()).json()
    assert (order["status"], order["charge"], order["number"]) == ("done", "5.00", ROMAN)
    assert (await desk.order()).json() == order
    shown = (await desk.send("acme", "GET", f"/v1/did-orders/{order['id']}")).json()
    assert shown == order
    did = (await desk.send("operator", "GET", f"/v1/dids/{ROMAN}")).json()
    assert (did["party"], did["status"], did["grace_days"]) == ("acme", "assigned", 3)
    routed = await desk.send(
        "acme", "PATCH", f"/v1/dids/{ROMAN}", json={"destination": "sip:desk@pbx.example"}
    )
    assert routed.json()["destination"] == "sip:desk@pbx.example"
    assert (await desk.send("acme", "POST", f"/v1/dids/{ROMAN}/release")).status_code == 204
    did = (await desk.send("operator", "GET", f"/v1/dids/{ROMAN}")).json()
    assert (did["party"], did["status"]) == ("", "quarantined")
    history = (await desk.send("operator", "GET", f"/v1/dids/{ROMAN}/history")).json()
    assert [one["event"] for one in history["items"]] == ["ordered", "assigned", "released"]


async def test_pages_and_patterns(desk: Desk) -> None:
    first = (await desk.send("operator", "GET", "/v1/dids", params={"limit": "2"})).json()
    assert ([one["number"] for one in first["items"]], first["next"]) == ([MILANESE, ROMAN], ROMAN)
    rest = (
        await desk.send("operator", "GET", "/v1/dids", params={"limit": "2", "after": ROMAN})
    ).json()
    assert ([one["number"] for one in rest["items"]], rest["next"]) == ([FREE], None)
    found = await desk.send("operator", "GET", "/v1/dids", params={"pattern": "800?2*"})
    assert [one["number"] for one in found.json()["items"]] == [FREE]
    both = await desk.send("operator", "GET", "/v1/dids", params={"pattern": "8*", "prefix": "8"})
    problem(both, 422, "invalid_input", "pattern")


async def test_what_another_has_does_not_exist_for_a_party(desk: Desk) -> None:
    order = (await desk.order()).json()
    for method, path, body in (
        ("GET", f"/v1/dids/{ROMAN}", None),
        ("GET", f"/v1/dids/{ROMAN}/history", None),
        ("GET", f"/v1/did-orders/{order['id']}", None),
        ("PATCH", f"/v1/dids/{ROMAN}", {"destination": "sip:x"}),
        ("POST", f"/v1/dids/{ROMAN}/release", None),
        ("GET", f"/v1/fees/{order['fee_id']}", None),
    ):
        answer = await desk.send("other", method, path, json=body)
        assert answer.status_code == 404, (path, answer.text)
    problem(await desk.order("other", MILANESE, "d9"), 404, "unknown_party", "party")
    taken = {"request_id": "o1", "party": "other", "number": ROMAN}
    problem(
        await desk.send("other", "POST", "/v1/did-orders", json=taken),
        409,
        "number_taken",
        "number",
    )
    refused = await desk.send(
        "south", "POST", "/v1/did-inventory/imports",
        content=INVENTORY, headers={"Content-Type": "text/csv"},
    )  # fmt: skip
    problem(refused, 403, "operator_only")
    chosen = {"request_id": "s1", "party": "acme", "number": "390699", "supplier": "sky"}
    problem(await desk.send("acme", "POST", "/v1/did-orders", json=chosen), 403, "operator_only")


async def test_fees_are_added_listed_and_ended(desk: Desk) -> None:
    body = {
        "party": "acme",
        "name": "help desk",
        "period": "once",
        "amount": "12.50",
        "currency": "USD",
    }
    key = {"Idempotency-Key": "f1"}
    made = await desk.send("south", "POST", "/v1/fees", json=body, headers=key)
    assert made.status_code == 201, made.text
    fee = made.json()
    assert (fee["status"], fee["amount"], fee["party"]) == ("ended", "12.50", "acme")
    again = await desk.send("south", "POST", "/v1/fees", json=body, headers=key)
    assert again.json()["id"] == fee["id"]
    own = await desk.send("acme", "POST", "/v1/fees", json=body, headers={"Idempotency-Key": "f2"})
    problem(own, 403, "own_party")
    monthly = {"party": "acme", "name": "line", "period": "month", "called": "7"}
    line = await desk.send(
        "operator", "POST", "/v1/fees", json=monthly, headers={"Idempotency-Key": "f3"}
    )
    assert (line.json()["status"], line.json()["amount"]) == ("active", None)
    ended = await desk.send("operator", "POST", f"/v1/fees/{line.json()['id']}/end", json={})
    assert ended.json()["status"] == "ended"
    for who, count in (("acme", 2), ("south", 2), ("other", 0)):
        listed = (await desk.send(who, "GET", "/v1/fees")).json()
        assert len(listed["items"]) == count, who
    wrong = {**body, "ends_on": "soon"}
    answer = await desk.send(
        "operator", "POST", "/v1/fees", json=wrong, headers={"Idempotency-Key": "f4"}
    )
    problem(answer, 422, "invalid_input", "ends_on")
    assert (await desk.send("acme", "GET", "/v1/commitments")).json() == {"items": []}
