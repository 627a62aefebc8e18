"""The fast way to read delimited files by a mapping: whole blocks of lines into columns.

A kernel finds the lines and cells of a block in one pass; lines and cells that are as usual are
read by columns (``batch``), every other line by the reader of ``rows``. What comes out, refusals
and their order included, is what ``rows.read_rows`` yields.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import BinaryIO, cast

import numpy as np
import polars as pl

from tollkeeper.bulk import cells
from tollkeeper.bulk.cells import Bytes
from tollkeeper.errors import InvalidInput
from tollkeeper.wire.cdr.batch import Batches, fits, text_bytes
from tollkeeper.wire.cdr.compressed import Limits, open_stream, put_back
from tollkeeper.wire.cdr.format import Format, ReadOptions
from tollkeeper.wire.cdr.lines import LINE_MAX, TooLong, lines
from tollkeeper.wire.cdr.mapping import Mapping
from tollkeeper.wire.cdr.part import RECORDS, Gathered, Part, parts_of
from tollkeeper.wire.cdr.problem import FieldProblem
from tollkeeper.wire.cdr.rows import RowReader, header_names, is_aside, read_rows, row_reader

BLOCK = 16 * 1024**2
"""Bytes that are read at a time."""
_BATCH = 65_536
_HEAD_MAX = 64 * 1024**2
_LONG_HEAD = 16_000
_MARK = b"\xef\xbb\xbf"
_WIDE_MARKS = (b"\xff\xfe", b"\xfe\xff")


def open_parts(
    stream: BinaryIO,
    format_: Format,
    options: ReadOptions,
    *,
    offset: int = 0,
    line: int = 0,
    records: int = RECORDS,
    limits: Limits | None = None,
) -> Iterator[Part]:
    """Read a file, packed or not, from its beginning, in the way that is best for its format.

    ``offset`` and ``line`` are those of the last part that was loaded, 0 for all of the file.

    Raises:
        InvalidInput: the file cannot be of this format, or is packed and cut short, damaged or a
            bomb; the parts before that were yielded.
    """
    plain = open_stream(stream, limits)
    if format_.code == "csv":
        return read_parts(plain, options, offset=offset, line=line, records=records)
    return parts_of(format_.read(plain, options), line=line, records=records)


def read_parts(
    stream: BinaryIO,
    options: ReadOptions,
    *,
    offset: int = 0,
    line: int = 0,
    records: int = RECORDS,
    block: int = BLOCK,
) -> Iterator[Part]:
    """Read a delimited file by ``options.mapping`` in parts of about ``records`` records.

    ``stream`` is at its beginning; ``offset`` and ``line`` are those of the last part that was
    loaded. ``block`` is how many bytes are read at a time.

    Raises:
        InvalidInput: as ``rows.read_rows``; and whatever the stream raises of a packed file that
            is cut short. What was read before is yielded first.
    """
    mapping = options.mapping
    fast = mapping is not None and fits(mapping) and not (line and not offset)
    if mapping is not None and fast:
        opened, stream = _open(stream, mapping, options)
        if opened is not None:
            begin = max(offset, opened.begin)
            run = _Run(opened, line=line, offset=begin, records=records)
            yield from run.parts(_Blocks(stream, block, begin))
            return
    yield from parts_of(read_rows(stream, options), line=line, records=records)


@dataclass(frozen=True, slots=True)
class _Opened:
    """What is known of a file before its rows.

    ``header`` is the number of the header's line, 0 without one; ``begin`` is the offset of the
    first line, behind the mark of UTF-8.
    """

    reader: RowReader
    batches: Batches
    header: int
    begin: int


def _open(
    stream: BinaryIO, mapping: Mapping, options: ReadOptions
) -> tuple[_Opened | None, BinaryIO]:
    """Find the header; None where the file has to be read row by row, to the end or to an error.

    The stream that is given back is at the beginning again.
    """
    source = _Recorder(stream)
    opened: _Opened | None = None
    try:
        number = 0
        reader: RowReader | None = None if mapping.header else row_reader(mapping, options)
        found = lines(cast(BinaryIO, source), mapping.encoding)
        while reader is None and (one := next(found, None)) is not None:
            number, raw = one
            if not (isinstance(raw, bytes) and is_aside(raw, mapping)):
                reader = row_reader(mapping, options, header_names(raw, mapping))
        if not source.taken:
            source.read(4)
        if reader is not None and not source.taken.startswith(_WIDE_MARKS):
            batches = Batches(reader, options.timezone)
            begin = len(_MARK) if source.taken.startswith(_MARK) else 0
            opened = _Opened(reader, batches, number, begin)
    except (InvalidInput, FieldProblem):
        # Reading row by row says the same, with what comes before it.
        opened = None
    return opened, put_back(stream, bytes(source.taken))


class _Recorder:
    """Reads from a stream and keeps what was read."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.taken = bytearray()

    def read(self, size: int) -> bytes:
        if len(self.taken) > _HEAD_MAX:
            raise InvalidInput("The file has no header in its first 64 MiB.", code="bad_header")
        data = self._stream.read(size)
        self.taken += data
        return data


class _Blocks:
    """Whole lines of a stream from ``offset`` on, in blocks; lines over ``LINE_MAX`` by themselves."""

    def __init__(self, stream: BinaryIO, size: int, offset: int) -> None:
        self._stream = stream
        self._size = size
        self._rest = bytearray()
        if offset and stream.seekable():
            stream.seek(offset, 1)
            return
        while offset and (skipped := len(stream.read(min(offset, size)))):
            offset -= skipped

    def next(self) -> tuple[bytearray | TooLong, int] | None:
        """Return lines that all end in LF, or one that is too long, and the bytes they take.

        None at the end. A last line without an end is given one.
        """
        # Behind a line that was too long there may be whole ones already.
        chunk = bytes(self._rest) if b"\n" in self._rest else b""
        if chunk:
            self._rest.clear()
        while chunk := chunk or self._stream.read(self._size):
            cut = chunk.rfind(b"\n") + 1
            whole = self._rest
            if cut:
                whole += memoryview(chunk)[:cut]
                self._rest = bytearray(memoryview(chunk)[cut:])
                return whole, len(whole)
            whole += chunk
            chunk = b""
            if len(whole) > LINE_MAX:
                return self._too_long()
        size = len(self._rest)
        whole, self._rest = self._rest, bytearray()
        return (whole + b"\n", size) if size else None

    def _too_long(self) -> tuple[TooLong, int]:
        """Go to the end of a line without keeping it."""
        head, length = bytes(self._rest[:_LONG_HEAD]), len(self._rest)
        self._rest.clear()
        while chunk := self._stream.read(self._size):
            end = chunk.find(b"\n")
            if end >= 0:
                self._rest += memoryview(chunk)[end + 1 :]
                length += end
                return TooLong(length, head), length + 1
            length += len(chunk)
        return TooLong(length, head), length


class _Run:
    """One reading of a file: where it is, and what has been found since the last part."""

    def __init__(self, opened: _Opened, *, line: int, offset: int, records: int) -> None:
        self._opened = opened
        self._line = line
        self._offset = offset
        self._records = records
        self._since = line
        self._gathered = Gathered()
        self._frames: list[pl.DataFrame] = []
        rows, columns = max(1, min(_BATCH, records)), opened.batches.count
        self._first = np.zeros((columns, rows), dtype=np.int32)
        self._last = np.zeros((columns, rows), dtype=np.int32)
        self._begins = np.zeros(rows, dtype=np.int32)
        self._clean = np.zeros(rows, dtype=np.bool_)
        mapping = opened.reader.mapping
        self._delimiter = ord(mapping.delimiter)
        self._table = cells.classes(self._delimiter, ord(mapping.quote) if mapping.quote else -1)
        self._comment = text_bytes(mapping.comment)
        self._utf8 = mapping.encoding in {"utf-8", "ascii"}

    def parts(self, blocks: _Blocks) -> Iterator[Part]:
        """Yield the parts; where the stream raises InvalidInput, one with all before it first."""
        while True:
            try:
                piece = blocks.next()
            except InvalidInput:
                if self._line > self._since:
                    yield self._part()
                raise
            if piece is None:
                break
            for _ in self._take(*piece):
                if self._gathered.count + sum(map(len, self._frames)) >= self._records:
                    yield self._part()
        if self._line > self._since:
            yield self._part()

    def _take(self, content: bytearray | TooLong, size: int) -> Iterator[None]:
        """Read the lines of a block, so many at a time, and pause between."""
        begin = self._offset
        if isinstance(content, TooLong):
            self._line += 1
            self._offset += size
            self._gathered.add(content.refused(self._line))
            yield
            return
        at = 0
        while self._line < self._opened.header and at < len(content):
            at = content.index(b"\n", at) + 1
            self._line += 1
            self._gathered.skipped += 1
            # A line end that was added at the end of the file is not of the file.
            self._offset = begin + min(at, size)
        data = np.frombuffer(content, dtype=np.uint8)
        while at < len(content):
            rows, after = cells.split(
                data,
                at,
                data.size,
                self._table,
                self._delimiter,
                self._utf8,
                not self._opened.reader.strict,
                self._comment,
                self._opened.batches.slots,
                self._first,
                self._last,
                self._begins,
                self._clean,
            )
            self._rows(content, data, rows, after)
            at = after
            self._line += rows
            self._offset = begin + min(at, size)
            yield

    def _rows(self, content: bytearray, data: Bytes, rows: int, after: int) -> None:
        """Read lines whose cells were found, the last of which ends at ``after``."""
        frame, again, skipped = self._opened.batches.frame(
            data, self._first[:, :rows], self._last[:, :rows], self._clean[:rows], self._line + 1
        )
        self._frames.append(frame)
        self._gathered.skipped += skipped
        for row in np.flatnonzero(again).tolist():
            end = self._begins[row + 1] if row + 1 < rows else after
            raw = bytes(memoryview(content)[self._begins[row] : end - 1])
            number = self._line + 1 + row
            if len(raw) > LINE_MAX:
                self._gathered.add(TooLong(len(raw), raw[:_LONG_HEAD]).refused(number))
            else:
                self._gathered.add(self._opened.reader.read(number, raw.removesuffix(b"\r")))

    def _part(self) -> Part:
        """Make a part of what has been found, and begin the next."""
        part = self._gathered.part(line=self._line, offset=self._offset)
        frames = [frame for frame in self._frames if frame.height]
        if frames:
            frame = pl.concat([*frames, part.frame])
            part = replace(part, frame=frame.sort("line") if part.frame.height else frame)
        self._gathered, self._frames, self._since = Gathered(), [], self._line
        return part
