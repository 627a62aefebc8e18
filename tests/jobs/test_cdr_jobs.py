"""The jobs of records: late matches, ended calls, hourly sums, indexes, halves, files left in the spool."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tests.services.cdr_world import MAPPING, SWITCH, Call, CdrWorld, load, write_file
from tests.services.test_cdr_files import Here, waiting_halves
from tests.support import UNSOLD, runtime, settings, until
from tollkeeper.errors import Busy
from tollkeeper.jobs.cdr import CdrJobs
from tollkeeper.services.cdr.brought import Bringing, Brought
from tollkeeper.services.cdr.prepare import LoadPolicy
from tollkeeper.services.cdr.quarantine import Filter, ReplayReport, replay
from tollkeeper.services.spool import Spool
from tollkeeper.services.verify import verify
from tollkeeper.store.db import Database
from tollkeeper.wiring import load_policy_of, open_services

NOW = datetime.now(UTC)


class Replayer(Here):
    """Plays records again in this process, as the real worker does in another one."""

    async def replay(self, wanted: Filter, *, actor: str) -> ReplayReport:
        """Play them."""
        if self.fault is not None:
            raise self.fault
        return await replay(
            self.database, wanted, policy=LoadPolicy(), actor=actor, clock=lambda: datetime.now(UTC)
        )


@dataclass
class Desk:
    """A switch that charges live and delivers files as well, and the jobs of its carrier's server."""

    world: CdrWorld
    parts: Any
    here: Replayer
    jobs: CdrJobs
    folder: Path

    async def authorise(self, name: str) -> None:
        """Begin a call that is charged live."""
        await self.parts.charging.authorise(
            switch=SWITCH, session_id=name, party="acme", called="442071838750",
            requested_seconds=300,
        )  # fmt: skip

    async def stop(self, name: str) -> None:
        """End it after a minute."""
        await self.parts.charging.stop(switch=SWITCH, session_id=name, used_ms=60_000)

    async def file(self, *calls: Call, name: str = "a.csv", now: datetime = NOW) -> Any:
        """Load a file of calls of this moment."""
        path = write_file(self.folder / name, [replace(call, start=now) for call in calls])
        return await load(self.world.url, path, now=now)


@pytest.fixture
async def desk(database_url: str, tmp_path: Path) -> AsyncIterator[Desk]:
    with CdrWorld(database_url) as world:
        world.key("charge", switch=SWITCH)
        async with runtime(database_url) as parts:
            here = Replayer(parts.database, parts.clock)
            spool = Spool(tmp_path / "spool", max_bytes=1_000_000)
            bringing = Bringing(
                database=parts.database, spool=spool, worker=here, clock=parts.clock  # type: ignore[arg-type]
            )  # fmt: skip
            jobs = CdrJobs(
                database=parts.database, worker=here, clock=parts.clock, bringing=bringing  # type: ignore[arg-type]
            )  # fmt: skip
            yield Desk(world, parts, here, jobs, tmp_path)
            await jobs.stop()
            await bringing.stop()


async def proven(database: Database) -> None:
    assert [str(one) for one in (await verify(database)).findings] == []


async def test_the_jobs_settle_both_orders_of_arrival(desk: Desk) -> None:
    """One call was rated before its session closed, another waited for that: each is charged once."""
    await desk.file(Call("early"), name="early.csv")
    for name in ("early", "waits"):
        await desk.authorise(name)
    report = await desk.file(Call("waits"), Call("unsold", called=UNSOLD), name="waits.csv")
    assert report.file.quarantined == 2
    desk.jobs.start(minute=0.01, hour=3600)
    await desk.stop("early")
    await desk.stop("waits")

    def settled() -> bool:
        return desk.world.one("SELECT count(*) FROM cdr_quarantine WHERE status = 'replayed'") == 1 and (
            desk.world.one("SELECT count(*) FROM cdr_batch WHERE kind = 'late_match'") == 1
        )  # fmt: skip

    await until(settled, seconds=30)
    await desk.jobs.stop()
    assert desk.world.balance(desk.world.acme) == Decimal(100) - 2 * Decimal("0.6")
    assert desk.world.one("SELECT reason FROM cdr_quarantine WHERE status = 'open'") == "no_rate"
    await proven(desk.parts.database)


async def test_records_of_live_calls_are_left_alone_and_a_busy_worker_is_asked_again(
    desk: Desk,
) -> None:
    await desk.authorise("c1")
    await desk.file(Call("c1"))
    desk.here.fault = AssertionError("nothing is to be played")
    assert await desk.jobs.replay_ended() is False
    await desk.stop("c1")
    desk.here.fault = Busy("not now")
    assert await desk.jobs.replay_ended() is False
    assert desk.world.one("SELECT status FROM cdr_quarantine") == "open"
    desk.here.fault = None
    await desk.jobs.replay_ended()
    assert desk.world.one("SELECT status FROM cdr_quarantine") == "replayed"


async def test_hours_of_the_day_before_yesterday_are_put_together(desk: Desk) -> None:
    """Those of yesterday and today are still being added to."""
    old, recent = NOW - timedelta(days=3), NOW - timedelta(days=1)
    for n, moment in enumerate((old, old, recent, recent)):
        await desk.file(Call(f"c{n}"), name=f"{n}.csv", now=moment)
    assert await desk.jobs.compact() is False
    counts = "SELECT count(*) FROM usage_hour WHERE day = %s"
    assert desk.world.one(counts, old.date()) == 1
    assert desk.world.one(counts, recent.date()) == 2
    assert desk.world.one("SELECT sum(revenue) FROM usage_hour") == 4 * Decimal("0.6")
    await proven(desk.parts.database)


async def test_indexes_of_days_that_were_loaded_are_brought_up_to_date(desk: Desk) -> None:
    """A file of months ago too."""
    days = [NOW, NOW - timedelta(days=90)]
    for n, moment in enumerate(days):
        path = write_file(
            desk.folder / f"{n}.csv", [Call(f"c{n}.{i}", start=moment) for i in range(9000)]
        )
        await load(desk.world.url, path, now=NOW)
    unsummarized = (
        "SELECT count(*) FROM generate_series(0, (pg_relation_size(%s) / 8192 - 1)::int, 32) AS block"
        " WHERE brin_summarize_range(%s::regclass, block) > 0"
    )
    await desk.jobs.summarize()
    for moment in days:
        table = f"usage_{moment:%Y%m%d}"
        assert desk.world.one("SELECT pg_relation_size(%s) / 8192", table) > 64
        (index,) = desk.world.sql(
            "SELECT indexrelid::regclass::text AS name FROM pg_index WHERE indrelid = %s::regclass"
            " AND pg_get_indexdef(indexrelid) LIKE '%%called text_bloom%%'",
            table,
        )
        assert desk.world.one(unsummarized, table, index["name"]) == 0


async def test_halves_that_wait_for_two_days_are_put_aside(desk: Desk, tmp_path: Path) -> None:
    await waiting_halves(desk.world, tmp_path)
    desk.world.sql("UPDATE cdr_file SET ended_at = now(), created_at = now()")
    await desk.jobs.expire()
    assert desk.world.one("SELECT count(*) FROM cdr_half") == 2
    desk.world.sql("UPDATE cdr_file SET ended_at = now() - interval '49 hours'")
    await desk.jobs.expire()
    assert desk.world.one("SELECT count(*) FROM cdr_half") == 0
    assert desk.world.one("SELECT count(*) FROM cdr_quarantine WHERE reason = 'malformed'") == 2


async def test_a_server_collects_loads_and_goes_on_with_what_another_left(
    database_url: str, tmp_path: Path
) -> None:
    """The parts that the server starts: a file in a folder and one in the spool end in the books."""
    folder = tmp_path / "out"
    folder.mkdir()
    given = settings(spool_dir=tmp_path / "spool", data_dir=tmp_path / "data")
    with CdrWorld(database_url) as world:
        async with runtime(database_url, settings=given) as parts:
            here = Here(parts.database)
            here.fault = Busy("the process that took it dies")
            spool = Spool(given.spool_path, max_bytes=1_000_000)
            other = Bringing(
                database=parts.database, spool=spool, worker=here, clock=parts.clock  # type: ignore[arg-type]
            )  # fmt: skip
            left = write_file(tmp_path / "left.csv", [Call("left")])
            await other.bring(
                Brought(SWITCH, "left.csv", "csv", MAPPING), _once(left.read_bytes()), patience=30
            )
            write_file(folder / "fetched.csv", [Call("fetched")])
            world.sql(
                "INSERT INTO cdr_source (code, kind, switch, format, mapping, settings, poll_seconds)"
                " VALUES ('s', 'directory', 'sw2', 'csv', %s, %s, 1)",
                _json(MAPPING), _json({"path": str(folder), "settle_seconds": 0}),
            )  # fmt: skip
            world.sql("UPDATE trunk SET switch = ''")
            async with open_services(parts, given) as services:
                assert services.worker is not None
                await until(
                    lambda: world.one("SELECT count(*) FROM cdr_file WHERE status = 'done'") == 2,
                    seconds=60,
                )
        names = {row["name"]: row["rated"] for row in world.sql("SELECT name, rated FROM cdr_file")}
        assert names == {"left.csv": 1, "fetched.csv": 1}
        assert world.balance(world.acme) == Decimal(100) - 2 * Decimal("0.6")


async def _once(data: bytes) -> AsyncIterator[bytes]:
    yield data


def _json(value: Any) -> Any:
    from psycopg.types.json import Jsonb

    return Jsonb(value)


def test_the_policy_of_loads_is_as_it_is_set() -> None:
    policy = load_policy_of(
        settings(cdr_match_tolerance_ms=7, cdr_on_difference="correct", cdr_long_call_seconds=9)
    )
    assert (policy.match.tolerance_ms, policy.match.on_difference) == (7, "correct")
    assert policy.mediation.long_call_seconds == 9
    assert load_policy_of(settings()) == LoadPolicy()
