"""A picture of all that decides about a record: parties and their tree, trunks, and the rates in time.

It is taken once for a stretch of time, so that all records of a part are judged alike. Which
version of a card prices a call is decided by the moment of the call: the version that was in
force then, and for calls before the first one, the first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import numpy as np
import numpy.typing as npt

from tollkeeper.bulk.book import CardSpan, RateBook
from tollkeeper.core.fx import MAX_AGE_DAYS
from tollkeeper.core.numbering import DialRules
from tollkeeper.core.trunks import Trunk, Trunks, rules_of
from tollkeeper.core.usage import DAY_MICROSECONDS
from tollkeeper.errors import NotFound
from tollkeeper.services.fx_book import FxBook
from tollkeeper.store import reference as store
from tollkeeper.store.db import Connection, Database
from tollkeeper.store.fx import read_days
from tollkeeper.store.rate_columns import read_columns
from tollkeeper.store.rates import RateCard, RateVersion, read_version
from tollkeeper.store.reference import PartyRef

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
LEVELS_MAX = 16
"""Parties between a customer and the operator; a longer chain is a mistake in the tree."""


def microseconds(moment: datetime) -> int:
    """Microseconds since 1970, exactly."""
    return (moment - EPOCH) // timedelta(microseconds=1)


def moment_of(us: int) -> datetime:
    """The UTC moment of microseconds since 1970."""
    return EPOCH + timedelta(microseconds=us)


@dataclass(frozen=True, slots=True)
class Reference:
    """What one switch's records of the time ``covers`` (microseconds, from and to) are judged by.

    ``chains`` are, by customer, the resellers above it from the nearest on. ``payers`` are, by user, the
    customer whose money it spends and whose plan prices its calls. ``plans`` are the
    numbers of plans in the book by (plan, side, service), ``versions`` ids by (card, version).
    ``live_terms`` are those (plan, side, service) whose prices only live charging can tell. ``rates`` are
    the exchange rates of that time, where more than one currency is used.
    Calls from before ``purged_us`` are not taken: their day was purged.
    """

    switch: str
    parties: Mapping[int, PartyRef]
    chains: Mapping[int, tuple[int, ...]]
    trunks: Mapping[int, Trunk]
    senders: Trunks
    receivers: Trunks
    book: RateBook
    plans: Mapping[tuple[int, str, str], int]
    live_terms: frozenset[tuple[int, str, str]]
    versions: Mapping[tuple[int, int], int]
    wallets: Wallets
    secret: bytes
    purged_us: int
    covers: tuple[int, int]
    payers: Mapping[int, int] = field(default_factory=dict)
    rates: FxBook = field(default_factory=FxBook)

    def payers_of(self, party: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Who pays for calls of these parties (0: nobody): themselves, unless they are users."""
        if not self.payers:
            return party
        table = np.arange(max(self.parties, default=0) + 1, dtype=np.int64)
        table[list(self.payers)] = list(self.payers.values())
        paying: npt.NDArray[np.int64] = table[party]
        return paying

    def rules_of(self, trunk: Trunk) -> DialRules:
        """How numbers of a trunk are written: its own rules, else its party's."""
        party = self.parties.get(trunk.party_id)
        return rules_of(trunk, party.dial_rules if party is not None else trunk.rules)

    def plan_of(self, party_id: int, side: str, service: str) -> int:
        """The place in the book of a party's plan; -1 where it has no card for the service."""
        party = self.parties.get(party_id)
        if party is None or party.plan_id is None:
            return -1
        return self.plans.get((party.plan_id, side, service), -1)

    def live_only(self, party_id: int, side: str, service: str) -> bool:
        """Tell whether a party's plan has terms for a service that only live charging applies."""
        party = self.parties.get(party_id)
        return party is not None and (party.plan_id, side, service) in self.live_terms


class Wallets:
    """Wallet ids by party and currency, as a table that whole columns are looked up in."""

    __slots__ = ("_row_of", "_table", "currencies")

    def __init__(self, parties: Mapping[int, PartyRef], currencies: Sequence[str]) -> None:
        self.currencies = tuple(currencies)
        size = max(parties, default=0) + 1
        self._row_of = np.zeros(size, dtype=np.int64)
        self._table = np.zeros((len(parties) + 1, len(self.currencies) + 1), dtype=np.int64)
        for row, (id_, party) in enumerate(parties.items(), 1):
            self._row_of[id_] = row
            for column, currency in enumerate(self.currencies):
                self._table[row, column] = party.wallets.get(currency, 0)

    def find(
        self, party: npt.NDArray[np.int64], currency: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.int64]:
        """The wallets of parties in currencies (places in the book, -1 none); 0 is none."""
        found: npt.NDArray[np.int64] = self._table[self._row_of[party], currency]
        return found


@dataclass(frozen=True, slots=True)
class RateChoice:
    """Which versions of the cards price a call.

    ``as_of_call``: the one that was in force when it began; otherwise the one in force now, for
    all calls. ``pinned`` are versions by card code that are used whatever their time.
    """

    as_of_call: bool = True
    pinned: Mapping[str, int] = field(default_factory=dict)


AS_OF_CALL = RateChoice()


async def read_reference(
    database: Database,
    switch: str,
    *,
    since: int,
    until: int,
    choice: RateChoice = AS_OF_CALL,
) -> Reference:
    """Take the picture for calls that begin from ``since`` to ``until`` (microseconds).

    Raises:
        NotFound: a pinned card or version does not exist.
    """
    async with database.read() as connection:
        parties = await store.read_parties(connection)
        trunks = await store.read_trunks(connection)
        cards_of_plan = await store.read_plan_cards(connection)
        live_terms = await store.read_live_terms(connection)
        secret = await store.read_secret(connection)
        purged = await store.read_purged_before(connection)
        cards = {card.id: card for cards in cards_of_plan.values() for card in cards}
        activations = await store.read_activations(connection, cards)
        chosen_versions = await _chosen(connection, cards, activations, choice)
        spans = await _spans(connection, cards, chosen_versions, since, until)
        several = len({card.currency for card in cards.values()}) > 1
        rates = await read_rates(connection, since, until) if several else FxBook()
    plans: dict[tuple[int, str, str], int] = {}
    chosen: dict[int, list[list[CardSpan]]] = {}
    for plan_id, found in cards_of_plan.items():
        for card in found:
            number = plans.setdefault((plan_id, card.side, card.service), len(plans))
            chosen.setdefault(number, []).append(spans[card.id])
    book = RateBook.compile(chosen)
    places = {key: book.plan_index(number) for key, number in plans.items()}
    return Reference(
        switch=switch,
        parties=parties,
        chains=chains_of(parties),
        trunks={trunk.id: trunk for trunk in trunks},
        senders=Trunks(trunks, direction="in", switch=switch),
        receivers=Trunks(trunks, direction="out", switch=switch),
        book=book,
        plans=places,
        live_terms=live_terms,
        versions={
            (card_id, version.version): version.id
            for card_id, found in activations.items()
            for version in found
        },
        wallets=Wallets(parties, book.currencies),
        secret=secret,
        purged_us=(purged - EPOCH.date()).days * DAY_MICROSECONDS,
        covers=(since, until),
        payers=payers_of(parties),
        rates=rates,
    )


async def read_rates(connection: Connection, since: int, until: int) -> FxBook:
    """The exchange rates that calls of a time (microseconds, from and to) are compared by."""
    first = moment_of(since).date() - timedelta(days=MAX_AGE_DAYS)
    return FxBook(await read_days(connection, first, moment_of(until).date()))


def payers_of(parties: Mapping[int, PartyRef]) -> dict[int, int]:
    """The nearest party above each user that is none itself; 0 for a user below nobody."""
    payers: dict[int, int] = {}
    for party in parties.values():
        payer: PartyRef | None = party
        for _ in range(LEVELS_MAX):
            if payer is None or payer.kind != "user":
                break
            payer = parties.get(payer.parent_id or 0)
        if party.kind == "user":
            payers[party.id] = payer.id if payer is not None else 0
    return payers


def chains_of(parties: Mapping[int, PartyRef]) -> dict[int, tuple[int, ...]]:
    """The resellers above each party, the nearest first; a party without any is not in it."""
    chains: dict[int, tuple[int, ...]] = {}
    for party in parties.values():
        above: list[int] = []
        parent = parties.get(party.parent_id or 0)
        while parent is not None and len(above) < LEVELS_MAX:
            if parent.kind == "reseller":
                above.append(parent.id)
            parent = parties.get(parent.parent_id or 0)
        if above:
            chains[party.id] = tuple(above)
    return chains


async def _chosen(
    connection: Connection,
    cards: Mapping[int, RateCard],
    activations: Mapping[int, Sequence[RateVersion]],
    choice: RateChoice,
) -> dict[int, list[InForce]]:
    """When which version of each card counts."""
    unknown = sorted(set(choice.pinned) - {card.code for card in cards.values()})
    if unknown:
        raise NotFound(f'no plan has a rate card "{unknown[0]}"', code="unknown_card", field="card")
    chosen: dict[int, list[InForce]] = {}
    for id_, card in cards.items():
        versions = activations.get(id_, [])
        if card.code in choice.pinned:
            number = choice.pinned[card.code]
            version = await read_version(connection, id_, number)
            if version is None:
                raise NotFound(f"{card.code} has no version {number}", code="unknown_version")
            chosen[id_] = [(version, None, None)]
        elif choice.as_of_call:
            chosen[id_] = in_force(versions)
        else:
            chosen[id_] = [
                (version, None, None) for version in versions if version.status == "active"
            ]
    return chosen


async def _spans(
    connection: Connection,
    cards: Mapping[int, RateCard],
    timelines: Mapping[int, Sequence[InForce]],
    since: int,
    until: int,
) -> dict[int, list[CardSpan]]:
    """The rows of every version that counts at some time of the stretch, by card."""
    spans: dict[int, list[CardSpan]] = {}
    for id_, card in cards.items():
        spans[id_] = []
        for version, begin, end in timelines[id_]:
            if (begin is None or begin <= until) and (end is None or end > since):
                rows = await read_columns(connection, card, version)
                spans[id_].append(CardSpan(id_, version.id, card.currency, rows, begin, end))
    return spans


InForce = tuple[RateVersion, int | None, int | None]
"""A version and the time in which it counts: from and to in microseconds, None without bound."""


def in_force(activations: Sequence[RateVersion]) -> list[InForce]:
    """When which version of a card counts: (version, from, to) in microseconds, in order of time.

    ``activations`` are in the order of their last activation. The time before the first belongs
    to the version that the first one replaced (it was activated again later, by a roll back), or
    to the first itself.
    """
    if not activations:
        return []
    begins = [microseconds(v.activated_at) for v in activations if v.activated_at is not None]
    timeline = list(zip(activations, begins, [*begins[1:], None], strict=True))
    first, begin, end = timeline[0]
    before = next((v for v in activations if v.version == first.replaced_version), None)
    if before is None:
        return [(first, None, end), *timeline[1:]]
    return [(before, None, begin), *timeline]


def day_of(us: int) -> int:
    """The number of the UTC day since 1970 that a moment in microseconds belongs to."""
    return us // DAY_MICROSECONDS
