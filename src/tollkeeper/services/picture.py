"""What a process believes: sessions and wallets in memory, and the deciding on them.

Beliefs make decisions fast, never valid: each batch carries the stamps and versions that it was
decided on, and the store refuses it if they are not what stands.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from datetime import date, datetime, timedelta

import msgspec

from tollkeeper.core.batch import Answered, Batch, Change, Known, Written, change_of
from tollkeeper.core.records import (
    Authorise,
    Command,
    Decision,
    Expire,
    Limits,
    Policy,
    Reply,
    Session,
    Update,
    Wallet,
    enrol,
)
from tollkeeper.core.session import View, decide, session_id_reused
from tollkeeper.errors import Conflict, TollkeeperError
from tollkeeper.services.ports import Book, ChargingStore

CACHE_SESSIONS = 30_000
CACHE_WALLETS = 100_000
KEY_DAYS = 1
"""An authorisation id is remembered from the start of the day before; a switch may reuse it later."""


class Item:
    """A command on its way: the message's identity, its content and who waits for the answer."""

    __slots__ = ("command", "deadline", "digest", "future", "message_id", "request")

    def __init__(self, command: Command, message_id: str, request: bytes, deadline: float) -> None:
        self.command = command
        self.message_id = message_id
        self.request = request
        self.digest = hashlib.blake2b(request, digest_size=12).hexdigest()
        self.deadline = deadline
        self.future: asyncio.Future[tuple[Reply, bool]] = asyncio.get_running_loop().create_future()


Outcomes = list[tuple[Item, Decision | TollkeeperError]]


class Picture:
    """Sessions and wallets as last known here, and decisions made on them."""

    def __init__(
        self,
        store: ChargingStore,
        book: Book,
        *,
        clock: Callable[[], datetime],
        new_id: Callable[[], str],
        policy: Policy,
    ) -> None:
        self._store = store
        self._book = book
        self._clock = clock
        self._new_id = new_id
        self._policy = policy
        self._sessions: OrderedDict[str, Known] = OrderedDict()
        self._wallets: OrderedDict[int, Wallet] = OrderedDict()
        self.operations = 0
        self.replays = 0

    # --- remembering and forgetting ----------------------------------------------------------------

    def forget_wallets(self, ids: Iterable[int]) -> None:
        """Drop wallets that something else has changed."""
        for id_ in ids:
            self._wallets.pop(id_, None)

    def forget(self, items: list[Item]) -> None:
        """What these were decided on is not what stands: read it anew."""
        self._wallets.clear()
        for item in items:
            self._sessions.pop(item.command.key, None)

    def forget_all(self) -> None:
        """Nothing is certain any more."""
        self._sessions.clear()
        self._wallets.clear()

    def answer_repeats(self, items: list[Item]) -> list[Item]:
        """Answer what was applied before with the stored answer; return the rest."""
        fresh = []
        for item in items:
            if item.future.done():
                continue
            known = self._recall(item.command)
            answered = known.messages.get(item.message_id) if known is not None else None
            if answered is None:
                fresh.append(item)
            elif answered.digest == item.digest:
                self.replays += 1
                item.future.set_result((answered.reply, True))
            else:
                item.future.set_exception(_reused(item))
        return fresh

    def _recall(self, command: Command) -> Known | None:
        """The session of a command; an id whose session is long over is free for a new one."""
        known = self._sessions.get(command.key)
        if known is None or known.session.open or not isinstance(command, Authorise):
            return known
        if known.session.opened_at.date() >= self._since():
            return known
        del self._sessions[command.key]
        return None

    def _since(self) -> date:
        return self._clock().date() - timedelta(days=KEY_DAYS)

    # --- knowing -------------------------------------------------------------------------------------

    async def know_unknown(self, items: list[Item]) -> list[Item]:
        """Read what is not in memory; a new session is taken to be new until the store says otherwise."""
        wanted = [
            item.command.key
            for item in items
            # Whether a session's time is over only the store knows: others may have moved its end.
            if isinstance(item.command, Expire)
            or (not isinstance(item.command, Authorise) and item.command.key not in self._sessions)
        ]
        return await self.know(items, wanted)

    async def know(self, items: list[Item], keys: list[str]) -> list[Item]:
        """Read sessions by key into the cache and answer repeats that this uncovers."""
        if not keys:
            return items
        old = [item.command.key for item in items if not isinstance(item.command, Authorise)]
        found = await self._store.load(keys, self._since(), everywhere=old)
        for key in keys:
            if key in found:
                self._sessions[key] = found[key]
            else:
                self._sessions.pop(key, None)
        return self.answer_repeats(items)

    def missing_wallets(self, items: list[Item]) -> list[int]:
        """Wallets that deciding these needs and that are not in memory."""
        return [id_ for id_ in self.wallets_needed(items) if id_ not in self._wallets]

    async def read_wallets(self, ids: list[int]) -> None:
        """Read wallets as they are committed."""
        self._wallets.update(await self._store.wallets(ids))

    def cached(self, items: list[Item]) -> dict[int, Wallet]:
        """The wallets that deciding these needs, as far as they are in memory."""
        return {
            id_: self._wallets[id_] for id_ in self.wallets_needed(items) if id_ in self._wallets
        }

    def anticipate(self, batch: Batch) -> None:
        """Take the wallets to be as the batch will leave them once it is written."""
        for id_, wallet in batch.after.items():
            self._wallets[id_] = msgspec.structs.replace(wallet, stamp=wallet.stamp + 1)
            self._wallets.move_to_end(id_)

    def wallets_needed(self, items: list[Item]) -> set[int]:
        """Wallets of all legs, and all wallets of parties whose sessions are counted."""
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

    def decide(self, items: list[Item], before: Mapping[int, Wallet]) -> tuple[Batch, Outcomes]:
        """Decide in order, each on the wallets as the ones before it leave them."""
        now = self._clock()
        second = int(now.timestamp())
        after = dict(before)
        touched: set[int] = set()
        guarded: set[int] = set()
        written: list[Written] = []
        outcomes: Outcomes = []
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
            change = change_of(session, decision)
            written.append(Written(change, decision, item.message_id, item.digest, item.request))
            if decision.holds or decision.postings:
                for id_ in {leg.wallet_id for leg in decision.session.legs}:
                    after[id_] = enrol(
                        after[id_], decision, second=second, opens=change is Change.OPEN
                    )
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

    def settle(self, batch: Batch, outcomes: Outcomes) -> None:
        """The batch is durable: remember what stands now and answer everybody."""
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

    def _remember(self, item: Item, decision: Decision) -> None:
        key = decision.session.key
        known = self._sessions.get(key)
        if known is None:
            known = self._sessions[key] = Known(decision.session, {})
        known.session = decision.session
        known.messages[item.message_id] = Answered(item.digest, decision.reply)
        self._sessions.move_to_end(key)


def _reused(item: Item) -> Conflict:
    """An id came again with other content: a mistake of the sender, never applied."""
    if isinstance(item.command, Authorise):
        return session_id_reused(item.command.key)
    return Conflict(
        f'"{item.message_id}" was sent before with other content; nothing was changed',
        code="message_id_reused",
    )
