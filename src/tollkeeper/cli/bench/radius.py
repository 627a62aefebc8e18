"""Calls by RADIUS: asked for, begun and ended over UDP with a server process, each answer durable.

The switch is in the measuring process and does next to nothing, so that the figure is the server's: three
rounds, of which the median counts. Before each round the switch speaks with a port that only answers:
that is what the machine carries at all.
"""

from __future__ import annotations

import asyncio
import importlib
import io
import itertools
import os
import statistics
import time
from collections.abc import Callable
from typing import Any, cast

from tollkeeper.cli.bench.engine import NUMBERS, Measured
from tollkeeper.cli.bench.engine import measure as sum_up
from tollkeeper.cli.bench.network import serving
from tollkeeper.cli.demo.kamailio import free_port
from tollkeeper.errors import SetupError
from tollkeeper.services.peers import create_peer
from tollkeeper.store.db import Database
from tollkeeper.store.peers import Peer
from tollkeeper.wire.radius.attributes import Type, Voice, integer, text, voice
from tollkeeper.wire.radius.messages import Status, read_report
from tollkeeper.wire.radius.packet import (
    Attribute,
    Code,
    check_request,
    decode,
    encode_answer,
    encode_request,
)

SOCKETS = 4
IN_FLIGHT = 8
"""Requests under way on each socket."""
ROUNDS = 3
PARTIES = 1000
CODEC_ROUNDS = 20_000
ANSWER_SECONDS = 5.0
UP_SECONDS = 20.0
SECRET = b"bench-secret"


async def measure(url: str, seconds: float) -> dict[str, object]:
    """Requests a second (a third each Access-Request, Start, Stop), their latency, the codec's cost.

    Raises:
        SetupError: the server did not start, or refused calls.
    """
    await _furnish(url)
    auth, acct = free_port(), free_port()
    settings = {
        "radius_auth_listen": f"127.0.0.1:{auth}",
        "radius_acct_listen": f"127.0.0.1:{acct}",
    }
    rounds: list[tuple[Measured, Measured]] = []
    loop = asyncio.get_running_loop()
    bare, _ = await loop.create_datagram_endpoint(_Bare, local_addr=("127.0.0.1", 0))
    plain = int(bare.get_extra_info("sockname")[1])
    try:
        with serving(url, free_port(), settings):
            await _until_up(auth)
            for number in range(ROUNDS):
                direct = await _load(plain, plain, seconds / 2, f"d{number}")
                rounds.append((direct, await _load(auth, acct, seconds, f"r{number}")))
    finally:
        bare.close()
    median = sorted((ours for _, ours in rounds), key=lambda one: one.per_second)[ROUNDS // 2]
    return {
        "radius_rps": round(median.per_second),
        "radius_p50_ms": round(median.p50_ms, 2),
        "radius_p99_ms": round(median.p99_ms, 2),
        "radius_rps_without_server": round(
            statistics.median(direct.per_second for direct, _ in rounds)
        ),
        **codec_figures(),
    }


def codec_figures() -> dict[str, object]:
    """Microseconds to read, prove and answer an Accounting-Request; and pyrad's, if it is there."""
    stop = encode_request(Code.ACCOUNTING_REQUEST, 1, _report("x", 7, Status.STOP), SECRET)

    def codec() -> None:
        packet = decode(stop)
        check_request(packet, SECRET)
        encode_answer(packet, Code.ACCOUNTING_RESPONSE, (), SECRET)

    def whole() -> None:
        packet = decode(stop)
        check_request(packet, SECRET)
        read_report(packet)
        encode_answer(packet, Code.ACCOUNTING_RESPONSE, (), SECRET)

    figures: dict[str, object] = {
        "radius_codec_us": _microseconds(codec),
        "radius_codec_with_report_us": _microseconds(whole),
    }
    try:
        library = importlib.import_module("pyrad.packet")
        dictionary = importlib.import_module("pyrad.dictionary").Dictionary(
            io.StringIO("ATTRIBUTE User-Name 1 string\n")
        )
    except ImportError:
        return figures

    def theirs() -> None:
        packet = library.AcctPacket(packet=stop, secret=SECRET, dict=dictionary)
        packet.VerifyAcctRequest()
        packet.verify_message_authenticator()
        packet.CreateReply().ReplyPacket()

    figures["radius_codec_library_us"] = _microseconds(theirs)
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


async def _furnish(url: str) -> None:
    """One switch, whose user names are the parties."""
    database = Database(url)
    await database.open()
    options: dict[str, object] = {"accounts_are_parties": True, "whole_call": 600, "orders_port": 0}
    peer = Peer(
        0, "bench", "radius", "bench", ("127.0.0.1",), secret=SECRET.decode(), options=options
    )
    try:
        await create_peer(database, peer, actor="bench")
    finally:
        await database.close()


def _call(session_id: str, number: int) -> list[Attribute]:
    return [
        text(Type.USER_NAME, f"bench-{number % PARTIES + 1}"),
        text(Type.CALLED_STATION_ID, NUMBERS[number % len(NUMBERS)]),
        text(Type.CALLING_STATION_ID, "12025550100"),
        text(Type.ACCT_SESSION_ID, session_id),
        voice(Voice.CONF_ID, f"{number:X} 1 2 {abs(hash(session_id)) & 0xFFFFFFFF:X}"),
    ]


def _report(session_id: str, number: int, status: Status) -> list[Attribute]:
    found = [integer(Type.ACCT_STATUS_TYPE, status), *_call(session_id, number)]
    if status == Status.STOP:
        found.append(integer(Type.ACCT_SESSION_TIME, 42))
    return found


async def _until_up(port: int) -> None:
    """Wait until the server answers a Status-Server."""
    switch = await _Switch.open()
    deadline = time.monotonic() + UP_SECONDS
    try:
        while time.monotonic() < deadline:
            try:
                await switch.ask(port, Code.STATUS_SERVER, [], seconds=0.2)
            except SetupError:
                continue
            return
    finally:
        switch.close()
    raise SetupError("the RADIUS server of the benchmark did not answer")


async def _load(auth: int, acct: int, seconds: float, run: str) -> Measured:
    """Whole calls one after another, some at a time; a second of warming up is not counted."""
    switches = [await _Switch.open() for _ in range(SOCKETS)]
    count = itertools.count()
    name = f"{run}-{os.getpid():x}"
    latencies: list[float] = []

    async def caller(switch: _Switch, until: float) -> None:
        while time.perf_counter() < until:
            number = next(count)
            id_ = f"{name}-{number}"
            for port, code, attributes in (
                (auth, Code.ACCESS_REQUEST, _call(id_, number)),
                (acct, Code.ACCOUNTING_REQUEST, _report(id_, number, Status.START)),
                (acct, Code.ACCOUNTING_REQUEST, _report(id_, number, Status.STOP)),
            ):
                latencies.append(await switch.ask(port, code, attributes))

    async def all_callers(for_seconds: float) -> float:
        began = time.perf_counter()
        until = began + for_seconds
        await asyncio.gather(
            *(caller(switch, until) for switch in switches for _ in range(IN_FLIGHT))
        )
        return time.perf_counter() - began

    try:
        await all_callers(min(1.0, seconds / 4))
        latencies.clear()
        taken = await all_callers(seconds)
    finally:
        for switch in switches:
            switch.close()
    return sum_up(latencies, taken)


class _Switch(asyncio.DatagramProtocol):
    """One socket of the switch. Answers are taken as they are: that they are right is for the tests."""

    def __init__(self) -> None:
        self._transport: asyncio.DatagramTransport | None = None
        self._waiting: dict[int, asyncio.Future[int]] = {}
        self._ids = itertools.cycle(range(256))

    @classmethod
    async def open(cls) -> _Switch:
        loop = asyncio.get_running_loop()
        _, switch = await loop.create_datagram_endpoint(cls, local_addr=("127.0.0.1", 0))
        return switch

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: Any) -> None:  # noqa: ARG002
        answer = self._waiting.pop(data[1], None)
        if answer is not None and not answer.done():
            answer.set_result(data[0])

    async def ask(
        self, port: int, code: Code, attributes: list[Attribute], *, seconds: float = ANSWER_SECONDS
    ) -> float:
        """Send a request; the seconds until its answer.

        Raises:
            SetupError: no answer, or a refusal.
        """
        assert self._transport is not None
        id_ = next(self._ids)
        data = encode_request(code, id_, attributes, SECRET, random=os.urandom(16))
        answer: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._waiting[id_] = answer
        began = time.perf_counter()
        self._transport.sendto(data, ("127.0.0.1", port))
        try:
            found = await asyncio.wait_for(answer, seconds)
        except TimeoutError:
            raise SetupError(f"a {code.name} of the benchmark was not answered") from None
        if found == Code.ACCESS_REJECT:
            raise SetupError("a call of the benchmark was refused")
        return time.perf_counter() - began

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()


class _Bare(asyncio.DatagramProtocol):
    """Answers every request at once and does nothing."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        packet = decode(data)
        accounting = packet.code == Code.ACCOUNTING_REQUEST
        code = Code.ACCOUNTING_RESPONSE if accounting else Code.ACCESS_ACCEPT
        self._transport.sendto(encode_answer(packet, code, (), SECRET), addr)
