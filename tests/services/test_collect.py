"""Collecting from a folder: complete files only, each once, whatever is cut short."""

from __future__ import annotations

import asyncio
import errno
import gzip
import os
import shutil
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.services.collecting import Collecting, collecting, sha256
from tollkeeper.errors import Busy, InvalidInput
from tollkeeper.gateways.files import FilesFailed, LocalFolder, NullFiles, RemoteFile, Write
from tollkeeper.services.cdr_sources import change_source, get_source
from tollkeeper.services.collect import retry_failed
from tollkeeper.store.db import Database


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    made = Database(database_url, size=4)
    await made.open()
    yield made
    await made.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "remote"
    made.mkdir()
    return made


@pytest.fixture
async def at(database: Database, folder: Path, tmp_path: Path) -> Collecting:
    """A source that takes files as soon as it sees them."""
    return await collecting(database, tmp_path / "spool", path=str(folder), settle_seconds=0)


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


async def test_a_file_is_loaded_once_and_stays_where_it_is(at: Collecting, folder: Path) -> None:
    (folder / "a.csv").write_bytes(b"one\n")
    report = await at.round()
    assert [(f.name, f.status, f.bytes, f.result) for f in report.files] == [
        ("a.csv", "loaded", 4, 4)
    ]
    assert (report.error, await at.column("last_error")) == ("", "")
    assert await at.column("last_run_at") == at.clock()
    assert (await at.round()).files == ()
    assert at.load.loaded == [("a.csv", b"one\n")]
    assert (folder / "a.csv").read_bytes() == b"one\n"
    assert [at.spooled(state) for state in ("incoming", "ready")] == [[], []]


async def test_a_file_is_known_by_its_content_under_any_name(at: Collecting, folder: Path) -> None:
    (folder / "a.csv").write_bytes(b"one\n")
    await at.round()
    (folder / "b.csv").write_bytes(b"one\n")
    report = await at.round()
    assert [(f.name, f.status) for f in report.files] == [("b.csv", "known")]
    assert at.load.names == ["a.csv"]


async def test_a_file_that_was_written_on_is_loaded_again(at: Collecting, folder: Path) -> None:
    (folder / "a.csv").write_bytes(b"one\n")
    await at.round()
    (folder / "a.csv").write_bytes(b"one\ntwo\n")
    await at.round()
    assert at.load.loaded == [("a.csv", b"one\n"), ("a.csv", b"one\ntwo\n")]


async def test_files_are_taken_in_the_order_of_their_times(at: Collecting, folder: Path) -> None:
    for name, age in (("a", 1), ("b", 3), ("c", 2)):
        (folder / name).write_bytes(name.encode())
        os.utime(folder / name, (1_000_000 - age, 1_000_000 - age))
    await at.round()
    assert at.load.names == ["b", "c", "a"]


async def test_what_is_not_whole_yet_is_left_alone(at: Collecting, folder: Path) -> None:
    for name in (".hidden", "a.tmp", "b.PART", "c.filepart", "d~"):
        (folder / name).write_bytes(b"half")
    (folder / "empty.csv").touch()
    (folder / "folder.csv").mkdir()
    assert (await at.round()).files == ()
    assert at.load.loaded == []


async def test_a_name_with_a_line_break_is_refused_and_told(at: Collecting, folder: Path) -> None:
    (folder / "line\nbreak.csv").write_bytes(b"x")
    report = await at.round()
    assert [(f.name, f.status) for f in report.files] == [("line\\nbreak.csv", "left")]
    assert "rename it" in await at.column("last_error")


async def test_only_names_of_the_pattern_are_taken(
    database: Database, folder: Path, tmp_path: Path
) -> None:
    at = await collecting(
        database, tmp_path / "spool", path=str(folder), settle_seconds=0, pattern="cdr-*.csv"
    )
    for name in ("cdr-1.csv", "cdr-1.txt", "log.csv"):
        (folder / name).write_bytes(name.encode())
    await at.round()
    assert at.load.names == ["cdr-1.csv"]


async def test_a_name_that_is_no_utf8_is_taken_and_shown(at: Collecting, folder: Path) -> None:
    (folder / os.fsdecode(b"caf\xe9.csv")).write_bytes(b"one\n")
    await at.round()
    await at.round()
    assert at.load.names == ["caf\\xe9.csv"]


# --- settling ------------------------------------------------------------------------------------


async def test_a_file_is_taken_when_it_has_rested(
    database: Database, folder: Path, tmp_path: Path
) -> None:
    """New at the first look; changed at the second; at rest from the second to the fourth."""
    at = await collecting(database, tmp_path / "spool", path=str(folder), settle_seconds=15)
    (folder / "a.csv").write_bytes(b"one\n")
    seen = []
    for look in range(4):
        if look == 1:
            (folder / "a.csv").write_bytes(b"one\ntwo\n")
        report = await at.round()
        seen.append([f.status for f in report.files])
        at.clock.pass_()
    assert seen == [["waiting"], ["waiting"], ["waiting"], ["loaded"]]
    assert at.load.loaded == [("a.csv", b"one\ntwo\n")]


async def test_with_markers_a_file_is_taken_when_its_marker_is_there(
    database: Database, folder: Path, tmp_path: Path
) -> None:
    at = await collecting(
        database,
        tmp_path / "spool",
        path=str(folder),
        done_marker="{stem}.ok",
        after="delete",
    )
    (folder / "a.csv").write_bytes(b"one\n")
    first = await at.round()
    assert [(f.detail, first.error) for f in first.files] == [
        ("its marker a.ok is not there yet", "")
    ]
    (folder / "a.ok").write_bytes(b"done")
    second = await at.round()
    assert [(f.status, f.detail, second.error) for f in second.files] == [("loaded", "", "")]
    assert at.load.loaded == [("a.csv", b"one\n")]
    assert names_in(folder) == set()


async def test_a_file_with_a_marker_older_than_itself_must_rest(
    database: Database, folder: Path, tmp_path: Path
) -> None:
    """The marker is of the file of that name before: this one may still be being written."""
    at = await collecting(database, tmp_path / "spool", path=str(folder), done_marker="{name}.ok")
    (folder / "a.csv.ok").write_bytes(b"x")
    os.utime(folder / "a.csv.ok", (1_000_000, 1_000_000))
    (folder / "a.csv").write_bytes(b"half")
    assert [f.status for f in (await at.round()).files] == ["waiting"]
    (folder / "a.csv").write_bytes(b"half and half")
    at.clock.pass_()
    assert [f.status for f in (await at.round()).files] == ["waiting"]
    at.clock.pass_()
    assert [f.status for f in (await at.round()).files] == ["loaded"]
    assert at.load.loaded == [("a.csv", b"half and half")]


class Growing(NullFiles):
    """A file gets longer while it is read."""

    async def fetch(self, name: str, write: Write) -> None:
        """Hand over what is there, and let it grow at once."""
        await super().fetch(name, write)
        if self.files[name] == b"half":
            self.files[name] = b"half and half"


async def test_a_file_that_grows_while_it_is_read_is_left_for_the_next_look(at: Collecting) -> None:
    files = Growing({"a.csv": b"half"})

    async def connect(_: object) -> NullFiles:
        return files

    (first,) = (await at.round(connect=connect)).files
    assert (first.status, first.detail) == ("waiting", "it changed while it was read")
    assert [at.spooled("incoming"), at.spooled("ready")] == [[], []]
    await at.round(connect=connect)
    assert at.load.loaded == [("a.csv", b"half and half")]


async def test_a_transfer_that_ends_early_is_not_taken_for_the_file(at: Collecting) -> None:
    class Short(NullFiles):
        async def fetch(self, name: str, write: Write) -> None:
            write(self.files[name][:-1])

    async def connect(_: object) -> NullFiles:
        return Short({"a.csv": b"one\n"})

    (outcome,) = (await at.round(connect=connect)).files
    assert outcome.status == "waiting"
    assert at.load.loaded == []


# --- afterwards ----------------------------------------------------------------------------------


async def test_afterwards_a_file_is_deleted(
    database: Database, folder: Path, tmp_path: Path
) -> None:
    at = await collecting(
        database, tmp_path / "spool", path=str(folder), settle_seconds=0, after="delete"
    )
    (folder / "a.csv").write_bytes(b"one\n")
    await at.round()
    assert names_in(folder) == set()
    assert not (await at.column("position")).get("files")


async def test_afterwards_a_file_is_moved_and_takes_nobodys_place(
    database: Database, folder: Path, tmp_path: Path
) -> None:
    at = await collecting(
        database,
        tmp_path / "spool",
        path=str(folder),
        settle_seconds=0,
        after="move",
        move_to="done",
    )
    for data in (b"one\n", b"two\n"):
        (folder / "a.csv").write_bytes(data)
        await at.round()
    moved = {n: (folder / "done" / n).read_bytes() for n in names_in(folder / "done")}
    assert moved == {"a.csv": b"one\n", f"a.csv.{sha256(b'two' + bytes([10]))[:12]}": b"two\n"}


async def test_a_file_that_cannot_be_put_away_is_not_loaded_again(at: Collecting) -> None:
    """It is told, and tried again without fetching the file once more."""

    class Fixed(NullFiles):
        fetched = 0

        async def fetch(self, name: str, write: Write) -> None:
            self.fetched += 1
            await super().fetch(name, write)

        async def delete(self, name: str) -> None:
            raise FilesFailed(f"{name}: Permission denied")

    files = Fixed({"a.csv": b"one\n"})

    async def connect(_: object) -> NullFiles:
        return files

    at.source = await change_source(
        at.database, "main", {"settings": {"after": "delete"}}, actor="test"
    )
    for _ in range(2):
        report = await at.round(connect=connect)
        assert "a.csv: it was loaded but cannot be put away" in report.error
    assert (files.fetched, at.load.names) == (1, ["a.csv"])


# --- faults --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault",
    [
        InvalidInput("line 1: this is no CSV"),
        gzip.BadGzipFile("this is no gzip"),
        ValueError("a fault of ours"),
    ],
)
async def test_one_broken_file_does_not_stop_the_others(
    at: Collecting, folder: Path, fault: Exception
) -> None:
    for name in ("a.csv", "b.csv", "c.csv"):
        (folder / name).write_bytes(name.encode())
    at.load.faults["b.csv"] = fault
    report = await at.round()
    assert [f.status for f in report.files] == ["loaded", "failed", "loaded"]
    assert at.load.names == ["a.csv", "c.csv"]
    assert str(fault) in report.error
    assert str(fault) in await at.column("last_error")
    stored = await at.file(b"b.csv")
    assert stored is not None
    assert stored["status"] == "failed"
    assert str(fault) in stored["error"]
    assert at.spooled("failed") == [f"{sha256(b'b.csv')}.b.csv"]
    assert (await at.round()).files == ()
    assert (folder / "b.csv").exists()


async def test_a_file_that_failed_is_tried_again_when_asked(at: Collecting, folder: Path) -> None:
    (folder / "a.csv").write_bytes(b"one\n")
    at.load.faults["a.csv"] = InvalidInput("no")
    await at.round()
    at.load.faults.clear()
    assert await retry_failed(at.database, at.source, at.spool) == 1
    assert [f.status for f in (await at.round()).files] == ["loaded"]
    stored = await at.file(b"one\n")
    assert stored is not None
    assert stored["status"] == "done"
    assert at.spooled("failed") == []


async def test_what_must_wait_stays_in_the_spool_and_is_loaded_first(
    at: Collecting, folder: Path
) -> None:
    """The database is away: the round ends, and the next one begins with that file."""
    (folder / "b.csv").write_bytes(b"one\n")
    at.load.faults["b.csv"] = Busy("the database does not answer")
    report = await at.round()
    assert report.error == "the database does not answer"
    assert len(at.spooled("ready")) == 1
    at.load.faults.clear()
    (folder / "a.csv").write_bytes(b"two\n")
    os.utime(folder / "a.csv", (1, 1))
    report = await at.round()
    assert at.load.names == ["b.csv", "a.csv"]
    assert [f.status for f in report.files] == ["loaded", "loaded", "known"]


async def test_a_folder_that_is_away_is_a_fault_and_nothing_more(
    at: Collecting, folder: Path
) -> None:
    elsewhere = folder.with_name("elsewhere")
    shutil.move(folder, elsewhere)
    report = await at.round()
    assert report.error == f"{folder}: No such file or directory"
    shutil.move(elsewhere, folder)
    (folder / "a.csv").write_bytes(b"one\n")
    await at.round()
    assert (at.load.names, await at.column("last_error")) == (["a.csv"], "")


async def test_a_file_that_cannot_be_read_does_not_stop_the_others(
    at: Collecting, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "a.csv").write_bytes(b"one\n")
    (folder / "b.csv").write_bytes(b"two\n")
    fetch = LocalFolder.fetch

    async def refuse(self: LocalFolder, name: str, write: Write) -> None:
        if name == "a.csv":
            raise FilesFailed("a.csv: Permission denied")
        await fetch(self, name, write)

    monkeypatch.setattr(LocalFolder, "fetch", refuse)
    report = await at.round()
    assert [(f.name, f.status) for f in report.files] == [("a.csv", "left"), ("b.csv", "loaded")]
    assert report.error == "a.csv: a.csv: Permission denied"


async def test_a_file_that_is_too_large_is_left(
    database: Database, folder: Path, tmp_path: Path
) -> None:
    at = await collecting(
        database, tmp_path / "spool", path=str(folder), settle_seconds=0, max_bytes=10
    )
    (folder / "a.csv").write_bytes(b"x" * 11)
    (folder / "b.csv").write_bytes(b"x" * 10)
    report = await at.round()
    assert [f.status for f in report.files] == ["left", "loaded"]
    assert "cdr_file_max_bytes" in report.error


async def test_a_full_disk_is_told_and_loses_nothing(
    at: Collecting, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both when it is foreseen and when the disk fills while a file is written."""
    (folder / "a.csv").write_bytes(b"one\n")
    usage = shutil.disk_usage(folder)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
        report = await at.round()
        assert "has 1000 bytes free and a file of 4 is waiting" in report.error

    def full(*_: Any) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("tollkeeper.services.spool.os.write", full)
        report = await at.round()
        assert report.error == (
            f"the disk of the spool folder {at.spool.root / 'main' / 'incoming'} is full; make room, "
            "nothing is lost meanwhile"
        )
    assert [at.spooled("incoming"), at.spooled("ready")] == [[], []]
    await at.round()
    assert at.load.loaded == [("a.csv", b"one\n")]


# --- processes -----------------------------------------------------------------------------------


async def test_two_rounds_at_one_source_are_never_at_work_together(
    at: Collecting, folder: Path
) -> None:
    (folder / "a.csv").write_bytes(b"one\n")
    loading, go_on = asyncio.Event(), asyncio.Event()
    recorder = at.load

    async def slow(file: Any) -> object:
        loading.set()
        await go_on.wait()
        return await recorder(file)

    at.load = slow  # type: ignore[assignment]
    first = asyncio.create_task(at.round())
    await loading.wait()
    second = await at.round()
    go_on.set()
    assert (second.busy, second.files) == (True, ())
    assert [f.status for f in (await first).files] == ["loaded"]
    assert not (await at.round()).busy


async def test_a_round_that_is_cancelled_gives_the_source_free(
    at: Collecting, folder: Path
) -> None:
    (folder / "a.csv").write_bytes(b"one\n")
    recorder, loading = at.load, asyncio.Event()

    async def endless(_: Any) -> object:
        loading.set()
        return await asyncio.Event().wait()

    at.load = endless  # type: ignore[assignment]
    task = asyncio.create_task(at.round())
    await loading.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    at.load = recorder
    report = await at.round()
    assert [f.status for f in report.files] == ["loaded", "known"]


async def test_what_a_dead_process_left_behind_is_removed_and_what_is_written_is_not(
    at: Collecting,
) -> None:
    with at.spool.receive("main") as incoming:
        incoming.write(b"half")
        dead = at.spool.root / "main" / "incoming" / "dead.part"
        dead.write_bytes(b"half")
        await at.round()
        assert not dead.exists()
        assert len(at.spooled("incoming")) == 1
    assert at.spooled("incoming") == []


async def test_a_changed_source_is_looked_at_from_the_beginning(
    at: Collecting, folder: Path, tmp_path: Path
) -> None:
    (folder / "a.csv").write_bytes(b"one\n")
    await at.round()
    assert set((await at.column("position"))["files"]) == {"a.csv"}
    other = tmp_path / "other"
    other.mkdir()
    await change_source(at.database, "main", {"settings": {"path": str(other)}}, actor="test")
    assert await at.column("position") == {}
    assert (await get_source(at.database, "main")).last_run_at is None


def test_two_looks_at_one_file_are_equal(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    os.utime(tmp_path / "a", ns=(1_700_000_000_123_456_000, 1_700_000_000_123_456_000))
    found = asyncio.run(LocalFolder(str(tmp_path)).list("*"))
    assert found == [RemoteFile("a", 3, 1_700_000_000_123_456)]
    assert timedelta(microseconds=found[0].mtime) > timedelta(0)
