"""Matching records with the sessions that were charged live: a call is charged once.

A session and a record are of the same call when the switch, and the id that it gave the call, are
the same, and their days are next to each other at most (a switch may use an id again later).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Literal

import numpy as np
import numpy.typing as npt
import polars as pl

from tollkeeper.bulk.keys import session_keys
from tollkeeper.bulk.keyset import Keys, KeySet
from tollkeeper.core.money import ZERO, plain
from tollkeeper.core.rating import price, seconds_of
from tollkeeper.core.records import Ending, Leg, Role, Session, Unit
from tollkeeper.core.usage import Mismatch
from tollkeeper.services.cdr.records import Ints, Mediated, Noted, Notes
from tollkeeper.services.cdr.reference import day_of, microseconds

Difference = Literal["report", "correct"]
Hashes = npt.NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class MatchPolicy:
    """``tolerance_ms``: durations that differ by no more are the same; ``on_difference``: else."""

    tolerance_ms: int = 2_000
    on_difference: Difference = "report"


@dataclass(slots=True)
class KnownSessions:
    """What is known of a switch's sessions: the hashes of their keys, closed and still open."""

    switch: str
    secret: bytes
    closed: KeySet = field(default_factory=KeySet)
    live: KeySet = field(default_factory=KeySet)

    def note_closed(self, keys: Sequence[str]) -> None:
        """Learn the keys (switch/id) of sessions that have closed."""
        if keys:
            self.closed.add(_wide(self._hashes(keys)))

    def note_live(self, keys: Sequence[str]) -> None:
        """Learn the keys of all sessions that are open now."""
        self.live = KeySet()
        if keys:
            self.live.add(_wide(self._hashes(keys)))

    def _hashes(self, keys: Sequence[str]) -> Hashes:
        ids = pl.Series([key.partition("/")[2] for key in keys], dtype=pl.String)
        return session_keys(self.switch, ids, self.secret)


@dataclass(frozen=True, slots=True)
class Matched:
    """The session that a row's call was charged by, and what its customer's leg should have cost.

    ``correction`` is (was, is): the charge that is to be taken back and the one to be made, where
    the policy says so.
    """

    session: Session
    leg: Leg | None
    correction: tuple[Decimal, Decimal] | None = None

    @property
    def parties(self) -> frozenset[int]:
        """Who was charged live."""
        return frozenset(leg.party_id for leg in self.session.legs)


def candidates(hashes: Hashes, known: KeySet) -> Ints:
    """The rows whose session key is among the known ones, by its hash."""
    if not known.size:
        return np.zeros(0, dtype=np.int64)
    return np.flatnonzero(known.contains(_wide(hashes)))


def _wide(hashes: Hashes) -> Keys:
    """Hashes as a set of keys holds them; the second half is never 0, which would be no key."""
    return np.stack((hashes, np.ones_like(hashes)), axis=1)


def compare(
    mediated: Mediated,
    rows: Ints,
    sessions: Mapping[str, Sequence[Session]],
    *,
    switch: str,
    policy: MatchPolicy,
    notes: Notes,
) -> dict[int, Matched]:
    """Match these rows with closed sessions by key, and report where the two disagree."""
    picked = mediated.frame.select("call_id", "start", "duration_ms", "line")[rows]
    found: dict[int, Matched] = {}
    for n, (call_id, start, duration, line) in zip(rows.tolist(), picked.iter_rows(), strict=True):
        named = sessions.get(f"{switch}/{call_id}", ())
        session = next((one for one in named if is_same_call(one, start)), None)
        if session is None or session.ending is Ending.REFUSED or _was_never_heard_of(session):
            continue
        leg = next((one for one in session.legs if one.role is Role.CUSTOMER), None)
        used = max(session.used_ms, session.assumed_ms)
        correction = None
        if abs(used - duration) > policy.tolerance_ms:
            expected = charged = ZERO if leg is None else leg.charged
            known = leg is None or is_simple(session)
            if leg is not None and known:
                expected = price(leg.pin.tariff, seconds_of(duration))
            note = Noted(
                line=line,
                kind=Mismatch.DURATION_DIFFERS,
                day=day_of(start),
                call_id=call_id,
                customer_id=int(mediated.customer[n]),
                vendor_id=int(mediated.vendor[n]),
                expected=f"{used} ms, {plain(charged)}",
                found=f"{duration} ms, {plain(expected) if known else 'to be worked out'}",
                detail=f"session {session.key}",
                session_id=session.id,
            )
            notes.add(note)
            if leg is not None and expected != charged and policy.on_difference == "correct":
                correction = (charged, expected)
        found[n] = Matched(session, leg, correction)
    return found


def is_simple(session: Session) -> bool:
    """Tell whether a session's charge follows from its duration alone.

    Not so where somebody above it was charged as well, or where tiers, packages or refunds count: what
    such a call would have cost otherwise is for a person to say, and no correction is made by itself.
    """
    return len(session.legs) == 1 and session.legs[0].terms is None and session.refunded_ms == 0


def _was_never_heard_of(session: Session) -> bool:
    """Tell whether a session expired without a word of its call: all that is known of it is the record.

    So end the calls of switches that are only told whether a call may proceed (a SIP redirect).
    """
    used = session.used_ms or session.assumed_ms
    return session.ending is Ending.EXPIRED and session.answered_at is None and not used


def is_same_call(session: Session, start_us: int) -> bool:
    """Tell whether a session and a record with its id can be of one call: their days are close."""
    if session.unit is not Unit.SECOND:
        return False
    return abs(day_of(microseconds(session.opened_at)) - day_of(start_us)) <= 1
