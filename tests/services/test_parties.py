"""Parties and plans: what is refused, what is kept, and who is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from decimal import Decimal
from typing import Any

import psycopg
import pytest
import pytest_asyncio

from tests.support import CARD, PLAN, World
from tollkeeper.core.numbering import DialRules
from tollkeeper.errors import Conflict, InvalidInput, NotFound
from tollkeeper.services import keys, parties
from tollkeeper.services.parties import Page, Party, PlanCard
from tollkeeper.store.db import Database
from tollkeeper.store.plans import read_card_rows

ACME = Party(
    code="acme",
    name="Acme Telecom",
    plan=PLAN,
    timezone="Europe/London",
    max_sessions=30,
    max_cps=5,
    max_cost=Decimal("2.50"),
    max_seconds=3600,
    dial_rules=DialRules(tech_prefix="77#", national="0", country_code="44", international=("00",)),
)


@pytest_asyncio.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    made = Database(database_url)
    await made.open()
    yield made
    await made.close()


@pytest.fixture
def world(database_url: str) -> Iterator[World]:
    with World(database_url) as made:
        yield made


async def test_a_party_is_kept_as_it_was_given(database: Database, world: World) -> None:
    made = await parties.create_party(database, ACME, actor="tester")
    assert made.created_at is not None
    assert replace(made, id=0, created_at=None) == ACME
    assert await parties.get_party(database, "acme") == made


async def test_a_code_is_taken_once_even_in_a_race(database: Database, world: World) -> None:
    results = await asyncio.gather(
        *(parties.create_party(database, ACME, actor="tester") for _ in range(6)),
        return_exceptions=True,
    )
    assert sum(isinstance(result, Party) for result in results) == 1
    assert sum(isinstance(r, Conflict) and r.code == "party_exists" for r in results) == 5
    assert world.one("SELECT count(*) FROM audit") == 1


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"code": ""}, "code"),
        ({"code": "a b"}, "code"),
        ({"code": "x" * 64}, "code"),
        ({"name": " "}, "name"),
        ({"name": "nul\0"}, "name"),
        ({"name": "\udcff"}, "name"),
        ({"kind": "friend"}, "kind"),
        ({"status": "asleep"}, "status"),
        ({"timezone": "Mars/Olympus"}, "timezone"),
        ({"timezone": "../../etc/passwd"}, "timezone"),
        ({"timezone": "Europe"}, "timezone"),
        ({"timezone": "\0"}, "timezone"),
        ({"timezone": "A" * 100_000}, "timezone"),
        ({"max_sessions": -1}, "max_sessions"),
        ({"max_cps": 2**31}, "max_cps"),
        ({"max_seconds": 0}, "max_seconds"),
        ({"max_seconds": 86_401}, "max_seconds"),
        ({"max_cost": Decimal("-0.01")}, "max_cost"),
        ({"max_cost": Decimal("NaN")}, "max_cost"),
        ({"plan": "nothing"}, "plan"),
        ({"parent": "nobody"}, "parent"),
        ({"dial_rules": DialRules(tech_prefix="abc")}, "dial_rules.tech_prefix"),
        ({"dial_rules": DialRules(tech_prefix_required=True)}, "dial_rules.tech_prefix"),
        ({"dial_rules": DialRules(national="0")}, "dial_rules.country_code"),
        ({"dial_rules": DialRules(country_code="4444")}, "dial_rules.country_code"),
        ({"dial_rules": DialRules(international=("",))}, "dial_rules.international"),
        ({"dial_rules": DialRules(international=("0",) * 9)}, "dial_rules.international"),
    ],
)
async def test_a_party_out_of_bounds_is_refused_by_the_name_of_its_field(
    database: Database, world: World, change: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidInput) as refused:
        await parties.create_party(database, replace(ACME, **change), actor="tester")
    assert refused.value.field == field
    assert refused.value.detail.startswith(f"{field}: ")
    assert world.one("SELECT count(*) FROM party") == 0


async def test_only_an_operator_or_a_reseller_has_others_below_it(
    database: Database, world: World
) -> None:
    for code, kind, parent in (("top", "operator", None), ("shop", "reseller", "top")):
        party = Party(code=code, name=code, kind=kind, parent=parent)
        await parties.create_party(database, party, actor="tester")
    below = await parties.create_party(database, replace(ACME, parent="shop"), actor="tester")
    assert below.parent == "shop"
    with pytest.raises(InvalidInput, match="acme is a customer"):
        await parties.create_party(
            database, Party(code="b", name="b", parent="acme"), actor="tester"
        )
    with pytest.raises(InvalidInput, match="an operator has no parent"):
        await parties.create_party(
            database, Party(code="b", name="b", kind="operator", parent="top"), actor="tester"
        )


async def test_a_change_touches_only_what_it_names_and_is_written_down(
    database: Database, world: World
) -> None:
    made = await parties.create_party(database, ACME, actor="tester")
    changes = {"status": "suspended", "max_cost": None, "max_sessions": 30}
    changed = await parties.change_party(database, "acme", changes, actor="boss")
    assert changed == replace(made, status="suspended", max_cost=None)
    assert await parties.get_party(database, "acme") == changed
    (audit,) = world.sql("SELECT * FROM audit WHERE actor = 'boss'")
    assert audit["action"] == "party.change"
    assert audit["detail"] == {
        "status": ["active", "suspended"],
        "max_cost": ["2.50000000", None],
    }


async def test_changing_nothing_writes_nothing(database: Database, world: World) -> None:
    made = await parties.create_party(database, ACME, actor="tester")
    assert await parties.change_party(database, "acme", {}, actor="boss") == made
    assert await parties.change_party(database, "acme", {"name": ACME.name}, actor="boss") == made
    assert world.sql("SELECT * FROM audit WHERE actor = 'boss'") == []


async def test_racing_changes_of_different_fields_both_last(
    database: Database, world: World
) -> None:
    await parties.create_party(database, ACME, actor="tester")
    await asyncio.gather(
        parties.change_party(database, "acme", {"max_cps": 9}, actor="a"),
        parties.change_party(database, "acme", {"name": "New"}, actor="b"),
    )
    now = await parties.get_party(database, "acme")
    assert (now.max_cps, now.name) == (9, "New")


async def test_what_cannot_be_changed_is_said_so(database: Database, world: World) -> None:
    await parties.create_party(database, ACME, actor="tester")
    for field in ("code", "kind", "parent", "id"):
        with pytest.raises(InvalidInput, match=f"^{field}: "):
            await parties.change_party(database, "acme", {field: "x"}, actor="boss")
    with pytest.raises(NotFound, match="nobody"):
        await parties.change_party(database, "nobody", {"name": "x"}, actor="boss")


async def test_parties_are_listed_page_by_page(database: Database, world: World) -> None:
    codes = [f"p{n}" for n in range(5)]
    for code in codes:
        await parties.create_party(database, replace(ACME, code=code), actor="tester")
    first = await parties.list_parties(database, Page(limit=3))
    rest = await parties.list_parties(database, Page(after=first[-1].code, limit=3))
    assert [party.code for party in (*first, *rest)] == codes


async def test_every_process_is_told_of_a_change_when_it_is_done(
    database: Database, world: World
) -> None:
    with psycopg.connect(world.url, autocommit=True) as listener:
        listener.execute("LISTEN tollkeeper")
        made = await parties.create_party(database, ACME, actor="tester")
        plan = await parties.set_plan_cards(database, PLAN, [PlanCard(CARD)], actor="tester")
        new = await keys.create_key(database, name="k", scopes=["read"], actor="tester")
        with pytest.raises(InvalidInput):
            await parties.change_party(database, "acme", {"plan": "nothing"}, actor="tester")
        told = [n.payload for n in listener.notifies(timeout=10, stop_after=3)]
    assert told == [f"party:{made.id}", f"plan:{plan.id}", f"key:{new.key.id}"]


# --- plans ---------------------------------------------------------------------------------------


async def test_the_cards_of_a_plan_stand_in_the_order_in_which_they_win(
    database: Database, world: World
) -> None:
    for code in ("base", "promo", "own", "rest"):
        world.card(code, [])
    given = [
        PlanCard("rest", "fallback"),
        PlanCard("base"),
        PlanCard(CARD),
        PlanCard("promo", "promotion"),
        PlanCard("own", "customer"),
    ]
    plan = await parties.create_plan(database, code="gold", name="Gold", cards=given, actor="t")
    assert [card.card for card in plan.cards] == ["own", "promo", "base", CARD, "rest"]
    assert await parties.get_plan(database, "gold") == plan
    less = await parties.set_plan_cards(database, "gold", [PlanCard("own")], name="G", actor="t")
    assert (less.name, less.cards) == ("G", (PlanCard("own"),))


async def test_a_plan_of_wrong_cards_is_refused_whole(database: Database, world: World) -> None:
    for cards, code in (
        ([PlanCard(CARD), PlanCard("nothing")], "unknown_card"),
        ([PlanCard(CARD), PlanCard(CARD)], "repeated_card"),
        ([PlanCard("\0")], "invalid_code"),
        ([PlanCard(CARD, "best")], "invalid_input"),
        ([PlanCard(CARD)] * 101, "invalid_input"),
    ):
        with pytest.raises(InvalidInput) as refused:
            await parties.create_plan(database, code="gold", name="Gold", cards=cards, actor="t")
        assert refused.value.code == code
        with pytest.raises(InvalidInput):
            await parties.set_plan_cards(database, PLAN, cards, actor="t")
    assert [plan.code for plan in await parties.list_plans(database)] == [PLAN]
    assert (await parties.get_plan(database, PLAN)).cards == (PlanCard(CARD),)
    with pytest.raises(Conflict, match="is taken"):
        await parties.create_plan(database, code=PLAN, name="Again", actor="t")
    with pytest.raises(NotFound):
        await parties.set_plan_cards(database, "nothing", [], actor="t")


# --- keys ----------------------------------------------------------------------------------------


async def test_a_secret_is_shown_once_and_only_its_hash_is_kept(
    database: Database, world: World
) -> None:
    new = await keys.create_key(
        database, name="switch one", scopes=["charge", "charge"], switch="sw1", actor="t"
    )
    assert new.secret.startswith("tk_")
    assert len(new.secret) >= 35
    stored = world.one("SELECT hash FROM api_key WHERE id = %s", new.key.id)
    assert bytes(stored) == keys.hash_key(new.secret)
    everything = str(world.sql("SELECT * FROM api_key")) + str(world.sql("SELECT * FROM audit"))
    assert new.secret not in everything
    assert await keys.list_keys(database) == [new.key]


async def test_a_key_is_revoked_for_ever_but_not_by_itself(
    database: Database, world: World
) -> None:
    new = await keys.create_key(database, name="k", scopes=["manage"], actor="t")
    with pytest.raises(Conflict):
        await keys.revoke_key(database, new.key.id, actor="t", own_id=new.key.id)
    await keys.revoke_key(database, new.key.id, actor="t")
    (ended,) = await keys.list_keys(database)
    await keys.revoke_key(database, new.key.id, actor="t")
    assert await keys.list_keys(database) == [ended]
    assert ended.revoked_at is not None
    assert world.one("SELECT count(*) FROM audit WHERE action = 'key.revoke'") == 1
    with pytest.raises(NotFound):
        await keys.revoke_key(database, 999, actor="t")


@pytest.mark.parametrize("scopes", [[], ["root"], ["read", "\0"]])
async def test_a_key_needs_scopes_that_exist(
    database: Database, world: World, scopes: list[str]
) -> None:
    with pytest.raises(InvalidInput, match=r"^scopes: "):
        await keys.create_key(database, name="k", scopes=scopes, actor="t")


async def test_a_call_is_never_sold_by_a_buy_card(database: Database, world: World) -> None:
    """A carrier that is customer and vendor has cards of both sides on its plan."""
    deck = world.card("deck", [])
    world.sql("UPDATE rate_card SET side = 'buy' WHERE id = %s", deck)
    both = [PlanCard("deck", "customer"), PlanCard(CARD)]
    plan = await parties.set_plan_cards(database, PLAN, both, actor="t")
    assert plan.cards == tuple(both)
    async with database.read() as connection:
        rows = await read_card_rows(connection)
    assert [row.card_id for row in rows] == [world.card_id]
