"""Batches of vouchers: made and exported once, blocked, looked at.

A code is sixteen digits and is nowhere stored: only its HMAC under one secret of the installation, which
no report and no party's query reaches. One secret for all, so that a code is found by one look into an
index.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from tollkeeper.core.bonus import UseOrder
from tollkeeper.core.money import parse_currency, plain
from tollkeeper.core.vouchers import DIGITS, make_code
from tollkeeper.errors import Conflict, InvalidInput, NotFound
from tollkeeper.services.bonuses import ORDERS
from tollkeeper.services.fields import (
    check_amount,
    check_choice,
    check_code,
    check_integer,
    check_moment,
)
from tollkeeper.services.scope import operator_only, unknown_party
from tollkeeper.services.vouchers import hash_of, read_typed
from tollkeeper.services.wallet_terms import find_wallet
from tollkeeper.store import terms as tree
from tollkeeper.store import vouchers as store
from tollkeeper.store.changes import record
from tollkeeper.store.db import Connection, Database
from tollkeeper.store.terms import Seen
from tollkeeper.store.vouchers import Batch, NewBatch

KINDS = ("money", "bonus")
COUNT_MAX = 100_000
BONUS_DAYS_MAX = 3650


@dataclass(frozen=True, slots=True)
class Order:
    """What a batch shall be. ``bonus_days`` is how long a voucher's bonus lasts from redeeming on."""

    code: str
    count: int
    amount: Decimal
    currency: str
    valid_to: datetime
    valid_from: datetime | None = None
    kind: str = "money"
    bonus_days: int | None = None
    bonus_order: str = UseOrder.BONUS_FIRST.value
    owner: str | None = None


@dataclass(frozen=True, slots=True)
class Made:
    """A new batch and its codes, which are shown this once."""

    batch: Batch
    codes: tuple[str, ...]


# --- make ----------------------------------------------------------------------------------------


async def make_batch(
    database: Database,
    order: Order,
    *,
    actor: str,
    clock: Callable[[], datetime],
    scope: int | None = None,
) -> Made:
    """Make a batch of vouchers. Its codes cannot be had again: whoever loses them blocks the batch.

    Who acts for a reseller makes the reseller's; the operator makes its own, or those of a reseller.

    Raises:
        InvalidInput: a field out of bounds. NotFound: no such owner. Conflict: the code is taken.
        Forbidden: bonus, which only the operator gives, or an owner that is no reseller.
    """
    now = clock()
    new = _check(order, now, actor)
    async with database.write() as connection:
        owner = await _owner(connection, order.owner, scope)
        if owner is not None:
            if order.kind == "bonus":
                raise operator_only("bonus credit is given")
            await find_wallet(connection, owner.code, order.currency)
            new = _owned(new, owner.id)
        batch_id = await store.add_batch(connection, new)
        if batch_id is None:
            raise Conflict(f'the code "{order.code}" is taken', code="batch_exists", field="code")
        codes = await _draw(connection, batch_id, order.count)
        await record(
            connection,
            actor=actor,
            action="voucher.make",
            subject=f"voucher batch {order.code}",
            detail={
                "count": order.count,
                "amount": plain(order.amount),
                "currency": order.currency,
                "kind": order.kind,
                "owner": owner.code if owner is not None else None,
                "valid_to": new.valid_to.isoformat(),
            },
            notice="voucher",
        )
        (batch,) = await store.read_batches(connection, code=order.code)
    return Made(batch, tuple(codes))


def _check(order: Order, now: datetime, actor: str) -> NewBatch:
    check_code(order.code)
    check_integer(order.count, field="count", least=1, most=COUNT_MAX)
    check_amount(order.amount)
    parse_currency(order.currency)
    check_choice(order.kind, KINDS, field="kind")
    check_choice(order.bonus_order, ORDERS, field="bonus_order")
    begin = now if order.valid_from is None else check_moment(order.valid_from, field="valid_from")
    end = check_moment(order.valid_to, field="valid_to")
    if end <= max(begin, now):
        raise InvalidInput(
            "valid_to: it must be later than now and than valid_from", field="valid_to"
        )
    if (order.kind == "bonus") != (order.bonus_days is not None):
        raise InvalidInput(
            "bonus_days: say how long the bonus lasts, for vouchers of bonus and for no others",
            field="bonus_days",
        )
    check_integer(order.bonus_days, field="bonus_days", least=1, most=BONUS_DAYS_MAX)
    return NewBatch(
        order.code, None, order.kind, order.amount, order.currency, begin, end, order.bonus_days,
        order.bonus_order, now, actor,
    )  # fmt: skip


def _owned(batch: NewBatch, owner: int) -> NewBatch:
    values = {name: getattr(batch, name) for name in NewBatch.__slots__}
    return NewBatch(**{**values, "owner": owner})


async def _owner(connection: Connection, code: str | None, scope: int | None) -> Seen | None:
    """The reseller that pays a batch; None is the operator."""
    if code is None and scope is None:
        return None
    owner = (
        await tree.find_seen(connection, code, scope)
        if code is not None
        else await tree.read_seen(connection, scope or 0)
    )
    if owner is None:
        raise unknown_party(code or "")
    if owner.kind == "operator":
        return None
    if owner.kind != "reseller":
        raise InvalidInput(
            f"owner: only resellers have vouchers of their own, and {owner.code} is a {owner.kind}",
            field="owner",
        )
    return owner


async def _draw(connection: Connection, batch_id: int, count: int) -> list[str]:
    secret = await store.read_secret(connection)
    codes: list[str] = []
    while len(codes) < count:
        # By their hashes, so that the few codes that exist already are found and drawn again.
        drawn = {
            hash_of(secret, code): code
            for code in (
                make_code(secrets.randbelow(10 ** (DIGITS - 1))) for _ in range(count - len(codes))
            )
        }
        new = await store.add_vouchers(connection, batch_id, list(drawn))
        codes += [code for hash_, code in drawn.items() if hash_ in new]
    return codes


# --- block and look ------------------------------------------------------------------------------


async def set_blocked(
    database: Database, code: str, *, blocked: bool, actor: str, scope: int | None = None
) -> Batch:
    """Block what is left of a batch, or let it be redeemed again.

    Raises:
        NotFound: no such batch, or it is another's.
    """
    await get_batch(database, code, scope=scope)
    async with database.write() as connection:
        (batch,) = await store.read_batches(connection, code=code)
        status = "blocked" if blocked else "active"
        await store.set_batch_status(connection, batch.id, status)
        await record(
            connection,
            actor=actor,
            action="voucher.batch",
            subject=f"voucher batch {code}",
            detail={"status": [batch.status, status]},
            notice="voucher",
        )
        (batch,) = await store.read_batches(connection, code=code)
        return batch


async def block_voucher(
    database: Database, code: str, *, actor: str, scope: int | None = None
) -> str:
    """Block the one voucher with this code; returns the code of its batch.

    Raises:
        InvalidInput: no such code can exist. NotFound: no such voucher, or it is another's.
        Conflict: it has been redeemed.
    """
    typed = read_typed(code)
    async with database.write() as connection:
        secret = await store.read_secret(connection)
        voucher = await store.lock_voucher(connection, hash_of(secret, typed))
        if voucher is None or not await _owns(connection, scope, voucher.owner_id):
            raise NotFound("there is no such voucher", code="unknown_voucher", field="code")
        if voucher.status == "redeemed":
            raise Conflict(
                "this voucher has been redeemed already", code="voucher_used", field="code"
            )
        await store.block_voucher(connection, voucher.id)
        await record(
            connection,
            actor=actor,
            action="voucher.block",
            subject=f"voucher {voucher.id}",
            detail={"batch": voucher.batch},
            notice="voucher",
        )
        return voucher.batch


async def _owns(connection: Connection, scope: int | None, owner_id: int | None) -> bool:
    if scope is None:
        return True
    return owner_id is not None and (
        owner_id == scope or scope in await tree.ancestors_of(connection, owner_id)
    )


async def get_batch(database: Database, code: str, *, scope: int | None = None) -> Batch:
    """Return a batch with how many of its vouchers are redeemed and blocked.

    Raises:
        NotFound: no such batch, or it is another's.
    """
    async with database.read(scope=scope) as connection:
        found = await store.read_batches(connection, code=code)
    if not found:
        raise NotFound(f'there is no voucher batch "{code}"', code="unknown_batch")
    return found[0]


async def list_batches(
    database: Database, *, after: str = "", limit: int = 100, scope: int | None = None
) -> list[Batch]:
    """Return batches in the order of their codes."""
    async with database.read(scope=scope) as connection:
        return await store.read_batches(connection, after=after, limit=limit)
