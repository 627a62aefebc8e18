"""API keys as they are stored: never the secret, only its SHA-256."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from psycopg.rows import DictRow

from tollkeeper.store.db import Connection, queries

_SQL = queries("keys")


@dataclass(frozen=True, slots=True)
class KeyRow:
    """An API key as an administrator sees it; ``revoked_at`` is None while it is valid.

    ``party`` is the code of the party that it is bounded to; None is the operator's.
    """

    id: int
    name: str
    scopes: tuple[str, ...]
    switch: str
    created_at: datetime
    revoked_at: datetime | None
    party: str | None = None


async def add_key(
    connection: Connection,
    *,
    name: str,
    secret_hash: bytes,
    scopes: Sequence[str],
    switch: str,
    party_id: int | None = None,
) -> KeyRow:
    """Insert a key."""
    values = (name, secret_hash, list(scopes), switch, party_id)
    cursor = await connection.execute(_SQL["add_key"], values)
    row = await cursor.fetchone()
    assert row is not None
    return _key(row)


async def read_key(connection: Connection, key_id: int) -> KeyRow | None:
    """Read one key."""
    row = await (await connection.execute(_SQL["key"], (key_id,))).fetchone()
    return _key(row) if row is not None else None


async def read_keys(connection: Connection, *, after: int, limit: int) -> list[KeyRow]:
    """Read keys, revoked ones too, in the order of their ids."""
    rows = await (await connection.execute(_SQL["keys"], (after, limit))).fetchall()
    return [_key(row) for row in rows]


async def revoke_key(connection: Connection, key_id: int) -> bool:
    """End a key; False when it does not exist or is ended already."""
    return (await connection.execute(_SQL["revoke_key"], (key_id,))).rowcount == 1


def _key(row: DictRow) -> KeyRow:
    return KeyRow(**{**row, "scopes": tuple(row["scopes"])})
