"""What a plan says beside its cards, and what it is said with: terms, conditions, zones, hours.

The terms are one JSON document in ``rate_plan.terms``, the conditions of a card in a plan one in
``rate_plan_card.conditions``. Decimals are strings in them, names are codes: of zones, time
profiles and parties. They are checked where they are written (``services.plan_terms``).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, Literal

import msgspec
from psycopg.types.json import Jsonb

from tollkeeper.core.money import ZERO
from tollkeeper.store.db import Connection, queries

_SQL = queries("plans")


# --- the documents -------------------------------------------------------------------------------


class CardTerms(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """When a card of a plan counts; ``origins`` are zone codes or prefixes, ``profile`` is a code."""

    jurisdiction: str = ""
    origins: tuple[str, ...] = ()
    not_origins: tuple[str, ...] = ()
    cli: str = ""
    profile: str = ""


class PromotionTerms(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """``percent`` off; an empty ``service``, list or ``profile`` means all."""

    code: str
    percent: Decimal
    service: str = ""
    destinations: tuple[str, ...] = ()
    begins_at: datetime | None = None
    ends_at: datetime | None = None
    profile: str = ""
    parties: tuple[str, ...] = ()


class SurchargeTerms(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """More to pay by origin; ``absolute`` is for as many units as prices of the service are."""

    code: str
    service: str = "voice"
    absolute: Decimal = ZERO
    percent: Decimal = ZERO
    origins: tuple[str, ...] = ()
    not_origins: tuple[str, ...] = ()
    no_cli: bool = False
    destinations: tuple[str, ...] = ()


class StepTerms(
    msgspec.Struct,
    frozen=True,
    omit_defaults=True,
    forbid_unknown_fields=True,
    rename={"start": "from"},
):
    """From so much volume on (minutes, messages, megabytes ...): a price, or a percent of the row's."""

    start: int
    price: Decimal | None = None
    percent: Decimal | None = None


class TierTerms(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """Volume prices of a group of destinations in each day, week or month."""

    code: str
    steps: tuple[StepTerms, ...]
    service: str = "voice"
    period: str = "month"
    retroactive: bool = False
    destinations: tuple[str, ...] = ()


class PackageTerms(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """Units included; ``units`` and ``rollover`` are what prices are for (minutes, messages ...).

    With a ``price`` (in ``currency``), or where it does not ``renew`` itself, it is bought; else all have it.
    """

    code: str
    units: int
    service: str = "voice"
    period: str = "month"
    destinations: tuple[str, ...] = ()
    exclusions: tuple[str, ...] = ()
    rollover: int = 0
    price: Decimal = ZERO
    currency: str = ""
    renew: bool = True


class RefundTerms(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """What is given back of a service's use that was not delivered, so many hours after it at most."""

    service: str
    undelivered: Literal["full", "none"] = "full"
    within_hours: int | None = None


class Commitment(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is paid each month at least, whatever was used."""

    amount: Decimal
    currency: str


class PlanTerms(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """All of a plan but its cards. ``fx_margin`` is the percent added to each exchange rate."""

    promotions: tuple[PromotionTerms, ...] = ()
    surcharges: tuple[SurchargeTerms, ...] = ()
    tiers: tuple[TierTerms, ...] = ()
    packages: tuple[PackageTerms, ...] = ()
    fx_margin: Decimal = ZERO
    commitment: Commitment | None = None
    refunds: tuple[RefundTerms, ...] = ()


NO_TERMS = PlanTerms()
NO_CONDITIONS = CardTerms()


def terms_from(stored: dict[str, Any]) -> PlanTerms:
    """Read the stored JSON of a plan's terms."""
    return msgspec.convert(stored, PlanTerms)


def conditions_from(stored: dict[str, Any]) -> CardTerms:
    """Read the stored JSON of a card's conditions."""
    return msgspec.convert(stored, CardTerms)


# --- what plans are compiled from ----------------------------------------------------------------


class CardRow(msgspec.Struct, frozen=True):
    """A sell card in a plan; a cost-plus card has a ``cost_card_id`` and the markup on it."""

    plan_id: int
    card_id: int
    code: str
    service: str
    kind: str
    key: str
    per: int
    currency: str
    conditions: dict[str, Any]
    cost_card_id: int | None
    markup_percent: Decimal
    markup: Decimal
    floor_price: Decimal | None
    ceiling_price: Decimal | None


class PlanRow(msgspec.Struct, frozen=True):
    """A plan and the JSON of its terms."""

    id: int
    code: str
    terms: dict[str, Any]


class Zone(msgspec.Struct, frozen=True):
    """Destinations or origins under one name; ``owner`` is the code of the party that made it."""

    code: str
    name: str
    prefixes: tuple[str, ...]
    owner: str | None = None
    id: int = 0
    owner_id: int | None = None


class ProfileWindow(msgspec.Struct, frozen=True):
    """Hours of some days (0 is Monday), in minutes of the local day; past midnight if they end before."""

    days: tuple[int, ...]
    begin: int
    end: int


class TimeProfile(msgspec.Struct, frozen=True):
    """Hours of the week in a time zone."""

    code: str
    name: str
    timezone: str
    windows: tuple[ProfileWindow, ...]
    owner: str | None = None
    id: int = 0
    owner_id: int | None = None


async def read_plan_rows(connection: Connection) -> list[PlanRow]:
    """Read all plans."""
    rows = await (await connection.execute(_SQL["plan_rows"])).fetchall()
    return [PlanRow(**row) for row in rows]


async def read_plan_row(connection: Connection, code: str) -> PlanRow | None:
    """Read one plan."""
    row = await (await connection.execute(_SQL["plan_row"], (code,))).fetchone()
    return PlanRow(**row) if row is not None else None


class ConditionRow(msgspec.Struct, frozen=True):
    """The JSON of the conditions of one card of a plan."""

    plan_id: int
    conditions: dict[str, Any]


async def read_conditions(connection: Connection) -> list[ConditionRow]:
    """Read all conditions of cards in plans, where there are any."""
    rows = await (await connection.execute(_SQL["conditions"])).fetchall()
    return [ConditionRow(**row) for row in rows]


async def read_card_rows(connection: Connection, plan_id: int | None = None) -> list[CardRow]:
    """Read the sell cards of all plans (or one) in the order in which they win ties."""
    rows = await (await connection.execute(_SQL["card_rows"], (plan_id, plan_id))).fetchall()
    return [CardRow(**row) for row in rows]


async def write_terms(connection: Connection, plan_id: int, terms: PlanTerms) -> None:
    """Store the terms of a plan."""
    await connection.execute(_SQL["set_terms"], (Jsonb(msgspec.to_builtins(terms)), plan_id))


async def party_ids(connection: Connection, codes: Sequence[str]) -> dict[str, int]:
    """Return the ids of those parties that exist."""
    rows = await (await connection.execute(_SQL["party_ids"], (list(codes),))).fetchall()
    return {row["code"]: row["id"] for row in rows}


async def read_wallet_currencies(connection: Connection, party_id: int) -> set[str]:
    """The currencies in which a party has a wallet."""
    rows = await (await connection.execute(_SQL["wallet_currencies"], (party_id,))).fetchall()
    return {row["currency"] for row in rows}


# --- zones ---------------------------------------------------------------------------------------


async def read_zones(
    connection: Connection, *, after: str = "", limit: int | None = None
) -> list[Zone]:
    """Read zones in the order of their codes."""
    rows = await (await connection.execute(_SQL["zones"], (after, limit))).fetchall()
    return [_zone(row) for row in rows]


async def read_zone(connection: Connection, code: str, *, lock: bool = False) -> Zone | None:
    """Read a zone; ``lock`` keeps other changes away until the transaction ends."""
    sql = _SQL["lock_zone"] if lock else _SQL["zone"]
    row = await (await connection.execute(sql, (code,))).fetchone()
    return _zone(row) if row is not None else None


def _zone(row: dict[str, Any]) -> Zone:
    return Zone(**{**row, "prefixes": tuple(row["prefixes"])})


async def add_zone(connection: Connection, zone: Zone, *, owner_id: int | None) -> int | None:
    """Insert a zone; None when the code is taken."""
    values = (zone.code, zone.name, owner_id, list(zone.prefixes))
    row = await (await connection.execute(_SQL["add_zone"], values)).fetchone()
    return row["id"] if row is not None else None


async def write_zone(connection: Connection, zone: Zone) -> None:
    """Store a zone's name and prefixes."""
    await connection.execute(_SQL["set_zone"], (zone.name, list(zone.prefixes), zone.id))


async def delete_zone(connection: Connection, id_: int) -> None:
    """Delete a zone."""
    await connection.execute(_SQL["delete_zone"], (id_,))


# --- time profiles -------------------------------------------------------------------------------


async def read_profiles(
    connection: Connection, *, after: str = "", limit: int | None = None
) -> list[TimeProfile]:
    """Read time profiles in the order of their codes."""
    rows = await (await connection.execute(_SQL["profiles"], (after, limit))).fetchall()
    return [_profile(row) for row in rows]


async def read_profile(
    connection: Connection, code: str, *, lock: bool = False
) -> TimeProfile | None:
    """Read a time profile; ``lock`` keeps other changes away until the transaction ends."""
    sql = _SQL["lock_profile"] if lock else _SQL["profile"]
    row = await (await connection.execute(sql, (code,))).fetchone()
    return _profile(row) if row is not None else None


def _profile(row: dict[str, Any]) -> TimeProfile:
    windows = msgspec.convert(row["windows"], tuple[ProfileWindow, ...])
    return TimeProfile(**{**row, "windows": windows})


async def add_profile(
    connection: Connection, profile: TimeProfile, *, owner_id: int | None
) -> int | None:
    """Insert a time profile; None when the code is taken."""
    windows = Jsonb(msgspec.to_builtins(profile.windows))
    values = (profile.code, profile.name, owner_id, profile.timezone, windows)
    row = await (await connection.execute(_SQL["add_profile"], values)).fetchone()
    return row["id"] if row is not None else None


async def write_profile(connection: Connection, profile: TimeProfile) -> None:
    """Store a time profile's name, zone and hours."""
    windows = Jsonb(msgspec.to_builtins(profile.windows))
    await connection.execute(
        _SQL["set_profile"], (profile.name, profile.timezone, windows, profile.id)
    )


async def delete_profile(connection: Connection, id_: int) -> None:
    """Delete a time profile."""
    await connection.execute(_SQL["delete_profile"], (id_,))
