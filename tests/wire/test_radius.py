"""RADIUS packets: what RFCs and captures say they are, and that nothing else is taken for one."""

from __future__ import annotations

import hashlib
import os
import re
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tollkeeper.wire.radius.attributes import Attributes, Type
from tollkeeper.wire.radius.messages import read_question, read_report
from tollkeeper.wire.radius.packet import (
    Code,
    Fault,
    MalformedRadius,
    Packet,
    check_answer,
    check_request,
    decode,
    encode_answer,
    encode_request,
)
from tollkeeper.wire.radius.passwords import chap_matches, hide_password, reveal_password

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("TOLLKEEPER_SHARED_DATA", ROOT.parent / "shared" / "data")) / "protocol"
real_data = pytest.mark.skipif(
    not DATA.is_dir(), reason="no captures here; TOLLKEEPER_SHARED_DATA names their folder"
)

SECRET = b"xyzzy5461"
RANDOM = bytes(range(16))
REQUESTS = (Code.ACCESS_REQUEST, Code.ACCOUNTING_REQUEST, Code.STATUS_SERVER,
            Code.DISCONNECT_REQUEST, Code.COA_REQUEST)  # fmt: skip
attributes = st.lists(
    st.tuples(
        st.integers(1, 255).filter(lambda kind: kind not in {80, 33}), st.binary(max_size=253)
    ),
    max_size=12,
)

# RFC 2865 section 7.1: nemo logs in by telnet, the secret is xyzzy5461 and the password arctangent.
RFC_REQUEST = bytes.fromhex(
    "01000038 0f403f9473978057bd83d5cb98f4227a 01066e656d6f"
    "02120dbe708d93d413ce3196e43f782a0aee 0406c0a80110 050600000003"
)
RFC_ACCEPT = bytes.fromhex(
    "02000026 86fe220e7624ba2a1005f6bf9b55e0b2 060600000001 0f0600000000 0e06c0a80103"
)
# RFC 2865 section 7.2: flopsy by CHAP.
RFC_CHAP = bytes.fromhex(
    "01010047 2aee86f08d0d55969ca5978e0d3367a2 0108666c6f707379"
    "0313 16e97557c316185895f293ff6344077275 0406c0a80110 050600000014 060600000002 070600000001"
)


def test_the_example_of_the_rfc_is_read() -> None:
    packet = decode(RFC_REQUEST)
    assert (packet.code, packet.identifier, len(packet.attributes)) == (1, 0, 4)
    question = read_question(packet)
    assert (question.user, question.nas_address) == ("nemo", "192.168.1.16")
    assert question.password is not None
    assert reveal_password(question.password, packet.authenticator, SECRET) == b"arctangent"


def test_the_answer_of_the_rfc_is_made_to_the_last_octet() -> None:
    """RFC 2865's own answer has no Message-Authenticator; ours differs by it alone."""
    request, answer = decode(RFC_REQUEST), decode(RFC_ACCEPT)
    assert check_answer(answer, request.authenticator, SECRET) is Fault.NONE
    ours = decode(encode_answer(request, Code.ACCESS_ACCEPT, answer.attributes, SECRET))
    assert ours.attributes[0][0] == Type.MESSAGE_AUTHENTICATOR
    assert ours.attributes[1:] == answer.attributes
    assert check_answer(ours, request.authenticator, SECRET, require_signature=True) is Fault.NONE


def test_the_chap_example_of_the_rfc_is_read() -> None:
    """Without a CHAP-Challenge the request authenticator is the challenge."""
    packet = decode(RFC_CHAP)
    chap = read_question(packet).chap
    assert chap is not None
    assert chap[0][0] == 22
    assert chap[1] == packet.authenticator


def test_a_chap_answer_belongs_to_one_password() -> None:
    answer = b"\x16" + hashlib.md5(b"\x16" + b"arctangent" + RANDOM).digest()
    assert chap_matches(answer, RANDOM, b"arctangent")
    assert not chap_matches(answer, RANDOM, b"arctangenu")
    assert not chap_matches(answer[:-1], RANDOM, b"arctangent")


@pytest.mark.parametrize("code", REQUESTS)
@given(attributes=attributes, identifier=st.integers(0, 255))
def test_what_is_written_is_read_and_proven(
    code: Code, attributes: list[tuple[int, bytes]], identifier: int
) -> None:
    data = encode_request(code, identifier, attributes, SECRET, random=RANDOM)
    packet = decode(data)
    assert packet.code == code
    assert packet.identifier == identifier
    assert list(packet.attributes[1:]) == attributes
    assert packet.signed_at == 22
    assert check_request(packet, SECRET) is Fault.NONE
    assert check_request(packet, SECRET + b"x") is not Fault.NONE


@given(data=st.data())
def test_a_changed_octet_never_passes(data: st.DataObject) -> None:
    """Of a signed packet no octet can be changed; padding behind it is no part of it."""
    sent = encode_request(
        Code.ACCESS_REQUEST, 7, [(Type.USER_NAME, b"acme")], SECRET, random=RANDOM
    )
    at = data.draw(st.integers(0, len(sent) - 1))
    changed = bytearray(sent)
    changed[at] ^= data.draw(st.integers(1, 255))
    try:
        packet = decode(bytes(changed))
    except MalformedRadius:
        return
    assert check_request(packet, SECRET) is not Fault.NONE


@given(st.binary(max_size=200))
def test_any_bytes_are_a_packet_or_malformed(data: bytes) -> None:
    for candidate in (data, b"\x01\x00" + struct.pack("!H", min(len(data) + 4, 4096)) + data):
        try:
            packet = decode(candidate)
        except MalformedRadius:
            continue
        read_question(packet)
        read_report(packet)
        check_request(packet, SECRET)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "less than a header"),
        (b"\x01\x00\x00\x13" + bytes(16), "is not from 20"),
        (b"\x01\x00\x10\x01" + bytes(5000), "is not from 20 to 4096"),
        (b"\x01\x00\x00\x16" + bytes(16), "octets came"),
        (b"\x01\x00\x00\x15" + bytes(17), "cut off"),
        (b"\x01\x00\x00\x16" + bytes(16) + b"\x01\x00", "has the length 0"),
        (b"\x01\x00\x00\x16" + bytes(16) + b"\x01\x01", "has the length 1"),
        (b"\x01\x00\x00\x16" + bytes(16) + b"\x01\x03", "has the length 3"),
        (b"\x01\x00\x00\x17" + bytes(16) + b"\x50\x03\x00", "16 octets"),
        (b"\x01\x00\x00\x38" + bytes(16) + (b"\x50\x12" + bytes(16)) * 2, "and once"),
    ],
)
def test_what_is_no_packet_is_told_why(data: bytes, why: str) -> None:
    with pytest.raises(MalformedRadius, match=why):
        decode(data)


def test_octets_behind_the_length_are_padding() -> None:
    data = encode_request(Code.ACCOUNTING_REQUEST, 1, [(Type.ACCT_SESSION_ID, b"a")], SECRET)
    assert check_request(decode(data + b"rubbish"), SECRET) is Fault.NONE


def test_an_access_request_has_to_be_signed_unless_its_peer_cannot() -> None:
    """BlastRADIUS: the request authenticator of an Access-Request proves nothing."""
    bare = encode_request(
        Code.ACCESS_REQUEST, 1, [(Type.USER_NAME, b"acme")], SECRET, random=RANDOM, signed=False
    )
    assert check_request(decode(bare), SECRET) is Fault.UNSIGNED
    assert check_request(decode(bare), SECRET, require_signature=False) is Fault.NONE


@pytest.mark.parametrize("kind", [Type.PROXY_STATE, Type.EAP_MESSAGE])
def test_what_the_attack_needs_is_never_taken_unsigned(kind: Type) -> None:
    bare = encode_request(
        Code.ACCESS_REQUEST, 1, [(kind, b"x")], SECRET, random=RANDOM, signed=False
    )
    assert check_request(decode(bare), SECRET, require_signature=False) is Fault.UNSIGNED


def test_a_status_server_is_always_signed() -> None:
    bare = encode_request(Code.STATUS_SERVER, 1, [], SECRET, random=RANDOM, signed=False)
    assert check_request(decode(bare), SECRET, require_signature=False) is Fault.UNSIGNED


def test_an_answer_returns_every_proxy_state_in_order() -> None:
    """RFC 2865 section 5.33; and the Message-Authenticator stands in front (BlastRADIUS)."""
    states = [(Type.PROXY_STATE, bytes([number])) for number in (3, 1, 2)]
    request = decode(encode_request(Code.ACCESS_REQUEST, 1, states, SECRET, random=RANDOM))
    answer = decode(
        encode_answer(request, Code.ACCESS_REJECT, [(Type.REPLY_MESSAGE, b"no")], SECRET)
    )
    assert [kind for kind, _ in answer.attributes] == [80, 18, 33, 33, 33]
    assert [value for kind, value in answer.attributes if kind == 33] == [b"\x03", b"\x01", b"\x02"]


def test_an_accounting_response_is_signed_only_to_a_status_server() -> None:
    """What a signature of it is made over is said for Status-Server alone (RFC 5997 section 3)."""
    for code in (Code.ACCOUNTING_REQUEST, Code.STATUS_SERVER):
        request = decode(encode_request(code, 9, [], SECRET, random=RANDOM))
        answer = decode(encode_answer(request, Code.ACCOUNTING_RESPONSE, [], SECRET))
        assert bool(answer.signed_at) is (code == Code.STATUS_SERVER)
        assert check_answer(answer, request.authenticator, SECRET) is Fault.NONE


@given(password=st.binary(max_size=128).filter(lambda p: not p.endswith(b"\0")))
def test_a_hidden_password_is_revealed(password: bytes) -> None:
    hidden = hide_password(password, RANDOM, SECRET)
    assert len(hidden) % 16 == 0
    assert reveal_password(hidden, RANDOM, SECRET) == password


@pytest.mark.parametrize("size", [0, 15, 17, 144])
def test_a_password_of_odd_size_is_malformed(size: int) -> None:
    with pytest.raises(MalformedRadius):
        reveal_password(bytes(size), RANDOM, SECRET)


# --- captures ------------------------------------------------------------------------------------


def captured(name: str) -> Iterator[Packet]:
    """The packets of a capture, taken out of Ethernet or raw IP."""
    data = (DATA / "pcap" / name).read_bytes()
    order = "<" if data[:4] == b"\xd4\xc3\xb2\xa1" else ">"
    skip = {1: 14, 0: 4}.get(struct.unpack(order + "I", data[20:24])[0], 0)
    at = 24
    while at < len(data):
        size = struct.unpack(order + "I", data[at + 8 : at + 12])[0]
        frame = data[at + 16 + skip : at + 16 + size]
        yield decode(frame[(frame[0] & 15) * 4 + 8 :])
        at += 16 + size


def vectors(name: str) -> Iterator[bytes]:
    """The packets of a file of test vectors."""
    text = (DATA / "radius" / "freeradius_vectors" / name).read_text()
    for match in re.finditer(r"^decode-proto ([0-9a-f ]+)$", text, re.MULTILINE):
        yield bytes.fromhex(match[1])


@real_data
def test_a_capture_is_read_as_its_dissection_says() -> None:
    first, challenge, _, accept = captured("tcpdump_RADIUS.pcap")
    question = read_question(first)
    assert question.user == "John.McGuirk"
    assert (question.called, question.calling) == ("00-19-06-EA-B8-8C", "00-14-22-E9-54-5E")
    assert question.nas_address == "10.0.0.1"
    assert question.eap
    assert challenge.code == Code.ACCESS_CHALLENGE
    assert Attributes(challenge.attributes).text(Type.REPLY_MESSAGE) == "Hello, %u"
    assert Attributes(accept.attributes).text(Type.USER_NAME) == "John.McGuirk"


@real_data
def test_the_signatures_of_captures_are_verified() -> None:
    """Requests and answers between real programs whose secret is known."""
    disconnect = next(captured("tcpdump_RADIUS-RFC5176.pcap"))
    assert check_request(disconnect, b"testing123") is Fault.NONE
    checked = 0
    for name in ("packet_wireshark01.txt", "packet_rfc4675.txt"):
        requests: dict[int, Packet] = {}
        for packet in map(decode, vectors(name)):
            if packet.code == Code.ACCESS_REQUEST:
                requests[packet.identifier] = packet
                continue
            request = requests[packet.identifier]
            if packet.identifier == 148:
                # The second hop of a proxied request: another secret.
                assert check_request(request, b"testing123") is Fault.BAD_SIGNATURE
                continue
            assert check_request(request, b"testing123") is Fault.NONE
            assert check_answer(packet, request.authenticator, b"testing123") is Fault.NONE
            checked += 1
    assert checked == 10


@real_data
def test_bad_packets_of_another_implementation_are_refused_or_harmless() -> None:
    refused = 0
    for data in vectors("errors.txt"):
        try:
            packet = decode(data)
        except MalformedRadius:
            refused += 1
            continue
        assert check_request(packet, b"testing123") is not Fault.NONE
    assert refused >= 9
