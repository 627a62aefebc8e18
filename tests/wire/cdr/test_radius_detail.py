"""RADIUS accounting: real detail and JSON files field by field, and what else they may hold."""

from __future__ import annotations

import json

import pytest

from tests.wire.cdr.shared import file, items, needs_files, refusals, sure, us, usages
from tollkeeper.core.usage import Refused, Skipped, Usage
from tollkeeper.errors import InvalidInput
from tollkeeper.wire.cdr.radius_detail import FORMAT

STOP = {
    "Acct-Status-Type": "Stop",
    "Acct-Session-Id": "s1",
    "Acct-Session-Time": "60",
    "Calling-Station-Id": "39061",
    "Called-Station-Id": "44201",
}


def detail(arrived: str = "Mon Mar  2 10:01:05 2026", **more: str) -> bytes:
    pairs = STOP | {name.replace("_", "-"): text for name, text in more.items()}
    lines = [arrived, *(f'\t{name} = "{text}"' for name, text in pairs.items() if text)]
    return ("\n".join(lines) + "\n\n").encode()


@needs_files
def test_the_detail_file_of_a_gatekeeper() -> None:
    """A Start, and a Stop of 9 s: 17:34:54 to 17:35:03 in Eastern Europe, two hours before UTC."""
    data = file("radius_detail/h323_gnugk_detail.txt")
    comment, start, call = items(FORMAT, data)
    assert isinstance(comment, Skipped)
    assert isinstance(start, Skipped)
    assert start.line == 2
    assert call == Usage(
        line=25,
        call_id="513F6C41 96F41810 862E0001 6CC7CC03",
        leg="438c20f800000015",
        start=us(2005, 12, 9, 15, 34, 51),
        duration_ms=9_000,
        caller="600",
        called="101",
        answer=us(2005, 12, 9, 15, 34, 54),
        end=us(2005, 12, 9, 15, 35, 3),
        ip_in="192.168.101.4",
        account="600",
        ip_out="192.168.101.23",
        q850=16,
    )
    assert sure(FORMAT, data) > 90


@needs_files
def test_the_json_of_a_start_is_skipped_and_the_same_as_a_stop_is_a_call() -> None:
    """Answered at 23:00:21.017; what was counted (30 s) stands where the Stop has no end time."""
    data = file("radius_detail/mvts_h323_start.json")
    (start,) = items(FORMAT, data)
    assert isinstance(start, Skipped)
    assert sure(FORMAT, data) > 80
    stop = data.replace(b'"Start"', b'"Stop"').replace(
        b'"Acct-Delay-Time",', b'"Acct-Session-Time","30"],["Acct-Delay-Time",'
    )
    (call,) = usages(FORMAT, stop)
    assert call == Usage(
        line=1,
        call_id="14392814 011511EB ABB6D8D3 85E1BACC",
        leg="00123553-94463159-AV1",
        start=us(2020, 9, 27, 22, 59, 21, 252_000),
        duration_ms=30_000,
        caller="1234567890",
        called="1234567890",
        answer=us(2020, 9, 27, 23, 0, 21, 17_000),
        ip_in="9.9.9.9",
        account="1234567890",
    )


@needs_files
def test_the_output_of_debug_radius_is_refused_with_advice() -> None:
    data = file("radius_detail/cisco_ios_debug_radius.txt")
    assert sure(FORMAT, data) > 50
    with pytest.raises(InvalidInput, match="detail file of the RADIUS server"):
        items(FORMAT, data)


@pytest.mark.parametrize(
    ("text", "zone", "expected"),
    [
        ("h323-setup-time=14:24:55.000 EET Mon Nov 28 2005", "UTC", us(2005, 11, 28, 12, 24, 55)),
        ("14:24:55.250 UTC Mon Nov 28 2005", "UTC", us(2005, 11, 28, 14, 24, 55, 250_000)),
        ("*14:24:55.000 GMT Mon Nov 28 2005", "UTC", us(2005, 11, 28, 14, 24, 55)),
        (".14:24:55 +0530 Mon Nov 28 2005", "UTC", us(2005, 11, 28, 8, 54, 55)),
        ("14:24:55.000 CEST Fri Jul 01 2005", "UTC", us(2005, 7, 1, 12, 24, 55)),
        ("14:24:55.000 CET Fri Jul 01 2005", "UTC", us(2005, 7, 1, 13, 24, 55)),
        ("14:24:55.000 MSK Tue Jul 01 2014", "UTC", us(2014, 7, 1, 10, 24, 55)),
        ("14:24:55.000 MSK Wed Jul 01 2020", "UTC", us(2020, 7, 1, 11, 24, 55)),
        ("14:24:55.000 EDT Fri Jul 01 2005", "America/New_York", us(2005, 7, 1, 18, 24, 55)),
        ("14:24:55.000 IST Mon Nov 28 2005", "Asia/Kolkata", us(2005, 11, 28, 8, 54, 55)),
    ],
)
def test_a_cisco_time_with_its_zone(text: str, zone: str, expected: int) -> None:
    (call,) = usages(FORMAT, detail(h323_setup_time=text), zone)
    assert call.start == expected


@pytest.mark.parametrize("zone", ["IST", "CST", "XYZ"])
def test_a_zone_that_could_be_several_is_refused(zone: str) -> None:
    (refusal,) = refusals(FORMAT, detail(h323_setup_time=f"14:24:55.000 {zone} Mon Nov 28 2005"))
    assert refusal.field == "h323-setup-time"
    assert "set the time zone" in refusal.reason


@pytest.mark.parametrize(
    ("more", "zone", "end"),
    [
        ({"Event_Timestamp": "1772445665"}, "UTC", us(2026, 3, 2, 10, 1, 5)),
        ({"Event_Timestamp": "Mar  2 2026 11:01:05 CET"}, "UTC", us(2026, 3, 2, 10, 1, 5)),
        ({"Timestamp": "1772445665", "Acct_Delay_Time": "5"}, "UTC", us(2026, 3, 2, 10, 1)),
        ({"Acct_Delay_Time": "5"}, "UTC", us(2026, 3, 2, 10, 1)),
        ({}, "Europe/Rome", us(2026, 3, 2, 9, 1, 5)),
    ],
)
def test_without_cisco_times_a_call_ended_when_its_record_was_made(
    more: dict[str, str], zone: str, end: int
) -> None:
    (call,) = usages(FORMAT, detail(**more), zone)
    assert (call.end, call.answer, call.start) == (end, end - 60_000_000, end - 60_000_000)
    assert (call.call_id, call.leg, call.duration_ms) == ("s1", "", 60_000)


def test_times_with_milliseconds_are_more_precise_than_the_count() -> None:
    data = detail(
        h323_setup_time="10:00:00.000 UTC Mon Mar 02 2026",
        h323_connect_time="10:00:01.250 UTC Mon Mar 02 2026",
        h323_disconnect_time="10:01:01.750 UTC Mon Mar 02 2026",
    )
    (call,) = usages(FORMAT, data)
    assert call.duration_ms == 60_500


def test_a_call_that_nobody_answered_was_connected_when_it_ended() -> None:
    """So a Cisco gateway writes it; the cause is in hex."""
    data = detail(
        Acct_Session_Time="0",
        h323_setup_time="10:00:00.000 UTC Mon Mar 02 2026",
        h323_connect_time="10:00:09.120 UTC Mon Mar 02 2026",
        h323_disconnect_time="10:00:09.120 UTC Mon Mar 02 2026",
        h323_disconnect_cause="h323-disconnect-cause=11",
    )
    (call,) = usages(FORMAT, data)
    assert (call.answer, call.duration_ms, call.q850, call.sip) == (None, 0, 17, 486)


def test_the_pairs_inside_of_a_cisco_pair_are_attributes() -> None:
    data = (
        detail().rstrip(b"\n") + b'\n\tCisco-AVPair = "call-id=abc@x"\n'
        b'\tCisco-AVPair = "in-trunkgroup-label=T1"\n\n'
    )
    (call,) = usages(FORMAT, data)
    assert (call.call_id, call.leg, call.trunk_in) == ("abc@x", "s1", "T1")


def test_a_record_without_an_empty_line_behind_it_is_cut() -> None:
    """Of a Stop whose Acct-Session-Time is missing nobody would know that it had one."""
    call, cut = items(FORMAT, detail() + detail().rstrip(b"\n"))
    assert isinstance(call, Usage)
    assert isinstance(cut, Refused)
    assert "ends inside" in cut.reason


@pytest.mark.parametrize("status", ["Start", "Interim-Update", "Alive", "Accounting-On", "1"])
def test_only_stop_records_are_calls(status: str) -> None:
    (item,) = items(FORMAT, detail(Acct_Status_Type=status))
    assert isinstance(item, Skipped)


@pytest.mark.parametrize(
    ("data", "field"),
    [
        (detail(Acct_Status_Type=""), "Acct-Status-Type"),
        (detail(Acct_Session_Id=""), "call_id"),
        (detail(Acct_Session_Time="-3"), "Acct-Session-Time"),
        (detail(Acct_Session_Time="4294967295"), "Acct-Session-Time"),
        (detail(arrived="Mon Mar 32 10:01:05 2026"), "time"),
        (detail(h323_setup_time="soon"), "h323-setup-time"),
        (detail().rstrip(b"\n") + b"\n\tno value\n\n", "record"),
        (b"\tAcct-Status-Type = Stop\n", "line"),
        (b"<html>\n", "line"),
    ],
)
def test_what_cannot_be_read_is_refused_and_the_next_record_read(data: bytes, field: str) -> None:
    *refused, good = items(FORMAT, data + detail())
    assert [(type(item), getattr(item, "field", "")) for item in refused] == [(Refused, field)]
    assert isinstance(good, Usage)


def pairs(**more: str) -> list[list[str]]:
    values = STOP | {"Event-Timestamp": "1772445665"} | more
    return [[name, text] for name, text in values.items()]


@pytest.mark.parametrize(
    "text",
    [
        json.dumps([pairs(), pairs()]),
        json.dumps(pairs()) + "\n" + json.dumps(pairs()) + "\n",
        json.dumps([pairs(User='a "b" ] [ \\'), pairs()], indent=1),
    ],
)
def test_json_records_come_in_a_list_or_one_behind_the_other(text: str) -> None:
    calls = usages(FORMAT, text.encode())
    assert [(call.line, call.end) for call in calls] == [
        (1, us(2026, 3, 2, 10, 1, 5)),
        (2, us(2026, 3, 2, 10, 1, 5)),
    ]


@pytest.mark.parametrize(
    "text",
    ['{"a": 1}', "[1, 2]", "[]", '[["a"]]', "[[[[[1]]]]]", json.dumps(pairs())[:-9], "[" * 5_000],
)
def test_json_that_is_no_record_is_refused(text: str) -> None:
    found = items(FORMAT, text.encode())
    assert found
    assert all(isinstance(item, Refused) for item in found)
