"""What the database knows of archived records that are to be priced anew."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import date

import polars as pl
import pyarrow as pa

from tollkeeper.bulk.rerate import RESOLD, REVISED
from tollkeeper.errors import Busy
from tollkeeper.store.archive import take_archiver
from tollkeeper.store.db import Connection, Database, queries
from tollkeeper.store.rerate import copy_frame

_SQL = queries("rerate")
_NO_ROW = pl.Schema({name: pl.Int64() for name in REVISED.names})
_REVISED = pl.Schema({**_NO_ROW, "destination": pl.String(), "state": pl.String()})
_RESOLD = pl.Schema({name: pl.Int64() for name in RESOLD.names})


@asynccontextmanager
async def one_moment(database: Database) -> AsyncIterator[Connection]:
    """A connection that sees one moment of the database; no day is archived or purged meanwhile.

    Raises:
        Busy: somebody is archiving or purging.
    """
    # The lock comes first, in a transaction of its own: a moment from before it could still be
    # one in which a day was on its way to the archive.
    async with database.write() as guard:
        await guard.execute(_SQL["no_limits"])
        if not await take_archiver(guard):
            raise Busy("a day is being archived or purged; try again later", code="archive_busy")
        async with database.write() as connection:
            await connection.execute(_SQL["snapshot"])
            await connection.execute(_SQL["no_limits"])
            yield connection


async def read_revised(connection: Connection, day: date) -> pa.Table:
    """What re-ratings and late matches made of a day's records: tollkeeper.bulk.rerate.REVISED."""
    frame = await copy_frame(connection, "day_revised", {"day": day}, _REVISED)
    return frame.to_arrow().cast(REVISED)


async def read_resold(connection: Connection, day: date) -> pa.Table:
    """The resellers' legs of a day at their present value: tollkeeper.bulk.rerate.RESOLD."""
    frame = await copy_frame(connection, "day_legs", {"day": day}, _RESOLD)
    return frame.to_arrow().cast(RESOLD)
