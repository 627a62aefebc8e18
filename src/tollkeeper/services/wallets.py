"""Wallets: create, fund, bound, park, and the statement of what happened on them.

Every change locks the wallet's row, so that it is decided on what stands there, and counts the
row's ``stamp`` up, so that the charging lane decides again what it decided on older figures.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal

from tollkeeper.core.ledger import LEGAL, Account, Code, Posting, check_posting
from tollkeeper.core.money import ZERO, parse_currency, plain
from tollkeeper.core.records import Wallet
from tollkeeper.errors import Breach, Conflict, InvalidInput, NotFound
from tollkeeper.services.fields import (
    REASON_MAX,
    check_amount,
    check_choice,
    check_moment,
    check_text,
)
from tollkeeper.services.parties import unknown_party
from tollkeeper.store import wallets as store
from tollkeeper.store.changes import record
from tollkeeper.store.db import Connection, Database
from tollkeeper.store.parties import lock_party, read_party
from tollkeeper.store.wallets import Entry

KINDS = ("topup", "withdrawal", "adjust_up", "adjust_down")
"""Entries that a person makes; all others are made by charging."""

TURNOVER_MAX = Decimal(10) ** 19
"""What a wallet may be credited or debited in its life; the columns hold ten times as much."""

STATEMENT_DAYS_MAX = 93
"""A quarter: a statement looks at one partition of the journal for each of its days."""

CONTRA_NAME = "manual"
"""Name of the clearing and adjustment accounts that entries made by people stand against."""


@dataclass(frozen=True, slots=True)
class Posted:
    """A new entry, and the wallet as it leaves it."""

    entry: Entry
    wallet: Wallet


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
    database: Database, *, party: str, currency: str, credit_limit: Decimal = ZERO, actor: str
) -> Wallet:
    """Give a party an empty wallet; ``credit_limit`` 0 is prepaid.

    Raises:
        NotFound: no such party. Conflict: it has a wallet in this currency.
        InvalidInput: no currency code, or a limit out of bounds.
    """
    async with database.write() as connection:
        return await create_wallet_within(
            connection, party=party, currency=currency, credit_limit=credit_limit, actor=actor
        )


async def create_wallet_within(
    connection: Connection, *, party: str, currency: str, credit_limit: Decimal = ZERO, actor: str
) -> Wallet:
    """As :func:`create_wallet`, in the caller's transaction."""
    parse_currency(currency)
    check_amount(credit_limit, field="credit_limit", zero=True)
    party_id = await lock_party(connection, party)
    if party_id is None:
        raise unknown_party(party)
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
        credit_limit=credit_limit,
    )
    await record(
        connection,
        actor=actor,
        action="wallet.create",
        subject=f"wallet {party}/{currency}",
        detail={"credit_limit": plain(credit_limit)},
        notice=f"party:{party_id}",
    )
    return Wallet(account_id, party_id, currency, credit_limit=credit_limit)


async def get_wallets(database: Database, party: str) -> list[Wallet]:
    """Return a party's wallets in the order of their currencies.

    Raises:
        NotFound: no such party.
    """
    async with database.read() as connection:
        found = await store.read_wallets(connection, party)
        if not found and await read_party(connection, party) is None:
            raise unknown_party(party)
        return found


async def get_wallet(database: Database, party: str, currency: str) -> Wallet:
    """Return a party's wallet in a currency.

    Raises:
        NotFound: no such party, or it has no wallet in this currency.
    """
    async with database.read() as connection:
        return await _find(connection, party, currency)


async def _find(connection: Connection, party: str, currency: str) -> Wallet:
    wallet = await store.find_wallet(connection, party, currency)
    if wallet is not None:
        return wallet
    if await read_party(connection, party) is None:
        raise unknown_party(party)
    raise NotFound(f"{party} has no wallet in {currency}", code="unknown_wallet")


async def _lock(connection: Connection, wallet_id: int) -> Wallet:
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
) -> Posted:
    """As :func:`top_up`, in the caller's transaction."""
    code = Code(check_choice(kind, KINDS, field="kind"))
    check_amount(amount)
    check_text(reason, field="reason", longest=REASON_MAX)
    found = await _find(connection, party, currency)
    contra = await _contra(connection, code, currency)
    wallet = await _lock(connection, found.id)
    _check_covered(wallet, code, amount)
    check_posting(Posting(wallet.id, 0, code, amount))
    draft = Entry(
        id=0,
        # Read under the lock: so the times of a wallet's entries follow their versions.
        at=clock(),
        code=code,
        amount=amount,
        currency=currency,
        version=wallet.version + 1,
        balance_after=ZERO,
        session_id=None,
        actor=actor,
        reason=reason,
    )
    draft = replace(draft, balance_after=wallet.balance + draft.effect)
    debit, credit = (wallet.id, contra) if LEGAL[code][0] is Account.WALLET else (contra, wallet.id)
    number = await store.add_entry(
        connection, draft, wallet_id=wallet.id, debit=debit, credit=credit
    )
    await store.count_entry(connection, wallet.id, draft.effect)
    await record(
        connection,
        actor=actor,
        action=f"wallet.{code}",
        subject=f"wallet {party}/{currency}",
        detail={"amount": plain(amount), "reason": reason, "entry": number},
        notice=f"party:{wallet.party_id}",
    )
    return Posted(replace(draft, id=number), await _lock(connection, wallet.id))


def _check_covered(wallet: Wallet, code: Code, amount: Decimal) -> None:
    if LEGAL[code][1] is Account.WALLET:
        if wallet.credited + amount >= TURNOVER_MAX:
            raise Conflict("the wallet cannot hold that much", code="wallet_full", field="amount")
        return
    if code is Code.WITHDRAWAL and wallet.parked:
        raise Conflict(
            "the wallet is parked until its books are checked; nothing is paid out",
            code="wallet_parked",
        )
    own = wallet.available
    if code is Code.WITHDRAWAL:
        own -= wallet.credit_limit
    if amount > own:
        raise Conflict(
            f"only {plain(max(own, ZERO))} {wallet.currency} can be taken out; "
            f"{plain(wallet.held)} is held for live sessions",
            code="insufficient_funds",
            field="amount",
        )


async def _contra(connection: Connection, code: Code, currency: str) -> int:
    """The account on the other side, made where there is none, without locking one that is there."""
    debit, credit = LEGAL[code]
    kind = credit if debit is Account.WALLET else debit
    number = await store.find_account(connection, kind, currency, CONTRA_NAME)
    if number is None:
        number = await store.add_account(connection, kind, currency, CONTRA_NAME)
    if number is None:
        number = await store.find_account(connection, kind, currency, CONTRA_NAME)
    assert number is not None
    return number


# --- terms ---------------------------------------------------------------------------------------


async def change_credit_limit(
    database: Database, *, party: str, currency: str, limit: Decimal, reason: str, actor: str
) -> Wallet:
    """Set how far the balance may go below zero.

    Raises:
        NotFound: no such party or wallet. InvalidInput: a limit or reason out of bounds.
        Conflict: a lower limit would not cover what is used and held.
    """
    return await change_terms(
        database, party=party, currency=currency, reason=reason, actor=actor, credit_limit=limit
    )


async def park(database: Database, *, party: str, currency: str, reason: str, actor: str) -> Wallet:
    """Stop a wallet: no new session and no payment out of it until it is unparked.

    Raises:
        NotFound: no such party or wallet. InvalidInput: no reason.
    """
    return await change_terms(
        database, party=party, currency=currency, reason=reason, actor=actor, parked=True
    )


async def unpark(
    database: Database, *, party: str, currency: str, reason: str, actor: str
) -> Wallet:
    """Let a parked wallet be used again.

    Raises:
        NotFound: no such party or wallet. InvalidInput: no reason.
    """
    return await change_terms(
        database, party=party, currency=currency, reason=reason, actor=actor, parked=False
    )


async def change_terms(
    database: Database,
    *,
    party: str,
    currency: str,
    reason: str,
    actor: str,
    credit_limit: Decimal | None = None,
    parked: bool | None = None,
) -> Wallet:
    """Change credit limit, parking or both; None leaves it as it is.

    Raises:
        As :func:`change_credit_limit`.
    """
    check_text(reason, field="reason", longest=REASON_MAX)
    if credit_limit is not None:
        check_amount(credit_limit, field="credit_limit", zero=True)
    async with database.write() as connection:
        wallet = await _lock(connection, (await _find(connection, party, currency)).id)
        limit = wallet.credit_limit if credit_limit is None else credit_limit
        stop = wallet.parked if parked is None else parked
        left = wallet.available - wallet.credit_limit + limit
        if limit < wallet.credit_limit and left < ZERO:
            raise Conflict(
                f"{plain(limit)} {currency} would not cover what is used and held; "
                f"it takes {plain(limit - left)} at least",
                code="limit_in_use",
                field="credit_limit",
            )
        await store.set_terms(connection, wallet.id, credit_limit=limit, parked=stop)
        await record(
            connection,
            actor=actor,
            action="wallet.terms",
            subject=f"wallet {party}/{currency}",
            detail={
                "credit_limit": [plain(wallet.credit_limit), plain(limit)],
                "parked": [wallet.parked, stop],
                "reason": reason,
            },
            notice=f"party:{wallet.party_id}",
        )
        return await _lock(connection, wallet.id)


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
    async with database.read() as connection:
        wallet = await _find(connection, party, currency)
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
