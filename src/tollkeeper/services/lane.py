"""The lane: many requests at once, one durable batch at a time.

Requests are taken as they wait; there is no timer: while one batch commits the next one gathers.
A batch is decided by the pure core on cached wallets and written by one set-based statement that
checks that the wallets and sessions are still what the decisions were based on. If they are not
(another process, a top-up), nothing was written and the batch is decided again on locked rows.
So the lane is only a way to be fast: correctness is the database's.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from datetime import date, datetime, timedelta
from typing import Protocol

import msgspec

from tollkeeper.core.batch import (
    Answered,
    Batch,
    Change,
    GuardRefused,
    Known,
    StaleRead,
    StoreAway,
    Written,
)
from tollkeeper.core.records import (
    Authorise,
    Command,
    Decision,
    Ending,
    Limits,
    Policy,
    Reply,
    Session,
    Start,
    State,
    Stop,
    Update,
    Wallet,
    enrol,
)
from tollkeeper.core.session import View, decide
from tollkeeper.errors import Busy, Conflict, TollkeeperError

SHED_SHARE = 0.75
"""New calls are refused as busy when this much of the lane is full; the rest is for calls that are up."""
CACHE_SESSIONS = 100_000
CACHE_WALLETS = 100_000
CONTENDED_BATCHES = 64
"""After a stale read, this many batches are decided on locked rows at once: another process is at work."""
ATTEMPTS = 6
BATCH_MIN = 32
"""Batches are not made smaller than this for the sake of overlap: a commit has its price."""
KEY_DAYS = 1
"""An authorisation id is remembered from the start of the day before; a switch may reuse it later."""
# What frees money goes first, what takes new money last: so a batch's last word on a wallet is
# never spoilt by an earlier one, and calls that are up win over new ones.
_ORDER: dict[type[Command], int] = {Authorise: 3, Update: 2, Start: 1}

_encode = msgspec.json.Encoder().encode


class Unit(Protocol):
    """Wallets under lock, in a transaction that takes one batch."""

    wallets: dict[int, Wallet]

    async def apply(self, batch: Batch) -> None:
        """Write the batch in this transaction."""


class ChargingStore(Protocol):
    """What the lane needs of a store; PostgreSQL's is ``store.charging``."""

    async def load(
        self, keys: Iterable[str], since: date, *, everywhere: Iterable[str] = ()
    ) -> dict[str, Known]:
        """Read sessions with their messages by key: live, or opened since; ``everywhere``: of any age."""

    async def wallets(self, ids: Sequence[int]) -> dict[int, Wallet]:
        """Read wallets."""

    async def apply(self, batch: Batch) -> None:
        """Write a batch, all or nothing; raises StaleRead or StoreAway."""

    def locked(self, ids: Sequence[int]) -> AbstractAsyncContextManager[Unit]:
        """Lock wallets in a transaction."""

    async def close(self) -> None:
        """Drop the connection."""


class Book(Protocol):
    """What the lane asks of the directory of parties, at once and without waiting."""

    def limits_of(self, party_id: int) -> Limits:
        """Return the party's limits as they are now."""

    def wallets_of(self, party_id: int) -> tuple[int, ...]:
        """Return the ids of the party's wallets."""


class _Item:
    """A command on its way: the message's identity, its content and who waits for the answer."""

    __slots__ = ("command", "deadline", "digest", "future", "message_id", "request")

    def __init__(self, command: Command, message_id: str, request: bytes, deadline: float) -> None:
        self.command = command
        self.message_id = message_id
        self.request = request
        self.digest = hashlib.blake2b(request, digest_size=12).hexdigest()
        self.deadline = deadline
        self.future: asyncio.Future[tuple[Reply, bool]] = asyncio.get_running_loop().create_future()


_Outcomes = list[tuple[_Item, Decision | TollkeeperError]]


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
        self._book = book
        self._clock = clock
        self._new_id = new_id
        self._policy = policy
        self._batch_max = batch_max
        self._queue_max = queue_max
        self._wait_max = wait_max
        self._optimistic = optimistic
        self._queue: deque[_Item] = deque()
        self._wake = asyncio.Event()
        self._sessions: OrderedDict[str, Known] = OrderedDict()
        self._wallets: OrderedDict[int, Wallet] = OrderedDict()
        self._contended = 0
        self._task: asyncio.Task[None] | None = None
        self._flying: tuple[list[_Item], asyncio.Task[None]] | None = None
        self.batches = 0
        self.stale_batches = 0
        self.operations = 0
        self.replays = 0
        self.shed = 0

    # --- in ------------------------------------------------------------------------------------

    async def submit(self, command: Command, message_id: str, request: bytes) -> tuple[Reply, bool]:
        """Carry out a command durably; the flag tells that the answer is a stored one (a repeat).

        Raises:
            Busy: the lane is full, or the database does not answer; nothing is known to be done.
            Conflict, NotFound: the session cannot take this command.
        """
        waiting = len(self._queue)
        room = self._queue_max * SHED_SHARE if isinstance(command, Authorise) else self._queue_max
        if waiting >= room:
            self.shed += 1
            raise Busy(
                "too many requests are waiting; try again or route the call elsewhere",
                code="overloaded",
            )
        item = _Item(
            command, message_id, request, asyncio.get_running_loop().time() + self._wait_max
        )
        self._queue.append(item)
        self._wake.set()
        return await item.future

    def start(self) -> None:
        """Begin to work."""
        self._task = asyncio.get_running_loop().create_task(self._run(), name="lane")

    async def stop(self) -> None:
        """Finish what waits, then end."""
        while (self._queue or self._flying) and self._task is not None and not self._task.done():
            await asyncio.sleep(0.001)
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
            self._task = None
        await self._store.close()

    def forget_wallets(self, ids: Iterable[int]) -> None:
        """Drop cached wallets that something else has changed (only saves a second look)."""
        for id_ in ids:
            self._wallets.pop(id_, None)

    @property
    def waiting(self) -> int:
        """How many requests wait for their batch."""
        return len(self._queue)

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
                await self._wake.wait()
                # Let everything that is ready to ask do so: the first batch of a burst is then not of one.
                await asyncio.sleep(0)
            items = self._take()
            if not items:
                if self._flying is not None:
                    await self._land()
                continue
            try:
                await self._process(items)
            except asyncio.CancelledError:
                self._fail(items, Busy("the service is stopping", code="stopping"))
                raise
            except Exception as error:
                await self._give_up(items, error)

    async def _process(self, items: list[_Item]) -> None:
        """Decide on cached wallets and send off without waiting for the commit; else on locked rows."""
        if self._optimistic and self._contended == 0:
            try:
                items = await self._prepare(items)
                batch, outcomes = self._decide(items, self._cached(items))
            except StaleRead:
                self._note_stale(items)
            else:
                if await self._land():
                    self._anticipate(batch)
                    self._flying = (
                        items,
                        asyncio.create_task(self._fly(batch, outcomes), name="batch"),
                    )
                    return
                # The batch before was not written, so this one was decided on money that never was.
                self._forget(items)
        await self._land()
        self._contended = max(0, self._contended - 1)
        await self._decide_locked(items)

    async def _fly(self, batch: Batch, outcomes: _Outcomes) -> None:
        if batch.written:
            await self._store.apply(batch)
        self._settle(batch, outcomes)

    async def _land(self) -> bool:
        """Wait for the batch under way; if it was not written, decide it again; False tells so."""
        if self._flying is None:
            return True
        items, task = self._flying
        try:
            await task
        except StaleRead:
            self._note_stale(items)
        except Exception as error:
            await self._give_up(items, error)
            return False
        else:
            return True
        finally:
            self._flying = None
        try:
            await self._decide_locked(items)
        except Exception as error:
            await self._give_up(items, error)
        return False

    async def _decide_locked(self, items: list[_Item]) -> None:
        """Decide with the wallets under lock, again if a session changed between reading and locking."""
        for attempt in range(ATTEMPTS):
            items = self._answer_repeats(items)
            if not items:
                return
            try:
                await self._attempt_locked(items)
                return
            except GuardRefused as error:
                self._note_stale(items)
                if attempt == ATTEMPTS - 1:
                    raise Busy(
                        f"the books refuse this batch: {error}", code="guard_refused"
                    ) from error
            except StaleRead:
                self._note_stale(items)
                await asyncio.sleep(0.001 * attempt)
        raise Busy("the session is being changed by others; try again", code="contended")

    async def _give_up(self, items: list[_Item], error: Exception) -> None:
        """Nothing of these was written, as far as is known: say so, or find the one that is to blame."""
        self._forget_all()
        if isinstance(error, StoreAway):
            self._fail(items, Busy("the database does not answer; try again", code="database_away"))
            await asyncio.sleep(0.05)
        elif isinstance(error, TollkeeperError) or len(items) == 1:
            self._fail(items, error)
        else:
            for item in items:
                try:
                    await self._decide_locked([item])
                except Exception as own:
                    await self._give_up([item], own)

    def _take(self) -> list[_Item]:
        """What waits, up to half of all there is to do, so that deciding and committing overlap.

        One command a session, and none for a session that is under way: those stay for later.
        """
        taken: list[_Item] = []
        left: list[_Item] = []
        flying = self._flying[0] if self._flying is not None else []
        seen = {item.command.key for item in flying}
        size = min(self._batch_max, max(BATCH_MIN, (len(self._queue) + len(flying) + 1) // 2))
        now = asyncio.get_running_loop().time()
        while self._queue and len(taken) < size:
            item = self._queue.popleft()
            if item.future.done():
                continue
            if item.deadline < now and isinstance(item.command, Authorise):
                self.shed += 1
                item.future.set_exception(
                    Busy("the request waited too long; it is not admitted", code="overloaded")
                )
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

    def _note_stale(self, items: list[_Item]) -> None:
        self.stale_batches += 1
        self._contended = CONTENDED_BATCHES
        self._forget(items)

    def _forget(self, items: list[_Item]) -> None:
        """What these were decided on is not what stands: read it anew."""
        self._wallets.clear()
        for item in items:
            self._sessions.pop(item.command.key, None)

    def _forget_all(self) -> None:
        self._sessions.clear()
        self._wallets.clear()

    @staticmethod
    def _fail(items: list[_Item], error: Exception) -> None:
        for item in items:
            if not item.future.done():
                item.future.set_exception(error)

    def _answer_repeats(self, items: list[_Item]) -> list[_Item]:
        """Answer what was applied before with the stored answer; return the rest."""
        fresh = []
        for item in items:
            if item.future.done():
                continue
            known = self._sessions.get(item.command.key)
            answered = known.messages.get(item.message_id) if known is not None else None
            if answered is None:
                fresh.append(item)
            elif answered.digest == item.digest:
                self.replays += 1
                item.future.set_result((answered.reply, True))
            else:
                item.future.set_exception(
                    Conflict(
                        f'"{item.message_id}" was sent before with other content; nothing was changed',
                        code="message_id_reused",
                    )
                )
        return fresh

    # --- deciding ----------------------------------------------------------------------------------

    async def _prepare(self, items: list[_Item]) -> list[_Item]:
        """Read what the cache lacks; a new session is taken to be new until the store says otherwise."""
        items = self._answer_repeats(items)
        unknown = [i.command.key for i in items if not isinstance(i.command, Authorise)]
        items = await self._know(items, [key for key in unknown if key not in self._sessions])
        missing = [id_ for id_ in self._wallets_needed(items) if id_ not in self._wallets]
        if missing:
            # Read what is committed: the batch under way may be changing these.
            if not await self._land():
                raise StaleRead
            self._wallets.update(await self._store.wallets(missing))
        return items

    def _cached(self, items: list[_Item]) -> dict[int, Wallet]:
        return {
            id_: self._wallets[id_] for id_ in self._wallets_needed(items) if id_ in self._wallets
        }

    def _anticipate(self, batch: Batch) -> None:
        """Take the wallets to be as the batch will leave them once it is written."""
        for id_, wallet in batch.after.items():
            self._wallets[id_] = msgspec.structs.replace(wallet, stamp=wallet.stamp + 1)
            self._wallets.move_to_end(id_)

    async def _attempt_locked(self, items: list[_Item]) -> None:
        """Decide on sessions just read and on wallets under lock: nothing can come between."""
        items = await self._know(items, [item.command.key for item in items])
        async with self._store.locked(sorted(self._wallets_needed(items))) as unit:
            batch, outcomes = self._decide(items, unit.wallets)
            if batch.written:
                await unit.apply(batch)
        self._anticipate(batch)
        self._settle(batch, outcomes)

    async def _know(self, items: list[_Item], keys: list[str]) -> list[_Item]:
        """Read sessions by key into the cache and answer repeats that this uncovers."""
        if not keys:
            return items
        old = [item.command.key for item in items if not isinstance(item.command, Authorise)]
        since = self._clock().date() - timedelta(days=KEY_DAYS)
        found = await self._store.load(keys, since, everywhere=old)
        for key in keys:
            if key in found:
                self._sessions[key] = found[key]
            else:
                self._sessions.pop(key, None)
        return self._answer_repeats(items)

    def _wallets_needed(self, items: list[_Item]) -> set[int]:
        needed: set[int] = set()
        for item in items:
            known = self._sessions.get(item.command.key)
            if known is not None:
                needed.update(leg.wallet_id for leg in known.session.legs)
            elif isinstance(item.command, Authorise):
                for offer in item.command.offers:
                    needed.add(offer.wallet_id)
                    limits = self._book.limits_of(offer.party_id)
                    if limits.max_sessions is not None or limits.max_cps is not None:
                        needed.update(self._book.wallets_of(offer.party_id))
        return needed

    def _decide(self, items: list[_Item], before: Mapping[int, Wallet]) -> tuple[Batch, _Outcomes]:
        """Decide in order, each on the wallets as the ones before it leave them."""
        now = self._clock()
        second = int(now.timestamp())
        after = dict(before)
        touched: set[int] = set()
        guarded: set[int] = set()
        written: list[Written] = []
        outcomes: _Outcomes = []
        for item in items:
            known = self._sessions.get(item.command.key)
            session = known.session if known is not None else None
            view = View(after, self._limits(session, item.command), self._policy)
            try:
                decision = decide(
                    session, item.command, view, now, self._new_id() if session is None else ""
                )
            except TollkeeperError as error:
                outcomes.append((item, error))
                continue
            outcomes.append((item, decision))
            if decision.session is session:
                continue
            change = _change(session, decision)
            written.append(Written(change, decision, item.message_id, item.digest, item.request))
            if decision.holds or decision.postings:
                for id_ in {leg.wallet_id for leg in decision.session.legs}:
                    after[id_] = enrol(after[id_], decision, second, change is Change.OPEN)
                    touched.add(id_)
                    if decision.guarded:
                        guarded.add(id_)
            touched.update(self._rested_on(item.command, decision, after))
        return Batch(
            now, written, dict(before), {id_: after[id_] for id_ in touched}, guarded
        ), outcomes

    def _rested_on(
        self, command: Command, decision: Decision, after: Mapping[int, Wallet]
    ) -> set[int]:
        """Wallets that a decision looked at without changing them: were they changed meanwhile, decide again."""
        ids = (
            {leg.wallet_id for leg in decision.session.legs}
            if isinstance(command, Authorise | Update)
            else set()
        )
        if isinstance(command, Authorise):
            for offer in command.offers:
                ids.update(self._book.wallets_of(offer.party_id))
        return ids & after.keys()

    def _limits(self, session: Session | None, command: Command) -> dict[int, Limits]:
        if isinstance(command, Authorise):
            parties = {command.party_id, *(offer.party_id for offer in command.offers)}
            return {id_: self._book.limits_of(id_) for id_ in parties}
        if isinstance(command, Update) and session is not None:
            return {session.party_id: self._book.limits_of(session.party_id)}
        return {}

    def _settle(self, batch: Batch, outcomes: _Outcomes) -> None:
        """The batch is durable: remember what stands now and answer everybody."""
        self.batches += 1
        stored = {id(written.decision) for written in batch.written}
        for item, outcome in outcomes:
            self.operations += 1
            if isinstance(outcome, TollkeeperError):
                if not item.future.done():
                    item.future.set_exception(outcome)
                continue
            if id(outcome) in stored:
                self._remember(item, outcome)
            if not item.future.done():
                item.future.set_result((outcome.reply, False))
        while len(self._sessions) > CACHE_SESSIONS:
            self._sessions.popitem(last=False)
        while len(self._wallets) > CACHE_WALLETS:
            self._wallets.popitem(last=False)

    def _remember(self, item: _Item, decision: Decision) -> None:
        key = decision.session.key
        known = self._sessions.get(key)
        if known is None:
            known = self._sessions[key] = Known(decision.session, {})
        known.session = decision.session
        known.messages[item.message_id] = Answered(item.digest, decision.reply)
        self._sessions.move_to_end(key)


def _change(before: Session | None, decision: Decision) -> Change:
    after = decision.session
    if before is None:
        return Change.REFUSE if after.ending is Ending.REFUSED else Change.OPEN
    if before.state is State.CLOSED:
        return Change.LATE
    return Change.CLOSE if after.state is State.CLOSED else Change.UPDATE
