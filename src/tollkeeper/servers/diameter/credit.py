"""Credit control (RFC 8506): a request becomes commands of the switchboard, its verdicts the answer.

Each service of a Diameter session (rating group) is a session of its own here. An answer leaves only
after what it says is committed. A request that comes again finds what was committed the first time:
by its CC-Request-Number, also in another process and after a restart.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from msgspec.structs import replace

from tollkeeper.core.reasons import MEANINGS, Reason
from tollkeeper.core.records import Outcome, Unit
from tollkeeper.errors import Busy
from tollkeeper.servers.asks import Verdict
from tollkeeper.servers.diameter.calls import Call, Calls, Client, client_of
from tollkeeper.servers.diameter.events import Events
from tollkeeper.servers.diameter.use import Use, ask_of, call_id_of, units_of, uses_of
from tollkeeper.servers.switchboard import Switchboard
from tollkeeper.services.uses import Use as ChargedUse
from tollkeeper.store.peers import Peer
from tollkeeper.wire.diameter import codes
from tollkeeper.wire.diameter.codec import avp_text
from tollkeeper.wire.diameter.codes import FailureHandling, Kind, Result
from tollkeeper.wire.diameter.credit import Control, CreditAnswer, CreditRequest

VALIDITY_MARGIN_SECONDS = 60
"""So long before its session is given up here, a client must have reported (Validity-Time)."""
NUMBER_MAX = 10**12
"""Units of one report beyond which it is no report."""


@dataclass(frozen=True, slots=True)
class Part:
    """What one service of a request gets; ``busy``: nothing is known to be done."""

    line: Control
    busy: bool = False

    @property
    def failed(self) -> bool:
        """Whether it was refused."""
        return self.line.result != Result.SUCCESS


BUSY = Part(Control(result=Result.TOO_BUSY), busy=True)


class CreditControl:
    """Answers the requests of all Diameter peers of one process."""

    def __init__(self, board: Switchboard, host: str, realm: str, state_id: int) -> None:
        self._board = board
        self._host, self._realm, self._state_id = host, realm, state_id
        self.calls = Calls(board)
        self._events = Events(board)

    async def answer(self, peer: Peer, request: CreditRequest) -> CreditAnswer | None:
        """The answer to a request; None where nothing was done and the client is to ask elsewhere."""
        if request.kind is Kind.EVENT:
            return await self._events.answer(peer, request, self._empty(request))
        if request.multiple and not request.controls and request.kind is not Kind.TERMINATION:
            # A session that asks for its services later holds nothing yet.
            return self._opened(peer, request)
        uses = uses_of(peer, request)
        base = call_id_of(request.session_id, "")
        following = self.calls.arrive(
            peer, base, request.number, first=request.kind is Kind.INITIAL
        )
        parts: Sequence[Part]
        if request.kind is Kind.INITIAL:
            parts = await _all(*(self._begin(peer, request, use) for use in uses))
        elif request.kind is Kind.UPDATE:
            parts = await _all(
                *(self._renew(peer, request, use, following=following) for use in uses)
            )
        else:
            parts = await self._end(peer, request, uses, base, following=following)
        if any(part.busy for part in parts):
            return None
        return self._whole(peer, request, parts)

    # --- the three requests of a session ---------------------------------------------------------

    async def _begin(self, peer: Peer, request: CreditRequest, use: Use) -> Part:
        line = use.line
        if not use.fits:
            return _refusal(line, Result.RATING_FAILED)
        if peer.flag("free_uncontrolled") and await self._is_free(peer, request, use):
            return _refusal(line, Result.CREDIT_CONTROL_NOT_APPLICABLE)
        verdict = await self._board.authorise(peer, ask_of(peer, request, use))
        if verdict.busy:
            return BUSY
        if verdict.outcome is not Outcome.GRANTED:
            return _refusal(line, verdict.meaning.diameter)
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
            )
            self.calls.note(call, request.number)
        return self._granted(use, verdict, 0)

    async def _renew(
        self, peer: Peer, request: CreditRequest, use: Use, *, following: bool
    ) -> Part:
        more, wants = use.used, use.line.requested is not None or not request.controls
        if not use.fits or more > NUMBER_MAX:
            return _refusal(use.line, Result.RATING_FAILED)
        try:
            total = await self.calls.total(
                peer, use.call_id, "update", request.number, more, following=following
            )
        except Busy:
            return BUSY
        if total is None:
            return await self._unknown(peer, request, use)
        used, latest = total
        verdict = await self._board.interim(
            peer, use.call_id, used * 1000, request_id=str(request.number), extend=wants
        )
        if verdict.busy:
            return BUSY
        if verdict.reason is Reason.UNKNOWN_SESSION:
            return await self._unknown(peer, request, use)
        self._reported(peer, request, use, used, verdict, latest=latest)
        if verdict.outcome is Outcome.CLOSED:
            # What it used is charged as late; it is not to use more of what nobody holds money for.
            return _refusal(use.line, Result.UNKNOWN_SESSION_ID)
        if verdict.terminate or (wants and verdict.granted <= used):
            result = verdict.meaning.diameter
            ended = Result.CREDIT_LIMIT_REACHED if result == Result.SUCCESS else result
            if not request.controls:
                # The client is idle after such an answer, and need not say more (RFC 8506 section 7).
                await self._settle(peer, request, use, used, verdict)
            return _refusal(use.line, ended, final=True)
        if not wants:
            return Part(_line(use.line, result=Result.SUCCESS))
        return self._granted(use, verdict, used)

    async def _end(
        self, peer: Peer, request: CreditRequest, uses: Sequence[Use], base: str, *, following: bool
    ) -> Sequence[Part]:
        told = uses if request.controls or not request.multiple else []
        open_: list[str] = []
        if request.controls or request.multiple:
            ids = {use.call_id for use in told}
            try:
                open_ = await self.calls.others(peer, base, ids, following=following)
            except Busy:
                return [BUSY]
        cause = "" if request.cause is None else f"termination_cause {request.cause}"
        finish, silent = self._finish, self._silent
        parts = await _all(
            *(finish(peer, request, use, cause, following=following) for use in told),
            *(silent(peer, request, call_id, cause, following=following) for call_id in open_),
        )
        if not any(part.busy for part in parts):
            self.calls.over(peer.switch, base)
        return parts[: len(told)] + [part for part in parts[len(told) :] if part.busy]

    async def _finish(
        self, peer: Peer, request: CreditRequest, use: Use, cause: str, *, following: bool
    ) -> Part:
        if use.used > NUMBER_MAX:
            return _refusal(use.line, Result.RATING_FAILED)
        number = request.number
        try:
            total = await self.calls.total(
                peer, use.call_id, "stop", number, use.used, following=following
            )
        except Busy:
            return BUSY
        if total is None:
            return await self._unknown(peer, request, use)
        verdict = await self._board.stop_call(
            peer, use.call_id, total[0] * 1000, request_id=str(number), cause=cause
        )
        return BUSY if verdict.busy else Part(_line(use.line, result=Result.SUCCESS))

    async def _silent(
        self, peer: Peer, request: CreditRequest, call_id: str, cause: str, *, following: bool
    ) -> Part:
        """A service that the end of its session says nothing of: it ends as it was last reported."""
        number = request.number
        try:
            total = await self.calls.total(peer, call_id, "stop", number, 0, following=following)
        except Busy:
            return BUSY
        used = total[0] if total is not None else 0
        verdict = await self._board.stop_call(
            peer, call_id, used * 1000, request_id=str(number), cause=cause
        )
        return BUSY if verdict.busy else Part(Control(result=Result.SUCCESS))

    # --- how -------------------------------------------------------------------------------------

    async def _unknown(self, peer: Peer, request: CreditRequest, use: Use) -> Part:
        """A service of which nothing is known: a new one of its session, or one let through without us."""
        new = bool(request.controls) and use.line.requested is not None
        ending = request.kind is Kind.TERMINATION
        let_through = peer.on_failure == "allow" and use.used > 0
        if (ending or not new) and not let_through:
            if ending:
                # Should its beginning still come, by another way, it is not to hold anything.
                await self._board.stop_call(peer, use.call_id, use.used * 1000)
            return _refusal(use.line, Result.UNKNOWN_SESSION_ID)
        part = await self._begin(peer, request, use)
        if part.busy or part.failed or not use.used:
            return part
        used_ms = use.used * 1000
        number = str(request.number)
        if ending:
            verdict = await self._board.stop_call(peer, use.call_id, used_ms, request_id=number)
            return BUSY if verdict.busy else Part(_line(use.line, result=Result.SUCCESS))
        verdict = await self._board.interim(peer, use.call_id, used_ms, request_id=number)
        if verdict.busy:
            return BUSY
        self._reported(peer, request, use, use.used, verdict, latest=True)
        return self._granted(use, verdict, use.used)

    def _reported(
        self,
        peer: Peer,
        request: CreditRequest,
        use: Use,
        used: int,
        verdict: Verdict,
        *,
        latest: bool,
    ) -> None:
        call = self.calls.get(peer.switch, use.call_id)
        if call is None:
            client = Client(request.session_id, request.origin_host, request.origin_realm)
            party, _ = self._board.whose(peer, ask_of(peer, request, use))
            call = Call(peer.switch, use.call_id, client, party, verdict.call_id, stale=not latest)
        if latest:
            call.used, call.stale, call.final = max(call.used, used), False, verdict.final
        self.calls.note(call, request.number)

    async def _settle(
        self, peer: Peer, request: CreditRequest, use: Use, used: int, verdict: Verdict
    ) -> None:
        await self._board.stop_call(
            peer,
            use.call_id,
            used * 1000,
            request_id=str(request.number),
            cause=verdict.reason.value,
        )
        self.calls.forget(peer.switch, use.call_id)

    async def _is_free(self, peer: Peer, request: CreditRequest, use: Use) -> bool:
        """Whether nobody pays anything for this use: it need not be controlled then."""
        ask = ask_of(peer, request, use)
        party, _ = self._board.whose(peer, ask)
        return bool(party) and await self._events.is_free(
            ChargedUse(party, ask.called, ask.service, ask.caller, ask.lrn, ask.network)
        )

    def _granted(self, use: Use, verdict: Verdict, used: int) -> Part:
        left = max(0, verdict.granted - used)
        expires = verdict.reply.expires_at if verdict.reply is not None else None
        validity = _validity(use.unit, left, expires, self._board.clock())
        return Part(
            _line(
                use.line,
                granted=units_of(left, use.unit),
                validity=validity,
                result=Result.SUCCESS,
                final=verdict.final,
            )
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
        return replace(self._empty(request), failure_handling=_handling(peer))

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
            failure_handling=_handling(peer) if request.kind is Kind.INITIAL else None,
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


def error_text(result: int) -> str:
    """What a result means, for whoever reads a trace."""
    for meaning in MEANINGS.values():
        if meaning.diameter == result:
            return meaning.text
    return ""


def _handling(peer: Peer) -> FailureHandling:
    """What the client does while it gets no answer of us: as the peer's policy says."""
    if peer.on_failure == "allow":
        return FailureHandling.CONTINUE
    return FailureHandling.TERMINATE


def _line(line: Control, **answered: Any) -> Control:
    return Control(rating_group=line.rating_group, services=line.services, **answered)


def _refusal(line: Control, result: int, *, final: bool = False) -> Part:
    return Part(_line(line, result=result, final=final))


def _validity(unit: Unit, left: int, expires: datetime | None, now: datetime) -> int | None:
    """Seconds until the client must report: a call's when its grant is over, others' before we give up."""
    if unit is Unit.SECOND:
        return max(1, left)
    if expires is None:
        return None
    seconds = int((expires - now).total_seconds())
    return max(1, seconds - min(VALIDITY_MARGIN_SECONDS, seconds // 2))
