"""Usage records as columns: one row for each ``core.usage.Usage``, one column for each of its fields.

Everything that reads a switch's file ends in such a frame, whether it read record by record or
whole blocks at a time; mediation and the kernel begin with one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from decimal import Decimal

import polars as pl

from tollkeeper.core.usage import Usage

PARSED = pl.Schema(
    {
        "line": pl.Int64(),
        "call_id": pl.String(),
        "start": pl.Int64(),
        "duration_ms": pl.Int64(),
        "leg": pl.String(),
        "caller": pl.String(),
        "called": pl.String(),
        "answer": pl.Int64(),
        "end": pl.Int64(),
        "trunk_in": pl.String(),
        "ip_in": pl.String(),
        "account": pl.String(),
        "trunk_out": pl.String(),
        "ip_out": pl.String(),
        "sip": pl.Int16(),
        "q850": pl.Int16(),
        "pdd_ms": pl.Int32(),
        "mos": pl.Int16(),
        "service": pl.String(),
        "price": pl.String(),
        "currency": pl.String(),
        "sequence": pl.Int64(),
    }
)
"""Names and types of the columns, in the order of the fields of ``Usage``.

Times are microseconds since 1970 in UTC, ``duration_ms`` and ``pdd_ms`` milliseconds, ``mos``
hundredths, ``price`` the decimal number as text. A text is never null ("" means absent), except
``price``; ``answer``, ``end``, ``sip``, ``q850``, ``pdd_ms``, ``mos``, ``price`` and ``sequence``
are null where the record does not say.
"""

NULLABLE = frozenset({"answer", "end", "sip", "q850", "pdd_ms", "mos", "price", "sequence"})
"""The columns in which null means that the record does not say."""


def price_text(price: Decimal | None) -> str | None:
    """Write a price as the frame holds it: plain digits without an exponent, zeros kept."""
    return None if price is None else format(price, "f")


def frame_of(usages: Sequence[Usage]) -> pl.DataFrame:
    """Put records into a frame of the schema ``PARSED``, one row each, in the order given.

    Raises OverflowError or a polars error where a number does not fit its column: codecs check
    the bounds of what they read.
    """
    columns: dict[str, pl.Series] = {}
    for name, kind in PARSED.items():
        values: list[object] = [getattr(usage, name) for usage in usages]
        if name == "price":
            values = [price_text(usage.price) for usage in usages]
        columns[name] = pl.Series(name, values, dtype=kind, strict=True)
    return pl.DataFrame(columns)


def usages_of(frame: pl.DataFrame) -> Iterator[Usage]:
    """Read the records of a frame of the schema ``PARSED`` one by one, in the order of its rows."""
    for row in frame.select(PARSED.names()).iter_rows(named=True):
        price = row.pop("price")
        yield Usage(**row, price=None if price is None else Decimal(price))
