"""Sansay: the sample of its manual field by field, and what lines can be besides."""

from __future__ import annotations

import pytest

from tests.wire.cdr.shared import file, items, needs_files, refusals, sure, us, usages
from tollkeeper.core.usage import Refused, Skipped, Usage
from tollkeeper.wire.cdr.sansay import FORMAT

BODY = [
    "WithMedia", "55-1@10.0.0.1", "0001", "Mon Mar  2 10:00:00 2026", "Mon Mar  2 10:00:03 2026",
    "Mon Mar  2 10:01:03 2026", "-60", "BYE", "200", "O", "IN1", "SIP", "39061", "10.1.1.1",
    "44201", "10.0.0.1", "abc@x", "10.1.1.1", "1", "10.0.0.1", "2", "G.729", *["0"] * 7, "OUT1",
    "SIP", "39061", "10.0.0.1", "44201", "10.2.2.2", "def@x", *["0"] * 12, "F", "44201", "60", "3",
    "3", "59750", "conf", "",
]  # fmt: skip


def line(header: str = "000000007;V1.10;R;", **changes: str) -> bytes:
    """One record; ``f5="..."`` puts a text into the fifth field of its body."""
    body = list(BODY)
    for name, text in changes.items():
        body[int(name[1:]) - 1] = text
    return f"{header}{';'.join(body)};\n".encode()


@needs_files
def test_the_sample_is_read_and_its_notes_are_refused() -> None:
    """Header and body stand on two lines. 480 minutes west: 11:38:34 there is 19:38:34 UTC."""
    data = file("sansay/sansay_sample_from_comment.txt")
    found = items(FORMAT, data)
    assert [type(item) for item in found] == [Skipped, Usage, Refused, Refused, Refused]
    assert found[1] == Usage(
        line=2,
        call_id="f0faff54-2e6c-11d8-8c4b-bd4d562c2265",
        leg="181-1071459514@192.188.0.28",
        start=us(2003, 12, 15, 19, 38, 34),
        duration_ms=305_000,
        caller="8587542200",
        called="9001",
        answer=us(2003, 12, 15, 19, 38, 41),
        end=us(2003, 12, 15, 19, 38, 48),
        trunk_in="000200",
        ip_in="192.188.0.38",
        trunk_out="000200",
        ip_out="192.188.0.38",
        q850=3,
        pdd_ms=2_000,
        sequence=2_452_502,
    )
    assert [item.line for item in refusals(FORMAT, data)] == [3, 4, 5]
    assert sure(FORMAT, data) > 90


def test_a_record_on_one_line_has_its_duration_in_milliseconds() -> None:
    """60 minutes east: 10:00 there is 09:00 UTC."""
    (call,) = usages(FORMAT, line())
    assert (call.duration_ms, call.sip, call.q850) == (59_750, 200, None)
    assert (call.start, call.answer) == (us(2026, 3, 2, 9), us(2026, 3, 2, 9, 0, 3))
    assert (call.trunk_in, call.trunk_out, call.ip_in, call.ip_out) == (
        "IN1",
        "OUT1",
        "10.1.1.1",
        "10.2.2.2",
    )
    assert (call.caller, call.called, call.sequence) == ("39061", "44201", 7)


@pytest.mark.parametrize(
    ("side", "protocol", "value", "sip", "q850"),
    [("T", "SIP", "486", 486, 17), ("T", "H323", "17", 486, 17), ("N", "SIP", "999", None, None),
     ("T", "SIP", "987", None, None)],
)  # fmt: skip
def test_a_failed_call_has_the_cause_of_the_side_that_ended_it(
    side: str, protocol: str, value: str, sip: int | None, q850: int | None
) -> None:
    data = line(f3="402", f5="", f54="0", f9=value, f10=side, f31=protocol)
    (call,) = usages(FORMAT, data)
    assert (call.answer, call.duration_ms, call.sip, call.q850) == (None, 0, sip, q850)


@pytest.mark.parametrize("data", [line(f50="I"), line("000000008;V1.10;A;")])
def test_tries_of_routes_and_audits_are_no_calls(data: bytes) -> None:
    (item,) = items(FORMAT, data)
    assert isinstance(item, Skipped)


@pytest.mark.parametrize(
    ("data", "field"),
    [
        (line("000000007;V2.00;R;"), "version"),
        (line(f4=""), "start"),
        (line(f4="2026-03-02 10:00:00"), "start"),
        (line(f7="here"), "minutes_west"),
        (line(f54="4294967290"), "duration"),
        (line(f54="-5"), "duration"),
        (line()[:200] + b"\n", "line"),
    ],
)
def test_what_cannot_be_read_is_refused_with_its_field(data: bytes, field: str) -> None:
    refusal, good = items(FORMAT, data + line())
    assert isinstance(refusal, Refused)
    assert (refusal.line, refusal.field) == (1, field)
    assert isinstance(good, Usage)
