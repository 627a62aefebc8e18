"""Minimum commitments of plans: what a month's use falls short of is charged when the month is over.

A month is opened when it begins, with what the plan says then; where a party takes on such a plan in the
middle of a month, only the days from then on count. The month's use is what its wallets were charged in
it, less what they were given back, whatever it was used for.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, datetime, timedelta
from decimal import Decimal

import structlog

from tollkeeper.core.fees import prorate, shortfall
from tollkeeper.core.money import EXACT, SCALE, ZERO, Rounding, round_money
from tollkeeper.core.periods import beginning, term_of
from tollkeeper.core.records import Outcome
from tollkeeper.errors import TollkeeperError
from tollkeeper.services.charging import Charging
from tollkeeper.services.directory import Directory
from tollkeeper.services.fees import SWITCH
from tollkeeper.services.meters import zone_of
from tollkeeper.services.offers import Fixed
from tollkeeper.services.ordering import seen_reason
from tollkeeper.store import fees as store
from tollkeeper.store.db import Database
from tollkeeper.store.fees import Commitment, Committed

__all__ = ["Commitment", "Commitments"]

SETTLE = timedelta(hours=1)
"""After the end of a month, for calls that were up and files that were on their way."""
RETRY = timedelta(days=1)
ATTEMPTS = 30
DECIMALS = 2
"""Of the part of a minimum that is due for a part of a month."""

_log = structlog.get_logger()


class Commitments:
    """Opens months and charges what they fell short of."""

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

    async def list(
        self, *, party: str = "", limit: int = 100, scope: int | None = None
    ) -> list[Commitment]:
        """Months, the newest first.

        Raises:
            NotFound: no such party.
        """
        if party:
            self._charging.party(party, scope)
        async with self._database.read(scope=scope) as connection:
            return await store.read_months(connection, party, limit)

    async def open(self, *, page: int = 500) -> int:
        """Write down the months that have begun; how many parties have a minimum."""
        now, after, seen = self._clock(), 0, 0
        while True:
            async with self._database.read() as connection:
                found = await store.read_committed(connection, after, page)
            for who in found:
                await self._open(who, now)
            seen += len(found)
            if len(found) < page:
                return seen
            after = found[-1].party_id

    async def _open(self, who: Committed, now: datetime) -> None:
        zone = zone_of(who.timezone)
        today = now.astimezone(zone).date()
        month, end = term_of("month", today)
        if who.last_month is not None and who.last_month >= month:
            return
        before = term_of("month", month - timedelta(days=1))[0]
        # Who had the month before has this one from its first day, however late we look.
        from_on = month if who.last_month == before else today
        async with self._database.write() as connection:
            await store.open_month(connection, who, month, from_on, beginning(end, zone) + SETTLE)

    async def go_on(self, *, limit: int = 100) -> int:
        """Charge the months that are over; how many were looked at. Any number of processes may."""
        await self.open()
        now = self._clock()
        async with self._database.read() as connection:
            due = await store.months_due(connection, now, limit)
        for month in due:
            stands = await self._work_out(month) if month.status == "open" else month
            if stands is not None and stands.status == "due":
                await self._charge(stands, now)
        return len(due)

    async def _work_out(self, month: Commitment) -> Commitment | None:
        """Say what is short, once, before it is charged."""
        begin, end = term_of("month", month.month)
        zone = zone_of(month.timezone)
        agreed = (
            prorate(month.agreed, begin, end, month.from_on, end, DECIMALS, Rounding.HALF_UP)
            if month.from_on > begin
            else month.agreed
        )
        async with self._database.write() as connection:
            spent = self._together(
                await store.spent_in(
                    connection, month.party_id, beginning(month.from_on, zone), beginning(end, zone)
                ),
                month.currency,
                end,
            )
            short = shortfall(agreed, max(spent, ZERO))
            await store.mark_worked_out(
                connection, month, amount=agreed, spent=spent, shortfall=short
            )
        async with self._database.read() as connection:
            return await store.read_month(connection, month.party_id, month.month)

    def _together(self, spent: dict[str, Decimal], currency: str, day: date) -> Decimal:
        """The use of all wallets in one currency, at the rates of the day after the month."""
        exchange, total = self._directory.exchange(day), ZERO
        for other, amount in spent.items():
            if other == currency:
                total += amount
                continue
            rate = exchange(other, currency)
            if rate is None:
                _log.warning("commitment.no_rate", base=other, quote=currency)
                continue
            total += round_money(EXACT.multiply(amount, rate.rate), SCALE, Rounding.HALF_UP)
        return total

    async def _charge(self, month: Commitment, now: datetime) -> None:
        attempt = f"-{month.attempts + 1}" if month.attempts else ""
        name = f"minimum of {month.month:%Y-%m}"
        try:
            reply, _ = await self._charging.charge_event(
                switch=SWITCH,
                event_id=f"commitment-{month.party}-{month.month:%Y-%m}{attempt}",
                party=month.party,
                called=name,
                service="fee",
                units=1,
                fixed=Fixed(name, month.shortfall or ZERO, month.currency),
                once=True,
            )
        except TollkeeperError as error:
            _log.warning("commitment.waits", party=month.party, why=error.detail)
            return
        async with self._database.write() as connection:
            if reply.outcome is not Outcome.REFUSED:
                await store.mark_charged(connection, month, reply.id)
                return
            over = month.attempts + 1 >= ATTEMPTS
            await store.mark_month_refused(
                connection,
                month,
                status="lapsed" if over else "due",
                reason=seen_reason(reply, month.party_id),
                next_at=now + RETRY,
            )
