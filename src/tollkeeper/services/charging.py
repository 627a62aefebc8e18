"""The charging use cases: authorise, start, update, stop, kill, one-shot events, refunds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial

import msgspec

from tollkeeper.core.numbering import DialRules
from tollkeeper.core.rating import SECONDS_MAX, UNITS_MAX
from tollkeeper.core.reasons import Reason
from tollkeeper.core.records import (
    Authorise,
    Charge,
    Ending,
    Kill,
    Outcome,
    Refund,
    Reply,
    Session,
    Start,
    Stop,
    Unit,
    Update,
)
from tollkeeper.core.services import service_of
from tollkeeper.errors import Forbidden, InvalidInput, NotFound
from tollkeeper.services.directory import Directory
from tollkeeper.services.lane import Lane
from tollkeeper.services.meters import Meters
from tollkeeper.services.offers import Fixed, Found, Offers, prorated_legs
from tollkeeper.services.quotes import Quote, make_quote
from tollkeeper.services.refunds import UNDELIVERED, check_undelivered
from tollkeeper.services.scope import shown_pin
from tollkeeper.services.uses import Use, event_request, question_of, units_of
from tollkeeper.store.db import Database
from tollkeeper.store.directory import PartyEntry
from tollkeeper.store.sessions import read_live, read_session
from tollkeeper.telemetry import count_refusal

USED_MS_MAX = SECONDS_MAX * 1000
WRAP_32 = 2**32 * 1000
"""Where a counter of 32 bits begins again, in thousandths of its unit."""
KEY_AGE = timedelta(days=1)
"""Of older charges only the store knows: the lane takes their keys for free ones."""
_encode = msgspec.json.Encoder().encode


class Charging:
    """The use cases of a session or event, for every protocol.

    Where a ``scope`` is given, whoever asks is bounded to that party: only it and those below it are
    charged or shown.
    """

    def __init__(
        self, lane: Lane, directory: Directory, database: Database, clock: Callable[[], datetime]
    ) -> None:
        self._lane = lane
        self._directory = directory
        self._database = database
        self._clock = clock
        self._offers = Offers(directory, Meters(database))

    # --- sessions --------------------------------------------------------------------------------

    async def authorise(
        self,
        *,
        switch: str,
        session_id: str,
        party: str,
        called: str,
        caller: str = "",
        service: str = "voice",
        requested_seconds: int | None = None,
        start_expected: bool | None = None,
        lrn: str = "",
        network: str = "",
        scope: int | None = None,
        rules: DialRules | None = None,
    ) -> tuple[Reply, bool]:
        """Decide whether a session may proceed and hold the money for its first slice.

        ``requested_seconds`` are units of the service (bytes of data), 300 seconds or 10,000,000 bytes if
        left out. ``start_expected`` False: usage begins at once, as it does for all but calls. ``rules`` tell
        how the number is written where that is not the party's way (its trunk's).
        Returns the answer and whether it is a stored one. A refusal is an answer, not an error.

        Raises:
            NotFound: unknown party. InvalidInput: a number that cannot be called.
            Conflict: the id was authorised before with other content. Busy: overload.
        """
        entry = self.party(party, scope)
        sold = service_of(service)
        question = question_of(
            entry, Use(party, called, service, caller, lrn, network), rules=rules
        )
        slice_ = sold.slice if requested_seconds is None else requested_seconds
        starts = sold.unit is Unit.SECOND if start_expected is None else start_expected
        found = await self._offers.offers(entry, question, self._clock())
        command = Authorise(
            key=f"{switch}/{session_id}",
            party_id=entry.id,
            called=question.called,
            caller=caller,
            service=service,
            requested_seconds=slice_,
            offers=found.offers,
            refusal=found.refusal,
            start_expected=starts,
            unit=sold.unit,
            refused_by=found.refused_by,
            counts=found.counts,
        )
        request = {
            "type": "authorise",
            "party": party,
            "called": called,
            "caller": caller,
            "service": service,
            "requested_seconds": slice_,
            "start_expected": starts,
        }
        if lrn:
            request["lrn"] = lrn
        if network:
            request["network"] = network
        reply, repeated = await self._lane.submit(command, "authorise", _encode(request))
        if reply.outcome is Outcome.REFUSED and not repeated:
            count_refusal(reply.reason.value)
        return reply, repeated

    def party(self, code: str, scope: int | None) -> PartyEntry:
        """Return a party that the caller may charge; another one does not exist for it.

        Raises:
            NotFound: there is none.
        """
        entry = self._directory.party(code)
        if scope is not None and not self._offers.sees(scope, entry.id):
            raise NotFound(f'there is no party "{code}"', code="unknown_party", field="party")
        return entry

    async def start(
        self, *, switch: str, session_id: str, only_open: bool = False, scope: int | None = None
    ) -> tuple[Reply, bool]:
        """Note that the call was answered.

        ``only_open``, here and below: a session that has closed is left as it is (Conflict
        ``session_closed``), for its id may have been given to another one meanwhile.
        """
        key = await self._own(f"{switch}/{session_id}", scope)
        return await self._lane.submit(Start(key, only_open), "start", b'{"type":"start"}')

    async def update(
        self,
        *,
        switch: str,
        session_id: str,
        used_ms: int,
        request_id: str = "",
        extend: bool = True,
        wraps_at: int = 0,
        only_open: bool = False,
        scope: int | None = None,
    ) -> tuple[Reply, bool]:
        """Report cumulative usage (thousandths of the unit) and ask for more.

        Without ``request_id`` the usage itself names the message: the same usage again is a repeat
        and gets the stored answer. ``wraps_at`` is where the reporter's counter begins again.
        """
        _check_usage(used_ms)
        key = await self._own(f"{switch}/{session_id}", scope)
        message_id = f"update:{request_id}" if request_id else f"update={used_ms}:{int(extend)}"
        request = {"type": "update", "used_ms": used_ms, "extend": extend}
        if wraps_at:
            request["wraps_at"] = wraps_at
        command = Update(key, used_ms, extend, wraps_at, only_open)
        return await self._lane.submit(command, message_id, _encode(request))

    async def stop(
        self,
        *,
        switch: str,
        session_id: str,
        used_ms: int,
        request_id: str = "",
        cause: str = "",
        wraps_at: int = 0,
        only_open: bool = False,
        scope: int | None = None,
    ) -> tuple[Reply, bool]:
        """Settle the session at its final cumulative usage and release what was not used."""
        _check_usage(used_ms)
        key = await self._own(f"{switch}/{session_id}", scope)
        message_id = f"stop:{request_id}" if request_id else f"stop={used_ms}:{cause}"
        request = {"type": "stop", "used_ms": used_ms, "cause": cause}
        if wraps_at:
            request["wraps_at"] = wraps_at
        command = Stop(key, used_ms, cause, wraps_at, only_open)
        return await self._lane.submit(command, message_id, _encode(request))

    async def kill(
        self, *, switch: str, session_id: str, why: str, scope: int | None = None
    ) -> tuple[Reply, bool]:
        """Ask for the end of a live session; its switch is told through the outbox."""
        key = await self._own(f"{switch}/{session_id}", scope)
        request = _encode({"type": "kill", "why": why})
        return await self._lane.submit(Kill(key, why), f"kill={why}", request)

    async def _own(self, key: str, scope: int | None) -> str:
        """The key of a session that the caller may touch: the operator any, others their own parties'."""
        if scope is not None:
            await self.session(key, scope=scope)
        return key

    # --- events ----------------------------------------------------------------------------------

    async def charge_event(
        self,
        *,
        switch: str,
        event_id: str,
        party: str,
        called: str,
        service: str = "sms",
        units: int | None = None,
        segments: int | None = None,
        text: str | None = None,
        caller: str = "",
        lrn: str = "",
        network: str = "",
        fixed: Fixed | None = None,
        share: tuple[int, int] | None = None,
        once: bool = False,
        scope: int | None = None,
        rules: DialRules | None = None,
    ) -> tuple[Reply, bool]:
        """Charge a one-shot use at once, all of its units or none: a message, a lookup, a fee.

        A message's segments are given, or counted from its ``text``, which is not kept. ``fixed`` is a price
        of its own in the place of the plan's; of either only the ``share`` is due, such as (15, 30) days.
        ``once``: an id used before, however long ago, gets its stored answer; else for a day.

        Raises:
            NotFound: unknown party. InvalidInput: a number that cannot be called, no or too many units.
            Conflict: the id was used before with other content. Busy: overload.
        """
        entry = self.party(party, scope)
        sold = service_of(service)
        number = units_of(sold, units, segments, text)
        key = f"{switch}/{event_id}"
        if once and (stored := await self._stored(key)) is not None:
            return stored, True
        use = Use(party, called, service, caller, lrn, network)
        question = question_of(entry, use, fixed, rules=rules)
        now = self._clock()
        if fixed is None:
            found = await self._offers.offers(entry, question, now)
        else:
            found = self._offers.fixed(entry, fixed, now)
        if share is not None:
            found = prorated_legs(found, *share)
        command = Charge(
            key=key,
            party_id=entry.id,
            called=question.called,
            units=number,
            caller=caller,
            service=service,
            unit=sold.unit,
            offers=found.offers,
            refusal=found.refusal,
            refused_by=found.refused_by,
        )
        reply, repeated = await self._lane.submit(
            command, "charge", event_request(use, number, text, fixed, share)
        )
        if reply.outcome is Outcome.REFUSED and not repeated:
            count_refusal(reply.reason.value)
        return reply, repeated

    async def _stored(self, key: str) -> Reply | None:
        """What a charge of long ago was answered; the lane knows the later ones itself."""
        async with self._database.read() as connection:
            found = await read_session(connection, key)
        if found is None or found.opened_at.date() >= (self._clock() - KEY_AGE).date():
            return None
        refused = found.ending is Ending.REFUSED
        return Reply(
            outcome=Outcome.REFUSED if refused else Outcome.CHARGED,
            id=found.id,
            granted_seconds=found.granted_seconds,
            reason=found.reason,
            currency=found.legs[0].pin.currency if found.legs else "",
            used_ms=found.used_ms,
            charge=found.legs[0].charged if found.legs and not refused else None,
            refused_by=found.refused_by,
            unit=found.unit,
        )

    async def refund(
        self,
        *,
        switch: str,
        event_id: str,
        units: int | None = None,
        why: str = "",
        scope: int | None = None,
    ) -> tuple[Reply, bool]:
        """Give back what was charged for ``units`` in all (None: everything), at every level.

        The number is counted from the event on: asked again with the same, nothing more is given back.
        For what was ``undelivered`` the plans decide.

        Raises:
            NotFound: no such event. Conflict: it is not closed, was refused, or a plan stands against it.
        """
        key = f"{switch}/{event_id}"
        if why == UNDELIVERED:
            found, sees = await self.session(key, scope=scope), partial(self._offers.sees, scope)
            check_undelivered(found, units, self._directory, sees, self._clock())
        else:
            await self._own(key, scope)
        message_id = f"refund={'all' if units is None else units}"
        request = _encode({"type": "refund", "units": units})
        return await self._lane.submit(Refund(key, units, why), message_id, request)

    # --- asking ----------------------------------------------------------------------------------

    async def quote(self, use: Use, *, units: int | None = None, scope: int | None = None) -> Quote:
        """Price a use and tell how long the available money would last; 60 seconds or one unit if left out.

        The payer's price is told; what it costs the levels above only bounds how long it may last.

        Raises:
            NotFound: unknown party, or nothing is sold to this number (code = the reason).
            Forbidden: somebody above the asker pays. InvalidInput: a number that cannot be called, or units out of range.
        """
        entry = self.party(use.party, scope)
        unit = service_of(use.service).unit
        most = 86_400 if unit is Unit.SECOND else UNITS_MAX
        number = units if units is not None else 60 if unit is Unit.SECOND else 1
        if not 1 <= number <= most:
            name = "seconds" if unit is Unit.SECOND else "units"
            raise InvalidInput(f"{name} must be from 1 to {most}", field=name)
        question = question_of(entry, use)
        found = await self._offers.offers(entry, question, self._clock())
        payer = found.offers[0].party_id if found.offers else found.refused_by
        if found.refusal is Reason.NONE and not self._offers.sees(scope, payer):
            raise Forbidden(
                f"{entry.code} is not told what others pay for it", code="operator_only"
            )
        if found.refusal is not Reason.NONE:
            seen = self._offers.sees(scope, found.refused_by)
            code = (found.refusal if seen else Reason.UPSTREAM).value
            raise NotFound(f"no price for {question.called}: {code.replace('_', ' ')}", code=code)
        async with self._database.read() as connection:
            quote = await make_quote(
                connection,
                found.offers,
                called=question.called,
                unit=unit,
                units=number,
                caller=entry.id,
                limits={
                    id_: self._directory.limits_of(id_)
                    for id_ in (entry.id, *[offer.party_id for offer in found.offers])
                },
                now=self._clock(),
            )
        return replace(quote, pin=await shown_pin(self._database, quote.pin, scope))

    async def find_offers(self, use: Use, *, scope: int | None = None) -> Found:
        """Return the legs that a use would have now; see :meth:`Offers.offers`."""
        entry = self.party(use.party, scope)
        return await self._offers.offers(entry, question_of(entry, use), self._clock())

    def shown_reason(self, reply: Reply, scope: int | None) -> tuple[Reason, str | None]:
        """Return the reason of a reply as its asker may know it, and for the operator who refused.

        Where it was somebody above the asker, it is told no more than that.
        """
        if not reply.refused_by or reply.reason is Reason.NONE:
            return reply.reason, None
        if not self._offers.sees(scope, reply.refused_by):
            return Reason.UPSTREAM, None
        entry = self._directory.entry(reply.refused_by) if scope is None else None
        return reply.reason, entry.code if entry is not None else None

    def hides_money(self, scope: int | None) -> bool:
        """Tell whether what a use costs is none of the asker's business: a user's, who does not pay."""
        entry = self._directory.entry(scope) if scope is not None else None
        return entry is not None and entry.kind == "user"

    async def live_sessions(
        self,
        *,
        party: str | None = None,
        after: str = "",
        limit: int = 100,
        scope: int | None = None,
    ) -> list[Session]:
        """Open sessions in the order of their keys."""
        party_id = self.party(party, scope).id if party is not None else None
        async with self._database.read(scope=scope) as connection:
            return await read_live(connection, party_id=party_id, after=after, limit=limit)

    async def session(self, name: str, *, scope: int | None = None) -> Session:
        """One session, live or closed, by ``switch/session_id`` or id.

        Raises:
            NotFound: there is none.
        """
        async with self._database.read() as connection:
            found = await read_session(connection, name)
        if found is None or not self._offers.sees(scope, found.party_id):
            raise NotFound(f'there is no session "{name}"', code="unknown_session")
        return found


def _check_usage(used_ms: int) -> None:
    if not 0 <= used_ms <= UNITS_MAX * 1000:
        raise InvalidInput(
            f"the usage must be from 0 to {UNITS_MAX} units",
            code="invalid_usage",
            field="used_units",
        )
