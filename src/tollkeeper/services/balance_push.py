"""Accounts on a switch's own platform (VOS3000) follow our wallets.

Such a switch charges its calls itself, from an account that it keeps. What that account may spend is
brought to what the wallet has by one payment of the difference. The payment is written down before it is
made, under a name (its memo) by which the platform's history is asked whether it was: whatever happens to
the request, to its answer or to us, nothing is paid twice, and nothing more before the last one is known.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import ROUND_FLOOR, Decimal
from zoneinfo import ZoneInfo

import structlog

from tollkeeper.core.money import ZERO
from tollkeeper.gateways.vos3000 import VosGateway, VosUnknown
from tollkeeper.store import balance_push as store
from tollkeeper.store.balance_push import Push, Spendable
from tollkeeper.store.db import Database
from tollkeeper.store.peers import Peer
from tollkeeper.wire.vos3000 import Account, VosRefused

SURE_AFTER = timedelta(minutes=2)
"""A payment that the platform's history does not have by then was never made: no request lives so long."""
HISTORY_MARGIN = timedelta(days=1)
"""How far the platform's clock may be wrong, and its zone."""
STUCK_ATTEMPTS = 8
KEEP = timedelta(days=400)
LEAST = Decimal("0.01")
DECIMALS = 4
AVAILABLE, BALANCE = "available", "balance"
_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class PushReport:
    """What a round did; ``unknown`` payments are looked for again, ``missing`` accounts do not exist."""

    paid: int = 0
    unknown: int = 0
    same: int = 0
    missing: tuple[str, ...] = ()


class BalancePush:
    """The accounts of one platform. Only one process at a time may run its rounds."""

    def __init__(
        self,
        database: Database,
        gateway: VosGateway,
        peer: Peer,
        clock: Callable[[], datetime],
        new_mark: Callable[[], str] = lambda: f"tollkeeper {uuid.uuid4()}",
    ) -> None:
        self._database = database
        self._gateway = gateway
        self._peer = peer
        self._clock = clock
        self._new_mark = new_mark

    def parties(self) -> dict[str, str]:
        """The party of each account, by the peer's option ``accounts``."""
        return {
            str(row["account"]): str(row["party"])
            for row in self._peer.rows("accounts")
            if row.get("account") and row.get("party")
        }

    async def round(self) -> PushReport:
        """Find out what became of open payments, then pay what differs.

        Raises:
            VosUnknown, VosRefused: the accounts cannot be read; nothing was paid.
        """
        waiting = await self._decide_open()
        followed = {
            account: party for account, party in self.parties().items() if account not in waiting
        }
        paid = same = 0
        unknown = len(waiting)
        missing: list[str] = []
        if followed:
            read_at = self._clock()
            wallets = await self._wallets(followed)
            accounts = await self._gateway.accounts(list(followed))
            there = {one.account: one for one in accounts}
            for account, party in followed.items():
                if account not in there or party not in wallets:
                    missing.append(account)
                    continue
                amount = self._difference(there[account], wallets[party])
                if not amount:
                    same += 1
                elif await self._pay(there[account], amount, read_at):
                    paid += 1
                else:
                    unknown += 1
        if missing:
            _log.warning("push.missing", peer=self._peer.code, accounts=missing[:20])
        return PushReport(paid, unknown, same, tuple(missing))

    async def keep_house(self) -> None:
        """Forget payments that were decided long ago."""
        async with self._database.write() as connection:
            await store.purge(connection, self._clock() - KEEP)

    async def _wallets(self, followed: Mapping[str, str]) -> dict[str, Spendable]:
        async with self._database.read() as connection:
            return await store.read_spendable(
                connection, sorted(set(followed.values())), self._peer.text("currency")
            )

    def _difference(self, account: Account, wallet: Spendable) -> Decimal:
        """What is to be paid; never more than the wallet has, to the last decimal of the platform."""
        if self._peer.text("push", AVAILABLE) == BALANCE:
            target, there = wallet.balance, account.money
        else:
            target, there = wallet.available, account.spendable
        if wallet.barred:
            # Its calls here would be refused: there they must find nothing to spend.
            target = min(target, ZERO)
        step = Decimal(1).scaleb(-self._peer.whole("decimals", DECIMALS))
        amount = (target - there).quantize(step, rounding=ROUND_FLOOR)
        return amount if abs(amount) >= max(_least(self._peer), step) else ZERO

    # --- one payment -----------------------------------------------------------------------------

    async def _pay(self, account: Account, amount: Decimal, read_at: datetime) -> bool:
        """Pay once; True when the platform's history shows it."""
        mark, now = self._new_mark(), self._clock()
        async with self._database.write() as connection:
            id_ = await store.begin(
                connection,
                peer_id=self._peer.id,
                account=account.account,
                mark=mark,
                amount=amount,
                money_before=account.money,
                at=now,
                read_at=read_at,
            )
        if id_ is None:
            return False  # another one is open, or was made meanwhile
        push = Push(id_, account.account, mark, amount, 0, now)
        try:
            await self._gateway.pay(account.account, amount, mark)
        except (VosUnknown, VosRefused) as error:
            # A refusal too: a code may mean that its own inside answered too late.
            return await self._tried(push, str(error))
        return await self._decide(push)

    async def _decide_open(self) -> set[str]:
        """Accounts whose last payment is still not known."""
        async with self._database.read() as connection:
            pushes = await store.read_open(connection, self._peer.id)
        return {push.account for push in pushes if not await self._decide(push)}

    async def _decide(self, push: Push) -> bool:
        """Ask the history what became of a payment; False while that is not known."""
        now = self._clock()
        zone = ZoneInfo(self._peer.timezone)
        begin, end = push.at - HISTORY_MARGIN, now + HISTORY_MARGIN
        try:
            payments = await self._gateway.payments(
                push.account, begin.astimezone(zone), end.astimezone(zone)
            )
        except (VosUnknown, VosRefused) as error:
            return await self._tried(push, str(error))
        found = [one for one in payments if one.memo == push.mark]
        if not found and now - push.at < SURE_AFTER:
            return await self._tried(push, "not in the history yet")
        detail = ""
        if found and abs(found[0].fee) != abs(push.amount):
            detail = f"the history has {found[0].fee}"
            _log.error("push.other_amount", peer=self._peer.code, mark=push.mark, detail=detail)
        status = "done" if found else "failed"
        async with self._database.write() as connection:
            await store.mark_ended(connection, push.id, status, now, detail)
        _log.info(
            "push.ended", peer=self._peer.code, account=push.account, amount=str(push.amount),
            status=status,
        )  # fmt: skip
        return True

    async def _tried(self, push: Push, why: str) -> bool:
        async with self._database.write() as connection:
            await store.mark_tried(connection, push.id, why[:300])
        if push.attempts + 1 == STUCK_ATTEMPTS:
            _log.error(
                "push.stuck", peer=self._peer.code, account=push.account, mark=push.mark, error=why
            )
        return False


def _least(peer: Peer) -> Decimal:
    """The smallest change that is pushed."""
    text = peer.text("push_least")
    whole, _, part = text.partition(".")
    if whole.isascii() and whole.isdigit() and (not part or (part.isascii() and part.isdigit())):
        return Decimal(text)
    return LEAST
