"""The guarantees of records over plain data: what is in order, and what each finding says."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

from tollkeeper.core.audit import GUARANTEES
from tollkeeper.core.audit_usage import (
    BatchLine,
    FileLine,
    HourLine,
    LegTotal,
    OddRevision,
    Outcomes,
    Stored,
    check_batches,
    check_files,
    check_hour,
    check_postings,
    check_revision,
    expected_postings,
)

D = Decimal
TEN = Outcomes(10, 6, 1, 2, 1)


def batch(id_: int, first: int, last: int, kind: str = "load") -> BatchLine:
    """A part of file 1 with ten records."""
    return BatchLine(id_, kind, 1, first, last, TEN)


def test_a_file_is_the_sum_of_its_parts() -> None:
    """Replays and re-ratings of its records do not count to it."""
    parts = [batch(2, 11, 20), batch(1, 1, 10), batch(3, 0, 0, "replay")]
    assert list(check_files([FileLine(1, "a", 20, TEN + TEN)], parts)) == []
    assert list(check_files([FileLine(2, "empty", 0, Outcomes())], [])) == []


def test_what_is_wrong_with_a_file_is_said_with_its_figures() -> None:
    """Records without an outcome, other sums, lines taken twice, and lines that it forgot."""
    odd = FileLine(1, "a.csv", 12, Outcomes(11, 6, 1, 2, 1))
    found = list(check_files([odd], [batch(1, 1, 10), batch(2, 10, 19)]))
    assert [finding.code for finding in found] == [
        "I21.file", "I21.sum", "I21.twice", "I21.lines",
    ]  # fmt: skip
    assert {finding.subject for finding in found} == {"file 1 a.csv"}
    assert found[0].detail.endswith("2 duplicate, 1 quarantined: 1 without an outcome")
    assert found[2].detail == "batch 2 begins at line 10, 10 was done before"
    assert found[3].detail == "stands at line 12, 19 was done"
    assert {finding.guarantee for finding in found} == {GUARANTEES["I21"]}


def test_a_batch_has_the_records_that_it_says() -> None:
    """One that changes records of others has none; records without a batch are found."""
    stored = {1: Stored(6, 1, 1), 7: Stored(rated=1)}
    found = list(check_batches([batch(1, 1, 10), batch(4, 0, 0, "rerate")], stored))
    assert [(finding.code, finding.subject) for finding in found] == [("I21.stray", "batch 7")]
    less = {1: Stored(5, 1, 0)}
    found = list(check_batches([batch(1, 1, 10)], less))
    assert [(finding.code, finding.detail) for finding in found] == [
        ("I21.rated", "says 6, 5 are there"),
        ("I21.quarantined", "says 1, 0 are there"),
    ]


def test_a_batch_posts_what_begins_to_count_with_it_and_what_ceases_to() -> None:
    """Load 1, changed by 2, changed again by 3; 3 taken back by 4, then 1 and all with it by 5."""
    legs = [
        LegTotal(1, 0, 9, "sell", D(10)),
        LegTotal(1, 2, 9, "sell", D(3)),
        LegTotal(1, 3, 9, "sell", D(-1)),
        LegTotal(1, 0, 8, "buy", D(6)),
    ]
    assert expected_postings(legs, {}) == {
        (1, 9, "sell"): 10, (2, 9, "sell"): 3, (3, 9, "sell"): -1, (1, 8, "buy"): 6,
    }  # fmt: skip
    assert expected_postings(legs, {3: 4, 1: 5}) == {
        (1, 9, "sell"): 10, (2, 9, "sell"): 3, (3, 9, "sell"): -1, (1, 8, "buy"): 6,
        (4, 9, "sell"): 1, (5, 9, "sell"): -13, (5, 8, "buy"): -6,
    }  # fmt: skip


def test_postings_are_held_against_the_legs() -> None:
    """Too much, too little, none, and on a wallet that has no leg; zero is nothing."""
    expected = {(1, 9, "sell"): D(10), (1, 8, "buy"): D(6), (2, 9, "sell"): D(0)}
    posted = {(1, 9, "sell"): D("10.0"), (1, 7, "buy"): D(6)}
    found = list(check_postings(expected, posted))
    assert [(finding.code, wallet) for finding, wallet in found] == [("I22.buy", 7), ("I22.buy", 8)]
    assert found[0][0].detail == "posted 6 to wallet 7 (buy), its legs make 0"
    assert (
        list(check_postings(expected, {**posted, (1, 8, "buy"): D(6), (1, 7, "buy"): D(0)})) == []
    )


def test_a_revision_begins_where_the_leg_stood() -> None:
    assert list(check_revision(OddRevision(2, 1, 5, 0, D(3), D("3.0")))) == []
    (finding,) = check_revision(OddRevision(2, 1, 5, 0, D(3), D(4)))
    assert (finding.code, finding.subject) == ("I22.was", "batch 2")
    assert finding.detail == "took leg 0 of line 5 of batch 1 to be 3, and it was 4"


def test_an_hour_is_compared_measure_by_measure() -> None:
    """Only what differs is said."""
    hour = datetime(2024, 2, 29, 12, tzinfo=UTC)
    same = {"attempts": D(3), "revenue": D("1.5")}
    assert list(check_hour(HourLine(hour, "acme", same, dict(same)))) == []
    (finding,) = check_hour(HourLine(hour, "acme", same, {"attempts": D(3), "revenue": D(2)}))
    assert finding.subject == "hour 2024-02-29T12:00+00:00 acme"
    assert finding.detail == "revenue stands at 1.5, adds up to 2"
