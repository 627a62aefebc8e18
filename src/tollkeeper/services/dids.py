"""Telephone numbers (DIDs): inventory, order, monthly fee, release, quarantine.

What a number costs is on the cards of everybody between it and the operator: the service ``did_setup``
once and ``did`` each month, looked up by the number (or by the digits of its price class). An order
takes the number first, so that of many who want it one gets it. Then the first month is charged, for the
days that are left of it, then the set-up, then the number is the party's; where a step is refused what
was charged before is given back. Each step can be repeated, so whoever finds an order goes on with it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from decimal import Decimal

import structlog

from tollkeeper.core.numbering import normalise
from tollkeeper.core.records import Outcome as ReplyOutcome
from tollkeeper.errors import Busy, Conflict, Forbidden, InvalidInput, NotFound, TollkeeperError
from tollkeeper.gateways.supplier import Outcome
from tollkeeper.services.charging import Charging
from tollkeeper.services.fees import Fees
from tollkeeper.services.fields import check_code
from tollkeeper.services.meters import zone_of
from tollkeeper.services.ordering import seen_reason
from tollkeeper.services.purchases import Purchases
from tollkeeper.services.suppliers import unknown_supplier
from tollkeeper.store import dids as store
from tollkeeper.store import fees as fee_store
from tollkeeper.store.changes import record
from tollkeeper.store.db import Connection, Database
from tollkeeper.store.dids import Did, DidEvent, DidFilter, DidOrder
from tollkeeper.store.fees import Fee
from tollkeeper.store.purchases import Purchase, read_purchase
from tollkeeper.store.suppliers import party_in_scope, read_supplier

__all__ = ["Did", "DidEvent", "DidFilter", "DidOrder", "Dids"]

SETUP, MONTHLY = "did_setup", "did"
SWITCH = "dids"
"""In whose name the set-up of own numbers is charged."""
STUCK = timedelta(seconds=30)
"""An order that is pending for longer was left by whoever began it, or waits for its supplier."""
RETRY = timedelta(minutes=15)
"""After a supplier could not be asked to take a number back."""
_DESTINATION = re.compile(r"[!-~]{0,200}")
_COUNTRY = re.compile(r"[A-Za-z]{2}")

_log = structlog.get_logger()


class Dids:
    """The use cases of numbers. Without ``purchases`` only those of our own can be ordered."""

    def __init__(
        self,
        *,
        database: Database,
        charging: Charging,
        fees: Fees,
        clock: Callable[[], datetime],
        purchases: Purchases | None = None,
    ) -> None:
        self._database = database
        self._charging = charging
        self._fees = fees
        self._clock = clock
        self._purchases = purchases
        self._after = 0

    # --- looking ---------------------------------------------------------------------------------

    async def get(self, number: str, *, scope: int | None = None) -> Did:
        """One number, with the party that has it.

        Raises:
            NotFound: there is none, or it is somebody else's.
        """
        digits = normalise(number, field="number")
        async with self._database.read(scope=scope) as connection:
            found = await store.read_did(connection, digits, own=scope is not None)
        if found is None:
            raise _unknown(digits)
        return found

    async def list(self, wanted: DidFilter, *, scope: int | None = None) -> Sequence[Did]:
        """Numbers in their order; a party sees those that can be ordered and its own.

        Raises:
            NotFound: no such party. InvalidInput: a country that is none.
        """
        if wanted.party:
            self._charging.party(wanted.party, scope)
        if wanted.country and _COUNTRY.fullmatch(wanted.country) is None:
            raise InvalidInput("country: give two letters by ISO 3166", field="country")
        async with self._database.read(scope=scope) as connection:
            return await store.read_dids(connection, wanted, own=scope is not None)

    async def history(self, number: str, *, scope: int | None = None) -> Sequence[DidEvent]:
        """What happened to a number, the oldest first; a party sees what concerns it and those below it."""
        digits = (await self.get(number, scope=scope)).number
        async with self._database.read(scope=scope) as connection:
            return await store.read_events(connection, digits)

    async def set_destination(
        self, number: str, destination: str, *, actor: str, scope: int | None = None
    ) -> Did:
        """Say where calls to a number go.

        Raises:
            NotFound: no such number. Conflict: nobody has it. InvalidInput: a destination with spaces.
        """
        if _DESTINATION.fullmatch(destination) is None:
            raise InvalidInput(
                "destination: give up to 200 characters without spaces", field="destination"
            )
        did = await self._assigned(number, scope)
        async with self._database.write() as connection:
            await store.set_destination(connection, did.id, destination)
            await self._record(connection, did, "did.destination", actor)
        return await self.get(number, scope=scope)

    async def _assigned(self, number: str, scope: int | None) -> Did:
        did = await self.get(number, scope=scope)
        if did.status != "assigned":
            raise Conflict(f"{did.number} is {did.status}: nobody has it", code="not_assigned")
        return did

    async def _record(self, connection: Connection, did: Did, action: str, actor: str) -> None:
        await record(
            connection,
            actor=actor,
            action=action,
            subject=f"did {did.number}",
            detail={"party": did.party},
            notice=f"did:{did.id}",
        )

    # --- ordering --------------------------------------------------------------------------------

    async def order(
        self,
        *,
        party: str,
        number: str,
        request_id: str,
        supplier: str = "",
        item: str = "",
        actor: str = "",
        scope: int | None = None,
    ) -> DidOrder:
        """Order a number for a party, from our inventory or from a ``supplier``; return the order.

        ``request_id`` is the buyer's own name of the order: the same one again is the same order. ``item``
        are the digits of the price class of a supplier's number. A refusal is a state of the order.

        Raises:
            NotFound: no such party, number or supplier. Conflict: somebody has the number, or the request
                id names another order. Forbidden: a party does not choose the supplier. Busy.
        """
        check_code(request_id, field="request_id")
        digits = normalise(number, field="number")
        if supplier and scope is not None:
            raise Forbidden("suppliers are chosen by the operator only", code="operator_only")
        if item and (not item.isascii() or not item.isdigit() or len(item) > 15):
            raise InvalidInput("item: give up to 15 digits", field="item")
        async with self._database.write() as connection:
            party_id = await party_in_scope(connection, party, scope)
            if party_id is None:
                raise NotFound(f'there is no party "{party}"', code="unknown_party", field="party")
            known = await store.find_order(connection, party_id, request_id)
            if known is not None:
                if known.number != digits:
                    raise Conflict(
                        f'request_id: "{request_id}" is the name of another order; nothing was done',
                        code="request_id_reused",
                        field="request_id",
                    )
                order_id = known.id
            else:
                did_id = await self._reserve(connection, digits, party_id, supplier, item)
                order_id = await self._write_order(
                    connection, did_id, (party, party_id), request_id, supplier, actor
                )
        return await self.finish(order_id)

    async def _reserve(
        self, connection: Connection, digits: str, party_id: int, supplier: str, item: str
    ) -> int:
        """Take the number, which one of many can; no supplier is asked for one that somebody has."""
        now = self._clock()
        if supplier:
            found = await read_supplier(connection, supplier)
            if found is None or found.kind != "did":
                raise unknown_supplier(supplier)
            did_id = await store.reserve_new(
                connection, digits, item=item, party_id=party_id, supplier_id=found.id, now=now
            )
        else:
            did_id = await store.reserve(connection, digits, party_id, now)
        if did_id is not None:
            return did_id
        if await store.read_did(connection, digits, own=False) is None:
            raise _unknown(digits)
        raise Conflict(
            f"{digits} cannot be ordered at the moment; choose another number",
            code="number_taken",
            field="number",
        )

    async def _write_order(
        self,
        connection: Connection,
        did_id: int,
        buyer: tuple[str, int],
        request_id: str,
        supplier: str,
        actor: str,
    ) -> int:
        now = self._clock()
        party, party_id = buyer
        entry = self._charging.party(party, None)
        number, item = await store.read_item(connection, did_id)
        fee = Fee(
            name=f"number {number}",
            party_id=party_id,
            service=MONTHLY,
            called=item or number,
            period="month",
            begins_on=now.astimezone(zone_of(entry.timezone)).date(),
            prorate=True,
            # It is charged here and now or not at all; days of grace are for the months to come.
            grace_days=0,
            did_id=did_id,
            actor=actor,
            created_at=now,
        )
        fee_id = await fee_store.add_fee(connection, fee)
        order_id = None
        if fee_id is not None:
            order_id = await store.add_order(
                connection,
                did_id=did_id,
                party_id=party_id,
                request_id=request_id,
                fee_id=fee_id,
                supplier=supplier,
                actor=actor,
                now=now,
            )
        if order_id is None:
            raise Busy("the order is just being written; try again", code="contended")
        await store.add_event(connection, did_id, now, "ordered", party_id, supplier, actor)
        return order_id

    async def finish(self, order_id: int) -> DidOrder:
        """Go on with an order until it is decided, or waits for its supplier; return it.

        Raises:
            NotFound: no such order. Busy: overload; it is gone on with later.
        """
        order = await self.get_order(order_id)
        if order.status != "pending":
            return order
        fee = await self._fees.charge(order.fee_id)
        if fee.paid_until == fee.begins_on:
            return await self._refuse(order, fee, fee.reason)
        if order.supplier:
            bought = await self._buy(order)
            if bought.open or bought.settled_at is None:
                return order
            if bought.status != "done":
                return await self._refuse(order, fee, bought.reason)
            charge, currency = bought.charge, bought.currency
            country = str(bought.answer.get("country", "")).upper()
            return await self._assign(
                order, charge, currency, bought.id, country if _COUNTRY.fullmatch(country) else ""
            )
        reply, _ = await self._charging.charge_event(
            switch=SWITCH,
            event_id=f"setup-{order.id}",
            party=order.party,
            called=order.item or order.number,
            service=SETUP,
            units=1,
            once=True,
        )
        if reply.outcome is ReplyOutcome.REFUSED:
            return await self._refuse(order, fee, seen_reason(reply, order.party_id))
        return await self._assign(order, reply.charge, reply.currency, None, "")

    async def _buy(self, order: DidOrder) -> Purchase:
        if self._purchases is None:
            raise Busy("this process asks no suppliers; ask another one", code="no_suppliers")
        return await self._purchases.buy(
            party=order.party,
            service=SETUP,
            item=order.item or order.number,
            supplier=order.supplier,
            called=order.item or order.number,
            number=order.number,
            request_id=f"did-{order.id}",
            actor=order.actor,
        )

    async def _assign(
        self,
        order: DidOrder,
        charge: Decimal | None,
        currency: str,
        purchase_id: int | None,
        country: str,
    ) -> DidOrder:
        now = self._clock()
        async with self._database.write() as connection:
            stands = await store.lock_order(connection, order.id)
            if stands is not None and stands.status == "pending":
                grace = await store.assign(
                    connection, order.did_id, country=country, purchase_id=purchase_id, now=now
                )
                await fee_store.set_grace(connection, order.fee_id, grace or 0)
                await store.end_order(
                    connection, order.id, status="done", now=now, charge=charge, currency=currency
                )
                await store.add_event(
                    connection, order.did_id, now, "assigned", order.party_id, "", order.actor
                )
                await record(
                    connection,
                    actor=order.actor,
                    action="did.order",
                    subject=f"did {order.number}",
                    detail={"party": order.party, "supplier": order.supplier},
                    notice=f"did:{order.did_id}",
                )
        return await self.get_order(order.id)

    async def _refuse(self, order: DidOrder, fee: Fee, reason: str) -> DidOrder:
        """Give back what was charged already, and let others have the number."""
        await self._fees.give_back_first(fee)
        now = self._clock()
        async with self._database.write() as connection:
            stands = await store.lock_order(connection, order.id)
            if stands is not None and stands.status == "pending":
                await store.give_up(connection, order.did_id)
                await store.end_order(
                    connection, order.id, status="refused", now=now, reason=reason
                )
                await store.add_event(
                    connection, order.did_id, now, "refused", order.party_id, reason, order.actor
                )
        return await self.get_order(order.id)

    async def get_order(self, order_id: int, *, scope: int | None = None) -> DidOrder:
        """One order.

        Raises:
            NotFound: there is none.
        """
        async with self._database.read() as connection:
            found = await store.read_order(connection, order_id)
            if found is not None and scope is not None:
                seen = await party_in_scope(connection, found.party, scope)
                found = found if seen is not None else None
        if found is None:
            raise NotFound(f"there is no order {order_id}", code="unknown_order")
        return found

    # --- releasing -------------------------------------------------------------------------------

    async def release(self, number: str, *, actor: str, scope: int | None = None) -> None:
        """Take a number from its party; nothing is paid back. It is in quarantine from now on.

        Raises:
            NotFound: no such number. Conflict: nobody has it.
        """
        did = await self._assigned(number, scope)
        now = self._clock()
        async with self._database.write() as connection:
            fee_id = await store.fee_of(connection, did.id)
            if fee_id is not None and await fee_store.lock_fee(connection, fee_id) is not None:
                entry = self._charging.party(did.party, None)
                today = now.astimezone(zone_of(entry.timezone)).date()
                await fee_store.close_fee(connection, fee_id, status="ended", on=today)
            if not await store.quarantine(connection, did.id, now, "", actor):
                raise Conflict(f"{did.number} was released already", code="not_assigned")
            await self._record(connection, did, "did.release", actor)

    # --- what jobs do ----------------------------------------------------------------------------

    async def go_on(self, *, limit: int = 100) -> int:
        """Go on with orders that were left, and end what quarantine is over; how many were looked at."""
        now = self._clock()
        looked = 0
        async with self._database.read() as connection:
            pending = await store.pending_orders(connection, now - STUCK, self._after, limit)
            over = await store.out_of_quarantine(connection, now, limit)
        # Orders that wait for a supplier do not keep those behind them from being looked at.
        self._after = pending[-1] if len(pending) == limit else 0
        for order_id in pending:
            try:
                order = await self.finish(order_id)
            except TollkeeperError as error:
                _log.warning("did.order_waits", order=order_id, why=error.detail)
            else:
                looked += order.status != "pending"
        for did in over:
            looked += await self._end_quarantine(did, now)
        return looked

    async def _end_quarantine(self, did: store.Quarantined, now: datetime) -> bool:
        """Let others have a number of our own; give one of a supplier back to it."""
        status = "available" if did.supplier_id is None else "released"
        if did.purchase_id is not None and not await self._given_back(did.purchase_id):
            async with self._database.write() as connection:
                await store.later(connection, did.id, now + RETRY)
            return False
        async with self._database.write() as connection:
            if await store.end_quarantine(connection, did.id, status):
                event = "available" if did.supplier_id is None else "given back"
                await store.add_event(connection, did.id, now, event, None, "", "")
        return True

    async def _given_back(self, purchase_id: int) -> bool:
        if self._purchases is None:
            return False
        try:
            async with self._database.read() as connection:
                purchase = await read_purchase(connection, purchase_id)
            if purchase is None:
                return True
            return await self._purchases.release(purchase) is not Outcome.PENDING
        except TollkeeperError as error:
            _log.warning("did.not_given_back", purchase=purchase_id, why=error.detail)
            return False


def _unknown(digits: str) -> NotFound:
    return NotFound(f"there is no number {digits} here", code="unknown_number", field="number")
