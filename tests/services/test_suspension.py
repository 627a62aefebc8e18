"""Suspended, suspended with its calls, frozen: for a party and for all below it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.services.money_world import answered, call, hears, prove, stop
from tests.support import World, runtime, until
from tollkeeper.core.reasons import Reason
from tollkeeper.services.parties import change_party


@pytest.fixture
def world(database_url: str) -> Iterator[World]:
    """A reseller, north, that pays for its traffic > acme > acme-101; brook beside them."""
    with World(database_url) as made:
        north = made.reseller("north", balance="100")
        acme = made.customer("acme", parent=north, balance="100")
        made.user("acme-101", acme)
        made.customer("brook", balance="100")
        yield made


async def suspend(parts: Any, code: str, **changes: Any) -> None:
    await change_party(parts.database, code, changes, actor="tester")
    await hears(parts, code, suspended=changes["status"] != "active")


def killed(world: World) -> set[str]:
    rows = world.sql("SELECT key FROM live_session WHERE body->>'kill' IS NOT NULL")
    return {row["key"].partition("/")[2] for row in rows}


async def up(parts: Any) -> None:
    """One call of each of the three is up."""
    for party in ("acme", "acme-101", "brook"):
        assert (await call(parts, f"of-{party}", 60, party)).granted_seconds == 60
        await answered(parts, f"of-{party}")


async def test_suspended_takes_no_new_calls_and_leaves_those_that_are_up(world: World) -> None:
    async with runtime(world.url) as parts:
        await up(parts)
        await suspend(parts, "north", status="suspended")
        for party in ("acme", "acme-101"):
            assert (await call(parts, f"new-{party}", 60, party)).reason is Reason.PARTY_SUSPENDED
        assert (await call(parts, "new-brook", 60, "brook")).granted_seconds == 60
        assert not await parts.timers.kill_suspended()
        assert killed(world) == set()
        await stop(parts, "of-acme", 30)
        await prove(parts)


@pytest.mark.parametrize(
    ("who", "changes", "ended"),
    [
        ("north", {"status": "suspended", "kill_on_suspend": True}, {"of-acme", "of-acme-101"}),
        ("acme", {"status": "suspended", "kill_on_suspend": True}, {"of-acme", "of-acme-101"}),
        ("acme-101", {"status": "suspended", "kill_on_suspend": True}, {"of-acme-101"}),
        ("north", {"status": "frozen"}, {"of-acme", "of-acme-101"}),
        ("brook", {"status": "frozen"}, {"of-brook"}),
    ],
)
async def test_calls_of_the_whole_subtree_are_ended(
    world: World, who: str, changes: dict[str, Any], ended: set[str]
) -> None:
    """Those of the party itself and of everybody below it, and of nobody else."""
    async with runtime(world.url) as parts:
        await up(parts)
        await suspend(parts, who, **changes)
        await parts.timers.kill_suspended()
        assert killed(world) == ended
        assert not await parts.timers.kill_suspended(), "each is asked to end once"
        for name in ("of-acme", "of-acme-101", "of-brook"):
            await stop(parts, name, 10)
        await prove(parts)


async def test_a_reseller_without_a_plan_takes_its_subtree_along(world: World) -> None:
    """It has no leg in its customers' calls; its suspension ends them all the same."""
    world.sql("UPDATE party SET plan_id = NULL WHERE code = 'north'")
    async with runtime(world.url) as parts:
        await up(parts)
        await suspend(parts, "north", status="frozen")
        await parts.timers.kill_suspended()
        assert killed(world) == {"of-acme", "of-acme-101"}


async def test_active_again_calls_again(world: World) -> None:
    async with runtime(world.url) as parts:
        await suspend(parts, "acme", status="frozen")
        assert (await call(parts, "a")).reason is Reason.PARTY_SUSPENDED
        await suspend(parts, "acme", status="active")

        async def granted() -> bool:
            number = world.one("SELECT count(*) FROM live_session")
            return (await call(parts, f"b{number}", 60)).granted_seconds == 60

        await until(granted)
