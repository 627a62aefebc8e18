"""Commissions: what a party earns by what was sold through it, worked out from the journal.

Turnover is what those directly below a party paid for a service in a period, less what they were given
back; the margin is that less what the party itself paid. A period is a day or a month in UTC. It is
posted once it is over, each rule once: the journal only grows, so its sums do not change afterwards.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

from tollkeeper.core.commissions import Sold, Worked, work_out
from tollkeeper.core.fx import MAX_AGE_DAYS
from tollkeeper.core.ledger import Code
from tollkeeper.core.money import ZERO, parse_currency, plain
from tollkeeper.errors import Conflict, InvalidInput, NotFound
from tollkeeper.services.fields import check_choice
from tollkeeper.services.fx_book import FxBook
from tollkeeper.services.postings import post
from tollkeeper.services.scope import shown_actors, unknown_party
from tollkeeper.services.wallet_terms import find_wallet, lock
from tollkeeper.store import commissions as store
from tollkeeper.store.changes import record
from tollkeeper.store.commissions import Charged, Rule, Run
from tollkeeper.store.db import Connection, Database
from tollkeeper.store.fx import read_recent
from tollkeeper.store.parties import lock_party, read_party

__all__ = [
    "BASES",
    "PERIODS",
    "Rule",
    "Run",
    "add_rule",
    "end_rule",
    "list_rules",
    "list_runs",
    "period_of",
    "post_run",
    "preview",
]

BASES = ("turnover", "margin")
PERIODS = ("day", "month")
ALL_SERVICES = "all"
"""Name of the account of commissions on every service."""

_SERVICE = re.compile(r"([a-z][a-z0-9_]{0,31})?")


# --- rules ---------------------------------------------------------------------------------------


async def add_rule(database: Database, rule: Rule, *, actor: str) -> Rule:
    """Agree a commission; returns the rule as stored.

    Raises:
        NotFound: no such party, or it has no wallet in the currency. InvalidInput: a field is out of
            bounds. Conflict: another rule of the party for the service counts on the same days.
    """
    check_choice(rule.basis, BASES, field="basis")
    if _SERVICE.fullmatch(rule.service) is None:
        raise InvalidInput(
            'service: a word such as "voice", or nothing for every service', field="service"
        )
    if not ZERO < rule.percent <= 100 or rule.percent != round(rule.percent, 6):
        raise InvalidInput(
            "percent: more than 0, at most 100, with at most 6 decimals", field="percent"
        )
    if rule.valid_to is not None and rule.valid_to <= rule.valid_from:
        raise InvalidInput("valid_to: it must be later than valid_from", field="valid_to")
    parse_currency(rule.currency)
    async with database.write() as connection:
        # The party's row: two rules for the same days would not see each other.
        party_id = await lock_party(connection, rule.party)
        if party_id is None:
            raise unknown_party(rule.party)
        await find_wallet(connection, rule.party, rule.currency)
        rule = replace(rule, party_id=party_id)
        other = await store.overlapping_rule(connection, rule)
        if other is not None:
            raise Conflict(
                f"rule {other} of {rule.party} for {rule.service or 'every service'} counts on some of "
                "these days; end it first",
                code="overlapping_rule",
            )
        rule = replace(rule, id=await store.add_rule(connection, rule))
        await _note(connection, rule, "commission.rule", actor)
    return rule


async def end_rule(database: Database, rule_id: int, *, valid_to: date, actor: str) -> Rule:
    """Let a rule count no longer from the day ``valid_to`` on.

    Raises:
        NotFound: no such rule. InvalidInput: the day is not after its first one.
        Conflict: commission was already posted beyond that day.
    """
    async with database.write() as connection:
        rule = await _rule(connection, rule_id, lock=True)
        if valid_to <= rule.valid_from:
            raise InvalidInput("valid_to: it must be later than valid_from", field="valid_to")
        if rule.valid_to is not None and valid_to > rule.valid_to:
            raise InvalidInput("valid_to: the rule ends earlier already", field="valid_to")
        posted = await store.last_run_end(connection, rule_id)
        if posted is not None and posted > valid_to:
            raise Conflict(
                f"commission by rule {rule_id} is posted for days before {posted}",
                code="period_posted",
                field="valid_to",
            )
        await store.end_rule(connection, rule_id, valid_to)
        rule = replace(rule, valid_to=valid_to)
        await _note(connection, rule, "commission.end", actor)
        return rule


async def list_rules(
    database: Database, *, party: str | None = None, after: int = 0, limit: int = 100
) -> list[Rule]:
    """Return rules in the order of their ids.

    Raises:
        NotFound: no such party.
    """
    async with database.read() as connection:
        party_id = await _party_id(connection, party)
        return await store.read_rules(connection, party_id=party_id, after=after, limit=limit)


# --- runs ----------------------------------------------------------------------------------------


def period_of(period: str, day: date) -> tuple[date, date]:
    """Return the first day of the day or month (UTC) that holds ``day``, and the first day after it.

    Raises:
        InvalidInput: another period.
    """
    check_choice(period, PERIODS, field="period")
    if period == "day":
        return day, day + timedelta(days=1)
    first = day.replace(day=1)
    return first, (first + timedelta(days=32)).replace(day=1)


async def preview(database: Database, rule_id: int, *, period: str, day: date) -> Run:
    """Work a rule out for a period as the journal stands now; nothing is posted.

    Raises:
        NotFound: no such rule. InvalidInput: another period, or one that the rule has no day of.
        Conflict: an exchange rate is missing.
    """
    begin, end = period_of(period, day)
    async with database.write() as connection:
        return await _work_out(connection, await _rule(connection, rule_id), begin, end)


async def post_run(
    database: Database,
    rule_id: int,
    *,
    period: str,
    day: date,
    actor: str,
    clock: Callable[[], datetime],
) -> Run:
    """Pay a rule's commission for a period that is over; asked for again, it is what was paid.

    Raises:
        As :func:`preview`. Conflict: the period is not over, or some of its days were paid already.
    """
    begin, end = period_of(period, day)
    if clock().astimezone(UTC).date() < end:
        raise Conflict(
            f"the {period} of {day} is not over: it is posted from {end} on", code="period_open"
        )
    async with database.write() as connection:
        rule = await _rule(connection, rule_id, lock=True)
        done = await store.find_run(connection, rule_id, begin, end)
        if done is not None:
            return done
        other = await store.overlapping_run(connection, rule_id, begin, end)
        if other is not None:
            raise Conflict(
                f"rule {rule_id} is paid already for the days from {other[0]} until before {other[1]}",
                code="period_posted",
            )
        run = await _work_out(connection, rule, begin, end)
        run = replace(run, actor=actor, at=clock())
        if run.commission > ZERO:
            run = replace(run, entry_id=await _pay(connection, rule, run, clock))
        run = await store.add_run(connection, run, party_id=rule.party_id)
        detail = {"rule": rule_id, "from": str(begin), "to": str(end)}
        await record(
            connection,
            actor=actor,
            action="commission.post",
            subject=f"party {rule.party}",
            detail={**detail, "amount": plain(run.commission), "currency": run.currency},
            notice=f"party:{rule.party_id}",
        )
        return run


async def _pay(connection: Connection, rule: Rule, run: Run, clock: Callable[[], datetime]) -> int:
    wallet = await lock(connection, (await find_wallet(connection, rule.party, rule.currency)).id)
    posted = await post(
        connection,
        wallet,
        Code.COMMISSION,
        run.commission,
        # Read under the lock: so the times of a wallet's entries follow their versions.
        at=clock(),
        actor=run.actor,
        reason=f"commission from {run.begin} until before {run.end}",
        contra=rule.service or ALL_SERVICES,
    )
    return posted.entry.id


async def _work_out(connection: Connection, rule: Rule, begin: date, end: date) -> Run:
    first = max(begin, rule.valid_from)
    last = end if rule.valid_to is None else min(end, rule.valid_to)
    if first >= last:
        raise InvalidInput(
            f"day: rule {rule.id} counts on no day of this period",
            code="rule_not_valid",
            field="day",
        )
    charged = await store.read_charged(connection, rule.party_id, first, last)
    if not rule.service:
        # A day's own rule takes its service away from the general one on that day only.
        charged = await _without_own_rules(connection, rule, charged, first, last)
    else:
        charged = [one for one in charged if one.service == rule.service]
    worked = await _worked(connection, rule, charged, end - timedelta(days=1))
    return Run(
        rule_id=rule.id,
        party=rule.party,
        begin=begin,
        end=end,
        service=rule.service,
        basis=rule.basis,
        percent=rule.percent,
        currency=rule.currency,
        turnover=worked.turnover,
        own=worked.own,
        commission=worked.commission,
        lines=worked.lines,
    )


async def _without_own_rules(
    connection: Connection, rule: Rule, charged: list[Charged], first: date, last: date
) -> list[Charged]:
    special = await store.services_of_rules(connection, rule.party_id, first, last)
    rest = [one for one in charged if one.service not in special]
    if special:
        day = first
        while day < last:
            after = day + timedelta(days=1)
            today = await store.services_of_rules(connection, rule.party_id, day, after)
            if uncovered := special - today:
                found = await store.read_charged(connection, rule.party_id, day, after)
                rest += [one for one in found if one.service in uncovered]
            day = after
    return rest


async def _worked(
    connection: Connection, rule: Rule, charged: Sequence[Charged], last_day: date
) -> Worked:
    sums: dict[str, tuple[Decimal, Decimal]] = {}
    for one in charged:
        turnover, own = sums.get(one.currency, (ZERO, ZERO))
        if one.own:
            own += one.amount
        else:
            turnover += one.amount
        sums[one.currency] = (turnover, own)
    rates = FxBook(await read_recent(connection, last_day - timedelta(days=MAX_AGE_DAYS)))
    worked = work_out(
        [Sold(currency, *both) for currency, both in sums.items()],
        basis=rule.basis,
        percent=rule.percent,
        currency=rule.currency,
        exchange=rates.exchange(last_day),
    )
    if worked.missing:
        raise Conflict(
            f"no exchange rate from {worked.missing} to {rule.currency} is known for {last_day}: "
            "load the rates of that day first",
            code="no_fx_rate",
        )
    return worked


async def list_runs(
    database: Database,
    *,
    party: str | None = None,
    after: int = 0,
    limit: int = 100,
    scope: int | None = None,
) -> list[Run]:
    """Return posted runs in the order of their ids; to a scope those of its subtree.

    Raises:
        NotFound: no such party.
    """
    async with database.read(scope=scope) as connection:
        party_id = await _party_id(connection, party)
        runs = await store.read_runs(connection, party_id=party_id, after=after, limit=limit)
        if scope is None:
            return list(runs)
        actors = await shown_actors(connection, [run.actor for run in runs])
    return [replace(run, actor=actors[run.actor]) for run in runs]


async def _party_id(connection: Connection, code: str | None) -> int | None:
    if code is None:
        return None
    party = await read_party(connection, code)
    if party is None:
        raise unknown_party(code)
    return party.id


async def _rule(connection: Connection, rule_id: int, *, lock: bool = False) -> Rule:
    rule = await store.read_rule(connection, rule_id, lock=lock)
    if rule is None:
        raise NotFound(f"there is no commission rule {rule_id}", code="unknown_rule")
    return rule


async def _note(connection: Connection, rule: Rule, action: str, actor: str) -> None:
    await record(
        connection,
        actor=actor,
        action=action,
        subject=f"party {rule.party}",
        detail={
            "rule": rule.id,
            "service": rule.service,
            "basis": rule.basis,
            "percent": str(rule.percent),
            "currency": rule.currency,
            "valid_from": str(rule.valid_from),
            "valid_to": None if rule.valid_to is None else str(rule.valid_to),
        },
        notice=f"party:{rule.party_id}",
    )
