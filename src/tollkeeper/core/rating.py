"""Rating one leg: the price of usage, and the usage that money buys.

The rule, in one place: a call of ``d`` seconds bills the first interval ``I`` and then whole
next intervals ``N`` counted *from the end of the first*::

    billed = I                              when d <= I
    billed = I + ceil((d - I) / N) * N      otherwise

and costs ``connect fee + I*first/60 + k*N*next/60 + billed*surcharge/60``, at least the minimum
charge, at most the cap. It is computed exactly and rounded once with the card's mode and
decimals. Prices are per minute, intervals in whole seconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

import msgspec

from tollkeeper.core.money import EXACT, ZERO, Rounding, quantum, round_money

SIXTY = Decimal(60)
SECONDS_MAX = 10_000_000
"""No usage or grant is longer (116 days); every search below is bounded by it."""


class Tariff(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """The price elements of one destination on one card.

    ``first_price``, ``next_price`` and ``surcharge`` are per minute; ``first_interval``,
    ``next_interval`` and ``free_below`` are seconds; ``connect_fee``, ``attempt_fee``,
    ``minimum`` and ``cap`` are amounts per call. ``free_below`` = 6 means that calls shorter
    than six seconds cost nothing (but the attempt fee).
    """

    first_price: Decimal
    next_price: Decimal
    first_interval: int = 60
    next_interval: int = 60
    connect_fee: Decimal = ZERO
    attempt_fee: Decimal = ZERO
    minimum: Decimal = ZERO
    free_below: int = 0
    surcharge: Decimal = ZERO
    cap: Decimal | None = None
    decimals: int = 6
    rounding: Rounding = Rounding.HALF_UP

    def __post_init__(self) -> None:
        """Hold the bounds that the arithmetic relies on."""
        if not 1 <= self.first_interval <= 86_400 or not 1 <= self.next_interval <= 86_400:
            raise ValueError("intervals are whole seconds from 1 to 86400")
        if not 0 <= self.decimals <= 8:
            raise ValueError("decimals are 0 to 8")
        amounts = (
            self.first_price,
            self.next_price,
            self.connect_fee,
            self.attempt_fee,
            self.minimum,
            self.surcharge,
        )
        if any(not a.is_finite() or a < 0 for a in amounts):
            raise ValueError("prices and fees are finite and not negative")
        if self.cap is not None and (not self.cap.is_finite() or self.cap < 0):
            raise ValueError("the cap is finite and not negative")
        if self.free_below < 0:
            raise ValueError("free_below is not negative")


@dataclass(frozen=True, slots=True)
class Price:
    """A priced usage with every step that led to it (amounts in the card's currency)."""

    seconds: int
    billed_seconds: int
    exact: Decimal
    amount: Decimal
    note: str


def seconds_of(used_ms: int) -> int:
    """Whole seconds to bill: any started second counts (ITU-T style upward rounding)."""
    return -(-used_ms // 1000)


def billed_seconds(tariff: Tariff, seconds: int) -> int:
    """Seconds billed for ``seconds`` of conversation, by the rule at the top of this module."""
    if seconds <= 0:
        return 0
    over = seconds - tariff.first_interval
    if over <= 0:
        return tariff.first_interval
    step = tariff.next_interval
    return tariff.first_interval + -(-over // step) * step


def _exact_sixtieths(tariff: Tariff, billed: int) -> Decimal:
    """Sixty times the usage price of ``billed`` seconds, exact (no division yet)."""
    # The usual 28 digits would not hold the largest prices times a long call.
    first, times, plus = tariff.first_interval, EXACT.multiply, EXACT.add
    total = plus(times(tariff.first_price, first), times(tariff.next_price, billed - first))
    if tariff.connect_fee:
        total = plus(total, times(tariff.connect_fee, SIXTY))
    if tariff.surcharge:
        total = plus(total, times(tariff.surcharge, billed))
    return total


def price(tariff: Tariff, seconds: int) -> Decimal:
    """Price of an answered leg of ``seconds`` (0 = not answered or nothing used), rounded once."""
    if seconds <= 0 or seconds < tariff.free_below:
        exact = tariff.attempt_fee
    else:
        usage = EXACT.divide(_exact_sixtieths(tariff, billed_seconds(tariff, seconds)), SIXTY)
        usage = max(usage, tariff.minimum)
        if tariff.cap is not None and usage > tariff.cap:
            usage = tariff.cap
        exact = EXACT.add(usage, tariff.attempt_fee)
    return round_money(exact, tariff.decimals, tariff.rounding)


def explain_price(tariff: Tariff, seconds: int) -> Price:
    """As :func:`price`, with the arithmetic spelled out for people."""
    amount = price(tariff, seconds)
    if seconds <= 0:
        return Price(seconds, 0, tariff.attempt_fee, amount, "nothing used: only the attempt fee")
    if seconds < tariff.free_below:
        return Price(seconds, 0, tariff.attempt_fee, amount, f"free below {tariff.free_below} s")
    billed = billed_seconds(tariff, seconds)
    exact = EXACT.divide(_exact_sixtieths(tariff, billed), SIXTY)
    first, steps = tariff.first_interval, (billed - tariff.first_interval) // tariff.next_interval
    parts = [f"connect {tariff.connect_fee}"] if tariff.connect_fee else []
    parts.append(f"{first} s x {tariff.first_price}/min")
    if steps:
        parts.append(f"{steps} x {tariff.next_interval} s x {tariff.next_price}/min")
    if tariff.surcharge:
        parts.append(f"surcharge {billed} s x {tariff.surcharge}/min")
    note = " + ".join(parts)
    if exact < tariff.minimum:
        exact, note = tariff.minimum, f"({note}), raised to the minimum charge {tariff.minimum}"
    if tariff.cap is not None and exact > tariff.cap:
        exact, note = tariff.cap, f"({note}), capped at {tariff.cap}"
    if tariff.attempt_fee:
        exact, note = (
            EXACT.add(exact, tariff.attempt_fee),
            f"{note} + attempt fee {tariff.attempt_fee}",
        )
    return Price(seconds, billed, exact, amount, note)


def afford(tariff: Tariff, money: Decimal, seconds_max: int) -> tuple[int, Decimal]:
    """Longest paid-for usage that ``money`` covers, and its price.

    The usage is 0, or a boundary ``I + k*N``, or ``seconds_max``. Its price is never above
    ``money``; and unless it is ``seconds_max``, one interval more would cost more than ``money``.
    0 means that the first interval is not covered. ``seconds_max`` (bounded by
    :data:`SECONDS_MAX`) need not be a boundary: a call that is cut there is billed to the
    boundary above, and that price is what is compared.
    """
    top = min(seconds_max, SECONDS_MAX)
    if top <= 0:
        return 0, ZERO
    cost = price(tariff, top)
    if cost <= money:
        return top, cost
    first, step = tariff.first_interval, tariff.next_interval
    if top <= first or price(tariff, first) > money:
        return 0, ZERO
    low = _steps_estimate(tariff, money, (top - first) // step)
    # The estimate is exact but for the rounding of the card: these loops move a step or two.
    while low > 0 and price(tariff, first + low * step) > money:
        low -= 1
    while first + (low + 1) * step <= top and price(tariff, first + (low + 1) * step) <= money:
        low += 1
    seconds = first + low * step
    return seconds, price(tariff, seconds)


def bought(tariff: Tariff, money: Decimal, seconds_max: int) -> int:
    """The usage of :func:`afford` alone, in seconds."""
    return afford(tariff, money, seconds_max)[0]


def _steps_estimate(tariff: Tariff, money: Decimal, steps_max: int) -> int:
    """Whole next intervals that ``money`` buys after the first, within the rounding of the card."""
    per_step = (tariff.next_price + tariff.surcharge) * tariff.next_interval
    if per_step == 0:
        return steps_max
    ulp = quantum(tariff.decimals)
    # The largest exact price that still rounds to no more than the money.
    slack = {Rounding.UP: ZERO, Rounding.DOWN: ulp}.get(tariff.rounding, ulp / 2)
    floor = round_money(money, tariff.decimals, Rounding.DOWN) if money > 0 else ZERO
    left = (floor + slack - tariff.attempt_fee) * SIXTY - _exact_sixtieths(
        tariff, tariff.first_interval
    )
    steps = max(0, int(left // per_step))
    if tariff.free_below > tariff.first_interval:
        # Up to the last free second nothing is paid, whatever the money.
        free = (tariff.free_below - 1 - tariff.first_interval) // tariff.next_interval
        steps = max(steps, free)
    return min(steps_max, steps)
