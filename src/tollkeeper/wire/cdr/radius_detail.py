"""RADIUS accounting written to files: FreeRADIUS "detail" files, and lists of pairs as JSON.

A detail record (``man rlm_detail``) is a line with the time it arrived and then one indented
``Name = value`` a line, up to a blank line. In JSON a record is a list of [name, value] pairs; a
file holds one, several behind each other, or a list of them. Stop records (RFC 2866) are calls;
Start and Interim-Update are skipped, for the Stop says all they do.

The voice attributes are Cisco's ("RADIUS VSA Voice Implementation Guide"), which also GnuGk and
MVTS send: the value of ``h323-...`` may repeat the name ("h323-conf-id=..."), a ``Cisco-AVPair`` is
a name and a value in one, the disconnect cause is in hex. Where there are no h323 times, the call
ended when the record was made (Event-Timestamp, else the arrival less Acct-Delay-Time), and began
Acct-Session-Time before.

What ``debug radius`` prints on a Cisco router is no accounting file and is refused with advice.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import BinaryIO, Final

from tollkeeper.core.usage import MICROSECONDS, Item, Skipped, Usage
from tollkeeper.errors import InvalidInput
from tollkeeper.wire.cdr.by_line import call_id_of, first_lines
from tollkeeper.wire.cdr.causes import q850_of_hex, q850_of_sip, sip_of_q850
from tollkeeper.wire.cdr.format import Format, ReadOptions
from tollkeeper.wire.cdr.h323 import h323_time, offset_of
from tollkeeper.wire.cdr.lines import TooLong, decode, lines
from tollkeeper.wire.cdr.oracle import precise_ms
from tollkeeper.wire.cdr.pairs import read_pairs
from tollkeeper.wire.cdr.problem import FieldProblem, refused
from tollkeeper.wire.cdr.times import time_reader
from tollkeeper.wire.cdr.values import duration_ms, ip_text, number_text, plain_text, sip_status

_ARRIVED: Final = re.compile(r"[A-Z][a-z]{2} [A-Z][a-z]{2} [ 0-9][0-9] [0-9:]{8} [0-9]{4}")
_ATTRIBUTE: Final = re.compile(r"\s+([A-Za-z0-9_.:-]{1,128})\s*[:+]?=\s*(.*)")
_DEBUG: Final = re.compile(r"[0-9.]+: ?RADIUS[:(]")
_EVENT: Final = re.compile(
    r"([A-Za-z]{3} +[0-9]{1,2} [0-9]{4} [0-9]{2}:[0-9]{2}:[0-9]{2}) ([A-Za-z]{1,6})"
)
_EPOCH: Final = re.compile(r"[0-9]{9,10}")
_RECORD_MAX: Final = 2**20
_ATTRIBUTES_MAX: Final = 5_000
_STATUS: Final = {
    "1": "start", "start": "start", "2": "stop", "stop": "stop", "3": "interim-update",
    "interim-update": "interim-update", "alive": "interim-update", "7": "accounting-on",
    "accounting-on": "accounting-on", "8": "accounting-off", "accounting-off": "accounting-off",
    "15": "stop", "failed": "stop",
}  # fmt: skip
_ADVICE: Final = (
    'This is what "debug radius" prints on a Cisco router, no accounting file; give the detail '
    "file of the RADIUS server that the router sends its accounting to."
)
Attributes = dict[str, str]
"""By name in lower case; of a name that comes several times the first value counts."""


def read(stream: BinaryIO, options: ReadOptions) -> Iterator[Item]:
    """Yield the calls of a detail file or of its JSON form.

    ``options.timezone`` is that of the arrival times and of abbreviations such as EST.

    Raises:
        InvalidInput: the file is the output of "debug radius".
    """
    first = stream.read(64)
    while 0 < len(first) < 4 and (more := stream.read(64)):
        first += more
    whole = _Ahead(first, stream)
    if first.removeprefix(b"\xef\xbb\xbf").lstrip().startswith((b"[", b"{")):
        yield from _json_items(whole, options)
    else:
        yield from _detail_items(whole, options)


class _Ahead:
    """A stream of which the first bytes are looked at already."""

    def __init__(self, first: bytes, rest: BinaryIO) -> None:
        self._first = first
        self._rest = rest

    def read(self, size: int = -1) -> bytes:
        if self._first:
            first, self._first = self._first, b""
            return first
        return self._rest.read(size)


class _Record:
    """The lines of one detail record as they come in, bounded."""

    def __init__(self, line: int, arrived: str) -> None:
        self.line = line
        self.arrived = arrived
        self.pairs: list[tuple[str, str]] = []
        self.raw: list[str] = [arrived]
        self.size = 0
        self.problem: FieldProblem | None = None

    def add(self, number: int, text: str) -> None:
        self.size += len(text)
        match = _ATTRIBUTE.fullmatch(text)
        if self.problem is not None:
            return
        if self.size > _RECORD_MAX or len(self.pairs) >= _ATTRIBUTES_MAX:
            reason = (
                f"The record has more than {_ATTRIBUTES_MAX:,} attributes or {_RECORD_MAX:,} "
                "characters; look for missing empty lines in the file."
            )
            self.problem = FieldProblem("record", "", reason)
        elif match is None:
            reason = f"Line {number} of the record is not written as Name = value."
            self.problem = FieldProblem("record", text, reason)
        else:
            self.raw.append(text)
            self.pairs.append((match[1], _unquoted(match[2].strip())))


def _unquoted(text: str) -> str:
    if len(text) >= 2 and text[0] == '"' and text[-1] == '"':
        return text[1:-1].replace('\\"', '"')
    return text


def _detail_items(stream: _Ahead, options: ReadOptions) -> Iterator[Item]:
    record: _Record | None = None
    for number, raw in lines(stream, options.encoding):  # type: ignore[arg-type]
        if isinstance(raw, TooLong):
            if record is None:
                yield raw.refused(number)
            else:
                too_long = raw.refused(number)
                record.problem = FieldProblem("record", "", too_long.reason)
            continue
        text = decode(raw, options.encoding)
        if not text.strip() or not text[0].isspace():
            if record is not None:
                yield _finish(record, options)
                record = None
            if not text.strip():
                continue
            if _ARRIVED.fullmatch(text.strip()):
                record = _Record(number, text.strip())
            else:
                yield _loose(number, text)
        elif record is not None:
            record.add(number, text)
        else:
            yield refused(number, "line", text.strip(), "The line belongs to no record.", text)
    if record is not None:
        # A Stop without its last lines would be a call of no length.
        reason = "The file ends inside of this record: a whole one ends with an empty line."
        yield refused(record.line, "record", "", reason, "\n".join(record.raw))


def _loose(number: int, text: str) -> Item:
    """A line outside of any record: a comment, the output of a debug, or nothing we know."""
    if text.startswith("#"):
        return Skipped(number, "a comment")
    if _DEBUG.search(text[:80]):
        raise InvalidInput(_ADVICE, code="not_a_cdr_file")
    reason = 'The line is no time of a record such as "Mon Nov 28 14:24:55 2005".'
    return refused(number, "line", text.strip(), reason, text)


def _finish(record: _Record, options: ReadOptions) -> Item:
    raw = "\n".join(record.raw)
    try:
        if record.problem is not None:
            raise record.problem
        arrived = time_reader("%a %b %e %H:%M:%S %Y", options.timezone)
        return _item(
            record.line, attributes(record.pairs), arrived(record.arrived, "time"), options
        )
    except FieldProblem as problem:
        return problem.refused(record.line, raw)


def _json_items(stream: _Ahead, options: ReadOptions) -> Iterator[Item]:
    for number, found in read_pairs(stream.read):
        try:
            if isinstance(found, FieldProblem):
                raise found
            yield _item(number, attributes(found.pairs), None, options)
        except FieldProblem as problem:
            raw = b"" if isinstance(found, FieldProblem) else found.raw
            yield problem.refused(number, raw)


def attributes(pairs: Iterable[tuple[str, str]]) -> Attributes:
    """Return the attributes of a record by name, with those inside of Cisco-AVPair beside them."""
    found: Attributes = {}
    inner: Attributes = {}
    for name, value in pairs:
        lower = name.lower()
        if lower in {"cisco-avpair", "h323-ivr-out", "h323-ivr-in"}:
            key, equals, rest = value.partition("=")
            if equals:
                inner.setdefault(key.strip().lower(), rest.strip())
            continue
        key, equals, rest = value.partition("=")
        # GnuGk and Cisco write the name again in the value, and never the one of another field.
        plain = rest if equals and key.strip().lower() == lower else value
        found.setdefault(lower, plain.strip())
    return inner | found


def _item(line: int, values: Attributes, arrived: int | None, options: ReadOptions) -> Item:
    status = values.get("acct-status-type", "")
    kind = _STATUS.get(status.lower())
    if kind is None:
        reason = "The record has no Acct-Status-Type that is known (Start, Stop, Interim-Update)."
        raise FieldProblem("Acct-Status-Type", status, reason)
    if kind != "stop":
        return Skipped(line, f"{kind}: the stop record tells of the call")
    return _usage(line, values, arrived, options.timezone)


def _usage(line: int, values: Attributes, arrived: int | None, zone: str) -> Usage:
    seconds = values.get("acct-session-time", "")
    counted = duration_ms(seconds or "0", "s", "Acct-Session-Time")
    setup, answer, end = _times(values, zone)
    if setup is None and answer is None and end is None:
        end = _made(values, arrived, zone)
        answer = end - counted * 1_000 if counted else None
    start = setup if setup is not None else answer if answer is not None else end
    assert start is not None
    if not seconds and answer is not None and end is not None:
        counted = (end - answer) // 1_000
        if counted < 0:
            raise FieldProblem("h323-connect-time", "", "The call ended before it was answered.")
    elif not counted and answer == end:
        # Cisco writes the disconnect time as the connect time of a call that nobody answered.
        answer = None
    session = values.get("acct-session-id", "")
    call_id = values.get("call-id") or values.get("sip-call-id") or values.get("h323-conf-id", "")
    q850 = q850_of_hex(values.get("h323-disconnect-cause", ""))
    sip = sip_status(values.get("sip-response-code", ""), "Sip-Response-Code")
    ip_in, ip_out = _addresses(values)
    return Usage(
        line=line,
        call_id=call_id_of(call_id or session),
        leg=plain_text(session if call_id else "", "Acct-Session-Id"),
        start=start,
        duration_ms=precise_ms(counted, answer, end),
        caller=number_text(values.get("calling-station-id", ""), "Calling-Station-Id"),
        called=number_text(values.get("called-station-id", ""), "Called-Station-Id"),
        answer=answer,
        end=end,
        trunk_in=plain_text(values.get("in-trunkgroup-label", ""), "in-trunkgroup-label"),
        ip_in=ip_text(ip_in, "ip_in"),
        account=plain_text(values.get("user-name", ""), "User-Name"),
        trunk_out=plain_text(values.get("out-trunkgroup-label", ""), "out-trunkgroup-label"),
        ip_out=ip_text(ip_out, "ip_out"),
        sip=sip if sip is not None or answer is not None else sip_of_q850(q850),
        q850=q850 if q850 is not None else q850_of_sip(sip),
    )


def _times(values: Attributes, zone: str) -> tuple[int | None, int | None, int | None]:
    names = ("h323-setup-time", "h323-connect-time", "h323-disconnect-time")
    setup, connect, disconnect = (h323_time(values.get(name, ""), zone, name) for name in names)
    return setup, connect, disconnect


def _made(values: Attributes, arrived: int | None, zone: str) -> int:
    """When the record was made: its own time, else its arrival less the delay."""
    event = values.get("event-timestamp", "")
    if _EPOCH.fullmatch(event):
        return int(event) * MICROSECONDS
    match = _EVENT.fullmatch(event)
    if match is not None:
        wall = time_reader("%b %d %Y %H:%M:%S", "UTC")(match[1], "Event-Timestamp")
        return wall - offset_of(match[2], zone, wall, event, "Event-Timestamp")
    stamp = values.get("timestamp", "")
    if _EPOCH.fullmatch(stamp):
        arrived = int(stamp) * MICROSECONDS
    if arrived is None:
        reason = "The record has no time: neither h323-setup-time nor Event-Timestamp."
        raise FieldProblem("Event-Timestamp", event, reason)
    delay = duration_ms(values.get("acct-delay-time", "") or "0", "s", "Acct-Delay-Time")
    return arrived - delay * 1_000


def _addresses(values: Attributes) -> tuple[str, str]:
    """Where the call came from and went to.

    The remote side of an answered leg (call origin "answer") sent us the call, that of an
    originated one got it. A gatekeeper ("proxy") names the caller's address as Framed-IP-Address.
    """
    remote = values.get("h323-remote-address", "")
    framed = values.get("framed-ip-address", "")
    if values.get("h323-call-origin", "").lower() == "answer":
        return remote or framed, ""
    return framed, remote


def recognise(head: bytes) -> int:
    """Return how sure it is; the output of "debug radius" too, to refuse it with advice."""
    text = decode(head)
    start = text.lstrip("\ufeff \t\r\n")
    if start.startswith("["):
        return 90 if '"Acct-Status-Type"' in text else 0
    if any(_DEBUG.search(line[:80]) for line in first_lines(head)):
        return 80
    named = re.search(r"^\s+Acct-Status-Type\s*=", text, re.MULTILINE) is not None
    dated = any(_ARRIVED.fullmatch(line) for line in first_lines(head))
    return 95 if named and dated else 70 if named else 0


FORMAT = Format("radius-detail", "RADIUS detail file (FreeRADIUS)", read, recognise, (".detail",))
