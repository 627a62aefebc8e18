"""Connections and named queries: the one way to reach PostgreSQL."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
from importlib import resources
from typing import LiteralString, cast

import psycopg
from psycopg import AsyncConnection
from psycopg.rows import DictRow, dict_row
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from tollkeeper.errors import Busy, Forbidden

OPTIONS = (
    "-c TimeZone=UTC -c lock_timeout=5s -c statement_timeout=60s "
    "-c idle_in_transaction_session_timeout=60s -c max_parallel_workers_per_gather=0"
)
"""Every connection works in UTC, waits for nothing without end, and takes one core at most: the rest
is for calls."""

_NAME = re.compile(r"^-- name: ([a-z0-9_]+)$", re.MULTILINE)

Connection = AsyncConnection[DictRow]


@cache
def queries(name: str) -> dict[str, LiteralString]:
    """Return the queries of ``store/sql/<name>.sql`` by the names in their ``-- name:`` lines."""
    text = resources.files("tollkeeper.store").joinpath("sql", f"{name}.sql").read_text("utf-8")
    parts = _NAME.split(text)
    # The files are part of the program: their text is as trusted as a literal.
    return {parts[n]: cast("LiteralString", parts[n + 1].strip()) for n in range(1, len(parts), 2)}


class Database:
    """A small pool for the ordinary work: everything but the lane, which has its own connection."""

    def __init__(self, url: str, *, size: int = 8, min_size: int = 1) -> None:
        self.url = url
        self._pool: AsyncConnectionPool[Connection] = AsyncConnectionPool(
            url,
            min_size=min(min_size, size),
            max_size=size,
            open=False,
            timeout=5.0,
            kwargs={"row_factory": dict_row, "options": OPTIONS, "autocommit": True},
        )

    async def open(self) -> None:
        """Open the pool and wait for the first connection."""
        await self._pool.open(wait=True, timeout=20.0)

    async def close(self) -> None:
        """Close all connections."""
        await self._pool.close()

    @asynccontextmanager
    async def read(self, *, scope: int | None = None) -> AsyncIterator[Connection]:
        """A connection in autocommit: for single statements that only read.

        With a ``scope`` it is one transaction in which the database shows only what belongs to that
        party and those below it.

        Raises:
            Busy: no connection could be had in time.
        """
        try:
            async with self._pool.connection() as connection:
                if scope is None:
                    yield connection
                    return
                async with connection.transaction():
                    await connection.execute("SET LOCAL ROLE tollkeeper_party")
                    await connection.execute(
                        "SELECT set_config('tollkeeper.party', %s, true)", (str(scope),)
                    )
                    yield connection
        except psycopg.errors.InsufficientPrivilege as error:
            if scope is None:
                raise
            # The services say it better; this is for what they overlook.
            raise Forbidden(
                "this belongs to somebody else and cannot be changed by this key",
                code="operator_only",
            ) from error
        except (PoolTimeout, psycopg.OperationalError) as error:
            raise Busy(
                "the database does not answer; try again in a moment", code="database_away"
            ) from error

    async def ping(self) -> None:
        """Ask the database for a sign of life.

        Raises:
            Busy: it gives none.
        """
        async with self.read() as connection:
            await connection.execute("SELECT 1")

    @asynccontextmanager
    async def write(self, *, scope: int | None = None) -> AsyncIterator[Connection]:
        """A connection in one transaction: commits when the block ends, rolls back when it raises.

        ``scope`` is as for :meth:`read`.

        Raises:
            Busy: no connection could be had in time, or it was lost (the outcome is then unknown).
        """
        async with self.read(scope=scope) as connection, connection.transaction():
            yield connection
