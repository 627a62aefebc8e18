"""What the routes of usage records take and give, as the OpenAPI document shows it."""

from __future__ import annotations

from dataclasses import fields
from datetime import date, datetime
from decimal import Decimal
from typing import Annotated, Literal, Self

from fastapi import Query
from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, WithJsonSchema

from tollkeeper.core.usage import TEXT_MAX
from tollkeeper.servers.api.schemas import Code, Moment, Money, Out
from tollkeeper.services.fields import INTEGER_MAX, ZONE_PATTERN
from tollkeeper.services.usage_files import mos_text
from tollkeeper.services.usage_search import CURSOR_PATTERN, HourSum, UsageQuery, UsageView

_TEXT = r"^[^\x00]*[^\x00\s][^\x00]*$"
Text = Annotated[str, Field(min_length=1, max_length=TEXT_MAX, pattern=_TEXT)]
Percent = Annotated[
    Decimal,
    PlainSerializer(str, return_type=str),
    WithJsonSchema({"type": "string", "examples": ["48.21"]}, mode="serialization"),
]
Dimension = Literal[
    "day", "hour", "customer", "vendor", "trunk_in", "trunk_out", "service", "destination", "prefix"
]


class _Span(BaseModel):
    """The time, and whose traffic."""

    model_config = ConfigDict(extra="forbid")

    from_: Moment = Field(
        None,
        alias="from",
        description="Calls that began then or later. Left out, it is one day, or all there is for "
        "one number or call.",
    )
    to: Moment = Field(None, description="Calls that began before.")
    customer: Code | None = Field(None, description="Code of the customer.")
    vendor: Code | None = Field(None, description="Code of the vendor.")


class RecordQuery(_Span):
    """Which records."""

    called: Text | None = Field(
        None,
        description="The number called. With `*` at its end, what it begins with: then in 31 days "
        "at most.",
        examples=["442071838750", "4420*"],
    )
    caller: Text | None = Field(None, description="The number calling.")
    call_id: Text | None = Field(None, description="The switch's id of the call.")

    def query(self, after: str = "") -> UsageQuery:
        """The same as the services know it."""
        return UsageQuery(
            since=self.from_,
            until=self.to,
            called=self.called,
            caller=self.caller,
            call_id=self.call_id,
            customer=self.customer,
            vendor=self.vendor,
            after=after,
        )


class SearchQuery(RecordQuery):
    """Which records, and which page of them."""

    limit: int = Field(100, ge=1, le=1000, description="Records at most.")
    after: str = Field("", pattern=CURSOR_PATTERN, description="`next` of the page before.")


class ExportQuery(RecordQuery):
    """Which records, in which form."""

    format: Literal["csv", "xlsx", "parquet"] = "csv"
    timezone: str | None = Field(
        None,
        pattern=ZONE_PATTERN,
        description="Zone of the times. Left out: the customer's, else the vendor's, else UTC.",
        examples=["Europe/Rome"],
    )


class ReportQuery(_Span):
    """Which hours, and what the sums are grouped by."""

    by: str = Field(
        "customer",
        pattern=r"^([a-z_]{1,20}(,[a-z_]{1,20}){0,8})?$",
        description="Some of day, hour, customer, vendor, trunk_in, trunk_out, service, "
        "destination, prefix, with commas between; always by the currencies too.",
        examples=["day,customer"],
    )
    currency: str | None = Field(
        None,
        pattern="^[A-Z]{3}$",
        description="Convert all money into it, by the exchange rate of each day.",
        examples=["EUR"],
    )
    limit: int = Field(1000, ge=1, le=10_000, description="Groups at most.")
    skip: int = Field(0, ge=0, le=INTEGER_MAX, description="`next` of the page before.")

    @property
    def dimensions(self) -> tuple[str, ...]:
        """What the sums are grouped by."""
        return tuple(name for name in self.by.split(",") if name)


Search = Annotated[SearchQuery, Query()]
Export = Annotated[ExportQuery, Query()]
Report = Annotated[ReportQuery, Query()]


class RecordOut(Out):
    """A record. Durations are milliseconds, billed time seconds; `mos` is a decimal of 1 to 5.

    Legs are at their present value: what was re-rated is shown as re-rated. `day`, `batch` and
    `line` name the record; `file` and `switch` say where it came from.
    """

    start: datetime
    answer: datetime | None
    duration_ms: int
    call_id: str
    leg: str
    caller: str
    called: str
    service: str
    destination: str
    customer: str
    trunk_in: str
    vendor: str
    trunk_out: str
    state: str
    sip: int | None
    q850: int | None
    pdd_ms: int | None
    mos: str | None
    sell_card: str
    sell_card_version: int
    sell_prefix: str
    sell_billed: int
    charge: Money
    sell_currency: str
    buy_card: str
    buy_card_version: int
    buy_prefix: str
    buy_billed: int
    cost: Money
    buy_currency: str
    session_id: str
    switch: str
    file: str
    day: date
    batch: int
    line: int

    @classmethod
    def of(cls, view: UsageView) -> Self:
        """Show a record."""
        values = {field.name: getattr(view, field.name) for field in fields(view)}
        return cls(**{**values, "mos": mos_text(view.mos)})


class RecordList(Out):
    """A page of records in the order of their start; `next` is null on the last one.

    A page may be short, even empty, and not be the last: looking took long. Go on with `next`.
    """

    items: list[RecordOut]
    next: str | None


class SumOut(Out):
    """Sums of one group; what was not asked for is null or empty.

    `asr` and `ner` are percent; `acd_ms` is per answered call; `margin` is null where the
    currencies differ, `margin_percent` is of the revenue.
    """

    day: date | None
    hour: datetime | None
    customer: str
    vendor: str
    trunk_in: str
    trunk_out: str
    service: str
    destination: str
    prefix: str
    sell_currency: str
    buy_currency: str
    attempts: int
    answers: int
    effective: int
    duration_ms: int
    sell_billed: int
    buy_billed: int
    revenue: Money
    cost: Money
    margin: Money | None
    margin_percent: Percent | None
    asr: Percent | None
    ner: Percent | None
    acd_ms: int | None
    pdd_average_ms: int | None

    @classmethod
    def of(cls, group: HourSum) -> Self:
        """Show a group."""
        return cls(**{name: getattr(group, name) for name in cls.model_fields})


class SumList(Out):
    """Groups in the order of what they are grouped by; `next` is null on the last page.

    `unconverted` are the currencies that no exchange rate leads from: their groups are as they were.
    """

    items: list[SumOut]
    next: int | None
    unconverted: list[str]
