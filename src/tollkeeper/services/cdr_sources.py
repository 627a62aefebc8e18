"""Sources of call records: create, change, look at, disable. A secret goes in and never comes out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import msgspec

from tollkeeper.errors import Conflict, InvalidInput, NotFound
from tollkeeper.services.fields import check_choice, check_code, check_integer, check_timezone
from tollkeeper.services.source_settings import KINDS, read_settings
from tollkeeper.store import cdr_sources as store
from tollkeeper.store.cdr_sources import CdrSource
from tollkeeper.store.changes import record
from tollkeeper.store.db import Connection, Database
from tollkeeper.wire.cdr.formats import FORMATS
from tollkeeper.wire.cdr.mapping import load_mapping

__all__ = [
    "CHANGEABLE",
    "CdrSource",
    "change_source",
    "create_source",
    "disable_source",
    "get_source",
    "list_sources",
]

CHANGEABLE = frozenset(
    (
        "switch",
        "format",
        "mapping",
        "timezone",
        "settings",
        "secret",
        "enabled",
        "poll_seconds",
    )
)
NEEDS_MAPPING = ("csv", "jsonl")
PLACE = ("host", "port", "path", "database", "since")
"""The settings that say which place is read."""
SECRET_MAX = 20_000
HIDDEN = "***"


async def create_source(database: Database, source: CdrSource, *, actor: str) -> CdrSource:
    """Create a source; returns it as stored.

    Raises:
        InvalidInput: a field or a setting is wrong; the sentence names it.
        Conflict: the code is taken.
    """
    check_code(source.code)
    checked = _checked(source)
    async with database.write() as connection:
        source_id = await store.add_source(connection, checked)
        if source_id is None:
            raise Conflict(f'the code "{source.code}" is taken', code="source_exists", field="code")
        await record(
            connection,
            actor=actor,
            action="cdr_source.create",
            subject=f"cdr source {source.code}",
            detail={"kind": source.kind} | {n: _shown(checked, n) for n in sorted(CHANGEABLE)},
            notice=f"cdr_source:{source_id}",
        )
        return await _read(connection, source.code)


async def change_source(
    database: Database, code: str, changes: Mapping[str, Any], *, actor: str
) -> CdrSource:
    """Change some of a source's fields (see :data:`CHANGEABLE`); returns it as it is then.

    ``settings`` are changed one by one: those not named stay, those that are None go back to their
    defaults. ``mapping`` is replaced as a whole.

    Raises:
        NotFound: no such source. InvalidInput: a field is unknown or wrong.
    """
    unknown = sorted(changes.keys() - CHANGEABLE)
    if unknown:
        raise InvalidInput(f"{unknown[0]}: this cannot be changed", field=unknown[0])
    async with database.write() as connection:
        if await store.lock_source(connection, code) is None:
            raise unknown_source(code)
        before = await _read(connection, code)
        wanted = dict(changes)
        if "settings" in wanted:
            merged = {**before.settings, **wanted["settings"]}
            wanted["settings"] = {n: value for n, value in merged.items() if value is not None}
        after = _checked(replace(before, **wanted))
        different = sorted(n for n in changes if getattr(before, n) != getattr(after, n))
        if not different:
            return before
        await store.write_source(connection, after)
        if any(before.settings.get(name) != after.settings.get(name) for name in PLACE):
            # How far another place was read says nothing about this one.
            await store.write_position(connection, before.id, {})
        await record(
            connection,
            actor=actor,
            action="cdr_source.change",
            subject=f"cdr source {code}",
            detail={n: [_shown(before, n), _shown(after, n)] for n in different},
            notice=f"cdr_source:{before.id}",
        )
        return await _read(connection, code)


async def disable_source(database: Database, code: str, *, actor: str) -> CdrSource:
    """Stop collecting from a source; what came from it stays, and so does the source.

    Raises:
        NotFound: no such source.
    """
    return await change_source(database, code, {"enabled": False}, actor=actor)


async def get_source(database: Database, code: str) -> CdrSource:
    """Return a source.

    Raises:
        NotFound: no such source.
    """
    async with database.read() as connection:
        return await _read(connection, code)


async def list_sources(database: Database, *, after: str = "", limit: int = 100) -> list[CdrSource]:
    """Return sources in the order of their codes."""
    async with database.read() as connection:
        return await store.read_sources(connection, after=after, limit=limit)


def unknown_source(code: str) -> NotFound:
    """The error for a source that does not exist."""
    return NotFound(f'there is no CDR source "{code}"', code="unknown_cdr_source")


async def _read(connection: Connection, code: str) -> CdrSource:
    source = await store.read_source(connection, code)
    if source is None:
        raise unknown_source(code)
    return source


def _checked(source: CdrSource) -> CdrSource:
    """The source with its settings complete, if all of it can work."""
    check_choice(source.kind, tuple(KINDS), field="kind")
    check_code(source.switch, field="switch")
    check_choice(source.format, tuple(sorted(FORMATS)), field="format")
    check_timezone(source.timezone)
    check_integer(source.poll_seconds, field="poll_seconds", least=1, most=86_400)
    if source.kind == "mysql" and source.format != "vos3000":
        raise InvalidInput(
            "format: rows are read from the database of a VOS3000 only; choose vos3000",
            field="format",
        )
    if len(source.secret) > SECRET_MAX or "\x00" in source.secret:
        raise InvalidInput(f"secret: at most {SECRET_MAX} characters", field="secret")
    mapping = source.mapping
    if mapping is not None:
        mapping = load_mapping(dict(mapping)).to_dict()
    elif source.format in NEEDS_MAPPING:
        raise InvalidInput(
            f"mapping: the format {source.format} needs one; it says which column is what",
            field="mapping",
        )
    settings = read_settings(source.kind, source.settings, source.secret)
    return replace(source, mapping=mapping, settings=msgspec.to_builtins(settings))


def _shown(source: CdrSource, name: str) -> object:
    """A field as the audit trail may keep it."""
    value = getattr(source, name)
    if name == "secret":
        return HIDDEN if value else ""
    return dict(value) if isinstance(value, Mapping) else value
