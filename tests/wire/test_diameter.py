"""Diameter as bytes: what is written is read again, what lies is refused, nothing else is raised."""

from __future__ import annotations

import struct
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tollkeeper.wire.diameter import codes
from tollkeeper.wire.diameter.base import (
    Answer,
    Capabilities,
    Link,
    SessionRequest,
    decode_answer,
    decode_capabilities,
    decode_link,
    decode_session_request,
    encode_answer,
    encode_capabilities,
    encode_link,
    encode_session_request,
    glance,
)
from tollkeeper.wire.diameter.codec import (
    HEADER,
    MESSAGE_MAX,
    ONE,
    Avp,
    Header,
    MalformedDiameter,
    Message,
    avp,
    avp_text,
    avp_time,
    avp_u32,
    decode,
    decode_header,
    encode,
    encode_message,
    frame_length,
    gather,
    group,
    read_time,
    split,
    walk,
)
from tollkeeper.wire.diameter.codes import Action, Command, FailureHandling, Kind, Result
from tollkeeper.wire.diameter.credit import (
    CONTROLS_MAX,
    Control,
    CreditAnswer,
    CreditRequest,
    Money,
    Units,
    decode_credit_answer,
    decode_request,
)
from tollkeeper.wire.diameter.credit_encode import encode_credit_answer, encode_request
from tollkeeper.wire.diameter.service import ServiceInformation

SESSION = "gw.example;1876543210;523"
PROXY = avp_text(codes.PROXY_HOST, "dra.example") + avp(codes.PROXY_STATE, b"\1\2\3")
REQUEST = CreditRequest(
    session_id=SESSION,
    origin_host="gw.example",
    origin_realm="example",
    destination_realm="charging.example",
    context="32260@3gpp.org",
    kind=Kind.UPDATE,
    number=3,
    subscribers=((0, "4912345"), (2, "sip:+4912345@ims.example")),
    multiple=True,
    controls=(
        Control(rating_group=1, requested=Units(), used=(Units(time=30),)),
        Control(rating_group=2, services=(7, 8), requested=Units(total=10**7)),
    ),
    event_at=datetime(2026, 11, 21, 12, tzinfo=UTC),
    information=ServiceInformation(calling="sip:+4912345@ims.example", called="tel:+442071838750"),
    proxies=(PROXY,),
    routes=("dra.example",),
)
ANSWER = CreditAnswer(
    session_id=SESSION,
    result=2001,
    origin_host="ocs.example",
    origin_realm="example",
    kind=2,
    number=3,
    controls=(
        Control(rating_group=1, granted=Units(time=90), validity=60, result=2001, final=True),
        Control(rating_group=2, result=4012),
    ),
    cost=Money(Decimal("0.0125"), 978),
    balance_enough=False,
    failure_handling=FailureHandling.TERMINATE,
    failed=(avp_u32(codes.CC_TIME, 0),),
    proxies=(PROXY,),
)

# --- what is written is read again --------------------------------------------------------------

u32 = st.integers(0, 2**32 - 1)
u64 = st.integers(0, 2**64 - 1)
text = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), min_size=1, max_size=20)
optional_text = st.just("") | text
money = st.builds(
    Money,
    st.decimals(
        allow_nan=False, allow_infinity=False, places=8, min_value=-(10**9), max_value=10**9
    ),
    st.integers(0, 999),
)
units = st.builds(
    Units,
    time=st.none() | u32,
    total=st.none() | u64,
    input=st.none() | u64,
    output=st.none() | u64,
    specific=st.none() | u64,
    money=st.none() | money,
    tariff_change=st.none() | st.integers(0, 2),
    reason=st.none() | st.integers(0, 9),
)
controls = st.builds(
    Control,
    rating_group=st.none() | u32,
    services=st.lists(u32, max_size=3).map(tuple),
    requested=st.none() | units,
    used=st.lists(units, max_size=2).map(tuple),
    granted=st.none() | units,
    validity=st.none() | u32,
    result=st.none() | u32,
    final=st.booleans(),
    reason=st.none() | st.integers(0, 9),
)
several = st.lists(controls, max_size=4).map(tuple)
proxies = st.lists(st.binary(max_size=9), max_size=3).map(tuple)
requests = st.builds(
    CreditRequest,
    session_id=text,
    origin_host=text,
    origin_realm=text,
    destination_realm=text,
    context=text,
    kind=st.sampled_from(Kind),
    number=u32,
    destination_host=optional_text,
    user_name=optional_text,
    action=st.sampled_from(Action),
    subscribers=st.lists(st.tuples(u32, text), max_size=3).map(tuple),
    multiple=st.booleans(),
    controls=several,
    requested=st.none() | units,
    used=st.lists(units, max_size=2).map(tuple),
    service=st.none() | u32,
    cause=st.none() | u32,
    state_id=st.none() | u32,
    information=st.builds(
        ServiceInformation,
        calling=optional_text,
        called=optional_text,
        requested=optional_text,
        recipients=st.lists(text, max_size=2).map(tuple),
        access_point=optional_text,
        network=optional_text,
        trunk=optional_text,
    ),
    called_station=optional_text,
    correlation=st.binary(max_size=20),
    proxies=proxies,
    routes=st.lists(text, max_size=2).map(tuple),
)
answers = st.builds(
    CreditAnswer,
    session_id=text,
    result=u32,
    origin_host=text,
    origin_realm=text,
    kind=st.sampled_from(Kind),
    number=u32,
    controls=several,
    granted=st.none() | units,
    validity=st.none() | u32,
    final=st.booleans(),
    cost=st.none() | money,
    balance_enough=st.none() | st.booleans(),
    failure_handling=st.none() | st.sampled_from(FailureHandling),
    state_id=st.none() | u32,
    error=optional_text,
    failed=proxies,
    proxies=proxies,
)


@given(requests, u32, u32, st.booleans())
def test_a_request_is_read_as_it_was_written(
    request: CreditRequest, hop: int, end: int, again: bool
) -> None:
    data = encode_request(request, hop, end, retransmitted=again)
    head = decode_header(data)
    assert (head.hop_by_hop, head.end_to_end, head.retransmitted) == (hop, end, again)
    assert head.request
    assert decode_request(data) == request


@given(answers, u32, u32)
def test_an_answer_is_read_as_it_was_written(answer: CreditAnswer, hop: int, end: int) -> None:
    data = encode_credit_answer(answer, Header(0, 0xC0, 272, 4, hop, end))
    assert decode_credit_answer(data) == answer
    assert decode_header(data).flags == (0x60 if 3000 <= answer.result < 4000 else 0x40)


@given(
    st.lists(
        st.tuples(u32, st.none() | st.integers(1, 2**32 - 1), st.binary(max_size=30), st.booleans())
    )
)
def test_a_message_that_nobody_looks_into_is_written_as_it_came(
    given_avps: list[tuple[int, int | None, bytes, bool]],
) -> None:
    avps = tuple(
        Avp(
            code | (vendor or 0) << 32,
            data,
            (0x80 if vendor is not None else 0) | (0x40 if mandatory else 0),
        )
        for code, vendor, data, mandatory in given_avps
    )
    message = Message(Header(0, 0x80, 999, 7, 1, 2), avps)
    again = decode(encode_message(message))
    assert again.avps == avps
    assert again.header.length == len(encode_message(message))


def test_the_messages_of_the_connection_are_read_as_they_were_written() -> None:
    asked = Capabilities(
        "gw.example",
        "example",
        addresses=("127.0.0.1", "2001:db8::1"),
        vendor_id=10415,
        product="gw",
        state_id=7,
        vendors=(10415,),
        auth_applications=(4,),
        acct_applications=(3,),
        vendor_applications=((10415, 4),),
        security=(0,),
    )
    assert decode_capabilities(encode_capabilities(asked, 1, 2)) == asked
    assert asked.credit_control
    refused = Capabilities("o", "r", result=3010, error="who are you", product="x", failed=(b"",))
    data = encode_capabilities(refused, 1, 2)
    assert decode_capabilities(data) == refused
    assert decode_header(data).flags == 0x20, "an answer of 3xxx has the E flag"
    for link in (Link("a", "b", 9), Link("a", "b", cause=0)):
        assert decode_link(encode_link(link, 1, 2)) == link
    for command in (Command.RE_AUTH, Command.ABORT_SESSION):
        wish = SessionRequest(command, SESSION, "ocs", "example", "r", "gw", state_id=5)
        assert decode_session_request(encode_session_request(wish, 1, 2)) == wish
    answer = Answer(2002, "gw", "r", SESSION, 3, "later", (b"12",), (b"p",))
    data = encode_answer(answer, command=258, application=4, hop_by_hop=1, end_to_end=2)
    assert decode_answer(data) == answer
    assert glance(data) == Answer(0, "gw", "", SESSION, proxies=(b"p",))


def test_a_peer_of_other_applications_does_not_speak_credit_control() -> None:
    assert not Capabilities("a", "b", auth_applications=(16777251,)).credit_control
    assert Capabilities("a", "b", auth_applications=(codes.RELAY,)).credit_control


def test_times_go_on_after_2036() -> None:
    """Seconds since 1900 are full in 2036; without the top bit they count from there (RFC 6733)."""
    for at in (datetime(2026, 1, 1, tzinfo=UTC), datetime(2040, 1, 1, tzinfo=UTC)):
        found = gather(avp_time(codes.EVENT_TIMESTAMP, at), {codes.EVENT_TIMESTAMP: ONE})
        assert read_time(found, codes.EVENT_TIMESTAMP) == at


# --- what a message by hand looks like ------------------------------------------------------------


def test_a_watchdog_is_these_bytes() -> None:
    """Counted by hand from RFC 6733 sections 3 and 4: header, Origin-Host with padding, Origin-Realm."""
    data = encode_link(Link("gw.a", "a"), 0x11, 0x22)
    assert data.hex() == (
        "0100002c" "80000118" "00000000" "00000011" "00000022"
        "00000108" "4000000c" "67772e61"
        "00000128" "40000009" "61000000"
    )  # fmt: skip


# --- what lies is refused ------------------------------------------------------------------------


def raw(*avps: bytes) -> bytes:
    return encode(
        flags=0xC0, command=272, application=4, hop_by_hop=1, end_to_end=2, avps=b"".join(avps)
    )


def result_of(data: bytes) -> int:
    with pytest.raises(MalformedDiameter) as caught:
        decode_request(data)
    return caught.value.result


@pytest.mark.parametrize("length", [0, 1, 7, 11, 17, 255, 0xFFFFFF])
def test_a_length_that_lies_is_refused(length: int) -> None:
    """Shorter than its own head, or past the end of what holds it."""
    lying = struct.pack(">II", codes.SESSION_ID, 0x40 << 24 | length) + b"abcd"
    if length == 11:
        lying = struct.pack(">III", 873, 0xC0 << 24 | length, 10415)
    with pytest.raises(MalformedDiameter) as caught:
        list(split(lying))
    assert caught.value.result == Result.INVALID_AVP_LENGTH
    assert result_of(raw(lying)) == Result.INVALID_AVP_LENGTH
    inside = group(codes.MULTIPLE_SERVICES_CREDIT_CONTROL, (lying,))
    whole = encode_request(REQUEST, 1, 2)
    assert result_of(raw(whole[HEADER:], inside)) == Result.INVALID_AVP_LENGTH


@pytest.mark.parametrize(
    ("head", "result"),
    [
        (b"\x02\x00\x00\x14", Result.UNSUPPORTED_VERSION),
        (b"\x01\x00\x00\x10", Result.INVALID_MESSAGE_LENGTH),
        (b"\x01\x00\x00\x15", Result.INVALID_MESSAGE_LENGTH),
        (b"\x01\xff\xff\xfc", Result.INVALID_MESSAGE_LENGTH),
        (b"GET ", Result.UNSUPPORTED_VERSION),
    ],
)
def test_a_header_that_is_none_is_refused_before_anything_is_kept(
    head: bytes, result: Result
) -> None:
    with pytest.raises(MalformedDiameter) as caught:
        frame_length(head)
    assert caught.value.result == result
    assert frame_length(b"\x01\0\0") == 0, "three bytes say nothing yet"
    assert frame_length(b"\x01" + MESSAGE_MAX.to_bytes(3)) == MESSAGE_MAX


def test_what_is_unknown_is_refused_only_where_it_is_mandatory() -> None:
    whole = encode_request(REQUEST, 1, 2)[HEADER:]
    assert decode_request(raw(whole, avp(9999, b"x", mandatory=False))) == REQUEST
    unknown = avp(codes.TGPP << 32 | 9999, b"abc")
    with pytest.raises(MalformedDiameter) as caught:
        decode_request(raw(whole, unknown))
    assert caught.value.result == Result.AVP_UNSUPPORTED
    assert caught.value.failed == unknown, "the AVP itself goes back in Failed-AVP"
    inside = group(codes.MULTIPLE_SERVICES_CREDIT_CONTROL, (unknown,))
    assert result_of(raw(whole, inside)) == Result.AVP_UNSUPPORTED


def test_user_equipment_and_what_networks_add_is_passed_over() -> None:
    """Also where it is broken inside: Kamailio sends a dummy IMEI of the wrong length."""
    whole = encode_request(REQUEST, 1, 2)[HEADER:]
    equipment = avp(codes.USER_EQUIPMENT_INFO, b"\xff\xff")
    assert decode_request(raw(whole, equipment, equipment)) == REQUEST


@pytest.mark.parametrize(
    "key", [codes.SESSION_ID, codes.CC_REQUEST_TYPE, codes.CC_REQUEST_NUMBER, codes.ORIGIN_HOST,
            codes.SERVICE_CONTEXT_ID, codes.DESTINATION_REALM],
)  # fmt: skip
def test_what_must_be_there_once_is_there_once(key: int) -> None:
    parts = decode(encode_request(REQUEST, 1, 2)).avps
    (one,) = [avp(part.key, part.data) for part in parts if part.key == key]
    others = [avp(part.key, part.data) for part in parts if part.key != key]
    with pytest.raises(MalformedDiameter) as caught:
        decode_request(raw(*others))
    assert caught.value.result == Result.MISSING_AVP
    assert next(split(caught.value.failed)).key == key
    other = avp(key, b"\0\0\0\x04")
    assert result_of(raw(*others, one, other)) == Result.AVP_OCCURS_TOO_MANY_TIMES
    assert decode_request(raw(*others, one, one)) == REQUEST, "the same again says nothing else"


@pytest.mark.parametrize(
    ("extra", "result"),
    [
        (avp_u32(codes.REQUESTED_ACTION, 9), Result.INVALID_AVP_VALUE),
        (avp_u32(codes.AUTH_APPLICATION_ID, 3), Result.AVP_OCCURS_TOO_MANY_TIMES),
        (avp(codes.REQUESTED_ACTION, b"\0"), Result.INVALID_AVP_LENGTH),
        (avp(codes.USER_NAME, b"\xff\xfe"), Result.INVALID_AVP_VALUE),
        (avp(codes.USER_NAME, b"a\nb"), Result.INVALID_AVP_VALUE),
        (avp(codes.USER_NAME, b"a" * 1025), Result.INVALID_AVP_LENGTH),
        (group(codes.SUBSCRIPTION_ID, ()), Result.MISSING_AVP),
        (
            group(codes.USED_SERVICE_UNIT, (avp(codes.CC_TIME, b"12345"),)),
            Result.INVALID_AVP_LENGTH,
        ),
        (
            group(codes.USED_SERVICE_UNIT, (avp_u32(codes.CC_TIME, 1), avp_u32(codes.CC_TIME, 2))),
            Result.AVP_OCCURS_TOO_MANY_TIMES,
        ),
        (
            group(codes.MULTIPLE_SERVICES_CREDIT_CONTROL, ()) * CONTROLS_MAX,
            Result.AVP_OCCURS_TOO_MANY_TIMES,
        ),
    ],
)
def test_a_value_that_makes_no_sense_is_refused_with_its_code(extra: bytes, result: int) -> None:
    assert result_of(raw(encode_request(REQUEST, 1, 2)[HEADER:], extra)) == result


def test_an_exponent_is_bounded() -> None:
    """10^(2^31) would be a number of two thousand million digits."""
    huge = group(
        codes.USED_SERVICE_UNIT,
        (
            group(
                codes.CC_MONEY,
                (
                    group(
                        codes.UNIT_VALUE,
                        (
                            avp(codes.VALUE_DIGITS, bytes(7) + b"\1"),
                            avp(codes.EXPONENT, b"\x7f" * 4),
                        ),
                    ),
                ),
            ),
        ),
    )
    assert result_of(raw(encode_request(REQUEST, 1, 2)[HEADER:], huge)) == Result.INVALID_AVP_VALUE


def test_an_event_must_say_what_it_wants() -> None:
    parts = decode(encode_request(REQUEST, 1, 2)).avps
    event = [
        avp_u32(part.key, 4) if part.key == codes.CC_REQUEST_TYPE else avp(part.key, part.data)
        for part in parts
    ]
    assert result_of(raw(*event)) == Result.MISSING_AVP


def test_groups_in_groups_have_an_end() -> None:
    data = b""
    for _ in range(9):
        data = group(codes.FAILED_AVP, (data,))
    with pytest.raises(MalformedDiameter):
        list(walk(data, frozenset({codes.FAILED_AVP})))
    assert len(list(walk(data[8:], frozenset({codes.FAILED_AVP})))) == 8


@given(st.binary(max_size=200))
def test_random_bytes_are_no_message(data: bytes) -> None:
    """Behind a header that fits them they are AVPs or malformed; never anything else."""
    whole = raw(data + bytes(-len(data) % 4))
    for reader in (decode_request, decode_credit_answer, decode_capabilities, decode_answer):
        with pytest.raises(MalformedDiameter):
            reader(whole)
