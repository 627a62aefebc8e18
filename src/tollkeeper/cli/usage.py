"""Commands on records that are in the books: search, export, report, archive, purge."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter
from rich.progress import Progress, TextColumn, TimeElapsedColumn

from tollkeeper.cli.common import actor, console, run, table, utc
from tollkeeper.core.money import plain
from tollkeeper.errors import InvalidInput
from tollkeeper.services import archive as archiving
from tollkeeper.services import usage_export, usage_margins, usage_search
from tollkeeper.services.archive import ArchivePart, PurgeReport
from tollkeeper.services.usage_search import HourSum, UsageQuery
from tollkeeper.settings import load_settings
from tollkeeper.store.db import Database

app = App(name="usage", help="Records in the books: search, export, report, archive, purge.")

_Since = Annotated[datetime | None, Parameter(name="--from")]
_Until = Annotated[datetime | None, Parameter(name="--to")]


def _query(
    since: datetime | None,
    until: datetime | None,
    called: str | None,
    caller: str | None,
    call_id: str | None,
    customer: str | None,
    vendor: str | None,
    after: str = "",
) -> UsageQuery:
    return UsageQuery(
        since=None if since is None else utc(since),
        until=None if until is None else utc(until),
        called=called,
        caller=caller,
        call_id=call_id,
        customer=customer,
        vendor=vendor,
        after=after,
    )


@app.command
def search(
    *,
    since: _Since = None,
    until: _Until = None,
    called: str | None = None,
    caller: str | None = None,
    call_id: str | None = None,
    customer: str | None = None,
    vendor: str | None = None,
    limit: int = 100,
    after: str = "",
) -> None:
    """Find records, archived ones too, in the order of their start.

    Args:
        since: Calls that began then or later, in UTC unless a zone is given. Left out, it is the
            last day, or all there is for one number or call.
        until: Calls that began before.
        called: The number called; with * at its end what it begins with.
        caller: The number calling.
        call_id: The switch's id of the call.
        customer: Code of the customer.
        vendor: Code of the vendor.
        limit: How many at most, up to 1000.
        after: Where the page before ended.
    """
    query = _query(since, until, called, caller, call_id, customer, vendor, after)
    page = run(
        lambda database: usage_search.search(database, query, now=datetime.now(UTC), limit=limit)
    )
    columns = ["start", "caller", "called", "seconds>", "customer", "charge>", "", "vendor", "cost>", "", "destination", "sip>", "call id", "file:line"]  # fmt: skip
    rows = [
        (f"{v.start:%Y-%m-%d %H:%M:%S}", v.caller, v.called, f"{v.duration_ms / 1000:.3f}", v.customer, plain(v.charge),
         v.sell_currency, v.vendor, plain(v.cost), v.buy_currency, v.destination, v.sip, v.call_id, f"{v.file}:{v.line}")
        for v in page.items
    ]  # fmt: skip
    out = console()
    out.print(table(f"{len(rows)} records (times in UTC)", columns, rows), markup=False)
    if page.next is not None:
        out.print(f"more may follow: --after {page.next}", markup=False)


@app.command
def export(
    out: Path,
    *,
    since: _Since = None,
    until: _Until = None,
    called: str | None = None,
    caller: str | None = None,
    call_id: str | None = None,
    customer: str | None = None,
    vendor: str | None = None,
    kind: Annotated[Literal["csv", "xlsx", "parquet"] | None, Parameter(name="--format")] = None,
    timezone: str | None = None,
) -> None:
    """Export records to a file.

    Args:
        out: The file; "-" is standard output. It is there only when it is complete.
        since: Calls that began then or later, in UTC unless a zone is given. Left out, it is the
            last day, or all there is for one number or call.
        until: Calls that began before.
        called: The number called; with * at its end what it begins with.
        caller: The number calling.
        call_id: The switch's id of the call.
        customer: Code of the customer.
        vendor: Code of the vendor.
        kind: Else by the end of the file's name, else CSV.
        timezone: Zone of the times, such as Europe/Rome; else the customer's or vendor's, else UTC.
    """
    query = _query(since, until, called, caller, call_id, customer, vendor)
    wanted = kind or (out.suffix[1:] if out.suffix[1:] in usage_export.KINDS else "csv")

    async def work(database: Database) -> int:
        made = await usage_export.prepare(
            database, query, kind=wanted, now=datetime.now(UTC), timezone=timezone
        )
        done = 0
        with _progress("exported") as say:

            def told(rows: int) -> None:
                nonlocal done
                done = rows
                say("exported", rows, 0)

            await _write(out, made.chunks(told))
        return done

    rows = run(work)
    console(stderr=True).print(f"{rows:,} records exported", markup=False)


async def _write(out: Path, chunks: AsyncIterator[bytes]) -> None:
    if str(out) == "-":
        async for chunk in chunks:
            sys.stdout.buffer.write(chunk)
        return
    half = out.with_name(f".{out.name}.part")
    try:
        with await asyncio.to_thread(half.open, "wb") as file:
            async for chunk in chunks:
                file.write(chunk)
        await asyncio.to_thread(half.replace, out)
    except OSError as error:
        raise InvalidInput(f"{out}: {error.strerror or error}", field="out") from error
    finally:
        await asyncio.to_thread(half.unlink, missing_ok=True)


@contextmanager
def _progress(title: str) -> Iterator[Callable[[str, int, int], None]]:
    """Show rows and rows a second, on a terminal only; it leaves nothing behind."""
    shown_on = console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        TextColumn("{task.completed:,.0f} rows"),
        TextColumn("{task.fields[rest]}"),
        TimeElapsedColumn(),
    )
    off = not shown_on.is_terminal
    with Progress(*columns, console=shown_on, transient=True, disable=off) as shown:
        task = shown.add_task(title, total=None, rest="")

        def say(stage: str, done: int, total: int) -> None:
            rest = f"of {total:,}" if total else ""
            shown.update(task, description=stage, completed=done, rest=rest)

        yield say


@app.command
def report(
    *,
    by: str = "customer",
    since: _Since = None,
    until: _Until = None,
    customer: str | None = None,
    vendor: str | None = None,
    currency: str | None = None,
    limit: int = 1000,
) -> None:
    """Add up whole hours; no record is read for it.

    Args:
        by: Some of day, hour, customer, vendor, trunk_in, trunk_out, service, destination, prefix,
            with commas between.
        since: From this hour on, in UTC unless a zone is given; the last day if left out.
        until: Up to this hour.
        customer: Only this customer.
        vendor: Only this vendor.
        currency: Convert all money into this currency, by the exchange rate of each day.
        limit: How many groups at most.
    """
    names = tuple(name.strip() for name in by.split(",") if name.strip())
    found = run(
        lambda database: usage_margins.report_in(
            database,
            currency,
            now=datetime.now(UTC),
            by=names,
            since=None if since is None else utc(since),
            until=None if until is None else utc(until),
            customer=customer,
            vendor=vendor,
            limit=limit,
        )
    )
    columns = [*names, "attempts>", "answers>", "ASR %>", "NER %>", "minutes>", "ACD s>", "PDD ms>", "revenue>", "", "cost>", "", "margin>", "margin %>"]  # fmt: skip
    rows = [_report_row(group, names) for group in found.groups]
    out = console()
    out.print(table("usage (times in UTC)", columns, rows), markup=False)
    if found.unconverted:
        missing = ", ".join(found.unconverted)
        out.print(f"not converted, without a rate into {currency}: {missing}", markup=False)


def _report_row(group: HourSum, names: tuple[str, ...]) -> list[object]:
    acd = None if group.acd_ms is None else f"{group.acd_ms / 1000:.1f}"
    return [
        *(getattr(group, name) for name in names), f"{group.attempts:,}", f"{group.answers:,}", group.asr, group.ner,
        f"{group.duration_ms / 60_000:,.1f}", acd, group.pdd_average_ms, plain(group.revenue), group.sell_currency,
        plain(group.cost), group.buy_currency, None if group.margin is None else plain(group.margin),
        group.margin_percent,
    ]  # fmt: skip


# --- archive -------------------------------------------------------------------------------------


@app.command
def archive(
    *,
    older_than: int | None = None,
    day: date | None = None,
    dry_run: bool = False,
    show: bool = False,
    check: bool = False,
) -> None:
    """Move old days of records into Parquet files, where they are still found.

    Args:
        older_than: Days of age; else the setting archive_after_days.
        day: Only this day, whatever its age.
        dry_run: Only say which days are due.
        show: List what is archived.
        check: Read all that is archived and compare it with what was stored.
    """
    settings = load_settings()
    now = datetime.now(UTC)
    if show or check:
        parts = run(lambda database: _look(database, check=check))
        console().print(_parts_table(parts, "intact" if check else "archived"), markup=False)
        return
    age = settings.archive_after_days if older_than is None else older_than
    before = date.fromordinal(now.date().toordinal() - age)
    if age < 1 or (day is not None and day >= now.date()):
        raise InvalidInput("today's records are still coming; choose a day that is over")
    place = archiving.place_for(settings)

    async def work(database: Database) -> list[ArchivePart] | list[date]:
        if dry_run:
            return await archiving.due_days(database, before=before, now=now)
        with _progress("archiving") as say:
            if day is not None:
                made = await archiving.archive_day(database, place, day, now=now, progress=say)
                return [] if made is None else [made]
            return await archiving.archive_due(
                database, place, before=before, now=now, progress=say
            )

    done = run(work)
    if dry_run:
        console().print(f"{len(done)} days are due: {', '.join(map(str, done))}", markup=False)
        return
    parts = [part for part in done if isinstance(part, ArchivePart)]
    console().print(_parts_table(parts, "archived"), markup=False)


async def _look(database: Database, *, check: bool) -> list[ArchivePart]:
    parts = await archiving.list_parts(database, since=date(2000, 1, 1), until=date(2199, 12, 31))
    if check:
        with _progress("checking") as say:
            for number, part in enumerate(parts, 1):
                await archiving.check_part(part)
                say("checked parts", number, len(parts))
    return parts


def _parts_table(parts: list[ArchivePart], word: str) -> object:
    columns = ["day", "part>", "rows>", "MiB>", "where"]
    rows = [(p.day, p.part, f"{p.rows:,}", f"{p.bytes / 2**20:,.1f}", p.uri) for p in parts]
    total = sum(part.rows for part in parts)
    return table(f"{total:,} records of {len(parts)} parts {word}", columns, rows)


@app.command
def purge(*, before: date | None = None, apply: bool = False) -> None:
    """Delete records past their time, archived or not; without --apply only say what would go.

    Hourly sums and the journal stay. Records of such days are not taken any more afterwards.

    Args:
        before: Delete days before this one; else by the setting usage_keep_days.
        apply: Do it.
    """
    settings = load_settings()
    now = datetime.now(UTC)
    _, policy = archiving.policy_days(settings, now)
    place = archiving.place_for(settings)
    day = before or policy or now.date()
    report_ = run(
        lambda database: archiving.purge(
            database,
            place,
            before=day,
            policy=policy,
            now=now,
            actor=actor(),
            dry_run=not apply,
        )
    )
    _print_purge(report_)


def _print_purge(report_: PurgeReport) -> None:
    columns = ["day", "database MiB>", "archived rows>", "archived MiB>"]
    rows = [
        (d.day, f"{d.table_bytes / 2**20:,.1f}", f"{d.archived_rows:,}", f"{d.archived_bytes / 2**20:,.1f}")
        for d in report_.days
    ]  # fmt: skip
    what = "would be deleted (--apply does it)" if report_.dry_run else "deleted"
    title = f"{len(rows)} days before {report_.before} {what}"
    console().print(table(title, columns, rows), markup=False)
