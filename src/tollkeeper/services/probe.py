"""Trying a source: connect and say what would be taken, touching nothing."""

from __future__ import annotations

from datetime import datetime

from tollkeeper.errors import InvalidInput
from tollkeeper.services.collect import connect_tables
from tollkeeper.services.collect_files import connect_files, look, summary
from tollkeeper.services.collect_tables import Position
from tollkeeper.services.source_settings import FileSettings, TableSettings, read_settings
from tollkeeper.store import cdr_sources as store
from tollkeeper.store.cdr_sources import CdrSource
from tollkeeper.store.db import Database


async def probe(database: Database, source: CdrSource, now: datetime) -> list[tuple[str, int, str]]:
    """Return name, bytes (of a table: its highest number) and what would be done, for people.

    Raises:
        FilesFailed: the source cannot be reached. InvalidInput: its kind is not collected from.
    """
    settings = read_settings(source.kind, source.settings, source.secret)
    async with database.read() as connection:
        position = await store.read_position(connection, source.id)
    if isinstance(settings, FileSettings):
        files = await connect_files(source)
        try:
            return summary(await look(files, settings, position.get("files", {}), now))
        finally:
            await files.close()
    if isinstance(settings, TableSettings):
        return await _tables(source, Position.of(position))
    raise InvalidInput(f"{source.code}: of the kind {source.kind} nothing is collected")


async def _tables(source: CdrSource, position: Position) -> list[tuple[str, int, str]]:
    tables = await connect_tables(source)
    try:
        found = []
        for table in await tables.tables():
            at = position.tables.get(table)
            last = await tables.last(table)
            done = f"read up to {at.done}" if at is not None else "not read"
            found.append((table, last, done))
        return found
    finally:
        await tables.close()
