"""The connection to one Kamailio's evapi port: messages in both directions, questions and their answers."""

from __future__ import annotations

import asyncio
import itertools
import socket
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timedelta

from tollkeeper.wire.kamailio import evapi

CONNECT_SECONDS = 3.0
DONE_SECONDS = 2.0
"""So long Kamailio has to carry out a request."""
PING_SECONDS = 2.0
READ_BYTES = 65_536
UNSENT_MAX = 4 * 2**20
"""Bytes that Kamailio has not read yet; beyond, the connection is useless and is made anew."""
_QUICKACK = getattr(socket, "TCP_QUICKACK", None)


class LinkLost(ConnectionError):
    """The connection ended, or Kamailio does not keep to its language."""


class SecretRefused(LinkLost):
    """Kamailio does not accept the peer's secret."""


class KamailioLink:
    """One connection. ``take`` is given each message but the answers to what was asked here."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        take: Callable[[evapi.FromKamailio], None],
    ) -> None:
        self._reader, self._writer, self._take = reader, writer, take
        self._asked: dict[str, asyncio.Future[evapi.Done]] = {}
        self._numbers = itertools.count(1)
        self._socket: socket.socket | None = writer.get_extra_info("socket")

    @classmethod
    async def connect(
        cls, host: str, port: int, take: Callable[[evapi.FromKamailio], None]
    ) -> KamailioLink:
        """Connect.

        Raises:
            OSError, TimeoutError: nobody is there.
        """
        opening = asyncio.open_connection(host, port)
        reader, writer = await asyncio.wait_for(opening, CONNECT_SECONDS)
        return cls(reader, writer, take)

    async def read(self) -> None:
        """Hand over what Kamailio says.

        Raises:
            LinkLost: it has left, or said what nobody says.
        """
        framer = evapi.Framer()
        while True:
            # Kamailio waits for our acknowledgement before it sends its next small message, and the
            # system would wait 40 ms with it: a caller would hear that.
            if self._socket is not None and _QUICKACK is not None:
                with suppress(OSError, AttributeError):
                    self._socket.setsockopt(socket.IPPROTO_TCP, _QUICKACK, 1)
            data = await self._reader.read(READ_BYTES)
            if not data:
                raise LinkLost("Kamailio closed the connection")
            for frame in framer.feed(data):
                self._handle(evapi.decode(frame))

    async def introduce(self, secret: str) -> None:
        """Say that we are here; before that nothing else may be said.

        Raises:
            LinkLost: Kamailio is silent. SecretRefused (one of them): it does not accept the secret.
        """
        if not await self.ask(lambda id_: evapi.Ping(id_, secret)):
            raise SecretRefused("Kamailio does not accept the peer's secret")

    async def keep_alive(self, secret: str) -> None:
        """Say every two seconds that we are still here.

        Raises:
            LinkLost: Kamailio is silent.
        """
        while True:
            await asyncio.sleep(PING_SECONDS)
            await self.introduce(secret)

    def send(self, message: evapi.ToKamailio) -> None:
        """Send a message that has no answer; a connection that is lost loses it."""
        if self._writer.is_closing():
            return
        self._writer.write(evapi.encode(message))
        if self._writer.transport.get_write_buffer_size() > UNSENT_MAX:
            self._writer.transport.abort()

    async def ask(self, make: Callable[[str], evapi.ToKamailio]) -> bool:
        """Send a request and wait until it is done; whether it found what it was for.

        Raises:
            LinkLost: no answer came in time.
        """
        id_ = str(next(self._numbers))
        done = self._asked[id_] = asyncio.get_running_loop().create_future()
        try:
            self.send(make(id_))
            answer = await asyncio.wait_for(done, DONE_SECONDS)
        except TimeoutError as error:
            raise LinkLost("Kamailio does not answer") from error
        finally:
            self._asked.pop(id_, None)
        return bool(answer.ok)

    async def close(self) -> None:
        """Close it; whoever waits for an answer hears that there is none."""
        for done in self._asked.values():
            if not done.done():
                done.set_exception(LinkLost("the connection to Kamailio is lost"))
        self._writer.close()
        with suppress(OSError):
            await self._writer.wait_closed()

    def _handle(self, message: evapi.FromKamailio) -> None:
        if isinstance(message, evapi.Done):
            asked = self._asked.get(message.id)
            if asked is not None and not asked.done():
                asked.set_result(message)
        self._take(message)


class SwitchClock:
    """A switch's clock beside ours: it may be hours off, as long as it goes on evenly.

    What a message says of its moment, less our own time when it came, is the difference of the clocks and
    the message's way; the least of many is close to the difference alone.
    """

    def __init__(self) -> None:
        self._behind: float | None = None

    def heard(self, at: str, now: datetime) -> None:
        """A message that was written ``at`` came ``now``."""
        moment = evapi.instant(at)
        if moment is not None:
            behind = (now - moment).total_seconds()
            self._behind = behind if self._behind is None else min(self._behind, behind)

    def ago(self, at: str, now: datetime) -> float:
        """Seconds since the switch's moment ``at``; 0 where that is not known."""
        moment = evapi.instant(at)
        if moment is None or self._behind is None:
            return 0.0
        return max(0.0, (now - moment).total_seconds() - self._behind)


def used_ms(answered: str, ended: str) -> int | None:
    """Milliseconds between two moments of a switch's clock; None where one is missing."""
    begin, end = evapi.instant(answered), evapi.instant(ended)
    if begin is None or end is None:
        return None
    return max(0, (end - begin) // timedelta(milliseconds=1))
