"""Loading in a process of its own, so that calls go on being answered meanwhile.

Why a process, and why it is not forked: see ``services.rate_worker``. The task goes in on
standard input; what it has to say comes back as messages, each a length (4 bytes, big-endian) and
that many bytes of pickle. Both ends are this program, and nobody else holds the pipes.

A process that is killed in the middle leaves what it has committed, and whoever loads the file
again goes on from there.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import os
import pickle
import signal
import struct
import sys
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, BinaryIO, Protocol, TypeVar, cast

from tollkeeper import errors
from tollkeeper.errors import Busy, InvalidInput, TollkeeperError
from tollkeeper.services.cdr.load import FileReport, LoadJob, Progress, load_file
from tollkeeper.services.cdr.prepare import LoadPolicy
from tollkeeper.services.cdr.quarantine import Filter, ReplayReport, replay
from tollkeeper.services.cdr.rerate import RerateJob, RerateReport, rerate
from tollkeeper.services.spool import SpooledFile
from tollkeeper.store.db import Database

NICENESS = 10
AT_ONCE = 2
"""Loads of one server process at a time: each may keep a core busy."""

# Not with -m: pickles name classes by their module, which must not be __main__.
_PROGRAM = "from tollkeeper.services.cdr.worker import main; main()"
_LENGTH = struct.Struct(">I")
_PR_SET_PDEATHSIG = 1

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
Clock = Callable[[], datetime]
Say = Callable[..., None]


class Task(Protocol[T_co]):
    """What a process is started for; it travels there as a pickle, and what it returns back."""

    async def run(self, database: Database, clock: Clock, say: Say) -> T_co:
        """Do it; ``say`` passes its arguments on to whoever waits."""


@dataclass(frozen=True, slots=True)
class LoadTask:
    """Load a file; says :class:`Progress`."""

    job: LoadJob

    async def run(self, database: Database, clock: Clock, say: Say) -> FileReport:
        """Load it."""
        return await load_file(database, self.job, clock=clock, say=say)


@dataclass(frozen=True, slots=True)
class ReplayTask:
    """Play records in quarantine again; says how many were played."""

    wanted: Filter
    policy: LoadPolicy
    actor: str

    async def run(self, database: Database, clock: Clock, say: Say) -> ReplayReport:
        """Play them."""
        return await replay(
            database, self.wanted, policy=self.policy, actor=self.actor, clock=clock, say=say
        )


@dataclass(frozen=True, slots=True)
class RerateTask:
    """Price records anew; says days done and days in all."""

    job: RerateJob

    async def run(self, database: Database, clock: Clock, say: Say) -> RerateReport:
        """Price them."""
        return await rerate(database, self.job, clock=clock, say=say)


def collected_job(file: SpooledFile) -> LoadJob:
    """How a file that was collected is loaded: as its source says."""
    source = file.source
    assert source is not None, "files that come by hand are loaded by whoever brings them"
    return LoadJob(
        file.path,
        source.switch,
        source.format,
        name=file.name,
        mapping=None if source.mapping is None else dict(source.mapping),
        timezone=source.timezone,
        sha256=file.sha256,
        source_id=source.id,
        actor="collector",
    )


def checked(report: FileReport) -> FileReport:
    """Return the report of a file that was read to its end.

    Raises:
        InvalidInput: it was not.
    """
    if report.file.status == "failed":
        raise InvalidInput(report.file.error, field="file")
    return report


class Worker:
    """The processes that one server process has started: one for each switch, two in all.

    ``policy`` is that of every load. The clock of a process goes on from what ``clock`` says
    when it is started.
    """

    def __init__(self, url: str, *, policy: LoadPolicy, clock: Clock, at_once: int = AT_ONCE) -> None:  # fmt: skip
        self._url = url
        self._policy = policy
        self._clock = clock
        self._at_once = at_once
        self._running: set[str] = set()
        self._freed = asyncio.Condition()

    async def __call__(self, file: SpooledFile) -> FileReport:
        """Load a file that was collected, when its turn comes.

        Raises:
            InvalidInput: it cannot be read, or not to its end. Busy: not now.
        """
        return checked(await self.load(collected_job(file), wait=True))

    async def load(
        self, job: LoadJob, say: Callable[[Progress], None] = lambda _: None, *, wait: bool = False
    ) -> FileReport:
        """Load a file in a process of its own; cancelling this kills it.

        ``wait``: where too many loads are running, wait for a turn.

        Raises:
            Busy: too many loads are running, somebody else loads this switch, or the process died.
            TollkeeperError: whatever loading raised.
        """
        task = LoadTask(replace(job, policy=self._policy))
        async with self._turn(job.switch, wait=wait):
            return await in_process(self._url, task, now=self._clock(), say=say)

    async def replay(self, wanted: Filter, *, actor: str) -> ReplayReport:
        """Play records in quarantine again. Raises as :meth:`load`."""
        task = ReplayTask(wanted, self._policy, actor)
        async with self._turn("replay", wait=False):
            return await in_process(self._url, task, now=self._clock())

    async def rerate(self, job: RerateJob) -> RerateReport:
        """Price records anew. Raises as :meth:`load`."""
        async with self._turn("rerate", wait=False):
            return await in_process(self._url, RerateTask(job), now=self._clock())

    @contextlib.asynccontextmanager
    async def _turn(self, name: str, *, wait: bool) -> AsyncIterator[None]:
        async with self._freed:
            if not wait and not self._free(name):
                raise Busy(
                    f"{len(self._running)} loads are running in this process, or one like this; "
                    "try again when one is done",
                    code="loads_running",
                )
            await self._freed.wait_for(lambda: self._free(name))
            self._running.add(name)
        try:
            yield
        finally:
            self._running.discard(name)
            async with self._freed:
                self._freed.notify_all()

    def _free(self, name: str) -> bool:
        return name not in self._running and len(self._running) < self._at_once


# --- the server's end ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Order:
    """What the process is to do; ``now`` is the time when it was started."""

    url: str
    task: Task[object]
    now: datetime


@dataclass(frozen=True, slots=True)
class _Told:
    """Something on the way."""

    what: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class _Done:
    """It has ended well."""

    result: object


@dataclass(frozen=True, slots=True)
class _Failed:
    """It has ended with an error of ours, by the name of its class."""

    kind: str
    detail: str
    code: str
    field: str | None


async def in_process(url: str, task: Task[T], *, now: datetime, say: Say = lambda *_: None) -> T:
    """Do a task in a process of its own; cancelling this kills it.

    Raises:
        Busy: the process died. TollkeeperError: whatever the task raised.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-P", "-c", _PROGRAM,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        outcome = await _converse(process, _Order(url, task, now), say)
        status = await process.wait()
    except BaseException:
        # Cancelled, or the caller's own progress display failed: nobody waits for it any more.
        await _kill(process)
        raise
    if outcome is None and status > 0:
        raise TollkeeperError(
            "the work failed inside; the log says why, and what was committed stays",
            code="load_failed",
        )
    if outcome is None:
        raise Busy(
            f"the process stopped before it was done (signal {-status}); what was committed stays, "
            "and the same again goes on from there. Is the memory enough?",
            code="load_stopped",
        )
    if isinstance(outcome, _Failed):
        raise _error(outcome)
    return cast("T", outcome.result)


async def _kill(process: asyncio.subprocess.Process) -> None:
    """End a process and wait for that, however often this is cancelled meanwhile."""
    if process.returncode is None:
        process.kill()
    ended = asyncio.ensure_future(process.wait())
    while not ended.done():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.shield(ended)


async def _converse(
    process: asyncio.subprocess.Process, order: _Order, say: Say
) -> _Done | _Failed | None:
    """Hand over the order and pass on what is said; None if it ended without a last word."""
    assert process.stdin is not None
    assert process.stdout is not None
    # A process that dies at once closes the pipe; its exit status says more than that.
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        process.stdin.write(pickle.dumps(order))
        await process.stdin.drain()
        process.stdin.close()
    with contextlib.suppress(asyncio.IncompleteReadError):
        while True:
            (length,) = _LENGTH.unpack(await process.stdout.readexactly(_LENGTH.size))
            data = await process.stdout.readexactly(length)
            message: object = pickle.loads(data)  # noqa: S301  # from the process that we started
            if isinstance(message, _Done | _Failed):
                return message
            assert isinstance(message, _Told)
            say(*message.what)
    return None


def _error(message: _Failed) -> TollkeeperError:
    kind = getattr(errors, message.kind, TollkeeperError)
    assert issubclass(kind, TollkeeperError)
    return kind(message.detail, code=message.code, field=message.field)


# --- the process's end ---------------------------------------------------------------------------


def main() -> None:
    """The process: one order in, progress and the outcome out."""
    # Only the conversation may use standard output: what prints by mistake goes to the log.
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    _die_with_parent()
    os.nice(NICENESS)
    # Records hold no cycles: looking for some in millions of them again and again takes its time.
    gc.set_threshold(50_000, 20, 100)
    order: _Order = pickle.load(sys.stdin.buffer)  # noqa: S301  # from the process that started us
    _send(out, asyncio.run(_work(order, lambda *what: _send(out, _Told(what)))))


def _die_with_parent() -> None:
    """A server that is killed takes its loads with it, so that the next one can go on with them.

    Linux only (prctl(2), PR_SET_PDEATHSIG); elsewhere the pipe breaks at the next word.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


async def _work(order: _Order, say: Say) -> _Done | _Failed:
    began = time.monotonic_ns()

    def clock() -> datetime:
        return order.now + timedelta(microseconds=(time.monotonic_ns() - began) // 1000)

    database = Database(order.url, size=2)
    try:
        await database.open()
        return _Done(await order.task.run(database, clock, say))
    except TollkeeperError as error:
        kind = next(one for one in type(error).__mro__ if hasattr(errors, one.__name__))
        return _Failed(kind.__name__, error.detail, error.code, error.field)
    finally:
        await database.close()


def _send(out: BinaryIO, message: _Told | _Done | _Failed) -> None:
    data = pickle.dumps(message)
    out.write(_LENGTH.pack(len(data)) + data)
    out.flush()
