"""FastAGI: what Asterisk sends is read or refused, and nothing that is sent says more than it should."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tollkeeper.wire.asterisk import agi

CALL = (
    b"agi_network: yes\nagi_network_script: authorise\nagi_request: agi://127.0.0.1/authorise\n"
    b"agi_channel: PJSIP/acme-00000002\nagi_language: en\nagi_type: PJSIP\n"
    b"agi_uniqueid: 1700000000.2\nagi_version: 20.5.0\nagi_callerid: 442071838750\n"
    b"agi_calleridname: Acme: sales\nagi_callingpres: 0\nagi_dnid: 4512345678\nagi_rdnis: unknown\n"
    b"agi_context: from-acme\nagi_extension: 4512345678\nagi_priority: 2\nagi_enhanced: 0.0\n"
    b"agi_accountcode: acme\nagi_threadid: 139812\nagi_arg_1: party=acme\nagi_arg_2: \n\n"
)
SENDABLE = st.text(
    st.characters(exclude_characters="\r\n\0", exclude_categories=["Cs"]), max_size=80
)


def started() -> agi.Decoder:
    """A decoder that has read its environment."""
    decoder = agi.Decoder()
    decoder.feed(b"agi_request: x\n\n")
    return decoder


def test_the_environment_is_read_with_its_arguments() -> None:
    """Values keep colons; "unknown" says nothing; arguments stop at the first that is missing."""
    (env,) = agi.Decoder().feed(CALL)
    assert isinstance(env, agi.Environment)
    assert env.script == "authorise"
    assert (env["channel"], env["uniqueid"]) == ("PJSIP/acme-00000002", "1700000000.2")
    assert (env["calleridname"], env["rdnis"], env["nothing"]) == ("Acme: sales", "", "")
    assert env.arguments == ("party=acme", "")


def test_bytes_may_come_one_at_a_time() -> None:
    """However a stream is cut, the same records come out."""
    decoder = agi.Decoder()
    stream = CALL + b"200 result=1 (61)\nHANGUP\n200 result=0\n"
    found = [record for byte in stream for record in decoder.feed(bytes((byte,)))]
    assert found == agi.Decoder().feed(stream)
    assert found[1:] == [agi.Reply(200, "1", "61"), agi.Hungup(), agi.Reply(200, "0")]


@pytest.mark.parametrize(
    ("line", "reply"),
    [
        (b"200 result=1\n", agi.Reply(200, "1")),
        (b"200 result=0\r\n", agi.Reply(200, "0")),
        (b"200 result=1 (a (b) c)\n", agi.Reply(200, "1", "a (b) c")),
        (b"200 result=1 ()\n", agi.Reply(200, "1", "")),
        (b"200 result=0 endpos=1234\n", agi.Reply(200, "0", "", "endpos=1234")),
        (b"200 result=-1 (hangup) endpos=0\n", agi.Reply(200, "-1", "hangup", "endpos=0")),
        (b"510 Invalid or unknown command\n", agi.Reply(510, text="Invalid or unknown command")),
        (
            b"511 Command Not Permitted on a dead channel\n",
            agi.Reply(511, text="Command Not Permitted on a dead channel"),
        ),
        (
            b"520-Invalid command syntax.  Proper usage follows:\n200 result=1\n520 End of it.\n",
            agi.Reply(520, text="Invalid command syntax.  Proper usage follows:"),
        ),
    ],
)
def test_answers_are_read(line: bytes, reply: agi.Reply) -> None:
    """Each form that res_agi writes."""
    assert started().feed(line) == [reply]


def test_a_variable_that_is_not_set_has_no_value() -> None:
    """An empty value is a value."""
    assert agi.Reply(200, "1", "").value == ""
    assert agi.Reply(200, "0").value is None
    assert not agi.Reply(200, "-1").ok


@pytest.mark.parametrize(
    "stream",
    [
        b"\n",
        b"GET / HTTP/1.1\r\n",
        b"agi_uniqueid: 1\nagi_uniqueid: 2\n",
        b"agi_arg_1: a\nagi_priority: 1\n",
        b"agi_arg_2: account=other\n",
        b"agi_arg_1: a\nagi_arg_3: b\n",
        b"agi_arg_1: a\nagi_arg_x: b\n",
        b"agi_arg_1: a\nagi_2: b\n",
        b"agi_request: x\n\nhello\n",
        b"agi_request: x\n\n2000 result=1\n",
        b"x" * (agi.LINE_MAX + 2),
        b"agi_request: " + b"x" * agi.LINE_MAX + b"\n",
        b"".join(b"agi_x%d: x\n" % n for n in range(1000)),
        b"agi_request: x\n\n520-usage\n" + b"x\n" * 1000,
    ],
)
def test_what_is_no_fastagi_is_refused_for_good(stream: bytes) -> None:
    """A repeated name too: a caller's name with a line end in it may have written it."""
    decoder = agi.Decoder()
    with pytest.raises(agi.MalformedAgi):
        decoder.feed(stream)
    with pytest.raises(agi.MalformedAgi):
        decoder.feed(b"agi_request: x\n\n")


@given(st.lists(SENDABLE, min_size=1, max_size=6))
def test_words_come_back_as_they_were_sent(words: list[str]) -> None:
    """Quoting and Asterisk's own taking apart are each other's reverse, in one line."""
    line = agi.command(*words)
    assert line.count(b"\n") == 1
    assert agi.words_of(line.decode()[:-1]) == words


@pytest.mark.parametrize("value", ["a\nHANGUP", "a\rb", "a\0b", "x" * 3000])
def test_a_value_cannot_begin_another_command(value: str) -> None:
    """What no quoting carries is refused."""
    with pytest.raises(ValueError, match=r"line end|bytes"):
        agi.set_variable("TK_PARTY", value)


@pytest.mark.parametrize("name", ["", "A B", "A\n", "${X}", "1A", "CDR(a b)", "SHELL(x;y)"])
def test_a_variable_has_a_plain_name(name: str) -> None:
    """Functions only with plain arguments."""
    with pytest.raises(ValueError, match="no name"):
        agi.get_variable(name)


def test_commands_look_as_asterisk_documents_them() -> None:
    """Golden lines."""
    assert agi.set_variable("TK_LIMIT_MS", "60000") == b"SET VARIABLE TK_LIMIT_MS 60000\n"
    assert (
        agi.set_variable("TIMEOUT(absolute)", "60.500")
        == b'SET VARIABLE "TIMEOUT(absolute)" "60.500"\n'
    )
    assert agi.get_variable("CDR(billsec)") == b'GET VARIABLE "CDR(billsec)"\n'
    assert agi.verbose('no "money"\n') == b'VERBOSE "no \\"money\\" " 3\n'
    assert agi.words_of('SET  VARIABLE x ""') == ["SET", "VARIABLE", "x", ""]


@given(st.binary(max_size=4000))
def test_any_bytes_give_records_or_the_one_error(data: bytes) -> None:
    """With and without an environment before them."""
    for decoder in (agi.Decoder(), started()):
        try:
            found = decoder.feed(data)
        except agi.MalformedAgi:
            continue
        assert len(found) <= data.count(b"\n")


@given(
    st.lists(
        st.sampled_from(
            [b"agi_request: x\n", b"agi_channel: y\n", b"\n", b"200 result=1 (", b")\n", b"HANGUP\n",
             b"520-x\n", b"520 y\n", b"511 z\n", b" endpos=1\n", b"\xff\n", b"\r\n"]
        ),
        max_size=30,
    )
)  # fmt: skip
def test_any_order_of_lines_gives_records_or_the_one_error(parts: list[bytes]) -> None:
    """Nothing but MalformedAgi is raised."""
    try:
        agi.Decoder().feed(b"".join(parts))
    except agi.MalformedAgi:
        return
