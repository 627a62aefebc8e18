"""VOS3000: rows of its MySQL day tables (e_cdr_YYYYMMDD), the same as CSV, and its text export.

Which columns a table has differs with the version, so rows without names are told by how many
columns they have and by what stands in them. Times are milliseconds since 1970, or local text.

The called number is the one that came in (calleeaccesse164), for rules of the trunk are applied
here; where it is empty it is calleee164. The running number of a record (flowno) is its leg.
Sources: VOSAPI manual section 3.47 (GetCdr); the text export is section 4.4 of the manual.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import product
from typing import BinaryIO, Final

from tollkeeper.core.usage import Item, Skipped, Usage
from tollkeeper.wire.cdr.causes import of_vos3000
from tollkeeper.wire.cdr.format import Format, ReadOptions
from tollkeeper.wire.cdr.lines import each_line
from tollkeeper.wire.cdr.problem import FieldProblem
from tollkeeper.wire.cdr.rows import split_row
from tollkeeper.wire.cdr.sample import share_of_rows
from tollkeeper.wire.cdr.values import (
    decimal_price,
    duration_ms,
    ip_text,
    number_text,
    pdd,
    plain_text,
    time_reader,
)

_MIDDLE: Final = (
    "calleecodec calleegatewayid calleeproductid calleetogatewaye164 calleetype billingmode "
    "calllevel agentfeetime starttime stoptime callerpdd calleepdd holdtime callerareacode "
    "feetime fee tax suitefee suitefeetime incomefee incometax customeraccount customername "
    "calleeareacode agentfee agenttax agentsuitefee agentsuitefeetime agentaccount agentname "
    "flowno softswitchname softswitchcallid callercallid calleroriginalcallid"
)
_GROUPS: Final[tuple[tuple[bool, str], ...]] = (
    (True, "id"),
    (False, "callere164 calleraccesse164 calleee164 calleeaccesse164 callerip"),
    (True, "callerrtpip"),
    (False, "callercodec callergatewayid callerproductid callertogatewaye164 callertype calleeip"),
    (True, "calleertpip"),
    (False, _MIDDLE),
    (True, "calleecallid"),
    (True, "calleroriginalinfo"),
    (False, "rtpforward enddirection endreason billingtype cdrlevel agentcdr_id"),
    (True, "sipreasonheader"),
    (True, "recordstarttime"),
    (True, "transactionid"),
    (True, "flownofirst additional dynamicvalue"),
)
"""Columns in their order; those marked are in newer versions only."""
_CALLER_MEDIA: Final = 2
_CALLEE_MEDIA: Final = 4
_EXPORT: Final = (
    "callere164", "calleee164", "starttime", "stoptime", "holdtime", "endreason", "enddirection",
    "callergatewayid", "calleegatewayid",
)  # fmt: skip
_EXPORT_LEAST = 9
_EXPORT_MOST = 24
_ALIASES: Final = {
    "start": "starttime",
    "stop": "stoptime",
    "callergateway": "callergatewayid",
    "calleegateway": "calleegatewayid",
    "account": "customeraccount",
    "accountname": "customername",
}
"""Names of the API (InfoCdr) where they differ from those of the table."""
_MILLIS = re.compile(r"[0-9]{12,14}")
_SECONDS = re.compile(r"[0-9]{9,11}")
_STAMP = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}:[0-9]{2}")
_ADDRESS = re.compile(r"[0-9]{1,3}(\.[0-9]{1,3}){3}(:[0-9]+)?|[0-9A-Fa-f]*:[0-9A-Fa-f:.]+|")
_WHOLE = re.compile(r"-?[0-9]{1,12}")
_WHOLE_OR_NONE = re.compile(r"(-?[0-9]{1,12})?")
_FLAG = re.compile(r"-?[0-9]{1,4}")


def _layouts() -> dict[int, list[tuple[str, ...]]]:
    """Return the orders of columns that there can be, by how many columns they have."""
    found: dict[int, list[tuple[str, ...]]] = {}
    choices = [(True, False) if optional else (True,) for optional, _names in _GROUPS]
    for picked in product(*choices):
        # The two addresses of the media came with the same version.
        if picked[_CALLER_MEDIA] != picked[_CALLEE_MEDIA]:
            continue
        chosen = [names for take, (_, names) in zip(picked, _GROUPS, strict=True) if take]
        columns = tuple(" ".join(chosen).split())
        found.setdefault(len(columns), []).append(columns)
    return found


_LAYOUTS: Final = _layouts()


def read_row(row: Mapping[str, object], *, line: int = 1, timezone: str = "UTC") -> Item:
    """Read one row of a day table (or one InfoCdr of the API) by its column names.

    ``timezone`` is that of times which are text. A bad row comes as ``Refused``.
    """
    named = {str(key).strip().lower(): _text(value) for key, value in row.items()}
    named = {_ALIASES.get(key, key): value for key, value in named.items()}
    try:
        return _usage(named, line, timezone)
    except FieldProblem as problem:
        return problem.refused(line, ", ".join(f"{key}={value}" for key, value in named.items()))


def _text(value: object) -> str:
    """Return a database's value as the text it is in an export."""
    if value is None:
        return ""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace").strip()
    return str(value).strip()


def _usage(row: Mapping[str, str], line: int, timezone: str) -> Usage:
    def get(name: str) -> str:
        value = row.get(name, "")
        return "" if value in {"\\N", "NULL", "null"} else value

    start = _time(get("starttime"), "start", timezone)
    if start is None:
        raise FieldProblem("start", "", "The start of the call is missing.")
    end = _time(get("stoptime"), "end", timezone)
    duration = duration_ms(get("holdtime"), "s")
    called = get("calleeaccesse164") or get("calleee164")
    flow = plain_text(get("flowno"), "leg")
    call_id = plain_text(get("callercallid"), "call_id") or flow
    cause = of_vos3000(get("endreason"))
    answer = None
    if duration > 0:
        answer = start if end is None else max(start, end - duration * 1_000)
    return Usage(
        line=line,
        call_id=call_id or plain_text(_made_id(row), "call_id"),
        start=start,
        duration_ms=duration,
        leg=flow,
        caller=number_text(get("calleraccesse164") or get("callere164"), "caller"),
        called=number_text(called, "called"),
        answer=answer,
        end=end,
        trunk_in=plain_text(get("callergatewayid"), "trunk_in"),
        ip_in=ip_text(get("callerip"), "ip_in"),
        account=plain_text(get("customeraccount"), "account"),
        trunk_out=plain_text(get("calleegatewayid"), "trunk_out"),
        ip_out=ip_text(get("calleeip"), "ip_out"),
        sip=200 if duration > 0 else cause.sip,
        q850=cause.q850 or (16 if duration > 0 else None),
        pdd_ms=pdd(get("calleepdd") or get("callerpdd")),
        price=decimal_price(get("fee")),
    )


def _made_id(row: Mapping[str, str]) -> str:
    """Make an id of what tells calls apart where the record has none (the text export)."""
    parts = ("starttime", "stoptime", "callere164", "calleee164")
    return "/".join(row.get(name, "") for name in parts)


def _time(text: str, field: str, timezone: str) -> int | None:
    if text in {"", "0"}:
        return None
    if _MILLIS.fullmatch(text):
        return time_reader("epoch_ms")(text, field)
    if _SECONDS.fullmatch(text):
        return time_reader("epoch")(text, field)
    layout = "%Y-%m-%d %H:%M:%S.%f" if "." in text else "%Y-%m-%d %H:%M:%S"
    return time_reader(layout, timezone)(text, field)


class _Reader:
    """Reads the lines of one file, and remembers what its columns are."""

    def __init__(self, options: ReadOptions) -> None:
        self._options = options
        self._columns: tuple[str, ...] = ()
        self._named = False

    def read(self, number: int, text: str) -> Item:
        if number == 1 and "starttime" in text.lower():
            self._columns, self._named = _header(text), True
            return Skipped(number, "The line is the header.")
        delimiter, values = _split(text)
        if not self._named and not _could_be(self._columns, values):
            self._columns = _layout_of(values, delimiter)
        elif len(values) != len(self._columns) and self._columns is not _EXPORT:
            raise _unknown(len(values))
        row = dict(zip(self._columns, values, strict=False))
        return _usage(row, number, self._options.timezone)


def _split(text: str) -> tuple[str, list[str]]:
    delimiter = "|" if text.count("|") > text.count(",") else ","
    if delimiter == "," and text.count("\t") > text.count(","):
        delimiter = "\t"
    return delimiter, [value.strip() for value in split_row(text, delimiter, '"')]


def _header(text: str) -> tuple[str, ...]:
    names = (name.lower().replace("_", "") for name in _split(text)[1])
    return tuple(_ALIASES.get(name, name) for name in names)


def _layout_of(values: Sequence[str], delimiter: str) -> tuple[str, ...]:
    """Return the columns of a row without names.

    Raises:
        FieldProblem: it has no number of columns that VOS3000 writes, or other things in them.
    """
    count = len(values)
    known: Iterable[tuple[str, ...]] = _LAYOUTS.get(count, ())
    if delimiter == "|" and _EXPORT_LEAST <= count <= _EXPORT_MOST:
        known = [_EXPORT]
    for columns in known:
        if _could_be(columns, values):
            return columns
    raise _unknown(count)


def _is_time(text: str) -> bool:
    return any(shape.match(text) for shape in (_MILLIS, _SECONDS, _STAMP))


_SHAPES: Final[dict[str, Callable[[str], object]]] = {
    "starttime": _is_time,
    "stoptime": lambda text: _is_time(text) or text in {"", "0"},
    "holdtime": _WHOLE.fullmatch,
    "rtpforward": _WHOLE_OR_NONE.fullmatch,
    "enddirection": _WHOLE_OR_NONE.fullmatch,
    "endreason": _WHOLE_OR_NONE.fullmatch,
    # Columns that some versions lack stand before small numbers, and are none.
    "calleecallid": lambda text: _FLAG.fullmatch(text) is None,
    "calleroriginalinfo": lambda text: _FLAG.fullmatch(text) is None,
    "callerip": _ADDRESS.fullmatch,
    "callerrtpip": _ADDRESS.fullmatch,
    "calleeip": _ADDRESS.fullmatch,
    "calleertpip": _ADDRESS.fullmatch,
}


def _could_be(columns: Sequence[str], values: Sequence[str]) -> bool:
    """Say whether these values can stand in these columns."""
    if columns is not _EXPORT and len(columns) != len(values):
        return False
    pairs = zip(columns, values, strict=False)
    return all(_SHAPES[name](value) for name, value in pairs if name in _SHAPES)


def _unknown(count: int) -> FieldProblem:
    return FieldProblem(
        "line",
        str(count),
        f"The row has {count} columns, and no order of columns of VOS3000 fits them; it may be cut "
        "off. Read another order by a mapping.",
    )


def read(stream: BinaryIO, options: ReadOptions) -> Iterator[Item]:
    """Read a CSV export of a day table or the text export; bad rows come as ``Refused``."""
    return each_line(stream, options.encoding, _Reader(options).read)


def recognise(head: bytes) -> int:
    """Say how sure it is: rows whose values stand where VOS3000 has them."""
    share = share_of_rows(head, _Reader(ReadOptions()).read, lambda _usage: True)
    named = b"calleee164" in head[:4_096].lower()
    # The short text export has little to know it by.
    wide = head.partition(b"\n")[0].count(b",") > 40
    return (95 if named or wide else 70) * share // 100


FORMAT = Format(
    "vos3000", "VOS3000 CSV and text export", read, recognise, (".csv", ".txt"), by_line=True
)
