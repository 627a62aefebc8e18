"""A kernel that reads times of a written layout, in a zone with its summer times, for many rows.

As in ``bulk.cells``, a time that the kernel is not sure of (an hour that the clocks skip, a date
that is none, another layout) is left to the code that reads row by row.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import njit

from tollkeeper.bulk.cells import Bytes, Flags, Longs, Places, digits

(
    LITERAL,
    BLANKS,
    YEAR,
    SHORT_YEAR,
    MONTH,
    DAY,
    BLANK_DAY,
    MONTH_NAME,
    DAY_NAME,
    HOUR,
    HALF_HOUR,
    MINUTE,
    SECOND,
    HALF,
    FRACTION,
    ZONE,
    MAYBE,
    ISO_DATE_END,
    ISO_CLOCK_END,
) = range(19)
"""Steps of a layout. Each has an argument: the byte of LITERAL and MAYBE (which may be missing),
the fewest digits of the numbers of at most two."""

Program = npt.NDArray[np.int64]
"""Rows of (step, argument)."""

GAP = 1 << 40
"""In the place of an offset: no clock of the zone has shown these times."""
_FIELDS = 10
_MICROSECONDS = 1_000_000
_LAST = 253_402_300_800 * _MICROSECONDS


@njit(cache=True, nogil=True, inline="always")
def _letters(data: Bytes, at: int, stop: int, most: int) -> int:
    end = min(stop, at + most)
    while at < end and (65 <= data[at] <= 90 or 97 <= data[at] <= 122):
        at += 1
    return at


@njit(cache=True, nogil=True, inline="always")
def _month(data: Bytes, at: int) -> int:
    """Return the month of three letters in any case; 0 if it is none."""
    key = ((data[at] | 32) << 16) | ((data[at + 1] | 32) << 8) | (data[at + 2] | 32)
    names = "janfebmaraprmayjunjulaugsepoctnovdec"
    for i in range(12):
        name = (ord(names[3 * i]) << 16) | (ord(names[3 * i + 1]) << 8) | ord(names[3 * i + 2])
        if key == name:
            return i + 1
    return 0


@njit(cache=True, nogil=True)
def _zone(data: Bytes, at: int, stop: int) -> tuple[int, int]:
    """Read Z, UTC, GMT or an offset; returns its seconds and its end, which is -1 if it is none."""
    if at >= stop:
        return 0, -1
    byte = data[at]
    if byte in (90, 122):
        return 0, at + 1
    if at + 3 <= stop and (
        (byte == 85 and data[at + 1] == 84 and data[at + 2] == 67)
        or (byte == 71 and data[at + 1] == 77 and data[at + 2] == 84)
    ):
        return 0, at + 3
    if byte not in (43, 45):
        return 0, -1
    hours, end = digits(data, at + 1, stop, 2)
    if end != at + 3 or hours > 23:
        return 0, -1
    begin = end + 1 if end < stop and data[end] == 58 else end
    minutes, end = digits(data, begin, stop, 2)
    if end != begin + 2 or minutes > 59:
        return 0, -1
    seconds = 0
    begin = end + 1 if end < stop and data[end] == 58 else end
    if begin < stop and 48 <= data[begin] <= 57:
        seconds, end = digits(data, begin, stop, 2)
        if end != begin + 2 or seconds > 59:
            return 0, -1
    elif begin != end:
        return 0, -1
    east = hours * 3600 + minutes * 60 + seconds
    return (-east if byte == 45 else east), end


@njit(cache=True, nogil=True, inline="always")
def _day(year: int, month: int, day: int) -> int:
    """Return the days since 1970 of a Gregorian date (Hinnant, days_from_civil)."""
    year -= 1 if month <= 2 else 0
    era = year // 400
    of_era = year - era * 400
    of_year = (153 * (month - 3 if month > 2 else month + 9) + 2) // 5 + day - 1
    return era * 146_097 + of_era * 365 + of_era // 4 - of_era // 100 + of_year - 719_468


@njit(cache=True, nogil=True, inline="always")
def _month_days(year: int, month: int) -> int:
    if month == 2:
        return 29 if year % 4 == 0 and (year % 100 != 0 or year % 400 == 0) else 28
    return 30 if month in (4, 6, 9, 11) else 31


@njit(cache=True, nogil=True, inline="always")
def _micros(data: Bytes, at: int, stop: int) -> tuple[int, int]:
    """Read 1 to 9 decimals as microseconds; the end is ``at`` if there are none."""
    value, end = digits(data, at, stop, 9)
    size = end - at
    while size < 6:
        value *= 10
        size += 1
    while size > 6:
        value //= 10
        size -= 1
    return value, end


@njit(cache=True, nogil=True)
def _iso_clock_end(data: Bytes, at: int, stop: int, fields: Longs) -> int:
    """Read what may follow hours and minutes in ISO 8601: seconds, decimals, a zone."""
    begin = at + 1 if at < stop and data[at] == 58 else at
    value, end = digits(data, begin, stop, 2)
    if end == begin + 2:
        fields[5] = value
        at = end
        if at + 1 < stop and (data[at] == 46 or data[at] == 44):
            value, end = _micros(data, at + 1, stop)
            if end == at + 1:
                return -1
            fields[6] = value
            at = end
    elif end != at:
        return -1
    if at < stop and data[at] == 32:
        at += 1
    if at == stop:
        return at
    fields[7], at = _zone(data, at, stop)
    fields[8] = 1
    return at


@njit(cache=True, nogil=True)
def _number(data: Bytes, at: int, stop: int, step: int, least: int, fields: Longs) -> int:
    """Read a number of one or two digits, or the four of a year, into its field."""
    if step == YEAR:
        fields[0], end = digits(data, at, stop, 4)
        return end if end == at + 4 else -1
    if step == BLANK_DAY:
        if at < stop and data[at] == 32:
            at += 1
        step = DAY
    value, end = digits(data, at, stop, 2)
    if end - at < least:
        return -1
    if step == SHORT_YEAR:
        if end != at + 2:
            return -1
        fields[0] = value + (1900 if value >= 69 else 2000)
    elif step == MONTH:
        fields[1] = value
    elif step == DAY:
        fields[2] = value
    elif step in (HOUR, HALF_HOUR):
        fields[3] = value
        if step == HALF_HOUR and not 1 <= value <= 12:
            return -1
    elif step == MINUTE:
        fields[4] = value
    else:
        fields[5] = value
    return end


@njit(cache=True, nogil=True)
def _word(data: Bytes, at: int, stop: int, step: int, fields: Longs) -> int:
    """Read a name of a month or a day, AM or PM, decimals, a zone, or a run of blanks."""
    if step == MONTH_NAME:
        end = _letters(data, at, stop, 9)
        if end - at < 3:
            return -1
        fields[1] = _month(data, at)
        return end
    if step == DAY_NAME:
        end = _letters(data, at, stop, 9)
        return end if end - at >= 2 else -1
    if step == HALF:
        if at + 2 > stop or data[at + 1] | 32 != 109:
            return -1
        half = data[at] | 32
        fields[9] = 2 if half == 112 else 1
        return at + 2 if half in (97, 112) else -1
    if step == FRACTION:
        fields[6], end = _micros(data, at, stop)
        return end if end > at else -1
    if step == ZONE:
        fields[7], end = _zone(data, at, stop)
        fields[8] = 1
        return end
    begin = at
    while at < stop and data[at] == 32:
        at += 1
    return at if at > begin else -1


@njit(cache=True, nogil=True)
def _follow(data: Bytes, at: int, stop: int, program: Program, fields: Longs) -> bool:
    """Read one time by its layout into ``fields``; False where it is not written so.

    Fields: year, month, day, hour, minute, second, microsecond, offset, has an offset, half.
    """
    fields[:] = 0
    for i in range(program.shape[0]):
        step, argument = program[i, 0], program[i, 1]
        if step == LITERAL:
            at = at + 1 if at < stop and data[at] == argument else -1
        elif step == MAYBE:
            at = at + 1 if at < stop and data[at] == argument else at
        elif step == ISO_DATE_END:
            at = at + 1 if at < stop and (data[at] == 84 or data[at] == 32) else -1
        elif step == ISO_CLOCK_END:
            at = _iso_clock_end(data, at, stop, fields)
        elif step in (MONTH_NAME, DAY_NAME, HALF, FRACTION, ZONE, BLANKS):
            at = _word(data, at, stop, step, fields)
        else:
            at = _number(data, at, stop, step, argument, fields)
        if at < 0:
            return False
    if fields[9] > 0:
        fields[3] = fields[3] % 12 + (12 if fields[9] == 2 else 0)
    return (
        at == stop
        and 1900 <= fields[0] <= 2200
        and 1 <= fields[1] <= 12
        and 1 <= fields[2] <= _month_days(fields[0], fields[1])
        and fields[3] < 24
        and fields[4] < 60
        and fields[5] < 60
    )


@njit(cache=True, nogil=True, inline="always")
def _nothing(data: Bytes, first: int, last: int) -> bool:
    """Say whether a cell says that there is no time: it is empty, "0", "-", or MySQL's zero."""
    size = last - first
    if size == 0 or (size == 1 and (data[first] == 48 or data[first] == 45)):
        return True
    if size != 19 or data[first] != 48:
        return False
    for i in range(19):
        mark = 45 if i in (4, 7) else 58 if i in (13, 16) else 32 if i == 10 else 48
        if data[first + i] != mark:
            return False
    return True


@njit(cache=True, nogil=True)
def times(
    data: Bytes,
    first: Places,
    last: Places,
    program: Program,
    since: Longs,
    east: Longs,
    sure: Flags,
    null: Flags,
) -> Longs:
    """Read times as microseconds since 1970 in UTC.

    ``since`` (ascending) are wall clock seconds since 1970 and ``east`` the offset from UTC in
    seconds from there on, or ``GAP``. Cells that say there is no time set ``null``.
    """
    out = np.zeros(first.size, dtype=np.int64)
    fields = np.zeros(_FIELDS, dtype=np.int64)
    span = 0
    for row in range(first.size):
        if _nothing(data, first[row], last[row]):
            null[row] = True
            continue
        if not _follow(data, first[row], last[row], program, fields):
            sure[row] = False
            continue
        day = _day(fields[0], fields[1], fields[2])
        second = day * 86_400 + fields[3] * 3_600 + fields[4] * 60 + fields[5]
        offset = fields[7]
        if fields[8] == 0:
            # Rows near each other are of the same season.
            if not (since[span] <= second and (span + 1 == since.size or second < since[span + 1])):
                span = max(0, np.searchsorted(since, second, side="right") - 1)
            offset = GAP if second < since[span] else east[span]
        if offset == GAP:
            sure[row] = False
        else:
            out[row] = (second - offset) * _MICROSECONDS + fields[6]
    return out


@njit(cache=True, nogil=True)
def epochs(
    data: Bytes,
    first: Places,
    last: Places,
    unit: int,
    sure: Flags,
    null: Flags,
) -> Longs:
    """Read counts of units of ``unit`` microseconds since 1970, with up to twelve decimals."""
    out = np.zeros(first.size, dtype=np.int64)
    for row in range(first.size):
        start, stop = first[row], last[row]
        if _nothing(data, start, stop):
            null[row] = True
            continue
        whole, at = digits(data, start, stop, 18)
        good = at > start and whole < _LAST // unit
        us = whole * unit if good else 0
        if at < stop and data[at] == 46:
            start = at + 1
            part, at = digits(data, start, stop, 12)
            size = at - start
            good = good and size > 0
            while size < 12:
                part *= 10
                size += 1
            us += part * unit // 1_000_000_000_000
        if good and at == stop:
            out[row] = us
        else:
            sure[row] = False
    return out
