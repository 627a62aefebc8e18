"""Lots of bonus money as they are stored. All of it is read and written under the wallet's lock."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from tollkeeper.core.bonus import Lot, UseOrder
from tollkeeper.store.db import Connection, queries

_SQL = queries("bonus")


@dataclass(frozen=True, slots=True)
class BonusRow:
    """A lot of bonus.

    ``left_over`` is what was left when the wallet had debited ``seen_debited`` and its last entry was
    ``seen_version``; of a closed lot nothing is left.
    """

    id: int
    wallet_id: int
    party_id: int
    amount: Decimal
    use_order: str
    granted_at: datetime
    expires_at: datetime
    left_over: Decimal
    seen_debited: Decimal
    seen_version: int
    closed_at: datetime | None
    actor: str
    reason: str

    def lot(self) -> Lot:
        """The lot as the core knows it."""
        return Lot(self.id, self.amount, self.left_over, UseOrder(self.use_order), self.expires_at)


@dataclass(frozen=True, slots=True)
class NewLot:
    """A lot to be made."""

    wallet_id: int
    amount: Decimal
    order: UseOrder
    at: datetime
    expires_at: datetime
    actor: str
    reason: str


async def open_lots(connection: Connection, wallet_id: int) -> list[BonusRow]:
    """The lots of a wallet that are not closed; the one that expires first comes first."""
    rows = await (await connection.execute(_SQL["open"], (wallet_id,))).fetchall()
    return [BonusRow(**row) for row in rows]


async def read_lots(
    connection: Connection, wallet_id: int, *, after: int, limit: int
) -> list[BonusRow]:
    """All lots of a wallet in the order in which they were granted."""
    rows = await (await connection.execute(_SQL["of_wallet"], (wallet_id, after, limit))).fetchall()
    return [BonusRow(**row) for row in rows]


async def add_lot(connection: Connection, lot: NewLot) -> int:
    """Insert a lot of which nothing is used yet; return its id."""
    values = {name: getattr(lot, name) for name in NewLot.__slots__}
    row = await (await connection.execute(_SQL["add"], values)).fetchone()
    assert row is not None
    number: int = row["id"]
    return number


async def given_back(connection: Connection, wallet_id: int, version: int) -> Decimal:
    """What calls got back by entries after ``version``."""
    row = await (await connection.execute(_SQL["given_back"], (wallet_id, version))).fetchone()
    assert row is not None
    amount: Decimal = row["amount"]
    return amount


async def write_left(connection: Connection, lot_id: int, left: Decimal) -> None:
    """Store what is left of a lot."""
    await connection.execute(_SQL["settle"], (left, lot_id))


async def mark_seen(connection: Connection, wallet_id: int) -> None:
    """From now on only what the wallet debits after this counts as used."""
    await connection.execute(_SQL["seen"], (wallet_id,))


async def to_look_at(connection: Connection, now: datetime, limit: int) -> list[tuple[int, int]]:
    """Lots (id, wallet) whose end has come."""
    rows = await (await connection.execute(_SQL["to_look_at"], (now, limit))).fetchall()
    return [(row["id"], row["wallet_id"]) for row in rows]


async def look_later(connection: Connection, lot_id: int, at: datetime) -> None:
    """Look at a lot again at ``at``."""
    await connection.execute(_SQL["look_later"], (at, lot_id))


async def close_lot(connection: Connection, lot_id: int, at: datetime) -> None:
    """Nothing is left of a lot and nothing will be."""
    await connection.execute(_SQL["close"], (at, lot_id))


async def held_since_before(connection: Connection, wallet_id: int, at: datetime) -> Decimal:
    """What a wallet holds for calls that were opened before ``at``."""
    row = await (await connection.execute(_SQL["held_since_before"], (wallet_id, at))).fetchone()
    assert row is not None
    held: Decimal = row["held"]
    return held
