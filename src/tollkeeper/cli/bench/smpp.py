"""Messages by SMPP: submitted to a server process, charged durably, passed on to an SMSC, answered.

The ESME and the SMSC are in the measuring process and do next to nothing, so that the figure is the
gateway's: three rounds, of which the median counts. Before each round the ESME submits to the SMSC without
a gateway in between: that is what the machine carries at all.
"""

from __future__ import annotations

import asyncio
import importlib
import statistics
import time
from collections.abc import Callable
from typing import cast

from tollkeeper.cli.bench.engine import Measured
from tollkeeper.cli.bench.engine import measure as sum_up
from tollkeeper.cli.bench.network import serving
from tollkeeper.cli.bench.world import TEXTER, furnish
from tollkeeper.cli.demo.kamailio import free_port
from tollkeeper.errors import SetupError
from tollkeeper.services.peers import create_peer
from tollkeeper.store.db import Database
from tollkeeper.store.peers import Peer
from tollkeeper.wire.smpp import pdu as smpp
from tollkeeper.wire.smpp.pdu import Bind, Framer, Message
from tollkeeper.wire.smpp.text import count_segments

CONNECTIONS = 4
WINDOW = 50
ROUNDS = 3
CONNECT_SECONDS = 20.0
CODEC_ROUNDS = 20_000
SECRET = "bench008"  # noqa: S105 - both ends are ours

MESSAGE = Message(
    source_ton=5,
    source="ACME",
    dest_ton=1,
    dest_npi=1,
    dest="447700900123",
    registered=1,
    short_message=b"Your code is 123456. It is valid for ten minutes; tell it to nobody.",
)
BODY = smpp.message_body(smpp.SUBMIT_SM, MESSAGE)


async def measure(url: str, seconds: float) -> dict[str, object]:
    """Submits a second, their latency, and what the codec takes; ``seconds`` for each round.

    Raises:
        SetupError: the server did not start, or refused messages.
    """
    smsc = await asyncio.get_running_loop().create_server(_Smsc, "127.0.0.1", 0)
    smsc_port = smsc.sockets[0].getsockname()[1]
    await _furnish(url, smsc_port)
    port = free_port()
    settings = {"smpp_listen": f"127.0.0.1:{port}"}
    rounds: list[tuple[Measured, Measured]] = []
    try:
        with serving(url, free_port(), settings):
            await _until_passing(port)
            for _ in range(ROUNDS):
                direct = await _load(smsc_port, seconds / 2)
                rounds.append((direct, await _load(port, seconds)))
    finally:
        smsc.close()
    median = sorted((ours for _, ours in rounds), key=lambda one: one.per_second)[ROUNDS // 2]
    return {
        "smpp_mps": round(median.per_second),
        "smpp_p50_ms": round(median.p50_ms, 2),
        "smpp_p99_ms": round(median.p99_ms, 2),
        "smpp_mps_without_gateway": round(
            statistics.median(direct.per_second for direct, _ in rounds)
        ),
        **codec_figures(),
    }


def codec_figures() -> dict[str, object]:
    """Microseconds to read and write a submit_sm, its segments counted; and the library's, if it is there."""
    frame = smpp.frame(smpp.SUBMIT_SM, 0, 1, BODY)

    def ours() -> None:
        message = smpp.read_message(smpp.SUBMIT_SM, smpp.decode(frame).body)
        count_segments(message)
        smpp.frame(smpp.SUBMIT_SM, 0, 1, smpp.message_body(smpp.SUBMIT_SM, message))

    figures: dict[str, object] = {"smpp_codec_us": _microseconds(ours)}
    try:
        client = importlib.import_module("smpplib.client").Client(
            "127.0.0.1", 1, allow_unknown_opt_params=True
        )
        library = importlib.import_module("smpplib.smpp")
    except ImportError:
        return figures

    def theirs() -> None:
        read = library.parse_pdu(frame, client=client, allow_unknown_opt_params=True)
        made = library.make_pdu(
            "submit_sm",
            client=client,
            source_addr_ton=read.source_addr_ton,
            source_addr="ACME",
            dest_addr_ton=read.dest_addr_ton,
            dest_addr_npi=read.dest_addr_npi,
            destination_addr="447700900123",
            short_message=read.short_message,
            registered_delivery=read.registered_delivery,
        )
        made.generate()

    figures["smpp_codec_library_us"] = _microseconds(theirs)
    return figures


def _microseconds(call: Callable[[], None]) -> float:
    """The median of five runs, per call."""
    taken: list[float] = []
    for _ in range(5):
        began = time.perf_counter()
        for _ in range(CODEC_ROUNDS // 5):
            call()
        taken.append((time.perf_counter() - began) / (CODEC_ROUNDS // 5))
    return round(statistics.median(taken) * 1_000_000, 2)


async def _furnish(url: str, smsc_port: int) -> None:
    """A party with money and a price for messages, its ESME, and the SMSC."""
    await furnish(url)
    database = Database(url)
    await database.open()
    esme = {
        "party": TEXTER,
        "upstream": "bench-smsc",
        "window": 10 * WINDOW,
        "connections": CONNECTIONS + 1,
    }
    smsc = {"connect": f"127.0.0.1:{smsc_port}", "window": 10 * WINDOW}
    try:
        for peer in (
            Peer(0, "bench-esme", "esme", "bench-esme", secret=SECRET, options=esme),
            Peer(0, "bench-smsc", "smsc", "bench-smsc", secret=SECRET, options=smsc),
        ):
            await create_peer(database, peer, actor="bench")
    finally:
        await database.close()


async def _until_passing(port: int) -> None:
    """Wait until a message gets through."""
    deadline = time.monotonic() + CONNECT_SECONDS
    while time.monotonic() < deadline:
        try:
            client = await _connect(port)
        except (OSError, SetupError):
            await asyncio.sleep(0.1)
            continue
        status = await client.once()
        client.close()
        if status == smpp.OK:
            return
        await asyncio.sleep(0.1)
    raise SetupError("no message got through the gateway of the benchmark")


async def _load(port: int, seconds: float) -> Measured:
    """Submit by all connections, each with its window full, and measure after a second of warming up."""
    clients = [await _connect(port) for _ in range(CONNECTIONS)]
    for client in clients:
        client.fill(WINDOW)
    await asyncio.sleep(min(1.0, seconds / 4))
    for client in clients:
        client.latencies.clear()
    began = time.perf_counter()
    await asyncio.sleep(seconds)
    taken = time.perf_counter() - began
    latencies = [one for client in clients for one in client.latencies]
    refused = [status for client in clients for status in client.refused]
    for client in clients:
        client.filling = False
    await asyncio.gather(*[client.drained() for client in clients])
    for client in clients:
        client.close()
    if refused or not latencies:
        raise SetupError(f"messages of the benchmark were refused: {sorted(set(refused))}")
    return sum_up(latencies, taken)


async def _connect(port: int) -> _Client:
    _, client = await asyncio.get_running_loop().create_connection(_Client, "127.0.0.1", port)
    await client.bind()
    return client


class _Client(asyncio.Protocol):
    """An ESME that keeps its window full."""

    def __init__(self) -> None:
        self.latencies: list[float] = []
        self.refused: list[int] = []
        self.filling = False
        self._framer = Framer()
        self._sent: dict[int, float] = {}
        self._next = 1
        self._waiter: asyncio.Future[int] | None = None
        self._empty: asyncio.Event | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = cast("asyncio.Transport", transport)

    async def bind(self) -> None:
        """Bind as a transceiver."""
        self._waiter = asyncio.get_running_loop().create_future()
        body = smpp.bind_body(Bind("bench-esme", SECRET))
        self._transport.write(smpp.frame(smpp.BIND_TRANSCEIVER, 0, 0, body))
        status = await asyncio.wait_for(self._waiter, CONNECT_SECONDS)
        if status != smpp.OK:
            raise SetupError(f"the bind of the benchmark was refused: {smpp.status_name(status)}")

    async def once(self) -> int:
        """Submit one message; its status."""
        self._waiter = asyncio.get_running_loop().create_future()
        self._transport.write(smpp.frame(smpp.SUBMIT_SM, 0, 0, BODY))
        return await asyncio.wait_for(self._waiter, CONNECT_SECONDS)

    def fill(self, window: int) -> None:
        """Submit as many as the window holds, and one more for each answer."""
        self.filling = True
        self._transport.write(b"".join([self._submit() for _ in range(window)]))

    async def drained(self) -> None:
        """Wait until all is answered."""
        if self._sent:
            self._empty = asyncio.Event()
            await asyncio.wait_for(self._empty.wait(), CONNECT_SECONDS)

    def close(self) -> None:
        """End the connection."""
        self._transport.close()

    def data_received(self, data: bytes) -> None:
        """Answers came: as many messages go out as were answered."""
        now = time.perf_counter()
        out: list[bytes] = []
        for pdu in self._framer.feed(data):
            sent = self._sent.pop(pdu.sequence, None)
            if sent is None:
                if self._waiter is not None and not self._waiter.done():
                    self._waiter.set_result(pdu.status)
                continue
            self.latencies.append(now - sent)
            if pdu.status != smpp.OK:
                self.refused.append(pdu.status)
            if self.filling:
                out.append(self._submit())
        if out:
            self._transport.write(b"".join(out))
        elif not self._sent and self._empty is not None:
            self._empty.set()

    def _submit(self) -> bytes:
        self._next += 1
        self._sent[self._next] = time.perf_counter()
        return smpp.frame(smpp.SUBMIT_SM, 0, self._next, BODY)


class _Smsc(asyncio.Protocol):
    """An SMSC that takes everything."""

    def __init__(self) -> None:
        self._framer = Framer()
        self._ids = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Answer everything with success."""
        out: list[bytes] = []
        for pdu in self._framer.feed(data):
            if pdu.command & smpp.RESPONSE:
                continue
            self._ids += 1
            out.append(
                smpp.frame(pdu.command | smpp.RESPONSE, 0, pdu.sequence, b"%d\0" % self._ids)
            )
        self._transport.write(b"".join(out))
