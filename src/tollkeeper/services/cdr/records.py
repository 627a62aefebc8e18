"""What the steps from a parsed record to the books hand to each other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec
import numpy as np
import numpy.typing as npt
import polars as pl

from tollkeeper.bulk.frames import usages_of
from tollkeeper.core.usage import Mismatch, Quarantine

Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

NOTES_MAX = 1_000
"""Mismatches of one kind that a batch lists one by one; the rest of them is only counted."""


def distinct(ids: Ints) -> tuple[Ints, Ints]:
    """The different ones of some ids, ascending, and for each row which of them it has.

    As ``np.unique``, but for small numbers from 0 on, without sorting the column.
    """
    found = np.flatnonzero(np.bincount(ids))
    place = np.zeros(int(found[-1]) + 1 if len(found) else 0, dtype=np.int64)
    place[found] = np.arange(len(found))
    return found, place[ids]


@dataclass(frozen=True, slots=True)
class Held:
    """A record for the quarantine; ``record`` is its JSON where it could be read."""

    line: int
    reason: Quarantine
    field: str
    value: str
    detail: str
    raw: str = ""
    record: str | None = None


@dataclass(frozen=True, slots=True)
class Noted:
    """Something about a record in the books that does not fit; amounts and times as text."""

    line: int
    kind: Mismatch
    day: int
    call_id: str
    customer_id: int
    vendor_id: int
    expected: str = ""
    found: str = ""
    detail: str = ""
    session_id: str | None = None


@dataclass(slots=True)
class Notes:
    """The mismatches of a batch, bounded: ``counts`` counts them all."""

    listed: list[Noted] = field(default_factory=list)
    counts: Counter[Mismatch] = field(default_factory=Counter)

    def add(self, note: Noted) -> None:
        """Add one mismatch."""
        self.counts[note.kind] += 1
        if self.counts[note.kind] <= NOTES_MAX:
            self.listed.append(note)

    def room(self, kind: Mismatch, found: int) -> int:
        """Count ``found`` mismatches of a kind; how many of them may still be listed."""
        before = self.counts[kind]
        self.counts[kind] += found
        return max(0, min(found, NOTES_MAX - before))


@dataclass(slots=True)
class Mediated:
    """Records of which is known whose they are; all columns have the rows of ``frame``.

    ``frame`` has the schema PARSED. ``number`` and ``digits`` are the called number as the kernel
    takes it, ``called`` and ``caller`` the numbers in E.164. Ids are 0 where nobody was found.
    """

    frame: pl.DataFrame
    customer: Ints
    vendor: Ints
    trunk_in: Ints
    trunk_out: Ints
    number: Ints
    digits: npt.NDArray[np.int8]
    called: pl.Series
    caller: pl.Series

    def take(self, keep: Flags) -> Mediated:
        """Only the rows where ``keep`` is true."""
        if keep.all():
            return self
        mask = pl.Series(keep)
        return Mediated(
            frame=self.frame.filter(mask),
            customer=self.customer[keep],
            vendor=self.vendor[keep],
            trunk_in=self.trunk_in[keep],
            trunk_out=self.trunk_out[keep],
            number=self.number[keep],
            digits=self.digits[keep],
            called=self.called.filter(mask),
            caller=self.caller.filter(mask),
        )


def hold(
    frame: pl.DataFrame,
    where: Flags,
    reason: Quarantine,
    *,
    field: str,
    detail: str,
    values: Sequence[str] | None = None,
) -> list[Held]:
    """Put the rows of a PARSED frame where ``where`` is true aside, each with its own record.

    ``detail`` may use ``{value}``, which stands for one of ``values`` (one for each of these rows),
    or else for the text of ``field``.
    """
    held = []
    for n, usage in enumerate(usages_of(frame.filter(pl.Series(where)))):
        value = str(getattr(usage, field, ""))
        record = msgspec.json.encode(usage).decode()
        shown = (value if values is None else values[n])[:200]
        held.append(
            Held(usage.line, reason, field, value[:255], detail.format(value=shown), record=record)
        )
    return held
