"""What the routes of transfers take and give, as the OpenAPI document shows it."""

from __future__ import annotations

from datetime import datetime
from typing import Self

from pydantic import Field

from tollkeeper.servers.api.schemas import Code, In, Money, Out, Positive, Why
from tollkeeper.servers.api.wallet_schemas import WalletOut
from tollkeeper.services.transfers import Transferred
from tollkeeper.store.transfers import Transfer


class NewTransfer(In):
    """Money to be moved to another party's wallet in the same currency."""

    to: Code = Field(description="Code of the party that receives it.")
    amount: Positive
    reason: Why


class TransferOut(Out):
    """A transfer; a party above whoever asks is null."""

    id: int
    time: datetime
    sender: str | None = Field(serialization_alias="from")
    receiver: str | None = Field(serialization_alias="to")
    amount: Money
    currency: str
    reason: str

    @classmethod
    def of(cls, transfer: Transfer) -> Self:
        """Show a transfer."""
        return cls(
            id=transfer.id,
            time=transfer.at,
            sender=transfer.from_party,
            receiver=transfer.to_party,
            amount=transfer.amount,
            currency=transfer.currency,
            reason=transfer.reason,
        )


class TransferredOut(Out):
    """A transfer just made, and the sender's wallet after it."""

    transfer: TransferOut
    wallet: WalletOut

    @classmethod
    def of(cls, made: Transferred) -> Self:
        """Show a transfer just made."""
        return cls(transfer=TransferOut.of(made.transfer), wallet=WalletOut.of(made.taken.wallet))


class TransferList(Out):
    """A page of transfers; `next` is null on the last one."""

    items: list[TransferOut]
    next: int | None
