"""Longest prefix wins, validity is looked at, and the order of cards decides among equals."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from tollkeeper.core.rating import Tariff
from tollkeeper.core.tariff import Card, PrefixTable, RateRow, find_rate

T0 = datetime(2026, 3, 1, tzinfo=UTC)
FLAT = Tariff(Decimal(1), Decimal(1))


def _row(
    prefix: str, start: int | None = None, end: int | None = None, *, blocked: bool = False
) -> RateRow:
    """A row valid from day ``start`` to day ``end`` of the test's calendar."""
    return RateRow(
        prefix,
        f"{prefix} from {start} to {end}",
        FLAT,
        blocked,
        None if start is None else T0 + timedelta(days=start),
        None if end is None else T0 + timedelta(days=end),
    )


def _card(number: int, *rows: RateRow) -> Card:
    return Card(number, f"card{number}", 1, "USD", PrefixTable(rows))


def _at(day: float) -> datetime:
    return T0 + timedelta(days=day)


# --- against a search through all rows -----------------------------------------------------------

digits = st.text(alphabet="012", max_size=6)
days = st.one_of(st.none(), st.integers(-3, 3))


def _beginning(row: RateRow) -> datetime:
    return row.valid_from or datetime.min.replace(tzinfo=UTC)


def _naive(rows: list[RateRow], number: str, at: datetime) -> RateRow | None:
    """Look at every row: the longest prefix in force, of those the latest begun."""
    fit = [r for r in rows if number.startswith(r.prefix) and r.in_force(at)]
    return max(fit, key=lambda r: (len(r.prefix), _beginning(r)), default=None)


@given(st.lists(st.builds(_row, digits, days, days), max_size=30), digits, st.integers(-4, 4))
def test_the_table_agrees_with_a_search_through_all_rows(
    rows: list[RateRow], number: str, day: int
) -> None:
    """Whatever the rows, the answer has the prefix and the beginning that a full search finds."""
    expected = _naive(rows, number, _at(day))
    found = PrefixTable(rows).find(number, _at(day))
    if expected is None:
        assert found is None
    else:
        assert found is not None
        assert found.in_force(_at(day))
        assert (found.prefix, _beginning(found)) == (expected.prefix, _beginning(expected))


@given(st.sets(digits, max_size=30), st.text(alphabet="012", max_size=9))
def test_the_longest_prefix_wins(prefixes: set[str], number: str) -> None:
    found = PrefixTable(_row(p) for p in prefixes).find(number, T0)
    fit = [p for p in prefixes if number.startswith(p)]
    assert (found.prefix if found else None) == max(fit, key=len, default=None)


def test_a_number_shorter_than_a_prefix_does_not_match_it() -> None:
    """The digits 441 are no call to 4412, though a slice of them looks the same."""
    table = PrefixTable([_row("44"), _row("4412"), _row("441234")])
    for number, prefix in [("441", "44"), ("44", "44"), ("4412", "4412"), ("44123", "4412")]:
        found = table.find(number, T0)
        assert found is not None
        assert found.prefix == prefix
    assert table.find("4", T0) is None
    assert table.find("", T0) is None


def test_an_empty_prefix_is_the_default_route() -> None:
    table = PrefixTable([_row(""), _row("4"), _row("44")])
    assert [r.prefix for n in ("331", "41", "441", "") if (r := table.find(n, T0))] == [
        "", "4", "44", "",
    ]  # fmt: skip
    assert table.size == 3


def test_an_empty_table_finds_nothing() -> None:
    assert PrefixTable([]).find("4420", T0) is None
    assert find_rate([], "4420", T0) is None
    assert find_rate([_card(1)], "4420", T0) is None


# --- validity ------------------------------------------------------------------------------------


def test_a_row_begins_at_its_first_moment_and_ends_before_its_last() -> None:
    row = _row("44", 0, 1)
    moment = timedelta(microseconds=1)
    assert not row.in_force(_at(0) - moment)
    assert row.in_force(_at(0))
    assert row.in_force(_at(1) - moment)
    assert not row.in_force(_at(1))


def test_trap_6_of_overlapping_windows_the_later_begun_applies() -> None:
    table = PrefixTable([_row("44", 0, 10), _row("44", 5, 15), _row("44")])
    shown = [table.find("4420", _at(day)) for day in (-1, 1, 6, 12, 20)]
    assert [row and row.destination for row in shown] == [
        "44 from None to None",
        "44 from 0 to 10",
        "44 from 5 to 15",
        "44 from 5 to 15",
        "44 from None to None",
    ]


def test_trap_6_in_a_gap_between_windows_the_shorter_prefix_applies() -> None:
    table = PrefixTable([_row("4420", 0, 2), _row("4420", 4, 6), _row("44")])
    assert [table.find("44201", _at(day)).prefix for day in (1, 3, 5, 7)] == [  # type: ignore[union-attr]
        "4420", "44", "4420", "44",
    ]  # fmt: skip


def test_trap_6_a_future_rate_does_not_apply_before_it_begins() -> None:
    """A single future row is no rate at all today."""
    table = PrefixTable([_row("44", 3)])
    assert table.find("4420", _at(2)) is None
    assert table.find("4420", _at(3)) is not None


# --- several cards -------------------------------------------------------------------------------


def test_trap_5_a_long_prefix_of_the_plan_beats_a_short_one_of_the_customer() -> None:
    """Longest prefix first, then the more specific card."""
    own, plan = _card(1, _row("44")), _card(2, _row("44"), _row("4420"))
    match = find_rate([own, plan], "442071234567", T0)
    assert match is not None
    assert (match.card.code, match.row.prefix) == ("card2", "4420")
    match = find_rate([own, plan], "441631234567", T0)
    assert match is not None
    assert (match.card.code, match.row.prefix) == ("card1", "44")


def test_trap_5_a_row_that_is_not_in_force_gives_way_to_the_next_card() -> None:
    own, plan = _card(1, _row("4420", 5)), _card(2, _row("4420"))
    for day, code in [(0, "card2"), (5, "card1")]:
        match = find_rate([own, plan], "442071234567", _at(day))
        assert match is not None
        assert match.card.code == code


def test_a_blocked_row_wins_like_any_other() -> None:
    """F33: a blocked destination is not sold at the price of the country around it."""
    match = find_rate([_card(1, _row("44"), _row("4470", blocked=True))], "447012345678", T0)
    assert match is not None
    assert match.row.blocked
