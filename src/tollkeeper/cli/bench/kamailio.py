"""What a question to Tollkeeper adds to the set-up of a call through a real Kamailio.

Two Kamailios with the same configuration take turns, of which one passes calls on without asking: what the
other needs longer from INVITE to 180 Ringing is the price of the question, the commit of its hold included.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
from contextlib import ExitStack
from pathlib import Path

from tollkeeper.cli.bench.network import serving
from tollkeeper.cli.connect.kamailio_files import Site
from tollkeeper.cli.demo.kamailio import Kamailio, free_port, missing
from tollkeeper.cli.demo.sipp import Sipp, answering, talking
from tollkeeper.errors import SetupError
from tollkeeper.services.peers import create_peer
from tollkeeper.services.trunks import TrunkEntry, create_trunk
from tollkeeper.store.db import Database
from tollkeeper.store.peers import Peer

RATE = 50
ROUNDS = 3
TALK_MS = 500
CALLED = "4915112345678"
SECRET = "between-bench-and-switch"  # noqa: S105 - both ends are ours
CONNECT_SECONDS = 20.0
REFUSED_MAX_SHARE = 0.001


async def measure(url: str, seconds: float) -> dict[str, object]:
    """Measure at 50 calls/s for ``seconds`` in each of three rounds; the median round counts.

    Raises:
        SetupError: Kamailio or SIPp is not installed, or calls failed.
    """
    if lacking := missing():
        raise SetupError(f"The benchmark kamailio needs what is not installed here: {lacking}.")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tollkeeper-sip-")))
        gateway = Sipp(folder, "gateway", answering(ring_ms=20), seconds=600)
        gateway.start()
        stack.callback(gateway.stop)
        asking, passing = (_kamailio(stack, folder, gateway.port, asks) for asks in (True, False))
        await _furnish(url, asking)
        stack.enter_context(serving(url, free_port(), {}))
        await _until_asked(folder, asking)
        rounds = [
            (
                await _set_ups(folder, f"passing-{number}", passing, seconds),
                await _set_ups(folder, f"asking-{number}", asking, seconds),
            )
            for number in range(ROUNDS)
        ]
    return _figures(rounds)


def _kamailio(stack: ExitStack, folder: Path, gateway_port: int, asks: bool) -> Kamailio:  # noqa: FBT001
    place = folder / ("asking.d" if asks else "passing.d")
    place.mkdir()
    made = Kamailio(place, gateway_port=gateway_port, site=Site(secret=SECRET), asks=asks)
    made.start()
    stack.callback(made.stop)
    return made


async def _furnish(url: str, kamailio: Kamailio) -> None:
    """The peer, and a trunk of the first of the benchmark's parties."""
    database = Database(url)
    await database.open()
    try:
        peer = Peer(
            id=0,
            code="bench-kamailio",
            kind="kamailio",
            switch="bench-kamailio",
            secret=SECRET,
            options={
                "connect": f"127.0.0.1:{kamailio.evapi_port}",
                "rpc": kamailio.rpc_url,
                "slice": 60,
            },
        )
        await create_peer(database, peer, actor="bench")
        trunk = TrunkEntry("bench-sip", "in", "bench-1", addresses=("127.0.0.1",))
        await create_trunk(database, trunk, actor="bench")
    finally:
        await database.close()


async def _until_asked(folder: Path, kamailio: Kamailio) -> None:
    """Wait until Tollkeeper is connected: a call is let through."""
    deadline = asyncio.get_running_loop().time() + CONNECT_SECONDS
    number = 0
    while True:
        number += 1
        caller = _caller(folder, f"try-{number}", kamailio, 1)
        (call,) = await asyncio.to_thread(caller.wait)
        if not call.refused:
            return
        if asyncio.get_running_loop().time() > deadline:
            raise SetupError(f"Calls through Kamailio are refused with {call.refused}.")


def _caller(folder: Path, name: str, kamailio: Kamailio, calls: int) -> Sipp:
    caller = Sipp(
        folder,
        name,
        talking(),
        target=kamailio.sip_port,
        lines=[("bench", CALLED, TALK_MS)],
        calls=calls,
        rate=RATE,
        seconds=300,
        options=("-trace_rtt", "-rtt_freq", "1"),
    )
    caller.start()
    return caller


async def _set_ups(folder: Path, name: str, kamailio: Kamailio, seconds: float) -> list[float]:
    """Milliseconds from INVITE to 180 of so many seconds of calls."""
    calls = max(RATE, int(RATE * seconds))
    caller = _caller(folder, name, kamailio, calls)
    seen = await asyncio.to_thread(caller.wait, 300.0)
    answered = sum("answered" in call.moments for call in seen)
    if answered < calls * (1 - REFUSED_MAX_SHARE):
        raise SetupError(f"Of {calls} calls only {answered} were answered: {caller.errors()[:300]}")
    return caller.setup_ms()


def _figures(rounds: list[tuple[list[float], list[float]]]) -> dict[str, object]:
    added = sorted(statistics.mean(asking) - statistics.mean(passing) for passing, asking in rounds)
    return {
        "kamailio_setup_added_ms": round(added[ROUNDS // 2], 2),
        "kamailio_setup_ms": round(statistics.median(_percentile(a, 50) for _, a in rounds), 2),
        "kamailio_setup_p99_ms": round(statistics.median(_percentile(a, 99) for _, a in rounds), 2),
        "kamailio_unasked_ms": round(statistics.median(_percentile(p, 50) for p, _ in rounds), 2),
        "kamailio_unasked_p99_ms": round(
            statistics.median(_percentile(p, 99) for p, _ in rounds), 2
        ),
    }


def _percentile(values: list[float], percent: int) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)]
