"""What the tests of the lane's stores share: commands decided on a store's content, and batches of them."""

from __future__ import annotations

import random
import uuid
from collections.abc import Iterable
from dataclasses import replace
from datetime import date, datetime, timedelta
from decimal import Decimal

import msgspec
import pytest

from tests.core.world import PER_SECOND, pin_of
from tests.store.charging_backends import NOON, Backend
from tollkeeper.core.audit import Books, audit
from tollkeeper.core.batch import (
    Batch,
    Change,
    Known,
    StaleRead,
    Written,
    change_of,
    meters_of,
    tally,
)
from tollkeeper.core.rating import Tariff
from tollkeeper.core.records import (
    Authorise,
    Charge,
    Command,
    Leg,
    Offer,
    Policy,
    Role,
    Session,
    Wallet,
    enrol,
)
from tollkeeper.core.session import decide
from tollkeeper.core.terms import Meter, Terms
from tollkeeper.core.view import View
from tollkeeper.errors import TollkeeperError
from tollkeeper.services.ports import ChargingStore

D = Decimal
LONG_AGO = date(2000, 1, 1)
PER_MESSAGE = Tariff(D("0.05"), D("0.05"), 1, 1, per=1)


def authorise(name: str, wallet: int = 1, seconds: int = 300, **values: object) -> Authorise:
    """An Authorise at one cent a second."""
    offer = Offer(Role.CUSTOMER, wallet, wallet, pin_of(PER_SECOND))
    made = Authorise(f"switch/{name}", wallet, "4420", offers=(offer,), requested_seconds=seconds)
    return msgspec.structs.replace(made, **values)


def charge(name: str, wallet: int = 1, units: int = 2, terms: Terms | None = None) -> Charge:
    """A Charge at five cents a message."""
    offer = Offer(Role.CUSTOMER, wallet, wallet, pin_of(PER_MESSAGE), terms)
    return Charge(f"switch/{name}", wallet, "4477", units, offers=(offer,))


class Writer:
    """Decides commands in order on what a store holds and makes one batch of them."""

    def __init__(self, store: ChargingStore, seed: int = 0) -> None:
        self._store = store
        self._ids = random.Random(seed)
        self.messages = 0

    async def batch(self, *commands: Command, now: datetime = NOON) -> Batch:
        """A batch as the lane would make it."""
        keys = [command.key for command in commands]
        known = await self._store.load(keys, LONG_AGO, everywhere=keys)
        legs: list[Leg | Offer] = [leg for k in known.values() for leg in k.session.legs]
        for command in commands:
            if isinstance(command, Authorise | Charge):
                legs += command.offers
        wallets = await self._store.wallets(sorted({leg.wallet_id for leg in legs}))
        ids = {id_ for leg in legs if leg.terms is not None for id_ in meters_of(leg.terms)}
        return self.decide(
            commands, known, wallets, now, await self._store.meters(sorted(ids)) if ids else {}
        )

    def decide(
        self,
        commands: Iterable[Command],
        known: dict[str, Known],
        wallets: dict[int, Wallet],
        now: datetime,
        meters: dict[int, Meter] | None = None,
    ) -> Batch:
        """Decide on what is given, stale or not."""
        after, meters_after = dict(wallets), dict(meters or {})
        written: list[Written] = []
        touched: set[int] = set()
        guarded: set[int] = set()
        counted: dict[int, bool] = {}
        for command in commands:
            session = known[command.key].session if command.key in known else None
            new_id = str(uuid.UUID(int=self._ids.getrandbits(128), version=4))
            view = View(after, {}, Policy(), meters=meters_after)
            try:
                decision = decide(session, command, view, now, new_id)
            except TollkeeperError:
                continue
            if decision.session is session:
                continue
            change = change_of(session, decision)
            self.messages += 1
            request = msgspec.json.encode({"type": type(command).__name__})
            written.append(
                Written(change, decision, f"m{self.messages}", f"d{self.messages}", request)
            )
            for id_ in {leg.wallet_id for leg in decision.session.legs} & set(after):
                after[id_] = enrol(
                    after[id_], decision, second=int(now.timestamp()), opens=change is Change.OPEN
                )
                touched.add(id_)
                if decision.guarded:
                    guarded.add(id_)
            for count in decision.counts:
                meters_after[count.meter_id] = tally(meters_after[count.meter_id], count)
                counted[count.meter_id] = counted.get(count.meter_id, False) or count.guarded
        return Batch(
            now,
            written,
            wallets,
            {id_: after[id_] for id_ in touched},
            guarded,
            meters or {},
            {id_: meters_after[id_] for id_ in counted},
            {id_ for id_, guard in counted.items() if guard},
        )

    async def write(self, *commands: Command, now: datetime = NOON) -> None:
        """Decide and store."""
        await self._store.apply(await self.batch(*commands, now=now))


async def session_of(backend: Backend, name: str) -> Session:
    """The session of a name, of any age."""
    key = f"switch/{name}"
    return (await backend.store.load([key], LONG_AGO, everywhere=[key]))[key].session


def ordered(books: Books) -> Books:
    """The same books with sessions in the order of their ids."""
    sessions = sorted(books.sessions, key=lambda s: s.id)
    messages = {id_: list(lines) for id_, lines in sorted(books.messages.items())}
    return replace(books, entries=tuple(books.entries), sessions=sessions, messages=messages)


def assert_books_are_sound(backend: Backend) -> None:
    """No guarantee is broken."""
    assert audit(backend.snapshot(), NOON, timedelta(days=9)) == []


async def refused(backend: Backend, batch: Batch, error: type[Exception] = StaleRead) -> None:
    """The batch is refused, and not a trace of it is left, whichever way it is written."""
    before = backend.snapshot(), backend.outbox(), backend.meters()
    with pytest.raises(error):
        await backend.store.apply(batch)
    with pytest.raises(error):
        async with backend.store.locked(sorted(batch.after), sorted(batch.meters_after)) as unit:
            await unit.apply(batch)
    after = backend.snapshot(), backend.outbox(), backend.meters()
    assert ordered(after[0]) == ordered(before[0])
    assert after[1:] == before[1:]
