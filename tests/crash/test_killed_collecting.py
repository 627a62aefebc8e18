"""A collecting process is killed at random moments: every file is loaded once, and only whole ones."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import multiprocessing
import os
import random
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Self

import psycopg
import pytest

from tests.services.collecting import sha256
from tollkeeper.gateways.files import LocalFolder
from tollkeeper.services.cdr_sources import create_source, get_source
from tollkeeper.services.collect import SpooledFile, collect_once
from tollkeeper.services.spool import Incoming, Spool
from tollkeeper.store import cdr_sources as store
from tollkeeper.store.cdr_sources import CdrSource
from tollkeeper.store.db import Database
from tollkeeper.wiring import system_clock

KILLS = {"move": 20, "keep": 5, "delete": 5}
END_SECONDS = 60


async def collect(url: str, spool: Path, started: Any) -> None:
    """The process that is killed: collects for ever, as fast as it can."""
    database = Database(url, size=3)
    await database.open()

    async def load(file: SpooledFile) -> None:
        """The loading: what was read and that it was loaded, in one transaction, as the real one."""
        data = file.path.read_bytes()
        assert file.source is not None
        async with database.write() as connection:
            await connection.execute(
                "INSERT INTO loaded (name, sha256) VALUES (%s, %s)", (file.name, sha256(data))
            )
            await connection.execute(
                "INSERT INTO cdr_file (source_id, switch, name, sha256, bytes, format, status)"
                " VALUES (%s, 'sw1', %s, %s, %s, 'asterisk-csv', 'done')",
                (file.source.id, file.name, file.sha256, file.bytes),
            )

    async with database.read() as connection:
        cursor = await connection.execute("SELECT code FROM cdr_source")
        codes = [row["code"] for row in await cursor.fetchall()]
    sources = [await get_source(database, code) for code in codes]
    place = Spool(spool, max_bytes=2**30)
    started.set()
    while True:
        for source in sources:
            report = await collect_once(database, source, place, load, system_clock)
            assert report.error == "", report.error


class Writer:
    """Writes files slowly, as a switch does: in pieces, with rests, and says when one is whole."""

    def __init__(self, folder: Path, dice: random.Random) -> None:
        self._folder = folder
        self._dice = dice
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.whole: dict[str, str] = {}

    def __enter__(self) -> Self:
        """Begin to write."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Finish the file that is being written, and no more."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            name = f"{len(self.whole):04}.csv"
            data = self._dice.randbytes(self._dice.randrange(1, 400_000))
            with (self._folder / name).open("wb") as stream:
                for begin in range(0, len(data), 50_000):
                    stream.write(data[begin : begin + 50_000])
                    stream.flush()
                    self._stop.wait(self._dice.random() / 100)
            self.whole[name] = sha256(data)
            (self._folder / f"{name}.ok").touch()


@pytest.mark.crash
@pytest.mark.slow
@pytest.mark.parametrize("after", ["move", "keep", "delete"])
def test_kill_nine_at_any_moment_loads_every_file_once(
    after: str, database_url: str, tmp_path: Path
) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    dice = random.Random(seed)
    folder = tmp_path / "remote"
    folder.mkdir()
    settings = {"path": str(folder), "pattern": "*.csv", "done_marker": "{name}.ok", "after": after}
    if after == "move":
        settings["move_to"] = "done"
    asyncio.run(_create(database_url, settings))
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("CREATE TABLE loaded (name text, sha256 text)")
        with Writer(folder, random.Random(seed)) as writer:
            for _ in range(KILLS[after]):
                with _collecting(database_url, tmp_path):
                    time.sleep(dice.random() / 2)
        before = _loaded(connection)
        with _collecting(database_url, tmp_path) as process:
            _until(lambda: len(_loaded(connection)) >= len(writer.whole), process, tmp_path)
        rows = _loaded(connection)
    assert len(before) > 0
    assert rows == sorted(writer.whole.items())
    if after == "move":
        # The last one may still be on its way when the process is ended.
        moved = {path.name for path in (folder / "done").glob("*.csv")}
        assert moved | {path.name for path in folder.glob("*.csv")} == writer.whole.keys()


async def _create(url: str, settings: dict[str, str]) -> None:
    database = Database(url, size=1)
    await database.open()
    source = CdrSource(
        code="main", kind="directory", switch="sw1", format="asterisk-csv", settings=settings
    )
    await create_source(database, source, actor="test")
    await database.close()


def _main(url: str, folder: Path, started: Any) -> None:
    try:
        asyncio.run(collect(url, folder / "spool", started))
    except BaseException:
        (folder / "log").write_text(traceback.format_exc())
        raise


@contextlib.contextmanager
def _collecting(url: str, folder: Path) -> Iterator[BaseProcess]:
    """A collecting process that is at work, killed at the end of the block."""
    # Forked from a server that has imported everything: a kill costs no second of starting.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    started = context.Event()
    process = context.Process(target=_main, args=(url, folder, started))
    process.start()
    try:
        _until(started.is_set, process, folder)
        yield process
        assert process.is_alive(), (folder / "log").read_text()[-3000:]
    finally:
        process.kill()
        process.join()


def _loaded(connection: psycopg.Connection[tuple[str, str]]) -> list[tuple[str, str]]:
    return connection.execute("SELECT name, sha256 FROM loaded ORDER BY name").fetchall()


def _until(condition: Callable[[], bool], process: BaseProcess, folder: Path) -> None:
    deadline = time.monotonic() + END_SECONDS
    while not condition():
        assert process.is_alive(), (folder / "log").read_text()[-3000:]
        assert time.monotonic() < deadline, f"not in {END_SECONDS} s"
        time.sleep(0.02)


# --- between any two steps -----------------------------------------------------------------------

STEPS = {
    "in the middle of fetching": (Incoming, "write", "after"),
    "before the file is complete": (Spool, "keep", "before"),
    "when it is complete": (Spool, "keep", "after"),
    "when it is loaded": (Spool, "done", "before"),
    "when its copy is removed": (Spool, "done", "after"),
    "before it is put away": (LocalFolder, "move_to", "before"),
    "when it is put away": (LocalFolder, "move_to", "after"),
    "before the position is stored": (store, "write_position", "before"),
}


def _die_at(step: str, count: int) -> None:
    """Let this process be killed at the ``count``-th time that it comes to a step."""
    owner, name, moment = STEPS[step]
    real = getattr(owner, name)
    left = iter(range(count - 1, -1, -1))

    def come() -> None:
        if next(left) == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    async def slow(*args: Any, **options: Any) -> Any:
        if moment == "before":
            come()
        result = await real(*args, **options)
        if moment == "after":
            come()
        return result

    def quick(*args: Any, **options: Any) -> Any:
        if moment == "before":
            come()
        result = real(*args, **options)
        if moment == "after":
            come()
        return result

    setattr(owner, name, slow if inspect.iscoroutinefunction(real) else quick)


def _main_to_die(url: str, folder: Path, started: Any, step: str) -> None:
    _die_at(step, 2)
    _main(url, folder, started)


@pytest.mark.crash
@pytest.mark.parametrize("step", STEPS)
def test_a_process_that_dies_between_two_steps_loses_and_doubles_nothing(
    step: str, database_url: str, tmp_path: Path
) -> None:
    """It dies at the second file; the next process ends up as if nothing had been."""
    folder = tmp_path / "remote"
    folder.mkdir()
    files = {f"{n}.csv": b"%d\n" % n * 1000 for n in range(4)}
    for name, data in files.items():
        (folder / name).write_bytes(data)
        (folder / f"{name}.ok").touch()
    settings = {"path": str(folder), "pattern": "*.csv", "done_marker": "{name}.ok"}
    asyncio.run(_create(database_url, {**settings, "after": "move", "move_to": "done"}))
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("CREATE TABLE loaded (name text, sha256 text)")
        started = context.Event()
        dying = context.Process(target=_main_to_die, args=(database_url, tmp_path, started, step))
        dying.start()
        dying.join(END_SECONDS)
        assert dying.exitcode == -signal.SIGKILL
        with _collecting(database_url, tmp_path) as process:
            _until(lambda: not list(folder.glob("*.csv*")), process, tmp_path)
        rows = _loaded(connection)
    assert rows == [(name, sha256(data)) for name, data in files.items()]
    assert {p.name: p.read_bytes() for p in (folder / "done").glob("*.csv")} == files
    left = [path.name for path in (tmp_path / "spool").rglob("*") if path.is_file()]
    assert left == []
