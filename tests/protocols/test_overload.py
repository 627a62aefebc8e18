"""Too much, too slow and too late, at every door: bounded in time and memory, and no end of a call is lost.

The house with all its doors is in ``town.py``; single bad messages are in ``test_bad_input.py``.
"""

from __future__ import annotations

import asyncio
import resource
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Self

import pytest

from tests.protocols.bad import agi, bind, hello, post
from tests.protocols.diameter_client import Client
from tests.protocols.town import (
    CENT,
    Town,
    at_work,
    open_files,
    resident_mib,
    sip_request,
    town,
)
from tests.support import UK_FIXED, until
from tollkeeper.servers import http_protocol
from tollkeeper.servers.asterisk import server as agi_server
from tollkeeper.servers.diameter import connection as diameter_connection
from tollkeeper.servers.kamailio import agent as kamailio_agent
from tollkeeper.servers.radius import access as radius_access
from tollkeeper.servers.sip import redirect
from tollkeeper.servers.smpp import esme as smpp_esme
from tollkeeper.telemetry import PeerMeter
from tollkeeper.wire.diameter.base import Link, encode_link
from tollkeeper.wire.diameter.codes import Kind
from tollkeeper.wire.diameter.credit import Units
from tollkeeper.wire.diameter.service import ServiceInformation
from tollkeeper.wire.kamailio import evapi
from tollkeeper.wire.radius.attributes import Type, integer
from tollkeeper.wire.radius.messages import Status
from tollkeeper.wire.radius.packet import Code
from tollkeeper.wire.smpp import pdu as smpp

MANY = 500
ENOUGH_FILES = 4096
STREAMS = ("diameter", "smpp", "sip_tcp", "fastagi", "http")
MEMORY_MIB = 48.0
"""What a bounded flood may add: buffers, not what was sent."""
CALLS, FLOOD = 10, 300


@pytest.fixture
async def place(database_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Town]:
    async with town(database_url, monkeypatch) as made:
        yield made
        await made.proven()


@pytest.fixture
async def narrow(database_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Town]:
    """A town in which eight new calls may be decided on at once."""
    monkeypatch.setattr(kamailio_agent, "UNDER_WAY_MAX", 8)
    async with town(database_url, monkeypatch, network_queue_max=8) as made:
        yield made
        await made.proven()


# --- slow ------------------------------------------------------------------------------------------


FIRST_WORDS: dict[str, tuple[Callable[[Town], bytes], bytes]] = {
    "diameter": (lambda _: hello(), b"ocs.example"),
    "smpp": (lambda _: bind(), b"tollkeeper\0"),
    "sip_tcp": (lambda _: sip_request("OPTIONS", "slow", "TCP"), b"SIP/2.0 200 OK"),
    "fastagi": (lambda _: agi("answered"), b"SET VARIABLE"),
    "http": (lambda town: post(town, "/v1/freeswitch/dialplan", b"section=x"), b"not found"),
}


async def test_whoever_speaks_byte_by_byte_is_understood(place: Town) -> None:
    """At every port, and every switch that is connected to."""
    for name in STREAMS:
        await _slowly(place, name)
    for name, liar in place.liars.items():
        liar.drips = True
        liar.drop()
        before = liar.connections
        await until(lambda n=before, one=liar: one.connections > n)  # type: ignore[misc]
        await place.unharmed(place.doors[name], "byte by byte")


async def _slowly(place: Town, name: str) -> None:
    door = place.doors[name]
    make, expected = FIRST_WORDS[name]
    reader, writer = await asyncio.open_connection("127.0.0.1", door.port)
    for byte in make(place):
        writer.write(bytes((byte,)))
        await asyncio.sleep(0)
    found = b""
    async with asyncio.timeout(5):
        while expected not in found:
            more = await reader.read(65_536)
            assert more, found
            found += more
    writer.close()
    await place.unharmed(door, "byte by byte")


async def test_who_says_nothing_is_let_go(place: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    """At each port; also who begins and does not go on, and who sends only half a body."""
    for module, limit in (
        (diameter_connection, "HELLO_SECONDS"),
        (smpp_esme, "BIND_SECONDS"),
        (redirect, "IDLE_SECONDS"),
        (agi_server, "LINE_SECONDS"),
        (http_protocol, "HEAD_SECONDS"),
        (http_protocol, "BODY_SECONDS"),
    ):
        monkeypatch.setattr(module, limit, 0.3)
    half = post(place, "/v1/freeswitch/cdr", b"{", length=1000)
    words = {
        name: [b"", make(place)[:3]] + ([b"\r\n", half] if name == "http" else [])
        for name, (make, _) in FIRST_WORDS.items()
    }
    before = open_files()

    async def silent(name: str, first: bytes) -> None:
        port = place.doors[name].port
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(first)
        with suppress(OSError):
            while await reader.read(1000):
                pass
        writer.close()

    async with asyncio.timeout(5):
        await asyncio.gather(*(silent(name, first) for name in words for first in words[name]))
    for name, fault in (
        ("diameter", "no_hello"), ("smpp", "bind_timeout"), ("fastagi", "silent"),
    ):  # fmt: skip
        door = place.doors[name]
        assert place.faults(door, fault, unknown=name != "fastagi") >= 2
        assert len(place.lines(fault, door.protocol)) == 1
    assert len(place.lines("silent", "http")) == 1
    await until(lambda: open_files() <= before, what="no socket is left")
    monkeypatch.undo()
    for name in STREAMS:
        await place.unharmed(place.doors[name], "silence")


# --- many ------------------------------------------------------------------------------------------


async def test_five_hundred_connections_keep_nobody_out(place: Town) -> None:
    """None of them says a word; while they are there the next honest request is served."""
    for name in STREAMS:
        await _crowd(place, name)


async def _crowd(place: Town, name: str) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < ENOUGH_FILES:
        if hard < ENOUGH_FILES:
            pytest.skip(f"only {hard} files may be open")
        resource.setrlimit(resource.RLIMIT_NOFILE, (ENOUGH_FILES, hard))
    door = place.doors[name]
    await place.unharmed(door, "nothing")
    tasks, files, memory = at_work(), open_files(), resident_mib()
    loop = asyncio.get_running_loop()
    with Sockets() as sockets:
        for _ in range(MANY):
            one = socket.socket()
            one.setblocking(False)
            sockets.append(one)
            with suppress(OSError):
                await loop.sock_connect(one, ("127.0.0.1", door.port))
        await place.unharmed(door, "500 connections")
        assert resident_mib() - memory < MEMORY_MIB
    await until(lambda: at_work() <= tasks, what="no task is left")
    await until(lambda: open_files() <= files, what="no socket is left")


class Sockets(list[socket.socket]):
    """Sockets that are closed at the end."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for one in self:
            one.close()


def _watchdogs(_: Town) -> tuple[bytes, bytes]:
    return hello(), encode_link(Link("gw.example", "example", 1), 9, 9)


UNREAD: dict[str, Callable[[Town], tuple[bytes, bytes]]] = {
    "diameter": _watchdogs,
    "smpp": lambda _: (bind(), smpp.frame(smpp.ENQUIRE_LINK, 0, 9)),
    "sip_tcp": lambda _: (b"", sip_request("OPTIONS", "unread", "TCP")),
    "http": lambda town: (b"", post(town, "/v1/freeswitch/dialplan", b"section=x")),
}
"""What opens a connection, and what is then asked again and again without reading an answer."""


async def test_who_reads_nothing_costs_little(place: Town) -> None:
    """Megabytes of questions: nothing more is read from who does not read, or answers are dropped."""
    for name in UNREAD:
        await _deaf(place, name)


async def _deaf(place: Town, name: str) -> None:
    door = place.doors[name]
    await place.unharmed(door, "nothing")
    first, question = UNREAD[name](place)
    loop = asyncio.get_running_loop()
    memory, until_ = resident_mib(), loop.time() + 0.8
    burst = question * (60_000 // len(question))
    with socket.socket() as deaf:
        deaf.setblocking(False)
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        await loop.sock_connect(deaf, ("127.0.0.1", door.port))
        await loop.sock_sendall(deaf, first)
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(0.8):
                while loop.time() < until_:
                    await loop.sock_sendall(deaf, burst)
                    await asyncio.sleep(0)
        await place.unharmed(door, "a reader that does not read")
        assert resident_mib() - memory < MEMORY_MIB
    await place.unharmed(door, "and is gone")


async def test_a_flood_of_noise_costs_little(place: Town) -> None:
    """Ten thousand datagrams, each another one, at every port that takes datagrams."""
    for name in ("radius_auth", "radius_acct", "sip_udp"):
        PeerMeter._made.clear()
        place.logs.clear()
        await _noise(place, name)


async def _noise(place: Town, name: str) -> None:
    door = place.doors[name]
    await place.unharmed(door, "nothing")
    memory, tasks = resident_mib(), at_work()
    before = place.faults(door, "malformed")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.setblocking(False)
        for number in range(10_000):
            with suppress(BlockingIOError):
                udp.sendto(b"%020d" % number * 20, ("127.0.0.1", door.port))
            if number % 50 == 0:
                await asyncio.sleep(0)
    await place.unharmed(door, "noise")
    assert place.faults(door, "malformed") - before >= 1000
    assert len(place.lines("malformed", door.protocol)) == 1
    assert resident_mib() - memory < MEMORY_MIB
    await until(lambda: at_work() <= tasks, what="no task is left")


# --- floods of new calls, with ends among them -------------------------------------------------------


async def test_radius_sheds_new_calls_and_keeps_every_stop(narrow: Town) -> None:
    nas, door = narrow.nas, narrow.doors["radius_auth"]
    names = [f"up-{n}" for n in range(CALLS)]
    for name in names:
        await nas.ask(narrow.about(name))
        await nas.tell(Status.START, narrow.about(name))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.bind(("127.0.0.1", 0))
        stops = []
        for number in range(FLOOD):
            data = nas.request(Code.ACCESS_REQUEST, narrow.about(f"flood-{number}"))
            udp.sendto(data, ("127.0.0.1", nas.auth))
            if number % (FLOOD // CALLS) == 0:
                about = narrow.about(names.pop(), integer(Type.ACCT_SESSION_TIME, 2))
                stops.append(asyncio.create_task(nas.tell(Status.STOP, about)))
        await asyncio.gather(*stops)
        narrow.spent += CALLS * 2 * CENT
        await until(lambda: narrow.faults(door, "overload") > 0, what="new calls are shed")
    assert len(narrow.lines("overload", "radius")) == 1
    await _settled(narrow, "radius_auth")


async def test_diameter_sheds_new_calls_and_keeps_every_termination(narrow: Town) -> None:
    door, client = narrow.doors["diameter"], Client("gw.example")
    await client.connect(("127.0.0.1", door.port))
    assert (await client.hello()).result == 2001
    more: dict[str, Any] = {"information": ServiceInformation(called=f"tel:+{UK_FIXED}")}

    async def say(session: str, kind: Kind, number: int, **units: Any) -> int:
        request = client.request(f"gw.example;{session}", kind, number, **units, **more)
        return (await client.credit(request)).result

    async def stop(session: str) -> None:
        while await say(session, Kind.TERMINATION, 1, used=(Units(time=2),)) == 3004:  # noqa: ASYNC110
            await asyncio.sleep(0.01)

    for number in range(CALLS):
        assert await say(f"up;{number}", Kind.INITIAL, 0, requested=Units(time=30)) == 2001
    flood = [
        asyncio.create_task(say(f"flood;{number}", Kind.INITIAL, 0, requested=Units(time=30)))
        for number in range(FLOOD)
    ]
    await asyncio.gather(*(stop(f"up;{number}") for number in range(CALLS)))
    narrow.spent += CALLS * 2 * CENT
    results = await asyncio.gather(*flood)
    assert set(results) == {2001, 3004}
    assert narrow.faults(door, "overload") >= results.count(3004)
    await client.close()
    assert len(narrow.lines("overload", "diameter")) == 1
    await _settled(narrow, "diameter")


async def test_kamailio_is_refused_new_calls_and_every_stop_is_kept(narrow: Town) -> None:
    """What finds no room is not acknowledged, and Kamailio says it again."""
    door, kamailio = narrow.doors["evapi"], narrow.kamailio

    def asked(number: int) -> evapi.Authorise:
        call = evapi.Call(f"c{number}", called=UK_FIXED, at="100.0", h_entry=number, h_id=1)
        return evapi.Authorise(number, number, call)

    def ended(number: int) -> evapi.Stopped:
        answer = narrow.answer(number)
        assert answer is not None
        return evapi.Stopped(
            id=f"s{number}", at="102.0", call_id=f"c{number}", session=answer.session,
            answered="100.0", h_entry=number, h_id=1,
        )  # fmt: skip

    def unheard() -> list[int]:
        heard = {m.id for m in kamailio.heard if isinstance(m, evapi.Heard)}
        return [number for number in range(CALLS) if f"s{number}" not in heard]

    for number in range(CALLS):
        kamailio.say(asked(number))
        await until(lambda n=number: narrow.answer(n) is not None)  # type: ignore[misc]
    stops = [ended(number) for number in range(CALLS)]
    for number in range(FLOOD):
        kamailio.say(asked(1000 + number))
        if number % (FLOOD // CALLS) == 0:
            kamailio.say(stops[number // (FLOOD // CALLS)])
    loop = asyncio.get_running_loop()
    deadline = loop.time() + 10
    while left := unheard():
        assert loop.time() < deadline, f"stops {left} are not heard"
        for number in left:
            kamailio.say(stops[number])
        await asyncio.sleep(0.05)
    narrow.spent += CALLS * 2 * CENT
    await until(lambda: all(narrow.answer(1000 + n) is not None for n in range(FLOOD)))
    refused = [narrow.answer(1000 + n) for n in range(FLOOD)]
    assert any(one is not None and not one.allow for one in refused)
    assert narrow.faults(door, "flood") > 0
    await _settled(narrow, "evapi")


async def test_fastagi_sheds_new_calls_and_every_end_is_charged(narrow: Town) -> None:
    asterisk = narrow.asterisk
    calls = [await asterisk.dial(UK_FIXED) for _ in range(CALLS)]
    for call in calls:
        assert call.variables["TK_RESULT"] == "allow"
        asterisk.answer(call)
        assert call.answered is not None
        call.answered -= 2  # it has talked for two seconds
    dialling = [asyncio.create_task(asterisk.dial(UK_FIXED)) for _ in range(60)]
    await asyncio.gather(*(asterisk.hang_up(call) for call in calls))
    flood = await asyncio.gather(*dialling)
    for call in flood:
        if call.up:
            await asterisk.hang_up(call)
    await until(
        lambda: narrow.world.one("SELECT count(*) FROM live_session") == 0, what="all are settled"
    )
    ended = {
        row["key"]: row["charge"]
        for row in narrow.world.sql("SELECT key, charge FROM closed_session WHERE charge > 0")
    }
    assert set(ended) == {f"ast/{call.uniqueid}" for call in calls}
    assert min(ended.values()) >= 2 * CENT
    narrow.spent += sum(ended.values(), Decimal(0))
    await narrow.unharmed(narrow.doors["fastagi"], "a flood")


async def _settled(narrow: Town, name: str) -> None:
    """Only what was let in is open; it goes back, and the next one is served."""
    door = narrow.doors[name]
    let_in = await narrow.release(door)
    assert 0 < let_in < FLOOD
    await narrow.unharmed(door, "a flood")


# --- late, and again ---------------------------------------------------------------------------------


async def test_what_is_caught_and_sent_again_from_elsewhere_changes_nothing(place: Town) -> None:
    """An Access-Request of a call that is up, replayed by another socket: it would look like a restart."""
    nas = place.nas
    asked = await nas.ask(place.about("caught"))
    await nas.tell(Status.START, place.about("caught"))
    before = place.faults(place.doors["radius_auth"], "duplicate")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.setblocking(False)
        udp.sendto(asked.sent, ("127.0.0.1", nas.auth))
        answer = await asyncio.wait_for(asyncio.get_running_loop().sock_recv(udp, 4096), 5)
    assert answer == asked.answer
    assert place.faults(place.doors["radius_auth"], "duplicate") == before + 1
    stop = place.about("caught", integer(Type.ACCT_SESSION_TIME, 5))
    await nas.tell(Status.STOP, stop)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.setblocking(False)
        assert nas.last is not None
        udp.sendto(nas.last.sent, ("127.0.0.1", nas.acct))
        await asyncio.wait_for(asyncio.get_running_loop().sock_recv(udp, 4096), 5)
    place.spent += 5 * CENT
    await place.unharmed(place.doors["radius_acct"], "a replay")


async def test_a_clock_an_hour_off_charges_what_was_talked(place: Town) -> None:
    """Slow or fast, with and without seconds of the call beside it."""
    for number, hours in enumerate((-1, 1)):
        now = int((datetime.now(UTC) + timedelta(hours=hours)).timestamp())
        name = f"clock-{number}"
        await place.nas.ask(place.about(name))
        began = integer(Type.EVENT_TIMESTAMP, now)
        await place.nas.tell(Status.START, place.about(name, began))
        ended = integer(Type.EVENT_TIMESTAMP, now + 4)
        length = [integer(Type.ACCT_SESSION_TIME, 4)] if number else []
        await place.nas.tell(Status.STOP, place.about(name, ended, *length))
        place.spent += 4 * CENT
        await place.unharmed(place.doors["radius_acct"], f"{hours} h")
    place.freeswitch.clock_error = 3600.0
    await place.unharmed(place.doors["esl"], "an hour")


async def test_the_same_id_after_a_reboot_is_another_call(
    place: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The NAS lost its calls and counts from the beginning: both are charged, each by its own."""
    monkeypatch.setattr(radius_access, "FAILOVER", timedelta(0))  # it took its time to boot
    nas, about = place.nas, place.about
    await nas.ask(about("00000001"))
    await nas.tell(Status.START, about("00000001"))
    interim = about("00000001", integer(Type.ACCT_SESSION_TIME, 7))
    await nas.tell(Status.INTERIM, interim)
    await nas.ask(about("00000001"))
    await nas.tell(Status.START, about("00000001"))
    await nas.tell(Status.STOP, about("00000001", integer(Type.ACCT_SESSION_TIME, 3)))
    place.spent += 10 * CENT
    await place.unharmed(place.doors["radius_acct"], "a reboot")


async def test_an_event_stream_ends_when_the_server_stops(place: Town) -> None:
    """In good order: its last chunk says that it is over, and stopping does not wait for its listener."""
    reader, writer = await asyncio.open_connection("127.0.0.1", place.http)
    auth = f"Authorization: Bearer {place.token}\r\n"
    writer.write(f"GET /v1/events HTTP/1.1\r\nHost: x\r\n{auth}\r\n".encode())
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
    assert head.startswith(b"HTTP/1.1 200"), head
    loop = asyncio.get_running_loop()
    began = loop.time()
    place.stop_http()
    rest = await asyncio.wait_for(reader.read(), 5)
    assert rest.endswith(b"0\r\n\r\n"), rest
    assert loop.time() - began < 1
    writer.close()
