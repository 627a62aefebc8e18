"""Diameter (RFC 6733) as bytes: header, AVPs, groups, values. Bounded and total.

Any bytes give records or :class:`MalformedDiameter`; every length is checked against what is there
before anything is cut out, so that memory stays a small multiple of the message and every loop
advances. Groups are opened one level at a time by whoever knows what stands in them, so their depth
is that of the reading code; only :func:`walk` opens what it does not know, to ``DEPTH_MAX``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address, IPv6Address
from struct import Struct
from typing import Final

import msgspec

from tollkeeper.errors import InvalidInput
from tollkeeper.wire.diameter.codes import Result

HEADER: Final = 20
MESSAGE_MAX: Final = 65_536
"""Bytes of the largest message that is taken; a header that says more ends the connection."""
AVPS_MAX: Final = 1024
"""AVPs of one level of one message."""
DEPTH_MAX: Final = 8

REQUEST: Final = 0x80
PROXIABLE: Final = 0x40
ERROR: Final = 0x20
RETRANSMITTED: Final = 0x10
"""Command flags: R, P, E and T."""
VENDOR: Final = 0x80
MANDATORY: Final = 0x40
"""AVP flags: V and M."""

_LENGTH: Final = 0xFFFFFF
_header: Final = Struct(">IIIII")
_two: Final = Struct(">II")
_three: Final = Struct(">III")
_four: Final = Struct(">IIII")
_u64: Final = Struct(">Q")
_i64: Final = Struct(">q")
_i32: Final = Struct(">i")
_PAD: Final = (b"", b"\0\0\0", b"\0\0", b"\0")
_EPOCH_1900: Final = datetime(1900, 1, 1, tzinfo=UTC)
_ERA: Final = 1 << 32


class MalformedDiameter(InvalidInput):
    """The bytes are not a message that can be served; ``result`` and ``failed`` say so to the peer.

    ``failed`` is the offending AVP, encoded, for Failed-AVP; empty where there is none.
    """

    code = "malformed_diameter"

    def __init__(self, detail: str, *, result: int, failed: bytes = b"") -> None:
        super().__init__(detail)
        self.result = result
        self.failed = failed


class Header(msgspec.Struct, frozen=True, gc=False):
    """The fixed part of a message. ``length`` is that of the whole message, in bytes."""

    length: int
    flags: int
    command: int
    application: int
    hop_by_hop: int
    end_to_end: int

    @property
    def request(self) -> bool:
        """Whether it asks; else it answers."""
        return bool(self.flags & REQUEST)

    @property
    def retransmitted(self) -> bool:
        """Whether it may be a copy of one that came before (the T flag, a hint only)."""
        return bool(self.flags & RETRANSMITTED)


class Avp(msgspec.Struct, frozen=True, gc=False):
    """One attribute: ``key`` is ``vendor << 32 | code``, ``data`` comes without padding."""

    key: int
    data: bytes
    flags: int = MANDATORY


class Message(msgspec.Struct, frozen=True, gc=False):
    """A message whose AVPs nobody has looked into."""

    header: Header
    avps: tuple[Avp, ...]


Schema = Mapping[int, int]
"""What may stand in a group: key -> ONE, MANY or IGNORED."""
ONE: Final = 1
MANY: Final = 2
IGNORED: Final = 0
Group = dict[int, list[bytes]]


# --- reading ------------------------------------------------------------------------------------


def frame_length(head: bytes | bytearray) -> int:
    """Return the length of the message that begins with these bytes; 0 while fewer than 4 are there.

    Raises:
        MalformedDiameter: another version, or a length that no message has. The stream is lost then.
    """
    if len(head) < 4:
        return 0
    length = int.from_bytes(head[1:4])
    if head[0] != 1:
        raise MalformedDiameter(
            f"byte 0 is {head[0]}, not version 1 of Diameter", result=Result.UNSUPPORTED_VERSION
        )
    if length < HEADER or length > MESSAGE_MAX or length & 3:
        raise MalformedDiameter(
            f"a length of {length} is none of a message (20 to {MESSAGE_MAX}, a multiple of 4)",
            result=Result.INVALID_MESSAGE_LENGTH,
        )
    return length


def decode_header(data: bytes) -> Header:
    """Read the header of one whole message.

    Raises:
        MalformedDiameter: too short, another version, or a length that is not that of ``data``.
    """
    if len(data) < HEADER or frame_length(data) != len(data):
        raise MalformedDiameter(
            f"the header does not fit {len(data)} bytes", result=Result.INVALID_MESSAGE_LENGTH
        )
    first, second, application, hop_by_hop, end_to_end = _header.unpack_from(data)
    return Header(
        first & _LENGTH, second >> 24, second & _LENGTH, application, hop_by_hop, end_to_end
    )


def split(data: bytes, start: int = 0) -> Iterator[Avp]:
    """Yield the AVPs of a message (``start`` = HEADER) or of a group's data, unopened.

    Raises:
        MalformedDiameter: a length that lies (5014), or more than ``AVPS_MAX``.
    """
    end = len(data)
    at = start
    left = AVPS_MAX
    while at < end:
        left -= 1
        if end - at < 8 or left < 0:
            raise _cut(data, at)
        code, word = _two.unpack_from(data, at)
        flags = word >> 24
        length = word & _LENGTH
        head = 12 if flags & VENDOR else 8
        stop = at + length
        if length < head or stop > end:
            raise _cut(data, at)
        if head == 12:
            code |= int.from_bytes(data[at + 8 : at + 12]) << 32
        yield Avp(code, data[at + head : stop], flags)
        # Of the last member of a group, some leave the padding off: the group's end is its end.
        at += (length + 3) & ~3


def decode(data: bytes) -> Message:
    """Read one whole message.

    Raises:
        MalformedDiameter: any length in it lies.
    """
    return Message(decode_header(data), tuple(split(data, HEADER)))


def gather(data: bytes, schema: Schema, start: int = 0) -> Group:
    """Read a level by its schema: what is not in it is dropped, or refused where it is mandatory.

    Raises:
        MalformedDiameter: a lying length (5014), an unknown mandatory AVP (5001), or one that is there
            again with another value (5009).
    """
    found: Group = {}
    end = len(data)
    at = start
    left = AVPS_MAX
    while at < end:
        left -= 1
        if end - at < 8 or left < 0:
            raise _cut(data, at)
        key, word = _two.unpack_from(data, at)
        length = word & _LENGTH
        head = 8
        if word & 0x80000000:
            head = 12
            key |= int.from_bytes(data[at + 8 : at + 12]) << 32
        stop = at + length
        if length < head or stop > end:
            raise _cut(data, at)
        times = schema.get(key)
        if times:
            there = found.get(key)
            if there is None:
                found[key] = [data[at + head : stop]]
            elif times == MANY:
                there.append(data[at + head : stop])
            elif there[0] != data[at + head : stop]:
                # Kamailio writes its Origin-Host twice; the same again says nothing else.
                raise MalformedDiameter(
                    f"AVP {name_of(key)} stands more than once",
                    result=Result.AVP_OCCURS_TOO_MANY_TIMES,
                    failed=data[at:stop] + _PAD[length & 3],
                )
        elif times is None and word & 0x40000000:
            raise MalformedDiameter(
                f"AVP {name_of(key)} is mandatory and not known here",
                result=Result.AVP_UNSUPPORTED,
                failed=data[at:stop] + _PAD[length & 3],
            )
        at += (length + 3) & ~3
    return found


def walk(data: bytes, groups: frozenset[int], start: int = 0, depth: int = 0) -> Iterator[Avp]:
    """Yield every AVP with those inside the ``groups``, to look at a message that nobody serves.

    Raises:
        MalformedDiameter: a lying length, or groups deeper than ``DEPTH_MAX``.
    """
    if depth > DEPTH_MAX:
        raise MalformedDiameter(
            f"groups stand deeper than {DEPTH_MAX}", result=Result.INVALID_AVP_VALUE
        )
    for avp in split(data, start):
        yield avp
        if avp.key in groups:
            yield from walk(avp.data, groups, 0, depth + 1)


def name_of(key: int) -> str:
    """How an AVP is called in a sentence: its code, with its vendor where it has one."""
    return f"{key & 0xFFFFFFFF} of vendor {key >> 32}" if key >> 32 else str(key)


def _cut(data: bytes, at: int) -> MalformedDiameter:
    """The error of a length that lies; what can be told is the AVP's head (RFC 6733 section 7.1.5)."""
    failed = b""
    if len(data) - at >= 8:
        code, word = _two.unpack_from(data, at)
        key = code
        if word & 0x80000000 and len(data) - at >= 12:
            key |= int.from_bytes(data[at + 8 : at + 12]) << 32
        failed = avp(key, b"", mandatory=bool(word & 0x40000000))
    return MalformedDiameter(
        f"the AVP at byte {at} has a length that is none, or is one too many",
        result=Result.INVALID_AVP_LENGTH,
        failed=failed,
    )


# --- values -------------------------------------------------------------------------------------


def _wrong(
    key: int, data: bytes, what: str, result: Result = Result.INVALID_AVP_LENGTH
) -> MalformedDiameter:
    return MalformedDiameter(
        f"AVP {name_of(key)} is not {what}", result=result, failed=avp(key, data[:256])
    )


def read_u32(found: Group, key: int) -> int | None:
    """Return an Unsigned32 or Enumerated, None where it is absent.

    Raises:
        MalformedDiameter: another length than 4 bytes. So for the others below.
    """
    values = found.get(key)
    if values is None:
        return None
    data = values[0]
    if len(data) != 4:
        raise _wrong(key, data, "4 bytes")
    return int.from_bytes(data)


def read_u64(found: Group, key: int) -> int | None:
    """Return an Unsigned64."""
    values = found.get(key)
    if values is None:
        return None
    if len(values[0]) != 8:
        raise _wrong(key, values[0], "8 bytes")
    return int.from_bytes(values[0])


def read_signed(found: Group, key: int, size: int) -> int | None:
    """Return an Integer32 or Integer64 (``size`` 4 or 8)."""
    values = found.get(key)
    if values is None:
        return None
    if len(values[0]) != size:
        raise _wrong(key, values[0], f"{size} bytes")
    return int.from_bytes(values[0], signed=True)


def read_text(found: Group, key: int, *, longest: int = 1024) -> str:
    """Return a UTF8String or DiameterIdentity; "" where it is absent.

    Raises:
        MalformedDiameter: not UTF-8, with control characters, or longer than ``longest`` bytes.
    """
    values = found.get(key)
    return "" if values is None else text_of(key, values[0], longest=longest)


def text_of(key: int, data: bytes, *, longest: int = 1024) -> str:
    """Read bytes as a UTF8String. Raises as :func:`read_text`."""
    if len(data) > longest:
        raise _wrong(key, data, f"at most {longest} bytes")
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise _wrong(key, data, "UTF-8", Result.INVALID_AVP_VALUE) from None
    if not text.isprintable():
        raise _wrong(key, data, "printable text", Result.INVALID_AVP_VALUE)
    return text


def need_text(found: Group, key: int, *, longest: int = 1024) -> str:
    """Return a text that must be there and not be empty.

    Raises:
        MalformedDiameter: it is absent (5005), or no text.
    """
    text = read_text(found, key, longest=longest)
    if not text:
        raise missing(key, b"\0")
    return text


def need_u32(found: Group, key: int) -> int:
    """Return a number that must be there.

    Raises:
        MalformedDiameter: it is absent (5005), or not 4 bytes.
    """
    number = read_u32(found, key)
    if number is None:
        raise missing(key, b"\0\0\0\0")
    return number


def missing(key: int, example: bytes) -> MalformedDiameter:
    """The error of an AVP that must be there; an example goes into Failed-AVP (RFC 6733 section 7.5)."""
    return MalformedDiameter(
        f"AVP {name_of(key)} is missing", result=Result.MISSING_AVP, failed=avp(key, example)
    )


def read_time(found: Group, key: int) -> datetime | None:
    """Return a Time: seconds since 1900, or since 2036 where the top bit is not set (RFC 6733 4.3.1)."""
    seconds = read_u32(found, key)
    if seconds is None:
        return None
    return _EPOCH_1900 + timedelta(seconds=seconds if seconds >> 31 else seconds + _ERA)


def read_addresses(found: Group, key: int) -> tuple[str, ...]:
    """Return the IP addresses among the values of an Address; other families are passed over."""
    return tuple(
        str(IPv4Address(data[2:]) if data[1] == 1 else IPv6Address(data[2:]))
        for data in found.get(key, ())
        if (data[:2], len(data)) in {(b"\0\1", 6), (b"\0\2", 18)}
    )


# --- writing ------------------------------------------------------------------------------------


def avp(key: int, data: bytes, *, mandatory: bool = True) -> bytes:
    """Encode one AVP with its padding."""
    flags = 0x40000000 if mandatory else 0
    size = len(data)
    if key >> 32:
        head = _three.pack(key & 0xFFFFFFFF, 0x80000000 | flags | (size + 12), key >> 32)
    else:
        head = _two.pack(key, flags | (size + 8))
    return head + data + _PAD[size & 3]


def avp_u32(key: int, number: int, *, mandatory: bool = True) -> bytes:
    """Encode an Unsigned32 or Enumerated, from 0 to 2^32 - 1."""
    flags = 0x40000000 if mandatory else 0
    if key >> 32:
        return _four.pack(key & 0xFFFFFFFF, 0x80000000 | flags | 16, key >> 32, number)
    return _three.pack(key, flags | 12, number)


def avp_u64(key: int, number: int) -> bytes:
    """Encode an Unsigned64, from 0 to 2^64 - 1."""
    return avp(key, _u64.pack(number))


def avp_signed(key: int, number: int, size: int) -> bytes:
    """Encode an Integer32 or Integer64 (``size`` 4 or 8)."""
    return avp(key, (_i32 if size == 4 else _i64).pack(number))


def avp_text(key: int, text: str, *, mandatory: bool = True) -> bytes:
    """Encode a UTF8String or DiameterIdentity."""
    return avp(key, text.encode(), mandatory=mandatory)


def avp_address(key: int, address: str) -> bytes:
    """Encode an IP address. Raises ValueError where it is none."""
    if ":" in address:
        return avp(key, b"\0\2" + IPv6Address(address.partition("%")[0]).packed)
    return avp(key, b"\0\1" + IPv4Address(address).packed)


def avp_time(key: int, at: datetime) -> bytes:
    """Encode a Time: whole seconds; after 2036 they begin again at 0."""
    return avp_u32(key, int((at - _EPOCH_1900).total_seconds()) % _ERA)


def group(key: int, members: Iterable[bytes], *, mandatory: bool = True) -> bytes:
    """Encode a group of encoded AVPs."""
    return avp(key, b"".join(members), mandatory=mandatory)


def encode(
    *,
    flags: int,
    command: int,
    application: int,
    hop_by_hop: int,
    end_to_end: int,
    avps: bytes,
) -> bytes:
    """Encode a message from its fields and its encoded AVPs."""
    return (
        _header.pack(
            0x01000000 | (HEADER + len(avps)),
            flags << 24 | command,
            application,
            hop_by_hop,
            end_to_end,
        )
        + avps
    )


def encode_message(message: Message) -> bytes:
    """Encode a message as it was read; its length is counted anew."""
    head = message.header
    avps = b"".join(_raw(one.key, one.data, one.flags) for one in message.avps)
    return encode(
        flags=head.flags,
        command=head.command,
        application=head.application,
        hop_by_hop=head.hop_by_hop,
        end_to_end=head.end_to_end,
        avps=avps,
    )


def _raw(key: int, data: bytes, flags: int) -> bytes:
    """Encode an AVP with exactly these flags, the vendor by its own bit."""
    head = (key & 0xFFFFFFFF).to_bytes(4) + bytes([flags])
    length = len(data) + (12 if flags & VENDOR else 8)
    vendor = (key >> 32).to_bytes(4) if flags & VENDOR else b""
    return head + length.to_bytes(3) + vendor + data + _PAD[len(data) & 3]
