"""A credit-control client for tests: one connection, answers by hop-by-hop id, obeys RAR and ASR."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from typing import Any

from tollkeeper.wire.diameter.base import (
    Answer,
    Capabilities,
    Link,
    SessionRequest,
    decode_answer,
    decode_capabilities,
    decode_session_request,
    encode_answer,
    encode_capabilities,
    encode_link,
)
from tollkeeper.wire.diameter.codec import HEADER, decode_header, frame_length
from tollkeeper.wire.diameter.codes import Command, Kind
from tollkeeper.wire.diameter.credit import CreditAnswer, CreditRequest, decode_credit_answer
from tollkeeper.wire.diameter.credit_encode import encode_request

SECONDS = 10.0
_ids = itertools.count(1)

Heard = Callable[[SessionRequest], Awaitable[int]]


async def _agree(_: SessionRequest) -> int:
    return 2001


class Client:
    """Speaks with a server as a gateway does. ``frames`` are all messages of both sides, in their order."""

    def __init__(self, host: str = "gw.example", *, heard: Heard = _agree) -> None:
        self.host = host
        self.realm = host.partition(".")[2] or host
        self.heard = heard
        self.frames: list[tuple[str, bytes]] = []
        self.asked: list[SessionRequest] = []
        self.closed = asyncio.Event()
        self._waiting: dict[int, asyncio.Future[bytes]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._writer: asyncio.StreamWriter | None = None
        self._reading: asyncio.Task[None] | None = None

    async def connect(self, address: tuple[str, int], *, ssl: Any = None) -> None:
        """Open the transport only."""
        reader, self._writer = await asyncio.open_connection(*address, ssl=ssl)
        self.closed.clear()
        self._reading = asyncio.create_task(self._read(reader))

    async def hello(self, **more: Any) -> Capabilities:
        """Say who we are; the CEA."""
        values: dict[str, Any] = {"auth_applications": (4,), "addresses": ("127.0.0.1",)} | more
        record = Capabilities(self.host, self.realm, **values)
        answer = await self.exchange(lambda hop: encode_capabilities(record, hop, hop))
        return decode_capabilities(answer)

    async def watchdog(self) -> Answer:
        """A DWR and its answer."""
        link = Link(self.host, self.realm, 1)
        return decode_answer(await self.exchange(lambda hop: encode_link(link, hop, hop)))

    async def goodbye(self) -> Answer:
        """A DPR and its answer."""
        link = Link(self.host, self.realm, cause=0)
        return decode_answer(await self.exchange(lambda hop: encode_link(link, hop, hop)))

    def request(self, session: str, kind: Kind, number: int, **more: Any) -> CreditRequest:
        """A CCR of ours."""
        values: dict[str, Any] = {
            "origin_host": self.host,
            "origin_realm": self.realm,
            "destination_realm": "ocs.example",
            "context": "32260@3gpp.org",
        } | more
        return CreditRequest(session_id=session, kind=kind, number=number, **values)

    async def credit(
        self, request: CreditRequest, *, end_to_end: int | None = None, again: bool = False
    ) -> CreditAnswer:
        """Send a CCR; its CCA. ``end_to_end`` and ``again`` for one that is sent a second time."""
        end = next(_ids) if end_to_end is None else end_to_end
        answer = await self.exchange(
            lambda hop: encode_request(request, hop, end, retransmitted=again)
        )
        return decode_credit_answer(answer)

    async def exchange(self, encode: Callable[[int], bytes]) -> bytes:
        """Send a request made with a hop-by-hop id of ours; its answer's bytes."""
        hop = next(_ids)
        future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._waiting[hop] = future
        self.send(encode(hop))
        try:
            return await asyncio.wait_for(future, SECONDS)
        finally:
            self._waiting.pop(hop, None)

    def send(self, data: bytes) -> None:
        """Send bytes, whatever they are."""
        assert self._writer is not None
        self.frames.append(("client", data))
        self._writer.write(data)

    async def close(self) -> None:
        """Cut the connection."""
        for task in [*self._tasks, *([self._reading] if self._reading else [])]:
            task.cancel()
            await asyncio.wait([task])
        if self._writer is not None:
            self._writer.close()
            await asyncio.wait([asyncio.ensure_future(self._gone(self._writer))], timeout=5)
            self._writer = None

    @staticmethod
    async def _gone(writer: asyncio.StreamWriter) -> None:
        try:
            await writer.wait_closed()
        except (OSError, ConnectionError):
            return

    async def _read(self, reader: asyncio.StreamReader) -> None:
        try:
            while True:
                head = await reader.readexactly(HEADER)
                data = head + await reader.readexactly(frame_length(head) - HEADER)
                self.frames.append(("server", data))
                header = decode_header(data)
                if header.request:
                    task = asyncio.create_task(self._serve(data))
                    self._tasks.add(task)
                    task.add_done_callback(self._tasks.discard)
                elif (future := self._waiting.get(header.hop_by_hop)) and not future.done():
                    future.set_result(data)
        except (asyncio.IncompleteReadError, ConnectionError):
            for future in self._waiting.values():
                if not future.done():
                    future.set_exception(ConnectionError("the server closed the connection"))
        finally:
            self.closed.set()

    async def _serve(self, data: bytes) -> None:
        """Answer what the server asks: watchdog, goodbye, RAR, ASR."""
        header = decode_header(data)
        session, result = "", 2001
        if header.command in {Command.RE_AUTH, Command.ABORT_SESSION}:
            wish = decode_session_request(data)
            self.asked.append(wish)
            session = wish.session_id
            result = await self.heard(wish)
        self.send(
            encode_answer(
                Answer(result, self.host, self.realm, session),
                command=header.command,
                application=header.application,
                hop_by_hop=header.hop_by_hop,
                end_to_end=header.end_to_end,
            )
        )
