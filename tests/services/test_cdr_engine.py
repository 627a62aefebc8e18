"""Archived records are priced anew as those in the database are, whoever works it out."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.services.cdr_world import NOON, NOW, Call, CdrWorld, load, write_file
from tests.services.test_cdr_revise import DAY, Desk
from tests.support import UK_MOBILE
from tollkeeper.bulk.book import CardSpan, RateBook
from tollkeeper.bulk.rerate import Beside, Partial, Prices, Wanted, merge
from tollkeeper.cli.bench.archive import FIRST_DAY, write_day
from tollkeeper.core.rating import Tariff
from tollkeeper.core.tariff import RateRow
from tollkeeper.errors import Busy, Conflict, InvalidInput, SetupError
from tollkeeper.services.archive import ArchivePlace, archive_day
from tollkeeper.services.cdr import engine as engines
from tollkeeper.services.cdr.engine import (
    Engine,
    LocalEngine,
    Piece,
    Shared,
    engine_by_name,
    folder_uri,
    rerate_archive,
)
from tollkeeper.services.cdr.rerate import RerateJob, RerateReport, Selection
from tollkeeper.services.cdr.rollback import roll_back_file
from tollkeeper.store import archive_files as files
from tollkeeper.store.archive import ArchivePart
from tollkeeper.store.archive_search import Part
from tollkeeper.store.db import Database

CALLS = [
    *(Call(f"a{n}", seconds=str(n), start=NOON + timedelta(minutes=n)) for n in range(12)),
    *(Call(f"m{n}", called=UK_MOBILE, seconds=str(40 * n), caller=f"39{n}") for n in range(8)),
    *(Call(f"u{n}", called=f"1212555{n:04d}", seconds="90") for n in range(8)),
]


class Archivist(Desk):
    """A finance desk whose records move to an archive."""

    async def archive(self) -> ArchivePart:
        """Move the day to the archive."""
        place = ArchivePlace((self.folder / "archive").as_uri(), self.folder / "work")
        part = await archive_day(self.database, place, NOON.date(), now=NOW)
        assert part is not None
        return part

    async def by_engine(
        self, selection: Selection = DAY, engine: Engine | None = None, *, output: str = ""
    ) -> RerateReport:
        """Re-rate whatever there is, archived or not."""
        return await rerate_archive(
            self.database,
            RerateJob(selection),
            engine or LocalEngine(),
            output=self.result(output) if output else None,
        )

    def result(self, name: str) -> str:
        """A folder for a result."""
        return (self.folder / name).as_uri()

    def legs(self, name: str) -> list[dict[str, Any]]:
        """What was written there, in order of record and leg."""
        return read_legs(self.folder / name).to_pylist()


def read_legs(folder: Path) -> pa.Table:
    """A result, in order of record and leg."""
    tables = [pq.read_table(path) for path in sorted(folder.glob("*.parquet"))]
    return pa.concat_tables(tables).sort_by([(name, "ascending") for name in ("day", "batch_id", "line", "leg")])  # fmt: skip


def lose(uri: str) -> None:
    """Somebody deletes the records of an archived part."""
    path = files.local_path(uri)
    assert path is not None
    Path(path, files.USAGE).unlink()


@pytest.fixture
async def desk(database_url: str, tmp_path: Path) -> AsyncIterator[Archivist]:
    """Two files are in the books, one of them taken back; some legs were revised before.

    Above the customer stands a reseller, and one call turned out to have been charged live.
    """
    with CdrWorld(database_url) as world:
        reseller = world.seller("upstream")
        world.sql("UPDATE party SET kind = 'reseller' WHERE id = %s", reseller.id)
        world.sql("UPDATE rate_card SET side = 'sell' WHERE code = 'upstream-buy'")
        world.sql("UPDATE party SET parent_id = %s WHERE id = %s", reseller.id, world.acme.id)
        database = Database(database_url, size=3)
        await database.open()
        try:
            made = Archivist(world, database, tmp_path)
            await load(database_url, write_file(tmp_path / "a.csv", CALLS))
            gone = await load(
                database_url, write_file(tmp_path / "b.csv", [Call("x1"), Call("x2")])
            )
            await roll_back_file(
                database, gone.file.id, actor="test", reason="wrong", clock=lambda: NOW
            )
            made.reprice("447", "0.21")
            assert (await made.rerate(apply=True)).changed > 0
            _charged_live(world, line=3)
            made.reprice("44", "0.66")
            made.reprice("44", "0.31", card="carrier-buy")
            made.reprice("1", "0.05", card="upstream-buy")
            yield made
        finally:
            await database.close()


def _charged_live(world: CdrWorld, line: int) -> None:
    """What is written when a session closes whose record was priced before."""
    batch = world.one(
        "INSERT INTO cdr_batch (kind, at) VALUES ('late_match', %s) RETURNING id", NOW
    )
    found = world.sql(
        "INSERT INTO usage_revision SELECT day, batch_id, line, 0, %s, sell_wallet, sell_version, sell_row, sell_prefix,"
        " destination, sell_billed, 0, charge FROM usage WHERE batch_id = 1 AND line = %s RETURNING was",
        batch, line,
    )  # fmt: skip
    assert len(found) == 1
    assert found[0]["was"] > 0


# --- the same as in the database -----------------------------------------------------------------


async def test_an_archived_day_changes_as_it_would_have_in_the_database(desk: Archivist) -> None:
    """Customers, vendors and resellers; revisions count, what was taken back does not."""
    expected = await desk.rerate()
    assert (expected.records, expected.live) == (28, 1)
    assert {change.side for change in expected.changes} == {"sell", "buy", "resell"}
    assert sum(change.calls for change in expected.changes if change.side == "sell") >= 10
    assert await desk.by_engine(output="before") == expected
    await desk.archive()
    with pytest.raises(Conflict, match="archived"):
        await desk.rerate()
    assert await desk.by_engine(output="after") == expected
    assert desk.legs("after") == desk.legs("before")


async def test_every_amount_is_the_one_that_would_be_applied(desk: Archivist) -> None:
    """The result for finance against the revisions that the same re-rating writes."""
    await desk.by_engine(output="result")
    report = await desk.rerate(apply=True)
    names = "day, batch_id, line, leg, wallet_id, version_id, row_no, prefix, destination, billed, amount, was"
    written = desk.world.sql(
        f"SELECT {names} FROM usage_revision WHERE by_batch = %s ORDER BY 1, 2, 3, 4",
        report.batch_id,
    )
    result = desk.legs("result")
    changed = [leg for leg in result if leg["outcome"] == "changed"]
    assert [{name: leg[name] for name in names.split(", ")} for leg in changed] == written
    assert len(changed) < len(result)
    assert {leg["leg"] for leg in changed} == {0, 1, 2}
    again = await desk.by_engine()
    assert (again.records, again.changed, again.changes) == (report.records, 0, ())


async def test_a_late_match_is_not_charged_again(desk: Archivist) -> None:
    """The customer has paid for it live: neither way of re-rating touches the leg."""
    assert (await desk.rerate()).live == 1
    await desk.archive()
    report = await desk.by_engine(output="result")
    assert report.live == 1
    (leg,) = [leg for leg in desk.legs("result") if leg["line"] == 3 and leg["leg"] == 0]
    assert (leg["outcome"], leg["was"], leg["amount"]) == ("live", 0, 0)


async def test_what_came_after_the_day_was_archived_is_added(
    desk: Archivist, database_url: str
) -> None:
    """One period, one report, wherever its records are."""
    await desk.archive()
    before = await desk.by_engine()
    desk.reprice("447", "0.21")
    await load(database_url, write_file(desk.folder / "c.csv", [Call("late"), Call("later")]))
    desk.reprice("44", "0.66")
    after = await desk.by_engine()
    assert after.records == before.records + 2


@pytest.mark.parametrize(
    "more",
    [
        {"called": "447"},
        {"called": "12"},
        {"called": "9"},
        {"destination": "United Kingdom Mobile"},
        {"destination": "United Kingdom"},
        {"customer": 1},
        {"vendor": 1},
        {"file_id": 1},
        {"file_id": 2},
        {"since": NOON + timedelta(minutes=5), "until": NOON + timedelta(minutes=7)},
    ],
    ids=str,
)
async def test_the_same_records_are_picked(
    desk: Archivist, monkeypatch: pytest.MonkeyPatch, more: dict[str, Any]
) -> None:
    """In row groups of a few records, of which most need not be read."""
    if "customer" in more:
        more = {"customer": desk.world.acme.id}
    if "vendor" in more:
        more = {"vendor": desk.world.vendor.id}
    wanted = Selection(**{"since": DAY.since, "until": DAY.until, **more})
    expected = await desk.rerate(wanted)
    assert (expected.records == 0) == (more in [{"called": "9"}, {"file_id": 2}])
    monkeypatch.setattr(files, "ROW_GROUP_ROWS", 2)
    monkeypatch.setattr(engines, "PIECE_ROWS", 5)
    await desk.archive()
    assert await desk.by_engine(wanted) == expected


# --- what it refuses -----------------------------------------------------------------------------


async def test_it_is_a_dry_run_into_an_empty_folder(desk: Archivist) -> None:
    with pytest.raises(InvalidInput, match="dry run"):
        await rerate_archive(desk.database, RerateJob(DAY, apply=True, reason="x"), LocalEngine())
    with pytest.raises(InvalidInput, match="until"):
        await desk.by_engine(Selection(DAY.until, DAY.since))
    await desk.by_engine(output="result")
    with pytest.raises(Conflict, match="not empty"):
        await desk.by_engine(output="result")
    with pytest.raises(InvalidInput, match="s3://bucket/folder"):
        await rerate_archive(desk.database, RerateJob(DAY), LocalEngine(), output="gopher://x/y")
    assert folder_uri("s3://bucket/x") == "s3://bucket/x"
    assert folder_uri("/some/where") == "file:///some/where"


async def test_no_day_moves_while_it_is_read(desk: Archivist) -> None:
    async with desk.database.write() as connection:
        await connection.execute("SELECT pg_advisory_xact_lock(7201, 7)")
        with pytest.raises(Busy, match="archived or purged"):
            await desk.by_engine()


async def test_a_part_that_is_not_there_is_named(desk: Archivist) -> None:
    part = await desk.archive()
    lose(part.uri)
    with pytest.raises(SetupError, match=r"cannot be re-rated.*usage\.parquet"):
        await desk.by_engine()


def test_an_engine_that_is_not_there_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "tollkeeper.services.cdr.ray_engine", raising=False)
    with pytest.raises(SetupError, match=r'pip install "tollkeeper\[ray\]"'):
        engine_by_name("ray")
    with pytest.raises(InvalidInput, match="local, ray"):
        engine_by_name("abacus")
    with pytest.raises(InvalidInput, match="address"):
        engine_by_name("local", address="here:1")
    assert isinstance(engine_by_name("local"), LocalEngine)


# --- a cluster -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """Two workers of one core each, and a head that does no work; gives the address."""
    pytest.importorskip("ray", reason='the extra "ray" is not installed')
    from ray.cluster_utils import Cluster

    quiet = {"object_store_memory": 256 * 1024 * 1024}
    made = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False, **quiet}
    )
    try:
        for _ in range(2):
            made.add_node(num_cpus=1, **quiet)
        yield made.address
    finally:
        made.shutdown()


pytestmark = pytest.mark.filterwarnings(
    # Of Ray's own modules, when they are imported and when a cluster is shut down.
    "ignore::DeprecationWarning",
    "ignore::FutureWarning",
    "ignore::ResourceWarning",
    "ignore::pytest.PytestUnraisableExceptionWarning",
)


def shared(output: Path | None) -> Shared:
    """Rates for half of the numbers, and all customers and vendors, of :func:`write_day`."""
    rows = [
        RateRow(
            f"44000{n}", f"to {n}", Tariff(Decimal(n) / 100, Decimal("0.033"), 1, 6), row_id=n + 1
        )
        for n in range(10)
    ]
    book = RateBook.compile({1: [[CardSpan(1, 10, "USD", rows)]]})
    plan = book.plan_index(1)
    plans = {
        (party, side, "voice"): plan
        for side, parties in (("sell", range(1, 41)), ("buy", range(41, 44)))
        for party in parties
    }
    wallets = {(party, "USD"): 1000 + party for party in range(1, 44)}
    prices = Prices.of(book, plans, wallets)
    return Shared(prices, Wanted(0, 2**62), None if output is None else output.as_uri())


def pieces(part: Part, rows: int) -> list[Piece]:
    """A part of ``rows`` records, a piece for each of its row groups."""
    groups = range(-(-rows // files.ROW_GROUP_ROWS))
    return [Piece(part.day, part.uri, (n,), f"piece-{n:03d}") for n in groups]


def work_of(engine: Engine, shared: Shared, todo: list[Piece]) -> Partial:
    """All of it."""
    try:
        engine.start(shared)
        return merge([*engine.submit(Beside(), todo), *engine.finish()])
    finally:
        engine.close()


def busy_workers() -> list[int]:
    """The processes that work out a piece at this moment: Ray writes it in their title."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if path.read_bytes().startswith(b"ray::_work"):
                found.append(int(path.parent.name))
        except OSError:  # it ended meanwhile
            continue
    return found


def kill_one(killed: list[int], stop: threading.Event) -> None:
    """Kill the first worker that is seen at work."""
    while not stop.wait(0.002):
        for pid in busy_workers():
            os.kill(pid, signal.SIGKILL)
            killed.append(pid)
            return


def test_a_cluster_gives_the_same_and_loses_nothing_when_a_worker_is_killed(
    cluster: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every leg of 200,000 records, and the sums."""
    rows = 200_000
    monkeypatch.setattr(files, "ROW_GROUP_ROWS", 8_192)
    todo = pieces(write_day(tmp_path / "archive", FIRST_DAY, rows, 1), rows)
    expected = work_of(LocalEngine(), shared(tmp_path / "local"), todo)
    assert expected.records == rows
    assert expected.changed > 0
    assert expected.unpriced > 0
    killed: list[int] = []
    stop = threading.Event()
    killer = threading.Thread(target=kill_one, args=(killed, stop))
    killer.start()
    try:
        found = work_of(engine_by_name("ray", address=cluster), shared(tmp_path / "cluster"), todo)
    finally:
        stop.set()
        killer.join()
    assert len(killed) == 1
    assert not Path(f"/proc/{killed[0]}").exists()
    assert found == expected
    result = read_legs(tmp_path / "cluster")
    assert result.num_rows == 2 * rows
    assert result.equals(read_legs(tmp_path / "local"))
    assert [
        path.name for path in (tmp_path / "cluster").iterdir() if path.suffix != ".parquet"
    ] == []


async def test_a_cluster_reports_the_same_of_an_archived_day(
    desk: Archivist, cluster: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the database's list of parts to the report, with what was revised since."""
    monkeypatch.setattr(files, "ROW_GROUP_ROWS", 4)
    monkeypatch.setattr(engines, "PIECE_ROWS", 8)
    await desk.archive()
    expected = await desk.by_engine(output="local")
    assert len(list((desk.folder / "local").iterdir())) == 4
    engine = engine_by_name("ray", address=cluster)
    assert await desk.by_engine(engine=engine, output="cluster") == expected
    assert desk.legs("cluster") == desk.legs("local")
    lose(desk.world.one("SELECT uri FROM archive_day"))
    with pytest.raises(SetupError, match=r"cannot be re-rated"):
        await desk.by_engine(engine=engine_by_name("ray", address=cluster))


def test_a_part_lost_on_the_way_and_another_release_are_told(
    cluster: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In words, not in those of Ray."""
    from tollkeeper.services.cdr import ray_engine

    lost = [Piece(FIRST_DAY, (tmp_path / "nowhere").as_uri(), (0,), "lost")]
    with pytest.raises(OSError, match="nowhere"):
        work_of(engine_by_name("ray", address=cluster), shared(None), lost)
    monkeypatch.setattr(ray_engine, "__version__", "9.9.9")
    with pytest.raises(SetupError, match=r"9\.9\.9 asks; install the same on both"):
        work_of(engine_by_name("ray", address=cluster), shared(None), lost)


def test_no_cluster_is_told_with_what_to_do(cluster: str) -> None:
    """``cluster`` only for its skip."""
    with pytest.raises(SetupError, match="ray start --head"):
        work_of(engine_by_name("ray", address="127.0.0.1:1"), shared(None), [])
