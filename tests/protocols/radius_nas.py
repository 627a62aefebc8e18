"""A NAS that speaks RADIUS over real sockets: asks, reports, and takes orders (RFC 5176)."""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tollkeeper.wire.radius.attributes import Attributes, Type, integer
from tollkeeper.wire.radius.packet import (
    Attribute,
    Code,
    Fault,
    Packet,
    check_answer,
    check_request,
    decode,
    encode_answer,
    encode_request,
)

RANDOM = (Code.ACCESS_REQUEST, Code.STATUS_SERVER)
ACKS = {Code.DISCONNECT_REQUEST: Code.DISCONNECT_ACK, Code.COA_REQUEST: Code.COA_ACK}
NAKS = {Code.DISCONNECT_REQUEST: Code.DISCONNECT_NAK, Code.COA_REQUEST: Code.COA_NAK}


class _Socket(asyncio.DatagramProtocol):
    def __init__(self, received: Callable[[bytes, Any], None]) -> None:
        self.datagram_received = received  # type: ignore[method-assign]
        self.transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport


@dataclass
class Exchange:
    """A request that was sent, and its answer."""

    sent: bytes
    port: int
    answer: bytes = b""

    @property
    def packet(self) -> Packet:
        """The answer."""
        return decode(self.answer)

    @property
    def seen(self) -> Attributes:
        """The attributes of the answer."""
        return Attributes(self.packet.attributes)


@dataclass
class Nas:
    """One switch. ``obey`` decides on an order: None obeys it, a number is the Error-Cause of a NAK."""

    secret: bytes
    auth: int = 0
    acct: int = 0
    host: str = "127.0.0.1"
    obey: Callable[[Packet], int | None] = lambda _: None
    deaf: bool = False
    answers_with: bytes = b""
    marks: tuple[Attribute, ...] = ()
    """What it says of itself in every report: two of them at one address are told apart by that."""
    orders: list[Packet] = field(default_factory=list)
    order_bytes: list[bytes] = field(default_factory=list)
    last: Exchange | None = None

    async def open(self) -> None:
        """Open both sockets."""
        loop = asyncio.get_running_loop()
        _, self._client = await loop.create_datagram_endpoint(
            lambda: _Socket(self._answered), local_addr=(self.host, 0)
        )
        _, self._orders = await loop.create_datagram_endpoint(
            lambda: _Socket(self._ordered), local_addr=(self.host, 0)
        )
        self._waiting: dict[tuple[int, int], asyncio.Future[bytes]] = {}
        self._numbers = itertools.cycle(range(256))

    @property
    def orders_port(self) -> int:
        """Where it takes orders."""
        return int(self._orders.transport.get_extra_info("sockname")[1])

    def close(self) -> None:
        """Close the sockets."""
        self._client.transport.close()
        self._orders.transport.close()

    def request(self, code: Code, attributes: list[Attribute], **options: Any) -> bytes:
        """A new request."""
        return encode_request(
            code, next(self._numbers), attributes, self.secret, random=os.urandom(16), **options
        )

    async def ask(self, attributes: list[Attribute], **options: Any) -> Exchange:
        """An Access-Request and its answer."""
        return await self.send(self.request(Code.ACCESS_REQUEST, attributes, **options), self.auth)

    async def tell(self, status: int, attributes: list[Attribute]) -> Exchange:
        """An Accounting-Request and its answer."""
        found = [integer(Type.ACCT_STATUS_TYPE, status), *attributes, *self.marks]
        return await self.send(self.request(Code.ACCOUNTING_REQUEST, found), self.acct)

    async def send(self, data: bytes, port: int, *, seconds: float = 10.0) -> Exchange:
        """Send, again every second, until there is an answer, and check it."""
        answer = await self.try_to_send(data, port, seconds=seconds)
        assert answer is not None, "no answer"
        return answer

    async def try_to_send(
        self, data: bytes, port: int, *, seconds: float, again: float = 1.0
    ) -> Exchange | None:
        """As :meth:`send`, None where no answer comes."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[bytes] = loop.create_future()
        self._waiting[port, data[1]] = future
        until = loop.time() + seconds
        while loop.time() < until:
            self._client.transport.sendto(data, ("127.0.0.1", port))
            done, _ = await asyncio.wait({future}, timeout=min(again, until - loop.time()))
            if done:
                exchange = Exchange(data, port, future.result())
                fault = check_answer(exchange.packet, data[4:20], self.secret)
                assert fault is Fault.NONE, fault
                self.last = exchange
                return exchange
        return None

    async def again(self) -> Exchange:
        """The last request once more, to the last bit."""
        assert self.last is not None
        return await self.send(self.last.sent, self.last.port)

    def _answered(self, data: bytes, addr: Any) -> None:
        future = self._waiting.get((addr[1], data[1]))
        if future is not None and not future.done():
            future.set_result(data)

    def _ordered(self, data: bytes, addr: Any) -> None:
        packet = decode(data)
        assert check_request(packet, self.secret) is Fault.NONE
        self.order_bytes.append(data)
        if self.deaf:
            return
        self.orders.append(packet)
        cause, secret = self.obey(packet), self.answers_with or self.secret
        code = Code(packet.code)
        if cause is None:
            answer = encode_answer(packet, ACKS[code], [], secret)
        else:
            why = [integer(Type.ERROR_CAUSE, cause)]
            answer = encode_answer(packet, NAKS[code], why, secret)
        self._orders.transport.sendto(answer, addr)
