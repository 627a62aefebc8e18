"""Pricing the legs of mediated records: the customer's, the resellers' above it, and the vendor's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from tollkeeper.bulk.exchange import worth_less
from tollkeeper.bulk.kernel import BLOCKED, NO_RATE, PRICED, TOO_LARGE, Rated, rate
from tollkeeper.core.usage import DAY_MICROSECONDS, Mismatch, Quarantine
from tollkeeper.services.cdr.records import (
    Flags,
    Held,
    Ints,
    Mediated,
    Noted,
    Notes,
    distinct,
    hold,
)
from tollkeeper.services.cdr.reference import Reference, day_of, moment_of

LIVE_TERMS_TOLD = (
    "the plan of {value} has terms that only live charging applies (tiers, promotions, packages, "
    "conditions, cost-plus cards); charge its calls live, or give it a plan without them and play it again"
)


@dataclass(slots=True)
class Leg:
    """One party's share of each row; ``amount`` in 10^-8 of its currency.

    ``row`` is the row in the book's tables (-1: none), ``currency`` a number of the book's
    currencies (-1: none). Ids are 0 where there is nobody or nothing.
    """

    party: Ints
    wallet: Ints
    currency: Ints
    row: Ints
    billed: Ints
    amount: Ints
    status: npt.NDArray[np.int8]

    def take(self, keep: Flags) -> Leg:
        """Only the rows where ``keep`` is true."""
        return Leg(
            self.party[keep], self.wallet[keep], self.currency[keep], self.row[keep],
            self.billed[keep], self.amount[keep], self.status[keep],
        )  # fmt: skip


@dataclass(slots=True)
class Legs:
    """The legs of the same records: ``above`` by level from 1, None where nobody is there at all."""

    sell: Leg
    buy: Leg
    above: list[Leg]

    def take(self, keep: Flags) -> Legs:
        """Only the rows where ``keep`` is true."""
        if keep.all():
            return self
        return Legs(
            self.sell.take(keep), self.buy.take(keep), [one.take(keep) for one in self.above]
        )


def price_legs(mediated: Mediated, reference: Reference, *, threads: int = 1) -> Legs:
    """Price every leg by the rates in force when the call began; nothing is judged yet."""
    sell = price_leg(mediated, reference, mediated.customer, "sell", threads=threads)
    buy = price_leg(mediated, reference, mediated.vendor, "buy", threads=threads)
    above = []
    level = 0
    while True:
        party = _above(reference, mediated.customer, level)
        if not party.any():
            break
        above.append(price_leg(mediated, reference, party, "sell", threads=threads))
        level += 1
    return Legs(sell, buy, above)


def price_leg(
    mediated: Mediated, reference: Reference, party: Ints, side: str, *, threads: int = 1
) -> Leg:
    """Price the rows for these parties (0: nobody) by their plans of a side."""
    frame = mediated.frame
    return price_columns(
        reference,
        party,
        side,
        service=frame["service"],
        number=mediated.number,
        digits=mediated.digits,
        start=frame["start"].to_numpy(),
        duration_ms=frame["duration_ms"].to_numpy(),
        threads=threads,
    )


def price_columns(
    reference: Reference,
    party: Ints,
    side: str,
    *,
    service: pl.Series,
    number: Ints,
    digits: npt.NDArray[np.int8],
    start: Ints,
    duration_ms: Ints,
    threads: int = 1,
) -> Leg:
    """As :func:`price_leg`, from columns: ``number`` and ``digits`` as the kernel takes them.

    A user's calls are its customer's: the leg says whose plan and wallet they are charged by.
    """
    book = reference.book
    if side == "sell":
        party = reference.payers_of(party)
    plan = _plans(reference, party, service, side)
    rated: Rated = rate(book, plan, number, digits, start, duration_ms, threads=threads)
    row = rated.row.astype(np.int64)
    currency = book.row_currency[row].astype(np.int64)
    priced = rated.status == PRICED
    return Leg(
        party=party,
        wallet=np.where(priced, reference.wallets.find(party, currency), 0),
        currency=currency,
        row=row,
        billed=rated.billed.astype(np.int64),
        amount=rated.amount,
        status=np.where(plan < 0, np.int8(NO_RATE), rated.status).astype(np.int8),
    )


def _plans(
    reference: Reference, party: Ints, service: pl.Series, side: str
) -> npt.NDArray[np.int32]:
    """The place in the book of each row's plan; -1 where there is none."""
    parties, who = distinct(party)
    if not len(party):
        return np.zeros(0, dtype=np.int32)
    services = service.unique(maintain_order=True)
    what = service.replace_strict(
        services, pl.Series(range(len(services)), dtype=pl.Int64), return_dtype=pl.Int64
    ).to_numpy()
    table = np.array(
        [[reference.plan_of(int(id_), side, name) for name in services] for id_ in parties],
        dtype=np.int32,
    ).reshape(len(parties), len(services))
    found: npt.NDArray[np.int32] = table[who, what]
    return found


def _above(reference: Reference, customer: Ints, level: int) -> Ints:
    """The reseller of each customer so many levels up; 0 where there is none or it has no plan."""
    table = np.zeros(max(reference.parties, default=0) + 1, dtype=np.int64)
    for id_, chain in reference.chains.items():
        sold = [one for one in chain if reference.parties[one].plan_id is not None]
        if len(sold) > level:
            table[id_] = sold[level]
    found: Ints = table[customer]
    return found


# --- judging ---------------------------------------------------------------------------------------


def judge(
    mediated: Mediated, legs: Legs, reference: Reference, *, live: Mapping[int, frozenset[int]]
) -> tuple[Flags, list[Held]]:
    """Tell which rows can go into the books, and put the others aside.

    ``live`` are the parties by row whose legs were charged live: for these no rate is needed.
    A call that was not answered needs none either: it costs its attempt fee, or nothing. A plan
    whose prices depend on what only live charging knows prices no record: better none than a wrong one.
    """
    frame = mediated.frame
    used = frame["duration_ms"].to_numpy() > 0
    bad = np.zeros(len(frame), dtype=np.bool_)
    held: list[Held] = []
    for leg in (legs.sell, *legs.above):
        ours = leg.party > 0
        if live:
            rows = [n for n, parties in live.items() if int(leg.party[n]) in parties]
            ours[rows] = False
        who = _names(reference, leg.party)
        live_only = _live_only(reference, leg.party, frame["service"])
        for wrong, reason, detail in (
            (
                ours & live_only & (used | (leg.amount > 0)),
                Quarantine.LIVE_TERMS,
                LIVE_TERMS_TOLD,
            ),
            (
                ours & used & (leg.status == NO_RATE),
                Quarantine.NO_RATE,
                "no rate of {value} covers the number at that time; add one and play it again",
            ),
            (
                ours & used & (leg.status == BLOCKED),
                Quarantine.BLOCKED,
                "the destination is blocked for {value}, and yet the call took place",
            ),
            (
                ours & (leg.status == TOO_LARGE),
                Quarantine.BAD_DURATION,
                "at the rate of {value} the call costs more than can be booked; correct the duration or the rate",
            ),
            (
                ours & (leg.status == PRICED) & (leg.wallet == 0) & (used | (leg.amount > 0)),
                Quarantine.NO_WALLET,
                "{value} has no wallet in the currency of the rate; open one and play it again",
            ),
        ):
            new = wrong & ~bad
            if new.any():
                values = [who[int(id_)] for id_ in leg.party[new]]
                held += hold(frame, new, reason, field="called", detail=detail, values=values)
                bad |= new
    return ~bad, held


def _live_only(reference: Reference, party: Ints, service: pl.Series) -> Flags:
    """Tell of each row whether its party's plan has terms that records cannot be priced by."""
    flags: Flags = np.zeros(len(party), dtype=np.bool_)
    if not reference.live_terms:
        return flags
    for id_ in distinct(party)[0].tolist():
        named = [
            name for name in service.unique().to_list() if reference.live_only(id_, "sell", name)
        ]
        if named:
            flags |= (party == id_) & service.is_in(named).to_numpy()
    return flags


def _names(reference: Reference, party: Ints) -> dict[int, str]:
    return {
        int(id_): reference.parties[int(id_)].code if int(id_) in reference.parties else ""
        for id_ in distinct(party)[0]
    }


def settle_missing(leg: Leg) -> None:
    """Make a leg without a price, a wallet or a party one of nothing at all."""
    nothing = (leg.status != PRICED) | (leg.wallet == 0) | (leg.party == 0)
    leg.wallet[nothing] = 0
    leg.row[nothing] = -1
    leg.currency[nothing] = -1
    leg.billed[nothing] = 0
    leg.amount[nothing] = 0


def note_margins(mediated: Mediated, legs: Legs, reference: Reference, notes: Notes) -> None:
    """Report calls that no vendor's rate covers, and calls sold below their cost.

    Two currencies are compared by the exchange rate of the call's day (UTC), and not where there is none.
    """
    frame, sell, buy = mediated.frame, legs.sell, legs.buy
    used = frame["duration_ms"].to_numpy() > 0
    unpriced = used & (buy.party > 0) & ((buy.status != PRICED) | (buy.wallet == 0))
    _note(mediated, notes, Mismatch.NO_BUY_RATE, unpriced, None)
    both = (sell.currency >= 0) & (buy.currency >= 0)
    below = both & (sell.currency == buy.currency) & (sell.amount < buy.amount)
    crossed = np.flatnonzero(both & (sell.currency != buy.currency))
    if len(crossed):
        _compare_crossed(below, crossed, legs, frame["start"].to_numpy(), reference)
    names = reference.book.currencies
    _note(mediated, notes, Mismatch.NEGATIVE_MARGIN, below, (sell, buy), names)


def _compare_crossed(
    below: Flags, rows: Ints, legs: Legs, start: Ints, reference: Reference
) -> None:
    """Mark those of the rows that were sold in one currency for less than they cost in another."""
    sell, buy, names = legs.sell, legs.buy, reference.book.currencies
    size = len(names)
    days = start[rows] // DAY_MICROSECONDS
    first = int(days.min())
    pairs = sell.currency[rows] * size + buy.currency[rows]
    groups, which = distinct((days - first) * size**2 + pairs)
    for place, group in enumerate(groups.tolist()):
        day, pair = divmod(group, size**2)
        sold, bought = divmod(pair, size)
        exchange = reference.rates.exchange(moment_of((first + day) * DAY_MICROSECONDS).date())
        rate = exchange(names[sold], names[bought])
        if rate is not None:
            here = rows[which == place]
            below[here] = worth_less(sell.amount[here], buy.amount[here], rate.rate)


def _note(
    mediated: Mediated,
    notes: Notes,
    kind: Mismatch,
    where: Flags,
    money: tuple[Leg, Leg] | None,
    currencies: Sequence[str] = (),
) -> None:
    rows = np.flatnonzero(where)
    if not len(rows):
        return
    frame = mediated.frame
    line, call_id, start = frame["line"], frame["call_id"], frame["start"]
    for n in rows[: notes.room(kind, len(rows))].tolist():
        sold, bought = ("", "") if money is None else (text_of(int(leg.amount[n])) for leg in money)
        detail = f"to {mediated.called[n]}"
        if money is not None and money[0].currency[n] != money[1].currency[n]:
            names = [currencies[int(leg.currency[n])] for leg in money]
            detail += f", sold in {names[0]} and bought in {names[1]}"
        notes.listed.append(
            Noted(
                line=line[n],
                kind=kind,
                day=day_of(start[n]),
                call_id=call_id[n],
                customer_id=int(mediated.customer[n]),
                vendor_id=int(mediated.vendor[n]),
                expected=bought,
                found=sold,
                detail=detail,
            )
        )


def text_of(units: int) -> str:
    """An amount in 10^-8 as a plain decimal number."""
    whole, rest = divmod(abs(units), 10**8)
    return f"{'-' if units < 0 else ''}{whole}.{rest:08d}"
