"""Rated records for tests, with whatever a test does not care about filled in."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl

from tollkeeper.store.usage import HOURS, LEGS, RATED, REVISIONS, schema_of

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
UNITS = 10**8
"""Of one unit of money."""

_PLAIN: dict[str, Any] = {
    "line": 1, "answer_at": None, "duration_ms": 0, "call_id": "", "leg": "", "caller": "",
    "called": "442071838750", "service": "voice", "customer_id": 0, "vendor_id": 0, "trunk_in": 0,
    "trunk_out": 0, "sip": None, "q850": None, "pdd_ms": None, "mos": None, "state": "rated",
    "session_id": None, "destination": "United Kingdom", "sell_wallet": 0, "sell_version": 0,
    "sell_row": 0, "sell_prefix": "44", "sell_billed": 0, "charge": 0, "buy_wallet": 0,
    "buy_version": 0, "buy_row": 0, "buy_prefix": "", "buy_billed": 0, "cost": 0,
}  # fmt: skip
_LEG: dict[str, Any] = {
    "line": 1, "level": 1, "party_id": 0, "wallet_id": 0, "version_id": 0, "row_no": 0,
    "prefix": "44", "billed": 0, "charge": 0,
}  # fmt: skip
_REVISION: dict[str, Any] = {
    "line": 1, "leg": 0, "wallet_id": 0, "version_id": 0, "row_no": 0, "prefix": "44",
    "destination": "United Kingdom", "billed": 0, "amount": 0, "was": 0,
}  # fmt: skip


def us(at: datetime) -> int:
    """A time in microseconds."""
    return (at - EPOCH) // timedelta(microseconds=1)


def record(at: datetime, **values: Any) -> dict[str, Any]:
    """One record that began at a time; ``duration_ms`` above zero makes it an answered one."""
    row = {**_PLAIN, **values, "start_at": us(at), "day": at.date()}
    if row["duration_ms"] and row["answer_at"] is None:
        row["answer_at"] = row["start_at"]
    return row


def usage_frame(rows: Sequence[dict[str, Any]]) -> pl.DataFrame:
    """The frame of these records, without their batch."""
    return pl.DataFrame(rows, schema=pl.Schema({n: t for n, t in RATED.items() if n != "batch_id"}))


def leg_frame(rows: Sequence[dict[str, Any]]) -> pl.DataFrame:
    """Legs of resellers: each row needs ``day``."""
    schema = {n: t for n, t in schema_of(LEGS).items() if n != "batch_id"}
    return pl.DataFrame([{**_LEG, **row} for row in rows], schema=pl.Schema(schema))


def revision_frame(rows: Sequence[dict[str, Any]]) -> pl.DataFrame:
    """Revisions: each row needs ``day`` and ``batch_id``."""
    schema = {n: t for n, t in schema_of(REVISIONS).items() if n != "by_batch"}
    return pl.DataFrame([{**_REVISION, **row} for row in rows], schema=pl.Schema(schema))


def hour_frame(rows: Sequence[dict[str, Any]], currencies: dict[int, str]) -> pl.DataFrame:
    """The hourly sums of records, added up one by one; ``currencies`` are those of wallets."""
    sums: dict[tuple[Any, ...], dict[str, Any]] = {}
    for row in rows:
        hour = row["start_at"] // 3_600_000_000 * 3_600_000_000
        key = (
            row["day"], hour, row["customer_id"], row["vendor_id"], row["trunk_in"],
            row["trunk_out"], row["service"], row["destination"], row["sell_prefix"],
            currencies.get(row["sell_wallet"], ""), currencies.get(row["buy_wallet"], ""),
        )  # fmt: skip
        answered = row["answer_at"] is not None or row["duration_ms"] > 0
        effective = answered or row["q850"] in {16, 17, 18, 19, 21} or row["sip"] in {480, 486}
        adds = {
            "attempts": 1, "answers": int(answered), "effective": int(effective),
            "duration_ms": row["duration_ms"], "sell_billed": row["sell_billed"],
            "buy_billed": row["buy_billed"], "pdd_ms": row["pdd_ms"] or 0,
            "pdd_count": int(row["pdd_ms"] is not None), "revenue": row["charge"],
            "cost": row["cost"],
        }  # fmt: skip
        total = sums.setdefault(key, dict.fromkeys(adds, 0))
        for name, value in adds.items():
            total[name] += value
    kinds = {n: t for n, t in schema_of(HOURS).items() if n != "batch_id"}
    keys = [name for name in kinds if name not in next(iter(sums.values()))]
    full = [{**dict(zip(keys, key, strict=True)), **total} for key, total in sums.items()]
    return pl.DataFrame(full, schema=pl.Schema(kinds))
