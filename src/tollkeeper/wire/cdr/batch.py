"""Many rows of a delimited file at a time, by a mapping: cells in, columns of the frame out.

Each field is read either by a kernel, which gives up a row that it is not sure of, or text by
text with the very reader of ``rows``, each distinct text once. Rows that are given up are read
again one by one, so the result is that of ``rows`` in every case.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from tollkeeper.bulk import cells as kernels
from tollkeeper.bulk import clock
from tollkeeper.bulk.cells import Bytes, Flags, Longs, Places
from tollkeeper.bulk.frames import NULLABLE, PARSED, price_text
from tollkeeper.core.usage import DURATION_MAX_MS
from tollkeeper.wire.cdr.layouts import program, spans
from tollkeeper.wire.cdr.mapping import NUMBERS, TEXTS, TIMES, FieldRule, Mapping
from tollkeeper.wire.cdr.problem import FieldProblem
from tollkeeper.wire.cdr.rows import RowReader, text_reader
from tollkeeper.wire.cdr.times import EPOCHS
from tollkeeper.wire.cdr.values import UNITS

_KEPT_MAX = 100_000
_LONGEST = {"duration": DURATION_MAX_MS, "pdd": 2**31 - 1}
_SEQUENCE_MAX = 10**18
_COPIED = frozenset((*NUMBERS, *TEXTS)) - {"service", "currency"}
_WIDE = ("utf-16", "utf-32")
_NAMES = {"duration": "duration_ms", "pdd": "pdd_ms"}


def fits(mapping: Mapping) -> bool:
    """Say whether this module can read by a mapping; what it cannot is rare."""
    start = mapping.rule("start")
    return (
        mapping.format == "csv"
        and not mapping.encoding.startswith(_WIDE)
        and mapping.delimiter.isascii()
        and mapping.comment.isprintable()
        and start is not None
        and start.constant is None
        and all(_solid(rule.join) for rule in mapping.fields if rule.columns)
    )


def _solid(text: str) -> bool:
    """Say whether nothing of a text could be taken for a blank at an edge."""
    return text.isascii() and text.isprintable() and " " not in text


@dataclass(frozen=True, slots=True)
class Cells:
    """One column of cells: the bytes from ``first`` to ``last`` of ``data`` for each row."""

    data: Bytes
    first: Places
    last: Places


@dataclass(frozen=True, slots=True)
class Numbers:
    """One column of numbers, and where there is none."""

    values: Longs
    null: Flags


Column = Numbers | pl.Series


def text_bytes(text: str) -> Bytes:
    """Return a text as kernels want it."""
    # A bytearray, for numba compiles anew for arrays that cannot be written to.
    return np.frombuffer(bytearray(text.encode()), dtype=np.uint8)


def _arrow(cells: Cells, kind: int, prefix: Bytes, sure: Flags) -> pa.StringArray:
    offsets, data = kernels.gather(cells.data, cells.first, cells.last, kind, prefix, sure)
    return pa.StringArray.from_buffers(sure.size, pa.py_buffer(offsets), pa.py_buffer(data))


class _ByText:
    """Reads each distinct text once, and remembers what it is while there are few of them."""

    def __init__(self, read: Callable[[str], object]) -> None:
        self._read = read
        self._kept: dict[str, object] = {}

    def __call__(self, cells: Cells, sure: Flags) -> tuple[npt.NDArray[np.int32], list[object]]:
        """Return the distinct values, and for each row which of them it has."""
        coded = _arrow(cells, kernels.RAW, text_bytes(""), sure).dictionary_encode()
        indices = coded.indices.to_numpy(zero_copy_only=False)
        values: list[object] = []
        bad: list[int] = []
        if len(self._kept) > _KEPT_MAX:
            self._kept.clear()
        for number, text in enumerate(coded.dictionary.to_pylist()):
            if text not in self._kept:
                try:
                    self._kept[text] = self._read(text)
                except FieldProblem as problem:
                    self._kept[text] = problem
            value = self._kept[text]
            if isinstance(value, FieldProblem):
                bad.append(number)
                value = None
            values.append(value)
        if bad:
            sure &= ~np.isin(indices, bad)
        return indices, values


class Batches:
    """Turns the cells of lines into rows of the frame; made once for a file.

    ``slots`` says for each column of a row where ``bulk.cells.split`` is to put its cell.
    """

    def __init__(self, reader: RowReader, timezone: str) -> None:
        mapping = reader.mapping
        self._timezone = timezone
        self._rules = mapping.fields
        self._filters = mapping.filters
        wanted = sorted(set(reader.indices.values()))
        slot = {index: number for number, index in enumerate(wanted)}
        self.slots = np.full(reader.width, -1, dtype=np.int32)
        self.slots[wanted] = np.arange(len(wanted))
        self.count = len(wanted)
        self._slot = {name: slot[index] for name, index in reader.indices.items()}
        self._passes = [_ByText(one.passes) for one in self._filters]
        self._by_text = {
            rule.field: _ByText(text_reader(rule, timezone))
            for rule in mapping.fields
            if rule.constant is None
        }
        self._constants = {
            rule.field: text_reader(rule, timezone)(rule.constant)
            for rule in mapping.fields
            if rule.constant is not None
        }

    def frame(
        self, data: Bytes, first: Places, last: Places, clean: Flags, line: int
    ) -> tuple[pl.DataFrame, Flags, int]:
        """Read the clean lines whose cells are given, the first of which has the number ``line``.

        Returns the records that are certain, which lines are to be read one by one, and how many
        lines the filters left out.
        """
        sure = clean.copy()
        left_out = np.zeros(sure.size, dtype=np.bool_)
        for one, passes in zip(self._filters, self._passes, strict=True):
            slot = self._slot[one.column]
            indices, verdicts = passes(Cells(data, first[slot], last[slot]), sure)
            good = np.array(verdicts, dtype=np.bool_)[indices]
            left_out |= sure & ~good
            sure &= good
        columns: dict[str, Column] = {}
        for rule in self._rules:
            name = _NAMES.get(rule.field, rule.field)
            if rule.field in self._constants:
                columns[name] = _constant(name, self._constants[rule.field], sure.size)
                continue
            cells = self._pick(rule, data, first, last)
            columns[name] = self._column(rule, cells, sure)
        _assemble(columns, sure)
        lines = np.arange(line, line + sure.size, dtype=np.int64)
        columns["line"] = Numbers(lines, np.zeros(sure.size, dtype=np.bool_))
        frame = _frame(columns, sure)
        return frame, ~sure & ~left_out, int(np.count_nonzero(left_out))

    def _pick(self, rule: FieldRule, data: Bytes, first: Places, last: Places) -> Cells:
        """Choose or put together the cells that a rule is about."""
        if rule.columns:
            slots = [self._slot[name] for name in rule.columns]
            return Cells(*kernels.joined(data, first[slots], last[slots], text_bytes(rule.join)))
        slot = self._slot[rule.column]
        if not rule.otherwise:
            return Cells(data, first[slot], last[slot])
        other = self._slot[rule.otherwise]
        cells = Cells(data, first[slot].copy(), last[slot].copy())
        kernels.either(cells.first, cells.last, first[other], last[other])
        return cells

    def _column(self, rule: FieldRule, cells: Cells, sure: Flags) -> Column:
        if not (rule.values or rule.extract):
            if rule.field in TIMES:
                return _times(rule, cells, self._timezone, sure)
            if rule.field in _LONGEST:
                null = np.zeros(sure.size, dtype=np.bool_)
                unit, most = UNITS.index(rule.unit), _LONGEST[rule.field]
                values = kernels.durations(
                    cells.data, cells.first, cells.last, unit, most, sure, null
                )
                return Numbers(values, null)
            if rule.field == "sequence":
                null = np.zeros(sure.size, dtype=np.bool_)
                return Numbers(
                    kernels.integers(
                        cells.data, cells.first, cells.last, 0, _SEQUENCE_MAX, sure, null
                    ),
                    null,
                )
            if rule.field in _COPIED and _solid(rule.prefix):
                return _copied(rule, cells, sure)
        indices, taken = self._by_text[rule.field](cells, sure)
        return _taken(_NAMES.get(rule.field, rule.field), indices, taken)


def _times(rule: FieldRule, cells: Cells, timezone: str, sure: Flags) -> Numbers:
    null = np.zeros(sure.size, dtype=np.bool_)
    steps = program(rule.layout)
    if steps is None:
        unit = EPOCHS[rule.layout]
        values = clock.epochs(cells.data, cells.first, cells.last, unit, sure, null)
    else:
        since, east = spans(rule.zone or timezone)
        values = clock.times(cells.data, cells.first, cells.last, steps, since, east, sure, null)
    return Numbers(values, null)


def _copied(rule: FieldRule, cells: Cells, sure: Flags) -> pl.Series:
    if rule.strip or rule.cut:
        first = kernels.shorten(
            cells.data, cells.first, cells.last, text_bytes(rule.strip), rule.cut, sure
        )
        cells = Cells(cells.data, first, cells.last)
    kind = kernels.NUMBER if rule.field in NUMBERS else kernels.TEXT
    return pl.Series(rule.field, _arrow(cells, kind, text_bytes(rule.prefix), sure))


def _taken(name: str, indices: npt.NDArray[np.int32], values: list[object]) -> Column:
    """Give each row its value out of the distinct ones."""
    if PARSED[name] == pl.String:
        # Null is a row that is given up, except for a price.
        texts = [price_text(one) if isinstance(one, Decimal) else one for one in values]
        if name != "price":
            texts = [one or "" for one in texts]
        return pl.Series(name, pa.array(texts, pa.string()).take(pa.array(indices)))
    null = np.array([one is None for one in values], dtype=np.bool_)
    numbers = np.array([0 if one is None else one for one in values], dtype=np.int64)
    return Numbers(numbers[indices], null[indices])


def _constant(name: str, value: object, rows: int) -> Column:
    return _taken(name, np.zeros(rows, dtype=np.int32), [value])


def _assemble(columns: dict[str, Column], sure: Flags) -> None:
    """Fill in what follows from other columns, and give up what ``rows.assemble`` refuses."""
    nothing = Numbers(np.zeros(sure.size, dtype=np.int64), np.ones(sure.size, dtype=np.bool_))
    call_id = columns["call_id"]
    assert isinstance(call_id, pl.Series)
    sure &= (call_id != "").to_numpy()
    start, answer, end, duration = (
        column if isinstance(column := columns.get(name, nothing), Numbers) else nothing
        for name in ("start", "answer", "end", "duration_ms")
    )
    sure &= ~start.null
    # Without a duration it is the time from answer to end, and none without an answer.
    between = np.where(duration.null & ~answer.null, end.values - answer.values, 0)
    milliseconds = (between + 500) // 1_000
    sure &= ~(duration.null & ~answer.null & end.null)
    sure &= (between >= 0) & (milliseconds <= DURATION_MAX_MS)
    length = np.where(duration.null, milliseconds, duration.values)
    # An answered call without the time of its answer.
    begun = np.where(end.null, start.values, end.values - length * 1_000)
    unknown = answer.null & (length > 0)
    columns["answer"] = Numbers(np.where(unknown, begun, answer.values), answer.null & ~unknown)
    columns["duration_ms"] = Numbers(length, np.zeros(sure.size, dtype=np.bool_))
    service = columns.get("service")
    if isinstance(service, pl.Series):
        columns["service"] = service.replace("", "voice")


def _frame(columns: dict[str, Column], sure: Flags) -> pl.DataFrame:
    found: dict[str, pl.Series] = {}
    for name, kind in PARSED.items():
        column = columns.get(name)
        if column is None:
            absent = {"service": "voice"}.get(name, "" if name not in NULLABLE else None)
            found[name] = pl.repeat(absent, sure.size, dtype=kind, eager=True)
        elif isinstance(column, Numbers):
            whole = pa.array(column.values, mask=column.null)
            found[name] = pl.Series(name, whole).cast(kind, strict=False)
        else:
            found[name] = column
    frame = pl.DataFrame(found)
    return frame if sure.all() else frame.filter(pl.Series(sure))
