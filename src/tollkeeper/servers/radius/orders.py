"""The RFC 5176 client: sends an order to a NAS until it is answered, or it is too late.

Retransmission follows RFC 5080 section 2.2.1: 2 seconds at first, doubled each time up to 16, a
tenth more or less by chance, given up after 30. The octets stay the same, so that a NAS knows a
repeated order for the same one.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self, cast

import structlog

from tollkeeper.wire.radius.packet import (
    Attribute,
    Code,
    Fault,
    MalformedRadius,
    Packet,
    check_answer,
    decode,
    encode_request,
)

ANSWERS = {
    Code.DISCONNECT_REQUEST: frozenset({Code.DISCONNECT_ACK, Code.DISCONNECT_NAK}),
    Code.COA_REQUEST: frozenset({Code.COA_ACK, Code.COA_NAK}),
}


_log = structlog.get_logger()


class OrderFailed(Exception):
    """A NAS did not answer, or cannot be sent to; the text says which and where."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long an order is repeated, in seconds."""

    first: float = 2.0
    most: float = 16.0
    total: float = 30.0


PATIENCE = Patience()


@dataclass(slots=True)
class _Waiting:
    authenticator: bytes
    secret: bytes
    codes: frozenset[Code]
    answer: asyncio.Future[Packet]


class Orders(asyncio.DatagramProtocol):
    """One socket for the orders to every NAS; at most 256 at a time to each, as the protocol has it."""

    def __init__(self, patience: Patience = PATIENCE) -> None:
        self._patience = patience
        self._waiting: dict[tuple[str, int, int], _Waiting] = {}
        self._next = 0
        self._transport: asyncio.DatagramTransport | None = None
        # Only spreads retransmissions; nobody gains by foreseeing them.
        self._dice = random.Random()  # noqa: S311

    @classmethod
    async def open(cls, host: str = "0.0.0.0", patience: Patience = PATIENCE) -> Self:  # noqa: S104
        """Open the socket that orders are sent from."""
        loop = asyncio.get_running_loop()
        _, protocol = await loop.create_datagram_endpoint(
            lambda: cls(patience), local_addr=(host, 0)
        )
        return protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the socket."""
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        """Take the answer to an order; what proves nothing is dropped."""
        try:
            packet = decode(data)
        except MalformedRadius:
            return
        waiting = self._waiting.get((addr[0], addr[1], packet.identifier))
        if waiting is None or packet.code not in waiting.codes or waiting.answer.done():
            return
        if check_answer(packet, waiting.authenticator, waiting.secret) is Fault.NONE:
            waiting.answer.set_result(packet)

    def error_received(self, exc: Exception) -> None:
        """Nobody listens there, at the moment; the order is repeated as if it were lost."""
        _log.info("radius.order_unreachable", error=str(exc))

    async def send(
        self, host: str, port: int, secret: bytes, code: Code, attributes: Iterable[Attribute]
    ) -> Packet:
        """Send an order to the address of a NAS and return its answer, ACK or NAK.

        Raises:
            OrderFailed: no answer in time, too many orders under way, or no such address.
        """
        assert self._transport is not None
        where = f"{host}:{port}"
        identifier = self._free(host, port)
        data = encode_request(code, identifier, attributes, secret)
        key = (host, port, identifier)
        answer: asyncio.Future[Packet] = asyncio.get_running_loop().create_future()
        self._waiting[key] = _Waiting(data[4:20], secret, ANSWERS[code], answer)
        try:
            async with asyncio.timeout(self._patience.total):
                wait = self._patience.first
                while True:
                    self._transport.sendto(data, (host, port))
                    jitter = wait * self._dice.uniform(0.9, 1.1)
                    done, _ = await asyncio.wait({answer}, timeout=jitter)
                    if done:
                        return answer.result()
                    wait = min(wait * 2, self._patience.most)
        except TimeoutError:
            raise OrderFailed(
                f"the NAS at {where} did not answer in {self._patience.total:g} seconds"
            ) from None
        finally:
            del self._waiting[key]

    def _free(self, host: str, port: int) -> int:
        for _ in range(256):
            self._next = (self._next + 1) % 256
            if (host, port, self._next) not in self._waiting:
                return self._next
        raise OrderFailed(f"256 orders to the NAS at {host}:{port} are without an answer")

    def close(self) -> None:
        """Close the socket; what waits is not answered any more."""
        if self._transport is not None:
            self._transport.close()
