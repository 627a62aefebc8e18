"""What tests of several codecs need: reading bytes, and where real files are."""

from __future__ import annotations

import io
import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tollkeeper.core.usage import Item, Refused, Skipped, Usage
from tollkeeper.wire.cdr.format import HEAD_BYTES, Format, ReadOptions

ROOT = Path(__file__).parents[3]
FILES = Path(os.environ.get("TOLLKEEPER_SHARED_DATA", ROOT.parent / "shared" / "data")) / "cdr"

needs_files = pytest.mark.skipif(
    not FILES.is_dir(), reason="no real CDR files here; TOLLKEEPER_SHARED_DATA names their folder"
)


def items(form: Format, data: bytes, timezone: str = "UTC") -> list[Item]:
    return list(form.read(io.BytesIO(data), ReadOptions(timezone=timezone)))


def usages(form: Format, data: bytes, timezone: str = "UTC") -> list[Usage]:
    return [item for item in items(form, data, timezone) if isinstance(item, Usage)]


def refusals(form: Format, data: bytes, timezone: str = "UTC") -> list[Refused]:
    return [item for item in items(form, data, timezone) if isinstance(item, Refused)]


def skips(form: Format, data: bytes) -> list[Skipped]:
    return [item for item in items(form, data) if isinstance(item, Skipped)]


def file(name: str) -> bytes:
    return (FILES / name).read_bytes()


def sure(form: Format, data: bytes) -> int:
    return form.recognise(data[:HEAD_BYTES])


def us(*parts: int) -> int:
    """Microseconds of a UTC time (year, month, day, hour, minute, second, microsecond)."""
    moment = datetime(*parts, tzinfo=UTC) - datetime(1970, 1, 1, tzinfo=UTC)  # type: ignore[arg-type,misc]
    return (moment.days * 86_400 + moment.seconds) * 1_000_000 + moment.microseconds


class Endless(io.RawIOBase):
    """A stream of ``size`` bytes: a beginning, one byte over and over, an end."""

    def __init__(self, head: bytes, fill: bytes, size: int, tail: bytes = b"") -> None:
        self._head = head
        self._fill = fill * 2**16
        self._left = size
        self._tail = tail

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes, at most ``size``."""
        if self._head:
            part, self._head = self._head[:size], self._head[size:]
            return part
        if self._left > 0:
            part = self._fill[: min(size, self._left)]
            self._left -= len(part)
            return part
        part, self._tail = self._tail[:size], self._tail[size:]
        return part
