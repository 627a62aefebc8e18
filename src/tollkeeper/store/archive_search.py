"""Records found in archived days, by DuckDB over their Parquet files.

Same columns and same order as :func:`tollkeeper.store.usage_search.read_rows`. Files of this
machine are read by DuckDB itself; those in a bucket come through pyarrow's datasets, whose filters
leave out row groups just as well.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from functools import reduce
from heapq import merge
from operator import attrgetter
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from tollkeeper.store.archive_files import (
    BY_CALL_ID,
    BY_CALLER,
    USAGE,
    connect,
    local_path,
    place_of,
    quote,
    readable,
)
from tollkeeper.store.db import queries
from tollkeeper.store.usage_search import COLUMNS, FIRST_KEY, Key, UsageFilter, UsageRow

_SQL = queries("archive_files")

THREADS = 2
CANDIDATES = 1_000
"""Records looked up at once by caller or call id, where no more are asked for."""


@dataclass(frozen=True, slots=True)
class Part:
    """Where records of one day lie."""

    day: date
    uri: str


def search_parts(
    parts: Sequence[Part], wanted: UsageFilter, *, limit: int, undone: Sequence[int]
) -> list[UsageRow]:
    """The first ``limit`` records of these parts, as they were loaded, without undone batches.

    Raises:
        OSError: a part cannot be read, or is not there (any more).
    """
    if not parts:
        return []
    found = []
    with readable(), connect(threads=THREADS) as duck:
        for source in _sources(parts):
            look = _by_index if _index_of(wanted) is not None else _by_scan
            found.append(look(duck, source, wanted, limit, undone))
    return list(merge(*found, key=attrgetter("key")))[:limit]


def open_parts(
    parts: Sequence[Part], wanted: UsageFilter, *, undone: Sequence[int], work: Path, rows: int
) -> Iterator[list[UsageRow]]:
    """All records of these parts in order, ``rows`` at a time; ``work`` takes what memory cannot.

    Raises:
        OSError: a part cannot be read, or is not there (any more).
    """
    with readable(), connect(work) as duck:
        for source in _sources(parts):
            clauses, values = _conditions(wanted, undone)
            text = _rows_sql(source.table(duck, USAGE, COLUMNS, _expression(wanted)), clauses, "")
            for batch in _reader(duck, text, values, rows):
                yield list(rows_of(batch))


# --- where ---------------------------------------------------------------------------------------


class _Source:
    """The files of some parts in one place."""

    def __init__(self, parts: Sequence[Part]) -> None:
        self._parts = parts

    def of(self, day: date) -> _Source:
        """The same for one day only."""
        return _Source([part for part in self._parts if part.day == day])

    def table(self, duck: Any, file: str, columns: Sequence[str], expression: pc.Expression) -> str:
        """How one kind of file is named in SQL."""
        local = [local_path(part.uri) for part in self._parts]
        paths = [f"{path}/{file}" for path in local if path is not None]
        if paths:
            return f"read_parquet([{', '.join(map(quote, paths))}])"
        place, _ = place_of(self._parts[0].uri)
        remote = [f"{place_of(part.uri)[1]}/{file}" for part in self._parts]
        scanner = ds.dataset(remote, filesystem=place, format="parquet").scanner(
            columns=list(columns), filter=expression, batch_readahead=4, fragment_readahead=2
        )
        duck.register("source", scanner.to_reader())
        return "source"


def _sources(parts: Sequence[Part]) -> list[_Source]:
    """The archive may have moved from one place to another: each place is read by itself."""
    places: dict[tuple[str, str, str], list[Part]] = {}
    for part in parts:
        address = urlsplit(part.uri)
        places.setdefault((address.scheme, address.netloc, address.query), []).append(part)
    return [_Source(group) for group in places.values()]


# --- conditions ----------------------------------------------------------------------------------


def _index_of(wanted: UsageFilter) -> tuple[str, str, str] | None:
    """The small file that finds what is wanted, its column and the value."""
    if wanted.call_id is not None:
        return BY_CALL_ID, "call_id", wanted.call_id
    if wanted.caller is not None and wanted.called is None:
        return BY_CALLER, "caller", wanted.caller
    return None


def _bounds(prefix: str) -> tuple[str, str]:
    """What begins with ``prefix`` lies from the first text up to, and without, the second."""
    return prefix, prefix[:-1] + chr(ord(prefix[-1]) + 1)


def _conditions(wanted: UsageFilter, undone: Sequence[int]) -> tuple[list[str], dict[str, object]]:
    clauses = ["start_at >= $since", "start_at < $until"]
    values: dict[str, object] = {"since": wanted.since, "until": wanted.until}
    for name in ("called", "caller", "call_id", "customer_id", "vendor_id"):
        if (value := getattr(wanted, name)) is not None:
            clauses.append(f"{name} = ${name}")
            values[name] = value
    if wanted.customers is not None:
        clauses.append("customer_id IN (SELECT unnest($customers::BIGINT[]))")
        values["customers"] = list(wanted.customers)
    if wanted.prefix:
        clauses += ["called >= $prefix", "called < $prefix_end"]
        values["prefix"], values["prefix_end"] = _bounds(wanted.prefix)
    if wanted.after > FIRST_KEY:
        clauses += _after("after", values, wanted.after, ">")
    if undone:
        clauses.append("batch_id NOT IN (SELECT unnest($undone::BIGINT[]))")
        values["undone"] = list(undone)
    return clauses, values


def _after(name: str, values: dict[str, object], key: Key, sign: str) -> list[str]:
    """Comes after a key (">"), or not after it ("<="); the first clause is what statistics know."""
    values |= {f"{name}_at": key[0], f"{name}_batch": key[1], f"{name}_line": key[2]}
    at, strict = f"${name}_at", sign[0]
    # Spelled out: DuckDB makes two comparisons of rows one BETWEEN, which it cannot do for rows.
    whole = (
        f"(start_at {strict} {at} OR (start_at = {at} AND (batch_id {strict} ${name}_batch "
        f"OR (batch_id = ${name}_batch AND line {sign} ${name}_line))))"
    )
    return [f"start_at {strict}= {at}", whole]


def _expression(wanted: UsageFilter, numbers: Sequence[str] | None = None) -> pc.Expression:
    """The same for pyarrow, but only what statistics can tell: SQL looks at the rest."""
    start = pc.field("start_at")
    least = max(wanted.since, wanted.after[0])
    found = [start >= _moment(least), start < _moment(wanted.until)]
    names = [name for name in ("called", "caller", "call_id") if getattr(wanted, name) is not None]
    found += [pc.field(name) == getattr(wanted, name) for name in names]
    if wanted.prefix:
        first, end = _bounds(wanted.prefix)
        found += [pc.field("called") >= first, pc.field("called") < end]
    if numbers is not None:
        found.append(pc.field("called").isin(list(numbers)))
    return reduce(lambda a, b: a & b, found)


def _moment(value: datetime) -> pa.Scalar:
    return pa.scalar(value, pa.timestamp("us", tz="UTC"))


# --- searching -----------------------------------------------------------------------------------


def _by_scan(
    duck: Any, source: _Source, wanted: UsageFilter, limit: int, undone: Sequence[int]
) -> list[UsageRow]:
    clauses, values = _conditions(wanted, undone)
    text = _rows_sql(
        source.table(duck, USAGE, COLUMNS, _expression(wanted)), clauses, f"LIMIT {limit}"
    )
    return [row for batch in _reader(duck, text, values, limit) for row in rows_of(batch)]


def _by_index(
    duck: Any, source: _Source, wanted: UsageFilter, limit: int, undone: Sequence[int]
) -> list[UsageRow]:
    """Look up where the records lie, then read them there; go on until there are enough."""
    index = _index_of(wanted)
    assert index is not None
    file, column, value = index
    most = max(2 * limit, CANDIDATES)
    found: list[UsageRow] = []
    while len(found) < limit:
        near = UsageFilter(
            since=wanted.since,
            until=wanted.until,
            after=wanted.after,
            **{column: value},  # type: ignore[arg-type]
        )
        clauses, values = _conditions(near, undone)
        columns = (column, "called", "start_at", "batch_id", "line")
        text = _SQL["candidates"].format(
            source=source.table(duck, file, columns, _expression(near)),
            conditions=" AND ".join(clauses),
            limit=most,
        )
        keys = [key for batch in _reader(duck, text, values, most) for key in _tuples(batch)]
        if not keys:
            break
        last: Key = keys[-1][1:]
        numbers: dict[date, set[str]] = {}
        for number, start, _, _ in keys:
            numbers.setdefault(start.astimezone(UTC).date(), set()).add(number)
        # Day by day: a number that is in one day's file would be looked for in vain in all others.
        for day in sorted(numbers):
            found += _at(duck, source.of(day), wanted, sorted(numbers[day]), last, undone)
        if len(keys) < most:
            break
        wanted = replace(wanted, after=last)
    return found[:limit]


def _at(
    duck: Any,
    source: _Source,
    wanted: UsageFilter,
    numbers: Sequence[str],
    last: Key,
    undone: Sequence[int],
) -> list[UsageRow]:
    """The wanted records up to ``last``, of which it is known which numbers they called."""
    clauses, values = _conditions(wanted, undone)
    clauses += _after("last", values, last, "<=")
    clauses.append(f"called IN ({', '.join(map(quote, numbers))})")
    expression = _expression(wanted, numbers)
    text = _rows_sql(source.table(duck, USAGE, COLUMNS, expression), clauses, "")
    return [row for batch in _reader(duck, text, values, 1000) for row in rows_of(batch)]


def _rows_sql(table: str, clauses: Sequence[str], limit: str) -> str:
    return _SQL["rows"].format(
        columns=", ".join(COLUMNS), source=table, conditions=" AND ".join(clauses), limit=limit
    )


def _reader(
    duck: Any, text: str, values: Mapping[str, object], rows: int
) -> Iterable[pa.RecordBatch]:
    reader: Iterable[pa.RecordBatch] = duck.sql(text, params=dict(values)).to_arrow_reader(
        min(rows, 10_000)
    )
    return reader


def _tuples(batch: pa.RecordBatch) -> Iterator[tuple[Any, ...]]:
    return zip(*(column.to_pylist() for column in batch.columns), strict=True)


def rows_of(batch: pa.RecordBatch) -> Iterator[UsageRow]:
    """The records of a batch that has the columns of an archived part."""
    return (UsageRow(*values) for values in _tuples(batch))
