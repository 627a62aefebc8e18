"""Collecting by the clock: due sources only, a few at a time, one process a source, stopped cleanly."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.services.collecting import Clock, Recorder
from tests.support import until
from tollkeeper.errors import Busy
from tollkeeper.jobs.collectors import Collectors
from tollkeeper.services.cdr_sources import change_source, create_source
from tollkeeper.services.collect import CollectReport
from tollkeeper.services.spool import Spool
from tollkeeper.store.cdr_sources import CdrSource, note_run
from tollkeeper.store.db import Database


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    made = Database(database_url, size=6)
    await made.open()
    yield made
    await made.close()


def made(folder: Path) -> str:
    folder.mkdir(exist_ok=True)
    return str(folder)


async def add(database: Database, code: str, folder: Path, **fields: Any) -> CdrSource:
    source = CdrSource(
        code=code,
        kind="directory",
        switch=code,
        format="asterisk-csv",
        settings={"path": made(folder), "settle_seconds": 0},
        **fields,
    )
    return await create_source(database, source, actor="test")


class Rounds:
    """Stands for the collecting: each round lasts until the test lets it go."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.ended: list[str] = []
        self.faults: dict[str, Exception] = {}
        self.go_on = asyncio.Event()

    async def __call__(
        self, database: Database, source: CdrSource, _spool: Spool, _load: Any, clock: Any
    ) -> CollectReport:
        """A round."""
        self.begun.append(source.code)
        if source.code in self.faults:
            raise self.faults[source.code]
        try:
            await self.go_on.wait()
            async with database.write() as connection:
                await note_run(connection, source.id, clock(), "")
        finally:
            self.ended.append(source.code)
        return CollectReport(source.code)


def collectors(database: Database, tmp_path: Path, clock: Clock, **options: Any) -> Collectors:
    return Collectors(
        database=database,
        spool=Spool(tmp_path / "spool", max_bytes=2**20),
        load=options.pop("load", Recorder(database)),
        clock=clock,
        **options,
    )


async def test_files_are_collected_in_the_rhythm_of_their_source(
    database: Database, tmp_path: Path
) -> None:
    clock, load = Clock(), Recorder(database)
    await add(database, "a", tmp_path / "a", poll_seconds=60)
    jobs = collectors(database, tmp_path, clock, load=load)
    (tmp_path / "a" / "1.csv").write_bytes(b"one\n")
    jobs.start(tick=0.01)
    try:
        await until(lambda: load.names == ["1.csv"])
        (tmp_path / "a" / "2.csv").write_bytes(b"two\n")
        clock.pass_(timedelta(seconds=59))
        assert await jobs.begin_due() == 0
        clock.pass_(timedelta(seconds=1))
        await until(lambda: load.names == ["1.csv", "2.csv"])
    finally:
        await jobs.stop()


async def test_a_disabled_source_is_left_alone_and_an_enabled_one_is_due_at_once(
    database: Database, tmp_path: Path
) -> None:
    rounds, clock = Rounds(), Clock()
    await add(database, "a", tmp_path / "a", enabled=False)
    jobs = collectors(database, tmp_path, clock, collect=rounds)
    assert await jobs.begin_due() == 0
    await change_source(database, "a", {"enabled": True}, actor="test")
    assert await jobs.begin_due() == 1
    await jobs.stop()


async def test_only_so_many_rounds_run_at_once_and_the_rest_follow(
    database: Database, tmp_path: Path
) -> None:
    rounds, clock = Rounds(), Clock()
    for code in "abcd":
        await add(database, code, tmp_path / code)
    jobs = collectors(database, tmp_path, clock, collect=rounds, at_once=2)
    assert [await jobs.begin_due(), await jobs.begin_due()] == [2, 0]
    await until(lambda: rounds.begun == ["a", "b"])
    rounds.go_on.set()
    jobs.start(tick=0.01)
    await until(lambda: sorted(rounds.ended) == ["a", "b", "c", "d"])
    await jobs.stop()


async def test_a_round_that_fails_does_not_stop_the_others(
    database: Database, tmp_path: Path
) -> None:
    rounds, clock = Rounds(), Clock()
    rounds.go_on.set()
    for code in "abc":
        await add(database, code, tmp_path / code)
    rounds.faults = {"a": Busy("the database is away"), "b": RuntimeError("a fault of ours")}
    jobs = collectors(database, tmp_path, clock, collect=rounds, at_once=3)
    jobs.start(tick=0.01)
    await until(lambda: "c" in rounds.ended and rounds.begun.count("a") > 1)
    await jobs.stop()


async def test_two_processes_collect_from_a_source_one_at_a_time(
    database: Database, tmp_path: Path
) -> None:
    """Both are at it all the time; every file is loaded once, and never two at the same time."""
    clock = Clock()
    await add(database, "a", tmp_path / "a", poll_seconds=1)
    recorder, together = Recorder(database), []

    async def load(file: Any) -> object:
        together.append(1)
        assert len(together) == 1
        result = await recorder(file)
        together.pop()
        return result

    nodes = [collectors(database, tmp_path / f"node{n}", clock, load=load) for n in range(2)]
    for node in nodes:
        node.start(tick=0.001)
    try:
        for n in range(30):
            (tmp_path / "a" / "writing.tmp").write_bytes(b"%d\n" % n)
            (tmp_path / "a" / "writing.tmp").rename(tmp_path / "a" / f"{n:02}.csv")
            clock.pass_(timedelta(seconds=1))
            await asyncio.sleep(0)
        await until(lambda: _pass(clock) and len(recorder.loaded) == 30)
    finally:
        for node in nodes:
            await node.stop()
    assert sorted(recorder.names) == [f"{n:02}.csv" for n in range(30)]


def _pass(clock: Clock) -> datetime:
    clock.pass_(timedelta(seconds=1))
    return clock()


async def test_stopping_ends_the_rounds_and_the_next_process_goes_on(
    database: Database, tmp_path: Path
) -> None:
    clock, loading = Clock(), asyncio.Event()
    await add(database, "a", tmp_path / "a")
    (tmp_path / "a" / "1.csv").write_bytes(b"one\n")

    async def endless(_: Any) -> object:
        loading.set()
        return await asyncio.Event().wait()

    first = collectors(database, tmp_path, clock, load=endless)
    first.start(tick=0.01)
    await loading.wait()
    await first.stop()
    assert await first.begin_due() == 1
    await first.stop()
    load = Recorder(database)
    second = collectors(database, tmp_path, clock, load=load)
    second.start(tick=0.01)
    await until(lambda: load.names == ["1.csv"])
    await second.stop()
