"""Payments by which accounts of a switch's platform follow wallets, and the money they follow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from tollkeeper.store.db import Connection, queries

_SQL = queries("balance_push")


@dataclass(frozen=True, slots=True)
class Push:
    """A payment of which it is not known yet whether it was made; ``mark`` is its memo there."""

    id: int
    account: str
    mark: str
    amount: Decimal
    attempts: int
    at: datetime


@dataclass(frozen=True, slots=True)
class Spendable:
    """A wallet as far as a platform follows it; ``barred``: suspended or parked."""

    party: str
    barred: bool
    balance: Decimal
    available: Decimal


async def begin(
    connection: Connection,
    *,
    peer_id: int,
    account: str,
    mark: str,
    amount: Decimal,
    money_before: Decimal,
    at: datetime,
    read_at: datetime,
) -> int | None:
    """Note a payment that is about to be made.

    None where one of the account is open, or was made or decided since its money was read.
    """
    values = {
        "peer": peer_id, "account": account, "mark": mark, "amount": amount,
        "money_before": money_before, "at": at, "read_at": read_at,
    }  # fmt: skip
    row = await (await connection.execute(_SQL["begin"], values)).fetchone()
    return int(row["id"]) if row is not None else None


async def read_open(connection: Connection, peer_id: int) -> list[Push]:
    """The payments of a platform that are not decided."""
    rows = await (await connection.execute(_SQL["open"], (peer_id,))).fetchall()
    return [Push(**row) for row in rows]


async def mark_ended(
    connection: Connection, id_: int, status: str, now: datetime, detail: str = ""
) -> None:
    """The payment is ``done`` or ``failed``."""
    await connection.execute(_SQL["ended"], (status, now, detail, id_))


async def mark_tried(connection: Connection, id_: int, detail: str) -> None:
    """It was asked for in vain once more."""
    await connection.execute(_SQL["tried"], (detail, id_))


async def purge(connection: Connection, before: datetime) -> None:
    """Delete decided payments that are older than this."""
    await connection.execute(_SQL["purge"], (before,))


async def read_spendable(
    connection: Connection, parties: Sequence[str], currency: str
) -> dict[str, Spendable]:
    """The wallets of parties in a currency, by the parties' codes."""
    rows = await (await connection.execute(_SQL["spendable"], (list(parties), currency))).fetchall()
    return {row["party"]: Spendable(**row) for row in rows}
