"""The table of what should not come in at each door, and how it is named when it does."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

from tests.protocols.town import SECRETS, Town, ack, invite, sip_request
from tests.support import UK_FIXED
from tollkeeper.wire.diameter import codes
from tollkeeper.wire.diameter.base import Capabilities, encode_capabilities
from tollkeeper.wire.diameter.codec import avp_text
from tollkeeper.wire.diameter.codes import Kind
from tollkeeper.wire.diameter.credit import CreditRequest
from tollkeeper.wire.diameter.credit_encode import encode_request as encode_credit
from tollkeeper.wire.radius.attributes import Type, integer
from tollkeeper.wire.radius.messages import Status
from tollkeeper.wire.radius.packet import Code, encode_request
from tollkeeper.wire.smpp import pdu as smpp
from tollkeeper.wire.smpp.pdu import Bind

HUGE = 10_000_000_000
VIAS = ", ".join(f"SIP/2.0/UDP 127.0.0.1;branch=z9hG4bK{n}" for n in range(80))


@dataclass(frozen=True)
class Bad:
    """One row: ``data`` comes to ``door`` and is counted as ``fault``.

    ``stranger``: from an address of nobody; ``unnamed``: counted to whoever is not known.
    ``answer``: what the answer has to hold, if there must be one.
    """

    door: str
    name: str
    data: bytes | Callable[[Town], bytes]
    fault: str
    stranger: bool = False
    unnamed: bool = False
    answer: bytes = b""

    def bytes_for(self, town: Town) -> bytes:
        """What is sent."""
        return self.data if isinstance(self.data, bytes) else self.data(town)


def _radius(
    code: Code, *, secret: str = SECRETS["radius"], **more: bool
) -> Callable[[Town], bytes]:
    def make(town: Town) -> bytes:
        about = town.about("bad-1")
        if code == Code.ACCOUNTING_REQUEST:
            about.append(integer(Type.ACCT_STATUS_TYPE, Status.START))
        return encode_request(code, 7, about, secret.encode(), random=os.urandom(16), **more)

    return make


def _radius_lies(_: Town) -> bytes:
    """The first attribute says that it is longer than the packet."""
    return b"\x01\x01\x00\x1c" + bytes(16) + b"\x01\xfeabcdef"


def _radius_empty(_: Town) -> bytes:
    """An attribute of no length would be read for ever."""
    return b"\x04\x01\x00\x18" + bytes(16) + b"\x01\x00\x01\x00"


def _nameless(_: Town) -> bytes:
    about = [integer(Type.ACCT_STATUS_TYPE, Status.START)]
    return encode_request(Code.ACCOUNTING_REQUEST, 8, about, SECRETS["radius"].encode())


RADIUS = (
    Bad("radius_auth", "nothing", b"\x01", "malformed"),
    Bad("radius_auth", "truncated", b"\x01\x02\x00\x14" + bytes(10), "malformed"),
    Bad("radius_auth", "a length of 4096 of 20 octets", b"\x01\x02\x10\0" + bytes(16), "malformed"),
    Bad("radius_auth", "oversized", b"\x01\x02\xff\xff" + bytes(20_000), "malformed"),
    Bad("radius_auth", "a lying attribute", _radius_lies, "malformed"),
    Bad("radius_auth", "wrong secret", _radius(Code.ACCESS_REQUEST, secret="no"), "wrong_secret"),
    Bad("radius_auth", "unsigned", _radius(Code.ACCESS_REQUEST, signed=False), "unsigned"),
    Bad("radius_auth", "accounting", _radius(Code.ACCOUNTING_REQUEST), "wrong_code"),
    Bad(
        "radius_auth", "a stranger", _radius(Code.ACCESS_REQUEST), "unknown_peer",
        stranger=True, unnamed=True,
    ),
    Bad("radius_acct", "an attribute without length", _radius_empty, "malformed"),
    Bad(
        "radius_acct", "wrong secret", _radius(Code.ACCOUNTING_REQUEST, secret="no"), "wrong_secret"
    ),
    Bad("radius_acct", "a question", _radius(Code.ACCESS_REQUEST), "wrong_code"),
    Bad("radius_acct", "no call", _nameless, "no_session_id"),
    Bad(
        "radius_acct", "a stranger", _radius(Code.ACCOUNTING_REQUEST), "unknown_peer",
        stranger=True, unnamed=True,
    ),
)  # fmt: skip


def hello(host: str = "gw.example") -> bytes:
    """A CER."""
    record = Capabilities(host, "example", auth_applications=(4,), addresses=("127.0.0.1",))
    return encode_capabilities(record, 1, 1)


def _credit(**more: tuple[str, ...]) -> bytes:
    request = CreditRequest(
        session_id="gw.example;bad;1", kind=Kind.INITIAL, number=0, origin_host="gw.example",
        origin_realm="example", destination_realm="example", context="32260@3gpp.org", **more,
    )  # fmt: skip
    return encode_credit(request, 5, 5)


def _lying_avp(message: bytes) -> bytes:
    """The last AVP says 16 MB."""
    told = avp_text(codes.USER_NAME, "liar")
    whole = message + told[:5] + b"\xff\xff\xff" + told[8:]
    return whole[:1] + len(whole).to_bytes(3, "big") + whole[4:]


DIAMETER = (
    Bad("diameter", "another language", b"GET / HTTP/1.1\r\n\r\n", "garbage", unnamed=True),
    Bad("diameter", "16 MB by its header", b"\x01\xff\xff\xfc" + bytes(40), "garbage", unnamed=True),
    Bad("diameter", "a length of 4", b"\x01\0\0\x04" + bytes(40), "garbage", unnamed=True),
    Bad("diameter", "no hello", _credit(), "no_hello", unnamed=True),
    Bad("diameter", "an unknown host", hello("evil.example"), "unknown_peer", unnamed=True),
    Bad("diameter", "a stranger", hello(), "unknown_peer", stranger=True, unnamed=True),
    Bad("diameter", "a hello that lies", _lying_avp(hello()), "malformed", unnamed=True),
    Bad("diameter", "a lying AVP", hello() + _lying_avp(_credit()), "malformed"),
    Bad(
        "diameter", "Route-Record of ourselves",
        hello() + _credit(routes=("relay.example", "OCS.example")), "loop",
        answer=(3005).to_bytes(4, "big"),
    ),
    Bad("diameter", "a second hello", hello() + hello(), "second_hello"),
)  # fmt: skip


def bind(system_id: str = "acme", password: str = SECRETS["esme"]) -> bytes:
    body = smpp.bind_body(Bind(system_id, password))
    return smpp.frame(smpp.BIND_TRANSCEIVER, 0, 1, body)


SMPP = (
    Bad("smpp", "4 GB by its header", b"\xff\xff\xff\xff" + bytes(60), "malformed", unnamed=True),
    Bad("smpp", "no length", bytes(64), "malformed", unnamed=True),
    Bad("smpp", "another language", b"GET / HTTP/1.1\r\n\r\n", "malformed", unnamed=True),
    Bad(
        "smpp", "a truncated bind", smpp.frame(smpp.BIND_TRANSCEIVER, 0, 1, b"acme"), "malformed",
        unnamed=True,
    ),
    Bad("smpp", "wrong password", bind(password="wrongpw1"), "wrong_secret"),
    Bad("smpp", "a stranger's name", bind("nobody"), "unknown_peer", unnamed=True),
    Bad("smpp", "the wrong address", bind(), "wrong_address", stranger=True),
    Bad("smpp", "an unknown command", bind() + smpp.frame(0x777, 0, 2), "unknown_command"),
    Bad("smpp", "half a message", bind() + smpp.frame(smpp.SUBMIT_SM, 0, 2, b"\0"), "malformed"),
    Bad(
        "smpp", "a lying TLV",
        bind() + smpp.frame(smpp.SUBMIT_SM, 0, 2, b"\0" * 17 + b"\x04\x24\xff\xffab"), "malformed",
    ),
)  # fmt: skip

SIP = (
    Bad("sip_udp", "noise", bytes(range(256)), "malformed"),
    Bad("sip_udp", "truncated", invite("bad-1")[:-40], "malformed"),
    Bad("sip_udp", "80 Vias", invite("bad-2", Via=VIAS), "malformed"),
    Bad("sip_udp", "a lying length", invite("bad-3", Content_Length="9999"), "malformed"),
    Bad("sip_udp", "oversized", invite("bad-4", Subject="x" * 60_000), "malformed"),
    Bad("sip_udp", "an answer", b"SIP/2.0 200 OK\r\nVia: x\r\n\r\n", "unexpected"),
    Bad("sip_udp", "no hops left", invite("bad-5", Max_Forwards="0"), "", answer=b" 483 "),
    Bad("sip_udp", "an ACK to nothing", ack("bad-6"), "stray_ack"),
    Bad("sip_udp", "a stranger", invite("bad-7"), "unknown_peer", stranger=True, unnamed=True),
    Bad("sip_udp", "a BYE", sip_request("BYE", "bad-8"), "", answer=b" 405 "),
    Bad("sip_tcp", "no length", invite("bad-9", "TCP", Content_Length=""), "malformed"),
    Bad(
        "sip_tcp", "10 GB", invite("bad-10", "TCP", Content_Length=str(HUGE)), "malformed"
    ),
    Bad(
        "sip_tcp", "1 GB less one", invite("bad-11", "TCP", Content_Length="999999999"), "malformed"
    ),
    Bad("sip_tcp", "endless headers", b"INVITE x SIP/2.0\r\n" + b"a: b\r\n" * 20_000, "malformed"),
    Bad("sip_tcp", "a stranger", invite("bad-12", "TCP"), "unknown_peer", stranger=True, unnamed=True),
)  # fmt: skip


def agi(script: str) -> bytes:
    return (
        f"agi_network: yes\nagi_network_script: {script}\nagi_uniqueid: 5.6\n"
        f"agi_extension: {UK_FIXED}\n\n"
    ).encode()


AGI = (
    Bad("fastagi", "endless line", b"a" * 100_000, "malformed"),
    Bad("fastagi", "another language", b"GET / HTTP/1.1\r\n\r\n", "malformed"),
    Bad("fastagi", "twice the same", b"agi_uniqueid: 1\nagi_uniqueid: 2\n\n", "malformed"),
    Bad("fastagi", "500 lines", b"".join(b"agi_%d: x\n" % n for n in range(500)), "malformed"),
    Bad("fastagi", "no such script", agi("format-all"), "unknown_script"),
    Bad("fastagi", "no answer that is one", agi("authorise") + b"nonsense\n", "malformed"),
    Bad("fastagi", "a stranger", agi("authorise"), "unknown_peer", stranger=True, unnamed=True),
)


def post(town: Town, path: str, body: bytes, length: int | None = None, token: str = "") -> bytes:
    """An HTTP request as bytes; ``length`` may lie."""
    import base64

    key = base64.b64encode(f"tollkeeper:{token or town.token}".encode()).decode()
    return (
        f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Basic {key}\r\n"
        "Content-Type: application/x-www-form-urlencoded\r\n"
        f"Content-Length: {len(body) if length is None else length}\r\n\r\n"
    ).encode() + body


DIALPLAN, CDR = "/v1/freeswitch/dialplan", "/v1/freeswitch/cdr"
ENTRY = b"section=dialplan&Hunt-Context=tollkeeper"
HTTP = (
    Bad("http", "noise", bytes(range(256)), "", answer=b" 400 "),
    Bad("http", "a thousand at once", b"GET /healthz HTTP/1.1\r\n\r\n" * 1000, ""),
    Bad("http", "endless head", b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 30_000, "", answer=b""),
    Bad("http", "wrong key", lambda t: post(t, DIALPLAN, b"", token="x"), "", answer=b" 401 "),
    Bad("http", "no channel", lambda t: post(t, DIALPLAN, ENTRY), "malformed", answer=b" 200 "),
    Bad(
        "http", "an endless form", lambda t: post(t, DIALPLAN, b"a=" + b"x" * 1_100_000),
        "oversized", answer=b" 413 ",
    ),
    Bad("http", "no record", lambda t: post(t, CDR, b'{"a":'), "malformed", answer=b"HTTP/1.1 4"),
    Bad("http", "deep", lambda t: post(t, CDR, b"[" * 90_000), "malformed", answer=b"HTTP/1.1 4"),
)  # fmt: skip

TABLE = (*RADIUS, *DIAMETER, *SMPP, *SIP, *AGI, *HTTP)

LIES: dict[str, tuple[tuple[str, bytes, str], ...]] = {
    "esl": (
        ("noise", b"x" * 200_000, "malformed"),
        ("10 GB", b"Content-Type: auth/request\nContent-Length: %d\n\n" % HUGE, "malformed"),
        ("not us", b"Content-Type: text/rude-rejection\nContent-Length: 0\n\n", "wrong_secret"),
        ("nothing", b"", "away"),
    ),
    "ami": (
        ("another language", b"HTTP/1.1 400 Bad Request\r\n\r\n", "malformed"),
        ("an endless line", b"Asterisk Call Manager/9\r\n" + b"x" * 300_000, "malformed"),
        ("nothing", b"", "away"),
    ),
    "evapi": (
        ("10^12 by its length", b"1000000000000:x", "malformed"),
        ("no comma", b"5:abcdefgh", "malformed"),
        ("no message", b"2:[],", "malformed"),
        ("deep", b"40000:" + b"[" * 40_000 + b",", "malformed"),
        ("nothing", b"", "away"),
    ),
}
"""What a switch says instead of its first words, and how it is named."""
AMID = {
    "esl": b"Content-Length: %d\nContent-Type: text/event-plain\n\n" % HUGE,
    "ami": b"Event: Hangup\r\nUniqueid: " + b"9" * 300_000,
    "evapi": b"99999999999999999999:",
}
"""What a switch says in the middle of a connection."""
