"""What the price of a leg with terms is put together of: spans, steps of a tier, and the rounding.

Money is added up in sixtieths, in which prices per minute are exact; it is divided and rounded once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from typing import NamedTuple

from msgspec.structs import replace

from tollkeeper.core.money import EXACT, round_money
from tollkeeper.core.rating import SIXTY, Tariff, billed_seconds
from tollkeeper.core.records import Leg
from tollkeeper.core.terms import Meter, Part, Terms, Tier, TierStep

RATE, PACKAGE, TIER, LATER, REBATE = "rate", "package", "tier", "later", "rebate"
"""The kinds of parts."""

Meters = Mapping[int, Meter]

NO_TERMS = Terms()
_SECOND = timedelta(seconds=1)
_SHOWN = Decimal(1).scaleb(-18)


class Span(NamedTuple):
    """Billed units of a leg at one list price (``row``) and surcharge (``plus``)."""

    units: int
    row: Decimal
    plus: Decimal
    kind: str


def billed_units(leg: Leg, used: int) -> int:
    """Units billed for ``used`` ones; none below the free ones."""
    tariff = leg.pin.tariff
    return 0 if used <= 0 or used < tariff.free_below else billed_seconds(tariff, used)


def left_of(leg: Leg, meter: Meter, wanted: int) -> int:
    """Units of a package that a leg may use, of those it wants."""
    left = meter.left
    if left is None:
        return wanted
    own = sum([reserve.units for reserve in leg.reserved if reserve.meter_id == meter.id])
    return max(0, min(wanted, int(left + own)))


def spans_of(
    leg: Leg, start: int, end: int, began: datetime | None, *, ceiling: bool = False
) -> tuple[Span, ...]:
    """The billed units ``start`` to ``end`` by list price, in order.

    With ``ceiling`` a later rate is taken to be no cheaper than those before it.
    """
    tariff = leg.pin.tariff
    later = leg.terms is not None and leg.terms.later
    if tariff.first_price == tariff.next_price and (began is None or not later):
        # The usual case: one price from the first unit to the last.
        return (Span(end - start, tariff.next_price, tariff.surcharge, RATE),)
    first = tariff.first_interval
    spans: list[Span] = []
    for begin, stop, own, kind in _rates(leg, end, began, ceiling=ceiling):
        both = (
            (begin, min(stop, first), own.first_price),
            (max(begin, first), stop, own.next_price),
        )
        for low, high, row in both:
            units = min(high, end) - max(low, start)
            if units <= 0:
                continue
            if spans and spans[-1][1:] == (row, own.surcharge, kind):
                units += spans.pop().units
            spans.append(Span(units, row, own.surcharge, kind))
    return tuple(spans)


def _rates(
    leg: Leg, end: int, began: datetime | None, *, ceiling: bool
) -> list[tuple[int, int, Tariff, str]]:
    """Which tariff prices which units: (from, to, tariff, kind)."""
    tariff = leg.pin.tariff
    if began is None or leg.terms is None or not leg.terms.later:
        return [(0, end, tariff, RATE)]
    first, step = tariff.first_interval, tariff.next_interval
    found: list[tuple[int, int, Tariff, str]] = []
    begin, own, kind = 0, tariff, RATE
    for later in leg.terms.later:
        offset = -((began - later.at) // _SECOND)
        # The first interval that begins at or after the change is the first at the new price.
        cut = 0 if offset <= 0 else first + max(0, -(-(offset - first) // step)) * step
        if cut > begin:
            found.append((begin, min(cut, end), own, kind))
        begin, kind = cut, LATER
        own = _dearer(own, later.tariff) if ceiling else later.tariff
    found.append((begin, end, own, kind))
    return found


def _dearer(one: Tariff, other: Tariff) -> Tariff:
    return replace(
        other,
        first_price=max(one.first_price, other.first_price),
        next_price=max(one.next_price, other.next_price),
        surcharge=max(one.surcharge, other.surcharge),
    )


def cut_at_steps(tier: Tier, at: int, units: int) -> Iterator[tuple[int, int]]:
    """Units from a place in the volume on, cut at the steps: (units, number of the step)."""
    step = step_at(tier, at)
    while step + 1 < len(tier.steps) and not tier.retroactive:
        room = tier.steps[step + 1].start - at
        if room >= units:
            break
        yield room, step
        at, units, step = at + room, units - room, step + 1
    yield units, step


def step_at(tier: Tier, volume: int) -> int:
    """The number of the step that a volume has reached."""
    step = 0
    for each in tier.steps[1:]:
        if each.start > volume:
            break
        step += 1
    return step


def step_price(step: TierStep, row: Decimal) -> Decimal:
    """The price of a unit at a step of the tier, without a surcharge."""
    if step.price is not None:
        return step.price
    assert step.percent is not None
    return row if step.percent == 100 else EXACT.multiply(row, step.percent).scaleb(-2, EXACT)


def tier_part(leg: Leg, span: Span, units: int, step: TierStep, meter_id: int, at: int) -> Part:
    """Units of a span counted on a tier's meter, at the price of a step."""
    base = sixtieths(leg.pin.tariff, EXACT.multiply(span.row, units))
    price = priced(step_price(step, span.row), span.plus)
    return Part(TIER, units, price, meter_id=meter_id, at=Decimal(at), base=base)


def worth_of(leg: Leg, step: TierStep, units: int, base: Decimal) -> Decimal:
    """Sixty times what a volume costs in all at one step."""
    if step.price is not None:
        return sixtieths(leg.pin.tariff, EXACT.multiply(step.price, units))
    return step_price(step, base)


def rebate_of(amount: Decimal, meter: Meter) -> Iterator[Part]:
    """The part of a rebate of so many sixtieths, if there is one."""
    if amount:
        money = EXACT.divide(amount, SIXTY)
        exponent = money.as_tuple().exponent
        if isinstance(exponent, int) and exponent < -18:
            money = money.quantize(_SHOWN, context=EXACT)
        yield Part(REBATE, 0, extra=money, meter_id=meter.id, at=meter.used, base=amount)


def priced(row: Decimal, surcharge: Decimal) -> Decimal:
    """A unit's price with its surcharge."""
    return EXACT.add(row, surcharge) if surcharge else row


def sixtieths(tariff: Tariff, total: Decimal) -> Decimal:
    """Sixty times the money of ``total``, a sum of units times prices; always exact."""
    if tariff.per == 60:
        return total
    return EXACT.divide(EXACT.multiply(total, SIXTY), Decimal(tariff.per))


def with_fees(tariff: Tariff, total: Decimal) -> Decimal:
    """Sixty times the price of an answered call: with connect fee, minimum and cap."""
    if tariff.connect_fee:
        total = EXACT.add(total, EXACT.multiply(tariff.connect_fee, SIXTY))
    if tariff.minimum:
        total = max(total, EXACT.multiply(tariff.minimum, SIXTY))
    if tariff.cap is not None:
        total = min(total, EXACT.multiply(tariff.cap, SIXTY))
    return total


def rounded(tariff: Tariff, amount: Decimal, *, attempt: bool = True) -> Decimal:
    """The one division and the one rounding of a leg: ``amount`` is in sixtieths."""
    exact = EXACT.divide(amount, SIXTY)
    if attempt and tariff.attempt_fee:
        exact = EXACT.add(exact, tariff.attempt_fee)
    money = round_money(exact, tariff.decimals, tariff.rounding)
    return money or abs(money)
