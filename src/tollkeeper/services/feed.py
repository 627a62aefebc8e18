"""Events: what is told to webhooks and streams, and how much of it each listener may see.

An event is stored once with what all may see together. What a listener gets is cut from it here: legs of
parties that it must not know of are left out, and an event of which nothing is left is not told at all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import msgspec
import structlog

from tollkeeper.core.money import plain
from tollkeeper.core.records import Session
from tollkeeper.store import feed as store
from tollkeeper.store import webhooks
from tollkeeper.store.db import Connection, Database
from tollkeeper.store.feed import FeedEvent, Happening, NewEvent

KINDS = (
    "session.ended",
    "session.kill",
    "session.expired",
    "session.overrun",
    "session.late",
    "wallet.alert",
    "wallet.topup",
)
"""All kinds of events, in the order in which they are shown."""
SWITCH_KINDS = frozenset(("session.kill", "wallet.topup"))
"""What a switch is told of: what it has to act on."""
QUIET_KINDS = frozenset(("session.ended", "session.kill", "wallet.topup"))
"""They are the usual; the others are warnings in the log, too."""
BATCH = 200
LEGS_MAX = 16
CALLS_MAX = 1000
"""Live calls named in the event of a top-up, in all."""
SESSION_DAYS = timedelta(days=3)
_encode = msgspec.json.Encoder().encode
_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Listener:
    """Who listens. ``below`` tells whether a party is the listener's own or stands below it.

    With a ``switch`` it is one that only charges: it is told what concerns its calls, and no money.
    """

    below: Callable[[int], bool]
    operator: bool = False
    switch: str | None = None


def envelope(kind: str, number: int, at: datetime, data: Mapping[str, object]) -> dict[str, object]:
    """An event as it is told: Standard Webhooks' type, timestamp and data, and the event's id."""
    stamp = at.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    return {"type": kind, "id": message_id(number), "timestamp": stamp, "data": dict(data)}


def message_id(number: int) -> str:
    """The id by which a listener knows an event again; a test's number is below zero."""
    return f"evt_{number}" if number >= 0 else f"test_{-number}"


def shown(event: FeedEvent, to: Listener) -> bytes | None:
    """An event as JSON for a listener; None where it is none of its business."""
    data = _data(event, to)
    return None if data is None else _encode(envelope(event.kind, event.id, event.at, data))


def _data(event: FeedEvent, to: Listener) -> dict[str, object] | None:
    if not to.operator and (event.party_id is None or not to.below(event.party_id)):
        return None
    payload = event.payload
    if to.switch is not None:
        return _for_switch(event, to.switch)
    if event.kind == "wallet.topup":
        return {name: value for name, value in payload.items() if name != "calls"}
    if "legs" not in payload:
        return dict(payload)
    legs = [leg for leg in payload["legs"] if to.operator or to.below(leg["party_id"])]
    if event.kind == "session.overrun":
        legs = [leg for leg in legs if "overrun" in leg]
        if not legs:
            return None
    told = [{name: leg[name] for name in leg if name != "party_id"} for leg in legs]
    return {**payload, "legs": told}


def _for_switch(event: FeedEvent, switch: str) -> dict[str, object] | None:
    payload = event.payload
    if event.kind == "session.kill" and event.switch == switch:
        return dict(payload)
    calls = payload.get("calls", {}).get(switch) if event.kind == "wallet.topup" else None
    if calls:
        return {"party": payload["party"], "session_ids": calls}
    return None


# --- making events -------------------------------------------------------------------------------


class Feeder:
    """Makes events of what the outbox holds; in any number of processes, one of which does it at a time."""

    def __init__(self, database: Database, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._clock = clock

    async def feed(self) -> bool:
        """Make events of the oldest rows, with a delivery for each webhook; True if there may be more.

        All of it is one transaction: what is lost with a process that dies comes again whole.
        """
        async with self._database.read() as connection:
            if not await store.is_waiting(connection):
                return False
        async with self._database.write() as connection:
            if not await store.become_feeder(connection):
                return False
            taken = await _take(connection)
            events = await _events_of(connection, [one for one in taken if one.kind in KINDS])
            numbers = await store.add_events(connection, events)
            stored = [
                FeedEvent(number, e.at, e.kind, e.party_id, e.switch, e.session_id, e.payload)
                for number, e in zip(numbers, events, strict=True)
            ]
            now = self._clock()
            await _address(connection, stored, now)
            await store.mark_fed(connection, [one.id for one in taken], now)
            if stored:
                await store.wake_streams(connection, stored[-1].id)
        for one in taken:
            if one.kind not in QUIET_KINDS:
                _log.warning(
                    one.kind, session=one.session_id, detail=one.detail, key=one.payload.get("key")
                )
        return len(taken) >= BATCH


async def _take(connection: Connection) -> list[Happening]:
    """The oldest rows; those of one call that went over its hold on several legs stay together."""
    taken = more = await store.take_happenings(connection, BATCH)
    while len(taken) >= BATCH and more and more[-1].kind == "session.overrun":
        more = await store.take_happenings(connection, LEGS_MAX)
        taken = [*taken, *more]
    return taken


async def _address(connection: Connection, events: list[FeedEvent], now: datetime) -> None:
    """A delivery for each webhook that wants an event and may see it."""
    listeners = await webhooks.read_listeners(connection)
    wanted = [(e, hook) for e in events for hook in listeners if e.kind in hook.events]
    if not wanted:
        return
    parties = {e.party_id for e, _ in wanted if e.party_id is not None}
    parties |= {leg["party_id"] for e, _ in wanted for leg in e.payload.get("legs", ())}
    above = await store.read_above(connection, parties)
    deliveries = []
    for event, hook in wanted:
        body = shown(event, _listener(hook.party_id, above))
        if body is not None:
            one = webhooks.NewDelivery(hook.id, event.id, event.kind, body.decode())
            deliveries.append(one)
    await webhooks.add_deliveries(connection, deliveries, now)


def _listener(party_id: int | None, above: Mapping[int, set[int]]) -> Listener:
    if party_id is None:
        return Listener(below=lambda _id: True, operator=True)
    return Listener(below=lambda id_: party_id in above.get(id_, ()))


async def _events_of(connection: Connection, taken: Iterable[Happening]) -> list[NewEvent]:
    """Events for these rows, with what they tell of a session or a party read from where it stands."""
    # A call that went over its hold on several legs is one event.
    rows = list({_identity(one): one for one in taken}.values())
    calls = {one.session_id: str(one.payload["key"]) for one in rows if one.session_id is not None}
    sessions, overruns, codes = await _sessions(connection, rows, calls)
    paid = {int(one.payload["party_id"]) for one in rows if one.kind == "wallet.topup"}
    waiting = await store.read_calls_below(connection, paid, CALLS_MAX) if paid else {}
    alerted = [str(one.payload["party"]) for one in rows if one.kind == "wallet.alert"]
    ids = {}
    if alerted:
        found = await store.read_codes(connection, codes=alerted)
        ids = {code: id_ for id_, code in found.items()}
    events = []
    for one in rows:
        payload = dict(one.payload)
        if one.session_id is not None:
            session = sessions.get(one.session_id)
            if session is not None:
                more = overruns.get(session.id, {}) if one.kind == "session.overrun" else {}
                events.append(_of_session(one, session, codes, more))
            continue
        payload.pop("key", None)
        party_id = payload.pop("party_id", None)
        if one.kind == "wallet.alert":
            payload["text"] = one.detail
            party_id = ids.get(payload.get("party", ""))
        else:
            payload["calls"] = _by_switch(waiting.get(int(party_id or 0), []))
        events.append(NewEvent(one.at, one.kind, party_id, "", None, payload))
    return events


def _identity(one: Happening) -> tuple[object, ...]:
    return (one.kind, one.session_id, one.at if one.session_id is not None else one.id)


async def _sessions(
    connection: Connection, rows: list[Happening], calls: dict[str, str]
) -> tuple[dict[str, Session], dict[str, dict[int, Decimal]], dict[int, str]]:
    if not calls:
        return {}, {}, {}
    first = min(one.at for one in rows)
    sessions = await store.read_sessions(connection, calls, (first - SESSION_DAYS).date())
    overruns: dict[str, dict[int, Decimal]] = {}
    over = [one.session_id for one in rows if one.session_id and one.kind == "session.overrun"]
    for session_id, party_id, amount in await store.read_overruns(connection, over) if over else ():
        overruns.setdefault(session_id, {})[party_id] = amount
    parties = {s.party_id for s in sessions.values()}
    parties |= {leg.party_id for s in sessions.values() for leg in s.legs}
    return sessions, overruns, await store.read_codes(connection, ids=parties)


def _of_session(
    one: Happening, session: Session, codes: Mapping[int, str], overruns: Mapping[int, Decimal]
) -> NewEvent:
    switch, _, session_id = session.key.partition("/")
    payload: dict[str, Any] = {
        "session_id": session_id,
        "id": session.id,
        "switch": switch,
        "party": codes.get(session.party_id, ""),
    }
    if one.kind == "session.kill":
        # What the switch is to do, and no more: it may be told before the call has ended.
        payload["reason"] = one.detail
    else:
        payload |= _ended(session)
        payload["legs"] = [
            {
                "party_id": leg.party_id,
                "party": codes.get(leg.party_id, ""),
                "currency": leg.pin.currency,
                "charge": plain(leg.charged),
            }
            | ({"overrun": plain(overruns[leg.party_id])} if leg.party_id in overruns else {})
            for leg in session.legs
        ]
    return NewEvent(one.at, one.kind, session.party_id, switch, session.id, payload)


def _ended(session: Session) -> dict[str, Any]:
    return {
        "service": session.service,
        "caller": session.caller,
        "called": session.called,
        "ending": session.ending.value,
        "reason": session.reason.value,
        "cause": session.cause,
        "opened_at": _time(session.opened_at),
        "answered_at": _time(session.answered_at),
        "closed_at": _time(session.closed_at),
        "unit": session.unit.value,
        "used_ms": session.used_ms,
        "assumed_ms": session.assumed_ms,
    }


def _time(moment: datetime | None) -> str | None:
    return None if moment is None else moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _by_switch(keys: Iterable[str]) -> dict[str, list[str]]:
    calls: dict[str, list[str]] = {}
    for key in keys:
        switch, _, session_id = key.partition("/")
        calls.setdefault(switch, []).append(session_id)
    return calls
