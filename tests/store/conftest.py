"""The two stores of the lane, one after the other."""

from __future__ import annotations

from collections.abc import AsyncIterator
from decimal import Decimal

import pytest

from tests.store.charging_backends import Backend, MemoryBackend, PostgresBackend


@pytest.fixture(params=["memory", "postgres"])
async def backend(request: pytest.FixtureRequest) -> AsyncIterator[Backend]:
    """A store with two wallets: 10.00 in the first, nothing in the second."""
    made: MemoryBackend | PostgresBackend
    if request.param == "memory":
        made = MemoryBackend()
    else:
        made = PostgresBackend(request.getfixturevalue("database_url"))
    made.add_wallet(1, Decimal(10))
    made.add_wallet(2, Decimal(0))
    yield made
    if isinstance(made, PostgresBackend):
        await made.close()
