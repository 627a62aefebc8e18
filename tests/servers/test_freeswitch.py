"""The agent of a FreeSWITCH: what it does when events, commands, connections and clocks go wrong."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import pytest

from tests.protocols.freeswitch_events import Call
from tests.protocols.freeswitch_fake import FakeFreeSwitch
from tests.protocols.house import House, add_peer, add_trunk, top_up
from tests.support import UK_FIXED, Customer, World, until
from tollkeeper.gateways.kill import KillFailed
from tollkeeper.servers.freeswitch.agent import FreeSwitchAgent
from tollkeeper.services.tasks import end
from tollkeeper.services.verify import verify
from tollkeeper.store.peers import Peer

PASSWORD = "between us alone"
CENT = Decimal("0.01")


@dataclass
class Scene:
    """A house, a customer with a dollar (a hundred seconds), and a switch that is connected."""

    world: World
    house: House
    switch: FakeFreeSwitch
    acme: Customer

    async def routed(self, called: str = UK_FIXED, **options: Any) -> Call:
        """A call that was allowed."""
        call = self.switch.dial(called, **options)
        await until(lambda: bool(call.transferred), what="the call was sent on")
        return call

    def sessions(self) -> list[dict[str, Any]]:
        """All sessions that are closed."""
        return self.world.sql(
            "SELECT key, ending, charge, coalesce((body->>'used_ms')::bigint, 0) AS used_ms, body->>'cause' AS cause"
            " FROM closed_session ORDER BY closed_at"
        )

    def up(self) -> int:
        """How many sessions are open."""
        return int(self.world.one("SELECT count(*) FROM live_session"))

    async def settled(self) -> dict[str, Any]:
        """Wait for the end of the only session, prove the books, return it."""
        await until(lambda: self.up() == 0 and len(self.sessions()) == 1, what="the session closed")
        report = await verify(self.house.parts.database)
        assert report.clean, report.findings
        return self.sessions()[0]

    async def connected(self) -> None:
        """Wait until the agent is logged on and has compared."""
        await until(lambda: self.switch.connected == 1, seconds=20, what="the agent is connected")
        await until(
            lambda: self.house.board.reach.has("fs1", "freeswitch"),
            what="the switch can be reached",
        )


@asynccontextmanager
async def scene(
    url: str, *, balance: str = "1", clock_error: float = 0.0, **options: Any
) -> AsyncIterator[Scene]:
    """The parts of a test; ``options`` are those of the peer."""
    with World(url) as world:
        switch = FakeFreeSwitch(PASSWORD, clock_error=clock_error)
        await switch.start()
        acme = world.customer("acme", balance=balance)
        add_trunk(world, "acme-in", acme)
        given = {"slice": 4, "reconcile": 1, "connect": f"127.0.0.1:{switch.port}", **options}
        add_peer(world, "fs1", "freeswitch", secret=PASSWORD, trunk="acme-in", options=given)
        house = House(url)
        await house.start()
        made = Scene(world, house, switch, acme)
        try:
            await made.connected()
            yield made
        finally:
            await house.stop()
            await switch.stop()


# --- the way of a call ---------------------------------------------------------------------------


async def test_the_limit_stands_before_the_call_goes_on(database_url: str) -> None:
    """Golden: the commands of an allowed call, in this order, and no others."""
    async with scene(database_url, routing_context="carriers") as s:
        before = len(s.switch.commands)
        call = await s.routed()
        sent = [one for one in s.switch.commands[before:] if one.startswith("bgapi")]
        assert sent == [
            (
                f"bgapi uuid_setvar_multi {call.uuid} tollkeeper_granted=4;"
                "execute_on_answer_tollkeeper=sched_hangup +4 ALLOTTED_TIMEOUT"
            ),
            f"bgapi uuid_transfer {call.uuid} {UK_FIXED} XML carriers",
        ]
        s.switch.hang_up(call, "ORIGINATOR_CANCEL")
        closed = await s.settled()
        assert (closed["used_ms"], closed["charge"]) == (0, 0)


REFUSED = [
    ("999123", "NO_ROUTE_DESTINATION", "no_rate", "404"),
    ("88213777", "CALL_REJECTED", "destination_blocked", "403"),
    ("12 34", "INVALID_NUMBER_FORMAT", "invalid_number", "484"),
    ("${system(reboot)}", "INVALID_NUMBER_FORMAT", "invalid_number", "484"),
    ("-both", "INVALID_NUMBER_FORMAT", "invalid_number", "484"),
]
"""Number, cause, reason, SIP status."""


async def test_a_refused_call_ends_with_the_cause_of_its_reason(database_url: str) -> None:
    """The cause is that of Q.850, and the record of the switch says why."""
    async with scene(database_url) as s:
        for called, cause, reason, sip in REFUSED:
            call = s.switch.dial(called)
            await until(lambda made=call: not made.live)
            assert call.cause == cause
            assert call.variables["tollkeeper_reason"] == reason
            assert call.variables["tollkeeper_sip"] == sip
            assert not call.transferred
        assert s.world.wallet(s.acme).held == 0


async def test_refused_calls_can_be_sent_to_an_announcement(database_url: str) -> None:
    """With a refusal context the call goes there, to the extension named as the reason."""
    async with scene(database_url, balance="0", refusal_context="announce") as s:
        call = await s.routed()
        assert call.transferred == [("insufficient_funds", "announce")]
        assert s.world.wallet(s.acme).held == 0
        s.switch.hang_up(call)
        await until(lambda: len(s.sessions()) == 1)
        assert s.sessions()[0]["ending"] == "refused"


async def test_parked_calls_of_others_are_left_alone(database_url: str) -> None:
    """Without our mark a call in park is none of our business; nor is a leg that we never saw."""
    async with scene(database_url) as s:
        stranger = s.switch.bring(UK_FIXED, uuid="11111111-2222-3333-4444-555555555555")
        stranger.variables = {"current_application": "park"}
        s.switch.emit("CHANNEL_PARK", stranger)
        s.switch.hang_up(stranger)
        call = await s.routed()  # whose event came later, and was handled
        assert not stranger.transferred
        s.switch.hang_up(call)
        await s.settled()


async def test_the_switchs_clock_may_be_an_hour_off(database_url: str) -> None:
    """Durations are differences of the switch's own clock; nothing compares it with ours."""
    async with scene(database_url, balance="0.03", clock_error=-3600) as s:
        call = await s.routed()
        s.switch.answer(call)
        await until(lambda: not call.live, seconds=8)
        assert call.cause == "ALLOTTED_TIMEOUT"
        assert 2.5 <= call.seconds <= 4.5
        closed = await s.settled()
        assert 2_500 <= closed["used_ms"] <= 4_500


async def test_a_renewed_limit_replaces_the_old_one(database_url: str) -> None:
    """After a renewal there is one scheduled hangup, the later one; at no moment there was none."""
    async with scene(database_url, slice=2) as s:
        call = await s.routed()
        s.switch.answer(call)
        first, lowest = s.switch.task_ids, [1]

        def renewed() -> bool:
            lowest.append(len(s.switch.task_ids))
            return len(s.switch.task_ids) == 1 and s.switch.task_ids != first

        await until(renewed, seconds=8)
        assert min(lowest) == 1
        await until(lambda: s.switch.now() - call.answered > 2_300_000)
        assert call.live
        s.switch.hang_up(call)
        closed = await s.settled()
        assert closed["charge"] == CENT * -(-closed["used_ms"] // 1000)


async def test_a_limit_is_renewed_though_schedule_events_are_lost(database_url: str) -> None:
    """Which hangup is scheduled is asked of the switch where no event told it."""
    async with scene(database_url, slice=2) as s:
        s.switch.lose = {"ADD_SCHEDULE", "DEL_SCHEDULE"}
        call = await s.routed()
        s.switch.answer(call)
        first = s.switch.task_ids
        await until(lambda: len(s.switch.task_ids) == 1 and s.switch.task_ids != first, seconds=8)
        assert call.live
        s.switch.hang_up(call)
        await s.settled()


async def test_usage_is_reported_between_renewals(database_url: str) -> None:
    """What was talked is known before anything else is asked: little is lost with all else."""
    async with scene(database_url, slice=60, interim=1) as s:
        call = await s.routed()
        s.switch.answer(call)
        await until(
            lambda: s.world.one("SELECT coalesce((body->>'used_ms')::int, 0) FROM live_session") > 0
        )
        s.switch.hang_up(call)
        await s.settled()


async def test_new_calls_above_the_bound_are_turned_away_at_once(database_url: str) -> None:
    """A flood: those beyond are ended with 42, which other routes may help; those within go on."""
    async with scene(database_url, balance="100") as s:
        other = FakeFreeSwitch(PASSWORD)
        await other.start()
        options = {"connect": f"127.0.0.1:{other.port}", "slice": 4}
        peer = Peer(
            9, "fs9", "freeswitch", "fs9", secret=PASSWORD, trunk="acme-in", options=options
        )
        agent = asyncio.create_task(FreeSwitchAgent(s.house.board, peer, most=2).run())
        try:
            await until(lambda: s.house.board.reach.has("fs9", "freeswitch"))
            calls = [other.dial(UK_FIXED) for _ in range(20)]
            await until(lambda: all(call.transferred or not call.live for call in calls))
            refused = [call for call in calls if not call.live]
            assert 1 <= len(refused) <= 18
            assert {call.cause for call in refused} == {"SWITCH_CONGESTION"}
            for call in calls:
                other.hang_up(call)
            await until(lambda: s.up() == 0)
        finally:
            await end([agent])
            await other.stop()


# --- kills ---------------------------------------------------------------------------------------


async def test_a_call_is_ended_at_the_operators_request(database_url: str) -> None:
    """The request goes through the outbox to the switch; the end is charged as any other."""
    async with scene(database_url) as s:
        call = await s.routed()
        s.switch.answer(call)
        await until(lambda: s.world.one("SELECT body->>'state' FROM live_session") == "active")
        await s.house.parts.charging.kill(switch="fs1", session_id=call.uuid, why="fraud")
        await until(lambda: not call.live)
        assert call.cause == "MANAGER_REQUEST"
        assert (await s.settled())["ending"] == "settled"


async def test_what_cannot_be_ended_is_said_so_and_what_is_gone_is_ended(database_url: str) -> None:
    """An unknown channel is ended already; a command that hangs or is refused is tried again."""
    async with scene(database_url) as s:
        call = await s.routed()
        end = s.house.board.reach.end
        await end("fs1", "freeswitch", "11111111-2222-3333-4444-555555555555", "fraud")
        with pytest.raises(KillFailed):
            await end("fs1", "freeswitch", "no-channel", "fraud")
        s.switch.refuse["uuid_kill"] = "-ERR not now\n"
        with pytest.raises(KillFailed, match="not now"):
            await end("fs1", "freeswitch", call.uuid, "fraud")
        s.switch.refuse.clear()
        s.switch.hang.add("uuid_kill")
        with pytest.raises(KillFailed, match="in time"):
            await end("fs1", "freeswitch", call.uuid, "fraud")
        assert call.live
        s.switch.hang.clear()
        await end("fs1", "freeswitch", call.uuid, "spend_limit")
        assert call.cause == "ALLOTTED_TIMEOUT"


# --- events that are lost, late, or come twice ---------------------------------------------------


async def test_events_in_the_wrong_order_and_twice_change_nothing(database_url: str) -> None:
    """Answer and hangup come reversed and each of them twice: one charge, the right one."""
    async with scene(database_url) as s:
        call = await s.routed()
        s.switch.repeat = {"CHANNEL_ANSWER", "CHANNEL_HANGUP_COMPLETE", "CHANNEL_PARK"}
        s.switch.held = []
        s.switch.answer(call)
        s.switch.emit("CHANNEL_PARK", call)
        await asyncio.sleep(0)
        call.answered -= 2_500_000
        s.switch.hang_up(call)
        s.switch.release(reverse=True)
        closed = await s.settled()
        assert 2_500 <= closed["used_ms"] < 3_000
        assert closed["charge"] == CENT * 3
        assert call.transferred == [(UK_FIXED, "tollkeeper-route")]


async def test_an_end_that_came_before_the_park_holds_nothing(database_url: str) -> None:
    """The caller gave up, and the events came the other way round: no money stays held."""
    async with scene(database_url) as s:
        s.switch.held = []
        call = s.switch.dial(UK_FIXED)
        s.switch.hang_up(call, "ORIGINATOR_CANCEL")
        s.switch.release(reverse=True)
        await until(lambda: len(s.sessions()) == 1)
        assert s.up() == 0
        assert s.world.wallet(s.acme).held == 0
        assert s.world.wallet(s.acme).balance == 1


async def test_a_lost_park_event_is_found_by_comparing(database_url: str) -> None:
    """A call that waits in park and nobody was told of is decided on."""
    async with scene(database_url) as s:
        s.switch.lose = {"CHANNEL_PARK"}
        call = await s.routed()
        s.switch.hang_up(call)
        await s.settled()


async def test_a_lost_answer_event_is_found_by_comparing(database_url: str) -> None:
    """The session becomes active and is renewed, from the switch's own count of seconds."""
    async with scene(database_url, slice=2) as s:
        call = await s.routed()
        s.switch.lose = {"CHANNEL_ANSWER"}
        s.switch.answer(call)
        first = s.switch.task_ids
        await until(lambda: s.world.one("SELECT body->>'state' FROM live_session") == "active")
        await until(lambda: len(s.switch.task_ids) == 1 and s.switch.task_ids != first, seconds=8)
        s.switch.hang_up(call)
        assert (await s.settled())["used_ms"] == (call.ended - call.answered + 500) // 1000


async def test_a_lost_end_is_closed_at_what_was_last_seen(database_url: str) -> None:
    """Not found twice: closed, at the usage at which the switch last had it in its list."""
    async with scene(database_url) as s:
        call = await s.routed()
        s.switch.answer(call)
        await until(lambda: s.switch.now() - call.answered > 1_200_000)
        s.switch.lose = {"CHANNEL_HANGUP_COMPLETE"}
        s.switch.hang_up(call)
        closed = await s.settled()
        assert closed["cause"] == "lost_stop"
        # What was asked for more at, a moment before the next list, may be later than the end.
        assert 100 <= closed["used_ms"] <= 3_500


async def test_a_failed_query_is_no_news_of_calls(database_url: str) -> None:
    """While the switch answers no list, or a broken one, no session is closed for it."""
    async with scene(database_url) as s:
        call = await s.routed()
        s.switch.answer(call)
        for answer in ("-ERR busy\n", '{"row_count":3,"rows":[]}', '{"row_count":'):
            s.switch.refuse["show"] = answer
            asked = s.switch.commands.count("api show channels as json")
            await until(
                lambda n=asked: s.switch.commands.count("api show channels as json") > n, seconds=8
            )
        assert s.up() == 1
        assert call.live
        s.switch.refuse.clear()
        s.switch.hang_up(call)
        await s.settled()


# --- connections and restarts --------------------------------------------------------------------


async def test_what_happened_while_the_connection_was_gone_is_caught_up(database_url: str) -> None:
    """A call is parked, another one answered and a third one ended while nobody listens."""
    async with scene(database_url) as s:
        rings, talks = await s.routed(), await s.routed()
        s.switch.answer(talks)
        await until(
            lambda: (
                s.world.one("SELECT count(*) FROM live_session WHERE body->>'state'='active'") == 1
            )
        )
        s.switch.rude = True
        s.switch.drop()
        await until(lambda: s.switch.connected == 0)
        parked = s.switch.dial(UK_FIXED)
        s.switch.answer(rings)
        s.switch.hang_up(talks)
        s.switch.rude = False
        await s.connected()
        await until(lambda: bool(parked.transferred), what="the parked call was sent on")
        await until(lambda: len(s.sessions()) == 1, what="the lost end was found")
        assert s.sessions()[0]["key"] == f"fs1/{talks.uuid}"
        await until(lambda: s.up() == 2)
        s.switch.hang_up(rings)
        s.switch.hang_up(parked)
        await until(lambda: s.up() == 0)
        used = {row["key"]: row["used_ms"] for row in s.sessions()}
        assert used[f"fs1/{rings.uuid}"] == (rings.ended - rings.answered + 500) // 1000
        assert (await verify(s.house.parts.database)).clean


async def test_a_top_up_while_the_switch_is_away_is_set_when_it_is_back(database_url: str) -> None:
    """Whether the call is up nobody could say: it is asked, and extended, as soon as it is connected again."""
    async with scene(database_url, balance="0.03") as s:
        call = await s.routed()
        s.switch.answer(call)
        await until(lambda: s.world.one("SELECT body->>'state' FROM live_session") == "active")
        s.switch.rude = True
        s.switch.drop()
        await until(lambda: s.switch.connected == 0)
        top_up(s.world, s.acme, "1")
        s.switch.rude = False
        await until(
            lambda: s.world.one("SELECT (body->>'granted_seconds')::int FROM live_session") > 4
        )
        await until(lambda: len(s.switch.tasks) == 1 and s.switch.tasks[0][1] > 3.2, seconds=6)
        await until(lambda: s.switch.now() - call.answered > 3_600_000)
        assert call.live
        s.switch.hang_up(call)
        assert (await s.settled())["used_ms"] >= 3_600


async def test_calls_of_a_restarted_switch_end_at_their_last_usage(database_url: str) -> None:
    """A new Core-UUID: what was up before is over, even where a channel has the same id again."""
    async with scene(database_url) as s:
        call = await s.routed()
        s.switch.answer(call)
        await until(lambda: s.world.one("SELECT body->>'state' FROM live_session") == "active")
        await until(lambda: s.world.one("SELECT count(*) FROM call_handle") == 1)
        await s.switch.restart()
        closed = await s.settled()
        assert closed["cause"] == "switch_restart"
        assert closed["ending"] in {"settled", "released"}


async def test_a_command_that_hangs_holds_up_no_other_call(database_url: str) -> None:
    """The transfer of one call is never answered; another call goes its way meanwhile."""
    async with scene(database_url) as s:
        s.switch.hang.add("uuid_transfer")
        stuck = s.switch.dial(UK_FIXED)
        await until(lambda: any("uuid_transfer" in one for one in s.switch.commands))
        s.switch.hang.clear()
        other = await s.routed()
        assert stuck.parked
        # It is sent on when its time to answer is over and the lists are compared.
        await until(lambda: bool(stuck.transferred), seconds=10)
        for call in (stuck, other):
            s.switch.hang_up(call)
        await until(lambda: s.up() == 0)


async def test_a_wrong_password_is_told_and_tried_again(database_url: str) -> None:
    """The switch's password was changed: no login; when it is right again, the agent is there."""
    async with scene(database_url) as s:
        s.switch.password = "another"
        s.switch.drop()
        tried = s.switch.commands.count(f"auth {PASSWORD}")
        await until(lambda: s.switch.commands.count(f"auth {PASSWORD}") > tried + 1, seconds=10)
        assert s.switch.connected == 0
        assert not s.house.board.reach.has("fs1", "freeswitch")
        s.switch.password = PASSWORD
        await s.connected()


async def test_what_is_no_event_socket_is_left_again(database_url: str) -> None:
    """Bytes of something else, endless heads: the connection ends, memory does not grow."""
    async with scene(database_url) as s:
        logins = s.switch.logins
        for client in list(s.switch._clients):
            client.writer.write(b"x" * 200_000)
        await until(lambda: s.switch.logins > logins, seconds=10)
        await s.connected()
        call = await s.routed()
        s.switch.hang_up(call)
        await s.settled()
