"""Real calls through a real Kamailio: what costs money when a switch, a line or a caller misbehaves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.protocols.house import House, add_peer, add_trunk, top_up
from tests.protocols.kamailio_host import Caller, Config, Site, holding, missing, talking
from tests.servers.served import served
from tests.support import UK_FIXED, Customer, Node, World, until
from tollkeeper.cli.demo.sipp import cancelling
from tollkeeper.core.records import Policy
from tollkeeper.servers.kamailio import link
from tollkeeper.services.verify import verify
from tollkeeper.wire.kamailio import evapi

pytestmark = pytest.mark.skipif(bool(missing()), reason=f"not installed here: {missing()}")

CENT = Decimal("0.01")
PATIENT = Policy(answer_window=30, grace=10)
"""Nothing expires by itself within a test: what is settled was told."""


class Scene:
    """A house, a customer with money, and a Kamailio with its peer."""

    def __init__(self, url: str, stack: AsyncExitStack) -> None:
        self._stack = stack
        self.world = stack.enter_context(World(url))
        self.house = House(url, policy=PATIENT)
        self.acme: Customer
        self.site: Site

    async def open(
        self,
        balance: str,
        *,
        config: Config | None = None,
        ring_ms: int = 50,
        answer_bye_after_ms: int = 20,
        secret: str | None = None,
        connected: bool = True,
        **options: Any,
    ) -> None:
        """Begin all of it."""
        self.acme = self.world.customer("acme", balance=balance)
        add_trunk(self.world, "acme-in", self.acme, addresses=("127.0.0.1",))
        await self.house.start()
        self._stack.push_async_callback(self.house.stop)
        self.site = await self._stack.enter_async_context(
            Site(config=config, ring_ms=ring_ms, answer_bye_after_ms=answer_bye_after_ms)
        )
        columns = self.site.peer(**options)
        if secret is not None:
            columns["secret"] = secret
        add_peer(self.world, "kam", "kamailio", **columns)
        if connected:
            await self.connected()

    async def connected(self) -> None:
        """Wait until Tollkeeper has said its secret once more."""
        self.site.relay.heard.clear()
        await until(lambda: any(isinstance(m, evapi.Done) and m.ok for m in self.site.relay.heard))

    def closed(self) -> list[dict[str, Any]]:
        """Sessions that have ended, but for refused ones."""
        return self.world.sql(
            "SELECT key, ending, charge, (body->>'used_ms')::bigint AS used_ms FROM closed_session"
            " WHERE ending <> 'refused' ORDER BY closed_at"
        )

    def up(self) -> int:
        """Sessions that are open."""
        return int(self.world.one("SELECT count(*) FROM live_session"))

    async def settled(self, *, seconds: float = 8.0) -> None:
        """Nothing is open or held any more, and the books hold."""
        await until(lambda: self.up() == 0, seconds=seconds, what="no session is open")
        assert self.world.wallet(self.acme).held == 0
        report = await verify(self.house.parts.database)
        assert report.clean, report.findings


@pytest.fixture
async def scene(database_url: str) -> AsyncIterator[Scene]:
    async with AsyncExitStack() as stack:
        yield Scene(database_url, stack)


async def answered(*callers: Caller) -> None:
    for caller in callers:
        await until(lambda caller=caller: "answered" in caller.moments(), what="it is answered")


async def test_calls_end_with_their_money_whatever_the_ends_do(scene: Scene) -> None:
    """All answer a BYE at once, so that Kamailio loses reports, and BYEs to callees; one sends re-INVITEs.

    What a caller chooses, its name and Call-ID, is text that means nothing to Kamailio's configuration.
    """
    calls = 40
    await scene.open(str(CENT * 2 * (calls + 1)), answer_bye_after_ms=0, slice=2)
    racing = scene.site.call(
        "racing",
        holding(answer_bye_after_ms=0),
        *[("a$ci", UK_FIXED)] * calls,
        options=("-cid_str", "%u-$ci$TS-%p@%s"),
        rate=200,
    )
    again = scene.site.call("again", holding(reinvites=[700, 700]), ("b", UK_FIXED))
    seen = await racing.done() + await again.done()
    await until(
        lambda: sum("cut" in call.moments for call in scene.site.gateway.calls()) == calls + 1,
        seconds=6,
        what="every callee got its BYE",
    )
    await scene.settled()
    assert len(seen) == calls + 1
    assert all(1.6 <= call.seconds <= 2.8 for call in seen), [call.seconds for call in seen]
    assert {session["key"] for session in scene.closed()} == {f"kam/{c.call_id}" for c in seen}
    charges = [session["charge"] for session in scene.closed()]
    assert len(charges) == calls + 1
    # On a machine that is busy with other things a BYE may leave after the second has begun.
    assert set(charges) <= {CENT * 2, CENT * 3}
    assert charges.count(CENT * 2) > calls / 2
    assert scene.world.wallet(scene.acme).balance == CENT * 2 * (calls + 1) - sum(charges)


async def test_without_tollkeeper_calls_end_in_time_and_new_ones_are_refused_at_once(
    scene: Scene,
) -> None:
    """Kamailio's own timer holds, re-INVITEs do not start it anew, and what was not heard is told again."""
    await scene.open("1", slice=3)
    held = scene.site.call("held", holding(reinvites=[800, 800]), ("a", UK_FIXED))
    talk = scene.site.call("talk", talking(), ("b", UK_FIXED, 1500))
    await answered(held, talk)
    await until(lambda: sum(isinstance(m, evapi.Started) for m in scene.site.relay.heard) == 2)
    await until(lambda: sum(isinstance(m, evapi.Heard) for m in scene.site.relay.said) >= 2)
    await scene.house.stop()
    await asyncio.sleep(0.1)
    new = scene.site.call("new", talking(), ("c", UK_FIXED, 100))
    (refused,) = await new.done()
    assert refused.refused == 503
    assert refused.waited < 0.3
    (cut,), (ended,) = await held.done(), await talk.done()
    assert 2.0 <= cut.seconds <= 3 + 2
    await scene.house.start()
    await scene.settled(seconds=10)
    charges = sorted(session["charge"] for session in scene.closed())
    assert charges == [CENT * 2, CENT * -(-int(cut.seconds * 1000) // 1000)]
    assert ended.seconds > 1.4
    back = scene.site.call("back", talking(), ("d", UK_FIXED, 100))
    assert [call.refused for call in await back.done()] == [0]


async def test_while_tollkeeper_hangs_a_caller_is_answered_in_time_and_nothing_stays_held(
    scene: Scene,
) -> None:
    """503 after the set time, 487 to who hangs up before; the grants that nobody heard of go back."""
    await scene.open("1", ring_ms=1500, slice=4)
    scene.site.relay.mute = (evapi.Answer,)
    late = scene.site.call("late", talking(), ("a", UK_FIXED, 100), ("b", UK_FIXED, 100))
    gone = scene.site.call("gone", cancelling(200), ("c", UK_FIXED))
    seen = await late.done() + await gone.done()
    assert [call.refused for call in seen] == [503, 503, 487]
    assert all(0.7 <= call.waited <= 1.3 for call in seen[:2])
    await scene.settled()
    assert {session["charge"] for session in scene.closed()} == {Decimal(0)}
    scene.site.relay.mute = ()
    ringing = scene.site.call("ringing", cancelling(300), ("d", UK_FIXED))
    fine = scene.site.call("fine", talking(), ("e", UK_FIXED, 300))
    assert [call.refused for call in await ringing.done()] == [487]
    assert [call.refused for call in await fine.done()] == [0]
    await scene.settled()
    assert scene.world.wallet(scene.acme).balance == 1 - CENT


async def test_a_second_call_by_the_same_id_is_a_call_of_its_own(scene: Scene) -> None:
    """A Call-ID is the caller's choice: whoever uses one twice pays twice. Lists that fail say nothing."""
    await scene.open("0.08", slice=4, rpc="http://127.0.0.1:1/RPC")
    same = ("-cid_str", "the-same-id")
    first = scene.site.call("first", talking(), ("a", UK_FIXED, 2600), options=same)
    await answered(first)
    second = scene.site.call("second", talking(), ("b", UK_FIXED, 1200), options=same)
    await answered(second)
    assert scene.up() == 2
    third = scene.site.call("third", talking(), ("c", UK_FIXED, 1000), options=same)
    (short,) = await third.done()
    assert short.refused == 402
    # SIPp as a gateway cannot tell the two apart, so that their ends come later than they were said.
    await scene.settled()
    charges = [session["charge"] for session in scene.closed()]
    assert len(charges) == 2
    assert all(charge >= CENT * 2 for charge in charges)
    assert scene.world.wallet(scene.acme).balance == CENT * 8 - sum(charges) >= 0


async def test_a_call_that_is_to_be_ended_ends_at_once(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asked to by the operator, by evapi; and where that line is dead, by JSON-RPC."""
    monkeypatch.setattr(link, "DONE_SECONDS", 0.5)
    await scene.open("1", slice=30)
    one = scene.site.call("one", holding(), ("a", UK_FIXED))
    two = scene.site.call("two", holding(), ("b", UK_FIXED))
    await answered(one, two)
    await until(lambda: sum(isinstance(m, evapi.Started) for m in scene.site.relay.heard) == 2)
    keys = [row["key"] for row in scene.world.sql("SELECT key FROM live_session ORDER BY key")]
    charging = scene.house.parts.charging
    await charging.kill(switch="kam", session_id=keys[0].partition("/")[2], why="test")
    await until(lambda: scene.up() == 1, what="one has ended")
    scene.site.relay.mute = (evapi.End,)
    await charging.kill(switch="kam", session_id=keys[1].partition("/")[2], why="test")
    seen = await one.done() + await two.done()
    assert all("cut" in call.moments for call in seen)
    await until(lambda: sum("cut" in c.moments for c in scene.site.gateway.calls()) == 2)
    await scene.settled()


async def test_calls_let_through_on_risk_are_few_short_and_charged_afterwards(scene: Scene) -> None:
    """The carrier's choice while Tollkeeper is away: one call of two seconds, the next one is refused."""
    config = Config(open_seconds=2, open_calls=1)
    await scene.open("1", config=config, slice=4)
    await scene.house.stop()
    await asyncio.sleep(0.1)
    held = scene.site.call("held", holding(), ("a", UK_FIXED))
    await answered(held)
    more = scene.site.call("more", talking(), ("b", UK_FIXED, 100))
    assert [call.refused for call in await more.done()] == [503]
    (cut,) = await held.done()
    assert cut.seconds <= 2 + 1
    await scene.house.start()
    await until(lambda: len(scene.closed()) == 1, what="it was charged")
    await scene.settled()
    (session,) = scene.closed()
    assert CENT * 1 <= session["charge"] <= CENT * 3


async def test_who_does_not_know_the_secret_decides_nothing(scene: Scene) -> None:
    """A line without the secret is not asked, not told and not obeyed."""
    await scene.open("1", secret="wrong", connected=False)
    await until(lambda: any(isinstance(m, evapi.Done) for m in scene.site.relay.heard))
    assert not any(m.ok for m in scene.site.relay.heard if isinstance(m, evapi.Done))
    caller = scene.site.call("one", talking(), ("a", UK_FIXED, 100))
    assert [call.refused for call in await caller.done()] == [503]
    reader, writer = await asyncio.open_connection("127.0.0.1", scene.site.kamailio.evapi_port)
    writer.write(evapi.encode(evapi.Answer(1, 1, 1, seconds=60)))
    assert await asyncio.wait_for(reader.read(), 5) == b""
    writer.close()
    assert scene.up() == 0


async def test_the_simple_transport_charges_refuses_and_limits_by_http_alone(
    database_url: str,
) -> None:
    """Kamailio asks and tells by HTTP: one call talks, one is cut at its money's end, one is refused."""
    async with AsyncExitStack() as stack:
        world = stack.enter_context(World(database_url))
        acme = world.customer("acme", balance="0.04")
        key = world.key("charge", switch="kam")
        base, _, _ = await stack.enter_async_context(served(database_url))
        house = House(database_url, policy=PATIENT)
        await house.start()
        stack.push_async_callback(house.stop)
        config = Config(transport="http", http_url=base, key=key, http_party="acme")
        site = await stack.enter_async_context(Site(config=config))
        rpc = {"rpc": site.kamailio.rpc_url, "reconcile_seconds": 1}
        add_peer(world, "kam", "kamailio", options=rpc)
        talk = site.call("talk", talking(), ("a", UK_FIXED, 1300))
        assert [call.refused for call in await talk.done()] == [0]
        await until(lambda: world.wallet(acme).balance == CENT * 2, what="it is charged")
        cut = site.call("cut", holding(), ("b", UK_FIXED))
        await answered(cut)
        poor = site.call("poor", talking(), ("c", UK_FIXED, 100))
        assert [call.refused for call in await poor.done()] == [402]
        (ended,) = await cut.done()
        assert 1.5 <= ended.seconds <= 4.0
        await until(lambda: world.one("SELECT count(*) FROM live_session") == 0)
        assert -CENT * 2 <= world.wallet(acme).balance <= 0
        top_up(world, acme, "1")
        held = site.call("held", holding(), ("d", UK_FIXED))
        await answered(held)
        await until(lambda: world.one("SELECT body->>'answered_at' IS NOT NULL FROM live_session"))
        (row,) = world.sql("SELECT key FROM live_session")
        async with httpx.AsyncClient(headers={"authorization": f"Bearer {key}"}) as http:
            path = f"/v1/sessions/{row['key'].partition('/')[2]}/kill"
            answer = await http.post(base + path, json={"reason": "test"})
            assert answer.is_success, answer.text
        (ended,) = await held.done()
        assert ended.seconds < 8.0
        await until(lambda: world.one("SELECT count(*) FROM live_session") == 0)
        assert world.wallet(acme).held == 0


async def test_a_call_that_ended_while_the_line_was_dead_is_charged_to_its_end(
    scene: Scene,
) -> None:
    """No usage is reported for a call that may be over: what its end says later is what it costs."""
    await scene.open("1", slice=2, rpc="http://127.0.0.1:1/RPC")
    call = scene.site.call("one", talking(), ("a", UK_FIXED, 800))
    await answered(call)
    await until(lambda: any(isinstance(m, evapi.Heard) for m in scene.site.relay.said))
    await scene.site.relay.stop()
    (ended,) = await call.done()
    # Longer than the grant's 2 seconds, in which it would have been renewed.
    await asyncio.sleep(1.5)
    await scene.site.relay.start()
    await scene.settled()
    (session,) = scene.closed()
    assert session["used_ms"] == pytest.approx(ended.seconds * 1000, abs=150)


async def test_a_server_that_is_killed_in_mid_call_goes_on_where_it_was(
    database_url: str, tmp_path: Path
) -> None:
    """``tollkeeper serve`` ends by SIGKILL and begins anew: the call goes on, is renewed, and charged once."""
    async with AsyncExitStack() as stack:
        world = stack.enter_context(World(database_url))
        acme = world.customer("acme", balance="0.30")
        add_trunk(world, "acme-in", acme, addresses=("127.0.0.1",))
        site = await stack.enter_async_context(Site())
        add_peer(world, "kam", "kamailio", **site.peer(slice=90))
        node = Node(database_url, tmp_path / "node.log")
        stack.callback(node.kill)
        node.start()
        relay = site.relay
        ready = lambda: any(isinstance(m, evapi.Done) and m.ok for m in relay.heard)  # noqa: E731
        await until(ready, seconds=30, what="the server is connected")
        call = site.call("one", holding(), ("a", UK_FIXED))
        await answered(call)
        await until(lambda: any(isinstance(m, evapi.Heard) for m in relay.said))
        node.kill()
        relay.said.clear()
        # While it is away, money comes in: of that, nobody tells it.
        world.top_up(acme, "10")
        node.start()
        limits = lambda: [m.seconds for m in relay.said if isinstance(m, evapi.Limit)]  # noqa: E731
        await until(lambda: bool(limits()), seconds=30, what="the call is known again")
        assert 0 < limits()[0] <= 31
        await until(lambda: max(limits()) > 31, what="it is renewed")
        call.sipp.hang_up()
        (ended,) = await call.done()
        assert "cut" not in ended.moments
        await until(lambda: world.one("SELECT count(*) FROM live_session") == 0)
        (session,) = world.sql("SELECT charge, body->>'used_ms' AS used FROM closed_session")
        assert int(session["used"]) == pytest.approx(ended.seconds * 1000, abs=150)
        assert session["charge"] == CENT * -(-int(session["used"]) // 1000)
        wallet = world.wallet(acme)
        assert (wallet.held, wallet.balance) == (0, Decimal("10.30") - session["charge"])
