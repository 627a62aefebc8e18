"""The switchboard: what protocols say, as commands of the charging core, and its decisions back.

Every protocol in the call path comes by here. It finds out whose call it is, keeps the messages of a
call in their order, tells a call that uses an old id from a repeated message, applies the peer's policy
while nothing can be charged, and counts. It raises nothing that a protocol would have to understand:
whatever stands against a call is a verdict with a reason.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import datetime, timedelta

import structlog

from tollkeeper.core.numbering import DialRules, normalise
from tollkeeper.core.reasons import Reason
from tollkeeper.core.records import Ending, Outcome, Reply, Session
from tollkeeper.core.trunks import Trace, rules_of
from tollkeeper.errors import Busy, Conflict, InvalidInput, NotFound, TollkeeperError
from tollkeeper.servers.asks import Ask, Verdict, call_id_of
from tollkeeper.servers.reach import Reach
from tollkeeper.servers.risk import Risks
from tollkeeper.servers.turns import Turns
from tollkeeper.services.charging import Charging
from tollkeeper.services.directory import Directory
from tollkeeper.services.handles import Handles
from tollkeeper.services.peer_book import PeerBook
from tollkeeper.store.db import Database
from tollkeeper.store.peers import Peer, read_again, read_open
from tollkeeper.telemetry import PeerMeter

REUSE_AFTER = timedelta(seconds=30)
"""An id whose session closed so long ago names a new call; sooner, it is the same request again."""
RESTART = "switch_restart"
"""Why a session ended whose switch began anew."""
REUSES_MAX = 1000
AGAIN = "~"
"""Between an id that was used before and how often it was: ``3F2A~2``."""
REMEMBERED_MAX = 50_000
EARLY_SECONDS = 60.0
"""A stop that came before its authorisation is remembered so long."""
ENDED_BY_PEER = ("radius", "freeswitch", "kamailio", "asterisk", "vos3000", "diameter")
"""Kinds of peers that are told by their own protocol to end a call; others have an HTTP address."""
_log = structlog.get_logger()


class Switchboard:
    """One in each process, used by all its protocols."""

    def __init__(
        self,
        *,
        charging: Charging,
        directory: Directory,
        database: Database,
        clock: Callable[[], datetime],
    ) -> None:
        self.charging = charging
        self.database = database
        self.clock = clock
        self.handles = Handles(database)
        self.reach = Reach()
        self.risks = Risks()
        self._directory = directory
        self._turns = Turns()
        self._again: dict[str, str] = {}
        self._early: dict[str, tuple[float, int]] = {}
        self._at_risk: dict[str, Ask] = {}
        self._money: list[Callable[[int], None]] = []
        self._peers: list[Callable[[], None]] = []
        directory.on_party = self._party_changed
        directory.on_peers = self._peers_changed

    @property
    def book(self) -> PeerBook:
        """The peers as they are set now."""
        return self._directory.peers

    async def start(self) -> None:
        """Begin: know again which calls that are up use an id for the second time."""
        self.handles.start()
        async with self.database.read() as connection:
            for key in await read_again(connection, AGAIN):
                switch, _, call_id = key.partition("/")
                self._remember_again(f"{switch}/{call_id.rpartition(AGAIN)[0]}", call_id)

    async def stop(self) -> None:
        """End; what is still to be written is."""
        await self.handles.stop()

    # --- whose call ------------------------------------------------------------------------------

    def whose(self, peer: Peer, ask: Ask) -> tuple[str, DialRules | None]:
        """The party whose call it is, and how it writes numbers (None: the party's way); "" nobody's."""
        if ask.party:
            return ask.party, None
        trace = Trace(ask.trunk, ask.address, ask.account, ask.called)
        trunk = self.book.trunk_of(peer, trace)
        if trunk is not None:
            entry = self._directory.entry(trunk.party_id)
            if entry is not None:
                return entry.code, rules_of(trunk, entry.dial_rules)
        if ask.account and peer.flag("accounts_are_parties"):
            return ask.account, None
        return "", None

    def payers(self, party: str) -> frozenset[int]:
        """The ids of all who pay for a party's calls; a change of their money matters to them."""
        try:
            entry = self._directory.party(party)
        except NotFound:
            return frozenset()
        return frozenset(one.id for one in self._directory.chain_of(entry.id)) | {entry.id}

    def party_code(self, party_id: int) -> str:
        """The code of a party; "" if there is none."""
        entry = self._directory.entry(party_id)
        return entry.code if entry is not None else ""

    def on_money(self, heard: Callable[[int], None]) -> Callable[[], None]:
        """Be called with a party's id when its money or limits change; returns how to end that."""
        self._money.append(heard)
        return lambda: self._money.remove(heard)

    def on_peers(self, heard: Callable[[], None]) -> None:
        """Be called when a peer is changed."""
        self._peers.append(heard)

    def _peers_changed(self) -> None:
        for heard in self._peers:
            heard()

    def _party_changed(self, party_id: int) -> None:
        for heard in list(self._money):
            heard(party_id)

    # --- a call ----------------------------------------------------------------------------------

    async def authorise(self, peer: Peer, ask: Ask) -> Verdict:
        """May the call proceed, and for how long? Asked again, it is answered the same."""
        return await self._measured(
            peer, "authorise", ask.call_id, lambda: self._authorise(peer, ask)
        )

    async def answered(self, peer: Peer, call_id: str) -> Verdict:
        """The call was answered."""

        async def carry_out(id_: str) -> tuple[Reply, bool]:
            return await self.charging.start(switch=peer.switch, session_id=id_)

        return await self._message(peer, "start", call_id, carry_out)

    async def interim(
        self,
        peer: Peer,
        call_id: str,
        used_ms: int,
        *,
        request_id: str = "",
        extend: bool = True,
        wraps_at: int = 0,
    ) -> Verdict:
        """Cumulative usage so far (thousandths of the unit) and a wish for more."""

        async def carry_out(id_: str) -> tuple[Reply, bool]:
            return await self.charging.update(
                switch=peer.switch,
                session_id=id_,
                used_ms=used_ms,
                request_id=request_id,
                extend=extend,
                wraps_at=wraps_at,
            )

        return await self._message(peer, "update", call_id, carry_out)

    async def stop_call(
        self,
        peer: Peer,
        call_id: str,
        used_ms: int,
        *,
        request_id: str = "",
        cause: str = "",
        wraps_at: int = 0,
    ) -> Verdict:
        """The call has ended with this cumulative usage (thousandths of the unit; 0: never answered)."""

        async def carry_out(id_: str) -> tuple[Reply, bool]:
            return await self.charging.stop(
                switch=peer.switch,
                session_id=id_,
                used_ms=used_ms,
                request_id=request_id,
                cause=cause,
                wraps_at=wraps_at,
            )

        verdict = await self._message(peer, "stop", call_id, carry_out)
        key = f"{peer.switch}/{verdict.call_id}"
        if verdict.reason is Reason.UNKNOWN_SESSION:
            while len(self._early) >= REMEMBERED_MAX:
                self._early.pop(next(iter(self._early)))
            self._early[key] = (time.monotonic() + EARLY_SECONDS, used_ms)
        elif not verdict.busy:
            self.handles.forget(key)
        return verdict

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
                return _refused(id_, Reason.UNKNOWN_CUSTOMER)
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
                return _refused(id_, Reason.BUSY)
            except Conflict:
                return _refused(id_, Reason.ID_REUSED)
            except NotFound:
                return _refused(id_, Reason.UNKNOWN_CUSTOMER)
            except InvalidInput:
                return _refused(id_, Reason.INVALID_NUMBER)
            return replace(_verdict(id_, reply, repeated=repeated), party=party)

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
        closed = 0
        for session in await self.open_calls(peer):
            verdict = await self.stop_call(
                peer, session.key.partition("/")[2], session.used_ms, cause=cause
            )
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
        return found

    # --- ending calls from here ------------------------------------------------------------------

    def elsewhere(self) -> list[str]:
        """Switches whose calls are ended by a connection that this process does not have."""
        return [
            peer.switch
            for peer in self.book.of_kind(*ENDED_BY_PEER)
            if not self.reach.has(peer.switch, peer.kind)
        ]

    def knows(self, switch: str) -> bool:
        """Tell whether a switch's calls are ended by its own protocol."""
        return any(peer.switch == switch for peer in self.book.of_kind(*ENDED_BY_PEER))

    async def end(self, switch: str, call_id: str, reason: str) -> None:
        """Ask a switch to end a call.

        Raises:
            KillFailed: it did not take it.
        """
        kinds = [p.kind for p in self.book.of_kind(*ENDED_BY_PEER) if p.switch == switch]
        await self.reach.end(switch, kinds[0] if kinds else "", call_id, reason)

    # --- how -------------------------------------------------------------------------------------

    async def _authorise(self, peer: Peer, ask: Ask) -> Verdict:
        party, rules = self.whose(peer, ask)
        if not party:
            return _refused(ask.call_id, Reason.UNKNOWN_CUSTOMER)
        call_id = self._id_of(peer, ask.call_id)
        for number in range(2, REUSES_MAX):
            verdict = await self._try(peer, replace(ask, call_id=call_id), party, rules)
            old = verdict.reason is Reason.ID_REUSED or (
                verdict.repeated and not verdict.on_risk and verdict.reply is not None
            )
            if not old or not await self._is_over(peer, call_id, fresh=ask.fresh):
                return verdict
            # The switch counts its calls from the beginning again (RFC 2866 section 5.5).
            call_id = f"{call_id_of(ask.call_id)}{AGAIN}{number}"
            self._remember_again(f"{peer.switch}/{call_id_of(ask.call_id)}", call_id)
        return _refused(ask.call_id, Reason.ID_REUSED)

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
            return _refused(ask.call_id, Reason.ID_REUSED)
        except NotFound:
            return _refused(ask.call_id, Reason.UNKNOWN_CUSTOMER)
        except InvalidInput:
            return _refused(ask.call_id, Reason.INVALID_NUMBER)
        key = f"{peer.switch}/{ask.call_id}"
        self._at_risk.pop(key, None)
        self.risks.charged(peer, ask.call_id)
        early = self._early.pop(key, None)
        if early is not None and early[0] > time.monotonic() and reply.outcome is Outcome.GRANTED:
            # It ended before it was allowed to begin: what was held goes back at once.
            await self.charging.stop(
                switch=peer.switch, session_id=ask.call_id, used_ms=early[1], cause="early_stop"
            )
            return replace(_refused(ask.call_id, Reason.EXPIRED), party=party)
        number = self._plain_number(ask, party, rules)
        return replace(_verdict(ask.call_id, reply, repeated=repeated), party=party, called=number)

    def _plain_number(self, ask: Ask, party: str, rules: DialRules | None) -> str:
        """The number called as it is priced, for routes; "" where it is none."""
        try:
            return normalise(
                ask.called, self._directory.party(party).dial_rules if rules is None else rules
            )
        except (InvalidInput, NotFound):
            return ""

    def _on_risk(
        self, peer: Peer, ask: Ask, party: str, wanted: int | None, rules: DialRules | None
    ) -> Verdict:
        seconds = self.risks.grant(peer, ask.call_id, wanted) if ask.service == "voice" else 0
        if not seconds:
            return _refused(ask.call_id, Reason.BUSY)
        PeerMeter.of(peer.code, peer.kind).fault(
            "on_risk", "calls are let through although nothing can be charged"
        )
        self._at_risk[f"{peer.switch}/{ask.call_id}"] = replace(ask, party=party)
        return Verdict(
            ask.call_id, Outcome.GRANTED, granted=seconds, final=True, on_risk=True, party=party,
            called=self._plain_number(ask, party, rules),
        )  # fmt: skip

    async def _message(
        self,
        peer: Peer,
        action: str,
        call_id: str,
        carry_out: Callable[[str], Awaitable[tuple[Reply, bool]]],
    ) -> Verdict:
        async def decide() -> Verdict:
            id_ = self._id_of(peer, call_id)
            key = f"{peer.switch}/{id_}"
            if key in self._at_risk and not await self._charge_risk(peer, key):
                return _refused(id_, Reason.BUSY)
            try:
                reply, repeated = await carry_out(id_)
            except Busy:
                return _refused(id_, Reason.BUSY)
            except NotFound:
                return _refused(id_, Reason.UNKNOWN_SESSION)
            except TollkeeperError as error:
                meter = PeerMeter.of(peer.code, peer.kind)
                meter.fault("not_taken", f"{action} of {key}: {error.detail}")
                return _refused(id_, Reason.UNKNOWN_SESSION)
            return _verdict(id_, reply, repeated=repeated)

        return await self._measured(peer, action, call_id, decide)

    async def _charge_risk(self, peer: Peer, key: str) -> bool:
        """Authorise after the fact a call that was let through; False while that cannot be done yet."""
        ask = self._at_risk[key]
        verdict = await self._try(replace(peer, on_failure="refuse"), ask, ask.party, None)
        if verdict.busy:
            return False
        self._at_risk.pop(key, None)
        self.risks.charged(peer, ask.call_id)
        if verdict.outcome is Outcome.REFUSED:
            _log.error(
                "risk.unpaid", peer=peer.code, session=key, reason=verdict.reason.value
            )  # its record, when it comes, is charged as any other
        return True

    async def _measured(
        self, peer: Peer, action: str, call_id: str, decide: Callable[[], Awaitable[Verdict]]
    ) -> Verdict:
        began = time.perf_counter()
        async with self._turns.of(f"{peer.switch}/{call_id}"):
            verdict = await decide()
        meter = PeerMeter.of(peer.code, peer.kind)
        outcome = "repeated" if verdict.repeated else verdict.outcome.value
        if verdict.outcome is Outcome.REFUSED:
            meter.refusal(verdict.reason.value)
        meter.request(action, "busy" if verdict.busy else outcome, time.perf_counter() - began)
        return verdict

    def _id_of(self, peer: Peer, call_id: str) -> str:
        plain = call_id_of(call_id)
        return self._again.get(f"{peer.switch}/{plain}", plain)

    def _remember_again(self, key: str, call_id: str) -> None:
        while len(self._again) >= REMEMBERED_MAX:
            self._again.pop(next(iter(self._again)))
        self._again[key] = call_id

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


def _verdict(call_id: str, reply: Reply, *, repeated: bool) -> Verdict:
    return Verdict(
        call_id,
        reply.outcome,
        reply.reason,
        reply.granted_seconds,
        reply.final,
        reply.terminate,
        repeated,
        reply=reply,
    )


def _refused(call_id: str, reason: Reason) -> Verdict:
    return Verdict(call_id_of(call_id), Outcome.REFUSED, reason)
