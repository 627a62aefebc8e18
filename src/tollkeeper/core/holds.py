"""What a leg with terms holds for a grant, and the longest grant that its money and packages cover."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import NamedTuple

from tollkeeper.core.at_once import hold_at_once
from tollkeeper.core.money import EXACT, ZERO
from tollkeeper.core.pieces import (
    NO_TERMS,
    Meters,
    billed_units,
    cut_at_steps,
    left_of,
    priced,
    rounded,
    sixtieths,
    spans_of,
    step_at,
    step_price,
    with_fees,
    worth_of,
)
from tollkeeper.core.rating import billed_seconds, longest
from tollkeeper.core.records import Leg
from tollkeeper.core.terms import Meter, Reserve, Tier


class Afforded(NamedTuple):
    """The longest grant that money and packages cover, what it holds of either."""

    units: int
    cost: Decimal
    reserved: tuple[Reserve, ...]


def afford_terms(
    leg: Leg,
    meters: Meters,
    money: Decimal,
    units_max: int,
    began: datetime | None = None,
    *,
    ceiling: bool = False,
) -> Afforded:
    """As :func:`tollkeeper.core.rating.afford`, for a leg with terms.

    ``money`` is what may be spent, with what the leg holds already; see :func:`hold_of`.
    """
    tariff = leg.pin.tariff
    top = min(units_max, longest(tariff))
    if top <= 0:
        return Afforded(0, ZERO, ())
    cost = hold_at_once(leg, top, meters)
    if cost is not None and cost <= money:
        return Afforded(top, cost, ())
    whole = hold_of(leg, top, meters, began, ceiling=ceiling)
    if whole[0] <= money:
        return Afforded(top, *whole)
    first, step = tariff.first_interval, tariff.next_interval
    if top <= first:
        return Afforded(0, ZERO, ())
    best = hold_of(leg, first, meters, began, ceiling=ceiling)
    if best[0] > money:
        return Afforded(0, ZERO, ())
    # A longer grant never holds less: the last boundary that is covered is found by halving.
    low, high = 0, (top - first) // step + 1
    while high - low > 1:
        middle = (low + high) // 2
        held = hold_of(leg, first + middle * step, meters, began, ceiling=ceiling)
        if held[0] <= money:
            low, best = middle, held
        else:
            high = middle
    return Afforded(first + low * step, *best)


def hold_of(
    leg: Leg, units: int, meters: Meters, began: datetime | None = None, *, ceiling: bool = False
) -> tuple[Decimal, tuple[Reserve, ...]]:
    """What a grant of so many units holds: the money, and the units of packages.

    Never less than its charge would be while the meters only grow: where prices rise with the
    volume the dearest one ahead is held, and a retroactive tier counts as it stands. With
    ``ceiling`` the moment of the answer is not known yet, and ``began`` the latest one possible:
    then no rate to come is taken to be cheaper than those before it.
    """
    tariff = leg.pin.tariff
    if units <= 0 or units < tariff.free_below:
        return rounded(tariff, ZERO), ()
    billed = billed_seconds(tariff, units)
    terms = leg.terms or NO_TERMS
    reserved: list[Reserve] = []
    start = 0
    for package in terms.packages:
        free = left_of(leg, meters[package.meter_id], billed - start)
        if free:
            reserved.append(Reserve(package.meter_id, free))
            start += free
    if start == billed:
        return rounded(tariff, ZERO), tuple(reserved)
    total, more = ZERO, ZERO
    tier = terms.tier
    at = int(meters[tier.meter_id].used) if tier is not None else 0
    if tier is not None and tier.retroactive:
        more = _dearer_volume(leg, tier, billed - start, meters[tier.meter_id])
    for span in spans_of(leg, start, billed, began, ceiling=ceiling):
        if tier is None:
            total = EXACT.add(total, EXACT.multiply(priced(span.row, span.plus), span.units))
            continue
        for piece, step in cut_at_steps(tier, at, span.units):
            price = max([step_price(ahead, span.row) for ahead in tier.steps[step:]])
            total = EXACT.add(total, EXACT.multiply(priced(price, span.plus), piece))
            at += 0 if tier.retroactive else piece
    total = with_fees(tariff, sixtieths(tariff, total))
    return rounded(tariff, EXACT.add(total, more)), tuple(reserved)


def at_least(leg: Leg, units: int) -> Decimal:
    """What a grant must hold at the very least, whatever the meters said: for the audit."""
    tariff = leg.pin.tariff
    paid = billed_units(leg, units) - sum([reserve.units for reserve in leg.reserved])
    if paid <= 0:
        return rounded(tariff, ZERO)
    terms = leg.terms or NO_TERMS
    tariffs = [tariff, *[later.tariff for later in terms.later]]
    rows = [price for each in tariffs for price in (each.first_price, each.next_price)]
    if terms.tier is not None:
        rows = [step_price(step, row) for step in terms.tier.steps for row in rows]
    price = priced(min(rows), min([each.surcharge for each in tariffs]))
    return rounded(tariff, with_fees(tariff, sixtieths(tariff, EXACT.multiply(price, paid))))


def _dearer_volume(leg: Leg, tier: Tier, units: int, meter: Meter) -> Decimal:
    """Sixty times what earlier units cost more once the volume has grown, if prices rise."""
    before = int(meter.used)
    old, new = step_at(tier, before), step_at(tier, before + units)
    if not before or old == new:
        return ZERO
    worth = [worth_of(leg, step, before, meter.base) for step in tier.steps[old : new + 1]]
    return EXACT.subtract(max(worth), worth[0])
