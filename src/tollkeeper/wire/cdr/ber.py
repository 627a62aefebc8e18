"""BER (ITU-T X.690) as a stream: elements one at a time, whatever their lengths are written as.

A decoder wants a whole element in memory; a file of a million of them does not fit. So the outer
elements are walked here, the inner ones cut out, and each is rewritten with definite lengths and
without what no schema names before it is decoded.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass
from typing import BinaryIO, Final

APPLICATION: Final = 0x40
ELEMENT_MAX: Final = 2**20
"""Bytes of the largest element that is held."""
DEPTH_MAX: Final = 32
_CHUNK: Final = 2**16
_CLASS: Final = 0xC0
_CONSTRUCTED: Final = 0x20
_LONG: Final = 0x1F


class Broken(Exception):
    """The bytes are not BER, or end too early; the text says which, for people."""


@dataclass(frozen=True, slots=True)
class Head:
    """Identifier and length of an element. ``length`` is None when it is indefinite."""

    klass: int
    constructed: bool
    number: int
    length: int | None
    raw: bytes
    """The bytes of the identifier."""

    @property
    def application(self) -> int | None:
        """The number of an application tag; None for a tag of another class."""
        return self.number if self.klass == APPLICATION else None

    @property
    def ends(self) -> bool:
        """Whether these are the two zero bytes that end an indefinite length."""
        return self.raw == b"\0" and self.length == 0


class Source:
    """Bytes of a stream, counted."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._buffer = b""
        self._at = 0
        self.position = 0

    def peek(self) -> bytes:
        """Return the next byte without taking it; b"" at the end."""
        if self._at >= len(self._buffer):
            self._buffer = self._stream.read(_CHUNK)
            self._at = 0
        return self._buffer[self._at : self._at + 1]

    def take(self, size: int) -> bytes:
        """Return exactly ``size`` bytes, at most ``ELEMENT_MAX``.

        Raises:
            Broken: the stream ends before.
        """
        parts: list[bytes] = []
        left = size
        while left:
            if not self.peek():
                raise Broken(f"the file ends at byte {self.position}, in the middle of a record")
            part = self._buffer[self._at : self._at + left]
            self._at += len(part)
            self.position += len(part)
            left -= len(part)
            parts.append(part)
        return b"".join(parts)

    def skip(self, size: int) -> None:
        """Pass over bytes without holding them."""
        while size:
            size -= len(self.take(min(size, _CHUNK)))


def read_head(source: Source) -> Head:
    """Read the identifier and the length of the next element.

    Raises:
        Broken: they are not BER, or the stream ends.
    """
    raw = source.take(1)
    first = raw[0]
    number = first & _LONG
    if number == _LONG:
        number = 0
        more = True
        while more:
            byte = source.take(1)
            raw += byte
            if len(raw) > 5:
                raise Broken(f"byte {source.position} is no tag of BER")
            number = number << 7 | byte[0] & 0x7F
            more = bool(byte[0] & 0x80)
    constructed = bool(first & _CONSTRUCTED)
    length: int | None = source.take(1)[0]
    assert length is not None
    if length == 0x80:
        if not constructed:
            raise Broken(f"byte {source.position} begins a value without a length")
        length = None
    elif length > 0x80:
        count = length & 0x7F
        if count > 8:
            raise Broken(f"byte {source.position} begins a length of {count} bytes")
        length = int.from_bytes(source.take(count), "big")
    return Head(first & _CLASS, constructed, number, length, raw)


def read_content(source: Source, head: Head) -> bytes | None:
    """Read what is in an element, as it is written; None (and passed over) when it is too large.

    Of an indefinite length the two bytes at the end are not in the result.

    Raises:
        Broken: it is not BER, or the stream ends.
    """
    if head.length is not None:
        if head.length > ELEMENT_MAX:
            source.skip(head.length)
            return None
        return source.take(head.length)
    held = bytearray()
    fits = _gather(source, held, 0)
    return bytes(held) if fits else None


def _gather(source: Source, held: bytearray, depth: int) -> bool:
    """Take elements up to the end of an indefinite length, rewritten with definite lengths."""
    if depth > DEPTH_MAX:
        raise Broken(f"byte {source.position} is nested more than {DEPTH_MAX} deep")
    fits = True
    while not (head := read_head(source)).ends:
        inner = bytearray()
        if head.length is None:
            fits = _gather(source, inner, depth + 1) and fits
        elif len(held) + head.length > ELEMENT_MAX:
            source.skip(head.length)
            fits = False
        else:
            inner += source.take(head.length)
        if fits and len(held) + len(inner) <= ELEMENT_MAX:
            held += head.raw + length_of(len(inner)) + inner
        else:
            fits = False
            held.clear()
    return fits


class _Bytes:
    """The bytes of one element as a source (``Source`` over memory)."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def read(self, size: int = -1) -> bytes:
        part = self._data[self._at :] if size < 0 else self._data[self._at : self._at + size]
        self._at += len(part)
        return part


def definite(content: bytes, keep: Container[int], depth: int = 0) -> bytes:
    """Return the elements of ``content`` with definite lengths, and only those that are kept.

    ``keep`` has numbers of application tags; elements of other classes go.

    Raises:
        Broken: it is not BER.
    """
    if depth > DEPTH_MAX:
        raise Broken(f"it is nested more than {DEPTH_MAX} deep")
    source = Source(_Bytes(content))  # type: ignore[arg-type]
    parts: list[bytes] = []
    while source.peek():
        head = read_head(source)
        inner = read_content(source, head)
        if inner is None:
            raise Broken("an element is larger than the one around it")
        if head.application not in keep:
            continue
        if head.constructed:
            inner = definite(inner, keep, depth + 1)
        parts.append(element(head.raw, inner))
    return b"".join(parts)


def element(identifier: bytes, content: bytes) -> bytes:
    """Return an element with a definite length."""
    return identifier + length_of(len(content)) + content


def length_of(size: int) -> bytes:
    """Return a length in its shortest definite form."""
    if size < 0x80:
        return bytes((size,))
    octets = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((0x80 | len(octets),)) + octets
