"""What the routes of re-rating take and give, as the OpenAPI document shows it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Literal, Self

from fastapi import Path
from pydantic import Field, StringConstraints

from tollkeeper.errors import InvalidInput
from tollkeeper.servers.api.cdr_schemas import Id
from tollkeeper.servers.api.schemas import Code, In, Moment, Money, Out
from tollkeeper.services.cdr.rerate import Change, RateChoice, RerateReport
from tollkeeper.services.fields import check_moment

CHANGES_MAX = 1_000
"""Changes that a re-rating lists one by one, the largest first."""

BatchPath = Annotated[Id, Path(alias="batch", description="Number of the re-rating's batch.")]
Destination = Annotated[str, StringConstraints(min_length=1, max_length=200)]
Digits = Annotated[str, StringConstraints(pattern=r"^[0-9]{1,15}$")]


class Rerate(In):
    """What is priced anew, and by which rates; without `apply` nothing is written."""

    from_: Moment = Field(alias="from", description="Calls that began then or later.")
    to: Moment = Field(description="Calls that began before.")
    customer: Code | None = None
    vendor: Code | None = None
    called: Digits | None = Field(default=None, description="What called numbers begin with.")
    destination: Destination | None = None
    file: Id | None = None
    cards: dict[Code, Annotated[int, Field(ge=1, le=2**31 - 1)]] = Field(
        default={}, max_length=100, description="Versions to use of cards, by their codes."
    )
    as_of_call: bool = Field(
        default=False,
        description="Price by the version in force when the call began, not by the present one.",
    )
    apply: bool = False
    reason: str = Field(default="", max_length=500, description="Why; needed to apply.")

    def moment(self, name: str) -> datetime:
        """Return one of the two ends.

        Raises:
            InvalidInput: it is missing, or beyond what can be stored.
        """
        given: datetime | None = self.from_ if name == "from" else self.to
        if given is None:
            raise InvalidInput(f"{name}: this is needed", field=name)
        return check_moment(given, field=name)

    def choice(self) -> RateChoice:
        """Return which rates are meant."""
        return RateChoice(as_of_call=self.as_of_call, pinned=dict(self.cards))


class ChangeOut(Out):
    """What changes for one party and destination."""

    side: Literal["sell", "buy", "resell"]
    party: str
    destination: str
    currency: str
    calls: int
    was: Money
    amount: Money
    difference: Money

    @classmethod
    def of(cls, change: Change) -> Self:
        """Show it."""
        return cls(**{name: getattr(change, name) for name in cls.model_fields})


class TotalOut(Out):
    """What changes in one currency, on one side."""

    side: Literal["sell", "buy", "resell"]
    currency: str
    was: Money
    amount: Money
    difference: Money


class RerateOut(Out):
    """What a re-rating changes; `batch` is null for a dry run."""

    batch: int | None
    records: int
    changed: int
    unpriced: int = Field(description="Records without a rate now; they stay as they are.")
    live: int = Field(description="Charged live; their customer's leg stays as it is.")
    totals: list[TotalOut]
    changes: list[ChangeOut] = Field(description="The largest first; a thousand at most.")

    @classmethod
    def of(cls, report: RerateReport) -> Self:
        """Show it."""
        return cls(
            batch=report.batch_id,
            records=report.records,
            changed=report.changed,
            unpriced=report.unpriced,
            live=report.live,
            totals=totals_of(report.changes),
            changes=[ChangeOut.of(change) for change in report.changes[:CHANGES_MAX]],
        )


def totals_of(changes: Sequence[Change]) -> list[TotalOut]:
    """Add changes up by side and currency."""
    sums: dict[tuple[str, str], tuple[Decimal, Decimal]] = {}
    for one in changes:
        was, amount = sums.get((one.side, one.currency), (Decimal(0), Decimal(0)))
        sums[one.side, one.currency] = (was + one.was, amount + one.amount)
    return [
        TotalOut.model_validate(
            {"side": side, "currency": currency, "was": was, "amount": amount,
             "difference": amount - was}
        )
        for (side, currency), (was, amount) in sorted(sums.items())
    ]  # fmt: skip
