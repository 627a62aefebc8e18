"""The side towards an ESME: its bind, its window and rate, and what it may ask."""

from __future__ import annotations

import asyncio
import hmac
from typing import Protocol

import structlog

from tollkeeper.servers.smpp.link import Link
from tollkeeper.servers.smpp.options import EsmeOptions
from tollkeeper.telemetry import PeerMeter
from tollkeeper.wire.smpp import pdu as smpp
from tollkeeper.wire.smpp.pdu import Bind, MalformedPdu, Pdu

BIND_SECONDS = 10.0
SYSTEM_ID = "tollkeeper"
UNSUPPORTED = {
    smpp.QUERY_SM: smpp.QUERY_FAILED,
    smpp.CANCEL_SM: smpp.CANCEL_FAILED,
    smpp.REPLACE_SM: smpp.REPLACE_FAILED,
    smpp.SUBMIT_MULTI: smpp.INVALID_COMMAND,
    smpp.DELIVER_SM: smpp.INVALID_COMMAND,
}
"""What is answered by its own response, but not done."""
_log = structlog.get_logger()


class Door(Protocol):
    """What an ESME's connection asks of the gateway."""

    def opened(self, link: EsmeLink) -> bool:
        """A connection came; False: there are too many."""

    def admit(self, link: EsmeLink, bind: Bind) -> tuple[EsmeOptions | None, int]:
        """Let an ESME in, or say by a status why not."""

    def bound(self, link: EsmeLink) -> None:
        """An ESME was told that it is bound."""

    def closed(self, link: EsmeLink) -> None:
        """A connection is gone."""

    def enter(self) -> bool:
        """Take a place for a message; False: this process has enough to do."""

    def leave(self) -> None:
        """Give it back."""

    async def submit(self, link: EsmeLink, pdu: Pdu) -> tuple[int, str]:
        """Charge a message and pass it on; the command status and the message id."""


class EsmeLink(Link):
    """One connection of an ESME."""

    def __init__(self, door: Door) -> None:
        super().__init__(PeerMeter.of("", "smpp"))
        self.esme: EsmeOptions | None = None
        self.mode = 0
        self._door = door
        self._opened = 0.0
        self._tokens = 0.0
        self._filled = 0.0
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def receives(self) -> bool:
        """Whether it can be told receipts."""
        return self.mode in {smpp.BIND_RECEIVER, smpp.BIND_TRANSCEIVER} and self.up

    @property
    def sends(self) -> bool:
        """Whether it may submit."""
        return self.mode in {smpp.BIND_TRANSMITTER, smpp.BIND_TRANSCEIVER}

    @property
    def working(self) -> set[asyncio.Task[None]]:
        """Messages that it was not answered yet."""
        return self._tasks

    def opened(self) -> None:
        """A socket was accepted."""
        self._opened = self._filled = asyncio.get_running_loop().time()
        if not self._door.opened(self):
            self.meter.fault("too_many_connections", self.address)
            self.abort()

    def lost(self) -> None:
        """The socket is closed."""
        self._door.closed(self)

    def tick(self, now: float) -> None:
        """Nobody stays without binding."""
        if self.esme is None and now - self._opened > BIND_SECONDS and self.up:
            self.meter.fault("bind_timeout", self.address)
            self.abort()

    def take(self, pdu: Pdu) -> None:
        """A request came."""
        command = pdu.command
        if command in {smpp.SUBMIT_SM, smpp.DATA_SM}:
            self._submit(pdu)
        elif command == smpp.ENQUIRE_LINK:
            self.answer(pdu, smpp.OK)
        elif command in smpp.BINDS:
            self._bind(pdu)
        elif command == smpp.UNBIND:
            self.answer(pdu, smpp.OK)
            self.close()
        elif command in UNSUPPORTED:
            status = UNSUPPORTED[command] if self.esme else smpp.WRONG_BIND_STATE
            self.answer(pdu, status)
        elif command not in {smpp.OUTBIND, smpp.ALERT_NOTIFICATION}:
            self.fault("unknown_command", smpp.command_name(command))
            self.nack(pdu.sequence, smpp.INVALID_COMMAND)

    # --- inside ------------------------------------------------------------------------------------

    def _bind(self, pdu: Pdu) -> None:
        if self.esme is not None:
            self.answer(pdu, smpp.ALREADY_BOUND)
            return
        try:
            bind = smpp.read_bind(pdu.body)
        except MalformedPdu as malformed:
            self.fault("malformed", malformed.detail)
            self.answer(pdu, malformed.status)
            self.close()
            return
        esme, status = self._door.admit(self, bind)
        if esme is None:
            self.answer(pdu, status)
            self.close()
            return
        self.esme = esme
        self.mode = pdu.command
        self.meter = PeerMeter.of(esme.peer.code, "smpp")
        self.enquire_seconds = esme.enquire_seconds
        self._tokens = esme.rate
        self.answer(pdu, smpp.OK, smpp.bind_resp_body(SYSTEM_ID))
        self._door.bound(self)

    def _submit(self, pdu: Pdu) -> None:
        esme = self.esme
        if esme is None or not self.sends:
            self.answer(pdu, smpp.WRONG_BIND_STATE)
            return
        if len(self._tasks) >= esme.window:
            self.meter.refusal("window")
            self.answer(pdu, smpp.THROTTLED)
            return
        if esme.rate and not self._token(esme.rate):
            self.meter.refusal("rate")
            self.answer(pdu, smpp.THROTTLED)
            return
        if not self._door.enter():
            self.meter.refusal("overloaded")
            self.answer(pdu, smpp.QUEUE_FULL)
            return
        task = asyncio.create_task(self._work(pdu))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _work(self, pdu: Pdu) -> None:
        status, message_id = smpp.SYSTEM_ERROR, ""
        try:
            status, message_id = await self._door.submit(self, pdu)
        except Exception:  # noqa: BLE001 - one message must not end the connection
            _log.exception("smpp.submit_failed", peer=self.esme.peer.code if self.esme else "")
        finally:
            self._door.leave()
            self.answer(pdu, status, smpp.id_body(message_id) if status == smpp.OK else b"")

    def _token(self, rate: int) -> bool:
        """Take one of the tokens that come ``rate`` a second, a second's worth of them at most."""
        now = asyncio.get_running_loop().time()
        self._tokens = min(self._tokens + (now - self._filled) * rate, rate)
        self._filled = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


def same_secret(given: str, expected: str) -> bool:
    """Compare passwords in a time that does not tell how much of them is right; an empty one is never."""
    left, right = given.encode("latin-1", "replace"), expected.encode("latin-1", "replace")
    return hmac.compare_digest(left, right) and bool(expected)
