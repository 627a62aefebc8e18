"""Credit-Control-Request and -Answer (RFC 8506, 3GPP TS 32.299) as records, both ways.

Used units are what was used since the last report; who turns them into totals is the server.
Times are whole seconds, volumes octets, money Decimal in the currency of its ISO 4217 number.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from decimal import Decimal
from typing import Final

import msgspec

from tollkeeper.wire.diameter import codes
from tollkeeper.wire.diameter.base import SESSION_ID_MAX
from tollkeeper.wire.diameter.codec import (
    HEADER,
    IGNORED,
    MANY,
    ONE,
    Group,
    MalformedDiameter,
    Schema,
    avp,
    avp_u32,
    gather,
    missing,
    need_text,
    need_u32,
    read_signed,
    read_text,
    read_time,
    read_u32,
    read_u64,
    text_of,
)
from tollkeeper.wire.diameter.codes import Action, FailureHandling, Kind, Result
from tollkeeper.wire.diameter.service import NOTHING, ServiceInformation, read_service_information

CONTROLS_MAX: Final = 32
"""Multiple-Services-Credit-Controls of one request: each is a session of its own here."""
_EXPONENT_MAX: Final = 18


class Money(msgspec.Struct, frozen=True, gc=False):
    """CC-Money or Cost-Information; ``currency`` is the number of ISO 4217, 0 where none was given."""

    amount: Decimal
    currency: int = 0


class Units(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """One Requested-, Used- or Granted-Service-Unit; None is what was not in it.

    ``tariff_change`` is the Tariff-Change-Usage of what was used: before it 0, after it 1, unknown 2;
    ``reason`` the Reporting-Reason.
    """

    time: int | None = None
    total: int | None = None
    input: int | None = None
    output: int | None = None
    specific: int | None = None
    money: Money | None = None
    tariff_change: int | None = None
    reason: int | None = None

    @property
    def octets(self) -> int | None:
        """The volume: the total, or what went in and out together; None where there is none."""
        if self.total is not None or (self.input is None and self.output is None):
            return self.total
        return (self.input or 0) + (self.output or 0)


class Control(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """One Multiple-Services-Credit-Control: a service of the session, asked for or answered.

    ``requested`` is there and empty where the client leaves the amount to us; ``reason`` is the
    Reporting-Reason.
    """

    rating_group: int | None = None
    services: tuple[int, ...] = ()
    requested: Units | None = None
    used: tuple[Units, ...] = ()
    granted: Units | None = None
    validity: int | None = None
    result: int | None = None
    final: bool = False
    reason: int | None = None


class CreditRequest(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """A CCR. ``subscribers`` are (Subscription-Id-Type, data), ``proxies`` the data of Proxy-Info.

    Raises nothing by itself: :func:`decode_request` has checked what must be there.
    """

    session_id: str
    origin_host: str
    origin_realm: str
    destination_realm: str
    context: str
    kind: Kind
    number: int
    destination_host: str = ""
    user_name: str = ""
    action: Action | None = None
    subscribers: tuple[tuple[int, str], ...] = ()
    multiple: bool = False
    controls: tuple[Control, ...] = ()
    requested: Units | None = None
    used: tuple[Units, ...] = ()
    service: int | None = None
    event_at: datetime | None = None
    cause: int | None = None
    state_id: int | None = None
    information: ServiceInformation = NOTHING
    called_station: str = ""
    correlation: bytes = b""
    proxies: tuple[bytes, ...] = ()
    routes: tuple[str, ...] = ()


class CreditAnswer(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """A CCA. Where ``controls`` is empty, ``granted``, ``validity`` and ``final`` are the session's.

    ``balance_enough`` answers a CHECK_BALANCE, ``cost`` a PRICE_ENQUIRY; ``failed`` are encoded AVPs.
    """

    session_id: str
    result: int
    origin_host: str
    origin_realm: str
    kind: int
    number: int
    controls: tuple[Control, ...] = ()
    granted: Units | None = None
    validity: int | None = None
    final: bool = False
    cost: Money | None = None
    balance_enough: bool | None = None
    failure_handling: FailureHandling | None = None
    state_id: int | None = None
    error: str = ""
    failed: tuple[bytes, ...] = ()
    proxies: tuple[bytes, ...] = ()


# --- what may stand where -----------------------------------------------------------------------


def _schema(one: Iterable[int], many: Iterable[int] = (), ignored: Iterable[int] = ()) -> Schema:
    return dict.fromkeys(ignored, IGNORED) | dict.fromkeys(one, ONE) | dict.fromkeys(many, MANY)


_REQUEST: Final = _schema(
    (
        codes.SESSION_ID, codes.ORIGIN_HOST, codes.ORIGIN_REALM, codes.DESTINATION_REALM,
        codes.AUTH_APPLICATION_ID, codes.SERVICE_CONTEXT_ID, codes.CC_REQUEST_TYPE,
        codes.CC_REQUEST_NUMBER, codes.DESTINATION_HOST, codes.USER_NAME, codes.REQUESTED_ACTION,
        codes.MULTIPLE_SERVICES_INDICATOR, codes.REQUESTED_SERVICE_UNIT,
        codes.SERVICE_IDENTIFIER, codes.EVENT_TIMESTAMP, codes.TERMINATION_CAUSE,
        codes.ORIGIN_STATE_ID, codes.SERVICE_INFORMATION, codes.CALLED_STATION_ID, codes.CC_CORRELATION_ID,
    ),
    (
        codes.SUBSCRIPTION_ID, codes.MULTIPLE_SERVICES_CREDIT_CONTROL, codes.USED_SERVICE_UNIT,
        codes.PROXY_INFO, codes.ROUTE_RECORD,
    ),
    (
        codes.CC_SUB_SESSION_ID,
        codes.SERVICE_PARAMETER_INFO, codes.USER_EQUIPMENT_INFO,
        codes.USER_EQUIPMENT_INFO_EXTENSION, codes.SUBSCRIPTION_ID_EXTENSION,
        *codes.OTHER_BASE, *codes.OTHER_CREDIT,
    ),
)  # fmt: skip
_ANSWER: Final = _schema(
    (
        codes.SESSION_ID, codes.RESULT_CODE, codes.ORIGIN_HOST, codes.ORIGIN_REALM,
        codes.CC_REQUEST_TYPE, codes.CC_REQUEST_NUMBER, codes.GRANTED_SERVICE_UNIT,
        codes.VALIDITY_TIME, codes.FINAL_UNIT_INDICATION, codes.COST_INFORMATION,
        codes.CHECK_BALANCE_RESULT, codes.CC_FAILURE_HANDLING, codes.ORIGIN_STATE_ID,
        codes.ERROR_MESSAGE,
    ),
    (codes.MULTIPLE_SERVICES_CREDIT_CONTROL, codes.FAILED_AVP, codes.PROXY_INFO),
    (
        codes.AUTH_APPLICATION_ID, codes.CC_SESSION_FAILOVER, codes.ROUTE_RECORD,
        codes.DIRECT_DEBITING_FAILURE_HANDLING, codes.ERROR_REPORTING_HOST, codes.EVENT_TIMESTAMP,
    ),
)  # fmt: skip
_CONTROL: Final = _schema(
    (
        codes.RATING_GROUP, codes.REQUESTED_SERVICE_UNIT, codes.GRANTED_SERVICE_UNIT,
        codes.VALIDITY_TIME, codes.RESULT_CODE, codes.FINAL_UNIT_INDICATION,
    ),
    (codes.SERVICE_IDENTIFIER, codes.USED_SERVICE_UNIT, codes.REPORTING_REASON),
    (codes.TARIFF_CHANGE_USAGE, codes.G_S_U_POOL_REFERENCE, *codes.OTHER_CONTROL),
)  # fmt: skip
_UNITS: Final = _schema(
    (
        codes.CC_TIME, codes.CC_TOTAL_OCTETS, codes.CC_INPUT_OCTETS, codes.CC_OUTPUT_OCTETS,
        codes.CC_SERVICE_SPECIFIC_UNITS, codes.CC_MONEY, codes.TARIFF_CHANGE_USAGE,
    ),
    (codes.REPORTING_REASON,),
    (codes.TARIFF_TIME_CHANGE, *codes.OTHER_UNITS),
)  # fmt: skip
_MONEY: Final = _schema((codes.UNIT_VALUE, codes.CURRENCY_CODE), (), (codes.COST_UNIT,))
_UNIT_VALUE: Final = _schema((codes.VALUE_DIGITS, codes.EXPONENT))
_SUBSCRIPTION: Final = _schema((codes.SUBSCRIPTION_ID_TYPE, codes.SUBSCRIPTION_ID_DATA))


# --- reading ------------------------------------------------------------------------------------


def decode_request(data: bytes) -> CreditRequest:
    """Read a CCR from its whole message.

    Raises:
        MalformedDiameter: what must be there is not (5005), what is there is not known (5001), comes too
            often (5009), has another length (5014) or a value that has no meaning (5004).
    """
    found = gather(data, _REQUEST, HEADER)
    number = need_u32(found, codes.CC_REQUEST_NUMBER)
    kind = _kind(need_u32(found, codes.CC_REQUEST_TYPE))
    # Kamailio leaves it out; the header names the application, too.
    if read_u32(found, codes.AUTH_APPLICATION_ID) not in {None, codes.CREDIT_CONTROL}:
        raise _senseless(codes.AUTH_APPLICATION_ID, found)
    controls = found.get(codes.MULTIPLE_SERVICES_CREDIT_CONTROL, ())
    if len(controls) > CONTROLS_MAX:
        raise MalformedDiameter(
            f"{len(controls)} services in one request are more than {CONTROLS_MAX}",
            result=Result.AVP_OCCURS_TOO_MANY_TIMES,
            failed=avp(codes.MULTIPLE_SERVICES_CREDIT_CONTROL, b""),
        )
    information = found.get(codes.SERVICE_INFORMATION)
    return CreditRequest(
        session_id=need_text(found, codes.SESSION_ID, longest=SESSION_ID_MAX),
        origin_host=need_text(found, codes.ORIGIN_HOST, longest=255),
        origin_realm=need_text(found, codes.ORIGIN_REALM, longest=255),
        destination_realm=need_text(found, codes.DESTINATION_REALM, longest=255),
        destination_host=read_text(found, codes.DESTINATION_HOST, longest=255),
        context=need_text(found, codes.SERVICE_CONTEXT_ID),
        kind=kind,
        number=number,
        user_name=read_text(found, codes.USER_NAME),
        action=_action(found, kind),
        subscribers=tuple(_subscriber(one) for one in found.get(codes.SUBSCRIPTION_ID, ())),
        multiple=read_u32(found, codes.MULTIPLE_SERVICES_INDICATOR) == 1,
        controls=tuple(_control(one) for one in controls),
        requested=_units_in(found, codes.REQUESTED_SERVICE_UNIT),
        used=tuple(_units(one) for one in found.get(codes.USED_SERVICE_UNIT, ())),
        service=read_u32(found, codes.SERVICE_IDENTIFIER),
        event_at=read_time(found, codes.EVENT_TIMESTAMP),
        cause=read_u32(found, codes.TERMINATION_CAUSE),
        state_id=read_u32(found, codes.ORIGIN_STATE_ID),
        information=read_service_information(information[0]) if information else NOTHING,
        called_station=read_text(found, codes.CALLED_STATION_ID),
        correlation=found.get(codes.CC_CORRELATION_ID, (b"",))[0][:256],
        proxies=tuple(found.get(codes.PROXY_INFO, ())),
        routes=tuple(
            text_of(codes.ROUTE_RECORD, one, longest=255)
            for one in found.get(codes.ROUTE_RECORD, ())
        ),
    )


def decode_credit_answer(data: bytes) -> CreditAnswer:
    """Read a CCA from its whole message.

    Raises:
        MalformedDiameter: it is none.
    """
    found = gather(data, _ANSWER, HEADER)
    handling = read_u32(found, codes.CC_FAILURE_HANDLING)
    enough = read_u32(found, codes.CHECK_BALANCE_RESULT)
    cost = found.get(codes.COST_INFORMATION)
    return CreditAnswer(
        session_id=read_text(found, codes.SESSION_ID, longest=SESSION_ID_MAX),
        result=need_u32(found, codes.RESULT_CODE),
        origin_host=need_text(found, codes.ORIGIN_HOST, longest=255),
        origin_realm=need_text(found, codes.ORIGIN_REALM, longest=255),
        kind=read_u32(found, codes.CC_REQUEST_TYPE) or 0,
        number=read_u32(found, codes.CC_REQUEST_NUMBER) or 0,
        controls=tuple(
            _control(one) for one in found.get(codes.MULTIPLE_SERVICES_CREDIT_CONTROL, ())
        ),
        granted=_units_in(found, codes.GRANTED_SERVICE_UNIT),
        validity=read_u32(found, codes.VALIDITY_TIME),
        final=codes.FINAL_UNIT_INDICATION in found,
        cost=_money(cost[0]) if cost else None,
        balance_enough=None if enough is None else enough == 0,
        failure_handling=None
        if handling not in set(FailureHandling)
        else FailureHandling(handling),
        state_id=read_u32(found, codes.ORIGIN_STATE_ID),
        error=read_text(found, codes.ERROR_MESSAGE),
        failed=tuple(found.get(codes.FAILED_AVP, ())),
        proxies=tuple(found.get(codes.PROXY_INFO, ())),
    )


def _senseless(key: int, found: Group) -> MalformedDiameter:
    return MalformedDiameter(
        f"AVP {key} has a value that means nothing here",
        result=Result.INVALID_AVP_VALUE,
        failed=avp(key, found[key][0][:256]),
    )


def _kind(number: int) -> Kind:
    if not 1 <= number <= 4:
        raise MalformedDiameter(
            f"CC-Request-Type {number} is none of 1 to 4",
            result=Result.INVALID_AVP_VALUE,
            failed=avp_u32(codes.CC_REQUEST_TYPE, number),
        )
    return Kind(number)


def _action(found: Group, kind: Kind) -> Action | None:
    """What an event asks for; it must say so, a session need not."""
    action = read_u32(found, codes.REQUESTED_ACTION)
    if action is None:
        if kind is Kind.EVENT:
            raise missing(codes.REQUESTED_ACTION, b"\0\0\0\0")
        return None
    if action > 3:
        raise _senseless(codes.REQUESTED_ACTION, found)
    return Action(action)


def _subscriber(data: bytes) -> tuple[int, str]:
    found = gather(data, _SUBSCRIPTION)
    return (
        need_u32(found, codes.SUBSCRIPTION_ID_TYPE),
        need_text(found, codes.SUBSCRIPTION_ID_DATA),
    )


def _control(data: bytes) -> Control:
    found = gather(data, _CONTROL)
    services = found.get(codes.SERVICE_IDENTIFIER, ())
    for one in services:
        if len(one) != 4:
            raise _senseless(codes.SERVICE_IDENTIFIER, {codes.SERVICE_IDENTIFIER: [one]})
    return Control(
        rating_group=read_u32(found, codes.RATING_GROUP),
        services=tuple(int.from_bytes(one) for one in services),
        requested=_units_in(found, codes.REQUESTED_SERVICE_UNIT),
        used=tuple(_units(one) for one in found.get(codes.USED_SERVICE_UNIT, ())),
        granted=_units_in(found, codes.GRANTED_SERVICE_UNIT),
        validity=read_u32(found, codes.VALIDITY_TIME),
        result=read_u32(found, codes.RESULT_CODE),
        final=codes.FINAL_UNIT_INDICATION in found,
        reason=read_u32(found, codes.REPORTING_REASON),
    )


def _units_in(found: Group, key: int) -> Units | None:
    values = found.get(key)
    return None if values is None else _units(values[0])


def _units(data: bytes) -> Units:
    if not data:
        return _EMPTY
    found = gather(data, _UNITS)
    money = found.get(codes.CC_MONEY)
    return Units(
        time=read_u32(found, codes.CC_TIME),
        total=read_u64(found, codes.CC_TOTAL_OCTETS),
        input=read_u64(found, codes.CC_INPUT_OCTETS),
        output=read_u64(found, codes.CC_OUTPUT_OCTETS),
        specific=read_u64(found, codes.CC_SERVICE_SPECIFIC_UNITS),
        money=_money(money[0]) if money else None,
        tariff_change=read_u32(found, codes.TARIFF_CHANGE_USAGE),
        reason=read_u32(found, codes.REPORTING_REASON),
    )


_EMPTY: Final = Units()


def _money(data: bytes) -> Money:
    found = gather(data, _MONEY)
    value = found.get(codes.UNIT_VALUE)
    if value is None:
        raise missing(codes.UNIT_VALUE, b"")
    parts = gather(value[0], _UNIT_VALUE)
    digits = read_signed(parts, codes.VALUE_DIGITS, 8)
    if digits is None:
        raise missing(codes.VALUE_DIGITS, bytes(8))
    exponent = read_signed(parts, codes.EXPONENT, 4) or 0
    if abs(exponent) > _EXPONENT_MAX:
        raise _senseless(codes.EXPONENT, parts)
    return Money(Decimal(digits).scaleb(exponent), read_u32(found, codes.CURRENCY_CODE) or 0)
