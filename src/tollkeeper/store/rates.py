"""Rate cards as they are stored: cards, their versions, and the rows of a version.

A version is written once, whole, by COPY, and never changed; only its status moves on. So it can
be read page by page without a transaction around the pages.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from itertools import islice
from typing import LiteralString

from psycopg.rows import DictRow, tuple_row
from psycopg.types.json import Jsonb

from tollkeeper.core.money import ZERO, Rounding
from tollkeeper.core.rating import Tariff
from tollkeeper.core.tariff import Card, PrefixTable, RateRow
from tollkeeper.store.db import Connection, queries

PAGE_ROWS = 2_000
"""Rows read or written at once: a few milliseconds, so that calls are answered in between."""

_SQL = queries("rates")


@dataclass(frozen=True, slots=True)
class RateCard:
    """Prices of one service in one currency; ``decimals`` and ``rounding`` are how a leg is rounded.

    ``per`` is how many units (seconds, messages, bytes) a price is for; ``key`` what prefixes are compared
    with: the number ``called``, or the ``network``. A cost-plus card has no prices of its own: it
    has those of ``cost_card`` times (1 + ``markup_percent``/100) plus ``markup``, not below
    ``floor_price`` and not above ``ceiling_price``. ``owner`` made it; None is the operator.
    """

    code: str
    name: str
    currency: str
    side: str = "sell"
    service: str = "voice"
    decimals: int = 6
    rounding: str = "half_up"
    active_version: int | None = None
    last_version: int = 0
    id: int = 0
    created_at: datetime | None = None
    per: int = 60
    key: str = "called"
    cost_card: str | None = None
    markup_percent: Decimal = ZERO
    markup: Decimal = ZERO
    floor_price: Decimal | None = None
    ceiling_price: Decimal | None = None
    owner: str | None = None
    owner_id: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RateVersion:
    """One import into a card.

    ``base_version`` is what the sheet was compared with, ``replaced_version`` what was active
    until this one was activated. ``rows_in`` = ``rows_stored`` + ``rows_refused`` +
    ``rows_repeated`` + ``rows_closing``; ``row_count`` is the length of the resulting card.
    """

    version: int
    base_version: int | None
    mode: str
    file_name: str
    sha256: str
    rows_in: int
    rows_stored: int
    rows_refused: int
    rows_repeated: int
    rows_closing: int
    row_count: int
    summary: Mapping[str, object]
    created_by: str
    created_at: datetime
    status: str = "draft"
    replaced_version: int | None = None
    activated_at: datetime | None = None
    retired_at: datetime | None = None
    id: int = 0


@dataclass(frozen=True, slots=True)
class RateRefusal:
    """A line of a sheet that was not taken: where, which cell, why, and the line itself."""

    seq: int
    line: int
    field: str
    value: str
    reason: str
    raw: str


@dataclass(frozen=True, slots=True)
class RateChange:
    """What a version does to one prefix; prices are those of a call of 60 seconds, fees included."""

    seq: int
    status: str
    prefix: str
    destination: str
    effective: datetime | None
    old_price: Decimal | None
    new_price: Decimal | None
    suspicious: bool


# --- cards and versions --------------------------------------------------------------------------


async def add_card(
    connection: Connection, card: RateCard, *, cost_card_id: int | None = None
) -> int | None:
    """Insert a card; None when the code is taken."""
    values = (
        card.code,
        card.name,
        card.side,
        card.service,
        card.currency,
        card.decimals,
        card.rounding,
        card.per,
        card.key,
        card.owner_id,
        cost_card_id,
        card.markup_percent,
        card.markup,
        card.floor_price,
        card.ceiling_price,
    )
    row = await (await connection.execute(_SQL["add_card"], values)).fetchone()
    return row["id"] if row is not None else None


async def read_card(connection: Connection, code: str, *, lock: bool = False) -> RateCard | None:
    """Read a card by code; ``lock`` keeps other changes of it away until the transaction ends."""
    sql = _SQL["lock_card"] if lock else _SQL["card"]
    row = await (await connection.execute(sql, (code,))).fetchone()
    return RateCard(**row) if row is not None else None


async def read_cards(connection: Connection, *, after: str, limit: int) -> list[RateCard]:
    """Read cards in the order of their codes."""
    rows = await (await connection.execute(_SQL["cards"], (after, limit))).fetchall()
    return [RateCard(**row) for row in rows]


async def active_versions(connection: Connection) -> dict[int, int]:
    """The number of the active version by card id; cards that have none are not in it."""
    rows = await (await connection.execute(_SQL["active_versions"])).fetchall()
    return {row["id"]: row["active_version"] for row in rows}


async def take_version(connection: Connection, card_id: int) -> int:
    """Count a card's versions up, and return the new number."""
    row = await (await connection.execute(_SQL["take_version"], (card_id,))).fetchone()
    assert row is not None
    return row["last_version"]  # type: ignore[no-any-return]  # the column is an integer


async def add_version(connection: Connection, card_id: int, version: RateVersion) -> int:
    """Insert a draft version; return its id."""
    values = (
        card_id,
        version.version,
        version.base_version,
        version.mode,
        version.file_name,
        version.sha256,
        version.rows_in,
        version.rows_stored,
        version.rows_refused,
        version.rows_repeated,
        version.rows_closing,
        version.row_count,
        Jsonb(dict(version.summary)),
        version.created_by,
        version.created_at,
    )
    row = await (await connection.execute(_SQL["add_version"], values)).fetchone()
    assert row is not None
    return row["id"]  # type: ignore[no-any-return]  # the column is an integer


async def read_version(connection: Connection, card_id: int, version: int) -> RateVersion | None:
    """Read one version of a card."""
    row = await (await connection.execute(_SQL["version"], (card_id, version))).fetchone()
    return RateVersion(**row) if row is not None else None


async def read_versions(
    connection: Connection, card_id: int, *, before: int, limit: int
) -> list[RateVersion]:
    """Read versions below number ``before``, the newest first."""
    rows = await (await connection.execute(_SQL["versions"], (card_id, before, limit))).fetchall()
    return [RateVersion(**row) for row in rows]


async def same_file(connection: Connection, card_id: int, sha256: str) -> int | None:
    """The latest version that was made from a file with this checksum."""
    row = await (await connection.execute(_SQL["same_file"], (card_id, sha256))).fetchone()
    return row["version"] if row is not None else None


async def retire_active(connection: Connection, card_id: int, at: datetime) -> None:
    """Make the active version of a card a retired one."""
    await connection.execute(_SQL["retire"], (at, card_id))


async def set_active(
    connection: Connection,
    card_id: int,
    version: RateVersion,
    *,
    at: datetime,
    replaced_version: int | None,
) -> None:
    """Make a version the active one; the one before must have been retired."""
    await connection.execute(_SQL["activate"], (at, replaced_version, version.id))
    await connection.execute(_SQL["set_active"], (version.version, card_id))


async def read_refusals(
    connection: Connection, version_id: int, *, after: int, limit: int
) -> list[RateRefusal]:
    """Read refused lines after ``seq``, in the order of the file."""
    rows = await (await connection.execute(_SQL["refusals"], (version_id, after, limit))).fetchall()
    return [RateRefusal(**row) for row in rows]


async def read_changes(
    connection: Connection, version_id: int, *, status: str | None, after: int, limit: int
) -> list[RateChange]:
    """Read changes after ``seq``: what a person should look at first comes first."""
    values = (version_id, after, status, status, limit)
    rows = await (await connection.execute(_SQL["changes"], values)).fetchall()
    return [RateChange(**row) for row in rows]


# --- rows, written -------------------------------------------------------------------------------


async def copy_rows(
    connection: Connection,
    version_id: int,
    rows: Sequence[RateRow],
    progress: Callable[[int], None],
) -> None:
    """Write the rows of a version by COPY, numbered from 1; ``progress`` gets the rows done."""
    await _copy(connection, _SQL["copy_rows"], _row_lines(version_id, rows), progress)


async def copy_refusals(
    connection: Connection, version_id: int, refusals: Iterable[RateRefusal]
) -> None:
    """Write the refused lines of a version by COPY."""
    lines = (
        _line(
            version_id, r.seq, r.line, _text(r.field), _text(r.value), _text(r.reason), _text(r.raw)
        )
        for r in refusals
    )
    await _copy(connection, _SQL["copy_refusals"], lines)


async def copy_changes(
    connection: Connection, version_id: int, changes: Iterable[RateChange]
) -> None:
    """Write the changes of a version by COPY."""
    lines = (
        _line(
            version_id,
            c.seq,
            c.status,
            c.prefix,
            _text(c.destination),
            _null(c.effective),
            _null(c.old_price),
            _null(c.new_price),
            "t" if c.suspicious else "f",
        )
        for c in changes
    )
    await _copy(connection, _SQL["copy_changes"], lines)


async def _copy(
    connection: Connection,
    sql: LiteralString,
    lines: Iterator[str],
    progress: Callable[[int], None] = lambda _: None,
) -> None:
    done = 0
    async with connection.cursor() as cursor, cursor.copy(sql) as copy:
        while page := list(islice(lines, PAGE_ROWS)):
            await copy.write("".join(page))
            done += len(page)
            progress(done)


def _row_lines(version_id: int, rows: Sequence[RateRow]) -> Iterator[str]:
    """Rows in COPY's text format. A deck shares its tariffs and names: each is written out once."""
    terms: dict[int, str] = {}
    names: dict[str, str] = {}
    for number, row in enumerate(rows, 1):
        tariff = row.tariff
        priced = terms.get(id(tariff))
        if priced is None:
            priced = terms[id(tariff)] = "\t".join(
                (
                    f"{tariff.first_price:f}",
                    f"{tariff.next_price:f}",
                    str(tariff.first_interval),
                    str(tariff.next_interval),
                    f"{tariff.connect_fee:f}",
                    f"{tariff.attempt_fee:f}",
                    f"{tariff.minimum:f}",
                    str(tariff.free_below),
                    f"{tariff.surcharge:f}",
                    "\\N" if tariff.cap is None else f"{tariff.cap:f}",
                )
            )
        name = names.get(row.destination)
        if name is None:
            name = names[row.destination] = _text(row.destination)
        start = "\\N" if row.valid_from is None else row.valid_from.isoformat()
        end = "\\N" if row.valid_to is None else row.valid_to.isoformat()
        blocked = "t" if row.blocked else "f"
        yield f"{version_id}\t{number}\t{row.prefix}\t{name}\t{priced}\t{blocked}\t{start}\t{end}\n"


def _line(*cells: object) -> str:
    return "\t".join([str(cell) for cell in cells]) + "\n"


def _text(value: str) -> str:
    """Escape a text for COPY; the characters that PostgreSQL cannot hold are replaced."""
    plain = value.replace("\x00", "\ufffd").encode("utf-8", "replace").decode("utf-8")
    return (
        plain.replace("\\", "\\\\").replace("\t", "\\t").replace("\n", "\\n").replace("\r", "\\r")
    )


def _null(value: datetime | Decimal | None) -> str:
    if value is None:
        return "\\N"
    return value.isoformat() if isinstance(value, datetime) else f"{value:f}"


# --- rows, read ----------------------------------------------------------------------------------

_Stored = tuple[int, str, str, bool, datetime | None, datetime | None, str]


class RateBuilder:
    """Stored rows to rows of the core; equal tariffs, names and times are one object."""

    def __init__(self, card: RateCard) -> None:
        self._decimals = card.decimals
        self._rounding = Rounding(card.rounding)
        self._per = card.per
        self._tariffs: dict[str, Tariff] = {}
        self._names: dict[str, str] = {}
        self._times: dict[datetime | None, datetime | None] = {}

    def build(self, stored: Iterable[_Stored]) -> list[RateRow]:
        """Build rows; ``row_id`` is the number of the row in its version."""
        tariffs, name_of, time_of = self._tariffs, self._names.setdefault, self._times.setdefault
        out = []
        for number, prefix, name, blocked, start, end, terms in stored:
            tariff = tariffs.get(terms)
            if tariff is None:
                tariff = tariffs[terms] = self.tariff(terms)
            out.append(
                RateRow(
                    prefix,
                    name_of(name, name),
                    tariff,
                    blocked,
                    time_of(start, start),
                    time_of(end, end),
                    number,
                )
            )
        return out

    def tariff(self, terms: str) -> Tariff:
        """Build a tariff from its terms, as the queries write them."""
        cells = terms.split(" ")
        return Tariff(
            first_price=Decimal(cells[0]),
            next_price=Decimal(cells[1]),
            first_interval=int(cells[2]),
            next_interval=int(cells[3]),
            connect_fee=Decimal(cells[4]),
            attempt_fee=Decimal(cells[5]),
            minimum=Decimal(cells[6]),
            free_below=int(cells[7]),
            surcharge=Decimal(cells[8]),
            # The cap stands last because concat_ws leaves it out where there is none.
            cap=Decimal(cells[9]) if len(cells) > 9 else None,
            decimals=self._decimals,
            rounding=self._rounding,
            per=self._per,
        )


async def read_rows(connection: Connection, card: RateCard, version: RateVersion) -> list[RateRow]:
    """Read all rows of a version in the order of their numbers, page by page."""
    return [row async for page in _pages(connection, card, version) for row in page]


async def _pages(
    connection: Connection, card: RateCard, version: RateVersion
) -> AsyncIterator[list[RateRow]]:
    builder = RateBuilder(card)
    # Pages are ranges of row numbers, so that the primary key serves them also where the planner
    # knows nothing yet of a table that was just filled.
    for last in range(0, version.row_count, PAGE_ROWS):
        async with connection.cursor(row_factory=tuple_row) as cursor:
            await cursor.execute(_SQL["rows"], (version.id, last, last + PAGE_ROWS))
            yield builder.build(await cursor.fetchall())


async def read_rows_of(
    connection: Connection, card: RateCard, version: RateVersion, prefixes: Sequence[str]
) -> list[RateRow]:
    """Read only the rows of these prefixes."""
    async with connection.cursor(row_factory=tuple_row) as cursor:
        await cursor.execute(_SQL["rows_of_prefixes"], (version.id, list(prefixes)))
        return RateBuilder(card).build(await cursor.fetchall())


async def load_card(connection: Connection, card_id: int) -> Card | None:
    """Compile the active version of a card; None where the card or an active version is missing.

    Calls go on being answered meanwhile: rows come in small pages, and the table is built in a
    thread.
    """
    found: DictRow | None = await (
        await connection.execute(_SQL["card_by_id"], (card_id,))
    ).fetchone()
    if found is None or found["active_version"] is None:
        return None
    card = RateCard(**found)
    version = await read_version(connection, card_id, found["active_version"])
    assert version is not None, "an active version is never deleted"
    rows = await read_rows(connection, card, version)
    table = await asyncio.to_thread(PrefixTable, rows)
    return Card(card.id, card.code, version.version, card.currency, table)
