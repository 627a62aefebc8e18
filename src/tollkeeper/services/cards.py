"""Calling cards in use: access by PIN or by the caller's number, first use, and what is announced.

A card is used first when its PIN (or its caller) is taken for the first time: then its value is put into
its wallet, and its validity begins. It is paid as a voucher is: from the reseller's wallet by a
transfer, or, of the operator's own, against clearing, because it was paid for elsewhere.

Wrong PINs are counted for the caller behind an API key and for the key itself. A key may send more of
them than a caller, because it speaks for all callers of a switch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal

from tollkeeper.core.cards import DIGITS_MAX, DIGITS_MIN, read_pin
from tollkeeper.core.ledger import Code
from tollkeeper.core.money import ZERO, plain
from tollkeeper.core.numbering import DEFAULT_RULES, normalise
from tollkeeper.errors import Breach, Conflict, InvalidInput, NotFound, TollkeeperError
from tollkeeper.services.card_batches import CALLERS_MAX, hash_of, number_of
from tollkeeper.services.charging import Charging
from tollkeeper.services.directory import Directory
from tollkeeper.services.overcommit import check_overcommit
from tollkeeper.services.postings import post
from tollkeeper.services.scope import unknown_party
from tollkeeper.services.transfers import move
from tollkeeper.services.uses import Use
from tollkeeper.services.wallet_terms import find_wallet, lock
from tollkeeper.store import cards as store
from tollkeeper.store import terms as tree
from tollkeeper.store.cards import Card, LockedCard
from tollkeeper.store.changes import record
from tollkeeper.store.db import Connection, Database
from tollkeeper.store.terms import Seen
from tollkeeper.store.vouchers import read_secret

CONTRA_NAME = "card"
"""Name of the clearing account that the operator's cards stand against: they were paid for elsewhere."""

WINDOW = timedelta(minutes=15)
"""So many wrong PINs within this time, and no more are taken for as long again."""
CALLER_WRONG_MAX = 5
KEY_WRONG_MAX = 100


@dataclass(frozen=True, slots=True)
class Asking:
    """Whoever wants to use a card: by ``pin``, or by the number that it calls from.

    ``called`` is where to, for the minutes that are announced. ``remember``: this caller needs no PIN
    from now on. ``owner`` is the seller of the card, where a caller has cards of several.
    """

    pin: str | None = None
    caller: str = ""
    called: str = ""
    owner: str | None = None
    remember: bool = False


@dataclass(frozen=True, slots=True)
class Access:
    """A card that may be used, and what is announced to its holder.

    ``seconds`` are those that its money lasts for to the number called, None if none was given;
    ``reason`` is why they are 0 where nothing is sold there.
    """

    card: Card
    first_use: bool
    called: str
    seconds: int | None
    reason: str = ""


class Cards:
    """Lets cards be used."""

    def __init__(
        self,
        database: Database,
        directory: Directory,
        charging: Charging,
        clock: Callable[[], datetime],
    ) -> None:
        self._database = database
        self._directory = directory
        self._charging = charging
        self._clock = clock

    async def access(
        self,
        asking: Asking,
        *,
        actor: str,
        key_id: int | None = None,
        scope: int | None = None,
    ) -> Access:
        """Find the card of a PIN or caller and tell what is announced; the first time begins its validity.

        The call is then authorised for the card's party, as for any other. A wrong PIN is written down
        before the error is raised.

        Raises:
            InvalidInput: no such PIN can exist, or neither a PIN nor a caller is given.
            NotFound: no such PIN, or no card of this caller.
            Conflict: blocked, expired, too many wrong PINs, a caller with cards of several sellers, or
                the reseller's money does not cover the card.
        """
        pin = _read(asking)
        caller = _caller(asking)
        first = False
        async with self._database.write() as connection:
            found = (
                await self._by_pin(connection, pin, caller, key_id, scope)
                if pin is not None
                else await self._by_caller(connection, caller, asking.owner, scope)
            )
            if isinstance(found, LockedCard):
                first = await self._use(connection, found, actor)
                if asking.remember:
                    await self._remember(connection, found, caller)
        if not isinstance(found, LockedCard):
            # Outside of the transaction, which has written the wrong PIN down.
            raise found
        # The session that follows comes to this process before the notice does.
        await self._directory.refresh("party", found.party_id)
        return await self._announce(found.code, asking, first_use=first, scope=scope)

    # --- which card ------------------------------------------------------------------------------

    async def _by_pin(
        self, connection: Connection, pin: str, caller: str, key_id: int | None, scope: int | None
    ) -> LockedCard | TollkeeperError:
        key = f"key:{key_id if key_id is not None else 'cli'}"
        subjects = {f"{key}/{caller or 'unknown'}": CALLER_WRONG_MAX, key: KEY_WRONG_MAX}
        await store.take_turn(connection, list(subjects))
        now = self._clock()
        tried = await store.read_attempts(connection, subjects, now=now, window=WINDOW)
        ends = [one.at + WINDOW for one in tried if one.wrong >= one.most and one.at + WINDOW > now]
        if ends:
            return Conflict(
                f"too many wrong PINs were given; try again after {max(ends):%H:%M:%S} UTC",
                code="too_many_attempts",
            )
        secret = await read_secret(connection)
        card_id = await store.find_by_pin(connection, hash_of(secret, pin))
        card = await store.lock_card(connection, card_id) if card_id is not None else None
        # Another seller's card does not exist for those below somebody else.
        if card is not None and scope is not None:
            above = await tree.ancestors_of(connection, card.party_id)
            card = card if scope in above else None
        if card is None:
            await store.add_attempts(connection, list(subjects), now)
            return NotFound("there is no card with this PIN", code="unknown_pin", field="pin")
        return card

    async def _by_caller(
        self, connection: Connection, caller: str, owner: str | None, scope: int | None
    ) -> LockedCard | TollkeeperError:
        found = await store.find_by_caller(connection, caller, owner=owner, scope=scope)
        if not found:
            return NotFound(
                "no card is known for this caller; ask for the PIN",
                code="unknown_caller",
                field="caller",
            )
        if len(found) > 1:
            return Conflict(
                "this caller has cards of several sellers; say whose in owner",
                code="ambiguous_caller",
                field="owner",
            )
        card = await store.lock_card(connection, found[0])
        if card is None:
            raise Breach(f"card {found[0]} has vanished")
        return card

    # --- use -------------------------------------------------------------------------------------

    async def _use(self, connection: Connection, card: LockedCard, actor: str) -> bool:
        """Refuse a card that must not be used, and begin one that was not used before; True: it was."""
        now = self._clock()
        if "blocked" in (card.status, card.batch_status):
            raise Conflict("this card is blocked", code="card_blocked", field="pin")
        if card.status == "expired" or card.expires_at <= now:
            raise Conflict(
                f"this card was good until {card.expires_at:%Y-%m-%d %H:%M} UTC",
                code="card_expired",
                field="pin",
            )
        if card.status == "used_up":
            wallet = await find_wallet(connection, card.code, card.currency)
            if wallet.balance > ZERO:
                await store.set_status(connection, card.id, "active")
        if card.first_used_at is not None:
            return False
        fee = now + timedelta(days=card.fee_days) if card.fee_days is not None else None
        await store.use_first(
            connection,
            card.id,
            at=now,
            expires_at=now + timedelta(days=card.valid_days),
            next_fee_at=fee,
        )
        await self._pay(connection, card, actor)
        await record(
            connection,
            actor=actor,
            action="card.use",
            subject=f"card {card.code}",
            detail={"amount": plain(card.amount), "currency": card.currency},
            notice=f"party:{card.party_id}",
        )
        return True

    async def _pay(self, connection: Connection, card: LockedCard, actor: str) -> None:
        """Put a card's value into its wallet, from where a voucher's comes."""
        reason = f"card {card.serial} of batch {card.batch}"
        if card.owner_kind != "reseller" or card.owner_id is None:
            wallet = await find_wallet(connection, card.code, card.currency)
            await post(
                connection,
                await lock(connection, wallet.id),
                Code.VOUCHER,
                card.amount,
                at=self._clock(),
                actor=actor,
                reason=reason,
                contra=CONTRA_NAME,
            )
            await check_overcommit(connection, card.party_id, card.currency)
            return
        owner = await tree.read_seen(connection, card.owner_id)
        if owner is None:
            raise unknown_party(card.owner or "")
        try:
            await move(
                connection,
                source=owner,
                target=party_of(card),
                currency=card.currency,
                amount=card.amount,
                reason=reason,
                actor=actor,
                clock=self._clock,
            )
        except Conflict as error:
            # Whoever uses the card learns nothing of the money above.
            raise Conflict(
                "this card cannot be paid at the moment; ask whoever sold it",
                code="card_not_covered",
                field="pin",
            ) from error

    async def _remember(self, connection: Connection, card: LockedCard, caller: str) -> None:
        if await store.count_callers(connection, card.id, caller) >= CALLERS_MAX:
            raise Conflict(
                f"the card has {CALLERS_MAX} callers already, and no more may use it without PIN",
                code="too_many_callers",
                field="remember",
            )
        await store.add_callers(connection, card, [caller], self._clock())

    # --- announce --------------------------------------------------------------------------------

    async def _announce(
        self, code: str, asking: Asking, *, first_use: bool, scope: int | None
    ) -> Access:
        async with self._database.read() as connection:
            (card,) = await store.read_cards(connection, code=code)
        if not asking.called:
            return Access(card, first_use, "", None)
        try:
            quote = await self._charging.quote(
                Use(code, asking.called, caller=asking.caller), scope=scope
            )
        except NotFound as error:
            return Access(card, first_use, asking.called, 0, error.code)
        return Access(card, first_use, quote.called, quote.affordable_units)

    async def forget_guesses(self) -> None:
        """Delete wrong PINs that do not lock anybody any more."""
        async with self._database.write() as connection:
            await store.purge_attempts(connection, self._clock() - 2 * WINDOW)


def party_of(card: LockedCard) -> Seen:
    """The party that a card is."""
    return Seen(card.party_id, card.code, "card", "active")


def minutes_of(seconds: int | None) -> int | None:
    """Whole minutes, as they are announced."""
    return None if seconds is None else seconds // 60


def value_of(card: Card) -> Decimal:
    """What is announced as a card's balance: what calls that are up do not hold."""
    return max(card.available, ZERO)


def _read(asking: Asking) -> str | None:
    if asking.pin is None:
        if asking.remember:
            raise InvalidInput("remember: the PIN says whose card it is", field="remember")
        return None
    pin = read_pin(asking.pin)
    if pin is None:
        # Told at once, and never with what was given.
        raise InvalidInput(
            f"pin: a PIN has {DIGITS_MIN} to {DIGITS_MAX} digits; a digit of this one is wrong or missing",
            code="invalid_pin",
            field="pin",
        )
    return pin


def _caller(asking: Asking) -> str:
    """The caller's number; with a PIN one that is none counts as no number."""
    if asking.pin is None and not asking.caller:
        raise InvalidInput("pin: give the PIN or the caller's number", field="pin")
    if asking.pin is None or asking.remember:
        return number_of(asking.caller, field="caller")
    try:
        return normalise(asking.caller, DEFAULT_RULES)
    except InvalidInput:
        return ""
