"""What trees, volume tiers and messages cost: each beside plain calls of one party, in the same run.

One round measures all of them one after the other, and there are some rounds, so that a machine that
is busy with something else for a while is so for all of them.
"""

from __future__ import annotations

import asyncio
import itertools
import statistics
import time
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal

from tollkeeper.cli.bench.engine import Calls, Measured, closed_loop, measure
from tollkeeper.core.records import Outcome
from tollkeeper.services.charging import Charging
from tollkeeper.services.parties import create_party
from tollkeeper.services.plan_terms import set_terms
from tollkeeper.services.plans import create_plan
from tollkeeper.services.rate_cards import create_card
from tollkeeper.services.rates import activate, import_sheet
from tollkeeper.services.wallets import create_wallet, top_up
from tollkeeper.settings import Settings
from tollkeeper.store.db import Database
from tollkeeper.store.parties import Party, PlanCard
from tollkeeper.store.plans import PlanTerms, StepTerms, TierTerms
from tollkeeper.wiring import new_id, open_runtime

SINGLE, LEAF, TIERED, TEXTER = "single", "leaf", "tiered", "texter"
MONEY = Decimal(1_000_000)
CLIENTS = 256
ROUNDS = 3
STEPS = ((0, "0.010"), (1_000, "0.009"), (5_000, "0.008"), (50_000, "0.007"))
"""Minutes of the month, and the price of one: some are crossed while it is measured."""

Note = Callable[[str, Measured], None]


async def furnish(url: str) -> None:
    """A three-level tree, a party with volume tiers and one that sends messages, all funded.

    Expects the card and the plan ``bench``.
    """
    database = Database(url)
    await database.open()
    await _sms_plan(database)
    await create_plan(
        database, code="bench-tiers", name="Tiers", cards=[PlanCard(card="bench")], actor="bench"
    )
    steps = tuple(StepTerms(start, Decimal(price)) for start, price in STEPS)
    terms = PlanTerms(tiers=(TierTerms("volume", steps),))
    await set_terms(database, "bench-tiers", terms, actor="bench")
    for code, kind, parent, plan in (
        (SINGLE, "customer", None, "bench"),
        ("top", "reseller", None, "bench"),
        ("middle", "reseller", "top", "bench"),
        (LEAF, "customer", "middle", "bench"),
        (TIERED, "customer", None, "bench-tiers"),
        (TEXTER, "customer", None, "bench-sms"),
    ):
        party = Party(code, code.title(), kind=kind, parent=parent, plan=plan)
        await create_party(database, party, actor="bench")
        await create_wallet(database, party=code, currency="USD", actor="bench")
        await top_up(
            database,
            party=code,
            currency="USD",
            amount=MONEY,
            reason="bench",
            actor="bench",
            clock=lambda: datetime.now(UTC),
        )
    await database.close()


async def _sms_plan(database: Database) -> None:
    await create_card(
        database, code="bench-sms", currency="USD", service="sms", name="SMS", actor="bench"
    )
    now = datetime.now(UTC)
    report = await import_sheet(
        database,
        card="bench-sms",
        data=b"Prefix,Destination,Rate\n44,United Kingdom,0.035\n447,United Kingdom Mobile,0.0321\n",
        actor="bench",
        now=now,
        file_name="sms.csv",
    )
    assert report.version is not None
    await activate(database, card="bench-sms", version=report.version, actor="bench", now=now)
    await create_plan(
        database, code="bench-sms", name="SMS", cards=[PlanCard(card="bench-sms")], actor="bench"
    )


async def world(url: str, settings: Settings, seconds: float, note: Note) -> dict[str, float]:
    """Measure all of it on a furnished database; returns the figures that are promised."""
    runs: dict[str, list[Measured]] = {SINGLE: [], LEAF: [], TIERED: [], TEXTER: []}
    for turn in range(ROUNDS):
        for party, measured in runs.items():
            async with open_runtime(url, settings) as runtime:
                if party == TEXTER:
                    result = await _messages(runtime.charging, seconds)
                else:
                    name = f"{party}{turn}-{new_id()}"
                    calls = Calls(runtime.charging, 1, name, party=party)
                    result = await closed_loop(calls, CLIENTS, seconds)
            measured.append(result)
    middle = {party: _median(measured) for party, measured in runs.items()}
    for party, name in (
        (SINGLE, "world_single"),
        (LEAF, "world_tree3"),
        (TIERED, "world_tier"),
        (TEXTER, "world_sms"),
    ):
        note(name, middle[party])
    single = middle[SINGLE].per_second
    return {
        "tree3_vs_single": middle[LEAF].per_second / single,
        "tier_overhead": 1 - middle[TIERED].per_second / single,
        "sms_events_per_s": middle[TEXTER].per_second,
    }


def _median(runs: list[Measured]) -> Measured:
    middle = statistics.median_high([run.per_second for run in runs])
    return next(run for run in runs if run.per_second == middle)


async def _messages(charging: Charging, seconds: float) -> Measured:
    """Messages on one wallet, each an event of its own: charged, durable, answered."""
    count, run = itertools.count(), new_id()
    latencies: list[float] = []

    async def client(until: float) -> None:
        while (began := time.perf_counter()) < until:
            reply, _ = await charging.charge_event(
                switch="bench",
                event_id=f"{run}-{next(count)}",
                party=TEXTER,
                called="447700900123",
                segments=1,
            )
            if reply.outcome is not Outcome.CHARGED:
                raise RuntimeError(f"the benchmark's message was refused: {reply.reason}")
            latencies.append(time.perf_counter() - began)

    await asyncio.gather(*(client(time.perf_counter() + 1) for _ in range(CLIENTS)))
    latencies.clear()
    began = time.perf_counter()
    await asyncio.gather(*(client(began + seconds) for _ in range(CLIENTS)))
    return measure(latencies, time.perf_counter() - began)
