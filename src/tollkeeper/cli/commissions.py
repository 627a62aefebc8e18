"""The commands ``commissions``: what parties earn by what was sold through them."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Literal

from cyclopts import App

from tollkeeper.cli.common import actor, console, run, table
from tollkeeper.core.money import parse_amount, plain
from tollkeeper.errors import InvalidInput
from tollkeeper.services import commissions
from tollkeeper.services.commissions import Rule, Run

Basis = Literal["turnover", "margin"]
Period = Literal["day", "month"]

app = App(name="commissions", help="What parties earn by what is sold through them.")


@app.command
def add(
    party: str,
    *,
    basis: Basis,
    percent: str,
    currency: str,
    valid_from: str,
    valid_to: str | None = None,
    service: str = "",
) -> None:
    """Agree a commission with a party.

    Args:
        party: Who earns it.
        basis: turnover (what those directly below it paid) or margin (less what it paid itself).
        percent: How much of that, such as 2.5.
        currency: Currency of its wallet that is credited.
        valid_from: First day, such as 2026-03-01 (UTC).
        valid_to: First day without it.
        service: Such as voice; left out, every service without a rule of its own.
    """
    rule = Rule(
        party=party,
        service=service,
        basis=basis,
        percent=parse_amount(percent, field="percent"),
        currency=currency,
        valid_from=_day(valid_from, "valid_from"),
        valid_to=None if valid_to is None else _day(valid_to, "valid_to"),
    )
    made = run(lambda database: commissions.add_rule(database, rule, actor=actor()))
    console().print(f"rule {made.id}: {party} earns {percent} % of {basis}")


@app.command
def rules(*, party: str | None = None, after: int = 0, limit: int = 1000) -> None:
    """List the rules.

    Args:
        party: Only this party's.
        after: Begin after this number.
        limit: How many at most.
    """
    found = run(
        lambda database: commissions.list_rules(database, party=party, after=after, limit=limit)
    )
    columns = ["rule>", "party", "service", "percent>", "of", "paid in", "from", "until before"]
    rows = [
        (
            rule.id,
            rule.party,
            rule.service or "all",
            f"{rule.percent.normalize():f}",
            rule.basis,
            rule.currency,
            rule.valid_from,
            rule.valid_to,
        )
        for rule in found
    ]
    console().print(table(f"{len(found)} rules", columns, rows))


@app.command
def end(rule: int, *, valid_to: str) -> None:
    """Let a rule count no longer.

    Args:
        rule: Its number.
        valid_to: The first day without it (UTC).
    """
    day = _day(valid_to, "valid_to")
    run(lambda database: commissions.end_rule(database, rule, valid_to=day, actor=actor()))
    console().print(f"rule {rule} ends before {day}")


@app.command
def statement(rule: int, *, day: str, period: Period = "month") -> None:
    """Work a commission out as the journal stands now; nothing is posted.

    Args:
        rule: Number of the rule.
        day: Any day of the period (UTC).
        period: day or month.
    """
    when = _day(day, "day")
    _show(run(lambda database: commissions.preview(database, rule, period=period, day=when)))


@app.command
def post(rule: int, *, day: str, period: Period = "month") -> None:
    """Pay a commission for a period that is over, once.

    Args:
        rule: Number of the rule.
        day: Any day of the period (UTC).
        period: day or month.
    """
    when = _day(day, "day")
    paid = run(
        lambda database: commissions.post_run(
            database,
            rule,
            period=period,
            day=when,
            actor=actor(),
            clock=lambda: datetime.now(UTC),
        )
    )
    _show(paid)
    entry = "nothing was earned" if paid.entry_id is None else f"entry {paid.entry_id}"
    console().print(f"posted as run {paid.id}: {entry}")


@app.command(name="list")
def list_runs(*, party: str | None = None, after: int = 0, limit: int = 1000) -> None:
    """List the commissions that were posted.

    Args:
        party: Only this party's.
        after: Begin after this number.
        limit: How many at most.
    """
    found = run(
        lambda database: commissions.list_runs(database, party=party, after=after, limit=limit)
    )
    columns = ["run>", "party", "service", "from", "until before", "commission>", "currency"]
    rows = [
        (
            one.id,
            one.party,
            one.service or "all",
            one.begin,
            one.end,
            plain(one.commission),
            one.currency,
        )
        for one in found
    ]
    console().print(table(f"{len(found)} commissions", columns, rows))


def _show(one: Run) -> None:
    rows = [
        (line.currency, plain(line.turnover), plain(line.own), line.rate_name or "1")
        for line in one.lines
    ]
    title = f"{one.party}, {one.service or 'all services'}, {one.begin} until before {one.end}"
    console().print(table(title, ["currency", "turnover>", "own>", "rate"], rows))
    console().print(
        f"{one.percent.normalize():f} % of {one.basis} "
        f"({plain(one.turnover)} turnover, {plain(one.own)} own): {plain(one.commission)} {one.currency}"
    )


def _day(text: str, field: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise InvalidInput(f"{field}: give a day such as 2026-03-01", field=field) from None
