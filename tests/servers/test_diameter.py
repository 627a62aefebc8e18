"""The Diameter server on a real socket and a real database: who is let in, what is granted, what is charged."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from decimal import Decimal
from typing import Any

import pytest

from tests.protocols.diameter_client import Client
from tests.protocols.house import add_peer, add_trunk, top_up
from tests.protocols.packets import malformed
from tests.servers.diameter_desk import DATA, MB, SMS, Desk, open_desk
from tests.support import PREMIUM, UK_FIXED, UNSOLD, until
from tollkeeper.wire.diameter import codes
from tollkeeper.wire.diameter.base import SessionRequest, decode_answer
from tollkeeper.wire.diameter.codec import avp, avp_text, decode_header
from tollkeeper.wire.diameter.codes import Action, Command, Kind
from tollkeeper.wire.diameter.credit import Control, CreditAnswer, Money, Units
from tollkeeper.wire.diameter.credit_encode import encode_request
from tollkeeper.wire.diameter.service import ServiceInformation


@pytest.fixture
async def desk(database_url: str) -> AsyncIterator[Desk]:
    async with AsyncExitStack() as stack:
        yield await open_desk(database_url, stack)


# --- who is let in --------------------------------------------------------------------------------


async def test_only_peers_that_are_set_are_let_in(desk: Desk) -> None:
    """By name and address; others get 3010 or 5010 and are cut off."""
    add_peer(desk.world, "far.example", "diameter", addresses=["192.0.2.0/24"])
    await until(lambda: "far.example" in desk.house.board.book.peers)
    for host, more, result in (
        ("stranger.example", {}, 3010),
        ("far.example", {}, 3010),
        ("gw.example", {"auth_applications": (16777251,)}, 5010),
    ):
        client = Client(host)
        desk.stack.push_async_callback(client.close)
        await client.connect(desk.address)
        assert (await client.hello(**more)).result == result
        await asyncio.wait_for(client.closed.wait(), 5)


async def test_what_is_no_hello_ends_the_connection(desk: Desk) -> None:
    """HTTP, a message of 16 MB, one of no length, a request before the hello: nothing is answered."""
    for data in (
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x01\xff\xff\xff" + bytes(16),
        b"\x01\x00\x00\x10" + bytes(16),
        encode_request(Client().request("s", Kind.INITIAL, 0), 1, 1),
    ):
        client = Client()
        desk.stack.push_async_callback(client.close)
        await client.connect(desk.address)
        client.send(data)
        await asyncio.wait_for(client.closed.wait(), 5)
        assert [who for who, _ in client.frames] == ["client"], data


async def test_the_connection_is_watched_and_left_in_good_order(desk: Desk) -> None:
    client = await desk.client()
    assert (await client.watchdog()).result == 2001
    assert (await client.goodbye()).result == 2001
    await asyncio.wait_for(client.closed.wait(), 5)
    await until(lambda: not desk.house.board.reach.has("gw", "diameter"))


async def test_a_peer_that_is_switched_off_is_told_goodbye(desk: Desk) -> None:
    client = await desk.client()
    desk.world.sql("UPDATE peer SET enabled = false WHERE code = 'gw'")
    desk.world.notify("peer:1")
    await asyncio.wait_for(client.closed.wait(), 5)
    heard = [decode_header(data) for who, data in client.frames if who == "server"]
    assert heard[-1].command == Command.DISCONNECT
    assert heard[-1].request


async def test_a_broken_request_is_answered_and_the_connection_goes_on(desk: Desk) -> None:
    """An AVP that nobody knows, a length that lies, one that is missing: told, with the AVP."""
    client = await desk.client()
    whole = encode_request(client.request("gw.example;b", Kind.INITIAL, 0), 1, 1)

    def with_more(more: bytes) -> Any:
        data = whole[20:] + more
        head = bytes([1]) + (len(data) + 20).to_bytes(3) + whole[4:12]
        return lambda hop: head + hop.to_bytes(4) + whole[16:20] + data

    proxy = avp_text(codes.PROXY_HOST, "dra.example") + avp(codes.PROXY_STATE, b"42")
    unknown = avp(99999, b"what")
    answer = decode_answer(await client.exchange(with_more(avp(codes.PROXY_INFO, proxy) + unknown)))
    assert (answer.result, answer.failed) == (5001, (unknown,))
    assert (answer.session_id, answer.proxies) == ("gw.example;b", (proxy,))
    lying = bytearray(avp(codes.USER_NAME, b"abcd"))
    lying[7] = 200
    assert decode_answer(await client.exchange(with_more(bytes(lying)))).result == 5014
    assert (await client.watchdog()).result == 2001


# --- sessions -------------------------------------------------------------------------------------


async def test_services_of_one_session_are_charged_each_by_its_own(desk: Desk) -> None:
    """Two rating groups of data; a third is asked for later; the end tells of one, and ends all."""
    client = await desk.client()
    asked = [Control(rating_group=group, requested=Units(total=5 * MB)) for group in (1, 2)]
    more = {"context": DATA, "multiple": True, "information": ServiceInformation()}
    answer = await desk.say(client, "d", Kind.INITIAL, controls=tuple(asked), **more)
    assert answer.result == 2001
    assert [(one.rating_group, one.granted, one.result) for one in answer.controls] == [
        (1, Units(total=5 * MB), 2001),
        (2, Units(total=5 * MB), 2001),
    ]
    assert all(one.validity and one.validity > 1000 for one in answer.controls)
    used = (Units(total=3 * MB, tariff_change=0), Units(input=MB, output=MB, tariff_change=1))
    lines = (
        Control(rating_group=1, requested=Units(total=5 * MB), used=used),
        Control(rating_group=3, requested=Units()),
    )
    answer = await desk.say(client, "d", Kind.UPDATE, controls=lines, **more)
    first, third = answer.controls
    assert first.granted is not None
    assert first.granted.total == 5 * MB
    assert (third.result, third.granted) == (2001, Units(total=10 * MB))
    assert desk.world.one("SELECT count(*) FROM live_session") == 3
    last = (Control(rating_group=1, used=(Units(total=MB),)),)
    answer = await desk.say(client, "d", Kind.TERMINATION, controls=last, **more)
    assert answer.result == 2001
    assert desk.balance() == Decimal(10) - Decimal("0.06")
    await desk.proven()


async def test_a_simple_session_is_granted_without_lists(desk: Desk) -> None:
    """No Multiple-Services-Credit-Control: the units stand in the answer itself."""
    client = await desk.client()
    answer = await desk.say(client, "v", Kind.INITIAL, requested=Units(time=30))
    assert (answer.result, answer.granted, answer.validity) == (2001, Units(time=30), 30)
    assert answer.failure_handling == codes.FailureHandling.TERMINATE
    assert not answer.final
    answer = await desk.say(
        client, "v", Kind.UPDATE, requested=Units(time=30), used=(Units(time=30),)
    )
    assert answer.granted == Units(time=30)
    # More than was granted: it was used, so it is charged.
    answer = await desk.say(client, "v", Kind.TERMINATION, used=(Units(time=45),))
    assert answer.result == 2001
    assert desk.balance() == Decimal(10) - Decimal("0.75")
    await desk.proven()


async def test_the_last_units_are_marked_and_nothing_comes_after_them(desk: Desk) -> None:
    """Final-Unit-Indication TERMINATE; whoever asks on gets 4012, and is settled there."""
    poor = desk.world.customer("poor", balance="0.05")
    add_trunk(desk.world, "poor-in", poor)
    desk.world.sql("UPDATE peer SET trunk = 'poor-in'")
    desk.world.notify("peer:1")
    await until(lambda: desk.house.board.book.peers["gw"].trunk == "poor-in")
    client = await desk.client()
    answer = await desk.say(client, "p", Kind.INITIAL, requested=Units(time=30))
    assert (answer.granted, answer.final) == (Units(time=5), True)
    answer = await desk.say(client, "p", Kind.UPDATE, used=(Units(time=5),))
    assert answer.result == 4012
    assert desk.world.wallet(poor).balance == 0
    answer = await desk.say(client, "p", Kind.TERMINATION)
    assert answer.result == 2001
    answer = await desk.say(client, "q", Kind.INITIAL, requested=Units(time=30))
    assert answer.result == 4012
    assert (await desk.say(client, "q", Kind.TERMINATION)).result == 2001
    await desk.proven()


async def test_a_repetition_gets_the_original_answer_also_after_our_restart(desk: Desk) -> None:
    """The same total is found by its number; nothing is charged or granted twice (RFC 8506 section 8.2)."""
    client = await desk.client()
    first = client.request(
        "gw.example;r", Kind.INITIAL, 0, requested=Units(time=30),
        information=ServiceInformation(called=f"tel:+{UK_FIXED}"),
    )  # fmt: skip
    second = client.request(
        "gw.example;r", Kind.UPDATE, 1, requested=Units(time=30), used=(Units(time=20),)
    )
    granted = await client.credit(first, end_to_end=501)
    more = await client.credit(second, end_to_end=502)
    assert await client.credit(second, end_to_end=502, again=True) == more
    # With another End-to-End-Id it is the CC-Request-Number that tells.
    assert (await client.credit(second, end_to_end=503, again=True)).granted == more.granted
    await desk.house.restart()
    client = await desk.client()
    again = await client.credit(second, end_to_end=502, again=True)
    assert (again.result, again.granted, again.final) == (2001, more.granted, more.final)
    assert (await client.credit(first, end_to_end=501, again=True)).granted == granted.granted
    last = client.request("gw.example;r", Kind.TERMINATION, 2, used=(Units(time=7),))
    assert (await client.credit(last, end_to_end=504)).result == 2001
    await desk.house.restart()
    client = await desk.client()
    assert (await client.credit(last, end_to_end=504, again=True)).result == 2001
    assert desk.balance() == Decimal(10) - Decimal("0.27")
    await desk.proven()


async def test_numbers_that_were_lost_or_come_late_count_all_the_same(desk: Desk) -> None:
    """Request 2 is overtaken by 3: what each reports is added once, in whatever order."""
    client = await desk.client()
    await desk.say(client, "g", Kind.INITIAL, requested=Units(time=60))

    async def update(number: int, used: int) -> CreditAnswer:
        return await client.credit(
            client.request(
                "gw.example;g", Kind.UPDATE, number, requested=Units(time=60),
                used=(Units(time=used),),
            )
        )  # fmt: skip

    assert (await update(1, 10)).result == 2001
    assert (await update(3, 30)).result == 2001
    assert (await update(2, 20)).result == 2001
    assert (await update(2, 20)).result == 2001
    last = client.request("gw.example;g", Kind.TERMINATION, 4, used=(Units(time=1),))
    assert (await client.credit(last)).result == 2001
    assert desk.balance() == Decimal(10) - Decimal("0.61")
    await desk.proven()


async def test_money_that_comes_in_mid_call_is_told_and_a_call_is_ended_from_here(
    desk: Desk,
) -> None:
    """RAR after a top-up of a call that heard its end; ASR when the operator ends it."""
    poor = desk.world.customer("poor", balance="0.05")
    add_trunk(desk.world, "poor-in", poor)
    desk.world.sql("UPDATE peer SET trunk = 'poor-in'")
    desk.world.notify("peer:1")
    await until(lambda: desk.house.board.book.peers["gw"].trunk == "poor-in")
    client = await desk.client()
    lines = (Control(rating_group=7, requested=Units(time=60)),)
    await desk.say(client, "t", Kind.INITIAL, controls=lines, multiple=True)
    top_up(desk.world, poor, "5")
    await until(lambda: len(client.asked) == 1, what="a Re-Auth-Request")
    wish = client.asked[0]
    assert wish == SessionRequest(
        Command.RE_AUTH, "gw.example;t", "ocs.example", "example", "example", "gw.example", 7,
        wish.state_id,
    )  # fmt: skip
    used = (Control(rating_group=7, requested=Units(time=60), used=(Units(time=2),)),)
    answer = await desk.say(client, "t", Kind.UPDATE, controls=used, multiple=True)
    assert answer.controls[0].granted == Units(time=60)
    assert not answer.controls[0].final

    await desk.house.parts.charging.kill(switch="gw", session_id="gw.example;t#7", why="fraud")
    await until(lambda: len(client.asked) == 2, what="an Abort-Session-Request")
    assert (client.asked[1].command, client.asked[1].session_id) == (
        Command.ABORT_SESSION,
        "gw.example;t",
    )
    ended = (Control(rating_group=7, used=(Units(time=1),)),)
    answer = await desk.say(client, "t", Kind.TERMINATION, controls=ended, multiple=True)
    assert answer.result == 2001
    assert desk.world.wallet(poor).balance == Decimal("5.02")
    await desk.proven()


async def test_what_is_refused_is_told_why(desk: Desk) -> None:
    """4010, 4011, 4012, 5002, 5030, 5031 as RFC 8506 section 9 has them."""
    client = await desk.client()

    async def result(session: str, called: str, **more: Any) -> int:
        about = ServiceInformation(called=f"tel:+{called}")
        answer = await desk.say(client, session, Kind.INITIAL, information=about, **more)
        return answer.result

    assert await result("a", PREMIUM, requested=Units(time=60)) == 4012
    assert await result("b", UNSOLD) == 5031
    assert await result("c", "88213123456") == 4010
    assert await result("e", UK_FIXED, requested=Units(money=Money(Decimal(1), 840))) == 5031
    assert (await desk.say(client, "nobody", Kind.UPDATE)).result == 5002
    assert (await desk.say(client, "nobody2", Kind.TERMINATION)).result == 5002
    desk.world.sql(
        """UPDATE peer SET trunk = '', options = options || '{"free_uncontrolled": true}'"""
    )
    desk.world.notify("peer:1")
    await until(lambda: not desk.house.board.book.peers["gw"].trunk)
    assert await result("f", UK_FIXED) == 5030
    desk.world.sql("UPDATE peer SET trunk = 'acme-in'")
    desk.world.notify("peer:1")
    await until(lambda: desk.house.board.book.peers["gw"].trunk == "acme-in")
    assert await result("h", "390612345") == 4011
    assert (await desk.say(client, "a", Kind.TERMINATION)).result == 2001
    await desk.proven()


async def test_a_restarted_client_has_lost_its_sessions(desk: Desk) -> None:
    """A newer Origin-State-Id: what it had open ends as it was last reported (RFC 6733 section 8.16)."""
    client = Client()
    desk.stack.push_async_callback(client.close)
    await client.connect(desk.address)
    assert (await client.hello(state_id=100)).result == 2001
    await desk.say(client, "x", Kind.INITIAL, requested=Units(time=60))
    await desk.say(client, "x", Kind.UPDATE, requested=Units(time=60), used=(Units(time=8),))
    again = Client()
    desk.stack.push_async_callback(again.close)
    await again.connect(desk.address)
    assert (await again.hello(state_id=101)).result == 2001
    await until(lambda: desk.world.one("SELECT count(*) FROM live_session") == 0)
    assert desk.balance() == Decimal(10) - Decimal("0.08")
    await desk.proven()


# --- events ---------------------------------------------------------------------------------------


async def test_events_debit_give_back_and_ask(desk: Desk) -> None:
    """A message of two parts is charged once, given back once; asking holds nothing."""
    client = await desk.client()
    about = ServiceInformation(calling="12025550100", recipients=(f"+{UK_FIXED}",))
    values: dict[str, Any] = {"context": SMS, "information": about}

    async def event(session: str, action: Action, units: int, **more: Any) -> CreditAnswer:
        return await client.credit(
            client.request(
                f"gw.example;{session}", Kind.EVENT, 0, action=action,
                requested=Units(specific=units), **values, **more,
            )
        )  # fmt: skip

    answer = await event("m", Action.DIRECT_DEBITING, 2)
    assert (answer.result, answer.granted) == (2001, Units(specific=2))
    assert (await event("m", Action.DIRECT_DEBITING, 2)).result == 2001
    assert desk.balance() == Decimal("9.90")
    answer = await event("n", Action.PRICE_ENQUIRY, 3)
    assert answer.cost == Money(Decimal("0.15"), 840)
    assert (await event("o", Action.CHECK_BALANCE, 3)).balance_enough is True
    assert (await event("o", Action.CHECK_BALANCE, 10_000)).balance_enough is False
    answer = await event("k", Action.REFUND_ACCOUNT, 2, correlation=b"gw.example;m")
    assert answer.result == 2001
    assert (await event("k", Action.REFUND_ACCOUNT, 2, correlation=b"gw.example;m")).result == 2001
    assert desk.balance() == Decimal(10)
    assert (await event("l", Action.REFUND_ACCOUNT, 1, correlation=b"never")).result == 5002
    assert (await event("u", Action.DIRECT_DEBITING, 1000)).result == 4012
    assert (await event("v", Action.PRICE_ENQUIRY, 1, service=1)).result == 2001
    await desk.proven()


# --- through others, and under load ------------------------------------------------------------------


async def test_other_hosts_are_taken_from_relays_only(desk: Desk) -> None:
    """What a relay needs to find the way back is returned (Proxy-Info)."""
    client = await desk.client()
    proxy = avp_text(codes.PROXY_HOST, "dra.example") + avp(codes.PROXY_STATE, b"42")
    behind = {
        "origin_host": "far.example", "proxies": (proxy,), "routes": ("far.example",),
        "requested": Units(time=10),
    }  # fmt: skip

    request = client.request("far.example;1", Kind.INITIAL, 0, **behind)
    refused = decode_answer(await client.exchange(lambda hop: encode_request(request, hop, 9)))
    assert (refused.result, refused.proxies) == (5003, (proxy,))
    desk.world.sql("""UPDATE peer SET options = options || '{"relay": true}'""")
    desk.world.notify("peer:1")
    await until(lambda: desk.house.board.book.peers["gw"].flag("relay"))
    answer = await desk.say(client, "far", Kind.INITIAL, **behind)
    assert (answer.result, answer.proxies) == (2001, (proxy,))
    key = desk.world.one("SELECT key FROM live_session")
    await desk.house.board.end("gw", key.partition("/")[2], "test")
    assert client.asked[0].destination_host == "far.example"
    assert (await desk.say(client, "far", Kind.TERMINATION, **behind)).result == 2001


async def test_too_many_at_once_are_told_so_and_new_calls_first(database_url: str) -> None:
    """3004 TOO_BUSY in time; ends of calls still find room; sent again, it is carried out."""
    async with AsyncExitStack() as stack:
        desk = await open_desk(database_url, stack, network_queue_max=2)
        client = await desk.client()
        answers = await asyncio.gather(
            *(
                client.exchange(
                    lambda hop, n=n: encode_request(
                        client.request(
                            f"gw.example;{n}", Kind.INITIAL, 0, requested=Units(time=5),
                            information=ServiceInformation(called=UK_FIXED),
                        ), hop, hop,
                    )
                )
                for n in range(20)
            )
        )  # fmt: skip

        read = [decode_answer(answer) for answer in answers]
        busy = [one for one in read if one.result == 3004]
        granted = [one for one in read if one.result == 2001]
        assert len(busy) + len(granted) == 20
        assert len(granted) >= 2
        assert all(
            decode_header(a).flags & 0x20 for a, r in zip(answers, read, strict=True) if r in busy
        )
        for one in read:
            request = client.request(one.session_id, Kind.TERMINATION, 1)
            result = 2001 if one in granted else 5002
            assert (await client.credit(request)).result == result
        await desk.proven()


async def test_tshark_reads_a_whole_conversation_without_a_fault(desk: Desk) -> None:
    client = await desk.client()
    await desk.say(client, "w", Kind.INITIAL, requested=Units(time=30))
    lines = (Control(rating_group=1, requested=Units(total=MB)),)
    await desk.say(client, "d", Kind.INITIAL, controls=lines, context=DATA, multiple=True)
    key = desk.world.one("SELECT key FROM live_session WHERE key LIKE '%w#'")
    await desk.house.board.end("gw", key.partition("/")[2], "test")
    await desk.say(client, "w", Kind.TERMINATION)
    await desk.say(client, "none", Kind.UPDATE)
    await desk.say(client, "no", Kind.INITIAL, information=ServiceInformation(called=UNSOLD))
    await client.watchdog()
    await client.goodbye()
    assert malformed(client.frames, protocol="diameter", port=3868, strict=True) == []
