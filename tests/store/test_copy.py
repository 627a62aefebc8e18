"""The binary COPY encoder, read back through PostgreSQL."""

from __future__ import annotations

import json
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from itertools import cycle
from typing import Any

import polars as pl
import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import AsyncConnection
from psycopg.rows import dict_row

from tollkeeper.store.copy import (
    CHUNK_ROWS,
    HEADER,
    POLARS,
    TRAILER,
    Kind,
    binary_chunks,
    binary_rows,
    columns_of,
    copy_frame,
)
from tollkeeper.store.db import Connection

KINDS = {f"c_{kind.value}": kind for kind in Kind}
INT64 = st.integers(-(2**63), 2**63 - 1)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# The years that Python's datetime can show.
TIMES = st.integers(-62_000_000_000_000_000, 250_000_000_000_000_000)
PLAIN = st.characters(codec="utf-8", exclude_characters="\x00")
VALUES: dict[Kind, st.SearchStrategy[Any]] = {
    Kind.BOOL: st.booleans(),
    Kind.INT2: st.integers(-(2**15), 2**15 - 1),
    Kind.INT4: st.integers(-(2**31), 2**31 - 1),
    Kind.INT8: INT64,
    Kind.DATE: st.dates(),
    Kind.TIME: TIMES,
    Kind.NUMERIC: INT64 | st.integers(-20000, 20000) | st.integers(0, 40).map(lambda n: 10**8 * n),
    Kind.TEXT: st.text(),
    Kind.BYTES: st.binary(),
    Kind.UUID: st.uuids().map(str),
    Kind.JSON: st.lists(st.integers() | st.text(PLAIN), max_size=4).map(json.dumps),
    # Many of the two characters that NUL is written with, so that the one is told from the other.
    Kind.JSONB: st.lists(st.integers() | st.text('\x00\\u0a"'), max_size=4).map(json.dumps),
}
"""What each kind takes, as the polars column has it."""


def shown(kind: Kind, value: Any) -> Any:
    """A value as psycopg reads it back."""
    if value is None:
        return None
    if kind is Kind.NUMERIC:
        return Decimal(value).scaleb(-8)
    if kind is Kind.TIME:
        return EPOCH + timedelta(microseconds=value)
    if kind is Kind.TEXT:
        return value.replace("\x00", "\u2400")
    if kind is Kind.UUID:
        return uuid.UUID(value)
    if kind in {Kind.JSON, Kind.JSONB}:
        return without_nul(json.loads(value))
    return value


def without_nul(value: Any) -> Any:
    """A JSON value as jsonb can hold it."""
    return [each.replace("\x00", "\u2400") if isinstance(each, str) else each for each in value]


def frame_of(rows: list[dict[str, Any]]) -> pl.DataFrame:
    """A frame with a column of each kind."""
    return pl.DataFrame(
        {
            name: pl.Series([r[name] for r in rows], dtype=POLARS[kind])
            for name, kind in KINDS.items()
        }
    )


@pytest.fixture
async def connection(empty_database_url: str) -> AsyncIterator[Connection]:
    """A database with one table that has a column of each kind."""
    options = "-c TimeZone=UTC"
    async with await AsyncConnection.connect(
        empty_database_url, row_factory=dict_row, autocommit=True, options=options
    ) as opened:
        columns = ", ".join(f"{name} {kind.value}" for name, kind in KINDS.items())
        await opened.execute(f"CREATE TABLE t (n bigint GENERATED ALWAYS AS IDENTITY, {columns})")
        yield opened


async def read_back(connection: Connection) -> list[dict[str, Any]]:
    """All rows in the order in which they were written; the table is empty afterwards."""
    rows = await (await connection.execute("SELECT * FROM t ORDER BY n")).fetchall()
    await connection.execute("TRUNCATE t")
    return [{name: row[name] for name in KINDS} for row in rows]


row_of = st.fixed_dictionaries({n: st.none() | VALUES[kind] for n, kind in KINDS.items()})


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(row_of, min_size=1, max_size=30))
async def test_every_value_comes_back_as_it_went(
    connection: Connection, rows: list[dict[str, Any]]
) -> None:
    """Numbers to their bounds, any text, null anywhere: the database reads what was meant."""
    assert await copy_frame(connection, "t", KINDS, frame_of(rows)) == len(rows)
    expected = [{name: shown(KINDS[name], value) for name, value in row.items()} for row in rows]
    assert await read_back(connection) == expected


@pytest.mark.parametrize(
    "units",
    [0, 1, -1, 9_999, 10_000, 99_999_999, 100_000_000, -100_000_000, 123_456_789, 10**12, 10**16,
     10**16 + 1, 9_999_999_999_999_999, 2**63 - 1, -(2**63), -(2**63) + 1],
)  # fmt: skip
async def test_amounts_are_exact_and_keep_eight_decimals(
    connection: Connection, units: int
) -> None:
    """Each power of the base, both signs, and the number that has no positive twin."""
    frame = pl.DataFrame({"c_numeric": [units]})
    await copy_frame(connection, "t", {"c_numeric": Kind.NUMERIC}, frame)
    cursor = await connection.execute("SELECT c_numeric::text, c_numeric + 0 AS n FROM t")
    (row,) = await cursor.fetchall()
    assert row["n"] == Decimal(units).scaleb(-8)
    assert row["c_numeric"] == f"{Decimal(units).scaleb(-8):.8f}"


async def test_many_rows_come_in_order_over_the_borders_of_chunks(connection: Connection) -> None:
    """Two chunks and one row: nothing is lost, doubled or out of order."""
    count = 2 * CHUNK_ROWS + 1
    frame = pl.DataFrame(
        {
            "c_int8": range(count),
            "c_text": [f"call {n}" if n % 3 else None for n in range(count)],
            "c_numeric": [
                n * 10**n_zeros for n, n_zeros in zip(range(count), cycle([0, 4, 8]), strict=False)
            ],
        }
    )
    kinds = {name: KINDS[name] for name in frame.columns}
    assert await copy_frame(connection, "t", kinds, frame) == count
    rows = await read_back(connection)
    assert [row["c_int8"] for row in rows] == list(range(count))
    assert [row["c_text"] for row in rows] == frame["c_text"].to_list()
    assert [row["c_numeric"] for row in rows] == [
        Decimal(units).scaleb(-8) for units in frame["c_numeric"].to_list()
    ]


async def test_a_slice_of_a_frame_is_written_and_nothing_beside_it(connection: Connection) -> None:
    """Columns that begin in the middle of their buffers."""
    frame = pl.DataFrame({"c_text": ["a", "bb", None, "dddd"], "c_int2": [1, 2, 3, 4]})[1:3]
    await copy_frame(connection, "t", {"c_text": Kind.TEXT, "c_int2": Kind.INT2}, frame)
    rows = await read_back(connection)
    assert [(row["c_text"], row["c_int2"]) for row in rows] == [("bb", 2), (None, 3)]


async def test_polars_times_and_dates_are_taken_as_they_are(connection: Connection) -> None:
    """A frame may hold microseconds or times of any unit."""
    at = datetime(2024, 2, 29, 12, 30, 0, 123000, tzinfo=UTC)
    frame = pl.DataFrame({"c_timestamptz": [at], "c_date": [date(1999, 12, 31)]}).with_columns(
        pl.col("c_timestamptz").dt.cast_time_unit("ms")
    )
    kinds = {"c_timestamptz": Kind.TIME, "c_date": Kind.DATE}
    await copy_frame(connection, "t", kinds, frame)
    (row,) = await read_back(connection)
    assert (row["c_timestamptz"], row["c_date"]) == (at, date(1999, 12, 31))


async def test_nothing_of_a_refused_copy_is_stored(connection: Connection) -> None:
    """A value that the table does not take undoes the rows before it."""
    await connection.execute("ALTER TABLE t ADD CHECK (c_int4 < 3)")
    frame = pl.DataFrame({"c_int4": [1, 2, 3]})
    with pytest.raises(psycopg.errors.CheckViolation):
        await copy_frame(connection, "t", {"c_int4": Kind.INT4}, frame)
    assert await read_back(connection) == []


def test_a_number_that_does_not_fit_its_kind_is_refused() -> None:
    """Never wrapped around."""
    with pytest.raises(pl.exceptions.PolarsError, match="conversion from `i64` to `i16` failed"):
        columns_of(pl.DataFrame({"a": [1, 70_000]}), {"a": Kind.INT2})


def test_columns_of_unequal_length_are_refused() -> None:
    columns = columns_of(pl.DataFrame({"a": [1, 2]}), {"a": Kind.INT4})
    shorter = columns_of(pl.DataFrame({"a": [1]}), {"a": Kind.INT4})
    with pytest.raises(ValueError, match="equal length"):
        binary_rows([*columns, *shorter])


def test_no_rows_are_a_header_and_an_end() -> None:
    """A valid COPY of nothing."""
    columns = columns_of(pl.DataFrame({"a": pl.Series([], dtype=pl.Int64)}), {"a": Kind.INT8})
    assert list(binary_chunks(columns)) == [HEADER, TRAILER]
