"""When somebody is told how much of a limit or a cap is used: once for each crossing of a percent."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from decimal import Decimal

from tollkeeper.core.money import ZERO

BACK = 5
"""Percentage points that the use must fall below a percent before its next crossing is told: the holds of
calls come and go, and money that moves around a percent is one crossing, not a hundred."""


def crossed(
    used: Decimal, bound: Decimal, percents: Iterable[int], told: Collection[int]
) -> tuple[int, ...]:
    """Percents of ``bound`` that ``used`` has reached and that were not ``told`` yet, in their order.

    Of a bound of 0 nothing can be used: it is never crossed.
    """
    if bound <= ZERO:
        return ()
    return tuple(sorted(one for one in percents if one not in told and used * 100 >= bound * one))


def fallen(used: Decimal, bound: Decimal, told: Iterable[int]) -> tuple[int, ...]:
    """Percents that were told and that ``used`` has fallen so far below that they can be told again."""
    return tuple(sorted(one for one in told if used * 100 < bound * (one - BACK) or bound <= ZERO))
