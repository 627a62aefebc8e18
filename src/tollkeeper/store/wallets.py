"""Wallets, their accounts and their entries as they are stored."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from uuid import UUID

from psycopg.rows import DictRow

from tollkeeper.core.ledger import Account, Code, wallet_effect
from tollkeeper.core.money import ZERO
from tollkeeper.core.records import Wallet
from tollkeeper.store.db import Connection, queries

_SQL = queries("wallets")


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry on a wallet. ``amount`` is positive; ``version`` numbers the wallet's entries."""

    id: int
    at: datetime
    code: Code
    amount: Decimal
    currency: str
    version: int
    balance_after: Decimal
    session_id: UUID | None
    actor: str
    reason: str

    @property
    def effect(self) -> Decimal:
        """The signed change of the balance: positive is the customer's money."""
        return wallet_effect(self.code, self.amount)


async def read_wallet(connection: Connection, wallet_id: int) -> Wallet | None:
    """Read a wallet by id, without a lock."""
    return await _one(connection, "wallet", (wallet_id,))


async def find_wallet(connection: Connection, party: str, currency: str) -> Wallet | None:
    """Read a party's wallet in a currency, without a lock."""
    return await _one(connection, "find_wallet", (party, currency))


async def lock_wallet(connection: Connection, wallet_id: int) -> Wallet | None:
    """Lock a wallet's row until the transaction ends, and read what stands in it now."""
    return await _one(connection, "lock_wallet", (wallet_id,))


async def read_wallets(connection: Connection, party: str) -> list[Wallet]:
    """Read all wallets of a party, in the order of their currencies."""
    rows = await (await connection.execute(_SQL["wallets_of_party"], (party,))).fetchall()
    return [Wallet(**row) for row in rows]


async def find_account(
    connection: Connection, kind: Account, currency: str, name: str
) -> int | None:
    """Return the id of an account of the journal."""
    row = await (await connection.execute(_SQL["account"], (kind, currency, name))).fetchone()
    return row["id"] if row is not None else None


async def add_account(
    connection: Connection, kind: Account, currency: str, name: str
) -> int | None:
    """Insert an account; None when it exists. Waits for another who is just inserting it."""
    row = await (await connection.execute(_SQL["add_account"], (kind, currency, name))).fetchone()
    return row["id"] if row is not None else None


async def add_wallet(
    connection: Connection, *, account_id: int, party_id: int, currency: str, credit_limit: Decimal
) -> None:
    """Insert an empty wallet for its account."""
    await connection.execute(_SQL["add_wallet"], (account_id, party_id, currency, credit_limit))


async def set_terms(
    connection: Connection, wallet_id: int, *, credit_limit: Decimal, parked: bool
) -> None:
    """Store credit limit and parking; decisions made on the wallet before are made again."""
    await connection.execute(_SQL["set_terms"], (credit_limit, parked, wallet_id))


async def count_entry(connection: Connection, wallet_id: int, effect: Decimal) -> None:
    """Add an entry's effect to the counters of a locked wallet."""
    up, down = max(effect, ZERO), max(-effect, ZERO)
    await connection.execute(_SQL["post"], (up, down, wallet_id))


async def add_entry(
    connection: Connection, entry: Entry, *, wallet_id: int, debit: int, credit: int
) -> int:
    """Insert an entry on the UTC day of its time and return its id."""
    values = (
        entry.at.date(),
        entry.at,
        entry.code,
        debit,
        credit,
        entry.amount,
        entry.currency,
        wallet_id,
        entry.version,
        entry.balance_after,
        entry.actor,
        entry.reason,
    )
    row = await (await connection.execute(_SQL["add_entry"], values)).fetchone()
    assert row is not None
    number: int = row["id"]
    return number


async def last_before(
    connection: Connection, wallet_id: int, *, day: date, at: datetime
) -> tuple[int, Decimal]:
    """Return version and balance of the wallet's last entry before ``at``; zeros if none.

    ``day`` is the last UTC day that can hold it. Partitions are looked at from there backwards,
    and only until one entry is found.
    """
    cursor = await connection.execute(_SQL["last_before"], (wallet_id, day, at))
    row = await cursor.fetchone()
    return (row["wallet_version"], row["balance_after"]) if row is not None else (0, ZERO)


async def read_entries(
    connection: Connection,
    wallet_id: int,
    *,
    days: tuple[date, date],
    after: int,
    upto: int,
    limit: int,
) -> list[Entry]:
    """Read entries with versions above ``after`` and not above ``upto``, of these days only."""
    cursor = await connection.execute(_SQL["entries"], (wallet_id, *days, after, upto, limit))
    return [_entry(row) for row in await cursor.fetchall()]


async def _one(connection: Connection, query: str, values: tuple[object, ...]) -> Wallet | None:
    row = await (await connection.execute(_SQL[query], values)).fetchone()
    return Wallet(**row) if row is not None else None


def _entry(row: DictRow) -> Entry:
    return Entry(
        id=row["id"],
        at=row["at"],
        code=Code(row["code"]),
        amount=row["amount"],
        currency=row["currency"],
        version=row["wallet_version"],
        balance_after=row["balance_after"],
        session_id=row["session_id"],
        actor=row["actor"],
        reason=row["reason"],
    )
