"""What a use would cost at each level of the tree: the legs of a session before the decision.

Each level is priced by its own plan, from the one that pays for the use up to the last reseller that
has a plan. One level that cannot carry it is enough to refuse it, and is named.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal

import msgspec
from msgspec import structs

from tollkeeper.core.markup import part_of, prorated, scaled
from tollkeeper.core.money import plain
from tollkeeper.core.plans import PackageRule, Plan, Priced, Question, TierRule, price_question
from tollkeeper.core.rating import Tariff
from tollkeeper.core.reasons import Reason
from tollkeeper.core.records import CallCount, Offer, Pin, Role, Step
from tollkeeper.core.services import service_of
from tollkeeper.core.terms import Package, Spend, Terms, Tier
from tollkeeper.errors import InvalidInput
from tollkeeper.services.directory import Directory
from tollkeeper.services.meters import EVER, Meters
from tollkeeper.store.directory import PartyEntry
from tollkeeper.store.meters import MeterKey

DAY, MONTH = "day", "month"
TIERS_MAX = 100_000
"""Tiers of parties that are kept in mind."""


class Found(msgspec.Struct, frozen=True, gc=False):
    """The legs of a use, or why there are none and at whom (``refused_by``, a party's id)."""

    offers: tuple[Offer, ...] = ()
    refusal: Reason = Reason.NONE
    refused_by: int = 0
    counts: tuple[CallCount, ...] = ()


class Fixed(msgspec.Struct, frozen=True, gc=False):
    """A price that stands on no card: ``amount`` of ``currency`` for each unit of what ``name`` says."""

    name: str
    amount: Decimal
    currency: str


def prorated_legs(found: Found, used: int, whole: int) -> Found:
    """Make the prices of a whole period into those of ``used`` of its ``whole`` days, at every level.

    Raises:
        InvalidInput: no days, or more than there are.
    """
    if not 1 <= used <= whole:
        raise InvalidInput(f"share: {used} of {whole} days is no part of a period", field="share")
    return structs.replace(
        found, offers=tuple(_prorated_leg(offer, used, whole) for offer in found.offers)
    )


def _prorated_leg(offer: Offer, used: int, whole: int) -> Offer:
    tariff, step = prorated(offer.pin.tariff, used, whole)
    pin = structs.replace(offer.pin, tariff=tariff, steps=(*offer.pin.steps, step))
    terms = offer.terms
    if terms is not None and terms.tier is not None:
        # Prices of a tier stand in the place of the tariff's.
        steps = tuple(
            one
            if one.price is None
            else structs.replace(one, price=part_of(one.price, used, whole))
            for one in terms.tier.steps
        )
        terms = structs.replace(terms, tier=structs.replace(terms.tier, steps=steps))
    return structs.replace(offer, pin=pin, terms=terms)


class _KnownTier(msgspec.Struct, frozen=True):
    """A rule's terms for one party from ``begin`` to ``end``."""

    rule: TierRule
    begin: datetime
    end: datetime
    terms: Terms


class Offers:
    """Prices uses for a party and everybody above it, with what their meters count."""

    def __init__(self, directory: Directory, meters: Meters) -> None:
        self._directory = directory
        self._meters = meters
        self._tiers: dict[tuple[int, int, str, str], _KnownTier] = {}

    async def offers(self, entry: PartyEntry, question: Question, at: datetime) -> Found:
        """Return the legs of a use as they would be priced at ``at`` (UTC); the payer's is the first.

        Reasons beside those of :func:`core.plans.price_question`: NO_PLAN where the payer has none,
        PARTY_SUSPENDED where it or somebody above it is suspended, CARD_EXPIRED for a calling card whose
        time is over. A reseller that does not buy what is asked for carries it for nobody below it:
        NO_RATE.

        Raises:
            Busy: a meter is not known yet and the database does not answer.
        """
        directory = self._directory
        suspended = directory.suspended_above(entry.id)
        if suspended:
            return Found((), Reason.PARTY_SUSPENDED, suspended)
        if entry.expires_at is not None and entry.expires_at <= at:
            return Found((), Reason.CARD_EXPIRED, entry.id)
        chain = directory.chain_of(entry.id)
        if not chain or chain[0].plan_id is None:
            return Found((), Reason.NO_PLAN, chain[0].id if chain else entry.id)
        legs: list[Offer] = []
        for level in chain:
            plan = directory.plan_of(level.plan_id or 0, question.service)
            if plan is None:
                return Found((), Reason.NO_RATE, level.id)
            priced = self._priced(level, plan, question, at)
            if isinstance(priced, Reason):
                return Found((), priced, level.id)
            pin = priced.pin
            # Most uses depend on no meter: they are priced without waiting for anything.
            terms = None
            if priced.tier or priced.packages or priced.later or level.caps:
                terms = self._known_terms(level, plan, priced, at)
                if terms is None:
                    terms = await self._terms(level, plan, priced, at)
            role = Role.RESELLER if legs else Role.CUSTOMER
            legs.append(Offer(role, level.id, level.wallets[pin.currency], pin, terms))
        counts = await self._counts(entry) if entry.kind == "user" else ()
        return Found(tuple(legs), counts=counts)

    def _priced(
        self, level: PartyEntry, plan: Plan, question: Question, at: datetime
    ) -> Priced | Reason:
        split = level.rate_change == "split" and not service_of(question.service).event
        return price_question(
            plan,
            question,
            at,
            party_id=level.id,
            wallets=level.wallets,
            exchange=self._directory.exchange(at.date()),
            places=self._directory.places,
            split=split,
            until=at + timedelta(seconds=level.limits.max_seconds) if split else None,
        )

    def fixed(self, entry: PartyEntry, price: Fixed, at: datetime) -> Found:
        """Return the one leg of a fee with a price of its own, in the wallet that it can be paid from.

        It is between the party and whoever sells to it: nobody above takes part.
        """
        suspended = self._directory.suspended_above(entry.id)
        if suspended:
            return Found((), Reason.PARTY_SUSPENDED, suspended)
        if not entry.wallets:
            return Found((), Reason.NO_WALLET, entry.id)
        tariff = Tariff(price.amount, price.amount, 1, 1, per=1)
        steps: tuple[Step, ...] = ()
        currency = price.currency
        if currency not in entry.wallets:
            exchange = self._directory.exchange(at.date())
            rates = (exchange(currency, other) for other in entry.wallets)
            rate = next((rate for rate in rates if rate is not None), None)
            if rate is None:
                return Found((), Reason.NO_FX_RATE, entry.id)
            tariff, currency = scaled(tariff, rate.rate), rate.quote
            said = f"1 {rate.base} = {plain(rate.rate)} {rate.quote} ({rate.source}, {rate.day})"
            steps = (Step("fx", f"{rate.base}/{rate.quote}", said),)
        pin = Pin(0, "", 0, 0, "", price.name, currency, tariff, steps)
        leg = Offer(Role.CUSTOMER, entry.id, entry.wallets[currency], pin)
        return Found((leg,))

    # --- what depends on meters ------------------------------------------------------------------

    def _known_terms(
        self, level: PartyEntry, plan: Plan, priced: Priced, at: datetime
    ) -> Terms | None:
        """The terms of a leg that has a tier and nothing else, where they are known already."""
        if priced.packages or priced.later or level.caps or priced.tier is None:
            return None
        known = self._tiers.get((level.id, plan.plan_id, plan.service, priced.tier.code))
        # A plan that was changed is compiled anew: its rules are other objects then.
        if known is None or known.rule is not priced.tier or not known.begin <= at < known.end:
            return None
        return known.terms

    async def _terms(
        self, level: PartyEntry, plan: Plan, priced: Priced, at: datetime
    ) -> Terms | None:
        """The terms of a leg with their meters; None where nothing is counted."""
        rule, caps = priced.tier, level.caps.get(priced.pin.currency)
        if rule is None and caps is None and not priced.packages and not priced.later:
            return None
        tier = await self._tier(level, plan, rule, at) if rule is not None else None
        if tier is not None and caps is None and not priced.packages and not priced.later:
            return tier.terms
        return Terms(
            await self._packages(level, plan, priced.packages, at) if priced.packages else (),
            tier.terms.tier if tier is not None else None,
            await self._spend(level, priced.pin.currency, at) if caps is not None else (),
            priced.later,
        )

    async def _tier(
        self, level: PartyEntry, plan: Plan, rule: TierRule, at: datetime
    ) -> _KnownTier:
        """The terms of a rule for a party in the running period, made once for all of its uses."""
        begin, end = self._meters.period(rule.period, at, level.timezone)
        code = f"{plan.code}/{plan.service}/{rule.code}/{rule.period}"
        unit = service_of(plan.service).unit.value
        meter_id = await self._meters.ensure(
            MeterKey(level.id, "tier", code, begin), ends_at=end, unit=unit
        )
        terms = Terms(tier=Tier(meter_id, rule.code, rule.steps, rule.retroactive))
        if len(self._tiers) >= TIERS_MAX:
            self._tiers.clear()
        made = _KnownTier(rule, begin, end, terms)
        self._tiers[level.id, plan.plan_id, plan.service, rule.code] = made
        return made

    async def _packages(
        self, level: PartyEntry, plan: Plan, rules: tuple[PackageRule, ...], at: datetime
    ) -> tuple[Package, ...]:
        """The packages that a party has at a moment, the one that ends first in front."""
        found: list[tuple[datetime, Package]] = []
        for rule in rules:
            if rule.included:
                begin, end = self._meters.period(rule.period, at, level.timezone)
                key = MeterKey(level.id, "package", f"{plan.code}/{rule.code}", begin)
                unit = service_of(plan.service).unit.value
                id_ = await self._meters.ensure_included(
                    key, ends_at=end, unit=unit, units=rule.units, rollover=rule.rollover
                )
                found.append((end, Package(id_, rule.code)))
            found.extend(
                (one.ends_at, Package(one.meter_id, rule.code))
                for one in level.bought
                if one.code == rule.code and one.plan == plan.code
                if one.begins_at <= at < one.ends_at
            )
        found.sort(key=lambda pair: pair[0])
        return tuple(package for _, package in found)

    async def _spend(self, level: PartyEntry, currency: str, at: datetime) -> tuple[Spend, ...]:
        """What counts and bounds a wallet's spending in the local day and month."""
        caps = level.caps[currency]
        wanted: list[tuple[str, Decimal | None]] = []
        if caps.daily is not None:
            wanted.append((DAY, caps.daily))
        if caps.monthly is not None or caps.watched:
            wanted.append((MONTH, caps.monthly))
        found: list[Spend] = []
        for period, cap in wanted:
            begin, end = self._meters.period(period, at, level.timezone)
            key = MeterKey(level.id, "spend", f"{currency}/{period}", begin)
            id_ = await self._meters.ensure(key, ends_at=end, unit=currency, cap=cap, follow=True)
            found.append(Spend(id_, period))
        return tuple(found)

    async def _counts(self, entry: PartyEntry) -> tuple[CallCount, ...]:
        """The meters that count the open calls of a user, and of users above it."""
        found: list[CallCount] = []
        user: PartyEntry | None = entry
        while user is not None and user.kind == "user":
            if user.limits.max_sessions is not None or user.limits.low_sessions is not None:
                key = MeterKey(user.id, "calls", "calls", EVER)
                id_ = await self._meters.ensure(key, unit="calls")
                found.append(CallCount(id_, user.id, user.limits.max_sessions))
            user = self._directory.entry(user.parent_id) if user.parent_id is not None else None
        return tuple(found)

    # --- who may know ----------------------------------------------------------------------------

    def sees(self, scope: int | None, party_id: int) -> bool:
        """Tell whether somebody bounded to ``scope`` (None: the operator) may know of a party."""
        if scope is None:
            return True
        for _ in range(64):
            if party_id == scope:
                return True
            entry = self._directory.entry(party_id)
            if entry is None or entry.parent_id is None:
                return False
            party_id = entry.parent_id
        return False
