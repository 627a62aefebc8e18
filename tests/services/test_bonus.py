"""Bonus credit: used in its order by real calls, taken back at its end, never paid out."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from tests.services.money_world import Clock, answered, call, prove, stop
from tests.support import World, runtime
from tollkeeper.errors import Conflict, InvalidInput, NotFound
from tollkeeper.services import bonuses, wallets

D = Decimal


async def grant(parts: Any, amount: str, *, days: int = 30, order: str = "bonus_first") -> Any:
    return await bonuses.grant(
        parts.database,
        party="acme",
        currency="USD",
        amount=D(amount),
        expires_at=parts.clock() + timedelta(days=days),
        reason="welcome",
        actor="tester",
        clock=parts.clock,
        order=order,
    )


async def left(parts: Any) -> list[Decimal]:
    found = await bonuses.list_bonuses(parts.database, party="acme", currency="USD")
    return [one.left for one in found]


async def hand(parts: Any, kind: str, amount: str) -> Any:
    return await wallets.top_up(
        parts.database,
        party="acme",
        currency="USD",
        amount=D(amount),
        reason="by hand",
        actor="tester",
        clock=parts.clock,
        kind=kind,
    )


async def used(parts: Any, name: str, seconds: int) -> None:
    """A call of so many seconds, at a cent each."""
    assert (await call(parts, name, seconds)).granted_seconds == seconds
    await stop(parts, name, seconds)


async def test_calls_use_the_bonus_first_and_the_lot_that_ends_first(database_url: str) -> None:
    with World(database_url) as world:
        world.customer(balance="10")
        async with runtime(database_url) as parts:
            granted = await grant(parts, "5")
            assert granted.wallet.balance == 15
            await used(parts, "a", 100)
            assert await left(parts) == [D(4)]
            await grant(parts, "1", days=3)
            await used(parts, "b", 150)
            assert await left(parts) == [D("3.5"), D(0)]
            await used(parts, "c", 400)
            assert await left(parts) == [D(0), D(0)]
            assert (await hand(parts, "withdrawal", "9.5")).wallet.balance == 0
            await prove(parts)


async def test_own_money_is_used_first_where_the_lot_says_so(database_url: str) -> None:
    with World(database_url) as world:
        world.customer(balance="1")
        async with runtime(database_url) as parts:
            await grant(parts, "2", order="own_first")
            await used(parts, "a", 90)
            assert await left(parts) == [D(2)]
            await used(parts, "b", 60)
            assert await left(parts) == [D("1.5")]
            # New money of its own comes before the rest of the bonus again.
            await hand(parts, "topup", "1")
            await used(parts, "c", 100)
            assert await left(parts) == [D("1.5")]
            await prove(parts)


async def test_bonus_is_never_paid_out_and_held_bonus_is_no_own_money(database_url: str) -> None:
    """3 own and 5 bonus: 3 can be paid out; while a call holds 6, of which 1 is own, 2 can."""
    with World(database_url) as world:
        world.customer(balance="3")
        async with runtime(database_url) as parts:
            await grant(parts, "5")
            with pytest.raises(Conflict, match=r"only 3\.00 USD can be taken out.*5\.00 is bonus"):
                await hand(parts, "withdrawal", "3.01")
            assert (await call(parts, "a", 600)).granted_seconds == 600
            with pytest.raises(Conflict, match=r"only 2\.00 USD can be taken out"):
                await hand(parts, "withdrawal", "2.01")
            await hand(parts, "withdrawal", "2")
            await stop(parts, "a", 0)
            assert await left(parts) == [D(5)], "what was paid out was no use of the bonus"
            await hand(parts, "withdrawal", "1")
            with pytest.raises(Conflict, match=r"only 0\.00 USD"):
                await hand(parts, "withdrawal", "0.01")
            await prove(parts)


async def test_what_calls_get_back_is_bonus_again(database_url: str) -> None:
    """A correction after the end does not turn bonus into money that can be paid out."""
    with World(database_url) as world:
        acme = world.customer(balance="1")
        async with runtime(database_url) as parts:
            await grant(parts, "5")
            await used(parts, "a", 300)
            assert await left(parts) == [D(2)]
            version = world.wallet(acme).version + 1
            revenue = world.one("SELECT id FROM account WHERE kind = 'revenue'")
            world.sql(
                "INSERT INTO entry (day, at, code, debit_account, credit_account, amount, currency, wallet_id,"
                " wallet_version, balance_after) VALUES ((now() AT TIME ZONE 'UTC')::date, now(), 'refund', %s, %s,"
                " 2, 'USD', %s, %s, 5)",
                revenue, acme.wallet_id, acme.wallet_id, version,
            )  # fmt: skip
            world.sql(
                "UPDATE wallet SET credited = credited + 2, version = version + 1, stamp = stamp + 1"
            )
            assert await left(parts) == [D(4)]
            with pytest.raises(Conflict, match=r"only 1\.00 USD"):
                await hand(parts, "withdrawal", "2")


async def test_what_is_left_is_taken_back_at_the_end_once(database_url: str) -> None:
    clock = Clock()
    with World(database_url) as world:
        acme = world.customer(balance="1")
        async with runtime(database_url, clock=clock) as parts:
            await grant(parts, "5", days=1)
            await used(parts, "a", 200)
            assert await bonuses.expire_due(parts.database, clock(), 10) == 0
            clock.forward(days=1)
            await asyncio.gather(
                *(bonuses.expire_due(parts.database, clock(), 10) for _ in range(4))
            )
            assert world.wallet(acme).balance == 1
            taken = world.sql("SELECT amount FROM entry WHERE code = 'bonus_expired'")
            assert [row["amount"] for row in taken] == [3]
            assert await left(parts) == [D(0)]
            assert await bonuses.expire_due(parts.database, clock(), 10) == 0
            await prove(parts)


async def test_what_a_live_call_holds_is_left_to_it_and_the_rest_taken_later(
    database_url: str,
) -> None:
    """5 of bonus, 4 held at its end: 1 is taken at once; the call uses 3, and 1 is taken after it."""
    clock = Clock()
    with World(database_url) as world:
        acme = world.customer(balance="0")
        async with runtime(database_url, clock=clock) as parts:
            granted = await grant(parts, "5", days=1)
            clock.forward(hours=23, minutes=58)
            assert (await call(parts, "a", 400)).granted_seconds == 400
            await answered(parts, "a")
            clock.forward(minutes=3)
            assert granted.bonus.row.expires_at < clock()
            assert await bonuses.expire_due(parts.database, clock(), 10) == 1
            wallet = world.wallet(acme)
            assert (wallet.balance, wallet.held, wallet.available) == (4, 4, 0)
            assert await bonuses.expire_due(parts.database, clock(), 10) == 0, "not again at once"
            await stop(parts, "a", 300)
            clock.forward(seconds=10)
            assert await bonuses.expire_due(parts.database, clock(), 10) == 1
            assert world.wallet(acme).balance == 0
            (row,) = world.sql("SELECT closed_at FROM bonus")
            assert row["closed_at"] is not None
            await prove(parts)


async def test_racing_calls_and_expiry_never_spend_what_is_not_there(database_url: str) -> None:
    """Calls want the bonus while it expires: each cent is used or taken back, and none twice."""
    clock = Clock()
    with World(database_url) as world:
        acme = world.customer(balance="0")
        async with runtime(database_url, clock=clock) as parts:
            await grant(parts, "10", days=1)
            clock.forward(hours=23, minutes=59)
            granted = [await call(parts, f"early-{n}", 60) for n in range(8)]
            assert all(reply.granted_seconds == 60 for reply in granted)
            clock.forward(minutes=2)

            async def later(n: int) -> None:
                reply = await call(parts, f"late-{n}", 60)
                if reply.granted_seconds:
                    await stop(parts, f"late-{n}", reply.granted_seconds)

            await asyncio.gather(
                *(later(n) for n in range(8)),
                *(bonuses.expire_due(parts.database, clock(), 10) for _ in range(3)),
                *(stop(parts, f"early-{n}", 30) for n in range(8)),
            )
            for _ in range(3):
                clock.forward(seconds=11)
                await bonuses.expire_due(parts.database, clock(), 10)
            assert world.wallet(acme).balance == 0
            await prove(parts)


async def test_a_bonus_needs_an_end_in_the_future_and_a_wallet(database_url: str) -> None:
    with World(database_url) as world:
        world.customer()
        async with runtime(database_url) as parts:
            with pytest.raises(InvalidInput, match=r"^expires_at: "):
                await grant(parts, "5", days=0)
            with pytest.raises(InvalidInput, match=r"^order: "):
                await grant(parts, "5", order="never")
            with pytest.raises(NotFound, match="acme has no wallet in EUR"):
                await bonuses.list_bonuses(parts.database, party="acme", currency="EUR")
