"""Records written as JSON lists of [name, value] pairs, one at a time whatever the file's size."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import msgspec

from tollkeeper.wire.cdr.problem import FieldProblem

_RECORD_MAX: Final = 2**20
_CHUNK: Final = 2**16
_OPEN: Final = frozenset(b"[{")
_CLOSE: Final = frozenset(b"]}")
_QUOTE: Final = ord('"')
_ESCAPE: Final = ord("\\")
_DECODER: Final = msgspec.json.Decoder(list[tuple[str, str | int | None]])


@dataclass(frozen=True, slots=True)
class Pairs:
    """One record, and how it was written."""

    pairs: list[tuple[str, str]]
    raw: bytes


def read_pairs(read: Callable[[int], bytes]) -> Iterator[tuple[int, Pairs | FieldProblem]]:
    """Yield (number from 1, record) of a file of records, or of one list around them.

    Bytes outside of brackets (blanks, commas) are passed over; a record that is no list of pairs,
    is longer than 1 MiB, or is cut by the end of the file comes as a problem.
    """
    splitter = _Splitter()
    number = 0
    while chunk := read(_CHUNK):
        for raw in splitter.feed(chunk):
            number += 1
            yield number, _decode(raw)
    if splitter.depth > splitter.level or splitter.rest:
        yield number + 1, FieldProblem("record", "", "The file ends inside of this record.")


class _Splitter:
    """Finds where records begin and end, by brackets outside of quotes."""

    def __init__(self) -> None:
        self.depth = 0
        self.level = 0
        """Depth outside of a record: 1 when a list is around them all."""
        self._known = False
        self._quoted = False
        self._escaped = False
        self._held = bytearray()
        self._dropped = False
        self.rest = False

    def feed(self, chunk: bytes) -> Iterator[bytes | None]:
        """Yield each record that ends in this chunk; None for one that was too long to hold."""
        for byte in chunk:
            if self.depth > self.level or byte in _OPEN:
                self._hold(byte)
            if self._quoted:
                self._in_quotes(byte)
            elif byte == _QUOTE:
                self._quoted = self.depth > 0
                self._known = self._known or self.depth > 0
            elif byte in _OPEN:
                self._open()
            elif byte in _CLOSE:
                self.depth = max(0, self.depth - 1)
                if self.depth == self.level and (self._held or self._dropped):
                    yield None if self._dropped else bytes(self._held)
                    self._held.clear()
                    self._dropped = False
                self.rest = self.depth > 0

    def _hold(self, byte: int) -> None:
        if len(self._held) < _RECORD_MAX:
            self._held.append(byte)
        else:
            self._dropped = True

    def _in_quotes(self, byte: int) -> None:
        if self._escaped:
            self._escaped = False
        elif byte == _ESCAPE:
            self._escaped = True
        elif byte == _QUOTE:
            self._quoted = False

    def _open(self) -> None:
        self.depth += 1
        self.rest = True
        # Three brackets before the first text: a list of records, so the outermost is not one's.
        if self.depth == 3 and not self._known:
            self.level = 1
            self._known = True
            del self._held[:1]


def _decode(raw: bytes | None) -> Pairs | FieldProblem:
    if raw is None:
        return FieldProblem("record", "", f"The record has more than {_RECORD_MAX:,} bytes.")
    try:
        found = _DECODER.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        reason = "The record is not a JSON list of [name, value] pairs."
        return FieldProblem("record", raw[:200].decode("utf-8", "replace"), reason)
    pairs = [(name, "" if value is None else str(value)) for name, value in found]
    return Pairs(pairs, raw)
