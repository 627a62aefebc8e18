"""The directory's picture of the tree and of plans: who pays, who is suspended, what is sold how."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from decimal import Decimal
from itertools import pairwise
from typing import Any

import pytest

from tests.support import CARD, PLAN, Customer, World, runtime, until
from tollkeeper.core.markup import Markup
from tollkeeper.core.plans import PackageRule, TierRule
from tollkeeper.core.terms import TierStep
from tollkeeper.services import plan_names, plan_terms, plans, rates
from tollkeeper.services.directory import Directory
from tollkeeper.services.plan_names import ProfileWindow, ZoneChange
from tollkeeper.services.plans import PlanCard
from tollkeeper.store.plans import (
    CardTerms,
    PackageTerms,
    PlanTerms,
    PromotionTerms,
    StepTerms,
    TierTerms,
)


class Tree(World):
    """operator > north > harbour > acme > acme-101; north has a plan, harbour has none at first."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.operator = self.customer("operator")
        self.north = self.customer("north")
        self.harbour = self.customer("harbour", plan=False)
        self.acme = self.customer("acme")
        self.extension = self.customer("acme-101", plan=False)
        self.sql("UPDATE party SET kind = 'operator' WHERE id = %s", self.operator.id)
        self.sql("UPDATE party SET kind = 'user' WHERE id = %s", self.extension.id)
        line = [self.operator, self.north, self.harbour, self.acme, self.extension]
        for above, below in pairwise(line):
            self.put(below, above)
        for reseller in (self.north, self.harbour):
            self.sql("UPDATE party SET kind = 'reseller' WHERE id = %s", reseller.id)

    def put(self, party: Customer, parent: Customer) -> None:
        """Move a party, and tell everybody."""
        self.change(party, parent_id=parent.id)

    def change(self, party: Customer, **columns: Any) -> None:
        """Change a party's row, and tell everybody."""
        for name, value in columns.items():
            self.sql(f"UPDATE party SET {name} = %s WHERE id = %s", value, party.id)
        self.notify(f"party:{party.id}")


@pytest.fixture
def tree(database_url: str) -> Iterator[Tree]:
    with Tree(database_url) as world:
        yield world


@pytest.fixture
async def parts(tree: Tree) -> AsyncIterator[Any]:
    async with runtime(tree.url) as made:
        yield made


def chain(directory: Directory, party: Customer) -> list[str]:
    return [entry.code for entry in directory.chain_of(party.id)]


# --- the tree ------------------------------------------------------------------------------------


async def test_the_chain_is_who_pays_and_everybody_above_with_a_plan(
    tree: Tree, parts: Any
) -> None:
    directory = parts.directory
    assert chain(directory, tree.acme) == ["acme", "north"]
    assert chain(directory, tree.extension) == ["acme", "north"], (
        "a user spends its customer's money"
    )
    assert chain(directory, tree.north) == ["north"], "the operator never pays"
    assert directory.chain_of(999_999) == ()
    tree.change(tree.harbour, plan_id=tree.plan_id)
    await until(lambda: chain(directory, tree.extension) == ["acme", "harbour", "north"])


async def test_a_party_that_is_moved_pays_along_its_new_line(tree: Tree, parts: Any) -> None:
    """The notice names the party that was moved; those below it have moved, too."""
    directory = parts.directory
    assert chain(directory, tree.extension) == ["acme", "north"]
    tree.put(tree.harbour, tree.operator)
    await until(lambda: chain(directory, tree.extension) == ["acme"])
    assert directory.party("harbour").parent_id == tree.operator.id


async def test_a_user_with_nobody_to_pay_for_it_has_no_chain(tree: Tree, parts: Any) -> None:
    tree.change(tree.extension, parent_id=None)
    await until(lambda: chain(parts.directory, tree.extension) == [])


@pytest.mark.parametrize("status", ["suspended", "frozen"])
async def test_somebody_suspended_above_is_named(tree: Tree, parts: Any, status: str) -> None:
    directory = parts.directory
    assert directory.suspended_above(tree.extension.id) == 0
    tree.change(tree.north, status=status)
    await until(lambda: directory.suspended_above(tree.extension.id) == tree.north.id)
    assert directory.limits_of(tree.north.id).suspended
    assert not directory.limits_of(tree.acme.id).suspended, "limits are a party's own"
    tree.change(tree.acme, status="suspended")
    await until(lambda: directory.suspended_above(tree.extension.id) == tree.acme.id)
    assert directory.suspended_above(tree.harbour.id) == tree.north.id
    assert directory.suspended_above(999_999) == 999_999, "somebody unknown may do nothing"


async def test_the_terms_of_a_party_come_with_its_entry(tree: Tree, parts: Any) -> None:
    terms = {
        "billing": "prepaid",
        "rate_change": "split",
        "timezone": "Europe/London",
        "low_balance": Decimal(5),
        "low_sessions": 1,
    }
    tree.change(tree.acme, **terms)
    await until(lambda: parts.directory.party("acme").timezone == "Europe/London")
    entry = parts.directory.party("acme")
    assert (entry.billing, entry.rate_change, entry.kind) == ("prepaid", "split", "customer")
    assert (entry.limits.low_balance, entry.limits.low_sessions) == (Decimal(5), 1)


# --- plans ---------------------------------------------------------------------------------------


async def test_a_plan_is_compiled_with_all_its_terms(tree: Tree, parts: Any) -> None:
    """Zones become prefixes, minutes seconds, codes of parties ids, and hours get their zone."""
    database, directory = parts.database, parts.directory
    await plan_names.create_zone(database, code="uk", prefixes=["44", "4470"], actor="t")
    await plan_names.create_profile(
        database,
        code="night",
        timezone="Europe/London",
        windows=[ProfileWindow((0, 1), 1320, 360)],
        actor="t",
    )
    terms = PlanTerms(
        promotions=(
            PromotionTerms(
                "spring",
                Decimal(10),
                destinations=("uk", "33"),
                begins_at=datetime(2026, 3, 1, tzinfo=UTC),
                profile="night",
                parties=("acme",),
            ),
        ),
        tiers=(
            TierTerms(
                "volume",
                (StepTerms(0, price=Decimal("0.5")), StepTerms(1000, percent=Decimal(80))),
                period="day",
                retroactive=False,
            ),
        ),
        packages=(PackageTerms("free", 300, exclusions=("uk",), rollover=100),),
        fx_margin=Decimal("2.5"),
    )
    await plan_terms.set_terms(database, PLAN, terms, actor="t")
    await until(lambda: bool(directory.plan_of(tree.plan_id, "voice").promotions))
    plan = directory.plan_of(tree.plan_id, "voice")
    (promotion,) = plan.promotions
    assert promotion.destinations == ("44", "4470", "33")
    assert promotion.parties == {tree.acme.id}
    assert str(promotion.profile.timezone) == "Europe/London"
    assert plan.tiers == (
        TierRule(
            "volume",
            "day",
            (TierStep(0, Decimal("0.5")), TierStep(60_000, percent=Decimal(80))),
        ),
    )
    (package,) = plan.packages
    assert isinstance(package, PackageRule)
    assert (package.units, package.rollover, package.exclusions) == (18_000, 6_000, ("44", "4470"))
    assert plan.fx_margin == Decimal("2.5")
    assert directory.plan_of(tree.plan_id, "sms") is None
    await plan_names.change_zone(database, "uk", ZoneChange(prefixes=["44"]), actor="t")
    await until(lambda: directory.plan_of(tree.plan_id, "voice").packages[0].exclusions == ("44",))


async def test_conditions_stand_at_the_card_and_the_order_is_that_of_ties(
    tree: Tree, parts: Any
) -> None:
    other = tree.card("other")
    cards = [
        PlanCard("other", "fallback"),
        PlanCard(CARD, "plan", CardTerms(origins=("33",), cli="cli")),
    ]
    stored = await plans.set_plan_cards(parts.database, PLAN, cards, actor="t")
    assert stored.cards == (cards[1], cards[0])
    directory = parts.directory
    await until(lambda: len(directory.plan_of(tree.plan_id, "voice").cards) == 2)
    first, second = directory.plan_of(tree.plan_id, "voice").cards
    assert (first.card.code, first.conditions.origins, first.conditions.cli) == (
        CARD,
        ("33",),
        "cli",
    )
    assert (second.card.card_id, second.kind) == (other, "fallback")


async def test_a_cost_plus_card_has_the_rows_of_its_cost_card_and_follows_its_versions(
    tree: Tree, parts: Any
) -> None:
    database, directory = parts.database, parts.directory
    deck = tree.card("deck")
    tree.sql("UPDATE rate_card SET side = 'buy', decimals = 4 WHERE id = %s", deck)
    made = await rates.create_card(
        database,
        code="plus",
        currency="USD",
        cost_plus=rates.CostPlus("deck", Decimal(15), floor=Decimal("0.01")),
        actor="t",
    )
    assert (made.cost_card, made.per, made.decimals) == ("deck", 60, 4)
    await plans.set_plan_cards(database, PLAN, [PlanCard("plus")], actor="t")
    await until(lambda: directory.cards_of(tree.plan_id, "voice")[0].code == "plus")
    (placed,) = directory.plan_of(tree.plan_id, "voice").cards
    assert placed.markup == Markup(Decimal(15), floor=Decimal("0.01"))
    assert placed.card.card_id == made.id
    assert placed.card.table is directory.card(deck).table, "one table in memory for both"
    row = placed.card.table.find("442071838750", datetime.now(UTC))
    assert row is not None
    assert (row.tariff.next_price, row.tariff.decimals) == (Decimal("0.6"), 4)
    tree.sql("UPDATE rate_card SET active_version = NULL WHERE id = %s", deck)
    tree.notify(f"card:{deck}")
    await until(lambda: directory.plan_of(tree.plan_id, "voice") is None)


async def test_prices_are_per_what_the_card_says(tree: Tree, parts: Any) -> None:
    database, directory = parts.database, parts.directory
    made = await rates.create_card(
        database, code="data", currency="USD", service="data", key="network", actor="t"
    )
    assert made.per == 1_000_000
    sheet = b"prefix,destination,rate\n23415,Vodafone UK,0.002\n"
    report = await rates.import_sheet(
        database, card="data", data=sheet, actor="t", now=datetime.now(UTC)
    )
    assert report.version is not None
    await rates.activate(
        database, card="data", version=report.version, actor="t", now=datetime.now(UTC)
    )
    await plans.set_plan_cards(database, PLAN, [PlanCard("data")], actor="t")
    await until(lambda: directory.plan_of(tree.plan_id, "data") is not None)
    (placed,) = directory.plan_of(tree.plan_id, "data").cards
    assert placed.key == "network"
    row = placed.card.table.find("23415", datetime.now(UTC))
    assert row is not None
    tariff = row.tariff
    assert (tariff.per, tariff.first_interval, tariff.next_interval) == (1_000_000, 1, 1)
    assert tariff.next_price == Decimal("0.002")


async def test_a_name_that_is_gone_never_makes_more_of_a_term(tree: Tree, parts: Any) -> None:
    """A zone, hours or a party that no longer exist (put there by hand) cover nothing, not everything."""
    terms = (
        '{"promotions": [{"code": "p", "percent": "50", "destinations": ["gone"], "profile": "gone",'
        ' "parties": ["gone"]}]}'
    )
    tree.sql("UPDATE rate_plan SET terms = %s WHERE id = %s", terms, tree.plan_id)
    tree.notify(f"plan:{tree.plan_id}")
    directory = parts.directory
    await until(lambda: bool(directory.plan_of(tree.plan_id, "voice").promotions))
    (promotion,) = directory.plan_of(tree.plan_id, "voice").promotions
    assert promotion.destinations == ("gone",)
    assert promotion.profile.windows == ()
    assert promotion.parties == {0}
