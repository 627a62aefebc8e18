"""Meters by what they count: made when they are first needed, and known from then on without asking."""

from __future__ import annotations

from collections import OrderedDict
from datetime import UTC, datetime, tzinfo
from decimal import Decimal
from functools import lru_cache
from zoneinfo import ZoneInfo

from tollkeeper.core.periods import period_of
from tollkeeper.errors import Busy
from tollkeeper.store.db import Database
from tollkeeper.store.meters import MeterKey, add_meter, find_meter, set_cap, unused_before

CACHE_METERS = 200_000
EVER = datetime(2000, 1, 1, tzinfo=UTC)
"""The beginning of a period without end."""
ATTEMPTS = 3


class Meters:
    """The ids of meters. A meter is never deleted and never another, so an id once known stays right."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._known: OrderedDict[MeterKey, tuple[int, Decimal | None]] = OrderedDict()
        self._periods: dict[tuple[str, str], tuple[datetime, datetime]] = {}

    def period(self, period: str, at: datetime, zone: str) -> tuple[datetime, datetime]:
        """As :func:`core.periods.period_of`, for a zone by name; the last answer is kept."""
        found = self._periods.get((period, zone))
        if found is None or not found[0] <= at < found[1]:
            found = self._periods[period, zone] = period_of(period, at, zone_of(zone))
        return found

    async def ensure(
        self,
        key: MeterKey,
        *,
        ends_at: datetime | None = None,
        unit: str = "",
        cap: Decimal | None = None,
        follow: bool = False,
    ) -> int:
        """Return the id of a meter, which is made where it is not there; without waiting when known.

        With ``follow`` the meter's cap becomes ``cap`` whenever it is another; else ``cap`` is only
        what a new meter begins with.

        Raises:
            Busy: the database does not answer.
        """
        known = self._known.get(key)
        if known is not None and (not follow or known[1] == cap):
            return known[0]
        id_, stands = await self._find_or_add(key, ends_at, unit, cap)
        if follow and stands != cap:
            async with self._database.write() as connection:
                await set_cap(connection, id_, cap)
            stands = cap
        self._known[key] = (id_, stands)
        while len(self._known) > CACHE_METERS:
            self._known.popitem(last=False)
        return id_

    async def ensure_included(
        self, key: MeterKey, *, ends_at: datetime, unit: str, units: int, rollover: int
    ) -> int:
        """As :meth:`ensure`, for a package of the plan: what was left of the period before is added.

        At most ``rollover`` units are taken over; units that are still held then are not.
        """
        known = self._known.get(key)
        if known is not None:
            return known[0]
        cap = Decimal(units)
        if rollover:
            async with self._database.read() as connection:
                cap += min(Decimal(rollover), await unused_before(connection, key))
        return await self.ensure(key, ends_at=ends_at, unit=unit, cap=cap)

    async def _find_or_add(
        self, key: MeterKey, ends_at: datetime | None, unit: str, cap: Decimal | None
    ) -> tuple[int, Decimal | None]:
        for _ in range(ATTEMPTS):
            async with self._database.read() as connection:
                found = await find_meter(connection, key)
                if found is not None:
                    return found
                made = await add_meter(connection, key, ends_at=ends_at, unit=unit, cap=cap)
                if made is not None:
                    return made, cap
        raise Busy("a meter could not be read; try again", code="contended")


@lru_cache(maxsize=1024)
def zone_of(name: str) -> tzinfo:
    """The time zone of a party; UTC where this host does not know the name."""
    try:
        return ZoneInfo(name)
    except (KeyError, OSError, ValueError):
        return UTC
