"""Our side towards an SMSC: a transceiver, or a pair of connections, made again whenever they are lost."""

from __future__ import annotations

import asyncio
import random
import ssl
from collections import deque
from collections.abc import Awaitable, Callable
from functools import partial

import structlog

from tollkeeper.servers.smpp.link import Link, LinkDown
from tollkeeper.servers.smpp.options import SmscOptions
from tollkeeper.services.tasks import end
from tollkeeper.telemetry import PeerMeter
from tollkeeper.wire.smpp import pdu as smpp
from tollkeeper.wire.smpp.pdu import Bind, MalformedPdu, Message, Pdu

CONNECT_SECONDS = 5.0
BACKOFF_SECONDS = (0.5, 30.0)
STEADY_SECONDS = 30.0
"""A connection that lasted so long was a good one: the next attempt after it comes soon."""
QUEUE_MAX = 2000
"""Messages that wait for a place in the SMSC's window."""
DELIVERING_MAX = 500
"""Receipts of an SMSC that are worked on at once; it is asked to wait with more."""
_log = structlog.get_logger()

Deliver = Callable[[SmscOptions, Message], Awaitable[int]]


class _SmscLink(Link):
    """The connection to an SMSC."""

    def __init__(self, meter: PeerMeter, owner: Upstream) -> None:
        super().__init__(meter)
        self._owner = owner
        self.gone = asyncio.get_running_loop().create_future()

    def take(self, pdu: Pdu) -> None:
        if pdu.command == smpp.ENQUIRE_LINK:
            self.answer(pdu, smpp.OK)
        elif pdu.command in {smpp.DELIVER_SM, smpp.DATA_SM}:
            self._owner.deliver(self, pdu)
        elif pdu.command == smpp.UNBIND:
            self.answer(pdu, smpp.OK)
            self.close()
        elif pdu.command not in {smpp.ALERT_NOTIFICATION, smpp.OUTBIND}:
            self.fault("unknown_command", smpp.command_name(pdu.command))
            self.nack(pdu.sequence, smpp.INVALID_COMMAND)

    def late(self, pdu: Pdu) -> None:
        """An answer that came too late: its message was given back and counts as not sent."""
        self.meter.fault("late_answer", f"{smpp.command_name(pdu.command)} {pdu.sequence}")

    def lost(self) -> None:
        if not self.gone.done():
            self.gone.set_result(None)


class Upstream:
    """An SMSC that messages are passed on to."""

    def __init__(self, options: SmscOptions, deliver: Deliver) -> None:
        self.options = options
        self._deliver = deliver
        self._meter = PeerMeter.of(options.peer.code, "smpp")
        self._link: _SmscLink | None = None
        self._busy = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._working: set[asyncio.Task[None]] = set()
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def up(self) -> bool:
        """Whether we are bound to it now."""
        return self._link is not None and self._link.up

    @property
    def full(self) -> bool:
        """Whether too many messages wait for it already."""
        return len(self._waiting) >= QUEUE_MAX

    def start(self) -> None:
        """Begin to connect."""
        binds = [smpp.BIND_TRANSCEIVER]
        if self.options.separate:
            binds = [smpp.BIND_TRANSMITTER, smpp.BIND_RECEIVER]
        name = f"smsc {self.options.peer.code}"
        self._tasks = [asyncio.create_task(self._run(bind), name=name) for bind in binds]

    async def stop(self) -> None:
        """Unbind and end."""
        await end(self._tasks)
        self._tasks = []
        await end(list(self._working))

    async def pass_on(self, command: int, body: bytes) -> Pdu:
        """Send a message on; the answer is the SMSC's, or one of ours where it cannot be reached.

        ``SYSTEM_ERROR``: it is away, or did not answer in time. ``QUEUE_FULL``: too many wait for it.
        """
        if not self.up:
            return Pdu(command, smpp.SYSTEM_ERROR, 0)
        if self._busy >= self.options.window:
            if self.full or not await self._place():
                return Pdu(command, smpp.QUEUE_FULL, 0)
        else:
            self._busy += 1
        try:
            link = self._link
            if link is None or not link.up:
                return Pdu(command, smpp.SYSTEM_ERROR, 0)
            return await link.request(command, body)
        except LinkDown:
            self._meter.fault("unanswered", "messages that it did not answer are given back")
            return Pdu(command, smpp.SYSTEM_ERROR, 0)
        finally:
            self._leave()

    def deliver(self, link: Link, pdu: Pdu) -> None:
        """A receipt (or message) came from it."""
        if len(self._working) >= DELIVERING_MAX:
            link.answer(pdu, smpp.QUEUE_FULL)
            return
        task = asyncio.create_task(self._take(link, pdu))
        self._working.add(task)
        task.add_done_callback(self._working.discard)

    async def _take(self, link: Link, pdu: Pdu) -> None:
        try:
            message = smpp.read_message(pdu.command, pdu.body)
        except MalformedPdu as malformed:
            link.fault("malformed", malformed.detail)
            link.answer(pdu, malformed.status)
            return
        try:
            status = await self._deliver(self.options, message)
        except Exception:  # noqa: BLE001 - one message must not end the connection
            _log.exception("smpp.receipt_failed", peer=self.options.peer.code)
            status = smpp.TEMPORARY_APP_ERROR
        link.answer(pdu, status, smpp.id_body("") if status == smpp.OK else b"")

    async def _place(self) -> bool:
        """Wait for a place in the window; False: none came in time."""
        slot: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(slot)
        try:
            async with asyncio.timeout(self.options.response_seconds):
                await slot
        except TimeoutError:
            if slot.done() and not slot.cancelled():
                self._leave()  # it came at this very moment
            return False
        return True

    def _leave(self) -> None:
        while self._waiting:
            slot = self._waiting.popleft()
            if not slot.done():
                slot.set_result(None)
                return
        self._busy -= 1

    # --- the connection ----------------------------------------------------------------------------

    async def _run(self, bind: int) -> None:
        loop = asyncio.get_running_loop()
        shortest, longest = BACKOFF_SECONDS
        delay = shortest
        while True:
            began = loop.time()
            try:
                await self._session(bind)
            except (OSError, LinkDown, TimeoutError, MalformedPdu) as error:
                self._meter.fault("away", str(error) or type(error).__name__)
            if loop.time() - began > STEADY_SECONDS:
                delay = shortest
            # Many of us that lost the same SMSC do not come back in the same moment.
            await asyncio.sleep(delay * (0.75 + random.random() / 2))  # noqa: S311
            delay = min(delay * 2, longest)

    async def _session(self, command: int) -> None:
        """Connect, bind, stay until the connection is lost."""
        options = self.options
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(CONNECT_SECONDS):
            _, link = await loop.create_connection(
                partial(_SmscLink, self._meter, self),
                options.host,
                options.port,
                ssl=await asyncio.to_thread(_client_tls, options) if options.tls else None,
            )
        link.enquire_seconds = options.enquire_seconds
        link.response_seconds = options.response_seconds
        try:
            bind = Bind(options.system_id, options.peer.secret, options.system_type)
            answer = await link.request(command, smpp.bind_body(bind))
            if answer.status != smpp.OK:
                raise LinkDown(f"the bind was refused: {smpp.status_name(answer.status)}")
            if command != smpp.BIND_RECEIVER:
                self._link = link
            self._meter.connected(1)
            _log.info("smsc.bound", peer=options.peer.code, how=smpp.command_name(command))
            try:
                await link.gone
            finally:
                if self._link is link:
                    self._link = None
                self._meter.connected(-1)
            raise LinkDown("the connection was lost")
        finally:
            if link.up:
                link.write(smpp.frame(smpp.UNBIND, smpp.OK, 0x7FFFFFFE))
            link.close()


def _client_tls(options: SmscOptions) -> ssl.SSLContext:
    """Whom we trust: the authorities of ``tls_ca``, else those of the system."""
    return ssl.create_default_context(cafile=options.tls_ca or None)
