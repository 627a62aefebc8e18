"""What a call is charged where its switch tells things late, twice, wrongly, or of several calls at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from decimal import Decimal

import pytest
import pytest_asyncio

from tests.protocols.house import add_peer
from tests.protocols.radius_nas import Nas
from tests.servers.radius_world import Set, next_set
from tests.support import UK_FIXED, Row, tariff, until
from tollkeeper.wire.radius.attributes import Type, Voice, integer, text, voice
from tollkeeper.wire.radius.messages import Status
from tollkeeper.wire.radius.packet import Attribute, Code

CENT = Decimal("0.01")
MB = 10**6
pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(loop_scope="module")
async def desk(radius_shop: Set) -> AsyncIterator[Set]:
    """A switch and a customer of this test alone."""
    async with next_set(radius_shop) as made:
        yield made


def class_of(call_id: str) -> Attribute:
    return Type.CLASS, b"tk:" + call_id.encode()


# --- counters ------------------------------------------------------------------------------------


async def test_a_counter_that_fell_takes_nothing_back_and_one_that_rose_late_counts(
    desk: Set,
) -> None:
    """The highest total that was ever told is what was used."""
    await desk.nas.ask(desk.call())
    await desk.report(Status.START)
    await desk.report(Status.INTERIM, "A1", 40)
    await desk.report(Status.STOP, "A1", 30)
    assert desk.charges() == {"A1": 40 * CENT}
    await desk.report(Status.INTERIM, "A1", 45)
    await desk.report(Status.STOP, "A1", 50)
    await desk.report(Status.STOP, "A1", 50, integer(Type.ACCT_DELAY_TIME, 9))
    assert desk.charges() == {"A1": 50 * CENT}
    assert desk.spent() == 50 * CENT


async def test_gigawords_that_are_told_from_the_first_on_are_no_wrap(desk: Set) -> None:
    """An old report of less is none either; a counter of 32 bits that begins again is one."""
    world = desk.world
    card = world.card("data", [Row("", "Home", tariff("0.01", 1, 1))], service="data", per=MB)
    plan = world.plan_id
    world.sql(
        "INSERT INTO rate_plan_card (plan_id, position, card_id) VALUES (%s, 2, %s)", plan, card
    )
    world.notify(f"plan:{plan}")
    await desk.options(service="data", extend="interim", orders_port=0)
    await until(lambda: len(desk.house.parts.directory.cards_of(plan, "data")) == 1)

    async def tell(status: Status, call_id: str, octets: int, *, giga: int | None = None) -> None:
        more = [integer(Type.ACCT_INPUT_OCTETS, octets)]
        if giga is not None:
            more.append(integer(Type.ACCT_INPUT_GIGAWORDS, giga))
        await desk.report(status, call_id, 1, *more)

    for call_id in ("big", "small"):
        await desk.nas.ask(desk.call(call_id, called="internet"))
        await desk.report(Status.START, call_id)
        await tell(Status.INTERIM, call_id, 4000 * MB)
        await tell(Status.INTERIM, call_id, 3000 * MB)
    await tell(Status.INTERIM, "big", 5 * MB, giga=1)
    await tell(Status.STOP, "big", 6 * MB, giga=1)
    await tell(Status.STOP, "small", 10 * MB)
    expected = {"big": 2**32 + 6 * MB, "small": 2**32 + 10 * MB}
    for call_id, charge in desk.charges().items():
        assert abs(charge - Decimal(expected.pop(call_id)) / MB * CENT) < CENT / 100
    assert expected == {}


async def test_a_stop_that_is_hours_old_is_charged_what_it_says(desk: Set) -> None:
    """And one that says that it is a century old is believed in all else."""
    for call_id, delay in (("A1", 3 * 3600), ("A2", 2**32 - 1)):
        await desk.nas.ask(desk.call(call_id))
        await desk.report(Status.START, call_id, None, integer(Type.ACCT_DELAY_TIME, delay))
        await desk.report(Status.STOP, call_id, 30, integer(Type.ACCT_DELAY_TIME, delay))
    assert desk.charges() == {"A1": 30 * CENT, "A2": 30 * CENT}


# --- clocks --------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [-3600, 3600, 1_700_000_000])
async def test_a_clock_that_is_set_during_a_call_is_not_charged(desk: Set, step: int) -> None:
    """Nothing but Event-Timestamp tells how long it was: then our own clock does, here some moments."""
    about = [text(Type.ACCT_SESSION_ID, "K1"), text(Type.CALLED_STATION_ID, UK_FIXED)]
    began = 1_700_000_000 if step < 10**9 else 300
    await desk.nas.tell(Status.START, [*about, integer(Type.EVENT_TIMESTAMP, began)])
    desk.later(20)
    await desk.nas.tell(Status.STOP, [*about, integer(Type.EVENT_TIMESTAMP, began + step)])
    (session,) = desk.sessions()
    assert 20_000 <= session["used_ms"] < 30_000
    assert 20 * CENT <= desk.spent() <= 30 * CENT


async def test_without_any_time_a_call_lasts_from_its_start_to_its_stop_by_our_clock(
    desk: Set,
) -> None:
    """The delays of both are taken off; also where what was noted of its start is lost."""
    for call_id in ("A1", "A2"):
        await desk.nas.ask(desk.call(call_id))
        await desk.report(Status.START, call_id, None, integer(Type.ACCT_DELAY_TIME, 3))
    desk.house.board.handles.keep(f"{desk.peer.switch}/A2", {"peer": "gw", "sid": "A2"})
    desk.later(40)
    for call_id in ("A1", "A2"):
        await desk.report(Status.STOP, call_id, None, integer(Type.ACCT_DELAY_TIME, 10))
    used = {row["key"].rpartition("/")[2]: row["used_ms"] for row in desk.sessions()}
    assert 33_000 <= used["A1"] < 40_000
    assert 30_000 <= used["A2"] < 37_000


# --- legs ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("asked", [True, False])
async def test_legs_that_end_at_the_same_moment_are_charged_once(desk: Set, asked: bool) -> None:
    """Both stops are worked on at once, one of 30 s and one of 45 s; whichever is first counts."""
    conference = voice(Voice.CONF_ID, "16000 1 2 3")
    if asked:
        await desk.nas.ask([*desk.call(""), conference])
    await asyncio.gather(
        desk.report(Status.STOP, "L1", 30, conference),
        desk.report(Status.STOP, "L2", 45, conference),
    )
    (charge,) = desk.charges().values()
    assert charge in {30 * CENT, 45 * CENT}
    assert desk.spent() == charge


async def test_the_other_leg_is_known_by_the_class_where_nothing_else_joins_them(desk: Set) -> None:
    """No h323-conf-id; the switch gives our Class along with both legs, whose ids differ."""
    mark = class_of("A1")
    await desk.nas.ask(desk.call())
    for leg in ("A1", "B1"):
        await desk.report(Status.START, leg, None, mark)
    await desk.report(Status.STOP, "A1", 30, mark)
    await desk.report(Status.STOP, "B1", 45, mark)
    assert desk.charges() == {"A1": 30 * CENT}


# --- Class ---------------------------------------------------------------------------------------


async def test_the_class_of_another_call_is_not_believed(desk: Set) -> None:
    """A switch that keeps a Class for the user: the second call has an id that we know."""
    for call_id, seconds in (("A1", 30), ("A2", 12)):
        await desk.nas.ask(desk.call(call_id))
        await desk.report(Status.START, call_id, None, class_of("A1"))
        await desk.report(Status.STOP, call_id, seconds, class_of("A1"))
    assert desk.charges() == {"A1": 30 * CENT, "A2": 12 * CENT}
    assert desk.faults("foreign_class") >= 1


@pytest.mark.parametrize(
    "marks",
    [
        [class_of("A1"), class_of("A1")],
        [class_of("never-heard-of"), class_of("A1")],
        [class_of("A2"), class_of("A1")],
        [(Type.CLASS, b"somebody else's"), class_of("A1")],
        [class_of(f"x{number}") for number in range(20)],
    ],
)
async def test_of_several_classes_the_one_of_the_call_counts(
    desk: Set, marks: list[Attribute]
) -> None:
    for call_id in ("A1", "A2"):
        await desk.nas.ask(desk.call(call_id))
        await desk.report(Status.START, call_id, None, class_of(call_id))
    await desk.report(Status.STOP, "A1", 30, *marks)
    assert desk.charges() == {"A1": 30 * CENT}
    assert desk.up() == ["A2"]


async def test_a_class_that_nobody_gave_does_not_join_calls(desk: Set) -> None:
    """Two calls of which only accounting is heard, with the Class of another server."""
    for call_id, seconds in (("A1", 30), ("A2", 12)):
        await desk.report(Status.START, call_id, None, class_of("elsewhere"))
        await desk.report(Status.STOP, call_id, seconds, class_of("elsewhere"))
    assert desk.charges() == {"A1": 30 * CENT, "A2": 12 * CENT}


async def test_a_call_without_a_name_keeps_to_its_class_after_its_end(desk: Set) -> None:
    """Its stop is said again; it is no new call of the accounting's id."""
    accept = await desk.nas.ask(desk.call(""))
    mark: Attribute = (Type.CLASS, accept.seen.raw(Type.CLASS) or b"")
    await desk.report(Status.START, "Z9", None, mark)
    for delay in (0, 3):
        await desk.report(Status.STOP, "Z9", 20, mark, integer(Type.ACCT_DELAY_TIME, delay))
    assert list(desk.charges().values()) == [20 * CENT]


# --- order ---------------------------------------------------------------------------------------


async def test_a_start_behind_its_stop_opens_nothing(desk: Set) -> None:
    """Of a call that was asked for, and of calls of which only accounting is heard, answered or not."""
    await desk.nas.ask(desk.call("A1"))
    for call_id, seconds in (("A1", 10), ("B1", 20), ("B2", 0)):
        await desk.report(Status.STOP, call_id, seconds)
        await desk.report(Status.START, call_id, None, integer(Type.ACCT_DELAY_TIME, 2))
    assert desk.up() == []
    assert desk.spent() == 30 * CENT


async def test_an_on_that_comes_behind_a_new_call_costs_nothing_and_loses_nothing(
    desk: Set,
) -> None:
    """It does not say that it is late: the call is closed by it, and charged by its stop all the same."""
    await desk.nas.ask(desk.call())
    await desk.nas.tell(Status.ON, [])
    assert desk.up() == []
    await desk.report(Status.START)
    await desk.report(Status.INTERIM, "A1", 10)
    await desk.report(Status.STOP, "A1", 30)
    assert desk.charges() == {"A1": 30 * CENT}
    assert desk.spent() == 30 * CENT


# --- several NAS ---------------------------------------------------------------------------------


async def test_a_restart_ends_only_the_calls_of_the_nas_that_restarted(desk: Set) -> None:
    """Of several behind one peer, whether a proxy or a network, and by whichever name they tell."""
    one = [text(Type.NAS_IDENTIFIER, "one"), (int(Type.NAS_IP_ADDRESS), bytes((10, 0, 0, 1)))]
    two = [text(Type.NAS_IDENTIFIER, "two"), (int(Type.NAS_IP_ADDRESS), bytes((10, 0, 0, 2)))]
    for call_id, nas in (("A1", one), ("B1", two)):
        await desk.nas.ask([*desk.call(call_id), *nas])
        await desk.report(Status.START, call_id, None, *nas)
        await desk.report(Status.INTERIM, call_id, 10, *nas)
    await desk.nas.tell(Status.ON, [two[1]])
    assert desk.up() == ["A1"]
    await desk.nas.tell(Status.ON, [text(Type.NAS_IDENTIFIER, "three")])
    assert desk.up() == ["A1"]
    await desk.nas.tell(Status.OFF, [one[0]])
    assert desk.charges() == {"A1": 10 * CENT, "B1": 10 * CENT}


async def test_a_proxy_that_does_not_say_whose_restart_it_is_ends_nothing(desk: Set) -> None:
    await desk.options(proxied=True)
    nas = text(Type.NAS_IDENTIFIER, "one")
    await desk.nas.ask([*desk.call(), nas])
    await desk.nas.tell(Status.ON, [])
    assert desk.up() == ["one:A1"]
    await desk.report(Status.STOP, "A1", 5, nas, class_of("one:A1"))
    assert desk.charges() == {"one:A1": 5 * CENT}


async def test_a_packet_is_of_the_narrowest_peer_and_must_prove_that_one_s_secret(
    desk: Set,
) -> None:
    """Where a network and an address in it are two peers, neither is charged for the other's calls."""
    add_peer(
        desk.world,
        "wide",
        "radius",
        addresses=["127.0.0.0/8"],
        secret="wide",
        trunk=desk.peer.trunk,
    )
    await until(lambda: "wide" in desk.house.board.book.peers)
    wide, elsewhere = (
        Nas(b"wide", desk.nas.auth, desk.nas.acct, host=host) for host in ("127.0.0.1", "127.0.0.7")
    )
    for nas in (wide, elsewhere):
        await nas.open()
    try:
        refused = wide.request(Code.ACCESS_REQUEST, desk.call("W1"))
        assert await wide.try_to_send(refused, wide.auth, seconds=0.2) is None
        assert (await elsewhere.ask(desk.call("W1"))).packet.code == Code.ACCESS_ACCEPT
        await desk.nas.ask(desk.call("W1"))
        await desk.report(Status.STOP, "W1", 7)
    finally:
        wide.close()
        elsewhere.close()
    assert desk.charges() == {"W1": 7 * CENT}
    assert desk.world.sql("SELECT key FROM live_session WHERE key = 'wide/W1'")
