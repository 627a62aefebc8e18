"""VOS3000: what its tables and files can have in them."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from tests.wire.cdr.shared import items, sure, us
from tollkeeper.core.usage import Item, Refused, Usage
from tollkeeper.wire.cdr import (
    vos3000,
)


def kinds(found: list[Item]) -> str:
    return "".join(type(item).__name__[0] for item in found)


ROW: dict[str, Any] = {
    "id": 1, "callere164": "39", "calleraccesse164": "390612", "calleee164": "99944201",
    "calleeaccesse164": "44201", "callerip": "192.0.2.1", "callerrtpip": "192.0.2.2",
    "callercodec": "g729", "callergatewayid": "acme", "callerproductid": "x, \"y\"",
    "callertogatewaye164": "", "callertype": 1, "calleeip": "192.0.2.9:5060",
    "calleertpip": "192.0.2.8", "calleecodec": "g729", "calleegatewayid": "carrier",
    "calleeproductid": "", "calleetogatewaye164": "44201", "calleetype": 2, "billingmode": 0,
    "calllevel": 0, "agentfeetime": 0, "starttime": 1700000000123, "stoptime": 1700000012500,
    "callerpdd": 900, "calleepdd": 800, "holdtime": 10, "callerareacode": "39", "feetime": 12,
    "fee": Decimal("0.0123"), "tax": 0, "suitefee": 0, "suitefeetime": 0, "incomefee": 0,
    "incometax": 0, "customeraccount": "acc1", "customername": "Acme", "calleeareacode": "44",
    "agentfee": 0, "agenttax": 0, "agentsuitefee": 0, "agentsuitefeetime": 0, "agentaccount": "",
    "agentname": "", "flowno": 330455246, "softswitchname": "vos", "softswitchcallid": "7",
    "callercallid": "call-1@192.0.2.1", "calleroriginalcallid": "", "calleecallid": "call-2",
    "calleroriginalinfo": "", "rtpforward": 1, "enddirection": 0, "endreason": 16,
    "billingtype": 0, "cdrlevel": 0, "agentcdr_id": 0, "sipreasonheader": "",
    "recordstarttime": 0, "transactionid": "t1",
}  # fmt: skip
VOS = Usage(
    line=1, call_id="call-1@192.0.2.1", leg="330455246", start=1_700_000_000_123_000,
    answer=1_700_000_002_500_000, end=1_700_000_012_500_000, duration_ms=10_000, caller="390612",
    called="44201", trunk_in="acme", ip_in="192.0.2.1", account="acc1", trunk_out="carrier",
    ip_out="192.0.2.9", sip=200, q850=16, pdd_ms=800, price=Decimal("0.0123"),
)  # fmt: skip


def as_csv(row: dict[str, Any]) -> bytes:
    cells = (str(value).replace('"', '""') for value in row.values())
    return (",".join(f'"{cell}"' for cell in cells) + "\n").encode()


def test_a_row_of_the_database_is_read_by_its_names() -> None:
    assert vos3000.read_row(ROW) == VOS
    as_bytes = {key.upper(): str(value).encode() for key, value in ROW.items()}
    assert vos3000.read_row(as_bytes, line=1) == VOS
    bad = vos3000.read_row({**ROW, "holdtime": -1}, line=9)
    assert isinstance(bad, Refused)
    assert (bad.line, bad.field) == (9, "duration")
    assert isinstance(vos3000.read_row({}), Refused)
    failed = vos3000.read_row({**ROW, "holdtime": 0, "endreason": 404, "callercallid": None})
    assert isinstance(failed, Usage)
    assert (failed.call_id, failed.answer, failed.sip, failed.q850) == ("330455246", None, 404, 1)


NEWER = ("id", "callerrtpip", "calleertpip", "calleecallid", "calleroriginalinfo", "sipreasonheader", "recordstarttime", "transactionid")  # fmt: skip


@pytest.mark.parametrize(
    "without",
    [
        (),
        ("id",),
        NEWER,
        ("id", "calleecallid", "calleroriginalinfo", "sipreasonheader", "recordstarttime", "transactionid"),
        ("id", "callerrtpip", "calleertpip", "calleecallid", "calleroriginalinfo"),
        ("sipreasonheader", "recordstarttime", "transactionid"),
        ("id", "sipreasonheader", "recordstarttime"),
    ],
)  # fmt: skip
def test_csv_of_every_version_is_told_by_its_columns(without: tuple[str, ...]) -> None:
    row = {key: value for key, value in ROW.items() if key not in without}
    data = as_csv(row) * 2
    assert items(vos3000.FORMAT, data)[0] == VOS
    assert sure(vos3000.FORMAT, data) >= 90


def test_csv_with_a_header_is_read_in_any_order() -> None:
    names = sorted(ROW)
    data = ",".join(names).encode() + b"\n" + as_csv({name: ROW[name] for name in names})
    found = items(vos3000.FORMAT, data)
    assert kinds(found) == "SU"
    assert found[1] == Usage(**{**{f: getattr(VOS, f) for f in VOS.__struct_fields__}, "line": 2})


def test_the_text_export_is_read_and_given_an_id() -> None:
    row = b"390612|44201|2026-07-01 12:00:00|2026-07-01 12:00:12|10|16|0|acme|carrier|1|2|3|4|5|6|7|8|9\n"
    (found,) = items(vos3000.FORMAT, row, timezone="Asia/Shanghai")
    assert found == Usage(
        line=1, call_id="2026-07-01 12:00:00/2026-07-01 12:00:12/390612/44201",
        start=us(2026, 7, 1, 4), answer=us(2026, 7, 1, 4, 0, 2), end=us(2026, 7, 1, 4, 0, 12),
        duration_ms=10_000, caller="390612", called="44201", trunk_in="acme", trunk_out="carrier",
        sip=200, q850=16,
    )  # fmt: skip
    assert sure(vos3000.FORMAT, row) >= 50


def test_bad_rows_of_vos_are_refused_and_the_next_is_read() -> None:
    bad = [
        as_csv(ROW)[:200] + b'"\n',
        as_csv({**ROW, "holdtime": -5}),
        as_csv({**ROW, "holdtime": 4294967291}),
        as_csv({**ROW, "calleeaccesse164": "4.4E+11"}),
        as_csv({**ROW, "starttime": "yesterday"}),
        b"," * 100_000 + b"\n",
    ]
    found = items(vos3000.FORMAT, b"".join(bad) + as_csv(ROW))
    assert kinds(found) == "RRRRRRU"
