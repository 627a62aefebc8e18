"""SMPP 3.4 protocol data units: bytes to records and back.

A PDU is a header of 16 octets (length, command, status, sequence number; all big endian) and a body. The
length of a header is believed only between 16 and :data:`PDU_MAX` octets, so one that claims four
gigabytes costs nothing. The body is kept as bytes until it is asked for: who only forwards, pays for
no parsing. Source: SMPP Protocol Specification 3.4, issue 1.2; sections in the docstrings are its.

Everything here is total: any bytes give a record or :class:`MalformedPdu`.
"""

from __future__ import annotations

import struct
from typing import Final

import msgspec

from tollkeeper.errors import InvalidInput

HEADER: Final = 16
PDU_MAX: Final = 69_632
"""Octets of the longest PDU that is read: a message_payload of 65,535, all fields, and some to spare."""
TLVS_MAX: Final = 64
"""Optional parameters of one PDU; the standard defines 44."""

RESPONSE: Final = 0x80000000
"""The bit that tells the response from its request."""
GENERIC_NACK: Final = 0x80000000
BIND_RECEIVER: Final = 0x01
BIND_TRANSMITTER: Final = 0x02
QUERY_SM: Final = 0x03
SUBMIT_SM: Final = 0x04
DELIVER_SM: Final = 0x05
UNBIND: Final = 0x06
REPLACE_SM: Final = 0x07
CANCEL_SM: Final = 0x08
BIND_TRANSCEIVER: Final = 0x09
OUTBIND: Final = 0x0B
ENQUIRE_LINK: Final = 0x15
SUBMIT_MULTI: Final = 0x21
ALERT_NOTIFICATION: Final = 0x102
DATA_SM: Final = 0x103

BINDS: Final = frozenset({BIND_RECEIVER, BIND_TRANSMITTER, BIND_TRANSCEIVER})
COMMANDS: Final = {
    BIND_RECEIVER: "bind_receiver", BIND_TRANSMITTER: "bind_transmitter", QUERY_SM: "query_sm",
    SUBMIT_SM: "submit_sm", DELIVER_SM: "deliver_sm", UNBIND: "unbind", REPLACE_SM: "replace_sm",
    CANCEL_SM: "cancel_sm", BIND_TRANSCEIVER: "bind_transceiver", OUTBIND: "outbind",
    ENQUIRE_LINK: "enquire_link", SUBMIT_MULTI: "submit_multi",
    ALERT_NOTIFICATION: "alert_notification", DATA_SM: "data_sm",
}  # fmt: skip
"""Names of the requests (section 5.1.2.1)."""

OK: Final = 0x00
INVALID_MESSAGE_LENGTH: Final = 0x01
INVALID_COMMAND_LENGTH: Final = 0x02
INVALID_COMMAND: Final = 0x03
WRONG_BIND_STATE: Final = 0x04
ALREADY_BOUND: Final = 0x05
SYSTEM_ERROR: Final = 0x08
INVALID_SOURCE: Final = 0x0A
INVALID_DESTINATION: Final = 0x0B
BIND_FAILED: Final = 0x0D
INVALID_PASSWORD: Final = 0x0E
INVALID_SYSTEM_ID: Final = 0x0F
CANCEL_FAILED: Final = 0x11
REPLACE_FAILED: Final = 0x13
QUEUE_FULL: Final = 0x14
INVALID_SERVICE_TYPE: Final = 0x15
INVALID_ESM_CLASS: Final = 0x43
SUBMIT_FAILED: Final = 0x45
THROTTLED: Final = 0x58
INVALID_SCHEDULE: Final = 0x61
INVALID_VALIDITY: Final = 0x62
TEMPORARY_APP_ERROR: Final = 0x64
PERMANENT_APP_ERROR: Final = 0x65
QUERY_FAILED: Final = 0x67
INVALID_TLV_STREAM: Final = 0xC0
INVALID_TLV_LENGTH: Final = 0xC2
NO_CREDIT: Final = 0x0412
"""A vendor's "out of credit", in the range 0x400 to 0x4FF that the standard leaves to vendors."""
STATUSES: Final = {
    OK: "ok", INVALID_MESSAGE_LENGTH: "invalid message length",
    INVALID_COMMAND_LENGTH: "invalid command length", INVALID_COMMAND: "invalid command",
    WRONG_BIND_STATE: "wrong bind state", ALREADY_BOUND: "already bound",
    SYSTEM_ERROR: "system error", INVALID_SOURCE: "invalid source address",
    INVALID_DESTINATION: "invalid destination address", BIND_FAILED: "bind failed",
    INVALID_PASSWORD: "invalid password", INVALID_SYSTEM_ID: "invalid system id",
    CANCEL_FAILED: "cancel failed", REPLACE_FAILED: "replace failed", QUEUE_FULL: "queue full",
    INVALID_SERVICE_TYPE: "invalid service type", INVALID_ESM_CLASS: "invalid esm class",
    SUBMIT_FAILED: "submit failed", THROTTLED: "throttled", INVALID_SCHEDULE: "invalid schedule",
    INVALID_VALIDITY: "invalid validity", TEMPORARY_APP_ERROR: "temporary application error",
    PERMANENT_APP_ERROR: "permanent application error", QUERY_FAILED: "query failed",
    INVALID_TLV_STREAM: "invalid optional parameters",
    INVALID_TLV_LENGTH: "invalid optional parameter length", NO_CREDIT: "no credit",
}  # fmt: skip
"""What a command status says (section 5.1.3), for logs and counters."""

TLV_RECEIPTED_ID: Final = 0x001E
TLV_USER_REFERENCE: Final = 0x0204
TLV_SAR_REFERENCE: Final = 0x020C
TLV_SAR_TOTAL: Final = 0x020E
TLV_SAR_NUMBER: Final = 0x020F
TLV_VERSION: Final = 0x0210
TLV_NETWORK_ERROR: Final = 0x0423
TLV_PAYLOAD: Final = 0x0424
TLV_MESSAGE_STATE: Final = 0x0427

UDHI: Final = 0x40
"""Bit of esm_class: the text begins with a user data header."""
RECEIPT: Final = 0x04
"""Message type in esm_class of a deliver_sm: the SMSC's delivery receipt."""
INTERMEDIATE: Final = 0x20
"""Message type in esm_class: a notification on the way, no final state."""
TYPE_MASK: Final = 0x3C
VERSION: Final = 0x34

Tlvs = tuple[tuple[int, bytes], ...]
_header = struct.Struct(">IIII")
_tlv = struct.Struct(">HH")


class MalformedPdu(InvalidInput):
    """Bytes that are no PDU. ``status`` is the command status that says so to the other side."""

    def __init__(self, detail: str, status: int = INVALID_COMMAND_LENGTH) -> None:
        super().__init__(detail, code="malformed_pdu")
        self.status = status


class Pdu(msgspec.Struct, frozen=True, gc=False):
    """One PDU with its body as it came. ``sequence`` pairs request and response."""

    command: int
    status: int
    sequence: int
    body: bytes = b""


class Bind(msgspec.Struct, frozen=True, gc=False):
    """A bind request (section 4.1): who asks, with which password, for which addresses."""

    system_id: str
    password: str
    system_type: str = ""
    version: int = VERSION
    ton: int = 0
    npi: int = 0
    address_range: str = ""


class Message(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """The fields of submit_sm and deliver_sm (sections 4.4 and 4.6); data_sm has fewer (4.7).

    ``schedule`` and ``validity`` are times in the standard's own writing, ``short_message`` the bytes
    as coded by ``data_coding``.
    """

    service_type: str = ""
    source_ton: int = 0
    source_npi: int = 0
    source: str = ""
    dest_ton: int = 0
    dest_npi: int = 0
    dest: str = ""
    esm_class: int = 0
    protocol_id: int = 0
    priority: int = 0
    schedule: str = ""
    validity: str = ""
    registered: int = 0
    replace: int = 0
    data_coding: int = 0
    default_id: int = 0
    short_message: bytes = b""
    tlvs: Tlvs = ()

    def tlv(self, tag: int) -> bytes | None:
        """The value of an optional parameter, None if it is not there."""
        for found, value in self.tlvs:
            if found == tag:
                return value
        return None


class Framer:
    """Cuts a stream of bytes into PDUs; holds no more than one of them that is not complete.

    ``broken`` says why a stream cannot be read on: a length below 16 or above the bound, seen as soon as
    its four octets are there. Nothing is taken from then on.
    """

    __slots__ = ("_buffer", "_most", "broken")

    def __init__(self, most: int = PDU_MAX) -> None:
        self._buffer = bytearray()
        self._most = most
        self.broken: MalformedPdu | None = None

    def feed(self, data: bytes) -> list[Pdu]:
        """Take bytes from the wire, return the PDUs that they complete."""
        found: list[Pdu] = []
        if self.broken is not None:
            return found
        buffer = self._buffer
        buffer += data
        at, size = 0, len(buffer)
        while size - at >= 4:
            length = int.from_bytes(buffer[at : at + 4], "big")
            if not HEADER <= length <= self._most:
                self.broken = MalformedPdu(
                    f"a PDU of {length} octets; from {HEADER} to {self._most} are read"
                )
                at = size
                break
            if size - at < length:
                break
            _, command, status, sequence = _header.unpack_from(buffer, at)
            found.append(Pdu(command, status, sequence, bytes(buffer[at + HEADER : at + length])))
            at += length
        del buffer[:at]
        return found

    @property
    def pending(self) -> int:
        """Octets of a PDU that is not complete."""
        return len(self._buffer)


def decode(frame: bytes) -> Pdu:
    """Read exactly one PDU.

    Raises:
        MalformedPdu: shorter than a header, or of another length than its header says.
    """
    if len(frame) < HEADER:
        raise MalformedPdu(f"{len(frame)} octets are no PDU; its header alone has {HEADER}")
    length, command, status, sequence = _header.unpack_from(frame)
    if length != len(frame) or length > PDU_MAX:
        raise MalformedPdu(f"a PDU of {len(frame)} octets that says it had {length}")
    return Pdu(command, status, sequence, frame[HEADER:])


def encode(pdu: Pdu) -> bytes:
    """Write a PDU; its length is that of its body."""
    body = pdu.body
    return _header.pack(HEADER + len(body), pdu.command, pdu.status, pdu.sequence) + body


def frame(command: int, status: int, sequence: int, body: bytes = b"") -> bytes:
    """Write a PDU from its parts."""
    return _header.pack(HEADER + len(body), command, status, sequence) + body


# --- bodies ------------------------------------------------------------------------------------------


def read_bind(body: bytes) -> Bind:
    """Read the body of any of the three binds.

    The standard bounds a password to eight characters; many peers send more, so 64 are read.

    Raises:
        MalformedPdu: a field is cut off or too long.
    """
    system_id, at = _text(body, 0, 65, "system_id")
    password, at = _text(body, at, 65, "password")
    system_type, at = _text(body, at, 13, "system_type")
    if len(body) < at + 3:
        raise MalformedPdu("the bind ends before interface_version, addr_ton and addr_npi")
    version, ton, npi = body[at : at + 3]
    address_range, _ = _text(body, at + 3, 41, "address_range")
    return Bind(system_id, password, system_type, version, ton, npi, address_range)


def bind_body(bind: Bind) -> bytes:
    """Write the body of a bind."""
    return b"".join(
        (
            _z(bind.system_id), _z(bind.password), _z(bind.system_type),
            bytes((bind.version, bind.ton, bind.npi)), _z(bind.address_range),
        )
    )  # fmt: skip


def read_message(command: int, body: bytes) -> Message:
    """Read the body of submit_sm, deliver_sm or data_sm.

    Raises:
        MalformedPdu: a field is cut off or too long; ``status`` says which kind.
    """
    if command == DATA_SM:
        return _read_data(body)
    service_type, at = _text(body, 0, 6, "service_type", INVALID_SERVICE_TYPE)
    source_ton, source_npi, at = _pair(body, at)
    source, at = _text(body, at, 21, "source_addr", INVALID_SOURCE)
    dest_ton, dest_npi, at = _pair(body, at)
    dest, at = _text(body, at, 21, "destination_addr", INVALID_DESTINATION)
    if len(body) < at + 3:
        raise MalformedPdu("the message ends before esm_class, protocol_id and priority_flag")
    esm_class, protocol_id, priority = body[at : at + 3]
    schedule, at = _text(body, at + 3, 17, "schedule_delivery_time", INVALID_SCHEDULE)
    validity, at = _text(body, at, 17, "validity_period", INVALID_VALIDITY)
    if len(body) < at + 5:
        raise MalformedPdu("the message ends before sm_length")
    registered, replace, data_coding, default_id, length = body[at : at + 5]
    end = at + 5 + length
    if end > len(body):
        raise MalformedPdu(
            f"sm_length says {length} octets and {len(body) - at - 5} are there",
            INVALID_MESSAGE_LENGTH,
        )
    return Message(
        service_type=service_type,
        source_ton=source_ton,
        source_npi=source_npi,
        source=source,
        dest_ton=dest_ton,
        dest_npi=dest_npi,
        dest=dest,
        esm_class=esm_class,
        protocol_id=protocol_id,
        priority=priority,
        schedule=schedule,
        validity=validity,
        registered=registered,
        replace=replace,
        data_coding=data_coding,
        default_id=default_id,
        short_message=body[at + 5 : end],
        tlvs=read_tlvs(body, end) if end < len(body) else (),
    )


def _read_data(body: bytes) -> Message:
    service_type, at = _text(body, 0, 6, "service_type", INVALID_SERVICE_TYPE)
    source_ton, source_npi, at = _pair(body, at)
    source, at = _text(body, at, 65, "source_addr", INVALID_SOURCE)
    dest_ton, dest_npi, at = _pair(body, at)
    dest, at = _text(body, at, 65, "destination_addr", INVALID_DESTINATION)
    if len(body) < at + 3:
        raise MalformedPdu("the message ends before esm_class, registered_delivery and data_coding")
    esm_class, registered, data_coding = body[at : at + 3]
    return Message(
        service_type=service_type,
        source_ton=source_ton,
        source_npi=source_npi,
        source=source,
        dest_ton=dest_ton,
        dest_npi=dest_npi,
        dest=dest,
        esm_class=esm_class,
        registered=registered,
        data_coding=data_coding,
        tlvs=read_tlvs(body, at + 3),
    )


def message_body(command: int, message: Message) -> bytes:
    """Write the body of submit_sm, deliver_sm or data_sm.

    Raises:
        MalformedPdu: the text is longer than 255 octets; longer ones go as message_payload.
    """
    head = (
        _z(message.service_type), bytes((message.source_ton, message.source_npi)),
        _z(message.source), bytes((message.dest_ton, message.dest_npi)), _z(message.dest),
    )  # fmt: skip
    if command == DATA_SM:
        flags = bytes((message.esm_class, message.registered, message.data_coding))
        return b"".join((*head, flags, tlvs_body(message.tlvs)))
    length = len(message.short_message)
    if length > 255:
        raise MalformedPdu(
            f"a short_message of {length} octets; 255 are the most", INVALID_MESSAGE_LENGTH
        )
    return b"".join(
        (
            *head,
            bytes((message.esm_class, message.protocol_id, message.priority)),
            _z(message.schedule),
            _z(message.validity),
            bytes((message.registered, message.replace, message.data_coding)),
            bytes((message.default_id, length)),
            message.short_message,
            tlvs_body(message.tlvs),
        )
    )


def read_id(body: bytes) -> str:
    """The message_id of a submit_sm_resp, deliver_sm_resp or data_sm_resp; empty if there is none.

    A response that refuses has no body, by section 4.4.2.

    Raises:
        MalformedPdu: longer than 64 characters, or not ended.
    """
    return _text(body, 0, 65, "message_id")[0] if body else ""


def id_body(message_id: str) -> bytes:
    """Write the body of a submit_sm_resp, deliver_sm_resp or data_sm_resp."""
    return _z(message_id)


def bind_resp_body(system_id: str) -> bytes:
    """Write the body of a bind response, with the version that is spoken."""
    return _z(system_id) + tlvs_body(((TLV_VERSION, bytes((VERSION,))),))


def read_tlvs(body: bytes, at: int = 0) -> Tlvs:
    """Read optional parameters (section 5.3) up to the end of the body.

    Raises:
        MalformedPdu: one is cut off, or there are more than :data:`TLVS_MAX`.
    """
    found: list[tuple[int, bytes]] = []
    size = len(body)
    while at < size:
        if at + 4 > size:
            raise MalformedPdu("an optional parameter is cut off", INVALID_TLV_STREAM)
        tag, length = _tlv.unpack_from(body, at)
        at += 4
        if at + length > size:
            raise MalformedPdu(
                f"the optional parameter {tag:#06x} says {length} octets and {size - at} are there",
                INVALID_TLV_LENGTH,
            )
        if len(found) == TLVS_MAX:
            raise MalformedPdu(f"more than {TLVS_MAX} optional parameters", INVALID_TLV_STREAM)
        found.append((tag, body[at : at + length]))
        at += length
    return tuple(found)


def tlvs_body(tlvs: Tlvs) -> bytes:
    """Write optional parameters."""
    if not tlvs:
        return b""
    return b"".join([_tlv.pack(tag, len(value)) + value for tag, value in tlvs])


def command_name(command: int) -> str:
    """The standard's name of a command, for logs: "submit_sm_resp", or its number."""
    if command == GENERIC_NACK:
        return "generic_nack"
    name = COMMANDS.get(command & ~RESPONSE)
    if name is None:
        return f"{command:#010x}"
    return f"{name}_resp" if command & RESPONSE else name


def status_name(status: int) -> str:
    """What a command status says, or its number."""
    return STATUSES.get(status, f"{status:#010x}")


def _text(
    body: bytes, at: int, most: int, field: str, status: int = INVALID_COMMAND_LENGTH
) -> tuple[str, int]:
    """A text that ends with a zero, of at most ``most`` octets with it; and where the next begins."""
    end = body.find(0, at, at + most)
    if end < 0:
        if len(body) >= at + most:
            raise MalformedPdu(f"{field} is longer than {most - 1} characters", status)
        raise MalformedPdu(f"the PDU ends within {field}")
    return body[at:end].decode("latin-1"), end + 1


def _pair(body: bytes, at: int) -> tuple[int, int, int]:
    """Type of number and numbering plan of an address."""
    if len(body) < at + 2:
        raise MalformedPdu("the PDU ends before an address")
    return body[at], body[at + 1], at + 2


def _z(text: str) -> bytes:
    """A text ended by zero; what has no place in one octet becomes a question mark."""
    return text.replace("\0", "").encode("latin-1", "replace") + b"\0"
