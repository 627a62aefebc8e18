"""The steps of an order at a supplier: hold, write down, order, and let the money follow the answer.

Each step is durable before the next one begins, so whoever finds an order can go on with it: the
process that took it, its repeat, or a job of any other process. The money of an order is a session
``purchases/<order_id>``: it is settled with one unit when the supplier has delivered, released when it
refused, and kept while nobody can tell. One id goes through all of it, so nothing is done twice::

    new -> held -> ordered -> done | refused | cancelled -> settled
                      |  ^
                      v  |
                    unknown  (asked again, by the supplier's status or by the same order once more)
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import structlog

from tollkeeper.core.reasons import Reason
from tollkeeper.core.records import Outcome as ReplyOutcome
from tollkeeper.core.records import Reply
from tollkeeper.errors import Busy, NotFound, TollkeeperError
from tollkeeper.gateways.supplier import Answer, Outcome, Refused, SupplierGateway, Unknown
from tollkeeper.gateways.supplier_settings import SupplierConfig
from tollkeeper.services.charging import Charging
from tollkeeper.services.suppliers import read_config
from tollkeeper.store import purchases as store
from tollkeeper.store.db import Connection, Database
from tollkeeper.store.purchases import Purchase

SWITCH = "purchases"
"""In front of the ids of the sessions that hold the money of orders."""
LEASE = timedelta(seconds=90)
"""How long one process may be at an order before another goes on: longer than any call of a supplier."""
WAIT_MAX_SECONDS = 900
UNREACHABLE = "supplier_unreachable"
GIVEN_UP = "given_up"

Deliver = Callable[[Connection, Purchase, SupplierConfig, Mapping[str, Any]], Awaitable[None]]
"""What a service does with what a supplier delivered, in the transaction that decides the order. It may
raise Unknown where the answer lacks what is needed: the order is then left to a human."""

_log = structlog.get_logger()


class Ordering:
    """The steps. ``deliver`` says, by service, what becomes of what was bought."""

    def __init__(
        self,
        *,
        database: Database,
        charging: Charging,
        gateway: SupplierGateway,
        clock: Callable[[], datetime],
    ) -> None:
        self._database = database
        self._charging = charging
        self._gateway = gateway
        self._clock = clock
        self.deliver: dict[str, Deliver] = {}

    def passed(self, step: str, id_: int) -> None:
        """Each durable step passes here."""
        _log.debug("purchase.step", step=step, purchase=id_)

    async def _read(self, connection: Connection, id_: int) -> Purchase:
        row = await store.read_purchase(connection, id_)
        if row is None:
            raise NotFound(f"there is no order {id_}", code="unknown_order")
        return row

    async def go_on(self, id_: int) -> Purchase:
        """Go on with an order that is ours until it waits for somebody or is through; return it."""
        while True:
            async with self._database.read() as connection:
                row = await self._read(connection, id_)
                config = await read_config(connection, row.supplier_id)
            if row.status == "new":
                await self._hold(row)
            elif row.status == "held" and (
                row.hold_until is None or row.hold_until <= self._clock()
            ):
                # Nobody came by in time: the hold is gone, and the supplier was never asked.
                await self.decide(row, "refused", Reason.EXPIRED, "")
            elif row.status == "held":
                if not await self._order(row, config):
                    return await self._now(id_)
            elif row.open:
                if not await self._find_out(row, config):
                    return await self._now(id_)
            elif row.settled_at is None:
                await self._settle(row)
            else:
                return row

    async def _now(self, id_: int) -> Purchase:
        async with self._database.read() as connection:
            return await self._read(connection, id_)

    async def _hold(self, row: Purchase) -> None:
        """Hold the price of one unit; a repeat gets the stored answer."""
        try:
            reply, _ = await self._charging.authorise(
                switch=SWITCH,
                session_id=row.order_id,
                party=row.party,
                called=row.called,
                service=row.service,
                requested_seconds=1,
                # While it counts as ringing, a hold that nobody comes back to is released for nothing.
                start_expected=True,
            )
        except Busy:
            raise
        except TollkeeperError as error:
            await self.decide(row, "refused", error.code, error.detail)
            return
        self.passed("authorised", row.id)
        if reply.outcome is ReplyOutcome.REFUSED:
            detail = f"{reply.reason} at party {reply.refused_by}" if reply.refused_by else ""
            await self.decide(row, "refused", seen_reason(reply, row.party_id), detail)
        elif reply.expires_at is None or reply.expires_at <= self._clock():
            # The hold of a process that died is gone by now, and the supplier was never asked.
            await self.decide(row, "refused", Reason.EXPIRED, "")
        else:
            async with self._database.write() as connection:
                await store.mark_held(connection, row.id, reply.expires_at)
            self.passed("held", row.id)

    async def _order(self, row: Purchase, config: SupplierConfig) -> bool:
        """Place the order for the first time; False when it is not decided."""
        try:
            answer = await self._call(row, config, "order")
        except Refused as error:
            await self.decide(row, "refused", Reason.SUPPLIER_REFUSED, error.reason)
            return True
        except Unknown as error:
            if not error.sent:
                await self.decide(row, "refused", UNREACHABLE, error.detail)
                return True
            await self._try_later(row, config, error.detail)
            return False
        return await self._take_answer(row, config, answer)

    async def _find_out(self, row: Purchase, config: SupplierConfig) -> bool:
        """Ask what became of an order; False when that is still not known."""
        since = row.ordered_at or row.created_at
        overdue = self._clock() - since >= timedelta(seconds=config.settings.give_up_seconds)
        by_status, by_order = config.offers("status"), config.may_repeat("order")
        if not by_status and not by_order:
            return await self._give_up(row, config, "it can neither be asked nor ordered again")
        try:
            answer = await self._call(row, config, "status" if by_status else "order")
            if answer.outcome is Outcome.ABSENT:
                if overdue:
                    await self.decide(
                        row, "cancelled", GIVEN_UP, "the supplier knows no such order"
                    )
                    return True
                if not by_order:
                    # The first request may still be on its way.
                    await self._try_later(row, config, "the supplier knows no such order")
                    return False
                answer = await self._call(row, config, "order")
        except Refused as error:
            await self.decide(row, "refused", Reason.SUPPLIER_REFUSED, error.reason)
            return True
        except Unknown as error:
            if overdue:
                return await self._give_up(row, config, error.detail)
            await self._try_later(row, config, error.detail)
            return False
        if overdue and answer.outcome is not Outcome.DONE:
            return await self._give_up(row, config, "the supplier does not come to an end")
        return await self._take_answer(row, config, answer)

    async def _give_up(self, row: Purchase, config: SupplierConfig, why: str) -> bool:
        """Cancel at the supplier if that can be; else it is for a human, and the money stays held."""
        if config.offers("cancel"):
            try:
                answer = await self._call(row, config, "cancel")
                if answer.outcome is not Outcome.PENDING:
                    await self.decide(row, "cancelled", GIVEN_UP, why)
                    return True
                why = f"{why}; the cancellation is pending"
            except (Refused, Unknown) as error:
                why = f"{why}; it could not be cancelled: {error}"
        _log.error("purchase.needs_human", order=row.order_id, supplier=config.code, why=why)
        await self.wait(row, "unknown", why, None, {})
        return False

    async def _call(self, row: Purchase, config: SupplierConfig, operation: str) -> Answer:
        """Ask the supplier, having written down that it is asked."""
        now = self._clock()
        async with self._database.write() as connection:
            if not await store.mark_asking(connection, row.id, now, now + LEASE):
                raise Busy("another process has decided this order", code="contended")
        self.passed(f"asking {operation}", row.id)
        # An order and its repeats have one key; to ask for its state is another thing.
        key = row.order_id if operation == "order" else f"{row.order_id}-{operation}"
        answer = await self._gateway.call(config, operation, values_of(row), key=key)
        self.passed(f"answered {operation}", row.id)
        return answer

    async def _take_answer(self, row: Purchase, config: SupplierConfig, answer: Answer) -> bool:
        if answer.outcome is Outcome.DONE:
            try:
                await self.deliver_goods(row, config, {**row.answer, **_kept(answer)})
            except Unknown as error:
                _log.error("purchase.needs_human", order=row.order_id, why=error.detail)
                await self.wait(row, "unknown", error.detail, None, _kept(answer))
                return False
            return True
        detail = "" if answer.outcome is Outcome.PENDING else "the supplier knows no such order"
        later = self._clock() + timedelta(seconds=config.settings.poll_seconds)
        await self.wait(row, "ordered", detail, later, _kept(answer))
        return False

    async def _try_later(self, row: Purchase, config: SupplierConfig, detail: str) -> None:
        doubled = config.settings.poll_seconds * 2 ** min(row.attempts, 10)
        pause = timedelta(seconds=max(config.settings.poll_seconds, min(doubled, WAIT_MAX_SECONDS)))
        _log.warning("purchase.unknown", order=row.order_id, supplier=config.code, detail=detail)
        await self.wait(row, "unknown", detail, self._clock() + pause, {})

    async def wait(
        self,
        row: Purchase,
        status: str,
        detail: str,
        next_at: datetime | None,
        answer: Mapping[str, Any],
    ) -> None:
        """Leave an order undecided until ``next_at``; None: until a human says more."""
        async with self._database.write() as connection:
            await store.mark_waiting(
                connection, row.id, status=status, detail=detail, next_at=next_at, answer=answer
            )
        self.passed("waiting", row.id)

    async def deliver_goods(
        self, row: Purchase, config: SupplierConfig, answer: Mapping[str, Any]
    ) -> None:
        """Decide that it is done, and do with it what its service wants, in one transaction."""
        async with self._database.write() as connection:
            if await self._mark(connection, row, "done", "", "", answer):
                deliver = self.deliver.get(row.service)
                if deliver is not None:
                    await deliver(connection, row, config, answer)
        self.passed("done", row.id)

    async def decide(self, row: Purchase, status: str, reason: str, detail: str) -> None:
        """Decide that it is refused or cancelled, unless it is decided already."""
        async with self._database.write() as connection:
            await self._mark(connection, row, status, reason, detail, {})
        self.passed(status, row.id)

    async def _mark(
        self,
        connection: Connection,
        row: Purchase,
        status: str,
        reason: str,
        detail: str,
        answer: Mapping[str, Any],
    ) -> bool:
        now = self._clock()
        return await store.mark_decided(
            connection,
            row.id,
            status=status,
            reason=str(reason),
            detail=detail,
            answer=answer,
            now=now,
            until=now + LEASE,
        )

    async def _settle(self, row: Purchase) -> None:
        """Let the money follow the decision; a repeat gets the stored answer."""
        charge, currency = await self._stop(row)
        self.passed("stopped", row.id)
        async with self._database.write() as connection:
            await store.mark_settled(connection, row.id, self._clock(), charge, currency)
        self.passed("settled", row.id)

    async def _stop(self, row: Purchase) -> tuple[Decimal | None, str]:
        delivered = row.status == "done"
        try:
            reply, _ = await self._charging.stop(
                switch=SWITCH,
                session_id=row.order_id,
                used_ms=1000 if delivered else 0,
                cause=row.status if delivered or not row.reason else row.reason[:64],
            )
        except NotFound:
            if delivered:
                raise
            return None, ""  # nothing was ever held
        return reply.charge, reply.currency


def seen_reason(reply: Reply, party_id: int) -> str:
    """Why a charge was refused, as the party may know it: that of others is "upstream"."""
    return str(reply.reason if reply.refused_by in {0, party_id} else Reason.UPSTREAM)


def _kept(answer: Answer) -> dict[str, Any]:
    """What an answer said; what it left out does not wipe out what an earlier one said."""
    return {name: value for name, value in answer.fields.items() if value is not None}


def values_of(row: Purchase) -> dict[str, str]:
    """What the supplier's templates may say of an order."""
    return {
        **row.request,
        "order_id": row.order_id,
        "called": row.called,
        "reference": str(row.answer.get("reference", "")),
    }
