"""The command ``cdr quarantine``: records that could not go into the books, and how they get there."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import msgspec
from cyclopts import App, Parameter

from tollkeeper.cli.cdr_show import time_of
from tollkeeper.cli.common import actor, console, run, table, utc
from tollkeeper.errors import InvalidInput, NotFound
from tollkeeper.services.cdr import quarantine
from tollkeeper.services.cdr.quarantine import Filter, Quarantined, ReplayReport
from tollkeeper.services.cdr.reference import microseconds
from tollkeeper.settings import load_settings
from tollkeeper.store.db import Database
from tollkeeper.wiring import load_policy_of

app = App(name="quarantine", help="Records that were put aside: list, mend, play again, drop.")

_TIMES = frozenset({"start", "answer", "end"})
_WHOLE = frozenset({"duration_ms", "sip", "q850", "pdd_ms", "mos", "sequence"})
Several = Annotated[list[str], Parameter(negative=())]


@app.command(name="list")
def list_records(
    *,
    reason: str | None = None,
    file: int | None = None,
    switch: str | None = None,
    status: Literal["open", "replayed", "dropped"] = "open",
    after: int = 0,
    limit: int = 50,
) -> None:
    """List records, the oldest first, and how many wait for which reason.

    Args:
        reason: Only put aside for this reason, such as no_rate or unknown_customer.
        file: Only of this file.
        switch: Only of this switch.
        status: open ones wait; replayed and dropped ones do not any more.
        after: Begin after this number.
        limit: How many at most.
    """
    wanted = Filter(reason, file, switch, status)

    async def work(
        database: Database,
    ) -> tuple[list[Quarantined], list[tuple[str, str, int, datetime]]]:
        found = await quarantine.listed(database, wanted, after=after, limit=limit)
        return found, await quarantine.count(database)

    found, counts = run(work)
    out = console()
    counted = [(where, why, f"{n:,}", time_of(since)) for where, why, n, since in counts]
    columns = ["switch", "reason", "records>", "since"]
    out.print(table("waiting (times in UTC)", columns, counted), markup=False)
    rows = [
        (q.id, q.reason, q.field, q.value, f"{q.file or q.switch}:{q.line}", q.detail)
        for q in found
    ]
    columns = ["record>", "reason", "field", "value", "file:line", "why"]
    out.print(table(f"{len(rows)} records", columns, rows), markup=False)
    if len(rows) == limit:
        out.print(f"more may follow: --after {found[-1].id}", markup=False)


@app.command
def show(number: int) -> None:
    """Show one record: why it was put aside, what was read, and its line as it was.

    Args:
        number: Its number, as "quarantine list" shows it.
    """
    wanted = Filter(status=None, ids=(number,))
    found = run(lambda database: quarantine.listed(database, wanted, limit=1))
    if not found:
        raise NotFound(f"there is no record {number} in quarantine", code="unknown_record")
    _print(found[0])


def _print(held: Quarantined) -> None:
    read: dict[str, Any] = {} if held.record is None else msgspec.json.decode(held.record)
    rows: list[tuple[str, object]] = [
        ("record", held.id),
        ("status", held.status + (f" by {held.resolved_by}" if held.resolved_by else "")),
        ("reason", f"{held.reason}: {held.detail}"),
        ("where", f"switch {held.switch}, file {held.file_id} {held.file}, line {held.line}"),
        ("since", time_of(held.at)),
        *read.items(),
        ("as it was", held.raw),
    ]
    console().print(table("", ["what", "value"], rows), markup=False)


@app.command
def fix(number: int, *, set: Several) -> None:  # noqa: A002 (the word that users know)
    """Correct fields of a record; it goes into the books when it is played again.

    Args:
        number: Its number.
        set: A field as name=value, several times: called=442071838750, start=2026-03-01T12:00:00,
            duration_ms=60000. "answer=" is none.
    """
    values = dict(_value(pair) for pair in set)
    fixed = run(lambda database: quarantine.fix(database, number, values, actor=actor()))
    _print(fixed)
    console().print(f"next: tollkeeper cdr quarantine replay --id {number}", markup=False)


def _value(pair: str) -> tuple[str, object]:
    name, sign, text = pair.partition("=")
    if not sign or not name:
        raise InvalidInput(f'--set {pair}: give it as name=value, such as "called=442071838750"')
    try:
        if name in _TIMES:
            return name, microseconds(utc(datetime.fromisoformat(text))) if text else None
        if name in _WHOLE:
            return name, int(text) if text else None
    except ValueError:
        want = "a time such as 2026-03-01T12:00:00" if name in _TIMES else "a whole number"
        raise InvalidInput(f"{name}: give {want}", field=name) from None
    return name, text


@app.command
def replay(
    *,
    reason: str | None = None,
    file: int | None = None,
    switch: str | None = None,
    id: Annotated[list[int] | None, Parameter(negative=())] = None,  # noqa: A002
) -> int:
    """Play open records again, by the rules and rates as they are now.

    Args:
        reason: Only put aside for this reason.
        file: Only of this file.
        switch: Only of this switch.
        id: Only this record; may be given several times.
    """
    wanted = Filter(reason, file, switch, ids=None if id is None else tuple(id))
    policy = load_policy_of(load_settings())

    async def work(database: Database) -> ReplayReport:
        out = console(stderr=True)
        with out.status("playing records again") as status:
            return await quarantine.replay(
                database, wanted, policy=policy, actor=actor(), clock=lambda: datetime.now(UTC),
                say=lambda played: status.update(f"{played:,} records played again"),
            )  # fmt: skip

    report = run(work)
    rows = [
        ("played", f"{report.played:,}", "again"),
        ("rated", f"{report.rated:,}", "priced and posted"),
        ("matched", f"{report.matched:,}", "charged live"),
        ("duplicate", f"{report.duplicate:,}", "in the books already"),
        ("still", f"{report.still:,}", "put aside once more"),
        ("unreadable", f"{report.unreadable:,}", "correct their file and load that again"),
    ]
    console().print(table("", ["what", "records>", ""], rows), markup=False)
    return 0


@app.command
def drop(numbers: list[int], /, *, why: str) -> None:
    """Give records up for good; they stay listed as dropped.

    Args:
        numbers: Their numbers.
        why: For the audit trail.
    """
    dropped = run(
        lambda database: quarantine.drop(
            database, numbers, why=why, actor=actor(), now=datetime.now(UTC)
        )
    )
    console().print(f"{dropped} of {len(numbers)} records dropped", markup=False)
