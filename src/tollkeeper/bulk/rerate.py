"""Archived records priced anew: Arrow in, and out what each leg costs now and would cost.

This is the arithmetic of a re-rating alone, so that it runs wherever the records are: in one
process or on many machines. All that it needs beside the records fits into a :class:`Prices`,
which is sent to each worker once, and the :class:`Beside` of a day.

The rules: a leg without a price keeps what it cost; a record whose customer was charged live
keeps its customer's leg; what a re-rating before has changed counts as it stands.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from tollkeeper.bulk.book import RateBook
from tollkeeper.bulk.kernel import PRICED, decimals, rate
from tollkeeper.bulk.numbers import align_column
from tollkeeper.core.usage import State

__all__ = [
    "COLUMNS",
    "LEGS",
    "RESOLD",
    "REVISED",
    "Beside",
    "Partial",
    "Prices",
    "Rerated",
    "Wanted",
    "merge",
    "rerate_table",
]

COLUMNS = (
    "batch_id", "line", "start_at", "duration_ms", "called", "service", "customer_id", "vendor_id",
    "state", "destination", "sell_wallet", "charge", "buy_wallet", "cost",
)  # fmt: skip
"""The columns that are read: those of archived records, or the same with ``start_at`` as int64
microseconds, ``charge`` and ``cost`` as int64 of 10^-8."""

_INT = pa.int64()
_MONEY = pa.decimal128(28, 8)

REVISED = pa.schema(
    [
        ("batch_id", _INT), ("line", _INT), ("leg", _INT), ("wallet_id", _INT),
        ("destination", pa.string()), ("amount", _INT), ("state", pa.string()),
    ]
)  # fmt: skip
"""What was made of legs afterwards and still counts: leg 0 is the customer's, 1 the vendor's; 10^-8.

``state`` is null unless it is another one than the record's.
"""

RESOLD = pa.schema(
    [("batch_id", _INT), ("line", _INT), ("level", _INT), ("party_id", _INT), ("wallet_id", _INT), ("amount", _INT)]
)  # fmt: skip
"""Legs of resellers at their present value, in 10^-8; level 1 is the customer's own."""

LEGS = pa.schema(
    [
        ("batch_id", _INT), ("line", _INT), ("leg", pa.int16()), ("side", pa.string()),
        ("party_id", _INT), ("outcome", pa.string()), ("old_wallet", _INT), ("wallet_id", _INT),
        ("was", _MONEY), ("amount", _MONEY), ("version_id", _INT), ("row_no", pa.int32()),
        ("prefix", pa.string()), ("destination", pa.string()), ("currency", pa.string()),
        ("billed", pa.int32()),
    ]
)  # fmt: skip
"""A leg of a record: what it costs now (``was``) and would cost (``amount``).

``leg`` 0 is the customer's (side sell), 1 the vendor's (buy), 2 and more the resellers' (resell).
``outcome`` is changed, same, unpriced (no rate or no wallet: it keeps what it cost) or live (it was
charged live and is kept). ``version_id`` to ``billed`` tell the row that was found; 0 and "" without.
"""

SELL, BUY, RESELL = "sell", "buy", "resell"
Key = tuple[str, int, str, str]
"""Side, party, destination and currency."""


@dataclass(frozen=True, slots=True)
class Prices:
    """The rates, who buys and sells by which of them, and who pays from which wallet.

    ``place`` is int32[largest party id + 1], the line of each party in the tables (0: nobody);
    ``plans`` int32[2, lines, services + 1], plans of the book by sell (0) and buy (1), -1 none;
    ``wallets`` int64[lines, currencies of the book + 1], 0 none. The last service and the last
    currency are those that nobody knows.
    """

    book: RateBook
    services: tuple[str, ...]
    place: NDArray[np.int32]
    plans: NDArray[np.int32]
    wallets: NDArray[np.int64]

    @classmethod
    def of(
        cls,
        book: RateBook,
        plans: Mapping[tuple[int, str, str], int],
        wallets: Mapping[tuple[int, str], int],
    ) -> Prices:
        """Make the tables: book plans by (party, side, service), wallets by (party, currency)."""
        parties = sorted({party for party, *_ in plans} | {party for party, _ in wallets})
        services = sorted({service for *_, service in plans})
        place = np.zeros(max(parties, default=0) + 1, np.int32)
        place[parties] = np.arange(1, len(parties) + 1)
        plan_table = np.full((2, len(parties) + 1, len(services) + 1), -1, np.int32)
        for (party, side, service), plan in plans.items():
            plan_table[int(side == BUY), place[party], services.index(service)] = plan
        wallet_table = np.zeros((len(parties) + 1, len(book.currencies) + 1), np.int64)
        for (party, currency), wallet in wallets.items():
            if currency in book.currencies:
                wallet_table[place[party], book.currencies.index(currency)] = wallet
        return cls(book, tuple(services), place, plan_table, wallet_table)

    def lines(self, party: NDArray[np.int64]) -> NDArray[np.int32]:
        """The lines of parties in the tables."""
        known = np.where((party >= 0) & (party < len(self.place)), party, 0)
        found: NDArray[np.int32] = self.place[known]
        return found


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which records: calls that began in [since, until) microseconds; None is any.

    ``called`` is what the called number begins with, ``destination`` the name that counts now.
    """

    since: int
    until: int
    customer: int | None = None
    vendor: int | None = None
    called: str | None = None
    destination: str | None = None


@dataclass(frozen=True, slots=True)
class Beside:
    """What is known of a day's records elsewhere.

    ``batches`` are those whose records count, None: all. ``revised`` has the columns of
    :data:`REVISED`, ``resold`` those of :data:`RESOLD`.
    """

    batches: Sequence[int] | None = None
    revised: pa.Table = field(default_factory=REVISED.empty_table)
    resold: pa.Table = field(default_factory=RESOLD.empty_table)


@dataclass(frozen=True, slots=True)
class Partial:
    """What some of the records add up to.

    ``changed`` are records of which the customer's or the vendor's leg costs something else,
    ``unpriced`` legs that have no rate now, ``live`` records that were charged live. ``sums`` are
    of the changed legs: (legs, was, amount), money in 10^-8.
    """

    records: int = 0
    changed: int = 0
    unpriced: int = 0
    live: int = 0
    sums: Mapping[Key, tuple[int, int, int]] = field(default_factory=dict)


def merge(partials: Iterable[Partial]) -> Partial:
    """Add up; the order is of no matter."""
    records = changed = unpriced = live = 0
    sums: dict[Key, tuple[int, int, int]] = {}
    for one in partials:
        records, changed = records + one.records, changed + one.changed
        unpriced, live = unpriced + one.unpriced, live + one.live
        for key, (legs, was, amount) in one.sums.items():
            before = sums.get(key, (0, 0, 0))
            sums[key] = (before[0] + legs, before[1] + was, before[2] + amount)
    return Partial(records, changed, unpriced, live, sums)


@dataclass(frozen=True, slots=True)
class Rerated:
    """Records with their legs priced anew."""

    partial: Partial
    _book: RateBook
    _legs: tuple[_Leg, ...]

    def legs(self) -> pa.Table:
        """Every leg that somebody has, a table of :data:`LEGS`: sell, then buy, then resell."""
        tables = [leg.table(self._book) for leg in self._legs]
        return pa.concat_tables(tables) if tables else LEGS.empty_table()


def rerate_table(
    table: pa.Table,
    prices: Prices,
    wanted: Wanted,
    beside: Beside | None = None,
    *,
    threads: int = 1,
) -> Rerated:
    """Price the wanted records of ``table`` anew, which has at least the columns :data:`COLUMNS`.

    Raises:
        polars.exceptions.InvalidOperationError: an amount that does not fit into 64 bits.
    """
    beside = Beside() if beside is None else beside
    frame = _chosen(_records(table), wanted, beside)
    if frame.is_empty():
        return Rerated(Partial(), prices.book, ())
    rated = (frame["state"] == State.RATED.value).to_numpy()
    all_ = np.ones(len(frame), np.bool_)
    sell = _price(frame, prices, 0, SELL, ("customer_id", "sell_wallet", "charge"), rated, threads)
    buy = _price(frame, prices, 1, BUY, ("vendor_id", "buy_wallet", "cost"), all_, threads)
    legs = [sell, buy]
    if beside.resold.num_rows:
        legs += _resold(frame, prices, beside.resold, threads)
    partial = Partial(
        records=len(frame),
        changed=int((sell.changed | buy.changed).sum()),
        unpriced=sum(int(leg.unpriced.sum()) for leg in legs),
        live=int((~rated).sum()),
    )
    # A reseller may stand on several levels: the sums of the legs are added, not put together.
    summed = (Partial(sums=leg.sums(prices.book)) for leg in legs)
    return Rerated(merge([partial, *summed]), prices.book, tuple(legs))


def _records(table: pa.Table) -> pl.DataFrame:
    """The columns that are needed: times in microseconds, money in 10^-8."""
    frame = pl.DataFrame(pl.from_arrow(table.select(COLUMNS)))
    if frame["start_at"].dtype != pl.Int64:
        start = frame["start_at"].dt.cast_time_unit("us").cast(pl.Int64)
        # The integers within decimals of eight places.
        money = [frame[name].to_physical().cast(pl.Int64) for name in ("charge", "cost")]
        frame = frame.with_columns(start, *money)
    return frame


def _chosen(frame: pl.DataFrame, wanted: Wanted, beside: Beside) -> pl.DataFrame:
    """The wanted records at their present value."""
    keep = [pl.col("start_at") >= wanted.since, pl.col("start_at") < wanted.until]
    if beside.batches is not None:
        keep.append(pl.col("batch_id").is_in(list(beside.batches)))
    if wanted.customer is not None:
        keep.append(pl.col("customer_id") == wanted.customer)
    if wanted.vendor is not None:
        keep.append(pl.col("vendor_id") == wanted.vendor)
    if wanted.called is not None:
        keep.append(pl.col("called").str.starts_with(wanted.called))
    frame = frame.filter(keep)
    if beside.revised.num_rows:
        revised = pl.DataFrame(pl.from_arrow(beside.revised))
        sell = {"wallet_id": "sell_wallet", "amount": "charge"}
        sell |= {"destination": "destination", "state": "state"}
        frame = _revised(frame, revised, 0, sell)
        frame = _revised(frame, revised, 1, {"wallet_id": "buy_wallet", "amount": "cost"})
    if wanted.destination is not None:
        frame = frame.filter(pl.col("destination") == wanted.destination)
    return frame


def _revised(
    frame: pl.DataFrame, revised: pl.DataFrame, leg: int, names: Mapping[str, str]
) -> pl.DataFrame:
    """Put what a revision of a leg says in the place of what the record says."""
    own = revised.filter(pl.col("leg") == leg).select(
        "batch_id", "line", *(pl.col(new).alias(f"_{old}") for new, old in names.items())
    )
    joined = frame.join(own, on=["batch_id", "line"], how="left", maintain_order="left")
    return joined.with_columns(
        pl.coalesce(f"_{old}", old).alias(old) for old in names.values()
    ).drop(f"_{old}" for old in names.values())


# --- legs ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Leg:
    """One leg of each row; the arrays are of one length."""

    leg: int
    side: str
    batch: NDArray[np.int64]
    line: NDArray[np.int64]
    party: NDArray[np.int64]
    old_wallet: NDArray[np.int64]
    wallet: NDArray[np.int64]
    was: NDArray[np.int64]
    amount: NDArray[np.int64]
    row: NDArray[np.int32]
    billed: NDArray[np.int32]
    changed: NDArray[np.bool_]
    unpriced: NDArray[np.bool_]
    live: NDArray[np.bool_]

    def sums(self, book: RateBook) -> dict[Key, tuple[int, int, int]]:
        """What the changed rows add up to, by what they are shown by."""
        row = self.row[self.changed]
        names = pl.Series([*book.currencies, ""], dtype=pl.String)
        grouped = (
            pl.DataFrame(
                {
                    "party": self.party[self.changed],
                    "destination": book.row_destination.gather(row),
                    "currency": names.gather(book.row_currency[row]),
                    "was": self.was[self.changed],
                    "amount": self.amount[self.changed],
                }
            )
            .group_by("party", "destination", "currency")
            # In 128 bits: a sum of 64 bits would wrap around, and not say so.
            .agg(pl.len(), pl.col("was", "amount").cast(pl.Int128).sum())
        )
        return {
            (self.side, party, destination, currency): (legs, was, amount)
            for party, destination, currency, legs, was, amount in grouped.iter_rows()
        }

    def table(self, book: RateBook) -> pa.Table:
        """The rows that somebody has."""
        there = np.flatnonzero(self.party > 0)
        outcome = np.where(self.live, 3, np.where(self.changed, 1, np.where(self.unpriced, 2, 0)))[
            there
        ]
        outcomes = pl.Series(["same", "changed", "unpriced", "live"], dtype=pl.String)
        found = book.describe(self.row[there])
        columns = {
            "batch_id": self.batch[there], "line": self.line[there],
            "leg": np.full(len(there), self.leg, np.int16),
            "side": pa.repeat(pa.scalar(self.side, pa.string()), len(there)),
            "party_id": self.party[there], "outcome": outcomes.gather(outcome).to_arrow(),
            "old_wallet": self.old_wallet[there], "wallet_id": self.wallet[there],
            "was": decimals(self.was[there]), "amount": decimals(self.amount[there]),
            "billed": self.billed[there],
            **{name: found[name].to_arrow() for name in ("version_id", "row_no", "prefix", "destination", "currency")},
        }  # fmt: skip
        return pa.table({name: columns[name] for name in LEGS.names}).cast(LEGS)


def _price(
    frame: pl.DataFrame,
    prices: Prices,
    leg: int,
    side: str,
    names: tuple[str, str, str],
    ours: NDArray[np.bool_],
    threads: int,
) -> _Leg:
    """What a leg of each row is from now on; the old where it has no price any more.

    ``names`` are the columns of its party, its wallet and its amount; rows that are not ``ours``
    stay as they are.
    """
    party, old_wallet, was = (frame[name].to_numpy() for name in names)
    line = prices.lines(party)
    known = pl.Series(prices.services, dtype=pl.String)
    service = frame["service"].replace_strict(
        known, np.arange(len(known)), default=len(known), return_dtype=pl.Int64
    )
    plan = prices.plans[int(side == BUY), line, service.to_numpy()]
    number, digits, _ = align_column(frame["called"])
    start, duration = frame["start_at"].to_numpy(), frame["duration_ms"].to_numpy()
    rated = rate(prices.book, plan, number, digits, start, duration, threads)
    wallet = prices.wallets[line, prices.book.row_currency[rated.row]]
    priced = (rated.status == PRICED) & (wallet > 0) & ours
    changed = (
        priced
        & ((rated.amount != was) | (wallet != old_wallet))
        & ~((rated.amount == 0) & (was == 0))
    )
    return _Leg(
        leg=leg,
        side=side,
        batch=frame["batch_id"].to_numpy(),
        line=frame["line"].to_numpy(),
        party=party,
        old_wallet=old_wallet,
        wallet=np.where(changed, wallet, old_wallet),
        was=was,
        amount=np.where(changed, rated.amount, was),
        row=rated.row,
        billed=rated.billed,
        changed=changed,
        unpriced=ours & ~priced & (party > 0) & (was != 0),
        live=~ours,
    )


def _resold(frame: pl.DataFrame, prices: Prices, resold: pa.Table, threads: int) -> list[_Leg]:
    """The resellers' legs of these records, level by level."""
    chosen = pl.DataFrame(pl.from_arrow(resold)).join(
        frame.select("batch_id", "line", "called", "service", "start_at", "duration_ms"),
        on=["batch_id", "line"],
        how="inner",
        maintain_order="right",
    )
    names = ("party_id", "wallet_id", "amount")
    return [
        _price(part, prices, int(level) + 1, RESELL, names, np.ones(len(part), np.bool_), threads)
        for (level,), part in sorted(
            chosen.partition_by("level", as_dict=True, maintain_order=True).items()
        )
    ]
