"""What the lane asks of others: a store for batches, and a directory of parties."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import date
from typing import Protocol

from tollkeeper.core.batch import Batch, Known
from tollkeeper.core.records import Limits, Wallet
from tollkeeper.core.terms import Meter


class Unit(Protocol):
    """Wallets and meters under lock, in a transaction that takes one batch."""

    wallets: dict[int, Wallet]
    meters: dict[int, Meter]

    async def apply(self, batch: Batch) -> None:
        """Write the batch in this transaction."""


class ChargingStore(Protocol):
    """What the lane needs of a store; PostgreSQL's is ``store.charging``."""

    async def load(
        self, keys: Iterable[str], since: date, *, everywhere: Iterable[str] = ()
    ) -> dict[str, Known]:
        """Read sessions with their messages by key: live, or opened since; ``everywhere``: of any age."""

    async def wallets(self, ids: Sequence[int]) -> dict[int, Wallet]:
        """Read wallets."""

    async def meters(self, ids: Sequence[int]) -> dict[int, Meter]:
        """Read meters."""

    def encode(self, batch: Batch) -> None:
        """Prepare what ``apply`` will send, while the batch before is still under way."""

    async def apply(self, batch: Batch) -> None:
        """Write a batch, all or nothing; raises StaleRead or StoreAway."""

    def locked(
        self, wallet_ids: Sequence[int], meter_ids: Sequence[int] = ()
    ) -> AbstractAsyncContextManager[Unit]:
        """Lock wallets, then meters, in a transaction; each in the order given, which is that of their ids."""

    async def close(self) -> None:
        """Drop the connection."""


class Book(Protocol):
    """What the lane asks of the directory of parties, at once and without waiting."""

    def limits_of(self, party_id: int) -> Limits:
        """Return the party's limits as they are now."""

    def wallets_of(self, party_id: int) -> tuple[int, ...]:
        """Return the ids of the party's wallets."""

    def hears_ended(self, party_id: int) -> bool:
        """Tell whether somebody listens to the ends of the party's calls."""
