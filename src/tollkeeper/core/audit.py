"""The guarantees of the books, stated over plain data.

Each function looks at one kind of record and returns what does not hold. The tests, the simulator
and ``tollkeeper verify`` all use these; they differ only in where the records come from: a list in
memory, or sums that the database has made. So the inputs are totals wherever a table can be long.

Nothing here repairs anything. The guarantees of records that came as files are in
``core.audit_usage``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import pairwise

from tollkeeper.core.ledger import LEGAL, ON_CREDIT, Code, wallet_effect
from tollkeeper.core.money import ZERO
from tollkeeper.core.rating import price, seconds_of
from tollkeeper.core.reasons import Reason
from tollkeeper.core.records import Ending, Leg, Outcome, Reply, Session, State, Wallet

GUARANTEES: dict[str, str] = {
    "I1": "Every entry balances in its currency; money is neither made nor lost.",
    "I2": "Entries are never changed and never removed.",
    "I3": "A wallet's counters are the sums of its entries, whose versions have no gap.",
    "I4": "Counters only grow; a correction is a new entry.",
    "I5": "Only the legal pairs of accounts are posted, each with its code.",
    "I7": "Held and spent never exceed funds and limit, but for usage charged after the fact.",
    "I8": "A hold ends once; what a wallet holds is the sum of its open sessions' holds.",
    "I9": "A grant is never longer than its hold buys.",
    "I10": "A refused session stays refused; a granted one keeps its grant.",
    "I11": "No session is open without a hold, unless its price is zero.",
    "I12": "Every session closes in time without the help of who opened it.",
    "I14": "Each message is applied once; its place in the session's history is its own.",
    "I15": "A charge is the price of the highest usage at the pinned rate, whatever the messages.",
    "I16": "A call is one session and is charged once.",
    "I17": "Times are UTC and in order.",
    "I19": "Each charge is made of its entries and can be derived again.",
    "I20": "A parked wallet takes no new holds.",
    "I21": "Every file balances: each record was rated, matched, a duplicate or quarantined.",
    "I22": "What a batch posted to a wallet is the sum of its records' legs.",
    "I23": "The hourly sums are the sums of the records.",
}
"""What is promised, by number. A finding's code begins with the number that it breaks."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that does not hold: ``code`` such as ``I3.credited``, of what, and the figures."""

    code: str
    subject: str
    detail: str

    @property
    def guarantee(self) -> str:
        """The sentence of :data:`GUARANTEES` that is broken."""
        return GUARANTEES[self.code.partition(".")[0]]


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


@dataclass(frozen=True, slots=True)
class LegSums:
    """The entries of one leg of a session, added up by code; and how many settled its hold."""

    usage: Decimal = ZERO
    overrun: Decimal = ZERO
    late: Decimal = ZERO
    correction: Decimal = ZERO
    usage_entries: int = 0
    overrun_entries: int = 0

    @property
    def total(self) -> Decimal:
        """What the leg was charged altogether."""
        return self.usage + self.overrun + self.late - self.correction


NOTHING = LegSums()


def check_open(session: Session, now: datetime, patience: timedelta) -> Iterator[Finding]:
    """A session that is not closed (I9, I11, I12, I17).

    ``patience`` is how long after its end a session may wait for the job that closes it.
    """
    subject = f"session {session.key}"
    yield from _check_times(session, subject)
    if session.state is State.CLOSED or session.ending is not Ending.NONE:
        yield Finding("I8.ended", subject, f"live, yet {session.state} {session.ending}")
    if not session.legs or session.granted_seconds <= 0:
        yield Finding("I11.nothing", subject, "open without a leg or without a grant")
    if session.granted_seconds > session.max_seconds:
        yield Finding("I9.longest", subject, f"{session.granted_seconds} s granted")
    for number, leg in enumerate(session.legs):
        cost = price(leg.pin.tariff, session.granted_seconds)
        if leg.held < cost:
            code = "I9.grant" if leg.held else "I11.hold"
            detail = f"leg {number} holds {leg.held}, {session.granted_seconds} s cost {cost}"
            yield Finding(code, subject, detail)
        if leg.charged:
            yield Finding("I15.early", subject, f"leg {number} is charged while open")
    if now > session.expires_at + patience:
        yield Finding("I12.overdue", subject, f"ended at {session.expires_at.isoformat()}")


def check_closed(session: Session, sums: Mapping[tuple[int, int], LegSums]) -> Iterator[Finding]:
    """A closed session against its entries (I8, I10, I15, I19).

    ``sums`` are its entries by leg and wallet.
    """
    subject = f"session {session.key}"
    yield from _check_times(session, subject)
    if session.state is not State.CLOSED or session.ending is Ending.NONE:
        yield Finding("I8.open", subject, f"closed, yet {session.state} {session.ending}")
    refused = session.ending is Ending.REFUSED
    if refused and (session.reason is Reason.NONE or sums or session.granted_seconds):
        yield Finding("I10.refused", subject, f"refused, yet {len(sums)} legs with entries")
    if session.assumed_ms and session.ending is not Ending.EXPIRED:
        yield Finding("I15.assumed", subject, f"{session.assumed_ms} ms assumed")
    known = {(number, leg.wallet_id) for number, leg in enumerate(session.legs)}
    for stray in sorted(set(sums) - known):
        yield Finding("I19.stray", subject, f"entries of leg {stray[0]} on wallet {stray[1]}")
    used = seconds_of(max(session.used_ms, session.assumed_ms))
    for number, leg in enumerate(session.legs):
        own = sums.get((number, leg.wallet_id), NOTHING)
        charge = ZERO if refused else price(leg.pin.tariff, used)
        hold = ZERO if refused else price(leg.pin.tariff, session.granted_seconds)
        yield from _check_leg(f"{subject} leg {number}", leg, own, charge, hold)


def _check_leg(
    subject: str, leg: Leg, own: LegSums, charge: Decimal, hold: Decimal
) -> Iterator[Finding]:
    if leg.held:
        yield Finding("I8.held", subject, f"closed, yet {leg.held} is held")
    if own.usage_entries > 1 or own.overrun_entries > 1:
        settled = max(own.usage_entries, own.overrun_entries)
        yield Finding("I8.settled", subject, f"settled {settled} times")
    if own.usage > hold or (own.overrun and own.usage != hold):
        detail = f"held {hold}, settled {own.usage} and overrun {own.overrun}"
        yield Finding("I8.parts", subject, detail)
    if leg.charged != charge:
        yield Finding("I15.charge", subject, f"charged {leg.charged}, the rate gives {charge}")
    if own.total != leg.charged:
        yield Finding("I19.entries", subject, f"charged {leg.charged}, entries make {own.total}")


def _check_times(session: Session, subject: str) -> Iterator[Finding]:
    times = [session.opened_at, session.expires_at, session.answered_at, session.closed_at]
    if any(t is not None and t.utcoffset() != timedelta(0) for t in times):
        yield Finding("I17.zone", subject, "a time is not UTC")
    if (session.closed_at is None) != (session.state is not State.CLOSED):
        yield Finding("I17.closed_at", subject, f"{session.state}, closed at {session.closed_at}")


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
    """Everything at one moment, small enough to be held in lists (tests, the simulator)."""

    wallets: Mapping[int, Wallet]
    entries: Sequence[EntryLine]
    sessions: Sequence[Session]
    messages: Mapping[str, Sequence[MessageLine]]
    limit_peaks: Mapping[int, Decimal]


def audit(books: Books, now: datetime, patience: timedelta, key_days: int = 1) -> list[Finding]:
    """All checks over books held in memory."""
    findings: list[Finding] = []
    for totals in wallet_totals(books):
        findings += check_wallet(totals)
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
    by_session = leg_sums(books.entries)
    for session in books.sessions:
        if session.open:
            findings += check_open(session, now, patience)
        else:
            findings += check_closed(session, by_session.get(session.id, {}))
        findings += check_messages(session, books.messages.get(session.id, ()))
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
        )
    return sums


def _show(value: object) -> str:
    return str(value)
