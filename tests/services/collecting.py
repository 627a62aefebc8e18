"""A source to collect from, and a loader that notes what it was given, as the real one does."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from tollkeeper.services.cdr_sources import create_source
from tollkeeper.services.collect import CollectReport, SpooledFile, collect_once
from tollkeeper.services.spool import Spool
from tollkeeper.store.cdr_sources import CdrSource
from tollkeeper.store.db import Database

TEN_SECONDS = timedelta(seconds=10)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@dataclass
class Clock:
    """Time that passes when the test says so."""

    now: datetime = datetime(2026, 3, 1, 12, tzinfo=UTC)

    def __call__(self) -> datetime:
        """The time now."""
        return self.now

    def pass_(self, time: timedelta = TEN_SECONDS) -> None:
        """Let time pass."""
        self.now += time


async def note_done(database: Database, file: SpooledFile) -> bool:
    """What the real loader does with its file's row; False when it was loaded already."""
    assert file.source is not None
    async with database.write() as connection:
        cursor = await connection.execute(
            "INSERT INTO cdr_file (source_id, switch, name, sha256, bytes, format, status, ended_at)"
            " VALUES (%s, %s, %s, %s, %s, %s, 'done', now())"
            " ON CONFLICT (switch, sha256) WHERE status <> 'rolled_back'"
            " DO UPDATE SET status = 'done' WHERE cdr_file.status <> 'done'",
            (file.source.id, file.source.switch, file.name, file.sha256, file.bytes, "csv"),
        )
        return cursor.rowcount == 1


@dataclass
class Recorder:
    """Notes the name and the content of each file; ``faults`` are raised for the names in it."""

    database: Database
    loaded: list[tuple[str, bytes]] = field(default_factory=list)
    faults: dict[str, BaseException] = field(default_factory=dict)

    async def __call__(self, file: SpooledFile) -> object:
        """Load a file, or raise what is said for its name."""
        data = file.path.read_bytes()
        assert (sha256(data), len(data)) == (file.sha256, file.bytes)
        if file.name in self.faults:
            raise self.faults[file.name]
        await note_done(self.database, file)
        self.loaded.append((file.name, data))
        return len(data)

    @property
    def names(self) -> list[str]:
        """The names of what was loaded, in order."""
        return [name for name, _ in self.loaded]


@dataclass
class Collecting:
    """One source, its spool and its loader."""

    database: Database
    source: CdrSource
    spool: Spool
    load: Recorder
    clock: Clock

    async def round(self, **options: Any) -> CollectReport:
        """Make a round."""
        return await collect_once(
            self.database, self.source, self.spool, self.load, self.clock, **options
        )

    async def column(self, name: str) -> Any:
        """A column of the source as it is stored now."""
        async with self.database.read() as connection:
            row = await (
                await connection.execute(
                    f"SELECT {name} FROM cdr_source WHERE id = {self.source.id}"
                )
            ).fetchone()
        assert row is not None
        return row[name]

    async def file(self, data: bytes) -> dict[str, Any] | None:
        """What is stored of a content."""
        async with self.database.read() as connection:
            return await (
                await connection.execute(
                    "SELECT name, status, error, bytes FROM cdr_file WHERE sha256 = %s",
                    (sha256(data),),
                )
            ).fetchone()

    def spooled(self, state: str) -> list[str]:
        """The names of the files in one folder of the spool."""
        return sorted(path.name for path in (self.spool.root / self.source.code / state).iterdir())


async def collecting(
    database: Database,
    spool_path: Path,
    /,
    *,
    kind: str = "directory",
    code: str = "main",
    format_: str = "asterisk-csv",
    secret: str = "",
    max_bytes: int = 2**30,
    **settings: Any,
) -> Collecting:
    """Create a source."""
    source = await create_source(
        database,
        CdrSource(
            code=code, kind=kind, switch="sw1", format=format_, settings=settings, secret=secret
        ),
        actor="test",
    )
    spool = Spool(spool_path, max_bytes=max_bytes)
    return Collecting(database, source, spool, Recorder(database), Clock())
