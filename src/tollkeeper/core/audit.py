"""The guarantees of the books, stated over plain data.

Each function looks at one kind of record and returns what does not hold. The tests, the simulator
and ``tollkeeper verify`` all use these; they differ only in where the records come from: a list in
memory, or sums that the database has made. So the inputs are totals wherever a table can be long.

Nothing here repairs anything. What is promised stands in ``core.findings``; the guarantees of one
session are in ``core.audit_sessions``, those of meters in ``core.audit_meters`` and those of records
that came as files in ``core.audit_usage``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import pairwise

from tollkeeper.core.audit_meters import MeterLine, MeterTotals, check_meters, check_transfers
from tollkeeper.core.audit_sessions import NOTHING, LegSums, check_closed, check_open
from tollkeeper.core.findings import GUARANTEES, Finding
from tollkeeper.core.ledger import LEGAL, ON_CREDIT, Account, Code, other_side, wallet_effect
from tollkeeper.core.money import ZERO
from tollkeeper.core.records import Ending, Leg, Outcome, Reply, Session, Wallet
from tollkeeper.core.terms import Meter

__all__ = [
    "GUARANTEES", "NOTHING", "Books", "EntryLine", "Finding", "LegSums", "MessageLine", "PostingKind",
    "WalletTotals", "audit", "check_book", "check_closed", "check_growth", "check_keys", "check_messages",
    "check_open", "check_posting", "check_step", "check_wallet", "leg_sums", "wallet_totals",
]  # fmt: skip

# --- wallets -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class WalletTotals:
    """A wallet's row beside what the other tables add up to for it.

    ``entries``, ``versions`` (distinct ones) and ``version_max`` count its entries;
    ``wrong_balances`` those whose balance is not the one before plus the entry; ``on_credit_sum``
    is the part of ``debited_sum`` that was charged after the fact (``ON_CREDIT``); ``limit_peak``
    is the highest credit limit that was ever in force (None: the present one): what was held under
    a higher limit stays held when the limit falls.
    """

    wallet: Wallet
    credited_sum: Decimal = ZERO
    debited_sum: Decimal = ZERO
    on_credit_sum: Decimal = ZERO
    entries: int = 0
    versions: int = 0
    version_max: int = 0
    wrong_balances: int = 0
    last_balance: Decimal | None = None
    held_sum: Decimal = ZERO
    live_count: int = 0
    limit_peak: Decimal | None = None


def check_wallet(totals: WalletTotals) -> Iterator[Finding]:
    """A wallet against the sums of its entries and of its open sessions' holds (I3, I7, I8)."""
    wallet, subject = totals.wallet, f"wallet {totals.wallet.id}"
    pairs: list[tuple[str, object, object]] = [
        ("I3.credited", wallet.credited, totals.credited_sum),
        ("I3.debited", wallet.debited, totals.debited_sum),
        ("I3.version", wallet.version, totals.entries),
        ("I3.gap", (totals.entries, totals.entries), (totals.versions, totals.version_max)),
        ("I3.balances", 0, totals.wrong_balances),
        ("I8.held", wallet.held, totals.held_sum),
        ("I8.live", wallet.live, totals.live_count),
    ]
    if totals.last_balance is not None:
        pairs.append(("I3.last_balance", wallet.balance, totals.last_balance))
    for code, stands, derived in pairs:
        if stands != derived:
            yield Finding(code, subject, f"stands at {_show(stands)}, adds up to {_show(derived)}")
    for name in ("credited", "debited", "held", "credit_limit", "live"):
        if getattr(wallet, name) < 0:
            yield Finding("I4.negative", subject, f"{name} is {_show(getattr(wallet, name))}")
    peak = max(wallet.credit_limit, totals.limit_peak or ZERO)
    reach = wallet.balance + peak - wallet.held
    if reach < -totals.on_credit_sum:
        yield Finding(
            "I7.overspent",
            subject,
            f"balance {wallet.balance} and limit {peak} do not cover {wallet.held} held, "
            f"and only {totals.on_credit_sum} was charged after the fact",
        )


def check_step(
    before: Wallet, after: Wallet, on_credit: Decimal = ZERO, lowered: Decimal = ZERO
) -> Iterator[Finding]:
    """One committed change of a wallet (I4, I7, I20).

    ``on_credit`` is what was charged after the fact in it, ``lowered`` by how much the credit
    limit fell: only these may take what is available below zero.
    """
    subject = f"wallet {after.id}"
    for name in ("credited", "debited", "version", "stamp"):
        if getattr(after, name) < getattr(before, name):
            yield Finding("I4.shrunk", subject, f"{name} fell to {_show(getattr(after, name))}")
    spent = before.available - after.available
    if after.available < 0 and spent > on_credit + lowered:
        yield Finding(
            "I7.step", subject, f"available fell from {before.available} to {after.available}"
        )
    if before.parked and after.parked and after.held > before.held:
        yield Finding("I20.held", subject, f"held rose to {after.held} while parked")


# --- entries -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class EntryLine:
    """One entry of the journal with the kinds and currencies of its two accounts."""

    code: str
    debit_kind: str
    credit_kind: str
    debit_currency: str
    credit_currency: str
    currency: str
    amount: Decimal
    wallet_id: int
    wallet_version: int
    balance_after: Decimal
    session_id: str | None = None
    leg: int | None = None


@dataclass(frozen=True, slots=True)
class PostingKind:
    """A group of entries that look alike: how many, and the smallest amount among them."""

    code: str
    debit_kind: str
    credit_kind: str
    debit_currency: str
    credit_currency: str
    currency: str
    count: int
    smallest: Decimal


def check_posting(kind: PostingKind) -> Iterator[Finding]:
    """Entries of one kind are legal: code, accounts, one currency, positive amounts (I1, I5)."""
    subject = f"{kind.count} entries of {kind.code} in {kind.currency}"
    pair = LEGAL.get(Code(kind.code)) if kind.code in set(Code) else None
    if pair is None or (pair[0].value, pair[1].value) != (kind.debit_kind, kind.credit_kind):
        yield Finding("I5.pair", subject, f"from {kind.debit_kind} to {kind.credit_kind}")
    if {kind.debit_currency, kind.credit_currency} != {kind.currency}:
        both = f"{kind.debit_currency} and {kind.credit_currency}"
        yield Finding("I1.currency", subject, f"between accounts in {both}")
    if kind.smallest <= 0:
        yield Finding("I1.amount", subject, f"one of {kind.smallest}")


def check_book(currency: str, wallets: Decimal, others: Decimal) -> Iterator[Finding]:
    """All accounts of a currency add up to zero (I1).

    ``wallets`` is the sum of the wallets' balances by their counters, ``others`` that of all other
    accounts by the entries (credits - debits).
    """
    if wallets + others != 0:
        yield Finding("I1.balance", currency, f"wallets {wallets} and other accounts {others}")


def check_growth(before: Sequence[EntryLine], after: Sequence[EntryLine]) -> Iterator[Finding]:
    """A journal read later begins with the journal read before (I2)."""
    if tuple(after[: len(before)]) != tuple(before):
        yield Finding("I2.changed", "journal", f"the first {len(before)} entries are not the same")


# --- sessions ------------------------------------------------------------------------------------


def check_keys(sessions: Iterable[tuple[str, datetime, bool]], days: int) -> Iterator[Finding]:
    """One session a call (I16): ``sessions`` are (key, opened at, open), in any order.

    A switch may use a key again after ``days`` full days, once the session before is closed.
    """
    by_key: dict[str, list[tuple[datetime, bool]]] = {}
    for key, opened_at, live in sessions:
        by_key.setdefault(key, []).append((opened_at, live))
    for key, found in by_key.items():
        found.sort()
        for (one, live), (other, _) in pairwise(found):
            if live or (other.date() - one.date()).days <= days:
                detail = f"opened at {one.isoformat()} and {other.isoformat()}"
                yield Finding("I16.twice", f"session {key}", detail)


@dataclass(frozen=True, slots=True)
class MessageLine:
    """A message that was applied to a session, by the session's version after it."""

    version: int
    message_id: str
    reply: Reply


def check_messages(session: Session, messages: Sequence[MessageLine]) -> Iterator[Finding]:
    """The history of a session: every step has one message and one answer (I10, I14)."""
    subject = f"session {session.key}"
    lines = sorted(messages, key=lambda line: line.version)
    if [line.version for line in lines] != list(range(1, session.version + 1)):
        versions = [line.version for line in lines]
        yield Finding("I14.steps", subject, f"at version {session.version}, messages {versions}")
    repeated = [id_ for id_, n in Counter(line.message_id for line in lines).items() if n > 1]
    if repeated:
        yield Finding("I14.repeated", subject, f"applied more than once: {repeated}")
    if any(line.reply.id != session.id for line in lines):
        yield Finding("I14.other", subject, "an answer is about another session")
    if lines:
        refused = lines[0].reply.outcome is Outcome.REFUSED
        if refused != (session.ending is Ending.REFUSED):
            yield Finding("I10.answer", subject, f"answered {lines[0].reply.outcome} at first")
    grants = [
        line.reply.granted_seconds for line in lines if line.reply.outcome is not Outcome.REFUSED
    ]
    if grants != sorted(grants):
        yield Finding("I10.grant", subject, f"a grant was taken back: {grants}")


# --- a whole book in memory ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Books:
    """Everything at one moment, small enough to be held in lists (tests, the simulator).

    ``meters`` are looked at where they are given: then they are all that the sessions name.
    """

    wallets: Mapping[int, Wallet]
    entries: Sequence[EntryLine]
    sessions: Sequence[Session]
    messages: Mapping[str, Sequence[MessageLine]]
    limit_peaks: Mapping[int, Decimal]
    meters: Mapping[int, Meter] = field(default_factory=dict)


def audit(books: Books, now: datetime, patience: timedelta, key_days: int = 1) -> list[Finding]:
    """All checks over books held in memory."""
    findings: list[Finding] = []
    for wallet in wallet_totals(books):
        findings += check_wallet(wallet)
    for entry in books.entries:
        findings += check_posting(
            PostingKind(
                entry.code, entry.debit_kind, entry.credit_kind, entry.debit_currency,
                entry.credit_currency, entry.currency, 1, entry.amount,
            )
        )  # fmt: skip
    for currency in {wallet.currency for wallet in books.wallets.values()}:
        own = sum((w.balance for w in books.wallets.values() if w.currency == currency), ZERO)
        effects = [
            wallet_effect(Code(e.code), e.amount) for e in books.entries if e.currency == currency
        ]
        findings += check_book(currency, own, -sum(effects, ZERO))
        moved = [
            wallet_effect(Code(e.code), e.amount)
            for e in books.entries
            if e.currency == currency and other_side(Code(e.code)) is Account.TRANSFER
        ]
        findings += check_transfers(currency, -sum(moved, ZERO))
    by_session = leg_sums(books.entries)
    for session in books.sessions:
        if session.open:
            findings += check_open(session, now, patience)
        else:
            findings += check_closed(session, by_session.get(session.id, {}))
        findings += check_messages(session, books.messages.get(session.id, ()))
    if books.meters:
        totals = MeterTotals()
        for session in books.sessions:
            totals.add(session)
        lines = [MeterLine(meter, "", "") for meter in books.meters.values()]
        findings += check_meters(lines, totals.sums)
    findings += check_keys(((s.key, s.opened_at, s.open) for s in books.sessions), key_days)
    return findings


def wallet_totals(books: Books) -> Iterator[WalletTotals]:
    """Add up what belongs to each wallet."""
    entries: dict[int, list[EntryLine]] = {id_: [] for id_ in books.wallets}
    for entry in books.entries:
        entries[entry.wallet_id].append(entry)
    legs: dict[int, list[Leg]] = {id_: [] for id_ in books.wallets}
    for session in books.sessions:
        for leg in session.legs if session.open else ():
            legs[leg.wallet_id].append(leg)
    for id_, wallet in books.wallets.items():
        own = sorted(entries[id_], key=lambda entry: entry.wallet_version)
        effects = [wallet_effect(Code(entry.code), entry.amount) for entry in own]
        balance, wrong = ZERO, 0
        for entry, effect in zip(own, effects, strict=True):
            balance += effect
            wrong += entry.balance_after != balance
        yield WalletTotals(
            wallet,
            credited_sum=sum((effect for effect in effects if effect > 0), ZERO),
            debited_sum=-sum((effect for effect in effects if effect < 0), ZERO),
            on_credit_sum=sum((e.amount for e in own if Code(e.code) in ON_CREDIT), ZERO),
            entries=len(own),
            versions=len({entry.wallet_version for entry in own}),
            version_max=own[-1].wallet_version if own else 0,
            wrong_balances=wrong,
            last_balance=own[-1].balance_after if own else None,
            held_sum=sum((leg.held for leg in legs[id_]), ZERO),
            live_count=len(legs[id_]),
            limit_peak=books.limit_peaks.get(id_),
        )


def leg_sums(entries: Iterable[EntryLine]) -> dict[str, dict[tuple[int, int], LegSums]]:
    """Add up the entries of sessions: by session, then by leg and wallet."""
    amounts: dict[tuple[str, tuple[int, int]], dict[str, list[Decimal]]] = {}
    for entry in entries:
        if entry.session_id is not None and entry.leg is not None:
            place = (entry.session_id, (entry.leg, entry.wallet_id))
            amounts.setdefault(place, {}).setdefault(entry.code, []).append(entry.amount)
    sums: dict[str, dict[tuple[int, int], LegSums]] = {}
    for (session_id, leg), by_code in amounts.items():
        total = {code: sum(listed, ZERO) for code, listed in by_code.items()}
        sums.setdefault(session_id, {})[leg] = LegSums(
            usage=total.get(Code.USAGE, ZERO),
            overrun=total.get(Code.OVERRUN, ZERO),
            late=total.get(Code.LATE, ZERO),
            correction=total.get(Code.CORRECTION, ZERO),
            usage_entries=len(by_code.get(Code.USAGE, ())),
            overrun_entries=len(by_code.get(Code.OVERRUN, ())),
            rebate=total.get(Code.REBATE, ZERO),
            refund=total.get(Code.REFUND, ZERO),
        )
    return sums


def _show(value: object) -> str:
    return str(value)
