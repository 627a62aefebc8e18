"""The one place where real things are made: clock, ids, connections, lane, jobs, servers."""

from __future__ import annotations

import gc
import os
import random
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from tollkeeper.core.records import Policy, SilentTail
from tollkeeper.errors import SetupError
from tollkeeper.gateways.kill import HttpKill, KillGateway
from tollkeeper.gateways.supplier import Suppliers
from tollkeeper.gateways.webhook import HttpWebhook, WebhookGateway
from tollkeeper.jobs.alerts import AlertJobs
from tollkeeper.jobs.terms import WalletTerms
from tollkeeper.jobs.timers import Timers
from tollkeeper.jobs.webhooks import WebhookJobs
from tollkeeper.servers.switchboard import Switchboard
from tollkeeper.services.charging import Charging
from tollkeeper.services.directory import Directory
from tollkeeper.services.lane import Lane
from tollkeeper.settings import Settings, load_settings
from tollkeeper.store.charging import PostgresChargingStore
from tollkeeper.store.db import Database
from tollkeeper.store.embedded import EmbeddedPostgres
from tollkeeper.telemetry import configure_logging

# What serves HTTP and what loads records is large. Every command comes by here, and most need none
# of it, so that it is imported where it is used.
if TYPE_CHECKING:
    from tollkeeper.servers.api.context import Services
    from tollkeeper.servers.application import Application, Parts
    from tollkeeper.servers.network import Network
    from tollkeeper.services.cdr.prepare import LoadPolicy

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
    events: WebhookJobs
    clock: Clock
    board: Switchboard


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


def load_policy_of(settings: Settings) -> LoadPolicy:
    """How records of files are judged, as it is set."""
    from tollkeeper.services.cdr.match import MatchPolicy
    from tollkeeper.services.cdr.mediate import MediationPolicy
    from tollkeeper.services.cdr.prepare import LoadPolicy

    return LoadPolicy(
        mediation=MediationPolicy(long_call_seconds=settings.cdr_long_call_seconds),
        match=MatchPolicy(
            tolerance_ms=settings.cdr_match_tolerance_ms,
            on_difference=settings.cdr_on_difference,
        ),
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
    webhook: WebhookGateway | None = None,
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
    directory.on_meters = lane.forget_meters
    gateway = kill or HttpKill()
    timers = Timers(database=database, lane=lane, kill=gateway, clock=clock)
    charging = Charging(lane, directory, database, clock)
    board = Switchboard(charging=charging, directory=directory, database=database, clock=clock)
    timers.switches = board
    terms = WalletTerms(database=database, clock=clock)
    alerts = AlertJobs(database=database, clock=clock)
    events = WebhookJobs(database=database, gateway=webhook or HttpWebhook(), clock=clock)
    lane.start()
    directory.start()
    if jobs:
        timers.start()
        terms.start()
        alerts.start()
        events.start()
    try:
        yield Runtime(database, directory, lane, charging, timers, events, clock, board)
    finally:
        await events.stop()
        await alerts.stop()
        await terms.stop()
        await timers.stop()
        await directory.stop()
        await lane.stop()
        await gateway.close()
        await database.close()
        # At the end of the process all is let go; what stays set aside is complained of as leaked.
        gc.unfreeze()


@asynccontextmanager
async def open_network(runtime: Runtime, settings: Settings) -> AsyncIterator[Network]:
    """Listen where the settings say so and connect to switches, until the block ends.

    Raises:
        SetupError: an address cannot be listened on.
    """
    from tollkeeper.servers.network import Network

    network = Network(runtime.board, settings)
    await network.start()
    try:
        yield network
    finally:
        await network.stop()


@asynccontextmanager
async def open_services(
    runtime: Runtime, settings: Settings, *, jobs: bool = True
) -> AsyncIterator[Services]:
    """What the management routes work with, and the jobs of records; stopped when the block ends."""
    from tollkeeper.jobs.archiving import Archiving
    from tollkeeper.jobs.cards import CardJobs
    from tollkeeper.jobs.cdr import CdrJobs
    from tollkeeper.jobs.collectors import Collectors
    from tollkeeper.jobs.fees import FeeJobs
    from tollkeeper.jobs.packages import PackageJobs
    from tollkeeper.jobs.purchases import PurchaseJobs
    from tollkeeper.servers.api.context import Services
    from tollkeeper.services.card_terms import CardTerms
    from tollkeeper.services.cards import Cards
    from tollkeeper.services.cdr.brought import Bringing
    from tollkeeper.services.cdr.worker import Worker
    from tollkeeper.services.commitments import Commitments
    from tollkeeper.services.packages import Packages
    from tollkeeper.services.spool import Spool
    from tollkeeper.services.supplies import make_supplies

    database, clock = runtime.database, runtime.clock
    spool = Spool(settings.spool_path, max_bytes=settings.cdr_file_max_bytes)
    worker = Worker(database.url, policy=load_policy_of(settings), clock=clock)
    bringing = Bringing(database=database, spool=spool, worker=worker, clock=clock)
    collectors = Collectors(database=database, spool=spool, load=worker, clock=clock)
    timers = CdrJobs(
        database=database,
        worker=worker,
        clock=clock,
        bringing=bringing,
        archiving=Archiving(database=database, settings=settings, clock=clock),
    )
    packages = PackageJobs(Packages(database, runtime.directory, runtime.charging, clock))
    gateway = Suppliers()
    supplies = make_supplies(
        database=database, charging=runtime.charging, gateway=gateway, clock=clock, new_id=new_id
    )
    buying = PurchaseJobs(supplies)
    minimums = Commitments(database, runtime.directory, runtime.charging, clock)
    fees = FeeJobs(supplies.fees, supplies.dids, minimums)
    cards = CardJobs(
        CardTerms(database, runtime.charging, clock),
        Cards(database, runtime.directory, runtime.charging, clock),
    )
    async with AsyncExitStack() as stack:
        stack.push_async_callback(gateway.close)
        # The last one first: what still loads files is ended before the runtime is.
        for part in (bringing, collectors, timers, packages, buying, fees, cards):
            stack.push_async_callback(part.stop)
        if jobs:
            collectors.start()
            timers.start()
            packages.start()
            buying.start()
            fees.start()
            cards.start()
        yield Services(
            database,
            runtime.directory,
            runtime.charging,
            clock,
            spool,
            worker,
            bringing,
            supplies,
            runtime.board,
        )


def application(clock: Clock = system_clock) -> Application:
    """The ASGI application of one process, by the settings: what the HTTP server's workers start.

    Raises:
        SetupError: no database URL; a private database belongs to the program that starts workers.
    """
    from tollkeeper.servers.api.app import create_app
    from tollkeeper.servers.api.charging import ChargingApp
    from tollkeeper.servers.application import Application

    settings = load_settings()
    configure_logging(settings.log_level, settings.log_format)
    if settings.database_url is None:
        raise SetupError('No database URL is set; "tollkeeper serve" starts a private database.')
    url = settings.database_url.get_secret_value()

    @asynccontextmanager
    async def opening() -> AsyncIterator[Parts]:
        async with (
            open_runtime(url, settings, clock=clock) as runtime,
            open_services(runtime, settings) as services,
            open_network(runtime, settings),
        ):
            yield ChargingApp(runtime.charging, runtime.directory), create_app(services)

    return Application(opening)
