"""CDR files of Cisco Unified Communications Manager (``cdr_*``).

By Cisco's "Call Detail Records Administration Guide": the first line names the columns, the second
has their types (INTEGER, VARCHAR(50) ...), times are seconds since 1970 in UTC, addresses are 32-bit
integers with a sign whose lowest byte is the first of the address, causes are those of Q.850 (larger
ones are Cisco's own and left out). What was billed to is the final called number, which differs from
the dialled one when a call was forwarded. The CMR files (``cmr_*``) of quality reports are no calls.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from ipaddress import IPv4Address
from typing import BinaryIO, Final

from tollkeeper.core.usage import MICROSECONDS, Item, Skipped, Usage
from tollkeeper.errors import InvalidInput
from tollkeeper.wire.cdr.by_line import call_id_of, first_lines, items_of_lines, split
from tollkeeper.wire.cdr.causes import sip_of_q850, standard_q850
from tollkeeper.wire.cdr.format import Format, ReadOptions
from tollkeeper.wire.cdr.problem import FieldProblem
from tollkeeper.wire.cdr.values import duration_ms, integer, ip_text, number_text, plain_text

_NEEDED: Final = (
    "cdrRecordType", "globalCallID_callManagerId", "globalCallID_callId", "origLegCallIdentifier",
    "dateTimeOrigination", "callingPartyNumber", "finalCalledPartyNumber", "dateTimeConnect",
    "dateTimeDisconnect", "duration",
)  # fmt: skip
_TYPE: Final = re.compile(r"(?i)(INTEGER|VARCHAR|UNIQUEIDENTIFIER|BIGINT|SMALLINT|CHAR)\b.*")
_END_RECORD: Final = 1
_UINT32: Final = 2**32 - 1


class _Reader:
    """Reads lines one after the other; the first one names the columns."""

    def __init__(self) -> None:
        self._columns: list[str] = []

    def read(self, line: int, text: str) -> Item | None:
        if not self._columns:
            self._columns = _header(text)
            return Skipped(line, "the names of the columns")
        fields = split(text)
        if fields[:1] == self._columns[:1]:
            if fields != self._columns:
                reason = "The columns change in the middle of the file; split it at this line."
                raise FieldProblem("line", "", reason)
            return Skipped(line, "the names of the columns again")
        if all(_TYPE.fullmatch(field) for field in fields):
            return Skipped(line, "the types of the columns")
        if len(fields) != len(self._columns):
            reason = (
                f"The line has {len(fields)} columns and the header names {len(self._columns)}; "
                "it is cut or damaged."
            )
            raise FieldProblem("line", "", reason)
        return _record(line, dict(zip(self._columns, fields, strict=True)))


def _header(text: str) -> list[str]:
    try:
        columns = split(text)
    except FieldProblem:
        columns = []
    if "cdrRecordType" in columns and "numberPacketsSent" in columns:
        raise InvalidInput(
            "This is a CMR file (quality reports); give the file of the same name with cdr_ in "
            "front, which has the calls.",
            code="not_a_cdr_file",
        )
    missing = [name for name in _NEEDED if name not in columns]
    if missing:
        raise InvalidInput(
            "The first line does not name the columns of a Cisco CUCM CDR file: "
            f"{', '.join(missing[:3])} {'is' if len(missing) == 1 else 'are'} missing.",
            code="not_a_cdr_file",
        )
    return columns


def read(stream: BinaryIO, options: ReadOptions) -> Iterator[Item]:
    """Yield the calls of a CUCM file.

    Raises:
        InvalidInput: the first line does not name the columns, or the file is a CMR file.
    """
    return items_of_lines(stream, options, _Reader().read)


def _record(line: int, values: Mapping[str, str]) -> Item:
    kind = integer(values["cdrRecordType"], "cdrRecordType", 0, 9)
    if kind != _END_RECORD:
        return Skipped(line, f"a record of type {kind}; 1 is the end of a call")
    start = _time(values, "dateTimeOrigination")
    if start is None:
        raise FieldProblem("dateTimeOrigination", "0", "The time is missing.")
    answer = _time(values, "dateTimeConnect")
    q850 = _cause(values)
    called = values["finalCalledPartyNumber"] or values.get("originalCalledPartyNumber", "")
    call = (
        values.get("globalCallId_ClusterID", ""),
        values["globalCallID_callManagerId"],
        values["globalCallID_callId"],
    )
    legs = (values["origLegCallIdentifier"], values.get("destLegIdentifier", ""))
    return Usage(
        line=line,
        call_id=call_id_of("-".join(part for part in call if part)),
        leg=plain_text("-".join(part for part in legs if part), "origLegCallIdentifier"),
        start=start,
        duration_ms=duration_ms(values["duration"], "s", "duration"),
        caller=number_text(values["callingPartyNumber"], "callingPartyNumber"),
        called=number_text(called, "finalCalledPartyNumber"),
        answer=answer,
        end=_time(values, "dateTimeDisconnect"),
        trunk_in=plain_text(values.get("origDeviceName", ""), "origDeviceName"),
        ip_in=_address(values, "origIpAddr", "origIpv4v6Addr"),
        account=plain_text(values.get("clientMatterCode", ""), "clientMatterCode"),
        trunk_out=plain_text(values.get("destDeviceName", ""), "destDeviceName"),
        ip_out=_address(values, "destIpAddr", "destIpv4v6Addr"),
        sip=sip_of_q850(q850) if answer is None else None,
        q850=q850,
    )


def _time(values: Mapping[str, str], name: str) -> int | None:
    """Seconds since 1970 in UTC to microseconds; None for 0: it did not come to that."""
    return integer(values[name] or "0", name, 0, _UINT32) * MICROSECONDS or None


def _cause(values: Mapping[str, str]) -> int | None:
    """The cause of the side that cleared the call; the other one is 0 or repeats it."""
    for name in ("destCause_value", "origCause_value"):
        value = integer(values.get(name, "") or "0", name, 0, _UINT32)
        if value:
            return standard_q850(value)
    return None


def _address(values: Mapping[str, str], number: str, text: str) -> str:
    value = integer(values.get(number, "") or "0", number, -(2**31), _UINT32)
    if value:
        return str(IPv4Address((value & _UINT32).to_bytes(4, "little")))
    return ip_text(values.get(text, ""), text)


def recognise(head: bytes) -> int:
    """Return how sure it is: the names of the first line tell."""
    line = next(iter(first_lines(head, 1)), "")
    return 98 if "cdrRecordType" in line and "globalCallID_callId" in line else 0


FORMAT = Format("cucm", "Cisco Unified Communications Manager", read, recognise, (), by_line=True)
