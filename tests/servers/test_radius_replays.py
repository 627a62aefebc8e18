"""An Access-Request that comes once more: a duplicate, another server of ours asked, or a new call."""

from __future__ import annotations

from collections.abc import AsyncIterator
from decimal import Decimal

import pytest
import pytest_asyncio

from tests.servers.radius_world import Set, next_set
from tests.support import until
from tollkeeper.servers.radius import access, server
from tollkeeper.wire.radius.attributes import Type, Voice, integer, voice
from tollkeeper.wire.radius.messages import Status
from tollkeeper.wire.radius.packet import Attribute, Code

CENT = Decimal("0.01")
pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(loop_scope="module")
async def desk(radius_shop: Set) -> AsyncIterator[Set]:
    """A switch and a customer of this test alone."""
    async with next_set(radius_shop) as made:
        yield made


@pytest.fixture
def _forgetful(monkeypatch: pytest.MonkeyPatch) -> None:
    """The cache of answers knows nothing of a request any more, as after its thirty seconds."""
    monkeypatch.setattr(server.Answers, "begin", lambda *_: server.Known.NEW)


async def begin(desk: Set, *more: Attribute) -> bytes:
    """A call A1 that is up; the request that opened it."""
    asked = await desk.nas.ask([*desk.call(), *more])
    await desk.report(Status.START, "A1", None, *more)
    assert desk.world.one("SELECT count(*) FROM live_session WHERE key = %s", key(desk)) == 1
    return asked.sent


def key(desk: Set, call_id: str = "A1") -> str:
    return f"{desk.peer.switch}/{call_id}"


@pytest.mark.usefixtures("_forgetful")
async def test_a_replayed_request_neither_ends_its_call_nor_opens_another(desk: Set) -> None:
    """An hour after it was answered; the same grant again, and the call is charged once."""
    sent = await begin(desk)
    await desk.report(Status.INTERIM, "A1", 40)
    desk.later(3600)
    for _ in range(2):
        again = await desk.nas.send(sent, desk.nas.auth)
        assert again.packet.code == Code.ACCESS_ACCEPT
        assert again.seen.integer(Type.SESSION_TIMEOUT) == 7200
        assert again.seen.raw(Type.CLASS) == b"tk:A1"
    assert desk.up() == ["A1"]
    await desk.report(Status.STOP, "A1", 55)
    assert desk.charges() == {"A1": 55 * CENT}
    assert desk.spent() == 55 * CENT


@pytest.mark.usefixtures("_forgetful")
async def test_after_our_restart_a_replayed_request_is_still_known(desk: Set) -> None:
    """What opened the call is kept with it."""
    sent = await begin(desk)
    house = desk.house
    await until(
        lambda: desk.world.one("SELECT count(*) FROM call_handle WHERE key = %s", key(desk)) == 1
    )
    house.board.handles._known.clear()
    desk.later(3600)
    assert (await desk.nas.send(sent, desk.nas.auth)).seen.raw(Type.CLASS) == b"tk:A1"
    await desk.report(Status.STOP, "A1", 20)
    assert desk.charges() == {"A1": 20 * CENT}
    assert desk.up() == []


@pytest.mark.usefixtures("_forgetful")
async def test_a_request_that_is_replayed_after_its_call_opens_nothing(desk: Set) -> None:
    """And the stop that is said again, without a Class, is not charged to a call that never was."""
    sent = await begin(desk)
    await desk.report(Status.STOP, "A1", 12)
    before = desk.faults("replayed")
    assert await desk.nas.try_to_send(sent, desk.nas.auth, seconds=0.2) is None
    assert desk.faults("replayed") == before + 1
    await desk.report(Status.STOP, "A1", 12, integer(Type.ACCT_DELAY_TIME, 4))
    assert desk.charges() == {"A1": 12 * CENT}
    assert desk.up() == []
    assert desk.spent() == 12 * CENT


async def test_another_server_of_ours_that_was_asked_grants_the_same_call(desk: Set) -> None:
    """The switch asked it by a request of its own, and the first answer was good enough."""
    await begin(desk)
    late = await desk.nas.ask(desk.call())
    assert late.seen.raw(Type.CLASS) == b"tk:A1"
    desk.later(3600)
    # Both requests are known to be of this call from now on.
    desk.nas.last = None
    assert (await desk.nas.send(late.sent, desk.nas.auth)).seen.raw(Type.CLASS) == b"tk:A1"
    await desk.report(Status.STOP, "A1", 30)
    assert desk.charges() == {"A1": 30 * CENT}
    assert desk.up() == []


async def test_a_request_that_comes_behind_a_short_call_does_not_double_it(desk: Set) -> None:
    """Another server was asked and is slow: its call never is, and the stop said again is the first's."""
    await begin(desk)
    await desk.report(Status.STOP, "A1", 3)
    slow = await desk.nas.ask(desk.call())
    assert slow.seen.raw(Type.CLASS) == b"tk:A1~2"
    await desk.report(Status.STOP, "A1", 3, integer(Type.ACCT_DELAY_TIME, 1))
    assert desk.charges() == {"A1": 3 * CENT}
    assert desk.up() == ["A1~2"]


async def test_a_switch_that_restarts_in_silence_begins_a_new_call(desk: Set) -> None:
    """The same Acct-Session-Id is asked for, much later, while its call seems to be up."""
    await begin(desk)
    await desk.report(Status.INTERIM, "A1", 40)
    desk.later(int(access.FAILOVER.total_seconds()) + 1)
    again = await desk.nas.ask(desk.call())
    assert again.seen.raw(Type.CLASS) == b"tk:A1~2"
    await desk.report(Status.START)
    await desk.report(Status.STOP, "A1", 33)
    assert desk.charges() == {"A1": 40 * CENT, "A1~2": 33 * CENT}


async def test_the_late_stop_of_the_call_before_is_charged_to_that_one(desk: Set) -> None:
    """Two calls had the id A1: what cannot be of the second, or has the first one's Class, is the first's."""
    first: Attribute = (Type.CLASS, b"tk:A1")
    second: Attribute = (Type.CLASS, b"tk:A1~2")
    await begin(desk)
    await desk.report(Status.INTERIM, "A1", 40)
    desk.later(60)
    await desk.nas.ask(desk.call())
    desk.later(0)
    await desk.report(Status.START, "A1", None, second)
    await desk.report(Status.STOP, "A1", 50, first)
    await desk.report(Status.STOP, "A1", 52)
    assert desk.up() == ["A1~2"]
    assert desk.charges() == {"A1": 52 * CENT}
    await desk.report(Status.STOP, "A1", 2, second)
    assert desk.charges() == {"A1": 52 * CENT, "A1~2": 2 * CENT}
    assert desk.spent() == 54 * CENT


@pytest.mark.usefixtures("_forgetful")
async def test_asking_for_more_once_more_uses_nothing_up(desk: Set) -> None:
    """Termination-Action = RADIUS-Request: the State says which seconds are over."""
    await desk.options(extend="reauthorise", slice=60)
    first = await desk.nas.ask(desk.call())
    await desk.report(Status.START)
    more = [*desk.call(), (int(Type.STATE), first.seen.raw(Type.STATE) or b"")]
    granted = await desk.nas.ask(more)
    for repeated in (await desk.nas.send(granted.sent, desk.nas.auth), await desk.nas.ask(more)):
        assert repeated.seen.integer(Type.SESSION_TIMEOUT) == 60
        assert repeated.seen.raw(Type.STATE) == granted.seen.raw(Type.STATE)
    await desk.report(Status.STOP, "A1", 70)
    assert (await desk.nas.send(granted.sent, desk.nas.auth)).packet.code == Code.ACCESS_REJECT
    later = [*desk.call(), (int(Type.STATE), granted.seen.raw(Type.STATE) or b"")]
    assert (await desk.nas.ask(later)).packet.code == Code.ACCESS_REJECT
    assert desk.charges() == {"A1": 70 * CENT}


async def test_a_second_call_of_one_card_session_is_charged_by_its_own_legs(desk: Set) -> None:
    """A calling card dials again without hanging up: the same h323-conf-id, other legs, no Class."""
    conference = voice(Voice.CONF_ID, "16000 1 2 3")
    for leg, seconds in (("L1", 5), ("L2", 4)):
        await desk.nas.ask([*desk.call(""), conference])
        await desk.report(Status.START, leg, None, conference)
        await desk.report(Status.STOP, leg, seconds, conference)
    assert sorted(desk.charges().values()) == [4 * CENT, 5 * CENT]
    assert desk.up() == []


async def test_another_process_that_opened_the_id_again_is_not_charged_the_stop_said_again(
    desk: Set,
) -> None:
    """Here nothing is known of its call; its own start and stop are found all the same."""
    await begin(desk)
    await desk.report(Status.STOP, "A1", 3)
    await desk.nas.ask(desk.call())
    desk.house.board._ids._again.clear()
    await desk.report(Status.STOP, "A1", 3, integer(Type.ACCT_DELAY_TIME, 1))
    assert desk.charges() == {"A1": 3 * CENT}
    desk.house.board._ids._again.clear()
    await desk.report(Status.START, "A1", None, integer(Type.ACCT_DELAY_TIME, 0))
    await desk.report(Status.STOP, "A1", 2)
    assert desk.charges() == {"A1": 3 * CENT, "A1~2": 2 * CENT}
