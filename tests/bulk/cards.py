"""Cards, spans and calls to compare the kernel with the core, call by call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal, DecimalException

import numpy as np
import polars as pl
from hypothesis import strategies as st

from tollkeeper.bulk.book import CardSpan, RateBook, micros
from tollkeeper.bulk.kernel import Rated, rate
from tollkeeper.bulk.numbers import align_column
from tollkeeper.bulk.tariffs import BLOCKED, NO_RATE, PRICED, TOO_LARGE
from tollkeeper.core.money import EXACT, Rounding
from tollkeeper.core.rating import Tariff, explain_price, price, seconds_of
from tollkeeper.core.tariff import Card, PrefixTable, RateRow, find_rate

D = Decimal
T0 = datetime(2026, 3, 1, tzinfo=UTC)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

prices = st.one_of(
    st.just(D(0)),
    st.decimals(0, 10, places=6),
    st.decimals(0, 5, places=8),
    st.sampled_from([D("1E+2"), D("0E-30"), D("0.10"), D("0.0065"), D("12E-12"), D("1E-20")]),
)
extremes = st.one_of(
    st.decimals(0, 10**15 - 1, places=8),
    st.sampled_from([D("1E-17"), D("1E-50"), D("1E+40"), D("1E+300"), D(1).scaleb(-900)]),
)
fees = st.one_of(st.just(D(0)), st.decimals(0, 2, places=4))


@st.composite
def tariffs(draw: st.DrawFn, price_of: st.SearchStrategy[Decimal] = prices) -> Tariff:
    """Any tariff: every element may be absent."""
    intervals = st.one_of(st.sampled_from([1, 6, 30, 60, 86_400]), st.integers(1, 200))
    plain = draw(st.booleans())
    return Tariff(
        first_price=draw(price_of),
        next_price=draw(price_of),
        first_interval=draw(intervals),
        next_interval=draw(intervals),
        connect_fee=draw(fees),
        attempt_fee=D(0) if plain else draw(fees),
        minimum=D(0) if plain else draw(st.one_of(fees, price_of)),
        free_below=0
        if plain
        else draw(st.one_of(st.just(0), st.integers(0, 100), st.just(10**30))),
        surcharge=draw(st.one_of(fees, price_of)),
        cap=None if plain else draw(st.one_of(st.none(), fees, price_of)),
        decimals=draw(st.integers(0, 8)),
        rounding=draw(st.sampled_from(Rounding)),
    )


@dataclass(frozen=True)
class Call:
    """One call, as the core would be asked about it."""

    plan: int
    number: str
    at: datetime
    duration_ms: int


@dataclass(frozen=True)
class Answer:
    """What became of a call: the version and row (0, 0 for none), and what it costs."""

    version_id: int
    row_no: int
    status: int
    billed: int
    amount: int


def cut(span: CardSpan) -> list[RateRow]:
    """The rows of a span, valid only within it."""
    since = None if span.since is None else EPOCH + timedelta(microseconds=span.since)
    until = None if span.until is None else EPOCH + timedelta(microseconds=span.until)
    return [
        replace(
            row,
            valid_from=max((t for t in (row.valid_from, since) if t is not None), default=None),
            valid_to=min((t for t in (row.valid_to, until) if t is not None), default=None),
            # So that the row tells its version, too.
            row_id=span.version_id * 1_000_000 + row.row_id,
        )
        for row in span.rows
    ]


class Core:
    """Answers calls one by one, by core.tariff and core.rating."""

    def __init__(self, plans: Mapping[int, Sequence[Sequence[CardSpan]]]) -> None:
        self._cards = {
            plan: [
                Card(n, str(n), 1, "USD", PrefixTable(r for span in card for r in cut(span)))
                for n, card in enumerate(cards)
            ]
            for plan, cards in plans.items()
        }

    def answer(self, call: Call) -> Answer:
        """What the core says about one call."""
        match = find_rate(self._cards.get(call.plan, []), call.number, call.at)
        if match is None:
            return Answer(0, 0, NO_RATE, 0, 0)
        version, row = divmod(match.row.row_id, 1_000_000)
        if match.row.blocked:
            return Answer(version, row, BLOCKED, 0, 0)
        return Answer(version, row, *core_price(match.row.tariff, call.duration_ms))


def core_price(tariff: Tariff, duration_ms: int) -> tuple[int, int, int]:
    """Status, seconds billed and amount in 10^-8, by the core alone."""
    seconds = seconds_of(duration_ms)
    try:
        amount = price(tariff, seconds)
        billed = explain_price(tariff, seconds).billed_seconds
    except DecimalException:
        return TOO_LARGE, 0, 0
    units = int(EXACT.scaleb(amount, 8))
    assert EXACT.scaleb(D(units), -8) == amount
    if units >= 2**63 or billed >= 2**31:
        return TOO_LARGE, 0, 0
    return PRICED, billed, units


def kernel(book: RateBook, calls: Sequence[Call], threads: int = 1) -> Rated:
    """The same calls as columns."""
    number, digits, bad = align_column(pl.Series([c.number for c in calls], dtype=pl.String))
    assert not bad.any()
    return rate(
        book,
        np.array([book.plan_index(c.plan) for c in calls], np.int32),
        number,
        digits,
        np.array([micros(c.at) for c in calls], np.int64),
        np.array([c.duration_ms for c in calls], np.int64),
        threads,
    )


def answers(book: RateBook, rated: Rated) -> list[Answer]:
    """The kernel's columns, call by call."""
    columns = (
        book.row_version[rated.row],
        book.row_no[rated.row],
        rated.status,
        rated.billed,
        rated.amount,
    )
    return [Answer(*line) for line in zip(*(c.tolist() for c in columns), strict=True)]
