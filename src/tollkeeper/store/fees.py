"""Fees and minimum commitments as they are stored."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal

from psycopg.rows import DictRow

from tollkeeper.store.db import Connection, queries

_SQL = queries("fees")


@dataclass(frozen=True, slots=True)
class Fee:
    """A fee of a party; days are the party's own, ends are the first day that is not in it.

    ``amount`` None: what the party's plan says for ``service`` and ``called``. ``term_from`` and ``term_to``
    are what is just being charged, ``attempts`` how often that was refused.
    """

    name: str
    party_id: int
    service: str
    called: str
    period: str
    begins_on: date
    prorate: bool
    grace_days: int
    created_at: datetime
    amount: Decimal | None = None
    currency: str = ""
    ends_on: date | None = None
    next_at: datetime | None = None
    did_id: int | None = None
    request: str | None = None
    actor: str = ""
    id: int = 0
    party: str = ""
    timezone: str = "UTC"
    status: str = "active"
    paid_until: date = date.max
    term_from: date | None = None
    term_to: date | None = None
    attempts: int = 0
    failing_since: datetime | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Committed:
    """A party whose plan has a minimum, and the last month of which that is written down."""

    party_id: int
    party: str
    timezone: str
    plan: str
    agreed: Decimal
    currency: str
    last_month: date | None


@dataclass(frozen=True, slots=True)
class Commitment:
    """A party's minimum in one local month, from ``from_on`` on; ``amount`` is the part of it that is due."""

    party_id: int
    party: str
    timezone: str
    month: date
    from_on: date
    plan: str
    agreed: Decimal
    currency: str
    status: str
    amount: Decimal | None
    spent: Decimal | None
    shortfall: Decimal | None
    attempts: int
    reason: str
    next_at: datetime
    session_id: object


async def add_fee(connection: Connection, fee: Fee) -> int | None:
    """Insert a fee; None where its ``request`` was stored before."""
    row = await (await connection.execute(_SQL["add"], _values(fee))).fetchone()
    return row["id"] if row is not None else None


def _values(fee: Fee) -> dict[str, object]:
    return {name: getattr(fee, name) for name in Fee.__slots__}


async def read_fee(connection: Connection, fee_id: int) -> Fee | None:
    """Read a fee by id."""
    return _fee(await (await connection.execute(_SQL["fee"], (fee_id,))).fetchone())


async def read_request(connection: Connection, request: str) -> Fee | None:
    """Read the fee that a request has led to."""
    return _fee(await (await connection.execute(_SQL["by_request"], (request,))).fetchone())


async def lock_fee(connection: Connection, fee_id: int) -> Fee | None:
    """Read a fee and keep others from changing it until the transaction ends."""
    return _fee(await (await connection.execute(_SQL["lock"], (fee_id,))).fetchone())


async def read_fees(
    connection: Connection, *, party: str, status: str, after: int, limit: int
) -> list[Fee]:
    """List fees, the oldest first; an empty party or status means all."""
    values = {"party": party, "status": status, "after": after, "limit": limit}
    rows = await (await connection.execute(_SQL["fees"], values)).fetchall()
    return [Fee(**row) for row in rows]


def _fee(row: DictRow | None) -> Fee | None:
    return Fee(**row) if row is not None else None


async def due_fees(connection: Connection, now: datetime, limit: int) -> list[int]:
    """Ids of fees at which somebody is to look."""
    rows = await (await connection.execute(_SQL["due"], {"now": now, "limit": limit})).fetchall()
    return [row["id"] for row in rows]


async def begin_term(
    connection: Connection, fee_id: int, begin: date, end: date, next_at: datetime | None
) -> None:
    """Write down what is about to be charged."""
    values = {"id": fee_id, "term_from": begin, "term_to": end, "next_at": next_at}
    await connection.execute(_SQL["begin_term"], values)


async def look_at(connection: Connection, fee_id: int, at: datetime) -> None:
    """Say when somebody is to look again."""
    await connection.execute(_SQL["look_at"], (at, fee_id))


async def mark_paid(connection: Connection, fee: Fee, next_at: datetime) -> bool:
    """The term that was being charged is paid; False when somebody has noted that already."""
    values = {"id": fee.id, "term_from": fee.term_from, "next_at": next_at}
    return (await connection.execute(_SQL["paid"], values)).rowcount == 1


async def mark_refused(
    connection: Connection, fee_id: int, *, failing_since: datetime, reason: str, next_at: datetime
) -> None:
    """The term was refused once more; the next attempt has another key."""
    values = {
        "id": fee_id,
        "failing_since": failing_since,
        "reason": reason,
        "next_at": next_at,
    }
    await connection.execute(_SQL["refused"], values)


async def close_fee(
    connection: Connection, fee_id: int, *, status: str, reason: str = "", on: date | None = None
) -> None:
    """End an active fee: ``ended`` or ``lapsed``."""
    values = {"id": fee_id, "status": status, "ends_on": on, "reason": reason}
    await connection.execute(_SQL["close"], values)


async def set_end(connection: Connection, fee_id: int, on: date) -> None:
    """Let a fee end on a day to come."""
    await connection.execute(_SQL["set_end"], (on, fee_id))


async def set_grace(connection: Connection, fee_id: int, days: int) -> None:
    """For how long it is tried again when it is refused."""
    await connection.execute(_SQL["set_grace"], (days, fee_id))


# --- minimum commitments -------------------------------------------------------------------------


async def read_committed(connection: Connection, after: int, limit: int) -> list[Committed]:
    """Parties whose plan has a minimum, by id."""
    values = {"after": after, "limit": limit}
    rows = await (await connection.execute(_SQL["commitment_parties"], values)).fetchall()
    return [Committed(**row) for row in rows]


async def open_month(
    connection: Connection, who: Committed, month: date, from_on: date, next_at: datetime
) -> None:
    """Write down the minimum of a month, unless that was done."""
    values = {
        "party_id": who.party_id,
        "month": month,
        "from_on": from_on,
        "plan": who.plan,
        "agreed": who.agreed,
        "currency": who.currency,
        "next_at": next_at,
    }
    await connection.execute(_SQL["open_month"], values)


async def months_due(connection: Connection, now: datetime, limit: int) -> list[Commitment]:
    """Months that are over and neither met nor charged."""
    values = {"now": now, "limit": limit}
    rows = await (await connection.execute(_SQL["months_due"], values)).fetchall()
    return [Commitment(**row) for row in rows]


async def read_months(connection: Connection, party: str, limit: int) -> list[Commitment]:
    """Months, the newest first; an empty party means all."""
    values = {"party": party, "limit": limit}
    rows = await (await connection.execute(_SQL["months"], values)).fetchall()
    return [Commitment(**row) for row in rows]


async def read_month(connection: Connection, party_id: int, month: date) -> Commitment | None:
    """One party's month."""
    row = await (await connection.execute(_SQL["month"], (party_id, month))).fetchone()
    return Commitment(**row) if row is not None else None


async def spent_in(
    connection: Connection, party_id: int, begin: datetime, end: datetime
) -> dict[str, Decimal]:
    """What a party has used from ``begin`` to ``end`` (exclusive), by the currency of its wallets."""
    values = {
        "party_id": party_id,
        "begin": begin,
        "end": end,
        "first": begin.date(),
        "last": end.date(),
    }
    rows = await (await connection.execute(_SQL["spent"], values)).fetchall()
    return {row["currency"]: row["spent"] for row in rows}


async def mark_worked_out(
    connection: Connection,
    month: Commitment,
    *,
    amount: Decimal,
    spent: Decimal,
    shortfall: Decimal,
) -> None:
    """Write down what is short, before it is charged; once."""
    values = {
        "party_id": month.party_id,
        "month": month.month,
        "status": "due" if shortfall else "met",
        "amount": amount,
        "spent": spent,
        "shortfall": shortfall,
    }
    await connection.execute(_SQL["month_worked_out"], values)


async def mark_charged(connection: Connection, month: Commitment, session_id: str) -> None:
    """The shortfall is charged, by this session."""
    values = {"party_id": month.party_id, "month": month.month, "session_id": session_id}
    await connection.execute(_SQL["month_charged"], values)


async def mark_month_refused(
    connection: Connection, month: Commitment, *, status: str, reason: str, next_at: datetime
) -> None:
    """The shortfall was refused once more."""
    values = {
        "party_id": month.party_id,
        "month": month.month,
        "attempts": month.attempts,
        "status": status,
        "reason": reason,
        "next_at": next_at,
    }
    await connection.execute(_SQL["month_refused"], values)
