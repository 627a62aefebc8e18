"""The lane: many requests at once, one durable batch at a time.

Requests are taken as they wait; there is no timer: while one batch commits the next one gathers.
A batch is decided by the pure core on cached wallets and meters and written by one set-based statement
that checks that these and the sessions are still what the decisions were based on. If they are not
(another process, a top-up), nothing was written and the batch is decided again on locked rows.
So the lane is only a way to be fast: correctness is the database's.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from datetime import datetime

from tollkeeper.core.batch import (
    Batch,
    GuardRefused,
    StaleRead,
    StoreAway,
)
from tollkeeper.core.records import (
    Authorise,
    Charge,
    Command,
    Policy,
    Reply,
    Start,
    Update,
)
from tollkeeper.errors import Busy, TollkeeperError
from tollkeeper.services.picture import OPENING, Item, Outcomes, Picture
from tollkeeper.services.ports import Book, ChargingStore
from tollkeeper.services.tasks import end
from tollkeeper.telemetry import LaneMeter, observe_batch

SHED_SHARE = 0.75
"""New calls and charges are refused as busy when this much of the lane is full; the rest is for calls that are up."""
READS_MAX = 4
CONTENDED_BATCHES = 64
"""After a stale read, this many batches are decided on locked rows at once: another process is at work."""
CALLS_UP_PATIENCE = 3
"""Messages of calls that are up may wait this many times as long as new calls."""
ATTEMPTS = 6
BATCH_MIN = 32
"""Batches are not made smaller than this for the sake of overlap: a commit has its price."""
# What frees money goes first, what takes new money last: so a batch's last word on a wallet is
# never spoilt by an earlier one, and calls that are up win over new ones.
_ORDER: dict[type[Command], int] = {Authorise: 3, Charge: 3, Update: 2, Start: 1}


class Lane:
    """One lane of a process. ``submit`` may be called by any number of tasks."""

    def __init__(
        self,
        store: ChargingStore,
        book: Book,
        *,
        clock: Callable[[], datetime],
        new_id: Callable[[], str],
        policy: Policy,
        batch_max: int = 512,
        queue_max: int = 4096,
        wait_max: float = 2.0,
        optimistic: bool = True,
    ) -> None:
        self._store = store
        self._picture = Picture(store, book, clock=clock, new_id=new_id, policy=policy)
        self._batch_max = batch_max
        self._queue_max = queue_max
        self._wait_max = wait_max
        self._optimistic = optimistic
        self._queue: deque[Item] = deque()
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._contended = 0
        self._landed: tuple[Batch, Outcomes] | None = None
        self._deciding: list[Item] = []
        self._task: asyncio.Task[None] | None = None
        self._sweeper: asyncio.Task[None]
        self._flying: tuple[list[Item], asyncio.Task[None]] | None = None
        self.batches = 0
        self.stale_batches = 0
        self.shed = 0
        self._meter = LaneMeter()

    # --- in ------------------------------------------------------------------------------------

    async def submit(self, command: Command, message_id: str, request: bytes) -> tuple[Reply, bool]:
        """Carry out a command durably; the flag tells that the answer is a stored one (a repeat).

        Raises:
            Busy: the lane is full, or the database does not answer; nothing is known to be done.
            Conflict, NotFound: the session cannot take this command.
        """
        waiting = len(self._queue)
        opening = isinstance(command, OPENING)
        room = self._queue_max * SHED_SHARE if opening else self._queue_max
        if waiting >= room:
            self.shed += 1
            raise Busy(
                "too many requests are waiting; try again or route the call elsewhere",
                code="overloaded",
            )
        patience = self._wait_max * (1 if opening else CALLS_UP_PATIENCE)
        deadline = asyncio.get_running_loop().time() + patience
        item = Item(command, message_id, request, deadline)
        self._queue.append(item)
        self._idle.clear()
        self._wake.set()
        return await item.future

    def start(self) -> None:
        """Begin to work."""
        loop = asyncio.get_running_loop()
        self._task = loop.create_task(self._run(), name="lane")
        self._sweeper = loop.create_task(self._sweep(), name="lane-sweeper")

    async def stop(self) -> None:
        """Finish what waits, then end."""
        if self._task is not None:
            await self._idle.wait()
            await end([self._task, self._sweeper])
            self._task = None
        self._tell_meter()
        await self._store.close()

    def forget_wallets(self, ids: Iterable[int]) -> None:
        """Drop cached wallets that something else has changed (only saves a second look)."""
        self._picture.forget_wallets(ids)

    def forget_meters(self, ids: Iterable[int]) -> None:
        """Drop cached meters that something else has changed, as with wallets."""
        self._picture.forget_meters(ids)

    @property
    def operations(self) -> int:
        """Commands carried out."""
        return self._picture.operations

    @property
    def replays(self) -> int:
        """Repeated messages answered with the stored answer."""
        return self._picture.replays

    @property
    def waiting(self) -> int:
        """How many requests wait for their batch."""
        return len(self._queue)

    async def _sweep(self) -> None:
        """Answer in time even when the database does not: a late answer is worth nothing to a switch.

        What was under way may still be written; the caller's repeat then gets its stored answer.
        """
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(self._wait_max / 8)
            self._tell_meter()
            flying = self._flying[0] if self._flying is not None else []
            late = [
                item
                for item in (*flying, *self._deciding, *self._queue)
                if item.deadline < loop.time()
            ]
            self._fail(
                late, Busy("the database does not answer in time; try again", code="too_slow")
            )

    def _tell_meter(self) -> None:
        self._meter.tell(
            self.waiting,
            batches=self.batches,
            operations=self.operations,
            stale=self.stale_batches,
            shed=self.shed,
            replays=self.replays,
        )

    # --- the loop --------------------------------------------------------------------------------

    async def _run(self) -> None:
        """Decide one batch while the one before it commits.

        The later batch is decided on the wallets as the earlier one leaves them. That is safe: if
        the earlier one is not written, the stamps that the later one expects never come to be, and
        it is decided again too. A session has at most one message under way.
        """
        while True:
            if not self._queue and self._flying is None:
                self._wake.clear()
                self._idle.set()
                await self._wake.wait()
                # Let everything that is ready to ask do so: the first batch of a burst is then not of one.
                await asyncio.sleep(0)
            items = self._deciding = self._take()
            if not items:
                if self._flying is not None:
                    await self._land()
                continue
            try:
                await self._process(items)
            except asyncio.CancelledError:
                self._fail(items, Busy("the service is stopping", code="stopping"))
                raise
            except Exception as error:  # noqa: BLE001 - whatever it was, the waiting are answered
                # One thing at a time on the connection: what is under way comes to its end first.
                await self._land()
                await self._give_up(items, error)

    async def _process(self, items: list[Item]) -> None:
        """Decide on cached wallets and send off without waiting for the commit; else on locked rows."""
        if self._optimistic and self._contended == 0:
            try:
                batch, outcomes = await self._prepare(items)
                self._store.encode(batch)
            except StaleRead:
                self._note_stale(items)
            else:
                if await self._land(settle=False):
                    self._picture.anticipate(batch)
                    task = asyncio.create_task(self._fly(batch, outcomes), name="batch")
                    self._flying = (items, task)
                    self._settle_landed()
                    # Now it is sent, before the next batch is decided.
                    await asyncio.sleep(0)
                    return
                # The batch before was not written, so this one was decided on money that never was.
                self._picture.forget(items)
        await self._land()
        self._contended = max(0, self._contended - 1)
        await self._decide_locked(items)

    async def _fly(self, batch: Batch, outcomes: Outcomes) -> None:
        began = asyncio.get_running_loop().time()
        if batch.written:
            await self._store.apply(batch)
        self._count(batch, outcomes, began)
        self._landed = (batch, outcomes)

    def _settle_landed(self) -> None:
        """Answer those whose batch is durable."""
        if self._landed is not None:
            (batch, outcomes), self._landed = self._landed, None
            self._picture.settle(batch, outcomes)

    async def _land(self, *, settle: bool = True) -> bool:
        """Wait for the batch under way; if it was not written, decide it again; False tells so.

        With ``settle`` false the answers are left to the caller, who sends off the next batch
        first: the database is then not kept waiting while all the answered ask again.
        """
        if self._flying is None:
            return True
        items, task = self._flying
        try:
            await task
        except StaleRead:
            self._note_stale(items)
        except Exception as error:  # noqa: BLE001 - as in _run
            await self._give_up(items, error)
            return False
        else:
            if settle:
                self._settle_landed()
            return True
        finally:
            self._flying = None
        try:
            await self._decide_locked(items)
        except Exception as error:  # noqa: BLE001 - as in _run
            await self._give_up(items, error)
        return False

    async def _decide_locked(self, items: list[Item]) -> None:
        """Decide with the wallets under lock, again if a session changed between reading and locking."""
        for attempt in range(ATTEMPTS):
            items = self._picture.answer_repeats(items)
            if not items:
                return
            try:
                await self._attempt_locked(items)
                return
            except GuardRefused as error:
                self._note_stale(items)
                if len(items) > 1:
                    # Late usage may have spoilt what another was to hold: alone each has its answer.
                    raise
                if attempt == ATTEMPTS - 1:
                    raise Busy(
                        f"the books refuse this batch: {error}", code="guard_refused"
                    ) from error
            except StaleRead:
                self._note_stale(items)
                await asyncio.sleep(0.001 * attempt)
        raise Busy("the session is being changed by others; try again", code="contended")

    async def _give_up(self, items: list[Item], error: Exception) -> None:
        """Nothing of these was written, as far as is known: say so, or find the one that is to blame."""
        self._picture.forget_all()
        if isinstance(error, StoreAway):
            self._fail(items, Busy("the database does not answer; try again", code="database_away"))
            await asyncio.sleep(0.05)
        elif isinstance(error, TollkeeperError) or len(items) == 1:
            self._fail(items, error)
        else:
            for item in items:
                try:
                    await self._decide_locked([item])
                except Exception as own:  # noqa: BLE001 - only this one fails
                    await self._give_up([item], own)

    def _take(self) -> list[Item]:
        """What waits, up to half of all there is to do, so that deciding and committing overlap.

        One command a session, and none for a session that is under way: those stay for later.
        """
        taken: list[Item] = []
        left: list[Item] = []
        flying = self._flying[0] if self._flying is not None else []
        seen = {item.command.key for item in flying}
        size = min(self._batch_max, max(BATCH_MIN, (len(self._queue) + len(flying) + 1) // 2))
        while self._queue and len(taken) < size:
            item = self._queue.popleft()
            if item.future.done():
                continue
            key = item.command.key
            if key in seen:
                left.append(item)
            else:
                seen.add(key)
                taken.append(item)
        self._queue.extendleft(reversed(left))
        taken.sort(key=lambda item: _ORDER.get(type(item.command), 0))
        return taken

    def _count(self, batch: Batch, outcomes: Outcomes, began: float) -> None:
        self.batches += 1
        taken = asyncio.get_running_loop().time() - began
        observe_batch(len(outcomes), taken if batch.written else None)

    def _note_stale(self, items: list[Item]) -> None:
        self.stale_batches += 1
        self._contended = CONTENDED_BATCHES
        self._picture.forget(items)

    @staticmethod
    def _fail(items: list[Item], error: Exception) -> None:
        for item in items:
            if not item.future.done():
                item.future.set_exception(error)

    async def _prepare(self, items: list[Item]) -> tuple[Batch, Outcomes]:
        """Decide on what is in memory, reading first what is not."""
        picture = self._picture
        items = await picture.know_unknown(picture.answer_repeats(items))
        needs = picture.needed(items)
        # While some are read, others may be announced as changed: then those are read, too.
        for _ in range(READS_MAX):
            missing = picture.missing(needs)
            if not missing:
                break
            # Read what is committed: the batch under way may be changing these.
            if not await self._land():
                raise StaleRead
            await picture.read(missing)
        return picture.decide(items, *picture.cached(needs))

    async def _attempt_locked(self, items: list[Item]) -> None:
        """Decide on sessions just read and on wallets and meters under lock: nothing can come between."""
        picture = self._picture
        items = await picture.know(items, [item.command.key for item in items])
        began = asyncio.get_running_loop().time()
        needs = picture.needed(items)
        async with self._store.locked(sorted(needs.wallets), sorted(needs.meters)) as unit:
            batch, outcomes = picture.decide(items, unit.wallets, unit.meters)
            if batch.written:
                await unit.apply(batch)
        self._count(batch, outcomes, began)
        picture.anticipate(batch)
        picture.settle(batch, outcomes)
