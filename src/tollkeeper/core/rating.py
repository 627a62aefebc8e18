"""Rating one leg: the price of usage, and the usage that money buys.

The rule, in one place: a call of ``d`` seconds bills the first interval ``I`` and then whole
next intervals ``N`` counted *from the end of the first*::

    billed = I                              when d <= I
    billed = I + ceil((d - I) / N) * N      otherwise

and costs ``connect fee + I*first/60 + k*N*next/60 + billed*surcharge/60``, at least the minimum
charge, at most the cap. It is computed exactly and rounded once with the card's mode and
decimals. Prices are per minute, intervals in whole seconds.

What is not time is priced by the same rule: messages, lookups and fees by the piece (``per`` 1 in
the place of 60), data by the megabyte (``per`` a power of ten or of two, intervals in bytes).
"Seconds" in the names below are then the units that are counted.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

import msgspec

from tollkeeper.core.money import EXACT, ZERO, Rounding, plain, quantum, round_money
from tollkeeper.core.words import Words

SIXTY = Decimal(60)
SECONDS_MAX = 10_000_000
"""No usage or grant in seconds is longer (116 days); every search below is bounded by it."""
UNITS_MAX = 10**13
"""As :data:`SECONDS_MAX` for what is not time: ten terabytes."""
PER_MAX = 2**31
PERS = frozenset({60, *(10**k for k in range(10)), *(2**k for k in range(32))})
"""What a price may be for, up to :data:`PER_MAX`: a division by any other number need not end."""


class Tariff(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """The price elements of one destination on one card.

    ``first_price``, ``next_price`` and ``surcharge`` are for ``per`` units: per minute of 60
    seconds, per message, per 1000000 bytes; ``first_interval``, ``next_interval`` and
    ``free_below`` are units; ``connect_fee``, ``attempt_fee``, ``minimum`` and ``cap`` are amounts
    per call. ``free_below`` = 6 means that calls shorter than six seconds cost nothing (but the
    attempt fee).
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
    per: int = 60

    def __post_init__(self) -> None:
        """Hold the bounds that the arithmetic relies on."""
        if self.per == 60:
            if not 1 <= self.first_interval <= 86_400 or not 1 <= self.next_interval <= 86_400:
                raise ValueError("intervals are whole seconds from 1 to 86400")
        else:
            if self.per not in PERS:
                raise ValueError(
                    "prices are for 60 seconds, or for a power of 10 or of 2 of units up to 2147483648"
                )
            if not 1 <= self.first_interval <= PER_MAX or not 1 <= self.next_interval <= PER_MAX:
                raise ValueError("intervals are whole units from 1 to 2147483648")
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


def _per(tariff: Tariff) -> Decimal:
    """What a price divides by."""
    return SIXTY if tariff.per == 60 else Decimal(tariff.per)


def _exact_times_per(tariff: Tariff, billed: int) -> Decimal:
    """``per`` (sixty) times the usage price of ``billed`` units, exact (no division yet)."""
    # The usual 28 digits would not hold the largest prices times a long call.
    first, times, plus = tariff.first_interval, EXACT.multiply, EXACT.add
    total = plus(times(tariff.first_price, first), times(tariff.next_price, billed - first))
    if tariff.connect_fee:
        total = plus(total, times(tariff.connect_fee, _per(tariff)))
    if tariff.surcharge:
        total = plus(total, times(tariff.surcharge, billed))
    return total


def price(tariff: Tariff, seconds: int) -> Decimal:
    """Price of an answered leg of ``seconds`` (0 = not answered or nothing used), rounded once."""
    if seconds <= 0 or seconds < tariff.free_below:
        exact = tariff.attempt_fee
    else:
        usage = EXACT.divide(
            _exact_times_per(tariff, billed_seconds(tariff, seconds)), _per(tariff)
        )
        usage = max(usage, tariff.minimum)
        if tariff.cap is not None and usage > tariff.cap:
            usage = tariff.cap
        exact = EXACT.add(usage, tariff.attempt_fee)
    return round_money(exact, tariff.decimals, tariff.rounding)


def explain_price(tariff: Tariff, seconds: int, words: Words | None = None) -> Price:
    """As :func:`price`, with the arithmetic spelled out for people, in the ``words`` of a service."""
    amount = price(tariff, seconds)
    unit, rate = _words(tariff)
    if seconds <= 0:
        return Price(seconds, 0, tariff.attempt_fee, amount, "nothing used: only the attempt fee")
    if seconds < tariff.free_below:
        below = f"{tariff.free_below} {unit}" if words is None else words.count(tariff.free_below)
        return Price(seconds, 0, tariff.attempt_fee, amount, f"free below {below}")
    billed = billed_seconds(tariff, seconds)
    exact = EXACT.divide(_exact_times_per(tariff, billed), _per(tariff))
    first, steps = tariff.first_interval, (billed - tariff.first_interval) // tariff.next_interval
    parts = [f"connect {tariff.connect_fee}"] if tariff.connect_fee else []
    if words is not None and tariff.per != 60:
        parts += _pieces(tariff, billed, words)
    else:
        show = str if words is None else _trimmed
        parts.append(f"{first} {unit} x {show(tariff.first_price)}{rate}")
        if steps:
            parts.append(
                f"{steps} x {tariff.next_interval} {unit} x {show(tariff.next_price)}{rate}"
            )
        if tariff.surcharge:
            parts.append(f"surcharge {billed} {unit} x {show(tariff.surcharge)}{rate}")
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


def _trimmed(price: Decimal) -> str:
    """A price that was worked out has zeros at its end that say nothing."""
    return f"{price.normalize():f}"


def _pieces(tariff: Tariff, billed: int, words: Words) -> list[str]:
    """The sum of what is not time; units at one price stand together."""
    first = tariff.first_interval
    if tariff.first_price == tariff.next_price or billed <= first:
        parts = [f"{words.count(billed)} x {plain(tariff.first_price)}{words.rate}"]
    else:
        parts = [
            f"{words.count(first)} x {plain(tariff.first_price)}{words.rate}",
            f"{words.count(billed - first)} x {plain(tariff.next_price)}{words.rate}",
        ]
    if tariff.surcharge:
        parts.append(f"surcharge {words.count(billed)} x {plain(tariff.surcharge)}{words.rate}")
    return parts


def _words(tariff: Tariff) -> tuple[str, str]:
    """How the units and the price for them are written."""
    if tariff.per == 60:
        return "s", "/min"
    return "units", " each" if tariff.per == 1 else f" per {tariff.per}"


def longest(tariff: Tariff) -> int:
    """The most units that a usage or grant may have."""
    return SECONDS_MAX if tariff.per == 60 else UNITS_MAX


def afford(tariff: Tariff, money: Decimal, seconds_max: int) -> tuple[int, Decimal]:
    """Longest paid-for usage that ``money`` covers, and its price.

    The usage is 0, or a boundary ``I + k*N``, or ``seconds_max``. Its price is never above
    ``money``; and unless it is ``seconds_max``, one interval more would cost more than ``money``.
    0 means that the first interval is not covered. ``seconds_max`` (bounded by
    :func:`longest`) need not be a boundary: a call that is cut there is billed to the
    boundary above, and that price is what is compared.
    """
    top = min(seconds_max, longest(tariff))
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
    left = (floor + slack - tariff.attempt_fee) * _per(tariff) - _exact_times_per(
        tariff, tariff.first_interval
    )
    steps = max(0, int(left // per_step))
    if tariff.free_below > tariff.first_interval:
        # Up to the last free second nothing is paid, whatever the money.
        free = (tariff.free_below - 1 - tariff.first_interval) // tariff.next_interval
        steps = max(steps, free)
    return min(steps_max, steps)
