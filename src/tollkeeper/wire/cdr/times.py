"""Times of records: many layouts, with a zone or without, to microseconds since 1970 in UTC."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta, timezone, tzinfo
from functools import lru_cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from tollkeeper.core.usage import MICROSECONDS
from tollkeeper.errors import InvalidInput
from tollkeeper.wire.cdr.problem import FieldProblem

TimeReader = Callable[[str, str], int]
"""(text, field) -> microseconds; raises FieldProblem."""

EPOCHS = {"epoch": MICROSECONDS, "epoch_ms": 1_000, "epoch_us": 1}
"""Layouts that count from 1970, and microseconds of one unit."""
_LAST_US = 253_402_300_800 * MICROSECONDS
_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001  # a time on the wall, of whatever zone
_EPOCH_DAY = _EPOCH.toordinal()
_EPOCH_TEXT = re.compile(r"([0-9]{1,20})(?:\.([0-9]{1,12}))?")
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_ZONE = r"(?P<z>[Zz]|UTC|GMT|[+-][0-9]{2}:?[0-9]{2}(?::?[0-9]{2})?)"
_DIRECTIVES = {
    "Y": r"(?P<Y>[0-9]{4})",
    "y": r"(?P<y>[0-9]{2})",
    "m": r"(?P<m>[0-9]{1,2})",
    "d": r"(?P<d>[0-9]{1,2})",
    "e": r" ?(?P<d>[0-9]{1,2})",
    "b": r"(?P<b>[A-Za-z]{3,9})",
    "B": r"(?P<b>[A-Za-z]{3,9})",
    "a": r"[A-Za-z]{2,9}",
    "A": r"[A-Za-z]{2,9}",
    "H": r"(?P<H>[0-9]{1,2})",
    "I": r"(?P<I>[0-9]{1,2})",
    "M": r"(?P<M>[0-9]{1,2})",
    "S": r"(?P<S>[0-9]{1,2})",
    "p": r"(?P<p>[AaPp][Mm])",
    "f": r"(?P<f>[0-9]{1,9})",
    "z": _ZONE,
    "Z": _ZONE,
    "%": "%",
}
_SHORT = {"F": "%Y-%m-%d", "T": "%H:%M:%S", "R": "%H:%M", "D": "%m/%d/%y"}
_ISO = re.compile(
    r"(?P<Y>[0-9]{4})-?(?P<m>[0-9]{2})-?(?P<d>[0-9]{2})[T ](?P<H>[0-9]{2}):?(?P<M>[0-9]{2})"
    r"(?::?(?P<S>[0-9]{2})(?:[.,](?P<f>[0-9]{1,9}))?)? ?" + _ZONE + "?"
)
_PLAIN = "%Y-%m-%d %H:%M:%S"
_MANGLED = re.compile(r"#+|[0-9]{5}(\.[0-9]+)?|[0-9]([.,][0-9]+)?[eE]\+[0-9]+")


@lru_cache(maxsize=64)
def zone_of(name: str) -> tzinfo:
    """Return the zone of an IANA name.

    Raises:
        InvalidInput: there is none of that name.
    """
    if name in {"UTC", "Etc/UTC", "GMT"}:
        return UTC
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise InvalidInput(
            f'timezone: "{name[:40]}" is not a time zone; write an IANA name such as "Europe/Rome".',
            field="timezone",
        ) from None


@lru_cache(maxsize=256)
def time_reader(layout: str, zone: str = "UTC") -> TimeReader:
    """Return a reader of times written as ``layout``.

    ``layout`` is "epoch", "epoch_ms", "epoch_us", "iso", or strptime directives
    (%Y %y %m %d %e %b %B %a %A %H %I %M %S %p %f %z %Z %F %T %R %D %%). ``zone`` holds where the
    text names none. An hour that the clock goes through twice is its first; one that it skips is
    refused, for no clock of that zone has shown it. %f has up to nine digits, of which six count.

    Raises:
        InvalidInput: a layout or a zone that is none.
    """
    where = zone_of(zone)
    unit = EPOCHS.get(layout)
    if unit is not None:
        return lambda text, field: _epoch(text.strip(), field, unit, layout)
    pattern = _ISO if layout == "iso" else _compile(layout)
    shown = "2026-01-31T12:00:00Z" if layout == "iso" else layout
    plain = layout == _PLAIN

    def read(text: str, field: str) -> int:
        text = text.strip()
        if plain and len(text) == 19 and text[4] == "-" and text[13] == ":" and text.isascii():
            # The usual case of most switches, read four times faster than by the pattern.
            try:
                return _plain(text, where)
            except ValueError:
                pass
        match = pattern.fullmatch(text)
        if match is None:
            raise FieldProblem(field, text, _mismatch(text, shown))
        return _combine(match.groupdict(), where, text, field)

    return read


def _plain(text: str, where: tzinfo) -> int:
    digits = text[0:4] + text[5:7] + text[8:10] + text[11:13] + text[14:16] + text[17:19]
    if not digits.isdigit() or text[7] != "-" or text[16] != ":" or text[10] != " ":
        raise ValueError(text)
    hour, minute, second = int(text[11:13]), int(text[14:16]), int(text[17:19])
    if hour > 23 or minute > 59 or second > 59:
        raise ValueError(text)
    day = date(int(text[0:4]), int(text[5:7]), int(text[8:10])).toordinal() - _EPOCH_DAY
    minutes = day * 1_440 + hour * 60 + minute
    offset = _offset(minutes, where)
    if offset is None:
        raise ValueError(text)
    return (minutes * 60 + second - offset) * MICROSECONDS


def _epoch(text: str, field: str, unit: int, layout: str) -> int:
    match = _EPOCH_TEXT.fullmatch(text)
    if match is None:
        raise FieldProblem(field, text, _mismatch(text, layout))
    whole = int(match[1]) * unit
    part = match[2]
    us = whole + (int(part[:12].ljust(12, "0")) * unit // 10**12 if part else 0)
    if us >= _LAST_US:
        raise FieldProblem(
            field,
            text,
            "The time lies after the year 9999; it may count milliseconds or microseconds: "
            'use "epoch_ms" or "epoch_us".',
        )
    return us


def _compile(layout: str) -> re.Pattern[str]:
    for short, long in _SHORT.items():
        layout = layout.replace("%" + short, long)
    parts: list[str] = []
    at = 0
    while at < len(layout):
        if layout[at] == "%":
            directive = layout[at + 1 : at + 2]
            if directive not in _DIRECTIVES:
                raise _bad_layout(layout, f'"%{directive}" is not known')
            parts.append(_DIRECTIVES[directive])
            at += 2
        else:
            parts.append(" +" if layout[at] == " " else re.escape(layout[at]))
            at += 1
    try:
        pattern = re.compile("".join(parts))
    except re.error:
        raise _bad_layout(layout, "a directive stands in it twice") from None
    have = set(pattern.groupindex)
    if not (have & {"Y", "y"} and have & {"m", "b"} and "d" in have):
        raise _bad_layout(layout, "a time needs a year, a month and a day")
    if ("I" in have) != ("p" in have) or {"H", "I"} <= have:
        raise _bad_layout(layout, "%I goes with %p, and %H without both")
    return pattern


def _bad_layout(layout: str, why: str) -> InvalidInput:
    return InvalidInput(
        f'time: "{layout[:60]}" is not a layout of times: {why}; write one such as '
        '"%Y-%m-%d %H:%M:%S", "iso" or "epoch".',
        field="time",
    )


def _mismatch(text: str, shown: str) -> str:
    if not text:
        return "The time is missing."
    if _MANGLED.fullmatch(text):
        return (
            f'"{text[:40]}" is what Excel makes of a time; export the file again without opening '
            "it in Excel."
        )
    return f'"{text[:40]}" is not a time written as {shown}; check the layout of the mapping.'


def _combine(parts: dict[str, str | None], where: tzinfo, text: str, field: str) -> int:
    """Turn matched parts into microseconds, or say which time this cannot be."""
    try:
        year = int(parts.get("Y") or 0) or _century(int(parts.get("y") or 0))
        month = parts.get("m")
        number = int(month) if month else _MONTHS.index((parts.get("b") or "")[:3].lower()) + 1
        hour = _hour(parts)
        fraction = (parts.get("f") or "").ljust(6, "0")[:6]
        moment = datetime(
            year,
            number,
            int(parts.get("d") or 0),
            hour,
            int(parts.get("M") or 0),
            int(parts.get("S") or 0),
            int(fraction),
            tzinfo=UTC,
        )
        zone = parts.get("z")
        there = _fixed(zone) if zone else where
        naive = moment.replace(tzinfo=None)
        day = naive.toordinal() - _EPOCH_DAY
        second = naive.hour * 3_600 + naive.minute * 60 + naive.second
        offset = _offset(day * 1_440 + second // 60, there)
    except (ValueError, OverflowError):
        raise FieldProblem(
            field, text, f'"{text[:40]}" is no time of the calendar; check day and month order.'
        ) from None
    if offset is None:
        raise FieldProblem(
            field,
            text,
            f'"{text[:40]}" does not exist in the zone {where}: its clocks skip that hour; '
            "check the time zone of the switch.",
        )
    return (day * 86_400 + second - offset) * MICROSECONDS + naive.microsecond


def _century(year: int) -> int:
    # As POSIX strptime: 69 to 99 belong to the last century.
    return year + (1900 if year >= 69 else 2000)


def _hour(parts: dict[str, str | None]) -> int:
    half = parts.get("p")
    if half is None:
        return int(parts.get("H") or 0)
    hour = int(parts.get("I") or 0)
    if not 1 <= hour <= 12:
        raise ValueError(hour)
    return hour % 12 + (12 if half.lower() == "pm" else 0)


def _fixed(text: str) -> tzinfo:
    if text[0] not in "+-":
        return UTC
    digits = text[1:].replace(":", "").ljust(6, "0")
    if int(digits[2:4]) > 59 or int(digits[4:6]) > 59:
        raise ValueError(text)
    delta = timedelta(hours=int(digits[:2]), minutes=int(digits[2:4]), seconds=int(digits[4:6]))
    return timezone(-delta if text[0] == "-" else delta)


@lru_cache(maxsize=65_536)
def _offset(minute: int, zone: tzinfo) -> int | None:
    """Seconds east of UTC at a minute of the wall clock (from 1970); None when it is skipped."""
    if zone is UTC:
        return 0
    naive = _EPOCH + timedelta(minutes=minute)
    offset = naive.replace(tzinfo=zone).utcoffset()
    assert offset is not None
    # A skipped time comes back as another one from the way to UTC and back.
    back = (naive - offset).replace(tzinfo=UTC).astimezone(zone).replace(tzinfo=None)
    if back != naive:
        return None
    return offset.days * 86_400 + offset.seconds
