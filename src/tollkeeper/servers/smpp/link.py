"""One SMPP connection, whichever side began it: framing, requests and responses, time-outs, bounds."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

from tollkeeper.telemetry import PeerMeter
from tollkeeper.wire.smpp import pdu as smpp
from tollkeeper.wire.smpp.pdu import Framer, Pdu

TICK_SECONDS = 0.5
WRITE_HIGH = 262_144
"""Octets that may wait to be read by the other side; beyond, nothing more is read from it."""
STALLED_SECONDS = 20.0
"""A side that reads nothing for so long is let go."""
FAULTS_MAX = 50
"""Malformed PDUs of one connection; with more it is let go."""


LATE_MAX = 10_000
"""Requests whose answers did not come in time and are listened for all the same."""
Late = Callable[[Pdu], None]


class LinkDown(Exception):
    """The connection is gone, or the other side did not answer in time."""


class Link(asyncio.Protocol):
    """A connection. ``take`` and ``lost`` are for those who make something of it.

    ``enquire_seconds`` of silence are broken by an enquire_link; an answer that takes longer than
    ``response_seconds`` does not come.
    """

    def __init__(self, meter: PeerMeter) -> None:
        self.meter = meter
        self.enquire_seconds = 30.0
        self.response_seconds = 10.0
        self.address = ""
        self.encrypted = False
        self.closing = False
        self._framer = Framer()
        self._transport: asyncio.Transport | None = None
        self._out: list[bytes] = []
        self._asked: dict[int, tuple[float, asyncio.Future[Pdu], Late | None]] = {}
        self._given_up: dict[int, Late] = {}
        self._sequence = 0
        self._heard = 0.0
        self._stalled = 0.0
        self._enquired = False
        self._faults = 0
        self._timer: asyncio.TimerHandle | None = None

    # --- for those above -----------------------------------------------------------------------------

    def opened(self) -> None:
        """The connection is there."""

    def take(self, pdu: Pdu) -> None:
        """A request came (or a response that nobody waits for: see :meth:`late`)."""

    def late(self, pdu: Pdu) -> None:
        """A response came that nobody waits for."""
        self.meter.fault("unexpected_response", smpp.command_name(pdu.command))

    def lost(self) -> None:
        """The connection is gone."""

    def tick(self, now: float) -> None:
        """Look at the clock; ``now`` is the loop's."""

    def request(
        self, command: int, body: bytes = b"", late: Late | None = None
    ) -> asyncio.Future[Pdu]:
        """Send a request; the future is the response, or raises :class:`LinkDown`.

        ``late`` hears the response that comes after that, on the same connection.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Pdu] = loop.create_future()
        if self._transport is None or self.closing:
            future.set_exception(LinkDown("the connection is closed"))
            return future
        self._sequence = self._sequence % 0x7FFFFFFF + 1
        self._asked[self._sequence] = (loop.time() + self.response_seconds, future, late)
        self.write(smpp.frame(command, smpp.OK, self._sequence, body))
        return future

    def answer(self, pdu: Pdu, status: int, body: bytes = b"") -> None:
        """Answer a request; nothing is sent where the connection is gone."""
        self.write(smpp.frame(pdu.command | smpp.RESPONSE, status, pdu.sequence, body))

    def nack(self, sequence: int, status: int) -> None:
        """Say that something cannot be read at all."""
        self.write(smpp.frame(smpp.GENERIC_NACK, status, sequence))

    def write(self, frame: bytes) -> None:
        """Send; what is written in one turn of the loop leaves together."""
        if self._transport is None:
            return
        if not self._out:
            asyncio.get_running_loop().call_soon(self._flush)
        self._out.append(frame)

    def fault(self, kind: str, detail: str) -> None:
        """Count what was wrong; let the connection go where it is too much."""
        self.meter.fault(kind, f"{self.address}: {detail}")
        self._faults += 1
        if self._faults > FAULTS_MAX:
            self.close()

    def close(self) -> None:
        """Send what is written, then close."""
        self.closing = True
        self._flush()
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Close at once."""
        self.closing = True
        if self._transport is not None:
            self._transport.abort()

    @property
    def up(self) -> bool:
        """Whether the connection can be used."""
        return self._transport is not None and not self.closing

    @property
    def outstanding(self) -> int:
        """Requests of ours that were not answered yet."""
        return len(self._asked)

    # --- asyncio -----------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        loop = asyncio.get_running_loop()
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=WRITE_HIGH)
        peer = transport.get_extra_info("peername")
        self.address = peer[0] if isinstance(peer, tuple) else ""
        self.encrypted = transport.get_extra_info("sslcontext") is not None
        self._heard = loop.time()
        self._timer = loop.call_later(TICK_SECONDS, self._tick)
        self.opened()

    def connection_lost(self, exc: Exception | None) -> None:
        """End: whoever waits for an answer learns that none will come."""
        del exc
        self.closing = True
        self._transport = None
        self._out.clear()
        if self._timer is not None:
            self._timer.cancel()
        asked, self._asked = self._asked, {}
        self._given_up.clear()
        for _, future, _ in asked.values():
            if not future.done():
                future.set_exception(LinkDown("the connection was lost"))
                future.exception()  # it may be that nobody waits any more
        self.lost()

    def data_received(self, data: bytes) -> None:
        """Bytes came."""
        self._heard = asyncio.get_running_loop().time()
        self._enquired = False
        for pdu in self._framer.feed(data):
            if self.closing:
                return
            self._one(pdu)
        if self._framer.broken is not None and not self.closing:
            self.meter.fault("malformed", f"{self.address}: {self._framer.broken.detail}")
            self.nack(0, self._framer.broken.status)
            self.close()

    def pause_writing(self) -> None:
        """The other side does not read what we send: read nothing more from it."""
        self._stalled = asyncio.get_running_loop().time()
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        """It reads again."""
        self._stalled = 0.0
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    # --- inside ------------------------------------------------------------------------------------

    def _one(self, pdu: Pdu) -> None:
        if not pdu.command & smpp.RESPONSE:
            self.take(pdu)
            return
        asked = self._asked.pop(pdu.sequence, None)
        if asked is None:
            given_up = self._given_up.pop(pdu.sequence, None)
            if given_up is not None:
                given_up(pdu)
            if pdu.command != smpp.GENERIC_NACK:
                self.late(pdu)
            return
        if not asked[1].done():
            if pdu.command == smpp.GENERIC_NACK and pdu.status == smpp.OK:
                pdu = Pdu(pdu.command, smpp.SYSTEM_ERROR, pdu.sequence)
            asked[1].set_result(pdu)

    def _flush(self) -> None:
        if self._out and self._transport is not None and not self._transport.is_closing():
            self._transport.write(b"".join(self._out))
        self._out.clear()

    def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        self._timer = loop.call_later(TICK_SECONDS, self._tick)
        while self._asked:
            sequence, (deadline, future, late) = next(iter(self._asked.items()))
            if deadline > now:
                break
            del self._asked[sequence]
            if late is not None:
                while len(self._given_up) >= LATE_MAX:
                    self._given_up.pop(next(iter(self._given_up)))
                self._given_up[sequence] = late
            if not future.done():
                future.set_exception(LinkDown("no answer in time"))
                future.exception()
        if self._stalled and now - self._stalled > STALLED_SECONDS:
            self.meter.fault("slow_reader", self.address)
            self.abort()
        elif now - self._heard > self.enquire_seconds + self.response_seconds:
            self.meter.fault("silent", self.address)
            self.abort()
        elif now - self._heard > self.enquire_seconds and not self._enquired and self.up:
            self._enquired = True
            self.request(smpp.ENQUIRE_LINK)
        self.tick(now)
