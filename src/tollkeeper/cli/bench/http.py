"""Load over HTTP: a lean keep-alive client, so that the client does not measure itself.

Each connection has one call at a time: authorise, then stop, over real sockets on loopback.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from typing import cast

from tollkeeper.cli.bench.engine import NUMBERS, Measured


class _Client(asyncio.Protocol):
    """One connection: writes a request, waits for the whole answer."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._buffer = b""
        self._answer: asyncio.Future[tuple[int, bytes]] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, found, body = self._buffer.partition(b"\r\n\r\n")
        if not found or self._answer is None:
            return
        lower = head.lower()
        at = lower.index(b"content-length:") + 15
        length = int(lower[at : lower.find(b"\r", at) if lower.find(b"\r", at) > 0 else None])
        if len(body) >= length:
            self._buffer = body[length:]
            answer, self._answer = self._answer, None
            answer.set_result((int(head[9:12]), body[:length]))

    def connection_lost(self, exc: Exception | None) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(exc or ConnectionError("the server closed the connection"))

    async def post(self, path: bytes, head: bytes, body: bytes) -> tuple[int, bytes]:
        assert self._transport is not None
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(
            b"POST " + path + b" HTTP/1.1\r\n" + head + str(len(body)).encode() + b"\r\n\r\n" + body
        )
        return await self._answer


async def http_load(
    *, host: str, port: int, token: str, connections: int, seconds: float, wallets: int, run: str
) -> Measured:
    """``connections`` callers, each on its own keep-alive connection."""
    loop = asyncio.get_running_loop()
    head = f"Host: {host}\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\nContent-Length: ".encode()
    count = itertools.count()
    latencies: list[float] = []

    async def client(began: float, until: float) -> None:
        transport, protocol = await loop.create_connection(_Client, host, port)
        try:
            while (now := time.perf_counter()) < until:
                number = next(count)
                name = f"{run}-{number}"
                party, called = f"bench-{number % wallets + 1}", NUMBERS[number % len(NUMBERS)]
                body = f'{{"session_id":"{name}","party":"{party}","called":"{called}"}}'.encode()
                status, answer = await protocol.post(b"/v1/sessions", head, body)
                middle = time.perf_counter()
                if status != 200 or b'"granted"' not in answer[:40]:
                    raise RuntimeError(f"the benchmark's call was refused: {answer[:300]!r}")
                status, answer = await protocol.post(
                    f"/v1/sessions/{name}/stop".encode(), head, b'{"used_seconds":42}'
                )
                if status != 200:
                    raise RuntimeError(f"the benchmark's stop failed: {answer[:300]!r}")
                if now >= began:
                    latencies.extend((middle - now, time.perf_counter() - middle))
        finally:
            transport.close()

    # A second of warming up is not counted.
    began = time.perf_counter() + 1.0
    await asyncio.gather(*(client(began, began + seconds) for _ in range(connections)))
    elapsed = time.perf_counter() - began
    latencies.sort()
    return Measured(
        len(latencies),
        elapsed,
        latencies[len(latencies) // 2] * 1000,
        latencies[int(len(latencies) * 0.99)] * 1000,
    )
