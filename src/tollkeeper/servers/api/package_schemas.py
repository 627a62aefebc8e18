"""What the routes of packages take and give, as the OpenAPI document shows it."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Self

from pydantic import Field

from tollkeeper.servers.api.schemas import Code, In, Money, Out
from tollkeeper.store.packages import Sale


class PackagePurchase(In):
    """A package of the party's plan, to be paid now."""

    package: Code


class PackageRenewal(In):
    """Whether a package is bought again at the end of its term."""

    renew: bool


class PackageOut(Out):
    """A package that was bought, in its latest term.

    ``refused``: its price was not covered (``reason``); ``pending``: it is being charged. ``included``,
    ``used``, ``held`` and ``left`` count in ``unit``.
    """

    id: int
    package: str
    plan: str
    status: str = Field(description="pending, active, ended or refused.")
    reason: str
    term: int = Field(description="0 is the term that was bought; each renewal is one more.")
    renew: bool
    price: Money
    currency: str
    bought_at: datetime
    begins_at: datetime
    ends_at: datetime
    unit: str
    included: int
    used: int
    held: int
    left: int

    @classmethod
    def of(cls, sale: Sale) -> Self:
        """Show a sale."""
        included = Decimal(sale.units) if sale.cap is None else sale.cap
        used, held = sale.used or Decimal(0), sale.held or Decimal(0)
        return cls(
            id=sale.id,
            package=sale.code,
            plan=sale.plan,
            status=sale.status,
            reason=sale.reason,
            term=sale.term,
            renew=sale.renew,
            price=sale.price,
            currency=sale.currency,
            bought_at=sale.bought_at,
            begins_at=sale.begins_at,
            ends_at=sale.ends_at,
            unit=sale.unit,
            included=int(included),
            used=int(used),
            held=int(held),
            left=max(0, int(included - used - held)) if sale.status == "active" else 0,
        )


class PackageList(Out):
    """What a party has bought, the oldest first."""

    items: list[PackageOut]
