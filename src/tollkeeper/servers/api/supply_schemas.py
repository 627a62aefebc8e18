"""What the routes of suppliers, orders, lookups and eSIMs take and give, as OpenAPI shows it."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal, Self

from fastapi import Path, Query
from pydantic import Field, StringConstraints

from tollkeeper.core.reasons import MEANINGS, Reason
from tollkeeper.servers.api.schemas import Code, In, Money, Out
from tollkeeper.services.esims import Catalogued, Esim
from tollkeeper.services.lookups import Query as LookupQuery
from tollkeeper.services.purchases import Purchase
from tollkeeper.services.suppliers import SECRET_MAX, Supplier, Tried

SupplierPath = Annotated[Code, Path(alias="code", description="Code of the supplier.")]
OrderPath = Annotated[
    str,
    Path(pattern=r"^[0-9a-f-]{36}$", description="Our id of the order."),
]
IccidPath = Annotated[str, Path(pattern=r"^[0-9]{18,20}F?$", description="ICCID of the profile.")]
PartyFilter = Annotated[
    str, Query(pattern=r"^([A-Za-z0-9][A-Za-z0-9._-]{0,62})?$", description="Only this party's.")
]
PurchaseStatus = Annotated[
    Literal["", "new", "held", "ordered", "unknown", "done", "refused", "cancelled"],
    Query(description="Only those in this state."),
]
EsimStatus = Annotated[
    Literal["", "ordered", "active", "expired", "released"],
    Query(description="Only those in this state."),
]
ServiceFilter = Annotated[
    str, Query(pattern=r"^([a-z][a-z0-9_]{0,31})?$", description="Only of this service.")
]
Kind = Literal["esim", "lookup", "did", "sms"]
KindFilter = Annotated[
    Literal["", "esim", "lookup", "did", "sms"], Query(description="Only these.")
]
Operation = Literal["order", "status", "cancel", "activate", "release", "lookup", "search"]
RequestId = Annotated[
    Code,
    Field(description="Your own name of the request. The same one again is the same request."),
]
Text = Annotated[str, StringConstraints(max_length=200, pattern=r"^[^\x00-\x1f\x7f-\x9f]*$")]
Address = Annotated[
    str,
    StringConstraints(min_length=1, max_length=1000),
    Field(
        description='Where its paths begin; "null:" is a supplier that only pretends.',
        examples=["https://api.supplier.example/v2"],
    ),
]
Secret = Annotated[
    str,
    StringConstraints(max_length=SECRET_MAX),
    Field(description="What templates call {secret}. Never shown again."),
]
Settings = Annotated[
    dict[str, Any],
    Field(
        description="Operations, items, timeouts: see the how-to on connecting a supplier. They are "
        "replaced as a whole."
    ),
]


class NewSupplier(In):
    """A supplier to be added."""

    code: Code
    kind: Kind
    base_url: Address
    secret: Secret = ""
    settings: Settings = Field(default_factory=dict)
    enabled: bool = True

    def supplier(self) -> Supplier:
        """Return what is to be added."""
        return Supplier(**{name: getattr(self, name) for name in NewSupplier.model_fields})


class SupplierChange(In):
    """Fields to change; what is left out stays."""

    base_url: Address = ""
    secret: Secret = ""
    settings: Settings = Field(default_factory=dict)
    enabled: bool = True

    def changes(self) -> dict[str, Any]:
        """Return only what was given."""
        return {name: getattr(self, name) for name in self.model_fields_set}


class SupplierOut(Out):
    """A supplier. `has_secret` tells whether it has one; the secret itself is never shown."""

    code: str
    kind: str
    base_url: str
    has_secret: bool
    settings: dict[str, Any]
    enabled: bool
    created_at: datetime

    @classmethod
    def of(cls, supplier: Supplier) -> Self:
        """Show a supplier."""
        names = [name for name in cls.model_fields if name != "has_secret"]
        fields = {name: getattr(supplier, name) for name in names}
        return cls(**fields, has_secret=bool(supplier.secret))


class SupplierList(Out):
    """A page of suppliers; `next` is null on the last one."""

    items: list[SupplierOut]
    next: str | None


class TryIn(In):
    """One question to a supplier. It is really asked: an order that is tried is placed."""

    operation: Operation
    number: Text = ""
    item: Text = ""
    order_id: Code = "test"
    reference: Text = ""
    kind: Text = ""
    query: Text = ""

    def values(self) -> dict[str, str]:
        """Return what templates may say."""
        names = ("number", "item", "order_id", "reference", "kind", "query")
        found = {name: getattr(self, name) for name in names}
        return {**found, "called": self.number, "party": "test"}


class TriedOut(Out):
    """What was understood of the answer: done, pending, absent, refused, unknown or unreachable."""

    outcome: str
    detail: str
    fields: dict[str, Any]

    @classmethod
    def of(cls, tried: Tried) -> Self:
        """Show it."""
        return cls(outcome=tried.outcome, detail=tried.detail, fields=dict(tried.fields))


class PurchaseOut(Out):
    """An order. `supplier`, `detail` and `answer` are empty where a party looks."""

    id: int
    order_id: str
    request_id: str
    party: str
    service: str
    item: str
    called: str
    status: str
    reason: str
    reason_text: str
    charge: Money | None
    currency: str
    created_at: datetime
    ended_at: datetime | None
    settled_at: datetime | None
    supplier: str
    detail: str
    attempts: int
    next_at: datetime | None
    answer: dict[str, Any]

    @classmethod
    def of(cls, order: Purchase, *, own: bool) -> Self:
        """Show an order; ``own``: as a party may see it."""
        hidden: dict[str, Any] = {
            "supplier": "",
            "detail": "",
            "attempts": 0,
            "next_at": None,
            "answer": {},
        }
        names = [n for n in cls.model_fields if n != "reason_text" and not (own and n in hidden)]
        fields: dict[str, Any] = {name: getattr(order, name) for name in names}
        return cls(**(hidden if own else {}), **fields, reason_text=reason_text(order.reason))


class PurchaseList(Out):
    """A page of orders; `next` is null on the last one."""

    items: list[PurchaseOut]
    next: int | None


class ResolveIn(In):
    """What became of an order of which nobody can tell; `ask` lets the supplier be asked again."""

    outcome: Literal["done", "refused", "ask"]
    answer: dict[Code, Text] = Field(
        default_factory=dict,
        max_length=20,
        description="For `done`: what the supplier delivered, such as the iccid of an eSIM.",
    )


class LookupIn(In):
    """A question about a number."""

    request_id: RequestId
    party: Code
    number: Annotated[str, StringConstraints(min_length=1, max_length=64, pattern=r"^[ -~]+$")]
    kind: Annotated[str, StringConstraints(pattern=r"^[a-z0-9_]{1,20}$")] = "hlr"


class LookupOut(Out):
    """A question and what came of it.

    `outcome`: answered, not_found (the supplier does not know the number), failed (it did not answer:
    refunded) or refused (`reason`: there is no money, or no price). `charge` is what it cost in the end.
    """

    request_id: str
    party: str
    number: str
    kind: str
    outcome: Literal["answered", "not_found", "failed", "refused"]
    reason: str
    reason_text: str
    cached: bool
    answer: dict[str, Any]
    charge: Money | None
    currency: str
    created_at: datetime

    @classmethod
    def of(cls, query: LookupQuery) -> Self:
        """Show a question."""
        outcomes: dict[str, Literal["answered", "not_found", "failed", "refused"]] = {
            "done": "answered",
            "not_found": "not_found",
            "failed": "failed",
        }
        return cls(
            request_id=query.request_id,
            party=query.party,
            number=query.number,
            kind=query.kind,
            outcome=outcomes.get(query.status, "refused"),
            reason=query.reason,
            reason_text=reason_text(query.reason),
            cached=query.cached,
            answer=dict(query.answer) if query.status == "done" else {},
            charge=query.charge,
            currency=query.currency,
            created_at=query.created_at,
        )


class EsimIn(In):
    """An order of an eSIM profile."""

    request_id: RequestId
    party: Code
    item: Code = Field(description="Code of an item of the catalogue.")


class EsimOut(Out):
    """A profile. `bytes_left` of its volume can still be used; null: it has none, or not yet."""

    id: int
    iccid: str
    party: str
    order_id: str
    item: str
    status: Literal["ordered", "active", "expired", "released"]
    activation_code: str
    data_bytes: int | None
    bytes_left: int | None
    days: int
    created_at: datetime
    activated_at: datetime | None
    expires_at: datetime | None
    released_at: datetime | None

    @classmethod
    def of(cls, esim: Esim) -> Self:
        """Show a profile."""
        names = [name for name in cls.model_fields if name != "bytes_left"]
        left = esim.bytes_left
        return cls(
            **{name: getattr(esim, name) for name in names},
            bytes_left=None if left is None else max(0, int(left)),
        )


class EsimList(Out):
    """A page of profiles; `next` is null on the last one."""

    items: list[EsimOut]
    next: int | None


class EsimOrderOut(Out):
    """An order, and the profile once there is one."""

    order: PurchaseOut
    esim: EsimOut | None


class CatalogueOut(Out):
    """An item that can be ordered. What it costs is on the party's cards, under `rate_key`."""

    item: str
    name: str
    rate_key: str
    data_bytes: int | None
    days: int

    @classmethod
    def of(cls, one: Catalogued) -> Self:
        """Show an item; not who supplies it."""
        item = one.item
        return cls(
            item=one.code,
            name=item.name,
            rate_key=item.rate_key,
            data_bytes=item.data_bytes,
            days=item.days,
        )


class CatalogueList(Out):
    """All items that can be ordered."""

    items: list[CatalogueOut]


_TEXTS = {
    "supplier_unreachable": "The supplier could not be reached; nothing was ordered.",
    "supplier_failed": "The supplier did not answer.",
    "given_up": "The supplier did not come to an end; the order was cancelled.",
}


def reason_text(reason: str) -> str:
    """A reason as a sentence; "" where there is none."""
    if not reason:
        return ""
    try:
        return MEANINGS[Reason(reason)].text
    except ValueError:
        return _TEXTS.get(reason, "")
