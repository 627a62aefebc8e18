"""Static routes: the longest prefix, the preference, the order of the rows."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from tollkeeper.core.routes import CONTACTS_MAX, Route, read_routes, routes_for
from tollkeeper.errors import InvalidInput

ROWS: list[dict[str, object]] = [
    {"to": "sip:{number}@192.0.2.1", "q": "0.5"},
    {"prefix": "44", "to": "sip:{number}@192.0.2.2", "q": "0.5"},
    {"prefix": "44", "to": "sip:1234{number}@192.0.2.3;transport=tcp", "q": "0.9"},
    {"prefix": "44", "to": "sip:{number}@192.0.2.4", "q": "0.5"},
    {"prefix": "447", "to": "sip:{number}@192.0.2.5"},
]


def test_the_longest_prefix_decides_then_the_preference_then_the_order() -> None:
    assert [route.to for route in routes_for("442071838750", ROWS)] == [
        "sip:1234442071838750@192.0.2.3;transport=tcp",
        "sip:442071838750@192.0.2.2",
        "sip:442071838750@192.0.2.4",
    ]
    assert routes_for("447700900123", ROWS) == [
        Route("sip:447700900123@192.0.2.5", Decimal(1), "447")
    ]
    assert [route.to for route in routes_for("12025550100", ROWS)] == ["sip:12025550100@192.0.2.1"]


def test_no_prefix_no_route() -> None:
    assert routes_for("12025550100", ROWS[1:]) == []


@pytest.mark.parametrize("number", ["", "+44", "44@evil", "44;x", "4 4", "4" * 41])
def test_what_is_no_number_goes_nowhere(number: str) -> None:
    """It would stand in a URI that somebody else is to call."""
    assert routes_for(number, ROWS) == []


def test_at_most_sixteen_ways_are_named() -> None:
    assert len(routes_for("44", ROWS[:1] * 50)) == CONTACTS_MAX


@pytest.mark.parametrize(
    ("row", "what"),
    [
        ("sip:x", "record"),
        ({"to": "sip:x", "cost": "1"}, "record"),
        ({"to": "", "q": "1"}, "destination"),
        ({"to": "sip:x y", "q": "1"}, "destination"),
        ({"to": "sip:x>,<sip:y"}, "destination"),
        ({"to": "sip:{user}@x"}, "brace"),
        ({"to": "sip:x", "q": "1.1"}, '"q"'),
        ({"to": "sip:x", "q": 1}, '"q"'),
        ({"to": "sip:x", "prefix": "+44"}, "prefix"),
        ({"to": "sip:x", "prefix": "4" * 21}, "prefix"),
    ],
)
def test_a_row_that_is_no_route_is_refused_and_named(row: Any, what: str) -> None:
    with pytest.raises(InvalidInput, match=f"Row 2 .*{what}"):
        read_routes([ROWS[0], row])


def test_a_wrong_row_put_there_by_hand_routes_nothing() -> None:
    assert routes_for("44", [{"to": "sip:a b"}]) == []
