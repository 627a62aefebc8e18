"""Parties and rate plans as they are stored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from decimal import Decimal

import msgspec
from psycopg.rows import DictRow
from psycopg.types.json import Jsonb

from tollkeeper.core.numbering import DEFAULT_RULES, DialRules
from tollkeeper.store.db import Connection, queries
from tollkeeper.store.plans import NO_CONDITIONS, CardTerms, conditions_from

_SQL = queries("parties")


@dataclass(frozen=True, slots=True)
class Party:
    """Whoever we do business with.

    ``parent`` and ``plan`` are codes. Limits are None where there is none: ``max_sessions`` at
    once, ``max_cps`` calls begun a second, ``max_cost`` and ``max_seconds`` of one session.
    ``overcommit`` is what the wallets of its children may have together, as a share of what its own
    has (1: no more than that); None is not looked at. While its wallet has less than ``low_balance``
    available (a user's: the wallet it spends from), at most ``low_sessions`` calls may be up.
    ``rate_change`` says what a call that is up does when its price changes: ``pin`` keeps it, ``split`` goes
    on at the new one.
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
    overcommit: Decimal | None = None
    billing: str = "postpaid"
    low_balance: Decimal | None = None
    low_sessions: int | None = None
    rate_change: str = "pin"


@dataclass(frozen=True, slots=True)
class Move:
    """Where a party was put, and when; ``parent`` is None at the top, or where it must not be seen."""

    id: int
    parent: str | None
    at: datetime
    actor: str
    reason: str


@dataclass(frozen=True, slots=True)
class Given:
    """What a reseller has available itself, what all its children have, and the share they may have."""

    share: Decimal
    own: Decimal
    given: Decimal


@dataclass(frozen=True, slots=True)
class ForeignPlan:
    """A party that is sold by the plan of an owner who does not stand above it."""

    party: str
    plan: str
    owner: str


@dataclass(frozen=True, slots=True)
class PlanCard:
    """A rate card's place in a plan; ``kind`` is customer, promotion, plan or fallback.

    It counts only ``when`` its conditions hold.
    """

    card: str
    kind: str = "plan"
    when: CardTerms = NO_CONDITIONS


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


async def read_parties(
    connection: Connection,
    *,
    after: str,
    limit: int,
    parent_id: int | None = None,
    below_id: int | None = None,
) -> list[Party]:
    """Read parties in the order of their codes: all, the children of one, or one and all below it."""
    values = {"after": after, "limit": limit, "parent": parent_id, "below": below_id}
    rows = await (await connection.execute(_SQL["parties"], values)).fetchall()
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
        party.low_balance,
        party.low_sessions,
        party.rate_change,
    )
    row = await (await connection.execute(_SQL["add_party"], values)).fetchone()
    return row["id"] if row is not None else None


async def write_party(
    connection: Connection, party: Party, *, plan_id: int | None, replan: bool = True
) -> None:
    """Store what may change of a party: everything but code, kind, parent and overcommit.

    Without ``replan`` its plan stays, which whoever changes the rest need not be able to see.
    """
    values = (
        party.name,
        replan,
        plan_id,
        party.status,
        party.kill_on_suspend,
        party.timezone,
        party.max_sessions,
        party.max_cps,
        party.max_cost,
        party.max_seconds,
        Jsonb(asdict(party.dial_rules)),
        party.low_balance,
        party.low_sessions,
        party.rate_change,
        party.id,
    )
    await connection.execute(_SQL["change_party"], values)


async def set_overcommit(connection: Connection, party_id: int, share: Decimal | None) -> None:
    """Store what a reseller's children may have together."""
    await connection.execute(_SQL["set_overcommit"], (share, party_id))


async def move_party(connection: Connection, party_id: int, parent_id: int | None) -> None:
    """Put a party, and with it all below it, under another one; the trigger refuses cycles (TK020)."""
    await connection.execute(_SQL["move"], (parent_id, party_id))


async def stands_below(connection: Connection, party_id: int, above_id: int) -> bool:
    """Tell whether a party stands below another one, or is it."""
    row = await (await connection.execute(_SQL["stands_below"], (party_id, above_id))).fetchone()
    return row is not None and bool(row["below"])


async def find_foreign_plan(connection: Connection, party_id: int) -> ForeignPlan | None:
    """The first of a subtree that is sold by the plan of somebody not above it; None: nobody is."""
    row = await (await connection.execute(_SQL["foreign_plan"], (party_id,))).fetchone()
    return ForeignPlan(**row) if row is not None else None


async def bounding_parent(connection: Connection, party_id: int) -> tuple[int, str] | None:
    """Id and code of a party's parent, if that must not give its children more than a share."""
    row = await (await connection.execute(_SQL["bounding_parent"], (party_id,))).fetchone()
    return (row["id"], row["code"]) if row is not None else None


async def read_given(connection: Connection, party_id: int, currency: str) -> Given:
    """What a party has in a currency and what its children have; others who change it wait."""
    await connection.execute(_SQL["wait_for_turn"], (party_id,))
    values = {"party": party_id, "currency": currency}
    row = await (await connection.execute(_SQL["given_below"], values)).fetchone()
    assert row is not None
    return Given(**row)


async def add_move(
    connection: Connection, party_id: int, *, parent_id: int | None, actor: str, reason: str
) -> None:
    """Write down where a party stands from now on."""
    await connection.execute(_SQL["add_move"], (party_id, parent_id, actor, reason))


async def read_moves(
    connection: Connection, party_id: int, *, after: int, limit: int
) -> list[Move]:
    """Where a party stood, the first place first."""
    rows = await (await connection.execute(_SQL["moves"], (party_id, after, limit))).fetchall()
    return [Move(**row) for row in rows]


async def read_plan_id(connection: Connection, code: str) -> tuple[int, int | None] | None:
    """Return the ids of a plan and of its owner, who is None where it is the operator's."""
    row = await (await connection.execute(_SQL["plan_id"], (code,))).fetchone()
    return (row["id"], row["owner_id"]) if row is not None else None


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


async def add_plan(
    connection: Connection, code: str, name: str, *, owner_id: int | None = None
) -> int | None:
    """Insert a plan without cards; None when the code is taken. No owner is the operator."""
    row = await (await connection.execute(_SQL["add_plan"], (code, name, owner_id))).fetchone()
    return row["id"] if row is not None else None


async def rename_plan(connection: Connection, plan_id: int, name: str) -> None:
    """Give a plan another name."""
    await connection.execute(_SQL["rename_plan"], (name, plan_id))


async def find_cards(
    connection: Connection, codes: Sequence[str], *, owner_id: int | None = None
) -> dict[str, tuple[int, str]]:
    """Return id and side (sell or buy) of those cards that exist, or that are this owner's."""
    values = (list(codes), owner_id, owner_id)
    rows = await (await connection.execute(_SQL["cards"], values)).fetchall()
    return {row["code"]: (row["id"], row["side"]) for row in rows}


async def replace_plan_cards(
    connection: Connection, plan_id: int, cards: Sequence[tuple[int, str, CardTerms]]
) -> None:
    """Make these (card id, kind, conditions) the cards of a plan, in this order."""
    await connection.execute(_SQL["clear_plan_cards"], (plan_id,))
    values = (
        plan_id,
        [card[0] for card in cards],
        [card[1] for card in cards],
        [Jsonb(msgspec.to_builtins(card[2])) for card in cards],
    )
    await connection.execute(_SQL["add_plan_cards"], values)


def _party(row: DictRow) -> Party:
    stored = row["dial_rules"]
    known = {name: stored[name] for name in DialRules.__slots__ if name in stored}
    if "international" in known:
        known["international"] = tuple(known["international"])
    return Party(**{**row, "dial_rules": DialRules(**known)})


def _plan(row: DictRow) -> Plan:
    cards = zip(row["card_codes"], row["card_kinds"], row["card_conditions"], strict=True)
    return Plan(
        id=row["id"],
        code=row["code"],
        name=row["name"],
        created_at=row["created_at"],
        cards=tuple(PlanCard(card, kind, conditions_from(when)) for card, kind, when in cards),
    )
