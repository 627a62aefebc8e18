"""Trunks: by what the customer or the vendor of a record is recognised."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace

from tollkeeper.core.trunks import check_address
from tollkeeper.errors import Conflict, InvalidInput, NotFound
from tollkeeper.services.fields import check_choice, check_code, check_text
from tollkeeper.services.parties import check_dial_rules
from tollkeeper.store import trunks as store
from tollkeeper.store.changes import record
from tollkeeper.store.db import Connection, Database
from tollkeeper.store.parties import read_party
from tollkeeper.store.peers import read_of_trunk
from tollkeeper.store.trunks import TrunkEntry

__all__ = ["TrunkEntry", "change_trunk", "create_trunk", "delete_trunk", "get_trunk", "list_trunks"]

CHANGEABLE = frozenset(
    ("party", "switch", "names", "addresses", "account", "tech_prefix", "dial_rules")
)
NAMES_MAX = 200
"""Names, and addresses, of one trunk."""


async def create_trunk(database: Database, trunk: TrunkEntry, *, actor: str) -> TrunkEntry:
    """Create a trunk; returns it as stored.

    Raises:
        InvalidInput: a field is wrong, or it says nothing that a record could be recognised by.
        Conflict: the code is taken.
    """
    check_code(trunk.code)
    check_choice(trunk.direction, ("in", "out"), field="direction")
    trunk = _checked(trunk)
    async with database.write() as connection:
        party_id = await _party_id(connection, trunk.party)
        if await store.add_trunk(connection, trunk, party_id) is None:
            raise Conflict(f'the code "{trunk.code}" is taken', code="trunk_exists", field="code")
        return await _recorded(connection, trunk.code, action="trunk.create", actor=actor)


async def change_trunk(
    database: Database, code: str, changes: Mapping[str, object], *, actor: str
) -> TrunkEntry:
    """Change some of a trunk's fields (see :data:`CHANGEABLE`); counts for records mediated from now on.

    Raises:
        NotFound: there is no such trunk. InvalidInput: a field is unknown or wrong.
    """
    unknown = sorted(changes.keys() - CHANGEABLE)
    if unknown:
        raise InvalidInput(f"{unknown[0]}: this cannot be changed", field=unknown[0])
    async with database.write() as connection:
        # The names of the changes are those of the record's fields.
        trunk = _checked(replace(await _read(connection, code), **changes))  # type: ignore[arg-type]
        await store.set_trunk(connection, trunk, await _party_id(connection, trunk.party))
        return await _recorded(connection, code, action="trunk.change", actor=actor)


async def get_trunk(database: Database, code: str) -> TrunkEntry:
    """Show a trunk.

    Raises:
        NotFound: there is none of this code.
    """
    async with database.read() as connection:
        return await _read(connection, code)


async def list_trunks(database: Database, *, after: str = "", limit: int = 100) -> list[TrunkEntry]:
    """List trunks in the order of their codes."""
    async with database.read() as connection:
        return await store.read_trunks(connection, after=after, limit=limit)


async def delete_trunk(database: Database, code: str, *, actor: str) -> None:
    """Delete a trunk; what was mediated by it stays as it is.

    Raises:
        NotFound: there is none of this code. Conflict: it is that of a peer.
    """
    async with database.write() as connection:
        trunk = await _read(connection, code)
        peer = await read_of_trunk(connection, code)
        if peer:
            raise Conflict(
                f'the trunk "{code}" is that of the peer "{peer}"; change that peer first',
                code="trunk_in_use",
                field="trunk",
            )
        await store.delete_trunk(connection, code)
        await _record(connection, trunk, action="trunk.delete", actor=actor)


def _checked(trunk: TrunkEntry) -> TrunkEntry:
    if trunk.switch:
        check_code(trunk.switch, field="switch")
    for field in ("names", "addresses"):
        if len(getattr(trunk, field)) > NAMES_MAX:
            raise InvalidInput(f"{field}: at most {NAMES_MAX}", field=field)
    for name in trunk.names:
        check_text(name, field="names")
    if trunk.account:
        check_text(trunk.account, field="account")
    if trunk.tech_prefix and not set(trunk.tech_prefix) <= set("0123456789*#"):
        raise InvalidInput("tech_prefix: digits, * and # only", field="tech_prefix")
    addresses = []
    for text in trunk.addresses:
        try:
            addresses.append(check_address(text))
        except ValueError:
            raise InvalidInput(
                f'addresses: "{text[:60]}" is neither an IP address nor a network such as 192.0.2.0/24',
                field="addresses",
            ) from None
    check_dial_rules(trunk.dial_rules)
    if not (trunk.names or addresses or trunk.account or trunk.tech_prefix):
        raise InvalidInput(
            "give at least one of names, addresses, account and tech_prefix: by what is it recognised?",
            field="names",
        )
    return replace(trunk, addresses=tuple(addresses))


async def _party_id(connection: Connection, code: str) -> int:
    party = await read_party(connection, code)
    if party is None:
        raise InvalidInput(
            f'party: there is no party "{code}"', code="unknown_party", field="party"
        )
    return party.id


async def _read(connection: Connection, code: str) -> TrunkEntry:
    trunk = await store.read_trunk(connection, code)
    if trunk is None:
        raise NotFound(f'there is no trunk "{code}"', code="unknown_trunk", field="trunk")
    return trunk


async def _recorded(connection: Connection, code: str, *, action: str, actor: str) -> TrunkEntry:
    trunk = await _read(connection, code)
    await _record(connection, trunk, action=action, actor=actor)
    return trunk


async def _record(connection: Connection, trunk: TrunkEntry, *, action: str, actor: str) -> None:
    detail = asdict(trunk)
    await record(
        connection,
        actor=actor,
        action=action,
        subject=f"trunk {trunk.code}",
        detail=detail,
        notice=f"trunk:{trunk.id}",
    )
