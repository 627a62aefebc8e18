"""Columns to PostgreSQL's binary COPY, without a Python object for any value.

The format is that of the PostgreSQL manual, COPY, "Binary Format": a header, then for each row the
number of its fields, then each field as a length (-1 is NULL) and the bytes of the type's send
function. Some rows are made at a time, one column after the other into the same buffer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numba
import numpy as np
import polars as pl
from numpy.typing import NDArray
from psycopg import sql
from psycopg.abc import Buffer, PQGen
from psycopg.copy import AsyncLibpqWriter
from psycopg.pq.abc import PGconn
from psycopg.waiting import Wait

from tollkeeper.store.db import Connection

HEADER = b"PGCOPY\n\xff\r\n\x00" + bytes(8)
TRAILER = b"\xff\xff"
CHUNK_ROWS = 2048
"""Rows that are made at once: below a megabyte, so that they stay in a core's own cache."""

SLICE_ROWS = 1 << 16
"""Rows whose columns are prepared at once."""
PIECE_BYTES = 1 << 16
"""Bytes that are handed to the connection at once."""

_EPOCH_DAYS = 10_957
_EPOCH_US = _EPOCH_DAYS * 86_400_000_000
"""PostgreSQL counts from 2000-01-01; everybody else from 1970-01-01."""

_ALL = np.zeros(0, np.bool_)
_NO_BYTES = np.zeros(0, np.uint8)
_NO_OFFSETS = np.zeros(1, np.int64)


class Kind(StrEnum):
    """Types of the database that can be written, and what they are made from."""

    BOOL = "bool"
    INT2 = "int2"
    INT4 = "int4"
    INT8 = "int8"
    DATE = "date"
    """From polars dates, or days since 1970."""
    TIME = "timestamptz"
    """From polars times, or microseconds since 1970 in UTC."""
    NUMERIC = "numeric"
    """From integers of 10^-8."""
    TEXT = "text"
    """PostgreSQL cannot store the character NUL: it becomes U+2400, the symbol for it."""
    BYTES = "bytea"
    UUID = "uuid"
    """From texts of 32 hexadecimal digits, with or without dashes; never from ""."""
    JSON = "json"
    JSONB = "jsonb"
    """Both from texts that are JSON; jsonb as little holds a NUL as text does."""


POLARS: dict[Kind, pl.DataType] = {
    Kind.BOOL: pl.Boolean(),
    Kind.INT2: pl.Int16(),
    Kind.INT4: pl.Int32(),
    Kind.INT8: pl.Int64(),
    Kind.DATE: pl.Date(),
    Kind.TIME: pl.Int64(),
    Kind.NUMERIC: pl.Int64(),
    Kind.TEXT: pl.String(),
    Kind.BYTES: pl.Binary(),
    Kind.UUID: pl.String(),
    Kind.JSON: pl.String(),
    Kind.JSONB: pl.String(),
}
"""The type of the polars column that a kind is made from."""

_SIZES = {
    Kind.BOOL: 1, Kind.INT2: 2, Kind.INT4: 4, Kind.INT8: 8, Kind.DATE: 4, Kind.TIME: 8,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Column:
    """One column of n rows, as the kernels want it.

    ``values`` are the n numbers (of a fixed size, or of 10^-8 where ``size`` is 0). Of a kind of
    varying length, ``offsets`` are the n + 1 places in ``data`` and ``size`` is -1. ``valid`` is
    False where the row is NULL; empty when none is.
    """

    rows: int
    size: int
    values: NDArray[np.int64]
    valid: NDArray[np.bool_]
    offsets: NDArray[np.int64]
    data: NDArray[np.uint8]


def column_of(series: pl.Series, kind: Kind) -> Column:
    """Prepare a polars column; null is NULL.

    Raises:
        polars.exceptions.PolarsError: a value does not fit the kind.
    """
    series = series.rechunk()
    valid = series.is_not_null().to_numpy() if series.null_count() else _ALL
    if kind is Kind.NUMERIC or kind in _SIZES:
        if kind is Kind.TIME and isinstance(series.dtype, pl.Datetime):
            series = series.dt.epoch("us")
        numbers = series.cast(POLARS[kind]).to_physical().cast(pl.Int64)
        values = numbers.fill_null(0).to_numpy()
        if kind is Kind.DATE:
            values = values - _EPOCH_DAYS
        elif kind is Kind.TIME:
            values = values - _EPOCH_US
        size = _SIZES.get(kind, 0)
        return Column(len(series), size, values, valid, _NO_OFFSETS, _NO_BYTES)
    offsets, data = _bytes_of(_sendable(series.cast(POLARS[kind]), kind))
    if kind is Kind.TEXT and data.size and not data.all():
        clean = series.cast(pl.String).str.replace_all("\x00", "\u2400", literal=True)
        offsets, data = _bytes_of(clean)
    return Column(len(series), -1, _NO_OFFSETS, valid, offsets, data)


def columns_of(frame: pl.DataFrame, kinds: Mapping[str, Kind]) -> list[Column]:
    """Prepare the named columns of a frame, in the order of ``kinds``.

    Raises:
        polars.exceptions.PolarsError: a column is missing, or a value does not fit its kind.
    """
    return [column_of(frame.get_column(name), kind) for name, kind in kinds.items()]


def binary_chunks(columns: Sequence[Column], *, rows: int = CHUNK_ROWS) -> Iterator[bytes]:
    """Write columns of equal length as binary COPY, ``rows`` rows at a time, header and end included."""
    total = columns[0].rows
    if any(column.rows != total for column in columns):
        raise ValueError("the columns are not of equal length")
    yield HEADER
    yield from _chunks(columns, rows)
    yield TRAILER


def _chunks(columns: Sequence[Column], rows: int) -> Iterator[bytes]:
    total = columns[0].rows
    for low in range(0, total, rows):
        yield _chunk(columns, low, min(low + rows, total))


def binary_rows(columns: Sequence[Column]) -> bytes:
    """As :func:`binary_chunks`, in one piece."""
    return b"".join(binary_chunks(columns))


async def copy_frame(
    connection: Connection, table: str, kinds: Mapping[str, Kind], frame: pl.DataFrame
) -> int:
    """Append the frame's rows to a table, column by column name; returns how many there were.

    Raises:
        polars.exceptions.PolarsError: a column is missing, or a value does not fit its kind.
        psycopg.Error: the database refuses a row; none of them is stored.
    """
    if frame.is_empty():
        return 0
    statement = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT BINARY)").format(
        sql.Identifier(table), sql.SQL(", ").join(map(sql.Identifier, kinds))
    )
    async with connection.cursor() as cursor:
        writer = _Steady(cursor)
        async with cursor.copy(statement, writer=writer) as copy:
            await copy.write(HEADER)
            # Some rows after the other: all columns prepared at once would be as much memory again.
            for rows in frame.iter_slices(SLICE_ROWS):
                for chunk in _chunks(columns_of(rows, kinds), CHUNK_ROWS):
                    await copy.write(chunk)
            await copy.write(TRAILER)
    return frame.height


class _Steady(AsyncLibpqWriter):
    """Hands on what it is given, piece by piece, before it takes more.

    libpq would take everything at once and keep what the server has not read yet; with each piece
    it moves all that it keeps, which came to two fifths of the time of a load, and grows.
    """

    async def write(self, data: Buffer) -> None:
        """Write, and wait until the server has it."""
        view = memoryview(data)
        for low in range(0, len(view), PIECE_BYTES):
            await super().write(view[low : low + PIECE_BYTES])
            await self.connection.wait(_flushed(self.connection.pgconn))


def _flushed(pgconn: PGconn) -> PQGen[None]:
    while pgconn.flush():
        yield Wait.W


def _sendable(series: pl.Series, kind: Kind) -> pl.Series:
    """The bytes that the type's receive function wants, as texts or binaries."""
    if kind is Kind.UUID:
        return series.str.replace_all("-", "", literal=True).str.decode("hex")
    if kind is Kind.JSONB:
        # A version number comes before the text.
        return pl.Series(["\x01"]) + _without_nul(series)
    return series


def _without_nul(texts: pl.Series) -> pl.Series:
    """JSON whose strings hold no NUL, which jsonb cannot store."""
    if texts.str.contains(r"\u0000", literal=True).any():
        # Twice: of two that touch, a match takes the character that the next would begin with.
        for _ in range(2):
            texts = texts.str.replace_all(r"(^|[^\\])((?:\\\\)*)\\u0000", r"${1}${2}\u2400")
    return texts


def _bytes_of(series: pl.Series) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """Where each text or binary begins and ends, and all of them one after the other."""
    array = series.rechunk().to_arrow()
    _, offsets, data = array.buffers()
    places = np.frombuffer(offsets, np.int64)[array.offset : array.offset + len(array) + 1]
    return places, _NO_BYTES if data is None else np.frombuffer(data, np.uint8)


def _chunk(columns: Sequence[Column], low: int, high: int) -> bytes:
    sizes = np.full(high - low, 2, np.int64)
    for column in columns:
        if column.size < 0:
            _measure_bytes(sizes, low, column.offsets, column.valid)
        elif column.size == 0:
            _measure_numeric(sizes, low, column.values, column.valid)
        else:
            _measure_fixed(sizes, low, column.size, column.valid)
    places = np.cumsum(sizes) - sizes
    out = np.empty(int(sizes.sum()), np.uint8)
    _put_counts(out, places, len(columns))
    for column in columns:
        if column.size < 0:
            _put_bytes(out, places, low, column.offsets, column.data, column.valid)
        elif column.size == 0:
            _put_numeric(out, places, low, column.values, column.valid)
        else:
            _put_fixed(out, places, low, column.values, column.size, column.valid)
    return out.tobytes()


# --- kernels: rows low, low + 1 ... of a column; places[i] is where row low + i goes on --------------

_compiled = numba.njit(nogil=True, cache=True)


@_compiled
def _measure_fixed(sizes: NDArray[np.int64], low: int, size: int, valid: NDArray[np.bool_]) -> None:
    for i in range(sizes.size):
        sizes[i] += 4 if valid.size and not valid[low + i] else 4 + size


@_compiled
def _measure_bytes(
    sizes: NDArray[np.int64], low: int, offsets: NDArray[np.int64], valid: NDArray[np.bool_]
) -> None:
    for i in range(sizes.size):
        sizes[i] += 4
        if not valid.size or valid[low + i]:
            sizes[i] += offsets[low + i + 1] - offsets[low + i]


@_compiled
def _measure_numeric(
    sizes: NDArray[np.int64], low: int, values: NDArray[np.int64], valid: NDArray[np.bool_]
) -> None:
    for i in range(sizes.size):
        sizes[i] += 4
        if not valid.size or valid[low + i]:
            first, last = _digit_range(_magnitude(values[low + i]))
            sizes[i] += 8 + 2 * (first - last)


@_compiled
def _put_counts(out: NDArray[np.uint8], places: NDArray[np.int64], count: int) -> None:
    for i in range(places.size):
        _put_int16(out, places[i], count)
        places[i] += 2


@_compiled
def _put_fixed(
    out: NDArray[np.uint8],
    places: NDArray[np.int64],
    low: int,
    values: NDArray[np.int64],
    size: int,
    valid: NDArray[np.bool_],
) -> None:
    for i in range(places.size):
        place = places[i]
        if valid.size and not valid[low + i]:
            _put_length(out, place, -1)
            places[i] = place + 4
            continue
        _put_length(out, place, size)
        value = values[low + i]
        for k in range(size):
            out[place + 3 + size - k] = (value >> (8 * k)) & 255
        places[i] = place + 4 + size


@_compiled
def _put_bytes(
    out: NDArray[np.uint8],
    places: NDArray[np.int64],
    low: int,
    offsets: NDArray[np.int64],
    data: NDArray[np.uint8],
    valid: NDArray[np.bool_],
) -> None:
    for i in range(places.size):
        place = places[i]
        if valid.size and not valid[low + i]:
            _put_length(out, place, -1)
            places[i] = place + 4
            continue
        begin, end = offsets[low + i], offsets[low + i + 1]
        _put_length(out, place, end - begin)
        for k in range(end - begin):
            out[place + 4 + k] = data[begin + k]
        places[i] = place + 4 + end - begin


@_compiled
def _put_numeric(
    out: NDArray[np.uint8],
    places: NDArray[np.int64],
    low: int,
    values: NDArray[np.int64],
    valid: NDArray[np.bool_],
) -> None:
    """Digits to the base 10000, leading and trailing zeros left out; 8 decimals are two of them."""
    for i in range(places.size):
        place = places[i]
        if valid.size and not valid[low + i]:
            _put_length(out, place, -1)
            places[i] = place + 4
            continue
        value = values[low + i]
        rest = _magnitude(value)
        first, last = _digit_range(rest)
        count = first - last
        _put_length(out, place, 8 + 2 * count)
        _put_int16(out, place + 4, count)
        _put_int16(out, place + 6, first - 3 if count else 0)
        _put_int16(out, place + 8, 0x4000 if value < 0 else 0)
        _put_int16(out, place + 10, 8)
        for k in range(first):
            if k >= last:
                digit = int(rest % np.uint64(10000))
                _put_int16(out, place + 12 + 2 * (first - 1 - k), digit)
            rest //= np.uint64(10000)
        places[i] = place + 12 + 2 * count


@numba.njit(nogil=True, cache=True, inline="always")
def _put_length(out: NDArray[np.uint8], place: int, length: int) -> None:
    out[place] = (length >> 24) & 255
    out[place + 1] = (length >> 16) & 255
    out[place + 2] = (length >> 8) & 255
    out[place + 3] = length & 255


@numba.njit(nogil=True, cache=True, inline="always")
def _put_int16(out: NDArray[np.uint8], place: int, value: int) -> None:
    out[place] = (value >> 8) & 255
    out[place + 1] = value & 255


@_compiled
def _magnitude(value: int) -> np.uint64:
    # -(2^63) has no positive twin among the signed numbers.
    return np.uint64(-(value + 1)) + np.uint64(1) if value < 0 else np.uint64(value)


@_compiled
def _digit_range(rest: np.uint64) -> tuple[int, int]:
    """Number of digits to the base 10000, and how many of the lowest are zero; both 0 for zero."""
    first, last = 0, 0
    while rest:
        if first == last and rest % np.uint64(10000) == 0:
            last += 1
        rest //= np.uint64(10000)
        first += 1
    return first, last
