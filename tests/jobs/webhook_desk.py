"""A process without jobs that has a customer, and a gateway that remembers what it is to post."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from tests.jobs.test_outbox import SECRET as BARE_SECRET
from tests.jobs.test_outbox import Clock, Receiver
from tests.support import UK_FIXED, World, runtime
from tollkeeper.gateways.webhook import NullWebhook
from tollkeeper.services import webhooks
from tollkeeper.services.feed import KINDS
from tollkeeper.services.webhooks import Webhook

SECRET = f"whsec_{BARE_SECRET}"
URL = "https://billing.example/events"


@asynccontextmanager
async def receiving() -> AsyncIterator[Receiver]:
    """An address on loopback."""
    made = Receiver()
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/events"
    async with server:
        yield made


class Desk:
    """A process without jobs, a customer in it, and a gateway that remembers."""

    def __init__(self, world: World, parts: Any, gateway: NullWebhook, clock: Clock) -> None:
        self.world = world
        self.parts = parts
        self.gateway = gateway
        self.clock = clock

    async def hook(self, code: str = "hook", **options: Any) -> str | None:
        """Add a webhook; the process hears of it."""
        wanted = Webhook(**{"code": code, "url": URL, "events": KINDS, **options})
        _, secret = await webhooks.create_webhook(
            self.parts.database, wanted, secret=SECRET, actor="test"
        )
        await self.parts.directory.load()
        return secret

    async def call(self, id_: str = "x", used_ms: int = 30_000, party: str = "acme") -> None:
        """A call from its authorisation to its end."""
        charging = self.parts.charging
        await charging.authorise(switch="sw1", session_id=id_, party=party, called=UK_FIXED)
        await charging.start(switch="sw1", session_id=id_)
        await charging.stop(switch="sw1", session_id=id_, used_ms=used_ms)

    async def work(self) -> None:
        """Make events and deliver what is due."""
        await self.parts.events.feed()
        await self.parts.events.settle()

    @property
    def told(self) -> list[dict[str, Any]]:
        """The events that were posted."""
        return [json.loads(post.body) for post in self.gateway.sent]

    def deliveries(self) -> list[dict[str, Any]]:
        """As they are stored, the oldest first."""
        return self.world.sql("SELECT * FROM webhook_delivery ORDER BY id")


@asynccontextmanager
async def desk(url: str, **options: Any) -> AsyncIterator[Desk]:
    gateway, clock = NullWebhook(), Clock()
    with World(url) as world:
        world.customer(balance="100")
        async with runtime(url, webhook=gateway, clock=clock, **options) as parts:
            parts.events._dice = lambda: 0.0
            yield Desk(world, parts, gateway, clock)
