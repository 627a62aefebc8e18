"""JSON documents out of a stream, one after the other with whatever between them, bounded."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import BinaryIO

from tollkeeper.wire.cdr.lines import LINE_MAX, TooLong

_CHUNK = 2**18
_KEEP = 16_000
_DEPTH_MAX = 100
"""Objects within objects; more is damage, and ends the document."""
# Whole strings and what is outside of them, up to the next brace.
_BRACE = re.compile(rb'(?:[^"{}]++|"(?:[^"\\\n]++|\\[^\n])*+")*+([{}])')
_STRUCTURE = re.compile(rb'["{}]')
# A string of JSON has no line end in it, so one that meets it is torn.
_STRING_END = re.compile(rb'[^"\\\n]*(?:\\.[^"\\\n]*)*["\n]?', re.DOTALL)
_CORE = re.compile(rb'\{\s{0,64}"core-uuid"')
_FRESH = re.compile(rb'\n\{|\{\s{0,64}"core-uuid"')
_BETWEEN = b" \t\r\n,[]"


def documents(stream: BinaryIO) -> Iterator[bytes | TooLong]:
    """Yield each object of the stream, and each run of other bytes between objects.

    Objects are told by their braces. One that is cut off ends where the next plainly begins: at a
    brace in a line's first column, or before "core-uuid". What is over ``LINE_MAX`` is dropped up
    to the next beginning and comes as ``TooLong``.
    """
    buffer = b""
    dropped = 0
    head = b""
    while chunk := stream.read(_CHUNK):
        buffer += chunk
        if dropped:
            at = _begin(buffer, 0)
            if at is None:
                # The last bytes may be the first half of a beginning.
                dropped += max(0, len(buffer) - 64)
                buffer = buffer[-64:]
                continue
            yield TooLong(dropped + at, head)
            buffer, dropped = buffer[at:], 0
        pieces, used = _pieces(buffer)
        yield from pieces
        buffer = buffer[used:]
        if len(buffer) > LINE_MAX:
            head, dropped, buffer = buffer[:_KEEP], len(buffer), b""
    if dropped:
        yield TooLong(dropped + len(buffer), head)
    elif buffer.strip():
        yield from _torn(buffer)


def _begin(buffer: bytes, since: int) -> int | None:
    match = _FRESH.search(buffer, since)
    if match is None:
        return None
    return match.start() + (1 if match.group().startswith(b"\n") else 0)


def _pieces(buffer: bytes) -> tuple[list[bytes], int]:
    """Cut off what is complete: objects, the bytes between them, and how many bytes that is."""
    found: list[bytes] = []
    used = 0
    fresh: int | None = -1
    while True:
        start = buffer.find(b"{", used)
        if start < 0:
            return found, used
        if fresh is not None and fresh <= start:
            fresh = _begin(buffer, start + 1)
        end = _quick_end(buffer, start, len(buffer) if fresh is None else fresh)
        if end is None:
            end = _careful_end(buffer, start)
        if end is None:
            return found, used
        between = buffer[used:start]
        if between.strip(_BETWEEN):
            found.append(between)
        found.append(buffer[start:end])
        used = end


def _quick_end(buffer: bytes, start: int, limit: int) -> int | None:
    """Return where the object at ``start`` ends, if that is before anything that could begin one."""
    depth = 0
    at = start
    while match := _BRACE.match(buffer, at, limit):
        at = match.end()
        depth += 1 if match[1] == b"{" else -1
        if depth == 0:
            return at
        if depth > _DEPTH_MAX:
            break
    return None


def _careful_end(buffer: bytes, start: int) -> int | None:
    """Return where the object at ``start`` ends or is torn, or None if that is not in the buffer.

    It looks at each string and brace for signs that the object was cut off before.
    """
    depth = 0
    at = start
    while match := _STRUCTURE.search(buffer, at):
        at = match.end()
        mark = match.group()
        if mark == b'"':
            string = _STRING_END.match(buffer, at)
            assert string is not None
            at = string.end()
            if at == len(buffer) and not string.group().endswith(b'"'):
                return None
            # A text that was cut off runs on to the first quote of the next object.
            if _CORE.match(buffer, at - 2):
                return at - 2
        elif mark == b"}":
            depth -= 1
            if depth == 0:
                return at
        else:
            if depth and _is_fresh(buffer, at - 1):
                return at - 1
            depth += 1
            if depth > _DEPTH_MAX:
                return at
    return None


def _is_fresh(buffer: bytes, at: int) -> bool:
    """Say whether the brace at ``at`` begins a new object instead of lying in the one around it."""
    if _CORE.match(buffer, at):
        return True
    # In a line's first column, and not the value of a name or of a list.
    return buffer[at - 1 : at] == b"\n" and buffer[max(0, at - 64) : at].rstrip()[-1:] not in (
        b",",
        b":",
        b"[",
    )


def _torn(buffer: bytes) -> Iterator[bytes]:
    """Yield what is left at the end of the stream: bytes of nothing, or an object cut off."""
    start = buffer.find(b"{")
    between = buffer if start < 0 else buffer[:start]
    if between.strip(_BETWEEN):
        yield between
    if start >= 0:
        yield buffer[start:]
