"""What runs by the clock: expiring sessions, delivering the outbox, housekeeping.

Every job may run in any number of processes at once, and none depends on the process that
opened a session: a killed server's sessions are closed by whoever is left.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Protocol

import structlog

from tollkeeper.core.records import Expire, Kill
from tollkeeper.errors import Busy, Conflict
from tollkeeper.gateways.kill import KillFailed, KillGateway
from tollkeeper.services.lane import Lane
from tollkeeper.services.tasks import end
from tollkeeper.store import cards, lookups, outbox, peers, purchases, vouchers
from tollkeeper.store.db import Database
from tollkeeper.store.sessions import due_to_expire, to_kill

EXPIRE_BATCH = 500
OUTBOX_BATCH = 100
AT_ONCE = 8
"""Requests under way at one switch at once."""
DELIVER_SECONDS = 5.0
"""A switch that has not answered by then did not take the request."""
LEASE_SECONDS = 30
"""Should this process die while it delivers, another one does it so much later."""
SEND_SECONDS = 20.0
"""What a switch has not been asked by then waits for the next round."""
KILL_ATTEMPTS = 8
KILL_FIRST_RETRY_SECONDS = 2
"""As RFC 5080 section 2.2.1: first retry after 2 s, doubling; then an alarm in the log."""
PARTITION_DAYS = 14
OUTBOX_KEEP = timedelta(days=30)
IDEMPOTENCY_KEEP = timedelta(days=30)
"""So long a repeated request is known: answers of the lane, orders at suppliers, lookups."""
HANDLE_KEEP = timedelta(days=1)
"""The other leg of a call, and its record, may come so much later."""
ATTEMPT_KEEP = timedelta(days=1)
"""Wrong PINs and voucher codes count for minutes."""

_log = structlog.get_logger()


class Switches(Protocol):
    """The switches that are connected to this process; those of other processes are left to them."""

    def elsewhere(self) -> Iterable[str]:
        """Codes of switches that only another process, or nobody at present, is connected to."""

    def knows(self, switch: str) -> bool:
        """Tell whether calls of a switch are ended by :meth:`end`, not at its HTTP address."""

    async def end(self, switch: str, call_id: str, reason: str) -> None:
        """Ask for the end of a call; raises KillFailed where that was not taken."""


class NoSwitches:
    """Nothing is connected."""

    def elsewhere(self) -> Iterable[str]:
        """None."""
        return ()

    def knows(self, switch: str) -> bool:  # noqa: ARG002 (called by name)
        """Not any."""
        return False

    async def end(self, switch: str, call_id: str, reason: str) -> None:
        """Never asked."""
        raise KillFailed(f"switch {switch} is not connected ({call_id}, {reason})")


class Timers:
    """The jobs of one process."""

    def __init__(
        self, *, database: Database, lane: Lane, kill: KillGateway, clock: Callable[[], datetime]
    ) -> None:
        self._database = database
        self._lane = lane
        self._kill = kill
        self._clock = clock
        self.switches: Switches = NoSwitches()
        self._tasks: list[asyncio.Task[None]] = []
        self._sending: dict[str, asyncio.Task[None]] = {}

    def start(self, *, tick: float = 0.5) -> None:
        """Begin; ``tick`` is the pause in seconds between looks for due sessions and messages."""
        self._tasks = [
            asyncio.create_task(every(tick, self.expire_due), name="expire"),
            asyncio.create_task(every(tick, self.kill_suspended), name="kill"),
            asyncio.create_task(every(tick, self.send_due), name="outbox"),
            asyncio.create_task(every(3600.0, self.keep_house), name="housekeeping"),
        ]

    async def stop(self) -> None:
        """End all jobs; what was not finished is done by the next process."""
        await end(self._tasks)
        self._tasks = []
        await end(self._sending.values())

    async def expire_due(self) -> bool:
        """Close sessions whose time is over, whoever opened them; True when there may be more."""
        async with self._database.read() as connection:
            keys = await due_to_expire(connection, self._clock(), EXPIRE_BATCH)
        results = await asyncio.gather(
            *(self._lane.submit(Expire(key), "expire", b'{"type":"expire"}') for key in keys),
            return_exceptions=True,
        )
        failures = [result for result in results if isinstance(result, BaseException)]
        if failures:
            _log.warning("expire.failed", sessions=len(failures), first=str(failures[0]))
        return len(keys) == EXPIRE_BATCH and not failures

    async def kill_suspended(self) -> bool:
        """End the calls of parties that were suspended with their calls; True when there may be more."""
        async with self._database.read() as connection:
            keys = await to_kill(connection, EXPIRE_BATCH)
        for key in keys:
            try:
                await self._lane.submit(
                    Kill(key, "suspended"), "kill=suspended", b'{"type":"kill","why":"suspended"}'
                )
            except Conflict:
                continue  # it ended in the meantime
        return len(keys) == EXPIRE_BATCH

    async def deliver_due(self) -> bool:
        """As :meth:`send_due`, and wait until all of it was tried once."""
        more = await self.send_due()
        sending = list(self._sending.values())
        try:
            await asyncio.gather(*sending)
        except asyncio.CancelledError:
            await end(sending)
            raise
        return more

    async def send_due(self) -> bool:
        """Ask switches to end calls, as the outbox says, at least once; True when there may be more.

        Each switch is asked beside all others: one that hangs delays only itself. The rows are not
        locked meanwhile but put off, so that two processes do not send the same and a slow switch
        holds no transaction. Of everything else in the outbox events are made (``jobs.webhooks``), and
        of these requests, too.
        """
        now = self._clock()
        async with self._database.write() as connection:
            rows = await outbox.take_due(
                connection,
                now,
                OUTBOX_BATCH,
                but=[*self.switches.elsewhere(), *self._sending],
            )
            until = now + timedelta(seconds=LEASE_SECONDS)
            await outbox.move(connection, [row.id for row in rows], until)
        by_switch: dict[str, list[outbox.OutboxRow]] = {}
        for row in rows:
            by_switch.setdefault(str(row.payload["key"]).partition("/")[0], []).append(row)
        for switch, due in by_switch.items():
            task = asyncio.create_task(self._send(switch, due), name=f"kills {switch}")
            self._sending[switch] = task
        return len(rows) == OUTBOX_BATCH

    async def _send(self, switch: str, rows: list[outbox.OutboxRow]) -> None:
        """Deliver what is due to one switch; what this process does not come to is due again."""
        left = {row.id for row in rows}
        waiting = iter(rows)

        async def work() -> None:
            for row in waiting:
                await self._deliver(switch, row)
                left.discard(row.id)

        try:
            async with asyncio.timeout(SEND_SECONDS):
                async with asyncio.TaskGroup() as group:
                    for _ in range(min(AT_ONCE, len(rows))):
                        group.create_task(work())
        except TimeoutError:
            _log.warning("kill.slow", switch=switch, waiting=len(left))
        except (
            ExceptionGroup
        ) as errors:  # the database is away: the rows are due again after their time
            _log.warning("kill.not_noted", switch=switch, error=str(errors.exceptions[0]))
        finally:
            del self._sending[switch]
            if left:
                putting = asyncio.create_task(self._put_back(left))
                while not putting.done():
                    with suppress(asyncio.CancelledError):
                        await asyncio.shield(putting)

    async def _put_back(self, ids: set[int]) -> None:
        try:
            async with self._database.write() as connection:
                await outbox.move(connection, ids, self._clock())
        except (Busy, OSError) as error:
            _log.warning("kill.not_noted", error=str(error))

    async def _deliver(self, switch: str, row: outbox.OutboxRow) -> None:
        """Ask once, and note what came of it."""
        now = self._clock()
        session_id = str(row.payload["key"]).partition("/")[2]
        note = problem = ""
        try:
            async with asyncio.timeout(DELIVER_SECONDS):
                note = await self._ask(switch, session_id, row, now)
        except TimeoutError:
            problem = f"switch {switch} did not answer in {DELIVER_SECONDS:g} s"
        except Exception as error:  # noqa: BLE001 - one that cannot be sent must not hold up the others
            problem = str(error) or type(error).__name__
            if not isinstance(error, KillFailed):
                _log.error("kill.failed", switch=switch, session=session_id, error=repr(error))
        async with self._database.write() as connection:
            if not problem:
                await outbox.mark_done(connection, row.id, now, note)
            elif row.attempts + 1 >= KILL_ATTEMPTS:
                _log.error("kill.given_up", switch=switch, session=session_id, error=problem)
                await outbox.mark_done(connection, row.id, now, f"given up: {problem}"[:500])
            else:
                delay = timedelta(seconds=KILL_FIRST_RETRY_SECONDS * 2**row.attempts)
                await outbox.mark_later(connection, row.id, now + delay, problem[:500])

    async def _ask(self, switch: str, session_id: str, row: outbox.OutboxRow, now: datetime) -> str:
        """Ask a switch to end a call; returns a note where there is nobody to ask.

        Raises:
            KillFailed: it did not take it.
        """
        if self.switches.knows(switch):
            await self.switches.end(switch, session_id, row.detail)
            return ""
        async with self._database.read() as connection:
            target = await outbox.read_switch(connection, switch)
        if target is None:
            return f"switch {switch} has no kill address"
        await self._kill.kill(
            url=target.kill_url,
            secret=target.secret,
            message_id=f"msg_{row.id}",
            at=now,
            session_id=session_id,
            reason=row.detail,
        )
        return ""

    async def keep_house(self) -> bool:
        """Create the partitions of the coming days and drop what is past its use."""
        now = self._clock()
        async with self._database.write() as connection:
            await outbox.ensure_partitions(
                connection, now.date() - timedelta(days=1), PARTITION_DAYS
            )
            await outbox.purge(
                connection,
                outbox_before=now - OUTBOX_KEEP,
                idempotency_before=now - IDEMPOTENCY_KEEP,
            )
            await peers.purge_handles(connection, now - HANDLE_KEEP)
            await purchases.purge(connection, now - IDEMPOTENCY_KEEP)
            await lookups.purge(connection, now - IDEMPOTENCY_KEEP)
            await lookups.purge_cache(connection, now)
            await vouchers.purge_attempts(connection, now - ATTEMPT_KEEP)
            await cards.purge_attempts(connection, now - ATTEMPT_KEEP)
        return False


async def every(seconds: float, job: Callable[[], Awaitable[bool]]) -> None:
    """Run a job for ever: at once again while it has more to do, else after a pause."""
    while True:
        try:
            more = await job()
        except (Busy, OSError) as error:
            _log.warning("job.waits", job=job.__name__, error=str(error))
            more = False
        except Exception:  # noqa: BLE001 - a job that ends would be missed by nobody until it matters
            _log.exception("job.failed", job=job.__name__)
            more = False
        if not more:
            await asyncio.sleep(seconds)
