"""The doctor: what is wrong with a set-up, and how each fault is mended. Changes nothing."""

from __future__ import annotations

import shutil
import socket
import sys
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path

from tollkeeper.errors import SetupError
from tollkeeper.settings import Settings
from tollkeeper.store import doctor as store
from tollkeeper.store.db import Connection
from tollkeeper.store.migrate import OLDEST_SERVER, drift, pending

PYTHON = (3, 11)
GIB = 2**30
DISK_FAIL_BYTES, DISK_WARN_BYTES = 1 * GIB, 10 * GIB
"""A day of 10,000,000 calls takes some 10 GiB; below one, PostgreSQL itself may stop."""
CLOCK_WARN, CLOCK_FAIL = timedelta(seconds=2), timedelta(seconds=30)
"""Sessions expire by the program's clock; a minute's grace is what they have."""
PARTITION_FAIL_DAYS, PARTITION_WARN_DAYS = 1, 7
SPARE_CONNECTIONS = 5
"""For the command line, backups and PostgreSQL's own reserve."""
LANE_CONNECTIONS = 2
SHOWN = 10


class Level(StrEnum):
    """How bad it is: WARN works, but not as it should; FAIL does not work or is not safe."""

    OK = "OK"
    WARN = "WARN"
    FAIL = "FAIL"


@dataclass(frozen=True, slots=True)
class Check:
    """One thing looked at; ``mend`` says what to do, and is empty where all is well."""

    level: Level
    what: str
    found: str
    mend: str = ""


def _check(
    what: str, found: str, *, fail: bool = False, warn: bool = False, mend: str = ""
) -> Check:
    level = Level.FAIL if fail else Level.WARN if warn else Level.OK
    return Check(level, what, found, "" if level is Level.OK else mend)


# --- this machine --------------------------------------------------------------------------------


def check_machine(settings: Settings) -> list[Check]:
    """Look at Python, the settings, the disk and the port."""
    version = ".".join(str(part) for part in sys.version_info[:3])
    encoding = sys.getfilesystemencoding().lower()
    return [
        _check(
            "Python",
            version,
            fail=sys.version_info < PYTHON,
            mend="install Python 3.11 or newer and make the virtual environment anew",
        ),
        _check(
            "text encoding",
            encoding,
            warn=encoding != "utf-8",
            mend="set LC_ALL=C.UTF-8, or PYTHONUTF8=1",
        ),
        _check("settings", _described(settings)),
        # A given database is elsewhere, and its disk is not to be seen from here.
        *([] if settings.database_url else [_check_disk(settings)]),
        _check_port(settings.host, settings.port),
    ]


def _described(settings: Settings) -> str:
    base = (
        "a given database"
        if settings.database_url
        else f"a private database in {settings.data_dir}"
    )
    return f"{base}, {settings.workers} worker(s), http {settings.host}:{settings.port}"


def _check_disk(settings: Settings) -> Check:
    place: Path = settings.data_dir
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    return _check(
        "free disk",
        f"{free // GIB} GiB in {place}",
        fail=free < DISK_FAIL_BYTES,
        warn=free < DISK_WARN_BYTES,
        mend="free some disk, or set TOLLKEEPER_DATA_DIR to a larger one",
    )


def _check_port(host: str, port: int) -> Check:
    shown = f"{host}:{port}"
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        return _check(
            "port",
            f"{shown}: {error.strerror or error}",
            warn=True,
            mend="all is well if Tollkeeper itself is serving there; else set TOLLKEEPER_HOST or TOLLKEEPER_PORT",
        )
    return _check("port", f"{shown} is free")


# --- the database --------------------------------------------------------------------------------


async def check_database(url: str, settings: Settings) -> list[Check]:
    """Look at the server, its schema and what is in it; later checks need the earlier ones."""
    try:
        async with store.connect(url) as connection:
            server = await store.read_server(connection)
            checks = [*_check_server(server, settings), await _check_clock(connection)]
            if server.version_number < OLDEST_SERVER:
                return checks
            schema = _check_schema(url)
            checks += schema
            if all(check.level is Level.OK for check in schema):
                checks.append(await _check_partitions(connection))
                checks += await _check_content(connection)
            return checks
    except SetupError as error:
        return [
            _check(
                "database",
                error.detail,
                fail=True,
                mend="see that PostgreSQL runs and that TOLLKEEPER_DATABASE_URL is right, "
                "or leave it out for a private one",
            )
        ]


def _check_server(server: store.Server, settings: Settings) -> list[Check]:
    durable = {
        "fsync": server.fsync,
        "synchronous_commit": server.synchronous_commit,
        "full_page_writes": server.full_page_writes,
    }
    unsafe = [name for name, value in durable.items() if value == "off"]
    wanted = settings.workers * (settings.pool_max + LANE_CONNECTIONS) + SPARE_CONNECTIONS
    return [
        _check(
            "PostgreSQL",
            server.version,
            fail=server.version_number < OLDEST_SERVER,
            mend="use PostgreSQL 15 or newer",
        ),
        _check(
            "database role",
            "may not write: the server is a standby"
            if server.in_recovery
            else "may create tables"
            if server.may_create
            else "may not create tables",
            fail=server.in_recovery or not server.may_create,
            mend="point TOLLKEEPER_DATABASE_URL at the primary, with a role that owns the database",
        ),
        _check(
            "durability",
            ", ".join(f"{name} {value}" for name, value in durable.items()),
            fail=bool(unsafe),
            mend=f"switch {' and '.join(unsafe)} on in postgresql.conf: "
            "a charge that was answered could be lost in a crash",
        ),
        _check(
            "database encoding",
            f"{server.encoding}, locale {server.locale}",
            fail=server.encoding != "UTF8",
            mend="make the database anew with ENCODING 'UTF8'",
        ),
        _check(
            "connections",
            f"{server.max_connections} allowed, up to {wanted} wanted",
            warn=server.max_connections < wanted,
            mend="raise max_connections in postgresql.conf, or lower TOLLKEEPER_POOL_MAX",
        ),
    ]


async def _check_clock(connection: Connection) -> Check:
    before = datetime.now(UTC)
    theirs = await store.read_clock(connection)
    after = datetime.now(UTC)
    apart = abs(theirs - (before + (after - before) / 2))
    return _check(
        "clocks",
        f"{apart // timedelta(milliseconds=1)} ms between the database and this program",
        fail=apart > CLOCK_FAIL,
        warn=apart > CLOCK_WARN,
        mend="let both machines keep their time by NTP",
    )


def _check_schema(url: str) -> list[Check]:
    wrong, missing = drift(url), pending(url)
    return [
        _check(
            "schema",
            " ".join(wrong) if wrong else "as this release left it",
            fail=bool(wrong),
            mend="run the release that this database belongs to",
        ),
        _check(
            "migrations",
            f"{len(missing)} pending: {', '.join(missing)}" if missing else "none pending",
            warn=bool(missing),
            mend='run "tollkeeper migrate" ("serve" does it too)',
        ),
    ]


async def _check_partitions(connection: Connection) -> Check:
    days = await store.last_partition_days(connection)
    last = min(days.values(), default=None)
    today = datetime.now(UTC).date()
    ahead = -1 if last is None or len(days) < 3 else (last - today).days
    return _check(
        "partitions",
        "missing" if last is None else f"made up to {last}, {ahead} days ahead",
        fail=ahead < PARTITION_FAIL_DAYS,
        warn=ahead < PARTITION_WARN_DAYS,
        mend='run "tollkeeper migrate"; a running server makes them by itself each hour',
    )


# --- what is in it -------------------------------------------------------------------------------


async def _check_content(connection: Connection) -> list[Check]:
    counts = await store.read_counts(connection)
    return [
        await _check_none(
            connection,
            "unplanned_cards",
            what="rate cards in no plan",
            mend="tollkeeper plan create NAME --card CARD, and give parties that plan",
        ),
        await _check_none(
            connection,
            "inactive_cards",
            what="plans' cards without prices",
            mend="tollkeeper rates import FILE --card CARD, then activate the version",
        ),
        await _check_none(
            connection,
            "unplanned_parties",
            what="parties without a plan",
            mend="tollkeeper party set PARTY --plan PLAN",
        ),
        await _check_none(
            connection,
            "parties_without_wallet",
            what="parties without a wallet",
            mend="tollkeeper wallet create PARTY CURRENCY",
        ),
        await _check_none(
            connection,
            "parked_wallets",
            what="parked wallets",
            mend='run "tollkeeper verify", mend what it finds, then '
            '"tollkeeper wallet unpark PARTY CURRENCY --reason WHY"',
        ),
        _check(
            "API keys",
            f"{counts.charging_keys} that may charge",
            warn=counts.charging_keys == 0,
            mend="tollkeeper key create switch-1 --scope charge --switch switch-1",
        ),
        _check(
            "sessions",
            f"{counts.live_sessions} live, {counts.overdue_sessions} overdue by ten minutes",
            warn=counts.overdue_sessions > 0,
            mend='they are closed by any running server: start "tollkeeper serve"',
        ),
        _check(
            "messages to switches",
            f"{counts.late_messages} undelivered for ten minutes",
            warn=counts.late_messages > 0,
            mend='see that the switches\' addresses are right ("tollkeeper switch set") and a server runs',
        ),
    ]


async def _check_none(connection: Connection, query: str, *, what: str, mend: str) -> Check:
    found = await store.codes(connection, query)
    shown = ", ".join(found[:SHOWN]) + (" and more" if len(found) > SHOWN else "")
    return _check(what, shown or "none", warn=bool(found), mend=mend)
