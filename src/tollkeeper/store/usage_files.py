"""Files of records as they are loaded: who may load, how far it got, batches, and waiting halves."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta

import msgspec
from psycopg.types.json import Jsonb

from tollkeeper.core.usage import Half, Usage
from tollkeeper.errors import Breach
from tollkeeper.store.db import Connection, queries

_SQL = queries("usage")
_encode = msgspec.json.Encoder().encode
_decode_usage = msgspec.json.Decoder(Usage).decode
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Counts:
    """What became of records: ``records`` = rated + matched + duplicate + quarantined.

    ``skipped`` lines were no records by the rules of their format.
    """

    records: int = 0
    rated: int = 0
    matched: int = 0
    duplicate: int = 0
    quarantined: int = 0
    skipped: int = 0


@dataclass(frozen=True, slots=True)
class NewFile:
    """A file that is about to be loaded; ``mapping`` is how its lines are to be read."""

    switch: str
    name: str
    sha256: str
    bytes: int
    format: str
    mapping: Mapping[str, object] | None = None
    timezone: str = "UTC"
    source_id: int | None = None
    actor: str = ""


@dataclass(frozen=True, slots=True)
class CdrFile:
    """A file and how far it is loaded: the next part begins at ``offset_bytes``, after ``lines_done``.

    ``status`` is loading, done, failed or rolled_back.
    """

    id: int
    source_id: int | None
    switch: str
    name: str
    sha256: str
    bytes: int
    format: str
    mapping: Mapping[str, object] | None
    timezone: str
    status: str
    offset_bytes: int
    lines_done: int
    records: int
    rated: int
    matched: int
    duplicate: int
    quarantined: int
    skipped: int
    error: str
    actor: str
    created_at: datetime
    ended_at: datetime | None


@dataclass(frozen=True, slots=True)
class NewBatch:
    """A step about to be written; ``kind`` is load, replay, rerate, rollback or late_match.

    ``first_line`` and ``last_line`` are those of the part of the file, from 1.
    """

    kind: str
    at: datetime
    file_id: int | None = None
    switch: str = ""
    first_line: int = 0
    last_line: int = 0
    counts: Counts = field(default_factory=Counts)
    actor: str = ""
    note: str = ""
    summary: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class StoredHalf:
    """A half that waits for the other one, and the file that it came with."""

    half: Half
    file_id: int


# --- one load a switch ---------------------------------------------------------------------------


def lock_key(switch: str) -> int:
    """The number of a switch's advisory lock."""
    digest = hashlib.blake2b(f"cdr/{switch}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)


async def lock_switch(connection: Connection, switch: str) -> bool:
    """Try to become the only one that loads records of a switch; False when somebody else is.

    The lock belongs to the connection, over its transactions, and ends with it or with
    :func:`unlock_switch`. Taken twice it must be given back twice.
    """
    row = await (await connection.execute(_SQL["try_lock"], (lock_key(switch),))).fetchone()
    return row is not None and bool(row["taken"])


async def unlock_switch(connection: Connection, switch: str) -> None:
    """Let others load records of the switch."""
    await connection.execute(_SQL["unlock"], (lock_key(switch),))


async def unlock_all(connection: Connection) -> None:
    """Give back every lock that this connection holds beyond its transactions."""
    await connection.execute(_SQL["unlock_all"])


# --- files and batches ---------------------------------------------------------------------------


async def open_file(connection: Connection, file: NewFile, at: datetime) -> CdrFile:
    """Enter a file, or find it where it was entered before (and not rolled back since).

    Who gets a file that is done, or loaded in part, goes on from what it says.
    """
    values = {name: getattr(file, name) for name in NewFile.__slots__}
    mapping = None if file.mapping is None else Jsonb(dict(file.mapping))
    row = await (
        await connection.execute(_SQL["add_file"], {**values, "mapping": mapping, "at": at})
    ).fetchone()
    if row is not None:
        return CdrFile(**row)
    found = await find_file(connection, file.switch, file.sha256)
    if found is None:
        raise Breach(f"the file {file.name} was rolled back while it was being opened")
    return found


async def find_file(connection: Connection, switch: str, sha256: str) -> CdrFile | None:
    """Find a switch's file by its content; one that was rolled back counts no more."""
    row = await (await connection.execute(_SQL["find_file"], (switch, sha256))).fetchone()
    return CdrFile(**row) if row is not None else None


async def read_file(connection: Connection, file_id: int) -> CdrFile | None:
    """Read a file by its number."""
    row = await (await connection.execute(_SQL["file"], (file_id,))).fetchone()
    return CdrFile(**row) if row is not None else None


async def advance_file(
    connection: Connection, file: CdrFile, *, offset: int, line: int, counts: Counts
) -> None:
    """Move a file on by one part: ``file`` is how it stood before.

    Raises:
        Breach: somebody else has moved it on, or it is not being loaded.
    """
    values = {
        **asdict(counts), "id": file.id, "offset": offset, "line": line,
        "from_line": file.lines_done,
    }  # fmt: skip
    cursor = await connection.execute(_SQL["advance_file"], values)
    if cursor.rowcount != 1:
        raise Breach(
            f"the file {file.name} does not stand at line {file.lines_done} any more; "
            "somebody else loads it, or it was ended"
        )


async def end_file(
    connection: Connection, file_id: int, status: str, *, at: datetime, error: str = ""
) -> None:
    """End a file: ``done``, ``failed`` with the reason, or ``rolled_back``."""
    await connection.execute(_SQL["end_file"], (status, error, at, file_id))


async def resume_file(connection: Connection, file_id: int) -> bool:
    """Go on with a file that failed; False when it did not."""
    return (await connection.execute(_SQL["resume_file"], (file_id,))).rowcount == 1


async def add_batch(connection: Connection, batch: NewBatch) -> int:
    """Enter a batch; returns its number, which is higher than that of every batch before."""
    values = {name: getattr(batch, name) for name in NewBatch.__slots__ if name != "counts"}
    values |= {**asdict(batch.counts), "summary": Jsonb(dict(batch.summary))}
    row = await (await connection.execute(_SQL["add_batch"], values)).fetchone()
    assert row is not None
    number: int = row["id"]
    return number


async def batches_of_file(connection: Connection, file_id: int) -> dict[int, int | None]:
    """The batches of a file in their order, each with the one that took it back."""
    rows = await (await connection.execute(_SQL["batches_of_file"], (file_id,))).fetchall()
    return {row["id"]: row["undone_by"] for row in rows}


async def undo_batches(connection: Connection, batch_ids: Sequence[int], by: int) -> int:
    """Mark batches as taken back by another; returns how many were not so marked before."""
    return (await connection.execute(_SQL["undo_batches"], (by, list(batch_ids)))).rowcount


# --- halves --------------------------------------------------------------------------------------


async def read_halves(
    connection: Connection, switch: str, keys: Sequence[str] | None = None
) -> list[StoredHalf]:
    """The waiting halves of a switch with these keys, or all of them: begins before ends."""
    wanted = None if keys is None else list(keys)
    cursor = await connection.execute(_SQL["halves"], {"switch": switch, "keys": wanted})
    return [
        StoredHalf(
            Half(
                line=row["line"],
                key=row["key"],
                begins=row["begins"],
                at=(row["at"] - _EPOCH) // timedelta(microseconds=1),
                raw=row["raw"],
                usage=None if row["record"] is None else _decode_usage(row["record"]),
            ),
            row["file_id"],
        )
        for row in await cursor.fetchall()
    ]


async def replace_halves(
    connection: Connection,
    switch: str,
    *,
    joined: Iterable[tuple[str, bool]],
    waiting: Sequence[StoredHalf],
) -> int:
    """Remove the halves that found each other (key, begins) and add those that wait from now on.

    Returns how many were added: a half that waits already stays as it is.
    """
    gone = list(joined)
    if gone:
        values = ([key for key, _ in gone], [begins for _, begins in gone], switch)
        await connection.execute(_SQL["drop_halves"], values)
    if not waiting:
        return 0
    halves = [each.half for each in waiting]
    columns = (
        [_storable(half.key) for half in halves],
        [half.begins for half in halves],
        [_EPOCH + timedelta(microseconds=half.at) for half in halves],
        [each.file_id for each in waiting],
        [half.line for half in halves],
        [_storable(half.raw) for half in halves],
        [None if half.usage is None else _record(half.usage) for half in halves],
    )
    return (await connection.execute(_SQL["add_halves"], (switch, *columns))).rowcount


def _storable(text: str) -> str:
    return text.replace("\x00", "\u2400")


def _record(usage: Usage) -> str:
    texts = {
        name: _storable(value)
        for name in Usage.__struct_fields__
        if isinstance(value := getattr(usage, name), str)
    }
    return _encode(msgspec.structs.replace(usage, **texts)).decode()
