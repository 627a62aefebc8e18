"""The guarantee of meters (I24), and that of transfers: as ``core.audit`` has the others.

A meter is added up from the sessions that name it: what their legs hold and were charged, the units
that they have reserved, and the parts that their charges are made of.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal

from tollkeeper.core.findings import Finding
from tollkeeper.core.money import EXACT, ZERO
from tollkeeper.core.pieces import REBATE
from tollkeeper.core.records import Leg, Session
from tollkeeper.core.terms import Meter


@dataclass(frozen=True, slots=True)
class MeterLine:
    """A meter as it stands; ``whole``: every session that was ever counted on it can be looked at.

    Where sessions have left the database, what they used cannot be added up any more; what is held
    always can, for it belongs to sessions that are open.
    """

    meter: Meter
    kind: str
    name: str
    whole: bool = True


@dataclass(slots=True)
class MeterSums:
    """What the sessions of one meter add up to."""

    used: Decimal = ZERO
    held: Decimal = ZERO
    base: Decimal = ZERO


class MeterTotals:
    """Adds up sessions by meter, one after the other."""

    def __init__(self) -> None:
        self._sums: dict[int, MeterSums] = {}

    def add(self, session: Session) -> None:
        """Take a session, open or closed."""
        for leg in session.legs:
            if leg.terms is not None:
                self._add_leg(leg)
        if session.open:
            for id_ in session.counts:
                self._of(id_).held += 1

    def _add_leg(self, leg: Leg) -> None:
        for reserve in leg.reserved:
            self._of(reserve.meter_id).held += reserve.units
        for part in leg.parts:
            # A rebate names the meter that it is for, and moves nothing on it.
            if part.meter_id and part.kind != REBATE:
                sums = self._of(part.meter_id)
                sums.used += part.units
                sums.base = EXACT.add(sums.base, part.base)
        for spend in leg.terms.spend if leg.terms is not None else ():
            sums = self._of(spend.meter_id)
            sums.held += leg.held
            sums.used += leg.charged

    def _of(self, meter_id: int) -> MeterSums:
        return self._sums.setdefault(meter_id, MeterSums())

    @property
    def sums(self) -> Mapping[int, MeterSums]:
        """What was added up, by meter."""
        return self._sums


def check_meters(lines: Iterable[MeterLine], sums: Mapping[int, MeterSums]) -> Iterator[Finding]:
    """A meter stands at what its sessions make it (I24)."""
    known = set()
    for line in lines:
        meter, own = line.meter, sums.get(line.meter.id, MeterSums())
        known.add(meter.id)
        subject = f"meter {meter.id} {line.name}"
        if meter.held != own.held:
            yield Finding("I24.held", subject, f"holds {meter.held}, its sessions {own.held}")
        if line.whole and meter.used != own.used:
            yield Finding("I24.used", subject, f"stands at {meter.used}, its parts make {own.used}")
        if line.whole and meter.base != own.base:
            yield Finding("I24.base", subject, f"stands at {meter.base}, its parts make {own.base}")
    for id_ in sorted(sums.keys() - known):
        yield Finding("I24.stray", f"meter {id_}", "sessions name it, yet there is no such meter")


def check_transfers(currency: str, balance: Decimal) -> Iterator[Finding]:
    """What left a wallet by a transfer has reached another one (I25); ``balance`` is of their account."""
    if balance != 0:
        yield Finding("I25.transfer", currency, f"{balance} are on their way for ever")
