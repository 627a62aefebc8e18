"""Routes of exchange rates, and of where North American office codes lie."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from typing import Annotated, Literal, Self

from fastapi import APIRouter, Query, Request
from pydantic import BeforeValidator, Field, PlainSerializer, StringConstraints, WithJsonSchema
from pydantic_core import PydanticCustomError

from tollkeeper.core.money import plain
from tollkeeper.servers.api.auth import DOCUMENTED, ManageKey, ReadKey, actor_of, scope_of
from tollkeeper.servers.api.context import Context
from tollkeeper.servers.api.rates import file_body, sheet_of
from tollkeeper.servers.api.schemas import Currency, In, Out, PageLimit
from tollkeeper.services import fx
from tollkeeper.services.scope import operator_only
from tollkeeper.wire.fx_csv import BadLine, read_day

router = APIRouter(prefix="/v1", dependencies=DOCUMENTED)

REFUSALS_SHOWN = 100


def _read_day(value: object) -> date | None:
    if value is None or isinstance(value, date):
        return value
    day = read_day(value) if isinstance(value, str) else None
    if day is None:
        raise PydanticCustomError("day", "give a day such as 2026-03-01")
    return day


Day = Annotated[
    date,
    BeforeValidator(_read_day),
    WithJsonSchema({"type": "string", "format": "date", "examples": ["2026-03-01"]}),
]


def _read_rate(value: object) -> Decimal:
    if isinstance(value, Decimal):
        return value
    whole, dot, part = value.partition(".") if isinstance(value, str) else ("", "", "")
    digits = whole.isascii() and whole.isdigit() and len(whole) <= 15
    if not digits or (dot and not (part.isascii() and part.isdigit() and len(part) <= 12)):
        raise PydanticCustomError(
            "rate", 'a rate is a string such as "1.0847", with at most 12 decimals'
        )
    return Decimal(str(value))


Rate = Annotated[
    Decimal,
    BeforeValidator(_read_rate),
    PlainSerializer(plain, return_type=str),
    WithJsonSchema(
        {
            "type": "string",
            "pattern": r"^(?=.*[1-9])[0-9]{1,15}(\.[0-9]{1,12})?$",
            "examples": ["1.0847"],
        }
    ),
]


class NewRate(In):
    """What one unit of `base` costs in `quote`, from `day` on until the next rate."""

    base: Currency
    quote: Currency
    day: Day
    rate: Rate


class RateOut(Out):
    """One unit of `base` costs `rate` units of `quote`; `source` is set, file or ecb."""

    base: str
    quote: str
    day: Day
    rate: Rate
    source: str

    @classmethod
    def of(cls, rate: fx.DatedRate) -> Self:
        """Show a rate."""
        return cls(
            base=rate.base, quote=rate.quote, day=rate.day, rate=rate.rate, source=rate.source
        )


class RateList(Out):
    """A page of exchange rates, the newest first; `next` is null on the last one."""

    items: list[RateOut]
    next: str | None


class BadLineOut(Out):
    """A line that was not taken, and why."""

    line: int
    reason: str
    text: str

    @classmethod
    def some(cls, lines: tuple[BadLine, ...]) -> list[Self]:
        """Show the first of them."""
        return [cls(line=x.line, reason=x.reason, text=x.text) for x in lines[:REFUSALS_SHOWN]]


class FxImportOut(Out):
    """What became of a file: `given` = `added` + `corrected` + `unchanged`, beside `refused` lines."""

    format: str
    given: int
    added: int
    corrected: int
    unchanged: int
    refused: int
    first_day: Day | None
    last_day: Day | None
    refusals: list[BadLineOut] = Field(description="The first hundred.")


class PlaceImportOut(Out):
    """What became of a file: `changed` office codes are new or lie elsewhere; `known` are there now."""

    given: int
    changed: int
    known: int
    refused: int
    refusals: list[BadLineOut] = Field(description="The first hundred.")


After = Annotated[
    str,
    Query(
        pattern=r"^([0-9]{4}-[0-9]{2}-[0-9]{2}/[A-Z]{3}/[A-Z]{3})?$",
        description="`next` of the page before.",
    ),
]
Wanted = Annotated[str | None, StringConstraints(pattern="^[A-Z]{3}$"), Query()]


@router.get("/fx-rates", tags=["exchange rates"])
async def list_fx_rates(
    context: Context,
    key: ReadKey,
    base: Wanted = None,
    quote: Wanted = None,
    day: Annotated[
        Day | None, Query(description="Of each pair the last one until that day.")
    ] = None,
    limit: PageLimit = 100,
    after: After = "",
) -> RateList:
    """List exchange rates, the newest day first."""
    last = None
    if after:
        text, last_base, last_quote = after.split("/")
        last_day = read_day(text)
        last = None if last_day is None else (last_day, last_base, last_quote)
    found = await fx.list_rates(
        context.database,
        base=base,
        quote=quote,
        day=day,
        before=last,
        limit=limit + 1,
        scope=scope_of(key),
    )
    items = [RateOut.of(rate) for rate in found[:limit]]
    more = len(found) > limit
    end = items[-1] if more else None
    return RateList(items=items, next=f"{end.day}/{end.base}/{end.quote}" if end else None)


@router.post("/fx-rates", status_code=201, tags=["exchange rates"])
async def set_fx_rate(body: NewRate, context: Context, key: ManageKey) -> RateOut:
    """Set the rate of a day, or correct it; what was charged keeps the rate it was charged at."""
    if scope_of(key) is not None:
        raise operator_only("exchange rates are set")
    made = await fx.set_rate(
        context.database,
        base=body.base,
        quote=body.quote,
        day=body.day,
        rate=body.rate,
        actor=actor_of(key),
    )
    return RateOut.of(made)


@router.post(
    "/fx-rates/imports",
    status_code=201,
    tags=["exchange rates"],
    openapi_extra=file_body(
        "Lines base,quote,day,rate, or a file of the ECB (XML, CSV or zip); at most 16 MiB."
    ),
)
async def import_fx_rates(context: Context, key: ManageKey, request: Request) -> FxImportOut:
    """Import a file of exchange rates; good lines are kept, bad ones told."""
    if scope_of(key) is not None:
        raise operator_only("exchange rates are imported")
    data, name = await sheet_of(request)
    report = await fx.import_rates(
        context.database, data, file_name=name[:255], actor=actor_of(key)
    )
    return FxImportOut(
        format=report.format,
        given=report.given,
        added=report.added,
        corrected=report.corrected,
        unchanged=report.unchanged,
        refused=len(report.refused),
        first_day=report.first_day,
        last_day=report.last_day,
        refusals=BadLineOut.some(report.refused),
    )


@router.post(
    "/nanp/imports",
    status_code=201,
    tags=["rates"],
    openapi_extra=file_body(
        "Lines npa,nxx,state,lata,ocn or npanxx,state,lata,ocn with titles; at most 32 MiB."
    ),
)
async def import_office_codes(
    context: Context,
    key: ManageKey,
    request: Request,
    mode: Annotated[
        Literal["full", "partial"],
        Query(description="full forgets the office codes that are not in the file."),
    ] = "partial",
) -> PlaceImportOut:
    """Import where North American office codes lie, for prices by jurisdiction."""
    if scope_of(key) is not None:
        raise operator_only("office codes are imported")
    data, name = await sheet_of(request)
    report = await fx.import_places(
        context.database, data, file_name=name[:255], replace=mode == "full", actor=actor_of(key)
    )
    return PlaceImportOut(
        given=report.given,
        changed=report.changed,
        known=report.known,
        refused=len(report.refused),
        refusals=BadLineOut.some(report.refused),
    )
