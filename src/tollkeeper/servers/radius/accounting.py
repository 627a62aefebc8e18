"""Accounting-Requests: calls that began, go on and end, in whatever order that is told.

RFC 2866 section 4.1: what could not be recorded is not answered, so that the switch says it again.
"""

from __future__ import annotations

from datetime import timedelta

import structlog

from tollkeeper.core.reasons import Reason
from tollkeeper.servers.asks import Verdict
from tollkeeper.servers.radius.calls import RadiusCalls
from tollkeeper.servers.radius.names import (
    Handle,
    ask_of,
    extends,
    handle_of,
    marked,
    milliseconds,
    names_of,
    used_ms,
    word,
)
from tollkeeper.servers.switchboard import RESTART, Switchboard
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

    async def take(self, peer: Peer, source: str, report: Report) -> bool:
        """Record what is reported; False: it could not be, and must not be answered."""
        if report.status in {Status.ON, Status.OFF}:
            return await self._restarted(peer, report)
        if report.status not in {Status.START, Status.INTERIM, Status.STOP, Status.FAILED}:
            # Tunnels and links of RFC 2867 are no business of ours; a NAS waits for an answer all the same.
            return True
        call_id, handle = await self._find(peer, report)
        if not call_id:
            PeerMeter.of(peer.code, peer.kind).fault("no_session_id", "accounting names no call")
            return True
        if not _counts(peer, report, handle):
            return True
        if report.status == Status.START:
            return await self._start(peer, source, report, call_id, handle)
        if report.status == Status.INTERIM:
            return await self._interim(peer, source, report, call_id, handle)
        return await self._stop(peer, source, report, call_id, handle)

    async def _find(self, peer: Peer, report: Report) -> tuple[str, Handle | None]:
        """The session that a report is about: by what we gave along with it, else by its own words."""
        names = [*marked(report.classes), *names_of(peer, report)]
        for name in names:
            handle = await self._board.handles.find(f"{peer.switch}/{name}")
            if handle is not None:
                return name, handle
        return (names[0] if names else ""), None

    # --- one call --------------------------------------------------------------------------------

    async def _start(
        self, peer: Peer, source: str, report: Report, call_id: str, handle: Handle | None
    ) -> bool:
        began, party = self._board.clock() - timedelta(seconds=report.delay), ""
        verdict = await self._board.answered(peer, call_id)
        if verdict.reason is Reason.UNKNOWN_SESSION:
            opened = await self._open(peer, source, report, call_id, None)
            if opened is not None:
                verdict, party = opened, opened.party
                if opened.allowed:
                    verdict = await self._board.answered(peer, opened.call_id)
        if verdict.busy:
            return False
        known = dict(handle_of(peer, report, source, handle, party))
        known.setdefault("heard", milliseconds(began))
        if report.happened_at is not None:
            known.setdefault("began", int(report.happened_at.timestamp()))
        self._note(peer, verdict, known, 0)
        return True

    async def _interim(
        self, peer: Peer, source: str, report: Report, call_id: str, handle: Handle | None
    ) -> bool:
        used = self._used(peer, report, handle)
        wraps = self._wraps(peer, report)
        verdict = await self._board.interim(
            peer, call_id, used, extend=extends(peer), wraps_at=wraps
        )
        if verdict.reason is Reason.UNKNOWN_SESSION:
            opened = await self._open(peer, source, report, call_id, None)
            if opened is not None:
                verdict = opened
                if opened.allowed:
                    verdict = await self._board.interim(
                        peer, opened.call_id, used, extend=extends(peer), wraps_at=wraps
                    )
        if verdict.busy:
            return False
        self._note(peer, verdict, handle_of(peer, report, source, handle), used)
        return True

    async def _stop(
        self, peer: Peer, source: str, report: Report, call_id: str, handle: Handle | None
    ) -> bool:
        failed = report.status == Status.FAILED
        used = 0 if failed else self._used(peer, report, handle)
        wraps, cause = self._wraps(peer, report), _cause(report)
        verdict = await self._board.stop_call(peer, call_id, used, cause=cause, wraps_at=wraps)
        if verdict.reason is Reason.UNKNOWN_SESSION and used:
            opened = await self._open(peer, source, report, call_id, -(-used // 1000))
            if opened is not None:
                verdict = opened
                if opened.allowed:
                    verdict = await self._board.stop_call(
                        peer, opened.call_id, used, cause=cause, wraps_at=wraps
                    )
                elif not opened.busy and opened.reason is not Reason.EXPIRED:
                    _log.error(
                        "radius.unpaid", peer=peer.code, call=call_id, used_ms=used, user=report.user,
                        calling=report.calling, called=report.called, reason=opened.reason.value,
                    )  # fmt: skip
        if verdict.busy:
            return False
        self._calls.over(peer, verdict.call_id)
        if report.conference and not failed:
            # The other leg's stop is still to come; it must find out that it is the other one.
            key = f"{peer.switch}/{verdict.call_id}"
            self._board.handles.keep(key, handle_of(peer, report, source, handle))
        return True

    async def _open(
        self, peer: Peer, source: str, report: Report, call_id: str, units: int | None
    ) -> Verdict | None:
        """A call of which nothing was asked before it began; None where the peer is not to have those."""
        if not peer.flag("accounting_opens", default=True):
            return None
        ask = ask_of(peer, call_id, report, source, units)
        verdict = await self._board.authorise(peer, ask)
        PeerMeter.of(peer.code, peer.kind).fault(
            "not_asked", f"{call_id} began without being asked for: {verdict.outcome.value}"
        )
        return verdict

    def _note(self, peer: Peer, verdict: Verdict, handle: Handle, used: int) -> None:
        if verdict.reason is Reason.UNKNOWN_SESSION:
            return
        self._board.handles.keep(f"{peer.switch}/{verdict.call_id}", handle)
        self._calls.reported(peer, verdict, handle, used)

    def _used(self, peer: Peer, report: Report, handle: Handle | None) -> int:
        data = peer.text("service", "voice") == "data"
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
            if peer.flag("proxied") and not await self._is_of(session.key, report):
                continue
            verdict = await self._board.stop_call(peer, call_id, session.used_ms, cause=RESTART)
            if verdict.busy:
                return False
            self._calls.over(peer, call_id)
            closed += 1
        if closed:
            _log.warning("switch.restarted", peer=peer.code, calls_closed=closed)
        return True

    async def _is_of(self, key: str, report: Report) -> bool:
        """Tell whether a call is of the NAS that speaks, of all those behind a proxy."""
        handle = await self._board.handles.find(key)
        if report.nas_identifier:
            return word(handle, "nas_id") == report.nas_identifier
        return bool(report.nas_address) and word(handle, "nas") == report.nas_address


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
