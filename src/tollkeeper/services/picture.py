"""What a process believes: sessions, wallets and meters in memory, and the deciding on them.

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

from tollkeeper.core.batch import (
    Answered,
    Batch,
    Change,
    Known,
    Written,
    change_of,
    meters_of,
    tally,
)
from tollkeeper.core.records import (
    Authorise,
    Charge,
    Command,
    Decision,
    Event,
    Expire,
    Limits,
    Policy,
    Reply,
    Session,
    Update,
    Wallet,
    enrol,
)
from tollkeeper.core.session import decide, session_id_reused
from tollkeeper.core.terms import Meter, Terms
from tollkeeper.core.view import View
from tollkeeper.errors import Conflict, TollkeeperError
from tollkeeper.services.ports import Book, ChargingStore

CACHE_SESSIONS = 30_000
CACHE_WALLETS = 100_000
CACHE_METERS = 100_000
OPENING = (Authorise, Charge)
"""Commands that begin a session: their key is new, or they are repeats."""
KEY_DAYS = 1
"""The id of an authorisation or charge is remembered from the start of the day before; a switch may reuse it later."""


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


class Needs(msgspec.Struct, frozen=True):
    """Ids of what deciding looks at: the wallets of all legs and of all parties counted; the meters."""

    wallets: set[int]
    meters: set[int]

    def __bool__(self) -> bool:
        """True when there is anything."""
        return bool(self.wallets or self.meters)


class _Changing:
    """The wallets and meters of a batch in the making, as the decisions so far leave them."""

    __slots__ = ("guarded", "meters", "meters_guarded", "meters_touched", "touched", "wallets")

    def __init__(self, wallets: Mapping[int, Wallet], meters: Mapping[int, Meter]) -> None:
        self.wallets = dict(wallets)
        self.meters = dict(meters)
        self.touched: set[int] = set()
        self.guarded: set[int] = set()
        self.meters_touched: set[int] = set()
        self.meters_guarded: set[int] = set()

    def take(self, decision: Decision, second: int, *, opens: bool) -> None:
        """Apply a decision."""
        if decision.holds or decision.postings:
            for id_ in {leg.wallet_id for leg in decision.session.legs}:
                self.wallets[id_] = enrol(self.wallets[id_], decision, second=second, opens=opens)
                self.touched.add(id_)
                if decision.guarded:
                    self.guarded.add(id_)
        for count in decision.counts:
            id_ = count.meter_id
            self.meters[id_] = tally(self.meters[id_], count)
            self.meters_touched.add(id_)
            if count.guarded:
                self.meters_guarded.add(id_)

    def rest(self, wallet_id: int, terms: Terms | None) -> None:
        """Note what a decision has looked at, changed or not."""
        if wallet_id in self.wallets:
            self.touched.add(wallet_id)
        if terms is not None:
            self.meters_touched.update(id_ for id_ in meters_of(terms) if id_ in self.meters)


class Picture:
    """Sessions, wallets and meters as last known here, and decisions made on them."""

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
        self._meters: OrderedDict[int, Meter] = OrderedDict()
        self.operations = 0
        self.replays = 0

    # --- remembering and forgetting ----------------------------------------------------------------

    def forget_wallets(self, ids: Iterable[int]) -> None:
        """Drop wallets that something else has changed."""
        for id_ in ids:
            self._wallets.pop(id_, None)

    def forget_meters(self, ids: Iterable[int]) -> None:
        """Drop meters that something else has changed."""
        for id_ in ids:
            self._meters.pop(id_, None)

    def forget(self, items: list[Item]) -> None:
        """What these were decided on is not what stands: read it anew."""
        self._wallets.clear()
        self._meters.clear()
        for item in items:
            self._sessions.pop(item.command.key, None)

    def forget_all(self) -> None:
        """Nothing is certain any more."""
        self._sessions.clear()
        self._wallets.clear()
        self._meters.clear()

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
        if known is None or known.session.open or not isinstance(command, OPENING):
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
            or (not isinstance(item.command, OPENING) and item.command.key not in self._sessions)
        ]
        return await self.know(items, wanted)

    async def know(self, items: list[Item], keys: list[str]) -> list[Item]:
        """Read sessions by key into the cache and answer repeats that this uncovers."""
        if not keys:
            return items
        old = [item.command.key for item in items if not isinstance(item.command, OPENING)]
        found = await self._store.load(keys, self._since(), everywhere=old)
        for key in keys:
            if key in found:
                self._sessions[key] = found[key]
            else:
                self._sessions.pop(key, None)
        return self.answer_repeats(items)

    def needed(self, items: list[Item]) -> Needs:
        """What deciding these looks at."""
        wallets: set[int] = set()
        meters: set[int] = set()
        for item in items:
            known = self._sessions.get(item.command.key)
            if known is not None:
                for leg in known.session.legs:
                    wallets.add(leg.wallet_id)
                    if leg.terms is not None:
                        meters.update(meters_of(leg.terms))
                if known.session.counts:
                    meters.update(known.session.counts)
            elif isinstance(item.command, OPENING):
                self._needed_to_open(item.command, wallets, meters)
        return Needs(wallets, meters)

    def _needed_to_open(
        self, command: Authorise | Charge, wallets: set[int], meters: set[int]
    ) -> None:
        for offer in command.offers:
            wallets.add(offer.wallet_id)
            if offer.terms is not None:
                meters.update(meters_of(offer.terms))
            if isinstance(command, Charge):
                # It takes no channel, so calls are not counted.
                continue
            limits = self._book.limits_of(offer.party_id)
            if (
                limits.max_sessions is not None
                or limits.max_cps is not None
                or limits.low_sessions is not None
            ):
                wallets.update(self._book.wallets_of(offer.party_id))
        for count in command.counts:
            meters.add(count.meter_id)

    def missing(self, needs: Needs) -> Needs:
        """What of these is not in memory."""
        return Needs(
            {id_ for id_ in needs.wallets if id_ not in self._wallets},
            {id_ for id_ in needs.meters if id_ not in self._meters},
        )

    async def read(self, needs: Needs) -> None:
        """Read wallets and meters as they are committed."""
        if needs.wallets:
            self._wallets.update(await self._store.wallets(list(needs.wallets)))
        if needs.meters:
            self._meters.update(await self._store.meters(list(needs.meters)))

    def cached(self, needs: Needs) -> tuple[dict[int, Wallet], dict[int, Meter]]:
        """These, as far as they are in memory."""
        wallets = {id_: self._wallets[id_] for id_ in needs.wallets if id_ in self._wallets}
        meters = {id_: self._meters[id_] for id_ in needs.meters if id_ in self._meters}
        return wallets, meters

    def anticipate(self, batch: Batch) -> None:
        """Take wallets and meters to be as the batch will leave them once it is written."""
        for id_, wallet in batch.after.items():
            self._wallets[id_] = msgspec.structs.replace(wallet, stamp=wallet.stamp + 1)
            self._wallets.move_to_end(id_)
        for id_, meter in batch.meters_after.items():
            self._meters[id_] = msgspec.structs.replace(meter, stamp=meter.stamp + 1)
            self._meters.move_to_end(id_)

    # --- deciding ------------------------------------------------------------------------------------

    def decide(
        self, items: list[Item], wallets: dict[int, Wallet], meters: dict[int, Meter]
    ) -> tuple[Batch, Outcomes]:
        """Decide in order, each on the wallets and meters as the ones before it leave them."""
        now = self._clock()
        second = int(now.timestamp())
        stand = _Changing(wallets, meters)
        written: list[Written] = []
        outcomes: Outcomes = []
        for item in items:
            command = item.command
            known = self._sessions.get(command.key)
            session = known.session if known is not None else None
            limits = self._limits(session, command)
            view = View(stand.wallets, limits, self._policy, meters=stand.meters)
            try:
                decision = decide(
                    session, command, view, now, self._new_id() if session is None else ""
                )
            except TollkeeperError as error:
                outcomes.append((item, error))
                continue
            if decision.session is session:
                outcomes.append((item, decision))
                continue
            change = change_of(session, decision)
            if change is Change.CLOSE and self._book.hears_ended(decision.session.party_id):
                decision = _told(decision)
            outcomes.append((item, decision))
            written.append(Written(change, decision, item.message_id, item.digest, item.request))
            stand.take(decision, second, opens=change is Change.OPEN)
            if isinstance(command, OPENING):
                self._rest_on_offers(command, stand)
            elif isinstance(command, Update):
                for leg in decision.session.legs:
                    stand.rest(leg.wallet_id, leg.terms)
        batch = Batch(
            now,
            written,
            wallets,
            {id_: stand.wallets[id_] for id_ in stand.touched},
            stand.guarded,
            meters,
            {id_: stand.meters[id_] for id_ in stand.meters_touched},
            stand.meters_guarded,
        )
        return batch, outcomes

    def _rest_on_offers(self, command: Authorise | Charge, stand: _Changing) -> None:
        """What an opening has looked at: money, meters, and the wallets of parties whose calls are counted.

        Were any of them changed meanwhile, it is decided again: a refusal, too, holds only for what was seen.
        """
        for offer in command.offers:
            stand.rest(offer.wallet_id, offer.terms)
            if isinstance(command, Charge):
                continue
            for id_ in self._book.wallets_of(offer.party_id):
                stand.rest(id_, None)
        for count in command.counts:
            if count.meter_id in stand.meters:
                stand.meters_touched.add(count.meter_id)

    def _limits(self, session: Session | None, command: Command) -> dict[int, Limits]:
        """The limits of everybody whom the command concerns, where they matter."""
        if isinstance(command, OPENING):
            parties = {command.party_id, *[offer.party_id for offer in command.offers]}
            if command.counts:
                parties.update([count.party_id for count in command.counts])
        elif isinstance(command, Update) and session is not None:
            parties = {session.party_id, *[leg.party_id for leg in session.legs]}
        else:
            return {}
        return {id_: self._book.limits_of(id_) for id_ in parties}

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
        while len(self._meters) > CACHE_METERS:
            self._meters.popitem(last=False)

    def _remember(self, item: Item, decision: Decision) -> None:
        key = decision.session.key
        known = self._sessions.get(key)
        if known is None:
            known = self._sessions[key] = Known(decision.session, {})
        known.session = decision.session
        known.messages[item.message_id] = Answered(item.digest, decision.reply)
        self._sessions.move_to_end(key)


def _told(decision: Decision) -> Decision:
    """The same, with an event for whoever wants to hear that the session has ended."""
    ended = Event("session.ended", decision.session.id)
    return msgspec.structs.replace(decision, events=(*decision.events, ended))


def _reused(item: Item) -> Conflict:
    """An id came again with other content: a mistake of the sender, never applied."""
    if isinstance(item.command, OPENING):
        return session_id_reused(item.command.key)
    return Conflict(
        f'"{item.message_id}" was sent before with other content; nothing was changed',
        code="message_id_reused",
    )
