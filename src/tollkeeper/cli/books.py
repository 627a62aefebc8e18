"""The commands ``explain`` and ``verify``: why a call cost what it cost, and whether the books hold."""

from __future__ import annotations

from typing import Any

from rich.console import Group, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.text import Text

from tollkeeper.cli.common import actor, console, run, table
from tollkeeper.cli.explained import render
from tollkeeper.core.money import plain
from tollkeeper.services import explain as explaining
from tollkeeper.services import verify as verifying
from tollkeeper.services.verify import VerifyReport
from tollkeeper.store.db import Database

__all__ = ["explain", "render", "render_report", "verify"]

EXIT_FINDINGS = 3
"""What ``verify`` ends with when something does not hold: scripts can tell it from a failure to look."""

FINDINGS_SHOWN = 50


def explain(session: str) -> None:
    """Explain a call, event or data session: its messages, and for each level its price and money.

    Args:
        session: Its id as the switch gave it, or switch/id, or Tollkeeper's own id.
    """
    found = run(lambda database: explaining.explain(database, session))
    # What switches and rate sheets send is text, whatever brackets are in it.
    console().print(render(found), markup=False)


def verify(*, park: bool = False) -> int:
    """Prove the books: every wallet, entry, session and charge, at one moment.

    Ends with 0 when everything holds and with 3 when something does not.

    Args:
        park: Stop each wallet whose books do not hold; nothing is ever repaired by itself.
    """

    async def work(database: Database) -> VerifyReport:
        with Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
            console=console(stderr=True), transient=True,
        ) as bar:  # fmt: skip
            steps: dict[str, Any] = {}

            def tell(step: str, done: int, total: int) -> None:
                if step not in steps:
                    steps[step] = bar.add_task(step, total=total)
                bar.update(steps[step], completed=done)

            report = await verifying.verify(database, tell)
        if park:
            for wallet in await verifying.park_breached(database, report, actor=actor()):
                console(stderr=True).print(f"parked the wallet {wallet.party}/{wallet.currency}")
        return report

    report = run(work)
    console().print(render_report(report), markup=False)
    return 0 if report.clean else EXIT_FINDINGS


# --- verify --------------------------------------------------------------------------------------


def render_report(report: VerifyReport) -> RenderableType:
    """What was looked at, the balance of each currency, and what does not hold."""
    looked_at = (
        f"As of {report.at:%Y-%m-%d %H:%M:%S} UTC: {report.wallets:,} wallets, "
        f"{report.entries:,} entries, {report.closed_sessions:,} closed and "
        f"{report.live_sessions:,} live sessions, {report.messages:,} messages, "
        f"{report.records:,} records of files."
    )
    parts: list[RenderableType] = [looked_at]
    if report.books:
        # Every installation has these; the others are shown where there is anything on them.
        kinds = ["wallets", "revenue", "cost", "clearing", "adjustment"]
        rare = ("promotion", "transfer", "commission")
        kinds += [kind for kind in rare if any(getattr(book, kind) for book in report.books)]
        rows = [
            (
                book.currency,
                *(plain(getattr(book, kind)) for kind in kinds),
                plain(book.wallets + book.others),
            )
            for book in report.books
        ]
        columns = ("currency", *(f"{kind}>" for kind in kinds), "sum>")
        parts += [
            "",
            table("Balances: owed, earned, received", columns, rows),
        ]
    parts.append("")
    if report.clean:
        parts.append(
            Text(
                "The books hold: every balance is the sum of its entries, every hold belongs to a live "
                "session, and every charge is the price of its usage at its rate.",
                style="green",
            )
        )
        return Group(*parts)
    total = sum(report.found.values())
    parts.append(Text(f"Does not hold: {total:,}", style="bold red"))
    shown = [(f.code, f.subject, f.detail) for f in report.findings[:FINDINGS_SHOWN]]
    parts.append(table("", ("code", "of", "what"), shown))
    if total > len(shown):
        more = ", ".join(f"{code} x {count:,}" for code, count in report.found.items())
        parts.append(f"... and more; in all: {more}")
    parts += ["", *sorted({f"{f.code.partition('.')[0]}: {f.guarantee}" for f in report.findings})]
    if report.breached:
        names = ", ".join(f"{w.party}/{w.currency}" for w in report.breached[:20])
        parts.append(
            f"Wallets concerned: {names}. verify --park stops them until somebody has looked."
        )
    return Group(*parts)
