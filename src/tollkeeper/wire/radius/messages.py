"""What RADIUS requests say of calls: records made of attributes.

An Access-Request asks for a call (:class:`Question`), an Accounting-Request reports one
(:class:`Report`). Nothing here decides; what a switch left out is "" or None.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from enum import IntEnum, StrEnum

import msgspec

from tollkeeper.wire.radius.attributes import (
    Attributes,
    Type,
    Voice,
    conference,
    gateway_time,
    number,
)
from tollkeeper.wire.radius.packet import Packet
from tollkeeper.wire.radius.passwords import Digest, read_digest

_GIGAWORD = 2**32
_HEXADECIMAL = re.compile(r"[0-9a-f]{1,2}")
_SIP_SESSION = 15
"""Service-Type of SIP accounting: Kamailio's and OpenSIPS's."""


class Status(IntEnum):
    """Acct-Status-Type (RFC 2866 section 5.1; Failed is 15, RFC 2867 and Kamailio)."""

    START = 1
    STOP = 2
    INTERIM = 3
    ON = 7
    OFF = 8
    FAILED = 15


class Origin(StrEnum):
    """Which leg of a call a gateway speaks of (h323-call-origin)."""

    UNKNOWN = ""
    ANSWER = "answer"
    ORIGINATE = "originate"


class Question(msgspec.Struct, frozen=True, gc=False):
    """An Access-Request: who asks, and for a call from whom to whom.

    ``password`` is the hidden User-Password, ``chap`` CHAP-Password and its challenge.
    """

    user: str
    calling: str
    called: str
    nas_address: str
    nas_identifier: str
    remote_address: str
    session_id: str
    conference: str
    call_id: str
    password: bytes | None
    chap: tuple[bytes, bytes] | None
    digest: Digest | None
    eap: bool


class Report(msgspec.Struct, frozen=True, gc=False):
    """An Accounting-Request.

    ``seconds`` and the octets are totals since the start (RFC 2869 section 2.1); ``happened_at`` is
    the switch's claim of when; ``delay`` for how many seconds it has tried to tell.
    """

    status: int
    session_id: str
    user: str
    calling: str
    called: str
    nas_address: str
    nas_identifier: str
    remote_address: str
    origin: Origin
    call_type: str
    conference: str
    incoming_conference: str
    call_id: str
    classes: tuple[bytes, ...]
    seconds: int | None
    octets: int | None
    gigawords: bool
    delay: int
    happened_at: datetime | None
    connected_ms: int | None
    """From the gateway's own connect to disconnect time, if it tells both."""
    terminate_cause: int | None
    q850: int | None
    sip: bool
    sip_code: int | None
    sip_tags: tuple[str, str] = ("", "")


def read_question(packet: Packet) -> Question:
    """What an Access-Request asks."""
    seen = Attributes(packet.attributes)
    chap = seen.raw(Type.CHAP_PASSWORD)
    challenge = seen.raw(Type.CHAP_CHALLENGE) or packet.authenticator
    return Question(
        user=seen.text(Type.USER_NAME),
        calling=number(seen.text(Type.CALLING_STATION_ID)),
        called=number(seen.text(Type.CALLED_STATION_ID) or seen.pair("xpgk-dst-number-in")),
        nas_address=seen.address(),
        nas_identifier=seen.text(Type.NAS_IDENTIFIER),
        remote_address=seen.voice(Voice.REMOTE_ADDRESS),
        session_id=seen.text(Type.ACCT_SESSION_ID),
        conference=conference(seen.voice(Voice.CONF_ID)),
        call_id=seen.pair("call-id") or seen.pair("h323-call-id"),
        password=seen.raw(Type.USER_PASSWORD),
        chap=None if chap is None else (chap, challenge),
        digest=read_digest(seen),
        eap=seen.raw(Type.EAP_MESSAGE) is not None,
    )


def read_report(packet: Packet) -> Report:
    """What an Accounting-Request reports; a status that is absent is 0."""
    seen = Attributes(packet.attributes)
    sip = seen.integer(Type.SERVICE_TYPE) == _SIP_SESSION
    origin = seen.voice(Voice.CALL_ORIGIN).lower()
    return Report(
        status=seen.integer(Type.ACCT_STATUS_TYPE) or 0,
        session_id=seen.text(Type.ACCT_SESSION_ID),
        user=seen.text(Type.USER_NAME),
        calling=number(seen.text(Type.CALLING_STATION_ID)),
        called=number(seen.text(Type.CALLED_STATION_ID) or seen.pair("xpgk-dst-number-in")),
        nas_address=seen.address(),
        nas_identifier=seen.text(Type.NAS_IDENTIFIER),
        remote_address=seen.voice(Voice.REMOTE_ADDRESS),
        origin=Origin(origin) if origin in {"answer", "originate"} else Origin.UNKNOWN,
        call_type=seen.voice(Voice.CALL_TYPE),
        conference=conference(seen.voice(Voice.CONF_ID)),
        incoming_conference=conference(
            seen.voice(Voice.INCOMING_CONF_ID) or seen.pair("h323-incoming-conf-id")
        ),
        call_id=seen.pair("call-id") or seen.pair("h323-call-id"),
        classes=tuple(seen.every(Type.CLASS)),
        seconds=seen.integer(Type.ACCT_SESSION_TIME),
        octets=_octets(seen),
        gigawords=_has_gigawords(seen),
        delay=seen.integer(Type.ACCT_DELAY_TIME) or 0,
        happened_at=_time(seen.integer(Type.EVENT_TIMESTAMP)),
        connected_ms=_connected_ms(seen),
        terminate_cause=seen.integer(Type.ACCT_TERMINATE_CAUSE),
        q850=_cause(seen.voice(Voice.DISCONNECT_CAUSE)),
        sip=sip,
        # Only of SIP accounting: the codes have belonged to others since (Error-Cause, EAP-Key-Name).
        sip_code=seen.integer(102) if sip else None,
        sip_tags=(seen.text(105), seen.text(104)) if sip else ("", ""),
    )


def _octets(seen: Attributes) -> int | None:
    """Both directions together, in octets (RFC 2869 sections 5.1 and 5.2); none if neither is told."""
    total, told = 0, False
    for low, high in (
        (Type.ACCT_INPUT_OCTETS, Type.ACCT_INPUT_GIGAWORDS),
        (Type.ACCT_OUTPUT_OCTETS, Type.ACCT_OUTPUT_GIGAWORDS),
    ):
        count = seen.integer(low)
        if count is not None:
            told = True
            total += count + (seen.integer(high) or 0) * _GIGAWORD
    return total if told else None


def _has_gigawords(seen: Attributes) -> bool:
    """Tell whether the NAS counts beyond 32 bits."""
    return (
        seen.raw(Type.ACCT_INPUT_GIGAWORDS) is not None
        or seen.raw(Type.ACCT_OUTPUT_GIGAWORDS) is not None
    )


def _time(seconds: int | None) -> datetime | None:
    """Seconds since 1970 (RFC 2869 section 5.3); 0 is what a clock says that was never set."""
    return datetime.fromtimestamp(seconds, UTC) if seconds else None


def _connected_ms(seen: Attributes) -> int | None:
    connect = gateway_time(seen.voice(Voice.CONNECT_TIME))
    disconnect = gateway_time(seen.voice(Voice.DISCONNECT_TIME))
    if connect is None or disconnect is None or disconnect < connect:
        return None
    return (disconnect - connect) // timedelta(milliseconds=1)


def _cause(written: str) -> int | None:
    """A Q.850 cause in hexadecimal, as the dictionaries say: ``10`` and ``0x10`` are 16."""
    digits = written.strip().lower().removeprefix("0x")
    value = int(digits, 16) if _HEXADECIMAL.fullmatch(digits) else 255
    return value if value <= 127 else None
