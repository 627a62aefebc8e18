"""Messages that were passed on to an SMSC, until what became of them was told to their senders."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any

from tollkeeper.store.db import Connection, queries

_SQL = queries("sms_messages")
SENDING = "sending"
"""About to be passed on, or passed on and not answered yet: it may have been sent, and stays charged."""
ACCEPTED = "accepted"
"""The SMSC took it; of its end nothing was heard."""
WITHDRAWN = "withdrawn"
"""It was surely not sent, and never will be: its charge is given back."""


@dataclass(frozen=True, slots=True)
class SmsMessage:
    """One message: ``id`` is what its sender was told and names its charge, ``upstream_id`` the SMSC's.

    ``peer`` is the sender's code, ``key`` that of the charge, ``wants`` the bits of registered_delivery
    that it was sent with, ``state`` the SMSC's last word, ``receipt`` what is to be told to the sender.
    """

    id: str
    at: datetime
    peer: str
    key: str
    upstream: str
    upstream_id: str
    source: str
    dest: str
    wants: int = 0
    state: str = ACCEPTED
    receipt: Mapping[str, Any] | None = field(default=None)


async def begin_messages(connection: Connection, messages: Sequence[SmsMessage]) -> set[str]:
    """Write down that messages are about to be passed on; the ids of those that may be.

    The id of another one was taken already: by whoever gave its charge back, or by its first copy.
    """
    values = {
        "ids": [one.id for one in messages],
        "times": [one.at for one in messages],
        "peers": [one.peer for one in messages],
        "keys": [one.key for one in messages],
        "upstreams": [one.upstream for one in messages],
        "upstream_ids": [one.upstream_id for one in messages],
        "sources": [one.source for one in messages],
        "dests": [one.dest for one in messages],
        "wants": [one.wants for one in messages],
    }
    rows = await (await connection.execute(_SQL["begin"], values)).fetchall()
    return {row["id"] for row in rows}


async def accept_messages(connection: Connection, messages: Sequence[SmsMessage]) -> None:
    """Note that the SMSC took messages, what it calls them, and who wants receipts."""
    values = {
        "ids": [one.id for one in messages],
        "upstream_ids": [one.upstream_id for one in messages],
        "wants": [one.wants for one in messages],
    }
    await connection.execute(_SQL["accept"], values)


async def withdraw_messages(connection: Connection, messages: Sequence[SmsMessage]) -> None:
    """Note that messages that were begun were surely not sent; rows of others by their names stay."""
    values = {"ids": [one.id for one in messages], "times": [one.at for one in messages]}
    await connection.execute(_SQL["withdraw"], values)


async def claim_messages(
    connection: Connection, *, peer: str, switch: str, ids: Sequence[str], at: datetime
) -> list[str]:
    """See that messages without a row are never sent; the ids of those that surely were not."""
    values = {"ids": list(ids), "peer": peer, "switch": switch, "at": at}
    await connection.execute(_SQL["claim"], values)
    rows = await (await connection.execute(_SQL["withdrawn"], (list(ids),))).fetchall()
    return [row["id"] for row in rows]


async def find_unheard(
    connection: Connection, upstream: str, *, source: str, dest: str, besides: Iterable[str]
) -> SmsMessage | None:
    """The oldest message between two numbers whose SMSC did not say what it calls it, ``besides`` some."""
    values = {"upstream": upstream, "source": source, "dest": dest, "besides": list(besides)}
    row = await (await connection.execute(_SQL["unheard"], values)).fetchone()
    return SmsMessage(**row) if row is not None else None


async def find_messages(
    connection: Connection, upstream: str, upstream_ids: Iterable[str]
) -> list[SmsMessage]:
    """Messages by what their SMSC calls them; an id that it used again has several, the latest last."""
    values = {"upstream": upstream, "ids": list(upstream_ids)}
    rows = await (await connection.execute(_SQL["of_upstream"], values)).fetchall()
    return [SmsMessage(**row) for row in rows]


async def read_messages(connection: Connection, ids: Iterable[str]) -> list[SmsMessage]:
    """Messages by what their senders were told, in the order of their ids."""
    rows = await (await connection.execute(_SQL["by_ids"], (list(ids),))).fetchall()
    return [SmsMessage(**row) for row in rows]


async def close_messages(
    connection: Connection, closed: Sequence[tuple[str, str, Mapping[str, Any] | None]]
) -> None:
    """Note the final states of messages: id, state, and what is to be told (None: nothing)."""
    receipts = json.dumps([dict(one[2]) if one[2] is not None else None for one in closed])
    values = {
        "ids": [one[0] for one in closed],
        "states": [one[1] for one in closed],
        "receipts": receipts,
    }
    await connection.execute(_SQL["close"], values)


async def read_overdue(
    connection: Connection, upstream: str, before: datetime, *, limit: int
) -> list[SmsMessage]:
    """Messages from before an instant of which an SMSC has told neither an answer nor a receipt."""
    values = {"upstream": upstream, "before": before, "limit": limit}
    rows = await (await connection.execute(_SQL["overdue"], values)).fetchall()
    return [SmsMessage(**row) for row in rows]


async def read_waiting(
    connection: Connection, peer: str, *, after: str = "", limit: int = 200
) -> list[SmsMessage]:
    """Messages whose receipts their sender was not told yet, in the order of their ids."""
    values = {"peer": peer, "after": after, "limit": limit}
    rows = await (await connection.execute(_SQL["waiting"], values)).fetchall()
    return [SmsMessage(**row) for row in rows]


async def mark_told(connection: Connection, ids: Iterable[str], at: datetime) -> None:
    """Note that senders were told."""
    await connection.execute(_SQL["told"], {"ids": list(ids), "at": at})


async def purge_messages(connection: Connection, before: datetime, *, limit: int = 10_000) -> int:
    """Delete messages that are older, told or not; return how many."""
    return (await connection.execute(_SQL["purge"], {"before": before, "limit": limit})).rowcount


async def read_last_charge(
    connection: Connection, switch: str, *, day: date, first: str, last: str
) -> str | None:
    """The id of the latest charge of a switch's messages between ``first`` and ``last``."""
    values = {"switch": switch, "day": day, "first": first, "last": last}
    row = await (await connection.execute(_SQL["last_charge"], values)).fetchone()
    return str(row["id"]) if row is not None else None


async def read_unknown_fate(
    connection: Connection, switch: str, *, day: date, first: str, last: str, limit: int
) -> list[str]:
    """Ids of charges of a switch that surely were not passed on, nor given back, from ``first`` to ``last``."""
    values = {"switch": switch, "day": day, "first": first, "last": last, "limit": limit}
    rows = await (await connection.execute(_SQL["unknown_fate"], values)).fetchall()
    return [row["id"] for row in rows]
