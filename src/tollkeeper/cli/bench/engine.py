"""The engine in process: authorise and stop through the charging service, durable, client included."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass

from tollkeeper.core.records import Outcome
from tollkeeper.errors import Busy
from tollkeeper.services.charging import Charging

NUMBERS = (
    "447700900123",
    "4915112345678",
    "33612345678",
    "923001234567",
    "12125550123",
    "8613800138000",
)


@dataclass(frozen=True, slots=True)
class Measured:
    """Operations per second and latencies in milliseconds."""

    operations: int
    seconds: float
    p50_ms: float
    p99_ms: float

    @property
    def per_second(self) -> float:
        """Operations per second."""
        return self.operations / self.seconds


def measure(latencies: list[float], seconds: float) -> Measured:
    """Sum up the latencies (in seconds) of operations that took so many seconds in all."""
    latencies.sort()
    middle, high = latencies[len(latencies) // 2], latencies[int(len(latencies) * 0.99)]
    return Measured(len(latencies), seconds, middle * 1000, high * 1000)


class Calls:
    """Calls against the charging service: one authorise, one stop, each timed by itself.

    They are made by ``wallets`` parties in turn, or all by one ``party``.
    """

    def __init__(self, charging: Charging, wallets: int, run: str, *, party: str = "") -> None:
        self._charging = charging
        self._party = party
        self._wallets = wallets
        self._run = run
        self._count = itertools.count()
        self.latencies: list[float] = []
        self.shed: list[float] = []
        self.stops_sent_again = 0

    async def call(self) -> None:
        """One whole call: two durable operations."""
        number = next(self._count)
        party = self._party or f"bench-{number % self._wallets + 1}"
        session_id = f"{self._run}-{number}"
        began = time.perf_counter()
        reply, _ = await self._charging.authorise(
            switch="bench",
            session_id=session_id,
            party=party,
            called=NUMBERS[number % len(NUMBERS)],
        )
        middle = time.perf_counter()
        if reply.outcome is not Outcome.GRANTED:
            raise RuntimeError(f"the benchmark's call was refused: {reply.reason}")
        await self._charging.stop(switch="bench", session_id=session_id, used_ms=42_000)
        end = time.perf_counter()
        self.latencies += (middle - began, end - middle)

    async def call_or_be_shed(self) -> None:
        """As a switch does it under overload: a call turned away is routed elsewhere, a stop is sent again."""
        session_id = f"{self._run}-{next(self._count)}"
        began = time.perf_counter()
        try:
            await self._charging.authorise(
                switch="bench", session_id=session_id, party="bench-1", called=NUMBERS[0]
            )
        except Busy:
            self.shed.append(time.perf_counter() - began)
            return
        self.latencies.append(time.perf_counter() - began)
        while True:
            try:
                await self._charging.stop(switch="bench", session_id=session_id, used_ms=42_000)
                return
            except Busy:
                self.stops_sent_again += 1
                await asyncio.sleep(0.1)


async def closed_loop(calls: Calls, clients: int, seconds: float) -> Measured:
    """``clients`` callers, each starting its next call when the last one is settled."""

    async def client(until: float) -> None:
        while time.perf_counter() < until:
            await calls.call()

    await asyncio.gather(
        *(client(time.perf_counter() + min(1.0, seconds / 4)) for _ in range(clients))
    )
    calls.latencies.clear()
    began = time.perf_counter()
    await asyncio.gather(*(client(began + seconds) for _ in range(clients)))
    return measure(calls.latencies, time.perf_counter() - began)


async def open_loop(
    calls: Calls, operations_per_second: float, seconds: float, *, overload: bool = False
) -> Measured:
    """Calls arrive at random (Poisson) at the given rate, whether earlier ones are answered or not.

    A second of arrivals before is not counted, as in the closed loop.
    """
    dice = random.Random(7)  # noqa: S311 - arrivals that can be repeated, no secrets
    call = calls.call_or_be_shed if overload else calls.call
    await _arrivals(call, operations_per_second / 2, 1.0, dice)
    calls.latencies.clear()
    began = time.perf_counter()
    await _arrivals(call, operations_per_second / 2, seconds, dice)
    return measure(calls.latencies, time.perf_counter() - began)


async def _arrivals(
    call: Callable[[], Coroutine[object, object, None]],
    per_second: float,
    seconds: float,
    dice: random.Random,
) -> None:
    """Begin calls for so many seconds, and wait for the last to end."""
    tasks: set[asyncio.Task[None]] = set()
    began = due = time.perf_counter()
    while due < began + seconds:
        due += dice.expovariate(per_second)
        delay = due - time.perf_counter()
        if delay > 0:
            await asyncio.sleep(delay)
        task = asyncio.create_task(call())
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    await asyncio.gather(*tasks)
