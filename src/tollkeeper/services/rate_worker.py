"""Imports run in a process of their own, so that calls go on being answered meanwhile.

Reading a deck is seconds of pure computing. In a thread it would share the interpreter lock with
the charging of calls, and every one of them would wait; a process of its own shares nothing, may
be given a lower priority by the system, gives all its memory back, and can be killed. It is
started with ``-m`` rather than by multiprocessing, which would import the caller's main module
again and is refused to daemonic workers.

The job goes in on standard input; what it has to say comes back a line at a time.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import pickle
import sys
from typing import BinaryIO

import msgspec

from tollkeeper import errors
from tollkeeper.errors import Busy, TollkeeperError
from tollkeeper.services.rate_import import ImportJob, ImportReport, Say, run_import
from tollkeeper.store.db import Database

IMPORTS_MAX = 2
"""Imports of one process at a time: each may take a core and some hundred megabytes."""

NICENESS = 10
_LINE_MAX = 16 * 1024 * 1024
_running: set[asyncio.Task[object] | None] = set()


class Progress(msgspec.Struct, tag="progress"):
    """How far a stage is."""

    stage: str
    done: int
    total: int


class Done(msgspec.Struct, tag="done"):
    """The import has ended well."""

    report: ImportReport


class Failed(msgspec.Struct, tag="failed"):
    """The import has ended with an error of ours, by the name of its class."""

    kind: str
    detail: str
    code: str
    field: str | None


_decoder: msgspec.json.Decoder[Progress | Done | Failed] = msgspec.json.Decoder(
    Progress | Done | Failed
)
_encode = msgspec.json.Encoder().encode


async def import_in_process(job: ImportJob, say: Say) -> ImportReport:
    """Run an import in a process of its own; cancelling this kills it, and nothing is stored.

    Raises:
        Busy: too many imports are running, or the process died.
        TollkeeperError: whatever the import raised.
    """
    task = asyncio.current_task()
    if len(_running) >= IMPORTS_MAX:
        raise Busy(
            f"{IMPORTS_MAX} imports are running already; try again when one is done",
            code="imports_running",
        )
    _running.add(task)
    try:
        return await _converse(job, say)
    finally:
        _running.discard(task)


async def _converse(job: ImportJob, say: Say) -> ImportReport:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-P",
        "-m",
        "tollkeeper.services.rate_worker",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=_LINE_MAX,
    )
    try:
        outcome = await _listen(process, job, say)
    except BaseException:
        # Cancelled, or the caller's own progress display failed: nobody waits for it any more.
        if process.returncode is None:
            process.kill()
        raise
    finally:
        status = await process.wait()
    if outcome is None and status > 0:
        raise TollkeeperError(
            "the import failed and nothing was stored; the log says why", code="import_failed"
        )
    if outcome is None:
        raise Busy(
            f"the import stopped before it was done (signal {-status}); nothing was stored. "
            "Is the memory enough? The log may say more",
            code="import_stopped",
        )
    if isinstance(outcome, Failed):
        raise _error(outcome)
    return outcome.report


async def _listen(
    process: asyncio.subprocess.Process, job: ImportJob, say: Say
) -> Done | Failed | None:
    """Hand over the job and pass on the progress; None if the process ended without a last word."""
    assert process.stdin is not None
    assert process.stdout is not None
    # A process that dies at once closes the pipe; its exit status says more than that.
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        process.stdin.write(pickle.dumps(job))
        await process.stdin.drain()
        process.stdin.close()
    while line := await process.stdout.readline():
        message = _decoder.decode(line)
        if not isinstance(message, Progress):
            return message
        say(message.stage, message.done, message.total)
    return None


def _error(message: Failed) -> TollkeeperError:
    kind = getattr(errors, message.kind, TollkeeperError)
    assert issubclass(kind, TollkeeperError)
    return kind(message.detail, code=message.code, field=message.field)


def main() -> None:
    """The worker process: one job in, progress and the outcome out."""
    # Only the conversation may use standard output: what prints by mistake goes to the log.
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    os.nice(NICENESS)
    # It lives for one job, whose records hold no cycles: looking for some takes a third of the time.
    gc.disable()
    job: ImportJob = pickle.load(sys.stdin.buffer)  # noqa: S301  # from the process that started this one
    _say(out, asyncio.run(_work(job, lambda *told: _say(out, Progress(*told)))))


async def _work(job: ImportJob, say: Say) -> Done | Failed:
    database = Database(job.url, size=1)
    try:
        await database.open()
        return Done(await run_import(database, job, _sparingly(say)))
    except TollkeeperError as error:
        return Failed(type(error).__name__, error.detail, error.code, error.field)
    finally:
        await database.close()


def _sparingly(say: Say) -> Say:
    """Pass on each stage's beginning and end, and in between one word for every 10,000 rows."""
    said: dict[str, int] = {}

    def told(stage: str, done: int, total: int) -> None:
        if stage not in said or done == total or done - said[stage] >= 10_000:
            said[stage] = done
            say(stage, done, total)

    return told


def _say(out: BinaryIO, message: Progress | Done | Failed) -> None:
    out.write(_encode(message) + b"\n")
    out.flush()


if __name__ == "__main__":
    main()
