"""Resellers on the command line: keys of a party, moves, the share of children, commissions."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.cli.conftest import Command
from tests.support import World


@pytest.fixture
def world(on_database: str) -> Iterator[World]:
    with World(on_database) as made:
        made.customer("r1", kind="reseller", balance="100")
        made.customer("r2", kind="reseller")
        yield made


def test_a_party_is_put_below_another_and_its_places_are_shown(
    world: World, tollkeeper: Command
) -> None:
    assert tollkeeper("party", "create", "shop", "--parent", "r1").code == 0
    moved = tollkeeper("party", "move", "shop", "--parent", "r2", "--reason", "sold")
    assert (moved.code, moved.out) == (0, "shop stands below r2 now\n")
    places = tollkeeper("party", "moves", "shop").out
    assert "r1" in places
    assert "sold" in places
    assert "shop" in tollkeeper("party", "list", "--subtree", "r2").out
    assert "shop" not in tollkeeper("party", "list", "--parent", "r1").out
    for wrong in (["--top", "--parent", "r1"], []):
        refused = tollkeeper("party", "move", "shop", "--reason", "x", *wrong)
        assert (refused.code, refused.err) == (1, "tollkeeper: say either --parent or --top\n")
    cycle = tollkeeper("party", "move", "r1", "--parent", "r1", "--reason", "x")
    assert cycle.err == "tollkeeper: r1 cannot be moved below itself\n"


def test_a_key_of_a_party_and_the_share_of_its_children(world: World, tollkeeper: Command) -> None:
    made = tollkeeper("key", "create", "back office", "--scope", "manage", "--party", "r1")
    assert made.code == 0
    assert made.out.startswith("tk_")
    assert "bounded to r1" in made.err
    assert "r1" in tollkeeper("key", "list").out
    assert tollkeeper("party", "set", "r1", "--overcommit", "0.5").code == 0
    asked = ("party", "create", "shop", "--parent", "r1", "--currency", "USD", "--top-up")
    refused = tollkeeper(*asked, "50.01")
    assert (refused.code, "may have 50.00" in refused.err) == (1, True), refused.err
    assert tollkeeper("party", "set", "r1", "--overcommit", "none").code == 0
    assert tollkeeper(*asked, "50.01").code == 0


def test_a_commission_is_agreed_worked_out_and_paid(world: World, tollkeeper: Command) -> None:
    agreed = tollkeeper(
        "commissions", "add", "r1", "--basis", "turnover", "--percent", "2.5", "--currency", "USD",
        "--valid-from", "2026-01-01",
    )  # fmt: skip
    assert agreed.out == "rule 1: r1 earns 2.5 % of turnover\n"
    assert "2.5" in tollkeeper("commissions", "rules").out
    shown = tollkeeper("commissions", "statement", "1", "--day", "2026-02-01")
    assert "2.5 % of turnover (0.00 turnover, 0.00 own): 0.00 USD" in shown.out
    paid = tollkeeper("commissions", "post", "1", "--day", "2026-02-01")
    assert "posted as run 1: nothing was earned" in paid.out
    assert "2026-02-01" in tollkeeper("commissions", "list", "--party", "r1").out
    assert tollkeeper("commissions", "end", "1", "--valid-to", "2026-03-01").code == 0
    wrong = tollkeeper("commissions", "post", "1", "--day", "yesterday")
    assert wrong.err == "tollkeeper: day: give a day such as 2026-03-01\n"
