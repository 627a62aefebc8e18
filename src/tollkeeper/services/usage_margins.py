"""Hourly sums in one currency: what was sold and what it cost by the exchange rate of each day, and the margin."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import partial

from tollkeeper.core.fx import MAX_AGE_DAYS, convert
from tollkeeper.core.money import SCALE, Rounding, parse_currency
from tollkeeper.errors import InvalidInput
from tollkeeper.services.fx_book import FxBook
from tollkeeper.services.usage_search import REPORT_ROWS_MAX, report
from tollkeeper.store.db import Database
from tollkeeper.store.fx import read_days
from tollkeeper.store.usage_search import DIMENSIONS, HourSum

ROWS_MAX = 20 * REPORT_ROWS_MAX
"""So many groups of single days are looked at."""

_ADDED = (
    "attempts", "answers", "effective", "duration_ms", "sell_billed", "buy_billed", "pdd_ms", "pdd_count",
    "revenue", "cost",
)  # fmt: skip
_KEY = (*DIMENSIONS, "sell_currency", "buy_currency")


@dataclass(frozen=True, slots=True)
class Margins:
    """Sums in one currency; those that no rate leads to it from stay in their own, ``unconverted``."""

    groups: list[HourSum]
    unconverted: tuple[str, ...]


async def report_in(
    database: Database,
    currency: str | None,
    *,
    now: datetime,
    by: Sequence[str],
    since: datetime | None = None,
    until: datetime | None = None,
    customer: str | None = None,
    vendor: str | None = None,
    limit: int = 1000,
    skip: int = 0,
    scope: int | None = None,
) -> Margins:
    """As :func:`tollkeeper.services.usage_search.report`, with all money in one currency (None: as it is).

    Each day's sums are converted by the rate of that day (UTC) and rounded to 8 decimals (half even); then they
    are added up. A sum of which one side has no rate is left as it is.

    Raises:
        InvalidInput: naming the parameter.
    """
    ask = partial(
        report,
        database,
        now=now,
        since=since,
        until=until,
        customer=customer,
        vendor=vendor,
        scope=scope,
    )
    if currency is None:
        return Margins(await ask(by=by, limit=limit, skip=skip), ())
    parse_currency(currency, field="currency")
    daily = by if {"day", "hour"} & set(by) else (*by, "day")
    rows: list[HourSum] = []
    while found := await ask(by=daily, limit=REPORT_ROWS_MAX, skip=len(rows)):
        rows += found
        if len(rows) > ROWS_MAX:
            raise InvalidInput(
                f"by: more than {ROWS_MAX} sums of single days; ask for less time, or by less",
                field="by",
            )
        if len(found) < REPORT_ROWS_MAX:
            break
    margins = _margins(rows, currency, by, await _rates(database, rows))
    groups = margins.groups[skip : skip + max(1, limit)]
    if scope is not None:
        # What calls cost is the operator's alone, the currency of nothing, too.
        groups = [replace(group, buy_currency="") for group in groups]
    return replace(margins, groups=groups)


async def _rates(database: Database, rows: Sequence[HourSum]) -> FxBook:
    if not rows:
        return FxBook()
    days = [_day(row) for row in rows]
    async with database.read() as connection:
        first = min(days) - timedelta(days=MAX_AGE_DAYS)
        return FxBook(await read_days(connection, first, max(days)))


def _day(row: HourSum) -> date:
    """The UTC day of a sum; it is grouped by days or hours."""
    if row.day is not None:
        return row.day
    assert row.hour is not None
    return row.hour.astimezone(UTC).date()


def _margins(rows: Iterable[HourSum], currency: str, by: Sequence[str], rates: FxBook) -> Margins:
    groups: dict[tuple[object, ...], HourSum] = {}
    missing: set[str] = set()
    for row in rows:
        worth = _converted(row, currency, rates, missing)
        if "day" not in by:
            worth = replace(worth, day=None)
        key = tuple(getattr(worth, name) for name in _KEY)
        groups[key] = _added(groups[key], worth) if key in groups else worth
    # What is not grouped by is the same in all rows, so None never meets another value.
    return Margins(sorted(groups.values(), key=_order), tuple(sorted(missing)))


def _order(row: HourSum) -> tuple[str, ...]:
    return tuple(str(getattr(row, name)) for name in _KEY)


def _converted(row: HourSum, currency: str, rates: FxBook, missing: set[str]) -> HourSum:
    """A sum of one day in the currency; as it is where a rate is missing."""
    exchange = rates.exchange(_day(row))
    money: list[Decimal] = []
    unknown = set()
    for amount, own in ((row.revenue, row.sell_currency), (row.cost, row.buy_currency)):
        rate = exchange(own or currency, currency)
        if rate is None:
            unknown.add(own)
        else:
            money.append(convert(amount, rate.rate, SCALE, Rounding.HALF_EVEN))
    if unknown:
        missing |= unknown
        return row
    revenue, cost = money
    return replace(row, revenue=revenue, cost=cost, sell_currency=currency, buy_currency=currency)


def _added(one: HourSum, other: HourSum) -> HourSum:
    return replace(one, **{name: getattr(one, name) + getattr(other, name) for name in _ADDED})
