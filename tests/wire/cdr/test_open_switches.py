"""FreeSWITCH, Asterisk, Kamailio/OpenSIPS and VOS3000: what their files can have in them."""

from __future__ import annotations

import io
import json
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.wire.cdr.shared import Endless, items, sure, us
from tests.wire.cdr.test_vos3000 import ROW, as_csv
from tollkeeper.core.usage import Half, Item, Refused, Skipped, Usage
from tollkeeper.errors import InvalidInput
from tollkeeper.wire.cdr import (
    asterisk,
    freeswitch_csv,
    freeswitch_event,
    freeswitch_json,
    kamailio,
    vos3000,
)
from tollkeeper.wire.cdr.format import Format, ReadOptions
from tollkeeper.wire.cdr.mapping import load_mapping

VARIABLES = {
    "uuid": "u1",
    "start_uepoch": "1700000000000000",
    "answer_uepoch": "1700000002000000",
    "end_uepoch": "1700000012345678",
    "billusec": "10345678",
    "hangup_cause": "NORMAL_CLEARING",
    "accountcode": "acme",
}


def document(encode: bool = False, **more: str | None) -> bytes:
    variables = {key: value for key, value in {**VARIABLES, **more}.items() if value is not None}
    if encode:
        variables = {key: quote(value) for key, value in variables.items()}
    profile = {
        "caller_id_number": "390612",
        "destination_number": quote("+44201") if encode else "+44201",
    }
    found = {"core-uuid": "c", "variables": variables, "callflow": [{"caller_profile": profile}]}
    return json.dumps(found).encode()


def kinds(found: list[Item]) -> str:
    return "".join(type(item).__name__[0] for item in found)


# --- FreeSWITCH ---------------------------------------------------------------------------------


def test_documents_are_read_alone_one_a_line_pretty_or_run_together() -> None:
    pretty = json.dumps(json.loads(document()), indent=1).encode()
    listed = b"[" + document() + b",\n" + document() + b"]"
    for data, count in (
        (document(), 1),
        (document() + b"\n" + document() + b"\n", 2),
        (document() * 3, 3),
        (pretty + b"\n" + pretty, 2),
        (listed, 2),
        (b"\xef\xbb\xbf" + document(), 1),
        (b"cdr=" + quote(document().decode()).encode(), 1),
    ):
        found = items(freeswitch_json.FORMAT, data)
        assert kinds(found) == "U" * count
        assert [item.line for item in found] == list(range(1, count + 1))
        first = found[0]
        assert isinstance(first, Usage)
        assert (first.called, first.duration_ms, first.account) == ("+44201", 10_346, "acme")
        assert sure(freeswitch_json.FORMAT, data) >= 50


def test_percent_coded_values_are_the_same_record() -> None:
    more = {"sip_network_ip": "192.0.2.1", "bridge_channel": "sofia/out/44201@192.0.2.9:5060"}
    assert items(freeswitch_json.FORMAT, document(encode=True, **more)) == items(
        freeswitch_json.FORMAT, document(**more)
    )


@pytest.mark.parametrize("cut", [20, 60, 120, 200, -3])
def test_a_document_that_was_cut_off_costs_itself_only(cut: int) -> None:
    """Whether the next begins on a line of its own or not, and at the end of the file."""
    whole = document()
    for between in (b"", b"\n"):
        found = items(freeswitch_json.FORMAT, whole + b"\n" + whole[:cut] + between + whole)
        assert kinds(found) == "URU"
        assert "cut off" in found[1].reason  # type: ignore[union-attr]
    assert kinds(items(freeswitch_json.FORMAT, whole + whole[:cut])) == "UR"


def test_bytes_between_documents_are_refused_and_kept() -> None:
    found = items(freeswitch_json.FORMAT, b"junk" + document() + b"more junk" + document())
    assert kinds(found) == "RURU"
    assert [item.raw for item in found if isinstance(item, Refused)] == ["junk", "more junk"]


def test_a_document_of_50_mib_is_refused_without_being_held() -> None:
    stream = Endless(b'{"core-uuid":"', b"x", 50 * 2**20, b'"}\n' + document())
    found = list(freeswitch_json.read(stream, ReadOptions()))  # type: ignore[arg-type]
    assert kinds(found) == "RU"
    assert "bytes long" in found[0].reason  # type: ignore[union-attr]


@pytest.mark.parametrize("data", [b"hello", b"1,2,3\n4,5,6\n", b"[1, 2]", b"\x00\xff" * 100])
def test_what_has_no_documents_at_all_is_not_of_json_cdr(data: bytes) -> None:
    with pytest.raises(InvalidInput):
        items(freeswitch_json.FORMAT, data)


def test_an_empty_file_has_no_records() -> None:
    for form in (freeswitch_json, freeswitch_event, freeswitch_csv, asterisk, kamailio, vos3000):
        assert items(form.FORMAT, b"") == []
        assert sure(form.FORMAT, b"") == 0


def test_less_precise_variables_are_used_where_the_precise_are_missing() -> None:
    """Stamps are local to the switch."""
    data = document(
        start_uepoch=None, answer_uepoch=None, end_uepoch=None, billusec=None, billmsec="10346",
        start_stamp="2026-07-01 12:00:00", answer_epoch="0", answer_stamp="2026-07-01 12:00:02",
        end_epoch="1782900013",
    )  # fmt: skip
    (found,) = items(freeswitch_json.FORMAT, data, timezone="Europe/Rome")
    assert isinstance(found, Usage)
    assert (found.start, found.answer) == (us(2026, 7, 1, 10), us(2026, 7, 1, 10, 0, 2))
    assert (found.end, found.duration_ms) == (1_782_900_013_000_000, 10_346)


def test_an_unanswered_call_has_its_cause() -> None:
    data = document(
        answer_uepoch="0", billusec="0", hangup_cause="USER_BUSY", hangup_cause_q850="17"
    )
    (found,) = items(freeswitch_json.FORMAT, data)
    assert isinstance(found, Usage)
    assert (found.answer, found.duration_ms, found.sip, found.q850) == (None, 0, 486, 17)
    data = document(answer_uepoch="0", billusec="0", hangup_cause="X", proto_specific_hangup_cause="sip:404", hangup_cause_q850="487")  # fmt: skip
    (found,) = items(freeswitch_json.FORMAT, data)
    assert isinstance(found, Usage)
    assert (found.sip, found.q850) == (404, None)


def test_the_leg_that_was_called_out_is_skipped() -> None:
    assert kinds(items(freeswitch_json.FORMAT, document(originator="u0"))) == "S"


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"uuid": None}, "call_id"),
        ({"start_uepoch": None}, "start"),
        ({"start_uepoch": "soon"}, "start"),
        ({"billusec": None}, "duration"),
        ({"billusec": "-5000000"}, "duration"),
        ({"billusec": "18446744073709551615"}, "duration"),
        ({"accountcode": "a\nb"}, "account"),
    ],
)
def test_a_document_with_a_bad_field_is_refused(change: dict[str, str | None], field: str) -> None:
    (found,) = items(freeswitch_json.FORMAT, document(**change))
    assert isinstance(found, Refused)
    assert found.field == field


def test_events_are_read_and_others_skipped() -> None:
    event = (
        "Event-Name: CHANNEL_HANGUP_COMPLETE\nUnique-ID: u1\nCaller-Destination-Number: %2B44201\n"
    )
    event += "Caller-Channel-Created-Time: 1700000000000000\nvariable_billsec: 0\n"
    data = f"{event}\nEvent-Name: HEARTBEAT\n\n{event}garbage\n\n\n{event}".encode()
    found = items(freeswitch_event.FORMAT, data)
    assert kinds(found) == "USRU"
    assert found[0].called == "+44201"  # type: ignore[union-attr]
    assert [item.line for item in found] == [1, 2, 3, 4]


EXAMPLE = (
    '"Ann","390612","+44201","default","2026-07-01 12:00:00","2026-07-01 12:00:02",'
    '"2026-07-01 12:00:12","12","10","{cause}","36f2a2c3-6f4b-4b6f-9f58-1f8e0d8c0a01","","acme","PCMA","PCMA"'
)
OPENCDRRATE = (
    '"36f2a2c3-6f4b-4b6f-9f58-1f8e0d8c0a01","{bond}","{way}","390612","44201","2026-07-01 12:00:02",'
    '"2026-07-01 12:00:12","10","acme","","192.0.2.1","","gw1"'
)


def test_the_csv_templates_example_and_opencdrrate_are_told_apart_by_row() -> None:
    data = "\n".join(
        [
            EXAMPLE.format(cause="NORMAL_CLEARING"),
            OPENCDRRATE.format(bond="", way="inbound"),
            OPENCDRRATE.format(bond="b", way="outbound"),
            "1,2,3",
        ]
    ).encode()
    found = items(freeswitch_csv.FORMAT, data, timezone="Europe/Rome")
    assert kinds(found) == "UUSR"
    call_id = "36f2a2c3-6f4b-4b6f-9f58-1f8e0d8c0a01"
    assert found[0] == Usage(
        line=1, call_id=call_id, start=us(2026, 7, 1, 10), answer=us(2026, 7, 1, 10, 0, 2),
        end=us(2026, 7, 1, 10, 0, 12), duration_ms=10_000, caller="390612", called="+44201",
        account="acme", sip=200, q850=16,
    )  # fmt: skip
    assert found[1] == Usage(
        line=2, call_id=call_id, start=us(2026, 7, 1, 10, 0, 2), answer=us(2026, 7, 1, 10, 0, 2),
        end=us(2026, 7, 1, 10, 0, 12), duration_ms=10_000, caller="390612", called="44201",
        account="acme", ip_in="192.0.2.1", trunk_out="gw1", sip=200,
    )  # fmt: skip
    assert sure(freeswitch_csv.FORMAT, EXAMPLE.format(cause="X").encode()) >= 50


# --- Asterisk -----------------------------------------------------------------------------------


def master(*tail: str, disposition: str = "ANSWERED", billsec: str = "10") -> bytes:
    row = [
        "acme", "390612", "0044201", "in", '"""Ann"" <390612>"', "SIP/acme-gw-0000001f",
        "PJSIP/carrier-00000020", "Dial", "PJSIP/x,30", "2026-07-01 12:00:00",
        "2026-07-01 12:00:02", "2026-07-01 12:00:12", "12", billsec, disposition, "DOCUMENTATION",
        *tail,
    ]  # fmt: skip
    return (",".join(one if one.startswith('"') else f'"{one}"' for one in row) + "\r\n").encode()


@pytest.mark.parametrize(
    ("tail", "call_id", "leg"),
    [
        ((), "2026-07-01 12:00:00 SIP/acme-gw-0000001f 0044201", ""),
        (("1782900000.31",), "1782900000.31", ""),
        (("some text",), "2026-07-01 12:00:00 SIP/acme-gw-0000001f 0044201", ""),
        (("pbx1-1782900000.31", "text"), "pbx1-1782900000.31", ""),
        (("1782900000.31", "", "peer", "1782900000.31", "7"), "1782900000.31", "7"),
    ],
)
def test_master_csv_is_read_with_16_to_21_columns(
    tail: tuple[str, ...], call_id: str, leg: str
) -> None:
    data = master(*tail)
    assert sure(asterisk.FORMAT, data) >= 90
    assert items(asterisk.FORMAT, data) == [
        Usage(
            line=1,
            call_id=call_id,
            leg=leg,
            start=us(2026, 7, 1, 12),
            answer=us(2026, 7, 1, 12, 0, 2),
            end=us(2026, 7, 1, 12, 0, 12),
            duration_ms=10_000,
            caller="390612",
            called="0044201",
            trunk_in="acme-gw",
            trunk_out="carrier",
            account="acme",
            sip=200,
            q850=16,
        )
    ]


def test_a_row_that_was_not_answered_is_of_no_duration_whatever_its_billsec() -> None:
    (found,) = items(asterisk.FORMAT, master("1.1", disposition="BUSY"))
    assert isinstance(found, Usage)
    assert (found.duration_ms, found.answer, found.sip) == (0, None, 486)


def test_rows_of_freeswitch_in_the_order_of_asterisk_are_read() -> None:
    (found,) = items(asterisk.FORMAT, master("u1", "", disposition="NORMAL_CLEARING"))
    assert isinstance(found, Usage)
    assert (found.call_id, found.duration_ms, found.q850) == ("u1", 10_000, 16)


def test_bad_rows_of_asterisk_are_refused_and_the_next_is_read() -> None:
    bad = [
        master("1.1")[:100] + b"\n",
        master("1.1", billsec="-3"),
        master("1.1", billsec="4294967293"),
        master("1.1", disposition="MAYBE"),
        b"a,b,c\n",
        master("1.1").replace(b",", b";"),
        b"," * 5_000 + b"\n",
    ]
    found = items(asterisk.FORMAT, b"".join(bad) + b"\n" + master("1.1"))
    assert kinds(found) == "RRRRRRRSU"
    assert [item.line for item in found] == list(range(1, 10))


# --- Kamailio and OpenSIPS ----------------------------------------------------------------------


def transaction(
    method: str, at: str, status: int = 200, *, call: str = "c1", tags: str = "a|b"
) -> str:
    extra = "*postpaid|1001|1002||1:2" if method != "BYE" else "||||1:2"
    return f"{method}|{tags}|{call}|{status}|text|{at}|{extra}\n"


def halves(text: str) -> list[Half]:
    return [item for item in items(kamailio.FORMAT, text.encode()) if isinstance(item, Half)]


def test_a_bye_before_its_invite_and_one_of_the_other_side_make_the_call() -> None:
    text = transaction("BYE", "1700000010.5", tags="b|a") + transaction("INVITE", "1700000000")
    calls, waiting = kamailio.join(halves(text))
    assert waiting == []
    assert [(one.line, one.duration_ms, one.end) for one in calls] == [
        (2, 10_500, 1_700_000_010_500_000)
    ]


def test_halves_meet_across_files_in_either_order() -> None:
    """The record has the line of the half that came last, which is of the file being read."""
    begin = halves(transaction("INVITE", "1700000000"))
    end = halves("\n" + transaction("BYE", "1700000010"))
    for first, second, line in ((begin, end, 2), (end, begin, 1)):
        calls, waiting = kamailio.join(first)
        assert calls == []
        assert waiting == first
        calls, waiting = kamailio.join(second, waiting)
        assert waiting == []
        assert [(one.line, one.duration_ms) for one in calls] == [(line, 10_000)]


def test_repeated_halves_count_once() -> None:
    text = (
        transaction("INVITE", "1700000000")
        + transaction("ACK", "1700000001")
        + transaction("INVITE", "1700000005")
        + transaction("BYE", "1700000010")
        + transaction("BYE", "1700000011")
        + transaction("INVITE", "1700000020", call="c2")
    )
    calls, waiting = kamailio.join(halves(text))
    assert [(one.call_id, one.duration_ms) for one in calls] == [("c1", 10_000)]
    assert [one.key for one in waiting] == ["c2;a;b"]


def test_a_bye_that_is_earlier_by_the_clock_leaves_a_negative_duration_to_be_seen() -> None:
    calls, _ = kamailio.join(
        halves(transaction("INVITE", "1700000010") + transaction("BYE", "1700000000"))
    )
    assert [one.duration_ms for one in calls] == [-10_000]


def test_what_is_no_call_is_skipped_and_what_is_no_transaction_refused() -> None:
    lines = [
        transaction("REGISTER", "1"), transaction("INVITE", "1", 407), transaction("INVITE", ""),
        transaction("INVITE", "1", 183), transaction("INVITE", "1", 99), transaction("BYE", ""),
        transaction("INVITE", "", 486), transaction("INVITE", "soon"), "INVITE|a|b|c\n", "x\n",
        transaction("INVITE", "1", call=""), transaction("INVITE", "2026-07-01 12:00:00", 603),
    ]  # fmt: skip
    found = items(kamailio.FORMAT, "".join(lines).encode(), timezone="Europe/Rome")
    assert kinds(found) == "SSSSRRRRRRRU"
    last = found[-1]
    assert isinstance(last, Usage)
    assert (last.start, last.sip, last.q850) == (us(2026, 7, 1, 10), 603, 21)


def test_other_extra_columns_are_named_by_a_mapping() -> None:
    mapping = load_mapping(
        {
            "header": False, "delimiter": "|",
            "fields": {
                "call_id": 4, "start": 7, "duration": {"constant": 0}, "ip_in": 8, "caller": 9,
                "called": {"column": 10, "strip": "+"}, "trunk_out": 11,
            },
        }
    )  # fmt: skip
    line = b"INVITE|a||c1|503|x|1700000000|192.0.2.1:5060|390612|+44201|carrier"
    (found,) = kamailio.read(io.BytesIO(line), ReadOptions(mapping=mapping))
    assert found == Usage(
        line=1, call_id="c1", start=1_700_000_000_000_000, end=1_700_000_000_000_000, duration_ms=0,
        ip_in="192.0.2.1", caller="390612", called="44201", trunk_out="carrier", sip=503, q850=41,
    )  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.booleans(), st.integers(0, 50)), max_size=30),
    st.integers(0, 30),
)
def test_joining_loses_and_doubles_no_call_wherever_the_file_is_cut(
    events: list[tuple[str, bool, int]], cut: int
) -> None:
    """Each key's calls are as many as pairs were complete; no half is both joined and waiting."""
    made = [
        Half(line, key, begins, at * 1_000_000, "", Usage(line, key, at, 0) if begins else None)
        for line, (key, begins, at) in enumerate(events, 1)
    ]
    first, waiting = kamailio.join(made[:cut])
    second, waiting = kamailio.join(made[cut:], waiting)
    both = {
        key for key in "abc" if {half.begins for half in made if half.key == key} == {True, False}
    }
    assert {one.call_id for one in (*first, *second)} == both
    lines = [one.line for one in (*first, *second)]
    assert len(lines) == len(set(lines))
    assert {half.key for half in waiting if half.key not in both} == {
        half.key for half in made
    } - both


# --- all of them --------------------------------------------------------------------------------

BY_LINE = (asterisk.FORMAT, freeswitch_csv.FORMAT, kamailio.FORMAT, vos3000.FORMAT)
SEEDS = (
    master("1.1"), EXAMPLE.encode(), transaction("INVITE", "1700000000").encode(), as_csv(ROW),
    document(), b"Event-Name: CHANNEL_HANGUP_COMPLETE\nUnique-ID: u1\n\n",
)  # fmt: skip


@st.composite
def spoilt(draw: st.DrawFn) -> bytes:
    """A good record with bytes changed, cut out and put in; or any bytes at all."""
    data = bytearray(draw(st.sampled_from(SEEDS)) * draw(st.integers(1, 3)))
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, max(0, len(data) - 1)))
        data[at : at + draw(st.integers(0, 20))] = draw(st.binary(max_size=8))
    return bytes(data) if draw(st.booleans()) else draw(st.binary(max_size=300))


@pytest.mark.parametrize("form", BY_LINE, ids=lambda form: form.code)
@settings(max_examples=150, deadline=None)
@given(data=spoilt())
def test_whatever_the_bytes_every_line_is_one_item(form: Format, data: bytes) -> None:
    found = items(form, data)
    if not data.startswith((b"\xff\xfe", b"\xfe\xff")):
        plain = data.removeprefix(b"\xef\xbb\xbf")
        count = plain.count(b"\n") + (not plain.endswith(b"\n") and plain != b"")
        assert [item.line for item in found] == list(range(1, count + 1))
    check_storable(found)
    assert 0 <= form.recognise(data) <= 100


@pytest.mark.parametrize(
    "form", [freeswitch_json.FORMAT, freeswitch_event.FORMAT], ids=lambda form: form.code
)
@settings(max_examples=300, deadline=None)
@given(data=spoilt())
def test_whatever_the_bytes_records_are_numbered_on(form: Format, data: bytes) -> None:
    assert 0 <= form.recognise(data) <= 100
    try:
        found = items(form, data)
    except InvalidInput:
        return
    assert [item.line for item in found] == list(range(1, len(found) + 1))
    blank = not data.strip(b"\xef\xbb\xbf \t\r\n\x0b\x0c,[]\x00\xff\xfe")
    assert found or blank or b"cdr=" in data
    check_storable(found)


def check_storable(found: list[Item]) -> None:
    for item in found:
        if isinstance(item, Refused):
            assert "\0" not in item.raw + item.value
            (item.raw + item.value + item.reason).encode()
            assert len(item.raw) <= 4_000
            assert item.reason.endswith(".")
        elif isinstance(item, Usage):
            (item.call_id + item.caller + item.called + item.account).encode()
            assert "\0" not in item.call_id + item.caller + item.called + item.account


def test_skipped_lines_say_why() -> None:
    assert items(kamailio.FORMAT, b"\n") == [Skipped(1, "The line is empty.")]
