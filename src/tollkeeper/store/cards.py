"""Calling cards as they are stored: batches, cards with the hashes of PINs, callers, wrong guesses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from decimal import Decimal

from tollkeeper.store.db import Connection, queries

_SQL = queries("cards")


@dataclass(frozen=True, slots=True)
class NewBatch:
    """A batch to be made; ``owner_id`` None is the operator."""

    code: str
    owner_id: int | None
    plan_id: int
    currency: str
    amount: Decimal
    valid_days: int
    expires_at: datetime
    fee_amount: Decimal | None
    fee_days: int | None
    max_seconds: int
    pin_digits: int
    on_expiry: str
    at: datetime
    actor: str


@dataclass(frozen=True, slots=True)
class Batch:
    """Cards of one kind, and how many of them are in which state; ``plan`` may be another's and unseen."""

    id: int
    code: str
    owner: str | None
    plan: str | None
    currency: str
    amount: Decimal
    valid_days: int
    expires_at: datetime
    fee_amount: Decimal | None
    fee_days: int | None
    max_seconds: int
    pin_digits: int
    on_expiry: str
    status: str
    created_at: datetime
    cards: int
    unused: int
    used: int
    expired: int
    blocked: int


@dataclass(frozen=True, slots=True)
class Card:
    """A card as it is shown; ``code`` is that of its party. Money is that of its wallet."""

    id: int
    party_id: int
    code: str
    batch: str
    serial: int
    status: str
    batch_status: str
    first_used_at: datetime | None
    expires_at: datetime
    next_fee_at: datetime | None
    fees: int
    currency: str
    balance: Decimal
    available: Decimal
    callers: list[str]


@dataclass(frozen=True, slots=True)
class LockedCard:
    """A card that is locked, and what its batch says of it."""

    id: int
    party_id: int
    code: str
    serial: int
    status: str
    first_used_at: datetime | None
    expires_at: datetime
    fees: int
    unsettled: bool
    batch_id: int
    batch: str
    batch_status: str
    owner_id: int | None
    owner: str | None
    owner_kind: str | None
    currency: str
    amount: Decimal
    valid_days: int
    fee_amount: Decimal | None
    fee_days: int | None
    on_expiry: str


@dataclass(frozen=True, slots=True)
class Attempts:
    """A subject's last wrong PIN, how many there were in the window that ends with it, and may be."""

    subject: str
    most: int
    at: datetime
    wrong: int


# --- batches -------------------------------------------------------------------------------------


async def add_batch(connection: Connection, batch: NewBatch) -> int | None:
    """Insert a batch without cards; None when the code is taken."""
    row = await (await connection.execute(_SQL["add_batch"], asdict(batch))).fetchone()
    return row["id"] if row is not None else None


async def add_parties(
    connection: Connection, batch: NewBatch, codes: Sequence[str]
) -> dict[str, int]:
    """Insert the parties of cards with their wallets; ids by code, without codes that were taken."""
    values = {**asdict(batch), "codes": list(codes)}
    rows = await (await connection.execute(_SQL["add_parties"], values)).fetchall()
    return {row["code"]: row["id"] for row in rows}


async def add_cards(
    connection: Connection,
    batch_id: int,
    expires_at: datetime,
    cards: Sequence[tuple[int, int, bytes]],
) -> frozenset[int]:
    """Insert cards (party, serial, hash of the PIN); return the serials of those whose PIN is new."""
    values = {
        "batch_id": batch_id,
        "expires_at": expires_at,
        "parties": [party for party, _, _ in cards],
        "serials": [serial for _, serial, _ in cards],
        "hashes": [hash_ for _, _, hash_ in cards],
    }
    rows = await (await connection.execute(_SQL["add_cards"], values)).fetchall()
    return frozenset(row["serial"] for row in rows)


async def read_batches(
    connection: Connection, *, after: str = "", limit: int = 1, code: str | None = None
) -> list[Batch]:
    """Batches in the order of their codes; with a ``code`` that one."""
    values = {"after": after, "limit": limit, "code": code}
    rows = await (await connection.execute(_SQL["batches"], values)).fetchall()
    return [Batch(**row) for row in rows]


async def set_batch_status(connection: Connection, batch_id: int, status: str) -> None:
    """Block a batch, or let its cards be used again."""
    await connection.execute(_SQL["set_batch_status"], (status, batch_id))


async def used_of_batch(connection: Connection, batch_id: int, *, good: bool) -> list[int]:
    """Parties of a batch's cards that were used; ``good``: and are not blocked one by one."""
    query = _SQL["used_and_good" if good else "used_of_batch"]
    rows = await (await connection.execute(query, (batch_id,))).fetchall()
    return [row["party_id"] for row in rows]


# --- cards ---------------------------------------------------------------------------------------


async def read_cards(
    connection: Connection,
    *,
    code: str | None = None,
    batch: str | None = None,
    after: str = "",
    limit: int = 1,
) -> list[Card]:
    """Cards in the order of their codes: the one of a code, those of a batch, or all."""
    values = {"code": code, "batch": batch, "after": after, "limit": limit}
    rows = await (await connection.execute(_SQL["cards"], values)).fetchall()
    return [Card(**row) for row in rows]


async def lock_card(connection: Connection, card_id: int) -> LockedCard | None:
    """Lock a card and read it."""
    row = await (await connection.execute(_SQL["lock"], (card_id,))).fetchone()
    return LockedCard(**row) if row is not None else None


async def find_by_pin(connection: Connection, hash_: bytes) -> int | None:
    """Id of the card whose PIN has this hash."""
    row = await (await connection.execute(_SQL["id_by_pin"], (hash_,))).fetchone()
    return row["id"] if row is not None else None


async def find_by_caller(
    connection: Connection, caller: str, *, owner: str | None, scope: int | None
) -> list[int]:
    """Ids of the cards (two at most) that a caller's number stands for, of a seller, within a scope."""
    values = {"caller": caller, "owner": owner, "scope": scope}
    rows = await (await connection.execute(_SQL["ids_by_caller"], values)).fetchall()
    return [row["id"] for row in rows]


async def find_by_code(connection: Connection, code: str) -> int | None:
    """Id of the card whose party has this code."""
    row = await (await connection.execute(_SQL["id_by_code"], (code,))).fetchone()
    return row["id"] if row is not None else None


async def use_first(
    connection: Connection,
    card_id: int,
    *,
    at: datetime,
    expires_at: datetime,
    next_fee_at: datetime | None,
) -> None:
    """A card is used for the first time."""
    await connection.execute(_SQL["use_first"], (at, expires_at, next_fee_at, card_id))


async def set_status(connection: Connection, card_id: int, status: str) -> None:
    """Change a card's status."""
    await connection.execute(_SQL["set_status"], (status, card_id))


async def set_party_status(connection: Connection, parties: Sequence[int], status: str) -> None:
    """Suspend the parties of cards, or let them call again; every process is told."""
    await connection.execute(_SQL["set_party_status"], (status, list(parties)))
    await connection.execute(_SQL["tell"], (list(parties),))


async def set_callers(
    connection: Connection, card: LockedCard, callers: Sequence[str], at: datetime
) -> None:
    """Make these the callers of a card."""
    await connection.execute(_SQL["clear_callers"], (card.id,))
    await add_callers(connection, card, callers, at)


async def add_callers(
    connection: Connection, card: LockedCard, callers: Sequence[str], at: datetime
) -> None:
    """Add callers to a card; they are no longer those of another card of the same seller."""
    await connection.execute(_SQL["add_callers"], (card.id, card.owner_id, at, list(callers)))


async def count_callers(connection: Connection, card_id: int, but: str) -> int:
    """How many callers a card has beside one."""
    row = await (await connection.execute(_SQL["count_callers"], (card_id, but))).fetchone()
    return row["callers"] if row is not None else 0


# --- guesses -------------------------------------------------------------------------------------


async def take_turn(connection: Connection, subjects: Sequence[str]) -> None:
    """Wait until nobody else guesses for these subjects; held until the transaction ends."""
    await connection.execute(_SQL["take_turn"], (sorted(subjects),))


async def read_attempts(
    connection: Connection, subjects: Mapping[str, int], *, now: datetime, window: timedelta
) -> list[Attempts]:
    """The wrong PINs of these subjects (with how many each may have) that still matter."""
    values = {
        "subjects": list(subjects),
        "most": list(subjects.values()),
        "now": now,
        "window": window,
    }
    rows = await (await connection.execute(_SQL["attempts"], values)).fetchall()
    return [Attempts(**row) for row in rows]


async def add_attempts(connection: Connection, subjects: Sequence[str], at: datetime) -> None:
    """Write down a wrong PIN of these subjects."""
    await connection.execute(_SQL["add_attempts"], (at, list(subjects)))


async def purge_attempts(connection: Connection, before: datetime) -> None:
    """Delete wrong PINs that do not matter any more."""
    await connection.execute(_SQL["purge_attempts"], (before,))


# --- what comes with time ------------------------------------------------------------------------


async def due_fees(connection: Connection, now: datetime, limit: int) -> list[int]:
    """Ids of cards with a maintenance fee that is due."""
    rows = await (await connection.execute(_SQL["due_fees"], (now, limit))).fetchall()
    return [row["id"] for row in rows]


async def fee_paid(
    connection: Connection, card_id: int, *, next_fee_at: datetime, status: str
) -> None:
    """A locked card's fee is paid, as far as there was money."""
    await connection.execute(_SQL["fee_paid"], (next_fee_at, status, card_id))


async def fee_later(connection: Connection, card_id: int, at: datetime) -> None:
    """Look at a card's fee again later."""
    await connection.execute(_SQL["fee_later"], (at, card_id))


async def expire(connection: Connection, now: datetime, limit: int) -> int:
    """Note which cards' time is over; how many."""
    return (await connection.execute(_SQL["expire"], {"now": now, "limit": limit})).rowcount


async def to_settle(connection: Connection, now: datetime, limit: int) -> list[int]:
    """Ids of expired cards whose rest is to be looked at, and that have no call up."""
    rows = await (await connection.execute(_SQL["to_settle"], (now, limit))).fetchall()
    return [row["id"] for row in rows]


async def mark_settled(connection: Connection, card_id: int) -> None:
    """What was left on an expired card is where it belongs."""
    await connection.execute(_SQL["settled"], (card_id,))


async def settle_later(connection: Connection, card_id: int, at: datetime) -> None:
    """Look at an expired card's rest again later."""
    await connection.execute(_SQL["settle_later"], (at, card_id))
