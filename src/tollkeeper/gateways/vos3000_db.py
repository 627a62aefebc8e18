"""Call records straight from the database of a VOS3000 switch (MySQL or MariaDB).

The switch writes each ended call as a row into the table of its day, ``e_cdr_YYYYMMDD`` by the
clock of the server, with a running number ``flowno``. What columns there are differs from release
to release, so they are asked for. Nothing is ever written there.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Any, Protocol, Self, TypeVar

import pymysql
import pymysql.cursors

from tollkeeper.gateways.files import FilesFailed

T = TypeVar("T")

Cell = str | int | None
Row = dict[str, Cell]
"""A row by the names of its columns, in small letters; all but whole numbers as text."""

CONNECT_SECONDS = 10
ANSWER_SECONDS = 120
TABLE = re.compile(r"e_cdr_(\d{4})(\d{2})(\d{2})")
COUNTER = "flowno"
_ACCESS_DENIED = (1044, 1045, 1142, 1698)
_UNKNOWN_DATABASE = 1049
_NO_SUCH_TABLE = 1146


@dataclass(frozen=True, slots=True)
class ServerTime:
    """What the server's own clock says: ``day`` is the one whose table it writes now."""

    day: date
    at: datetime


class DayTables(Protocol):
    """The day tables of one switch. All methods raise FilesFailed."""

    async def clock(self) -> ServerTime:
        """Return the server's own time, without a zone: table names follow it."""

    async def tables(self) -> list[str]:
        """Return the names of the day tables, the oldest first."""

    async def last(self, table: str) -> int:
        """Return the highest running number in a table; 0 when it is empty or gone."""

    async def rows(self, table: str, *, after: int, upto: int, limit: int) -> list[Row]:
        """Return rows with a running number above ``after`` and not above ``upto``, in order."""

    async def close(self) -> None:
        """Give back the connection."""


def day_of(table: str) -> date | None:
    """The day of a day table; None for any other name."""
    match = TABLE.fullmatch(table)
    try:
        return date(*map(int, match.groups())) if match is not None else None
    except ValueError:
        return None


class Vos3000Tables:
    """The day tables over one connection, which only reads."""

    def __init__(self, connection: pymysql.connections.Connection[Any]) -> None:
        self._connection = connection
        self._turn = asyncio.Lock()
        self._columns: dict[str, list[str]] = {}

    @classmethod
    async def connect(
        cls, *, host: str, port: int, user: str, secret: str, database: str, tls: bool = False
    ) -> Self:
        """Connect and log in; ``tls`` demands an encrypted connection and a trusted certificate.

        Raises:
            FilesFailed: the server is away or refuses.
        """

        def connect() -> pymysql.connections.Connection[Any]:
            return pymysql.connect(
                host=host,
                port=port,
                user=user,
                password=secret,
                database=database,
                charset="utf8mb4",
                autocommit=True,
                cursorclass=pymysql.cursors.SSCursor,
                connect_timeout=CONNECT_SECONDS,
                read_timeout=ANSWER_SECONDS,
                write_timeout=CONNECT_SECONDS,
                ssl={"check_hostname": True} if tls else None,
                ssl_verify_cert=tls or None,
                local_infile=False,
            )

        return cls(await _call(host, connect))

    async def clock(self) -> ServerTime:
        """As :meth:`DayTables.clock`."""
        ((now,),) = await self._ask("its clock", "SELECT NOW()")
        assert isinstance(now, datetime)
        return ServerTime(now.date(), now)

    async def tables(self) -> list[str]:
        """As :meth:`DayTables.tables`."""
        found = await self._ask("its tables", r"SHOW TABLES LIKE 'e\_cdr\_%'")
        return sorted(str(name) for (name,) in found if day_of(str(name)) is not None)

    async def last(self, table: str) -> int:
        """As :meth:`DayTables.last`."""
        try:
            ((last,),) = await self._ask(table, f"SELECT MAX(`{COUNTER}`) FROM {_quoted(table)}")  # noqa: S608
        except TableGone:
            return 0
        return int(last or 0)

    async def rows(self, table: str, *, after: int, upto: int, limit: int) -> list[Row]:
        """As :meth:`DayTables.rows`.

        Raises:
            FilesFailed: also when the table has no column ``flowno``.
        """
        columns = await self._columns_of(table)
        if COUNTER not in {name.lower() for name in columns}:
            raise FilesFailed(f"{table}: this table has no column {COUNTER} to go on by")
        listed = ", ".join(f"`{name}`" for name in columns)
        found = await self._ask(
            table,
            f"SELECT {listed} FROM {_quoted(table)} WHERE `{COUNTER}` > %s AND `{COUNTER}` <= %s "  # noqa: S608
            f"ORDER BY `{COUNTER}` LIMIT %s",
            (after, upto, limit),
        )
        names = [name.lower() for name in columns]
        return [dict(zip(names, map(_cell, row), strict=True)) for row in found]

    async def close(self) -> None:
        """As :meth:`DayTables.close`."""
        # Without a goodbye: a thread may still wait for an answer on this connection. Its socket
        # is shut first, for to close it would wait for that thread. There are no public names.
        sock = self._connection._sock  # noqa: SLF001
        if sock is not None:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        await asyncio.to_thread(self._connection._force_close)  # noqa: SLF001

    async def _columns_of(self, table: str) -> list[str]:
        if table not in self._columns:
            found = await self._ask(table, f"SHOW COLUMNS FROM {_quoted(table)}")
            # A name with a back-tick would end its quotation; no release has one.
            self._columns[table] = [str(row[0]) for row in found if "`" not in str(row[0])]
        return self._columns[table]

    async def _ask(
        self, place: str, query: str, values: tuple[int, ...] | None = None
    ) -> list[tuple[Any, ...]]:
        def ask() -> list[tuple[Any, ...]]:
            with self._connection.cursor() as cursor:
                cursor.execute(query, values)
                return list(cursor.fetchall())

        async with self._turn:
            return await _call(place, ask)


class NullTables:
    """Day tables in memory."""

    def __init__(self, at: datetime, tables: dict[str, list[Row]] | None = None) -> None:
        self.at = at
        self.content = dict(tables or {})
        self.closed = False

    async def clock(self) -> ServerTime:
        """As :meth:`DayTables.clock`."""
        return ServerTime(self.at.date(), self.at)

    async def tables(self) -> list[str]:
        """As :meth:`DayTables.tables`."""
        return sorted(self.content)

    async def last(self, table: str) -> int:
        """As :meth:`DayTables.last`."""
        return max((_number(row) for row in self.content.get(table, [])), default=0)

    async def rows(self, table: str, *, after: int, upto: int, limit: int) -> list[Row]:
        """As :meth:`DayTables.rows`."""
        found = [row for row in self.content.get(table, []) if after < _number(row) <= upto]
        return sorted(found, key=_number)[:limit]

    async def close(self) -> None:
        """Remember that it was closed."""
        self.closed = True


class TableGone(FilesFailed):
    """There is no such table any more."""


def _number(row: Row) -> int:
    return int(row[COUNTER] or 0)


def _quoted(table: str) -> str:
    assert day_of(table) is not None, table
    return f"`{table}`"


def _cell(value: object) -> Cell:
    if value is None or isinstance(value, int):
        return value
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, Decimal):
        return format(value, "f")
    if isinstance(value, datetime):
        return value.isoformat(sep=" ")
    return str(value)


async def _call(place: str, work: Callable[[], T]) -> T:
    """Run blocking work in a thread; errors of the library become one sentence."""
    try:
        return await asyncio.to_thread(work)
    except pymysql.err.MySQLError as error:
        number, text = (*error.args, "", "")[:2]
        if number in _ACCESS_DENIED:
            raise FilesFailed(
                f"{place}: the database refuses this user or secret: {text}"
            ) from error
        if number == _UNKNOWN_DATABASE:
            raise FilesFailed(f"{place}: {text}; see settings.database") from error
        if number == _NO_SUCH_TABLE:
            raise TableGone(f"{place}: there is no such table any more") from error
        raise FilesFailed(f"{place}: the database failed: {text or error}") from error
    except (OSError, ValueError, AttributeError) as error:
        # A connection that was closed meanwhile has lost its socket: the library trips over that.
        raise FilesFailed(f"{place}: the database does not answer: {error}") from error
