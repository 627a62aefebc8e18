"""Days move to the archive whole or not at all, and are found as they were."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Iterator
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import pytest_asyncio
from pyarrow import fs

from tests.services.usage_rows import (
    DAY,
    FIRST,
    NOW,
    Books,
    all_pages,
    fill,
    folder_of,
    found,
    names_of,
    stored,
)
from tollkeeper.errors import Breach, Busy, Conflict, SetupError
from tollkeeper.jobs.archiving import Archiving
from tollkeeper.services import archive
from tollkeeper.services.archive import (
    ArchivePart,
    ArchivePlace,
    archive_day,
    archive_due,
    check_part,
    due_days,
    list_parts,
)
from tollkeeper.settings import Settings
from tollkeeper.store import archive as store
from tollkeeper.store import archive_files as files
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


# --- what a part is ------------------------------------------------------------------------------


async def test_an_archived_day_is_found_as_it_was(
    books: Books, database: Database, place: ArchivePlace
) -> None:
    names = fill(books)
    before = await all_pages(database, limit=1000, since=FIRST, until=FIRST + timedelta(days=1))
    part = await archive_day(database, place, DAY, now=NOW)
    after = await all_pages(database, limit=1000, since=FIRST, until=FIRST + timedelta(days=1))
    assert after == before
    assert names_of(after) == names
    assert part is not None
    assert (part.rows, part.charge) == (50, Decimal(1225) / 8)
    assert books.partitions() == []
    assert books.partitions("usage_key") == ["usage_key_20260301"]
    assert books.partitions("usage_hour") == ["usage_hour_20260301"]
    assert await list_parts(database, since=DAY, until=DAY) == [part]


async def test_the_files_are_sorted_compressed_and_their_checksums_noted(
    books: Books, database: Database, place: ArchivePlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "ROW_GROUP_ROWS", 2048)
    fill(books, rows=5000)
    part = await archive_day(database, place, DAY, now=NOW)
    assert part is not None
    for name, column in ((files.USAGE, "called"), *files.INDEXES.items()):
        path = folder_of(part) / name
        table = pq.read_table(path)
        values = table[column].to_pylist()
        assert values == sorted(values)
        meta = pq.read_metadata(path)
        assert (meta.num_rows, meta.num_row_groups) == (5000, 3)
        chunk = meta.row_group(0).column(table.schema.names.index(column))
        assert (chunk.compression, chunk.statistics.has_min_max) == ("ZSTD", True)
        assert part.files[name]["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    table = pq.read_table(folder_of(part) / files.USAGE)
    assert table.schema == files.SCHEMA
    assert table["charge"].type == pa.decimal128(28, 8)
    assert part.sha256 == part.files[files.USAGE]["sha256"]
    assert part.bytes == sum(f.stat().st_size for f in folder_of(part).iterdir())


async def test_texts_of_all_kinds_survive(
    books: Books, database: Database, place: ArchivePlace
) -> None:
    batch = books.batch()
    texts = [
        'a,"b"',
        "line\nbreak",
        "tab\t\\N",
        "",
        "héé 電話",
        "null",
        "NULL",
        "nan",
        " ",
        "\\.",
        "1e5",
        "0x1f",
        "#N/A",
    ]
    for n, text in enumerate(texts):
        books.add(
            batch, n, FIRST, call_id=text, caller=text, leg=text, called=text, destination=text
        )
    await archive_day(database, place, DAY, now=NOW)
    views = await all_pages(database, limit=100, since=FIRST, until=FIRST + timedelta(days=1))
    for name in ("call_id", "caller", "leg", "called", "destination"):
        assert [getattr(view, name) for view in views] == texts
    for n, text in enumerate(texts):
        if text.strip() and text == text.strip():
            assert await found(database, call_id=text) == [(batch, n)]


async def test_late_records_of_an_archived_day_make_a_second_part(
    books: Books, database: Database, place: ArchivePlace
) -> None:
    names = fill(books)
    await archive_day(database, place, DAY, now=NOW)
    late = books.batch()
    books.add(late, 1, FIRST + timedelta(seconds=10))
    expected = [*names[:11], (late, 1), *names[11:]]
    span = {"since": FIRST, "until": FIRST + timedelta(days=1)}
    assert await found(database, **span) == expected
    part = await archive_day(database, place, DAY, now=NOW)
    assert part is not None
    assert (part.part, part.rows) == (2, 1)
    assert await found(database, **span) == expected
    assert await found(database, caller="390612345678") == [(late, 1)]


async def test_a_day_without_records_only_loses_its_partition(
    books: Books, database: Database, place: ArchivePlace, tmp_path: Path
) -> None:
    books.days(DAY)
    assert await archive_day(database, place, DAY, now=NOW) is None
    assert await archive_day(database, place, DAY, now=NOW) is None
    assert (books.partitions(), stored(tmp_path)) == ([], [])
    assert await list_parts(database, since=DAY, until=DAY) == []


async def test_an_archive_in_a_bucket_is_written_and_searched_the_same_way(
    books: Books, database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everything but the network of S3: all reading goes through pyarrow's file system then."""
    (tmp_path / "s3").mkdir()
    bucket = fs.SubTreeFileSystem(str(tmp_path / "s3"), fs.LocalFileSystem())
    monkeypatch.setattr(files, "_filesystem", lambda _: bucket)
    place = ArchivePlace("s3://cdrs/tollkeeper?region=eu-south-1", tmp_path / "work")
    names = fill(books)
    part = await archive_day(database, place, DAY, now=NOW)
    assert part is not None
    assert part.uri.startswith("s3://cdrs/tollkeeper/usage/2026/03/01/part-1-")
    assert part.uri.endswith("?region=eu-south-1")
    assert await found(database, since=FIRST, until=FIRST + timedelta(days=1)) == names
    assert await found(database, called="44007") == [names[1]]
    assert await found(database, called="44007*", since=FIRST, until=FIRST + timedelta(days=1)) == [
        names[1]
    ]
    assert await found(database, call_id=f"call-{names[0][0]}-17") == [names[17]]
    assert await found(database, caller="393") == [name for name in names if name[1] % 5 == 3]
    await check_part(part)


# --- whole or not at all -------------------------------------------------------------------------

STEPS = [
    (files, "sort_part"),
    (files, "store_part"),
    (files, "read_back"),
    (files, "_sync"),
    (store, "add_part"),
    (store, "clear_trash"),
    (store, "drop_day"),
]


@pytest.mark.parametrize(("module", "name"), STEPS, ids=[name for _, name in STEPS])
@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_failure_anywhere_leaves_the_day_where_it_was(
    books: Books,
    database: Database,
    place: ArchivePlace,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    module: Any,
    name: str,
    when: str,
) -> None:
    """The next run removes what was half-written, and succeeds."""
    names = fill(books)
    whole = getattr(module, name)

    def fail() -> None:
        raise OSError(28, "No space left on device")

    if asyncio.iscoroutinefunction(whole):

        async def broken(*given: Any, **named: Any) -> Any:
            result = await whole(*given, **named) if when == "after" else None
            fail()
            return result

        monkeypatch.setattr(module, name, broken)
    else:

        def broken_too(*given: Any, **named: Any) -> Any:
            result = whole(*given, **named) if when == "after" else None
            fail()
            return result

        monkeypatch.setattr(module, name, broken_too)
    with pytest.raises((OSError, SetupError)):
        await archive_day(database, place, DAY, now=NOW)
    monkeypatch.undo()
    span = {"since": FIRST, "until": FIRST + timedelta(days=1)}
    assert await found(database, **span) == names
    assert await list_parts(database, since=DAY, until=DAY) == []
    assert books.partitions() == ["usage_20260301"]
    part = await archive_day(database, place, DAY, now=NOW)
    assert part is not None
    assert await found(database, **span) == names
    home = folder_of(part).relative_to(tmp_path / "archive")
    assert stored(tmp_path) == sorted(str(home / file) for file in files.FILES)
    assert list((tmp_path / "work").iterdir()) == []
    assert books.world.sql("SELECT * FROM archive_trash") == []


async def test_files_that_do_not_hold_what_the_database_holds_are_not_relied_on(
    books: Books, database: Database, place: ArchivePlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = fill(books)
    whole = files.sort_part

    def forgetful(source: Path, folder: Path) -> None:
        table = pq.read_table(source)
        pq.write_table(table.slice(1), source)
        whole(source, folder)

    monkeypatch.setattr(files, "sort_part", forgetful)
    with pytest.raises(Breach, match=r"holds 49 records .* the database 50"):
        await archive_day(database, place, DAY, now=NOW)
    assert await found(database, since=FIRST, until=FIRST + timedelta(days=1)) == names


async def test_an_amount_that_the_files_cannot_hold_keeps_its_day_in_the_database(
    books: Books, database: Database, place: ArchivePlace
) -> None:
    books.add(books.batch(), 1, FIRST, charge=Decimal("0.000000001"))
    with pytest.raises(Breach, match="a record does not fit"):
        await archive_day(database, place, DAY, now=NOW)
    assert books.partitions() == ["usage_20260301"]


async def test_a_part_that_was_changed_is_found_out(
    books: Books, database: Database, place: ArchivePlace
) -> None:
    fill(books)
    part = await archive_day(database, place, DAY, now=NOW)
    assert part is not None
    await check_part(part)
    path = folder_of(part) / files.USAGE
    kept = path.read_bytes()
    for changed in (kept[:-7], kept[:200] + b"?" + kept[201:], b""):
        path.write_bytes(changed)
        with pytest.raises(Breach):
            await check_part(part)
    path.unlink()
    with pytest.raises(Breach):
        await check_part(part)
    with pytest.raises(Conflict, match="cannot be read"):
        await found(database, since=FIRST, until=FIRST + timedelta(days=1))


async def test_who_reads_for_long_makes_the_archiver_give_up_and_nothing_else(
    books: Books, database: Database, place: ArchivePlace
) -> None:
    names = fill(books)
    span = {"since": FIRST, "until": FIRST + timedelta(days=1)}
    with psycopg.connect(database.url) as reader:
        reader.execute("SELECT count(*) FROM usage")
        with pytest.raises(Busy, match="in use"):
            await archive_day(database, place, DAY, now=NOW)
        assert await found(database, **span) == names
    part = await archive_day(database, place, DAY, now=NOW)
    assert part is not None
    assert await found(database, **span) == names


async def test_two_archivers_do_not_meet(
    books: Books, database: Database, place: ArchivePlace
) -> None:
    names = fill(books)
    results = await asyncio.gather(
        *(archive_day(database, place, DAY, now=NOW) for _ in range(3)), return_exceptions=True
    )
    made = [result for result in results if isinstance(result, ArchivePart)]
    assert len(made) == 1
    assert all(isinstance(r, ArchivePart | Busy) or r is None for r in results), results
    assert await found(database, since=FIRST, until=FIRST + timedelta(days=1)) == names


async def test_readers_see_each_record_once_while_days_move(
    books: Books, database: Database, place: ArchivePlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "DROP_ATTEMPTS", 20)
    names = [name for n in range(4) for name in fill(books, DAY + timedelta(days=n), rows=20)]
    over = asyncio.Event()

    async def read() -> int:
        looks = 0
        while not over.is_set():
            assert await found(database, since=FIRST, until=FIRST + timedelta(days=4)) == names
            looks += 1
        return looks

    reading = asyncio.create_task(read())
    mover = Database(database.url, size=2)
    await mover.open()
    try:
        made = await archive_due(mover, place, before=POLICY, now=NOW)
    finally:
        over.set()
        await mover.close()
    assert (len(made), await reading > 0) == (4, True)


# --- which days ----------------------------------------------------------------------------------


async def test_only_old_days_that_were_left_alone_are_due(books: Books, database: Database) -> None:
    for n in range(4):
        books.add(books.batch(), 1, FIRST + timedelta(days=n))
    fresh = books.batch(at=NOW - timedelta(hours=23))
    books.world.sql(
        "INSERT INTO usage_key (day, switch, batch_id, keys, matches) VALUES (%s, 'sw1', %s, '', '')",
        DAY + timedelta(days=1), fresh,
    )  # fmt: skip
    before = DAY + timedelta(days=3)
    assert await due_days(database, before=before, now=NOW) == [DAY, DAY + timedelta(days=2)]
    later = NOW + timedelta(hours=2)
    assert len(await due_days(database, before=before, now=later)) == 3


async def test_the_job_archives_a_day_at_a_time_in_a_process_of_its_own(
    books: Books, database: Database, tmp_path: Path
) -> None:
    names = fill(books) + fill(books, DAY + timedelta(days=1))
    settings = Settings(data_dir=tmp_path, usage_keep_days=0)
    job = Archiving(database=database, settings=settings, clock=lambda: NOW)
    assert await job.step() is True
    assert books.partitions() == ["usage_20260302"]
    assert await job.step() is False
    assert books.partitions() == []
    assert await found(database, since=FIRST, until=FIRST + timedelta(days=2)) == names
    soon = Settings(data_dir=tmp_path, usage_keep_days=366)
    job = Archiving(database=database, settings=soon, clock=lambda: NOW + timedelta(days=366))
    assert await job.step() is False
    assert await list_parts(database, since=DAY, until=POLICY) == []


async def test_the_job_says_what_went_wrong(
    books: Books, database: Database, tmp_path: Path
) -> None:
    fill(books)
    (tmp_path / "blocked").write_text("a file")
    settings = Settings(data_dir=tmp_path, archive_url=str(tmp_path / "blocked"))
    job = Archiving(database=database, settings=settings, clock=lambda: NOW)
    with pytest.raises(SetupError, match="its records stay in the database"):
        await job.step()
    assert books.partitions() == ["usage_20260301"]
