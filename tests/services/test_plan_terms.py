"""What may be said in a plan's terms, and what is refused with its place."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from tests.support import CARD, PLAN, World
from tollkeeper.errors import Conflict, InvalidInput, NotFound
from tollkeeper.services import fx, parties, plan_names, plan_terms, plans, rates
from tollkeeper.services.plan_names import (
    ProfileChange,
    ProfileWindow,
    ZoneChange,
    read_window,
    write_window,
)
from tollkeeper.services.plans import PlanCard
from tollkeeper.store.db import Database
from tollkeeper.store.plans import CardTerms, PlanTerms

WHOLE = {
    "promotions": [
        {"code": "spring", "percent": "10", "destinations": ["europe"], "parties": ["acme"],
         "begins_at": "2026-03-01T00:00:00Z", "ends_at": "2026-04-01T00:00:00Z"},
        {"code": "night", "percent": "20", "destinations": ["1"], "profile": "night"},
    ],
    "surcharges": [{"code": "noneea", "absolute": "0.1", "not_origins": ["europe"], "no_cli": True}],
    "tiers": [{"code": "volume", "period": "month",
               "steps": [{"from": 0, "percent": "100"}, {"from": 10000, "percent": "90"}]}],
    "packages": [{"code": "free", "units": 100, "destinations": ["europe"], "exclusions": ["447"]}],
    "fx_margin": "2",
    "commitment": {"amount": "500", "currency": "USD"},
    "refunds": [{"service": "sms", "within_hours": 48}, {"service": "did", "undelivered": "none"}],
}  # fmt: skip


def terms(**changes: Any) -> PlanTerms:
    return msgspec.convert(changes, PlanTerms)


@pytest.fixture
def world(database_url: str) -> Iterator[World]:
    with World(database_url) as made:
        made.customer("acme")
        yield made


@pytest.fixture
async def database(world: World) -> AsyncIterator[Database]:
    made = Database(world.url, size=2)
    await made.open()
    await plan_names.create_zone(made, code="europe", prefixes=["33", "44"], actor="t")
    await plan_names.create_profile(
        made, code="night", timezone="UTC", windows=[read_window("mon-sun 22:00-06:00")], actor="t"
    )
    yield made
    await made.close()


async def put(database: Database, **changes: Any) -> PlanTerms:
    return await plan_terms.set_terms(database, PLAN, terms(**changes), actor="t")


async def refused(database: Database, field: str, code: str = "", **changes: Any) -> str:
    with pytest.raises(InvalidInput) as caught:
        await put(database, **changes)
    error = caught.value
    assert (error.field, error.code) == (field, code or error.code), error.detail
    assert error.detail.startswith(f"{field}:"), error.detail
    assert await plan_terms.get_terms(database, PLAN) == PlanTerms()
    return error.detail


async def test_terms_are_given_back_as_they_were_given_and_leave_a_trail(
    database: Database, world: World
) -> None:
    stored = await put(database, **WHOLE)
    assert await plan_terms.get_terms(database, PLAN) == stored
    written = msgspec.json.decode(msgspec.json.encode(stored))
    assert written["tiers"][0]["steps"] == WHOLE["tiers"][0]["steps"]  # type: ignore[index]
    assert "period" not in written["tiers"][0], "what is the default is not repeated"
    (detail,) = world.sql("SELECT detail FROM audit WHERE action = 'plan.terms'")
    assert detail["detail"]["fx_margin"] == "2"
    await put(database)
    assert await plan_terms.get_terms(database, PLAN) == PlanTerms()
    with pytest.raises(NotFound):
        await plan_terms.get_terms(database, "nothing")
    with pytest.raises(NotFound):
        await plan_terms.set_terms(database, "nothing", PlanTerms(), actor="t")


STEPS = [{"from": 0, "price": "1"}]


@pytest.mark.parametrize(
    ("field", "code", "changes"),
    [
        ("promotions[0].destinations[1]", "unknown_zone",
         {"promotions": [{"code": "a", "percent": "5", "destinations": ["44", "asia"]}]}),
        ("promotions[0].profile", "unknown_time_profile",
         {"promotions": [{"code": "a", "percent": "5", "profile": "day"}]}),
        ("promotions[0].parties[0]", "unknown_party",
         {"promotions": [{"code": "a", "percent": "5", "parties": ["nobody"]}]}),
        ("promotions[0].percent", "invalid_plan", {"promotions": [{"code": "a", "percent": "101"}]}),
        ("promotions[0].begins_at", "",
         {"promotions": [{"code": "a", "percent": "5", "begins_at": "2026-03-01T00:00:00"}]}),
        ("promotions[0].code", "invalid_code", {"promotions": [{"code": "a b", "percent": "5"}]}),
        ("promotions[1].code", "invalid_plan",
         {"promotions": [{"code": "a", "percent": "5"}, {"code": "a", "percent": "6"}]}),
        ("refunds[0].service", "", {"refunds": [{"service": "S M S"}]}),
        ("refunds[1].service", "invalid_plan", {"refunds": [{"service": "sms"}, {"service": "sms"}]}),
        ("refunds[0].within_hours", "", {"refunds": [{"service": "sms", "within_hours": 0}]}),
        ("refunds[0].within_hours", "", {"refunds": [{"service": "sms", "within_hours": 8785}]}),
        ("refunds[0].within_hours", "invalid_plan",
         {"refunds": [{"service": "sms", "undelivered": "none", "within_hours": 1}]}),
        ("surcharges[0]", "invalid_plan", {"surcharges": [{"code": "a", "origins": ["europe"]}]}),
        ("surcharges[0].origins[0]", "unknown_zone",
         {"surcharges": [{"code": "a", "absolute": "1", "origins": ["mars"]}]}),
        ("surcharges[0].absolute", "", {"surcharges": [{"code": "a", "absolute": "0.000000001"}]}),
        ("tiers[0].steps[0].from", "invalid_plan",
         {"tiers": [{"code": "a", "steps": [{"from": 5, "price": "1"}]}]}),
        ("tiers[0].steps[1].from", "invalid_plan",
         {"tiers": [{"code": "a", "steps": [*STEPS, {"from": 0, "price": "2"}]}]}),
        ("tiers[0].steps[0].price", "invalid_plan",
         {"tiers": [{"code": "a", "steps": [{"from": 0, "price": "1", "percent": "90"}]}]}),
        ("tiers[0].steps[1].price", "invalid_plan",
         {"tiers": [{"code": "a", "retroactive": True, "steps": [*STEPS, {"from": 9, "price": "2"}]}]}),
        ("tiers[0].period", "invalid_plan", {"tiers": [{"code": "a", "period": "year", "steps": STEPS}]}),
        ("tiers[0].service", "", {"tiers": [{"code": "a", "service": "Voice!", "steps": STEPS}]}),
        ("packages[0].units", "invalid_plan", {"packages": [{"code": "a", "units": 0}]}),
        ("packages[0].exclusions", "invalid_plan",
         {"packages": [{"code": "a", "units": 1, "destinations": ["447"], "exclusions": ["44"]}]}),
        ("packages[0].currency", "", {"packages": [{"code": "a", "units": 1, "price": "5"}]}),
        ("fx_margin", "", {"fx_margin": "-100"}),
        ("commitment.amount", "", {"commitment": {"amount": "0", "currency": "USD"}}),
        ("commitment.currency", "", {"commitment": {"amount": "1", "currency": "dollars"}}),
    ],
)  # fmt: skip
async def test_what_is_wrong_is_named_by_its_place(
    database: Database, field: str, code: str, changes: dict[str, Any]
) -> None:
    await refused(database, field, code, **changes)


async def test_promotions_that_can_meet_are_refused_and_both_are_named(database: Database) -> None:
    """Places are those of the document, although each service is looked at apart."""
    sentence = await refused(
        database,
        "promotions[2]",
        "promotions_overlap",
        promotions=[
            {"code": "texts", "percent": "5", "service": "sms"},
            {"code": "uk", "percent": "5", "service": "voice", "destinations": ["44"]},
            {"code": "all", "percent": "5", "service": "voice", "destinations": ["europe"]},
        ],
    )
    assert "all overlaps promotion uk (promotions[1])" in sentence
    both = {"code": "every", "percent": "5"}
    await refused(
        database,
        "promotions[1]",
        "promotions_overlap",
        promotions=[{"code": "texts", "percent": "5", "service": "sms"}, both],
    )
    await put(
        database,
        promotions=[
            {"code": "texts", "percent": "5", "service": "sms"},
            {"code": "calls", "percent": "5", "service": "voice"},
        ],
    )


# --- zones and hours -----------------------------------------------------------------------------


async def test_a_zone_that_is_used_stays_and_a_change_must_leave_plans_sound(
    database: Database,
) -> None:
    await put(
        database,
        promotions=[
            {"code": "a", "percent": "5", "destinations": ["europe"]},
            {"code": "b", "percent": "6", "destinations": ["49"]},
        ],
    )
    with pytest.raises(Conflict, match="the plan retail uses the zone europe") as caught:
        await plan_names.delete_zone(database, "europe", actor="t")
    assert caught.value.code == "zone_in_use"
    with pytest.raises(InvalidInput, match=r"the plan retail uses this, and .* overlaps"):
        await plan_names.change_zone(database, "europe", ZoneChange(prefixes=["49"]), actor="t")
    changed = await plan_names.change_zone(
        database, "europe", ZoneChange(name="All", prefixes=["33"]), actor="t"
    )
    assert (changed.name, changed.prefixes) == ("All", ("33",))
    await put(database)
    await plan_names.delete_zone(database, "europe", actor="t")
    assert await plan_names.list_zones(database) == []
    with pytest.raises(NotFound):
        await plan_names.get_zone(database, "europe")


async def test_hours_that_are_used_stay(database: Database) -> None:
    await put(database, promotions=[{"code": "a", "percent": "5", "profile": "night"}])
    with pytest.raises(Conflict) as caught:
        await plan_names.delete_profile(database, "night", actor="t")
    assert caught.value.code == "time_profile_in_use"
    later = ProfileChange(windows=[read_window("mon-sun 23:00-05:00")], timezone="Europe/Rome")
    changed = await plan_names.change_profile(database, "night", later, actor="t")
    assert [write_window(w) for w in changed.windows] == ["mon-sun 23:00-05:00"]
    await put(database)
    await plan_names.delete_profile(database, "night", actor="t")
    assert await plan_names.list_profiles(database) == []


@pytest.mark.parametrize(
    ("code", "prefixes", "field"),
    [
        ("44", ["44"], "code"),
        ("uk", [], "prefixes"),
        ("uk", ["44", "x"], "prefixes[1]"),
        ("uk", ["44", "44"], "prefixes[1]"),
        ("uk", ["4" * 19], "prefixes[0]"),
        ("u k", ["44"], "code"),
    ],
)
async def test_what_is_no_zone_is_refused(
    database: Database, code: str, prefixes: list[str], field: str
) -> None:
    with pytest.raises(InvalidInput) as caught:
        await plan_names.create_zone(database, code=code, prefixes=prefixes, actor="t")
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("text", "window"),
    [
        ("mon-fri 08:00-20:00", ProfileWindow((0, 1, 2, 3, 4), 480, 1200)),
        ("sat,sun 00:00-24:00", ProfileWindow((5, 6), 0, 1440)),
        ("sat-mon 22:00-06:00", ProfileWindow((0, 5, 6), 1320, 360)),
        ("tue 09:30-09:31", ProfileWindow((1,), 570, 571)),
    ],
)
def test_hours_are_written_in_words(text: str, window: ProfileWindow) -> None:
    assert read_window(text) == window
    assert read_window(write_window(window)) == window


@pytest.mark.parametrize(
    "text", ["", "mon", "mon 8-20", "monday 08:00-20:00", "mon-fri-sun 08:00-20:00", "mon 08:00"]
)
def test_hours_that_are_written_otherwise_are_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="mon-fri"):
        read_window(text)


@pytest.mark.parametrize(
    ("windows", "zone"),
    [
        ([], "UTC"),
        (["mon 25:00-26:00"], "UTC"),
        (["mon 08:00-12:00", "mon 11:00-13:00"], "UTC"),
        (["mon 08:00-12:00"], "Mars/Olympus"),
    ],
)
async def test_what_are_no_hours_is_refused(
    database: Database, windows: list[str], zone: str
) -> None:
    with pytest.raises(InvalidInput):
        await plan_names.create_profile(
            database,
            code="day",
            timezone=zone,
            windows=[read_window(text) for text in windows],
            actor="t",
        )


# --- cards of plans ------------------------------------------------------------------------------


async def set_cards(database: Database, *cards: PlanCard) -> None:
    await plans.set_plan_cards(database, PLAN, cards, actor="t")


async def test_a_plan_without_a_card_for_some_call_is_refused(
    database: Database, world: World
) -> None:
    world.card("night-deck")
    night = PlanCard("night-deck", "promotion", CardTerms(profile="night"))
    with pytest.raises(InvalidInput) as caught:
        await set_cards(database, night)
    assert caught.value.code == "no_fallback"
    await set_cards(database, night, PlanCard(CARD, "fallback"))


@pytest.mark.parametrize(
    ("when", "field"),
    [
        (CardTerms(origins=("mars",)), "cards[0].when.origins[0]"),
        (CardTerms(profile="day"), "cards[0].when.profile"),
        (CardTerms(jurisdiction="local"), "cards[0].when.jurisdiction"),
        (CardTerms(cli="maybe"), "cards[0].when.cli"),
        (CardTerms(cli="non_cli", origins=("44",)), "cards[0].when.origins"),
    ],
)
async def test_conditions_that_cannot_be_met_are_refused(
    database: Database, world: World, when: CardTerms, field: str
) -> None:
    world.card("other")
    with pytest.raises(InvalidInput) as caught:
        await set_cards(database, PlanCard("other", "plan", when), PlanCard(CARD))
    assert caught.value.field == field
    assert (await plans.get_plan(database, PLAN)).cards == (PlanCard(CARD),)


async def test_cards_of_one_service_must_price_the_same_units(database: Database) -> None:
    for code, per in (("mega", 1_000_000), ("mebi", 1_048_576)):
        await rates.create_card(
            database, code=code, currency="USD", service="data", per=per, actor="t"
        )
    with pytest.raises(InvalidInput) as caught:
        await set_cards(database, PlanCard("mega"), PlanCard("mebi"))
    assert caught.value.code == "mixed_per"
    await set_cards(database, PlanCard(CARD), PlanCard("mega"))


async def test_a_plan_in_a_currency_that_nobody_can_pay_is_refused(
    database: Database, world: World
) -> None:
    """A wallet in the card's currency or a rate that leads to one is needed; without wallets all is open."""
    world.card("euros", currency="EUR")
    await plans.create_plan(database, code="eu", name="EU", cards=[PlanCard("euros")], actor="t")
    with pytest.raises(
        InvalidInput, match="euros is in EUR, but the party's money is in USD"
    ) as caught:
        await parties.change_party(database, "acme", {"plan": "eu"}, actor="t")
    assert (caught.value.code, caught.value.field) == ("no_wallet_for_card", "plan")
    await fx.set_rate(
        database, base="USD", quote="EUR", day=date(2026, 3, 1), rate=Decimal("0.9"), actor="t"
    )
    changed = await parties.change_party(database, "acme", {"plan": "eu"}, actor="t")
    assert changed.plan == "eu"
    await parties.create_party(database, parties.Party("new", "New", plan="eu"), actor="t")


# --- cost-plus cards -----------------------------------------------------------------------------


async def cost_plus(database: Database, cost: str = CARD, **changes: Any) -> rates.RateCard:
    values = {"code": "plus", "currency": "USD", "actor": "t", **changes}
    raised = rates.CostPlus(
        cost, **{k: values.pop(k) for k in ("percent", "floor", "ceiling") if k in values}
    )
    return await rates.create_card(database, cost_plus=raised, **values)


@pytest.mark.parametrize(
    ("field", "changes"),
    [
        ("cost_card", {"cost": "nothing"}),
        ("currency", {"currency": "EUR"}),
        ("service", {"service": "sms"}),
        ("decimals", {"decimals": 2}),
        ("per", {"per": 1}),
        ("key", {"key": "network"}),
        ("floor", {"floor": Decimal(2), "ceiling": Decimal(1)}),
        ("markup_percent", {"percent": Decimal(-101)}),
    ],
)
async def test_a_cost_plus_card_must_fit_its_cost_card(
    database: Database, field: str, changes: dict[str, Any]
) -> None:
    with pytest.raises(InvalidInput) as caught:
        await cost_plus(database, **changes)
    assert caught.value.field == field


async def test_a_cost_plus_card_has_no_rows_of_its_own_and_is_no_ones_cost(
    database: Database,
) -> None:
    made = await cost_plus(database, percent=Decimal(10))
    assert (made.cost_card, made.markup_percent) == (CARD, Decimal(10))
    with pytest.raises(InvalidInput, match="its prices are those of retail-usd; import there"):
        await rates.import_sheet(
            database, card="plus", data=b"prefix,rate\n1,1\n", actor="t", now=datetime.now(UTC)
        )
    with pytest.raises(InvalidInput, match="is a cost-plus card itself"):
        await cost_plus(database, cost="plus", code="plus-plus")
    found = await rates.lookup(database, "442071838750", card="plus", now=datetime.now(UTC))
    assert found.chosen.row.tariff.next_price == Decimal("0.66")


@pytest.mark.parametrize(
    ("service", "per", "kept"),
    [
        ("voice", None, 60),
        ("sms", None, 1),
        ("data", None, 1_000_000),
        ("data", 1_048_576, 1_048_576),
        ("fee", 1, 1),
    ],
)
async def test_a_price_is_for_the_units_of_its_service(
    database: Database, service: str, per: int | None, kept: int
) -> None:
    made = await rates.create_card(
        database, code="new", currency="USD", service=service, per=per, actor="t"
    )
    assert made.per == kept


@pytest.mark.parametrize(("service", "per"), [("voice", 1), ("data", 1500), ("sms", 60)])
async def test_a_price_for_odd_units_is_refused(database: Database, service: str, per: int) -> None:
    with pytest.raises(InvalidInput) as caught:
        await rates.create_card(
            database, code="new", currency="USD", service=service, per=per, actor="t"
        )
    assert caught.value.field == "per"


# --- a reseller's own ----------------------------------------------------------------------------


async def test_what_a_reseller_makes_is_its_own_and_it_uses_nothing_else(
    database: Database, world: World
) -> None:
    """The operator's zones, hours and cards are not there for it; the operator sees all."""
    north = world.customer("north")
    world.sql("UPDATE party SET kind = 'reseller' WHERE id = %s", north.id)
    zone = await plan_names.create_zone(
        database, code="mine", prefixes=["44"], actor="t", scope=north.id
    )
    assert zone.owner == "north"
    card = await rates.create_card(database, code="own", currency="USD", actor="t", scope=north.id)
    assert card.owner == "north"
    plan = await plans.create_plan(
        database, code="gold", name="Gold", cards=[PlanCard("own")], actor="t", scope=north.id
    )
    assert [one.code for one in await plan_names.list_zones(database, scope=north.id)] == ["mine"]
    own = terms(promotions=[{"code": "p", "percent": "5", "destinations": ["mine"]}])
    await plan_terms.set_terms(database, plan.code, own, actor="t", scope=north.id)
    assert await plan_terms.get_terms(database, plan.code, scope=north.id) == own
    for foreign in (
        {"destinations": ["europe"]},
        {"profile": "night"},
        {"parties": ["acme"]},
    ):
        wanted = terms(promotions=[{"code": "p", "percent": "5", **foreign}])
        with pytest.raises(InvalidInput):
            await plan_terms.set_terms(database, plan.code, wanted, actor="t", scope=north.id)
    with pytest.raises(NotFound):
        await plan_terms.set_terms(database, PLAN, PlanTerms(), actor="t", scope=north.id)
    with pytest.raises(NotFound):
        await plan_names.delete_zone(database, "europe", actor="t", scope=north.id)
    with pytest.raises(InvalidInput, match="there is no rate card"):
        await rates.create_card(
            database,
            code="plus",
            currency="USD",
            cost_plus=rates.CostPlus(CARD, Decimal(10)),
            actor="t",
            scope=north.id,
        )
    assert len(await plan_names.list_zones(database)) == 2
