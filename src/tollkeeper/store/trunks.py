"""Trunks as they are stored and shown; mediation reads them through ``store.reference``."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from psycopg.rows import DictRow
from psycopg.types.json import Jsonb

from tollkeeper.core.numbering import DEFAULT_RULES, DialRules
from tollkeeper.core.trunks import Direction
from tollkeeper.store.db import Connection, queries
from tollkeeper.store.directory import dial_rules_of

_SQL = queries("trunks")


@dataclass(frozen=True, slots=True)
class TrunkEntry:
    """A trunk; ``party`` is a code, ``switch`` "" is any switch."""

    code: str
    direction: Direction
    party: str
    switch: str = ""
    names: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()
    account: str = ""
    tech_prefix: str = ""
    dial_rules: DialRules = DEFAULT_RULES
    id: int = 0


async def add_trunk(connection: Connection, trunk: TrunkEntry, party_id: int) -> int | None:
    """Insert a trunk; None when its code is taken."""
    values = (trunk.code, trunk.direction, *_terms(trunk, party_id))
    row = await (await connection.execute(_SQL["add"], values)).fetchone()
    return None if row is None else row["id"]


async def set_trunk(connection: Connection, trunk: TrunkEntry, party_id: int) -> None:
    """Store a trunk that is there already."""
    await connection.execute(_SQL["change"], (*_terms(trunk, party_id), trunk.code))


async def read_trunk(connection: Connection, code: str) -> TrunkEntry | None:
    """Read one trunk by code."""
    row = await (await connection.execute(_SQL["one"], (code,))).fetchone()
    return None if row is None else _entry(row)


async def read_trunks(connection: Connection, *, after: str, limit: int) -> list[TrunkEntry]:
    """Read trunks in the order of their codes."""
    rows = await (await connection.execute(_SQL["page"], (after, limit))).fetchall()
    return [_entry(row) for row in rows]


async def delete_trunk(connection: Connection, code: str) -> bool:
    """Delete a trunk; False if there was none. Records keep its number."""
    return (await connection.execute(_SQL["delete"], (code,))).rowcount > 0


def _terms(trunk: TrunkEntry, party_id: int) -> tuple[object, ...]:
    rules = {} if trunk.dial_rules == DEFAULT_RULES else asdict(trunk.dial_rules)
    return (
        party_id, trunk.switch, list(trunk.names), list(trunk.addresses), trunk.account,
        trunk.tech_prefix, Jsonb(rules),
    )  # fmt: skip


def _entry(row: DictRow) -> TrunkEntry:
    row["names"], row["addresses"] = tuple(row["names"]), tuple(row["addresses"])
    row["dial_rules"] = dial_rules_of(row["dial_rules"])
    return TrunkEntry(**row)
