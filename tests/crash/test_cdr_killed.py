"""A loading process and its PostgreSQL are killed again and again; no record is lost or doubled.

The process dies by ``kill -9``, PostgreSQL stops as in a power failure (``immediate``). What the
file comes to in the end is compared with a load that nothing happened to, and with a computation
of every line by naive code.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import random
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from multiprocessing.process import BaseProcess
from pathlib import Path

import psycopg
import pytest

from tests.crash import cdr_runner
from tests.services.naive_day import Naive, compute
from tests.services.test_cdr_load import proven
from tests.support import until
from tollkeeper.cli.bench.cdr_day import Day, write_day
from tollkeeper.cli.bench.cdr_world import Deck, charge_live, made_decks, make_world
from tollkeeper.cli.bench.rates import prefixes
from tollkeeper.store.db import Database
from tollkeeper.store.embedded import EmbeddedPostgres, create_database
from tollkeeper.store.migrate import migrate

CRASHES = 20
LINES = 60_000
RECORDS_PER_PART = 1_500
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
OUTCOMES = ("rated", "matched", "duplicate", "quarantined")


class Loader:
    """The process that loads, started anew after each time it was killed."""

    def __init__(self, url: str, path: Path, log: Path) -> None:
        # A server that has imported everything: a process begins at once, where one that is
        # started from nothing would take seconds each time.
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload([cdr_runner.__name__])
        self._arguments = (url, path, RECORDS_PER_PART, log)
        self._log = log
        self._process: BaseProcess | None = None

    def start(self) -> None:
        """Start it; it loads some time later."""
        self._process = self._context.Process(target=cdr_runner.run, args=self._arguments)
        self._process.start()

    def kill(self) -> None:
        """End it at once, without a word."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._process = None

    def runs(self) -> bool:
        """True until it has come to its end by itself, which must be a good one."""
        assert self._process is not None
        code = self._process.exitcode
        assert code in {None, 0}, self._log.read_text()[-3000:]
        return code is None


class Server:
    """The PostgreSQL that is crashed."""

    def __init__(self, server: EmbeddedPostgres, bin_dir: Path | None) -> None:
        self._server, self._bin_dir = server, bin_dir

    def crash(self) -> None:
        """Stop it as a power failure would, and start it: it recovers from its log."""
        self._server.stop("immediate", force=True)
        self._server = EmbeddedPostgres.start(self._server.data_dir, bin_dir=self._bin_dir)

    def stop(self) -> None:
        """End it."""
        self._server.stop("immediate", force=True)


class Progress:
    """How far the file is loaded, as a connection of its own sees it."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._connection: psycopg.Connection[tuple[int]] | None = None

    def lines(self) -> int:
        """The lines that are in the books; 0 while the database is away."""
        try:
            if self._connection is None:
                self._connection = psycopg.connect(self._url, autocommit=True)
            row = self._connection.execute(
                "SELECT coalesce(max(lines_done), 0) FROM cdr_file"
            ).fetchone()
        except psycopg.OperationalError:
            self.close()
            return 0
        assert row is not None
        return row[0]

    def close(self) -> None:
        """Close the connection; it is made again when it is needed."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


@contextmanager
def running(loader: Loader, server: Server) -> Iterator[None]:
    """Nothing is left behind."""
    try:
        yield
    finally:
        loader.kill()
        server.stop()


async def make(url: str, sells: list[Deck], buys: list[Deck], day: Day) -> None:
    """A carrier in an empty database, with the calls that were charged live."""
    migrate(url)
    database = Database(url, size=2)
    await database.open()
    try:
        world = await make_world(database, sells=sells, buys=buys, now=NOON + timedelta(days=1))
        await charge_live(database, world, day)
    finally:
        await database.close()


@pytest.mark.crash
@pytest.mark.slow
async def test_a_file_whose_load_is_killed_twenty_times_is_loaded_once(
    durable_server: EmbeddedPostgres, pg_bin_dir: Path | None, tmp_path: Path
) -> None:
    """10 times the process and 10 times PostgreSQL, all over the file; then it is all there, once."""
    seed = int(os.environ.get("TOLLKEEPER_TEST_SEED", "0")) or random.SystemRandom().randrange(
        10**6
    )
    print(f"TOLLKEEPER_TEST_SEED={seed}")
    dice = random.Random(seed)
    known = prefixes(2_000)
    sells, buys = made_decks(known, NOON)
    day = write_day(tmp_path / "day.csv", LINES, prefixes=known, day=date(2026, 3, 1), seed=seed)
    url = durable_server.url
    clean = create_database(url, "clean")
    for each in (url, clean):
        await make(each, sells, buys, day)
    server = Server(durable_server, pg_bin_dir)
    loader = Loader(url, day.path, tmp_path / "loader.log")
    with running(loader, server):
        loader.start()
        await _crash_all_over(url, loader, server, dice)
        await until(lambda: not loader.runs(), seconds=60, what="the load comes to its end")
        naive = compute(day.path, sells, buys, set(day.live.call_id))
        await cdr_runner.load(clean, day.path, RECORDS_PER_PART * 10)
        _check(url, clean, day, naive)
        await proven(url)


async def _crash_all_over(url: str, loader: Loader, server: Server, dice: random.Random) -> None:
    """Crash by turns, each time a little further in the file, at no particular moment."""
    with closing(Progress(url)) as progress:
        await _crash_while(progress, loader, server, dice)


async def _crash_while(
    progress: Progress, loader: Loader, server: Server, dice: random.Random
) -> None:
    for number in range(CRASHES):
        if number % 5 == 4:
            # Not where the load is, but when: also while it is starting.
            await asyncio.sleep(dice.random())
        else:
            target = LINES * number // (CRASHES + 4)
            await until(lambda target=target: progress.lines() >= target, seconds=60)
            await asyncio.sleep(dice.random() / 20)
        assert loader.runs(), "the load was over before it was crashed often enough"
        if number % 2:
            await asyncio.to_thread(server.crash)
        else:
            loader.kill()
            loader.start()


def _check(url: str, clean: str, day: Day, naive: Naive) -> None:
    found = []
    for each in (url, clean):
        with psycopg.connect(each) as connection:
            file = connection.execute(
                f"SELECT status, records, {', '.join(OUTCOMES)} FROM cdr_file"
            ).fetchall()
            records = connection.execute(
                "SELECT count(*), count(DISTINCT line),"
                " md5(string_agg(concat_ws(' ', line, state, charge, cost), ',' ORDER BY line)) FROM usage"
            ).fetchall()
        found.append((file, records, _posted(each, "rated"), _posted(each, "cost")))
    assert found[0] == found[1]
    ((status, records, *outcomes),) = found[0][0]
    assert (status, records) == ("done", LINES)
    assert dict(zip(OUTCOMES, outcomes, strict=True)) == naive.counts
    assert outcomes == [day.plain, len(day.live.call_id), day.duplicates, day.malformed]
    assert found[0][2] == {name: amount for name, amount in naive.charges.items() if amount}
    assert found[0][3] == naive.costs
    assert len(found[0][2]) == 40


def _posted(url: str, code: str) -> dict[str, Decimal]:
    """What batches have posted, by party."""
    with psycopg.connect(url) as connection:
        rows = connection.execute(
            "SELECT p.code, sum(e.amount) FROM entry e JOIN wallet w ON w.id = e.wallet_id"
            " JOIN party p ON p.id = w.party_id WHERE e.code = %s AND e.batch_id IS NOT NULL GROUP BY 1",
            (code,),
        ).fetchall()
    return dict(rows)
