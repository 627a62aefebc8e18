"""Records found again, wherever they lie: day partitions and archive answer as one.

A page is read window by window of time, so that its cost is that of what it shows and not that of
a whole day; one number or call is looked for over the whole time at once, by its indexes.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from heapq import merge
from operator import attrgetter
from typing import Any

from tollkeeper.core.numbering import DIGITS_MAX
from tollkeeper.core.usage import TEXT_MAX
from tollkeeper.errors import Conflict, InvalidInput
from tollkeeper.services.fields import check_moment
from tollkeeper.store.archive import read_parts
from tollkeeper.store.archive_search import Part, search_parts
from tollkeeper.store.db import Connection, Database
from tollkeeper.store.parties import read_party
from tollkeeper.store.scope import read_subtree
from tollkeeper.store.usage_search import (
    DIMENSIONS,
    FIRST_KEY,
    HourSum,
    Key,
    Names,
    UsageFilter,
    UsageRow,
    apply_revisions,
    fence,
    read_bounds,
    read_hours,
    read_rows,
    read_undone,
)

__all__ = [
    "CURSOR_PATTERN",
    "DIMENSIONS",
    "HourSum",
    "UsagePage",
    "UsageQuery",
    "UsageView",
    "filter_of",
    "report",
    "search",
]

PAGE_MAX = 1000
PREFIX_DAYS = 31
"""What a number begins with is in no index: so many days are read through at most."""

PAGE_SECONDS = 5.0
"""A page that has taken so long is handed out as it is; the next one goes on from there."""

DEFAULT_SPAN = timedelta(days=1)
FIRST_WINDOW, WINDOW_MAX, WINDOW_GROWTH = timedelta(minutes=15), timedelta(days=1), 4
REPORT_ROWS_MAX = 10_000

CURSOR_PATTERN = r"^([0-9]{1,17}\.[0-9]{1,19}\.[0-9]{1,19})?$"
_CURSOR = re.compile(CURSOR_PATTERN[1:-1])
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SEPARATORS = str.maketrans("", "", " -.()/\t")


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageQuery:
    """Which records are wanted; what is None does not matter.

    ``since`` and ``until`` bound the start of the call, the second without itself. Left out, they
    are the last day, or for one number or call all there is. ``called`` may end with ``*``: then
    it is what the number begins with. ``customer`` and ``vendor`` are codes of parties. ``after``
    is the ``next`` of the page before.
    """

    since: datetime | None = None
    until: datetime | None = None
    called: str | None = None
    caller: str | None = None
    call_id: str | None = None
    customer: str | None = None
    vendor: str | None = None
    after: str = ""


@dataclass(frozen=True, slots=True)
class UsageView:
    """A record as it is shown: ids by their names, legs at their present value.

    ``duration_ms`` is conversation time, ``sell_billed`` and ``buy_billed`` seconds, ``mos``
    hundredths. ``charge`` is what the customer owes for it in ``sell_currency``, ``cost`` what the
    vendor asks in ``buy_currency``; a currency is "" where there is no such leg. ``switch``,
    ``file`` and ``line`` say where the record came from; day, batch and line are its name.
    """

    start: datetime
    answer: datetime | None
    duration_ms: int
    call_id: str
    leg: str
    caller: str
    called: str
    service: str
    destination: str
    customer: str
    trunk_in: str
    vendor: str
    trunk_out: str
    state: str
    sip: int | None
    q850: int | None
    pdd_ms: int | None
    mos: int | None
    sell_card: str
    sell_card_version: int
    sell_prefix: str
    sell_billed: int
    charge: Decimal
    sell_currency: str
    buy_card: str
    buy_card_version: int
    buy_prefix: str
    buy_billed: int
    cost: Decimal
    buy_currency: str
    session_id: str
    switch: str
    file: str
    day: date
    batch: int
    line: int


@dataclass(frozen=True, slots=True)
class UsagePage:
    """Some records in the order of their start; ``next`` is None on the last page.

    A page may be shorter than asked for, even empty, and yet not be the last.
    """

    items: tuple[UsageView, ...]
    next: str | None


# --- what is asked for ---------------------------------------------------------------------------


async def filter_of(
    database: Database, query: UsageQuery, *, now: datetime, scope: int | None = None
) -> UsageFilter | None:
    """Check a query and make it one that the store understands; None where nothing can be found.

    A scope finds the records of its own subtree and may not ask for vendors.

    Raises:
        InvalidInput: naming the parameter; NotFound is not raised: a wrong code is a wrong parameter.
    """
    called, prefix = _called(query.called)
    caller = None if query.caller is None else _number(query.caller, "caller")
    call_id = None if query.call_id is None else _text(query.call_id, "call_id")
    exact = called is not None or caller is not None or call_id is not None
    until = now + DEFAULT_SPAN if query.until is None else check_moment(query.until, field="to")
    if query.since is not None:
        since = check_moment(query.since, field="from")
    else:
        since = _EPOCH if exact and not prefix else min(now, until) - DEFAULT_SPAN
    if since >= until:
        raise InvalidInput("from: it must be earlier than the end of the time", field="from")
    if prefix and until - since > timedelta(days=PREFIX_DAYS):
        raise InvalidInput(
            f"called: what a number begins with is looked for in {PREFIX_DAYS} days at most; "
            "narrow the time, or give the whole number",
            field="called",
        )
    after = read_cursor(query.after)
    _check_vendor(query.vendor, scope)
    # Archived days are no tables: so who may see what is part of the question, not of the connection.
    async with database.read() as connection:
        customers = None if scope is None else await read_subtree(connection, scope)
        wanted = UsageFilter(
            since=since,
            until=until,
            called=called,
            prefix=prefix,
            caller=caller,
            call_id=call_id,
            customer_id=await _party(connection, query.customer, "customer", customers),
            vendor_id=await _party(connection, query.vendor, "vendor", None),
            customers=customers,
            after=after,
        )
        bounds = await read_bounds(connection)
    return None if bounds is None else _within(wanted, *bounds)


def _within(wanted: UsageFilter, first: date, last: date) -> UsageFilter | None:
    """The same over the days that there are."""
    since = max(wanted.since, datetime.combine(first, time(), UTC))
    until = min(wanted.until, datetime.combine(last, time(), UTC) + timedelta(days=1))
    if since >= until or wanted.after[0] >= until:
        return None
    return replace(wanted, since=since, until=until)


def _check_vendor(vendor: str | None, scope: int | None) -> None:
    if vendor is not None and scope is not None:
        raise InvalidInput(
            "vendor: who carries the calls is known to the operator only", field="vendor"
        )


async def _party(
    connection: Connection, code: str | None, field: str, seen: Collection[int] | None
) -> int | None:
    if code is None:
        return None
    party = await read_party(connection, code)
    if party is None or (seen is not None and party.id not in seen):
        raise InvalidInput(
            f'{field}: there is no party "{code}"', code="unknown_party", field=field
        )
    return party.id


def _called(given: str | None) -> tuple[str | None, str | None]:
    if given is None:
        return None, None
    if not given.endswith("*"):
        return _number(given, "called"), None
    prefix = _number(given[:-1], "called")
    if not prefix.isdigit() or len(prefix) > DIGITS_MAX:
        raise InvalidInput("called: give some digits before the *, such as 4420*", field="called")
    return None, prefix


def _number(given: str, field: str) -> str:
    """A number as records have it: digits without mark; what is no number is looked for as it is."""
    text = _text(given, field)
    digits = text.translate(_SEPARATORS).removeprefix("+")
    return digits if digits.isascii() and digits.isdigit() else text


def _text(given: str, field: str) -> str:
    text = given.strip()
    if not text or len(text) > TEXT_MAX or "\x00" in text:
        raise InvalidInput(f"{field}: give 1 to {TEXT_MAX} characters", field=field)
    return text


def cursor_of(key: Key) -> str:
    """A place in the order of records as text."""
    return f"{(key[0] - _EPOCH) // timedelta(microseconds=1)}.{key[1]}.{key[2]}"


def read_cursor(text: str) -> Key:
    """The place that a page ended at; "" is the beginning.

    Raises:
        InvalidInput: it is no ``next`` of ours.
    """
    if not text:
        return FIRST_KEY
    parts = [int(part) for part in text.split(".")] if _CURSOR.fullmatch(text) else [2**62]
    if len(parts) != 3 or max(parts[1:]) >= 2**63 or parts[0] >= 2**53:
        raise InvalidInput('after: give the "next" of the page before', field="after")
    return _EPOCH + timedelta(microseconds=parts[0]), parts[1], parts[2]


# --- records -------------------------------------------------------------------------------------


async def search(
    database: Database,
    query: UsageQuery,
    *,
    now: datetime,
    limit: int = 100,
    scope: int | None = None,
) -> UsagePage:
    """Find records in the order of their start, over partitions and archive.

    Raises:
        InvalidInput: a parameter is wrong. Conflict: an archived part is missing.
    """
    limit = max(1, min(limit, PAGE_MAX))
    wanted = await filter_of(database, query, now=now, scope=scope)
    if wanted is None:
        return UsagePage((), None)
    rows, end = await read_page(database, wanted, limit=limit + 1)
    shown = rows[:limit]
    if len(rows) > limit:
        end = shown[-1].key
    names = Names()
    return UsagePage(
        tuple(await show(database, names, shown, scope=scope)),
        None if end is None else cursor_of(end),
    )


async def read_page(
    database: Database, wanted: UsageFilter, *, limit: int
) -> tuple[list[UsageRow], Key | None]:
    """The next ``limit`` records, as they were loaded.

    Also the place where it stopped to look although there may be more; None at the very end and
    where the limit was reached.
    """
    loop = asyncio.get_running_loop()
    began = loop.time()
    rows: list[UsageRow] = []
    for window in _windows(wanted):
        rows += await _read_window(database, window, limit - len(rows))
        if len(rows) >= limit:
            return rows, None
        if loop.time() - began > PAGE_SECONDS and window.until < wanted.until:
            return rows, (window.until - timedelta(microseconds=1), 2**63 - 1, 2**63 - 1)
    return rows, None


def _windows(wanted: UsageFilter) -> Iterator[UsageFilter]:
    """The time in pieces that become longer while little is found."""
    if wanted.exact:
        yield wanted
        return
    begin, span = max(wanted.since, wanted.after[0]), FIRST_WINDOW
    while begin < wanted.until:
        end = min(begin + span, wanted.until)
        yield replace(wanted, since=begin, until=end)
        begin, span = end, min(span * WINDOW_GROWTH, WINDOW_MAX)


async def _read_window(database: Database, wanted: UsageFilter, limit: int) -> list[UsageRow]:
    for last_try in (False, True):
        async with database.write() as connection:
            stored, parts, undone = await read_both(connection, wanted, limit)
        try:
            archived = await asyncio.to_thread(
                search_parts, parts, wanted, limit=limit, undone=undone
            )
        except OSError as error:
            # Purged between the two looks: then the second one does not list it any more.
            if last_try:
                raise gone(error) from error
            continue
        return list(merge(stored, archived, key=attrgetter("key")))[:limit]
    raise AssertionError("the second try returns or raises")


async def read_both(
    connection: Connection, wanted: UsageFilter, limit: int
) -> tuple[list[UsageRow], list[Part], list[int]]:
    """In one transaction: records of the partitions, archived parts to look into, undone batches."""
    await fence(connection)
    parts = [part.place for part in await read_parts(connection, *wanted.days)]
    undone = await read_undone(connection) if parts else []
    return await read_rows(connection, wanted, limit), parts, undone


def gone(error: OSError) -> Conflict:
    """An archived part that is noted and cannot be read, as a sentence."""
    return Conflict(
        f"an archived day cannot be read: {error}; restore the archive's files",
        code="archive_unreadable",
    )


async def show(
    database: Database, names: Names, rows: Sequence[UsageRow], *, scope: int | None = None
) -> list[UsageView]:
    """Records at their present value, with names for ids; ``names`` remembers those.

    A scope learns of a record what its customer was charged, and nothing of vendors, trunks and files.
    """
    async with database.read() as connection:
        present = await apply_revisions(connection, rows)
    if scope is not None:
        present = [replace(row, **_OPERATORS) for row in present]
    async with database.read(scope=scope) as connection:
        await names.read(connection, present, files=scope is None)
    return [_view(row, names) for row in present]


_OPERATORS: dict[str, Any] = {
    "vendor_id": 0,
    "trunk_in": 0,
    "trunk_out": 0,
    "buy_wallet": 0,
    "buy_version": 0,
    "buy_row": 0,
    "buy_prefix": "",
    "buy_billed": 0,
    "cost": Decimal(0),
}
"""What of a record is the operator's alone."""


def _view(row: UsageRow, names: Names) -> UsageView:
    sell, buy = names.version(row.sell_version), names.version(row.buy_version)
    batch = names.batch(row.batch_id)
    return UsageView(
        start=row.start_at,
        answer=row.answer_at,
        duration_ms=row.duration_ms,
        call_id=row.call_id,
        leg=row.leg,
        caller=row.caller,
        called=row.called,
        service=row.service,
        destination=row.destination,
        customer=names.party(row.customer_id),
        trunk_in=names.trunk(row.trunk_in),
        vendor=names.party(row.vendor_id),
        trunk_out=names.trunk(row.trunk_out),
        state=row.state,
        sip=row.sip,
        q850=row.q850,
        pdd_ms=row.pdd_ms,
        mos=row.mos,
        sell_card=sell.card,
        sell_card_version=sell.version,
        sell_prefix=row.sell_prefix,
        sell_billed=row.sell_billed,
        charge=row.charge,
        # The wallet pays; where there is none the price still has a currency.
        sell_currency=names.currency(row.sell_wallet) or sell.currency,
        buy_card=buy.card,
        buy_card_version=buy.version,
        buy_prefix=row.buy_prefix,
        buy_billed=row.buy_billed,
        cost=row.cost,
        buy_currency=names.currency(row.buy_wallet) or buy.currency,
        session_id=row.session_id or "",
        switch=batch.switch,
        file=batch.file,
        day=row.day,
        batch=row.batch_id,
        line=row.line,
    )


# --- hourly sums ---------------------------------------------------------------------------------

_OPERATORS_DIMENSIONS = frozenset(("vendor", "trunk_in", "trunk_out"))


async def report(
    database: Database,
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
) -> list[HourSum]:
    """Sums of whole hours, grouped by some of :data:`DIMENSIONS` and always by the currencies.

    No record is read for it. Without a time it is the last day.

    Raises:
        InvalidInput: naming the parameter.
    """
    for name in by:
        if name not in DIMENSIONS:
            raise InvalidInput(f'by: "{name}" is none of {", ".join(DIMENSIONS)}', field="by")
        if scope is not None and name in _OPERATORS_DIMENSIONS:
            raise InvalidInput(f"by: {name} is known to the operator only", field="by")
    _check_vendor(vendor, scope)
    end = now + DEFAULT_SPAN if until is None else check_moment(until, field="to")
    begin = min(now, end) - DEFAULT_SPAN if since is None else check_moment(since, field="from")
    if begin >= end:
        raise InvalidInput("from: it must be earlier than the end of the time", field="from")
    # A hour that is asked for in part is shown whole: nothing finer is known.
    begin = begin.replace(minute=0, second=0, microsecond=0)
    async with database.read() as connection:
        customers = None if scope is None else await read_subtree(connection, scope)
        wanted = UsageFilter(
            since=begin,
            until=end,
            customer_id=await _party(connection, customer, "customer", customers),
            vendor_id=await _party(connection, vendor, "vendor", None),
            customers=customers,
        )
        most = max(1, min(limit, REPORT_ROWS_MAX + 1))
        return await read_hours(connection, wanted, by, limit=most, skip=skip, costs=scope is None)
