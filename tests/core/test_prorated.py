"""The price of a part of a period: worked out by hand."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest

from tollkeeper.core.markup import prorated
from tollkeeper.core.periods import beginning, term_of
from tollkeeper.core.rating import Tariff, price

D = Decimal


def item(amount: str, **more: Decimal) -> Tariff:
    return Tariff(D(amount), D(amount), 1, 1, per=1, **more)


@pytest.mark.parametrize(
    ("amount", "used", "whole", "due"),
    [
        ("10", 15, 30, "5"),
        ("10", 16, 31, "5.161290"),  # 160/31 = 5.16129032...
        ("10", 13, 28, "4.642857"),  # 130/28 = 4.64285714...
        ("1", 1, 3, "0.333333"),
        ("0", 1, 31, "0"),
        ("7.5", 30, 30, "7.5"),
    ],
)
def test_a_part_of_a_period_costs_its_days(amount: str, used: int, whole: int, due: str) -> None:
    tariff, step = prorated(item(amount), used, whole)
    assert price(tariff, 1) == D(due)
    assert (step.kind, step.name) == ("prorated", f"{used} of {whole} days")


def test_fees_minimum_and_cap_are_of_the_period_too() -> None:
    """3 of 30 days: a tenth of everything."""
    tariff, step = prorated(item("10", connect_fee=D(2), minimum=D(20), cap=D(30)), 3, 30)
    assert (tariff.connect_fee, tariff.minimum, tariff.cap) == (D("0.2"), D(2), D(3))
    assert price(tariff, 1) == D(2)
    assert "price 10.00 -> 1.00" in step.detail


@pytest.mark.parametrize(
    ("period", "day", "first", "last"),
    [
        ("month", "2026-02-14", "2026-02-01", "2026-03-01"),
        ("month", "2028-02-29", "2028-02-01", "2028-03-01"),
        ("month", "2026-12-31", "2026-12-01", "2027-01-01"),
        ("week", "2026-11-15", "2026-11-09", "2026-11-16"),
        ("day", "2026-03-29", "2026-03-29", "2026-03-30"),
    ],
)
def test_terms_are_local_days(period: str, day: str, first: str, last: str) -> None:
    found = term_of(period, date.fromisoformat(day))
    assert found == (date.fromisoformat(first), date.fromisoformat(last))


@pytest.mark.parametrize(
    ("zone", "day", "begins"),
    [
        ("Europe/Rome", "2026-04-01", "2026-03-31T22:00"),
        ("Europe/Rome", "2026-03-01", "2026-02-28T23:00"),
        # Santiago skips midnight: the day begins when the clock jumps to one.
        ("America/Santiago", "2026-09-06", "2026-09-06T04:00"),
    ],
)
def test_a_local_day_begins_by_the_clock_on_the_wall(zone: str, day: str, begins: str) -> None:
    expected = datetime.fromisoformat(begins).replace(tzinfo=UTC)
    assert beginning(date.fromisoformat(day), ZoneInfo(zone)) == expected
