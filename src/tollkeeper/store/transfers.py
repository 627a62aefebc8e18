"""Transfers between wallets as they are stored."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from tollkeeper.store.db import Connection, queries
from tollkeeper.store.wallets import WalletRow

_SQL = queries("transfers")


@dataclass(frozen=True, slots=True)
class Transfer:
    """Money moved between two wallets of one currency; a party that must not be seen is None."""

    id: int
    at: datetime
    from_party: str | None
    to_party: str | None
    amount: Decimal
    currency: str
    actor: str
    reason: str


async def add_transfer(
    connection: Connection,
    source: WalletRow,
    target: WalletRow,
    amount: Decimal,
    *,
    at: datetime,
    actor: str,
    reason: str,
) -> int:
    """Insert a transfer; return its id."""
    values = (
        at, source.id, target.id, source.party_id, target.party_id, amount, source.currency, actor, reason,
    )  # fmt: skip
    row = await (await connection.execute(_SQL["add"], values)).fetchone()
    assert row is not None
    number: int = row["id"]
    return number


async def read_transfers(
    connection: Connection, party_id: int, *, after: int, limit: int
) -> list[Transfer]:
    """Transfers from and to a party, in their order."""
    values = {"party": party_id, "after": after, "limit": limit}
    rows = await (await connection.execute(_SQL["of_party"], values)).fetchall()
    return [Transfer(**row) for row in rows]
