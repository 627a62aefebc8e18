"""Messages that an ESME sends again because it never heard the answer.

SMPP has no mark for that: sequence numbers begin anew with each connection. A message that carries a
user_message_reference is the same as another one when source, destination, text and reference are, within
the ESME's ``duplicate_seconds``; without a reference only where ``duplicates_by_text`` says that the ESME
never sends the same text to the same number on purpose so soon. The copy gets the answer of the first.
Its charge has a name made of the same things, so that a copy that meets another process (after our
restart) is not charged again either.
"""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass, field
from datetime import datetime

from tollkeeper.servers.smpp.options import EsmeOptions
from tollkeeper.wire.smpp import pdu as smpp
from tollkeeper.wire.smpp.pdu import Message

KEPT_MAX = 100_000
Answer = tuple[int, str]


@dataclass(slots=True)
class Attempt:
    """A message that can be told from others. ``known`` is the answer of the one before, or to come."""

    digest: str
    seconds: int
    until: float
    number: int = 0
    known: asyncio.Future[Answer] | None = None
    answer: asyncio.Future[Answer] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )

    def next_id(self, now: datetime) -> str:
        """The name of the next attempt: the window's begin, the digest, and a number from the second on."""
        bucket = int(now.timestamp()) // self.seconds * self.seconds * 1000
        self.number += 1
        return self._name(bucket, self.number)

    def earlier(self, name: str) -> list[str]:
        """The names that the first attempts of this message may have had, in this window and before."""
        bucket = int(name[:11], 16)
        return [
            self._name(begin, number)
            for begin in (bucket, bucket - self.seconds * 1000)
            for number in range(1, 4)
        ]

    def _name(self, bucket: int, number: int) -> str:
        return f"{bucket:011x}{self.digest}" + (f".{number}" if number > 1 else "")


class Twice:
    """Remembers the messages of the last minutes."""

    attempts_max = 8

    def __init__(self) -> None:
        self._kept: dict[str, Attempt] = {}

    def begin(self, esme: EsmeOptions, message: Message, now: float) -> Attempt | None:
        """Note a message; None: it cannot be told whether it is another one."""
        reference = message.tlv(smpp.TLV_USER_REFERENCE)
        if not esme.duplicate_seconds or (reference is None and not esme.duplicates_by_text):
            return None
        digest = _digest(esme, message)
        before = self._kept.get(digest)
        if before is not None and before.until > now:
            if not before.answer.done() or before.answer.result()[0] == smpp.OK:
                return Attempt(digest, 1, now, known=before.answer)
            number = before.number
        else:
            number = 0
        made = Attempt(digest, esme.duplicate_seconds, now + esme.duplicate_seconds, number)
        self._kept.pop(digest, None)
        while len(self._kept) >= KEPT_MAX or self._is_old(now):
            self._kept.pop(next(iter(self._kept)))
        self._kept[digest] = made
        return made

    def end(self, attempt: Attempt, status: int, message_id: str) -> None:
        """Note what a message was answered; one that was refused may be sent again."""
        if not attempt.answer.done():
            attempt.answer.set_result((status, message_id))

    def _is_old(self, now: float) -> bool:
        first = next(iter(self._kept.values()), None)
        return first is not None and first.until <= now


def _digest(esme: EsmeOptions, message: Message) -> str:
    content = hashlib.blake2b(digest_size=8)
    for field_ in (
        esme.peer.code.encode(),
        message.source.encode(),
        message.dest.encode(),
        bytes((message.esm_class, message.data_coding)),
        message.short_message,
        smpp.tlvs_body(message.tlvs),
    ):
        content.update(len(field_).to_bytes(4, "big") + field_)
    return content.hexdigest()
