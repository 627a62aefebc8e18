"""Wallets: create, fund, bound, park, and the statement of what happened on them.

Every change locks the wallet's row, so that it is decided on what stands there, and counts the
row's ``stamp`` up, so that the charging lane decides again what it decided on older figures.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal

from tollkeeper.core.bonus import Purse, free_own
from tollkeeper.core.ledger import LEGAL, Account, Code
from tollkeeper.core.money import ZERO, parse_currency, plain
from tollkeeper.core.records import Wallet
from tollkeeper.errors import Breach, Conflict, Forbidden, InvalidInput
from tollkeeper.services.fields import (
    REASON_MAX,
    check_amount,
    check_choice,
    check_moment,
    check_text,
)
from tollkeeper.services.overcommit import check_overcommit
from tollkeeper.services.postings import Posted, post, purse_of
from tollkeeper.services.scope import check_below, shown_actors, unknown_party
from tollkeeper.services.wallet_terms import change_terms, find_wallet, refuse_frozen
from tollkeeper.store import wallets as store
from tollkeeper.store.changes import record
from tollkeeper.store.db import Connection, Database
from tollkeeper.store.parties import lock_party, read_party
from tollkeeper.store.wallets import Entry, WalletRow

__all__ = [
    "KINDS",
    "Posted",
    "Statement",
    "change_credit_limit",
    "change_terms",
    "create_wallet",
    "create_wallet_within",
    "get_wallet",
    "get_wallets",
    "park",
    "statement",
    "top_up",
    "top_up_within",
    "unpark",
]

KINDS = ("topup", "withdrawal", "adjust_up", "adjust_down")
"""Entries that a person makes; all others are made by charging."""

STATEMENT_DAYS_MAX = 93
"""A quarter: a statement looks at one partition of the journal for each of its days."""

CONTRA_NAME = "manual"
"""Name of the clearing and adjustment accounts that entries made by people stand against."""


@dataclass(frozen=True, slots=True)
class Statement:
    """What happened on a wallet from ``begin`` (inclusive) to ``end`` (exclusive), both UTC.

    The balances are those of the whole period. ``entries`` is one page of it; ``cursor`` is the
    version to read on after, None on the last page.
    """

    party: str
    currency: str
    begin: datetime
    end: datetime
    opening_balance: Decimal
    closing_balance: Decimal
    entries: tuple[Entry, ...]
    cursor: int | None


# --- create and look -----------------------------------------------------------------------------


async def create_wallet(
    database: Database,
    *,
    party: str,
    currency: str,
    credit_limit: Decimal = ZERO,
    actor: str,
    scope: int | None = None,
) -> WalletRow:
    """Give a party an empty wallet; ``credit_limit`` is what is agreed, 0 for none.

    Raises:
        NotFound: no such party. Conflict: it has a wallet in this currency.
        InvalidInput: no currency code, or a limit out of bounds. Forbidden: the scope itself.
    """
    async with database.write(scope=scope) as connection:
        return await create_wallet_within(
            connection,
            party=party,
            currency=currency,
            credit_limit=credit_limit,
            actor=actor,
            scope=scope,
        )


async def create_wallet_within(
    connection: Connection,
    *,
    party: str,
    currency: str,
    credit_limit: Decimal = ZERO,
    actor: str,
    scope: int | None = None,
) -> WalletRow:
    """As :func:`create_wallet`, in the caller's transaction."""
    parse_currency(currency)
    check_amount(credit_limit, field="credit_limit", zero=True)
    await check_below(connection, scope, party)
    party_id = await lock_party(connection, party)
    if party_id is None:
        raise unknown_party(party)
    owner = await read_party(connection, party)
    if owner is not None and owner.kind == "user":
        raise InvalidInput(
            f"{party} is a user and spends the money of its customer: it has no wallet of its own",
            code="user_has_no_wallet",
            field="party",
        )
    account_id = await store.add_account(connection, Account.WALLET, currency, party)
    if account_id is None:
        raise Conflict(
            f"{party} has a wallet in {currency} already", code="wallet_exists", field="currency"
        )
    await store.add_wallet(
        connection,
        account_id=account_id,
        party_id=party_id,
        currency=currency,
        agreed_limit=credit_limit,
    )
    if credit_limit > ZERO:
        await check_overcommit(connection, party_id, currency)
    await record(
        connection,
        actor=actor,
        action="wallet.create",
        subject=f"wallet {party}/{currency}",
        detail={"credit_limit": plain(credit_limit)},
        notice=f"party:{party_id}",
    )
    return await _lock(connection, account_id)


async def get_wallets(
    database: Database, party: str, *, scope: int | None = None
) -> list[WalletRow]:
    """Return a party's wallets in the order of their currencies.

    Raises:
        NotFound: no such party.
    """
    async with database.read(scope=scope) as connection:
        found = await store.read_wallets(connection, party)
        if not found and await read_party(connection, party) is None:
            raise unknown_party(party)
        return found


async def get_wallet(database: Database, party: str, currency: str) -> WalletRow:
    """Return a party's wallet in a currency.

    Raises:
        NotFound: no such party, or it has no wallet in this currency.
    """
    async with database.read() as connection:
        return await find_wallet(connection, party, currency)


async def _lock(connection: Connection, wallet_id: int) -> WalletRow:
    wallet = await store.lock_wallet(connection, wallet_id)
    if wallet is None:
        raise Breach(f"wallet {wallet_id} has vanished")
    return wallet


# --- money by hand -------------------------------------------------------------------------------


async def top_up(
    database: Database,
    *,
    party: str,
    currency: str,
    amount: Decimal,
    reason: str,
    actor: str,
    clock: Callable[[], datetime],
    kind: str = "topup",
) -> Posted:
    """Post an entry made by a person: ``amount`` is positive, ``kind`` gives the direction.

    A withdrawal pays out the customer's own money that is not held, never credit; an adjustment
    downwards may use what is available.

    Raises:
        NotFound: no such party or wallet. InvalidInput: an amount, kind or reason out of bounds.
        Conflict: the money does not cover it, or the wallet is parked.
    """
    async with database.write() as connection:
        return await top_up_within(
            connection,
            party=party,
            currency=currency,
            amount=amount,
            reason=reason,
            actor=actor,
            clock=clock,
            kind=kind,
        )


async def top_up_within(
    connection: Connection,
    *,
    party: str,
    currency: str,
    amount: Decimal,
    reason: str,
    actor: str,
    clock: Callable[[], datetime],
    kind: str = "topup",
    scope: int | None = None,
) -> Posted:
    """As :func:`top_up`, in the caller's transaction.

    Raises:
        Forbidden: a ``scope`` is given: who works for a party moves money and makes none.
    """
    if scope is not None:
        raise Forbidden(
            f"money comes in through the operator only; to give {party} some of your own, make a transfer",
            code="use_transfer",
        )
    code = Code(check_choice(kind, KINDS, field="kind"))
    check_amount(amount)
    check_text(reason, field="reason", longest=REASON_MAX)
    found = await find_wallet(connection, party, currency)
    wallet = await _lock(connection, found.id)
    _check_covered(wallet, await purse_of(connection, wallet), code, amount)
    if code is Code.WITHDRAWAL:
        await refuse_frozen(connection, wallet.party_id, party)
    posted = await post(
        connection,
        wallet,
        code,
        amount,
        # Read under the lock: so the times of a wallet's entries follow their versions.
        at=clock(),
        actor=actor,
        reason=reason,
        contra=CONTRA_NAME,
    )
    if LEGAL[code][1] is Account.WALLET:
        await check_overcommit(connection, wallet.party_id, currency)
    await record(
        connection,
        actor=actor,
        action=f"wallet.{code}",
        subject=f"wallet {party}/{currency}",
        detail={"amount": plain(amount), "reason": reason, "entry": posted.entry.id},
        notice=f"party:{wallet.party_id}",
    )
    return posted


def _check_covered(wallet: Wallet, purse: Purse, code: Code, amount: Decimal) -> None:
    if LEGAL[code][1] is Account.WALLET:
        return
    if code is Code.WITHDRAWAL and wallet.parked:
        raise Conflict(
            "the wallet is parked until its books are checked; nothing is paid out",
            code="wallet_parked",
        )
    paid_out = code is Code.WITHDRAWAL
    own = free_own(purse, wallet.held) if paid_out else max(wallet.available, ZERO)
    if amount > own:
        bonus = f", {plain(purse.bonus)} is bonus" if paid_out and purse.bonus else ""
        raise Conflict(
            f"only {plain(own)} {wallet.currency} can be taken out; "
            f"{plain(wallet.held)} is held for live sessions{bonus}",
            code="insufficient_funds",
            field="amount",
        )


# --- terms ---------------------------------------------------------------------------------------


async def change_credit_limit(
    database: Database, *, party: str, currency: str, limit: Decimal, reason: str, actor: str
) -> WalletRow:
    """Set how far the balance of a postpaid party may go below zero: the agreed limit.

    Raises:
        NotFound: no such party or wallet. InvalidInput: a limit or reason out of bounds.
        Conflict: a lower limit would not cover what is used and held.
    """
    return await change_terms(
        database, party=party, currency=currency, reason=reason, actor=actor, credit_limit=limit
    )


async def park(
    database: Database, *, party: str, currency: str, reason: str, actor: str
) -> WalletRow:
    """Stop a wallet: no new session and no payment out of it until it is unparked.

    Raises:
        NotFound: no such party or wallet. InvalidInput: no reason.
    """
    return await change_terms(
        database, party=party, currency=currency, reason=reason, actor=actor, parked=True
    )


async def unpark(
    database: Database, *, party: str, currency: str, reason: str, actor: str
) -> WalletRow:
    """Let a parked wallet be used again.

    Raises:
        NotFound: no such party or wallet. InvalidInput: no reason.
    """
    return await change_terms(
        database, party=party, currency=currency, reason=reason, actor=actor, parked=False
    )


# --- statement -----------------------------------------------------------------------------------


async def statement(
    database: Database,
    *,
    party: str,
    currency: str,
    begin: datetime,
    end: datetime,
    after: int = 0,
    limit: int = 100,
    scope: int | None = None,
) -> Statement:
    """Return one page of what happened on a wallet, with the balances of the whole period.

    The entries of a period are those between the last one before ``begin`` and the last one before
    ``end``: so periods that follow each other neither miss nor repeat an entry, and opening balance
    + entries = closing balance.

    Raises:
        NotFound: no such party or wallet. InvalidInput: the period is backwards or too long.
    """
    begin, end = check_moment(begin, field="from"), check_moment(end, field="to")
    if begin > end:
        raise InvalidInput("from: it must not be after to", code="invalid_period", field="from")
    if end - begin > timedelta(days=STATEMENT_DAYS_MAX):
        raise InvalidInput(
            f"from: a statement covers {STATEMENT_DAYS_MAX} days at most; ask for shorter periods",
            code="invalid_period",
            field="from",
        )
    moment = timedelta(microseconds=1)
    # Servers' clocks differ a little: an entry may stand on the day beside the one expected.
    days = ((begin - timedelta(days=1)).date(), (end + timedelta(days=1)).date())
    async with database.read(scope=scope) as connection:
        wallet = await find_wallet(connection, party, currency)
        first, opening = await store.last_before(
            connection, wallet.id, day=(begin - moment).date(), at=begin
        )
        last, closing = await store.last_before(
            connection, wallet.id, day=(end - moment).date(), at=end
        )
        if last < first:
            last, closing = first, opening
        found = await store.read_entries(
            connection, wallet.id, days=days, after=max(after, first), upto=last, limit=limit + 1
        )
        if scope is not None:
            actors = await shown_actors(connection, [entry.actor for entry in found])
            found = [replace(entry, actor=actors[entry.actor]) for entry in found]
    page = tuple(found[:limit])
    return Statement(
        party=party,
        currency=currency,
        begin=begin,
        end=end,
        opening_balance=opening,
        closing_balance=closing,
        entries=page,
        cursor=page[-1].version if len(found) > limit else None,
    )
