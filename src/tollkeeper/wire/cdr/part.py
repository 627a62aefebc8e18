"""Parts of a file: what is loaded, and committed, at a time; after a crash it goes on behind the last.

A part ends between two lines, so that the items of one line are never torn apart.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import polars as pl

from tollkeeper.bulk.frames import frame_of
from tollkeeper.core.usage import Half, Item, Refused, Usage
from tollkeeper.errors import InvalidInput

RECORDS = 131_072
"""Records of a part, unless the caller says otherwise."""

_BITS = {
    "line": 63,
    "start": 63,
    "duration_ms": 63,
    "answer": 63,
    "end": 63,
    "sip": 15,
    "q850": 15,
    "pdd_ms": 31,
    "mos": 15,
    "sequence": 63,
}


@dataclass(frozen=True, slots=True)
class Part:
    """What one stretch of a file says, in the order of its lines.

    ``frame`` has the schema ``bulk.frames.PARSED``. ``skipped`` counts lines that are no records.
    ``offset`` (bytes of the unpacked file) and ``line`` are where the next part begins: pass both
    to go on from there. A codec that reads record by record leaves ``offset`` 0 and goes by
    ``line``, the number of the last line or record that is in this part.
    """

    frame: pl.DataFrame
    refused: list[Refused]
    halves: list[Half]
    skipped: int
    offset: int
    line: int


@dataclass(slots=True)
class Gathered:
    """Items on their way into a part."""

    usages: list[Usage] = field(default_factory=list)
    refused: list[Refused] = field(default_factory=list)
    halves: list[Half] = field(default_factory=list)
    skipped: int = 0

    def add(self, item: Item) -> None:
        """Take one item; a record with a number that no column holds counts as refused."""
        if isinstance(item, Usage):
            refusal = unfit(item)
            if refusal is None:
                self.usages.append(item)
            else:
                self.refused.append(refusal)
        elif isinstance(item, Refused):
            self.refused.append(item)
        elif isinstance(item, Half):
            self.halves.append(item)
        else:
            self.skipped += 1

    @property
    def count(self) -> int:
        """Say how many items a part made of these has to carry."""
        return len(self.usages) + len(self.refused) + len(self.halves)

    def part(self, *, line: int, offset: int = 0) -> Part:
        """Make the part that ends behind ``line``."""
        return Part(
            frame=frame_of(self.usages),
            refused=self.refused,
            halves=self.halves,
            skipped=self.skipped,
            offset=offset,
            line=line,
        )


def unfit(usage: Usage) -> Refused | None:
    """Refuse a record whose number is too large for its column, which is never a true one."""
    for name, bits in _BITS.items():
        value = getattr(usage, name)
        if value is not None and not -(1 << bits) <= value < (1 << bits):
            return Refused(
                line=usage.line if name != "line" else 0,
                field=name,
                value=str(value)[:100],
                reason=f"The {name} {str(value)[:30]} is beyond anything a call can have.",
                raw=str(usage)[:4000],
            )
    return None


def parts_of(items: Iterator[Item], *, line: int = 0, records: int = RECORDS) -> Iterator[Part]:
    """Cut the items of a codec into parts of about ``records``, and go on behind ``line``.

    Items come in the order of their lines. Where the codec raises InvalidInput, everything read
    before is yielded as a last part, and then the error is raised.
    """
    gathered = Gathered()
    last = line
    while True:
        try:
            item = next(items, None)
        except InvalidInput:
            if last > line:
                yield gathered.part(line=last)
            raise
        if item is None:
            break
        if item.line <= line:
            continue
        if item.line != last and gathered.count >= records:
            yield gathered.part(line=last)
            gathered = Gathered()
            line = last
        gathered.add(item)
        last = max(last, item.line)
    if last > line:
        yield gathered.part(line=last)
