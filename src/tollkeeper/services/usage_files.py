"""Files of records for people and their programs: CSV, XLSX and Parquet, written as rows come.

Times are ISO 8601 in one time zone with the offset. Money is exact, with its currency beside it.
In CSV and XLSX a text that a spreadsheet would take for a formula has an apostrophe in front; the
mean opinion score has its two decimals.
"""

from __future__ import annotations

import csv
import io
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields
from datetime import date, datetime, tzinfo
from decimal import Decimal
from operator import attrgetter
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq
import xlsxwriter

from tollkeeper.core.money import plain
from tollkeeper.services.usage_search import UsageView

HEADER = tuple(field.name for field in fields(UsageView))
"""The columns of every kind of file, named as the fields of a record are."""

MONEY = ("charge", "cost")
TIMES = ("start", "answer")
_NUMBERS = ("duration_ms", "sip", "q850", "pdd_ms", "sell_card_version", "sell_billed",
            "buy_card_version", "buy_billed", "batch", "line")  # fmt: skip

SHEET_ROWS = 1_048_576
"""Rows of a sheet of XLSX, the header among them (Excel specifications and limits)."""

NUMBER_DIGITS = 15
"""Digits that a spreadsheet keeps of a number; a longer amount is written as a text."""

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")
_BLOCK = 1024 * 1024


class Writer(Protocol):
    """Takes records and gives the bytes of a file, in their order."""

    def add(self, rows: Sequence[UsageView]) -> bytes:
        """Take some records; the bytes that are ready."""

    def finish(self) -> Iterator[bytes]:
        """The bytes that remain; nothing can be added after."""

    def close(self) -> None:
        """Give back what is held, finished or not."""


def guarded(text: str) -> str:
    """A text that no spreadsheet takes for a formula (OWASP: CSV injection)."""
    return "'" + text if text.startswith(_FORMULA) else text


def moment(value: datetime, zone: tzinfo) -> str:
    """A time in a zone, with the offset, to the millisecond."""
    return value.astimezone(zone).isoformat(timespec="milliseconds")


def mos_text(value: int | None) -> str | None:
    """A mean opinion score of hundredths with two decimals."""
    return None if value is None else f"{value // 100}.{value % 100:02d}"


_values = attrgetter(*HEADER)
Cell = str | int


def _formats(zone: tzinfo) -> list[Callable[[Any], Cell]]:
    """How each column is written, in the order of the header."""

    def a_moment(value: datetime | None) -> Cell:
        return "" if value is None else moment(value, zone)

    special: dict[str, Callable[[Any], Cell]] = {
        **dict.fromkeys(TIMES, a_moment),
        **dict.fromkeys(MONEY, plain),
        **dict.fromkeys(_NUMBERS, _number),
        "mos": lambda value: mos_text(value) or "",
        "day": date.isoformat,
    }
    return [special.get(name, guarded) for name in HEADER]


def _number(value: int | None) -> Cell:
    return "" if value is None else value


# --- CSV -----------------------------------------------------------------------------------------


class CsvWriter:
    """CSV by RFC 4180 in UTF-8, with a header."""

    def __init__(self, zone: tzinfo) -> None:
        self._formats = _formats(zone)
        self._begun = False

    def add(self, rows: Sequence[UsageView]) -> bytes:
        """Take some records; the lines for them."""
        text = io.StringIO(newline="")
        writer = csv.writer(text)
        if not self._begun:
            writer.writerow(HEADER)
            self._begun = True
        formats = self._formats
        writer.writerows(
            [write(value) for write, value in zip(formats, _values(row), strict=True)]
            for row in rows
        )
        # Halves of characters cannot be stored, so all texts can be encoded.
        return text.getvalue().encode()

    def finish(self) -> Iterator[bytes]:
        """The header, where no record came."""
        if not self._begun:
            yield self.add(())

    def close(self) -> None:
        """Nothing is held."""


# --- XLSX ----------------------------------------------------------------------------------------


def _fits(amount: Decimal) -> bool:
    return len(amount.normalize().as_tuple().digits) <= NUMBER_DIGITS


class XlsxWriter:
    """A workbook; numbers of telephones are texts, and a full sheet is followed by another.

    A workbook can only be handed out when it is complete, so it grows in a temporary file.
    """

    def __init__(self, zone: tzinfo, *, sheet_rows: int = SHEET_ROWS) -> None:
        self._formats = _formats(zone)
        self._sheet_rows = sheet_rows
        self._folder = tempfile.TemporaryDirectory(prefix="tollkeeper-xlsx-")
        self._path = Path(self._folder.name) / "usage.xlsx"
        self._book = xlsxwriter.Workbook(
            str(self._path), {"constant_memory": True, "tmpdir": self._folder.name}
        )
        self._sheets = 0
        self._open = True
        self._new_sheet()

    def _new_sheet(self) -> None:
        self._sheets += 1
        self._sheet = self._book.add_worksheet(f"usage {self._sheets}")
        self._sheet.freeze_panes(1, 0)
        for column, name in enumerate(HEADER):
            self._sheet.write_string(0, column, name)
        self._next = 1

    def add(self, rows: Sequence[UsageView]) -> bytes:
        """Take some records; nothing is ready before the end."""
        for row in rows:
            if self._next >= self._sheet_rows:
                self._new_sheet()
            for column, value in enumerate(_values(row)):
                if isinstance(value, int) and HEADER[column] != "mos":
                    self._sheet.write_number(self._next, column, value)
                elif isinstance(value, Decimal) and _fits(value):
                    # Written digit by digit; no binary number comes in between.
                    self._sheet.write_number(self._next, column, value)
                elif text := self._formats[column](value):
                    self._sheet.write_string(self._next, column, str(text))
            self._next += 1
        return b""

    def finish(self) -> Iterator[bytes]:
        """The whole workbook."""
        self._open = False
        self._book.close()
        with self._path.open("rb") as file:
            while block := file.read(_BLOCK):
                yield block

    def close(self) -> None:
        """Remove the temporary files."""
        if self._open:
            # An unfinished workbook complains when it is forgotten.
            self._open = False
            self._book.close()
        self._folder.cleanup()


# --- Parquet -------------------------------------------------------------------------------------

_KINDS: dict[str, pa.DataType] = {
    **dict.fromkeys(HEADER, pa.string()),
    **dict.fromkeys(("duration_ms", "batch", "line"), pa.int64()),
    **dict.fromkeys(("sip", "q850", "mos"), pa.int16()),
    **dict.fromkeys(("pdd_ms", "sell_billed", "buy_billed"), pa.int32()),
    **dict.fromkeys(("sell_card_version", "buy_card_version"), pa.int32()),
    **dict.fromkeys(MONEY, pa.decimal128(28, 8)),
    "day": pa.date32(),
}


class ParquetWriter:
    """Parquet, zstd; times know their zone, money is decimal(28, 8), ``mos`` hundredths."""

    def __init__(self, zone: tzinfo, *, group_rows: int = 50_000) -> None:
        time = pa.timestamp("us", tz=str(zone))
        self._schema = pa.schema(
            [(name, time if name in TIMES else _KINDS[name]) for name in HEADER]
        )
        self._sink = _Sink()
        self._writer = pq.ParquetWriter(
            pa.PythonFile(self._sink, mode="w"), self._schema, compression="zstd"
        )
        self._rows: list[UsageView] = []
        self._group_rows = group_rows

    def add(self, rows: Sequence[UsageView]) -> bytes:
        """Take some records; a row group when enough have come."""
        self._rows += rows
        if len(self._rows) >= self._group_rows:
            self._flush()
        return self._sink.take()

    def _flush(self) -> None:
        columns = [
            pa.array([getattr(row, name) for row in self._rows], self._schema.field(name).type)
            for name in HEADER
        ]
        self._rows = []
        self._writer.write_table(pa.Table.from_arrays(columns, schema=self._schema))

    def finish(self) -> Iterator[bytes]:
        """The last row group, and the table of contents."""
        if self._rows:
            self._flush()
        self._writer.close()
        yield self._sink.take()

    def close(self) -> None:
        """Let go of the records that were not written."""
        self._rows = []


class _Sink(io.RawIOBase):
    """Where a writer that wants a file leaves its bytes until they are taken."""

    def __init__(self) -> None:
        super().__init__()
        self._waiting = bytearray()
        self._written = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        size = len(data)
        self._waiting += data
        self._written += size
        return size

    def tell(self) -> int:
        return self._written

    def take(self) -> bytes:
        """What was written since."""
        given = bytes(self._waiting)
        self._waiting.clear()
        return given


WRITERS: dict[str, tuple[Callable[[tzinfo], Writer], str]] = {
    "csv": (CsvWriter, "text/csv; charset=utf-8"),
    "xlsx": (XlsxWriter, "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"),
    "parquet": (ParquetWriter, "application/vnd.apache.parquet"),
}
"""By the name of the kind: how it is made, and its media type."""
