"""The lines of a file as they were, for the few records that were put aside."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tollkeeper.services.cdr.records import Held
from tollkeeper.wire.cdr.compressed import open_stream

RAW_MAX = 4_000
"""Characters of a line that are kept."""


def raw_lines(
    path: Path, held: list[Held], *, begin: int, end: int | None, line: int
) -> list[Held]:
    """Give each record that lacks it the line that it stood on.

    ``begin`` and ``end`` (None: the end) are bytes of the unpacked file, ``line`` the last line
    before ``begin``.
    """
    wanted = {one.line for one in held if not one.raw}
    found: dict[int, str] = {}
    with path.open("rb") as file:
        stream = open_stream(file)
        if stream.seekable():
            stream.seek(begin)
        else:
            skipped = 0
            while skipped < begin:
                skipped += len(stream.read(min(1 << 20, begin - skipped)))
        while len(found) < len(wanted) and (end is None or begin < end):
            text = stream.readline(-1 if end is None else end - begin)
            if not text:
                break
            begin += len(text)
            line += 1
            if line in wanted:
                found[line] = text.rstrip(b"\r\n")[:RAW_MAX].decode("utf-8", "replace")
    return [replace(one, raw=found.get(one.line, "")) if not one.raw else one for one in held]
