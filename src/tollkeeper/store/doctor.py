"""What a doctor looks at in a database; nothing is changed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import date, datetime

import psycopg
from psycopg.rows import dict_row

from tollkeeper.errors import SetupError
from tollkeeper.store.db import OPTIONS, Connection, queries

_SQL = queries("doctor")
CONNECT_SECONDS = 5


@dataclass(frozen=True, slots=True)
class Server:
    """The server and its settings that durability and text rest on."""

    version: str
    version_number: int
    encoding: str
    fsync: str
    synchronous_commit: str
    full_page_writes: str
    max_connections: int
    locale: str
    in_recovery: bool
    may_create: bool


@dataclass(frozen=True, slots=True)
class Counts:
    """What there is, and what has been left lying."""

    charging_keys: int
    parties: int
    live_sessions: int
    overdue_sessions: int
    late_messages: int


@asynccontextmanager
async def connect(url: str) -> AsyncIterator[Connection]:
    """One connection, without a pool that would wait and try again.

    Raises:
        SetupError: the database cannot be reached, or went away.
    """
    try:
        connection = await psycopg.AsyncConnection.connect(
            url,
            autocommit=True,
            row_factory=dict_row,
            connect_timeout=CONNECT_SECONDS,
            options=OPTIONS,
        )
        async with connection:
            yield connection
    except psycopg.OperationalError as error:
        raise SetupError(" ".join(str(error).split())) from error


async def read_server(connection: Connection) -> Server:
    """Read the server's settings."""
    row = await (await connection.execute(_SQL["server"])).fetchone()
    assert row is not None
    return Server(**row)


async def read_clock(connection: Connection) -> datetime:
    """Read the server's time, in UTC."""
    row = await (await connection.execute(_SQL["clock"])).fetchone()
    assert row is not None
    at: datetime = row["at"]
    return at


async def last_partition_days(connection: Connection) -> dict[str, date]:
    """Return the last UTC day for which each partitioned table has a partition."""
    rows = await (await connection.execute(_SQL["partitions"])).fetchall()
    return {row["parent"]: row["last_day"] for row in rows}


async def codes(connection: Connection, query: str) -> list[str]:
    """Return the codes that one of the queries finds, eleven at most."""
    rows = await (await connection.execute(_SQL[query])).fetchall()
    return [row["code"] for row in rows]


async def read_counts(connection: Connection) -> Counts:
    """Count keys, parties and what is overdue."""
    row = await (await connection.execute(_SQL["counts"])).fetchone()
    assert row is not None
    return Counts(**row)
