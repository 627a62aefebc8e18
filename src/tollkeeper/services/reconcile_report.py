"""What a comparison comes to: the report, its verdict in money, and the CSV for the partner."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import polars as pl

from tollkeeper.bulk.reconcile import Compared, Kind
from tollkeeper.core.money import SCALE, ZERO, plain
from tollkeeper.core.usage import Refused

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
CSV_ROWS = 10_000
"""Findings that are made into text at a time."""

_WORDS = {
    Kind.MISSING_HERE: "calls that we do not have",
    Kind.MISSING_THERE: "calls that the file does not have",
    Kind.DURATION: "other durations",
    Kind.PRICE: "other prices",
    Kind.DURATION_AND_PRICE: "other durations and prices",
    Kind.DUPLICATE: "calls that the file has twice",
}
_TO_PARTNER = {
    Kind.MISSING_HERE: "not in our records",
    Kind.MISSING_THERE: "not in your file",
    Kind.DURATION: "duration differs",
    Kind.PRICE: "price differs",
    Kind.DURATION_AND_PRICE: "duration and price differ",
    Kind.DUPLICATE: "twice in your file",
}


@dataclass(frozen=True, slots=True)
class Gap:
    """Running numbers that are not in the file, from ``first`` to ``last``."""

    first: int
    last: int

    @property
    def missing(self) -> int:
        """How many."""
        return self.last - self.first + 1


@dataclass(frozen=True, slots=True)
class DayLine:
    """Both sides of a day (UTC), and what was found on it by kind. Durations in milliseconds."""

    day: datetime
    their_records: int
    our_records: int
    their_ms: int
    our_ms: int
    our_billed: int
    their_amount: Decimal
    our_amount: Decimal
    kinds: dict[str, int]


@dataclass(frozen=True, slots=True)
class Report:
    """The outcome. ``findings`` has the schema ``bulk.reconcile.FINDINGS``.

    ``difference`` is their total minus ours, of all that both sides price, and the sum of
    ``parts`` (by kind). ``priced`` is False where the file names no prices. ``refused`` are the
    first lines that could not be read, ``refused_count`` all of them. ``gaps`` are the first of
    ``gap_count``, which lack ``gap_records`` records. ``verdict`` is one sentence.
    """

    side: str
    partner: str
    currency: str
    format: str
    since: datetime
    until: datetime
    compared: Compared
    findings: pl.DataFrame
    days: tuple[DayLine, ...]
    their_total: Decimal
    our_total: Decimal
    difference: Decimal
    parts: dict[str, Decimal]
    priced: bool
    gaps: tuple[Gap, ...]
    gap_count: int
    gap_records: int
    records: int
    refused: tuple[Refused, ...]
    refused_count: int
    skipped: int
    notes: tuple[str, ...]

    @property
    def counts(self) -> dict[str, int]:
        """Findings by kind, in the order of ``Kind``; kinds without any are left out."""
        sums = {kind.value: sum(line.kinds.get(kind, 0) for line in self.days) for kind in Kind}
        return {kind: count for kind, count in sums.items() if count}

    @property
    def verdict(self) -> str:
        """What it comes to, in money."""
        return verdict_of(self)


def money(amount: int) -> Decimal:
    """An amount of 10^-8 as a decimal."""
    return Decimal(amount).scaleb(-SCALE)


def day_lines(compared: Compared) -> Iterator[DayLine]:
    """The days of a comparison, with what was found on each."""
    kinds: dict[int, dict[str, int]] = {}
    for day, kind, count in compared.kinds.iter_rows():
        kinds.setdefault(day, {})[kind] = count
    for row in compared.days.iter_rows(named=True):
        yield DayLine(
            day=EPOCH + timedelta(days=row["day"]),
            their_records=row["their_records"],
            our_records=row["our_records"],
            their_ms=row["their_ms"],
            our_ms=row["our_ms"],
            our_billed=row["our_billed"],
            their_amount=money(int(row["their_amount"])),
            our_amount=money(int(row["our_amount"])),
            kinds=kinds.get(row["day"], {}),
        )


# --- verdict -------------------------------------------------------------------------------------


def verdict_of(report: Report) -> str:
    """One sentence: who says what, how much that is apart, and why."""
    if not report.priced:
        return _verdict_unpriced(report)
    theirs, ours = _sum(report.their_total, report), _sum(report.our_total, report)
    heads = {
        "customer": f"{report.partner} counts {theirs} and we charged {ours}",
        "vendor": f"{report.partner} claims {theirs} and our records say {ours}",
        "switch": f"{report.partner} says {theirs} and our records say {ours}",
    }
    head = heads[report.side]
    reasons = [
        f"{_signed(report.parts[kind])} for {report.counts.get(kind, 0):,} {_WORDS[kind]}"
        for kind in Kind
        if report.parts[kind]
    ]
    if report.parts["agreed"]:
        reasons.append(f"{_signed(report.parts['agreed'])} within the tolerance")
    why = ": " + ", ".join(reasons) if reasons else ""
    if not report.difference:
        return f"{head}: no difference" + (f" in all{why}." if why else ".")
    word = "more" if report.difference > ZERO else "less"
    share = ""
    if report.our_total:
        percent = (abs(report.difference) / abs(report.our_total) * 100).quantize(Decimal("0.01"))
        share = f" ({percent} %)"
    return f"{head}: {_sum(abs(report.difference), report)}{share} {word}{why}."


def _verdict_unpriced(report: Report) -> str:
    counts = report.counts
    here, there = counts.get(Kind.MISSING_HERE, 0), counts.get(Kind.MISSING_THERE, 0)
    durations = counts.get(Kind.DURATION, 0)
    if not counts:
        return f"{report.partner} and we have the same {report.compared.agreed:,} calls."
    worth = ""
    if report.currency:
        worth = f", which come to {_sum(-report.parts[Kind.MISSING_THERE], report)} in our records"
    return (
        f"Without prices: {here:,} calls of {report.partner} are missing here, {there:,} of ours "
        f"are missing there{worth}, {durations:,} have another duration, and "
        f"{counts.get(Kind.DUPLICATE, 0):,} are in the file twice."
    )


def _sum(amount: Decimal, report: Report) -> str:
    return f"{plain(amount)} {report.currency}"


def _signed(amount: Decimal) -> str:
    return ("+" if amount > ZERO else "") + plain(amount)


# --- findings, one by one --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class FindingLine:
    """A finding: the record of the file and ours; None where that side has none."""

    kind: Kind
    line: int | None
    their_call_id: str | None
    their_caller: str | None
    their_called: str | None
    their_start: datetime | None
    their_ms: int | None
    their_amount: Decimal | None
    our_call_id: str | None
    our_caller: str | None
    our_called: str | None
    our_start: datetime | None
    our_ms: int | None
    our_billed_seconds: int | None
    our_amount: Decimal | None


def finding_lines(report: Report, *, most: int) -> Iterator[FindingLine]:
    """The first findings."""
    for row in report.findings.head(most).iter_rows(named=True):
        for name in ("their_start", "our_start"):
            row[name] = None if row[name] is None else EPOCH + timedelta(microseconds=row[name])
        for name in ("their_amount", "our_amount"):
            row[name] = None if row[name] is None else money(row[name])
        kind, billed = Kind(row.pop("kind")), row.pop("our_billed")
        yield FindingLine(kind=kind, our_billed_seconds=billed, **row)


# --- CSV -----------------------------------------------------------------------------------------

HEADER = (
    "finding", "your_line", "your_call_id", "your_start", "your_caller", "your_called",
    "your_seconds", "your_amount", "our_call_id", "our_start", "our_caller", "our_called",
    "our_seconds", "our_billed_seconds", "our_amount", "difference_seconds", "difference_amount",
    "currency",
)  # fmt: skip
"""The partner's own reference first, our figures beside it. Of money only what is between us and
them: the frame that it is made of holds nothing else."""


def csv_of(report: Report) -> Iterator[str]:
    """The findings as CSV for the partner, in pieces of whole lines."""
    yield ",".join(HEADER) + "\r\n"
    for at in range(0, len(report.findings), CSV_ROWS):
        yield _lines(report.findings.slice(at, CSV_ROWS), report.currency)


def _lines(findings: pl.DataFrame, currency: str) -> str:
    text = findings.select(
        pl.col("kind")
        .replace_strict({k.value: v for k, v in _TO_PARTNER.items()})
        .alias(HEADER[0]),
        pl.col("line").alias("your_line"),
        _safe("their_call_id").alias("your_call_id"),
        _moment("their_start").alias("your_start"),
        _safe("their_caller").alias("your_caller"),
        _safe("their_called").alias("your_called"),
        _decimal(pl.col("their_ms"), 3).alias("your_seconds"),
        _decimal(pl.col("their_amount"), SCALE).alias("your_amount"),
        _safe("our_call_id"),
        _moment("our_start"),
        _safe("our_caller"),
        _safe("our_called"),
        _decimal(pl.col("our_ms"), 3).alias("our_seconds"),
        pl.col("our_billed").alias("our_billed_seconds"),
        _decimal(pl.col("our_amount"), SCALE).alias("our_amount"),
        _decimal(pl.col("their_ms") - pl.col("our_ms"), 3).alias("difference_seconds"),
        _decimal(pl.col("their_amount") - pl.col("our_amount"), SCALE).alias("difference_amount"),
        pl.lit(currency).alias("currency"),
    ).write_csv(include_header=False, line_terminator="\r\n")
    return text or ""


def _safe(name: str) -> pl.Expr:
    """A text that no spreadsheet takes for a formula."""
    text = pl.col(name)
    return pl.when(text.str.contains(r"^[=+\-@\t\r]")).then("'" + text).otherwise(text).alias(name)


def _moment(name: str) -> pl.Expr:
    return (
        pl.from_epoch(pl.col(name), time_unit="us")
        .dt.strftime("%Y-%m-%dT%H:%M:%S%.3fZ")
        .alias(name)
    )


def _decimal(amount: pl.Expr, places: int) -> pl.Expr:
    """An integer of 10^-places as a plain decimal number, without zeros that say nothing."""
    unit = 10**places
    sign = pl.when(amount < 0).then(pl.lit("-")).otherwise(pl.lit(""))
    whole = (amount.abs() // unit).cast(pl.String)
    rest = (amount.abs() % unit).cast(pl.String).str.zfill(places).str.strip_chars_end("0")
    point = pl.when(rest == "").then(pl.lit("")).otherwise("." + rest)
    return pl.concat_str(sign, whole, point)
