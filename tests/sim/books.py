"""The tables of the charging lane in memory, with the meaning of ``charge_batch_v2``.

One object stands for one database. It is synchronous: what ``apply`` does happens at once or not
at all. Sessions, replies and requests are kept as JSON, as in PostgreSQL.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from decimal import Decimal

import msgspec

from tollkeeper.core.audit import Books, EntryLine, MessageLine
from tollkeeper.core.batch import Answered, Batch, Change, GuardRefused, Known, StaleRead
from tollkeeper.core.ledger import LEGAL, ON_CREDIT, Account, Code, wallet_effect
from tollkeeper.core.money import EXACT
from tollkeeper.core.records import Event, Reply, Session, Wallet
from tollkeeper.core.terms import Meter

_encode = msgspec.json.Encoder().encode
_session = msgspec.json.Decoder(Session).decode
_reply = msgspec.json.Decoder(Reply).decode

AT_ONCE = (Change.REFUSE, Change.EVENT)
"""What opens and closes a session in one message."""

Observer = Callable[[Wallet, Wallet, Decimal, Decimal], None]
"""Called with each wallet before and after a change, what was on credit, how far the limit fell."""


@dataclass
class LiveRow:
    """A row of ``live_session``."""

    id: str
    opened_day: date
    expires_at: datetime
    version: int
    body: bytes


@dataclass
class ClosedRow:
    """A row of ``closed_session``."""

    key: str
    charge: Decimal
    version: int
    body: bytes


@dataclass
class MessageRow:
    """A row of ``session_message``."""

    message_id: str
    digest: str
    request: bytes
    reply: bytes


@dataclass
class OutboxRow:
    """A row of ``outbox``."""

    event: Event
    key: str
    done: bool = False


@dataclass
class MemoryBooks:
    """The tables. ``observe`` sees every change of a wallet as it is committed."""

    wallets: dict[int, Wallet] = field(default_factory=dict)
    meters: dict[int, Meter] = field(default_factory=dict)
    live: dict[str, LiveRow] = field(default_factory=dict)
    closed: dict[tuple[date, str], ClosedRow] = field(default_factory=dict)
    messages: dict[tuple[date, str], dict[int, MessageRow]] = field(default_factory=dict)
    entries: list[EntryLine] = field(default_factory=list)
    outbox: list[OutboxRow] = field(default_factory=list)
    limit_peaks: dict[int, Decimal] = field(default_factory=dict)
    observe: Observer | None = None
    _days: dict[str, list[tuple[date, str]]] = field(default_factory=dict)
    _entry_keys: set[tuple[date, int, int]] = field(default_factory=set)

    # --- what the operator does to wallets ---------------------------------------------------

    def add_wallet(self, wallet: Wallet) -> None:
        """Make an empty wallet."""
        self.wallets[wallet.id] = wallet
        self.limit_peaks[wallet.id] = wallet.credit_limit

    def top_up(self, wallet_id: int, amount: Decimal, now: datetime, code: Code) -> None:
        """Post money received, paid back or adjusted."""
        before = self.wallets[wallet_id]
        effect = wallet_effect(code, amount)
        if effect < 0 and before.available < amount:
            raise ValueError("what is available does not cover it")
        debit, credit = LEGAL[code]
        entry = EntryLine(
            code.value, debit.value, credit.value, before.currency, before.currency,
            before.currency, amount, wallet_id, before.version + 1, before.balance + effect,
        )  # fmt: skip
        self._post(now.date(), entry)
        name, total = ("credited", before.credited) if effect > 0 else ("debited", before.debited)
        self.change_wallet(wallet_id, **{name: total + amount, "version": before.version + 1})

    def change_wallet(self, wallet_id: int, **values: object) -> None:
        """Change a wallet's row, as anything but the lane would: the stamp tells of it."""
        before = self.wallets[wallet_id]
        after = msgspec.structs.replace(before, stamp=before.stamp + 1, **values)
        self.limit_peaks[wallet_id] = max(self.limit_peaks[wallet_id], after.credit_limit)
        self.wallets[wallet_id] = after
        if self.observe is not None:
            self.observe(before, after, Decimal(0), before.credit_limit - after.credit_limit)

    def change_meter(self, meter_id: int, **values: object) -> None:
        """Change a meter's row, as anything but the lane would."""
        before = self.meters[meter_id]
        self.meters[meter_id] = msgspec.structs.replace(before, stamp=before.stamp + 1, **values)

    # --- what the lane reads -----------------------------------------------------------------

    def load(self, keys: Iterable[str], since: date, everywhere: Iterable[str]) -> dict[str, Known]:
        """Sessions by key: the live one, or the newest closed one of the days looked at."""
        old = set(everywhere)
        found: dict[str, Known] = {}
        for key in keys:
            row = self.live.get(key)
            if row is not None:
                found[key] = self._known(row.opened_day, _session(row.body))
                continue
            days = sorted(self._days.get(key, ()))
            if days and (days[-1][0] >= since or key in old):
                found[key] = self._known(days[-1][0], _session(self.closed[days[-1]].body))
        return found

    def _known(self, day: date, session: Session) -> Known:
        rows = self.messages.get((day, session.id), {})
        return Known(
            session,
            {row.message_id: Answered(row.digest, _reply(row.reply)) for row in rows.values()},
        )

    def due(self, now: datetime, limit: int = 100) -> list[str]:
        """Keys of live sessions whose time is over, the longest overdue first."""
        over = [(row.expires_at, key) for key, row in self.live.items() if row.expires_at <= now]
        return [key for _, key in sorted(over)[:limit]]

    # --- what the lane writes ----------------------------------------------------------------

    def apply(self, batch: Batch) -> None:
        """Write a batch, all of it or nothing.

        Raises:
            StaleRead: a wallet, meter or session is not what the decisions were made on.
            GuardRefused: holds beyond the money of a wallet or the cap of a meter.
        """
        wallets, meters = self.check(batch)
        by_change = _by_change(batch)
        self._write_sessions(by_change)
        for written in batch.written:
            session = written.decision.session
            rows = self.messages.setdefault((session.opened_at.date(), session.id), {})
            rows[session.version] = MessageRow(
                written.message_id, written.digest, written.request, _encode(written.decision.reply)
            )
            self.outbox += [OutboxRow(event, session.key) for event in written.decision.events]
        on_credit = self._write_entries(batch)
        for id_, after in wallets.items():
            before, self.wallets[id_] = self.wallets[id_], after
            if self.observe is not None:
                self.observe(before, after, on_credit.get(id_, Decimal(0)), Decimal(0))
        self.meters.update(meters)

    def check(self, batch: Batch) -> tuple[dict[int, Wallet], dict[int, Meter]]:
        """Tell whether a batch can be written, and how wallets and meters would then stand; see apply."""
        self._check_wallets(batch)
        self._check_meters(batch)
        self._check_sessions(batch, _by_change(batch))
        return self._changed_wallets(batch), self._changed_meters(batch)

    def _check_wallets(self, batch: Batch) -> None:
        for id_ in batch.after:
            stands = self.wallets.get(id_)
            if stands is None or stands.stamp != batch.before[id_].stamp:
                raise StaleRead("a wallet has changed")

    def _check_meters(self, batch: Batch) -> None:
        for id_ in batch.meters_after:
            meter = self.meters.get(id_)
            if meter is None or meter.stamp != batch.meters_before[id_].stamp:
                raise StaleRead("a meter has changed")

    def _check_sessions(self, batch: Batch, by_change: dict[Change, list[Session]]) -> None:
        since = batch.now.date() - timedelta(days=1)
        opened: set[str] = set()
        for session in _of(by_change, Change.OPEN, *AT_ONCE):
            recent = any(day >= since for day, _ in self._days.get(session.key, ()))
            if session.key in self.live or session.key in opened or recent:
                raise StaleRead("a session exists already")
            opened.add(session.key)
        for session in _of(by_change, Change.UPDATE, Change.CLOSE):
            row = self.live.get(session.key)
            if row is None or row.version != session.version - 1:
                raise StaleRead("a session has changed")
        for session in _of(by_change, Change.CLOSE, *AT_ONCE):
            same = [id_ for day, id_ in self._days.get(session.key, ()) if day == _day(session)]
            if same:
                raise StaleRead("a closed session of this key and day exists")
        for session in by_change[Change.LATE]:
            closed = self.closed.get((_day(session), session.id))
            if closed is None or closed.version != session.version - 1:
                raise StaleRead("a closed session has changed")
        for written in batch.written:
            session = written.decision.session
            if session.version in self.messages.get((_day(session), session.id), {}):
                raise StaleRead("a message of this version exists")

    def _changed_wallets(self, batch: Batch) -> dict[int, Wallet]:
        changed = {}
        for id_, after in batch.after.items():
            seen, stands = batch.before[id_], self.wallets[id_]
            wallet = msgspec.structs.replace(
                stands,
                credited=stands.credited + after.credited - seen.credited,
                debited=stands.debited + after.debited - seen.debited,
                held=stands.held + after.held - seen.held,
                live=stands.live + after.live - seen.live,
                cps_second=after.cps_second,
                cps_count=after.cps_count,
                version=stands.version + after.version - seen.version,
                stamp=stands.stamp + 1,
            )
            if min(wallet.credited, wallet.debited, wallet.held, wallet.live) < 0:
                raise AssertionError(f"the database's own checks refuse {wallet}")
            if id_ in batch.guarded and wallet.available < 0:
                raise GuardRefused("holds beyond the money of a wallet")
            changed[id_] = wallet
        return changed

    def _changed_meters(self, batch: Batch) -> dict[int, Meter]:
        changed = {}
        for id_, after in batch.meters_after.items():
            seen, stands = batch.meters_before[id_], self.meters[id_]
            meter = msgspec.structs.replace(
                stands,
                used=stands.used + after.used - seen.used,
                held=stands.held + after.held - seen.held,
                base=EXACT.add(stands.base, EXACT.subtract(after.base, seen.base)),
                stamp=stands.stamp + 1,
            )
            if meter.held < 0:
                raise AssertionError(f"the database's own checks refuse {meter}")
            if id_ in batch.meters_guarded and meter.left is not None and meter.left < 0:
                raise GuardRefused("more on a meter than its cap")
            changed[id_] = meter
        return changed

    def _write_sessions(self, by_change: dict[Change, list[Session]]) -> None:
        for session in _of(by_change, Change.OPEN, Change.UPDATE):
            self.live[session.key] = LiveRow(
                session.id, _day(session), session.expires_at, session.version, _encode(session)
            )
        for session in by_change[Change.CLOSE]:
            del self.live[session.key]
        for change in (Change.CLOSE, *AT_ONCE, Change.LATE):
            for session in by_change[change]:
                charge = session.legs[0].charged if session.legs else Decimal(0)
                place = (_day(session), session.id)
                self.closed[place] = ClosedRow(
                    session.key, charge, session.version, _encode(session)
                )
                if change is not Change.LATE:
                    self._days.setdefault(session.key, []).append(place)

    def _write_entries(self, batch: Batch) -> dict[int, Decimal]:
        """Write the entries in the order of the decisions; return what was on credit by wallet."""
        versions = {id_: wallet.version for id_, wallet in batch.before.items()}
        balances = {id_: wallet.balance for id_, wallet in batch.before.items()}
        on_credit: dict[int, Decimal] = {}
        for written in batch.written:
            session = written.decision.session
            for posting in written.decision.postings:
                id_, code = posting.wallet_id, posting.code
                versions[id_] += 1
                balances[id_] += wallet_effect(code, posting.amount)
                debit, credit = LEGAL[code]
                contra = session.legs[posting.leg].pin.currency
                own = self.wallets[id_].currency
                both = (own, contra) if debit is Account.WALLET else (contra, own)
                self._post(
                    batch.now.date(),
                    EntryLine(
                        code.value, debit.value, credit.value, *both, contra, posting.amount,
                        id_, versions[id_], balances[id_], session.id, posting.leg,
                    ),
                )  # fmt: skip
                if code in ON_CREDIT:
                    on_credit[id_] = on_credit.get(id_, Decimal(0)) + posting.amount
        return on_credit

    def _post(self, day: date, entry: EntryLine) -> None:
        key = (day, entry.wallet_id, entry.wallet_version)
        if entry.amount <= 0 or key in self._entry_keys:
            raise AssertionError(f"the database's own checks refuse {entry}")
        self._entry_keys.add(key)
        self.entries.append(entry)

    # --- what the auditor reads --------------------------------------------------------------

    def sessions(self) -> list[Session]:
        """All sessions, live and closed."""
        rows = [*self.live.values(), *self.closed.values()]
        return [_session(row.body) for row in rows]

    def session(self, key: str) -> Session | None:
        """The live session of a key, or the newest closed one."""
        known = self.load([key], date.min, [key]).get(key)
        return known.session if known is not None else None

    def snapshot(self) -> Books:
        """Everything as the audit wants it."""
        return Books(
            dict(self.wallets),
            tuple(self.entries),
            self.sessions(),
            {
                session_id: [
                    MessageLine(version, row.message_id, _reply(row.reply))
                    for version, row in rows.items()
                ]
                for (_, session_id), rows in self.messages.items()
            },
            dict(self.limit_peaks),
            dict(self.meters),
        )


def _by_change(batch: Batch) -> dict[Change, list[Session]]:
    by_change: dict[Change, list[Session]] = {change: [] for change in Change}
    for written in batch.written:
        by_change[written.change].append(written.decision.session)
    return by_change


def _of(by_change: dict[Change, list[Session]], *changes: Change) -> list[Session]:
    return [session for change in changes for session in by_change[change]]


def _day(session: Session) -> date:
    return session.opened_at.date()
