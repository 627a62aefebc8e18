"""What the commands share: the console, the database, and who is at the keyboard."""

from __future__ import annotations

import asyncio
import getpass
import os
import sys
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, TypeVar

from cyclopts import Parameter
from rich.console import Console
from rich.table import Table

from tollkeeper.errors import InvalidInput, SetupError
from tollkeeper.settings import Settings, load_settings
from tollkeeper.store.db import Database
from tollkeeper.store.migrate import migrate, pending
from tollkeeper.telemetry import configure_logging
from tollkeeper.wiring import Runtime, database_url, open_runtime

T = TypeVar("T")

FileOrInput = Annotated[Path, Parameter(allow_leading_hyphen=True)]
"""An option that names a file, or standard input by "-", which is else taken for an option."""

WIDTH_IN_PIPES = 160
"""Without a terminal there is no width to ask for; tables must not be cut for the program that reads them."""


def console(*, stderr: bool = False) -> Console:
    """A console on what standard output or standard error is now."""
    stream = sys.stderr if stderr else sys.stdout
    return Console(
        file=stream,
        width=None if stream.isatty() else WIDTH_IN_PIPES,
        highlight=False,
        stderr=stderr,
    )


def actor() -> str:
    """Who is at the keyboard, for the audit trail."""
    try:
        return f"cli:{getpass.getuser()}"
    except (KeyError, OSError):  # a container's user need not have a name
        return f"cli:{os.getuid()}"


@contextmanager
def migrated_database(settings: Settings) -> Iterator[str]:
    """The URL of the database to work on; a private one is brought to this release's schema.

    Raises:
        SetupError: no database, or a given one that lacks migrations: those are never applied
            as a side effect of some other command.
    """
    with database_url(settings) as url:
        if settings.database_url is None:
            migrate(url)
        elif missing := pending(url):
            raise SetupError(
                f'The database lacks {len(missing)} migration(s); run "tollkeeper migrate" first.'
            )
        yield url


def run(work: Callable[[Database], Awaitable[T]]) -> T:
    """Do some work on the database of the settings, and close it again."""
    settings = load_settings()
    configure_logging(settings.log_level, settings.log_format)
    with migrated_database(settings) as url:
        return asyncio.run(_with_database(url, work))


async def _with_database(url: str, work: Callable[[Database], Awaitable[T]]) -> T:
    database = Database(url, size=2)
    await database.open()
    try:
        return await work(database)
    finally:
        await database.close()


def run_charging(work: Callable[[Runtime], Awaitable[T]]) -> T:
    """Do some work that charges: on a process's parts, without its jobs."""
    settings = load_settings()
    configure_logging(settings.log_level, settings.log_format)

    async def within(url: str) -> T:
        async with open_runtime(url, settings, jobs=False) as runtime:
            return await work(runtime)

    with migrated_database(settings) as url:
        return asyncio.run(within(url))


def utc(moment: datetime) -> datetime:
    """A moment given on the command line: UTC where no zone is given."""
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def table(title: str, columns: Iterable[str], rows: Iterable[Iterable[object]]) -> Table:
    """A plain table; None is shown as nothing, columns whose title ends in ">" are aligned right."""
    made = Table(title=title, title_justify="left", box=None, header_style="bold", pad_edge=False)
    for column in columns:
        right = column.endswith(">")
        made.add_column(column.rstrip(">"), justify="right" if right else "left", overflow="fold")
    for row in rows:
        made.add_row(*("" if cell is None else str(cell) for cell in row))
    return made


def given(**values: object) -> dict[str, object]:
    """The options that were given on the command line.

    Raises:
        InvalidInput: none, so there is nothing to do.
    """
    found = {name: value for name, value in values.items() if value is not None}
    if not found:
        options = ", ".join("--" + name.replace("_", "-") for name in values)
        raise InvalidInput(f"nothing to change; give one of {options}")
    return found
