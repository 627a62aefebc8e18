"""Orders at suppliers: buy, look, give back, and what becomes of orders of which nobody can tell.

The steps that an order goes through are in :mod:`tollkeeper.services.ordering`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any

import structlog

from tollkeeper.core.numbering import normalise
from tollkeeper.core.reasons import Reason
from tollkeeper.core.records import Outcome as ReplyOutcome
from tollkeeper.errors import Busy, Conflict, InvalidInput, NotFound
from tollkeeper.gateways.supplier import Answer, Outcome, Refused, SupplierGateway, Unknown
from tollkeeper.gateways.supplier_settings import SupplierConfig
from tollkeeper.services.charging import Charging
from tollkeeper.services.fields import check_choice, check_code, check_text
from tollkeeper.services.ordering import LEASE, SWITCH, Deliver, Ordering, values_of
from tollkeeper.services.suppliers import config_of, read_config, unknown_supplier
from tollkeeper.store import purchases as store
from tollkeeper.store.changes import record
from tollkeeper.store.db import Database
from tollkeeper.store.purchases import NewPurchase, Purchase, PurchaseFilter
from tollkeeper.store.suppliers import party_in_scope, read_supplier

__all__ = ["Deliver", "Purchase", "PurchaseFilter", "Purchases"]

HOLD_MARGIN = timedelta(seconds=45)
"""A hold that ends sooner is prolonged."""
BATCH = 20

_log = structlog.get_logger()


class Purchases:
    """Orders at suppliers. What becomes of what was bought is said by ``ordering.deliver``."""

    def __init__(
        self,
        *,
        database: Database,
        charging: Charging,
        gateway: SupplierGateway,
        clock: Callable[[], datetime],
        new_id: Callable[[], str],
    ) -> None:
        self._database = database
        self._charging = charging
        self._gateway = gateway
        self._clock = clock
        self._new_id = new_id
        self.ordering = Ordering(database=database, charging=charging, gateway=gateway, clock=clock)

    # --- buying ----------------------------------------------------------------------------------

    async def buy(
        self,
        *,
        party: str,
        service: str,
        item: str,
        supplier: str,
        called: str,
        request_id: str,
        number: str = "",
        supplier_item: str = "",
        actor: str = "",
        scope: int | None = None,
    ) -> Purchase:
        """Order one ``item`` for a party, and return the order as far as it came.

        ``called`` are the digits by which the party's rate cards price it (for a DID its number),
        ``request_id`` the buyer's own name of the order: the same one again is the same order.
        ``number`` is what templates see as {number}. A refusal is a state of the order, not an error.

        Raises:
            NotFound: no such party (or not in ``scope``), no such supplier.
            InvalidInput: something cannot be ordered. Conflict: the request id names another order.
            Busy: the database does not answer; the same request again goes on.
        """
        check_text(item, field="item", longest=200)
        check_code(request_id, field="request_id")
        digits = normalise(called)
        now = self._clock()
        async with self._database.write() as connection:
            party_id = await party_in_scope(connection, party, scope)
            if party_id is None:
                raise NotFound(f'there is no party "{party}"', code="unknown_party", field="party")
            found = await read_supplier(connection, supplier)
            if found is None:
                raise unknown_supplier(supplier)
            known = await store.find_purchase(connection, party_id, request_id)
            if known is None:
                if not found.enabled or not config_of(found).offers("order"):
                    raise InvalidInput(
                        f'supplier: "{supplier}" takes no orders at the moment', field="supplier"
                    )
                new = NewPurchase(
                    party_id,
                    request_id,
                    self._new_id(),
                    service,
                    item,
                    digits,
                    found.id,
                    {"item": supplier_item or item, "number": number or digits, "party": party},
                    actor,
                )
                added = await store.add_purchase(connection, new, now, now + LEASE)
            else:
                added = None
        if added is not None:
            self.ordering.passed("written", added)
            return await self.ordering.go_on(added)
        return await self._again(party_id, request_id, (service, item, digits))

    async def _again(
        self, party_id: int, request_id: str, wanted: tuple[str, str, str]
    ) -> Purchase:
        """The order that is there already; it goes on if nobody is at it."""
        async with self._database.read() as connection:
            known = await store.find_purchase(connection, party_id, request_id)
            if known is None:
                raise Busy("the order is just being written; try again", code="contended")
            if (known.service, known.item, known.called) != wanted:
                raise Conflict(
                    f'request_id: "{request_id}" is the name of another order; nothing was done',
                    code="request_id_reused",
                    field="request_id",
                )
            now = self._clock()
            if known.settled_at is None and await store.take(
                connection, known.id, now, now + LEASE
            ):
                return await self.ordering.go_on(known.id)
        return known

    async def release(self, purchase: Purchase) -> Outcome:
        """Give back to the supplier what was bought; without such an operation there is nothing to do.

        May be repeated. What this means for money is the service's affair.

        Raises:
            Conflict: the supplier will not. Busy: it is not known; try again.
        """
        return (await self.ask(purchase, "release")).outcome

    async def ask(self, purchase: Purchase, operation: str) -> Answer:
        """Ask the supplier of an order for something that may be repeated: activate, release.

        Raises:
            Conflict: the supplier will not. Busy: what came of it is not known; try again.
        """
        async with self._database.read() as connection:
            full = await store.read_purchase(connection, purchase.id)
            if full is None:
                raise NotFound(f"there is no order {purchase.id}", code="unknown_order")
            config = await read_config(connection, full.supplier_id)
        if not config.offers(operation):
            return Answer(Outcome.DONE)
        return await self._ask(config, operation, values_of(full), f"{full.order_id}-{operation}")

    async def _ask(
        self, config: SupplierConfig, operation: str, values: Mapping[str, str], key: str
    ) -> Answer:
        try:
            return await self._gateway.call(config, operation, values, key=key)
        except Refused as error:
            raise Conflict(
                f"the supplier refuses to {operation}: {error.reason}", code="supplier_refused"
            ) from None
        except Unknown as error:
            _log.warning("supplier.unknown", supplier=config.code, detail=error.detail)
            raise Busy("the supplier does not answer; try again", code="supplier_away") from None

    async def search(self, *, supplier: str, query: str = "", item: str = "") -> Mapping[str, Any]:
        """Ask a supplier what it has; returns the fields that its configuration keeps of the answer.

        Raises:
            NotFound: no such supplier. InvalidInput: it cannot be searched.
            Conflict: it refuses. Busy: it does not answer.
        """
        async with self._database.read() as connection:
            found = await read_supplier(connection, supplier)
        if found is None:
            raise unknown_supplier(supplier)
        config = config_of(found)
        if not found.enabled or not config.offers("search"):
            raise InvalidInput(f'supplier: "{supplier}" cannot be searched', field="supplier")
        values = {"query": query, "number": query, "item": item}
        return (await self._ask(config, "search", values, self._new_id())).fields

    # --- looking ---------------------------------------------------------------------------------

    async def order(self, order_id: str, *, scope: int | None = None) -> Purchase:
        """One order by our id of it.

        Raises:
            NotFound: there is none.
        """
        async with self._database.read(scope=scope) as connection:
            found = await store.read_order(connection, order_id, own=scope is not None)
        if found is None:
            raise NotFound(f'there is no order "{order_id[:80]}"', code="unknown_order")
        return found

    async def orders(self, wanted: PurchaseFilter, *, scope: int | None = None) -> list[Purchase]:
        """Orders, the oldest first."""
        async with self._database.read(scope=scope) as connection:
            return await store.read_purchases(connection, wanted, own=scope is not None)

    # --- what jobs and people do -------------------------------------------------------------------

    async def advance(self) -> bool:
        """Go on with orders whose time has come, whoever began them; True when there may be more."""
        now = self._clock()
        async with self._database.write() as connection:
            ids = await store.take_due(connection, now, now + LEASE, BATCH)
        results = await asyncio.gather(
            *(self.ordering.go_on(id_) for id_ in ids), return_exceptions=True
        )
        for id_, result in zip(ids, results, strict=True):
            if isinstance(result, Busy):
                _log.info("purchase.waits", purchase=id_, why=result.code)
            elif isinstance(result, BaseException):
                _log.error(
                    "purchase.failed", purchase=id_, error=f"{type(result).__name__}: {result}"
                )
        return len(ids) == BATCH

    async def keep_holds(self) -> bool:
        """Prolong the holds of orders that are not decided; True when there may be more."""
        now = self._clock()
        async with self._database.read() as connection:
            ending = await store.hold_ending(connection, now + HOLD_MARGIN, BATCH)
        for id_, order_id in ending:
            until = await self._prolong(order_id, now)
            if until is None:
                # The order goes on; what it costs is then posted as a late charge.
                _log.warning("purchase.hold_lost", order=order_id)
            async with self._database.write() as connection:
                await store.write_hold_until(connection, id_, until)
        return len(ending) == BATCH

    async def _prolong(self, order_id: str, now: datetime) -> datetime | None:
        try:
            reply, _ = await self._charging.update(
                switch=SWITCH,
                session_id=order_id,
                used_ms=0,
                request_id=f"keep-{int(now.timestamp())}",
                extend=False,
            )
        except (Conflict, NotFound):
            return None
        return None if reply.outcome is ReplyOutcome.CLOSED else reply.expires_at

    async def resolve(
        self, order_id: str, outcome: str, *, actor: str, answer: Mapping[str, str] | None = None
    ) -> Purchase:
        """Say what became of an order that nobody can tell of: ``done``, ``refused``, or ``ask`` again.

        ``answer`` is what the supplier would have answered, such as the iccid of an eSIM.

        Raises:
            NotFound: no such order. Conflict: it is decided, or the supplier was never asked.
            InvalidInput: what was delivered is not said.
        """
        check_choice(outcome, ("done", "refused", "ask"), field="outcome")
        row = await self.order(order_id)
        if row.status not in {"ordered", "unknown"}:
            raise Conflict(
                f'the order is "{row.status}"; only one whose outcome is not known can be resolved',
                code="order_decided",
            )
        async with self._database.write() as connection:
            await record(
                connection,
                actor=actor,
                action="purchase.resolve",
                subject=f"order {order_id}",
                detail={"outcome": outcome, "answer": dict(answer or {})},
                notice=f"purchase:{row.id}",
            )
        if outcome == "ask":
            await self.ordering.wait(row, "unknown", "asked again by hand", self._clock(), {})
            return await self.order(order_id)
        try:
            if outcome == "done":
                async with self._database.read() as connection:
                    config = await read_config(connection, row.supplier_id)
                await self.ordering.deliver_goods(row, config, {**row.answer, **(answer or {})})
            else:
                await self.ordering.decide(row, "refused", Reason.SUPPLIER_REFUSED, "said by hand")
        except Unknown as error:
            raise InvalidInput(f"answer: {error.detail}", field="answer") from None
        return await self.ordering.go_on(row.id)
