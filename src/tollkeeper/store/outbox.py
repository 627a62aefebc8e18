"""The outbox: what must still be told, and the housekeeping of tables that would grow without end."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime

from tollkeeper.store.db import Connection, queries

_SQL = queries("outbox")


@dataclass(frozen=True, slots=True)
class OutboxRow:
    """Something to tell; ``payload`` names the session's key, party and id."""

    id: int
    kind: str
    session_id: str | None
    detail: str
    payload: dict[str, object]
    attempts: int
    at: datetime


@dataclass(frozen=True, slots=True)
class SwitchRow:
    """Where a switch takes kill requests, and the secret that signs them."""

    kill_url: str
    secret: str


async def take_due(
    connection: Connection, now: datetime, limit: int, *, but: Iterable[str] = ()
) -> list[OutboxRow]:
    """Lock rows that are due; other processes pass over them until this transaction ends.

    Move them with :func:`move` before it ends, to deliver them without holding it open. Requests to end calls at the switches ``but`` are left where they are.
    """
    values = {"now": now, "limit": limit, "but": list(but)}
    rows = await (await connection.execute(_SQL["due"], values)).fetchall()
    return [OutboxRow(**row) for row in rows]


async def move(connection: Connection, ids: Iterable[int], at: datetime) -> None:
    """These rows are due at another time: nobody else takes them before."""
    await connection.execute(_SQL["lease"], (at, list(ids)))


async def mark_done(connection: Connection, id_: int, now: datetime, note: str = "") -> None:
    """The row was delivered, or ``note`` says why nobody is to be told."""
    await connection.execute(_SQL["done"], (now, note, id_))


async def mark_later(connection: Connection, id_: int, next_at: datetime, error: str) -> None:
    """Delivery failed; try again at ``next_at``."""
    await connection.execute(_SQL["later"], (next_at, error, id_))


async def read_switch(connection: Connection, code: str) -> SwitchRow | None:
    """Where a switch takes kill requests, if it said so."""
    row = await (await connection.execute(_SQL["switch"], (code,))).fetchone()
    return SwitchRow(**row) if row is not None else None


async def set_switch(connection: Connection, code: str, kill_url: str, secret: str) -> None:
    """Note where a switch takes kill requests."""
    await connection.execute(_SQL["set_switch"], (code, kill_url, secret))


async def delete_switch(connection: Connection, code: str) -> bool:
    """Forget where a switch takes kill requests; False if nothing was known."""
    return (await connection.execute(_SQL["delete_switch"], (code,))).rowcount == 1


async def purge(
    connection: Connection, *, outbox_before: datetime, idempotency_before: datetime
) -> None:
    """Delete delivered rows and stored answers that are past their use."""
    await connection.execute(_SQL["purge"], (outbox_before,))
    await connection.execute(_SQL["purge_idempotency"], (idempotency_before,))


async def ensure_partitions(connection: Connection, from_day: date, days: int) -> None:
    """Create the day partitions that the coming days need."""
    await connection.execute(_SQL["partitions"], (from_day, days))
