"""The calls that are up at one switch: asked for more in time, told when there is, ended at the end.

What every switch that we are connected to needs, whatever it speaks: the limit in the switch is the
first to end a call whose money has ended, and this is the second.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import structlog

from tollkeeper.core.records import Session
from tollkeeper.gateways.kill import KillFailed
from tollkeeper.servers.asks import Verdict
from tollkeeper.servers.switchboard import Switchboard
from tollkeeper.services.tasks import end
from tollkeeper.store.peers import Peer

MARGIN_SHARE = 0.3
MARGIN_MAX_SECONDS = 30.0
MARGIN_MIN_SECONDS = 1.0
"""More is asked for when so much of a slice is left: 30 % of it, from 1 to 30 seconds."""
OVERDUE_SECONDS = 3.0
"""A call that is still up so long after its grant is ended by us."""
RENEWALS_AT_ONCE = 32
"""After a payment all calls of a large customer are asked about at once; a switch has one connection."""
AGAIN_SECONDS = 2.0
"""While nothing can be charged, it is tried again so often."""
_log = structlog.get_logger()


@dataclass(slots=True)
class LiveCall:
    """A call that was authorised; ``handle`` is what its agent needs to reach it.

    ``granted`` seconds since the answer are paid for; ``answered`` is the loop's time of the answer.
    ``at_work``: it is being renewed; ``again``: and is to be once more after that.
    """

    call_id: str
    party: str
    payers: frozenset[int]
    granted: int
    final: bool
    handle: object = None
    answered: float | None = None
    timer: asyncio.TimerHandle | None = field(default=None, repr=False)
    at_work: bool = field(default=False, repr=False)
    again: bool = field(default=False, repr=False)

    def elapsed(self, now: float) -> float:
        """Seconds since the answer; 0 before it."""
        return max(0.0, now - self.answered) if self.answered is not None else 0.0


class LiveCalls:
    """The calls of one peer.

    ``extend(call, seconds)`` tells the switch that so many seconds are left from now on;
    ``hang_up(call, reason)`` asks it to end a call, and may raise KillFailed. ``alive(call)`` asks the
    switch whether a call is up: usage that was reported is charged, and were a call renewed unseen, it
    might have ended long before. It may raise ConnectionError: unknown is not gone, and not up.
    """

    def __init__(
        self,
        board: Switchboard,
        peer: Peer,
        *,
        extend: Callable[[LiveCall, int], Awaitable[None]],
        hang_up: Callable[[LiveCall, str], Awaitable[None]],
        alive: Callable[[LiveCall], Awaitable[bool]],
    ) -> None:
        self._board = board
        self._peer = peer
        self._extend = extend
        self._hang_up = hang_up
        self._alive = alive
        self._calls: dict[str, LiveCall] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._deaf = board.on_money(self._money_changed)
        self._loop = asyncio.get_running_loop()
        self._renewals = asyncio.Semaphore(RENEWALS_AT_ONCE)

    def __len__(self) -> int:
        """How many calls are up or ringing."""
        return len(self._calls)

    def __contains__(self, call_id: str) -> bool:
        """Tell whether a call is up or ringing."""
        return call_id in self._calls

    def get(self, call_id: str) -> LiveCall | None:
        """A call by the switch's id."""
        return self._calls.get(call_id)

    def ids(self) -> list[str]:
        """The ids of all calls."""
        return list(self._calls)

    def add(self, call_id: str, verdict: Verdict, handle: object = None) -> LiveCall:
        """A call was authorised and rings; ``call_id`` is what the switch calls it."""
        self.drop(call_id)
        call = LiveCall(
            call_id,
            verdict.party,
            self._board.payers(verdict.party),
            verdict.granted,
            verdict.final,
            handle,
        )
        self._calls[call_id] = call
        return call

    def restore(
        self, session: Session, handle: object, elapsed: float | None, *, call_id: str = ""
    ) -> LiveCall:
        """A call that was up before we began; ``elapsed`` seconds since its answer, None if it rings.

        ``call_id`` is what the switch calls it, where its agent goes by that and not by sessions' ids.
        """
        party = self._board.party_code(session.party_id)
        call_id = call_id or session.key.partition("/")[2]
        final = session.granted_seconds < session.slice_seconds
        self.drop(call_id)
        call = LiveCall(
            call_id, party, self._board.payers(party), session.granted_seconds, final, handle
        )
        self._calls[call_id] = call
        if elapsed is not None:
            call.answered = self._loop.time() - elapsed
            self._watch(call)
        return call

    def answered(self, call_id: str, *, ago: float = 0.0) -> LiveCall | None:
        """The call was answered ``ago`` seconds before now; again is no news."""
        call = self._calls.get(call_id)
        if call is not None and call.answered is None:
            call.answered = self._loop.time() - ago
            self._watch(call)
        return call

    def drop(self, call_id: str) -> LiveCall | None:
        """The call is over."""
        call = self._calls.pop(call_id, None)
        if call is not None and call.timer is not None:
            call.timer.cancel()
            call.timer = None
        return call

    async def renew(self, call_id: str) -> None:
        """Report a call's usage now, if it is up, and tell the switch if there is more.

        While that is done already it is done once more afterwards: two at once could tell the switch
        the shorter time last.
        """
        call = self._calls.get(call_id)
        if call is None:
            return
        if call.at_work:
            call.again = True
            return
        call.at_work = True
        try:
            while True:
                call.again = False
                async with self._renewals:
                    await self._renew(call)
                if not call.again:
                    return
        finally:
            call.at_work = False

    async def _renew(self, call: LiveCall) -> None:
        call_id = call.call_id
        if call.answered is None or self._calls.get(call_id) is not call:
            return
        if not await self._alive(call):
            # Its end is on its way, or the next comparison with the switch finds that it was lost.
            if self._calls.get(call_id) is call:
                self._set_timer(call, AGAIN_SECONDS, self._due)
            return
        used_ms = int(call.elapsed(self._loop.time()) * 1000)
        verdict = await self._board.interim(self._peer, call_id, used_ms)
        if self._calls.get(call_id) is not call:
            return
        if verdict.busy:
            self._set_timer(call, AGAIN_SECONDS, self._due)
            return
        if verdict.terminate or not verdict.allowed:
            await self._end(call, verdict.reason.value or "no_more_credit")
            return
        if verdict.granted > call.granted:
            told, call.granted = call.granted, verdict.granted
            left = verdict.granted - call.elapsed(self._loop.time())
            try:
                await self._extend(call, max(1, int(left + 0.999)))
            except BaseException:
                call.granted = told  # so that it is told with the next look
                raise
        call.final = verdict.final
        self._watch(call)

    async def stop(self) -> None:
        """Forget all calls; they go on, and are known again after the next beginning."""
        self._deaf()
        for call_id in self.ids():
            self.drop(call_id)
        await end(self._tasks)

    def _watch(self, call: LiveCall) -> None:
        """Set the time of the next look at a call that was answered."""
        left = call.granted - call.elapsed(self._loop.time())
        if call.final:
            self._set_timer(call, left + OVERDUE_SECONDS, self._overdue)
            return
        slice_ = self._peer.whole("slice", 300)
        margin = min(MARGIN_MAX_SECONDS, max(MARGIN_MIN_SECONDS, slice_ * MARGIN_SHARE))
        self._set_timer(call, max(0.05, left - margin), self._due)

    def _set_timer(
        self, call: LiveCall, seconds: float, then: Callable[[LiveCall], Awaitable[None]]
    ) -> None:
        if call.timer is not None:
            call.timer.cancel()
        call.timer = self._loop.call_later(max(0.0, seconds), self._spawn, then, call)

    def _spawn(self, then: Callable[[LiveCall], Awaitable[None]], call: LiveCall) -> None:
        async def guarded() -> None:
            try:
                await then(call)
            except (OSError, KillFailed, ConnectionError) as error:
                # The switch is away; its own limit holds, and we look again.
                _log.warning("switch.away", peer=self._peer.code, error=str(error))
                if self._calls.get(call.call_id) is call:
                    self._set_timer(call, AGAIN_SECONDS, then)
            except Exception:  # noqa: BLE001 - one that ends would leave its calls without anybody
                _log.exception("call.failed", peer=self._peer.code, call=call.call_id)

        task = self._loop.create_task(guarded(), name="live-call")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _due(self, call: LiveCall) -> None:
        await self.renew(call.call_id)

    async def _overdue(self, call: LiveCall) -> None:
        if self._calls.get(call.call_id) is call:
            await self._end(call, "no_more_credit")

    async def _end(self, call: LiveCall, reason: str) -> None:
        await self._hang_up(call, reason)
        # Until its end is heard of, it is asked again.
        if self._calls.get(call.call_id) is call:
            self._set_timer(call, OVERDUE_SECONDS, self._overdue)

    def _money_changed(self, party_id: int) -> None:
        for call in self._calls.values():
            if call.final and call.answered is not None and party_id in call.payers:
                self._spawn(self._due, call)
