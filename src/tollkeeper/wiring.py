"""The one place where real things are made: clock, ids, connections, lane, jobs, servers."""

from __future__ import annotations

import gc
import os
import random
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from tollkeeper.core.records import Policy, SilentTail
from tollkeeper.errors import SetupError
from tollkeeper.gateways.kill import HttpKill, KillGateway
from tollkeeper.jobs.timers import Timers
from tollkeeper.servers.api.app import create_app
from tollkeeper.servers.api.charging import ChargingApp
from tollkeeper.servers.api.context import Services
from tollkeeper.servers.application import Application, Parts
from tollkeeper.services.charging import Charging
from tollkeeper.services.directory import Directory
from tollkeeper.services.lane import Lane
from tollkeeper.settings import Settings, load_settings
from tollkeeper.store.charging import PostgresChargingStore
from tollkeeper.store.db import Database
from tollkeeper.store.embedded import EmbeddedPostgres
from tollkeeper.telemetry import configure_logging

Clock = Callable[[], datetime]


def system_clock() -> datetime:
    """The time now, in UTC."""
    return datetime.now(UTC)


def scaled_clock(speed: int) -> Clock:
    """A clock that runs ``speed`` times as fast from now on: for demonstrations."""
    begin, began = system_clock(), time.monotonic_ns()
    # Whole microseconds, so that a fast clock never runs backwards.
    return lambda: begin + timedelta(microseconds=(time.monotonic_ns() - began) * speed // 1000)


# Seeded by the operating system; unforeseeable is not needed, only never the same twice.
_dice = random.Random(os.urandom(32))  # noqa: S311 - ids are no secrets


def new_id() -> str:
    """A UUID of version 7 (RFC 9562): in the order of time, so that indexes grow at their end."""
    milliseconds, rest = divmod(time.time_ns(), 1_000_000)
    value = (milliseconds << 80) | (7 << 76) | ((rest * 4096 // 1_000_000) << 64) | (2 << 62)
    text = f"{value | _dice.getrandbits(62):032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


@dataclass(frozen=True, slots=True)
class Runtime:
    """The parts of one running process."""

    database: Database
    directory: Directory
    lane: Lane
    charging: Charging
    timers: Timers
    clock: Clock


@contextmanager
def database_url(settings: Settings) -> Iterator[str]:
    """The database to use: the one that is set, or a private one that runs while the block does."""
    if settings.database_url is not None:
        yield settings.database_url.get_secret_value()
        return
    server = EmbeddedPostgres.start(settings.data_dir)
    try:
        yield server.url
    finally:
        server.stop()


def policy_of(settings: Settings) -> Policy:
    """The timers of the credit control, as they are set."""
    return Policy(
        answer_window=settings.answer_window_seconds,
        grace=settings.grace_seconds,
        silent_tail=SilentTail(settings.silent_tail),
    )


@asynccontextmanager
async def open_runtime(
    url: str,
    settings: Settings,
    *,
    clock: Clock = system_clock,
    policy: Policy | None = None,
    jobs: bool = True,
    kill: KillGateway | None = None,
    optimistic: bool = True,
) -> AsyncIterator[Runtime]:
    """Build and start a process's parts on a migrated database; stop them when the block ends.

    ``policy`` wins over the timers of the settings.
    """
    database = Database(url, size=settings.pool_max, min_size=settings.pool_min)
    await database.open()
    directory = Directory(database)
    # A process holds hundreds of thousands of rate rows that never die in a cycle. Following them
    # again and again would make it pause for tens of milliseconds, so they are set aside, and full
    # collections are rare.
    gc.set_threshold(50_000, 20, 100)
    directory.on_rates = gc.freeze
    await directory.load()
    lane = Lane(
        PostgresChargingStore(url),
        directory,
        clock=clock,
        new_id=new_id,
        policy=policy or policy_of(settings),
        batch_max=settings.lane_batch_max,
        queue_max=settings.lane_queue_max,
        optimistic=optimistic,
    )
    directory.on_wallets = lane.forget_wallets
    gateway = kill or HttpKill()
    timers = Timers(database=database, lane=lane, kill=gateway, clock=clock)
    lane.start()
    directory.start()
    if jobs:
        timers.start()
    try:
        yield Runtime(
            database, directory, lane, Charging(lane, directory, database, clock), timers, clock
        )
    finally:
        await timers.stop()
        await directory.stop()
        await lane.stop()
        await gateway.close()
        await database.close()


def application(clock: Clock = system_clock) -> Application:
    """The ASGI application of one process, by the settings: what the HTTP server's workers start.

    Raises:
        SetupError: no database URL; a private database belongs to the program that starts workers.
    """
    settings = load_settings()
    configure_logging(settings.log_level, settings.log_format)
    if settings.database_url is None:
        raise SetupError('No database URL is set; "tollkeeper serve" starts a private database.')
    url = settings.database_url.get_secret_value()

    @asynccontextmanager
    async def opening() -> AsyncIterator[Parts]:
        async with open_runtime(url, settings, clock=clock) as runtime:
            services = Services(
                runtime.database, runtime.directory, runtime.charging, runtime.clock
            )
            yield ChargingApp(runtime.charging, runtime.directory), create_app(services)

    return Application(opening)
