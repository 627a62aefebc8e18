"""The commands ``cdr rerate`` and ``cdr rollback``: other prices, and taking back."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated

from cyclopts import App, Parameter

from tollkeeper.cli.common import actor, console, run, table, utc
from tollkeeper.core.money import plain
from tollkeeper.errors import InvalidInput
from tollkeeper.services.cdr import files, rollback
from tollkeeper.services.cdr import rerate as rerating
from tollkeeper.services.cdr.engine import engine_by_name, folder_uri, rerate_archive
from tollkeeper.services.cdr.rerate import RateChoice, RerateJob, RerateReport
from tollkeeper.services.cdr.rollback import RollbackReport
from tollkeeper.services.fields import check_text
from tollkeeper.store.db import Database

rollback_app = App(name="rollback", help="Take a file or a re-rating back, by reversals.")

SHOWN_MAX = 40
_SIDES = {"sell": "customers", "buy": "vendors", "resell": "resellers"}


def rerate(
    *,
    since: Annotated[datetime, Parameter(name="--from")],
    until: Annotated[datetime, Parameter(name="--to")],
    customer: str | None = None,
    vendor: str | None = None,
    called: str | None = None,
    destination: str | None = None,
    file: int | None = None,
    card: Annotated[list[str] | None, Parameter(negative=())] = None,
    as_of_call: bool = False,
    apply: bool = False,
    reason: str = "",
    engine: str | None = None,
    address: str | None = None,
    output: str | None = None,
) -> None:
    """Price records anew by the rates in force now; a dry run unless --apply is given.

    Nothing that was posted changes: the difference is posted today, by reversals and new charges.
    Days that are archived need --engine, and are only looked at.

    Args:
        since: Calls that began then or later, in UTC unless a zone is given.
        until: Calls that began before.
        customer: Only of this customer.
        vendor: Only of this vendor.
        called: Only to numbers that begin so.
        destination: Only to this destination.
        file: Only of this file.
        card: Use this version of a card, as CODE=VERSION; may be given several times.
        as_of_call: By the versions in force when each call began, not by the present ones.
        apply: Post it.
        reason: Why; needed with --apply.
        engine: Look at archived days, too, in this process (local) or on a Ray cluster (ray).
        address: The cluster of --engine ray, as HOST:PORT; the one of this machine by default.
        output: With --engine, a new folder (or s3://bucket/folder) for each leg's old and new amount.
    """
    if engine is None and (address or output):
        raise InvalidInput("--address and --output need --engine local or ray", field="engine")
    choice = RateChoice(as_of_call=as_of_call, pinned=dict(_pinned(one) for one in card or ()))

    async def work(database: Database) -> RerateReport:
        selection = await files.select_records(
            database, since=utc(since), until=utc(until), customer=customer, vendor=vendor,
            called=called, destination=destination, file_id=file,
        )  # fmt: skip
        job = RerateJob(selection, choice, actor=actor(), reason=reason, apply=apply)
        with console(stderr=True).status("pricing records") as status:
            if engine is not None:
                return await rerate_archive(
                    database, job, engine_by_name(engine, address=address),
                    output=None if output is None else folder_uri(output),
                    say=lambda done, all_: status.update(f"{done} of {all_} archived pieces priced"),
                )  # fmt: skip
            return await rerating.rerate(
                database, job, clock=lambda: datetime.now(UTC),
                say=lambda done, days: status.update(f"{done} of {days} days priced"),
            )  # fmt: skip

    _print(run(work), can_apply=engine is None)


def _pinned(text: str) -> tuple[str, int]:
    code, sign, version = text.partition("=")
    if not sign or not code or not (version.isascii() and version.isdigit() and len(version) < 10):
        raise InvalidInput(
            f"--card {text}: give it as CODE=VERSION, such as retail=3", field="card"
        )
    return code, int(version)


def _print(report: RerateReport, *, can_apply: bool) -> None:
    out = console()
    what = "dry run, nothing is written" if report.batch_id is None else f"batch {report.batch_id}"
    out.print(
        f"{what}: {report.records:,} records looked at, {report.changed:,} change; "
        f"{report.unpriced:,} have no rate now and stay as they are, {report.live:,} were charged "
        "live and keep their customer's leg",
        markup=False,
    )
    rows = [
        (_SIDES[c.side], c.party, c.destination, f"{c.calls:,}", plain(c.was), plain(c.amount), _signed(c.difference), c.currency)
        for c in report.changes[:SHOWN_MAX]
    ]  # fmt: skip
    hidden = len(report.changes) - len(rows)
    title = f"largest differences{f', {hidden} more are added up below' if hidden else ''}"
    columns = ["of", "party", "destination", "calls>", "was>", "is>", "difference>", ""]
    out.print(table(title, columns, rows), markup=False)
    sums: dict[tuple[str, str], tuple[Decimal, Decimal]] = {}
    for c in report.changes:
        was, amount = sums.get((c.side, c.currency), (Decimal(0), Decimal(0)))
        sums[c.side, c.currency] = (was + c.was, amount + c.amount)
    totals = [
        (_SIDES[side], plain(was), plain(amount), _signed(amount - was), currency)
        for (side, currency), (was, amount) in sorted(sums.items())
    ]
    out.print(table("in all", ["of", "was>", "is>", "difference>", ""], totals), markup=False)
    if report.batch_id is None and report.changed and can_apply:
        out.print('next: the same with --apply --reason "..."', markup=False)
    elif report.batch_id is not None:
        out.print(
            f"to take it back: tollkeeper cdr rollback rerate {report.batch_id}", markup=False
        )


def _signed(amount: Decimal) -> str:
    return f"+{plain(amount)}" if amount > 0 else plain(amount)


@rollback_app.command(name="file")
def roll_back_file(number: int, *, reason: str) -> None:
    """Take a file's records out of the books; afterwards it may be loaded again.

    Args:
        number: Number of the file.
        reason: Why, for the audit trail.
    """
    check_text(reason, field="reason", longest=500)
    report = run(
        lambda database: rollback.roll_back_file(
            database, number, actor=actor(), reason=reason, clock=lambda: datetime.now(UTC)
        )
    )
    _print_rollback(f"file {number}", report)


@rollback_app.command(name="rerate")
def roll_back_rerate(number: int, *, reason: str) -> None:
    """Take a re-rating back: its records cost again what they cost before.

    Args:
        number: Number of its batch.
        reason: Why, for the audit trail.
    """
    check_text(reason, field="reason", longest=500)
    report = run(
        lambda database: rollback.roll_back_rerate(
            database, number, actor=actor(), reason=reason, clock=lambda: datetime.now(UTC)
        )
    )
    _print_rollback(f"re-rating {number}", report)


def _print_rollback(what: str, report: RollbackReport) -> None:
    console().print(
        f"{what} is taken back by batch {report.batch_id}: {len(report.undone)} batches, "
        f"{report.entries} entries",
        markup=False,
    )
