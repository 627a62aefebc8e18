"""Vouchers as they are stored: batches, hashes of codes, and wrong guesses. Never a code."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal

from tollkeeper.store.db import Connection, queries

_SQL = queries("vouchers")


@dataclass(frozen=True, slots=True)
class NewBatch:
    """A batch to be made; ``owner`` is the id of the reseller that pays, None the operator."""

    code: str
    owner: int | None
    kind: str
    amount: Decimal
    currency: str
    valid_from: datetime
    valid_to: datetime
    bonus_days: int | None
    bonus_order: str
    at: datetime
    actor: str


@dataclass(frozen=True, slots=True)
class Batch:
    """Vouchers of one value; ``owner`` is the code of the reseller that pays them, None the operator."""

    id: int
    code: str
    owner: str | None
    kind: str
    amount: Decimal
    currency: str
    valid_from: datetime
    valid_to: datetime
    bonus_days: int | None
    bonus_order: str
    status: str
    created_at: datetime
    vouchers: int
    redeemed: int
    blocked: int


@dataclass(frozen=True, slots=True)
class Voucher:
    """One voucher and what its batch says of it."""

    id: int
    status: str
    redeemed_by: int | None
    redeemed_at: datetime | None
    batch_id: int
    batch: str
    batch_status: str
    kind: str
    amount: Decimal
    currency: str
    owner_id: int | None
    owner: str | None
    valid_from: datetime
    valid_to: datetime
    bonus_days: int | None
    bonus_order: str


@dataclass(frozen=True, slots=True)
class Attempts:
    """A subject's last wrong guess, and how many there were in the window that ends with it."""

    subject: str
    at: datetime
    wrong: int


async def read_secret(connection: Connection) -> bytes:
    """The key of all codes' hashes."""
    row = await (await connection.execute(_SQL["secret"])).fetchone()
    assert row is not None
    return bytes(row["secret"])


async def add_batch(connection: Connection, batch: NewBatch) -> int | None:
    """Insert a batch without vouchers; None when the code is taken."""
    values = {name: getattr(batch, name) for name in NewBatch.__slots__}
    row = await (await connection.execute(_SQL["add_batch"], values)).fetchone()
    return row["id"] if row is not None else None


async def add_vouchers(
    connection: Connection, batch_id: int, hashes: Sequence[bytes]
) -> frozenset[bytes]:
    """Insert vouchers; return the hashes of those that are new."""
    cursor = await connection.execute(_SQL["add"], (batch_id, list(hashes)))
    return frozenset(bytes(row["hash"]) for row in await cursor.fetchall())


async def lock_voucher(connection: Connection, hash_: bytes) -> Voucher | None:
    """Lock the voucher with this hash and read it."""
    row = await (await connection.execute(_SQL["lock"], (hash_,))).fetchone()
    return Voucher(**row) if row is not None else None


async def mark_redeemed(
    connection: Connection, voucher_id: int, *, party_id: int, wallet_id: int, at: datetime
) -> None:
    """A locked voucher has been redeemed."""
    await connection.execute(_SQL["redeem"], (party_id, at, wallet_id, voucher_id))


async def block_voucher(connection: Connection, voucher_id: int) -> bool:
    """Block one voucher; False when it is not active."""
    return (await connection.execute(_SQL["block"], (voucher_id,))).rowcount == 1


async def set_batch_status(connection: Connection, batch_id: int, status: str) -> None:
    """Block a batch, or let it be redeemed again."""
    await connection.execute(_SQL["block_batch"], (status, batch_id))


async def read_batches(
    connection: Connection, *, after: str = "", limit: int = 1, code: str | None = None
) -> list[Batch]:
    """Batches in the order of their codes; with a ``code`` that one."""
    values = {"after": after, "limit": limit, "code": code}
    rows = await (await connection.execute(_SQL["batches"], values)).fetchall()
    return [Batch(**row) for row in rows]


async def take_turn(connection: Connection, subjects: Sequence[str]) -> None:
    """Wait until nobody else guesses for these subjects; held until the transaction ends."""
    await connection.execute(_SQL["take_turn"], (sorted(subjects),))


async def read_attempts(
    connection: Connection, subjects: Sequence[str], *, now: datetime, window: timedelta
) -> list[Attempts]:
    """The wrong guesses of these subjects that still matter."""
    values = {"subjects": list(subjects), "now": now, "window": window}
    rows = await (await connection.execute(_SQL["attempts"], values)).fetchall()
    return [Attempts(**row) for row in rows]


async def add_attempts(connection: Connection, subjects: Sequence[str], at: datetime) -> None:
    """Write down a wrong guess of these subjects."""
    await connection.execute(_SQL["add_attempts"], (at, list(subjects)))


async def purge_attempts(connection: Connection, before: datetime) -> None:
    """Delete guesses that do not matter any more."""
    await connection.execute(_SQL["purge_attempts"], (before,))
