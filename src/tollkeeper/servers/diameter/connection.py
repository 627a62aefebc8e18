"""One transport connection of a Diameter peer: framing, capabilities, watchdog, goodbye (RFC 6733)."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING, Any, cast

import structlog

from tollkeeper.store.peers import Peer
from tollkeeper.telemetry import PeerMeter
from tollkeeper.wire.diameter import codes
from tollkeeper.wire.diameter.base import (
    Answer,
    Capabilities,
    Link,
    decode_answer,
    decode_capabilities,
    decode_link,
    encode_answer,
    encode_capabilities,
    encode_link,
    leaving,
)
from tollkeeper.wire.diameter.codec import Header, MalformedDiameter, decode_header, frame_length
from tollkeeper.wire.diameter.codes import Command, Leave, Result

if TYPE_CHECKING:
    from tollkeeper.servers.diameter.server import DiameterNode

HELLO_SECONDS = 10.0
"""A connection that has not said by then who it is is closed."""
WATCHDOG_SECONDS = 30
"""Silence after which a peer is asked whether it is there; as long again, and it is not (RFC 3539)."""
PER_PEER_MAX = 16
ASKED_MAX = 1000
"""Requests of ours that one peer may leave unanswered at a time."""
_log = structlog.get_logger()


class Connection(asyncio.Protocol):
    """From the accept to the close. ``peer`` is None until it is known who it is."""

    def __init__(self, node: DiameterNode, *, secure: bool) -> None:
        self.peer: Peer | None = None
        self.origin_host = ""
        self._node = node
        self._secure = secure
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._heard = 0.0
        self._asked_watchdog = False
        self._saying_hello = False
        self._asked: dict[int, asyncio.Future[Answer]] = {}
        self._hop = 0
        self._address = ""

    # --- the transport ---------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for the peer to say who it is, not for long."""
        self._transport = cast(asyncio.Transport, transport)
        self._address = str(transport.get_extra_info("peername", ("",))[0])
        if not self._node.admit(self):
            self.close()
            return
        self._timer = self._loop.call_later(HELLO_SECONDS, self._too_quiet)

    def connection_lost(self, exc: Exception | None) -> None:
        """Whoever waits for an answer waits no longer."""
        if self._timer is not None:
            self._timer.cancel()
        for future in self._asked.values():
            if not future.done():
                future.cancel()
        self._asked.clear()
        self._transport = None
        self._node.closed(self)
        if self.peer is not None:
            PeerMeter.of(self.peer.code, "diameter").connected(-1)
            _log.info("diameter.closed", peer=self.peer.code, why=str(exc or ""))

    def data_received(self, data: bytes) -> None:
        """Cut messages out of the stream; what is none ends the connection."""
        self._buffer += data
        self._heard = self._loop.time()
        self._asked_watchdog = False
        try:
            while self._transport is not None and not self._saying_hello:
                length = frame_length(self._buffer)
                if not length or len(self._buffer) < length:
                    return
                message = bytes(self._buffer[:length])
                del self._buffer[:length]
                self._message(message)
        except MalformedDiameter as error:
            self._fault("garbage", error.detail)
            self.close()

    def pause_writing(self) -> None:
        """The peer does not read its answers: nothing more is read from it until it does."""
        if self._transport is not None:
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        """It reads again."""
        if self._transport is not None and not self._saying_hello:
            self._transport.resume_reading()

    def send(self, data: bytes) -> None:
        """Send a message, if somebody is there still."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def close(self) -> None:
        """Close when what was sent is out."""
        if self._transport is not None:
            self._transport.close()

    # --- messages --------------------------------------------------------------------------------

    def _message(self, data: bytes) -> None:
        header = decode_header(data)
        if not header.request:
            self._answered(data, header)
        elif self.peer is None:
            self._hello(data, header)
        elif header.command == Command.CREDIT and header.application == codes.CREDIT_CONTROL:
            self._node.take(self, data, header)
        elif header.command == Command.WATCHDOG:
            self._acknowledge(data, header)
        elif header.command == Command.DISCONNECT:
            self._goodbye(data, header)
        elif header.command == Command.CAPABILITIES:
            self._fault("second_hello", "a CER on a connection that is open")
            self.close()
        else:
            known = header.application in {0, codes.CREDIT_CONTROL}
            result = Result.COMMAND_UNSUPPORTED if known else Result.APPLICATION_UNSUPPORTED
            self._fault("unsupported", f"command {header.command} of {header.application}")
            self.send(self._node.refusal(data, header, result))

    def _hello(self, data: bytes, header: Header) -> None:
        """The first message must say who it is, and it must be somebody we know."""
        if header.command != Command.CAPABILITIES:
            self._fault("no_hello", f"the first message is of command {header.command}")
            self.close()
            return
        try:
            asked = decode_capabilities(data)
        except MalformedDiameter as error:
            self._fault("malformed", error.detail)
            self.send(self._node.refusal(data, header, error.result, error.detail, error.failed))
            self.close()
            return
        peer = self._known(asked.origin_host)
        if peer is None:
            detail = f"{asked.origin_host} from {self._address} is not known here"
            self._fault("unknown_peer", detail)
            self._turn_away(header, Result.UNKNOWN_PEER, "unknown peer")
        elif not asked.credit_control:
            self._fault("no_application", f"{asked.origin_host} does not speak credit control")
            self._turn_away(header, Result.NO_COMMON_APPLICATION, "only credit control is spoken")
        elif self._node.count(asked.origin_host.lower()) >= PER_PEER_MAX:
            self._turn_away(header, Result.TOO_BUSY, "too many connections of this peer")
        else:
            self._saying_hello = True
            assert self._transport is not None
            self._transport.pause_reading()
            self._node.begin(self._open(peer, asked, header))

    async def _open(self, peer: Peer, asked: Capabilities, header: Header) -> None:
        self.origin_host = asked.origin_host.lower()
        try:
            await self._node.opened(self, peer, asked.state_id)
        finally:
            self._saying_hello = False
        if self._transport is None:
            self._node.closed(self)
            return
        self.peer = peer
        self._node.reaches(self, peer)
        PeerMeter.of(peer.code, "diameter").connected(1)
        _log.info("diameter.opened", peer=peer.code, host=self.origin_host, address=self._address)
        answer = self._node.capabilities(self._own_address(), Result.SUCCESS)
        self.send(encode_capabilities(answer, header.hop_by_hop, header.end_to_end))
        self._watch()
        self._transport.resume_reading()
        self.data_received(b"")

    def _turn_away(self, header: Header, result: Result, why: str) -> None:
        answer = self._node.capabilities(self._own_address(), result, why)
        self.send(encode_capabilities(answer, header.hop_by_hop, header.end_to_end))
        self.close()

    def _own_address(self) -> str:
        assert self._transport is not None
        return str(self._transport.get_extra_info("sockname", ("127.0.0.1",))[0])

    def _acknowledge(self, data: bytes, header: Header, result: int = Result.SUCCESS) -> None:
        """Answer a DWR or DPR."""
        node = self._node
        try:
            decode_link(data)
        except MalformedDiameter as error:
            self._fault("malformed", error.detail)
            self.send(node.refusal(data, header, error.result, error.detail, error.failed))
            return
        state_id = node.state_id if header.command == Command.WATCHDOG else None
        self.send(
            encode_answer(
                Answer(result, node.host, node.realm, state_id=state_id),
                command=header.command,
                application=0,
                hop_by_hop=header.hop_by_hop,
                end_to_end=header.end_to_end,
            )
        )

    def _goodbye(self, data: bytes, header: Header) -> None:
        self._acknowledge(data, header)
        try:
            cause = decode_link(data).cause
        except MalformedDiameter:
            cause = None
        assert self.peer is not None
        _log.info(
            "diameter.leaves",
            peer=self.peer.code,
            why="" if cause is None else leaving(cause),
        )
        # No more requests are taken; answers to those under way can still go.
        self._node.connections.discard(self)
        self._loop.call_later(1.0, self.close)

    # --- what we ask -----------------------------------------------------------------------------

    async def ask(self, encode: Callable[[int], bytes], *, seconds: float) -> Answer | None:
        """Send a request of ours and wait for its answer; None where none comes."""
        if self._transport is None or len(self._asked) >= ASKED_MAX:
            return None
        self._hop = (self._hop + 1) & 0xFFFFFFFF
        hop = self._hop
        future: asyncio.Future[Answer] = self._loop.create_future()
        self._asked[hop] = future
        self.send(encode(hop))
        try:
            async with asyncio.timeout(seconds):
                return await asyncio.shield(future)
        except TimeoutError:
            return None
        except asyncio.CancelledError:
            if future.cancelled():
                return None  # the connection was lost
            raise
        finally:
            self._asked.pop(hop, None)

    def _answered(self, data: bytes, header: Header) -> None:
        future = self._asked.get(header.hop_by_hop)
        if future is None or future.done():
            return  # a late one, or one that nobody asked for
        try:
            future.set_result(decode_answer(data))
        except MalformedDiameter as error:
            self._fault("malformed", error.detail)
            future.set_result(Answer(error.result, "", "", error=error.detail))

    async def goodbye(self, cause: Leave) -> None:
        """Tell the peer that we leave, and wait for it to agree."""
        node = self._node
        link = Link(node.host, node.realm, cause=cause)
        await self.ask(lambda hop: encode_link(link, hop, hop), seconds=1.0)

    def _watch(self) -> None:
        """Look after silence: ask, and when nothing comes, close."""
        if self._timer is not None:
            self._timer.cancel()
        if self.peer is None or self._transport is None:
            return
        quiet = self.peer.whole("watchdog_seconds", WATCHDOG_SECONDS)
        left = self._heard + quiet - self._loop.time()
        if left > 0:
            self._timer = self._loop.call_later(left, self._watch)
            return
        if self._asked_watchdog:
            self._fault("silent", f"nothing was heard for {2 * quiet} seconds")
            self._transport.abort()
            return
        self._asked_watchdog = True
        self._hop = (self._hop + 1) & 0xFFFFFFFF
        node = self._node
        link = Link(node.host, node.realm, node.state_id)
        self.send(encode_link(link, self._hop, self._hop))
        self._timer = self._loop.call_later(quiet, self._watch)

    # --- who it is -------------------------------------------------------------------------------

    def look_again(self) -> None:
        """The peers were changed: go on as this one is set now, or part."""
        if self.peer is None:
            return
        now = self._known(self.origin_host)
        if now is None or now.switch != self.peer.switch:
            _log.warning("diameter.shut_out", peer=self.peer.code)
            self._node.begin(self._part())
            return
        self.peer = now

    async def _part(self) -> None:
        await self.goodbye(Leave.DO_NOT_WANT_TO_TALK_TO_YOU)
        self.close()

    def _known(self, origin_host: str) -> Peer | None:
        """The peer of this name, if it may come from where it comes."""
        for peer in self._node.board.book.of_kind("diameter"):
            name = peer.text("origin_host") or peer.code
            if name.lower() != origin_host.lower():
                continue
            if peer.flag("tls") and not self._secure:
                continue
            if peer.addresses:
                if _within(self._address, peer.addresses):
                    return peer
            elif self._certified(origin_host):
                return peer
        return None

    def _certified(self, origin_host: str) -> bool:
        """Whether the peer's certificate, which an authority of ours signed, names this host."""
        assert self._transport is not None
        found: ssl.SSLObject | None = self._transport.get_extra_info("ssl_object")
        certificate = found.getpeercert() if found is not None else None
        if not certificate:
            return False
        fields: Any = [*certificate.get("subject", ()), certificate.get("subjectAltName", ())]
        names = {
            str(value).lower()
            for field in fields
            for kind, value in field
            if kind in {"commonName", "DNS"}
        }
        return origin_host.lower() in names

    def _too_quiet(self) -> None:
        if self.peer is None and self._transport is not None:
            self._fault("no_hello", f"{self._address} did not say who it is")
            self._transport.abort()

    def _fault(self, fault: str, detail: str) -> None:
        code = self.peer.code if self.peer is not None else ""
        PeerMeter.of(code, "diameter").fault(fault, f"{self._address}: {detail}")


def _within(address: str, networks: tuple[str, ...]) -> bool:
    try:
        host = ip_address(address.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(host, "ipv4_mapped", None)
    host = mapped or host
    for text in networks:
        try:
            network = ip_network(text, strict=False)
        except ValueError:
            continue  # a name: it is looked up by nobody
        if network.version == host.version and host in network:
            return True
    return False
