"""Peers (switches, NAS, ESMEs ...), the users who call through them, and how their calls are reached."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import date, datetime
from typing import Any

import msgspec
import psycopg
from psycopg.rows import DictRow
from psycopg.types.json import Jsonb

from tollkeeper.core.records import Session
from tollkeeper.store.db import Connection, queries

_SQL = queries("peers")
_decode = msgspec.json.Decoder(Session).decode


@dataclass(frozen=True, slots=True)
class Peer:
    """Who speaks a protocol with us; ``kind`` says which.

    ``switch`` is the name under which its calls are kept, ``trunk`` the code of the trunk that all its
    calls are of ("": each call tells). ``on_failure`` "allow" grants up to ``risk_seconds`` in all while
    nothing can be charged. ``options`` are those of the kind, checked where they were written.
    """

    id: int
    code: str
    kind: str
    switch: str
    addresses: tuple[str, ...] = ()
    secret: str = field(default="", repr=False)
    dialect: str = ""
    trunk: str = ""
    timezone: str = "UTC"
    on_failure: str = "refuse"
    risk_seconds: int = 0
    # Some of them are secrets, too.
    options: Mapping[str, object] = field(default_factory=dict, repr=False)
    enabled: bool = True

    def text(self, option: str, default: str = "") -> str:
        """An option that is a text."""
        value = self.options.get(option, default)
        return value if isinstance(value, str) else default

    def whole(self, option: str, default: int = 0) -> int:
        """An option that is a whole number."""
        value = self.options.get(option, default)
        return value if isinstance(value, int) and not isinstance(value, bool) else default

    def flag(self, option: str, *, default: bool = False) -> bool:
        """An option that is on or off."""
        value = self.options.get(option, default)
        return value if isinstance(value, bool) else default

    def rows(self, option: str) -> Sequence[Mapping[str, object]]:
        """An option that is a list of records."""
        value = self.options.get(option, ())
        return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else ()


@dataclass(frozen=True, slots=True)
class Credential:
    """A user name that may call for a party; ``ha1`` is MD5(username:realm:password) in hexadecimal."""

    username: str
    realm: str
    ha1: str = field(repr=False)
    party_id: int


@dataclass(frozen=True, slots=True)
class Standing:
    """A session as far as its id is concerned."""

    key: str
    open: bool
    opened_day: date

    @property
    def session_id(self) -> str:
        """The key without its switch."""
        return self.key.partition("/")[2]


async def read_peers(connection: Connection) -> list[Peer]:
    """All peers in the order of their codes, those that are switched off among them."""
    rows = await (await connection.execute(_SQL["all"])).fetchall()
    return [_peer(row) for row in rows]


async def read_mark(connection: Connection) -> str:
    """A text that is another one whenever a peer, trunk or credential has changed."""
    row = await (await connection.execute(_SQL["mark"])).fetchone()
    assert row is not None
    mark: str = row["mark"]
    return mark


async def read_of_trunk(connection: Connection, trunk: str) -> str:
    """The code of a peer whose calls all come by this trunk; "" if there is none."""
    row = await (await connection.execute(_SQL["of_trunk"], (trunk,))).fetchone()
    return "" if row is None else row["code"]


async def read_credentials(connection: Connection) -> list[Credential]:
    """All user names that may call."""
    rows = await (await connection.execute(_SQL["credentials"])).fetchall()
    return [Credential(**row) for row in rows]


async def read_peer(connection: Connection, code: str) -> Peer | None:
    """One peer by its code."""
    row = await (await connection.execute(_SQL["one"], (code,))).fetchone()
    return None if row is None else _peer(row)


async def read_page(connection: Connection, *, kind: str, after: str, limit: int) -> list[Peer]:
    """Peers of a kind ("": of all) in the order of their codes."""
    values = {"kind": kind, "after": after, "limit": limit}
    rows = await (await connection.execute(_SQL["page"], values)).fetchall()
    return [_peer(row) for row in rows]


async def add_peer(connection: Connection, peer: Peer) -> int | None:
    """Insert a peer; None when its code is taken."""
    row = await (await connection.execute(_SQL["add"], _values(peer))).fetchone()
    return None if row is None else row["id"]


async def set_peer(connection: Connection, peer: Peer) -> None:
    """Store a peer that is there already; its code, kind and switch stay."""
    await connection.execute(_SQL["change"], _values(peer))


async def delete_peer(connection: Connection, code: str) -> bool:
    """Delete a peer; False if there was none."""
    return (await connection.execute(_SQL["delete"], (code,))).rowcount > 0


async def read_same_place(connection: Connection, peer: Peer) -> str:
    """The code of another peer of this kind with one of these addresses; "" if there is none."""
    values = (peer.kind, peer.code, list(peer.addresses))
    row = await (await connection.execute(_SQL["same_place"], values)).fetchone()
    return "" if row is None else row["code"]


def _peer(row: DictRow) -> Peer:
    return Peer(**{**row, "addresses": tuple(row["addresses"])})


def _values(peer: Peer) -> dict[str, object]:
    return asdict(peer) | {
        "addresses": list(peer.addresses),
        "options": Jsonb(dict(peer.options)),
    }


async def read_open(
    connection: Connection, switch: str, *, after: str = "", limit: int = 1000
) -> list[Session]:
    """Open sessions of a switch in the order of their keys, from the key ``after`` on."""
    values = {"switch": switch, "after": after, "limit": limit}
    rows = await (await connection.execute(_SQL["open_sessions"], values)).fetchall()
    return [_decode(row["body"]) for row in rows]


async def read_again(connection: Connection, mark: str) -> list[str]:
    """Keys of open sessions with a mark in them, in the order in which they were opened."""
    rows = await (await connection.execute(_SQL["again"], (mark,))).fetchall()
    return [row["key"] for row in rows]


async def read_standing(connection: Connection, keys: Sequence[str], since: date) -> list[Standing]:
    """Which of these keys have an open session, or one that was opened since this day and closed."""
    values = {"keys": list(keys), "since": since}
    rows = await (await connection.execute(_SQL["standing"], values)).fetchall()
    return [Standing(**row) for row in rows]


async def hold_peer(connection: psycopg.AsyncConnection[Any], peer_id: int) -> bool:
    """Be the one process that talks to a peer, as long as this connection lives; False: another one is."""
    row = await (await connection.execute(_SQL["hold"], (peer_id,))).fetchone()
    return row is not None and bool(row[0])


async def read_handle(connection: Connection, key: str) -> dict[str, object] | None:
    """By what a call is reached at its switch."""
    row = await (await connection.execute(_SQL["handle"], (key,))).fetchone()
    return None if row is None else row["body"]


async def keep_handles(connection: Connection, handles: Mapping[str, Mapping[str, object]]) -> None:
    """Write down by what calls are reached; what was known of them before is replaced."""
    bodies = json.dumps([dict(body) for body in handles.values()])
    await connection.execute(_SQL["keep_handles"], (list(handles), bodies))


async def forget_handles(connection: Connection, keys: Iterable[str]) -> None:
    """Calls that are over."""
    await connection.execute(_SQL["forget_handles"], (list(keys),))


async def purge_handles(connection: Connection, before: datetime) -> None:
    """Handles of calls that are not up any more and were not forgotten."""
    await connection.execute(_SQL["purge_handles"], (before,))
