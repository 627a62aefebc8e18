"""The store of the charging lane: reads sessions and wallets, writes batches of decisions.

One connection of its own, one server-side function for a whole batch, parameters as array
literals so that one prepared statement serves every batch.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from datetime import date, datetime
from decimal import Decimal

import msgspec
import psycopg
from psycopg import AsyncConnection, AsyncRawCursor
from psycopg.rows import DictRow, dict_row

from tollkeeper.core.batch import (
    Answered,
    Batch,
    Change,
    GuardRefused,
    Known,
    StaleRead,
    StoreAway,
    Written,
)
from tollkeeper.core.ledger import LEGAL, Account, Posting
from tollkeeper.core.records import Reply, Session, Wallet
from tollkeeper.store.db import OPTIONS, queries

_SQL = queries("charging")
_encode = msgspec.json.Encoder().encode
_session_decoder = msgspec.json.Decoder(Session)
_reply_decoder = msgspec.json.Decoder(Reply)

# Answers of the database that mean "decide again": ours, and what races and deadlocks give.
_STALE = frozenset({"TK001", "TK002", "23505", "40001", "40P01"})
STATEMENT_SECONDS = 5.0
_LANE_OPTIONS = (
    f"{OPTIONS} -c statement_timeout=5s -c lock_timeout=3s -c plan_cache_mode=force_generic_plan "
    # Everything here is found by key. Plans are made once, maybe while the tables are empty and a
    # scan looks cheap; these keep them on the indexes when the tables have grown.
    "-c enable_seqscan=off -c enable_mergejoin=off -c jit=off"
)


class PostgresChargingStore:
    """The lane's own connection. Not for concurrent use: the lane runs one batch at a time."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._connection: AsyncConnection[DictRow] | None = None
        self._accounts: dict[tuple[Account, str, str], int] = {}
        self._encoded: tuple[Batch, list[str]] | None = None

    async def connect(self) -> AsyncConnection[DictRow]:
        """Return the open connection, making it first where there is none.

        Raises:
            StoreAway: the database cannot be reached.
        """
        connection = self._connection
        if connection is not None and not connection.closed:
            return connection
        try:
            self._connection = await AsyncConnection.connect(
                self._url,
                autocommit=True,
                prepare_threshold=1,
                row_factory=dict_row,
                connect_timeout=5,
                options=_LANE_OPTIONS,
            )
        except psycopg.OperationalError as error:
            raise StoreAway("the database cannot be reached") from error
        return self._connection

    async def close(self) -> None:
        """Drop the connection; the next call makes a new one."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()

    async def load(
        self, keys: Iterable[str], since: date, *, everywhere: Iterable[str] = ()
    ) -> dict[str, Known]:
        """Read sessions by key: live, or opened from ``since`` on; ``everywhere`` looks in all partitions.

        Raises:
            StoreAway: the database does not answer.
        """
        wanted, old = list(keys), set(everywhere)
        found: dict[str, tuple[date, Session]] = {}
        async with self._guarded() as connection:
            for row in await (
                await connection.execute(_SQL["live_sessions"], (wanted,))
            ).fetchall():
                found[row["key"]] = (row["opened_day"], _session_decoder.decode(row["body"]))
            missing = [key for key in wanted if key not in found]
            if missing:
                await self._load_closed(connection, missing, since, found)
                missing = [key for key in missing if key not in found and key in old]
            if missing:
                await self._load_closed(connection, missing, date(2000, 1, 1), found)
            return await self._with_messages(connection, found)

    async def _load_closed(
        self,
        connection: AsyncConnection[DictRow],
        keys: list[str],
        since: date,
        found: dict[str, tuple[date, Session]],
    ) -> None:
        # The newest of a key wins: rows come in order of their day.
        for row in await (
            await connection.execute(_SQL["closed_sessions"], (keys, since))
        ).fetchall():
            found[row["key"]] = (row["opened_day"], _session_decoder.decode(row["body"]))

    async def _with_messages(
        self, connection: AsyncConnection[DictRow], found: dict[str, tuple[date, Session]]
    ) -> dict[str, Known]:
        known = {session.id: Known(session, {}) for _, session in found.values()}
        if known:
            days = [day for day, _ in found.values()]
            cursor = await connection.execute(
                _SQL["messages"], (days, [s.id for _, s in found.values()])
            )
            for row in await cursor.fetchall():
                answered = Answered(row["digest"], _reply_decoder.decode(row["reply"]))
                known[row["session_id"]].messages[row["message_id"]] = answered
        return {key: known[session.id] for key, (_, session) in found.items()}

    async def wallets(self, ids: Sequence[int]) -> dict[int, Wallet]:
        """Read wallets by id, without locks."""
        async with self._guarded() as connection:
            return await _read_wallets(connection, _SQL["wallets"], ids)

    def encode(self, batch: Batch) -> None:
        """Make the parameters of a batch that will be applied next."""
        if batch.written and not self._unknown_accounts(batch):
            self._encoded = (batch, _parameters(batch, self._accounts))

    async def apply(self, batch: Batch) -> None:
        """Write a batch in one durable transaction.

        Raises:
            StaleRead: a wallet or session has changed since; nothing was written.
            StoreAway: the database does not answer; whether it was written is unknown.
        """
        async with self._guarded() as connection:
            await self.apply_within(connection, batch)

    @asynccontextmanager
    async def locked(self, ids: Sequence[int]) -> AsyncIterator[LockedUnit]:
        """Open a transaction that holds the wallets' rows; it commits when the block ends."""
        async with self._guarded() as connection:
            try:
                async with connection.transaction():
                    wallets = await _read_wallets(connection, _SQL["wallets_locked"], ids)
                    yield LockedUnit(wallets, self, connection)
            except BaseException:
                # An account that this transaction created is undone with it.
                self._accounts.clear()
                raise

    async def apply_within(self, connection: AsyncConnection[DictRow], batch: Batch) -> None:
        """Write a batch in whatever transaction the connection is in."""
        encoded, self._encoded = self._encoded, None
        if encoded is not None and encoded[0] is batch:
            parameters = encoded[1]
        else:
            for name in self._unknown_accounts(batch):
                await self._know_account(connection, name)
            parameters = _parameters(batch, self._accounts)
        # A raw cursor sends the statement as it stands: nothing to translate on each batch.
        async with AsyncRawCursor(connection) as cursor:
            await cursor.execute(_SQL["charge_batch"], parameters, prepare=True)

    def _unknown_accounts(self, batch: Batch) -> set[tuple[Account, str, str]]:
        """Accounts on the other side of the batch's entries whose numbers are not known here."""
        names = {
            _contra(written.decision.session, posting)
            for written in batch.written
            for posting in written.decision.postings
        }
        return names - self._accounts.keys()

    async def _know_account(
        self, connection: AsyncConnection[DictRow], name: tuple[Account, str, str]
    ) -> None:
        kind, currency, service = name
        cursor = await connection.execute(_SQL["account"], (kind.value, currency, service))
        row = await cursor.fetchone()
        assert row is not None
        self._accounts[name] = row["id"]

    @asynccontextmanager
    async def _guarded(self) -> AsyncIterator[AsyncConnection[DictRow]]:
        """The connection, with the database's complaints turned into the lane's three answers."""
        connection = await self.connect()
        try:
            async with asyncio.timeout(STATEMENT_SECONDS * 2):
                yield connection
        except psycopg.Error as error:
            if error.sqlstate == "TK003":
                raise GuardRefused(str(error)) from error
            if error.sqlstate in _STALE:
                raise StaleRead(str(error)) from error
            if connection.closed or isinstance(error, psycopg.OperationalError):
                self._connection = None
                await connection.close()
                raise StoreAway(str(error)) from error
            raise
        except TimeoutError as error:
            self._connection = None
            await connection.close()
            raise StoreAway("the database does not answer in time") from error
        except asyncio.CancelledError:
            # A connection left in the middle of a statement is of no further use.
            self._connection = None
            await connection.close()
            raise


class LockedUnit:
    """Wallets held by row locks, and the one batch that is decided on them."""

    def __init__(
        self,
        wallets: dict[int, Wallet],
        store: PostgresChargingStore,
        connection: AsyncConnection[DictRow],
    ) -> None:
        self.wallets = wallets
        self._store = store
        self._connection = connection

    async def apply(self, batch: Batch) -> None:
        """Write the batch within the transaction that holds the wallets."""
        await self._store.apply_within(self._connection, batch)


async def _read_wallets(
    connection: AsyncConnection[DictRow], sql: str, ids: Sequence[int]
) -> dict[int, Wallet]:
    rows = await (await connection.execute(sql, (list(ids),), prepare=True)).fetchall()
    return {row["id"]: Wallet(**row) for row in rows}


def _contra(session: Session, posting: Posting) -> tuple[Account, str, str]:
    """The account on the other side of a wallet's entry: its kind, currency and name."""
    debit, credit = LEGAL[posting.code]
    kind = credit if debit is Account.WALLET else debit
    return kind, session.legs[posting.leg].pin.currency, session.service


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


def _parameters(batch: Batch, accounts: dict[tuple[Account, str, str], int]) -> list[str]:
    """All parameters of ``charge_batch_v1``, in its order."""
    by_change: dict[Change, list[Written]] = {change: [] for change in Change}
    for written in batch.written:
        by_change[written.change].append(written)
    closed = [*by_change[Change.CLOSE], *by_change[Change.REFUSE]]
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


def _entry_arrays(batch: Batch, accounts: dict[tuple[Account, str, str], int]) -> list[str]:
    """Entries in the order of the decisions: each carries its wallet's next version and balance."""
    versions = {id_: wallet.version for id_, wallet in batch.before.items()}
    balances = {id_: wallet.balance for id_, wallet in batch.before.items()}
    columns: tuple[list[object], ...] = ([], [], [], [], [], [], [], [], [], [])
    for written in batch.written:
        session = written.decision.session
        for posting in written.decision.postings:
            wallet = posting.wallet_id
            contra = accounts[_contra(session, posting)]
            from_wallet = LEGAL[posting.code][0] is Account.WALLET
            versions[wallet] += 1
            balances[wallet] += -posting.amount if from_wallet else posting.amount
            debit, credit = (wallet, contra) if from_wallet else (contra, wallet)
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
