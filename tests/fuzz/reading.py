"""What targets share: several readers of one packet, records that are written again, streams cut anyhow."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

PIECE = 7
PIECES_MAX = 3000


def each(error: type[Exception], *readers: Callable[[], Any]) -> tuple[Any, ...]:
    """What every reader returned, or its refusal in words."""
    found: list[Any] = []
    for reader in readers:
        try:
            found.append(reader())
        except error as refused:
            found.append(f"{type(refused).__name__} {refused}")
    return tuple(found)


def again(
    error: type[Exception], read: Callable[[bytes], Any], write: Callable[[Any], bytes]
) -> Any:
    """A reader whose records can be written: once written, they stay what they are."""

    def reader(data: bytes) -> Any:
        record = read(data)
        try:
            written = write(record)
        except error:
            # Read from a foreign coding, and too large or too odd to be written in ours.
            return record
        assert write(read(written)) == written, f"{record!r:.300} is read back as another"
        return record

    return reader


def same_in_pieces(error: type[Exception], make: Callable[[], Any], data: bytes) -> Any:
    """The frames of a stream; however it is cut, they and the refusal are the same."""
    whole, pieces = make(), make()
    size = max(PIECE, len(data) // PIECES_MAX)
    refusals, found = [], []
    for decoder, parts in (
        (whole, [data]),
        (pieces, [data[at : at + size] for at in range(0, len(data), size)]),
    ):
        frames: list[Any] = []
        refused = None
        for part in parts:
            try:
                frames += decoder.feed(part)
            except error as malformed:
                refused = malformed
                break
        found.append(frames)
        refusals.append(refused)
    if refusals[0] is not None or refusals[1] is not None:
        assert all(refusals), f"refused only in one of two ways of cutting: {refusals}"
        raise refusals[0]
    assert found[0] == found[1], "another cutting gives other frames"
    return found[0]
