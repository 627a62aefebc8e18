"""Bytes of a file to lines of text: bounds, gzip, encodings; and what is plainly not text."""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tollkeeper.errors import InvalidInput

if TYPE_CHECKING:
    from tollkeeper.wire.ratesheet.options import SheetOptions

_LOOK = 65_536
_GZIP = b"\x1f\x8b"
_MAGIC = (
    (
        b"PK\x03\x04",
        "a zip archive or an Excel workbook (.xlsx); unpack it, or save the sheet as CSV",
    ),
    (b"PK\x05\x06", "an empty zip archive; unpack it, or save the sheet as CSV"),
    (b"\xd0\xcf\x11\xe0", "an old Excel workbook (.xls); save the sheet as CSV"),
    (b"%PDF", "a PDF document; ask the supplier for CSV"),
    (b"7z\xbc\xaf", "a 7z archive; unpack it first"),
    (b"Rar!", "a RAR archive; unpack it first"),
    (b"BZh", "a bzip2 file; unpack it first"),
    (b"\xfd7zXZ", "an xz file; unpack it first"),
    (b"\x28\xb5\x2f\xfd", "a zstd file; unpack it first"),
)
_CONTROLS = frozenset(range(32)) - frozenset(b"\t\n\x0b\x0c\r\x1a")


@dataclass(frozen=True, slots=True)
class Text:
    """The lines of a file without their ends, and how they were had."""

    lines: list[str]
    encoding: str
    notes: tuple[str, ...]


def read_text(data: bytes | Iterable[bytes], options: SheetOptions) -> Text:
    """Decode a file, or its chunks as they arrive.

    Raises:
        InvalidInput: empty, too large, archived, binary, or not in the encoding it should be in.
    """
    notes: list[str] = []
    raw = _gather(data, options.bytes_max)
    if raw.startswith(_GZIP):
        raw = _inflate(raw, options.bytes_max)
        notes.append("The file was unpacked from gzip.")
    for magic, what in _MAGIC:
        if raw.startswith(magic):
            raise InvalidInput(f"The file is {what}.", code="not_a_rate_sheet")
    if raw[:512].lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        raise InvalidInput(
            "The file is a web page or XML, not a CSV rate sheet.", code="not_a_rate_sheet"
        )
    text, encoding = _decode(raw, options.encoding)
    text = text.replace("\r\n", "\n").replace("\r", "\n").rstrip("\x1a")
    if not text or text.isspace():
        raise InvalidInput("The file is empty: there is nothing to import.", code="empty_file")
    if text.count("\n") > options.rows_max:
        raise InvalidInput(
            f"The file has more than {options.rows_max:,} lines.", code="file_too_large"
        )
    lines = text.split("\n")
    if not lines[-1]:
        lines.pop()
    return Text(lines, encoding, tuple(notes))


def _gather(data: bytes | Iterable[bytes], bytes_max: int) -> bytes:
    """Take the whole file, or stop at the first chunk that is over the bound."""
    if isinstance(data, (bytes, bytearray, memoryview)):
        raw = bytes(data) if len(data) <= bytes_max else None
    else:
        buffer = bytearray()
        raw = None
        for chunk in data:
            buffer += chunk
            if len(buffer) > bytes_max:
                break
        else:
            raw = bytes(buffer)
    if raw is None:
        raise _too_large(bytes_max)
    if not raw:
        raise InvalidInput("The file is empty: there is nothing to import.", code="empty_file")
    return raw


def _too_large(bytes_max: int) -> InvalidInput:
    size = f"{bytes_max // 2**20} MiB" if bytes_max >= 2**20 else f"{bytes_max} bytes"
    return InvalidInput(
        f"The file is larger than {size}, the bound for a rate sheet.", code="file_too_large"
    )


def _inflate(raw: bytes, bytes_max: int) -> bytes:
    """Unpack gzip, member after member, and never more than the bound."""
    out = bytearray()
    try:
        while raw:
            member = zlib.decompressobj(wbits=31)
            out += member.decompress(raw, bytes_max + 1 - len(out))
            if len(out) > bytes_max:
                raise _too_large(bytes_max)
            if not member.eof:
                raise InvalidInput("The gzip file is cut short.", code="not_a_rate_sheet")
            # Padding with zero bytes after the last member is allowed by the format.
            raw = member.unused_data.lstrip(b"\0")
    except zlib.error:
        raise InvalidInput("The gzip file is damaged.", code="not_a_rate_sheet") from None
    if not out:
        raise InvalidInput("The file is empty: there is nothing to import.", code="empty_file")
    return bytes(out)


def _decode(raw: bytes, encoding: str) -> tuple[str, str]:
    if encoding == "auto" and raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        encoding = "utf-16"
    if not encoding.lower().replace("_", "-").startswith("utf-16"):
        _refuse_binary(raw)
    if encoding != "auto":
        try:
            return raw.decode(encoding).removeprefix("\ufeff"), encoding
        except UnicodeDecodeError as error:
            raise InvalidInput(
                f"The file is not {encoding}: it breaks at byte {error.start + 1}.",
                code="not_a_rate_sheet",
                field="encoding",
            ) from None
    try:
        return raw.decode("utf-8-sig"), "utf-8"
    except UnicodeDecodeError:
        pass
    try:
        return raw.decode("cp1252"), "cp1252"
    except UnicodeDecodeError:
        return raw.decode("latin-1"), "latin-1"


def _refuse_binary(raw: bytes) -> None:
    head = raw[:_LOOK]
    controls = sum(head.count(code) for code in _CONTROLS)
    if b"\0" in head or controls * 100 > len(head):
        raise InvalidInput(
            "The file is binary, not text: save the sheet as CSV.", code="not_a_rate_sheet"
        )
