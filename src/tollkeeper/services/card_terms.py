"""What comes with time on calling cards: maintenance fees, and the end of their validity.

A fee is an event with a key made of the card and the fee's number (``cards/9-2``), so nothing is taken
twice whoever finds it due. If the money does not cover it, what is there is taken when no call is up, and
the card is used up.

At the end of a card's validity new calls are refused by its date alone. A call that is up goes on to its
end; what is left then goes back to where it came from, unless the batch says that it stays.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from decimal import Decimal

import structlog

from tollkeeper.core.ledger import Code
from tollkeeper.core.money import ZERO
from tollkeeper.core.reasons import Reason
from tollkeeper.core.records import Outcome
from tollkeeper.errors import Conflict, NotFound
from tollkeeper.services.cards import CONTRA_NAME, party_of
from tollkeeper.services.charging import Charging
from tollkeeper.services.offers import Fixed
from tollkeeper.services.postings import post, purse_of
from tollkeeper.services.transfers import move
from tollkeeper.services.wallet_terms import find_wallet, lock
from tollkeeper.store import cards as store
from tollkeeper.store import terms as tree
from tollkeeper.store.cards import LockedCard
from tollkeeper.store.db import Connection, Database
from tollkeeper.store.wallets import WalletRow

SWITCH = "cards"
"""In whose name fees of cards are charged."""
FEE_NAME = "card maintenance"
JOB = "cards"
LATER = timedelta(minutes=1)
"""After this a fee is looked at again that had to wait for the end of a call."""
MUCH_LATER = timedelta(hours=1)

_log = structlog.get_logger()


class CardTerms:
    """Takes fees, ends cards; any number of processes may, and what one leaves the next one does."""

    def __init__(
        self, database: Database, charging: Charging, clock: Callable[[], datetime]
    ) -> None:
        self._database = database
        self._charging = charging
        self._clock = clock

    # --- fees ------------------------------------------------------------------------------------

    async def take_fees(self, *, limit: int = 100) -> int:
        """Take the fees that are due, one of each card; how many cards were looked at."""
        async with self._database.read() as connection:
            due = await store.due_fees(connection, self._clock(), limit)
        for card_id in due:
            await self._take_fee(card_id)
        return len(due)

    async def _take_fee(self, card_id: int) -> None:
        card = await self._read(card_id)
        if card is None or card.fee_amount is None:
            return
        refusal = await self._charge(card, card.fee_amount)
        async with self._database.write() as connection:
            now = await store.lock_card(connection, card_id)
            if now is None or now.status != "active" or now.fees != card.fees:
                return
            status = "active"
            if refusal == Reason.INSUFFICIENT_FUNDS:
                rest = await self._rest(connection, now, card.fee_amount)
                if rest is None:
                    await store.fee_later(connection, card_id, self._clock() + LATER)
                    return
                status = rest
            elif refusal:
                _log.warning("card.fee_refused", card=card.code, reason=refusal)
            await store.fee_paid(connection, card_id, next_fee_at=_next(now), status=status)

    async def _read(self, card_id: int) -> LockedCard | None:
        async with self._database.write() as connection:
            card = await store.lock_card(connection, card_id)
            if card is None or card.status != "active" or card.fee_days is None:
                return None
            if not self._known(card):
                # Used for the first time just now, and not yet heard of here.
                await store.fee_later(connection, card_id, self._clock() + LATER)
                return None
            return card

    def _known(self, card: LockedCard) -> bool:
        try:
            self._charging.party(card.code, None)
        except NotFound:
            return False
        return True

    async def _charge(self, card: LockedCard, amount: Decimal) -> str:
        """Charge a whole fee, once; return why it was refused, or nothing."""
        reply, _ = await self._charging.charge_event(
            switch=SWITCH,
            event_id=f"{card.id}-{card.fees + 1}",
            party=card.code,
            called=FEE_NAME,
            service="fee",
            units=1,
            fixed=Fixed(FEE_NAME, amount, card.currency),
            once=True,
        )
        return reply.reason.value if reply.outcome is Outcome.REFUSED else ""

    async def _rest(self, connection: Connection, card: LockedCard, fee: Decimal) -> str | None:
        """Take what is there of a fee; return the card's status then, None while a call is up."""
        wallet = await self._wallet(connection, card)
        if wallet.held > ZERO or wallet.live > 0:
            return None
        rest = min(fee, max(wallet.balance, ZERO))
        if rest > ZERO:
            # In one transaction with the card's own row: an event could be left in between.
            await post(
                connection,
                wallet,
                Code.ADJUST_DOWN,
                rest,
                at=self._clock(),
                actor=JOB,
                reason=f"rest, for fee {card.fees + 1} of card {card.serial} of batch {card.batch}",
                contra=FEE_NAME,
            )
        return "active" if rest == fee else "used_up"

    async def _wallet(self, connection: Connection, card: LockedCard) -> WalletRow:
        found = await find_wallet(connection, card.code, card.currency)
        return await lock(connection, found.id)

    # --- the end ---------------------------------------------------------------------------------

    async def expire(self, *, limit: int = 1000) -> int:
        """Note whose time is over; how many cards."""
        async with self._database.write() as connection:
            return await store.expire(connection, self._clock(), limit)

    async def settle(self, *, limit: int = 100) -> int:
        """Let what is left on expired cards go back; how many cards were looked at."""
        async with self._database.read() as connection:
            due = await store.to_settle(connection, self._clock(), limit)
        for card_id in due:
            try:
                async with self._database.write() as connection:
                    await self._settle(connection, card_id)
            except Conflict as error:
                # A frozen reseller or a parked wallet: somebody must see to that first.
                _log.warning("card.rest_stays", card=card_id, error=error.detail)
                async with self._database.write() as connection:
                    await store.settle_later(connection, card_id, self._clock() + MUCH_LATER)
        return len(due)

    async def _settle(self, connection: Connection, card_id: int) -> None:
        card = await store.lock_card(connection, card_id)
        if card is None or not card.unsettled:
            return
        wallet = await self._wallet(connection, card)
        if wallet.held > ZERO or wallet.live > 0:
            return
        # Bonus ends by itself: it was given by the operator, whoever sold the card.
        rest = (await purse_of(connection, wallet)).own
        if card.on_expiry == "return" and rest > ZERO:
            await self._give_back(connection, card, wallet, rest)
        await store.mark_settled(connection, card_id)

    async def _give_back(
        self, connection: Connection, card: LockedCard, wallet: WalletRow, rest: Decimal
    ) -> None:
        reason = f"rest of card {card.serial} of batch {card.batch}"
        if wallet.parked:
            raise Conflict(f"the wallet of {card.code} is parked", code="wallet_parked")
        owner = None
        if card.owner_kind == "reseller" and card.owner_id is not None:
            owner = await tree.read_seen(connection, card.owner_id)
        if owner is None:
            await post(
                connection,
                wallet,
                Code.WITHDRAWAL,
                rest,
                at=self._clock(),
                actor=JOB,
                reason=reason,
                contra=CONTRA_NAME,
            )
            return
        await move(
            connection,
            source=party_of(card),
            target=owner,
            currency=card.currency,
            amount=rest,
            reason=reason,
            actor=JOB,
            clock=self._clock,
        )


def _next(card: LockedCard) -> datetime:
    """When the fee after the one just taken is due: counted from the first use, so nothing drifts."""
    days = (card.fee_days or 0) * (card.fees + 2)
    return (card.first_used_at or card.expires_at) + timedelta(days=days)
