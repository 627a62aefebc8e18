"""The reader of packets finds faults where there are some, and none where there are none."""

from __future__ import annotations

import hashlib
import struct

import pytest

from tests.protocols.packets import malformed

SECRET = "testing123"


def radius_request(attributes: bytes = b"\x01\x05bob") -> bytes:
    return struct.pack("!BBH", 1, 7, 20 + len(attributes)) + bytes(range(16)) + attributes


def radius_accept(request: bytes, secret: str) -> bytes:
    """Access-Accept with Session-Timeout 60 and the response authenticator of RFC 2865 section 3."""
    attributes = struct.pack("!BBI", 27, 6, 60)
    head = struct.pack("!BBH", 2, request[1], 20 + len(attributes))
    return (
        head
        + hashlib.md5(head + request[4:20] + attributes + secret.encode()).digest()
        + attributes
    )


def avp(code: int, data: bytes, lie: int = 0) -> bytes:
    head = struct.pack("!IB", code, 0x40) + (8 + len(data) + lie).to_bytes(3, "big")
    return head + data + bytes(-len(data) % 4)


def watchdog(lie: int = 0) -> bytes:
    """A Device-Watchdog-Request; the last AVP's length may lie."""
    body = avp(264, b"ocs.example.net") + avp(296, b"example.net", lie)
    return struct.pack("!II", 0x01000000 | 20 + len(body), 0x80000118) + bytes(12) + body


def enquire_link(number: int = 1) -> bytes:
    return struct.pack("!IIII", 16, 0x15, 0, number)


def submit_sm(length: int, text: bytes = b"hello") -> bytes:
    fields = b"\0\1\1" + b"100\0" + b"\1\1" + b"447700900123\0" + bytes(3) + b"\0\0" + b"\1\0\0\0"
    body = fields + bytes([length]) + text
    return struct.pack("!IIII", 16 + len(body), 4, 0, 2) + body


OPTIONS = (
    b"OPTIONS sip:a@192.0.2.2 SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.1:40000;branch=z9hG4bK1\r\n"
    b"From: <sip:b@192.0.2.1>;tag=1\r\nTo: <sip:a@192.0.2.2>\r\nCall-ID: x@192.0.2.1\r\n"
    b"CSeq: 1 OPTIONS\r\nMax-Forwards: 70\r\nContent-Length: 0\r\n\r\n"
)


def test_a_right_radius_exchange_has_no_fault() -> None:
    request = radius_request()
    frames = [("client", request), ("server", radius_accept(request, SECRET))]
    assert malformed(frames, protocol="radius", port=18_120, secret=SECRET) == []


def test_a_radius_answer_made_with_another_secret_is_a_fault() -> None:
    request = radius_request()
    frames = [("client", request), ("server", radius_accept(request, "another"))]
    (fault,) = malformed(frames, protocol="radius", port=18_120, secret=SECRET)
    assert fault.startswith("frame 2: ")


def test_a_right_diameter_message_has_no_fault_even_in_pieces() -> None:
    whole = watchdog()
    frames = [("client", whole[:33]), ("client", whole[33:])]
    assert malformed(frames, protocol="diameter", port=38_680) == []


def test_right_smpp_units_have_no_fault() -> None:
    frames = [("client", submit_sm(5) + enquire_link(3)), ("server", enquire_link())]
    assert malformed(frames, protocol="smpp", port=27_750) == []


def test_a_right_sip_request_has_no_fault() -> None:
    assert malformed([("client", OPTIONS)], protocol="sip", port=50_600) == []


@pytest.mark.parametrize(
    ("protocol", "payload"),
    [
        ("radius", radius_request(b"\x01\x20bob")),
        ("radius", radius_request()[:12]),
        ("diameter", watchdog(lie=40)),
        ("diameter", watchdog()[:-8]),
        ("smpp", submit_sm(200)),
        ("smpp", enquire_link()[:10]),
        ("sip", b"hello\r\n\r\n"),
        ("sip", OPTIONS.replace(b"SIP/2.0\r\nVia", b"\r\nVia")),
    ],
)
def test_what_is_broken_is_a_fault(protocol: str, payload: bytes) -> None:
    """The negative controls: a reader that finds nothing here would prove nothing elsewhere."""
    assert malformed([("client", payload)], protocol=protocol, port=37_777, strict=True) != []
