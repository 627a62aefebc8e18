"""Reading the day tables of a VOS3000 switch: rows become CSV files in the spool, as it exports them.

How far a table was read is its last ``flowno``. The switch hands numbers out before it writes the
rows, so a row may appear behind one with a higher number. Therefore the highest number seen is only
a bound at first: rows up to it are read when it has rested for ``settle_seconds``. The table of a
day is looked at until ``late_hours`` after the day has ended by the server's own clock, for what
is written late; then it is left for good.
"""

from __future__ import annotations

import asyncio
import csv
import io
import re
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Any, Self

import msgspec

from tollkeeper.gateways.vos3000_db import Cell, DayTables, Row, ServerTime, day_of
from tollkeeper.services.collect_files import Taker
from tollkeeper.services.source_settings import TableSettings
from tollkeeper.services.spool import SpooledFile
from tollkeeper.store import cdr_sources as store
from tollkeeper.store.cdr_sources import CdrSource

ROWS_AT_ONCE = 1000

_NAME = re.compile(r"(e_cdr_\d{8})-(\d+)-(\d+)\.csv")
_BREAKS = str.maketrans("\r\n\x00", "   ")
"""A record is a line; what would break it is a space instead."""


@dataclass
class TablePosition:
    """How far one table was read: ``done`` is the last number read, ``bound`` the highest seen."""

    done: int = 0
    bound: int = 0
    bound_at: str = ""


@dataclass
class Position:
    """How far a switch was read. Tables of days before ``first`` are not looked at any more."""

    first: str = ""
    tables: dict[str, TablePosition] = field(default_factory=dict)

    @classmethod
    def of(cls, stored: dict[str, Any]) -> Self:
        """The position as it was stored."""
        return msgspec.convert(stored, cls)


async def catch_up(taker: Taker, waiting: Sequence[SpooledFile]) -> None:
    """Move on over rows that are in the spool already: a crash came before that was noted."""
    position = await _read(taker)
    moved = False
    for file in waiting:
        match = _NAME.fullmatch(file.name)
        if match is not None:
            table = position.tables.setdefault(match[1], TablePosition())
            moved = moved or table.done < int(match[3])
            table.done = max(table.done, int(match[3]))
    if moved:
        await _write(taker, position)


async def collect(
    taker: Taker,
    settings: TableSettings,
    connect: Callable[[CdrSource], Awaitable[DayTables]],
) -> None:
    """Read what is new in each table that is not closed, a page at a time, and load it.

    Raises:
        FilesFailed: the database is away. Busy: nothing more can be loaded now.
    """
    tables = await connect(taker.source)
    try:
        position = await _read(taker)
        server = await tables.clock()
        if not position.first:
            position.first = (settings.since or server.day).isoformat()
        for table in await tables.tables():
            day = day_of(table)
            if day is not None and day >= date.fromisoformat(position.first):
                await _collect_table(taker, settings, tables, position, table)
        _close_days(position, settings, server)
        await _write(taker, position)
    finally:
        await tables.close()


async def _collect_table(
    taker: Taker, settings: TableSettings, tables: DayTables, position: Position, table: str
) -> None:
    at = position.tables.setdefault(table, TablePosition())
    await _settle(taker, tables, at, table)
    while at.done < at.bound and _rested(taker, settings, at):
        rows = await tables.rows(table, after=at.done, upto=at.bound, limit=settings.page)
        if not rows:
            # Numbers can be missing; all up to the bound has been seen.
            at.done = at.bound
            break
        first, last = int(rows[0]["flowno"] or 0), int(rows[-1]["flowno"] or 0)
        file = await asyncio.to_thread(_spool_rows, taker, f"{table}-{first}-{last}.csv", rows)
        at.done = last
        await _write(taker, position)
        await taker.take(file)
    await _settle(taker, tables, at, table)
    await _write(taker, position)


async def _settle(taker: Taker, tables: DayTables, at: TablePosition, table: str) -> None:
    """Note the highest number as the next bound, when all up to the last one was read."""
    if at.done < at.bound:
        return
    highest = await tables.last(table)
    if highest > at.bound:
        at.bound, at.bound_at = highest, taker.clock().isoformat()


def _rested(taker: Taker, settings: TableSettings, at: TablePosition) -> bool:
    rested = taker.clock() - datetime.fromisoformat(at.bound_at)
    return rested >= timedelta(seconds=settings.settle_seconds)


def _close_days(position: Position, settings: TableSettings, server: ServerTime) -> None:
    """Leave tables behind whose day is over for good and that were read to their end."""
    for table, at in sorted(position.tables.items()):
        day = day_of(table)
        assert day is not None
        end = datetime(day.year, day.month, day.day) + timedelta(days=1, hours=settings.late_hours)  # noqa: DTZ001 (the server's own clock has no zone)
        if at.done < at.bound or server.at < end:
            return
        position.first = (day + timedelta(days=1)).isoformat()
        del position.tables[table]


def _spool_rows(taker: Taker, name: str, rows: Sequence[Row]) -> SpooledFile:
    with taker.spool.receive(taker.source.code) as incoming:
        incoming.write(_csv([list(rows[0])]))
        for begin in range(0, len(rows), ROWS_AT_ONCE):
            some = rows[begin : begin + ROWS_AT_ONCE]
            incoming.write(_csv([list(row.values()) for row in some]))
        return taker.spool.keep(incoming, taker.source.code, name, taker.source)


def _csv(rows: Iterable[Sequence[Cell]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(
        ["" if cell is None else str(cell).translate(_BREAKS) for cell in row] for row in rows
    )
    return text.getvalue().encode()


async def _read(taker: Taker) -> Position:
    async with taker.database.read() as connection:
        return Position.of(await store.read_position(connection, taker.source.id))


async def _write(taker: Taker, position: Position) -> None:
    async with taker.database.write() as connection:
        await store.write_position(connection, taker.source.id, msgspec.to_builtins(position))
