"""Lines to records of cells, so that a stray quotation mark costs its own line and no other.

A plain CSV parser that meets a quotation mark that is never closed takes every following line
into one cell, and a deck is gone without a word. Here each line is read on its own; lines are
joined only where a quoted cell with a line break in it closes soon and holds no further columns.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator

LINE_MAX = 65_536
"""Characters of a line. No row of a rate sheet comes near."""

_JOINED_MAX = 5

Record = tuple[int, str, list[str], str]
"""Line (from 1), its text, its cells, and why it cannot be read ("" if it can)."""


def records(
    lines: list[str], delimiter: str, *, start: int = 0, stop: int | None = None
) -> Iterator[Record]:
    """Give the records from line index ``start``, up to ``stop``; blank lines too."""
    index = start
    total = len(lines) if stop is None else min(stop, len(lines))
    while index < total:
        line = lines[index]
        index += 1
        if len(line) > LINE_MAX:
            yield index, line, [], f"the line is longer than {LINE_MAX:,} characters"
        elif '"' not in line:
            yield index, line, line.split(delimiter), ""
        else:
            cells, used = _quoted(lines, index - 1, delimiter)
            if used:
                yield index, line, cells, ""
                index += used - 1
            else:
                yield index, line, [], "the quotation marks of the line do not match"


def _quoted(lines: list[str], index: int, delimiter: str) -> tuple[list[str], int]:
    """Parse the record that begins at ``index``: its cells and how many lines it took, 0 if none do."""
    for used in range(1, _JOINED_MAX + 1):
        if index + used > len(lines) or sum(map(len, lines[index : index + used])) > LINE_MAX:
            break
        block = [line + "\n" for line in lines[index : index + used]]
        try:
            found = list(
                csv.reader(
                    block, delimiter=delimiter, skipinitialspace=delimiter != "\t", strict=True
                )
            )
        except csv.Error:
            continue
        if len(found) != 1:
            break
        # A cell with a break and a delimiter in it is far rather two rows with a stray mark.
        if used > 1 and (
            any("\n" in cell and delimiter in cell for cell in found[0])
            or not any(cell.strip() for cell in found[0])
        ):
            break
        return found[0], used
    return [], 0
