"""The calls of one FreeSWITCH: authorised where they are parked, limited, renewed, ended, settled.

A parked call is authorised, its limit is set to count from the answer (``execute_on_answer`` with
``sched_hangup``, kept by the switch itself, so that it holds while we are away), and it is sent on to
the routing context. Events may come twice, late or never: what is done with each is idempotent, and
what was missed is found by :mod:`tollkeeper.servers.freeswitch.sync`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

import structlog

from tollkeeper.core.reasons import MEANINGS, Reason
from tollkeeper.core.records import Session
from tollkeeper.errors import TollkeeperError
from tollkeeper.gateways.kill import KillFailed
from tollkeeper.servers.answers import Room
from tollkeeper.servers.asks import Verdict, switch_id_of
from tollkeeper.servers.freeswitch.socket import CommandFailed, EventSocket
from tollkeeper.servers.freeswitch.words import (
    ENDED,
    GRANTED,
    ON_ANSWER,
    RAN_OUT,
    REASON,
    ROUTING_CONTEXT,
    SIP,
    ask_of_event,
    cause_of,
    cause_of_end,
    elapsed_of,
    is_channel,
    is_ours,
    used_ms_of,
)
from tollkeeper.servers.live_calls import LiveCall, LiveCalls
from tollkeeper.servers.switchboard import Switchboard
from tollkeeper.servers.turns import Turn, Turns
from tollkeeper.services.tasks import end
from tollkeeper.store.peers import Peer
from tollkeeper.telemetry import PeerMeter
from tollkeeper.wire.esl import commands
from tollkeeper.wire.esl.codec import Event, MalformedEsl
from tollkeeper.wire.esl.tables import parse_tasks

EVENTS = (
    "CHANNEL_PARK",
    "CHANNEL_ANSWER",
    "CHANNEL_HANGUP_COMPLETE",
    "ADD_SCHEDULE",
    "DEL_SCHEDULE",
    "EXE_SCHEDULE",
    "BACKGROUND_JOB",
)
TELL_AGAIN = (0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0)
"""Seconds after which a report that could not be taken is repeated; the last one again and again."""
TELL_MOST = 2000
LIMIT_AGAIN_SECONDS = 1.0
CALLS_MOST = 2048
"""New calls of a switch that are worked on at once."""
TASKS_MOST = 4 * CALLS_MOST
_log = structlog.get_logger()


@dataclass(slots=True)
class Channel:
    """What is known of a call's channel.

    ``tasks`` are its scheduled hangups, ``sent`` says that it went on to the routing context,
    ``sequence`` is that of the event of its park, ``seen`` the seconds after the answer at which the
    switch last had it in its list. ``limiting``: its limit is to be set in the switch (anew).
    """

    called: str = ""
    sent: bool = False
    sequence: int = 0
    seen: float = 0.0
    tasks: set[int] = field(default_factory=set)
    limiting: bool = False
    at_work: bool = False


def channel_of(call: LiveCall) -> Channel:
    """The channel of a call of these agents."""
    assert isinstance(call.handle, Channel)
    return call.handle


class Calls:
    """The calls of a peer; ``socket`` is None while the switch is not connected."""

    def __init__(self, board: Switchboard, peer: Peer, *, most: int = CALLS_MOST) -> None:
        self.board, self.peer = board, peer
        self.live = LiveCalls(
            board, peer, extend=self._extend, hang_up=self._hang_up, alive=self._alive
        )
        self.socket: EventSocket | None = None
        self.core = ""
        """Which run of the switch it is."""
        self.meter = PeerMeter.of(peer.code, peer.kind)
        self._room = Room(most)
        self._turns = Turns()
        self._tasks: set[asyncio.Task[None]] = set()

    async def stop(self) -> None:
        """Forget all calls; they go on."""
        await self.live.stop()
        if self._tasks:
            # Ends of calls that are being told are given a moment; later the records tell them.
            await asyncio.wait(list(self._tasks), timeout=1.0)
        await end(self._tasks)

    def limits_again(self) -> None:
        """Set the limits that could not be set while the switch was away; ask where money ran out."""
        for call_id in self.live.ids():
            call = self.live.get(call_id)
            if call is None:
                continue
            if channel_of(call).limiting:
                self.spawn(self._keep_limit(call))
            if call.final:
                self.spawn(self.live.renew(call_id))

    # --- events ----------------------------------------------------------------------------------

    def hear(self, event: Event) -> None:
        """Take an event; what it asks for is done beside the connection."""
        name, uuid = event.name, event.uuid
        if name.endswith("_SCHEDULE"):
            self._task_changed(name, event)
        elif not is_channel(uuid):
            return
        elif name == "CHANNEL_PARK":
            if is_ours(event):
                self.park(event)
        elif name == "CHANNEL_ANSWER":
            if uuid in self.live or is_ours(event):
                self.spawn(self._in_turn(uuid, lambda: self._answered(event)))
        elif name == "CHANNEL_HANGUP_COMPLETE" and (
            uuid in self.live or (is_ours(event) and not event.variable(REASON))
        ):
            self.spawn(self._in_turn(uuid, lambda: self._hung_up(event)))

    def park(self, event: Event) -> None:
        """Decide on a call that is parked."""
        if not self._room.enter("authorise"):
            self.meter.fault("overload", "too many new calls at once")
            if len(self._tasks) < TASKS_MOST:  # beyond, the dialplan's park_timeout ends it
                self.spawn(self._refuse(event.uuid, Reason.BUSY))
            return

        async def in_turn() -> None:
            try:
                await self._in_turn(event.uuid, lambda: self.decide(event))
            finally:
                self._room.leave()

        self.spawn(in_turn())

    def _task_changed(self, name: str, event: Event) -> None:
        call = self.live.get(event.get("Task-Group"))
        if call is None:
            return
        task = event.number("Task-ID")
        if name == "ADD_SCHEDULE" and task:
            channel_of(call).tasks.add(task)
        else:
            channel_of(call).tasks.discard(task)

    async def decide(self, event: Event) -> None:
        """Authorise a parked call and send it on, or refuse it; in its turn."""
        uuid, called = event.uuid, event.get("Caller-Destination-Number")
        before = self.live.get(uuid)
        if before is not None:
            await self._parked_again(before, event)
            return
        if not commands.extension(called):
            await self._refuse(uuid, Reason.INVALID_NUMBER)
            return
        verdict = await self.board.authorise(self.peer, ask_of_event(event))
        if not verdict.allowed or verdict.granted < 1:
            await self._refuse(uuid, verdict.reason)
            return
        channel = Channel(called=called, sequence=event.number("Event-Sequence"))
        call = self.live.add(uuid, verdict, channel)
        self.board.handles.keep(f"{self.peer.switch}/{verdict.call_id}", {"core": self.core})
        if (elapsed := elapsed_of(event)) is not None:
            await self._begin(uuid, elapsed)
        await self._route(call)

    async def _parked_again(self, call: LiveCall, event: Event) -> None:
        """It was decided on before: the same event again, a lost command, or a second park."""
        channel, sequence = channel_of(call), event.number("Event-Sequence")
        if channel.sent and (event.name != "CHANNEL_PARK" or sequence <= channel.sequence):
            return
        channel.sequence = sequence
        if event.get("Caller-Destination-Number") == channel.called:
            await self._route(call)
        else:
            # What it costs was decided for another number.
            self.meter.fault("parked_again", f"call {event.uuid} was parked for another number")
            await self._told(commands.kill(event.uuid, cause_of(Reason.ID_REUSED)))

    async def _route(self, call: LiveCall) -> None:
        """Set the limit, then let the call go on; in this order, or it is not let go."""
        channel = channel_of(call)
        values = {GRANTED: str(call.granted)}
        if call.answered is None:
            values[ON_ANSWER] = commands.on_answer(call.granted, RAN_OUT)
        if not await self._told(commands.set_variables(call.call_id, values)):
            return
        if call.answered is not None:
            await self._set_limit(call)
        context = self.peer.text("routing_context", ROUTING_CONTEXT)
        channel.sent = await self._told(commands.transfer(call.call_id, channel.called, context))

    async def _refuse(self, uuid: str, reason: Reason) -> None:
        values = {REASON: reason.value or "refused", SIP: str(MEANINGS[reason].sip)}
        await self._told(commands.set_variables(uuid, values))
        context = self.peer.text("refusal_context")
        if context and await self._told(commands.transfer(uuid, values[REASON], context)):
            return
        await self._told(commands.kill(uuid, cause_of(reason)))

    async def _answered(self, event: Event) -> None:
        uuid = event.uuid
        if uuid not in self.live and not await self._adopt(uuid):
            return
        await self._begin(uuid, elapsed_of(event) or 0.0)

    async def _begin(self, uuid: str, elapsed: float) -> None:
        """The call was answered so many seconds ago: say so, and look after it."""
        call = self.live.answered(uuid, ago=elapsed)
        if call is None:
            return
        verdict = await self._until_taken(
            uuid, lambda: self.board.answered(self.peer, uuid), wanted=lambda: uuid in self.live
        )
        if verdict is not None and not verdict.allowed and uuid in self.live:
            # It rang for so long that its session was closed: nobody pays for it.
            self.meter.fault("answered_late", f"call {uuid}: {verdict.reason.value}")
            await self._told(commands.kill(uuid, RAN_OUT))

    async def _adopt(self, uuid: str) -> bool:
        """Take over a call that another process authorised, over HTTP; False if there is none."""
        try:
            session = await self.board.open_call(self.peer, uuid)
        except TollkeeperError:
            return False
        if session is None:
            return False
        self._restore(session, None)
        return True

    async def known(self, session: Session, elapsed: float | None) -> None:
        """Take over a call that is up, in its turn; ``elapsed`` seconds since its answer, None: it rings."""
        uuid = switch_id_of(session.key.partition("/")[2])
        call = self.live.get(uuid) or self._restore(session, elapsed)
        if elapsed is None:
            return
        if session.answered_at is None or call.answered is None:
            await self._begin(uuid, elapsed)
        self.spawn(self._keep_limit(call))

    def _restore(self, session: Session, elapsed: float | None) -> LiveCall:
        self.board.handles.keep(session.key, {"core": self.core})
        return self.live.restore(
            session,
            Channel(called=session.called, sent=True),
            elapsed,
            call_id=switch_id_of(session.key.partition("/")[2]),
        )

    async def _hung_up(self, event: Event) -> None:
        self.live.drop(event.uuid)
        await self.settle(event.uuid, used_ms_of(event), event.get("Hangup-Cause")[:64])

    async def settle(self, uuid: str, used_ms: int, cause: str) -> None:
        """Report the end of a call until it is taken."""
        await self._until_taken(
            uuid, lambda: self.board.stop_call(self.peer, uuid, used_ms, cause=cause)
        )

    async def _until_taken(
        self,
        uuid: str,
        tell: Callable[[], Awaitable[Verdict]],
        *,
        wanted: Callable[[], bool] = lambda: True,
    ) -> Verdict | None:
        for attempt in range(TELL_MOST):
            verdict = await tell()
            if not verdict.busy or not wanted():
                return verdict
            await asyncio.sleep(TELL_AGAIN[min(attempt, len(TELL_AGAIN) - 1)])
        self.meter.fault("not_told", f"call {uuid} could not be reported")
        return None

    # --- limits ----------------------------------------------------------------------------------

    async def _alive(self, call: LiveCall) -> bool:
        """Tell whether a channel is up; asked before its usage is reported."""
        if self.socket is None:
            raise ConnectionError(f"switch {self.peer.switch} is not connected")
        return (await self.socket.query(commands.exists(call.call_id))).strip() == b"true"

    async def _extend(self, call: LiveCall, _seconds: int) -> None:
        await self._keep_limit(call)

    async def _keep_limit(self, call: LiveCall) -> None:
        """Set the limit that a call has now, again and again until the switch has taken it."""
        channel = channel_of(call)
        channel.limiting = True
        if channel.at_work:
            return
        channel.at_work = True
        try:
            while channel.limiting and self.live.get(call.call_id) is call:
                channel.limiting = False
                try:
                    await self._set_limit(call)
                except OSError as error:
                    channel.limiting = True
                    self.meter.fault("limit_not_set", str(error))
                    if self.socket is None:
                        return  # done when it is connected again
                    await asyncio.sleep(LIMIT_AGAIN_SECONDS)
        finally:
            channel.at_work = False

    async def _set_limit(self, call: LiveCall) -> None:
        """Have the switch end the call when its grant ends; the new time stands before the old one goes.

        Raises:
            OSError: it is not known whether the switch did it.
        """
        channel = channel_of(call)
        old = set(channel.tasks) or await self._tasks_of(call.call_id)
        left = call.granted - call.elapsed(asyncio.get_running_loop().time())
        # The switch counts in whole seconds; what is begun of the last one is paid for.
        seconds = max(1, int(left + 0.999))
        try:
            await self._job(commands.schedule_hangup(call.call_id, seconds, RAN_OUT))
            for task in old:
                channel.tasks.discard(task)
                await self._job(commands.unschedule(task))
        except CommandFailed as error:
            # The channel is gone, or the old time has come: both are heard of otherwise.
            _log.info("freeswitch.refused", peer=self.peer.code, answer=str(error))

    async def _tasks_of(self, uuid: str) -> set[int]:
        """The scheduled hangups of a call, asked of the switch."""
        if self.socket is None:
            raise ConnectionError(f"switch {self.peer.switch} is not connected")
        try:
            found = parse_tasks(await self.socket.query(commands.show("tasks")))
        except MalformedEsl as error:
            raise ConnectionError(error.detail) from error
        return {task.id for task in found if task.group == uuid}

    async def _hang_up(self, call: LiveCall, reason: str) -> None:
        await self._kill(call.call_id, cause_of_end(reason))

    async def end(self, switch: str, call_id: str, reason: str) -> None:
        """End a call of our switch; see :class:`tollkeeper.servers.reach.Ender`."""
        uuid = switch_id_of(call_id)
        if not is_channel(uuid):
            raise KillFailed(f"{call_id} is no channel of FreeSWITCH ({switch})")
        await self._kill(uuid, cause_of_end(reason))

    async def _kill(self, uuid: str, cause: str) -> None:
        try:
            await self._job(commands.kill(uuid, cause or ENDED))
        except CommandFailed as error:
            if "no such channel" not in str(error).lower():
                raise KillFailed(str(error)) from error
        except OSError as error:
            raise KillFailed(str(error)) from error

    # --- how -------------------------------------------------------------------------------------

    async def _job(self, command: bytes) -> str:
        if self.socket is None:
            raise ConnectionError(f"switch {self.peer.switch} is not connected")
        return await self.socket.job(command)

    async def _told(self, command: bytes) -> bool:
        """Send a command; False if it was not done or nobody knows. What then is the switch's own limits'."""
        try:
            await self._job(command)
        except CommandFailed as error:
            _log.info("freeswitch.refused", peer=self.peer.code, answer=str(error))
            return False
        except OSError as error:
            self.meter.fault("command_lost", str(error))
            return False
        return True

    def turn(self, uuid: str) -> Turn:
        """One at a time for each call, in the order of their coming."""
        return self._turns.of(uuid)

    async def _in_turn(self, uuid: str, work: Callable[[], Awaitable[None]]) -> None:
        async with self._turns.of(uuid):
            await work()

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Do something beside the connection; what goes wrong there is logged."""

        async def guarded() -> None:
            try:
                await work
            except (OSError, KillFailed) as error:
                self.meter.fault("command_lost", str(error))
            except Exception:  # noqa: BLE001 - one call's failure must not be the end of all others
                _log.exception("freeswitch.failed", peer=self.peer.code)

        task = asyncio.create_task(guarded(), name="freeswitch call")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
