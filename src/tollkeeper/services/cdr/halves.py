"""Calls whose begin and end are records of their own, and may come in different files."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import polars as pl

from tollkeeper.bulk.frames import frame_of
from tollkeeper.core.usage import Half
from tollkeeper.services.cdr.write import HalfChange
from tollkeeper.store.usage_files import StoredHalf
from tollkeeper.wire.cdr.kamailio import join
from tollkeeper.wire.cdr.part import Part

Place = tuple[str, bool]


class Halves:
    """The halves that wait for their other one, as the parts of a load go by.

    What a part finds out is written with that part; the next one is read while that is going on,
    so what waits is kept here as well.
    """

    __slots__ = ("_asked", "_file_id", "_waiting")

    def __init__(self, file_id: int) -> None:
        self._file_id = file_id
        self._waiting: dict[Place, StoredHalf] = {}
        self._asked: set[str] = set()

    def unknown(self, halves: Iterable[Half]) -> list[str]:
        """The keys of which is not known yet whether a half waits."""
        return sorted({half.key for half in halves} - self._asked)

    def recall(self, keys: Sequence[str], stored: Iterable[StoredHalf]) -> None:
        """Learn what waits in the database under these keys."""
        self._asked.update(keys)
        for one in stored:
            self._waiting[one.half.key, one.half.begins] = one

    def join(self, part: Part) -> tuple[pl.DataFrame, HalfChange]:
        """The records of a part with those calls that are complete now, in the order of lines."""
        if not part.halves:
            return part.frame, HalfChange()
        keys = {half.key for half in part.halves}
        stored = [one for place, one in self._waiting.items() if place[0] in keys]
        usages, rest = join(part.halves, [one.half for one in stored])
        left = {id(half) for half in rest}
        gone = [(one.half.key, one.half.begins) for one in stored if id(one.half) not in left]
        new = [StoredHalf(half, self._file_id) for half in part.halves if id(half) in left]
        for place in gone:
            del self._waiting[place]
        self._waiting |= {(one.half.key, one.half.begins): one for one in new}
        frame = part.frame
        if usages:
            frame = pl.concat([frame, frame_of(usages)]).sort("line", maintain_order=True)
        return frame, HalfChange(gone, new)
