"""Exchange rates in memory, by pair and day: as many as today's questions need."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date
from decimal import Decimal

from tollkeeper.core.fx import Exchange, exchange_on
from tollkeeper.store.fx import DatedRate

KEPT_DAYS = 60
"""Older rates need not be in memory: no rate counts for longer than ten days."""

DAYS_HELD = 8
"""So many days' exchanges are kept made: today's is asked for by every call."""


class FxBook:
    """The rates of each pair in the order of their days; never changed, only replaced."""

    def __init__(self, rates: Iterable[DatedRate] = ()) -> None:
        self._pairs: dict[tuple[str, str], list[tuple[date, Decimal, str]]] = {}
        for one in sorted(rates, key=lambda rate: rate.day):
            pair = self._pairs.setdefault((one.base, one.quote), [])
            pair.append((one.day, one.rate, one.source))
        self._days: dict[date, Exchange] = {}

    def exchange(self, day: date) -> Exchange:
        """The rates in force on a day; what was worked out once is remembered."""
        found = self._days.get(day)
        if found is None:
            if len(self._days) >= DAYS_HELD:
                self._days.clear()
            found = self._days[day] = exchange_on(self._pairs, day)
        return found
