"""One house with every door open: a peer, a good request and the faults of each, for tests of bad input.

A :class:`Door` is one way in: a port that is listened on, or a switch that is connected to. Its ``good``
makes one honest request from beginning to end and says what it costs.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import os
import socket
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from structlog.testing import capture_logs

from tests.protocols.asterisk_fake import FakeAsterisk
from tests.protocols.diameter_client import Client
from tests.protocols.freeswitch_fake import FakeFreeSwitch
from tests.protocols.house import House, add_peer, add_trunk
from tests.protocols.liars import FakeKamailio, Liar
from tests.protocols.radius_nas import Nas
from tests.protocols.smpp_driver import Esme, FakeSmsc
from tests.servers.test_freeswitch_http import record
from tests.support import UK_FIXED, Customer, Row, World, free_port, tariff, until
from tollkeeper.cli.serve import bind, server_config
from tollkeeper.core.records import Policy
from tollkeeper.servers.api.app import create_app
from tollkeeper.servers.api.charging import ChargingApp
from tollkeeper.servers.api.context import Services
from tollkeeper.servers.application import Application
from tollkeeper.services.verify import verify
from tollkeeper.telemetry import REGISTRY, PeerMeter
from tollkeeper.wire.diameter.codes import Kind
from tollkeeper.wire.diameter.credit import Units
from tollkeeper.wire.diameter.service import ServiceInformation
from tollkeeper.wire.kamailio import evapi
from tollkeeper.wire.radius.attributes import Type, integer, text
from tollkeeper.wire.radius.messages import Status
from tollkeeper.wire.radius.packet import Attribute, Code
from tollkeeper.wire.smpp import pdu as smpp

SECRETS = {
    "radius": "planted-radius-9f31",
    "esme": "pl4ntedS",
    "smsc": "pl4ntedU",
    "esl": "planted-esl-77ab",
    "ami": "planted-ami-53cd",
    "evapi": "planted-evapi-11ef",
}
"""What must never be seen in a log line."""
STRANGER = "127.0.0.77"
"""An address of this machine that is no peer's."""
FREE = Decimal(0)
CENT = Decimal("0.01")
PATIENT = Policy()


@dataclass
class Door:
    """One way in. ``peer`` and ``protocol`` are the labels of its faults; ``stream`` what it runs over."""

    name: str
    peer: str
    protocol: str
    port: int
    good: Callable[[], Awaitable[Decimal]]
    stream: bool = True


@dataclass
class Town:
    """The house, its customer, the switches, and the doors by their names."""

    world: World
    house: House
    acme: Customer
    nas: Nas
    smsc: FakeSmsc
    asterisk: FakeAsterisk
    freeswitch: FakeFreeSwitch
    kamailio: FakeKamailio
    liars: dict[str, Liar]
    token: str
    http: int
    stop_http: Callable[[], None]
    logs: list[Any]
    doors: dict[str, Door] = field(default_factory=dict)
    numbers: Any = field(default_factory=lambda: itertools.count(1))
    spent: Decimal = FREE
    seen: str = ""
    """Logs that were put aside."""

    # --- looking ---------------------------------------------------------------------------------

    def faults(self, door: Door, fault: str, *, unknown: bool = False) -> float:
        """How often a fault was counted."""
        labels = {"peer": "" if unknown else door.peer, "protocol": door.protocol, "fault": fault}
        return REGISTRY.get_sample_value("tollkeeper_peer_faults_total", labels) or 0.0

    def lines(self, fault: str, protocol: str) -> list[Any]:
        """The log lines of a fault."""
        return [
            line
            for line in self.logs
            if line["event"] == f"peer.{fault}" and line.get("protocol") == protocol
        ]

    async def unharmed(self, door: Door, why: str) -> None:
        """A good request is served, and only it is paid for; nothing stays held or open."""
        cost = await asyncio.wait_for(door.good(), 15)
        self.spent += cost
        await until(
            lambda: self.world.one("SELECT count(*) FROM live_session") == 0,
            seconds=8,
            what=f"nothing is open after: {why}",
        )
        wallet = self.world.wallet(self.acme)
        assert wallet.held == 0, why
        assert wallet.debited == self.spent, f"{why}: {wallet.debited} instead of {self.spent}"

    async def release(self, door: Door) -> int:
        """End without usage whatever is open at the switch of a door; how many that were."""
        peer = next(p for p in self.house.board.book.of_kind(door.protocol) if p.code == door.peer)
        open_ = await self.house.board.open_calls(peer)
        for session in open_:
            await self.house.board.stop_call(peer, session.key.partition("/")[2], 0, cause="test")
        return len(open_)

    async def proven(self) -> None:
        """The books are right."""
        report = await verify(self.house.parts.database)
        assert report.clean, report.findings

    # --- good requests ---------------------------------------------------------------------------

    def about(self, session_id: str, *more: Attribute) -> list[Attribute]:
        """The attributes of a RADIUS request about a call."""
        return [
            text(Type.USER_NAME, "gw"),
            text(Type.CALLED_STATION_ID, UK_FIXED),
            text(Type.CALLING_STATION_ID, "12025550100"),
            text(Type.ACCT_SESSION_ID, session_id),
            *more,
        ]

    async def radius(self) -> Decimal:
        """A call of three seconds: asked for at one port, reported at the other."""
        name = f"good-{next(self.numbers)}"
        found = await self.nas.ask(self.about(name))
        assert found.packet.code == Code.ACCESS_ACCEPT
        await self.nas.tell(Status.START, self.about(name))
        await self.nas.tell(Status.STOP, self.about(name, integer(Type.ACCT_SESSION_TIME, 3)))
        return 3 * CENT

    async def diameter(self) -> Decimal:
        """A gateway says hello, and makes a call of three seconds."""
        client = Client("gw.example")
        await client.connect(("127.0.0.1", self.doors["diameter"].port))
        try:
            assert (await client.hello()).result == 2001
            session = f"gw.example;good;{next(self.numbers)}"
            more: dict[str, Any] = {
                "subscribers": ((0, "12025550100"),),
                "information": ServiceInformation(called=f"tel:+{UK_FIXED}"),
            }
            first = client.request(session, Kind.INITIAL, 0, requested=Units(time=30), **more)
            assert (await client.credit(first)).result == 2001
            last = client.request(session, Kind.TERMINATION, 1, used=(Units(time=3),), **more)
            told = await client.credit(last)
            assert told.result == 2001, told
        finally:
            await client.close()
        return 3 * CENT

    async def smpp(self) -> Decimal:
        """An ESME binds and sends one message."""
        esme = Esme(self.doors["smpp"].port, password=SECRETS["esme"])
        assert await esme.bind() == smpp.OK
        assert (await esme.submit())[0] == smpp.OK
        await esme.close()
        return 10 * CENT

    async def sip_udp(self) -> Decimal:
        """An INVITE is sent on; its hold goes back with the record of a call that was not answered."""
        call = f"good-{next(self.numbers)}"
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
            udp.setblocking(False)
            udp.bind(("127.0.0.1", 0))
            loop = asyncio.get_running_loop()
            answer = b""
            for _ in range(10):  # sent again as RFC 3261 has it: datagrams are lost in a flood
                await loop.sock_sendto(udp, invite(call), ("127.0.0.1", self.doors["sip_udp"].port))
                with suppress(TimeoutError):
                    answer = await asyncio.wait_for(loop.sock_recv(udp, 65_536), 0.5)
                    break
            await loop.sock_sendto(udp, ack(call), ("127.0.0.1", self.doors["sip_udp"].port))
        return await self._redirected(call, answer)

    async def sip_tcp(self) -> Decimal:
        """The same over TCP."""
        call = f"good-{next(self.numbers)}"
        reader, writer = await asyncio.open_connection("127.0.0.1", self.doors["sip_tcp"].port)
        writer.write(invite(call, "TCP"))
        answer = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
        writer.close()
        await writer.wait_closed()
        return await self._redirected(call, answer)

    async def _redirected(self, call: str, answer: bytes) -> Decimal:
        assert answer.startswith(b"SIP/2.0 302"), answer
        peer = self.house.board.book.named("sip-gw", "sip")
        assert peer is not None
        await self.house.board.stop_call(peer, call, 0, cause="test")
        return FREE

    async def fastagi(self) -> Decimal:
        """A channel asks, is never answered, and is gone."""
        call = await self.asterisk.dial(UK_FIXED)
        assert call.variables["TK_RESULT"] == "allow"
        await self.asterisk.hang_up(call)
        return FREE

    async def web(self) -> Decimal:
        """FreeSWITCH asks for a dialplan, and its record says that nobody answered."""
        uuid = f"0f1b3a52-2b0d-4a8e-9d53-{next(self.numbers):012x}"
        form = {
            "section": "dialplan", "Unique-ID": uuid, "Hunt-Context": "tollkeeper",
            "Hunt-Destination-Number": UK_FIXED, "Hunt-Caller-ID-Number": "442071838750",
            "variable_accountcode": "acme",
        }  # fmt: skip
        auth = ("tollkeeper", self.token)
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{self.http}", auth=auth) as web:
            answer = await web.post("/v1/freeswitch/dialplan", data=form)
            assert answer.status_code == 200, answer.text
            assert "tollkeeper_granted" in answer.text
            told = await web.post("/v1/freeswitch/cdr", content=record(3000, uuid=uuid))
            assert told.json() == {"settled": True, "file": None}, told.text
        return 3 * CENT

    async def esl(self) -> Decimal:
        """A parked call is sent on, and ends without an answer."""
        await until(lambda: self.house.board.reach.has("fs", "freeswitch"), what="ESL is up")
        call = self.freeswitch.dial(UK_FIXED)
        await until(lambda: bool(call.variables.get("tollkeeper_granted")), what="it is allowed")
        self.freeswitch.hang_up(call)
        return FREE

    async def ami(self) -> Decimal:
        """The manager interface is up and a call goes through."""
        await until(lambda: bool(self.asterisk._clients), what="the agent is logged in")
        return await self.fastagi()

    async def evapi(self) -> Decimal:
        """A call is allowed and ends without an answer."""
        await until(lambda: self.kamailio.up is not None, what="evapi is up")
        number = next(self.numbers)
        call = evapi.Call(f"good-{number}", called=UK_FIXED, source="192.0.2.1", h_entry=number)
        self.kamailio.say(evapi.Authorise(number, number, call))
        await until(lambda: self.answer(number) is not None, what="it is answered")
        answer = self.answer(number)
        assert answer is not None
        assert answer.allow == 1, answer
        self.kamailio.say(
            evapi.Failed(
                id=f"f{number}", at="101", call_id=call.call_id, session=answer.session,
                h_entry=number,
            )
        )  # fmt: skip
        return FREE

    def answer(self, number: int) -> evapi.Answer | None:
        """What Kamailio was told of a waiting call."""
        heard = self.kamailio.heard
        found = (m for m in heard if isinstance(m, evapi.Answer) and m.index == number)
        return next(found, None)


# --- SIP messages ----------------------------------------------------------------------------------


def sip_request(method: str, call: str, over: str = "UDP", branch: str = "", **more: str) -> bytes:
    """A request of a switch; ``more`` replaces headers, "" leaves one out."""
    headers = {
        "Via": f"SIP/2.0/{over} 127.0.0.1;branch=z9hG4bK{branch or call};rport",
        "Max-Forwards": "70",
        "From": "<sip:+12025550100@127.0.0.1>;tag=t1",
        "To": f"<sip:{UK_FIXED}@127.0.0.1>",
        "Call-ID": call,
        "CSeq": f"1 {method}",
        "Contact": "<sip:sw@127.0.0.1>",
        "Content-Length": "0",
    } | {name.replace("_", "-"): value for name, value in more.items()}
    lines = [f"{name}: {value}" for name, value in headers.items() if value]
    return "\r\n".join([f"{method} sip:{UK_FIXED}@127.0.0.1 SIP/2.0", *lines, "", ""]).encode()


def invite(call: str, over: str = "UDP", **more: str) -> bytes:
    """An INVITE."""
    return sip_request("INVITE", call, over, **more)


def ack(call: str) -> bytes:
    """The ACK to its answer."""
    return sip_request("ACK", call)


# --- the whole town ----------------------------------------------------------------------------------


@asynccontextmanager
async def town(url: str, monkeypatch: pytest.MonkeyPatch, **given: Any) -> AsyncIterator[Town]:
    """Everything up, every peer known, every agent connected; all logs are kept.

    ``given`` are settings. At the end neither a task nor a socket of the house is left.
    """
    monkeypatch.setattr(PeerMeter, "_made", {})  # so that each fault is logged once more
    async with AsyncExitStack() as stack:
        logs = stack.enter_context(capture_logs())
        world = stack.enter_context(World(url))
        sms = world.card("sms", [Row("44", "UK", tariff("0.10"))], service="sms", per=1)
        plan = world.plan("both", world.card_id, sms)
        acme = world.customer("acme", balance="1000", plan=plan)
        add_trunk(world, "acme-in", acme)
        agi = free_port()
        smsc, asterisk = FakeSmsc(), FakeAsterisk(agi)
        asterisk.secret = SECRETS["ami"]
        freeswitch, kamailio = FakeFreeSwitch(SECRETS["esl"]), FakeKamailio(SECRETS["evapi"])
        liars = {
            "esl": Liar(lambda: freeswitch.port),
            "ami": Liar(lambda: asterisk.port),
            "evapi": Liar(lambda: kamailio.port),
        }
        for fake in (smsc, asterisk, freeswitch, kamailio, *liars.values()):
            await fake.start()
            stack.push_async_callback(fake.stop)
        _peers(world, liars, smsc.port)
        ports = {name: free_port() for name in ("auth", "acct", "diameter", "smpp", "sip")}
        settings = {
            "radius_auth_listen": f"127.0.0.1:{ports['auth']}",
            "radius_acct_listen": f"127.0.0.1:{ports['acct']}",
            "diameter_listen": f"127.0.0.1:{ports['diameter']}",
            "diameter_host": "ocs.example",
            "diameter_realm": "example",
            "smpp_listen": f"127.0.0.1:{ports['smpp']}",
            "sip_listen": f"127.0.0.1:{ports['sip']}",
            "agi_listen": f"127.0.0.1:{agi}",
        } | given
        house = House(url, policy=PATIENT, **settings)
        await house.start()
        stack.push_async_callback(house.stop)
        nas = Nas(SECRETS["radius"].encode(), ports["auth"], ports["acct"])
        await nas.open()
        stack.callback(nas.close)
        token = world.key("charge", "read", switch="fs")
        http, stop = await stack.enter_async_context(_serving(house))
        made = Town(
            world,
            house,
            acme,
            nas,
            smsc,
            asterisk,
            freeswitch,
            kamailio,
            liars,
            token,
            http,
            stop,
            logs,
        )
        _doors(made, ports, agi)
        reach = house.board.reach
        await until(lambda: reach.has("fs", "freeswitch"), what="ESL is up")
        await until(lambda: reach.has("kam", "kamailio"), what="evapi is up")
        await until(lambda: reach.has("ast", "asterisk"), what="AMI is up")
        await until(lambda: smsc.bound == 1, what="the SMSC is bound")
        yield made


def _peers(world: World, liars: dict[str, Liar], smsc: int) -> None:
    here: dict[str, Any] = {"addresses": ["127.0.0.1"], "trunk": "acme-in"}
    add_peer(world, "nas", "radius", secret=SECRETS["radius"], **here, options={"slice": 60})
    add_peer(
        world, "gw", "diameter", **here, options={"origin_host": "gw.example", "slice": 60}
    )  # fmt: skip
    add_peer(
        world, "esme", "esme", secret=SECRETS["esme"], addresses=["127.0.0.1"],
        options={"party": "acme", "upstream": "smsc", "system_id": "acme"},
    )  # fmt: skip
    add_peer(
        world, "smsc", "smsc", secret=SECRETS["smsc"], options={"connect": f"127.0.0.1:{smsc}"}
    )
    routes = [{"prefix": "44", "to": "sip:{number}@203.0.113.5"}]
    add_peer(world, "sip-gw", "sip", **here, options={"routes": routes, "slice": 600})
    add_peer(
        world, "ast", "asterisk", secret=SECRETS["ami"], **here,
        options={"slice": 60, "connect": f"127.0.0.1:{liars['ami'].port}"},
    )  # fmt: skip
    add_peer(
        world, "fs", "freeswitch", secret=SECRETS["esl"], trunk="acme-in",
        options={"slice": 60, "connect": f"127.0.0.1:{liars['esl'].port}"},
    )  # fmt: skip
    add_peer(
        world, "kam", "kamailio", secret=SECRETS["evapi"], trunk="acme-in",
        options={"connect": f"127.0.0.1:{liars['evapi'].port}", "rpc": "http://127.0.0.1:1/RPC"},
    )  # fmt: skip


def _doors(made: Town, ports: dict[str, int], agi: int) -> None:
    found = (
        Door("radius_auth", "nas", "radius", ports["auth"], made.radius, stream=False),
        Door("radius_acct", "nas", "radius", ports["acct"], made.radius, stream=False),
        Door("diameter", "gw", "diameter", ports["diameter"], made.diameter),
        Door("smpp", "esme", "smpp", ports["smpp"], made.smpp),
        Door("sip_udp", "sip-gw", "sip", ports["sip"], made.sip_udp, stream=False),
        Door("sip_tcp", "sip-gw", "sip", ports["sip"], made.sip_tcp),
        Door("fastagi", "ast", "asterisk", agi, made.fastagi),
        Door("http", "fs", "freeswitch", made.http, made.web),
        Door("esl", "fs", "freeswitch", 0, made.esl),
        Door("ami", "ast", "asterisk", 0, made.ami),
        Door("evapi", "kam", "kamailio", 0, made.evapi),
    )
    made.doors = {door.name: door for door in found}


@asynccontextmanager
async def _serving(house: House) -> AsyncIterator[tuple[int, Callable[[], None]]]:
    """The HTTP side of the house on a real port, and how to stop it."""
    parts = house.parts
    services = Services(
        parts.database, parts.directory, parts.charging, parts.clock, board=parts.board
    )

    @asynccontextmanager
    async def opening() -> AsyncIterator[Any]:
        yield ChargingApp(parts.charging, parts.directory), create_app(services)

    config = server_config(Application(opening))
    config.timeout_graceful_shutdown = 1
    server = uvicorn.Server(config)
    listener = bind("127.0.0.1", 0)
    task = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        await until(lambda: server.started, what="HTTP is up")
        stop = partial(setattr, server, "should_exit", True)
        yield int(listener.getsockname()[1]), stop
    finally:
        server.should_exit = True
        await task
        listener.close()


# --- what is left behind -----------------------------------------------------------------------------


def at_work() -> Counter[str]:
    """The tasks of this process, by what they do; those of the test itself are not counted."""
    names = (
        task.get_coro().__qualname__  # type: ignore[union-attr]
        for task in asyncio.all_tasks()
        if not task.done()
    )
    return Counter(name for name in names if not name.startswith(("_wrap_asyncgen", "test_")))


def open_files() -> int:
    """How many sockets and files are open."""
    gc.collect()
    return len(list(Path("/proc/self/fd").iterdir()))


def resident_mib() -> float:
    """Memory that this process uses."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20
