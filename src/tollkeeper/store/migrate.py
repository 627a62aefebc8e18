"""Bring a database to the schema of this release: plain SQL files, in order, each exactly once.

The files are ``migrations/NNNN_name.sql``. What was applied is recorded with its checksum in the
table ``schema_migration``, so that a file changed afterwards is found (*drift*), and so is a
database that a newer release has already moved on. Any number of processes may migrate at once:
an advisory lock lets one work and the others find nothing left to do.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.resources
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psycopg

from tollkeeper.errors import SetupError

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

__all__ = ["drift", "migrate", "pending"]

OLDEST_SERVER = 150000
# Any constant will do, as long as all releases use the same one.
ADVISORY_LOCK = 0x746F6C6C
# A migration that waits for a lock makes everything behind it wait, too: give up soon.
LOCK_TIMEOUT = "5s"
STATEMENT_TIMEOUT = "15min"
# How long another process may take to migrate before this one gives up.
TURN_TIMEOUT = "20min"
PARTITION_DAYS = 14

FILE_NAME = re.compile(r"(\d{4})_([a-z0-9_]+)\.sql")


@dataclass(frozen=True, slots=True)
class Migration:
    """One file: its number, its name without number and ending, its text."""

    version: int
    name: str
    text: str

    @property
    def sha256(self) -> str:
        """Checksum of the text, in hex."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    @property
    def title(self) -> str:
        """The name of the file without its ending."""
        return f"{self.version:04}_{self.name}"


def migrate(url: str, *, source: Traversable | None = None) -> list[str]:
    """Apply what is pending and make the day partitions ahead; return the titles applied.

    Raises:
        SetupError: no connection, a server older than PostgreSQL 15, drift, a database of a
            newer release, or a file that fails; what was applied before it stays.
    """
    files = _files(source)
    with _connect(url) as connection:
        _take_turn(connection)
        connection.execute(
            "create table if not exists schema_migration ("
            " version integer primary key,"
            " name text not null,"
            " sha256 text not null,"
            " applied_at timestamptz not null default now())"
        )
        applied = _applied(connection)
        if problems := _problems(files, applied):
            raise SetupError(" ".join(problems))
        todo = [file for file in files if file.version not in applied]
        for file in todo:
            _apply(connection, file)
        _make_partitions(connection)
        return [file.title for file in todo]


def pending(url: str, *, source: Traversable | None = None) -> list[str]:
    """The titles of the migrations that this database still lacks; changes nothing.

    Raises:
        SetupError: no connection, or a server older than PostgreSQL 15.
    """
    files = _files(source)
    with _connect(url) as connection:
        applied = _applied(connection)
    return [file.title for file in files if file.version not in applied]


def drift(url: str, *, source: Traversable | None = None) -> list[str]:
    """What is wrong with the migrations applied to this database, a sentence each; changes nothing.

    Raises:
        SetupError: no connection, or a server older than PostgreSQL 15.
    """
    files = _files(source)
    with _connect(url) as connection:
        return _problems(files, _applied(connection))


@contextlib.contextmanager
def _connect(url: str) -> Iterator[psycopg.Connection]:
    try:
        connection = psycopg.connect(url, autocommit=True, connect_timeout=10)
    except psycopg.Error as error:
        raise SetupError(f"The database cannot be reached: {str(error).strip()}") from error
    with connection:
        version = connection.info.server_version
        if version < OLDEST_SERVER:
            raise SetupError(
                f"PostgreSQL 15 or newer is needed, and this is {version // 10000}; "
                "set TOLLKEEPER_DATABASE_URL to a newer one, or leave it out for a private one."
            )
        yield connection


def _take_turn(connection: psycopg.Connection) -> None:
    """Wait until no other process migrates; the lock ends with the connection."""
    connection.execute("select set_config('lock_timeout', %s, false)", [TURN_TIMEOUT])
    try:
        connection.execute("select pg_advisory_lock(%s)", [ADVISORY_LOCK])
    except psycopg.errors.LockNotAvailable as error:
        raise SetupError(
            f"Another process has been migrating this database for {TURN_TIMEOUT}."
        ) from error
    connection.execute("select set_config('lock_timeout', %s, false)", [LOCK_TIMEOUT])
    connection.execute("select set_config('statement_timeout', %s, false)", [STATEMENT_TIMEOUT])


def _apply(connection: psycopg.Connection, file: Migration) -> None:
    try:
        with connection.transaction():
            connection.execute(file.text.encode())
            connection.execute(
                "insert into schema_migration (version, name, sha256) values (%s, %s, %s)",
                [file.version, file.name, file.sha256],
            )
    except psycopg.Error as error:
        raise SetupError(f"Migration {file.title} failed: {str(error).strip()}") from error


def _make_partitions(connection: psycopg.Connection) -> None:
    """Make the day partitions from yesterday on, where the schema has them."""
    found = connection.execute("select to_regprocedure('ensure_partitions(date, integer)')")
    if found.fetchone() == (None,):
        return
    try:
        with connection.transaction():
            connection.execute(
                "select ensure_partitions((now() at time zone 'UTC')::date - 1, %s)",
                [PARTITION_DAYS],
            )
    except psycopg.Error as error:
        raise SetupError(f"The day partitions could not be made: {str(error).strip()}") from error


def _applied(connection: psycopg.Connection) -> dict[int, tuple[str, str]]:
    """Name and checksum of each migration applied, by version."""
    if connection.execute("select to_regclass('schema_migration')").fetchone() == (None,):
        return {}
    rows = connection.execute("select version, name, sha256 from schema_migration")
    return {version: (name, sha256) for version, name, sha256 in rows}


def _problems(files: list[Migration], applied: dict[int, tuple[str, str]]) -> list[str]:
    known = {file.version: file for file in files}
    problems = []
    for version, (name, sha256) in sorted(applied.items()):
        file = known.get(version)
        if file is None:
            problems.append(
                f"The database has migration {version:04}_{name}, which this release does not know: "
                "it belongs to a newer release, so run that one."
            )
        elif file.sha256 != sha256:
            problems.append(
                f"Migration {file.title} was changed after it was applied to this database; "
                "restore the file and put the change into a new one."
            )
    return problems


def _files(source: Traversable | None) -> list[Migration]:
    folder = source or importlib.resources.files("tollkeeper.store") / "migrations"
    files: dict[int, Migration] = {}
    for entry in folder.iterdir():
        if not entry.name.endswith(".sql"):
            continue
        parts = FILE_NAME.fullmatch(entry.name)
        if parts is None:
            raise SetupError(f"{entry.name} is not named like a migration: NNNN_name.sql.")
        file = Migration(int(parts[1]), parts[2], entry.read_text(encoding="utf-8"))
        if other := files.get(file.version):
            raise SetupError(f"{other.title} and {file.title} have the same number.")
        files[file.version] = file
    return [files[version] for version in sorted(files)]
