"""What one seed means: how bad the network is, how often things break, what calls are like."""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal

from tollkeeper.core.money import Rounding
from tollkeeper.core.rating import Tariff
from tollkeeper.core.records import SilentTail

D = Decimal
EPOCH = datetime(2026, 3, 1, 23, 50, tzinfo=UTC)
"""Ten minutes before midnight: most runs cross it."""

TIERED = Tariff(D("0.60"), D("0.60"), 1, 1)
"""What legs with terms are priced by: no fees and no rounding, so that sums can be told beforehand."""
TIER_STEPS = ((0, D("0.60")), (120, D("0.36")), (500, D("0.12")))
"""(from so many seconds on, price a minute): each is a whole number of 10^-3 a second."""
MESSAGE = Tariff(D("0.02"), D("0.02"), 1, 1, connect_fee=D("0.005"), per=1)
"""What a message costs at every level."""

TARIFFS = (
    Tariff(D("0.60"), D("0.60"), 1, 1),
    Tariff(D("0.60"), D("0.60"), 60, 60),
    Tariff(D("0.0065"), D("0.0123"), 30, 6, decimals=4, rounding=Rounding.UP),
    Tariff(D("1.20"), D("0.30"), 10, 60, connect_fee=D("0.05"), attempt_fee=D("0.001")),
    Tariff(D("0.50"), D("0.50"), 6, 6, minimum=D("0.10"), free_below=6, decimals=2),
    Tariff(D("5"), D("5"), 60, 1, cap=D("6"), surcharge=D("0.1")),
    Tariff(D(0), D(0), 1, 1),
)


@dataclass(frozen=True)
class Plan:
    """The odds of one run; all times are seconds, all chances from 0 to 1."""

    seed: int
    safety_seconds: float
    calls: int
    lost: float
    doubled: float
    slow: float
    delay: float
    slow_delay: float
    store_delay: float
    store_away: float
    outage_every: float
    crash_every: float
    reboot_every: float
    operator_every: float
    switches: int
    customers: int
    silent_tail: SilentTail
    optimistic: bool
    batch_max: int
    queue_max: int
    money: Decimal
    tier: bool
    package_units: int
    spend_cap: Decimal | None
    calls_most: int | None
    message_share: float


def plan(seed: int) -> Plan:
    """Draw the odds of a seed: some runs are calm, some are awful."""
    chance = random.Random(seed)
    bad = chance.choice([0.0, 0.3, 1.0])
    return Plan(
        seed=seed,
        safety_seconds=chance.choice([300.0, 600.0, 1200.0]),
        calls=chance.randint(20, 120),
        lost=bad * chance.uniform(0, 0.3),
        doubled=bad * chance.uniform(0, 0.4),
        slow=bad * chance.uniform(0, 0.2),
        delay=chance.choice([0.001, 0.02, 0.2]),
        slow_delay=chance.choice([5.0, 60.0, 300.0]),
        store_delay=chance.choice([0.0005, 0.005, 0.1]),
        store_away=bad * chance.choice([0.0, 0.01, 0.1]),
        outage_every=chance.choice([60.0, 200.0, 1e9]),
        crash_every=chance.choice([20.0, 100.0, 1e9]),
        reboot_every=chance.choice([200.0, 1e9]),
        operator_every=chance.choice([5.0, 30.0]),
        switches=chance.randint(1, 4),
        customers=chance.randint(1, 3),
        silent_tail=chance.choice(list(SilentTail)),
        optimistic=chance.random() < 0.8,
        batch_max=chance.choice([1, 4, 512]),
        queue_max=chance.choice([8, 4096]),
        money=D(chance.choice([2, 20, 200])),
        tier=chance.random() < 0.6,
        package_units=chance.choice([0, 0, 200, 2000]),
        spend_cap=chance.choice([None, None, D(3), D(30)]),
        calls_most=chance.choice([None, 2, 6]),
        message_share=chance.choice([0.0, 0.2]),
    )
