"""Where call records come from, as it is stored, and what is known of the files that came."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import psycopg
from psycopg.rows import DictRow
from psycopg.types.json import Jsonb

from tollkeeper.errors import Busy
from tollkeeper.store.db import OPTIONS, Connection, queries

CONNECT_SECONDS = 10

_SQL = queries("cdr_sources")


@dataclass(frozen=True, slots=True)
class CdrSource:
    """A place that records are collected from.

    ``settings`` is what the kind needs, ``mapping`` how lines are read where the format does not
    say. ``secret`` (password or private key) is never shown.
    """

    code: str
    kind: str
    switch: str
    format: str
    mapping: Mapping[str, Any] | None = None
    timezone: str = "UTC"
    settings: Mapping[str, Any] = field(default_factory=dict)
    secret: str = field(default="", repr=False)
    enabled: bool = True
    poll_seconds: int = 60
    last_run_at: datetime | None = None
    last_error: str = ""
    id: int = 0
    created_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class KnownFile:
    """A file whose content is known; ``status`` is loading, done or failed."""

    id: int
    status: str
    name: str
    error: str = ""


@dataclass(frozen=True, slots=True)
class NewFile:
    """A file that was handed over; ``source_id`` is None for one that came by hand."""

    source_id: int | None
    switch: str
    name: str
    sha256: str
    bytes: int
    format: str
    mapping: Mapping[str, Any] | None
    timezone: str
    actor: str


async def read_source(connection: Connection, code: str) -> CdrSource | None:
    """Read one source by code."""
    row = await (await connection.execute(_SQL["source"], (code,))).fetchone()
    return CdrSource(**row) if row is not None else None


async def read_sources(connection: Connection, *, after: str, limit: int) -> list[CdrSource]:
    """Read sources in the order of their codes."""
    rows = await (await connection.execute(_SQL["sources"], (after, limit))).fetchall()
    return [CdrSource(**row) for row in rows]


async def due_sources(connection: Connection, now: datetime) -> list[CdrSource]:
    """Read the enabled sources whose time has come, those that waited longest first."""
    rows = await (await connection.execute(_SQL["due"], (now,))).fetchall()
    return [CdrSource(**row) for row in rows]


async def lock_source(connection: Connection, code: str) -> int | None:
    """Lock a source's row against other changes; return its id."""
    row = await (await connection.execute(_SQL["lock"], (code,))).fetchone()
    return row["id"] if row is not None else None


async def add_source(connection: Connection, source: CdrSource) -> int | None:
    """Insert a source; None when the code is taken."""
    values = (source.code, source.kind, *_changeable(source))
    row = await (await connection.execute(_SQL["add"], values)).fetchone()
    return row["id"] if row is not None else None


async def write_source(connection: Connection, source: CdrSource) -> None:
    """Store what may change of a source; it is due at once then."""
    await connection.execute(_SQL["change"], (*_changeable(source), source.id))


def _changeable(source: CdrSource) -> tuple[object, ...]:
    return (
        source.switch,
        source.format,
        _json(source.mapping),
        source.timezone,
        _json(source.settings),
        source.secret,
        source.enabled,
        source.poll_seconds,
    )


@asynccontextmanager
async def right_to_run(url: str, source_id: int) -> AsyncIterator[bool]:
    """Hold the right to collect from a source while the block runs; False when another has it.

    The right belongs to a connection of its own: it ends with it, whatever happens.

    Raises:
        Busy: the database is away.
    """
    async with AsyncExitStack() as stack:
        try:
            connection = await psycopg.AsyncConnection.connect(
                url, autocommit=True, options=OPTIONS, connect_timeout=CONNECT_SECONDS
            )
            stack.push_async_callback(connection.close)
            row = await (await connection.execute(_SQL["try_run"], (source_id,))).fetchone()
        except psycopg.OperationalError as error:
            raise Busy(
                "the database does not answer; try again in a moment", code="database_away"
            ) from error
        yield row is not None and bool(row[0])


async def read_position(connection: Connection, source_id: int) -> dict[str, Any]:
    """Return how far a source has been read, in the words of its kind."""
    row = await (await connection.execute(_SQL["position"], (source_id,))).fetchone()
    return dict(row["position"]) if row is not None else {}


async def write_position(
    connection: Connection, source_id: int, position: Mapping[str, Any]
) -> None:
    """Store how far a source has been read."""
    await connection.execute(_SQL["write_position"], (_json(position), source_id))


async def note_run(connection: Connection, source_id: int, at: datetime, error: str) -> None:
    """Store when a source was last looked at, and what was wrong ("" for nothing)."""
    await connection.execute(_SQL["note_run"], (at, error, source_id))


async def run_soon(connection: Connection, source_id: int) -> None:
    """Make a source due at once."""
    await connection.execute(_SQL["run_soon"], (source_id,))


async def find_file(connection: Connection, switch: str, sha256: str) -> KnownFile | None:
    """Return what is known of a content; a file that was rolled back is not known any more."""
    return _known(await (await connection.execute(_SQL["file"], (switch, sha256))).fetchone())


async def announce_file(connection: Connection, file: NewFile) -> KnownFile | None:
    """Insert a file that is about to be loaded; None when its content is known already."""
    values = _file_values(file)
    return _known(await (await connection.execute(_SQL["announce_file"], values)).fetchone())


async def fail_file(connection: Connection, file: NewFile, error: str, now: datetime) -> None:
    """Note that a file cannot be loaded, and why."""
    await connection.execute(_SQL["fail_file"], (*_file_values(file), error, now))


async def revive_file(connection: Connection, switch: str, sha256: str) -> None:
    """Let a file that failed be tried again."""
    await connection.execute(_SQL["revive_file"], (switch, sha256))


def _file_values(file: NewFile) -> tuple[object, ...]:
    return (
        file.source_id,
        file.switch,
        file.name,
        file.sha256,
        file.bytes,
        file.format,
        _json(file.mapping),
        file.timezone,
        file.actor,
    )


def _known(row: DictRow | None) -> KnownFile | None:
    return KnownFile(**row) if row is not None else None


def _json(value: Mapping[str, Any] | None) -> Jsonb | None:
    return None if value is None else Jsonb(dict(value))
