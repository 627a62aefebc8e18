"""What a party may see, asked of the database: on a connection of its scope only that is there."""

from __future__ import annotations

from collections.abc import Iterable
from typing import LiteralString

from tollkeeper.store.db import Connection, queries

_SQL = queries("scope")


async def read_own_code(connection: Connection, party_id: int) -> str:
    """The code of the party that a scope names."""
    row = await (await connection.execute(_SQL["own_code"], (party_id,))).fetchone()
    return str(row["code"]) if row is not None else ""


async def read_subtree(connection: Connection, party_id: int) -> tuple[int, ...]:
    """The ids of a party and of all below it, in their order."""
    rows = await (await connection.execute(_SQL["subtree"], (party_id,))).fetchall()
    return tuple(row["party_id"] for row in rows)


async def seen_parties(connection: Connection, ids: Iterable[int]) -> frozenset[int]:
    """Those of these parties that this connection sees."""
    return await _seen(connection, _SQL["seen_parties"], ids)


async def seen_cards(connection: Connection, ids: Iterable[int]) -> frozenset[int]:
    """Those of these rate cards that this connection sees."""
    return await _seen(connection, _SQL["seen_cards"], ids)


async def seen_actors(connection: Connection, actors: Iterable[str]) -> frozenset[str]:
    """Those of these names of the audit trail that are keys which this connection sees."""
    wanted = sorted(set(actors))
    rows = await (await connection.execute(_SQL["seen_actors"], (wanted,))).fetchall()
    return frozenset(row["actor"] for row in rows)


async def _seen(connection: Connection, query: LiteralString, ids: Iterable[int]) -> frozenset[int]:
    wanted = sorted(set(ids))
    if not wanted:
        return frozenset()
    rows = await (await connection.execute(query, (wanted,))).fetchall()
    return frozenset(row["id"] for row in rows)
