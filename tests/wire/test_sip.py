"""The SIP codec: requests as switches send them, answers as RFC 3261 wants them, hostile bytes."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.protocols.packets import malformed
from tollkeeper.wire import sip

INVITE = (
    b"INVITE sip:+442071838750@gw.example.net;user=phone SIP/2.0\r\n"
    b"Via: SIP/2.0/UDP 10.0.0.7:5080;branch=z9hG4bK776asdhds;rport\r\n"
    b"Via: SIP/2.0/TCP [2001:db8::9]:5061;branch=z9hG4bKolder, SIP / 2.0 / UDP far.example.com\r\n"
    b"Max-Forwards: 70\r\n"
    b'From: "Bob, <\\"x\\">" <sip:+12025550100@10.0.0.7>;tag=1928301774\r\n'
    b"To: <sip:+442071838750@gw.example.net>\r\n"
    b"Call-ID: a84b4c76e66710@10.0.0.7\r\n"
    b"CSeq: 314159 INVITE\r\n"
    b"Contact: <sip:bob@10.0.0.7:5080>\r\n"
    b"Content-Type: application/sdp\r\n"
    b"Content-Length: 5\r\n"
    b"\r\n"
    b"v=0\r\n"
)
COMPACT = (
    b"\r\n\r\nINVITE tel:+44-20;phone-context=example.com SIP/2.0\n"
    b"v: SIP/2.0/UDP pc33.example.com\n"
    b" ;branch=z9hG4bKnashds8\n"
    b"f : sip:anna@example.com ; tag=88sja8x\n"
    b"t: sip:bob@example.com\n"
    b"i:\n\t987asjd97y7atg\n"
    b"CSeq:   986759  INVITE\n"
    b"s: a\n  subject \n\t in three lines\n"
    b"l: 0\n"
    b"\n"
)
SOURCE = ("192.0.2.200", 41_234)


def request(data: bytes = INVITE) -> sip.Request:
    found = sip.decode(data)
    assert isinstance(found, sip.Request)
    return found


def test_an_invite_is_read() -> None:
    got = request()
    assert (got.method, got.uri) == ("INVITE", "sip:+442071838750@gw.example.net;user=phone")
    assert got.via == sip.Via(
        "UDP", "10.0.0.7", 5080, (("branch", "z9hG4bK776asdhds"), ("rport", None))
    )
    assert (got.sender.uri, got.sender.tag) == ("sip:+12025550100@10.0.0.7", "1928301774")
    assert (got.target.tag, got.call_id) == ("", "a84b4c76e66710@10.0.0.7")
    assert (got.cseq, got.max_forwards, got.body) == (314159, 70, b"v=0\r\n")


def test_short_names_folded_lines_and_bare_line_feeds_are_read() -> None:
    """The forms that RFC 3261 section 7.3 allows, and line ends as careless stacks send them."""
    got = request(COMPACT)
    assert (got.call_id, got.cseq, got.max_forwards) == ("987asjd97y7atg", 986759, None)
    assert (got.sender.uri, got.sender.tag) == ("sip:anna@example.com", "88sja8x")
    assert got.via.branch == "z9hG4bKnashds8"
    assert got.header("Subject") == "a subject in three lines"


@pytest.mark.parametrize("data", [INVITE, COMPACT])
def test_what_was_read_is_written_and_read_again_the_same(data: bytes) -> None:
    assert sip.decode(sip.encode(request(data))) == request(data)


@given(
    st.lists(
        st.tuples(st.from_regex(r"X-[a-z]{1,9}", fullmatch=True), st.text('aé;,<" ~', max_size=9))
    ),
    st.binary(max_size=40),
)
def test_any_headers_and_any_body_survive_the_way_there_and_back(
    extra: list[tuple[str, str]], body: bytes
) -> None:
    kept = tuple((name, value.strip(" ")) for name, value in extra)
    plain = tuple(each for each in request().headers if each[0] != "Content-Length")
    sent = sip.encode(
        sip.Response(200, "OK", (*plain, *kept, ("Content-Length", str(len(body)))), body)
    )
    got = sip.decode(sent)
    assert got.headers[len(plain) : -1] == kept
    assert got.body == body


def test_an_answer_copies_what_it_must_and_notes_where_the_request_came_from() -> None:
    """RFC 3261 section 8.2.6.2 and RFC 3581 section 4; the Vias stay in their order."""
    answer = sip.respond(
        request(), 302, source=SOURCE, tag="ours", headers=[("Contact", "<sip:a>")]
    )
    assert sip.encode(answer) == (
        b"SIP/2.0 302 Moved Temporarily\r\n"
        b"Via: SIP/2.0/UDP 10.0.0.7:5080;branch=z9hG4bK776asdhds"
        b";received=192.0.2.200;rport=41234\r\n"
        b"Via: SIP/2.0/TCP [2001:db8::9]:5061;branch=z9hG4bKolder, SIP / 2.0 / UDP far.example.com\r\n"
        b'From: "Bob, <\\"x\\">" <sip:+12025550100@10.0.0.7>;tag=1928301774\r\n'
        b"To: <sip:+442071838750@gw.example.net>;tag=ours\r\n"
        b"Call-ID: a84b4c76e66710@10.0.0.7\r\n"
        b"CSeq: 314159 INVITE\r\n"
        b"Contact: <sip:a>\r\n"
        b"Content-Length: 0\r\n\r\n"
    )
    assert sip.answer_to(request(), SOURCE) == SOURCE


def test_without_rport_the_answer_goes_to_the_port_in_the_via_and_never_to_another_host() -> None:
    plain = request(INVITE.replace(b";rport", b";received=203.0.113.5;maddr=203.0.113.6"))
    assert sip.answer_to(plain, SOURCE) == ("192.0.2.200", 5080)
    via = sip.respond(plain, 200, source=SOURCE).header("Via")
    assert "received=192.0.2.200" in via
    assert "203.0.113.5" not in via
    assert sip.answer_to(request(COMPACT), SOURCE) == ("192.0.2.200", 5060)


def test_a_sender_at_the_address_it_names_is_not_noted() -> None:
    plain = request(INVITE.replace(b";rport", b""))
    assert "received" not in sip.respond(plain, 100, source=("10.0.0.7", 5080)).header("Via")


def test_a_tag_that_is_there_stays() -> None:
    again = request(INVITE.replace(b"gw.example.net>\r\n", b"gw.example.net>;tag=a\r\n"))
    assert sip.respond(again, 481, source=SOURCE, tag="ours").header("To").endswith(">;tag=a")


def test_our_answers_and_requests_are_sound_to_another_reader() -> None:
    answers = [
        sip.encode(sip.respond(request(), status, source=SOURCE, tag="t")) for status in sip.PHRASES
    ]
    frames = [("client", sip.encode(request())), *(("server", answer) for answer in answers)]
    assert malformed(frames, protocol="sip", port=5060) == []


def test_a_transaction_is_its_branch_and_sender() -> None:
    first = sip.transaction(request())
    ack = request(INVITE.replace(b"INVITE", b"ACK"))
    assert sip.transaction(ack) == first
    assert sip.transaction(request(INVITE.replace(b"776asdhds", b"other"))) != first
    assert sip.transaction(request(INVITE.replace(b"10.0.0.7:5080", b"10.0.0.8:5080"))) != first


def test_a_client_of_the_old_rfc_is_told_apart_by_what_it_has() -> None:
    old = INVITE.replace(b";branch=z9hG4bK776asdhds", b"")
    assert sip.transaction(request(old)) == sip.transaction(request(old))
    assert sip.transaction(request(old)) != sip.transaction(
        request(old.replace(b"314159", b"314160"))
    )


def test_a_request_that_came_by_two_ways_is_the_same_by_its_tag_call_and_number() -> None:
    other = request(INVITE.replace(b"776asdhds", b"fork"))
    assert sip.merged(other) == sip.merged(request())
    assert sip.transaction(other) != sip.transaction(request())


@pytest.mark.parametrize(
    ("uri", "user"),
    [
        ("sip:+442071838750@gw", "+442071838750"),
        ("sips:alice:secret@gw:5061;x=y", "alice"),
        ("sip:+4420;npdi;rn=+4477@gw;user=phone", "+4420"),
        ("sip:%2B4420@gw", "+4420"),
        ("tel:+44-20-7183;phone-context=+44", "+44-20-7183"),
        ("sip:gw.example.net", ""),
        ("sip:a%00b@gw", ""),
        ("sip:\xe9@gw", ""),
        ("http://example.net", ""),
    ],
)
def test_the_user_of_a_uri(uri: str, user: str) -> None:
    assert sip.user_of(uri) == user


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "empty line"),
        (INVITE[:200], "empty line"),
        (INVITE[:-2], "promises more"),
        (INVITE + bytes(70_000), "more than a datagram"),
        (INVITE.replace(b"Call-ID", b"X-Call"), "Call-ID is missing"),
        (INVITE.replace(b"Max-Forwards: 70", b"Call-ID: 2"), "more than once"),
        (INVITE.replace(b"Max-Forwards: 70", b"Max-Forwards: \xb2"), "Max-Forwards is no number"),
        (INVITE.replace(b"Max-Forwards: 70", b"Max-Forwards: 256"), "Max-Forwards is no number"),
        (INVITE.replace(b"314159 INVITE", b"314159 ACK"), "CSeq"),
        (INVITE.replace(b"314159", b"2147483648"), "CSeq"),
        (INVITE.replace(b"Length: 5", b"Length: -5"), "Content-Length"),
        (INVITE.replace(b"Bob", b"B\0b"), "control character"),
        (INVITE.replace(b"Bob", b"B\rb"), "control character"),
        (INVITE.replace(b" SIP/2.0\r\n", b" SIP/3.0\r\n", 1), "first line"),
        (INVITE.replace(b"10.0.0.7:5080", b"10.0.0.7:70000"), "65535"),
        (INVITE.replace(b"SIP/2.0/UDP", b"HTTP/1.1/UDP"), "Via"),
        (INVITE.replace(b"10.0.0.7>;tag", b"10.0.0.7;tag"), "bracket"),
        (INVITE.replace(b"Max-Forwards: 70", b"no header"), "no header"),
        (INVITE.replace(b"Max-Forwards: 70", b"X: 1\r\n" * 300 + b"X: 1"), "more than 256"),
        (INVITE.replace(b"Max-Forwards: 70", b"X: " + b"y" * 9000), "8192"),
        (INVITE.replace(b"Via: SIP/2.0/TCP", b"Via: a," * 1 + b"x," * 80), "circle"),
    ],
)
def test_what_is_no_message_is_refused_with_the_reason(data: bytes, why: str) -> None:
    with pytest.raises(sip.MalformedSip, match=why):
        sip.decode(data)


@given(st.binary(max_size=300))
def test_any_bytes_are_a_message_or_refused(noise: bytes) -> None:
    for data in (noise, INVITE[:150] + noise, INVITE[:-7] + noise):
        with suppress(sip.MalformedSip):
            message = sip.decode(data)
            assert sip.decode(sip.encode(message)) == message


def test_a_header_cannot_be_smuggled_into_an_answer() -> None:
    answer = sip.respond(request(), 302, source=SOURCE, headers=[("X", "a\r\nContact: <sip:evil>")])
    with pytest.raises(ValueError, match="control"):
        sip.encode(answer)


def test_a_stream_is_cut_into_its_messages_wherever_it_was_broken() -> None:
    whole = INVITE + b"\r\n\r\n" + INVITE.replace(b"INVITE", b"OPTIONS")
    for cut in range(0, len(whole), 7):
        buffer, got = bytearray(), []
        for piece in (whole[:cut], whole[cut:]):
            buffer += piece
            while (message := sip.take(buffer)) is not None:
                got.append(request(message).method)
        assert got == ["INVITE", "OPTIONS"]
        assert not buffer


@pytest.mark.parametrize(
    "data",
    [
        INVITE.replace(b"Content-Length: 5\r\n", b""),
        INVITE.replace(b"Content-Length: 5", b"Content-Length: 99999"),
        b"X: 1\r\n" * 12_000,
    ],
)
def test_a_stream_that_cannot_be_cut_is_refused(data: bytes) -> None:
    with pytest.raises(sip.MalformedSip):
        sip.take(bytearray(data))
