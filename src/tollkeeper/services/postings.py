"""Entries that are not made by charging: one way to post them, whoever asks.

The wallet is locked by the caller. What calls have used of its bonus is settled first, so that the
entry itself never counts as use.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal

from tollkeeper.core.bonus import Purse, divide
from tollkeeper.core.ledger import LEGAL, Account, Code, Posting, check_posting, other_side
from tollkeeper.core.money import ZERO
from tollkeeper.core.records import Wallet
from tollkeeper.errors import Breach, Conflict
from tollkeeper.store import bonus as lots
from tollkeeper.store import wallets as store
from tollkeeper.store.db import Connection
from tollkeeper.store.feed import tell_payment
from tollkeeper.store.wallets import Entry, WalletRow

PAYMENTS = frozenset(
    (Code.TOPUP, Code.ADJUST_UP, Code.VOUCHER, Code.BONUS, Code.TRANSFER_IN, Code.COMMISSION)
)
"""Whoever listens is told that there is more money now."""

TURNOVER_MAX = Decimal(10) ** 19
"""What a wallet may be credited or debited in its life; the columns hold ten times as much."""


@dataclass(frozen=True, slots=True)
class Posted:
    """A new entry, and the wallet as it leaves it."""

    entry: Entry
    wallet: WalletRow


async def post(
    connection: Connection,
    wallet: Wallet,
    code: Code,
    amount: Decimal,
    *,
    at: datetime,
    actor: str,
    reason: str,
    contra: str,
) -> Posted:
    """Post one entry on a locked wallet against the account of this name; checks no cover.

    Raises:
        Breach: the amount is not legal. Conflict: the wallet would grow beyond its columns.
    """
    check_posting(Posting(wallet.id, 0, code, amount))
    up = LEGAL[code][1] is Account.WALLET
    if up and wallet.credited + amount >= TURNOVER_MAX:
        raise Conflict("the wallet cannot hold that much", code="wallet_full", field="amount")
    purse = await settle(connection, wallet)
    other = await _account(connection, other_side(code), wallet.currency, contra)
    draft = Entry(
        id=0,
        at=at,
        code=code,
        amount=amount,
        currency=wallet.currency,
        version=wallet.version + 1,
        balance_after=ZERO,
        session_id=None,
        actor=actor,
        reason=reason,
    )
    draft = replace(draft, balance_after=wallet.balance + draft.effect)
    debit, credit = (other, wallet.id) if up else (wallet.id, other)
    number = await store.add_entry(
        connection, draft, wallet_id=wallet.id, debit=debit, credit=credit
    )
    await store.count_entry(connection, wallet.id, draft.effect)
    if purse.lots:
        await lots.mark_seen(connection, wallet.id)
    if code in PAYMENTS:
        await tell_payment(connection, wallet.id, at, code, amount, draft.balance_after)
    after = await store.lock_wallet(connection, wallet.id)
    if after is None:
        raise Breach(f"wallet {wallet.id} has vanished")
    return Posted(replace(draft, id=number), after)


async def purse_of(connection: Connection, wallet: Wallet) -> Purse:
    """How a wallet's balance divides into the customer's own money and what is left of bonus."""
    rows = await lots.open_lots(connection, wallet.id)
    if not rows:
        return Purse(wallet.balance)
    # All open lots of a wallet were settled together, so that one of them speaks for all.
    back = await lots.given_back(connection, wallet.id, rows[0].seen_version)
    used = wallet.debited - rows[0].seen_debited - back
    return divide(wallet.balance, [row.lot() for row in rows], used)


async def settle(connection: Connection, wallet: Wallet) -> Purse:
    """As :func:`purse_of` of a locked wallet, and write down what is left of each lot."""
    purse = await purse_of(connection, wallet)
    for lot in purse.lots:
        await lots.write_left(connection, lot.id, lot.left)
    if purse.lots:
        await lots.mark_seen(connection, wallet.id)
    return purse


async def _account(connection: Connection, kind: Account, currency: str, name: str) -> int:
    """The account on the other side, made where there is none, without locking one that is there."""
    number = await store.find_account(connection, kind, currency, name)
    if number is None:
        number = await store.add_account(connection, kind, currency, name)
    if number is None:
        number = await store.find_account(connection, kind, currency, name)
    if number is None:
        raise Breach(f"there is no account {kind}:{name} in {currency}")
    return number
