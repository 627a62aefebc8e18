"""Accounting files (``*.ACT``) of Ribbon (Sonus) SBC Core and GSX 9000.

Follows "CDR Field Descriptions" of SBC Core 7.1; the fields used here have the same positions from
6.2 to 12.1. A file begins with a header "Sonus Networks, Inc....". STOP is an answered call at its
end, ATTEMPT one that was not answered; START and INTERMEDIATE say nothing that STOP does not, and
REBOOT, SWITCHOVER and the like are no calls. Durations and delays are ticks of 10 ms, times have
tenths of a second.

SBC Core writes times in the node's own zone, which each record names (``GMT-05:00-Eastern``); the
name says by which rules its clocks change. The GSX 9000 wrote them in GMT beside the same name, so
a time zone that is set for the file ("GMT" for a GSX) goes before it; "UTC" means that none is set.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from ipaddress import ip_address
from typing import BinaryIO, Final

from tollkeeper.core.usage import MICROSECONDS, Item, Skipped, Usage
from tollkeeper.wire.cdr.by_line import at, call_id_of, first_lines, items_of_lines, split
from tollkeeper.wire.cdr.causes import sip_of_q850, standard_q850
from tollkeeper.wire.cdr.format import Format, ReadOptions
from tollkeeper.wire.cdr.problem import FieldProblem
from tollkeeper.wire.cdr.times import time_reader
from tollkeeper.wire.cdr.values import integer, ip_text, number_text, plain_text

_STOP: Final[Mapping[str, int]] = {
    "established": 10, "end_date": 11, "end_time": 12, "duration": 14, "reason": 15, "caller": 20,
    "called": 21, "route": 31, "ip_out": 33, "trunk_in": 34, "protocol": 52, "trunk_out": 68,
    "ip_in": 126,
}  # fmt: skip
_ATTEMPT: Final[Mapping[str, int]] = {
    "end_time": 10, "reason": 12, "caller": 17, "called": 18, "route": 28, "ip_out": 30,
    "trunk_in": 31, "protocol": 45, "trunk_out": 58, "end_date": 105, "ip_in": 116,
}  # fmt: skip
LAYOUTS: Final[Mapping[str, Mapping[str, int]]] = {"STOP": _STOP, "ATTEMPT": _ATTEMPT}
"""Positions of fields, from 1; up to 10 START, STOP and ATTEMPT have the same."""
_OTHERS: Final = frozenset({
    "START", "INTERMEDIATE", "REBOOT", "SWITCHOVER", "LSWU", "SOFTSWITCHOVER", "EVENT",
})  # fmt: skip
_HEADER: Final = re.compile(r"(Sonus Networks|Ribbon Communications)\b.*")
_TICK_MS: Final = 10
_TICKS_MAX: Final = 2**32 - 1
_SLACK: Final = 60 * MICROSECONDS
_ZONE: Final = re.compile(r"(?:GMT|UTC)(?:([+-][0-9]{2}:[0-9]{2}))?(?:-(.*))?", re.IGNORECASE)
# Where clocks change, the name decides; the offset in front is that of winter.
_REGIONS: Final = {
    "eastern": "America/New_York", "eastern-us": "America/New_York", "easternus": "America/New_York",
    "indiana": "America/Indiana/Indianapolis", "central": "America/Chicago",
    "central-us": "America/Chicago", "centralus": "America/Chicago", "mountain": "America/Denver",
    "arizona": "America/Phoenix", "pacific": "America/Los_Angeles", "alaska": "America/Anchorage",
    "hawaii": "Pacific/Honolulu", "atlantic-canada": "America/Halifax",
    "newfoundland": "America/St_Johns", "london": "Europe/London", "dublin": "Europe/London",
    "paris": "Europe/Paris", "berlin": "Europe/Berlin", "rome": "Europe/Rome",
    "athens": "Europe/Athens", "tokyo": "Asia/Tokyo", "seoul": "Asia/Seoul",
    "singapore": "Asia/Singapore", "hongkong": "Asia/Hong_Kong", "bombay": "Asia/Kolkata",
    "monrovia": "UTC",
}  # fmt: skip


def read(stream: BinaryIO, options: ReadOptions) -> Iterator[Item]:
    """Yield the calls of an ACT file.

    ``options.timezone``, when it is not "UTC", is that of all times.
    """
    counts: dict[str, int] = {}
    return items_of_lines(stream, options, lambda line, text: _line(line, text, options, counts))


def _line(line: int, text: str, options: ReadOptions, counts: dict[str, int]) -> Item:
    """Read one line; ``counts`` has how many fields the first record of each type has."""
    if _HEADER.match(text):
        return Skipped(line, "the header of the file")
    kind = text.partition(",")[0].strip()
    if kind in _OTHERS:
        return Skipped(line, f"{kind}: no call, or told again by its STOP record")
    layout = LAYOUTS.get(kind)
    if layout is None:
        reason = f'"{kind[:40]}" is no type of record of a Ribbon (Sonus) ACT file.'
        raise FieldProblem("line", kind, reason)
    fields = split(text)
    # A release writes records of one length; a shorter one would lose the names of the call.
    needed = counts.setdefault(kind, max(layout["trunk_in"], len(fields)))
    if len(fields) < needed:
        reason = f"The line has {len(fields)} fields and {kind} at least {needed}; it is cut."
        raise FieldProblem("line", "", reason)
    return _usage(line, fields, layout, _zone(at(fields, 5), options))


def _zone(node: str, options: ReadOptions) -> str:
    """The IANA name of the zone in which a record's times are."""
    if options.timezone != "UTC":
        return options.timezone
    match = _ZONE.fullmatch(node)
    offset, region = match.groups() if match else (None, None)
    if match and not region and offset in {None, "+00:00", "-00:00"}:
        return "UTC"
    zone = _REGIONS.get((region or "").lower().replace(" ", ""))
    if zone is None:
        reason = (
            f'The node\'s time zone "{node[:40]}" is not known here; set the time zone of the file '
            'to an IANA name, or to "GMT" for a GSX 9000.'
        )
        raise FieldProblem("Node Time Zone", node, reason)
    return zone


def _usage(line: int, fields: list[str], layout: Mapping[str, int], zone: str) -> Usage:
    values = {name: at(fields, position) for name, position in layout.items()}
    clock = time_reader("%m/%d/%Y %H:%M:%S.%f", zone)
    start = clock(f"{at(fields, 6)} {at(fields, 7)}", "Start Time")
    end = None
    if values["end_date"] and values["end_time"]:
        end = clock(f"{values['end_date']} {values['end_time']}", "Disconnect Time")
    answered = "duration" in layout
    duration = _ticks(values["duration"], "Call Service Duration") if answered else 0
    # Ticks of another length than this manual's would show here, before they are money.
    if end is not None and duration * 1_000 > end - start + _SLACK:
        reason = (
            "The conversation is longer than the time from start to disconnect; check the file."
        )
        raise FieldProblem("Call Service Duration", values["duration"], reason)
    reason_code = integer(values["reason"] or "0", "Call Disconnect Reason", 0, 65_535)
    q850 = standard_q850(reason_code)
    gateway, accounting = at(fields, 2), at(fields, 3)
    sip_call = _call_id(values["protocol"])
    answer = None
    if answered:
        answer = start + _ticks(values["established"], "Time to Service Established") * 1_000
    return Usage(
        line=line,
        call_id=call_id_of(sip_call or (accounting and f"{gateway}:{accounting}")),
        leg=plain_text(accounting if sip_call else "", "Accounting ID"),
        start=start,
        duration_ms=duration,
        caller=number_text(values["caller"], "Calling Number"),
        called=number_text(values["called"], "Called Number"),
        answer=answer,
        end=end,
        trunk_in=plain_text(values["trunk_in"], "Ingress Trunk Group Name"),
        ip_in=_address(values["ip_in"]),
        trunk_out=plain_text(
            values["trunk_out"] or values["route"].partition(":")[2], "Egress Trunk Group Name"
        ),
        ip_out=ip_text(values["ip_out"], "Egress Remote Signaling IP Address"),
        sip=None if answered else sip_of_q850(q850),
        q850=q850,
        pdd_ms=_ticks(at(fields, 9), "Time to Alerting") or None,
    )


def _address(text: str) -> str:
    """An address so far behind in the line that a release could have moved it: only a real one."""
    try:
        return str(ip_address(text))
    except ValueError:
        return ""


def _ticks(text: str, field: str) -> int:
    """Ticks of 10 ms to milliseconds."""
    ms = integer(text or "0", field, 0, _TICKS_MAX) * _TICK_MS
    if ms >= 2**31:
        raise FieldProblem(field, text, "The number of ticks is longer than 24 days.")
    return ms


def _call_id(protocol: str) -> str:
    """The Call-ID of SIP, second of the subfields of Ingress Protocol Variant Specific Data."""
    variant, comma, rest = protocol.partition(",")
    if comma and variant.strip().upper().startswith("SIP"):
        return rest.partition(",")[0].strip()
    return ""


def recognise(head: bytes) -> int:
    """Return how sure it is: the file header, or a record with an accounting id in hex."""
    found = 0
    for line in first_lines(head):
        if _HEADER.match(line):
            return 95
        kind, _, rest = line.partition(",")
        if kind.strip() in LAYOUTS or kind.strip() in _OTHERS:
            fields = rest.split(",", 2)
            named = len(fields) == 3 and fields[1].strip().lower().startswith("0x")
            found = max(found, 90 if named else 30)
    return found


FORMAT = Format(
    "ribbon-act", "Ribbon (Sonus) SBC accounting", read, recognise, (".act",), by_line=True
)
