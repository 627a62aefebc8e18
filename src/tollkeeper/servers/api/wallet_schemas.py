"""What the routes of wallets take and give, as the OpenAPI document shows it."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Literal, Self
from uuid import UUID

from pydantic import Field

from tollkeeper.core.records import Wallet
from tollkeeper.servers.api.schemas import Currency, In, Money, NotNegative, Out, Positive, Why
from tollkeeper.services.wallets import Posted, Statement
from tollkeeper.store.wallets import Entry


class NewWallet(In):
    """A wallet to be made; a credit limit of 0 is prepaid."""

    currency: Currency
    credit_limit: NotNegative = Decimal(0)


class FundedWallet(NewWallet):
    """A wallet made together with its party, and the money it begins with."""

    top_up: Positive | None = None
    reason: Why = "opening balance"


class WalletTerms(In):
    """New terms of a wallet; what is left out stays as it is."""

    credit_limit: NotNegative | None = None
    parked: bool | None = Field(
        default=None, description="True stops new sessions and payments out of it."
    )
    reason: Why


class TopUp(In):
    """An entry made by hand; the kind gives the direction, the amount is always positive."""

    amount: Positive
    reason: Why
    kind: Literal["topup", "withdrawal", "adjust_up", "adjust_down"] = "topup"


class WalletOut(Out):
    """A wallet: available = balance + credit_limit - held."""

    currency: str
    balance: Money
    held: Money
    available: Money
    credit_limit: Money
    live_sessions: int
    parked: bool

    @classmethod
    def of(cls, wallet: Wallet) -> Self:
        """Show a wallet."""
        return cls(
            currency=wallet.currency,
            balance=wallet.balance,
            held=wallet.held,
            available=wallet.available,
            credit_limit=wallet.credit_limit,
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
