"""The run of the benchmarks: a private PostgreSQL with production settings, one figure after another."""

from __future__ import annotations

import asyncio
import json
import os
import platform
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Literal

import uvloop
from cyclopts import App
from rich.console import Console

from tollkeeper.cli.bench.baseline import baseline
from tollkeeper.cli.bench.cdr import Decks, archive, day_file, kernel, one_by_one
from tollkeeper.cli.bench.engine import NUMBERS, Calls, Measured, closed_loop, open_loop
from tollkeeper.cli.bench.http import http_load
from tollkeeper.cli.bench.network import PROTOCOLS, measure, serving
from tollkeeper.cli.bench.rates import import_200k, lookup_microseconds
from tollkeeper.cli.bench.world import furnish, world
from tollkeeper.core.records import Offer, Pin, Role
from tollkeeper.core.tariff import find_rate
from tollkeeper.services.keys import create_key
from tollkeeper.services.parties import create_plan
from tollkeeper.services.verify import verify
from tollkeeper.settings import Settings, load_settings
from tollkeeper.store.bench import seed_parties, slow_commits
from tollkeeper.store.db import Database
from tollkeeper.store.embedded import EmbeddedPostgres, create_database, drop_database
from tollkeeper.store.migrate import migrate
from tollkeeper.store.parties import PlanCard
from tollkeeper.telemetry import configure_logging
from tollkeeper.wiring import Runtime, new_id, open_runtime, system_clock

app = App(name="bench", help="Measure this machine against the promises; writes bench.json.")

WALLETS = 1000
PREPARED = "prepared"
MONEY = Decimal(1_000_000)
CLIENTS = (1, 16, 64, 256)
HTTP_CONNECTIONS = (16, 64, 128)
SLOW_COMMIT_MICROSECONDS = 4000

Figures = dict[str, object]


Part = Literal["charging", "world", "cdr", "archive", "radius", "diameter", "smpp", "kamailio"]
PARTS: tuple[Part, ...] = (
    "charging", "world", "cdr", "archive", "radius", "diameter", "smpp", "kamailio",
)  # fmt: skip


@app.default
def bench(
    *,
    seconds: float = 5.0,
    output: Path = Path("bench.json"),
    only: Part | None = None,
    records: int = 10_000_000,
    archived: int = 10_000_000,
) -> None:
    """Run all benchmarks: about a quarter of an hour with these defaults, and 8 GB of disk.

    Args:
        seconds: for each figure of the charging part.
        output: the file of figures; with --only, the others that it holds are kept.
        only: one part alone: charging, world (trees, tiers, messages), cdr, archive, or a protocol.
        records: of the day's file that is loaded.
        archived: records of the archive that is searched.
    """
    configure_logging("warning", "text")
    console = Console(width=None if sys.stdout.isatty() else 120)
    folder = Path(tempfile.mkdtemp(prefix="tollkeeper-bench-"))
    folder.chmod(0o711)
    kept = json.loads(output.read_text()) if only is not None and output.exists() else {}
    figures: Figures = {**kept, "machine": _machine()}
    parts = PARTS if only is None else (only,)
    server = EmbeddedPostgres.start(folder)
    try:
        if "charging" in parts:
            uvloop.run(_all(server.url, load_settings(), seconds, figures, console))
        if "world" in parts:
            uvloop.run(_world(server.url, load_settings(), seconds, figures, console))
        if "cdr" in parts:
            uvloop.run(_cdr(server.url, folder, records, figures, console))
        if "archive" in parts:
            note = partial(_note, figures, console)
            uvloop.run(archive(folder / "archive", archived, note))
        for name in parts:
            if name in PROTOCOLS:
                uvloop.run(_protocol(server.url, name, seconds, figures, console))
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)
    output.write_text(json.dumps(figures, indent=2) + "\n")
    console.print(f"written to {output}")


def _machine() -> Figures:
    return {
        "cores": os.cpu_count(),
        "processor": platform.machine(),
        "python": platform.python_version(),
    }


def _note(figures: Figures, console: Console, name: str, value: float, unit: str = "") -> None:
    figures[name] = round(value, 3)
    console.print(f"{name:<34} {value:>12,.2f} {unit}")


def _note_run(figures: Figures, console: Console, name: str, measured: Measured) -> None:
    figures[name] = {
        "ops_per_s": round(measured.per_second),
        "p50_ms": round(measured.p50_ms, 2),
        "p99_ms": round(measured.p99_ms, 2),
    }
    console.print(
        f"{name:<34} {measured.per_second:>12,.0f} ops/s   p50 {measured.p50_ms:7.2f} ms   p99 {measured.p99_ms:7.2f} ms"
    )


async def _all(
    url: str, settings: Settings, seconds: float, figures: Figures, console: Console
) -> None:
    _note(
        figures, console, "lookup_us", lookup_microseconds(), "us, prefix and price among 300,000"
    )
    prepared = create_database(url, PREPARED)
    migrate(prepared)
    await _prepare(prepared, figures, console)
    await _baseline(url, settings, seconds, figures, console)
    for name, part in (("http", _http), ("engine", _engine), ("slow", _slow)):
        # Each on a database of its own: the upkeep of millions of rows that an earlier part left
        # behind would be measured with it, on a machine that has no core to spare.
        clone = create_database(url, name, template=PREPARED)
        await part(clone, settings, seconds, figures, console)
        await _books(clone, name, figures, console)
        drop_database(url, name)
    ratio = _figure(figures, "engine_hot_256") / _figure(figures, "baseline_hot_256")
    _note(figures, console, "engine_vs_baseline_hot", ratio, "times the baseline, 256 in flight")


async def _world(
    url: str, settings: Settings, seconds: float, figures: Figures, console: Console
) -> None:
    """Trees, tiers and messages beside plain calls; the books are proven afterwards."""
    database = create_database(url, "world")
    migrate(database)
    pool = Database(database)
    await pool.open()
    await import_200k(pool)
    await create_plan(
        pool, code="bench", name="Bench", cards=[PlanCard(card="bench")], actor="bench"
    )
    await pool.close()
    await furnish(database)
    promised = await world(database, settings, seconds, partial(_note_run, figures, console))
    for name, value in promised.items():
        _note(figures, console, name, value)
    await _books(database, "world", figures, console)
    drop_database(url, "world")


async def _cdr(url: str, folder: Path, records: int, figures: Figures, console: Console) -> None:
    """The kernel, and a day's file into the books; the books are proven afterwards."""
    note = partial(_note, figures, console)
    decks = await asyncio.to_thread(Decks.make)
    kernel(decks, note)
    one_by_one(decks, note)
    database = create_database(url, "cdr")
    migrate(database)
    await day_file(database, folder, decks, records, note)
    await _books(database, "cdr", figures, console)
    drop_database(url, "cdr")


async def _protocol(
    url: str, name: str, seconds: float, figures: Figures, console: Console
) -> None:
    """One protocol against a server process of its own; the books are proven afterwards."""
    database = create_database(url, name)
    migrate(database)
    await _prepare(database, {}, Console(quiet=True))
    for figure, value in (await measure(name, database, seconds)).items():
        if isinstance(value, int | float):
            _note(figures, console, figure, value)
        else:
            figures[figure] = value
            console.print(f"{figure:<34} {value}")
    await _books(database, name, figures, console)
    drop_database(url, name)


async def _prepare(url: str, figures: Figures, console: Console) -> None:
    """A card of 200,000 rows, a plan on it, a thousand funded customers."""
    database = Database(url)
    await database.open()
    imported = await import_200k(database)
    _note(
        figures,
        console,
        "import_200k_s",
        imported.import_seconds,
        "s, 200,000 rows imported and active",
    )
    _note(
        figures,
        console,
        "compile_200k_s",
        imported.compile_seconds,
        "s, read and compiled by a process",
    )
    _note(figures, console, "compiled_200k_mib", imported.megabytes, "MiB in each process")
    await create_plan(
        database, code="bench", name="Bench", cards=[PlanCard(card="bench")], actor="bench"
    )
    async with database.write() as connection:
        await seed_parties(connection, WALLETS, MONEY)
    await database.close()


async def _engine(
    url: str, settings: Settings, seconds: float, figures: Figures, console: Console
) -> None:
    for wallets, name in ((1, "hot"), (WALLETS, "1000")):
        for clients in CLIENTS:
            async with open_runtime(url, settings) as runtime:
                measured = await closed_loop(
                    _calls(runtime, wallets, f"{name}{clients}"), clients, seconds
                )
            _note_run(figures, console, f"engine_{name}_{clients}", measured)
            if (wallets, clients) == (1, 256):
                figures["engine_ops_per_s_hot_256"] = round(measured.per_second)
            if (wallets, clients) == (1, 16):
                figures["engine_p99_ms_hot_16"] = round(measured.p99_ms, 2)
    async with open_runtime(url, settings, optimistic=False) as runtime:
        measured = await closed_loop(_calls(runtime, 1, "locked"), 256, seconds)
    _note_run(figures, console, "engine_hot_256_locked_rows", measured)
    async with open_runtime(url, settings) as runtime:
        half = _figure(figures, "engine_1000_256") / 2
        measured = await open_loop(_calls(runtime, WALLETS, "open"), half, seconds)
    _note_run(figures, console, "engine_open_loop_half", measured)
    async with open_runtime(url, settings) as runtime:
        await _overload(runtime, 4 * half, min(seconds, 3.0), figures, console)


async def _overload(
    runtime: Runtime, offered: float, seconds: float, figures: Figures, console: Console
) -> None:
    """Twice of what the engine can do: new calls are turned away in time, calls that are up are settled."""
    calls = _calls(runtime, WALLETS, "overload")
    measured = await open_loop(calls, offered, seconds, overload=True)
    _note_run(figures, console, "engine_overload_authorise", measured)
    slowest = max(calls.shed, default=0.0) * 1000
    figures["engine_overload_shed"] = {
        "offered_ops_per_s": round(offered),
        "calls_shed": len(calls.shed),
        "slowest_refusal_ms": round(slowest, 1),
        "stops_sent_again": calls.stops_sent_again,
    }
    console.print(
        f"{'engine_overload_shed':<34} {len(calls.shed):>12,} calls turned away, the slowest in {slowest:.0f} ms"
    )


def _figure(figures: Figures, name: str) -> float:
    run = figures[name]
    assert isinstance(run, dict)
    return float(run["ops_per_s"])


def _calls(runtime: Runtime, wallets: int, run: str) -> Calls:
    return Calls(runtime.charging, wallets, f"{run}-{new_id()}")


async def _baseline(
    server_url: str, settings: Settings, seconds: float, figures: Figures, console: Console
) -> None:
    """The same calls as ordinary transactions on the same schema, on one hot wallet."""
    url = create_database(server_url, "baseline", template=PREPARED)
    async with open_runtime(url, settings, jobs=False) as runtime:
        entry = runtime.directory.party("bench-1")
        assert entry.plan_id is not None
        match = find_rate(
            runtime.directory.cards_of(entry.plan_id, "voice"), NUMBERS[0], system_clock()
        )
        assert match is not None
    pin = Pin(
        match.card.card_id,
        "bench",
        1,
        match.row.row_id,
        match.row.prefix,
        "bench",
        "USD",
        match.row.tariff,
    )
    database = Database(url, size=16)
    await database.open()
    offers = [Offer(Role.CUSTOMER, entry.id, entry.wallets["USD"], pin)]
    for clients in (16, 256):
        measured = await baseline(
            database,
            offers,
            clock=system_clock,
            new_id=new_id,
            clients=clients,
            seconds=seconds,
            run=f"b{clients}",
        )
        _note_run(figures, console, f"baseline_hot_{clients}", measured)
    await database.close()
    drop_database(server_url, "baseline")


async def _slow(
    url: str, settings: Settings, seconds: float, figures: Figures, console: Console
) -> None:
    """The engine with commits 4 ms slower, as on a slower disk."""
    database = Database(url)
    await database.open()
    async with database.read() as connection:
        await slow_commits(connection, SLOW_COMMIT_MICROSECONDS)
    async with open_runtime(url, settings) as runtime:
        measured = await closed_loop(_calls(runtime, 1, "slow"), 256, seconds)
    _note_run(figures, console, "engine_hot_256_commit_4ms_slower", measured)
    await database.close()


async def _http(
    url: str,
    settings: Settings,  # noqa: ARG001 - a part like the others; the server reads its own
    seconds: float,
    figures: Figures,
    console: Console,
) -> None:
    """A real server process on loopback; the client shares the machine with it and the database."""
    database = Database(url)
    await database.open()
    key = await create_key(database, name="bench", scopes=["charge"], switch="bench", actor="bench")
    await database.close()
    with _server(url) as port:
        for connections in HTTP_CONNECTIONS:
            measured = await http_load(
                host="127.0.0.1", port=port, token=key.secret, connections=connections,
                seconds=seconds, wallets=WALLETS, run=f"h{connections}",
            )  # fmt: skip
            _note_run(figures, console, f"http_{connections}", measured)
    figures["http_ops_per_s"] = max(round(_figure(figures, f"http_{n}")) for n in HTTP_CONNECTIONS)


@contextmanager
def _server(url: str) -> Iterator[int]:
    """``tollkeeper serve`` in a process of its own, answering when the block begins."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    with serving(url, port, {}):
        yield port


async def _books(url: str, name: str, figures: Figures, console: Console) -> None:
    """Speed is worth nothing if the books are wrong: prove them after the load."""
    database = Database(url)
    await database.open()
    began = time.perf_counter()
    report = await verify(database)
    await database.close()
    figures[f"findings_after_{name}"] = len(report.findings)
    took = time.perf_counter() - began
    _note(figures, console, f"verify_after_{name}_s", took, f"s, {len(report.findings)} findings")
