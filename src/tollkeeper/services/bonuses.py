"""Bonus credit: money that the operator gives until a date, in lots with an order of use.

A lot is part of the wallet's balance; calls spend it like any money. Which part of the balance is still
bonus follows from what the wallet has debited since (``core.bonus``). It cannot be paid out or
transferred, and what is left at its end is taken back, but never what live calls hold.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal

from tollkeeper.core.bonus import UseOrder, to_take_back
from tollkeeper.core.ledger import Code
from tollkeeper.core.money import ZERO, plain
from tollkeeper.errors import InvalidInput
from tollkeeper.services.fields import (
    REASON_MAX,
    check_amount,
    check_choice,
    check_moment,
    check_text,
)
from tollkeeper.services.overcommit import check_overcommit
from tollkeeper.services.postings import post, purse_of, settle
from tollkeeper.services.wallet_terms import find_wallet, lock
from tollkeeper.store import bonus as store
from tollkeeper.store.bonus import BonusRow, NewLot
from tollkeeper.store.changes import record
from tollkeeper.store.db import Connection, Database
from tollkeeper.store.wallets import WalletRow

ORDERS = tuple(order.value for order in UseOrder)
CONTRA_NAME = "bonus"
"""Name of the promotion account that bonus is given from and taken back to."""

LOOK_AGAIN = timedelta(seconds=10)
"""How often a lot is looked at again of which live calls still held something at its end."""

JOB = "bonus"


@dataclass(frozen=True, slots=True)
class Bonus:
    """A lot and what is left of it now; ``left`` of a closed one is 0."""

    row: BonusRow
    left: Decimal


@dataclass(frozen=True, slots=True)
class Granted:
    """A new lot, and the wallet as it leaves it."""

    bonus: Bonus
    wallet: WalletRow


async def grant(
    database: Database,
    *,
    party: str,
    currency: str,
    amount: Decimal,
    expires_at: datetime,
    reason: str,
    actor: str,
    clock: Callable[[], datetime],
    order: str = UseOrder.BONUS_FIRST.value,
) -> Granted:
    """Give a party bonus credit until ``expires_at`` (UTC), used before or after its own money.

    Raises:
        NotFound: no such party or wallet. InvalidInput: an amount, date, order or reason out of bounds.
        Conflict: the wallet cannot hold that much, or its reseller's children have too much by it.
    """
    async with database.write() as connection:
        return await grant_within(
            connection,
            party=party,
            currency=currency,
            amount=amount,
            expires_at=expires_at,
            reason=reason,
            actor=actor,
            clock=clock,
            order=order,
        )


async def grant_within(
    connection: Connection,
    *,
    party: str,
    currency: str,
    amount: Decimal,
    expires_at: datetime,
    reason: str,
    actor: str,
    clock: Callable[[], datetime],
    order: str = UseOrder.BONUS_FIRST.value,
) -> Granted:
    """As :func:`grant`, in the caller's transaction."""
    check_amount(amount)
    check_choice(order, ORDERS, field="order")
    check_text(reason, field="reason", longest=REASON_MAX)
    expires_at = check_moment(expires_at, field="expires_at")
    wallet = await lock(connection, (await find_wallet(connection, party, currency)).id)
    now = clock()
    if expires_at <= now:
        raise InvalidInput("expires_at: it must be later than now", field="expires_at")
    posted = await post(
        connection,
        wallet,
        Code.BONUS,
        amount,
        at=now,
        actor=actor,
        reason=reason,
        contra=CONTRA_NAME,
    )
    lot = NewLot(wallet.id, amount, UseOrder(order), now, expires_at, actor, reason)
    number = await store.add_lot(connection, lot)
    await check_overcommit(connection, wallet.party_id, currency)
    await record(
        connection,
        actor=actor,
        action="wallet.bonus",
        subject=f"wallet {party}/{currency}",
        detail={
            "bonus": number,
            "amount": plain(amount),
            "expires_at": expires_at.isoformat(),
            "order": order,
            "entry": posted.entry.id,
            "reason": reason,
        },
        notice=f"party:{wallet.party_id}",
    )
    rows = await store.open_lots(connection, wallet.id)
    row = next(row for row in rows if row.id == number)
    return Granted(Bonus(row, row.left_over), posted.wallet)


async def list_bonuses(
    database: Database,
    *,
    party: str,
    currency: str,
    after: int = 0,
    limit: int = 100,
    scope: int | None = None,
) -> list[Bonus]:
    """Return a wallet's lots in the order in which they were granted, with what is left of each now.

    Raises:
        NotFound: no such party or wallet.
    """
    async with database.read(scope=scope) as connection:
        wallet = await find_wallet(connection, party, currency)
        purse = await purse_of(connection, wallet)
        rows = await store.read_lots(connection, wallet.id, after=after, limit=limit)
    left = {lot.id: lot.left for lot in purse.lots}
    return [Bonus(row, left.get(row.id, ZERO)) for row in rows]


async def expire_due(database: Database, now: datetime, most: int) -> int:
    """Take back what is left of lots whose time is over; returns how many were looked at.

    What calls hold that were up already at that moment stays, and is looked at again later. Any number
    of processes may do this at once: the wallet's lock lets each lot be taken back once.
    """
    async with database.read() as connection:
        due = await store.to_look_at(connection, now, most)
    for lot_id, wallet_id in due:
        async with database.write() as connection:
            await _expire(connection, lot_id, wallet_id, now)
    return len(due)


async def _expire(connection: Connection, lot_id: int, wallet_id: int, now: datetime) -> None:
    wallet = await lock(connection, wallet_id)
    rows = await store.open_lots(connection, wallet_id)
    row = next((row for row in rows if row.id == lot_id), None)
    if row is None:
        return  # another process was first
    purse = await settle(connection, wallet)
    held = ZERO
    if wallet.held:
        held = await store.held_since_before(connection, wallet_id, row.expires_at)
    left = next(lot.left for lot in purse.lots if lot.id == lot_id)
    # Never so that live calls are not covered any more, whatever else was taken from the wallet.
    taken = min(to_take_back(purse, lot_id, min(held, wallet.held)), max(wallet.available, ZERO))
    if taken > ZERO:
        why = f"bonus of {plain(row.amount)} {wallet.currency} has expired"
        posted = await post(
            connection,
            wallet,
            Code.BONUS_EXPIRED,
            taken,
            at=now,
            actor=JOB,
            reason=why,
            contra=CONTRA_NAME,
        )
        await store.write_left(connection, lot_id, left - taken)
        await record(
            connection,
            actor=JOB,
            action="wallet.bonus_expired",
            subject=f"wallet {wallet_id}",
            detail={"bonus": lot_id, "amount": plain(taken), "entry": posted.entry.id},
            notice=f"party:{wallet.party_id}",
        )
    if left == taken:
        await store.close_lot(connection, lot_id, now)
    else:
        await store.look_later(connection, lot_id, now + LOOK_AGAIN)
