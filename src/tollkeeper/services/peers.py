"""Peers: the switches, gateways and message centres that speak a protocol with us.

A change is told to every process in its own transaction (``peer:ID``) and is in force a moment later:
nothing is restarted, calls that are up go on.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import replace

from tollkeeper.core.trunks import check_address
from tollkeeper.errors import Conflict, InvalidInput, NotFound
from tollkeeper.services.fields import (
    check_choice,
    check_code,
    check_integer,
    check_text,
    check_timezone,
)
from tollkeeper.services.peer_options import HIDDEN, KINDS, checked_options, shown_options
from tollkeeper.store import peers as store
from tollkeeper.store.changes import record
from tollkeeper.store.db import Connection, Database
from tollkeeper.store.peers import Peer
from tollkeeper.store.trunks import read_trunk

__all__ = ["Peer", "change_peer", "create_peer", "delete_peer", "get_peer", "list_peers"]

CHANGEABLE = frozenset(
    (
        "addresses",
        "secret",
        "dialect",
        "trunk",
        "timezone",
        "on_failure",
        "risk_seconds",
        "options",
        "enabled",
    )
)
ADDRESSES_MAX = 200
SECRET_MAX = 255
RISK_SECONDS_MAX = 86_400
KNOWN_BY_ADDRESS = frozenset(("radius", "asterisk", "sip"))
"""Kinds that prove nothing by the protocol alone: they must have an address that they come from."""
GIVEN_SECRET = frozenset(("smsc",))
"""Kinds whose secret is chosen at the other side, and cannot be left out."""
MADE_SECRET: Mapping[str, int] = {"radius": 24, "esme": 6, "kamailio": 24}
"""Kinds that we choose a secret for, of so many random bytes: a password of SMPP has 8 characters."""


async def create_peer(database: Database, peer: Peer, *, actor: str) -> tuple[Peer, str]:
    """Create a peer; returns it as stored, and the secret that was made for it ("": it was given).

    Raises:
        InvalidInput: a field or option is wrong.
        Conflict: the code is taken, or another peer of this kind has one of its addresses.
    """
    check_code(peer.code)
    check_choice(peer.kind, KINDS, field="kind")
    made = ""
    if not peer.secret and peer.kind in MADE_SECRET:
        made = secrets.token_urlsafe(MADE_SECRET[peer.kind])
        peer = replace(peer, secret=made)
    peer = _checked(replace(peer, switch=peer.switch or peer.code))
    async with database.write() as connection:
        await _check_others(connection, peer)
        if await store.add_peer(connection, peer) is None:
            raise Conflict(f'the code "{peer.code}" is taken', code="peer_exists", field="code")
        return await _recorded(connection, peer.code, action="peer.create", actor=actor), made


async def change_peer(
    database: Database, code: str, changes: Mapping[str, object], *, actor: str
) -> Peer:
    """Change some of a peer's fields (see :data:`CHANGEABLE`).

    Of ``options`` those that are named are set, or taken away where they are None; the others stay.

    Raises:
        NotFound: there is no such peer. InvalidInput: a field or option is unknown or wrong.
        Conflict: another peer of this kind has one of its addresses.
    """
    unknown = sorted(changes.keys() - CHANGEABLE)
    if unknown:
        raise InvalidInput(f"{unknown[0]}: this cannot be changed", field=unknown[0])
    async with database.write() as connection:
        peer = await _read(connection, code)
        values = dict(changes)
        if "options" in values:
            values["options"] = _merged(peer.options, values["options"])
        # The names of the changes are those of the record's fields.
        peer = _checked(replace(peer, **values))  # type: ignore[arg-type]
        await _check_others(connection, peer)
        await store.set_peer(connection, peer)
        return await _recorded(connection, code, action="peer.change", actor=actor)


async def get_peer(database: Database, code: str) -> Peer:
    """Show a peer.

    Raises:
        NotFound: there is none of this code.
    """
    async with database.read() as connection:
        return await _read(connection, code)


async def list_peers(
    database: Database, *, kind: str = "", after: str = "", limit: int = 100
) -> list[Peer]:
    """List peers, of one kind or all, in the order of their codes.

    Raises:
        InvalidInput: there is no such kind.
    """
    if kind:
        check_choice(kind, KINDS, field="kind")
    async with database.read() as connection:
        return await store.read_page(connection, kind=kind, after=after, limit=limit)


async def delete_peer(database: Database, code: str, *, actor: str) -> None:
    """Delete a peer: nothing it sends is taken any more. Its calls close by themselves in time.

    Raises:
        NotFound: there is none of this code.
    """
    async with database.write() as connection:
        peer = await _read(connection, code)
        await store.delete_peer(connection, code)
        await _record(connection, peer, action="peer.delete", actor=actor)


def _merged(old: Mapping[str, object], changes: object) -> dict[str, object]:
    if not isinstance(changes, Mapping):
        raise InvalidInput("options: give names and values", field="options")
    # Whoever sends back what was shown does not mean to replace a secret by the words in its place.
    merged = {**old, **{name: value for name, value in changes.items() if value != HIDDEN}}
    return {name: value for name, value in merged.items() if value is not None}


def _checked(peer: Peer) -> Peer:
    check_code(peer.switch, field="switch")
    check_timezone(peer.timezone)
    check_choice(peer.on_failure, ("refuse", "allow"), field="on_failure")
    check_integer(peer.risk_seconds, field="risk_seconds", most=RISK_SECONDS_MAX)
    if peer.on_failure == "allow" and not peer.risk_seconds:
        raise InvalidInput(
            "risk_seconds: with on_failure allow, say how many seconds may be let through unpaid",
            field="risk_seconds",
        )
    if peer.dialect:
        check_text(peer.dialect, field="dialect", longest=40)
    _check_secret(peer)
    if len(peer.addresses) > ADDRESSES_MAX:
        raise InvalidInput(f"addresses: at most {ADDRESSES_MAX}", field="addresses")
    if not peer.addresses and peer.kind in KNOWN_BY_ADDRESS:
        raise InvalidInput(
            f"addresses: a peer of kind {peer.kind} is known by the address that it comes from",
            field="addresses",
        )
    addresses = tuple(dict.fromkeys(_address(text) for text in peer.addresses))
    return replace(peer, addresses=addresses, options=checked_options(peer.kind, peer.options))


def _check_secret(peer: Peer) -> None:
    if peer.secret:
        check_text(peer.secret, field="secret", longest=SECRET_MAX)
    elif peer.kind in GIVEN_SECRET or peer.kind in MADE_SECRET:
        raise InvalidInput(f"secret: a peer of kind {peer.kind} needs one", field="secret")


def _address(text: str) -> str:
    try:
        return check_address(text)
    except ValueError:
        raise InvalidInput(
            f'addresses: "{text[:60]}" is neither an IP address nor a network such as 192.0.2.0/24',
            field="addresses",
        ) from None


async def _check_others(connection: Connection, peer: Peer) -> None:
    """Its trunk must be there, and its addresses nobody else's."""
    if peer.trunk:
        trunk = await read_trunk(connection, peer.trunk)
        if trunk is None or trunk.direction != "in":
            raise InvalidInput(
                f'trunk: there is no trunk "{peer.trunk[:63]}" of the direction in',
                code="unknown_trunk",
                field="trunk",
            )
    other = await store.read_same_place(connection, peer)
    if other:
        raise Conflict(
            f'addresses: the peer "{other}" of kind {peer.kind} has one of them already',
            code="address_taken",
            field="addresses",
        )


async def _read(connection: Connection, code: str) -> Peer:
    peer = await store.read_peer(connection, code)
    if peer is None:
        raise NotFound(f'there is no peer "{code}"', code="unknown_peer", field="peer")
    return peer


async def _recorded(connection: Connection, code: str, *, action: str, actor: str) -> Peer:
    peer = await _read(connection, code)
    await _record(connection, peer, action=action, actor=actor)
    return peer


async def _record(connection: Connection, peer: Peer, *, action: str, actor: str) -> None:
    await record(
        connection,
        actor=actor,
        action=action,
        subject=f"peer {peer.code}",
        detail={
            "kind": peer.kind,
            "switch": peer.switch,
            "addresses": list(peer.addresses),
            "dialect": peer.dialect,
            "trunk": peer.trunk,
            "timezone": peer.timezone,
            "on_failure": peer.on_failure,
            "risk_seconds": peer.risk_seconds,
            "options": shown_options(peer.kind, peer.options),
            "enabled": peer.enabled,
        },
        notice=f"peer:{peer.id}",
    )
