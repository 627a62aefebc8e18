"""CDR files of Cisco (BroadSoft) BroadWorks in XML.

By the "BroadWorks Accounting Call Detail Record Interface Specification": a file has one <cdrData> a
record; <headerModule> says which type it is, <basicModule> who called whom and when. All times are in
UTC (``YYYYMMDDhhmmss.mmm``; the user's zone stands beside them for display only), the termination
cause is that of Q.850 in decimal. A Normal record is a whole call; Start and End mark the file, and
Interim and Duration records of long calls are skipped: the Normal record at their end has it all. A
record without what makes a call is refused; the parts of partial records are not put together.

The file is read as a stream by a parser that resolves no entities and fetches nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import BinaryIO, Final
from xml.parsers.expat import ExpatError

from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import DefusedXMLParser

from tollkeeper.core.usage import Item, Skipped, Usage
from tollkeeper.errors import InvalidInput
from tollkeeper.wire.cdr.by_line import call_id_of
from tollkeeper.wire.cdr.causes import sip_of_q850, standard_q850
from tollkeeper.wire.cdr.format import Format, ReadOptions
from tollkeeper.wire.cdr.problem import FieldProblem, refused
from tollkeeper.wire.cdr.times import time_reader
from tollkeeper.wire.cdr.values import integer, ip_text, number_text, plain_text

_CHUNK: Final = 2**16
_RECORD_MAX: Final = 2**20
_RECORD_DEPTH: Final = 2
_DEPTH_MAX: Final = 32
_SKIPPED: Final = frozenset({"Start", "End", "Interim", "Duration"})
_CLOCKS: Final = ("%Y%m%d%H%M%S.%f", "%Y%m%d%H%M%S")


@dataclass(slots=True)
class _Element:
    """One child of the root: its leaves by path ("basicModule/startTime"), the first of each."""

    tag: str
    leaves: dict[str, str] = field(default_factory=dict)
    problem: str = ""


class _Target:
    """What the parser calls; gathers the leaves of one record at a time, bounded."""

    def __init__(self) -> None:
        self.root = ""
        self.done: list[_Element] = []
        self.events = 0
        self._path: list[str] = []
        self._text: list[str] = []
        self._size = 0
        self._element: _Element | None = None

    def start(self, tag: str, attributes: Mapping[str, str]) -> None:
        del attributes
        self.events += 1
        self._path.append(tag)
        self._text.clear()
        if len(self._path) == 1:
            self.root = tag
        elif len(self._path) == _RECORD_DEPTH:
            self._element = _Element(tag)
            self._size = 0
        elif len(self._path) > _DEPTH_MAX:
            raise InvalidInput(
                f"The XML is nested more than {_DEPTH_MAX} deep, which no CDR file is.",
                code="not_a_cdr_file",
            )

    def data(self, text: str) -> None:
        self.events += 1
        if self._room(len(text)):
            self._text.append(text)

    def _room(self, size: int) -> bool:
        """Whether the record may grow by so many characters; a record too large is let go."""
        self._size += size
        if self._element is None or self._element.problem:
            return False
        if self._size > _RECORD_MAX:
            self._element.problem = f"The record has more than {_RECORD_MAX:,} characters."
            self._element.leaves.clear()
            self._text.clear()
            return False
        return True

    def end(self, tag: str) -> None:
        self.events += 1
        path = "/".join(self._path[_RECORD_DEPTH:])
        if self._room(len(path)) and self._element is not None and path:
            text = "".join(self._text).strip()
            if text:
                self._element.leaves.setdefault(path, text)
        self._text.clear()
        self._path.pop()
        if len(self._path) == _RECORD_DEPTH - 1 and self._element is not None:
            self.done.append(self._element)
            self._element = None
        del tag

    def close(self) -> None:
        """Nothing is left over: records are taken as they end."""


def read(stream: BinaryIO, options: ReadOptions) -> Iterator[Item]:
    """Yield the calls of a BroadWorks file; lines are numbers of records, from 1.

    ``options`` say nothing to it: the XML names its encoding and the times are in UTC.

    Raises:
        InvalidInput: the file is not XML, or it defines entities.
    """
    del options
    target = _Target()
    parser = DefusedXMLParser(target=target, forbid_dtd=False, forbid_entities=True)
    number = 0
    silent = 0
    problem = ""
    while not problem:
        chunk = stream.read(_CHUNK)
        seen = target.events
        problem = _feed(parser, chunk)
        for element in target.done:
            number += 1
            yield _item(number, element)
        target.done.clear()
        if not chunk:
            break
        # One tag or comment over many chunks would be held by the parser until it ends.
        silent = 0 if target.events > seen else silent + len(chunk)
        if silent > _RECORD_MAX:
            problem = "a single tag or comment is longer than 1 MiB"
    if problem and not target.root:
        raise InvalidInput(f"The file is not XML: {problem}.", code="not_a_cdr_file")
    if problem:
        reason = f"The file cannot be read further: {problem}; it may be cut or damaged."
        yield refused(number + 1, "record", "", reason, b"")


def _feed(parser: DefusedXMLParser, chunk: bytes) -> str:
    """Give the parser a chunk (none: the end) and return why it cannot go on."""
    try:
        if chunk:
            parser.feed(chunk)
        else:
            parser.close()
    except DefusedXmlException:
        raise InvalidInput(
            "The XML file defines entities, which no CDR file needs and which can blow it up; "
            "it is not read.",
            code="not_a_cdr_file",
        ) from None
    except (SyntaxError, ExpatError, ValueError, LookupError) as error:
        return str(error)[:200] or "it is not well-formed"
    return ""


def _item(number: int, element: _Element) -> Item:
    values = element.leaves
    try:
        if element.problem:
            raise FieldProblem("record", "", element.problem)
        if element.tag != "cdrData":
            reason = (
                f"A <{element.tag[:40]}> is no whole record: BroadWorks writes a call as one "
                "<cdrData>; parts of calls are not put together."
            )
            raise FieldProblem("record", element.tag, reason)
        kind = values.get("headerModule/type", "")
        if kind in _SKIPPED:
            return Skipped(number, f"a record of type {kind}, which is no finished call")
        return _usage(number, values)
    except FieldProblem as problem:
        raw = "\n".join(f"{path}: {text}" for path, text in values.items())
        return problem.refused(number, raw)


def _usage(number: int, values: Mapping[str, str]) -> Usage:
    basic = _Module(values, "basicModule")
    start = basic.time("startTime")
    if start is None:
        reason = "The record has no startTime in its basicModule, so it is not a whole call."
        raise FieldProblem("startTime", "", reason)
    end = basic.time("releaseTime")
    answer = basic.time("answerTime") if basic.text("answerIndicator") != "No" else None
    duration = 0
    if answer is not None:
        if end is None:
            raise FieldProblem("releaseTime", "", "The call was answered and has no releaseTime.")
        duration = (end - answer) // 1_000
        if duration < 0:
            reason = "The call was released before it was answered; look at the switch's clock."
            raise FieldProblem("releaseTime", basic.text("releaseTime"), reason)
    cause = standard_q850(
        integer(basic.text("terminationCause") or "0", "terminationCause", 0, 999)
    )
    local = basic.text("localCallId") or values.get("basicModule/localCallId/localCallId", "")
    sip_call = values.get("ipModule/networkCallID") or values.get("ipModule/accessCallID", "")
    system = values.get("headerModule/recordId/eventCounter", "")
    device = ip_text(values.get("ipModule/accessDeviceAddress", ""), "accessDeviceAddress")
    trunk = plain_text(values.get("centrexModule/trunkGroupName", ""), "trunkGroupName")
    route = plain_text(values.get("ipModule/route", ""), "route")
    inwards = basic.text("direction") == "Terminating"
    return Usage(
        line=number,
        call_id=call_id_of(sip_call or local),
        leg=plain_text(local if sip_call else "", "localCallId"),
        start=start,
        duration_ms=duration,
        caller=number_text(basic.text("callingNumber"), "callingNumber"),
        called=number_text(basic.text("calledNumber"), "calledNumber"),
        answer=answer,
        end=end,
        # A record belongs to a user; what the user was called by came in over the route.
        trunk_in=route if inwards else trunk,
        ip_in="" if inwards else device,
        account=plain_text(values.get("headerModule/serviceProvider", ""), "serviceProvider"),
        trunk_out=trunk if inwards else route,
        ip_out=device if inwards else "",
        sip=sip_of_q850(cause) if answer is None else None,
        q850=cause,
        sequence=integer(system, "eventCounter", 0, 2**63 - 1) if system else None,
    )


@dataclass(frozen=True, slots=True)
class _Module:
    """The fields of one module of a record."""

    values: Mapping[str, str]
    name: str

    def text(self, leaf: str) -> str:
        return self.values.get(f"{self.name}/{leaf}", "")

    def time(self, leaf: str) -> int | None:
        text = self.text(leaf)
        if not text:
            return None
        layout = _CLOCKS[0] if "." in text else _CLOCKS[1]
        return time_reader(layout, "UTC")(text, leaf)


def recognise(head: bytes) -> int:
    """Return how sure it is: the name of the root element tells."""
    if b"<broadWorksCDR" in head:
        return 98
    return 60 if b"<partial_cdr>" in head or b"<cdrData>" in head else 0


FORMAT = Format("broadworks-xml", "BroadWorks XML", read, recognise, (".xml",))
