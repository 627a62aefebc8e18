"""What decides on a party's money beside its wallets: status, billing, caps, and who stands above."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from tollkeeper.store.db import Connection, queries
from tollkeeper.store.wallets import WalletRow

_SQL = queries("terms")
DAY, MONTH = "day", "month"
"""Periods of the caps; a meter of what is spent in one has the code ``USD/day``."""


@dataclass(frozen=True, slots=True)
class Seen:
    """A party that whoever asks may know of."""

    id: int
    code: str
    kind: str
    status: str


async def party_status(connection: Connection, code: str) -> str | None:
    """The status of a party; None where there is none."""
    row = await (await connection.execute(_SQL["status"], (code,))).fetchone()
    return row["status"] if row is not None else None


async def frozen_above(connection: Connection, party_id: int) -> str | None:
    """The code of the party itself or of the nearest one above it that is frozen."""
    row = await (await connection.execute(_SQL["frozen_above"], (party_id,))).fetchone()
    return row["code"] if row is not None else None


async def set_billing(connection: Connection, party_id: int, billing: str) -> None:
    """Store whether a party pays before or after."""
    await connection.execute(_SQL["set_billing"], (billing, party_id))


async def find_seen(connection: Connection, code: str, scope: int | None) -> Seen | None:
    """A party, if it is ``scope`` or below it; without a scope any."""
    values = {"code": code, "scope": scope}
    row = await (await connection.execute(_SQL["seen"], values)).fetchone()
    return Seen(**row) if row is not None else None


async def read_seen(connection: Connection, party_id: int) -> Seen | None:
    """A party by id, whoever asks."""
    row = await (await connection.execute(_SQL["seen_by_id"], (party_id,))).fetchone()
    return Seen(**row) if row is not None else None


async def ancestors_of(connection: Connection, party_id: int) -> list[int]:
    """Ids of all parties above one, the nearest first."""
    rows = await (await connection.execute(_SQL["above"], (party_id,))).fetchall()
    return [row["ancestor_id"] for row in rows]


async def set_caps(connection: Connection, wallet: WalletRow, now: datetime) -> None:
    """Give the meters of the periods that run at ``now`` the caps of a wallet; tell all processes."""
    values = {
        "codes": [f"{wallet.currency}/{DAY}", f"{wallet.currency}/{MONTH}"],
        "caps": [wallet.daily_cap, wallet.monthly_cap],
        "party": wallet.party_id,
        "now": now,
    }
    await connection.execute(_SQL["set_caps"], values)
