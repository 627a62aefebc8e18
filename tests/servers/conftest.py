"""What the tests of servers share."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest_asyncio

from tests.servers.radius_world import Set, radius_set
from tollkeeper.store.embedded import (
    EmbeddedPostgres,
    create_database,
    drop_database,
    with_database,
)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def radius_shop(
    postgres_server: EmbeddedPostgres, migrated_template: str, _names: Iterator[str]
) -> AsyncIterator[Set]:
    """One RADIUS server for all tests of a module; each takes a ``next_set`` of it."""
    name = next(_names)
    create_database(postgres_server.url, name, template=migrated_template)
    async with radius_set(with_database(postgres_server.url, name)) as made:
        yield made
    drop_database(postgres_server.url, name)
