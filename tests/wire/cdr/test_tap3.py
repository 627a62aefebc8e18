"""TAP 3: files encoded by the same schema, written with other lengths, cut and padded."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from tests.wire.cdr.shared import items, skips, sure, us, usages
from tollkeeper.core.usage import Refused, Usage
from tollkeeper.errors import InvalidInput
from tollkeeper.wire.cdr import ber, tap3
from tollkeeper.wire.cdr.ber import element
from tollkeeper.wire.cdr.tap3 import FORMAT


def encode(name: str, value: Any) -> bytes:
    schema, _ = tap3._schema()
    encoded: bytes = schema.encode(name, value)
    return encoded


def charges(*amounts: int, kind: bytes = b"00") -> list[dict[str, Any]]:
    return [{"chargeDetailList": [{"chargeType": kind, "charge": amount}]} for amount in amounts]


def services(code: bytes = b"11", amounts: tuple[int, ...] = (12_345,)) -> list[dict[str, Any]]:
    service = {"serviceCode": ("teleServiceCode", code)}
    return [{"basicService": service, "chargeInformationList": charges(*amounts)}]


SUBSCRIBER = (
    "simChargeableSubscriber",
    {"imsi": bytes.fromhex("222012345678901f"), "msisdn": bytes.fromhex("39333123456f")},
)
STAMP = {"localTimeStamp": b"20260302120000", "utcTimeOffsetCode": 1}


def originated(**changes: Any) -> bytes:
    basic = {
        "chargeableSubscriber": SUBSCRIBER,
        "destination": {"calledNumber": bytes.fromhex("4420123456")},
        "callEventStartTimeStamp": STAMP,
        "totalCallEventDuration": 61,
        "causeForTerm": 0,
    }
    call = {
        "basicCallInformation": basic | changes,
        "locationInformation": {"networkLocation": {"callReference": b"\x01\x02\xab"}},
        "basicServiceUsedList": services(),
    }
    return encode("CallEventDetail", ("mobileOriginatedCall", call))


def terminated() -> bytes:
    basic = {
        "chargeableSubscriber": SUBSCRIBER,
        "callOriginator": {"callingNumber": bytes.fromhex("442099")},
        "callEventStartTimeStamp": {"localTimeStamp": b"20260302120000", "utcTimeOffsetCode": 2},
        "totalCallEventDuration": 5,
    }
    return encode("CallEventDetail", ("mobileTerminatedCall", {"basicCallInformation": basic}))


def gprs() -> bytes:
    basic = {
        "gprsChargeableSubscriber": {"chargeableSubscriber": SUBSCRIBER},
        "gprsDestination": {"accessPointNameNI": b"internet"},
        "callEventStartTimeStamp": STAMP,
        "totalCallEventDuration": 3_600,
        "chargingId": 255,
    }
    used = {"dataVolumeIncoming": 10, "chargeInformationList": charges(5, 7)}
    return encode(
        "CallEventDetail",
        ("gprsCall", {"gprsBasicCallInformation": basic, "gprsServiceUsed": used}),
    )


def batch(*events: bytes, places: int | None = 3, offsets: bool = True) -> bytes:
    control = {"sender": b"ITAXX", "recipient": b"GBRYY", "releaseVersionNumber": 12}
    accounting = {"localCurrency": b"EUR"} | (
        {} if places is None else {"tapDecimalPlaces": places}
    )
    table = [
        {"utcTimeOffsetCode": 1, "utcTimeOffset": b"+0100"},
        {"utcTimeOffsetCode": 2, "utcTimeOffset": b"-0330"},
    ]
    content = encode("BatchControlInfo", control) + encode("AccountingInfo", accounting)
    if offsets:
        content += encode("NetworkInfo", {"utcTimeOffsetInfo": table})
    content += element(b"\x63", b"".join(events))
    # The audit information behind the records ([APPLICATION 15]) is none of ours.
    return element(b"\x61", content + element(b"\x6f", b"\x5f\x2b\x01\x01"))


def indefinite(data: bytes) -> bytes:
    """Write each constructed element with an indefinite length."""
    source = ber.Source(ber._Bytes(data))  # type: ignore[arg-type]
    parts = []
    while source.peek():
        head = ber.read_head(source)
        content = ber.read_content(source, head)
        assert content is not None
        if head.constructed:
            parts.append(head.raw + b"\x80" + indefinite(content) + b"\0\0")
        else:
            parts.append(element(head.raw, content))
    return b"".join(parts)


MO = Usage(
    line=1,
    call_id="0102ab",
    leg="mo",
    start=us(2026, 3, 2, 11),
    duration_ms=61_000,
    caller="39333123456",
    called="4420123456",
    answer=us(2026, 3, 2, 11),
    end=us(2026, 3, 2, 11, 1, 1),
    trunk_in="ITAXX",
    account="222012345678901",
    price=Decimal("12.345"),
    currency="EUR",
)
MT = Usage(
    line=2,
    call_id="222012345678901:442099",
    leg="mt",
    start=us(2026, 3, 2, 15, 30),
    duration_ms=5_000,
    caller="442099",
    called="39333123456",
    answer=us(2026, 3, 2, 15, 30),
    end=us(2026, 3, 2, 15, 30, 5),
    trunk_in="ITAXX",
    account="222012345678901",
)
DATA = Usage(
    line=3,
    call_id="000000ff",
    leg="gprs",
    start=us(2026, 3, 2, 11),
    duration_ms=3_600_000,
    caller="39333123456",
    answer=us(2026, 3, 2, 11),
    end=us(2026, 3, 2, 12),
    trunk_in="ITAXX",
    account="222012345678901",
    trunk_out="internet",
    service="data",
    price=Decimal("0.012"),
    currency="EUR",
)


def test_calls_and_sessions_with_their_offsets_and_charges() -> None:
    data = batch(originated(), terminated(), gprs())
    assert items(FORMAT, data) == [MO, MT, DATA]
    assert sure(FORMAT, data) > 90


def test_a_record_put_together_from_the_tag_numbers_of_td57() -> None:
    """Independent of the schema: MO call 9, basic information 147, subscriber 427/199, and so on."""
    subscriber = element(
        b"\x7f\x83\x2b",
        element(
            b"\x7f\x81\x47",
            element(b"\x5f\x81\x01", SUBSCRIBER[1]["imsi"])
            + element(b"\x5f\x81\x18", SUBSCRIBER[1]["msisdn"]),
        ),
    )
    there = element(b"\x7f\x59", element(b"\x5f\x83\x17", bytes.fromhex("4420123456")))
    stamp = element(
        b"\x7f\x2c", element(b"\x50", b"20260302120000") + element(b"\x5f\x81\x68", b"\x01")
    )
    duration = element(b"\x5f\x81\x5f", b"\x3d") + element(b"\x5f\x3a", b"\0")
    basic = element(b"\x7f\x81\x13", subscriber + there + stamp + duration)
    place = element(b"\x7f\x81\x0a", element(b"\x7f\x81\x1c", b"\x5f\x2d\x03\x01\x02\xab"))
    charge = element(b"\x7f\x3f", b"\x5f\x47\x0200" + element(b"\x5f\x3e", b"\x30\x39"))
    charged = element(b"\x7f\x46", element(b"\x7f\x45", element(b"\x7f\x40", charge)))
    code = element(b"\x7f\x24", element(b"\x7f\x83\x2a", b"\x5f\x81\x5a\x0211"))
    used = element(b"\x7f\x26", element(b"\x7f\x27", code + charged))
    assert items(FORMAT, batch(element(b"\x69", basic + place + used))) == [MO]


def test_the_same_file_with_indefinite_lengths() -> None:
    assert items(FORMAT, indefinite(batch(originated(), terminated(), gprs()))) == [MO, MT, DATA]


def test_only_the_records_or_only_the_frame_with_indefinite_lengths() -> None:
    assert items(FORMAT, batch(indefinite(originated()), indefinite(terminated()))) == [MO, MT]
    whole = batch(originated(), terminated())
    source = ber.Source(ber._Bytes(whole))  # type: ignore[arg-type]
    content = ber.read_content(source, ber.read_head(source))
    assert content is not None
    assert items(FORMAT, b"\x61\x80" + content + b"\0\0") == [MO, MT]


@pytest.mark.parametrize("filler", [b"\0" * 2_000, b"\xff" * 100, b"  \r\n", b"\n\x1a"])
def test_filler_behind_and_before_a_batch_is_nothing(filler: bytes) -> None:
    assert items(FORMAT, filler + batch(originated()) + filler) == [MO]


def test_a_second_batch_goes_on_counting() -> None:
    found = usages(FORMAT, batch(originated()) + b"\0" + batch(terminated()))
    assert [call.line for call in found] == [1, 2]


def test_other_bytes_behind_a_batch_are_refused_once() -> None:
    call, refusal = items(FORMAT, batch(originated()) + b"EOF")
    assert call == MO
    assert isinstance(refusal, Refused)
    assert "cannot be read further" in refusal.reason


def test_elements_that_no_schema_names_are_passed_over() -> None:
    """An extension inside of the basic information, and one beside it."""
    unknown = element(b"\x7f\x87\x68", element(b"\x5f\x87\x69", b"new"))
    source = ber.Source(ber._Bytes(originated()))  # type: ignore[arg-type]
    head = ber.read_head(source)
    content = ber.read_content(source, head)
    assert content is not None
    assert items(FORMAT, batch(element(head.raw, unknown + content + unknown))) == [MO]


def test_a_message_goes_to_its_recipient() -> None:
    call = {
        "basicCallInformation": {
            "chargeableSubscriber": SUBSCRIBER,
            "destination": {
                "calledNumber": bytes.fromhex("39999f"),
                "sMSDestinationNumber": b"44777",
            },
            "callEventStartTimeStamp": STAMP,
            "totalCallEventDuration": 0,
        },
        "basicServiceUsedList": services(b"22", (10, 20)),
    }
    event = encode("CallEventDetail", ("mobileOriginatedCall", call))
    (message,) = usages(FORMAT, batch(event))
    assert (message.service, message.called) == ("sms", "44777")
    assert message.price == Decimal("0.030")


def test_an_unsuccessful_call_was_not_answered() -> None:
    (call,) = usages(FORMAT, batch(originated(causeForTerm=3, totalCallEventDuration=0)))
    assert (call.answer, call.duration_ms) == (None, 0)


@pytest.mark.parametrize(
    ("data", "field"),
    [
        (batch(originated(), places=None), "charge"),
        (batch(originated(), offsets=False), "utcTimeOffsetCode"),
        (
            batch(originated(callEventStartTimeStamp={**STAMP, "utcTimeOffsetCode": 9})),
            "utcTimeOffsetCode",
        ),
        (
            batch(originated(callEventStartTimeStamp={**STAMP, "localTimeStamp": b"2026"})),
            "callEventStartTimeStamp",
        ),
        (batch(originated(totalCallEventDuration=-1)), "totalCallEventDuration"),
        (batch(originated(totalCallEventDuration=2**70)), "totalCallEventDuration"),
        (batch(originated(destination={"calledNumber": b"\xf1\x23"})), "calledNumber"),
        (batch(element(b"\x69", b"\x7f\x81\x13\x05\x01")), "record"),
    ],
)
def test_a_doubtful_record_is_refused(data: bytes, field: str) -> None:
    (refusal,) = items(FORMAT, data)
    assert isinstance(refusal, Refused)
    assert (refusal.line, refusal.field) == (1, field)


def test_other_events_are_refused_only_when_they_cost_something() -> None:
    def event(charge: bytes) -> bytes:
        detail = element(b"\x7f\x3f", element(b"\x5f\x3e", charge))
        return element(b"\x6b", element(b"\x7f\x81\x4e", detail))

    (skip,) = skips(FORMAT, batch(event(b"\0")))
    assert "supplementary service" in skip.why
    (refusal,) = items(FORMAT, batch(event(b"\x01")))
    assert isinstance(refusal, Refused)
    assert "charge it by hand" in refusal.reason


def test_a_notification_has_nothing_to_charge() -> None:
    (skip,) = skips(FORMAT, element(b"\x62", b"\x5f\x81\x44\x05ITAXX"))
    assert "notification" in skip.why


def test_a_file_cut_anywhere_gives_its_whole_records_and_one_refusal() -> None:
    data = batch(originated(), originated())
    for end in range(2, len(data) - 1):
        *calls, last = items(FORMAT, data[:end])
        assert isinstance(last, Refused)
        assert "cannot be read further" in last.reason
        assert all(isinstance(call, Usage) for call in calls)
        assert len(calls) <= 2


@pytest.mark.parametrize("data", [b"", b"\0\0\0", b"<xml/>", b"id,start\n", b"\x30\x03abc"])
def test_what_begins_with_no_batch_is_not_of_this_format(data: bytes) -> None:
    with pytest.raises(InvalidInput):
        items(FORMAT, data)


def test_a_nest_of_indefinite_lengths_is_refused() -> None:
    (refusal,) = items(FORMAT, b"\x61\x80\x63\x80" + b"\x69\x80" * 10_000)
    assert isinstance(refusal, Refused)
    assert "deep" in refusal.reason


@pytest.mark.parametrize("length", [b"\x84\x7f\xff\xff\xff", b"\x88" + b"\xff" * 8])
def test_a_length_beyond_the_file_is_refused(length: bytes) -> None:
    (refusal,) = items(FORMAT, b"\x61\x80\x63\x80\x69" + length + b"abc")
    assert isinstance(refusal, Refused)
