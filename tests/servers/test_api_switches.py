"""The routes of switches: an address is set, shown and forgotten; a secret is seen once."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.servers.management import Api, client_of, problem
from tests.support import World, runtime

ROUTE = "/v1/switches/sw1"
URL = "https://switch.example/kill"
OWN_SECRET = "whsec_" + "A" * 32


@pytest_asyncio.fixture
async def api(database_url: str) -> AsyncIterator[Api]:
    with World(database_url) as world:
        token = world.key("manage")
        async with runtime(database_url) as parts, client_of(parts, token) as client:
            yield Api(world, parts, client)


async def test_a_secret_that_is_made_is_shown_once(api: Api) -> None:
    made = await api.call("PUT", ROUTE, json={"kill_url": URL})
    assert made.status_code == 200, made.text
    secret = made.json()["secret"]
    assert re.fullmatch(r"whsec_[A-Za-z0-9+/]{43}=", secret)
    assert api.world.one("SELECT secret FROM switch WHERE code = 'sw1'") == secret
    shown = await api.call("GET", ROUTE)
    assert shown.json() == {"code": "sw1", "kill_url": URL}
    trail = api.world.sql("SELECT detail::text AS detail FROM audit")
    assert not any(secret in row["detail"] for row in trail)


async def test_a_secret_that_is_given_is_kept_and_not_repeated(api: Api) -> None:
    await api.call("PUT", ROUTE, json={"kill_url": URL})
    body = {"kill_url": "http://10.0.0.7:8088/end", "secret": OWN_SECRET}
    answer = await api.call("PUT", ROUTE, json=body)
    assert answer.json() == {"code": "sw1", "kill_url": body["kill_url"], "secret": None}
    stored = api.world.sql("SELECT kill_url, secret FROM switch")
    assert stored == [body]


async def test_a_switch_is_forgotten(api: Api) -> None:
    await api.call("PUT", ROUTE, json={"kill_url": URL})
    assert (await api.call("DELETE", ROUTE)).status_code == 204
    problem(await api.call("GET", ROUTE), 404, "unknown_switch", "code")
    problem(await api.call("DELETE", ROUTE), 404, "unknown_switch", "code")
    assert api.audited() == ["switch.set", "switch.delete"]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"kill_url": "ftp://switch.example/kill"}, "kill_url"),
        ({"kill_url": "https://"}, "kill_url"),
        ({"kill_url": "javascript:alert(1)"}, "kill_url"),
        ({"kill_url": URL, "secret": ""}, "secret"),
        ({"kill_url": URL, "secret": "whsec_AAAA"}, "secret"),
        ({"kill_url": URL, "hidden": 1}, "hidden"),
        ({}, "kill_url"),
    ],
)
async def test_a_wrong_address_or_secret_changes_nothing(
    api: Api, body: dict[str, object], field: str
) -> None:
    answer = await api.call("PUT", ROUTE, json=body)
    assert (answer.status_code, answer.json()["field"]) == (422, field), answer.text
    assert api.world.sql("SELECT * FROM switch") == []


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
async def test_only_a_key_that_may_manage_is_let_in(api: Api, method: str) -> None:
    """The address of a switch is inside of a network: keys that only look do not see it."""
    await api.parts.directory.load()
    token = api.world.key("charge", "read")
    await api.parts.directory.load()
    async with client_of(api.parts, token) as client:
        body = {"json": {"kill_url": URL}} if method == "PUT" else {}
        problem(await client.request(method, ROUTE, **body), 403, "scope_missing")
