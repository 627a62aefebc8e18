"""From a part that was read to a part that can be written: everything but the database.

The order decides what a record counts as: first those that are known from earlier (duplicates),
then what mediation and pricing put aside (quarantine), then repeats within the part, of which the
first line stays.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import polars as pl

from tollkeeper.bulk.keys import pack, record_keys, session_keys
from tollkeeper.bulk.keyset import Keys, KeySet
from tollkeeper.core.records import Session
from tollkeeper.core.usage import Quarantine, Refused
from tollkeeper.services.cdr.assemble import DAY_US, Assembled, assemble
from tollkeeper.services.cdr.legs import judge, note_margins, price_legs, settle_missing
from tollkeeper.services.cdr.match import (
    Hashes,
    KnownSessions,
    Matched,
    MatchPolicy,
    candidates,
    compare,
)
from tollkeeper.services.cdr.mediate import MediationPolicy, mediate
from tollkeeper.services.cdr.records import Held, Ints, Mediated, Notes, hold
from tollkeeper.services.cdr.reference import Reference

ROW = "row"
"""A column beside those of PARSED: where a row stood before some were put aside."""


@dataclass(frozen=True, slots=True)
class LoadPolicy:
    """How records are judged."""

    mediation: MediationPolicy = field(default_factory=MediationPolicy)
    match: MatchPolicy = field(default_factory=MatchPolicy)


@dataclass(slots=True)
class Prepared:
    """A part as it will be written: ``assembled`` is None where nothing of it goes into the books.

    ``keys`` are by day the packed keys of the records, and the packed session keys of those whose
    customer's leg was priced here.
    """

    assembled: Assembled | None
    held: list[Held]
    notes: Notes
    keys: dict[int, tuple[bytes, bytes]]
    rated: int
    matched: int
    duplicate: int

    @property
    def records(self) -> int:
        """All records of the part; each is counted once."""
        return self.rated + self.matched + self.duplicate + len(self.held)

    @property
    def reasons(self) -> Counter[Quarantine]:
        """How many records were put aside for which reason."""
        return Counter(one.reason for one in self.held)


@dataclass(frozen=True, slots=True)
class Batchwise:
    """What the parts of a load share: the picture, the policy, what is known already."""

    switch: str
    reference: Reference
    policy: LoadPolicy
    known: KeySet
    sessions: KnownSessions
    threads: int = 1


def fresh_rows(frame: pl.DataFrame, work: Batchwise) -> tuple[pl.DataFrame, Keys, int]:
    """The rows that are not in the books, their keys, and how many are."""
    keys = record_keys(
        work.switch,
        frame["call_id"],
        frame["leg"],
        frame["start"].to_numpy(),
        work.reference.secret,
    )
    old = work.known.contains(keys)
    if not old.any():
        return frame, keys, 0
    return frame.filter(pl.Series(~old)), keys[~old], int(old.sum())


def session_candidates(frame: pl.DataFrame, work: Batchwise) -> list[str]:
    """Keys of the closed sessions that rows of the frame may belong to."""
    hashes = session_keys(work.switch, frame["call_id"], work.reference.secret)
    rows = candidates(hashes, work.sessions.closed)
    return [f"{work.switch}/{call_id}" for call_id in frame["call_id"].gather(rows).unique()]


def prepare(
    frame: pl.DataFrame,
    keys: Keys,
    *,
    duplicate: int,
    refused: list[Refused],
    found: Mapping[str, Sequence[Session]],
    work: Batchwise,
    now_us: int,
) -> Prepared:
    """Mediate, price, match and put together the fresh rows of a part.

    ``found`` are the sessions that :func:`session_candidates` named, as they are stored.
    """
    notes = Notes()
    held = [
        Held(one.line, Quarantine.MALFORMED, one.field, one.value, one.reason, raw=one.raw)
        for one in refused
    ]
    mediated, put_aside = mediate(
        frame.with_row_index(ROW),
        work.reference,
        now_us=now_us,
        policy=work.policy.mediation,
        notes=notes,
    )
    held += put_aside
    hashes = session_keys(work.switch, frame["call_id"], work.reference.secret)
    mediated, open_calls = _without_live(mediated, hashes, work)
    held += open_calls
    kept = mediated.frame[ROW].to_numpy()
    keys, hashes = keys[kept], hashes[kept]
    matched = _match(mediated, hashes, found, work, notes)
    legs = price_legs(mediated, work.reference, threads=work.threads)
    good, put_aside = judge(
        mediated, legs, work.reference, live={n: one.parties for n, one in matched.items()}
    )
    held += put_aside
    first = np.zeros(len(keys), dtype=np.bool_)
    first[good] = work.known.add(keys[good])
    duplicate += int(good.sum() - first.sum())
    mediated, legs, keys = mediated.take(first), legs.take(first), keys[first]
    hashes = hashes[first]
    matched = {
        place: matched[n] for place, n in enumerate(np.flatnonzero(first).tolist()) if n in matched
    }
    note_margins(mediated, legs, work.reference, notes)
    for leg in (legs.sell, legs.buy, *legs.above):
        settle_missing(leg)
    count = len(mediated.frame)
    return Prepared(
        assembled=assemble(mediated, legs, matched, work.reference) if count else None,
        held=sorted(held, key=lambda one: one.line),
        notes=notes,
        keys=_keys_by_day(mediated, keys, hashes, set(matched)) if count else {},
        rated=count - len(matched),
        matched=len(matched),
        duplicate=duplicate,
    )


def _without_live(
    mediated: Mediated, hashes: Hashes, work: Batchwise
) -> tuple[Mediated, list[Held]]:
    """Put aside the calls that are still being charged live; ``hashes`` are of all rows there were."""
    rows = candidates(hashes[mediated.frame[ROW].to_numpy()], work.sessions.live)
    if not len(rows):
        return mediated, []
    live = np.zeros(len(mediated.frame), dtype=np.bool_)
    live[rows] = True
    held = hold(
        mediated.frame, live, Quarantine.SESSION_OPEN, field="call_id",
        detail="call {value} is still being charged live; it is matched when its session has closed",
    )  # fmt: skip
    return mediated.take(~live), held


def _match(
    mediated: Mediated,
    hashes: Hashes,
    found: Mapping[str, Sequence[Session]],
    work: Batchwise,
    notes: Notes,
) -> dict[int, Matched]:
    if not found:
        return {}
    rows: Ints = candidates(hashes, work.sessions.closed)
    return compare(mediated, rows, found, switch=work.switch, policy=work.policy.match, notes=notes)


def _keys_by_day(
    mediated: Mediated, keys: Keys, hashes: Hashes, matched: set[int]
) -> dict[int, tuple[bytes, bytes]]:
    days = mediated.frame["start"].to_numpy() // DAY_US
    priced: npt.NDArray[np.bool_] = np.ones(len(keys), dtype=np.bool_)
    priced[list(matched)] = False
    found = {}
    for day in np.unique(days).tolist():
        ours = days == day
        found[day] = (pack(keys[ours]), np.sort(hashes[ours & priced]).astype("<u8").tobytes())
    return found
