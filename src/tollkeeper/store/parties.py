"""Parties and rate plans as they are stored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from decimal import Decimal

from psycopg.rows import DictRow
from psycopg.types.json import Jsonb

from tollkeeper.core.numbering import DEFAULT_RULES, DialRules
from tollkeeper.store.db import Connection, queries

_SQL = queries("parties")


@dataclass(frozen=True, slots=True)
class Party:
    """Whoever we do business with.

    ``parent`` and ``plan`` are codes. Limits are None where there is none: ``max_sessions`` at
    once, ``max_cps`` calls begun a second, ``max_cost`` and ``max_seconds`` of one session.
    """

    code: str
    name: str
    kind: str = "customer"
    parent: str | None = None
    plan: str | None = None
    status: str = "active"
    kill_on_suspend: bool = False
    timezone: str = "UTC"
    max_sessions: int | None = None
    max_cps: int | None = None
    max_cost: Decimal | None = None
    max_seconds: int = 14_400
    dial_rules: DialRules = DEFAULT_RULES
    id: int = 0
    created_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class PlanCard:
    """A rate card's place in a plan; ``kind`` is customer, promotion, plan or fallback."""

    card: str
    kind: str = "plan"


@dataclass(frozen=True, slots=True)
class Plan:
    """What a customer is sold by: rate cards, in the order in which they win ties."""

    id: int
    code: str
    name: str
    created_at: datetime
    cards: tuple[PlanCard, ...]


async def read_party(connection: Connection, code: str) -> Party | None:
    """Read one party by code."""
    row = await (await connection.execute(_SQL["party"], (code,))).fetchone()
    return _party(row) if row is not None else None


async def read_parties(connection: Connection, *, after: str, limit: int) -> list[Party]:
    """Read parties in the order of their codes."""
    rows = await (await connection.execute(_SQL["parties"], (after, limit))).fetchall()
    return [_party(row) for row in rows]


async def lock_party(connection: Connection, code: str) -> int | None:
    """Lock a party's row against other changes; return its id."""
    row = await (await connection.execute(_SQL["lock_party"], (code,))).fetchone()
    return row["id"] if row is not None else None


async def read_parent(connection: Connection, code: str) -> tuple[int, str] | None:
    """Return id and kind of a party that shall become a parent."""
    row = await (await connection.execute(_SQL["parent"], (code,))).fetchone()
    return (row["id"], row["kind"]) if row is not None else None


async def add_party(
    connection: Connection, party: Party, *, parent_id: int | None, plan_id: int | None
) -> int | None:
    """Insert a party; None when the code is taken. Waits for another who is just inserting it."""
    values = (
        party.code,
        party.name,
        party.kind,
        parent_id,
        plan_id,
        party.status,
        party.kill_on_suspend,
        party.timezone,
        party.max_sessions,
        party.max_cps,
        party.max_cost,
        party.max_seconds,
        Jsonb(asdict(party.dial_rules)),
    )
    row = await (await connection.execute(_SQL["add_party"], values)).fetchone()
    return row["id"] if row is not None else None


async def write_party(connection: Connection, party: Party, *, plan_id: int | None) -> None:
    """Store what may change of a party: everything but code, kind and parent."""
    values = (
        party.name,
        plan_id,
        party.status,
        party.kill_on_suspend,
        party.timezone,
        party.max_sessions,
        party.max_cps,
        party.max_cost,
        party.max_seconds,
        Jsonb(asdict(party.dial_rules)),
        party.id,
    )
    await connection.execute(_SQL["change_party"], values)


async def read_plan_id(connection: Connection, code: str) -> int | None:
    """Return the id of a plan."""
    row = await (await connection.execute(_SQL["plan_id"], (code,))).fetchone()
    return row["id"] if row is not None else None


async def lock_plan(connection: Connection, code: str) -> int | None:
    """Lock a plan's row, so that two changes of its cards follow each other; return its id."""
    row = await (await connection.execute(_SQL["lock_plan"], (code,))).fetchone()
    return row["id"] if row is not None else None


async def read_plan(connection: Connection, code: str) -> Plan | None:
    """Read one plan with its cards."""
    row = await (await connection.execute(_SQL["plan"], (code,))).fetchone()
    return _plan(row) if row is not None else None


async def read_plans(connection: Connection, *, after: str, limit: int) -> list[Plan]:
    """Read plans in the order of their codes."""
    rows = await (await connection.execute(_SQL["plans"], (after, limit))).fetchall()
    return [_plan(row) for row in rows]


async def add_plan(connection: Connection, code: str, name: str) -> int | None:
    """Insert a plan without cards; None when the code is taken."""
    row = await (await connection.execute(_SQL["add_plan"], (code, name))).fetchone()
    return row["id"] if row is not None else None


async def rename_plan(connection: Connection, plan_id: int, name: str) -> None:
    """Give a plan another name."""
    await connection.execute(_SQL["rename_plan"], (name, plan_id))


async def find_cards(connection: Connection, codes: Sequence[str]) -> dict[str, tuple[int, str]]:
    """Return id and side (sell or buy) of those cards that exist."""
    rows = await (await connection.execute(_SQL["cards"], (list(codes),))).fetchall()
    return {row["code"]: (row["id"], row["side"]) for row in rows}


async def replace_plan_cards(
    connection: Connection, plan_id: int, cards: Sequence[tuple[int, str]]
) -> None:
    """Make these (card id, kind) the cards of a plan, in this order."""
    await connection.execute(_SQL["clear_plan_cards"], (plan_id,))
    ids, kinds = [id_ for id_, _ in cards], [kind for _, kind in cards]
    await connection.execute(_SQL["add_plan_cards"], (plan_id, ids, kinds))


def _party(row: DictRow) -> Party:
    stored = row["dial_rules"]
    known = {name: stored[name] for name in DialRules.__slots__ if name in stored}
    if "international" in known:
        known["international"] = tuple(known["international"])
    return Party(**{**row, "dial_rules": DialRules(**known)})


def _plan(row: DictRow) -> Plan:
    cards = zip(row["card_codes"], row["card_kinds"], strict=True)
    return Plan(
        id=row["id"],
        code=row["code"],
        name=row["name"],
        created_at=row["created_at"],
        cards=tuple(PlanCard(card, kind) for card, kind in cards),
    )
