"""SMPP's PDUs: golden bytes, round trips, and bytes that are none."""

from __future__ import annotations

import json
import os
import struct
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tollkeeper.wire.smpp import pdu as smpp
from tollkeeper.wire.smpp.pdu import Bind, Framer, MalformedPdu, Message, Pdu

SHARED = Path(
    os.environ.get("TOLLKEEPER_SHARED_DATA", Path(__file__).parents[2].parent / "shared" / "data")
)

# Written by hand after section 4.4.1: "Hi" from ACME (alphanumeric) to 447700900001, receipt asked for.
SUBMIT = bytes.fromhex(
    "00000039 00000004 00000000 00000007"
    "00"
    "05 00 41434d4500"
    "01 01 34343737303039303030303100"
    "00 00 00"
    "00 00"
    "01 00 00 00"
    "02 4869"
    "0204 0002 002a"
)
MESSAGE = Message(
    source_ton=5,
    source="ACME",
    dest_ton=1,
    dest_npi=1,
    dest="447700900001",
    registered=1,
    short_message=b"Hi",
    tlvs=((smpp.TLV_USER_REFERENCE, b"\x00\x2a"),),
)


def text(most: int) -> st.SearchStrategy[str]:
    return st.text(st.characters(min_codepoint=1, max_codepoint=255), min_size=0, max_size=most)


octet = st.integers(0, 255)
tlvs = st.lists(st.tuples(st.integers(0, 65535), st.binary(max_size=40)), max_size=8).map(tuple)
messages = st.builds(
    Message,
    service_type=text(5),
    source_ton=octet,
    source_npi=octet,
    source=text(20),
    dest_ton=octet,
    dest_npi=octet,
    dest=text(20),
    esm_class=octet,
    protocol_id=octet,
    priority=octet,
    schedule=text(16),
    validity=text(16),
    registered=octet,
    replace=octet,
    data_coding=octet,
    default_id=octet,
    short_message=st.binary(max_size=255),
    tlvs=tlvs,
)
pdus = st.builds(
    Pdu,
    st.integers(0, 2**32 - 1),
    st.integers(0, 2**32 - 1),
    st.integers(0, 2**32 - 1),
    st.binary(max_size=300),
)


def test_a_submit_is_written_as_by_hand_and_read_back() -> None:
    body = smpp.message_body(smpp.SUBMIT_SM, MESSAGE)
    assert smpp.frame(smpp.SUBMIT_SM, smpp.OK, 7, body) == SUBMIT
    read = smpp.decode(SUBMIT)
    assert (read.command, read.status, read.sequence) == (smpp.SUBMIT_SM, smpp.OK, 7)
    assert smpp.read_message(read.command, read.body) == MESSAGE
    assert MESSAGE.tlv(smpp.TLV_USER_REFERENCE) == b"\x00\x2a"
    assert MESSAGE.tlv(smpp.TLV_PAYLOAD) is None


def test_a_bind_is_written_as_by_hand_and_read_back() -> None:
    bind = Bind("esme", "secret", "VMA", 0x34, 1, 2, "^44")
    body = b"esme\0secret\0VMA\0\x34\x01\x02^44\0"
    assert smpp.bind_body(bind) == body
    assert smpp.read_bind(body) == bind


def test_responses_are_written_as_by_hand_and_read_back() -> None:
    assert smpp.bind_resp_body("us") == b"us\0\x02\x10\x00\x01\x34"
    assert smpp.id_body("abc") == b"abc\0"
    assert smpp.read_id(b"abc\0") == "abc"
    assert smpp.read_id(b"") == ""
    with pytest.raises(MalformedPdu, match="ends within message_id"):
        smpp.read_id(b"abc")
    with pytest.raises(MalformedPdu, match="longer than 64"):
        smpp.read_id(b"a" * 65 + b"\0")


@given(messages)
def test_a_submit_survives_the_wire(message: Message) -> None:
    body = smpp.message_body(smpp.SUBMIT_SM, message)
    assert smpp.read_message(smpp.SUBMIT_SM, body) == message


@given(messages, st.binary(max_size=2000))
def test_data_sm_has_fewer_fields_and_its_text_as_payload(message: Message, long: bytes) -> None:
    sent = Message(
        service_type=message.service_type,
        source_ton=message.source_ton,
        source=message.source,
        dest_npi=message.dest_npi,
        dest=message.dest,
        esm_class=message.esm_class,
        registered=message.registered,
        data_coding=message.data_coding,
        tlvs=((smpp.TLV_PAYLOAD, long),),
    )
    body = smpp.message_body(smpp.DATA_SM, sent)
    assert smpp.read_message(smpp.DATA_SM, body) == sent


@given(text(15), text(64), text(12), octet, octet, octet, text(40))
def test_a_bind_survives_the_wire(
    system_id: str, password: str, system_type: str, version: int, ton: int, npi: int, reach: str
) -> None:
    bind = Bind(system_id, password, system_type, version, ton, npi, reach)
    assert smpp.read_bind(smpp.bind_body(bind)) == bind


@given(st.lists(pdus, max_size=6), st.lists(st.integers(1, 50), min_size=1, max_size=20))
def test_a_stream_cut_anywhere_gives_the_same_pdus(sent: list[Pdu], cuts: list[int]) -> None:
    stream = b"".join(smpp.encode(pdu) for pdu in sent)
    framer, found, at = Framer(), [], 0
    for index in range(len(stream) + 1):
        size = cuts[index % len(cuts)]
        found += framer.feed(stream[at : at + size])
        at += size
        if at >= len(stream):
            break
    assert found == sent
    assert framer.pending == 0
    assert framer.broken is None


@pytest.mark.parametrize("length", [0, 1, 15, smpp.PDU_MAX + 1, 2**31, 2**32 - 1])
def test_a_length_that_cannot_be_is_refused_before_anything_is_kept(length: int) -> None:
    framer = Framer()
    good = smpp.frame(smpp.ENQUIRE_LINK, 0, 1)
    assert framer.feed(good + length.to_bytes(4, "big") + b"\xff" * 100) == [smpp.decode(good)]
    assert framer.broken is not None
    assert str(length) in framer.broken.detail
    assert framer.pending == 0
    assert framer.feed(good) == []


def test_four_gigabytes_by_header_cost_no_memory() -> None:
    tracemalloc.start()
    try:
        framer = Framer()
        assert framer.feed(struct.pack(">IIII", 0xFFFFFFFF, 4, 0, 1)) == []
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()
    assert framer.broken is not None


@pytest.mark.parametrize(
    ("body", "status", "why"),
    [
        (b"", smpp.INVALID_COMMAND_LENGTH, "ends within service_type"),
        (b"too long\0", smpp.INVALID_SERVICE_TYPE, "service_type is longer than 5"),
        (b"\0\0", smpp.INVALID_COMMAND_LENGTH, "ends before an address"),
        (b"\0\0\0" + b"1" * 21 + b"\0", smpp.INVALID_SOURCE, "source_addr is longer than 20"),
        (b"\0\0\0\0\0\0" + b"1" * 21, smpp.INVALID_DESTINATION, "destination_addr is longer"),
        (b"\0\0\0\0\0\0001\0\0", smpp.INVALID_COMMAND_LENGTH, "before esm_class"),
        (b"\0" * 9 + b"2" * 16, smpp.INVALID_COMMAND_LENGTH, "ends within schedule_delivery"),
        (b"\0" * 10 + b"2" * 17, smpp.INVALID_SCHEDULE, "schedule_delivery_time is longer"),
        (b"\0" * 11 + b"2" * 17, smpp.INVALID_VALIDITY, "validity_period is longer"),
        (b"\0" * 14, smpp.INVALID_COMMAND_LENGTH, "before sm_length"),
        (b"\0" * 16 + b"\x05abc", smpp.INVALID_MESSAGE_LENGTH, "says 5 octets and 3 are there"),
        (b"\0" * 17 + b"\x02\x04\x00", smpp.INVALID_TLV_STREAM, "is cut off"),
        (b"\0" * 17 + b"\x04\x24\xff\xffab", smpp.INVALID_TLV_LENGTH, "65535 octets and 2 are"),
        (b"\0" * 17 + b"\x04\x24\0\0" * 65, smpp.INVALID_TLV_STREAM, "more than 64"),
    ],
)
def test_a_message_with_lying_lengths_is_refused_with_its_status(
    body: bytes, status: int, why: str
) -> None:
    with pytest.raises(MalformedPdu, match=why) as refused:
        smpp.read_message(smpp.SUBMIT_SM, body)
    assert refused.value.status == status
    assert refused.value.code == "malformed_pdu"


@pytest.mark.parametrize("frame", [b"", SUBMIT[:15], SUBMIT[:-1], SUBMIT + b"x"])
def test_what_is_not_exactly_one_pdu_is_refused(frame: bytes) -> None:
    with pytest.raises(MalformedPdu):
        smpp.decode(frame)


@given(st.binary(max_size=400))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    for command in (smpp.SUBMIT_SM, smpp.DELIVER_SM, smpp.DATA_SM):
        try:
            message = smpp.read_message(command, data)
        except MalformedPdu:
            continue
        again = smpp.message_body(command, message)
        assert again == data
    for read in (smpp.read_bind, smpp.read_id, smpp.read_tlvs):
        try:
            read(data)
        except MalformedPdu:
            continue


@given(st.binary(max_size=600))
@settings(max_examples=200)
def test_any_stream_is_read_or_given_up(data: bytes) -> None:
    framer = Framer(most=512)
    found = framer.feed(data)
    assert sum(len(pdu.body) + smpp.HEADER for pdu in found) + framer.pending <= len(data)
    assert framer.pending < 512


def test_commands_and_statuses_have_names() -> None:
    assert smpp.command_name(smpp.SUBMIT_SM) == "submit_sm"
    assert smpp.command_name(smpp.SUBMIT_SM | smpp.RESPONSE) == "submit_sm_resp"
    assert smpp.command_name(smpp.GENERIC_NACK) == "generic_nack"
    assert smpp.command_name(0x777) == "0x00000777"
    assert smpp.status_name(smpp.THROTTLED) == "throttled"
    assert smpp.status_name(0x0500) == "0x00000500"


def test_a_text_longer_than_its_field_is_no_short_message() -> None:
    with pytest.raises(MalformedPdu, match="255 are the most"):
        smpp.message_body(smpp.SUBMIT_SM, Message(short_message=b"x" * 256))


def test_pdus_of_another_implementation_are_read() -> None:
    """The hexadecimal PDUs of a Node.js library, with what it says is in them."""
    found = SHARED / "protocol" / "smpp" / "node_smpp_pdu_hex.json"
    if not found.exists():
        pytest.skip("the shared protocol data is absent (TOLLKEEPER_SHARED_DATA)")
    cases = json.loads(found.read_text())
    frame = bytes.fromhex(cases[0]["hex"])
    expected = cases[0]["expected"]
    pdu = smpp.decode(frame)
    message = smpp.read_message(pdu.command, pdu.body)
    assert smpp.command_name(pdu.command) == expected["command"]
    assert pdu.sequence == expected["sequence_number"]
    assert message.source == expected["source_addr"]
    assert message.dest == expected["destination_addr"]
    assert (message.source_ton, message.dest_ton, message.dest_npi) == (1, 1, 1)
    assert (message.esm_class, message.data_coding) == (64, 1)
    assert message.short_message[1:4].hex() == expected["udh_hex"]
    suffix = bytes.fromhex(cases[1]["hex_suffix_tlv"])
    longer = (71).to_bytes(4, "big") + frame[4:] + suffix
    pdu = smpp.decode(longer)
    assert smpp.read_message(pdu.command, pdu.body).tlv(smpp.TLV_PAYLOAD) == b"test"
    short = smpp.decode(bytes.fromhex(cases[2]["hex"]))
    assert smpp.command_name(short.command) == "query_sm_resp"


def test_a_captured_conversation_is_read() -> None:
    """Every SMPP packet of a real capture: bind, enquire_link, submit_sm, unbind and their answers."""
    found = SHARED / "protocol" / "pcap" / "ndpi_smpp_in_general.pcap"
    if not found.exists():
        pytest.skip("the shared protocol data is absent (TOLLKEEPER_SHARED_DATA)")
    names = []
    for payload in _tcp_payloads(found.read_bytes()):
        framer = Framer()
        for pdu in framer.feed(payload):
            names.append(smpp.command_name(pdu.command))
            if pdu.command == smpp.BIND_TRANSMITTER:
                assert smpp.bind_body(smpp.read_bind(pdu.body)) == pdu.body
            if pdu.command == smpp.SUBMIT_SM:
                message = smpp.read_message(pdu.command, pdu.body)
                assert smpp.message_body(pdu.command, message) == pdu.body
    assert names == [
        "bind_transmitter", "bind_transmitter_resp", "enquire_link", "enquire_link_resp",
        "submit_sm", "submit_sm_resp", "unbind", "unbind_resp",
    ]  # fmt: skip


def _tcp_payloads(capture: bytes) -> list[bytes]:
    """The payloads of a little-endian pcap of Ethernet, IPv4 and TCP."""
    found, at = [], 24
    while at < len(capture):
        size = struct.unpack_from("<I", capture, at + 8)[0]
        packet = capture[at + 16 : at + 16 + size]
        at += 16 + size
        ip = packet[14:]
        total = struct.unpack_from(">H", ip, 2)[0]
        start = (ip[0] & 15) * 4
        tcp = ip[start:total]
        if payload := tcp[(tcp[12] >> 4) * 4 :]:
            found.append(payload)
    return found
