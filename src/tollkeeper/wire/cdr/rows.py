"""Rows of CSV and JSON lines to usage records, one by one, by a mapping.

This is what a mapping means; the fast path over columns hands every row it is not sure of to the
same ``RowReader``.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterator, Sequence
from typing import BinaryIO

from tollkeeper.core.usage import Item, Skipped, Usage
from tollkeeper.errors import InvalidInput
from tollkeeper.wire.cdr.format import Format, ReadOptions
from tollkeeper.wire.cdr.mapping import (
    ADDRESSES,
    INTEGERS,
    NUMBERS,
    TIMES,
    FieldRule,
    Mapping,
    column_number,
)
from tollkeeper.wire.cdr.problem import FieldProblem
from tollkeeper.wire.cdr.values import (
    TooLong,
    decimal_price,
    decode,
    duration_ms,
    integer,
    ip_text,
    lines,
    mos_hundredths,
    number_text,
    pdd,
    plain_text,
    q850_cause,
    sip_status,
    time_reader,
)

COLUMNS_MAX = 4_096
"""Columns of a row that is looked at; more is not a table but damage."""
_SEQUENCE_MAX = 2**63 - 1
_CURRENCY = re.compile("[A-Z]{3}")
_NO_TIME = frozenset({"", "0", "-", "null", "NULL", "\\N", "0000-00-00 00:00:00"})
_BLANK = frozenset({"null", "NULL", "\\N"})

Pick = Callable[[Sequence[str]], str]
"""Takes a rule's text out of a row."""


class RowReader:
    """Reads rows by one mapping whose columns have been found.

    ``indices`` holds the index of each named column. ``width`` is how many columns a row must
    have: exactly when ``strict`` (one empty one more is forgiven), else at least.
    """

    def __init__(
        self,
        mapping: Mapping,
        options: ReadOptions,
        *,
        indices: dict[str, int],
        width: int,
        strict: bool,
    ) -> None:
        self.mapping = mapping
        self.indices = indices
        self.width = width
        self.strict = strict
        self.encoding = mapping.encoding
        self._fields = {
            rule.field: field_reader(rule, indices, options.timezone) for rule in mapping.fields
        }
        self._filters = [(one, indices[one.column]) for one in mapping.filters]
        self._paths = tuple(indices) if mapping.format == "jsonl" else ()

    def read(self, line_no: int, raw: bytes) -> Item:
        """Read one line, whatever it holds."""
        text = decode(raw, self.encoding)
        if not text.strip():
            return Skipped(line_no, "The line is empty.")
        comment = self.mapping.comment
        if comment and text.startswith(comment):
            return Skipped(line_no, "The line is a comment.")
        try:
            values = self._split(text)
            return self.usage(line_no, values)
        except FieldProblem as problem:
            return problem.refused(line_no, raw)

    def usage(self, line_no: int, values: Sequence[str]) -> Usage | Skipped:
        """Make the record of a row that is split already, in the order of the columns.

        Raises:
            FieldProblem: a field that cannot be read.
        """
        for one, index in self._filters:
            if not one.passes(_cell(values[index])):
                return Skipped(line_no, f"The filter on {one.column} leaves the row out.")
        return assemble(line_no, {name: read(values) for name, read in self._fields.items()})

    def _split(self, text: str) -> Sequence[str]:
        if self.mapping.format == "jsonl":
            return _json_values(text, self._paths)
        values = split_row(text, self.mapping.delimiter, self.mapping.quote)
        count = len(values)
        if count == self.width or (not self.strict and count > self.width):
            return values
        if count == self.width + 1 and not values[-1].strip():
            return values
        at_least = "" if self.strict else "at least "
        raise FieldProblem(
            "line",
            str(count),
            f"The row has {count} columns and should have {at_least}{self.width}; it may be cut "
            "off, or have a delimiter inside a text.",
        )


def split_row(text: str, delimiter: str, quote: str) -> list[str]:
    """Split one line of CSV (RFC 4180; a record is always one line).

    Raises:
        FieldProblem: too many columns, or quotes that do not close.
    """
    if text.count(delimiter) >= COLUMNS_MAX:
        raise FieldProblem(
            "line",
            "",
            f"The row has more than {COLUMNS_MAX:,} columns; check the delimiter and the line ends.",
        )
    if not quote or quote not in text:
        return text.split(delimiter)
    try:
        return next(
            csv.reader(
                [text], delimiter=delimiter, quotechar=quote, strict=True, skipinitialspace=True
            )
        )
    except (csv.Error, StopIteration):
        raise FieldProblem(
            "line",
            "",
            "The quotes of the row do not match; it may be cut off, or a text with line ends in it.",
        ) from None


def _json_values(text: str, paths: tuple[str, ...]) -> list[str]:
    try:
        # Numbers stay the text that they are: no digit of a number or a price is lost.
        found = json.loads(text, parse_float=str, parse_int=str, parse_constant=str)
    except (ValueError, RecursionError):
        raise FieldProblem(
            "line", "", "The line is not JSON; it may be cut off, or hold half a record."
        ) from None
    if not isinstance(found, dict):
        raise FieldProblem("line", "", "The line is JSON, but not an object with named fields.")
    return [_at_path(found, path) for path in paths]


def _at_path(found: dict[str, object], path: str) -> str:
    value: object = found.get(path)
    if value is None and "." in path:
        value = found
        for step in path.split("."):
            if isinstance(value, dict):
                value = value.get(step)
            elif isinstance(value, list) and step.isdigit() and int(step) < len(value):
                value = value[int(step)]
            else:
                return ""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    raise FieldProblem(path, "", f'"{path[:60]}" holds no plain value but more fields; name one.')


def _cell(text: str) -> str:
    text = text.strip()
    return "" if text in _BLANK else text


def field_reader(
    rule: FieldRule, indices: dict[str, int], timezone: str
) -> Callable[[Sequence[str]], object]:
    """Compile a rule: row in, value of its field out (None or "" where there is none).

    What it returns raises FieldProblem for a text that cannot be read.
    """
    pick = _picker(rule, indices)
    read = text_reader(rule, timezone)
    if rule.constant is not None:
        text = rule.constant
        return lambda _values: read(text)
    return lambda values: read(pick(values))


def text_reader(rule: FieldRule, timezone: str) -> Callable[[str], object]:
    """Return what makes a field's value of the text that was picked from its columns.

    It raises FieldProblem where the text has no meaning. A constant is taken as it is written.
    """
    read = _value_reader(rule, timezone)
    shaped = rule.values or rule.extract or rule.strip or rule.cut or rule.prefix
    if rule.constant is not None or not shaped:
        return read
    shape = _shaper(rule)
    return lambda text: read(shape(text))


def _picker(rule: FieldRule, indices: dict[str, int]) -> Pick:
    if rule.columns:
        several = [indices[name] for name in rule.columns]
        return lambda values: rule.join.join(_cell(values[index]) for index in several)
    if rule.otherwise:
        first, second = indices[rule.column], indices[rule.otherwise]
        return lambda values: _cell(values[first]) or _cell(values[second])
    if rule.constant is not None:
        return lambda _values: ""
    index = indices[rule.column]
    return lambda values: _cell(values[index])


def _shaper(rule: FieldRule) -> Callable[[str], str]:
    table = dict(rule.values)
    pattern = re.compile(rule.extract) if rule.extract else None

    def shape(text: str) -> str:
        text = table.get(text, text)
        if not text:
            return text
        if pattern is not None:
            match = pattern.search(text)
            if match is None:
                raise FieldProblem(
                    rule.field, text, f'"{text[:40]}" does not match the expression of the mapping.'
                )
            text = match[1] or ""
        text = text.removeprefix(rule.strip)[rule.cut :]
        return rule.prefix + text if text else text

    return shape


def _value_reader(rule: FieldRule, timezone: str) -> Callable[[str], object]:
    """Return what turns the text of a field into its value."""
    field = rule.field
    if field in TIMES:
        read_time = time_reader(rule.layout, rule.zone or timezone)
        return lambda text: None if text in _NO_TIME else read_time(text, field)
    if field in NUMBERS:
        return lambda text: number_text(text, field)
    if field in ADDRESSES:
        return lambda text: ip_text(text, field)
    if field == "duration":
        return lambda text: duration_ms(text, rule.unit) if text else None
    if field == "pdd":
        return lambda text: pdd(text, rule.unit)
    if field in INTEGERS:
        return _INTEGER_READERS[field]
    if field == "mos":
        return mos_hundredths
    if field == "price":
        return decimal_price
    if field == "currency":
        return _currency
    return lambda text: plain_text(text, field)


def _sequence(text: str) -> int | None:
    return integer(text, "sequence", 0, _SEQUENCE_MAX) if text else None


_INTEGER_READERS: dict[str, Callable[[str], int | None]] = {
    "sip": sip_status,
    "q850": q850_cause,
    "sequence": _sequence,
}


def _currency(text: str) -> str:
    code = text.upper()
    if code and _CURRENCY.fullmatch(code) is None:
        raise FieldProblem("currency", text, f'"{text[:20]}" is not a currency code such as USD.')
    return code


def assemble(line_no: int, found: dict[str, object]) -> Usage:
    """Make a record of read fields, and fill in what follows from others.

    Without a duration it is end - answer. Without an answer an answered call began at
    end - duration, or at its start where the end is not known either.

    Raises:
        FieldProblem: no call id, no start, or a duration that cannot be.
    """
    if not found.get("call_id"):
        raise FieldProblem("call_id", "", "The call id is missing, so the call cannot be told.")
    start = found.get("start")
    if not isinstance(start, int):
        raise FieldProblem("start", "", "The start of the call is missing.")
    answer, end = found.get("answer"), found.get("end")
    answered = answer if isinstance(answer, int) else None
    ended = end if isinstance(end, int) else None
    duration = found.pop("duration", None)
    if not isinstance(duration, int):
        duration = _between(answered, ended)
    if answered is None and duration > 0:
        found["answer"] = start if ended is None else ended - duration * 1_000
    if "pdd" in found:
        found["pdd_ms"] = found.pop("pdd")
    if found.get("service") == "":
        del found["service"]
    return Usage(line=line_no, duration_ms=duration, **found)  # type: ignore[arg-type]  # as typed by its reader


def _between(answer: int | None, end: int | None) -> int:
    if answer is None:
        return 0
    if end is None:
        raise FieldProblem("duration", "", "The call was answered and has no duration and no end.")
    return duration_ms(str(end - answer), "us")


def row_reader(
    mapping: Mapping, options: ReadOptions, header: Sequence[str] | None = None
) -> RowReader:
    """Find the mapping's columns and return the reader of its rows.

    ``header`` are the names in the file's first line, needed for CSV with a header.

    Raises:
        InvalidInput: a column that is not there, or is there twice.
    """
    wanted = {name: None for rule in mapping.fields for name in rule.sources} | {
        one.column: None for one in mapping.filters
    }
    if mapping.format == "jsonl":
        places = {name: index for index, name in enumerate(wanted)}
        return RowReader(mapping, options, indices=places, width=0, strict=False)
    if not mapping.header:
        places = {name: column_number(name) or 0 for name in wanted}
        least = 1 + max(places.values(), default=0)
        strict = mapping.columns > 0
        if strict and least > mapping.columns:
            raise InvalidInput(
                f"The mapping names column {least} of {mapping.columns}; mend columns or fields.",
                field="columns",
            )
        width = mapping.columns or least
        return RowReader(mapping, options, indices=places, width=width, strict=strict)
    names = [name.strip() for name in header or ()]
    places = {name: _find(name, names, mapping.delimiter) for name in wanted}
    return RowReader(mapping, options, indices=places, width=len(names), strict=True)


def _find(name: str, header: list[str], delimiter: str) -> int:
    """Find a column: by its exact name, then whatever the case, then by its number."""
    hits = [index for index, one in enumerate(header) if one == name] or [
        index for index, one in enumerate(header) if one.casefold() == name.casefold()
    ]
    if len(hits) > 1:
        raise InvalidInput(
            f'The header has the column "{name[:60]}" {len(hits)} times; name it in the mapping by '
            f"its number, such as c{hits[0] + 1}.",
            code="ambiguous_column",
            field=name[:60],
        )
    if hits:
        return hits[0]
    number = column_number(name)
    if number is not None and number < len(header):
        return number
    shown = ", ".join(one[:40] for one in header[:30])
    hint = (
        f' The header is one column, so the delimiter is hardly "{delimiter}".'
        if len(header) == 1
        else ""
    )
    raise InvalidInput(
        f'The file has no column "{name[:60]}"; it has {shown or "an empty header"}.{hint}',
        code="no_such_column",
        field=name[:60],
    )


def header_names(raw: bytes | TooLong, mapping: Mapping) -> list[str]:
    """Return the column names of a header line.

    Raises:
        InvalidInput: the line cannot be a header.
    """
    if isinstance(raw, TooLong):
        raise InvalidInput("The header line is too long to be one.", code="bad_header")
    try:
        return split_row(decode(raw, mapping.encoding), mapping.delimiter, mapping.quote)
    except FieldProblem as problem:
        raise InvalidInput(
            f"The header cannot be read: {problem.reason}", code="bad_header"
        ) from None


def read_rows(stream: BinaryIO, options: ReadOptions) -> Iterator[Item]:
    """Read CSV or JSON lines by ``options.mapping``, row by row.

    Raises:
        InvalidInput: no mapping, or a header that does not fit it.
    """
    mapping = options.mapping
    if mapping is None:
        raise InvalidInput(
            "A mapping is needed for CSV and JSON lines; let cdr sniff propose one.",
            code="mapping_needed",
            field="mapping",
        )
    needs_header = mapping.format == "csv" and mapping.header
    reader = None if needs_header else row_reader(mapping, options)
    for number, raw in lines(stream, mapping.encoding):
        if reader is None:
            if isinstance(raw, bytes) and is_aside(raw, mapping):
                yield Skipped(number, "The line stands before the header.")
                continue
            reader = row_reader(mapping, options, header_names(raw, mapping))
            yield Skipped(number, "The line is the header.")
        elif isinstance(raw, TooLong):
            yield raw.refused(number)
        else:
            yield reader.read(number, raw)


def is_aside(raw: bytes, mapping: Mapping) -> bool:
    """Say whether a line is empty or a comment, so that the header is still to come."""
    comment = mapping.comment.encode()
    return not raw.strip() or bool(comment and raw.startswith(comment))


def no_mapping(_head: bytes) -> int:
    """Recognise nothing: what a table's columns mean is for ``sniff`` to propose."""
    return 0


CSV = Format(
    "csv", "CSV by a mapping", read_rows, no_mapping, (".csv", ".txt", ".tsv"), by_line=True
)
JSONL = Format(
    "jsonl", "JSON lines by a mapping", read_rows, no_mapping, (".jsonl", ".ndjson"), by_line=True
)
