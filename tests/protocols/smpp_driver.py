"""What stands on both sides of our SMPP gateway in the tests: an ESME and an SMSC.

The SMSC takes messages, answers as it is told to, and sends receipts; the ESME binds, submits and
takes receipts. Neither shares more with the server than the codec.
"""

from __future__ import annotations

import asyncio
import itertools
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from tests.protocols.house import House, add_peer
from tests.support import Customer, Row, World, tariff, until
from tollkeeper.servers.smpp.gateway import SmppGateway
from tollkeeper.services.tasks import end
from tollkeeper.services.verify import verify
from tollkeeper.wire.smpp import pdu as smpp
from tollkeeper.wire.smpp.pdu import Bind, Framer, Message, Pdu
from tollkeeper.wire.smpp.receipt import Receipt, receipt_parts

PASSWORD = "secret08"


class _Peer:
    """A connection that reads PDUs and pairs responses with requests."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self._numbers = itertools.count(1)
        self._asked: dict[int, asyncio.Future[Pdu]] = {}
        self.trace: list[tuple[str, bytes]] = []

    def send(self, frame: bytes) -> None:
        self.trace.append(("out", frame))
        self.writer.write(frame)

    def ask(self, command: int, body: bytes = b"") -> asyncio.Future[Pdu]:
        number = next(self._numbers)
        future: asyncio.Future[Pdu] = asyncio.get_running_loop().create_future()
        self._asked[number] = future
        self.send(smpp.frame(command, 0, number, body))
        return future

    def answer(self, pdu: Pdu, status: int = 0, body: bytes = b"") -> None:
        self.send(smpp.frame(pdu.command | smpp.RESPONSE, status, pdu.sequence, body))

    async def read(self, take: Callable[[Pdu], None]) -> None:
        framer = Framer()
        with suppress(OSError):
            while data := await self.reader.read(65_536):
                for pdu in framer.feed(data):
                    self.trace.append(("in", smpp.encode(pdu)))
                    if pdu.command & smpp.RESPONSE:
                        future = self._asked.pop(pdu.sequence, None)
                        if future is not None and not future.done():
                            future.set_result(pdu)
                    else:
                        take(pdu)
        for future in self._asked.values():
            if not future.done():
                future.set_exception(ConnectionError("closed"))
                future.exception()


class FakeSmsc:
    """An SMSC on a loopback port that somebody else's gateway would have."""

    def __init__(self, *, tls: ssl.SSLContext | None = None) -> None:
        self.port = 0
        self.binds: list[Bind] = []
        self.messages: list[Message] = []
        self.delivered: list[Pdu] = []
        self.statuses: list[int] = []
        """Statuses of the next messages; afterwards all are taken."""
        self.silent = False
        self.write_id: Callable[[int], str] = str
        self.accepts = True
        self.receipt_first = False
        self._ids = itertools.count(1000)
        self._tls = tls
        self._server: asyncio.Server | None = None
        self._peers: set[_Peer] = set()
        self._tasks: set[asyncio.Task[Any]] = set()

    async def start(self) -> None:
        """Listen, again on the port of before."""
        self._server = await asyncio.start_server(
            self._serve, "127.0.0.1", self.port, ssl=self._tls
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Go away; connections break."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for peer in list(self._peers):
            peer.writer.transport.abort()
        await until(lambda: not self._peers, what="the SMSC has no connection")
        await end(self._tasks)

    @property
    def bound(self) -> int:
        """How many gateways are connected."""
        return len(self._peers)

    async def receipt(
        self, message_id: str, state: str, message: Message, *, error: str = "000"
    ) -> Pdu:
        """Send the receipt of a message; the gateway's answer."""
        text, tlvs = receipt_parts(
            Receipt(message_id, state, error),
            submitted=datetime.now(UTC),
            done=datetime.now(UTC),
            text=message.short_message,
        )
        body = smpp.message_body(
            smpp.DELIVER_SM,
            Message(
                source_ton=1,
                source_npi=1,
                source=message.dest,
                dest_ton=5,
                dest=message.source,
                esm_class=smpp.RECEIPT,
                short_message=text,
                tlvs=tlvs,
            ),
        )
        (peer,) = self._peers
        return await asyncio.wait_for(peer.ask(smpp.DELIVER_SM, body), 10)

    def drop(self) -> None:
        """Break all connections."""
        for peer in list(self._peers):
            peer.writer.transport.abort()

    @property
    def traces(self) -> list[tuple[str, bytes]]:
        """What was said on the connection that is up, with the gateway as the client."""
        (peer,) = self._peers
        return [("client" if way == "in" else "server", data) for way, data in peer.trace]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = _Peer(reader, writer)
        self._peers.add(peer)
        try:
            await peer.read(lambda pdu: self._take(peer, pdu))
        finally:
            self._peers.discard(peer)
            writer.close()

    def _take(self, peer: _Peer, pdu: Pdu) -> None:
        if pdu.command in smpp.BINDS:
            self.binds.append(smpp.read_bind(pdu.body))
            status = smpp.OK if self.accepts else smpp.INVALID_PASSWORD
            peer.answer(pdu, status, smpp.bind_resp_body("fake"))
        elif pdu.command in {smpp.SUBMIT_SM, smpp.DATA_SM}:
            self.messages.append(smpp.read_message(pdu.command, pdu.body))
            if self.silent:
                return
            status = self.statuses.pop(0) if self.statuses else smpp.OK
            id_ = self.write_id(next(self._ids))
            if self.receipt_first and status == smpp.OK:
                task = asyncio.create_task(self.receipt(id_, "DELIVRD", self.messages[-1]))
                self._tasks.add(task)
                asyncio.get_running_loop().call_later(
                    0.3, peer.answer, pdu, status, smpp.id_body(id_)
                )
                return
            peer.answer(pdu, status, smpp.id_body(id_) if status == smpp.OK else b"")
        else:
            peer.answer(pdu)


class Esme:
    """An ESME; ``receipts`` are the deliver_sm that it got."""

    def __init__(self, port: int, *, system_id: str = "acme", password: str = PASSWORD) -> None:
        self.port, self.system_id, self.password = port, system_id, password
        self.receipts: list[Message] = []
        self.requests: list[int] = []
        self.nacks: list[Pdu] = []
        self.receipt_status = smpp.OK
        self.mute = False
        self.closed = asyncio.Event()
        self._peer: _Peer | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def peer(self) -> _Peer:
        """The connection."""
        assert self._peer is not None
        return self._peer

    async def connect(self, tls: ssl.SSLContext | None = None) -> None:
        """Open the connection."""
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", self.port, ssl=tls, server_hostname="localhost" if tls else None
        )
        self._peer = _Peer(reader, writer)
        self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        await self.peer.read(self._take)
        self.closed.set()

    async def bind(self, command: int = smpp.BIND_TRANSCEIVER, **more: Any) -> int:
        """Connect and bind; the status of the answer."""
        await self.connect(**more)
        body = smpp.bind_body(Bind(self.system_id, self.password))
        return (await self.ask(command, body)).status

    async def ask(self, command: int, body: bytes = b"") -> Pdu:
        """Send a request and wait for its answer."""
        return await asyncio.wait_for(self.peer.ask(command, body), 15)

    async def submit(self, **fields: Any) -> tuple[int, str]:
        """Submit a message; the status and id of the answer."""
        answer = await self.ask(smpp.SUBMIT_SM, smpp.message_body(smpp.SUBMIT_SM, text(**fields)))
        return answer.status, smpp.read_id(answer.body)

    async def close(self) -> None:
        """Break the connection."""
        if self._peer is not None:
            self._peer.writer.transport.abort()
        if self._task is not None:
            await self._task

    def _take(self, pdu: Pdu) -> None:
        self.requests.append(pdu.command)
        if self.mute:
            return
        if pdu.command == smpp.DELIVER_SM:
            if self.receipt_status == smpp.OK:
                self.receipts.append(smpp.read_message(pdu.command, pdu.body))
            self.peer.answer(pdu, self.receipt_status, smpp.id_body(""))
        elif pdu.command in {smpp.ENQUIRE_LINK, smpp.UNBIND}:
            self.peer.answer(pdu)


def text(**fields: Any) -> Message:
    """A message from ACME to a mobile, of one segment unless told otherwise; a receipt is wanted."""
    return Message(
        **{
            "source_ton": 5,
            "source": "ACME",
            "dest_ton": 1,
            "dest_npi": 1,
            "dest": "447700900123",
            "registered": 1,
            "short_message": b"hello",
            **fields,
        }
    )


class Scene:
    """A gateway with an ESME's and an SMSC's peers; a segment costs ten cents."""

    def __init__(self, world: World, house: House, smsc: FakeSmsc, stack: AsyncExitStack) -> None:
        self.world, self.house, self.smsc = world, house, smsc
        self._stack = stack
        card = world.card(
            "sms", [Row("44", "United Kingdom", tariff("0.10"))], service="sms", per=1
        )
        self.plan = world.plan("sms", card)
        self.acme: Customer

    def set_up(self, balance: str = "10", **options: Any) -> None:
        """A customer, its ESME "acme", and the SMSC "smsc"; before the house starts or while it runs."""
        smsc_options = options.pop("smsc", {})
        addresses = options.pop("addresses", [])
        self.acme = self.world.customer("acme", balance=balance, plan=self.plan)
        add_peer(
            self.world,
            "acme",
            "esme",
            secret=PASSWORD,
            addresses=addresses,
            options={"party": "acme", "upstream": "smsc", **options},
        )
        add_peer(
            self.world,
            "smsc",
            "smsc",
            secret="pw",
            options={"connect": f"127.0.0.1:{self.smsc.port}", **smsc_options},
        )

    async def start(self) -> None:
        """Start the house and wait until it is bound to the SMSC."""
        await self.house.start()
        self._stack.push_async_callback(self.house.stop)
        await self.connected()

    async def connected(self) -> None:
        """Wait until the gateway is bound to the SMSC and knows the ESME."""
        await until(lambda: self.gateway.upstream_up("smsc"), what="bound to the SMSC")

    @property
    def gateway(self) -> SmppGateway:
        """The gateway that runs now."""
        (found,) = [one for one in self.house.network.listeners if isinstance(one, SmppGateway)]
        return found

    async def esme(self, *, bound: bool = True, **more: Any) -> Esme:
        """An ESME, bound unless told otherwise."""
        made = Esme(self.gateway.ports[0], **more)
        self._stack.push_async_callback(made.close)
        if bound:
            assert await made.bind() == smpp.OK
        return made

    @property
    def spent(self) -> Decimal:
        """What the customer has paid, refunds taken off."""
        wallet = self.world.wallet(self.acme)
        return wallet.debited - (wallet.credited - self._funds)

    @property
    def _funds(self) -> Decimal:
        return Decimal(
            self.world.one(
                "SELECT coalesce(sum(amount), 0) FROM entry WHERE wallet_id = %s AND code = 'topup'",
                self.acme.wallet_id,
            )
        )

    async def proven(self) -> None:
        """The books hold."""
        report = await verify(self.house.parts.database)
        assert report.clean, report.findings


@asynccontextmanager
async def scene(database_url: str, **settings: Any) -> AsyncIterator[Scene]:
    """A scene with an SMSC that listens; the house is not started yet."""
    async with AsyncExitStack() as stack:
        world = stack.enter_context(World(database_url))
        smsc = FakeSmsc()
        await smsc.start()
        stack.push_async_callback(smsc.stop)
        house = House(database_url, **{"smpp_listen": "127.0.0.1:0", **settings})
        yield Scene(world, house, smsc, stack)
