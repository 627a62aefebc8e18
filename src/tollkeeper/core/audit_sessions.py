"""The guarantees of one session: its times, its grant and holds, its charge and its entries.

They belong to ``core.audit``, by which they are found.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal

from tollkeeper.core.findings import Finding
from tollkeeper.core.holds import at_least
from tollkeeper.core.money import ZERO
from tollkeeper.core.parts import charge_of
from tollkeeper.core.pieces import billed_units
from tollkeeper.core.rating import price, seconds_of
from tollkeeper.core.reasons import Reason
from tollkeeper.core.records import Ending, Leg, Session, State


@dataclass(frozen=True, slots=True)
class LegSums:
    """The entries of one leg of a session, added up by code; and how many settled its hold."""

    usage: Decimal = ZERO
    overrun: Decimal = ZERO
    late: Decimal = ZERO
    correction: Decimal = ZERO
    usage_entries: int = 0
    overrun_entries: int = 0
    rebate: Decimal = ZERO
    refund: Decimal = ZERO

    @property
    def total(self) -> Decimal:
        """What the leg was charged altogether."""
        given_back = self.correction + self.rebate + self.refund
        return self.usage + self.overrun + self.late - given_back


NOTHING = LegSums()


def check_open(session: Session, now: datetime, patience: timedelta) -> Iterator[Finding]:
    """A session that is not closed (I9, I11, I12, I17).

    ``patience`` is how long after its end a session may wait for the job that closes it.
    """
    subject = f"session {session.key}"
    yield from _check_times(session, subject)
    if session.state is State.CLOSED or session.ending is not Ending.NONE:
        yield Finding("I8.ended", subject, f"live, yet {session.state} {session.ending}")
    if not session.legs or session.granted_seconds <= 0:
        yield Finding("I11.nothing", subject, "open without a leg or without a grant")
    if session.granted_seconds > session.max_seconds:
        yield Finding("I9.longest", subject, f"{session.granted_seconds} s granted")
    for number, leg in enumerate(session.legs):
        if leg.terms is None:
            cost = price(leg.pin.tariff, session.granted_seconds)
        else:
            cost = at_least(leg, session.granted_seconds)
        if leg.held < cost:
            code = "I9.grant" if leg.held else "I11.hold"
            detail = f"leg {number} holds {leg.held}, {session.granted_seconds} s cost {cost}"
            yield Finding(code, subject, detail)
        if leg.charged:
            yield Finding("I15.early", subject, f"leg {number} is charged while open")
    if now > session.expires_at + patience:
        yield Finding("I12.overdue", subject, f"ended at {session.expires_at.isoformat()}")


def check_closed(session: Session, sums: Mapping[tuple[int, int], LegSums]) -> Iterator[Finding]:
    """A closed session against its entries (I8, I10, I15, I19).

    ``sums`` are its entries by leg and wallet.
    """
    subject = f"session {session.key}"
    yield from _check_times(session, subject)
    if session.state is not State.CLOSED or session.ending is Ending.NONE:
        yield Finding("I8.open", subject, f"closed, yet {session.state} {session.ending}")
    refused = session.ending is Ending.REFUSED
    if refused and (session.reason is Reason.NONE or sums or session.granted_seconds):
        yield Finding("I10.refused", subject, f"refused, yet {len(sums)} legs with entries")
    if session.assumed_ms and session.ending is not Ending.EXPIRED:
        yield Finding("I15.assumed", subject, f"{session.assumed_ms} ms assumed")
    known = {(number, leg.wallet_id) for number, leg in enumerate(session.legs)}
    for stray in sorted(set(sums) - known):
        yield Finding("I19.stray", subject, f"entries of leg {stray[0]} on wallet {stray[1]}")
    highest = max(session.used_ms, session.assumed_ms)
    if not 0 <= session.refunded_ms <= highest:
        yield Finding("I15.refund", subject, f"{session.refunded_ms} of {highest} ms given back")
    used = seconds_of(highest - session.refunded_ms)
    given_back = session.refunded_ms > 0 and session.refunded_ms == highest
    for number, leg in enumerate(session.legs):
        own = sums.get((number, leg.wallet_id), NOTHING)
        place = f"{subject} leg {number}"
        if refused:
            charge = hold = ZERO
        elif leg.terms is None:
            charge = ZERO if given_back else price(leg.pin.tariff, used)
            hold = price(leg.pin.tariff, session.granted_seconds)
        else:
            charge = charge_of(leg, leg.parts, used, given_back=given_back)
            hold = leg.taken
            yield from _check_parts(place, leg, used)
        yield from _check_leg(place, leg, own, charge, hold)


def _check_parts(subject: str, leg: Leg, used: int) -> Iterator[Finding]:
    """The parts of a leg are all that was billed, and nothing is set aside any more."""
    billed, units = billed_units(leg, used), sum(part.units for part in leg.parts)
    if units != billed:
        yield Finding("I19.parts", subject, f"parts of {units} units, billed are {billed}")
    if leg.reserved:
        yield Finding("I8.reserved", subject, f"closed, yet {len(leg.reserved)} packages are held")


def _check_leg(
    subject: str, leg: Leg, own: LegSums, charge: Decimal, hold: Decimal
) -> Iterator[Finding]:
    if leg.held:
        yield Finding("I8.held", subject, f"closed, yet {leg.held} is held")
    if own.usage_entries > 1 or own.overrun_entries > 1:
        settled = max(own.usage_entries, own.overrun_entries)
        yield Finding("I8.settled", subject, f"settled {settled} times")
    if own.usage > hold or (own.overrun and own.usage != hold):
        detail = f"held {hold}, settled {own.usage} and overrun {own.overrun}"
        yield Finding("I8.parts", subject, detail)
    if leg.charged != charge:
        yield Finding("I15.charge", subject, f"charged {leg.charged}, the rate gives {charge}")
    if own.total != leg.charged:
        yield Finding("I19.entries", subject, f"charged {leg.charged}, entries make {own.total}")


def _check_times(session: Session, subject: str) -> Iterator[Finding]:
    times = [session.opened_at, session.expires_at, session.answered_at, session.closed_at]
    if any(t is not None and t.utcoffset() != timedelta(0) for t in times):
        yield Finding("I17.zone", subject, "a time is not UTC")
    if (session.closed_at is None) != (session.state is not State.CLOSED):
        yield Finding("I17.closed_at", subject, f"{session.state}, closed at {session.closed_at}")
