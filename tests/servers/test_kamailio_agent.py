"""The agent and what a Kamailio may do that a real one does seldom: said by one that is not real."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest

from tests.protocols.house import House, add_peer, add_trunk
from tests.servers.test_kamailio_parts import Fake
from tests.support import UK_FIXED, World, until
from tollkeeper.core.records import Policy
from tollkeeper.servers.kamailio import rpc as kamailio_rpc
from tollkeeper.wire.kamailio import evapi

SOURCE = "192.0.2.1"


class FakeRpc:
    """Answers ``dlg.list`` with the dialogs that it is given; ``body`` overrides the answer."""

    def __init__(self) -> None:
        self.dialogs: list[dict[str, Any]] = []
        self.asked = 0
        self.body: bytes | None = None
        self._server: asyncio.Server | None = None
        self.url = ""

    async def start(self) -> None:
        """Listen."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/RPC"

    async def stop(self) -> None:
        """Listen no more."""
        assert self._server is not None
        self._server.close()
        await self._server.wait_closed()

    def has(self, dialog: tuple[int, int], session: str, answered: str) -> None:
        """List this call alone, as answered."""
        variables = [{"tk_session": session}, {"tk_t0": answered}]
        self.dialogs = [
            {"h_entry": dialog[0], "h_id": dialog[1], "call-id": session, "state": 4,
             "caller": {"tag": "t"}, "variables": variables}
        ]  # fmt: skip

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            self.asked += 1
            body = self.body or json.dumps({"result": self.dialogs}).encode()
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


class Desk:
    """A house, and Kamailios that are none."""

    def __init__(self, url: str, stack: AsyncExitStack) -> None:
        self._stack = stack
        self.world = stack.enter_context(World(url))
        self.house = House(url, policy=Policy(answer_window=60, grace=10))
        self.acme = self.world.customer("acme")
        add_trunk(self.world, "in", self.acme, addresses=(SOURCE,))

    async def kamailio(self, code: str) -> tuple[Fake, FakeRpc]:
        """One more, with its peer."""
        fake, rpc = Fake(), FakeRpc()
        for one in (fake, rpc):
            await one.start()
            self._stack.push_async_callback(one.stop)
        options = {
            "connect": f"127.0.0.1:{fake.port}",
            "rpc": rpc.url,
            "reconcile_seconds": 1,
            "slice": 60,
        }
        add_peer(self.world, code, "kamailio", secret="x", options=options)
        return fake, rpc

    async def open(self, policy: Policy | None = None) -> None:
        """Begin."""
        if policy is not None:
            self.house = House(self.house.url, policy=policy)
        await self.house.start()
        self._stack.push_async_callback(self.house.stop)

    def sessions(self) -> list[str]:
        """The keys of the sessions that are open."""
        return [row["key"] for row in self.world.sql("SELECT key FROM live_session ORDER BY key")]

    def closed(self) -> list[tuple[str, str, str]]:
        """Key, ending, usage of those that have ended."""
        rows = self.world.sql(
            "SELECT key, ending, body->>'used_ms' AS used FROM closed_session ORDER BY key"
        )
        return [(row["key"], row["ending"], row["used"] or "0") for row in rows]


@pytest.fixture
async def desk(database_url: str) -> AsyncIterator[Desk]:
    async with AsyncExitStack() as stack:
        yield Desk(database_url, stack)


async def connected(fake: Fake) -> None:
    """Tollkeeper has said its secret on this connection."""
    await until(lambda: any(isinstance(m, evapi.Ping) for m in fake.heard), what="it is connected")


def tell(fake: Fake, message: evapi.FromKamailio) -> None:
    """Say something to Tollkeeper."""
    fake.writer.write(evapi.encode(message))


async def authorise(
    fake: Fake, call_id: str, dialog: tuple[int, int], *, index: int = 1
) -> evapi.Answer:
    """Ask for a call; the answer."""
    call = evapi.Call(
        call_id, "t", called=UK_FIXED, source=SOURCE, at="100.0", h_entry=dialog[0], h_id=dialog[1]
    )
    tell(fake, evapi.Authorise(index, index, call))

    def answers() -> list[evapi.Answer]:
        return [m for m in fake.heard if isinstance(m, evapi.Answer) and m.index == index]

    await until(lambda: bool(answers()), what="it is answered")
    fake.up.add(dialog)
    return answers()[0]


def report(kind: type[evapi.Report], id_: str, call: str, at: str, **more: Any) -> evapi.Report:
    """A report of the call whose session has the name of its Call-ID."""
    return kind(id=id_, at=at, call_id=call, from_tag="t", **{"session": call, **more})


async def heard(fake: Fake, id_: str) -> None:
    """A report is safe."""
    await until(
        lambda: any(isinstance(m, evapi.Heard) and m.id == id_ for m in fake.heard),
        what=f"{id_} is acknowledged",
    )


async def test_a_kamailio_that_comes_back_with_other_dialog_ids_keeps_its_calls(desk: Desk) -> None:
    """The session names the call: it is followed under its new ids, neither closed nor begun anew."""
    fake, rpc = await desk.kamailio("kam")
    await desk.open()
    await connected(fake)
    assert (await authorise(fake, "c", (1, 1))).allow == 1
    rpc.has((1, 1), "c", "101.0")
    tell(fake, report(evapi.Started, "s", "c", "101.0", answered="101.0", h_entry=1, h_id=1))
    await heard(fake, "s")
    fake.up = {(7, 9)}
    rpc.has((7, 9), "c", "101.0")
    fake.writer.close()
    await connected(fake)
    asked = rpc.asked
    await until(lambda: rpc.asked >= asked + 4, what="it was compared several times")
    assert desk.sessions() == ["kam/c"]
    await desk.house.parts.charging.kill(switch="kam", session_id="c", why="test")
    ends = lambda: [m for m in fake.heard if isinstance(m, evapi.End)]  # noqa: E731
    await until(lambda: bool(ends()), what="its end is asked for")
    assert (ends()[0].h_entry, ends()[0].h_id) == (7, 9)
    tell(fake, report(evapi.Stopped, "e", "c", "106.0", answered="101.0", h_entry=7, h_id=9))
    await heard(fake, "e")
    assert desk.closed() == [("kam/c", "settled", "5000")]


async def test_what_is_told_again_on_a_new_line_is_charged_once(desk: Desk) -> None:
    """Start and stop of a call, and a stop of one that ended meanwhile, come twice and in any order."""
    fake, rpc = await desk.kamailio("kam")
    rpc.body = b"none"
    await desk.open()
    await connected(fake)
    await authorise(fake, "c", (1, 1))
    start = report(evapi.Started, "s", "c", "101.0", answered="101.0", h_entry=1, h_id=1)
    stop = report(evapi.Stopped, "e", "c", "103.5", answered="101.0", h_entry=1, h_id=1)
    tell(fake, start)
    tell(fake, stop)
    await heard(fake, "e")
    for again in ((start, stop), (stop, start)):
        fake.writer.close()
        await connected(fake)
        for message in again:
            tell(fake, message)
            await heard(fake, message.id)
    assert desk.closed() == [("kam/c", "settled", "2500")]
    assert desk.sessions() == []
    await desk.house.restart()
    await connected(fake)
    for message in (start, stop):
        tell(fake, message)
        await heard(fake, message.id)
    assert desk.closed() == [("kam/c", "settled", "2500")]


async def test_one_call_id_at_two_kamailios_is_two_calls_and_a_spiral_is_one(desk: Desk) -> None:
    """A call that comes by twice has one dialog, so it is the same call: held and answered once."""
    one, _ = await desk.kamailio("kam-1")
    two, _ = await desk.kamailio("kam-2")
    await desk.open()
    await connected(one)
    await connected(two)
    first = await authorise(one, "same", (1, 1), index=1)
    spiral = await authorise(one, "same", (1, 1), index=2)
    other = await authorise(two, "same", (1, 1), index=3)
    assert (first.allow, spiral.allow, other.allow) == (1, 1, 1)
    assert first.session == spiral.session == "same"
    assert desk.sessions() == ["kam-1/same", "kam-2/same"]
    for fake, until_ in ((one, "103.0"), (two, "109.0")):
        stop = report(evapi.Stopped, "e", "same", until_, answered="101.0", h_entry=1, h_id=1)
        tell(fake, stop)
        await heard(fake, "e")
    assert desk.closed() == [("kam-1/same", "settled", "2000"), ("kam-2/same", "settled", "8000")]


async def test_a_call_answered_after_its_session_expired_is_ended(desk: Desk) -> None:
    """It rang for longer than money is held for ringing: nobody pays for it, so it does not go on."""
    fake, rpc = await desk.kamailio("kam")
    rpc.body = b"none"
    await desk.open(Policy(answer_window=1, grace=0))
    await connected(fake)
    await authorise(fake, "c", (1, 1))
    await until(lambda: bool(desk.closed()), what="it has expired")
    tell(fake, report(evapi.Started, "s", "c", "180.0", answered="180.0", h_entry=1, h_id=1))
    await until(lambda: any(isinstance(m, evapi.End) for m in fake.heard), what="it is ended")
    await heard(fake, "s")


async def test_a_cancel_that_lost_against_the_answer_ends_the_call_at_what_was_used(
    desk: Desk,
) -> None:
    """The caller hangs up at once: start and stop, and no failure; the hold goes back but for that."""
    fake, _ = await desk.kamailio("kam")
    await desk.open()
    await connected(fake)
    await authorise(fake, "c", (1, 1))
    tell(
        fake,
        report(evapi.Stopped, "e", "c", "101.2", answered="101.0", method="BYE", h_entry=1, h_id=1),
    )
    tell(fake, report(evapi.Started, "s", "c", "101.0", answered="101.0", h_entry=1, h_id=1))
    await heard(fake, "e")
    await heard(fake, "s")
    assert desk.closed() == [("kam/c", "settled", "200")]
    assert desk.world.wallet(desk.acme).held == 0


async def test_a_list_without_end_is_given_up_and_says_nothing(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More than it may have is no list: no call is taken for gone."""
    monkeypatch.setattr(kamailio_rpc, "ANSWER_MAX", 100_000)
    fake, rpc = await desk.kamailio("kam")
    rpc.body = b'{"result":[' + b" " * 1_000_000 + b"]}"
    await desk.open()
    await connected(fake)
    await authorise(fake, "c", (1, 1))
    tell(fake, report(evapi.Started, "s", "c", "101.0", answered="101.0", h_entry=1, h_id=1))
    await heard(fake, "s")
    client = kamailio_rpc.KamailioRpc(rpc.url)
    with pytest.raises(kamailio_rpc.RpcFailed, match="over 100000 bytes"):
        await client.dialogs()
    await client.close()
    asked = rpc.asked
    await until(lambda: rpc.asked >= asked + 3, what="it was compared several times")
    assert desk.sessions() == ["kam/c"]
