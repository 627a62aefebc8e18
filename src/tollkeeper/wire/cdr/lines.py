"""Lines of a stream with bounded memory, and their text whatever the encoding."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

from tollkeeper.core.usage import Item, Refused, Skipped
from tollkeeper.errors import InvalidInput
from tollkeeper.wire.cdr.problem import FieldProblem, refused

LINE_MAX = 2**20
"""Bytes of the longest line that is looked at."""
_CHUNK = 2**18
_KEEP = 16_000
_BOM = codecs.BOM_UTF8
_WIDE = {codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be"}


@dataclass(frozen=True, slots=True)
class TooLong:
    """A line over ``LINE_MAX``: how many bytes it has, and its first few."""

    length: int
    head: bytes

    def refused(self, line: int) -> Refused:
        """Return the refusal of this line."""
        reason = (
            f"The line is {self.length:,} bytes long and a record has at most {LINE_MAX:,}; "
            "look for a missing line end in the file."
        )
        return refused(line, "line", "", reason, self.head)


def lines(stream: BinaryIO, encoding: str = "utf-8") -> Iterator[tuple[int, bytes | TooLong]]:
    """Yield (number from 1, bytes without the line end) of each line; empty lines too.

    Lines end with LF or CR LF. UTF-16 (named, or seen by its mark) is turned into UTF-8 first; the
    mark of UTF-8 is taken off. A line over ``LINE_MAX`` comes as ``TooLong`` and is never held.

    Raises:
        InvalidInput: ``encoding`` is the name of no encoding.
    """
    number = 0
    held = bytearray()
    dropped = 0
    for chunk in _chunks(stream, encoding):
        start = 0
        while (end := chunk.find(b"\n", start)) >= 0:
            number += 1
            yield number, _line(held, dropped, chunk[start:end])
            held.clear()
            dropped = 0
            start = end + 1
        rest = len(chunk) - start
        if dropped or len(held) + rest > LINE_MAX:
            room = max(0, _KEEP - len(held))
            dropped += rest - len(chunk[start : start + room]) + max(0, len(held) - _KEEP)
            del held[_KEEP:]
            held += chunk[start : start + room]
        else:
            held += memoryview(chunk)[start:]
    if held or dropped:
        yield number + 1, _line(held, dropped, b"")


def _line(held: bytearray, dropped: int, tail: bytes) -> bytes | TooLong:
    length = len(held) + dropped + len(tail)
    if length > LINE_MAX:
        return TooLong(length, (bytes(held) + tail)[:_KEEP])
    line = bytes(held) + tail if held else tail
    return line[:-1] if line.endswith(b"\r") else line


def _chunks(stream: BinaryIO, encoding: str) -> Iterator[bytes]:
    """Read the stream as UTF-8 or as an encoding that has ASCII in it, without its mark."""
    name = known_encoding(encoding)
    first = stream.read(_CHUNK)
    while 0 < len(first) < 4 and (more := stream.read(_CHUNK)):
        first += more
    wide = next((wide for mark, wide in _WIDE.items() if first.startswith(mark)), None)
    if wide is not None or name.startswith(("utf-16", "utf-32")):
        decoder = codecs.getincrementaldecoder(wide or name)(errors="replace")
        yield decoder.decode(first).removeprefix("\ufeff").encode("utf-8", "replace")
        while chunk := stream.read(_CHUNK):
            yield decoder.decode(chunk).encode("utf-8", "replace")
        yield decoder.decode(b"", True).encode("utf-8", "replace")  # noqa: FBT003  # positional only
        return
    yield first.removeprefix(_BOM)
    while chunk := stream.read(_CHUNK):
        yield chunk


def known_encoding(name: str) -> str:
    """Return Python's name of a text encoding.

    Raises:
        InvalidInput: there is none of that name.
    """
    try:
        found = codecs.lookup(name)
        # Python's codecs also turn bytes into bytes (zlib, hex); those decode no text.
        "a".encode(name)
    except (LookupError, ValueError):
        raise InvalidInput(
            f'encoding: "{name[:40]}" is not an encoding; write one such as "utf-8" or "cp1252".',
            field="encoding",
        ) from None
    return found.name


def decode(raw: bytes, encoding: str = "utf-8") -> str:
    """Return a line's text: by ``encoding``, else by UTF-8, else as Windows-1252. Never fails.

    ``encoding`` must be known; of UTF-16 the lines are UTF-8 already (see ``lines``).
    """
    if raw.isascii():
        return raw.decode("ascii")
    for name in (encoding, "utf-8", "cp1252"):
        try:
            return raw.decode("utf-8" if name.lower().startswith(("utf-16", "utf-32")) else name)
        except UnicodeError:
            continue
    return raw.decode("latin-1")


def each_line(stream: BinaryIO, encoding: str, read: Callable[[int, str], Item]) -> Iterator[Item]:
    """Yield exactly one item a line: what ``read`` makes of its text, or its refusal.

    Raises:
        InvalidInput: ``encoding`` is the name of no encoding.
    """
    for number, raw in lines(stream, encoding):
        if isinstance(raw, TooLong):
            yield raw.refused(number)
            continue
        text = decode(raw, encoding)
        if not text.strip():
            yield Skipped(number, "The line is empty.")
            continue
        try:
            yield read(number, text)
        except FieldProblem as problem:
            yield problem.refused(number, text)
