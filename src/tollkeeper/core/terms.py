"""What decides a leg's price beside its tariff: packages, volume tiers, spend caps, new rates.

The running counts behind them are meters. They are read and written with the wallets, in the same
batch and under the same guard, so that calls at the same time share what is left and never more.
"""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal

import msgspec

from tollkeeper.core.money import ZERO
from tollkeeper.core.rating import Tariff


class Meter(msgspec.Struct, frozen=True, gc=False):
    """A running count of a party for one period; ``stamp`` changes with every change of the row.

    ``used`` is settled, ``held`` set aside for what is up; ``cap`` bounds used + held (None: no
    bound). Units are those of what is counted: seconds, messages, bytes, money of the wallet's
    currency, or calls. ``base`` is sixty times the money at list prices behind ``used``: in
    sixtieths the sum of prices per minute is exact, in whatever order calls are added.
    """

    id: int
    party_id: int
    used: Decimal = ZERO
    held: Decimal = ZERO
    base: Decimal = ZERO
    cap: Decimal | None = None
    stamp: int = 0

    @property
    def left(self) -> Decimal | None:
        """What may still be held; None without a cap."""
        return None if self.cap is None else self.cap - self.used - self.held


class TierStep(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """From ``start`` units of the period on: a price in place of the row's, or a percent of it.

    ``price`` is per the tariff's ``per`` and replaces first and next price, ``percent`` scales both;
    exactly one of the two is set. A surcharge comes on top of either.
    """

    start: int
    price: Decimal | None = None
    percent: Decimal | None = None


class Tier(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """Prices that follow the volume of a period.

    Marginal: each unit costs what its place in the volume says. Retroactive: all units of the
    period cost what the volume reached says; whoever crosses a step is given back the difference
    for what came before. The first step begins at 0.
    """

    meter_id: int
    code: str
    steps: tuple[TierStep, ...]
    retroactive: bool = False


class Package(msgspec.Struct, frozen=True, gc=False):
    """Units paid for in advance: used before anything is charged, in the order of the tuple."""

    meter_id: int
    code: str


class Spend(msgspec.Struct, frozen=True, gc=False):
    """A period's spending, counted and (where the meter has a cap) bounded."""

    meter_id: int
    code: str


class Later(msgspec.Struct, frozen=True, gc=False):
    """The price from a moment on, for parties whose calls are split at a change of rate.

    Intervals and fees stay those of the beginning; only prices change, for intervals that begin
    at or after ``at`` (UTC). ``label`` names the rate for people.
    """

    at: datetime
    tariff: Tariff
    label: str


class Terms(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """All of it for one leg, frozen at authorisation."""

    packages: tuple[Package, ...] = ()
    tier: Tier | None = None
    spend: tuple[Spend, ...] = ()
    later: tuple[Later, ...] = ()


class Part(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """Some billed units of a leg at one price: what a charge with terms is made of.

    ``units`` at ``price`` per the tariff's ``per``, plus ``extra`` money (a retroactive rebate:
    negative). ``meter_id`` and ``at`` say which meter the units were counted on and what stood
    there before. Negative units take back what was charged. ``kind``: rate, package, tier, later,
    rebate. ``base`` is sixty times the money at list prices that a tier's units add to its meter,
    and of a rebate sixty times the ``extra``, exact where that has been cut.
    """

    kind: str
    units: int
    price: Decimal = ZERO
    extra: Decimal = ZERO
    meter_id: int = 0
    at: Decimal = ZERO
    base: Decimal = ZERO


class Reserve(msgspec.Struct, frozen=True, gc=False):
    """Units of a package that an open leg has set aside."""

    meter_id: int
    units: int


class Count(msgspec.Struct, frozen=True, gc=False):
    """A change of a meter by a decision; ``guarded`` changes must not pass its cap."""

    meter_id: int
    used: Decimal = ZERO
    held: Decimal = ZERO
    base: Decimal = ZERO
    guarded: bool = False
