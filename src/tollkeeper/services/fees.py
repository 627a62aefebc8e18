"""Fees of parties: once, or every local day, week or month, charged in advance.

What is about to be charged is written down first, and the charge has a key made of the fee and its
term (``fees/fee-7-2026-11``, ``fees/did-9-2026-11``). So any number of processes may look after a fee,
and whoever finds one that somebody left in the middle goes on: nothing is charged twice. A refused
charge is tried again under a key of its own until the fee's days of grace are over.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, datetime, timedelta
from decimal import Decimal

import structlog

from tollkeeper.core.money import parse_currency
from tollkeeper.core.periods import beginning, term_of
from tollkeeper.core.records import Outcome, Unit
from tollkeeper.core.services import SERVICES
from tollkeeper.errors import Breach, Busy, Conflict, InvalidInput, NotFound, TollkeeperError
from tollkeeper.services.charging import Charging
from tollkeeper.services.fields import check_amount, check_choice, check_integer, check_text
from tollkeeper.services.meters import zone_of
from tollkeeper.services.offers import Fixed
from tollkeeper.services.ordering import seen_reason
from tollkeeper.services.scope import check_below
from tollkeeper.store import dids
from tollkeeper.store import fees as store
from tollkeeper.store.changes import record
from tollkeeper.store.db import Connection, Database
from tollkeeper.store.fees import Fee

__all__ = ["PERIODS", "SWITCH", "Fee", "Fees", "whole_term"]

PERIODS = ("once", "day", "week", "month")
SERVICES_OF_FEES = tuple(
    name for name, service in SERVICES.items() if service.event and service.unit is Unit.ITEM
)
SWITCH = "fees"
"""In whose name fees are charged."""
RETRY = timedelta(hours=6)
"""After a charge was refused."""
STUCK = timedelta(seconds=30)
"""A charge that takes longer was left by whoever began it."""
GRACE_DAYS = 7
BACK_DAYS = 366
"""A fee does not begin longer ago: that would be a number in the wrong place."""
TERMS_AT_ONCE = 400
"""No fee has more terms to make up for: days of a year."""
DAY = timedelta(days=1)

_log = structlog.get_logger()


def whole_term(period: str, day: date) -> tuple[date, date]:
    """The whole term that holds a local day; a fee that is due once has a term of one day."""
    return (day, day + DAY) if period == "once" else term_of(period, day)


class Fees:
    """Adds fees, shows them, charges what is due."""

    def __init__(
        self, database: Database, charging: Charging, clock: Callable[[], datetime]
    ) -> None:
        self._database = database
        self._charging = charging
        self._clock = clock

    # --- adding and looking ----------------------------------------------------------------------

    async def add(
        self,
        *,
        party: str,
        name: str,
        period: str,
        service: str = "fee",
        called: str = "",
        amount: Decimal | None = None,
        currency: str = "",
        begins_on: date | None = None,
        ends_on: date | None = None,
        prorate: bool = True,
        grace_days: int = GRACE_DAYS,
        request: str | None = None,
        actor: str = "",
        scope: int | None = None,
    ) -> Fee:
        """Add a fee and charge what is due of it; asked again with ``request``: added once.

        The price is ``amount``, or what the party's plan says for ``service`` and the digits ``called``: then
        every level of the tree pays its own. Days are the party's; ``ends_on`` is the first without the fee.

        Raises:
            NotFound: no such party. Forbidden: a scope adds fees to those below it only.
            InvalidInput: a field, by its name. Conflict: ``request`` was for another fee.
        """
        check_text(name, field="name")
        check_choice(period, PERIODS, field="period")
        check_choice(service, SERVICES_OF_FEES, field="service")
        check_integer(grace_days, field="grace_days", most=366)
        _check_price(called, amount, currency)
        entry = self._charging.party(party, scope)
        now = self._clock()
        today = now.astimezone(zone_of(entry.timezone)).date()
        begin = begins_on or today
        _check_days(today, begin, ends_on)
        fee = Fee(
            name=name,
            party_id=entry.id,
            service=service,
            called=called,
            amount=amount,
            currency=currency,
            period=period,
            begins_on=begin,
            ends_on=ends_on,
            prorate=prorate,
            grace_days=grace_days,
            next_at=beginning(begin, zone_of(entry.timezone)),
            request=request,
            actor=actor,
            created_at=now,
        )
        async with self._database.write() as connection:
            await check_below(connection, scope, party)
            fee_id = await store.add_fee(connection, fee)
            if fee_id is None:
                fee_id = await self._added_before(connection, fee)
            else:
                await self._record(connection, fee, "fee.add", actor)
        return await self.charge(fee_id)

    async def _added_before(self, connection: Connection, fee: Fee) -> int:
        found = await store.read_request(connection, fee.request or "")
        if found is None:
            raise Breach("a fee was taken away while it was read")
        same = ("party_id", "name", "service", "called", "amount", "currency", "period", "prorate")
        if any(getattr(found, field) != getattr(fee, field) for field in same):
            raise Conflict(
                "this Idempotency-Key was used for another request; nothing was done",
                code="idempotency_key_reused",
                field="Idempotency-Key",
            )
        return found.id

    async def get(self, fee_id: int, *, scope: int | None = None) -> Fee:
        """One fee.

        Raises:
            NotFound: there is none.
        """
        async with self._database.read(scope=scope) as connection:
            found = await store.read_fee(connection, fee_id)
        if found is None:
            raise NotFound(f"there is no fee {fee_id}", code="unknown_fee")
        return found

    async def list(
        self,
        *,
        party: str = "",
        status: str = "",
        after: int = 0,
        limit: int = 100,
        scope: int | None = None,
    ) -> list[Fee]:
        """Fees, the oldest first.

        Raises:
            NotFound: no such party.
        """
        if party:
            self._charging.party(party, scope)
        async with self._database.read(scope=scope) as connection:
            return await store.read_fees(
                connection, party=party, status=status, after=after, limit=limit
            )

    async def end(
        self, fee_id: int, *, on: date | None = None, actor: str, scope: int | None = None
    ) -> Fee:
        """End a fee: today, or ``on`` a later day, the first without it. Nothing is paid back.

        Raises:
            NotFound: no such fee. Conflict: it is over, or belongs to a number.
            Forbidden: a scope ends those of parties below it only. InvalidInput: a day in the past.
        """
        fee = await self.get(fee_id, scope=scope)
        if fee.did_id is not None:
            raise Conflict(
                "this fee belongs to a number and ends when that is released", code="fee_of_number"
            )
        today = self._clock().astimezone(zone_of(fee.timezone)).date()
        if on is not None and on < today:
            raise InvalidInput("ends_on: give today or a day to come", field="ends_on")
        async with self._database.write() as connection:
            await check_below(connection, scope, fee.party)
            fee = await self._lock(connection, fee_id)
            if fee.status != "active":
                raise Conflict(f"fee {fee_id} is over already", code="fee_over")
            if on is None or on <= today:
                await store.close_fee(connection, fee_id, status="ended", on=today)
            else:
                await store.set_end(connection, fee_id, on)
            await self._record(connection, fee, "fee.end", actor)
        return await self.get(fee_id)

    async def _record(self, connection: Connection, fee: Fee, action: str, actor: str) -> None:
        amount = "" if fee.amount is None else f"{fee.amount:f} {fee.currency}"
        await record(
            connection,
            actor=actor,
            action=action,
            subject=f"party {fee.party_id}",
            detail={"fee": fee.name, "period": fee.period, "amount": amount},
            notice=f"fee:{fee.id}",
        )

    # --- charging --------------------------------------------------------------------------------

    async def go_on(self, *, limit: int = 100) -> int:
        """Charge what is due, and go on with what was left in the middle; how many fees were looked at."""
        async with self._database.read() as connection:
            due = await store.due_fees(connection, self._clock(), limit)
        for fee_id in due:
            await self.charge(fee_id)
        return len(due)

    async def charge(self, fee_id: int) -> Fee:
        """Charge all terms of a fee that are due, each once; return it as it stands then.

        Raises:
            NotFound: no such fee. Busy: overload; it is gone on with later.
        """
        for _ in range(TERMS_AT_ONCE):
            fee = await self._begin(fee_id)
            if fee is None:
                break
            refusal = await self._take(fee)
            async with self._database.write() as connection:
                if refusal:
                    await self._refused(connection, fee, refusal)
                    break
                if not await self._paid(connection, fee):
                    break
        return await self.get(fee_id)

    async def _lock(self, connection: Connection, fee_id: int) -> Fee:
        fee = await store.lock_fee(connection, fee_id)
        if fee is None:
            raise NotFound(f"there is no fee {fee_id}", code="unknown_fee")
        return fee

    async def _begin(self, fee_id: int) -> Fee | None:
        """Write down the next term of a fee; None where nothing is due now."""
        now = self._clock()
        async with self._database.write() as connection:
            fee = await self._lock(connection, fee_id)
            if fee.status != "active":
                return None
            if fee.term_from is not None:
                waits = fee.failing_since is not None and (fee.next_at or now) > now
                return None if waits else fee
            day = fee.paid_until
            if fee.ends_on is not None and day >= fee.ends_on:
                await store.close_fee(connection, fee_id, status="ended")
                return None
            begins = beginning(day, zone_of(fee.timezone))
            if begins > now:
                await store.look_at(connection, fee_id, begins)
                return None
            end = whole_term(fee.period, day)[1]
            if fee.ends_on is not None:
                end = min(end, fee.ends_on)
            # Of a number that is just being ordered nobody looks after the fee but its order.
            later = None if fee.next_at is None else now + STUCK
            await store.begin_term(connection, fee_id, day, end, later)
            return await self._lock(connection, fee_id)

    async def _take(self, fee: Fee) -> str:
        """Charge the term that is written down; return why that was refused, or nothing."""
        first, last = _term(fee)
        begin, end = whole_term(fee.period, first)
        used, whole = (last - first).days, (end - begin).days
        fixed = None
        if fee.amount is not None:
            fixed = Fixed(fee.name, fee.amount, fee.currency)
        try:
            reply, _ = await self._charging.charge_event(
                switch=SWITCH,
                event_id=event_id(fee),
                party=fee.party,
                called=fee.called or fee.name,
                service=fee.service,
                units=1,
                fixed=fixed,
                share=(used, whole) if fee.prorate and used < whole else None,
                once=True,
            )
        except Busy:
            raise
        except TollkeeperError as error:
            _log.warning("fee.refused", fee=fee.id, error=error.detail)
            return error.code
        return seen_reason(reply, fee.party_id) if reply.outcome is Outcome.REFUSED else ""

    async def _paid(self, connection: Connection, fee: Fee) -> bool:
        """Note that a term is paid; False when somebody else has done so, or there is no other term."""
        _, last = _term(fee)
        if not await store.mark_paid(connection, fee, beginning(last, zone_of(fee.timezone))):
            return False
        if fee.period == "once" or (fee.ends_on is not None and last >= fee.ends_on):
            await store.close_fee(connection, fee.id, status="ended")
            return False
        return True

    async def _refused(self, connection: Connection, fee: Fee, reason: str) -> None:
        """Try again later, or let the fee lapse, and the number with it that it is for."""
        now = self._clock()
        stands = await self._lock(connection, fee.id)
        if (stands.term_from, stands.attempts) != (fee.term_from, fee.attempts):
            return
        since = stands.failing_since or now
        over = since + timedelta(days=stands.grace_days)
        if now < over:
            await store.mark_refused(
                connection,
                fee.id,
                failing_since=since,
                reason=reason,
                next_at=min(now + RETRY, over),
            )
            return
        _log.warning("fee.lapsed", fee=fee.id, party=fee.party, reason=reason)
        await store.close_fee(connection, fee.id, status="lapsed", reason=reason)
        if fee.did_id is not None:
            await dids.quarantine(connection, fee.did_id, now, f"not paid: {reason}", "fees")

    async def give_back_first(self, fee: Fee) -> None:
        """Give back the first term of a fee, at every level, and end it. May be repeated."""
        first = event_id(fee, fee.begins_on)
        if fee.paid_until > fee.begins_on:
            await self._charging.refund(switch=SWITCH, event_id=first, why="not delivered")
        async with self._database.write() as connection:
            await store.close_fee(connection, fee.id, status="ended", on=fee.begins_on)


def event_id(fee: Fee, first: date | None = None) -> str:
    """The name of the charge of a fee's term: that one written down, or (its first attempt) from ``first``."""
    begin = first or _term(fee)[0]
    day = begin.isoformat()
    term = day[:7] if fee.period == "month" else day
    attempt = f"-{fee.attempts + 1}" if fee.attempts and first is None else ""
    return f"{'fee' if fee.did_id is None else 'did'}-{fee.id}-{term}{attempt}"


def _term(fee: Fee) -> tuple[date, date]:
    if fee.term_from is None or fee.term_to is None:
        raise Breach(f"fee {fee.id} has no term that is being charged")
    return fee.term_from, fee.term_to


def _check_price(called: str, amount: Decimal | None, currency: str) -> None:
    if amount is None:
        if not called.isascii() or not called.isdigit() or len(called) > 15:
            raise InvalidInput(
                "called: give the digits by which a card prices the fee, or an amount with its currency",
                field="called",
            )
        if currency:
            raise InvalidInput("currency: without an amount it is the card's", field="currency")
    else:
        check_amount(amount)
        parse_currency(currency)
        if called:
            raise InvalidInput("called: an amount needs no card to price it", field="called")


def _check_days(today: date, begin: date, end: date | None) -> None:
    if not -BACK_DAYS <= (begin - today).days <= 10 * BACK_DAYS:
        raise InvalidInput("begins_on: this is too long ago, or too far ahead", field="begins_on")
    if end is not None and (end <= begin or end.year > 2199):
        raise InvalidInput("ends_on: it must be after the fee begins", field="ends_on")
