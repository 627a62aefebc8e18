"""The one connection that loads a switch's records."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import psycopg
from psycopg import AsyncConnection
from psycopg.rows import dict_row

from tollkeeper.errors import Busy
from tollkeeper.store.db import OPTIONS, Connection
from tollkeeper.store.usage_files import lock_switch, unlock_all

# A part is hundreds of thousands of rows: it may take longer than what a request may.
_PATIENCE = " -c statement_timeout=600s -c idle_in_transaction_session_timeout=600s"


@asynccontextmanager
async def loading(url: str, switch: str) -> AsyncIterator[Connection]:
    """A connection in autocommit that alone may load records of a switch while it is open.

    Raises:
        Busy: somebody else loads records of this switch, or the database does not answer.
    """
    try:
        connection = await AsyncConnection.connect(
            url, autocommit=True, row_factory=dict_row, options=OPTIONS + _PATIENCE
        )
    except psycopg.OperationalError as error:
        raise Busy(
            "the database does not answer; try again in a moment", code="database_away"
        ) from error
    async with connection:
        if not await lock_switch(connection, switch):
            raise Busy(
                f"records of switch {switch} are being loaded by somebody else; wait until that is done",
                code="switch_loading",
            )
        try:
            yield connection
        finally:
            # The server sees a moment later that a connection is gone; the next file follows at once.
            with suppress(psycopg.Error):
                await unlock_all(connection)
