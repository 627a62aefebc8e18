"""The directory: parties, plans, rate tables and keys in memory, as every decision needs them.

Whoever changes one of them says so with ``pg_notify('tollkeeper', 'party:7')`` in the same
transaction; every process hears it and reads the row again. A lost connection ends in a full
reading, and every half minute everything small is read again, so nothing stays unheard.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import psycopg
import structlog

from tollkeeper.core.records import Limits
from tollkeeper.core.tariff import Card
from tollkeeper.errors import Busy, NotFound
from tollkeeper.services.tasks import end
from tollkeeper.store.db import OPTIONS, Connection, Database
from tollkeeper.store.directory import ApiKey, PartyEntry, read_keys, read_parties, read_plan_cards
from tollkeeper.store.rates import active_versions, load_card

REFRESH_SECONDS = 30.0
NOBODY = Limits(suspended=True)
_log = structlog.get_logger()


class Directory:
    """A process's picture of who may call where at which price; swapped piecewise, never half-made."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._by_code: dict[str, PartyEntry] = {}
        self._by_id: dict[int, PartyEntry] = {}
        self._cards: dict[int, Card] = {}
        self._chains: dict[tuple[int, str], tuple[Card, ...]] = {}
        self._keys: dict[bytes, ApiKey] = {}
        self._task: asyncio.Task[None] | None = None
        self._lock = asyncio.Lock()
        self.on_wallets: Callable[[list[int]], None] = lambda _ids: None
        self.on_rates: Callable[[], None] = lambda: None

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

    def cards_of(self, plan_id: int, service: str) -> tuple[Card, ...]:
        """Compiled cards of a plan for a service, in the order in which they win ties."""
        return self._chains.get((plan_id, service), ())

    def card(self, card_id: int) -> Card | None:
        """The active version of a card, compiled."""
        return self._cards.get(card_id)

    def key(self, token_hash: bytes) -> ApiKey | None:
        """The API key whose secret has this SHA-256."""
        return self._keys.get(token_hash)

    # --- keeping up ------------------------------------------------------------------------------

    async def load(self) -> None:
        """Read everything; a card is compiled again only if another version is active."""
        async with self._lock, self._database.read() as connection:
            parties = await read_parties(connection)
            self._by_id = {entry.id: entry for entry in parties}
            self._by_code = {entry.code: entry for entry in parties}
            self._keys = await read_keys(connection)
            await self._load_rates(connection)

    async def refresh(self, kind: str, id_: int) -> None:
        """Read again what was announced as changed."""
        async with self._lock, self._database.read() as connection:
            if kind == "party":
                await self._load_party(connection, id_)
            elif kind == "key":
                self._keys = await read_keys(connection)
            else:
                await self._load_rates(connection)

    async def _load_party(self, connection: Connection, id_: int) -> None:
        found = await read_parties(connection, [id_])
        old = self._by_id.pop(id_, None)
        if old is not None:
            self._by_code.pop(old.code, None)
        for entry in found:
            self._by_id[entry.id] = entry
            self._by_code[entry.code] = entry
            self.on_wallets(list(entry.wallets.values()))

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
        plans = await read_plan_cards(connection)
        chains = {
            key: tuple(cards[id_] for id_ in ids if id_ in cards) for key, ids in plans.items()
        }
        self._cards, self._chains = cards, chains
        if changed:
            self.on_rates()

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
                await self.load()
