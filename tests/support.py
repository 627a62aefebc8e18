"""A small world to charge in: parties with wallets, a plan and an active rate card, put there by SQL.

Tests that are about charging start here, so that they need no other use case to work::

    world = World(database_url)
    acme = world.customer("acme", balance="100")
    token = world.key("charge")
    async with runtime(database_url) as parts:
        reply, repeated = await parts.charging.authorise(...)
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Self

import psycopg
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from tollkeeper.core.rating import Tariff
from tollkeeper.core.records import Wallet
from tollkeeper.settings import Settings

PLAN = "retail"
CARD = "retail-usd"
UK_FIXED, UK_MOBILE, PREMIUM, BLOCKED, UNSOLD = (
    "442071838750",
    "447700900123",
    "44909123456",
    "88213123456",
    "9991234567",
)
"""Numbers of the default card: per second, per minute with all fees, dear, blocked, without a rate."""

_numbers = itertools.count(1)


@dataclass(frozen=True)
class Row:
    """A line of a card; prices are per minute."""

    prefix: str
    destination: str
    tariff: Tariff
    blocked: bool = False


def tariff(price: str, first: int = 1, step: int = 1, **more: Any) -> Tariff:
    """A tariff with one price per minute and intervals ``first``/``step`` in seconds."""
    amounts = {
        name: Decimal(value) if isinstance(value, str) and name != "rounding" else value
        for name, value in more.items()
    }
    return Tariff(Decimal(price), Decimal(price), first, step, **amounts)


ROWS = (
    Row("44", "United Kingdom", tariff("0.6")),
    Row("447", "United Kingdom Mobile", tariff("0.065", 60, 60, connect_fee="0.01")),
    Row("44909", "United Kingdom Premium", tariff("60", 60, 1)),
    Row("1", "United States", tariff("0.0065", 6, 6)),
    Row("49", "Germany", tariff("0.02", 30, 6, attempt_fee="0.001", free_below=3)),
    Row("390", "Italy free", tariff("0")),
    Row("88213", "Emsat", tariff("5"), blocked=True),
)
"""The default card: 0.6/min on 1/1 is exactly one cent a second."""


@dataclass(frozen=True)
class Customer:
    """A party and its wallet."""

    code: str
    id: int
    wallet_id: int
    currency: str


class World:
    """Puts rows into a migrated database."""

    def __init__(self, url: str, rows: Sequence[Row] = ROWS) -> None:
        self._connect(url)
        self.sql("SELECT ensure_partitions((now() AT TIME ZONE 'UTC')::date - 3, 10)")
        self.plan_id = self._id(
            "INSERT INTO rate_plan (code, name) VALUES (%s, %s)", PLAN, "Retail"
        )
        self.card_id = self.card(CARD, rows)
        self.sql(
            "INSERT INTO rate_plan_card (plan_id, position, card_id) VALUES (%s, 1, %s)",
            self.plan_id,
            self.card_id,
        )

    @classmethod
    def attached(cls, url: str) -> Self:
        """A world that was made before, to look at it again."""
        world = cls.__new__(cls)
        world._connect(url)
        world.plan_id = world.one("SELECT id FROM rate_plan WHERE code = %s", PLAN)
        world.card_id = world.one("SELECT id FROM rate_card WHERE code = %s", CARD)
        return world

    def _connect(self, url: str) -> None:
        self.url = url
        self._connection = psycopg.connect(url, autocommit=True, row_factory=dict_row)

    def __enter__(self) -> Self:
        """Usable as a context manager that closes its connection."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the connection."""
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def sql(self, query: str, *values: Any) -> list[dict[str, Any]]:
        """Run one statement; its rows, if it has any."""
        cursor = self._connection.execute(query, values or None)
        return cursor.fetchall() if cursor.description is not None else []

    def one(self, query: str, *values: Any) -> Any:
        """The single value that a query answers."""
        (row,) = self.sql(query, *values)
        (value,) = row.values()
        return value

    def _id(self, insert: str, *values: Any) -> int:
        return int(self.one(f"{insert} RETURNING id", *values))

    def card(
        self, code: str, rows: Sequence[Row] = ROWS, currency: str = "USD", **columns: Any
    ) -> int:
        """A card whose version 1 is active; ``columns`` are further ones of ``rate_card`` (service="sms", per=1)."""
        names = "".join(f", {name}" for name in columns)
        marks = ", %s" * len(columns)
        card_id = self._id(
            f"INSERT INTO rate_card (code, name, currency, active_version, last_version{names})"
            f" VALUES (%s, %s, %s, 1, 1{marks})",
            code,
            code,
            currency,
            *columns.values(),
        )
        version_id = self._id(
            "INSERT INTO rate_version (card_id, version, status, mode, rows_in, rows_stored, rows_refused, row_count,"
            " created_by, activated_at) VALUES (%s, 1, 'active', 'full', %s, %s, 0, %s, 'test', now())",
            card_id,
            len(rows),
            len(rows),
            len(rows),
        )
        for number, row in enumerate(rows, 1):
            t = row.tariff
            self.sql(
                "INSERT INTO rate_row VALUES (%s,%s,%s,%s,%s,%s,%s,%s,%s,%s,%s,%s,%s,%s,%s,NULL,NULL)",
                version_id, number, row.prefix, row.destination, t.first_price, t.next_price, t.first_interval,
                t.next_interval, t.connect_fee, t.attempt_fee, t.minimum, t.free_below, t.surcharge, t.cap, row.blocked,
            )  # fmt: skip
        return card_id

    def customer(
        self,
        code: str = "acme",
        *,
        balance: str | Decimal = "100",
        credit_limit: str = "0",
        currency: str = "USD",
        plan: bool | int = True,
        kind: str = "customer",
        parent: Customer | None = None,
        **columns: Any,
    ) -> Customer:
        """A customer with a wallet; ``columns`` are further columns of ``party`` (max_cps=2 ...).

        ``plan`` is the id of one, or whether it is the default one; ``parent`` who stands above it.
        """
        if parent is not None:
            columns["parent_id"] = parent.id
        plan_id = (self.plan_id if plan else None) if isinstance(plan, bool) else plan
        names = "".join(f", {name}" for name in columns)
        marks = ", %s" * len(columns)
        party_id = self._id(
            f"INSERT INTO party (code, name, kind, plan_id{names}) VALUES (%s, %s, %s, %s{marks})",
            code,
            code.title(),
            kind,
            plan_id,
            *columns.values(),
        )
        account = self._id(
            "INSERT INTO account (kind, currency, name) VALUES ('wallet', %s, %s)", currency, code
        )
        self.sql(
            "INSERT INTO wallet (id, party_id, currency, credit_limit, agreed_limit) VALUES (%s, %s, %s, %s, %s)",
            account,
            party_id,
            currency,
            Decimal(credit_limit),
            Decimal(credit_limit),
        )
        made = Customer(code, party_id, account, currency)
        if Decimal(balance) > 0:
            self.top_up(made, balance)
        self.notify(f"party:{party_id}")
        return made

    def reseller(self, code: str, **options: Any) -> Customer:
        """As :meth:`customer`, for a reseller."""
        return self.customer(code, kind="reseller", **options)

    def user(self, code: str, parent: Customer, **columns: Any) -> Customer:
        """An extension: it has neither plan nor wallet, and spends its parent's money."""
        names = "".join(f", {name}" for name in columns)
        marks = ", %s" * len(columns)
        party_id = self._id(
            f"INSERT INTO party (code, name, kind, parent_id{names}) VALUES (%s, %s, 'user', %s{marks})",
            code,
            code,
            parent.id,
            *columns.values(),
        )
        self.notify(f"party:{party_id}")
        return Customer(code, party_id, parent.wallet_id, parent.currency)

    def plan(self, code: str, *card_ids: int, terms: dict[str, Any] | None = None) -> int:
        """A plan of these cards, in their order; ``terms`` as they are stored (decimals as strings)."""
        plan_id = self._id(
            "INSERT INTO rate_plan (code, name, terms) VALUES (%s, %s, %s)",
            code,
            code,
            Jsonb(terms or {}),
        )
        for position, card_id in enumerate(card_ids, 1):
            self.sql(
                "INSERT INTO rate_plan_card (plan_id, position, card_id) VALUES (%s, %s, %s)",
                plan_id,
                position,
                card_id,
            )
        self.notify(f"plan:{plan_id}")
        return plan_id

    def fx(self, base: str, quote: str, rate: str) -> None:
        """An exchange rate from yesterday on."""
        self.sql(
            "INSERT INTO fx_rate (base, quote, day, rate, source)"
            " VALUES (%s, %s, (now() AT TIME ZONE 'UTC')::date - 1, %s, 'test')",
            base,
            quote,
            Decimal(rate),
        )
        self.notify("fx:0")

    def meter(self, party: Customer, kind: str) -> dict[str, Any]:
        """The one meter of this kind that a party has."""
        (row,) = self.sql("SELECT * FROM meter WHERE party_id = %s AND kind = %s", party.id, kind)
        return row

    def top_up(self, customer: Customer, amount: str | Decimal) -> None:
        """Money received, as an entry of the journal; a running process is not told."""
        with self._connection.transaction():
            clearing = self._id(
                "INSERT INTO account (kind, currency, name) VALUES ('clearing', %s, 'test')"
                " ON CONFLICT (kind, currency, name) DO UPDATE SET name = excluded.name",
                customer.currency,
            )
            (wallet,) = self.sql(
                "UPDATE wallet SET credited = credited + %s, version = version + 1, stamp = stamp + 1 WHERE id = %s"
                " RETURNING version, credited - debited AS balance",
                Decimal(amount),
                customer.wallet_id,
            )
            self.sql(
                "INSERT INTO entry (day, at, code, debit_account, credit_account, amount, currency, wallet_id,"
                " wallet_version, balance_after, actor, reason)"
                " VALUES ((now() AT TIME ZONE 'UTC')::date, now(), 'topup', %s, %s, %s, %s, %s, %s, %s, 'test', 'test')",
                clearing, customer.wallet_id, Decimal(amount), customer.currency, customer.wallet_id,
                wallet["version"], wallet["balance"],
            )  # fmt: skip

    def key(self, *scopes: str, switch: str = "sw1") -> str:
        """An API key with these scopes; returns the secret token."""
        token = f"tk_test{next(_numbers):028d}"
        id_ = self._id(
            "INSERT INTO api_key (name, hash, scopes, switch) VALUES (%s, %s, %s, %s)",
            f"key {token[-4:]}",
            hashlib.sha256(token.encode()).digest(),
            list(scopes),
            switch,
        )
        self.notify(f"key:{id_}")
        return token

    def notify(self, payload: str) -> None:
        """Tell running processes of a change."""
        self.sql("SELECT pg_notify('tollkeeper', %s)", payload)

    def wallet(self, customer: Customer) -> Wallet:
        """The wallet as it stands."""
        (row,) = self.sql(
            "SELECT id, party_id, currency, credited, debited, held, credit_limit, live, cps_second, cps_count, parked,"
            " version, stamp FROM wallet WHERE id = %s",
            customer.wallet_id,
        )
        return Wallet(**row)


def settings(**values: Any) -> Settings:
    """The default settings, but for what is given."""
    return Settings(**values)


def runtime(url: str, **options: Any) -> AbstractAsyncContextManager[Any]:
    """A process's parts on a database; no jobs unless ``jobs=True``. As ``wiring.open_runtime``."""
    from tollkeeper.wiring import open_runtime  # the wiring pulls in everything

    given = options.pop("settings", None) or settings()
    return open_runtime(url, given, **{"jobs": False, **options})


async def until(
    condition: Callable[[], Awaitable[bool] | bool], *, seconds: float = 10.0, what: str = ""
) -> None:
    """Wait for a condition; fail when it does not come to be in time."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    while True:
        result = condition()
        if result if isinstance(result, bool) else await result:
            return
        assert loop.time() < deadline, f"not in {seconds} s: {what or condition}"
        await asyncio.sleep(0.005)


@asynccontextmanager
async def gathered(*managers: AbstractAsyncContextManager[Any]) -> AsyncIterator[list[Any]]:
    """Several context managers as one."""
    from contextlib import AsyncExitStack

    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(manager) for manager in managers]


@asynccontextmanager
async def api(url: str, **options: Any) -> AsyncIterator[tuple[Any, Any]]:
    """The whole HTTP application on a database: a client of it (httpx), and the parts behind it.

    The requests go through the ASGI interface, without a socket.
    """
    import httpx

    from tollkeeper.servers.api.app import create_app
    from tollkeeper.servers.api.charging import ChargingApp
    from tollkeeper.servers.api.context import Services
    from tollkeeper.servers.application import Application

    async with runtime(url, **options) as parts:

        @asynccontextmanager
        async def opening() -> AsyncIterator[Any]:
            services = Services(parts.database, parts.directory, parts.charging, parts.clock)
            yield ChargingApp(parts.charging, parts.directory), create_app(services)

        application = Application(opening)
        async with application.running():
            transport = httpx.ASGITransport(app=application)
            async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
                yield client, parts


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Node:
    """A real server process (``tollkeeper serve``) that can be killed and started again where it was."""

    def __init__(self, database_url: str, log: Path, *, workers: int = 1) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = log
        self._workers = workers
        self._environment = {
            **os.environ,
            "TOLLKEEPER_DATABASE_URL": database_url,
            "TOLLKEEPER_LOG_LEVEL": "error",
        }
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the process; it answers some time later."""
        program = str(Path(sys.executable).parent / "tollkeeper")
        command = [program, "serve", "--port", str(self.port), "--workers", str(self._workers)]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command, env=self._environment, stdout=log, stderr=log, start_new_session=True
            )

    def kill(self) -> None:
        """End it as the kernel does when memory is out: at once, without a word."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    async def answers(self) -> bool:
        """True when it takes requests."""
        import httpx

        assert self._process is None or self._process.poll() is None, self.log.read_text()[-3000:]
        async with httpx.AsyncClient() as client:
            try:
                return (await client.get(f"{self.url}/healthz")).status_code in {200, 503}
            except httpx.TransportError:
                return False
