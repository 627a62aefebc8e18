"""What the routes of comparing and of revenue assurance take and give."""

from __future__ import annotations

from datetime import date, datetime
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from tollkeeper.bulk.reconcile import Kind
from tollkeeper.core.numbering import DialRules
from tollkeeper.servers.api.schemas import Moment, Money, Out
from tollkeeper.services.fields import CODE_PATTERN, ZONE_PATTERN, check_moment
from tollkeeper.services.reconcile import Question, Report
from tollkeeper.services.reconcile_report import FindingLine, finding_lines
from tollkeeper.services.revenue_assurance import Assurance
from tollkeeper.wire.cdr.mapping import load_mapping

MaybeCode = Annotated[str, StringConstraints(pattern=rf"^$|{CODE_PATTERN}")]
Digits = Annotated[str, StringConstraints(pattern="^[0-9#*]{0,16}$")]
Tolerance = Annotated[int, Field(ge=0, le=86_400)]


class ReconcileQuery(BaseModel):
    """Whose file it is, how it is read, and how strictly it is compared with our records."""

    model_config = ConfigDict(extra="forbid")

    customer: MaybeCode = Field("", description="Code of the customer whose file it is.")
    vendor: MaybeCode = Field("", description="Code of the vendor whose file it is.")
    switch: MaybeCode = Field("", description="The switch whose file it is.")
    source: MaybeCode = Field("", description="The CDR source by whose settings it is read.")
    format: Annotated[str, StringConstraints(max_length=40)] = Field(
        "", description="Format of the file; recognised if left out."
    )
    mapping: Annotated[str, StringConstraints(max_length=20_000)] = Field(
        "", description="A mapping (TOML), for the formats csv and jsonl."
    )
    timezone: Annotated[str, StringConstraints(pattern=ZONE_PATTERN)] = "UTC"
    trunk: MaybeCode = Field("", description="The trunk by whose dial rules numbers are written.")
    tech_prefix: Digits = ""
    national: Digits = Field("", description="What national numbers begin with.")
    country_code: Digits = ""
    currency: Annotated[str, StringConstraints(pattern="^([A-Z]{3})?$")] = ""
    since: Moment = Field(None, description="The span of the file if left out.")
    until: Moment = None
    start_seconds: Tolerance = 5
    seconds: Tolerance = 1
    money: Annotated[str, StringConstraints(max_length=40)] = Field(
        "0.0001",
        description="Tolerance of prices: an amount, or a share of ours.",
        examples=["0.5%"],
    )
    basis: Literal["either", "raw"] = "either"
    attempts: bool | None = Field(None, description="Also calls that did not last; for switches.")
    fix_clock: bool = False
    shown: int = Field(100, ge=0, le=1000, description="Findings in a JSON answer, at most.")

    def question(self) -> Question:
        """The question that is asked."""
        rules = None
        if self.tech_prefix or self.national or self.country_code:
            rules = DialRules(
                tech_prefix=self.tech_prefix,
                national=self.national,
                country_code=self.country_code,
            )
        return Question(
            customer=self.customer,
            vendor=self.vendor,
            switch=self.switch,
            source=self.source,
            format=self.format,
            mapping=load_mapping(self.mapping) if self.mapping else None,
            timezone=self.timezone,
            trunk=self.trunk,
            rules=rules,
            currency=self.currency,
            since=None if self.since is None else check_moment(self.since, field="since"),
            until=None if self.until is None else check_moment(self.until, field="until"),
            start_seconds=self.start_seconds,
            seconds=self.seconds,
            money=self.money,
            basis=self.basis,
            attempts=self.attempts,
            fix_clock=self.fix_clock,
        )


class DayOut(Out):
    """Both sides of a day (UTC), and its findings by kind."""

    day: date
    their_records: int
    our_records: int
    their_ms: int
    our_ms: int
    our_billed_seconds: int
    their_amount: Money
    our_amount: Money
    findings: dict[Kind, int]


class ClockOut(Out):
    """Their clock minus ours; null where it cannot be told."""

    offset_ms: int | None
    pairs: int
    agreeing: int
    applied: bool


class GapOut(Out):
    """Running numbers that are missing."""

    first: int
    last: int
    missing: int


class RefusedOut(Out):
    """A line that could not be read."""

    line: int
    field: str
    value: str
    reason: str


class FindingOut(Out):
    """A difference: the partner's record, and ours; null where that side has none."""

    kind: Kind
    line: int | None
    their_call_id: str | None
    their_start: datetime | None
    their_caller: str | None
    their_called: str | None
    their_ms: int | None
    their_amount: Money | None
    our_call_id: str | None
    our_start: datetime | None
    our_caller: str | None
    our_called: str | None
    our_ms: int | None
    our_billed_seconds: int | None
    our_amount: Money | None

    @classmethod
    def of(cls, line: FindingLine) -> Self:
        """Show a finding."""
        return cls(**{name: getattr(line, name) for name in cls.model_fields})


class ReportOut(Out):
    """The outcome; `difference` is their total minus ours, and the sum of `parts`."""

    side: str
    partner: str
    currency: str
    format: str
    since: datetime
    until: datetime
    verdict: str
    notes: list[str]
    priced: bool
    their_total: Money
    our_total: Money
    difference: Money
    parts: dict[str, Money] = Field(description="By kind of finding; `agreed` is the tolerance.")
    counts: dict[Kind, int]
    records: int
    compared_theirs: int
    compared_ours: int
    outside: int
    by_call_id: int
    by_number: int
    agreed: int
    clock: ClockOut
    days: list[DayOut]
    gaps: list[GapOut]
    gap_count: int
    gap_records: int
    refused: list[RefusedOut]
    refused_count: int
    skipped: int
    findings: list[FindingOut] = Field(description="The first ones; text/csv has all.")

    @classmethod
    def of(cls, report: Report, *, shown: int) -> Self:
        """Show a report with its first findings."""
        compared = report.compared
        clock = compared.clock
        offset = None if clock.offset_us is None else clock.offset_us // 1000
        same = {
            name: getattr(report, name)
            for name in (
                "side", "partner", "currency", "format", "since", "until", "verdict", "priced",
                "their_total", "our_total", "difference", "parts", "counts", "records",
                "gap_count", "gap_records", "refused_count", "skipped",
            )
        }  # fmt: skip
        return cls(
            **same,
            notes=list(report.notes),
            compared_theirs=compared.theirs,
            compared_ours=compared.ours,
            outside=compared.outside,
            by_call_id=compared.by_call_id,
            by_number=compared.by_number,
            agreed=compared.agreed,
            clock=ClockOut(
                offset_ms=offset,
                pairs=clock.pairs,
                agreeing=clock.agreeing,
                applied=clock.applied,
            ),
            days=[
                DayOut(
                    day=one.day.date(),
                    their_records=one.their_records,
                    our_records=one.our_records,
                    their_ms=one.their_ms,
                    our_ms=one.our_ms,
                    our_billed_seconds=one.our_billed,
                    their_amount=one.their_amount,
                    our_amount=one.our_amount,
                    findings={Kind(kind): count for kind, count in one.kinds.items()},
                )
                for one in report.days
            ],
            gaps=[GapOut(first=g.first, last=g.last, missing=g.missing) for g in report.gaps],
            refused=[
                RefusedOut(line=r.line, field=r.field, value=r.value, reason=r.reason)
                for r in report.refused
            ],
            findings=[FindingOut.of(line) for line in finding_lines(report, most=shown)],
        )


# --- revenue assurance -----------------------------------------------------------------------------


class UnratedOut(Out):
    """Records in quarantine for one reason."""

    switch: str
    reason: str
    records: int
    example: str


class UnmatchedOut(Out):
    """A session that was charged live and that no file names."""

    session_id: str
    key: str
    party: str
    closed_at: datetime
    charge: Money
    switch: str
    currency: str


class LossOut(Out):
    """A destination that costs more than it brings."""

    destination: str
    currency: str
    answers: int
    duration_ms: int
    revenue: Money
    cost: Money


class TradeOut(Out):
    """What was sold and bought in one currency."""

    currency: str
    revenue: Money
    cost: Money
    margin: Money


class SwitchGapOut(GapOut):
    """Running numbers that no file of a switch has; `file` is empty where they lie between files."""

    switch: str
    file: str


class SilentOut(Out):
    """A source that brought no file for long."""

    code: str
    switch: str
    kind: str
    poll_seconds: int
    last_run_at: datetime | None
    last_error: str
    last_file_at: datetime | None


class AssuranceOut(Out):
    """What asks for a look on one day (UTC); lists are the first ones, counts are of all."""

    day: date
    clean: bool
    unrated: list[UnratedOut]
    unrated_in_all: int
    unmatched: list[UnmatchedOut]
    unmatched_count: int | None = Field(description="Null: the day's records are in the archive.")
    unmatched_charge: dict[str, Money] = Field(description="By currency.")
    losses: list[LossOut]
    loss_count: int
    trade: list[TradeOut]
    gaps: list[SwitchGapOut]
    gap_count: int
    gap_records: int
    silent: list[SilentOut]

    @classmethod
    def of(cls, found: Assurance) -> Self:
        """Show what was found."""
        lists: dict[str, type[Out]] = {
            "unrated": UnratedOut, "unmatched": UnmatchedOut, "losses": LossOut,
            "trade": TradeOut, "gaps": SwitchGapOut, "silent": SilentOut,
        }  # fmt: skip
        values = {name: getattr(found, name) for name in cls.model_fields if name not in lists}
        for name, kind in lists.items():
            values[name] = [
                kind(**{part: getattr(one, part) for part in kind.model_fields})
                for one in getattr(found, name)
            ]
        return cls(**values)
