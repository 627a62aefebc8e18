"""What ``times`` reads row by row, put as ``bulk.clock`` needs it: layouts as steps, zones as spans."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, tzinfo
from functools import lru_cache

import numpy as np

from tollkeeper.bulk import clock
from tollkeeper.bulk.cells import Longs
from tollkeeper.wire.cdr.times import EPOCHS, zone_of

_SHORT = {"F": "%Y-%m-%d", "T": "%H:%M:%S", "R": "%H:%M", "D": "%m/%d/%y"}
_STEPS = {
    "Y": (clock.YEAR, 4),
    "y": (clock.SHORT_YEAR, 2),
    "m": (clock.MONTH, 1),
    "d": (clock.DAY, 1),
    "e": (clock.BLANK_DAY, 1),
    "b": (clock.MONTH_NAME, 0),
    "B": (clock.MONTH_NAME, 0),
    "a": (clock.DAY_NAME, 0),
    "A": (clock.DAY_NAME, 0),
    "H": (clock.HOUR, 1),
    "I": (clock.HALF_HOUR, 1),
    "M": (clock.MINUTE, 1),
    "S": (clock.SECOND, 1),
    "p": (clock.HALF, 0),
    "f": (clock.FRACTION, 0),
    "z": (clock.ZONE, 0),
    "Z": (clock.ZONE, 0),
    "%": (clock.LITERAL, ord("%")),
}
_ISO = (
    (clock.YEAR, 4),
    (clock.MAYBE, ord("-")),
    (clock.MONTH, 2),
    (clock.MAYBE, ord("-")),
    (clock.DAY, 2),
    (clock.ISO_DATE_END, 0),
    (clock.HOUR, 2),
    (clock.MAYBE, ord(":")),
    (clock.MINUTE, 2),
    (clock.ISO_CLOCK_END, 0),
)
_SINCE, _UNTIL = datetime(1980, 1, 1, tzinfo=UTC), datetime(2060, 1, 1, tzinfo=UTC)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@lru_cache(maxsize=64)
def program(layout: str) -> Longs | None:
    """Return the steps of a layout that ``times.time_reader`` takes; None for a count from 1970.

    Steps are greedy and never go back: what such a reading finds, the regular expression of
    ``times`` finds too, for it tries the same way first.
    """
    if layout in EPOCHS:
        return None
    if layout == "iso":
        return np.array(_ISO, dtype=np.int64)
    for short, long in _SHORT.items():
        layout = layout.replace("%" + short, long)
    steps: list[tuple[int, int]] = []
    at = 0
    while at < len(layout):
        if layout[at] == "%":
            steps.append(_STEPS[layout[at + 1]])
            at += 2
            continue
        if layout[at] == " ":
            steps.append((clock.BLANKS, 0))
        else:
            steps += [(clock.LITERAL, byte) for byte in layout[at].encode()]
        at += 1
    return np.array(steps, dtype=np.int64).reshape(-1, 2)


@lru_cache(maxsize=64)
def spans(zone: str) -> tuple[Longs, Longs]:
    """Return a zone's wall clock as ``bulk.clock.times`` wants it, from 1980 to 2060.

    An hour that comes twice is of the offset before; one that is skipped is a gap.
    """
    where = zone_of(zone)
    if where is UTC:
        return np.array([-(1 << 60)], dtype=np.int64), np.array([0], dtype=np.int64)
    before = _east(_SINCE, where)
    since, east = [_seconds(_SINCE) + before], [before]
    at = _SINCE
    while at < _UNTIL:
        later = at + timedelta(days=1)
        after = _east(later, where)
        if after != before:
            change = _change(at, later, where)
            # Where clocks go forward there is a gap between both readings of the moment.
            if after > before:
                since.append(change + before)
                east.append(clock.GAP)
            since.append(change + max(before, after))
            east.append(after)
            before = after
        at = later
    since.append(_seconds(_UNTIL) + before)
    east.append(clock.GAP)
    return np.array(since, dtype=np.int64), np.array(east, dtype=np.int64)


def _change(early: datetime, late: datetime, where: tzinfo) -> int:
    """Find the first second, since 1970, of the offset that holds at ``late``."""
    low, high = _seconds(early), _seconds(late)
    after = _east(late, where)
    while high - low > 1:
        middle = (low + high) // 2
        if _east(_EPOCH + timedelta(seconds=middle), where) == after:
            high = middle
        else:
            low = middle
    return high


def _seconds(moment: datetime) -> int:
    return (moment - _EPOCH) // timedelta(seconds=1)


def _east(moment: datetime, where: tzinfo) -> int:
    offset = moment.astimezone(where).utcoffset()
    assert offset is not None
    return offset // timedelta(seconds=1)
