"""What mediation must know to price records: parties and their tree, trunks, plans, versions in time."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import date

from tollkeeper.core.numbering import DialRules
from tollkeeper.core.trunks import Trunk
from tollkeeper.store.db import Connection, queries
from tollkeeper.store.directory import dial_rules_of
from tollkeeper.store.rates import RateCard, RateVersion

_SQL = queries("reference")


@dataclass(frozen=True, slots=True)
class PartyRef:
    """A party as mediation needs it; ``wallets`` are wallet ids by currency."""

    id: int
    code: str
    kind: str
    parent_id: int | None
    plan_id: int | None
    dial_rules: DialRules
    wallets: dict[str, int] = field(default_factory=dict)


async def read_parties(connection: Connection) -> dict[int, PartyRef]:
    """All parties by id."""
    found = {}
    for row in await (await connection.execute(_SQL["parties"])).fetchall():
        row["dial_rules"] = dial_rules_of(row["dial_rules"])
        found[row["id"]] = PartyRef(**row)
    return found


async def read_trunks(connection: Connection) -> list[Trunk]:
    """All trunks in the order in which they were made."""
    return [
        Trunk(
            id=row["id"],
            code=row["code"],
            direction=row["direction"],
            party_id=row["party_id"],
            switch=row["switch"],
            names=tuple(row["names"]),
            addresses=tuple(row["addresses"]),
            account=row["account"],
            tech_prefix=row["tech_prefix"],
            rules=dial_rules_of(row["dial_rules"]),
        )
        for row in await (await connection.execute(_SQL["trunks"])).fetchall()
    ]


async def read_plan_cards(connection: Connection) -> dict[int, list[RateCard]]:
    """The cards of each plan, of all services and both sides, in the order in which they win ties."""
    plans: dict[int, list[RateCard]] = {}
    for row in await (await connection.execute(_SQL["plan_cards"])).fetchall():
        plan_id, card_id = row.pop("plan_id"), row.pop("card_id")
        plans.setdefault(plan_id, []).append(RateCard(id=card_id, **row))
    return plans


async def read_live_terms(connection: Connection) -> frozenset[tuple[int, str, str]]:
    """The (plan, side, service) whose prices are not those of cards by prefix and minute alone."""
    rows = await (await connection.execute(_SQL["live_terms"])).fetchall()
    return frozenset((row["plan_id"], row["side"], row["service"]) for row in rows)


async def read_activations(
    connection: Connection, card_ids: Iterable[int]
) -> dict[int, list[RateVersion]]:
    """The versions of each card that were ever in force, in the order of their activation."""
    cards: dict[int, list[RateVersion]] = {}
    cursor = await connection.execute(_SQL["activations"], (list(card_ids),))
    for row in await cursor.fetchall():
        cards.setdefault(row.pop("card_id"), []).append(RateVersion(**row))
    return cards


async def read_secret(connection: Connection) -> bytes:
    """The 16 bytes that key the hashes of records."""
    row = await (await connection.execute(_SQL["secret"])).fetchone()
    assert row is not None
    return bytes(row["secret"])


async def read_purged_before(connection: Connection) -> date:
    """Days before this one were purged: whether a record of them is known cannot be told any more."""
    row = await (await connection.execute(_SQL["purged_before"])).fetchone()
    assert row is not None
    before: date = row["before"]
    return before
