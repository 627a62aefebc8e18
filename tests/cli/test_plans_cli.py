"""The commands for plan terms, zones, hours, exchange rates and office codes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import Command
from tests.support import CARD, PLAN, World

TERMS = {
    "promotions": [{"code": "spring", "percent": "10", "destinations": ["uk"], "profile": "night"}],
    "tiers": [{"code": "volume", "steps": [{"from": 0, "percent": "100"}, {"from": 500, "percent": 90}]}],
    "commitment": {"amount": "50", "currency": "USD"},
    "refunds": [{"service": "sms", "within_hours": 48}],
}  # fmt: skip


@pytest.fixture
def world(on_database: str) -> Iterator[World]:
    with World(on_database) as made:
        yield made


def test_terms_are_set_from_a_file_and_shown_as_they_can_be_given_again(
    tollkeeper: Command, world: World, tmp_path: Path
) -> None:
    file = tmp_path / "terms.json"
    file.write_text(json.dumps(TERMS))
    assert tollkeeper("zone", "create", "uk", "--prefix", "44,4470").code == 0
    made = tollkeeper(
        "time-profile", "create", "night", "--window", "mon-sun 22:00-06:00", "--timezone", "Europe/London"
    )  # fmt: skip
    assert made.out == "time profile night created: mon-sun 22:00-06:00 (Europe/London)\n"
    ran = tollkeeper("plan", "terms", PLAN, "--file", str(file))
    assert (ran.code, ran.err) == (0, "")
    assert ran.out == (
        f"plan {PLAN}: 1 promotion, 1 tier, at least 50.00 USD a month, "
        "undelivered sms given back within 48 h\n"
    )
    shown = tollkeeper("plan", "terms", PLAN).out
    assert json.loads(shown)["tiers"][0]["steps"][1] == {"from": 500, "percent": "90"}
    file.write_text(shown)
    assert tollkeeper("plan", "terms", PLAN, "--file", str(file)).out == ran.out
    ran = tollkeeper("zone", "delete", "uk")
    assert (ran.code, "take it out there first" in ran.err) == (1, True)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{", "truncated"),
        ('{"tiers": [{"code": "a"}]}', "missing required field `steps` - at `$.tiers[0]`"),
        ('{"tier": []}', "unknown field `tier`"),
        ('{"packages": [{"code": "a", "units": 0}]}', "packages[0].units: 0 is out of bounds"),
    ],
)
def test_a_file_that_is_wrong_is_told_with_the_place(
    tollkeeper: Command, world: World, tmp_path: Path, text: str, told: str
) -> None:
    file = tmp_path / "terms.json"
    file.write_text(text)
    ran = tollkeeper("plan", "terms", PLAN, "--file", str(file))
    assert (ran.code, ran.err.count("\n")) == (1, 1)
    assert told in ran.err
    ran = tollkeeper("plan", "terms", PLAN, "--file", str(tmp_path / "none.json"))
    assert "No such file" in ran.err


def test_a_card_counts_under_conditions_that_are_written_after_it(
    tollkeeper: Command, world: World
) -> None:
    world.card("deck")
    ran = tollkeeper(
        "plan", "set", PLAN, "--card", "deck:promotion:origins=44,33;cli=cli", "--card", f"{CARD}:fallback"
    )  # fmt: skip
    assert ran.out == (
        f"plan {PLAN} is sold by deck (promotion) when origins=44,33; cli=cli, {CARD} (fallback)\n"
    )
    ran = tollkeeper("plan", "set", PLAN, "--card", "deck:plan:colour=blue")
    assert 'card: "colour=blue" is no condition' in ran.err
    world.customer()
    for caller, card in (("390612345678", CARD), ("33123456789", "deck")):
        ran = tollkeeper("price", "442071838750", "--party", "acme", "--caller", caller)
        assert f"card {card} version 1" in ran.out, ran.err
    for whose in ((), ("--party", "acme", "--card", "deck")):
        ran = tollkeeper("price", "442071838750", *whose)
        assert (ran.code, "either a card or a party" in ran.err) == (1, True)


def test_zones_and_hours_are_listed_shown_and_changed(tollkeeper: Command, world: World) -> None:
    tollkeeper("zone", "create", "uk", "--prefix", "44", "--name", "Britain")
    assert tollkeeper("zone", "set", "uk", "--prefix", "44,4420").out == "zone uk: 2 prefix(es)\n"
    assert tollkeeper("zone", "show", "uk").out == "44\n4420\n"
    assert "Britain" in tollkeeper("zone", "list").out
    assert tollkeeper("zone", "delete", "uk").out == "zone uk deleted\n"
    tollkeeper("time-profile", "create", "day", "--window", "mon 08:00-20:00")
    ran = tollkeeper("time-profile", "set", "day", "--timezone", "Europe/Rome")
    assert ran.out == "time profile day: mon 08:00-20:00 (Europe/Rome)\n"
    assert "mon 08:00-20:00 (Europe/Rome)" in tollkeeper("time-profile", "list").out
    assert tollkeeper("time-profile", "show", "day").out.startswith("day (day): mon")
    assert tollkeeper("time-profile", "delete", "day").code == 0
    assert "nothing to change" in tollkeeper("zone", "set", "uk").err


def test_cards_of_other_units_and_cost_plus_cards(tollkeeper: Command, world: World) -> None:
    ran = tollkeeper("rates", "create", "texts", "--currency", "USD", "--service", "sms")
    assert ran.out == "card texts created, prices in USD per 1\n"
    ran = tollkeeper(
        "rates", "create", "plus", "--currency", "USD", "--cost-card", CARD, "--markup-percent", "10"
    )  # fmt: skip
    assert ran.out == f"card plus created, the prices of {CARD}, raised, in USD\n"
    ran = tollkeeper("rates", "lookup", "442071838750", "--card", "plus")
    assert "a call of 60 s costs 0.66" in ran.out
    ran = tollkeeper("rates", "create", "bad", "--currency", "USD", "--floor", "1")
    assert "floor: this is for cost-plus cards" in ran.err


def test_a_message_has_a_price_of_its_own(
    tollkeeper: Command, world: World, tmp_path: Path
) -> None:
    """A sheet without increments bills each message, and prices are shown for one."""
    tollkeeper("rates", "create", "texts", "--currency", "USD", "--service", "sms")
    sheet = tmp_path / "texts.csv"
    sheet.write_text("prefix,destination,rate\n44,United Kingdom,0.04\n")
    ran = tollkeeper("rates", "import", str(sheet), "--card", "texts", "--activate")
    assert ran.code == 0, ran.err
    ran = tollkeeper("rates", "lookup", "442071838750", "--card", "texts")
    assert "1 unit(s) cost 0.04, 3 cost 0.12 USD" in ran.out
    sheet.write_text("prefix,destination,rate\n44,United Kingdom,0.05\n")
    ran = tollkeeper("rates", "import", str(sheet), "--card", "texts")
    assert "0.04" in ran.out, "what changes is shown by the price of one message"
    assert "0.05" in ran.out


def test_exchange_rates_are_set_imported_and_shown(
    tollkeeper: Command, on_database: str, tmp_path: Path
) -> None:
    ran = tollkeeper("fx", "set", "EUR", "USD", "1.0847", "--day", "2026-03-02")
    assert ran.out == "1 EUR = 1.0847 USD from 2026-03-02 on\n"
    file = tmp_path / "rates.csv"
    file.write_text("EUR,USD,2026-03-02,1.0850\nEUR,GBP,2026-03-02,0.85\nEUR,GBP,soon,1\n")
    ran = tollkeeper("fx", "import", str(file))
    assert ran.code == 1
    assert (
        "2 rates (csv) of 2026-03-02 to 2026-03-02: 1 new, 1 corrected, 0 as they were" in ran.out
    )
    assert "not a day" in ran.out
    ran = tollkeeper("fx", "show", "--quote", "USD")
    assert "1.085 USD" in ran.out
    assert "0.85" not in ran.out
    assert "not a number" in tollkeeper("fx", "set", "EUR", "USD", "much").err
    assert "give a day" in tollkeeper("fx", "show", "--day", "soon").err


def test_office_codes_are_imported(tollkeeper: Command, on_database: str, tmp_path: Path) -> None:
    file = tmp_path / "codes.csv"
    file.write_text("npa,nxx,state,lata,ocn\n212,555,NY,132,9104\n")
    ran = tollkeeper("nanp", "import", str(file))
    assert (ran.code, ran.out) == (
        0,
        "1 office codes, 1 of them new or changed; 1 are known now\n",
    )
    assert "No such file" in tollkeeper("nanp", "import", str(tmp_path / "none")).err
