"""Packages: units of a plan that are bought for one period, gone on with or ended when it is over.

A sale is written down before its price is charged, and the charge has a key made of the sale and its
term. So whoever finds a sale that somebody left in the middle can go on: nothing is charged twice,
and no package that was paid is lost.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal

from tollkeeper.core.periods import term_after
from tollkeeper.core.plans import PackageRule, Plan
from tollkeeper.core.records import Outcome
from tollkeeper.core.services import service_of
from tollkeeper.errors import Breach, Conflict, InvalidInput, NotFound
from tollkeeper.services.charging import Charging
from tollkeeper.services.directory import Directory
from tollkeeper.services.meters import zone_of
from tollkeeper.services.offers import Fixed
from tollkeeper.services.scope import check_below
from tollkeeper.store import packages as store
from tollkeeper.store.changes import record
from tollkeeper.store.db import Connection, Database
from tollkeeper.store.directory import PartyEntry
from tollkeeper.store.meters import MeterKey, add_meter, find_meter
from tollkeeper.store.packages import Sale

SWITCH = "packages"
"""In whose name the prices of packages are charged."""
STUCK = timedelta(seconds=30)
"""A sale that is pending for longer was left by whoever began it."""


class Packages:
    """Buys packages, shows them, and goes on with them at the end of their terms."""

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

    async def buy(
        self,
        *,
        party: str,
        package: str,
        actor: str,
        request: str | None = None,
        scope: int | None = None,
    ) -> Sale:
        """Buy a package of a party's plan; its term begins now. Asked again with ``request``: bought once.

        Returns the sale: ``active``, or ``refused`` with the reason, where the money does not cover it.

        Raises:
            NotFound: no such party, or no such package in its plan.
            Conflict: the package is part of the plan, or ``request`` was for something else.
            Forbidden: a scope buys for itself; only for those below it.
            InvalidInput: a user has no packages of its own.
        """
        entry = self._charging.party(party, scope)
        plan, rule = self._rule(entry, package)
        if rule.included:
            raise Conflict(
                f'package "{package}" is part of the plan {plan.code}: there is nothing to buy',
                code="package_included",
                field="package",
            )
        sale = self._first_term(entry, plan, rule, request, actor)
        async with self._database.write() as connection:
            await check_below(connection, scope, party)
            sale_id = await store.add_sale(connection, sale)
            if sale_id is None:
                return await self._bought_before(connection, sale)
            await record(
                connection,
                actor=actor,
                action="package.buy",
                subject=f"party {party}",
                detail={"package": package, "sale": sale_id, "price": f"{rule.price:f}"},
                notice=f"party:{entry.id}",
            )
        return await self.finish(sale_id)

    def _rule(self, entry: PartyEntry, package: str) -> tuple[Plan, PackageRule]:
        """A package of the party's plan, whichever service it is for."""
        if entry.kind == "user":
            raise InvalidInput(
                f"{entry.code} is a user: packages are bought by the party that pays for it",
                field="party",
            )
        for plan in self._directory.plans_of(entry.plan_id or 0):
            for rule in plan.packages:
                if rule.code == package:
                    return plan, rule
        raise NotFound(
            f'the plan of {entry.code} has no package "{package}"',
            code="unknown_package",
            field="package",
        )

    def _first_term(
        self, entry: PartyEntry, plan: Plan, rule: PackageRule, request: str | None, actor: str
    ) -> Sale:
        now = self._clock()
        return Sale(
            id=0,
            party_id=entry.id,
            party=entry.code,
            plan=plan.code,
            code=rule.code,
            bought_at=now,
            term=0,
            status="pending",
            renew=rule.renew,
            units=rule.units,
            rollover=rule.rollover,
            period=rule.period,
            unit=service_of(plan.service).unit.value,
            price=rule.price,
            currency=rule.currency,
            begins_at=now,
            ends_at=term_after(rule.period, now, 1, zone_of(entry.timezone)),
            request=request,
            actor=actor,
        )

    async def _bought_before(self, connection: Connection, sale: Sale) -> Sale:
        """The sale that the same request has led to; one that was left in the middle goes on later."""
        found = await store.read_request(connection, sale.request or "")
        if found is None:
            raise Breach("a sale of a package was taken away while it was read")
        if (found.party_id, found.code) != (sale.party_id, sale.code):
            raise Conflict(
                "this Idempotency-Key was used for another request; nothing was done",
                code="idempotency_key_reused",
                field="Idempotency-Key",
            )
        return found

    async def finish(self, sale_id: int) -> Sale:
        """Charge the term of a pending sale and let it count; do nothing with any other sale.

        Raises:
            NotFound: no such sale. Busy: overload; the sale stays pending and is gone on with later.
        """
        sale = await self._read(sale_id)
        if sale.status != "pending":
            return sale
        refusal = await self._charge(sale) if sale.price else ""
        async with self._database.write() as connection:
            now = await store.lock_sale(connection, sale_id)
            if now is None or (now.status, now.term) != ("pending", sale.term):
                return await self._read(sale_id) if now is None else now
            if refusal:
                status = "refused" if sale.term == 0 else "ended"
                await store.end_sale(connection, sale, status, refusal)
                return replace(sale, status=status, reason=refusal)
            meter_id = await self._add_meter(connection, now)
            await store.activate(connection, now, meter_id)
        return replace(sale, status="active", meter_id=meter_id)

    async def _charge(self, sale: Sale) -> str:
        """Charge the price of a term, once; return why it was refused, or nothing."""
        reply, _ = await self._charging.charge_event(
            switch=SWITCH,
            event_id=f"{sale.id}-{sale.term}",
            party=sale.party,
            called=sale.code,
            service="fee",
            units=1,
            fixed=Fixed(f"package {sale.code}", sale.price, sale.currency),
            once=True,
        )
        return reply.reason.value if reply.outcome is Outcome.REFUSED else ""

    async def _add_meter(self, connection: Connection, sale: Sale) -> int:
        """The meter of a term: its units, and what may be taken over from the term just over."""
        cap = Decimal(sale.units)
        if sale.rollover and sale.meter_id is not None:
            cap += min(Decimal(sale.rollover), await store.unused_units(connection, sale.meter_id))
        key = MeterKey(
            sale.party_id, "package", f"{sale.plan}/{sale.code}#{sale.id}", sale.begins_at
        )
        made = await add_meter(connection, key, ends_at=sale.ends_at, unit=sale.unit, cap=cap)
        if made is not None:
            return made
        found = await find_meter(connection, key)
        if found is None:
            raise Breach("the meter of a package was taken away while it was read")
        return found[0]

    async def _read(self, sale_id: int) -> Sale:
        async with self._database.read() as connection:
            sale = await store.read_sale(connection, sale_id)
        if sale is None:
            raise NotFound(f"there is no sale {sale_id} of a package", code="unknown_sale")
        return sale

    # --- looking and changing --------------------------------------------------------------------

    async def sales(
        self, *, party: str, ended: bool = False, scope: int | None = None
    ) -> list[Sale]:
        """Return what a party has bought, the oldest first; ``ended``: also what is over.

        Raises:
            NotFound: no such party.
        """
        entry = self._charging.party(party, scope)
        async with self._database.read(scope=scope) as connection:
            return await store.read_sales(connection, entry.code, ended=ended)

    async def set_renew(
        self, *, party: str, sale_id: int, renew: bool, actor: str, scope: int | None = None
    ) -> Sale:
        """Say whether a package goes on at the end of its term.

        Raises:
            NotFound: no such party or sale. Conflict: the sale is over.
        """
        entry = self._charging.party(party, scope)
        async with self._database.write() as connection:
            await check_below(connection, scope, party)
            sale = await store.lock_sale(connection, sale_id)
            if sale is None or sale.party_id != entry.id:
                raise NotFound(f"there is no sale {sale_id} of a package", code="unknown_sale")
            if sale.status not in ("pending", "active"):
                raise Conflict(f"sale {sale_id} is over already", code="sale_ended")
            await store.set_renew(connection, sale, renew=renew)
            await record(
                connection,
                actor=actor,
                action="package.renew",
                subject=f"party {party}",
                detail={"sale": sale_id, "renew": renew},
                notice=f"party:{entry.id}",
            )
        return replace(sale, renew=renew)

    # --- the end of a term -----------------------------------------------------------------------

    async def go_on(self, *, limit: int = 100) -> int:
        """Renew or end sales whose term is over, and finish those left in the middle; how many.

        Any number of processes may do so at once.
        """
        now = self._clock()
        async with self._database.read() as connection:
            due = await store.due_sales(connection, now=now, stuck=now - STUCK, limit=limit)
        for sale_id in due:
            await self._turn(sale_id, now)
            await self.finish(sale_id)
        return len(due)

    async def _turn(self, sale_id: int, now: datetime) -> None:
        """Make the next term of a sale pending, or end the sale."""
        async with self._database.write() as connection:
            sale = await store.lock_sale(connection, sale_id)
            if sale is None or sale.status != "active" or sale.ends_at > now:
                return
            entry = self._directory.party(sale.party)
            rule = self._still_sold(entry, sale)
            if rule is None or not sale.renew:
                reason = "not renewed" if rule is not None else "no longer in the plan"
                await store.end_sale(connection, sale, "ended", reason)
                return
            zone, term = zone_of(entry.timezone), sale.term + 1
            # Terms that went by while nobody looked are not charged: nothing could be used in them.
            while (end := term_after(sale.period, sale.bought_at, term + 1, zone)) <= now:
                term += 1
            begin = term_after(sale.period, sale.bought_at, term, zone)
            await store.next_term(
                connection,
                replace(
                    sale,
                    term=term,
                    begins_at=begin,
                    ends_at=end,
                    units=rule.units,
                    rollover=rule.rollover if term == sale.term + 1 else 0,
                    price=rule.price,
                    currency=rule.currency,
                ),
            )

    def _still_sold(self, entry: PartyEntry, sale: Sale) -> PackageRule | None:
        """The package as the plan sells it now; None where the party is sold by another, or it is gone."""
        for plan in self._directory.plans_of(entry.plan_id or 0):
            if plan.code == sale.plan:
                for rule in plan.packages:
                    if rule.code == sale.code and not rule.included:
                        return rule
        return None
