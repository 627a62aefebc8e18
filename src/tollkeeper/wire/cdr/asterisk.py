"""Asterisk: Master.csv of cdr_csv (16 to 21 columns) and the order of cdr_custom's sample.

The two orders are told apart row by row, by where the times stand. Times are local to the switch
unless it writes them in UTC (``usegmtime``). Sources: ``cdr/cdr_csv.c``, ``cdr_custom.conf``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import BinaryIO, Final

from tollkeeper.core.usage import Item, Usage
from tollkeeper.wire.cdr.causes import NO_CAUSE, Cause, of_asterisk, of_freeswitch
from tollkeeper.wire.cdr.format import Format, ReadOptions
from tollkeeper.wire.cdr.lines import each_line
from tollkeeper.wire.cdr.problem import FieldProblem
from tollkeeper.wire.cdr.rows import split_row
from tollkeeper.wire.cdr.sample import share_of_rows
from tollkeeper.wire.cdr.values import TimeReader, duration_ms, number_text, plain_text, time_reader

_MASTER: Final = (
    "accountcode", "src", "dst", "dcontext", "clid", "channel", "dstchannel", "lastapp",
    "lastdata", "start", "answer", "end", "duration", "billsec", "disposition", "amaflags",
    "uniqueid", "userfield", "peeraccount", "linkedid", "sequence",
)  # fmt: skip
_CUSTOM: Final = (
    "clid", "src", "dst", "dcontext", "channel", "dstchannel", "lastapp", "lastdata", "start",
    "answer", "end", "duration", "billsec", "disposition", "amaflags", "accountcode", "uniqueid",
    "userfield", "sequence",
)  # fmt: skip
_CUSTOM_LEAST = 17
_MASTER_LEAST = 16
_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}:[0-9]{2}")
_UNIQUE = re.compile(r"(?:.*-)?[0-9]{9,11}\.[0-9]+")
_PEER = re.compile(r"[A-Za-z0-9_]+/(.+)-[^-]*")
_DISPOSITIONS: Final = frozenset(
    {"ANSWERED", "NO ANSWER", "BUSY", "FAILED", "CONGESTION", "UNKNOWN"}
)
_LAYOUT = "%Y-%m-%d %H:%M:%S"


def row_of(values: Sequence[str]) -> dict[str, str]:
    """Name the columns of a row.

    Raises:
        FieldProblem: the row has neither of the two orders.
    """
    count = len(values)
    if _CUSTOM_LEAST <= count <= len(_CUSTOM) and _TIME.fullmatch(values[8].strip()):
        return dict(zip(_CUSTOM, values, strict=False))
    if _MASTER_LEAST <= count <= len(_MASTER) and _TIME.fullmatch(values[9].strip()):
        row = dict(zip(_MASTER, values, strict=False))
        if count == 17 and not _UNIQUE.fullmatch(row["uniqueid"].strip()):
            # loguserfield without loguniqueid
            row["userfield"] = row.pop("uniqueid")
        return row
    raise FieldProblem(
        "line",
        str(count),
        f"The row has {count} columns and no start where Master.csv or cdr_custom has it; it may "
        "be cut off. Read another order by a mapping.",
    )


def _reader(options: ReadOptions) -> Callable[[int, str], Item]:
    read_time = time_reader(_LAYOUT, options.timezone)

    def read_row(number: int, text: str) -> Item:
        row = {key: value.strip() for key, value in row_of(split_row(text, ",", '"')).items()}
        return _usage(row, number, read_time)

    return read_row


def _usage(row: dict[str, str], number: int, read_time: TimeReader) -> Usage:
    answered, cause = _disposition(row["disposition"].upper())
    start = read_time(row["start"], "start")
    answer = read_time(row["answer"], "answer") if row["answer"] else None
    duration = duration_ms(row["billsec"], "s")
    if answered is False:
        # Busy and failed rows can carry the answer of the dialplan, where nobody was spoken to.
        answer, duration = None, 0
    channel = row["channel"]
    sequence = row.get("sequence", "")
    return Usage(
        line=number,
        call_id=plain_text(row.get("uniqueid", ""), "call_id")
        or plain_text(f"{row['start']} {channel} {row['dst']}", "call_id"),
        start=start,
        duration_ms=duration,
        leg=plain_text(sequence, "leg"),
        caller=number_text(row["src"], "caller"),
        called=number_text(row["dst"], "called"),
        answer=answer if answer is not None or duration == 0 else start,
        end=read_time(row["end"], "end") if row["end"] else None,
        trunk_in=plain_text(_peer(channel), "trunk_in"),
        account=plain_text(row["accountcode"], "account"),
        trunk_out=plain_text(_peer(row["dstchannel"]), "trunk_out"),
        sip=cause.sip,
        q850=cause.q850,
    )


def _disposition(text: str) -> tuple[bool | None, Cause]:
    """Return whether the call was answered (None: the times say it), and why it ended."""
    if text in _DISPOSITIONS:
        return text == "ANSWERED", of_asterisk(text)
    # FreeSWITCH's CSV template "asterisk" has the name of its own cause here.
    cause = of_freeswitch(text)
    if text and cause == NO_CAUSE:
        raise FieldProblem("disposition", text, f'"{text[:40]}" is no disposition of Asterisk.')
    return None, cause


def _peer(channel: str) -> str:
    """Return the peer in a channel's name: "PJSIP/acme-00000002" is of acme."""
    match = _PEER.fullmatch(channel)
    return match[1] if match else ""


def read(stream: BinaryIO, options: ReadOptions) -> Iterator[Item]:
    """Read the rows of a stream; bad ones come as ``Refused``."""
    return each_line(stream, options.encoding, _reader(options))


def recognise(head: bytes) -> int:
    """Say how sure it is: rows with times and a disposition where Asterisk has them."""
    return 95 * share_of_rows(head, _reader(ReadOptions()), lambda _usage: True) // 100


FORMAT = Format(
    "asterisk-csv", "Asterisk Master.csv and cdr_custom", read, recognise, (".csv",), by_line=True
)
