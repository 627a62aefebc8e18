"""The event stream: what happens is told as it happens, to whom it concerns, and nothing is missed."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any

import httpx
import pytest

from tests.servers.isolation_world import Tree, make_tree
from tests.servers.management import problem
from tests.servers.served import served
from tests.support import UK_FIXED, World, until
from tollkeeper.gateways.webhook import NullWebhook
from tollkeeper.servers.api import stream as route
from tollkeeper.services import streams
from tollkeeper.services.feed import KINDS
from tollkeeper.services.keys import create_key, revoke_key
from tollkeeper.services.wallets import top_up

ROUTE = "/v1/events"


class Listener:
    """Reads one stream in the background."""

    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        self.events: list[tuple[int, str, dict[str, Any]]] = []
        self.comments = 0
        self.times: list[float] = []
        self.ended = False

    async def read(self) -> None:
        """Take it apart as the HTML standard says; it ends with the stream."""
        fields: dict[str, str] = {}
        async for line in self.response.aiter_lines():
            if line.startswith(":"):
                self.comments += 1
            elif line:
                name, _, value = line.partition(": ")
                fields[name] = value
            elif "data" in fields:
                self.times.append(time.perf_counter())
                event = json.loads(fields["data"])
                assert event["type"] == fields["event"]
                assert event["id"] == f"evt_{fields['id']}"
                self.events.append((int(fields["id"]), fields["event"], event["data"]))
                fields = {}
        self.ended = True

    @property
    def kinds(self) -> list[str]:
        """The kinds, in the order in which they came."""
        return [kind for _, kind, _ in self.events]


@asynccontextmanager
async def listening(base: str, token: str, **options: Any) -> AsyncIterator[Listener]:
    """A stream that is read while the block lasts."""
    headers = {"Authorization": f"Bearer {token}", **options.pop("headers", {})}
    async with (
        httpx.AsyncClient(base_url=base, headers=headers, timeout=30) as client,
        client.stream("GET", ROUTE, params=options) as response,
    ):
        assert response.status_code == 200, await response.aread()
        assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
        listener = Listener(response)
        task = asyncio.create_task(listener.read())
        try:
            yield listener
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def polled(base: str, token: str, **options: Any) -> list[tuple[int, str, dict[str, Any]]]:
    """All events that are there."""
    async with listening(base, token, after=0, seconds=0, **options) as listener:
        await until(lambda: listener.ended)
        return listener.events


async def call(
    parts: Any, id_: str, *, switch: str = "sw1", used: int = 5_000, **more: Any
) -> None:
    """A call from its authorisation to its end."""
    party = more.pop("party", "acme")
    await parts.charging.authorise(switch=switch, session_id=id_, party=party, called=UK_FIXED)
    if more.pop("kill", False):
        await parts.charging.kill(switch=switch, session_id=id_, why="fraud")
    await parts.charging.stop(switch=switch, session_id=id_, used_ms=used)


async def pay(parts: Any, party: str = "acme") -> None:
    """Five dollars more."""
    await top_up(
        parts.database, party=party, currency="USD", amount=Decimal(5), reason="wire",
        actor="test", clock=parts.clock,
    )  # fmt: skip


async def test_what_happens_is_told_at_once_and_in_order(database_url: str) -> None:
    """Also the ends of calls, which are told because this stream is there."""
    with World(database_url) as world:
        world.customer()
        token = world.key("read")
        async with (
            served(database_url, jobs=True, webhook=NullWebhook()) as (base, parts, _),
            listening(base, token) as heard,
        ):
            await until(lambda: parts.directory.hears_ended(1))
            await call(parts, "a", kill=True)
            await until(lambda: len(heard.events) == 2)
            began = time.perf_counter()
            await pay(parts)
            await until(lambda: len(heard.events) == 3)
            took = heard.times[-1] - began
            assert heard.kinds == ["session.kill", "session.ended", "wallet.topup"]
            assert heard.events[0][2]["reason"] == "fraud"
            assert heard.events[1][2]["legs"][0]["charge"] == "0.05"
            numbers = [number for number, _, _ in heard.events]
            assert numbers == sorted(numbers)
            print(f"from the top-up's begin to the listener: {took * 1000:.0f} ms")
            assert took < 5


async def test_a_listener_that_comes_back_misses_nothing_and_gets_nothing_twice(
    database_url: str,
) -> None:
    with World(database_url) as world:
        world.customer()
        token = world.key("read")
        async with served(database_url, jobs=True, webhook=NullWebhook()) as (base, parts, _):
            async with listening(base, token, events="session.ended") as heard:
                for number in range(3):
                    await call(parts, f"a{number}")
                await until(lambda: len(heard.events) == 3)
            last = str(heard.events[-1][0])
            for number in range(3, 20):
                await call(parts, f"a{number}")
            headers = {"Last-Event-ID": last}
            async with listening(base, token, headers=headers, after=0) as again:
                for number in range(20, 30):
                    await call(parts, f"a{number}")
                await until(lambda: len(again.events) == 27)
            ids = [data["session_id"] for _, _, data in heard.events + again.events]
            assert ids == [f"a{n}" for n in range(30)]


async def test_silence_is_told_by_a_comment_and_the_stream_ends_when_it_should(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(route, "HEARTBEAT_SECONDS", 0.1)
    with World(database_url) as world:
        token = world.key("read")
        async with (
            served(database_url) as (base, _, _app),
            listening(base, token, seconds=1) as heard,
        ):
            await until(lambda: heard.ended)
            assert heard.comments >= 3
            assert heard.events == []


async def test_a_switch_hears_what_concerns_its_calls_and_no_money(database_url: str) -> None:
    """Of a payment the calls that may go on by it: those that the party pays for, here."""
    with World(database_url) as world:
        world.customer(parent=world.reseller("res"))
        world.customer("other")
        ours, others = world.key("charge", switch="sw1"), world.key("charge", switch="sw2")
        async with served(database_url, jobs=True, webhook=NullWebhook()) as (base, parts, _):
            async with listening(base, ours) as heard, listening(base, others) as silent:
                await parts.charging.authorise(
                    switch="sw1", session_id="up", party="acme", called=UK_FIXED,
                    requested_seconds=10,
                )  # fmt: skip
                await call(parts, "x", kill=True)
                await pay(parts, "res")
                await pay(parts, "other")
                await call(parts, "y", switch="sw2", kill=True)
                await until(lambda: len(silent.events) == 1)
                await until(lambda: len(heard.events) == 2)
            assert heard.kinds == ["session.kill", "wallet.topup"]
            assert heard.events[1][2] == {"party": "res", "session_ids": ["up"]}
            assert silent.events[0][2]["session_id"] == "y"
            for text in ("amount", "balance", "charge"):
                assert text not in str(heard.events)
            # What happened before is no more than that, too.
            assert [kind for _, kind, _ in await polled(base, ours)] == heard.kinds


async def test_streams_are_bounded(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "STREAMS_OF_KEY_MAX", 2)
    monkeypatch.setattr(streams, "STREAMS_MAX", 3)
    with World(database_url) as world:
        one, two = world.key("read"), world.key("read")
        async with served(database_url) as (base, _, app):
            async with httpx.AsyncClient(base_url=base) as client:

                async def ask(token: str) -> httpx.Response:
                    headers = {"Authorization": f"Bearer {token}"}
                    return await client.get(ROUTE, params={"seconds": 0}, headers=headers)

                async with listening(base, one), listening(base, one):
                    sentence = problem(await ask(one), 503, "too_many_streams")
                    assert "2 for a key, 3 in all" in sentence
                    async with listening(base, two):
                        problem(await ask(two), 503, "too_many_streams")
                await until(lambda: not app.state.streams._streams)
                assert (await ask(one)).status_code == 200
            await until(lambda: app.state.streams._reader is None)


async def test_who_does_not_keep_up_is_dropped_and_nobody_else(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """100 MB for a listener that does not read: it is let go, and memory with it."""
    monkeypatch.setattr(route, "SEND_SECONDS", 1.0)
    monkeypatch.setattr(streams, "QUEUE_MAX", 50)
    with World(database_url) as world:
        token = world.key("read")
        async with served(database_url) as (base, _, app), listening(base, token) as heard:
            lazy = socket.create_connection(("127.0.0.1", int(base.rpartition(":")[2])))
            lazy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            lazy.sendall(
                f"GET {ROUTE} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n".encode()
            )
            await until(lambda: len(app.state.streams._streams) == 2)
            for number in range(100):
                world.sql(
                    "INSERT INTO feed (at, kind, payload) VALUES (now(), 'session.kill', %s)",
                    json.dumps({"number": number, "text": "x" * 1_000_000}),
                )
                world.notify("feed:0")
                await until(lambda wanted=number: len(heard.events) > wanted)
            await until(lambda: len(app.state.streams._streams) == 1)
            assert [data["number"] for _, _, data in heard.events] == list(range(100))
            lazy.close()


async def test_a_revoked_key_hears_no_more(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(route, "HEARTBEAT_SECONDS", 0.1)
    with World(database_url):
        async with served(database_url) as (base, parts, _):
            made = await create_key(parts.database, name="k", scopes=["read"], actor="test")
            await parts.directory.load()
            async with listening(base, made.secret) as heard:
                await until(lambda: heard.comments > 0)
                await revoke_key(parts.database, made.key.id, actor="test")
                await until(lambda: heard.ended)


async def test_wrong_requests_are_refused_before_a_stream_begins(database_url: str) -> None:
    with World(database_url) as world:
        token = world.key("read")
        async with served(database_url) as (base, _, app):
            headers = {"Authorization": f"Bearer {token}"}
            async with httpx.AsyncClient(base_url=base) as client:
                problem(await client.get(ROUTE), 401, "unauthorised")
                for params, field in (
                    ({"after": "-1"}, "after"),
                    ({"after": str(2**63)}, "after"),
                    ({"events": "session.began"}, "events"),
                    ({"seconds": "90000"}, "seconds"),
                    ({"until": "1"}, "until"),
                ):
                    answer = await client.get(ROUTE, params=params, headers=headers)
                    assert (answer.status_code, answer.json()["field"]) == (422, field), answer.text
                bad = {**headers, "Last-Event-ID": "evt_1"}
                assert (await client.get(ROUTE, headers=bad)).status_code == 422
                assert (await client.put(ROUTE, headers=headers)).status_code == 405
            assert getattr(app.state, "streams", None) is None


# --- isolation -----------------------------------------------------------------------------------


@pytest.fixture
def tree(database_url: str) -> Iterator[Tree]:
    made = make_tree(database_url)
    yield made
    made.world.close()


async def test_nobody_hears_of_anything_above_or_beside(tree: Tree) -> None:
    """Live and afterwards: calls of everybody, with overruns on all legs, late usage, kills, payments."""
    tree.world.sql("DELETE FROM feed")
    async with served(tree.world.url, jobs=True, webhook=NullWebhook()) as (base, parts, _):
        tokens = {who: tree.tokens[who] for who in ("ra", "rs", "ca", "zzoper")}
        async with (
            listening(base, tokens["ra"]) as ra,
            listening(base, tokens["rs"]) as rs,
            listening(base, tokens["ca"]) as ca,
            listening(base, tokens["zzoper"]) as oper,
        ):
            await until(lambda: parts.directory.hears_ended(tree.parties["zzcb"].id))
            for party in ("zzcb", "ca", "cs"):
                await call(parts, f"{party}-1", party=party, used=900_000, kill=True)
                await parts.charging.stop(
                    switch="sw1", session_id=f"{party}-1", used_ms=999_000, request_id="more"
                )
                await pay(parts, party)
            heard = {"ra": ra, "rs": rs, "ca": ca, "zzoper": oper}
            each = len(KINDS) - 2  # no limit is watched, nothing expires
            expected = {"ra": 2 * each, "rs": each, "ca": each, "zzoper": 3 * each}
            for who, count in expected.items():
                await until(lambda w=who, c=count: len(heard[w].events) >= c, what=who)
        for who, token in tokens.items():
            live, after = heard[who].events, await polled(base, token)
            assert len(live) == expected[who]
            assert live == after
            text = json.dumps(live)
            if who != "zzoper":
                hidden = [mark for mark in tree.hidden_from(who) if mark in text]
                assert not hidden, f"{who} heard {hidden}: {text}"
        legs = {
            who: [leg["party"] for _, kind, data in heard[who].events
                  if kind == "session.overrun" and data["party"] == "cs" for leg in data["legs"]]
            for who in tokens
        }  # fmt: skip
        assert legs == {
            "ra": ["cs", "rs", "ra"], "rs": ["cs", "rs"], "ca": [], "zzoper": ["cs", "rs", "ra"],
        }  # fmt: skip
