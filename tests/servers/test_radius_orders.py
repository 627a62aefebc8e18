"""Orders to a NAS: the exact call is ended or prolonged, again and again until that is answered."""

from __future__ import annotations

from collections.abc import AsyncIterator
from decimal import Decimal

import pytest
import pytest_asyncio

from tests.protocols.house import top_up
from tests.protocols.packets import malformed
from tests.servers.radius_world import SECRET, Set, next_set
from tests.support import until
from tollkeeper.gateways.kill import KillFailed
from tollkeeper.servers.radius.ender import RadiusEnder
from tollkeeper.servers.radius.orders import OrderFailed, Orders, Patience
from tollkeeper.wire.radius.attributes import Attributes, Type, integer, text
from tollkeeper.wire.radius.messages import Status
from tollkeeper.wire.radius.packet import Code

CENT = Decimal("0.01")
QUICK = Patience(first=0.05, most=0.1, total=0.6)


pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(loop_scope="module")
async def desk(radius_shop: Set) -> AsyncIterator[Set]:
    """A call A1 that is up at a switch that takes orders."""
    async with next_set(radius_shop) as made:
        await made.options(orders_port=made.nas.orders_port, extend="coa", slice=60)
        await made.nas.ask([*made.call(), text(Type.NAS_IDENTIFIER, "gw-1")])
        await made.report(Status.START)
        yield made


async def ender(desk: Set, wait: float = 2.5) -> RadiusEnder:
    return RadiusEnder(desk.house.board, QUICK, wait=wait, grace=0.05)


async def test_a_killed_call_is_disconnected_by_its_own_id(desk: Set) -> None:
    """The kill request goes through the outbox; the order names the NAS and the session, and nothing else."""
    await desk.house.board.charging.kill(switch=desk.peer.switch, session_id="A1", why="fraud")
    await until(lambda: len(desk.nas.orders) == 1)
    (order,) = desk.nas.orders
    assert order.code == Code.DISCONNECT_REQUEST
    assert order.attributes[0][0] == Type.MESSAGE_AUTHENTICATOR
    kinds = [kind for kind, _ in order.attributes[1:]]
    assert kinds == [
        Type.NAS_IDENTIFIER,
        Type.USER_NAME,
        Type.ACCT_SESSION_ID,
        Type.EVENT_TIMESTAMP,
    ]
    assert Attributes(order.attributes).text(Type.ACCT_SESSION_ID) == "A1"
    assert malformed([("client", desk.nas.order_bytes[0])], protocol="radius", port=3799) == []


async def test_after_our_restart_the_call_is_still_known_by_its_id(desk: Set) -> None:
    await desk.house.restart()
    await desk.house.board.charging.kill(switch=desk.peer.switch, session_id="A1", why="fraud")
    await until(lambda: len(desk.nas.orders) == 1)
    assert Attributes(desk.nas.orders[0].attributes).text(Type.ACCT_SESSION_ID) == "A1"


async def test_a_call_without_a_session_id_of_its_switch_is_never_ordered_to_end(desk: Set) -> None:
    """RFC 5176 section 3: the order would hit every call of that user."""
    accept = await desk.nas.ask(desk.call(""))
    call_id = (accept.seen.raw(Type.CLASS) or b"").removeprefix(b"tk:").decode()
    orders = await ender(desk)
    with pytest.raises(KillFailed, match="could end other calls"):
        await orders.end(desk.peer.switch, call_id, "fraud")
    with pytest.raises(KillFailed, match="nobody knows"):
        await orders.end(desk.peer.switch, "never-heard-of", "fraud")
    await orders.stop()
    assert desk.nas.orders == []


async def test_an_order_is_repeated_to_the_bit_until_it_is_answered(desk: Set) -> None:
    desk.nas.deaf = True
    orders = await ender(desk)
    with pytest.raises(KillFailed, match="did not answer"):
        await orders.end(desk.peer.switch, "A1", "fraud")
    assert len(desk.nas.order_bytes) >= 3
    assert len(set(desk.nas.order_bytes)) == 1
    desk.nas.deaf = False
    await orders.end(desk.peer.switch, "A1", "fraud")
    assert len(desk.nas.orders) == 1
    await orders.stop()


async def test_whoever_asks_twice_joins_the_order_that_is_under_way(desk: Set) -> None:
    """The outbox asks again after seconds; the NAS must not get an order a second time for that."""
    desk.nas.deaf = True
    orders = await ender(desk, wait=0.1)
    for _ in range(3):
        with pytest.raises(KillFailed, match="has not answered yet"):
            await orders.end(desk.peer.switch, "A1", "fraud")
    assert len(set(desk.nas.order_bytes)) == 1
    await orders.stop()


async def test_a_call_that_the_nas_does_not_know_is_closed_as_it_was_last_told(desk: Set) -> None:
    """NAK with Error-Cause 503."""
    await desk.report(Status.INTERIM, "A1", 21)
    desk.nas.obey = lambda _: 503
    orders = await ender(desk)
    await orders.end(desk.peer.switch, "A1", "fraud")
    await until(lambda: desk.up() == [])
    await orders.stop()
    assert desk.charges() == {"A1": 21 * CENT}


async def test_a_refused_order_is_told_to_be(desk: Set) -> None:
    desk.nas.obey = lambda _: 504
    orders = await ender(desk)
    with pytest.raises(KillFailed, match="refused to end A1: 504"):
        await orders.end(desk.peer.switch, "A1", "fraud")
    await orders.stop()
    assert desk.up() == ["A1"]


async def test_a_switch_that_takes_no_orders_is_sent_none(desk: Set) -> None:
    await desk.options(orders_port=0)
    orders = await ender(desk)
    await orders.end(desk.peer.switch, "A1", "fraud")
    await orders.stop()
    assert desk.nas.orders == []


async def test_a_report_prolongs_the_call_by_coa(desk: Set) -> None:
    """60 seconds were granted; after 30 are used, 90 in all are paid for, counted from the start."""
    await desk.report(Status.INTERIM, "A1", 30)
    await until(lambda: len(desk.nas.orders) == 1)
    order = Attributes(desk.nas.orders[0].attributes)
    assert desk.nas.orders[0].code == Code.COA_REQUEST
    assert order.text(Type.ACCT_SESSION_ID) == "A1"
    assert order.integer(Type.SESSION_TIMEOUT) == 90


async def test_a_top_up_prolongs_the_call_by_coa(radius_shop: Set) -> None:
    async with next_set(radius_shop, balance="0.10") as desk:
        await desk.options(orders_port=desk.nas.orders_port, extend="coa", slice=60)
        accept = await desk.nas.ask(desk.call())
        assert accept.seen.integer(Type.SESSION_TIMEOUT) == 10
        await desk.report(Status.START)
        top_up(desk.world, desk.acme, "0.20")
        await until(lambda: len(desk.nas.orders) == 1)
        order = Attributes(desk.nas.orders[0].attributes)
        assert order.integer(Type.SESSION_TIMEOUT) == 30


async def test_a_top_up_does_not_begin_a_call_that_rings(radius_shop: Set) -> None:
    """What is not answered yet is not reported as used, nor prolonged; its interim tells later."""
    async with next_set(radius_shop, balance="0.10") as desk:
        await desk.options(orders_port=desk.nas.orders_port, extend="coa", slice=60)
        await desk.nas.ask(desk.call())
        top_up(desk.world, desk.acme, "0.20")
        assert (
            desk.world.one(
                "SELECT body->>'state' FROM live_session WHERE key = %s", f"{desk.peer.switch}/A1"
            )
            == "authorised"
        )
        await desk.report(Status.START)
        await desk.report(Status.INTERIM, "A1", 5)
        await until(lambda: len(desk.nas.orders) >= 1)
        assert Attributes(desk.nas.orders[-1].attributes).integer(Type.SESSION_TIMEOUT) == 30


async def test_orders_may_have_a_secret_of_their_own(desk: Set) -> None:
    await desk.options(orders_port=desk.nas.orders_port, orders_secret="orders only")
    desk.nas.secret = b"orders only"
    orders = await ender(desk)
    await orders.end(desk.peer.switch, "A1", "fraud")
    await orders.stop()
    assert len(desk.nas.orders) == 1


async def test_a_call_whose_money_is_used_up_is_disconnected(radius_shop: Set) -> None:
    """The switch has no limit of its own, so that each report extends; at the end we say so."""
    async with next_set(radius_shop, balance="0.10") as desk:
        await desk.options(orders_port=desk.nas.orders_port, extend="interim", slice=5)
        await desk.nas.ask(desk.call())
        await desk.report(Status.START)
        for seconds in (4, 8):
            await desk.report(Status.INTERIM, "A1", seconds)
        assert desk.nas.orders == []
        await desk.report(Status.INTERIM, "A1", 10)
        await until(lambda: len(desk.nas.orders) == 1)
        assert desk.nas.orders[0].code == Code.DISCONNECT_REQUEST


async def test_a_call_that_was_refused_and_begins_all_the_same_is_disconnected(
    radius_shop: Set,
) -> None:
    async with next_set(radius_shop, balance="0") as desk:
        await desk.options(orders_port=desk.nas.orders_port)
        reject = await desk.nas.ask(desk.call())
        assert reject.packet.code == Code.ACCESS_REJECT
        await desk.report(Status.START)
        await until(lambda: len(desk.nas.orders) == 1)
        assert desk.nas.orders[0].code == Code.DISCONNECT_REQUEST


async def test_an_answer_made_with_another_secret_counts_as_none(desk: Set) -> None:
    attributes = [text(Type.ACCT_SESSION_ID, "A1"), integer(Type.EVENT_TIMESTAMP, 1)]
    orders = await Orders.open(patience=QUICK)
    desk.nas.answers_with = b"another secret"
    to = ("127.0.0.1", desk.nas.orders_port, SECRET.encode(), Code.DISCONNECT_REQUEST)
    with pytest.raises(OrderFailed, match="did not answer"):
        await orders.send(*to, attributes)
    assert len(desk.nas.orders) >= 2
    desk.nas.answers_with = b""
    assert (await orders.send(*to, attributes)).code == Code.DISCONNECT_ACK
    orders.close()
