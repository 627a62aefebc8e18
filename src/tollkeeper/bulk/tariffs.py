"""Tariffs as whole numbers in columns, and the price of a call worked out on them.

The arithmetic is that of :mod:`tollkeeper.core.rating`, in sixtieths of the smallest step in which
all price elements of a tariff are whole: sixty times the price of ``I + k*N`` billed seconds is
``base + k*step`` there, so it is exact until the one rounding at the end. A tariff whose numbers
could leave 64 bits within :data:`tollkeeper.core.rating.SECONDS_MAX` is marked wide, and its calls
are priced by :func:`tollkeeper.core.rating.price` itself.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal, DecimalException

import numba
import numpy as np
from numpy.typing import NDArray

from tollkeeper.core.money import SCALE, Rounding
from tollkeeper.core.rating import SECONDS_MAX, Tariff, billed_seconds, price

PRICED = 0
NO_RATE = 1
BLOCKED = 2
TOO_LARGE = 3
"""The amount (or the billed seconds) is beyond what a column holds: about 92 billion."""
WIDE = -1
"""Only inside the kernel: to be priced by the core."""

_INT64_MAX = 2**63 - 1
_INT32_MAX = 2**31 - 1
_DIGITS_MAX = 40  # a price with more digits before or after the point is wide without a calculation
_MODES = {Rounding.HALF_UP: 0, Rounding.HALF_EVEN: 1, Rounding.UP: 2, Rounding.DOWN: 3}

# The columns of a tariff's line. The first eight are one line of the processor's cache and all
# that the usual call needs; the others are read only where SIMPLE is 0.
_BASE, _STEP, _FIRST, _NEXT, _DIVISOR, _UP, _MODE, _KIND = range(8)
_ATTEMPT, _MINIMUM, _CAP, _FREE = range(8, 12)
_WIDTH = 16
_SIMPLE, _FULL, _BY_CORE = 0, 1, 2


@dataclass(frozen=True, slots=True)
class TariffTable:
    """Compiled tariffs: ``lines`` is int64[n, 16], ``tariffs`` what they were compiled from."""

    lines: NDArray[np.int64]
    tariffs: tuple[Tariff, ...]

    @classmethod
    def compile(cls, tariffs: Iterable[Tariff]) -> TariffTable:
        """Compile tariffs; their numbers are their places in the order given, from 0."""
        given = tuple(tariffs)
        wide = [0, 0, 1, 1, 1, 1, 0, _BY_CORE] + [0] * (_WIDTH - 8)
        lines = [_line(tariff) or wide for tariff in given]
        return cls(np.array(lines, np.int64).reshape(len(lines), _WIDTH), given)

    @property
    def wide(self) -> NDArray[np.bool_]:
        """Which tariffs the core prices, bool[n]."""
        found: NDArray[np.bool_] = self.lines[:, _KIND] == _BY_CORE
        return found

    def price_wide(self, tariff: int, seconds: int) -> tuple[int, int, int]:
        """Price a call that the kernel leaves to the core: (status, billed s, amount of 10^-8)."""
        return price_by_core(self.tariffs[tariff], seconds)


def price_by_core(tariff: Tariff, seconds: int) -> tuple[int, int, int]:
    """As the kernel, by :func:`tollkeeper.core.rating.price`: (status, billed s, amount of 10^-8)."""
    free = seconds <= 0 or seconds < tariff.free_below
    billed = 0 if free else billed_seconds(tariff, seconds)
    try:
        amount = price(tariff, seconds)
    except DecimalException:
        return TOO_LARGE, 0, 0
    if amount.adjusted() + SCALE > 20 or billed > _INT32_MAX:
        return TOO_LARGE, 0, 0
    units = _units(amount, SCALE)
    return (PRICED, billed, units) if units <= _INT64_MAX else (TOO_LARGE, 0, 0)


def _units(value: Decimal, scale: int) -> int:
    """``value`` in steps of 10^-scale; it must be whole in them."""
    _, digits, exponent = value.as_tuple()
    assert isinstance(exponent, int)
    number = int("".join(map(str, digits)))
    shift = scale + exponent
    power: int = 10 ** abs(shift)
    return number * power if shift >= 0 else number // power


def _decimals(value: Decimal) -> int | None:
    """Decimals that ``value`` really needs; None where it is far beyond 64 bits either way."""
    if not value:
        return 0
    exponent = value.as_tuple().exponent
    assert isinstance(exponent, int)
    if value.adjusted() > _DIGITS_MAX or len(value.as_tuple().digits) > 3 * _DIGITS_MAX:
        return None
    needed = 0
    if exponent < 0:
        digits = "".join(map(str, value.as_tuple().digits))
        needed = max(0, -exponent - (len(digits) - len(digits.rstrip("0"))))
    return needed if needed <= _DIGITS_MAX else None


def _line(tariff: Tariff) -> list[int] | None:
    """The numbers of a tariff; None when they might leave 64 bits."""
    if tariff.per != 60:
        return None  # the columns are in sixtieths; what is not time comes in no great number
    cap = tariff.cap
    elements = [
        tariff.first_price,
        tariff.next_price,
        tariff.surcharge,
        tariff.connect_fee,
        tariff.minimum,
        tariff.attempt_fee,
    ]
    needed = [_decimals(value) for value in (*elements, *(() if cap is None else (cap,)))]
    if None in needed:
        return None
    scale = max(tariff.decimals, *(each for each in needed if each is not None))
    first, after, plus, connect, minimum, attempt = (_units(each, scale) for each in elements)
    begin, step = tariff.first_interval, tariff.next_interval
    base = begin * (first + plus) + 60 * connect
    each_step = step * (after + plus)
    steps = max(0, -(-(SECONDS_MAX - begin) // step))
    top = max(base + steps * each_step, 60 * minimum) + 60 * attempt
    divisor = 60 * 10 ** (scale - tariff.decimals)
    up = 10 ** (SCALE - tariff.decimals)
    if top > _INT64_MAX or 2 * divisor > _INT64_MAX or (top // divisor + 1) * up > _INT64_MAX:
        return None
    limit = _INT64_MAX if cap is None else min(_INT64_MAX, 60 * _units(cap, scale))
    simple = not attempt and not minimum and cap is None and not tariff.free_below
    line = [base, each_step, begin, step, divisor, up, _MODES[tariff.rounding]]
    line += [_SIMPLE if simple else _FULL]
    line += [60 * attempt, 60 * minimum, limit, min(_INT64_MAX, tariff.free_below)]
    return line + [0] * (_WIDTH - len(line))


@numba.njit(nogil=True, cache=True)
def price_line(lines: NDArray[np.int64], tariff: int, seconds: int) -> tuple[int, int, int]:
    """Price one call on a compiled tariff: (status, billed seconds, amount of 10^-8).

    The status is :data:`PRICED`, or :data:`WIDE` where the core must do it: the tariff is wide, or
    the call longer than the bound that the arithmetic was checked for.
    """
    kind = lines[tariff, _KIND]
    if kind == _BY_CORE or seconds > SECONDS_MAX:
        return WIDE, 0, 0
    total = 0
    billed = 0
    if seconds > 0 and (kind == _SIMPLE or seconds >= lines[tariff, _FREE]):
        first = lines[tariff, _FIRST]
        billed = first
        total = lines[tariff, _BASE]
        if seconds > first:
            step = lines[tariff, _NEXT]
            steps = (seconds - first + step - 1) // step
            billed += steps * step
            total += steps * lines[tariff, _STEP]
        if kind == _FULL:
            total = min(max(total, lines[tariff, _MINIMUM]), lines[tariff, _CAP])
    if kind == _FULL:
        total += lines[tariff, _ATTEMPT]
    divisor = lines[tariff, _DIVISOR]
    whole = total // divisor
    rest = total - whole * divisor
    mode = lines[tariff, _MODE]
    if mode == 0:
        whole += 2 * rest >= divisor
    elif mode == 1:
        whole += 2 * rest > divisor or (2 * rest == divisor and whole % 2 == 1)
    elif mode == 2:
        whole += rest > 0
    return PRICED, billed, whole * lines[tariff, _UP]
