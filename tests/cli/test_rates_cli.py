"""The command ``rates``: what a person types, what is answered, and how the program ends."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from tollkeeper.cli.main import run

SHEET = """prefix,destination,rate,increments
44,United Kingdom,0.02,1/1
447,United Kingdom Mobile,0.05,60/60
49,Germany,cheap,30/6
"""

Rates = Callable[..., tuple[int, str, str]]


@pytest.fixture
def rates(
    database_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Rates:
    """Run ``tollkeeper rates ...`` on a database of this test; give exit status, output, errors."""
    monkeypatch.setenv("TOLLKEEPER_DATABASE_URL", database_url)

    def call(*arguments: str) -> tuple[int, str, str]:
        status = run(["rates", *arguments])
        output = capsys.readouterr()
        return status, output.out, output.err

    assert call("create", "retail", "--currency", "USD")[0] == 0
    return call


@pytest.fixture
def sheet(tmp_path: Path) -> Path:
    path = tmp_path / "march.csv"
    path.write_text(SHEET)
    return path


def test_an_import_tells_counts_refused_rows_and_what_to_do_next(rates: Rates, sheet: Path) -> None:
    status, out, err = rates("import", str(sheet), "--card", "retail")
    assert (status, err) == (0, "")
    assert "retail: draft version 1; full sheet compared with no active version" in out
    assert "3 rows in = 2 stored + 1 refused + 0 repeated + 0 closing" in out
    assert "cheap" in out
    assert "next: tollkeeper rates activate retail 1" in out
    assert "rows/s" in out
    status, out, _ = rates("activate", "retail", "1")
    assert (status, out) == (0, "version 1 of retail is active: 2 rows\n")


def test_a_dry_run_shows_moves_and_suspicious_rows_and_stores_nothing(
    rates: Rates, sheet: Path, database_url: str
) -> None:
    assert rates("import", str(sheet), "--card", "retail", "--activate")[0] == 0
    sheet.write_text(SHEET.replace("0.02", "0.5").replace("0.05", "0.04").replace("cheap", "0.01"))
    status, out, _ = rates("import", str(sheet), "--card", "retail", "--dry-run")
    assert status == 0
    assert "dry run, nothing stored" in out
    words = [line.split()[:2] for line in out.splitlines()]
    assert ["increased", "1"] in words
    assert ["decreased", "1"] in words
    assert ["new", "1"] in words
    assert "1 suspicious" in out
    assert "largest moves (USD for a call of 60 s)" in out
    with psycopg.connect(database_url) as connection:
        assert connection.execute("SELECT count(*) FROM rate_version").fetchone() == (1,)


def test_refused_rows_are_mended_and_imported_again(rates: Rates, sheet: Path) -> None:
    rates("import", str(sheet), "--card", "retail", "--activate")
    status, mended, _ = rates("refused", "retail", "1")
    assert (status, len(mended.splitlines())) == (0, 2)
    sheet.write_text(mended.replace("cheap", "0.01"))
    status, out, _ = rates(
        "import", str(sheet), "--card", "retail", "--mode", "partial", "--activate"
    )
    assert status == 0
    assert "the card then has 3 rows" in out
    assert "version 2 is active" in out


def test_a_number_is_looked_up_and_its_price_shown(rates: Rates, sheet: Path) -> None:
    rates("import", str(sheet), "--card", "retail", "--activate")
    status, out, _ = rates("lookup", "+447700900123", "--card", "retail")
    assert status == 0
    assert "United Kingdom Mobile" in out
    assert "a call of 60 s costs 0.05, of 180 s 0.15 USD" in out
    status, _, err = rates("lookup", "9991234567", "--card", "retail")
    assert (status, "no prefix of 9991234567" in err) == (1, True)


def test_versions_cards_and_changes_are_listed_and_rolled_back(rates: Rates, sheet: Path) -> None:
    rates("import", str(sheet), "--card", "retail", "--activate")
    sheet.write_text(SHEET.replace("0.02", "0.03"))
    rates("import", str(sheet), "--card", "retail", "--activate")
    assert "increased" in rates("changes", "retail", "2")[1]
    versions = rates("versions", "retail")[1].splitlines()
    assert [line.split()[:2] for line in versions[2:]] == [["2", "active"], ["1", "retired"]]
    status, out, _ = rates("rollback", "retail")
    assert (status, out) == (0, "version 1 of retail is active again\n")
    assert rates("cards")[1].splitlines()[2].split()[-2:] == ["1", "2"]
    status, _, err = rates("rollback", "retail")
    assert (status, "no earlier version" in err) == (1, True)


def test_options_of_the_sheet_are_passed_on(rates: Rates, tmp_path: Path) -> None:
    path = tmp_path / "bare.csv"
    path.write_text("United Kingdom;44;0,0005\n")
    columns = [f"--column={text}" for text in ("destination=1", "prefix=2", "rate=3")]
    options = ["--header", "no", "--per", "second", "--increments", "1/1"]
    status, _, err = rates(
        "import", str(path), "--card", "retail", "--activate", *columns, *options
    )
    assert (status, err) == (0, "")
    assert "0.03 USD" in rates("lookup", "442071838750", "--card", "retail")[1]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("import", "nosuch.csv", "--card", "retail"), "nosuch.csv: No such file"),
        (("import", os.devnull, "--card", "retail"), "empty"),
        (("import", os.devnull, "--card", "nosuch"), 'no rate card "nosuch"'),
        (("import", os.devnull, "--card", "retail", "--timezone", "Mars"), "timezone"),
        (("import", os.devnull, "--card", "retail", "--dry-run", "--activate"), "dry run"),
        (("activate", "retail", "5"), "has no version 5"),
        (("create", "retail", "--currency", "USD"), "already"),
        (("lookup", "44", "--card", "nosuch"), 'no rate card "nosuch"'),
    ],
)
def test_what_goes_wrong_is_one_sentence_and_an_exit_status(
    rates: Rates, arguments: tuple[str, ...], said: str
) -> None:
    status, out, err = rates(*arguments)
    assert (status, out) == (1, "")
    assert said in err
    assert len(err.splitlines()) == 1
