"""Money by hand: exact, audited, never more than there is, and safe in races."""

from __future__ import annotations

import asyncio
import itertools
import re
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pytest
import pytest_asyncio

from tests.support import Customer, World
from tollkeeper.core.records import Wallet
from tollkeeper.errors import Conflict, InvalidInput, NotFound
from tollkeeper.services import wallets
from tollkeeper.services.wallets import Posted
from tollkeeper.store.db import Database

D = Decimal


def now() -> datetime:
    return datetime.now(UTC)


@pytest_asyncio.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    made = Database(database_url, size=16)
    await made.open()
    yield made
    await made.close()


@pytest.fixture
def world(database_url: str) -> AsyncIterator[World]:
    with World(database_url) as made:
        yield made


async def post(database: Database, kind: str, amount: str, party: str = "acme") -> Posted:
    return await wallets.top_up(
        database,
        party=party,
        currency="USD",
        amount=D(amount),
        reason="by hand",
        actor="tester",
        clock=now,
        kind=kind,
    )


def hold(world: World, customer: Customer, amount: str) -> None:
    """As a live session would."""
    world.sql(
        "UPDATE wallet SET held = held + %s, stamp = stamp + 1 WHERE id = %s",
        D(amount),
        customer.wallet_id,
    )


async def test_a_top_up_is_an_entry_and_the_counters_agree(
    database: Database, world: World
) -> None:
    acme = world.customer(balance="0")
    posted = await post(database, "topup", "12.5")
    assert posted.entry.version == 1
    assert posted.entry.effect == posted.entry.balance_after == D("12.5")
    assert (posted.wallet.balance, posted.wallet.version) == (D("12.5"), 1)
    stands = world.wallet(acme)
    assert all(getattr(posted.wallet, n) == getattr(stands, n) for n in stands.__struct_fields__)
    (entry,) = world.sql("SELECT * FROM entry WHERE wallet_id = %s", acme.wallet_id)
    assert (entry["credit_account"], entry["actor"]) == (acme.wallet_id, "tester")
    kind = world.one("SELECT kind FROM account WHERE id = %s", entry["debit_account"])
    assert kind == "clearing"
    (audit,) = world.sql("SELECT * FROM audit")
    assert audit["action"] == "wallet.topup"
    assert audit["detail"] == {"amount": "12.50", "reason": "by hand", "entry": entry["id"]}


async def test_racing_top_ups_number_their_entries_without_a_gap(
    database: Database, world: World
) -> None:
    """16 at once: every one is done, each stands on the balance the one before left."""
    acme = world.customer(balance="0")
    posted = await asyncio.gather(*(post(database, "topup", f"{n}.01") for n in range(1, 17)))
    total = sum(p.entry.amount for p in posted)
    wallet = world.wallet(acme)
    assert (wallet.version, wallet.balance, wallet.stamp) == (16, total, 16)
    entries = world.sql("SELECT * FROM entry ORDER BY wallet_version")
    assert [e["wallet_version"] for e in entries] == list(range(1, 17))
    balance = D(0)
    for entry in entries:
        balance += entry["amount"]
        assert entry["balance_after"] == balance
    assert [e["at"] for e in entries] == sorted(e["at"] for e in entries)


async def test_racing_withdrawals_pay_out_no_more_than_there_is(
    database: Database, world: World
) -> None:
    acme = world.customer(balance="10")
    results = await asyncio.gather(
        *(post(database, "withdrawal", "3") for _ in range(8)), return_exceptions=True
    )
    paid = [r for r in results if isinstance(r, Posted)]
    refused = [r for r in results if isinstance(r, Conflict)]
    assert (len(paid), len(refused)) == (3, 5)
    assert {r.code for r in refused} == {"insufficient_funds"}
    assert world.wallet(acme).balance == D(1)


@pytest.mark.parametrize("kind", ["withdrawal", "adjust_down"])
async def test_held_money_cannot_be_taken_out(database: Database, world: World, kind: str) -> None:
    acme = world.customer(balance="10")
    hold(world, acme, "7")
    with pytest.raises(Conflict, match=re.escape("only 3.00 USD")) as refused:
        await post(database, kind, "3.00000001")
    assert refused.value.code == "insufficient_funds"
    assert (await post(database, kind, "3")).wallet.available == 0


async def test_a_withdrawal_pays_out_no_credit_but_an_adjustment_may_use_it(
    database: Database, world: World
) -> None:
    world.customer(balance="10", credit_limit="100")
    with pytest.raises(Conflict, match=re.escape("only 10.00 USD")):
        await post(database, "withdrawal", "10.01")
    assert (await post(database, "adjust_down", "10.01")).wallet.balance == D("-0.01")
    with pytest.raises(Conflict, match=re.escape("only 0.00 USD")):
        await post(database, "withdrawal", "0.01")


@pytest.mark.parametrize(
    "amount", ["0", "-1", "NaN", "Infinity", "1E+15", "0.000000001", "1E-400", "1E+400"]
)
async def test_an_amount_out_of_bounds_is_refused(
    database: Database, world: World, amount: str
) -> None:
    acme = world.customer(balance="0")
    with pytest.raises(InvalidInput, match=r"^amount: ") as refused:
        await post(database, "topup", amount)
    assert refused.value.field == "amount"
    assert world.wallet(acme).version == 0


@pytest.mark.parametrize("reason", ["", "   ", "two\nlines", "nul\0", "x" * 501, "\ud800"])
async def test_a_change_needs_a_reason(database: Database, world: World, reason: str) -> None:
    world.customer()
    with pytest.raises(InvalidInput, match=r"^reason: "):
        await wallets.top_up(
            database,
            party="acme",
            currency="USD",
            amount=D(1),
            reason=reason,
            actor="tester",
            clock=now,
        )
    with pytest.raises(InvalidInput, match=r"^reason: "):
        await wallets.park(database, party="acme", currency="USD", reason=reason, actor="tester")


async def test_a_wallet_takes_no_more_than_its_columns_hold(
    database: Database, world: World
) -> None:
    acme = world.customer(balance="0")
    world.sql("UPDATE wallet SET credited = 9999999999999999999 WHERE id = %s", acme.wallet_id)
    with pytest.raises(Conflict) as refused:
        await post(database, "topup", "999999999999999")
    assert refused.value.code == "wallet_full"


async def test_unknown_parties_and_currencies_are_told_apart(
    database: Database, world: World
) -> None:
    world.customer()
    with pytest.raises(NotFound, match='no party "nobody"'):
        await post(database, "topup", "1", party="nobody")
    with pytest.raises(NotFound, match="acme has no wallet in EUR"):
        await wallets.get_wallet(database, "acme", "EUR")
    with pytest.raises(NotFound, match='no party "nobody"'):
        await wallets.get_wallets(database, "nobody")
    with pytest.raises(InvalidInput, match=r"^currency: "):
        await wallets.create_wallet(database, party="acme", currency="usd", actor="tester")
    with pytest.raises(Conflict, match="acme has a wallet in USD already"):
        await wallets.create_wallet(database, party="acme", currency="USD", actor="tester")


async def test_a_lower_limit_must_still_cover_what_is_used_and_held(
    database: Database, world: World
) -> None:
    acme = world.customer(balance="10", credit_limit="50")
    hold(world, acme, "30")

    async def limit(amount: str) -> Wallet:
        return await wallets.change_credit_limit(
            database,
            party="acme",
            currency="USD",
            limit=D(amount),
            reason="terms",
            actor="tester",
        )

    with pytest.raises(Conflict, match=r"it takes 20\.00 at least") as refused:
        await limit("19.99")
    assert refused.value.code == "limit_in_use"
    before = world.wallet(acme)
    assert (await limit("20")).available == 0
    assert world.wallet(acme).stamp == before.stamp + 1
    world.sql("UPDATE wallet SET debited = debited + 5 WHERE id = %s", acme.wallet_id)
    assert (await limit("21")).available == -4, "an overrun does not forbid a higher limit"


async def test_a_parked_wallet_pays_nothing_out(database: Database, world: World) -> None:
    world.customer()
    names = {"party": "acme", "currency": "USD", "reason": "books differ", "actor": "tester"}
    assert (await wallets.park(database, **names)).parked
    with pytest.raises(Conflict) as refused:
        await post(database, "withdrawal", "1")
    assert refused.value.code == "wallet_parked"
    assert (await post(database, "topup", "1")).wallet.balance == 101
    assert not (await wallets.unpark(database, **names)).parked
    assert (await post(database, "withdrawal", "1")).wallet.balance == 100


# --- statements ----------------------------------------------------------------------------------


def put_entries(world: World, acme: Customer, moments: list[datetime]) -> None:
    """Entries of 1.00 each at these moments, with partitions for them."""
    for version, at in enumerate(moments, 1):
        world.sql("SELECT ensure_partitions(%s, 1)", at.date())
        world.sql(
            "INSERT INTO entry (day, at, code, debit_account, credit_account, amount, currency, wallet_id,"
            " wallet_version, balance_after) VALUES (%s, %s, 'topup', 0, %s, 1, 'USD', %s, %s, %s)",
            at.date(),
            at,
            acme.wallet_id,
            acme.wallet_id,
            version,
            version,
        )
    world.sql(
        "UPDATE wallet SET credited = %s, version = %s WHERE id = %s",
        len(moments),
        len(moments),
        acme.wallet_id,
    )


async def test_statements_that_follow_each_other_neither_miss_nor_repeat_an_entry(
    database: Database, world: World
) -> None:
    acme = world.customer(balance="0")
    day = datetime(2026, 3, 1, tzinfo=UTC)
    hours = (0, 5, 24, 30, 47, 48, 72, 71)  # the last one by a server whose clock is an hour behind
    put_entries(world, acme, [day + timedelta(hours=h) for h in hours])
    edges = [day + timedelta(hours=h) for h in (-30, 0, 12, 24, 48, 71, 72, 100)]
    versions: list[int] = []
    balance = D(0)
    for begin, end in itertools.pairwise(edges):
        found = await wallets.statement(
            database, party="acme", currency="USD", begin=begin, end=end
        )
        assert found.opening_balance == balance
        balance += sum(entry.effect for entry in found.entries)
        assert found.closing_balance == balance
        versions += [entry.version for entry in found.entries]
    assert versions == list(range(1, 9))


async def test_a_statement_is_read_page_by_page(database: Database, world: World) -> None:
    acme = world.customer(balance="0")
    day = datetime(2026, 3, 1, tzinfo=UTC)
    put_entries(world, acme, [day + timedelta(hours=n) for n in range(7)])
    cursor: int | None = 0
    seen: list[int] = []
    while cursor is not None:
        page = await wallets.statement(
            database,
            party="acme",
            currency="USD",
            begin=day + timedelta(hours=1),
            end=day + timedelta(hours=6),
            after=cursor,
            limit=2,
        )
        assert (page.opening_balance, page.closing_balance) == (1, 6)
        seen += [entry.version for entry in page.entries]
        cursor = page.cursor
    assert seen == [2, 3, 4, 5, 6]


async def test_the_period_of_a_statement_is_bounded(database: Database, world: World) -> None:
    world.customer()
    day = datetime(2026, 3, 1, tzinfo=UTC)
    for begin, end in (
        (day, day - timedelta(seconds=1)),
        (day, day + timedelta(days=93, seconds=1)),
        (day.replace(tzinfo=None), day),
        (datetime.min.replace(tzinfo=UTC), day),
        (day, datetime.max.replace(tzinfo=UTC)),
    ):
        with pytest.raises(InvalidInput):
            await wallets.statement(database, party="acme", currency="USD", begin=begin, end=end)


async def test_a_statement_looks_only_at_the_partitions_of_its_days(
    database: Database, world: World
) -> None:
    acme = world.customer(balance="0")
    put_entries(world, acme, [datetime(2026, 3, n, tzinfo=UTC) for n in range(1, 20)])
    from tollkeeper.store.wallets import _SQL

    plan = world.sql(
        f"EXPLAIN {_SQL['entries']}", acme.wallet_id, date(2026, 3, 4), date(2026, 3, 6), 0, 9, 9
    )
    text = "\n".join(str(row) for row in plan)
    assert text.count("entry_202603") >= 3
    assert "entry_20260307" not in text
    assert "entry_20260303" not in text
