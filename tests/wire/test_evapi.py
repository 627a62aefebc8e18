"""Netstrings and messages of Kamailio's evapi: what is sent is read back, and nothing hostile gets through."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tollkeeper.wire.kamailio import evapi
from tollkeeper.wire.kamailio.evapi import (
    FRAME_MAX,
    Answer,
    Authorise,
    ByeSent,
    Call,
    Done,
    End,
    Failed,
    Framer,
    Heard,
    Limit,
    MalformedEvapi,
    Ping,
    Started,
    Stopped,
    call_of,
    decode,
    decode_ours,
    encode,
    instant,
)

TEXTS = st.text(max_size=60)
NUMBERS = st.integers(0, 2**32 - 1)
CALLS = st.builds(
    Call, TEXTS, TEXTS, TEXTS, TEXTS, TEXTS, TEXTS, TEXTS, h_entry=NUMBERS, h_id=NUMBERS
)


def reports(kind: type[evapi.Report]) -> st.SearchStrategy[evapi.Report]:
    return st.builds(
        kind, id=TEXTS, at=TEXTS, call_id=TEXTS, from_tag=TEXTS, to_tag=TEXTS, session=TEXTS,
        answered=TEXTS, h_entry=NUMBERS, h_id=NUMBERS, method=TEXTS, code=NUMBERS, open=NUMBERS,
    )  # fmt: skip


THEIRS = st.one_of(
    st.builds(Authorise, NUMBERS, NUMBERS, CALLS),
    *(reports(kind) for kind in (Started, Stopped, Failed, ByeSent)),
    st.builds(Done, TEXTS, NUMBERS, TEXTS),
)
OURS = st.one_of(
    st.builds(Answer, NUMBERS, NUMBERS, NUMBERS, NUMBERS, TEXTS, TEXTS, NUMBERS, TEXTS),
    st.builds(Heard, TEXTS),
    st.builds(Limit, TEXTS, NUMBERS, NUMBERS, NUMBERS),
    st.builds(End, TEXTS, NUMBERS, NUMBERS),
    st.builds(Ping, TEXTS, TEXTS),
)


def only(data: bytes) -> bytes:
    (frame,) = Framer().feed(data)
    return frame


@given(THEIRS)
def test_what_kamailio_says_is_read_back(message: evapi.FromKamailio) -> None:
    assert decode(only(encode(message))) == message


@given(OURS)
def test_what_we_say_is_read_back(message: evapi.ToKamailio) -> None:
    assert decode_ours(only(encode(message))) == message


@given(st.lists(OURS, max_size=6), st.data())
def test_messages_arrive_whole_however_the_stream_is_cut(
    messages: list[evapi.ToKamailio], data: st.DataObject
) -> None:
    stream = b"".join(encode(message) for message in messages)
    framer, frames = Framer(), []
    while stream:
        size = data.draw(st.integers(1, len(stream)))
        frames += framer.feed(stream[:size])
        stream = stream[size:]
    assert [decode_ours(frame) for frame in frames] == messages


def test_the_question_of_a_real_kamailio_is_understood() -> None:
    frame = (
        b'{"op":"authorise","index":58368,"label":833119652,"call":{"call_id":"1-22652@192.0.2.7",'
        b'"from_tag":"c22652x1","caller":"bob \\"x\\"","called":"442071838750","source":"192.0.2.7",'
        b'"at":"1795284835.794478","h_entry":969,"h_id":4402}}'
    )
    asked = decode(only(b"%d:%b," % (len(frame), frame)))
    assert isinstance(asked, Authorise)
    assert (asked.index, asked.label) == (58368, 833119652)
    assert (asked.call.caller, asked.call.account) == ('bob "x"', "")
    assert instant(asked.call.at) == datetime(2026, 11, 21, 18, 13, 55, 794478, tzinfo=UTC)


def test_an_answer_is_written_as_the_configuration_reads_it() -> None:
    body = (
        b'{"op":"answer","index":1,"label":2,"allow":1,"seconds":60,"session":"s","account":"acme"}'
    )
    answer = Answer(1, 2, 1, seconds=60, session="s", account="acme")
    assert encode(answer) == b"%d:%b," % (len(body), body)
    assert encode(Heard("7")) == b'23:{"op":"heard","id":"7"},'


@pytest.mark.parametrize(
    "data",
    [
        b"x",
        b":",
        b"-1:a,",
        b"+3:abc,",
        b"01:a,",
        b"1:ab",
        b"99999999999999999999:",
        b"12345678",
        b"%d:" % (FRAME_MAX + 1),
        b"GET / HTTP/1.1\r\n",
        b"\xff" * 50,
        b" 3:abc,",
        "٣:abc,".encode(),
    ],
)
def test_bytes_that_are_no_netstring_are_refused(data: bytes) -> None:
    with pytest.raises(MalformedEvapi):
        Framer().feed(data)


def test_a_header_that_promises_much_takes_no_memory_for_it() -> None:
    framer = Framer()
    assert framer.feed(b"%d:" % FRAME_MAX) == []
    assert len(framer._held) < 16
    assert framer.feed(b"a" * FRAME_MAX) == []
    assert framer.feed(b",") == [b"a" * FRAME_MAX]
    assert len(framer._held) == 0


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b"[]",
        b"7",
        b"{}",
        b'{"op":"unknown"}',
        b'{"op":"answer","index":1,"label":2,"allow":1}',
        b'{"op":"done","id":"1","ok":-1}',
        b'{"op":"done","id":"1","ok":4294967296}',
        b'{"op":"done","id":1,"ok":1}',
        b'{"op":"authorise","index":1,"label":2,"call":{}}',
        b'{"op":"done","id":"\xff","ok":1}',
        b'{"op":"done","id":"1","ok":1} {',
        b'{"op":"done","id":"%b","ok":1}' % (b"x" * 5000),
        b'{"op":"done","x":' + b"[" * 60_000,
    ],
)
def test_a_message_that_is_none_of_ours_is_refused(frame: bytes) -> None:
    with pytest.raises(MalformedEvapi):
        decode(frame)


@given(st.binary(max_size=300))
def test_any_bytes_are_frames_or_malformed(data: bytes) -> None:
    framer = Framer()
    try:
        frames = framer.feed(data)
    except MalformedEvapi:
        return
    assert sum(map(len, frames)) + len(framer._held) <= len(data)


@given(st.binary(max_size=200) | st.builds(encode, THEIRS).map(lambda data: data[:-9]))
def test_any_frame_is_a_message_or_malformed(frame: bytes) -> None:
    try:
        message = decode(frame)
    except MalformedEvapi:
        return
    assert decode(only(encode(message))) == message


def test_the_call_of_an_unasked_report_is_read_from_its_text() -> None:
    call = Call("c1", called="4420", source="192.0.2.7")
    text = msgspec.json.encode(call).decode()
    assert call_of(Stopped(id="1", at="", call_id="c1", open=1, call=text)) == call
    assert call_of(Stopped(id="1", at="", call_id="c1")) is None
    with pytest.raises(MalformedEvapi):
        call_of(Stopped(id="1", at="", call_id="c1", open=1, call="{"))


@pytest.mark.parametrize(
    ("text", "micros"),
    [("0.5", 500_000), ("1.000001", 1_000_001), ("2", 2_000_000), ("3.1234567", 3_123_456)],
)
def test_a_moment_is_read_to_the_microsecond(text: str, micros: int) -> None:
    moment = instant(text)
    assert moment is not None
    assert (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1) == micros


@given(st.text(max_size=40))
def test_any_text_is_a_moment_or_none(text: str) -> None:
    moment = instant(text)
    assert moment is None or moment.tzinfo is UTC


@pytest.mark.parametrize("text", ["", ".5", "-1", "1.x", "9" * 31, "²", "1e3", "<null>"])
def test_what_is_no_moment_is_none(text: str) -> None:
    assert instant(text) is None
