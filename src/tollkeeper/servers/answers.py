"""Answers already given, for messages that are sent again, and room for those under way.

RFC 5080 section 2.2.2 and RFC 6733 section 3: a message sent again gets the answer of the first, and
nothing while the first is still being worked on.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from enum import Enum


class Known(Enum):
    """What is known of a message that has no answer to repeat."""

    NEW = 1
    PENDING = 2


class Answers:
    """Encoded answers by what names a message, for ``seconds``, at most ``most`` of them."""

    def __init__(self, *, seconds: float, most: int, clock: Callable[[], float]) -> None:
        self._seconds = seconds
        self._most = most
        self._clock = clock
        self._kept: OrderedDict[Hashable, tuple[float, bytes | None]] = OrderedDict()

    def __len__(self) -> int:
        """How many are kept."""
        return len(self._kept)

    def begin(self, name: Hashable) -> bytes | Known:
        """The answer to send again; or PENDING: drop it; or NEW: work on it (it is pending from now on)."""
        now = self._clock()
        self._purge(now)
        found = self._kept.get(name)
        if found is not None and found[0] > now:
            return Known.PENDING if found[1] is None else found[1]
        self._kept[name] = (now + self._seconds, None)
        self._kept.move_to_end(name)
        return Known.NEW

    def answered(self, name: Hashable, answer: bytes) -> None:
        """Keep the answer for whoever asks again."""
        self._kept[name] = (self._clock() + self._seconds, answer)
        self._kept.move_to_end(name)

    def forget(self, name: Hashable) -> None:
        """Nothing was answered: sent again, it is worked on again."""
        self._kept.pop(name, None)

    def _purge(self, now: float) -> None:
        while self._kept:
            name, (until, _) = next(iter(self._kept.items()))
            if until > now and len(self._kept) < self._most:
                return
            del self._kept[name]


class Room:
    """How many requests may be under way in a server: new calls are turned away first, ends of calls last.

    RFC 5080 section 2.2.3. ``most`` is the bound for new calls; messages of calls that are up may take
    a quarter more, ends of calls half more.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self.taken = 0

    def enter(self, action: str) -> bool:
        """Take a place for ``authorise``, ``update`` or ``stop``; False: there is none. Leave when done."""
        share = {"authorise": 4, "stop": 6}.get(action, 5)
        if self.taken * 4 >= self._most * share:
            return False
        self.taken += 1
        return True

    def leave(self) -> None:
        """Give the place back."""
        self.taken -= 1
