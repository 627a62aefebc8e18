"""``reconcile`` and ``cdr assurance`` at the keyboard: a page for people, a file for the partner."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cyclopts import App

from tests.services.reconcile_world import MAPPING, Books, call, file_of
from tollkeeper.cli.reconcile import assurance, reconcile
from tollkeeper.errors import InvalidInput


@pytest.fixture
def books(database_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Books]:
    monkeypatch.setenv("TOLLKEEPER_DATABASE_URL", database_url)
    with Books(database_url) as made:
        yield made


def run(command: Any, *words: object) -> int:
    """Run a command as the program does."""
    app = App(result_action="return_value")
    app.default(command)
    code: int = app([str(word) for word in words])
    return code


def written(folder: Path, *lines: str) -> tuple[Path, Path]:
    """A partner's file, and the mapping to read it by."""
    data, mapping = folder / "theirs.csv", folder / "mapping.toml"
    data.write_bytes(file_of(*lines).getvalue())
    mapping.write_text(MAPPING)
    return data, mapping


def test_a_comparison_is_shown_and_written_for_the_partner(
    books: Books, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    books.record("a")
    data, mapping = written(tmp_path, call("a", price="0.75", no=1), call("[b]", called="33", no=3))
    out = tmp_path / "out.csv"
    code = run(
        reconcile, data, "--customer", "acme", "--mapping", mapping, "--csv", out, "--money", "1%",
        "--tech-prefix", "777",
    )  # fmt: skip
    shown = capsys.readouterr().out
    assert code == 3
    assert "acme counts 0.75 USD and we charged 0.60 USD: 0.15 USD (25.00 %) more" in shown
    assert "1 running numbers are missing in the file: 2" in shown
    assert "[b]" in shown
    findings = [line.split(",")[:3] for line in out.read_text().splitlines()[1:]]
    assert findings == [["price differs", "2", "a"], ["not in our records", "3", "[b]"]]


def test_a_comparison_without_findings_ends_with_0(books: Books, tmp_path: Path) -> None:
    books.record("a")
    data, mapping = written(tmp_path, call("a"))
    assert run(reconcile, data, "--vendor", "carrier", "--mapping", mapping) == 0


def test_the_file_for_the_partner_can_go_to_a_pipe(
    books: Books, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, mapping = written(tmp_path, call("a"))
    assert run(reconcile, data, "--customer", "acme", "--mapping", mapping, "--csv", "-") == 3
    captured = capsys.readouterr()
    assert captured.out.splitlines()[1].startswith("not in our records,2,a,")
    assert "Without prices" in captured.err


def test_a_file_that_is_not_there_is_named(books: Books, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"none\.csv: No such file"):
        run(reconcile, tmp_path / "none.csv", "--customer", "acme")


def test_a_day_is_looked_at(books: Books, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(assurance, "2026-03-01") == 0
    books.sql(
        "INSERT INTO cdr_quarantine (batch_id, switch, line, reason, detail, at)"
        " VALUES (%s, 'sw1', 1, 'no_rate', 'no prefix fits', '2026-03-01T10:00:00Z')",
        books.batch_id,
    )
    assert run(assurance, "2026-03-01") == 3
    shown = capsys.readouterr().out
    assert "Nothing asks for a look." in shown
    assert "no prefix fits" in shown
    with pytest.raises(InvalidInput, match="is not a day"):
        run(assurance, "yesterday")
