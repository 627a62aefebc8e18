"""The switchboard: what every protocol may rely on."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from tests.protocols.house import add_peer, add_trunk
from tests.support import PREMIUM, UK_FIXED, Customer, World, runtime
from tollkeeper.core.reasons import Reason
from tollkeeper.core.records import Outcome
from tollkeeper.errors import Busy
from tollkeeper.servers.asks import Ask, call_id_of
from tollkeeper.servers.switchboard import Switchboard
from tollkeeper.store.peers import Peer


class Set:
    """A switchboard with one peer whose calls are acme's."""

    def __init__(self, world: World, acme: Customer, parts: Any, peer: Peer) -> None:
        self.world, self.acme, self.parts, self.peer = world, acme, parts, peer
        self.board: Switchboard = parts.board

    async def ask(self, call_id: str = "c1", called: str = UK_FIXED, **more: Any) -> Any:
        """Authorise a call."""
        peer = more.pop("peer", self.peer)
        return await self.board.authorise(peer, Ask(call_id, called, **more))


class Clock:
    """The time, moved by hand."""

    def __init__(self) -> None:
        from tollkeeper.wiring import system_clock

        self.now: datetime = system_clock()

    def __call__(self) -> datetime:
        """The time as it was set."""
        return self.now


@pytest.fixture
def clock() -> Clock:
    """A clock that stands."""
    return Clock()


@pytest.fixture
async def desk(database_url: str, clock: Clock) -> AsyncIterator[Set]:
    """A runtime with the peer "sw" on the trunk of acme, who has 100 USD."""
    with World(database_url) as world:
        acme = world.customer("acme", balance="100")
        add_trunk(world, "acme-in", acme)
        peer = add_peer(world, "sw", "kamailio", trunk="acme-in", options={"slice": 10})
        async with runtime(database_url, clock=clock) as parts:
            await parts.board.start()
            yield Set(world, acme, parts, peer)
            await parts.board.stop()


async def test_a_call_goes_from_its_authorisation_to_its_charge(desk: Set) -> None:
    """Ten seconds at a time, as the peer's slice says; twelve are charged."""
    verdict = await desk.ask()
    assert (verdict.allowed, verdict.granted, verdict.party) == (True, 10, "acme")
    assert (await desk.board.answered(desk.peer, "c1")).allowed
    assert (await desk.board.interim(desk.peer, "c1", 8_000)).granted > 10
    done = await desk.board.stop_call(desk.peer, "c1", 12_000)
    assert done.outcome is Outcome.CLOSED
    assert desk.world.wallet(desk.acme).balance == Decimal("99.88")


@pytest.mark.parametrize(
    ("called", "more", "reason"),
    [
        ("not a number", {}, Reason.INVALID_NUMBER),
        ("9991234567", {}, Reason.NO_RATE),
        (UK_FIXED, {"party": "nobody"}, Reason.UNKNOWN_CUSTOMER),
    ],
)
async def test_whatever_stands_against_a_call_is_a_reason(
    desk: Set, called: str, more: dict[str, str], reason: Reason
) -> None:
    """Never an exception: each protocol has a word for each reason."""
    verdict = await desk.ask(called=called, **more)
    assert (verdict.allowed, verdict.reason) == (False, reason)
    assert verdict.meaning.sip >= 400


async def test_a_call_of_nobody_is_refused(desk: Set) -> None:
    """A peer without a trunk of its own, and an address that no trunk has."""
    other = add_peer(desk.world, "open", "kamailio")
    verdict = await desk.ask(peer=other, address="203.0.113.9")
    assert verdict.reason is Reason.UNKNOWN_CUSTOMER


async def test_trunks_tell_whose_call_it_is_and_how_its_numbers_are_written(desk: Set) -> None:
    """By the address that the call came from, with the trunk's tech prefix taken off."""
    beta = desk.world.customer("beta", balance="1")
    add_trunk(desk.world, "beta-in", beta, switch="open", addresses=("203.0.113.0/24",))
    desk.world.sql("UPDATE trunk SET tech_prefix = '77#' WHERE code = 'beta-in'")
    other = add_peer(desk.world, "open", "kamailio")
    await desk.parts.directory.load()
    verdict = await desk.ask(peer=other, called=f"77#{UK_FIXED}", address="203.0.113.9")
    assert (verdict.allowed, verdict.party) == (True, "beta")
    session = await desk.parts.charging.session("open/c1")
    assert session.called == UK_FIXED


async def test_asked_again_it_is_the_same_call(desk: Set) -> None:
    """One session, one hold, the same grant."""
    first = await desk.ask()
    again = await desk.ask()
    assert (again.repeated, again.granted) == (True, first.granted)
    assert desk.world.one("SELECT count(*) FROM live_session") == 1


async def test_an_id_that_was_used_before_is_a_new_call(desk: Set, clock: Clock) -> None:
    """The switch restarted and counts from the beginning: no stored answer for another call's money."""
    await desk.ask()
    await desk.board.stop_call(desk.peer, "c1", 2_000)
    clock.now += timedelta(seconds=31)
    second = await desk.ask()
    assert (second.allowed, second.repeated, second.call_id) == (True, False, "c1~2")
    await desk.board.stop_call(desk.peer, "c1", 3_000)
    assert desk.world.wallet(desk.acme).balance == Decimal("99.95")
    clock.now += timedelta(seconds=31)
    third = await desk.ask(called=PREMIUM)
    assert third.call_id == "c1~3"


async def test_after_our_restart_messages_still_reach_the_second_call_of_an_id(
    desk: Set, clock: Clock
) -> None:
    """What the id stands for is read again from the sessions that are open."""
    await desk.ask()
    await desk.board.stop_call(desk.peer, "c1", 2_000)
    clock.now += timedelta(seconds=31)
    await desk.ask()
    async with runtime(desk.world.url, clock=clock) as parts:
        await parts.board.start()
        done = await parts.board.stop_call(desk.peer, "c1", 5_000)
        await parts.board.stop()
    assert done.call_id == "c1~2"
    assert desk.world.wallet(desk.acme).balance == Decimal("99.93")


async def test_the_id_of_a_call_that_is_up_cannot_be_taken_by_another(desk: Set) -> None:
    """Other content under the same id is an error that is never applied."""
    await desk.ask()
    verdict = await desk.ask(called=PREMIUM)
    assert verdict.reason is Reason.ID_REUSED
    assert desk.world.one("SELECT count(*) FROM live_session") == 1


async def test_a_stop_that_overtakes_its_authorisation_releases_what_is_held(desk: Set) -> None:
    """The caller gave up while we were asked: nothing stays held for an hour."""
    early = await desk.board.stop_call(desk.peer, "c1", 0)
    assert early.reason is Reason.UNKNOWN_SESSION
    verdict = await desk.ask()
    assert not verdict.allowed
    assert desk.world.wallet(desk.acme).held == 0
    assert desk.world.one("SELECT count(*) FROM live_session") == 0


async def test_a_restart_of_the_switch_closes_its_calls_at_their_last_usage(desk: Set) -> None:
    """And nobody else's."""
    other = add_peer(desk.world, "sw2", "kamailio", trunk="acme-in")
    for number in range(3):
        await desk.ask(f"c{number}")
        await desk.board.answered(desk.peer, f"c{number}")
        await desk.board.interim(desk.peer, f"c{number}", 2_000)
    await desk.ask(peer=other)
    assert await desk.board.restarted(desk.peer) == 3
    assert [s.key for s in await desk.board.open_calls(other)] == ["sw2/c1"]
    assert desk.world.wallet(desk.acme).balance == Decimal("99.94")


async def test_while_nothing_can_be_charged_a_peer_is_trusted_to_its_limit(
    desk: Set, monkeypatch: pytest.MonkeyPatch
) -> None:
    """100 seconds at risk: a call of 60, one of 40, no third; they are charged when that works again."""
    peer = add_peer(
        desk.world, "trusted", "kamailio", trunk="acme-in", on_failure="allow", risk_seconds=100
    )
    real = desk.parts.lane.submit

    async def away(*_: object) -> Any:
        raise Busy("the database does not answer")

    monkeypatch.setattr(desk.parts.lane, "submit", away)
    verdicts = [await desk.ask(f"r{n}", peer=peer) for n in range(3)]
    assert [v.granted for v in verdicts] == [60, 40, 0]
    assert [v.on_risk for v in verdicts] == [True, True, False]
    assert verdicts[2].busy
    assert (await desk.ask("refused")).busy, "the other peer's policy is to refuse"
    assert (await desk.board.stop_call(peer, "r0", 5_000)).busy
    monkeypatch.setattr(desk.parts.lane, "submit", real)
    done = await desk.board.stop_call(peer, "r0", 5_000)
    assert done.outcome is Outcome.CLOSED
    assert desk.world.wallet(desk.acme).balance == Decimal("99.95")
    assert desk.board.risks.seconds(peer) == 40


async def test_messages_are_charged_and_given_back_once(desk: Set) -> None:
    """An event by the same road: whose it is, what it costs, its refund."""
    card = desk.world.card("sms-usd", [_sms_row()], service="sms", per=1)
    desk.world.sql(
        "INSERT INTO rate_plan_card (plan_id, position, card_id) VALUES (%s, 2, %s)",
        desk.world.plan_id,
        card,
    )
    await desk.parts.directory.load()
    ask = Ask("m1", UK_FIXED, service="sms")
    verdict = await desk.board.charge(desk.peer, ask, segments=2)
    assert (verdict.outcome, verdict.party) == (Outcome.CHARGED, "acme")
    assert desk.world.wallet(desk.acme).balance == Decimal("99.98")
    assert (await desk.board.charge(desk.peer, ask, segments=2)).repeated
    assert await desk.board.give_back(desk.peer, "m1")
    assert await desk.board.give_back(desk.peer, "m1")
    assert desk.world.wallet(desk.acme).balance == Decimal(100)


def _sms_row() -> Any:
    from tests.support import Row, tariff

    return Row("44", "United Kingdom", tariff("0.01", per=1))


def test_ids_that_cannot_be_kept_are_hashed() -> None:
    """Any text of a switch names a call, and the same one always."""
    assert call_id_of("a84b4c76e66710@pc33.example.com") == "a84b4c76e66710@pc33.example.com"
    long = "x" * 500
    assert call_id_of(long) == call_id_of(long)
    assert len(call_id_of(long)) < 50
    assert call_id_of("with space") != call_id_of("with  space")
