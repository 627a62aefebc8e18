"""What a process keeps in memory of parties, plans and API keys: read whole or row by row."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal

from tollkeeper.core.numbering import DEFAULT_RULES, DialRules
from tollkeeper.core.records import Limits
from tollkeeper.store.db import Connection, queries

_SQL = queries("directory")


@dataclass(frozen=True, slots=True)
class Caps:
    """What may be spent from a wallet in the party's day and month; ``watched``: spending is told of."""

    daily: Decimal | None
    monthly: Decimal | None
    watched: bool


@dataclass(frozen=True, slots=True)
class Bought:
    """A package that a party has bought: the meter of its term, and when that term is (UTC)."""

    plan: str
    code: str
    meter_id: int
    begins_at: datetime
    ends_at: datetime


@dataclass(frozen=True, slots=True)
class PartyEntry:
    """A party as the call path needs it; ``wallets`` are wallet ids by currency, as are ``caps``.

    ``limits`` are its own: whether somebody above it is suspended is not in them. ``expires_at`` is the
    end of a calling card, from which on nothing is granted; None for everybody else.
    """

    id: int
    code: str
    plan_id: int | None
    limits: Limits
    dial_rules: DialRules
    wallets: dict[str, int]
    parent_id: int | None = None
    kind: str = "customer"
    billing: str = "postpaid"
    rate_change: str = "pin"
    timezone: str = "UTC"
    caps: dict[str, Caps] = field(default_factory=dict)
    bought: tuple[Bought, ...] = ()
    expires_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A credential of the API: what it may do, and which switch it speaks for.

    ``party_id`` bounds it to that party and those below it; None is the operator's.
    """

    id: int
    name: str
    scopes: frozenset[str]
    switch: str
    party_id: int | None = None


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
                suspended=row["status"] != "active",
                kill_on_suspend=row["kill_on_suspend"],
                max_sessions=row["max_sessions"],
                max_cps=row["max_cps"],
                max_cost=row["max_cost"],
                max_seconds=row["max_seconds"],
                low_balance=row["low_balance"],
                low_sessions=row["low_sessions"],
            ),
            dial_rules=dial_rules_of(row["dial_rules"]),
            wallets=row["wallets"],
            parent_id=row["parent_id"],
            kind=row["kind"],
            billing=row["billing"],
            rate_change=row["rate_change"],
            timezone=row["timezone"],
            caps={currency: _caps(kept) for currency, kept in row["caps"].items()},
            bought=tuple(_bought(kept) for kept in row["bought"]),
            expires_at=row["expires_at"],
        )
        for row in await cursor.fetchall()
    ]


def _caps(kept: list[str | None]) -> Caps:
    daily, monthly, watched = kept
    return Caps(
        None if daily is None else Decimal(daily),
        None if monthly is None else Decimal(monthly),
        watched == "true",
    )


def _bought(kept: dict[str, str]) -> Bought:
    return Bought(
        kept["plan"],
        kept["code"],
        int(kept["meter"]),
        datetime.fromisoformat(kept["begins"]).astimezone(UTC),
        datetime.fromisoformat(kept["ends"]).astimezone(UTC),
    )


def dial_rules_of(stored: dict[str, object]) -> DialRules:
    """How a party writes numbers, from the JSON that it is kept as."""
    if not stored:
        return DEFAULT_RULES
    known = {name: stored[name] for name in DialRules.__slots__ if name in stored}
    if isinstance(known.get("international"), list):
        known["international"] = tuple(known["international"])  # type: ignore[arg-type]  # JSON has no tuples
    return DialRules(**known)  # type: ignore[arg-type]  # checked where it was written


async def read_keys(connection: Connection) -> dict[bytes, ApiKey]:
    """All valid API keys by the SHA-256 of their secret."""
    return {
        bytes(row["hash"]): ApiKey(
            row["id"], row["name"], frozenset(row["scopes"]), row["switch"], row["party_id"]
        )
        for row in await (await connection.execute(_SQL["keys"])).fetchall()
    }
