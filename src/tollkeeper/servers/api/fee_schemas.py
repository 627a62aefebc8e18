"""What the routes of fees take and give, as the OpenAPI document shows it."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal, Self

from fastapi import Path, Query
from pydantic import Field, StringConstraints

from tollkeeper.servers.api.fx import Day
from tollkeeper.servers.api.schemas import (
    ID_MAX,
    Code,
    Currency,
    In,
    Money,
    Name,
    Out,
    Positive,
)
from tollkeeper.services.commitments import Commitment
from tollkeeper.services.fees import GRACE_DAYS, Fee

FeeId = Annotated[int, Path(ge=1, le=ID_MAX, description="Id of the fee.")]
FeeStatus = Annotated[
    Literal["", "active", "ended", "lapsed"], Query(description="Only those in this state.")
]
Digits = Annotated[str, StringConstraints(pattern=r"^[0-9]{1,15}$")]


class NewFee(In):
    """A fee of a party: `amount` and `currency`, or `called` (and `service`) for the price of its plan."""

    party: Code
    name: Name
    period: Literal["once", "day", "week", "month"]
    amount: Positive | None = None
    currency: Currency | None = None
    service: Literal["fee", "did", "did_setup", "esim", "lookup", "lookup_cached", "ivr"] = "fee"
    called: Digits | None = Field(
        default=None, description="Digits by which the cards of each level price it."
    )
    begins_on: Day | None = Field(
        default=None, description="A day of the party's; today if left out."
    )
    ends_on: Day | None = Field(default=None, description="The first day without the fee.")
    prorate: bool = Field(
        default=True, description="The first and last term cost only the days that they have."
    )
    grace_days: Annotated[int, Field(ge=0, le=366)] = Field(
        default=GRACE_DAYS, description="For how long a charge that is refused is tried again."
    )


class FeeEnd(In):
    """When a fee ends."""

    ends_on: Day | None = Field(
        default=None, description="The first day without the fee; today if left out."
    )


class FeeOut(Out):
    """A fee. `paid_until` is the first day that is not paid; `reason` why the last charge was refused.

    `status`: active, ended, or lapsed (not paid for `grace_days`).
    """

    id: int
    party: str
    name: str
    service: str
    called: str
    amount: Money | None
    currency: str
    period: str
    begins_on: Day
    ends_on: Day | None
    prorate: bool
    grace_days: int
    status: str
    paid_until: Day
    next_at: datetime | None
    reason: str
    created_at: datetime

    @classmethod
    def of(cls, fee: Fee) -> Self:
        """Show a fee."""
        return cls(**{name: getattr(fee, name) for name in cls.model_fields})


class FeeList(Out):
    """A page of fees; `next` is null on the last one."""

    items: list[FeeOut]
    next: int | None


class CommitmentOut(Out):
    """A party's minimum in a month of its own, from `from_on` on.

    `status`: open (the month is on), due (the shortfall is being charged), charged, met, or lapsed (it
    was refused for 30 days). `amount` is what was due for these days, `spent` what was used.
    """

    party: str
    month: Day
    from_on: Day
    plan: str
    agreed: Money
    currency: str
    status: str
    amount: Money | None
    spent: Money | None
    shortfall: Money | None
    reason: str

    @classmethod
    def of(cls, month: Commitment, *, own: bool) -> Self:
        """Show a month; ``own``: as a party may see it, to whom its plan is not told."""
        fields = {name: getattr(month, name) for name in cls.model_fields}
        return cls(**{**fields, "plan": ""} if own else fields)


class CommitmentList(Out):
    """The newest months first."""

    items: list[CommitmentOut]
