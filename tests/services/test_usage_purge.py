"""What is purged was past its time; what the settings keep is kept."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.services.usage_rows import (
    DAY,
    FIRST,
    NOW,
    Books,
    fill,
    found,
    stored,
)
from tollkeeper.errors import InvalidInput, SetupError
from tollkeeper.services import archive
from tollkeeper.services.archive import (
    ArchivePlace,
    archive_day,
    place_for,
    policy_days,
    purge,
)
from tollkeeper.settings import Settings, load_settings
from tollkeeper.store import archive as store
from tollkeeper.store.db import Database

POLICY = date(2026, 4, 1)


@pytest.fixture
def books(database_url: str) -> Iterator[Books]:
    made = Books(database_url)
    yield made
    made.world.close()


@pytest_asyncio.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    made = Database(database_url, size=3)
    await made.open()
    yield made
    await made.close()


@pytest.fixture
def place(tmp_path: Path) -> ArchivePlace:
    return ArchivePlace((tmp_path / "archive").as_uri(), tmp_path / "work")


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "DROP_PAUSE_SECONDS", 0.05)
    monkeypatch.setattr(archive, "DROP_ATTEMPTS", 2)


# --- purging -------------------------------------------------------------------------------------


async def test_a_purge_takes_records_keys_and_files_and_leaves_sums_and_journal(
    books: Books, database: Database, place: ArchivePlace, tmp_path: Path
) -> None:
    fill(books)
    fill(books, DAY + timedelta(days=1))
    kept = fill(books, POLICY)
    await archive_day(database, place, DAY, now=NOW)
    entries = books.world.sql("SELECT * FROM entry ORDER BY id")
    arguments = {"before": POLICY, "policy": POLICY, "now": NOW, "actor": "test"}
    plan = await purge(database, place, **arguments)  # type: ignore[arg-type]
    assert [(d.day, d.archived_rows) for d in plan.days] == [
        (DAY, 50),
        (DAY + timedelta(days=1), 0),
    ]
    assert len(stored(tmp_path)) == 3
    assert books.world.sql("SELECT * FROM audit WHERE action = 'usage.purge'") == []
    done = await purge(database, place, **arguments, dry_run=False)  # type: ignore[arg-type]
    assert done.days == plan.days
    assert stored(tmp_path) == []
    for table in ("usage", "usage_leg", "usage_revision", "usage_key"):
        assert books.partitions(table) == [f"{table}_20260401"]
    assert len(books.partitions("usage_hour")) == 3
    assert books.world.sql("SELECT * FROM entry ORDER BY id") == entries
    (trail,) = books.world.sql("SELECT actor, detail FROM audit WHERE action = 'usage.purge'")
    assert (trail["actor"], trail["detail"]["days"], trail["detail"]["archived_rows"]) == (
        "test",
        2,
        50,
    )
    assert await found(database, since=FIRST, until=NOW) == kept
    async with database.read() as connection:
        assert await store.read_purged_before(connection) == POLICY
    again = await purge(database, place, **arguments, dry_run=False)  # type: ignore[arg-type]
    assert again.days == ()


async def test_a_purge_that_was_interrupted_is_finished_by_the_next(
    books: Books,
    database: Database,
    place: ArchivePlace,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for n in range(3):
        fill(books, DAY + timedelta(days=n), rows=5)
        await archive_day(database, place, DAY + timedelta(days=n), now=NOW)
    whole, calls = archive._purge_day, 0

    async def dies(*given: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise OSError("power cut")
        await whole(*given)

    monkeypatch.setattr(archive, "_purge_day", dies)
    arguments = {"before": POLICY, "policy": POLICY, "now": NOW, "actor": "test", "dry_run": False}
    with pytest.raises(OSError, match="power cut"):
        await purge(database, place, **arguments)  # type: ignore[arg-type]
    assert len(await found(database, since=FIRST, until=NOW)) == 10
    await purge(database, place, **arguments)  # type: ignore[arg-type]
    assert await found(database, since=FIRST, until=NOW) == []
    assert stored(tmp_path) == []


@pytest.mark.parametrize("policy", [None, POLICY - timedelta(days=1)])
async def test_what_the_settings_keep_is_not_purged(
    books: Books, database: Database, place: ArchivePlace, policy: date | None
) -> None:
    names = fill(books)
    with pytest.raises(InvalidInput, match="usage_keep_days"):
        await purge(
            database, place, before=POLICY, policy=policy, now=NOW, actor="test", dry_run=False
        )
    assert await found(database, since=FIRST, until=NOW) == names


# --- settings ------------------------------------------------------------------------------------


def test_records_are_kept_for_a_year_at_least(monkeypatch: pytest.MonkeyPatch) -> None:
    assert policy_days(Settings(), NOW) == (date(2026, 4, 5), date(2025, 4, 15))
    assert policy_days(Settings(usage_keep_days=0), NOW)[1] is None
    for days in ("1", "365", "-1"):
        monkeypatch.setenv("TOLLKEEPER_USAGE_KEEP_DAYS", days)
        with pytest.raises(SetupError, match="usage_keep_days"):
            load_settings()


@pytest.mark.parametrize(
    ("url", "uri"),
    [
        ("", "file:///data/archive"),
        ("/mnt/cold store", "file:///mnt/cold%20store"),
        ("file:///mnt/cold", "file:///mnt/cold"),
        ("s3://cdrs/x?region=eu-south-1", "s3://cdrs/x?region=eu-south-1"),
    ],
)
def test_the_archive_is_a_folder_or_a_bucket(url: str, uri: str) -> None:
    assert place_for(Settings(data_dir=Path("/data"), archive_url=url)).uri == uri


@pytest.mark.parametrize("url", ["s3://key:secret@cdrs/x", "ftp://host/x", "s3://b/x?secret_key=1"])
def test_an_address_that_cannot_be_used_is_refused(url: str) -> None:
    with pytest.raises(SetupError, match="archive_url"):
        place_for(Settings(archive_url=url))
