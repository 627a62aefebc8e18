"""The kernel gives the answers of the core, to the last digit, whatever the cards and the calls."""

from __future__ import annotations

import pickle
import random
from collections import Counter
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.bulk.cards import T0, Answer, Call, Core, answers, core_price, extremes, kernel, tariffs
from tollkeeper.bulk.book import CardSpan, RateBook, micros
from tollkeeper.bulk.kernel import CHUNK, lookup, price_rows, rate, rate_table
from tollkeeper.bulk.tariffs import BLOCKED, NO_RATE, PRICED, TOO_LARGE, TariffTable
from tollkeeper.core.money import Rounding
from tollkeeper.core.rating import SECONDS_MAX, Tariff
from tollkeeper.core.tariff import RateRow

D = Decimal
FLAT = Tariff(D("0.6"), D("0.6"), 1, 1)

prefixes = st.one_of(st.text("01", max_size=3), st.text("09", min_size=14, max_size=18))
numbers = st.one_of(st.text("01", max_size=5), st.text("09", min_size=14, max_size=18))
days = st.one_of(st.none(), st.integers(-3, 3))
durations = st.one_of(
    st.integers(-5_000, 400_000),
    st.sampled_from([0, 1, 999, 1000, 1001, SECONDS_MAX * 1000, SECONDS_MAX * 1000 + 1, 2**62]),
)


def day(number: int | None) -> datetime | None:
    return None if number is None else T0 + timedelta(days=number)


def micros_of(number: int | None) -> int | None:
    at = day(number)
    return None if at is None else micros(at)


def one_book(*rows: RateRow) -> RateBook:
    return RateBook.compile({1: [[CardSpan(1, 1, "USD", rows)]]})


def row(prefix: str, number: int = 1, tariff: Tariff = FLAT, **more: object) -> RateRow:
    return RateRow(prefix, f"to {prefix}", tariff, row_id=number, **more)  # type: ignore[arg-type]


# --- against the core ----------------------------------------------------------------------------


@st.composite
def plans(draw: st.DrawFn) -> dict[int, list[list[CardSpan]]]:
    """Up to three cards of up to three versions, on up to three plans, in any order."""
    some = draw(st.lists(tariffs(), min_size=1, max_size=3))
    version = 0
    cards: list[list[CardSpan]] = []
    for card_id in range(draw(st.integers(1, 3))):
        spans = []
        for _ in range(draw(st.integers(0, 3))):
            version += 1
            found = draw(st.lists(prefixes, max_size=8))
            rows = [
                RateRow(
                    prefix,
                    f"destination {prefix}",
                    draw(st.sampled_from(some)),
                    draw(st.integers(0, 5)) == 0,
                    day(draw(days)),
                    day(draw(days)),
                    number,
                )
                for number, prefix in enumerate(found, 1)
            ]
            since, until = micros_of(draw(days)), micros_of(draw(days))
            spans.append(CardSpan(card_id, version, "USD", rows, since, until))
        cards.append(spans)
    order = st.permutations(cards).flatmap(
        lambda some_cards: st.integers(0, len(some_cards)).map(lambda n: list(some_cards)[:n])
    )
    return {plan: draw(order) for plan in range(10, 10 + draw(st.integers(1, 3)))}


calls_in = st.builds(
    Call,
    st.integers(10, 13),
    numbers,
    st.builds(
        lambda n, tick: T0 + timedelta(days=n, microseconds=tick),
        st.integers(-4, 4),
        st.integers(-1, 1),
    ),
    durations,
)


@given(plans(), st.lists(calls_in, min_size=1, max_size=20))
def test_the_kernel_answers_as_the_core_does(
    given_plans: dict[int, list[list[CardSpan]]], calls: list[Call]
) -> None:
    """Overlaps, gaps, ties between cards, spans of versions, blocked rows: row and price agree."""
    book, core = RateBook.compile(given_plans), Core(given_plans)
    assert answers(book, kernel(book, calls)) == [core.answer(call) for call in calls]


def random_plans(draw: random.Random) -> dict[int, list[list[CardSpan]]]:
    """Four plans over three cards of two versions, full of nested prefixes that come and go."""

    def moment() -> datetime | None:
        return day(draw.randrange(-3, 4)) if draw.random() < 0.4 else None

    shortest = draw.randrange(3)

    def prefix() -> str:
        return "".join(draw.choices("012", k=draw.randrange(shortest, 6)))

    dear = Tariff(D("0.0065"), D("0.1"), 30, 6, D("0.01"), D("0.002"), D("0.05"), decimals=4)
    change = micros_of(draw.randrange(-1, 2))
    cards = [
        [
            CardSpan(
                card,
                2 * card + half,
                "USD",
                [
                    row(prefix(), number, draw.choice([FLAT, dear]), blocked=draw.random() < 0.1,
                        valid_from=moment(), valid_to=moment())
                    for number in range(1, 60)
                ],
                change if half else None,
                None if half else change,
            )
            for half in (0, 1)
        ]
        for card in range(1, 4)
    ]  # fmt: skip
    return {plan: draw.sample(cards, k=draw.randrange(1, 4)) for plan in range(4)}


def test_many_calls_on_crowded_cards_are_answered_as_the_core_does() -> None:
    """Every way to an answer is taken often: other cards, earlier versions, shorter prefixes."""
    seen: Counter[str] = Counter()
    for seed in range(60):
        draw = random.Random(seed)
        plans = random_plans(draw)
        book, core = RateBook.compile(plans), Core(plans)
        calls = [
            Call(
                draw.randrange(5),
                "".join(draw.choices("012", k=draw.randrange(9))),
                T0 + timedelta(hours=draw.randrange(-96, 96)),
                draw.choice([0, draw.randrange(300_000)]),
            )
            for _ in range(200)
        ]
        found = answers(book, kernel(book, calls))
        assert found == [core.answer(call) for call in calls], seed
        for call, answer in zip(calls, found, strict=True):
            rows = [r for card in plans.get(call.plan, []) for s in card for r in s.rows]
            fit = max((len(r.prefix) for r in rows if call.number.startswith(r.prefix)), default=-1)
            cards = plans.get(call.plan, [])
            spans = {s.version_id: (n, s) for n, card in enumerate(cards) for s in card}
            if answer.version_id:
                card, span = spans[answer.version_id]
                shorter = len(span.rows[answer.row_no - 1].prefix) < fit
                seen.update([f"status {answer.status}", f"card {card}", f"shorter {shorter}"])
                seen[f"old {span.until is not None}"] += 1
            else:
                seen["none, though a prefix fits" if fit >= 0 else "none"] += 1
    assert len(seen) == 11, seen
    assert min(seen.values()) > 50, seen


@given(st.lists(st.tuples(tariffs(), durations), min_size=1, max_size=10))
def test_every_tariff_is_priced_as_the_core_does(cases: list[tuple[Tariff, int]]) -> None:
    check_prices(cases)


@given(st.lists(st.tuples(tariffs(extremes), durations), min_size=1, max_size=10))
@example([(Tariff(D("99999999999999.99999999"), D("7E+13"), 3600, 86_399, decimals=8), 9 * 10**9)])
@example([(Tariff(D("1E+60"), D(0)), 60_000), (Tariff(D("1E-60"), D(1), decimals=0), 0)])
def test_absurd_tariffs_are_priced_as_the_core_does(cases: list[tuple[Tariff, int]]) -> None:
    """What does not fit into 64 bits is priced by the core; what no column can hold is told."""
    check_prices(cases)


def check_prices(cases: list[tuple[Tariff, int]]) -> None:
    book = one_book(*(row(str(n), n, tariff) for n, (tariff, _) in enumerate(cases)))
    found = price_rows(
        book,
        np.arange(len(cases), dtype=np.int32),
        np.array([duration for _, duration in cases], np.int64),
    )
    lines = list(zip(*(column.tolist() for column in found), strict=True))
    assert lines == [core_price(tariff, duration) for tariff, duration in cases]


@pytest.mark.parametrize("mode", Rounding)
@pytest.mark.parametrize("decimals", range(9))
def test_ties_are_rounded_as_the_card_says(mode: Rounding, decimals: int) -> None:
    """Prices that end exactly between two steps, and one smallest part beside it."""
    step = D(1).scaleb(-decimals)
    cases = [
        (Tariff(amount, D(0), 60, 1, decimals=decimals, rounding=mode), 1000)
        for count in range(4)
        for amount in (
            count * step + step / 2,
            count * step + step / 2 + D("1E-12"),
            count * step + step / 2 - D("1E-12"),
            count * step,
        )
    ]
    check_prices(cases)


def test_usual_tariffs_are_not_left_to_the_core() -> None:
    """The way through the core is for the absurd: prices up to 1,000 a minute do without."""
    usual = [
        Tariff(D("999.99999999"), D("999.99999999"), 60, 60, D(10), D(1), D(5), decimals=8),
        Tariff(D("0.00000000123"), D("1.5"), 1, 1, rounding=Rounding.UP, cap=D(10) ** 14),
    ]
    assert not TariffTable.compile(usual).wide.any()
    wide = TariffTable.compile([*usual, Tariff(D("1E+10"), D(1), 86_400)]).wide
    assert wide.tolist() == [False, False, True]


def test_an_amount_that_no_column_can_hold_is_too_large() -> None:
    """2^63 parts of 10^-8 are 92 billion."""
    book = one_book(
        row("1", 1, Tariff(D("92233720368"), D(0))), row("2", 2, Tariff(D(10**11), D(0)))
    )
    found = answers(book, kernel(book, [Call(1, "1", T0, 1), Call(1, "2", T0, 1)]))
    assert found == [
        Answer(1, 1, PRICED, 60, 92_233_720_368 * 10**8),
        Answer(1, 2, TOO_LARGE, 0, 0),
    ]


# --- prefixes ------------------------------------------------------------------------------------


def rows_found(book: RateBook, *numbers: str) -> list[str]:
    rated = kernel(book, [Call(1, number, T0, 1000) for number in numbers])
    return [
        prefix if found >= 0 else "-"
        for prefix, found in zip(book.describe(rated.row)["prefix"], rated.row, strict=True)
    ]


def test_a_number_shorter_than_the_prefix_falls_back_to_the_shorter_one() -> None:
    """Left-aligned, 44 and 44000 are the same number; the count of digits tells them apart."""
    book = one_book(row("44"), row("4400"), row("44000000"))
    assert rows_found(book, "44", "440", "4400", "44000", "440000000", "4", "") == [
        "44", "44", "4400", "4400", "44000000", "-", "-",
    ]  # fmt: skip


def test_prefixes_may_have_18_digits_leading_zeros_or_none_at_all() -> None:
    book = one_book(row(""), row("0"), row("00"), row("9" * 18), row("0" * 18), row("9" * 17))
    numbers = ["", "0", "00", "0" * 17, "0" * 18, "9" * 18, "9" * 17 + "8", "9" * 16, "5"]
    assert rows_found(book, *numbers) == [
        "", "0", "00", "00", "0" * 18, "9" * 18, "9" * 17, "", "",
    ]  # fmt: skip


def test_an_empty_book_an_empty_plan_and_no_calls_find_nothing() -> None:
    for book in (RateBook.compile({}), RateBook.compile({1: []}), RateBook.compile({1: [[]]})):
        rated = kernel(book, [Call(1, "44", T0, 1), Call(2, "", T0, 1)])
        assert rated.row.tolist() == [-1, -1]
        assert rated.status.tolist() == [NO_RATE, NO_RATE]
        assert book.describe(rated.row).row(0) == (0, 0, 0, "", "", "")
        assert len(kernel(book, []).row) == 0


@pytest.mark.parametrize("prefix", ["+44", "44x", "٤٤", "1" * 19, " 44"])
def test_a_prefix_that_is_no_digits_is_refused(prefix: str) -> None:
    with pytest.raises(ValueError, match="is not 0 to 18 digits"):
        one_book(row("44"), row(prefix))


def test_a_blocked_row_costs_nothing_and_says_so() -> None:
    fee = Tariff(D(1), D(1), attempt_fee=D(3))
    book = one_book(row("44"), row("4470", 2, fee, blocked=True))
    assert (
        answers(book, kernel(book, [Call(1, "44701", T0, 60_000), Call(1, "44701", T0, 0)]))
        == [Answer(1, 2, BLOCKED, 0, 0)] * 2
    )


def test_an_unanswered_call_costs_its_attempt_fee() -> None:
    book = one_book(row("44", 7, Tariff(D(1), D(1), attempt_fee=D("0.02"))))
    assert answers(book, kernel(book, [Call(1, "441", T0, 0)])) == [
        Answer(1, 7, PRICED, 0, 2_000_000)
    ]


def test_a_row_is_in_force_from_its_first_microsecond_to_before_its_last() -> None:
    book = one_book(row("44"), row("4420", valid_from=T0, valid_to=T0 + timedelta(days=1)))
    tick = timedelta(microseconds=1)
    moments = [T0 - tick, T0, T0 + timedelta(days=1) - tick, T0 + timedelta(days=1)]
    rated = kernel(book, [Call(1, "44201", at, 1000) for at in moments])
    assert book.describe(rated.row)["prefix"].to_list() == ["44", "4420", "4420", "44"]


# --- the book ------------------------------------------------------------------------------------


def test_a_card_on_several_plans_is_compiled_once() -> None:
    card = [CardSpan(1, 5, "EUR", [row(str(n)) for n in range(100, 400)])]
    own = [CardSpan(2, 6, "USD", [row("100")])]
    book = RateBook.compile({1: [card], 2: [own, card], 3: [card, own]})
    assert len(book.row_no) == 302
    assert len(book.cards) == 2
    rated = kernel(book, [Call(plan, "1001", T0, 1000) for plan in (1, 2, 3)])
    shown = book.describe(rated.row)
    assert shown["version_id"].to_list() == [5, 6, 5]
    assert shown["currency"].to_list() == ["EUR", "USD", "EUR"]
    assert shown["destination"].to_list() == ["to 100"] * 3
    assert [book.currencies[n] for n in book.row_currency[rated.row]] == ["EUR", "USD", "EUR"]


def test_a_version_that_counts_twice_keeps_its_rows_once() -> None:
    """Version 1, then 2, then back to 1: the rows of 1 stand in the book once."""
    one, two = [row("44", 1), row("4420", 2)], [row("44", 3)]
    card = [
        CardSpan(1, 1, "USD", one, None, 100),
        CardSpan(1, 2, "USD", two, 100, 200),
        CardSpan(1, 1, "USD", one, 200, None),
    ]
    book = RateBook.compile({1: [card]})
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    moments = [epoch + timedelta(microseconds=n) for n in (99, 100, 199, 200)]
    rated = kernel(book, [Call(1, "44201", at, 1000) for at in moments])
    assert book.row_no[rated.row].tolist() == [2, 3, 3, 2]
    assert len(book.row_no) == 4


def many_calls() -> tuple[RateBook, list[Call]]:
    rows = [row(str(n), n, Tariff(D(n) / 1000, D(n) / 500, 6, 6)) for n in range(1, 3000)]
    book = RateBook.compile({1: [[CardSpan(1, 1, "USD", rows)]], 2: []})
    count = 2 * CHUNK + 77
    calls = [
        Call(1 + (n % 7 == 0), str(n * 7919 % 10**8), T0, n * 37 % 500_000) for n in range(count)
    ]
    return book, calls


def test_threads_and_pickling_change_nothing() -> None:
    book, calls = many_calls()
    core = Core({1: [[CardSpan(1, 1, "USD", rows_of(book))]], 2: []})
    expected = kernel(book, calls)
    assert answers(book, expected)[::997] == [core.answer(call) for call in calls[::997]]
    copied = pickle.loads(pickle.dumps(book))
    for other in (kernel(book, calls, threads=2), kernel(copied, calls, threads=3)):
        for name in ("row", "status", "billed", "amount"):
            assert (getattr(other, name) == getattr(expected, name)).all()


def rows_of(book: RateBook) -> list[RateRow]:
    return [
        row(str(n), n, Tariff(D(n) / 1000, D(n) / 500, 6, 6)) for n in range(1, len(book.row_no))
    ]


def test_columns_that_do_not_fit_are_refused() -> None:
    book = one_book(row("44"))
    none = np.zeros(1, np.int64)
    small = none.astype(np.int8)
    for plan in (-2, 1):
        with pytest.raises(ValueError, match="a plan is not in the book"):
            lookup(book, np.array([plan], np.int32), none, small, none)
    with pytest.raises(ValueError, match="a number is not"):
        lookup(book, np.zeros(1, np.int32), none + 10**18, small, none)
    with pytest.raises(ValueError, match="a row is not in the book"):
        price_rows(book, np.array([1], np.int32), none)
    with pytest.raises(ValueError, match="differ in length"):
        rate(book, np.zeros(2, np.int32), none, small, none, none)
    with pytest.raises(ValueError, match="differ in length"):
        price_rows(book, np.zeros(2, np.int32), none)


# --- Arrow in, Arrow out -------------------------------------------------------------------------


def test_a_table_is_rated_as_its_columns_are() -> None:
    book, calls = many_calls()
    rated = kernel(book, calls)
    table = pa.table(
        {
            "id": pa.array(range(len(calls))),
            "plan": pa.array([call.plan for call in calls]),
            "number": pa.array([call.number for call in calls]),
            "at": pa.array([call.at for call in calls], pa.timestamp("us", "UTC")),
            "duration_ms": pa.array([call.duration_ms for call in calls]),
        }
    )
    out = pl.from_arrow(rate_table(table, book))
    assert isinstance(out, pl.DataFrame)
    assert out["id"].to_list() == list(range(len(calls)))
    described = book.describe(rated.row)
    for name in ("version_id", "row_no", "prefix", "destination", "currency"):
        assert out[name].to_list() == described[name].to_list()
    assert out["status"].to_list() == rated.status.tolist()
    assert out["billed"].to_list() == rated.billed.tolist()
    assert out["amount"].to_list() == [D(n).scaleb(-8) for n in rated.amount.tolist()]
    as_integers = table.set_column(3, "at", table["at"].cast(pa.int64()))
    assert rate_table(as_integers, book, threads=2)["amount"].equals(
        rate_table(table, book)["amount"]
    )


def test_a_table_with_holes_is_rated_where_it_can_be() -> None:
    """Unknown plans, words, and nulls have no rate; other rows are not touched by them."""
    book = one_book(row("44"))
    table = pa.table(
        {
            "plan": pa.array([1, 9, None, 1, 1, 1, 1], pa.int64()),
            "number": pa.array(["441", "441", "441", "x", None, "441", "441"]),
            "at": pa.array([0, 0, 0, 0, 0, None, 0], pa.int64()),
            "duration_ms": pa.array([1000, 1000, 1000, 1000, 1000, 1000, None], pa.int64()),
        }
    )
    out = rate_table(table, book)
    assert out["status"].to_pylist() == [0, 1, 1, 1, 1, 1, 0]
    assert out["amount"].to_pylist() == [D("0.01"), *[D(0)] * 6]
    assert out.schema.field("amount").type == pa.decimal128(28, 8)
    empty = rate_table(table.slice(0, 0), book)
    assert empty.schema == out.schema
    assert len(empty) == 0
