"""What a process keeps in memory of parties, plans and API keys: read whole or row by row."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from tollkeeper.core.numbering import DEFAULT_RULES, DialRules
from tollkeeper.core.records import Limits
from tollkeeper.store.db import Connection, queries

_SQL = queries("directory")


@dataclass(frozen=True, slots=True)
class PartyEntry:
    """A party as the call path needs it; ``wallets`` are wallet ids by currency."""

    id: int
    code: str
    plan_id: int | None
    limits: Limits
    dial_rules: DialRules
    wallets: dict[str, int]


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A credential of the API: what it may do, and which switch it speaks for."""

    id: int
    name: str
    scopes: frozenset[str]
    switch: str


async def read_parties(
    connection: Connection, ids: Iterable[int] | None = None
) -> list[PartyEntry]:
    """Read the parties of these ids, or all of them."""
    cursor = await connection.execute(_SQL["parties"], (list(ids or ()), ids is None))
    return [
        PartyEntry(
            id=row["id"],
            code=row["code"],
            plan_id=row["plan_id"],
            limits=Limits(
                suspended=row["status"] == "suspended",
                kill_on_suspend=row["kill_on_suspend"],
                max_sessions=row["max_sessions"],
                max_cps=row["max_cps"],
                max_cost=row["max_cost"],
                max_seconds=row["max_seconds"],
            ),
            dial_rules=dial_rules_of(row["dial_rules"]),
            wallets=row["wallets"],
        )
        for row in await cursor.fetchall()
    ]


def dial_rules_of(stored: dict[str, object]) -> DialRules:
    """How a party writes numbers, from the JSON that it is kept as."""
    if not stored:
        return DEFAULT_RULES
    known = {name: stored[name] for name in DialRules.__slots__ if name in stored}
    if isinstance(known.get("international"), list):
        known["international"] = tuple(known["international"])  # type: ignore[arg-type]  # JSON has no tuples
    return DialRules(**known)  # type: ignore[arg-type]  # checked where it was written


async def read_plan_cards(connection: Connection) -> dict[tuple[int, str], tuple[int, ...]]:
    """Card ids of each plan and service, in the order in which they win ties."""
    plans: dict[tuple[int, str], list[int]] = {}
    for row in await (await connection.execute(_SQL["plan_cards"])).fetchall():
        plans.setdefault((row["plan_id"], row["service"]), []).append(row["card_id"])
    return {key: tuple(cards) for key, cards in plans.items()}


async def read_keys(connection: Connection) -> dict[bytes, ApiKey]:
    """All valid API keys by the SHA-256 of their secret."""
    return {
        bytes(row["hash"]): ApiKey(row["id"], row["name"], frozenset(row["scopes"]), row["switch"])
        for row in await (await connection.execute(_SQL["keys"])).fetchall()
    }
