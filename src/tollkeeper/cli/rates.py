"""The command ``rates``: rate cards, their versions, and the sheets that they are made of."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from tollkeeper.cli.common import actor, console, run, table, utc
from tollkeeper.core.money import ZERO, parse_amount, plain
from tollkeeper.core.rating import Tariff
from tollkeeper.errors import InvalidInput
from tollkeeper.services import rates
from tollkeeper.services.rate_import import Say
from tollkeeper.services.rate_refused import EMPTY
from tollkeeper.services.rates import BYTES_MAX, CostPlus, ImportReport, RateChange, RateVersion
from tollkeeper.services.sheet_settings import SheetSettings
from tollkeeper.store.db import Database

app = App(name="rates", help="Rate cards: import sheets, compare, activate, roll back, look up.")

_DEFAULT = SheetSettings()
_STATUS_WORDS = {
    "new": "codes not on the card so far",
    "increased": "dearer",
    "decreased": "cheaper",
    "changed": "other terms, neither dearer nor cheaper",
    "unchanged": "as they were",
    "closed": "not on the card any more",
    "blocked": "not sold from now on",
    "unblocked": "sold again",
}


@app.command
def create(
    code: str,
    *,
    currency: str,
    name: str | None = None,
    side: Literal["sell", "buy"] = "sell",
    service: str = "voice",
    decimals: int | None = None,
    rounding: Literal["half_up", "half_even", "up", "down"] | None = None,
    per: int | None = None,
    key: Literal["called", "network"] | None = None,
    cost_card: str | None = None,
    markup_percent: str | None = None,
    markup: str | None = None,
    floor: str | None = None,
    ceiling: str | None = None,
) -> None:
    """Create a rate card; "rates import" brings its prices.

    Args:
        code: Its short name, used everywhere.
        currency: Currency of its prices, such as USD.
        name: Its name for people; the code if left out.
        side: Customers are charged by sell cards, vendors charge us by buy cards.
        service: What it prices.
        decimals: Decimals to which the price of a call is rounded, once, at the end; 6 if left out.
        rounding: How that is done; half_up if left out.
        per: How many units a price is for: 60 seconds of voice, 1000000 bytes of data, else 1.
        key: What prefixes are compared with: the number called, or the network (MCC and MNC).
        cost_card: Makes a cost-plus card, whose prices are those of this card, raised.
        markup_percent: Percent added to each price of the cost card.
        markup: Amount added to each price, after the percent.
        floor: No price is below this.
        ceiling: No price is above this.
    """
    raised = _cost_plus(cost_card, markup_percent, markup, floor, ceiling)
    card = run(
        lambda database: rates.create_card(
            database,
            code=code,
            currency=currency,
            name=name or "",
            side=side,
            service=service,
            decimals=decimals,
            rounding=rounding,
            per=per,
            key=key,
            cost_plus=raised,
            actor=actor(),
        )
    )
    said = f"prices in {card.currency}"
    if card.per != 60:
        said += f" per {card.per}"
    if card.cost_card is not None:
        said = f"the prices of {card.cost_card}, raised, in {card.currency}"
    console().print(f"card {card.code} created, {said}", markup=False)


def _cost_plus(
    cost_card: str | None,
    percent: str | None,
    markup: str | None,
    floor: str | None,
    ceiling: str | None,
) -> CostPlus | None:
    texts = {"markup_percent": percent, "markup": markup, "floor": floor, "ceiling": ceiling}
    amounts = {
        name: parse_amount(text, field=name) for name, text in texts.items() if text is not None
    }
    if cost_card is None:
        if amounts:
            name = next(iter(amounts))
            raise InvalidInput(f"{name}: this is for cost-plus cards; give --cost-card", field=name)
        return None
    return CostPlus(
        cost_card,
        amounts.get("markup_percent", ZERO),
        amounts.get("markup", ZERO),
        amounts.get("floor"),
        amounts.get("ceiling"),
    )


@app.command
def cards(*, after: str = "", limit: int = 1000) -> None:
    """List rate cards in the order of their codes.

    Args:
        after: Begin after this code.
        limit: How many at most.
    """
    found = run(lambda database: rates.list_cards(database, after=after, limit=limit))
    columns = [
        "code",
        "name",
        "side",
        "service",
        "currency",
        "per>",
        "rounding",
        "active>",
        "last>",
        "cost card",
    ]
    rows = [
        (c.code, c.name, c.side, c.service, c.currency, c.per, f"{c.rounding} to {c.decimals}", c.active_version,
         c.last_version, c.cost_card)
        for c in found
    ]  # fmt: skip
    console().print(table(f"{len(found)} rate cards", columns, rows), markup=False)


@app.command(name="import")
def import_sheet(
    file: Path,
    *,
    card: str,
    dry_run: bool = False,
    mode: Literal["full", "partial"] = "full",
    activate: bool = False,
    sheet: Annotated[SheetSettings, Parameter(name="*")] = _DEFAULT,
) -> int:
    """Compare a rate sheet with a card and store the outcome as a draft version.

    Args:
        file: The sheet: CSV, also gzipped; "-" reads standard input.
        card: Code of the rate card.
        dry_run: Only say what would change.
        mode: "full" closes the codes that the sheet does not name, "partial" leaves them.
        activate: Put the version in force at once.
        sheet: How to read the sheet, where it does not tell by itself.
    """
    if activate and dry_run:
        raise InvalidInput("a dry run stores nothing that could be activated", field="activate")
    options = sheet.options()
    data = _read(file)

    async def work(database: Database) -> tuple[ImportReport, RateVersion | None]:
        with _progress() as say:
            report = await rates.import_sheet(
                database,
                card=card,
                data=data,
                options=options,
                mode=mode,
                dry_run=dry_run,
                file_name=file.name,
                actor=actor(),
                now=datetime.now(UTC),
                progress=say,
            )
        if not activate or report.version is None:
            return report, None
        version = await rates.activate(
            database, card=card, version=report.version, actor=actor(), now=datetime.now(UTC)
        )
        return report, version

    report, activated = run(work)
    _print_report(report)
    _print_next(report, activated)
    return 0 if report.rows_stored or report.rows_closing else 1


def _read(file: Path) -> bytes:
    """The file, but never much more of it than a sheet may have."""
    try:
        if str(file) == "-":
            return sys.stdin.buffer.read(BYTES_MAX + 1)
        with file.open("rb") as stream:
            return stream.read(BYTES_MAX + 1)
    except OSError as error:
        raise InvalidInput(f"{file}: {error.strerror or error}", field="file") from error


@dataclass
class _Stage:
    """A stage of the import as the progress display knows it."""

    task: TaskID
    began: float


@contextmanager
def _progress() -> Iterator[Say]:
    """Show stages with rows and rows a second, on a terminal only; it leaves nothing behind."""
    out = console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[rows]}"),
        TimeElapsedColumn(),
    )
    stages: dict[str, _Stage] = {}
    with Progress(*columns, console=out, transient=True, disable=not out.is_terminal) as shown:

        def say(name: str, done: int, total: int) -> None:
            stage = stages.get(name)
            if stage is None:
                stage = _Stage(shown.add_task(name, total=None, rows=""), time.monotonic())
                stages[name] = stage
            seconds = time.monotonic() - stage.began
            speed = f", {done / seconds:,.0f} rows/s" if done and seconds > 0.05 else ""
            rows = f"{done:,} of {total:,} rows{speed}" if total else ""
            shown.update(stage.task, total=total or None, completed=done, rows=rows)

        yield say


def _print_report(report: ImportReport) -> None:
    out = console()
    what = (
        "dry run, nothing stored" if report.version is None else f"draft version {report.version}"
    )
    base = "no active version" if report.base_version is None else f"version {report.base_version}"
    out.print(f"{report.card}: {what}; {report.mode} sheet compared with {base}", markup=False)
    out.print(
        f"{report.rows_in:,} rows in = {report.rows_stored:,} stored + {report.rows_refused:,} refused"
        f" + {report.rows_repeated:,} repeated + {report.rows_closing:,} closing;"
        f" the card then has {report.row_count:,} rows",
        markup=False,
    )
    counted = [
        (status, f"{n:,}", _STATUS_WORDS[status]) for status, n in report.counts.items() if n
    ]
    out.print(table("changes", ["change", "rows>", "meaning"], counted), markup=False)
    if report.moves:
        title = f"largest moves ({report.currency} for a call of 60 s)"
        out.print(_changes_table(title, report.moves), markup=False)
    if report.suspicious:
        title = f"{report.suspicious:,} suspicious: moved by more than 10 times"
        out.print(_changes_table(title, report.suspicious_rows), markup=False)
    if report.rows_refused:
        shown = len(report.refusals)
        more = "" if shown == report.rows_refused else f", the first {shown}"
        rows = [
            (r.line, r.field, r.value or (EMPTY if r.field else ""), r.reason)
            for r in report.refusals
        ]
        title = f"{report.rows_refused:,} refused{more}"
        out.print(table(title, ["line>", "cell", "value", "reason"], rows), markup=False)
    for note in report.notes:
        out.print(f"- {note}", markup=False)
    seconds = sum(report.timing_ms.values()) / 1000
    speed = f" ({report.rows_in / seconds:,.0f} rows/s)" if seconds > 0 else ""
    out.print(f"took {seconds:.1f} s{speed}", markup=False)


def _print_next(report: ImportReport, activated: RateVersion | None) -> None:
    out = console()
    if activated is not None:
        out.print(f"version {activated.version} is active", markup=False)
    elif report.version is not None:
        out.print(f"next: tollkeeper rates activate {report.card} {report.version}", markup=False)
    if report.version is not None and report.rows_refused:
        out.print(
            f"refused rows, to be mended: tollkeeper rates refused {report.card} {report.version} > mend.csv; "
            f"then: tollkeeper rates import mend.csv --card {report.card} --mode partial",
            markup=False,
        )


def _changes_table(title: str, changes: tuple[RateChange, ...]) -> Table:
    columns = ["prefix", "destination", "change", "old>", "new>", "from"]
    rows = [
        (c.prefix, c.destination, c.status, _money(c.old_price), _money(c.new_price), _day(c.effective))
        for c in changes
    ]  # fmt: skip
    return table(title, columns, rows)


@app.command
def versions(card: str, *, before: int | None = None, limit: int = 50) -> None:
    """List the versions of a card, the newest first.

    Args:
        card: Its code.
        before: Begin below this version.
        limit: How many at most.
    """
    found = run(lambda database: rates.versions(database, card, before=before, limit=limit))
    columns = ["version>", "status", "base>", "mode", "rows>", "in>", "refused>", "file", "by", "created", "activated"]  # fmt: skip
    rows = [
        (v.version, v.status, v.base_version, v.mode, v.row_count, v.rows_in, v.rows_refused, v.file_name, v.created_by,
         _time(v.created_at), _time(v.activated_at))
        for v in found
    ]  # fmt: skip
    console().print(table(f"versions of {card} (times in UTC)", columns, rows), markup=False)


@app.command
def changes(
    card: str, version: int, *, status: str | None = None, after: int = 0, limit: int = 100
) -> None:
    """Show what a version changes, what deserves a look first.

    Args:
        card: Code of the card.
        version: The version.
        status: Only new, increased, decreased, changed, closed, blocked or unblocked.
        after: How many to leave out.
        limit: How many at most.
    """
    found = run(
        lambda database: rates.changes(
            database, card, version, status=status, after=after, limit=limit
        )
    )
    title = f"{len(found)} changes of {card} version {version} (prices of a call of 60 s)"
    console().print(_changes_table(title, tuple(found)), markup=False)
    if len(found) == limit:
        console().print(f"more may follow: --after {found[-1].seq}", markup=False)


@app.command
def refused(card: str, version: int) -> None:
    """Write the refused rows of an import as a CSV file that can be mended and imported again.

    Args:
        card: Code of the card.
        version: The version that was made.
    """
    sys.stdout.write(run(lambda database: rates.refused_sheet(database, card, version)))


@app.command
def activate(card: str, version: int, *, force: bool = False) -> None:
    """Put a draft version in force.

    Args:
        card: Code of the card.
        version: The draft.
        force: Also if another version is active than the one it was compared with.
    """
    made = run(
        lambda database: rates.activate(
            database, card=card, version=version, force=force, actor=actor(), now=datetime.now(UTC)
        )
    )
    console().print(
        f"version {made.version} of {card} is active: {made.row_count:,} rows", markup=False
    )


@app.command
def rollback(card: str, *, expected: int | None = None) -> None:
    """Return to the version that was active before the present one, as it was.

    Args:
        card: Code of the card.
        expected: The version believed to be active; if another one is, nothing is done.
    """
    made = run(
        lambda database: rates.roll_back(
            database, card=card, expected=expected, actor=actor(), now=datetime.now(UTC)
        )
    )
    console().print(f"version {made.version} of {card} is active again", markup=False)


@app.command
def lookup(
    number: str,
    *,
    card: str,
    at: datetime | None = None,
) -> None:
    """Show which row of a rate card prices a number. What a party pays is told by "tollkeeper price".

    Args:
        number: The number called.
        card: Code of the rate card.
        at: When, in UTC unless a zone is given; now if left out.
    """
    moment = datetime.now(UTC) if at is None else utc(at)
    found = run(lambda database: rates.lookup(database, number, card=card, now=moment))
    columns = ["card", "version>", "row>", "prefix", "destination", "price/min>", "terms", "from", "until"]  # fmt: skip
    row, used = found.chosen.row, found.chosen.card
    amount = "blocked" if row.blocked else f"{plain(row.tariff.next_price)} {used.currency}"
    rows = [
        (used.code, used.version, row.row_id, row.prefix, row.destination, amount, _terms(row.tariff),
         _time(row.valid_from), _time(row.valid_to))
    ]  # fmt: skip
    out = console()
    out.print(table(found.number, columns, rows), markup=False)
    if found.chosen.row.blocked:
        out.print("calls to this destination are refused")
    else:
        one, three = (plain(price) for price in found.prices)
        per, currency = found.chosen.row.tariff.per, found.chosen.card.currency
        if per == 60:
            out.print(f"a call of 60 s costs {one}, of 180 s {three} {currency}")
        else:
            out.print(f"{per} unit(s) cost {one}, {3 * per} cost {three} {currency}")


def _terms(tariff: Tariff) -> str:
    """All of a tariff but its price, in a few words."""
    parts = [f"{tariff.first_interval}/{tariff.next_interval} s"]
    if tariff.first_price != tariff.next_price:
        parts.append(f"first interval at {plain(tariff.first_price)}/min")
    amounts = {
        "connect": tariff.connect_fee,
        "attempt": tariff.attempt_fee,
        "minimum": tariff.minimum,
        "surcharge per minute": tariff.surcharge,
    }
    parts += [f"{name} {plain(amount)}" for name, amount in amounts.items() if amount]
    if tariff.cap is not None:
        parts.append(f"at most {plain(tariff.cap)}")
    if tariff.free_below:
        parts.append(f"free below {tariff.free_below} s")
    return ", ".join(parts)


def _money(amount: Decimal | None) -> str:
    return "" if amount is None else plain(amount)


def _time(moment: datetime | None) -> str:
    return "" if moment is None else f"{moment:%Y-%m-%d %H:%M:%S}"


def _day(moment: datetime | None) -> str:
    return "" if moment is None else f"{moment:%Y-%m-%d %H:%M}"
