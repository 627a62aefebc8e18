"""Exchange rates by day: which one counts for a pair of currencies, exact and with its name.

A rate is looked for as it was given, then turned round, then by way of a pivot (the ECB gives
everything against the euro). It is the latest on or before the day, but never an old one: a call is
rather refused than converted at a rate of long ago.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from decimal import Decimal

import msgspec

from tollkeeper.core.money import EXACT, Rounding, round_money

RATE_DECIMALS = 12
"""Decimals of a rate that is worked out."""

MAX_AGE_DAYS = 10
"""No rate counts for longer: it bridges the longest run of bank holidays and a weekend."""

PIVOT = "EUR"

ONE = Decimal(1)
_QUANTUM = ONE.scaleb(-RATE_DECIMALS)


class FxRate(msgspec.Struct, frozen=True, gc=False):
    """One unit of ``base`` is ``rate`` of ``quote``; ``day`` and ``source`` say by what (crossed: both)."""

    base: str
    quote: str
    rate: Decimal
    day: str
    source: str


Exchange = Callable[[str, str], FxRate | None]
"""The rate from a currency to another on the day of the question; None: none is known."""

Dated = tuple[date, Decimal, str]
"""A rate from a day on, and who gave it."""

Rates = Mapping[tuple[str, str], Sequence[Dated]]
"""By (base, quote): dated rates, the oldest first."""


class _Leg(msgspec.Struct, frozen=True, gc=False):
    """One given rate on the way: ``turned`` where it stands the other way round."""

    base: str
    quote: str
    day: date
    rate: Decimal
    source: str
    turned: bool

    @property
    def name(self) -> str:
        text = f"{self.base}/{self.quote} {self.rate:f} {self.source}".rstrip()
        return f"1 / ({text})" if self.turned else text


def pick(
    rates: Rates,
    base: str,
    quote: str,
    day: date,
    *,
    pivot: str = PIVOT,
    max_age_days: int = MAX_AGE_DAYS,
) -> FxRate | None:
    """Return the rate from ``base`` to ``quote`` on ``day``: direct, inverse, or crossed; None: none.

    A rate that is turned round or crossed has 12 decimals, rounded once (half even).
    """
    if base == quote:
        return FxRate(base, quote, ONE, day.isoformat(), "same currency")
    leg = _leg(rates, base, quote, day, max_age_days)
    if leg is not None:
        return _made(base, quote, (leg,))
    if pivot in {base, quote}:
        return None
    first = _leg(rates, base, pivot, day, max_age_days)
    second = _leg(rates, pivot, quote, day, max_age_days)
    if first is None or second is None:
        return None
    return _made(base, quote, (first, second))


def exchange_on(
    rates: Rates, day: date, *, pivot: str = PIVOT, max_age_days: int = MAX_AGE_DAYS
) -> Exchange:
    """Return the exchange of one day; what was asked once is remembered."""
    known: dict[tuple[str, str], FxRate | None] = {}

    def exchange(base: str, quote: str) -> FxRate | None:
        pair = (base, quote)
        if pair not in known:
            known[pair] = pick(rates, base, quote, day, pivot=pivot, max_age_days=max_age_days)
        return known[pair]

    return exchange


def convert(amount: Decimal, rate: Decimal, decimals: int, rounding: Rounding) -> Decimal:
    """Convert an amount and round it once: for reports and invoices."""
    return round_money(EXACT.multiply(amount, rate), decimals, rounding)


def _leg(rates: Rates, base: str, quote: str, day: date, max_age_days: int) -> _Leg | None:
    """The rate of a pair as given, else as given the other way round."""
    found = _latest(rates.get((base, quote), ()), day, max_age_days)
    if found is not None:
        return _Leg(base, quote, *found, turned=False)
    found = _latest(rates.get((quote, base), ()), day, max_age_days)
    return None if found is None else _Leg(quote, base, *found, turned=True)


def _latest(dated: Sequence[Dated], day: date, max_age_days: int) -> Dated | None:
    place = bisect_right(dated, day, key=lambda one: one[0])
    if not place:
        return None
    found = dated[place - 1]
    return found if (day - found[0]).days <= max_age_days else None


def _made(base: str, quote: str, legs: tuple[_Leg, ...]) -> FxRate | None:
    """Work the legs into one rate: products over quotients, rounded once."""
    over = under = ONE
    for leg in legs:
        if leg.turned:
            under = EXACT.multiply(under, leg.rate)
        else:
            over = EXACT.multiply(over, leg.rate)
    rate = over
    if len(legs) > 1 or under != ONE:
        rate = EXACT.divide(over, under).quantize(_QUANTUM, context=EXACT)
    if rate <= 0:
        # A rate so small that it has vanished is no price at all.
        return None
    days = dict.fromkeys(leg.day.isoformat() for leg in legs)
    return FxRate(base, quote, rate, " / ".join(days), " x ".join(leg.name for leg in legs))
