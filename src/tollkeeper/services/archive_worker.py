"""Archiving runs in a process of its own, so that calls go on being answered meanwhile.

Copying and sorting a day is minutes of computing that would share the interpreter lock with the
charging of calls. The job goes in on standard input, the outcome comes back on standard output.
"""

from __future__ import annotations

import asyncio
import os
import sys
from datetime import date, datetime
from pathlib import Path

import msgspec

from tollkeeper import errors
from tollkeeper.errors import TollkeeperError
from tollkeeper.services.archive import ArchivePlace, archive_due, due_days, purge
from tollkeeper.store.db import Database

NICENESS = 10


class Job(msgspec.Struct, frozen=True):
    """Archive at most one day before ``archive_before``; purge the days before ``purge_before``."""

    url: str
    uri: str
    work: str
    archive_before: date
    purge_before: date | None
    now: datetime


class Done(msgspec.Struct, frozen=True, tag="done"):
    """What was done; ``more`` days wait."""

    archived: list[date]
    purged: int
    more: bool


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    """An error of ours, by the name of its class."""

    kind: str
    detail: str
    code: str


_decoder: msgspec.json.Decoder[Done | Failed] = msgspec.json.Decoder(Done | Failed)


async def archive_in_process(job: Job) -> Done:
    """Do the job in a process of its own; cancelling this kills it, and nothing is lost by that.

    Raises:
        TollkeeperError: whatever the job raised, or that the process died.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-P",
        "-m",
        "tollkeeper.services.archive_worker",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        said, _ = await process.communicate(msgspec.json.encode(job))
    except BaseException:
        if process.returncode is None:
            process.kill()
            await process.wait()
        raise
    if not said:
        raise TollkeeperError(
            f"archiving stopped before it was done (status {process.returncode}); no record is "
            "lost by that, and the log says why",
            code="archive_stopped",
        )
    outcome = _decoder.decode(said)
    if isinstance(outcome, Failed):
        kind = getattr(errors, outcome.kind, TollkeeperError)
        raise kind(outcome.detail, code=outcome.code)
    return outcome


async def work(job: Job) -> Done | Failed:
    """Do the job here."""
    database = Database(job.url, size=3)
    place = ArchivePlace(job.uri, Path(job.work))
    try:
        await database.open()
        parts = await archive_due(database, place, before=job.archive_before, now=job.now, limit=1)
        purged = 0
        if job.purge_before is not None:
            report = await purge(
                database,
                place,
                before=job.purge_before,
                policy=job.purge_before,
                now=job.now,
                actor="job:archive",
                dry_run=False,
            )
            purged = len(report.days)
        rest = await due_days(database, before=job.archive_before, now=job.now, limit=1)
        return Done([part.day for part in parts], purged, bool(rest))
    except TollkeeperError as error:
        return Failed(type(error).__name__, error.detail, error.code)
    finally:
        await database.close()


def main() -> None:
    """The worker process: one job in, the outcome out."""
    # Only the outcome may use standard output: what prints by mistake goes to the log.
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    os.nice(NICENESS)
    job = msgspec.json.decode(sys.stdin.buffer.read(), type=Job)
    out.write(msgspec.json.encode(asyncio.run(work(job))))
    out.flush()


if __name__ == "__main__":
    main()
