"""Calls here and calls at a Kamailio, compared: what either side lost is found.

A list that failed says nothing. A call that two lists in a row do not have is over; it is charged to the
moment at which it was last known to be up. A call that goes on without a session is ended.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

import psycopg

from tollkeeper.core.records import Session
from tollkeeper.errors import Busy, NotFound
from tollkeeper.gateways.kill import KillFailed
from tollkeeper.servers.kamailio.calls import DialogId, Line, line_of
from tollkeeper.servers.kamailio.link import LinkLost
from tollkeeper.servers.kamailio.rpc import KamailioRpc, RpcFailed
from tollkeeper.servers.live_calls import LiveCall
from tollkeeper.wire.kamailio.rpc import RINGING, UP, Dialog

if TYPE_CHECKING:
    from tollkeeper.servers.kamailio.agent import KamailioAgent

RECONCILE_SECONDS = 30
"""How often calls are compared (the peer's option ``reconcile_seconds``)."""
SECOND_LOOK_SECONDS = 1.0
MISSING_MAX = 2
REPORT_SECONDS = 4.0
"""Longer than Kamailio takes to repeat a report."""


class Watch:
    """Compares the calls of one agent."""

    def __init__(self, agent: KamailioAgent, rpc: KamailioRpc) -> None:
        self._agent = agent
        self._rpc = rpc
        self._soon = asyncio.Event()
        self._strange: set[DialogId] = set()
        self._open: dict[str, Session] = {}
        """Sessions from before we began of which Kamailio has said nothing yet."""
        self._missed: dict[str, tuple[int, float]] = {}
        """How many lists in a row did not have a call, and since when."""

    def look_soon(self) -> None:
        """Compare at once."""
        self._soon.set()

    async def _recall(self) -> None:
        """Know again the calls that were up before we began, as far as Kamailio still has them.

        What is only open here may have ended meanwhile: to report its usage would charge for a call that is over.
        """
        agent = self._agent
        for session in await agent.board.open_calls(agent.peer):
            session_id = session.key.partition("/")[2]
            if session_id in agent.calls or agent.lines.is_over(session_id):
                continue
            self._open[session_id] = session
            kept = await agent.board.handles.find(session.key)
            line = Line.read(kept) if kept is not None else None
            if line is None:
                continue
            left = session.granted_seconds - (agent.elapsed(line.answered) if line.answered else 0)
            if await agent.set_limit(line, left):
                self._restore(session, line)

    def _restore(self, session: Session, line: Line) -> None:
        agent = self._agent
        session_id = session.key.partition("/")[2]
        self._open.pop(session_id, None)
        line.seen_ms = session.used_ms
        elapsed = agent.elapsed(line.answered) if line.answered else None
        call = agent.calls.restore(session, agent.lines.add(session_id, line), elapsed)
        if call.answered is not None:
            agent.set_cut(call)
            self._catch_up(call)

    def _catch_up(self, call: LiveCall) -> None:
        """Nobody told us of money that came in while we were not there: ask for it."""
        if call.final:
            self._agent.renew_soon(call.call_id)

    async def run(self) -> None:
        """Compare when connected, and then regularly."""
        every = float(self._agent.peer.whole("reconcile_seconds", RECONCILE_SECONDS))
        known = False
        while True:
            self._soon.clear()
            try:
                if not known:
                    await self._recall()
                    known = True
                missing = await self.compare()
            except (KillFailed, LinkLost, Busy, psycopg.Error) as error:
                self._agent.meter.fault("not_compared", str(error))
                missing = not known
            with suppress(TimeoutError):
                wait = min(every, SECOND_LOOK_SECONDS) if missing else every
                await asyncio.wait_for(self._soon.wait(), wait)
                await asyncio.sleep(SECOND_LOOK_SECONDS)

    async def compare(self) -> bool:
        """Compare once; whether something is to be looked at again soon."""
        agent = self._agent
        # A call that begins while we ask is not missed.
        before = agent.calls.ids()
        recalled = list(self._open)
        try:
            listed = await self._rpc.dialogs()
        except RpcFailed as error:
            agent.meter.fault("list_failed", f"its calls are not known: {error}")
            return False
        dialogs = {(one.h_entry, one.h_id): one for one in listed if one.state in RINGING + UP}
        doubtful = False
        for session_id in before:
            call = agent.calls.get(session_id)
            if call is not None:
                dialog = dialogs.get(line_of(call).dialog)
                doubtful |= await self._look(session_id, dialog)
        doubtful |= await self._strangers(dialogs)
        up = {dialog.variable("tk_session") for dialog in dialogs.values()}
        for session_id in recalled:
            doubtful |= await self._look_for_old(session_id, up)
        return doubtful

    async def _look_for_old(self, session_id: str, up: set[str]) -> bool:
        agent = self._agent
        session = self._open.get(session_id)
        if session is None or session_id in up:
            return session is not None
        if session_id in agent.calls or agent.lines.is_over(session_id):
            del self._open[session_id]
            return False
        if not self._is_gone(session_id):
            return True
        if await agent.settle(session_id, session.used_ms, "lost"):
            del self._open[session_id]
        return False

    def _is_gone(self, session_id: str) -> bool:
        """A list did not have this call; whether that was often and long enough.

        What Kamailio has to tell of a call's end, it tells within seconds: it is exact, and comes first.
        """
        now = asyncio.get_running_loop().time()
        times, since = self._missed.get(session_id, (0, now))
        self._missed[session_id] = (times + 1, since)
        if times + 1 < MISSING_MAX or now - since < REPORT_SECONDS:
            return False
        del self._missed[session_id]
        self._agent.meter.fault("stop_lost", f"{session_id}: it is gone, and no end was told")
        return True

    async def _look(self, session_id: str, dialog: Dialog | None) -> bool:
        agent = self._agent
        call = agent.calls.get(session_id)
        if call is None:
            return False
        line = line_of(call)
        if dialog is None:
            if not self._is_gone(session_id):
                return True
            await agent.settle(session_id, line.seen_ms, "lost")
            return False
        self._missed.pop(session_id, None)
        if dialog.state in UP:
            moment = dialog.variable("tk_t0")
            if call.answered is None and moment:
                await agent.answered(session_id, moment, line)
                self._catch_up(call)
            elif moment and not line.answered:
                line.answered = moment
            line.seen_ms = max(
                line.seen_ms, int(call.elapsed(asyncio.get_running_loop().time()) * 1000)
            )
        return False

    async def _strangers(self, dialogs: dict[DialogId, Dialog]) -> bool:
        """Calls that are up there and not known here: know them again, or end them."""
        agent = self._agent
        strange = {
            id_: one
            for id_, one in dialogs.items()
            if (session_id := one.variable("tk_session"))
            and not agent.lines.of_dialog(id_)
            and not agent.lines.is_over(session_id)
        }
        # One that has just been authorised or ended is on its way to being known: a second look tells.
        again, self._strange = self._strange, set(strange)
        for id_ in again & set(strange):
            await self._adopt(strange[id_])
            self._strange.discard(id_)
        return bool(self._strange)

    async def _adopt(self, dialog: Dialog) -> None:
        agent = self._agent
        session_id = dialog.variable("tk_session")
        line = Line(
            (dialog.h_entry, dialog.h_id),
            dialog.call_id,
            dialog.caller.tag,
            dialog.variable("tk_t0"),
        )
        try:
            session = await agent.board.charging.session(f"{agent.peer.switch}/{session_id}")
        except NotFound:
            session = None
        if session is not None and session.closed_at is None:
            self._restore(session, line)
            return
        agent.meter.fault("up_without_session", f"{session_id} goes on at Kamailio: it is ended")
        with suppress(KillFailed, LinkLost):
            await agent.end_dialog(line)

    async def release(self, call_id: str, dialog: DialogId) -> bool:
        """A call failed of which this process knows nothing; False: what it held could not be given back."""
        agent = self._agent
        session_id = agent.lines.session_id(call_id, dialog)
        try:
            session = await agent.board.charging.session(f"{agent.peer.switch}/{session_id}")
        except NotFound:
            return True
        if session.closed_at is not None:
            return True
        return await agent.settle(session_id, session.used_ms, "failed")
