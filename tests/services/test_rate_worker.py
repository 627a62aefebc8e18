"""Imports in a process of their own: cancelled, killed, too many; and fast enough for real decks."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tollkeeper.core.tariff import Card
from tollkeeper.errors import Busy, Conflict, InvalidInput, NotFound, TollkeeperError
from tollkeeper.services import rate_worker, rates
from tollkeeper.services.rate_import import ImportJob
from tollkeeper.services.rate_worker import Failed
from tollkeeper.services.rates import ImportReport
from tollkeeper.store.db import Database
from tollkeeper.store.rates import load_card
from tollkeeper.wire.ratesheet import SheetOptions

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
ROOT = Path(__file__).parents[2]
DECKS = Path(os.environ.get("TOLLKEEPER_SHARED_DATA", ROOT.parent / "shared" / "data")) / "decks"
real_decks = pytest.mark.skipif(
    not DECKS.is_dir(), reason="no real decks here; TOLLKEEPER_SHARED_DATA names their folder"
)


def sheet(rows: int) -> bytes:
    lines = [f"{100_000 + n},Place {n // 20},0.{n % 997 + 1:04}" for n in range(rows)]
    return ("prefix,destination,rate\n" + "\n".join(lines) + "\n").encode()


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    opened = Database(database_url, size=4)
    await opened.open()
    await rates.create_card(opened, code="retail", currency="USD", actor="test")
    yield opened
    await opened.close()


async def load(database: Database, data: bytes, say: rates.Say | None = None) -> ImportReport:
    return await rates.import_sheet(
        database, card="retail", data=data, actor="test", now=NOW, progress=say
    )


async def compiled(database: Database) -> Card:
    (card,) = await rates.list_cards(database)
    async with database.read() as connection:
        made = await load_card(connection, card.id)
    assert made is not None
    return made


def children() -> set[int]:
    """Processes started by this one."""
    return {
        int(pid)
        for task in Path("/proc/self/task").iterdir()
        for pid in (task / "children").read_text().split()
    }


async def test_the_worker_tells_how_far_it_is(database: Database) -> None:
    told: list[tuple[str, int, int]] = []
    report = await load(database, sheet(25_000), lambda *what: told.append(what))
    assert report.rows_stored == 25_000
    assert list(dict.fromkeys(stage for stage, _, _ in told)) == ["reading", "comparing", "storing"]
    for stage in ("reading", "comparing", "storing"):
        done = [done for name, done, _ in told if name == stage]
        assert done == sorted(done)
        assert done[-1] == 25_000
    assert ("storing", 10_000, 25_000) in told or ("storing", 12_000, 25_000) in told


async def test_a_cancelled_import_ends_its_process_and_stores_nothing(database: Database) -> None:
    before = children()
    started = asyncio.Event()
    task = asyncio.create_task(load(database, sheet(50_000), lambda *_: started.set()))
    await asyncio.wait_for(started.wait(), 20)
    assert len(children() - before) == 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert children() == before
    assert await rates.versions(database, "retail") == []
    assert (await load(database, sheet(10))).rows_stored == 10


async def test_a_killed_worker_is_reported_and_stores_nothing(database: Database) -> None:
    before = children()

    def kill(stage: str, *_: int) -> None:
        if stage == "comparing":
            for pid in children() - before:
                os.kill(pid, signal.SIGKILL)

    with pytest.raises(Busy) as caught:
        await load(database, sheet(50_000), kill)
    assert caught.value.code == "import_stopped"
    assert "signal 9" in caught.value.detail
    assert await rates.versions(database, "retail") == []


async def test_a_worker_that_fails_says_so_and_leaves_the_reason_to_the_log(
    database: Database, capfd: pytest.CaptureFixture[str]
) -> None:
    job = ImportJob(
        url=database.url,
        card="retail",
        data=None,  # type: ignore[arg-type]  # what no caller sends: a fault of ours
        options=SheetOptions(),
        mode="full",
        dry_run=False,
        file_name="",
        actor="test",
        at=NOW,
    )
    with pytest.raises(TollkeeperError) as caught:
        await rate_worker.import_in_process(job, lambda *_: None)
    assert (caught.value.code, caught.value.http_status) == ("import_failed", 500)
    assert "TypeError" in capfd.readouterr().err


async def test_more_imports_than_allowed_are_told_to_come_again(database: Database) -> None:
    started = asyncio.Event()
    most = rate_worker.IMPORTS_MAX
    tasks = [
        asyncio.create_task(load(database, sheet(20_000), lambda *_: started.set()))
        for _ in range(most)
    ]
    await asyncio.wait_for(started.wait(), 20)
    with pytest.raises(Busy) as caught:
        await load(database, sheet(10))
    assert caught.value.code == "imports_running"
    reports = await asyncio.gather(*tasks)
    assert sorted(report.version or 0 for report in reports) == list(range(1, most + 1))


@pytest.mark.parametrize("kind", [InvalidInput, NotFound, Conflict, Busy])
def test_errors_keep_their_kind_on_the_way(kind: type[TollkeeperError]) -> None:
    error = rate_worker._error(Failed(kind.__name__, "no", "some_code", "card"))
    assert type(error) is kind
    assert (error.detail, error.code, error.field) == ("no", "some_code", "card")


@pytest.mark.slow
async def test_two_hundred_thousand_rows_are_in_force_within_fifteen_seconds(
    database: Database,
) -> None:
    """And compiled within three, with calls being answered in between."""
    data = sheet(200_000)
    began = time.monotonic()
    report = await load(database, data)
    await rates.activate(database, card="retail", version=1, actor="test", now=NOW)
    taken = time.monotonic() - began
    assert report.rows_stored == report.row_count == 200_000
    began = time.monotonic()
    card = await compiled(database)
    compiling = time.monotonic() - began
    assert card.table.size == 200_000
    assert taken < 15, f"imported and activated in {taken:.1f} s"
    assert compiling < 3, f"compiled in {compiling:.1f} s"


@real_decks
@pytest.mark.parametrize(
    ("name", "counts", "changed"),
    [
        ("aria_2022-02.csv", (23_611, 23_576, 2, 33), {"new": 17_902, "blocked": 5_674}),
        ("wavecrest_2022-03.csv", (20_206, 20_206, 0, 0), {"new": 17_718, "blocked": 2_488}),
        ("astpp_outbound_routes.csv", (36_205, 36_205, 0, 0), {"new": 36_205}),
        ("asterisell_international_example.csv", (11_894, 11_894, 0, 0), {"new": 11_894}),
        ("nanp_npanxx_scrub.csv.gz", (184_215, 184_215, 0, 0), {"new": 184_215}),
    ],
)
async def test_real_decks_are_stored_to_the_last_row(
    database: Database, name: str, counts: tuple[int, int, int, int], changed: dict[str, int]
) -> None:
    data = (DECKS / name).read_bytes()
    report = await load(database, data)
    assert counts == (
        report.rows_in,
        report.rows_stored,
        report.rows_refused,
        report.rows_repeated,
    )
    assert {status: n for status, n in report.counts.items() if n} == changed
    assert report.row_count == report.rows_stored
    await rates.activate(database, card="retail", version=1, actor="test", now=NOW)
    assert (await compiled(database)).table.size == report.rows_stored
    again = await load(database, data)
    assert {status: n for status, n in again.counts.items() if n} == {
        "unchanged": report.rows_stored
    }
