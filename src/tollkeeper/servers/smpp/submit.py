"""A message from an ESME: charged, noted, passed on, noted, answered; given back where it surely went nowhere.

The order is the whole point: nothing is passed on that is not charged durably, nothing is given back that
the SMSC may have. What is told to the ESME is told after its message is written down, so that a receipt
finds it again whatever happens to this process. The steps and what a death between them means: ADR 27.
"""

from __future__ import annotations

import asyncio
import os
from datetime import timedelta

import msgspec

from tollkeeper.core.reasons import Reason
from tollkeeper.errors import Busy
from tollkeeper.servers.asks import Ask, Verdict
from tollkeeper.servers.smpp.journal import Journal, id_time
from tollkeeper.servers.smpp.link import LinkDown
from tollkeeper.servers.smpp.options import EsmeOptions, SmscOptions
from tollkeeper.servers.smpp.smsc import NotSent, Passage, Upstream
from tollkeeper.servers.smpp.twice import Attempt, Twice
from tollkeeper.servers.switchboard import Switchboard
from tollkeeper.services.tasks import end
from tollkeeper.store.peers import Peer
from tollkeeper.store.sms_messages import SENDING, WITHDRAWN, SmsMessage
from tollkeeper.telemetry import PeerMeter
from tollkeeper.wire.smpp import pdu as smpp
from tollkeeper.wire.smpp.pdu import MalformedPdu, Message, Pdu
from tollkeeper.wire.smpp.receipt import canonical_id
from tollkeeper.wire.smpp.text import Part, content_of, count_segments, part_of

RECEIPT_BITS = 0x03
HOLE_SECONDS = 60.0
"""For so long the rest of a message is refused after one of its parts was, for want of money."""
HOLES_MAX = 10_000
DOUBT_SECONDS = 60
"""A charge of which nothing was heard is looked for so much later: what was under way is through by then."""

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
NOT_KNOWN_SENT = frozenset({SENDING, WITHDRAWN})
LATE_SECONDS = 2.0
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
        self._doubt: tuple[str, str] | None = None
        self._late: set[asyncio.Task[None]] = set()
        self.upstreams: dict[str, Upstream] = {}
        self.journal = Journal(board)

    async def start(self) -> None:
        """Begin. It may be long since this object was made: another process had the listener until now."""
        self._began = self._board.clock()
        self.journal.start()

    async def stop(self) -> None:
        """Write down what is to be, then end."""
        if self._late:
            await asyncio.wait(self._late, timeout=LATE_SECONDS)
        await end(self._late)
        await self.journal.stop()

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
        if upstream.full(esme.peer.code):
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
        """Give back what the process before us charged and surely did not pass on; how many.

        Its senders were told nothing and send it again.

        Raises:
            Busy: not now.
        """
        last = id_time(self._began)
        first = await self.journal.begin_of_doubt(esme.peer, last)
        return await self._sweep(esme, first, last)

    async def give_back_doubtful(self, esmes: list[EsmeOptions]) -> int:
        """The same for charges of this process of which nothing was heard in time, or whose return failed."""
        last = id_time(self._board.clock() - timedelta(seconds=DOUBT_SECONDS))
        if self._doubt is None or self._doubt[0] >= last:
            return 0
        first, newest = self._doubt
        given = 0
        for esme in esmes:
            given += await self._sweep(esme, first, last)
        if self._doubt[1] > newest or newest >= last:
            self._doubt = (min(last, self._doubt[1]), self._doubt[1])
        else:
            self._doubt = None
        return given

    async def give_back_unheard(self, options: SmscOptions) -> int:
        """Give back what an SMSC never said a word of, where its ``unheard_hours`` are over; how many."""
        given = 0
        if not options.unheard_hours:
            return given
        before = self._board.clock() - timedelta(hours=options.unheard_hours)
        while page := await self.journal.overdue(options.peer.code, before):
            for row in page:
                switch = row.key.partition("/")[0]
                sender = Peer(0, row.peer, "esme", switch)
                if not await self._board.give_back(sender, row.id, why="failed"):
                    return given
            if not all(await asyncio.gather(*[self.journal.withdraw(row) for row in page])):
                return given
            given += len(page)
        return given

    # --- inside ------------------------------------------------------------------------------------

    async def _sweep(self, esme: EsmeOptions, first: str, last: str) -> int:
        given = 0
        async for ids in self.journal.lost(esme.peer, first=first, last=last):
            for id_ in ids:
                if not await self._board.give_back(esme.peer, id_, why="failed"):
                    raise Busy("a charge could not be given back", code="too_slow")
                given += 1
        return given

    def _note_doubt(self, id_: str) -> None:
        first, newest = self._doubt or (id_[:11], id_[:11])
        self._doubt = (min(first, id_[:11]), max(newest, id_[:11]))

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
        found = await self.journal.read(attempt.earlier(name))
        return next((one.id for one in found if one.state not in NOT_KNOWN_SENT), None)

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
            if verdict.busy:
                self._note_doubt(id_)  # it may be written all the same
            if verdict.reason in NO_MONEY:
                if hole is not None:
                    self._note_hole(hole)
                return esme.no_money_status, ""
            return STATUS_OF.get(verdict.reason, smpp.SUBMIT_FAILED), ""
        row = SmsMessage(
            id=id_,
            at=self._board.clock(),
            peer=esme.peer.code,
            key=f"{esme.peer.switch}/{id_}",
            upstream=upstream.options.peer.code,
            upstream_id="",
            source=message.source,
            dest=message.dest,
            wants=message.registered,
            state=SENDING,
        )
        self.journal.under_way.add(id_)
        try:
            return await self._pass_on(esme, upstream, command, message, row, named=bool(name))
        finally:
            self.journal.under_way.discard(id_)

    async def _pass_on(
        self,
        esme: EsmeOptions,
        upstream: Upstream,
        command: int,
        message: Message,
        row: SmsMessage,
        *,
        named: bool,
    ) -> tuple[int, str]:
        sent = message
        options = upstream.options
        if options.receipts and not message.registered & RECEIPT_BITS:
            # We want to know even where the sender does not: what is undelivered is given back.
            sent = msgspec.structs.replace(message, registered=message.registered | 1)
        ours = True

        async def begin() -> bool:
            nonlocal ours
            ours = await self.journal.begin(row)
            return ours

        passage = Passage(begin, lambda late: self._hear_late(esme, upstream, row, late))
        try:
            body = smpp.message_body(command, sent)
            answer = await upstream.pass_on(command, body, passage, esme.peer.code)
        except NotSent as not_sent:
            self.journal.withdraw(row)
            if not ours and named and await self._is_anothers(row):
                return smpp.SYSTEM_ERROR, AGAIN
            await self._give_back(esme, row.id)
            return not_sent.status, ""
        except LinkDown:
            # The SMSC may have it, so that it stays charged.
            return smpp.SYSTEM_ERROR, ""
        except asyncio.CancelledError:
            if not passage.on_wire:
                self.journal.withdraw(row)
            raise
        if answer.status != smpp.OK:
            PeerMeter.of(options.peer.code, "smpp").refusal(smpp.status_name(answer.status))
            await self._take_back(esme, row)
            status = answer.status
            if status in OURS:
                return smpp.SYSTEM_ERROR, ""
            return (status if status < 0x100 else smpp.SUBMIT_FAILED), ""
        if not await self.journal.accepted(row, _id_of(upstream, answer), wants=row.wants):
            PeerMeter.of(esme.peer.code, "smpp").fault("not_written", "the database is away")
        return smpp.OK, row.id

    async def _take_back(self, esme: EsmeOptions, row: SmsMessage) -> None:
        """Give back the charge of a message that the SMSC refused."""
        self.journal.withdraw(row)
        await self._give_back(esme, row.id)

    async def _give_back(self, esme: EsmeOptions, id_: str) -> None:
        if not await self._board.give_back(esme.peer, id_, why="failed"):
            self._note_doubt(id_)  # later

    def _hear_late(
        self, esme: EsmeOptions, upstream: Upstream, row: SmsMessage, answer: Pdu
    ) -> None:
        """An answer came after its message was given up: it tells whether that was sent."""

        async def settle() -> None:
            if answer.status != smpp.OK:
                await self._take_back(esme, row)
            else:
                # Its sender was told an error, and hears no more of it.
                await self.journal.accepted(row, _id_of(upstream, answer), wants=0)

        task = asyncio.create_task(settle())
        self._late.add(task)
        task.add_done_callback(self._late.discard)

    async def _is_anothers(self, row: SmsMessage) -> bool:
        """Whether the id of a named message was taken before: by its first copy, or with its charge's return."""
        try:
            found = await self.journal.read([row.id])
        except Busy:
            self._note_doubt(row.id)
            raise
        return bool(found) and found[0].at != row.at

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


AGAIN = "again"
"""In the place of an id: this attempt's charge is spent, another one is made."""


def _hole_of(esme: EsmeOptions, message: Message, part: Part | None) -> tuple[object, ...] | None:
    if part is None:
        return None
    return (esme.peer.code, message.source, message.dest, part.reference, part.total)


def _id_of(upstream: Upstream, answer: Pdu) -> str:
    """What the SMSC calls a message that it took."""
    try:
        written = smpp.read_id(_id_part(answer.body))
    except MalformedPdu:
        written = ""  # it was taken all the same
    return canonical_id(written, upstream.options.response_base)


def _id_part(body: bytes) -> bytes:
    """The id in a response's body; some SMSCs forget the zero behind it."""
    return body if b"\0" in body else body[:64] + b"\0"
