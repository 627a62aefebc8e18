"""The end of a session and what comes after it: settling, late usage, refunds.

A leg without terms is charged ``price(pinned rate, usage)``; one with terms what its parts make.
"Usage" is the highest cumulative usage seen, less what was given back.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal

from msgspec.structs import replace

from tollkeeper.core.affordable import ONE, counts_of_calls
from tollkeeper.core.at_once import settle_at_once
from tollkeeper.core.ledger import Code, Posting, check_posting
from tollkeeper.core.money import ZERO
from tollkeeper.core.parts import counts_of, merged, settle
from tollkeeper.core.rating import price, seconds_of
from tollkeeper.core.reasons import Reason
from tollkeeper.core.records import (
    Command,
    Decision,
    Ending,
    Event,
    Expire,
    Hold,
    Leg,
    Outcome,
    Policy,
    Refund,
    Reply,
    Session,
    SilentTail,
    State,
    Stop,
    Unit,
    Update,
)
from tollkeeper.core.terms import Count
from tollkeeper.core.view import View
from tollkeeper.errors import Conflict

# --- what is reported ----------------------------------------------------------------------------


def reported_ms(session: Session, command: Update | Stop) -> int:
    """The cumulative usage that a report means: counters that wrap go on from what is known.

    A counter that fell by more than half of its range has begun again at 0; one that rose by more
    than that has not, it is an old report of the round before (serial numbers of RFC 1982).
    """
    wrap, used = command.wraps_at, command.used_ms
    if not wrap or used >= wrap:
        return used
    low = session.used_ms % wrap
    start = session.used_ms - low
    if (low - used) * 2 > wrap:
        start += wrap
    elif (used - low) * 2 > wrap and start:
        start -= wrap
    return start + used


def marks_of(session: Session, reported: int, policy: Policy, now: datetime) -> tuple[str, ...]:
    """Note what looks wrong in a report; marks are listed, they never change the charge."""
    marks = session.marks
    if reported < session.used_ms and "usage_went_down" not in marks:
        marks = (*marks, "usage_went_down")
    if session.unit is not Unit.SECOND:
        return marks
    elapsed_ms = int((now - session.opened_at).total_seconds() * 1000)
    if reported > elapsed_ms + policy.clock_tolerance_ms and "usage_ahead_of_clock" not in marks:
        marks = (*marks, "usage_ahead_of_clock")
    return marks


# --- the end -------------------------------------------------------------------------------------


def stop(session: Session, command: Command, view: View, now: datetime) -> Decision:
    """Settle the session at the usage of its last report."""
    assert isinstance(command, Stop)
    reported = reported_ms(session, command)
    used = max(session.used_ms, reported)
    ending = Ending.SETTLED if used else Ending.RELEASED
    marked = replace(
        session, cause=command.cause, marks=marks_of(session, reported, view.policy, now)
    )
    return close(marked, used, 0, ending, view, now)


def expire(session: Session, command: Command, view: View, now: datetime) -> Decision:
    """Close a session of which nothing was heard in time."""
    assert isinstance(command, Expire)
    if now < session.expires_at:
        return Decision(session, standing(session))
    assumed = 0
    to_the_end = view.policy.silent_tail is SilentTail.GRANT_END
    # Silence says that time went by, but not that anything else was used.
    if to_the_end and session.state is State.ACTIVE and session.unit is Unit.SECOND:
        assumed = session.granted_seconds * 1000
    closed = close(session, session.used_ms, assumed, Ending.EXPIRED, view, now)
    events = (
        Event("session.kill", session.id, "expired"),
        Event("session.expired", session.id),
        *closed.events,
    )
    after = replace(closed.session, reason=Reason.EXPIRED)
    return replace(
        closed, session=after, reply=replace(closed.reply, reason=Reason.EXPIRED), events=events
    )


def close(
    session: Session, used: int, assumed: int, ending: Ending, view: View, now: datetime
) -> Decision:
    """Settle every leg: charge what was used, release the rest, name what went above the hold."""
    highest = max(used, assumed)
    seconds = seconds_of(highest)
    legs: list[Leg] = []
    holds: list[Hold] = []
    postings: list[Posting] = []
    events: list[Event] = []
    counts: list[Count] = []
    for number, leg in enumerate(session.legs):
        if leg.terms is None:
            charge = price(leg.pin.tariff, seconds)
            legs.append(Leg(leg.role, leg.party_id, leg.wallet_id, leg.pin, ZERO, charge))
        else:
            began = _began(session, highest, now) if leg.terms.later else None
            after = _settled(leg, seconds, view, began, counts)
            charge = after.charged
            legs.append(after)
        postings += settling(leg.wallet_id, number, charge, leg.held)
        if charge > leg.held:
            events.append(Event("session.overrun", session.id, str(charge - leg.held)))
        holds.append(Hold(leg.wallet_id, -leg.held, -1))
    done = replace(
        session,
        state=State.CLOSED,
        ending=ending,
        legs=tuple(legs),
        closed_at=now,
        used_ms=used,
        assumed_ms=assumed,
        reason=Reason.KILLED if session.kill else session.reason,
        version=session.version + 1,
    )
    if session.counts:
        counts += counts_of_calls(session.counts, -ONE)
    return Decision(
        done,
        final(done),
        tuple(holds),
        tuple(postings),
        tuple(events),
        counts=merged(counts) if len(counts) > 1 else tuple(counts),
    )


def _settled(
    leg: Leg, seconds: int, view: View, began: datetime | None, counts: list[Count]
) -> Leg:
    """A leg with terms when it ends; ``counts`` gets what changes on its meters."""
    assert leg.terms is not None
    usual = settle_at_once(leg, seconds, view.meters)
    if usual is not None:
        parts, charge, changes = usual
    else:
        parts, charge = settle(leg, seconds, view.meters, began)
        changes = counts_of(parts)
    counts += changes
    if leg.reserved:
        counts += [Count(r.meter_id, ZERO, Decimal(-r.units)) for r in leg.reserved]
    if leg.terms.spend:
        counts += [Count(spend.meter_id, charge, -leg.held) for spend in leg.terms.spend]
    return Leg(
        leg.role, leg.party_id, leg.wallet_id, leg.pin, ZERO, charge, leg.terms, (), parts, leg.held
    )


def settling(wallet_id: int, number: int, charge: Decimal, held: Decimal) -> list[Posting]:
    """The entries of a charge: within what was held, above it, or given back by a rebate."""
    if charge < 0:
        return [check_posting(Posting(wallet_id, number, Code.REBATE, -charge))]
    postings: list[Posting] = []
    within = min(charge, held)
    if within > 0:
        postings.append(check_posting(Posting(wallet_id, number, Code.USAGE, within)))
    if charge > within:
        postings.append(check_posting(Posting(wallet_id, number, Code.OVERRUN, charge - within)))
    return postings


def _began(session: Session, highest: int, now: datetime) -> datetime | None:
    """When the usage began; None where it is not time, so that no moment belongs to a unit."""
    if session.unit is not Unit.SECOND:
        return None
    ended = session.closed_at or now
    return session.answered_at or ended - timedelta(milliseconds=highest)


def standing(
    session: Session, *, last: bool = False, against: Reason = Reason.NONE, party_id: int = 0
) -> Reply:
    """The answer that describes an open session as it stands; ``last``: no more will be granted."""
    spent = session.used_ms >= session.granted_seconds * 1000
    return Reply(
        outcome=Outcome.ACTIVE,
        id=session.id,
        granted_seconds=session.granted_seconds,
        expires_at=session.expires_at,
        final=last or bool(session.kill),
        terminate=bool(session.kill) or (last and spent),
        reason=Reason.KILLED if session.kill else against,
        currency=session.legs[0].pin.currency,
        used_ms=session.used_ms,
        refused_by=party_id,
        unit=session.unit,
    )


def final(session: Session) -> Reply:
    """The answer that describes a closed session."""
    charge: Decimal | None = session.legs[0].charged if session.legs else None
    return Reply(
        outcome=Outcome.CLOSED,
        id=session.id,
        granted_seconds=session.granted_seconds,
        reason=session.reason,
        currency=session.legs[0].pin.currency if session.legs else "",
        used_ms=session.used_ms,
        charge=charge,
        unit=session.unit,
    )


def session_closed(session: Session) -> Conflict:
    """The error of what only an open session can take."""
    return Conflict(
        f"session {session.id} is closed already ({session.ending})", code="session_closed"
    )


# --- after the end -------------------------------------------------------------------------------


def late(session: Session, command: Command, view: View, now: datetime) -> Decision:
    """A report after the end: only usage above what is known changes anything.

    Raises:
        Conflict: usage of a session that was refused, or what is meant for an open one only.
    """
    assert isinstance(command, (Update, Stop))
    if command.only_open:
        raise session_closed(session)
    if session.ending is Ending.REFUSED:
        if command.used_ms == 0:
            return Decision(session, final(session))
        raise Conflict(
            f"session {session.id} was refused ({session.reason}), yet {command.used_ms} ms of use are reported: "
            "check that the switch obeys refusals",
            code="session_refused",
        )
    reported = reported_ms(session, command)
    settles_assumption = session.assumed_ms > 0 and isinstance(command, Stop)
    if reported <= session.used_ms and not settles_assumption:
        return Decision(session, final(session))
    used = max(session.used_ms, reported)
    assumed = 0 if settles_assumption else session.assumed_ms
    # What turns out not to have been used cannot have been refunded either.
    refunded = min(session.refunded_ms, max(used, assumed))
    after = replace(session, used_ms=used, assumed_ms=assumed, refunded_ms=refunded)
    code = Code.REBATE if _net(after) > _net(session) else Code.CORRECTION
    decision = _recharge(after, code, view, now)
    if not decision.postings:
        return decision
    return replace(decision, events=(Event("session.late", session.id),))


def _net(session: Session) -> int:
    """The usage that is charged, in thousandths: the highest known, less what was given back."""
    return max(session.used_ms, session.assumed_ms) - session.refunded_ms


def _recharge(session: Session, code: Code, view: View, now: datetime) -> Decision:
    """Charge a closed session anew by what is known of it now.

    ``code`` names what is given back; what is due in addition is late usage. (Even a refund may
    cost something: a volume that falls below its step makes the rest of it dearer.)
    """
    net = _net(session)
    seconds = seconds_of(net)
    given_back = session.refunded_ms > 0 and net == 0
    legs: list[Leg] = []
    postings: list[Posting] = []
    counts: list[Count] = []
    for number, leg in enumerate(session.legs):
        if leg.terms is None:
            total = ZERO if given_back else price(leg.pin.tariff, seconds)
            more = total - leg.charged
            legs.append(replace(leg, charged=total))
        else:
            highest = max(session.used_ms, session.assumed_ms)
            began = _began(session, highest, now)
            added, total = settle(leg, seconds, view.meters, began, given_back=given_back)
            more = total - leg.charged
            counts += counts_of(added)
            counts += [Count(spend.meter_id, more) for spend in leg.terms.spend]
            legs.append(replace(leg, charged=total, parts=(*leg.parts, *added)))
        if more:
            entry = Posting(leg.wallet_id, number, Code.LATE if more > 0 else code, abs(more))
            postings.append(check_posting(entry))
    after = replace(session, legs=tuple(legs), version=session.version + 1)
    return Decision(
        after, final(after), (), tuple(postings), counts=merged(counts) if counts else ()
    )


def refund(session: Session, command: Command, view: View, now: datetime) -> Decision:
    """Give back what a closed session was charged for ``units`` in all, or for everything.

    Raises:
        Conflict: the session was refused, so nothing was charged.
    """
    assert isinstance(command, Refund)
    if session.ending is Ending.REFUSED:
        raise Conflict(
            f"session {session.id} was refused ({session.reason}); there is nothing to give back",
            code="session_refused",
        )
    used = max(session.used_ms, session.assumed_ms)
    wanted = used if command.units is None else min(command.units * 1000, used)
    if wanted <= session.refunded_ms:
        return Decision(session, final(session))
    after = replace(session, refunded_ms=wanted)
    return _recharge(after, Code.REFUND, view, now)
