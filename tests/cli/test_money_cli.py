"""Vouchers, transfers, bonus and terms on the command line."""

from __future__ import annotations

import csv
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import Command
from tests.support import World

LATER = "2099-12-31"


@pytest.fixture
def world(on_database: str) -> Iterator[World]:
    """Two customers of the settings' database: acme with 10, brook with nothing."""
    with World(on_database) as made:
        made.customer("acme", balance="10")
        made.customer("brook", balance="0")
        yield made


def make(tollkeeper: Command, out: Path, *more: str) -> list[str]:
    ran = tollkeeper(
        "vouchers", "make", "spring", "3", "5", "USD", "--valid-to", LATER, "--out", str(out), *more
    )
    assert ran.code == 0, ran.err
    with out.open(newline="") as lines:
        return [row["code"] for row in csv.DictReader(lines)]


@pytest.mark.usefixtures("world")
def test_codes_are_written_into_a_file_of_ones_own_and_redeemed(
    tollkeeper: Command, tmp_path: Path
) -> None:
    out = tmp_path / "codes.csv"
    codes = make(tollkeeper, out)
    assert len(codes) == 3
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    done = tollkeeper("vouchers", "redeem", "brook", codes[0])
    assert "brook has redeemed 5.00 USD; balance 5.00" in done.out, done.err
    assert "redeemed 5.00 USD before" in tollkeeper("vouchers", "redeem", "brook", codes[0]).out
    used = tollkeeper("vouchers", "redeem", "acme", codes[0])
    assert (used.code, used.err.strip()) == (
        1,
        "tollkeeper: this voucher has been redeemed already",
    )
    assert "of batch spring" in tollkeeper("vouchers", "block", "--code", codes[1]).out
    assert "1 vouchers are left" in tollkeeper("vouchers", "block", "--batch", "spring").out
    assert "blocked" in tollkeeper("vouchers", "list").out


@pytest.mark.usefixtures("world")
def test_a_file_that_is_there_is_never_overwritten_and_nothing_is_made(
    tollkeeper: Command, tmp_path: Path
) -> None:
    out = tmp_path / "codes.csv"
    out.write_text("mine")
    ran = tollkeeper(
        "vouchers", "make", "spring", "3", "5", "USD", "--valid-to", LATER, "--out", str(out)
    )
    assert ran.code == 1
    assert "cannot be made: File exists" in ran.err
    assert out.read_text() == "mine"
    assert "0 batches" in tollkeeper("vouchers", "list").out
    wrong = tollkeeper(
        "vouchers", "make", "x", "0", "5", "USD", "--valid-to", LATER, "--out", str(tmp_path / "x")
    )
    assert wrong.code == 1
    assert not (tmp_path / "x").exists()


def test_money_is_moved_given_and_bounded(tollkeeper: Command, world: World) -> None:
    moved = tollkeeper("wallet", "transfer", "acme", "brook", "USD", "4")
    assert moved.code == 0, moved.err
    assert "only 6.00 USD of acme's own money" in tollkeeper("wallet", "transfer", "acme", "brook", "USD", "7").err  # fmt: skip
    assert tollkeeper("wallet", "bonus", "brook", "USD", "2.5", "--expires", LATER).code == 0
    shown = tollkeeper("wallet", "bonuses", "brook", "USD")
    assert "bonus_first" in shown.out
    assert shown.out.count("2.50") == 2
    assert tollkeeper("wallet", "limit", "acme", "USD", "20").code == 0
    assert tollkeeper("wallet", "temporary-limit", "acme", "USD", "5", "--until", LATER).code == 0
    assert tollkeeper("wallet", "caps", "acme", "USD", "--daily", "3", "--alert-at", "80").code == 0
    (row,) = world.sql(
        "SELECT w.* FROM wallet w JOIN party p ON p.id = w.party_id WHERE p.code = 'acme'"
    )
    assert (row["agreed_limit"], row["credit_limit"]) == (20, 25)
    assert (row["daily_cap"], row["alert_at"]) == (3, [80])
    assert tollkeeper("party", "set", "acme", "--billing", "prepaid").code == 0
    assert tollkeeper("wallet", "caps", "acme", "USD", "--daily", "none").code == 0
    (row,) = world.sql(
        "SELECT w.* FROM wallet w JOIN party p ON p.id = w.party_id WHERE p.code = 'acme'"
    )
    assert (row["agreed_limit"], row["credit_limit"], row["daily_cap"]) == (20, 0, None)
    nothing = tollkeeper("wallet", "caps", "acme", "USD")
    assert "nothing to change" in nothing.err
    assert tollkeeper("party", "set", "acme", "--status", "frozen").code == 0
    assert "acme is frozen" in tollkeeper("wallet", "transfer", "acme", "brook", "USD", "1").err
