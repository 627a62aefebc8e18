"""What the routes of plan terms, zones and time profiles take and give."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Literal, Self

import msgspec
from fastapi import Path
from pydantic import (
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    StringConstraints,
    WithJsonSchema,
)

from tollkeeper.core.money import parse_amount, plain
from tollkeeper.errors import InvalidInput
from tollkeeper.servers.api.schemas import Code, Currency, In, Moment, Name, Out, own_error
from tollkeeper.services.fields import ZONE_PATTERN
from tollkeeper.services.plan_names import (
    PREFIXES_MAX,
    WINDOW_PATTERN,
    WINDOWS_MAX,
    TimeProfile,
    Zone,
    write_window,
)
from tollkeeper.services.plan_terms import HOURS_MAX, LIST_MAX, NAMES_MAX, PlanTerms
from tollkeeper.services.rates import SERVICE_PATTERN
from tollkeeper.store.plans import CardTerms

ZonePath = Annotated[Code, Path(description="Code of the zone.")]
ProfilePath = Annotated[Code, Path(description="Code of the time profile.")]
UNITS_MAX = 10**15


def _read_number(value: object) -> object:
    if isinstance(value, Decimal) or value is None:
        return value
    try:
        return parse_amount(value, field="number")
    except InvalidInput as error:
        raise own_error(error) from error


DecimalText = Annotated[
    Decimal,
    BeforeValidator(_read_number),
    PlainSerializer(plain, return_type=str),
    WithJsonSchema(
        {"type": "string", "pattern": r"^-?[0-9]{1,15}(\.[0-9]{1,8})?$", "examples": ["12.5"]}
    ),
]
"""A decimal number as a string: a price, or a percentage."""

Place = Annotated[
    str,
    StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$"),
    Field(description="A prefix (digits), or the code of a zone."),
]
Places = Annotated[list[Place], Field(max_length=NAMES_MAX)]
Service = Annotated[str, StringConstraints(pattern=SERVICE_PATTERN)]
Period = Literal["day", "week", "month"]
Units = Annotated[int, Field(ge=0, le=UNITS_MAX)]
OptionalCode = Literal[""] | Code


# --- conditions of cards -------------------------------------------------------------------------


class WhenIn(In):
    """When a card of a plan counts; what is left out is not asked."""

    jurisdiction: Literal["", "interstate", "intrastate", "indeterminate"] = ""
    origins: Places = Field(default=[])
    not_origins: Places = Field(default=[])
    cli: Literal["", "cli", "non_cli"] = Field(
        default="", description="With or without a caller's number."
    )
    profile: OptionalCode = Field(default="", description="Code of a time profile.")

    def conditions(self) -> CardTerms:
        """Return them as the service takes them."""
        return msgspec.convert(self.model_dump(), CardTerms)


class WhenOut(Out):
    """When a card of a plan counts; what is empty is not asked."""

    jurisdiction: str = ""
    origins: list[str] = Field(default=[])
    not_origins: list[str] = Field(default=[])
    cli: str = ""
    profile: str = ""

    @classmethod
    def of(cls, conditions: CardTerms) -> Self:
        """Show conditions."""
        return cls.model_validate(msgspec.to_builtins(conditions))


# --- terms ---------------------------------------------------------------------------------------


class Both(In):
    """What comes in to the letter and goes out complete."""

    model_config = ConfigDict(json_schema_serialization_defaults_required=True)


class Promotion(Both):
    """Percent off all prices and fees. No two may apply to the same call."""

    code: Code
    percent: DecimalText
    service: Literal[""] | Service = Field(default="", description="Empty: all services.")
    destinations: Places = Field(default=[])
    begins_at: Moment = None
    ends_at: Moment = None
    profile: OptionalCode = Field(default="", description="Code of a time profile: only then.")
    parties: list[Code] = Field(default=[], max_length=NAMES_MAX, description="Empty: all.")


class Surcharge(Both):
    """More to pay by origin: `absolute` for as much as a price is for, `percent` of the prices."""

    code: Code
    service: Service = "voice"
    absolute: DecimalText = Decimal(0)
    percent: DecimalText = Decimal(0)
    origins: Places = Field(default=[])
    not_origins: Places = Field(default=[])
    no_cli: bool = Field(default=False, description="Also calls without a caller's number.")
    destinations: Places = Field(default=[])


class TierStep(Both):
    """From so much volume on: a price, or a percent of the card's (one of the two)."""

    start: Annotated[
        int,
        Field(
            alias="from",
            ge=0,
            le=UNITS_MAX,
            description="In what prices are for: minutes, messages, megabytes (the card's `per`).",
        ),
    ]
    price: DecimalText | None = None
    percent: DecimalText | None = None


class Tier(Both):
    """Volume prices of some destinations in each period; the first step is from 0."""

    code: Code
    service: Service = "voice"
    period: Period = "month"
    retroactive: bool = Field(
        default=False, description="A step that is reached counts for all of the period's volume."
    )
    destinations: Places = Field(default=[])
    steps: Annotated[list[TierStep], Field(min_length=1, max_length=LIST_MAX)]


class Package(Both):
    """Units included in each period, in what prices are for (minutes, messages, megabytes)."""

    code: Code
    service: Service = "voice"
    units: Units
    period: Period = "month"
    destinations: Places = Field(default=[])
    exclusions: Places = Field(default=[])
    rollover: Units = Field(default=0, description="Unused units that go into the next period.")
    price: DecimalText = Decimal(0)
    currency: Literal[""] | Currency = ""
    renew: bool = True


class Commitment(Both):
    """What is paid each month at least."""

    amount: DecimalText
    currency: Currency


class Refund(Both):
    """What is given back of a service's use that was not delivered; all of it where nothing is said."""

    service: Service
    undelivered: Literal["full", "none"] = "full"
    within_hours: Annotated[int, Field(ge=1, le=HOURS_MAX)] | None = Field(
        default=None, description="So long after the use; null: at any time."
    )


class Terms(In):
    """All that a plan says beside its cards."""

    promotions: list[Promotion] = Field(default=[], max_length=LIST_MAX)
    surcharges: list[Surcharge] = Field(default=[], max_length=LIST_MAX)
    tiers: list[Tier] = Field(default=[], max_length=LIST_MAX)
    packages: list[Package] = Field(default=[], max_length=LIST_MAX)
    fx_margin: DecimalText = Field(
        default=Decimal(0), description="Percent added to exchange rates."
    )
    commitment: Commitment | None = None
    refunds: list[Refund] = Field(default=[], max_length=LIST_MAX)

    def terms(self) -> PlanTerms:
        """Return them as the service takes them."""
        return msgspec.convert(self.model_dump(by_alias=True), PlanTerms)


class TermsOut(Out):
    """All that a plan says beside its cards."""

    promotions: list[Promotion]
    surcharges: list[Surcharge]
    tiers: list[Tier]
    packages: list[Package]
    fx_margin: DecimalText
    commitment: Commitment | None
    refunds: list[Refund]

    @classmethod
    def of(cls, terms: PlanTerms) -> Self:
        """Show terms."""
        given: dict[str, object] = {
            "promotions": [],
            "surcharges": [],
            "tiers": [],
            "packages": [],
            "fx_margin": "0",
            "commitment": None,
            "refunds": [],
        }
        return cls.model_validate(given | msgspec.json.decode(msgspec.json.encode(terms)))


# --- zones and hours -----------------------------------------------------------------------------

Prefix = Annotated[str, StringConstraints(pattern="^[0-9]{1,18}$")]
Prefixes = Annotated[list[Prefix], Field(min_length=1, max_length=PREFIXES_MAX)]
Hours = Annotated[
    str,
    StringConstraints(pattern=WINDOW_PATTERN),
    Field(
        description="Days and hours; past midnight where they end before they begin.",
        examples=["mon-fri 08:00-20:00", "sat,sun 00:00-24:00"],
    ),
]
Windows = Annotated[list[Hours], Field(min_length=1, max_length=WINDOWS_MAX)]
TimeZone = Annotated[str, StringConstraints(pattern=ZONE_PATTERN)]


class NewZone(In):
    """Destinations or origins under one name; the code has a letter in it."""

    code: Code
    name: Name | None = None
    prefixes: Prefixes


class ZonePatch(In):
    """What of a zone changes; the prefixes are replaced by those given."""

    name: Name | None = None
    prefixes: Prefixes | None = None


class ZoneOut(Out):
    """A zone; `owner` is the party that made it, null for the operator."""

    code: str
    name: str
    prefixes: list[str]
    owner: str | None

    @classmethod
    def of(cls, zone: Zone) -> Self:
        """Show a zone."""
        return cls(code=zone.code, name=zone.name, prefixes=list(zone.prefixes), owner=zone.owner)


class ZoneList(Out):
    """A page of zones; `next` is null on the last one."""

    items: list[ZoneOut]
    next: str | None


class NewProfile(In):
    """Hours of the week in a time zone."""

    code: Code
    name: Name | None = None
    timezone: TimeZone = "UTC"
    windows: Windows


class ProfilePatch(In):
    """What of a time profile changes; the hours are replaced by those given."""

    name: Name | None = None
    timezone: TimeZone | None = None
    windows: Windows | None = None


class ProfileOut(Out):
    """Hours of the week; `owner` is the party that made them, null for the operator."""

    code: str
    name: str
    timezone: str
    windows: list[str]
    owner: str | None

    @classmethod
    def of(cls, profile: TimeProfile) -> Self:
        """Show a time profile."""
        return cls(
            code=profile.code,
            name=profile.name,
            timezone=profile.timezone,
            windows=[write_window(window) for window in profile.windows],
            owner=profile.owner,
        )


class ProfileList(Out):
    """A page of time profiles; `next` is null on the last one."""

    items: list[ProfileOut]
    next: str | None
