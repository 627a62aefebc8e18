"""What the routes of rate cards take and give, as the OpenAPI document shows it."""

from __future__ import annotations

from dataclasses import fields
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Literal, Self

from fastapi import Path, Query
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from tollkeeper.core.deck import Status
from tollkeeper.core.tariff import Match, RateRow
from tollkeeper.errors import InvalidInput
from tollkeeper.servers.api.plan_schemas import DecimalText
from tollkeeper.servers.api.schemas import Code, Currency, In, Money, Name, NotNegative, Out
from tollkeeper.services.fields import INTEGER_MAX
from tollkeeper.services.rates import (
    SERVICE_PATTERN,
    CostPlus,
    ImportReport,
    Lookup,
    RateCard,
    RateChange,
    RateRefusal,
    RateVersion,
)
from tollkeeper.services.sheet_settings import SheetSettings

CardPath = Annotated[Code, Path(description="Code of the rate card.")]
VersionNumber = Annotated[int, Field(ge=1, le=INTEGER_MAX)]
VersionPath = Annotated[VersionNumber, Path(description="Number of the version.")]
Cursor = Annotated[int, Query(ge=0, le=INTEGER_MAX, description="`next` of the page before.")]
Number = Annotated[
    str,
    Query(min_length=1, max_length=40, description="The number called.", examples=["442071838750"]),
]
Texts = Annotated[str, StringConstraints(max_length=200)]


class NewCard(In):
    """A rate card without prices; an import brings them.

    With a `cost_card` it is a cost-plus card: its prices are those of the cost card, raised. It takes
    `per`, `key`, `decimals` and `rounding` from there.
    """

    code: Code
    currency: Currency
    name: Name | None = None
    side: Literal["sell", "buy"] = "sell"
    service: Annotated[str, StringConstraints(pattern=SERVICE_PATTERN)] = "voice"
    decimals: Annotated[int, Field(ge=0, le=8)] | None = Field(
        default=None, description="6 if left out."
    )
    rounding: Literal["half_up", "half_even", "up", "down"] | None = Field(
        default=None, description="half_up if left out."
    )
    per: Annotated[int, Field(ge=1, le=2**31)] | None = Field(
        default=None,
        description="How many units a price is for: 60 seconds of voice, 1000000 bytes of data, "
        "else 1 if left out; a power of 10 or of 2.",
    )
    key: Literal["called", "network"] | None = Field(
        default=None,
        description="What prefixes are compared with: the number called (if left out), or the "
        "network (MCC and MNC).",
    )
    cost_card: Code | None = None
    markup_percent: DecimalText = Decimal(0)
    markup: DecimalText = Field(default=Decimal(0), description="Added to each price, per `per`.")
    floor: NotNegative | None = None
    ceiling: NotNegative | None = None

    def cost_plus(self) -> CostPlus | None:
        """What it adds to its cost card's prices; None for a card with prices of its own."""
        if self.cost_card is None:
            beside = ("markup_percent", "markup", "floor", "ceiling")
            for name in beside:
                if getattr(self, name):
                    raise InvalidInput(
                        f"{name}: this is for cost-plus cards; name their cost_card", field=name
                    )
            return None
        return CostPlus(self.cost_card, self.markup_percent, self.markup, self.floor, self.ceiling)


class CardOut(Out):
    """A rate card; a leg's price is rounded once, to `decimals` by `rounding`.

    `owner` is the party that made it, null for the operator.
    """

    code: str
    name: str
    currency: str
    side: str
    service: str
    decimals: int
    rounding: str
    per: int
    key: str
    cost_card: str | None
    markup_percent: DecimalText
    markup: DecimalText
    floor: DecimalText | None
    ceiling: DecimalText | None
    owner: str | None
    active_version: int | None
    last_version: int
    created_at: datetime | None

    @classmethod
    def of(cls, card: RateCard) -> Self:
        """Show a card."""
        shown = {
            name: getattr(
                card, {"floor": "floor_price", "ceiling": "ceiling_price"}.get(name, name)
            )
            for name in cls.model_fields
        }
        return cls.model_validate(shown)


class CardList(Out):
    """A page of cards; `next` is null on the last one."""

    items: list[CardOut]
    next: str | None


class SheetQuery(BaseModel):
    """How to read the sheet, and what to do with it. Left out, it is found out from the sheet."""

    model_config = ConfigDict(extra="forbid")

    mode: Literal["full", "partial"] = Field(
        "full",
        description="full closes the codes that the sheet does not name, partial leaves them.",
    )
    dry_run: bool = Field(default=False, description="Only say what would change.")
    file_name: Texts = ""
    delimiter: Texts = "auto"
    decimal: Literal["auto", ".", ","] = "auto"
    encoding: Texts = "auto"
    header: Literal["auto", "yes", "no"] = "auto"
    columns: Annotated[str, StringConstraints(max_length=2000)] = Field(
        default="",
        description="FIELD=TITLE, or FIELD=3 for the third column, with semicolons between.",
        examples=["prefix=Code;rate=3"],
    )
    per: Literal["auto", "minute", "second"] = "auto"
    increments: Texts = "60/60"
    prefix_add: Annotated[str, StringConstraints(pattern="^[0-9]{0,10}$")] | None = None
    country_codes: Literal["auto", "split", "full"] = "auto"
    seconds_allowed: Texts = "1/1,60/60"
    date_format: Literal["auto", "iso", "day_first", "month_first"] = "auto"
    timezone: Texts = "UTC"
    end_inclusive: bool = True
    blocked_words: Texts | None = None
    status_active: Texts | None = None
    price_max: Texts = "1000"
    on_repeat: Literal["refuse", "first", "last"] = "refuse"

    def settings(self) -> SheetSettings:
        """What of this is about reading."""
        named = {one.name for one in fields(SheetSettings)} - {"column"}
        columns = tuple(part for part in self.columns.split(";") if part.strip())
        return SheetSettings(column=columns, **{name: getattr(self, name) for name in named})


class ChangeOut(Out):
    """What a version does to one prefix. Prices are of a call of 60 seconds, fees included."""

    status: Status
    prefix: str
    destination: str
    effective: datetime | None = Field(description="Null: at activation.")
    old_price: Money | None
    new_price: Money | None
    suspicious: bool

    @classmethod
    def of(cls, change: RateChange) -> Self:
        """Show a change."""
        return cls(**{name: getattr(change, name) for name in cls.model_fields})


class ChangeList(Out):
    """A page of changes, what deserves a look first; `next` is null on the last one."""

    items: list[ChangeOut]
    next: int | None


class RefusalOut(Out):
    """A line that was not taken, which cell of it is wrong, and why."""

    line: int
    field: str
    value: str
    reason: str
    raw: str

    @classmethod
    def of(cls, refusal: RateRefusal) -> Self:
        """Show a refusal."""
        return cls(**{name: getattr(refusal, name) for name in cls.model_fields})


class RefusalList(Out):
    """A page of refused lines in the order of the file; `next` is null on the last one."""

    items: list[RefusalOut]
    next: int | None


class ImportOut(Out):
    """What became of a sheet: rows_in = rows_stored + rows_refused + rows_repeated + rows_closing."""

    card: str
    currency: str
    version: int | None = Field(description="The draft that was stored; null for a dry run.")
    base_version: int | None
    mode: str
    dry_run: bool
    file_name: str
    sha256: str
    rows_in: int
    rows_stored: int
    rows_refused: int
    rows_repeated: int
    rows_closing: int
    row_count: int = Field(description="Rows of the card after activation.")
    counts: dict[Status, int]
    suspicious: int
    notes: list[str]
    columns: dict[str, str]
    timing_ms: dict[str, int]
    moves: list[ChangeOut] = Field(description="The largest moves of prices.")
    suspicious_rows: list[ChangeOut]
    refusals: list[RefusalOut] = Field(description="The first of them.")

    @classmethod
    def of(cls, report: ImportReport) -> Self:
        """Show a report."""
        values = {name: getattr(report, name) for name in cls.model_fields}
        values |= {
            "notes": list(report.notes),
            "moves": [ChangeOut.of(change) for change in report.moves],
            "suspicious_rows": [ChangeOut.of(change) for change in report.suspicious_rows],
            "refusals": [RefusalOut.of(refusal) for refusal in report.refusals],
        }
        return cls(**values)


class VersionOut(Out):
    """One import into a card; `summary` counts what it changes against `base_version`."""

    version: int
    status: Literal["draft", "active", "retired"]
    base_version: int | None
    replaced_version: int | None
    mode: str
    file_name: str
    sha256: str
    rows_in: int
    rows_stored: int
    rows_refused: int
    rows_repeated: int
    rows_closing: int
    row_count: int
    summary: dict[str, object]
    created_by: str
    created_at: datetime
    activated_at: datetime | None
    retired_at: datetime | None

    @classmethod
    def of(cls, version: RateVersion) -> Self:
        """Show a version."""
        values = {name: getattr(version, name) for name in cls.model_fields}
        return cls(**{**values, "summary": dict(version.summary)})


class VersionList(Out):
    """A page of versions, the newest first; `next` is null on the last one."""

    items: list[VersionOut]
    next: int | None


class Activation(In):
    """The draft to put in force."""

    version: VersionNumber
    force: bool = Field(
        default=False,
        description="Also if another version is active than the one it was compared with.",
    )


class RollBack(In):
    """Back to the version that was active before."""

    expected: VersionNumber | None = Field(
        default=None, description="The version believed to be active; another one is a conflict."
    )


class RowOut(Out):
    """A row of a card. Prices and surcharge are per minute, intervals and free_below are seconds."""

    row: int
    prefix: str
    destination: str
    blocked: bool
    first_price: Money
    next_price: Money
    first_interval: int
    next_interval: int
    connect_fee: Money
    attempt_fee: Money
    minimum: Money
    free_below: int
    surcharge: Money
    cap: Money | None
    valid_from: datetime | None
    valid_to: datetime | None

    @classmethod
    def of(cls, row: RateRow) -> Self:
        """Show a row."""
        tariff = row.tariff
        return cls(
            row=row.row_id,
            prefix=row.prefix,
            destination=row.destination,
            blocked=row.blocked,
            first_price=tariff.first_price,
            next_price=tariff.next_price,
            first_interval=tariff.first_interval,
            next_interval=tariff.next_interval,
            connect_fee=tariff.connect_fee,
            attempt_fee=tariff.attempt_fee,
            minimum=tariff.minimum,
            free_below=tariff.free_below,
            surcharge=tariff.surcharge,
            cap=tariff.cap,
            valid_from=row.valid_from,
            valid_to=row.valid_to,
        )


class OfferOut(Out):
    """The row of one card that matches a number."""

    card: str
    version: int
    currency: str
    rate: RowOut

    @classmethod
    def of(cls, match: Match) -> Self:
        """Show a match."""
        card = match.card
        rate = RowOut.of(match.row)
        return cls(card=card.code, version=card.version, currency=card.currency, rate=rate)


class LookupOut(OfferOut):
    """The row that prices a number, and the prices of calls of one and of three minutes."""

    number: str
    at: datetime
    price_60_seconds: Money
    price_180_seconds: Money

    @classmethod
    def found(cls, lookup: Lookup) -> Self:
        """Show what was found."""
        match = lookup.chosen
        return cls(
            card=match.card.code,
            version=match.card.version,
            currency=match.card.currency,
            rate=RowOut.of(match.row),
            number=lookup.number,
            at=lookup.at,
            price_60_seconds=lookup.prices[0],
            price_180_seconds=lookup.prices[1],
        )
