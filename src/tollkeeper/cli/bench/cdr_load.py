"""The process whose loading is measured: it loads one file, and says how long it took and its memory.

Run as ``python -m tollkeeper.cli.bench.cdr_load`` with one argument, the JSON of :class:`Order`; it
prints the JSON of :class:`Loaded`.
"""

from __future__ import annotations

import asyncio
import resource
import sys
import time
from datetime import datetime
from pathlib import Path

import msgspec

from tollkeeper.cli.bench.cdr_day import MAPPING
from tollkeeper.cli.bench.cdr_world import SWITCH
from tollkeeper.services.cdr.load import LoadJob, load_file
from tollkeeper.store.db import Database
from tollkeeper.wire.cdr.part import RECORDS

_STATUS = Path("/proc/self/status")


class Order(msgspec.Struct, frozen=True):
    """What to load, and where; ``at`` is the moment that counts as now."""

    url: str
    path: str
    at: datetime
    threads: int = 1
    records_per_part: int = RECORDS


class Loaded(msgspec.Struct, frozen=True):
    """What became of the file; ``peak_mib`` is the largest memory the process ever had."""

    status: str
    records: int
    rated: int
    matched: int
    duplicate: int
    quarantined: int
    seconds: float
    cpu_seconds: float
    peak_mib: float


async def _load(order: Order) -> Loaded:
    database = Database(order.url, size=3)
    await database.open()
    job = LoadJob(
        Path(order.path),
        SWITCH,
        "csv",
        mapping=MAPPING,
        actor="bench",
        threads=order.threads,
        records_per_part=order.records_per_part,
    )
    began, used = time.perf_counter(), time.process_time()
    report = await load_file(database, job, clock=lambda: order.at)
    seconds, cpu = time.perf_counter() - began, time.process_time() - used
    await database.close()
    file = report.file
    return Loaded(
        file.status, file.records, file.rated, file.matched, file.duplicate, file.quarantined,
        seconds, cpu, peak_mib(),
    )  # fmt: skip


def peak_mib() -> float:
    """The largest resident memory that this process has had, in MiB."""
    if _STATUS.exists():
        # Not what getrusage says: on Linux that begins with the memory of the parent.
        for line in _STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


if __name__ == "__main__":
    loaded = asyncio.run(_load(msgspec.json.decode(sys.argv[1], type=Order)))
    sys.stdout.write(msgspec.json.encode(loaded).decode())
