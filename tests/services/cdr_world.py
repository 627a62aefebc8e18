"""A world that gets its usage as files: customers and vendors with trunks, and a file to write."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

from psycopg.types.json import Jsonb

from tests.support import ROWS, Customer, Row, World, tariff
from tollkeeper.services.cdr.load import FileReport, LoadJob, load_file
from tollkeeper.services.cdr.prepare import LoadPolicy
from tollkeeper.store.db import Database

SWITCH = "sw1"
NOW = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)
NOON = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)

BUY_ROWS = (
    Row("44", "UK", tariff("0.3")),
    Row("447", "UK mobile", tariff("0.05", 30, 6)),
    Row("1", "USA", tariff("0.004", 6, 6)),
    Row("49", "Germany", tariff("0.01")),
)

MAPPING: dict[str, object] = {
    "format": "csv",
    "delimiter": ",",
    "header": True,
    "quote": "",
    "fields": {
        "call_id": "id",
        "start": {"column": "start", "time": "iso"},
        "answer": {"column": "answer", "time": "iso"},
        "duration": {"column": "seconds", "unit": "s"},
        "caller": "caller",
        "called": "called",
        "trunk_in": "trunk",
        "trunk_out": "out",
        "sip": "sip",
    },
}
HEADER = "id,start,answer,seconds,caller,called,trunk,out,sip"


@dataclass(frozen=True)
class Call:
    """A line of the file."""

    id: str
    called: str = "442071838750"
    seconds: str = "60"
    start: datetime = NOON
    caller: str = "390612345678"
    trunk: str = "acme-in"
    out: str = "vendor-out"
    sip: str = "200"

    def line(self) -> str:
        """The call as the switch writes it."""
        answered = self.seconds not in {"0", ""}
        answer = (self.start + timedelta(seconds=3)).isoformat() if answered else ""
        fields = (
            self.id, self.start.isoformat(), answer, self.seconds, self.caller, self.called,
            self.trunk, self.out, self.sip,
        )  # fmt: skip
        return ",".join(fields)


class CdrWorld(World):
    """A customer acme behind the trunk acme-in, and a vendor behind vendor-out."""

    def __init__(self, url: str, rows: Sequence[Row] = ROWS) -> None:
        super().__init__(url, rows)
        self.acme = self.customer("acme")
        self.vendor = self.seller("carrier")
        self.trunk("acme-in", self.acme)
        self.trunk("vendor-out", self.vendor, direction="out")

    def seller(self, code: str, rows: Sequence[Row] = BUY_ROWS) -> Customer:
        """A vendor with a wallet, and a plan of one buy card."""
        card = self.card(f"{code}-buy", rows)
        self.sql("UPDATE rate_card SET side = 'buy' WHERE id = %s", card)
        plan = self._id("INSERT INTO rate_plan (code, name) VALUES (%s, %s)", f"{code}-plan", code)
        self.sql(
            "INSERT INTO rate_plan_card (plan_id, position, card_id) VALUES (%s, 1, %s)", plan, card
        )
        made = self.customer(code, balance="0", plan=False)
        self.sql("UPDATE party SET kind = 'vendor', plan_id = %s WHERE id = %s", plan, made.id)
        return made

    def trunk(self, code: str, party: Customer, direction: str = "in", **columns: Any) -> int:
        """A trunk of a party, by its code as name unless ``columns`` say otherwise."""
        given: dict[str, Any] = {"names": [code], **columns}
        names = ", ".join(given)
        marks = ", ".join(["%s"] * len(given))
        values = [Jsonb(v) if isinstance(v, dict) else v for v in given.values()]
        return self._id(
            f"INSERT INTO trunk (code, direction, party_id, {names}) VALUES (%s, %s, %s, {marks})",
            code, direction, party.id, *values,
        )  # fmt: skip

    def balance(self, party: Customer) -> Decimal:
        """The money of a party."""
        found: Decimal = self.one(
            "SELECT credited - debited FROM wallet WHERE id = %s", party.wallet_id
        )
        return found

    def counts(self) -> dict[str, int]:
        """What became of the records of all files together."""
        (row,) = self.sql(
            "SELECT sum(records)::int AS records, sum(rated)::int AS rated, sum(matched)::int AS matched,"
            " sum(duplicate)::int AS duplicate, sum(quarantined)::int AS quarantined FROM cdr_file"
            " WHERE status <> 'rolled_back'"
        )
        return row


def write_file(path: Path, calls: Iterable[Call | str]) -> Path:
    """Write a file of calls; a text is a line as it is."""
    lines = [HEADER, *(call if isinstance(call, str) else call.line() for call in calls)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def job(path: Path, **more: Any) -> LoadJob:
    """The loading of a file of :func:`write_file`."""
    return replace(
        LoadJob(path, SWITCH, "csv", mapping=MAPPING, actor="test", policy=LoadPolicy()), **more
    )


async def load(url: str, path: Path, *, now: datetime = NOW, **more: Any) -> FileReport:
    """Load a file."""
    database = Database(url, size=2)
    await database.open()
    try:
        return await load_file(database, job(path, **more), clock=lambda: now)
    finally:
        await database.close()
