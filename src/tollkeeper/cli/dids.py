"""The command ``numbers``: telephone numbers imported, searched, ordered, released."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from cyclopts import App

from tollkeeper.cli.common import actor, console, run, table
from tollkeeper.cli.supply import supply
from tollkeeper.core.money import plain
from tollkeeper.services.did_inventory import load_inventory, pattern_of
from tollkeeper.services.dids import Did, DidFilter, DidOrder
from tollkeeper.wiring import system_clock

app = App(name="numbers", help="Telephone numbers (DIDs): import, search, order, release.")

REFUSALS_SHOWN = 20


@app.command(name="import")
def import_numbers(file: Path) -> None:
    """Import an inventory: good lines are kept, bad ones told.

    Args:
        file: CSV with titles: number,country and any of kind,item,destination,quarantine_days,grace_days.
    """
    data = file.read_bytes()
    report = run(
        lambda database: load_inventory(
            database, data, now=system_clock(), actor=actor(), file_name=file.name
        )
    )
    console().print(
        f"{report.given} numbers: {report.added} new, {report.known} known; "
        f"{len(report.refused)} lines refused",
        markup=False,
    )
    for bad in report.refused[:REFUSALS_SHOWN]:
        console().print(f"line {bad.line}: {bad.reason}", markup=False)


@app.command(name="list")
def list_numbers(
    *,
    prefix: str = "",
    pattern: str = "",
    country: str = "",
    kind: Literal["geographic", "mobile", "toll-free"] | None = None,
    status: Literal["available", "ordered", "assigned", "quarantined", "released"] | None = None,
    party: str = "",
    after: str = "",
    limit: int = 100,
) -> None:
    """Search numbers.

    Args:
        prefix: Only those that begin so.
        pattern: Only those that look so: * are any digits, ? is one.
        country: Only of this country, such as IT.
        kind: Only of this kind.
        status: Only those in this state.
        party: Only this party's.
        after: Begin after this number.
        limit: How many at most.
    """
    wanted = DidFilter(
        pattern_of(prefix, pattern), country.upper(), kind or "", status or "", party, after, limit
    )
    found = supply(lambda s: s.dids.list(wanted))
    columns = ["number", "country", "kind", "item", "status", "party", "supplier", "destination"]
    rows = [
        (d.number, d.country, d.kind, d.item, d.status, d.party, d.supplier, d.destination)
        for d in found
    ]
    console().print(table(f"{len(found)} numbers", columns, rows), markup=False)


@app.command
def order(number: str, *, party: str, request_id: str, supplier: str = "", item: str = "") -> int:
    """Order a number for a party: its set-up and the rest of the month are charged.

    Args:
        number: In international digits.
        party: Code of the party that pays for it.
        request_id: Your own name of the order; the same one again is the same order.
        supplier: Code of the supplier that has it; from our own inventory if left out.
        item: Digits by which cards price a supplier's number; its own if left out.
    """
    made = supply(
        lambda s: s.dids.order(
            party=party,
            number=number,
            request_id=request_id,
            supplier=supplier,
            item=item,
            actor=actor(),
        )
    )
    return _print_order(made)


@app.command
def show(number: str) -> None:
    """Show a number, and what happened to it.

    Args:
        number: In international digits.
    """
    _print(supply(lambda s: s.dids.get(number)))
    events = supply(lambda s: s.dids.history(number))
    rows = [(f"{e.at:%Y-%m-%d %H:%M:%S}", e.event, e.party, e.detail) for e in events]
    console().print(table("history", ["at (UTC)", "event", "party", "detail"], rows), markup=False)


@app.command
def route(number: str, destination: str) -> None:
    """Say where calls to a number go.

    Args:
        number: In international digits.
        destination: As your switch reads it, such as sip:desk@pbx.example.
    """
    _print(supply(lambda s: s.dids.set_destination(number, destination, actor=actor())))


@app.command
def release(number: str) -> None:
    """Take a number from its party; nothing is paid back.

    Args:
        number: In international digits.
    """
    supply(lambda s: s.dids.release(number, actor=actor()))
    _print(supply(lambda s: s.dids.get(number)))


def _print_order(made: DidOrder) -> int:
    why = f" ({made.reason.replace('_', ' ')})" if made.reason else ""
    paid = "" if made.charge is None else f", set-up {plain(made.charge)} {made.currency}"
    console().print(
        f"order {made.id} of {made.number}: {made.status}{why}{paid}, monthly fee {made.fee_id}",
        markup=False,
    )
    return 1 if made.status == "refused" else 0


def _print(did: Did) -> None:
    rows = [
        ("country", did.country),
        ("kind", did.kind),
        ("item", did.item),
        ("status", did.status),
        ("party", did.party),
        ("destination", did.destination),
        ("supplier", did.supplier),
        ("assigned", did.assigned_at),
        ("released", did.released_at),
        ("in quarantine until", did.quarantine_until),
        ("days of quarantine", did.quarantine_days),
        ("days of grace", did.grace_days),
    ]
    console().print(table(f"number {did.number}", ["what", "value"], rows), markup=False)
