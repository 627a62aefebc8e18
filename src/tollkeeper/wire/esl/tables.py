"""Tables that FreeSWITCH answers ``show ... as json`` with: its channels, its scheduled tasks.

What cannot be read raises: a table that failed says nothing, least of all that there are no calls.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

from tollkeeper.wire.esl.codec import MalformedEsl

ROWS_MAX = 200_000
_COUNT = re.compile(r"[0-9]{1,7}")
_ID = re.compile(r"[0-9]{1,10}")


@dataclass(frozen=True, slots=True)
class Channel:
    """A row of ``show channels``; times are not in it but in ``uuid_dump``."""

    uuid: str
    direction: str
    state: str
    call_state: str
    caller: str
    called: str
    call_uuid: str


@dataclass(frozen=True, slots=True)
class Task:
    """A row of ``show tasks``; ``group`` is the channel that a scheduled hangup is for."""

    id: int
    group: str
    description: str


def parse_channels(body: bytes) -> tuple[Channel, ...]:
    """Read the answer to ``show channels as json``.

    Raises:
        MalformedEsl: it is an error, was cut off, or is something else.
    """
    return tuple(
        Channel(
            uuid=_needed(row, "uuid"),
            direction=row.get("direction", ""),
            state=row.get("state", ""),
            call_state=row.get("callstate", ""),
            caller=row.get("cid_num", ""),
            called=row.get("dest", ""),
            call_uuid=row.get("call_uuid", ""),
        )
        for row in _rows(body)
    )


def parse_tasks(body: bytes) -> tuple[Task, ...]:
    """Read the answer to ``show tasks as json``.

    Raises:
        MalformedEsl: it is an error, was cut off, or is something else.
    """
    found = []
    for row in _rows(body):
        text = _needed(row, "task_id")
        if not _ID.fullmatch(text):
            raise MalformedEsl("FreeSWITCH's table of tasks has an id that is no number.")
        found.append(Task(int(text), row.get("task_group", ""), row.get("task_desc", "")))
    return tuple(found)


def _rows(body: bytes) -> list[dict[str, str]]:
    try:
        found = json.loads(
            body.decode("utf-8", errors="replace"),
            parse_int=str,
            parse_float=str,
            strict=False,
        )
    except (ValueError, RecursionError):
        raise MalformedEsl(f'FreeSWITCH answered no table but "{_shown(body)}".') from None
    count = found.get("row_count") if isinstance(found, dict) else None
    if not isinstance(count, str) or not _COUNT.fullmatch(count) or int(count) > ROWS_MAX:
        raise MalformedEsl("FreeSWITCH's table does not say how many rows it has.")
    rows = found.get("rows", [])
    if not isinstance(rows, list) or len(rows) != int(count):
        raise MalformedEsl("FreeSWITCH's table does not have as many rows as it says.")
    return [_row(row) for row in rows]


def _row(row: object) -> dict[str, str]:
    if not isinstance(row, dict):
        raise MalformedEsl("FreeSWITCH's table has a row that is none.")
    return {name: value for name, value in row.items() if isinstance(value, str)}


def _needed(row: dict[str, str], name: str) -> str:
    value = row.get(name, "")
    if not value:
        raise MalformedEsl(f'FreeSWITCH\'s table has a row without "{name}".')
    return value


def _shown(body: bytes) -> str:
    text = body[:80].decode("utf-8", errors="replace")
    return "".join(c for c in text if c.isprintable()).strip()
