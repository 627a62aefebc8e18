"""Diameter messages that somebody broke, and what an independent reader says of ours."""

from __future__ import annotations

import random

from msgspec.structs import replace

from tests.protocols.packets import malformed
from tests.wire.test_diameter import ANSWER, REQUEST, SESSION
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
from tollkeeper.wire.diameter.codec import Header, MalformedDiameter, avp_u32, decode
from tollkeeper.wire.diameter.credit import decode_credit_answer, decode_request
from tollkeeper.wire.diameter.credit_encode import encode_credit_answer, encode_request


def test_any_bytes_are_a_record_or_malformed() -> None:
    """Good messages with bytes changed, cut out, put in and lengths blown up, by a seed that is kept."""
    chance = random.Random(8506)
    seeds = [
        encode_request(REQUEST, 1, 2),
        encode_credit_answer(ANSWER, Header(0, 0xC0, 272, 4, 1, 2)),
        encode_capabilities(
            Capabilities("a", "b", addresses=("127.0.0.1",), vendor_applications=((1, 4),)), 1, 2
        ),
        encode_link(Link("a", "b", 1, 2), 1, 2),
    ]
    readers = (
        decode, decode_request, decode_credit_answer, decode_capabilities, decode_link,
        decode_session_request, decode_answer, glance,
    )  # fmt: skip
    read = refused = 0
    for _ in range(4000):
        data = bytearray(chance.choice(seeds))
        for _ in range(chance.randint(1, 6)):
            at = chance.randrange(len(data))
            match chance.randrange(4):
                case 0:
                    data[at] = chance.choice((0, 1, 0x40, 0x80, 0xFF, chance.randrange(256)))
                case 1:
                    del data[at : at + chance.randint(1, 9)]
                case 2:
                    data[at:at] = chance.randbytes(chance.randint(1, 9))
                case _:
                    data[at : at + 4] = b"\xff\xff\xff\xff"
            data = data or bytearray(b"\1")
        for reader in readers:
            try:
                reader(bytes(data))
                read += 1
            except MalformedDiameter:
                refused += 1
    assert read > 100
    assert refused > 1000


def test_tshark_finds_nothing_wrong_with_our_messages() -> None:
    """And it does find the one whose AVP has a length that lies."""
    good = [
        # An empty Requested-Service-Unit, which is allowed, is one that it wonders about.
        encode_request(replace(REQUEST, controls=REQUEST.controls[1:]), 1, 2),
        encode_credit_answer(ANSWER, Header(0, 0xC0, 272, 4, 1, 2)),
        encode_capabilities(Capabilities("a.b", "b", ("127.0.0.1",), auth_applications=(4,)), 1, 2),
        encode_capabilities(Capabilities("a.b", "b", ("::1",), result=3010), 1, 2),
        encode_link(Link("a.b", "b", 7), 1, 2),
        encode_link(Link("a.b", "b", cause=0), 1, 2),
        encode_session_request(SessionRequest(258, SESSION, "a", "b", "c", "d", 1), 1, 2),
        encode_session_request(SessionRequest(274, SESSION, "a", "b", "c", "d"), 1, 2),
        encode_answer(
            Answer(5014, "a.b", "b", SESSION, failed=(avp_u32(codes.CC_TIME, 0),)),
            command=272, application=4, hop_by_hop=1, end_to_end=2,
        ),
    ]  # fmt: skip
    bad = bytearray(good[0])
    bad[26] = 0x7F
    frames = [("client", message) for message in good]
    assert malformed(frames, protocol="diameter", port=3868, strict=True) == []
    assert malformed([("client", bytes(bad))], protocol="diameter", port=3868) != []
