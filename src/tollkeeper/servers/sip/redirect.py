"""The SIP redirect server: the thinnest way to put Tollkeeper into the path of a call.

A switch sends its INVITE here first. A call that may proceed is answered 302 with where to send it (the
static routes of the peer, the most preferred first), for how many seconds it is paid for, and the id of
its session; a call that may not is refused with the reason's status and a Reason header (RFC 3326). The
switch enforces the limit, as we are out of the call from then on: its money is held for the time that a
call may ring (or until its limit, by the peer's option ``hold_until_limit``), and its CDR (or any other
report of it) settles it.

The peer is known by the address that the request comes from. UDP and TCP on the same port.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import socket
import time
from ipaddress import ip_address

import msgspec

from tollkeeper.core.reasons import MEANINGS, Reason
from tollkeeper.core.routes import Route, routes_for
from tollkeeper.servers.answers import Room
from tollkeeper.servers.asks import Ask, Verdict
from tollkeeper.servers.sip.transactions import Name, Send, Transaction, Transactions
from tollkeeper.servers.switchboard import Switchboard
from tollkeeper.services.tasks import end
from tollkeeper.store.peers import Peer
from tollkeeper.telemetry import PeerMeter
from tollkeeper.wire import sip

PROTOCOL = "sip"
LIMIT_HEADER, SESSION_HEADER = "X-Tollkeeper-Limit", "X-Tollkeeper-Session"
WHOLE_CALL_SECONDS = 7200
"""What is asked for: nobody extends a redirected call (the peer's option ``slice``)."""
RETRY_AFTER_SECONDS = 5
ALLOW = "INVITE, ACK, CANCEL, OPTIONS"
CONNECTIONS_MAX = 256
IDLE_SECONDS = 120.0
BACKLOG_BYTES = 262_144
RECEIVE_BYTES = 4 * 2**20
"""A burst of datagrams waits here; what the system allows of it."""
_CHUNK = 65_536
Source = tuple[str, int]


class SipRedirect:
    """The listener; ``most`` new calls may be under way at once. ``refuse_unknown``: answer 403."""

    name = "SIP"

    def __init__(
        self,
        board: Switchboard,
        host: str,
        port: int,
        *,
        most: int = 2048,
        refuse_unknown: bool = False,
    ) -> None:
        self._board = board
        self._address = (host, port)
        self._room = Room(most)
        self._refuse_unknown = refuse_unknown
        self._transactions = Transactions(clock=time.monotonic)
        self._tasks: set[asyncio.Task[None]] = set()
        self._connections: dict[asyncio.Task[None], str] = {}
        """Connections and where they come from, the longest silent first."""
        self._udp: asyncio.DatagramTransport | None = None
        self._tcp: asyncio.Server | None = None

    @property
    def port(self) -> int:
        """Where it listens."""
        assert self._udp is not None
        return int(self._udp.get_extra_info("sockname")[1])

    async def start(self) -> None:
        """Begin to listen; raises OSError where the address cannot be had."""
        loop = asyncio.get_running_loop()
        self._udp, _ = await loop.create_datagram_endpoint(
            lambda: _Datagrams(self), local_addr=self._address
        )
        bound = self._udp.get_extra_info("socket")
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BYTES)
        try:
            self._tcp = await asyncio.start_server(
                self._accept, self._address[0], self.port, limit=_CHUNK
            )
        except OSError:
            self._udp.close()
            self._udp = None
            raise

    async def stop(self) -> None:
        """Stop listening; calls that are being decided are given a moment."""
        if self._tcp is not None:
            self._tcp.close()
            self._tcp = None
        if self._tasks:
            await asyncio.wait(list(self._tasks), timeout=2.0)
        await end(self._tasks)
        await end(self._connections)
        self._transactions.stop()
        if self._udp is not None:
            self._udp.close()
            self._udp = None

    # --- bytes -----------------------------------------------------------------------------------

    def datagram(self, data: bytes, source: Source) -> None:
        """Take a datagram."""
        if data.strip(b"\r\n\0 "):  # else it only keeps a hole in somebody's NAT open
            self._take(data, source, None)

    def _take(self, data: bytes, source: Source, stream: Send | None) -> None:
        peer = self._board.book.at(PROTOCOL, source[0])
        meter = PeerMeter.of("" if peer is None else peer.code, PROTOCOL)
        try:
            message = sip.decode(data)
        except sip.MalformedSip as error:
            meter.fault("malformed", f"from {source[0]}: {error}")
            return
        if isinstance(message, sip.Response):
            meter.fault("unexpected", f"an answer from {source[0]}; nothing was asked")
            return
        send = stream or self._sender(sip.answer_to(message, source))
        if peer is None:
            self._stranger(message, source, send, meter)
        else:
            self._request(peer, message, source, send, reliable=stream is not None)

    def _sender(self, target: Source) -> Send:
        def send(answer: bytes) -> None:
            if self._udp is not None and not self._udp.is_closing():
                self._udp.sendto(answer, target)

        return send

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        source = (writer.get_extra_info("peername") or ("", 0))[:2]
        self._make_room()
        self._connections[task] = source[0]
        try:
            await self._serve(reader, writer, source)
        except (OSError, TimeoutError):
            pass  # it went away, or said nothing for long: it may connect again
        except sip.MalformedSip as error:
            peer = self._board.book.at(PROTOCOL, source[0])
            meter = PeerMeter.of("" if peer is None else peer.code, PROTOCOL)
            meter.fault("malformed", f"from {source[0]}: {error}")
        finally:
            self._connections.pop(task, None)
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    def _make_room(self) -> None:
        """Of too many connections the longest silent one goes, of no peer if there is such a one."""
        if len(self._connections) < CONNECTIONS_MAX:
            return
        strangers = (
            task
            for task, address in self._connections.items()
            if self._board.book.at(PROTOCOL, address) is None
        )
        chosen = next(strangers, None) or next(iter(self._connections))
        address = self._connections.pop(chosen)
        PeerMeter.of("", PROTOCOL).fault("too_many_connections", f"one from {address} is closed")
        chosen.cancel()

    async def _serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, source: Source
    ) -> None:
        def send(answer: bytes) -> None:
            backlog = writer.transport.get_write_buffer_size()
            if not writer.is_closing() and backlog < BACKLOG_BYTES:
                writer.write(answer)

        buffer = bytearray()
        while True:
            async with asyncio.timeout(IDLE_SECONDS):
                data = await reader.read(_CHUNK)
            if not data:
                return
            task = asyncio.current_task()
            if task in self._connections:  # the last one to be let go now
                self._connections[task] = self._connections.pop(task)
            buffer += data
            while (message := sip.take(buffer)) is not None:
                self._take(message, source, send)

    # --- requests --------------------------------------------------------------------------------

    def _stranger(self, request: sip.Request, source: Source, send: Send, meter: PeerMeter) -> None:
        """Who is no peer hears nothing: scanners learn that nobody is here. Ourselves we answer."""
        if request.method == "OPTIONS" and self._is_own(source[0]):
            self._say(request, 200, source, send, ("Allow", ALLOW))
            return
        meter.fault("unknown_peer", f"{request.method[:20]} from {source[0]}")
        if self._refuse_unknown and request.method not in {"ACK", "CANCEL"}:
            self._say(request, 403, source, send)

    def _is_own(self, address: str) -> bool:
        return address == self._address[0] or ip_address(address.partition("%")[0]).is_loopback

    def _request(
        self, peer: Peer, request: sip.Request, source: Source, send: Send, *, reliable: bool
    ) -> None:
        name = (*source, *sip.transaction(request)) if reliable else sip.transaction(request)
        named: Name = tuple(map(str, name))
        if request.method == "INVITE":
            self._invite(peer, request, source, send, named, reliable=reliable)
        elif request.method == "ACK":
            if not self._transactions.confirmed(named):
                PeerMeter.of(peer.code, PROTOCOL).fault("stray_ack", log=False)
        elif request.method == "CANCEL":
            self._cancel(request, source, send, self._transactions.find(named))
        elif request.method == "OPTIONS":
            self._say(request, 200, source, send, ("Allow", ALLOW), ("Accept", "application/sdp"))
        elif request.target.tag:
            # Of a dialog, such as a BYE: there is none here, we left the call with the redirect.
            self._say(request, 481, source, send)
        else:
            self._say(request, 405, source, send, ("Allow", ALLOW))

    def _invite(
        self,
        peer: Peer,
        request: sip.Request,
        source: Source,
        send: Send,
        name: Name,
        *,
        reliable: bool,
    ) -> None:
        meter = PeerMeter.of(peer.code, PROTOCOL)
        known = self._transactions.find(name)
        if known is not None:
            meter.fault("duplicate", log=False)
            # While it is decided, this keeps the caller from sending it again (section 17.2.1).
            send(known.answer or _answer(request, 100, source))
            return
        merged = sip.merged(request)
        refused = 0
        if request.target.tag:
            refused = 481
        elif request.max_forwards == 0:
            refused = 483
        elif self._transactions.came_twice(name, merged):
            meter.fault("merged", f"{request.call_id[:80]} came by two ways")
            refused = 482
        elif not self._room.enter("authorise"):
            meter.fault("overload", "too many calls at once")
            refused = 503
        transaction = self._transactions.begin(name, merged, send, reliable=reliable)
        if refused:
            more = (_retry(),) if refused == 503 else ()
            self._transactions.answered(transaction, _answer(request, refused, source, *more))
            return
        task = asyncio.create_task(self._decide(peer, request, source, transaction))
        self._tasks.add(task)
        task.add_done_callback(self._decided)

    def _decided(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._room.leave()
        if not task.cancelled():
            task.result()

    async def _decide(
        self, peer: Peer, request: sip.Request, source: Source, transaction: Transaction
    ) -> None:
        try:
            answer = await self._answer_to(peer, request, source, transaction)
        except BaseException:
            # Nothing was answered: sent again, it is tried again.
            self._transactions.forget(transaction)
            raise
        if not transaction.cancelled:
            self._transactions.answered(transaction, answer)

    async def _answer_to(
        self, peer: Peer, request: sip.Request, source: Source, transaction: Transaction
    ) -> bytes:
        ask = ask_of(peer, request, source[0])
        verdict = await self._board.authorise(peer, ask)
        if not verdict.allowed:
            return _refusal(request, verdict.reason, source)
        routes = routes_for(verdict.called, peer.rows("routes"))
        if routes and not transaction.cancelled:
            return _answer(request, 302, source, *redirect_headers(peer, verdict, routes))
        # What was held for a call that will not be made goes back at once.
        cause = "cancelled" if transaction.cancelled else "no_route"
        await self._board.stop_call(peer, ask.call_id, 0, cause=cause)
        return _refusal(request, Reason.NO_ROUTE, source)

    def _cancel(
        self, request: sip.Request, source: Source, send: Send, invite: Transaction | None
    ) -> None:
        """The caller gives up. What was answered already stays answered (section 9.2)."""
        if invite is None:
            self._say(request, 481, source, send)
            return
        self._say(request, 200, source, send)
        if not invite.answer:
            invite.cancelled = True
            # It differs from the INVITE in nothing that an answer copies but this (section 9.1).
            sequence = ("CSeq", f"{request.cseq} INVITE")
            headers = (sequence if each[0] == "CSeq" else each for each in request.headers)
            terminated = msgspec.structs.replace(request, headers=tuple(headers))
            self._transactions.answered(invite, _answer(terminated, 487, source))

    def _say(
        self,
        request: sip.Request,
        status: int,
        source: Source,
        send: Send,
        *headers: tuple[str, str],
    ) -> None:
        """Answer a request other than an INVITE: sent again, it is answered again the same."""
        if request.method != "ACK":
            send(_answer(request, status, source, *headers))


class _Datagrams(asyncio.DatagramProtocol):
    """Hands datagrams to the listener."""

    def __init__(self, listener: SipRedirect) -> None:
        self._listener = listener

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        """Take one."""
        self._listener.datagram(data, addr[:2])


# --- what is asked and answered ------------------------------------------------------------------


def ask_of(peer: Peer, request: sip.Request, address: str) -> Ask:
    """The question in an INVITE: the call under its Call-ID, from the address that it came from.

    The caller is the asserted one (RFC 3325) where the peer tells it, else that of From.
    """
    caller = request.sender.uri
    asserted = request.header("P-Asserted-Identity")
    if asserted:
        with contextlib.suppress(sip.MalformedSip):
            caller = sip.address(sip.split(asserted)[0]).uri
    account_header = peer.text("account_header")
    return Ask(
        call_id=request.call_id,
        called=sip.user_of(request.uri),
        caller=sip.user_of(caller),
        address=address,
        account=request.header(account_header) if account_header else "",
        requested=peer.whole("slice", WHOLE_CALL_SECONDS),
        # Without a report of the answer a call counts as up from the beginning, until its limit.
        start_expected=not peer.flag("hold_until_limit"),
    )


def redirect_headers(peer: Peer, verdict: Verdict, routes: list[Route]) -> list[tuple[str, str]]:
    """Where to, for how long, and under which id."""
    headers = [("Contact", f"<{route.to}>;q={route.q}") for route in routes]
    headers.append((peer.text("limit_header", LIMIT_HEADER), str(verdict.granted)))
    session = verdict.reply.id if verdict.reply is not None else verdict.call_id
    headers.append((peer.text("session_header", SESSION_HEADER), session))
    return headers


def _refusal(request: sip.Request, reason: Reason, source: Source) -> bytes:
    meaning = MEANINGS[reason]
    headers = [("Reason", f'Q.850;cause={meaning.q850};text="{meaning.text}"')]
    if reason is Reason.BUSY:
        headers.append(_retry())
    return _answer(request, meaning.sip, source, *headers)


def _retry() -> tuple[str, str]:
    return "Retry-After", str(RETRY_AFTER_SECONDS)


def _answer(request: sip.Request, status: int, source: Source, *headers: tuple[str, str]) -> bytes:
    """An answer as bytes."""
    tag = _tag(request) if status > 100 else ""
    return sip.encode(sip.respond(request, status, source=source, tag=tag, headers=headers))


def _tag(request: sip.Request) -> str:
    """Our half of the dialog's name: of the transaction, so that INVITE and CANCEL get the same."""
    named = "\n".join((*sip.transaction(request), request.call_id, request.sender.tag))
    return hashlib.blake2b(named.encode(), digest_size=8).hexdigest()
