"""Agents: one for each switch that we connect to, in one process at a time.

Which process that is, an advisory lock of the database says: when its process dies, another one takes
over. A change of the peer's row ends the agent and begins a new one; calls go on meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Protocol

import psycopg
import structlog

from tollkeeper.servers.switchboard import Switchboard
from tollkeeper.services.tasks import end, end_gently
from tollkeeper.store.db import OPTIONS
from tollkeeper.store.peers import Peer, hold_peer

LOOK_SECONDS = 2.0
LEAVE_SECONDS = 5.0
"""So long an agent may take to close its connection in good order."""
ANSWER_SECONDS = 5.0
KEEPALIVE = "-c tcp_keepalives_idle=10 -c tcp_keepalives_interval=5 -c tcp_keepalives_count=3"
"""So that the database lets go of a peer soon whose process is not there any more."""
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
        held = await self._hold(peer)
        if held is None:
            return  # another process has it
        running = asyncio.create_task(
            self._makers[peer.kind](self._board, peer).run(), name=f"run {peer.code}"
        )
        try:
            while not running.done():
                await asyncio.wait([running], timeout=LOOK_SECONDS)
                if running.done() or await _answers(held):
                    continue
                # Should the database go away, the agent stays: calls that are up need it. When it is
                # back another process may have been first, and two would each send a parked call on.
                with suppress(psycopg.Error, OSError):
                    fresh = await self._hold(peer)
                    if fresh is None:
                        _log.warning("agent.leaves", peer=peer.code)
                        return
                    await held.close()
                    held = fresh
            await running
        finally:
            await end_gently([running], seconds=LEAVE_SECONDS - 1)
            await held.close()

    async def _hold(self, peer: Peer) -> psycopg.AsyncConnection[Any] | None:
        """Be the process that talks to a peer, as long as the connection lives; None: another one is."""
        connection = await psycopg.AsyncConnection.connect(
            self._board.database.url,
            autocommit=True,
            options=f"{OPTIONS} {KEEPALIVE}",
            connect_timeout=int(ANSWER_SECONDS),
        )
        try:
            if await hold_peer(connection, peer.id):
                return connection
        except BaseException:
            await connection.close()
            raise
        await connection.close()
        return None


async def _answers(connection: psycopg.AsyncConnection[Any]) -> bool:
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            await connection.execute("SELECT 1")
    except (psycopg.Error, OSError, TimeoutError):
        return False
    return True
