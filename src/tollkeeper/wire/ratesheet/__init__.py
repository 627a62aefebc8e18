"""Rate sheets as suppliers send them: CSV bytes in, rows of a rate card out.

Pure: no files, no clock. ``read_sheet(data, SheetOptions(...))`` gives a :class:`Sheet` in which
every line of the file is a row, a refusal with its reason, a repeat or a closing.
"""

from __future__ import annotations

from tollkeeper.wire.ratesheet.options import BYTES_MAX, FIELDS, SheetOptions
from tollkeeper.wire.ratesheet.reader import read_sheet
from tollkeeper.wire.ratesheet.result import Closing, Refusal, Repeat, Sheet, SheetRow

__all__ = [
    "BYTES_MAX",
    "FIELDS",
    "Closing",
    "Refusal",
    "Repeat",
    "Sheet",
    "SheetOptions",
    "SheetRow",
    "read_sheet",
]
