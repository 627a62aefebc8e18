"""What is not taken is posted again, as Standard Webhooks has it; who takes nothing is told no more."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
import structlog.testing
from standardwebhooks.webhooks import Webhook as Standard

from tests.jobs.test_outbox import Receiver
from tests.jobs.webhook_desk import SECRET, URL, desk, receiving
from tests.support import until
from tollkeeper.gateways.webhook import HttpWebhook, Outcome
from tollkeeper.jobs.webhooks import DISABLE_AFTER, RETRIES
from tollkeeper.services import webhooks


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    """An address on loopback."""
    async with receiving() as made:
        yield made


async def test_retries_are_those_of_standard_webhooks_and_then_it_is_given_up(
    database_url: str,
) -> None:
    """Ten attempts over 75 hours with one id; then it can be sent again by hand."""
    async with desk(database_url) as it:
        await it.hook()
        await it.call()
        it.gateway.answers = [Outcome(500, "answered 500")] * (len(RETRIES) + 1)
        await it.work()
        for number, pause in enumerate(RETRIES, 1):
            assert len(it.gateway.sent) == number
            it.clock.now += pause - timedelta(seconds=1)
            await it.work()
            assert len(it.gateway.sent) == number
            it.clock.forward(seconds=1)
            await it.work()
        (row,) = it.deliveries()
        assert (row["attempts"], row["status"], row["last_error"]) == (10, 500, "answered 500")
        assert row["done_at"] is not None
        assert len({post.message_id for post in it.gateway.sent}) == 1
        it.clock.forward(days=3)
        await it.work()
        assert len(it.gateway.sent) == 10
        await webhooks.redeliver(it.parts.database, "hook", row["id"], now=it.clock(), actor="test")
        await it.work()
        assert len(it.gateway.sent) == 11
        assert it.deliveries()[0]["status"] == 204
        assert it.world.one("SELECT failing_since FROM webhook") is None


async def test_a_pause_is_longer_by_chance_and_by_what_the_receiver_asks(database_url: str) -> None:
    async with desk(database_url) as it:
        it.parts.events._dice = lambda: 1.0
        await it.hook()
        await it.call()
        it.gateway.answers = [Outcome(503, "busy", retry_after=120), Outcome(None, "no answer")]
        await it.work()
        began = it.clock()
        assert it.deliveries()[0]["next_at"] == began + timedelta(seconds=120)
        it.clock.forward(seconds=120)
        await it.work()
        assert it.deliveries()[0]["next_at"] == it.clock() + timedelta(seconds=360)


async def test_410_disables_at_once_with_an_alarm(database_url: str) -> None:
    """What is not told meanwhile stays told to others; nothing is made for the one that is gone."""
    async with desk(database_url) as it:
        await it.hook()
        await it.call("a")
        it.gateway.answers = [Outcome(410, "answered 410")]
        with structlog.testing.capture_logs() as logs:
            await it.work()
        assert [log["event"] for log in logs if log["log_level"] == "error"] == ["webhook.disabled"]
        row = it.world.sql("SELECT enabled, disabled_why FROM webhook")[0]
        assert row == {"enabled": False, "disabled_why": "it answered 410 Gone"}
        await it.parts.directory.load()
        await it.call("b")
        await it.work()
        assert len(it.gateway.sent) == 1
        assert it.world.one("SELECT count(*) FROM audit WHERE action = 'webhook.disable'") == 1


async def test_days_of_failures_disable_and_enabling_sends_what_waits(database_url: str) -> None:
    async with desk(database_url) as it:
        await it.hook()
        it.gateway.answers = [Outcome(None, "no answer")] * 200
        for hour in range(0, DISABLE_AFTER.days * 24 + 30, 10):
            await it.call(f"c{hour}")
            await it.work()
            if not it.world.one("SELECT enabled FROM webhook"):
                break
            it.clock.forward(hours=10)
        why = it.world.one("SELECT disabled_why FROM webhook")
        assert "it has taken nothing since" in why
        failing = it.world.one("SELECT failing_since FROM webhook")
        assert it.clock() - failing >= DISABLE_AFTER
        tries = len(it.gateway.sent)
        it.clock.forward(days=1)
        await it.work()
        assert len(it.gateway.sent) == tries
        it.gateway.answers = []
        waiting = it.world.one("SELECT count(*) FROM webhook_delivery WHERE done_at IS NULL")
        assert waiting > 0
        await webhooks.change_webhook(it.parts.database, "hook", {"enabled": True}, actor="test")
        await it.work()
        assert it.world.one("SELECT count(*) FROM webhook_delivery WHERE done_at IS NULL") == 0


async def test_one_that_hangs_keeps_nobody_waiting(database_url: str) -> None:
    async with desk(database_url) as it:
        hang = asyncio.Event()
        send = it.gateway.send

        async def slow(post: Any, at: Any) -> Outcome:
            if "slow" in post.url:
                await hang.wait()
            return await send(post, at)

        it.gateway.send = slow  # type: ignore[method-assign]
        await it.hook("slow", url="https://slow.example/")
        await it.hook("quick")
        for number in range(20):
            await it.call(f"c{number}")
        await it.parts.events.feed()
        await it.parts.events.deliver()
        await until(lambda: len(it.gateway.sent) == 20)
        assert {post.url for post in it.gateway.sent} == {URL}
        hang.set()
        await it.parts.events.settle()
        await until(lambda: len(it.gateway.sent) == 40)


async def test_a_secret_that_is_replaced_signs_with_the_new_one_for_a_day(
    database_url: str, receiver: Receiver
) -> None:
    async with desk(database_url) as it:
        it.parts.events._gateway = HttpWebhook()
        await it.hook(url=receiver.url)
        _, fresh = await webhooks.rotate_secret(
            it.parts.database, "hook", now=it.clock(), actor="test"
        )
        assert fresh is not None
        await it.call("a")
        await it.work()
        headers, body = receiver.requests[0]
        for secret in (SECRET, fresh):
            assert Standard(secret).verify(body, headers)["type"] == "session.ended"
        it.clock.forward(hours=25)
        await it.call("b")
        await it.work()
        headers, body = receiver.requests[1]
        assert headers["webhook-signature"].count("v1,") == 1
        assert headers["webhook-signature"] == Standard(fresh).sign(
            headers["webhook-id"], it.clock(), body.decode()
        )


async def test_the_webhook_of_a_party_does_not_reach_inside(
    database_url: str, receiver: Receiver
) -> None:
    """Its name stands for loopback: nothing is sent, and the delivery says why."""

    async def inside(_host: str, _port: int) -> list[str]:
        return ["127.0.0.1"]

    async with desk(database_url) as it:
        it.parts.events._gateway = HttpWebhook(resolve=inside)
        port = receiver.url.rpartition(":")[2]
        await it.hook(party="acme", url=f"https://billing.example:{port}")
        await it.call()
        await it.work()
        assert receiver.requests == []
        assert "not a public address" in it.deliveries()[0]["last_error"]


async def test_events_are_kept_for_a_week_and_deliveries_for_a_month(database_url: str) -> None:
    """Also one that nobody took; what is younger stays."""
    async with desk(database_url) as it:
        await it.hook()
        await it.call("old")
        await it.work()
        assert it.world.one("SELECT count(*) FROM feed") == 1
        it.clock.forward(days=6)
        await it.parts.events.keep_house()
        assert it.world.one("SELECT count(*) FROM feed") == 1
        it.clock.forward(days=1, seconds=1)
        await it.call("new")
        await it.parts.events.feed()
        await it.parts.events.keep_house()
        assert it.world.one("SELECT count(*) FROM feed") == 1
        assert len(it.deliveries()) == 2
        it.clock.forward(days=24)
        await it.parts.events.keep_house()
        (left,) = it.deliveries()
        assert left["done_at"] is None
        it.clock.forward(days=7)
        await it.parts.events.keep_house()
        assert not it.deliveries()
        assert it.world.one("SELECT count(*) FROM feed") == 0
