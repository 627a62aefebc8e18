"""Records put straight into the tables, and what a search should say of them, done naively."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from tests.support import World
from tollkeeper.services.usage_search import UsagePage, UsageQuery, UsageView, search
from tollkeeper.store.archive import ArchivePart
from tollkeeper.store.db import Database

NOW = datetime(2026, 5, 20, 12, tzinfo=UTC)
FIRST = datetime(2026, 3, 1, tzinfo=UTC)
DAY = FIRST.date()

_COLUMNS = [
    "day",
    "batch_id",
    "line",
    "start_at",
    "answer_at",
    "duration_ms",
    "call_id",
    "leg",
    "caller",
    "called",
    "service",
    "customer_id",
    "vendor_id",
    "trunk_in",
    "trunk_out",
    "sip",
    "q850",
    "pdd_ms",
    "mos",
    "state",
    "session_id",
    "destination",
    "sell_wallet",
    "sell_version",
    "sell_row",
    "sell_prefix",
    "sell_billed",
    "charge",
    "buy_wallet",
    "buy_version",
    "buy_row",
    "buy_prefix",
    "buy_billed",
    "cost",
]


class Books:
    """A world with a customer, a vendor, trunks, and records."""

    def __init__(self, url: str) -> None:
        self.world = World(url)
        self.acme = self.world.customer("acme", timezone="Europe/Rome")
        self.beta = self.world.customer("beta", plan=False)
        self.vend = self.world.customer("vend", plan=False, currency="EUR")
        self.world.sql("UPDATE party SET kind = 'vendor' WHERE code = 'vend'")
        self.trunk_in = self._trunk("acme-in", "in", self.acme.id)
        self.trunk_out = self._trunk("vend-out", "out", self.vend.id)
        self.version = self.world.one(
            "SELECT id FROM rate_version WHERE card_id = %s", self.world.card_id
        )
        self.file = self.world.one(
            "INSERT INTO cdr_file (switch, name, sha256, bytes, format) VALUES ('sw1', 'march.csv', 'x', 1, 'csv')"
            " RETURNING id"
        )
        self._batches = 0

    def _trunk(self, code: str, direction: str, party: int) -> int:
        made: int = self.world.one(
            "INSERT INTO trunk (code, direction, party_id) VALUES (%s, %s, %s) RETURNING id",
            code, direction, party,
        )  # fmt: skip
        return made

    def batch(self, kind: str = "load", at: datetime = FIRST) -> int:
        """A batch of the file."""
        made: int = self.world.one(
            "INSERT INTO cdr_batch (kind, file_id, switch, at) VALUES (%s, %s, 'sw1', %s) RETURNING id",
            kind, self.file, at,
        )  # fmt: skip
        return made

    def undo(self, batch: int) -> None:
        """Take a batch back."""
        by = self.batch("rollback")
        self.world.sql("UPDATE cdr_batch SET undone_by = %s WHERE id = %s", by, batch)

    def days(self, *days: date) -> None:
        """Make the partitions of some days."""
        tables = ["usage", "usage_leg", "usage_revision", "usage_hour", "usage_key"]
        for day in days:
            self.world.sql("SELECT ensure_partitions(%s::text[], %s, 1)", tables, day)

    def add(self, batch: int, line: int, start: datetime, **values: Any) -> dict[str, Any]:
        """Put a record into the table of its day; what is not given is usual."""
        row = self.row(batch, line, start, **values)
        self.days(row["day"])
        self._insert([row])
        return row

    def row(self, batch: int, line: int, start: datetime, **values: Any) -> dict[str, Any]:
        """A record as the table has it."""
        usual = {
            "day": start.astimezone(UTC).date(), "batch_id": batch, "line": line, "start_at": start,
            "answer_at": start + timedelta(seconds=3), "duration_ms": 61_500, "call_id": f"call-{batch}-{line}",
            "leg": "", "caller": "390612345678", "called": "442071838750", "service": "voice",
            "customer_id": self.acme.id, "vendor_id": self.vend.id, "trunk_in": self.trunk_in,
            "trunk_out": self.trunk_out, "sip": 200, "q850": 16, "pdd_ms": 1200, "mos": 412, "state": "rated",
            "session_id": None, "destination": "United Kingdom", "sell_wallet": self.acme.wallet_id,
            "sell_version": self.version, "sell_row": 1, "sell_prefix": "44", "sell_billed": 62,
            "charge": Decimal("0.62"), "buy_wallet": self.vend.wallet_id, "buy_version": 0, "buy_row": 0,
            "buy_prefix": "442", "buy_billed": 62, "cost": Decimal("0.31000001"),
        }  # fmt: skip
        return {**usual, **values}

    def add_all(self, rows: Sequence[dict[str, Any]]) -> None:
        """Put many records into the tables of their days."""
        self.days(*{row["day"] for row in rows})
        self._insert(rows)

    def _insert(self, rows: Iterable[dict[str, Any]]) -> None:
        marks = ", ".join(["%s"] * len(_COLUMNS))
        connection = self.world._connection
        with connection.cursor() as cursor:
            cursor.executemany(
                f"INSERT INTO usage ({', '.join(_COLUMNS)}) VALUES ({marks})",
                [[row[name] for name in _COLUMNS] for row in rows],
            )

    def revise(self, row: dict[str, Any], leg: int, by: int, amount: str, **values: Any) -> None:
        """Re-rate a leg of a record."""
        usual = {
            "day": row["day"], "batch_id": row["batch_id"], "line": row["line"], "leg": leg, "by_batch": by,
            "wallet_id": row["sell_wallet" if leg == 0 else "buy_wallet"], "version_id": self.version, "row_no": 2,
            "prefix": "4420", "destination": "London", "billed": 70, "amount": Decimal(amount), "was": Decimal(0),
        }  # fmt: skip
        given = {**usual, **values}
        names, marks = ", ".join(given), ", ".join(["%s"] * len(given))
        self.world.sql(f"INSERT INTO usage_revision ({names}) VALUES ({marks})", *given.values())

    def partitions(self, table: str = "usage") -> list[str]:
        """The partitions that a table has in the days of these tests."""
        rows = self.world.sql(
            "SELECT relname FROM pg_class WHERE relname ~ ('^' || %s || '_20260[34]') AND relkind = 'r' ORDER BY 1",
            table,
        )
        return [row["relname"] for row in rows]


def names_of(items: Iterable[UsageView]) -> list[tuple[int, int]]:
    """Batch and line of records, in their order."""
    return [(view.batch, view.line) for view in items]


async def found(database: Database, *, limit: int = 1000, **query: Any) -> list[tuple[int, int]]:
    """Batch and line of what a search finds on its first page."""
    page = await search(database, UsageQuery(**query), now=NOW, limit=limit)
    return names_of(page.items)


async def all_pages(database: Database, *, limit: int, **query: Any) -> list[UsageView]:
    """What a search finds, page by page to its end."""
    items: list[UsageView] = []
    page = UsagePage((), "")
    while page.next is not None:
        page = await search(database, UsageQuery(**query, after=page.next), now=NOW, limit=limit)
        assert len(page.items) <= limit
        items += page.items
    return items


# --- days to archive -----------------------------------------------------------------------------


def fill(books: Books, day: date = DAY, rows: int = 50) -> list[tuple[int, int]]:
    """A day of records in no order; returns their names in the order of their start."""
    batch = books.batch()
    start = FIRST + (day - DAY)
    made = [
        books.row(
            batch, n, start + timedelta(seconds=n), called=f"44{n * 7 % rows:03d}", caller=f"39{n % 5}",
            charge=Decimal(n) / 8, cost=Decimal(n).scaleb(-8), session_id="0198c0de-0000-7000-8000-000000000001" if n % 9 == 0 else None,
            answer_at=None if n % 4 == 0 else start, sip=None if n % 3 == 0 else 200,
        )
        for n in range(rows)
    ]  # fmt: skip
    books.add_all(made[::-1])
    return [(batch, n) for n in range(rows)]


def stored(tmp_path: Path) -> list[str]:
    """The files of the archive."""
    root = tmp_path / "archive"
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


def folder_of(part: ArchivePart) -> Path:
    return Path(unquote(urlsplit(part.uri).path))
