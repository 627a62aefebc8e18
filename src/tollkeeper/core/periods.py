"""Periods of counting: the local day, week or month of a party, and terms that begin on any day.

A moment's period is told by the party's own clock and bounded in UTC, so that a day is 23 or 25 hours
long where the clock is changed. Periods of one kind lie edge to edge.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta, tzinfo

from tollkeeper.errors import InvalidInput

PERIODS = ("day", "week", "month")


def period_of(period: str, at: datetime, zone: tzinfo) -> tuple[datetime, datetime]:
    """Return beginning (inclusive) and end (exclusive), both UTC, of the local period that holds ``at``.

    Weeks begin on Monday (ISO 8601). Where midnight is skipped by the clock, the period begins when
    the clock jumps.

    Raises:
        InvalidInput: another period than day, week or month.
    """
    day = at.astimezone(zone).replace(hour=0, minute=0, second=0, microsecond=0, tzinfo=None)
    if period == "day":
        first, last = day, day + timedelta(days=1)
    elif period == "week":
        first = day - timedelta(days=day.weekday())
        last = first + timedelta(days=7)
    elif period == "month":
        first = day.replace(day=1)
        last = _months_on(first, 1)
    else:
        raise InvalidInput(f'"{period}" is not a period: give day, week or month', field="period")
    return _utc(first, zone), _utc(last, zone)


def term_of(period: str, day: date) -> tuple[date, date]:
    """Return the first day of the day, week or month that holds a local ``day``, and the day after its last.

    Raises:
        InvalidInput: another period than day, week or month.
    """
    first, last = period_of(period, datetime.combine(day, time(12), UTC), UTC)
    return first.date(), last.date()


def beginning(day: date, zone: tzinfo) -> datetime:
    """Return when a local day begins, in UTC."""
    return _utc(datetime.combine(day, time()), zone)


def term_after(period: str, anchor: datetime, number: int, zone: tzinfo) -> datetime:
    """Return when the ``number``-th term begins that is counted from ``anchor`` (UTC): term 0 there.

    Terms keep the anchor's local time of day; a month's term that began on the 31st ends on the last
    day of shorter months and on the 31st again after them.

    Raises:
        InvalidInput: another period than day, week or month.
    """
    if number == 0:
        return anchor
    local = anchor.astimezone(zone).replace(tzinfo=None)
    if period == "month":
        return _utc(_months_on(local, number), zone)
    if period in ("day", "week"):
        return _utc(local + timedelta(days=number * (7 if period == "week" else 1)), zone)
    raise InvalidInput(f'"{period}" is not a period: give day, week or month', field="period")


def _months_on(local: datetime, months: int) -> datetime:
    year, month = divmod(local.year * 12 + local.month - 1 + months, 12)
    for day in range(local.day, local.day - 4, -1):
        try:
            return local.replace(year=year, month=month + 1, day=day)
        except ValueError:
            continue
    raise AssertionError("every month has 28 days")


def _utc(local: datetime, zone: tzinfo) -> datetime:
    # In a gap the time before the change counts (fold 0): it names the very moment of the jump on.
    return local.replace(tzinfo=zone).astimezone(UTC)
