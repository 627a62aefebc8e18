"""Answers to requests that carried an Idempotency-Key, stored with what they did."""

from __future__ import annotations

from dataclasses import dataclass

from tollkeeper.store.db import Connection, queries

_SQL = queries("idempotency")


@dataclass(frozen=True, slots=True)
class StoredAnswer:
    """What a request with this key was, by its digest, and the answer it got."""

    digest: str
    status: int
    body: str


async def claim(connection: Connection, *, api_key_id: int, key: str, digest: str) -> bool:
    """Take the key for this transaction; False when it was used before.

    While another transaction holds the same key this waits for it to end: after its commit the
    key is used, after its rollback it is free.
    """
    cursor = await connection.execute(_SQL["claim"], (api_key_id, key, digest))
    return cursor.rowcount == 1


async def read_answer(connection: Connection, *, api_key_id: int, key: str) -> StoredAnswer | None:
    """Read what a used key was answered."""
    row = await (await connection.execute(_SQL["answered"], (api_key_id, key))).fetchone()
    return StoredAnswer(**row) if row is not None else None


async def write_answer(
    connection: Connection, *, api_key_id: int, key: str, status: int, body: str
) -> None:
    """Store the answer of a claimed key."""
    await connection.execute(_SQL["answer"], (status, body, api_key_id, key))
