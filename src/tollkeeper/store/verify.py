"""Reading the whole books at one moment: sums that the database makes, and sessions one by one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal

import msgspec
from psycopg.rows import DictRow

from tollkeeper.core.audit import LegSums, PostingKind, WalletTotals
from tollkeeper.core.audit_meters import MeterLine
from tollkeeper.core.ledger import ON_CREDIT
from tollkeeper.core.records import Session, Wallet
from tollkeeper.core.terms import Meter
from tollkeeper.store.db import Connection, Database, queries

_SQL = queries("verify")
_decode = msgspec.json.Decoder(Session).decode
FETCH = 2000
"""Rows that a cursor brings at a time."""


@dataclass(frozen=True, slots=True)
class Counts:
    """How much there is to look at, at the moment ``at`` of the database's clock."""

    wallets: int
    entries: int
    live_sessions: int
    closed_sessions: int
    messages: int
    at: datetime


@dataclass(frozen=True, slots=True)
class BookTotals:
    """Balances (credits - debits) of one currency by kind of account.

    ``others`` is the balance of all accounts that are no wallets, those without a name here included.
    """

    currency: str
    wallets: Decimal
    revenue: Decimal
    clearing: Decimal
    adjustment: Decimal
    cost: Decimal
    promotion: Decimal
    transfer: Decimal
    commission: Decimal
    others: Decimal


@dataclass(frozen=True, slots=True)
class SessionRow:
    """A stored session: the columns beside its body, and what its entries add up to.

    ``charge`` and ``ending`` are None for a live one. ``sums`` is by (leg, wallet); an entry
    without a leg counts as leg -1.
    """

    key: str
    id: str
    party_id: int
    opened_day: date
    version: int
    session: Session
    ending: str | None = None
    charge: Decimal | None = None
    expires_at: datetime | None = None
    sums: dict[tuple[int, int], LegSums] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Stray:
    """Entries that name a session which is not among the closed ones."""

    session_id: str
    wallet_id: int
    entries: int
    amount: Decimal


@dataclass(frozen=True, slots=True)
class WalletName:
    """How people call a wallet."""

    id: int
    party: str
    currency: str
    parked: bool


@asynccontextmanager
async def one_moment(database: Database) -> AsyncIterator[Connection]:
    """A connection that sees the whole database as it was at one moment, and cannot change it."""
    async with database.read() as connection, connection.transaction():
        await connection.execute(_SQL["moment"])
        await connection.execute(_SQL["patience"])
        yield connection


async def count(connection: Connection) -> Counts:
    """How many rows of each kind there are."""
    row = await (await connection.execute(_SQL["counts"])).fetchone()
    assert row is not None
    return Counts(**row)


async def read_wallets(connection: Connection) -> AsyncIterator[WalletTotals]:
    """Every wallet beside the sums of its entries and of its live sessions' holds."""
    codes = [code.value for code in ON_CREDIT]
    fields = set(Wallet.__struct_fields__)
    async for row in _stream(connection, "wallets", (codes,)):
        wallet = Wallet(**{name: row.pop(name) for name in fields})
        yield WalletTotals(wallet=wallet, **row)


async def read_postings(connection: Connection) -> list[PostingKind]:
    """The kinds of entries there are."""
    return [
        PostingKind(**row) for row in await (await connection.execute(_SQL["postings"])).fetchall()
    ]


async def wallets_of_posting(connection: Connection, kind: PostingKind) -> list[int]:
    """Which wallets have entries of this kind; the first 1000."""
    values = (
        kind.code, kind.currency, kind.debit_kind, kind.credit_kind, kind.debit_currency,
        kind.credit_currency,
    )  # fmt: skip
    rows = await (await connection.execute(_SQL["wallets_of_posting"], values)).fetchall()
    return [row["wallet_id"] for row in rows]


async def read_books(connection: Connection) -> list[BookTotals]:
    """The balances of each currency."""
    return [BookTotals(**row) for row in await (await connection.execute(_SQL["books"])).fetchall()]


async def read_live(connection: Connection) -> AsyncIterator[SessionRow]:
    """Every live session."""
    async for row in _stream(connection, "live"):
        yield SessionRow(session=_decode(row.pop("body")), **row)


async def read_closed(connection: Connection) -> AsyncIterator[SessionRow]:
    """Every closed session with what its entries add up to."""
    async for row in _stream(connection, "closed"):
        columns = [row.pop(name) for name in ("legs", "wallets", "codes", "amounts", "counts")]
        sums = _sums(zip(*columns, strict=True)) if columns[0] else {}
        yield SessionRow(session=_decode(row.pop("body")), sums=sums, **row)


def _sums(
    lines: Iterable[tuple[int, int, str, Decimal, int]],
) -> dict[tuple[int, int], LegSums]:
    values: dict[tuple[int, int], dict[str, Decimal | int]] = {}
    for leg, wallet, code, amount, entries in lines:
        own = values.setdefault((leg, wallet), {})
        own[code] = amount
        if code in {"usage", "overrun"}:
            own[f"{code}_entries"] = entries
    known = set(LegSums.__slots__)
    return {
        place: LegSums(**{name: value for name, value in own.items() if name in known})  # type: ignore[arg-type]  # by the names just made
        for place, own in values.items()
    }


async def read_meters(connection: Connection) -> AsyncIterator[MeterLine]:
    """Every meter, and whether all of its sessions are still here."""
    fields = Meter.__struct_fields__
    async for row in _stream(connection, "meters"):
        meter = Meter(**{name: row.pop(name) for name in fields})
        yield MeterLine(meter, **row)


async def read_strays(connection: Connection) -> list[Stray]:
    """Entries of sessions that are not closed, or not there at all."""
    return [Stray(**row) for row in await (await connection.execute(_SQL["strays"])).fetchall()]


async def odd_messages(connection: Connection) -> list[tuple[date, str]]:
    """Day and id of sessions whose messages do not fit them; at most 1000."""
    rows = await (await connection.execute(_SQL["odd_messages"])).fetchall()
    return [(row["day"], row["session_id"]) for row in rows]


async def odd_keys(connection: Connection, days: int) -> list[tuple[str, datetime, bool]]:
    """Key, opening and liveness of sessions whose key was used again too soon; at most 1000 keys."""
    rows = await (await connection.execute(_SQL["odd_keys"], (days,))).fetchall()
    keys = [row["key"] for row in rows]
    if not keys:
        return []
    cursor = await connection.execute(_SQL["sessions_of_keys"], (keys, keys))
    return [(row["key"], row["opened_at"], row["live"]) for row in await cursor.fetchall()]


async def name_wallets(connection: Connection, ids: Sequence[int]) -> list[WalletName]:
    """Whose wallets these are."""
    rows = await (await connection.execute(_SQL["names"], (list(ids),))).fetchall()
    return [WalletName(**row) for row in rows]


async def _stream(
    connection: Connection, query: str, values: tuple[object, ...] = ()
) -> AsyncIterator[DictRow]:
    """Rows by a cursor of the server, so that any number of them fits in memory."""
    async with connection.cursor(name=f"verify_{query}") as cursor:
        cursor.itersize = FETCH
        await cursor.execute(_SQL[query], values)
        async for row in cursor:
            yield row
