"""Our side towards an SMSC: a transceiver, or a pair of connections, made again whenever they are lost."""

from __future__ import annotations

import asyncio
import random
import ssl
from collections import deque
from collections.abc import Awaitable, Callable
from functools import partial

import structlog

from tollkeeper.servers.smpp.link import Late, Link, LinkDown
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


class NotSent(Exception):
    """A message was surely not passed on; ``status`` says why."""

    def __init__(self, status: int) -> None:
        super().__init__(smpp.status_name(status))
        self.status = status


class Passage:
    """How a message goes out.

    ``begin`` is awaited right before it does, when it has its place in the SMSC's window; False holds it
    back. ``late`` hears an answer that nobody waited for any longer. ``on_wire`` tells whether it may have left.
    """

    __slots__ = ("begin", "late", "on_wire")

    def __init__(self, begin: Callable[[], Awaitable[bool]], late: Late) -> None:
        self.begin = begin
        self.late = late
        self.on_wire = False


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
        """An answer that came too late: its sender was told an error."""
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
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}
        self._working: set[asyncio.Task[None]] = set()
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def up(self) -> bool:
        """Whether we are bound to it now."""
        return self._link is not None and self._link.up

    def full(self, sender: str) -> bool:
        """Whether too many messages wait for it already; one with less than its share may always wait."""
        waiting = sum(len(slots) for slots in self._waiting.values())
        own = len(self._waiting.get(sender, ()))
        return waiting >= QUEUE_MAX and own >= QUEUE_MAX // (len(self._waiting) + 1)

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

    async def pass_on(self, command: int, body: bytes, passage: Passage, sender: str = "") -> Pdu:
        """Send a message on; the answer is the SMSC's. Of those who wait each ``sender`` has its turn.

        Raises:
            NotSent: it surely did not leave (``SYSTEM_ERROR``: the SMSC is away; ``QUEUE_FULL``: too many wait
                for it). LinkDown: it left, and nobody knows whether the SMSC has it.
        """
        if not self.up:
            raise NotSent(smpp.SYSTEM_ERROR)
        if self._busy >= self.options.window:
            if self.full(sender) or not await self._place(sender):
                raise NotSent(smpp.QUEUE_FULL)
        else:
            self._busy += 1
        try:
            link = self._link
            if link is None or not link.up or not await passage.begin():
                raise NotSent(smpp.SYSTEM_ERROR)
            link = self._link
            if link is None or not link.up:
                raise NotSent(smpp.SYSTEM_ERROR)
            passage.on_wire = True
            return await link.request(command, body, passage.late)
        except LinkDown:
            self._meter.fault("unanswered", "messages that it did not answer stay charged")
            raise
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

    async def _place(self, sender: str) -> bool:
        """Wait for a place in the window; False: none came in time."""
        slot: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(sender, deque()).append(slot)
        try:
            async with asyncio.timeout(self.options.response_seconds):
                await slot
        except TimeoutError:
            if slot.done() and not slot.cancelled():
                self._leave()  # it came at this very moment
            return False
        except asyncio.CancelledError:
            if slot.done() and not slot.cancelled():
                self._leave()
            raise
        return True

    def _leave(self) -> None:
        while self._waiting:
            sender = next(iter(self._waiting))
            slots = self._waiting.pop(sender)
            slot = slots.popleft()
            if slots:
                self._waiting[sender] = slots  # behind the others
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
