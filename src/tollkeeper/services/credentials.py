"""Credentials: user names that may call (SIP digest, RADIUS), and the party that pays for them.

Kept is HA1 of RFC 2617, MD5(username:realm:password), not the password. Whoever reads it can call in
that user's name, so it is never shown.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import replace

from tollkeeper.errors import Conflict, InvalidInput, NotFound
from tollkeeper.services.fields import check_text
from tollkeeper.store import credentials as store
from tollkeeper.store.changes import record
from tollkeeper.store.credentials import CredentialEntry
from tollkeeper.store.db import Connection, Database
from tollkeeper.store.parties import read_party

__all__ = [
    "CredentialEntry",
    "change_credential",
    "create_credential",
    "delete_credential",
    "find_credential",
    "get_credential",
    "list_credentials",
]

CHANGEABLE = frozenset(("party", "password", "ha1", "enabled"))
USERNAME_MAX = 128
PASSWORD_MAX = 128
_HA1 = re.compile(r"[0-9a-f]{32}")


async def create_credential(
    database: Database,
    entry: CredentialEntry,
    *,
    password: str = "",
    ha1: str = "",
    actor: str,
) -> CredentialEntry:
    """Add a user name with its password, or with the HA1 made of it elsewhere.

    Raises:
        InvalidInput: a field is wrong, or not exactly one of password and HA1 is given.
        Conflict: the realm has this user name already.
    """
    _check_name(entry.username, "username")
    if entry.realm:
        _check_name(entry.realm, "realm")
    proof = _proof(entry, password, ha1)
    if proof is None:
        raise InvalidInput("password: give the password, or its HA1", field="password")
    async with database.write() as connection:
        party_id = await _party_id(connection, entry.party)
        id_ = await store.add_credential(connection, entry, proof, party_id)
        if id_ is None:
            raise Conflict(
                f'the user name "{entry.username}" is taken in this realm',
                code="credential_exists",
                field="username",
            )
        return await _recorded(connection, id_, action="credential.create", actor=actor)


async def change_credential(
    database: Database, id_: int, changes: Mapping[str, object], *, actor: str
) -> CredentialEntry:
    """Change party, password (or ha1) or enabled; counts from the next call on.

    Raises:
        NotFound: there is none of this number. InvalidInput: a field is unknown or wrong.
    """
    unknown = sorted(changes.keys() - CHANGEABLE)
    if unknown:
        raise InvalidInput(f"{unknown[0]}: this cannot be changed", field=unknown[0])
    values = dict(changes)
    password, ha1 = str(values.pop("password", "")), str(values.pop("ha1", ""))
    async with database.write() as connection:
        # The names of the changes are those of the record's fields.
        entry = replace(await _read(connection, id_), **values)  # type: ignore[arg-type]
        party_id = await _party_id(connection, entry.party)
        await store.set_credential(connection, entry, _proof(entry, password, ha1), party_id)
        return await _recorded(connection, id_, action="credential.change", actor=actor)


async def get_credential(database: Database, id_: int) -> CredentialEntry:
    """Show a user name.

    Raises:
        NotFound: there is none of this number.
    """
    async with database.read() as connection:
        return await _read(connection, id_)


async def find_credential(database: Database, username: str, realm: str) -> CredentialEntry:
    """Find a user name of a realm.

    Raises:
        NotFound: the realm has none of this name.
    """
    async with database.read() as connection:
        entry = await store.read_named(connection, username, realm)
    if entry is None:
        shown = f' in the realm "{realm}"' if realm else " without a realm"
        raise NotFound(f'there is no user name "{username}"{shown}', code="unknown_credential")
    return entry


async def list_credentials(
    database: Database, *, party: str = "", after: int = 0, limit: int = 100
) -> list[CredentialEntry]:
    """List user names, a party's or all, in the order in which they were added."""
    async with database.read() as connection:
        return await store.read_page(connection, party=party, after=after, limit=limit)


async def delete_credential(database: Database, id_: int, *, actor: str) -> None:
    """Delete a user name; calls that are up go on.

    Raises:
        NotFound: there is none of this number.
    """
    async with database.write() as connection:
        entry = await _read(connection, id_)
        await store.delete_credential(connection, id_)
        await _record(connection, entry, action="credential.delete", actor=actor)


def _check_name(value: str, field: str) -> None:
    check_text(value, field=field, longest=USERNAME_MAX)
    if set(value) & set(':"\\'):
        # A colon would make HA1 of one name that of another; the rest ends quoted strings.
        raise InvalidInput(f"{field}: no colons, quotes or backslashes", field=field)


def _proof(entry: CredentialEntry, password: str, ha1: str) -> str | None:
    """The HA1 to keep; None where neither was given."""
    if password and ha1:
        raise InvalidInput("ha1: give it or the password, not both", field="ha1")
    if ha1:
        if not _HA1.fullmatch(ha1):
            raise InvalidInput("ha1: 32 hexadecimal digits in small letters", field="ha1")
        return ha1
    if not password:
        return None
    check_text(password, field="password", longest=PASSWORD_MAX)
    written = f"{entry.username}:{entry.realm}:{password}".encode()
    return hashlib.md5(written, usedforsecurity=False).hexdigest()


async def _party_id(connection: Connection, code: str) -> int:
    party = await read_party(connection, code)
    if party is None:
        raise InvalidInput(
            f'party: there is no party "{code}"', code="unknown_party", field="party"
        )
    return party.id


async def _read(connection: Connection, id_: int) -> CredentialEntry:
    entry = await store.read_credential(connection, id_)
    if entry is None:
        raise NotFound(f"there is no credential {id_}", code="unknown_credential")
    return entry


async def _recorded(
    connection: Connection, id_: int, *, action: str, actor: str
) -> CredentialEntry:
    entry = await _read(connection, id_)
    await _record(connection, entry, action=action, actor=actor)
    return entry


async def _record(
    connection: Connection, entry: CredentialEntry, *, action: str, actor: str
) -> None:
    await record(
        connection,
        actor=actor,
        action=action,
        subject=f"credential {entry.username}@{entry.realm}",
        detail={"party": entry.party, "enabled": entry.enabled},
        notice=f"credential:{entry.id}",
    )
