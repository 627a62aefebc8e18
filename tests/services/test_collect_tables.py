"""The day tables of a switch: every row once, also late ones, over the end of the day."""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.services.collecting import Collecting, collecting
from tollkeeper.core.usage import Usage
from tollkeeper.errors import Busy
from tollkeeper.gateways.vos3000_db import NullTables, Row
from tollkeeper.services.collect import CollectReport
from tollkeeper.store.cdr_sources import write_position
from tollkeeper.store.db import Database
from tollkeeper.wire.cdr import vos3000
from tollkeeper.wire.cdr.format import ReadOptions

DAY1, DAY2 = "e_cdr_20260301", "e_cdr_20260302"


def row(flowno: int, **more: Any) -> Row:
    return {
        "callere164": "390612345678",
        "calleee164": "442071838750",
        "starttime": 1_772_366_400_000 + flowno * 1000,
        "stoptime": 1_772_366_460_000 + flowno * 1000,
        "holdtime": 60,
        "flowno": flowno,
        "endreason": 0,
        **more,
    }


def flownos(at: Collecting) -> list[int]:
    """The running numbers of all rows loaded, in order."""
    return [
        int(each["flowno"])
        for _, data in at.load.loaded
        for each in csv.DictReader(io.StringIO(data.decode()))
    ]


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    made = Database(database_url, size=4)
    await made.open()
    yield made
    await made.close()


class Switch:
    """A source on tables in memory."""

    def __init__(self, at: Collecting) -> None:
        self.at = at
        self.tables = NullTables(datetime.fromisoformat("2026-03-01T12:00"), {DAY1: []})

    async def round(self) -> CollectReport:
        """Make a round without a fault; ten seconds pass afterwards."""

        async def connect(_: object) -> NullTables:
            return self.tables

        report = await self.at.round(tables=connect)
        assert report.error == ""
        self.at.clock.pass_()
        self.tables.at += timedelta(seconds=10)
        return report

    def write(self, table: str, *numbers: int) -> None:
        """Rows with these running numbers, written in this order."""
        self.tables.content.setdefault(table, []).extend(row(n, callerip=table) for n in numbers)


async def switch(database: Database, tmp_path: Path, **settings: Any) -> Switch:
    made = await collecting(
        database,
        tmp_path / "spool",
        kind="mysql",
        format_="vos3000",
        secret="pw",
        host="db",
        user="u",
        database="vos3000",
        **{"settle_seconds": 10, "since": "2026-03-01", **settings},
    )
    return Switch(made)


async def test_rows_are_read_when_they_have_rested(database: Database, tmp_path: Path) -> None:
    """3 is written after 4, as by a slower writer: it is there when 4 has rested."""
    sw = await switch(database, tmp_path)
    sw.write(DAY1, 1, 2, 4)
    await sw.round()
    assert flownos(sw.at) == []
    sw.write(DAY1, 3, 5)
    await sw.round()
    assert flownos(sw.at) == [1, 2, 3, 4]
    await sw.round()
    assert flownos(sw.at) == [1, 2, 3, 4, 5]
    assert (await sw.round()).files == ()
    assert sw.at.load.names == [f"{DAY1}-1-4.csv", f"{DAY1}-5-5.csv"]


async def test_rows_come_in_pages(database: Database, tmp_path: Path) -> None:
    sw = await switch(database, tmp_path, page=2, settle_seconds=0)
    sw.write(DAY1, 1, 2, 3, 4, 5)
    await sw.round()
    assert sw.at.load.names == [f"{DAY1}-{a}-{b}.csv" for a, b in ((1, 2), (3, 4), (5, 5))]
    assert flownos(sw.at) == [1, 2, 3, 4, 5]


async def test_the_next_day_is_read_and_late_rows_of_the_last_one_too(
    database: Database, tmp_path: Path
) -> None:
    sw = await switch(database, tmp_path, settle_seconds=0, late_hours=2)
    sw.write(DAY1, 1)
    await sw.round()
    sw.tables.at = datetime.fromisoformat("2026-03-02T00:05")
    sw.write(DAY2, 1)
    await sw.round()
    sw.write(DAY1, 2)
    sw.write(DAY2, 2)
    await sw.round()
    assert sw.at.load.names == [
        f"{DAY1}-1-1.csv", f"{DAY2}-1-1.csv", f"{DAY1}-2-2.csv", f"{DAY2}-2-2.csv",
    ]  # fmt: skip
    sw.tables.at = datetime.fromisoformat("2026-03-02T02:00")
    await sw.round()
    position = await sw.at.column("position")
    assert (position["first"], list(position["tables"])) == ("2026-03-02", [DAY2])
    sw.write(DAY1, 3)
    assert (await sw.round()).files == ()


async def test_without_a_first_day_it_begins_with_today(database: Database, tmp_path: Path) -> None:
    sw = await switch(database, tmp_path, settle_seconds=0, since=None)
    sw.write("e_cdr_20260228", 1)
    sw.write(DAY1, 7)
    await sw.round()
    assert sw.at.load.names == [f"{DAY1}-7-7.csv"]


async def test_rows_that_were_spooled_before_a_crash_are_not_read_again(
    database: Database, tmp_path: Path
) -> None:
    """The page is in the spool, and the process died before the position was stored."""
    sw = await switch(database, tmp_path, settle_seconds=0)
    sw.write(DAY1, 1, 2)
    sw.at.load.faults[f"{DAY1}-1-2.csv"] = Busy("the database does not answer")

    async def connect(_: object) -> NullTables:
        return sw.tables

    assert (await sw.at.round(tables=connect)).error == "the database does not answer"
    async with database.write() as connection:
        await write_position(connection, sw.at.source.id, {"first": "2026-03-01"})
    sw.at.load.faults.clear()
    sw.write(DAY1, 3)
    await sw.round()
    assert sw.at.load.names == [f"{DAY1}-1-2.csv", f"{DAY1}-3-3.csv"]


async def test_what_is_spooled_is_what_the_codec_reads(database: Database, tmp_path: Path) -> None:
    sw = await switch(database, tmp_path, settle_seconds=0)
    sw.tables.content[DAY1] = [
        row(1, customername='a, "b"\nc', fee=None),
        row(2, customername="d", fee="0.1"),
    ]
    await sw.round()
    ((_, data),) = sw.at.load.loaded
    items = list(vos3000.read(io.BytesIO(data), ReadOptions()))
    records = [item for item in items if isinstance(item, Usage)]
    assert [(r.leg, r.caller, r.called, r.duration_ms) for r in records] == [
        ("1", "390612345678", "442071838750", 60_000),
        ("2", "390612345678", "442071838750", 60_000),
    ]
    assert len(items) == 3
