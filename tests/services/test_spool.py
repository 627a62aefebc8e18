"""The spool: what is in it is whole, bounded, and named by its content."""

from __future__ import annotations

import io
import os
import shutil
from pathlib import Path

import pytest

from tests.services.collecting import sha256
from tollkeeper.errors import InvalidInput
from tollkeeper.services.spool import FileTooLarge, Spool, SpoolFull, spool_stream


async def test_a_stream_is_spooled_whole(tmp_path: Path) -> None:
    data = os.urandom(3_000_001)
    file = await spool_stream(io.BytesIO(data), Spool(tmp_path, max_bytes=2**30))
    assert (file.name, file.sha256, file.bytes) == ("stdin", sha256(data), len(data))
    assert file.path.read_bytes() == data
    assert file.source is None


async def test_a_stream_with_nothing_in_it_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="there is nothing in it"):
        await spool_stream(io.BytesIO(), Spool(tmp_path, max_bytes=10))


async def test_a_stream_that_is_too_long_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(FileTooLarge):
        await spool_stream(io.BytesIO(b"x" * 11), Spool(tmp_path, max_bytes=10))
    assert [files for _, _, files in os.walk(tmp_path) if files] == []


def test_a_very_long_name_keeps_its_end(tmp_path: Path) -> None:
    spool = Spool(tmp_path, max_bytes=10)
    with spool.receive("main") as incoming:
        incoming.write(b"x")
        file = spool.keep(incoming, "main", "é" * 120 + ".csv", None)
    assert file.name.endswith("é.csv")
    assert [each.name for each in spool.ready("main")] == [file.name]


def test_a_spool_that_is_full_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=0))
    with pytest.raises(SpoolFull), Spool(tmp_path, max_bytes=10).receive("main"):
        pass
