"""Text, parts and segments of SMPP messages, counted by hand; delivery receipts."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tollkeeper.core.messages import segments
from tollkeeper.wire.smpp import pdu as smpp
from tollkeeper.wire.smpp.pdu import MalformedPdu, Message
from tollkeeper.wire.smpp.receipt import Receipt, canonical_id, read_receipt, receipt_parts
from tollkeeper.wire.smpp.text import (
    GSM,
    Part,
    content_of,
    count_segments,
    gsm_bytes,
    gsm_text,
    part_of,
    text_of,
)

CONCAT_8 = bytes.fromhex("050003 2a 02 01")
CONCAT_16 = bytes.fromhex("060804 012a 02 02")
PORTS = bytes.fromhex("06 05 04 0b84 23f0")


def short(text: bytes, coding: int = 0, header: bytes = b"") -> Message:
    return Message(
        data_coding=coding, esm_class=smpp.UDHI if header else 0, short_message=header + text
    )


def payload(text: bytes, coding: int = 0, header: bytes = b"") -> Message:
    return Message(
        data_coding=coding,
        esm_class=smpp.UDHI if header else 0,
        tlvs=((smpp.TLV_PAYLOAD, header + text),),
    )


def sar(text: bytes, total: int, number: int, coding: int = 0) -> Message:
    tlvs = ((0x020C, b"\x01\x02"), (0x020E, bytes((total,))), (0x020F, bytes((number,))))
    return Message(data_coding=coding, short_message=text, tlvs=tlvs)


BY_HAND = [
    pytest.param(short(b""), 1, id="an empty text is sent as well"),
    pytest.param(short(b"a" * 160), 1, id="160 septets, an octet each"),
    pytest.param(short(b"a" * 161), 2, id="161 do not fit"),
    pytest.param(short(b"\x1be" * 80), 1, id="80 euros are 160 septets"),
    pytest.param(short(b"\x1be" * 81), 2, id="81 are not"),
    # 152 a, then a pair at 153/154 that is not cut: 152, 153, 1
    pytest.param(payload(b"a" * 152 + b"\x1be" + b"a" * 152), 3, id="an escape is not cut"),
    pytest.param(short("\u0159".encode("utf-16-be") * 70, 8), 1, id="70 units of UCS-2"),
    pytest.param(short("\u0159".encode("utf-16-be") * 71, 8), 2, id="71 are two"),
    pytest.param(payload("\U0001f44d".encode("utf-16-be") * 36, 8), 2, id="36 emoji are two"),
    # ASCII, but coded as UCS-2 by its sender: it goes out as that
    pytest.param(short("a".encode("utf-16-be") * 71, 8), 2, id="the coding sent is the one counted"),
    pytest.param(short(b"\xe7" * 70, 3), 1, id="Latin-1 beyond GSM goes as UCS-2: 70 fit"),
    pytest.param(short(b"\xe7" * 71, 3), 2, id="and 71 do not"),
    pytest.param(short(b"a" * 160, 3), 1, id="Latin-1 within GSM"),
    pytest.param(short(b"[" * 81, 1), 2, id="ASCII brackets take two septets"),
    pytest.param(short(b"\xd0" * 71, 6), 2, id="Cyrillic goes as UCS-2"),
    pytest.param(short(b"x" * 140, 4), 1, id="140 octets of binary"),
    pytest.param(short(b"x" * 141, 4), 2, id="141 are two of 134 and 7"),
    pytest.param(short(b"x" * 141, 14), 2, id="Korean as octets"),
    pytest.param(short(b"a" * 160, 0x10), 1, id="flash in GSM"),
    pytest.param(short(b"a\0" * 71, 0x18), 2, id="flash in UCS-2"),
    pytest.param(short(b"x" * 141, 0xF5), 2, id="class 1, 8 bit"),
    pytest.param(short(b"x" * 160, 0xF1), 1, id="class 1, GSM"),
    pytest.param(short(b"x" * 141, 0x24), 2, id="compressed counts as octets"),
    pytest.param(short(b"x" * 160, 0xC8), 1, id="message waiting, GSM"),
    pytest.param(short(b"\0x" * 71, 0xE0), 2, id="message waiting, UCS-2"),
    pytest.param(short(b"x" * 141, 0x85), 2, id="reserved counts as octets"),
    # (140 - 6) x 8 / 7 = 153
    pytest.param(short(b"a" * 153, 0, CONCAT_8), 1, id="a part of 153 is one"),
    pytest.param(short(b"a" * 154, 0, CONCAT_8), 2, id="a part that does not fit is two"),
    # (140 - 7) x 8 / 7 = 152
    pytest.param(short(b"a" * 152, 0, CONCAT_16), 1, id="152 with a reference of 16 bits"),
    pytest.param(short(b"x" * 133, 8 - 4, CONCAT_16), 1, id="133 octets with it"),
    pytest.param(short(b"\0x" * 67, 8, CONCAT_8), 1, id="67 units in a part"),
    pytest.param(short(b"\0x" * 68, 8, CONCAT_8), 2, id="68 are not one"),
    # ports alone: 133 octets, cut with a longer header: 128
    pytest.param(short(b"x" * 133, 4, PORTS), 1, id="ports leave 133"),
    pytest.param(payload(b"x" * 134, 4, PORTS), 2, id="and parts of 128"),
    pytest.param(payload(b"x" * 257, 4, PORTS), 3, id="257 octets are three of 128"),
    pytest.param(sar(b"a" * 153, 2, 1), 1, id="SAR: a part"),
    pytest.param(sar(b"a" * 154, 2, 1), 2, id="SAR: a part that does not fit"),
    pytest.param(sar(b"a" * 160, 2, 3), 1, id="SAR: part 3 of 2 is none"),
    # 10 x 153 = 1530, 70 more
    pytest.param(payload(b"a" * 1600), 11, id="a payload of 1,600 septets"),
    pytest.param(payload(b"a" * 39015), 255, id="the longest"),
    pytest.param(payload(b"a" * 60000, 0, b"\x05\x00\x03\x01\x01\x01"), 0, id="a lying part"),
]  # fmt: skip


@pytest.mark.parametrize(("message", "count"), BY_HAND)
def test_segments_come_out_as_by_hand(message: Message, count: int) -> None:
    if count:
        assert count_segments(message) == count
    else:
        with pytest.raises(MalformedPdu, match="255 segments"):
            count_segments(message)


def test_a_latin_default_alphabet_is_an_option() -> None:
    """The same 71 octets: GSM septets for one SMSC, Latin-1 beyond GSM for another."""
    assert count_segments(short(b"\xe7" * 71)) == 1
    assert count_segments(short(b"\xe7" * 71), latin_default=True) == 2
    assert text_of(short(b"\xe7"), latin_default=True) == "\u00e7"


@pytest.mark.parametrize(
    ("message", "status", "why"),
    [
        (short(b"abc", 8), 0x01, "an odd number"),
        (payload(b"a" * 39016), 0x01, "255 segments"),
        (payload(b"\xe7" * 60000, 3), 0x01, "39,015 are the most"),
        (Message(esm_class=0x40), 0x43, "header is longer"),
        (short(b"", 0, b"\x0a\x00\x03"), 0x43, "header is longer"),
        (payload(b"", 4, bytes((200,)) + b"\0" * 200), 0x01, "255 segments"),
        (
            Message(short_message=b"a", tlvs=((smpp.TLV_PAYLOAD, b"b"),)),
            0x01,
            "send one",
        ),
    ],
)
def test_text_that_cannot_be_is_refused(message: Message, status: int, why: str) -> None:
    with pytest.raises(MalformedPdu, match=why) as refused:
        count_segments(message)
    assert refused.value.status == status


@pytest.mark.parametrize(
    ("message", "part"),
    [
        (short(b"a", 0, CONCAT_8), Part(0x2A, 2, 1)),
        (short(b"a", 0, CONCAT_16), Part(0x012A, 2, 2)),
        (short(b"a", 0, bytes.fromhex("0b 0504 0b8423f0 0003 07 03 02")), Part(7, 3, 2)),
        (sar(b"a", 4, 3), Part(0x0102, 4, 3)),
        (sar(b"a", 4, 5), None),
        (sar(b"a", 4, 0), None),
        (short(b"a", 0, PORTS), None),
        (short(b"a", 0, bytes.fromhex("04 00 03 2a 02")), None),
        (short(b"a"), None),
    ],
)
def test_parts_are_known_by_header_or_by_parameters(message: Message, part: Part | None) -> None:
    assert part_of(message, content_of(message)) == part


@given(st.text(alphabet=f"{GSM.replace(chr(27), '')}^{{}}[~]|\u20ac\\\f", max_size=900))
def test_gsm_text_survives_its_coding_and_counts_as_the_text_does(text: str) -> None:
    coded = gsm_bytes(text)
    assert coded is not None
    assert gsm_text(coded) == text
    assert count_segments(payload(coded)) == segments(text).segments


@given(st.text(alphabet="a\u0159\U0001f44d", min_size=1, max_size=400))
def test_ucs2_counts_as_its_text_does(text: str) -> None:
    if segments(text).encoding == "ucs2":
        coded = text.encode("utf-16-be")
        assert count_segments(payload(coded, 8)) == segments(text).segments


@given(st.binary(max_size=400), st.integers(0, 255), st.integers(0, 255))
def test_any_text_is_counted_or_refused(data: bytes, coding: int, esm_class: int) -> None:
    message = Message(data_coding=coding, esm_class=esm_class, tlvs=((smpp.TLV_PAYLOAD, data),))
    try:
        found = count_segments(message)
    except MalformedPdu:
        pass
    else:
        assert 1 <= found <= 255
        # Never fewer than the octets need, were they packed septets.
        content = content_of(message)
        assert found >= -(-len(content.text) // 160)
        part_of(message, content)
    try:
        text_of(message)
        read_receipt(message)
    except MalformedPdu:
        assert esm_class & smpp.UDHI


def test_text_is_decoded_for_people() -> None:
    assert text_of(short(b"\x00\x1be\x1b\x41")) == "@\u20acA"
    assert text_of(short(b"\xff\x1b\xff")) == "\ufffd\ufffd"
    assert text_of(short("\u0159".encode("utf-16-be"), 8)) == "\u0159"
    assert text_of(short(b"\x01\x02", 4)) == "0102"
    assert gsm_bytes("\u0159") is None


# --- receipts ------------------------------------------------------------------------------------

AT = datetime(2026, 11, 21, 18, 5, tzinfo=UTC)
TEXT = (
    b"id:1234 sub:001 dlvrd:001 submit date:2611211805 done date:2611211806 stat:UNDELIV err:069 "
    b"text:id:99 stat:DELIVRD"
)


def receipt(text: bytes, *tlvs: tuple[int, bytes], esm_class: int = smpp.RECEIPT) -> Message:
    return Message(esm_class=esm_class, short_message=text, tlvs=tlvs)


def test_a_receipt_is_read_and_the_message_that_it_quotes_is_not() -> None:
    found = read_receipt(receipt(TEXT))
    assert found == Receipt("1234", "UNDELIV", "069")
    assert found.final
    assert found.undelivered


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (receipt(b"ID:7 STAT:delivered ERR:0"), Receipt("7", "DELIVRD", "0")),
        (receipt(b"stat:ACCEPTD id:7"), Receipt("7", "ACCEPTD")),
        (receipt(b"id: 7 stat: EXPIRED"), Receipt("7", "EXPIRED")),
        (receipt(b"id:7"), Receipt("7", "UNKNOWN")),
        (receipt(b"", (0x1E, b"7\0"), (0x427, b"\x05")), Receipt("7", "UNDELIV")),
        (receipt(TEXT, (0x1E, b"7\0"), (0x427, b"\x02")), Receipt("7", "DELIVRD", "069")),
        (receipt(TEXT, (0x427, b"\x63")), Receipt("1234", "UNDELIV", "069")),
        (receipt(b"", (0x1E, b"7\0"), (0x427, b"\x08"), esm_class=0), Receipt("7", "REJECTD")),
        (receipt(TEXT, esm_class=0x20), Receipt("1234", "UNDELIV", "069", intermediate=True)),
        (receipt(TEXT, esm_class=0), None),
        (receipt(b"no id here stat:DELIVRD"), None),
        (receipt(b"paid:7 stat:DELIVRD"), None),
    ],
)
def test_receipts_of_many_makes_are_read(message: Message, expected: Receipt | None) -> None:
    assert read_receipt(message) == expected


def test_a_receipt_is_written_as_it_is_read() -> None:
    sent = Receipt("01928f", "REJECTD", "011")
    text, tlvs = receipt_parts(sent, submitted=AT, done=AT, text=b"Hello")
    assert text == (
        b"id:01928f sub:001 dlvrd:000 submit date:2611211805 done date:2611211805 "
        b"stat:REJECTD err:011 text:Hello"
    )
    assert read_receipt(receipt(text, *tlvs)) == sent
    assert read_receipt(receipt(text)) == sent
    with pytest.raises(MalformedPdu, match="64 are the most"):
        receipt_parts(Receipt("x" * 65, "DELIVRD"), submitted=AT, done=AT)


def test_states_say_whether_more_is_to_come() -> None:
    assert not Receipt("1", "ENROUTE").final
    assert not Receipt("1", "ACCEPTD").final
    assert Receipt("1", "DELIVRD").final
    assert not Receipt("1", "DELIVRD").undelivered
    assert not Receipt("1", "UNKNOWN").undelivered


def test_ids_in_hexadecimal_and_decimal_are_the_same() -> None:
    assert canonical_id("00FF", 16) == canonical_id("255", 10) == "255"
    assert canonical_id("00FF", 0) == "00FF"
    assert canonical_id("a-b", 16) == "a-b"
    assert canonical_id("\u0661", 10) == "\u0661"
