"""Usage as it is read back: records of the day partitions, their present value, hourly sums.

Records of a batch that was taken back do not exist for readers; what a leg is worth is what its
last re-rating that was not taken back says. Everything is read in the order of
:attr:`UsageRow.key`, so that a page goes on where the one before ended.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, fields, replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

from psycopg import sql
from psycopg.rows import DictRow

from tollkeeper.store.db import Connection, queries

_SQL = queries("usage_search")

Key = tuple[datetime, int, int]
"""start, batch and line: the order of records, and the name of each."""

FIRST_KEY: Key = (datetime(1900, 1, 1, tzinfo=UTC), 0, 0)
"""Comes before every record."""

LATEST = datetime(2200, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class UsageRow:
    """A record with its two legs as it is stored; ids of 0 stand for nobody and nothing.

    Durations in milliseconds, billed time in seconds, ``mos`` in hundredths; ``charge`` and
    ``cost`` in the currency of their wallets.
    """

    day: date
    batch_id: int
    line: int
    start_at: datetime
    answer_at: datetime | None
    duration_ms: int
    call_id: str
    leg: str
    caller: str
    called: str
    service: str
    customer_id: int
    vendor_id: int
    trunk_in: int
    trunk_out: int
    sip: int | None
    q850: int | None
    pdd_ms: int | None
    mos: int | None
    state: str
    session_id: str | None
    destination: str
    sell_wallet: int
    sell_version: int
    sell_row: int
    sell_prefix: str
    sell_billed: int
    charge: Decimal
    buy_wallet: int
    buy_version: int
    buy_row: int
    buy_prefix: str
    buy_billed: int
    cost: Decimal

    @property
    def key(self) -> Key:
        """Where the record stands in the order of all records."""
        return self.start_at, self.batch_id, self.line


COLUMNS = tuple(field.name for field in fields(UsageRow))


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageFilter:
    """Which records: those that began in [since, until) and come after the key ``after``.

    What is None is not looked at. ``prefix`` is what the called number begins with. ``customers`` are
    the only ones whose records there are for whoever asks.
    """

    since: datetime
    until: datetime
    called: str | None = None
    prefix: str | None = None
    caller: str | None = None
    call_id: str | None = None
    customer_id: int | None = None
    vendor_id: int | None = None
    customers: tuple[int, ...] | None = None
    after: Key = FIRST_KEY

    @property
    def exact(self) -> bool:
        """True when one number or call is asked for, which indexes find."""
        return self.called is not None or self.caller is not None or self.call_id is not None

    @property
    def days(self) -> tuple[date, date]:
        """The first and the last day that can have such records."""
        last = self.until.astimezone(UTC) - timedelta(microseconds=1)
        return max(self.since, self.after[0]).astimezone(UTC).date(), last.date()

    def values(self, limit: int | None) -> dict[str, object]:
        """The parameters of the query ``rows``."""
        first_day, last_day = self.days
        return {
            "first_day": first_day,
            "last_day": last_day,
            "since": self.since,
            "until": self.until,
            "called": self.called,
            "prefix": self.prefix,
            "caller": self.caller,
            "call_id": self.call_id,
            "customer_id": self.customer_id,
            "vendor_id": self.vendor_id,
            "customers": None if self.customers is None else list(self.customers),
            "after_at": self.after[0],
            "after_batch": self.after[1],
            "after_line": self.after[2],
            "limit": limit,
        }


# --- records -------------------------------------------------------------------------------------


async def fence(connection: Connection) -> None:
    """Until this transaction ends no day moves between the partitions and the archive."""
    await connection.execute(_SQL["fence"])


async def read_bounds(connection: Connection) -> tuple[date, date] | None:
    """The first and the last day of which there may be records, archived or not."""
    row = await (await connection.execute(_SQL["bounds"])).fetchone()
    assert row is not None
    return (row["first"], row["last"]) if row["first"] is not None else None


async def read_rows(connection: Connection, wanted: UsageFilter, limit: int) -> list[UsageRow]:
    """Read the first ``limit`` records of the partitions, as they were loaded."""
    # Never a prepared statement: only a plan that knows the values can leave out partitions and
    # use the index of the one number that is asked for.
    cursor = await connection.execute(_SQL["rows"], wanted.values(limit), prepare=False)
    return [UsageRow(**row) for row in await cursor.fetchall()]


async def copy_rows(connection: Connection, wanted: UsageFilter) -> AsyncIterator[bytes]:
    """All such records of the partitions as lines of CSV in the order of :data:`COLUMNS`.

    No value is an empty cell, an empty text is ``""``; times are in UTC. The statement may take
    as long as it needs.
    """
    await no_time_limit(connection)
    statement = sql.SQL("COPY ({}) TO STDOUT (FORMAT csv)").format(sql.SQL(_SQL["rows"]))
    async with (
        connection.cursor() as cursor,
        cursor.copy(statement, wanted.values(None)) as copy,
    ):
        async for line in copy:
            yield bytes(line)


async def no_time_limit(connection: Connection) -> None:
    """Let the statements of this transaction take as long as they need."""
    await connection.execute(_SQL["no_time_limit"])


async def read_undone(connection: Connection) -> list[int]:
    """The batches that were taken back."""
    rows = await (await connection.execute(_SQL["undone"])).fetchall()
    return [row["id"] for row in rows]


async def apply_revisions(connection: Connection, rows: Sequence[UsageRow]) -> list[UsageRow]:
    """Return the records with the present value of their legs."""
    if not rows:
        return []
    days = [row.day for row in rows]
    values = {
        "days": days,
        "batches": [row.batch_id for row in rows],
        "lines": [row.line for row in rows],
        "first_day": min(days),
        "last_day": max(days),
    }
    cursor = await connection.execute(_SQL["revisions"], values, prepare=False)
    revised: dict[tuple[date, int, int], dict[str, object]] = {}
    for found in await cursor.fetchall():
        changes = revised.setdefault((found["day"], found["batch_id"], found["line"]), {})
        side, amount = ("sell", "charge") if found["leg"] == 0 else ("buy", "cost")
        changes |= {
            f"{side}_wallet": found["wallet_id"],
            f"{side}_version": found["version_id"],
            f"{side}_row": found["row_no"],
            f"{side}_prefix": found["prefix"],
            f"{side}_billed": found["billed"],
            amount: found["amount"],
        }
        if found["leg"] == 0:
            changes["destination"] = found["destination"]
    if not revised:
        return list(rows)
    found_for = revised.get
    return [
        # The names are those above.
        replace(row, **found_for((row.day, row.batch_id, row.line), {}))  # type: ignore[arg-type]
        for row in rows
    ]


# --- names ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class VersionName:
    """A version of a rate card: the card's code, the version's number, the currency."""

    card: str
    version: int
    currency: str


@dataclass(frozen=True, slots=True)
class BatchName:
    """Where a batch came from: the switch, and the file ("" where it was none)."""

    switch: str
    file: str


class Names:
    """What ids are called; grows as records are read. An id that is not known is shown as it is."""

    def __init__(self) -> None:
        self._parties: dict[int, str] = {0: ""}
        self._trunks: dict[int, str] = {0: ""}
        self._currencies: dict[int, str] = {0: ""}
        self._versions: dict[int, VersionName] = {0: VersionName("", 0, "")}
        self._batches: dict[int, BatchName] = {0: BatchName("", "")}

    def party(self, id_: int) -> str:
        """The code of a party."""
        return self._parties.get(id_) or (str(id_) if id_ else "")

    def trunk(self, id_: int) -> str:
        """The code of a trunk."""
        return self._trunks.get(id_) or (str(id_) if id_ else "")

    def currency(self, wallet_id: int) -> str:
        """The currency of a wallet, "" where there is none."""
        return self._currencies.get(wallet_id, "")

    def version(self, id_: int) -> VersionName:
        """The name of a version of a rate card."""
        return self._versions.get(id_, self._versions[0])

    def batch(self, id_: int) -> BatchName:
        """Where a batch came from."""
        return self._batches.get(id_, self._batches[0])

    async def read(
        self, connection: Connection, rows: Sequence[UsageRow], *, files: bool = True
    ) -> None:
        """Read what is not known yet of these records' ids; ``files``: also where they came from."""
        parties = {row.customer_id for row in rows} | {row.vendor_id for row in rows}
        for found in await _named(connection, "parties", parties - self._parties.keys()):
            self._parties[found["id"]] = found["code"]
        trunks = {row.trunk_in for row in rows} | {row.trunk_out for row in rows}
        for found in await _named(connection, "trunks", trunks - self._trunks.keys()):
            self._trunks[found["id"]] = found["code"]
        wallets = {row.sell_wallet for row in rows} | {row.buy_wallet for row in rows}
        for found in await _named(connection, "wallets", wallets - self._currencies.keys()):
            self._currencies[found["id"]] = found["currency"]
        versions = {row.sell_version for row in rows} | {row.buy_version for row in rows}
        for found in await _named(connection, "versions", versions - self._versions.keys()):
            name = VersionName(found["card"], found["version"], found["currency"])
            self._versions[found["id"]] = name
        batches = {row.batch_id for row in rows} if files else set()
        for found in await _named(connection, "batches", batches - self._batches.keys()):
            self._batches[found["id"]] = BatchName(found["switch"], found["file"])


async def _named(connection: Connection, query: str, ids: set[int]) -> list[DictRow]:
    if not ids:
        return []
    return await (await connection.execute(_SQL[query], (sorted(ids),))).fetchall()


# --- hourly sums ---------------------------------------------------------------------------------

DIMENSIONS = (
    "day",
    "hour",
    "customer",
    "vendor",
    "trunk_in",
    "trunk_out",
    "service",
    "destination",
    "prefix",
)
"""What hourly sums can be grouped by."""


@dataclass(frozen=True, slots=True)
class HourSum:
    """Sums of the hours of one group; a dimension that was not asked for is None or "".

    Durations in milliseconds, billed time in seconds; ``effective`` counts the calls that the
    network served (answered, busy, not answered by the user), as NER has it.
    """

    day: date | None
    hour: datetime | None
    customer: str
    vendor: str
    trunk_in: str
    trunk_out: str
    service: str
    destination: str
    prefix: str
    sell_currency: str
    buy_currency: str
    attempts: int
    answers: int
    effective: int
    duration_ms: int
    sell_billed: int
    buy_billed: int
    pdd_ms: int
    pdd_count: int
    revenue: Decimal
    cost: Decimal

    @property
    def margin(self) -> Decimal | None:
        """What is left; None where the two currencies differ."""
        if self.buy_currency not in {"", self.sell_currency}:
            return None
        return self.revenue - self.cost

    @property
    def margin_percent(self) -> Decimal | None:
        """The margin in percent of the revenue, with two decimals; None without either."""
        margin = self.margin
        if margin is None or self.revenue <= 0:
            return None
        return (100 * margin / self.revenue).quantize(Decimal("0.01"))

    @property
    def asr(self) -> Decimal | None:
        """Answer-seizure ratio (ITU-T E.411) in percent, with two decimals."""
        return _percent(self.answers, self.attempts)

    @property
    def ner(self) -> Decimal | None:
        """Network effectiveness ratio (ITU-T E.425) in percent, with two decimals."""
        return _percent(self.effective, self.attempts)

    @property
    def acd_ms(self) -> int | None:
        """Average duration of the answered calls in milliseconds."""
        return self.duration_ms // self.answers if self.answers > 0 else None

    @property
    def pdd_average_ms(self) -> int | None:
        """Average post-dial delay in milliseconds, of the calls that report one."""
        return self.pdd_ms // self.pdd_count if self.pdd_count > 0 else None


def _percent(part: int, whole: int) -> Decimal | None:
    if whole <= 0:
        return None
    return (Decimal(100 * part) / whole).quantize(Decimal("0.01"))


_SUM_FIELDS = frozenset(field.name for field in fields(HourSum))


async def read_hours(
    connection: Connection,
    wanted: UsageFilter,
    by: Sequence[str],
    *,
    limit: int,
    skip: int,
    costs: bool = True,
) -> list[HourSum]:
    """Read hourly sums of whole hours in [since, until), grouped by some of :data:`DIMENSIONS`.

    Without ``costs`` the vendors' side is left out: its currency, billed time and money.
    """
    values = {f"by_{name}": name in by for name in DIMENSIONS}
    more = {**wanted.values(limit), "skip": skip, "costs": costs}
    cursor = await connection.execute(_SQL["hours"], {**values, **more}, prepare=False)
    return [
        HourSum(**{name: value for name, value in row.items() if name in _SUM_FIELDS})
        for row in await cursor.fetchall()
    ]
