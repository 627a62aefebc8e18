"""Events: what is charged at once, before it is given. A message, a lookup, a fee.

An event is a session that opens and closes in one message. All of its units are paid for by every
leg, or it is refused; nothing is held, so the money must be there when it is written.
"""

from __future__ import annotations

from datetime import datetime

from msgspec.structs import replace

from tollkeeper.core.affordable import NOTHING, Against, beside_money, spendable, units_max
from tollkeeper.core.closing import settling
from tollkeeper.core.ledger import Posting
from tollkeeper.core.money import ZERO
from tollkeeper.core.opening import refuse
from tollkeeper.core.parts import counts_of, merged, settle
from tollkeeper.core.rating import UNITS_MAX, price
from tollkeeper.core.reasons import Reason
from tollkeeper.core.records import (
    Charge,
    Decision,
    Ending,
    Leg,
    Outcome,
    Reply,
    Session,
    State,
)
from tollkeeper.core.terms import Count
from tollkeeper.core.view import View
from tollkeeper.errors import InvalidInput


def charge(command: Charge, view: View, now: datetime, new_id: str) -> Decision:
    """Charge every leg for all units, or refuse.

    Raises:
        InvalidInput: no units, or far too many.
    """
    if not 1 <= command.units <= UNITS_MAX:
        raise InvalidInput(f"units: from 1 to {UNITS_MAX}, not {command.units}", field="units")
    against = (command.refusal, command.refused_by)
    if not command.refusal:
        against = beside_money(command, view, now)
    legs: list[Leg] = []
    postings: list[Posting] = []
    counts: list[Count] = []
    if against[0] is Reason.NONE:
        for number, offer in enumerate(command.offers):
            leg = Leg(offer.role, offer.party_id, offer.wallet_id, offer.pin, terms=offer.terms)
            leg, against = _charged(leg, command, view, counts)
            if against[0] is not Reason.NONE:
                break
            legs.append(leg)
            # Money that is there counts as held for it.
            postings += settling(leg.wallet_id, number, leg.charged, leg.charged)
    if against[0] is not Reason.NONE:
        return refuse(command, against, view, now, new_id)
    session = Session(
        id=new_id,
        key=command.key,
        party_id=command.party_id,
        service=command.service,
        caller=command.caller,
        called=command.called,
        opened_at=now,
        expires_at=now,
        state=State.CLOSED,
        legs=tuple(legs),
        slice_seconds=command.units,
        max_seconds=units_max(command.unit, view.limits_of(command.party_id)),
        ending=Ending.SETTLED,
        answered_at=now,
        closed_at=now,
        used_ms=command.units * 1000,
        granted_seconds=command.units,
        unit=command.unit,
    )
    reply = Reply(
        outcome=Outcome.CHARGED,
        id=new_id,
        granted_seconds=command.units,
        currency=legs[0].pin.currency if legs else "",
        used_ms=session.used_ms,
        charge=legs[0].charged if legs else None,
        unit=command.unit,
    )
    return Decision(
        session,
        reply,
        postings=tuple(postings),
        guarded=True,
        counts=merged(counts) if counts else (),
    )


def _charged(leg: Leg, command: Charge, view: View, counts: list[Count]) -> tuple[Leg, Against]:
    """The leg with its charge, or what stands against it; ``counts`` gets what its meters count."""
    if view.wallets[leg.wallet_id].parked:
        return leg, (Reason.WALLET_PARKED, leg.party_id)
    money, why = spendable(leg, view, command.party_id)
    if leg.terms is None:
        amount = price(leg.pin.tariff, command.units)
        return (replace(leg, charged=amount), NOTHING) if amount <= money else (leg, why)
    parts, amount = settle(leg, command.units, view.meters)
    if amount > money:
        return leg, why
    counts += [replace(count, guarded=True) for count in counts_of(parts)]
    counts += [Count(spend.meter_id, amount, guarded=True) for spend in leg.terms.spend]
    return replace(leg, charged=amount, parts=parts, taken=max(amount, ZERO)), NOTHING
