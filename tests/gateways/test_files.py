"""A folder of this machine as a store of files, and the one in memory."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.gateways.folders import check_store, check_writer_fault
from tollkeeper.gateways.files import FileGone, FilesFailed, LocalFolder, NullFiles, RemoteFile


async def test_a_folder_does_what_a_store_must(tmp_path: Path) -> None:
    store = LocalFolder(str(tmp_path))
    await check_store(store, tmp_path)
    await check_writer_fault(store, tmp_path)
    await store.close()


async def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(FilesFailed, match=f"{tmp_path}/no: No such file or directory"):
        await LocalFolder(f"{tmp_path}/no").list("*")


async def test_a_link_to_a_file_is_a_file_and_a_dead_one_is_not(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"one\n")
    (tmp_path / "b").symlink_to("a")
    (tmp_path / "c").symlink_to("nothing")
    assert [file.name for file in await LocalFolder(str(tmp_path)).list("*")] == ["a", "b"]


async def test_the_store_in_memory_remembers_what_was_done() -> None:
    store = NullFiles({"a.csv": b"one\n", "b.csv": b"two\n"})
    assert await store.list("a*") == [RemoteFile("a.csv", 4, 0)]
    got: list[bytes] = []
    await store.fetch("a.csv", got.append)
    await store.move_to("a.csv", "done", "a.csv")
    with pytest.raises(FilesFailed):
        await store.move_to("b.csv", "done", "a.csv")
    with pytest.raises(FileGone):
        await store.fetch("a.csv", got.append)
    await store.delete("b.csv")
    await store.close()
    assert (got, store.files, store.moved, store.closed) == (
        [b"one\n"],
        {},
        {"done/a.csv": b"one\n"},
        True,
    )
