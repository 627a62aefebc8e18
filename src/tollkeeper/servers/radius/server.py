"""The RADIUS server: who sends is known, what is sent is proven, and what is repeated is repeated.

Whatever proves nothing is dropped without an answer, counted, and logged once. Requests are worked on
side by side, within bounds: new calls are turned away first, ends of calls last (RFC 5080).
"""

from __future__ import annotations

import asyncio
import socket
from typing import Final, Self, cast

import psycopg
import structlog

from tollkeeper.errors import Busy
from tollkeeper.servers.answers import Answers, Known, Room
from tollkeeper.servers.radius.access import RadiusAccess
from tollkeeper.servers.radius.accounting import ACTIONS, RadiusAccounting
from tollkeeper.servers.radius.calls import RadiusCalls
from tollkeeper.servers.radius.ender import RadiusEnder
from tollkeeper.servers.radius.orders import PATIENCE, Patience
from tollkeeper.servers.switchboard import Switchboard
from tollkeeper.services.tasks import end
from tollkeeper.store.peers import Peer
from tollkeeper.telemetry import PeerMeter
from tollkeeper.wire.radius.messages import Report, Status, read_report
from tollkeeper.wire.radius.packet import (
    Code,
    Fault,
    MalformedRadius,
    Packet,
    check_request,
    decode,
    encode_answer,
)

PROTOCOL: Final = "radius"
ANSWERS_SECONDS = 30.0
"""RFC 5080 section 2.2.2: 5 to 30 seconds."""
ANSWERS_MAX = 65_536
RECEIVE_BYTES = 4 * 2**20
"""A burst waits here; what the system allows of it."""
STOP_SECONDS = 2.0
_UNSIGNED = (
    "an Access-Request without Message-Authenticator; make the switch send it, or set the peer's option"
    " message_authenticator to false"
)
_log = structlog.get_logger()


class RadiusServer:
    """The listener: a port for authentication, one for accounting, or both; they share their calls."""

    name = "RADIUS"

    def __init__(
        self,
        board: Switchboard,
        *,
        auth: tuple[str, int] | None,
        acct: tuple[str, int] | None,
        most: int = 2048,
        patience: Patience = PATIENCE,
    ) -> None:
        self._board = board
        self._wanted = ((auth, Code.ACCESS_REQUEST), (acct, Code.ACCOUNTING_REQUEST))
        self._most = most
        self._patience = patience
        self._ports: dict[Code, RadiusPort] = {}

    def port(self, code: Code) -> int:
        """The UDP port for Access-Requests or Accounting-Requests."""
        return self._ports[code].number

    async def start(self) -> None:
        """Begin to listen; raises OSError where an address cannot be had."""
        loop = asyncio.get_running_loop()
        self._ender = RadiusEnder(self._board, self._patience)
        self._calls = RadiusCalls(self._board, self._ender)
        access = RadiusAccess(self._board, self._calls)
        accounting = RadiusAccounting(self._board, self._calls)
        room = Room(self._most)
        try:
            for address, code in self._wanted:
                if address is not None:
                    port = RadiusPort(self._board, code, room, access, accounting)
                    await loop.create_datagram_endpoint(port.itself, local_addr=address)
                    self._ports[code] = port
        except OSError:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Take nothing more, answer what is under way, close."""
        for port in self._ports.values():
            await port.stop()
        self._ports = {}
        await self._calls.stop()
        await self._ender.stop()


class RadiusPort(asyncio.DatagramProtocol):
    """One UDP port, for requests of one code and Status-Server."""

    def __init__(
        self,
        board: Switchboard,
        code: Code,
        room: Room,
        access: RadiusAccess,
        accounting: RadiusAccounting,
    ) -> None:
        self._board = board
        self._code = code
        self._room = room
        self._access = access
        self._accounting = accounting
        loop = asyncio.get_running_loop()
        self._answers = Answers(seconds=ANSWERS_SECONDS, most=ANSWERS_MAX, clock=loop.time)
        self._transport: asyncio.DatagramTransport | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._closing = False

    def itself(self) -> Self:
        """The protocol of its one socket."""
        return self

    @property
    def number(self) -> int:
        """Where it listens."""
        assert self._transport is not None
        return int(self._transport.get_extra_info("sockname")[1])

    async def stop(self) -> None:
        """Take nothing more, answer what is under way, close."""
        self._closing = True
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=STOP_SECONDS)
        await end(self._tasks)
        if self._transport is not None:
            self._transport.close()
            self._transport = None

    # --- the socket ------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The socket is bound."""
        self._transport = cast("asyncio.DatagramTransport", transport)
        bound = transport.get_extra_info("socket")
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BYTES)

    def error_received(self, exc: Exception) -> None:
        """An answer could not be delivered; whoever asked asks again."""
        _log.debug("radius.undelivered", error=str(exc))

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        """Take a request, or drop it."""
        if self._closing:
            return
        peer = self._board.book.at(PROTOCOL, addr[0])
        if peer is None or not peer.secret:
            PeerMeter.of("", PROTOCOL).fault("unknown_peer", f"a packet from {addr[0]}")
            return
        meter = PeerMeter.of(peer.code, PROTOCOL)
        try:
            packet = decode(data)
        except MalformedRadius as error:
            meter.fault("malformed", str(error))
            return
        if packet.code not in {self._code, Code.STATUS_SERVER}:
            meter.fault("wrong_code", f"code {packet.code} at the port for {self._code.name}")
            return
        secret = peer.secret.encode()
        signed = peer.flag("message_authenticator", default=True)
        fault = check_request(packet, secret, require_signature=signed)
        if fault is Fault.UNSIGNED:
            meter.fault("unsigned", _UNSIGNED)
        elif fault is not Fault.NONE:
            meter.fault("wrong_secret", f"{fault}: the secrets differ, or somebody tampers")
        elif packet.code == Code.STATUS_SERVER:
            self._send(encode_answer(packet, self._alive, [], secret), addr)
        else:
            self._take(peer, packet, addr, meter)

    @property
    def _alive(self) -> Code:
        """What a Status-Server is answered (RFC 5997 section 4)."""
        accounting = self._code == Code.ACCOUNTING_REQUEST
        return Code.ACCOUNTING_RESPONSE if accounting else Code.ACCESS_ACCEPT

    def _take(self, peer: Peer, packet: Packet, addr: tuple[str, int], meter: PeerMeter) -> None:
        # Without the port: what is caught and sent again from another one is answered, not worked on.
        name = (addr[0], packet.identifier, packet.authenticator)
        known = self._answers.begin(name)
        if known is not Known.NEW:
            meter.fault("duplicate", log=False)
            if isinstance(known, bytes):
                self._send(known, addr)
            return
        report = read_report(packet) if self._code == Code.ACCOUNTING_REQUEST else None
        action = "authorise" if report is None else _action(report)
        if not self._room.enter(action):
            self._answers.forget(name)
            meter.fault("overload", f"more requests at once than are taken: {action}")
            return
        task = asyncio.get_running_loop().create_task(
            self._work(peer, packet, report, addr, name), name="radius"
        )
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _work(
        self,
        peer: Peer,
        packet: Packet,
        report: Report | None,
        addr: tuple[str, int],
        name: tuple[object, ...],
    ) -> None:
        answer: bytes | None = None
        try:
            answer = await self._answer(peer, packet, report, addr[0])
        except (Busy, psycopg.Error, OSError) as error:
            meter = PeerMeter.of(peer.code, PROTOCOL)
            meter.fault("not_recorded", f"nothing can be recorded at the moment: {error}")
        except Exception:  # noqa: BLE001 - one request that cannot be worked on ends alone
            _log.exception("radius.failed", peer=peer.code)
        finally:
            self._room.leave()
            if answer is None:
                self._answers.forget(name)
        if answer is not None:
            self._answers.answered(name, answer)
            self._send(answer, addr)

    async def _answer(
        self, peer: Peer, packet: Packet, report: Report | None, source: str
    ) -> bytes | None:
        secret = peer.secret.encode()
        if report is not None:
            if not await self._accounting.take(peer, source, report):
                return None
            return encode_answer(packet, Code.ACCOUNTING_RESPONSE, [], secret)
        found = await self._access.answer(peer, source, packet)
        return None if found is None else encode_answer(packet, found[0], found[1], secret)

    def _send(self, data: bytes, addr: tuple[str, int]) -> None:
        if self._transport is not None:
            self._transport.sendto(data, addr)


def _action(report: Report) -> str:
    try:
        return ACTIONS.get(Status(report.status), "update")
    except ValueError:
        return "update"
