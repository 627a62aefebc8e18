"""FreeSWITCH events as text: CHANNEL_HANGUP_COMPLETE as the event socket sends it.

"Name: value" lines with percent-coded values; an empty line ends an event. Records are numbered
from 1 in the order of the stream; other events are skipped.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

from tollkeeper.core.usage import Item, Skipped
from tollkeeper.wire.cdr.format import Format, ReadOptions
from tollkeeper.wire.cdr.freeswitch import plain_value, usage_of
from tollkeeper.wire.cdr.lines import LINE_MAX, TooLong, decode, lines
from tollkeeper.wire.cdr.problem import FieldProblem

_EVENT = "CHANNEL_HANGUP_COMPLETE"


def read(stream: BinaryIO, options: ReadOptions) -> Iterator[Item]:
    """Read the events of a stream; bad ones come as ``Refused``."""
    record = 0
    block: list[bytes] = []
    size = 0
    for _number, raw in lines(stream, options.encoding):
        if isinstance(raw, bytes) and not raw.strip():
            if size:
                record += 1
                yield _read_event(record, block, size, options)
            block, size = [], 0
            continue
        length = raw.length if isinstance(raw, TooLong) else len(raw) + 1
        # Of an event that is too large its beginning is enough, to say so.
        if size + length <= LINE_MAX and isinstance(raw, bytes):
            block.append(raw)
        elif not block:
            block.append(raw.head if isinstance(raw, TooLong) else raw)
        size += length
    if size:
        yield _read_event(record + 1, block, size, options)


def _read_event(record: int, block: list[bytes], size: int, options: ReadOptions) -> Item:
    raw = b"\n".join(block)
    if size > LINE_MAX:
        return TooLong(size, raw).refused(record)
    headers: dict[str, str] = {}
    try:
        for line in block:
            name, colon, value = decode(line, options.encoding).partition(":")
            if not colon:
                raise FieldProblem(
                    "line", name.strip(), 'A line of the event is not "Name: value".'
                )
            headers.setdefault(name.strip(), plain_value(value.strip()))
        if headers.get("Event-Name") != _EVENT:
            return Skipped(record, f"The event is not {_EVENT}.")
        return _usage(headers, record, options)
    except FieldProblem as problem:
        return problem.refused(record, raw)


def _usage(headers: dict[str, str], record: int, options: ReadOptions) -> Item:
    beside = {
        "uuid": "Unique-ID",
        "call_uuid": "Channel-Call-UUID",
        "hangup_cause": "Hangup-Cause",
        "network_addr": "Caller-Network-Addr",
        "start_uepoch": "Caller-Channel-Created-Time",
        "answer_uepoch": "Caller-Channel-Answered-Time",
        "end_uepoch": "Caller-Channel-Hangup-Time",
    }

    def look(name: str) -> str:
        return headers.get(f"variable_{name}") or headers.get(beside.get(name, ""), "")

    return usage_of(
        look,
        caller=headers.get("Caller-Caller-ID-Number") or look("sip_from_user"),
        called=headers.get("Caller-Destination-Number") or look("sip_req_user"),
        mos="",
        record=record,
        options=options,
    )


def recognise(head: bytes) -> int:
    """Say how sure it is that a file holds events."""
    if b"Event-Name: " not in head[:65_536]:
        return 0
    return 95 if _EVENT.encode() in head else 60


FORMAT = Format("freeswitch-event", "FreeSWITCH hangup events", read, recognise)
