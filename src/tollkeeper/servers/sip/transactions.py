"""The INVITEs that a SIP redirect server has under way or has answered (RFC 3261 section 17.2.1).

A request sent again gets the answer of the first; an answer over UDP is sent again until the caller has
confirmed it by an ACK, or half a minute has passed. Both are bounded in number.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

T1_SECONDS = 0.5
T2_SECONDS = 4.0
LIFE_SECONDS = 64 * T1_SECONDS
"""The timers of RFC 3261 section 17.1.1.1: first pause, longest pause, how long at all."""
MOST = 50_000
"""Transactions that are remembered; the oldest are forgotten first."""

Send = Callable[[bytes], None]
Name = tuple[str, ...]


@dataclass(slots=True)
class Transaction:
    """One INVITE. ``answer`` is empty while it is decided; ``cancelled``: the caller has given up."""

    name: Name
    merged: Name
    send: Send
    reliable: bool
    answer: bytes = b""
    cancelled: bool = False
    timer: asyncio.TimerHandle | None = field(default=None, repr=False)
    confirmed: bool = False

    def end_timer(self) -> None:
        """Send the answer no more by itself."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None


class Transactions:
    """All of one listener."""

    def __init__(self, *, clock: Callable[[], float], most: int = MOST) -> None:
        self._clock = clock
        self._most = most
        self._kept: OrderedDict[Name, tuple[float, Transaction]] = OrderedDict()
        self._merged: dict[Name, Name] = {}

    def __len__(self) -> int:
        """How many are remembered."""
        return len(self._kept)

    def find(self, name: Name) -> Transaction | None:
        """The transaction of this name, if it is still remembered."""
        found = self._kept.get(name)
        return found[1] if found is not None and found[0] > self._clock() else None

    def begin(self, name: Name, merged: Name, send: Send, *, reliable: bool) -> Transaction:
        """A new one. Call :meth:`find` before."""
        now = self._clock()
        while self._kept and (
            len(self._kept) >= self._most or next(iter(self._kept.values()))[0] <= now
        ):
            self._drop(next(iter(self._kept)))
        made = Transaction(name, merged, send, reliable)
        self._kept[name] = (now + LIFE_SECONDS, made)
        self._merged[merged] = name
        return made

    def came_twice(self, name: Name, merged: Name) -> bool:
        """Tell whether the same request came by another way and is not done with (section 8.2.2.2)."""
        other = self._merged.get(merged)
        if other is None or other == name:
            return False
        found = self.find(other)
        return found is not None and not found.confirmed

    def answered(self, transaction: Transaction, answer: bytes) -> None:
        """Send the last answer and, over UDP, send it again until it is confirmed."""
        transaction.answer = answer
        transaction.send(answer)
        if not transaction.reliable:
            self._again(transaction, T1_SECONDS, self._clock() + LIFE_SECONDS)

    def _again(self, transaction: Transaction, pause: float, until: float) -> None:
        if self._clock() + pause >= until:
            transaction.timer = None
            return

        def ring() -> None:
            transaction.send(transaction.answer)
            self._again(transaction, min(pause * 2, T2_SECONDS), until)

        transaction.timer = asyncio.get_running_loop().call_later(pause, ring)

    def confirmed(self, name: Name) -> bool:
        """An ACK came; False: nobody knows for what."""
        found = self.find(name)
        if found is None:
            return False
        found.confirmed = True
        found.end_timer()
        return True

    def forget(self, transaction: Transaction) -> None:
        """Sent again, the request is a new one."""
        if self._kept.get(transaction.name, (0.0, None))[1] is transaction:
            self._drop(transaction.name)

    def stop(self) -> None:
        """End all timers."""
        for name in list(self._kept):
            self._drop(name)

    def _drop(self, name: Name) -> None:
        _, found = self._kept.pop(name)
        found.end_timer()
        if self._merged.get(found.merged) == name:
            del self._merged[found.merged]
