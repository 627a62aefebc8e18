"""The parts that a charge with terms is made of, told so that each can be done again by hand.

A part says what it cost, and where it stood: how much of a package was left before, at which place of
a volume it was counted, from which offset on another rate held.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from tollkeeper.core.money import EXACT, ZERO, plain
from tollkeeper.core.pieces import LATER, PACKAGE, REBATE, TIER, priced, step_at, step_price
from tollkeeper.core.rating import SIXTY, Tariff
from tollkeeper.core.records import Leg
from tollkeeper.core.terms import Later, Part, Terms, Tier, TierStep
from tollkeeper.core.words import Words
from tollkeeper.store.explain import NamedMeter

SHOWN_DECIMALS = 12
_MIDNIGHT = datetime.min.time()


@dataclass(frozen=True, slots=True)
class PartLine:
    """Some units at one price, or a rebate.

    ``amount`` is exact, not rounded (a quotient that does not end is cut). ``name`` is the package, tier or
    rate it was priced by, ``period`` that of its meter; ``before`` and ``after`` are the units counted on
    that meter before and after the part, ``left`` what a package had left before it. ``crossed`` is
    where the step begins that the volume reached with it. ``offset`` counts units from the beginning.
    ``sum`` is the product alone, ``text`` with what it makes, and ``place`` says where it comes from.
    """

    kind: str
    units: int
    price: Decimal
    amount: Decimal
    name: str
    period: str
    before: Decimal | None
    after: Decimal | None
    left: Decimal | None
    crossed: int | None
    offset: int
    sum: str
    text: str
    place: str


def exact(amount: Decimal) -> str:
    """An exact amount for people: a quotient that does not end is shown to 12 decimals."""
    text = f"{amount.normalize():f}" if amount else "0"
    whole, _, decimals = text.partition(".")
    return f"{whole}.{decimals[:SHOWN_DECIMALS]}..." if len(decimals) > 20 else plain(amount)


def part_lines(
    leg: Leg,
    parts: Iterable[Part],
    meters: Mapping[int, NamedMeter],
    words: Words,
    began: datetime | None,
) -> Iterator[PartLine]:
    """Tell each part, in the order in which they were charged."""
    terms = leg.terms or Terms()
    teller = _Teller(leg.pin.tariff, terms, meters, words, began)
    offset = 0
    for part in parts:
        yield teller.line(part, offset)
        offset += part.units


class _Teller:
    def __init__(
        self,
        tariff: Tariff,
        terms: Terms,
        meters: Mapping[int, NamedMeter],
        words: Words,
        began: datetime | None,
    ) -> None:
        self._tariff, self._terms, self._meters = tariff, terms, meters
        self._words, self._began = words, began
        self._volume = 0
        """What a tier's meter stood at after the part before."""

    def line(self, part: Part, offset: int) -> PartLine:
        if part.kind == PACKAGE:
            return self._package(part, offset)
        if part.kind == REBATE:
            return self._rebate(part, offset)
        count = self._words.count(part.units)
        made = f"{count} x {plain(part.price)}{self._words.rate}"
        amount = EXACT.divide(EXACT.multiply(part.price, part.units), Decimal(self._tariff.per))
        text = f"{made} = {exact(amount)}"
        if part.units < 0:
            text += ", taken back"
        later = self._later(part, offset)
        name, period, crossed = "", "", None
        before = after = None
        places: list[str] = []
        if part.kind == TIER and self._terms.tier is not None:
            tier = self._terms.tier
            name, period = tier.code, self._period(part.meter_id)
            before, after = part.at, part.at + part.units
            self._volume = int(after)
            crossed = _crossed(tier, int(before), int(after))
            places.append(self._volume_text(tier, part, crossed))
        if later is not None:
            name = name or later.label
            places.append(
                f"from {self._words.count(offset)} on at the rate {later.label}, which holds since "
                f"{_time(later.at)}"
            )
        elif self._terms.later and part.units > 0:
            places.append("at the rate of the beginning")
        return PartLine(
            part.kind, part.units, part.price, amount, name, period, before, after, None, crossed,
            offset, made, text, "; ".join(places),
        )  # fmt: skip

    # --- packages --------------------------------------------------------------------------------

    def _package(self, part: Part, offset: int) -> PartLine:
        code = next((p.code for p in self._terms.packages if p.meter_id == part.meter_id), "")
        named, period = self._meters.get(part.meter_id), self._period(part.meter_id)
        cap = None if named is None else named.meter.cap
        left = None if cap is None else cap - part.at
        count = self._words.count
        text, place = f"{count(part.units)} of the package {code}{period and f' ({period})'}", ""
        if part.units < 0:
            text = f"{count(-part.units)} given back to the package {code}"
        elif left is not None:
            place = f"{count(int(left))} were left, {count(int(left) - part.units)} after it"
        return PartLine(
            PACKAGE, part.units, ZERO, ZERO, code, period, part.at, part.at + part.units, left,
            None, offset, f"{count(part.units)} free", text, place,
        )  # fmt: skip

    # --- tiers -----------------------------------------------------------------------------------

    def _volume_text(self, tier: Tier, part: Part, crossed: int | None) -> str:
        count = self._words.count
        step, row = self._step(tier, part)
        says = f"{plain(step.price)}" if step.price is not None else _percent(step, row)
        more = part.price - step_price(step, row)
        plus = f" + surcharge {plain(more)}" if more else ""
        text = (
            f"tier {tier.code} ({self._period(part.meter_id)}), volume {count(int(part.at))} -> "
            f"{count(int(part.at) + part.units)}, step from {count(step.start)}: {says}{plus}"
        )
        if crossed is not None:
            text += f"; the step from {count(crossed)} is reached"
        return text

    def _step(self, tier: Tier, part: Part) -> tuple[TierStep, Decimal]:
        """The step that priced a part, and the list price that it was priced from."""
        row = EXACT.divide(
            EXACT.multiply(part.base, self._tariff.per), EXACT.multiply(SIXTY, part.units)
        )
        surcharges = {self._tariff.surcharge} | {one.tariff.surcharge for one in self._terms.later}
        stood = tier.steps[step_at(tier, int(part.at))]
        for step in (stood, *tier.steps):
            if any(priced(step_price(step, row), plus) == part.price for plus in surcharges):
                return step, row
        return stood, row

    def _rebate(self, part: Part, offset: int) -> PartLine:
        tier = self._terms.tier
        amount = EXACT.divide(part.base, SIXTY) if part.base else part.extra
        if tier is None:
            text = f"rebate {exact(amount)}"
            return PartLine(
                REBATE, 0, ZERO, amount, "", "", None, None, None, None, offset, text, text, ""
            )
        count, at = self._words.count, int(part.at)
        old, new = tier.steps[step_at(tier, at)], tier.steps[step_at(tier, self._volume)]
        # Going up the rebate is for what came before; falling back it is taken back for what is left.
        concerned = min(at, self._volume)
        if old.price is not None and new.price is not None:
            how = (
                f"{count(concerned)} x ({plain(new.price)} - {plain(old.price)}){self._words.rate}"
            )
        elif old.percent is not None and new.percent is not None:
            share = new.percent - old.percent
            listed = EXACT.divide(EXACT.multiply(amount, Decimal(100)), share)
            how = f"{exact(listed)} at list prices x ({new.percent:f} % - {old.percent:f} %)"
        else:
            how = "the difference between the two steps"
        went = "is reached" if self._volume > at else "is left again"
        edge = max(old.start, new.start)
        place = (
            f"tier {tier.code}, the step from {count(edge)} {went}, for the {count(concerned)} "
            f"{'before' if self._volume > at else 'that remain'}"
        )
        return PartLine(
            REBATE, 0, ZERO, amount, tier.code, self._period(part.meter_id), part.at, None, None,
            edge, offset, how, f"{how} = {exact(amount)}", place,
        )  # fmt: skip

    # --- rates that change -----------------------------------------------------------------------

    def _later(self, part: Part, offset: int) -> Later | None:
        """The later rate that held where a part began."""
        if self._began is None or part.units <= 0:
            return None
        moment = self._began + timedelta(seconds=offset)
        found = [one for one in self._terms.later if one.at <= moment]
        if part.kind == LATER:
            return found[-1] if found else None
        tier = self._terms.tier
        if part.kind != TIER or tier is None or not found:
            return None
        # A change within an interval counts from the next one on: the list price tells.
        row = self._step(tier, part)[1]
        last = found[-1].tariff
        return found[-1] if row in (last.first_price, last.next_price) else None

    def _period(self, meter_id: int) -> str:
        return period_of_meter(self._meters.get(meter_id))


def _percent(step: TierStep, row: Decimal) -> str:
    assert step.percent is not None
    return plain(row) if step.percent == 100 else f"{step.percent:f} % of {plain(row)}"


def _crossed(tier: Tier, before: int, after: int) -> int | None:
    """Where the last step begins that a volume reaches on its way up."""
    reached = [step.start for step in tier.steps if before < step.start <= after]
    return reached[-1] if reached else None


def period_of_meter(named: NamedMeter | None) -> str:
    """The period that a meter counts for: ``2026-11-01 to 2026-12-01`` in UTC."""
    if named is None:
        return ""
    if named.ends_at is None:
        return f"since {_time(named.begins_at)}"
    return f"{_time(named.begins_at)} to {_time(named.ends_at)}"


def _time(moment: datetime) -> str:
    """A moment in UTC; midnight is only a day."""
    at = moment.astimezone(UTC)
    return f"{at:%Y-%m-%d}" if at.time() == _MIDNIGHT else f"{at:%Y-%m-%d %H:%M:%S} UTC"
