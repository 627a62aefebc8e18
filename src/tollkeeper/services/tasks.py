"""Ending background tasks for certain."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

AGAIN_SECONDS = 0.2


async def end_gently(tasks: Iterable[asyncio.Task[Any]], *, seconds: float) -> None:
    """Cancel tasks once and give them time to take their leave; then as :func:`end`."""
    left = {task for task in tasks if not task.done()}
    for task in left:
        task.cancel()
    if left:
        await asyncio.wait(left, timeout=seconds)
    await end(left)


async def end(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancel tasks until they are done, whatever they end with.

    Once is not enough: where a cancellation meets the completion of an ``asyncio.wait_for``, as the
    database driver uses it, Python 3.11 loses the cancellation and the task goes on.
    """
    left = {task for task in tasks if not task.done()}
    while left:
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=AGAIN_SECONDS)
