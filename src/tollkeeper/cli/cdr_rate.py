"""The command ``cdr rate``: files of records into the books, or what that would do."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from tollkeeper.cli.cdr_show import outcome_table, preview_tables
from tollkeeper.cli.common import actor, console, run
from tollkeeper.errors import InvalidInput
from tollkeeper.services.cdr import files
from tollkeeper.services.cdr.brought import AUTO, Brought, check_brought, sniff_file, sure_format
from tollkeeper.services.cdr.load import FileReport, LoadJob, load_file
from tollkeeper.services.cdr.load import Progress as LoadProgress
from tollkeeper.services.cdr.preview import preview_file
from tollkeeper.services.spool import Spool, SpooledFile, spool_stream
from tollkeeper.settings import load_settings
from tollkeeper.store.db import Database
from tollkeeper.wire.cdr.formats import FORMATS
from tollkeeper.wire.cdr.mapping import load_mapping
from tollkeeper.wiring import load_policy_of

Say = Callable[[LoadProgress], None]
STDIN = "stdin"


def rate(
    paths: Annotated[list[Path], Parameter(name="FILE", allow_leading_hyphen=True)],
    /,
    *,
    switch: str | None = None,
    format: str = AUTO,  # noqa: A002 (the word that users know)
    mapping: Path | None = None,
    timezone: str = "UTC",
    dry_run: bool = False,
) -> int:
    """Price the call records of files and post them; the same file or record again counts once.

    What cannot be booked waits in quarantine ("cdr quarantine list"). A file that was cut short
    by anything goes on where it stopped when the same is run again.

    Args:
        paths: Files, compressed or not; "-" is standard input.
        switch: The switch whose records these are; may be left out while there is only one.
        format: A code of "cdr formats"; recognised by the content if left out.
        mapping: A mapping file (TOML or JSON), for the formats csv and jsonl.
        timezone: Zone of times that carry none, such as Europe/Rome.
        dry_run: Only say what would become of the records; nothing is written.
    """
    given = None if mapping is None else read_mapping(mapping)
    settings = load_settings()
    spool = Spool(settings.spool_path, max_bytes=settings.cdr_file_max_bytes)
    policy = load_policy_of(settings)

    async def work(database: Database) -> bool:
        chosen = switch or await files.only_switch(database)
        good = True
        for path in paths:
            spooled = await _spooled(path, spool)
            try:
                job = _job(path, spooled, Brought(chosen, "", format, given, timezone, actor()))
                job = replace(job, policy=policy)
                good = await (_preview if dry_run else _load)(database, job) and good
            finally:
                if spooled is not None:
                    spool.done(spooled)
        return good

    return 0 if run(work) else 1


def read_mapping(path: Path) -> dict[str, object]:
    """Read a mapping file.

    Raises:
        InvalidInput: it cannot be read, or is no mapping.
    """
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise InvalidInput(f"{path}: {why}", field="mapping") from error
    return load_mapping(text).to_dict()


async def _spooled(path: Path, spool: Spool) -> SpooledFile | None:
    """Standard input as a file: it must be known whole before its records are."""
    if str(path) != "-":
        return None
    return await spool_stream(sys.stdin.buffer, spool, name=STDIN)


def _job(path: Path, spooled: SpooledFile | None, what: Brought) -> LoadJob:
    """How a file is to be loaded; says what it was recognised as."""
    place = path if spooled is None else spooled.path
    what = replace(what, name=path.name if spooled is None else STDIN)
    check_brought(what)
    if what.format == AUTO:
        guess = sniff_file(place, what.name)
        what = replace(what, format=sure_format(guess, what.mapping))
        if what.mapping is None:
            title = FORMATS[what.format].title
            console(stderr=True).print(
                f"{what.name}: read as {title} ({what.format}, {guess.confidence} % sure)",
                markup=False,
            )
    return LoadJob(
        place,
        what.switch,
        what.format,
        name=what.name,
        mapping=what.mapping,
        timezone=what.timezone,
        sha256="" if spooled is None else spooled.sha256,
        actor=what.actor,
    )


async def _load(database: Database, job: LoadJob) -> bool:
    began = time.monotonic()
    with _progress(job.name) as say:
        report = await load_file(database, job, clock=_now, say=say)
    seconds = time.monotonic() - began
    view = await files.get_file(database, report.file.id)
    out = console()
    out.print(_headline(report, seconds), markup=False)
    out.print(
        outcome_table(
            view.file, view.reasons, view.money, settled=view.settled, waiting=report.waiting
        ),
        markup=False,
    )
    if view.reasons:
        out.print(f"next: tollkeeper cdr quarantine list --file {view.file.id}", markup=False)
    if view.file.status == "failed":
        console(stderr=True).print(
            f"tollkeeper: {job.name}: {view.file.error}", style="red", markup=False, soft_wrap=True
        )
    return view.file.status != "failed"


def _headline(report: FileReport, seconds: float) -> str:
    file = report.file
    if report.known:
        when = "" if file.ended_at is None else f" on {file.ended_at:%Y-%m-%d %H:%M}"
        return f"{file.name}: file {file.id} was loaded{when} already; nothing was done"
    again = ", gone on with where it had stopped" if report.resumed else ""
    speed = f" ({file.records / seconds:,.0f} records/s)" if seconds > 0 else ""
    return f"{file.name}: file {file.id} {file.status}{again}; took {seconds:.1f} s{speed}"


async def _preview(database: Database, job: LoadJob) -> bool:
    with _progress(job.name) as say:
        found = await preview_file(database, job, clock=_now, say=say)
    out = console()
    out.print(f"{job.name}: dry run, nothing is written", markup=False)
    for shown in preview_tables(found):
        out.print(shown, markup=False)
    if found.error:
        console(stderr=True).print(
            f"tollkeeper: {job.name}: {found.error}", style="red", markup=False, soft_wrap=True
        )
    return not found.error


def _now() -> datetime:
    return datetime.now(UTC)


@contextmanager
def _progress(name: str) -> Iterator[Say]:
    """Show how far a file is, on a terminal only; it leaves nothing behind."""
    out = console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[told]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=out, transient=True, disable=not out.is_terminal) as shown:
        task = shown.add_task(name, total=None, told="")
        began: dict[str, tuple[float, int]] = {}

        def say(progress: LoadProgress) -> None:
            file = progress.file
            records = 0 if file is None else file.records
            since, before = began.setdefault(progress.stage, (time.monotonic(), records))
            seconds = time.monotonic() - since
            told = progress.stage
            if file is not None:
                speed = f", {(records - before) / seconds:,.0f} rows/s" if seconds > 0.05 else ""
                told = f"{records:,} records{speed}, {file.quarantined:,} put aside"
            # Bytes of a packed file say nothing about where it ends.
            known = 0 < progress.done <= progress.total
            shown.update(
                task,
                total=progress.total if known else None,
                completed=progress.done if known else 0,
                told=told,
            )

        yield say
