"""What is written is finished, explained, and true on every machine."""

from __future__ import annotations

import ast
import re

from tests.tidy.sources import ROOT, SRC, parse, python_files, text_files, where

# Put together so that this file does not find itself.
UNFINISHED = re.compile(
    r"\b(" + "|".join(["TO" + "DO", "FIX" + "ME", "X" + "XX", "HA" + "CK"]) + r")\b"
)
MACHINE_PATH = re.compile(r"(?<![\w.])/(wo" + r"rk|home/\w+|Users/\w+)/|\.py" + r"env/")


def lines_with(pattern: re.Pattern[str]) -> list[str]:
    return [
        f"{where(path, number)} {line.strip()}"
        for path, text in text_files()
        for number, line in enumerate(text.splitlines(), 1)
        if pattern.search(line)
    ]


def test_nothing_is_left_unfinished() -> None:
    assert lines_with(UNFINISHED) == []


def test_no_path_of_one_machine_is_written_down() -> None:
    assert lines_with(MACHINE_PATH) == []


def test_the_lock_files_name_no_package_index() -> None:
    for name in ("base.lock", "dev.lock"):
        text = (ROOT / "requirements" / name).read_text()
        assert "--hash=sha256:" in text
        assert "index-url" not in text
        assert "://" not in text


def test_all_that_is_public_has_a_docstring() -> None:
    missing = []
    for path in python_files(SRC):
        tree = parse(path)
        if not ast.get_docstring(tree):
            missing.append(where(path, 1))
        missing += [
            f"{where(path, node.lineno)} {node.name}"
            for node in public_definitions(tree)
            if not ast.get_docstring(node)
        ]
    assert missing == []


def public_definitions(
    tree: ast.Module,
) -> list[ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef]:
    """Functions and classes of the module, and the functions of its classes, without _names."""
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    top = [node for node in tree.body if isinstance(node, kinds) and not node.name.startswith("_")]
    inner = [
        node
        for outer in top
        if isinstance(outer, ast.ClassDef)
        for node in outer.body
        if isinstance(node, kinds) and not node.name.startswith("_")
    ]
    return [*top, *(node for node in inner if not is_overload(node))]


def is_overload(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> bool:
    return any(ast.unparse(each).endswith("overload") for each in node.decorator_list)
