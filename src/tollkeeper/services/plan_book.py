"""Plans as the call path needs them: stored terms and conditions made into the core's plans.

What cannot be resolved never makes a price better than it was meant: a zone that is not known
covers no number, unknown hours never come, an unknown party is nobody.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, tzinfo
from decimal import Decimal
from functools import cache
from zoneinfo import ZoneInfo

import structlog

from tollkeeper.core.plans import (
    Conditions,
    Markup,
    PackageRule,
    Plan,
    PlanCard,
    Profile,
    Promotion,
    RefundRule,
    Surcharge,
    TierRule,
    Window,
)
from tollkeeper.core.records import Unit
from tollkeeper.core.services import service_of
from tollkeeper.core.tariff import Card
from tollkeeper.core.terms import TierStep
from tollkeeper.store.plans import (
    CardRow,
    CardTerms,
    PlanRow,
    PlanTerms,
    TimeProfile,
    Zone,
    conditions_from,
    terms_from,
)

DEFAULT_PER = {Unit.SECOND: 60, Unit.BYTE: 1_000_000}
NOBODY_ID = 0
_log = structlog.get_logger()


def default_per(service: str) -> int:
    """How many units a price of a service is for, where the card does not say."""
    return DEFAULT_PER.get(service_of(service).unit, 1)


@cache
def zone_of(name: str) -> tzinfo:
    """The time zone of this name; UTC where this machine does not know it (any more)."""
    if name == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except (LookupError, ValueError, OSError):
        _log.warning("timezone.unknown", timezone=name)
        return UTC


class Names:
    """What codes in terms stand for: prefixes of zones, hours of profiles, ids of parties."""

    def __init__(
        self,
        zones: Iterable[Zone] = (),
        profiles: Iterable[TimeProfile] = (),
        party_id: Callable[[str], int] = lambda _code: NOBODY_ID,
    ) -> None:
        self._zones = {zone.code: zone.prefixes for zone in zones}
        self._profiles = {profile.code: compiled_profile(profile) for profile in profiles}
        self._party_id = party_id

    def prefixes(self, names: Iterable[str]) -> tuple[str, ...]:
        """Prefixes of zones and bare prefixes together, each once, in order."""
        found: dict[str, None] = {}
        for name in names:
            # A zone that is gone stands for itself: no number begins with its letters.
            found.update(
                dict.fromkeys((name,) if name.isdigit() else self._zones.get(name, (name,)))
            )
        return tuple(found)

    def profile(self, code: str) -> Profile | None:
        """The hours of a profile; None where none is asked for."""
        if not code:
            return None
        return self._profiles.get(code) or Profile(code, UTC, ())

    def parties(self, codes: Iterable[str]) -> frozenset[int]:
        """Ids of parties; somebody unknown is nobody, never everybody."""
        return frozenset(self._party_id(code) for code in codes)


def compiled_profile(profile: TimeProfile) -> Profile:
    """The core's form of a stored time profile."""
    windows = tuple(Window(frozenset(w.days), w.begin, w.end) for w in profile.windows)
    return Profile(profile.code, zone_of(profile.timezone), windows)


def compiled_conditions(stored: CardTerms, names: Names) -> Conditions:
    """The core's form of a card's conditions."""
    return Conditions(
        jurisdiction=stored.jurisdiction,
        origins=names.prefixes(stored.origins),
        not_origins=names.prefixes(stored.not_origins),
        cli=stored.cli,
        profile=names.profile(stored.profile),
    )


def compiled_promotions(
    terms: PlanTerms, names: Names, service: str | None = None
) -> tuple[Promotion, ...]:
    """Promotions of a service (None: of all), in their order."""
    return tuple(
        Promotion(
            code=one.code,
            percent=one.percent,
            destinations=names.prefixes(one.destinations),
            begins_at=_utc(one.begins_at),
            ends_at=_utc(one.ends_at),
            profile=names.profile(one.profile),
            parties=names.parties(one.parties),
        )
        for one in terms.promotions
        if service is None or one.service in {"", service}
    )


def _utc(moment: datetime | None) -> datetime | None:
    return None if moment is None else moment.astimezone(UTC)


def compiled_surcharges(
    terms: PlanTerms, names: Names, service: str | None = None
) -> tuple[Surcharge, ...]:
    """Surcharges of a service (None: of all), in their order."""
    return tuple(
        Surcharge(
            code=one.code,
            absolute=one.absolute,
            percent=one.percent,
            origins=names.prefixes(one.origins),
            not_origins=names.prefixes(one.not_origins),
            no_cli=one.no_cli,
            destinations=names.prefixes(one.destinations),
        )
        for one in terms.surcharges
        if service is None or one.service == service
    )


def compiled_tiers(
    terms: PlanTerms, names: Names, service: str | None, per: int
) -> tuple[TierRule, ...]:
    """Volume prices of a service (None: of all); steps become units (of minutes: seconds)."""
    return tuple(
        TierRule(
            code=one.code,
            period=one.period,
            steps=tuple(TierStep(step.start * per, step.price, step.percent) for step in one.steps),
            retroactive=one.retroactive,
            destinations=names.prefixes(one.destinations),
        )
        for one in terms.tiers
        if service is None or one.service == service
    )


def compiled_packages(
    terms: PlanTerms, names: Names, service: str | None, per: int
) -> tuple[PackageRule, ...]:
    """Packages of a service (None: of all), with what they include in units."""
    return tuple(
        PackageRule(
            code=one.code,
            units=one.units * per,
            period=one.period,
            destinations=names.prefixes(one.destinations),
            exclusions=names.prefixes(one.exclusions),
            rollover=one.rollover * per,
            price=one.price,
            currency=one.currency,
            renew=one.renew,
        )
        for one in terms.packages
        if service is None or one.service == service
    )


def compiled_refund(terms: PlanTerms, service: str) -> RefundRule:
    """What the plan gives back of a service: all, at any time, where it says nothing."""
    for one in terms.refunds:
        if one.service == service:
            return RefundRule(one.undelivered == "full", one.within_hours)
    return RefundRule()


def markup_of(row: CardRow) -> Markup | None:
    """What a cost-plus card adds to its cost; None for a card with prices of its own."""
    if row.cost_card_id is None:
        return None
    return Markup(row.markup_percent, row.markup, row.floor_price, row.ceiling_price)


def compile_plans(
    plans: Iterable[PlanRow],
    rows: Iterable[CardRow],
    cards: Mapping[int, Card],
    names: Names,
) -> dict[tuple[int, str], Plan]:
    """Make the plan of each (plan, service) that has a card in force.

    ``cards`` are compiled versions in force by card id; a cost-plus card's is its cost card's.
    """
    listed: dict[tuple[int, str], list[CardRow]] = {}
    for row in rows:
        listed.setdefault((row.plan_id, row.service), []).append(row)
    by_id = {plan.id: plan for plan in plans}
    made: dict[tuple[int, str], Plan] = {}
    for key, found in listed.items():
        plan_id, service = key
        plan = by_id.get(plan_id)
        placed = tuple(
            PlanCard(
                card=_named(cards[source], row),
                kind=row.kind,
                conditions=compiled_conditions(conditions_from(row.conditions), names),
                markup=markup_of(row),
                key=row.key,
            )
            for row in found
            if (source := row.cost_card_id or row.card_id) in cards
        )
        if plan is None or not placed:
            continue
        terms = terms_from(plan.terms)
        per = found[0].per
        made[key] = Plan(
            plan_id=plan_id,
            code=plan.code,
            service=service,
            cards=placed,
            promotions=compiled_promotions(terms, names, service),
            surcharges=compiled_surcharges(terms, names, service),
            tiers=compiled_tiers(terms, names, service, per),
            packages=compiled_packages(terms, names, service, per),
            fx_margin=Decimal(terms.fx_margin),
            refund=compiled_refund(terms, service),
        )
    return made


def _named(card: Card, row: CardRow) -> Card:
    """A card under its own name: a cost-plus card has the table and version of its cost card."""
    if card.card_id == row.card_id:
        return card
    return Card(row.card_id, row.code, card.version, card.currency, card.table)
