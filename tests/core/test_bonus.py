"""Which part of a balance is bonus: worked examples, and what holds for any money and any use."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tollkeeper.core.bonus import (
    Lot,
    Purse,
    UseOrder,
    consume,
    divide,
    free_own,
    to_take_back,
)

D = Decimal
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
FIRST, LAST = UseOrder.BONUS_FIRST, UseOrder.OWN_FIRST


def lot(id_: int, left: str, order: UseOrder = FIRST, days: int = 30, amount: str = "") -> Lot:
    return Lot(id_, D(amount or left), D(left), order, NOON + timedelta(days=days))


def left(purse: Purse) -> list[Decimal]:
    return [one.left for one in purse.lots]


@pytest.mark.parametrize(
    ("used", "own", "lots"),
    [
        ("0", "10", ["5", "3"]),
        ("2", "10", ["5", "1"]),
        ("4", "10", ["4", "0"]),
        ("8", "10", ["0", "0"]),
        ("10", "8", ["0", "0"]),
        ("20", "-2", ["0", "0"]),
    ],
)
def test_bonus_comes_first_and_the_lot_that_ends_first_before_the_others(
    used: str, own: str, lots: list[str]
) -> None:
    """10 of its own, 5 for 30 days, 3 for 10 days: whatever is used is taken from the 3 first."""
    purse = consume(Purse(D(10), (lot(1, "5"), lot(2, "3", days=10))), D(used))
    assert (purse.own, left(purse)) == (D(own), [D(one) for one in lots])


@pytest.mark.parametrize(
    ("used", "own", "lots"),
    [("4", "6", ["5"]), ("10", "0", ["5"]), ("12", "0", ["3"]), ("16", "-1", ["0"])],
)
def test_own_money_comes_first_where_the_lot_says_so_and_credit_comes_last(
    used: str, own: str, lots: list[str]
) -> None:
    purse = consume(Purse(D(10), (lot(1, "5", LAST),)), D(used))
    assert (purse.own, left(purse)) == (D(own), [D(one) for one in lots])


def test_both_orders_stand_around_the_own_money() -> None:
    purse = Purse(D(10), (lot(1, "5", LAST), lot(2, "5", FIRST)))
    assert left(consume(purse, D(5))) == [D(5), D(0)]
    assert left(consume(purse, D(15))) == [D(5), D(0)]
    assert left(consume(purse, D(17))) == [D(3), D(0)]


def test_what_was_used_since_is_taken_from_the_balance_as_it_was_before() -> None:
    """A balance of 11 after 4 were used was 15: 10 own and 5 bonus, of which 1 is left."""
    purse = divide(D(11), [lot(1, "5")], D(4))
    assert (purse.own, left(purse)) == (D(10), [D(1)])
    assert purse.balance == D(11)


def test_more_given_back_than_used_is_the_customers_own() -> None:
    purse = divide(D(12), [lot(1, "2", amount="5")], D(-3))
    assert (purse.own, left(purse)) == (D(10), [D(2)])


def test_held_money_and_bonus_cannot_leave_the_wallet() -> None:
    """10 own, 5 bonus that is used first: a hold of 5 stands on the bonus, one of 8 on 3 own."""
    purse = Purse(D(10), (lot(1, "5"),))
    assert [free_own(purse, D(held)) for held in ("0", "5", "8", "15", "20")] == [10, 10, 7, 0, 0]
    assert free_own(Purse(D(10), (lot(1, "5", LAST),)), D(8)) == 2
    assert free_own(Purse(D(-3), (lot(1, "5"),)), D(0)) == 0


def test_a_lot_is_taken_back_but_for_what_live_calls_hold_of_it() -> None:
    purse = Purse(D(10), (lot(1, "5"), lot(2, "3", LAST)))
    assert [to_take_back(purse, 1, D(held)) for held in ("0", "2", "9")] == [5, 3, 0]
    assert [to_take_back(purse, 2, D(held)) for held in ("0", "15", "17")] == [3, 3, 1]
    assert to_take_back(purse, 7, D(0)) == 0


# --- for any money and any use -------------------------------------------------------------------

CENTS = st.integers(0, 10_000).map(lambda cents: D(cents) / 100)


@st.composite
def purses(draw: st.DrawFn) -> Purse:
    lots = tuple(
        Lot(number, amount, amount, order, NOON + timedelta(days=days))
        for number, (amount, order, days) in enumerate(
            draw(
                st.lists(st.tuples(CENTS, st.sampled_from(UseOrder), st.integers(1, 9)), max_size=5)
            )
        )
    )
    own = draw(st.integers(-5_000, 10_000))
    return Purse(D(own) / 100, lots)


@given(purses(), CENTS)
def test_use_lowers_the_balance_by_itself_and_no_lot_below_nothing(
    purse: Purse, used: Decimal
) -> None:
    after = consume(purse, used)
    assert after.balance == purse.balance - used
    for before, now in zip(purse.lots, after.lots, strict=True):
        assert 0 <= now.left <= before.left
    if after.own < min(purse.own, D(0)):
        assert after.bonus == 0, "nobody owes while bonus is left"


@given(purses(), CENTS, CENTS)
def test_using_in_two_steps_is_using_at_once(purse: Purse, one: Decimal, two: Decimal) -> None:
    assert consume(consume(purse, one), two) == consume(purse, one + two)


@given(purses(), CENTS)
def test_a_balance_divides_into_the_same_parts_that_use_left(purse: Purse, used: Decimal) -> None:
    after = consume(purse, used)
    assert divide(after.balance, purse.lots, used) == after


@given(purses(), CENTS)
def test_what_leaves_the_wallet_leaves_holds_covered_and_bonus_whole(
    purse: Purse, held: Decimal
) -> None:
    out = free_own(purse, held)
    after = Purse(purse.own - out, purse.lots)
    assert after.bonus == purse.bonus
    if out > 0:
        assert after.balance >= held
        assert consume(after, held).own >= 0


@given(purses(), CENTS)
def test_all_that_is_taken_back_at_once_leaves_holds_covered(purse: Purse, held: Decimal) -> None:
    covered = purse.balance >= held
    for one in purse.lots:
        taken = to_take_back(purse, one.id, held)
        assert 0 <= taken <= next(now.left for now in purse.lots if now.id == one.id)
        lots = tuple(
            Lot(now.id, now.amount, now.left - taken, now.order, now.expires_at)
            if now.id == one.id
            else now
            for now in purse.lots
        )
        purse = Purse(purse.own, lots)
    if covered and purse.own >= 0:
        assert purse.balance >= held
