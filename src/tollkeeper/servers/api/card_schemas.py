"""What the routes of calling cards take and give, as the OpenAPI document shows it."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints

from tollkeeper.core.cards import DIGITS_MAX, DIGITS_MIN
from tollkeeper.core.money import plain
from tollkeeper.errors import InvalidInput
from tollkeeper.servers.api.schemas import (
    Code,
    Currency,
    In,
    Moment,
    Money,
    Out,
    Positive,
    Seconds,
)
from tollkeeper.services.card_batches import (
    CALLERS_MAX,
    COUNT_MAX,
    DAYS_MAX,
    PIN_DIGITS,
    Made,
    Order,
)
from tollkeeper.services.cards import Access, Asking, minutes_of, value_of
from tollkeeper.store.cards import Batch, Card

OnExpiry = Literal["return", "keep"]
BatchStatus = Literal["active", "blocked"]
CardStatus = Literal["unused", "active", "expired", "blocked", "used_up"]
Days = Annotated[int, Field(ge=1, le=DAYS_MAX)]
# No longer than its column, and never looked at by a pattern whose failure would repeat it.
Pin = Annotated[
    str,
    StringConstraints(max_length=40),
    Field(description="Ten to sixteen digits; blanks and hyphens do not matter."),
]
Caller = Annotated[str, StringConstraints(max_length=40)]


class NewCardBatch(In):
    """Cards to be made. A maintenance fee has an amount and the days after which it is due again."""

    code: Annotated[Code, StringConstraints(max_length=50)]
    count: Annotated[int, Field(ge=1, le=COUNT_MAX)]
    plan: Code = Field(description="The plan that calls of the cards are sold by.")
    amount: Positive
    currency: Currency
    valid_days: Days = Field(description="How long a card is good from its first use on.")
    expires_at: Annotated[Moment, Field(description="Until when it can be used first.")]
    fee_amount: Positive | None = None
    fee_days: Days | None = None
    max_seconds: Seconds = 14_400
    pin_digits: Annotated[int, Field(ge=DIGITS_MIN, le=DIGITS_MAX)] = PIN_DIGITS
    on_expiry: OnExpiry = Field(
        default="return",
        description="What is left on an expired card goes back to whom it came from, or stays.",
    )
    owner: Code | None = Field(
        default=None, description="The reseller that sells them; the key's own if it has one."
    )

    def order(self) -> Order:
        """Return the batch as the service takes it.

        Raises:
            InvalidInput: it has no end.
        """
        if self.expires_at is None:
            raise InvalidInput(
                "expires_at: say until when the cards can be used first", field="expires_at"
            )
        return Order(
            code=self.code,
            count=self.count,
            plan=self.plan,
            amount=self.amount,
            currency=self.currency,
            valid_days=self.valid_days,
            expires_at=self.expires_at,
            fee_amount=self.fee_amount,
            fee_days=self.fee_days,
            max_seconds=self.max_seconds,
            pin_digits=self.pin_digits,
            on_expiry=self.on_expiry,
            owner=self.owner,
        )


class CardBatchChange(In):
    """Whether the cards of a batch can be used."""

    status: BatchStatus


class CardChange(In):
    """Whether a card can be used, and who may use it without its PIN; what is left out stays."""

    status: BatchStatus | None = None
    callers: list[Caller] | None = Field(default=None, max_length=CALLERS_MAX)


class CardAccess(In):
    """Whoever wants to use a card, by its PIN or by the number that it calls from."""

    pin: Pin | None = None
    caller: Caller = ""
    called: Caller = Field(default="", description="Where to, for the minutes.")
    owner: Code | None = Field(
        default=None, description="The seller, where a caller has cards of several."
    )
    remember: bool = Field(
        default=False, description="With the PIN: this caller needs none from now on."
    )

    def asking(self) -> Asking:
        """Return it as the service takes it."""
        return Asking(self.pin, self.caller, self.called, self.owner, self.remember)


class CardBatchOut(Out):
    """A batch and how many of its cards are in which state; an owner of null is the operator.

    `plan` is null where it must not be seen.
    """

    code: str
    owner: str | None
    plan: str | None
    currency: str
    amount: Money
    valid_days: int
    expires_at: datetime
    fee_amount: Money | None
    fee_days: int | None
    max_seconds: int
    pin_digits: int
    on_expiry: OnExpiry
    status: BatchStatus
    created_at: datetime
    cards: int
    unused: int
    used: int
    expired: int
    blocked: int

    @classmethod
    def of(cls, batch: Batch) -> Self:
        """Show a batch."""
        return cls.model_validate({name: getattr(batch, name) for name in cls.model_fields})


class CardBatchList(Out):
    """A page of batches; `next` is null on the last one."""

    items: list[CardBatchOut]
    next: str | None


class CardOut(Out):
    """A card; `code` is that of the party that its calls are authorised for.

    `fees` is how many maintenance fees were due so far.
    """

    code: str
    batch: str
    serial: int
    status: CardStatus
    first_used_at: datetime | None
    expires_at: datetime
    next_fee_at: datetime | None
    fees: int
    currency: str
    balance: Money
    available: Money
    callers: list[str]

    @classmethod
    def of(cls, card: Card) -> Self:
        """Show a card."""
        return cls.model_validate({name: getattr(card, name) for name in cls.model_fields})


class CardList(Out):
    """A page of cards; `next` is null on the last one."""

    items: list[CardOut]
    next: str | None


class AccessOut(Out):
    """A card that may be used: authorise the call for `party`. The rest is to be announced.

    `balance` is what calls can take. `seconds` and whole `minutes` are what it lasts for to the number
    `called`, null if none was given; `reason` says why they are 0 where nothing is sold there.
    """

    party: str
    status: CardStatus
    first_use: bool
    currency: str
    balance: Money
    expires_at: datetime
    called: str
    seconds: int | None
    minutes: int | None
    reason: str

    @classmethod
    def of(cls, access: Access) -> Self:
        """Show what is announced."""
        return cls.model_validate(
            {
                "party": access.card.code,
                "status": access.card.status,
                "first_use": access.first_use,
                "currency": access.card.currency,
                "balance": value_of(access.card),
                "expires_at": access.card.expires_at,
                "called": access.called,
                "seconds": access.seconds,
                "minutes": minutes_of(access.seconds),
                "reason": access.reason,
            }
        )


def csv_of(made: Made) -> str:
    """The cards of a new batch with their PINs as CSV (RFC 4180), one line each under a header."""
    batch = made.batch
    rest = f"{plain(batch.amount)},{batch.currency},{batch.expires_at:%Y-%m-%dT%H:%M:%SZ}"
    lines = ["card,serial,pin,amount,currency,use_before"]
    lines += [f"{card.code},{card.serial},{card.pin},{rest}" for card in made.cards]
    return "\r\n".join(lines) + "\r\n"
