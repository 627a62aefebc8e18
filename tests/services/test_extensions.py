"""Extensions: users below a customer that spend its wallet, each with bounds of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest

from tests.services.money_world import CENT_A_SECOND, answered, call, goes_on, known, prove, stop
from tests.support import Customer, World, runtime, until
from tollkeeper.core.reasons import Reason
from tollkeeper.core.records import Outcome
from tollkeeper.errors import Forbidden, InvalidInput
from tollkeeper.services import parties, tree, wallets
from tollkeeper.services.parties import Party
from tollkeeper.services.uses import Use

D = Decimal


@pytest.fixture
def world(database_url: str) -> Iterator[World]:
    with World(database_url) as made:
        yield made


async def add_user(parts: Any, code: str, parent: str = "acme", **more: Any) -> Party:
    made = await parties.create_party(
        parts.database, Party(code, code, "user", parent=parent, **more), actor="tester"
    )
    await known(parts, code)
    return made


async def change(parts: Any, code: str, **changes: Any) -> Party:
    return await parties.change_party(parts.database, code, changes, actor="tester")


def granted(replies: list[Any]) -> list[int]:
    return [n for n, reply in enumerate(replies) if reply.outcome is Outcome.GRANTED]


async def test_extensions_spend_their_customers_wallet_at_its_prices(world: World) -> None:
    acme = world.customer("acme", balance="10")
    async with runtime(world.url) as parts:
        await add_user(parts, "desk-1")
        await add_user(parts, "desk-2")
        assert (await call(parts, "a", 600, "desk-1")).granted_seconds == 600
        assert (await call(parts, "b", 600, "desk-2")).granted_seconds == 400
        assert (await call(parts, "c", 1, "acme")).reason is Reason.INSUFFICIENT_FUNDS
        await answered(parts, "a")
        done = await stop(parts, "a", 100)
        assert done.charge == 1
        assert world.wallet(acme).balance == 9
        (row,) = world.sql("SELECT party_id, body::text FROM closed_session WHERE key = 'sw1/a'")
        assert row["party_id"] == world.one("SELECT id FROM party WHERE code = 'desk-1'")
        await prove(parts)


async def test_a_quote_for_an_extension_is_of_the_shared_wallet(world: World) -> None:
    world.customer("acme", balance="10")
    async with runtime(world.url) as parts:
        user = await add_user(parts, "desk-1", max_cost=D("0.5"))
        quote = await parts.charging.quote(Use("desk-1", CENT_A_SECOND))
        assert (quote.available, quote.amount, quote.affordable_units) == (10, D("0.6"), 50)
        with pytest.raises(Forbidden):
            await parts.charging.quote(Use("desk-1", CENT_A_SECOND), scope=user.id)


async def test_an_extension_has_neither_plan_nor_wallet_of_its_own(world: World) -> None:
    world.customer("acme")
    world.customer("brook")
    async with runtime(world.url) as parts:
        for more, field in (
            ({"plan": "retail"}, "plan"),
            ({"max_cps": 3}, "max_cps"),
            ({"overcommit": D(1)}, "overcommit"),
        ):
            with pytest.raises(InvalidInput, match=rf"^{field}: desk-1 is a user"):
                await parties.create_party(
                    parts.database, Party("desk-1", "x", "user", parent="acme", **more), actor="t"
                )
        for parent in (None, "nobody"):
            with pytest.raises(InvalidInput, match=r"^parent: "):
                await add_user(parts, "desk-1", parent)
        await add_user(parts, "desk-1")
        with pytest.raises(InvalidInput, match="priced by the plan of its customer"):
            await change(parts, "desk-1", plan="retail")
        with pytest.raises(InvalidInput, match="priced by the plan of its customer"):
            await tree.move_party(
                parts.database, "desk-1", parent="brook", plan="retail", reason="x", actor="t"
            )
        with pytest.raises(InvalidInput, match="spends the money of its customer"):
            await wallets.create_wallet(parts.database, party="desk-1", currency="USD", actor="t")
        with pytest.raises(InvalidInput, match=r"^parent: .* acme is a customer|^parent: a user"):
            await add_user(parts, "desk-2", "desk-1")


async def test_a_cap_per_call_bounds_every_grant_of_the_extension(world: World) -> None:
    """Half a dollar a call is 50 seconds, however often more is asked for; its customer has no cap."""
    world.customer("acme", balance="10")
    async with runtime(world.url) as parts:
        await add_user(parts, "desk-1", max_cost=D("0.5"))
        reply = await call(parts, "a", 40, "desk-1")
        assert (reply.granted_seconds, reply.final) == (40, False)
        await answered(parts, "a")
        reply = await goes_on(parts, "a", 30)
        assert (reply.granted_seconds, reply.final, reply.reason) == (50, True, Reason.COST_LIMIT)
        done = await stop(parts, "a", 50)
        assert done.charge == D("0.5")
        assert (await call(parts, "b", 400, "acme")).granted_seconds == 400


async def test_a_call_of_an_extension_is_no_longer_than_its_customer_allows(world: World) -> None:
    world.customer("acme", max_seconds=90)
    async with runtime(world.url) as parts:
        await add_user(parts, "desk-1")
        await add_user(parts, "desk-2", max_seconds=30)
        assert (await call(parts, "a", 600, "desk-1")).granted_seconds == 90
        assert (await call(parts, "b", 600, "desk-2")).granted_seconds == 30
        quote = await parts.charging.quote(Use("desk-1", CENT_A_SECOND))
        assert quote.affordable_units == 90


async def test_racing_calls_of_an_extension_never_exceed_its_number(world: World) -> None:
    """32 at once, in two processes: three are granted, and the meter counts exactly those."""
    world.customer("acme", balance="100")
    async with runtime(world.url) as parts, runtime(world.url) as others:
        await add_user(parts, "desk-1", max_sessions=3)
        await known(others, "desk-1")
        replies = await asyncio.gather(
            *(call((parts, others)[n % 2], f"r{n}", 60, "desk-1") for n in range(32))
        )
        up = granted(list(replies))
        assert len(up) == 3
        refused = {r.reason for n, r in enumerate(replies) if n not in up}
        assert refused == {Reason.CONCURRENCY_LIMIT}
        desk = Customer("desk-1", world.one("SELECT id FROM party WHERE code = 'desk-1'"), 0, "USD")
        assert world.meter(desk, "calls")["held"] == 3
        await stop((parts, others)[up[0] % 2], f"r{up[0]}", 0)
        assert world.meter(desk, "calls")["held"] == 2
        assert (await call(parts, "next", 60, "desk-1")).outcome is Outcome.GRANTED
        await prove(parts)


async def test_racing_calls_of_many_extensions_never_overspend_the_shared_wallet(
    world: World,
) -> None:
    """32 extensions at once and money for 16: not a cent more is held, and none is left over."""
    acme = world.customer("acme", balance="9.60")
    async with runtime(world.url) as parts, runtime(world.url) as others:
        for number in range(32):
            world.user(f"desk-{number}", acme, max_sessions=2)
        await known(parts, "desk-31")
        await known(others, "desk-31")
        replies = await asyncio.gather(
            *(call((parts, others)[n % 2], f"r{n}", 60, f"desk-{n}") for n in range(32))
        )
        assert sum(reply.granted_seconds for reply in replies) == 960
        assert {r.reason for r in replies} == {Reason.NONE, Reason.INSUFFICIENT_FUNDS}
        assert world.wallet(acme).available == 0
        for n in granted(list(replies)):
            await answered((parts, others)[n % 2], f"r{n}")
            await stop((parts, others)[n % 2], f"r{n}", 60)
        assert (world.wallet(acme).balance, world.wallet(acme).held) == (0, 0)
        assert world.one("SELECT sum(held) FROM meter WHERE kind = 'calls'") == 0
        await prove(parts)


async def test_a_low_balance_lowers_how_many_calls_an_extension_may_have(world: World) -> None:
    """From 5 down to 1 while less than 4 is available to all; up again when money has come in."""
    world.customer("acme", balance="10")
    async with runtime(world.url) as parts:
        await add_user(parts, "desk-1", max_sessions=5, low_balance=D(4), low_sessions=1)
        await add_user(parts, "desk-2")
        for number in range(2):
            assert (await call(parts, f"a{number}", 100, "desk-1")).outcome is Outcome.GRANTED
        assert (await call(parts, "other", 500, "desk-2")).outcome is Outcome.GRANTED
        assert (await call(parts, "a2", 10, "desk-1")).reason is Reason.CONCURRENCY_LIMIT
        assert (await call(parts, "more", 10, "desk-2")).outcome is Outcome.GRANTED
        for number in range(2):
            await stop(parts, f"a{number}", 0)
        assert (await call(parts, "a3", 10, "desk-1")).outcome is Outcome.GRANTED
        await stop(parts, "other", 0)
        assert (await call(parts, "a4", 10, "desk-1")).outcome is Outcome.GRANTED


async def test_a_low_balance_lowers_how_many_calls_a_customer_may_have(world: World) -> None:
    world.customer("acme", balance="10")
    async with runtime(world.url) as parts:
        await change(parts, "acme", low_balance=D(8), low_sessions=2)
        await until(
            lambda: parts.directory.party("acme").limits.low_sessions == 2, what="the rule is known"
        )
        for number in range(2):
            assert (await call(parts, f"a{number}", 150, "acme")).outcome is Outcome.GRANTED
        refused = await call(parts, "a2", 10, "acme")
        assert refused.reason is Reason.CONCURRENCY_LIMIT
        shown = await change(parts, "acme", low_balance=None, low_sessions=None)
        assert (shown.low_balance, shown.low_sessions) == (None, None)
        await until(
            lambda: parts.directory.party("acme").limits.low_sessions is None, what="it is no more"
        )
        assert (await call(parts, "a3", 10, "acme")).outcome is Outcome.GRANTED


async def test_both_parts_of_the_rule_are_given_or_none(world: World) -> None:
    world.customer("acme")
    async with runtime(world.url) as parts:
        with pytest.raises(InvalidInput, match=r"^low_sessions: "):
            await change(parts, "acme", low_balance=D(1))
        with pytest.raises(InvalidInput, match=r"^low_balance: "):
            await change(parts, "acme", low_sessions=1)
        with pytest.raises(InvalidInput, match=r"^low_balance: "):
            await change(parts, "acme", low_balance=D(-1), low_sessions=1)
        with pytest.raises(InvalidInput, match=r"^low_sessions: "):
            await change(parts, "acme", low_balance=D(1), low_sessions=-1)


async def test_a_suspended_extension_makes_no_calls_and_the_others_do(world: World) -> None:
    world.customer("acme")
    async with runtime(world.url) as parts:
        await add_user(parts, "desk-1", status="suspended")
        await add_user(parts, "desk-2")
        assert (await call(parts, "a", 10, "desk-1")).reason is Reason.PARTY_SUSPENDED
        assert (await call(parts, "b", 10, "desk-2")).outcome is Outcome.GRANTED
