"""Fees and settlements that are arithmetic on days and percents: proration, shortfall, commission.

Every result is worked out exactly and rounded once.
"""

from __future__ import annotations

from datetime import date
from decimal import Decimal

from tollkeeper.core.money import EXACT, ZERO, Rounding, round_money
from tollkeeper.errors import InvalidInput

HUNDRED = Decimal(100)


def prorate(
    amount: Decimal,
    begin: date,
    end: date,
    used_from: date,
    used_to: date,
    decimals: int,
    rounding: Rounding,
) -> Decimal:
    """Return the part of a period's fee for the days used: ``amount`` x days used / days of the period.

    All are local days of the party, ends exclusive: a number taken on the 16th of April and kept is
    used from 16 April to 1 May, 15 days of 30. Days outside the period do not count.

    Raises:
        InvalidInput: a period without days, or use that ends before it begins.
    """
    whole = (end - begin).days
    if whole <= 0:
        raise InvalidInput(
            f"end: a period from {begin} to {end} has no days; its end must be after its beginning",
            code="invalid_period",
            field="end",
        )
    if used_to < used_from:
        raise InvalidInput(
            f"used_to: the use ends on {used_to}, before it begins on {used_from}",
            code="invalid_period",
            field="used_to",
        )
    used = max(0, (min(end, used_to) - max(begin, used_from)).days)
    share = EXACT.divide(EXACT.multiply(amount, Decimal(used)), Decimal(whole))
    return round_money(share, decimals, rounding)


def shortfall(commitment: Decimal, spent: Decimal) -> Decimal:
    """Return what is left to pay of a minimum commitment: never below zero."""
    return max(ZERO, commitment - spent)


def commission(percent: Decimal, base: Decimal, decimals: int, rounding: Rounding) -> Decimal:
    """Return so many percent of a margin or turnover; a loss earns nothing."""
    if base <= 0:
        return ZERO
    return round_money(EXACT.divide(EXACT.multiply(base, percent), HUNDRED), decimals, rounding)
