"""The command ``cdr``: files of call records, from the first look to the money and back."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter

from tollkeeper.cli import cdr_quarantine, cdr_rate, cdr_revise
from tollkeeper.cli.cdr_show import batches_table, file_tables, mapping_toml, rows_tables, time_of
from tollkeeper.cli.common import console, run, table, utc
from tollkeeper.services.cdr import files
from tollkeeper.services.cdr.brought import sniff_file
from tollkeeper.services.cdr.files import BatchFilter, FileFilter
from tollkeeper.wire.cdr.formats import FORMATS

app = App(name="cdr", help="Call records: rate files, mend, re-rate, take back, search, export.")

app.command(cdr_rate.rate)
app.command(cdr_quarantine.app)
app.command(cdr_revise.rerate)
app.command(cdr_revise.rollback_app)
# Named, not imported: each loads only what it needs.
app.command("tollkeeper.cli.sources:app", name="source", help="Sources that files are collected from.")  # fmt: skip
app.command("tollkeeper.cli.usage:search", name="search", help="Find records, archived ones too.")
app.command("tollkeeper.cli.usage:export", name="export", help="Export records to a file.")
app.command("tollkeeper.cli.usage:report", name="report", help="Sums by the hour, day, party.")
app.command("tollkeeper.cli.usage:archive", name="archive", help="Move old days into the archive.")
app.command("tollkeeper.cli.usage:purge", name="purge", help="Delete records past their time.")
app.command("tollkeeper.cli.reconcile:assurance", name="assurance", help="Usage without money.")

Status = Literal["loading", "done", "failed", "rolled_back"]
Kind = Literal["load", "replay", "rerate", "rollback", "late_match"]


@app.command
def formats() -> None:
    """List the formats that are read."""
    rows = [
        (one.code, one.title, " ".join(one.suffixes), "yes" if one.code in {"csv", "jsonl"} else "")
        for one in FORMATS.values()
    ]
    columns = ["code", "what", "names end with", "needs a mapping"]
    console().print(table(f"{len(rows)} formats", columns, rows), markup=False)


@app.command
def sniff(file: Path) -> int:
    """Say what kind of file this is, propose a mapping, and show its first records.

    Args:
        file: The file, compressed or not.
    """
    guess = sniff_file(file, file.name)
    out = console()
    title = FORMATS[guess.format].title if guess.format in FORMATS else "nothing known"
    out.print(f"{file.name}: {title} ({guess.format or 'none'}), {guess.confidence} % sure", markup=False)  # fmt: skip
    for note in guess.notes:
        out.print(f"- {note}", markup=False)
    if guess.mapping is not None:
        out.print("\n# a mapping: keep it in a file, and give it with --mapping", markup=False)
        out.print(mapping_toml(guess.mapping), markup=False, soft_wrap=True)
    for shown in rows_tables(guess.rows):
        out.print(shown, markup=False)
    return 0 if guess.format else 1


@app.command(name="files")
def list_files(
    *,
    switch: str | None = None,
    status: Status | None = None,
    since: datetime | None = None,
    before: int | None = None,
    limit: int = 50,
) -> None:
    """List files, the newest first.

    Args:
        switch: Only of this switch.
        status: Only loading, done, failed or rolled_back.
        since: First seen then or later, in UTC unless a zone is given.
        before: Begin below this number.
        limit: How many at most.
    """
    wanted = FileFilter(switch, status, None if since is None else utc(since))
    found = run(lambda database: files.list_files(database, wanted, before=before, limit=limit))
    columns = ["file>", "seen", "switch", "format", "name", "status", "records>", "rated>", "matched>", "duplicate>", "quarantined>", "by"]  # fmt: skip
    rows = [
        (f.id, time_of(f.created_at), f.switch, f.format, f.name, f.status, f"{f.records:,}", f"{f.rated:,}",
         f"{f.matched:,}", f"{f.duplicate:,}", f"{f.quarantined:,}", f.actor)
        for f in found
    ]  # fmt: skip
    out = console()
    out.print(table(f"{len(rows)} files (times in UTC)", columns, rows), markup=False)
    if len(found) == limit:
        out.print(f"more may follow: --before {found[-1].id}", markup=False)


@app.command(name="file")
def show_file(number: int) -> int:
    """Show a file: what became of its records, its money, its parts.

    Args:
        number: Its number, as "cdr files" lists it.
    """
    view = run(lambda database: files.get_file(database, number))
    for shown in file_tables(view):
        console().print(shown, markup=False)
    console().print(batches_table(view.batches), markup=False)
    return 1 if view.file.status == "failed" else 0


@app.command
def batches(
    *,
    kind: Kind | None = None,
    file: int | None = None,
    switch: str | None = None,
    before: int | None = None,
    limit: int = 50,
) -> None:
    """List what was written step by step, the newest first.

    Args:
        kind: Only load, replay, rerate, rollback or late_match.
        file: Only of this file.
        switch: Only of this switch.
        before: Begin below this number.
        limit: How many at most.
    """
    wanted = BatchFilter(kind, file, switch)
    found = run(lambda database: files.list_batches(database, wanted, before=before, limit=limit))
    console().print(batches_table(found), markup=False)
    if len(found) == limit:
        console().print(f"more may follow: --before {found[-1].id}", markup=False)


@app.command
def mismatches(
    *,
    first: Annotated[datetime | None, Parameter(name="--from")] = None,
    last: Annotated[datetime | None, Parameter(name="--to")] = None,
    kind: str | None = None,
    customer: str | None = None,
    before: int | None = None,
    limit: int = 50,
) -> None:
    """List what does not fit about records in the books, the newest first.

    Args:
        first: Calls of this day (UTC) or later; yesterday if left out.
        last: Calls of this day or earlier; today if left out.
        kind: Only of this kind, such as duration_differs or no_buy_rate.
        customer: Only of this customer.
        before: Begin below this number.
        limit: How many at most.
    """
    today = datetime.now(UTC).date()
    begin: date = today - timedelta(days=1) if first is None else utc(first).date()
    until: date = max(begin, today) if last is None else utc(last).date()
    page = run(
        lambda database: files.mismatches(
            database, first=begin, last=until, kind=kind, customer=customer, before=before, limit=limit
        )
    )  # fmt: skip
    out = console()
    counted = [(kind_, f"{n:,}") for kind_, n in page.counts.items()]
    out.print(table(f"from {begin} to {until}", ["kind", "records>"], counted), markup=False)
    columns = ["no>", "day", "kind", "customer", "vendor", "call id", "expected>", "found>", "file:line", "what"]  # fmt: skip
    rows = [
        (m.id, m.day, m.kind, m.customer, m.vendor, m.call_id, m.expected, m.found, f"{m.file}:{m.line}", m.detail)
        for m in page.items
    ]  # fmt: skip
    out.print(table(f"{len(rows)} mismatches", columns, rows), markup=False)
    if len(rows) == limit:
        out.print(f"more may follow: --before {page.items[-1].id}", markup=False)
