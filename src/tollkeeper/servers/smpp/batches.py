"""Small durable writes of many tasks, as one transaction after the other."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

import psycopg
import structlog

from tollkeeper.errors import Busy
from tollkeeper.services.tasks import end

BATCH_MAX = 500
WAITING_MAX = 50_000
"""Items that wait while the database is away; beyond, the oldest are given up."""
PATIENCE_SECONDS = 5.0
"""After so long whoever waits learns that it is not written yet; it is written when that can be."""
AGAIN_SECONDS = 0.5
T = TypeVar("T")
_log = structlog.get_logger()


class Batches(Generic[T]):
    """Takes items as they come and hands them to ``work``, many at a time, until it succeeds.

    There is no timer: while one batch is written the next one gathers. ``name`` is for the log.
    """

    def __init__(self, name: str, work: Callable[[list[T]], Awaitable[None]]) -> None:
        self._name = name
        self._work = work
        self._items: deque[tuple[T, asyncio.Future[bool], float]] = deque()
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._task: asyncio.Task[None] | None = None
        self._over = False

    def start(self) -> None:
        """Begin to write."""
        self._over = False
        self._task = asyncio.create_task(self._run(), name=f"smpp {self._name}")

    async def stop(self) -> None:
        """Write what waits, if that can be done within the patience, then end."""
        self._over = True
        if self._task is not None:
            try:
                async with asyncio.timeout(PATIENCE_SECONDS):
                    await self._idle.wait()
            except TimeoutError:
                _log.error("smpp.not_written", what=self._name, items=len(self._items))
            await end([self._task])
            self._task = None
            for item in self._items:
                _settle(item[1], durable=False)
            self._items.clear()

    def add(self, item: T) -> asyncio.Future[bool]:
        """Hand an item in; the future is True when it is durable, False when it is not in time."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[bool] = loop.create_future()
        if self._over:
            _settle(future, durable=False)
            return future
        if len(self._items) >= WAITING_MAX:
            _settle(self._items.popleft()[1], durable=False)
            _log.error("smpp.given_up", what=self._name)
        self._items.append((item, future, loop.time() + PATIENCE_SECONDS))
        self._idle.clear()
        self._wake.set()
        return future

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        told = False
        while True:
            if not self._items:
                self._wake.clear()
                self._idle.set()
                await self._wake.wait()
                await asyncio.sleep(0)  # let all who are ready hand theirs in
            batch = [self._items.popleft() for _ in range(min(BATCH_MAX, len(self._items)))]
            try:
                async with asyncio.timeout(PATIENCE_SECONDS):
                    await self._work([item for item, _, _ in batch])
            except (psycopg.Error, Busy, OSError) as error:
                if not told:
                    _log.warning("smpp.waits", what=self._name, items=len(batch), error=str(error))
                told = True
                self._items.extendleft(reversed(batch))
                await asyncio.sleep(AGAIN_SECONDS)
                for _, future, deadline in self._items:
                    if deadline < loop.time():
                        _settle(future, durable=False)
                continue
            told = False
            for _, future, _ in batch:
                _settle(future, durable=True)


def _settle(future: asyncio.Future[bool], *, durable: bool) -> None:
    if not future.done():
        future.set_result(durable)
