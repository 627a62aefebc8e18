"""Orders at suppliers, as they are stored: each step is one statement that only the right state lets pass."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any

from psycopg.types.json import Jsonb

from tollkeeper.store.db import Connection, queries

_SQL = queries("purchases")

OPEN = frozenset(("new", "held", "ordered", "unknown"))
"""States in which nothing is decided."""


@dataclass(frozen=True, slots=True)
class Purchase:
    """One order; what the states mean is written in the migration that makes the table.

    What concerns the supplier is empty where a party looks.
    """

    id: int
    party_id: int
    party: str
    request_id: str
    order_id: str
    service: str
    item: str
    called: str
    status: str
    created_at: datetime
    reason: str = ""
    charge: Decimal | None = None
    currency: str = ""
    ended_at: datetime | None = None
    settled_at: datetime | None = None
    supplier_id: int = 0
    supplier: str = ""
    detail: str = ""
    attempts: int = 0
    next_at: datetime | None = None
    hold_until: datetime | None = None
    request: Mapping[str, Any] = field(default_factory=dict)
    answer: Mapping[str, Any] = field(default_factory=dict)
    actor: str = ""
    ordered_at: datetime | None = None

    @property
    def open(self) -> bool:
        """True until it is decided."""
        return self.status in OPEN


@dataclass(frozen=True, slots=True)
class NewPurchase:
    """An order that is about to be placed; ``request`` are the values for the supplier's templates."""

    party_id: int
    request_id: str
    order_id: str
    service: str
    item: str
    called: str
    supplier_id: int
    request: Mapping[str, str]
    actor: str


@dataclass(frozen=True, slots=True)
class PurchaseFilter:
    """Which orders to list; what is empty is not asked."""

    status: str = ""
    party: str = ""
    service: str = ""
    after: int = 0
    limit: int = 100


async def add_purchase(
    connection: Connection, new: NewPurchase, now: datetime, until: datetime
) -> int | None:
    """Insert an order that is ours until ``until``; None when the party's request id is known."""
    values = (
        new.party_id,
        new.request_id,
        new.order_id,
        new.service,
        new.item,
        new.called,
        new.supplier_id,
        Jsonb(dict(new.request)),
        new.actor,
        now,
        until,
    )
    row = await (await connection.execute(_SQL["add"], values)).fetchone()
    return row["id"] if row is not None else None


async def read_purchase(connection: Connection, id_: int) -> Purchase | None:
    """Read an order by id."""
    row = await (await connection.execute(_SQL["purchase"], (id_,))).fetchone()
    return Purchase(**row) if row is not None else None


async def find_purchase(connection: Connection, party_id: int, request_id: str) -> Purchase | None:
    """Read an order by the buyer's own name of it."""
    row = await (await connection.execute(_SQL["by_request"], (party_id, request_id))).fetchone()
    return Purchase(**row) if row is not None else None


async def read_order(connection: Connection, order_id: str, *, own: bool) -> Purchase | None:
    """Read an order by our name of it; ``own``: as a party may see it."""
    query = _SQL["own_by_order" if own else "by_order"]
    row = await (await connection.execute(query, (order_id,))).fetchone()
    return Purchase(**row) if row is not None else None


async def read_purchases(
    connection: Connection, wanted: PurchaseFilter, *, own: bool
) -> list[Purchase]:
    """List orders, the oldest first; ``own``: as a party may see them."""
    values = {
        "after": wanted.after,
        "status": wanted.status,
        "party": wanted.party,
        "service": wanted.service,
        "limit": wanted.limit,
    }
    query = _SQL["own_purchases" if own else "purchases"]
    rows = await (await connection.execute(query, values)).fetchall()
    return [Purchase(**row) for row in rows]


async def take_due(connection: Connection, now: datetime, until: datetime, limit: int) -> list[int]:
    """Take what somebody is to go on with; nobody else has it until ``until``."""
    values = {"now": now, "until": until, "limit": limit}
    rows = await (await connection.execute(_SQL["take_due"], values)).fetchall()
    return [row["id"] for row in rows]


async def take(connection: Connection, id_: int, now: datetime, until: datetime) -> bool:
    """Take one order; False when somebody has it, or nobody is to go on with it."""
    values = {"id": id_, "now": now, "until": until}
    return (await connection.execute(_SQL["take"], values)).rowcount == 1


async def mark_held(connection: Connection, id_: int, hold_until: datetime | None) -> bool:
    """Money is held; False when the order is further already."""
    return (await connection.execute(_SQL["held"], (hold_until, id_))).rowcount == 1


async def mark_asking(connection: Connection, id_: int, now: datetime, until: datetime) -> bool:
    """The supplier is about to be asked; False when the order is decided already."""
    values = {"id": id_, "now": now, "until": until}
    return (await connection.execute(_SQL["asking"], values)).rowcount == 1


async def mark_waiting(
    connection: Connection,
    id_: int,
    *,
    status: str,
    detail: str,
    next_at: datetime | None,
    answer: Mapping[str, Any],
) -> bool:
    """Not decided yet (``ordered`` or ``unknown``); False when it is already."""
    values = (status, detail, next_at, Jsonb(dict(answer)), id_)
    return (await connection.execute(_SQL["waits"], values)).rowcount == 1


async def mark_decided(
    connection: Connection,
    id_: int,
    *,
    status: str,
    reason: str,
    detail: str,
    answer: Mapping[str, Any],
    now: datetime,
    until: datetime,
) -> bool:
    """Decide once: done, refused or cancelled; False when it was decided before."""
    values = (status, reason, detail, Jsonb(dict(answer)), now, until, id_)
    return (await connection.execute(_SQL["decided"], values)).rowcount == 1


async def mark_settled(
    connection: Connection, id_: int, now: datetime, charge: Decimal | None, currency: str
) -> None:
    """The money follows the decision."""
    await connection.execute(_SQL["settled"], (now, charge, currency, id_))


async def purge(connection: Connection, before: datetime) -> int:
    """Delete orders that were settled before that and that nothing refers to; returns how many."""
    return (await connection.execute(_SQL["purge_decided"], (before,))).rowcount


async def hold_ending(
    connection: Connection, before: datetime, limit: int
) -> list[tuple[int, str]]:
    """Ids and order ids of undecided orders whose hold ends before that."""
    rows = await (await connection.execute(_SQL["hold_ending"], (before, limit))).fetchall()
    return [(row["id"], row["order_id"]) for row in rows]


async def write_hold_until(connection: Connection, id_: int, until: datetime | None) -> None:
    """Note how long the hold stands; None: there is none any more."""
    await connection.execute(_SQL["hold_until"], (until, id_))
