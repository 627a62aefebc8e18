"""Why a session cost what it cost: everything that is stored of it, put in order for people.

Nothing here is a second opinion kept somewhere: the arithmetic is done again from the pinned rate
and the usage, and stands beside what was posted, so that a difference would show.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec

from tollkeeper.core.batch import meters_of
from tollkeeper.core.ledger import Code
from tollkeeper.core.money import ZERO, plain
from tollkeeper.core.records import Ending, Pin, Reply, Role, Session, Unit
from tollkeeper.core.words import words_of
from tollkeeper.errors import Conflict, NotFound
from tollkeeper.services.explain_legs import LegLine, RateUsed, describe_rounding, leg_line, net_ms
from tollkeeper.services.explain_parts import PartLine
from tollkeeper.services.plan_book import default_per
from tollkeeper.services.scope import payer_of, shown_reply, shown_session, shown_sessions
from tollkeeper.store.db import Connection, Database
from tollkeeper.store.explain import CardRow, read_card_rows, read_named_meters
from tollkeeper.store.scope import seen_cards
from tollkeeper.store.sessions import (
    StoredMessage,
    find_keys,
    read_entries,
    read_messages,
    read_party_codes,
    read_session,
    reply_of,
)

__all__ = [
    "CardRow", "Explanation", "LegLine", "MessageLine", "PartLine", "RateUsed", "describe_rounding", "explain",
    "party_codes", "row_on_card", "shown", "units_of",
]  # fmt: skip

_MARKS = {
    "usage_went_down": "a report gave less usage than one before it; the highest one counts",
    "usage_ahead_of_clock": "more usage was reported than time had passed since the authorisation",
}


@dataclass(frozen=True, slots=True)
class MessageLine:
    """A message that changed the session: what came, and what was answered.

    ``version`` is the session's after it; ``request`` the message as it came, without the key.
    ``refused_by`` is the party whose money or limit stood against it, for those who may know of it.
    """

    version: int
    at: datetime
    message_id: str
    request: dict[str, Any]
    reply: Reply
    refused_by: str = ""


@dataclass(frozen=True, slots=True)
class Explanation:
    """All that is known of a session.

    ``billed_from_ms`` is the usage that was priced: the highest one reported, or ``assumed_ms``
    where the session expired without the switch's word; less what was given back since. ``refused_by``
    is the party at which it was refused, or ''. ``at_once``: it was charged without a hold.
    """

    session: Session
    switch: str
    session_id: str
    party: str
    story: str
    billed_from_ms: int
    messages: tuple[MessageLine, ...]
    legs: tuple[LegLine, ...]
    marks: tuple[str, ...]
    refused_by: str
    at_once: bool


async def explain(database: Database, name: str, *, scope: int | None = None) -> Explanation:
    """Explain a session, live or closed; to a scope only what is its own and below it.

    ``name`` is ``switch/session_id``, the session's own id, or the session id alone where only
    one switch knows it.

    Raises:
        NotFound: there is no such session. Conflict: several switches know this session id.
    """
    async with database.read(scope=scope) as connection:
        session = await _find(connection, name)
        messages = await read_messages(connection, session.opened_at.date(), session.id)
        entries = await read_entries(connection, session.id)
        parties = {session.party_id, *(leg.party_id for leg in session.legs)}
        codes = await read_party_codes(connection, parties | {session.refused_by})
        lines = [_message(message) for message in messages]
        if scope is not None:
            cards = await seen_cards(connection, [leg.pin.card_id for leg in session.legs])
            lines = [_shown(line, codes.keys(), payer_of(session)) for line in lines]
            session, whole = shown_session(session, codes.keys(), cards), session
        else:
            whole = session
        rows = await read_card_rows(connection, [leg.pin for leg in session.legs])
        terms = [leg.terms for leg in session.legs if leg.terms is not None]
        ids = [id_ for one in terms for id_ in meters_of(one)]
        meters = await read_named_meters(connection, ids)
    switch, _, session_id = session.key.partition("/")
    # What is hidden leaves a gap: legs keep the numbers that their entries have.
    numbers = [n for n, leg in enumerate(whole.legs) if scope is None or leg.party_id in codes]
    legs = tuple(
        leg_line(
            session,
            number,
            leg,
            codes.get(leg.party_id, str(leg.party_id)),
            [entry for entry in entries if entry.leg == number],
            rows,
            meters,
        )
        for number, leg in zip(numbers, session.legs, strict=True)
    )
    refused_by = codes.get(session.refused_by, "")
    at_once = session.ending is not Ending.REFUSED and session.expires_at == session.opened_at
    return Explanation(
        session=session,
        switch=switch,
        session_id=session_id,
        party=codes.get(session.party_id, str(session.party_id)),
        story=_story(session, legs, refused_by, at_once=at_once),
        billed_from_ms=net_ms(session),
        messages=tuple(
            replace(line, refused_by=codes.get(line.reply.refused_by, "")) for line in lines
        ),
        legs=legs,
        marks=tuple(_MARKS.get(mark, mark) for mark in session.marks),
        refused_by=refused_by,
        at_once=at_once,
    )


async def _find(connection: Connection, name: str) -> Session:
    found = await read_session(connection, name)
    if found is None and "/" not in name and not _is_uuid(name):
        keys = await find_keys(connection, name)
        if len(keys) > 1:
            raise Conflict(
                f"several switches know this id: say which one you mean: {', '.join(keys)}",
                code="ambiguous_session",
            )
        found = await read_session(connection, keys[0]) if keys else None
    if found is None:
        raise NotFound(f'there is no session "{name}"', code="unknown_session")
    return found


def _is_uuid(name: str) -> bool:
    try:
        UUID(name)
    except ValueError:
        return False
    return True


def _message(message: StoredMessage) -> MessageLine:
    request: dict[str, Any] = msgspec.json.decode(message.request)
    return MessageLine(message.version, message.at, message.message_id, request, reply_of(message))


def _shown(line: MessageLine, visible: Collection[int], payer: int) -> MessageLine:
    return replace(line, reply=shown_reply(line.reply, visible, payer=payer))


# --- in a sentence -------------------------------------------------------------------------------


def units_of(session: Session, units: int) -> str:
    """So many units of a session's service, in its own words."""
    per = session.legs[0].pin.tariff.per if session.legs else default_per(session.service)
    return words_of(session.unit.value, per, session.service).count(units)


def _used(session: Session, thousandths: int) -> str:
    """Usage that was reported: of time also parts of a second."""
    if session.unit is Unit.SECOND:
        return f"{Decimal(thousandths) / 1000} s"
    return units_of(session, -(-thousandths // 1000))


def _story(session: Session, legs: Sequence[LegLine], refused_by: str, *, at_once: bool) -> str:
    """How it went, in a sentence or two."""
    if session.ending is Ending.REFUSED:
        # Whose own use it was need not be said.
        other = refused_by if session.refused_by != session.party_id else ""
        level = f", at {other}" if other else ""
        why = session.reason.value.replace("_", " ")
        return f"Refused: {why}{level}. Nothing was held or charged."
    back = _refunded(session, legs)
    if at_once:
        whole = f"Charged {_money(legs, Code.USAGE)}for {_used(session, session.used_ms)}, at once."
        return f"{whole}{back}"
    granted = f"{units_of(session, session.granted_seconds)} were granted in all"
    if session.open:
        state = "answered" if session.answered_at else "authorised, not answered yet"
        if session.unit is not Unit.SECOND:
            state = f"{_used(session, session.used_ms)} used so far"
        kill = f" The switch was asked to end it ({session.kill})." if session.kill else ""
        return f"Still open: {state}; {granted}.{kill}"
    used = _used(session, session.used_ms)
    if session.ending is Ending.EXPIRED:
        tail = f"; {session.assumed_ms // 1000} s were assumed" if session.assumed_ms else ""
        return f"Expired: the switch went silent after reporting {used}{tail}; {granted}.{back}"
    if session.ending is Ending.RELEASED:
        what = "call" if session.unit is Unit.SECOND else "session"
        return f"Released: the {what} ended without use; {granted} and given back."
    return f"Settled after {used} of use; {granted}.{back}"


def _refunded(session: Session, legs: Sequence[LegLine]) -> str:
    if not session.refunded_ms:
        return ""
    some = _used(session, session.refunded_ms)
    what = "all of it" if net_ms(session) == 0 else f"{some} of {_used(session, session.used_ms)}"
    return f" Refunded {_money(legs, Code.REFUND)}for {what}."


def _money(legs: Sequence[LegLine], code: Code) -> str:
    """What the customer's leg was charged or given back at that point, where it may be seen."""
    for leg in legs:
        if leg.role == Role.CUSTOMER:
            total = sum([entry.amount for entry in leg.entries if entry.code == code], ZERO)
            return f"{plain(total)} {leg.currency} "
    return ""


async def shown(
    database: Database, sessions: Sequence[Session], *, scope: int | None
) -> list[Session]:
    """These sessions as a scope sees them: without the legs of others."""
    if scope is None:
        return list(sessions)
    async with database.read(scope=scope) as connection:
        return await shown_sessions(connection, sessions)


async def row_on_card(database: Database, pin: Pin) -> CardRow | None:
    """The row that a price was made of, as it stands on its card; None for a price without one."""
    async with database.read() as connection:
        rows = await read_card_rows(connection, [pin])
    return rows.get((pin.card_id, pin.version, pin.row_id))


async def party_codes(database: Database, sessions: Sequence[Session]) -> dict[int, str]:
    """The codes of all parties that have a share in these sessions, by their ids."""
    ids = {s.party_id for s in sessions} | {leg.party_id for s in sessions for leg in s.legs}
    if not ids:
        return {}
    async with database.read() as connection:
        return await read_party_codes(connection, ids)
