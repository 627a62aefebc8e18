"""RADIUS attributes by name: reading them leniently, writing them strictly.

Switches write the same thing in many ways: ``h323-credit-time`` with and without its name in the
value, text that ends in zero octets, several vendor attributes in one. All of that is read. A value
that cannot be what it should be counts as absent. Standard attributes: RFC 2865, 2866, 2869, 5176;
vendor attributes: Cisco "RADIUS VSA Voice Implementation Guide"; AudioCodes uses the same numbers.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Iterator
from datetime import datetime
from enum import IntEnum
from ipaddress import IPv4Address, IPv6Address

from tollkeeper.wire.radius.packet import VALUE_MAX, Attribute

CISCO = 9
AUDIOCODES = 4923
_VOICE_VENDORS = frozenset({CISCO, AUDIOCODES})


class Type(IntEnum):
    """The standard attributes that are read or written here."""

    USER_NAME = 1
    USER_PASSWORD = 2
    CHAP_PASSWORD = 3
    NAS_IP_ADDRESS = 4
    NAS_PORT = 5
    SERVICE_TYPE = 6
    FRAMED_IP_ADDRESS = 8
    REPLY_MESSAGE = 18
    STATE = 24
    CLASS = 25
    VENDOR_SPECIFIC = 26
    SESSION_TIMEOUT = 27
    IDLE_TIMEOUT = 28
    TERMINATION_ACTION = 29
    CALLED_STATION_ID = 30
    CALLING_STATION_ID = 31
    NAS_IDENTIFIER = 32
    PROXY_STATE = 33
    ACCT_STATUS_TYPE = 40
    ACCT_DELAY_TIME = 41
    ACCT_INPUT_OCTETS = 42
    ACCT_OUTPUT_OCTETS = 43
    ACCT_SESSION_ID = 44
    ACCT_SESSION_TIME = 46
    ACCT_TERMINATE_CAUSE = 49
    ACCT_MULTI_SESSION_ID = 50
    ACCT_INPUT_GIGAWORDS = 52
    ACCT_OUTPUT_GIGAWORDS = 53
    EVENT_TIMESTAMP = 55
    CHAP_CHALLENGE = 60
    NAS_PORT_TYPE = 61
    EAP_MESSAGE = 79
    MESSAGE_AUTHENTICATOR = 80
    ACCT_INTERIM_INTERVAL = 85
    NAS_IPV6_ADDRESS = 95
    ERROR_CAUSE = 101


class Voice(IntEnum):
    """Vendor attributes of voice gateways."""

    AVPAIR = 1
    REMOTE_ADDRESS = 23
    CONF_ID = 24
    SETUP_TIME = 25
    CALL_ORIGIN = 26
    CALL_TYPE = 27
    CONNECT_TIME = 28
    DISCONNECT_TIME = 29
    DISCONNECT_CAUSE = 30
    VOICE_QUALITY = 31
    GATEWAY_ID = 33
    INCOMING_CONF_ID = 35
    CREDIT_AMOUNT = 101
    CREDIT_TIME = 102
    RETURN_CODE = 103
    BILLING_MODEL = 109
    CURRENCY = 110


NAMES: dict[Voice, str] = {
    Voice.REMOTE_ADDRESS: "h323-remote-address",
    Voice.CONF_ID: "h323-conf-id",
    Voice.SETUP_TIME: "h323-setup-time",
    Voice.CALL_ORIGIN: "h323-call-origin",
    Voice.CALL_TYPE: "h323-call-type",
    Voice.CONNECT_TIME: "h323-connect-time",
    Voice.DISCONNECT_TIME: "h323-disconnect-time",
    Voice.DISCONNECT_CAUSE: "h323-disconnect-cause",
    Voice.VOICE_QUALITY: "h323-voice-quality",
    Voice.GATEWAY_ID: "h323-gw-id",
    Voice.INCOMING_CONF_ID: "h323-incoming-conf-id",
    Voice.CREDIT_AMOUNT: "h323-credit-amount",
    Voice.CREDIT_TIME: "h323-credit-time",
    Voice.RETURN_CODE: "h323-return-code",
    Voice.BILLING_MODEL: "h323-billing-model",
    Voice.CURRENCY: "h323-currency",
}
"""What is written in front of the value, by those who write it."""


class ErrorCause(IntEnum):
    """Values of Error-Cause (RFC 5176 section 3.5)."""

    RESIDUAL_CONTEXT_REMOVED = 201
    UNSUPPORTED_ATTRIBUTE = 401
    MISSING_ATTRIBUTE = 402
    NAS_IDENTIFICATION_MISMATCH = 403
    INVALID_REQUEST = 404
    UNSUPPORTED_SERVICE = 405
    UNSUPPORTED_EXTENSION = 406
    INVALID_ATTRIBUTE_VALUE = 407
    ADMINISTRATIVELY_PROHIBITED = 501
    NOT_ROUTABLE = 502
    SESSION_CONTEXT_NOT_FOUND = 503
    SESSION_CONTEXT_NOT_REMOVABLE = 504
    PROXY_PROCESSING_ERROR = 505
    RESOURCES_UNAVAILABLE = 506
    REQUEST_INITIATED = 507
    MULTIPLE_SESSION_SELECTION_UNSUPPORTED = 508


# --- writing -----------------------------------------------------------------------------------


def text(kind: int, value: str) -> Attribute:
    """An attribute of text; what is longer than an attribute may be is cut at a character."""
    encoded = value.encode("utf-8", "replace")
    if len(encoded) > VALUE_MAX:
        encoded = encoded[:VALUE_MAX].decode("utf-8", "ignore").encode()
    return kind, encoded


def integer(kind: int, value: int) -> Attribute:
    """An attribute of 32 bits; what does not fit is the nearest that does."""
    return kind, min(max(value, 0), 0xFFFFFFFF).to_bytes(4, "big")


def address(kind: int, value: IPv4Address | IPv6Address) -> Attribute:
    """An attribute that is an address; the type has to suit its version."""
    return kind, value.packed


def voice(number: Voice, value: str, *, named: bool = True, vendor: int = CISCO) -> Attribute:
    """A vendor attribute; ``named`` puts its name in front, as Cisco's gateways want it.

    Raises:
        ValueError: longer than an attribute may be.
    """
    written = f"{NAMES[number]}={value}" if named and number in NAMES else value
    encoded = written.encode()
    if len(encoded) > VALUE_MAX - 6:
        raise ValueError(f"the value of {number.name} has {len(encoded)} octets; 247 are the most")
    head = struct.pack("!IBB", vendor, number, len(encoded) + 2)
    return Type.VENDOR_SPECIFIC, head + encoded


# --- reading -----------------------------------------------------------------------------------


class Attributes:
    """The attributes of one packet, by type; vendor attributes are taken apart when asked for."""

    __slots__ = ("_all", "_first", "_voice")

    def __init__(self, attributes: Iterable[Attribute]) -> None:
        self._all = tuple(attributes)
        self._first: dict[int, bytes] = {}
        for kind, value in self._all:
            self._first.setdefault(kind, value)
        self._voice: dict[str, str] | None = None

    def raw(self, kind: int) -> bytes | None:
        """The first value of a type."""
        return self._first.get(kind)

    def every(self, kind: int) -> list[bytes]:
        """All values of a type, in order."""
        return [value for one, value in self._all if one == kind]

    def text(self, kind: int) -> str:
        """The first value as text, "" if there is none; see :func:`plain`."""
        value = self._first.get(kind)
        return "" if value is None else plain(value)

    def integer(self, kind: int) -> int | None:
        """The first value as a number of 32 bits; none if it is absent or not four octets."""
        value = self._first.get(kind)
        return int.from_bytes(value, "big") if value is not None and len(value) == 4 else None

    def address(self) -> str:
        """The NAS's own address, "" if it does not tell."""
        four, six = self._first.get(Type.NAS_IP_ADDRESS), self._first.get(Type.NAS_IPV6_ADDRESS)
        if four is not None and len(four) == 4:
            return str(IPv4Address(four))
        return str(IPv6Address(six)) if six is not None and len(six) == 16 else ""

    def voice(self, number: Voice) -> str:
        """A vendor attribute without its name, "" if there is none."""
        return self._pairs().get(NAMES[number], "")

    def pair(self, name: str) -> str:
        """The value of a pair ``name=value`` in a cisco-avpair, "" if there is none."""
        return self._pairs().get(name, "")

    def _pairs(self) -> dict[str, str]:
        """Vendor attributes and pairs by name; of several the first counts."""
        if self._voice is None:
            found: dict[str, str] = {}
            for number, value in voices(self._all):
                name, _, rest = value.partition("=")
                name = name.strip().lower()
                if number == Voice.AVPAIR:
                    if name in {"h323-ivr-out", "h323-ivr-in"}:
                        # Some gateways wrap an attribute once more: h323-ivr-out=name:value.
                        name, _, rest = rest.partition(":")
                        name = name.strip().lower()
                    found.setdefault(name, rest.strip())
                elif number in _NUMBERS:
                    own = NAMES[Voice(number)]
                    found.setdefault(own, rest.strip() if name == own else value.strip())
            self._voice = found
        return self._voice


_NUMBERS = frozenset(int(number) for number in NAMES)


def voices(attributes: Iterable[Attribute]) -> Iterator[tuple[int, str]]:
    """Number and text of each vendor attribute of a voice gateway; several may share one attribute.

    One that is not taken apart as RFC 2865 section 5.26 suggests is passed over.
    """
    for kind, value in attributes:
        if kind != Type.VENDOR_SPECIFIC or len(value) < 6:
            continue
        if int.from_bytes(value[:4], "big") not in _VOICE_VENDORS:
            continue
        at = 4
        while at + 2 <= len(value):
            size = value[at + 1]
            if size < 2 or at + size > len(value):
                break
            yield value[at], plain(value[at + 2 : at + size])
            at += size


def plain(value: bytes) -> str:
    """Octets as text that can be kept and logged: what is not printable is written as an escape.

    Zero octets at the end are padding of careless implementations.
    """
    found = value.rstrip(b"\x00").decode("utf-8", "backslashreplace")
    if found.isprintable():
        return found
    return "".join(one if one.isprintable() else _escape(one) for one in found)


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


_GROUPS = re.compile(r"[0-9A-Fa-f]{1,8}(?: [0-9A-Fa-f]{1,8}){3}")
_SOLID = re.compile(r"[0-9A-Fa-f]{32}")
_BLANKS = re.compile(r"\s+")


def conference(written: str) -> str:
    """An h323-conf-id in one writing: 32 hexadecimal digits, or the text without needless blanks.

    Gateways write the 128 bits as four groups, with or without leading zeroes, and in both cases.
    """
    tidy = _BLANKS.sub(" ", written.strip())
    if _GROUPS.fullmatch(tidy):
        return "".join(group.zfill(8) for group in tidy.split(" ")).lower()
    solid = tidy.replace(" ", "").replace("-", "")
    return solid.lower() if _SOLID.fullmatch(solid) else tidy


_MONTHS = {
    "jan": 1, "feb": 2, "mar": 3, "apr": 4, "may": 5, "jun": 6,
    "jul": 7, "aug": 8, "sep": 9, "oct": 10, "nov": 11, "dec": 12,
}  # fmt: skip
_NTP_TIME = re.compile(
    r"[*.]?([0-9]{1,2}):([0-9]{2}):([0-9]{2})(?:\.([0-9]{1,6}))? +\S+ +[A-Za-z]{3},? +"
    r"([A-Za-z]{3}) +([0-9]{1,2}) +([0-9]{4})"
)


def gateway_time(written: str) -> datetime | None:
    """``*23:24:19.810 UTC Sun Sep 26 2001`` as a time without a zone; none if it is no such thing.

    A ``*`` or ``.`` in front means that the gateway's clock is not set or not in step. Zone names are
    ambiguous, so only differences of two such times of one gateway mean anything.
    """
    match = _NTP_TIME.fullmatch(written.strip())
    month = _MONTHS.get(match[5].lower()) if match else None
    if match is None or month is None:
        return None
    fraction = int((match[4] or "0").ljust(6, "0"))
    try:
        return datetime(  # noqa: DTZ001 - see above
            int(match[7]),
            month,
            int(match[6]),
            int(match[1]),
            int(match[2]),
            int(match[3]),
            fraction,
        )
    except ValueError:
        return None


_URI = re.compile(r"<?(?:sips?|tel):([^@;>?\s]+)", re.IGNORECASE)


def number(written: str) -> str:
    """The number in what a switch writes: the user part of a SIP or tel URI, else all of it."""
    match = _URI.search(written)
    return match[1] if match else written.strip()
