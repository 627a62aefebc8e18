"""The SIP redirect server, asked by datagrams and by SIPp: where to, for how long, and what is refused."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tests.protocols.house import House, add_peer, add_trunk
from tests.protocols.packets import malformed
from tests.services.cdr_world import Call, load, write_file
from tests.support import BLOCKED, UK_FIXED, UNSOLD, Customer, World, free_port, until
from tollkeeper.servers.sip import transactions as sip_transactions
from tollkeeper.servers.sip.redirect import ask_of
from tollkeeper.services.cdr.late_match import LateMatch
from tollkeeper.services.verify import verify
from tollkeeper.telemetry import REGISTRY
from tollkeeper.wire import sip

ROUTES = [
    {"prefix": "44", "to": "sip:9#{number}@203.0.113.6", "q": "0.5"},
    {"prefix": "44", "to": "sip:{number}@203.0.113.5:5080;transport=udp", "q": "0.9"},
    {"prefix": "390", "to": "sip:{number}@203.0.113.7"},
]
OPTIONS: dict[str, Any] = {"routes": ROUTES, "slice": 600}
SIPP = shutil.which("sipp")


class Caller(asyncio.DatagramProtocol):
    """A switch that sends datagrams, and keeps all that went to and fro."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.frames: list[tuple[str, bytes]] = []
        self.inbox: asyncio.Queue[bytes] = asyncio.Queue()
        self.transport: Any = None

    def connection_made(self, transport: Any) -> None:
        """Open."""
        self.transport = transport

    def datagram_received(self, data: bytes, _: Any) -> None:
        """An answer."""
        self.frames.append(("server", data))
        self.inbox.put_nowait(data)

    def send(self, data: bytes) -> None:
        """Send as it is."""
        self.frames.append(("client", data))
        self.transport.sendto(data)

    async def answer(self, seconds: float = 5) -> sip.Response:
        """The next answer."""
        found = sip.decode(await asyncio.wait_for(self.inbox.get(), seconds))
        assert isinstance(found, sip.Response)
        return found

    async def ask(self, data: bytes) -> sip.Response:
        """Send, and the answer to it."""
        self.send(data)
        return await self.answer()

    async def silent(self) -> bool:
        """Nothing came in a while."""
        try:
            await self.answer(0.2)
        except TimeoutError:
            return True
        return False


def message(
    method: str = "INVITE", called: str = UK_FIXED, call: str = "c1", branch: str = "1", **more: str
) -> bytes:
    """A request of the switch; ``more`` replaces headers, "" leaves one out."""
    headers = {
        "Via": f"SIP/2.0/UDP 127.0.0.1;branch=z9hG4bK{branch};rport",
        "Max-Forwards": "70",
        "From": "<sip:+12025550100@127.0.0.1>;tag=t1",
        "To": f"<sip:{called}@127.0.0.1>",
        "Call-ID": call,
        "CSeq": f"1 {method}",
        "Contact": "<sip:sw@127.0.0.1>",
        "Content-Length": "0",
    } | {name.replace("_", "-"): value for name, value in more.items()}
    lines = [f"{name}: {value}" for name, value in headers.items() if value]
    return "\r\n".join([f"{method} sip:{called}@127.0.0.1 SIP/2.0", *lines, "", ""]).encode()


class Desk:
    """A house with a redirect listener, a customer with 100 USD behind a trunk, and a caller."""

    def __init__(self, house: House, world: World, acme: Customer, caller: Caller) -> None:
        self.house, self.world, self.acme, self.caller = house, world, acme, caller

    @property
    def held(self) -> Decimal:
        """What is held of acme's money."""
        return self.world.wallet(self.acme).held

    async def held_is(self, amount: str) -> None:
        """Wait until that is held."""
        await until(lambda: self.held == Decimal(amount))


@asynccontextmanager
async def opened(
    url: str, *, peer: bool = True, limit: int = 600, hold_until_limit: bool = False, **given: Any
) -> AsyncIterator[Desk]:
    """The desk; without ``peer`` nobody is known."""
    port = free_port()
    options = OPTIONS | {"slice": limit, "hold_until_limit": hold_until_limit}
    with World(url) as world:
        acme = world.customer("acme", balance="100")
        add_trunk(world, "acme-in", acme)
        if peer:
            add_peer(world, "sw", "sip", addresses=["127.0.0.1"], trunk="acme-in", options=options)
        house = House(url, sip_listen=f"127.0.0.1:{port}", **given)
        await house.start()
        loop = asyncio.get_running_loop()
        transport, caller = await loop.create_datagram_endpoint(
            lambda: Caller(port), remote_addr=("127.0.0.1", port)
        )
        try:
            yield Desk(house, world, acme, caller)
        finally:
            transport.close()
            await house.stop()


@pytest.fixture
async def desk(database_url: str) -> AsyncIterator[Desk]:
    """The usual desk."""
    async with opened(database_url) as made:
        yield made


def faults(peer: str, fault: str) -> float:
    """How often that was counted."""
    labels = {"peer": peer, "protocol": "sip", "fault": fault}
    return REGISTRY.get_sample_value("tollkeeper_peer_faults_total", labels) or 0.0


async def test_a_call_is_sent_on_with_its_limit_and_paid_by_its_hold(desk: Desk) -> None:
    """302, the preferred route first, 600 seconds at a cent each held, our id of the session."""
    got = await desk.caller.ask(message())
    assert (got.status, got.reason) == (302, "Moved Temporarily")
    assert [value for name, value in got.headers if name == "Contact"] == [
        f"<sip:{UK_FIXED}@203.0.113.5:5080;transport=udp>;q=0.9",
        f"<sip:9#{UK_FIXED}@203.0.113.6>;q=0.5",
    ]
    assert got.header("X-Tollkeeper-Limit") == "600"
    (row,) = desk.world.sql("SELECT id, key FROM live_session")
    assert (str(row["id"]), row["key"]) == (got.header("X-Tollkeeper-Session"), "sw/c1")
    assert desk.held == 6
    desk.caller.send(message("ACK", To=f"<sip:{UK_FIXED}@127.0.0.1>;tag=x"))
    assert await desk.caller.silent()
    assert malformed(desk.caller.frames, protocol="sip", port=5060) == []


async def test_less_money_is_a_shorter_limit_and_none_is_refused(desk: Desk) -> None:
    """What another call holds is not there for this one."""
    desk.world.sql("UPDATE wallet SET credited = 7 WHERE id = %s", desk.acme.wallet_id)
    await desk.house.restart()
    assert (await desk.caller.ask(message())).header("X-Tollkeeper-Limit") == "600"
    second = await desk.caller.ask(message(call="c2", branch="2"))
    assert second.header("X-Tollkeeper-Limit") == "100"
    third = await desk.caller.ask(message(call="c3", branch="3"))
    assert third.status == 402
    assert third.header("Reason").startswith("Q.850;cause=21;text=")
    assert third.header("Contact") == ""


@pytest.mark.parametrize(
    ("called", "status", "cause"),
    [(UNSOLD, 404, 3), (BLOCKED, 403, 21), ("alice", 484, 28), ("390612345", 302, 0)],
)
async def test_each_reason_has_its_status_and_cause(
    desk: Desk, called: str, status: int, cause: int
) -> None:
    got = await desk.caller.ask(message(called=called))
    assert got.status == status
    assert got.header("Reason").startswith(f"Q.850;cause={cause};" if cause else "")


async def test_a_call_without_a_route_is_refused_and_holds_nothing(desk: Desk) -> None:
    got = await desk.caller.ask(message(called="12025550123"))
    assert (got.status, got.header("Reason")[:13]) == (404, "Q.850;cause=3")
    assert desk.held == 0


async def test_a_request_sent_again_gets_the_same_answer_and_holds_once(desk: Desk) -> None:
    first = await desk.caller.ask(message())
    assert [await desk.caller.ask(message()) for _ in range(3)] == [first] * 3
    assert desk.held == 6
    assert desk.world.one("SELECT count(*) FROM live_session") == 1


async def test_an_answer_is_repeated_until_it_is_confirmed(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Timer G of RFC 3261, here a tenth as long; the ACK ends it."""
    monkeypatch.setattr(sip_transactions, "T1_SECONDS", 0.05)
    first = await desk.caller.ask(message())
    assert [await desk.caller.answer(1) for _ in range(2)] == [first] * 2
    desk.caller.send(message("ACK"))
    while not await desk.caller.silent():
        pass  # what was on its way
    assert await desk.caller.silent()


async def test_a_cancelled_call_is_ended_and_its_hold_goes_back(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CANCEL while the call is being decided: 200 to it, 487 to the INVITE, nothing held."""
    gate = held_back(desk, monkeypatch)
    desk.caller.send(message())
    await until(lambda: gate.waiting > 0)
    assert (await desk.caller.ask(message())).status == 100
    cancelled = await desk.caller.ask(message("CANCEL"))
    assert (cancelled.status, cancelled.header("CSeq")) == (200, "1 CANCEL")
    ended = await desk.caller.answer()
    assert (ended.status, ended.header("CSeq")) == (487, "1 INVITE")
    assert ended.header("To") == cancelled.header("To")
    gate.open.set()
    await until(lambda: desk.world.one("SELECT count(*) FROM closed_session") == 1)
    await desk.held_is("0")
    desk.caller.send(message("ACK"))
    assert await desk.caller.silent()


class Gate:
    """Keeps decisions waiting."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.waiting = 0


def held_back(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> Gate:
    """Let the switchboard take its time."""
    gate, board = Gate(), desk.house.board
    original: Callable[..., Awaitable[Any]] = board.authorise

    async def slow(*arguments: Any) -> Any:
        gate.waiting += 1
        await gate.open.wait()
        return await original(*arguments)

    monkeypatch.setattr(board, "authorise", slow)
    return gate


async def test_a_cancel_that_comes_too_late_or_for_nothing_changes_nothing(desk: Desk) -> None:
    first = await desk.caller.ask(message())
    assert (await desk.caller.ask(message("CANCEL"))).status == 200
    assert await desk.caller.ask(message()) == first
    assert desk.held == 6
    assert (await desk.caller.ask(message("CANCEL", branch="none"))).status == 481


async def test_a_call_that_comes_by_two_ways_is_taken_once(desk: Desk) -> None:
    """RFC 3261 section 8.2.2.2: the second is a loop; after the ACK it is a new attempt."""
    assert (await desk.caller.ask(message())).status == 302
    assert (await desk.caller.ask(message(branch="2"))).status == 482
    desk.caller.send(message("ACK"))
    desk.caller.send(message("ACK", branch="2"))
    again = await desk.caller.ask(message(branch="3"))
    assert again.status == 302
    assert desk.held == 6


async def test_requests_that_are_no_calls(desk: Desk) -> None:
    ask = desk.caller.ask
    options = await ask(message("OPTIONS", branch="o"))
    assert (options.status, options.header("Allow")) == (200, "INVITE, ACK, CANCEL, OPTIONS")
    register = await ask(message("REGISTER", branch="r"))
    assert (register.status, register.header("Allow")) == (405, "INVITE, ACK, CANCEL, OPTIONS")
    dialog = f"<sip:{UK_FIXED}@127.0.0.1>;tag=x"
    assert (await ask(message("BYE", branch="b", To=dialog))).status == 481
    assert (await ask(message(branch="i", To=dialog))).status == 481
    assert (await ask(message(branch="m", call="m", Max_Forwards="0"))).status == 483
    assert desk.held == 0


async def test_too_many_calls_at_once_are_turned_away_with_a_time_to_come_back(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(database_url, network_queue_max=1) as desk:
        gate = held_back(desk, monkeypatch)
        desk.caller.send(message())
        await until(lambda: gate.waiting > 0)
        shed = await desk.caller.ask(message(call="c2", branch="2"))
        assert (shed.status, shed.header("Retry-After")) == (503, "5")
        gate.open.set()
        assert (await desk.caller.answer()).status == 302


async def test_who_is_no_peer_hears_nothing_or_403(database_url: str) -> None:
    """OPTIONS of this machine itself are answered, so that it can be seen whether we are here."""
    async with opened(database_url, peer=False) as desk:
        before = faults("", "unknown_peer")
        desk.caller.send(message())
        assert (await desk.caller.ask(message("OPTIONS", branch="o"))).status == 200
        assert await desk.caller.silent()
        assert faults("", "unknown_peer") == before + 1
    async with opened_again(database_url, sip_unknown="refuse") as desk:
        assert (await desk.caller.ask(message())).status == 403


@asynccontextmanager
async def opened_again(url: str, **given: Any) -> AsyncIterator[Desk]:
    """A house in the same world."""
    port = free_port()
    house = House(url, sip_listen=f"127.0.0.1:{port}", **given)
    await house.start()
    loop = asyncio.get_running_loop()
    transport, caller = await loop.create_datagram_endpoint(
        lambda: Caller(port), remote_addr=("127.0.0.1", port)
    )
    world = World.attached(url)
    try:
        yield Desk(house, world, Customer("acme", 0, 0, "USD"), caller)
    finally:
        transport.close()
        await house.stop()
        world.close()


async def test_hostile_datagrams_are_counted_and_hurt_nobody(desk: Desk) -> None:
    before = faults("sw", "malformed")
    for data in (b"\r\n\r\n", b"\0", b"x" * 60_000, message()[:90], message(CSeq="1 ACK")):
        desk.caller.send(data)
    desk.caller.send(b"SIP/2.0 200 OK\r\nVia: x\r\n\r\n")
    assert (await desk.caller.ask(message())).status == 302
    assert faults("sw", "malformed") == before + 3
    assert faults("sw", "unexpected") > 0


async def test_the_same_over_tcp_wherever_the_stream_is_cut(desk: Desk) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", desk.caller.port)
    whole = message() + message("ACK") + b"\r\n\r\n" + message("OPTIONS", branch="o")
    for at in range(0, len(whole), 50):
        writer.write(whole[at : at + 50])
        await writer.drain()
    first = sip.decode(await reader.readuntil(b"\r\n\r\n"))
    second = sip.decode(await reader.readuntil(b"\r\n\r\n"))
    statuses = {one.status for one in (first, second) if isinstance(one, sip.Response)}
    assert statuses == {302, 200}
    writer.write(b"no SIP\r\n\r\n")
    assert await asyncio.wait_for(reader.read(), 5) == b""
    writer.close()


async def test_a_peer_that_is_changed_is_answered_by_what_it_is_now(desk: Desk) -> None:
    """No restart: another header, another limit."""
    desk.world.sql(
        """UPDATE peer SET options = options || '{"limit_header": "X-Max", "slice": 60}'"""
    )
    desk.world.notify("peer:1")

    async def changed() -> bool:
        peer = desk.house.board.book.at("sip", "127.0.0.1")
        return peer is not None and peer.whole("slice") == 60

    await until(changed)
    got = await desk.caller.ask(message())
    assert (got.header("X-Max"), got.header("X-Tollkeeper-Limit")) == ("60", "")


async def test_a_redirected_call_that_nobody_reports_gives_its_money_back(desk: Desk) -> None:
    """The hold lives for the answer window (4 seconds and 1 of grace here)."""
    await desk.caller.ask(message())
    assert desk.held == 6
    await desk.held_is("0")
    assert desk.world.wallet(desk.acme).balance == 100


async def test_a_redirected_call_is_settled_by_whatever_report_comes_of_it(desk: Desk) -> None:
    """30 seconds at a cent each; the switch's id of the call is its Call-ID."""
    await desk.caller.ask(message())
    board = desk.house.board
    done = await board.stop_call(board.book.peers["sw"], "c1", 30_000)
    assert done.outcome.value == "closed"
    wallet = desk.world.wallet(desk.acme)
    assert (wallet.held, wallet.balance) == (0, Decimal("99.70"))


async def test_a_record_that_comes_after_the_hold_charges_the_call_once(
    desk: Desk, tmp_path: Path
) -> None:
    """By the Call-ID: 30 seconds at a cent each, also if the record is in two files."""
    desk.world.sql("UPDATE trunk SET names = '{acme-in}'")
    await desk.caller.ask(message())
    await until(lambda: desk.world.one("SELECT count(*) FROM closed_session") == 1)
    assert desk.world.one("SELECT ending FROM closed_session") == "expired"
    now = datetime.now(UTC)
    call = Call("c1", called=UK_FIXED, seconds="30", start=now, out="")
    for name in ("first.csv", "second.csv"):
        path = write_file(tmp_path / name, [call, name] if name == "second.csv" else [call])
        report = await load(desk.world.url, path, now=now, switch="sw")
        assert report.file.rated == (name == "first.csv")
    assert desk.world.wallet(desk.acme).balance == Decimal("99.70")
    matching = LateMatch(desk.house.parts.database, lambda: datetime.now(UTC))
    assert await matching.run() == 0
    assert (await verify(desk.house.parts.database)).clean


async def test_the_money_may_be_held_until_the_limit(database_url: str) -> None:
    """Limit 3 seconds, 5 for ringing: held beyond those 5, so that no other call can spend it."""
    async with opened(database_url, limit=3, hold_until_limit=True) as desk:
        await desk.caller.ask(message())
        (row,) = desk.world.sql(
            "SELECT expires_at - opened_at AS held, body->>'state' AS state FROM"
            " (SELECT *, (body->>'opened_at')::timestamptz AS opened_at FROM live_session) s"
        )
        assert (row["held"], row["state"]) == (timedelta(seconds=3 + 5), "active")
        assert desk.held == Decimal("0.03")
        desk.world.sql("UPDATE wallet SET credited = credited - 99.97")
        await desk.house.restart()
        assert (await desk.caller.ask(message(call="c2", branch="2"))).status == 402
        await desk.held_is("0")


async def test_the_peer_may_tell_the_caller_and_the_account(desk: Desk) -> None:
    """P-Asserted-Identity of the peer counts before From, and a header names who pays."""
    peer = add_peer(
        desk.world, "proxy", "sip", addresses=["127.0.0.2"],
        options={"account_header": "X-Account", "accounts_are_parties": True},
    )  # fmt: skip
    more = {"P_Asserted_Identity": '"A, B" <tel:+442071838000>, <sip:x@y>', "X_Account": "acme"}
    request = sip.decode(message(**more))
    assert isinstance(request, sip.Request)
    ask = ask_of(peer, request, "127.0.0.2")
    assert (ask.caller, ask.account, ask.called) == ("+442071838000", "acme", UK_FIXED)
    assert (ask.requested, ask.address) == (7200, "127.0.0.2")
    assert desk.house.board.whose(peer, ask)[0] == "acme"


SCENARIO = """<?xml version="1.0" encoding="UTF-8"?>
<scenario name="redirected">
  <send retrans="500"><![CDATA[
    INVITE sip:{called}@[remote_ip]:[remote_port] SIP/2.0
    Via: SIP/2.0/[transport] [local_ip]:[local_port];branch=[branch]
    From: <sip:12025550100@[local_ip]>;tag=[call_number]
    To: <sip:{called}@[remote_ip]>
    Call-ID: [call_id]
    CSeq: 1 INVITE
    Contact: <sip:sipp@[local_ip]:[local_port]>
    Max-Forwards: 70
    Content-Length: 0

  ]]></send>
  <recv response="100" optional="true"/>
  <recv response="{status}"/>
  <send><![CDATA[
    ACK sip:{called}@[remote_ip]:[remote_port] SIP/2.0
    [last_Via:]
    [last_From:]
    [last_To:]
    [last_Call-ID:]
    CSeq: 1 ACK
    Max-Forwards: 70
    Content-Length: 0

  ]]></send>
</scenario>
"""


@pytest.mark.skipif(SIPP is None, reason="SIPp is not installed")
@pytest.mark.parametrize(
    ("called", "status", "transport", "calls"),
    [(UK_FIXED, 302, "u1", 10), (UK_FIXED, 302, "t1", 5), (UNSOLD, 404, "u1", 5)],
)
async def test_sipp_is_redirected_or_refused(
    desk: Desk, tmp_path: Path, called: str, status: int, transport: str, calls: int
) -> None:
    scenario = tmp_path / "uac.xml"
    scenario.write_text(SCENARIO.format(called=called, status=status))
    process = await asyncio.create_subprocess_exec(
        str(SIPP), f"127.0.0.1:{desk.caller.port}", "-sf", str(scenario), "-m", str(calls),
        "-r", "20", "-t", transport, "-i", "127.0.0.1", "-timeout", "20s", "-timeout_error",
        "-nostdin", cwd=tmp_path, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    output, _ = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == 0, output.decode(errors="replace")[-3000:]
    held = "6" if status == 302 else "0"
    assert desk.world.one("SELECT max(held) FROM wallet") == Decimal(held) * calls
