"""The codec beside another implementation: each reads and proves what the other writes."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tollkeeper.wire.radius.messages import read_question
from tollkeeper.wire.radius.packet import (
    Attribute,
    Code,
    Fault,
    check_answer,
    check_request,
    decode,
    encode_answer,
    encode_request,
)
from tollkeeper.wire.radius.passwords import hide_password, reveal_password

pytest.importorskip("pyrad", reason="pyrad is not installed")

from pyrad import packet as theirs
from pyrad.dictionary import Dictionary

SECRET = b"testing123"
DICTIONARY = Dictionary(io.StringIO("ATTRIBUTE Message-Authenticator 80 octets\n"))
attributes = st.lists(
    st.tuples(
        st.integers(1, 241).filter(lambda kind: kind not in {26, 33, 80}),
        st.binary(min_size=1, max_size=253),
    ),
    max_size=8,
)


def values(packet: theirs.Packet) -> dict[int, list[bytes]]:
    """All but the signature, by type."""
    return {kind: list(found) for kind, found in packet.items() if kind != 80}


def by_type(pairs: list[Attribute]) -> dict[int, list[bytes]]:
    found: dict[int, list[bytes]] = {}
    for kind, value in pairs:
        found.setdefault(kind, []).append(value)
    return found


@given(attributes=attributes, random=st.binary(min_size=16, max_size=16))
def test_our_access_requests_are_proven_and_read_by_the_other(
    attributes: list[Attribute], random: bytes
) -> None:
    ours = encode_request(Code.ACCESS_REQUEST, 5, attributes, SECRET, random=random)
    other = theirs.AuthPacket(packet=ours, secret=SECRET, dict=DICTIONARY)
    assert other.verify_message_authenticator()
    assert values(other) == by_type(attributes)


@pytest.mark.parametrize(
    "code", [Code.ACCOUNTING_REQUEST, Code.DISCONNECT_REQUEST, Code.COA_REQUEST]
)
@given(attributes=attributes)
def test_our_other_requests_are_proven_and_read_by_the_other(
    code: Code, attributes: list[Attribute]
) -> None:
    ours = encode_request(code, 5, attributes, SECRET)
    kind = theirs.AcctPacket if code == Code.ACCOUNTING_REQUEST else theirs.CoAPacket
    other = kind(packet=ours, secret=SECRET, dict=DICTIONARY)
    verify = other.VerifyAcctRequest if kind is theirs.AcctPacket else other.VerifyCoARequest
    assert verify()
    assert values(other) == by_type(attributes)


@pytest.mark.parametrize("signed", [True, False])
@given(attributes=attributes)
def test_the_others_requests_are_proven_and_read_by_us(
    signed: bool, attributes: list[Attribute]
) -> None:
    for kind, code in (
        (theirs.AuthPacket, Code.ACCESS_REQUEST),
        (theirs.AcctPacket, Code.ACCOUNTING_REQUEST),
        (theirs.CoAPacket, Code.COA_REQUEST),
    ):
        other = kind(code=code, secret=SECRET, id=9, dict=DICTIONARY)
        for number, found in by_type(attributes).items():
            other[number] = found
        if signed:
            other.add_message_authenticator()
        packet = decode(other.RequestPacket())
        assert bool(packet.signed_at) is signed
        assert check_request(packet, SECRET, require_signature=signed) is Fault.NONE
        assert by_type([one for one in packet.attributes if one[0] != 80]) == by_type(attributes)


@given(attributes=attributes, accounting=st.booleans(), signed=st.booleans())
def test_our_answers_are_proven_by_the_other(
    attributes: list[Attribute], accounting: bool, signed: bool
) -> None:
    kind = theirs.AcctPacket if accounting else theirs.AuthPacket
    other = kind(
        code=Code.ACCOUNTING_REQUEST if accounting else Code.ACCESS_REQUEST,
        secret=SECRET,
        id=9,
        dict=DICTIONARY,
    )
    if signed:
        other.add_message_authenticator()
    request = decode(other.RequestPacket())
    code = Code.ACCOUNTING_RESPONSE if accounting else Code.ACCESS_ACCEPT
    answer = encode_answer(request, code, attributes, SECRET)
    read = other.CreateReply(packet=answer)
    assert other.VerifyReply(read, answer)
    assert values(read) == by_type(attributes)


@given(attributes=attributes)
def test_the_others_answers_are_proven_by_us(attributes: list[Attribute]) -> None:
    sent = encode_request(Code.DISCONNECT_REQUEST, 5, [(44, b"a")], SECRET)
    other = theirs.CoAPacket(packet=sent, secret=SECRET, dict=DICTIONARY)
    reply = other.CreateReply()
    for number, found in by_type(attributes).items():
        reply[number] = found
    answer = decode(reply.ReplyPacket())
    assert answer.code == Code.DISCONNECT_ACK
    assert check_answer(answer, decode(sent).authenticator, SECRET) is Fault.NONE
    assert check_answer(answer, bytes(16), SECRET) is Fault.BAD_AUTHENTICATOR


@given(password=st.text(min_size=1, max_size=32).filter(lambda text: "\0" not in text))
def test_passwords_are_hidden_and_checked_alike(password: str) -> None:
    other = theirs.AuthPacket(secret=SECRET, id=1, authenticator=bytes(range(16)), dict=DICTIONARY)
    hidden = other.PwCrypt(password)
    assert hidden == hide_password(password.encode(), other.authenticator, SECRET)
    assert other.PwDecrypt(hidden) == password
    assert reveal_password(hidden, other.authenticator, SECRET) == password.encode()


def test_a_password_among_the_attributes_is_revealed() -> None:
    other = theirs.AuthPacket(code=1, secret=SECRET, id=1, dict=DICTIONARY)
    other[1] = [b"alice"]
    other[2] = [other.PwCrypt("wonderland")]
    other.add_message_authenticator()
    packet = decode(other.RequestPacket())
    question = read_question(packet)
    assert question.password is not None
    assert reveal_password(question.password, packet.authenticator, SECRET) == b"wonderland"
