"""Which session an id stands for: a switch uses its ids again, and so may one id have several sessions.

The second one is kept as ``3F2A~2``. What this process remembers of that is for speed: another one may
have opened a later session of the id meanwhile, so that the database is asked wherever a message would
otherwise go to a session that has closed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime, timedelta

from tollkeeper.core.records import Session
from tollkeeper.servers.asks import call_id_of, switch_id_of
from tollkeeper.store.db import Database
from tollkeeper.store.peers import Standing, read_again, read_standing

REUSES_MAX = 999
AGAIN = "~"
"""Between an id that was used before and how often it was: ``3F2A~2``."""
REMEMBERED_MAX = 50_000
KEY_AGE = timedelta(days=1)
"""Closed sessions that were opened earlier are asked for no more: their ids are free."""
LOOK = 16
"""So many marks of an id are looked for at once."""


class CallIds:
    """The ids of one process's calls."""

    def __init__(self, database: Database, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._clock = clock
        self._again: dict[str, str] = {}

    async def load(self) -> None:
        """Know again which calls that are up use an id for the second time."""
        async with self._database.read() as connection:
            self.note(await read_again(connection, AGAIN))

    def of(self, switch: str, call_id: str) -> str:
        """The id of the session that a message of this id is for, as far as this process knows.

        The id of a session that is known here stands for itself.
        """
        plain = switch_id_of(call_id)
        if plain != call_id and self._again.get(f"{switch}/{plain}") == call_id:
            return call_id
        plain = call_id_of(call_id)
        return self._again.get(f"{switch}/{plain}", plain)

    def note(self, keys: Iterable[str]) -> None:
        """Remember sessions by their keys as the latest ones of their ids."""
        for key in keys:
            switch, _, session_id = key.partition("/")
            self.remember(switch, session_id)

    def note_sessions(self, sessions: Iterable[Session]) -> None:
        """Remember open sessions, likewise."""
        self.note(session.key for session in sessions)

    def remember(self, switch: str, session_id: str) -> None:
        """This session is the latest one of its id."""
        plain = switch_id_of(session_id)
        name = f"{switch}/{plain}"
        if plain == session_id:
            self._again.pop(name, None)
            return
        self._again.pop(name, None)
        while len(self._again) >= REMEMBERED_MAX:
            self._again.pop(next(iter(self._again)))
        self._again[name] = session_id

    async def newest(self, switch: str, session_id: str) -> Standing | None:
        """The session that an id stands for by the database: the one that is open, else the latest.

        None where there is none. Raises Busy: it cannot be asked.
        """
        plain = switch_id_of(session_id)
        since = (self._clock() - KEY_AGE).date()
        best: Standing | None = None
        async with self._database.read() as connection:
            for first in range(1, REUSES_MAX + 1, LOOK):
                keys = {f"{switch}/{again(plain, n)}": n for n in range(first, first + LOOK)}
                found = await read_standing(connection, list(keys), since)
                for one in found:
                    if best is None or _order(one) > _order(best):
                        best = one
                if all(keys[one.key] < first + LOOK - 1 for one in found):
                    break
        if best is not None:
            self.remember(switch, best.session_id)
        return best


def again(plain: str, number: int) -> str:
    """The id of the so manieth session of an id."""
    return plain if number < 2 else f"{plain}{AGAIN}{number}"


def number_of(session_id: str) -> int:
    """The so manieth of its id a session is."""
    plain = switch_id_of(session_id)
    return 1 if plain == session_id else int(session_id[len(plain) + 1 :])


def _order(one: Standing) -> tuple[bool, object, int]:
    return one.open, one.opened_day, number_of(one.session_id)
