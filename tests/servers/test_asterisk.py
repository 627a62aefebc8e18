"""Asterisk beyond the common scenarios: FastAGI by itself, and an agent that hears only half of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from decimal import Decimal
from typing import Any

import pytest

from tests.protocols.asterisk_fake import FakeAsterisk
from tests.protocols.house import House, add_peer, add_trunk
from tests.support import UK_FIXED, Customer, World, free_port, until
from tollkeeper.core.records import Policy
from tollkeeper.servers.asterisk.names import address_of, call_ms, peer_of_channel

PATIENT = Policy()
"""Nothing expires while a test looks."""


class Place:
    """A house with FastAGI, a customer with 100 USD, and one Asterisk."""

    def __init__(self, world: World, house: House, fake: FakeAsterisk, acme: Customer) -> None:
        self.world, self.house, self.fake, self.acme = world, house, fake, acme

    async def peer(self, *, secret: str = "s3cret", **options: Any) -> None:
        """The peer; with a secret, until the agent is logged in."""
        given = {"slice": 4, "connect": f"127.0.0.1:{self.fake.port}", **options}
        add_peer(
            self.world, "ast", "asterisk", addresses=["127.0.0.1"], trunk="acme-in", secret=secret,
            options=given,
        )  # fmt: skip
        await until(lambda: self.house.board.book.named("ast", "asterisk") is not None)
        if secret == self.fake.secret:
            await until(lambda: self.fake.logins > 0, what="the agent is logged in")

    def sessions(self) -> list[dict[str, Any]]:
        """The sessions that are closed and were not refused."""
        return self.world.sql(
            "SELECT key, ending, charge, body->>'cause' AS cause, "
            " coalesce((body->>'used_ms')::bigint, 0) AS used_ms FROM closed_session WHERE ending <> 'refused' ORDER BY closed_at"
        )

    def up(self) -> int:
        """How many are open."""
        return int(self.world.one("SELECT count(*) FROM live_session"))

    async def closed(self, *, seconds: float = 8) -> dict[str, Any]:
        """Wait for the one session's end."""
        await until(lambda: self.up() == 0, seconds=seconds, what="the session is closed")
        (session,) = self.sessions()
        assert self.world.wallet(self.acme).held == 0
        return session


@pytest.fixture
async def place(database_url: str) -> AsyncIterator[Place]:
    """Everything but the peer, of which each test has its own."""
    async with AsyncExitStack() as stack:
        world = stack.enter_context(World(database_url))
        acme = world.customer("acme", balance="100")
        add_trunk(world, "acme-in", acme)
        port = free_port()
        house = House(database_url, policy=PATIENT, agi_listen=f"127.0.0.1:{port}")
        await house.start()
        stack.push_async_callback(house.stop)
        fake = FakeAsterisk(port)
        await fake.start()
        stack.push_async_callback(fake.stop)
        yield Place(world, house, fake, acme)


async def test_without_an_agent_dial_itself_ends_the_call(place: Place) -> None:
    """All of the call is asked for at once; ``L(ms)`` counts from the answer, exactly."""
    await place.peer(secret="", whole_call=1)
    call = await place.fake.dial(UK_FIXED)
    assert call.variables["TK_DIAL_LIMIT"] == "L(1000)"
    assert call.variables["TK_LIMIT"] == "1"
    assert call.variables["TK_PARTY"] == "acme"
    place.fake.answer(call)
    await until(call.told.is_set, what="the call ended by itself")
    session = await place.closed()
    assert session["used_ms"] == call.used_ms >= 1000
    assert place.fake.logins == place.fake.refused_logins == 0


async def test_an_older_asterisk_reports_whole_seconds(place: Place) -> None:
    """Where ANSWEREDTIME_MS is not known, ANSWEREDTIME is charged."""
    await place.peer(secret="")
    place.fake.milliseconds = False
    call = await place.fake.dial(UK_FIXED)
    place.fake.answer(call)
    await until(lambda: asyncio.get_running_loop().time() - (call.answered or 0) > 1.1)
    await place.fake.hang_up(call)
    session = await place.closed()
    assert (session["used_ms"], session["charge"]) == (1000, Decimal("0.01"))


async def test_a_call_that_was_never_answered_costs_nothing(place: Place) -> None:
    """Even where the dialplan had answered it itself, so that CDR(billsec) counts."""
    await place.peer(secret="")
    call = await place.fake.dial(UK_FIXED)
    await place.fake.hang_up(call, cause=19)
    session = await place.closed()
    assert (session["used_ms"], session["charge"], session["cause"]) == (0, 0, "19")


async def test_routes_are_dial_strings_in_their_order(place: Place) -> None:
    """The longest prefix's, the preferred one first."""
    routes = [
        {"prefix": "44", "to": "PJSIP/{number}@dear", "q": "0.5"},
        {"prefix": "44", "to": "PJSIP/{number}@cheap", "q": "1.0"},
    ]
    await place.peer(secret="", routes=routes)
    call = await place.fake.dial("+" + UK_FIXED)
    told = call.variables
    assert told["TK_ROUTES"] == "2"
    assert told["TK_ROUTE_1"] == f"PJSIP/{UK_FIXED}@cheap"
    assert told["TK_ROUTE_2"] == f"PJSIP/{UK_FIXED}@dear"
    assert told["TK_CALLED"] == UK_FIXED
    await place.fake.hang_up(call)
    await place.closed()


async def test_without_a_route_nothing_stays_held(place: Place) -> None:
    """It is refused after it was priced, and its hold goes back at once."""
    await place.peer(secret="", routes=[{"prefix": "1", "to": "PJSIP/{number}@us"}])
    call = await place.fake.dial(UK_FIXED)
    assert (call.variables["TK_RESULT"], call.variables["TK_REASON"]) == ("refuse", "no_route")
    assert call.variables["TK_CAUSE"] == "3"
    assert (await place.closed())["charge"] == 0


async def test_whoever_is_not_known_gets_no_answer(place: Place) -> None:
    """A dialplan that finds no TK_RESULT does not dial."""
    call = await place.fake.dial(UK_FIXED)
    assert call.variables.get("TK_RESULT") is None
    assert not call.up
    assert place.world.one("SELECT count(*) FROM closed_session") == 0


@pytest.mark.parametrize(
    "data",
    [
        b"\x00" * 9000,
        b"GET / HTTP/1.1\r\n\r\n",
        b"agi_uniqueid: 1\nagi_uniqueid: 2\n\n",
        b"agi_network_script: format-all\nagi_uniqueid: 1.1\n\n",
        b"agi_network_script: authorise\nagi_uniqueid: 5.5\nagi_extension: 442071838750\n\n200 nonsense\n",
        b"agi_network_script: authorise\nagi_uniqueid: 5.6\nagi_extension: 442071838750\n\n",
    ],
)
async def test_a_connection_that_breaks_off_leaves_nothing_behind(
    place: Place, data: bytes
) -> None:
    """Whatever was held for it goes back, and the next call is served."""
    await place.peer(secret="")
    reader, writer = await asyncio.open_connection("127.0.0.1", place.fake.agi_port)
    writer.write(data)
    writer.write_eof()
    async with asyncio.timeout(8):
        try:
            while await reader.read(1000):
                pass
        except OSError:
            pass
    writer.close()
    await until(lambda: place.up() == 0, what="nothing is open")
    assert place.world.wallet(place.acme).held == 0
    call = await place.fake.dial(UK_FIXED)
    assert call.variables["TK_RESULT"] == "allow"
    await place.fake.hang_up(call)


async def test_without_extension_h_the_agent_settles_by_the_event(place: Place) -> None:
    """A little later, and with what it measured itself."""
    await place.peer()
    place.fake.h_extension = False
    call = await place.fake.dial(UK_FIXED)
    place.fake.answer(call)
    await until(lambda: bool(call.limits), what="the agent has set the limit")
    await place.fake.hang_up(call, cause=31)
    session = await place.closed()
    assert abs(session["used_ms"] - call.used_ms) < 500
    assert session["cause"] == "31"


async def test_a_kill_request_hangs_the_channel_up(place: Place) -> None:
    """By its own name, once."""
    await place.peer()
    call = await place.fake.dial(UK_FIXED)
    other = await place.fake.dial(UK_FIXED)
    for one in (call, other):
        place.fake.answer(one)
    await until(lambda: bool(call.limits and other.limits), what="both are followed")
    await place.house.parts.charging.kill(switch="ast", session_id=call.uniqueid, why="killed")
    await until(call.told.is_set, what="the call is ended")
    assert call.cause == 21
    assert other.up
    hung = [action["Channel"] for action in place.fake.actions if action["Action"] == "Hangup"]
    assert hung == [call.name]
    await place.fake.hang_up(other)


async def test_the_limit_is_set_again_as_long_as_there_is_money(place: Place) -> None:
    """Slices of two seconds: the call outlives them, its limit always in the switch."""
    await place.peer(slice=2)
    call = await place.fake.dial(UK_FIXED)
    place.fake.answer(call)
    await until(lambda: len(call.limits) >= 2, seconds=10, what="it was extended")
    assert call.up
    assert all(limit <= 4 for limit in call.limits)
    assert call.limits[0] <= 2
    await place.fake.hang_up(call)
    assert (await place.closed())["used_ms"] == call.used_ms


@pytest.mark.parametrize("fault", ["error", "cut", "short"])
async def test_a_list_that_fails_says_nothing_of_calls(
    place: Place, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The call goes on, whatever often it is not listed; a complete list without it ends it."""
    monkeypatch.setattr("tollkeeper.servers.asterisk.link.LIST_SECONDS", 0.2)
    monkeypatch.setattr("tollkeeper.servers.asterisk.agent.SECOND_LOOK_SECONDS", 0.1)
    place.fake.list_fault = fault
    await place.peer(reconcile_seconds=1)
    call = await place.fake.dial(UK_FIXED)
    place.fake.answer(call)
    await until(lambda: bool(call.limits), what="it is followed")

    def lists() -> int:
        return sum(action["Action"] == "CoreShowChannels" for action in place.fake.actions)

    before = lists()
    await until(lambda: lists() >= before + 2, what="two more lists failed")
    assert place.up() == 1
    place.fake.vanish(call)
    place.fake.list_fault = ""
    session = await place.closed(seconds=10)
    assert session["cause"] == "lost_stop"
    assert session["used_ms"] <= call.used_ms + 200


async def test_an_answer_that_nobody_told_is_found_by_comparing(place: Place) -> None:
    """The list shows it in a bridge; since when, the switch is asked."""
    place.fake.lose = {"DialEnd", "BridgeEnter"}
    await place.peer(reconcile_seconds=1)
    call = await place.fake.dial(UK_FIXED)
    place.fake.answer(call)
    await until(lambda: bool(call.limits), what="the limit is set after all")
    assert call.limits[0] < 4
    await place.fake.hang_up(call)
    assert (await place.closed())["used_ms"] == call.used_ms


async def test_a_wrong_secret_is_not_tried_again_and_again(place: Place) -> None:
    """Asterisk may lock an address out; calls are still authorised."""
    await place.peer(secret="wrong")
    await until(lambda: place.fake.refused_logins == 1, what="the login was refused")
    call = await place.fake.dial(UK_FIXED)
    assert call.variables["TK_RESULT"] == "allow"
    place.fake.answer(call)
    await place.fake.hang_up(call)
    await place.closed()
    assert place.fake.refused_logins == 1


async def test_many_calls_at_once_are_all_served_and_settled(place: Place) -> None:
    """Sixty arrive together, are answered and end."""
    await place.peer()
    calls = await asyncio.gather(*(place.fake.dial(UK_FIXED) for _ in range(60)))
    assert {call.variables["TK_RESULT"] for call in calls} == {"allow"}
    for call in calls:
        place.fake.answer(call)
    await until(lambda: all(call.limits for call in calls), what="all are followed")
    await asyncio.gather(*(place.fake.hang_up(call) for call in calls))
    await until(lambda: place.up() == 0, what="all are closed")
    charged = {row["key"].partition("/")[2]: row["used_ms"] for row in place.sessions()}
    assert charged == {call.uniqueid: call.used_ms for call in calls}


@pytest.mark.parametrize(
    ("name", "peer"),
    [("PJSIP/acme-00000002", "acme"), ("SIP/192.0.2.1-0000001f", "192.0.2.1"), ("PJSIP/a-b-0000000a", "a-b"),
     ("Local/44@out-00000001;2", "44"), ("nonsense", ""), ("", "")],
)  # fmt: skip
def test_a_channels_name_has_its_endpoint(name: str, peer: str) -> None:
    """What stands before the counter."""
    assert peer_of_channel(name) == peer


@pytest.mark.parametrize(
    ("text", "address"),
    [("192.0.2.1:5060", "192.0.2.1"), ("192.0.2.1", "192.0.2.1"), ("[2001:db8::1]:5060", "2001:db8::1"),
     ("2001:db8::1", "2001:db8::1"), ("a.example:5060", ""), ("", "")],
)  # fmt: skip
def test_an_address_is_read_with_or_without_its_port(text: str, address: str) -> None:
    """As chan_pjsip and chan_sip write it."""
    assert address_of(text) == address


@pytest.mark.parametrize(
    ("values", "used"),
    [(("61500", "61", "70"), 61500), (("", "61", "70"), 61000), (("", "", "70"), 70000),
     (("", "", ""), None), (("-5", "x", "1.5"), 1500)],
)  # fmt: skip
def test_the_exact_duration_is_preferred(values: tuple[str, str, str], used: int | None) -> None:
    """Milliseconds, then Dial's seconds, then the record's."""
    assert call_ms(*values) == used
