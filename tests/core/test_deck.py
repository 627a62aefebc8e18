"""What a new sheet changes against the card in force, and the card that results."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tollkeeper.core.deck import Change, DeckChange, Mode, Status, compare, merge
from tollkeeper.core.rating import Tariff
from tollkeeper.core.tariff import PrefixTable, RateRow
from tollkeeper.errors import InvalidInput

AT = datetime(2030, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)


def tariff(price: str, increments: str = "60/60", fee: str = "0") -> Tariff:
    first, following = increments.split("/")
    amount = Decimal(price)
    return Tariff(amount, amount, int(first), int(following), connect_fee=Decimal(fee))


def row(
    prefix: str, price: str = "0.10", start: int | None = None, end: int | None = None, **more: str
) -> RateRow:
    """A row that starts and ends so many days from the activation."""
    return RateRow(
        prefix,
        more.get("name", "Somewhere"),
        tariff(price, more.get("increments", "60/60"), more.get("fee", "0")),
        "blocked" in more,
        None if start is None else AT + start * DAY,
        None if end is None else AT + end * DAY,
    )


def one(deck: DeckChange) -> Change:
    assert len(deck.changes) == 1
    return deck.changes[0]


def change(old: RateRow, new: RateRow) -> Change:
    return one(compare([old], [new], at=AT, mode="full"))


@pytest.mark.parametrize(
    ("old", "new", "status"),
    [
        (row("93", "0.10"), row("93", "0.10"), Status.UNCHANGED),
        (row("93", "0.10"), row("93", "0.100"), Status.UNCHANGED),
        (row("93", "0.10"), row("93", "0.11"), Status.INCREASED),
        (row("93", "0.10"), row("93", "0.09"), Status.DECREASED),
        (row("93", "0.10"), row("93", "0.10", fee="0.01"), Status.INCREASED),
        (row("93", "0.10", increments="1/1"), row("93", "0.10"), Status.CHANGED),
        # Dearer for a minute, cheaper for three.
        (row("93", "0.10"), row("93", "0.08", fee="0.03"), Status.CHANGED),
        (
            row("93", "0.10", increments="1/1"),
            row("93", "0.10", increments="90/1"),
            Status.INCREASED,
        ),
        (row("93"), row("93", blocked=""), Status.BLOCKED),
        (row("93", blocked=""), row("93"), Status.UNBLOCKED),
        (row("93", blocked=""), row("93", "0.20", blocked=""), Status.CHANGED),
        (row("93", blocked=""), row("93", blocked=""), Status.UNCHANGED),
        (row("93"), row("93", end=9), Status.CHANGED),
        (row("93", start=-9), row("93", start=-3), Status.UNCHANGED),
        (row("93", name="A"), row("93", name="B"), Status.UNCHANGED),
    ],
)
def test_a_row_is_judged_by_the_price_of_a_short_and_a_long_call(
    old: RateRow, new: RateRow, status: Status
) -> None:
    assert change(old, new).status is status


def test_codes_are_new_or_closed_in_a_full_sheet_and_kept_in_a_partial_one() -> None:
    old, new = [row("93"), row("94")], [row("93", "0.2"), row("95"), row("96", blocked="")]
    full = compare(old, new, at=AT, mode="full")
    assert [(c.prefix, c.status) for c in full] == [
        ("93", Status.INCREASED),
        ("95", Status.NEW),
        ("96", Status.BLOCKED),
        ("94", Status.CLOSED),
    ]
    assert (full.kept, full.counts[Status.CLOSED], full.counts[Status.UNBLOCKED]) == (0, 1, 0)
    partial = compare(old, new, at=AT, mode="partial")
    assert (partial.kept, partial.counts[Status.CLOSED]) == (1, 0)
    assert sorted(r.prefix for r in merge(old, new, at=AT, mode="full")) == ["93", "95", "96"]
    assert sorted(r.prefix for r in merge(old, new, at=AT, mode="partial")) == [
        "93",
        "94",
        "95",
        "96",
    ]


def test_a_change_shows_both_prices_of_a_minute_and_when_it_takes_effect() -> None:
    found = change(row("93", "0.10", fee="0.02"), row("93", "0.30", start=7))
    assert (found.old_price, found.new_price) == (Decimal("0.12"), Decimal("0.30"))
    assert found.effective == AT + 7 * DAY
    assert change(row("93"), row("93", "0.2", start=-7)).effective is None


@pytest.mark.parametrize(
    ("old", "new", "flagged"),
    [
        ("0.1", "1.0", False),
        ("0.1", "1.01", True),
        ("0.1", "0.01", False),
        ("0.1", "0.009", True),
        ("0", "0.1", True),
    ],
)
def test_a_price_that_moves_by_more_than_ten_times_is_flagged(
    old: str, new: str, flagged: bool
) -> None:
    deck = compare([row("93", old)], [row("93", new)], at=AT, mode="full")
    assert one(deck).suspicious is flagged
    assert deck.suspicious == flagged
    assert any("10 times" in note for note in deck.notes()) is flagged


def test_a_row_that_starts_later_keeps_the_old_one_in_force_until_then() -> None:
    merged = merge([row("93", "0.10")], [row("93", "0.20", start=7)], at=AT, mode="full")
    assert merged == [row("93", "0.10", end=7), row("93", "0.20", start=7)]


def test_a_past_date_means_from_activation() -> None:
    old, new = [row("93", "0.10")], [row("93", "0.20", start=-400)]
    assert merge(old, new, at=AT, mode="full") == [row("93", "0.20")]
    deck = compare(old, new, at=AT, mode="full")
    assert deck.backdated == 1
    assert any("dated in the past" in note for note in deck.notes())


def test_a_full_sheet_that_starts_later_closes_what_it_leaves_out_at_that_moment() -> None:
    old, new = [row("93"), row("94")], [row("93", "0.2", start=7), row("95", start=9)]
    closed = next(compare(old, new, at=AT, mode="full").with_status(Status.CLOSED))
    assert (closed.prefix, closed.effective) == ("94", AT + 7 * DAY)
    assert row("94", end=7) in merge(old, new, at=AT, mode="full")


def test_a_sheet_with_the_price_of_today_and_of_later_gives_two_changes() -> None:
    old = [row("93", "0.10")]
    new = [row("93", "0.10"), row("93", "0.12", start=7)]
    deck = compare(old, new, at=AT, mode="full")
    assert [(c.status, c.effective) for c in deck] == [
        (Status.CHANGED, None),
        (Status.INCREASED, AT + 7 * DAY),
    ]
    merged = merge(old, new, at=AT, mode="full")
    assert merged == [row("93", "0.10", end=7), row("93", "0.12", start=7)]
    again = compare(merged, new, at=AT, mode="full")
    assert again.counts[Status.UNCHANGED] == 2


def test_an_increase_that_was_planned_and_is_taken_back_is_reported() -> None:
    planned = [row("93", "0.10", end=7), row("93", "0.12", start=7)]
    deck = compare(planned, [row("93", "0.10")], at=AT, mode="partial")
    assert (one(deck).status, deck.superseded) == (Status.CHANGED, 1)
    assert merge(planned, [row("93", "0.10")], at=AT, mode="partial") == [row("93", "0.10")]


def test_a_code_may_be_closed_in_so_many_words_now_or_later() -> None:
    old = [row("93"), row("94"), row("95")]
    closing = {"93": None, "94": AT + 7 * DAY, "99": None}
    deck = compare(old, [], at=AT, mode="partial", closing=closing)
    assert [(c.prefix, c.status, c.effective) for c in deck] == [
        ("93", Status.CLOSED, None),
        ("94", Status.CLOSED, AT + 7 * DAY),
    ]
    assert merge(old, [], at=AT, mode="partial", closing=closing) == [row("94", end=7), row("95")]
    full = merge(old, [row("95")], at=AT, mode="full", closing={"94": AT + 7 * DAY})
    assert full == [row("94", end=7), row("95")]


def test_rows_that_are_over_change_nothing_or_close_what_they_name() -> None:
    over = row("93", "0.10", start=-9, end=-1)
    deck = compare([], [over, row("94")], at=AT, mode="full")
    assert (deck.over, [c.prefix for c in deck]) == (1, ["94"])
    assert merge([], [over], at=AT, mode="full") == []
    assert one(compare([row("93")], [over], at=AT, mode="partial")).status is Status.CLOSED
    assert merge([row("93")], [over], at=AT, mode="partial") == []


def test_a_full_sheet_without_rows_is_refused() -> None:
    for call in (compare, merge):
        with pytest.raises(InvalidInput, match="close every code"):
            call([row("93")], [], at=AT, mode="full")
        with pytest.raises(InvalidInput, match="mode"):
            call([row("93")], [], at=AT, mode="odd")  # type: ignore[arg-type]


def test_the_rows_of_the_next_version_are_drafts() -> None:
    stored = replace(row("93"), row_id=7)
    assert merge([stored], [], at=AT, mode="partial") == [row("93")]
    assert one(compare([stored], [row("93")], at=AT, mode="partial")).old == stored


def test_a_sheet_that_closes_most_of_the_card_is_questioned() -> None:
    old = [row(str(code)) for code in range(100, 110)]
    notes = compare(old, [row("100")], at=AT, mode="full").notes()
    assert any("is this a full sheet" in note for note in notes)


MOMENTS = st.none() | st.integers(-4, 6)


@st.composite
def decks(draw: st.DrawFn) -> list[RateRow]:
    """Rows of two prefixes, with any windows; no two of a prefix start together."""
    out = []
    for prefix in ("93", "94"):
        starts = draw(st.lists(MOMENTS, unique=True, max_size=3))
        for start in starts:
            end = draw(st.none() | st.integers((start if start is not None else -5) + 1, 8))
            out.append(row(prefix, draw(st.sampled_from(["0.1", "0.2", "0.3"])), start, end))
    return out


def begun(found: RateRow) -> datetime:
    return found.valid_from or datetime.min.replace(tzinfo=UTC)


def naive(rows: list[RateRow], prefix: str, moment: datetime) -> RateRow | None:
    alive = [r for r in rows if r.prefix == prefix and r.in_force(moment)]
    return max(alive, key=begun, default=None)


def expected(
    old: list[RateRow], new: list[RateRow], mode: Mode, prefix: str, moment: datetime
) -> RateRow | None:
    """Who is in force by the rule as told in words, row by row."""
    live = [r for r in new if r.valid_to is None or r.valid_to > AT]
    mine = [r for r in live if r.prefix == prefix]
    named = any(r.prefix == prefix for r in new)
    if mine:
        takes_over = min(max(begun(r), AT) for r in mine)
    elif named:
        takes_over = AT
    elif mode == "full":
        takes_over = min((max(begun(r), AT) for r in live), default=AT)
    else:
        return naive(old, prefix, moment)
    return naive(old if moment < takes_over else new, prefix, moment)


@given(decks(), decks(), st.sampled_from(["full", "partial"]), st.integers(0, 10))
def test_the_merged_card_prices_every_moment_as_the_rule_says(
    old: list[RateRow], new: list[RateRow], mode: Mode, days: int
) -> None:
    if mode == "full" and not new:
        return
    table = PrefixTable(merge(old, new, at=AT, mode=mode))
    for prefix in ("93", "94"):
        for moment in (AT + days * DAY, AT + days * DAY + DAY / 2):
            wanted = expected(old, new, mode, prefix, moment)
            found = table.find(prefix + "7000000", moment)
            assert (found and found.tariff) == (wanted and wanted.tariff)


@given(decks(), decks(), st.sampled_from(["full", "partial"]))
def test_after_the_merge_the_same_sheet_changes_nothing(
    old: list[RateRow], new: list[RateRow], mode: Mode
) -> None:
    if not any(r.valid_to is None or r.valid_to > AT for r in new):
        return
    merged = merge(old, new, at=AT, mode=mode)
    again = compare(merged, new, at=AT, mode="partial")
    moved = [c for c in again if c.status is not Status.UNCHANGED]
    assert moved == []
    assert sorted(merge(merged, new, at=AT, mode="partial"), key=repr) == sorted(merged, key=repr)


def test_two_hundred_thousand_rows_are_compared_and_merged_in_seconds() -> None:
    """A guard against work that grows with the square, not a benchmark."""
    old = [row(str(1_000_000 + n), "0.10") for n in range(200_000)]
    new = [row(str(1_000_100 + n), "0.11", start=-1) for n in range(200_000)]
    began = time.monotonic()
    deck = compare(old, new, at=AT, mode="full")
    merged = merge(old, new, at=AT, mode="full")
    taken = time.monotonic() - began
    assert deck.counts[Status.INCREASED] == 199_900
    assert deck.counts[Status.NEW] == deck.counts[Status.CLOSED] == 100
    assert len(merged) == 200_000
    assert taken < 20
