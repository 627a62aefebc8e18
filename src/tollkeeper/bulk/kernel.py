"""The kernel: columns of calls in, the row that prices each and the amount out.

It gives the same answers as :func:`tollkeeper.core.tariff.find_rate` and
:func:`tollkeeper.core.rating.price`, to the last digit.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numba
import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from tollkeeper.bulk.book import (
    HEAD,
    LENGTH_BITS,
    LONGEST,
    PARENT,
    ROW,
    SHAPE,
    SINCE,
    UNIT,
    UNTIL,
    VERSION_WORDS,
    VERSIONS,
    RateBook,
)
from tollkeeper.bulk.numbers import align_column
from tollkeeper.bulk.tariffs import BLOCKED, NO_RATE, PRICED, TOO_LARGE, WIDE, price_line
from tollkeeper.core.rating import seconds_of
from tollkeeper.core.tariff import PREFIX_MAX

__all__ = [
    "BLOCKED",
    "NO_RATE",
    "PRICED",
    "TOO_LARGE",
    "Rated",
    "decimals",
    "lookup",
    "price_rows",
    "rate",
    "rate_table",
]

CHUNK = 16_384
"""Records that one thread takes at a time."""

Priced = tuple[NDArray[np.int8], NDArray[np.int32], NDArray[np.int64]]


@dataclass(frozen=True, slots=True)
class Rated:
    """Rated columns.

    ``row`` int32[n]: number of the row in the book, -1 none. ``status`` int8[n]: 0 priced, 1 no
    rate, 2 blocked, 3 the amount is too large for the column (tollkeeper.bulk.tariffs names them).
    ``billed`` int32[n]: seconds billed. ``amount`` int64[n]: 10^-8 of the row's currency, 0 unless
    priced.
    """

    row: NDArray[np.int32]
    status: NDArray[np.int8]
    billed: NDArray[np.int32]
    amount: NDArray[np.int64]


def rate(
    book: RateBook,
    plan: NDArray[np.int32],
    number: NDArray[np.int64],
    digits: NDArray[np.int8],
    at_us: NDArray[np.int64],
    duration_ms: NDArray[np.int64],
    threads: int = 1,
) -> Rated:
    """Find the row of each call and price it.

    ``plan`` as of ``book.plan_index`` (-1: none), ``number`` and ``digits`` as of
    :func:`tollkeeper.bulk.numbers.normalise_column`, ``at_us`` microseconds UTC. All of length n.

    Raises:
        ValueError: columns of different lengths, a plan that is not in the book, or a number of
            more than 18 digits.
    """
    row = lookup(book, plan, number, digits, at_us, threads)
    status, billed, amount = price_rows(book, row, duration_ms, threads)
    return Rated(row, status, billed, amount)


def lookup(
    book: RateBook,
    plan: NDArray[np.int32],
    number: NDArray[np.int64],
    digits: NDArray[np.int8],
    at_us: NDArray[np.int64],
    threads: int = 1,
) -> NDArray[np.int32]:
    """Only the first half of :func:`rate`: the row of each call, -1 where none is in force."""
    count = len(plan)
    if {len(number), len(digits), len(at_us)} != {count}:
        raise ValueError("the columns of the calls differ in length")
    if count and not -1 <= int(plan.min()) <= int(plan.max()) < len(book.plans) - 1:
        raise ValueError("a plan is not in the book")
    if count and not 0 <= int(number.min()) <= int(number.max()) < 10**PREFIX_MAX:
        raise ValueError("a number is not one of 18 digits")
    plan, number = np.ascontiguousarray(plan, np.int32), np.ascontiguousarray(number, np.int64)
    digits, at_us = np.ascontiguousarray(digits, np.int8), np.ascontiguousarray(at_us, np.int64)
    row = np.empty(count, np.int32)

    def part(first: int, end: int) -> None:
        _lookup(
            book.plans,
            book.plan_cards,
            book.cards,
            book.heads,
            book.intervals,
            book.nodes,
            plan[first:end],
            number[first:end],
            digits[first:end],
            at_us[first:end],
            row[first:end],
        )

    _in_parts(part, count, threads)
    return row


def price_rows(
    book: RateBook, row: NDArray[np.int32], duration_ms: NDArray[np.int64], threads: int = 1
) -> Priced:
    """Only the second half of :func:`rate`: (status, billed, amount) of calls whose rows are known.

    Raises:
        ValueError: columns of different lengths, or a row that is not in the book.
    """
    count = len(row)
    if len(duration_ms) != count:
        raise ValueError("the columns of the calls differ in length")
    if count and not -1 <= int(row.min()) <= int(row.max()) < len(book.row_tariff) - 1:
        raise ValueError("a row is not in the book")
    row, duration_ms = (
        np.ascontiguousarray(row, np.int32),
        np.ascontiguousarray(duration_ms, np.int64),
    )
    status = np.empty(count, np.int8)
    billed = np.empty(count, np.int32)
    amount = np.empty(count, np.int64)

    def part(first: int, end: int) -> None:
        _price(
            book.row_tariff,
            book.tariffs.lines,
            row[first:end],
            duration_ms[first:end],
            status[first:end],
            billed[first:end],
            amount[first:end],
        )

    _in_parts(part, count, threads)
    for at in np.flatnonzero(status == WIDE).tolist():
        seconds = seconds_of(int(duration_ms[at]))
        done = book.tariffs.price_wide(int(book.row_tariff[row[at]]), seconds)
        status[at], billed[at], amount[at] = done
    return status, billed, amount


def rate_table(table: pa.Table, book: RateBook, threads: int = 1) -> pa.Table:
    """As :func:`rate`, Arrow in and Arrow out: the table with the result's columns behind its own.

    In: ``plan`` (plan ids, integers), ``number`` (E.164 digits, string), ``at`` (timestamp or
    int64 microseconds UTC), ``duration_ms`` (integer). A null or unknown plan, a number that is
    not 0 to 18 digits and a null in ``at`` have no rate; a null duration is 0. Other columns are
    handed through. Out: ``version_id`` int64, ``row_no`` int32, ``prefix``, ``destination`` and
    ``currency`` large_string (0 and "" where there is no rate), ``status`` int8, ``billed`` int32,
    ``amount`` decimal128(28, 8).
    """
    at = pl.Series(table["at"])
    if at.dtype != pl.Int64:
        at = at.dt.cast_time_unit("us").cast(pl.Int64)
    number, digits, bad = align_column(pl.Series(table["number"]).cast(pl.String))
    ids = pl.Series(table["plan"]).cast(pl.Int64)
    plan = ids.replace_strict(
        list(book.plan_numbers), list(book.plan_numbers.values()), default=-1, return_dtype=pl.Int32
    ).fill_null(-1)
    known = np.where(bad | at.is_null().to_numpy(), np.int32(-1), plan.to_numpy())
    duration = pl.Series(table["duration_ms"]).cast(pl.Int64).fill_null(0).to_numpy()
    rated = rate(book, known, number, digits, at.fill_null(0).to_numpy(), duration, threads)
    rows = book.describe(rated.row)
    for name in ("version_id", "row_no", "prefix", "destination", "currency"):
        table = table.append_column(name, rows[name].to_arrow())
    table = table.append_column("status", pa.array(rated.status))
    table = table.append_column("billed", pa.array(rated.billed))
    return table.append_column("amount", decimals(rated.amount))


def decimals(units: NDArray[np.int64]) -> pa.Array:
    """Amounts of 10^-8 as decimal128(28, 8): 16 bytes each, little-endian two's complement."""
    words = np.empty((len(units), 2), np.dtype("<i8"))
    words[:, 0] = units
    words[:, 1] = units >> 63
    buffers = [None, pa.py_buffer(words)]
    return pa.Array.from_buffers(pa.decimal128(28, 8), len(units), buffers)


def _in_parts(work: Callable[[int, int], None], count: int, threads: int) -> None:
    """Do ``work`` on ranges of rows, in ``threads`` threads; the kernels let the others run."""
    if threads <= 1 or count <= CHUNK:
        work(0, count)
        return
    edges = [(first, min(first + CHUNK, count)) for first in range(0, count, CHUNK)]
    with ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(lambda edge: work(*edge), edges):
            pass


@numba.njit(nogil=True, cache=True)
def _lookup(
    plans: NDArray[np.int32],
    plan_cards: NDArray[np.int32],
    cards: NDArray[np.int64],
    heads: NDArray[np.int32],
    intervals: NDArray[np.int64],
    nodes: NDArray[np.int64],
    plan: NDArray[np.int32],
    number: NDArray[np.int64],
    digits: NDArray[np.int8],
    at_us: NDArray[np.int64],
    row: NDArray[np.int32],
) -> None:
    for call in range(len(plan)):
        row[call] = -1
        if plan[call] < 0:
            continue
        called = number[call]
        at = at_us[call]
        best = -1
        for place in range(plans[plan[call]], plans[plan[call] + 1]):
            card = plan_cards[place]
            if cards[card, LONGEST] <= best:
                continue
            head = cards[card, HEAD] + called // cards[card, UNIT]
            low = heads[head]
            size = heads[head + 1] - low + 1
            # The last interval that starts at or before the number; that of the head always does.
            while size > 1:
                half = size >> 1
                low += half if intervals[low + half, 0] <= called else 0
                size -= half
            node = intervals[low, 1]
            while node >= 0:
                shape = nodes[node + SHAPE]
                length = shape & ((1 << LENGTH_BITS) - 1)
                if length <= best:
                    break
                if length <= digits[call]:
                    version = node + VERSIONS
                    end = version + VERSION_WORDS * (shape >> LENGTH_BITS)
                    while version < end and not (
                        nodes[version + SINCE] <= at < nodes[version + UNTIL]
                    ):
                        version += VERSION_WORDS
                    if version < end:
                        row[call] = nodes[version + ROW]
                        best = length
                        break
                node = nodes[node + PARENT]


@numba.njit(nogil=True, cache=True)
def _price(
    tariff: NDArray[np.int32],
    lines: NDArray[np.int64],
    row: NDArray[np.int32],
    duration_ms: NDArray[np.int64],
    status: NDArray[np.int8],
    billed: NDArray[np.int32],
    amount: NDArray[np.int64],
) -> None:
    for call in range(len(row)):
        at = row[call]
        billed[call] = 0
        amount[call] = 0
        if at < 0:
            status[call] = NO_RATE
        elif tariff[at] < 0:
            status[call] = BLOCKED
        else:
            # core.rating.seconds_of: any started second counts.
            seconds = -(-duration_ms[call] // 1000)
            status[call], billed[call], amount[call] = price_line(lines, tariff[at], seconds)
