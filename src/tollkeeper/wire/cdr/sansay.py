"""CDR files of Sansay VSX/SPX session border controllers, format version V1.10.

A record is a header ``sequence;version;type;`` and a body of 56 fields, with ``;`` behind each;
the two stand on one line or on two. Type R is a call, A an audit mark. Positions are those of
Sansay's table of CDR fields (V1.10). The times are the switch's own, and the field behind them says
how many minutes west of Greenwich that is. A record of a route that was tried in vain (route
indication I) is skipped: the call goes on in the record of its final route.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import BinaryIO, Final

from tollkeeper.core.usage import MICROSECONDS, Item, Skipped, Usage
from tollkeeper.wire.cdr.by_line import at, call_id_of, first_lines, items_of_lines
from tollkeeper.wire.cdr.causes import q850_of_sip, sip_of_q850, standard_q850
from tollkeeper.wire.cdr.format import Format, ReadOptions
from tollkeeper.wire.cdr.problem import FieldProblem
from tollkeeper.wire.cdr.times import time_reader
from tollkeeper.wire.cdr.values import duration_ms, integer, ip_text, number_text, plain_text

_HEADER: Final = re.compile(r"([0-9]{1,18});(V[0-9.]{1,10});([A-Z]);(.*)")
_VERSION: Final = "V1.10"
_FIELDS: Final = 55
"""Fields of a body up to the duration in ms and what is behind its ";": else it may be cut."""
_LAYOUT: Final = "%a %b %d %H:%M:%S %Y"
_NORMAL: Final = 1
"""Sansay's own release cause of a call that was answered."""


class _Reader:
    """Reads lines one after the other; remembers a header whose body is on the next line."""

    def __init__(self) -> None:
        self._pending: int | None = None

    def read(self, line: int, text: str) -> Item | None:
        pending, self._pending = self._pending, None
        match = _HEADER.match(text.strip())
        if match is None:
            return _record(line, text.strip().split(";"), pending)
        sequence, version, kind, body = match.groups()
        if version != _VERSION:
            reason = f"The record is of version {version} and {_VERSION} is the one that is known."
            raise FieldProblem("version", version, reason)
        if kind != "R":
            return Skipped(line, f"a record of type {kind}, which is no call")
        if body:
            return _record(line, body.split(";"), int(sequence))
        self._pending = int(sequence)
        return Skipped(line, "the header of the record on the next line")


def read(stream: BinaryIO, options: ReadOptions) -> Iterator[Item]:
    """Yield the calls of a Sansay file."""
    return items_of_lines(stream, options, _Reader().read)


def _record(line: int, body: list[str], sequence: int | None) -> Item:
    if len(body) < _FIELDS:
        reason = (
            f"The line has {len(body)} fields and a Sansay record at least {_FIELDS}; it is cut, "
            "or of another format."
        )
        raise FieldProblem("line", "", reason)
    if at(body, 50) == "I":
        return Skipped(line, "a route that was tried in vain; the call is in a later record")
    west = integer(at(body, 7), "minutes_west", -1_000, 1_000) * 60 * MICROSECONDS
    start = _time(at(body, 4), west, "start")
    if start is None:
        raise FieldProblem("start", "", "The time is missing.")
    duration = duration_ms(at(body, 54), "ms")
    answered = duration > 0 or at(body, 3).lstrip("0") == str(_NORMAL)
    sip, q850 = _cause(body, answered=answered)
    origin = at(body, 17)
    return Usage(
        line=line,
        call_id=call_id_of(origin or at(body, 2)),
        leg=plain_text(at(body, 2) if origin else "", "leg"),
        start=start,
        duration_ms=duration,
        caller=number_text(at(body, 13) or at(body, 56), "caller"),
        called=number_text(at(body, 15), "called"),
        answer=_time(at(body, 5), west, "answer") if answered else None,
        end=_time(at(body, 6), west, "end"),
        trunk_in=plain_text(at(body, 11), "trunk_in"),
        ip_in=ip_text(at(body, 14), "ip_in"),
        trunk_out=plain_text(at(body, 30), "trunk_out"),
        ip_out=ip_text(at(body, 35), "ip_out"),
        sip=sip,
        q850=q850,
        pdd_ms=duration_ms(at(body, 52) or "0", "s", "pdd_ms") or None,
        sequence=sequence,
    )


def _time(text: str, west: int, field: str) -> int | None:
    """Local time and minutes west of Greenwich to UTC; None when there is none."""
    text = text.strip()
    if text in {"", "0"}:
        return None
    return time_reader(_LAYOUT, "UTC")(text, field) + west


def _cause(body: list[str], *, answered: bool) -> tuple[int | None, int | None]:
    """Status and cause of the side that hung up first: of H.323 a Q.931 cause, of SIP a status.

    Values of the VSX itself (999, 987) are neither.
    """
    protocol = {"O": at(body, 12), "T": at(body, 31)}.get(at(body, 10), "").upper()
    text = at(body, 9).strip()
    value = int(text) if text.isascii() and text.isdigit() and len(text) <= 4 else 0
    if protocol == "H323":
        q850 = standard_q850(value)
        return None if answered else sip_of_q850(q850), q850
    if protocol == "SIP" and 200 <= value <= 699:
        return value, q850_of_sip(value)
    return None, None


def recognise(head: bytes) -> int:
    """Return how sure it is: the header of a record tells."""
    lines = first_lines(head)
    if any((match := _HEADER.match(line)) and match[2] == _VERSION for line in lines):
        return 95
    return 60 if any(_HEADER.match(line) for line in lines) else 0


FORMAT = Format("sansay", "Sansay VSX/SPX (V1.10)", read, recognise, (".cdr",), by_line=True)
