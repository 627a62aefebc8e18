"""Books with usage in them, put there by SQL, and a partner's file to compare with."""

from __future__ import annotations

import io
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from tests.support import Customer, World

NOON = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
MAPPING = """
format = "csv"
[fields]
call_id = "id"
start = { column = "start", time = "iso" }
duration = { column = "seconds", unit = "s" }
caller = "caller"
called = "called"
price = "price"
currency = "currency"
sequence = "no"
"""
HEADER = "id,start,seconds,caller,called,price,currency,no"


class Books(World):
    """A customer acme and a vendor carrier; records are written by :meth:`record`."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.sql("SELECT ensure_partitions(date '2026-02-25', 10)")
        self.acme = self.customer("acme")
        self.carrier = self.customer("carrier", balance="0", plan=False)
        self.sql("UPDATE party SET kind = 'vendor' WHERE id = %s", self.carrier.id)
        self.batch_id = self.batch()
        self._lines = 0

    def batch(self, switch: str = "sw1", *, kind: str = "load", **columns: Any) -> int:
        """A batch that was committed."""
        given = {"kind": kind, "switch": switch, "at": NOON, **columns}
        marks = ", ".join(["%s"] * len(given))
        return self._id(
            f"INSERT INTO cdr_batch ({', '.join(given)}) VALUES ({marks})", *given.values()
        )

    def undo(self, batch: int) -> None:
        """Take a batch back."""
        by = self.batch(kind="rollback")
        self.sql("UPDATE cdr_batch SET undone_by = %s WHERE id = %s", by, batch)

    def record(self, call_id: str, *, start: datetime = NOON, **columns: Any) -> int:
        """A record of a minute from acme to carrier; returns its line."""
        self._lines += 1
        ms = columns.get("duration_ms", 60_000)
        row: dict[str, Any] = {
            "day": start.date(), "batch_id": self.batch_id, "line": self._lines, "start_at": start,
            "duration_ms": ms, "call_id": call_id, "leg": "", "caller": "390612345678",
            "called": "442071838750", "service": "voice", "customer_id": self.acme.id,
            "vendor_id": self.carrier.id, "trunk_in": 0, "trunk_out": 0, "state": "rated",
            "destination": "United Kingdom", "sell_wallet": self.acme.wallet_id, "sell_version": 1,
            "sell_row": 1, "sell_prefix": "44", "sell_billed": -(-ms // 1000),
            "charge": Decimal("0.6"), "buy_wallet": self.carrier.wallet_id, "buy_version": 1,
            "buy_row": 1, "buy_prefix": "44", "buy_billed": -(-ms // 1000), "cost": Decimal("0.3"),
            **columns,
        }  # fmt: skip
        marks = ", ".join(["%s"] * len(row))
        self.sql(f"INSERT INTO usage ({', '.join(row)}) VALUES ({marks})", *row.values())
        return self._lines

    def revise(self, line: int, amount: str, *, leg: int = 0, billed: int = 60) -> int:
        """A re-rating of one leg; returns its batch."""
        batch = self.batch(kind="rerate")
        wallet = self.acme.wallet_id if leg == 0 else self.carrier.wallet_id
        self.sql(
            "INSERT INTO usage_revision VALUES (%s, %s, %s, %s, %s, %s, 1, 1, '44', 'UK', %s, %s, 0)",
            NOON.date(), self.batch_id, line, leg, batch, wallet, billed, Decimal(amount),
        )  # fmt: skip
        return batch

    def reseller(self, line: int, code: str, amount: str) -> Customer:
        """A reseller with a leg of a record."""
        made = self.customer(code, plan=False)
        self.sql("UPDATE party SET kind = 'reseller' WHERE id = %s", made.id)
        self.sql(
            "INSERT INTO usage_leg VALUES (%s, %s, %s, 1, %s, %s, 1, 1, '44', 60, %s)",
            NOON.date(), self.batch_id, line, made.id, made.wallet_id, Decimal(amount),
        )  # fmt: skip
        return made


def call(
    call_id: str,
    *,
    start: datetime = NOON,
    seconds: str = "60",
    called: str = "442071838750",
    caller: str = "390612345678",
    price: str = "",
    currency: str = "",
    no: int | str = "",
) -> str:
    """A line of the partner's file."""
    return ",".join((call_id, start.isoformat(), seconds, caller, called, price, currency, str(no)))


def file_of(*lines: str) -> io.BytesIO:
    """The partner's file."""
    return io.BytesIO("\n".join((HEADER, *lines, "")).encode())


def later(seconds: int) -> datetime:
    """So long after noon."""
    return NOON + timedelta(seconds=seconds)
