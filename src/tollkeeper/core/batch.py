"""What a batch of decisions reads and writes: the language between the lane and a store."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

import msgspec

from tollkeeper.core.money import EXACT
from tollkeeper.core.records import Decision, Ending, Reply, Session, State, Wallet
from tollkeeper.core.terms import Count, Meter, Terms


class Change(StrEnum):
    """What a decision does to the stored session."""

    OPEN = "open"
    UPDATE = "update"
    CLOSE = "close"
    REFUSE = "refuse"
    EVENT = "event"
    LATE = "late"


class Written(msgspec.Struct, frozen=True, gc=False):
    """One decision to be stored, with the message that caused it.

    ``digest`` is a hash of the message's content: the same ``message_id`` with another digest is
    an error, never applied. ``request`` is the message as JSON.
    """

    change: Change
    decision: Decision
    message_id: str
    digest: str
    request: bytes


class Batch(msgspec.Struct, frozen=True):
    """Decisions that are written together or not at all.

    ``before`` are the wallets they were made on (by id), ``after`` the same wallets with all
    decisions applied; ``guarded`` names those that took new holds. The same of the meters.
    """

    now: datetime
    written: list[Written]
    before: dict[int, Wallet]
    after: dict[int, Wallet]
    guarded: set[int]
    meters_before: dict[int, Meter] = {}
    meters_after: dict[int, Meter] = {}
    meters_guarded: set[int] = set()


def meters_of(terms: Terms) -> tuple[int, ...]:
    """Every meter that a leg with these terms looks at or counts on."""
    tier = () if terms.tier is None else (terms.tier.meter_id,)
    if not (terms.packages or terms.spend):
        return tier
    packages = [package.meter_id for package in terms.packages]
    return (*packages, *tier, *[spend.meter_id for spend in terms.spend])


def tally(meter: Meter, count: Count) -> Meter:
    """Return the meter as it will be after the change."""
    return Meter(
        meter.id, meter.party_id, meter.used + count.used, meter.held + count.held,
        EXACT.add(meter.base, count.base), meter.cap, meter.stamp,
    )  # fmt: skip


def change_of(before: Session | None, decision: Decision) -> Change:
    """What a decision does to the stored session that it was made on."""
    after = decision.session
    if before is None:
        if after.ending is Ending.REFUSED:
            return Change.REFUSE
        return Change.EVENT if after.state is State.CLOSED else Change.OPEN
    if before.state is State.CLOSED:
        return Change.LATE
    return Change.CLOSE if after.state is State.CLOSED else Change.UPDATE


class Answered(msgspec.Struct, frozen=True, gc=False):
    """A message that was applied, and what it was answered."""

    digest: str
    reply: Reply


class Known(msgspec.Struct):
    """A session as stored, with every message that was ever applied to it."""

    session: Session
    messages: dict[str, Answered]


class StaleRead(Exception):
    """What the decisions were based on has changed; nothing was written; decide again."""


class GuardRefused(StaleRead):
    """The last guard found holds beyond a wallet's money or a meter's cap; nothing was written."""


class StoreAway(Exception):
    """The database cannot be reached or does not answer in time; whether the batch was written is unknown."""
