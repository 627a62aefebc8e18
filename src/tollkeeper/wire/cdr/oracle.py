"""Local CDR files of Oracle (Acme Packet) session border controllers: RADIUS attributes as CSV.

The lines name no columns; which attribute stands where depends on the release ("Net-Net 4000
Accounting Guide", appendix "Local CDR Storage"). Stop records of S-C6.1.0, S-C6.2.0 and S-C6.4.0
are read: the layout is the one with that many columns and the firmware version in the right one.
Any other is refused, because a shifted column would bill the wrong number. Start and interim records
say nothing that the stop record does not; they are skipped.

The field h323-disconnect-cause is not used: some releases write it in decimal and others in hex.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import BinaryIO, Final

from tollkeeper.core.usage import MICROSECONDS, Item, Skipped, Usage
from tollkeeper.wire.cdr.by_line import at, call_id_of, first_lines, items_of_lines, split
from tollkeeper.wire.cdr.causes import q850_of_sip
from tollkeeper.wire.cdr.format import Format, ReadOptions
from tollkeeper.wire.cdr.h323 import h323_time
from tollkeeper.wire.cdr.problem import FieldProblem
from tollkeeper.wire.cdr.values import (
    duration_ms,
    integer,
    ip_text,
    number_text,
    pdd,
    plain_text,
    sip_status,
)

_FIRMWARE: Final = re.compile(r"\bS?-?(?:SCX|SC|CX|C|D)[A-Z]{0,2} ?[0-9]\.[0-9]\.[0-9]")
_COLUMNS_MIN: Final = 100
_KINDS: Final = {
    "1": "start", "start": "start", "2": "stop", "stop": "stop", "3": "interim-update",
    "interim-update": "interim-update", "7": "accounting-on", "accounting-on": "accounting-on",
    "8": "accounting-off", "accounting-off": "accounting-off",
}  # fmt: skip

_C640: Final[Mapping[str, int]] = {
    "Acct-Session-Id": 4, "Acme-Session-Ingress-CallId": 5, "Calling-Station-Id": 10,
    "Called-Station-Id": 11, "Acct-Session-Time": 13, "h323-setup-time": 14,
    "h323-connect-time": 15, "h323-disconnect-time": 16, "Acme-Session-Egress-Realm": 22,
    "Acme-Session-Ingress-Realm": 23, "Acme-Calling-MOS": 47, "Acme-Called-MOS": 71,
    "Acme-Firmware-Version": 118, "Acme-Post-Dial-Delay": 120, "Acme-Originating-Trunk-Group": 122,
    "Acme-Terminating-Trunk-Group": 123, "Acme-Ingress-Remote-Addr": 128,
    "Acme-Egress-Remote-Addr": 130, "Acme-SIP-Status": 135, "Acme-CDR-Sequence-Number": 175,
}  # fmt: skip
LAYOUTS: Final[Mapping[int, Mapping[str, int]]] = {
    # C6.1.0 has neither Acme-Session-Forked-Call-Id (column 8 of the later ones) nor a sequence.
    169: {
        name: position - 1 if position > 7 else position
        for name, position in _C640.items()
        if name != "Acme-CDR-Sequence-Number"
    },
    171: {**_C640, "Acme-CDR-Sequence-Number": 171},
    175: _C640,
}
"""Columns of a stop record (from 1) by how many there are: S-C6.1.0, S-C6.2.0, S-C6.4.0."""


def read(stream: BinaryIO, options: ReadOptions) -> Iterator[Item]:
    """Yield the calls of a local CDR file.

    ``options.timezone`` is that of abbreviations such as EST in the times.
    """
    return items_of_lines(stream, options, lambda line, text: _line(line, text, options))


def _line(line: int, text: str, options: ReadOptions) -> Item:
    fields = split(text)
    if len(fields) > _COLUMNS_MIN and not fields[-1] and len(fields) - 1 in LAYOUTS:
        fields.pop()
    if len(fields) < _COLUMNS_MIN:
        reason = (
            f"The line has {len(fields)} columns and a record of an Oracle SBC more than "
            f"{_COLUMNS_MIN}; it is cut, or of another format."
        )
        raise FieldProblem("line", "", reason)
    kind = _KINDS.get(fields[0].lower())
    if kind is None:
        reason = f'"{fields[0][:40]}" is no Acct-Status-Type; 1 is a start and 2 a stop.'
        raise FieldProblem("Acct-Status-Type", fields[0], reason)
    if kind != "stop":
        return Skipped(line, f"{kind}: the stop record tells of the call")
    layout = LAYOUTS.get(len(fields))
    firmware = at(fields, layout["Acme-Firmware-Version"]) if layout else ""
    if layout is None or not _FIRMWARE.search(firmware):
        known = ", ".join(str(count) for count in LAYOUTS)
        reason = (
            f"A stop record with {len(fields)} columns and the firmware "
            f'"{firmware[:40]}" has no known layout (known are {known} columns of S-C6.1.0 to '
            "S-C6.4.0); read the file as csv with a mapping of column numbers."
        )
        raise FieldProblem("Acme-Firmware-Version", firmware, reason)
    values = {name: at(fields, position) for name, position in layout.items()}
    return _usage(line, values, options.timezone)


def _usage(line: int, values: Mapping[str, str], zone: str) -> Usage:
    start = h323_time(values["h323-setup-time"], zone, "h323-setup-time")
    if start is None:
        raise FieldProblem("h323-setup-time", "", "The time is missing.")
    answer = h323_time(values["h323-connect-time"], zone, "h323-connect-time")
    end = h323_time(values["h323-disconnect-time"], zone, "h323-disconnect-time")
    seconds = duration_ms(values["Acct-Session-Time"] or "0", "s", "Acct-Session-Time")
    sequence = values.get("Acme-CDR-Sequence-Number", "")
    sip = sip_status(values["Acme-SIP-Status"], "Acme-SIP-Status")
    ingress = values["Acme-Session-Ingress-CallId"]
    session = values["Acct-Session-Id"]
    return Usage(
        line=line,
        call_id=call_id_of(ingress or session),
        leg=plain_text(session if ingress else "", "leg"),
        start=start,
        duration_ms=precise_ms(seconds, answer, end),
        caller=number_text(values["Calling-Station-Id"], "Calling-Station-Id"),
        called=number_text(values["Called-Station-Id"], "Called-Station-Id"),
        answer=answer,
        end=end,
        trunk_in=plain_text(
            values["Acme-Originating-Trunk-Group"] or values["Acme-Session-Ingress-Realm"],
            "trunk_in",
        ),
        ip_in=ip_text(values["Acme-Ingress-Remote-Addr"], "ip_in"),
        trunk_out=plain_text(
            values["Acme-Terminating-Trunk-Group"] or values["Acme-Session-Egress-Realm"],
            "trunk_out",
        ),
        ip_out=ip_text(values["Acme-Egress-Remote-Addr"], "ip_out"),
        sip=sip,
        q850=q850_of_sip(sip),
        pdd_ms=pdd(values["Acme-Post-Dial-Delay"], "ms") or None,
        mos=_mos(values),
        sequence=integer(sequence, "sequence", 0, 2**63 - 1) if sequence else None,
    )


def precise_ms(seconds_ms: int, answer: int | None, end: int | None) -> int:
    """Return the conversation in ms: between two times of ms, as long as the counted seconds agree.

    They agree when less than two seconds apart (a switch may round each of them its own way); else
    what was counted is taken, for that is what the switch accounts by. Times without a fraction of
    a second are no more precise than the count.
    """
    if answer is None or end is None or seconds_ms == 0:
        return seconds_ms
    if answer % MICROSECONDS == 0 and end % MICROSECONDS == 0:
        return seconds_ms
    between = (end - answer) // 1_000
    return between if abs(between - seconds_ms) < 2_000 else seconds_ms


def _mos(values: Mapping[str, str]) -> int | None:
    """The worse of both directions; the switch writes hundredths, and 0 where it did not measure."""
    scores = [
        integer(text, name, 0, 500)
        for name in ("Acme-Calling-MOS", "Acme-Called-MOS")
        if (text := values[name])
    ]
    return min((score for score in scores if score), default=None)


def recognise(head: bytes) -> int:
    """Return how sure it is: a status, many columns, and times as Cisco writes them."""
    found = 0
    for line in first_lines(head):
        fields = line.split(",")
        if len(fields) < _COLUMNS_MIN or fields[0].strip('" ').lower() not in _KINDS:
            continue
        named = any(_FIRMWARE.search(field) for field in fields)
        found = max(found, 95 if named else 40)
    return found


FORMAT = Format(
    "oracle-sbc", "Oracle (Acme Packet) SBC local CDR", read, recognise, (), by_line=True
)
