"""The inventory of our own telephone numbers: taken from files, searched by patterns."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime

from tollkeeper.errors import InvalidInput
from tollkeeper.store import dids as store
from tollkeeper.store.changes import record
from tollkeeper.store.db import Database
from tollkeeper.store.dids import NewDid
from tollkeeper.wire.did_csv import BadLine, read_dids

__all__ = ["BadLine", "InventoryReport", "load_inventory", "pattern_of"]

WRITE_ROWS = 1000
_PATTERN = re.compile(r"[0-9*?]{0,32}")


@dataclass(frozen=True, slots=True)
class InventoryReport:
    """What became of a file: ``given`` = ``added`` + ``known``, beside the lines ``refused``."""

    given: int
    added: int
    known: int
    refused: tuple[BadLine, ...]


def pattern_of(prefix: str = "", pattern: str = "") -> str:
    """Return a pattern of LIKE for numbers that begin with ``prefix``, or look like ``pattern``.

    In a pattern ``*`` are any digits and ``?`` is one.

    Raises:
        InvalidInput: both, or other characters.
    """
    if prefix and pattern:
        raise InvalidInput("give a prefix or a pattern, not both", field="pattern")
    prefix = prefix.removeprefix("+")
    if prefix and not (prefix.isascii() and prefix.isdigit()):
        raise InvalidInput("prefix: give digits", field="prefix")
    if _PATTERN.fullmatch(pattern) is None:
        raise InvalidInput("pattern: give digits, * and ?, 32 at most", field="pattern")
    return pattern.replace("*", "%").replace("?", "_") if pattern else f"{prefix}%"


async def load_inventory(
    database: Database, data: bytes, *, now: datetime, actor: str, file_name: str = ""
) -> InventoryReport:
    """Take a file of our own numbers: good lines are stored, bad ones are told.

    A number that is known keeps its state, its party and where its calls go; what else the file says of
    it counts.

    Raises:
        InvalidInput: no such file, or every line was refused.
    """
    sheet = read_dids(data)
    if not sheet.numbers:
        why = "the file has no lines"
        if sheet.refused:
            first = sheet.refused[0]
            why = f"every line was refused; line {first.line}: {first.reason}"
        raise InvalidInput(why, code="all_rows_refused")
    # In one order, so that two files at once do not wait for each other.
    given = sorted(sheet.numbers, key=lambda one: one.number)
    new = [NewDid(**{name: getattr(one, name) for name in NewDid.__slots__}) for one in given]
    added = known = 0
    for begin in range(0, len(new), WRITE_ROWS):
        async with database.write() as connection:
            page = await store.put_dids(connection, new[begin : begin + WRITE_ROWS], now)
        added, known = added + page[0], known + page[1]
    async with database.write() as connection:
        detail = {
            "file": file_name,
            "added": added,
            "known": known,
            "refused": len(sheet.refused),
        }
        await record(
            connection,
            actor=actor,
            action="did.import",
            subject="dids",
            detail=detail,
            notice="did:0",
        )
    return InventoryReport(len(new), added, known, sheet.refused)
