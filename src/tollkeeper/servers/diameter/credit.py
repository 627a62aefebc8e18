"""Credit control (RFC 8506): a request becomes commands of the switchboard, its verdicts the answer.

Each service of a Diameter session (rating group) is a session of its own here. An answer leaves only
after what it says is committed. A request that comes again finds what was committed the first time:
by its CC-Request-Number, also in another process and after a restart.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Awaitable, Sequence

from msgspec.structs import replace

from tollkeeper.core.reasons import Reason
from tollkeeper.core.records import Outcome, Session, Unit
from tollkeeper.errors import Busy
from tollkeeper.servers.asks import Verdict
from tollkeeper.servers.diameter.calls import (
    GIVEN_BACK,
    TURNS_MAX,
    Call,
    Calls,
    Client,
    Total,
    client_of,
    kept_id,
)
from tollkeeper.servers.diameter.events import Events
from tollkeeper.servers.diameter.parts import (
    BUSY,
    Part,
    done,
    error_text,
    granted,
    handling,
    line_of,
    refusal,
)
from tollkeeper.servers.diameter.use import Use, ask_of, call_id_of, uses_of
from tollkeeper.servers.switchboard import Switchboard
from tollkeeper.services.uses import Use as ChargedUse
from tollkeeper.store.peers import Peer
from tollkeeper.telemetry import PeerMeter
from tollkeeper.wire.diameter import codes
from tollkeeper.wire.diameter.codec import avp_text
from tollkeeper.wire.diameter.codes import Kind, Result
from tollkeeper.wire.diameter.credit import Control, CreditAnswer, CreditRequest

LOST = "session_id_reused"
"""Why a session ended that its client began again."""


class CreditControl:
    """Answers the requests of all Diameter peers of one process."""

    def __init__(self, board: Switchboard, host: str, realm: str, state_id: int) -> None:
        self._board = board
        self._host, self._realm, self._state_id = host, realm, state_id
        self.calls = Calls(board)
        self._events = Events(board)

    async def answer(
        self, peer: Peer, request: CreditRequest, *, again: bool = False
    ) -> CreditAnswer | None:
        """The answer to a request; None where nothing was done and the client is to ask elsewhere.

        ``again``: the client says that it may have sent it before (T flag).
        """
        if request.kind is Kind.EVENT:
            return await self._events.answer(peer, request, self._empty(request))
        base = call_id_of(request.session_id, "")
        following = self.calls.arrive(
            peer, base, request.number, first=request.kind is Kind.INITIAL
        )
        if request.multiple and not request.controls and request.kind is not Kind.TERMINATION:
            # A session that asks for its services later holds nothing yet.
            return self._opened(peer, request)
        uses = uses_of(peer, request)
        for use in uses:
            self._look_at(peer, use)
        busy = True
        try:
            parts: Sequence[Part]
            if request.kind is Kind.INITIAL:
                parts = await _all(
                    *(self._open(peer, request, use, 1, again=again) for use in uses)
                )
            elif request.kind is Kind.UPDATE:
                parts = await _all(
                    *(self._renew(peer, request, use, following=following) for use in uses)
                )
            else:
                parts = await self._end(peer, request, uses, base, following=following)
            busy = any(part.busy for part in parts)
        finally:
            if busy:
                self.calls.doubt(peer.switch, base)
        return None if busy else self._whole(peer, request, parts)

    # --- the three requests of a session ---------------------------------------------------------

    async def _open(
        self, peer: Peer, request: CreditRequest, use: Use, turn: int, *, again: bool = True
    ) -> Part:
        """Open a service of a session, and report what was used of it already.

        Unless it may have come before (``again``), the beginning of a session that is known and was used
        is that of a client that lost it: that one ends, and another begins.
        """
        line = use.line
        if not use.fits:
            return refusal(line, Result.RATING_FAILED)
        if peer.flag("free_uncontrolled") and await self._is_free(peer, request, use):
            return refusal(line, Result.CREDIT_CONTROL_NOT_APPLICABLE)
        ask = dataclasses.replace(ask_of(peer, request, use), call_id=kept_id(use.call_id, turn))
        verdict = await self._board.authorise(peer, ask)
        if verdict.busy:
            return BUSY
        if not again and (verdict.repeated or verdict.reason is Reason.ID_REUSED):
            try:
                reborn = await self.calls.reborn(peer, use.call_id, request.number)
            except Busy:
                return BUSY
            if reborn is not None and reborn[0] <= TURNS_MAX:
                return await self._anew(peer, request, use, *reborn)
        if verdict.outcome is not Outcome.GRANTED:
            if use.used and turn == 1:
                self._fault(peer, "unpaid", f"{use.used} used of {use.call_id} are not charged")
            return refusal(line, verdict.meaning.diameter)
        self._note(peer, request, use, verdict, turn)
        if not use.used or use.absurd:
            return granted(use, verdict, 0, self._board.clock())
        number = str(request.number)
        verdict = await self._board.interim(
            peer, verdict.call_id, use.used * 1000, request_id=number
        )
        if verdict.busy:
            return BUSY
        total = Total(verdict.call_id, use.used, latest=True, turn=turn, unit=use.unit)
        self._reported(peer, request, use, total, verdict)
        return await self._renewed(peer, request, use, total, verdict, wants=True)

    async def _anew(
        self, peer: Peer, request: CreditRequest, use: Use, turn: int, lost: Session
    ) -> Part:
        """The client began a session again that it lost: what it had is settled as it was last reported."""
        self._fault(peer, "session_id_reused", request.session_id)
        if lost.open:
            ended = await self._board.stop_call(
                peer, lost.key.partition("/")[2], lost.used_ms, request_id="lost", cause=LOST
            )
            if ended.busy:
                return BUSY
        self.calls.anew(peer.switch, call_id_of(request.session_id, ""), request.number)
        return await self._open(peer, request, use, turn)

    async def _renew(
        self, peer: Peer, request: CreditRequest, use: Use, *, following: bool
    ) -> Part:
        if use.absurd:
            return refusal(use.line, Result.RATING_FAILED)
        wants = use.fits and (use.line.requested is not None or not request.controls)
        reason = use.given_back if request.controls else None
        kind = "update" if reason is None else "stop"
        try:
            total = await self.calls.total(
                peer, use.call_id, kind, request.number, use.used_in, following=following
            )
        except Busy:
            return BUSY
        if total is None:
            return await self._unknown(peer, request, use)
        if use.unit is not total.unit and not total.ended:
            # What it looks like now is not what it was begun as: that is what it is charged as.
            use = dataclasses.replace(use, unit=total.unit)
            if use.absurd:
                return refusal(use.line, Result.RATING_FAILED)
            wants = wants and use.fits
        if reason is not None and total.turn < TURNS_MAX:
            return await self._give_back(peer, request, use, total, reason)
        if total.ended and wants and total.latest:
            return await self._come_again(peer, request, use, total)
        verdict = await self._board.interim(
            peer, total.kept, total.used * 1000, request_id=str(request.number), extend=wants
        )
        if verdict.busy:
            return BUSY
        if verdict.reason is Reason.UNKNOWN_SESSION:
            return await self._unknown(peer, request, use)
        if verdict.outcome is Outcome.CLOSED:
            # What it used is charged as late; it is not to use more of what nobody holds money for.
            self.calls.forget(peer.switch, use.call_id, total.kept)
            return refusal(use.line, Result.SUCCESS if total.ended else Result.UNKNOWN_SESSION_ID)
        self._reported(peer, request, use, total, verdict)
        if not use.fits:
            return refusal(use.line, Result.RATING_FAILED)
        return await self._renewed(peer, request, use, total, verdict, wants=wants)

    async def _renewed(
        self, peer: Peer, request: CreditRequest, use: Use, total: Total, verdict: Verdict, *,
        wants: bool,
    ) -> Part:  # fmt: skip
        """What a service is told whose use is noted."""
        if verdict.terminate or (wants and verdict.granted <= total.used):
            result = verdict.meaning.diameter
            ended = Result.CREDIT_LIMIT_REACHED if result == Result.SUCCESS else result
            if not request.controls:
                # The client is idle after such an answer, and need not say more (RFC 8506 section 7).
                await self._settle(peer, request, use, total, verdict)
            return refusal(use.line, ended, final=True)
        if not wants:
            return done(use)
        return granted(use, verdict, total.used, self._board.clock())

    async def _give_back(
        self, peer: Peer, request: CreditRequest, use: Use, total: Total, reason: int
    ) -> Part:
        """A quota is given back while its session goes on: it is settled, so that nothing stays held."""
        verdict = await self._board.stop_call(
            peer,
            total.kept,
            total.used * 1000,
            request_id=str(request.number),
            cause=f"{GIVEN_BACK} {reason}",
        )
        if verdict.busy:
            return BUSY
        self.calls.forget(peer.switch, use.call_id, total.kept)
        return done(use)

    async def _come_again(self, peer: Peer, request: CreditRequest, use: Use, total: Total) -> Part:
        """A service that was given back or refused is asked for again: its next turn begins."""
        if total.turn >= TURNS_MAX:
            return refusal(use.line, Result.UNABLE_TO_COMPLY)
        part = await self._open(peer, request, use, total.turn + 1)
        if part.refused and use.used:
            # There is no money for more; what was used is of the turn before.
            late = await self._board.interim(
                peer, total.kept, total.used * 1000, request_id=str(request.number), extend=False
            )
            if late.reason is Reason.UNKNOWN_SESSION:
                self._fault(peer, "unpaid", f"{use.used} used of {use.call_id} are not charged")
            return BUSY if late.busy else part
        return part

    async def _end(
        self, peer: Peer, request: CreditRequest, uses: Sequence[Use], base: str, *, following: bool
    ) -> Sequence[Part]:
        try:
            up = await self.calls.others(peer, base, following=following)
        except Busy:
            return [BUSY]
        told = uses
        if not request.controls and (request.multiple or up != [base] * len(up)):
            # It says nothing of the rating groups that it ends.
            told = [use for use in uses if use.call_id in up]
        named = {use.call_id for use in told}
        cause = "" if request.cause is None else f"termination_cause {request.cause}"
        parts = await _all(
            *(
                self._finish(peer, request, use, cause, following=following, known=bool(up))
                for use in told
            ),
            *(
                self._silent(peer, request, call_id, cause, following=following)
                for call_id in up
                if call_id not in named
            ),
        )
        if not any(part.busy for part in parts):
            self.calls.over(peer.switch, base)
        return parts[: len(told)] + [part for part in parts[len(told) :] if part.busy]

    async def _finish(
        self,
        peer: Peer,
        request: CreditRequest,
        use: Use,
        cause: str,
        *,
        following: bool,
        known: bool,
    ) -> Part:
        number = request.number
        # What cannot be is not charged, but its session ends all the same.
        more = _nothing if use.absurd else use.used_in
        try:
            total = await self.calls.total(
                peer, use.call_id, "stop", number, more, following=following
            )
        except Busy:
            return BUSY
        if total is None:
            return await self._unknown(peer, request, use, known=known)
        verdict = await self._board.stop_call(
            peer, total.kept, total.used * 1000, request_id=str(number), cause=cause
        )
        if verdict.busy:
            return BUSY
        result = Result.RATING_FAILED if use.absurd else Result.SUCCESS
        return Part(line_of(use.line, result=result))

    async def _silent(
        self, peer: Peer, request: CreditRequest, call_id: str, cause: str, *, following: bool
    ) -> Part:
        """A service that the end of its session says nothing of: it ends as it was last reported."""
        number = request.number
        try:
            total = await self.calls.total(
                peer, call_id, "stop", number, _nothing, following=following
            )
        except Busy:
            return BUSY
        if total is None:
            return Part(Control(result=Result.SUCCESS))
        verdict = await self._board.stop_call(
            peer, total.kept, total.used * 1000, request_id=str(number), cause=cause
        )
        return BUSY if verdict.busy else Part(Control(result=Result.SUCCESS))

    # --- how -------------------------------------------------------------------------------------

    async def _unknown(
        self, peer: Peer, request: CreditRequest, use: Use, *, known: bool = False
    ) -> Part:
        """A service of which nothing is known: a new one of its session, or one let through without us.

        ``known``: others of its session are, so that it was let through under an eye of ours.
        """
        new = bool(request.controls) and use.line.requested is not None
        ending = request.kind is Kind.TERMINATION
        let_through = (peer.on_failure == "allow" or known) and use.used > 0 and not use.absurd
        if (ending or not new) and not let_through:
            if ending:
                # Should its beginning still come, by another way, it is not to hold anything.
                used = 0 if use.absurd else use.used
                await self._board.stop_call(peer, use.call_id, used * 1000)
            return refusal(use.line, Result.UNKNOWN_SESSION_ID)
        part = await self._open(peer, request, use, 1)
        if part.busy or part.refused or not ending:
            return part
        verdict = await self._board.stop_call(
            peer, use.call_id, use.used * 1000, request_id=str(request.number)
        )
        return BUSY if verdict.busy else done(use)

    def _note(
        self, peer: Peer, request: CreditRequest, use: Use, verdict: Verdict, turn: int
    ) -> None:
        client = Client(request.session_id, request.origin_host, request.origin_realm)
        if client != client_of(use.call_id, peer):
            self._board.handles.keep(
                f"{peer.switch}/{verdict.call_id}",
                {"session": client.session_id, "host": client.host, "realm": client.realm},
            )
        if self.calls.get(peer.switch, use.call_id) is None:
            # A repeated one may be old: what was used since is then asked of the database.
            call = Call(
                peer.switch,
                use.call_id,
                client,
                verdict.party,
                verdict.call_id,
                final=verdict.final,
                stale=verdict.repeated,
                turn=turn,
                unit=use.unit,
            )
            self.calls.note(call, request.number)

    def _reported(
        self, peer: Peer, request: CreditRequest, use: Use, total: Total, verdict: Verdict
    ) -> None:
        call = self.calls.get(peer.switch, use.call_id)
        if call is not None and not total.latest:
            return
        if call is None or call.kept != total.kept:
            client = Client(request.session_id, request.origin_host, request.origin_realm)
            party, _ = self._board.whose(peer, ask_of(peer, request, use))
            call = Call(
                peer.switch, use.call_id, client, party, total.kept,
                stale=not total.latest, turn=total.turn, unit=total.unit,
            )  # fmt: skip
        if total.latest:
            call.used, call.stale, call.final = max(call.used, total.used), False, verdict.final
        self.calls.note(call, request.number)

    async def _settle(
        self, peer: Peer, request: CreditRequest, use: Use, total: Total, verdict: Verdict
    ) -> None:
        await self._board.stop_call(
            peer,
            total.kept,
            total.used * 1000,
            request_id=str(request.number),
            cause=verdict.reason.value,
        )
        self.calls.forget(peer.switch, use.call_id, total.kept)

    def _look_at(self, peer: Peer, use: Use) -> None:
        """Count reports that cannot be charged as they are."""
        if use.absurd:
            detail = f"{use.call_id}: {use.used} used since the last report"
            self._fault(peer, "absurd_usage", detail)
        elif use.otherwise:
            detail = f"{use.call_id}: {use.service} is charged by the {use.unit.value}"
            self._fault(peer, "other_unit", f"{detail}, and was reported in another unit")

    @staticmethod
    def _fault(peer: Peer, fault: str, detail: str) -> None:
        PeerMeter.of(peer.code, "diameter").fault(fault, detail)

    async def _is_free(self, peer: Peer, request: CreditRequest, use: Use) -> bool:
        """Whether nobody pays anything for this use: it need not be controlled then."""
        ask = ask_of(peer, request, use)
        party, _ = self._board.whose(peer, ask)
        return bool(party) and await self._events.is_free(
            ChargedUse(party, ask.called, ask.service, ask.caller, ask.lrn, ask.network)
        )

    # --- the answer ------------------------------------------------------------------------------

    def _empty(self, request: CreditRequest) -> CreditAnswer:
        return CreditAnswer(
            session_id=request.session_id,
            result=Result.SUCCESS,
            origin_host=self._host,
            origin_realm=self._realm,
            kind=request.kind,
            number=request.number,
            state_id=self._state_id,
            proxies=request.proxies,
        )

    def _opened(self, peer: Peer, request: CreditRequest) -> CreditAnswer:
        (use,) = uses_of(peer, request)
        party, _ = self._board.whose(peer, ask_of(peer, request, use))
        if not party:
            return replace(self._empty(request), result=Result.USER_UNKNOWN)
        return replace(self._empty(request), failure_handling=handling(peer))

    def _whole(self, peer: Peer, request: CreditRequest, parts: Sequence[Part]) -> CreditAnswer:
        empty = self._empty(request)
        failed = [part for part in parts if part.failed]
        result = parts[0].line.result if parts and len(failed) == len(parts) else Result.SUCCESS
        assert result is not None
        why: tuple[bytes, ...] = ()
        if result == Result.RATING_FAILED:
            why = (avp_text(codes.SERVICE_CONTEXT_ID, request.context),)
        answer = replace(
            empty,
            result=result,
            failed=why,
            error="" if result == Result.SUCCESS else error_text(result),
            failure_handling=handling(peer) if request.kind is Kind.INITIAL else None,
        )
        if request.controls:
            return replace(answer, controls=tuple(part.line for part in parts))
        if failed or not parts:
            return answer
        only = parts[0].line
        return replace(answer, granted=only.granted, validity=only.validity, final=only.final)


async def _all(*works: Awaitable[Part]) -> list[Part]:
    """Do them at once, so that they share a commit; the usual one needs no task of its own."""
    if len(works) == 1:
        return [await works[0]]
    return await asyncio.gather(*works)


def _nothing(_: Unit) -> int:
    return 0
