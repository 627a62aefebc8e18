"""A request with an Idempotency-Key is done once, whatever is repeated and whatever races."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

from tests.support import World, until
from tollkeeper.errors import Conflict, InvalidInput
from tollkeeper.services.idempotency import Answer, digest_of, run_once
from tollkeeper.store.changes import record
from tollkeeper.store.db import Connection, Database


@pytest_asyncio.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    made = Database(database_url, size=12)
    await made.open()
    yield made
    await made.close()


@pytest.fixture
def world(database_url: str) -> Iterator[World]:
    with World(database_url) as made:
        yield made


async def work(connection: Connection) -> Answer:
    """Something whose doing can be counted."""
    await record(connection, actor="t", action="work", subject="s", detail={}, notice="party:1")
    return Answer(201, '{"done": true}')


async def once(database: Database, key: str = "k1", digest: str = "d1", caller: int = 1) -> Answer:
    return await run_once(database, api_key_id=caller, key=key, digest=digest, work=work)


def done(world: World) -> int:
    return int(world.one("SELECT count(*) FROM audit"))


async def test_a_repeat_gets_the_stored_answer(database: Database, world: World) -> None:
    first = await once(database)
    again = await once(database)
    assert (first.replayed, again.replayed) == (False, True)
    assert (again.status, again.body) == (first.status, first.body)
    assert done(world) == 1


async def test_duplicates_that_race_are_done_once(database: Database, world: World) -> None:
    answers = await asyncio.gather(*(once(database) for _ in range(10)))
    assert sorted(answer.replayed for answer in answers) == [False] + [True] * 9
    assert {(answer.status, answer.body) for answer in answers} == {(201, '{"done": true}')}
    assert done(world) == 1


async def test_the_same_key_with_other_content_is_refused(database: Database, world: World) -> None:
    await once(database)
    with pytest.raises(Conflict) as refused:
        await once(database, digest="d2")
    assert refused.value.code == "idempotency_key_reused"
    assert done(world) == 1


async def test_keys_of_different_callers_do_not_meet(database: Database, world: World) -> None:
    await once(database, caller=1)
    assert not (await once(database, caller=2, digest="d2")).replayed
    assert done(world) == 2


async def test_work_that_fails_leaves_the_key_free(database: Database, world: World) -> None:
    async def fail(connection: Connection) -> Answer:
        await work(connection)
        raise Conflict("no money")

    with pytest.raises(Conflict, match="no money"):
        await run_once(database, api_key_id=1, key="k1", digest="d1", work=fail)
    assert done(world) == 0
    assert not (await once(database)).replayed


async def test_who_waits_for_work_that_fails_does_it_itself(
    database: Database, world: World
) -> None:
    begun, may_fail = asyncio.Event(), asyncio.Event()

    async def fail_later(_: Connection) -> Answer:
        begun.set()
        await may_fail.wait()
        raise Conflict("no money")

    first = asyncio.create_task(
        run_once(database, api_key_id=1, key="k1", digest="d1", work=fail_later)
    )
    await begun.wait()
    second = asyncio.create_task(once(database))
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
    await until(lambda: bool(world.one(waiting)))
    may_fail.set()
    with pytest.raises(Conflict, match="no money"):
        await first
    assert not (await second).replayed
    assert done(world) == 1


@pytest.mark.parametrize("key", ["", " ", "x" * 256, "tab\t", "nul\0", "ä"])
async def test_a_key_that_is_not_well_formed_is_refused(
    database: Database, world: World, key: str
) -> None:
    with pytest.raises(InvalidInput) as refused:
        await once(database, key=key)
    assert refused.value.field == "Idempotency-Key"
    assert done(world) == 0


def test_digests_keep_neighbours_apart() -> None:
    assert digest_of("ab", "c") != digest_of("a", "bc")
    assert digest_of("ab", "c") == digest_of("ab", "c")
