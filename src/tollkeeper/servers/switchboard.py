"""The switchboard: what protocols say, as commands of the charging core, and its decisions back.

Every protocol in the call path comes by here. It finds out whose call it is, keeps the messages of a
call in their order, tells a call that uses an old id from a repeated message, applies the peer's policy
while nothing can be charged, and counts. It raises nothing that a protocol would have to understand:
whatever stands against a call is a verdict with a reason.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Protocol

import structlog

from tollkeeper.core.numbering import DialRules
from tollkeeper.core.reasons import Reason
from tollkeeper.core.records import Ending, Outcome, Reply, Session
from tollkeeper.errors import Busy, Conflict, InvalidInput, NotFound, TollkeeperError
from tollkeeper.servers.asks import Ask, Verdict, call_id_of, refused, switch_id_of, verdict_of
from tollkeeper.servers.ends import Ends
from tollkeeper.servers.ids import AGAIN, REMEMBERED_MAX, REUSES_MAX, CallIds, again, number_of
from tollkeeper.servers.risk import RiskCall, Risks
from tollkeeper.servers.turns import Turns
from tollkeeper.services.charging import Charging
from tollkeeper.services.directory import Directory
from tollkeeper.services.handles import Handles
from tollkeeper.services.tasks import end
from tollkeeper.store.db import Database
from tollkeeper.store.peers import Peer, read_open
from tollkeeper.telemetry import PeerMeter

REUSE_AFTER = timedelta(seconds=30)
"""An id whose session closed so long ago names a new call; sooner, it is the same request again."""
RESTART = "switch_restart"
"""Why a session ended whose switch began anew."""
RISK_LOOK_SECONDS = 2.0
"""Calls that were let through unpaid are charged so soon after that can be done again."""
EARLY_SECONDS = 60.0
"""A stop that came before its authorisation is remembered so long."""
_log = structlog.get_logger()
__all__ = ["AGAIN", "RESTART", "Switchboard"]


class CarryOut(Protocol):
    """Carries a message out on one session; the answer, and whether it is a stored one."""

    async def __call__(self, id_: str, *, only_open: bool) -> tuple[Reply, bool]:
        """``only_open``: raises Conflict ``session_closed`` for one that has closed."""


class Switchboard(Ends):
    """One in each process, used by all its protocols."""

    def __init__(
        self,
        *,
        charging: Charging,
        directory: Directory,
        database: Database,
        clock: Callable[[], datetime],
    ) -> None:
        super().__init__(directory, charging, CallIds(database, clock))
        self.database = database
        self.clock = clock
        self.handles = Handles(database)
        self.risks = Risks()
        self._turns = Turns()
        self._early: dict[str, tuple[float, int]] = {}
        self._at_risk: dict[str, RiskCall] = {}
        self._sweeper: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin: know again which calls that are up use an id for the second time."""
        self.handles.start()
        await self._ids.load()
        self._sweeper = asyncio.create_task(self._sweep(), name="calls at risk")

    async def stop(self) -> None:
        """End; what is still to be written is."""
        if self._sweeper is not None:
            await end([self._sweeper])
            self._sweeper = None
        await self.handles.stop()

    # --- a call ----------------------------------------------------------------------------------

    async def authorise(self, peer: Peer, ask: Ask) -> Verdict:
        """May the call proceed, and for how long? Asked again, it is answered the same."""
        return await self._measured(
            peer, "authorise", ask.call_id, lambda: self._authorise(peer, ask)
        )

    def latest(self, peer: Peer, call_id: str) -> str:
        """The id under which a call is kept: its own, or marked where its switch used that id before."""
        return self._id_of(peer, call_id)

    async def answered(self, peer: Peer, call_id: str, *, exact: bool = False) -> Verdict:
        """The call was answered. ``exact``, here and below: the id is a session's, not the switch's."""

        async def carry_out(id_: str, *, only_open: bool) -> tuple[Reply, bool]:
            return await self.charging.start(
                switch=peer.switch, session_id=id_, only_open=only_open
            )

        return await self._message(peer, "start", call_id, carry_out, exact=exact)

    async def interim(
        self,
        peer: Peer,
        call_id: str,
        used_ms: int,
        *,
        request_id: str = "",
        extend: bool = True,
        wraps_at: int = 0,
        exact: bool = False,
    ) -> Verdict:
        """Cumulative usage so far (thousandths of the unit) and a wish for more."""

        async def carry_out(id_: str, *, only_open: bool) -> tuple[Reply, bool]:
            return await self.charging.update(
                switch=peer.switch,
                session_id=id_,
                used_ms=used_ms,
                request_id=request_id,
                extend=extend,
                wraps_at=wraps_at,
                only_open=only_open,
            )

        return await self._message(peer, "update", call_id, carry_out, exact=exact)

    async def stop_call(
        self,
        peer: Peer,
        call_id: str,
        used_ms: int,
        *,
        request_id: str = "",
        cause: str = "",
        wraps_at: int = 0,
        exact: bool = False,
    ) -> Verdict:
        """The call has ended with this cumulative usage (thousandths of the unit; 0: never answered)."""

        async def carry_out(id_: str, *, only_open: bool) -> tuple[Reply, bool]:
            try:
                return await self.charging.stop(
                    switch=peer.switch,
                    session_id=id_,
                    used_ms=used_ms,
                    request_id=request_id,
                    cause=cause,
                    wraps_at=wraps_at,
                    only_open=only_open,
                )
            except NotFound:
                self._came_early(f"{peer.switch}/{id_}", used_ms)
                raise

        verdict = await self._message(peer, "stop", call_id, carry_out, exact=exact)
        if not verdict.busy:
            self.handles.forget(f"{peer.switch}/{verdict.call_id}")
        return verdict

    def _came_early(self, key: str, used_ms: int) -> None:
        """A stop of a call that nobody has asked for; it may have overtaken its authorisation."""
        while len(self._early) >= REMEMBERED_MAX:
            self._early.pop(next(iter(self._early)))
        self._early[key] = (time.monotonic() + EARLY_SECONDS, used_ms)

    async def charge(
        self, peer: Peer, ask: Ask, *, units: int | None = None, segments: int | None = None
    ) -> Verdict:
        """Charge a one-shot use (a message, a lookup) at once, before it is done; ``granted`` are its units.

        ``ask.service`` says what; ``ask.call_id`` names the event: asked again, it is not charged again.
        """

        async def decide() -> Verdict:
            party, rules = self.whose(peer, ask)
            id_ = call_id_of(ask.call_id)
            if not party:
                return refused(id_, Reason.UNKNOWN_CUSTOMER)
            try:
                reply, repeated = await self.charging.charge_event(
                    switch=peer.switch,
                    event_id=id_,
                    party=party,
                    called=ask.called,
                    service=ask.service,
                    units=units,
                    segments=segments,
                    caller=ask.caller,
                    lrn=ask.lrn,
                    network=ask.network,
                    rules=rules,
                )
            except Busy:
                return refused(id_, Reason.BUSY)
            except Conflict:
                return refused(id_, Reason.ID_REUSED)
            except NotFound:
                return refused(id_, Reason.UNKNOWN_CUSTOMER)
            except InvalidInput:
                return refused(id_, Reason.INVALID_NUMBER)
            return replace(verdict_of(id_, reply, repeated=repeated), party=party)

        return await self._measured(peer, "charge", ask.call_id, decide)

    async def give_back(self, peer: Peer, event_id: str, *, why: str = "failed") -> bool:
        """Give back all of an event's charge, once; "undelivered": where the plans say so. False: try again.

        A refund that is refused (by the plan, or because it was refused itself) is done with.
        """
        try:
            await self.charging.refund(switch=peer.switch, event_id=call_id_of(event_id), why=why)
        except Busy:
            return False
        except TollkeeperError as error:
            _log.info("refund.refused", peer=peer.code, event_id=event_id, why=error.detail)
        return True

    async def restarted(self, peer: Peer, *, cause: str = RESTART) -> int:
        """The switch says it began anew: its open calls end at their last reported usage; how many.

        Asked again after a failure, it goes on with those that are left.
        """
        closed, began = 0, self.clock()
        for session in await self.open_calls(peer):
            if session.opened_at > began:
                continue  # it began after the switch did
            call_id = session.key.partition("/")[2]
            verdict = await self.stop_call(peer, call_id, session.used_ms, cause=cause, exact=True)
            closed += not verdict.busy
        if closed:
            _log.warning("switch.restarted", peer=peer.code, calls_closed=closed)
        return closed

    async def open_calls(self, peer: Peer) -> list[Session]:
        """All open sessions of the peer's switch."""
        found: list[Session] = []
        async with self.database.read() as connection:
            while page := await read_open(
                connection, peer.switch, after=found[-1].key if found else ""
            ):
                found += page
        self._ids.note_sessions(found)
        return found

    async def open_call(self, peer: Peer, call_id: str) -> Session | None:
        """The open session that a switch's id stands for now; None where there is none.

        Raises:
            Busy: the database cannot be asked.
        """
        newest = await self._ids.newest(peer.switch, self._id_of(peer, call_id))
        if newest is None or not newest.open:
            return None
        try:
            session = await self.charging.session(newest.key)
        except NotFound:
            return None
        return session if session.open else None

    async def _authorise(self, peer: Peer, ask: Ask) -> Verdict:
        party, rules = self.whose(peer, ask)
        if not party:
            return refused(ask.call_id, Reason.UNKNOWN_CUSTOMER)
        try:
            return await self._open(peer, ask, party, rules)
        except Busy:
            return refused(ask.call_id, Reason.BUSY)

    async def _open(self, peer: Peer, ask: Ask, party: str, rules: DialRules | None) -> Verdict:
        plain = call_id_of(ask.call_id)
        call_id = self._id_of(peer, plain)
        for _ in range(REUSES_MAX):
            verdict = await self._try(peer, replace(ask, call_id=call_id), party, rules)
            old = verdict.reason is Reason.ID_REUSED or (
                verdict.repeated and not verdict.on_risk and verdict.reply is not None
            )
            if not old or ask.unique or not await self._is_over(peer, call_id, fresh=ask.fresh):
                return verdict
            # The switch counts its calls from the beginning again (RFC 2866 section 5.5).
            newest = await self._ids.newest(peer.switch, call_id)
            if newest is not None and newest.session_id != call_id:
                call_id = newest.session_id
                continue
            if number_of(call_id) >= REUSES_MAX:
                break
            call_id = again(plain, number_of(call_id) + 1)
            self._ids.remember(peer.switch, call_id)
        return refused(ask.call_id, Reason.ID_REUSED)

    async def _try(self, peer: Peer, ask: Ask, party: str, rules: DialRules | None) -> Verdict:
        slice_ = ask.requested or peer.whole("slice") or None
        try:
            reply, repeated = await self.charging.authorise(
                switch=peer.switch,
                session_id=ask.call_id,
                party=party,
                called=ask.called,
                caller=ask.caller,
                service=ask.service,
                requested_seconds=slice_,
                start_expected=ask.start_expected,
                lrn=ask.lrn,
                network=ask.network,
                rules=rules,
            )
        except Busy:
            return self._on_risk(peer, ask, party, slice_, rules)
        except Conflict:
            return refused(ask.call_id, Reason.ID_REUSED)
        except NotFound:
            return refused(ask.call_id, Reason.UNKNOWN_CUSTOMER)
        except InvalidInput:
            return refused(ask.call_id, Reason.INVALID_NUMBER)
        key = f"{peer.switch}/{ask.call_id}"
        self._at_risk.pop(key, None)
        self.risks.charged(peer, ask.call_id)
        early = self._early.pop(key, None)
        if early is not None and early[0] > time.monotonic() and reply.outcome is Outcome.GRANTED:
            # It ended before it was allowed to begin: what was held goes back at once.
            try:
                await self.charging.stop(
                    switch=peer.switch, session_id=ask.call_id, used_ms=early[1], cause="early_stop"
                )
            except Busy:
                self._early[key] = early
                return refused(ask.call_id, Reason.BUSY)
            return replace(refused(ask.call_id, Reason.EXPIRED), party=party)
        number = self._plain_number(ask, party, rules)
        return replace(
            verdict_of(ask.call_id, reply, repeated=repeated), party=party, called=number
        )

    def _on_risk(
        self, peer: Peer, ask: Ask, party: str, wanted: int | None, rules: DialRules | None
    ) -> Verdict:
        seconds = self.risks.grant(peer, ask.call_id, wanted) if ask.service == "voice" else 0
        if not seconds:
            return refused(ask.call_id, Reason.BUSY)
        PeerMeter.of(peer.code, peer.kind).fault(
            "on_risk", "calls are let through although nothing can be charged"
        )
        self._at_risk[f"{peer.switch}/{ask.call_id}"] = RiskCall(peer, ask, party, rules)
        return Verdict(
            ask.call_id, Outcome.GRANTED, granted=seconds, final=True, on_risk=True, party=party,
            called=self._plain_number(ask, party, rules),
        )  # fmt: skip

    async def _message(
        self,
        peer: Peer,
        action: str,
        call_id: str,
        carry_out: CarryOut,
        *,
        exact: bool,
    ) -> Verdict:
        async def decide() -> Verdict:
            id_ = call_id if exact else self._id_of(peer, call_id)
            key = f"{peer.switch}/{id_}"
            if key in self._at_risk and not await self._charge_risk(key):
                return refused(id_, Reason.BUSY)
            try:
                if exact:
                    reply, repeated = await carry_out(id_, only_open=False)
                else:
                    id_, reply, repeated = await self._to_latest(peer, call_id, carry_out)
            except Busy:
                return refused(id_, Reason.BUSY)
            except NotFound:
                return refused(id_, Reason.UNKNOWN_SESSION)
            except TollkeeperError as error:
                meter = PeerMeter.of(peer.code, peer.kind)
                meter.fault("not_taken", f"{action} of {peer.switch}/{id_}: {error.detail}")
                return refused(id_, Reason.UNKNOWN_SESSION)
            return verdict_of(id_, reply, repeated=repeated)

        return await self._measured(peer, action, call_id, decide)

    async def _to_latest(
        self,
        peer: Peer,
        call_id: str,
        carry_out: CarryOut,
    ) -> tuple[str, Reply, bool]:
        """Carry a message out on the session that its id stands for now; the session's id, the answer.

        The one that this process knows of may have closed, and another process have opened a later
        one: usage of that is none of the closed one's. So the database is asked before it would be.
        """
        id_ = self._id_of(peer, call_id)
        answer: tuple[Reply, bool] | None = None
        try:
            answer = await carry_out(id_, only_open=True)
            if not answer[1]:
                return id_, *answer
        except Conflict as error:
            if error.code != "session_closed":
                raise
        newest = await self._ids.newest(peer.switch, id_)
        if newest is not None and newest.session_id != id_:
            return newest.session_id, *await carry_out(newest.session_id, only_open=False)
        return id_, *(answer or await carry_out(id_, only_open=False))

    async def _charge_risk(self, key: str) -> bool:
        """Authorise after the fact a call that was let through; False while that cannot be done yet."""
        call = self._at_risk[key]
        ask = replace(call.ask, call_id=switch_id_of(call.ask.call_id))
        verdict = await self._open(
            replace(call.peer, on_failure="refuse"), ask, call.party, call.rules
        )
        if verdict.busy:
            return False
        self._at_risk.pop(key, None)
        self.risks.charged(call.peer, call.ask.call_id)
        if verdict.outcome is Outcome.REFUSED:
            _log.error(
                "risk.unpaid", peer=call.peer.code, session=key, reason=verdict.reason.value
            )  # its record, when it comes, is charged as any other
        return True

    async def charge_risks(self) -> None:
        """Authorise what was let through, as far as that can be done: for some no message ever comes."""
        for key, call in list(self._at_risk.items()):
            async with self._turns.of(_turn(call.peer.switch, call.ask.call_id)):
                try:
                    if key in self._at_risk and not await self._charge_risk(key):
                        return
                except Busy:
                    return

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(RISK_LOOK_SECONDS)
            try:
                await self.charge_risks()
            except Exception:  # noqa: BLE001 - it would be missed by nobody until the next outage
                _log.exception("risk.not_charged")

    async def _measured(
        self, peer: Peer, action: str, call_id: str, decide: Callable[[], Awaitable[Verdict]]
    ) -> Verdict:
        began = time.perf_counter()
        async with self._turns.of(_turn(peer.switch, call_id)):
            verdict = await decide()
        meter = PeerMeter.of(peer.code, peer.kind)
        outcome = "repeated" if verdict.repeated else verdict.outcome.value
        if verdict.outcome is Outcome.REFUSED:
            meter.refusal(verdict.reason.value)
        meter.request(action, "busy" if verdict.busy else outcome, time.perf_counter() - began)
        return verdict

    def _id_of(self, peer: Peer, call_id: str) -> str:
        return self._ids.of(peer.switch, call_id)

    async def _is_over(self, peer: Peer, call_id: str, *, fresh: bool) -> bool:
        """Tell whether the session of this id closed so long ago that the id names another call now.

        At once where its switch restarted, or where the message is ``fresh``; a refusal stays one.
        """
        try:
            session = await self.charging.session(f"{peer.switch}/{call_id}")
        except NotFound:
            return False
        if session.closed_at is None:
            return False
        if session.ending is not Ending.REFUSED and (fresh or session.cause == RESTART):
            return True
        return session.closed_at < self.clock() - REUSE_AFTER


def _turn(switch: str, call_id: str) -> str:
    """Whose turn it is: that of all messages of one id at a switch."""
    return f"{switch}/{switch_id_of(call_id.strip())}"
