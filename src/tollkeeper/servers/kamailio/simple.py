"""The agent at a Kamailio of the simple transport: it asks us by HTTP, we reach it by JSON-RPC alone.

Its calls are charged by the HTTP interface. What is left for an agent: to end a call because somebody
asked for it, and to find calls whose end was never told.
"""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta

import psycopg

from tollkeeper.core.records import Session
from tollkeeper.errors import Busy
from tollkeeper.gateways.kill import KillFailed
from tollkeeper.servers.kamailio.rpc import KamailioRpc, RpcFailed
from tollkeeper.servers.kamailio.watch import MISSING_MAX, RECONCILE_SECONDS
from tollkeeper.servers.switchboard import Switchboard
from tollkeeper.store.peers import Peer
from tollkeeper.telemetry import PeerMeter
from tollkeeper.wire.kamailio.rpc import RINGING, UP, Dialog

YOUNG = timedelta(seconds=10)
"""So long a call may be authorised before Kamailio lists it with its session."""


class SimpleAgent:
    """Looks after the calls of one Kamailio until it is cancelled."""

    def __init__(self, board: Switchboard, peer: Peer) -> None:
        self._board, self._peer = board, peer
        self._meter = PeerMeter.of(peer.code, peer.kind)
        self._rpc: KamailioRpc
        self._missing: dict[str, int] = {}
        self._seen: dict[str, int] = {}

    async def run(self) -> None:
        """Compare calls regularly; end those that are to be ended."""
        host = next(iter(self._peer.addresses), "127.0.0.1")
        self._rpc = KamailioRpc(self._peer.text("rpc") or f"http://{host}:5060/RPC")
        self._board.reach.add(self._peer.switch, self)
        try:
            while True:
                try:
                    await self._compare()
                except RpcFailed as error:
                    self._meter.fault("list_failed", f"its calls are not known: {error}")
                except (psycopg.Error, Busy) as error:
                    self._meter.fault("not_compared", str(error))
                await asyncio.sleep(self._peer.whole("reconcile_seconds", RECONCILE_SECONDS))
        finally:
            self._board.reach.remove(self._peer.switch, self)
            await self._rpc.close()

    async def end(self, switch: str, call_id: str, reason: str) -> None:
        """End a call because somebody asked for it; one that is not there has ended.

        Raises:
            KillFailed: Kamailio did not take it.
        """
        del switch, reason  # this agent's only one; Kamailio has no word for why
        try:
            dialog = (await self._dialogs()).get(call_id)
            if dialog is not None:
                await self._rpc.end(dialog.h_entry, dialog.h_id)
        except RpcFailed as error:
            raise KillFailed(str(error)) from error

    async def _dialogs(self) -> dict[str, Dialog]:
        """Calls that are up or ring, by session."""
        return {
            session_id: dialog
            for dialog in await self._rpc.dialogs()
            if dialog.state in RINGING + UP and (session_id := dialog.variable("tk_session"))
        }

    async def _compare(self) -> None:
        sessions = await self._board.open_calls(self._peer)
        dialogs = await self._dialogs() if sessions else {}
        now = self._board.clock()
        missing, self._missing = self._missing, {}
        seen, self._seen = self._seen, {}
        for session in sessions:
            id_ = session.key.partition("/")[2]
            self._seen[id_] = max(session.used_ms, seen.get(id_, 0))
            if (dialog := dialogs.get(id_)) is not None:
                if dialog.state in UP:
                    self._seen[id_] = max(self._seen[id_], _used_ms(session, now))
            elif session.opened_at < now - YOUNG:
                self._missing[id_] = missing.get(id_, 0) + 1
        for id_, times in self._missing.items():
            if times >= MISSING_MAX:
                self._meter.fault("stop_lost", f"{id_}: it is gone, and no end was told")
                await self._board.stop_call(self._peer, id_, self._seen[id_], cause="lost")


def _used_ms(session: Session, now: datetime) -> int:
    """Milliseconds since the answer; 0 before it."""
    if session.answered_at is None:
        return 0
    return max(0, (now - session.answered_at) // timedelta(milliseconds=1))
