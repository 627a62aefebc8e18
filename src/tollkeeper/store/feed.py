"""Events as they are stored: made of what the outbox holds, numbered in the order of reading."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import msgspec
from psycopg.types.json import Jsonb

from tollkeeper.core.ledger import Code
from tollkeeper.core.records import Session
from tollkeeper.store.db import Connection, queries

_SQL = queries("feed")
_session = msgspec.json.Decoder(Session)


@dataclass(frozen=True, slots=True)
class Happening:
    """A row of the outbox that no event was made of yet."""

    id: int
    at: datetime
    kind: str
    session_id: str | None
    detail: str
    payload: dict[str, Any]


@dataclass(frozen=True, slots=True)
class NewEvent:
    """An event to be stored; ``payload`` has what everybody together may see of it."""

    at: datetime
    kind: str
    party_id: int | None
    switch: str
    session_id: str | None
    payload: dict[str, Any]


@dataclass(frozen=True, slots=True)
class FeedEvent:
    """An event as stored; ``id`` only grows."""

    id: int
    at: datetime
    kind: str
    party_id: int | None
    switch: str
    session_id: str | None
    payload: dict[str, Any]


async def tell_payment(
    connection: Connection,
    wallet_id: int,
    at: datetime,
    code: Code,
    amount: Decimal,
    balance: Decimal,
) -> None:
    """Let it be told that a wallet has got money, in the transaction that gives it."""
    await connection.execute(_SQL["tell_payment"], (at, wallet_id, code.value, amount, balance))


async def become_feeder(connection: Connection) -> bool:
    """Be the one that makes events until this transaction ends; False while another process is."""
    row = await (await connection.execute(_SQL["lock"])).fetchone()
    return row is not None and bool(row["got"])


async def is_waiting(connection: Connection) -> bool:
    """Tell whether there is anything that no event was made of."""
    row = await (await connection.execute(_SQL["waiting"])).fetchone()
    return row is not None and bool(row["waiting"])


async def take_happenings(connection: Connection, limit: int) -> list[Happening]:
    """Take the oldest rows that no event was made of; they come again if this transaction fails."""
    rows = await (await connection.execute(_SQL["take"], (limit,))).fetchall()
    return [Happening(**row) for row in rows]


async def mark_fed(connection: Connection, ids: Sequence[int], now: datetime) -> None:
    """Nothing else becomes of these rows, but for requests to end calls."""
    await connection.execute(_SQL["fed"], {"ids": list(ids), "now": now})


async def wake_streams(connection: Connection, last: int) -> None:
    """Tell every process, when this transaction commits, that there are events up to ``last``."""
    await connection.execute(_SQL["wake"], (last,))


async def add_events(connection: Connection, events: Sequence[NewEvent]) -> list[int]:
    """Store events in their order; returns their numbers."""
    if not events:
        return []
    values = {
        "at": [one.at for one in events],
        "kind": [one.kind for one in events],
        "party_id": [one.party_id for one in events],
        "switch": [one.switch for one in events],
        "session_id": [one.session_id for one in events],
        "payload": Jsonb([one.payload for one in events]),
    }
    rows = await (await connection.execute(_SQL["add"], values)).fetchall()
    return sorted(row["id"] for row in rows)


async def read_sessions(
    connection: Connection, keys: dict[str, str], since: date
) -> dict[str, Session]:
    """Sessions by id, live or closed; ``keys`` are their keys by id, ``since`` a day before they opened."""
    found: dict[str, Session] = {}
    rows = await (await connection.execute(_SQL["live"], (list(keys.values()),))).fetchall()
    # The key of a session that is over may name a new one.
    found |= {row["id"]: _decode(row["body"]) for row in rows if row["id"] in keys}
    for day in (since, date(2000, 1, 1)):
        missing = [id_ for id_ in keys if id_ not in found]
        if not missing:
            break
        values = {"ids": missing, "since": day}
        rows = await (await connection.execute(_SQL["closed"], values)).fetchall()
        found |= {row["id"]: _decode(row["body"]) for row in rows}
    return found


def _decode(body: str) -> Session:
    return _session.decode(body)


async def read_overruns(
    connection: Connection, session_ids: Collection[str]
) -> list[tuple[str, int, Decimal]]:
    """What each party was charged above its hold: session, party, amount."""
    rows = await (await connection.execute(_SQL["overruns"], (list(session_ids),))).fetchall()
    return [(row["session_id"], row["party_id"], row["amount"]) for row in rows]


async def read_codes(
    connection: Connection, *, ids: Iterable[int] = (), codes: Iterable[str] = ()
) -> dict[int, str]:
    """Codes of parties by id, for these ids and codes."""
    values = {"ids": list(ids), "codes": list(codes)}
    rows = await (await connection.execute(_SQL["parties"], values)).fetchall()
    return {row["id"]: row["code"] for row in rows}


async def read_above(connection: Connection, ids: Iterable[int]) -> dict[int, set[int]]:
    """For each party everybody it stands below, itself among them."""
    above: dict[int, set[int]] = {}
    for row in await (await connection.execute(_SQL["above"], (list(ids),))).fetchall():
        above.setdefault(row["party_id"], set()).add(row["ancestor_id"])
    return above


async def read_calls_below(
    connection: Connection, ids: Collection[int], limit: int
) -> dict[int, list[str]]:
    """Keys of live sessions of each of these parties and of those below it, ``limit`` in all."""
    calls: dict[int, list[str]] = {}
    values = {"ids": list(ids), "limit": limit}
    for row in await (await connection.execute(_SQL["calls_below"], values)).fetchall():
        calls.setdefault(row["party_id"], []).append(row["key"])
    return calls


async def read_last(connection: Connection) -> int:
    """The number of the newest event; 0 if there is none."""
    row = await (await connection.execute(_SQL["last"])).fetchone()
    return int(row["id"]) if row is not None else 0


async def read_after(
    connection: Connection, after: int, *, until: int = 2**63 - 1, limit: int
) -> list[FeedEvent]:
    """Events with numbers above ``after``, up to ``until``, in their order."""
    values = {"after": after, "until": until, "limit": limit}
    rows = await (await connection.execute(_SQL["after"], values)).fetchall()
    return [FeedEvent(**row) for row in rows]


async def say_interest(connection: Connection, party_id: int, seconds: int) -> None:
    """Let every process tell of the ends of a party's calls (0: of all) for so long."""
    await connection.execute(_SQL["interest"], {"party_id": party_id, "seconds": seconds})


async def read_hearing(connection: Connection) -> frozenset[int]:
    """Parties at or below which somebody wants to hear of the ends of calls; 0 stands for everybody."""
    rows = await (await connection.execute(_SQL["hearing"])).fetchall()
    return frozenset(row["party_id"] for row in rows)


async def purge(connection: Connection, before: datetime) -> None:
    """Delete events that are older, and the interest of those who listen no more."""
    await connection.execute(_SQL["purge"], (before,))
    await connection.execute(_SQL["purge_interest"])
