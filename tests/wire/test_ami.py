"""The manager interface: messages with repeated names, actions that cannot be broken out of, lists."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tollkeeper.wire.asterisk import ami

BANNER = b"Asterisk Call Manager/7.0.3\r\n"
SENDABLE = st.text(
    st.characters(exclude_characters="\r\n\0", exclude_categories=["Cs"]), max_size=80
)


def read(data: bytes) -> list[ami.Banner | ami.Message]:
    """What a fresh decoder makes of it behind a greeting."""
    return ami.Decoder().feed(BANNER + data)[1:]


def message(*headers: tuple[str, str]) -> ami.Message:
    """A message of these lines."""
    (found,) = read(ami.message_bytes(headers))
    assert isinstance(found, ami.Message)
    return found


def show(uniqueid: str, *, action_id: str = "7", state: str = "6") -> ami.Message:
    """One line of a list."""
    return message(
        ("Event", "CoreShowChannel"), ("ActionID", action_id), ("Channel", f"PJSIP/a-{uniqueid}"),
        ("ChannelState", state), ("Uniqueid", uniqueid), ("Linkedid", uniqueid),
        ("BridgeId", "b1"), ("Duration", "01:02:05"),
    )  # fmt: skip


def complete(items: str, *, action_id: str = "7", how: str = "Complete") -> ami.Message:
    """The end of a list."""
    return message(
        ("Event", "CoreShowChannelsComplete"), ("ActionID", action_id), ("EventList", how),
        ("ListItems", items),
    )  # fmt: skip


def test_the_greeting_and_messages_come_whatever_way_they_are_cut() -> None:
    """Byte by byte or at once."""
    stream = (
        BANNER + b"Response: Success\r\nActionID: 1\r\n\r\nEvent: FullyBooted\r\nUptime: 5\r\n\r\n"
    )
    decoder = ami.Decoder()
    found = [record for byte in stream for record in decoder.feed(bytes((byte,)))]
    assert found == ami.Decoder().feed(stream)
    assert found[0] == ami.Banner("7.0.3")
    assert [type(one) for one in found] == [ami.Banner, ami.Message, ami.Message]


def test_names_may_repeat_and_case_does_not_matter() -> None:
    """``ChanVariable`` comes once for each variable."""
    found = message(
        ("Event", "Hangup"), ("UniqueID", "1.2"), ("ChanVariable", "TK_SESSION=s=1"),
        ("ChanVariable", "TK_PARTY=acme"), ("Cause-txt", "Normal: Clearing"),
    )  # fmt: skip
    assert found.get("Uniqueid") == "1.2"
    assert found.variable("TK_SESSION") == "s=1"
    assert (found.variable("TK_PARTY"), found.variable("TK")) == ("acme", "")
    assert found.get("Cause-txt") == "Normal: Clearing"
    assert found.all("chanvariable") == ("TK_SESSION=s=1", "TK_PARTY=acme")


def test_the_raw_output_of_a_command_does_not_break_the_stream() -> None:
    """Lines without a name are kept as they are."""
    found = read(b"Response: Follows\r\nPrivilege: Command\r\nno channels\n--END COMMAND--\r\n\r\n")
    assert found == [
        ami.Message(
            (("Response", "Follows"), ("Privilege", "Command"), ("", "no channels"),
             ("", "--END COMMAND--"))
        )
    ]  # fmt: skip


@pytest.mark.parametrize(
    "stream",
    [
        b"HTTP/1.1 200 OK\r\n",
        b"\r\n",
        b"x" * 300,
        BANNER + b"x" * (ami.LINE_MAX + 2),
        BANNER + b"a: b\r\n" * (ami.HEADERS_MAX + 1),
        BANNER + (b"a: " + b"x" * 60_000 + b"\r\n") * 5,
    ],
)
def test_what_is_no_manager_interface_is_refused_for_good(stream: bytes) -> None:
    """And the decoder keeps nothing of it."""
    decoder = ami.Decoder()
    with pytest.raises(ami.MalformedAmi):
        decoder.feed(stream)
    with pytest.raises(ami.MalformedAmi):
        decoder.feed(BANNER)


@given(st.lists(st.tuples(st.from_regex(r"[A-Z][A-Za-z0-9_-]{0,10}", fullmatch=True), SENDABLE), max_size=9))  # fmt: skip
def test_an_action_is_one_message_with_the_lines_it_was_given(
    headers: list[tuple[str, str]],
) -> None:
    """No value can add a line or end the action."""
    data = ami.action("Ping", "a-1", headers)
    (found,) = read(data)
    assert found == ami.Message((("Action", "Ping"), ("ActionID", "a-1"), *headers))


@pytest.mark.parametrize("value", ["x\r\nAction: Command", "x\ny", "x\0y", "x" * 2000])
def test_a_value_cannot_begin_another_action(value: str) -> None:
    """It is refused, as is a line longer than Asterisk reads."""
    with pytest.raises(ValueError, match=r"line end|longer"):
        ami.action("Setvar", "1", (("Value", value),))


def test_actions_look_as_asterisk_documents_them() -> None:
    """Golden bytes; a limit has thousandths of a second and is never 0, which would lift it."""
    assert ami.set_timeout("9", "PJSIP/a-1", 61_500) == (
        b"Action: Setvar\r\nActionID: 9\r\nChannel: PJSIP/a-1\r\n"
        b"Variable: TIMEOUT(absolute)\r\nValue: 61.500\r\n\r\n"
    )
    assert ami.hangup("9", "PJSIP/a-1", 21).endswith(b"Channel: PJSIP/a-1\r\nCause: 21\r\n\r\n")
    assert b"Events: on\r\n" in ami.login("1", "tollkeeper", "s")
    for wrong in (0, -1):
        with pytest.raises(ValueError, match="limit"):
            ami.set_timeout("9", "PJSIP/a-1", wrong)


@pytest.mark.parametrize("channel", ["", "/^PJSIP/.*/", "/x/"])
def test_only_one_channel_can_be_hung_up(channel: str) -> None:
    """Asterisk takes a name between slashes for a pattern that ends many calls."""
    with pytest.raises(ValueError, match="pattern"):
        ami.hangup("1", channel, 21)


def test_a_complete_list_is_one_whose_number_is_right() -> None:
    """Others' messages are not taken."""
    found = ami.ChannelList("7")
    assert found.take(message(("Response", "Success"), ("ActionID", "7"), ("EventList", "start")))
    assert found.take(show("1.1"))
    assert not found.take(show("1.9", action_id="8"))
    assert not found.complete
    assert found.take(complete("1"))
    assert (found.complete, found.failed) == (True, "")
    (one,) = found.channels
    assert (one.uniqueid, one.answered, one.bridged, one.seconds) == ("1.1", True, True, 3725)


@pytest.mark.parametrize(
    "messages",
    [
        (show("1.1"), complete("2")),
        (show("1.1"), complete("1", how="cancelled")),
        (show("1.1", state="x"), complete("1")),
        (complete(""),),
        (message(("Response", "Error"), ("ActionID", "7"), ("Message", "Permission denied")),),
    ],
)
def test_a_list_that_failed_in_any_way_says_so(messages: tuple[ami.Message, ...]) -> None:
    """What it does not name may well be alive."""
    found = ami.ChannelList("7")
    for one in messages:
        assert found.take(one)
    assert found.complete
    assert found.failed


@pytest.mark.parametrize(("text", "seconds"), [("00:00:04", 4), ("100:00:00", 360_000), ("4", None), ("00:61:00", None)])  # fmt: skip
def test_durations_are_clock_times(text: str, seconds: int | None) -> None:
    """Hours may have more than two digits."""
    assert ami.clock_seconds(text) == seconds


@given(st.binary(max_size=4000))
def test_any_bytes_give_records_or_the_one_error(data: bytes) -> None:
    """With and without a greeting before them."""
    for before in (b"", BANNER):
        try:
            found = ami.Decoder().feed(before + data)
        except ami.MalformedAmi:
            continue
        for one in found:
            if isinstance(one, ami.Message):
                ami.channel_of(one)
                ami.ChannelList(one.action_id).take(one)
