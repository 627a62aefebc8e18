"""What terms of plans name: zones (destinations or origins under one name) and hours of the week."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from msgspec.structs import replace

from tollkeeper.core.profiles import check_windows
from tollkeeper.core.tariff import PREFIX_MAX
from tollkeeper.errors import Conflict, InvalidInput, NotFound
from tollkeeper.services.fields import check_code, check_text, check_timezone
from tollkeeper.services.plan_book import compiled_profile
from tollkeeper.services.plan_terms import check_again, plans_using
from tollkeeper.store import plans as store
from tollkeeper.store.changes import record
from tollkeeper.store.db import Connection, Database
from tollkeeper.store.plans import ProfileWindow, TimeProfile, Zone

__all__ = [
    "WINDOW_PATTERN",
    "ProfileChange",
    "ProfileWindow",
    "TimeProfile",
    "Zone",
    "ZoneChange",
    "change_profile",
    "change_zone",
    "create_profile",
    "create_zone",
    "delete_profile",
    "delete_zone",
    "get_profile",
    "get_zone",
    "list_profiles",
    "list_zones",
    "read_window",
    "write_window",
]

PREFIXES_MAX = 20_000
WINDOWS_MAX = 100


@dataclass(frozen=True, slots=True)
class ZoneChange:
    """What of a zone changes; None stays."""

    name: str | None = None
    prefixes: Sequence[str] | None = None


@dataclass(frozen=True, slots=True)
class ProfileChange:
    """What of a time profile changes; None stays."""

    name: str | None = None
    timezone: str | None = None
    windows: Sequence[ProfileWindow] | None = None


DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
WINDOW_PATTERN = r"^(mon|tue|wed|thu|fri|sat|sun)([,-](mon|tue|wed|thu|fri|sat|sun)){0,6} [0-2][0-9]:[0-5][0-9]-[0-2][0-9]:[0-5][0-9]$"
_WINDOW = re.compile(WINDOW_PATTERN[1:-1])


def read_window(text: str, *, field: str = "windows") -> ProfileWindow:
    """Read hours as ``mon-fri 08:00-20:00`` or ``sat,sun 22:00-06:00`` (past midnight); 24:00 is a day's end.

    Raises:
        InvalidInput: they are written otherwise.
    """
    if _WINDOW.fullmatch(text) is None:
        raise InvalidInput(
            f'{field}: write hours as "mon-fri 08:00-20:00" or "sat,sun 00:00-24:00"', field=field
        )
    days, _, hours = text.partition(" ")
    listed: dict[int, None] = {}
    for part in days.split(","):
        first, _, last = part.partition("-")
        begin, end = DAYS.index(first), DAYS.index(last[-3:] or first)
        if "-" in last:
            raise InvalidInput(
                f'{field}: "{part}" is no range of days such as mon-fri', field=field
            )
        listed.update(dict.fromkeys((begin + n) % 7 for n in range((end - begin) % 7 + 1)))
    opens, _, closes = hours.partition("-")
    return ProfileWindow(tuple(sorted(listed)), _minutes(opens), _minutes(closes))


def _minutes(text: str) -> int:
    return int(text[:2]) * 60 + int(text[3:])


def write_window(window: ProfileWindow) -> str:
    """Write hours as :func:`read_window` reads them."""
    days: list[str] = []
    left = sorted(window.days)
    while left:
        run = [left.pop(0)]
        while left and left[0] == run[-1] + 1:
            run.append(left.pop(0))
        names = [DAYS[day] for day in run]
        days += [f"{names[0]}-{names[-1]}"] if len(run) > 2 else names
    return f"{','.join(days)} {_clock(window.begin)}-{_clock(window.end)}"


def _clock(minute: int) -> str:
    return f"{minute // 60:02d}:{minute % 60:02d}"


# --- zones ---------------------------------------------------------------------------------------


async def create_zone(
    database: Database,
    *,
    code: str,
    prefixes: Sequence[str],
    actor: str,
    name: str = "",
    scope: int | None = None,
) -> Zone:
    """Create a zone; one that a scope makes is its own.

    Raises:
        InvalidInput: naming the field. Conflict: the code is taken.
    """
    zone = _checked_zone(Zone(check_code(code), name or code, tuple(prefixes)))
    if code.isdigit():
        raise InvalidInput(
            "code: a zone's code has a letter in it, or it could not be told from a prefix",
            code="invalid_code",
            field="code",
        )
    async with database.write(scope=scope) as connection:
        id_ = await store.add_zone(connection, zone, owner_id=scope)
        if id_ is None:
            raise Conflict(f'there is a zone "{code}" already', code="zone_exists", field="code")
        await _note_zone(connection, zone, id_, "create", actor)
        return await _zone(connection, code)


async def change_zone(
    database: Database, code: str, change: ZoneChange, *, actor: str, scope: int | None = None
) -> Zone:
    """Change a zone's name or prefixes; plans that use it are sold by the new ones within seconds.

    Raises:
        NotFound: no such zone. InvalidInput: a field is wrong, or a plan would not be sound any more.
    """
    async with database.write(scope=scope) as connection:
        before = await _zone(connection, code, lock=True)
        after = _checked_zone(
            replace(
                before,
                name=before.name if change.name is None else change.name,
                prefixes=before.prefixes if change.prefixes is None else tuple(change.prefixes),
            )
        )
        if after == before:
            return before
        await store.write_zone(connection, after)
        if after.prefixes != before.prefixes:
            used = await plans_using(connection, zone=code)
            await check_again(connection, used, field="prefixes")
        await _note_zone(connection, after, after.id, "change", actor)
        return after


async def delete_zone(
    database: Database, code: str, *, actor: str, scope: int | None = None
) -> None:
    """Delete a zone that no plan uses.

    Raises:
        NotFound: no such zone. Conflict: a plan uses it.
    """
    async with database.write(scope=scope) as connection:
        zone = await _zone(connection, code, lock=True)
        used = await plans_using(connection, zone=code)
        if used:
            raise Conflict(
                f"the plan {used[0].code} uses the zone {code}; take it out there first",
                code="zone_in_use",
            )
        await store.delete_zone(connection, zone.id)
        await _note_zone(connection, zone, zone.id, "delete", actor)


async def get_zone(database: Database, code: str, *, scope: int | None = None) -> Zone:
    """Return a zone.

    Raises:
        NotFound: no such zone.
    """
    async with database.read(scope=scope) as connection:
        return await _zone(connection, code)


async def list_zones(
    database: Database, *, after: str = "", limit: int = 100, scope: int | None = None
) -> list[Zone]:
    """List zones in the order of their codes."""
    async with database.read(scope=scope) as connection:
        return await store.read_zones(connection, after=after, limit=limit)


async def _zone(connection: Connection, code: str, *, lock: bool = False) -> Zone:
    zone = await store.read_zone(connection, code, lock=lock)
    if zone is None:
        raise NotFound(f'there is no zone "{code}"', code="unknown_zone")
    return zone


def _checked_zone(zone: Zone) -> Zone:
    check_text(zone.name, field="name")
    if not 1 <= len(zone.prefixes) <= PREFIXES_MAX:
        raise InvalidInput(f"prefixes: give 1 to {PREFIXES_MAX} of them", field="prefixes")
    seen: set[str] = set()
    for index, prefix in enumerate(zone.prefixes):
        place = f"prefixes[{index}]"
        if not (prefix.isascii() and prefix.isdigit() and len(prefix) <= PREFIX_MAX):
            raise InvalidInput(f"{place}: a prefix is 1 to {PREFIX_MAX} digits", field=place)
        if prefix in seen:
            raise InvalidInput(f"{place}: {prefix} is named twice", field=place)
        seen.add(prefix)
    return zone


async def _note_zone(connection: Connection, zone: Zone, id_: int, what: str, actor: str) -> None:
    detail = {"name": zone.name, "prefixes": list(zone.prefixes)}
    await record(
        connection,
        actor=actor,
        action=f"zone.{what}",
        subject=f"zone {zone.code}",
        detail=detail,
        notice=f"zone:{id_}",
    )


# --- time profiles -------------------------------------------------------------------------------


async def create_profile(
    database: Database,
    *,
    code: str,
    timezone: str,
    windows: Sequence[ProfileWindow],
    actor: str,
    name: str = "",
    scope: int | None = None,
) -> TimeProfile:
    """Create a time profile; one that a scope makes is its own.

    Raises:
        InvalidInput: naming the field. Conflict: the code is taken.
    """
    profile = _checked_profile(
        TimeProfile(check_code(code), name or code, timezone, tuple(windows))
    )
    async with database.write(scope=scope) as connection:
        id_ = await store.add_profile(connection, profile, owner_id=scope)
        if id_ is None:
            raise Conflict(
                f'there is a time profile "{code}" already',
                code="time_profile_exists",
                field="code",
            )
        await _note_profile(connection, profile, id_, "create", actor)
        return await _profile(connection, code)


async def change_profile(
    database: Database, code: str, change: ProfileChange, *, actor: str, scope: int | None = None
) -> TimeProfile:
    """Change a time profile; plans that use it go by the new hours within seconds.

    Raises:
        NotFound: no such profile. InvalidInput: a field is wrong, or a plan would not be sound any more.
    """
    async with database.write(scope=scope) as connection:
        before = await _profile(connection, code, lock=True)
        after = _checked_profile(
            replace(
                before,
                name=before.name if change.name is None else change.name,
                timezone=before.timezone if change.timezone is None else change.timezone,
                windows=before.windows if change.windows is None else tuple(change.windows),
            )
        )
        if after == before:
            return before
        await store.write_profile(connection, after)
        used = await plans_using(connection, profile=code)
        await check_again(connection, used, field="windows")
        await _note_profile(connection, after, after.id, "change", actor)
        return after


async def delete_profile(
    database: Database, code: str, *, actor: str, scope: int | None = None
) -> None:
    """Delete a time profile that no plan uses.

    Raises:
        NotFound: no such profile. Conflict: a plan uses it.
    """
    async with database.write(scope=scope) as connection:
        profile = await _profile(connection, code, lock=True)
        used = await plans_using(connection, profile=code)
        if used:
            raise Conflict(
                f"the plan {used[0].code} uses the time profile {code}; take it out there first",
                code="time_profile_in_use",
            )
        await store.delete_profile(connection, profile.id)
        await _note_profile(connection, profile, profile.id, "delete", actor)


async def get_profile(database: Database, code: str, *, scope: int | None = None) -> TimeProfile:
    """Return a time profile.

    Raises:
        NotFound: no such profile.
    """
    async with database.read(scope=scope) as connection:
        return await _profile(connection, code)


async def list_profiles(
    database: Database, *, after: str = "", limit: int = 100, scope: int | None = None
) -> list[TimeProfile]:
    """List time profiles in the order of their codes."""
    async with database.read(scope=scope) as connection:
        return await store.read_profiles(connection, after=after, limit=limit)


async def _profile(connection: Connection, code: str, *, lock: bool = False) -> TimeProfile:
    profile = await store.read_profile(connection, code, lock=lock)
    if profile is None:
        raise NotFound(f'there is no time profile "{code}"', code="unknown_time_profile")
    return profile


def _checked_profile(profile: TimeProfile) -> TimeProfile:
    check_text(profile.name, field="name")
    check_timezone(profile.timezone)
    if not 1 <= len(profile.windows) <= WINDOWS_MAX:
        raise InvalidInput(f"windows: give 1 to {WINDOWS_MAX} of them", field="windows")
    check_windows(compiled_profile(profile).windows, "windows")
    return profile


async def _note_profile(
    connection: Connection, profile: TimeProfile, id_: int, what: str, actor: str
) -> None:
    windows = [{"days": list(w.days), "begin": w.begin, "end": w.end} for w in profile.windows]
    await record(
        connection,
        actor=actor,
        action=f"time_profile.{what}",
        subject=f"time profile {profile.code}",
        detail={"name": profile.name, "timezone": profile.timezone, "windows": windows},
        notice=f"profile:{id_}",
    )
