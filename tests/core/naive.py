"""The price of a call computed a second time, slowly and in another way, to compare with.

Everything here is a Fraction and the intervals are walked one by one: nothing is shared with
``core/rating.py`` but the names of the price elements.
"""

from __future__ import annotations

import math
from decimal import Decimal
from fractions import Fraction
from typing import TYPE_CHECKING

from tollkeeper.core.money import Rounding

if TYPE_CHECKING:
    from tollkeeper.core.rating import Tariff


def naive_billed(tariff: Tariff, seconds: int) -> int:
    """Buy the first interval, then one more at a time until the call is covered."""
    if seconds <= 0:
        return 0
    billed = tariff.first_interval
    while billed < seconds:
        billed += tariff.next_interval
    return billed


def naive_price(tariff: Tariff, seconds: int) -> Decimal:
    """Add up the intervals that were bought, then round once."""
    amount = Fraction(tariff.attempt_fee)
    if seconds > 0 and seconds >= tariff.free_below:
        billed = naive_billed(tariff, seconds)
        usage = Fraction(tariff.connect_fee)
        usage += Fraction(tariff.first_price) * tariff.first_interval / tariff.per
        usage += Fraction(tariff.next_price) * (billed - tariff.first_interval) / tariff.per
        usage += Fraction(tariff.surcharge) * billed / tariff.per
        usage = max(usage, Fraction(tariff.minimum))
        if tariff.cap is not None:
            usage = min(usage, Fraction(tariff.cap))
        amount += usage
    return naive_round(amount, tariff.decimals, tariff.rounding)


def naive_round(amount: Fraction, decimals: int, mode: Rounding) -> Decimal:
    """Round a positive amount to a number of decimals, in whole numbers only."""
    steps = amount * 10**decimals
    below = math.floor(steps)
    rest = steps - below
    up = {
        Rounding.DOWN: False,
        Rounding.UP: rest > 0,
        Rounding.HALF_UP: rest >= Fraction(1, 2),
        Rounding.HALF_EVEN: rest > Fraction(1, 2) or (rest == Fraction(1, 2) and below % 2 == 1),
    }[mode]
    digits = tuple(int(digit) for digit in str(below + up))
    return Decimal((0, digits, -decimals))
