"""Rate plans compiled for columns: which row prices this number at this moment, by the million.

A card is compiled once, whatever the number of plans that it stands on, with the rows of all its
versions. Its prefixes become flat intervals over numbers left-aligned in 18 digits
(:func:`tollkeeper.bulk.numbers.aligned`): each interval names the node of the longest prefix that
covers it, a node its rows (newest begun first) and the node of the next shorter prefix, which
takes over where no row is in force or where the number is shorter than the prefix. A head table
on the first digits leaves few intervals to search. A plan is a list of cards, in the order that
wins ties.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import numba
import numpy as np
import polars as pl
from numpy.typing import NDArray

from tollkeeper.bulk.numbers import align_column
from tollkeeper.bulk.tariffs import TariffTable
from tollkeeper.core.rating import Tariff
from tollkeeper.core.tariff import PREFIX_MAX, RateRow

ALWAYS_SINCE = -(2**63)
ALWAYS_UNTIL = 2**63 - 1

HEAD_DIGITS = 6
"""Digits of the head table of a large card; a small card has a smaller one."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)

# Columns of RateBook.cards, words of a node and of each of its versions.
HEAD, UNIT, LONGEST = 0, 1, 2
PARENT, SHAPE, VERSIONS = 0, 1, 2
SINCE, UNTIL, ROW, VERSION_WORDS = 0, 1, 2, 3
LENGTH_BITS = 5


@dataclass(frozen=True, slots=True)
class RateColumns:
    """The rows of a version as columns of one length, as they are where there are very many.

    ``prefix`` and ``destination`` String, ``row_no`` int32, ``tariff`` int32 (a place in
    ``tariffs``, -1 where the row is blocked), ``since`` (inclusive) and ``until`` (exclusive) int64
    microseconds UTC, ALWAYS_SINCE and ALWAYS_UNTIL where unbounded.
    """

    prefix: pl.Series
    destination: pl.Series
    row_no: NDArray[np.int32]
    tariff: NDArray[np.int32]
    since: NDArray[np.int64]
    until: NDArray[np.int64]
    tariffs: Sequence[Tariff]

    @classmethod
    def of(cls, rows: Sequence[RateRow]) -> RateColumns:
        """Put rows into columns; equal tariffs once."""
        tariffs: dict[Tariff, int] = {}
        by_identity: dict[int, int] = {}
        times: dict[datetime, int] = {}

        def tariff(row: RateRow) -> int:
            if row.blocked:
                return -1
            # Decks share their tariffs: the object is known far more often than not.
            known = by_identity.get(id(row.tariff))
            if known is None:
                known = tariffs.setdefault(row.tariff, len(tariffs))
                by_identity[id(row.tariff)] = known
            return known

        def time(at: datetime | None, unbounded: int) -> int:
            if at is None:
                return unbounded
            found = times.get(at)
            if found is None:
                found = times[at] = micros(at)
            return found

        count = len(rows)
        return cls(
            prefix=pl.Series([row.prefix for row in rows], dtype=pl.String),
            destination=pl.Series([row.destination for row in rows], dtype=pl.String),
            row_no=np.fromiter((row.row_id for row in rows), np.int32, count),
            tariff=np.fromiter(map(tariff, rows), np.int32, count),
            since=np.fromiter(
                (time(row.valid_from, ALWAYS_SINCE) for row in rows), np.int64, count
            ),
            until=np.fromiter((time(row.valid_to, ALWAYS_UNTIL) for row in rows), np.int64, count),
            tariffs=list(tariffs),
        )

    def __len__(self) -> int:
        """The number of rows."""
        return len(self.prefix)


@dataclass(frozen=True, slots=True)
class CardSpan:
    """A version of a card, and the time in which it is the one that counts.

    ``since`` is inclusive, ``until`` exclusive, both in microseconds UTC; None is unbounded.
    """

    card_id: int
    version_id: int
    currency: str
    rows: Sequence[RateRow] | RateColumns
    since: int | None = None
    until: int | None = None


@dataclass(frozen=True, slots=True)
class RateBook:
    """Compiled plans. All is in arrays, so that it is small, and can be pickled and shared.

    What is read by a lookup: ``plans`` is int32[p + 1], where the cards of a plan begin in
    ``plan_cards``; ``cards`` int64[c, 3] (first of the head table, numbers a head covers, digits
    of the longest prefix); ``heads`` int32 (the interval in which a head begins); ``intervals``
    int64[i, 2] (first number, place of its node in ``nodes``, -1 none); ``nodes`` int64, the nodes
    one behind the other: place of the parent or -1, digits + 32 * count of versions, and for each
    version since, until, row. So a lookup waits for the memory as few times as can be.

    What a row of the result stands for, by its number: ``row_version`` int64 (version id),
    ``row_no`` int32, ``row_card`` int64 (card id), ``row_tariff`` int32 (a line of ``tariffs``, -1
    where the row is blocked), ``row_currency`` int32 (a place in ``currencies``), ``row_prefix``
    and ``row_destination`` (polars String). The last line is nothing (ids 0, texts "", currency
    -1), so that -1, no row, can be looked up like any other.
    """

    plan_numbers: Mapping[int, int]
    plans: NDArray[np.int32]
    plan_cards: NDArray[np.int32]
    cards: NDArray[np.int64]
    heads: NDArray[np.int32]
    intervals: NDArray[np.int64]
    nodes: NDArray[np.int64]
    row_version: NDArray[np.int64]
    row_no: NDArray[np.int32]
    row_card: NDArray[np.int64]
    row_tariff: NDArray[np.int32]
    row_currency: NDArray[np.int32]
    row_prefix: pl.Series
    row_destination: pl.Series
    currencies: tuple[str, ...]
    tariffs: TariffTable

    @classmethod
    def compile(cls, plans: Mapping[int, Sequence[Sequence[CardSpan]]]) -> RateBook:
        """Compile plans: plan id -> cards in the order that wins ties, each the spans of its versions.

        Raises:
            ValueError: a prefix that is not 0 to 18 digits.
        """
        builder = _Builder()
        cards_of = {plan: [builder.card(card) for card in cards] for plan, cards in plans.items()}
        return builder.book(cards_of)

    def plan_index(self, plan_id: int) -> int:
        """Give the number under which the kernel knows a plan; -1 for one that is not in the book."""
        return self.plan_numbers.get(plan_id, -1)

    def describe(self, row: NDArray[np.int32]) -> pl.DataFrame:
        """What rows of a result stand for: one line each; -1 gives 0 and "".

        Columns version_id Int64, row_no Int32, card_id Int64, prefix, destination, currency String.
        """
        names = pl.Series([*self.currencies, ""], dtype=pl.String)
        return pl.DataFrame(
            {
                "version_id": self.row_version[row],
                "row_no": self.row_no[row],
                "card_id": self.row_card[row],
                "prefix": self.row_prefix.gather(row),
                "destination": self.row_destination.gather(row),
                "currency": names.gather(self.row_currency[row]),
            }
        )


def micros(at: datetime) -> int:
    """Microseconds since 1970 of a UTC time, exact."""
    return (at - _EPOCH) // _MICROSECOND


@dataclass(slots=True)
class _Rows:
    """The rows of one version, as they stand in the tables of the book."""

    first: int
    number: NDArray[np.int64]
    digits: NDArray[np.int8]
    since: NDArray[np.int64]
    until: NDArray[np.int64]


@dataclass(slots=True)
class _Card:
    heads: NDArray[np.int32]
    unit: int
    longest: int
    intervals: NDArray[np.int64]
    nodes: NDArray[np.int64]
    places: NDArray[np.int64]


@dataclass(slots=True)
class _Builder:
    """Collects rows, tariffs and cards, each once."""

    cards: list[_Card] = field(default_factory=list)
    card_numbers: dict[tuple[object, ...], int] = field(default_factory=dict)
    rows: dict[tuple[int, int, str, int], _Rows] = field(default_factory=dict)
    held: list[tuple[CardSpan, RateColumns, NDArray[np.int32]]] = field(default_factory=list)
    count: int = 0
    tariffs: dict[Tariff, int] = field(default_factory=dict)

    def card(self, spans: Sequence[CardSpan]) -> int:
        """Number of a card; equal spans over the same rows are compiled once."""
        key = tuple(
            (s.card_id, s.version_id, s.currency, id(s.rows), s.since, s.until) for s in spans
        )
        known = self.card_numbers.get(key)
        if known is None:
            known = self.card_numbers[key] = len(self.cards)
            self.cards.append(_compile([self._cut(span) for span in spans]))
        return known

    def _cut(self, span: CardSpan) -> _Rows:
        """Rows with their validity cut to the span."""
        rows = self._rows_of(span)
        since = ALWAYS_SINCE if span.since is None else span.since
        until = ALWAYS_UNTIL if span.until is None else span.until
        return _Rows(
            rows.first,
            rows.number,
            rows.digits,
            np.maximum(rows.since, since),
            np.minimum(rows.until, until),
        )

    def _rows_of(self, span: CardSpan) -> _Rows:
        key = (span.card_id, span.version_id, span.currency, id(span.rows))
        known = self.rows.get(key)
        if known is None:
            known = self.rows[key] = self._read(span)
        return known

    def _read(self, span: CardSpan) -> _Rows:
        rows = span.rows if isinstance(span.rows, RateColumns) else RateColumns.of(span.rows)
        number, digits, bad = align_column(rows.prefix)
        if bad.any():
            prefix = rows.prefix[int(bad.argmax())]
            raise ValueError(f'prefix "{prefix}" is not 0 to {PREFIX_MAX} digits')
        known = self.tariffs
        # The last place stands for a blocked row, whose tariff is -1.
        lines = [*(known.setdefault(each, len(known)) for each in rows.tariffs), -1]
        tariff = np.array(lines, np.int32)[rows.tariff]
        first = self.count
        self.count += len(rows)
        self.held.append((span, rows, tariff))
        return _Rows(first, number, digits, rows.since, rows.until)

    def book(self, cards_of: Mapping[int, Sequence[int]]) -> RateBook:
        """Put all cards behind each other."""
        lists = list(cards_of.values())
        spans = [span for span, _, _ in self.held]
        held = [rows for _, rows, _ in self.held]
        lengths = [len(rows) for rows in held]
        nothing_text = pl.Series([""], dtype=pl.String)
        currencies = list(dict.fromkeys(span.currency for span in spans))
        lines, joined = _joined(self.cards)

        def of_span(values: Sequence[int], nothing: int) -> NDArray[np.int64]:
            return np.repeat(np.array([*values, nothing], np.int64), [*lengths, 1])

        return RateBook(
            plan_numbers={plan: number for number, plan in enumerate(cards_of)},
            plans=np.cumsum([0, *(len(cards) for cards in lists)], dtype=np.int32),
            plan_cards=np.array([card for cards in lists for card in cards], np.int32),
            cards=lines,
            heads=joined.heads,
            intervals=joined.intervals,
            nodes=joined.nodes,
            row_version=of_span([span.version_id for span in spans], 0),
            row_no=np.concatenate([*(rows.row_no for rows in held), [0]]).astype(np.int32),
            row_card=of_span([span.card_id for span in spans], 0),
            row_tariff=np.concatenate([*(tariff for *_, tariff in self.held), [-1]]).astype(
                np.int32
            ),
            row_currency=of_span([currencies.index(span.currency) for span in spans], -1).astype(
                np.int32
            ),
            row_prefix=_texts([*(rows.prefix for rows in held), nothing_text]),
            row_destination=_texts([*(rows.destination for rows in held), nothing_text]),
            currencies=tuple(currencies),
            tariffs=TariffTable.compile(self.tariffs),
        )


def _texts(parts: Sequence[pl.Series]) -> pl.Series:
    return pl.concat([part.rename("") for part in parts], rechunk=True)


def _joined(cards: Sequence[_Card]) -> tuple[NDArray[np.int64], _Card]:
    """The arrays of all cards behind each other, their references moved along: (lines, arrays)."""
    lines, heads = [], [np.zeros(0, np.int32)]
    intervals, nodes = [np.zeros((0, 2), np.int64)], [np.zeros(0, np.int64)]
    head = interval = node = 0
    for card in cards:
        lines.append((head, card.unit, card.longest))
        heads.append(card.heads + np.int32(interval))
        moved = card.intervals.copy()
        moved[moved[:, 1] >= 0, 1] += node
        intervals.append(moved)
        shifted = card.nodes.copy()
        inner = card.places[shifted[card.places + PARENT] >= 0]
        shifted[inner + PARENT] += node
        nodes.append(shifted)
        head += len(card.heads)
        interval += len(card.intervals)
        node += len(card.nodes)
    return np.array(lines, np.int64).reshape(len(lines), 3), _Card(
        heads=np.concatenate(heads),
        unit=0,
        longest=0,
        intervals=np.concatenate(intervals),
        nodes=np.concatenate(nodes),
        places=np.zeros(0, np.int64),
    )


def _compile(parts: Sequence[_Rows]) -> _Card:
    """Compile the rows of all versions of a card."""
    if not parts:
        empty = np.zeros(0, np.int64)
        parts = [_Rows(0, empty, np.zeros(0, np.int8), empty, empty)]
    number = np.concatenate([part.number for part in parts])
    digits = np.concatenate([part.digits for part in parts])
    since = np.concatenate([part.since for part in parts])
    until = np.concatenate([part.until for part in parts])
    row = np.concatenate([part.first + np.arange(len(part.number)) for part in parts])
    # Prefixes in their order, shorter ones first; of one prefix the newest begun, then the first
    # given, as core.tariff.PrefixTable has them. ~ turns the order round without an overflow.
    live = np.flatnonzero(since < until)
    order = live[np.lexsort((~since[live], digits[live], number[live]))]
    number, digits = number[order], digits[order]
    first_of_node = np.ones(len(order), np.bool_)
    first_of_node[1:] = (number[1:] != number[:-1]) | (digits[1:] != digits[:-1])
    begins = np.flatnonzero(first_of_node)
    counts = np.diff(np.append(begins, len(order)))
    lengths = digits[begins].astype(np.int64)
    starts, covers, parents = _flatten(number[begins], lengths)
    words = VERSIONS + VERSION_WORDS * counts
    places = np.cumsum(words) - words
    nodes = np.empty(int(words.sum()), np.int64)
    # Place -1 of the last line stands for no node.
    place_of = np.append(places, -1)
    nodes[places + PARENT] = place_of[parents]
    nodes[places + SHAPE] = lengths + (counts << LENGTH_BITS)
    within = np.arange(len(order)) - np.repeat(begins, counts)
    slots = np.repeat(places, counts) + VERSIONS + VERSION_WORDS * within
    for word, values in ((SINCE, since), (UNTIL, until), (ROW, row)):
        nodes[slots + word] = values[order]
    size = min(HEAD_DIGITS, len(str(4 * len(starts))) - 1)
    unit = 10 ** (PREFIX_MAX - size)
    edges = np.arange(10**size + 1, dtype=np.int64) * unit
    heads = (np.searchsorted(starts, edges, side="right") - 1).astype(np.int32)
    longest = int(lengths.max()) if len(lengths) else 0
    intervals = np.stack((starts, place_of[covers]), axis=1)
    return _Card(heads, unit, longest, intervals, nodes, places)


@numba.njit(nogil=True, cache=True)
def _flatten(
    number: NDArray[np.int64], digits: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.int32]]:
    """Nested prefixes to intervals side by side: (starts, node of each or -1, parent of each node).

    The prefixes come in the order of (number, digits), each once. The first interval starts at 0.
    """
    count = len(number)
    starts = np.empty(2 * count + 1, np.int64)
    covers = np.empty(2 * count + 1, np.int32)
    parents = np.empty(count, np.int32)
    stack = np.empty(20, np.int32)  # the prefixes around the place reached, at most one a length
    ends = np.empty(20, np.int64)
    depth = 0
    starts[0], covers[0] = 0, -1
    last = 0
    for node in range(count + 1):
        begin = number[node] if node < count else 10**18
        while depth > 0 and ends[depth - 1] <= begin:
            depth -= 1
            if starts[last] != ends[depth]:
                last += 1
            starts[last] = ends[depth]
            covers[last] = stack[depth - 1] if depth > 0 else -1
        if node == count:
            break
        parents[node] = stack[depth - 1] if depth > 0 else -1
        if starts[last] != begin:
            last += 1
        starts[last] = begin
        covers[last] = node
        stack[depth] = node
        ends[depth] = begin + 10 ** (18 - digits[node])
        depth += 1
    return starts[: last + 1].copy(), covers[: last + 1].copy(), parents
