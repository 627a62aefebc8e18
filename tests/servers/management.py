"""A client of the management routes, and how their problems are checked."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx

from tests.support import World
from tollkeeper.servers.api.app import create_app
from tollkeeper.servers.api.context import Services

TOPUPS = "/v1/parties/acme/wallets/USD/topups"
STATEMENT = "/v1/parties/acme/wallets/USD/statement"


class Api:
    """A client with a key of its own, and the world behind the server."""

    def __init__(self, world: World, parts: Any, client: httpx.AsyncClient) -> None:
        self.world = world
        self.parts = parts
        self.client = client

    async def call(self, method: str, path: str, **options: Any) -> httpx.Response:
        """Send a request."""
        return await self.client.request(method, path, **options)

    async def top_up(self, body: object, key: str = "k1") -> httpx.Response:
        """Send a top-up to acme's dollars."""
        return await self.call("POST", TOPUPS, json=body, headers={"Idempotency-Key": key})

    def audited(self) -> list[str]:
        """What the audit trail says was done, in order."""
        rows = self.world.sql("SELECT action FROM audit ORDER BY id")
        return [row["action"] for row in rows]


@asynccontextmanager
async def client_of(parts: Any, token: str) -> AsyncIterator[httpx.AsyncClient]:
    services = Services(parts.database, parts.directory, parts.charging, parts.clock)
    # An exception that reaches the server is seen as the 500 that a client would see.
    transport = httpx.ASGITransport(create_app(services), raise_app_exceptions=False)
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    async with httpx.AsyncClient(
        transport=transport, base_url="http://test", headers=headers
    ) as client:
        yield client


def problem(response: httpx.Response, status: int, code: str, field: str | None = None) -> str:
    """Check that the answer is this problem, complete and in the right type; return its sentence."""
    assert response.headers["content-type"] == "application/problem+json", response.text
    body = response.json()
    assert (response.status_code, body["status"], body["code"]) == (status, status, code), body
    assert body["type"] == f"urn:tollkeeper:problem:{code}"
    assert body["title"]
    assert "\n" not in body["detail"]
    assert body.get("field") == field
    return str(body["detail"])
