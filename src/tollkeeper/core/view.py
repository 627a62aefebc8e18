"""What a decision may look at."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from tollkeeper.core.records import Limits, Policy, Wallet
from tollkeeper.core.terms import Meter

NO_LIMITS = Limits()


class View(msgspec.Struct, frozen=True):
    """The wallets and meters of all parties concerned, their limits, and timers."""

    wallets: Mapping[int, Wallet]
    limits: Mapping[int, Limits]
    policy: Policy
    meters: Mapping[int, Meter] = {}

    def limits_of(self, party_id: int) -> Limits:
        """A party's limits; none where nothing is said."""
        return self.limits.get(party_id, NO_LIMITS)
