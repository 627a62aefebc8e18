"""Hours of the week by the clock on the wall: is a moment in them, and when does that change next.

A window is told by local time, so what the clock does decides: in the night when it goes back, the
repeated hour is in the window both times; the hour that is skipped is in none, and an edge that
would lie in it happens when the clock jumps. Answers are exact UTC moments.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta, tzinfo
from itertools import pairwise

import msgspec

from tollkeeper.errors import InvalidInput

DAY = 1440
"""Minutes of a day by the clock."""

WEEK = 7 * DAY

HORIZON_DAYS = 16
"""So many days are looked ahead: a window of one day a week may be skipped once by the clock."""


class Window(msgspec.Struct, frozen=True, gc=False):
    """Hours of some days: ``days`` 0 Monday to 6 Sunday; minutes of the local day, end exclusive (to 1440).

    Local wall-clock time decides: in the night when clocks go back the repeated hour counts twice,
    when they go forward the missing one does not exist. ``end`` <= ``begin`` runs past midnight.
    """

    days: frozenset[int]
    begin: int
    end: int


class Profile(msgspec.Struct, frozen=True, gc=False):
    """Hours of the week in a time zone."""

    code: str
    timezone: tzinfo
    windows: tuple[Window, ...]


def contains(profile: Profile, at: datetime) -> bool:
    """Tell whether the moment (UTC) lies in the hours of the profile."""
    local = at.astimezone(profile.timezone)
    day, minute = local.weekday(), local.hour * 60 + local.minute
    for window in profile.windows:
        if window.begin < window.end:
            if window.begin <= minute < window.end and day in window.days:
                return True
        elif (minute >= window.begin and day in window.days) or (
            # What began yesterday and runs past midnight.
            minute < window.end and (day - 1) % 7 in window.days
        ):
            return True
    return False


def next_edge(profile: Profile, after: datetime) -> datetime | None:
    """Return the first moment (UTC) later than ``after`` at which :func:`contains` changes.

    None where it never does (always, or never in the hours).
    """
    state = contains(profile, after)
    minutes = sorted({m % DAY for window in profile.windows for m in (window.begin, window.end)})
    today = after.astimezone(profile.timezone).replace(
        hour=0, minute=0, second=0, microsecond=0, tzinfo=None, fold=0
    )
    for ahead in range(HORIZON_DAYS):
        day = today + timedelta(days=ahead)
        for moment in _moments(day, minutes, profile.timezone):
            if moment > after and contains(profile, moment) is not state:
                return moment
    return None


def _moments(day: datetime, minutes: Sequence[int], zone: tzinfo) -> list[datetime]:
    """When the wall clock of a local day shows these minutes, and when it jumps; sorted, UTC."""
    found: set[datetime] = set()
    for minute in minutes:
        wall = day + timedelta(minutes=minute)
        for fold in (0, 1):
            moment = wall.replace(tzinfo=zone, fold=fold).astimezone(UTC)
            # In the hour that is skipped no clock shows this time.
            if moment.astimezone(zone).replace(tzinfo=None, fold=0) == wall:
                found.add(moment)
    found.update(_jumps(day, zone))
    return sorted(found)


def _jumps(day: datetime, zone: tzinfo) -> Iterator[datetime]:
    """Give the moment at which the clock is changed during a local day, if it is."""
    # Where it is midnight that is skipped, the day before and this one would both miss the jump.
    low = day.replace(tzinfo=zone).astimezone(UTC) - timedelta(hours=3)
    high = (day + timedelta(days=1)).replace(tzinfo=zone, fold=1).astimezone(UTC)
    before = low.astimezone(zone).utcoffset()
    if before == high.astimezone(zone).utcoffset():
        return
    while high - low > timedelta(seconds=1):
        middle = low + timedelta(seconds=(high - low) // timedelta(seconds=2))
        if middle.astimezone(zone).utcoffset() == before:
            low = middle
        else:
            high = middle
    yield high


def spans(windows: Sequence[Window]) -> list[tuple[int, int, int]]:
    """Give each stretch of a week as minutes from Monday 0:00: begin, end (exclusive), window; sorted.

    What runs past Sunday's midnight is given as two stretches.
    """
    found: list[tuple[int, int, int]] = []
    for number, window in enumerate(windows):
        length = window.end - window.begin if window.begin < window.end else (
            DAY - window.begin + window.end
        )  # fmt: skip
        for day in window.days:
            begin = day * DAY + window.begin
            end = begin + length
            found.append((begin, min(end, WEEK), number))
            if end > WEEK:
                found.append((0, end - WEEK, number))
    return sorted(span for span in found if span[0] < span[1])


def check_windows(windows: Sequence[Window], field: str = "windows") -> None:
    """Check the hours of a profile.

    Raises:
        InvalidInput: no window, a window without days, days or minutes out of bounds, or two
            windows that overlap.
    """
    if not windows:
        raise _wrong(field, "give at least one window of days and hours")
    for number, window in enumerate(windows):
        place = f"{field}[{number}]"
        if not window.days:
            raise _wrong(f"{place}.days", "give at least one day, 0 (Monday) to 6 (Sunday)")
        if any(not 0 <= day <= 6 for day in window.days):
            raise _wrong(f"{place}.days", "days are 0 (Monday) to 6 (Sunday)")
        if not 0 <= window.begin < DAY:
            raise _wrong(f"{place}.begin", f"{window.begin} is not a minute of the day: 0 to 1439")
        if not 0 <= window.end <= DAY:
            raise _wrong(f"{place}.end", f"{window.end} is not a minute of the day: 0 to 1440")
    ordered = spans(windows)
    for (_, end, one), (begin, _, other) in pairwise(ordered):
        if begin < end:
            first, second = sorted((one, other))
            day, minute = divmod(begin, DAY)
            raise _wrong(
                f"{field}[{second}]",
                f"overlaps window {first}: both hold day {day}, {minute // 60:02}:{minute % 60:02}",
            )


def _wrong(field: str, why: str) -> InvalidInput:
    return InvalidInput(f"{field}: {why}", code="invalid_profile", field=field)
