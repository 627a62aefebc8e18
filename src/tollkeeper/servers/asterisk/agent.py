"""The agent at an Asterisk: it follows the calls that FastAGI authorised while they are up.

It hears over the manager interface when a call is answered, sets its limit (``TIMEOUT(absolute)``) from
then on, asks for more in time and sets it again, ends calls, and compares what is open here with the
channels that are up there: regularly, and whenever it connects again. A list that failed says nothing.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import Coroutine
from decimal import Decimal
from typing import Any, Final

import structlog

from tollkeeper.core.reasons import MEANINGS, Reason
from tollkeeper.core.records import Session
from tollkeeper.errors import Busy
from tollkeeper.gateways.kill import KillFailed
from tollkeeper.servers.asks import switch_id_of
from tollkeeper.servers.asterisk.link import AmiLink, LinkLost, LoginRefused
from tollkeeper.servers.live_calls import LiveCall, LiveCalls
from tollkeeper.servers.switchboard import Switchboard
from tollkeeper.services.tasks import end
from tollkeeper.store.peers import Peer
from tollkeeper.telemetry import PeerMeter
from tollkeeper.wire.asterisk import ami

PORT: Final = 5038
USERNAME = "tollkeeper"
RETRY_SECONDS: Final = (0.2, 0.5, 1.0, 2.0, 5.0)
REFUSED_SECONDS: Final = 30.0
"""Asterisk may close an address out that tries a wrong secret often."""
RECONCILE_SECONDS: Final = 60
"""How often calls are compared (the peer's option ``reconcile_seconds``)."""
SECOND_LOOK_SECONDS: Final = 2.0
PING_SECONDS: Final = 10.0
SETTLE_SECONDS: Final = 2.0
"""So long an ended call's own report (``AGI(.../hangup)``) is waited for: it knows milliseconds."""
TASKS_MAX: Final = 20_000
EXTRA_CAUSE: Final = 21
_SECONDS = re.compile(r"[0-9]{1,9}(?:\.[0-9]{1,9})?")
_log = structlog.get_logger()


class AsteriskAgent:
    """Talks to one Asterisk until it is cancelled."""

    def __init__(self, board: Switchboard, peer: Peer) -> None:
        self._board = board
        self._peer = peer
        self._meter = PeerMeter.of(peer.code, peer.kind)
        self._link: AmiLink | None = None
        self._calls: LiveCalls
        self._tasks: set[asyncio.Task[None]] = set()
        self._seen: dict[str, int] = {}
        """What a call had used when it was last known to be up, in milliseconds."""
        self._missed: set[str] = set()
        self._beginning: set[str] = set()
        self._boot = ""
        self._wake = asyncio.Event()

    async def run(self) -> None:
        """Connect, follow the calls, connect again."""
        if not self._peer.secret:
            await self._without_manager()
        self._calls = LiveCalls(
            self._board,
            self._peer,
            alive=self._alive,
            extend=self._extend,
            hang_up=self._hang_up,
        )
        tries = 0
        try:
            while True:
                pause = RETRY_SECONDS[min(tries, len(RETRY_SECONDS) - 1)]
                tries += 1
                try:
                    await self._connect()
                    tries = 0
                    await self._follow()
                except LoginRefused as error:
                    self._meter.fault("wrong_secret", str(error))
                    pause = REFUSED_SECONDS
                except ami.MalformedAmi as error:
                    self._meter.fault("malformed", str(error))
                    pause = RETRY_SECONDS[-1]
                except (OSError, TimeoutError, ValueError) as error:
                    broken = self._link.broken if self._link is not None else None
                    if broken is not None:
                        self._meter.fault("malformed", str(broken))
                    else:
                        self._meter.fault("away", f"{type(error).__name__}: {error}")
                finally:
                    await self._disconnect()
                await asyncio.sleep(pause)
        finally:
            await self._calls.stop()
            await end(self._tasks)

    async def _without_manager(self) -> None:
        """The peer has no secret to log in with: its calls have Dial's limit, and nobody else ends them."""
        self._board.reach.add(self._peer.switch, self)
        try:
            await asyncio.Event().wait()
        finally:
            self._board.reach.remove(self._peer.switch, self)

    # --- the connection --------------------------------------------------------------------------

    async def _connect(self) -> None:
        tls = ssl.create_default_context() if self._peer.flag("tls") else None
        host, port = place_of(self._peer)
        self._link = await AmiLink.connect(
            host,
            port,
            username=self._peer.text("username", USERNAME),
            secret=self._peer.secret,
            heard=self._heard,
            tls=tls,
        )
        self._meter.connected(1)
        self._board.reach.add(self._peer.switch, self)

    async def _disconnect(self) -> None:
        link, self._link = self._link, None
        if link is None:
            return
        self._board.reach.remove(self._peer.switch, self)
        self._meter.connected(-1)
        self._note_seen()
        # Whether they are still up nobody knows now: nothing more is reported of them until they are
        # seen again. The limit that was set last holds in the switch.
        for call_id in self._calls.ids():
            self._calls.drop(call_id)
        await link.close()

    async def _follow(self) -> None:
        """While the connection is up."""
        link = self._connected()
        await self._note_boot()
        regular = float(max(1, self._peer.whole("reconcile_seconds", RECONCILE_SECONDS)))
        pause = 0.0
        loop = asyncio.get_running_loop()
        due = loop.time()
        while not link.lost:
            if self._wake.is_set() or loop.time() >= due:
                self._wake.clear()
                sure = await self._reconcile()
                # What was missing is looked for once more before it is taken for gone.
                pause = regular if sure else min(regular, SECOND_LOOK_SECONDS)
                due = loop.time() + pause
            if not await self._pause(link, max(0.05, min(PING_SECONDS, due - loop.time()))):
                await link.ask(lambda id_: ami.action("Ping", id_))
        raise LinkLost(link.lost)

    async def _pause(self, link: AmiLink, seconds: float) -> bool:
        """Wait; True when the connection was lost or there is something to look for before the time."""
        waits = [asyncio.ensure_future(link.wait()), asyncio.ensure_future(self._wake.wait())]
        try:
            done, _ = await asyncio.wait(
                waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED
            )
            return bool(done)
        finally:
            await end(waits)

    def _connected(self) -> AmiLink:
        if self._link is None:
            raise LinkLost("not connected")
        return self._link

    async def _note_boot(self) -> None:
        answer = await self._connected().ask(lambda id_: ami.action("CoreStatus", id_))
        boot = f"{answer.get('CoreStartupDate')} {answer.get('CoreStartupTime')}".strip()
        if self._boot and boot and boot != self._boot:
            # Its channels died with it: the comparison that follows finds and settles them.
            _log.warning("switch.restarted", peer=self._peer.code, started=boot)
            self._meter.fault("restarted", f"Asterisk started anew at {boot}", log=False)
            self._missed |= set(self._seen)
        self._boot = boot or self._boot

    def _note_seen(self) -> None:
        now = asyncio.get_running_loop().time()
        for call_id in self._calls.ids():
            call = self._calls.get(call_id)
            if call is not None:
                self._seen[call_id] = int(call.elapsed(now) * 1000)

    # --- events ----------------------------------------------------------------------------------

    def _heard(self, event: ami.Message) -> None:
        id_ = event.get("Uniqueid")
        if event.event == "DialEnd" and event.get("DialStatus") == "ANSWER" and id_:
            self._spawn(self._answered(id_, event.get("Channel")))
        elif event.event == "BridgeEnter" and id_ and event.get("Linkedid") == id_:
            call = self._calls.get(id_)
            if call is None or call.answered is None:
                self._spawn(self._answered(id_, event.get("Channel")))
        elif event.event == "Hangup" and id_:
            self._ended(id_, event)
        elif event.event == "Shutdown":
            _log.warning("switch.stops", peer=self._peer.code)

    async def _answered(self, call_id: str, channel: str) -> None:
        if call_id in self._beginning:
            return  # DialEnd and BridgeEnter tell the same
        self._beginning.add(call_id)
        try:
            await self._begin(call_id, channel)
        finally:
            self._beginning.discard(call_id)

    async def _begin(self, call_id: str, channel: str) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        call = self._calls.get(call_id)
        if call is not None and call.answered is not None:
            return
        session = await self._session(call_id)
        if session is None or not session.open:
            return  # not a call of ours
        verdict = await self._board.answered(self._peer, call_id)
        call = self._calls.restore(session, channel, loop.time() - began, call_id=call_id)
        if session.kill or not (verdict.allowed or verdict.busy):
            await self._hang_up(call, session.kill or verdict.reason.value)
            return
        await self._limit(call, session.granted_seconds - call.elapsed(loop.time()))

    def _ended(self, call_id: str, event: ami.Message) -> None:
        now = asyncio.get_running_loop().time()
        call = self._calls.drop(call_id)
        # After a connection was lost it is not known yet; it was up when it was last seen.
        seen = self._seen.pop(call_id, 0)
        used_ms = int(call.elapsed(now) * 1000) if call is not None else seen
        if call is None and event.get("Linkedid") != call_id:
            return  # the other side of a call
        cause = event.get("Cause")
        cause = cause if cause.isascii() and cause.isdigit() and len(cause) < 4 else ""
        self._spawn(self._settle(call_id, used_ms, cause))

    async def _settle(self, call_id: str, used_ms: int, cause: str) -> None:
        """Settle what nobody else has: the report of the extension ``h`` comes first, and is exact."""
        await asyncio.sleep(SETTLE_SECONDS)
        while True:
            session = await self._session(call_id)
            if session is None or not session.open:
                return
            verdict = await self._board.stop_call(self._peer, call_id, used_ms, cause=cause)
            if not verdict.busy:
                return
            await asyncio.sleep(SETTLE_SECONDS)

    async def _session(self, call_id: str) -> Session | None:
        while True:
            try:
                return await self._board.open_call(self._peer, call_id)
            except (Busy, OSError):
                await asyncio.sleep(1.0)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        if len(self._tasks) >= TASKS_MAX:
            work.close()
            self._meter.fault("overload", "more is heard of than can be worked on")
            return

        async def guarded() -> None:
            try:
                await work
            except (OSError, KillFailed, TimeoutError) as error:
                _log.warning("switch.away", peer=self._peer.code, error=str(error))
            except Exception:  # noqa: BLE001 - the other calls go on
                _log.exception("call.failed", peer=self._peer.code)

        task = asyncio.create_task(guarded(), name="asterisk event")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # --- limits and ends -------------------------------------------------------------------------

    async def _alive(self, call: LiveCall) -> bool:
        """Tell whether a call's channel is up. Asked before its usage is reported, which is for ever."""
        lines = (("Channel", str(call.handle)), ("Variable", "UNIQUEID"))
        answer = await self._connected().ask(lambda id_: ami.action("Getvar", id_, lines))
        if answer.success and answer.get("Value") in ("", call.call_id):
            return True
        if not answer.success and not _no_such_channel(answer):
            raise LinkLost(f"Getvar: {answer.get('Message')}")
        self._vanished(call)
        return False

    async def _extend(self, call: LiveCall, seconds: int) -> None:
        left = call.granted - call.elapsed(asyncio.get_running_loop().time())
        await self._limit(call, min(left, float(seconds)))

    async def _limit(self, call: LiveCall, seconds: float) -> None:
        """End the call so many seconds from now."""
        limit_ms = max(1, int(seconds * 1000))
        channel = str(call.handle)
        answer = await self._connected().ask(lambda id_: ami.set_timeout(id_, channel, limit_ms))
        if answer.success:
            return
        if not _no_such_channel(answer):
            raise LinkLost(f"the limit was not taken: {answer.get('Message')}")
        self._vanished(call)

    async def _hang_up(self, call: LiveCall, reason: str) -> None:
        if not await self._end_channel(str(call.handle), reason):
            self._vanished(call)

    def _vanished(self, call: LiveCall) -> None:
        """The switch knows no such channel: nothing more is reported of it, and the list decides."""
        now = asyncio.get_running_loop().time()
        if self._calls.drop(call.call_id) is not None:
            self._seen.setdefault(call.call_id, 0)
            _log.info("channel.gone", peer=self._peer.code, call=call.call_id, at=call.elapsed(now))
        self._wake.set()

    async def _end_channel(self, channel: str, reason: str) -> bool:
        """Hang a channel up; False where there is none."""
        known = reason in Reason._value2member_map_
        cause = MEANINGS[Reason(reason)].q850 if known else EXTRA_CAUSE
        try:
            answer = await self._connected().ask(lambda id_: ami.hangup(id_, channel, cause))
        except ValueError as error:
            raise KillFailed(str(error)) from error
        if not answer.success and not _no_such_channel(answer):
            raise KillFailed(f"the switch refused: {answer.get('Message')}")
        return answer.success

    async def end(self, switch: str, call_id: str, reason: str) -> None:  # noqa: ARG002
        """End a call; see :class:`tollkeeper.servers.reach.Ender`. There is one switch here."""
        if not self._peer.secret:
            raise KillFailed("the peer has no secret for the manager interface to end calls by")
        try:
            channel = await self._channel_of(switch_id_of(call_id))
            if channel:
                await self._end_channel(channel, reason)
        except (OSError, TimeoutError) as error:
            raise KillFailed(str(error)) from error

    async def _channel_of(self, call_id: str) -> str:
        """The name of a call's channel now; empty where there is none any more."""
        call = self._calls.get(call_id)
        if call is not None and call.handle:
            return str(call.handle)
        # A name that was noted may have changed (a masquerade): the list has the true one.
        channels = await self._connected().channels()
        return next((one.name for one in channels if one.uniqueid == call_id), "")

    # --- comparing -------------------------------------------------------------------------------

    async def _reconcile(self) -> bool:
        """Compare open sessions with the channels that are up; False when one is to be looked for again.

        The sessions are read first: a channel of a call that began later is in the list, not the reverse.
        """
        try:
            sessions = await self._board.open_calls(self._peer)
            channels = {one.uniqueid: one for one in await self._connected().channels()}
        except (Busy, LinkLost) as error:
            self._meter.fault("unknown_calls", str(error))
            if self._connected().lost:
                raise
            return True
        sure = True
        missed: set[str] = set()
        for session in sessions:
            call_id = call_id_in(session)
            channel = channels.get(call_id)
            if channel is not None:
                await self._known_again(session, channel)
            elif call_id in self._missed:
                await self._gone(session)
            else:
                missed.add(call_id)
                sure = False
        self._missed = missed
        for call_id in self._calls.ids():
            if call_id not in channels:
                # Found again by the next list, it is followed again; until then it says nothing.
                self._calls.drop(call_id)
        self._note_seen()
        kept = missed.union(self._calls.ids())
        self._seen = {call_id: ms for call_id, ms in self._seen.items() if call_id in kept}
        return sure

    async def _known_again(self, session: Session, channel: ami.Channel) -> None:
        """A call that is up and that this agent has not seen begin."""
        call_id = call_id_in(session)
        call = self._calls.get(call_id)
        if call is not None and (call.answered is not None or not channel.bridged):
            call.handle = channel.name
            return
        if session.answered_at is not None:
            elapsed = (self._board.clock() - session.answered_at).total_seconds()
        elif channel.bridged:
            elapsed = await self._since_answer(channel.name)
            await self._board.answered(self._peer, call_id)
        else:
            return  # it rings: its limit was set when it was authorised
        live = self._calls.restore(session, channel.name, max(0.0, elapsed), call_id=call_id)
        _log.info("call.known_again", peer=self._peer.code, call=call_id)
        if session.kill:
            await self._hang_up(live, session.kill)
            return
        await self._limit(live, session.granted_seconds - elapsed)
        if live.final or session.granted_seconds - elapsed < 1:
            await self._calls.renew(call_id)

    async def _since_answer(self, channel: str) -> float:
        """Seconds since a channel was answered; 0 where the switch does not say."""
        lines = (("Channel", channel), ("Variable", "CDR(billsec,f)"))
        answer = await self._connected().ask(lambda id_: ami.action("Getvar", id_, lines))
        text = answer.get("Value")
        return float(Decimal(text)) if _SECONDS.fullmatch(text) is not None else 0.0

    async def _gone(self, session: Session) -> None:
        """Neither of two complete lists had its channel: it ended while nobody heard."""
        call_id = call_id_in(session)
        used_ms = max(session.used_ms, self._seen.get(call_id, 0))
        self._calls.drop(call_id)
        verdict = await self._board.stop_call(self._peer, call_id, used_ms, cause="lost_stop")
        if not verdict.busy:
            self._seen.pop(call_id, None)
        _log.warning(
            "call.gone", peer=self._peer.code, call=call_id, used_ms=used_ms, busy=verdict.busy
        )


def place_of(peer: Peer) -> tuple[str, int]:
    """Where a switch's manager interface is: the option ``connect`` (``host:port``), or its address.

    Raises:
        OSError: neither is set.
    """
    host, _, port = peer.text("connect").rpartition(":")
    if host and port.isascii() and port.isdigit():
        return host.removeprefix("[").removesuffix("]"), int(port)
    alone = peer.text("connect") or next(iter(peer.addresses), "").partition("/")[0]
    if not alone:
        raise OSError("neither its option connect nor an address is set")
    return alone, PORT


def call_id_in(session: Session) -> str:
    """The switch's own id of a call."""
    return switch_id_of(session.key.partition("/")[2])


def _no_such_channel(answer: ami.Message) -> bool:
    return "no such channel" in answer.get("Message").lower()
