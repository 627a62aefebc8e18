"""Two files of the same calls: what belongs together is found, and every difference is named."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tollkeeper.bulk.pairing import nearest
from tollkeeper.bulk.reconcile import OURS, THEIRS, Compared, Kind, Terms, compare, sequence_gaps

SECOND = 1_000_000
NOON = 1_780_000_000 * SECOND
PENNY = 1_000_000


def ours(*rows: dict[str, Any]) -> pl.DataFrame:
    """Rows of our books; what is not given is that of one ordinary call."""
    usual = {
        "call_id": "", "leg": "", "caller": "15550001", "called": "442071838750",
        "start": NOON, "duration_ms": 60_000, "billed": 60, "amount": 60 * PENNY,
    }  # fmt: skip
    return pl.DataFrame([usual | row for row in rows], schema=OURS)


def theirs(*rows: dict[str, Any]) -> pl.DataFrame:
    """Rows of a file, numbered from line 1."""
    usual = {
        "call_id": "", "leg": "", "caller": "15550001", "called": "442071838750",
        "start": NOON, "duration_ms": 60_000, "amount": 60 * PENNY,
    }  # fmt: skip
    lines = [{"line": line} | usual | row for line, row in enumerate(rows, 1)]
    return pl.DataFrame(lines, schema=THEIRS)


def kinds(found: Compared) -> list[tuple[str, int | None]]:
    """Kind and line of all findings."""
    return list(found.findings.select("kind", "line").iter_rows())


def test_records_that_agree_are_no_findings() -> None:
    found = compare(theirs({"call_id": "a"}), ours({"call_id": "a"}), Terms())
    assert kinds(found) == []
    assert (found.by_call_id, found.by_number, found.agreed) == (1, 0, 1)
    assert (found.theirs, found.ours) == (1, 1)


def test_each_kind_of_difference_is_named() -> None:
    found = compare(
        theirs(
            {"call_id": "same"},
            {"call_id": "longer", "duration_ms": 90_000},
            {"call_id": "dearer", "amount": 61 * PENNY},
            {"call_id": "both", "duration_ms": 90_000, "amount": 90 * PENNY},
            {"call_id": "theirs", "called": "33"},
            {"call_id": "same"},
        ),
        ours(
            {"call_id": "same"}, {"call_id": "longer"}, {"call_id": "dearer"}, {"call_id": "both"},
            {"call_id": "ours", "called": "49"},
        ),
        Terms(),
    )  # fmt: skip
    assert sorted(kinds(found), key=str) == sorted(
        [
            (Kind.DURATION, 2),
            (Kind.PRICE, 3),
            (Kind.DURATION_AND_PRICE, 4),
            (Kind.MISSING_HERE, 5),
            (Kind.DUPLICATE, 6),
            (Kind.MISSING_THERE, None),
        ],
        key=str,
    )


def test_the_parts_add_up_to_the_difference_of_the_totals() -> None:
    """Nothing of the difference in money stays unexplained."""
    left = theirs(
        {"call_id": "a", "amount": 70 * PENNY},
        {"call_id": "b", "called": "33", "amount": 5 * PENNY},
        {"call_id": "a", "amount": 70 * PENNY},
    )
    right = ours({"call_id": "a"}, {"call_id": "c", "called": "49"})
    found = compare(left, right, Terms())
    assert found.parts == {
        "missing_here": 5 * PENNY,
        "missing_there": -60 * PENNY,
        "duration": 0,
        "price": 10 * PENNY,
        "duration_and_price": 0,
        "duplicate": 70 * PENNY,
        "agreed": 0,
    }
    assert sum(found.parts.values()) == left["amount"].sum() - right["amount"].sum()


def test_of_two_calls_with_the_same_numbers_the_closest_in_time_are_paired() -> None:
    found = compare(
        theirs({"start": NOON + 4 * SECOND, "duration_ms": 7_000, "amount": None}),
        ours({"start": NOON, "duration_ms": 99_000}, {"start": NOON + 5 * SECOND}),
        Terms(since=NOON - SECOND, until=NOON + 60 * SECOND),
    )
    rows = found.findings.select("kind", "our_start").rows()
    assert rows == [(Kind.MISSING_THERE, NOON), (Kind.DURATION, NOON + 5 * SECOND)]


def test_calls_of_the_same_second_are_told_apart_by_their_durations() -> None:
    durations = (10_000, 20_000, 30_000)
    found = compare(
        theirs(*({"duration_ms": ms, "caller": ""} for ms in durations)),
        ours(*({"duration_ms": ms, "billed": ms // 1000} for ms in reversed(durations))),
        Terms(),
    )
    assert kinds(found) == []
    assert found.by_number == 3


def test_a_caller_that_both_sides_name_must_be_the_same() -> None:
    found = compare(theirs({"caller": "1"}), ours({"caller": "2"}), Terms())
    assert Counter(kind for kind, _ in kinds(found)) == {
        Kind.MISSING_HERE: 1,
        Kind.MISSING_THERE: 1,
    }


@pytest.mark.parametrize("side", ["theirs", "ours"])
def test_a_side_without_callers_is_paired_by_the_number_called(side: str) -> None:
    blank = {"caller": ""}
    left, right = (theirs(blank), ours({})) if side == "theirs" else (theirs({}), ours(blank))
    assert compare(left, right, Terms()).agreed == 1


def test_starts_beyond_the_tolerance_are_different_calls() -> None:
    terms = Terms(start_us=2 * SECOND)
    assert compare(theirs({"start": NOON + 2 * SECOND}), ours({}), terms).agreed == 1
    assert compare(theirs({"start": NOON + 2 * SECOND + 1}), ours({}), terms).agreed == 0


def test_a_call_id_used_again_the_day_after_is_another_call() -> None:
    day = 86_400 * SECOND
    left = theirs({"call_id": "7"}, {"call_id": "7", "start": NOON + 2 * day})
    right = ours({"call_id": "7", "start": NOON + 2 * day}, {"call_id": "7"})
    assert compare(left, right, Terms()).by_call_id == 2
    assert compare(left, right[:1], Terms()).by_call_id == 1


def test_legs_of_a_call_are_paired_with_each_other() -> None:
    left = theirs({"call_id": "a", "leg": "1"}, {"call_id": "a", "leg": "2", "duration_ms": 5_000})
    right = ours({"call_id": "a", "leg": "2", "duration_ms": 5_000}, {"call_id": "a", "leg": "1"})
    assert kinds(compare(left, right, Terms())) == []


def test_a_file_without_legs_is_paired_by_call_id_alone() -> None:
    found = compare(theirs({"call_id": "a"}), ours({"call_id": "a", "leg": "1"}), Terms())
    assert (found.by_call_id, kinds(found)) == (1, [])


def test_the_first_of_equal_lines_is_the_record_and_the_others_repeat_it() -> None:
    row = {"start": NOON - SECOND}
    found = compare(theirs(row, row, row), ours({}), Terms())
    assert kinds(found) == [(Kind.DUPLICATE, 2), (Kind.DUPLICATE, 3)]


def test_a_repeated_record_that_we_do_not_have_is_missing_once() -> None:
    found = compare(theirs({"call_id": "x"}, {"call_id": "x"}), ours(), Terms())
    assert kinds(found) == [(Kind.MISSING_HERE, 1), (Kind.DUPLICATE, 2)]


def test_a_billed_duration_agrees_where_the_partner_reports_those() -> None:
    left, right = theirs({"duration_ms": 60_000}), ours({"duration_ms": 12_000, "billed": 60})
    assert kinds(compare(left, right, Terms())) == []
    assert kinds(compare(left, right, Terms(billed=False))) == [(Kind.DURATION, 1)]


@pytest.mark.parametrize(
    ("price", "terms", "differs"),
    [
        (60 * PENNY + 5, Terms(amount=5), False),
        (60 * PENNY + 6, Terms(amount=5), True),
        (63 * PENNY, Terms(amount_ppm=50_000), False),
        (63 * PENNY + 1, Terms(amount_ppm=50_000), True),
        (57 * PENNY - 1, Terms(amount_ppm=50_000), True),
        (None, Terms(), False),
        (4_600_000_000_000_000_000, Terms(), True),
        (-4_600_000_000_000_000_000, Terms(amount_ppm=50_000), True),
    ],
)
def test_prices_differ_beyond_the_larger_tolerance(
    price: int | None, terms: Terms, differs: bool
) -> None:
    found = compare(theirs({"amount": price}), ours({}), terms)
    assert kinds(found) == ([(Kind.PRICE, 1)] if differs else [])


def test_attempts_are_looked_at_only_when_asked_for() -> None:
    nothing = {"duration_ms": 0, "amount": 0, "called": "1"}
    left, right = theirs({}, nothing), ours({}, nothing | {"called": "2"})
    assert kinds(compare(left, right, Terms())) == []
    asked = compare(left, right, Terms(attempts=True))
    assert sorted(kind for kind, _ in kinds(asked)) == [Kind.MISSING_HERE, Kind.MISSING_THERE]


def test_an_attempt_of_ours_that_lasted_there_is_a_difference() -> None:
    found = compare(theirs({}), ours({"duration_ms": 0, "billed": 0, "amount": 0}), Terms())
    assert kinds(found) == [(Kind.DURATION_AND_PRICE, 1)]


def test_a_clock_that_is_off_is_found_by_call_ids_and_set_right() -> None:
    off = 3600 * SECOND
    calls = [{"called": str(n), "start": NOON + n * 60 * SECOND} for n in range(1, 9)]
    named = [call | {"call_id": f"c{n}"} for n, call in enumerate(calls)]
    right = ours(*named[:4], *calls[4:])
    left = theirs(*({**row, "start": row["start"] + off} for row in (*named[:4], *calls[4:])))
    found = compare(left, right, Terms())
    assert (found.clock.offset_us, found.clock.pairs, found.clock.agreeing) == (off, 4, 4)
    assert (found.clock.applied, found.by_call_id, found.by_number) == (False, 4, 0)
    fixed = compare(left, right, Terms(fix_clock=True))
    assert (fixed.clock.applied, fixed.by_call_id, fixed.by_number) == (True, 4, 4)
    assert kinds(fixed) == []


def test_without_call_ids_the_clock_is_found_by_numbers_that_occur_once() -> None:
    calls = [{"called": str(n), "start": NOON + n * 60 * SECOND} for n in range(1, 9)]
    left = theirs(*({**row, "start": row["start"] - 7200 * SECOND} for row in calls))
    fixed = compare(left, ours(*calls), Terms(fix_clock=True))
    assert fixed.clock.offset_us == -7200 * SECOND
    assert fixed.agreed == 8


def test_differences_that_are_not_constant_are_no_offset() -> None:
    rows = [{"call_id": str(n), "start": NOON} for n in range(9)]
    left = theirs(*({**row, "start": NOON + 60 * n * SECOND} for n, row in enumerate(rows)))
    assert compare(left, ours(*rows), Terms()).clock.offset_us is None


def test_what_lies_outside_the_period_is_left_out_but_pairs_across_its_edge() -> None:
    left = theirs(
        {"call_id": "edge", "start": NOON - SECOND},
        {"call_id": "far", "start": NOON - 3600 * SECOND},
    )
    right = ours({"call_id": "edge"}, {"call_id": "late", "start": NOON + 100 * SECOND})
    found = compare(left, right, Terms(since=NOON, until=NOON + 100 * SECOND))
    assert (kinds(found), found.outside, found.theirs, found.ours) == ([], 1, 1, 1)


def test_days_hold_both_sides_by_their_own_starts() -> None:
    midnight = NOON // 86_400_000_000 * 86_400_000_000
    found = compare(
        theirs({"call_id": "a", "start": midnight - SECOND}),
        ours({"call_id": "a", "start": midnight}),
        Terms(),
    )
    day = midnight // 86_400_000_000
    assert found.days.rows() == [
        (day - 1, 1, 0, 60_000, 0, 0, 60 * PENNY, 0),
        (day, 0, 1, 0, 60_000, 60, 0, 60 * PENNY),
    ]


def test_an_empty_file_and_empty_books_compare_without_findings() -> None:
    found = compare(theirs(), ours(), Terms())
    assert (kinds(found), found.days.rows(), found.theirs, found.ours) == ([], [], 0, 0)


def test_gaps_in_running_numbers_are_ranges() -> None:
    gaps = sequence_gaps(pl.Series([7, 3, 1, None, 3, 10], dtype=pl.Int64))
    assert gaps.rows() == [(2, 2, 1), (4, 6, 3), (8, 9, 2)]
    assert sequence_gaps(pl.Series([], dtype=pl.Int64)).rows() == []


# --- the kernel ----------------------------------------------------------------------------------

POINTS = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 60), st.booleans()), max_size=24)


def paired(points: list[tuple[int, int, bool]], limit: int) -> list[int]:
    group, at, side = (np.array([p[n] for p in points]) for n in range(3))
    found = nearest(group.astype(np.int64), side.astype(np.bool_), at.astype(np.int64), limit)
    return [int(one) for one in found]


@given(POINTS, st.integers(0, 20))
def test_pairs_are_the_closest_first(points: list[tuple[int, int, bool]], limit: int) -> None:
    """As when all distances are sorted, and the smallest is taken again and again."""
    points = sorted({(g, at): (g, at, side) for g, at, side in points}.values())
    distances = sorted(
        (abs(b[1] - a[1]), i, j)
        for i, a in enumerate(points)
        for j, b in enumerate(points)
        if i < j and a[0] == b[0] and a[2] != b[2] and b[1] - a[1] <= limit
    )
    expected = [-1] * len(points)
    for _, i, j in distances:
        if expected[i] == expected[j] == -1:
            expected[i], expected[j] = j, i
    assert paired(points, limit) == expected


@given(POINTS, st.integers(0, 20))
def test_pairs_are_mutual_near_and_leave_nothing_that_could_be_paired(
    points: list[tuple[int, int, bool]], limit: int
) -> None:
    points = sorted(points)
    found = paired(points, limit)
    for here, there in enumerate(found):
        group, at, side = points[here]
        if there != -1:
            assert found[there] == here
            assert points[there][0] == group
            assert points[there][2] != side
            assert abs(points[there][1] - at) <= limit
        else:
            alone = [p for p, f in zip(points, found, strict=True) if f == -1 and p[0] == group]
            assert not [p for p in alone if p[2] != side and abs(p[1] - at) <= limit]
            earlier = here > 0 and points[here - 1] == points[here]
            later = [n for n in range(here + 1, len(points)) if points[n] == points[here]]
            assert not any(found[n] != -1 for n in later), (earlier, later)


# --- the whole -----------------------------------------------------------------------------------

FATES = st.lists(
    st.sampled_from(["kept", "deleted", "longer", "dearer", "both", "repeated", "shifted"]),
    max_size=30,
)


@given(FATES, st.integers(0, 8), st.booleans(), st.integers(-3600, 3600), st.randoms())
def test_what_was_done_to_a_copy_of_our_rows_is_exactly_what_is_found(
    fates: list[str], inserted: int, with_ids: bool, offset: int, dice: Any
) -> None:
    """A file made of our own rows, with deletions, insertions and changes, in any order."""
    mine, copies, expected = [], [], Counter[tuple[str, str]]()
    clock = offset * SECOND if with_ids else 0
    for number, fate in enumerate(fates):
        # Every third call goes to the same number, some minutes apart.
        called = "4420" if number % 3 == 0 else f"44{number}"
        row = {
            "call_id": f"id{number}" if with_ids else "", "called": called,
            "start": NOON + number * 60 * SECOND, "duration_ms": 10_000 + 1000 * number,
        }  # fmt: skip
        name = f"{row['start']}"
        mine.append(row | {"billed": 10 + number})
        copy = row | {"start": row["start"] + clock}
        if fate == "deleted":
            expected[Kind.MISSING_THERE, name] += 1
            continue
        if fate in {"longer", "both"}:
            copy |= {"duration_ms": row["duration_ms"] + 5_000}
        if fate in {"dearer", "both"}:
            copy |= {"amount": 61 * PENNY}
        if fate == "shifted":
            copy |= {"start": copy["start"] + 3 * SECOND}
        kind = {"longer": Kind.DURATION, "dearer": Kind.PRICE, "both": Kind.DURATION_AND_PRICE}
        if fate in kind:
            expected[kind[fate], name] += 1
        copies.append(copy)
        if fate == "repeated":
            copies.append(copy)
            expected[Kind.DUPLICATE, f"{copy['start'] - clock}"] += 1
    for number in range(inserted):
        start = NOON + number * 60 * SECOND
        copies.append({"called": f"99{number}", "start": start + clock, "call_id": f"new{number}"})
        expected[Kind.MISSING_HERE, f"{start}"] += 1
    dice.shuffle(copies)
    dice.shuffle(mine)
    period = Terms(since=NOON - 7200 * SECOND, until=NOON + 86_400 * SECOND, attempts=True)
    found = compare(theirs(*copies), ours(*mine), period)
    seen = Counter(
        (
            row["kind"],
            f"{row['their_start'] - clock if row['our_start'] is None else row['our_start']}",
        )
        for row in found.findings.iter_rows(named=True)
    )
    assert seen == expected
    again = compare(theirs(*copies), ours(*reversed(mine)), period)
    assert again.findings.equals(found.findings)
