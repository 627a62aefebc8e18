"""API keys: who may call the API, what for, and for which switch."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterable
from dataclasses import dataclass

from tollkeeper.errors import Conflict, Forbidden, InvalidInput, NotFound
from tollkeeper.services.fields import check_code, check_text
from tollkeeper.store import keys as store
from tollkeeper.store.changes import record
from tollkeeper.store.db import Connection, Database
from tollkeeper.store.directory import ApiKey
from tollkeeper.store.keys import KeyRow
from tollkeeper.store.parties import read_party
from tollkeeper.store.scope import read_own_code

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
    database: Database,
    *,
    name: str,
    scopes: Iterable[str],
    switch: str | None = None,
    party: str | None = None,
    actor: str,
    by: ApiKey | None = None,
) -> NewKey:
    """Make a key; sessions opened with it belong to ``switch``.

    With a ``party`` it is bounded to that party and those below it. ``by`` is the key that asks:
    one that is bounded itself makes only keys of its own subtree and switch, for nothing that it may
    not do itself.

    Raises:
        InvalidInput: no scope, an unknown one, an unknown party, or a name or switch that is not
            well formed. Forbidden: more than the key that asks may do itself.
    """
    bounded = by is not None and by.party_id is not None
    if switch is None:
        switch = by.switch if by is not None and bounded else "http"
    check_text(name, field="name")
    check_code(switch, field="switch")
    wanted = tuple(sorted(set(scopes)))
    if not wanted or not set(wanted) <= set(SCOPES):
        raise InvalidInput(
            f"scopes: choose one or more of {', '.join(SCOPES)}",
            code="unknown_scope",
            field="scopes",
        )
    scope = by.party_id if by is not None else None
    if by is not None and bounded:
        _check_no_more(by, wanted, switch)
    # Never an argument: a secret that a test or a simulator can foresee is none.
    secret = PREFIX + secrets.token_urlsafe(SECRET_BYTES)
    async with database.write(scope=scope) as connection:
        if party is None and scope is not None:
            party = await read_own_code(connection, scope)
        key = await store.add_key(
            connection,
            name=name,
            secret_hash=hash_key(secret),
            scopes=wanted,
            switch=switch,
            party_id=await _party_id(connection, party),
        )
        await record(
            connection,
            actor=actor,
            action="key.create",
            subject=f"key {key.id}",
            detail={"name": name, "scopes": list(wanted), "switch": switch, "party": party},
            notice=f"key:{key.id}",
        )
    return NewKey(key, secret)


def _check_no_more(by: ApiKey, wanted: Iterable[str], switch: str) -> None:
    lacking = [scope for scope in wanted if not allows(by, scope)]
    if lacking:
        raise Forbidden(
            f'this API key cannot give away the scope "{lacking[0]}", which it lacks itself',
            code="scope_missing",
        )
    if switch != by.switch:
        raise Forbidden(
            f"a key of a party makes keys for its own switch only: {by.switch}",
            code="operator_only",
        )


async def _party_id(connection: Connection, party: str | None) -> int | None:
    if party is None:
        return None
    found = await read_party(connection, check_code(party, field="party"))
    if found is None:
        raise InvalidInput(
            f'party: there is no party "{party}"', code="unknown_party", field="party"
        )
    return found.id


async def list_keys(
    database: Database, *, after: int = 0, limit: int = 100, scope: int | None = None
) -> list[KeyRow]:
    """Return keys, revoked ones too, in the order of their ids; never their secrets."""
    async with database.read(scope=scope) as connection:
        return await store.read_keys(connection, after=after, limit=limit)


async def revoke_key(
    database: Database,
    key_id: int,
    *,
    actor: str,
    own_id: int | None = None,
    scope: int | None = None,
) -> None:
    """End a key at once and for ever; ending it again changes nothing.

    ``own_id`` is the key that asks: it cannot end itself, so that nobody locks himself out.

    Raises:
        NotFound: no such key. Conflict: the key that asks.
    """
    if key_id == own_id:
        raise Conflict("a key cannot revoke itself; use another key", code="own_key")
    async with database.write(scope=scope) as connection:
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
