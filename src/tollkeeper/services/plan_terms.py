"""Terms of plans: promotions, surcharges, volume tiers, packages, conditions of cards.

What is written here is checked whole: names exist and are the owner's, volumes begin at zero and
rise, no two promotions can meet, every call finds a card. Calls that are up keep what they were
authorised with.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import partial

import msgspec

from tollkeeper.core.markup import HUNDRED
from tollkeeper.core.money import LIMIT, SCALE, ZERO, parse_currency
from tollkeeper.core.plan_checks import (
    PERCENT_MAX,
    check_conditions,
    check_fallback,
    check_packages,
    check_promotions,
    check_surcharges,
    check_tiers,
)
from tollkeeper.core.plans import Conditions
from tollkeeper.core.tariff import PREFIX_MAX
from tollkeeper.errors import InvalidInput, NotFound
from tollkeeper.services.fields import check_amount, check_code, check_moment
from tollkeeper.services.plan_book import (
    Names,
    compiled_conditions,
    compiled_packages,
    compiled_promotions,
    compiled_surcharges,
    compiled_tiers,
)
from tollkeeper.services.rate_cards import SERVICE_PATTERN
from tollkeeper.store import plans as store
from tollkeeper.store.changes import record
from tollkeeper.store.db import Connection, Database
from tollkeeper.store.parties import lock_plan
from tollkeeper.store.plans import CardRow, CardTerms, PlanTerms, conditions_from, terms_from

__all__ = ["CardTerms", "PlanTerms", "check_cards", "get_terms", "plans_using", "set_terms"]

LIST_MAX = 200
"""Promotions, surcharges, tiers or packages of a plan, and steps of a tier."""
HOURS_MAX = 24 * 366
"""No refund is promised for longer."""
NAMES_MAX = 2000
"""Zones, prefixes or parties in one list."""

_SERVICE = re.compile(SERVICE_PATTERN[1:-1])
_PROMOTION = re.compile(r"promotions\[(\d+)\]")


@dataclass(frozen=True, slots=True)
class _Known:
    """What names in terms may stand for, as far as their owner may use it."""

    zones: frozenset[str]
    profiles: frozenset[str]
    parties: dict[str, int]
    names: Names


async def get_terms(database: Database, code: str, *, scope: int | None = None) -> PlanTerms:
    """Return what a plan says beside its cards.

    Raises:
        NotFound: no such plan.
    """
    async with database.read(scope=scope) as connection:
        plan = await store.read_plan_row(connection, code)
    if plan is None:
        raise _unknown(code)
    return terms_from(plan.terms)


async def set_terms(
    database: Database, code: str, terms: PlanTerms, *, actor: str, scope: int | None = None
) -> PlanTerms:
    """Make these the terms of a plan, in place of all that it had.

    Raises:
        NotFound: no such plan. InvalidInput: naming the field, such as ``tiers[0].steps[1].from``.
    """
    _check_values(terms)
    async with database.write(scope=scope) as connection:
        plan_id = await lock_plan(connection, code)
        if plan_id is None:
            raise _unknown(code)
        known = await _known(connection, _parties_in(terms), scope)
        _check_names(terms, known)
        _check_rules(terms, known.names)
        await store.write_terms(connection, plan_id, terms)
        await record(
            connection,
            actor=actor,
            action="plan.terms",
            subject=f"plan {code}",
            detail=msgspec.to_builtins(terms),
            notice=f"plan:{plan_id}",
        )
    return terms


def _unknown(code: str) -> NotFound:
    return NotFound(f'there is no plan "{code}"', code="unknown_plan")


async def check_cards(
    connection: Connection,
    plan_id: int,
    given: Sequence[tuple[str, CardTerms]],
    scope: int | None,
) -> None:
    """Check the cards of a plan, stored already in this transaction, with their conditions as given.

    Raises:
        InvalidInput: conditions that name what does not exist or that no call can meet; a call that
            meets none; cards of one service whose prices are for different numbers of units.
    """
    rows = await store.read_card_rows(connection, plan_id)
    _check_per(rows)
    if all(when == store.NO_CONDITIONS for _, when in given):
        return
    known = await _known(connection, (), scope)
    for number, (_, when) in enumerate(given):
        place = f"cards[{number}].when"
        _check_places(when.origins, known, f"{place}.origins")
        _check_places(when.not_origins, known, f"{place}.not_origins")
        _check_profile(when.profile, known, f"{place}.profile")
        check_conditions(compiled_conditions(when, known.names), place)
    _check_fallbacks(rows, known.names)


def _check_per(rows: Iterable[CardRow]) -> None:
    """Volumes and packages are counted in what prices are for, so that must be one thing."""
    first: dict[str, CardRow] = {}
    for row in rows:
        other = first.setdefault(row.service, row)
        if other.per != row.per:
            raise InvalidInput(
                f"cards: prices of {other.code} are per {other.per} and those of {row.code} per "
                f"{row.per}; cards of one service in a plan must agree",
                code="mixed_per",
                field="cards",
            )


def _check_fallbacks(rows: Iterable[CardRow], names: Names) -> None:
    services: dict[str, list[Conditions]] = {}
    for row in rows:
        conditions = compiled_conditions(conditions_from(row.conditions), names)
        services.setdefault(row.service, []).append(conditions)
    for found in services.values():
        check_fallback(found, "cards")


# --- plans that use a zone or hours --------------------------------------------------------------


async def plans_using(
    connection: Connection, *, zone: str = "", profile: str = ""
) -> list[store.PlanRow]:
    """Plans whose terms or conditions name a zone or a time profile."""
    conditions: dict[int, list[CardTerms]] = {}
    for row in await store.read_conditions(connection):
        conditions.setdefault(row.plan_id, []).append(conditions_from(row.conditions))
    return [
        plan
        for plan in await store.read_plan_rows(connection)
        if (zone and zone in set(_zones_in(terms_from(plan.terms), conditions.get(plan.id, ()))))
        or (
            profile
            and profile in set(_profiles_in(terms_from(plan.terms), conditions.get(plan.id, ())))
        )
    ]


def _zones_in(terms: PlanTerms, conditions: Iterable[CardTerms]) -> Iterator[str]:
    for when in conditions:
        yield from (*when.origins, *when.not_origins)
    for promotion in terms.promotions:
        yield from promotion.destinations
    for extra in terms.surcharges:
        yield from (*extra.origins, *extra.not_origins, *extra.destinations)
    for tier in terms.tiers:
        yield from tier.destinations
    for package in terms.packages:
        yield from (*package.destinations, *package.exclusions)


def _profiles_in(terms: PlanTerms, conditions: Iterable[CardTerms]) -> Iterator[str]:
    yield from (when.profile for when in conditions)
    yield from (promotion.profile for promotion in terms.promotions)


def _parties_in(terms: PlanTerms) -> list[str]:
    return [party for promotion in terms.promotions for party in promotion.parties]


async def check_again(
    connection: Connection, plans: Iterable[store.PlanRow], *, field: str
) -> None:
    """Check plans after what their names stand for has changed, in the same transaction.

    Raises:
        InvalidInput: one of them would not be sound any more; says which, and why.
    """
    for plan in plans:
        terms = terms_from(plan.terms)
        known = await _known(connection, _parties_in(terms), None)
        try:
            _check_rules(terms, known.names)
            _check_fallbacks(await store.read_card_rows(connection, plan.id), known.names)
        except InvalidInput as error:
            raise InvalidInput(
                f"{field}: the plan {plan.code} uses this, and with the change {error.detail}",
                code=error.code,
                field=field,
            ) from error


# --- names ---------------------------------------------------------------------------------------


async def _known(connection: Connection, parties: Sequence[str], scope: int | None) -> _Known:
    zones = await store.read_zones(connection)
    profiles = await store.read_profiles(connection)
    ids = await store.party_ids(connection, parties) if parties else {}
    return _Known(
        zones=frozenset(one.code for one in zones if scope is None or one.owner_id == scope),
        profiles=frozenset(one.code for one in profiles if scope is None or one.owner_id == scope),
        parties=ids,
        names=Names(zones, profiles, lambda code: ids.get(code, 0)),
    )


def _check_names(terms: PlanTerms, known: _Known) -> None:
    """Check that zones, hours and parties exist and may be used."""
    for number, promotion in enumerate(terms.promotions):
        place = f"promotions[{number}]"
        _check_places(promotion.destinations, known, f"{place}.destinations")
        _check_profile(promotion.profile, known, f"{place}.profile")
        for index, party in enumerate(promotion.parties):
            if party not in known.parties:
                at = f"{place}.parties[{index}]"
                raise InvalidInput(
                    f'{at}: there is no party "{party}"', code="unknown_party", field=at
                )
    for number, extra in enumerate(terms.surcharges):
        place = f"surcharges[{number}]"
        _check_places(extra.origins, known, f"{place}.origins")
        _check_places(extra.not_origins, known, f"{place}.not_origins")
        _check_places(extra.destinations, known, f"{place}.destinations")
    for number, tier in enumerate(terms.tiers):
        _check_places(tier.destinations, known, f"tiers[{number}].destinations")
    for number, package in enumerate(terms.packages):
        _check_places(package.destinations, known, f"packages[{number}].destinations")
        _check_places(package.exclusions, known, f"packages[{number}].exclusions")


def _check_places(names: Sequence[str], known: _Known, place: str) -> None:
    """Prefixes as they are, anything else must be a zone."""
    if len(names) > NAMES_MAX:
        raise InvalidInput(f"{place}: at most {NAMES_MAX} zones and prefixes", field=place)
    for index, name in enumerate(names):
        at = f"{place}[{index}]"
        if name.isascii() and name.isdigit():
            if len(name) > PREFIX_MAX:
                raise InvalidInput(f"{at}: a prefix has at most {PREFIX_MAX} digits", field=at)
        elif name not in known.zones:
            raise InvalidInput(
                f'{at}: "{name[:63]}" is neither a prefix nor a zone; create the zone first',
                code="unknown_zone",
                field=at,
            )


def _check_profile(code: str, known: _Known, place: str) -> None:
    if code and code not in known.profiles:
        raise InvalidInput(
            f'{place}: there is no time profile "{code[:63]}"',
            code="unknown_time_profile",
            field=place,
        )


# --- values and rules ----------------------------------------------------------------------------


def _check_values(terms: PlanTerms) -> None:
    """Check what the rules of the core take for granted: codes, services, amounts, times."""
    for name in ("promotions", "surcharges", "tiers", "packages"):
        listed = getattr(terms, name)
        if len(listed) > LIST_MAX:
            raise InvalidInput(f"{name}: at most {LIST_MAX} of them in a plan", field=name)
        for number, one in enumerate(listed):
            place = f"{name}[{number}]"
            check_code(one.code, field=f"{place}.code")
            if not (one.service == "" and name == "promotions"):
                _check_service(one.service, f"{place}.service")
    for number, promotion in enumerate(terms.promotions):
        _check_promotion(promotion, f"promotions[{number}]")
    for number, extra in enumerate(terms.surcharges):
        _check_decimal(extra.percent, f"surcharges[{number}].percent")
        _check_decimal(extra.absolute, f"surcharges[{number}].absolute")
    for number, tier in enumerate(terms.tiers):
        _check_steps(tier, f"tiers[{number}].steps")
    for number, package in enumerate(terms.packages):
        _check_price(package, f"packages[{number}]")
    _check_refunds(terms.refunds)
    _check_money(terms)


def _check_promotion(promotion: store.PromotionTerms, place: str) -> None:
    _check_decimal(promotion.percent, f"{place}.percent")
    for at in ("begins_at", "ends_at"):
        moment = getattr(promotion, at)
        if moment is not None:
            check_moment(moment, field=f"{place}.{at}")
    if len(promotion.parties) > NAMES_MAX:
        at = f"{place}.parties"
        raise InvalidInput(f"{at}: at most {NAMES_MAX} parties", field=at)


def _check_money(terms: PlanTerms) -> None:
    """Check the margin on exchange rates and the commitment."""
    _check_decimal(terms.fx_margin, "fx_margin")
    if not -HUNDRED < terms.fx_margin <= PERCENT_MAX:
        raise InvalidInput(
            f"fx_margin: {terms.fx_margin} % is not a margin: more than -100", field="fx_margin"
        )
    if terms.commitment is not None:
        check_amount(terms.commitment.amount, field="commitment.amount")
        parse_currency(terms.commitment.currency, field="commitment.currency")


def _check_refunds(refunds: Sequence[store.RefundTerms]) -> None:
    """Check what is given back: one rule of a service, and no time for what is never given."""
    if len(refunds) > LIST_MAX:
        raise InvalidInput(f"refunds: at most {LIST_MAX} rules", field="refunds")
    known: set[str] = set()
    for number, one in enumerate(refunds):
        place = f"refunds[{number}]"
        _check_service(one.service, f"{place}.service")
        if one.service in known:
            raise InvalidInput(
                f"{place}.service: {one.service} has a rule already",
                code="invalid_plan",
                field=f"{place}.service",
            )
        known.add(one.service)
        if one.within_hours is None:
            continue
        at = f"{place}.within_hours"
        if not 1 <= one.within_hours <= HOURS_MAX:
            raise InvalidInput(f"{at}: from 1 to {HOURS_MAX}, or left out", field=at)
        if one.undelivered == "none":
            raise InvalidInput(
                f"{at}: nothing is given back, so there is no time for it",
                code="invalid_plan",
                field=at,
            )


def _check_service(service: str, place: str) -> None:
    if _SERVICE.fullmatch(service) is None:
        raise InvalidInput(f'{place}: a word such as "voice" or "sms"', field=place)


def _check_decimal(value: Decimal, place: str) -> None:
    if not value.is_finite() or abs(value) >= LIMIT or value != round(value, SCALE):
        raise InvalidInput(
            f"{place}: a number below 10^15 with at most {SCALE} decimals", field=place
        )


def _check_steps(tier: store.TierTerms, place: str) -> None:
    if len(tier.steps) > LIST_MAX:
        raise InvalidInput(f"{place}: at most {LIST_MAX} steps", field=place)
    for number, step in enumerate(tier.steps):
        for name, value in (("price", step.price), ("percent", step.percent)):
            if value is not None:
                _check_decimal(value, f"{place}[{number}].{name}")


def _check_price(package: store.PackageTerms, place: str) -> None:
    """What a package costs: nothing, or an amount of a currency."""
    if package.currency:
        parse_currency(package.currency, field=f"{place}.currency")
    if package.price == ZERO:
        return
    check_amount(package.price, field=f"{place}.price")
    if not package.currency:
        raise InvalidInput(
            f"{place}.currency: a price needs its currency", field=f"{place}.currency"
        )


def _check_rules(terms: PlanTerms, names: Names) -> None:
    """Check the rules of the core, with the places of the document."""
    try:
        # In the units of the document, and all services together: so the places are right.
        check_tiers(compiled_tiers(terms, names, None, 1), "tiers")
        check_packages(compiled_packages(terms, names, None, 1), "packages")
        check_surcharges(compiled_surcharges(terms, names), "surcharges")
    except InvalidInput as error:
        raise _said(error, lambda text: text.replace(".start:", ".from:")) from error
    for service in sorted({one.service for one in terms.promotions}):
        places = [n for n, one in enumerate(terms.promotions) if one.service in {"", service}]
        try:
            check_promotions(compiled_promotions(terms, names, service), "promotions")
        except InvalidInput as error:
            raise _said(error, partial(_renumbered, places)) from error


def _renumbered(places: Sequence[int], text: str) -> str:
    """Promotions by their places in the document, not among those of a service."""
    return _PROMOTION.sub(lambda found: f"promotions[{places[int(found[1])]}]", text)


def _said(error: InvalidInput, change: Callable[[str], str]) -> InvalidInput:
    """The same error with other names of places."""
    field = None if error.field is None else change(f"{error.field}:")[:-1]
    return InvalidInput(change(error.detail), code=error.code, field=field)
