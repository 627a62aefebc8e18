"""core/ and bulk/ compute exactly, and core/ depends on nothing but its arguments."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.tidy.sources import SRC, parse, python_files, where

EXACT = [SRC / "core", SRC / "bulk"]
IMPURE_CALLS = {
    "datetime.now",
    "datetime.today",
    "datetime.utcnow",
    "date.today",
    "input",
    "open",
    "print",
    "time.monotonic",
    "time.sleep",
    "time.time",
}


def floats_in(tree: ast.Module) -> Iterator[int]:
    """The lines with a float literal or a call of float()."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, float):
            yield node.lineno
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "float":
            yield node.lineno


def impurities_in(tree: ast.Module) -> Iterator[int]:
    """The lines that read a clock, wait, print or open a file, and the async functions."""
    for node in ast.walk(tree):
        if isinstance(node, ast.AsyncFunctionDef | ast.Await):
            yield node.lineno
        if isinstance(node, ast.Call) and ast.unparse(node.func) in IMPURE_CALLS:
            yield node.lineno


def faults(folders: list[Path], find: Callable[[ast.Module], Iterator[int]]) -> list[str]:
    return [where(p, line) for p in python_files(*folders) for line in find(parse(p))]


def test_money_is_never_a_float() -> None:
    assert faults(EXACT, floats_in) == []


def test_core_reads_no_clock_and_does_no_input_or_output() -> None:
    assert faults([SRC / "core"], impurities_in) == []


@pytest.mark.parametrize("code", ["x = 0.5", "x = float(y)", "x = [1e3]"])
def test_the_search_for_floats_finds_them(code: str) -> None:
    assert list(floats_in(ast.parse(code))) == [1]


@pytest.mark.parametrize(
    "code", ["x = datetime.now(UTC)", "time.sleep(1)", "print(x)", "async def f(): pass"]
)
def test_the_search_for_impurities_finds_them(code: str) -> None:
    assert list(impurities_in(ast.parse(code))) == [1]
