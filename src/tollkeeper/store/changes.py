"""The trail of a change: one audit row and one notice to all processes, in its own transaction."""

from __future__ import annotations

from collections.abc import Mapping

from psycopg.types.json import Jsonb

from tollkeeper.store.db import Connection, queries

_SQL = queries("changes")


async def record(
    connection: Connection,
    *,
    actor: str,
    action: str,
    subject: str,
    detail: Mapping[str, object],
    notice: str,
) -> None:
    """Write down who did what, and tell every process to read ``notice`` (``party:7``) again.

    ``detail`` holds only what JSON knows: amounts and times as strings. The notice is sent when
    the transaction commits.
    """
    await connection.execute(_SQL["record"], (actor, action, subject, Jsonb(dict(detail)), notice))
