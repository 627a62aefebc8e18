"""Peers and credentials over HTTP: what is taken, shown, hidden and refused."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from tests.servers.management import problem
from tests.support import World, api
from tollkeeper.services.peer_options import HIDDEN

NEW: dict[str, Any] = {
    "code": "nas",
    "kind": "radius",
    "addresses": ["192.0.2.7"],
    "options": {"orders_secret": "hush-hush", "interim": 30},
}


@dataclass
class Desk:
    """A client with the operator's key."""

    world: World
    client: httpx.AsyncClient
    token: str

    async def call(self, method: str, path: str, **options: Any) -> httpx.Response:
        """Send a request."""
        headers = {"Authorization": f"Bearer {self.token}"}
        return await self.client.request(method, path, headers=headers, **options)


@pytest.fixture
async def desk(database_url: str) -> AsyncIterator[Desk]:
    """The operator at work; acme is a customer."""
    with World(database_url) as world:
        world.customer("acme")
        token = world.key("manage", "read")
        async with api(database_url) as (client, _):
            yield Desk(world, client, token)


async def test_a_peer_lives_its_life_and_its_secrets_are_shown_never_again(desk: Desk) -> None:
    made = (await desk.call("POST", "/v1/peers", json=NEW)).json()
    secret = made.pop("secret")
    assert len(secret) == 32
    assert made == {
        "code": "nas",
        "kind": "radius",
        "switch": "nas",
        "addresses": ["192.0.2.7"],
        "has_secret": True,
        "dialect": "",
        "trunk": "",
        "timezone": "UTC",
        "on_failure": "refuse",
        "risk_seconds": 0,
        "options": {"orders_secret": HIDDEN, "interim": 30},
        "enabled": True,
    }
    assert (await desk.call("GET", "/v1/peers/nas")).json() == made
    changed = await desk.call(
        "PATCH", "/v1/peers/nas", json={"options": {"interim": None}, "enabled": False}
    )
    assert changed.json() == {**made, "options": {"orders_secret": HIDDEN}, "enabled": False}
    kept = desk.world.one("SELECT options ->> 'orders_secret' FROM peer")
    assert kept == "hush-hush"
    listed = (await desk.call("GET", "/v1/peers", params={"kind": "radius"})).json()
    assert listed == {"items": [changed.json()], "next": None}
    assert (await desk.call("DELETE", "/v1/peers/nas")).status_code == 204
    problem(await desk.call("GET", "/v1/peers/nas"), 404, "unknown_peer", "peer")


async def test_peers_come_page_by_page(desk: Desk) -> None:
    for code in ("a", "b", "c"):
        body = {"code": code, "kind": "esme", "secret": "x"}
        assert (await desk.call("POST", "/v1/peers", json=body)).json()["secret"] == ""
    first = (await desk.call("GET", "/v1/peers", params={"limit": 2})).json()
    assert ([one["code"] for one in first["items"]], first["next"]) == (["a", "b"], "b")
    last = (await desk.call("GET", "/v1/peers", params={"after": "b"})).json()
    assert ([one["code"] for one in last["items"]], last["next"]) == (["c"], None)


REFUSED: list[tuple[dict[str, Any], int, str, str]] = [
    ({"kind": "pigeon"}, 422, "invalid_input", "kind"),
    ({"addresses": ["nowhere"]}, 422, "invalid_input", "addresses"),
    ({"options": {"colour": 1}}, 422, "unknown_option", "options"),
    ({"options": {"interim": "x"}}, 422, "invalid_input", "options"),
    ({"trunk": "none"}, 422, "unknown_trunk", "trunk"),
    ({"colour": "red"}, 422, "invalid_input", "colour"),
    ({"addresses": ["192.0.2.8"]}, 409, "peer_exists", "code"),
    ({"code": "other"}, 409, "address_taken", "addresses"),
]


async def test_what_cannot_be_is_refused(desk: Desk) -> None:
    """One after the other; the last ones meet a peer that is there."""
    for changes, status, code, field in REFUSED:
        if changes == {"addresses": ["192.0.2.8"]}:
            assert (await desk.call("POST", "/v1/peers", json=NEW)).status_code == 201
        answer = await desk.call("POST", "/v1/peers", json={**NEW, **changes})
        problem(answer, status, code, field)


async def test_a_credential_lives_its_life_and_its_password_is_never_shown(desk: Desk) -> None:
    body = {"username": "bob", "realm": "example.net", "party": "acme", "password": "hush-hush"}
    answer = await desk.call("POST", "/v1/credentials", json=body)
    made = answer.json()
    assert (answer.status_code, made["party"], made["enabled"]) == (201, "acme", True)
    path = f"/v1/credentials/{made['id']}"
    ha1 = desk.world.one("SELECT ha1 FROM credential")
    changed = await desk.call("PATCH", path, json={"password": "other", "enabled": False})
    assert changed.json() == {**made, "enabled": False}
    assert desk.world.one("SELECT ha1 FROM credential") != ha1
    shown = await desk.call("GET", "/v1/credentials", params={"party": "acme"})
    assert shown.json() == {"items": [changed.json()], "next": None}
    for text in (answer.text, changed.text, shown.text, (await desk.call("GET", path)).text):
        assert "hush" not in text
        assert ha1 not in text
    problem(
        await desk.call("POST", "/v1/credentials", json=body), 409, "credential_exists", "username"
    )
    assert (await desk.call("DELETE", path)).status_code == 204
    problem(await desk.call("GET", path), 404, "unknown_credential")


async def test_a_trunk_that_a_peer_names_is_not_deleted(desk: Desk) -> None:
    """Its calls would be nobody's from then on; once no peer names it, it can go."""
    trunk = {"code": "acme-in", "direction": "in", "party": "acme", "addresses": ["192.0.2.7"]}
    assert (await desk.call("POST", "/v1/trunks", json=trunk)).status_code == 201
    named = await desk.call("POST", "/v1/peers", json={**NEW, "trunk": "acme-in"})
    assert named.status_code == 201
    said = problem(await desk.call("DELETE", "/v1/trunks/acme-in"), 409, "trunk_in_use", "trunk")
    assert said == 'the trunk "acme-in" is that of the peer "nas"; change that peer first'
    assert (await desk.call("PATCH", "/v1/peers/nas", json={"trunk": ""})).status_code == 200
    assert (await desk.call("DELETE", "/v1/trunks/acme-in")).status_code == 204


async def test_what_is_shown_in_the_place_of_a_secret_does_not_replace_it(desk: Desk) -> None:
    """A client may send back what it got, with another option changed."""
    assert (await desk.call("POST", "/v1/peers", json=NEW)).status_code == 201
    shown = (await desk.call("GET", "/v1/peers/nas")).json()["options"]
    changed = await desk.call("PATCH", "/v1/peers/nas", json={"options": {**shown, "interim": 60}})
    assert changed.json()["options"] == {"orders_secret": HIDDEN, "interim": 60}
    assert desk.world.one("SELECT options ->> 'orders_secret' FROM peer") == "hush-hush"
