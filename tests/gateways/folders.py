"""What every store of files must do, whatever is behind it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tollkeeper.gateways.files import FileGone, FilesFailed, FileStore


async def check_store(store: FileStore, folder: Path) -> None:
    """Try all a store can do; ``folder`` is what it shows, seen from here."""
    data = os.urandom(5_000_003)
    (folder / "b.csv").write_bytes(data)
    (folder / "a.csv").write_bytes(b"one\n")
    (folder / "c.txt").write_bytes(b"three\n")
    (folder / os.fsdecode(b"caf\xe9 [1].csv")).write_bytes(b"two\n")
    (folder / "below").mkdir()
    (folder / "below" / "d.csv").write_bytes(b"four\n")
    os.utime(folder / "a.csv", (1_700_000_000, 1_700_000_000))

    listed = await store.list("*.csv")
    assert [(f.name, f.bytes) for f in listed] == [
        ("a.csv", 4),
        ("b.csv", len(data)),
        (os.fsdecode(b"caf\xe9 [1].csv"), 4),
    ]
    assert listed[0].mtime == 1_700_000_000_000_000
    for file in listed:
        assert await store.stat(file.name) == file
    assert await store.stat("nothing.csv") is None

    got = bytearray()
    await store.fetch("b.csv", got.extend)
    assert bytes(got) == data
    got.clear()
    await store.fetch(listed[2].name, got.extend)
    assert bytes(got) == b"two\n"
    with pytest.raises(FileGone):
        await store.fetch("nothing.csv", got.extend)

    await store.move_to("a.csv", "done", "a.csv")
    assert (folder / "done" / "a.csv").read_bytes() == b"one\n"
    with pytest.raises(FilesFailed):
        await store.move_to("b.csv", "done", "a.csv")
    assert (folder / "done" / "a.csv").read_bytes() == b"one\n"
    await store.move_to("b.csv", "done", "b.csv")
    await store.delete(listed[2].name)
    await store.delete("nothing.csv")
    assert [file.name for file in await store.list("*")] == ["c.txt"]


async def check_writer_fault(store: FileStore, folder: Path) -> None:
    """What the writer raises comes through as it is, not as a fault of the store."""
    (folder / "w.csv").write_bytes(b"one\n")

    def refuse(_: bytes) -> None:
        raise OverflowError("no room")

    with pytest.raises(OverflowError, match="no room"):
        await store.fetch("w.csv", refuse)
