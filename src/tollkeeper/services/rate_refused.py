"""Refused lines, written as a sheet that a person mends and imports again."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable

from tollkeeper.store.rates import RateRefusal

LINE_TITLE, REASON_TITLE = "refused line", "refused because"
"""Titles of the two columns added; no reader of sheets takes them for its own."""
EMPTY = "(empty)"
"""What is shown of a cell with nothing in it."""


def write_refused(refusals: Iterable[RateRefusal], *, header: str, delimiter: str) -> str:
    """Write each refused line once, with its number and reasons in two more columns.

    Lines that are no sound row of the sheet are given as they came. Without a ``header`` all are.
    """
    reasons: dict[int, list[str]] = {}
    raws: dict[int, str] = {}
    for refusal in refusals:
        raws[refusal.line] = refusal.raw
        value = f'"{refusal.value}"' if refusal.value else EMPTY
        shown = f"{refusal.field} {value}: " if refusal.field else ""
        reasons.setdefault(refusal.line, []).append(shown + refusal.reason)
    titles = _cells(header, delimiter) if header else None
    out = io.StringIO()
    writer = csv.writer(out, delimiter=delimiter, lineterminator="\n")
    if titles is not None:
        writer.writerow([*titles, LINE_TITLE, REASON_TITLE])
    for line, raw in raws.items():
        cells = _cells(raw, delimiter) if titles is not None else None
        if titles is None or cells is None or len(cells) > len(titles):
            out.write(raw + "\n")
        else:
            padding = [""] * (len(titles) - len(cells))
            writer.writerow([*cells, *padding, line, "; ".join(reasons[line])])
    return out.getvalue()


def _cells(raw: str, delimiter: str) -> list[str] | None:
    """The cells of a line; None if its quotation marks do not match."""
    try:
        return next(csv.reader([raw], delimiter=delimiter, strict=True), [])
    except csv.Error:
        return None
