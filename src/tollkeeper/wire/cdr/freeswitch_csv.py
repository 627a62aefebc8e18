"""FreeSWITCH mod_cdr_csv with one of its own templates: example, linksys, snom and opencdrrate.

Which template wrote a row is told by how many columns it has. (The template "asterisk" writes what
``asterisk`` reads; any other is for a mapping.) Times are local to the switch.
Source: ``conf/vanilla/autoload_configs/cdr_csv.conf.xml``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

import msgspec

from tollkeeper.core.usage import Item, Skipped, Usage
from tollkeeper.wire.cdr.causes import of_freeswitch
from tollkeeper.wire.cdr.format import Format, ReadOptions
from tollkeeper.wire.cdr.lines import each_line
from tollkeeper.wire.cdr.mapping import Mapping, load_mapping
from tollkeeper.wire.cdr.problem import FieldProblem
from tollkeeper.wire.cdr.rows import RowReader, row_reader, split_row
from tollkeeper.wire.cdr.sample import share_of_rows

_STAMP = "%Y-%m-%d %H:%M:%S"


def _time(column: str, **more: str) -> dict[str, object]:
    return {"column": column, "time": _STAMP, **more}


EXAMPLE = load_mapping(
    {
        "header": False,
        "fields": {
            "caller": "c2",
            "called": "c3",
            "start": _time("c5"),
            "answer": _time("c6"),
            "end": _time("c7"),
            "duration": "c9",
            "call_id": "c11",
            "account": "c13",
        },
    }
)
"""Template "example": caller name and number, called, context, the times, ... ; more may follow."""
OPENCDRRATE = load_mapping(
    {
        "header": False,
        "columns": 13,
        "fields": {
            "call_id": "c1",
            "caller": "c4",
            "called": "c5",
            # It writes no start: the answer is the first time it knows, or else the end.
            "start": _time("c6", **{"else": "c7"}),
            "answer": _time("c6"),
            "end": _time("c7"),
            "duration": "c8",
            "account": "c9",
            "ip_in": "c11",
            "trunk_out": "c13",
        },
    }
)
"""Template "opencdrrate"."""
_EXAMPLE_WIDTHS = range(15, 21)
_OPENCDRRATE_WIDTH = 13
_CAUSE = 9
_DIRECTION = 2


@dataclass(frozen=True, slots=True)
class _Reader:
    example: RowReader
    opencdrrate: RowReader

    def read(self, number: int, text: str) -> Item:
        values = split_row(text, ",", '"')
        if len(values) == _OPENCDRRATE_WIDTH:
            if values[_DIRECTION].strip() == "outbound" and values[1].strip():
                return Skipped(
                    number, "The leg was made by another leg, whose record has the call."
                )
            return _ended(self.opencdrrate.usage(number, values), "")
        if len(values) in _EXAMPLE_WIDTHS:
            return _ended(self.example.usage(number, values), values[_CAUSE])
        raise FieldProblem(
            "line",
            str(len(values)),
            f"The row has {len(values)} columns; the template example writes 15 and opencdrrate "
            "13. It may be cut off; read another template by a mapping.",
        )


def _ended(item: Usage | Skipped, name: str) -> Item:
    """Add how the call ended, by the name FreeSWITCH has for it."""
    if isinstance(item, Skipped):
        return item
    cause = of_freeswitch(name)
    sip = 200 if item.answer is not None else cause.sip
    return msgspec.structs.replace(item, sip=sip, q850=cause.q850)


def _reader(options: ReadOptions) -> _Reader:
    def one(mapping: Mapping) -> RowReader:
        return row_reader(mapping, options)

    return _Reader(one(EXAMPLE), one(OPENCDRRATE))


def read(stream: BinaryIO, options: ReadOptions) -> Iterator[Item]:
    """Read the rows of a stream; bad ones come as ``Refused``."""
    reader = _reader(options)
    return each_line(stream, options.encoding, reader.read)


def recognise(head: bytes) -> int:
    """Say how sure it is: rows that can be read and hold an id of a FreeSWITCH channel."""
    reader = _reader(ReadOptions())
    share = share_of_rows(head, reader.read, lambda usage: len(usage.call_id) == 36)
    return 9 * share // 10


FORMAT = Format(
    "freeswitch-csv", "FreeSWITCH mod_cdr_csv", read, recognise, (".csv",), by_line=True
)
