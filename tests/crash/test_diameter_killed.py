"""Diameter when a server is killed before it answers, and when the database is away."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from decimal import Decimal
from pathlib import Path

import psycopg
import pytest

from tests.protocols.diameter_client import Client
from tests.protocols.house import add_peer, add_trunk
from tests.servers.diameter_desk import open_desk
from tests.support import UK_FIXED, Node, World, free_port, until
from tollkeeper.services.verify import verify
from tollkeeper.store.db import Database
from tollkeeper.store.embedded import EmbeddedPostgres
from tollkeeper.store.migrate import migrate
from tollkeeper.wire.diameter.codes import FailureHandling, Kind
from tollkeeper.wire.diameter.credit import Control, CreditRequest, Units
from tollkeeper.wire.diameter.service import ServiceInformation

ABOUT = ServiceInformation(called=f"tel:+{UK_FIXED}")


def request(client: Client, session: str, kind: Kind, number: int, used: int = 0) -> CreditRequest:
    """The requests of a call: thirty seconds are asked for until its end."""
    line = Control(
        rating_group=1,
        requested=None if kind is Kind.TERMINATION else Units(time=30),
        used=(Units(time=used),) if used else (),
    )
    return client.request(
        f"gw.example;{session}", kind, number, controls=(line,), multiple=True, information=ABOUT
    )


async def connect(stack: AsyncExitStack, port: int) -> Client:
    """A gateway, as soon as the server listens."""
    client = Client()
    stack.push_async_callback(client.close)

    async def connected() -> bool:
        try:
            await client.connect(("127.0.0.1", port))
        except OSError:
            return False
        return True

    await until(connected, seconds=30, what="the server listens")
    assert (await client.hello()).result == 2001
    return client


@pytest.mark.crash
@pytest.mark.slow
async def test_a_request_whose_server_dies_is_charged_once(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed while one commit waits and the answer to another is lost; both are sent again after."""
    port = free_port()
    monkeypatch.setenv("TOLLKEEPER_DIAMETER_LISTEN", f"127.0.0.1:{port}")
    monkeypatch.setenv("TOLLKEEPER_DIAMETER_HOST", "ocs.example")
    monkeypatch.setenv("TOLLKEEPER_DIAMETER_REALM", "example")
    async with AsyncExitStack() as stack:
        world = stack.enter_context(World(database_url))
        acme = world.customer("acme", balance="10")
        add_trunk(world, "acme-in", acme)
        options = {"origin_host": "gw.example"}
        add_peer(world, "gw", "diameter", addresses=["127.0.0.1"], trunk="acme-in", options=options)
        node = Node(database_url, tmp_path / "node.log")
        stack.callback(node.kill)
        node.start()
        client = await connect(stack, port)
        for session in "ab":
            begun = await client.credit(request(client, session, Kind.INITIAL, 0))
            assert begun.controls[0].granted == Units(time=30)
        # Of a the answer is lost on its way. Then the wallet is locked: of b nothing can be written.
        told, untold = (request(client, session, Kind.UPDATE, 1, 20) for session in "ab")
        lost = await client.credit(told, end_to_end=77)
        with psycopg.connect(database_url) as lock:
            lock.execute("SELECT * FROM wallet FOR UPDATE")
            asked = asyncio.create_task(client.credit(untold, end_to_end=78))
            await until(lambda: _waits(world), what="the update waits for the wallet")
            node.kill()
            with pytest.raises(ConnectionError):
                await asked

        node.start()
        client = await connect(stack, port)
        again = await client.credit(told, end_to_end=77, again=True)
        assert (again.result, again.controls) == (lost.result, lost.controls)
        answer = await client.credit(untold, end_to_end=78, again=True)
        assert answer.controls[0].granted == Units(time=30)
        assert (await client.credit(told, again=True)).controls == lost.controls
        for session, used in (("a", 5), ("b", 6)):
            last = request(client, session, Kind.TERMINATION, 2, used)
            assert (await client.credit(last)).result == 2001
            assert (await client.credit(last, again=True)).result == 2001
        wallet = world.wallet(acme)
        assert (wallet.balance, wallet.held) == (Decimal("9.49"), 0)
        database = Database(database_url)
        await database.open()
        stack.push_async_callback(database.close)
        report = await verify(database)
        assert report.clean, report.findings


@pytest.mark.crash
@pytest.mark.slow
async def test_with_the_database_away_calls_go_on_at_the_risk_that_is_set(
    durable_server: EmbeddedPostgres, pg_bin_dir: Path | None
) -> None:
    """on_failure allow: bounded grants, CONTINUE; what was used is charged when the database is back."""
    server = durable_server
    migrate(server.url)
    async with AsyncExitStack() as stack:
        desk = await open_desk(server.url, stack)
        await desk.set_peer(on_failure="allow", risk_seconds=70)
        client = await desk.client()
        up = await desk.say(client, "up", Kind.INITIAL, requested=Units(time=60))
        assert up.failure_handling == FailureHandling.CONTINUE

        def call(session: str, kind: Kind, number: int, used: int = 0) -> CreditRequest:
            return client.request(
                f"gw.example;{session}", kind, number, information=ABOUT,
                requested=Units(time=60), used=(Units(time=used),) if used else (),
            )  # fmt: skip

        await asyncio.to_thread(server.stop, "immediate", force=True)
        try:
            first, second, third, renewed = await asyncio.gather(
                client.credit(call("a", Kind.INITIAL, 0)),
                client.credit(call("b", Kind.INITIAL, 0)),
                client.credit(call("c", Kind.INITIAL, 0)),
                client.credit(call("up", Kind.UPDATE, 1, 20)),
            )
            grants = [one.granted.time for one in (first, second, third) if one.granted is not None]
            assert sorted(grants) == [10, 60], "70 seconds in all"
            assert sorted(one.result for one in (first, second, third)) == [2001, 2001, 3004]
            assert renewed.result == 3004
        finally:
            server = await asyncio.to_thread(
                EmbeddedPostgres.start, server.data_dir, bin_dir=pg_bin_dir
            )
        stack.callback(server.stop, "immediate", force=True)

        async def answered(request: CreditRequest, **more: bool) -> bool:
            return (await client.credit(request, **more)).result != 3004

        again = call("up", Kind.UPDATE, 1, 20)
        await until(lambda: answered(again, again=True), seconds=20)
        let_in = [n for n, one in zip("abc", (first, second, third), strict=True) if one.granted]
        for session in let_in:
            await until(lambda s=session: answered(call(s, Kind.UPDATE, 1, 8)), seconds=20)
            last = await client.credit(call(session, Kind.TERMINATION, 2, 2))
            assert last.result == 2001
        # One that nobody granted, since its client went on by itself: charged when it is told.
        assert (await client.credit(call("d", Kind.UPDATE, 4, 30))).result == 2001
        assert (await client.credit(call("d", Kind.TERMINATION, 5, 5))).result == 2001
        assert (await client.credit(call("up", Kind.TERMINATION, 2, 5))).result == 2001
        with desk.world.attached(server.url) as world:
            wallet = world.wallet(desk.acme)
        assert (wallet.balance, wallet.held) == (Decimal(10) - Decimal("0.80"), 0)
        await desk.stack.pop_all().aclose()


def _waits(world: World) -> bool:
    return bool(world.one("SELECT count(*) FROM pg_locks WHERE NOT granted"))
