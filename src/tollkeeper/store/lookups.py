"""Lookups of numbers as they are stored: questions with their answers, and what is known for a while."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from psycopg.types.json import Jsonb

from tollkeeper.store.db import Connection, queries

_SQL = queries("lookups")


@dataclass(frozen=True, slots=True)
class Query:
    """One question; what the states mean is written in the migration that makes the table."""

    id: int
    party_id: int
    party: str
    request_id: str
    charge_id: str
    kind: str
    number: str
    service: str
    cached: bool
    status: str
    reason: str
    answer: Mapping[str, Any]
    charge: Decimal | None
    currency: str
    refund: bool
    supplier_id: int
    next_at: datetime | None
    created_at: datetime
    ended_at: datetime | None

    @property
    def open(self) -> bool:
        """True until it is answered, or given up."""
        return self.status in {"new", "charged"}


@dataclass(frozen=True, slots=True)
class NewQuery:
    """A question that is about to be asked; ``service`` is what it is charged as, "" for nothing."""

    party_id: int
    request_id: str
    charge_id: str
    kind: str
    number: str
    service: str
    cached: bool
    answer: Mapping[str, Any]
    supplier_id: int


async def add_query(
    connection: Connection, new: NewQuery, now: datetime, until: datetime
) -> int | None:
    """Insert a question that is ours until ``until``; None when the party's request id is known."""
    values = (
        new.party_id,
        new.request_id,
        new.charge_id,
        new.kind,
        new.number,
        new.service,
        new.cached,
        Jsonb(dict(new.answer)),
        new.supplier_id,
        now,
        until,
    )
    row = await (await connection.execute(_SQL["add"], values)).fetchone()
    return row["id"] if row is not None else None


async def read_query(connection: Connection, id_: int) -> Query | None:
    """Read a question by id."""
    row = await (await connection.execute(_SQL["query"], (id_,))).fetchone()
    return Query(**row) if row is not None else None


async def find_query(connection: Connection, party_id: int, request_id: str) -> Query | None:
    """Read a question by the party's own name of it."""
    row = await (await connection.execute(_SQL["by_request"], (party_id, request_id))).fetchone()
    return Query(**row) if row is not None else None


async def take(connection: Connection, id_: int, now: datetime, until: datetime) -> bool:
    """Take one question; False when somebody has it, or nobody is to go on with it."""
    values = {"id": id_, "now": now, "until": until}
    return (await connection.execute(_SQL["take"], values)).rowcount == 1


async def take_due(connection: Connection, now: datetime, until: datetime, limit: int) -> list[int]:
    """Take questions that somebody left; nobody else has them until ``until``."""
    values = {"now": now, "until": until, "limit": limit}
    rows = await (await connection.execute(_SQL["take_due"], values)).fetchall()
    return [row["id"] for row in rows]


async def mark_charged(
    connection: Connection, id_: int, charge: Decimal | None, currency: str
) -> None:
    """The question is paid for."""
    await connection.execute(_SQL["charged"], (charge, currency, id_))


async def mark_decided(
    connection: Connection,
    id_: int,
    *,
    status: str,
    reason: str,
    answer: Mapping[str, Any],
    refund: bool,
    now: datetime,
) -> bool:
    """Decide once: done, not_found, failed or refused; False when it was decided before."""
    values = {
        "id": id_,
        "status": status,
        "reason": reason,
        "answer": Jsonb(dict(answer)),
        "refund": refund,
        "now": now,
    }
    return (await connection.execute(_SQL["decided"], values)).rowcount == 1


async def mark_refunded(connection: Connection, id_: int) -> None:
    """The money was given back."""
    await connection.execute(_SQL["refunded"], (id_,))


async def read_cached(
    connection: Connection, kind: str, number: str, now: datetime
) -> Mapping[str, Any] | None:
    """What is known of a number and not too old; None for nothing."""
    row = await (await connection.execute(_SQL["cached"], (kind, number, now))).fetchone()
    return row["answer"] if row is not None else None


async def keep_answer(
    connection: Connection,
    kind: str,
    number: str,
    answer: Mapping[str, Any],
    *,
    now: datetime,
    until: datetime,
) -> None:
    """Keep what was learned of a number until then."""
    await connection.execute(_SQL["keep"], (kind, number, Jsonb(dict(answer)), now, until))


async def purge(connection: Connection, before: datetime) -> int:
    """Delete questions that were decided, and paid back where that was due; returns how many."""
    return (await connection.execute(_SQL["purge_decided"], (before,))).rowcount


async def purge_cache(connection: Connection, now: datetime) -> int:
    """Delete what is too old; returns how many answers that were."""
    return (await connection.execute(_SQL["purge"], (now,))).rowcount
