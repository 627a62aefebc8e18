"""Messages of Diameter itself (RFC 6733): capabilities, watchdog, disconnect, and those about a session.

A session's are the two that a credit-control server sends: Re-Auth (RFC 8506 section 5.5) asks for a
report before the grant is over, Abort-Session ends the service.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec

from tollkeeper.wire.diameter import codes
from tollkeeper.wire.diameter.codec import (
    ERROR,
    HEADER,
    IGNORED,
    MANY,
    ONE,
    PROXIABLE,
    REQUEST,
    MalformedDiameter,
    Schema,
    avp,
    avp_address,
    avp_text,
    avp_u32,
    decode_header,
    encode,
    gather,
    group,
    need_text,
    need_u32,
    read_addresses,
    read_text,
    read_u32,
    split,
    text_of,
)
from tollkeeper.wire.diameter.codes import Command, Leave, Result

SESSION_ID_MAX: Final = 512
"""Bytes of the longest Session-Id that is taken."""
PRODUCT: Final = "Tollkeeper"


class Capabilities(msgspec.Struct, frozen=True):
    """Who a peer is and what it speaks: a CER, and a CEA where ``result`` is not 0.

    ``vendor_applications`` are pairs of vendor and Auth-Application-Id.
    """

    origin_host: str
    origin_realm: str
    addresses: tuple[str, ...] = ()
    vendor_id: int = 0
    product: str = PRODUCT
    state_id: int | None = None
    vendors: tuple[int, ...] = ()
    auth_applications: tuple[int, ...] = ()
    acct_applications: tuple[int, ...] = ()
    vendor_applications: tuple[tuple[int, int], ...] = ()
    security: tuple[int, ...] = ()
    result: int = 0
    error: str = ""
    failed: tuple[bytes, ...] = ()

    @property
    def credit_control(self) -> bool:
        """Whether it speaks credit control, or relays whatever comes."""
        spoken = {*self.auth_applications, *(app for _, app in self.vendor_applications)}
        return bool(spoken & {codes.CREDIT_CONTROL, codes.RELAY}) or (
            codes.RELAY in self.acct_applications
        )


class Link(msgspec.Struct, frozen=True):
    """A DWR or, where ``cause`` is set, a DPR: about the connection only."""

    origin_host: str
    origin_realm: str
    state_id: int | None = None
    cause: int | None = None


class SessionRequest(msgspec.Struct, frozen=True):
    """A RAR or ASR, by ``command``. ``rating_group`` bounds a RAR to one service of the session."""

    command: int
    session_id: str
    origin_host: str
    origin_realm: str
    destination_realm: str
    destination_host: str
    rating_group: int | None = None
    state_id: int | None = None


class Answer(msgspec.Struct, frozen=True):
    """An answer without anything of its own: DWA, DPA, RAA, ASA, and every error.

    ``proxies`` are the data of Proxy-Info, ``failed`` encoded AVPs.
    """

    result: int
    origin_host: str
    origin_realm: str
    session_id: str = ""
    state_id: int | None = None
    error: str = ""
    failed: tuple[bytes, ...] = ()
    proxies: tuple[bytes, ...] = ()


def _schema(one: Iterable[int], many: Iterable[int] = (), ignored: Iterable[int] = ()) -> Schema:
    return dict.fromkeys(ignored, IGNORED) | dict.fromkeys(one, ONE) | dict.fromkeys(many, MANY)


_CAPABILITIES: Final = _schema(
    (
        codes.ORIGIN_HOST, codes.ORIGIN_REALM, codes.VENDOR_ID, codes.PRODUCT_NAME,
        codes.ORIGIN_STATE_ID, codes.RESULT_CODE, codes.ERROR_MESSAGE,
    ),
    (
        codes.HOST_IP_ADDRESS, codes.SUPPORTED_VENDOR_ID, codes.AUTH_APPLICATION_ID,
        codes.ACCT_APPLICATION_ID, codes.VENDOR_SPECIFIC_APPLICATION_ID,
        codes.INBAND_SECURITY_ID, codes.FAILED_AVP,
    ),
    (codes.FIRMWARE_REVISION,),
)  # fmt: skip
_VENDOR_APPLICATION: Final = _schema(
    (codes.AUTH_APPLICATION_ID, codes.ACCT_APPLICATION_ID), (codes.VENDOR_ID,)
)
_LINK: Final = _schema(
    (codes.ORIGIN_HOST, codes.ORIGIN_REALM, codes.ORIGIN_STATE_ID, codes.DISCONNECT_CAUSE)
)
_SESSION: Final = _schema(
    (
        codes.SESSION_ID, codes.ORIGIN_HOST, codes.ORIGIN_REALM, codes.DESTINATION_REALM,
        codes.DESTINATION_HOST, codes.AUTH_APPLICATION_ID, codes.RATING_GROUP,
        codes.ORIGIN_STATE_ID,
    ),
    (),
    (
        codes.RE_AUTH_REQUEST_TYPE, codes.USER_NAME, codes.PROXY_INFO, codes.ROUTE_RECORD,
        codes.CC_SUB_SESSION_ID, codes.SERVICE_IDENTIFIER, codes.G_S_U_POOL_IDENTIFIER,
    ),
)  # fmt: skip
_ANSWER_ONE: Final = (
    codes.RESULT_CODE, codes.ORIGIN_HOST, codes.ORIGIN_REALM, codes.SESSION_ID,
    codes.ORIGIN_STATE_ID, codes.ERROR_MESSAGE,
)  # fmt: skip


# --- reading ------------------------------------------------------------------------------------


def decode_capabilities(data: bytes) -> Capabilities:
    """Read a CER or CEA.

    Raises:
        MalformedDiameter: it is none.
    """
    found = gather(data, _CAPABILITIES, HEADER)
    return Capabilities(
        origin_host=need_text(found, codes.ORIGIN_HOST, longest=255),
        origin_realm=need_text(found, codes.ORIGIN_REALM, longest=255),
        addresses=read_addresses(found, codes.HOST_IP_ADDRESS),
        vendor_id=read_u32(found, codes.VENDOR_ID) or 0,
        product=read_text(found, codes.PRODUCT_NAME),
        state_id=read_u32(found, codes.ORIGIN_STATE_ID),
        vendors=_numbers(found.get(codes.SUPPORTED_VENDOR_ID, ())),
        auth_applications=_numbers(found.get(codes.AUTH_APPLICATION_ID, ())),
        acct_applications=_numbers(found.get(codes.ACCT_APPLICATION_ID, ())),
        vendor_applications=tuple(
            _vendor_application(one) for one in found.get(codes.VENDOR_SPECIFIC_APPLICATION_ID, ())
        ),
        security=_numbers(found.get(codes.INBAND_SECURITY_ID, ())),
        result=read_u32(found, codes.RESULT_CODE) or 0,
        error=read_text(found, codes.ERROR_MESSAGE),
        failed=tuple(found.get(codes.FAILED_AVP, ())),
    )


def _numbers(values: Iterable[bytes]) -> tuple[int, ...]:
    return tuple(int.from_bytes(value) for value in values if len(value) == 4)


def _vendor_application(data: bytes) -> tuple[int, int]:
    found = gather(data, _VENDOR_APPLICATION)
    vendors = _numbers(found.get(codes.VENDOR_ID, ()))
    application = read_u32(found, codes.AUTH_APPLICATION_ID)
    if application is None:
        # One for accounting only: none that could be spoken here.
        return (vendors[0] if vendors else 0), 0
    return (vendors[0] if vendors else 0), application


def decode_link(data: bytes) -> Link:
    """Read a DWR or DPR.

    Raises:
        MalformedDiameter: it is none.
    """
    found = gather(data, _LINK, HEADER)
    return Link(
        need_text(found, codes.ORIGIN_HOST, longest=255),
        need_text(found, codes.ORIGIN_REALM, longest=255),
        read_u32(found, codes.ORIGIN_STATE_ID),
        read_u32(found, codes.DISCONNECT_CAUSE),
    )


def decode_session_request(data: bytes) -> SessionRequest:
    """Read a RAR or ASR.

    Raises:
        MalformedDiameter: it is none.
    """
    found = gather(data, _SESSION, HEADER)
    return SessionRequest(
        command=decode_header(data).command,
        session_id=need_text(found, codes.SESSION_ID, longest=SESSION_ID_MAX),
        origin_host=need_text(found, codes.ORIGIN_HOST, longest=255),
        origin_realm=need_text(found, codes.ORIGIN_REALM, longest=255),
        destination_realm=need_text(found, codes.DESTINATION_REALM, longest=255),
        destination_host=need_text(found, codes.DESTINATION_HOST, longest=255),
        rating_group=read_u32(found, codes.RATING_GROUP),
        state_id=read_u32(found, codes.ORIGIN_STATE_ID),
    )


def decode_answer(data: bytes) -> Answer:
    """Read any answer for its result; what else stands in it is passed over, mandatory or not.

    Raises:
        MalformedDiameter: it has no result, or a length lies.
    """
    found: dict[int, list[bytes]] = {}
    for one in split(data, HEADER):
        if one.key in _ANSWER_ONE:
            found[one.key] = [one.data]
        elif one.key in {codes.FAILED_AVP, codes.PROXY_INFO}:
            found.setdefault(one.key, []).append(one.data)
    return Answer(
        result=need_u32(found, codes.RESULT_CODE),
        origin_host=read_text(found, codes.ORIGIN_HOST, longest=255),
        origin_realm=read_text(found, codes.ORIGIN_REALM, longest=255),
        session_id=read_text(found, codes.SESSION_ID, longest=SESSION_ID_MAX),
        state_id=read_u32(found, codes.ORIGIN_STATE_ID),
        error=read_text(found, codes.ERROR_MESSAGE),
        failed=tuple(found.get(codes.FAILED_AVP, ())),
        proxies=tuple(found.get(codes.PROXY_INFO, ())),
    )


def glance(data: bytes) -> Answer:
    """What an error answer repeats of a request that cannot be read: as much as there is of it."""
    session, proxies, host = "", [], ""
    try:
        for one in split(data, HEADER):
            if one.key == codes.SESSION_ID:
                session = text_of(one.key, one.data, longest=SESSION_ID_MAX)
            elif one.key == codes.ORIGIN_HOST:
                host = text_of(one.key, one.data, longest=255)
            elif one.key == codes.PROXY_INFO:
                proxies.append(one.data)
    except MalformedDiameter:
        # The rest is not readable; what came before it is.
        return Answer(0, host, "", session, proxies=tuple(proxies))
    return Answer(0, host, "", session, proxies=tuple(proxies))


# --- writing ------------------------------------------------------------------------------------


def encode_capabilities(record: Capabilities, hop_by_hop: int, end_to_end: int) -> bytes:
    """Encode a CER, or a CEA where there is a result."""
    parts = [] if not record.result else [avp_u32(codes.RESULT_CODE, record.result)]
    parts += [avp_text(codes.ORIGIN_HOST, record.origin_host)]
    parts += [avp_text(codes.ORIGIN_REALM, record.origin_realm)]
    parts += [avp_address(codes.HOST_IP_ADDRESS, one) for one in record.addresses]
    parts += [avp_u32(codes.VENDOR_ID, record.vendor_id)]
    parts += [avp_text(codes.PRODUCT_NAME, record.product, mandatory=False)]
    parts += _state(record.state_id)
    if record.error:
        parts += [avp_text(codes.ERROR_MESSAGE, record.error, mandatory=False)]
    parts += [avp(codes.FAILED_AVP, one) for one in record.failed]
    parts += [avp_u32(codes.SUPPORTED_VENDOR_ID, one) for one in record.vendors]
    parts += [avp_u32(codes.AUTH_APPLICATION_ID, one) for one in record.auth_applications]
    parts += [avp_u32(codes.INBAND_SECURITY_ID, one) for one in record.security]
    parts += [avp_u32(codes.ACCT_APPLICATION_ID, one) for one in record.acct_applications]
    parts += [
        group(
            codes.VENDOR_SPECIFIC_APPLICATION_ID,
            (
                avp_u32(codes.VENDOR_ID, vendor),
                avp_u32(codes.AUTH_APPLICATION_ID, application),
            ),
        )
        for vendor, application in record.vendor_applications
    ]
    return _base(
        Command.CAPABILITIES,
        _answer_flags(record.result) if record.result else REQUEST,
        hop_by_hop,
        end_to_end,
        parts,
    )


def encode_link(record: Link, hop_by_hop: int, end_to_end: int) -> bytes:
    """Encode a DWR, or a DPR where there is a cause."""
    parts = [
        avp_text(codes.ORIGIN_HOST, record.origin_host),
        avp_text(codes.ORIGIN_REALM, record.origin_realm),
    ]
    if record.cause is not None:
        parts.append(avp_u32(codes.DISCONNECT_CAUSE, record.cause))
        return _base(Command.DISCONNECT, REQUEST, hop_by_hop, end_to_end, parts)
    return _base(Command.WATCHDOG, REQUEST, hop_by_hop, end_to_end, parts + _state(record.state_id))


def encode_session_request(record: SessionRequest, hop_by_hop: int, end_to_end: int) -> bytes:
    """Encode a RAR or ASR."""
    parts = [
        avp_text(codes.SESSION_ID, record.session_id),
        avp_text(codes.ORIGIN_HOST, record.origin_host),
        avp_text(codes.ORIGIN_REALM, record.origin_realm),
        avp_text(codes.DESTINATION_REALM, record.destination_realm),
        avp_text(codes.DESTINATION_HOST, record.destination_host),
        avp_u32(codes.AUTH_APPLICATION_ID, codes.CREDIT_CONTROL),
    ]
    if record.command == Command.RE_AUTH:
        parts.append(avp_u32(codes.RE_AUTH_REQUEST_TYPE, 0))
        if record.rating_group is not None:
            parts.append(avp_u32(codes.RATING_GROUP, record.rating_group))
    parts += _state(record.state_id)
    return encode(
        flags=REQUEST | PROXIABLE,
        command=record.command,
        application=codes.CREDIT_CONTROL,
        hop_by_hop=hop_by_hop,
        end_to_end=end_to_end,
        avps=b"".join(parts),
    )


def encode_answer(
    record: Answer,
    *,
    command: int,
    application: int,
    hop_by_hop: int,
    end_to_end: int,
    proxiable: bool = False,
) -> bytes:
    """Encode an answer; protocol errors (3xxx) get the E flag."""
    parts = [] if not record.session_id else [avp_text(codes.SESSION_ID, record.session_id)]
    parts += [
        avp_u32(codes.RESULT_CODE, record.result),
        avp_text(codes.ORIGIN_HOST, record.origin_host),
        avp_text(codes.ORIGIN_REALM, record.origin_realm),
        *_state(record.state_id),
    ]
    if record.error:
        parts.append(avp_text(codes.ERROR_MESSAGE, record.error, mandatory=False))
    parts += [avp(codes.FAILED_AVP, one) for one in record.failed]
    parts += [avp(codes.PROXY_INFO, one) for one in record.proxies]
    return encode(
        flags=_answer_flags(record.result) | (PROXIABLE if proxiable else 0),
        command=command,
        application=application,
        hop_by_hop=hop_by_hop,
        end_to_end=end_to_end,
        avps=b"".join(parts),
    )


def leaving(cause: int) -> str:
    """What a Disconnect-Cause says, for the log."""
    return Leave(cause).name.lower() if cause in set(Leave) else f"cause {cause}"


def _answer_flags(result: int) -> int:
    return ERROR if 3000 <= result < 4000 else 0


def _state(state_id: int | None) -> list[bytes]:
    return [] if state_id is None else [avp_u32(codes.ORIGIN_STATE_ID, state_id)]


def _base(command: int, flags: int, hop_by_hop: int, end_to_end: int, parts: list[bytes]) -> bytes:
    return encode(
        flags=flags,
        command=command,
        application=0,
        hop_by_hop=hop_by_hop,
        end_to_end=end_to_end,
        avps=b"".join(parts),
    )


SUCCEEDED: Final = frozenset({Result.SUCCESS, Result.LIMITED_SUCCESS})
"""Results that mean that a peer did or will do what was asked."""
