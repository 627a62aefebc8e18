"""Reading sessions for people and jobs; the lane's own reading is in ``store.charging``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from uuid import UUID

import msgspec

from tollkeeper.core.records import Reply, Session
from tollkeeper.store.db import Connection, queries

_SQL = queries("sessions")
_decode = msgspec.json.Decoder(Session).decode
_decode_reply = msgspec.json.Decoder(Reply).decode


@dataclass(frozen=True, slots=True)
class StoredMessage:
    """A message that changed a session, as JSON texts, with the answer it got."""

    version: int
    message_id: str
    at: datetime
    request: str
    reply: str


@dataclass(frozen=True, slots=True)
class StoredEntry:
    """A line of the journal made for a session; ``balance_after`` is the wallet's."""

    id: int
    at: datetime
    code: str
    amount: Decimal
    currency: str
    wallet_id: int
    wallet_version: int
    balance_after: Decimal
    leg: int
    debit: str
    credit: str


async def read_live(
    connection: Connection, *, party_id: int | None, after: str, limit: int
) -> list[Session]:
    """Live sessions in the order of their keys, from after ``after`` on."""
    values = {"party": party_id, "after": after, "limit": limit}
    return [
        _decode(row["body"])
        for row in await (await connection.execute(_SQL["live"], values)).fetchall()
    ]


async def read_session(connection: Connection, name: str) -> Session | None:
    """Find a session, live or closed, by ``switch/session_id`` or by its own id."""
    by = "by_key" if "/" in name else "by_id"
    if by == "by_id":
        try:
            UUID(name)
        except ValueError:
            return None
    for place in ("live", "closed"):
        row = await (await connection.execute(_SQL[f"{by}_{place}"], (name,))).fetchone()
        if row is not None:
            return _decode(row["body"])
    return None


async def read_messages(connection: Connection, day: date, session_id: str) -> list[StoredMessage]:
    """All messages of a session in the order they were applied; ``day`` is that of its opening."""
    rows = await (await connection.execute(_SQL["messages"], (day, session_id))).fetchall()
    return [StoredMessage(**row) for row in rows]


async def read_entries(connection: Connection, session_id: str) -> list[StoredEntry]:
    """All journal entries of a session."""
    rows = await (await connection.execute(_SQL["entries"], (session_id,))).fetchall()
    return [StoredEntry(**row) for row in rows]


async def due_to_expire(connection: Connection, now: datetime, limit: int) -> list[str]:
    """Keys of live sessions whose time is over, the longest overdue first."""
    rows = await (await connection.execute(_SQL["due_to_expire"], (now, limit))).fetchall()
    return [row["key"] for row in rows]


async def to_kill(connection: Connection, limit: int) -> list[str]:
    """Keys of live sessions to be ended: of parties that are stopped with their calls, and below them.

    The live sessions have no index by party, so they are only looked through while such a party
    has any: this is asked twice a second.
    """
    parties = [
        row["id"] for row in await (await connection.execute(_SQL["parties_to_kill"])).fetchall()
    ]
    if not parties:
        return []
    rows = await (await connection.execute(_SQL["to_kill"], (parties, limit))).fetchall()
    return [row["key"] for row in rows]


def reply_of(message: StoredMessage) -> Reply:
    """The answer that a message got."""
    return _decode_reply(message.reply)


async def read_party_codes(connection: Connection, ids: Iterable[int]) -> dict[int, str]:
    """The codes of parties by their ids."""
    rows = await (await connection.execute(_SQL["party_codes"], (list(ids),))).fetchall()
    return {row["id"]: row["code"] for row in rows}


async def find_keys(connection: Connection, session_id: str) -> list[str]:
    """Keys under which any switch that has an API key knows this session id."""
    values = {"id": session_id}
    rows = await (await connection.execute(_SQL["keys_of_id"], values)).fetchall()
    return [row["key"] for row in rows]
