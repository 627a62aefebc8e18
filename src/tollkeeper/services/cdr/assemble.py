"""From judged and priced rows to what is written: records, resellers' legs, hourly sums, money."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

import numpy as np
import polars as pl

from tollkeeper.bulk.book import RateBook
from tollkeeper.core.ledger import Code
from tollkeeper.core.rating import billed_seconds, seconds_of
from tollkeeper.core.usage import EFFECTIVE_Q850, EFFECTIVE_SIP, State
from tollkeeper.services.cdr.legs import Leg, Legs
from tollkeeper.services.cdr.match import Matched
from tollkeeper.services.cdr.records import Ints, Mediated
from tollkeeper.services.cdr.reference import Reference

UNITS = 10**8
DAY_US = 86_400_000_000
HOUR_US = 3_600_000_000


@dataclass(frozen=True, slots=True)
class Revision:
    """What a leg of a record costs from now on; leg 0 is the customer's, 1 the vendor's."""

    row: int
    leg: int
    wallet_id: int
    amount: Decimal
    was: Decimal


@dataclass(slots=True)
class Assembled:
    """A part as it will be written.

    ``usage`` has the columns of the table, ``legs`` those of usage_leg, ``hours`` those of
    usage_hour but their batch; money is int64 of 10^-8. ``sums`` are (wallet, code, amount).
    """

    usage: pl.DataFrame
    legs: pl.DataFrame
    hours: pl.DataFrame
    sums: list[tuple[int, Code, Decimal]]
    revisions: list[Revision]


@dataclass(slots=True)
class _Sell:
    """The customer's side of each row, live and priced here together."""

    wallet: Ints
    version: Ints
    row_no: Ints
    prefix: pl.Series
    destination: pl.Series
    currency: pl.Series
    billed: Ints
    amount: Ints
    state: pl.Series
    session_id: pl.Series
    revenue: Ints


def assemble(
    mediated: Mediated, legs: Legs, matched: Mapping[int, Matched], reference: Reference
) -> Assembled:
    """Put all columns of the part together."""
    book = reference.book
    sell, revisions = _sell_side(legs.sell, matched, reference)
    bought = book.describe(legs.buy.row.astype(np.int32))
    usage = _usage(mediated, sell, legs.buy, bought)
    above = [
        _reseller_legs(usage, leg, level, book)
        for level, leg in enumerate(_live_out(legs, matched), 1)
    ]
    hours = _hours(usage, mediated, sell, bought["currency"], legs.buy)
    return Assembled(
        usage=usage,
        legs=pl.concat(above) if above else pl.DataFrame(),
        hours=hours,
        sums=list(_sums(usage, above, revisions)),
        revisions=revisions,
    )


def money(units: int) -> Decimal:
    """An amount in 10^-8 as a Decimal."""
    return Decimal(int(units)).scaleb(-8)


def units(amount: Decimal) -> int:
    """A Decimal of at most 8 decimals as an amount in 10^-8."""
    return int(amount.scaleb(8))


def _sell_side(
    leg: Leg, matched: Mapping[int, Matched], reference: Reference
) -> tuple[_Sell, list[Revision]]:
    """The customer's leg of each row; where it was charged live, as the session says."""
    described = reference.book.describe(leg.row.astype(np.int32))
    sell = _Sell(
        wallet=leg.wallet.copy(),
        version=described["version_id"].to_numpy().copy(),
        row_no=described["row_no"].to_numpy().copy(),
        prefix=described["prefix"],
        destination=described["destination"],
        currency=described["currency"],
        billed=leg.billed.copy(),
        amount=leg.amount.copy(),
        state=pl.Series("state", [State.RATED.value]).new_from_index(0, len(leg.row)),
        session_id=pl.Series("session_id", [None], dtype=pl.String).new_from_index(0, len(leg.row)),
        revenue=leg.amount.copy(),
    )
    revisions: list[Revision] = []
    if not matched:
        return sell, revisions
    rows = list(matched)
    texts: dict[str, list[str]] = {"prefix": [], "destination": [], "currency": []}
    for n, match in matched.items():
        paid = match.leg
        pin = None if paid is None else paid.pin
        used = seconds_of(max(match.session.used_ms, match.session.assumed_ms))
        sell.wallet[n] = 0 if paid is None else paid.wallet_id
        sell.version[n] = (
            0 if pin is None else reference.versions.get((pin.card_id, pin.version), 0)
        )
        sell.row_no[n] = 0 if pin is None else pin.row_id
        sell.billed[n] = 0 if pin is None else billed_seconds(pin.tariff, used)
        sell.amount[n] = sell.revenue[n] = 0 if paid is None else units(paid.charged)
        texts["prefix"].append("" if pin is None else pin.prefix)
        texts["destination"].append("" if pin is None else pin.destination)
        texts["currency"].append("" if pin is None else pin.currency)
        if match.correction is not None and paid is not None:
            was, now = match.correction
            sell.revenue[n] = units(now)
            revisions.append(Revision(n, 0, paid.wallet_id, now, was))
    sell.prefix = sell.prefix.scatter(rows, texts["prefix"])
    sell.destination = sell.destination.scatter(rows, texts["destination"])
    sell.currency = sell.currency.scatter(rows, texts["currency"])
    sell.state = sell.state.scatter(rows, [State.MATCHED.value] * len(rows))
    sell.session_id = sell.session_id.scatter(rows, [one.session.id for one in matched.values()])
    return sell, revisions


def _live_out(legs: Legs, matched: Mapping[int, Matched]) -> list[Leg]:
    """The resellers' legs without those that were charged live."""
    for leg in legs.above:
        rows = [n for n, match in matched.items() if int(leg.party[n]) in match.parties]
        leg.party[rows] = 0
        leg.wallet[rows] = 0
        leg.amount[rows] = 0
    return legs.above


def _usage(mediated: Mediated, sell: _Sell, buy: Leg, bought: pl.DataFrame) -> pl.DataFrame:
    frame = mediated.frame
    start = frame["start"]
    return pl.DataFrame(
        {
            "day": (start // DAY_US).cast(pl.Int32).cast(pl.Date),
            "line": frame["line"],
            "start_at": start.cast(pl.Datetime("us", "UTC")),
            "answer_at": frame["answer"].cast(pl.Datetime("us", "UTC")),
            "duration_ms": frame["duration_ms"],
            "call_id": frame["call_id"],
            "leg": frame["leg"],
            "caller": mediated.caller,
            "called": mediated.called,
            "service": frame["service"],
            "customer_id": mediated.customer,
            "vendor_id": mediated.vendor,
            "trunk_in": mediated.trunk_in,
            "trunk_out": mediated.trunk_out,
            "sip": frame["sip"],
            "q850": frame["q850"],
            "pdd_ms": frame["pdd_ms"],
            "mos": frame["mos"],
            "state": sell.state,
            "session_id": sell.session_id,
            "destination": sell.destination,
            "sell_wallet": sell.wallet,
            "sell_version": sell.version,
            "sell_row": pl.Series(sell.row_no).cast(pl.Int32),
            "sell_prefix": sell.prefix,
            "sell_billed": pl.Series(sell.billed).cast(pl.Int32),
            "charge": sell.amount,
            "buy_wallet": buy.wallet,
            "buy_version": bought["version_id"],
            "buy_row": bought["row_no"].cast(pl.Int32),
            "buy_prefix": bought["prefix"],
            "buy_billed": pl.Series(buy.billed).cast(pl.Int32),
            "cost": buy.amount,
        }
    )


def _reseller_legs(usage: pl.DataFrame, leg: Leg, level: int, book: RateBook) -> pl.DataFrame:
    described = book.describe(leg.row.astype(np.int32))
    frame = usage.select("day", "line").with_columns(
        pl.lit(level, pl.Int16).alias("level"),
        pl.Series("party_id", leg.party),
        pl.Series("wallet_id", leg.wallet),
        described["version_id"],
        described["row_no"].cast(pl.Int32),
        described["prefix"],
        pl.Series("billed", leg.billed).cast(pl.Int32),
        pl.Series("charge", leg.amount),
    )
    return frame.filter(pl.col("wallet_id") > 0)


def _hours(
    usage: pl.DataFrame,
    mediated: Mediated,
    sell: _Sell,
    buy_currency: pl.Series,
    buy: Leg,
) -> pl.DataFrame:
    rows = mediated.frame.select("start", "duration_ms", "answer", "q850", "sip", "pdd_ms")
    return group_hours(
        rows.with_columns(
            usage["customer_id"],
            usage["vendor_id"],
            usage["trunk_in"],
            usage["trunk_out"],
            usage["service"],
            usage["destination"],
            usage["sell_prefix"].alias("prefix"),
            sell.currency.alias("sell_currency"),
            buy_currency.alias("buy_currency"),
            pl.Series("sell_billed", sell.billed),
            pl.Series("buy_billed", buy.billed),
            pl.Series("revenue", sell.revenue),
            usage["cost"],
        )
    )


def group_hours(rows: pl.DataFrame, *, sign: int = 1) -> pl.DataFrame:
    """Add records up by the hour; -1 as ``sign`` takes them away again.

    ``rows`` have start (microseconds), duration_ms, answer (null: not answered), q850, sip, pdd_ms,
    the keys of the sums (customer_id to buy_currency), sell_billed, buy_billed, revenue and cost.
    """
    answered = (pl.col("duration_ms") > 0) | pl.col("answer").is_not_null()
    effective = (
        answered
        | pl.col("q850").is_in(sorted(EFFECTIVE_Q850)).fill_null(value=False)
        | pl.col("sip").is_in(sorted(EFFECTIVE_SIP)).fill_null(value=False)
    )
    keys = [
        "customer_id", "vendor_id", "trunk_in", "trunk_out", "service", "destination", "prefix",
        "sell_currency", "buy_currency",
    ]  # fmt: skip
    hour = (pl.col("start") // HOUR_US * HOUR_US).alias("hour")
    grouped = rows.group_by(hour, *keys).agg(
        (pl.len().cast(pl.Int64) * sign).alias("attempts"),
        (answered.sum().cast(pl.Int64) * sign).alias("answers"),
        (effective.sum().cast(pl.Int64) * sign).alias("effective"),
        pl.col("duration_ms").sum() * sign,
        pl.col("sell_billed").cast(pl.Int64).sum() * sign,
        pl.col("buy_billed").cast(pl.Int64).sum() * sign,
        pl.col("pdd_ms").fill_null(0).cast(pl.Int64).sum() * sign,
        (pl.col("pdd_ms").count().cast(pl.Int64) * sign).alias("pdd_count"),
        pl.col("revenue").sum() * sign,
        pl.col("cost").sum() * sign,
    )
    return grouped.with_columns(
        (pl.col("hour") // DAY_US).cast(pl.Int32).cast(pl.Date).alias("day"),
        pl.col("hour").cast(pl.Datetime("us", "UTC")),
    )


def _sums(
    usage: pl.DataFrame, above: Sequence[pl.DataFrame], revisions: Sequence[Revision]
) -> Iterator[tuple[int, Code, Decimal]]:
    """What each wallet is charged or earns: what was priced here, and the corrections of live calls."""
    rated = usage.filter(pl.col("state") == State.RATED.value)
    totals: dict[tuple[int, Code], int] = {}

    def add(frame: pl.DataFrame, wallet: str, amount: str, code: Code) -> None:
        grouped = frame.group_by(wallet).agg(pl.col(amount).sum())
        for wallet_id, total in grouped.iter_rows():
            totals[wallet_id, code] = totals.get((wallet_id, code), 0) + total

    add(rated, "sell_wallet", "charge", Code.RATED)
    add(usage, "buy_wallet", "cost", Code.COST)
    for legs in above:
        add(legs, "wallet_id", "charge", Code.RATED)
    for revision in revisions:
        for code, amount in ((Code.REVERSAL, revision.was), (Code.RATED, revision.amount)):
            key = (revision.wallet_id, code)
            totals[key] = totals.get(key, 0) + units(amount)
    for (wallet_id, code), total in sorted(totals.items()):
        if total and wallet_id:
            yield wallet_id, code, money(total)
