"""The baseline: the same calls as ordinary transactions, one per operation, over a connection pool."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable
from datetime import datetime

from tollkeeper.cli.bench.engine import Measured
from tollkeeper.core.batch import StoreAway
from tollkeeper.core.rating import price
from tollkeeper.core.records import Authorise, Offer, Policy, Wallet
from tollkeeper.core.session import View, decide
from tollkeeper.store.bench import baseline_close, baseline_open
from tollkeeper.store.db import Database


async def baseline(
    database: Database,
    offers: list[Offer],
    *,
    clock: Callable[[], datetime],
    new_id: Callable[[], str],
    clients: int,
    seconds: float,
    run: str,
) -> Measured:
    """``clients`` callers whose every operation is one transaction on the locked wallet row."""
    count = itertools.count()
    latencies: list[float] = []

    async def call() -> None:
        number = next(count)
        offer = offers[number % len(offers)]
        command = Authorise(
            key=f"bench/{run}-{number}",
            party_id=offer.party_id,
            called="447700900123",
            offers=(offer,),
        )
        # The wallet's row is locked and checked in the transaction; the core only sizes the hold.
        wallet = Wallet(
            offer.wallet_id,
            offer.party_id,
            offer.pin.currency,
            credited=price(offer.pin.tariff, 10_000),
        )
        decision = decide(None, command, View({wallet.id: wallet}, {}, Policy()), clock(), new_id())
        began = time.perf_counter()
        async with database.read() as connection:
            if not await baseline_open(connection, decision.session):
                raise StoreAway("the baseline's wallet is empty")
        middle = time.perf_counter()
        async with database.read() as connection:
            await baseline_close(connection, command.key, price(offer.pin.tariff, 42))
        latencies.extend((middle - began, time.perf_counter() - middle))

    async def client(until: float) -> None:
        while time.perf_counter() < until:
            await call()

    began = time.perf_counter()
    await asyncio.gather(*(client(began + seconds) for _ in range(clients)))
    elapsed = time.perf_counter() - began
    latencies.sort()
    return Measured(
        len(latencies),
        elapsed,
        latencies[len(latencies) // 2] * 1000,
        latencies[int(len(latencies) * 0.99)] * 1000,
    )
