"""The directory: parties, plans, rate tables and keys in memory, as every decision needs them.

Whoever changes one of them says so with ``pg_notify('tollkeeper', 'party:7')`` in the same
transaction; every process hears it and reads the row again. A lost connection ends in a full
reading, and every half minute everything small is read again, so nothing stays unheard.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, timedelta

import psycopg
import structlog

from tollkeeper.core.fx import Exchange
from tollkeeper.core.plans import Plan
from tollkeeper.core.records import Limits
from tollkeeper.core.tariff import Card
from tollkeeper.errors import Busy, NotFound
from tollkeeper.services.fx_book import KEPT_DAYS, FxBook
from tollkeeper.services.peer_book import PeerBook
from tollkeeper.services.plan_book import Names, compile_plans
from tollkeeper.services.tasks import end
from tollkeeper.store.db import OPTIONS, Connection, Database
from tollkeeper.store.directory import ApiKey, PartyEntry, read_keys, read_parties
from tollkeeper.store.feed import read_hearing
from tollkeeper.store.fx import read_places, read_recent
from tollkeeper.store.peers import read_credentials, read_mark, read_peers
from tollkeeper.store.plans import read_card_rows, read_plan_rows, read_profiles, read_zones
from tollkeeper.store.rates import active_versions, load_card
from tollkeeper.store.reference import read_trunks

REFRESH_SECONDS = 30.0
NOBODY = Limits(suspended=True)
RATE_NOTICES = frozenset(("card", "plan", "zone", "profile"))
PEER_NOTICES = frozenset(("peer", "trunk", "credential"))
LEVELS_MAX = 64
"""Parties above one another; the database keeps cycles out, this keeps a half-read tree from looping."""
_log = structlog.get_logger()


class Directory:
    """A process's picture of who may call where at which price; swapped piecewise, never half-made."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._by_code: dict[str, PartyEntry] = {}
        self._by_id: dict[int, PartyEntry] = {}
        self._cards: dict[int, Card] = {}
        self._plans: dict[tuple[int, str], Plan] = {}
        self._chains: dict[int, tuple[PartyEntry, ...]] = {}
        self._suspended: dict[int, int] = {}
        self._fx = FxBook()
        self._places: Mapping[str, str] = {}
        self._keys: dict[bytes, ApiKey] = {}
        self._hearing: frozenset[int] = frozenset()
        self.peers = PeerBook()
        self._peers_mark = ""
        self._task: asyncio.Task[None] | None = None
        self._lock = asyncio.Lock()
        self.on_wallets: Callable[[list[int]], None] = lambda _ids: None
        self.on_meters: Callable[[list[int]], None] = lambda _ids: None
        self.on_rates: Callable[[], None] = lambda: None
        self.on_party: Callable[[int], None] = lambda _id: None
        self.on_peers: Callable[[], None] = lambda: None
        self.on_feed: Callable[[int], None] = lambda _last: None

    # --- asked on every call ---------------------------------------------------------------------

    def party(self, code: str) -> PartyEntry:
        """Return a party by code.

        Raises:
            NotFound: there is none.
        """
        try:
            return self._by_code[code]
        except KeyError:
            raise NotFound(
                f'there is no party "{code}"', code="unknown_party", field="party"
            ) from None

    def limits_of(self, party_id: int) -> Limits:
        """Limits of a party as they are now; somebody unknown may do nothing."""
        entry = self._by_id.get(party_id)
        return entry.limits if entry is not None else NOBODY

    def wallets_of(self, party_id: int) -> tuple[int, ...]:
        """Ids of all wallets of a party."""
        entry = self._by_id.get(party_id)
        return tuple(entry.wallets.values()) if entry is not None else ()

    def chain_of(self, party_id: int) -> tuple[PartyEntry, ...]:
        """Who pays for a party's use, from the bottom up.

        First the payer: the party itself, or for a user the nearest above it that is none. Then
        everybody above that has a plan; an operator never pays. Nobody for a party that is unknown,
        and for a user without anybody to pay for it.
        """
        chain = self._chains.get(party_id)
        if chain is None:
            chain = self._chains[party_id] = self._chain(party_id)
        return chain

    def _chain(self, party_id: int) -> tuple[PartyEntry, ...]:
        line = self._line(party_id)
        while line and line[0].kind == "user":
            line = line[1:]
        above = [one for one in line[1:] if one.plan_id is not None and one.kind != "operator"]
        return (line[0], *above) if line else ()

    def _line(self, party_id: int) -> list[PartyEntry]:
        """A party and everybody above it."""
        line: list[PartyEntry] = []
        entry = self._by_id.get(party_id)
        while entry is not None and len(line) < LEVELS_MAX:
            line.append(entry)
            entry = self._by_id.get(entry.parent_id) if entry.parent_id is not None else None
        return line

    def suspended_above(self, party_id: int) -> int:
        """Id of the nearest suspended party among this one and those above it; 0: none is.

        Somebody unknown may do nothing: its own id.
        """
        found = self._suspended.get(party_id)
        if found is None:
            line = self._line(party_id)
            nearest = (one.id for one in line if one.limits.suspended)
            found = self._suspended[party_id] = next(nearest, 0) if line else party_id
        return found

    def entry(self, party_id: int) -> PartyEntry | None:
        """A party by id."""
        return self._by_id.get(party_id)

    def plan_of(self, plan_id: int, service: str) -> Plan | None:
        """A plan for a service, compiled; None where it has no card in force for it."""
        return self._plans.get((plan_id, service))

    def plans_of(self, plan_id: int) -> tuple[Plan, ...]:
        """A plan for each service that it has a card in force for."""
        return tuple(plan for (id_, _), plan in self._plans.items() if id_ == plan_id)

    def cards_of(self, plan_id: int, service: str) -> tuple[Card, ...]:
        """Compiled cards of a plan for a service, in the order in which they win ties."""
        plan = self._plans.get((plan_id, service))
        return tuple(placed.card for placed in plan.cards) if plan is not None else ()

    def exchange(self, day: date) -> Exchange:
        """The exchange rates in force on a day."""
        return self._fx.exchange(day)

    @property
    def places(self) -> Mapping[str, str]:
        """The state of each North American office code (NPA-NXX, six digits)."""
        return self._places

    def hears_ended(self, party_id: int) -> bool:
        """Tell whether somebody listens to the ends of a party's calls."""
        hearing = self._hearing
        if not hearing:
            return False
        return 0 in hearing or any(one.id in hearing for one in self._line(party_id))

    def card(self, card_id: int) -> Card | None:
        """The active version of a card, compiled."""
        return self._cards.get(card_id)

    def key(self, token_hash: bytes) -> ApiKey | None:
        """The API key whose secret has this SHA-256."""
        return self._keys.get(token_hash)

    # --- keeping up ------------------------------------------------------------------------------

    async def load(self, *, small: bool = False) -> None:
        """Read everything; a card is compiled again only if another version is active.

        ``small`` leaves out what is large and changes by announcement only: exchange rates and
        office codes.
        """
        async with self._lock, self._database.read() as connection:
            parties = await read_parties(connection)
            self._by_id = {entry.id: entry for entry in parties}
            self._by_code = {entry.code: entry for entry in parties}
            self._forget_lines()
            self._keys = await read_keys(connection)
            self._hearing = await read_hearing(connection)
            await self._load_peers(connection, unless_same=small)
            if not small:
                await self._load_fx(connection)
                self._places = await read_places(connection)
            await self._load_rates(connection)

    async def refresh(self, kind: str, id_: int) -> None:
        """Read again what was announced as changed."""
        if kind == "feed":
            self.on_feed(id_)
            return
        async with self._lock, self._database.read() as connection:
            if kind == "party":
                await self._load_party(connection, id_)
            elif kind == "meter":
                self.on_meters([id_])
            elif kind == "key":
                self._keys = await read_keys(connection)
            elif kind == "webhook":
                self._hearing = await read_hearing(connection)
            elif kind == "fx":
                await self._load_fx(connection)
            elif kind == "nanp":
                self._places = await read_places(connection)
            elif kind in PEER_NOTICES:
                await self._load_peers(connection)
            elif kind in RATE_NOTICES:
                await self._load_rates(connection)

    async def _load_fx(self, connection: Connection) -> None:
        since = datetime.now(UTC).date() - timedelta(days=KEPT_DAYS)
        self._fx = FxBook(await read_recent(connection, since))

    async def _load_peers(self, connection: Connection, *, unless_same: bool = False) -> None:
        mark = await read_mark(connection)
        if unless_same and mark == self._peers_mark:
            # Ten thousand trunks would hold up every call for a tenth of a second, twice a minute.
            return
        before = self.peers.peers
        self.peers = PeerBook(
            await read_peers(connection),
            await read_trunks(connection),
            await read_credentials(connection),
        )
        self._peers_mark = mark
        if self.peers.peers != before:
            self.on_peers()

    def _forget_lines(self) -> None:
        self._chains = {}
        self._suspended = {}

    async def _load_party(self, connection: Connection, id_: int) -> None:
        found = await read_parties(connection, [id_])
        old = self._by_id.pop(id_, None)
        if old is not None:
            self._by_code.pop(old.code, None)
        for entry in found:
            self._by_id[entry.id] = entry
            self._by_code[entry.code] = entry
            self.on_wallets(list(entry.wallets.values()))
        # Whoever is below may have another line now, too; lines are made again as they are asked for.
        self._forget_lines()
        self.on_party(id_)

    async def _load_rates(self, connection: Connection) -> None:
        versions = await active_versions(connection)
        cards: dict[int, Card] = {}
        changed = False
        for card_id, version in versions.items():
            card = self._cards.get(card_id)
            if card is None or card.version != version:
                card = await load_card(connection, card_id)
                changed = True
            if card is not None:
                cards[card_id] = card
        names = Names(
            await read_zones(connection),
            await read_profiles(connection),
            self._id_of,
        )
        rows = await read_card_rows(connection)
        plans = compile_plans(await read_plan_rows(connection), rows, cards, names)
        self._cards, self._plans = cards, plans
        if changed:
            self.on_rates()

    def _id_of(self, code: str) -> int:
        entry = self._by_code.get(code)
        return entry.id if entry is not None else 0

    def start(self) -> None:
        """Begin to listen."""
        self._task = asyncio.create_task(self._run(), name="directory")

    async def stop(self) -> None:
        """Stop listening."""
        if self._task is not None:
            await end([self._task])
            self._task = None

    async def _run(self) -> None:
        while True:
            try:
                await self._listen()
            except (psycopg.Error, Busy, OSError) as error:
                _log.warning("directory.listen_lost", error=str(error))
                await asyncio.sleep(1.0)

    async def _listen(self) -> None:
        connection = await psycopg.AsyncConnection.connect(
            self._database.url, autocommit=True, options=OPTIONS
        )
        async with connection:
            await connection.execute("LISTEN tollkeeper")
            # What changed before we listened is in this reading.
            await self.load()
            while True:
                async for notice in connection.notifies(timeout=REFRESH_SECONDS):
                    kind, _, id_ = notice.payload.partition(":")
                    if id_.isdigit():
                        await self.refresh(kind, int(id_))
                await self.load(small=True)
