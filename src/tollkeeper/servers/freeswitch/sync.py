"""Comparing a FreeSWITCH's channels with our sessions: after a connection began, and from time to time.

A query that failed says nothing: no call is ended for it. A session whose channel is not there twice
is closed at the last usage that is known; one of a switch that restarted (its Core-UUID changed) at
once. A channel that waits in park and was not decided on is decided on now.
"""

from __future__ import annotations

import asyncio
import re

import psycopg
import structlog

from tollkeeper.core.records import Session
from tollkeeper.errors import TollkeeperError
from tollkeeper.servers.asks import switch_id_of
from tollkeeper.servers.freeswitch.calls import Calls, channel_of
from tollkeeper.servers.freeswitch.socket import EventSocket
from tollkeeper.servers.freeswitch.words import REASON, elapsed_of, is_channel, is_ours, is_parked
from tollkeeper.wire.esl import commands
from tollkeeper.wire.esl.codec import Event, MalformedEsl, parse_plain
from tollkeeper.wire.esl.tables import Channel as Row
from tollkeeper.wire.esl.tables import parse_channels

MISSING_AGAIN_SECONDS = 2.0
"""A session whose channel was not found is looked for once more after this time."""
UNKNOWN_AGAIN_SECONDS = 5.0
LOST_STOP = "lost_stop"
RESTARTED = "switch_restart"
_CORE = re.compile(r"[0-9A-Za-z-]{8,64}")
_log = structlog.get_logger()


class Unknown(Exception):
    """The switch was asked and its answer says nothing."""


class Sync:
    """The comparing of one connection."""

    def __init__(self, calls: Calls, socket: EventSocket) -> None:
        self._calls = calls
        self._socket = socket
        self._missing: set[str] = set()
        self._others: set[str] = set()
        """Channels that were looked at and are not ours; an event tells if one becomes so."""

    async def begin(self) -> None:
        """Learn which run of the switch this is.

        Raises:
            OSError: it does not say.
        """
        answer = await self._socket.query(commands.api("global_getvar", "core_uuid"))
        core = answer.decode("utf-8", errors="replace").strip()
        if not _CORE.fullmatch(core):
            raise ConnectionError("the switch does not tell its core_uuid")
        self._calls.core = core

    async def run(self) -> None:
        """Compare, at once and then from time to time; ends with the connection."""
        seconds = max(1, self._calls.peer.whole("reconcile", 30))
        while True:
            try:
                await self.once()
            except (Unknown, TollkeeperError, psycopg.Error) as error:
                # Nothing is known, so nothing is concluded.
                self._calls.meter.fault("query_failed", str(error))
                await asyncio.sleep(min(seconds, UNKNOWN_AGAIN_SECONDS))
                continue
            await asyncio.sleep(min(seconds, MISSING_AGAIN_SECONDS) if self._missing else seconds)

    async def once(self) -> None:
        """Compare all sessions and channels.

        Raises:
            Unknown: the switch's answer says nothing. OSError: it did not answer.
        """
        # Sessions first: what begins meanwhile is in neither list or in that of the channels alone.
        sessions = {
            uuid: session
            for session in await self._calls.board.open_calls(self._calls.peer)
            if is_channel(uuid := switch_id_of(session.key.partition("/")[2]))
        }
        rows = await self._channels()
        missing: set[str] = set()
        for uuid in [*sessions, *(one for one in self._calls.live.ids() if one not in sessions)]:
            session = sessions.get(uuid)
            if session is not None and await self._is_of_before(session):
                await self._close(uuid, session, RESTARTED)
            elif uuid in rows:
                await self._look(uuid, session)
            elif uuid in self._missing:
                await self._close(uuid, session, LOST_STOP)
            else:
                missing.add(uuid)
        self._missing = missing
        self._others &= rows.keys()
        for uuid, row in rows.items():
            if uuid in sessions or uuid in self._others or row.direction == "outbound":
                continue
            if is_channel(uuid):
                await self._look(uuid, None)

    async def _channels(self) -> dict[str, Row]:
        try:
            rows = parse_channels(await self._socket.query(commands.show("channels")))
        except MalformedEsl as error:
            raise Unknown(error.detail) from error
        return {row.uuid: row for row in rows}

    async def _is_of_before(self, session: Session) -> bool:
        """Tell whether a call was of a run of the switch that has ended."""
        handle = await self._calls.board.handles.find(session.key)
        core = handle.get("core") if handle else ""
        return bool(core) and core != self._calls.core

    async def _close(self, uuid: str, session: Session | None, cause: str) -> None:
        """End a call that is gone at the usage that was heard of, or at which it was last seen."""
        async with self._calls.turn(uuid):
            call = self._calls.live.drop(uuid)
            used_ms = session.used_ms if session is not None else 0
            if call is not None:
                used_ms = max(used_ms, int(channel_of(call).seen * 1000))
            _log.warning("freeswitch.closed", peer=self._calls.peer.code, call=uuid, why=cause)
            await self._calls.settle(uuid, used_ms, cause)

    async def _look(self, uuid: str, session: Session | None) -> None:
        """A channel is up: know the call, its answer and its limit; decide on it where it is parked."""
        async with self._calls.turn(uuid):
            call = self._calls.live.get(uuid)
            if call is not None and call.answered is not None and channel_of(call).sent:
                channel_of(call).seen = call.elapsed(asyncio.get_running_loop().time())
                return
            event = await self._dump(uuid)
            if event is None or not is_ours(event) or event.variable(REASON):
                self._others.add(uuid)
                return
            if is_parked(event) and (call is None or not channel_of(call).sent):
                await self._calls.decide(event)
            elif session is not None:
                await self._calls.known(session, elapsed_of(event))

    async def _dump(self, uuid: str) -> Event | None:
        """All of a channel; None if it is not there any more."""
        answer = await self._socket.query(commands.dump(uuid))
        if answer.startswith(b"-"):
            return None
        try:
            return parse_plain(answer)
        except MalformedEsl as error:
            raise Unknown(error.detail) from error
