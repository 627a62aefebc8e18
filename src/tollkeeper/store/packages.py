"""Packages that were bought, as they are stored."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from psycopg.rows import DictRow

from tollkeeper.core.money import ZERO
from tollkeeper.store.db import Connection, queries

_SQL = queries("packages")


@dataclass(frozen=True, slots=True)
class Sale:
    """A package that was bought, in its latest term (the first one is 0).

    ``status``: pending while the term's price is being charged, active, ended or refused (``reason``
    says why). ``units`` are seconds, bytes ... of ``unit``; ``used``, ``held`` and ``cap`` those of
    the term's meter, where they were read with it.
    """

    id: int
    party_id: int
    party: str
    plan: str
    code: str
    bought_at: datetime
    term: int
    status: str
    renew: bool
    units: int
    rollover: int
    period: str
    unit: str
    price: Decimal
    currency: str
    begins_at: datetime
    ends_at: datetime
    meter_id: int | None = None
    request: str | None = None
    reason: str = ""
    actor: str = ""
    used: Decimal | None = None
    held: Decimal | None = None
    cap: Decimal | None = None


async def add_sale(connection: Connection, sale: Sale) -> int | None:
    """Insert a pending sale; None where its ``request`` was stored before."""
    values = {name: getattr(sale, name) for name in Sale.__slots__}
    row = await (await connection.execute(_SQL["add"], values)).fetchone()
    return row["id"] if row is not None else None


async def read_sale(connection: Connection, sale_id: int) -> Sale | None:
    """Read a sale by id."""
    return _sale(await (await connection.execute(_SQL["by_id"], (sale_id,))).fetchone())


async def read_request(connection: Connection, request: str) -> Sale | None:
    """Read the sale that a request has led to."""
    return _sale(await (await connection.execute(_SQL["by_request"], (request,))).fetchone())


async def lock_sale(connection: Connection, sale_id: int) -> Sale | None:
    """Read a sale and keep others from changing it until the transaction ends."""
    return _sale(await (await connection.execute(_SQL["lock"], (sale_id,))).fetchone())


async def read_sales(connection: Connection, party: str, *, ended: bool) -> list[Sale]:
    """Read what a party has bought, with what is left of it; ``ended``: also what is over."""
    values = {"party": party, "ended": ended}
    rows = await (await connection.execute(_SQL["of_party"], values)).fetchall()
    return [Sale(**row) for row in rows]


async def activate(connection: Connection, sale: Sale, meter_id: int) -> None:
    """Let a paid term count, and tell all processes."""
    await connection.execute(_SQL["activate"], {"id": sale.id, "meter_id": meter_id})
    await connection.execute(_SQL["notify"], (sale.party_id,))


async def end_sale(connection: Connection, sale: Sale, status: str, reason: str) -> None:
    """Close a sale: ``refused`` or ``ended``."""
    await connection.execute(_SQL["end_sale"], {"id": sale.id, "status": status, "reason": reason})
    await connection.execute(_SQL["notify"], (sale.party_id,))


async def next_term(connection: Connection, sale: Sale) -> None:
    """Store the term that a sale goes on with; its price is still to be charged."""
    values = {name: getattr(sale, name) for name in Sale.__slots__}
    await connection.execute(_SQL["next_term"], values)


async def set_renew(connection: Connection, sale: Sale, *, renew: bool) -> None:
    """Say whether a sale goes on at the end of its term."""
    await connection.execute(_SQL["set_renew"], {"id": sale.id, "renew": renew})


async def unused_units(connection: Connection, meter_id: int) -> Decimal:
    """Return what is left of a term's meter; what open sessions hold may yet be used."""
    row = await (await connection.execute(_SQL["left"], (meter_id,))).fetchone()
    return ZERO if row is None or row["unused"] is None else row["unused"]


async def due_sales(
    connection: Connection, *, now: datetime, stuck: datetime, limit: int
) -> list[int]:
    """Ids of sales whose term is over, or that have been pending since before ``stuck``."""
    values = {"now": now, "stuck": stuck, "limit": limit}
    rows = await (await connection.execute(_SQL["due"], values)).fetchall()
    return [row["id"] for row in rows]


def _sale(row: DictRow | None) -> Sale | None:
    return None if row is None else Sale(**row)
