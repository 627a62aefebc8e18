"""A real Kamailio for the tests: its calls, and a line to Tollkeeper that can be listened to and disturbed.

::

    async with Site(folder) as site:
        add_peer(world, "kam", "kamailio", **site.peer())
        call = site.call("hold", UK_FIXED)          # a caller of its own
        await until(lambda: "answered" in call.moments())
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Self

from tollkeeper.cli.connect.kamailio_files import Site as Config
from tollkeeper.cli.demo.kamailio import Kamailio, missing
from tollkeeper.cli.demo.sipp import Sipp, SippCall, answering, holding, talking
from tollkeeper.wire.kamailio import evapi

SECRET = "between-us"
__all__ = ["SECRET", "Caller", "Config", "Relay", "Site", "holding", "missing", "talking"]


class Relay:
    """Between Tollkeeper and Kamailio: hears all, and can be told to lose or repeat what Kamailio says."""

    def __init__(self, target: int) -> None:
        self.heard: list[evapi.FromKamailio] = []
        self.said: list[evapi.ToKamailio] = []
        self.lose: tuple[type, ...] = ()
        """Kinds of Kamailio's messages that do not arrive."""
        self.mute: tuple[type, ...] = ()
        """Kinds of our messages that do not arrive."""
        self.held: set[str] = set()
        """Call-IDs of which nothing more arrives."""
        self._target = target
        self._server: asyncio.Server | None = None
        self._writers: list[asyncio.StreamWriter] = []
        self._tasks: set[asyncio.Task[Any]] = set()
        self.port = 0

    async def start(self) -> None:
        """Listen."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """End all connections and listen no more."""
        if self._server is not None:
            self._server.close()
        for writer in self._writers:
            writer.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._writers = []

    def repeat(self, message: evapi.FromKamailio) -> None:
        """Say to Tollkeeper once more what Kamailio said."""
        self._writers[-1].write(evapi.encode(message))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            theirs, ours = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.close()
            self._tasks.discard(task)
            return
        self._writers += [ours, writer]
        try:
            # Python 3.11 complains of a connection's task that ends as cancelled.
            with suppress(OSError, asyncio.CancelledError):
                up = asyncio.create_task(self._pass(reader, ours, ours_speaks=True))
                down = asyncio.create_task(self._pass(theirs, writer, ours_speaks=False))
                self._tasks |= {up, down}
                await asyncio.wait({up, down}, return_when=asyncio.FIRST_COMPLETED)
                up.cancel()
                down.cancel()
                await asyncio.gather(up, down, return_exceptions=True)
                self._tasks -= {up, down}
        finally:
            ours.close()
            writer.close()
            self._tasks.discard(task)

    async def _pass(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, ours_speaks: bool
    ) -> None:
        framer = evapi.Framer()
        while data := await reader.read(65536):
            for frame in framer.feed(data):
                if ours_speaks:
                    said = evapi.decode_ours(frame)
                    self.said.append(said)
                    lost = isinstance(said, self.mute)
                else:
                    heard = evapi.decode(frame)
                    self.heard.append(heard)
                    lost = isinstance(heard, self.lose) or (
                        isinstance(heard, evapi.Report) and heard.call_id in self.held
                    )
                if not lost:
                    writer.write(b"%d:%b," % (len(frame), frame))
            await writer.drain()


class Caller:
    """A SIPp with one scenario for its calls."""

    def __init__(self, sipp: Sipp) -> None:
        self.sipp = sipp

    @property
    def call(self) -> SippCall | None:
        """Its first call, as far as it is."""
        return next(iter(self.sipp.calls()), None)

    def moments(self) -> dict[str, int]:
        """What its first call lived through."""
        return self.call.moments if self.call is not None else {}

    async def done(self, seconds: float = 25.0) -> list[SippCall]:
        """Wait until all of its calls are over."""
        return await asyncio.to_thread(self.sipp.wait, seconds)


class Site:
    """Kamailio, a gateway behind it, and the relay in front of it."""

    def __init__(
        self,
        *,
        config: Config | None = None,
        ring_ms: int = 50,
        answer_bye_after_ms: int = 20,
    ) -> None:
        self._config = config or Config()
        self._stack = ExitStack()
        self._ring_ms, self._answer_bye = ring_ms, answer_bye_after_ms
        self._callers: list[Sipp] = []
        self.kamailio: Kamailio
        self.relay: Relay

    async def __aenter__(self) -> Self:
        """Start everything."""
        self.folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="tk-kam-")))
        scenario = answering(ring_ms=self._ring_ms, answer_bye_after_ms=self._answer_bye)
        self.gateway = Sipp(self.folder, "gateway", scenario, seconds=90)
        await asyncio.to_thread(self.gateway.start)
        self._stack.callback(self.gateway.stop)
        from dataclasses import replace

        self.kamailio = Kamailio(
            self.folder,
            gateway_port=self.gateway.port,
            site=replace(self._config, secret=SECRET, again_seconds=1),
        )
        await asyncio.to_thread(self.kamailio.start)
        self._stack.callback(self.kamailio.kill)
        self.relay = Relay(self.kamailio.evapi_port)
        await self.relay.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        """End everything."""
        await self.relay.stop()
        for sipp in self._callers:
            sipp.stop()
        await asyncio.to_thread(self._stack.close)

    def peer(self, **options: object) -> dict[str, Any]:
        """The columns of its peer."""
        return {
            "secret": SECRET,
            "addresses": ["127.0.0.1"],
            "options": {
                "connect": f"127.0.0.1:{self.relay.port}",
                "rpc": self.kamailio.rpc_url,
                "reconcile_seconds": 1,
                **options,
            },
        }

    def call(
        self,
        name: str,
        scenario: str,
        *lines: Sequence[object],
        options: Sequence[str] = (),
        rate: int = 50,
    ) -> Caller:
        """Begin calls by a scenario, one a line: caller, called, milliseconds to talk."""
        sipp = Sipp(
            self.folder,
            name,
            scenario,
            target=self.kamailio.sip_port,
            lines=lines,
            options=options,
            rate=rate,
        )
        self._callers.append(sipp)
        sipp.start()
        return Caller(sipp)
