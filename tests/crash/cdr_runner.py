"""A process that loads a day's file, and goes on after whatever happened until it is done."""

from __future__ import annotations

import asyncio
import sys
import traceback
from datetime import UTC, datetime
from pathlib import Path

from tollkeeper.cli.bench.cdr_day import MAPPING
from tollkeeper.cli.bench.cdr_world import SWITCH
from tollkeeper.errors import Busy
from tollkeeper.services.cdr.load import FileReport, LoadJob, load_file
from tollkeeper.store.db import Database

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)


async def load(url: str, path: Path, records_per_part: int) -> FileReport:
    """Load the file; where the database is away or somebody else loads, try again."""
    job = LoadJob(
        path, SWITCH, "csv", mapping=MAPPING, actor="test", records_per_part=records_per_part
    )
    database = Database(url, size=3, min_size=0)
    await database.open()
    try:
        while True:
            try:
                return await load_file(database, job, clock=lambda: NOW)
            except Busy as busy:
                print(busy, file=sys.stderr, flush=True)
                await asyncio.sleep(0.05)
    finally:
        await database.close()


def run(url: str, path: Path, records_per_part: int, log: Path) -> None:
    """The whole life of the process; what it has to say goes to ``log``."""
    with log.open("a", encoding="utf-8") as file:
        sys.stderr = file
        try:
            asyncio.run(load(url, path, records_per_part))
        except BaseException:
            traceback.print_exc()
            raise
