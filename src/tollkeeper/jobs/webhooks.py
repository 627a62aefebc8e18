"""Events leave: made of the outbox, and posted to webhooks until they are taken.

Retries are those that Standard Webhooks 1.0.0 gives as its example, over three days. Each webhook is
served by itself, so that one that is slow or dead is in nobody's way; the order of events is not promised.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial

import structlog

from tollkeeper.gateways.webhook import Outcome, Post, WebhookGateway
from tollkeeper.jobs.timers import every
from tollkeeper.services.feed import Feeder, message_id
from tollkeeper.services.tasks import end
from tollkeeper.store import feed
from tollkeeper.store import webhooks as store
from tollkeeper.store.changes import record
from tollkeeper.store.db import Connection, Database
from tollkeeper.store.webhooks import Claimed, Endpoint
from tollkeeper.telemetry import counter

RETRIES = tuple(
    timedelta(seconds=seconds)
    for seconds in (5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400)
)
"""Pauses after the first, second ... failure; after the last attempt it is given up."""
JITTER_PERCENT = 20
"""A pause is longer by up to so much, so that what failed together does not come back together."""
DISABLE_AFTER = timedelta(days=5)
"""A webhook that has taken nothing for so long is told nothing more."""
GONE = 410
AT_ONCE = 8
"""Requests at a time to one webhook; one that is failing gets one."""
ENDPOINTS_AT_ONCE = 50
LEASE = timedelta(seconds=60)
"""So long nobody else takes up what a process is sending; longer than a request can take."""
FEED_TICK_SECONDS = 0.1
DELIVER_TICK_SECONDS = 0.25
HOUSE_SECONDS = 3600.0
FEED_KEEP = timedelta(days=7)
DELIVERY_KEEP = timedelta(days=30)
_POSTS = counter("webhook_posts", "Attempts to post an event to a webhook.", ["outcome"])
_log = structlog.get_logger()


class WebhookJobs:
    """The jobs of one process."""

    def __init__(
        self,
        *,
        database: Database,
        gateway: WebhookGateway,
        clock: Callable[[], datetime],
        dice: Callable[[], float] = random.random,
    ) -> None:
        self._database = database
        self._gateway = gateway
        self._clock = clock
        self._dice = dice
        self._feeder = Feeder(database, clock)
        self._turns: dict[int, asyncio.Task[None]] = {}
        self._tasks: list[asyncio.Task[None]] = []

    def start(
        self, *, feed_tick: float = FEED_TICK_SECONDS, tick: float = DELIVER_TICK_SECONDS
    ) -> None:
        """Begin; the ticks are the pauses in seconds between looks for something to do."""
        self._tasks = [
            asyncio.create_task(every(feed_tick, self.feed), name="feed"),
            asyncio.create_task(every(tick, self.deliver), name="webhooks"),
            asyncio.create_task(every(HOUSE_SECONDS, self.keep_house), name="webhooks-house"),
        ]

    async def stop(self) -> None:
        """End all; what was on its way is sent again by whoever comes next."""
        await end([*self._tasks, *self._turns.values()])
        self._tasks = []
        self._turns = {}
        await self._gateway.close()

    async def feed(self) -> bool:
        """Make events of what the outbox holds; True when there may be more."""
        return await self._feeder.feed()

    async def deliver(self) -> bool:
        """Begin the turn of each webhook that something is due for; never more to do at once."""
        room = ENDPOINTS_AT_ONCE - len(self._turns)
        if room > 0:
            async with self._database.read() as connection:
                due = await store.read_due(
                    connection, self._clock(), busy=self._turns.keys(), limit=room
                )
            for endpoint in due:
                turn = asyncio.create_task(self._turn(endpoint), name=f"webhook-{endpoint.id}")
                self._turns[endpoint.id] = turn
                turn.add_done_callback(partial(self._turn_over, endpoint.id))
        return False

    def _turn_over(self, webhook_id: int, _turn: asyncio.Task[None]) -> None:
        self._turns.pop(webhook_id, None)

    async def settle(self) -> None:
        """Deliver what is due now, and wait for it."""
        await self.deliver()
        await asyncio.gather(*self._turns.values())

    async def keep_house(self) -> bool:
        """Forget old events and deliveries."""
        now = self._clock()
        async with self._database.write() as connection:
            await feed.purge(connection, now - FEED_KEEP)
            await store.purge(connection, now - DELIVERY_KEEP)
        return False

    # --- one webhook -----------------------------------------------------------------------------

    async def _turn(self, endpoint: Endpoint) -> None:
        """Send one webhook all that is due for it, or until it fails."""
        try:
            limit = 1 if endpoint.failing_since is not None else AT_ONCE
            while True:
                now = self._clock()
                async with self._database.write() as connection:
                    claimed = await store.claim(
                        connection, endpoint.id, now, lease=now + LEASE, limit=limit
                    )
                outcomes = await asyncio.gather(*(self._send(endpoint, one) for one in claimed))
                if not claimed or not all(outcome.delivered for outcome in outcomes):
                    return
                limit = AT_ONCE
        except Exception:  # noqa: BLE001 - what was claimed is due again when its lease is over
            _log.exception("webhook.turn_failed", webhook=endpoint.id)

    async def _send(self, endpoint: Endpoint, one: Claimed) -> Outcome:
        now = self._clock()
        post = Post(
            url=endpoint.url,
            secrets=endpoint.secrets(now),
            message_id=message_id(one.feed_id),
            body=one.body.encode(),
            public_only=endpoint.party_id is not None,
        )
        outcome = await self._gateway.send(post, now)
        async with self._database.write() as connection:
            if outcome.delivered and outcome.status is not None:
                await store.mark_delivered(connection, one.id, self._clock(), outcome.status)
                await store.note_works(connection, endpoint.id)
                _POSTS.labels("delivered").inc()
            else:
                await self._failed(connection, endpoint, one, outcome)
        return outcome

    async def _failed(
        self, connection: Connection, endpoint: Endpoint, one: Claimed, outcome: Outcome
    ) -> None:
        now, error = self._clock(), outcome.error[:500]
        last = one.attempts > len(RETRIES)
        if last or outcome.status == GONE:
            await store.mark_given_up(connection, one.id, now, status=outcome.status, error=error)
        else:
            later = now + self._pause(one.attempts, outcome)
            await store.mark_later(connection, one.id, later, status=outcome.status, error=error)
        _POSTS.labels("given_up" if last else "failed").inc()
        await store.note_fails(connection, endpoint.id, now)
        since = endpoint.failing_since
        if outcome.status == GONE:
            await self._disable(connection, endpoint, "it answered 410 Gone")
        elif since is not None and now - since >= DISABLE_AFTER:
            why = f"it has taken nothing since {since:%Y-%m-%d %H:%M} UTC; last: {error}"
            await self._disable(connection, endpoint, why)

    def _pause(self, attempts: int, outcome: Outcome) -> timedelta:
        usual = RETRIES[attempts - 1]
        longer = usual * (JITTER_PERCENT * self._dice() / 100)
        return max(usual + longer, timedelta(seconds=outcome.retry_after))

    async def _disable(self, connection: Connection, endpoint: Endpoint, why: str) -> None:
        code = await store.disable(connection, endpoint.id, why)
        if code is None:
            return
        await record(
            connection,
            actor="webhooks",
            action="webhook.disable",
            subject=f"webhook {code}",
            detail={"why": why},
            notice=f"webhook:{endpoint.id}",
        )
        _log.error("webhook.disabled", webhook=code, why=why)
