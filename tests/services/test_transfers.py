"""Transfers within the tree: whose money may go where, and never what is held, lent or given."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from tests.services.money_world import call, prove, stop
from tests.support import World, runtime
from tollkeeper.errors import Conflict, Forbidden, InvalidInput, NotFound
from tollkeeper.services import bonuses, transfers, wallets
from tollkeeper.services.parties import change_party

D = Decimal


@pytest.fixture
def world(database_url: str) -> Iterator[World]:
    """An operator, carrier > north > (acme, brook); carrier > south > delta."""
    with World(database_url) as made:
        top = made.customer("carrier", kind="operator", plan=False, balance="0")
        north = made.reseller("north", parent=top, balance="100", plan=False)
        made.customer("acme", parent=north, balance="10")
        made.customer("brook", parent=north, balance="0")
        south = made.reseller("south", parent=top, balance="0", plan=False)
        made.customer("delta", parent=south, balance="0")
        yield made


def id_of(world: World, code: str) -> int:
    return int(world.one("SELECT id FROM party WHERE code = %s", code))


async def move(
    parts: Any, sender: str, receiver: str, amount: str, *, scope: int | None = None
) -> Any:
    return await transfers.transfer(
        parts.database,
        sender=sender,
        receiver=receiver,
        currency="USD",
        amount=D(amount),
        reason="settling",
        actor="tester",
        clock=parts.clock,
        scope=scope,
    )


def balances(world: World) -> dict[str, Decimal]:
    rows = world.sql(
        "SELECT p.code, w.credited - w.debited AS balance FROM wallet w JOIN party p ON p.id = w.party_id"
    )
    return {row["code"]: row["balance"] for row in rows}


async def test_a_transfer_is_two_entries_of_one_moment_that_add_up_to_nothing(
    world: World,
) -> None:
    async with runtime(world.url) as parts:
        made = await move(parts, "north", "brook", "25.5", scope=id_of(world, "north"))
        assert (made.taken.wallet.balance, made.given.wallet.balance) == (D("74.5"), D("25.5"))
        entries = world.sql("SELECT * FROM entry WHERE code LIKE 'transfer%%' ORDER BY id")
        assert [e["code"] for e in entries] == ["transfer_out", "transfer_in"]
        assert entries[0]["credit_account"] == entries[1]["debit_account"]
        assert entries[0]["at"] == entries[1]["at"]
        (listed,) = await transfers.list_transfers(parts.database, "brook")
        assert (listed.from_party, listed.to_party, listed.amount) == ("north", "brook", D("25.5"))
        assert await transfers.list_transfers(parts.database, "south") == []
        await prove(parts)


async def test_who_may_move_whose_money(world: World) -> None:
    """A reseller: among those below it and to itself, its own also upwards. A customer: its own, up."""
    north, acme = id_of(world, "north"), id_of(world, "acme")
    async with runtime(world.url) as parts:
        await move(parts, "north", "acme", "5", scope=north)
        await move(parts, "acme", "brook", "5", scope=north)
        await move(parts, "brook", "north", "1", scope=north)
        await move(parts, "north", "carrier", "1", scope=north)
        await move(parts, "acme", "north", "1", scope=acme)
        await move(parts, "acme", "delta", "1")
        with pytest.raises(Forbidden, match="within its own tree"):
            await move(parts, "acme", "carrier", "1", scope=north)
        for sender, receiver, scope, unknown in (
            ("north", "delta", north, "delta"),
            ("delta", "north", north, "delta"),
            ("acme", "brook", acme, "brook"),
            ("north", "acme", acme, "north"),
            ("acme", "nobody", None, "nobody"),
        ):
            with pytest.raises(NotFound, match=f'no party "{unknown}"'):
                await move(parts, sender, receiver, "1", scope=scope)
        assert balances(world) == {
            "carrier": 1, "north": 96, "acme": 8, "brook": 4, "south": 0, "delta": 1,
        }  # fmt: skip
        await prove(parts)


async def test_held_money_credit_and_bonus_do_not_move(world: World) -> None:
    """10 own, 50 of credit, 5 of bonus used last; a call holds 4 of its own: 6 can be moved."""
    async with runtime(world.url) as parts:
        await wallets.change_credit_limit(
            parts.database, party="acme", currency="USD", limit=D(50), reason="x", actor="t"
        )
        await bonuses.grant(
            parts.database,
            party="acme",
            currency="USD",
            amount=D(5),
            expires_at=parts.clock() + timedelta(days=1),
            reason="x",
            actor="t",
            clock=parts.clock,
            order="own_first",
        )
        world.sql("UPDATE wallet SET held = 4 WHERE party_id = %s", id_of(world, "acme"))
        with pytest.raises(Conflict, match=r"only 6\.00 USD of acme's own money") as refused:
            await move(parts, "acme", "north", "6.01")
        assert refused.value.code == "insufficient_funds"
        assert "4.00 is held for live sessions, 5.00 is bonus" in refused.value.detail
        await move(parts, "acme", "north", "6")


async def test_a_transfer_that_races_calls_leaves_them_what_they_hold(world: World) -> None:
    """Calls take holds while the money is moved away: no hold is ever uncovered."""
    world.sql("UPDATE party SET parent_id = NULL WHERE code = 'acme'")
    async with runtime(world.url) as parts:

        async def out(n: int) -> None:
            with suppress(Conflict):
                await move(parts, "acme", "brook", "1.5")

        replies = await asyncio.gather(
            *(call(parts, f"call-{n}", 100) for n in range(10)), *(out(n) for n in range(10))
        )
        wallet = next(
            row
            for row in await wallets.get_wallets(parts.database, "acme")
            if row.currency == "USD"
        )
        assert wallet.available >= 0
        for n, reply in enumerate(replies[:10]):
            if reply.granted_seconds:
                await stop(parts, f"call-{n}", reply.granted_seconds)
        await prove(parts)


async def test_transfers_in_both_directions_at_once_do_not_block_each_other(world: World) -> None:
    async with runtime(world.url) as parts:
        await move(parts, "north", "brook", "50")
        await asyncio.gather(
            *(move(parts, "north", "brook", "1") for _ in range(8)),
            *(move(parts, "brook", "north", "1") for _ in range(8)),
        )
        assert balances(world)["brook"] == 50
        deadlocks = world.one(
            "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
        )
        assert deadlocks == 0
        await prove(parts)


async def test_money_is_not_moved_between_currencies(world: World) -> None:
    async with runtime(world.url) as parts:
        world.sql("UPDATE account SET currency = 'EUR' WHERE name = 'delta'")
        world.sql("UPDATE wallet SET currency = 'EUR' WHERE party_id = %s", id_of(world, "delta"))
        with pytest.raises(Conflict, match=r"delta has no wallet in USD.*one currency only") as no:
            await move(parts, "north", "delta", "1")
        assert no.value.code == "other_currency"


async def test_parked_and_frozen_money_stays_where_it_is(world: World) -> None:
    async with runtime(world.url) as parts:
        await wallets.park(parts.database, party="acme", currency="USD", reason="x", actor="t")
        with pytest.raises(Conflict, match="parked"):
            await move(parts, "acme", "north", "1")
        await change_party(parts.database, "north", {"status": "frozen"}, actor="t")
        with pytest.raises(Conflict, match="north is frozen") as refused:
            await move(parts, "north", "brook", "1")
        assert refused.value.code == "party_frozen"
        with pytest.raises(Conflict, match="frozen"):
            await wallets.top_up(
                parts.database, party="north", currency="USD", amount=D(1), reason="x", actor="t",
                clock=parts.clock, kind="withdrawal",
            )  # fmt: skip
        posted = await wallets.top_up(
            parts.database, party="north", currency="USD", amount=D(1), reason="x", actor="t",
            clock=parts.clock,
        )  # fmt: skip
        assert posted.wallet.balance == 101


@pytest.mark.parametrize("amount", ["0", "-1", "NaN"])
async def test_amounts_out_of_bounds_and_the_same_party_twice_are_refused(
    world: World, amount: str
) -> None:
    async with runtime(world.url) as parts:
        with pytest.raises(InvalidInput, match=r"^amount: "):
            await move(parts, "north", "acme", amount)
        with pytest.raises(InvalidInput, match=r"^to: "):
            await move(parts, "north", "north", "1")
