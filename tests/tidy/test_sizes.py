"""Files and functions stay small enough to be read at one sitting."""

from __future__ import annotations

import ast

from tests.tidy.sources import ROOT, SRC, parse, python_files, where

FILE_LINES_MAX = 500
FUNCTION_LINES_MAX = 70


def test_no_file_has_more_than_500_lines() -> None:
    files = [*python_files(SRC, ROOT / "tests"), *SRC.rglob("*.sql")]
    assert files
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in files}
    assert [where(path, n) for path, n in lengths.items() if n > FILE_LINES_MAX] == []


def test_no_function_has_more_than_70_lines() -> None:
    long = [
        f"{where(path, node.lineno)} {node.name}"
        for path in python_files(SRC, ROOT / "tests")
        for node in ast.walk(parse(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.end_lineno is not None
        and node.end_lineno - node.lineno >= FUNCTION_LINES_MAX
    ]
    assert long == []
