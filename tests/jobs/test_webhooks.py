"""Events are posted at least once, signed, and to nobody who may not see them; none is lost."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest
import structlog.testing
from standardwebhooks.webhooks import Webhook as Standard

from tests.jobs.test_outbox import Clock, Receiver
from tests.jobs.webhook_desk import SECRET, Desk, desk, receiving
from tests.servers.isolation_world import Tree, make_tree
from tests.support import UK_FIXED, Node, World, runtime, until
from tollkeeper.gateways.webhook import HttpWebhook, NullWebhook
from tollkeeper.services import webhooks
from tollkeeper.services.alerts import Alerts
from tollkeeper.services.feed import KINDS
from tollkeeper.services.wallets import top_up
from tollkeeper.services.webhooks import Webhook


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    """An address on loopback."""
    async with receiving() as made:
        yield made


# --- what is told --------------------------------------------------------------------------------


async def test_the_end_of_a_call_is_told_with_its_charge(database_url: str) -> None:
    """The document is the one that docs/how-to/webhooks.md shows."""
    async with desk(database_url) as it:
        await it.hook()
        await it.call()
        await it.work()
        (event,) = it.told
        number = it.world.one("SELECT id FROM feed")
        assert (event["type"], event["id"]) == ("session.ended", f"evt_{number}")
        assert event["timestamp"].endswith("Z")
        data = event["data"]
        assert data["legs"] == [{"party": "acme", "currency": "USD", "charge": "0.30"}]
        assert {name: data[name] for name in ("session_id", "switch", "party", "ending")} == {
            "session_id": "x", "switch": "sw1", "party": "acme", "ending": "settled",
        }  # fmt: skip
        assert (data["unit"], data["used_ms"], data["called"]) == ("second", 30_000, UK_FIXED)
        (row,) = it.deliveries()
        assert (row["status"], row["attempts"], row["last_error"]) == (204, 1, "")


async def test_ends_of_calls_cost_nothing_where_nobody_listens(database_url: str) -> None:
    """No row of the outbox, so no event: and neither where a webhook wants other events."""
    async with desk(database_url) as it:
        await it.call("a")
        await it.hook(events=("session.kill",))
        await it.call("b")
        await it.hook("other", party="acme", events=("session.ended",))
        it.world.customer("bob")
        await it.parts.directory.load()
        await it.call("c", party="bob")
        assert it.world.one("SELECT count(*) FROM outbox") == 0
        await it.call("d")
        assert it.world.one("SELECT count(*) FROM outbox") == 1
        assert it.world.one("SELECT count(*) FROM outbox_unfed") == 1


async def test_a_kill_goes_to_its_switch_and_is_told_to_who_listens(
    database_url: str, receiver: Receiver
) -> None:
    """One row of the outbox: the switch that does not answer keeps nobody else waiting."""
    async with desk(database_url) as it:
        it.world.sql(
            "INSERT INTO switch (code, kill_url, secret) VALUES ('sw1', %s, %s)",
            receiver.url, SECRET,
        )  # fmt: skip
        await it.hook(events=("session.kill",))
        await it.parts.charging.authorise(
            switch="sw1", session_id="x", party="acme", called=UK_FIXED
        )
        await it.parts.charging.kill(switch="sw1", session_id="x", why="fraud")
        receiver.answers = [500, 200]
        await it.parts.timers.deliver_due()
        await it.work()
        (event,) = it.told
        assert event["type"] == "session.kill"
        assert (event["data"]["session_id"], event["data"]["reason"]) == ("x", "fraud")
        assert "legs" not in event["data"]
        assert it.world.one("SELECT done_at IS NULL FROM outbox")
        it.clock.forward(seconds=3)
        await it.parts.timers.deliver_due()
        await it.work()
        assert len(it.told) == 1
        assert it.world.one("SELECT done_at IS NOT NULL FROM outbox")


async def test_expiry_overrun_late_usage_alerts_and_payments_are_told(database_url: str) -> None:
    """Each with the money it is about, as strings with their currency."""
    async with desk(database_url) as it:
        await it.hook()
        await it.call("over", used_ms=400_000)  # 300 s were held for
        await it.parts.charging.authorise(
            switch="sw1", session_id="gone", party="acme", called=UK_FIXED
        )
        await it.parts.charging.update(switch="sw1", session_id="gone", used_ms=10_000)
        it.clock.forward(hours=2)
        await it.parts.timers.expire_due()
        await it.parts.charging.stop(switch="sw1", session_id="gone", used_ms=15_000)
        await it.parts.charging.authorise(
            switch="sw1", session_id="live", party="acme", called=UK_FIXED
        )
        await top_up(
            it.parts.database, party="acme", currency="USD", amount=Decimal("7.5"), reason="wire",
            actor="test", clock=it.clock,
        )  # fmt: skip
        await it.work()
        await it.work()
        told: dict[str, list[dict[str, Any]]] = {}
        for event in it.told:
            told.setdefault(event["type"], []).append(event["data"])
        assert set(told) == set(KINDS) - {"wallet.alert"}
        (over,) = told["session.overrun"]
        assert over["legs"] == [
            {"party": "acme", "currency": "USD", "charge": "4.00", "overrun": "1.00"}
        ]
        (expired,) = told["session.expired"]
        assert (expired["session_id"], expired["ending"]) == ("gone", "expired")
        (late,) = told["session.late"]
        assert late["legs"] == [{"party": "acme", "currency": "USD", "charge": "0.15"}]
        (paid,) = told["wallet.topup"]
        assert (paid["party"], paid["currency"], paid["amount"]) == ("acme", "USD", "7.5")
        assert "calls" not in paid
        assert len(told["session.ended"]) == 2


async def test_a_limit_used_up_is_told(database_url: str) -> None:
    async with desk(database_url) as it:
        await it.hook(events=("wallet.alert",))
        it.world.sql("UPDATE wallet SET alert_at = '{80}', credit_limit = 1, agreed_limit = 1")
        it.world.sql("UPDATE wallet SET debited = credited + 0.9, stamp = stamp + 1")
        await Alerts(it.parts.database).look(it.clock())
        with structlog.testing.capture_logs() as logs:
            await it.work()
        (event,) = it.told
        data = event["data"]
        assert (data["party"], data["percent"], data["currency"]) == ("acme", 80, "USD")
        assert [log["event"] for log in logs if log["log_level"] == "warning"] == ["wallet.alert"]
        assert it.world.one("SELECT done_at IS NOT NULL FROM outbox")


# --- at least once -------------------------------------------------------------------------------


async def test_kill_minus_9_between_commit_and_delivery_loses_nothing(
    database_url: str, receiver: Receiver, tmp_path: Path
) -> None:
    """The real server dies while the receiver has the request and has not answered."""
    with World(database_url) as world:
        world.customer(balance="100")
        token = world.key("charge")
        world.sql(
            "INSERT INTO webhook (code, url, secret, events) VALUES ('w', %s, %s, '{session.ended}')",
            receiver.url, SECRET,
        )  # fmt: skip
        asked = asyncio.Event()

        async def never(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            asked.set()
            await reader.read()  # until the sender is gone
            writer.close()

        deaf = await asyncio.start_server(never, "127.0.0.1", 0)
        port = deaf.sockets[0].getsockname()[1]
        world.sql("UPDATE webhook SET url = %s", f"http://127.0.0.1:{port}/")
        node = Node(database_url, tmp_path / "node.log")
        node.start()
        try:
            await until(node.answers, seconds=30)
            headers = {"Authorization": f"Bearer {token}"}
            async with httpx.AsyncClient(base_url=node.url, headers=headers) as client:
                body = {"session_id": "x", "party": "acme", "called": UK_FIXED}
                assert (await client.post("/v1/sessions", json=body)).status_code == 200
                answer = await client.post("/v1/sessions/x/stop", json={"used_seconds": 9})
                assert answer.json()["charge"] == "0.090000"
            await asyncio.wait_for(asked.wait(), 10)
            node.kill()
            assert world.one("SELECT count(*) FROM webhook_delivery WHERE done_at IS NULL") == 1
            # The time for which the dead one had claimed it goes by, and the receiver is well again.
            world.sql("UPDATE webhook_delivery SET next_at = now()")
            world.sql("UPDATE webhook SET url = %s", receiver.url)
            node.start()
            await until(lambda: len(receiver.requests) == 1, seconds=30)
        finally:
            node.kill()
            deaf.close()
            await deaf.wait_closed()
        ((headers_seen, raw),) = receiver.requests
        assert Standard(SECRET).verify(raw, headers_seen)["data"]["session_id"] == "x"
        assert headers_seen["webhook-id"] == f"evt_{world.one('SELECT id FROM feed')}"


async def test_an_event_is_made_by_another_process_when_the_first_died_after_the_commit(
    database_url: str,
) -> None:
    async with desk(database_url) as it:
        await it.hook()
        await it.call()
    gateway = NullWebhook()
    async with runtime(database_url, webhook=gateway, jobs=True):
        await until(lambda: len(gateway.sent) == 1)


async def test_a_process_that_ends_while_it_sends_leaves_it_to_the_next(
    database_url: str, receiver: Receiver
) -> None:
    """The same event comes again with the same id, after the lease and not before."""
    clock = Clock()
    with World(database_url) as world:
        world.customer()
        world.sql(
            "INSERT INTO webhook (code, url, secret, events) VALUES ('w', %s, %s, '{session.ended}')",
            receiver.url, SECRET,
        )  # fmt: skip
        async with runtime(database_url, webhook=HttpWebhook(), clock=clock) as parts:
            it = Desk(world, parts, NullWebhook(), clock)
            await it.call()
            await parts.events.feed()
            receiver.answers = [200]
            await parts.events.deliver()
            await until(lambda: len(receiver.requests) == 1)
        if world.one("SELECT done_at IS NULL FROM webhook_delivery"):
            async with runtime(database_url, webhook=HttpWebhook(), clock=clock) as other:
                await other.events.settle()
                assert len(receiver.requests) == 1
                clock.forward(seconds=61)
                await other.events.settle()
        assert len({headers["webhook-id"] for headers, _ in receiver.requests}) == 1
        assert world.one("SELECT done_at IS NOT NULL FROM webhook_delivery")


async def test_two_processes_tell_each_event_once_and_number_them_in_order(
    database_url: str,
) -> None:
    async with desk(database_url) as it:
        await it.hook()
        async with runtime(database_url, webhook=it.gateway, clock=it.clock) as other:
            for number in range(25):
                await it.call(f"c{number}")
            for _ in range(3):
                await asyncio.gather(it.parts.events.feed(), other.events.feed())
                await asyncio.gather(it.parts.events.settle(), other.events.settle())
        told = [(e["data"]["session_id"], e["id"]) for e in it.told]
        assert sorted(told) == sorted(set(told))
        assert {id_ for id_, _ in told} == {f"c{n}" for n in range(25)}
        rows = it.world.sql("SELECT payload->>'session_id' AS id FROM feed ORDER BY feed.id")
        assert [row["id"] for row in rows] == [f"c{n}" for n in range(25)]


# --- isolation -----------------------------------------------------------------------------------


@pytest.fixture
def tree(database_url: str) -> Iterator[Tree]:
    made = make_tree(database_url)
    yield made
    made.world.close()


async def test_nobody_is_told_of_anything_above_or_beside(tree: Tree) -> None:
    """Calls of everybody, with overruns on all legs, late usage, kills and payments."""
    gateway = NullWebhook()
    tree.world.sql("DELETE FROM webhook")
    async with runtime(tree.world.url, webhook=gateway) as parts:
        owners = ("ra", "rs", "ca", "zzrb", None)
        for owner in owners:
            wanted = Webhook(f"h-{owner}", f"https://{owner}.example/".lower(), KINDS, owner)
            await webhooks.create_webhook(parts.database, wanted, actor="test")
        await parts.directory.load()
        for party in ("ca", "cs", "zzcb"):
            for id_, used in ((f"{party}-1", 900_000), (f"{party}-2", 5_000)):
                await parts.charging.authorise(
                    switch="sw1", session_id=id_, party=party, called=UK_FIXED
                )
                await parts.charging.kill(switch="sw1", session_id=id_, why=f"{party} is killed")
                await parts.charging.stop(switch="sw1", session_id=id_, used_ms=used)
                await parts.charging.stop(
                    switch="sw1", session_id=id_, used_ms=used + 60_000, request_id="more"
                )
            await top_up(
                parts.database, party=party, currency="USD", amount=Decimal(3), reason="zzreason",
                actor="zzroot", clock=parts.clock,
            )  # fmt: skip
        await parts.events.feed()
        await parts.events.settle()
    told: dict[str, list[dict[str, Any]]] = {str(owner).lower(): [] for owner in owners}
    for post in gateway.sent:
        owner = post.url.removeprefix("https://").partition(".")[0]
        text = post.body.decode()
        told[owner].append(json.loads(text))
        if owner in {"ra", "rs", "ca"}:
            hidden = [mark for mark in tree.hidden_from(owner) if mark in text]
            assert not hidden, f"{owner} was told {hidden}: {text}"
    parties = {owner: {e["data"]["party"] for e in events} for owner, events in told.items()}
    assert parties == {
        "ra": {"ca", "cs"}, "rs": {"cs"}, "ca": {"ca"}, "zzrb": {"zzcb"}, "none": {"ca", "cs", "zzcb"},
    }  # fmt: skip
    for owner, legs in (
        ("ra", ["cs", "rs", "ra"]),
        ("rs", ["cs", "rs"]),
        ("none", ["cs", "rs", "ra"]),
    ):
        (over,) = [
            e for e in told[owner] if e["type"] == "session.overrun" and e["data"]["party"] == "cs"
        ]
        assert [leg["party"] for leg in over["data"]["legs"]] == legs
        assert all(Decimal(leg["overrun"]) > 0 for leg in over["data"]["legs"])
    assert {e["type"] for e in told["ra"]} == set(KINDS) - {"wallet.alert", "session.expired"}
