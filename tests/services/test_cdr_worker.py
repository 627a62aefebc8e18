"""Loading in a process of its own: killed, cancelled, too many; nothing is lost and nothing doubled."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tests.services.cdr_world import MAPPING, NOON, NOW, SWITCH, Call, CdrWorld, job, write_file
from tests.support import UNSOLD
from tollkeeper.core.usage import Quarantine
from tollkeeper.errors import Busy, Conflict, InvalidInput, NotFound, TollkeeperError
from tollkeeper.services.cdr import worker
from tollkeeper.services.cdr.load import FileReport, Progress
from tollkeeper.services.cdr.prepare import LoadPolicy
from tollkeeper.services.cdr.quarantine import Filter
from tollkeeper.services.cdr.rerate import RerateJob, Selection
from tollkeeper.services.cdr.worker import Worker
from tollkeeper.services.spool import SpooledFile
from tollkeeper.services.verify import verify
from tollkeeper.store.cdr_sources import CdrSource
from tollkeeper.store.db import Database

CALLS = 60
PART = 10


@pytest.fixture
def world(database_url: str) -> Iterator[CdrWorld]:
    with CdrWorld(database_url) as made:
        yield made


@pytest.fixture
def loader(database_url: str) -> Worker:
    return Worker(database_url, policy=LoadPolicy(), clock=lambda: NOW)


def children() -> set[int]:
    """Processes started by this one."""
    return {
        int(pid)
        for task in Path("/proc/self/task").iterdir()
        for pid in (task / "children").read_text().split()
    }


def many(folder: Path, *more: Call) -> Path:
    calls = [Call(f"c{n}", start=NOON + timedelta(seconds=n)) for n in range(CALLS)]
    return write_file(folder / "many.csv", [*calls, *more])


async def proven(url: str) -> None:
    database = Database(url, size=2)
    await database.open()
    try:
        assert [str(one) for one in (await verify(database)).findings] == []
    finally:
        await database.close()


async def test_a_file_is_loaded_and_what_is_said_on_the_way_arrives(
    loader: Worker, world: CdrWorld, tmp_path: Path
) -> None:
    told: list[Progress] = []
    report = await loader.load(job(many(tmp_path), records_per_part=PART), told.append)
    assert (report.file.status, report.file.rated, report.known) == ("done", CALLS, False)
    assert {one.stage for one in told} == {"reading", "loading"}
    done = [one.file.rated for one in told if one.file is not None]
    assert done == list(range(PART, CALLS + 1, PART))
    assert (await loader.load(job(many(tmp_path)))).known


async def test_killed_in_the_middle_it_goes_on_and_nothing_is_lost_or_doubled(
    loader: Worker, world: CdrWorld, tmp_path: Path
) -> None:
    """The parts that were committed stay, the one that was not is done again."""
    path, before = many(tmp_path), children()

    def kill(progress: Progress) -> None:
        if progress.file is not None and progress.file.rated >= 2 * PART:
            for pid in children() - before:
                os.kill(pid, signal.SIGKILL)

    with pytest.raises(Busy) as caught:
        await loader.load(job(path, records_per_part=PART), kill)
    assert caught.value.code == "load_stopped"
    assert "signal 9" in caught.value.detail
    (left,) = world.sql("SELECT status, rated, lines_done FROM cdr_file")
    assert left["status"] == "loading"
    assert left["rated"] >= 2 * PART
    report = await _when_free(loader, job(path, records_per_part=PART))
    assert (report.file.status, report.file.rated, report.file.duplicate) == ("done", CALLS, 0)
    assert report.resumed == (left["rated"] < CALLS)
    assert world.one("SELECT count(*) FROM usage") == CALLS
    assert world.balance(world.acme) == Decimal(100) - CALLS * Decimal("0.6")
    await proven(world.url)


async def _when_free(loader: Worker, again: Any) -> FileReport:
    """The server lets go of a lock when it finds that its holder is gone: a moment later."""
    deadline = asyncio.get_running_loop().time() + 60
    while True:
        try:
            return await loader.load(again)
        except Busy as error:
            if error.code != "switch_loading" or asyncio.get_running_loop().time() > deadline:
                raise


async def test_a_cancelled_load_ends_its_process(
    loader: Worker, world: CdrWorld, tmp_path: Path
) -> None:
    before, started = children(), asyncio.Event()
    task = asyncio.create_task(
        loader.load(job(many(tmp_path), records_per_part=1), lambda _: started.set())
    )
    await asyncio.wait_for(started.wait(), 60)
    assert len(children() - before) == 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert children() == before
    report = await _when_free(loader, job(many(tmp_path)))
    assert report.file.rated == CALLS


async def test_a_switch_has_one_load_and_a_process_two(
    world: CdrWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever does not wait is told to come again; whoever waits has a turn."""
    running: list[str] = []
    go = asyncio.Event()

    async def slow(_url: str, task: Any, **_: Any) -> str:
        running.append(task.job.switch)
        await go.wait()
        running.remove(task.job.switch)
        return str(task.job.switch)

    monkeypatch.setattr(worker, "in_process", slow)
    loader = Worker("", policy=LoadPolicy(), clock=lambda: NOW)
    path = tmp_path / "a.csv"
    first = asyncio.create_task(loader.load(job(path, switch="a")))
    await _until(lambda: running == ["a"])
    with pytest.raises(Busy) as caught:
        await loader.load(job(path, switch="a"))
    assert caught.value.code == "loads_running"
    second = asyncio.create_task(loader.load(job(path, switch="b"), wait=True))
    await _until(lambda: running == ["a", "b"])
    with pytest.raises(Busy):
        await loader.load(job(path, switch="c"))
    third = asyncio.create_task(loader.load(job(path, switch="a"), wait=True))
    await asyncio.wait([third], timeout=0.05)
    assert running == ["a", "b"]
    go.set()
    assert await asyncio.gather(first, second, third) == ["a", "b", "a"]


async def _until(condition: Any) -> None:
    for _ in range(1000):
        if condition():
            return
        await asyncio.sleep(0)
    raise AssertionError("it did not come to be")


async def test_a_collected_file_is_loaded_as_its_source_says(
    loader: Worker, world: CdrWorld, tmp_path: Path
) -> None:
    source_id = world.one(
        "INSERT INTO cdr_source (code, kind, switch, format) VALUES ('s', 'manual', 'sw1', 'csv')"
        " RETURNING id"
    )
    source = CdrSource(
        code="s", kind="manual", switch=SWITCH, format="csv", mapping=MAPPING, id=source_id
    )
    path = write_file(tmp_path / "0123.a.csv", [Call("c1")])
    report = await loader(SpooledFile(path, "a.csv", "ab" * 32, path.stat().st_size, source))
    (row,) = world.sql("SELECT name, source_id, sha256, actor, rated FROM cdr_file")
    assert report.file.rated == row["rated"] == 1
    assert (row["name"], row["source_id"], row["sha256"], row["actor"]) == (
        "a.csv", source_id, "ab" * 32, "collector",
    )  # fmt: skip
    torn = tmp_path / "torn.csv"
    torn.write_bytes(b"PK\x03\x04" + bytes(1000))
    with pytest.raises(InvalidInput):
        await loader(SpooledFile(torn, "torn.csv", "cd" * 32, 1004, source))


async def test_errors_keep_their_kind_on_the_way(
    loader: Worker, world: CdrWorld, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = write_file(tmp_path / "a.csv", [Call("c1")])
    with pytest.raises(InvalidInput) as caught:
        await loader.load(job(path, format="punched-cards"))
    assert (caught.value.code, caught.value.field) == ("unknown_format", "format")
    with pytest.raises(NotFound):
        await loader.load(job(tmp_path / "none.csv"))
    with pytest.raises(TollkeeperError) as fault:
        await loader.load(job(path, records_per_part=None))
    assert (fault.value.code, fault.value.http_status) == ("load_failed", 500)
    assert "TypeError" in capfd.readouterr().err


async def test_a_file_goes_on_only_as_it_was_begun(
    loader: Worker, world: CdrWorld, tmp_path: Path
) -> None:
    """Where nothing is loaded yet, the new way to read it counts; else the old one must be given."""
    path = write_file(tmp_path / "a.csv", [Call("c1")])
    unfit = {**MAPPING, "fields": {**MAPPING["fields"], "called": "number"}}  # type: ignore[dict-item]
    report = await loader.load(job(path, mapping=unfit))
    assert report.file.status == "failed"
    report = await loader.load(job(path))
    assert (report.file.status, report.file.rated) == ("done", 1)
    assert report.file.mapping == MAPPING
    world.sql("UPDATE cdr_file SET status = 'failed', lines_done = 1")
    with pytest.raises(Conflict) as caught:
        await loader.load(job(path, timezone="Europe/Rome"))
    assert caught.value.code == "read_otherwise"


async def test_records_are_played_again_and_priced_anew_there_too(
    loader: Worker, world: CdrWorld, tmp_path: Path
) -> None:
    await loader.load(job(many(tmp_path, Call("unsold", called=UNSOLD))))
    again = await loader.replay(Filter(reason=Quarantine.NO_RATE.value), actor="test")
    assert (again.played, again.still) == (1, 1)
    selection = Selection(NOON, NOON + timedelta(days=1))
    report = await loader.rerate(RerateJob(selection))
    assert (report.records, report.changed, report.batch_id) == (CALLS, 0, None)
