"""Reading what a session was priced by: rows of rate cards, and meters with their names and periods."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from tollkeeper.core.money import Rounding
from tollkeeper.core.rating import Tariff
from tollkeeper.core.records import Pin
from tollkeeper.core.terms import Meter
from tollkeeper.store.db import Connection, queries

_SQL = queries("explain")

_PRICES = (
    "first_price", "next_price", "first_interval", "next_interval", "connect_fee", "attempt_fee",
    "minimum", "free_below", "surcharge", "cap", "decimals", "per",
)  # fmt: skip

RowKey = tuple[int, int, int]
"""Card, version and number of a row."""


@dataclass(frozen=True, slots=True)
class CardRow:
    """A row as it stands on its card, before anything is done to its prices.

    ``cost_card`` is the code of the card that the row is on, where the pinned one is cost-plus.
    """

    currency: str
    tariff: Tariff
    cost_card: str


@dataclass(frozen=True, slots=True)
class NamedMeter:
    """A meter as it stands, with what it counts and for which period (UTC; no end: None)."""

    meter: Meter
    kind: str
    code: str
    unit: str
    begins_at: datetime
    ends_at: datetime | None


async def read_card_rows(connection: Connection, pins: Iterable[Pin]) -> dict[RowKey, CardRow]:
    """Read the rows that pins were made of, as far as the connection may see them."""
    wanted = sorted({(pin.card_id, pin.version, pin.row_id) for pin in pins if pin.card_id})
    if not wanted:
        return {}
    columns = [list(column) for column in zip(*wanted, strict=True)]
    found: dict[RowKey, CardRow] = {}
    for row in await (await connection.execute(_SQL["rows"], columns)).fetchall():
        prices = {name: row[name] for name in _PRICES}
        tariff = Tariff(**prices, rounding=Rounding(row["rounding"]))
        key = (row["card_id"], row["version"], row["row_no"])
        found[key] = CardRow(row["currency"], tariff, row["cost_card"])
    return found


async def read_named_meters(connection: Connection, ids: Iterable[int]) -> dict[int, NamedMeter]:
    """Read meters as they stand, by their ids."""
    wanted = sorted(set(ids))
    if not wanted:
        return {}
    rows = await (await connection.execute(_SQL["meters"], (wanted,))).fetchall()
    return {
        row["id"]: NamedMeter(
            Meter(row["id"], row["party_id"], row["used"], row["held"], row["base"], row["cap"], row["stamp"]),
            row["kind"], row["code"], row["unit"], row["begins_at"], row["ends_at"],
        )
        for row in rows
    }  # fmt: skip
