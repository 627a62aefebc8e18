"""Receipts: from the SMSC to the message they speak of, its money, and its sender.

The order: what is given back is given back first (that is idempotent), then the receipt is written down,
then the SMSC is told that we have it. So whatever breaks, the SMSC sends it again and nothing is lost
or done twice. Senders are told from the database: one that is away finds its receipts when it is back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import partial

import structlog

from tollkeeper.errors import Busy
from tollkeeper.servers.smpp.batches import Batches
from tollkeeper.servers.smpp.link import Link, LinkDown
from tollkeeper.servers.smpp.options import SmscOptions
from tollkeeper.servers.smpp.submit import Submissions
from tollkeeper.servers.switchboard import Switchboard
from tollkeeper.servers.turns import Turns
from tollkeeper.services.tasks import end
from tollkeeper.store.peers import Peer
from tollkeeper.store.sms_messages import (
    ACCEPTED,
    SmsMessage,
    close_messages,
    find_messages,
    mark_told,
    read_waiting,
)
from tollkeeper.telemetry import PeerMeter
from tollkeeper.wire.smpp import pdu as smpp
from tollkeeper.wire.smpp.pdu import MalformedPdu, Message
from tollkeeper.wire.smpp.receipt import Receipt, canonical_id, read_receipt, receipt_parts
from tollkeeper.wire.smpp.text import content_of

LOOKS = (0.0, 0.2, 0.5, 1.0, 2.0)
"""Seconds between looks for the message of a receipt: it may be quicker than the response."""
PAGE = 200
DELIVER_WINDOW = 20
AGAIN_SECONDS = 5.0
TEMPORARY = frozenset(
    {smpp.QUEUE_FULL, smpp.THROTTLED, smpp.SYSTEM_ERROR, smpp.TEMPORARY_APP_ERROR}
)
_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Closing:
    """A message's final state, to be written down."""

    id: str
    state: str
    receipt: dict[str, object] | None


class Receipts:
    """Takes the receipts of all SMSCs and tells all ESMEs, in one process."""

    def __init__(
        self,
        board: Switchboard,
        submissions: Submissions,
        link_of: Callable[[str], Link | None],
    ) -> None:
        self._board = board
        self._submissions = submissions
        self._link_of = link_of
        self._closing: Batches[Closing] = Batches("receipts", self._close)
        self._told: Batches[str] = Batches("told", self._tell_told)
        self._turns = Turns()
        self._posts: dict[str, tuple[asyncio.Task[None], asyncio.Event]] = {}

    def start(self) -> None:
        """Begin."""
        self._closing.start()
        self._told.start()

    async def stop(self) -> None:
        """Write down what is to be, then end."""
        await end([task for task, _ in self._posts.values()])
        self._posts = {}
        await self._closing.stop()
        await self._told.stop()

    def bound(self, code: str) -> None:
        """An ESME can be told now."""
        wake = self._posts.get(code)
        if wake is not None and not wake[0].done():
            wake[1].set()
            return
        event = asyncio.Event()
        event.set()
        task = asyncio.create_task(self._post(code, event), name=f"receipts of {code}")
        self._posts[code] = (task, event)

    async def deliver(self, options: SmscOptions, message: Message) -> int:
        """Take a deliver_sm of an SMSC; the status that it is answered with."""
        meter = PeerMeter.of(options.peer.code, "smpp")
        try:
            receipt = read_receipt(message)
        except MalformedPdu as malformed:
            meter.fault("malformed", malformed.detail)
            return malformed.status
        if receipt is None:
            meter.fault("not_a_receipt", "messages to the ESMEs are not passed on")
            return smpp.PERMANENT_APP_ERROR
        # One after the other: of two final words the first one holds, in the money as in the row.
        async with self._turns.of(f"{options.peer.code}/{receipt.message_id}"):
            return await self._decide(options, receipt, message)

    async def _decide(self, options: SmscOptions, receipt: Receipt, message: Message) -> int:
        meter = PeerMeter.of(options.peer.code, "smpp")
        try:
            found = await self._find(options, receipt, message)
        except Busy:
            return smpp.TEMPORARY_APP_ERROR
        if found is None:
            meter.fault("receipt_unknown", f"of message {receipt.message_id}")
            return smpp.OK
        if not receipt.final:
            return smpp.OK  # news on the way, which changes nothing
        if found.state != ACCEPTED:
            meter.fault("duplicate", f"a second receipt of message {found.id}", log=False)
            return smpp.OK
        if receipt.undelivered and not await self._board.give_back(
            self._sender(found), found.id, why="undelivered"
        ):
            return smpp.TEMPORARY_APP_ERROR
        told = _told_of(receipt, message, self._board.clock()) if _wants(found, receipt) else None
        if not await self._closing.add(Closing(found.id, receipt.state, told)):
            return smpp.TEMPORARY_APP_ERROR
        if told is not None and self._link_of(found.peer) is not None:
            self.bound(found.peer)
        return smpp.OK

    async def _find(
        self, options: SmscOptions, receipt: Receipt, message: Message
    ) -> SmsMessage | None:
        """The message that a receipt is of.

        Raises:
            Busy: it cannot be told now.
        """
        id_ = canonical_id(receipt.message_id, options.receipt_base)
        journal, code = self._submissions.journal, options.peer.code
        for pause in LOOKS:
            if pause:
                await asyncio.sleep(pause)
            if (code, id_) in journal.on_the_way:
                continue  # it is being written down this very moment
            if found := await self._of_id(code, id_, message):
                return found
        if (code, id_) in journal.on_the_way:
            raise Busy("the message of the receipt is not written down yet", code="too_slow")
        numbers = {"source": message.dest.lstrip("+"), "dest": message.source.lstrip("+")}
        if await journal.adopt(code, id_, **numbers):
            return await self._of_id(code, id_, message)
        return None

    async def _of_id(self, code: str, id_: str, receipt: Message) -> SmsMessage | None:
        """A message by what its SMSC calls it; of those that it calls the same, the likeliest.

        An SMSC that restarts may use ids again: between the same numbers, still open, the latest.
        """
        async with self._board.database.read() as connection:
            found = await find_messages(connection, code, [id_])
        number = receipt.source.lstrip("+")
        found = [one for one in found if one.dest.lstrip("+") == number] or found
        return next(
            (one for one in reversed(found) if one.state == ACCEPTED), found[-1] if found else None
        )

    def _sender(self, message: SmsMessage) -> Peer:
        """The ESME as it is set, or what is known of it where it was removed since."""
        switch = message.key.partition("/")[0]
        found = self._board.book.peers.get(message.peer)
        if found is not None and found.switch == switch:
            return found
        return Peer(0, message.peer, "esme", switch)

    # --- to the ESMEs --------------------------------------------------------------------------------

    async def _post(self, code: str, event: asyncio.Event) -> None:
        """Tell an ESME its receipts as long as it is bound, the oldest first."""
        while self._link_of(code) is not None:
            await event.wait()
            event.clear()
            try:
                done = await self._empty(code)
            except Busy as error:
                _log.warning("smpp.receipts_wait", peer=code, error=str(error))
                done = False
            if not done:
                await asyncio.sleep(AGAIN_SECONDS)
                event.set()

    async def _empty(self, code: str) -> bool:
        """Tell all that wait; False: some could not be told now."""
        after, all_told = "", True
        while True:
            async with self._board.database.read() as connection:
                page = await read_waiting(connection, code, after=after, limit=PAGE)
            places = asyncio.Semaphore(DELIVER_WINDOW)
            told = await asyncio.gather(*[self._tell(code, places, one) for one in page])
            all_told = all_told and all(told)
            if len(page) < PAGE or not any(told):
                return all_told
            after = page[-1].id

    async def _tell(self, code: str, places: asyncio.Semaphore, message: SmsMessage) -> bool:
        async with places:
            link = self._link_of(code)
            if link is None:
                return False
            try:
                answer = await link.request(smpp.DELIVER_SM, _receipt_body(message))
            except LinkDown:
                return False
            if answer.status in TEMPORARY:
                return False
            if answer.status != smpp.OK:
                link.meter.fault("receipt_refused", smpp.status_name(answer.status))
            return await self._told.add(message.id)

    async def _close(self, closings: list[Closing]) -> None:
        # One statement takes a message once; the first word on it holds.
        first: dict[str, Closing] = {}
        for one in closings:
            first.setdefault(one.id, one)
        rows = [(one.id, one.state, one.receipt) for one in first.values()]
        async with self._board.database.write() as connection:
            await close_messages(connection, rows)

    async def _tell_told(self, ids: list[str]) -> None:
        async with self._board.database.write() as connection:
            await mark_told(connection, ids, self._board.clock())


def _wants(message: SmsMessage, receipt: Receipt) -> bool:
    """By the bits of registered_delivery: 1 every final receipt, 2 only of what failed."""
    wish = message.wants & 3
    return wish == 1 or (wish == 2 and receipt.undelivered)


def _told_of(receipt: Receipt, message: Message, now: datetime) -> dict[str, object]:
    """What is kept of a receipt, to be told to the sender."""
    text = content_of(message).text.decode("latin-1")
    network = message.tlv(smpp.TLV_NETWORK_ERROR)
    return {
        "state": receipt.state,
        "error": receipt.error,
        "done": now.isoformat(),
        "source": [message.source_ton, message.source_npi],
        "dest": [message.dest_ton, message.dest_npi],
        "text": text.partition("ext:")[2][:20],
        "network": network.hex() if network else "",
    }


def _receipt_body(message: SmsMessage) -> bytes:
    """The deliver_sm that tells a sender what became of its message."""
    kept = dict(message.receipt or {})
    number = partial(_numbers, kept)
    receipt = Receipt(message.id, str(kept.get("state", "UNKNOWN")), str(kept.get("error", "")))
    text, tlvs = receipt_parts(
        receipt,
        submitted=message.at,
        done=datetime.fromisoformat(str(kept["done"])),
        text=str(kept.get("text", "")).encode("latin-1", "replace"),
    )
    if network := bytes.fromhex(str(kept.get("network", ""))):
        tlvs = (*tlvs, (smpp.TLV_NETWORK_ERROR, network))
    return smpp.message_body(
        smpp.DELIVER_SM,
        Message(
            source_ton=number("source")[0],
            source_npi=number("source")[1],
            source=message.dest,
            dest_ton=number("dest")[0],
            dest_npi=number("dest")[1],
            dest=message.source,
            esm_class=smpp.RECEIPT,
            short_message=text[:254],
            tlvs=tlvs,
        ),
    )


def _numbers(kept: dict[str, object], name: str) -> tuple[int, int]:
    """Type of number and numbering plan, as the SMSC wrote them."""
    value = kept.get(name)
    if isinstance(value, list) and len(value) == 2:
        return int(value[0]), int(value[1])
    return 0, 0
