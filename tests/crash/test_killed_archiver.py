"""The archiver is killed at any stage: each record is there once, and the next run tidies up."""

from __future__ import annotations

import asyncio
import contextlib
import random
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from tests.services.usage_rows import FIRST, Books, all_pages, fill, names_of, stored
from tests.support import until
from tollkeeper.store import archive_files as files
from tollkeeper.store.db import Database

pytestmark = pytest.mark.crash

PROGRAM = """
import asyncio, sys
from datetime import UTC, date, datetime
from pathlib import Path
from tollkeeper.services.archive import ArchivePlace, archive_day
from tollkeeper.store.db import Database

async def work():
    database = Database(sys.argv[1], size=2)
    await database.open()
    place = ArchivePlace(sys.argv[2], Path(sys.argv[3]))
    said = lambda stage, done, total: print(stage, flush=True)
    await archive_day(database, place, date(2026, 3, 1), now=datetime(2026, 5, 20, tzinfo=UTC), progress=said)
    print("over", flush=True)

asyncio.run(work())
"""
STAGES = ("copied", "sorted", "stored", "checked")
ROUNDS = 12


def start(*arguments: str) -> subprocess.Popen[str]:
    """An archiver of its own."""
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def killed(stage: str, seconds: float, *arguments: str) -> str:
    """Start an archiver, and kill it some time after it came to a stage; what it said last."""
    with start(*arguments) as process:
        assert process.stdout is not None
        said = next((line for line in process.stdout if stage in line or "over" in line), "")
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(seconds)
        process.kill()
    return said.strip()


def finished(*arguments: str) -> bool:
    """Run an archiver to its end; False where it found another one's lock still held."""
    with start(*arguments) as process:
        said, _ = process.communicate(timeout=120)
    return "over" in said


async def test_an_archiver_killed_at_any_stage_loses_and_doubles_nothing(
    database_url: str, tmp_path: Path
) -> None:
    dice = random.Random(4)
    books = Books(database_url)
    names = fill(books, rows=3000)
    database = Database(database_url, size=2)
    await database.open()
    arguments = (database_url, (tmp_path / "archive").as_uri(), str(tmp_path / "work"))
    span = {"since": FIRST, "until": FIRST + timedelta(days=1)}
    seen = set()
    try:
        for number in range(ROUNDS):
            stage = STAGES[number % len(STAGES)]
            seen.add(await asyncio.to_thread(killed, stage, dice.random() / 5, *arguments))
            assert names_of(await all_pages(database, limit=1000, **span)) == names
        # The database may need a moment to see that the killed one is gone.
        await until(lambda: asyncio.to_thread(finished, *arguments), seconds=120)
        assert names_of(await all_pages(database, limit=1000, **span)) == names
        assert books.partitions() == []
    finally:
        await database.close()
        books.world.close()
    assert len(seen) >= 2, seen
    assert len({Path(path).parent for path in stored(tmp_path)}) == 1
    assert sorted(Path(path).name for path in stored(tmp_path)) == sorted(files.FILES)
    assert list((tmp_path / "work").iterdir()) == []
