"""Calls by Diameter: CCR-I, CCR-U and CCR-T over TCP with a server process, each answer durable.

The gateway is in the measuring process and does next to nothing, so that the figure is the server's: three
rounds, of which the median counts. Before each round the gateway speaks with a port that only answers:
that is what the machine carries at all.
"""

from __future__ import annotations

import asyncio
import importlib
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
from tollkeeper.wire.diameter.base import Capabilities, encode_capabilities
from tollkeeper.wire.diameter.codec import decode_header, frame_length
from tollkeeper.wire.diameter.codes import Command, Kind, Result, Subscriber
from tollkeeper.wire.diameter.credit import (
    Control,
    CreditAnswer,
    CreditRequest,
    Units,
    decode_request,
)
from tollkeeper.wire.diameter.credit_encode import encode_credit_answer, encode_request
from tollkeeper.wire.diameter.service import ServiceInformation

CONNECTIONS = 4
IN_FLIGHT = 16
"""Calls under way on each connection, each with one request at a time."""
ROUNDS = 3
PARTIES = 1000
CODEC_ROUNDS = 10_000
ANSWER_SECONDS = 10.0
UP_SECONDS = 20.0
HOST = "gw.bench.example"
REALM = "bench.example"
_RESULT = b"\x00\x00\x01\x0c\x40\x00\x00\x0c"
"""The head of a Result-Code AVP."""


async def measure(url: str, seconds: float) -> dict[str, object]:
    """Requests a second (a third each initial, update, termination), their latency, the codec's cost.

    Raises:
        SetupError: the server did not start, or refused calls.
    """
    await _furnish(url)
    port = free_port()
    settings = {
        "diameter_listen": f"127.0.0.1:{port}",
        "diameter_host": "ocs.bench.example",
        "diameter_realm": REALM,
    }
    rounds: list[tuple[Measured, Measured]] = []
    bare = await asyncio.get_running_loop().create_server(_Bare, "127.0.0.1", 0)
    plain = int(bare.sockets[0].getsockname()[1])
    try:
        with serving(url, free_port(), settings):
            await _until_up(port)
            for number in range(ROUNDS):
                direct = await _load(plain, seconds / 2, f"d{number}")
                rounds.append((direct, await _load(port, seconds, f"r{number}")))
    finally:
        bare.close()
    median = sorted((ours for _, ours in rounds), key=lambda one: one.per_second)[ROUNDS // 2]
    return {
        "diameter_rps": round(median.per_second),
        "diameter_p50_ms": round(median.p50_ms, 2),
        "diameter_p99_ms": round(median.p99_ms, 2),
        "diameter_rps_without_server": round(
            statistics.median(direct.per_second for direct, _ in rounds)
        ),
        **codec_figures(),
    }


def codec_figures() -> dict[str, object]:
    """Microseconds to read a CCR-U and write its answer; and python-diameter's, if it is there."""
    data = encode_request(_request("s;1;2", 7, Kind.UPDATE, 1), 1, 2)
    answer = _answer(decode_request(data))

    def ours() -> None:
        header = decode_header(data)
        decode_request(data)
        encode_credit_answer(answer, header)

    figures: dict[str, object] = {"diameter_codec_us": _microseconds(ours, CODEC_ROUNDS)}
    try:
        library = importlib.import_module("diameter.message")
        grouped = importlib.import_module("diameter.message.avp.grouped")
    except ImportError:
        return figures

    def theirs() -> None:
        told = library.Message.from_bytes(data).to_answer()
        told.session_id = answer.session_id
        told.result_code = answer.result
        told.origin_host = b"ocs.bench.example"
        told.origin_realm = REALM.encode()
        told.auth_application_id = 4
        told.cc_request_type = answer.kind
        told.cc_request_number = answer.number
        told.multiple_services_credit_control = [
            grouped.MultipleServicesCreditControl(
                granted_service_unit=grouped.GrantedServiceUnit(cc_time=60),
                rating_group=1,
                validity_time=60,
                result_code=2001,
            )
        ]
        told.as_bytes()

    figures["diameter_codec_library_us"] = _microseconds(theirs, CODEC_ROUNDS // 20)
    return figures


def _microseconds(call: Callable[[], None], rounds: int) -> float:
    """The median of five runs, per call."""
    taken: list[float] = []
    for _ in range(5):
        began = time.perf_counter()
        for _ in range(rounds // 5):
            call()
        taken.append((time.perf_counter() - began) / (rounds // 5))
    return round(statistics.median(taken) * 1_000_000, 2)


async def _furnish(url: str) -> None:
    """One gateway, whose subscribers are the parties."""
    database = Database(url)
    await database.open()
    options: dict[str, object] = {"accounts_are_parties": True, "origin_host": HOST, "slice": 60}
    peer = Peer(0, "bench", "diameter", "bench", ("127.0.0.1",), options=options)
    try:
        await create_peer(database, peer, actor="bench")
    finally:
        await database.close()


def _request(session_id: str, number: int, kind: Kind, step: int) -> CreditRequest:
    """A call's request as an IMS gateway writes it."""
    asked = None if kind is Kind.TERMINATION else Units(time=60)
    used = () if kind is Kind.INITIAL else (Units(time=21),)
    return CreditRequest(
        session_id=session_id,
        origin_host=HOST,
        origin_realm=REALM,
        destination_realm=REALM,
        context="32260@3gpp.org",
        kind=kind,
        number=step,
        subscribers=((Subscriber.PRIVATE, f"bench-{number % PARTIES + 1}"),),
        multiple=True,
        controls=(Control(rating_group=1, requested=asked, used=used),),
        information=ServiceInformation(
            calling="tel:+12025550100", called=f"tel:+{NUMBERS[number % len(NUMBERS)]}"
        ),
    )


def _answer(request: CreditRequest) -> CreditAnswer:
    line = Control(rating_group=1, granted=Units(time=60), validity=60, result=Result.SUCCESS)
    return CreditAnswer(
        session_id=request.session_id,
        result=Result.SUCCESS,
        origin_host="ocs.bench.example",
        origin_realm=REALM,
        kind=request.kind,
        number=request.number,
        controls=(line,),
    )


async def _until_up(port: int) -> None:
    """Wait until the server lets the gateway in."""
    deadline = time.monotonic() + UP_SECONDS
    while time.monotonic() < deadline:
        try:
            gateway = await _Gateway.open(port)
        except (OSError, SetupError):
            await asyncio.sleep(0.1)
            continue
        gateway.close()
        return
    raise SetupError("the Diameter server of the benchmark did not answer")


async def _load(port: int, seconds: float, run: str) -> Measured:
    """Whole calls one after another, some at a time; a second of warming up is not counted."""
    gateways = [await _Gateway.open(port) for _ in range(CONNECTIONS)]
    count = itertools.count()
    name = f"{HOST};{os.getpid():x};{run}"
    latencies: list[float] = []

    async def caller(gateway: _Gateway, until: float) -> None:
        while time.perf_counter() < until:
            number = next(count)
            id_ = f"{name};{number}"
            for step, kind in enumerate((Kind.INITIAL, Kind.UPDATE, Kind.TERMINATION)):
                latencies.append(await gateway.ask(_request(id_, number, kind, step)))

    async def all_callers(for_seconds: float) -> float:
        began = time.perf_counter()
        until = began + for_seconds
        await asyncio.gather(
            *(caller(gateway, until) for gateway in gateways for _ in range(IN_FLIGHT))
        )
        return time.perf_counter() - began

    try:
        await all_callers(min(1.0, seconds / 4))
        latencies.clear()
        taken = await all_callers(seconds)
    finally:
        for gateway in gateways:
            gateway.close()
    return sum_up(latencies, taken)


class _Stream(asyncio.Protocol):
    """Cuts messages out of a stream."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (length := frame_length(self._buffer)) and len(self._buffer) >= length:
            message = bytes(self._buffer[:length])
            del self._buffer[:length]
            self.heard(message)

    def heard(self, message: bytes) -> None:
        """One whole message came."""
        raise NotImplementedError


class _Gateway(_Stream):
    """One connection of the gateway. Of answers only the result is read: the tests read the rest."""

    def __init__(self) -> None:
        super().__init__()
        self._waiting: dict[int, asyncio.Future[bytes]] = {}
        self._ids = itertools.count(1)

    @classmethod
    async def open(cls, port: int) -> _Gateway:
        """Connect and say hello.

        Raises:
            SetupError: it was not let in.
        """
        loop = asyncio.get_running_loop()
        _, gateway = await loop.create_connection(cls, "127.0.0.1", port)
        hello = Capabilities(HOST, REALM, ("127.0.0.1",), auth_applications=(4,))
        await gateway._exchange(lambda hop: encode_capabilities(hello, hop, hop))  # noqa: SLF001
        return gateway

    def heard(self, message: bytes) -> None:
        future = self._waiting.pop(int.from_bytes(message[12:16]), None)
        if future is not None and not future.done():
            future.set_result(message)

    def connection_lost(self, exc: Exception | None) -> None:
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(exc or SetupError("the connection was closed"))

    async def ask(self, request: CreditRequest) -> float:
        """Send a request; the seconds until its answer.

        Raises:
            SetupError: no answer, or a refusal.
        """
        began = time.perf_counter()
        await self._exchange(lambda hop: encode_request(request, hop, hop))
        return time.perf_counter() - began

    async def _exchange(self, encode: Callable[[int], bytes]) -> None:
        hop = next(self._ids)
        future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._waiting[hop] = future
        self.transport.write(encode(hop))
        try:
            answer = await asyncio.wait_for(future, ANSWER_SECONDS)
        except TimeoutError:
            raise SetupError("a request of the benchmark was not answered") from None
        at = answer.find(_RESULT)
        result = int.from_bytes(answer[at + 8 : at + 12])
        if result != Result.SUCCESS:
            raise SetupError(f"a request of the benchmark was answered {result}")

    def close(self) -> None:
        """Cut the connection."""
        self.transport.close()


class _Bare(_Stream):
    """Answers every request at once and does nothing."""

    def heard(self, message: bytes) -> None:
        header = decode_header(message)
        answer: Any
        if header.command == Command.CAPABILITIES:
            hello = Capabilities("bare", REALM, ("127.0.0.1",), result=Result.SUCCESS)
            answer = encode_capabilities(hello, header.hop_by_hop, header.end_to_end)
        else:
            answer = encode_credit_answer(_answer(decode_request(message)), header)
        self.transport.write(answer)
