"""Everything that speaks a protocol with switches: the listeners that are set, and the agents.

Where several processes serve on one machine, the first one has the listeners; the others wait, and the
next one takes over within seconds when it dies.
"""

from __future__ import annotations

import asyncio
import errno
from typing import Protocol

import structlog

from tollkeeper.errors import SetupError
from tollkeeper.servers.agents import Agents
from tollkeeper.servers.network_parts import AGENTS, Stoppable, make_listeners, register_enders
from tollkeeper.servers.switchboard import Switchboard
from tollkeeper.services.tasks import end
from tollkeeper.settings import Settings

RETRY_SECONDS = 1.0
_log = structlog.get_logger()


class Listener(Protocol):
    """A socket that is listened on. ``name`` is what people call it."""

    name: str

    async def start(self) -> None:
        """Begin to listen; raises OSError where the address cannot be had."""

    async def stop(self) -> None:
        """Stop listening, answer what is under way, close."""


class Network:
    """The listeners and agents of one process."""

    def __init__(self, board: Switchboard, settings: Settings) -> None:
        self._board = board
        self._alone = settings.workers == 1
        self.listeners: list[Listener] = make_listeners(board, settings)
        self._agents = Agents(board, AGENTS)
        self._enders: list[Stoppable] = []
        self._up: list[Listener] = []
        self._waiting: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Begin to listen and to connect.

        Raises:
            SetupError: an address cannot be listened on.
        """
        await self._board.start()
        self._enders = register_enders(self._board)
        try:
            for listener in self.listeners:
                await self._start(listener)
        except BaseException:
            await self.stop()
            raise
        self._board.on_peers(self._agents.peers_changed)
        await self._agents.start()

    async def stop(self) -> None:
        """End agents and listeners; calls go on."""
        await end(self._waiting)
        await self._agents.stop()
        for listener in reversed(self._up):
            await listener.stop()
        self._up = []
        for ender in self._enders:
            await ender.stop()
        self._enders = []
        await self._board.stop()

    async def _start(self, listener: Listener) -> None:
        try:
            await listener.start()
        except OSError as error:
            if self._alone or error.errno != errno.EADDRINUSE:
                raise SetupError(
                    f"Cannot listen for {listener.name} ({error.strerror or error}); choose another "
                    "address in the settings."
                ) from error
            self._waiting.append(asyncio.create_task(self._stand_by(listener)))
        else:
            self._up.append(listener)
            _log.info("listening", listener=listener.name)

    async def _stand_by(self, listener: Listener) -> None:
        """Another process of this machine listens; be there when it is gone."""
        while True:
            await asyncio.sleep(RETRY_SECONDS)
            try:
                await listener.start()
            except OSError:
                continue
            self._up.append(listener)
            _log.info("listening", listener=listener.name, took_over=True)
            return
