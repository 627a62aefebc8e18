"""What a party earns by what was sold through it: a percentage of turnover or margin, rounded once."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from decimal import Decimal

import msgspec

from tollkeeper.core.fx import FxRate
from tollkeeper.core.money import EXACT, ZERO, Rounding, round_money

DECIMALS = 6
"""A commission has as many decimals as a card's prices have where nothing else is said."""

SHOWN_DECIMALS = 8
_HUNDRED = Decimal(100)


class Sold(msgspec.Struct, frozen=True, gc=False):
    """What was charged in a period, less what was given back, in one currency.

    ``turnover`` is what those directly below paid, ``own`` what the party itself paid for it.
    """

    currency: str
    turnover: Decimal = ZERO
    own: Decimal = ZERO


class Line(msgspec.Struct, frozen=True, gc=False):
    """One currency of it, and what it is in the commission's: ``rate`` of that for one of this."""

    currency: str
    turnover: Decimal
    own: Decimal
    rate: Decimal
    rate_name: str


class Worked(msgspec.Struct, frozen=True, gc=False):
    """A commission worked out; sums are in its currency. ``missing``: a currency without a rate.

    ``turnover`` and ``own`` are rounded to be shown; ``commission`` is worked out from exact sums.
    """

    lines: tuple[Line, ...]
    turnover: Decimal
    own: Decimal
    commission: Decimal
    missing: str = ""


def work_out(
    sold: Iterable[Sold],
    *,
    basis: str,
    percent: Decimal,
    currency: str,
    exchange: Callable[[str, str], FxRate | None],
) -> Worked:
    """Work a commission out: ``percent`` of the turnover, or of turnover less own (``margin``).

    A loss earns nothing and takes nothing away. Where an exchange rate is missing, nothing is worked
    out at all.
    """
    lines: list[Line] = []
    turnover = own = ZERO
    for one in sorted(sold, key=lambda part: part.currency):
        rate = exchange(one.currency, currency)
        if rate is None:
            return Worked((), ZERO, ZERO, ZERO, missing=one.currency)
        name = "" if one.currency == currency else f"{rate.day}: {rate.source}"
        lines.append(Line(one.currency, one.turnover, one.own, rate.rate, name))
        turnover = EXACT.add(turnover, EXACT.multiply(one.turnover, rate.rate))
        own = EXACT.add(own, EXACT.multiply(one.own, rate.rate))
    base = turnover if basis == "turnover" else EXACT.subtract(turnover, own)
    share = EXACT.divide(EXACT.multiply(max(base, ZERO), percent), _HUNDRED)
    return Worked(
        tuple(lines),
        round_money(turnover, SHOWN_DECIMALS, Rounding.HALF_UP),
        round_money(own, SHOWN_DECIMALS, Rounding.HALF_UP),
        round_money(share, DECIMALS, Rounding.HALF_UP),
    )
