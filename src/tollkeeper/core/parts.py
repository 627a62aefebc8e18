"""The charge of a leg where meters decide: packages first, then volume tiers, then the tariff.

A charge with terms is made of parts. Units are billed as the tariff says; the first of them that a
package has left are free, the others cost what the volume tier says as its meter stands when the
leg is settled, so that calls at the same time tile the tier exactly, whichever ends first.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from decimal import Decimal

from msgspec.structs import replace

from tollkeeper.core.money import EXACT, ZERO
from tollkeeper.core.pieces import (
    NO_TERMS,
    PACKAGE,
    REBATE,
    TIER,
    Meters,
    Span,
    billed_units,
    cut_at_steps,
    left_of,
    priced,
    rebate_of,
    rounded,
    sixtieths,
    spans_of,
    step_at,
    tier_part,
    with_fees,
    worth_of,
)
from tollkeeper.core.rating import SIXTY
from tollkeeper.core.records import Leg
from tollkeeper.core.terms import Count, Meter, Part, Tier


def settle(
    leg: Leg,
    used: int,
    meters: Meters,
    began: datetime | None = None,
    *,
    given_back: bool = False,
) -> tuple[tuple[Part, ...], Decimal]:
    """The parts to be added when ``used`` units (less refunds) are known, and the charge then.

    ``began`` is the moment of the first unit, for rates that change while a call is up;
    ``given_back``: all that was used has been refunded, and no fee is due either.
    """
    billed = sum([part.units for part in leg.parts])
    wanted = billed_units(leg, used)
    added: tuple[Part, ...] = ()
    if wanted > billed:
        added = split(leg, billed, wanted, meters, began)
    elif wanted < billed:
        added = take_back(leg, wanted, billed, meters, began)
    return added, charge_of(leg, (*leg.parts, *added), used, given_back=given_back)


def split(
    leg: Leg, start: int, end: int, meters: Meters, began: datetime | None = None
) -> tuple[Part, ...]:
    """What the billed units ``start`` to ``end`` of a leg are made of, as the meters stand.

    What the leg itself has reserved counts as left to it. Without ``began`` no later rate counts.
    """
    terms = leg.terms or NO_TERMS
    parts: list[Part] = []
    for package in terms.packages:
        if start >= end:
            return tuple(parts)
        meter = meters[package.meter_id]
        units = left_of(leg, meter, end - start)
        if units:
            parts.append(Part(PACKAGE, units, meter_id=meter.id, at=meter.used))
            start += units
    if start < end:
        spans = spans_of(leg, start, end, began)
        if terms.tier is None:
            parts += [Part(span.kind, span.units, priced(span.row, span.plus)) for span in spans]
        elif terms.tier.retroactive:
            parts += _retroactive(leg, terms.tier, spans, meters[terms.tier.meter_id])
        else:
            parts += _marginal(leg, terms.tier, spans, meters[terms.tier.meter_id])
    return tuple(parts)


def _marginal(leg: Leg, tier: Tier, spans: Iterable[Span], meter: Meter) -> Iterator[Part]:
    """Each unit at the price of its place in the volume."""
    at = int(meter.used)
    for span in spans:
        for units, step in cut_at_steps(tier, at, span.units):
            yield tier_part(leg, span, units, tier.steps[step], meter.id, at)
            at += units


def _retroactive(leg: Leg, tier: Tier, spans: Iterable[Span], meter: Meter) -> Iterator[Part]:
    """All units at the price of the volume reached; and the difference for those before."""
    spans = tuple(spans)
    before = int(meter.used)
    after = before + sum([span.units for span in spans])
    step, at = step_at(tier, after), before
    for span in spans:
        yield tier_part(leg, span, span.units, tier.steps[step], meter.id, at)
        at += span.units
    old = step_at(tier, before)
    if before and step != old:
        new_worth = worth_of(leg, tier.steps[step], before, meter.base)
        old_worth = worth_of(leg, tier.steps[old], before, meter.base)
        yield from rebate_of(EXACT.subtract(new_worth, old_worth), meter)


def take_back(
    leg: Leg, start: int, end: int, meters: Meters, began: datetime | None = None
) -> tuple[Part, ...]:
    """The parts that take back the billed units ``start`` to ``end``, the last ones first.

    They are taken back at what they were charged. Only on a retroactive tier they are worth what
    the volume now says, and if the volume falls below a step its rebate is taken back, too: else a
    step could be crossed, and rewarded, again and again.
    """
    tier = (leg.terms or NO_TERMS).tier
    parts: list[Part] = []
    gone: dict[int, int] = {}
    for piece in reversed(_standing(leg.parts)):
        units = min(piece.units, end - start)
        if not units:
            break
        end -= units
        if tier is not None and tier.retroactive and piece.kind == TIER:
            taken = _take_from_volume(leg, tier, end, units, meters, gone, began)
        else:
            at = meters[piece.meter_id].used if piece.meter_id else ZERO
            gained = _some(piece, -units)
            taken = [replace(gained, at=at - gone.get(piece.meter_id, 0))]
        parts += taken
        for part in taken:
            gone[part.meter_id] = gone.get(part.meter_id, 0) - part.units
    if tier is not None and tier.retroactive and gone.get(tier.meter_id):
        parts += _fallen(leg, tier, meters[tier.meter_id], parts)
    return tuple(parts)


def _fallen(leg: Leg, tier: Tier, meter: Meter, taken: Iterable[Part]) -> Iterator[Part]:
    """The rebate that is taken back where units taken from a volume bring it below a step."""
    used, base = int(meter.used), meter.base
    for part in taken:
        if part.kind == TIER:
            used, base = used + part.units, EXACT.add(base, part.base)
    high, low = step_at(tier, int(meter.used)), step_at(tier, used)
    if high != low:
        now, then = (worth_of(leg, tier.steps[step], used, base) for step in (low, high))
        yield from rebate_of(EXACT.subtract(now, then), meter)


def _take_from_volume(
    leg: Leg,
    tier: Tier,
    start: int,
    units: int,
    meters: Meters,
    gone: Mapping[int, int],
    began: datetime | None,
) -> list[Part]:
    """Units taken back from a retroactive tier, at the price of the volume as it stands."""
    meter = meters[tier.meter_id]
    step = tier.steps[step_at(tier, int(meter.used))]
    at = int(meter.used) - gone.get(meter.id, 0)
    taken: list[Part] = []
    for span in reversed(spans_of(leg, start, start + units, began)):
        taken.append(tier_part(leg, span, -span.units, step, meter.id, at))
        at -= span.units
    return taken


def _standing(parts: Iterable[Part]) -> list[Part]:
    """The parts that are still charged, without what was taken back, in the order of the units."""
    standing: list[Part] = []
    for part in parts:
        if part.kind == REBATE:
            continue
        units = part.units
        while units < 0:
            last = standing.pop()
            if last.units + units > 0:
                standing.append(_some(last, last.units + units))
            units += last.units
        if part.units > 0:
            standing.append(part)
    return standing


def _some(piece: Part, units: int) -> Part:
    """So many units of a piece; it has one list price, so its base is a whole number of them."""
    base = piece.base
    if base:
        base = EXACT.multiply(EXACT.divide(base, Decimal(piece.units)), units)
    return replace(piece, units=units, base=base)


def charge_of(leg: Leg, parts: Iterable[Part], used: int, *, given_back: bool = False) -> Decimal:
    """The charge that parts make, with the fees; negative where a rebate is more than the usage.

    The connect fee and the minimum are due once a unit is not free, the attempt fee always (but
    not when all was given back). Minimum and cap concern the call alone, not a rebate for others.
    """
    tariff = leg.pin.tariff
    total, rebate, paid = ZERO, ZERO, 0
    for part in parts:
        if part.kind == REBATE:
            rebate = EXACT.add(rebate, part.base or EXACT.multiply(part.extra, SIXTY))
        elif part.kind != PACKAGE:
            total = EXACT.add(total, EXACT.multiply(part.price, part.units))
            paid += part.units
    total = sixtieths(tariff, total)
    if paid and used >= tariff.free_below:
        total = with_fees(tariff, total)
    return rounded(tariff, EXACT.add(total, rebate), attempt=not given_back)


def exact_of(leg: Leg, parts: Iterable[Part]) -> Decimal:
    """The money of parts alone: no fees, nothing rounded (a quotient that does not end is cut)."""
    total, rebate = ZERO, ZERO
    for part in parts:
        if part.kind == REBATE:
            rebate = EXACT.add(rebate, part.base or EXACT.multiply(part.extra, SIXTY))
        else:
            total = EXACT.add(total, EXACT.multiply(part.price, part.units))
    return EXACT.divide(EXACT.add(sixtieths(leg.pin.tariff, total), rebate), SIXTY)


def counts_of(parts: Iterable[Part]) -> tuple[Count, ...]:
    """How parts change meters: units used of packages and tiers, and a tier's base."""
    counts = [
        Count(part.meter_id, Decimal(part.units), ZERO, part.base)
        for part in parts
        if part.meter_id and part.kind != REBATE
    ]
    return merged(counts) if len(counts) > 1 else tuple(counts)


def merged(counts: Iterable[Count]) -> tuple[Count, ...]:
    """One change for each meter, without those that change nothing."""
    by_meter: dict[int, Count] = {}
    for count in counts:
        own = by_meter.get(count.meter_id)
        by_meter[count.meter_id] = count if own is None else Count(
            own.meter_id, own.used + count.used, own.held + count.held,
            EXACT.add(own.base, count.base), own.guarded or count.guarded,
        )  # fmt: skip
    return tuple([c for c in by_meter.values() if c.used or c.held or c.base])
