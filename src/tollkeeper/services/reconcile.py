"""Reconcile: a customer's, vendor's or switch's file against our records of the same calls.

The file is read part by part into a lean frame, our records of its time come day by day by COPY,
and ``bulk.reconcile`` compares the two. Nothing is stored: the answer is a report, and a CSV that
the partner may see.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import BinaryIO, Literal

import polars as pl

from tollkeeper.bulk.pairing import OFFSET_WINDOW
from tollkeeper.bulk.reconcile import AMOUNT_MAX, OURS, Compared, Terms, compare, sequence_gaps
from tollkeeper.core.money import SCALE, parse_amount, parse_currency
from tollkeeper.core.numbering import DEFAULT_RULES, DialRules
from tollkeeper.core.trunks import Trunk
from tollkeeper.errors import Conflict, InvalidInput, NotFound
from tollkeeper.services.cdr.reference import microseconds, moment_of
from tollkeeper.services.fields import check_integer, check_timezone
from tollkeeper.services.reconcile_file import FileFormat, Rules, TheirFile, read_file, rules_of
from tollkeeper.services.reconcile_report import Gap, Report, day_lines, money
from tollkeeper.store import reconcile as store
from tollkeeper.store.cdr_sources import read_source
from tollkeeper.store.db import Connection, Database
from tollkeeper.store.reference import read_parties, read_trunks
from tollkeeper.wire.cdr.mapping import Mapping, load_mapping

__all__ = ["Question", "Report", "reconcile"]

DAYS_MAX = 62
"""Two months: no partner settles less often, and memory is bounded by what is compared at once."""
RECORDS_MAX = 5_000_000
GAPS_MAX = 1_000
CLOCK_SECOND = 1_000_000
"""An offset of a clock below this is nothing worth a word."""
MARGIN = timedelta(hours=1)
"""Our records are read so far around the period: what lies there can be paired, but is never missing."""

Basis = Literal["either", "raw"]
Say = Callable[[str, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What to compare with what, and how strictly.

    One of ``customer``, ``vendor`` (codes of parties) and ``switch``. ``format``, ``mapping`` and
    ``timezone`` say how the file is read, or ``source`` (a code) whose settings do; without any the
    format is recognised. Numbers are read by ``rules``, or those of ``trunk`` (a code), or those of
    the party's trunks. ``start_seconds`` and ``seconds`` are tolerances of starts and durations,
    ``money`` of prices: "0.01" in the currency, or "0.5%" of ours. ``basis`` "either" accepts a
    duration that equals our billed one. ``attempts`` None means: for switches only.
    """

    customer: str = ""
    vendor: str = ""
    switch: str = ""
    source: str = ""
    format: str = ""
    mapping: Mapping | None = None
    timezone: str = "UTC"
    trunk: str = ""
    rules: DialRules | None = None
    currency: str = ""
    since: datetime | None = None
    until: datetime | None = None
    start_seconds: int = 5
    seconds: int = 1
    money: str = "0.0001"
    basis: Basis = "either"
    attempts: bool | None = None
    fix_clock: bool = False


@dataclass(frozen=True, slots=True)
class _Plan:
    """A question with everything looked up."""

    whose: store.Whose
    also: tuple[store.Whose, ...]
    partner: str
    reading: FileFormat
    rules: Rules
    notes: list[str] = field(default_factory=list)


async def reconcile(
    database: Database,
    stream: BinaryIO,
    question: Question,
    *,
    say: Say = lambda _what, _rows: None,
) -> Report:
    """Compare a file with our records; ``say`` gets what is being done, and rows done.

    Raises:
        InvalidInput: the question makes no sense, or nothing of the file can be read.
        NotFound: there is no such party, switch, trunk or source.
        Conflict: our records of that time were moved to the archive.
    """
    terms = _terms(question)
    plan = await _planned(database, question)
    theirs = await asyncio.to_thread(
        read_file, stream, plan.reading, plan.rules, plan.whose.currency, RECORDS_MAX, say
    )
    ours = await _our_records(database, plan, theirs, question, say)
    say("comparing", len(theirs.frame) + len(ours))
    compared = await asyncio.to_thread(compare, theirs.frame, ours, terms)
    return _report(plan, theirs, compared)


# --- the question --------------------------------------------------------------------------------


def _terms(question: Question) -> Terms:
    amount, ppm = _tolerance(question.money)
    for name in ("start_seconds", "seconds"):
        check_integer(getattr(question, name), field=name, most=86_400)
    since, until = question.since, question.until
    if since is not None and until is not None and since >= until:
        raise InvalidInput("until: the period ends before it begins", field="until")
    parties = bool(question.customer or question.vendor)
    attempts = question.attempts if question.attempts is not None else not parties
    return Terms(
        start_us=question.start_seconds * 1_000_000,
        duration_ms=question.seconds * 1000,
        amount=amount,
        amount_ppm=ppm,
        billed=question.basis == "either" and parties,
        attempts=attempts,
        since=None if since is None else microseconds(since),
        until=None if until is None else microseconds(until),
        fix_clock=question.fix_clock,
    )


def _tolerance(text: str) -> tuple[int, int]:
    """A tolerance of money as 10^-8 and as millionths: one of them is 0."""
    share = text.endswith("%")
    number = parse_amount(text.removesuffix("%").strip(), field="money")
    if number < 0 or (share and number > 100):
        raise InvalidInput(
            'money: give an amount such as "0.01", or a share up to 100% such as "0.5%"',
            field="money",
        )
    if share:
        return 0, int(number * 10_000)
    return min(int(number.scaleb(SCALE)), AMOUNT_MAX), 0


async def _planned(database: Database, question: Question) -> _Plan:
    chosen = [name for name in ("customer", "vendor", "switch") if getattr(question, name)]
    if len(chosen) != 1:
        raise InvalidInput(
            "name whose file it is: one of customer, vendor and switch", field="customer"
        )
    async with database.read() as connection:
        reading = await _reading(connection, question)
        trunks = await read_trunks(connection)
        if chosen == ["switch"]:
            return await _plan_of_switch(connection, question, reading, trunks)
        return await _plan_of_party(connection, question, reading, trunks)


async def _reading(connection: Connection, question: Question) -> FileFormat:
    if not question.source:
        zone = check_timezone(question.timezone)
        return FileFormat(question.format, question.mapping, zone)
    source = await read_source(connection, question.source)
    if source is None:
        raise NotFound(f'there is no CDR source "{question.source}"', field="source")
    mapping = load_mapping(source.mapping) if source.mapping is not None else None
    return FileFormat(source.format, mapping, source.timezone)


async def _plan_of_switch(
    connection: Connection, question: Question, reading: FileFormat, trunks: Sequence[Trunk]
) -> _Plan:
    if not await store.is_known_switch(connection, question.switch):
        raise NotFound(f'no records of a switch "{question.switch}" ever came', field="switch")
    if question.trunk:
        raise InvalidInput("trunk: it goes with a customer or vendor", field="trunk")
    currency = parse_currency(question.currency) if question.currency else ""
    notes = []
    if held := await store.count_held(connection, question.switch):
        notes.append(
            f"{held:,} records of {question.switch} are in quarantine: they count as missing here."
        )
    if not currency:
        notes.append("Prices are not compared: name a currency to compare them.")
    senders = [t for t in trunks if t.direction == "in" and t.switch in {"", question.switch}]
    fallback = question.rules or DEFAULT_RULES
    parties = await read_parties(connection)
    rules = Rules(
        fallback,
        () if question.rules else tuple(senders),
        question.switch,
        {party.id: party.dial_rules for party in parties.values()},
    )
    whose = store.Whose("switch", currency, switch=question.switch)
    return _Plan(whose, (), question.switch, reading, rules, notes)


async def _plan_of_party(
    connection: Connection, question: Question, reading: FileFormat, trunks: Sequence[Trunk]
) -> _Plan:
    name, direction = ("customer", "in") if question.customer else ("vendor", "out")
    code = question.customer or question.vendor
    partner = await store.read_partner(connection, code)
    if partner is None:
        raise NotFound(f'there is no party "{code}"', code="unknown_party", field=name)
    currency = _currency_of(partner, question.currency)
    own = [t for t in trunks if t.party_id == partner.id and t.direction == direction]
    notes: list[str] = []
    rules = question.rules or _party_rules(partner, own, question.trunk, notes)
    whose = store.Whose("vendor" if question.vendor else "customer", currency, party=partner.id)
    also: tuple[store.Whose, ...] = ()
    if partner.kind == "reseller" and not question.vendor:
        also = (replace(whose, side="reseller"),)
    return _Plan(whose, also, partner.code, reading, Rules(rules), notes)


def _currency_of(partner: store.Partner, given: str) -> str:
    if given:
        parse_currency(given)
        if given not in partner.currencies:
            raise InvalidInput(
                f"currency: {partner.code} has no wallet in {given}", field="currency"
            )
        return given
    if len(partner.currencies) != 1:
        have = ", ".join(partner.currencies) or "none"
        raise InvalidInput(
            f"currency: name the one to compare in; the wallets of {partner.code}: {have}",
            field="currency",
        )
    return partner.currencies[0]


def _party_rules(
    partner: store.Partner, trunks: Sequence[Trunk], code: str, notes: list[str]
) -> DialRules:
    """The dial rules of a party's trunk, of all its trunks where they agree, or its own."""
    if code:
        trunks = [trunk for trunk in trunks if trunk.code == code]
        if not trunks:
            raise NotFound(f'{partner.code} has no trunk "{code}" of this direction', field="trunk")
    found = {rules_of(trunk, partner.dial_rules) for trunk in trunks}
    if len(found) > 1:
        notes.append(
            f"The trunks of {partner.code} write numbers in different ways: its own dial rules "
            "were used; name a trunk to use those of it."
        )
    return found.pop() if len(found) == 1 else partner.dial_rules


# --- our side ------------------------------------------------------------------------------------


async def _our_records(
    database: Database, plan: _Plan, theirs: TheirFile, question: Question, say: Say
) -> pl.DataFrame:
    """Our records of the period, and some around it."""
    since, until = _span(theirs, question)
    if since is None or until is None:
        raise InvalidInput(
            "the file has no record of a call, so it names no period; give since and until",
            field="since",
        )
    margin = timedelta(microseconds=OFFSET_WINDOW) if question.fix_clock else MARGIN
    since, until = since - margin, until + margin
    first, last = since.date(), until.date()
    if (last - first).days > DAYS_MAX + 4:
        raise InvalidInput(
            f"the file is about {(last - first).days} days ({first} to {last}); name a period of "
            f"at most {DAYS_MAX} days by since and until",
            field="since",
        )
    frames: list[pl.DataFrame] = []
    rows = 0
    for day in (first + timedelta(days=n) for n in range((last - first).days + 1)):
        async with database.write() as connection:
            # In the transaction that reads the day, so that it cannot move in between.
            if await store.archived_days(connection, day, day):
                raise Conflict(
                    f"our records of {day} are in the archive, which cannot be compared; name a "
                    "later period by since",
                    code="archived",
                    field="since",
                )
            for whose in (plan.whose, *plan.also):
                async for frame in store.copy_day(connection, whose, day, since=since, until=until):
                    frames.append(frame)
                    rows += len(frame)
                    say("our records", rows)
                    if rows > RECORDS_MAX:
                        raise InvalidInput(
                            f"we have more than {RECORDS_MAX:,} records of that time; name a "
                            "shorter period by since and until",
                            field="since",
                        )
    return pl.concat(frames) if frames else OURS.to_frame()


def _span(theirs: TheirFile, question: Question) -> tuple[datetime | None, datetime | None]:
    """The period: as given, else that of the file with the tolerance around it."""
    tolerance = timedelta(seconds=question.start_seconds)
    since, until = question.since, question.until
    if theirs.first is not None and theirs.last is not None:
        since = since or moment_of(theirs.first) - tolerance
        until = until or moment_of(theirs.last) + tolerance
    return since, until


# --- the report ----------------------------------------------------------------------------------


def _report(plan: _Plan, theirs: TheirFile, compared: Compared) -> Report:
    totals = compared.days.select(pl.col("their_amount", "our_amount").sum()).row(0)
    gaps = sequence_gaps(theirs.sequence)
    parts = {kind: money(amount) for kind, amount in compared.parts.items()}
    priced = theirs.priced > 0 and bool(plan.whose.currency)
    return Report(
        side=plan.whose.side,
        partner=plan.partner,
        currency=plan.whose.currency,
        format=theirs.format,
        since=moment_of(compared.since),
        until=moment_of(compared.until),
        compared=compared,
        findings=compared.findings,
        days=tuple(day_lines(compared)),
        their_total=money(int(totals[0] or 0)),
        our_total=money(int(totals[1] or 0)),
        difference=sum(parts.values(), Decimal(0)) if priced else Decimal(0),
        parts=parts,
        priced=priced,
        gaps=tuple(Gap(first, last) for first, last, _ in gaps.head(GAPS_MAX).iter_rows()),
        gap_count=len(gaps),
        gap_records=int(gaps["missing"].sum()),
        records=len(theirs.frame),
        refused=tuple(theirs.refused),
        refused_count=theirs.refused_count,
        skipped=theirs.skipped,
        notes=(*plan.notes, *_notes(plan, theirs, compared)),
    )


def _notes(plan: _Plan, theirs: TheirFile, compared: Compared) -> Iterator[str]:
    """What somebody should know who relies on the report."""
    clock = compared.clock
    if clock.offset_us is not None and abs(clock.offset_us) >= CLOCK_SECOND:
        seconds = Decimal(clock.offset_us // 1000).scaleb(-3)
        done = "their times were moved by it" if clock.applied else "fix it with fix_clock"
        yield (
            f"Their clock is {abs(seconds)} s {'ahead of' if seconds > 0 else 'behind'} ours "
            f"({clock.agreeing:,} of {clock.pairs:,} pairs agree); {done}."
        )
    if theirs.refused_count:
        yield f"{theirs.refused_count:,} lines of the file could not be read and are not compared."
    if theirs.other_currency:
        yield (
            f"{theirs.other_currency:,} prices are not in {plan.whose.currency} and are not compared."
        )
    if theirs.priced and compared.unpriced:
        yield f"{compared.unpriced:,} calls have a price on one side only; it is not compared."
    if compared.outside:
        yield f"{compared.outside:,} records of the file lie outside of the period."
    if not compared.ours:
        yield "We have no records of this partner in the period."
