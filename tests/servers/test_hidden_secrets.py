"""Secrets that were given once are in no answer, refusal, audit row, event or log afterwards."""

from __future__ import annotations

import hashlib
import json
import logging
import re
from typing import Any

import httpx
import pytest

from tests.support import World, api

MARK = "plantedsecret"
PASSWORD = f"{MARK}-password"
HA1 = hashlib.md5(f"bob:sip.example:{PASSWORD}".encode(), usedforsecurity=False).hexdigest()
KEYS = (
    f"whsec_{'cGxhbnRlZHNlY3JldC1vbmUtMTIzNDU2Nzg5MA=='}",
    f"whsec_{'cGxhbnRlZHNlY3JldC10d28tMTIzNDU2Nzg5MA=='}",
)
PLANTED = (MARK, HA1, "cGxhbnRlZHNlY3JldC", "planted%2D")
PEER: dict[str, Any] = {
    "code": "nas", "kind": "radius", "addresses": ["192.0.2.7"], "secret": f"{MARK}-nas",
    "options": {"orders_secret": f"{MARK}-orders", "trunk_password": f"{MARK}-trunk"},
}  # fmt: skip
BOB = {"username": "bob", "realm": "sip.example", "party": "acme", "password": PASSWORD}
HOOK = {"code": "hook", "url": f"https://x.example/in?token={MARK}-url", "events": ["wallet.topup"]}


def hidden(text: str, where: str) -> None:
    """None of what was planted is there."""
    for planted in PLANTED:
        assert planted.lower() not in text.lower(), f"{where}: {text[:2000]}"


class Asker:
    """Sends requests of the operator, and looks at every answer."""

    def __init__(self, client: httpx.AsyncClient, token: str) -> None:
        self._client, self._headers = client, {"Authorization": f"Bearer {token}"}

    async def __call__(self, method: str, path: str, **options: Any) -> httpx.Response:
        """Ask, and look."""
        answer = await self._client.request(method, path, headers=self._headers, **options)
        hidden(answer.text.replace(f"?token={MARK}-url", ""), f"{method} {path}")
        return answer


async def plant(ask: Asker) -> None:
    """Secrets of every sort, given at once and in place of others."""
    steps = [
        ("POST", "/v1/peers", PEER),
        ("PATCH", "/v1/peers/nas", {"secret": f"{MARK}-again", "options": {"orders_secret": f"{MARK}-b"}}),
        ("POST", "/v1/credentials", BOB),
        ("PATCH", "/v1/credentials/1", {"ha1": HA1}),
        ("POST", "/v1/webhooks", {**HOOK, "secret": KEYS[0]}),
        ("POST", "/v1/webhooks/hook/secret", {"secret": KEYS[1], "keep_hours": 5}),
        ("POST", "/v1/webhooks/hook/test", None),
    ]  # fmt: skip
    for method, path, body in steps:
        answer = await ask(method, path, json=body)
        assert answer.status_code < 300, answer.text


async def refusals(ask: Asker) -> None:
    """What is refused is not said again."""
    steps = [
        ("POST", "/v1/peers", PEER),
        ("POST", "/v1/peers", {**PEER, "code": "b", "secret": MARK * 30}),
        ("POST", "/v1/peers", {**PEER, "code": "b", "secret": [MARK]}),
        ("POST", "/v1/peers", {**PEER, "code": "b", "options": {"orders_secret": [MARK]}}),
        ("POST", "/v1/peers", {**PEER, "code": "b", "options": {"orders_secret": MARK * 99}}),
        ("POST", "/v1/peers", {**PEER, "code": "b", "addresses": []}),
        ("PATCH", "/v1/peers/nas", {"secret": f"{MARK}\n"}),
        ("POST", "/v1/credentials", BOB),
        ("POST", "/v1/credentials", {**BOB, "ha1": HA1}),
        ("POST", "/v1/credentials", {**BOB, "username": "eve", "password": MARK * 30}),
        ("POST", "/v1/credentials", {**BOB, "password": "", "ha1": f"{HA1}0"}),
        ("POST", "/v1/webhooks", {**HOOK, "secret": KEYS[0]}),
        ("POST", "/v1/webhooks", {**HOOK, "code": "b", "secret": MARK}),
        ("POST", "/v1/webhooks/hook/secret", {"secret": MARK}),
    ]
    for method, path, body in steps:
        answer = await ask(method, path, json=body)
        assert 400 <= answer.status_code < 500, f"{method} {path} {answer.text}"


async def test_planted_secrets_never_come_out(
    database_url: str, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Every route that can be read is asked, and everything that was written down is looked at."""
    caplog.set_level(logging.DEBUG)
    with World(database_url) as world:
        world.customer("acme")
        token = world.key("manage", "read", "charge")
        async with api(database_url) as (client, parts):
            ask = Asker(client, token)
            await plant(ask)
            await refusals(ask)
            hidden(repr(parts.directory.peers.peers), "repr of peers")
            document = (await ask("GET", "/openapi.json")).json()
            values = {"/v1/peers": "nas", "/v1/webhooks": "hook", "/v1/credentials": "1"}
            asked = 0
            for path in (path for path, ways in document["paths"].items() if "get" in ways):
                known = next((v for start, v in values.items() if path.startswith(start)), "acme")
                query = {"seconds": "0", "after": "0"} if path == "/v1/events" else {}
                answer = await ask("GET", re.sub(r"\{\w+\}", known, path), params=query)
                assert answer.status_code != 500, answer.text
                asked += answer.status_code == 200
            assert asked > 40
            assert (await ask("GET", "/v1/webhooks/hook/deliveries")).json()["items"]
            assert (await ask("DELETE", "/v1/peers/nas")).status_code == 204
            assert (await ask("DELETE", "/v1/credentials/1")).status_code == 204
        for table in ("audit", "feed", "webhook_delivery", "outbox"):
            rows = world.sql(f"SELECT t::text AS row FROM {table} t")
            assert rows or table in {"feed", "outbox"}
            hidden(json.dumps(rows), table)
    said = capfd.readouterr()
    hidden(said.out + said.err + caplog.text, "the log")
