"""Kernels over the bytes of delimited text: lines to cells, cells to numbers and columns of text.

A kernel is sure of a cell or says that it is not; what it is not sure of is read again by the code
that reads row by row, so a kernel may be narrow but never wrong. Cells are given as ``first`` and
``last``, the places of their bytes in ``data`` (``last`` is one behind). ``sure`` is an array of
one bool a row which a kernel sets to False where it gives up.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import njit

Bytes = npt.NDArray[np.uint8]
Places = npt.NDArray[np.int32]
Flags = npt.NDArray[np.bool_]
Longs = npt.NDArray[np.int64]

PLAIN, DELIMITER, NEWLINE, QUOTE, CONTROL, HIGH = range(6)
"""What a byte is to ``split``."""
_SHORT, _LONG = 4_096, 65_536
_CELL_MAX = 255
_WRAPPED_LOW, _WRAPPED_HIGH = 2**32 - 100_000, 2**32
RAW, TEXT, NUMBER = range(3)
"""What a column of texts is, to ``gather``."""
_PLUS, _EXPONENT, _POINT, _OTHER = 1, 2, 4, 8


def _kinds() -> Bytes:
    """Make the table of what a byte says about a number that a spreadsheet may have had."""
    table = np.full(256, _OTHER, dtype=np.uint8)
    table[48:58] = 0
    for text, kind in (("-", 0), ("+", _PLUS), ("eE", _EXPONENT), (".,", _POINT)):
        for character in text:
            table[ord(character)] = kind
    return table


_KINDS = _kinds()


def classes(delimiter: int, quote: int) -> Bytes:
    """Make the table of what each byte is; ``quote`` is -1 where there is none."""
    table = np.full(256, PLAIN, dtype=np.uint8)
    table[:32] = CONTROL
    table[127] = CONTROL
    table[128:] = HIGH
    table[10] = NEWLINE
    if quote >= 0:
        table[quote] = QUOTE
    table[delimiter] = DELIMITER
    return table


@njit(cache=True, nogil=True, inline="always")
def _sequence(data: Bytes, at: int, stop: int) -> int:
    """Return the length of the UTF-8 sequence of several bytes at ``at``; 0 if it is none (RFC 3629)."""
    lead = data[at]
    if 0xC2 <= lead <= 0xDF:
        size = 2
    elif 0xE0 <= lead <= 0xEF:
        size = 3
    elif 0xF0 <= lead <= 0xF4:
        size = 4
    else:
        return 0
    if at + size > stop:
        return 0
    for i in range(at + 1, at + size):
        if data[i] & 0xC0 != 0x80:
            return 0
    second = data[at + 1]
    if (
        (lead == 0xE0 and second < 0xA0)
        or (lead == 0xED and second > 0x9F)
        or (lead == 0xF0 and second < 0x90)
        or (lead == 0xF4 and second > 0x8F)
    ):
        return 0
    return size


@njit(cache=True, nogil=True, inline="always")
def _blank_at_edge(data: Bytes, first: int, last: int) -> bool:
    """Say whether a cell may begin or end with a blank that is not ASCII (all are of 2 or 3 bytes)."""
    if first >= last:
        return False
    lead = data[first]
    if lead in (194, 225, 226):
        return True
    if lead == 0xE3 and data[first + 1] == 0x80:
        return True
    if data[last - 1] < 0x80 or last - first < 2:
        return False
    if data[last - 2] == 0xC2:
        return True
    if last - first < 3:
        return False
    lead = data[last - 3]
    return lead in (225, 226) or (lead == 227 and data[last - 2] == 128)


@njit(cache=True, nogil=True, inline="always")
def _step(data: Bytes, at: int, stop: int, what: int, utf8: bool) -> int:  # noqa: FBT001
    """Return how many bytes the character at ``at`` has that is not plain; 0 if it is odd."""
    return _sequence(data, at, stop) if what == HIGH and utf8 else 0


@njit(cache=True, nogil=True, inline="always")
def _quoted(data: Bytes, at: int, stop: int, table: Bytes, utf8: bool) -> tuple[int, bool]:  # noqa: FBT001
    """Go from behind a quote to the next one or the line end: its place, and whether all is clean."""
    clean = True
    while True:
        what = table[data[at]]
        if what in (PLAIN, DELIMITER):
            at += 1
            continue
        if what in (QUOTE, NEWLINE):
            break
        size = _step(data, at, stop, what, utf8)
        clean = clean and size > 0
        at += max(size, 1)
    return at, clean and what == QUOTE


@njit(cache=True, nogil=True, inline="always")
def _open(data: Bytes, at: int, stop: int, table: Bytes, utf8: bool) -> tuple[int, bool]:  # noqa: FBT001
    """Go to the delimiter or line end behind ``at``: its place, and whether all is clean."""
    clean = True
    while True:
        # Nearly all bytes end here.
        while table[data[at]] == PLAIN:
            at += 1
        what = table[data[at]]
        if what in (DELIMITER, NEWLINE) or (data[at] == 13 and data[at + 1] == 10):
            break
        size = _step(data, at, stop, what, utf8)
        clean = clean and size > 0
        at += max(size, 1)
    return at, clean


@njit(cache=True, nogil=True, inline="always")
def _cell(
    data: Bytes,
    at: int,
    stop: int,
    table: Bytes,
    utf8: bool,  # noqa: FBT001
) -> tuple[int, int, int, bool]:
    """Read one cell: where it begins, where it ends, where its delimiter is, whether it is clean."""
    while data[at] == 32 and table[32] == PLAIN:
        at += 1
    if table[data[at]] != QUOTE:
        end, clean = _open(data, at, stop, table, utf8)
        return at, end, end, clean
    end, clean = _quoted(data, at + 1, stop, table, utf8)
    after = end + 1 if table[data[end]] == QUOTE else end
    # Nothing may stand between the quote and the delimiter.
    further, _ = _open(data, after, stop, table, utf8)
    return at + 1, end, further, clean and further == after


@njit(cache=True, nogil=True, inline="always")
def _trim(data: Bytes, cell: int, end: int) -> tuple[int, int]:
    """Take the blanks off a cell; one that says that there is nothing becomes empty."""
    while cell < end and data[cell] == 32:
        cell += 1
    while cell < end and data[end - 1] == 32:
        end -= 1
    if end - cell == 4 and data[cell] in (78, 110):
        # NULL or null, not a mixture.
        case = data[cell] & 32
        if (
            data[cell + 1] == 85 | case
            and data[cell + 2] == 76 | case
            and data[cell + 3] == 76 | case
        ):
            end = cell
    elif end - cell == 2 and data[cell] == 92 and data[cell + 1] == 78:
        end = cell
    return cell, end


@njit(cache=True, nogil=True, inline="always")
def _begins_with(data: Bytes, at: int, text: Bytes) -> bool:
    """Say whether ``text``, which has no newline in it, stands in the line at ``at``."""
    for i in range(text.size):
        if data[at + i] != text[i]:
            return False
    return text.size > 0


@njit(cache=True, nogil=True)
def _shape_is_odd(
    data: Bytes,
    begin: int,
    end: int,
    columns: int,
    width: int,
    more: bool,  # noqa: FBT001
    last_size: int,
    delimiter: int,
) -> bool:
    """Say whether a line has another number of columns than it should, or is very long."""
    # One empty column at the end is forgiven.
    forgiven = columns == width + 1 and last_size == 0
    if columns != width and not forgiven and not (columns > width and more):
        return True
    if end - begin > _SHORT:
        count = 0
        for i in range(begin, end):
            count += 1 if data[i] == delimiter else 0
        return count >= _SHORT or end - begin > _LONG
    return end == begin


@njit(cache=True, nogil=True)
def split(
    data: Bytes,
    at: int,
    stop: int,
    table: Bytes,
    delimiter: int,
    utf8: bool,  # noqa: FBT001  # numba knows no keyword-only arguments
    more: bool,  # noqa: FBT001
    comment: Bytes,
    slots: Places,
    first: npt.NDArray[np.int32],
    last: npt.NDArray[np.int32],
    begins: Places,
    clean: Flags,
) -> tuple[int, int]:
    """Find the lines from ``at``, as many as ``clean`` holds, and the cells that are wanted.

    ``data[stop - 1]`` is a newline. ``slots`` has one number for each column of a line: the row of
    ``first`` and ``last`` that takes its cell, or -1; a line has as many columns, or ``more``.
    Cells are without quotes and the blanks around them. What is odd about a line makes it not
    ``clean``, and its cells are empty: quotes in quotes, control characters, bytes that are not
    UTF-8 (or at all not ASCII, without ``utf8``), another number of columns, a comment, nothing.
    Returns how many lines were found, and where the next one begins.
    """
    width = slots.size
    rows = 0
    while at < stop and rows < clean.size:
        begin = at
        good = not _begins_with(data, at, comment)
        column = 0
        end = -1
        size = 0
        while end < 0:
            cell, cell_end, at, right = _cell(data, at, stop, table, utf8)
            good = good and right
            size = cell_end - cell
            if column < width and slots[column] >= 0:
                cell, cell_end = _trim(data, cell, cell_end)
                good = good and not _blank_at_edge(data, cell, cell_end)
                first[slots[column], rows] = cell
                last[slots[column], rows] = cell_end
            column += 1
            if table[data[at]] != DELIMITER:
                end = at
                at += 1 if data[at] == 13 else 0
            at += 1
        if not good or _shape_is_odd(data, begin, end, column, width, more, size, delimiter):
            good = False
            for slot in range(first.shape[0]):
                first[slot, rows] = begin
                last[slot, rows] = begin
        begins[rows] = begin
        clean[rows] = good
        rows += 1
    return rows, at


@njit(cache=True, nogil=True)
def either(first: Places, last: Places, first_else: Places, last_else: Places) -> None:
    """Put the other cell where one is empty, in place."""
    for row in range(first.size):
        if first[row] == last[row]:
            first[row] = first_else[row]
            last[row] = last_else[row]


@njit(cache=True, nogil=True)
def joined(
    data: Bytes, firsts: npt.NDArray[np.int32], lasts: npt.NDArray[np.int32], join: Bytes
) -> tuple[Bytes, Places, Places]:
    """Put the cells of each row of lines behind one another, with ``join`` between them."""
    cells, rows = firsts.shape
    total = rows * (cells - 1) * join.size
    for cell in range(cells):
        for row in range(rows):
            total += lasts[cell, row] - firsts[cell, row]
    out = np.empty(total, dtype=np.uint8)
    first = np.empty(rows, dtype=np.int32)
    last = np.empty(rows, dtype=np.int32)
    to = 0
    for row in range(rows):
        first[row] = to
        for cell in range(cells):
            if cell > 0:
                for i in range(join.size):
                    out[to] = join[i]
                    to += 1
            for i in range(firsts[cell, row], lasts[cell, row]):
                out[to] = data[i]
                to += 1
        last[row] = to
    return out, first, last


@njit(cache=True, nogil=True)
def shorten(
    data: Bytes, first: Places, last: Places, strip: Bytes, cut: int, sure: Flags
) -> Places:
    """Take a leading text and then some characters off; returns where the cells begin then.

    Unsure of cells that are not ASCII, and of those that begin with a blank afterwards.
    """
    out = np.empty_like(first)
    for row in range(first.size):
        at, stop = first[row], last[row]
        ascii_only = True
        for i in range(at, stop):
            ascii_only = ascii_only and data[i] < 128
        if stop - at >= strip.size and _begins_with(data, at, strip):
            at += strip.size
        at = min(stop, at + cut)
        if not ascii_only or (at < stop and data[at] == 32):
            sure[row] = False
        out[row] = at
    return out


@njit(cache=True, nogil=True)
def gather(
    data: Bytes, first: Places, last: Places, kind: int, prefix: Bytes, sure: Flags
) -> tuple[Places, Bytes]:
    """Copy cells into one buffer with the offsets of Arrow's text columns.

    ``prefix`` goes before each cell that is not empty. Rows that are not sure get an empty text.
    Unsure of texts over 255 bytes and, by ``kind``, of whatever a spreadsheet may have spoilt: of
    a NUMBER anything made of digits, signs, points, commas and an E, of a TEXT a plus sign and an
    E; RAW looks at nothing.
    """
    rows = first.size
    offsets = np.empty(rows + 1, dtype=np.int32)
    total = 0
    for row in range(rows):
        offsets[row] = total
        size = last[row] - first[row]
        if size + prefix.size > _CELL_MAX:
            sure[row] = False
        elif sure[row] and size > 0:
            total += size + prefix.size
    offsets[rows] = total
    out = np.empty(total, dtype=np.uint8)
    for row in range(rows):
        to = offsets[row]
        if to == offsets[row + 1]:
            continue
        seen = 0
        for i in range(prefix.size):
            out[to] = prefix[i]
            to += 1
            seen |= _KINDS[prefix[i]]
        for i in range(first[row], last[row]):
            byte = data[i]
            out[to] = byte
            to += 1
            seen |= _KINDS[byte]
        if kind == NUMBER:
            shortened = seen & (_EXPONENT | _POINT) != 0 and seen & _OTHER == 0
            sure[row] = not (shortened or out[offsets[row]] in (61, 39))
        elif kind == TEXT and seen & _PLUS and seen & _EXPONENT:
            sure[row] = False
    return offsets, out


@njit(cache=True, nogil=True, inline="always")
def digits(data: Bytes, at: int, stop: int, most: int) -> tuple[int, int]:
    """Read up to ``most`` (at most 18) digits; returns their value and where they end."""
    value = 0
    end = min(stop, at + most)
    while at < end and 48 <= data[at] <= 57:
        value = value * 10 + data[at] - 48
        at += 1
    return value, at


@njit(cache=True, nogil=True)
def durations(
    data: Bytes,
    first: Places,
    last: Places,
    unit: int,
    most: int,
    sure: Flags,
    null: Flags,
) -> Longs:
    """Read durations in milliseconds, the nearest, a half up.

    ``unit``: 0 s, 1 ms, 2 us, 3 hh:mm:ss (also mm:ss and seconds). Unsure of a sign, of more than
    ``most`` milliseconds, and of what is nearly 2**32. Empty
    cells set ``null``.
    """
    out = np.zeros(first.size, dtype=np.int64)
    for row in range(first.size):
        at, stop = first[row], last[row]
        if at == stop:
            null[row] = True
            continue
        start = at
        whole, at = digits(data, at, stop, 12)
        good = at > start
        comma = False
        if good and unit == 3 and at < stop and data[at] == 58:
            good = at - start <= 6
            start = at + 1
            part, at = digits(data, start, stop, 6)
            good = good and at > start
            size = at - start
            whole = whole * 60 + part
            if at < stop and data[at] == 58:
                good = good and part < 60
                start = at + 1
                part, at = digits(data, start, stop, 2)
                whole = whole * 60 + part
                size = at - start
            good = good and 1 <= size <= 2 and part < 60
            comma = True
        ms = whole if unit == 1 else (whole + 500) // 1000 if unit == 2 else whole * 1000
        if good and at < stop and (data[at] == 46 or (comma and data[at] == 44)):
            start = at + 1
            at = start
            scale = 100 if unit in (0, 3) else 0
            rounding = unit != 2
            while at < stop and 48 <= data[at] <= 57:
                digit = data[at] - 48
                if scale > 0:
                    ms += digit * scale
                    scale //= 10
                elif rounding:
                    ms += 1 if digit >= 5 else 0
                    rounding = False
                at += 1
            good = at - start <= 9 and (at > start or not comma)
        if (
            not good
            or at != stop
            or ms > most
            or (unit != 2 and _WRAPPED_LOW <= whole <= _WRAPPED_HIGH)
        ):
            sure[row] = False
        else:
            out[row] = ms
    return out


@njit(cache=True, nogil=True)
def integers(
    data: Bytes,
    first: Places,
    last: Places,
    low: int,
    high: int,
    sure: Flags,
    null: Flags,
) -> Longs:
    """Read whole numbers of up to 18 digits within bounds; an empty cell is null."""
    out = np.zeros(first.size, dtype=np.int64)
    for row in range(first.size):
        start, stop = first[row], last[row]
        if start == stop:
            null[row] = True
            continue
        value, at = digits(data, start, stop, 18)
        if at != stop or not low <= value <= high:
            sure[row] = False
        else:
            out[row] = value
    return out
