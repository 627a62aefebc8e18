"""The agent of one FreeSWITCH: keeps connected to its event socket, for as long as the peer is there.

Options of the peer: ``connect`` "host:port" (else its first address, port 8021), ``routing_context``
and ``refusal_context`` (where calls go on, and where refused ones go instead of being ended),
``interim`` and ``reconcile`` (seconds between reports of usage, and between comparisons).
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any

from tollkeeper.gateways.kill import KillFailed
from tollkeeper.servers.freeswitch.calls import CALLS_MOST, EVENTS, Calls
from tollkeeper.servers.freeswitch.socket import EventSocket, LoginRefused
from tollkeeper.servers.freeswitch.sync import Sync
from tollkeeper.servers.switchboard import Switchboard
from tollkeeper.services.tasks import end
from tollkeeper.store.peers import Peer
from tollkeeper.wire.esl.codec import MalformedEsl

PORT = 8021
FIRST_WAIT, LONGEST_WAIT = 0.2, 15.0
"""Seconds before it is connected again; doubled each time, with up to half of it by chance."""
STEADY_SECONDS = 15.0
"""After a connection of so long the waiting begins anew."""


class FreeSwitchAgent:
    """One for each peer of the kind freeswitch; see :mod:`tollkeeper.servers.agents`."""

    def __init__(self, board: Switchboard, peer: Peer, *, most: int = CALLS_MOST) -> None:
        self._board, self._peer = board, peer
        self.calls = Calls(board, peer, most=most)

    async def run(self) -> None:
        """Keep connected until cancelled."""
        loop = asyncio.get_running_loop()
        wait = FIRST_WAIT
        try:
            if not self._peer.secret:
                await loop.create_future()  # asked over HTTP alone, it has no event socket for us
            while True:
                began = loop.time()
                try:
                    await self._connected()
                except MalformedEsl as error:
                    self.calls.meter.fault("malformed", error.detail)
                except LoginRefused as error:
                    self.calls.meter.fault("wrong_secret", str(error))
                except OSError as error:
                    self.calls.meter.fault("away", str(error) or type(error).__name__)
                if loop.time() - began > STEADY_SECONDS:
                    wait = FIRST_WAIT
                await asyncio.sleep(wait * (1 + random.random() / 2))  # noqa: S311 - no secret
                wait = min(wait * 2, LONGEST_WAIT)
        finally:
            await _to_its_end(self.calls.stop())

    async def _connected(self) -> None:
        calls = self.calls
        host, port = address_of(self._peer)
        socket = await EventSocket.open(host, port, self._peer.secret, calls.hear)
        calls.meter.connected(1)
        work: list[asyncio.Task[Any]] = []
        try:
            sync = Sync(calls, socket)
            await sync.begin()
            calls.socket = socket
            await socket.subscribe(EVENTS)
            self._board.reach.add(self._peer.switch, calls)
            calls.limits_again()
            work = [
                asyncio.create_task(sync.run(), name="freeswitch sync"),
                asyncio.create_task(self._report(), name="freeswitch interim"),
                asyncio.create_task(socket.ended(), name="freeswitch connection"),
            ]
            done, _ = await asyncio.wait(work, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                outcome = task.result()
                if isinstance(outcome, OSError | MalformedEsl):
                    raise outcome
        finally:
            self._board.reach.remove(self._peer.switch, calls)
            calls.socket = None
            calls.meter.connected(-1)
            await _to_its_end(self._disconnect(work, socket))

    @staticmethod
    async def _disconnect(work: list[asyncio.Task[Any]], socket: EventSocket) -> None:
        await end(work)
        for task in work:
            if not task.cancelled():
                task.exception()  # looked at: of several that failed together one is told
        await socket.close()

    async def _report(self) -> None:
        """Report the usage of all calls from time to time, so that little is lost when all else is."""
        seconds = self._peer.whole("interim", 60)
        while True:
            await asyncio.sleep(max(1, seconds))
            for call_id in self.calls.live.ids():
                try:
                    await self.calls.live.renew(call_id)
                except (OSError, KillFailed) as error:
                    self.calls.meter.fault("command_lost", str(error))


async def _to_its_end(cleaning: Coroutine[Any, Any, None]) -> None:
    """Clean up although we are cancelled meanwhile, once more and again; it takes a second or two."""
    task = asyncio.create_task(cleaning)
    while not task.done():
        with suppress(asyncio.CancelledError):
            await asyncio.shield(task)


def address_of(peer: Peer) -> tuple[str, int]:
    """Host and port of a peer's event socket.

    Raises:
        ConnectionError: the peer names none.
    """
    text = peer.text("connect") or (peer.addresses[0].partition("/")[0] if peer.addresses else "")
    host, port = text, ""
    if text.startswith("["):
        host, _, rest = text[1:].partition("]")
        port = rest.removeprefix(":")
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
    if not host or (port and not (port.isascii() and port.isdigit() and int(port[:6]) < 65_536)):
        raise ConnectionError(
            f'peer {peer.code}: "{text}" is no address of an event socket such as 192.0.2.1:8021'
        )
    return host, int(port) if port else PORT
