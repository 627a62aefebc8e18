"""Ribbon (Sonus) ACT files: positions, ticks of 10 ms, and the zone of the node."""

from __future__ import annotations

import pytest

from tests.wire.cdr.shared import items, skips, sure, us, usages
from tollkeeper.core.usage import Refused, Usage
from tollkeeper.wire.cdr.ribbon import FORMAT, LAYOUTS

HEADER = b"Sonus Networks, Inc.00000000FF60000045V07.01.09R00000ACT20260302100000010000\n"
START = {4: "99", 5: "GMT-05:00-Eastern", 6: "03/02/2026", 7: "10:00:00.4", 9: "150"}
VALUES = {
    "established": "300",
    "end_date": "03/02/2026",
    "end_time": "10:01:04.4",
    "duration": "6100",
    "reason": "16",
    "caller": "39061",
    "called": "44201",
    "route": "SBC1:TG-OUT",
    "ip_out": "10.2.2.2",
    "trunk_in": "TG-IN",
    "protocol": '"SIP,abc@x,<sip:39061@a>,<sip:44201@b>"',
    "trunk_out": "TG-OUT2",
    "ip_in": "10.1.1.1",
}


def record(kind: str = "STOP", start: dict[int, str] | None = None, **changes: str) -> bytes:
    fields = [""] * 130
    fields[:3] = [kind, "SBC1", "0x0001000200000003"]
    for position, text in (START | (start or {})).items():
        fields[position - 1] = text
    for name, position in LAYOUTS[kind].items():
        fields[position - 1] = (VALUES | changes)[name]
    return ",".join(fields).encode() + b"\n"


def test_a_stop_is_an_answered_call() -> None:
    """6,100 ticks are 61 s; 10:00:00.4 in New York in winter is 15:00:00.4 UTC."""
    (call,) = usages(FORMAT, HEADER + record())
    assert call == Usage(
        line=2,
        call_id="abc@x",
        leg="0x0001000200000003",
        start=us(2026, 3, 2, 15, 0, 0, 400_000),
        duration_ms=61_000,
        caller="39061",
        called="44201",
        answer=us(2026, 3, 2, 15, 0, 3, 400_000),
        end=us(2026, 3, 2, 15, 1, 4, 400_000),
        trunk_in="TG-IN",
        ip_in="10.1.1.1",
        trunk_out="TG-OUT2",
        ip_out="10.2.2.2",
        q850=16,
        pdd_ms=1_500,
    )


def test_an_attempt_was_not_answered() -> None:
    (call,) = usages(FORMAT, record("ATTEMPT", reason="17"))
    assert (call.answer, call.duration_ms, call.q850, call.sip) == (None, 0, 17, 486)
    assert (call.caller, call.called, call.trunk_in) == ("39061", "44201", "TG-IN")
    assert (call.ip_in, call.ip_out, call.trunk_out) == ("10.1.1.1", "10.2.2.2", "TG-OUT2")


def test_a_short_record_of_an_old_gateway_has_the_route_and_no_call_id() -> None:
    short = b",".join(record().split(b",")[:40]) + b"\n"
    (call,) = usages(FORMAT, short)
    assert (call.call_id, call.leg) == ("SBC1:0x0001000200000003", "")
    assert (call.trunk_out, call.ip_in, call.duration_ms) == ("TG-OUT", "", 61_000)


def test_a_record_shorter_than_those_before_it_is_cut() -> None:
    """It would lose the Call-ID, and be charged again when the whole file comes."""
    cut = b",".join(record().split(b",")[:40])
    good, refusal = items(FORMAT, record() + cut)
    assert isinstance(good, Usage)
    assert isinstance(refusal, Refused)
    assert "it is cut" in refusal.reason


@pytest.mark.parametrize(
    ("node", "zone", "hour"),
    [
        ("GMT", "UTC", 10),
        ("GMT+00:00", "UTC", 10),
        ("GMT-05:00-Eastern", "GMT", 10),
        ("GMT-06:00-Central-US", "UTC", 16),
        ("somewhere", "Europe/Rome", 9),
    ],
)
def test_the_zone_is_the_nodes_unless_one_is_set(node: str, zone: str, hour: int) -> None:
    (call,) = usages(FORMAT, record(start={5: node}), zone)
    assert call.start == us(2026, 3, 2, hour, 0, 0, 400_000)


def test_summer_time_is_that_of_the_nodes_region() -> None:
    changes = {"end_date": "07/01/2026"}
    (call,) = usages(FORMAT, record(start={6: "07/01/2026"}, **changes))
    assert call.start == us(2026, 7, 1, 14, 0, 0, 400_000)


def test_the_header_and_other_records_are_no_calls() -> None:
    data = (
        HEADER
        + b"REBOOT, None, 0x0001080D00000001, GMT, 02/01/2001, 21:58:14.2\n"
        + b"START,SBC1,0x1\nINTERMEDIATE,SBC1,0x1\nSWITCHOVER,SBC1\n"
    )
    assert [skip.line for skip in skips(FORMAT, data)] == [1, 2, 3, 4, 5]
    assert sure(FORMAT, data) > 90
    assert sure(FORMAT, record()) > 80


@pytest.mark.parametrize(
    ("data", "field"),
    [
        (record(start={5: "GMT-05:00-Nowhere"}), "Node Time Zone"),
        (record(start={5: ""}), "Node Time Zone"),
        (record(start={7: "25:00:00.0"}), "Start Time"),
        (record(start={6: "2026-03-02"}), "Start Time"),
        (record(duration="61000"), "Call Service Duration"),
        (record(duration="-1"), "Call Service Duration"),
        (record(established="x"), "Time to Service Established"),
        (record(reason="-4"), "Call Disconnect Reason"),
        (record(protocol='"SIP,cut'), "line"),
        (b"STOP,SBC1,0x1,99\n", "line"),
        (b"HELLO,SBC1\n", "line"),
    ],
)
def test_what_cannot_be_read_is_refused_with_its_field(data: bytes, field: str) -> None:
    """Ticks that make a call last longer than from its start to its end too."""
    refusal, good = items(FORMAT, data + record())
    assert isinstance(refusal, Refused)
    assert (refusal.line, refusal.field) == (1, field)
    assert isinstance(good, Usage)
