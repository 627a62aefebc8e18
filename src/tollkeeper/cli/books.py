"""The commands ``explain`` and ``verify``: why a call cost what it cost, and whether the books hold."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import Any

from rich.console import Group, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

from tollkeeper.cli.common import actor, console, run, table
from tollkeeper.core.money import plain
from tollkeeper.core.rating import Tariff, seconds_of
from tollkeeper.core.reasons import MEANINGS, Reason
from tollkeeper.core.records import Outcome, Reply
from tollkeeper.services import explain as explaining
from tollkeeper.services import verify as verifying
from tollkeeper.services.explain import Explanation, LegLine, MessageLine
from tollkeeper.services.verify import VerifyReport
from tollkeeper.store.db import Database

EXIT_FINDINGS = 3
"""What ``verify`` ends with when something does not hold: scripts can tell it from a failure to look."""

FINDINGS_SHOWN = 50


def explain(session: str) -> None:
    """Explain a call: its messages, its rate, the arithmetic, and the money that moved.

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
        kinds = ("wallets", "revenue", "cost", "clearing", "adjustment")
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


# --- explain -------------------------------------------------------------------------------------


def render(found: Explanation) -> RenderableType:
    """An explanation as a page for people: what happened, and how the amount came about."""
    session = found.session
    head = Table.grid(padding=(0, 2))
    dialled = str(found.messages[0].request.get("called", "")) if found.messages else ""
    as_sent = f" (sent as {dialled})" if dialled not in {"", session.called} else ""
    for name, value in (
        ("session", f"{found.session_id} of switch {found.switch}  ({session.id})"),
        ("party", found.party),
        ("call", f"{session.caller or 'unknown'} to {session.called}{as_sent}, {session.service}"),
        ("opened", _time(session.opened_at)),
        ("answered", _time(session.answered_at)),
        (
            "closed",
            _time(session.closed_at) + (f", cause {session.cause}" if session.cause else ""),
        ),
    ):
        head.add_row(Text(name, style="dim"), Text(value))
    parts: list[RenderableType] = [head, "", Text(found.story, style="bold")]
    parts += [Text(f"Note: {mark}.", style="yellow") for mark in found.marks]
    parts += ["", _messages(found)]
    for leg in found.legs:
        parts += ["", *_leg(found, leg)]
    return Group(*parts)


def _time(moment: Any) -> str:
    return "-" if moment is None else f"{moment:%Y-%m-%d %H:%M:%S.%f}"[:-3] + " UTC"


def _messages(found: Explanation) -> RenderableType:
    rows = [
        (m.version, _time(m.at), m.request.get("type", ""), _asked(m), _answered(m.reply))
        for m in found.messages
    ]
    return table("Messages that changed it", (">", "at", "message", "said", "answer"), rows)


def _asked(message: MessageLine) -> str:
    skip = {"type", "party", "called", "caller", "service"}
    said = {name: value for name, value in message.request.items() if name not in skip}
    if "used_ms" in said:
        said["used"] = f"{Decimal(said.pop('used_ms')) / 1000} s"
    return ", ".join(f"{name} {value}" for name, value in said.items() if value != "")


def _answered(reply: Reply) -> str:
    words = [reply.outcome.value]
    if reply.outcome in {Outcome.GRANTED, Outcome.ACTIVE}:
        words.append(f"{reply.granted_seconds} s in all" + (", final" if reply.final else ""))
    if reply.terminate:
        words.append("end it now")
    if reply.reason is not Reason.NONE:
        # One part of a sentence among others.
        text = MEANINGS[reply.reason].text.rstrip(".")
        words.append(text[:1].lower() + text[1:])
    if reply.charge is not None:
        words.append(f"charge {plain(reply.charge)} {reply.currency}")
    return ", ".join(words)


def _leg(found: Explanation, leg: LegLine) -> Iterator[RenderableType]:
    rate, money = leg.rate, leg.currency
    yield Text(f"Leg {leg.number}: {leg.role} {leg.party}, wallet in {money}", style="bold")
    yield (
        f'Rate: card {rate.card} version {rate.version}, row {rate.row}: prefix "{rate.prefix}" = '
        f"{rate.destination}"
    )
    yield f"      {describe(rate.tariff, money)}"
    yield from _arithmetic(found, leg)
    yield from _hold(leg)
    if leg.entries:
        rows = [
            (
                e.id,
                _time(e.at),
                e.code,
                plain(e.amount),
                f"{e.debit} -> {e.credit}",
                plain(e.balance_after),
            )
            for e in leg.entries
        ]
        columns = ("entry>", "at", "code", f"{money}>", "from -> to", "balance after>")
        yield table("Entries", columns, rows)


def _arithmetic(found: Explanation, leg: LegLine) -> Iterator[RenderableType]:
    worked, used = leg.price, found.billed_from_ms
    what = "It would cost so far" if found.session.open else "Charge"
    if worked.billed_seconds:
        whole = f"{Decimal(used) / 1000} s used"
        if used % 1000:
            whole += f", {seconds_of(used)} s counted (any second begun)"
        yield f"Time: {whole}, {worked.billed_seconds} s billed ({_intervals(leg.rate.tariff)})"
    yield f"Sum:  {worked.note}"
    if worked.exact != worked.amount:
        yield f"      = {_exact(worked.exact)} exactly, rounded once {leg.rounding}"
    yield Text(f"{what}: {plain(worked.amount)} {leg.currency}", style="bold")
    if not leg.agrees:
        yield Text(f"But {plain(leg.charged)} was charged: run verify.", style="bold red")


def _exact(amount: Decimal) -> str:
    """An exact sum; a quotient that does not end is shown to 12 decimals."""
    text = f"{amount.normalize():f}"
    whole, _, decimals = text.partition(".")
    return f"{whole}.{decimals[:12]}..." if len(decimals) > 20 else text


def _hold(leg: LegLine) -> Iterator[RenderableType]:
    hold = leg.hold
    if hold.taken:
        ends = [f"{plain(hold.settled)} settled", f"{plain(hold.released)} released"]
        if hold.still_held:
            ends = [f"{plain(hold.still_held)} still held"]
        yield f"Hold: {plain(hold.taken)} {leg.currency} was set aside; {', '.join(ends)}"
    for amount, text in (
        (hold.overrun, "was used above the hold (overrun)"),
        (hold.late, "was reported after the end (late)"),
        (hold.corrected, "was given back after the end (correction)"),
    ):
        if amount:
            yield Text(f"      {plain(amount)} {leg.currency} {text}", style="yellow")


def _intervals(tariff: Tariff) -> str:
    return f"first {tariff.first_interval} s, then steps of {tariff.next_interval} s"


def describe(tariff: Tariff, currency: str) -> str:
    """A tariff in words."""
    first, rest = plain(tariff.first_price), plain(tariff.next_price)
    prices = f"{first} {currency}/min" if first == rest else f"{first}, then {rest} {currency}/min"
    words = [prices, f"{tariff.first_interval}/{tariff.next_interval} s"]
    for amount, text in (
        (tariff.connect_fee, "connect fee"),
        (tariff.attempt_fee, "attempt fee"),
        (tariff.minimum, "minimum charge"),
        (tariff.surcharge, "surcharge per minute"),
        (tariff.cap, "at most"),
    ):
        if amount:
            words.append(f"{text} {plain(amount)}")
    if tariff.free_below:
        words.append(f"free below {tariff.free_below} s")
    return ", ".join(words)
