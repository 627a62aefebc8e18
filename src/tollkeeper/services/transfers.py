"""Transfers of money within the tree: down, up, or between two parties below the same owner.

Both wallets are locked in the order of their ids, and both entries are made in one transaction. Only the
customer's own money moves: no credit, no bonus, nothing that live calls hold.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from tollkeeper.core.bonus import free_own
from tollkeeper.core.ledger import Code
from tollkeeper.core.money import plain
from tollkeeper.errors import Conflict, Forbidden, InvalidInput
from tollkeeper.services.fields import REASON_MAX, check_amount, check_text
from tollkeeper.services.overcommit import check_overcommit
from tollkeeper.services.postings import Posted, post, purse_of
from tollkeeper.services.scope import unknown_party
from tollkeeper.services.wallet_terms import find_wallet, refuse_frozen
from tollkeeper.store import terms as tree
from tollkeeper.store import wallets as wallet_store
from tollkeeper.store.changes import record
from tollkeeper.store.db import Connection, Database
from tollkeeper.store.terms import Seen
from tollkeeper.store.transfers import Transfer, add_transfer, read_transfers

CONTRA_NAME = "tree"
"""Name of the transfer accounts: what goes in comes out in the same moment, so they stand at 0."""


@dataclass(frozen=True, slots=True)
class Transferred:
    """A transfer with its two entries, and the wallets as they leave them."""

    transfer: Transfer
    taken: Posted
    given: Posted


async def transfer(
    database: Database,
    *,
    sender: str,
    receiver: str,
    currency: str,
    amount: Decimal,
    reason: str,
    actor: str,
    clock: Callable[[], datetime],
    scope: int | None = None,
) -> Transferred:
    """Move a party's own money to another party's wallet in the same currency.

    Who acts for a party (``scope``) moves its own money down or up, and the money of those below it
    among themselves or to itself; the operator moves any.

    Raises:
        NotFound: no such party or wallet, or it may not be known. Forbidden: not within the tree.
        InvalidInput: an amount or reason out of bounds, or both are the same party.
        Conflict: the own money does not cover it, or the sender's wallet is parked or frozen.
    """
    async with database.write() as connection:
        return await transfer_within(
            connection,
            sender=sender,
            receiver=receiver,
            currency=currency,
            amount=amount,
            reason=reason,
            actor=actor,
            clock=clock,
            scope=scope,
        )


async def transfer_within(
    connection: Connection,
    *,
    sender: str,
    receiver: str,
    currency: str,
    amount: Decimal,
    reason: str,
    actor: str,
    clock: Callable[[], datetime],
    scope: int | None = None,
) -> Transferred:
    """As :func:`transfer`, in the caller's transaction, which sees the whole tree."""
    check_amount(amount)
    check_text(reason, field="reason", longest=REASON_MAX)
    if sender == receiver:
        raise InvalidInput("to: sender and receiver are the same party", field="to")
    source, target = await _ends(connection, sender, receiver, scope)
    return await move(
        connection,
        source=source,
        target=target,
        currency=currency,
        amount=amount,
        reason=reason,
        actor=actor,
        clock=clock,
    )


async def _ends(
    connection: Connection, sender: str, receiver: str, scope: int | None
) -> tuple[Seen, Seen]:
    """Both parties, if whoever asks may move money between them."""
    source = await tree.find_seen(connection, sender, scope)
    if source is None:
        raise unknown_party(sender)
    target = await tree.find_seen(connection, receiver, scope)
    if target is not None:
        return source, target
    above = await tree.find_seen(connection, receiver, None)
    if above is None or above.id not in await tree.ancestors_of(connection, source.id):
        raise unknown_party(receiver)
    if source.id != scope:
        raise Forbidden(
            f"{sender}'s money is moved within its own tree only, not above whoever moves it",
            code="outside_tree",
        )
    return source, above


async def move(
    connection: Connection,
    *,
    source: Seen,
    target: Seen,
    currency: str,
    amount: Decimal,
    reason: str,
    actor: str,
    clock: Callable[[], datetime],
) -> Transferred:
    """Move own money between two parties that are known; who may do it is the caller's question.

    Raises:
        NotFound: one of them has no wallet in this currency. Conflict: as :func:`transfer`.
    """
    found = await find_wallet(connection, source.code, currency)
    other = await wallet_store.find_wallet(connection, target.code, currency)
    if other is None:
        raise Conflict(
            f"{target.code} has no wallet in {currency}, and money is transferred within one currency "
            "only; give it such a wallet first",
            code="other_currency",
            field="currency",
        )
    await refuse_frozen(connection, source.id, source.code)
    both = await wallet_store.lock_wallets(connection, [found.id, other.id])
    payer, payee = both[found.id], both[other.id]
    if payer.parked:
        raise Conflict(
            "the wallet is parked until its books are checked; nothing goes out",
            code="wallet_parked",
        )
    purse = await purse_of(connection, payer)
    free = free_own(purse, payer.held)
    if amount > free:
        bonus = f", {plain(purse.bonus)} is bonus" if purse.bonus else ""
        raise Conflict(
            f"only {plain(free)} {currency} of {source.code}'s own money can be moved; "
            f"{plain(payer.held)} is held for live sessions{bonus}",
            code="insufficient_funds",
            field="amount",
        )
    now = clock()  # read under the locks, as the wallets' entries follow their versions
    taken = await post(
        connection, payer, Code.TRANSFER_OUT, amount, at=now, actor=actor, reason=reason, contra=CONTRA_NAME
    )  # fmt: skip
    given = await post(
        connection, payee, Code.TRANSFER_IN, amount, at=now, actor=actor, reason=reason, contra=CONTRA_NAME
    )  # fmt: skip
    number = await add_transfer(
        connection, payer, payee, amount, at=now, actor=actor, reason=reason
    )
    if target.id not in await tree.ancestors_of(connection, source.id):
        await check_overcommit(connection, target.id, currency)
    made = Transfer(number, now, source.code, target.code, amount, currency, actor, reason)
    await _note(connection, made, source, taken)
    await _note(connection, made, target, given)
    return Transferred(made, taken, given)


async def _note(connection: Connection, made: Transfer, party: Seen, posted: Posted) -> None:
    await record(
        connection,
        actor=made.actor,
        action=f"wallet.{posted.entry.code}",
        subject=f"wallet {party.code}/{made.currency}",
        detail={
            "transfer": made.id,
            "from": made.from_party,
            "to": made.to_party,
            "amount": plain(made.amount),
            "entry": posted.entry.id,
            "reason": made.reason,
        },
        notice=f"party:{party.id}",
    )


async def list_transfers(
    database: Database,
    party: str,
    *,
    after: int = 0,
    limit: int = 100,
    scope: int | None = None,
) -> list[Transfer]:
    """Return the transfers from and to a party, in their order.

    Raises:
        NotFound: no such party.
    """
    async with database.read(scope=scope) as connection:
        seen = await tree.find_seen(connection, party, scope)
        if seen is None:
            raise unknown_party(party)
        return await read_transfers(connection, seen.id, after=after, limit=limit)
