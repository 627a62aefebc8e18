"""Wallets, their accounts and their entries as they are stored."""

from __future__ import annotations

from collections.abc import Sequence
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


class WalletRow(Wallet, frozen=True, gc=False):
    """A wallet with the terms behind its limit, as people see it; charging needs only the wallet.

    ``credit_limit`` follows from the terms: 0 for a prepaid party, else ``agreed_limit`` and, until
    ``temp_until``, ``temp_limit`` more. The caps bound what is spent in the party's day and month;
    ``alert_at`` are the percents of caps and limit at which somebody is told.
    """

    agreed_limit: Decimal = ZERO
    temp_limit: Decimal = ZERO
    temp_until: datetime | None = None
    daily_cap: Decimal | None = None
    monthly_cap: Decimal | None = None
    alert_at: tuple[int, ...] = ()


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


async def read_wallet(connection: Connection, wallet_id: int) -> WalletRow | None:
    """Read a wallet by id, without a lock."""
    return await _one(connection, "wallet", (wallet_id,))


async def find_wallet(connection: Connection, party: str, currency: str) -> WalletRow | None:
    """Read a party's wallet in a currency, without a lock."""
    return await _one(connection, "find_wallet", (party, currency))


async def lock_wallet(connection: Connection, wallet_id: int) -> WalletRow | None:
    """Lock a wallet's row until the transaction ends, and read what stands in it now."""
    return await _one(connection, "lock_wallet", (wallet_id,))


async def read_wallets(connection: Connection, party: str) -> list[WalletRow]:
    """Read all wallets of a party, in the order of their currencies."""
    rows = await (await connection.execute(_SQL["wallets_of_party"], (party,))).fetchall()
    return [_wallet(row) for row in rows]


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
    connection: Connection, *, account_id: int, party_id: int, currency: str, agreed_limit: Decimal
) -> None:
    """Insert an empty wallet for its account; its limit is what the party's billing makes of it."""
    values = {
        "id": account_id, "party": party_id, "currency": currency, "agreed": agreed_limit,
    }  # fmt: skip
    await connection.execute(_SQL["add_wallet"], values)


async def set_terms(connection: Connection, wallet: WalletRow) -> None:
    """Store a wallet's terms and parking; decisions made on the wallet before are made again."""
    names = ("id", "agreed_limit", "temp_limit", "temp_until", "daily_cap", "monthly_cap", "parked")
    values = {name: getattr(wallet, name) for name in names}
    await connection.execute(_SQL["set_terms"], {**values, "alert_at": list(wallet.alert_at)})


async def follow_terms(connection: Connection, ids: Sequence[int]) -> None:
    """Make the limits of wallets what their terms and their party's billing say."""
    await connection.execute(_SQL["follow_terms"], (list(ids),))


async def wallets_of(connection: Connection, party_id: int) -> list[int]:
    """Ids of a party's wallets, in the order in which they are locked."""
    rows = await (await connection.execute(_SQL["of_party"], (party_id,))).fetchall()
    return [row["id"] for row in rows]


async def temporary_over(
    connection: Connection, now: datetime, limit: int
) -> list[tuple[int, str, str]]:
    """Wallets (id, party's code, currency) whose temporary limit has come to its end."""
    rows = await (await connection.execute(_SQL["over"], (now, limit))).fetchall()
    return [(row["id"], row["party"], row["currency"]) for row in rows]


async def lock_wallets(connection: Connection, ids: Sequence[int]) -> dict[int, WalletRow]:
    """Lock wallets in the order of their ids, and read what stands in them now."""
    rows = await (await connection.execute(_SQL["lock_wallets"], (list(ids),))).fetchall()
    return {row["id"]: _wallet(row) for row in rows}


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


async def _one(connection: Connection, query: str, values: tuple[object, ...]) -> WalletRow | None:
    row = await (await connection.execute(_SQL[query], values)).fetchone()
    return _wallet(row) if row is not None else None


def _wallet(row: DictRow) -> WalletRow:
    return WalletRow(**{**row, "alert_at": tuple(row["alert_at"])})


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
