"""Oracle (Acme Packet) local CDRs: the layouts against the vendor's, and records by them."""

from __future__ import annotations

import csv

import pytest

from tests.wire.cdr.shared import file, items, needs_files, sure, us, usages
from tollkeeper.core.usage import Refused, Skipped, Usage
from tollkeeper.wire.cdr.oracle import FORMAT, LAYOUTS

VALUES = {
    "Acct-Session-Id": "SDx1",
    "Acme-Session-Ingress-CallId": "in@x",
    "Calling-Station-Id": "<sip:39061@10.1.1.1>;tag=1",
    "Called-Station-Id": "<sip:44201@10.0.0.1>",
    "Acct-Session-Time": "60",
    "h323-setup-time": "10:00:00.100 UTC MAR 02 2026",
    "h323-connect-time": "10:00:03.200 UTC MAR 02 2026",
    "h323-disconnect-time": "10:01:02.950 UTC MAR 02 2026",
    "Acme-Session-Egress-Realm": "core",
    "Acme-Session-Ingress-Realm": "access",
    "Acme-Calling-MOS": "441",
    "Acme-Called-MOS": "430",
    "Acme-Firmware-Version": "ACME Net-Net 4500 SCX6.4.0 MR-1 (Build 21)",
    "Acme-Post-Dial-Delay": "2500",
    "Acme-Ingress-Remote-Addr": "10.1.1.1:5060",
    "Acme-Egress-Remote-Addr": "10.2.2.2:5060",
    "Acme-SIP-Status": "200",
    "Acme-CDR-Sequence-Number": "77",
}


def stop(columns: int = 175, status: str = "2", **changes: str) -> bytes:
    fields = [""] * columns
    fields[0] = status
    for name, text in (VALUES | changes).items():
        if name in LAYOUTS[columns]:
            fields[LAYOUTS[columns][name] - 1] = text
    return ",".join(f'"{field}"' if "," in field else field for field in fields).encode() + b"\n"


def changed(name: str, text: str) -> bytes:
    return stop(**{name: text})


def columns_of(name: str) -> list[str]:
    rows = csv.reader(file(f"acme_oracle_sbc/{name}").decode().splitlines())
    return [row[1].replace("--", "-") for row in rows]


@needs_files
def test_the_layout_of_c640_is_the_vendors() -> None:
    names = columns_of("layout_C640_stop.csv")
    assert len(names) == 175
    for name, position in LAYOUTS[175].items():
        assert names[position - 1] == name


@needs_files
def test_a_start_record_of_d710_is_skipped() -> None:
    """It has 127 columns, and says nothing that the stop record will not."""
    names = columns_of("layout_D710_start.csv")
    assert names[0] == "Acct-Status-Type"
    fields = [""] * len(names)
    fields[0] = "1"
    (item,) = items(FORMAT, ",".join(fields).encode())
    assert isinstance(item, Skipped)


@needs_files
@pytest.mark.parametrize("name", ["layout_C640_stop.csv", "layout_D710_start.csv"])
def test_a_list_of_columns_is_no_cdr_file(name: str) -> None:
    data = file(f"acme_oracle_sbc/{name}")
    found = items(FORMAT, data)
    assert len(found) == len(columns_of(name))
    assert all(isinstance(item, Refused) for item in found)
    assert sure(FORMAT, data) == 0


@pytest.mark.parametrize("columns", [169, 171, 175])
def test_a_stop_record_is_read_by_the_layout_of_its_release(columns: int) -> None:
    """59.75 s between the two times, which agree with the 60 s that were counted."""
    (call,) = usages(FORMAT, stop(columns))
    assert call == Usage(
        line=1,
        call_id="in@x",
        leg="SDx1",
        start=us(2026, 3, 2, 10, 0, 0, 100_000),
        duration_ms=59_750,
        caller="<sip:39061@10.1.1.1>;tag=1",
        called="<sip:44201@10.0.0.1>",
        answer=us(2026, 3, 2, 10, 0, 3, 200_000),
        end=us(2026, 3, 2, 10, 1, 2, 950_000),
        trunk_in="access",
        ip_in="10.1.1.1",
        trunk_out="core",
        ip_out="10.2.2.2",
        sip=200,
        pdd_ms=2_500,
        mos=430,
        sequence=None if columns == 169 else 77,
    )
    assert sure(FORMAT, stop(columns)) > 90


def test_a_call_that_failed_has_the_first_second_of_1970_as_its_answer() -> None:
    changes = {
        "h323-connect-time": "00:00:00.000 UTC JAN 01 1970",
        "Acct-Session-Time": "0",
        "Acme-SIP-Status": "486",
    }
    (call,) = usages(FORMAT, stop(**changes))
    assert (call.answer, call.duration_ms, call.sip, call.q850) == (None, 0, 486, 17)


def test_the_count_is_taken_where_the_times_contradict_it() -> None:
    (call,) = usages(FORMAT, changed("Acct-Session-Time", "300"))
    assert call.duration_ms == 300_000


@pytest.mark.parametrize("status", ["1", "Start", "3", "Interim-Update", "7", "8"])
def test_only_stop_records_are_calls(status: str) -> None:
    (item,) = items(FORMAT, stop(status=status))
    assert isinstance(item, Skipped)


@pytest.mark.parametrize(
    ("data", "field"),
    [
        (changed("Acme-Firmware-Version", ""), "Acme-Firmware-Version"),
        (stop().rstrip(b"\n") + b",x,y\n", "Acme-Firmware-Version"),
        (changed("h323-setup-time", ""), "h323-setup-time"),
        (changed("h323-setup-time", "10:00:00.1 EST MAR 02 2026"), "h323-setup-time"),
        (changed("h323-setup-time", "10:00:00.1 UTC FOO 02 2026"), "h323-setup-time"),
        (changed("Acct-Session-Time", "-1"), "Acct-Session-Time"),
        (changed("Acme-SIP-Status", "9999"), "Acme-SIP-Status"),
        (stop(status="9"), "Acct-Status-Type"),
        (b'"' + stop(), "line"),
    ],
)
def test_a_doubtful_record_is_refused(data: bytes, field: str) -> None:
    refusal, good = items(FORMAT, data + stop())
    assert isinstance(refusal, Refused)
    assert (refusal.line, refusal.field) == (1, field)
    assert isinstance(good, Usage)


def test_the_zone_of_the_file_says_what_est_is() -> None:
    data = changed("h323-setup-time", "10:00:00.100 EST MAR 02 2026")
    (call,) = usages(FORMAT, data, "America/New_York")
    assert call.start == us(2026, 3, 2, 15, 0, 0, 100_000)
