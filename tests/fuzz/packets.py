"""RADIUS, Diameter, SMPP and SIP: how they are read, and the packets to begin with."""

from __future__ import annotations

from ipaddress import IPv4Address
from typing import Any

from tests.fuzz.reading import again, each

SECRET = b"testing123"


# --- RADIUS -------------------------------------------------------------------------------------


def radius_decode(m: Any, data: bytes) -> Any:
    packet = m.radius_packet.decode(data)
    seen = m.radius_attributes.Attributes(packet.attributes)
    hidden = seen.raw(2) or b""
    return each(
        m.radius_packet.MalformedRadius,
        lambda: packet,
        lambda: m.radius_packet.check_request(packet, SECRET),
        lambda: m.radius_packet.check_answer(packet, bytes(16), SECRET),
        lambda: m.radius_messages.read_question(packet),
        lambda: m.radius_messages.read_report(packet),
        lambda: m.radius_passwords.reveal_password(hidden, packet.authenticator, SECRET),
        lambda: m.radius_passwords.digest_matches(
            m.radius_passwords.read_digest(seen) or m.radius_passwords.Digest(), "0" * 32
        ),
    )


def radius_seeds(m: Any) -> dict[str, bytes]:
    a, codes = m.radius_attributes, m.radius_packet.Code
    kind, voice = a.Type, a.Voice

    def write(code: Any, attributes: list[Any]) -> bytes:
        return bytes(
            m.radius_packet.encode_request(code, 7, attributes, SECRET, random=bytes(range(16)))
        )

    call = [
        a.text(kind.USER_NAME, "acme"),
        a.address(kind.NAS_IP_ADDRESS, IPv4Address("192.0.2.1")),
        a.text(kind.CALLING_STATION_ID, "<sip:+12025550100@192.0.2.9>"),
        a.text(kind.CALLED_STATION_ID, "442071838750"),
        a.text(kind.ACCT_SESSION_ID, "0000001A"),
        a.voice(voice.CONF_ID, "1A2B3C4D 0 FFEE 00000001"),
        a.voice(voice.CALL_ORIGIN, "answer", named=False),
        a.voice(voice.AVPAIR, "h323-ivr-out=xpgk-dst-number-in:442071838750", named=False),
    ]
    times = [
        a.voice(voice.CONNECT_TIME, "*23:24:19.810 UTC Sun Sep 26 2021"),
        a.voice(voice.DISCONNECT_TIME, "*23:25:19.810 UTC Sun Sep 26 2021"),
        a.voice(voice.DISCONNECT_CAUSE, "10"),
        a.integer(kind.ACCT_SESSION_TIME, 60),
        a.integer(kind.ACCT_STATUS_TYPE, 2),
    ]
    password = m.radius_passwords.hide_password(b"secret", bytes(range(16)), SECRET)
    digest = [(206, b"0" * 32), (207, b"\x0a\x06acme"), (207, b"\x01\x04\x22x\x02\x05abc")]
    return {
        "access": write(codes.ACCESS_REQUEST, [*call, (2, password)]),
        "digest": write(codes.ACCESS_REQUEST, [*call, *digest]),
        "stop": write(codes.ACCOUNTING_REQUEST, [*call, *times]),
        "status": write(codes.STATUS_SERVER, []),
        "disconnect": write(codes.DISCONNECT_REQUEST, call[:1]),
    }


# --- Diameter -----------------------------------------------------------------------------------


GROUPS = frozenset(range(1024)) | frozenset(10415 << 32 | code for code in range(4096))
"""Every AVP taken for a group, so that walking goes as deep as it can."""


def diameter_decode(m: Any, data: bytes) -> Any:
    base, credit = m.diameter_base, m.diameter_credit
    error = m.diameter_codec.MalformedDiameter
    m.diameter_codec.frame_length(data)
    header = m.diameter_codec.decode_header(data)
    writers = (
        (credit.decode_request, lambda one: m.diameter_credit_encode.encode_request(one, 1, 2)),
        (
            credit.decode_credit_answer,
            lambda one: m.diameter_credit_encode.encode_credit_answer(one, header),
        ),
        (base.decode_capabilities, lambda one: base.encode_capabilities(one, 1, 2)),
        (base.decode_link, lambda one: base.encode_link(one, 1, 2)),
        (base.decode_session_request, lambda one: base.encode_session_request(one, 1, 2)),
    )
    return each(
        error,
        lambda: m.diameter_codec.decode(data),
        *(lambda r=r, w=w: again(error, r, w)(data) for r, w in writers),
        lambda: base.decode_answer(data),
        lambda: base.glance(data),
        lambda: len(list(m.diameter_codec.walk(data, GROUPS, m.diameter_codec.HEADER))),
    )


def diameter_encode(m: Any, record: Any) -> bytes | None:
    # A message that cannot be cut into AVPs has nothing that could be written again.
    return None if isinstance(record[0], str) else bytes(m.diameter_codec.encode_message(record[0]))


# --- SMPP ---------------------------------------------------------------------------------------


def smpp_decode(m: Any, data: bytes) -> Any:
    smpp, text, error = m.smpp_pdu, m.smpp_text, m.smpp_pdu.MalformedPdu
    framer = smpp.Framer()
    framed = framer.feed(data)
    assert framer.pending <= len(data)
    pdu = framed[0] if framed else smpp.decode(data)

    def message(command: int) -> Any:
        one = again(
            error,
            lambda body: smpp.read_message(command, body),
            lambda read: smpp.message_body(command, read),
        )(pdu.body)
        return each(
            error,
            lambda: one,
            lambda: text.count_segments(one),
            lambda: text.count_segments(one, latin_default=True),
            lambda: text.text_of(one),
            lambda: text.part_of(one, text.content_of(one)),
            lambda: m.smpp_receipt.read_receipt(one),
        )

    return each(
        error,
        lambda: pdu,
        lambda: message(smpp.SUBMIT_SM),
        lambda: message(smpp.DATA_SM),
        lambda: again(error, smpp.read_bind, smpp.bind_body)(pdu.body),
        lambda: smpp.read_id(pdu.body),
        lambda: smpp.read_tlvs(pdu.body),
        lambda: smpp.command_name(pdu.command) + smpp.status_name(pdu.status),
        lambda: len(framed),
    )


def smpp_encode(m: Any, record: Any) -> bytes:
    return bytes(m.smpp_pdu.encode(record[0]))


def smpp_seeds(m: Any) -> dict[str, bytes]:
    smpp = m.smpp_pdu

    def message(command: int, **fields: Any) -> bytes:
        one = smpp.Message(source="100", dest="447700900123", dest_ton=1, dest_npi=1, **fields)
        return bytes(smpp.frame(command, 0, 5, smpp.message_body(command, one)))

    receipt = b"id:12 sub:001 dlvrd:001 submit date:2601010000 done date:2601010001 stat:DELIVRD err:000 text:hi"
    return {
        "bind": smpp.frame(9, 0, 1, smpp.bind_body(smpp.Bind("acme", "secret", "VMA"))),
        "submit": message(4, short_message=b"hello \x1be world", registered=1),
        "long": message(4, esm_class=0x40, short_message=b"\x05\0\x03\x07\x02\x01hello"),
        "ucs2": message(4, data_coding=8, short_message="grüße 😀".encode("utf-16-be")),
        "payload": message(4, tlvs=((0x0424, b"x" * 300), (0x020C, b"\0\1"))),
        "data": message(0x103, tlvs=((0x0424, b"hello"),)),
        "receipt": message(5, esm_class=4, short_message=receipt, tlvs=((0x001E, b"12\0"),)),
        "answer": smpp.frame(0x80000004, 0, 5, smpp.id_body("12")),
        "enquire": smpp.frame(0x15, 0, 6) + smpp.frame(0x15, 0, 7),
    }


# --- SIP ----------------------------------------------------------------------------------------


def sip_decode(m: Any, data: bytes) -> Any:
    sip = m.sip
    buffer = bytearray(data)
    each(sip.MalformedSip, lambda: sip.take(buffer))
    message = sip.decode(data)
    if isinstance(message, sip.Request):
        source = ("192.0.2.9", 40_000)
        answer = sip.respond(message, 302, source=source, tag="t", headers=[("Contact", "<sip:a>")])
        assert sip.decode(sip.encode(answer)) == answer
        host, port = sip.answer_to(message, source)
        assert (host, 0 < port < 65_536) == ("192.0.2.9", True)
        sip.user_of(message.uri), sip.transaction(message), sip.merged(message)
    return message


def sip_encode(m: Any, record: Any) -> bytes:
    written = m.sip.encode(record)
    assert m.sip.decode(written) == record
    return bytes(written)


def sip_seeds(m: Any) -> dict[str, bytes]:
    def write(method: str, *more: str, body: bytes = b"") -> bytes:
        lines = (
            f"{method} sip:+442071838750@gw.example.net;user=phone SIP/2.0",
            "Via: SIP/2.0/UDP 10.0.0.7:5080;branch=z9hG4bK776;rport",
            "Via: SIP/2.0/TCP [2001:db8::9];branch=z9hG4bK1, SIP / 2.0 / UDP far.example.com",
            'From: "Bob, \\"x" <sip:+12025550100@10.0.0.7>;tag=19',
            "To: <sip:+442071838750@gw.example.net>",
            "Call-ID: a84b4c76e66710@10.0.0.7",
            f"CSeq: 314159 {method}",
            *more,
            f"Content-Length: {len(body)}",
        )
        decoded = m.sip.decode("\r\n".join([*lines, "", ""]).encode() + body)
        return bytes(m.sip.encode(decoded))

    invite = write("INVITE", "Max-Forwards: 70", "Contact: <sip:b@10.0.0.7>;q=0.9", body=b"v=0\r\n")
    redirect = m.sip.respond(m.sip.decode(invite), 302, source=("192.0.2.9", 5060), tag="t")
    return {
        "invite": invite,
        "ack": write("ACK"),
        "options": write("OPTIONS", "Accept: application/sdp"),
        "cancel": write("CANCEL", "Reason: SIP ;cause=200"),
        "short": b"INVITE tel:+44-20 SIP/2.0\nv: SIP/2.0/UDP pc33\n ;branch=z9hG4bKn\nf:sip:a@b;tag=8\n"
        b"t: <sip:c@d>\ni: 1\nCSeq: 1 INVITE\ns: a\n b\nl: 0\n\n",
        "redirect": m.sip.encode(redirect),
    }
