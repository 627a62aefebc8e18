"""eSIM profiles: ordered from a supplier, activated, used, expired, given back.

What can be ordered is in the suppliers' catalogues (settings.items). An item costs what the party's
plan says for the service ``esim`` and the item's rate_key. The volume that an item brings becomes a
package of the party's data plan with the activation, and ends with the profile.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import structlog

from tollkeeper.errors import Busy, Conflict, NotFound, TollkeeperError
from tollkeeper.gateways.supplier import Outcome, Unknown
from tollkeeper.gateways.supplier_settings import CatalogueItem, SupplierConfig
from tollkeeper.services.purchases import Purchase, Purchases
from tollkeeper.services.suppliers import config_of
from tollkeeper.store import esims as store
from tollkeeper.store.changes import record
from tollkeeper.store.db import Connection, Database
from tollkeeper.store.esims import Esim, NewEsim, Volume
from tollkeeper.store.meters import MeterKey, add_meter
from tollkeeper.store.suppliers import party_in_scope, read_suppliers

__all__ = ["Catalogued", "Esim", "EsimOrder", "Esims"]

SERVICE = "esim"
RETRY = timedelta(minutes=15)
"""After a supplier could not be asked to take a profile back."""
BATCH = 20
_ICCID = re.compile(r"[0-9]{18,20}F?")
"""ITU-T E.118: up to 19 digits, some platforms add a check digit or the filler of the SIM's file."""

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Catalogued:
    """Something that can be ordered, and where."""

    supplier: str
    code: str
    item: CatalogueItem


@dataclass(frozen=True, slots=True)
class EsimOrder:
    """An order, and the profile once there is one."""

    order: Purchase
    esim: Esim | None


class Esims:
    """The use cases of eSIM profiles."""

    def __init__(
        self, *, database: Database, purchases: Purchases, clock: Callable[[], datetime]
    ) -> None:
        self._database = database
        self._purchases = purchases
        self._clock = clock
        purchases.ordering.deliver[SERVICE] = self._deliver

    async def catalogue(self) -> list[Catalogued]:
        """What can be ordered: of an item that several have, that of the first supplier by code."""
        found: dict[str, Catalogued] = {}
        async with self._database.read() as connection:
            suppliers = await read_suppliers(connection, kind="esim")
        for supplier in suppliers:
            if supplier.enabled:
                for code, item in config_of(supplier).settings.items.items():
                    found.setdefault(code, Catalogued(supplier.code, code, item))
        return [found[code] for code in sorted(found)]

    async def order(
        self,
        *,
        party: str,
        item: str,
        request_id: str,
        actor: str = "",
        scope: int | None = None,
    ) -> EsimOrder:
        """Order a profile; the same request id again is the same order.

        Raises:
            NotFound: no such item or party. Conflict: the request id names another order. Busy.
        """
        catalogue = {one.code: one for one in await self.catalogue()}
        chosen = catalogue.get(item)
        if chosen is None:
            raise NotFound(f'there is no eSIM "{item[:80]}"', code="unknown_item", field="item")
        bought = await self._purchases.buy(
            party=party,
            service=SERVICE,
            item=item,
            supplier=chosen.supplier,
            called=chosen.item.rate_key,
            supplier_item=chosen.item.supplier_item,
            request_id=request_id,
            actor=actor,
            scope=scope,
        )
        return EsimOrder(bought, await self._of(bought))

    async def _of(self, order: Purchase) -> Esim | None:
        async with self._database.read() as connection:
            iccid = await store.iccid_of(connection, order.id)
            return await store.read_esim(connection, iccid) if iccid is not None else None

    async def _deliver(
        self,
        connection: Connection,
        order: Purchase,
        config: SupplierConfig,
        answer: Mapping[str, Any],
    ) -> None:
        """Make the profile that was delivered, with what its item says at this moment."""
        iccid = str(answer.get("iccid", "")).strip()
        if _ICCID.fullmatch(iccid) is None:
            raise Unknown("the supplier's answer has no ICCID at the place that is configured")
        item = config.settings.items.get(order.item)
        new = NewEsim(
            iccid=iccid,
            party_id=order.party_id,
            purchase_id=order.id,
            item=order.item,
            activation_code=str(answer.get("activation_code", ""))[:500],
            data_bytes=item.data_bytes if item is not None else None,
            package=item.package if item is not None else "",
            days=item.days if item is not None else 30,
            created_at=self._clock(),
            supplier_id=order.supplier_id,
        )
        if not await store.add_esim(connection, new):
            raise Unknown(f"the supplier delivered the profile {iccid}, which is another order's")

    async def get(self, iccid: str, *, scope: int | None = None) -> Esim:
        """One profile.

        Raises:
            NotFound: there is none.
        """
        async with self._database.read(scope=scope) as connection:
            found = await store.read_esim(connection, iccid)
        if found is None:
            raise NotFound(f'there is no eSIM "{iccid[:40]}"', code="unknown_esim")
        return found

    async def list(
        self,
        *,
        party: str = "",
        status: str = "",
        after: int = 0,
        limit: int = 100,
        scope: int | None = None,
    ) -> list[Esim]:
        """Profiles, the oldest first."""
        async with self._database.read(scope=scope) as connection:
            if party and await party_in_scope(connection, party, scope) is None:
                raise NotFound(f'there is no party "{party}"', code="unknown_party", field="party")
            return await store.read_esims(
                connection, party=party, status=status, after=after, limit=limit
            )

    # --- its life ----------------------------------------------------------------------------------

    async def activate(self, iccid: str, *, actor: str, scope: int | None = None) -> Esim:
        """Activate a profile: from now on it may be used, and its volume is there. May be repeated.

        Raises:
            NotFound: no such profile. Conflict: it is over, the supplier refuses, or the party has no
            data plan that its volume could count for. Busy: the supplier does not answer; try again.
        """
        esim = await self.get(iccid, scope=scope)
        if esim.status == "active":
            return esim
        if esim.status != "ordered":
            raise Conflict(f"eSIM {iccid} is {esim.status}", code="esim_over")
        if esim.data_bytes is not None:
            async with self._database.read() as connection:
                if not (await store.payer_of(connection, esim.party_id))[1]:
                    raise Conflict(
                        f"{esim.party} has no rate plan that the data of this eSIM could count for",
                        code="no_plan",
                    )
        order = await self._purchases.order(esim.order_id)
        if (await self._purchases.ask(order, "activate")).outcome is not Outcome.DONE:
            raise Busy("the supplier has not activated it yet; try again", code="supplier_away")
        now = self._clock()
        async with self._database.write() as connection:
            if await store.lock_esim(connection, esim.id) == "ordered":
                ends = now + timedelta(days=esim.days)
                meter_id = await self._add_volume(connection, esim, now, ends, actor)
                await store.mark_activated(connection, esim.id, now, ends, meter_id)
                await self._record(connection, esim, "esim.activate", actor)
        return await self.get(iccid, scope=scope)

    async def _add_volume(
        self, connection: Connection, esim: Esim, begins: datetime, ends: datetime, actor: str
    ) -> int | None:
        if esim.data_bytes is None:
            return None
        payer, plan = await store.payer_of(connection, esim.party_id)
        meter_id = await add_meter(
            connection,
            MeterKey(payer, "package", f"esim/{esim.iccid}", begins),
            ends_at=ends,
            unit="byte",
            cap=Decimal(esim.data_bytes),
        )
        if meter_id is None:
            raise Busy("this eSIM is just being activated; try again", code="contended")
        await store.add_volume(
            connection,
            Volume(
                party_id=payer,
                plan=plan,
                code=esim.package,
                request=f"esim/{esim.iccid}",
                units=esim.data_bytes,
                meter_id=meter_id,
                begins_at=begins,
                ends_at=ends,
                actor=actor,
            ),
        )
        await self._tell(connection, payer)
        return meter_id

    async def release(self, iccid: str, *, actor: str, scope: int | None = None) -> Esim:
        """Give a profile back to its supplier; nothing is paid back. May be repeated.

        Raises:
            NotFound: no such profile. Conflict: the supplier refuses. Busy: it does not answer.
        """
        esim = await self.get(iccid, scope=scope)
        if esim.status != "released":
            await self._release(esim, actor)
        return await self.get(iccid, scope=scope)

    async def _release(self, esim: Esim, actor: str) -> None:
        order = await self._purchases.order(esim.order_id)
        if await self._purchases.release(order) is Outcome.PENDING:
            raise Busy("the supplier has not taken it back yet; try again", code="supplier_away")
        async with self._database.write() as connection:
            payer = await store.end_volume(connection, esim.id)
            if await store.mark_released(connection, esim.id, self._clock()):
                await self._record(connection, esim, "esim.release", actor)
            if payer is not None:
                await self._tell(connection, payer)

    async def expire(self) -> bool:
        """End the profiles whose time is over and give them back; True when there may be more."""
        now = self._clock()
        async with self._database.read() as connection:
            due = await store.due_esims(connection, now, BATCH)
        for iccid in due:
            esim = await self.get(iccid)
            async with self._database.write() as connection:
                # Due again later: who finds it expired tries to give it back once more.
                await store.mark_expired(connection, esim.id, now + RETRY)
                await store.mark_later(connection, esim.id, now + RETRY)
            try:
                await self._release(esim, "expiry")
            except Conflict as error:
                _log.warning("esim.not_released", iccid=iccid, why=error.detail)
                async with self._database.write() as connection:
                    await store.mark_later(connection, esim.id, None)
            except TollkeeperError as error:
                _log.warning("esim.not_released", iccid=iccid, why=error.detail)
        return len(due) == BATCH

    async def _record(self, connection: Connection, esim: Esim, action: str, actor: str) -> None:
        await record(
            connection,
            actor=actor,
            action=action,
            subject=f"esim {esim.iccid}",
            detail={"party": esim.party, "item": esim.item},
            notice=f"esim:{esim.id}",
        )

    async def _tell(self, connection: Connection, party_id: int) -> None:
        """All processes read the packages of a party again."""
        await store.notify_party(connection, party_id)
