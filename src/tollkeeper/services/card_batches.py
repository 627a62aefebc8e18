"""Batches of calling cards: made with PINs that are shown once, blocked, looked at.

A card is a party of its own, of kind ``card``, with one wallet and one call at a time: calls, legs up
the tree, history and limits are those of any party. It stands below its seller: a reseller or the
operator. Its wallet is empty until the card is used first.

A PIN is nowhere stored: only its HMAC under the secret that vouchers have too, behind a word of its own.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal

from tollkeeper.core.cards import DIGITS_MAX, digits_for, make_pin
from tollkeeper.core.money import parse_currency, plain
from tollkeeper.core.numbering import DEFAULT_RULES, normalise
from tollkeeper.errors import Conflict, InvalidInput, NotFound
from tollkeeper.services.fields import (
    check_amount,
    check_choice,
    check_code,
    check_integer,
    check_moment,
)
from tollkeeper.services.plans import check_wallets
from tollkeeper.services.scope import unknown_party
from tollkeeper.services.tree import plan_id_of
from tollkeeper.services.wallet_terms import find_wallet
from tollkeeper.store import cards as store
from tollkeeper.store import parties as party_store
from tollkeeper.store import terms as tree
from tollkeeper.store.cards import Batch, Card, LockedCard, NewBatch
from tollkeeper.store.changes import record
from tollkeeper.store.db import Connection, Database
from tollkeeper.store.terms import Seen
from tollkeeper.store.vouchers import read_secret

COUNT_MAX = 10_000
DAYS_MAX = 3650
CALLERS_MAX = 10
CODE_MAX = 50
SERIAL_DIGITS = 5
PIN_DIGITS = 12
ON_EXPIRY = ("return", "keep")
_PIN_WORD = b"card-pin:"
"""In front of a PIN before it is hashed, so that no PIN has the hash of a voucher's code."""


@dataclass(frozen=True, slots=True)
class Order:
    """What a batch of cards shall be.

    A card is good for ``valid_days`` from its first use, which must be before ``expires_at``. A fee of
    ``fee_amount`` is taken every ``fee_days`` from the first use on. What is left at the end goes back
    (``return``) or stays (``keep``).
    """

    code: str
    count: int
    plan: str
    amount: Decimal
    currency: str
    valid_days: int
    expires_at: datetime
    fee_amount: Decimal | None = None
    fee_days: int | None = None
    max_seconds: int = 14_400
    pin_digits: int = PIN_DIGITS
    on_expiry: str = "return"
    owner: str | None = None


@dataclass(frozen=True, slots=True)
class NewCard:
    """A new card: the only place where its PIN stands."""

    code: str
    serial: int
    pin: str


@dataclass(frozen=True, slots=True)
class Made:
    """A new batch and its cards, whose PINs are shown this once."""

    batch: Batch
    cards: tuple[NewCard, ...]


def hash_of(secret: bytes, pin: str) -> bytes:
    """Return what is stored of a PIN: its HMAC-SHA256 under the installation's secret."""
    return hmac.new(secret, _PIN_WORD + pin.encode(), hashlib.sha256).digest()


def unknown_card(code: str) -> NotFound:
    """The error for a card that does not exist, or that whoever asks must not know of."""
    return NotFound(f'there is no calling card "{code}"', code="unknown_calling_card")


# --- make ----------------------------------------------------------------------------------------


async def make_batch(
    database: Database,
    order: Order,
    *,
    actor: str,
    clock: Callable[[], datetime],
    scope: int | None = None,
) -> Made:
    """Make a batch of cards. Its PINs cannot be had again: whoever loses them blocks the batch.

    Who acts for a reseller makes the reseller's; the operator makes its own, or those of a reseller.

    Raises:
        InvalidInput: a field out of bounds, or no such plan. NotFound: no such owner, or no wallet of it.
        Conflict: the code of the batch or of a card is taken.
    """
    now = clock()
    _check(order, now)
    async with database.write() as connection:
        owner = await _owner(connection, order.owner, scope)
        if owner is not None and owner.kind == "reseller":
            await find_wallet(connection, owner.code, order.currency)
        plan_id = await _plan(connection, order, owner, scope)
        new = NewBatch(
            code=order.code,
            owner_id=owner.id if owner is not None else None,
            plan_id=plan_id,
            currency=order.currency,
            amount=order.amount,
            valid_days=order.valid_days,
            expires_at=check_moment(order.expires_at, field="expires_at"),
            fee_amount=order.fee_amount,
            fee_days=order.fee_days,
            max_seconds=order.max_seconds,
            pin_digits=order.pin_digits,
            on_expiry=order.on_expiry,
            at=now,
            actor=actor,
        )
        batch_id = await store.add_batch(connection, new)
        if batch_id is None:
            raise Conflict(f'the code "{order.code}" is taken', code="batch_exists", field="code")
        cards = await _draw(connection, batch_id, new, order.count)
        await record(
            connection,
            actor=actor,
            action="card.make",
            subject=f"card batch {order.code}",
            detail={
                "count": order.count,
                "amount": plain(order.amount),
                "currency": order.currency,
                "plan": order.plan,
                "owner": owner.code if owner is not None else None,
                "expires_at": new.expires_at.isoformat(),
            },
            notice="card",
        )
        (batch,) = await store.read_batches(connection, code=order.code)
    return Made(batch, tuple(cards))


def _check(order: Order, now: datetime) -> None:
    check_code(order.code)
    if len(order.code) > CODE_MAX:
        raise InvalidInput(
            f"code: at most {CODE_MAX} characters; the cards' own codes begin with it", field="code"
        )
    check_integer(order.count, field="count", least=1, most=COUNT_MAX)
    check_amount(order.amount)
    parse_currency(order.currency)
    check_integer(order.valid_days, field="valid_days", least=1, most=DAYS_MAX)
    check_integer(order.max_seconds, field="max_seconds", least=1, most=86_400)
    check_choice(order.on_expiry, ON_EXPIRY, field="on_expiry")
    if check_moment(order.expires_at, field="expires_at") <= now:
        raise InvalidInput("expires_at: it must be later than now", field="expires_at")
    if (order.fee_amount is None) != (order.fee_days is None):
        raise InvalidInput(
            "fee_days: a maintenance fee has an amount and the days after which it is due again",
            field="fee_days",
        )
    if order.fee_amount is not None:
        check_amount(order.fee_amount, field="fee_amount")
    check_integer(order.fee_days, field="fee_days", least=1, most=DAYS_MAX)
    check_integer(
        order.pin_digits, field="pin_digits", least=digits_for(order.count), most=DIGITS_MAX
    )


async def _owner(connection: Connection, code: str | None, scope: int | None) -> Seen | None:
    """The seller of a batch, below whom its cards stand; None is an operator that is no party."""
    if code is None and scope is None:
        return None
    owner = (
        await tree.find_seen(connection, code, scope)
        if code is not None
        else await tree.read_seen(connection, scope or 0)
    )
    if owner is None:
        raise unknown_party(code or "")
    if owner.kind not in ("operator", "reseller"):
        raise InvalidInput(
            f"owner: cards are sold by resellers and the operator, and {owner.code} is a {owner.kind}",
            field="owner",
        )
    return owner


async def _plan(connection: Connection, order: Order, owner: Seen | None, scope: int | None) -> int:
    """The plan that the cards are sold by; a scope's own or that of somebody below it."""
    if scope is not None:
        found = await party_store.read_plan_id(connection, order.plan)
        owner_id = found[1] if found is not None else None
        if owner_id is None or not await party_store.stands_below(connection, owner_id, scope):
            raise InvalidInput(
                f'plan: there is no plan "{order.plan}"', code="unknown_plan", field="plan"
            )
    above = owner.id if owner is not None else None
    plan_id = await plan_id_of(connection, order.plan, "these cards", above)
    assert plan_id is not None
    return plan_id


async def _draw(
    connection: Connection, batch_id: int, batch: NewBatch, count: int
) -> list[NewCard]:
    codes = {serial: f"{batch.code}-{serial:0{SERIAL_DIGITS}d}" for serial in range(1, count + 1)}
    parties = await store.add_parties(connection, batch, list(codes.values()))
    for code in codes.values():
        if code not in parties:
            raise Conflict(
                f'the code "{code}" of a card is taken by a party; give the batch another code',
                code="party_exists",
                field="code",
            )
    # One of them speaks for all: they have the same wallet and the same plan.
    await check_wallets(connection, next(iter(parties.values())), batch.plan_id)
    secret = await read_secret(connection)
    pins: dict[int, str] = {}
    missing: Sequence[int] = list(codes)
    while missing:
        # The few PINs that exist already are drawn again.
        drawn = {
            serial: make_pin(secrets.randbelow(10 ** (batch.pin_digits - 1)), batch.pin_digits)
            for serial in missing
        }
        new = await store.add_cards(
            connection,
            batch_id,
            batch.expires_at,
            [(parties[codes[n]], n, hash_of(secret, pin)) for n, pin in drawn.items()],
        )
        pins |= {serial: drawn[serial] for serial in new}
        missing = [serial for serial in drawn if serial not in new]
    return [NewCard(code, serial, pins[serial]) for serial, code in codes.items()]


# --- block ---------------------------------------------------------------------------------------


async def set_batch_blocked(
    database: Database, code: str, *, blocked: bool, actor: str, scope: int | None = None
) -> Batch:
    """Block all cards of a batch, or let those be used again that are not blocked one by one.

    Raises:
        NotFound: no such batch, or it is another's.
    """
    await get_batch(database, code, scope=scope)
    status = "blocked" if blocked else "active"
    async with database.write() as connection:
        (batch,) = await store.read_batches(connection, code=code)
        await store.set_batch_status(connection, batch.id, status)
        parties = await store.used_of_batch(connection, batch.id, good=not blocked)
        await store.set_party_status(connection, parties, "suspended" if blocked else "active")
        await record(
            connection,
            actor=actor,
            action="card.batch",
            subject=f"card batch {code}",
            detail={"status": [batch.status, status]},
            notice="card",
        )
        (batch,) = await store.read_batches(connection, code=code)
        return batch


async def change_card(
    database: Database,
    code: str,
    *,
    actor: str,
    clock: Callable[[], datetime],
    blocked: bool | None = None,
    callers: Sequence[str] | None = None,
    scope: int | None = None,
) -> Card:
    """Block a card or let it be used again; make these numbers its callers, who need no PIN.

    A call that is up goes on to its end; a card that is blocked still expires.

    Raises:
        NotFound: no such card, or it is another's. InvalidInput: a number that is none, or too many.
        Conflict: the card has expired.
    """
    await get_card(database, code, scope=scope)
    numbers = None if callers is None else [number_of(caller) for caller in callers]
    if numbers is not None and len(numbers) > CALLERS_MAX:
        raise InvalidInput(f"callers: at most {CALLERS_MAX} numbers", field="callers")
    async with database.write() as connection:
        card = await _lock(connection, code)
        if card.status == "expired":
            raise Conflict(f"{code} has expired", code="card_expired")
        if blocked is not None:
            await _set_blocked(connection, card, blocked=blocked)
        if numbers is not None:
            await store.set_callers(connection, card, sorted(set(numbers)), clock())
        await record(
            connection,
            actor=actor,
            action="card.change",
            subject=f"card {code}",
            detail={"blocked": blocked, "callers": None if numbers is None else len(numbers)},
            notice=f"party:{card.party_id}",
        )
    return await get_card(database, code, scope=scope)


async def _lock(connection: Connection, code: str) -> LockedCard:
    card_id = await store.find_by_code(connection, code)
    card = await store.lock_card(connection, card_id) if card_id is not None else None
    if card is None:
        raise unknown_card(code)
    return card


async def _set_blocked(connection: Connection, card: LockedCard, *, blocked: bool) -> None:
    if blocked:
        status = "blocked"
    elif card.status != "blocked":
        return
    else:
        status = "unused" if card.first_used_at is None else "active"
    await store.set_status(connection, card.id, status)
    if card.batch_status == "active":
        await store.set_party_status(
            connection, [card.party_id], "suspended" if blocked else "active"
        )


def number_of(caller: str, *, field: str = "callers") -> str:
    """A caller's number as E.164 digits.

    Raises:
        InvalidInput: it is none.
    """
    try:
        return normalise(caller, DEFAULT_RULES)
    except InvalidInput as error:
        raise InvalidInput(
            f"{field}: give the caller's number with its country code, such as 442071838750",
            code="invalid_caller",
            field=field,
        ) from error


# --- look ----------------------------------------------------------------------------------------


async def get_batch(database: Database, code: str, *, scope: int | None = None) -> Batch:
    """Return a batch with how many of its cards are in which state.

    Raises:
        NotFound: no such batch, or it is another's.
    """
    async with database.read(scope=scope) as connection:
        found = await store.read_batches(connection, code=code)
    if not found:
        raise NotFound(f'there is no card batch "{code}"', code="unknown_batch")
    return found[0]


async def list_batches(
    database: Database, *, after: str = "", limit: int = 100, scope: int | None = None
) -> list[Batch]:
    """Return batches in the order of their codes."""
    async with database.read(scope=scope) as connection:
        return await store.read_batches(connection, after=after, limit=limit)


async def get_card(database: Database, code: str, *, scope: int | None = None) -> Card:
    """Return a card, its money and its callers.

    Raises:
        NotFound: no such card, or it is another's.
    """
    async with database.read(scope=scope) as connection:
        found = await store.read_cards(connection, code=code)
    if not found:
        raise unknown_card(code)
    return shown(found[0])


async def list_cards(
    database: Database,
    *,
    batch: str | None = None,
    after: str = "",
    limit: int = 100,
    scope: int | None = None,
) -> list[Card]:
    """Return cards in the order of their codes, all or those of a batch.

    Raises:
        NotFound: no such batch, or it is another's.
    """
    if batch is not None:
        await get_batch(database, batch, scope=scope)
    async with database.read(scope=scope) as connection:
        found = await store.read_cards(connection, batch=batch, after=after, limit=limit)
    return [shown(card) for card in found]


def shown(card: Card) -> Card:
    """A card as it is shown: one of a blocked batch is blocked, too, unless its time is over."""
    if card.batch_status == "blocked" and card.status != "expired":
        return replace(card, status="blocked")
    return card
