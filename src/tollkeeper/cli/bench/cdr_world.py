"""A carrier whose day came as a file: 40 customers, 3 vendors, their cards in versions, live calls.

Everything goes through the ordinary use cases but the rows of cards and the sessions that were
charged live, of which there are very many: these are decided by the core as ever, and copied.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from uuid import UUID

from tollkeeper.cli.bench.cdr_day import CUSTOMERS, VENDORS, Day, customer_trunk, vendor_trunk
from tollkeeper.core.rating import Tariff
from tollkeeper.core.records import Authorise, Offer, Pin, Policy, Role, Stop, Wallet
from tollkeeper.core.session import View, decide
from tollkeeper.core.tariff import PrefixTable, RateRow
from tollkeeper.services.parties import create_party, create_plan
from tollkeeper.services.rates import create_card
from tollkeeper.services.trunks import create_trunk
from tollkeeper.services.wallets import create_wallet, top_up
from tollkeeper.store import rates
from tollkeeper.store.bench_cdr import LiveCharge, seed_sessions
from tollkeeper.store.db import Database
from tollkeeper.store.outbox import ensure_partitions
from tollkeeper.store.parties import Party, PlanCard
from tollkeeper.store.trunks import TrunkEntry

SWITCH = "bench"
MONEY = Decimal(10_000_000)
_ACTOR = "bench"
_LONGER_MS = 5_000
"""Of every twentieth call that was charged live, the switch's file says so much more."""


@dataclass(frozen=True, slots=True)
class Version:
    """The rows of a card from a moment on."""

    since: datetime
    rows: Sequence[RateRow]


Deck = Sequence[Version]
"""The versions of a card, in the order of time."""


@dataclass(frozen=True, slots=True)
class SoldCard:
    """A card as it was stored: its id and code, and its versions."""

    id: int
    code: str
    deck: Deck

    def at(self, when: datetime) -> int:
        """The number of the version that was in force then; before the first it is the first."""
        return max(sum(version.since <= when for version in self.deck), 1)


@dataclass(frozen=True, slots=True)
class CdrWorld:
    """Who is who: ids of parties and wallets by the numbers of customers and vendors, and their cards."""

    customers: tuple[int, ...]
    vendors: tuple[int, ...]
    customer_wallets: tuple[int, ...]
    vendor_wallets: tuple[int, ...]
    sells: tuple[SoldCard, ...]
    buys: tuple[SoldCard, ...]

    def sell_of(self, customer: int) -> SoldCard:
        """The card that a customer is sold by."""
        return self.sells[customer % len(self.sells)]


async def make_world(
    database: Database, *, sells: Sequence[Deck], buys: Sequence[Deck], now: datetime
) -> CdrWorld:
    """Make the carrier in a migrated database.

    Customer n has the sell card n of ``sells``, and so on from the first again; ``buys`` has one
    deck for each vendor. Wallets are in USD, those of customers are funded at ``now``.
    """
    if len(buys) != VENDORS:
        raise ValueError(f"there are {VENDORS} vendors, so many decks are needed")
    async with database.read() as connection:
        await ensure_partitions(connection, now.date(), 2)
    sold = [await _card(database, f"sell-{n + 1}", "sell", deck) for n, deck in enumerate(sells)]
    bought = [await _card(database, f"buy-{n + 1}", "buy", deck) for n, deck in enumerate(buys)]
    for card in (*sold, *bought):
        await create_plan(
            database, code=card.code, name=card.code, cards=[PlanCard(card.code)], actor=_ACTOR
        )
    customers = [
        await _party(database, customer_trunk(n), "customer", sold[n % len(sold)].code, now)
        for n in range(CUSTOMERS)
    ]
    vendors = [
        await _party(database, vendor_trunk(n), "vendor", bought[n].code, now)
        for n in range(VENDORS)
    ]
    return CdrWorld(
        customers=tuple(party for party, _ in customers),
        vendors=tuple(party for party, _ in vendors),
        customer_wallets=tuple(wallet for _, wallet in customers),
        vendor_wallets=tuple(wallet for _, wallet in vendors),
        sells=tuple(sold),
        buys=tuple(bought),
    )


async def _card(database: Database, code: str, side: str, deck: Deck) -> SoldCard:
    card = await create_card(database, code=code, currency="USD", actor=_ACTOR, side=side)
    for number, version in enumerate(deck, 1):
        count = len(version.rows)
        draft = rates.RateVersion(
            version=number, base_version=None, mode="full", file_name="", sha256="", rows_in=count,
            rows_stored=count, rows_refused=0, rows_repeated=0, rows_closing=0, row_count=count,
            summary={}, created_by=_ACTOR, created_at=version.since,
        )  # fmt: skip
        async with database.write() as connection:
            await rates.take_version(connection, card.id)
            id_ = await rates.add_version(connection, card.id, draft)
            await rates.copy_rows(connection, id_, version.rows, lambda _: None)
            stored = await rates.read_version(connection, card.id, number)
            assert stored is not None
            await rates.retire_active(connection, card.id, version.since)
            await rates.set_active(
                connection, card.id, stored, at=version.since,
                replaced_version=number - 1 if number > 1 else None,
            )  # fmt: skip
    return SoldCard(card.id, code, deck)


async def _party(
    database: Database, code: str, kind: str, plan: str, now: datetime
) -> tuple[int, int]:
    """A party with a wallet and a trunk: the ids of the first two."""
    party = await create_party(
        database, Party(code=code, name=code, kind=kind, plan=plan), actor=_ACTOR
    )
    opened = await create_wallet(database, party=code, currency="USD", actor=_ACTOR)
    if kind == "customer":
        await top_up(
            database, party=code, currency="USD", amount=MONEY, reason="bench", actor=_ACTOR,
            clock=lambda: now,
        )  # fmt: skip
    trunk = TrunkEntry(
        code=code, direction="in" if kind == "customer" else "out", party=code, names=(code,)
    )
    await create_trunk(database, trunk, actor=_ACTOR)
    return party.id, opened.id


# --- calls that were charged live ------------------------------------------------------------------


async def charge_live(database: Database, world: CdrWorld, day: Day) -> int:
    """Charge the live calls of a day, as sessions that have closed; returns how many have a rate."""
    async with database.write() as connection:
        return await seed_sessions(connection, _charges(world, day))


def _charges(world: CdrWorld, day: Day) -> Iterator[LiveCharge]:
    live = day.live
    tables: dict[tuple[int, int], PrefixTable] = {}
    # Card by card, so that one is compiled at a time.
    order = sorted(range(len(live.call_id)), key=lambda n: int(live.customer[n]) % len(world.sells))
    for n in order:
        customer = int(live.customer[n])
        card = world.sell_of(customer)
        start = datetime.fromtimestamp(int(live.start_ms[n]) // 1000, UTC)
        version = card.at(start)
        if (card.id, version) not in tables:
            tables = {key: kept for key, kept in tables.items() if key[0] == card.id}
            rows = card.deck[version - 1].rows
            tables[card.id, version] = PrefixTable(rows)
        called = str(live.called[n])
        row = tables[card.id, version].find(called, start)
        if row is None or row.blocked:
            continue
        pin = Pin(
            card.id, card.code, version, row.row_id, row.prefix, row.destination, "USD", row.tariff
        )
        duration = int(live.duration_ms[n])
        used = duration - _LONGER_MS if n % 20 == 0 and duration > 2 * _LONGER_MS else duration
        yield _charge(
            world, customer, pin, live.call_id[n], str(live.caller[n]), called, start, used
        )


def _charge(
    world: CdrWorld,
    customer: int,
    pin: Pin,
    call_id: str,
    caller: str,
    called: str,
    start: datetime,
    used_ms: int,
) -> LiveCharge:
    """Authorise and stop one call."""
    party_id, wallet_id = world.customers[customer], world.customer_wallets[customer]
    wallet = Wallet(wallet_id, party_id, "USD", credited=MONEY)
    view = View({wallet_id: wallet}, {}, Policy())
    authorise = Authorise(
        key=f"{SWITCH}/{call_id}",
        party_id=party_id,
        called=called,
        caller=caller,
        requested_seconds=7_200,
        offers=(Offer(Role.CUSTOMER, party_id, wallet_id, pin),),
    )
    opened = decide(None, authorise, view, start, str(UUID(hex=call_id)))
    end = start + timedelta(milliseconds=used_ms)
    stop = Stop(key=authorise.key, used_ms=used_ms)
    return LiveCharge(authorise, opened, stop, decide(opened.session, stop, view, end))


# --- cards that are made up ------------------------------------------------------------------------


def made_decks(
    prefixes: Sequence[str], change: datetime, *, sells: int = 2, seed: int = 5
) -> tuple[list[Deck], list[Deck]]:
    """Decks for ``sells`` sell cards and all vendors, over the same prefixes, in two versions each.

    The second version counts from ``change`` on and has other prices for every prefix.
    """
    dice = random.Random(seed)  # noqa: S311 - figures that can be repeated, no secrets
    decks = [
        [
            Version(since, _rows(prefixes, dice, 30 if n < sells else 20))
            for since in (change - timedelta(days=90), change)
        ]
        for n in range(sells + VENDORS)
    ]
    return list(decks[:sells]), list(decks[sells:])


def _rows(prefixes: Sequence[str], dice: random.Random, least: int) -> list[RateRow]:
    """Rows as decks have them: many prefixes of a destination, which share their price."""
    tariffs = [
        Tariff(price, price, first, step, connect_fee=fee)
        for price in (Decimal(dice.randrange(least, 5_000)).scaleb(-4) for _ in range(500))
        for first, step, fee in (
            (1, 1, Decimal(0)), (60, 1, Decimal(0)), (30, 6, Decimal("0.01")), (60, 60, Decimal(0)),
        )
    ]  # fmt: skip
    return [
        RateRow(prefix, f"Destination {prefix[:4]}", dice.choice(tariffs), row_id=number)
        for number, prefix in enumerate(prefixes, 1)
    ]
