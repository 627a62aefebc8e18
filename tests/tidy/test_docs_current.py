"""The documentation says what the program does, and its links lead somewhere."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.tidy.sources import ROOT, where
from tools import docs, docs_states, readme_figures

LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]


def test_every_generated_page_is_current() -> None:
    """Mend it with: python tools/docs.py."""
    assert docs.outdated() == []


def test_the_session_states_page_tries_every_state_and_command() -> None:
    """A row for each pair of the transition table, so that none is described by guess."""
    page = docs_states.session_states()
    for state in (
        "authorised",
        "active",
        "closed, settled",
        "closed, expired",
        "closed, refused",
        "closed, charged at once",
    ):
        assert page.count(f"\n| {state} | ") == len(docs_states.COMMANDS)


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as code hosts make them."""
    text = FENCE.sub("", page.read_text("utf-8"))
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def broken_links(page: Path) -> Iterator[str]:
    for number, line in enumerate(page.read_text("utf-8").splitlines(), 1):
        for target in LINK.findall(line):
            if "://" in target:
                continue
            name, _, anchor = target.partition("#")
            aim = (page.parent / name).resolve() if name else page
            if not aim.exists() or (anchor and anchor not in anchors(aim)):
                yield f"{where(page, number)} {target}"


def test_no_link_leads_nowhere() -> None:
    assert [fault for page in PAGES for fault in broken_links(page)] == []


def test_every_page_is_reached_from_the_index() -> None:
    index = (ROOT / "docs" / "README.md").read_text("utf-8")
    linked = {(ROOT / "docs" / target).resolve() for target in LINK.findall(index)}
    pages = {page.resolve() for page in (ROOT / "docs").rglob("*.md")}
    assert pages - linked == {(ROOT / "docs" / "README.md").resolve()}


def test_the_figures_in_the_readme_are_those_of_the_run_that_they_name() -> None:
    """Mend it with: python tools/readme_figures.py."""
    if not readme_figures.BENCH.is_file():
        pytest.skip("there is no bench.json; make bench writes one")
    readme, bench = (ROOT / "README.md").read_text("utf-8"), readme_figures.BENCH.read_text("utf-8")
    if readme_figures.shown_run(readme) != readme_figures.digest(bench):
        pytest.skip("bench.json is of another run than the README's; see tools/readme_figures.py")
    assert readme_figures.table(bench) in readme
