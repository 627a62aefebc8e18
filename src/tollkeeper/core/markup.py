"""What is done to a card's prices before they are pinned: markup, surcharges, promotion, exchange.

Each works on the whole tariff and is told as a step with its figures, so that it can be done again
by hand. Prices are worked out exactly and kept to 12 decimals (half even), never rounded to money:
that happens once, at the end of a leg.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from decimal import Decimal

import msgspec

from tollkeeper.core.money import EXACT, ZERO, plain
from tollkeeper.core.profiles import Profile, contains
from tollkeeper.core.rating import Tariff
from tollkeeper.core.records import Step

PRICE_DECIMALS = 12
"""Decimals kept of a price that is worked out."""

ONE = Decimal(1)
HUNDRED = Decimal(100)
_QUANTUM = ONE.scaleb(-PRICE_DECIMALS)


class Markup(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """A cost-plus card: each price of the cost card times (1 + percent/100) plus ``absolute``, within bounds.

    Prices are per the card's ``per``; fees (connect, attempt, minimum) get the percent only.
    """

    percent: Decimal = ZERO
    absolute: Decimal = ZERO
    floor: Decimal | None = None
    ceiling: Decimal | None = None


class Promotion(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """``percent`` off all prices and fees for destinations, a period (UTC), hours and parties.

    Empty ``destinations`` or ``parties`` mean all. Of several that apply the first counts, never two.
    """

    code: str
    percent: Decimal
    destinations: tuple[str, ...] = ()
    begins_at: datetime | None = None
    ends_at: datetime | None = None
    profile: Profile | None = None
    parties: frozenset[int] = frozenset()


class Surcharge(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """More to pay by origin: ``absolute`` per the tariff's ``per`` and ``percent`` of its prices.

    ``origins``: prefixes of the caller, ``not_origins``: all callers but these (also those without a
    number, where ``no_cli``); ``destinations``: prefixes called (empty: all). All that apply are added.
    """

    code: str
    absolute: Decimal = ZERO
    percent: Decimal = ZERO
    origins: tuple[str, ...] = ()
    not_origins: tuple[str, ...] = ()
    no_cli: bool = False
    destinations: tuple[str, ...] = ()


# --- which of them apply -------------------------------------------------------------------------


def within(number: str, prefixes: tuple[str, ...]) -> bool:
    """Tell whether a number lies in a group of destinations; an empty group is all of them."""
    return not prefixes or number.startswith(prefixes)


def surcharge_applies(surcharge: Surcharge, caller: str, called: str) -> bool:
    """Tell whether a surcharge is due for a call.

    One that names no origin is due for every call, or with ``no_cli`` for those without a caller's
    number only. One that names origins is due for calls without a number only with ``no_cli``.
    """
    if not within(called, surcharge.destinations):
        return False
    origins, others = surcharge.origins, surcharge.not_origins
    if not caller:
        return surcharge.no_cli or not (origins or others)
    if not (origins or others):
        return not surcharge.no_cli
    return within(caller, origins) and not (others and caller.startswith(others))


def promotion_applies(promotion: Promotion, party_id: int, called: str, at: datetime) -> bool:
    """Tell whether a promotion holds for a party, a called number and a moment (UTC)."""
    if promotion.parties and party_id not in promotion.parties:
        return False
    if not within(called, promotion.destinations):
        return False
    if promotion.begins_at is not None and at < promotion.begins_at:
        return False
    if promotion.ends_at is not None and at >= promotion.ends_at:
        return False
    return promotion.profile is None or contains(promotion.profile, at)


def first_promotion(
    promotions: Iterable[Promotion], party_id: int, called: str, at: datetime
) -> Promotion | None:
    """Return the first promotion that applies."""
    for promotion in promotions:
        if promotion_applies(promotion, party_id, called, at):
            return promotion
    return None


# --- what they do --------------------------------------------------------------------------------


def factor_of(percent: Decimal) -> Decimal:
    """1 + percent/100."""
    return ONE + percent / HUNDRED


def trimmed(price: Decimal) -> Decimal:
    """A price with at most 12 decimals (half even); a negative one is 0."""
    kept = price.quantize(_QUANTUM, context=EXACT)
    if kept <= 0:
        return ZERO
    return price if kept == price else kept


def scaled(tariff: Tariff, factor: Decimal) -> Tariff:
    """All prices and fees of a tariff times a factor; intervals and rounding stay."""
    return _each(tariff, lambda amount: trimmed(EXACT.multiply(amount, factor)))


def _each(tariff: Tariff, work: Callable[[Decimal], Decimal]) -> Tariff:
    """A tariff with something done to all of its prices and fees but those that are zero."""

    def times(amount: Decimal) -> Decimal:
        return work(amount) if amount else amount

    return msgspec.structs.replace(
        tariff,
        first_price=times(tariff.first_price),
        next_price=times(tariff.next_price),
        surcharge=times(tariff.surcharge),
        connect_fee=times(tariff.connect_fee),
        attempt_fee=times(tariff.attempt_fee),
        minimum=times(tariff.minimum),
        cap=None if tariff.cap is None else times(tariff.cap),
    )


def part_of(price: Decimal, used: int, whole: int) -> Decimal:
    """A price x used / whole, with at most 12 decimals."""
    return trimmed(EXACT.divide(EXACT.multiply(price, Decimal(used)), Decimal(whole)))


def prorated(tariff: Tariff, used: int, whole: int) -> tuple[Tariff, Step]:
    """Make the price of a whole period, fees included, into that of ``used`` of its ``whole`` days."""
    priced = _each(tariff, lambda amount: part_of(amount, used, whole))
    return priced, Step("prorated", f"{used} of {whole} days", figures(tariff, priced))


def marked_up(tariff: Tariff, markup: Markup, name: str) -> tuple[Tariff, Step]:
    """Make a cost into a price: percent on everything, ``absolute`` and bounds on first and next price."""
    raised = scaled(tariff, factor_of(markup.percent))

    def bounded(price: Decimal) -> Decimal:
        # The absolute is added to the exact product, not to the one that was kept.
        exact = EXACT.fma(price, factor_of(markup.percent), markup.absolute)
        if markup.floor is not None:
            exact = max(exact, markup.floor)
        if markup.ceiling is not None:
            exact = min(exact, markup.ceiling)
        return trimmed(exact)

    priced = msgspec.structs.replace(
        raised,
        first_price=bounded(tariff.first_price),
        next_price=bounded(tariff.next_price),
    )
    said = [f"cost + {plain(markup.percent)} %"]
    if markup.absolute:
        said.append(f"+ {plain(markup.absolute)} per {tariff.per}")
    if markup.floor is not None:
        said.append(f"at least {plain(markup.floor)}")
    if markup.ceiling is not None:
        said.append(f"at most {plain(markup.ceiling)}")
    return priced, Step("markup", name, f"{', '.join(said)}: {figures(tariff, priced)}")


def surcharged(tariff: Tariff, found: Sequence[Surcharge]) -> tuple[Tariff, tuple[Step, ...]]:
    """Add surcharges: percents raise first and next price, each of what it was before all of them.

    What is added per unit goes into the tariff's own ``surcharge``, so that it stays due where a
    volume tier puts another price in the place of the row's.
    """
    result, factor = tariff, ONE
    steps = []
    for one in found:
        # Always from the beginning: the order of surcharges makes no difference, not even the last digit.
        factor += one.percent / HUNDRED
        raised = msgspec.structs.replace(
            result,
            first_price=trimmed(EXACT.multiply(tariff.first_price, factor)),
            next_price=trimmed(EXACT.multiply(tariff.next_price, factor)),
            surcharge=trimmed(result.surcharge + one.absolute),
        )
        said = []
        if one.percent:
            said.append(f"+ {plain(one.percent)} % of the prices")
        if one.absolute:
            said.append(f"+ {plain(one.absolute)} per {tariff.per}")
        steps.append(
            Step("surcharge", one.code, f"{', '.join(said) or 'none'}: {figures(result, raised)}")
        )
        result = raised
    return result, tuple(steps)


def discounted(tariff: Tariff, promotion: Promotion) -> tuple[Tariff, Step]:
    """Take a promotion's percent off all prices and fees."""
    priced = scaled(tariff, factor_of(-promotion.percent))
    detail = f"{plain(promotion.percent)} % off: {figures(tariff, priced)}"
    return priced, Step("promotion", promotion.code, detail)


def figures(before: Tariff, after: Tariff) -> str:
    """Write which prices and fees became what: ``price 0.01 -> 0.012, connect fee 0.05 -> 0.06``."""
    same = before.first_price == before.next_price and after.first_price == after.next_price
    pairs: list[tuple[str, Decimal | None, Decimal | None]] = (
        [("price", before.next_price, after.next_price)]
        if same
        else [
            ("first price", before.first_price, after.first_price),
            ("next price", before.next_price, after.next_price),
        ]
    )
    pairs += [
        ("surcharge", before.surcharge, after.surcharge),
        ("connect fee", before.connect_fee, after.connect_fee),
        ("attempt fee", before.attempt_fee, after.attempt_fee),
        ("minimum", before.minimum, after.minimum),
        ("cap", before.cap, after.cap),
    ]
    changed = [
        f"{name} {plain(old)} -> {plain(new)}"
        for name, old, new in pairs
        if old is not None and new is not None and old != new
    ]
    return ", ".join(changed) or "no price changes"
