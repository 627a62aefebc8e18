"""The two stores of the lane behind one face, for tests that hold them to the same behaviour."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any, Protocol

import msgspec
import psycopg
from psycopg.rows import dict_row

from tests.sim.books import MemoryBooks
from tests.sim.store import MemoryChargingStore, MemoryDatabase
from tollkeeper.core.audit import Books, EntryLine, MessageLine
from tollkeeper.core.ledger import Code
from tollkeeper.core.records import Reply, Session, Wallet
from tollkeeper.core.terms import Meter
from tollkeeper.services.ports import ChargingStore
from tollkeeper.store.charging import PostgresChargingStore

NOON = datetime(2026, 3, 5, 12, 0, tzinfo=UTC)
_DAYS = (date(2026, 2, 25), 14)


class Backend(Protocol):
    """A store, and what a test does and sees beside it."""

    store: ChargingStore

    def another(self) -> ChargingStore:
        """A second store on the same data, as another process would have."""

    def add_wallet(self, id_: int, money: Decimal, currency: str = "USD") -> None:
        """Make a wallet of the party of the same number and put money in."""

    def change_wallet(self, id_: int, **values: object) -> None:
        """Change a wallet as something other than the lane."""

    def add_meter(self, id_: int, cap: Decimal | None = None) -> None:
        """Make a meter of party 1."""

    def change_meter(self, id_: int, **values: object) -> None:
        """Change a meter as something other than the lane."""

    def meters(self) -> dict[int, Meter]:
        """All meters as they stand."""

    def snapshot(self) -> Books:
        """Everything that is stored."""

    def outbox(self) -> list[tuple[str, str, str]]:
        """Kind, session and detail of each event, in order."""


class MemoryBackend:
    """The fake."""

    def __init__(self) -> None:
        self.books = MemoryBooks()
        self._database = MemoryDatabase(self.books)
        self.store: ChargingStore = MemoryChargingStore(self._database)

    def another(self) -> ChargingStore:
        """As Backend."""
        return MemoryChargingStore(self._database)

    def add_wallet(self, id_: int, money: Decimal, currency: str = "USD") -> None:
        """As Backend."""
        self.books.add_wallet(Wallet(id_, id_, currency))
        if money:
            self.books.top_up(id_, money, NOON, Code.TOPUP)

    def change_wallet(self, id_: int, **values: object) -> None:
        """As Backend."""
        self.books.change_wallet(id_, **values)

    def add_meter(self, id_: int, cap: Decimal | None = None) -> None:
        """As Backend."""
        self.books.meters[id_] = Meter(id_, 1, cap=cap)

    def change_meter(self, id_: int, **values: object) -> None:
        """As Backend."""
        self.books.change_meter(id_, **values)

    def meters(self) -> dict[int, Meter]:
        """As Backend."""
        return dict(self.books.meters)

    def snapshot(self) -> Books:
        """As Backend."""
        return self.books.snapshot()

    def outbox(self) -> list[tuple[str, str, str]]:
        """As Backend."""
        return [
            (row.event.kind, row.event.session_id, row.event.detail) for row in self.books.outbox
        ]


class PostgresBackend:
    """The real one."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._stores = [PostgresChargingStore(url)]
        self.store: ChargingStore = self._stores[0]
        self._peaks: dict[int, Decimal] = {}
        self._run("SELECT ensure_partitions(%s, %s)", _DAYS)
        # The wallets get the low numbers that the tests name.
        self._run("SELECT setval(pg_get_serial_sequence('account', 'id'), 1000)")

    def another(self) -> ChargingStore:
        """As Backend."""
        self._stores.append(PostgresChargingStore(self._url))
        return self._stores[-1]

    async def close(self) -> None:
        """Drop the connections."""
        for store in self._stores:
            await store.close()

    def _run(self, sql: str, values: Any = ()) -> list[dict[str, Any]]:
        with psycopg.connect(self._url, row_factory=dict_row, options="-c TimeZone=UTC") as session:
            cursor = session.execute(sql, values)  # type: ignore[arg-type]
            return cursor.fetchall() if cursor.description else []

    def add_wallet(self, id_: int, money: Decimal, currency: str = "USD") -> None:
        """As Backend."""
        self._peaks[id_] = Decimal(0)
        self._run(
            "INSERT INTO party (id, code, name, kind) OVERRIDING SYSTEM VALUE "
            "VALUES (%s, %s, 'p', 'customer')",
            (id_, f"p{id_}"),
        )
        self._run(
            "INSERT INTO account (id, kind, currency, name) OVERRIDING SYSTEM VALUE "
            "VALUES (%s, 'wallet', %s, %s)",
            (id_, currency, f"p{id_}"),
        )
        self._run(
            "INSERT INTO wallet (id, party_id, currency) VALUES (%s, %s, %s)", (id_, id_, currency)
        )
        if money:
            self._top_up(id_, money, currency)

    def _top_up(self, id_: int, money: Decimal, currency: str) -> None:
        clearing = self._run(
            "INSERT INTO account (kind, currency, name) VALUES ('clearing', %s, 'manual') "
            "ON CONFLICT (kind, currency, name) DO UPDATE SET name = excluded.name RETURNING id",
            (currency,),
        )[0]["id"]
        self._run(
            "INSERT INTO entry (day, at, code, debit_account, credit_account, amount, currency, "
            "wallet_id, wallet_version, balance_after) "
            "VALUES (%s, %s, 'topup', %s, %s, %s, %s, %s, 1, %s)",
            (NOON.date(), NOON, clearing, id_, money, currency, id_, money),
        )
        self.change_wallet(id_, credited=money, version=1)

    def change_wallet(self, id_: int, **values: object) -> None:
        """As Backend."""
        columns = "".join(f"{name} = %s, " for name in values)
        row = self._run(
            f"UPDATE wallet SET {columns} stamp = stamp + 1 WHERE id = %s RETURNING credit_limit",
            (*values.values(), id_),
        )[0]
        self._peaks[id_] = max(self._peaks[id_], row["credit_limit"])

    def add_meter(self, id_: int, cap: Decimal | None = None) -> None:
        """As Backend."""
        self._run(
            "INSERT INTO meter (id, party_id, kind, code, begins_at, cap) OVERRIDING SYSTEM VALUE "
            "VALUES (%s, 1, 'package', %s, %s, %s)",
            (id_, f"m{id_}", datetime(2026, 3, 1, tzinfo=UTC), cap),
        )

    def change_meter(self, id_: int, **values: object) -> None:
        """As Backend."""
        columns = "".join(f"{name} = %s, " for name in values)
        self._run(
            f"UPDATE meter SET {columns} stamp = stamp + 1 WHERE id = %s", (*values.values(), id_)
        )

    def meters(self) -> dict[int, Meter]:
        """As Backend."""
        rows = self._run("SELECT id, party_id, used, held, base, cap, stamp FROM meter ORDER BY id")
        return {row["id"]: Meter(**row) for row in rows}

    def snapshot(self) -> Books:
        """As Backend."""
        wallets = self._run(
            "SELECT id, party_id, currency, credited, debited, held, credit_limit, live, cps_second, "
            "cps_count, parked, version, stamp FROM wallet ORDER BY id"
        )
        entries = self._run(
            "SELECT e.code, d.kind AS debit_kind, c.kind AS credit_kind, "
            "d.currency AS debit_currency, c.currency AS credit_currency, e.currency, e.amount, "
            "e.wallet_id, e.wallet_version, e.balance_after, e.session_id::text AS session_id, e.leg "
            "FROM entry e JOIN account d ON d.id = e.debit_account "
            "JOIN account c ON c.id = e.credit_account ORDER BY e.id"
        )
        bodies = self._run(
            "SELECT body::text AS body FROM live_session "
            "UNION ALL SELECT body::text FROM closed_session"
        )
        messages: dict[str, list[MessageLine]] = {}
        for row in self._run(
            "SELECT session_id::text AS id, version, message_id, reply::text AS reply "
            "FROM session_message ORDER BY session_id, version"
        ):
            reply = msgspec.json.decode(row["reply"], type=Reply)
            messages.setdefault(row["id"], []).append(
                MessageLine(row["version"], row["message_id"], reply)
            )
        return Books(
            {row["id"]: Wallet(**row) for row in wallets},
            tuple(EntryLine(**row) for row in entries),
            [msgspec.json.decode(row["body"], type=Session) for row in bodies],
            messages,
            dict(self._peaks),
            self.meters(),
        )

    def outbox(self) -> list[tuple[str, str, str]]:
        """As Backend."""
        rows = self._run(
            "SELECT kind, session_id::text AS session_id, detail FROM outbox ORDER BY id"
        )
        return [(row["kind"], row["session_id"], row["detail"]) for row in rows]
