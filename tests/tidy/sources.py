"""The files that the tidiness tests look at."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
SRC = ROOT / "src" / "tollkeeper"
IGNORED = {"__pycache__", ".git", ".venv", "data", "build", "dist"}


def python_files(*folders: Path) -> list[Path]:
    """All Python files below the folders, sorted."""
    found = {path for folder in folders for path in folder.rglob("*.py")}
    return sorted(path for path in found if not IGNORED & set(path.parts))


def text_files() -> Iterator[tuple[Path, str]]:
    """All text files of the project, hidden folders of tools left out."""
    for path in sorted(ROOT.rglob("*")):
        parts = path.relative_to(ROOT).parts
        hidden = parts[0].startswith(".") and parts[0] not in {".ci", ".gitignore"}
        if path.is_file() and not hidden and not IGNORED & set(parts):
            try:
                yield path, path.read_text(encoding="utf-8")
            except UnicodeDecodeError:
                continue


def parse(path: Path) -> ast.Module:
    """The syntax tree of one file."""
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def where(path: Path, line: int) -> str:
    """A place as editors understand it."""
    return f"{path.relative_to(ROOT)}:{line}"
