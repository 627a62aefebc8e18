"""An event loop whose time is made up: the same seed runs through the same steps, at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any


class NothingLeft(Exception):
    """Every task waits for something that will never come."""


class _Clockwork:
    """Stands where a loop has its selector: instead of waiting, it moves the clock."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop

    def select(self, timeout: float | None) -> list[Any]:
        """Let time pass until the next timer."""
        if timeout is None:
            raise NothingLeft("all tasks wait and no timer is set")
        self._loop.now += timeout
        return []

    def close(self) -> None:
        """Nothing is open."""


class VirtualLoop(asyncio.BaseEventLoop):
    """Runs callbacks in the order they were made; ``on_turn`` is called before each turn."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.turns = 0
        self.on_turn: Callable[[], None] | None = None
        self._selector = _Clockwork(self)

    def time(self) -> float:
        """Virtual seconds since the start."""
        return self.now

    def _process_events(self, event_list: list[Any]) -> None:
        """There are no sockets."""

    def _write_to_self(self) -> None:
        """There are no other threads."""

    def _run_once(self) -> None:
        self.turns += 1
        if self.on_turn is not None:
            self.on_turn()
        super()._run_once()  # type: ignore[misc]
