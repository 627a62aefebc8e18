"""What is used of limits and caps, and what somebody was told of it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from psycopg.types.json import Jsonb

from tollkeeper.store.db import Connection, queries

_SQL = queries("alerts")


@dataclass(frozen=True, slots=True)
class Watched:
    """A limit (``kind`` "limit") or the running period of a cap ("USD/day"), and what is used of it.

    What calls hold counts as used. ``stamp`` changes with whatever changes ``used``.
    """

    wallet_id: int
    party_id: int
    party: str
    currency: str
    alert_at: tuple[int, ...]
    stamp: int
    kind: str
    begins_at: datetime
    used: Decimal
    bound: Decimal


async def read_watched(connection: Connection, now: datetime) -> list[Watched]:
    """All limits and running caps of wallets with percents to be told at."""
    rows = await (await connection.execute(_SQL["watched"], {"now": now})).fetchall()
    return [Watched(**{**row, "alert_at": tuple(row["alert_at"])}) for row in rows]


async def read_told(
    connection: Connection, wallets: Iterable[int]
) -> dict[tuple[int, str, datetime], set[int]]:
    """What was told, by wallet, kind and period."""
    rows = await (await connection.execute(_SQL["told"], (list(wallets),))).fetchall()
    told: dict[tuple[int, str, datetime], set[int]] = {}
    for row in rows:
        told.setdefault((row["wallet_id"], row["kind"], row["begins_at"]), set()).add(
            row["percent"]
        )
    return told


async def tell(
    connection: Connection,
    watched: Watched,
    percent: int,
    *,
    at: datetime,
    detail: str,
    payload: dict[str, object],
) -> bool:
    """Put one event into the outbox, unless this crossing was told already."""
    values = {
        "wallet_id": watched.wallet_id,
        "kind": watched.kind,
        "begins_at": watched.begins_at,
        "percent": percent,
        "at": at,
        "detail": detail,
        "payload": Jsonb(payload),
    }
    return (await connection.execute(_SQL["tell"], values)).rowcount == 1


async def forget(connection: Connection, watched: Watched, percent: int) -> None:
    """The next crossing of this percent is told again."""
    values = (watched.wallet_id, watched.kind, watched.begins_at, percent)
    await connection.execute(_SQL["forget"], values)


async def purge(connection: Connection, before: datetime) -> None:
    """Delete what was told of periods that are long over."""
    await connection.execute(_SQL["purge"], (before,))
