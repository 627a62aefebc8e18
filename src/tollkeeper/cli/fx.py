"""The commands ``fx`` and ``nanp``: exchange rates, and where office codes lie."""

from __future__ import annotations

import sys
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Literal

from cyclopts import App

from tollkeeper.cli.common import actor, console, run, table
from tollkeeper.core.money import plain
from tollkeeper.errors import InvalidInput
from tollkeeper.services import fx
from tollkeeper.services.fx import BadLine
from tollkeeper.wire import nanp_csv
from tollkeeper.wire.fx_csv import BYTES_MAX, read_day

app = App(name="fx", help="Exchange rates by day: set, import, show.")
nanp_app = App(name="nanp", help="Where North American office codes (NPA-NXX) lie.")

REFUSED_SHOWN = 20


@app.command(name="set")
def set_rate(base: str, quote: str, rate: str, *, day: str | None = None) -> None:
    """Set the rate of a day, or correct it: what was charged keeps its rate.

    Args:
        base: A currency, such as EUR.
        quote: What one unit of it costs is in this currency, such as USD.
        rate: How much that is, such as 1.0847.
        day: From which day on; today if left out.
    """
    when = _day(day, field="day") or datetime.now(UTC).date()
    try:
        value = Decimal(rate)
    except InvalidOperation:
        raise InvalidInput(f'rate: "{rate[:40]}" is not a number', field="rate") from None
    made = run(
        lambda database: fx.set_rate(
            database, base=base, quote=quote, day=when, rate=value, actor=actor()
        )
    )
    console().print(f"1 {made.base} = {plain(made.rate)} {made.quote} from {made.day} on")


@app.command(name="import")
def import_rates(file: Path) -> int:
    """Import rates: lines base,quote,day,rate, or a file of the ECB (XML, CSV or zip).

    Args:
        file: The file; "-" reads standard input.
    """
    data = _read(file, BYTES_MAX)
    report = run(
        lambda database: fx.import_rates(database, data, file_name=file.name, actor=actor())
    )
    out = console()
    out.print(
        f"{report.given:,} rates ({report.format}) of {report.first_day} to {report.last_day}: "
        f"{report.added:,} new, {report.corrected:,} corrected, {report.unchanged:,} as they were",
        markup=False,
    )
    return _refused(report.refused)


@app.command(name="show")
def show(
    *,
    base: str | None = None,
    quote: str | None = None,
    day: str | None = None,
    limit: int = 50,
) -> None:
    """Show rates, the newest first.

    Args:
        base: Only of this currency.
        quote: Only in this currency.
        day: Of each pair only the last one until that day.
        limit: How many at most.
    """
    when = _day(day, field="day")
    found = run(
        lambda database: fx.list_rates(database, base=base, quote=quote, day=when, limit=limit)
    )
    rows = [(r.day, f"1 {r.base}", f"{plain(r.rate)} {r.quote}", r.source) for r in found]
    title = f"{len(found)} exchange rates"
    console().print(table(title, ["day", "of", "costs>", "from"], rows), markup=False)


@nanp_app.command(name="import")
def import_office_codes(file: Path, *, mode: Literal["full", "partial"] = "partial") -> int:
    """Import office codes: lines npa,nxx,state,lata,ocn or npanxx,state,lata,ocn with titles.

    Args:
        file: The file; "-" reads standard input.
        mode: "full" forgets the office codes that are not in the file.
    """
    data = _read(file, nanp_csv.BYTES_MAX)
    report = run(
        lambda database: fx.import_places(
            database, data, file_name=file.name, replace=mode == "full", actor=actor()
        )
    )
    console().print(
        f"{report.given:,} office codes, {report.changed:,} of them new or changed; "
        f"{report.known:,} are known now",
        markup=False,
    )
    return _refused(report.refused)


def _refused(lines: tuple[BadLine, ...]) -> int:
    """Show what was not taken; 1 where there is any."""
    if not lines:
        return 0
    rows = [(bad.line, bad.reason, bad.text) for bad in lines[:REFUSED_SHOWN]]
    title = f"{len(lines)} line(s) refused"
    console().print(table(title, ["line>", "why", "text"], rows), markup=False)
    return 1


def _day(text: str | None, *, field: str) -> date | None:
    if text is None:
        return None
    day = read_day(text)
    if day is None:
        raise InvalidInput(f"{field}: give a day such as 2026-03-01", field=field)
    return day


def _read(file: Path, most: int) -> bytes:
    """The file, and one byte more than is allowed if it is too large."""
    try:
        if str(file) == "-":
            return sys.stdin.buffer.read(most + 1)
        with file.open("rb") as source:
            return source.read(most + 1)
    except OSError as error:
        raise InvalidInput(f"{file}: {error.strerror or error}", field="file") from error
