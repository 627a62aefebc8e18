"""Numbers of a whole column: normalised to E.164, and as integers left-aligned in 18 digits.

``44207`` is 442070000000000000 with 5 digits beside it, so that the numbers that begin with a
prefix are one interval; the count tells ``44`` from ``440``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numba
import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from tollkeeper.core.numbering import DIGITS_MAX, DialRules, normalise
from tollkeeper.core.tariff import PREFIX_MAX
from tollkeeper.errors import InvalidInput

Normalised = tuple[NDArray[np.int64], NDArray[np.int8], pl.Series, NDArray[np.bool_]]

_GOOD, _BAD, _ODD = 0, 1, 2
_PLAIN_MAX = 64  # bytes of a text that the column's loop looks at; a longer one goes to the core
_TECH, _NATIONAL, _COUNTRY, _INTERNATIONAL = 0, 1, 2, 3


def aligned(digits: str) -> int:
    """Digits (at most 18) as an integer left-aligned in 18 places: "44" is 44 * 10^16."""
    return int(digits.ljust(PREFIX_MAX, "0"))


def normalise_column(
    texts: pl.Series, rule: NDArray[np.integer], rules: Sequence[DialRules]
) -> Normalised:
    """Normalise a column as :func:`tollkeeper.core.numbering.normalise` does, row by row.

    ``rule`` is int[n], the place in ``rules`` of the row's rules. Returns (number int64[n] as
    :func:`aligned`, digits int8[n], E.164 text, bad bool[n]); a bad row has 0, 0 and "".

    Raises:
        ValueError: columns of different lengths, or a rule that is not in ``rules``.
    """
    count = len(texts)
    if len(rule) != count:
        raise ValueError("the texts and their rules differ in number")
    if count and not 0 <= int(rule.min()) <= int(rule.max()) < len(rules):
        raise ValueError("a row's rules are not among the rules")
    table = _RuleTable.compile(rules)
    offsets, data = utf8(texts)
    which = np.ascontiguousarray(rule, np.int64)
    number = np.zeros(count, np.int64)
    digits = np.zeros(count, np.int8)
    state = np.empty(count, np.int8)
    _normalise(offsets, data, which, table.marks, table.sizes, table.flags, number, digits, state)
    odd = np.flatnonzero(state == _ODD)
    if len(odd):
        _normalise_odd(texts, which, rules, odd, number, digits)
    return number, digits, _texts_of(texts.name, number, digits), digits == 0


def align_column(
    texts: pl.Series,
) -> tuple[NDArray[np.int64], NDArray[np.int8], NDArray[np.bool_]]:
    """Digits to (number int64[n], digits int8[n], bad bool[n]); bad: not 0 to 18 ASCII digits."""
    offsets, data = utf8(texts)
    number = np.zeros(len(texts), np.int64)
    digits = np.zeros(len(texts), np.int8)
    bad = np.zeros(len(texts), np.bool_)
    _align(offsets, data, number, digits, bad)
    if texts.null_count():
        bad |= texts.is_null().to_numpy()
    return number, digits, bad


def utf8(texts: pl.Series) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """The bytes of a String column: (offsets int64[n + 1], data); a null is an empty text.

    Both arrays are read-only, whatever the column, so that one compiled loop serves them all.
    """
    held = texts.to_arrow(compat_level=pl.CompatLevel.oldest())
    _, places, content = held.buffers()
    if len(held) == 0 or places is None:
        offsets = np.zeros(len(held) + 1, np.int64)
    else:
        offsets = np.frombuffer(places, np.int64, len(held) + 1, held.offset * 8)
    data = np.zeros(0, np.uint8) if not content else np.frombuffer(content, np.uint8)
    offsets.flags.writeable = data.flags.writeable = False
    return offsets, data


@dataclass(frozen=True, slots=True)
class _RuleTable:
    """Dial rules as bytes: ``marks`` uint8[r, m, l], ``sizes`` int64[r, m], ``flags`` int64[r, 3].

    The marks of a rule are its tech prefix, national mark, country code and international marks.
    The flags: how many marks there are, whether the tech prefix is required, and whether the core
    must do it because a mark is not ASCII.
    """

    marks: NDArray[np.uint8]
    sizes: NDArray[np.int64]
    flags: NDArray[np.int64]

    @classmethod
    def compile(cls, rules: Sequence[DialRules]) -> _RuleTable:
        texts = [(r.tech_prefix, r.national, r.country_code, *r.international) for r in rules]
        widest = max((len(marks) for marks in texts), default=1)
        longest = max((len(mark.encode()) for marks in texts for mark in marks), default=1)
        out = cls(
            np.zeros((len(rules), widest, max(1, longest)), np.uint8),
            np.zeros((len(rules), widest), np.int64),
            np.zeros((len(rules), 3), np.int64),
        )
        for at, (rule, marks) in enumerate(zip(rules, texts, strict=True)):
            odd = not all(mark.isascii() for mark in marks)
            out.flags[at] = (len(marks), rule.tech_prefix_required, odd)
            for place, mark in enumerate(marks):
                raw = mark.encode()
                out.sizes[at, place] = len(raw)
                out.marks[at, place, : len(raw)] = np.frombuffer(raw, np.uint8)
        return out


def _normalise_odd(
    texts: pl.Series,
    rule: NDArray[np.int64],
    rules: Sequence[DialRules],
    odd: NDArray[np.int64],
    number: NDArray[np.int64],
    digits: NDArray[np.int8],
) -> None:
    """Have the core normalise the rows ``odd``; equal ones once."""
    known: dict[tuple[str, int], str] = {}
    for row, text, which in zip(
        odd.tolist(), texts.gather(odd).to_list(), rule[odd].tolist(), strict=True
    ):
        found = known.get((text, which))
        if found is None:
            try:
                found = normalise(text, rules[which])
            except InvalidInput:
                found = ""
            known[text, which] = found
        number[row] = aligned(found)
        digits[row] = len(found)


def _texts_of(name: str, number: NDArray[np.int64], digits: NDArray[np.int8]) -> pl.Series:
    """Write aligned numbers out again."""
    offsets = np.zeros(len(number) + 1, np.int64)
    np.cumsum(digits, out=offsets[1:])
    data = np.empty(int(offsets[-1]), np.uint8)
    _write(number, digits, offsets, data)
    buffers = (len(number), pa.py_buffer(offsets), pa.py_buffer(data))
    return pl.Series(name, pa.LargeStringArray.from_buffers(*buffers), pl.String)


@numba.njit(nogil=True, cache=True)
def _align(
    offsets: NDArray[np.int64],
    data: NDArray[np.uint8],
    number: NDArray[np.int64],
    digits: NDArray[np.int8],
    bad: NDArray[np.bool_],
) -> None:
    for row in range(len(number)):
        first, size = offsets[row], offsets[row + 1] - offsets[row]
        good = size <= PREFIX_MAX
        value = 0
        for at in range(first, first + min(size, PREFIX_MAX)):
            digit = int(np.int64(data[at])) - 48
            good &= 0 <= digit <= 9
            value = value * 10 + digit
        bad[row] = not good
        if good:
            number[row] = value * 10 ** (PREFIX_MAX - size)
            digits[row] = size


@numba.njit(nogil=True, cache=True)
def _write(
    number: NDArray[np.int64],
    digits: NDArray[np.int8],
    offsets: NDArray[np.int64],
    data: NDArray[np.uint8],
) -> None:
    for row in range(len(number)):
        value = number[row] // 10 ** (PREFIX_MAX - np.int64(digits[row]))
        for at in range(offsets[row + 1] - 1, offsets[row] - 1, -1):
            data[at] = 48 + value % 10
            value //= 10


@numba.njit(nogil=True, cache=True)
def _is_space(byte: int) -> bool:
    """Tell whether ``str.strip`` removes this ASCII character."""
    return 9 <= byte <= 13 or 28 <= byte <= 32


@numba.njit(nogil=True, cache=True)
def _is_separator(byte: int) -> bool:
    """The characters `` -.()/`` and tab, which ``core.numbering`` deletes."""
    return byte in (32, 45, 46, 40, 41, 47, 9)


@numba.njit(nogil=True, cache=True)
def _begins(
    data: NDArray[np.uint8], first: int, end: int, mark: NDArray[np.uint8], size: int
) -> bool:
    if end - first < size:
        return False
    at = 0
    while at < size and data[first + at] == mark[at]:
        at += 1
    return at == size


@numba.njit(nogil=True, cache=True)
def _digits_of(
    data: NDArray[np.uint8], first: int, end: int, scratch: NDArray[np.uint8]
) -> tuple[int, bool]:
    """Strip, cut and clean a text into ``scratch``: (its length, whether the core must do it)."""
    for at in range(first, end):
        if data[at] >= 128:
            return 0, True
    while first < end and _is_space(data[first]):
        first += 1
    while first < end and _is_space(data[end - 1]):
        end -= 1
    # "tel:" and then "sip:", as core.numbering removes them.
    if end - first >= 4 and data[first] == 116 and data[first + 1] == 101:
        first += 4 if data[first + 2] == 108 and data[first + 3] == 58 else 0
    if end - first >= 4 and data[first] == 115 and data[first + 1] == 105:
        first += 4 if data[first + 2] == 112 and data[first + 3] == 58 else 0
    size = 0
    for at in range(first, end):
        if data[at] == 64:
            break
        if not _is_separator(data[at]):
            scratch[size] = data[at]
            size += 1
    return size, False


@numba.njit(nogil=True, cache=True)
def _without_marks(
    scratch: NDArray[np.uint8],
    size: int,
    marks: NDArray[np.uint8],
    sizes: NDArray[np.int64],
    flags: NDArray[np.int64],
) -> tuple[int, bool, bool]:
    """Remove the marks at the front: (where the rest begins, country code before it, refused)."""
    first = 0
    if sizes[_TECH] > 0:
        if _begins(scratch, 0, size, marks[_TECH], sizes[_TECH]):
            first = sizes[_TECH]
        elif flags[1]:
            return 0, False, True
    if first < size and scratch[first] == 43:
        return first + 1, False, False
    for mark in range(_INTERNATIONAL, flags[0]):
        if _begins(scratch, first, size, marks[mark], sizes[mark]):
            return first + sizes[mark], False, False
    local = sizes[_NATIONAL] > 0 and sizes[_COUNTRY] > 0
    if local and _begins(scratch, first, size, marks[_NATIONAL], sizes[_NATIONAL]):
        return first + sizes[_NATIONAL], True, False
    return first, False, False


@numba.njit(nogil=True, cache=True)
def _normalise(
    offsets: NDArray[np.int64],
    data: NDArray[np.uint8],
    rule: NDArray[np.int64],
    marks: NDArray[np.uint8],
    sizes: NDArray[np.int64],
    flags: NDArray[np.int64],
    number: NDArray[np.int64],
    digits: NDArray[np.int8],
    state: NDArray[np.int8],
) -> None:
    scratch = np.empty(_PLAIN_MAX, np.uint8)
    for row in range(len(rule)):
        first, end, which = offsets[row], offsets[row + 1], rule[row]
        odd = end - first > _PLAIN_MAX or flags[which, 2] != 0
        size = 0
        if not odd:
            size, odd = _digits_of(data, first, end, scratch)
        if odd:
            state[row] = _ODD
            continue
        state[row] = _BAD
        begin, local, refused = _without_marks(
            scratch, size, marks[which], sizes[which], flags[which]
        )
        ahead = sizes[which, _COUNTRY] if local else 0
        length = ahead + size - begin
        if refused or not 1 <= length <= DIGITS_MAX:
            continue
        value = 0
        good = True
        for at in range(length):
            byte = marks[which, _COUNTRY, at] if at < ahead else scratch[begin + at - ahead]
            digit = int(np.int64(byte)) - 48
            good &= 0 <= digit <= 9
            value = value * 10 + digit
        if good:
            state[row] = _GOOD
            number[row] = value * 10 ** (PREFIX_MAX - length)
            digits[row] = length
