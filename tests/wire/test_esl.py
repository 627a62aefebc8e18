"""FreeSWITCH's event socket: whatever comes, it is frames and events or one clear error."""

from __future__ import annotations

import json
import os
import random
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.protocols.freeswitch_events import encode_event, frame
from tollkeeper.wire.esl import commands
from tollkeeper.wire.esl.codec import (
    HEAD_MAX,
    LINES_MAX,
    Decoder,
    Event,
    Frame,
    MalformedEsl,
    parse_event,
    parse_plain,
)
from tollkeeper.wire.esl.commands import UnsafeCommand
from tollkeeper.wire.esl.tables import parse_channels, parse_tasks

SHARED = Path(os.environ.get("TOLLKEEPER_SHARED_DATA", Path(__file__).parents[3] / "shared/data"))
DUMP = SHARED / "cdr/freeswitch/esl_01_hangupEv.txt"
UUID = "0f1b3a52-2b0d-4a8e-9d53-5ff0a3c7f1d2"

names = st.text("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_", min_size=1)
values = st.text(st.characters(exclude_categories=["Cs"]), max_size=60).map(str.strip)
pairs = st.lists(
    st.tuples(names.filter(lambda name: name not in {"_body", "Content-Length"}), values),
    min_size=1,
    max_size=20,
)


def read(data: bytes) -> list[Frame]:
    return Decoder().feed(data)


# --- frames --------------------------------------------------------------------------------------


def test_a_login_and_a_command_are_read_as_they_come() -> None:
    """Golden: what the switch says from the first byte on."""
    data = (
        b"Content-Type: auth/request\n\n"
        b"Content-Type: command/reply\nReply-Text: +OK accepted\n\n"
        b"Content-Type: api/response\nContent-Length: 4\n\ntrue"
        b"Content-Type: text/disconnect-notice\nContent-Length: 6\n\nbye.\n\n"
        b"Content-Type: text/rude-rejection\nContent-Length: 24\n\nAccess Denied, go away.\n"
    )
    frames = read(data)
    assert [one.kind for one in frames] == [
        "auth/request",
        "command/reply",
        "api/response",
        "text/disconnect-notice",
        "text/rude-rejection",
    ]
    assert frames[1].reply == "+OK accepted"
    assert frames[2].reply == "true"
    assert frames[3].text == "bye.\n\n"
    decoder = Decoder()
    single = [one for byte in data for one in decoder.feed(bytes([byte]))]
    assert single == frames


@given(st.lists(st.tuples(pairs, st.text(max_size=40)), max_size=5), st.data())
def test_events_cut_anywhere_come_whole(
    events: list[tuple[list, str]], data: st.DataObject
) -> None:
    """However the network cuts the stream, the same frames come out."""
    stream = b"".join(
        encode_event(headers, body.encode(errors="replace").decode()) for headers, body in events
    )
    decoder, found, at = Decoder(), [], 0
    while at < len(stream):
        step = data.draw(st.integers(1, len(stream) - at))
        found += decoder.feed(stream[at : at + step])
        at += step
    assert found == read(stream)
    assert len(found) == len(events)


@given(pairs, values, st.sampled_from(["plain", "json"]))
def test_an_event_is_read_as_it_was_written(
    headers: list[tuple[str, str]], body: str, form: str
) -> None:
    """Both forms, every character, repeated headers: nothing is lost."""
    (one,) = read(encode_event(headers, body, form))
    event = parse_event(one)
    found = [(name, value) for name, value in event.headers if name != "Content-Length"]
    assert sorted(found) == sorted(headers)
    for name, _ in headers:
        wanted = [value for key, value in headers if key == name]
        assert [value for key, value in found if key == name] == wanted
    assert event.body == body


@pytest.mark.parametrize(
    "data",
    [
        b"Reply-Text: +OK\n\n",
        b"Content-Type: api/response\nContent-Length: -1\n\n",
        b"Content-Type: api/response\nContent-Length: 99999999999999999999\n\n",
        b"Content-Type: api/response\nContent-Length: 4294967296\n\n",
        b"Content-Type: api/response\nContent-Length: 1e3\n\n",
        b"GET / HTTP/1.1\nHost\n\n",
        b"x" * HEAD_MAX,
        b"a: b\n" * LINES_MAX + b"\n",
        b"\xff\xfe\n\n",
    ],
)
def test_what_is_no_frame_ends_the_stream(data: bytes) -> None:
    """After one error nothing more is believed: where the next frame begins is unknown."""
    decoder = Decoder()
    with pytest.raises(MalformedEsl):
        decoder.feed(data)
    with pytest.raises(MalformedEsl):
        decoder.feed(b"Content-Type: auth/request\n\n")


def test_a_body_that_never_ends_is_refused_by_its_length() -> None:
    """A length over the bound is refused before a byte of the body came."""
    with pytest.raises(MalformedEsl, match="Content-Length"):
        Decoder(body_max=100).feed(b"Content-Type: api/response\nContent-Length: 101\n\n")


@settings(max_examples=300)
@given(st.binary(max_size=400))
def test_any_bytes_are_frames_or_one_error(data: bytes) -> None:
    """Nothing but MalformedEsl comes out of hostile bytes, at each level."""
    try:
        frames = read(data)
    except MalformedEsl:
        frames = []
    bodies = [data, *[one.body for one in frames]]
    for body in bodies:
        for reader in (
            parse_plain,
            parse_channels,
            parse_tasks,
            lambda body: parse_event(Frame("text/event-json", (), body)),
        ):
            with suppress(MalformedEsl):
                reader(body)


def test_a_damaged_event_is_an_event_or_one_error() -> None:
    """A seeded fuzz of real looking events: bytes changed, cut out, doubled."""
    dice = random.Random(20_261)
    headers = [("Event-Name", "CHANNEL_PARK"), ("Unique-ID", UUID), ("variable_x", "a b%\n")]
    whole = encode_event(headers, "body") + encode_event(headers, "body", "json")
    read_whole = 0
    for _ in range(3000):
        data = bytearray(whole)
        for _ in range(dice.randint(1, 4)):
            at = dice.randrange(len(data))
            kind = dice.randrange(3)
            if kind == 0:
                data[at] = dice.randrange(256)
            elif kind == 1:
                del data[at : at + dice.randint(1, 20)]
            else:
                data[at:at] = data[at : at + 20]
        try:
            for one in read(bytes(data)):
                assert parse_event(one).headers
                read_whole += 1
        except MalformedEsl:
            continue
    assert read_whole > 100


def test_json_with_halves_of_characters_or_nesting_is_harmless() -> None:
    """What JSON can write and a database cannot store does not come through."""
    event = parse_event(Frame("text/event-json", (), rb'{"Event-Name": "\ud800x"}'))
    assert event.name == "?x"
    for body in (b"[" * 100_000, b'{"a": [[1]]}', b'{"a": null}', b"[]", b"{}", b"1" * 10_000):
        with pytest.raises(MalformedEsl):
            parse_event(Frame("text/event-json", (), body))


def test_values_of_arrays_and_numbers() -> None:
    """FreeSWITCH writes lists as ARRAY::a|:b and "never" as 0."""
    event = Event((("variable_a", "ARRAY::1|:2"), ("n", "0"), ("m", "17"), ("x", "-1")))
    assert event.all("variable_a") == ["1", "2"]
    assert (event.number("n"), event.number("m"), event.number("x"), event.number("z")) == (
        0,
        17,
        0,
        0,
    )


@pytest.mark.skipif(not DUMP.exists(), reason="the real dumps are not here (shared data)")
def test_a_real_hangup_event_is_read() -> None:
    """The codec reads what a real switch wrote: its repeated header, its codings, its totals."""
    event = parse_plain(DUMP.read_bytes().rstrip(b"\n") + b"\n\n")
    assert event.name == "CHANNEL_HANGUP_COMPLETE"
    assert event.all("Hangup-Cause") == ["NORMAL_CLEARING"] * 2
    assert event.variable("execute_on_answer").startswith("sched_hangup +")
    assert event.number("variable_billmsec") == 65_039
    assert event.number("Caller-Channel-Answered-Time") > 10**15
    assert len(event.headers) > 280


# --- commands ------------------------------------------------------------------------------------


def test_commands_are_written_as_the_switch_wants_them() -> None:
    """Golden: the bytes of each command."""
    assert commands.auth("Clue Con") == b"auth Clue Con\n\n"
    assert commands.subscribe(["CHANNEL_PARK", "HEARTBEAT"]) == (
        b"event plain CHANNEL_PARK HEARTBEAT\n\n"
    )
    assert commands.transfer(UUID, "+44123", "carrier") == (
        f"api uuid_transfer {UUID} +44123 XML carrier\n\n".encode()
    )
    assert commands.schedule_hangup(UUID, 60, "ALLOTTED_TIMEOUT") == (
        f"api sched_hangup +60 {UUID} ALLOTTED_TIMEOUT\n\n".encode()
    )
    assert commands.background("job-1", commands.kill(UUID, "CALL_REJECTED")) == (
        f"bgapi uuid_kill {UUID} CALL_REJECTED\nJob-UUID: job-1\n\n".encode()
    )
    values = {"a": "1", "execute_on_answer_x": commands.on_answer(9, "ALLOTTED_TIMEOUT")}
    assert commands.set_variables(UUID, values) == (
        f"api uuid_setvar_multi {UUID} "
        "a=1;execute_on_answer_x=sched_hangup +9 ALLOTTED_TIMEOUT\n\n".encode()
    )
    assert commands.show("channels") == b"api show channels as json\n\n"
    assert commands.unschedule(7) == b"api sched_del 7\n\n"
    assert commands.exists(UUID) == f"api uuid_exists {UUID}\n\n".encode()
    assert commands.get_variable(UUID, "x") == f"api uuid_getvar {UUID} x\n\n".encode()
    assert commands.dump(UUID) == f"api uuid_dump {UUID}\n\n".encode()
    assert commands.api("status") == b"api status\n\n"


@pytest.mark.parametrize(
    "text",
    [
        "a\n\napi shutdown", "a\rb", "a\x00b", "a b", "", "-both", "a'b", 'a"b', "${x}", "a\\b",
        "a;b", "\u2028", "x" * 300,
    ],
)  # fmt: skip
def test_nothing_from_outside_can_begin_another_command(text: str) -> None:
    """Line ends, quotes, expansions and options in a number or an id are refused."""
    for build in (
        lambda: commands.transfer(UUID, text, "carrier"),
        lambda: commands.transfer(UUID, "44123", text),
        lambda: commands.kill(text, "CALL_REJECTED"),
        lambda: commands.kill(UUID, text),
        lambda: commands.api("uuid_exists", text),
        lambda: commands.subscribe([text]),
        lambda: commands.set_variables(UUID, {text: "1"}),
        lambda: commands.background(text, commands.api("status")),
    ):
        with pytest.raises(UnsafeCommand):
            build()
    assert not commands.extension(text)


@given(st.text(max_size=80), st.text(max_size=80), st.text(max_size=80))
def test_a_command_is_one_command(uuid: str, name: str, value: str) -> None:
    """Whatever the values, what is built is refused or has one end, at its end."""
    for build in (
        lambda: commands.set_variables(uuid, {name: value}),
        lambda: commands.transfer(uuid, name, value),
        lambda: commands.auth(value),
        lambda: commands.background(uuid, commands.kill(name, value)),
    ):
        try:
            data = build()
        except UnsafeCommand:
            continue
        assert data.endswith(b"\n\n")
        assert data.count(b"\n\n") == 1
        assert b"\r" not in data
        assert data.count(b"\n") <= 3


def test_times_and_tasks_are_bounded() -> None:
    """0 seconds would mean "now"; the bounds are those of the switch's numbers."""
    for seconds in (0, -1, 10**9):
        with pytest.raises(UnsafeCommand):
            commands.schedule_hangup(UUID, seconds, "ALLOTTED_TIMEOUT")
        with pytest.raises(UnsafeCommand):
            commands.on_answer(seconds, "ALLOTTED_TIMEOUT")
    for task in (0, -1, 2**32):
        with pytest.raises(UnsafeCommand):
            commands.unschedule(task)
    with pytest.raises(UnsafeCommand):
        commands.background("job", b"bgapi x\n\n")
    with pytest.raises(UnsafeCommand, match="bytes"):
        commands.set_variables(UUID, {f"v{n}": "x" * 500 for n in range(30)})


# --- tables --------------------------------------------------------------------------------------


def test_channels_and_tasks_are_read() -> None:
    """Golden: one channel, no channel, one task."""
    row = {"uuid": UUID, "direction": "inbound", "cid_num": "1", "dest": "2", "callstate": "ACTIVE"}
    (channel,) = parse_channels(json.dumps({"row_count": 1, "rows": [row]}).encode())
    assert (channel.uuid, channel.direction, channel.call_state) == (UUID, "inbound", "ACTIVE")
    assert parse_channels(b'{"row_count":0}') == ()
    task = {"task_id": "12", "task_group": UUID, "task_desc": "switch_ivr_schedule_hangup"}
    (found,) = parse_tasks(json.dumps({"row_count": 1, "rows": [task]}).encode())
    assert (found.id, found.group) == (12, UUID)


@pytest.mark.parametrize(
    "body",
    [
        b"", b"-ERR something\n", b'{"row_count":2,"rows":[{"uuid":"a"}]}', b'{"row_count":1}',
        b'{"rows":[]}', b'{"row_count":1,"rows":[{"direction":"inbound"}]}', b'{"row_count":1,"rows"',
        b'{"row_count":"x"}', b"[]", b'{"row_count":1,"rows":[1]}', b"[" * 50_000,
        b'{"row_count":99999999}',
    ],
)  # fmt: skip
def test_a_failed_query_is_an_error_and_not_an_empty_table(body: bytes) -> None:
    """A query that failed says nothing about calls; that none are up least of all."""
    with pytest.raises(MalformedEsl):
        parse_channels(body)


def test_replies_are_told_from_answers() -> None:
    """A command's reply is in its header, an api's in its body."""
    (reply,) = read(frame("command/reply", "", [("Reply-Text", "-ERR invalid")]))
    assert reply.reply == "-ERR invalid"
    (answer,) = read(frame("api/response", "-ERR No such channel!\n"))
    assert answer.reply == "-ERR No such channel!"
