"""Times of the Cisco attributes h323-setup-time, h323-connect-time and h323-disconnect-time.

Written as ``14:24:55.000 EET Mon Nov 28 2005`` (Cisco "RADIUS VSA Voice Implementation Guide"), the
weekday may be absent; ``*`` or ``.`` in front says that the clock was not synchronised.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final

from tollkeeper.core.usage import MICROSECONDS
from tollkeeper.wire.cdr.problem import FieldProblem
from tollkeeper.wire.cdr.times import time_reader, zone_of

_TIME: Final = re.compile(
    r"[*.]?(?P<time>[0-9]{1,2}:[0-9]{2}:[0-9]{2})(?:\.(?P<part>[0-9]{1,6}))?"
    r" +(?P<zone>[A-Za-z]{1,6}|[+-][0-9]{2}:?[0-9]{2}) +(?:[A-Za-z]{3} +)?"
    r"(?P<month>[A-Za-z]{3}) +(?P<day>[0-9]{1,2}) +(?P<year>[0-9]{4})"
)
# Abbreviations with one meaning in use. EST, CST, IST, BST and their like have several: they are
# read only when the zone of the file goes by that name (America/New_York: EST, EDT).
_ABBREVIATIONS: Final = {
    "UTC": "UTC", "GMT": "UTC", "Z": "UTC", "WET": "Europe/Lisbon", "WEST": "Europe/Lisbon",
    "CET": "Europe/Paris", "CEST": "Europe/Paris", "EET": "Europe/Athens", "EEST": "Europe/Athens",
    "MSK": "Europe/Moscow", "MSD": "Europe/Moscow", "SAST": "Africa/Johannesburg",
    "JST": "Asia/Tokyo", "KST": "Asia/Seoul", "HKT": "Asia/Hong_Kong", "NZST": "Pacific/Auckland",
    "NZDT": "Pacific/Auckland", "AEST": "Australia/Sydney", "AEDT": "Australia/Sydney",
}  # fmt: skip
_YEARS: Final = timedelta(days=183)


def h323_time(text: str, zone: str, field: str) -> int | None:
    """Return microseconds since 1970 in UTC; None for no time ("", "0", 1970-01-01).

    ``zone`` (an IANA name) decides what an ambiguous abbreviation such as "EST" means.

    Raises:
        FieldProblem: not such a time, or an abbreviation that could be several zones.
    """
    text = text.strip()
    if text in {"", "0"}:
        return None
    match = _TIME.fullmatch(text)
    if match is None:
        reason = (
            f'"{text[:60]}" is not a time such as "14:24:55.000 UTC Mon Nov 28 2005"; '
            "check the field and the switch's clock."
        )
        raise FieldProblem(field, text, reason)
    part = (match["part"] or "").ljust(6, "0")
    plain = f"{match['year']} {match['month']} {match['day']} {match['time']}"
    wall = time_reader("%Y %b %d %H:%M:%S", "UTC")(plain, field)
    # A call that was not answered has the first second of 1970 as its connect time on some.
    return wall - offset_of(match["zone"], zone, wall, text, field) + int(part) or None


def offset_of(name: str, zone: str, wall: int, text: str, field: str) -> int:
    """Return the microseconds east of UTC of a zone's abbreviation at a wall clock time.

    Raises:
        FieldProblem: an abbreviation that is unknown, or could be several zones.
    """
    if name[0] in "+-":
        minutes = int(name[1:3]) * 60 + int(name[-2:])
        return (-minutes if name[0] == "-" else minutes) * 60 * MICROSECONDS
    upper = name.upper()
    for candidate in (zone, _ABBREVIATIONS.get(upper)):
        if candidate is not None:
            offset = _named(upper, candidate, wall // MICROSECONDS // 3600)
            if offset is not None:
                return offset
    reason = (
        f'"{name}" is no zone of the time zone {zone} and could be several; set the time zone of '
        'the file, for example "America/New_York" for EST.'
    )
    raise FieldProblem(field, text, reason)


@lru_cache(maxsize=4096)
def _named(name: str, zone: str, hour: int) -> int | None:
    """Offset that the abbreviation has in this zone near this hour (since 1970), in microseconds.

    A switch may go on calling its winter time by name in summer, and the other way round, so the
    name decides, and the date only which year's rules hold.
    """
    where = zone_of(zone)
    if where is UTC:
        return 0 if name in {"UTC", "GMT", "Z"} else None
    try:
        wall = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(hours=hour)
        for moment in (wall, wall - _YEARS, wall + _YEARS):
            there = moment.astimezone(where)
            offset = there.utcoffset()
            if there.tzname() == name and offset is not None:
                return (offset.days * 86_400 + offset.seconds) * MICROSECONDS
    except OverflowError:
        return None
    return None
