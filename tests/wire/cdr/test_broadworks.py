"""BroadWorks XML: real files field by field, and files that want to do harm."""

from __future__ import annotations

import tracemalloc

import pytest

from tests.wire.cdr.shared import (
    Endless,
    file,
    items,
    needs_files,
    refusals,
    skips,
    sure,
    us,
    usages,
)
from tollkeeper.core.usage import Refused, Skipped, Usage
from tollkeeper.errors import InvalidInput
from tollkeeper.wire.cdr.broadworks import FORMAT
from tollkeeper.wire.cdr.format import ReadOptions

HEAD = b'<?xml version="1.0" encoding="ISO-8859-1"?><!DOCTYPE broadWorksCDR><broadWorksCDR>'


def record(basic: str, kind: str = "Normal", more: str = "") -> bytes:
    text = (
        f"<cdrData><headerModule><type>{kind}</type></headerModule>"
        f"<basicModule>{basic}</basicModule>{more}</cdrData>"
    )
    return text.encode()


CALL = (
    "<startTime>20260301100000.000</startTime><callingNumber>39061</callingNumber>"
    "<calledNumber>44201</calledNumber><localCallId>7:0</localCallId>"
)


@needs_files
def test_the_real_file_has_two_calls_between_its_marks() -> None:
    """Times are UTC whatever the user's zone (1+020000) says."""
    data = file("broadworks/cdrXmlBroadsoft.xml")
    found = items(FORMAT, data)
    assert [type(item) for item in found] == [Skipped, Usage, Usage, Skipped]
    assert found[1] == Usage(
        line=2,
        call_id="74122796919420162305@172.16.1.2",
        leg="25160047719:0",
        start=us(2016, 4, 19, 21, 0, 5, 247_000),
        duration_ms=13_483,
        caller="1001",
        called="+4915117170000",
        answer=us(2016, 4, 19, 21, 0, 6, 813_000),
        end=us(2016, 4, 19, 21, 0, 20, 296_000),
        trunk_in="CGR_GROUP/CGR_GROUP_TRUNK30",
        ip_in="172.16.1.4",
        account="MBC",
        trunk_out="gw04.cgrates.org",
        q850=16,
        sequence=2_183_385,
    )
    assert isinstance(found[2], Usage)
    assert (found[2].duration_ms, found[2].caller, found[2].called) == (
        23_285,
        "+4986517170000",
        "1001",
    )
    assert sure(FORMAT, data) > 90


@needs_files
def test_a_record_without_times_and_parts_of_calls_are_refused_one_by_one() -> None:
    (cut,) = items(FORMAT, file("broadworks/xmlData.xml"))
    assert isinstance(cut, Refused)
    assert cut.field == "startTime"
    assert "25160047719:0" in cut.raw
    parts = refusals(FORMAT, file("broadworks/xmlPartialCDR.xml"))
    assert [(part.line, part.value) for part in parts] == [(n, "partial_cdr") for n in (1, 2, 3)]
    assert "20231011125833.158" in parts[0].raw


def test_a_call_that_nobody_answered_has_a_cause_and_no_duration() -> None:
    basic = (
        CALL + "<answerIndicator>No</answerIndicator><terminationCause>017</terminationCause>"
        "<releaseTime>20260301100009</releaseTime>"
    )
    (call,) = usages(FORMAT, HEAD + record(basic) + b"</broadWorksCDR>")
    assert (call.answer, call.duration_ms, call.q850, call.sip) == (None, 0, 17, 486)
    assert call.end == us(2026, 3, 1, 10, 0, 9)


def test_a_call_to_a_user_came_in_over_the_route() -> None:
    more = (
        "<centrexModule><trunkGroupName>G/T</trunkGroupName></centrexModule><ipModule>"
        "<route>gw1</route><accessDeviceAddress>10.0.0.9</accessDeviceAddress></ipModule>"
    )
    basic = CALL + "<direction>Terminating</direction>"
    (call,) = usages(FORMAT, HEAD + record(basic, more=more) + b"</broadWorksCDR>")
    assert (call.trunk_in, call.ip_in, call.trunk_out, call.ip_out) == (
        "gw1",
        "",
        "G/T",
        "10.0.0.9",
    )
    assert (call.call_id, call.leg) == ("7:0", "")


@pytest.mark.parametrize(
    ("more", "field"),
    [
        ("<answerTime>20260301100001</answerTime>", "releaseTime"),
        (
            "<answerTime>20260301100001</answerTime><releaseTime>20260301100000</releaseTime>",
            "releaseTime",
        ),
        ("<releaseTime>yesterday</releaseTime>", "releaseTime"),
        ("<terminationCause>many</terminationCause>", "terminationCause"),
    ],
)
def test_a_record_that_makes_no_call_is_refused(more: str, field: str) -> None:
    data = HEAD + record(CALL + more) + record(CALL) + b"</broadWorksCDR>"
    refusal, good = items(FORMAT, data)
    assert isinstance(refusal, Refused)
    assert refusal.field == field
    assert isinstance(good, Usage)


def test_records_of_long_calls_are_told_again_at_their_end() -> None:
    data = HEAD + record(CALL, "Interim") + record(CALL, "Duration") + b"</broadWorksCDR>"
    assert [skip.line for skip in skips(FORMAT, data)] == [1, 2]


def test_a_cut_file_gives_its_whole_records_and_one_refusal() -> None:
    data = HEAD + record(CALL) + record(CALL)[:-20]
    good, cut = items(FORMAT, data)
    assert isinstance(good, Usage)
    assert isinstance(cut, Refused)
    assert "cannot be read further" in cut.reason


@pytest.mark.parametrize(
    "data", [b"", b"id,start\n1,2\n", b"\x1f\x8b\x08", b"<?xml version='1.0'?>"]
)
def test_what_is_not_xml_is_no_file_of_this_format(data: bytes) -> None:
    with pytest.raises(InvalidInput):
        items(FORMAT, data)


@pytest.mark.parametrize(
    "doctype",
    [
        '<!DOCTYPE b [<!ENTITY a "0123456789"><!ENTITY b "&a;&a;&a;&a;">]>',
        '<!DOCTYPE b [<!ENTITY x SYSTEM "file:///etc/passwd">]>',
        '<!DOCTYPE b [<!ENTITY % p SYSTEM "http://127.0.0.1/x">%p;]>',
    ],
)
def test_entities_are_not_resolved(doctype: str) -> None:
    """Neither those that grow nor those that fetch."""
    with pytest.raises(InvalidInput, match="entities"):
        items(FORMAT, f"{doctype}<broadWorksCDR><cdrData>&b;</cdrData></broadWorksCDR>".encode())


def test_a_nest_of_elements_is_refused() -> None:
    with pytest.raises(InvalidInput, match="deep"):
        items(FORMAT, b"<a>" * 100_000)


@pytest.mark.parametrize(
    ("head", "fill"),
    [
        (HEAD + b"<cdrData><x>", b"1"),
        (HEAD + b"<cdrData><!--", b"1"),
        (HEAD + b"<cdrData ", b"a"),
        (HEAD + b"<cdrData>", b"<a/>"),
    ],
)
def test_a_record_without_end_is_refused_without_being_held(head: bytes, fill: bytes) -> None:
    """Text, comment, tag or elements of 2 MiB each, where a record has at most one."""
    stream = Endless(head, fill, 2**21)
    tracemalloc.start()
    found = list(FORMAT.read(stream, ReadOptions()))  # type: ignore[arg-type]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found
    assert all(isinstance(item, Refused) for item in found)
    assert peak < 2**23
