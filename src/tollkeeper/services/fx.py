"""Exchange rates and office codes: set, import, look at.

A correction of a past day's rate is written like any other: what was charged keeps the rate that
it was pinned with; only what is authorised from now on goes by the new one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal

from tollkeeper.core.money import parse_currency
from tollkeeper.errors import InvalidInput
from tollkeeper.services.rate_cards import page_of
from tollkeeper.store import fx as store
from tollkeeper.store.changes import record
from tollkeeper.store.db import Database
from tollkeeper.store.fx import DatedRate, OfficeCode
from tollkeeper.wire.fx_csv import FIRST_YEAR, LAST_YEAR, RATE_MAX, BadLine
from tollkeeper.wire.fx_ecb import read_fx
from tollkeeper.wire.nanp_csv import read_places

__all__ = [
    "BadLine",
    "DatedRate",
    "FxReport",
    "PlaceReport",
    "import_places",
    "import_rates",
    "list_rates",
    "set_rate",
]

RATE_DECIMALS = 12
WRITE_ROWS = 5_000
"""Rows of one statement."""


@dataclass(frozen=True, slots=True)
class FxReport:
    """What became of a file of rates: ``given`` = ``added`` + ``corrected`` + ``unchanged``."""

    format: str
    given: int
    added: int
    corrected: int
    unchanged: int
    first_day: date | None
    last_day: date | None
    refused: tuple[BadLine, ...]


@dataclass(frozen=True, slots=True)
class PlaceReport:
    """What became of a file of office codes: ``changed`` are new or lie elsewhere than before."""

    given: int
    changed: int
    known: int
    refused: tuple[BadLine, ...]


async def set_rate(
    database: Database, *, base: str, quote: str, day: date, rate: Decimal, actor: str
) -> DatedRate:
    """Set what one unit of ``base`` costs in ``quote`` from a day on.

    Raises:
        InvalidInput: naming the field.
    """
    parse_currency(base, field="base")
    parse_currency(quote, field="quote")
    if base == quote:
        raise InvalidInput("quote: it must be another currency than the base", field="quote")
    if not FIRST_YEAR <= day.year <= LAST_YEAR:
        raise InvalidInput(
            f"day: it must be between the years {FIRST_YEAR} and {LAST_YEAR}", field="day"
        )
    if not rate.is_finite() or not 0 < rate < RATE_MAX or rate != round(rate, RATE_DECIMALS):
        raise InvalidInput(
            f"rate: a number above 0 and below 10^15 with at most {RATE_DECIMALS} decimals",
            code="invalid_amount",
            field="rate",
        )
    made = DatedRate(base, quote, day, rate, "set")
    async with database.write() as connection:
        await store.write_rates(connection, [made])
        await record(
            connection,
            actor=actor,
            action="fx.set",
            subject=f"fx {base}/{quote}",
            detail={"day": day.isoformat(), "rate": f"{rate:f}"},
            notice="fx:0",
        )
        return await store.read_rate(connection, base, quote, day) or made


async def import_rates(
    database: Database, data: bytes, *, actor: str, file_name: str = ""
) -> FxReport:
    """Take a file of rates: lines ``base,quote,day,rate``, or any file of the ECB.

    Good lines are stored, bad ones are told.

    Raises:
        InvalidInput: no such file, or every line was refused.
    """
    sheet = read_fx(data)
    if not sheet.rates:
        first = sheet.refused[0]
        raise InvalidInput(
            f"every one of the {len(sheet.refused)} line(s) was refused; line {first.line}: {first.reason}",
            code="all_rows_refused",
        )
    source = "ecb" if sheet.format.startswith("ecb") else "file"
    rates = [DatedRate(r.base, r.quote, r.day, r.rate, source) for r in sheet.rates]
    days = [rate.day for rate in rates]
    added = corrected = 0
    async with database.write() as connection:
        for page in _pages(rates):
            new, other = await store.write_rates(connection, page)
            added += new
            corrected += other
        report = FxReport(
            format=sheet.format,
            given=len(rates),
            added=added,
            corrected=corrected,
            unchanged=len(rates) - added - corrected,
            first_day=min(days),
            last_day=max(days),
            refused=sheet.refused,
        )
        await record(
            connection,
            actor=actor,
            action="fx.import",
            subject=f"fx {source}",
            detail={
                "file": file_name,
                "format": report.format,
                "given": report.given,
                "added": added,
                "corrected": corrected,
                "refused": len(sheet.refused),
                "days": [min(days).isoformat(), max(days).isoformat()],
            },
            notice="fx:0",
        )
    return report


def _pages(rates: Sequence[DatedRate]) -> list[Sequence[DatedRate]]:
    return [rates[first : first + WRITE_ROWS] for first in range(0, len(rates), WRITE_ROWS)]


async def list_rates(
    database: Database,
    *,
    base: str | None = None,
    quote: str | None = None,
    day: date | None = None,
    before: tuple[date, str, str] | None = None,
    limit: int = 100,
    scope: int | None = None,
) -> list[DatedRate]:
    """List rates, the newest day first; with a ``day`` of each pair the last one until that day.

    ``before`` is the day, base and quote of the last one of the page before.
    """
    async with database.read(scope=scope) as connection:
        return await store.read_rates(
            connection, base=base, quote=quote, day=day, before=before, limit=page_of(limit)
        )


async def import_places(
    database: Database, data: bytes, *, actor: str, file_name: str = "", replace: bool = False
) -> PlaceReport:
    """Take a file of office codes; ``replace`` forgets all that are not in it.

    Raises:
        InvalidInput: no such file, or every line was refused.
    """
    sheet = read_places(data)
    if not sheet.places:
        first = sheet.refused[0]
        raise InvalidInput(
            f"every one of the {len(sheet.refused)} line(s) was refused; line {first.line}: {first.reason}",
            code="all_rows_refused",
        )
    changed = 0
    async with database.write() as connection:
        if replace:
            await store.clear_places(connection)
        for first_row in range(0, len(sheet.places), WRITE_ROWS):
            page = sheet.places[first_row : first_row + WRITE_ROWS]
            codes = [OfficeCode(p.npanxx, p.state, p.lata, p.ocn) for p in page]
            changed += await store.write_places(connection, codes)
        known = await store.count_places(connection)
        await record(
            connection,
            actor=actor,
            action="nanp.import",
            subject="nanp",
            detail={
                "file": file_name,
                "given": len(sheet.places),
                "changed": changed,
                "refused": len(sheet.refused),
                "replace": replace,
            },
            notice="nanp:0",
        )
    return PlaceReport(len(sheet.places), changed, known, sheet.refused)
