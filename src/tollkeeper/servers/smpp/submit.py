"""A message from an ESME: charged, then passed on, then answered; given back where it went nowhere.

The order is the whole point: nothing is passed on that is not charged durably, and nothing stays charged
that the SMSC did not take. What is told to the ESME is told after its message is written down, so that
a receipt finds it again whatever happens to this process.
"""

from __future__ import annotations

import asyncio
import os

import msgspec

from tollkeeper.core.reasons import Reason
from tollkeeper.errors import Busy
from tollkeeper.servers.asks import Ask, Verdict
from tollkeeper.servers.smpp.batches import Batches
from tollkeeper.servers.smpp.options import EsmeOptions
from tollkeeper.servers.smpp.smsc import Upstream
from tollkeeper.servers.smpp.twice import Attempt, Twice
from tollkeeper.servers.switchboard import Switchboard
from tollkeeper.store.sms_messages import (
    SmsMessage,
    add_messages,
    read_messages,
    read_unknown_fate,
)
from tollkeeper.telemetry import PeerMeter
from tollkeeper.wire.smpp import pdu as smpp
from tollkeeper.wire.smpp.pdu import MalformedPdu, Message
from tollkeeper.wire.smpp.receipt import canonical_id
from tollkeeper.wire.smpp.text import Part, content_of, count_segments, part_of

RECEIPT_BITS = 0x03
HOLE_SECONDS = 60.0
"""For so long the rest of a message is refused after one of its parts was, for want of money."""
HOLES_MAX = 10_000
UNKNOWN_FATE_DAYS = 1
_PAGE = 500

NO_MONEY = frozenset({Reason.INSUFFICIENT_FUNDS, Reason.SPEND_LIMIT, Reason.COST_LIMIT})
STATUS_OF = {
    Reason.BUSY: smpp.SYSTEM_ERROR,
    Reason.CPS_LIMIT: smpp.THROTTLED,
    Reason.NO_RATE: smpp.INVALID_DESTINATION,
    Reason.DESTINATION_BLOCKED: smpp.INVALID_DESTINATION,
    Reason.INVALID_NUMBER: smpp.INVALID_DESTINATION,
    Reason.NO_ROUTE: smpp.INVALID_DESTINATION,
}
"""What an ESME is told of a reason; all others are ``SUBMIT_FAILED``: permanent, never to be tried again."""
OURS = frozenset({smpp.WRONG_BIND_STATE, smpp.ALREADY_BOUND, smpp.BIND_FAILED, smpp.INVALID_PASSWORD,
                  smpp.INVALID_SYSTEM_ID, smpp.INVALID_COMMAND, smpp.INVALID_COMMAND_LENGTH})  # fmt: skip
"""Statuses of an SMSC that speak of our connection with it, not of the ESME's message."""


class Submissions:
    """Takes the messages of all ESMEs of a process."""

    def __init__(self, board: Switchboard) -> None:
        self._board = board
        self._twice = Twice()
        self._holes: dict[tuple[object, ...], float] = {}
        self._process = os.urandom(3).hex()
        self._count = 0
        self._began = board.clock()
        self.upstreams: dict[str, Upstream] = {}
        self.on_the_way: dict[tuple[str, str], SmsMessage] = {}
        """Messages that are being written down, by SMSC and its id: a receipt may be quicker."""
        self._journal: Batches[SmsMessage] = Batches("messages", self._write)

    async def start(self) -> None:
        """Begin."""
        self._journal.start()

    async def stop(self) -> None:
        """Write down what is to be, then end."""
        await self._journal.stop()

    async def submit(
        self, esme: EsmeOptions, command: int, body: bytes, address: str
    ) -> tuple[int, str]:
        """Charge a submit_sm or data_sm and pass it on; the command status and the message id."""
        try:
            message = smpp.read_message(command, body)
            segments = count_segments(message, latin_default=esme.latin_default)
            joined = message.esm_class & smpp.UDHI or message.tlvs
            part = part_of(message, content_of(message)) if joined else None
        except MalformedPdu as malformed:
            meter = PeerMeter.of(esme.peer.code, "smpp")
            meter.fault("malformed", malformed.detail)
            return malformed.status, ""
        upstream = self._upstream_of(esme)
        if upstream is None:
            PeerMeter.of(esme.peer.code, "smpp").refusal("upstream_away")
            return smpp.SYSTEM_ERROR, ""
        if upstream.full:
            PeerMeter.of(esme.peer.code, "smpp").refusal("upstream_full")
            return smpp.QUEUE_FULL, ""
        attempt = self._twice.begin(esme, message, asyncio.get_running_loop().time())
        if attempt is None:
            return await self._send(esme, upstream, command, message, segments, part, address, "")
        if attempt.known is not None:
            PeerMeter.of(esme.peer.code, "smpp").fault("duplicate", "a message was sent twice")
            return await asyncio.shield(attempt.known)
        return await self._first(esme, upstream, command, message, segments, part, address, attempt)

    async def give_back_unknown(self, esme: EsmeOptions) -> int:
        """Give back what was charged, but not known to be passed on, when the process before us ended.

        Its sender was told nothing and sends it again. Returns how many.
        """
        last = f"{int(self._began.timestamp() * 1000):011x}"
        day = self._began.date()
        first = f"{int(self._began.timestamp() * 1000) - UNKNOWN_FATE_DAYS * 86_400_000:011x}"
        given = 0
        while True:
            async with self._board.database.read() as connection:
                ids = await read_unknown_fate(
                    connection,
                    esme.peer.switch,
                    day=day.fromordinal(day.toordinal() - UNKNOWN_FATE_DAYS),
                    first=first,
                    last=last,
                    limit=_PAGE,
                )
            for id_ in ids:
                given += await self._board.give_back(esme.peer, id_, why="failed")
            if len(ids) < _PAGE:
                return given
            first = ids[-1] + "0"

    # --- inside ------------------------------------------------------------------------------------

    async def _first(
        self,
        esme: EsmeOptions,
        upstream: Upstream,
        command: int,
        message: Message,
        segments: int,
        part: Part | None,
        address: str,
        attempt: Attempt,
    ) -> tuple[int, str]:
        """Send a message that can be told from others; a copy of it waits for the same answer."""
        status, id_ = smpp.SYSTEM_ERROR, ""
        try:
            for _ in range(self._twice.attempts_max):
                name = attempt.next_id(self._board.clock())
                before = await self._written(esme, attempt, name)
                if before is not None:
                    status, id_ = smpp.OK, before
                    break
                status, id_ = await self._send(
                    esme, upstream, command, message, segments, part, address, name
                )
                if id_ != AGAIN:
                    break
                status, id_ = smpp.SYSTEM_ERROR, ""
        except Busy:
            status, id_ = smpp.SYSTEM_ERROR, ""
        finally:
            self._twice.end(attempt, status, id_)
        return status, id_

    async def _written(self, esme: EsmeOptions, attempt: Attempt, name: str) -> str | None:
        """The id of a message that the process before us passed on within the window."""
        age = (self._board.clock() - self._began).total_seconds()
        if age > esme.duplicate_seconds:
            return None
        async with self._board.database.read() as connection:
            found = await read_messages(connection, attempt.earlier(name))
        return found[0].id if found else None

    async def _send(
        self,
        esme: EsmeOptions,
        upstream: Upstream,
        command: int,
        message: Message,
        segments: int,
        part: Part | None,
        address: str,
        name: str,
    ) -> tuple[int, str]:
        hole = _hole_of(esme, message, part)
        if hole is not None and self._is_hole(hole):
            PeerMeter.of(esme.peer.code, "smpp").refusal("part_refused_before")
            return esme.no_money_status, ""
        id_ = name or self._new_id()
        ask = Ask(
            id_,
            message.dest,
            message.source,
            "sms",
            party=esme.party,
            address=address,
            account=esme.system_id,
        )
        verdict = await self._board.charge(esme.peer, ask, segments=segments)
        if name and verdict.repeated and await self._is_spent(esme, verdict):
            return smpp.SYSTEM_ERROR, AGAIN
        if not verdict.allowed:
            if verdict.reason in NO_MONEY:
                if hole is not None:
                    self._note_hole(hole)
                return esme.no_money_status, ""
            return STATUS_OF.get(verdict.reason, smpp.SUBMIT_FAILED), ""
        return await self._pass_on(esme, upstream, command, message, id_)

    async def _pass_on(
        self, esme: EsmeOptions, upstream: Upstream, command: int, message: Message, id_: str
    ) -> tuple[int, str]:
        sent = message
        options = upstream.options
        if options.receipts and not message.registered & RECEIPT_BITS:
            # We want to know even where the sender does not: what is undelivered is given back.
            sent = msgspec.structs.replace(message, registered=message.registered | 1)
        answer = await upstream.pass_on(command, smpp.message_body(command, sent))
        try:
            upstream_id = smpp.read_id(_id_part(answer.body)) if answer.status == smpp.OK else ""
        except MalformedPdu:
            upstream_id = ""  # it was taken all the same
        if answer.status != smpp.OK:
            PeerMeter.of(options.peer.code, "smpp").refusal(smpp.status_name(answer.status))
            await self._give_back(esme, id_)
            status = answer.status
            if status in OURS:
                return smpp.SYSTEM_ERROR, ""
            return (status if status < 0x100 else smpp.SUBMIT_FAILED), ""
        written = SmsMessage(
            id=id_,
            at=self._board.clock(),
            peer=esme.peer.code,
            key=f"{esme.peer.switch}/{id_}",
            upstream=options.peer.code,
            upstream_id=canonical_id(upstream_id, options.response_base),
            source=message.source,
            dest=message.dest,
            wants=message.registered,
        )
        place = (written.upstream, written.upstream_id)
        self.on_the_way[place] = written
        if not await self._journal.add(written):
            PeerMeter.of(esme.peer.code, "smpp").fault("not_written", "the database is away")
        return smpp.OK, id_

    async def _give_back(self, esme: EsmeOptions, id_: str) -> None:
        """Give the charge of a message back that went nowhere; not now: at the next start."""
        for delay in (0.1, 0.5, 2.0, 0.0):
            if await self._board.give_back(esme.peer, id_, why="failed"):
                return
            await asyncio.sleep(delay)

    async def _is_spent(self, esme: EsmeOptions, verdict: Verdict) -> bool:
        """Whether the charge of this id was refused or given back: it pays for no second attempt."""
        if not verdict.allowed:
            return not verdict.busy
        session = await self._board.charging.session(f"{esme.peer.switch}/{verdict.call_id}")
        return session.refunded_ms > 0

    def _upstream_of(self, esme: EsmeOptions) -> Upstream | None:
        for code in esme.upstreams:
            found = self.upstreams.get(code)
            if found is not None and found.up:
                return found
        return None

    def _new_id(self) -> str:
        """An id that begins with its time: 20 hexadecimal digits."""
        self._count = (self._count + 1) & 0xFFF
        milliseconds = int(self._board.clock().timestamp() * 1000)
        return f"{milliseconds:011x}{self._count:03x}{self._process}"

    def _is_hole(self, hole: tuple[object, ...]) -> bool:
        return self._holes.get(hole, 0.0) > asyncio.get_running_loop().time()

    def _note_hole(self, hole: tuple[object, ...]) -> None:
        while len(self._holes) >= HOLES_MAX:
            self._holes.pop(next(iter(self._holes)))
        self._holes[hole] = asyncio.get_running_loop().time() + HOLE_SECONDS

    async def _write(self, messages: list[SmsMessage]) -> None:
        async with self._board.database.write() as connection:
            await add_messages(connection, messages)
        for one in messages:
            self.on_the_way.pop((one.upstream, one.upstream_id), None)


AGAIN = "again"
"""In the place of an id: this attempt's charge is spent, another one is made."""


def _hole_of(esme: EsmeOptions, message: Message, part: Part | None) -> tuple[object, ...] | None:
    if part is None:
        return None
    return (esme.peer.code, message.source, message.dest, part.reference, part.total)


def _id_part(body: bytes) -> bytes:
    """The id in a response's body; some SMSCs forget the zero behind it."""
    return body if b"\0" in body else body[:64] + b"\0"
