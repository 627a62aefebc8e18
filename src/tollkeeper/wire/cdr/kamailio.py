"""Kamailio and OpenSIPS acc in flatstore files: a line a transaction, joined to calls afterwards.

Columns, separated by "|": method, from tag, to tag, Call-ID, SIP status, reason, time (seconds
since 1970, decimals allowed, or "YYYY-MM-DD hh:mm:ss"), and then the extra ones of the script:
request type, account, called number, supplier, dialogue. Where the script writes others,
``ReadOptions.mapping`` says which column (c8 and up) is what; its texts and numbers count.

An INVITE that was refused is a whole record. One that was answered begins a call; where its time is
empty the ACK, which has it, begins the call. A BYE ends it.
Source: the acc modules' documentation (``acc_extra``, ``db_flatstore``).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import BinaryIO, Final

import msgspec

from tollkeeper.core.usage import Half, Item, Skipped, Usage
from tollkeeper.errors import InvalidInput
from tollkeeper.wire.cdr.causes import q850_of_sip
from tollkeeper.wire.cdr.format import Format, ReadOptions
from tollkeeper.wire.cdr.lines import each_line
from tollkeeper.wire.cdr.mapping import ADDRESSES, NUMBERS, TEXTS, FieldRule, column_number
from tollkeeper.wire.cdr.problem import FieldProblem, raw_text
from tollkeeper.wire.cdr.rows import field_reader, split_row
from tollkeeper.wire.cdr.sample import share_of_rows
from tollkeeper.wire.cdr.values import integer, plain_text, time_reader

_METHODS: Final = frozenset(
    {
        "INVITE", "ACK", "BYE", "CANCEL", "MESSAGE", "OPTIONS", "REGISTER", "REFER", "UPDATE",
        "PRACK", "INFO", "SUBSCRIBE", "NOTIFY", "PUBLISH",
    }
)  # fmt: skip
_LEAST = 7
_DIGITS = re.compile(r"[0-9]{1,12}(\.[0-9]+)?")
_CREDENTIALS = frozenset({401, 407})
_NORMAL_CLEARING = 16
_EXTRA_FIELDS: Final = frozenset((*TEXTS, *NUMBERS, *ADDRESSES)) - {"call_id"}
_WIDTH = 64
_DEFAULT = (
    FieldRule("account", column="c9"),
    FieldRule("caller", column="c9"),
    FieldRule("called", column="c10"),
)
Extra = dict[str, Callable[[Sequence[str]], object]]
"""What reads the columns that the script adds, by field."""


def read(stream: BinaryIO, options: ReadOptions) -> Iterator[Item]:
    """Read the transactions of a stream; bad lines come as ``Refused``."""
    return each_line(stream, options.encoding, _reader(options))


def _reader(options: ReadOptions) -> Callable[[int, str], Item]:
    extra = _extra(options)
    epoch = time_reader("epoch")
    stamp = time_reader("%Y-%m-%d %H:%M:%S", options.timezone)

    def read_time(text: str, field: str) -> int:
        return epoch(text, field) if _DIGITS.fullmatch(text) else stamp(text, field)

    def read_line(number: int, text: str) -> Item:
        values = [value.strip() for value in split_row(text, "|", "")]
        if len(values) < _LEAST or values[0] not in _METHODS:
            raise FieldProblem(
                "line",
                values[0],
                "The line is no transaction of acc (method|from tag|to tag|Call-ID|status|reason|"
                "time|...); it may be cut off.",
            )
        at = read_time(values[6], "start") if values[6] else None
        return _item(number, text, values, at, extra)

    return read_line


def _extra(options: ReadOptions) -> Extra:
    rules = _DEFAULT if options.mapping is None else options.mapping.fields
    found: Extra = {}
    for rule in rules:
        if rule.field not in _EXTRA_FIELDS:
            continue
        places = {name: column_number(name) for name in rule.sources}
        wrong = next((name for name, at in places.items() if at is None or at >= _WIDTH), None)
        if wrong is not None:
            raise InvalidInput(
                f'The mapping names the column "{wrong[:40]}"; columns of acc are c1 to c{_WIDTH}.',
                field=f"fields.{rule.field}",
            )
        indices = {name: at for name, at in places.items() if at is not None}
        found[rule.field] = field_reader(rule, indices, options.timezone)
    return found


def _item(number: int, text: str, values: list[str], at: int | None, extra: Extra) -> Item:
    """Say what a transaction is: half a call, a refused call, or nothing that is charged."""
    method = values[0]
    status = integer(values[4], "sip", 100, 699)
    if method not in {"INVITE", "ACK", "BYE"}:
        return Skipped(number, f"{method} is no part of a call that is charged.")
    if method == "INVITE" and status in _CREDENTIALS:
        return Skipped(number, "The INVITE was asked for credentials and comes again with them.")
    if at is None:
        if method == "INVITE" and 200 <= status <= 299:
            return Skipped(number, "The INVITE has no time; its ACK has it.")
        raise FieldProblem("start", "", "The transaction has no time.")
    call_id = plain_text(values[3], "call_id")
    if not call_id:
        raise FieldProblem("call_id", "", "The Call-ID is missing, so the call cannot be told.")
    # A BYE of the called side has the tags the other way round.
    key = ";".join((call_id, *sorted((values[1], values[2]))))
    if method == "BYE":
        return Half(number, key, begins=False, at=at, raw=raw_text(text))
    if status < 200:
        return Skipped(number, "The reply is provisional; the call goes on.")
    good = status <= 299
    padded = values + [""] * (_WIDTH - len(values))
    found = {name: read_field(padded) for name, read_field in extra.items()}
    usage = msgspec.convert(
        {
            "line": number,
            "call_id": call_id,
            "start": at,
            "duration_ms": 0,
            "answer": at if good else None,
            "end": None if good else at,
            "sip": status,
            "q850": None if good else q850_of_sip(status),
            **{name: value for name, value in found.items() if value},
        },
        Usage,
    )
    return Half(number, key, begins=True, at=at, raw=raw_text(text), usage=usage) if good else usage


def _joined(begin: Half, end: Half, line: int) -> Usage:
    assert begin.usage is not None
    # Nearest millisecond, as everywhere; below zero when the clock was set back, for all to see.
    duration = (end.at - begin.at + 500) // 1_000
    return msgspec.structs.replace(
        begin.usage, line=line, duration_ms=duration, end=end.at, q850=_NORMAL_CLEARING
    )


def join(halves: Iterable[Half], waiting: Iterable[Half] = ()) -> tuple[list[Usage], list[Half]]:
    """Join the halves of calls, those of this file with those that wait from files before.

    A call needs its begin and its end, in whichever order they come. Of repeated ones (a BYE from
    either side, an INVITE sent again within the call) the first counts. The record carries the line
    of the half that completed it. Returns the records and the halves that wait on, each in the
    order in which they came.
    """
    everything = [*waiting, *halves]
    begins: dict[str, Half] = {}
    ends: dict[str, Half] = {}
    done: set[str] = set()
    usages: list[Usage] = []
    for half in everything:
        if half.key in done:
            continue
        (begins if half.begins else ends).setdefault(half.key, half)
        begin, end = begins.get(half.key), ends.get(half.key)
        if begin is not None and end is not None:
            usages.append(_joined(begin, end, half.line))
            done.add(half.key)
            del begins[half.key], ends[half.key]
    rest = {id(half) for half in (*begins.values(), *ends.values())}
    return usages, [half for half in everything if id(half) in rest]


def recognise(head: bytes) -> int:
    """Say how sure it is: lines that are transactions of acc."""
    return 95 * share_of_rows(head, _reader(ReadOptions()), lambda _usage: True) // 100


FORMAT = Format(
    "kamailio-acc", "Kamailio and OpenSIPS acc (flatstore)", read, recognise, by_line=True
)
