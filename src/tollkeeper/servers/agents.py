"""Agents: one for each switch that we connect to, in one process at a time.

Which process that is, an advisory lock of the database says: when its process dies, another one takes
over. A change of the peer's row ends the agent and begins a new one; calls go on meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Protocol

import psycopg
import structlog

from tollkeeper.servers.switchboard import Switchboard
from tollkeeper.services.tasks import end, end_gently
from tollkeeper.store.db import OPTIONS
from tollkeeper.store.peers import Peer, hold_peer

LOOK_SECONDS = 2.0
LEAVE_SECONDS = 5.0
"""So long an agent may take to close its connection in good order."""
_log = structlog.get_logger()


class Agent(Protocol):
    """Talks to one switch until it is stopped; connects again by itself."""

    async def run(self) -> None:
        """Work until cancelled. Clean up in ``finally``."""


class Agents:
    """The agents of one process; ``makers`` by kind of peer."""

    def __init__(
        self, board: Switchboard, makers: Mapping[str, Callable[[Switchboard, Peer], Agent]]
    ) -> None:
        self._board = board
        self._makers = makers
        self._running: dict[int, tuple[Peer, asyncio.Task[None]]] = {}
        self._task: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()

    async def start(self) -> None:
        """Begin to look after the peers."""
        self._task = asyncio.create_task(self._run(), name="agents")

    async def stop(self) -> None:
        """End all agents."""
        if self._task is not None:
            await end([self._task])
            self._task = None
        await end_gently([task for _, task in self._running.values()], seconds=LEAVE_SECONDS)
        self._running = {}

    def peers_changed(self) -> None:
        """Look now."""
        self._wake.set()

    async def _run(self) -> None:
        while True:
            self._wake.clear()
            await self._look()
            try:
                await asyncio.wait_for(self._wake.wait(), LOOK_SECONDS)
            except TimeoutError:
                continue

    async def _look(self) -> None:
        wanted = {peer.id: peer for peer in self._board.book.of_kind(*self._makers)}
        for id_, (peer, task) in list(self._running.items()):
            if wanted.get(id_) != peer or task.done():
                await end_gently([task], seconds=LEAVE_SECONDS)
                del self._running[id_]
        for id_, peer in wanted.items():
            if id_ not in self._running:
                task = asyncio.create_task(self._keep(peer), name=f"agent {peer.code}")
                self._running[id_] = (peer, task)

    async def _keep(self, peer: Peer) -> None:
        """Run the agent of a peer while this process is the one that does."""
        while True:
            try:
                await self._hold_and_run(peer)
            except (psycopg.Error, OSError) as error:
                _log.warning("agent.waits", peer=peer.code, error=str(error))
            except Exception:  # noqa: BLE001 - one that ends would leave its calls without anybody
                _log.exception("agent.failed", peer=peer.code)
            await asyncio.sleep(LOOK_SECONDS)

    async def _hold_and_run(self, peer: Peer) -> None:
        connection = await psycopg.AsyncConnection.connect(
            self._board.database.url, autocommit=True, options=OPTIONS
        )
        async with connection:
            if not await hold_peer(connection, peer.id):
                return  # another process has it
            # Should the database go away, the agent stays: calls that are up need it. Another process
            # may then run a second one for a while, which is harmless: all it says is said idempotently.
            await self._makers[peer.kind](self._board, peer).run()
