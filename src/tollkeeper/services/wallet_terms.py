"""A wallet's terms: agreed and temporary limit, caps, alerts, parking; all of it with calls up.

The limit that calls see follows from the terms and from the party's billing. Nobody agrees to a limit
that is lower than what is used; but a switch to prepaid and the end of a temporary limit take effect
even so: then less than nothing is available, new calls are refused, and calls that are up end with
what they were granted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum
from typing import Final

from msgspec.structs import replace

from tollkeeper.core.money import ZERO, plain
from tollkeeper.errors import Breach, Conflict, InvalidInput, NotFound
from tollkeeper.services.fields import REASON_MAX, check_amount, check_moment, check_text
from tollkeeper.services.overcommit import check_overcommit
from tollkeeper.services.scope import check_below, unknown_party
from tollkeeper.store import terms as terms_store
from tollkeeper.store import wallets as store
from tollkeeper.store.changes import record
from tollkeeper.store.db import Connection, Database
from tollkeeper.store.parties import lock_party
from tollkeeper.store.wallets import WalletRow

ALERTS_MAX = 10
PERCENT_MAX = 100
JOB = "limits"
"""Under this name the audit trail knows the job that takes temporary limits back."""


class Unset(Enum):
    """What is left as it is, where None means none."""

    TOKEN = 0


UNSET: Final = Unset.TOKEN


@dataclass(frozen=True, slots=True)
class Temporary:
    """More limit for a while: ``amount`` beside what is agreed, until ``until`` (UTC)."""

    amount: Decimal
    until: datetime


async def find_wallet(connection: Connection, party: str, currency: str) -> WalletRow:
    """Return a party's wallet in a currency, without a lock.

    Raises:
        NotFound: no such party, or it has no wallet in this currency.
    """
    wallet = await store.find_wallet(connection, party, currency)
    if wallet is not None:
        return wallet
    if await terms_store.party_status(connection, party) is None:
        raise unknown_party(party)
    raise NotFound(f"{party} has no wallet in {currency}", code="unknown_wallet")


async def refuse_frozen(connection: Connection, party_id: int, party: str) -> None:
    """Let nothing out of the money of a frozen party, nor of one below it.

    Raises:
        Conflict: it is frozen.
    """
    frozen = await terms_store.frozen_above(connection, party_id)
    if frozen is not None:
        raise Conflict(
            f"{party} is frozen: money can come in, and nothing goes out", code="party_frozen"
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
    temporary: Temporary | Unset | None = UNSET,
    daily_cap: Decimal | Unset | None = UNSET,
    monthly_cap: Decimal | Unset | None = UNSET,
    alert_at: Sequence[int] | None = None,
    now: datetime | None = None,
    scope: int | None = None,
) -> WalletRow:
    """Change a wallet's terms; what is not given stays as it is.

    ``credit_limit`` is the agreed one. ``temporary`` None ends a temporary limit at once. ``now`` is
    what the end of a temporary limit must come after, and where the running periods of caps are.

    Raises:
        NotFound: no such party or wallet. InvalidInput: a limit, cap, percent, time or reason out of
            bounds. Conflict: a lower agreed limit would not cover what is used and held.
        Forbidden: the scope is this party itself.
    """
    check_text(reason, field="reason", longest=REASON_MAX)
    new: dict[str, object] = {}
    if credit_limit is not None:
        new["agreed_limit"] = check_amount(credit_limit, field="credit_limit", zero=True)
    if parked is not None:
        new["parked"] = parked
    if temporary is not UNSET:
        new |= _temporary(temporary, now)
    for name, cap in (("daily_cap", daily_cap), ("monthly_cap", monthly_cap)):
        if cap is not UNSET:
            new[name] = None if cap is None else check_amount(cap, field=name, zero=True)
    if alert_at is not None:
        new["alert_at"] = check_alerts(alert_at)
    async with database.write(scope=scope) as connection:
        await check_below(connection, scope, party)
        # The party first: its billing decides what the limit is, and must not change meanwhile.
        await lock_party(connection, party)
        before = await lock(connection, (await find_wallet(connection, party, currency)).id)
        after = replace(before, **new)
        await store.set_terms(connection, after)
        after = await lock(connection, before.id)
        if after.agreed_limit < before.agreed_limit:
            _check_in_use(before, after)
        if after.credit_limit > before.credit_limit:
            await check_overcommit(connection, after.party_id, currency)
        await terms_store.set_caps(connection, after, now or datetime.now(UTC))
        await _note(connection, before, after, party=party, reason=reason, actor=actor)
        return after


def check_alerts(percents: Sequence[int]) -> tuple[int, ...]:
    """Return the percents in their order, each once.

    Raises:
        InvalidInput: too many, or one that is not from 1 to 100.
    """
    if len(percents) > ALERTS_MAX or not all(1 <= one <= PERCENT_MAX for one in percents):
        raise InvalidInput(
            f"alert_at: give at most {ALERTS_MAX} percents from 1 to {PERCENT_MAX}",
            field="alert_at",
        )
    return tuple(sorted(set(percents)))


def _temporary(temporary: Temporary | None, now: datetime | None) -> dict[str, object]:
    if temporary is None:
        return {"temp_limit": ZERO, "temp_until": None}
    amount = check_amount(temporary.amount, field="temporary_limit.amount")
    until = check_moment(temporary.until, field="temporary_limit.until")
    if now is not None and until <= now:
        raise InvalidInput(
            "temporary_limit.until: it must be later than now", field="temporary_limit.until"
        )
    return {"temp_limit": amount, "temp_until": until}


def _check_in_use(before: WalletRow, after: WalletRow) -> None:
    if after.available < ZERO and after.credit_limit < before.credit_limit:
        least = after.agreed_limit - after.available
        raise Conflict(
            f"{plain(after.agreed_limit)} {after.currency} would not cover what is used and held; "
            f"it takes {plain(least)} at least",
            code="limit_in_use",
            field="credit_limit",
        )


async def lock(connection: Connection, wallet_id: int) -> WalletRow:
    """Lock a wallet that is there, and return what stands in it now."""
    wallet = await store.lock_wallet(connection, wallet_id)
    if wallet is None:
        raise Breach(f"wallet {wallet_id} has vanished")
    return wallet


async def _note(
    connection: Connection,
    before: WalletRow,
    after: WalletRow,
    *,
    party: str,
    reason: str,
    actor: str,
) -> None:
    names = ("agreed_limit", "temp_limit", "temp_until", "daily_cap", "monthly_cap", "alert_at")
    detail: dict[str, object] = {
        "credit_limit": [plain(before.credit_limit), plain(after.credit_limit)],
        "parked": [before.parked, after.parked],
        "reason": reason,
    }
    for name in names:
        old, new = getattr(before, name), getattr(after, name)
        if old != new:
            detail[name] = [_shown(old), _shown(new)]
    await record(
        connection,
        actor=actor,
        action="wallet.terms",
        subject=f"wallet {party}/{after.currency}",
        detail=detail,
        notice=f"party:{after.party_id}",
    )


def _shown(value: object) -> object:
    if isinstance(value, Decimal):
        return plain(value)
    if isinstance(value, datetime):
        return value.isoformat()
    return list(value) if isinstance(value, tuple) else value


# --- billing -------------------------------------------------------------------------------------


async def follow_billing(connection: Connection, party_id: int) -> None:
    """Make the limits of a party's wallets what its billing says; the party is locked by the caller.

    A switch to prepaid is allowed with less money than what is used: then nothing is available.
    """
    ids = await store.wallets_of(connection, party_id)
    before = await store.lock_wallets(connection, ids)
    await store.follow_terms(connection, ids)
    for wallet in (await store.lock_wallets(connection, ids)).values():
        if wallet.credit_limit > before[wallet.id].credit_limit:
            await check_overcommit(connection, party_id, wallet.currency)


# --- the end of a temporary limit ----------------------------------------------------------------


async def end_temporary(database: Database, now: datetime, most: int) -> int:
    """Take back temporary limits whose time is over; returns how many were looked at.

    Any number of processes may do this at once: each limit is taken back, and noted, once.
    """
    async with database.read() as connection:
        over = await store.temporary_over(connection, now, most)
    for wallet_id, party, currency in over:
        async with database.write() as connection:
            await lock_party(connection, party)
            before = await lock(connection, wallet_id)
            if before.temp_until is None or before.temp_until > now:
                continue  # another process was first, or it was made longer
            after = replace(before, temp_limit=ZERO, temp_until=None)
            await store.set_terms(connection, after)
            after = await lock(connection, wallet_id)
            why = f"the temporary limit of {plain(before.temp_limit)} {currency} has ended"
            await _note(connection, before, after, party=party, reason=why, actor=JOB)
    return len(over)
