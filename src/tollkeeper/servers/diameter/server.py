"""The Diameter server: peers connect by TCP or TLS, say who they are, and charge (RFC 6733, RFC 8506).

Only peers that are set are let in, by their Origin-Host and the address they come from (or, where no
address is set, by a certificate that names them). A connection that sends what is no Diameter is
closed. Answers leave after their commit; a request that is sent again gets the very same answer.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import time
from collections.abc import Coroutine, Iterable
from typing import Any

import structlog

from tollkeeper.core.records import Session
from tollkeeper.errors import TollkeeperError
from tollkeeper.gateways.kill import KillFailed
from tollkeeper.servers.answers import Answers, Room
from tollkeeper.servers.diameter.calls import Call, base_of, client_of, plain_id
from tollkeeper.servers.diameter.connection import Connection
from tollkeeper.servers.diameter.credit import CreditControl
from tollkeeper.servers.diameter.parts import error_text
from tollkeeper.servers.switchboard import Switchboard
from tollkeeper.servers.tls import server_tls
from tollkeeper.servers.turns import Turns
from tollkeeper.services.tasks import end
from tollkeeper.settings import Settings, listen_address
from tollkeeper.store.peers import Peer
from tollkeeper.telemetry import PeerMeter
from tollkeeper.wire.diameter import codes
from tollkeeper.wire.diameter.base import (
    SUCCEEDED,
    Answer,
    Capabilities,
    SessionRequest,
    encode_answer,
    encode_session_request,
    glance,
)
from tollkeeper.wire.diameter.codec import PROXIABLE, Header, MalformedDiameter
from tollkeeper.wire.diameter.codes import Command, Kind, Leave, Result
from tollkeeper.wire.diameter.credit import CreditRequest, decode_request
from tollkeeper.wire.diameter.credit_encode import encode_credit_answer

ANSWERS_SECONDS = 300.0
ANSWERS_MAX = 100_000
"""Answers are kept for repetitions at least four minutes (RFC 6733 section 3), at most so many: of
others the answer is made again from what was committed."""
CONNECTIONS_MAX = 1024
STRANGERS_MAX = 200
"""Connections that did not say hello yet; of a flood of them the oldest go."""
STOP_SECONDS = 2.0
KILL_SECONDS = 2.5
_ACTIONS = {Kind.INITIAL: "authorise", Kind.UPDATE: "update", Kind.TERMINATION: "stop"}
_log = structlog.get_logger()


class DiameterServer:
    """One listener, with or without TLS; the listeners of a process share a :class:`DiameterNode`."""

    def __init__(
        self, node: DiameterNode, host: str, port: int, *, tls: ssl.SSLContext | None = None
    ) -> None:
        self.name = "Diameter over TLS" if tls is not None else "Diameter"
        self._node = node
        self._host, self._port, self._tls = host, port, tls
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Listen. Raises OSError where the address cannot be had."""
        loop = asyncio.get_running_loop()
        secure = self._tls is not None
        self._server = await loop.create_server(
            lambda: Connection(self._node, secure=secure),
            self._host,
            self._port,
            ssl=self._tls,
            backlog=128,
        )

    async def stop(self) -> None:
        """Take no more connections, say goodbye to those there are, and end."""
        if self._server is not None:
            self._server.close()
            self._server = None
        await self._node.leave()


class DiameterNode:
    """Who we are to all peers, and what is done with their requests."""

    def __init__(self, board: Switchboard, settings: Settings) -> None:
        self.board = board
        self.host = settings.diameter_host or socket.getfqdn()
        self.realm = settings.diameter_realm or self.host.partition(".")[2] or self.host
        self.state_id = int(time.time())
        self.room = Room(settings.network_queue_max)
        self.connections: set[Connection] = set()
        self._all: set[Connection] = set()
        self._strangers: dict[Connection, None] = {}
        self.credit = CreditControl(board, self.host, self.realm, self.state_id)
        self._answers = Answers(seconds=ANSWERS_SECONDS, most=ANSWERS_MAX, clock=time.monotonic)
        self._turns = Turns()
        self._tasks: set[asyncio.Task[None]] = set()
        self._states: dict[str, int] = {}
        self._restored: set[str] = set()
        # Unique for as long as answers may be under way (RFC 6733 section 3): time above, chance below.
        self._end_to_end = (self.state_id & 0xFFF) << 20 | int.from_bytes(os.urandom(2)) << 4
        self._deaf = board.on_money(self._money_changed)
        board.on_peers(self._peers_changed)

    # --- peers -----------------------------------------------------------------------------------

    def capabilities(self, address: str, result: int = 0, error: str = "") -> Capabilities:
        """Who we are, towards a peer that came to this address of ours."""
        return Capabilities(
            self.host,
            self.realm,
            addresses=(address,),
            state_id=self.state_id,
            vendors=(codes.TGPP,),
            auth_applications=(codes.CREDIT_CONTROL,),
            vendor_applications=((codes.TGPP, codes.CREDIT_CONTROL),),
            result=result,
            error=error,
        )

    async def opened(self, connection: Connection, peer: Peer, state_id: int | None) -> None:
        """A peer is known and may charge from now on; what it lost by a restart is ended."""
        self._strangers.pop(connection, None)
        before = self._states.get(connection.origin_host)
        restarted = state_id is not None and before is not None and state_id > before
        if state_id is not None:
            self._states[connection.origin_host] = state_id
        if restarted or peer.switch not in self._restored:
            try:
                sessions = await self.board.open_calls(peer)
            except TollkeeperError:
                # The database is away: whatever this client lost is closed by its time.
                sessions, restarted = [], False
            else:
                self._restored.add(peer.switch)
            if restarted:
                self.begin(self._close(peer, self._of_client(peer, connection, sessions)))
            else:
                self.credit.calls.restore(peer, sessions)

    def admit(self, connection: Connection) -> bool:
        """A connection was made; False: there are too many."""
        if len(self._all) >= CONNECTIONS_MAX:
            PeerMeter.of("", "diameter").fault("overload", "too many connections")
            return False
        if len(self._strangers) >= STRANGERS_MAX:
            # A peer says hello at once: the longest silent ones make room for it.
            oldest = next(iter(self._strangers))
            del self._strangers[oldest]
            PeerMeter.of("", "diameter").fault("overload", "too many connections without a hello")
            oldest.close()
        self._all.add(connection)
        self._strangers[connection] = None
        return True

    def count(self, origin_host: str) -> int:
        """How many connections a peer has."""
        return sum(one.origin_host == origin_host for one in self.connections)

    def reaches(self, connection: Connection, peer: Peer) -> None:
        """A connection is open: calls of its switch are ended by it."""
        self.connections.add(connection)
        self.board.reach.add(peer.switch, self)

    def closed(self, connection: Connection) -> None:
        """A connection is gone."""
        self._all.discard(connection)
        self._strangers.pop(connection, None)
        self.connections.discard(connection)
        peer = connection.peer
        if peer is not None and not self._reaching(peer.switch):
            self.board.reach.remove(peer.switch, self)

    def _of_client(
        self, peer: Peer, connection: Connection, sessions: Iterable[Session]
    ) -> list[Session]:
        """The sessions of this client alone: other clients may charge under the same switch."""
        found = []
        for session in sessions:
            call_id = plain_id(session.key.partition("/")[2])
            call = self.credit.calls.get(peer.switch, call_id)
            client = call.client if call is not None else client_of(call_id, peer)
            if client.host == connection.origin_host:
                found.append(session)
        return found

    async def _close(self, peer: Peer, sessions: list[Session]) -> None:
        for session in sessions:
            call_id = session.key.partition("/")[2]
            await self.board.stop_call(
                peer, call_id, session.used_ms, request_id="restart", cause="switch_restart"
            )
            self.credit.calls.forget(peer.switch, plain_id(call_id))
        if sessions:
            _log.warning("switch.restarted", peer=peer.code, calls_closed=len(sessions))

    def _peers_changed(self) -> None:
        for connection in list(self.connections):
            connection.look_again()

    def begin(self, work: Coroutine[Any, Any, None]) -> None:
        """Do something in the background that is ended with this node."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # --- requests --------------------------------------------------------------------------------

    def take(self, connection: Connection, data: bytes, header: Header) -> None:
        """A Credit-Control-Request came: refuse it at once, or work on it."""
        peer = connection.peer
        assert peer is not None
        meter = PeerMeter.of(peer.code, "diameter")
        try:
            request = decode_request(data)
        except MalformedDiameter as error:
            meter.fault("malformed", error.detail)
            connection.send(self.refusal(data, header, error.result, error.detail, error.failed))
            return
        if not self._vouched(peer, connection, request):
            meter.fault("unknown_client", f"{request.origin_host} behind {connection.origin_host}")
            detail = "this client is not let in through this peer"
            connection.send(self.refusal(data, header, Result.AUTHORIZATION_REJECTED, detail))
            return
        if self.host.lower() in map(str.lower, request.routes):
            meter.fault("loop", f"a request of {request.origin_host} came by here before")
            connection.send(self.refusal(data, header, Result.LOOP_DETECTED, "it runs in a circle"))
            return
        if request.destination_realm != self.realm and peer.flag("check_realm"):
            detail = f"the realm served here is {self.realm}"
            connection.send(self.refusal(data, header, Result.REALM_NOT_SERVED, detail))
            return
        if not self.room.enter(_ACTIONS.get(request.kind, "authorise")):
            meter.fault("overload", "more requests at once than network_queue_max")
            connection.send(self.refusal(data, header, Result.TOO_BUSY))
            return
        self.begin(self._serve(connection, peer, request, data, header))

    async def _serve(
        self,
        connection: Connection,
        peer: Peer,
        request: CreditRequest,
        data: bytes,
        header: Header,
    ) -> None:
        name = (
            request.origin_host, header.end_to_end, request.session_id, request.number,
            request.kind, request.proxies,
        )  # fmt: skip
        try:
            # One after the other for each session; a repetition waits for its original's answer.
            async with self._turns.of(f"{peer.switch}/{request.session_id}"):
                known = self._answers.begin(name)
                if isinstance(known, bytes):
                    PeerMeter.of(peer.code, "diameter").fault(
                        "duplicate", request.session_id, log=False
                    )
                    hop = header.hop_by_hop.to_bytes(4)
                    connection.send(known[:12] + hop + known[16:])
                    return
                answer = await self.credit.answer(peer, request, again=header.retransmitted)
                if answer is None:
                    self._answers.forget(name)
                    connection.send(self.refusal(data, header, Result.TOO_BUSY))
                    return
                told = encode_credit_answer(answer, header)
                self._answers.answered(name, told)
                connection.send(told)
        except Exception:  # noqa: BLE001 - whatever it is, the client must not wait for its timer
            self._answers.forget(name)
            _log.exception("diameter.failed", peer=peer.code, session=request.session_id)
            connection.send(self.refusal(data, header, Result.UNABLE_TO_COMPLY))
        finally:
            self.room.leave()

    def _vouched(self, peer: Peer, connection: Connection, request: CreditRequest) -> bool:
        """Whether this client may charge through this connection: it is the peer, or the peer relays."""
        return request.origin_host.lower() == connection.origin_host or peer.flag("relay")

    def refusal(
        self, data: bytes, header: Header, result: int, detail: str = "", failed: bytes = b""
    ) -> bytes:
        """An answer that says only what is wrong; it repeats what relays need to find the way back."""
        seen = glance(data)
        return encode_answer(
            Answer(
                result,
                self.host,
                self.realm,
                seen.session_id,
                error=detail or error_text(result),
                failed=(failed,) if failed else (),
                proxies=seen.proxies,
            ),
            command=header.command,
            application=header.application,
            hop_by_hop=header.hop_by_hop,
            end_to_end=header.end_to_end,
            proxiable=bool(header.flags & PROXIABLE),
        )

    # --- what we ask of clients ------------------------------------------------------------------

    def _money_changed(self, party_id: int) -> None:
        """Money came, or limits changed: whoever was told that no more will come asks again."""
        for call in self.credit.calls.waiting(party_id):
            self.begin(self._ask_again(call))

    async def _ask_again(self, call: Call) -> None:
        try:
            await self._tell(call.switch, call.kept, Command.RE_AUTH)
        except KillFailed as error:
            # It asks by itself before it is over, or it ends as it was told.
            _log.info("reauth.not_taken", session=call.call_id, error=str(error))

    async def end(self, switch: str, call_id: str, reason: str) -> None:
        """Ask a client to end a session, or one service of it.

        Raises:
            KillFailed: it did not take it, or is not connected.
        """
        plain = plain_id(call_id)
        base = base_of(plain)
        others = self.credit.calls.siblings(switch, base, plain)
        if others and reason == "expired":
            # Nothing was heard of this service for long, but of others of its session: it is let go.
            return
        # With other services up, this one is refused when it asks again, and it is asked to.
        command = Command.RE_AUTH if others else Command.ABORT_SESSION
        await self._tell(switch, call_id, command)

    async def _tell(self, switch: str, kept: str, command: Command) -> None:
        call_id = plain_id(kept)
        connections = self._reaching(switch)
        if not connections:
            raise KillFailed(f"no Diameter peer of switch {switch} is connected")
        peer = connections[0].peer
        assert peer is not None
        call = self.credit.calls.get(switch, call_id)
        client = call.client if call is not None else client_of(call_id, peer)
        if call is None:
            handle = await self.board.handles.find(f"{switch}/{kept}")
            if handle is not None:
                client.session_id = str(handle.get("session", client.session_id))
                client.host = str(handle.get("host", client.host))
                client.realm = str(handle.get("realm", client.realm))
        group = call_id.rpartition("#")[2]
        whole = SessionRequest(
            command,
            client.session_id,
            self.host,
            self.realm,
            client.realm,
            client.host,
            int(group) if group.isdigit() else None,
            self.state_id,
        )
        near = [one for one in connections if one.origin_host == client.host.lower()]
        chosen = (near or connections)[0]
        self._end_to_end = (self._end_to_end + 1) & 0xFFFFFFFF
        answer = await chosen.ask(
            lambda hop: encode_session_request(whole, hop, self._end_to_end), seconds=KILL_SECONDS
        )
        if answer is None:
            raise KillFailed(f"{chosen.origin_host} did not answer")
        # A session that the client does not know (5002) is over at its side.
        if answer.result not in SUCCEEDED and answer.result != Result.UNKNOWN_SESSION_ID:
            raise KillFailed(f"{chosen.origin_host} answered {answer.result} {answer.error}")

    def _reaching(self, switch: str) -> list[Connection]:
        return [
            one for one in self.connections if one.peer is not None and one.peer.switch == switch
        ]

    # --- the end ---------------------------------------------------------------------------------

    async def leave(self) -> None:
        """Answer what is under way, say goodbye to every peer, close. Once is enough."""
        self._deaf()
        self._deaf = _nothing
        if self._tasks:
            await asyncio.wait(set(self._tasks), timeout=STOP_SECONDS)
        await end(self._tasks)
        leaving = list(self.connections)
        if leaving:
            goodbyes = (one.goodbye(Leave.REBOOTING) for one in leaving)
            await asyncio.wait(
                [asyncio.ensure_future(one) for one in goodbyes], timeout=STOP_SECONDS
            )
        for connection in list(self._all):
            connection.close()


def _nothing() -> None:
    """There is nothing left to end."""


def diameter_servers(board: Switchboard, settings: Settings) -> list[DiameterServer]:
    """The listeners that the settings ask for: plain, over TLS, or both.

    Raises:
        SetupError: the certificate of the TLS listener cannot be used.
    """
    node = DiameterNode(board, settings)
    made = []
    if settings.diameter_listen:
        made.append(DiameterServer(node, *listen_address(settings.diameter_listen)))
    if settings.diameter_tls_listen:
        host, port = listen_address(settings.diameter_tls_listen)
        made.append(DiameterServer(node, host, port, tls=server_tls(settings)))
    return made
