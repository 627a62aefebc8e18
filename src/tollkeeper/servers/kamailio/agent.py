"""The agent at a Kamailio that has the configuration of ``tollkeeper connect kamailio``.

It connects to the evapi port, decides about new calls, hears of answers and ends, tells Kamailio of more
time and ends calls on time. What Kamailio reports is acknowledged when it is in the books, and told again
until then. Kamailio's own timer is set a second later than the end of the money: it counts in whole
seconds, and ends the call where we cannot.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any

import structlog

from tollkeeper.core.reasons import MEANINGS, Reason
from tollkeeper.gateways.kill import KillFailed
from tollkeeper.servers.answers import Room
from tollkeeper.servers.asks import Ask, Verdict
from tollkeeper.servers.kamailio.calls import Line, Lines, line_of
from tollkeeper.servers.kamailio.link import (
    KamailioLink,
    LinkLost,
    SecretRefused,
    SwitchClock,
    used_ms,
)
from tollkeeper.servers.kamailio.rpc import KamailioRpc, RpcFailed
from tollkeeper.servers.kamailio.watch import Watch
from tollkeeper.servers.live_calls import LiveCall, LiveCalls
from tollkeeper.servers.switchboard import Switchboard
from tollkeeper.services.tasks import end
from tollkeeper.store.peers import Peer
from tollkeeper.telemetry import PeerMeter
from tollkeeper.wire.kamailio import evapi

RETRY_SECONDS = (0.2, 0.5, 1.0, 2.0)
UNDER_WAY_MAX = 2048
"""Messages of one Kamailio that may be under way; new calls beyond are refused at once."""
TIMER_SLACK = 1
"""Seconds that Kamailio's timer is set later than the end of the money."""
CUT_EARLY_SECONDS = 0.1
"""A call is ended so long before its money does: the request takes its way, and seconds are begun."""
BYE_WAIT_SECONDS = 0.5
"""So long the report of an end is waited for after a BYE of Kamailio's own."""
CLOCK_JUMP_MS = 5_000
_log = structlog.get_logger()


class KamailioAgent:
    """Talks to one Kamailio until it is cancelled."""

    def __init__(self, board: Switchboard, peer: Peer) -> None:
        self._board, self._peer = board, peer
        self._meter = PeerMeter.of(peer.code, peer.kind)
        host, _, port = peer.text("connect").rpartition(":")
        self._host, self._port = host.strip("[]"), int(port)
        self._clock = SwitchClock()
        self._room = Room(UNDER_WAY_MAX)
        self._lines = Lines()
        self._tasks: set[asyncio.Task[None]] = set()
        self._link: KamailioLink | None = None
        self._rpc: KamailioRpc
        self._calls: LiveCalls
        self._watch: Watch

    async def run(self) -> None:
        """Connect, follow the calls, connect again."""
        self._rpc = KamailioRpc(self._peer.text("rpc") or f"http://{self._host}:5060/RPC")
        self._calls = LiveCalls(
            self._board,
            self._peer,
            extend=self._extend,
            hang_up=self._hang_up,
            alive=self._alive,
        )
        self._watch = Watch(self, self._rpc)
        tries = 0
        try:
            while True:
                began = asyncio.get_running_loop().time()
                try:
                    await self._connected()
                except SecretRefused as error:
                    self._meter.fault("wrong_secret", str(error))
                except (OSError, LinkLost, TimeoutError) as error:
                    self._meter.fault("away", str(error))
                except evapi.MalformedEvapi as error:
                    self._meter.fault("malformed", error.detail)
                if asyncio.get_running_loop().time() - began > RETRY_SECONDS[-1]:
                    tries = 0
                await asyncio.sleep(RETRY_SECONDS[min(tries, len(RETRY_SECONDS) - 1)])
                tries += 1
        finally:
            for line in self._lines.by_session.values():
                line.quiet()
            await self._calls.stop()
            await end(self._tasks)
            await self._rpc.close()

    async def _connected(self) -> None:
        """One connection from its beginning to its end."""
        link = await KamailioLink.connect(self._host, self._port, self._take)
        self._link = link
        parts = [asyncio.create_task(link.read(), name="kamailio read")]
        try:
            parts.append(asyncio.create_task(self._follow(link), name="kamailio follow"))
            await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
            for part in parts:
                if part.done():
                    part.result()
        finally:
            self._link = None
            await link.close()
            await end(parts)
            for part in parts:
                with suppress(asyncio.CancelledError):
                    part.exception()

    async def _follow(self, link: KamailioLink) -> None:
        """Be there, and compare calls, until the connection ends."""
        await link.introduce(self._peer.secret)
        watch = asyncio.create_task(self._watch.run(), name="kamailio watch")
        self._board.reach.add(self._peer.switch, self)
        self._meter.connected(+1)
        try:
            await link.keep_alive(self._peer.secret)
        finally:
            self._meter.connected(-1)
            self._board.reach.remove(self._peer.switch, self)
            await end([watch])

    # --- for the watch ---------------------------------------------------------------------------

    @property
    def board(self) -> Switchboard:
        """Where calls are charged."""
        return self._board

    @property
    def peer(self) -> Peer:
        """The Kamailio."""
        return self._peer

    @property
    def meter(self) -> PeerMeter:
        """Its numbers."""
        return self._meter

    @property
    def calls(self) -> LiveCalls:
        """Its calls that are up or ring."""
        return self._calls

    @property
    def lines(self) -> Lines:
        """By what they are reached."""
        return self._lines

    def elapsed(self, answered: str) -> float:
        """Seconds since a moment of Kamailio's clock."""
        return self._clock.ago(answered, self._board.clock())

    def renew_soon(self, session_id: str) -> None:
        """Ask for more time for a call now."""
        self._spawn(self._calls.renew(session_id), _nothing)

    # --- what Kamailio says ----------------------------------------------------------------------

    def _take(self, message: evapi.FromKamailio) -> None:
        if isinstance(message, evapi.Authorise):
            self._clock.heard(message.call.at, self._board.clock())
            if self._room.enter("authorise"):
                self._spawn(self._authorise(message), self._room.leave)
            else:
                self._meter.fault("flood", "new calls are refused: too many are under way")
                self._refuse(message, Reason.BUSY)
            return
        self._clock.heard(message.at, self._board.clock())
        # What finds no room is told again by Kamailio.
        if isinstance(message, evapi.Report) and self._room.enter("stop"):
            self._spawn(self._report(message), self._room.leave)

    def _spawn(self, work: Coroutine[Any, Any, None], after: Callable[[], None]) -> None:
        async def guarded() -> None:
            try:
                await work
            except (KillFailed, RpcFailed, LinkLost) as error:
                self._meter.fault("away", str(error))
            except Exception:  # noqa: BLE001 - one call's trouble is not the others'
                _log.exception("kamailio.failed", peer=self._peer.code)
            finally:
                after()

        task = asyncio.create_task(guarded(), name="kamailio call")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _authorise(self, message: evapi.Authorise) -> None:
        call = message.call
        dialog = (call.h_entry, call.h_id)
        asked_as = self._lines.session_id(call.call_id, dialog)
        verdict = await self._ask(call, asked_as)
        if not verdict.allowed:
            self._refuse(message, verdict.reason, verdict)
            return
        self._begin(verdict, Line(dialog, call.call_id, call.from_tag))
        self._send(
            evapi.Answer(
                message.index,
                message.label,
                1,
                seconds=verdict.granted + TIMER_SLACK,
                session=verdict.call_id,
                account=verdict.party,
            )
        )

    async def _ask(self, call: evapi.Call, session_id: str) -> Verdict:
        ask = Ask(
            call_id=session_id,
            called=call.called,
            caller=call.caller,
            address=call.source,
            account=call.account,
        )
        return await self._board.authorise(self._peer, ask)

    def _begin(self, verdict: Verdict, line: Line) -> None:
        """Follow a call that may proceed."""
        if verdict.call_id not in self._calls:
            self._calls.add(verdict.call_id, verdict, self._lines.add(verdict.call_id, line))
            self._keep(verdict.call_id, line)

    def _keep(self, session_id: str, line: Line) -> None:
        self._board.handles.keep(f"{self._peer.switch}/{session_id}", line.kept())

    def _refuse(
        self, message: evapi.Authorise, reason: Reason, verdict: Verdict | None = None
    ) -> None:
        meaning = verdict.meaning if verdict is not None else MEANINGS[reason]
        answer = evapi.Answer(
            message.index, message.label, 0, code=meaning.sip, reason=meaning.text.rstrip(".")
        )
        self._send(answer)

    async def _report(self, report: evapi.Report) -> None:
        """Enter a report in the books; Kamailio repeats it until that is done."""
        handlers: dict[type[evapi.Report], Callable[[evapi.Report], Awaitable[bool]]] = {
            evapi.Started: self._started,
            evapi.Stopped: self._stopped,
            evapi.Failed: self._failed,
            evapi.ByeSent: self._bye_sent,
        }
        if await handlers[type(report)](report):
            self._send(evapi.Heard(report.id))

    async def _started(self, report: evapi.Report) -> bool:
        session_id = report.session or await self._unasked(report)
        if session_id is None:
            return False
        if not session_id or self._lines.is_over(session_id):
            return True
        return await self.answered(session_id, report.answered or report.at, self._line_of(report))

    async def answered(self, session_id: str, moment: str, line: Line) -> bool:
        """A call was answered; False: that could not be noted."""
        verdict = await self._board.answered(self._peer, session_id)
        if verdict.busy:
            return False
        call = self._calls.answered(session_id, ago=self.elapsed(moment))
        if not verdict.allowed:
            # Its session is over, as far as we know: nobody would pay for the rest.
            self._meter.fault("up_without_session", f"{session_id}: {verdict.meaning.text}")
            await self.end_dialog(line)
            return True
        if call is not None:
            known = line_of(call)
            known.answered = known.answered or moment
            self._keep(session_id, known)
            self.set_cut(call)
        return True

    async def _stopped(self, report: evapi.Report) -> bool:
        session_id = report.session or await self._unasked(report)
        if session_id is None:
            return False
        if not session_id or self._lines.is_over(session_id):
            return True
        used = self._used(report, session_id)
        cause = "bye" if report.method == "BYE" else "ended"
        return await self.settle(session_id, used, cause)

    def _used(self, report: evapi.Report, session_id: str) -> int:
        """Milliseconds of the call by Kamailio's clock, but for one that jumped."""
        used = used_ms(report.answered, report.at)
        call = self._calls.get(session_id)
        ours = None
        if call is not None and call.answered is not None:
            ours = int(call.elapsed(asyncio.get_running_loop().time()) * 1000)
        if used is None:
            return ours or 0
        if ours is not None and used > ours + CLOCK_JUMP_MS:
            self._meter.fault(
                "clock", f"{session_id}: {used} ms are reported of {ours} ms that passed"
            )
            return ours
        return used

    async def _failed(self, report: evapi.Report) -> bool:
        """A call that was not answered: what it held goes back."""
        session_id = report.session or self._lines.of_dialog((report.h_entry, report.h_id))
        if session_id:
            return self._lines.is_over(session_id) or await self.settle(session_id, 0, "failed")
        # Refused, or asked of a process that is gone: then its session is still open.
        return await self._watch.release(report.call_id, (report.h_entry, report.h_id))

    async def _bye_sent(self, report: evapi.Report) -> bool:
        """All that may be left of a lost stop: the call is settled by it if the stop does not come."""
        session_id = self._lines.of_call(report.call_id, report.from_tag, report.to_tag)
        line = self._lines.by_session.get(session_id)
        if line is None or line.bye is not None:
            return True
        stop = evapi.Stopped(
            id=report.id,
            at=report.at,
            call_id=report.call_id,
            session=session_id,
            answered=line.answered,
            h_entry=line.dialog[0],
            h_id=line.dialog[1],
        )
        line.bye = asyncio.get_running_loop().call_later(
            BYE_WAIT_SECONDS, lambda: self._spawn(self._after_bye(stop), _nothing)
        )
        # Not acknowledged yet: should we go away meanwhile, it is told again.
        return False

    async def _after_bye(self, stop: evapi.Stopped) -> None:
        line = self._lines.by_session.get(stop.session)
        if line is not None:
            line.bye = None
            self._meter.fault("stop_lost", f"{stop.session}: only its BYE was reported")
            await self._report(stop)

    async def _unasked(self, report: evapi.Report) -> str | None:
        """The session of a call that Kamailio let pass alone; "" if it has none, None: ask again."""
        dialog = (report.h_entry, report.h_id)
        if known := self._lines.of_dialog(dialog):
            return known
        try:
            call = evapi.call_of(report)
        except evapi.MalformedEvapi as error:
            self._meter.fault("malformed", error.detail)
            return ""
        if call is None:
            self._meter.fault("not_asked", f"{report.call_id}: a call that nobody asked for")
            return ""
        verdict = await self._ask(call, self._lines.session_id(call.call_id, dialog))
        if verdict.busy:
            return None
        line = Line(dialog, call.call_id, call.from_tag)
        if not verdict.allowed:
            _log.error(
                "risk.unpaid", peer=self._peer.code, call=call.call_id, reason=verdict.reason
            )
            if isinstance(report, evapi.Started):
                await self.end_dialog(line)
            return ""
        self._begin(verdict, line)
        if isinstance(report, evapi.Started) and (live := self._calls.get(verdict.call_id)):
            await self._extend(live, verdict.granted)
        return verdict.call_id

    def _line_of(self, report: evapi.Report) -> Line:
        return Line((report.h_entry, report.h_id), report.call_id, report.from_tag)

    # --- what we say -----------------------------------------------------------------------------

    def _send(self, message: evapi.ToKamailio) -> None:
        if self._link is not None:
            self._link.send(message)

    async def settle(self, session_id: str, used: int, cause: str) -> bool:
        """A call is over; False: that could not be noted."""
        verdict = await self._board.stop_call(self._peer, session_id, used, cause=cause)
        if verdict.busy:
            return False
        self._calls.drop(session_id)
        self._lines.drop(session_id)
        return True

    async def set_limit(self, line: Line, seconds: float) -> bool:
        """Tell Kamailio how long a call may last from now on; False: it does not know the call.

        Raises:
            LinkLost: it was not told.
        """
        if self._link is None:
            raise LinkLost("Kamailio is not connected")
        whole = max(1, int(seconds + 0.999)) + TIMER_SLACK
        return await self._link.ask(lambda id_: evapi.Limit(id_, *line.dialog, whole))

    def set_cut(self, call: LiveCall) -> None:
        """End the call by ourselves when its money ends, if it is not renewed until then."""
        line, loop = line_of(call), asyncio.get_running_loop()
        if line.cut is not None:
            line.cut.cancel()
        left = call.granted - call.elapsed(loop.time()) - CUT_EARLY_SECONDS
        line.cut = loop.call_later(max(0.0, left), self._cut, call)

    def _cut(self, call: LiveCall) -> None:
        line_of(call).cut = None
        if self._calls.get(call.call_id) is not call:
            return
        if call.granted - call.elapsed(asyncio.get_running_loop().time()) > 2 * CUT_EARLY_SECONDS:
            self.set_cut(call)
        elif self._link is not None:
            self._spawn(self._hang_up(call, "no_more_credit"), _nothing)

    async def _alive(self, call: LiveCall) -> bool:
        """Tell whether Kamailio has the call: setting the limit that it has changes nothing."""
        left = call.granted - call.elapsed(asyncio.get_running_loop().time())
        if await self.set_limit(line_of(call), left):
            return True
        self._watch.look_soon()
        return False

    async def _extend(self, call: LiveCall, seconds: int) -> None:
        line = line_of(call)
        if await self.set_limit(line, seconds):
            line.seen_ms = int(call.elapsed(asyncio.get_running_loop().time()) * 1000)
        else:
            self._watch.look_soon()
        self.set_cut(call)

    async def _hang_up(self, call: LiveCall, reason: str) -> None:
        line = line_of(call)
        line.ended = reason
        if call.answered is None:
            # A ringing call has nobody to send a BYE to: it ends with its answer.
            await self.set_limit(line, 0)
        else:
            await self.end_dialog(line)

    async def end_dialog(self, line: Line) -> None:
        """End a call with a BYE to both ends, by either way that leads there.

        Raises:
            KillFailed: Kamailio did not take it.
        """
        if self._link is not None:
            with suppress(LinkLost):
                await self._link.ask(lambda id_: evapi.End(id_, *line.dialog))
                return
        try:
            await self._rpc.end(*line.dialog)
        except RpcFailed as error:
            raise KillFailed(str(error)) from error

    async def end(self, switch: str, call_id: str, reason: str) -> None:
        """End a call because somebody asked for it; one that is not there has ended.

        Raises:
            KillFailed: Kamailio did not take it.
        """
        call = self._calls.get(call_id)
        if call is not None:
            try:
                await self._hang_up(call, reason)
            except LinkLost as error:
                raise KillFailed(str(error)) from error
            return
        kept = await self._board.handles.find(f"{switch}/{call_id}")
        line = Line.read(kept) if kept is not None else None
        if line is not None:
            await self.end_dialog(line)


def _nothing() -> None:
    """No place has to be given back."""
