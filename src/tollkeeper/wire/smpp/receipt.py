"""Delivery receipts of SMPP: the text of a deliver_sm, and the parameters beside it.

The text is each SMSC's own affair (SMPP 3.4 appendix B shows one way): ``id:... sub:001 dlvrd:001 submit
date:2611211805 done date:2611211806 stat:DELIVRD err:000 text:...``. Names are read in any case and
order; the parameters receipted_message_id and message_state, where they are there, are believed before it.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import Final

import msgspec

from tollkeeper.wire.smpp.pdu import (
    INTERMEDIATE,
    RECEIPT,
    TLV_MESSAGE_STATE,
    TLV_RECEIPTED_ID,
    TYPE_MASK,
    MalformedPdu,
    Message,
    Tlvs,
)
from tollkeeper.wire.smpp.text import content_of

STATES: Final = {
    1: "ENROUTE", 2: "DELIVRD", 3: "EXPIRED", 4: "DELETED",
    5: "UNDELIV", 6: "ACCEPTD", 7: "UNKNOWN", 8: "REJECTD",
}  # fmt: skip
"""message_state (section 5.2.28) and the word for it in a receipt's text."""
DELIVERED: Final = "DELIVRD"
UNDELIVERED: Final = frozenset({"EXPIRED", "DELETED", "UNDELIV", "REJECTD"})
"""Final states of a message that reached nobody."""
FINAL: Final = UNDELIVERED | {DELIVERED, "UNKNOWN"}
"""Others (ENROUTE, ACCEPTD, BUFFRED) are news on the way."""
_SYNONYMS: Final = {
    "DELIVERED": "DELIVRD", "UNDELIVERED": "UNDELIV", "UNDELIVERABLE": "UNDELIV",
    "REJECTED": "REJECTD", "ACCEPTED": "ACCEPTD", "FAILED": "UNDELIV",
}  # fmt: skip
_NUMBERS: Final = {name: number for number, name in STATES.items()}
_TEXT_READ: Final = 512
"""Octets of a receipt's text that are looked at; those of the standard have about 120."""
_FIELD: Final = re.compile(
    r"(?<![A-Za-z])(id|stat|err|sub|dlvrd|submit date|done date):\s?([^\s:]{0,64})(?=\s|$)",
    re.IGNORECASE,
)
_TEXT: Final = re.compile(r"(?<![A-Za-z])text:", re.IGNORECASE)

_NUMBER: Final = {10: re.compile("[0-9]{1,64}"), 16: re.compile("[0-9a-fA-F]{1,64}")}


class Receipt(msgspec.Struct, frozen=True, gc=False):
    """What became of a message: ``message_id`` as the SMSC wrote it, ``state`` a word of :data:`STATES`.

    ``error`` is the network's code as text. ``intermediate``: a notification on the way (section 5.2.12),
    whatever state it names.
    """

    message_id: str
    state: str
    error: str = ""
    intermediate: bool = False

    @property
    def final(self) -> bool:
        """Whether the state is the last one: no other receipt is to come."""
        return self.state in FINAL and not self.intermediate

    @property
    def undelivered(self) -> bool:
        """Whether the message surely reached nobody."""
        return self.state in UNDELIVERED and not self.intermediate


def read_receipt(message: Message) -> Receipt | None:
    """Read the receipt that a deliver_sm or data_sm carries; None if it carries a message, or no id.

    The type in esm_class or the parameter receipted_message_id makes it a receipt.

    Raises:
        MalformedPdu: see :func:`~tollkeeper.wire.smpp.text.content_of`.
    """
    kind = message.esm_class & TYPE_MASK
    receipted = message.tlv(TLV_RECEIPTED_ID)
    if not kind & (RECEIPT | INTERMEDIATE) and receipted is None:
        return None
    text = content_of(message).text[:_TEXT_READ].decode("latin-1")
    shown = _TEXT.search(text)
    head = text if shown is None else text[: shown.start()]
    fields: dict[str, str] = {}
    for match in _FIELD.finditer(head):
        fields.setdefault(match[1].lower(), match[2])
    message_id = fields.get("id", "")
    if receipted is not None:
        message_id = receipted.split(b"\0", 1)[0][:64].decode("latin-1") or message_id
    state = fields.get("stat", "").upper()
    state = _SYNONYMS.get(state, state)
    number = message.tlv(TLV_MESSAGE_STATE)
    if number and number[0] in STATES:
        state = STATES[number[0]]
    if not message_id:
        return None
    return Receipt(message_id, state or "UNKNOWN", fields.get("err", ""), bool(kind & INTERMEDIATE))


def receipt_parts(
    receipt: Receipt, *, submitted: datetime, done: datetime, text: bytes = b""
) -> tuple[bytes, Tlvs]:
    """Write the text of a receipt and its parameters; ``text`` are the first octets of the message.

    Raises:
        MalformedPdu: the id is longer than the 64 characters that a parameter holds.
    """
    if len(receipt.message_id) > 64:
        raise MalformedPdu(f"a message id of {len(receipt.message_id)} characters; 64 are the most")
    delivered = int(receipt.state == DELIVERED)
    written = (
        f"id:{receipt.message_id} sub:001 dlvrd:{delivered:03d} "
        f"submit date:{submitted:%y%m%d%H%M} done date:{done:%y%m%d%H%M} "
        f"stat:{receipt.state} err:{receipt.error or '000'} text:"
    ).encode("latin-1", "replace")
    state = _NUMBERS.get(receipt.state, _NUMBERS["UNKNOWN"])
    message_id = receipt.message_id.encode("latin-1", "replace") + b"\0"
    return written + text[:20], (
        (TLV_RECEIPTED_ID, message_id),
        (TLV_MESSAGE_STATE, bytes((state,))),
    )


def canonical_id(written: str, base: int) -> str:
    """Write an id so that a response's and a receipt's are equal: a number of ``base`` 10 or 16 in decimal.

    Many SMSCs answer a submit in hexadecimal and write the receipt in decimal, or the other way. Base 0,
    and what is no such number, leaves it as it is.
    """
    if not base or not _NUMBER[base].fullmatch(written):
        return written
    return str(int(written, base))
