"""Diameter when something is away: a peer, an answer, one of two servers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from decimal import Decimal

import pytest

from tests.protocols.diameter_client import Client
from tests.protocols.house import House, add_trunk, top_up
from tests.servers.diameter_desk import DATA, MB, PATIENT, Desk, open_desk
from tests.support import UK_FIXED, free_port, until
from tollkeeper.core.records import Policy
from tollkeeper.gateways.kill import KillFailed
from tollkeeper.servers.diameter import server as server_module
from tollkeeper.wire.diameter.base import SessionRequest
from tollkeeper.wire.diameter.codec import decode_header
from tollkeeper.wire.diameter.codes import Command, Kind
from tollkeeper.wire.diameter.credit import Control, CreditRequest, Units
from tollkeeper.wire.diameter.service import ServiceInformation

CALL = ServiceInformation(called=f"tel:+{UK_FIXED}")


@pytest.fixture
async def desk(database_url: str) -> AsyncIterator[Desk]:
    async with AsyncExitStack() as stack:
        yield await open_desk(database_url, stack)


class Silent(Client):
    """Takes what it is sent and answers nothing."""

    async def _serve(self, _: bytes) -> None:
        return


def commands(client: Client) -> list[int]:
    """Requests that the server sent, by their commands."""
    heads = [decode_header(data) for who, data in client.frames if who == "server"]
    return [head.command for head in heads if head.request]


# --- a peer is silent -----------------------------------------------------------------------------


async def test_a_peer_that_goes_silent_is_asked_and_then_cut_off(desk: Desk) -> None:
    """Tw: one DWR after the first silence, the end after the second; one that answers it stays."""
    await desk.set_peer(options={"origin_host": "gw.example", "watchdog_seconds": 1})
    silent = Silent()
    desk.stack.push_async_callback(silent.close)
    await silent.connect(desk.address)
    assert (await silent.hello()).result == 2001
    awake = await desk.client()
    began = asyncio.get_running_loop().time()
    await asyncio.wait_for(silent.closed.wait(), 10)
    assert asyncio.get_running_loop().time() - began > 1.5
    assert commands(silent) == [Command.WATCHDOG]
    await until(lambda: commands(awake).count(Command.WATCHDOG) >= 2)
    assert (await awake.watchdog()).result == 2001


async def test_what_a_client_never_answers_is_given_up(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RAR is asked once; ASR fails within its time, so that the outbox asks again, and nothing piles up."""
    monkeypatch.setattr(server_module, "KILL_SECONDS", 0.2)
    poor = desk.world.customer("poor", balance="0.05")
    add_trunk(desk.world, "poor-in", poor)
    await desk.set_peer(trunk="poor-in")
    silent = Silent()
    desk.stack.push_async_callback(silent.close)
    await silent.connect(desk.address)
    assert (await silent.hello()).result == 2001
    asked = (Control(rating_group=1, requested=Units(time=60)),)
    answer = await desk.say(silent, "t", Kind.INITIAL, controls=asked, multiple=True)
    assert answer.controls[0].final
    top_up(desk.world, poor, "5")
    await until(lambda: commands(silent) == [Command.RE_AUTH])
    with pytest.raises(KillFailed, match="did not answer"):
        await desk.house.board.end("gw", "gw.example;t#1", "test")
    assert commands(silent) == [Command.RE_AUTH, Command.ABORT_SESSION]
    (listener,) = desk.house.network.listeners
    (connection,) = listener._node.connections  # type: ignore[attr-defined]
    assert not connection._asked
    # The client asks on, and all is as if it had answered.
    used = (Control(rating_group=1, requested=Units(time=60), used=(Units(time=5),)),)
    answer = await desk.say(silent, "t", Kind.UPDATE, controls=used, multiple=True)
    assert answer.controls[0].granted == Units(time=60)
    assert (await desk.say(silent, "t", Kind.TERMINATION, multiple=True)).result == 2001
    assert desk.world.wallet(poor).balance == Decimal("5.00")
    await desk.proven()


@pytest.mark.parametrize("result", [2001, 2002, 5002])
async def test_however_a_client_answers_a_request_to_ask_again(desk: Desk, result: int) -> None:
    """2001, 2002, or a session that it does not know: it is charged for what it reports."""

    async def answer(_: SessionRequest) -> int:
        return result

    poor = desk.world.customer("poor", balance="0.05")
    add_trunk(desk.world, "poor-in", poor)
    await desk.set_peer(trunk="poor-in")
    client = await desk.client(heard=answer)
    assert (await desk.say(client, "t", Kind.INITIAL, requested=Units(time=60))).final
    top_up(desk.world, poor, "5")
    await until(lambda: len(client.asked) == 1)
    await desk.house.board.end("gw", "gw.example;t#", "test")
    assert (await desk.say(client, "t", Kind.TERMINATION, used=(Units(time=3),))).result == 2001
    assert desk.world.wallet(poor).balance == Decimal("5.02")
    await desk.proven()


async def test_a_quota_that_is_not_reported_in_its_time_is_let_go(database_url: str) -> None:
    """Validity-Time: silence ends the session at its last report; the client is told, and refused later."""
    async with AsyncExitStack() as stack:
        quick = Policy(answer_window=1, grace=1, data_validity=1)
        desk = await open_desk(database_url, stack, policy=quick)
        client = await desk.client()
        more = {"context": DATA, "multiple": True, "information": ServiceInformation()}
        asked = (Control(rating_group=1, requested=Units(total=5 * MB)),)
        answer = await desk.say(client, "d", Kind.INITIAL, controls=asked, **more)
        assert answer.controls[0].validity in {1, 2}
        used = (Control(rating_group=1, requested=Units(total=5 * MB), used=(Units(total=MB),)),)
        await desk.say(client, "d", Kind.UPDATE, controls=used, **more)
        await until(lambda: desk.world.one("SELECT count(*) FROM live_session") == 0)
        assert (desk.held(), desk.balance()) == (0, Decimal("9.99"))
        await until(lambda: len(client.asked) == 1)
        assert client.asked[0].command == Command.ABORT_SESSION
        answer = await desk.say(client, "d", Kind.UPDATE, controls=used, **more)
        assert answer.controls[0].result == 5002
        assert desk.balance() == Decimal("9.98"), "what was used is charged, late"
        assert (await desk.say(client, "d", Kind.TERMINATION, **more)).result == 2001
        await desk.proven()


# --- two servers ----------------------------------------------------------------------------------


async def test_two_servers_charge_one_session_once(desk: Desk) -> None:
    """Begun at one, gone on at the other and back, each request repeated at the other."""
    port = free_port()
    other = House(
        desk.world.url, policy=PATIENT, diameter_listen=f"127.0.0.1:{port}",
        diameter_host="ocs2.example", diameter_realm="example",
    )  # fmt: skip
    await other.start()
    desk.stack.push_async_callback(other.stop)
    one, two = await desk.client(), Client()
    desk.stack.push_async_callback(two.close)
    await two.connect(("127.0.0.1", port))
    assert (await two.hello()).result == 2001

    def request(number: int, kind: Kind, used: int = 0, reason: int | None = None) -> CreditRequest:
        asked = None if kind is Kind.TERMINATION or reason is not None else Units(time=30)
        told = (Units(time=used),) if used else ()
        lines = (Control(rating_group=1, requested=asked, used=told, reason=reason),)
        return one.request(
            "gw.example;s", kind, number, controls=lines, multiple=True, information=CALL
        )

    async def say(first: Client, then: Client, what: CreditRequest) -> None:
        answer = await first.credit(what)
        assert answer.result == 2001
        repeated = await then.credit(what, again=True)
        assert repeated.controls[0].granted == answer.controls[0].granted, what.number
        assert repeated.result == 2001

    await say(one, two, request(0, Kind.INITIAL))
    await say(two, one, request(1, Kind.UPDATE, 10))
    await say(two, one, request(2, Kind.UPDATE, 10))
    await say(one, two, request(3, Kind.UPDATE, 10))
    # 4 is overtaken, and comes where it was not sent first.
    await say(one, two, request(5, Kind.UPDATE, 10))
    await say(two, one, request(4, Kind.UPDATE, 7))
    await say(one, two, request(6, Kind.UPDATE, 10))
    # Given back at one, asked for again at the other.
    await say(one, two, request(7, Kind.UPDATE, 3, reason=2))
    await say(two, one, request(8, Kind.UPDATE))
    await say(one, two, request(9, Kind.UPDATE, 10))
    await say(two, one, request(10, Kind.TERMINATION, 5))
    assert desk.balance() == Decimal(10) - Decimal("0.75")
    await desk.proven()
