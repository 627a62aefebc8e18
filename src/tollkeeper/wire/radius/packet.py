"""RADIUS packets: bytes in, frozen records out, and everything that signs or checks them.

Pure and total: :func:`decode` gives a :class:`Packet` or raises :class:`MalformedRadius`, whatever
the bytes are. Packets: RFC 2865 section 3; accounting: RFC 2866; Message-Authenticator: RFC 3579
section 3.2; Status-Server: RFC 5997; Disconnect and CoA: RFC 5176.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable
from enum import IntEnum, StrEnum

import msgspec

HEADER = 20
PACKET_MAX = 4096
"""The longest packet (RFC 2865 section 3); what is longer is discarded."""
VALUE_MAX = 253
ZERO = bytes(16)
MESSAGE_AUTHENTICATOR = 80
PROXY_STATE = 33
EAP_MESSAGE = 79

Attribute = tuple[int, bytes]
"""A type (1 to 255) and a value of at most 253 octets."""


class MalformedRadius(ValueError):
    """These bytes are no RADIUS packet; the text says why."""


class Code(IntEnum):
    """The packet codes that are spoken here."""

    ACCESS_REQUEST = 1
    ACCESS_ACCEPT = 2
    ACCESS_REJECT = 3
    ACCOUNTING_REQUEST = 4
    ACCOUNTING_RESPONSE = 5
    ACCESS_CHALLENGE = 11
    STATUS_SERVER = 12
    DISCONNECT_REQUEST = 40
    DISCONNECT_ACK = 41
    DISCONNECT_NAK = 42
    COA_REQUEST = 43
    COA_ACK = 44
    COA_NAK = 45


_RANDOM = frozenset({Code.ACCESS_REQUEST, Code.STATUS_SERVER})
"""Requests whose authenticator is a random number; that of the others is a digest of the packet."""


class Fault(StrEnum):
    """What is wrong with the signature of a packet; the empty one means nothing is."""

    NONE = ""
    BAD_AUTHENTICATOR = "bad authenticator"
    BAD_SIGNATURE = "bad Message-Authenticator"
    UNSIGNED = "no Message-Authenticator"


class Packet(msgspec.Struct, frozen=True, gc=False):
    """A packet as it was received: ``raw`` are its octets without padding behind them.

    ``signed_at`` is where the value of its Message-Authenticator begins, 0 if it has none.
    """

    code: int
    identifier: int
    authenticator: bytes
    attributes: tuple[Attribute, ...]
    raw: bytes
    signed_at: int = 0


def decode(data: bytes) -> Packet:
    """Read a packet. Octets behind its length are padding (RFC 2865 section 3).

    Raises:
        MalformedRadius: too short, too long, or an attribute whose length cannot be.
    """
    if len(data) < HEADER:
        raise MalformedRadius(f"{len(data)} octets are less than a header")
    length = data[2] << 8 | data[3]
    if not HEADER <= length <= PACKET_MAX:
        raise MalformedRadius(f"length {length} is not from 20 to 4096")
    if length > len(data):
        raise MalformedRadius(f"length {length}, and {len(data)} octets came")
    raw = data[:length]
    attributes: list[Attribute] = []
    at, signed_at = HEADER, 0
    while at < length:
        if at + 2 > length:
            raise MalformedRadius(f"an attribute is cut off at octet {at}")
        kind, size = raw[at], raw[at + 1]
        end = at + size
        if size < 2 or end > length:
            raise MalformedRadius(f"attribute {kind} at octet {at} has the length {size}")
        if kind == MESSAGE_AUTHENTICATOR:
            if size != 18 or signed_at:
                raise MalformedRadius("a Message-Authenticator is 16 octets, and once")
            signed_at = at + 2
        attributes.append((kind, raw[at + 2 : end]))
        at = end
    return Packet(raw[0], raw[1], raw[4:HEADER], tuple(attributes), raw, signed_at)


def check_request(packet: Packet, secret: bytes, *, require_signature: bool = True) -> Fault:
    """Tell whether a request was made by somebody who knows the secret.

    An Access-Request has to carry a Message-Authenticator (BlastRADIUS, CVE-2024-3596). Where a
    peer cannot, it is still required with EAP (RFC 3579 section 3.2), in a Status-Server (RFC 5997
    section 3), and beside a Proxy-State, which that attack cannot do without.
    """
    if packet.code not in _RANDOM and not hmac.compare_digest(
        _digest(packet.raw[:4], ZERO, packet.raw[HEADER:], secret), packet.authenticator
    ):
        return Fault.BAD_AUTHENTICATOR
    if packet.signed_at:
        seed = packet.authenticator if packet.code in _RANDOM else ZERO
        signed = _signature(packet.raw, packet.signed_at, seed, secret)
        received = packet.raw[packet.signed_at : packet.signed_at + 16]
        return Fault.NONE if hmac.compare_digest(signed, received) else Fault.BAD_SIGNATURE
    if packet.code == Code.STATUS_SERVER:
        return Fault.UNSIGNED
    if packet.code == Code.ACCESS_REQUEST and (
        require_signature
        or any(kind in {PROXY_STATE, EAP_MESSAGE} for kind, _ in packet.attributes)
    ):
        return Fault.UNSIGNED
    return Fault.NONE


def check_answer(
    answer: Packet, request_authenticator: bytes, secret: bytes, *, require_signature: bool = False
) -> Fault:
    """Tell whether an answer was made for that request by somebody who knows the secret."""
    expected = _digest(answer.raw[:4], request_authenticator, answer.raw[HEADER:], secret)
    if not hmac.compare_digest(expected, answer.authenticator):
        return Fault.BAD_AUTHENTICATOR
    if not answer.signed_at:
        return Fault.UNSIGNED if require_signature else Fault.NONE
    signed = _signature(answer.raw, answer.signed_at, request_authenticator, secret)
    received = answer.raw[answer.signed_at : answer.signed_at + 16]
    return Fault.NONE if hmac.compare_digest(signed, received) else Fault.BAD_SIGNATURE


def encode_request(
    code: Code,
    identifier: int,
    attributes: Iterable[Attribute],
    secret: bytes,
    *,
    random: bytes = ZERO,
    signed: bool = True,
) -> bytes:
    """Write a request; ``random`` is the authenticator of those that have a random one.

    A Message-Authenticator is put first, unless ``signed`` is False.

    Raises:
        ValueError: an attribute or the whole is too long.
    """
    seed = random if code in _RANDOM else ZERO
    packet = _assemble(code, identifier, seed, attributes, secret, signed=signed)
    if code in _RANDOM:
        return packet
    return packet[:4] + _digest(packet[:4], ZERO, packet[HEADER:], secret) + packet[HEADER:]


def encode_answer(
    request: Packet, code: Code, attributes: Iterable[Attribute], secret: bytes
) -> bytes:
    """Write the answer to a request, with its Proxy-States unchanged and in order.

    It carries a Message-Authenticator as its first attribute, but for an Accounting-Response to an
    Accounting-Request: no RFC says what that would be made over, and implementations differ.

    Raises:
        ValueError: an attribute or the whole is too long.
    """
    own = (*attributes, *(one for one in request.attributes if one[0] == PROXY_STATE))
    signed = request.code != Code.ACCOUNTING_REQUEST
    packet = _assemble(code, request.identifier, request.authenticator, own, secret, signed=signed)
    # The response authenticator is made over the request's, which stands where it will stand.
    return (
        packet[:4] + hashlib.md5(packet + secret, usedforsecurity=False).digest() + packet[HEADER:]
    )


def _assemble(
    code: Code,
    identifier: int,
    seed: bytes,
    attributes: Iterable[Attribute],
    secret: bytes,
    *,
    signed: bool,
) -> bytes:
    """A packet with ``seed`` as its authenticator, its Message-Authenticator already right."""
    parts = [b"\x50\x12" + ZERO] if signed else []
    for kind, value in attributes:
        if len(value) > VALUE_MAX:
            raise ValueError(
                f"attribute {kind} has {len(value)} octets and {VALUE_MAX} are the most"
            )
        parts.append(bytes((kind, len(value) + 2)) + value)
    body = b"".join(parts)
    length = HEADER + len(body)
    if length > PACKET_MAX:
        raise ValueError(f"a packet of {length} octets is longer than {PACKET_MAX}")
    packet = bytes((code, identifier)) + length.to_bytes(2, "big") + seed + body
    if not signed:
        return packet
    return packet[:22] + hmac.digest(secret, packet, "md5") + packet[38:]


def _digest(head: bytes, authenticator: bytes, body: bytes, secret: bytes) -> bytes:
    """MD5 is what the protocol is made of; it is no choice."""
    return hashlib.md5(head + authenticator + body + secret, usedforsecurity=False).digest()


def _signature(raw: bytes, at: int, authenticator: bytes, secret: bytes) -> bytes:
    """HMAC-MD5 over the packet with its own value as zeroes (RFC 3579 section 3.2)."""
    message = b"".join((raw[:4], authenticator, raw[HEADER:at], ZERO, raw[at + 16 :]))
    return hmac.digest(secret, message, "md5")
