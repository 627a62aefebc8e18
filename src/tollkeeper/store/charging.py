"""The store of the charging lane: reads sessions, wallets and meters, writes batches of decisions.

One connection of its own, one server-side function for a whole batch, parameters as array
literals so that one prepared statement serves every batch.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from datetime import date

import msgspec
import psycopg
from psycopg import AsyncConnection, AsyncRawCursor
from psycopg.rows import DictRow, dict_row

from tollkeeper.core.batch import (
    Answered,
    Batch,
    GuardRefused,
    Known,
    StaleRead,
    StoreAway,
)
from tollkeeper.core.records import Reply, Session, Wallet
from tollkeeper.core.terms import Meter
from tollkeeper.store.charging_arrays import Contra, contra, parameters
from tollkeeper.store.db import OPTIONS, queries

_SQL = queries("charging")
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
        self._accounts: dict[Contra, int] = {}
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

    async def meters(self, ids: Sequence[int]) -> dict[int, Meter]:
        """Read meters by id, without locks."""
        async with self._guarded() as connection:
            return await _read_meters(connection, _SQL["meters"], ids)

    def encode(self, batch: Batch) -> None:
        """Make the parameters of a batch that will be applied next."""
        if batch.written and not self._unknown_accounts(batch):
            self._encoded = (batch, parameters(batch, self._accounts))

    async def apply(self, batch: Batch) -> None:
        """Write a batch in one durable transaction.

        Raises:
            StaleRead: a wallet, meter or session has changed since; nothing was written.
            GuardRefused: holds beyond the money of a wallet, or more on a meter than its cap.
            StoreAway: the database does not answer; whether it was written is unknown.
        """
        async with self._guarded() as connection:
            await self.apply_within(connection, batch)

    @asynccontextmanager
    async def locked(
        self, wallet_ids: Sequence[int], meter_ids: Sequence[int] = ()
    ) -> AsyncIterator[LockedUnit]:
        """Open a transaction that holds the rows of wallets and meters; it commits when the block ends."""
        async with self._guarded() as connection:
            try:
                async with connection.transaction():
                    wallets = await _read_wallets(connection, _SQL["wallets_locked"], wallet_ids)
                    meters = {}
                    if meter_ids:
                        meters = await _read_meters(connection, _SQL["meters_locked"], meter_ids)
                    yield LockedUnit(wallets, meters, self, connection)
            except BaseException:
                # An account that this transaction created is undone with it.
                self._accounts.clear()
                raise

    async def apply_within(self, connection: AsyncConnection[DictRow], batch: Batch) -> None:
        """Write a batch in whatever transaction the connection is in."""
        encoded, self._encoded = self._encoded, None
        if encoded is not None and encoded[0] is batch:
            values = encoded[1]
        else:
            for name in self._unknown_accounts(batch):
                await self._know_account(connection, name)
            values = parameters(batch, self._accounts)
        # A raw cursor sends the statement as it stands: nothing to translate on each batch.
        async with AsyncRawCursor(connection) as cursor:
            await cursor.execute(_SQL["charge_batch"], values, prepare=True)

    def _unknown_accounts(self, batch: Batch) -> set[Contra]:
        """Accounts on the other side of the batch's entries whose numbers are not known here."""
        names = {
            contra(written.decision.session, posting)
            for written in batch.written
            for posting in written.decision.postings
        }
        return names - self._accounts.keys()

    async def _know_account(self, connection: AsyncConnection[DictRow], name: Contra) -> None:
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
    """Wallets and meters held by row locks, and the one batch that is decided on them."""

    def __init__(
        self,
        wallets: dict[int, Wallet],
        meters: dict[int, Meter],
        store: PostgresChargingStore,
        connection: AsyncConnection[DictRow],
    ) -> None:
        self.wallets = wallets
        self.meters = meters
        self._store = store
        self._connection = connection

    async def apply(self, batch: Batch) -> None:
        """Write the batch within the transaction that holds the rows."""
        await self._store.apply_within(self._connection, batch)


async def _read_wallets(
    connection: AsyncConnection[DictRow], sql: str, ids: Sequence[int]
) -> dict[int, Wallet]:
    rows = await (await connection.execute(sql, (list(ids),), prepare=True)).fetchall()
    return {row["id"]: Wallet(**row) for row in rows}


async def _read_meters(
    connection: AsyncConnection[DictRow], sql: str, ids: Sequence[int]
) -> dict[int, Meter]:
    rows = await (await connection.execute(sql, (list(ids),), prepare=True)).fetchall()
    return {row["id"]: Meter(**row) for row in rows}
