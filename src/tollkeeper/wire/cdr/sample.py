"""Trying a reader of lines on the first bytes of a file, to recognise its format."""

from __future__ import annotations

from collections.abc import Callable

from tollkeeper.core.usage import Item, Usage
from tollkeeper.wire.cdr.lines import decode
from tollkeeper.wire.cdr.problem import FieldProblem

_ROWS = 50


def share_of_rows(
    head: bytes, read: Callable[[int, str], Item], fits: Callable[[Usage], bool]
) -> int:
    """Return of how many in 100 lines ``read`` makes something (and a record that ``fits``).

    A last line that may be cut off by the end of ``head`` does not count.
    """
    rows = decode(head.removeprefix(b"\xef\xbb\xbf")).split("\n", _ROWS)[:_ROWS]
    if 1 < len(rows) < _ROWS:
        rows.pop()
    tried = good = 0
    for number, row in enumerate(rows, 1):
        text = row.rstrip("\r")
        if not text.strip():
            continue
        tried += 1
        try:
            item = read(number, text)
        except FieldProblem:
            continue
        good += not isinstance(item, Usage) or fits(item)
    return 100 * good // tried if tried else 0
