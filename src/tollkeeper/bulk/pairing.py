"""Which records of two parties are the same call: one to one, the closest in time first.

Two parties write down the same call with clocks that differ by some seconds. Within a group (the
same numbers) the two records that lie closest together are paired, then the next closest of what
is left. On a line the closest two of different sides always stand next to each other, so a heap
over neighbours finds them all: n log n, also where a test number is called ten times a second.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl
from numba import njit

Int64s = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]


SECOND = 1_000_000
DAY = 86_400 * SECOND
CALL_ID_WINDOW = DAY
"""A call id may come again another day: further apart than this it is another call. Wide enough for
any error in a time zone."""
OFFSET_WINDOW = 26 * 3600 * SECOND
"""Clocks are at most this far apart, the widest difference of two time zones."""
OFFSET_PAIRS_MIN = 3
"""Fewer pairs say nothing about a clock."""


@dataclass(frozen=True, slots=True)
class Clock:
    """Their clock minus ours: the median of ``pairs`` sure pairs, ``agreeing`` of which are near it.

    ``applied`` tells whether times were moved by it. ``offset_us`` is None where too few pairs are
    sure, or where less than half of them agree.
    """

    offset_us: int | None
    pairs: int
    agreeing: int
    applied: bool = False


class Pairing:
    """Which of their rows belongs to which of ours; ``partner`` is int64[theirs], -1 for none."""

    def __init__(self, theirs: pl.DataFrame, ours: pl.DataFrame) -> None:
        self.theirs = theirs.with_row_index("row")
        self.ours = ours.with_row_index("row")
        self.partner = np.full(len(theirs), -1, dtype=np.int64)
        self.taken = np.zeros(len(ours), dtype=np.bool_)

    def by_call_id(self, shift: int) -> None:
        """Pair by call id and leg, then by call id alone where one side does not know legs."""
        has_id, no_leg = pl.col("call_id") != "", pl.col("leg") == ""
        self._stage(["call_id", "leg"], shift, CALL_ID_WINDOW, has_id, has_id)
        self._stage(["call_id"], shift, CALL_ID_WINDOW, has_id & no_leg, has_id)
        self._stage(["call_id"], shift, CALL_ID_WINDOW, has_id, has_id & no_leg)

    def by_numbers(self, shift: int, limit: int) -> None:
        """Pair by the number called and the caller; without a caller where one side has none."""
        called, caller = pl.col("called") != "", pl.col("caller") != ""
        seconds = (pl.col("duration_ms") // 1000).alias("seconds")
        both, alone = ["called", "caller"], ["called"]
        close = min(limit, SECOND)
        stages: list[tuple[list[str], pl.Expr, pl.Expr]] = [
            (both, called & caller, called & caller),
            (alone, called & ~caller, called),
            (alone, called, called & ~caller),
        ]
        for keys, of_theirs, of_ours in stages:
            self._stage([*keys, "seconds"], shift, close, of_theirs, of_ours, seconds)
            self._stage(keys, shift, limit, of_theirs, of_ours)

    def _stage(
        self,
        keys: Sequence[str],
        shift: int,
        limit: int,
        of_theirs: pl.Expr,
        of_ours: pl.Expr,
        *more: pl.Expr,
    ) -> None:
        """Pair what is still alone and equal in ``keys``, the closest first."""
        columns = [*keys, "at", "row"]
        at = pl.col("start")
        left = self.theirs.filter(pl.Series(self.partner < 0) & of_theirs)
        right = self.ours.filter(pl.Series(~self.taken) & of_ours)
        if left.is_empty() or right.is_empty():
            return
        left = left.with_columns((at - shift).alias("at"), *more).select(columns)
        right = right.with_columns(at.alias("at"), *more).select(columns)
        left = left.join(right, on=keys, how="semi")
        right = right.join(left, on=keys, how="semi")
        if left.is_empty():
            return
        both = pl.concat(
            [
                left.with_columns(ours=pl.lit(value=False)),
                right.with_columns(ours=pl.lit(value=True)),
            ]
        ).sort([*keys, "at", "ours", "row"])
        changes = pl.any_horizontal([pl.col(key) != pl.col(key).shift(1) for key in keys])
        group = both.select(changes.fill_null(value=False).cum_sum().cast(pl.Int64)).to_series()
        is_ours = both["ours"].to_numpy()
        found = nearest(group.to_numpy(), is_ours, both["at"].to_numpy(), limit)
        places = np.flatnonzero(~is_ours & (found >= 0))
        rows = both["row"].to_numpy()
        self.partner[rows[places]] = rows[found[places]]
        self.taken[rows[found[places]]] = True

    def differences(self) -> Int64s:
        """Their start minus ours of all pairs."""
        paired = self.partner >= 0
        here = self.ours["start"].to_numpy()[self.partner[paired]]
        found: Int64s = self.theirs["start"].to_numpy()[paired] - here
        return found


def find_clock(pairing: Pairing, near_us: int) -> Clock:
    """Find the constant offset of their clock: by call ids, or else by numbers that occur once."""
    found = pairing.differences()
    if len(found) < OFFSET_PAIRS_MIN:
        found = _differences_of_unique(pairing.theirs, pairing.ours)
    if len(found) < OFFSET_PAIRS_MIN:
        return Clock(None, len(found), 0)
    median = int(np.sort(found)[len(found) // 2])
    agreeing = int((np.abs(found - median) <= near_us).sum())
    constant = 2 * agreeing >= len(found)
    return Clock(median if constant else None, len(found), agreeing)


def _differences_of_unique(theirs: pl.DataFrame, ours: pl.DataFrame) -> Int64s:
    """Differences of the starts where two numbers were in contact once on either side."""
    keys = ["called", "caller"]
    known = (pl.col("called") != "") & (pl.col("caller") != "")
    once = [
        side.filter(known)
        .group_by(keys)
        .agg(pl.len().alias("count"), pl.col("start").first())
        .filter(pl.col("count") == 1)
        for side in (theirs, ours)
    ]
    both = once[0].join(once[1], on=keys, suffix="_ours")
    found: Int64s = (both["start"] - both["start_ours"]).to_numpy()
    return found[np.abs(found) <= OFFSET_WINDOW]


# --- the kernel ----------------------------------------------------------------------------------


def nearest(group: Int64s, ours: Flags, at: Int64s, limit: int) -> Int64s:
    """Pair points of the two sides; return for each the index of its partner, -1 without one.

    ``group`` (int64[n]), ``ours`` (bool[n]: which side) and ``at`` (int64[n], microseconds) are
    sorted by group, time and side. Points further apart than ``limit`` are not paired. Ties go to
    the earlier place; of points of one side at the same time the first ones get partners, so that
    a repeated record is never preferred to the record that it repeats.
    """
    partner = np.full(len(group), -1, dtype=np.int64)
    if len(group):
        _pair(group, ours, at, limit, partner)
        _straighten(group, ours, at, partner)
    return partner


@njit(cache=True, nogil=True)
def _pair(group: Int64s, ours: Flags, at: Int64s, limit: int, partner: Int64s) -> None:
    """Fill ``partner``, group by group."""
    size = len(group)
    before = np.arange(-1, size - 1)
    after = np.arange(1, size + 1)
    begin = 0
    while begin < size:
        end = begin + 1
        while end < size and group[end] == group[begin]:
            end += 1
        heap = [(np.int64(0), np.int64(0), np.int64(0)) for _ in range(0)]
        for left in range(begin, end - 1):
            if ours[left] != ours[left + 1] and at[left + 1] - at[left] <= limit:
                heapq.heappush(heap, (at[left + 1] - at[left], np.int64(left), np.int64(left + 1)))
        while heap:
            _, left, right = heapq.heappop(heap)  # type: ignore[assignment]  # int64 all
            if partner[left] != -1 or partner[right] != -1:
                continue
            partner[left] = right
            partner[right] = left
            outer_left, outer_right = before[left], after[right]
            if outer_left >= begin:
                after[outer_left] = outer_right
            if outer_right < end:
                before[outer_right] = outer_left
            if outer_left >= begin and outer_right < end and ours[outer_left] != ours[outer_right]:
                distance = at[outer_right] - at[outer_left]
                if distance <= limit:
                    heapq.heappush(heap, (distance, outer_left, outer_right))
        begin = end


@njit(cache=True, nogil=True)
def _straighten(group: Int64s, ours: Flags, at: Int64s, partner: Int64s) -> None:
    """Give the partners of points that are at the same time to the first of them, in order."""
    size = len(group)
    for side in (False, True):
        begin = 0
        while begin < size:
            end = begin + 1
            while (
                end < size
                and group[end] == group[begin]
                and at[end] == at[begin]
                and ours[end] == ours[begin]
            ):
                end += 1
            if ours[begin] == side and end - begin > 1:
                found = np.sort(partner[begin:end])
                place = begin
                for other in found:
                    if other != -1:
                        partner[place] = other
                        partner[other] = place
                        place += 1
                while place < end:
                    partner[place] = -1
                    place += 1
            begin = end
