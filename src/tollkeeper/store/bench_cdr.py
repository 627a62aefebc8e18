"""SQL of the benchmark of records: sessions that were charged live, and what a load has made."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import LiteralString

import msgspec

from tollkeeper.core.records import Authorise, Decision, Stop
from tollkeeper.store.db import Connection, queries

_SQL = queries("bench_cdr")
_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class LiveCharge:
    """A session from its first message to its last, with what was decided each time."""

    authorise: Authorise
    opened: Decision
    stop: Stop
    closed: Decision


async def seed_sessions(connection: Connection, charges: Iterable[LiveCharge]) -> int:
    """Store sessions that have closed as the charging lane would have; returns how many."""
    made = list(charges)
    if not made:
        return 0
    opened = sorted({one.opened.session.opened_at.date() for one in made})
    await connection.execute(_SQL["ensure_days"], (opened[0], (opened[-1] - opened[0]).days + 3))
    await _copy(connection, _SQL["sessions"], [_session(one) for one in made])
    await _copy(connection, _SQL["messages"], [row for one in made for row in _messages(one)])
    await _post(connection, made)
    return len(made)


def _session(one: LiveCharge) -> Sequence[object]:
    session = one.closed.session
    assert session.closed_at is not None
    charge = session.legs[0].charged
    return (
        session.opened_at.date(), session.id, session.key, session.party_id, session.closed_at,
        session.ending.value, charge, session.version, _encode(session).decode(),
    )  # fmt: skip


def _messages(one: LiveCharge) -> list[Sequence[object]]:
    session = one.closed.session
    day, ended = session.opened_at.date(), session.closed_at
    steps = (
        (1, "authorise", session.opened_at, one.authorise, one.opened.reply),
        (2, "stop", ended, one.stop, one.closed.reply),
    )
    return [
        (day, session.id, version, name, name, at, _encode(request).decode(), _encode(reply).decode())
        for version, name, at, request, reply in steps
    ]  # fmt: skip


async def _post(connection: Connection, made: Sequence[LiveCharge]) -> None:
    revenue = await (await connection.execute(_SQL["revenue"])).fetchone()
    assert revenue is not None
    wallets = sorted({posting.wallet_id for one in made for posting in one.closed.postings})
    found = await (await connection.execute(_SQL["wallets"], (wallets,))).fetchall()
    standing = {row["id"]: (row["version"], row["balance"]) for row in found}
    begun = {id_: version for id_, (version, _) in standing.items()}
    spent = dict.fromkeys(wallets, Decimal(0))
    rows: list[Sequence[object]] = []
    for one in made:
        at: datetime | None = one.closed.session.closed_at
        assert at is not None
        for posting in one.closed.postings:
            version, balance = standing[posting.wallet_id]
            standing[posting.wallet_id] = version, balance = (version + 1, balance - posting.amount)
            spent[posting.wallet_id] += posting.amount
            rows.append(
                (at.date(), at, posting.code.value, posting.wallet_id, revenue["id"],
                 posting.amount, "USD", posting.wallet_id, version, balance,
                 one.closed.session.id, posting.leg)
            )  # fmt: skip
    await _copy(connection, _SQL["entries"], rows)
    for id_ in wallets:
        values = (spent[id_], standing[id_][0] - begun[id_], id_)
        await connection.execute(_SQL["settle"], values)


async def _copy(
    connection: Connection, statement: LiteralString, rows: Iterable[Sequence[object]]
) -> None:
    async with connection.cursor() as cursor, cursor.copy(statement) as copy:
        for row in rows:
            await copy.write_row(row)


@dataclass(frozen=True, slots=True)
class LoadTotals:
    """What all loads together have put into the books, added up in several ways."""

    usage: int
    attempts: int
    hours: int
    charge: Decimal
    cost: Decimal
    posted_charge: Decimal
    posted_cost: Decimal


async def load_totals(connection: Connection) -> LoadTotals:
    """Add up records, hourly sums and entries; for a benchmark, as it reads every record."""
    row = await (await connection.execute(_SQL["totals"])).fetchone()
    assert row is not None
    return LoadTotals(**row)
