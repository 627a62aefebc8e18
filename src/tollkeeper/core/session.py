"""The credit session: one transition table, one pure function.

``decide(session, command, view, now)`` says what is written and answered. It reads no clock and
no store; the wallets it is shown are the ones that the store will check again when it writes.

Everything rests on one rule: the charge of a leg is ``price(pinned rate, highest cumulative usage
seen)``. So lost, repeated, delayed and reordered messages cannot change it.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

from msgspec.structs import replace

from tollkeeper.core import events
from tollkeeper.core.affordable import affordable, counts_held, holds_of, kills, suspended
from tollkeeper.core.closing import (
    expire,
    final,
    late,
    marks_of,
    refund,
    reported_ms,
    session_closed,
    standing,
    stop,
)
from tollkeeper.core.opening import authorise, is_final, validity
from tollkeeper.core.rating import seconds_of
from tollkeeper.core.reasons import Reason
from tollkeeper.core.records import (
    Authorise,
    Charge,
    Command,
    Decision,
    Event,
    Expire,
    Hold,
    Kill,
    Refund,
    Session,
    Start,
    State,
    Stop,
    Unit,
    Update,
)
from tollkeeper.core.terms import Count
from tollkeeper.core.view import NO_LIMITS, View
from tollkeeper.errors import Conflict, NotFound

__all__ = ["NO_LIMITS", "TRANSITIONS", "View", "decide", "session_id_reused"]


def decide(
    session: Session | None, command: Command, view: View, now: datetime, new_id: str = ""
) -> Decision:
    """Apply the transition table.

    The result's ``session`` is the very object given when there is nothing to store. ``new_id``
    names the session that an Authorise opens, or a Charge.

    Raises:
        NotFound: a message for a session that was never authorised.
        Conflict: an id authorised again with other content, or a session that cannot take this.
    """
    if session is None:
        if isinstance(command, Authorise):
            return authorise(command, view, now, new_id)
        if isinstance(command, Charge):
            return events.charge(command, view, now, new_id)
        raise NotFound(
            f'session "{command.key.partition("/")[2]}" is not known here; authorise it first',
            code="unknown_session",
        )
    return TRANSITIONS[session.state, type(command)](session, command, view, now)


# --- while the call is up ----------------------------------------------------------------------


def _start(session: Session, command: Command, view: View, now: datetime) -> Decision:
    usable = validity(session.unit, session.granted_seconds, view.policy)
    expires_at = now + timedelta(seconds=usable + view.policy.grace)
    after = replace(
        session,
        state=State.ACTIVE,
        answered_at=now,
        expires_at=expires_at,
        version=session.version + 1,
    )
    return Decision(after, standing(after, last=is_final(after)))


def _start_again(session: Session, command: Command, view: View, now: datetime) -> Decision:
    """A START after the first word of a call changes nothing."""
    return Decision(session, standing(session))


def _update(session: Session, command: Command, view: View, now: datetime) -> Decision:
    assert isinstance(command, Update)
    reported = reported_ms(session, command)
    used = max(session.used_ms, reported)
    answered_at = session.answered_at or now - timedelta(milliseconds=used)
    wish = min(seconds_of(used) + session.slice_seconds, session.max_seconds)
    seconds, reason, party_id = session.granted_seconds, Reason.NONE, suspended(session, view)
    legs = session.legs
    if party_id:
        reason = Reason.PARTY_SUSPENDED
    elif command.extend and not session.kill and wish > seconds:
        grant = affordable(
            legs, view, wish, session.max_seconds, session.party_id, answered_at, now
        )
        reason, party_id = grant.against
        if grant.units > seconds:
            seconds, legs = grant.units, grant.legs
    if reason is Reason.NONE and seconds >= session.max_seconds:
        reason = Reason.DURATION_LIMIT
    holds: tuple[Hold, ...] = ()
    counts: tuple[Count, ...] = ()
    if legs is not session.legs:
        holds, counts = holds_of(session.legs, legs), counts_held(session.legs, legs)
    left = timedelta(milliseconds=max(0, seconds * 1000 - used))
    if session.unit is not Unit.SECOND:
        left = timedelta(seconds=view.policy.data_validity)
    kill = session.kill or (
        "suspended" if reason is Reason.PARTY_SUSPENDED and kills(session, view) else ""
    )
    after = replace(
        session,
        state=State.ACTIVE,
        legs=legs,
        answered_at=answered_at,
        used_ms=used,
        granted_seconds=seconds,
        expires_at=now + left + timedelta(seconds=view.policy.grace),
        kill=kill,
        marks=marks_of(session, reported, view.policy, now),
        version=session.version + 1,
    )
    reply = standing(after, last=reason is not Reason.NONE, against=reason, party_id=party_id)
    told = (Event("session.kill", session.id, kill),) if kill != session.kill else ()
    return Decision(after, reply, holds, events=told, guarded=bool(holds), counts=counts)


def _kill(session: Session, command: Command, view: View, now: datetime) -> Decision:
    assert isinstance(command, Kill)
    if session.kill:
        return Decision(session, standing(session))
    after = replace(session, kill=command.why, version=session.version + 1)
    return Decision(
        after, standing(after), events=(Event("session.kill", session.id, command.why),)
    )


# --- after the end and beside the table --------------------------------------------------------


def _as_it_is(session: Session, command: Command, view: View, now: datetime) -> Decision:
    """A closed session takes no START and no second end."""
    if isinstance(command, Start) and command.only_open:
        raise session_closed(session)
    return Decision(session, final(session))


def _taken(session: Session, command: Command, view: View, now: datetime) -> Decision:
    raise session_id_reused(session.key)


def session_id_reused(key: str) -> Conflict:
    """The error of an authorisation whose id was authorised before with other content."""
    return Conflict(
        f'session id "{key.partition("/")[2]}" was authorised before with other content; use a new id',
        code="session_id_reused",
    )


def _not_closed_yet(session: Session, command: Command, view: View, now: datetime) -> Decision:
    """An open session has no charge that could be given back."""
    raise Conflict(
        f"session {session.id} is still open; stop it before anything is refunded",
        code="session_open",
    )


def _too_late_to_kill(session: Session, command: Command, view: View, now: datetime) -> Decision:
    raise session_closed(session)


Transition = Callable[[Session, Command, View, datetime], Decision]

TRANSITIONS: dict[tuple[State, type[Command]], Transition] = {
    (State.AUTHORISED, Authorise): _taken,
    (State.AUTHORISED, Charge): _taken,
    (State.AUTHORISED, Start): _start,
    (State.AUTHORISED, Update): _update,
    (State.AUTHORISED, Stop): stop,
    (State.AUTHORISED, Kill): _kill,
    (State.AUTHORISED, Expire): expire,
    (State.AUTHORISED, Refund): _not_closed_yet,
    (State.ACTIVE, Authorise): _taken,
    (State.ACTIVE, Charge): _taken,
    (State.ACTIVE, Start): _start_again,
    (State.ACTIVE, Update): _update,
    (State.ACTIVE, Stop): stop,
    (State.ACTIVE, Kill): _kill,
    (State.ACTIVE, Expire): expire,
    (State.ACTIVE, Refund): _not_closed_yet,
    (State.CLOSED, Authorise): _taken,
    (State.CLOSED, Charge): _taken,
    (State.CLOSED, Start): _as_it_is,
    (State.CLOSED, Update): late,
    (State.CLOSED, Stop): late,
    (State.CLOSED, Kill): _too_late_to_kill,
    (State.CLOSED, Expire): _as_it_is,
    (State.CLOSED, Refund): refund,
}
"""Every state and every command: what is not listed does not exist."""
