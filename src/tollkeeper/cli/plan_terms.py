"""The commands ``plan terms``, ``zone`` and ``time-profile``: what plans say beside their cards."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import msgspec
from cyclopts import App, Parameter

from tollkeeper.cli.common import actor, console, given, run, table
from tollkeeper.core.money import plain
from tollkeeper.errors import InvalidInput
from tollkeeper.services import plan_names, plan_terms
from tollkeeper.services.plan_names import (
    ProfileChange,
    TimeProfile,
    Zone,
    ZoneChange,
    read_window,
    write_window,
)
from tollkeeper.services.plan_terms import PlanTerms

zone_app = App(name="zone", help="Zones: destinations or origins under one name.")
profile_app = App(name="time-profile", help="Hours of the week in a time zone, for plans.")

FILE_MAX = 1024 * 1024
SHOWN = 8


def terms(code: str, *, file: Path | None = None) -> None:
    """Show a plan's terms, or replace them: promotions, surcharges, tiers, packages and more.

    Args:
        code: The plan.
        file: A JSON file with the new terms; "-" reads standard input. Left out, they are shown,
            in the form in which they can be given.
    """
    if file is None:
        found = run(lambda database: plan_terms.get_terms(database, code))
        text = msgspec.json.format(msgspec.json.encode(found), indent=2).decode()
        sys.stdout.write(text + "\n")
        return
    wanted = _read_terms(file)
    stored = run(lambda database: plan_terms.set_terms(database, code, wanted, actor=actor()))
    console().print(f"plan {code}: {_summary(stored)}", markup=False)


def _read_terms(file: Path) -> PlanTerms:
    try:
        if str(file) == "-":
            data = sys.stdin.buffer.read(FILE_MAX + 1)
        else:
            with file.open("rb") as source:
                data = source.read(FILE_MAX + 1)
    except OSError as error:
        raise InvalidInput(f"{file}: {error.strerror or error}", field="file") from error
    if len(data) > FILE_MAX:
        raise InvalidInput(f"{file} is larger than 1 MiB: are these the terms?", field="file")
    try:
        return msgspec.json.decode(data, type=PlanTerms)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{file}: {error}", code="invalid_plan", field="file") from error


def _summary(stored: PlanTerms) -> str:
    parts = [
        f"{len(listed)} {name if len(listed) != 1 else name[:-1]}"
        for name, listed in (
            ("promotions", stored.promotions),
            ("surcharges", stored.surcharges),
            ("tiers", stored.tiers),
            ("packages", stored.packages),
        )
        if listed
    ]
    if stored.fx_margin:
        parts.append(f"{plain(stored.fx_margin)} % on exchange rates")
    if stored.commitment is not None:
        amount = f"{plain(stored.commitment.amount)} {stored.commitment.currency}"
        parts.append(f"at least {amount} a month")
    for rule in stored.refunds:
        back = "given back" if rule.undelivered == "full" else "not given back"
        within = "" if rule.within_hours is None else f" within {rule.within_hours} h"
        parts.append(f"undelivered {rule.service} {back}{within}")
    return ", ".join(parts) or "no terms beside its cards"


# --- zones ---------------------------------------------------------------------------------------


@zone_app.command(name="create")
def create_zone(
    code: str, *, prefix: Annotated[list[str], Parameter(negative=())], name: str | None = None
) -> None:
    """Create a zone.

    Args:
        code: Its short name, with a letter in it.
        prefix: A prefix of it; several with commas between, or given several times.
        name: Its name for people; the code if left out.
    """
    made = run(
        lambda database: plan_names.create_zone(
            database, code=code, name=name or "", prefixes=_split(prefix), actor=actor()
        )
    )
    console().print(f"zone {made.code} created: {len(made.prefixes)} prefix(es)", markup=False)


@zone_app.command(name="list")
def list_zones(*, after: str = "", limit: int = 1000) -> None:
    """List zones.

    Args:
        after: Begin after this code.
        limit: How many at most.
    """
    found = run(lambda database: plan_names.list_zones(database, after=after, limit=limit))
    rows = [(z.code, z.name, z.owner, len(z.prefixes), _some(z)) for z in found]
    columns = ["code", "name", "owner", "prefixes>", ""]
    console().print(table(f"{len(found)} zones", columns, rows), markup=False)


def _some(zone: Zone) -> str:
    more = ", ..." if len(zone.prefixes) > SHOWN else ""
    return ", ".join(zone.prefixes[:SHOWN]) + more


@zone_app.command(name="show")
def show_zone(code: str) -> None:
    """Show a zone's prefixes, one a line.

    Args:
        code: The zone.
    """
    found = run(lambda database: plan_names.get_zone(database, code))
    sys.stdout.write("".join(f"{prefix}\n" for prefix in found.prefixes))


@zone_app.command(name="set")
def change_zone(
    code: str,
    *,
    prefix: Annotated[list[str] | None, Parameter(negative=())] = None,
    name: str | None = None,
) -> None:
    """Change a zone; plans that use it go by the new prefixes.

    Args:
        code: The zone.
        prefix: All its prefixes from now on; several with commas between, or given several times.
        name: Another name for people.
    """
    given(prefix=prefix, name=name)
    change = ZoneChange(name, None if prefix is None else _split(prefix))
    made = run(lambda database: plan_names.change_zone(database, code, change, actor=actor()))
    console().print(f"zone {made.code}: {len(made.prefixes)} prefix(es)", markup=False)


@zone_app.command(name="delete")
def delete_zone(code: str) -> None:
    """Delete a zone that no plan uses.

    Args:
        code: The zone.
    """
    run(lambda database: plan_names.delete_zone(database, code, actor=actor()))
    console().print(f"zone {code} deleted", markup=False)


def _split(texts: list[str]) -> list[str]:
    return [part.strip() for text in texts for part in text.split(",") if part.strip()]


# --- time profiles -------------------------------------------------------------------------------


@profile_app.command(name="create")
def create_profile(
    code: str,
    *,
    window: Annotated[list[str], Parameter(negative=())],
    timezone: str = "UTC",
    name: str | None = None,
) -> None:
    """Create a time profile.

    Args:
        code: Its short name.
        window: Days and hours, such as "mon-fri 08:00-20:00" or "sat,sun 00:00-24:00"; may be given
            several times. Hours that end before they begin run past midnight.
        timezone: Whose clock is meant, such as Europe/London.
        name: Its name for people; the code if left out.
    """
    windows = [read_window(text, field="window") for text in window]
    made = run(
        lambda database: plan_names.create_profile(
            database,
            code=code,
            name=name or "",
            timezone=timezone,
            windows=windows,
            actor=actor(),
        )
    )
    console().print(f"time profile {made.code} created: {_hours(made)}", markup=False)


def _hours(profile: TimeProfile) -> str:
    return f"{'; '.join(write_window(one) for one in profile.windows)} ({profile.timezone})"


@profile_app.command(name="list")
def list_profiles(*, after: str = "", limit: int = 1000) -> None:
    """List time profiles.

    Args:
        after: Begin after this code.
        limit: How many at most.
    """
    found = run(lambda database: plan_names.list_profiles(database, after=after, limit=limit))
    rows = [(p.code, p.name, p.owner, _hours(p)) for p in found]
    columns = ["code", "name", "owner", "hours"]
    console().print(table(f"{len(found)} time profiles", columns, rows), markup=False)


@profile_app.command(name="show")
def show_profile(code: str) -> None:
    """Show a time profile.

    Args:
        code: The time profile.
    """
    found = run(lambda database: plan_names.get_profile(database, code))
    console().print(f"{found.code} ({found.name}): {_hours(found)}", markup=False)


@profile_app.command(name="set")
def change_profile(
    code: str,
    *,
    window: Annotated[list[str] | None, Parameter(negative=())] = None,
    timezone: str | None = None,
    name: str | None = None,
) -> None:
    """Change a time profile; plans that use it go by the new hours.

    Args:
        code: The time profile.
        window: All its hours from now on; may be given several times.
        timezone: Whose clock is meant.
        name: Another name for people.
    """
    given(window=window, timezone=timezone, name=name)
    windows = None if window is None else [read_window(text, field="window") for text in window]
    change = ProfileChange(name, timezone, windows)
    made = run(lambda database: plan_names.change_profile(database, code, change, actor=actor()))
    console().print(f"time profile {made.code}: {_hours(made)}", markup=False)


@profile_app.command(name="delete")
def delete_profile(code: str) -> None:
    """Delete a time profile that no plan uses.

    Args:
        code: The time profile.
    """
    run(lambda database: plan_names.delete_profile(database, code, actor=actor()))
    console().print(f"time profile {code} deleted", markup=False)
