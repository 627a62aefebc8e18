"""Vouchers: each code once, for whoever is first; guesses are counted; a reseller's are its money."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from tests.services.money_world import Clock, call, prove
from tests.support import World, runtime
from tollkeeper.core.vouchers import make_code, show_code
from tollkeeper.errors import Conflict, Forbidden, InvalidInput, NotFound
from tollkeeper.services import bonuses, voucher_batches, vouchers, wallets
from tollkeeper.services.voucher_batches import Made, Order
from tollkeeper.services.vouchers import Redeemed

D = Decimal


@pytest.fixture
def world(database_url: str) -> Iterator[World]:
    """A reseller, north, with 25 > acme; brook beside them."""
    with World(database_url) as made:
        north = made.reseller("north", balance="25", plan=False)
        made.customer("acme", parent=north, balance="0")
        made.customer("brook", balance="0")
        yield made


def id_of(world: World, code: str) -> int:
    return int(world.one("SELECT id FROM party WHERE code = %s", code))


async def make(parts: Any, code: str = "spring", **more: Any) -> Made:
    scope = more.pop("scope", None)
    values = {
        "count": 3,
        "amount": D(10),
        "currency": "USD",
        "valid_to": parts.clock() + timedelta(days=30),
        **more,
    }
    return await voucher_batches.make_batch(
        parts.database, Order(code=code, **values), actor="tester", clock=parts.clock, scope=scope
    )


async def redeem(parts: Any, party: str, code: str, **more: Any) -> Redeemed:
    return await vouchers.redeem(
        parts.database, party=party, code=code, actor="tester", clock=parts.clock, **more
    )


def wrong_codes(count: int) -> list[str]:
    return [make_code(number) for number in range(count)]


# --- make and redeem -----------------------------------------------------------------------------


async def test_a_voucher_is_money_once_and_the_same_party_may_ask_again(world: World) -> None:
    async with runtime(world.url) as parts:
        made = await make(parts)
        assert len(set(made.codes)) == 3
        first = await redeem(parts, "brook", f" {show_code(made.codes[0])}")
        assert (first.amount, first.wallet.balance, first.repeated) == (10, 10, False)
        again = await redeem(parts, "brook", made.codes[0])
        assert (again.wallet.balance, again.repeated) == (10, True)
        with pytest.raises(Conflict) as refused:
            await redeem(parts, "acme", made.codes[0])
        assert refused.value.code == "voucher_used"
        assert (await call(parts, "a", 60, "brook")).granted_seconds == 60
        (batch,) = await voucher_batches.list_batches(parts.database)
        assert (batch.vouchers, batch.redeemed, batch.blocked) == (3, 1, 0)
        (entry,) = world.sql("SELECT * FROM entry WHERE code = 'voucher'")
        assert entry["amount"] == 10
        await prove(parts)


async def test_no_code_is_stored_or_written_down_anywhere(world: World) -> None:
    """Neither the vouchers, nor their audit trail, nor anything else knows a code."""
    async with runtime(world.url) as parts:
        made = await make(parts, count=20)
        await redeem(parts, "brook", made.codes[0])
        tables = world.sql(
            "SELECT relname FROM pg_class WHERE relkind IN ('r', 'p') AND relnamespace = 'public'::regnamespace"
        )
        assert {"voucher", "audit", "outbox"} <= {row["relname"] for row in tables}
        for row in tables:
            text = str(world.sql(f"SELECT t::text FROM {row['relname']} t"))
            for code in made.codes:
                assert code not in text
                assert show_code(code) not in text
        hashes = {bytes(row["hash"]) for row in world.sql("SELECT hash FROM voucher")}
        assert {len(one) for one in hashes} == {32}


async def test_thirty_two_clients_race_for_one_code_and_one_of_them_gets_it(world: World) -> None:
    for number in range(32):
        world.customer(f"racer-{number}", balance="0")
    async with runtime(world.url) as parts:
        made = await make(parts)
        results = await asyncio.gather(
            *(redeem(parts, f"racer-{n}", made.codes[0]) for n in range(32)), return_exceptions=True
        )
        assert sum(isinstance(one, Redeemed) for one in results) == 1
        assert {one.code for one in results if isinstance(one, Conflict)} == {"voucher_used"}
        assert world.one("SELECT sum(credited) FROM wallet WHERE currency = 'USD' AND party_id IN"
                         " (SELECT id FROM party WHERE code LIKE 'racer%%')") == 10  # fmt: skip
        await prove(parts)


async def test_one_party_that_sends_a_code_many_times_at_once_gets_it_once(world: World) -> None:
    async with runtime(world.url) as parts:
        made = await make(parts)
        results = await asyncio.gather(*(redeem(parts, "brook", made.codes[1]) for _ in range(32)))
        assert sorted(one.repeated for one in results) == [False] + [True] * 31
        assert {one.wallet.balance for one in results} == {D(10)}


async def test_bonus_vouchers_bring_credit_that_ends(world: World) -> None:
    async with runtime(world.url) as parts:
        made = await make(parts, kind="bonus", bonus_days=7, bonus_order="own_first")
        await redeem(parts, "brook", made.codes[0])
        (lot,) = await bonuses.list_bonuses(parts.database, party="brook", currency="USD")
        assert (lot.left, lot.row.use_order) == (10, "own_first")
        lasts = lot.row.expires_at - lot.row.granted_at
        assert timedelta(days=7, seconds=-1) < lasts <= timedelta(days=7)
        with pytest.raises(Conflict, match="bonus"):
            await wallets.top_up(
                parts.database, party="brook", currency="USD", amount=D(1), reason="x", actor="t",
                clock=parts.clock, kind="withdrawal",
            )  # fmt: skip
        await prove(parts)


# --- when it is not to be ------------------------------------------------------------------------


async def test_vouchers_are_good_only_in_their_time_and_unless_blocked(world: World) -> None:
    clock = Clock()
    async with runtime(world.url, clock=clock) as parts:
        soon = clock() + timedelta(days=1)
        made = await make(parts, valid_from=soon, count=4)

        async def refused(code: str) -> str:
            with pytest.raises(Conflict) as error:
                await redeem(parts, "brook", code)
            return error.value.code

        assert await refused(made.codes[0]) == "voucher_not_yet_valid"
        clock.forward(days=2)
        await voucher_batches.block_voucher(parts.database, made.codes[1], actor="tester")
        assert await refused(made.codes[1]) == "voucher_blocked"
        await voucher_batches.set_blocked(parts.database, "spring", blocked=True, actor="tester")
        assert await refused(made.codes[0]) == "voucher_blocked"
        batch = await voucher_batches.set_blocked(
            parts.database, "spring", blocked=False, actor="tester"
        )
        assert (batch.status, batch.blocked) == ("active", 1)
        await redeem(parts, "brook", made.codes[0])
        with pytest.raises(Conflict) as used:
            await voucher_batches.block_voucher(parts.database, made.codes[0], actor="tester")
        assert used.value.code == "voucher_used"
        clock.forward(days=30)
        assert await refused(made.codes[2]) == "voucher_expired"


async def test_five_wrong_codes_lock_the_party_and_the_key_for_fifteen_minutes(
    world: World,
) -> None:
    """Even the right code is not taken then; another party with another key is not disturbed."""
    clock = Clock()
    async with runtime(world.url, clock=clock) as parts:
        made = await make(parts)
        for code in wrong_codes(5):
            with pytest.raises(NotFound, match="there is no such voucher"):
                await redeem(parts, "brook", code, key_id=1)
        for party, key_id in (("brook", 2), ("acme", 1), ("brook", None)):
            with pytest.raises(Conflict, match="5 wrong voucher codes") as locked:
                await redeem(parts, party, made.codes[0], key_id=key_id)
            assert locked.value.code == "too_many_attempts"
        await redeem(parts, "acme", made.codes[1], key_id=2)
        clock.forward(minutes=14)
        with pytest.raises(Conflict):
            await redeem(parts, "brook", made.codes[0])
        clock.forward(minutes=1, seconds=1)
        assert (await redeem(parts, "brook", made.codes[0], key_id=1)).wallet.balance == 10


async def test_guesses_at_the_same_moment_are_counted_one_by_one(world: World) -> None:
    """32 at once: five are looked up, the others refused before they are."""
    async with runtime(world.url) as parts:
        results = await asyncio.gather(
            *(redeem(parts, "brook", code, key_id=1) for code in wrong_codes(32)),
            return_exceptions=True,
        )
        kinds = [type(one) for one in results]
        assert (kinds.count(NotFound), kinds.count(Conflict)) == (5, 27)


async def test_wrong_codes_long_apart_do_not_lock(world: World) -> None:
    clock = Clock()
    async with runtime(world.url, clock=clock) as parts:
        for code in wrong_codes(8):
            with pytest.raises(NotFound):
                await redeem(parts, "brook", code)
            clock.forward(minutes=4)
        await vouchers.forget_guesses(parts.database, clock())
        kept = world.one("SELECT count(*) FROM voucher_attempt")
        assert kept == 7, "of the last half hour"


async def test_a_slip_of_the_finger_is_told_at_once_and_does_not_count(world: World) -> None:
    async with runtime(world.url) as parts:
        made = await make(parts)
        code = made.codes[0]
        slip = code[:-1] + str((int(code[-1]) + 1) % 10)
        for _ in range(6):
            with pytest.raises(InvalidInput, match="a digit of this one is wrong") as error:
                await redeem(parts, "brook", slip)
            assert error.value.code == "invalid_voucher_code"
        assert (await redeem(parts, "brook", code)).wallet.balance == 10


async def test_a_party_without_a_wallet_in_the_currency_keeps_its_voucher(world: World) -> None:
    async with runtime(world.url) as parts:
        made = await make(parts, currency="EUR")
        with pytest.raises(NotFound, match="brook has no wallet in EUR"):
            await redeem(parts, "brook", made.codes[0])
        await wallets.create_wallet(parts.database, party="brook", currency="EUR", actor="t")
        assert (await redeem(parts, "brook", made.codes[0])).wallet.balance == 10


# --- a reseller's --------------------------------------------------------------------------------


async def test_a_resellers_vouchers_are_paid_from_its_wallet_while_it_has_money(
    world: World,
) -> None:
    """25 in its wallet and vouchers of 10: two can be redeemed, the third when it has money again."""
    north = id_of(world, "north")
    async with runtime(world.url) as parts:
        made = await make(parts, scope=north)
        assert made.batch.owner == "north"
        acme = id_of(world, "acme")
        for code in made.codes[:2]:
            await redeem(parts, "acme", code, scope=acme)
        with pytest.raises(Conflict) as refused:
            await redeem(parts, "acme", made.codes[2], scope=acme)
        assert refused.value.code == "voucher_not_covered"
        assert not re.search(r"\d", refused.value.detail), "nothing of north's money is told"
        await wallets.top_up(
            parts.database, party="north", currency="USD", amount=D(5), reason="x", actor="t",
            clock=parts.clock,
        )  # fmt: skip
        done = await redeem(parts, "acme", made.codes[2], scope=acme)
        assert done.wallet.balance == 30
        (wallet,) = await wallets.get_wallets(parts.database, "north")
        assert wallet.balance == 0
        await prove(parts)


async def test_a_resellers_voucher_does_not_exist_for_others(world: World) -> None:
    async with runtime(world.url) as parts:
        made = await make(parts, owner="north")
        with pytest.raises(NotFound, match="there is no such voucher"):
            await redeem(parts, "brook", made.codes[0])
        with pytest.raises(NotFound):
            await voucher_batches.get_batch(parts.database, "spring", scope=id_of(world, "brook"))
        with pytest.raises(NotFound):
            await voucher_batches.block_voucher(
                parts.database, made.codes[0], actor="t", scope=id_of(world, "acme")
            )
        mine = await voucher_batches.get_batch(
            parts.database, "spring", scope=id_of(world, "north")
        )
        assert (mine.vouchers, mine.owner) == (3, "north")
        await make(parts, "ours")
        seen = await voucher_batches.list_batches(parts.database, scope=id_of(world, "north"))
        assert [batch.code for batch in seen] == ["spring"]
        await voucher_batches.block_voucher(
            parts.database, made.codes[0], actor="t", scope=id_of(world, "north")
        )


async def test_only_the_operator_gives_bonus_and_only_resellers_have_their_own(
    world: World,
) -> None:
    async with runtime(world.url) as parts:
        with pytest.raises(Forbidden) as refused:
            await make(parts, kind="bonus", bonus_days=7, scope=id_of(world, "north"))
        assert refused.value.code == "operator_only"
        with pytest.raises(InvalidInput, match=r"^owner: "):
            await make(parts, scope=id_of(world, "acme"))
        with pytest.raises(NotFound, match="brook"):
            await make(parts, owner="brook", scope=id_of(world, "north"))


@pytest.mark.parametrize(
    ("field", "more"),
    [
        ("count", {"count": 0}),
        ("count", {"count": 100_001}),
        ("amount", {"amount": D(0)}),
        ("bonus_days", {"kind": "bonus"}),
        ("bonus_days", {"bonus_days": 7}),
        ("kind", {"kind": "gift"}),
    ],
)
async def test_a_batch_out_of_bounds_is_refused(
    world: World, field: str, more: dict[str, Any]
) -> None:
    async with runtime(world.url) as parts:
        with pytest.raises(InvalidInput, match=rf"^{field}: "):
            await make(parts, **more)
        with pytest.raises(InvalidInput, match=r"^valid_to: "):
            await make(parts, valid_to=parts.clock() - timedelta(seconds=1))
        await make(parts)
        with pytest.raises(Conflict) as taken:
            await make(parts)
        assert taken.value.code == "batch_exists"
