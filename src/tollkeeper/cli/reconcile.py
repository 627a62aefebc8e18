"""The commands ``reconcile`` and ``cdr assurance``: do others count as we do, and did all become money."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Annotated, BinaryIO, Literal

from cyclopts import Parameter
from rich.console import Group, RenderableType
from rich.progress import Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from tollkeeper.cli.books import EXIT_FINDINGS
from tollkeeper.cli.common import console, run, table, utc
from tollkeeper.core.money import plain
from tollkeeper.core.numbering import DialRules
from tollkeeper.errors import InvalidInput
from tollkeeper.services import reconcile as reconciling
from tollkeeper.services import revenue_assurance
from tollkeeper.services.reconcile import Question, Report, Say
from tollkeeper.services.reconcile_report import csv_of, finding_lines
from tollkeeper.services.revenue_assurance import Assurance
from tollkeeper.store.db import Database
from tollkeeper.wire.cdr.mapping import Mapping, load_mapping

SHOWN = 20


@dataclass(frozen=True)
class Numbers:
    """How numbers are written in the file.

    Attributes:
        trunk: The trunk of the party by whose dial rules they are written.
        tech_prefix: Digits in front of called numbers; they are removed.
        national: What national numbers begin with, such as 0.
        country_code: Country of national numbers.
    """

    trunk: str = ""
    tech_prefix: str = ""
    national: str = ""
    country_code: str = ""

    def rules(self) -> DialRules | None:
        """The rules, if any are given."""
        if not (self.tech_prefix or self.national or self.country_code):
            return None
        return DialRules(
            tech_prefix=self.tech_prefix, national=self.national, country_code=self.country_code
        )


@dataclass(frozen=True)
class Strictness:
    """How closely both sides must agree.

    Attributes:
        start_seconds: How far starts may lie apart where call ids do not decide.
        seconds: By how much durations may differ.
        money: By how much prices may differ: 0.01, or 0.5% of ours.
        basis: "either" accepts a duration that equals our billed one, "raw" does not.
        attempts: Also compare calls that did not last; by default for switches only.
        fix_clock: Move their times by the offset of their clock.
    """

    start_seconds: int = 5
    seconds: int = 1
    money: str = "0.0001"
    basis: Literal["either", "raw"] = "either"
    attempts: bool | None = None
    fix_clock: bool = False


_NUMBERS, _STRICTNESS = Numbers(), Strictness()


def reconcile(
    file: Path,
    *,
    customer: str = "",
    vendor: str = "",
    switch: str = "",
    source: str = "",
    format: str = "",  # noqa: A002 (the word that users know)
    mapping: Path | None = None,
    timezone: str = "UTC",
    currency: str = "",
    since: datetime | None = None,
    until: datetime | None = None,
    csv: Annotated[Path | None, Parameter(allow_leading_hyphen=True)] = None,
    strictness: Annotated[Strictness, Parameter(name="*")] = _STRICTNESS,
    numbers: Annotated[Numbers, Parameter(name="*")] = _NUMBERS,
) -> int:
    """Compare a customer's, vendor's or switch's file of calls with our records.

    Ends with 0 when both agree and with 3 when something differs.

    Args:
        file: The file, compressed or not; "-" reads standard input.
        customer: The customer whose file it is: compared with what we charged.
        vendor: The vendor whose file it is: compared with what we owe.
        switch: The switch whose file it is: compared with all records of it.
        source: A CDR source by whose settings the file is read.
        format: Its format; recognised if left out.
        mapping: A mapping file (TOML), for the formats csv and jsonl.
        timezone: Zone of times that carry none.
        currency: The currency to compare in, where there is more than one.
        since: Begin of the period, in UTC unless a zone is given; that of the file if left out.
        until: Its end.
        csv: Write all findings for the partner to this file; "-" is standard output.
        strictness: How closely both sides must agree.
        numbers: How numbers are written, where the party's dial rules do not say.
    """
    question = Question(
        customer=customer,
        vendor=vendor,
        switch=switch,
        source=source,
        format=format,
        mapping=None if mapping is None else _mapping(mapping),
        timezone=timezone,
        trunk=numbers.trunk,
        rules=numbers.rules(),
        currency=currency,
        since=None if since is None else utc(since),
        until=None if until is None else utc(until),
        **asdict(strictness),
    )

    async def work(database: Database) -> Report:
        with _opened(file) as stream, _progress() as say:
            return await reconciling.reconcile(database, stream, question, say=say)

    report = run(work)
    if csv is not None:
        _write(csv, csv_of(report))
    aside = csv is not None and str(csv) == "-"
    console(stderr=aside).print(render(report), markup=False)
    return EXIT_FINDINGS if report.counts else 0


def _mapping(path: Path) -> Mapping:
    try:
        return load_mapping(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise InvalidInput(f"{path}: {reason}", field="mapping") from error


@contextmanager
def _opened(file: Path) -> Iterator[BinaryIO]:
    """The file, at its beginning; what comes by a pipe is put on the disk first."""
    if str(file) == "-":
        with tempfile.TemporaryFile() as held:
            shutil.copyfileobj(sys.stdin.buffer, held)
            held.seek(0)
            yield held
        return
    try:
        stream = file.open("rb")
    except OSError as error:
        raise InvalidInput(f"{file}: {error.strerror or error}", field="file") from error
    with stream:
        yield stream


def _write(path: Path, pieces: Iterator[str]) -> None:
    if str(path) == "-":
        for piece in pieces:
            sys.stdout.write(piece)
        return
    try:
        with path.open("w", encoding="utf-8", newline="") as out:
            for piece in pieces:
                out.write(piece)
    except OSError as error:
        raise InvalidInput(f"{path}: {error.strerror or error}", field="csv") from error


@contextmanager
def _progress() -> Iterator[Say]:
    """Show what is being done, on a terminal only; it leaves nothing behind."""
    out = console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        TextColumn("{task.fields[rows]}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=out, transient=True, disable=not out.is_terminal) as shown:
        task = shown.add_task("", total=None, rows="")

        def say(what: str, rows: int) -> None:
            shown.update(task, description=what, rows=f"{rows:,} records")

        yield say


# --- reconcile -----------------------------------------------------------------------------------


def render(report: Report) -> RenderableType:
    """A report as a page for people: the verdict, the days, and the first findings."""
    compared = report.compared
    parts: list[RenderableType] = [
        (
            f"{report.side} {report.partner}, {report.format}: "
            f"{report.since:%Y-%m-%d %H:%M:%S} to {report.until:%Y-%m-%d %H:%M:%S} UTC"
        ),
        (
            f"{report.records:,} records in the file, {report.refused_count:,} lines not read; compared "
            f"{compared.theirs:,} of theirs with {compared.ours:,} of ours: {compared.by_call_id:,} pairs "
            f"by call id, {compared.by_number:,} by numbers and time, {compared.agreed:,} agree"
        ),
        "",
        Text(report.verdict, style="green" if not report.counts else "bold yellow"),
        *(f"- {note}" for note in report.notes),
        "",
        _days(report),
    ]
    if report.gap_count:
        shown = ", ".join(
            str(gap.first) if gap.missing == 1 else f"{gap.first} to {gap.last}"
            for gap in report.gaps[:SHOWN]
        )
        more = "" if report.gap_count <= SHOWN else " ..."
        parts += [
            "",
            f"{report.gap_records:,} running numbers are missing in the file: {shown}{more}",
        ]
    if report.refused:
        rows = [(r.line, r.field, r.value, r.reason) for r in report.refused[:SHOWN]]
        title = f"{report.refused_count:,} lines not read"
        parts += ["", table(title, ["line>", "field", "value", "reason"], rows)]
    if report.counts:
        parts += ["", _findings(report)]
    return Group(*parts)


def _days(report: Report) -> RenderableType:
    money = f" {report.currency}>" if report.currency else ">"
    columns = [
        "day", "theirs>", "ours>", "their min>", "our min>", f"theirs{money}", f"ours{money}",
        "findings",
    ]  # fmt: skip
    rows = [
        (
            f"{line.day:%Y-%m-%d}",
            f"{line.their_records:,}",
            f"{line.our_records:,}",
            _minutes(line.their_ms),
            _minutes(line.our_ms),
            plain(line.their_amount),
            plain(line.our_amount),
            ", ".join(f"{kind} {count:,}" for kind, count in line.kinds.items()),
        )
        for line in report.days
    ]
    return table("days (UTC)", columns, rows)


def _findings(report: Report) -> RenderableType:
    rows = []
    for one in finding_lines(report, most=SHOWN):
        at = one.their_start or one.our_start
        rows.append(
            (
                one.kind.value,
                one.line,
                "" if at is None else f"{at:%Y-%m-%d %H:%M:%S}",
                one.their_call_id or one.our_call_id,
                one.their_called or one.our_called,
                _seconds(one.their_ms),
                _seconds(one.our_ms),
                one.our_billed_seconds,
                "" if one.their_amount is None else plain(one.their_amount),
                "" if one.our_amount is None else plain(one.our_amount),
            )
        )
    total = sum(report.counts.values())
    more = f", the first {SHOWN}; --csv writes all" if total > SHOWN else ""
    title = f"{total:,} findings{more}"
    columns = [
        "finding", "line>", "start", "call id", "called", "their s>", "our s>", "billed s>",
        "theirs>", "ours>",
    ]  # fmt: skip
    return table(title, columns, rows)


def _minutes(milliseconds: int) -> str:
    return f"{milliseconds // 60_000:,}.{milliseconds % 60_000 // 600:02}"


def _seconds(milliseconds: int | None) -> str:
    if milliseconds is None:
        return ""
    return f"{milliseconds // 1000}.{milliseconds % 1000:03}".rstrip("0").rstrip(".")


# --- revenue assurance -----------------------------------------------------------------------------


def assurance(day: str = "", *, polls: int = revenue_assurance.POLLS) -> int:
    """Look for usage without money on one day: unrated, unmatched, sold below cost, missing.

    Ends with 0 when nothing asks for a look and with 3 when something does.

    Args:
        day: The day (UTC) as 2026-03-01; yesterday if left out.
        polls: A source that brought no file for so many of its intervals is called silent.
    """
    now = datetime.now(UTC)
    try:
        chosen = date.fromisoformat(day) if day else now.date() - timedelta(days=1)
    except ValueError as error:
        raise InvalidInput(f'day: "{day}" is not a day such as 2026-03-01', field="day") from error
    found = run(lambda database: revenue_assurance.assure(database, chosen, now=now, polls=polls))
    console().print(render_assurance(found), markup=False)
    return 0 if found.clean else EXIT_FINDINGS


def render_assurance(found: Assurance) -> RenderableType:
    """What was found on a day, with what has nothing to tell left out."""
    parts: list[RenderableType] = [f"{found.day} (UTC)"]
    if found.trade:
        rows = [(t.currency, plain(t.revenue), plain(t.cost), plain(t.margin)) for t in found.trade]
        parts.append(table("sold and bought", ["currency", "sold>", "bought>", "margin>"], rows))
    if found.unrated:
        rows_ = [(u.switch, u.reason, f"{u.records:,}", u.example) for u in found.unrated]
        title = f"not in the books ({found.unrated_in_all:,} of all days)"
        parts += ["", table(title, ["switch", "reason", "records>", "for instance"], rows_)]
    if found.unmatched_count is None:
        parts += ["", "The records of that day are in the archive: sessions were not looked for."]
    elif found.unmatched_count:
        sums = ", ".join(f"{plain(a)} {c}" for c, a in found.unmatched_charge.items())
        title = f"{found.unmatched_count:,} sessions charged live ({sums}) that no file names"
        sessions = [
            (u.key, u.party, f"{u.closed_at:%H:%M:%S}", plain(u.charge), u.currency)
            for u in found.unmatched[:SHOWN]
        ]
        parts += ["", table(title, ["session", "party", "closed", "charge>", ""], sessions)]
    if found.losses:
        losses = [
            (loss.destination, f"{loss.answers:,}", _minutes(loss.duration_ms), plain(loss.revenue),
             plain(loss.cost), plain(loss.revenue - loss.cost), loss.currency)
            for loss in found.losses[:SHOWN]
        ]  # fmt: skip
        columns = ["destination", "answered>", "minutes>", "sold>", "bought>", "margin>", ""]
        parts += ["", table(f"{found.loss_count:,} destinations below cost", columns, losses)]
    if found.gaps:
        gaps = [
            (gap.switch, gap.file or "between files", gap.first, gap.last, f"{gap.missing:,}")
            for gap in found.gaps[:SHOWN]
        ]
        title = f"{found.gap_records:,} running numbers missing"
        parts += ["", table(title, ["switch", "file", "from>", "to>", "records>"], gaps)]
    if found.silent:
        silent = [
            (s.code, s.switch, s.kind, "never" if s.last_file_at is None
             else f"{s.last_file_at:%Y-%m-%d %H:%M:%S}", s.last_error)
            for s in found.silent
        ]  # fmt: skip
        parts += [
            "",
            table("silent sources", ["source", "switch", "kind", "last file", "error"], silent),
        ]
    if found.clean:
        parts += ["", Text("Nothing asks for a look.", style="green")]
    return Group(*parts)
