"""Credit-Control-Request and -Answer as bytes; the records and their reading: ``diameter_credit``."""

from __future__ import annotations

from typing import Final

from tollkeeper.wire.diameter import codes
from tollkeeper.wire.diameter.codec import (
    ERROR,
    PROXIABLE,
    REQUEST,
    RETRANSMITTED,
    Header,
    avp,
    avp_signed,
    avp_text,
    avp_time,
    avp_u32,
    avp_u64,
    encode,
    group,
)
from tollkeeper.wire.diameter.codes import Command
from tollkeeper.wire.diameter.credit import Control, CreditAnswer, CreditRequest, Money, Units
from tollkeeper.wire.diameter.service import NOTHING, ServiceInformation

_I64: Final = 2**63


def encode_request(
    record: CreditRequest, hop_by_hop: int, end_to_end: int, *, retransmitted: bool = False
) -> bytes:
    """Encode a CCR, as a client does. Of the Service-Information the addresses are written."""
    parts = [
        avp_text(codes.SESSION_ID, record.session_id),
        avp_text(codes.ORIGIN_HOST, record.origin_host),
        avp_text(codes.ORIGIN_REALM, record.origin_realm),
        avp_text(codes.DESTINATION_REALM, record.destination_realm),
        avp_u32(codes.AUTH_APPLICATION_ID, codes.CREDIT_CONTROL),
        avp_text(codes.SERVICE_CONTEXT_ID, record.context),
        avp_u32(codes.CC_REQUEST_TYPE, record.kind),
        avp_u32(codes.CC_REQUEST_NUMBER, record.number),
    ]
    if record.destination_host:
        parts.append(avp_text(codes.DESTINATION_HOST, record.destination_host))
    if record.user_name:
        parts.append(avp_text(codes.USER_NAME, record.user_name))
    parts += _number(codes.ORIGIN_STATE_ID, record.state_id)
    if record.event_at is not None:
        parts.append(avp_time(codes.EVENT_TIMESTAMP, record.event_at))
    parts += [
        group(
            codes.SUBSCRIPTION_ID,
            (avp_u32(codes.SUBSCRIPTION_ID_TYPE, kind), avp_text(codes.SUBSCRIPTION_ID_DATA, data)),
        )
        for kind, data in record.subscribers
    ]
    parts += _number(codes.SERVICE_IDENTIFIER, record.service)
    parts += _number(codes.TERMINATION_CAUSE, record.cause)
    parts += _units_out(codes.REQUESTED_SERVICE_UNIT, record.requested)
    parts += _number(codes.REQUESTED_ACTION, record.action)
    for used in record.used:
        parts += _units_out(codes.USED_SERVICE_UNIT, used)
    if record.multiple:
        parts.append(avp_u32(codes.MULTIPLE_SERVICES_INDICATOR, 1))
    parts += [_control_out(one) for one in record.controls]
    parts += _information_out(record.information)
    if record.called_station:
        parts.append(avp_text(codes.CALLED_STATION_ID, record.called_station))
    if record.correlation:
        parts.append(avp(codes.CC_CORRELATION_ID, record.correlation, mandatory=False))
    parts += [avp(codes.PROXY_INFO, one) for one in record.proxies]
    parts += [avp_text(codes.ROUTE_RECORD, one) for one in record.routes]
    return encode(
        flags=REQUEST | PROXIABLE | (RETRANSMITTED if retransmitted else 0),
        command=Command.CREDIT,
        application=codes.CREDIT_CONTROL,
        hop_by_hop=hop_by_hop,
        end_to_end=end_to_end,
        avps=b"".join(parts),
    )


def encode_credit_answer(record: CreditAnswer, header: Header) -> bytes:
    """Encode a CCA to the request with this header; protocol errors (3xxx) get the E flag."""
    parts = [
        avp_text(codes.SESSION_ID, record.session_id),
        avp_u32(codes.RESULT_CODE, record.result),
        avp_text(codes.ORIGIN_HOST, record.origin_host),
        avp_text(codes.ORIGIN_REALM, record.origin_realm),
        avp_u32(codes.AUTH_APPLICATION_ID, codes.CREDIT_CONTROL),
        avp_u32(codes.CC_REQUEST_TYPE, record.kind),
        avp_u32(codes.CC_REQUEST_NUMBER, record.number),
    ]
    parts += _number(codes.ORIGIN_STATE_ID, record.state_id)
    parts += [_control_out(one) for one in record.controls]
    parts += _units_out(codes.GRANTED_SERVICE_UNIT, record.granted)
    if record.cost is not None:
        parts.append(group(codes.COST_INFORMATION, _money_out(record.cost)))
    if record.final:
        parts.append(_FINAL)
    if record.balance_enough is not None:
        parts.append(avp_u32(codes.CHECK_BALANCE_RESULT, 0 if record.balance_enough else 1))
    parts += _number(codes.CC_FAILURE_HANDLING, record.failure_handling)
    parts += _number(codes.VALIDITY_TIME, record.validity)
    if record.error:
        parts.append(avp_text(codes.ERROR_MESSAGE, record.error, mandatory=False))
    parts += [avp(codes.PROXY_INFO, one) for one in record.proxies]
    parts += [avp(codes.FAILED_AVP, one) for one in record.failed]
    return encode(
        flags=(header.flags & PROXIABLE) | (ERROR if 3000 <= record.result < 4000 else 0),
        command=Command.CREDIT,
        application=codes.CREDIT_CONTROL,
        hop_by_hop=header.hop_by_hop,
        end_to_end=header.end_to_end,
        avps=b"".join(parts),
    )


_FINAL: Final = group(
    codes.FINAL_UNIT_INDICATION, (avp_u32(codes.FINAL_UNIT_ACTION, 0),)
)  # TERMINATE, with which nothing else may stand


def _number(key: int, number: int | None) -> list[bytes]:
    return [] if number is None else [avp_u32(key, number)]


def _control_out(control: Control) -> bytes:
    parts = _units_out(codes.GRANTED_SERVICE_UNIT, control.granted)
    parts += _units_out(codes.REQUESTED_SERVICE_UNIT, control.requested)
    for used in control.used:
        parts += _units_out(codes.USED_SERVICE_UNIT, used)
    parts += [avp_u32(codes.SERVICE_IDENTIFIER, one) for one in control.services]
    parts += _number(codes.RATING_GROUP, control.rating_group)
    parts += _number(codes.VALIDITY_TIME, control.validity)
    parts += _number(codes.RESULT_CODE, control.result)
    if control.final:
        parts.append(_FINAL)
    parts += _number(codes.REPORTING_REASON, control.reason)
    return group(codes.MULTIPLE_SERVICES_CREDIT_CONTROL, parts)


def _units_out(key: int, units: Units | None) -> list[bytes]:
    if units is None:
        return []
    parts = _number(codes.TARIFF_CHANGE_USAGE, units.tariff_change)
    parts += _number(codes.CC_TIME, units.time)
    if units.money is not None:
        parts.append(group(codes.CC_MONEY, _money_out(units.money)))
    if units.total is not None:
        parts.append(avp_u64(codes.CC_TOTAL_OCTETS, units.total))
    if units.input is not None:
        parts.append(avp_u64(codes.CC_INPUT_OCTETS, units.input))
    if units.output is not None:
        parts.append(avp_u64(codes.CC_OUTPUT_OCTETS, units.output))
    if units.specific is not None:
        parts.append(avp_u64(codes.CC_SERVICE_SPECIFIC_UNITS, units.specific))
    parts += _number(codes.REPORTING_REASON, units.reason)
    return [group(key, parts)]


def _money_out(money: Money) -> list[bytes]:
    """An amount as digits and exponent, exactly; beyond 64 bits the last decimals are left off."""
    sign, digits, exponent = money.amount.as_tuple()
    assert isinstance(exponent, int)
    value = int("".join(map(str, digits)) or "0")
    while value >= _I64:
        value, exponent = value // 10, exponent + 1
    value_out = group(
        codes.UNIT_VALUE,
        (
            avp_signed(codes.VALUE_DIGITS, -value if sign else value, 8),
            avp_signed(codes.EXPONENT, exponent, 4),
        ),
    )
    return [value_out, *_number(codes.CURRENCY_CODE, money.currency or None)]


def _information_out(information: ServiceInformation) -> list[bytes]:
    if information == NOTHING:
        return []
    ims = [
        avp_text(key, text)
        for key, text in (
            (codes.CALLING_PARTY_ADDRESS, information.calling),
            (codes.CALLED_PARTY_ADDRESS, information.called),
            (codes.REQUESTED_PARTY_ADDRESS, information.requested),
        )
        if text
    ]
    if information.trunk:
        trunk = avp_text(codes.INCOMING_TRUNK_GROUP_ID, information.trunk)
        ims.append(group(codes.TRUNK_GROUP_ID, (trunk,)))
    sms = [
        group(
            codes.RECIPIENT_INFO,
            (group(codes.RECIPIENT_ADDRESS, (avp_text(codes.ADDRESS_DATA, one),)),),
        )
        for one in information.recipients
    ]
    packets = [
        avp_text(key, text)
        for key, text in (
            (codes.CALLED_STATION_ID, information.access_point),
            (codes.SGSN_MCC_MNC, information.network),
        )
        if text
    ]
    groups = (
        (codes.PS_INFORMATION, packets), (codes.IMS_INFORMATION, ims), (codes.SMS_INFORMATION, sms),
    )  # fmt: skip
    return [group(codes.SERVICE_INFORMATION, [group(key, parts) for key, parts in groups if parts])]
