"""The outbox: a kill is told to the switch at least once, by whichever process is alive (F11, F24)."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import structlog.testing
from standardwebhooks.webhooks import Webhook

from tests.support import UK_FIXED, World, gathered, runtime, until
from tollkeeper.jobs.timers import KILL_ATTEMPTS
from tollkeeper.services.verify import verify

SECRET = base64.b64encode(b"a secret of the switch, 32 bytes").decode()


class Receiver:
    """A switch's HTTP endpoint: remembers what it is told, and answers what the test says."""

    def __init__(self) -> None:
        self.requests: list[tuple[dict[str, str], bytes]] = []
        self.answers: list[int] = []
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request; status 0 hangs up without an answer."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = {
            name.lower(): value.strip()
            for name, _, value in (line.partition(":") for line in head[1:])
        }
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        self.requests.append((headers, body))
        status = self.answers.pop(0) if self.answers else 200
        if status:
            writer.write(
                f"HTTP/1.1 {status} X\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".encode()
            )
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    @property
    def told(self) -> list[tuple[str, str]]:
        """Sessions and reasons, in the order in which they came."""
        documents = [json.loads(body) for _, body in self.requests]
        return [(d["session_id"], d["reason"]) for d in documents]


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    """A switch that listens on loopback."""
    made = Receiver()
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/kill"
    async with server:
        yield made


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = datetime.now(UTC)

    def __call__(self) -> datetime:
        """The time now."""
        return self.now

    def forward(self, **span: Any) -> None:
        """Let time pass."""
        self.now += timedelta(**span)


@asynccontextmanager
async def switchboard(
    url: str, receiver: Receiver, clock: Clock | None = None
) -> AsyncIterator[tuple[World, Any]]:
    """A customer with a live call of a switch that takes kill requests; no jobs are running."""
    with World(url) as world:
        world.customer(balance="100")
        world.sql(
            "INSERT INTO switch (code, kill_url, secret) VALUES ('sw1', %s, %s)",
            receiver.url,
            SECRET,
        )
        options = {} if clock is None else {"clock": clock}
        async with runtime(url, **options) as parts:
            await parts.charging.authorise(
                switch="sw1", session_id="x", party="acme", called=UK_FIXED
            )
            yield world, parts


async def test_f11_a_kill_reaches_the_switch_though_its_process_died_after_the_commit(
    database_url: str, receiver: Receiver
) -> None:
    """F11: the row was committed with the command; another process delivers it, signed."""
    async with switchboard(database_url, receiver) as (_world, parts):
        await parts.charging.kill(switch="sw1", session_id="x", why="fraud")
    # The process that took the command never ran its jobs. This is another one.
    assert receiver.told == []
    async with runtime(database_url, jobs=True) as parts:
        await until(lambda: receiver.told == [("x", "fraud")])
        ((headers, body),) = receiver.requests
        verified = Webhook(SECRET).verify(body, headers)
        assert verified["type"] == "session.kill"
        await until(lambda: _all_done(database_url))
        assert (await verify(parts.database)).clean


def _all_done(url: str) -> bool:
    import psycopg

    with psycopg.connect(url) as connection:
        row = connection.execute("SELECT bool_and(done_at IS NOT NULL) FROM outbox").fetchone()
    return row is not None and row[0] is True


async def test_f11_a_crash_between_sending_and_noting_it_sends_again_with_the_same_id(
    database_url: str, receiver: Receiver
) -> None:
    """At least once, not exactly once: the receiver can tell a repeat by the webhook-id."""
    async with switchboard(database_url, receiver) as (world, parts):
        await parts.charging.kill(switch="sw1", session_id="x", why="fraud")
        receiver.answers = [200]
        delivering = asyncio.create_task(parts.timers.deliver_due())
        await until(lambda: len(receiver.requests) == 1)
        delivering.cancel()  # the process ends after the request has left, before its commit
        await asyncio.gather(delivering, return_exceptions=True)
        if world.one("SELECT attempts FROM outbox WHERE kind = 'session.kill'") == 0:
            await parts.timers.deliver_due()
        assert set(receiver.told) == {("x", "fraud")}
        assert len({headers["webhook-id"] for headers, _ in receiver.requests}) == 1
        assert world.one("SELECT done_at IS NOT NULL FROM outbox WHERE kind = 'session.kill'")


async def test_f24_a_switch_that_does_not_obey_is_asked_again_with_growing_pauses(
    database_url: str, receiver: Receiver
) -> None:
    """500, a hang-up, then 200: three requests of one id, 2 and 4 seconds apart by the clock."""
    clock = Clock()
    async with switchboard(database_url, receiver, clock) as (world, parts):
        await parts.charging.kill(switch="sw1", session_id="x", why="fraud")
        receiver.answers = [500, 0, 200]
        for wait, asked in ((0, 1), (1, 1), (1, 2), (3, 2), (1, 3), (600, 3)):
            clock.forward(seconds=wait)
            await parts.timers.deliver_due()
            assert len(receiver.requests) == asked
        (row,) = world.sql("SELECT attempts, done_at, last_error FROM outbox")
        assert (row["attempts"], row["last_error"]) == (3, "")
        assert row["done_at"] is not None
        assert len({headers["webhook-id"] for headers, _ in receiver.requests}) == 1


async def test_f24_after_the_last_attempt_there_is_an_alarm_and_no_further_request(
    database_url: str, receiver: Receiver
) -> None:
    """The session is still closed by its expiry; the switch's deafness is an error in the log."""
    clock = Clock()
    async with switchboard(database_url, receiver, clock) as (world, parts):
        await parts.charging.kill(switch="sw1", session_id="x", why="fraud")
        receiver.answers = [503] * KILL_ATTEMPTS
        with structlog.testing.capture_logs() as logs:
            for _ in range(KILL_ATTEMPTS + 3):
                await parts.timers.deliver_due()
                clock.forward(minutes=10)
        assert len(receiver.requests) == KILL_ATTEMPTS
        alarms = [log for log in logs if log["log_level"] == "error"]
        assert [(a["event"], a["session"]) for a in alarms] == [("kill.given_up", "x")]
        assert "given up" in world.one("SELECT last_error FROM outbox WHERE kind = 'session.kill'")
        await parts.timers.expire_due()
        assert world.one("SELECT count(*) FROM live_session") == 0
        assert (await verify(parts.database)).clean


async def test_404_from_the_switch_means_that_the_call_is_gone(
    database_url: str, receiver: Receiver
) -> None:
    """RFC 5176, 503 Session Context Not Found in its HTTP form: nothing more to ask."""
    async with switchboard(database_url, receiver) as (world, parts):
        await parts.charging.kill(switch="sw1", session_id="x", why="fraud")
        receiver.answers = [404]
        await parts.timers.deliver_due()
        await parts.timers.deliver_due()
        assert len(receiver.requests) == 1
        assert world.one("SELECT done_at IS NOT NULL FROM outbox WHERE kind = 'session.kill'")


async def test_two_processes_do_not_deliver_the_same_row(
    database_url: str, receiver: Receiver
) -> None:
    """Rows under delivery are passed over by others."""
    async with switchboard(database_url, receiver) as (_world, parts):
        for number in range(30):
            await parts.charging.authorise(
                switch="sw1", session_id=f"c{number}", party="acme", called=UK_FIXED,
                requested_seconds=10,
            )  # fmt: skip
            await parts.charging.kill(switch="sw1", session_id=f"c{number}", why="fraud")
        async with gathered(runtime(database_url), runtime(database_url)) as others:
            for _ in range(3):
                await asyncio.gather(*(other.timers.deliver_due() for other in others))
        assert sorted(receiver.told) == sorted((f"c{n}", "fraud") for n in range(30))


async def test_an_expired_call_is_closed_by_another_process_and_the_switch_is_told(
    database_url: str, receiver: Receiver
) -> None:
    """F1, D13: the process that opened the session is gone; whoever is left settles and kills it."""
    clock = Clock()
    async with switchboard(database_url, receiver, clock) as (_world, parts):
        await parts.charging.update(switch="sw1", session_id="x", used_ms=30_000)
    clock.forward(hours=1)
    async with runtime(database_url, jobs=True, clock=clock) as other:
        await until(lambda: receiver.told == [("x", "expired")])
        session = await other.charging.session("sw1/x")
        assert session.ending == "expired"
        assert str(session.legs[0].charged) == "0.300000"
        assert (await verify(other.database)).clean


async def test_a_switch_without_an_address_is_noted_and_not_asked(
    database_url: str, receiver: Receiver
) -> None:
    """Not every switch can be told; the row says so."""
    async with switchboard(database_url, receiver) as (world, parts):
        world.sql("DELETE FROM switch")
        await parts.charging.kill(switch="sw1", session_id="x", why="fraud")
        await parts.timers.deliver_due()
        note = world.one("SELECT last_error FROM outbox WHERE kind = 'session.kill'")
        assert note == "switch sw1 has no kill address"
        assert receiver.requests == []


async def test_f23_a_switch_that_cannot_be_reached_proves_nothing_about_its_calls(
    database_url: str, receiver: Receiver
) -> None:
    """F23: no answer means unknown, not gone: the call stays open and held, and is still metered."""
    async with switchboard(database_url, receiver) as (_world, parts):
        await parts.charging.update(switch="sw1", session_id="x", used_ms=10_000)
        await parts.charging.kill(switch="sw1", session_id="x", why="fraud")
        receiver.answers = [0]
        await parts.timers.deliver_due()
        session = await parts.charging.session("sw1/x")
        assert session.open
        assert session.legs[0].held > 0
        reply, _ = await parts.charging.stop(switch="sw1", session_id="x", used_ms=20_000)
        assert str(reply.charge) == "0.200000"


async def test_f25_a_kill_names_one_call_of_one_switch(
    database_url: str, receiver: Receiver
) -> None:
    """F25: the same id on another switch, and the party's other calls, are not touched."""
    async with switchboard(database_url, receiver) as (world, parts):
        for switch, session_id in (("sw2", "x"), ("sw1", "y")):
            await parts.charging.authorise(
                switch=switch, session_id=session_id, party="acme", called=UK_FIXED
            )
        await parts.charging.kill(switch="sw1", session_id="x", why="fraud")
        await parts.timers.deliver_due()
        assert receiver.told == [("x", "fraud")]
        killed = {s.key: s.kill for s in await parts.charging.live_sessions()}
        assert killed == {"sw1/x": "fraud", "sw1/y": "", "sw2/x": ""}
        assert world.one("SELECT count(*) FROM outbox") == 1


async def test_f17_suspending_a_party_with_its_calls_ends_them_and_nobody_elses(
    database_url: str, receiver: Receiver
) -> None:
    """F17: the job asks the switch to end each of the party's calls, once."""
    async with switchboard(database_url, receiver) as (world, parts):
        world.customer("other", balance="10")
        await parts.directory.load()
        await parts.charging.authorise(switch="sw1", session_id="y", party="other", called=UK_FIXED)
        assert not await parts.timers.kill_suspended()
        world.sql(
            "UPDATE party SET status = 'suspended', kill_on_suspend = true WHERE code = 'acme'"
        )
        for _ in range(2):
            await parts.timers.kill_suspended()
            await parts.timers.deliver_due()
        assert receiver.told == [("x", "suspended")]
        kills = {s.key: s.kill for s in await parts.charging.live_sessions()}
        assert kills == {"sw1/x": "suspended", "sw1/y": ""}
