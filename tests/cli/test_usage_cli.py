"""The commands on records: search, export, report, archive, purge."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.services.usage_rows import Books
from tollkeeper.cli import usage
from tollkeeper.errors import InvalidInput

TODAY = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
OLD = TODAY - timedelta(days=60)
VERY_OLD = TODAY - timedelta(days=500)

Shown = Callable[..., str]


@pytest.fixture
def books(on_database: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Books]:
    monkeypatch.setenv("TOLLKEEPER_DATA_DIR", str(tmp_path))
    made = Books(on_database)
    yield made
    made.world.close()


@pytest.fixture
def shown(capsys: pytest.CaptureFixture[str]) -> Shown:
    """Run one of the commands; what it writes to standard output."""

    def command(*arguments: str) -> str:
        capsys.readouterr()
        usage.app(list(arguments), result_action="return_value")
        return capsys.readouterr().out

    return command


def test_a_record_is_found_exported_archived_and_found_again(
    books: Books, shown: Shown, tmp_path: Path
) -> None:
    batch = books.batch()
    for n in range(5):
        books.add(batch, n, OLD + timedelta(minutes=n), caller=f"39{n}")
    span = ("--from", f"{OLD:%Y-%m-%d}", "--to", f"{OLD + timedelta(days=1):%Y-%m-%d}")
    before = shown("search", *span)
    assert "5 records" in before
    assert "march.csv:4" in before
    assert "0.62" in before
    assert f"{OLD:%Y-%m-%d}" in shown("archive", "--dry-run")
    moved = shown("archive")
    assert "5 records of 1 parts archived" in moved
    assert (tmp_path / "archive").is_dir()
    assert shown("search", *span) == before
    assert "march.csv:3" in shown("search", "--caller", "393")
    assert "5 records of 1 parts archived" in shown("archive", "--show")
    assert "5 records of 1 parts intact" in shown("archive", "--check")
    page = shown("search", *span, "--limit", "2")
    assert "more may follow: --after " in page
    out = tmp_path / "out.csv"
    shown("export", str(out), *span, "--customer", "acme")
    rows = list(csv.DictReader(io.StringIO(out.read_text("utf-8"), newline="")))
    assert [row["caller"] for row in rows] == [f"39{n}" for n in range(5)]
    shown("export", str(tmp_path / "out.xlsx"), *span)
    assert (tmp_path / "out.xlsx").read_bytes().startswith(b"PK")
    assert {path.name for path in tmp_path.iterdir()} == {
        "archive",
        "archive-work",
        "out.csv",
        "out.xlsx",
    }


def test_an_export_that_cannot_be_written_is_one_sentence(
    books: Books, shown: Shown, tmp_path: Path
) -> None:
    with pytest.raises(InvalidInput, match="No such file or directory"):
        shown("export", str(tmp_path / "none" / "out.csv"))


def test_sums_are_shown_with_ratios(books: Books, shown: Shown) -> None:
    books.days(OLD.date())
    books.world.sql(
        "INSERT INTO usage_hour VALUES (%s, %s, 1, %s, 0, 0, 0, 'voice', 'UK', '44', 'USD', '', 3, 2, 2, 90000, 90, 0,"
        " 700, 1, 1.25, 0)",
        OLD.date(), OLD, books.acme.id,
    )  # fmt: skip
    text = shown("report", "--by", "day,customer", "--from", f"{OLD:%Y-%m-%d}")
    for word in ("acme", "66.67", "1.5", "45.0", "1.25", "USD"):
        assert word in text
    asked = ("report", "--from", f"{OLD:%Y-%m-%d}", "--currency", "EUR")
    assert "not converted, without a rate into EUR: USD" in shown(*asked)
    books.world.fx("USD", "EUR", "0.8")
    books.world.sql("UPDATE fx_rate SET day = %s", OLD.date())
    text = shown(*asked)
    assert ("1.00" in text, "EUR" in text, "not converted" in text) == (True, True, False)


def test_a_purge_says_what_would_go_and_goes_only_when_told(books: Books, shown: Shown) -> None:
    batch = books.batch()
    books.add(batch, 1, VERY_OLD)
    books.add(batch, 2, OLD)
    assert "1 days before" in shown("purge")
    assert "would be deleted" in shown("purge")
    assert "march.csv:1" in shown("search", "--caller", "390612345678")
    assert "deleted" in shown("purge", "--apply")
    text = shown("search", "--caller", "390612345678")
    assert "march.csv:1" not in text
    assert "march.csv:2" in text
    with pytest.raises(InvalidInput, match="usage_keep_days"):
        shown("purge", "--before", f"{TODAY:%Y-%m-%d}", "--apply")


def test_today_is_not_archived(books: Books, shown: Shown) -> None:
    books.add(books.batch(), 1, TODAY)
    for arguments in (("--older-than", "0"), ("--day", f"{TODAY:%Y-%m-%d}")):
        with pytest.raises(InvalidInput, match="still coming"):
            shown("archive", *arguments)
