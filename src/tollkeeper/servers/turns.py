"""One at a time for each call: its messages are handled in the order in which they came."""

from __future__ import annotations

import asyncio
from types import TracebackType


class Turns:
    """Locks by name that exist only while somebody holds or waits for them."""

    def __init__(self) -> None:
        self._last: dict[str, asyncio.Future[None]] = {}

    def of(self, name: str) -> Turn:
        """A turn at this name, for ``async with turns.of(call_id)``."""
        return Turn(self._last, name)

    def __len__(self) -> int:
        """How many names have somebody at work."""
        return len(self._last)


class Turn:
    """Waits for whoever came before."""

    __slots__ = ("_before", "_done", "_last", "_name")

    def __init__(self, last: dict[str, asyncio.Future[None]], name: str) -> None:
        self._last, self._name = last, name
        self._before = last.get(name)
        self._done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        last[name] = self._done

    async def __aenter__(self) -> None:
        """Wait for one's turn."""
        if self._before is not None:
            try:
                await asyncio.shield(self._before)
            except asyncio.CancelledError:
                # Whoever waits behind us still has to wait for those before us.
                self._before.add_done_callback(lambda _: self._finish())
                raise

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Let the next one in."""
        self._finish()

    def _finish(self) -> None:
        if not self._done.done():
            self._done.set_result(None)
        if self._last.get(self._name) is self._done:
            del self._last[self._name]
