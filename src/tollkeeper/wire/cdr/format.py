"""What a CDR format is to the rest of the program: a name, a reader, and a way to recognise it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, Protocol

from tollkeeper.core.usage import Item

if TYPE_CHECKING:
    from tollkeeper.wire.cdr.mapping import Mapping

HEAD_BYTES = 65_536
"""How much of a file ``Format.recognise`` is shown."""


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """How one file is to be read.

    ``timezone`` (an IANA name) is that of times which carry no zone. ``mapping`` is needed by the
    formats "csv" and "jsonl" and by no other. ``encoding`` is a Python codec name; bytes which are
    not of it are read as Windows-1252, so that one odd name does not cost a record.
    """

    timezone: str = "UTC"
    mapping: Mapping | None = None
    encoding: str = "utf-8"


class Codec(Protocol):
    """Reads a stream into items, in order, with bounded memory."""

    def __call__(self, stream: BinaryIO, options: ReadOptions) -> Iterator[Item]:
        """Yield what the stream holds; bad records come as ``Refused``, never as an exception.

        Raises:
            InvalidInput: the options are wrong, or nothing of the stream can be of this format.
        """
        ...


@dataclass(frozen=True, slots=True)
class Format:
    """One format: ``recognise`` says from 0 to 100 how sure it is of a file's first 64 KiB.

    ``by_line``: the number of an item is that of the line in the file where it ends.
    """

    code: str
    title: str
    read: Codec
    recognise: Callable[[bytes], int]
    suffixes: tuple[str, ...] = ()
    by_line: bool = False
