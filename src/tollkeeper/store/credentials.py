"""User names that may call, as they are shown; the call path reads them through ``store.peers``."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from tollkeeper.store.db import Connection, queries

_SQL = queries("credentials")


@dataclass(frozen=True, slots=True)
class CredentialEntry:
    """A user name of a realm and the code of the party that pays. What proves it is never read here."""

    username: str
    realm: str
    party: str
    enabled: bool = True
    id: int = 0
    created_at: datetime | None = None


async def add_credential(
    connection: Connection, entry: CredentialEntry, ha1: str, party_id: int
) -> int | None:
    """Insert a user name; None when the realm has it already."""
    values = (entry.username, entry.realm, ha1, party_id, entry.enabled)
    row = await (await connection.execute(_SQL["add"], values)).fetchone()
    return None if row is None else row["id"]


async def set_credential(
    connection: Connection, entry: CredentialEntry, ha1: str | None, party_id: int
) -> None:
    """Store a user name that is there already; without ``ha1`` its password stays."""
    values = {"ha1": ha1, "party_id": party_id, "enabled": entry.enabled, "id": entry.id}
    await connection.execute(_SQL["change"], values)


async def read_credential(connection: Connection, id_: int) -> CredentialEntry | None:
    """Read one by its number."""
    row = await (await connection.execute(_SQL["one"], (id_,))).fetchone()
    return None if row is None else CredentialEntry(**row)


async def read_named(connection: Connection, username: str, realm: str) -> CredentialEntry | None:
    """Read one by its name and realm."""
    row = await (await connection.execute(_SQL["named"], (username, realm))).fetchone()
    return None if row is None else CredentialEntry(**row)


async def read_page(
    connection: Connection, *, party: str, after: int, limit: int
) -> list[CredentialEntry]:
    """Those of a party ("": all) in the order in which they were added."""
    values = {"party": party, "after": after, "limit": limit}
    rows = await (await connection.execute(_SQL["page"], values)).fetchall()
    return [CredentialEntry(**row) for row in rows]


async def delete_credential(connection: Connection, id_: int) -> bool:
    """Delete one; False if there was none."""
    return (await connection.execute(_SQL["delete"], (id_,))).rowcount > 0
