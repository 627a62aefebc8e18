"""The commands of numbers and fees."""

from __future__ import annotations

from pathlib import Path

from tests.cli.conftest import Command
from tests.services.fee_world import INVENTORY, ROMAN, plan
from tests.support import World


def test_numbers_and_fees_are_sold_by_hand(
    tollkeeper: Command, on_database: str, tmp_path: Path
) -> None:
    inventory = tmp_path / "numbers.csv"
    inventory.write_text(INVENTORY + "x,IT,,,,\n")
    with World(on_database) as world:
        world.customer("acme", plan=plan(world, "numbers", "5", "10"))
        imported = tollkeeper("numbers", "import", str(inventory))
        assert imported.out.startswith("3 numbers: 3 new, 0 known; 1 lines refused\nline 5: ")
        assert ROMAN in tollkeeper("numbers", "list", "--pattern", "*5678").out
        ordered = tollkeeper("numbers", "order", ROMAN, "--party", "acme", "--request-id", "d1")
        assert (ordered.code, ordered.err) == (0, "")
        assert ordered.out.startswith(f"order 1 of {ROMAN}: done, set-up 5.00 USD")
        taken = tollkeeper("numbers", "order", ROMAN, "--party", "acme", "--request-id", "d2")
        assert (taken.code, taken.err.count("\n")) == (1, 1)
        assert "sip:a@b" in tollkeeper("numbers", "route", ROMAN, "sip:a@b").out
        assert "quarantined" in tollkeeper("numbers", "release", ROMAN).out
        assert "assigned" in tollkeeper("numbers", "show", ROMAN).out
        once = ("--every", "once", "--amount", "8", "--currency", "USD")
        assert "8.00 USD" in tollkeeper("fees", "add", "acme", "visit", *once).out
        added = tollkeeper("fees", "add", "acme", "line", "--called", "7")
        assert "active" in added.out, added
        assert "ended" in tollkeeper("fees", "end", "3").out
        assert "3 fees" in tollkeeper("fees", "list", "--party", "acme").out
        assert "0 months" in tollkeeper("fees", "commitments").out
