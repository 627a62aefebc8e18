"""Outside suppliers, as they are stored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from psycopg.types.json import Jsonb

from tollkeeper.store.db import Connection, queries

_SQL = queries("suppliers")


@dataclass(frozen=True, slots=True)
class Supplier:
    """A supplier. ``secret`` is what proves to it who we are; it is never shown."""

    code: str
    kind: str
    base_url: str
    secret: str = field(default="", repr=False)
    settings: Mapping[str, Any] = field(default_factory=dict)
    enabled: bool = True
    id: int = 0
    created_at: datetime | None = None


async def read_supplier(connection: Connection, code: str) -> Supplier | None:
    """Read one supplier by code."""
    row = await (await connection.execute(_SQL["supplier"], (code,))).fetchone()
    return Supplier(**row) if row is not None else None


async def read_supplier_by_id(connection: Connection, id_: int) -> Supplier | None:
    """Read one supplier by id."""
    row = await (await connection.execute(_SQL["supplier_by_id"], (id_,))).fetchone()
    return Supplier(**row) if row is not None else None


async def read_suppliers(
    connection: Connection, *, kind: str = "", after: str = "", limit: int = 1000
) -> list[Supplier]:
    """Read suppliers (of one kind) in the order of their codes."""
    values = {"kind": kind, "after": after, "limit": limit}
    rows = await (await connection.execute(_SQL["suppliers"], values)).fetchall()
    return [Supplier(**row) for row in rows]


async def lock_supplier(connection: Connection, code: str) -> int | None:
    """Lock a supplier's row against other changes; return its id."""
    row = await (await connection.execute(_SQL["lock"], (code,))).fetchone()
    return row["id"] if row is not None else None


async def add_supplier(connection: Connection, supplier: Supplier) -> int | None:
    """Insert a supplier; None when the code is taken."""
    values = (supplier.code, supplier.kind, *_changeable(supplier))
    row = await (await connection.execute(_SQL["add"], values)).fetchone()
    return row["id"] if row is not None else None


async def write_supplier(connection: Connection, supplier: Supplier) -> None:
    """Store what may change of a supplier."""
    await connection.execute(_SQL["change"], (*_changeable(supplier), supplier.id))


async def delete_supplier(connection: Connection, code: str) -> bool:
    """Delete a supplier of which nothing was ever bought; False if there is more to it."""
    return (await connection.execute(_SQL["delete"], (code,))).rowcount == 1


async def party_in_scope(connection: Connection, code: str, scope: int | None) -> int | None:
    """Id of a party by code, if it belongs to the subtree of ``scope`` (None: to anybody)."""
    values = {"code": code, "scope": scope}
    row = await (await connection.execute(_SQL["party_in_scope"], values)).fetchone()
    return row["id"] if row is not None else None


def _changeable(supplier: Supplier) -> tuple[object, ...]:
    return supplier.base_url, supplier.secret, Jsonb(dict(supplier.settings)), supplier.enabled
