"""What the routes of telephone numbers take and give, as the OpenAPI document shows it."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal, Self

from fastapi import Path, Query
from pydantic import Field, StringConstraints

from tollkeeper.servers.api.fx import BadLineOut
from tollkeeper.servers.api.schemas import ID_MAX, Code, In, Money, Out
from tollkeeper.servers.api.supply_schemas import RequestId, reason_text
from tollkeeper.services.dids import Did, DidEvent, DidOrder

NumberPath = Annotated[
    str, Path(pattern=r"^\+?[0-9]{1,32}$", description="The number, in E.164 digits.")
]
OrderId = Annotated[int, Path(ge=1, le=ID_MAX, description="Id of the order.")]
Prefix = Annotated[
    str, Query(pattern=r"^(\+?[0-9]{1,15})?$", description="Only numbers that begin so.")
]
Pattern = Annotated[
    str,
    Query(
        pattern=r"^[0-9*?]{0,32}$",
        description="Only numbers that look so: `*` are any digits, `?` is one. Instead of `prefix`.",
    ),
]
Country = Annotated[
    str, Query(pattern=r"^([A-Z]{2})?$", description="Only of this country (ISO 3166).")
]
KindFilter = Annotated[Literal["", "geographic", "mobile", "toll-free"], Query()]
DidStatus = Annotated[
    Literal["", "available", "ordered", "assigned", "quarantined", "released"],
    Query(description="Only those in this state."),
]
AfterDid = Annotated[
    str, Query(pattern=r"^([0-9]{1,15})?$", description="`next` of the page before.")
]
Destination = Annotated[
    str,
    StringConstraints(pattern=r"^[!-~]{0,200}$"),
    Field(
        description="Where calls go, as your switch reads it.", examples=["sip:desk@pbx.example"]
    ),
]


class DidOut(Out):
    """A number. What concerns the operator alone is empty where a party looks.

    `status`: available, ordered (somebody does at this moment), assigned, quarantined (nobody gets it
    until `quarantine_until`), or released (not ours any more).
    """

    number: str
    country: str
    kind: str
    item: str = Field(description="Digits by which cards price it; empty: its own.")
    status: str
    party: str
    destination: str
    supplier: str
    quarantine_days: int
    grace_days: int
    assigned_at: datetime | None
    released_at: datetime | None
    quarantine_until: datetime | None

    @classmethod
    def of(cls, did: Did) -> Self:
        """Show a number."""
        return cls(**{name: getattr(did, name) for name in cls.model_fields})


class DidList(Out):
    """A page of numbers, in their order; `next` is null on the last one."""

    items: list[DidOut]
    next: str | None


class DidChange(In):
    """What its party may say of a number."""

    destination: Destination


class DidOrderIn(In):
    """An order of a number; with `supplier` (the operator only) from there and not from our inventory."""

    request_id: RequestId
    party: Code
    number: Annotated[str, StringConstraints(min_length=1, max_length=64)]
    supplier: Code | None = None
    item: Annotated[str, StringConstraints(pattern=r"^[0-9]{0,15}$")] = Field(
        default="", description="Digits by which cards price a supplier's number; empty: its own."
    )


class DidOrderOut(Out):
    """An order. `charge` is the set-up fee; the monthly one is the fee `fee_id`.

    `status`: pending (its supplier has not delivered yet), done, or refused (`reason`; nothing is paid).
    """

    id: int
    request_id: str
    party: str
    number: str
    status: str
    reason: str
    reason_text: str
    charge: Money | None
    currency: str
    fee_id: int
    created_at: datetime
    ended_at: datetime | None

    @classmethod
    def of(cls, order: DidOrder) -> Self:
        """Show an order."""
        names = [name for name in cls.model_fields if name != "reason_text"]
        fields = {name: getattr(order, name) for name in names}
        return cls(**fields, reason_text=reason_text(order.reason))


class DidEventOut(Out):
    """Something that happened to a number."""

    at: datetime
    event: str
    party: str
    detail: str


class DidHistory(Out):
    """The oldest first."""

    items: list[DidEventOut]

    @classmethod
    def of(cls, events: list[DidEvent], *, own: bool) -> Self:
        """Show a history; ``own``: as a party may see it, not the supplier's name."""
        return cls(
            items=[
                DidEventOut(
                    at=one.at,
                    event=one.event,
                    party=one.party,
                    detail="" if own and one.event == "ordered" else one.detail,
                )
                for one in events
            ]
        )


class DidImportOut(Out):
    """What became of a file: `given` = `added` + `known`, beside `refused` lines."""

    given: int
    added: int
    known: int
    refused: int
    refusals: list[BadLineOut] = Field(description="The first hundred.")
