"""API keys: who may call the API, what for, and for which switch."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterable
from dataclasses import dataclass

from tollkeeper.errors import Conflict, InvalidInput, NotFound
from tollkeeper.services.fields import check_code, check_text
from tollkeeper.store import keys as store
from tollkeeper.store.changes import record
from tollkeeper.store.db import Database
from tollkeeper.store.directory import ApiKey
from tollkeeper.store.keys import KeyRow

__all__ = ["SCOPES", "ApiKey", "KeyRow", "NewKey", "allows", "create_key", "hash_key"]

SCOPES = ("charge", "read", "manage")
"""``charge``: sessions and quotes; ``read``: look at everything; ``manage``: everything."""

PREFIX = "tk_"
SECRET_BYTES = 32


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key just made. ``secret`` is shown once and never stored."""

    key: KeyRow
    secret: str


def hash_key(secret: str) -> bytes:
    """Return what is stored of a secret.

    A plain SHA-256 is enough: the secret is random with 256 bits, so it cannot be guessed from its
    hash, and it is looked up on every request.
    """
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()


def allows(key: ApiKey, scope: str) -> bool:
    """Tell whether a key may do what needs ``scope``."""
    return scope in key.scopes or "manage" in key.scopes


async def create_key(
    database: Database, *, name: str, scopes: Iterable[str], switch: str = "http", actor: str
) -> NewKey:
    """Make a key; sessions opened with it belong to ``switch``.

    Raises:
        InvalidInput: no scope, an unknown one, or a name or switch that is not well formed.
    """
    check_text(name, field="name")
    check_code(switch, field="switch")
    wanted = tuple(sorted(set(scopes)))
    if not wanted or not set(wanted) <= set(SCOPES):
        raise InvalidInput(
            f"scopes: choose one or more of {', '.join(SCOPES)}",
            code="unknown_scope",
            field="scopes",
        )
    # Never an argument: a secret that a test or a simulator can foresee is none.
    secret = PREFIX + secrets.token_urlsafe(SECRET_BYTES)
    async with database.write() as connection:
        key = await store.add_key(
            connection, name=name, secret_hash=hash_key(secret), scopes=wanted, switch=switch
        )
        await record(
            connection,
            actor=actor,
            action="key.create",
            subject=f"key {key.id}",
            detail={"name": name, "scopes": list(wanted), "switch": switch},
            notice=f"key:{key.id}",
        )
    return NewKey(key, secret)


async def list_keys(database: Database, *, after: int = 0, limit: int = 100) -> list[KeyRow]:
    """Return keys, revoked ones too, in the order of their ids; never their secrets."""
    async with database.read() as connection:
        return await store.read_keys(connection, after=after, limit=limit)


async def revoke_key(
    database: Database, key_id: int, *, actor: str, own_id: int | None = None
) -> None:
    """End a key at once and for ever; ending it again changes nothing.

    ``own_id`` is the key that asks: it cannot end itself, so that nobody locks himself out.

    Raises:
        NotFound: no such key. Conflict: the key that asks.
    """
    if key_id == own_id:
        raise Conflict("a key cannot revoke itself; use another key", code="own_key")
    async with database.write() as connection:
        if not await store.revoke_key(connection, key_id):
            if await store.read_key(connection, key_id) is None:
                raise NotFound(f"there is no key {key_id}", code="unknown_key")
            return
        await record(
            connection,
            actor=actor,
            action="key.revoke",
            subject=f"key {key_id}",
            detail={},
            notice=f"key:{key_id}",
        )
