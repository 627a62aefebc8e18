"""One crash at a time, at a known point: before the commit, after it, and of the database itself."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.support import UK_FIXED, World, api, gathered, runtime, until
from tollkeeper.core.batch import StoreAway
from tollkeeper.core.records import Outcome
from tollkeeper.errors import Busy, Conflict, NotFound
from tollkeeper.services.verify import verify
from tollkeeper.store.charging import PostgresChargingStore
from tollkeeper.store.embedded import (
    EmbeddedPostgres,
    create_database,
    drop_database,
    with_database,
)
from tollkeeper.store.migrate import migrate

pytestmark = pytest.mark.crash

STEPS = ("authorise", "start", "update", "stop")


async def step(parts: Any, name: str, session_id: str = "x") -> tuple[Any, bool]:
    """One message of a call that lasts 40 s."""
    charging = parts.charging
    if name == "authorise":
        return await charging.authorise(
            switch="sw1", session_id=session_id, party="acme", called=UK_FIXED, requested_seconds=30
        )
    if name == "start":
        return await charging.start(switch="sw1", session_id=session_id)
    used = 20_000 if name == "update" else 40_000
    return await getattr(charging, name)(switch="sw1", session_id=session_id, used_ms=used)


async def prove(parts: Any) -> None:
    """The books hold."""
    report = await verify(parts.database)
    assert report.clean, report.findings


@pytest.mark.parametrize("crashed", STEPS)
async def test_f9_a_crash_before_the_commit_leaves_nothing_and_the_repeat_does_it(
    database_url: str, monkeypatch: pytest.MonkeyPatch, crashed: str
) -> None:
    """F9: the client is told nothing but busy; the same message to another process is carried out."""
    with World(database_url) as world:
        customer = world.customer(balance="100")
        async with runtime(database_url) as parts:
            for name in STEPS[: STEPS.index(crashed)]:
                await step(parts, name)
            before = (world.wallet(customer), world.sql("SELECT * FROM session_message"))
            with monkeypatch.context() as patch:
                patch.setattr(PostgresChargingStore, "apply", _dies)
                with pytest.raises(Busy):
                    await step(parts, crashed)
            assert (world.wallet(customer), world.sql("SELECT * FROM session_message")) == before
        async with runtime(database_url) as other:
            reply, repeated = await step(other, crashed)
            assert not repeated
            assert (await step(other, crashed)) == (reply, True)
            for name in STEPS[STEPS.index(crashed) + 1 :]:
                await step(other, name)
            assert world.wallet(customer).balance == Decimal("99.60")
            await prove(other)


async def _dies(*_: object) -> None:
    raise StoreAway("the process dies here")


@pytest.mark.parametrize("crashed", STEPS)
async def test_f10_a_crash_after_the_commit_gives_the_repeat_the_answer_that_was_lost(
    database_url: str, monkeypatch: pytest.MonkeyPatch, crashed: str
) -> None:
    """F10: the work is done though nobody heard of it; the repeat gets the same grant or charge."""
    with World(database_url) as world:
        customer = world.customer(balance="100")
        async with runtime(database_url) as parts:
            for name in STEPS[: STEPS.index(crashed)]:
                await step(parts, name)
            real = PostgresChargingStore.apply

            async def dies_after(*arguments: Any) -> None:
                await real(*arguments)
                raise StoreAway("the process dies here")

            with monkeypatch.context() as patch:
                patch.setattr(PostgresChargingStore, "apply", dies_after)
                with pytest.raises(Busy):
                    await step(parts, crashed)
            after = world.wallet(customer)
        async with runtime(database_url) as other:
            reply, repeated = await step(other, crashed)
            assert repeated
            if crashed != "stop":
                assert reply.granted_seconds == (50 if crashed == "update" else 30)
            else:
                assert reply.charge == Decimal("0.40")
            assert world.wallet(customer) == after
            for name in STEPS[STEPS.index(crashed) + 1 :]:
                await step(other, name)
            assert world.wallet(customer).balance == Decimal("99.60")
            await prove(other)


async def test_f10_a_grant_that_nobody_ever_asked_for_again_is_released_by_its_expiry(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F10, F14: committed, never answered, never repeated: the hold ends without the process."""
    now = [datetime.now(UTC)]
    real = PostgresChargingStore.apply

    async def dies_after(*arguments: Any) -> None:
        await real(*arguments)
        raise StoreAway("the process dies here")

    with World(database_url) as world:
        customer = world.customer(balance="100")
        async with runtime(database_url, clock=lambda: now[0]) as parts:
            with monkeypatch.context() as patch:
                patch.setattr(PostgresChargingStore, "apply", dies_after)
                with pytest.raises(Busy):
                    await step(parts, "authorise")
        assert world.wallet(customer).held == Decimal("0.30")
        now[0] += timedelta(minutes=5)
        async with runtime(database_url, jobs=True, clock=lambda: now[0]) as other:
            await until(lambda: world.wallet(customer).live == 0)
            wallet = world.wallet(customer)
            assert (wallet.held, wallet.balance) == (0, 100)
            # F2: and if the call was up all the same, its STOP is charged late.
            reply, _ = await step(other, "stop")
            assert reply.charge == Decimal("0.40")
            assert world.one("SELECT code FROM entry WHERE code <> 'topup'") == "late"
            await prove(other)


async def test_f26_with_the_database_away_the_answer_is_busy_in_time_and_then_all_is_well(
    durable_server: EmbeddedPostgres, pg_bin_dir: Path | None
) -> None:
    """F26: 503 with Retry-After within a switch's patience, for each route; nothing is lost."""
    server = durable_server
    migrate(server.url)
    with World(server.url) as world:
        customer = world.customer(balance="100")
        token = world.key("charge", "read", "manage")
    headers = {"authorization": f"Bearer {token}"}
    loop = asyncio.get_running_loop()
    async with api(server.url) as (client, parts):
        client.headers.update(headers)
        await step(parts, "authorise", "up")
        server.stop("immediate", force=True)
        try:
            for path, body in (
                ("/v1/sessions", {"session_id": "new", "party": "acme", "called": UK_FIXED}),
                ("/v1/sessions/up/update", {"used_seconds": 20}),
                ("/v1/sessions/up/stop", {"used_seconds": 40}),
                ("/v1/quote", {"party": "acme", "called": UK_FIXED}),
            ):
                began = loop.time()
                response = await client.post(path, json=body)
                assert response.status_code == 503, response.text
                assert response.headers["retry-after"]
                assert response.headers["content-type"] == "application/problem+json"
                assert loop.time() - began < 7
            response = await client.get("/v1/sessions/up")
            assert response.status_code == 503
        finally:
            server = EmbeddedPostgres.start(server.data_dir, bin_dir=pg_bin_dir)
        try:
            await until(lambda: _settled(parts, "up"), seconds=20)
            await until(lambda: _granted(parts, "new"), seconds=20)
            with World.attached(server.url) as world:
                wallet = world.wallet(customer)
                assert (wallet.balance, wallet.live) == (Decimal("99.60"), 1)
            # A change made after the restart is heard of: the directory listens again.
            await until(lambda: _hears_of_changes(server.url, parts), seconds=20)
            await prove(parts)
        finally:
            await parts.database.close()
            server.stop("immediate", force=True)


async def _settled(parts: Any, name: str) -> bool:
    try:
        reply, _ = await step(parts, "stop", name)
    except Busy:
        return False
    return bool(reply.charge == Decimal("0.40"))


async def _granted(parts: Any, name: str) -> bool:
    try:
        return (await step(parts, "authorise", name))[0].outcome is Outcome.GRANTED
    except Busy:
        return False


async def _hears_of_changes(url: str, parts: Any) -> bool:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("UPDATE party SET max_cps = 7 WHERE code = 'acme'")
        connection.execute("SELECT pg_notify('tollkeeper', 'party:' || id) FROM party")
    await asyncio.sleep(0.05)
    return bool(parts.directory.party("acme").limits.max_cps == 7)


async def test_f27_a_failover_that_lost_the_last_commits_keeps_its_books_and_takes_the_repeats(
    database_url: str, postgres_server: EmbeddedPostgres
) -> None:
    """F27: on the older copy a lost call is unknown, an older one is settled, and the books hold.

    What an asynchronous standby loses is what was committed last: here a copy of the database is
    taken, the original goes on, and then the copy takes over, as after a failover.
    """
    name = database_url.partition("?")[0].rpartition("/")[2]
    with World(database_url) as world:
        customer = world.customer(balance="100")
        async with runtime(database_url) as parts:
            await step(parts, "authorise", "old")
    create_database(postgres_server.url, f"{name}_standby", template=name)
    standby = with_database(postgres_server.url, f"{name}_standby")
    try:
        async with runtime(database_url) as parts:
            await step(parts, "authorise", "lost")
            lost_reply, _ = await step(parts, "stop", "old")
            assert lost_reply.charge == Decimal("0.40")
        async with runtime(standby) as parts:
            await prove(parts)
            # The switch does not know of the failover and goes on.
            with pytest.raises(NotFound, match="not known"):
                await step(parts, "stop", "lost")
            assert (await step(parts, "stop", "old"))[0].charge == Decimal("0.40")
            # It asks anew for the call that was lost: one session, one charge.
            assert (await step(parts, "authorise", "lost"))[0].outcome is Outcome.GRANTED
            assert (await step(parts, "stop", "lost"))[0].charge == Decimal("0.40")
            with World.attached(standby) as world:
                wallet = world.wallet(customer)
                assert (wallet.balance, wallet.held, wallet.live) == (Decimal("99.20"), 0, 0)
            await prove(parts)
    finally:
        drop_database(postgres_server.url, f"{name}_standby")


async def test_f35_a_call_whose_messages_all_come_again_is_charged_once(database_url: str) -> None:
    """F35, F3: by another process, in any order, the next day too; only days later the id is free."""
    now = [datetime.now(UTC).replace(hour=12)]
    with World(database_url) as world:
        customer = world.customer(balance="100")
        async with runtime(database_url, clock=lambda: now[0]) as parts:
            first = {name: (await step(parts, name))[0] for name in STEPS}
        for later in (timedelta(0), timedelta(hours=13), timedelta(days=1)):
            now[0] = datetime.now(UTC).replace(hour=12) + later
            async with gathered(
                *(
                    runtime(database_url, clock=lambda: now[0], optimistic=mode)
                    for mode in (True, False)
                )
            ) as others:
                for other in others:
                    for name in reversed(STEPS):
                        assert await step(other, name) == (first[name], True)
                    with pytest.raises(Conflict):
                        await other.charging.authorise(
                            switch="sw1", session_id="x", party="acme", called=UK_FIXED,
                            requested_seconds=31,
                        )  # fmt: skip
                await prove(others[0])
            assert world.wallet(customer).balance == Decimal("99.60")
            assert world.one("SELECT count(*) FROM closed_session") == 1
        # RFC 2866, 5.5: session ids repeat after the switch was started anew; then it is a new call.
        now[0] += timedelta(days=2)
        async with runtime(database_url, clock=lambda: now[0]) as other:
            reply, repeated = await step(other, "authorise")
            assert (reply.outcome, repeated) == (Outcome.GRANTED, False)
            assert reply.id != first["authorise"].id
            await step(other, "stop")
            assert world.wallet(customer).balance == Decimal("99.20")
            await prove(other)
