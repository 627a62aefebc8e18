"""Redeeming vouchers: each once, never guessed.

Wrong guesses are counted for the party and for the API key. A reseller's vouchers are paid from the
reseller's wallet when they are redeemed. How they are made and stored: ``services.voucher_batches``.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal

from tollkeeper.core.ledger import Code
from tollkeeper.core.money import plain
from tollkeeper.core.vouchers import DIGITS, read_code
from tollkeeper.errors import Conflict, InvalidInput, NotFound, TollkeeperError
from tollkeeper.services.bonuses import grant_within
from tollkeeper.services.overcommit import check_overcommit
from tollkeeper.services.postings import post
from tollkeeper.services.scope import unknown_party
from tollkeeper.services.transfers import move
from tollkeeper.services.wallet_terms import find_wallet, lock
from tollkeeper.store import terms as tree
from tollkeeper.store import vouchers as store
from tollkeeper.store.changes import record
from tollkeeper.store.db import Connection, Database
from tollkeeper.store.terms import Seen
from tollkeeper.store.vouchers import Voucher
from tollkeeper.store.wallets import WalletRow

CONTRA_NAME = "voucher"
"""Name of the clearing account that redeemed vouchers stand against: they were paid for elsewhere."""

WRONG_MAX = 5
WINDOW = timedelta(minutes=15)
"""So many wrong codes within this time, and no more are taken for as long again."""


@dataclass(frozen=True, slots=True)
class Redeemed:
    """What a voucher brought. ``repeated``: this party had redeemed it before; nothing was done now."""

    batch: str
    kind: str
    amount: Decimal
    currency: str
    redeemed_at: datetime
    wallet: WalletRow
    repeated: bool = False


# --- codes ---------------------------------------------------------------------------------------


def read_typed(code: str) -> str:
    """Return a code as it was typed, without blanks and hyphens.

    Raises:
        InvalidInput: no such code can exist.
    """
    typed = read_code(code)
    if typed is None:
        raise InvalidInput(
            f"code: a voucher code has {DIGITS} digits; a digit of this one is wrong or missing",
            code="invalid_voucher_code",
            field="code",
        )
    return typed


def hash_of(secret: bytes, code: str) -> bytes:
    """Return what is stored of a code: its HMAC-SHA256 under the installation's secret."""
    return hmac.new(secret, code.encode(), hashlib.sha256).digest()


# --- redeem --------------------------------------------------------------------------------------


async def redeem(
    database: Database,
    *,
    party: str,
    code: str,
    actor: str,
    clock: Callable[[], datetime],
    key_id: int | None = None,
    scope: int | None = None,
) -> Redeemed:
    """Put a voucher's value into the party's wallet, exactly once whoever else tries at this moment.

    The same party may ask again and is told what its voucher brought. A wrong code counts for the
    party and for the key; it is written down before the error is raised.

    Raises:
        InvalidInput: no such code can exist. NotFound: no such party, wallet or voucher.
        Conflict: redeemed by another, blocked, out of its time, too many wrong codes, or the
            reseller's money does not cover it.
    """
    typed = read_typed(code)
    async with database.write() as connection:
        seen = await tree.find_seen(connection, party, scope)
        if seen is None:
            raise unknown_party(party)
        subjects = [f"party:{seen.id}", *([f"key:{key_id}"] if key_id is not None else [])]
        found = await _find(connection, typed, seen, subjects, clock)
        if isinstance(found, Voucher):
            return await _use(connection, found, seen, actor=actor, clock=clock)
    # Outside of the transaction, which has written the wrong guess down.
    raise found


async def _find(
    connection: Connection,
    code: str,
    party: Seen,
    subjects: Sequence[str],
    clock: Callable[[], datetime],
) -> Voucher | TollkeeperError:
    """The voucher of a code, locked; or what is wrong, to be raised after what was noted is kept."""
    await store.take_turn(connection, subjects)
    now = clock()
    for tried in await store.read_attempts(connection, subjects, now=now, window=WINDOW):
        if tried.wrong >= WRONG_MAX and tried.at + WINDOW > now:
            return Conflict(
                f"{WRONG_MAX} wrong voucher codes were given; try again after "
                f"{tried.at + WINDOW:%H:%M:%S} UTC",
                code="too_many_attempts",
            )
    secret = await store.read_secret(connection)
    voucher = await store.lock_voucher(connection, hash_of(secret, code))
    # A reseller's voucher is good for those below it; to others it does not exist.
    if (
        voucher is not None
        and voucher.owner_id is not None
        and voucher.owner_id not in await tree.ancestors_of(connection, party.id)
    ):
        voucher = None
    if voucher is None:
        await store.add_attempts(connection, subjects, now)
        return NotFound("there is no such voucher", code="unknown_voucher", field="code")
    return voucher


async def _use(
    connection: Connection,
    voucher: Voucher,
    party: Seen,
    *,
    actor: str,
    clock: Callable[[], datetime],
) -> Redeemed:
    if voucher.status == "redeemed" and voucher.redeemed_by == party.id:
        wallet = await find_wallet(connection, party.code, voucher.currency)
        return _redeemed(voucher, wallet, voucher.redeemed_at or clock(), repeated=True)
    _check_usable(voucher, clock())
    wallet = await find_wallet(connection, party.code, voucher.currency)
    reason = f"voucher {voucher.id} of batch {voucher.batch}"
    try:
        after = await _pay(
            connection, voucher, party, wallet, reason=reason, actor=actor, clock=clock
        )
    except Conflict as error:
        # Whoever redeems learns nothing of the money above.
        raise Conflict(
            "this voucher cannot be paid at the moment; ask whoever sold it",
            code="voucher_not_covered",
            field="code",
        ) from error
    now = clock()
    await store.mark_redeemed(
        connection, voucher.id, party_id=party.id, wallet_id=wallet.id, at=now
    )
    await record(
        connection,
        actor=actor,
        action="voucher.redeem",
        subject=f"voucher {voucher.id}",
        detail={
            "batch": voucher.batch,
            "party": party.code,
            "amount": plain(voucher.amount),
            "currency": voucher.currency,
        },
        notice=f"party:{party.id}",
    )
    return _redeemed(voucher, after, now)


def _redeemed(
    voucher: Voucher, wallet: WalletRow, at: datetime, *, repeated: bool = False
) -> Redeemed:
    return Redeemed(
        voucher.batch, voucher.kind, voucher.amount, voucher.currency, at, wallet, repeated
    )


def _check_usable(voucher: Voucher, now: datetime) -> None:
    if voucher.status == "redeemed":
        raise Conflict("this voucher has been redeemed already", code="voucher_used", field="code")
    if "blocked" in (voucher.status, voucher.batch_status):
        raise Conflict("this voucher is blocked", code="voucher_blocked", field="code")
    if now < voucher.valid_from:
        raise Conflict(
            f"this voucher is good from {voucher.valid_from:%Y-%m-%d %H:%M} UTC on",
            code="voucher_not_yet_valid",
            field="code",
        )
    if now >= voucher.valid_to:
        raise Conflict(
            f"this voucher was good until {voucher.valid_to:%Y-%m-%d %H:%M} UTC",
            code="voucher_expired",
            field="code",
        )


async def _pay(
    connection: Connection,
    voucher: Voucher,
    party: Seen,
    wallet: WalletRow,
    *,
    reason: str,
    actor: str,
    clock: Callable[[], datetime],
) -> WalletRow:
    """Put the value into the wallet, from where it comes; return the wallet after it."""
    if voucher.owner_id is not None:
        owner = await tree.read_seen(connection, voucher.owner_id)
        if owner is None:
            raise unknown_party(voucher.owner or "")
        moved = await move(
            connection,
            source=owner,
            target=party,
            currency=voucher.currency,
            amount=voucher.amount,
            reason=reason,
            actor=actor,
            clock=clock,
        )
        return moved.given.wallet
    if voucher.kind == "bonus":
        granted = await grant_within(
            connection,
            party=party.code,
            currency=voucher.currency,
            amount=voucher.amount,
            expires_at=clock() + timedelta(days=voucher.bonus_days or 0),
            reason=reason,
            actor=actor,
            clock=clock,
            order=voucher.bonus_order,
        )
        return granted.wallet
    posted = await post(
        connection,
        await lock(connection, wallet.id),
        Code.VOUCHER,
        voucher.amount,
        at=clock(),
        actor=actor,
        reason=reason,
        contra=CONTRA_NAME,
    )
    await check_overcommit(connection, party.id, voucher.currency)
    return posted.wallet


async def forget_guesses(database: Database, now: datetime) -> None:
    """Delete wrong guesses that do not lock anybody any more."""
    async with database.write() as connection:
        await store.purge_attempts(connection, now - 2 * WINDOW)
