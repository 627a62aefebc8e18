"""Switches that agents connect to, and that do not say what they should."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

from tollkeeper.wire.kamailio import evapi


class Liar:
    """Stands between an agent and its switch, and says what it likes to the agent.

    ``lies`` are said to the next connections, one each, instead of the switch's words (an empty one says
    nothing at all); ``connections`` counts. Then everything is passed on in both directions.
    """

    def __init__(self, target: Callable[[], int]) -> None:
        self.target = target
        self.port = 0
        self.lies: list[bytes] = []
        self.drips = False
        """One byte at a time."""
        self.connections = 0
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Listen."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Break everything."""
        if self._server is not None:
            self._server.close()
        self.drop()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def drop(self) -> None:
        """Break the connections that are up."""
        for writer in list(self._open):
            writer.transport.abort()

    def say(self, data: bytes) -> None:
        """Say something on the connections that are up, beside the switch."""
        for writer in self._open:
            writer.write(data)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            with suppress(OSError):
                if self.lies:
                    writer.write(self.lies.pop(0))
                    while await reader.read(65_536):
                        pass
                else:
                    await self._pass_on(reader, writer)
        finally:
            writer.close()
            self._tasks.discard(task)

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", self.target())
        self._open.add(writer)

        async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            with suppress(OSError):
                while data := await source.read(65_536):
                    for at in range(0, len(data), 1 if self.drips else len(data)):
                        sink.write(data[at : at + 1] if self.drips else data)
                        await asyncio.sleep(0)
            sink.close()

        try:
            await asyncio.gather(pump(reader, back), pump(there, writer))
        finally:
            self._open.discard(writer)
            back.close()


class FakeKamailio:
    """The evapi side of a Kamailio: lets the agent in and keeps what it says."""

    def __init__(self, secret: str) -> None:
        self.secret = secret
        self.port = 0
        self.heard: list[evapi.ToKamailio] = []
        self.up: asyncio.StreamWriter | None = None
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Listen."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """End."""
        if self._server is not None:
            self._server.close()
        if self.up is not None:
            self.up.transport.abort()

    def say(self, message: evapi.FromKamailio) -> None:
        """Say something to the agent."""
        assert self.up is not None
        self.up.write(evapi.encode(message))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        framer = evapi.Framer()
        try:
            while data := await reader.read(65_536):
                for frame in framer.feed(data):
                    message = evapi.decode_ours(frame)
                    self.heard.append(message)
                    if isinstance(message, evapi.Ping):
                        right = message.secret == self.secret
                        self.up = writer if right else None
                        writer.write(evapi.encode(evapi.Done(message.id, int(right), "100.5")))
                    elif isinstance(message, evapi.End | evapi.Limit):
                        writer.write(evapi.encode(evapi.Done(message.id, 1, "100.5")))
        except OSError:
            pass
        finally:
            self.up = None
            writer.close()
