"""The beginning of a session: granted with a hold of every leg, or refused."""

from __future__ import annotations

from datetime import datetime, timedelta

from tollkeeper.core.affordable import (
    ONE,
    Against,
    Grant,
    affordable,
    beside_money,
    counts_held,
    counts_of_calls,
    holds_of,
    units_max,
)
from tollkeeper.core.reasons import Reason
from tollkeeper.core.records import (
    Authorise,
    Charge,
    Decision,
    Ending,
    Leg,
    Outcome,
    Policy,
    Reply,
    Session,
    State,
    Unit,
)
from tollkeeper.core.view import View


def authorise(command: Authorise, view: View, now: datetime, new_id: str) -> Decision:
    """Open a session with the longest grant that all legs can pay for, or refuse it."""
    against = (command.refusal, command.refused_by)
    if not command.refusal:
        against = beside_money(command, view, now)
    if against[0] is Reason.NONE:
        legs = tuple(
            [Leg(o.role, o.party_id, o.wallet_id, o.pin, terms=o.terms) for o in command.offers]
        )
        most = units_max(command.unit, view.limits_of(command.party_id))
        payer = command.offers[0].party_id if command.offers else command.party_id
        if payer != command.party_id:
            # A user's call is its customer's, too, and no longer than that allows.
            most = min(most, units_max(command.unit, view.limits_of(payer)))
        wish = min(command.requested_seconds, most)
        grant = affordable(legs, view, wish, most, command.party_id, None, now)
        if grant.units:
            return _open(command, legs, grant, most, view, now, new_id)
        against = grant.against
    return refuse(command, against, view, now, new_id)


def _open(
    command: Authorise,
    offered: tuple[Leg, ...],
    grant: Grant,
    most: int,
    view: View,
    now: datetime,
    new_id: str,
) -> Decision:
    policy = view.policy
    wait = policy.answer_window + policy.grace
    # A switch that does not report the answer is talking from the first moment.
    usable = 0 if command.start_expected else validity(command.unit, grant.units, policy)
    expires_at = now + timedelta(seconds=wait + usable)
    session = Session(
        id=new_id,
        key=command.key,
        party_id=command.party_id,
        service=command.service,
        caller=command.caller,
        called=command.called,
        opened_at=now,
        expires_at=expires_at,
        # As above: without a report of the answer, the call counts as up from now on.
        state=State.AUTHORISED if command.start_expected else State.ACTIVE,
        legs=grant.legs,
        slice_seconds=command.requested_seconds,
        max_seconds=most,
        granted_seconds=grant.units,
        unit=command.unit,
        counts=tuple([count.meter_id for count in command.counts]) if command.counts else (),
    )
    reply = Reply(
        outcome=Outcome.GRANTED,
        id=new_id,
        granted_seconds=grant.units,
        expires_at=expires_at,
        final=is_final(session),
        currency=grant.legs[0].pin.currency,
        unit=command.unit,
    )
    counts = counts_held(offered, grant.legs)
    if session.counts:
        counts += counts_of_calls(session.counts, ONE)
    holds = holds_of(offered, grant.legs, 1)
    return Decision(session, reply, holds, guarded=True, counts=counts)


def refuse(
    command: Authorise | Charge, against: Against, view: View, now: datetime, new_id: str
) -> Decision:
    """A refusal is stored too: this id stays refused, whatever money comes later."""
    reason, party_id = against
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
        legs=tuple([Leg(o.role, o.party_id, o.wallet_id, o.pin) for o in command.offers]),
        slice_seconds=command.units if isinstance(command, Charge) else command.requested_seconds,
        max_seconds=units_max(command.unit, view.limits_of(command.party_id)),
        ending=Ending.REFUSED,
        reason=reason,
        closed_at=now,
        unit=command.unit,
        refused_by=party_id,
    )
    reply = Reply(
        outcome=Outcome.REFUSED,
        id=new_id,
        reason=reason,
        refused_by=party_id,
        unit=command.unit,
    )
    return Decision(session, reply)


def validity(unit: Unit, units: int, policy: Policy) -> int:
    """Seconds for which so many units may be used: themselves, if they are time."""
    return units if unit is Unit.SECOND else policy.data_validity


def is_final(session: Session) -> bool:
    """True when the grant is less than was wished, or as long as a session may be."""
    return session.granted_seconds < session.slice_seconds or (
        session.granted_seconds >= session.max_seconds
    )
