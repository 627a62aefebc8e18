"""What the routes of wallets take and give, as the OpenAPI document shows it."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Annotated, Literal, Self
from uuid import UUID

from pydantic import Field

from tollkeeper.servers.api.schemas import (
    Currency,
    In,
    Moment,
    Money,
    NotNegative,
    Out,
    Positive,
    Why,
)
from tollkeeper.services.wallet_terms import ALERTS_MAX, UNSET, Temporary, Unset
from tollkeeper.services.wallets import Posted, Statement
from tollkeeper.store.wallets import Entry, WalletRow

Percent = Annotated[int, Field(ge=1, le=100)]


class NewWallet(In):
    """A wallet to be made; the credit limit is the agreed one, which counts for a postpaid party."""

    currency: Currency
    credit_limit: NotNegative = Decimal(0)


class FundedWallet(NewWallet):
    """A wallet made together with its party, and the money it begins with."""

    top_up: Positive | None = None
    reason: Why = "opening balance"


class TemporaryLimit(In):
    """More limit for a while: `amount` beside the agreed limit, from now until `until`."""

    amount: Positive
    until: Annotated[Moment, Field(description="When it is taken back, in RFC 3339.")]


class WalletTerms(In):
    """New terms of a wallet; what is left out stays as it is."""

    credit_limit: NotNegative | None = Field(
        default=None, description="The agreed limit: how far a postpaid party may go below zero."
    )
    temporary_limit: TemporaryLimit | None = Field(
        default=None, description="Null ends a temporary limit at once."
    )
    daily_cap: NotNegative | None = Field(
        default=None, description="What may be spent in the party's day; null takes the cap away."
    )
    monthly_cap: NotNegative | None = Field(
        default=None, description="What may be spent in the party's month; null takes it away."
    )
    alert_at: list[Percent] | None = Field(
        default=None,
        max_length=ALERTS_MAX,
        description="Percents of the limit and of the caps at which somebody is told.",
    )
    parked: bool | None = Field(
        default=None, description="True stops new sessions and payments out of it."
    )
    reason: Why

    def temporary(self) -> Temporary | Unset | None:
        """Return the temporary limit as the service takes it."""
        if "temporary_limit" not in self.model_fields_set:
            return UNSET
        given = self.temporary_limit
        if given is None or given.until is None:
            return None
        return Temporary(given.amount, given.until)

    def cap(self, name: Literal["daily_cap", "monthly_cap"]) -> Decimal | Unset | None:
        """Return a cap as the service takes it."""
        if name not in self.model_fields_set:
            return UNSET
        return self.daily_cap if name == "daily_cap" else self.monthly_cap


class TopUp(In):
    """An entry made by hand; the kind gives the direction, the amount is always positive."""

    amount: Positive
    reason: Why
    kind: Literal["topup", "withdrawal", "adjust_up", "adjust_down"] = "topup"


class TemporaryLimitOut(Out):
    """A temporary limit and when it is taken back."""

    amount: Money
    until: datetime


class WalletOut(Out):
    """A wallet: available = balance + limit - held.

    `limit` is the one in force: 0 for a prepaid party, else `credit_limit` (what is agreed) and the
    temporary limit while it lasts.
    """

    currency: str
    balance: Money
    held: Money
    available: Money
    credit_limit: Money
    limit: Money
    temporary_limit: TemporaryLimitOut | None
    daily_cap: Money | None
    monthly_cap: Money | None
    alert_at: list[int]
    live_sessions: int
    parked: bool

    @classmethod
    def of(cls, wallet: WalletRow) -> Self:
        """Show a wallet."""
        temporary = None
        if wallet.temp_until is not None:
            temporary = TemporaryLimitOut(amount=wallet.temp_limit, until=wallet.temp_until)
        return cls(
            currency=wallet.currency,
            balance=wallet.balance,
            held=wallet.held,
            available=wallet.available,
            credit_limit=wallet.agreed_limit,
            limit=wallet.credit_limit,
            temporary_limit=temporary,
            daily_cap=wallet.daily_cap,
            monthly_cap=wallet.monthly_cap,
            alert_at=list(wallet.alert_at),
            live_sessions=wallet.live,
            parked=wallet.parked,
        )


class WalletList(Out):
    """All wallets of a party."""

    items: list[WalletOut]


class EntryOut(Out):
    """One entry: `amount` is signed, positive is the customer's money."""

    id: int
    version: int = Field(description="Number of the entry on this wallet, without a gap.")
    time: datetime
    code: str
    amount: Money
    balance_after: Money
    session: UUID | None
    reason: str
    actor: str

    @classmethod
    def of(cls, entry: Entry) -> Self:
        """Show an entry."""
        return cls(
            id=entry.id,
            version=entry.version,
            time=entry.at,
            code=entry.code.value,
            amount=entry.effect,
            balance_after=entry.balance_after,
            session=entry.session_id,
            reason=entry.reason,
            actor=entry.actor,
        )


class PostedOut(Out):
    """The entry made, and the wallet after it."""

    entry: EntryOut
    wallet: WalletOut

    @classmethod
    def of(cls, posted: Posted) -> Self:
        """Show what was posted."""
        return cls(entry=EntryOut.of(posted.entry), wallet=WalletOut.of(posted.wallet))


class StatementOut(Out):
    """What happened from `from` (inclusive) to `to` (exclusive).

    The balances are those of the whole period, `entries` is one page of it.
    """

    party: str
    currency: str
    begin: datetime = Field(serialization_alias="from")
    end: datetime = Field(serialization_alias="to")
    opening_balance: Money
    entries: list[EntryOut]
    closing_balance: Money
    next: int | None

    @classmethod
    def of(cls, statement: Statement) -> Self:
        """Show a statement."""
        return cls(
            party=statement.party,
            currency=statement.currency,
            begin=statement.begin,
            end=statement.end,
            opening_balance=statement.opening_balance,
            entries=[EntryOut.of(entry) for entry in statement.entries],
            closing_balance=statement.closing_balance,
            next=statement.cursor,
        )
