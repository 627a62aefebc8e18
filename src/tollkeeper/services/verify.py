"""Proving the books: every guarantee of ``core.audit`` over everything that is stored.

The database adds up, the core judges; all of it in one transaction that sees one moment. Nothing
is repaired: a finding names what does not hold, and :func:`park_breached` stops the wallets that
it concerns.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal

from tollkeeper.core.audit import (
    Finding,
    MessageLine,
    check_book,
    check_closed,
    check_keys,
    check_messages,
    check_open,
    check_posting,
    check_wallet,
)
from tollkeeper.core.audit_meters import MeterTotals, check_meters, check_transfers
from tollkeeper.services.picture import KEY_DAYS
from tollkeeper.services.verify_usage import check_usage
from tollkeeper.services.wallets import park
from tollkeeper.store import verify as store
from tollkeeper.store.db import Connection, Database
from tollkeeper.store.sessions import read_messages, read_session, reply_of
from tollkeeper.store.verify import BookTotals, SessionRow, WalletName

PATIENCE = timedelta(minutes=10)
"""How long after its end a session may stay open before that is a finding."""

FINDINGS_MAX = 1000
"""So many findings are kept with their words; the rest is only counted."""

BREACHES = ("I1", "I3", "I4", "I5", "I7", "I8", "I9", "I11", "I15", "I19", "I22")
"""Findings of these guarantees are about money: the wallets that they concern can be parked."""

Progress = Callable[[str, int, int], None]
"""Called with the name of the step, how many records are done and how many there are."""


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """What was looked at and what does not hold.

    ``at`` is the moment of the picture. ``records`` came as files, those in the archive included.
    ``books`` are the balances of each currency, which add up to zero. ``found`` counts all findings
    by code; ``findings`` holds the first thousand. ``breached`` are the wallets that findings about money concern.
    """

    at: datetime
    wallets: int
    entries: int
    live_sessions: int
    closed_sessions: int
    messages: int
    records: int
    books: tuple[BookTotals, ...]
    findings: tuple[Finding, ...]
    found: dict[str, int]
    breached: tuple[WalletName, ...]

    @property
    def clean(self) -> bool:
        """True when everything holds."""
        return not self.found


@dataclass(slots=True)
class _Notes:
    """Findings as they come, and the wallets that they concern."""

    findings: list[Finding] = field(default_factory=list)
    found: Counter[str] = field(default_factory=Counter)
    wallets: set[int] = field(default_factory=set)

    def add(self, findings: Iterable[Finding], wallets: Iterable[int] = ()) -> None:
        for finding in findings:
            self.found[finding.code] += 1
            if len(self.findings) < FINDINGS_MAX:
                self.findings.append(finding)
            if finding.code.partition(".")[0] in BREACHES:
                self.wallets.update(wallets)


async def verify(
    database: Database,
    progress: Progress | None = None,
    *,
    now: datetime | None = None,
    patience: timedelta = PATIENCE,
) -> VerifyReport:
    """Check every guarantee over the whole database, as it stands at one moment.

    ``now`` is compared with the times of open sessions; without it the database's clock is.

    Raises:
        Busy: the database does not answer.
    """
    tell = progress or (lambda _step, _done, _all: None)
    notes = _Notes()
    async with store.one_moment(database) as connection:
        counts = await store.count(connection)
        tell("wallets and entries", 0, counts.entries)
        await _check_wallets(connection, notes)
        await _check_entries(connection, notes)
        books = await _check_books(connection, notes)
        tell("wallets and entries", counts.entries, counts.entries)
        totals = MeterTotals()
        rows = store.read_live(connection)
        async for row in _counted(rows, "live sessions", counts.live_sessions, tell):
            _check_live(row, now or counts.at, patience, notes)
            totals.add(row.session)
        rows = store.read_closed(connection)
        async for row in _counted(rows, "charges, derived again", counts.closed_sessions, tell):
            _check_closed(row, notes)
            totals.add(row.session)
        notes.add(check_meters([line async for line in store.read_meters(connection)], totals.sums))
        await _check_strays(connection, notes)
        tell("messages", 0, counts.messages)
        await _check_messages(connection, notes)
        notes.add(check_keys(await store.odd_keys(connection, KEY_DAYS), KEY_DAYS))
        tell("messages", counts.messages, counts.messages)
        records = await check_usage(
            connection, notes.add, lambda done, days: tell("days of records", done, days)
        )
        breached = await store.name_wallets(connection, sorted(notes.wallets))
    return VerifyReport(
        at=counts.at,
        wallets=counts.wallets,
        entries=counts.entries,
        live_sessions=counts.live_sessions,
        closed_sessions=counts.closed_sessions,
        messages=counts.messages,
        records=records,
        books=tuple(books),
        findings=tuple(notes.findings),
        found=dict(sorted(notes.found.items())),
        breached=tuple(breached),
    )


async def _counted(
    rows: AsyncIterator[SessionRow], step: str, total: int, tell: Progress
) -> AsyncIterator[SessionRow]:
    done = 0
    async for row in rows:
        yield row
        done += 1
        if done % store.FETCH == 0:
            tell(step, done, total)
            # The rows of one fetch come without a pause: let others of this process work too.
            await asyncio.sleep(0)
    tell(step, total, total)


# --- one step each -------------------------------------------------------------------------------


async def _check_wallets(connection: Connection, notes: _Notes) -> None:
    async for totals in store.read_wallets(connection):
        notes.add(check_wallet(totals), [totals.wallet.id])


async def _check_entries(connection: Connection, notes: _Notes) -> None:
    for kind in await store.read_postings(connection):
        findings = list(check_posting(kind))
        if findings:
            notes.add(findings, await store.wallets_of_posting(connection, kind))


async def _check_books(connection: Connection, notes: _Notes) -> list[BookTotals]:
    books = await store.read_books(connection)
    for book in books:
        notes.add(check_book(book.currency, book.wallets, book.others))
        notes.add(check_transfers(book.currency, book.transfer))
    return books


def _check_live(row: SessionRow, now: datetime, patience: timedelta, notes: _Notes) -> None:
    session = row.session
    wallets = [leg.wallet_id for leg in session.legs]
    notes.add(check_open(session, now, patience), wallets)
    if row.expires_at != session.expires_at:
        notes.add([_differs(row, "expires_at", row.expires_at, session.expires_at)], wallets)
    _check_columns(row, notes)


def _check_closed(row: SessionRow, notes: _Notes) -> None:
    session = row.session
    wallets = [*(leg.wallet_id for leg in session.legs), *(wallet for _, wallet in row.sums)]
    notes.add(check_closed(session, row.sums), wallets)
    charge = session.legs[0].charged if session.legs else Decimal(0)
    if row.charge != charge:
        notes.add([_differs(row, "charge", row.charge, charge)], wallets)
    if row.ending != session.ending.value:
        notes.add([_differs(row, "ending", row.ending, session.ending.value)], wallets)
    _check_columns(row, notes)


def _check_columns(row: SessionRow, notes: _Notes) -> None:
    """What stands beside a session's body says the same as the body."""
    session = row.session
    stands = (row.key, row.id, row.party_id, row.opened_day, row.version)
    said = (
        session.key, session.id, session.party_id, session.opened_at.date(), session.version,
    )  # fmt: skip
    if stands != said:
        wallets = [leg.wallet_id for leg in session.legs]
        notes.add([_differs(row, "columns", stands, said)], wallets)


def _differs(row: SessionRow, name: str, stands: object, said: object) -> Finding:
    return Finding(
        "I19.row", f"session {row.key}", f"{name} stands at {stands}, the body says {said}"
    )


async def _check_strays(connection: Connection, notes: _Notes) -> None:
    for stray in await store.read_strays(connection):
        finding = Finding(
            "I19.stray",
            f"session {stray.session_id}",
            f"{stray.entries} entries of {stray.amount} in all, yet no such session is closed",
        )
        notes.add([finding], [stray.wallet_id])


async def _check_messages(connection: Connection, notes: _Notes) -> None:
    """The database finds the sessions whose messages look wrong; what is wrong the core says."""
    for day, session_id in await store.odd_messages(connection):
        session = await read_session(connection, session_id)
        messages = await read_messages(connection, day, session_id)
        if session is None:
            detail = f"{len(messages)} messages of {day}, yet there is no such session"
            notes.add([Finding("I14.other", f"session {session_id}", detail)])
            continue
        lines = [MessageLine(m.version, m.message_id, reply_of(m)) for m in messages]
        notes.add(check_messages(session, lines))


# --- what follows --------------------------------------------------------------------------------


async def park_breached(
    database: Database, report: VerifyReport, *, actor: str
) -> tuple[WalletName, ...]:
    """Park the wallets that findings about money concern; returns those that were not parked yet.

    Nothing is repaired: a parked wallet takes no new session and pays nothing out until a person
    has looked at it. Sessions that are open go on and are settled.
    """
    stopped = []
    for wallet in report.breached:
        if not wallet.parked:
            await park(
                database,
                party=wallet.party,
                currency=wallet.currency,
                reason="verify found a breach of its books",
                actor=actor,
            )
            stopped.append(wallet)
    return tuple(stopped)
