"""Cisco CUCM: columns by name, types on the second line, addresses as signed integers."""

from __future__ import annotations

import pytest

from tests.wire.cdr.shared import items, refusals, skips, sure, us, usages
from tollkeeper.core.usage import Refused, Skipped, Usage
from tollkeeper.errors import InvalidInput
from tollkeeper.wire.cdr.cucm import FORMAT

ROW = {
    "cdrRecordType": "1",
    "globalCallID_callManagerId": "2",
    "globalCallID_callId": "17210",
    "origLegCallIdentifier": "26181",
    "dateTimeOrigination": "1772445600",
    "origIpAddr": "-1139627840",
    "callingPartyNumber": "39061",
    "origCause_value": "0",
    "destLegIdentifier": "26182",
    "destIpAddr": "16820416",
    "originalCalledPartyNumber": "8000",
    "finalCalledPartyNumber": "4420123",
    "destCause_value": "16",
    "dateTimeConnect": "1772445605",
    "dateTimeDisconnect": "1772445665",
    "duration": "60",
    "origDeviceName": "SIP-IN, main",
    "destDeviceName": "SIP-OUT",
    "globalCallId_ClusterID": "HQ",
    "clientMatterCode": "C7",
}
NAMES = ",".join(f'"{name}"' for name in ROW).encode() + b"\r\n"
TYPES = b"INTEGER,INTEGER,INTEGER,INTEGER,INTEGER,INTEGER,VARCHAR(50),INTEGER,INTEGER,INTEGER,VARCHAR(50),VARCHAR(50),INTEGER,INTEGER,INTEGER,INTEGER,VARCHAR(129),VARCHAR(129),VARCHAR(50),VARCHAR(32)\r\n"


def row(**changes: str) -> bytes:
    return ",".join(f'"{text}"' for text in (ROW | changes).values()).encode() + b"\r\n"


def test_a_call_is_read_by_the_names_of_the_columns() -> None:
    """-1139627840 is Cisco's own example: 192.168.18.188. A comma stands in a quoted name."""
    data = NAMES + TYPES + row()
    header, types, call = items(FORMAT, data)
    assert isinstance(header, Skipped)
    assert isinstance(types, Skipped)
    assert call == Usage(
        line=3,
        call_id="HQ-2-17210",
        leg="26181-26182",
        start=us(2026, 3, 2, 10),
        duration_ms=60_000,
        caller="39061",
        called="4420123",
        answer=us(2026, 3, 2, 10, 0, 5),
        end=us(2026, 3, 2, 10, 1, 5),
        trunk_in="SIP-IN, main",
        ip_in="192.168.18.188",
        account="C7",
        trunk_out="SIP-OUT",
        ip_out="192.168.0.1",
        q850=16,
    )
    assert sure(FORMAT, data) > 90


@pytest.mark.parametrize(
    ("origin", "destination", "q850", "sip"),
    [("0", "17", 17, 486), ("16", "0", 16, None), ("393216", "0", None, None), ("0", "0", None, None)],
)  # fmt: skip
def test_a_call_that_was_not_answered_has_no_connect_time(
    origin: str, destination: str, q850: int | None, sip: int | None
) -> None:
    """Causes over 127 are Cisco's own (393216: the call was split)."""
    cut = row(
        dateTimeConnect="0", duration="0", origCause_value=origin, destCause_value=destination
    )
    (call,) = usages(FORMAT, NAMES + TYPES + cut)
    assert (call.answer, call.duration_ms, call.q850, call.sip) == (None, 0, q850, sip)


@pytest.mark.parametrize(
    ("number", "text", "expected"),
    [("0", "2001:db8::1", "2001:db8::1"), ("0", "", ""), ("3155339456", "", "192.168.18.188"), ("-1", "", "255.255.255.255")],
)  # fmt: skip
def test_addresses(number: str, text: str, expected: str) -> None:
    names = NAMES.replace(b'"clientMatterCode"', b'"origIpv4v6Addr"')
    (call,) = usages(FORMAT, names + row(origIpAddr=number, clientMatterCode=text))
    assert call.ip_in == expected


def test_the_types_may_be_missing_and_the_header_may_come_again() -> None:
    data = NAMES + row() + NAMES + TYPES + row(cdrRecordType="0") + row()
    assert [call.line for call in usages(FORMAT, data)] == [2, 6]
    assert [skip.line for skip in skips(FORMAT, data)] == [1, 3, 4, 5]


@pytest.mark.parametrize(
    ("data", "field"),
    [
        (row(duration="4294967290"), "duration"),
        (row(duration="-1"), "duration"),
        (row(dateTimeOrigination="0"), "dateTimeOrigination"),
        (row(dateTimeConnect="then"), "dateTimeConnect"),
        (row(origIpAddr="99999999999"), "origIpAddr"),
        (row(cdrRecordType="one"), "cdrRecordType"),
        (row(finalCalledPartyNumber="4.4E+11"), "finalCalledPartyNumber"),
        (row().rstrip() + b",more\r\n", "line"),
        (row()[:100] + b"\r\n", "line"),
        (NAMES.replace(b"duration", b"Duration"), "line"),
    ],
)
def test_a_damaged_row_is_refused_with_its_field(data: bytes, field: str) -> None:
    found = items(FORMAT, NAMES + TYPES + data + row())
    assert isinstance(found[2], Refused)
    assert (found[2].line, found[2].field) == (3, field)
    assert isinstance(found[3], Usage)
    assert len(refusals(FORMAT, NAMES + TYPES + data + row())) == 1


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (b"id,start,duration\n1,2,3\n", "cdrRecordType"),
        (NAMES.replace(b'"duration"', b'"length"') + row(), "duration is missing"),
        (b'"cdrRecordType","globalCallID_callManagerId","numberPacketsSent"\n', "CMR"),
        (b'"cdrRecordType\n', "missing"),
    ],
)
def test_a_file_with_other_columns_is_not_of_this_format(data: bytes, word: str) -> None:
    with pytest.raises(InvalidInput, match=word):
        items(FORMAT, data)
