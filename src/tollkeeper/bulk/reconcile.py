"""Two parties' records of the same calls: which belong together, and where they differ.

Frames in, frames out. ``THEIRS`` is what a partner's (or switch's) file says, ``OURS`` what our
books say of the same party; ``compare`` pairs them one to one and names what is missing on either
side, what lasted or cost something else, and what the file has twice.

Records are paired by call id and leg first. What is left is paired by the number called and the
caller (where both have one), the closest in time first; two that agree to the second in start and
duration before all others. Nothing depends on the order of our rows, and of records that are the
same in a file the first one is paired. Times are microseconds since 1970 in UTC, durations
milliseconds, amounts integers of 10^-8.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt
import polars as pl

from tollkeeper.bulk.pairing import DAY, SECOND, Clock, Int64s, Pairing, find_clock

AMOUNT_MAX = 4_600_000_000_000_000_000
"""Amounts beyond this many 10^-8 (46 billion) are held at it, so that differences fit an int64."""

THEIRS = pl.Schema(
    {
        "line": pl.Int64(),
        "call_id": pl.String(),
        "leg": pl.String(),
        "caller": pl.String(),
        "called": pl.String(),
        "start": pl.Int64(),
        "duration_ms": pl.Int64(),
        "amount": pl.Int64(),
    }
)
"""A record of the file; "" is an absent text, ``amount`` null where the file names no price."""

OURS = pl.Schema(
    {
        "call_id": pl.String(),
        "leg": pl.String(),
        "caller": pl.String(),
        "called": pl.String(),
        "start": pl.Int64(),
        "duration_ms": pl.Int64(),
        "billed": pl.Int64(),
        "amount": pl.Int64(),
    }
)
"""A record of the books: ``billed`` seconds and ``amount`` of the party's own leg, ``amount`` null
where it is in another currency."""

FINDINGS = pl.Schema(
    {
        "kind": pl.String(),
        "line": pl.Int64(),
        "their_call_id": pl.String(),
        "their_caller": pl.String(),
        "their_called": pl.String(),
        "their_start": pl.Int64(),
        "their_ms": pl.Int64(),
        "their_amount": pl.Int64(),
        "our_call_id": pl.String(),
        "our_caller": pl.String(),
        "our_called": pl.String(),
        "our_start": pl.Int64(),
        "our_ms": pl.Int64(),
        "our_billed": pl.Int64(),
        "our_amount": pl.Int64(),
    }
)
"""One row a finding, in the order of time; all of one side is null where that side has no record."""

DAYS = pl.Schema(
    {
        "day": pl.Int64(),
        "their_records": pl.Int64(),
        "our_records": pl.Int64(),
        "their_ms": pl.Int64(),
        "our_ms": pl.Int64(),
        "our_billed": pl.Int64(),
        "their_amount": pl.Int128(),
        "our_amount": pl.Int128(),
    }
)
"""Both sides by day (days since 1970, UTC, of the start); what a finding adds is in ``kinds``."""


class Kind(StrEnum):
    """What is wrong with a record, or a pair of records."""

    MISSING_HERE = "missing_here"
    """They have it, we do not."""
    MISSING_THERE = "missing_there"
    """We have it, they do not."""
    DURATION = "duration"
    PRICE = "price"
    DURATION_AND_PRICE = "duration_and_price"
    DUPLICATE = "duplicate"
    """Their file has it again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """How strictly to compare.

    ``start_us`` is how far starts may lie apart where call ids do not decide, ``duration_ms`` by how
    much durations may differ, ``amount`` (10^-8) and ``amount_ppm`` (millionths of our amount) by
    how much prices may; the larger one of the two holds. ``billed`` accepts a duration that equals
    our billed seconds. ``attempts`` also asks for calls that neither lasted nor cost anything.
    ``since`` and ``until`` bound the starts that are compared; None means the span of the file,
    ``start_us`` more on either side. ``fix_clock`` moves their times by the offset that is found.
    """

    start_us: int = 5 * SECOND
    duration_ms: int = 1000
    amount: int = 0
    amount_ppm: int = 0
    billed: bool = True
    attempts: bool = False
    since: int | None = None
    until: int | None = None
    fix_clock: bool = False


@dataclass(frozen=True, slots=True)
class Compared:
    """The outcome: ``findings`` (``FINDINGS``), ``days`` (``DAYS``), ``kinds`` (day, kind, count).

    ``by_call_id`` and ``by_number`` count pairs within the period, ``agreed`` those without a
    finding. ``theirs`` and ``ours`` count records that were compared, ``outside`` those of the file
    that lie out of the period. ``parts`` says what makes up the difference of the two totals, in
    10^-8, by kind ("agreed" is what lies within the tolerance); ``unpriced`` counts the pairs where
    one side has no amount.
    """

    findings: pl.DataFrame
    days: pl.DataFrame
    kinds: pl.DataFrame
    clock: Clock
    since: int
    until: int
    theirs: int
    ours: int
    outside: int
    by_call_id: int
    by_number: int
    agreed: int
    unpriced: int
    parts: dict[str, int]


def compare(theirs: pl.DataFrame, ours: pl.DataFrame, terms: Terms) -> Compared:
    """Compare a file (``THEIRS``) with our records (``OURS``) by these terms."""
    theirs = theirs.select(THEIRS.names()).sort("line", maintain_order=True)
    # Our rows have no order of their own; this one makes every run the same.
    ours = ours.select(OURS.names()).sort(OURS.names(), nulls_last=True)
    pairing = Pairing(theirs, ours)
    pairing.by_call_id(0)
    clock = find_clock(pairing, terms.start_us)
    shift = 0
    if terms.fix_clock and clock.offset_us is not None:
        shift = clock.offset_us
        clock = Clock(clock.offset_us, clock.pairs, clock.agreeing, applied=True)
        pairing = Pairing(theirs, ours)
        pairing.by_call_id(shift)
    sure = int((pairing.partner >= 0).sum())
    # Who was paired by call id is known by now; the rest of them are paired by their numbers.
    by_id = pairing.partner >= 0
    if sure < len(theirs):
        pairing.by_numbers(shift, terms.start_us)
    return _report(pairing, by_id, shift, clock, terms)


def sequence_gaps(numbers: pl.Series) -> pl.DataFrame:
    """Find which running numbers are missing: ``first`` and ``last`` of each range, and ``missing``.

    ``numbers`` (Int64, nulls ignored) need not be in order; the frame is.
    """
    seen = numbers.drop_nulls().unique().sort()
    frame = pl.DataFrame({"first": seen.shift(1) + 1, "last": seen - 1})
    frame = frame.filter(pl.col("first") <= pl.col("last"))
    return frame.with_columns(missing=pl.col("last") - pl.col("first") + 1)


def sequence_summary(numbers: pl.Series, *, most: int = 1000) -> dict[str, object] | None:
    """The running numbers of a part, as a batch keeps them; None where its records carry none.

    ``first`` and ``last`` number, and ``gaps``: the first ``most`` ranges in between that are
    missing, each as [first, last].
    """
    seen = numbers.drop_nulls()
    if seen.is_empty():
        return None
    gaps = sequence_gaps(seen).head(most).select("first", "last")
    return {
        "first": seen.min(),
        "last": seen.max(),
        "gaps": [list(gap) for gap in gaps.iter_rows()],
    }


# --- findings ------------------------------------------------------------------------------------


def _report(
    pairing: Pairing, by_id: npt.NDArray[np.bool_], shift: int, clock: Clock, terms: Terms
) -> Compared:
    at = pairing.theirs["start"].to_numpy() - shift
    since, until = _period(at, terms)
    joined = _joined(pairing, by_id, at)
    joined = joined.with_columns(
        inside=((pl.col("at") >= since) & (pl.col("at") < until)).fill_null(value=False)
        | ((pl.col("our_start") >= since) & (pl.col("our_start") < until)).fill_null(value=False)
    )
    outside = joined.filter(~pl.col("inside") & pl.col("line").is_not_null()).height
    joined = joined.filter("inside")
    if not terms.attempts:
        joined = joined.filter(_counts("their") | _counts("our"))
    joined = joined.with_columns(kind=_kind(terms))
    paired = pl.col("line").is_not_null() & pl.col("our_ms").is_not_null()
    findings = (
        joined.filter(pl.col("kind").is_not_null())
        .sort(pl.coalesce("at", "our_start"), "line", "our_row", nulls_last=True)
        .select(FINDINGS.names())
    )
    day = (pl.coalesce("our_start", "at") // DAY).alias("day")
    kinds = (
        joined.filter(pl.col("kind").is_not_null())
        .group_by(day, "kind")
        .agg(pl.len().cast(pl.Int64).alias("count"))
        .sort("day", "kind")
    )
    return Compared(
        findings=findings,
        days=_days(joined),
        kinds=kinds,
        clock=clock,
        since=since,
        until=until,
        theirs=joined["line"].count(),
        ours=joined["our_ms"].count(),
        outside=outside,
        by_call_id=joined.filter(paired & pl.col("by_id")).height,
        by_number=joined.filter(paired & ~pl.col("by_id")).height,
        agreed=joined.filter(paired & pl.col("kind").is_null()).height,
        unpriced=joined.filter(paired & _difference().is_null()).height,
        parts=_parts(joined),
    )


def _period(at: Int64s, terms: Terms) -> tuple[int, int]:
    """The period that is compared: begins at the first, ends before the second."""
    first = int(at.min()) - terms.start_us if len(at) else 0
    last = int(at.max()) + terms.start_us + 1 if len(at) else 0
    return (
        first if terms.since is None else terms.since,
        last if terms.until is None else terms.until,
    )


def _joined(pairing: Pairing, by_id: npt.NDArray[np.bool_], at: Int64s) -> pl.DataFrame:
    """All records, pairs in one row; ``repeats`` marks what the file has more than once."""
    theirs = pairing.theirs.select(
        "row",
        "line",
        pl.col("call_id").alias("their_call_id"),
        pl.col("caller").alias("their_caller"),
        pl.col("called").alias("their_called"),
        pl.col("start").alias("their_start"),
        pl.col("duration_ms").alias("their_ms"),
        pl.col("amount").alias("their_amount"),
        pl.Series("at", at),
        pl.Series("by_id", by_id),
        pl.Series("partner", pairing.partner).replace(-1, None).cast(pl.UInt32),
        _repeats(pairing),
    )
    ours = pairing.ours.select(
        pl.col("row").alias("our_row"),
        pl.col("call_id").alias("our_call_id"),
        pl.col("caller").alias("our_caller"),
        pl.col("called").alias("our_called"),
        pl.col("start").alias("our_start"),
        pl.col("duration_ms").alias("our_ms"),
        pl.col("billed").alias("our_billed"),
        pl.col("amount").alias("our_amount"),
    )
    return theirs.join(ours, left_on="partner", right_on="our_row", how="full", coalesce=False)


def _repeats(pairing: Pairing) -> pl.Series:
    """Which records without a partner repeat another one: a paired one, or an earlier line."""
    alone = pairing.partner < 0
    marked = np.zeros(len(alone), dtype=np.bool_)
    named = pl.col("call_id") != ""
    for keys, those in (
        (["call_id", "leg", "start"], named),
        (["called", "caller", "start", "duration_ms"], ~named),
    ):
        rows = pairing.theirs.with_columns(alone=pl.Series(alone)).filter(those)
        rows = rows.select(*keys, "row", "alone")
        rows = rows.join(rows.filter("alone"), on=keys, how="semi")
        first = (pl.col("row") == pl.col("row").min()).over(keys)
        paired = (~pl.col("alone")).any().over(keys)
        again = rows.filter(pl.col("alone") & (paired | ~first))["row"].to_numpy()
        marked[again] = True
    return pl.Series("repeats", marked)


def _counts(side: str) -> pl.Expr:
    """Whether a side says that the call lasted, or cost something."""
    lasted, cost = pl.col(f"{side}_ms") > 0, pl.col(f"{side}_amount") != 0
    return lasted.fill_null(value=False) | cost.fill_null(value=False)


def _difference() -> pl.Expr:
    return pl.col("their_amount") - pl.col("our_amount")


def _kind(terms: Terms) -> pl.Expr:
    """The kind of finding, null where both sides agree."""
    longer = (pl.col("their_ms") - pl.col("our_ms")).abs() > terms.duration_ms
    if terms.billed:
        billed = pl.col("our_billed") * 1000
        longer &= (pl.col("their_ms") - billed).abs() > terms.duration_ms
    difference = _difference().abs()
    wide = pl.Int128  # millionths of billions
    share = pl.col("our_amount").abs().cast(wide) * pl.lit(terms.amount_ppm, wide)
    dearer = (difference > terms.amount) & (difference.cast(wide) * pl.lit(1_000_000, wide) > share)
    dearer = dearer.fill_null(value=False)
    return (
        pl.when(pl.col("line").is_null())
        .then(pl.lit(Kind.MISSING_THERE.value))
        .when(pl.col("our_ms").is_null() & pl.col("repeats"))
        .then(pl.lit(Kind.DUPLICATE.value))
        .when(pl.col("our_ms").is_null())
        .then(pl.lit(Kind.MISSING_HERE.value))
        .when(longer & dearer)
        .then(pl.lit(Kind.DURATION_AND_PRICE.value))
        .when(longer)
        .then(pl.lit(Kind.DURATION.value))
        .when(dearer)
        .then(pl.lit(Kind.PRICE.value))
        .otherwise(None)
    )


def _days(joined: pl.DataFrame) -> pl.DataFrame:
    """Both sides by the day of their own start."""
    theirs = (
        joined.filter(pl.col("line").is_not_null())
        .group_by((pl.col("at") // DAY).alias("day"))
        .agg(
            pl.len().cast(pl.Int64).alias("their_records"),
            pl.col("their_ms").sum(),
            pl.col("their_amount").cast(pl.Int128).sum(),
        )
    )
    ours = (
        joined.filter(pl.col("our_ms").is_not_null())
        .group_by((pl.col("our_start") // DAY).alias("day"))
        .agg(
            pl.len().cast(pl.Int64).alias("our_records"),
            pl.col("our_ms").sum(),
            pl.col("our_billed").sum(),
            pl.col("our_amount").cast(pl.Int128).sum(),
        )
    )
    days = theirs.join(ours, on="day", how="full", coalesce=True)
    return days.select(
        pl.col(name) if name == "day" else pl.col(name).fill_null(0) for name in DAYS.names()
    ).sort("day")


def _parts(joined: pl.DataFrame) -> dict[str, int]:
    """What makes up the difference of the totals: for each kind, theirs minus ours."""
    there, here = pl.col("line").is_null(), pl.col("our_ms").is_null()
    part = (
        pl.when(there)
        .then(-pl.col("our_amount"))
        .when(here)
        .then("their_amount")
        .otherwise(_difference())
        .fill_null(0)
        .cast(pl.Int128)
    )
    sums = joined.group_by(pl.col("kind").fill_null("agreed")).agg(part.sum().alias("part"))
    found = dict(sums.select("kind", "part").iter_rows())
    return {name: int(found.get(name, 0)) for name in (*(k.value for k in Kind), "agreed")}
