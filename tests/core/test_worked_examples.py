"""Prices that others have published, where the folder with them is at hand."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tollkeeper.core.money import Rounding
from tollkeeper.core.rating import Tariff, billed_seconds, price
from tollkeeper.core.tariff import PrefixTable, RateRow

D = Decimal
FOLDER = Path(
    os.environ.get("TOLLKEEPER_SHARED_DATA", Path(__file__).parents[3] / "shared" / "data")
)
FILE = FOLDER / "worked" / "misc_worked_examples.json"
pytestmark = pytest.mark.skipif(
    not FILE.is_file(), reason="the worked examples are not here; set TOLLKEEPER_SHARED_DATA"
)


def _examples() -> list[dict[str, Any]]:
    return json.loads(FILE.read_text("utf-8")) if FILE.is_file() else []


def _tariff(example: dict[str, Any], increment: str = "") -> Tariff:
    both = example.get("increment", 1)
    first, following = increment.split("/") if increment else (example.get("initial", both), both)
    rate = D(example.get("rate_per_min", "0.06"))
    return Tariff(
        rate, rate, int(first), int(following), connect_fee=D(example.get("connect_fee", "0"))
    )


def _cases() -> list[tuple[str, dict[str, Any], dict[str, Any]]]:
    """Each single case, with the example it belongs to."""
    return [
        (f"{example['source']}-{number}", example, {**example, **case})
        for example in _examples()
        for number, case in enumerate(example.get("cases", [{}]))
        if "duration_s" in {**example, **case} or "usage_cost" in case
    ]


@pytest.mark.parametrize(
    ("example", "case"), [pytest.param(e, c, id=name) for name, e, c in _cases()]
)
def test_a_published_price_comes_out(example: dict[str, Any], case: dict[str, Any]) -> None:
    tariff = _tariff(example, case.get("inc", example.get("inc", "")))
    checked = 0
    if "billed_s" in case:
        assert billed_seconds(tariff, case["duration_s"]) == case["billed_s"]
        checked += 1
    if "usage_cost" in case:
        usage = D(case["usage_cost"])
        minimum = Tariff(usage, usage, minimum=D(case["connection_fee"]))
        assert price(minimum, 60) == D(case["amount"])
        checked += 1
    elif "amount" in case:
        assert price(tariff, case["duration_s"]) == D(case["amount"])
        checked += 1
    if "right" in case:
        assert price(tariff, case["duration_s"]) == D(case["right"])
        checked += 1
    if "engine_test_TestGetCostRoundingIssue" in case:
        up = Tariff(
            tariff.first_price, tariff.next_price, 1, 1, tariff.connect_fee,
            decimals=2, rounding=Rounding.UP,
        )  # fmt: skip
        assert price(up, case["duration_s"]) == D(case["engine_test_TestGetCostRoundingIssue"])
        checked += 1
    assert checked


def _deck_cases() -> list[tuple[list[str], str, str]]:
    return [
        ([row[0] if isinstance(row, list) else row for row in e["deck"]], c["number"], c["prefix"])
        for e in _examples()
        if "deck" in e
        for c in e["cases"]
    ]


@pytest.mark.parametrize(("deck", "number", "prefix"), _deck_cases())
def test_a_published_lookup_comes_out(deck: list[str], number: str, prefix: str) -> None:
    table = PrefixTable([RateRow(p, p, Tariff(D(1), D(1))) for p in deck])
    row = table.find(number, datetime(2026, 1, 1, tzinfo=UTC))
    assert row is not None
    assert row.prefix == prefix
