"""Accounting-Requests: calls that began, go on and end, in whatever order that is told.

RFC 2866 section 4.1: what could not be recorded is not answered, so that the switch says it again.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import structlog

from tollkeeper.core.reasons import Reason
from tollkeeper.core.records import Ending, Outcome
from tollkeeper.servers.asks import Verdict
from tollkeeper.servers.radius.calls import RadiusCalls
from tollkeeper.servers.radius.names import (
    Handle,
    ask_of,
    delay_of,
    extends,
    handle_of,
    milliseconds,
    used_ms,
    whole,
    word,
)
from tollkeeper.servers.radius.unpaid import name_of, usage_of, written
from tollkeeper.servers.radius.whose import Found, Whose
from tollkeeper.servers.switchboard import RESTART, Switchboard
from tollkeeper.servers.turns import Turns
from tollkeeper.services.cdr.told import Told, put_aside, was_put_aside
from tollkeeper.store.peers import Peer
from tollkeeper.telemetry import PeerMeter
from tollkeeper.wire.radius.messages import Report, Status

WRAP_32 = 2**32 * 1000
"""Where the counters of a NAS without gigawords begin again, in thousandths of an octet."""
ACTIONS = {Status.STOP: "stop", Status.FAILED: "stop", Status.OFF: "stop", Status.ON: "stop"}
"""What a status is to the back-pressure; all others are reports of calls that are up."""
_log = structlog.get_logger()


class RadiusAccounting:
    """Takes Accounting-Requests."""

    def __init__(self, board: Switchboard, calls: RadiusCalls) -> None:
        self._board = board
        self._calls = calls
        self._whose = Whose(board)
        self._turns = Turns()

    async def take(self, peer: Peer, source: str, report: Report) -> bool:
        """Record what is reported; False: it could not be, and must not be answered."""
        if report.status in {Status.ON, Status.OFF}:
            return await self._restarted(peer, report)
        if report.status not in {Status.START, Status.INTERIM, Status.STOP, Status.FAILED}:
            # Tunnels and links of RFC 2867 are no business of ours; a NAS waits for an answer all the same.
            return True
        # Both legs of a call end at the same moment; which one counts is found out one after the other.
        name = report.conference or report.session_id or report.call_id or str(report.classes)
        async with self._turns.of(f"{peer.switch}/{name}"):
            return await self._take(peer, source, report)

    async def _take(self, peer: Peer, source: str, report: Report) -> bool:
        found = await self._whose.find(peer, report)
        if found is None:
            PeerMeter.of(peer.code, peer.kind).fault("no_session_id", "accounting names no call")
            return True
        if not _counts(peer, report, found.handle):
            return True
        if report.status == Status.START:
            return await self._start(peer, source, report, found)
        if report.status == Status.INTERIM:
            return await self._interim(peer, source, report, found)
        return await self._stop(peer, source, report, found)

    # --- one call --------------------------------------------------------------------------------

    async def _start(self, peer: Peer, source: str, report: Report, found: Found) -> bool:
        began, party = self._board.clock() - timedelta(seconds=delay_of(report)), ""
        verdict = await self._board.answered(peer, found.kept, exact=found.exact)
        if verdict.reason is Reason.UNKNOWN_SESSION:
            opened = await self._open(peer, source, report, found, None)
            if opened is not None:
                verdict, party = opened, opened.party
                if opened.allowed:
                    verdict = await self._board.answered(peer, opened.call_id, exact=True)
        if verdict.busy:
            return False
        known = dict(handle_of(peer, report, source, found.handle, party))
        known.setdefault("heard", milliseconds(began))
        if report.happened_at is not None:
            known.setdefault("began", int(report.happened_at.timestamp()))
        self._note(peer, verdict, known, 0)
        return True

    async def _interim(self, peer: Peer, source: str, report: Report, found: Found) -> bool:
        used = await self._used(peer, report, found)
        wraps = self._wraps(peer, report)
        verdict = await self._board.interim(
            peer, found.kept, used, extend=extends(peer), wraps_at=wraps, exact=found.exact
        )
        if verdict.reason is Reason.UNKNOWN_SESSION:
            opened = await self._open(peer, source, report, found, None)
            if opened is not None:
                verdict = opened
                if opened.allowed:
                    verdict = await self._board.interim(
                        peer, opened.call_id, used,
                        extend=extends(peer), wraps_at=wraps, exact=True,
                    )  # fmt: skip
        if verdict.busy:
            return False
        self._note(peer, verdict, handle_of(peer, report, source, found.handle), used)
        return True

    async def _stop(self, peer: Peer, source: str, report: Report, found: Found) -> bool:
        failed = report.status == Status.FAILED
        used = 0 if failed else await self._used(peer, report, found)
        wraps, cause = self._wraps(peer, report), _cause(report)
        verdict = await self._board.stop_call(
            peer, found.kept, used, cause=cause, wraps_at=wraps, exact=found.exact
        )
        if verdict.reason is Reason.UNKNOWN_SESSION and used:
            verdict = await self._stop_unknown(peer, source, report, found, used)
        if verdict.busy:
            return False
        self._calls.over(peer, verdict.call_id)
        handle = handle_of(peer, report, source, found.handle)
        self._whose.ended(peer, verdict.call_id, handle)
        if report.conference and not failed:
            # The other leg's stop is still to come; it must find out that it is the other one.
            self._board.handles.keep(f"{peer.switch}/{verdict.call_id}", handle)
        return True

    async def _stop_unknown(
        self, peer: Peer, source: str, report: Report, found: Found, used: int
    ) -> Verdict:
        """A call ended that was not allowed, or of which nothing was heard: charge it, or put it aside."""
        name = name_of(peer, report, found.named, used)
        refused = Verdict(found.kept, Outcome.REFUSED, Reason.UNKNOWN_SESSION)
        if await was_put_aside(self._board.database, name):
            return refused
        opened = await self._open(peer, source, report, found, -(-used // 1000))
        if opened is not None:
            if opened.allowed:
                return await self._board.stop_call(
                    peer, opened.call_id, used, cause=_cause(report),
                    wraps_at=self._wraps(peer, report), exact=True,
                )  # fmt: skip
            if opened.busy or opened.reason is Reason.EXPIRED:
                return opened
            refused = opened
        session = await self._whose.session(peer, found.kept)
        if session is not None and session.ending is Ending.REFUSED:
            # Refused when it was asked for, which says more than that its id is used now.
            refused = replace(refused, reason=session.reason)
        now = self._board.clock()
        usage = usage_of(self._board.book, peer, report, found.kept, used, now)
        told = Told(name, peer.switch, peer.code, refused.reason, usage, written(report))
        if await put_aside(self._board.database, told, now):
            PeerMeter.of(peer.code, peer.kind).fault("unpaid", log=False)
            _log.error(
                "radius.unpaid", peer=peer.code, call=found.kept, used_ms=used, user=report.user,
                calling=report.calling, called=report.called, reason=refused.reason.value,
            )  # fmt: skip
        return refused

    async def _open(
        self, peer: Peer, source: str, report: Report, found: Found, units: int | None
    ) -> Verdict | None:
        """A call of which nothing was asked before it began; None where the peer is not to have those."""
        if not peer.flag("accounting_opens", default=True):
            return None
        ask = ask_of(peer, found.named, report, source, units)
        verdict = await self._board.authorise(peer, ask)
        PeerMeter.of(peer.code, peer.kind).fault(
            "not_asked", f"{found.named} began without being asked for: {verdict.outcome.value}"
        )
        return verdict

    def _note(self, peer: Peer, verdict: Verdict, handle: Handle, used: int) -> None:
        if verdict.reason is Reason.UNKNOWN_SESSION:
            return
        self._board.handles.keep(f"{peer.switch}/{verdict.call_id}", handle)
        self._calls.reported(peer, verdict, handle, used)

    async def _used(self, peer: Peer, report: Report, found: Found) -> int:
        data = peer.text("service", "voice") == "data"
        handle = found.handle
        if not data and report.seconds is None and whole(handle, "heard") is None:
            # Another process heard the start, or its note of it was lost.
            session = await self._whose.session(peer, found.kept)
            if session is not None and session.answered_at is not None:
                handle = {**(handle or {}), "heard": milliseconds(session.answered_at)}
        return used_ms(report, handle, self._board.clock(), data=data)

    def _wraps(self, peer: Peer, report: Report) -> int:
        data = peer.text("service", "voice") == "data"
        return WRAP_32 if data and not report.gigawords else 0

    # --- all calls -------------------------------------------------------------------------------

    async def _restarted(self, peer: Peer, report: Report) -> bool:
        """The NAS began anew: its calls ended as they were last told of (RFC 2866 section 5.1).

        Not those that were opened since: the message may have been on its way for long.
        """
        before = self._board.clock() - timedelta(seconds=report.delay)
        closed = 0
        for session in await self._board.open_calls(peer):
            call_id = session.key.partition("/")[2]
            if session.opened_at > before:
                continue
            if not await self._is_of(peer, session.key, report):
                continue
            verdict = await self._board.stop_call(
                peer, call_id, session.used_ms, cause=RESTART, exact=True
            )
            if verdict.busy:
                return False
            self._calls.over(peer, call_id)
            closed += 1
        if closed:
            _log.warning("switch.restarted", peer=peer.code, calls_closed=closed)
        return True

    async def _is_of(self, peer: Peer, key: str, report: Report) -> bool:
        """Tell whether a call is of the NAS that speaks: of all those behind a proxy, or of one peer.

        Behind a proxy only what is known to be; else all but what is known to be of another one.
        """
        handle = await self._board.handles.find(key)
        for said, known in (
            (report.nas_identifier, word(handle, "nas_id")),
            (report.nas_address, word(handle, "nas")),
        ):
            if said and known:
                return said == known
        return not peer.flag("proxied")


def _counts(peer: Peer, report: Report, handle: Handle | None) -> bool:
    """Tell whether a report is of the leg that is charged: the one named by the peer, else the first."""
    wanted = peer.text("charged_leg", "first")
    if wanted != "first":
        return not report.origin or report.origin == wanted
    first = word(handle, "sid")
    return not (first and report.session_id and first != report.session_id)


def _cause(report: Report) -> str:
    if report.q850 is not None:
        return str(report.q850)
    if report.sip_code is not None and report.status == Status.FAILED:
        return f"sip-{report.sip_code}"
    return f"radius-{report.terminate_cause}" if report.terminate_cause is not None else ""
