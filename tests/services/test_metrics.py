"""What the charging core tells Prometheus: the lane's counts and the refusals by reason."""

from __future__ import annotations

import asyncio
from decimal import Decimal

import pytest

from tests.services.test_lane_corners import Bench, authorise, play
from tests.support import BLOCKED, UK_FIXED, World, runtime, settings
from tollkeeper.core.records import Outcome, Stop
from tollkeeper.errors import Busy
from tollkeeper.telemetry import REGISTRY

COUNTS = (
    "lane_batches_total",
    "lane_operations_total",
    "lane_stale_batches_total",
    "lane_shed_total",
    "lane_replays_total",
    "lane_batch_size_count",
    "lane_batch_size_sum",
    "lane_commit_seconds_count",
)


def value(name: str, **labels: str) -> int:
    """A metric as it stands; 0 where it was never touched."""
    return int(REGISTRY.get_sample_value(f"tollkeeper_{name}", labels) or 0)


def counts() -> dict[str, int]:
    return {name: value(name) for name in COUNTS}


def test_the_counts_of_every_lane_arrive_once() -> None:
    """Two lanes that get into each other's way, and a message that comes three times."""
    before, benches = counts(), []

    async def scene(bench: Bench) -> None:
        benches.append(bench)
        for node in (0, 1):
            await bench.send(authorise(f"n{node}", seconds=1), lane=node)
        for _ in range(3):
            await bench.send(authorise("a", seconds=60))
        # Longer than the sweep that hands the counts on takes to come round, several times.
        await asyncio.sleep(5)
        await bench.send(Stop("s/a", 60_000), lane=1)
        assert bench.books.wallets[1].debited == Decimal("0.60")

    play(scene)
    lanes = benches[0].lanes
    grown = {name: now - before[name] for name, now in counts().items()}
    stale = sum(lane.stale_batches for lane in lanes)
    assert stale > 0
    assert grown["lane_stale_batches_total"] == stale
    assert grown["lane_replays_total"] == sum(lane.replays for lane in lanes) == 2
    assert grown["lane_operations_total"] == grown["lane_batch_size_sum"] == 4
    assert grown["lane_batches_total"] == grown["lane_batch_size_count"]
    assert grown["lane_commit_seconds_count"] == 4
    assert value("lane_waiting") == 0


async def test_a_request_that_finds_the_lane_full_is_counted_as_shed(database_url: str) -> None:
    before = value("lane_shed_total")
    with World(database_url) as world:
        world.customer()
        async with runtime(database_url, settings=settings(lane_queue_max=1)) as parts:
            answers = await asyncio.gather(
                *(
                    parts.charging.authorise(
                        switch="sw1", session_id=f"s{n}", party="acme", called=UK_FIXED
                    )
                    for n in range(3)
                ),
                return_exceptions=True,
            )
    assert sum(isinstance(answer, Busy) for answer in answers) == 2
    assert value("lane_shed_total") - before == 2


@pytest.mark.parametrize(
    ("called", "reason"), [(BLOCKED, "destination_blocked"), ("9991234567", "no_rate")]
)
async def test_a_refusal_is_counted_by_its_reason_and_its_repeats_are_not(
    database_url: str, called: str, reason: str
) -> None:
    before = value("refusals_total", reason=reason)
    with World(database_url) as world:
        world.customer()
        async with runtime(database_url) as parts:
            for _ in range(3):
                reply, _ = await parts.charging.authorise(
                    switch="sw1", session_id="s1", party="acme", called=called
                )
                assert (reply.outcome, reply.reason) == (Outcome.REFUSED, reason)
            await parts.charging.authorise(
                switch="sw1", session_id="s2", party="acme", called=UK_FIXED
            )
    assert value("refusals_total", reason=reason) - before == 1
    assert value("refusals_total", reason="") == 0
