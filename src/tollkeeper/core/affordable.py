"""What may be granted: the limits beside money, and the longest grant that every leg can pay for."""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal

import msgspec

from tollkeeper.core.holds import afford_terms, hold_of
from tollkeeper.core.money import ZERO
from tollkeeper.core.parts import merged
from tollkeeper.core.rating import UNITS_MAX, afford, billed_seconds, price
from tollkeeper.core.reasons import Reason
from tollkeeper.core.records import (
    Authorise,
    CallCount,
    Charge,
    Hold,
    Leg,
    Limits,
    Role,
    Session,
    Unit,
    Wallet,
)
from tollkeeper.core.terms import Count, Reserve
from tollkeeper.core.view import NO_LIMITS, View

ONE = Decimal(1)

Against = tuple[Reason, int]
"""What stands against a session, and the party whose money or limit it is."""

NOTHING: Against = (Reason.NONE, 0)


# --- beside money --------------------------------------------------------------------------------


def beside_money(command: Authorise | Charge, view: View, now: datetime) -> Against:
    """Check the limits that are not money, for every party of the session.

    Events take no channel: of these limits only the suspension stands against them.
    """
    if view.limits_of(command.party_id).suspended:
        return Reason.PARTY_SUSPENDED, command.party_id
    call = isinstance(command, Authorise)
    for offer in command.offers:
        limits = view.limits.get(offer.party_id, NO_LIMITS)
        if limits.suspended:
            return Reason.PARTY_SUSPENDED, offer.party_id
        if call and limits is not NO_LIMITS:
            wallet = view.wallets[offer.wallet_id]
            reason = _in_use(limits, view, wallet, offer.party_id, int(now.timestamp()))
            if reason is not Reason.NONE:
                return reason, offer.party_id
    for count in command.counts:
        limits = view.limits_of(count.party_id)
        if limits.suspended:
            return Reason.PARTY_SUSPENDED, count.party_id
        if call and _counted_out(count, limits, command, view):
            return Reason.CONCURRENCY_LIMIT, count.party_id
    return NOTHING


def _in_use(limits: Limits, view: View, wallet: Wallet, party_id: int, second: int) -> Reason:
    """Whether the channels or the calls per second of a party with wallets are used up."""
    if limits.max_sessions is None and limits.max_cps is None and limits.low_balance is None:
        return Reason.NONE
    few = _few(limits, wallet)
    own = [w for w in view.wallets.values() if w.party_id == party_id]
    live = sum([w.live for w in own])
    if limits.max_sessions is not None and live >= limits.max_sessions:
        return Reason.CONCURRENCY_LIMIT
    if few is not None and live >= few:
        return Reason.CONCURRENCY_LIMIT
    begun = sum([w.cps_count for w in own if w.cps_second == second])
    if limits.max_cps is not None and begun >= limits.max_cps:
        return Reason.CPS_LIMIT
    return Reason.NONE


def _few(limits: Limits, wallet: Wallet) -> int | None:
    """How many calls may be up while little money is left; None: it is not little."""
    if limits.low_balance is None or wallet.available >= limits.low_balance:
        return None
    return limits.low_sessions


def _counted_out(count: CallCount, limits: Limits, command: Authorise | Charge, view: View) -> bool:
    """Whether a party without a wallet has as many calls up as it may have."""
    live = view.meters[count.meter_id].held
    if count.most is not None and live >= count.most:
        return True
    few = _few(limits, view.wallets[command.offers[0].wallet_id]) if command.offers else None
    return few is not None and live >= few


def suspended(session: Session, view: View) -> int:
    """The party of an open session that is suspended; 0 is none."""
    if view.limits_of(session.party_id).suspended:
        return session.party_id
    for leg in session.legs:
        if view.limits_of(leg.party_id).suspended:
            return leg.party_id
    return 0


def kills(session: Session, view: View) -> bool:
    """True when a suspended party of the session wants its calls cut off."""
    for party_id in (session.party_id, *[leg.party_id for leg in session.legs]):
        limits = view.limits_of(party_id)
        if limits.suspended and limits.kill_on_suspend:
            return True
    return False


# --- money ---------------------------------------------------------------------------------------


class Grant(msgspec.Struct, frozen=True, gc=False):
    """The units that every leg can pay for, what each then holds, and what bounded them."""

    units: int
    legs: tuple[Leg, ...]
    against: Against


def units_max(unit: Unit, limits: Limits) -> int:
    """The longest that a session may be."""
    return limits.max_seconds if unit is Unit.SECOND else UNITS_MAX


def spendable(leg: Leg, view: View, caller: int) -> tuple[Decimal, Against]:
    """The most that a leg may cost altogether, with what it holds, and what bounds it."""
    money = leg.held + view.wallets[leg.wallet_id].available
    against = Reason.INSUFFICIENT_FUNDS, leg.party_id
    if leg.role is Role.CUSTOMER and view.limits:
        for party_id in (caller, leg.party_id):
            most = view.limits_of(party_id).max_cost
            if most is not None and most < money:
                money, against = most, (Reason.COST_LIMIT, party_id)
    if leg.terms is not None:
        for spend in leg.terms.spend:
            left = view.meters[spend.meter_id].left
            if left is not None and left + leg.held < money:
                money, against = left + leg.held, (Reason.SPEND_LIMIT, leg.party_id)
    return money, against


def affordable(
    legs: tuple[Leg, ...],
    view: View,
    wish: int,
    most: int,
    caller: int,
    answered_at: datetime | None,
    now: datetime,
) -> Grant:
    """Total units that every leg can pay for, wished ``wish``: the smallest over the legs.

    Each leg's wish is raised to its own interval boundary, which costs the same, and bounded by
    ``most``. Money counts what the leg already holds. ``caller`` is the party whose limits bound
    the customer's leg beside its own. Without ``answered_at`` a rate to come is looked at from the
    end of the answer window on.
    """
    smallest, against = most, NOTHING
    ceiling = answered_at is None
    began = answered_at
    offers: list[tuple[int, Decimal, tuple[Reserve, ...]]] = []
    for leg in legs:
        if view.wallets[leg.wallet_id].parked:
            return Grant(0, (), (Reason.WALLET_PARKED, leg.party_id))
        money, why = spendable(leg, view, caller)
        top = min(billed_seconds(leg.pin.tariff, wish), most)
        if leg.terms is None:
            units, cost = afford(leg.pin.tariff, money, top)
            offers.append((units, cost, ()))
        else:
            began = began or now + timedelta(seconds=view.policy.answer_window)
            offer = afford_terms(leg, view.meters, money, top, began, ceiling=ceiling)
            offers.append(offer)
            units = offer.units
        if units < smallest:
            smallest, against = units, (why if units < top else NOTHING)
    if not smallest:
        return Grant(0, (), against)
    held: list[Leg] = []
    for leg, (units, cost, reserved) in zip(legs, offers, strict=True):
        if leg.terms is None:
            amount = cost if units == smallest else price(leg.pin.tariff, smallest)
            held.append(holding(leg, amount))
        elif units == smallest:
            held.append(holding_terms(leg, cost, reserved))
        else:
            less = hold_of(leg, smallest, view.meters, began, ceiling=ceiling)
            held.append(holding_terms(leg, *less))
    return Grant(smallest, tuple(held), against)


def holding(leg: Leg, amount: Decimal) -> Leg:
    """The leg with another hold."""
    return Leg(leg.role, leg.party_id, leg.wallet_id, leg.pin, amount, leg.charged)


def holding_terms(leg: Leg, amount: Decimal, reserved: tuple[Reserve, ...]) -> Leg:
    """As :func:`holding`, with packages; money once held is not released before the end."""
    held = max(amount, leg.held)
    return Leg(
        leg.role, leg.party_id, leg.wallet_id, leg.pin, held, leg.charged, leg.terms, reserved,
        leg.parts, held,
    )  # fmt: skip


def holds_of(before: tuple[Leg, ...], after: tuple[Leg, ...], live: int = 0) -> tuple[Hold, ...]:
    """How the held money changes."""
    return tuple(
        [
            Hold(new.wallet_id, new.held - old.held, live)
            for old, new in zip(before, after, strict=True)
        ]
    )


def counts_held(before: tuple[Leg, ...], after: tuple[Leg, ...]) -> tuple[Count, ...]:
    """How meters change by what legs set aside: packages and spending; what is taken is guarded."""
    counts: list[Count] = []
    for old, new in zip(before, after, strict=True):
        if new.terms is None or not (new.reserved or old.reserved or new.terms.spend):
            continue
        change = {reserve.meter_id: -reserve.units for reserve in old.reserved}
        for reserve in new.reserved:
            change[reserve.meter_id] = change.get(reserve.meter_id, 0) + reserve.units
        counts += [Count(id_, ZERO, Decimal(n), guarded=n > 0) for id_, n in change.items()]
        money = new.held - old.held
        counts += [
            Count(spend.meter_id, ZERO, money, guarded=money > 0) for spend in new.terms.spend
        ]
    return merged(counts) if counts else ()


def counts_of_calls(meters: tuple[int, ...], change: Decimal) -> tuple[Count, ...]:
    """The open calls of parties without a wallet: one more, or one less."""
    return tuple([Count(id_, ZERO, change, guarded=change > 0) for id_ in meters])
