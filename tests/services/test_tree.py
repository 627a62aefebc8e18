"""The tree of parties: who stands below whom, moves with their history, and what children are given."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from decimal import Decimal

import psycopg
import pytest
import pytest_asyncio

from tests.support import UK_FIXED, World, runtime
from tollkeeper.errors import Conflict, Forbidden, InvalidInput, NotFound
from tollkeeper.services import parties, tree, wallets
from tollkeeper.services.parties import Page, Party
from tollkeeper.store.db import Database

WHO = "test"


@pytest.fixture
def world(database_url: str) -> Iterator[World]:
    with World(database_url) as made:
        yield made


@pytest_asyncio.fixture
async def database(world: World) -> AsyncIterator[Database]:
    opened = Database(world.url, size=4)
    await opened.open()
    yield opened
    await opened.close()


async def make(database: Database, code: str, kind: str, parent: str | None = None) -> Party:
    return await parties.create_party(database, Party(code, code, kind, parent), actor=WHO)


async def small_tree(database: Database) -> None:
    """The operator above r1 (above s1, above c1) and r2."""
    for code, kind, parent in (
        ("op", "operator", None),
        ("r1", "reseller", "op"),
        ("r2", "reseller", "op"),
        ("s1", "reseller", "r1"),
        ("c1", "customer", "s1"),
    ):
        await make(database, code, kind, parent)


async def codes(database: Database, **filters: str) -> list[str]:
    return [p.code for p in await parties.list_parties(database, Page(), **filters)]


# --- kinds ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "parent", "fits"),
    [
        ("reseller", "op", True),
        ("reseller", "r1", True),
        ("reseller", "c1", False),
        ("customer", "c1", False),
        ("user", "c1", True),
        ("user", "r1", False),
        ("card", "c1", True),
        ("card", "r1", True),
        ("operator", "op", False),
        ("vendor", "c1", False),
    ],
)
async def test_kinds_say_who_stands_below_whom(
    database: Database, kind: str, parent: str, fits: bool
) -> None:
    await small_tree(database)
    if fits:
        assert (await make(database, "new", kind, parent)).parent == parent
        return
    with pytest.raises(InvalidInput) as error:
        await make(database, "new", kind, parent)
    assert error.value.field == "parent"


@pytest.mark.parametrize("kind", ["user", "card"])
async def test_users_and_cards_have_nobody_below_them(database: Database, kind: str) -> None:
    await small_tree(database)
    await make(database, "leaf", kind, "c1")
    for below in ("customer", "user", "card", "reseller"):
        with pytest.raises(InvalidInput):
            await make(database, "new", below, "leaf")


async def test_a_user_without_a_customer_has_nobody_to_pay(database: Database) -> None:
    with pytest.raises(InvalidInput, match="say which customer"):
        await make(database, "new", "user")


async def test_lists_show_children_and_subtrees(database: Database) -> None:
    await small_tree(database)
    assert await codes(database, parent="op") == ["r1", "r2"]
    assert await codes(database, subtree="r1") == ["c1", "r1", "s1"]
    assert await codes(database, subtree="c1") == ["c1"]
    with pytest.raises(NotFound):
        await codes(database, parent="nobody")


# --- moves ---------------------------------------------------------------------------------------


async def test_a_move_takes_everybody_below_along_and_is_remembered(
    world: World, database: Database
) -> None:
    await small_tree(database)
    moved = await tree.move_party(database, "s1", parent="r2", reason="sold", actor=WHO)
    assert moved.parent == "r2"
    assert await codes(database, subtree="r2") == ["c1", "r2", "s1"]
    assert await codes(database, subtree="r1") == ["r1"]
    places = await tree.list_moves(database, "s1")
    assert [(one.parent, one.reason, one.actor) for one in places] == [
        ("r1", "created", WHO),
        ("r2", "sold", WHO),
    ]
    assert places[0].at < places[1].at
    above = world.sql(
        "SELECT up.code, a.depth FROM party_above a JOIN party p ON p.id = a.party_id"
        " JOIN party up ON up.id = a.ancestor_id WHERE p.code = 'c1' ORDER BY a.depth"
    )
    assert [(row["code"], row["depth"]) for row in above] == [
        ("c1", 0),
        ("s1", 1),
        ("r2", 2),
        ("op", 3),
    ]


@pytest.mark.parametrize("below", ["r1", "s1"])
async def test_nobody_is_moved_below_itself(database: Database, below: str) -> None:
    await small_tree(database)
    with pytest.raises(Conflict) as error:
        await tree.move_party(database, "r1", parent=below, reason="x", actor=WHO)
    assert error.value.code == "cycle"
    assert error.value.detail.startswith("r1 cannot be moved below ")
    assert await codes(database, subtree="r1") == ["c1", "r1", "s1"]


async def test_the_database_refuses_a_cycle_by_itself(world: World, database: Database) -> None:
    await small_tree(database)
    with pytest.raises(psycopg.Error) as error:
        world.sql(
            "UPDATE party SET parent_id = (SELECT id FROM party WHERE code = 's1') WHERE code = 'r1'"
        )
    assert error.value.sqlstate == "TK020"


async def test_two_moves_at_once_make_no_cycle_together(database: Database) -> None:
    """Each is right by itself: r1 below r2, and r2 below r1."""
    await small_tree(database)
    outcomes = await asyncio.gather(
        tree.move_party(database, "r1", parent="r2", reason="x", actor=WHO),
        tree.move_party(database, "r2", parent="r1", reason="x", actor=WHO),
        return_exceptions=True,
    )
    failed = [one for one in outcomes if isinstance(one, BaseException)]
    assert len(failed) == 1
    assert isinstance(failed[0], Conflict)
    assert failed[0].code == "cycle"
    assert len(await codes(database, subtree="op")) == 5


async def test_a_party_goes_nowhere_its_kind_or_plan_does_not_fit(
    world: World, database: Database
) -> None:
    await small_tree(database)
    with pytest.raises(InvalidInput):
        await tree.move_party(database, "r2", parent="c1", reason="x", actor=WHO)
    with pytest.raises(Conflict, match="stands there already"):
        await tree.move_party(database, "s1", parent="r1", reason="x", actor=WHO)
    # Sold by a plan of r1, which would not stand above it any more.
    world.sql(
        "INSERT INTO rate_plan (code, name, owner_id) SELECT code || '-plan', 'P', id FROM party"
        " WHERE code IN ('r1', 'r2')"
    )
    await parties.change_party(database, "s1", {"plan": "r1-plan"}, actor=WHO)
    with pytest.raises(InvalidInput, match="does not stand above s1"):
        await parties.change_party(database, "s1", {"plan": "r2-plan"}, actor=WHO)
    with pytest.raises(Conflict) as error:
        await tree.move_party(database, "s1", parent="r2", reason="x", actor=WHO)
    assert error.value.code == "foreign_plan"
    moved = await tree.move_party(
        database, "s1", parent="r2", plan="r2-plan", reason="x", actor=WHO
    )
    assert (moved.parent, moved.plan) == ("r2", "r2-plan")


async def test_a_call_that_is_up_keeps_its_legs_when_its_party_moves(
    world: World, database: Database
) -> None:
    """Settled by whom it was authorised with; the next call has the new ones."""
    r1, r2 = (world.customer(code, kind="reseller") for code in ("r1", "r2"))
    customer = world.customer("acme", parent=r1)
    async with runtime(world.url) as parts:
        call = {"switch": "sw1", "party": "acme", "called": UK_FIXED}
        await parts.charging.authorise(session_id="c1", **call)
        await tree.move_party(database, "acme", parent="r2", reason="sold", actor=WHO)
        await parts.directory.refresh("party", customer.id)
        await parts.charging.authorise(session_id="c2", **call)
        legs = {}
        for name in ("c1", "c2"):
            await parts.charging.start(switch="sw1", session_id=name)
            await parts.charging.stop(switch="sw1", session_id=name, used_ms=10_000)
            session = await parts.charging.session(f"sw1/{name}")
            legs[name] = [(leg.party_id, leg.charged) for leg in session.legs]
    price = Decimal("0.1")
    assert legs["c1"] == [(customer.id, price), (r1.id, price)]
    assert legs["c2"] == [(customer.id, price), (r2.id, price)]


async def test_a_scope_moves_within_its_own_subtree_only(database: Database) -> None:
    await small_tree(database)
    r1 = (await parties.get_party(database, "r1")).id
    await make(database, "s2", "reseller", "r1")
    moved = await tree.move_party(database, "c1", parent="s2", reason="x", actor=WHO, scope=r1)
    assert moved.parent == "s2"
    for code, parent, error in (
        ("c1", "r2", InvalidInput),
        ("c1", "op", InvalidInput),
        ("c1", None, InvalidInput),
        ("r2", "r1", NotFound),
        ("r1", "s1", Forbidden),
    ):
        with pytest.raises(error):
            await tree.move_party(database, code, parent=parent, reason="x", actor=WHO, scope=r1)


# --- overcommit ----------------------------------------------------------------------------------


async def with_money(world: World, database: Database, share: str) -> None:
    """A reseller with 100 USD that may give its children ``share`` times that."""
    reseller = world.customer("r1", kind="reseller", balance="100")
    for code in ("a", "b"):
        world.customer(code, parent=reseller, balance="0")
    await parties.change_party(database, "r1", {"overcommit": Decimal(share)}, actor=WHO)


async def top_up(database: Database, party: str, amount: str) -> None:
    await wallets.top_up(
        database,
        party=party,
        currency="USD",
        amount=Decimal(amount),
        reason="x",
        actor=WHO,
        clock=lambda: datetime.now(UTC),
    )


async def limit(database: Database, party: str, amount: str) -> None:
    await wallets.change_credit_limit(
        database, party=party, currency="USD", limit=Decimal(amount), reason="x", actor=WHO
    )


async def test_children_are_given_no_more_than_the_share_of_what_is_there(
    world: World, database: Database
) -> None:
    """150 in all: 90 of money and 60 of credit fit, a cent more does not, by either."""
    await with_money(world, database, "1.5")
    await top_up(database, "a", "90")
    await limit(database, "b", "60")
    for more in (top_up(database, "a", "0.01"), limit(database, "b", "60.01")):
        with pytest.raises(Conflict) as error:
            await more
        assert error.value.code == "overcommitted"
        assert "would have 150.01 USD together, and may have 150.00" in error.value.detail
        assert "1.5 times the 100.00 that r1 has" in error.value.detail
    # Less is always possible, and makes room.
    await limit(database, "b", "50")
    await top_up(database, "a", "10")


async def test_a_wallet_with_a_limit_is_refused_whole(world: World, database: Database) -> None:
    await with_money(world, database, "1")
    with pytest.raises(Conflict, match=r"may have 0\.00"):
        await wallets.create_wallet(
            database, party="a", currency="EUR", credit_limit=Decimal(1), actor=WHO
        )
    assert [w.currency for w in await wallets.get_wallets(database, "a")] == ["USD"]


async def test_two_gifts_at_once_do_not_slip_through_together(
    world: World, database: Database
) -> None:
    await with_money(world, database, "1")
    outcomes = await asyncio.gather(
        limit(database, "a", "60"), limit(database, "b", "60"), return_exceptions=True
    )
    assert sorted(type(one).__name__ for one in outcomes) == ["Conflict", "NoneType"]


async def test_without_a_share_nobody_looks(world: World, database: Database) -> None:
    reseller = world.customer("r1", kind="reseller", balance="1")
    world.customer("a", parent=reseller, balance="0")
    await limit(database, "a", "1000")


async def test_the_share_is_the_operators_to_set(world: World, database: Database) -> None:
    reseller = world.customer("r1", kind="reseller")
    below = world.customer("s1", kind="reseller", parent=reseller)
    with pytest.raises(Forbidden) as error:
        await parties.change_party(
            database, below.code, {"overcommit": Decimal(9)}, actor=WHO, scope=reseller.id
        )
    assert error.value.code == "operator_only"
    for wrong in ("-1", "10000", "0.00001"):
        with pytest.raises(InvalidInput):
            await parties.change_party(database, "r1", {"overcommit": Decimal(wrong)}, actor=WHO)
