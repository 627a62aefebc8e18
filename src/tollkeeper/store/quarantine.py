"""Records in quarantine as they are stored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime

from tollkeeper.store.db import Connection, queries

_SQL = queries("quarantine")


@dataclass(frozen=True, slots=True)
class Filter:
    """Which records are meant; None is any. ``status`` is open, replayed or dropped."""

    reason: str | None = None
    file_id: int | None = None
    switch: str | None = None
    status: str | None = "open"
    ids: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True)
class Quarantined:
    """A record that is not in the books: where it stood, why, the line itself, and what was read.

    ``record`` is the JSON of a ``core.usage.Usage``; None where the line could not be read.
    """

    id: int
    batch_id: int
    file_id: int | None
    file: str
    switch: str
    line: int
    reason: str
    field: str
    value: str
    detail: str
    raw: str
    record: str | None
    status: str
    at: datetime
    resolved_at: datetime | None
    resolved_by: str


async def read_quarantine(
    connection: Connection, wanted: Filter, *, after: int, limit: int
) -> list[Quarantined]:
    """Read records after an id, the oldest first."""
    values = {**_values(wanted), "after": after, "limit": limit}
    rows = await (await connection.execute(_SQL["page"], values)).fetchall()
    return [Quarantined(**row) for row in rows]


async def read_one(connection: Connection, id_: int) -> Quarantined | None:
    """Read and lock one record."""
    row = await (await connection.execute(_SQL["one"], (id_,))).fetchone()
    return None if row is None else Quarantined(**row)


async def count_open(connection: Connection) -> list[tuple[str, str, int, datetime]]:
    """How many records wait: (switch, reason, count, since when)."""
    rows = await (await connection.execute(_SQL["count_open"])).fetchall()
    return [(row["switch"], row["reason"], row["records"], row["since"]) for row in rows]


async def switches_of(connection: Connection, wanted: Filter) -> list[str]:
    """The switches that have open records of this kind."""
    rows = await (await connection.execute(_SQL["switches"], _values(wanted))).fetchall()
    return [row["switch"] for row in rows]


async def drop(connection: Connection, ids: Sequence[int], *, at: datetime, by: str) -> int:
    """Close open records as given up; returns how many."""
    return (await connection.execute(_SQL["drop"], (at, by, list(ids)))).rowcount


async def resolve(
    connection: Connection, ids: Sequence[int], *, at: datetime, by: str, batch_id: int
) -> None:
    """Close open records as played again by a batch."""
    await connection.execute(_SQL["resolve"], (at, by, batch_id, list(ids)))


async def set_record(connection: Connection, id_: int, record: str) -> None:
    """Correct what was read of a record: the JSON of a usage record."""
    await connection.execute(_SQL["set_record"], (record, id_))


async def set_reasons(
    connection: Connection, reasons: Sequence[tuple[int, str, str, str, str]]
) -> None:
    """Say anew why records are put aside: (id, reason, field, value, detail)."""
    if reasons:
        columns = [list(column) for column in zip(*reasons, strict=True)]
        await connection.execute(_SQL["set_reasons"], columns)


async def is_told(connection: Connection, told: str) -> bool:
    """Tell whether a report of this name was put aside, whatever became of it since."""
    return await (await connection.execute(_SQL["told"], (told,))).fetchone() is not None


async def lock_told(connection: Connection, told: str) -> None:
    """Keep others from putting the report of this name aside until the transaction ends."""
    await connection.execute(_SQL["lock_told"], (told,))


async def add_told(
    connection: Connection,
    *,
    batch_id: int,
    switch: str,
    reason: str,
    field: str,
    value: str,
    detail: str,
    raw: str,
    record: str,
    at: datetime,
    told: str,
) -> None:
    """Put a report aside; ``record`` is the JSON of a usage record, ``told`` the report's name."""
    values = {
        "batch_id": batch_id, "switch": switch, "reason": reason, "field": field, "value": value,
        "detail": detail, "raw": raw, "record": record, "at": at, "told": told,
    }  # fmt: skip
    await connection.execute(_SQL["add_told"], values)


def _values(wanted: Filter) -> dict[str, object]:
    values = asdict(wanted)
    values["ids"] = None if wanted.ids is None else list(wanted.ids)
    return values
