"""The usual leg with a volume tier, priced in one go: one list price, no fees, one step of the tier.

Nearly every call of a party with tiers is like that, and the general way of ``parts`` and ``holds``
through spans and pieces would cost it a fifth of its time. Both ways give the same to the last digit (a
property test holds them to it); whatever is not so simple is left to the general one.
"""

from __future__ import annotations

from decimal import Decimal

from tollkeeper.core.money import EXACT, ZERO
from tollkeeper.core.pieces import TIER, Meters, priced, rounded, sixtieths, step_price
from tollkeeper.core.rating import Tariff, billed_seconds
from tollkeeper.core.records import Leg
from tollkeeper.core.terms import Count, Part, Terms, Tier


def settle_at_once(
    leg: Leg, used: int, meters: Meters
) -> tuple[tuple[Part, ...], Decimal, tuple[Count, ...]] | None:
    """The part, the charge and the count of an open leg that ends; None where it is not the usual one.

    As ``parts.settle`` and ``parts.counts_of`` for ``used`` units.
    """
    tier, tariff = _simple(leg.terms), leg.pin.tariff
    if tier is None or leg.parts or used <= 0 or not _feeless(tariff):
        return None
    meter, billed = meters[tier.meter_id], billed_seconds(tariff, used)
    at = int(meter.used)
    step = _step(tier, at, billed)
    if step < 0:
        return None
    row, units = tariff.next_price, Decimal(billed)
    price = priced(step_price(tier.steps[step], row), tariff.surcharge)
    base = sixtieths(tariff, EXACT.multiply(row, units))
    charge = rounded(tariff, sixtieths(tariff, EXACT.multiply(price, units)))
    part = Part(TIER, billed, price, ZERO, meter.id, Decimal(at), base)
    return (part,), charge, (Count(meter.id, units, ZERO, base),)


def hold_at_once(leg: Leg, units: int, meters: Meters) -> Decimal | None:
    """What a grant of ``units`` holds; None where the leg is not the usual one. As ``holds.hold_of``."""
    tier, tariff = _simple(leg.terms), leg.pin.tariff
    if tier is None or units <= 0 or not _feeless(tariff):
        return None
    billed = billed_seconds(tariff, units)
    step = _step(tier, int(meters[tier.meter_id].used), billed)
    if step < 0:
        return None
    row, ahead = tariff.next_price, tier.steps[step:]
    price = step_price(ahead[0], row)
    if len(ahead) > 1:
        price = max([step_price(one, row) for one in ahead])
    total = EXACT.multiply(priced(price, tariff.surcharge), Decimal(billed))
    return rounded(tariff, sixtieths(tariff, total))


def _simple(terms: Terms | None) -> Tier | None:
    """The tier of terms that are nothing but a marginal one, with or without a count of spending."""
    if terms is None or terms.packages or terms.later:
        return None
    tier = terms.tier
    return None if tier is None or tier.retroactive else tier


def _feeless(tariff: Tariff) -> bool:
    """Whether each unit costs the same and nothing comes to it but the attempt fee."""
    return (
        tariff.first_price == tariff.next_price
        and not (tariff.connect_fee or tariff.minimum or tariff.free_below)
        and tariff.cap is None
    )


def _step(tier: Tier, at: int, units: int) -> int:
    """The step on which all of so many units from a place on fall; -1 where they cross one."""
    step, end = 0, at + units
    for one in tier.steps[1:]:
        if one.start > at:
            return step if one.start >= end else -1
        step += 1
    return step
