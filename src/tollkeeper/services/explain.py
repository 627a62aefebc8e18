"""Why a session cost what it cost: everything that is stored of it, put in order for people.

Nothing here is a second opinion kept somewhere: the arithmetic is done again from the pinned rate
and the usage, and stands beside what was posted, so that a difference would show.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec

from tollkeeper.core.ledger import Code, wallet_effect
from tollkeeper.core.money import ZERO, Rounding
from tollkeeper.core.rating import Price, Tariff, explain_price, price, seconds_of
from tollkeeper.core.records import Ending, Leg, Reply, Session
from tollkeeper.errors import Conflict, NotFound
from tollkeeper.store.db import Connection, Database
from tollkeeper.store.sessions import (
    StoredEntry,
    StoredMessage,
    find_keys,
    read_entries,
    read_messages,
    read_party_codes,
    read_session,
    reply_of,
)

_ROUNDINGS = {
    Rounding.HALF_UP: "to the nearest, halves up",
    Rounding.HALF_EVEN: "to the nearest, halves to the even digit",
    Rounding.UP: "up",
    Rounding.DOWN: "down",
}

_MARKS = {
    "usage_went_down": "a report gave less usage than one before it; the highest one counts",
    "usage_ahead_of_clock": "more usage was reported than time had passed since the authorisation",
}


@dataclass(frozen=True, slots=True)
class MessageLine:
    """A message that changed the session: what came, and what was answered.

    ``version`` is the session's after it; ``request`` the message as it came, without the key.
    """

    version: int
    at: datetime
    message_id: str
    request: dict[str, Any]
    reply: Reply


@dataclass(frozen=True, slots=True)
class RateUsed:
    """The row of the rate card that priced a leg, as it was when the call was authorised."""

    card: str
    version: int
    row: int
    prefix: str
    destination: str
    tariff: Tariff


@dataclass(frozen=True, slots=True)
class HoldLine:
    """What became of the money that was set aside; ``still_held`` is 0 once the session is closed.

    ``taken`` = ``settled`` + ``released`` + ``still_held``. ``overrun`` is usage above the hold,
    ``late`` usage reported after the end, ``corrected`` money given back after the end.
    """

    taken: Decimal
    settled: Decimal
    released: Decimal
    still_held: Decimal
    overrun: Decimal
    late: Decimal
    corrected: Decimal


@dataclass(frozen=True, slots=True)
class LegLine:
    """One party's share: its rate, the arithmetic, the hold, and the lines of the journal.

    ``price`` is the arithmetic done again from the rate and the usage; ``rounding`` says how it was
    rounded. ``charged`` is what was posted; ``agrees`` tells whether the two are the same. Of a
    session that is still open ``price`` is what it would cost if it ended now.
    """

    number: int
    role: str
    party: str
    wallet_id: int
    currency: str
    rate: RateUsed
    price: Price
    rounding: str
    hold: HoldLine
    charged: Decimal
    agrees: bool
    entries: tuple[StoredEntry, ...]


@dataclass(frozen=True, slots=True)
class Explanation:
    """All that is known of a session.

    ``billed_from_ms`` is the usage that was priced: the highest one reported, or ``assumed_ms``
    where the session expired without the switch's word.
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


async def explain(database: Database, name: str) -> Explanation:
    """Explain a session, live or closed.

    ``name`` is ``switch/session_id``, the session's own id, or the session id alone where only
    one switch knows it.

    Raises:
        NotFound: there is no such session. Conflict: several switches know this session id.
    """
    async with database.read() as connection:
        session = await _find(connection, name)
        messages = await read_messages(connection, session.opened_at.date(), session.id)
        entries = await read_entries(connection, session.id)
        parties = {session.party_id, *(leg.party_id for leg in session.legs)}
        codes = await read_party_codes(connection, parties)
    switch, _, session_id = session.key.partition("/")
    return Explanation(
        session=session,
        switch=switch,
        session_id=session_id,
        party=codes.get(session.party_id, str(session.party_id)),
        story=_story(session),
        billed_from_ms=max(session.used_ms, session.assumed_ms),
        messages=tuple(_message(message) for message in messages),
        legs=tuple(
            _leg(session, number, leg, codes, [e for e in entries if e.leg == number])
            for number, leg in enumerate(session.legs)
        ),
        marks=tuple(_MARKS.get(mark, mark) for mark in session.marks),
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


def _leg(
    session: Session, number: int, leg: Leg, codes: dict[int, str], entries: list[StoredEntry]
) -> LegLine:
    pin = leg.pin
    refused = session.ending is Ending.REFUSED
    seconds = 0 if refused else seconds_of(max(session.used_ms, session.assumed_ms))
    worked = explain_price(pin.tariff, seconds)
    if refused:
        worked = Price(0, 0, ZERO, ZERO, "the call was refused: nothing is charged")
    return LegLine(
        number=number,
        role=leg.role.value,
        party=codes.get(leg.party_id, str(leg.party_id)),
        wallet_id=leg.wallet_id,
        currency=pin.currency,
        rate=RateUsed(pin.card, pin.version, pin.row_id, pin.prefix, pin.destination, pin.tariff),
        price=worked,
        rounding=describe_rounding(pin.tariff),
        hold=_hold(session, leg, entries),
        charged=leg.charged,
        agrees=session.open
        or worked.amount == leg.charged == -sum((_effect(entry) for entry in entries), ZERO),
        entries=tuple(entries),
    )


def _effect(entry: StoredEntry) -> Decimal:
    return wallet_effect(Code(entry.code), entry.amount)


def _hold(session: Session, leg: Leg, entries: Iterable[StoredEntry]) -> HoldLine:
    """What was held is always the price of what was granted, so it need not be stored twice."""
    sums = dict.fromkeys(Code, ZERO)
    for entry in entries:
        sums[Code(entry.code)] += entry.amount
    taken = ZERO
    if session.open:
        taken = leg.held
    elif session.ending is not Ending.REFUSED:
        taken = price(leg.pin.tariff, session.granted_seconds)
    settled = sums[Code.USAGE]
    return HoldLine(
        taken=taken,
        settled=settled,
        released=ZERO if session.open else taken - settled,
        still_held=leg.held,
        overrun=sums[Code.OVERRUN],
        late=sums[Code.LATE],
        corrected=sums[Code.CORRECTION],
    )


def describe_rounding(tariff: Tariff) -> str:
    """How the exact price becomes the amount: once, with the card's mode and decimals."""
    return f"{_ROUNDINGS[tariff.rounding]}, to {tariff.decimals} decimals ({tariff.rounding.value})"


def _story(session: Session) -> str:
    """How it went, in a sentence."""
    if session.ending is Ending.REFUSED:
        return f"Refused: {session.reason.value.replace('_', ' ')}. Nothing was held or charged."
    granted = f"{session.granted_seconds} s were granted in all"
    if session.open:
        state = "answered" if session.answered_at else "authorised, not answered yet"
        kill = f" The switch was asked to end it ({session.kill})." if session.kill else ""
        return f"Still open: {state}; {granted}.{kill}"
    used = f"{Decimal(session.used_ms) / 1000} s"
    if session.ending is Ending.EXPIRED:
        tail = f"; {session.assumed_ms // 1000} s were assumed" if session.assumed_ms else ""
        return f"Expired: the switch went silent after reporting {used}{tail}; {granted}."
    if session.ending is Ending.RELEASED:
        return f"Released: the call ended without use; {granted} and given back."
    return f"Settled after {used} of use; {granted}."


async def party_codes(database: Database, sessions: Sequence[Session]) -> dict[int, str]:
    """The codes of all parties that have a share in these sessions, by their ids."""
    ids = {s.party_id for s in sessions} | {leg.party_id for s in sessions for leg in s.legs}
    if not ids:
        return {}
    async with database.read() as connection:
        return await read_party_codes(connection, ids)
