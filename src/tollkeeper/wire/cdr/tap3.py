"""TAP 3 files (GSMA TD.57, version 3 release 12; BER) of roaming partners.

Calls of mobile originated and terminated kind, and GPRS sessions, are read; their schema is in
``tap3.asn`` beside this file. Times are local with a code, whose offset the table in the network
information of the file names. The charge (of type "00", the one that is invoiced) is what the partner
says, in ``price`` for reconciling. The partner's code (the sender) is ``trunk_in``, the IMSI the
account. GPRS sessions have the service "data", the access point as ``trunk_out`` and no called
number: their volume is none of a duration's business. Other events are refused when they carry a
charge, and skipped otherwise.

Lengths may be indefinite, unknown elements are passed over, and zeros, blanks or 0xFF behind the end
of a batch are filler.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cache
from importlib import resources
from typing import Any, BinaryIO, Final

import asn1tools

from tollkeeper.core.usage import Item, Skipped, Usage
from tollkeeper.errors import InvalidInput
from tollkeeper.wire.cdr.ber import (
    Broken,
    Head,
    Source,
    definite,
    element,
    read_content,
    read_head,
)
from tollkeeper.wire.cdr.by_line import call_id_of
from tollkeeper.wire.cdr.format import Format, ReadOptions
from tollkeeper.wire.cdr.problem import FieldProblem, refused
from tollkeeper.wire.cdr.times import time_reader
from tollkeeper.wire.cdr.values import duration_ms, number_text, plain_text

_BATCH: Final = 1
_NOTIFICATION: Final = 2
_EVENTS: Final = 3
_INFO: Final = {4: "BatchControlInfo", 5: "AccountingInfo", 6: "NetworkInfo"}
_RECORDS: Final = frozenset({9, 10, 14})
_CHARGE: Final = 62
_FILLER: Final = b"\0 \r\n\xff\x1a"
_FILLER_BYTES: Final = frozenset(_FILLER[at : at + 1] for at in range(len(_FILLER)))
_TOTAL: Final = "00"
_UNSUCCESSFUL: Final = 3
_OTHERS: Final = {
    11: "supplementary service event", 12: "service centre usage", 17: "content transaction",
    297: "location service", 433: "messaging event", 434: "mobile session",
}  # fmt: skip
_DIGITS: Final = frozenset("0123456789abcde")
_PLACES_MAX: Final = 12
# What asn1tools raises for values that do not fit the schema; not all of it is its own error.
_UNREADABLE: Final = (asn1tools.Error, IndexError, KeyError, ValueError, TypeError)
Tree = Mapping[str, Any]
"""A decoded SEQUENCE: elements by name."""


@dataclass(slots=True)
class _Batch:
    """What the head of a batch says about all of its records."""

    sender: str = ""
    currency: str = ""
    places: int | None = None
    offsets: dict[int, str] = field(default_factory=dict)


@cache
def _schema() -> tuple[Any, frozenset[int]]:
    """The compiled schema and the tags it names."""
    text = resources.files("tollkeeper.wire.cdr").joinpath("tap3.asn").read_text("ascii")
    tags = frozenset(int(number) for number in re.findall(r"\[APPLICATION ([0-9]+)\]", text))
    return asn1tools.compile_string(text, "ber"), tags


def read(stream: BinaryIO, options: ReadOptions) -> Iterator[Item]:
    """Yield the records of a TAP file; lines are numbers of records, from 1.

    ``options`` say nothing to it: the file has its own offsets.

    Raises:
        InvalidInput: the file does not begin with a batch or a notification.
    """
    del options
    return _Reader(Source(stream)).items()


class _Reader:
    """Walks a file from batch to batch."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._number = 0

    def items(self) -> Iterator[Item]:
        found = False
        while self._next_batch(found=found):
            found = True
            try:
                head = read_head(self._source)
                if head.application == _NOTIFICATION:
                    self._pass(head)
                    self._number += 1
                    yield Skipped(self._number, "a notification: there was nothing to charge")
                elif head.application == _BATCH and head.constructed:
                    yield from self._batch(head)
                else:
                    raise Broken(f"byte {self._source.position} begins no batch")
            except Broken as broken:
                yield self._broken(str(broken))
                return

    def _next_batch(self, *, found: bool) -> bool:
        """Pass over filler; whether there is more behind it."""
        while (byte := self._source.peek()) in _FILLER_BYTES:
            self._source.take(1)
        if not found and byte not in {b"\x61", b"\x62"}:
            what = "does not begin with a TAP 3 batch" if byte else "is empty"
            raise InvalidInput(
                f"The file {what}; TAP files begin with a TransferBatch or a Notification.",
                code="not_a_cdr_file",
            )
        return bool(byte)

    def _broken(self, why: str) -> Item:
        reason = f"The file cannot be read further: {why}; fetch it again from the partner."
        return refused(self._number + 1, "record", "", reason, b"")

    def _children(self, parent: Head) -> Iterator[Head]:
        """Heads of the elements in ``parent``; the caller takes or passes what is in each."""
        end = None if parent.length is None else self._source.position + parent.length
        while end is None or self._source.position < end:
            head = read_head(self._source)
            if end is None and head.ends:
                return
            if end is not None and self._source.position + (head.length or 0) > end:
                raise Broken(f"byte {self._source.position} begins more than there is room for")
            yield head
        if self._source.position > end:
            raise Broken(f"byte {self._source.position} is past the end of the list")

    def _pass(self, head: Head) -> None:
        if head.length is not None:
            self._source.skip(head.length)
        else:
            read_content(self._source, head)

    def _batch(self, parent: Head) -> Iterator[Item]:
        batch = _Batch()
        for head in self._children(parent):
            number = head.application
            if number == _EVENTS and head.constructed:
                for event in self._children(head):
                    self._number += 1
                    content = read_content(self._source, event)
                    yield _item(self._number, event, content, batch)
            elif number in _INFO:
                content = read_content(self._source, head)
                problem = _learn(batch, head, content)
                if problem is not None:
                    yield problem.refused(self._number + 1, b"")
            else:
                self._pass(head)


def _decode(name: str, identifier: bytes, content: bytes) -> Any:
    schema, tags = _schema()
    try:
        return schema.decode(name, element(identifier, definite(content, tags)))
    except Broken as broken:
        raise FieldProblem("record", "", f"The record is not BER: {broken}.") from None
    except _UNREADABLE as error:
        reason = f"The record does not fit the schema of TAP 3.12 ({str(error)[:120]})."
        raise FieldProblem("record", "", reason) from None


def _learn(batch: _Batch, head: Head, content: bytes | None) -> FieldProblem | None:
    """Take what a part of the batch's head says; a problem when it cannot be read."""
    name = _INFO[head.number]
    try:
        if content is None:
            raise FieldProblem(name, "", "The head of the batch is larger than 1 MiB.")
        tree: Tree = _decode(name, head.raw, content)
        if name == "BatchControlInfo":
            batch.sender = plain_text(_text(tree, "sender"), "sender")
        elif name == "AccountingInfo":
            # Amounts are in the TAP currency where one is named, else in the local one.
            currency = _text(tree, "tapCurrency") or _text(tree, "localCurrency")
            batch.currency = plain_text(currency, "currency")
            places = tree.get("tapDecimalPlaces")
            if places is not None and 0 <= places <= _PLACES_MAX:
                batch.places = places
        else:
            for entry in tree.get("utcTimeOffsetInfo", ()):
                code = entry.get("utcTimeOffsetCode")
                if code is not None:
                    batch.offsets.setdefault(code, _text(entry, "utcTimeOffset"))
    except FieldProblem as problem:
        return FieldProblem(name, problem.value, f"In {name}: {problem.reason}")
    return None


def _item(number: int, head: Head, content: bytes | None, batch: _Batch) -> Item:
    try:
        if content is None:
            raise FieldProblem("record", "", "The record is larger than 1 MiB.")
        tag = head.application
        if tag not in _RECORDS:
            what = _OTHERS.get(tag or 0, "record of an unknown kind")
            if not _charged(content):
                return Skipped(number, f"a {what} without a charge")
            reason = f"A {what} with a charge is not read; charge it by hand."
            raise FieldProblem("record", what, reason)
        kind, tree = _decode("CallEventDetail", head.raw, content)
        if kind == "gprsCall":
            return _gprs(number, tree, batch)
        return _call(number, tree, batch, originated=kind == "mobileOriginatedCall")
    except FieldProblem as problem:
        return problem.refused(number, (content or b"")[:2_000].hex())


def _charged(content: bytes) -> bool:
    """Whether there is a charge other than 0 anywhere in it (or we cannot tell)."""
    try:
        flat = definite(content, range(1_000))
    except Broken:
        return True
    identifier = b"\x5f" + bytes((_CHARGE,))
    at = flat.find(identifier)
    while at >= 0:
        size = flat[at + 2] if at + 2 < len(flat) else 0
        if any(flat[at + 3 : at + 3 + size]):
            return True
        at = flat.find(identifier, at + 1)
    return False


def _call(number: int, tree: Tree, batch: _Batch, *, originated: bool) -> Usage:
    basic: Tree = tree.get("basicCallInformation", {})
    imsi, msisdn = _subscriber(basic.get("chargeableSubscriber"))
    services: Sequence[Tree] = tree.get("basicServiceUsedList", ())
    service = _service(services)
    if originated:
        there: Tree = basic.get("destination", {})
        sms = _text(there, "sMSDestinationNumber") if service == "sms" else ""
        other = sms or _bcd(there, "calledNumber") or _text(there, "dialledDigits")
    else:
        there = basic.get("callOriginator", {})
        other = _bcd(there, "callingNumber") or _text(there, "sMSOriginator")
    who = imsi or msisdn
    location: Tree = tree.get("locationInformation", {}).get("networkLocation", {})
    reference = location.get("callReference", b"").hex()
    start = _start(basic, batch)
    duration = _duration(basic)
    talked = basic.get("causeForTerm") != _UNSUCCESSFUL
    charges = [charge for used in services for charge in used.get("chargeInformationList", ())]
    price = _price(charges, batch)
    return Usage(
        line=number,
        # The reference is optional in TAP; then a party and the other one tell calls apart.
        call_id=call_id_of(reference or (who and f"{who}:{other}")),
        leg="mo" if originated else "mt",
        start=start,
        duration_ms=duration,
        caller=number_text(msisdn if originated else other, "caller"),
        called=number_text(other if originated else msisdn, "called"),
        answer=start if talked else None,
        end=start + duration * 1_000,
        trunk_in=batch.sender,
        account=plain_text(imsi, "imsi"),
        service=service,
        price=price,
        currency=batch.currency if price is not None else "",
    )


def _gprs(number: int, tree: Tree, batch: _Batch) -> Usage:
    basic: Tree = tree.get("gprsBasicCallInformation", {})
    who: Tree = basic.get("gprsChargeableSubscriber", {})
    imsi, msisdn = _subscriber(who.get("chargeableSubscriber"))
    charging = basic.get("chargingId")
    if charging is None:
        raise FieldProblem("chargingId", "", "The GPRS session has no charging id.")
    start = _start(basic, batch)
    duration = _duration(basic)
    used: Tree = tree.get("gprsServiceUsed", {})
    price = _price(used.get("chargeInformationList", ()), batch)
    access_point = _text(basic.get("gprsDestination", {}), "accessPointNameNI")
    return Usage(
        line=number,
        call_id=f"{charging & 0xFFFFFFFF:08x}",
        leg="gprs",
        start=start,
        duration_ms=duration,
        caller=number_text(msisdn, "caller"),
        answer=start,
        end=start + duration * 1_000,
        trunk_in=batch.sender,
        account=plain_text(imsi, "imsi"),
        trunk_out=plain_text(access_point, "accessPointNameNI"),
        service="data",
        price=price,
        currency=batch.currency if price is not None else "",
    )


def _start(basic: Tree, batch: _Batch) -> int:
    stamp: Tree = basic.get("callEventStartTimeStamp", {})
    local = _text(stamp, "localTimeStamp")
    code = stamp.get("utcTimeOffsetCode")
    offset = batch.offsets.get(code) if code is not None else None
    if offset is None:
        reason = (
            "The time has no UTC offset: its code is missing, or not in the table of the file's "
            "NetworkInfo."
        )
        raise FieldProblem("utcTimeOffsetCode", str(code)[:20], reason)
    return time_reader("%Y%m%d%H%M%S%z", "UTC")(local + offset, "callEventStartTimeStamp")


def _duration(basic: Tree) -> int:
    seconds = basic.get("totalCallEventDuration")
    text = "" if seconds is None else str(seconds) if abs(seconds) < 2**63 else "9" * 19
    return duration_ms(text, "s", "totalCallEventDuration")


def _service(services: Sequence[Tree]) -> str:
    """The service of the first one used: short messages are tele services 20 to 22."""
    for used in services:
        code = used.get("basicService", {}).get("serviceCode")
        if code is not None:
            kind, value = code
            return "sms" if kind == "teleServiceCode" and value[:1] == b"2" else "voice"
    return "voice"


def _price(charges: Sequence[Tree], batch: _Batch) -> Decimal | None:
    """The sum of the invoiced charges; None where there is none."""
    amounts = [
        detail["charge"]
        for charge in charges
        for detail in charge.get("chargeDetailList", ())
        if _text(detail, "chargeType") == _TOTAL and "charge" in detail
    ]
    if not amounts:
        return None
    total = sum(amounts)
    if batch.places is None or not 0 <= total < 2**63:
        reason = "The charge is no amount: the file's TapDecimalPlaces are missing, or it is huge."
        raise FieldProblem("charge", "", reason)
    return Decimal(total).scaleb(-batch.places)


def _subscriber(choice: tuple[str, Tree] | None) -> tuple[str, str]:
    """IMSI (or MIN) and number of who is charged."""
    if choice is None:
        return "", ""
    kind, tree = choice
    if kind == "simChargeableSubscriber":
        return _bcd(tree, "imsi"), _bcd(tree, "msisdn")
    return _text(tree, "min"), _text(tree, "mdn")


def _text(tree: Tree, name: str) -> str:
    value: bytes = tree.get(name, b"")
    return value.decode("latin-1").strip()


def _bcd(tree: Tree, name: str) -> str:
    """Digits two to a byte, the left one first, an odd number filled with "f"."""
    value: bytes = tree.get(name, b"")
    digits = value.hex().removesuffix("f")
    if not _DIGITS.issuperset(digits):
        raise FieldProblem(name, digits, "The number has a filler in its middle.")
    return digits


def recognise(head: bytes) -> int:
    """Return how sure it is: a batch that begins with its control information."""
    body = head.lstrip(_FILLER)
    if body[:1] == b"\x61" and b"\x64" in body[1:12]:
        # The sender's tag, [APPLICATION 196], comes first in every batch.
        return 95 if b"\x5f\x81\x44" in body[:64] else 70
    return 70 if body[:1] == b"\x62" and b"\x5f\x81\x44" in body[:64] else 0


FORMAT = Format("tap3", "TAP 3 (GSMA TD.57)", read, recognise, (".tap",))
