"""Routes of commissions: what parties earn by what was sold through them."""

from __future__ import annotations

from datetime import date, datetime
from decimal import Decimal
from typing import Annotated, Literal, Self

from fastapi import APIRouter, Path, Query
from pydantic import BeforeValidator, Field, PlainSerializer, StringConstraints, WithJsonSchema
from pydantic_core import PydanticCustomError

from tollkeeper.servers.api.auth import DOCUMENTED, ManageKey, ReadKey, actor_of, scope_of
from tollkeeper.servers.api.context import Context
from tollkeeper.servers.api.schemas import (
    ID_MAX,
    AfterNumber,
    Code,
    Currency,
    In,
    Money,
    Out,
    PageLimit,
    Positive,
)
from tollkeeper.services import commissions
from tollkeeper.services.commissions import Rule, Run

router = APIRouter(prefix="/v1/commissions", dependencies=DOCUMENTED, tags=["commissions"])

RuleId = Annotated[int, Path(alias="id", ge=1, le=ID_MAX, description="Number of the rule.")]
Period = Literal["day", "month"]
Service = Annotated[str, StringConstraints(pattern=r"^([a-z][a-z0-9_]{0,31})?$")]
Rate = Annotated[
    Decimal,
    PlainSerializer(lambda rate: f"{rate.normalize():f}", return_type=str),
    WithJsonSchema({"type": "string", "examples": ["1.0864"]}, mode="serialization"),
]


def _read_day(value: object) -> date:
    """A day in JSON is a text; a date that is one already is a default."""
    if isinstance(value, date) and not isinstance(value, datetime):
        return value
    try:
        return (
            date.fromisoformat(value) if isinstance(value, str) and len(value) == 10 else _no_day()
        )
    except ValueError:
        return _no_day()


def _no_day() -> date:
    raise PydanticCustomError("day", "give a day such as 2026-03-01")


Day = Annotated[
    date, BeforeValidator(_read_day), WithJsonSchema({"type": "string", "format": "date"})
]


class NewRule(In):
    """A commission to be agreed."""

    party: Code
    service: Service = Field(
        default="", description="Such as voice; empty: every service without a rule of its own."
    )
    basis: Literal["turnover", "margin"] = Field(
        description="turnover: what those directly below the party paid; margin: less what it paid itself."
    )
    percent: Positive = Field(le=100, description="With at most 6 decimals.")
    currency: Currency = Field(description="Of the party's wallet that is credited.")
    valid_from: Day
    valid_to: Day | None = Field(default=None, description="The first day without it (UTC).")


class RuleEnd(In):
    """The end of a rule."""

    valid_to: Day = Field(description="The first day without it (UTC).")


class PeriodIn(In):
    """A period that is over."""

    period: Period = "month"
    day: Day = Field(description="Any day of it (UTC).")


class RuleOut(Out):
    """A rule; `valid_to` is the first day without it, null while it has no end."""

    id: int
    party: str
    service: str
    basis: str
    percent: Rate
    currency: str
    valid_from: date
    valid_to: date | None

    @classmethod
    def of(cls, rule: Rule) -> Self:
        """Show a rule."""
        return cls(**{name: getattr(rule, name) for name in cls.model_fields})


class RuleList(Out):
    """A page of rules; `next` is null on the last one."""

    items: list[RuleOut]
    next: int | None


class LineOut(Out):
    """What was sold in one currency, and the exchange rate to the commission's."""

    currency: str
    turnover: Money
    own: Money
    rate: Rate
    rate_name: str


class CommissionOut(Out):
    """A rule worked out for the days from `begin` until before `end`.

    `turnover` and `own` are in `currency`. `id`, `entry`, `actor` and `time` are null while it is not
    posted; `entry` also where nothing was earned.
    """

    id: int | None
    rule: int
    party: str
    begin: date
    end: date
    service: str
    basis: str
    percent: Rate
    currency: str
    turnover: Money
    own: Money
    commission: Money
    lines: list[LineOut]
    entry: int | None
    actor: str | None
    time: datetime | None

    @classmethod
    def of(cls, run: Run) -> Self:
        """Show a commission."""
        same = (
            "party",
            "begin",
            "end",
            "service",
            "basis",
            "percent",
            "currency",
            "turnover",
            "own",
            "commission",
        )
        return cls(
            **{name: getattr(run, name) for name in same},
            id=run.id or None,
            rule=run.rule_id,
            lines=[
                LineOut(**{name: getattr(line, name) for name in LineOut.model_fields})
                for line in run.lines
            ],
            entry=run.entry_id,
            actor=run.actor or None,
            time=run.at,
        )


class CommissionList(Out):
    """A page of posted commissions; `next` is null on the last one."""

    items: list[CommissionOut]
    next: int | None


PartyFilter = Annotated[Code | None, Query(description="Only this party's.")]


@router.post("/rules", status_code=201)
async def add_commission_rule(body: NewRule, context: Context, key: ManageKey) -> RuleOut:
    """Agree a commission with a party."""
    fields = {name: getattr(body, name) for name in type(body).model_fields}
    rule = await commissions.add_rule(context.database, Rule(**fields), actor=actor_of(key))
    return RuleOut.of(rule)


@router.get("/rules")
async def list_commission_rules(
    context: Context,
    _: ReadKey,
    party: PartyFilter = None,
    limit: PageLimit = 100,
    after: AfterNumber = 0,
) -> RuleList:
    """List the rules of commissions."""
    found = await commissions.list_rules(
        context.database, party=party, after=after, limit=limit + 1
    )
    items = [RuleOut.of(rule) for rule in found[:limit]]
    return RuleList(items=items, next=items[-1].id if len(found) > limit else None)


@router.post("/rules/{id}/end")
async def end_commission_rule(
    id_: RuleId, body: RuleEnd, context: Context, key: ManageKey
) -> RuleOut:
    """Let a rule count no longer from a day on."""
    rule = await commissions.end_rule(
        context.database, id_, valid_to=body.valid_to, actor=actor_of(key)
    )
    return RuleOut.of(rule)


@router.get("/rules/{id}/statement")
async def preview_commission(
    id_: RuleId,
    context: Context,
    _: ReadKey,
    day: Annotated[Day, Query(description="Any day of the period (UTC).")],
    period: Period = "month",
) -> CommissionOut:
    """Work a commission out for a period as the journal stands now; nothing is posted."""
    run = await commissions.preview(context.database, id_, period=period, day=day)
    return CommissionOut.of(run)


@router.post("/rules/{id}/runs", status_code=201)
async def post_commission(
    id_: RuleId, body: PeriodIn, context: Context, key: ManageKey
) -> CommissionOut:
    """Pay a commission for a period that is over; asked for again, it is what was paid."""
    run = await commissions.post_run(
        context.database,
        id_,
        period=body.period,
        day=body.day,
        actor=actor_of(key),
        clock=context.clock,
    )
    return CommissionOut.of(run)


@router.get("")
async def list_commissions(
    context: Context,
    key: ReadKey,
    party: PartyFilter = None,
    limit: PageLimit = 100,
    after: AfterNumber = 0,
) -> CommissionList:
    """List the commissions that were posted."""
    found = await commissions.list_runs(
        context.database, party=party, after=after, limit=limit + 1, scope=scope_of(key)
    )
    items = [CommissionOut.of(run) for run in found[:limit]]
    return CommissionList(items=items, next=found[limit - 1].id if len(found) > limit else None)
