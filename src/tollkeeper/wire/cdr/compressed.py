"""Files that come packed: gzip, bzip2, xz and zstd, known by their first bytes and unpacked in chunks.

A packed file of a few kilobytes can unpack to more than any disk holds, so what comes out is
bounded, both as such and against what went in. A file that was cut short on its way gives all that
can be read of it, and then says where it ends.

Formats: RFC 1952 (gzip), RFC 8878 (zstd), the xz file format 1.2, and bzip2 by its reference
implementation.
"""

from __future__ import annotations

import bz2
import io
import lzma
import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO, Protocol, cast

import pyarrow as pa

from tollkeeper.errors import InvalidInput

_CHUNK = 65_536
_OUT = 1_048_576
_TAIL = 64
_LOOK = 16
_XZ_MEMORY = 256 * 1_048_576

_PACKED = (
    ("gzip", re.compile(rb"\x1f\x8b\x08")),
    ("bzip2", re.compile(rb"BZh[1-9](1AY&SY|\x17rE8P\x90)")),
    ("xz", re.compile(rb"\xfd7zXZ\x00")),
    ("zstd", re.compile(rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18")),
)
_REFUSED = (
    ("a zip archive or an Excel workbook", re.compile(rb"PK(\x03\x04|\x05\x06)")),
    ("a file of the old compress program (.Z)", re.compile(rb"\x1f\x9d")),
    ("a 7z archive", re.compile(rb"7z\xbc\xaf\x27\x1c")),
    ("a RAR archive", re.compile(rb"Rar!\x1a\x07")),
)


@dataclass(frozen=True, slots=True)
class Limits:
    """How much may come out of a packed file.

    ``bytes_max`` in all, and ``ratio_max`` times what went in, which is looked at as soon as more
    than ``ratio_from`` bytes came out. Call records shrink to a tenth, at most to a fiftieth.
    """

    bytes_max: int = 64 * 1024**3
    ratio_max: int = 250
    ratio_from: int = 16 * 1024**2


def open_stream(stream: BinaryIO, limits: Limits | None = None) -> BinaryIO:
    """Give the plain bytes of a file that may be packed.

    The result reads forward only when the file is packed; a plain file that can seek is given back
    as it is, where it stands.

    Raises:
        InvalidInput: an archive of a kind that is not unpacked here. Reading the result raises it
            for a file that is cut short, damaged, or unpacks to more than ``limits`` allow; what
            could be read before was returned by then.
    """
    head = b""
    while len(head) < _LOOK and (more := stream.read(_LOOK - len(head))):
        head += more
    for what, magic in _REFUSED:
        if magic.match(head):
            raise InvalidInput(f"The file is {what}; unpack it first.", code="packed_file")
    whole = put_back(stream, head)
    for name, magic in _PACKED:
        if magic.match(head):
            return cast(BinaryIO, Unpacked(name, _Source(whole), limits or Limits()))
    return whole


def put_back(stream: BinaryIO, head: bytes) -> BinaryIO:
    """Give a stream as it was before ``head``, and nothing else, was read from it."""
    if not stream.seekable():
        return cast(BinaryIO, _Joined(head, stream))
    stream.seek(-len(head), io.SEEK_CUR)
    return stream


class _Joined(io.BufferedIOBase):
    """A stream that cannot seek, with the bytes that were taken from it put back in front."""

    def __init__(self, head: bytes, stream: BinaryIO) -> None:
        self._head = head
        self._stream = stream

    def readable(self) -> bool:
        return True

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or size < 0:
            head, self._head = self._head, b""
            return head + self._stream.read()
        if not self._head:
            return self._stream.read(size)
        head, self._head = self._head[:size], self._head[size:]
        return head

    def read1(self, size: int = -1, /) -> bytes:
        return self.read(_CHUNK if size < 0 else size)


class _Source:
    """The packed bytes, read one chunk ahead so that the end is known before it is reached."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._next = stream.read(_CHUNK)
        self.taken = 0
        self.closed = False

    @property
    def ended(self) -> bool:
        return not self._next

    def take(self) -> bytes:
        """Give the next chunk; b"" at the end."""
        chunk = self._next
        if chunk:
            self._next = self._stream.read(_CHUNK)
            self.taken += len(chunk)
        return chunk

    def put_back(self, rest: bytes) -> None:
        """Take back the end of the chunk that was given last."""
        self._next = rest + self._next
        self.taken -= len(rest)

    # What pyarrow asks of a file. It may be given fewer bytes than it asks for.

    def read(self, size: int = -1) -> bytes:
        chunk = self.take()
        if 0 <= size < len(chunk):
            self.put_back(chunk[size:])
            return chunk[:size]
        return chunk

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return False

    def writable(self) -> bool:
        return False

    def close(self) -> None:
        self.closed = True


class _Decoder(Protocol):
    """A decompressor of the standard library with its ways made alike."""

    def decode(self, data: bytes) -> bytes: ...
    @property
    def hungry(self) -> bool: ...
    @property
    def finished(self) -> bool: ...
    @property
    def rest(self) -> bytes: ...


class _Zlib:
    """``zlib.decompressobj`` for one member of a gzip file, with a bounded output."""

    def __init__(self) -> None:
        self._inner = zlib.decompressobj(wbits=31)

    def decode(self, data: bytes) -> bytes:
        return self._inner.decompress(self._inner.unconsumed_tail + data, _OUT)

    @property
    def hungry(self) -> bool:
        return not self._inner.unconsumed_tail

    @property
    def finished(self) -> bool:
        return self._inner.eof

    @property
    def rest(self) -> bytes:
        return self._inner.unused_data


class _Native:
    """The decompressors of ``bz2`` and ``lzma``, which share an interface."""

    def __init__(self, inner: bz2.BZ2Decompressor | lzma.LZMADecompressor) -> None:
        self._inner = inner

    def decode(self, data: bytes) -> bytes:
        return self._inner.decompress(data, _OUT)

    @property
    def hungry(self) -> bool:
        return self._inner.needs_input

    @property
    def finished(self) -> bool:
        return self._inner.eof

    @property
    def rest(self) -> bytes:
        return self._inner.unused_data


_DECODERS: dict[str, Callable[[], _Decoder]] = {
    "gzip": _Zlib,
    "bzip2": lambda: _Native(bz2.BZ2Decompressor()),
    "xz": lambda: _Native(lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY)),
}


class _Short(Exception):
    """The packed data ends before its end."""


class _Damaged(Exception):
    """The packed data contradicts itself."""


class _Members:
    """Unpacks gzip, bzip2 or xz; several packed files behind one another count as one."""

    def __init__(self, source: _Source, make: Callable[[], _Decoder]) -> None:
        self._source = source
        self._make = make
        self._decoder: _Decoder | None = make()

    def next(self) -> bytes:
        """Give at most about 1 MiB of plain bytes; b"" at the end."""
        while self._decoder is not None:
            decoder = self._decoder
            data = b""
            if decoder.hungry:
                data = self._source.take()
                if not data:
                    raise _Short
            try:
                plain = decoder.decode(data)
            except (zlib.error, OSError, lzma.LZMAError, EOFError) as error:
                raise _Damaged from error
            if decoder.finished:
                self._decoder = self._after(decoder.rest)
            if plain:
                return plain
        return b""

    def _after(self, rest: bytes) -> _Decoder | None:
        """Begin the next member; zeros behind the last one are the padding of a tape or a disk."""
        while True:
            rest = rest.lstrip(b"\0")
            if rest:
                break
            rest = self._source.take()
            if not rest:
                return None
        self._source.put_back(rest)
        return self._make()


class _Zstd:
    """Unpacks zstd by pyarrow."""

    def __init__(self, source: _Source) -> None:
        self._source = source
        self._inner: Any = pa.CompressedInputStream(pa.PythonFile(source, mode="r"), "zstd")

    def next(self) -> bytes:
        """Give at most 1 MiB of plain bytes; b"" at the end.

        An error takes with it what the same call had read, so near the end small pieces are read.
        """
        try:
            return cast(bytes, self._inner.read(_TAIL if self._source.ended else _CHUNK))
        except OSError as error:
            if self._source.ended:
                raise _Short from error
            raise _Damaged from error


class Unpacked(io.BufferedIOBase):
    """The plain bytes of a packed file. Reads forward only; bounded by its ``limits``."""

    def __init__(self, name: str, source: _Source, limits: Limits) -> None:
        self._name = name
        self._source = source
        self._limits = limits
        self._decoder: _Members | _Zstd
        if name == "zstd":
            self._decoder = _Zstd(source)
        else:
            self._decoder = _Members(source, _DECODERS[name])
        self._buffer = bytearray()
        self._out = 0
        self._error: InvalidInput | None = None
        self._done = False

    def readable(self) -> bool:
        """Say yes."""
        return True

    def tell(self) -> int:
        """Say how many plain bytes have been read."""
        return self._out - len(self._buffer)

    def read(self, size: int | None = -1, /) -> bytes:
        """Read ``size`` plain bytes, fewer only at the end or before an error is raised.

        Raises:
            InvalidInput: the file is cut short, damaged or a bomb, and all before was read.
        """
        everything = size is None or size < 0
        wanted = 0 if size is None or size < 0 else size
        while (everything or len(self._buffer) < wanted) and not self._done:
            self._fill()
        if everything:
            wanted = len(self._buffer)
        data = bytes(memoryview(self._buffer)[:wanted])
        del self._buffer[:wanted]
        if self._error is not None and not data and (wanted or everything):
            raise self._error
        return data

    def read1(self, size: int = -1, /) -> bytes:
        """Read what is there, at most ``size`` bytes, as ``read`` does otherwise."""
        if not self._buffer and not self._done:
            self._fill()
        return self.read(min(len(self._buffer) or 1, size if size >= 0 else _CHUNK))

    def _fill(self) -> None:
        try:
            plain = self._decoder.next()
        except _Short:
            self._fail(
                f"The file is cut short: its {self._name} data breaks off at byte "
                f"{self._source.taken}, after {self._out} unpacked bytes; fetch the file again.",
                "truncated_file",
            )
            return
        except _Damaged:
            self._fail(
                f"The file is damaged: its {self._name} data cannot be unpacked near byte "
                f"{self._source.taken}, after {self._out} unpacked bytes; fetch the file again.",
                "damaged_file",
            )
            return
        if not plain:
            self._done = True
            return
        self._out += len(plain)
        self._buffer += plain
        self._check()

    def _check(self) -> None:
        limits = self._limits
        if self._out > limits.bytes_max:
            excess = self._out - limits.bytes_max
            del self._buffer[len(self._buffer) - excess :]
            self._out = limits.bytes_max
            self._fail(
                f"The file unpacks to more than {limits.bytes_max} bytes, which is the limit; "
                "split it.",
                "file_too_large",
            )
        elif self._out > limits.ratio_from and self._out > limits.ratio_max * self._source.taken:
            self._fail(
                f"The file unpacks to more than {limits.ratio_max} times its size, as no file of "
                f"call records does; after {self._out} bytes it was read no further.",
                "packed_bomb",
            )

    def _fail(self, sentence: str, code: str) -> None:
        self._error = InvalidInput(sentence, code=code)
        self._done = True
