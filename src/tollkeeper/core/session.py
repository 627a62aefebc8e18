"""The credit session: one transition table, one pure function.

``decide(session, command, view, now)`` says what is written and answered. It reads no clock and
no store; the wallets it is shown are the ones that the store will check again when it writes.

Everything rests on one rule: the charge of a leg is ``price(pinned rate, highest cumulative usage
seen)``. So lost, repeated, delayed and reordered messages cannot change it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from decimal import Decimal

import msgspec
from msgspec.structs import replace

from tollkeeper.core.ledger import Code, Posting, check_posting
from tollkeeper.core.money import ZERO
from tollkeeper.core.rating import afford, billed_seconds, price, seconds_of
from tollkeeper.core.reasons import Reason
from tollkeeper.core.records import (
    Authorise,
    Command,
    Decision,
    Ending,
    Event,
    Expire,
    Hold,
    Kill,
    Leg,
    Limits,
    Outcome,
    Policy,
    Reply,
    Role,
    Session,
    SilentTail,
    Start,
    State,
    Stop,
    Update,
    Wallet,
)
from tollkeeper.errors import Conflict, NotFound

NO_LIMITS = Limits()


class View(msgspec.Struct, frozen=True):
    """What a decision may look at: the wallets of all parties concerned, limits and timers."""

    wallets: Mapping[int, Wallet]
    limits: Mapping[int, Limits]
    policy: Policy


def decide(
    session: Session | None, command: Command, view: View, now: datetime, new_id: str = ""
) -> Decision:
    """Apply the transition table.

    The result's ``session`` is the very object given when there is nothing to store. ``new_id``
    names the session that an Authorise opens.

    Raises:
        NotFound: a message for a session that was never authorised.
        Conflict: an id authorised again with other content, or a session that cannot take this.
    """
    if session is None:
        if isinstance(command, Authorise):
            return _authorise(command, view, now, new_id)
        raise NotFound(
            f'session "{command.key.partition("/")[2]}" is not known here; authorise it first',
            code="unknown_session",
        )
    return TRANSITIONS[session.state, type(command)](session, command, view, now)


# --- opening ---------------------------------------------------------------------------------


def _authorise(command: Authorise, view: View, now: datetime, new_id: str) -> Decision:
    limits = view.limits.get(command.party_id, NO_LIMITS)
    reason = command.refusal or _beside_money(command, view, now)
    if reason is Reason.NONE:
        legs = tuple(Leg(o.role, o.party_id, o.wallet_id, o.pin) for o in command.offers)
        wish = min(command.requested_seconds, limits.max_seconds)
        seconds, costs, reason = _affordable(legs, view, wish, limits)
        if seconds:
            held = tuple([_holding(leg, cost) for leg, cost in zip(legs, costs, strict=True)])
            return _open(command, held, seconds, wish, view, limits, now, new_id)
    return _refuse(command, reason, limits, now, new_id)


def _beside_money(command: Authorise, view: View, now: datetime) -> Reason:
    """Check the limits that are not money, for every party of the session."""
    second = int(now.timestamp())
    for offer in command.offers:
        limits = view.limits.get(offer.party_id, NO_LIMITS)
        if limits.suspended:
            return Reason.PARTY_SUSPENDED
        if limits.max_sessions is None and limits.max_cps is None:
            continue
        own = [w for w in view.wallets.values() if w.party_id == offer.party_id]
        if limits.max_sessions is not None and sum(w.live for w in own) >= limits.max_sessions:
            return Reason.CONCURRENCY_LIMIT
        begun = sum(w.cps_count for w in own if w.cps_second == second)
        if limits.max_cps is not None and begun >= limits.max_cps:
            return Reason.CPS_LIMIT
    return Reason.NONE


def _open(
    command: Authorise,
    held: tuple[Leg, ...],
    seconds: int,
    wish: int,
    view: View,
    limits: Limits,
    now: datetime,
    new_id: str,
) -> Decision:
    policy = view.policy
    wait = policy.answer_window + policy.grace
    # A switch that does not report the answer is talking from the first moment.
    expires_at = now + timedelta(seconds=wait if command.start_expected else wait + seconds)
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
        legs=held,
        slice_seconds=command.requested_seconds,
        max_seconds=limits.max_seconds,
        granted_seconds=seconds,
    )
    reply = Reply(
        outcome=Outcome.GRANTED,
        id=new_id,
        granted_seconds=seconds,
        expires_at=expires_at,
        final=_is_final(session),
        currency=held[0].pin.currency,
    )
    holds = tuple([Hold(leg.wallet_id, leg.held, 1) for leg in held])
    return Decision(session, reply, holds, guarded=True)


def _refuse(
    command: Authorise, reason: Reason, limits: Limits, now: datetime, new_id: str
) -> Decision:
    """A refusal is stored too: this id stays refused, whatever money comes later."""
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
        legs=tuple(Leg(o.role, o.party_id, o.wallet_id, o.pin) for o in command.offers),
        slice_seconds=command.requested_seconds,
        max_seconds=limits.max_seconds,
        ending=Ending.REFUSED,
        reason=reason,
        closed_at=now,
    )
    return Decision(session, Reply(outcome=Outcome.REFUSED, id=new_id, reason=reason))


def _holding(leg: Leg, amount: Decimal) -> Leg:
    return Leg(leg.role, leg.party_id, leg.wallet_id, leg.pin, amount, leg.charged)


def _affordable(
    legs: tuple[Leg, ...], view: View, wish: int, limits: Limits
) -> tuple[int, tuple[Decimal, ...], Reason]:
    """Total seconds that every leg can pay for, wished ``wish``: the smallest over the legs; and its prices.

    Each leg's wish is raised to its own interval boundary, which costs the same, and bounded by
    the session's maximum. Money counts what the leg already holds.
    """
    smallest, reason = limits.max_seconds, Reason.NONE
    offers: list[tuple[int, Decimal]] = []
    for leg in legs:
        wallet = view.wallets[leg.wallet_id]
        if wallet.parked:
            return 0, (), Reason.WALLET_PARKED
        money, why = leg.held + wallet.available, Reason.INSUFFICIENT_FUNDS
        if leg.role is Role.CUSTOMER and limits.max_cost is not None and limits.max_cost < money:
            money, why = limits.max_cost, Reason.COST_LIMIT
        tariff = leg.pin.tariff
        top = min(billed_seconds(tariff, wish), limits.max_seconds)
        seconds, cost = afford(tariff, money, top)
        offers.append((seconds, cost))
        if seconds < smallest:
            smallest, reason = seconds, (why if seconds < top else Reason.NONE)
    costs = [
        cost if seconds == smallest else price(leg.pin.tariff, smallest)
        for leg, (seconds, cost) in zip(legs, offers, strict=True)
    ]
    return smallest, tuple(costs), reason


# --- while the call is up ----------------------------------------------------------------------


def _start(session: Session, command: Command, view: View, now: datetime) -> Decision:
    expires_at = now + timedelta(seconds=session.granted_seconds + view.policy.grace)
    after = replace(
        session,
        state=State.ACTIVE,
        answered_at=now,
        expires_at=expires_at,
        version=session.version + 1,
    )
    return Decision(after, _standing(after, final=_is_final(after)))


def _is_final(session: Session) -> bool:
    """True when the grant is less than was wished, or as long as a session may be."""
    return session.granted_seconds < session.slice_seconds or (
        session.granted_seconds >= session.max_seconds
    )


def _start_again(session: Session, command: Command, view: View, now: datetime) -> Decision:
    """A START after the first word of a call changes nothing."""
    return Decision(session, _standing(session))


def _standing(session: Session, *, final: bool = False, reason: Reason = Reason.NONE) -> Reply:
    """The answer that describes an open session as it stands."""
    spent = session.used_ms >= session.granted_seconds * 1000
    return Reply(
        outcome=Outcome.ACTIVE,
        id=session.id,
        granted_seconds=session.granted_seconds,
        expires_at=session.expires_at,
        final=final or bool(session.kill),
        terminate=bool(session.kill) or (final and spent),
        reason=Reason.KILLED if session.kill else reason,
        currency=session.legs[0].pin.currency,
        used_ms=session.used_ms,
    )


def _update(session: Session, command: Command, view: View, now: datetime) -> Decision:
    assert isinstance(command, Update)
    used = max(session.used_ms, command.used_ms)
    limits = view.limits.get(session.party_id, NO_LIMITS)
    wish = min(seconds_of(used) + session.slice_seconds, session.max_seconds)
    seconds, reason = session.granted_seconds, Reason.NONE
    costs: tuple[Decimal, ...] = ()
    if limits.suspended:
        reason = Reason.PARTY_SUSPENDED
    elif command.extend and not session.kill and wish > seconds:
        bounded = replace(limits, max_seconds=session.max_seconds)
        seconds, costs, reason = _affordable(session.legs, view, wish, bounded)
    if reason is Reason.NONE and seconds >= session.max_seconds:
        reason = Reason.DURATION_LIMIT
    legs, holds = (
        _raise_holds(session, costs) if seconds > session.granted_seconds else (session.legs, ())
    )
    seconds = max(seconds, session.granted_seconds)
    left = timedelta(milliseconds=max(0, seconds * 1000 - used))
    kill = session.kill or ("suspended" if limits.suspended and limits.kill_on_suspend else "")
    after = replace(
        session,
        state=State.ACTIVE,
        legs=legs,
        answered_at=session.answered_at or now - timedelta(milliseconds=used),
        used_ms=used,
        granted_seconds=seconds,
        expires_at=now + left + timedelta(seconds=view.policy.grace),
        kill=kill,
        marks=_marks(session, command.used_ms, view.policy, now),
        version=session.version + 1,
    )
    reply = _standing(after, final=reason is not Reason.NONE, reason=reason)
    events = (Event("session.kill", session.id, kill),) if kill != session.kill else ()
    return Decision(after, reply, holds, events=events, guarded=bool(holds))


def _raise_holds(
    session: Session, costs: tuple[Decimal, ...]
) -> tuple[tuple[Leg, ...], tuple[Hold, ...]]:
    """Legs and hold changes when each leg is to hold its cost of a longer grant."""
    legs = tuple([_holding(leg, cost) for leg, cost in zip(session.legs, costs, strict=True)])
    return legs, tuple(
        [
            Hold(new.wallet_id, new.held - old.held)
            for old, new in zip(session.legs, legs, strict=True)
        ]
    )


def _marks(session: Session, reported_ms: int, policy: Policy, now: datetime) -> tuple[str, ...]:
    """Note what looks wrong in a report; marks are listed, they never change the charge."""
    marks = session.marks
    if reported_ms < session.used_ms and "usage_went_down" not in marks:
        marks = (*marks, "usage_went_down")
    elapsed_ms = int((now - session.opened_at).total_seconds() * 1000)
    if reported_ms > elapsed_ms + policy.clock_tolerance_ms and "usage_ahead_of_clock" not in marks:
        marks = (*marks, "usage_ahead_of_clock")
    return marks


def _kill(session: Session, command: Command, view: View, now: datetime) -> Decision:
    assert isinstance(command, Kill)
    if session.kill:
        return Decision(session, _standing(session))
    after = replace(session, kill=command.why, version=session.version + 1)
    return Decision(
        after, _standing(after), events=(Event("session.kill", session.id, command.why),)
    )


# --- the end -----------------------------------------------------------------------------------


def _stop(session: Session, command: Command, view: View, now: datetime) -> Decision:
    assert isinstance(command, Stop)
    used = max(session.used_ms, command.used_ms)
    ending = Ending.SETTLED if used else Ending.RELEASED
    marked = replace(
        session, cause=command.cause, marks=_marks(session, command.used_ms, view.policy, now)
    )
    return _close(marked, used, 0, ending, now)


def _expire(session: Session, command: Command, view: View, now: datetime) -> Decision:
    if now < session.expires_at:
        return Decision(session, _standing(session))
    assumed = 0
    if view.policy.silent_tail is SilentTail.GRANT_END and session.state is State.ACTIVE:
        assumed = session.granted_seconds * 1000
    closed = _close(session, session.used_ms, assumed, Ending.EXPIRED, now)
    events = (
        Event("session.kill", session.id, "expired"),
        Event("session.expired", session.id),
        *closed.events,
    )
    after = replace(closed.session, reason=Reason.EXPIRED)
    return replace(
        closed, session=after, reply=replace(closed.reply, reason=Reason.EXPIRED), events=events
    )


def _close(session: Session, used: int, assumed: int, ending: Ending, now: datetime) -> Decision:
    """Settle every leg: charge what was used, release the rest, name what went above the hold."""
    seconds = seconds_of(max(used, assumed))
    legs: list[Leg] = []
    holds: list[Hold] = []
    postings: list[Posting] = []
    events: list[Event] = []
    for number, leg in enumerate(session.legs):
        charge = price(leg.pin.tariff, seconds)
        within = min(charge, leg.held)
        if within > 0:
            postings.append(check_posting(Posting(leg.wallet_id, number, Code.USAGE, within)))
        if charge > within:
            postings.append(
                check_posting(Posting(leg.wallet_id, number, Code.OVERRUN, charge - within))
            )
            events.append(Event("session.overrun", session.id, str(charge - within)))
        holds.append(Hold(leg.wallet_id, -leg.held, -1))
        legs.append(Leg(leg.role, leg.party_id, leg.wallet_id, leg.pin, ZERO, charge))
    after = replace(
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
    return Decision(after, _final(after), tuple(holds), tuple(postings), tuple(events))


def _final(session: Session) -> Reply:
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
    )


def _late(session: Session, command: Command, view: View, now: datetime) -> Decision:
    """A report after the end: only usage above what is known changes anything."""
    assert isinstance(command, (Update, Stop))
    if session.ending is Ending.REFUSED:
        if command.used_ms == 0:
            return Decision(session, _final(session))
        raise Conflict(
            f"session {session.id} was refused ({session.reason}), yet {command.used_ms} ms of use are reported: "
            "check that the switch obeys refusals",
            code="session_refused",
        )
    settles_assumption = session.assumed_ms > 0 and isinstance(command, Stop)
    if command.used_ms <= session.used_ms and not settles_assumption:
        return Decision(session, _final(session))
    used = max(session.used_ms, command.used_ms)
    assumed = 0 if settles_assumption else session.assumed_ms
    seconds = seconds_of(max(used, assumed))
    legs: list[Leg] = []
    postings: list[Posting] = []
    for number, leg in enumerate(session.legs):
        total = price(leg.pin.tariff, seconds)
        more = total - leg.charged
        if more:
            code = Code.LATE if more > 0 else Code.CORRECTION
            postings.append(check_posting(Posting(leg.wallet_id, number, code, abs(more))))
        legs.append(replace(leg, charged=total))
    after = replace(
        session, legs=tuple(legs), used_ms=used, assumed_ms=assumed, version=session.version + 1
    )
    events = (Event("session.late", session.id),) if postings else ()
    return Decision(after, _final(after), (), tuple(postings), events)


def _as_it_is(session: Session, command: Command, view: View, now: datetime) -> Decision:
    """A closed session takes no START and no second end."""
    return Decision(session, _final(session))


def _taken(session: Session, command: Command, view: View, now: datetime) -> Decision:
    raise session_id_reused(session.key)


def session_id_reused(key: str) -> Conflict:
    """The error of an authorisation whose id was authorised before with other content."""
    return Conflict(
        f'session id "{key.partition("/")[2]}" was authorised before with other content; use a new id',
        code="session_id_reused",
    )


def _too_late_to_kill(session: Session, command: Command, view: View, now: datetime) -> Decision:
    raise Conflict(
        f"session {session.id} is closed already ({session.ending})", code="session_closed"
    )


Transition = Callable[[Session, Command, View, datetime], Decision]

TRANSITIONS: dict[tuple[State, type[Command]], Transition] = {
    (State.AUTHORISED, Authorise): _taken,
    (State.AUTHORISED, Start): _start,
    (State.AUTHORISED, Update): _update,
    (State.AUTHORISED, Stop): _stop,
    (State.AUTHORISED, Kill): _kill,
    (State.AUTHORISED, Expire): _expire,
    (State.ACTIVE, Authorise): _taken,
    (State.ACTIVE, Start): _start_again,
    (State.ACTIVE, Update): _update,
    (State.ACTIVE, Stop): _stop,
    (State.ACTIVE, Kill): _kill,
    (State.ACTIVE, Expire): _expire,
    (State.CLOSED, Authorise): _taken,
    (State.CLOSED, Start): _as_it_is,
    (State.CLOSED, Update): _late,
    (State.CLOSED, Stop): _late,
    (State.CLOSED, Kill): _too_late_to_kill,
    (State.CLOSED, Expire): _as_it_is,
}
"""Every state and every command: what is not listed does not exist."""
