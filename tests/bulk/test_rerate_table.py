"""Records priced anew in columns cost what the core says, one by one."""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from tests.bulk.cards import T0, Call, Core, tariffs
from tollkeeper.bulk.book import CardSpan, RateBook, micros
from tollkeeper.bulk.rerate import (
    COLUMNS,
    LEGS,
    RESOLD,
    REVISED,
    Beside,
    Partial,
    Prices,
    Wanted,
    merge,
    rerate_table,
)
from tollkeeper.bulk.tariffs import PRICED
from tollkeeper.core.rating import Tariff
from tollkeeper.core.tariff import RateRow

D = Decimal
ALL = Wanted(micros(T0) - 10**12, micros(T0) + 10**12)
WALLETS = {(1, "USD"): 11, (2, "USD"): 12, (2, "EUR"): 22, (3, "USD"): 13, (7, "EUR"): 27}
KEYS = [(p, side, s) for p in (1, 2, 3) for side in ("sell", "buy") for s in ("voice", "sms")]

TYPES: dict[str, pa.DataType] = {
    **dict.fromkeys(COLUMNS, pa.int64()),
    **dict.fromkeys(("called", "service", "state", "destination"), pa.string()),
    **dict.fromkeys(("charge", "cost"), pa.decimal128(28, 8)),
    "start_at": pa.timestamp("us", tz="UTC"),
}


@dataclass(frozen=True)
class Record:
    """An archived record, as far as it matters."""

    batch_id: int
    line: int
    start_at: datetime
    duration_ms: int
    called: str
    service: str
    customer_id: int
    vendor_id: int
    state: str
    destination: str
    sell_wallet: int
    charge: Decimal
    buy_wallet: int
    cost: Decimal


def table_of(records: Sequence[Record]) -> pa.Table:
    """Records as they stand in the archive."""
    return pa.table(
        {name: pa.array([getattr(r, name) for r in records], TYPES[name]) for name in COLUMNS}
    )


money = st.one_of(st.just(D(0)), st.decimals(0, 100, places=8))
parties = st.sampled_from([0, 1, 2, 3, 7, 99])
numbers = st.text("01", max_size=5)


@st.composite
def days(draw: st.DrawFn) -> list[Record]:
    """Some records of a day, in two batches."""
    return [
        Record(
            batch_id=draw(st.sampled_from([5, 6])),
            line=line,
            start_at=T0 + timedelta(hours=draw(st.integers(-30, 30))),
            duration_ms=draw(st.integers(0, 300_000)),
            called=draw(numbers),
            service=draw(st.sampled_from(["voice", "sms", "fax"])),
            customer_id=draw(parties),
            vendor_id=draw(parties),
            state=draw(st.sampled_from(["rated", "matched"])),
            destination=draw(st.sampled_from(["here", "there"])),
            sell_wallet=draw(st.sampled_from([0, 11, 12])),
            charge=draw(money),
            buy_wallet=draw(st.sampled_from([0, 13])),
            cost=draw(money),
        )
        for line in range(draw(st.integers(0, 12)))
    ]


@st.composite
def cards(draw: st.DrawFn) -> list[list[CardSpan]]:
    """Two cards with a row or more each; some rows are blocked."""
    return [
        [
            CardSpan(
                card, card * 10, draw(st.sampled_from(["USD", "EUR"])),
                [
                    RateRow(prefix, f"to {prefix}", draw(tariffs()), blocked=draw(st.booleans()), row_id=n)
                    for n, prefix in enumerate(sorted(draw(st.sets(st.text("01", max_size=3), max_size=4))), 1)
                ],
            )
        ]
        for card in (1, 2)
    ]  # fmt: skip


@dataclass(frozen=True)
class Revision:
    """What was made of a leg afterwards."""

    leg: int
    wallet_id: int
    destination: str
    amount: Decimal
    state: str | None


revisions = st.builds(
    Revision, st.sampled_from([0, 1]), st.sampled_from([11, 12, 13]), st.sampled_from(["here", "there"]),
    money, st.sampled_from([None, "matched"]),
)  # fmt: skip


@dataclass(frozen=True)
class Resold:
    """A reseller's leg."""

    level: int
    party_id: int
    wallet_id: int
    amount: Decimal


resales = st.builds(Resold, st.sampled_from([1, 2]), st.sampled_from([1, 2]), st.just(11), money)


def units(amount: Decimal) -> int:
    return int(amount.scaleb(8))


def beside_of(
    revised: Mapping[int, Revision], resold: Mapping[int, Resold], records: Sequence[Record]
) -> Beside:
    """The same as tables."""
    batch = {r.line: r.batch_id for r in records}
    rows = [
        {"batch_id": batch[line], "line": line, "leg": r.leg, "wallet_id": r.wallet_id,
         "destination": r.destination, "amount": units(r.amount), "state": r.state}
        for line, r in revised.items()
    ]  # fmt: skip
    legs = [
        {"batch_id": batch[line], "line": line, "level": r.level, "party_id": r.party_id,
         "wallet_id": r.wallet_id, "amount": units(r.amount)}
        for line, r in resold.items()
    ]  # fmt: skip
    return Beside(
        [5], pa.Table.from_pylist(rows, schema=REVISED), pa.Table.from_pylist(legs, schema=RESOLD)
    )


class Naive:
    """The same rules, record by record."""

    def __init__(
        self, plans: Mapping[int, list[list[CardSpan]]], bought: Mapping[Any, int]
    ) -> None:
        self.core, self.bought = Core(plans), bought
        self.versions = {
            span.version_id: span for cards in plans.values() for c in cards for span in c
        }

    def leg(self, r: Record, leg: int, side: str, party: int, wallet: int, was: Decimal, *, ours: bool) -> dict[str, Any]:  # fmt: skip
        """What a leg of a record costs."""
        plan = self.bought.get((party, "buy" if side == "buy" else "sell", r.service), -1)
        answer = self.core.answer(Call(plan, r.called, r.start_at, r.duration_ms))
        span = self.versions.get(answer.version_id)
        row = None if span is None else span.rows[answer.row_no - 1]
        pays = 0 if span is None else WALLETS.get((party, span.currency), 0)
        priced = answer.status == PRICED and pays > 0 and ours
        amount = D(answer.amount).scaleb(-8)
        changed = priced and (amount, pays) != (was, wallet) and not amount == was == 0
        outcome = "same" if ours else "live"
        if changed:
            outcome = "changed"
        elif ours and not priced and was:
            outcome = "unpriced"
        return {
            "batch_id": r.batch_id, "line": r.line, "leg": leg, "side": side, "party_id": party,
            "outcome": outcome, "old_wallet": wallet, "wallet_id": pays if changed else wallet,
            "was": was, "amount": amount if changed else was, "version_id": answer.version_id,
            "row_no": answer.row_no, "prefix": "" if row is None else row.prefix,
            "destination": "" if row is None else row.destination,
            "currency": "" if span is None else span.currency, "billed": answer.billed,
        }  # fmt: skip


def present(record: Record, revision: Revision | None) -> Record:
    """A record with what counts now."""
    if revision is None:
        return record
    if revision.leg == 1:
        return replace(record, buy_wallet=revision.wallet_id, cost=revision.amount)
    return replace(
        record, sell_wallet=revision.wallet_id, charge=revision.amount,
        destination=revision.destination, state=revision.state or record.state,
    )  # fmt: skip


def legs_of(naive: Naive, record: Record, resold: Resold | None) -> list[dict[str, Any]]:
    """The legs of one record."""
    r = record
    rated = r.state == "rated"
    found = [
        naive.leg(r, 0, "sell", r.customer_id, r.sell_wallet, r.charge, ours=rated),
        naive.leg(r, 1, "buy", r.vendor_id, r.buy_wallet, r.cost, ours=True),
    ]
    if resold is not None:
        more = (resold.party_id, resold.wallet_id, resold.amount)
        found.append(naive.leg(r, resold.level + 1, "resell", *more, ours=True))
    return [leg for leg in found if leg["party_id"] > 0]


def order(leg: Mapping[str, Any]) -> tuple[int, int]:
    return leg["line"], leg["leg"]


@given(
    st.data(), cards(), days(), st.dictionaries(st.integers(0, 11), revisions, max_size=6),
    st.dictionaries(st.integers(0, 11), resales, max_size=6),
)  # fmt: skip
def test_every_leg_costs_what_the_core_says(
    data: st.DataObject,
    made: list[list[CardSpan]],
    records: list[Record],
    revised: dict[int, Revision],
    resold: dict[int, Resold],
) -> None:
    """Legs, counts and sums; unpriced and live ones keep what they cost."""
    plans = {1: [made[0]], 2: made}
    bought = {key: data.draw(st.sampled_from([1, 2])) for key in KEYS}
    wanted = replace(
        ALL,
        since=data.draw(st.sampled_from([ALL.since, micros(T0)])),
        customer=data.draw(st.sampled_from([None, 1])),
        vendor=data.draw(st.sampled_from([None, 2])),
        called=data.draw(st.sampled_from([None, "", "1"])),
        destination=data.draw(st.sampled_from([None, "here"])),
    )
    revised = {line: r for line, r in revised.items() if line < len(records)}
    resold = {line: r for line, r in resold.items() if line < len(records)}
    book = RateBook.compile(plans)
    prices = Prices.of(book, {key: book.plan_index(plan) for key, plan in bought.items()}, WALLETS)
    rerated = rerate_table(
        table_of(records), pickle.loads(pickle.dumps(prices)), wanted, beside_of(revised, resold, records)
    )  # fmt: skip

    naive = Naive(plans, bought)
    chosen = [
        now
        for now in (present(r, revised.get(r.line)) for r in records)
        if now.batch_id == 5
        and micros(now.start_at) >= wanted.since
        and wanted.customer in {None, now.customer_id}
        and wanted.vendor in {None, now.vendor_id}
        and now.called.startswith(wanted.called or "")
        and wanted.destination in {None, now.destination}
    ]
    legs = [leg for r in chosen for leg in legs_of(naive, r, resold.get(r.line))]
    found = rerated.legs()
    assert found.schema == LEGS
    assert sorted(found.to_pylist(), key=order) == sorted(legs, key=order)

    sums: dict[Any, tuple[int, int, int]] = {}
    for leg in legs:
        if leg["outcome"] == "changed":
            key = (leg["side"], leg["party_id"], leg["destination"], leg["currency"])
            n, was, amount = sums.get(key, (0, 0, 0))
            sums[key] = (n + 1, was + units(leg["was"]), amount + units(leg["amount"]))
    assert rerated.partial == Partial(
        records=len(chosen),
        changed=len(
            {leg["line"] for leg in legs if leg["outcome"] == "changed" and leg["leg"] < 2}
        ),
        unpriced=sum(leg["outcome"] == "unpriced" for leg in legs),
        live=sum(r.state != "rated" for r in chosen),
        sums=sums,
    )


# --- corners -------------------------------------------------------------------------------------

FLAT = [RateRow("", "everywhere", Tariff(D("0.6"), D("0.6"), 1, 1), row_id=1)]
ONE = Record(
    5, 1, datetime(2026, 3, 1, 12, tzinfo=UTC), 60_000, "44", "voice", 1, 2, "rated", "here", 11, D("0.5"), 12, D("0.6"),
)  # fmt: skip


def flat() -> Prices:
    """Everybody pays 0.60 a minute."""
    book = RateBook.compile({1: [[CardSpan(1, 10, "USD", FLAT)]]})
    return Prices.of(book, dict.fromkeys(KEYS, book.plan_index(1)), WALLETS)


def test_parts_of_a_table_add_up_to_the_whole_in_any_order() -> None:
    """Which is why it is of no matter who works out what."""
    records = [replace(ONE, line=n, charge=D(n) / 10) for n in range(20)]
    table, prices = table_of(records), flat()
    whole = rerate_table(table, prices, ALL)
    parts = [rerate_table(table.slice(n, 3), prices, ALL) for n in range(0, 20, 3)]
    assert merge(part.partial for part in parts) == whole.partial
    assert merge(part.partial for part in parts[::-1]) == whole.partial
    assert (
        pa.concat_tables(p.legs() for p in parts)
        .sort_by("line")
        .sort_by("leg")
        .equals(whole.legs().sort_by("line").sort_by("leg"))
    )


def test_sums_beyond_64_bits_are_exact() -> None:
    """A sum that wraps around would be a wrong one that nobody sees."""
    large = D(90_000_000_000)
    rerated = rerate_table(table_of([replace(ONE, charge=large)] * 30), flat(), ALL)
    assert rerated.partial.sums["sell", 1, "everywhere", "USD"] == (
        30, 30 * units(large), 30 * units(D("0.6")),
    )  # fmt: skip


def test_a_reseller_on_two_levels_is_summed_once_for_each() -> None:
    """Above one customer directly, above another through somebody else."""
    legs = [
        {"batch_id": 5, "line": line, "level": line, "party_id": 3, "wallet_id": 13, "amount": units(D("0.1"))}
        for line in (1, 2)
    ]  # fmt: skip
    beside = Beside(resold=pa.Table.from_pylist(legs, schema=RESOLD))
    rerated = rerate_table(table_of([ONE, replace(ONE, line=2)]), flat(), ALL, beside)
    assert rerated.partial.sums["resell", 3, "everywhere", "USD"] == (
        2, units(D("0.2")), units(D("1.2")),
    )  # fmt: skip


def test_no_records_are_no_change() -> None:
    """An empty piece is one like any other."""
    rerated = rerate_table(table_of([]), flat(), ALL)
    assert rerated.partial == Partial()
    assert rerated.legs() == LEGS.empty_table()
