"""What revenue assurance looks at: usage without money, money without usage, and what never came."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal

from tollkeeper.store.db import Connection, queries

_SQL = queries("revenue_assurance")


@dataclass(frozen=True, slots=True)
class Unrated:
    """Records of a switch that are in quarantine for one reason; ``example`` says it of one."""

    switch: str
    reason: str
    records: int
    example: str


@dataclass(frozen=True, slots=True)
class Unmatched:
    """A session that was charged live and of whose call no file says anything."""

    session_id: str
    key: str
    party: str
    closed_at: datetime
    charge: Decimal
    switch: str
    currency: str


@dataclass(frozen=True, slots=True)
class Loss:
    """A destination that costs more than it brings; duration in milliseconds."""

    destination: str
    currency: str
    answers: int
    duration_ms: int
    revenue: Decimal
    cost: Decimal


@dataclass(frozen=True, slots=True)
class Trade:
    """What was sold and what was bought in one currency."""

    currency: str
    revenue: Decimal
    cost: Decimal

    @property
    def margin(self) -> Decimal:
        """What remains."""
        return self.revenue - self.cost


@dataclass(frozen=True, slots=True)
class Numbers:
    """Running numbers of one part of a file: from ``first`` to ``last`` without ``gaps``."""

    switch: str
    file: str
    first: int
    last: int
    gaps: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Silent:
    """A source that is enabled and has brought no file for long; ``last_file_at`` None: never."""

    code: str
    switch: str
    kind: str
    poll_seconds: int
    last_run_at: datetime | None
    last_error: str
    last_file_at: datetime | None


async def read_unrated(
    connection: Connection, *, since: datetime, until: datetime
) -> tuple[list[Unrated], int]:
    """What came in [since, until) and is not in the books, and how much of it there is in all."""
    values = {"since": since, "until": until}
    rows = await (await connection.execute(_SQL["unrated"], values)).fetchall()
    whole = await (await connection.execute(_SQL["unrated_in_all"])).fetchone()
    return [Unrated(**row) for row in rows], 0 if whole is None else int(whole["records"])


async def read_unmatched(connection: Connection, day: date) -> list[Unmatched]:
    """Sessions of a day (UTC) that were charged and that no file names, in the order of their end."""
    cursor = await connection.execute(_SQL["unmatched"], {"day": day}, prepare=False)
    return [Unmatched(**row) for row in await cursor.fetchall()]


async def read_losses(connection: Connection, day: date, *, most: int) -> list[Loss]:
    """Destinations of a day with a negative margin, the worst first."""
    cursor = await connection.execute(_SQL["losses"], {"day": day, "most": most})
    return [Loss(**row) for row in await cursor.fetchall()]


async def read_trade(connection: Connection, day: date) -> list[Trade]:
    """Revenue and cost of a day by currency."""
    cursor = await connection.execute(_SQL["trade"], {"day": day})
    return [Trade(**row) for row in await cursor.fetchall()]


async def read_numbers(
    connection: Connection, *, since: datetime, until: datetime
) -> list[Numbers]:
    """Running numbers of what was loaded in [since, until), part by part."""
    cursor = await connection.execute(_SQL["sequences"], {"since": since, "until": until})
    return [
        Numbers(
            switch=row["switch"],
            file=row["file"],
            first=row["sequence"]["first"],
            last=row["sequence"]["last"],
            gaps=tuple((first, last) for first, last in row["sequence"]["gaps"]),
        )
        for row in await cursor.fetchall()
    ]


async def read_silent(connection: Connection, *, now: datetime, polls: int) -> list[Silent]:
    """Sources that have brought no file for ``polls`` times their interval."""
    cursor = await connection.execute(_SQL["silent"], {"now": now, "polls": polls})
    return [Silent(**row) for row in await cursor.fetchall()]
