"""The RADIUS server over real sockets: who is heard, what is granted, what is charged."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import pytest
import pytest_asyncio

from tests.protocols.packets import malformed
from tests.protocols.radius_nas import Nas
from tests.servers.radius_world import Set, next_set, radius_set
from tests.support import BLOCKED, UK_FIXED, UNSOLD, Row, tariff, until
from tollkeeper.core.trunks import Trace
from tollkeeper.errors import Busy
from tollkeeper.wire.radius.attributes import AUDIOCODES, Type, Voice, integer, text, voice, voices
from tollkeeper.wire.radius.messages import Status
from tollkeeper.wire.radius.packet import Attribute, Code, encode_request
from tollkeeper.wire.radius.passwords import hide_password, secret_hash

CENT = Decimal("0.01")
MB = 10**6
SILENCE = 0.3
"""So long nothing comes where nothing should."""


pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(loop_scope="module")
async def desk(radius_shop: Set) -> AsyncIterator[Set]:
    """A switch and a customer of this test alone, at a server that runs."""
    async with next_set(radius_shop) as made:
        yield made


async def unanswered(nas: Nas, data: bytes, port: int) -> bool:
    return await nas.try_to_send(data, port, seconds=SILENCE) is None


# --- who is heard --------------------------------------------------------------------------------


async def test_what_proves_nothing_is_dropped_and_counted(desk: Set) -> None:
    """Unsigned, signed with another secret, cut off, of a wrong kind: no answer, and the server goes on."""
    call, nas = desk.call(), desk.nas
    stranger = Nas(b"another secret", nas.auth, nas.acct)
    for fault, data, port in (
        ("unsigned", nas.request(Code.ACCESS_REQUEST, call, signed=False), nas.auth),
        (
            "wrong_secret",
            encode_request(Code.ACCESS_REQUEST, 1, call, stranger.secret, random=bytes(16)),
            nas.auth,
        ),
        (
            "wrong_secret",
            encode_request(Code.ACCOUNTING_REQUEST, 2, call, stranger.secret),
            nas.acct,
        ),
        ("malformed", nas.request(Code.ACCESS_REQUEST, call)[:-3], nas.auth),
        ("wrong_code", nas.request(Code.ACCOUNTING_REQUEST, call), nas.auth),
    ):
        before = desk.faults(fault)
        assert await unanswered(nas, data, port), fault
        assert desk.faults(fault) == before + 1
    assert (await nas.ask(call)).packet.code == Code.ACCESS_ACCEPT
    assert desk.up() == ["A1"]


async def test_an_unknown_switch_is_not_answered(desk: Set) -> None:
    before = desk.faults("unknown_peer", peer="")
    stranger = Nas(desk.nas.secret, desk.nas.auth, desk.nas.acct, host="127.0.0.9")
    await stranger.open()
    try:
        data = stranger.request(Code.ACCESS_REQUEST, desk.call())
        assert await unanswered(stranger, data, stranger.auth)
    finally:
        stranger.close()
    assert desk.faults("unknown_peer", peer="") > before


async def test_a_switch_that_cannot_sign_may_be_excused(desk: Set) -> None:
    await desk.options(message_authenticator=False)
    assert (await desk.nas.ask(desk.call(), signed=False)).packet.code == Code.ACCESS_ACCEPT


async def test_status_server_is_answered_on_both_ports(desk: Set) -> None:
    """RFC 5997: an Access-Accept here, an Accounting-Response there."""
    nas = desk.nas
    for port, code in ((nas.auth, Code.ACCESS_ACCEPT), (nas.acct, Code.ACCOUNTING_RESPONSE)):
        answer = await nas.send(nas.request(Code.STATUS_SERVER, []), port)
        assert answer.packet.code == code
        assert answer.packet.signed_at


async def test_proxy_states_come_back_in_order(desk: Set) -> None:
    states: list[Attribute] = [(Type.PROXY_STATE, b"2"), (Type.PROXY_STATE, b"1")]
    for answer in (
        await desk.nas.ask([*states, *desk.call()]),
        await desk.nas.tell(Status.START, [*states, *desk.call()]),
    ):
        assert answer.seen.every(Type.PROXY_STATE) == [b"2", b"1"]


async def test_the_same_packet_gets_the_same_octets_and_is_done_once(desk: Set) -> None:
    first = await desk.nas.ask(desk.call(""))
    assert (await desk.nas.again()).answer == first.answer
    assert len(desk.up()) == 1


async def test_while_the_first_is_worked_on_a_repeated_packet_is_dropped(
    desk: Set, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RFC 5080 section 2.2.2; then both are served by the one answer."""
    go, calls = asyncio.Event(), []
    authorise = desk.house.board.charging.authorise

    async def slow(**ask: Any) -> Any:
        calls.append(ask)
        await go.wait()
        return await authorise(**ask)

    monkeypatch.setattr(desk.house.board.charging, "authorise", slow)
    data, before = desk.nas.request(Code.ACCESS_REQUEST, desk.call()), desk.faults("duplicate")
    sending = asyncio.create_task(desk.nas.try_to_send(data, desk.nas.auth, seconds=10, again=0.05))
    await until(lambda: desk.faults("duplicate") >= before + 2)
    go.set()
    assert await sending is not None
    assert len(calls) == 1


# --- who it is -----------------------------------------------------------------------------------


async def test_the_call_of_an_ip_trunk_is_known_by_where_it_came_from(desk: Set) -> None:
    """By the gateway's word for it, or by a user name that is an address."""
    await desk.column("trunk", "")
    beta = desk.world.customer("beta")
    trunk = desk.world.one(
        "INSERT INTO trunk (code, direction, party_id, addresses) VALUES ('beta', 'in', %s, %s) RETURNING id",
        beta.id,
        ["198.51.100.0/24"],
    )
    desk.world.notify(f"trunk:{trunk}")
    desk.world.notify(f"party:{beta.id}")
    board, trace = desk.house.board, Trace(address="198.51.100.7")
    await until(lambda: board.book.trunk_of(board.book.peers["gw"], trace) is not None)
    await until(lambda: board.party_code(beta.id) == "beta")
    far = voice(Voice.REMOTE_ADDRESS, "198.51.100.7")
    assert (await desk.nas.ask([*desk.call("T1"), far])).packet.code == Code.ACCESS_ACCEPT
    by_name = desk.call("T2", user="198.51.100.8")
    assert (await desk.nas.ask(by_name)).packet.code == Code.ACCESS_ACCEPT
    nobody = await desk.nas.ask(desk.call("T3", user="203.0.113.1"))
    assert nobody.packet.code == Code.ACCESS_REJECT
    assert nobody.seen.voice(Voice.RETURN_CODE) == "1"
    parties = desk.world.sql(
        "SELECT DISTINCT party_id FROM live_session WHERE starts_with(key, %s)", desk.peer.switch
    )
    assert parties == [{"party_id": beta.id}]


def pap(nas: Nas, call: list[Attribute], password: bytes) -> bytes:
    random = os.urandom(16)
    attributes = [*call, (Type.USER_PASSWORD, hide_password(password, random, nas.secret))]
    return encode_request(Code.ACCESS_REQUEST, 77, attributes, nas.secret, random=random)


async def test_a_user_is_proven_by_a_password(desk: Set) -> None:
    """And a wrong one is refused, though the switch's trunk would have been good enough."""
    desk.credential("bob", "", "wonderland")
    await until(lambda: desk.house.board.book.credential("bob", "") is not None)
    call = desk.call(user="bob")
    wrong = await desk.nas.send(pap(desk.nas, call, b"looking-glass"), desk.nas.auth)
    assert wrong.packet.code == Code.ACCESS_REJECT
    assert wrong.seen.voice(Voice.RETURN_CODE) == "2"
    right = await desk.nas.send(pap(desk.nas, call, b"wonderland"), desk.nas.auth)
    assert right.packet.code == Code.ACCESS_ACCEPT


def digest_of(password: str, method: str = "INVITE") -> list[Attribute]:
    """A SIP digest as Kamailio's auth_radius sends it."""

    def h(text_: str) -> str:
        return hashlib.md5(text_.encode()).hexdigest()

    ha1, uri, nonce = secret_hash("alice", "example.org", password), "sip:1@example.org", "abc"
    response = h(f"{ha1}:{nonce}:{h(f'{method}:{uri}')}")
    parts = [(1, "example.org"), (2, nonce), (3, method), (4, uri), (10, "alice")]
    return [
        text(206, response),
        *((207, bytes((kind, len(value) + 2)) + value.encode()) for kind, value in parts),
    ]


async def test_a_user_is_proven_by_digest(desk: Set) -> None:
    desk.credential("alice", "example.org", "wonderland")
    await until(lambda: desk.house.board.book.credential("alice", "example.org") is not None)
    call = desk.call(user="alice@example.org")
    right = await desk.nas.ask([*call, *digest_of("wonderland")])
    assert right.packet.code == Code.ACCESS_ACCEPT
    wrong = await desk.nas.ask([*call, *digest_of("wonder")])
    assert wrong.seen.voice(Voice.RETURN_CODE) == "2"


async def test_who_it_is_may_be_asked_before_a_number_is_chosen(desk: Set) -> None:
    """As a calling card is: nothing is held yet."""
    desk.credential("carol", "", "wonderland")
    await until(lambda: desk.house.board.book.credential("carol", "") is not None)
    who = [text(Type.USER_NAME, "carol")]
    answer = await desk.nas.send(pap(desk.nas, who, b"wonderland"), desk.nas.auth)
    assert answer.packet.code == Code.ACCESS_ACCEPT
    assert answer.seen.raw(Type.SESSION_TIMEOUT) is None
    assert desk.up() == []


# --- what is granted -----------------------------------------------------------------------------


async def test_an_accept_says_how_long_in_every_way_that_switches_read(desk: Set) -> None:
    """Where a call cannot be extended all of it is asked for at once: 7200 s, here what the money is for."""
    answer = await desk.nas.ask(desk.call())
    assert answer.seen.integer(Type.SESSION_TIMEOUT) == 7200
    assert answer.seen.voice(Voice.CREDIT_TIME) == "7200"
    assert answer.seen.voice(Voice.RETURN_CODE) == "0"
    assert answer.seen.voice(Voice.CURRENCY) == "USD"
    assert answer.seen.integer(Type.ACCT_INTERIM_INTERVAL) == 60
    assert answer.seen.raw(Type.CLASS) == b"tk:A1"
    assert b"h323-credit-time=7200" in answer.answer
    second = await desk.nas.ask(desk.call("A2"))
    assert second.seen.integer(Type.SESSION_TIMEOUT) == 2800
    wallet = desk.world.wallet(desk.acme)
    assert wallet.available == 0


async def test_routes_come_along_where_the_switch_wants_them(desk: Set) -> None:
    routes = [
        {"prefix": "44", "to": "sip:{number}@203.0.113.5", "q": "0.5"},
        {"prefix": "44", "to": "sip:{number}@203.0.113.6:5070"},
        {"prefix": "1", "to": "sip:{number}@203.0.113.7"},
    ]
    await desk.options(routes=routes, vsa_names=False)
    answer = await desk.nas.ask(desk.call())
    found = [value for kind, value in voices(answer.packet.attributes) if kind == Voice.AVPAIR]
    assert found == [
        f"h323-ivr-in=Routing:{UK_FIXED}@203.0.113.6:5070",
        f"h323-ivr-in=Routing:{UK_FIXED}@203.0.113.5;q=0.5",
    ]
    assert b"h323-credit-time" not in answer.answer
    assert answer.seen.voice(Voice.CREDIT_TIME) == "7200"


async def test_audiocodes_reads_its_own_vendor(desk: Set) -> None:
    await desk.column("dialect", "audiocodes")
    answer = await desk.nas.ask(desk.call())
    assert AUDIOCODES.to_bytes(4, "big") in answer.answer


@pytest.mark.parametrize(
    ("called", "code"), [(BLOCKED, "9"), (UNSOLD, "9"), ("hello", "9"), (UK_FIXED, "4")]
)
async def test_a_refusal_says_why(radius_shop: Set, called: str, code: str) -> None:
    async with next_set(radius_shop, balance="0") as desk:
        answer = await desk.nas.ask(desk.call(called=called))
        assert answer.packet.code == Code.ACCESS_REJECT
        assert answer.seen.voice(Voice.RETURN_CODE) == code
        assert answer.seen.text(Type.REPLY_MESSAGE)
        assert answer.seen.raw(Type.SESSION_TIMEOUT) is None


async def test_a_switch_that_asks_again_by_itself_gets_the_next_slice(desk: Set) -> None:
    """Termination-Action = RADIUS-Request (RFC 2865 section 5.29): the State comes back."""
    await desk.options(extend="reauthorise", slice=60)
    first = await desk.nas.ask(desk.call())
    assert first.seen.integer(Type.TERMINATION_ACTION) == 1
    assert first.seen.integer(Type.SESSION_TIMEOUT) == 60
    await desk.report(Status.START)
    state: list[Attribute] = [(Type.STATE, first.seen.raw(Type.STATE) or b"")]
    second = await desk.nas.ask([*desk.call(), *state])
    assert second.packet.code == Code.ACCESS_ACCEPT
    assert second.seen.integer(Type.SESSION_TIMEOUT) == 60
    await desk.report(Status.STOP, "A1", 90)
    assert desk.charges() == {"A1": 90 * CENT}


# --- what is charged -----------------------------------------------------------------------------


async def test_an_answer_means_that_it_is_recorded(desk: Set, monkeypatch: Any) -> None:
    """RFC 2866 section 4.1: while nothing can be recorded there is no answer, and then there is."""
    await desk.nas.ask(desk.call())
    await desk.report(Status.START)
    stop, tries = desk.house.board.charging.stop, []

    async def fails_twice(**message: Any) -> Any:
        tries.append(message)
        if len(tries) < 3:
            raise Busy("the database is away")
        return await stop(**message)

    monkeypatch.setattr(desk.house.board.charging, "stop", fails_twice)
    about = [*desk.call(), integer(Type.ACCT_STATUS_TYPE, 2), integer(Type.ACCT_SESSION_TIME, 30)]
    data = desk.nas.request(Code.ACCOUNTING_REQUEST, about)
    assert await unanswered(desk.nas, data, desk.nas.acct)
    assert desk.up() == ["A1"]
    assert await desk.nas.try_to_send(data, desk.nas.acct, seconds=10, again=0.1) is not None
    assert desk.charges() == {"A1": 30 * CENT}
    assert len(tries) == 3


async def test_the_class_names_a_call_that_has_no_other_name(desk: Set) -> None:
    """Nothing in the Access-Request names the call; the accounting has its own id."""
    accept = await desk.nas.ask(desk.call(""))
    mark: Attribute = (Type.CLASS, accept.seen.raw(Type.CLASS) or b"")
    await desk.report(Status.START, "Z9", None, mark)
    await desk.report(Status.STOP, "Z9", 20, mark)
    (charge,) = desk.charges().values()
    assert charge == 20 * CENT


async def test_late_repeated_and_falling_reports_change_nothing(desk: Set) -> None:
    """Interim out of order, stop twice, interim and start after the stop."""
    await desk.nas.ask(desk.call())
    await desk.report(Status.START)
    for seconds in (20, 10):
        await desk.report(Status.INTERIM, "A1", seconds)
    await desk.report(Status.STOP, "A1", 30)
    await desk.report(Status.STOP, "A1", 30)
    await desk.report(Status.INTERIM, "A1", 25)
    await desk.report(Status.START)
    assert desk.charges() == {"A1": 30 * CENT}
    assert desk.up() == []
    assert desk.nas.orders == []


async def test_two_legs_of_one_call_are_charged_once(desk: Set) -> None:
    """Both have the h323-conf-id; the leg that was authorised counts, however long the other is."""
    conference = voice(Voice.CONF_ID, "16000 1 2 3")
    answer, originate = voice(Voice.CALL_ORIGIN, "answer"), voice(Voice.CALL_ORIGIN, "originate")
    await desk.nas.ask([*desk.call(""), conference])
    await desk.report(Status.START, "L1", None, conference, answer)
    await desk.report(Status.START, "L2", None, conference, originate)
    await desk.report(Status.STOP, "L1", 30, conference, answer)
    await desk.report(Status.STOP, "L2", 45, conference, originate)
    assert list(desk.charges().values()) == [30 * CENT]
    assert desk.up() == []


async def test_the_leg_that_counts_can_be_chosen(desk: Set) -> None:
    await desk.options(charged_leg="originate")
    conference = voice(Voice.CONF_ID, "16000 1 2 3")
    answer, originate = voice(Voice.CALL_ORIGIN, "answer"), voice(Voice.CALL_ORIGIN, "originate")
    await desk.nas.ask([*desk.call(""), conference])
    for leg, origin, seconds in (("L1", answer, 45), ("L2", originate, 30)):
        await desk.report(Status.START, leg, None, conference, origin)
        await desk.report(Status.STOP, leg, seconds, conference, origin)
    assert list(desk.charges().values()) == [30 * CENT]


async def test_a_switch_that_only_accounts_is_charged_by_the_times_it_tells(desk: Set) -> None:
    """Kamailio: no User-Name, no Acct-Session-Time; its clock is an hour off, which does no harm."""
    began = 1_700_000_000
    about = [
        text(Type.ACCT_SESSION_ID, "call-id@host"),
        text(Type.CALLED_STATION_ID, f"sip:{UK_FIXED}@host"),
        integer(Type.SERVICE_TYPE, 15),
        integer(102, 200),
    ]
    await desk.nas.tell(Status.START, [*about, integer(Type.EVENT_TIMESTAMP, began)])
    assert desk.up() == ["call-id@host"]
    await desk.nas.tell(Status.STOP, [*about, integer(Type.EVENT_TIMESTAMP, began + 17)])
    assert desk.charges() == {"call-id@host": 17 * CENT}


async def test_a_call_whose_start_was_lost_is_charged_by_its_stop(desk: Set) -> None:
    await desk.report(Status.STOP, "B1", 25)
    assert desk.charges() == {"B1": 25 * CENT}
    await desk.report(Status.STOP, "B2", 0)
    assert desk.charges() == {"B1": 25 * CENT}


async def test_data_is_charged_by_octets_and_gigawords(desk: Set) -> None:
    """One cent for a million octets, in both directions together; the NAS counts beyond 32 bits."""
    card = desk.world.card("data", [Row("", "Home", tariff("0.01", 1, 1))], service="data", per=MB)
    plan = desk.world.plan_id
    desk.world.sql(
        "INSERT INTO rate_plan_card (plan_id, position, card_id) VALUES (%s, 2, %s)", plan, card
    )
    desk.world.notify(f"plan:{plan}")
    await desk.options(service="data", extend="interim", orders_port=0)
    await until(lambda: len(desk.house.parts.directory.cards_of(plan, "data")) == 1)
    answer = await desk.nas.ask(desk.call(called="internet"))
    assert answer.packet.code == Code.ACCESS_ACCEPT
    assert answer.seen.raw(Type.SESSION_TIMEOUT) is None
    await desk.report(Status.START)
    octets = [integer(Type.ACCT_INPUT_OCTETS, 5 * MB), integer(Type.ACCT_OUTPUT_OCTETS, MB)]
    await desk.report(Status.INTERIM, "A1", 60, *octets)
    await desk.report(Status.STOP, "A1", 90, *octets, integer(Type.ACCT_INPUT_GIGAWORDS, 1))
    expected = (Decimal(2**32) + 6 * MB) / MB * CENT
    assert abs(desk.charges()["A1"] - expected) < CENT / 100


# --- restarts ------------------------------------------------------------------------------------


async def test_accounting_on_ends_what_the_switch_has_forgotten(desk: Set) -> None:
    """At the last reported usage; the ids begin again at once, and are new calls."""
    await desk.nas.ask(desk.call())
    await desk.report(Status.START)
    await desk.report(Status.INTERIM, "A1", 12)
    await desk.nas.tell(Status.ON, [])
    assert desk.charges() == {"A1": 12 * CENT}
    assert (await desk.nas.ask(desk.call())).packet.code == Code.ACCESS_ACCEPT
    await desk.report(Status.START)
    await desk.report(Status.STOP, "A1", 5)
    assert desk.charges() == {"A1": 12 * CENT, "A1~2": 5 * CENT}


async def test_a_delayed_accounting_on_does_not_end_what_began_since(desk: Set) -> None:
    await desk.nas.ask(desk.call())
    await desk.nas.tell(Status.ON, [integer(Type.ACCT_DELAY_TIME, 600)])
    assert desk.up() == ["A1"]


async def test_behind_a_proxy_each_switch_has_its_own_ids_and_restarts(desk: Set) -> None:
    await desk.options(proxied=True)
    one, two = text(Type.NAS_IDENTIFIER, "one"), text(Type.NAS_IDENTIFIER, "two")
    for nas in (one, two):
        assert (await desk.nas.ask([*desk.call(), nas])).packet.code == Code.ACCESS_ACCEPT
        await desk.report(Status.START, "A1", None, nas)
    assert desk.up() == ["one:A1", "two:A1"]
    await desk.nas.tell(Status.OFF, [one])
    assert desk.up() == ["two:A1"]


# --- overload, and an independent reader ---------------------------------------------------------


async def test_new_calls_are_turned_away_first_and_ends_of_calls_last(
    database_url: str, monkeypatch: Any
) -> None:
    """Room for four: the fifth call waits for nothing, but a stop and an interim are taken."""
    async with radius_set(database_url, balance="1000", network_queue_max=4) as desk:
        await desk.nas.ask(desk.call("S1"))
        await desk.report(Status.START, "S1")
        go, waiting = asyncio.Event(), []
        authorise = desk.house.board.charging.authorise

        async def slow(**ask: Any) -> Any:
            waiting.append(ask)
            await go.wait()
            return await authorise(**ask)

        monkeypatch.setattr(desk.house.board.charging, "authorise", slow)
        asking = [asyncio.create_task(desk.nas.ask(desk.call(f"Q{n}"))) for n in range(4)]
        before = desk.faults("overload")
        await until(lambda: len(waiting) == 4)
        extra = desk.nas.request(Code.ACCESS_REQUEST, desk.call("Q5"))
        assert await unanswered(desk.nas, extra, desk.nas.auth)
        assert desk.faults("overload") > before
        await desk.report(Status.STOP, "S1", 9)
        assert desk.charges() == {"S1": 9 * CENT}
        go.set()
        for answer in await asyncio.gather(*asking):
            assert answer.packet.code == Code.ACCESS_ACCEPT


async def test_an_independent_reader_finds_our_packets_right(desk: Set) -> None:
    accept = await desk.nas.ask(desk.call())
    reject = await desk.nas.ask(desk.call("A2", UNSOLD))
    start = await desk.report(Status.START)
    for port, exchanges in ((desk.nas.auth, [accept, reject]), (desk.nas.acct, [start])):
        frames = [
            frame for one in exchanges for frame in (("client", one.sent), ("server", one.answer))
        ]
        assert malformed(frames, protocol="radius", port=port, secret="testing123") == []
