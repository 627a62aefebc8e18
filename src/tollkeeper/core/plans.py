"""What a plan says beside its cards: when a card counts, promotions, surcharges, tiers, packages.

A plan turns a question (who calls what, from where, when) into one tariff in the wallet's currency
with every step that led to it, and into the terms that depend on what was used before. The steps
are always done in this order:

1. the row: of the cards whose conditions hold, the longest prefix, then the order of the cards;
2. the markup, where the card is cost-plus;
3. surcharges, all that apply;
4. one promotion, the first that applies;
5. the exchange into the wallet's currency, margin included.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal

import msgspec

from tollkeeper.core.fx import Exchange, FxRate
from tollkeeper.core.markup import (
    ONE,
    Markup,
    Promotion,
    Surcharge,
    discounted,
    factor_of,
    figures,
    first_promotion,
    marked_up,
    scaled,
    surcharge_applies,
    surcharged,
    trimmed,
    within,
)
from tollkeeper.core.money import EXACT, ZERO, plain
from tollkeeper.core.nanp import Places, jurisdiction, located
from tollkeeper.core.profiles import Profile, Window, contains, next_edge
from tollkeeper.core.rating import Tariff
from tollkeeper.core.reasons import Reason
from tollkeeper.core.records import Pin, Step
from tollkeeper.core.tariff import Card, RateRow
from tollkeeper.core.terms import Later, TierStep

__all__ = [
    "Conditions",
    "Exchange",
    "FxRate",
    "Markup",
    "PackageRule",
    "Places",
    "Plan",
    "PlanCard",
    "Priced",
    "Profile",
    "Promotion",
    "Question",
    "RefundRule",
    "Surcharge",
    "TierRule",
    "Window",
    "conditions_hold",
    "next_change",
    "price_question",
]

LATER_MAX = 16
"""Changes of price that one call can go through."""

LOOKS_MAX = 512
"""Moments at which a change is looked for, most of which change nothing for a call."""


class Question(msgspec.Struct, frozen=True, gc=False):
    """What is to be priced: numbers in E.164 digits; ``network`` MCC+MNC; ``lrn`` 10 or 11 digits.

    ``caller`` is '' where the call comes without a caller's number (a non-CLI call).
    """

    service: str
    called: str
    caller: str = ""
    network: str = ""
    lrn: str = ""


class Conditions(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """When a card of a plan counts; what is empty is not asked.

    ``jurisdiction``: interstate, intrastate or indeterminate; ``origins`` and ``not_origins``: prefixes of
    the caller's number; ``cli``: cli or non_cli; ``profile``: hours. A call without a caller's
    number comes from none of the ``origins``, and so counts as from outside ``not_origins``.
    """

    jurisdiction: str = ""
    origins: tuple[str, ...] = ()
    not_origins: tuple[str, ...] = ()
    cli: str = ""
    profile: Profile | None = None


ALWAYS = Conditions()


class PlanCard(msgspec.Struct, frozen=True, gc=False):
    """A card in a plan. ``key`` says what its prefixes are compared with: called or network.

    A card that asks for a jurisdiction is a deck of office codes: a ported number is looked up
    on it by its LRN, where there is one.
    """

    card: Card
    kind: str
    conditions: Conditions = ALWAYS
    markup: Markup | None = None
    key: str = "called"


class TierRule(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """Volume prices of a group of destinations and a period: day, week or month of the party's zone.

    A price of a step stands in the place of the card's price and is in the card's currency: percent
    surcharges, the promotion and the exchange are done to it as to the card's, a markup is not.
    """

    code: str
    period: str
    steps: tuple[TierStep, ...]
    retroactive: bool = False
    destinations: tuple[str, ...] = ()


class PackageRule(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """Units included: which destinations, without which; how many, how long, what is taken over.

    ``units`` are the service's (seconds, messages, bytes) for each ``period``; up to ``rollover`` unused
    ones are taken into the following period. One without a ``price`` that renews itself is part of the
    plan: every party has it in each local period. Any other is bought, and lasts one period from then on;
    with ``renew`` it is bought again at its end. ``price`` is in ``currency``.
    """

    code: str
    units: int
    period: str = "month"
    destinations: tuple[str, ...] = ()
    exclusions: tuple[str, ...] = ()
    rollover: int = 0
    price: Decimal = ZERO
    currency: str = ""
    renew: bool = True

    @property
    def included(self) -> bool:
        """True for a package that needs no buying."""
        return self.renew and not self.price


class RefundRule(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """Whether an undelivered use is given back, and how many hours after it at most (None: ever)."""

    undelivered: bool = True
    within_hours: int | None = None


ALL_BACK = RefundRule()


class Plan(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """A plan for one service, compiled: ``cards`` in the order in which they win ties."""

    plan_id: int
    code: str
    service: str
    cards: tuple[PlanCard, ...] = ()
    promotions: tuple[Promotion, ...] = ()
    surcharges: tuple[Surcharge, ...] = ()
    tiers: tuple[TierRule, ...] = ()
    packages: tuple[PackageRule, ...] = ()
    fx_margin: Decimal = ZERO
    refund: RefundRule = ALL_BACK


class Priced(msgspec.Struct, frozen=True, gc=False):
    """The answer: the pinned price and what else of the plan applies to it.

    ``tier`` has its prices as they are to be charged, in the wallet's currency.
    """

    pin: Pin
    tier: TierRule | None = None
    packages: tuple[PackageRule, ...] = ()
    later: tuple[Later, ...] = ()


def price_question(
    plan: Plan,
    question: Question,
    at: datetime,
    *,
    party_id: int,
    wallets: Mapping[str, int],
    exchange: Exchange,
    places: Places,
    split: bool = False,
    until: datetime | None = None,
) -> Priced | Reason:
    """Price a question at a moment (UTC) for a party with these wallets (currency to wallet id).

    The wallet is the one in the card's currency, else the first for which ``exchange`` knows a rate;
    its currency is that of the pin. With ``split``, ``later`` has the prices that follow between ``at``
    and ``until``; while nothing is sold the last price goes on.

    Returns:
        The price, or why there is none: NO_RATE, DESTINATION_BLOCKED, NO_WALLET or NO_FX_RATE.
    """
    found = _choose(plan, question, at, places)
    if found is None:
        return Reason.NO_RATE
    sold, row = found
    if row.blocked:
        return Reason.DESTINATION_BLOCKED
    if not wallets:
        return Reason.NO_WALLET
    worked = _work(plan, sold, row, question, at, party_id, wallets, exchange, places)
    if isinstance(worked, Reason):
        return worked
    pin, factor = worked
    tier = _tier(plan.tiers, question.called, factor) if plan.tiers else None
    packages = _packages(plan.packages, question.called) if plan.packages else ()
    later: tuple[Later, ...] = ()
    if split and until is not None:
        wallet = {pin.currency: wallets[pin.currency]}
        later = _later(plan, question, at, until, pin, party_id, wallet, exchange, places)
    return Priced(pin, tier, packages, later)


# --- the row -------------------------------------------------------------------------------------


def _choose(
    plan: Plan, question: Question, at: datetime, places: Places
) -> tuple[PlanCard, RateRow] | None:
    """Find the card and row that price the question; the first of the longest."""
    chosen: tuple[PlanCard, RateRow] | None = None
    longest = -1
    for sold in plan.cards:
        number = question.called
        conditions = sold.conditions
        if conditions is not ALWAYS and conditions != ALWAYS:
            if not conditions_hold(conditions, question, at, places):
                continue
            if conditions.jurisdiction and question.lrn:
                number = located(number, question.lrn)
        if sold.key != "called":
            number = question.network
            if not number:
                continue
        row = sold.card.table.find(number, at)
        if row is not None and len(row.prefix) > longest:
            chosen = (sold, row)
            longest = len(row.prefix)
    return chosen


def conditions_hold(
    conditions: Conditions, question: Question, at: datetime, places: Places
) -> bool:
    """Tell whether a card with these conditions counts for a question at a moment (UTC)."""
    caller = question.caller
    if conditions.cli and (conditions.cli == "cli") is not bool(caller):
        return False
    if conditions.origins and not caller.startswith(conditions.origins):
        return False
    if conditions.not_origins and caller.startswith(conditions.not_origins):
        return False
    if conditions.jurisdiction and conditions.jurisdiction != jurisdiction(
        caller, question.called, question.lrn, places
    ):
        return False
    return conditions.profile is None or contains(conditions.profile, at)


def _conditions_step(sold: PlanCard, question: Question, places: Places) -> Step:
    """Say why a card with conditions counts."""
    conditions = sold.conditions
    said = []
    if conditions.jurisdiction:
        number = located(question.called, question.lrn)
        here = places.get(question.caller[1:7]) or "unknown"
        there = places.get(number[1:7]) or "unknown"
        by = f" by LRN {number}" if number != question.called else ""
        said.append(f"{conditions.jurisdiction}: from {here} to {there}{by}")
    if conditions.origins:
        said.append(f"the caller {question.caller} is one of its origins")
    if conditions.not_origins:
        said.append("the caller is none of the origins that it leaves out")
    if conditions.cli:
        said.append("with a caller's number" if question.caller else "without a caller's number")
    if conditions.profile is not None:
        said.append(f"in the hours {conditions.profile.code}")
    return Step("card", sold.card.code, ", ".join(said))


# --- the price -----------------------------------------------------------------------------------


def _work(
    plan: Plan,
    sold: PlanCard,
    row: RateRow,
    question: Question,
    at: datetime,
    party_id: int,
    wallets: Mapping[str, int],
    exchange: Exchange,
    places: Places,
) -> tuple[Pin, Decimal] | Reason:
    """Do the steps on a row's tariff; also gives what they multiply a tier's price by."""
    card, tariff = sold.card, row.tariff
    factor, currency = ONE, card.currency
    steps: tuple[Step, ...] = ()
    if sold.conditions is not ALWAYS and sold.conditions != ALWAYS:
        steps = (_conditions_step(sold, question, places),)
    if sold.markup is not None:
        tariff, step = marked_up(tariff, sold.markup, card.code)
        steps = (*steps, step)
    if plan.surcharges:
        due = [
            one
            for one in plan.surcharges
            if surcharge_applies(one, question.caller, question.called)
        ]
        tariff, more = surcharged(tariff, due)
        steps = (*steps, *more)
        factor = factor_of(sum((one.percent for one in due), ZERO))
    if plan.promotions:
        promotion = first_promotion(plan.promotions, party_id, question.called, at)
        if promotion is not None:
            tariff, step = discounted(tariff, promotion)
            steps = (*steps, step)
            factor = EXACT.multiply(factor, factor_of(-promotion.percent))
    if currency not in wallets:
        rate = _rate(currency, wallets, exchange)
        if rate is None:
            return Reason.NO_FX_RATE
        tariff, times, step = _exchanged(tariff, rate, plan.fx_margin)
        steps = (*steps, step)
        factor, currency = EXACT.multiply(factor, times), rate.quote
    pin = Pin(
        card.card_id, card.code, card.version, row.row_id, row.prefix, row.destination, currency,
        tariff, steps,
    )  # fmt: skip
    return pin, factor


def _rate(currency: str, wallets: Mapping[str, int], exchange: Exchange) -> FxRate | None:
    """The rate into the first wallet for which there is one."""
    for other in wallets:
        rate = exchange(currency, other)
        if rate is not None:
            return rate
    return None


def _exchanged(tariff: Tariff, rate: FxRate, margin: Decimal) -> tuple[Tariff, Decimal, Step]:
    """Bring a tariff into another currency; the margin (percent) is added to the rate."""
    times = trimmed(EXACT.multiply(rate.rate, factor_of(margin)))
    priced = scaled(tariff, times)
    added = f" + {plain(margin)} % = {plain(times)}" if margin else ""
    detail = (
        f"1 {rate.base} = {plain(rate.rate)} {rate.quote} ({rate.source}, {rate.day}){added}: "
        f"{figures(tariff, priced)}"
    )
    return priced, times, Step("fx", f"{rate.base}/{rate.quote}", detail)


# --- tiers and packages --------------------------------------------------------------------------


def _tier(tiers: tuple[TierRule, ...], called: str, factor: Decimal) -> TierRule | None:
    """The first tier of the called number's group, with its prices as they are charged."""
    for rule in tiers:
        if within(called, rule.destinations):
            if factor == ONE or all(step.price is None for step in rule.steps):
                return rule
            steps = tuple(
                step if step.price is None
                else TierStep(step.start, trimmed(EXACT.multiply(step.price, factor)))
                for step in rule.steps
            )  # fmt: skip
            return msgspec.structs.replace(rule, steps=steps)
    return None


def _packages(packages: tuple[PackageRule, ...], called: str) -> tuple[PackageRule, ...]:
    return tuple(
        one
        for one in packages
        if within(called, one.destinations)
        and not (one.exclusions and called.startswith(one.exclusions))
    )


# --- changes while the call is up ----------------------------------------------------------------


def next_change(plan: Plan, question: Question, at: datetime) -> datetime | None:
    """Return the first moment (UTC) later than ``at`` at which the answer may change; None: it will not.

    These are the edges of hours of cards and promotions, the beginning and end of promotions,
    and the beginning and end of rows that could price the number.
    """
    moments: list[datetime | None] = []
    for sold in plan.cards:
        if sold.conditions.profile is not None:
            moments.append(next_edge(sold.conditions.profile, at))
        by_network = sold.key != "called"
        number = question.network if by_network else question.called
        if sold.conditions.jurisdiction and not by_network:
            number = located(number, question.lrn)
        if number or not by_network:
            moments.append(sold.card.table.next_edge(number, at))
    for promotion in plan.promotions:
        if within(question.called, promotion.destinations):
            moments += (promotion.begins_at, promotion.ends_at)
            if promotion.profile is not None:
                moments.append(next_edge(promotion.profile, at))
    return min((moment for moment in moments if moment is not None and moment > at), default=None)


def _later(
    plan: Plan,
    question: Question,
    at: datetime,
    until: datetime,
    pin: Pin,
    party_id: int,
    wallets: Mapping[str, int],
    exchange: Exchange,
    places: Places,
) -> tuple[Later, ...]:
    """The prices that follow: at most 16, each other than the one before it."""
    found: list[Later] = []
    current, moment = pin.tariff, next_change(plan, question, at)
    for _ in range(LOOKS_MAX):
        if moment is None or moment >= until or len(found) == LATER_MAX:
            break
        chosen = _choose(plan, question, moment, places)
        if chosen is not None and not chosen[1].blocked:
            worked = _work(plan, *chosen, question, moment, party_id, wallets, exchange, places)
            if not isinstance(worked, Reason):
                then = _only_prices(pin.tariff, worked[0].tariff)
                if then != current:
                    found.append(Later(moment, then, _label(worked[0])))
                    current = then
        moment = next_change(plan, question, moment)
    return tuple(found)


def _only_prices(first: Tariff, then: Tariff) -> Tariff:
    """The first tariff with the prices of another, per the same number of units."""
    prices = (then.first_price, then.next_price, then.surcharge)
    if then.per != first.per:
        share = EXACT.divide(Decimal(first.per), Decimal(then.per))
        prices = (
            trimmed(EXACT.multiply(prices[0], share)),
            trimmed(EXACT.multiply(prices[1], share)),
            trimmed(EXACT.multiply(prices[2], share)),
        )
    return msgspec.structs.replace(
        first, first_price=prices[0], next_price=prices[1], surcharge=prices[2]
    )


def _label(pin: Pin) -> str:
    """A rate's name for people: its destination, card, and the promotion where there is one."""
    promotions = "".join(f", {step.name}" for step in pin.steps if step.kind == "promotion")
    return f"{pin.destination} ({pin.card} v{pin.version}{promotions})"
