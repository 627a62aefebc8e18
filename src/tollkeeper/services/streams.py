"""Streams of events: one reader of the feed in each process, and bounded queues for those who listen.

A listener that does not keep up is dropped and comes back with the number of the last event that it had.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass, field

import structlog

from tollkeeper.errors import Busy
from tollkeeper.services.directory import LEVELS_MAX, Directory
from tollkeeper.services.feed import KINDS, SWITCH_KINDS, Listener, shown
from tollkeeper.services.keys import ApiKey, allows
from tollkeeper.services.tasks import end
from tollkeeper.store import feed as store
from tollkeeper.store.db import Database
from tollkeeper.store.feed import FeedEvent
from tollkeeper.telemetry import counter, gauge

STREAMS_MAX = 500
"""In one process."""
STREAMS_OF_KEY_MAX = 10
QUEUE_MAX = 1000
"""Events that wait for a listener; one more and it is dropped."""
PAGE = 500
LOOK_SECONDS = 1.0
"""Between looks at the feed where nobody says that there is something."""
INTEREST_SECONDS = 180
"""So long the ends of calls are told after whoever listens was last seen."""
INTEREST_AGAIN_SECONDS = 60.0
_STREAMS = gauge("event_streams", "Event streams that are open.")
_DROPPED = counter(
    "event_streams_dropped", "Event streams that were dropped: they did not keep up."
)
_log = structlog.get_logger()


class Dropped(Exception):
    """The listener did not keep up."""


@dataclass(eq=False, slots=True)
class Stream:
    """What one listener is told. ``after`` is the number it resumes at; None: from now on."""

    listener: Listener
    kinds: frozenset[str]
    key_id: int
    party_id: int
    after: int | None = None
    until: int = 0
    waiting: deque[bytes] = field(default_factory=deque)
    woken: asyncio.Event = field(default_factory=asyncio.Event)
    dropped: bool = False

    def offer(self, event: FeedEvent) -> None:
        """Take an event, if it is for this listener."""
        frame = self.frame(event)
        if frame is None or self.dropped:
            return
        if len(self.waiting) >= QUEUE_MAX:
            self.dropped = True
            self.waiting.clear()
        else:
            self.waiting.append(frame)
        self.woken.set()

    def frame(self, event: FeedEvent) -> bytes | None:
        """An event as the text/event-stream of the HTML standard; None where it is not for this listener."""
        body = shown(event, self.listener) if event.kind in self.kinds else None
        if body is None:
            return None
        return b"id: %d\nevent: %s\ndata: %s\n\n" % (event.id, event.kind.encode(), body)

    async def take(self, seconds: float) -> list[bytes]:
        """What has come, or comes within so many seconds; nothing if it was only woken.

        Raises:
            Dropped: more came than was taken.
        """
        if not self.waiting and not self.dropped:
            try:
                async with asyncio.timeout(seconds):
                    await self.woken.wait()
            except TimeoutError:
                return []
        self.woken.clear()
        if self.dropped:
            raise Dropped
        taken = list(self.waiting)
        self.waiting.clear()
        return taken


class Streams:
    """The streams of one process; reads the feed only while somebody listens."""

    def __init__(self, database: Database, directory: Directory) -> None:
        self._database = database
        self._directory = directory
        self._streams: set[Stream] = set()
        self._of_key: Counter[int] = Counter()
        self._last = 0
        self._news = asyncio.Event()
        self._reader: asyncio.Task[None] | None = None
        self._starting = asyncio.Lock()
        directory.on_feed = self._wake

    def _wake(self, _last: int) -> None:
        self._news.set()

    async def open(self, key: ApiKey, *, kinds: Iterable[str] = (), after: int | None) -> Stream:
        """Begin to listen with what a key may see; :meth:`close` must follow.

        Raises:
            Busy: too many streams are open, or the database does not answer.
        """
        if len(self._streams) >= STREAMS_MAX or self._of_key[key.id] >= STREAMS_OF_KEY_MAX:
            raise Busy(
                f"too many event streams are open: {STREAMS_OF_KEY_MAX} for a key, {STREAMS_MAX} in all",
                code="too_many_streams",
            )
        everything = allows(key, "read")
        known = frozenset(KINDS) if everything else SWITCH_KINDS
        wanted = known & frozenset(kinds) if kinds else known
        stream = Stream(self._listener(key), wanted, key.id, key.party_id or 0, after)
        # Counted before the first wait, so that many at once are not more than one after the other.
        self._of_key[key.id] += 1
        self._streams.add(stream)
        _STREAMS.inc()
        try:
            if "session.ended" in wanted:
                await self._say_interest([stream.party_id])
            async with self._starting:
                if self._reader is None:
                    async with self._database.read() as connection:
                        self._last = await store.read_last(connection)
                    self._reader = asyncio.create_task(self._read_for_ever(), name="streams")
        except BaseException:
            await self.close(stream)
            raise
        stream.until = self._last
        # What came before this moment is read by the stream itself, in :meth:`backlog`.
        stream.waiting.clear()
        return stream

    async def backlog(self, stream: Stream) -> list[bytes]:
        """The next of what the listener has missed; nothing when it has all."""
        while stream.after is not None and stream.after < stream.until:
            async with self._database.read() as connection:
                page = await store.read_after(
                    connection, stream.after, until=stream.until, limit=PAGE
                )
            stream.after = page[-1].id if len(page) == PAGE else stream.until
            frames = [frame for event in page if (frame := stream.frame(event)) is not None]
            if frames:
                return frames
        return []

    async def close(self, stream: Stream) -> None:
        """End a stream; the last one ends the reading."""
        if stream not in self._streams:
            return
        self._streams.discard(stream)
        self._of_key[stream.key_id] -= 1
        if not self._of_key[stream.key_id]:
            del self._of_key[stream.key_id]
        _STREAMS.dec()
        if stream.dropped:
            _DROPPED.inc()
        if not self._streams and self._reader is not None:
            reader, self._reader = self._reader, None
            await end([reader])

    def _listener(self, key: ApiKey) -> Listener:
        party = key.party_id
        return Listener(
            below=(lambda _id: True)
            if party is None
            else lambda id_: self._stands_below(id_, party),
            operator=party is None,
            switch=None if allows(key, "read") else key.switch,
        )

    def _stands_below(self, party_id: int, top: int) -> bool:
        """Tell whether a party is this one or stands below it, by the tree as it is now."""
        for _ in range(LEVELS_MAX):
            if party_id == top:
                return True
            entry = self._directory.entry(party_id)
            if entry is None or entry.parent_id is None:
                return False
            party_id = entry.parent_id
        return False

    # --- reading ---------------------------------------------------------------------------------

    async def _read_for_ever(self) -> None:
        loop = asyncio.get_running_loop()
        say_again = loop.time() + INTEREST_AGAIN_SECONDS
        while True:
            try:
                async with asyncio.timeout(LOOK_SECONDS):
                    await self._news.wait()
            except TimeoutError:
                pass
            self._news.clear()
            try:
                while await self._read_page():
                    pass
                if loop.time() > say_again:
                    hearing = {s.party_id for s in self._streams if "session.ended" in s.kinds}
                    await self._say_interest(hearing)
                    say_again = loop.time() + INTEREST_AGAIN_SECONDS
            except (Busy, OSError) as error:
                _log.warning("streams.wait", error=str(error))

    async def _read_page(self) -> bool:
        async with self._database.read() as connection:
            page = await store.read_after(connection, self._last, limit=PAGE)
        for event in page:
            for stream in self._streams:
                stream.offer(event)
            self._last = event.id
        return len(page) == PAGE

    async def _say_interest(self, parties: Iterable[int]) -> None:
        async with self._database.write() as connection:
            for party_id in sorted(parties):
                await store.say_interest(connection, party_id, INTEREST_SECONDS)
