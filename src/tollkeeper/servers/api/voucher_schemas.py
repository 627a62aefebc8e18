"""What the routes of vouchers take and give, as the OpenAPI document shows it."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints

from tollkeeper.core.money import plain
from tollkeeper.core.vouchers import show_code
from tollkeeper.errors import InvalidInput
from tollkeeper.servers.api.bonus_schemas import UseOrder
from tollkeeper.servers.api.schemas import Code, Currency, In, Moment, Money, Out, Positive
from tollkeeper.servers.api.wallet_schemas import WalletOut
from tollkeeper.services.voucher_batches import BONUS_DAYS_MAX, COUNT_MAX, Made, Order
from tollkeeper.services.vouchers import Redeemed
from tollkeeper.store.vouchers import Batch

Kind = Literal["money", "bonus"]
Status = Literal["active", "blocked"]
VoucherCode = Annotated[
    str,
    StringConstraints(min_length=16, max_length=40, pattern=r"^[0-9 -]+$"),
    Field(description="Sixteen digits; blanks and hyphens do not matter."),
]


class NewBatch(In):
    """Vouchers to be made. Those of bonus say for how many days it lasts after redeeming."""

    code: Code
    count: Annotated[int, Field(ge=1, le=COUNT_MAX)]
    amount: Positive
    currency: Currency
    kind: Kind = "money"
    valid_from: Moment = Field(default=None, description="From when on; now if left out.")
    valid_to: Annotated[Moment, Field(description="Until when they can be redeemed.")]
    bonus_days: Annotated[int, Field(ge=1, le=BONUS_DAYS_MAX)] | None = None
    bonus_order: UseOrder = "bonus_first"
    owner: Code | None = Field(
        default=None, description="The reseller that pays them; the key's own if it has one."
    )

    def order(self) -> Order:
        """Return the batch as the service takes it.

        Raises:
            InvalidInput: it has no end.
        """
        if self.valid_to is None:
            raise InvalidInput("valid_to: say until when the vouchers are good", field="valid_to")
        return Order(
            code=self.code,
            count=self.count,
            amount=self.amount,
            currency=self.currency,
            valid_to=self.valid_to,
            valid_from=self.valid_from,
            kind=self.kind,
            bonus_days=self.bonus_days,
            bonus_order=self.bonus_order,
            owner=self.owner,
        )


class BatchChange(In):
    """Whether what is left of a batch can be redeemed."""

    status: Status


class Redeem(In):
    """A voucher and the party whose wallet it goes into."""

    party: Code
    code: VoucherCode


class BlockVoucher(In):
    """A voucher that shall not be redeemed."""

    code: VoucherCode


class BlockedOut(Out):
    """The batch of a voucher just blocked."""

    batch: str


class BatchOut(Out):
    """A batch and how many of its vouchers are redeemed and blocked; an owner of null is the operator."""

    code: str
    owner: str | None
    kind: Kind
    amount: Money
    currency: str
    valid_from: datetime
    valid_to: datetime
    bonus_days: int | None
    bonus_order: UseOrder
    status: Status
    created_at: datetime
    vouchers: int
    redeemed: int
    blocked: int

    @classmethod
    def of(cls, batch: Batch) -> Self:
        """Show a batch."""
        return cls.model_validate({name: getattr(batch, name) for name in cls.model_fields})


class BatchList(Out):
    """A page of batches; `next` is null on the last one."""

    items: list[BatchOut]
    next: str | None


class RedeemedOut(Out):
    """What a voucher brought; `repeated` when this party had redeemed it before."""

    batch: str
    kind: Kind
    amount: Money
    currency: str
    redeemed_at: datetime
    repeated: bool
    wallet: WalletOut

    @classmethod
    def of(cls, redeemed: Redeemed) -> Self:
        """Show what a voucher brought."""
        return cls.model_validate(
            {
                "batch": redeemed.batch,
                "kind": redeemed.kind,
                "amount": redeemed.amount,
                "currency": redeemed.currency,
                "redeemed_at": redeemed.redeemed_at,
                "repeated": redeemed.repeated,
                "wallet": WalletOut.of(redeemed.wallet),
            }
        )


def csv_of(made: Made) -> str:
    """The codes of a new batch as CSV (RFC 4180), one line each under a header."""
    batch = made.batch
    rest = (
        f"{plain(batch.amount)},{batch.currency},{batch.valid_to:%Y-%m-%dT%H:%M:%SZ},{batch.code}"
    )
    lines = ["code,amount,currency,valid_to,batch"]
    lines += [f"{show_code(code)},{rest}" for code in made.codes]
    return "\r\n".join(lines) + "\r\n"
