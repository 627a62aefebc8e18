"""What the routes of bonus credit take and give, as the OpenAPI document shows it."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal, Self

from pydantic import Field

from tollkeeper.errors import InvalidInput
from tollkeeper.servers.api.schemas import In, Moment, Money, Out, Positive, Why
from tollkeeper.servers.api.wallet_schemas import WalletOut
from tollkeeper.services.bonuses import Bonus, Granted

UseOrder = Literal["bonus_first", "own_first"]


class NewBonus(In):
    """Bonus credit to be given; what is left of it at `expires_at` is taken back."""

    amount: Positive
    expires_at: Annotated[Moment, Field(description="When it ends, in RFC 3339.")]
    order: UseOrder = Field(
        default="bonus_first", description="Used before or after the party's own money."
    )
    reason: Why

    def until(self) -> datetime:
        """Return when it ends.

        Raises:
            InvalidInput: it is null.
        """
        if self.expires_at is None:
            raise InvalidInput("expires_at: say when the bonus ends", field="expires_at")
        return self.expires_at


class BonusOut(Out):
    """A lot of bonus; `closed_at` is when nothing was left of it any more, at its end or after it."""

    id: int
    amount: Money
    left: Money
    order: UseOrder
    granted_at: datetime
    expires_at: datetime
    closed_at: datetime | None
    reason: str

    @classmethod
    def of(cls, bonus: Bonus) -> Self:
        """Show a lot."""
        row = bonus.row
        return cls.model_validate(
            {
                "id": row.id,
                "amount": row.amount,
                "left": bonus.left,
                "order": row.use_order,
                "granted_at": row.granted_at,
                "expires_at": row.expires_at,
                "closed_at": row.closed_at,
                "reason": row.reason,
            }
        )


class GrantedOut(Out):
    """A new lot, and the wallet after it."""

    bonus: BonusOut
    wallet: WalletOut

    @classmethod
    def of(cls, granted: Granted) -> Self:
        """Show a new lot."""
        return cls(bonus=BonusOut.of(granted.bonus), wallet=WalletOut.of(granted.wallet))


class BonusList(Out):
    """A page of lots; `next` is null on the last one."""

    items: list[BonusOut]
    next: int | None
