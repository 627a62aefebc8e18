"""Commission rules, what the journal says was sold, and the runs that were posted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal

from psycopg.rows import DictRow
from psycopg.types.json import Jsonb

from tollkeeper.core.commissions import Line
from tollkeeper.store.db import Connection, queries

_SQL = queries("commissions")


@dataclass(frozen=True, slots=True)
class Rule:
    """What a party earns: ``percent`` of the ``basis`` (turnover or margin) of a service.

    Service "" is every service without a rule of its own. It counts from ``valid_from`` on and before
    ``valid_to`` (None: without end), UTC days. It is paid into the wallet of ``currency``.
    """

    party: str
    service: str
    basis: str
    percent: Decimal
    currency: str
    valid_from: date
    valid_to: date | None = None
    id: int = 0
    party_id: int = 0


@dataclass(frozen=True, slots=True)
class Charged:
    """What wallets paid for a service in one currency; ``own``: the party's, else its children's."""

    service: str
    currency: str
    own: bool
    amount: Decimal


@dataclass(frozen=True, slots=True)
class Run:
    """A rule worked out for the days from ``begin`` until before ``end``; sums in ``currency``.

    ``entry_id`` is the line of the journal by which it was paid; None where nothing was earned, and,
    with an ``id`` of 0, where it was not posted.
    """

    rule_id: int
    party: str
    begin: date
    end: date
    service: str
    basis: str
    percent: Decimal
    currency: str
    turnover: Decimal
    own: Decimal
    commission: Decimal
    lines: tuple[Line, ...]
    entry_id: int | None = None
    actor: str = ""
    at: datetime | None = None
    id: int = 0


async def add_rule(connection: Connection, rule: Rule) -> int:
    """Insert a rule and return its id."""
    values = (
        rule.party_id,
        rule.service,
        rule.basis,
        rule.percent,
        rule.currency,
        rule.valid_from,
        rule.valid_to,
    )
    row = await (await connection.execute(_SQL["add_rule"], values)).fetchone()
    assert row is not None
    return int(row["id"])


async def read_rule(connection: Connection, rule_id: int, *, lock: bool = False) -> Rule | None:
    """Read a rule; ``lock`` lets nobody else run or end it meanwhile."""
    if lock:
        await connection.execute(_SQL["lock_rule"], (rule_id,))
    row = await (await connection.execute(_SQL["rule"], (rule_id,))).fetchone()
    return Rule(**row) if row is not None else None


async def read_rules(
    connection: Connection, *, party_id: int | None, after: int, limit: int
) -> list[Rule]:
    """Read rules in the order of their ids."""
    values = {"party": party_id, "after": after, "limit": limit}
    rows = await (await connection.execute(_SQL["rules"], values)).fetchall()
    return [Rule(**row) for row in rows]


async def overlapping_rule(connection: Connection, rule: Rule) -> int | None:
    """The first rule of the same party and service that counts on the same days."""
    values = (rule.party_id, rule.service, rule.valid_to, rule.valid_from)
    row = await (await connection.execute(_SQL["overlapping_rule"], values)).fetchone()
    return row["id"] if row is not None else None


async def end_rule(connection: Connection, rule_id: int, valid_to: date) -> None:
    """Let a rule count no longer from a day on."""
    await connection.execute(_SQL["end_rule"], (valid_to, rule_id))


async def last_run_end(connection: Connection, rule_id: int) -> date | None:
    """Up to which day a rule was posted."""
    row = await (await connection.execute(_SQL["last_run_end"], (rule_id,))).fetchone()
    return row["last"] if row is not None else None


async def read_charged(
    connection: Connection, party_id: int, begin: date, end: date
) -> list[Charged]:
    """What a party and those directly below it paid on the days from ``begin`` until before ``end``."""
    values = {"party": party_id, "begin": begin, "end": end}
    rows = await (await connection.execute(_SQL["charged"], values)).fetchall()
    return [Charged(**row) for row in rows]


async def services_of_rules(
    connection: Connection, party_id: int, begin: date, end: date
) -> frozenset[str]:
    """Services that have a rule of their own in these days."""
    values = (party_id, end, begin)
    rows = await (await connection.execute(_SQL["services_of_rules"], values)).fetchall()
    return frozenset(row["service"] for row in rows)


async def find_run(connection: Connection, rule_id: int, begin: date, end: date) -> Run | None:
    """The run of a rule for exactly these days."""
    row = await (await connection.execute(_SQL["run_of"], (rule_id, begin, end))).fetchone()
    return await read_run(connection, row["id"]) if row is not None else None


async def overlapping_run(
    connection: Connection, rule_id: int, begin: date, end: date
) -> tuple[date, date] | None:
    """The days of another run of a rule that has some of these days."""
    values = (rule_id, end, begin, begin, end)
    row = await (await connection.execute(_SQL["overlapping_run"], values)).fetchone()
    return (row["period_begin"], row["period_end"]) if row is not None else None


async def add_run(connection: Connection, run: Run, *, party_id: int) -> Run:
    """Insert a run and return it as stored."""
    lines = [
        {
            "currency": line.currency,
            "turnover": str(line.turnover),
            "own": str(line.own),
            "rate": str(line.rate),
            "rate_name": line.rate_name,
        }
        for line in run.lines
    ]
    values = (
        run.rule_id,
        party_id,
        run.begin,
        run.end,
        run.service,
        run.basis,
        run.percent,
        run.currency,
        run.turnover,
        run.own,
        run.commission,
        Jsonb(lines),
        run.entry_id,
        run.actor,
        run.at,
    )
    row = await (await connection.execute(_SQL["add_run"], values)).fetchone()
    assert row is not None
    return await read_run(connection, row["id"])


async def read_run(connection: Connection, run_id: int) -> Run:
    """Read a run that is there."""
    row = await (await connection.execute(_SQL["run"], (run_id,))).fetchone()
    assert row is not None
    return _run(row)


async def read_runs(
    connection: Connection, *, party_id: int | None, after: int, limit: int
) -> Sequence[Run]:
    """Read runs in the order of their ids."""
    values = {"party": party_id, "after": after, "limit": limit}
    return [_run(row) for row in await (await connection.execute(_SQL["runs"], values)).fetchall()]


def _run(row: DictRow) -> Run:
    stored = dict(row)
    lines = tuple(
        Line(
            line["currency"],
            Decimal(line["turnover"]),
            Decimal(line["own"]),
            Decimal(line["rate"]),
            line["rate_name"],
        )
        for line in stored.pop("lines")
    )
    begin, end = stored.pop("period_begin"), stored.pop("period_end")
    return Run(begin=begin, end=end, lines=lines, **stored)
