"""One connection to an Asterisk's manager interface: log in, ask, hear events."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import ssl
from collections.abc import Callable
from typing import Final, Self

from tollkeeper.wire.asterisk import ami

CONNECT_SECONDS: Final = 5.0
ANSWER_SECONDS: Final = 5.0
LIST_SECONDS: Final = 20.0
ASKED_MAX: Final = 20_000
"""Actions under way at once; more means that the switch does not answer any more."""
_CHUNK = 64 * 1024


class LinkLost(ConnectionError):
    """The connection is gone, or the switch does not answer on it."""


class LoginRefused(Exception):
    """The user name or secret is wrong, or this address may not log in."""


class AmiLink:
    """A connection that is logged in. ``heard`` is called with each event, in their order."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        heard: Callable[[ami.Message], None],
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._heard = heard
        self._decoder = ami.Decoder()
        self._greeted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._asked: dict[str, asyncio.Future[ami.Message]] = {}
        self._lists: dict[str, tuple[ami.ChannelList, asyncio.Future[None]]] = {}
        self._ids = itertools.count(1)
        self._lost = ""
        self.broken: ami.MalformedAmi | None = None
        """What was said that nobody can read; it ended the connection."""
        self._reading = asyncio.create_task(self._read(), name="ami")

    @classmethod
    async def connect(
        cls,
        host: str,
        port: int,
        *,
        username: str,
        secret: str,
        heard: Callable[[ami.Message], None],
        tls: ssl.SSLContext | None = None,
    ) -> Self:
        """Connect and log in.

        Raises:
            LoginRefused: it did not let us in. OSError, TimeoutError: it is not there.
            MalformedAmi: what is there is no manager interface.
        """
        async with asyncio.timeout(CONNECT_SECONDS):
            reader, writer = await asyncio.open_connection(host, port, ssl=tls)
        link = cls(reader, writer, heard)
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                await link._greeted
            answer = await link.ask(lambda id_: ami.login(id_, username, secret))
            if not answer.success:
                raise LoginRefused(answer.get("Message") or "the login was refused")
        except BaseException as error:
            await link.close()
            if isinstance(error, LinkLost) and link.broken is not None:
                raise link.broken from None
            raise
        return link

    @property
    def lost(self) -> str:
        """Why the connection is gone; empty while it is up."""
        return self._lost

    async def wait(self) -> None:
        """Wait until the connection is gone."""
        await asyncio.wait([self._reading])

    async def close(self) -> None:
        """End it."""
        self._writer.close()
        self._reading.cancel()
        await asyncio.wait([self._reading])
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()

    async def ask(self, make: Callable[[str], bytes]) -> ami.Message:
        """Send the action that ``make`` builds with an ActionID; returns its answer.

        Raises:
            LinkLost: no answer. ValueError: the action cannot be built.
        """
        id_ = f"tk-{next(self._ids)}"
        data = make(id_)
        future = self._expect(self._asked, id_)
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                await self._send(data)
                return await future
        except TimeoutError:
            raise LinkLost(f"no answer within {ANSWER_SECONDS:g} s") from None
        finally:
            self._asked.pop(id_, None)

    async def channels(self) -> list[ami.Channel]:
        """All channels that are up.

        Raises:
            LinkLost: the list did not come, or not all of it; nothing is known then.
        """
        id_ = f"tk-{next(self._ids)}"
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        collecting = ami.ChannelList(id_)
        self._lists[id_] = collecting, future
        try:
            async with asyncio.timeout(LIST_SECONDS):
                await self._send(ami.action("CoreShowChannels", id_))
                await future
        except TimeoutError:
            raise LinkLost(f"no list of channels within {LIST_SECONDS:g} s") from None
        finally:
            self._lists.pop(id_, None)
        if collecting.failed:
            raise LinkLost(f"CoreShowChannels: {collecting.failed}")
        return collecting.channels

    def _expect(
        self, place: dict[str, asyncio.Future[ami.Message]], id_: str
    ) -> asyncio.Future[ami.Message]:
        if len(place) >= ASKED_MAX:
            raise LinkLost(f"{ASKED_MAX} actions are without an answer")
        future: asyncio.Future[ami.Message] = asyncio.get_running_loop().create_future()
        place[id_] = future
        return future

    async def _send(self, data: bytes) -> None:
        if self._lost:
            raise LinkLost(self._lost)
        self._writer.write(data)
        try:
            await self._writer.drain()
        except OSError as error:
            raise LinkLost(str(error)) from error

    async def _read(self) -> None:
        try:
            while data := await self._reader.read(_CHUNK):
                for record in self._decoder.feed(data):
                    self._take(record)
            self._lose("the switch closed the connection")
        except ami.MalformedAmi as error:
            self.broken = error
            if not self._greeted.done():
                self._greeted.set_exception(error)
            self._lose(f"malformed: {error}")
        except OSError as error:
            self._lose(str(error) or type(error).__name__)
        except asyncio.CancelledError:
            self._lose("closed by us")
            raise

    def _take(self, record: ami.Banner | ami.Message) -> None:
        if isinstance(record, ami.Banner):
            self._greeted.set_result(None)
            return
        id_ = record.action_id
        if id_ in self._lists:
            collecting, done = self._lists[id_]
            if collecting.take(record) and collecting.complete and not done.done():
                done.set_result(None)
        elif record.event:
            self._heard(record)
        elif id_ in self._asked and not self._asked[id_].done():
            self._asked[id_].set_result(record)

    def _lose(self, why: str) -> None:
        self._lost = why
        for answer in self._asked.values():
            if not answer.done():
                answer.set_exception(LinkLost(why))
        for done in [self._greeted, *(done for _, done in self._lists.values())]:
            if not done.done():
                done.set_exception(LinkLost(why))
