"""A batch as the parameters of ``charge_batch_v2``: array literals and JSON documents."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from decimal import Decimal

import msgspec

from tollkeeper.core.batch import Batch, Change, Written
from tollkeeper.core.ledger import LEGAL, Account, Posting, other_side
from tollkeeper.core.money import EXACT
from tollkeeper.core.records import Session

_encode = msgspec.json.Encoder().encode
_NO_METERS = ["{}"] * 6

Contra = tuple[Account, str, str]
"""The account on the other side of a wallet's entry: its kind, currency and name."""


def contra(session: Session, posting: Posting) -> Contra:
    """Where the money of a session's entry comes from or goes to: an account for each service."""
    return other_side(posting.code), session.legs[posting.leg].pin.currency, session.service


def _numbers(values: Iterable[object]) -> str:
    """An array literal of values that need no quotes (numbers, dates, uuids, true/false)."""
    return "{" + ",".join(map(str, values)) + "}"


def _texts(values: Iterable[str]) -> str:
    """An array literal of arbitrary texts."""
    quoted = [value.replace("\\", "\\\\").replace('"', '\\"') for value in values]
    return '{"' + '","'.join(quoted) + '"}' if quoted else "{}"


def _documents(values: Iterable[bytes]) -> str:
    """A JSON array of documents: unlike texts in an array literal they need no quoting."""
    return (b"[" + b",".join(values) + b"]").decode()


def _times(values: Iterable[datetime]) -> str:
    return "{" + ",".join([f'"{value.isoformat()}"' for value in values]) + "}"


def parameters(batch: Batch, accounts: dict[Contra, int]) -> list[str]:
    """All parameters of ``charge_batch_v2``, in its order.

    ``accounts`` has the numbers of all accounts on the other side of the batch's entries.
    """
    by_change: dict[Change, list[Written]] = {change: [] for change in Change}
    for written in batch.written:
        by_change[written.change].append(written)
    closed = [*by_change[Change.CLOSE], *by_change[Change.REFUSE], *by_change[Change.EVENT]]
    return [
        batch.now.isoformat(),
        *_wallet_arrays(batch),
        *_open_arrays([w.decision.session for w in by_change[Change.OPEN]]),
        *_change_arrays([w.decision.session for w in by_change[Change.UPDATE]]),
        *_close_arrays(closed),
        *_late_arrays([w.decision.session for w in by_change[Change.LATE]]),
        *_message_arrays(batch.written),
        *_entry_arrays(batch, accounts),
        *_event_arrays(batch.written),
        *(_meter_arrays(batch) if batch.meters_after else _NO_METERS),
    ]


def _wallet_arrays(batch: Batch) -> list[str]:
    # Sorted, because the order of the locks is the order of the array.
    pairs = [(batch.before[id_], batch.after[id_]) for id_ in sorted(batch.after)]
    return [
        _numbers(a.id for _, a in pairs),
        _numbers(b.stamp for b, _ in pairs),
        _numbers(a.credited - b.credited for b, a in pairs),
        _numbers(a.debited - b.debited for b, a in pairs),
        _numbers(a.held - b.held for b, a in pairs),
        _numbers(a.live - b.live for b, a in pairs),
        _numbers(a.cps_second for _, a in pairs),
        _numbers(a.cps_count for _, a in pairs),
        _numbers(a.version - b.version for b, a in pairs),
        _numbers(a.id in batch.guarded for _, a in pairs),
    ]


def _meter_arrays(batch: Batch) -> list[str]:
    # Sorted like the wallets, and for the same reason.
    pairs = [
        (batch.meters_before[id_], batch.meters_after[id_]) for id_ in sorted(batch.meters_after)
    ]
    return [
        _numbers(a.id for _, a in pairs),
        _numbers(b.stamp for b, _ in pairs),
        _numbers(a.used - b.used for b, a in pairs),
        _numbers(a.held - b.held for b, a in pairs),
        _numbers(EXACT.subtract(a.base, b.base) for b, a in pairs),
        _numbers(a.id in batch.meters_guarded for _, a in pairs),
    ]


def _open_arrays(sessions: list[Session]) -> list[str]:
    return [
        _numbers(s.id for s in sessions),
        _texts(s.key for s in sessions),
        _numbers(s.party_id for s in sessions),
        _numbers(s.opened_at.date() for s in sessions),
        _times(s.expires_at for s in sessions),
        _documents(_encode(s) for s in sessions),
    ]


def _change_arrays(sessions: list[Session]) -> list[str]:
    return [
        _texts(s.key for s in sessions),
        _numbers(s.version - 1 for s in sessions),
        _times(s.expires_at for s in sessions),
        _documents(_encode(s) for s in sessions),
    ]


def _charge(session: Session) -> Decimal:
    return session.legs[0].charged if session.legs else Decimal(0)


def _close_arrays(written: list[Written]) -> list[str]:
    sessions = [w.decision.session for w in written]
    return [
        _numbers(s.id for s in sessions),
        _numbers(s.version - 1 for s in sessions),
        _texts(s.key for s in sessions),
        _numbers(s.party_id for s in sessions),
        _numbers(s.opened_at.date() for s in sessions),
        _numbers(s.ending.value for s in sessions),
        _numbers(_charge(s) for s in sessions),
        _documents(_encode(s) for s in sessions),
    ]


def _late_arrays(sessions: list[Session]) -> list[str]:
    return [
        _numbers(s.id for s in sessions),
        _numbers(s.opened_at.date() for s in sessions),
        _numbers(s.version - 1 for s in sessions),
        _numbers(_charge(s) for s in sessions),
        _documents(_encode(s) for s in sessions),
    ]


def _message_arrays(written: list[Written]) -> list[str]:
    sessions = [w.decision.session for w in written]
    return [
        _numbers(s.opened_at.date() for s in sessions),
        _numbers(s.id for s in sessions),
        _numbers(s.version for s in sessions),
        _texts(w.message_id for w in written),
        _numbers(w.digest for w in written),
        _documents(w.request for w in written),
        _documents(_encode(w.decision.reply) for w in written),
    ]


def _entry_arrays(batch: Batch, accounts: dict[Contra, int]) -> list[str]:
    """Entries in the order of the decisions: each carries its wallet's next version and balance."""
    versions = {id_: wallet.version for id_, wallet in batch.before.items()}
    balances = {id_: wallet.balance for id_, wallet in batch.before.items()}
    columns: tuple[list[object], ...] = ([], [], [], [], [], [], [], [], [], [])
    for written in batch.written:
        session = written.decision.session
        for posting in written.decision.postings:
            wallet = posting.wallet_id
            other = accounts[contra(session, posting)]
            from_wallet = LEGAL[posting.code][0] is Account.WALLET
            versions[wallet] += 1
            balances[wallet] += -posting.amount if from_wallet else posting.amount
            debit, credit = (wallet, other) if from_wallet else (other, wallet)
            currency = session.legs[posting.leg].pin.currency
            row = (wallet, debit, credit, posting.code.value, posting.amount, currency)
            rest = (versions[wallet], balances[wallet], session.id, posting.leg)
            for column, value in zip(columns, (*row, *rest), strict=True):
                column.append(value)
    return [_numbers(column) for column in columns]


def _event_arrays(written: list[Written]) -> list[str]:
    events = [(event, w.decision.session) for w in written for event in w.decision.events]
    payloads = [
        {"key": session.key, "party_id": session.party_id, "id": session.id}
        for _, session in events
    ]
    return [
        _texts(event.kind for event, _ in events),
        _numbers(session.id for _, session in events),
        _texts(event.detail for event, _ in events),
        _documents(_encode(payload) for payload in payloads),
    ]
