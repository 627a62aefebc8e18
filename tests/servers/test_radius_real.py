"""RADIUS with what carriers really run: radclient, FreeRADIUS as a proxy and as a NAS, Kamailio.

Each part is left out where its program is not installed.
"""

from __future__ import annotations

import asyncio
import io
import os
import re
import shutil
import signal
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from decimal import Decimal
from pathlib import Path

import pytest

from tests.protocols.radius_nas import Nas
from tests.servers.radius_world import SECRET, Set, radius_set
from tests.support import UK_FIXED, UNSOLD, free_port, until
from tollkeeper.wire.radius.attributes import Type, text
from tollkeeper.wire.radius.messages import Status
from tollkeeper.wire.radius.packet import Code

CENT = Decimal("0.01")
MODULES = list(Path("/usr/lib").glob("*/kamailio/modules/acc_radius.so"))
PATH = os.environ.get("PATH", "") + ":/usr/sbin:/usr/bin:/sbin"


def program(name: str) -> str:
    """Where a program is; the test is left out if it is nowhere."""
    found = shutil.which(name, path=PATH)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


@pytest.fixture
async def desk(database_url: str) -> AsyncIterator[Set]:
    """A running server and the peer "gw" at 127.0.0.1."""
    async with radius_set(database_url) as made:
        yield made


async def radclient(port: int, kind: str, attributes: str, secret: str = SECRET) -> str:
    """What radclient prints of one request and its answer."""
    command = [program("radclient"), "-x", "-r", "3", "-t", "3", f"127.0.0.1:{port}", kind, secret]
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    out, _ = await asyncio.wait_for(process.communicate(attributes.encode()), 20)
    return out.decode()


def access(session_id: str, called: str = UK_FIXED, **more: str) -> str:
    pairs = {
        "User-Name": '"gw"',
        "Calling-Station-Id": '"12025550100"',
        "Called-Station-Id": f'"{called}"',
        "Acct-Session-Id": f'"{session_id}"',
        "h323-conf-id": f'"h323-conf-id=16000 1 2 {session_id[-1]}"',
        **more,
    }
    return "\n".join(f"{name} = {value}" for name, value in pairs.items())


def begin(command: list[str], log: Path) -> subprocess.Popen[bytes]:
    """Start a program that writes to a file."""
    with log.open("wb") as out:
        return subprocess.Popen(command, stdout=out, stderr=out, start_new_session=True)


def tail(log: Path) -> str:
    """The last of what was written."""
    return log.read_text()[-3000:]


@asynccontextmanager
async def running(command: list[str], log: Path, ready: str) -> AsyncIterator[None]:
    """A program from when its output shows that it is ready until the block ends."""
    process = begin(command, log)
    try:
        await until(
            lambda: process.poll() is not None or re.search(ready, log.read_text()) is not None,
            seconds=20,
            what=f"{command[0]} is up",
        )
        assert process.poll() is None, tail(log)
        yield
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(5)


# --- radclient -----------------------------------------------------------------------------------


async def test_radclient_is_granted_refused_and_charged(desk: Set) -> None:
    """The client checks our signatures; a wrong secret gets nothing."""
    signed = {"Message-Authenticator": "0x00"}
    said = await radclient(desk.nas.auth, "auth", access("R1", **signed))
    assert "Received Access-Accept" in said
    assert "Session-Timeout = 7200" in said
    assert 'h323-credit-time = "h323-credit-time=7200"' in said
    assert 'h323-return-code = "h323-return-code=0"' in said
    refused = await radclient(desk.nas.auth, "auth", access("R2", UNSOLD, **signed))
    assert "Received Access-Reject" in refused
    assert 'h323-return-code = "h323-return-code=9"' in refused
    for status, seconds in (("Start", None), ("Interim-Update", 20), ("Stop", 33)):
        more = {"Acct-Status-Type": status}
        if seconds is not None:
            more["Acct-Session-Time"] = str(seconds)
        assert "Received Accounting-Response" in await radclient(
            desk.nas.acct, "acct", access("R1", **more)
        )
    (charge,) = [row["charge"] for row in desk.sessions() if row["ending"] != "refused"]
    assert charge == 33 * CENT
    status = 'Message-Authenticator = 0x00\nNAS-Identifier = "x"'
    assert "Received Access-Accept" in await radclient(desk.nas.auth, "status", status)


# --- FreeRADIUS ----------------------------------------------------------------------------------


def freeradius(folder: Path, servers: str) -> list[str]:
    """A FreeRADIUS with a configuration of its own in the foreground."""
    found = program("freeradius")
    (folder / "dictionary").write_text("$INCLUDE /usr/share/freeradius/dictionary\n")
    (folder / "radiusd.conf").write_text(f"""
prefix = /usr
logdir = {folder}
raddbdir = {folder}
run_dir = {folder}
libdir = /usr/lib/freeradius
pidfile = {folder}/radiusd.pid
max_requests = 1024
log {{
  destination = stdout
}}
security {{
  max_attributes = 200
  reject_delay = 0
  status_server = no
}}
thread pool {{
  start_servers = 1
  max_servers = 2
  min_spare_servers = 1
  max_spare_servers = 2
}}
modules {{
  always ok {{
    rcode = ok
  }}
}}
client localhost {{
  ipaddr = 127.0.0.1
  secret = {SECRET}
  require_message_authenticator = no
}}
{servers}
""")
    return [found, "-f", "-l", "stdout", "-d", str(folder), "-n", "radiusd", "-D", str(folder)]


PROXY = """
proxy server {{
  default_fallback = no
}}
home_server tollkeeper_auth {{
  type = auth
  ipaddr = 127.0.0.1
  port = {to_auth}
  secret = {secret}
  response_window = 6
  status_check = status-server
}}
home_server tollkeeper_acct {{
  type = acct
  ipaddr = 127.0.0.1
  port = {to_acct}
  secret = {secret}
  response_window = 6
  status_check = status-server
}}
home_server_pool tollkeeper_auth {{
  home_server = tollkeeper_auth
}}
home_server_pool tollkeeper_acct {{
  home_server = tollkeeper_acct
}}
realm tollkeeper {{
  auth_pool = tollkeeper_auth
  acct_pool = tollkeeper_acct
  nostrip
}}
server default {{
  listen {{
    type = auth
    ipaddr = 127.0.0.1
    port = {auth}
  }}
  listen {{
    type = acct
    ipaddr = 127.0.0.1
    port = {acct}
  }}
  authorize {{
    update control {{
      Proxy-To-Realm := "tollkeeper"
    }}
  }}
  preacct {{
    update control {{
      Proxy-To-Realm := "tollkeeper"
    }}
  }}
  accounting {{
    ok
  }}
}}
"""


async def test_through_freeradius_as_a_proxy(desk: Set, tmp_path: Path) -> None:
    """It adds Proxy-State and signs for itself; two switches behind it keep their calls apart."""
    await desk.options(proxied=True)
    auth, acct = free_port(), free_port()
    ports = {"auth": auth, "acct": acct, "to_auth": desk.nas.auth, "to_acct": desk.nas.acct}
    command = freeradius(tmp_path, PROXY.format(secret=SECRET, **ports))
    async with running(command, tmp_path / "log", "Ready to process requests"):
        for nas in ("one", "two"):
            who = {"NAS-Identifier": f'"{nas}"', "h323-conf-id": '""'}
            said = await radclient(auth, "auth", access("P1", **who))
            assert "Received Access-Accept" in said, said + (tmp_path / "log").read_text()[-3000:]
            assert "Session-Timeout" in said
            for status in ("Start", "Stop"):
                more = {"Acct-Status-Type": status, "Acct-Session-Time": "11", **who}
                assert "Received Accounting-Response" in await radclient(
                    acct, "acct", access("P1", **more)
                )
            if nas == "one":
                # What is left for the second is what the first did not use.
                assert desk.world.wallet(desk.acme).held == 0
    assert desk.charges() == {"one:P1": 11 * CENT, "two:P1": 11 * CENT}


async def test_freeradius_as_a_switch_obeys_our_orders(desk: Set, tmp_path: Path) -> None:
    """Its CoA listener checks the signature and answers a Disconnect-Request and a CoA-Request."""
    port = free_port()
    command = freeradius(
        tmp_path,
        f"""
server coa {{
  listen {{
    type = coa
    ipaddr = 127.0.0.1
    port = {port}
  }}
  recv-coa {{
    ok
  }}
  send-coa {{
    ok
  }}
}}
""",
    )
    async with running([*command, "-xx"], tmp_path / "log", "Ready to process requests"):
        await desk.options(orders_port=port, extend="coa", slice=60)
        await desk.nas.ask(desk.call())
        await desk.report(Status.START)
        await desk.report(Status.INTERIM, "A1", 30)
        log = tmp_path / "log"
        await until(lambda: "Sent CoA-ACK" in log.read_text(), what="the CoA was obeyed")
        await desk.house.board.charging.kill(switch="gw", session_id="A1", why="fraud")
        await until(lambda: "Sent Disconnect-ACK" in log.read_text(), what="the call was ended")
        await until(
            lambda: not desk.world.sql("SELECT FROM outbox WHERE done_at IS NULL"),
            what="the kill request is done",
        )
    said = log.read_text()
    assert "Session-Timeout = 90" in said
    assert 'Acct-Session-Id = "A1"' in said
    assert "Dropping" not in said


# --- Kamailio ------------------------------------------------------------------------------------

KAMAILIO = """#!KAMAILIO
debug=1
log_stderror=yes
children=1
auto_aliases=no
listen=udp:127.0.0.1:{sip}
disable_tcp=yes
dns=no
rev_dns=no
loadmodule "tm.so"
loadmodule "sl.so"
loadmodule "rr.so"
loadmodule "pv.so"
loadmodule "textops.so"
loadmodule "siputils.so"
loadmodule "acc.so"
loadmodule "acc_radius.so"
modparam("rr", "append_fromtag", 1)
modparam("acc", "detect_direction", 1)
modparam("acc_radius", "radius_config", "{folder}/radiusclient.conf")
modparam("acc_radius", "radius_flag", 2)
modparam("acc_radius", "radius_missed_flag", 3)
modparam("acc_radius", "radius_extra", "Calling-Station-Id=$fU;Called-Station-Id=$rU")
request_route {{
    if (has_totag()) {{
        # SIPp's own caller knows no Route header.
        if (!loose_route()) $du = "sip:127.0.0.1:{callee}";
        if (is_method("BYE")) setflag(2);
        t_relay();
        exit;
    }}
    if (!is_method("INVITE")) {{ sl_send_reply("405", "Not Allowed"); exit; }}
    record_route();
    setflag(2);
    setflag(3);
    $du = "sip:127.0.0.1:{callee}";
    t_relay();
}}
"""
DICTIONARY = """
ATTRIBUTE User-Name 1 string
ATTRIBUTE NAS-IP-Address 4 ipv4addr
ATTRIBUTE NAS-Port-Id 5 integer
ATTRIBUTE Service-Type 6 integer
ATTRIBUTE Called-Station-Id 30 string
ATTRIBUTE Calling-Station-Id 31 string
ATTRIBUTE NAS-Identifier 32 string
ATTRIBUTE Acct-Status-Type 40 integer
ATTRIBUTE Acct-Delay-Time 41 integer
ATTRIBUTE Acct-Session-Id 44 string
ATTRIBUTE Event-Timestamp 55 integer
ATTRIBUTE Sip-Method 101 integer
ATTRIBUTE Sip-Response-Code 102 integer
ATTRIBUTE Sip-To-Tag 104 string
ATTRIBUTE Sip-From-Tag 105 string
VALUE Acct-Status-Type Start 1
VALUE Acct-Status-Type Stop 2
VALUE Acct-Status-Type Alive 3
VALUE Acct-Status-Type Failed 15
VALUE Service-Type Sip-Session 15
"""


@contextmanager
def callee(port: int) -> Iterator[None]:
    """SIPp's own answering side."""
    command = [program("sipp"), "-sn", "uas", "-i", "127.0.0.1", "-p", str(port), "-nostdin"]
    process = subprocess.Popen(
        [*command, "-timeout", "40s"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield
    finally:
        process.kill()
        process.wait(5)


async def test_calls_that_kamailio_accounts_are_charged(desk: Set, tmp_path: Path) -> None:
    """A real proxy between two SIPp: no User-Name, no Acct-Session-Time, and codes that collide."""
    kamailio, sipp = program("kamailio"), program("sipp")
    if not MODULES:
        pytest.skip("Kamailio's RADIUS modules are not installed")
    sip, answering, calling = free_port(), free_port(), free_port()
    (tmp_path / "servers").write_text(f"127.0.0.1 {SECRET}\n")
    (tmp_path / "dictionary").write_text(DICTIONARY)
    (tmp_path / "radiusclient.conf").write_text(
        f"nas-identifier kamailio\nauthserver 127.0.0.1:{desk.nas.auth}:{SECRET}\n"
        f"acctserver 127.0.0.1:{desk.nas.acct}:{SECRET}\nservers {tmp_path}/servers\n"
        f"dictionary {tmp_path}/dictionary\ndefault_realm\nradius_timeout 3\nradius_retries 2\n"
        "bindaddr 127.0.0.1\n"
    )
    config = tmp_path / "kamailio.cfg"
    config.write_text(KAMAILIO.format(sip=sip, folder=tmp_path, callee=answering))
    command = [kamailio, "-DD", "-E", "-f", str(config), "-m", "64", "-M", "8",
               "-P", str(tmp_path / "pid"), "-Y", str(tmp_path)]  # fmt: skip
    with callee(answering):
        async with running(command, tmp_path / "log", "") as _:
            await until(lambda: listens(sip), what="Kamailio listens")
            caller = await asyncio.create_subprocess_exec(
                sipp, "-sn", "uac", "-s", UK_FIXED, f"127.0.0.1:{sip}", "-i", "127.0.0.1",
                "-p", str(calling), "-m", "2", "-r", "2", "-d", "2000", "-timeout", "20s", "-nostdin",
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )  # fmt: skip
            await until(lambda: len(desk.up()) == 2, what="both calls were opened by their start")
            assert await asyncio.wait_for(caller.wait(), 25) == 0
            await until(lambda: len(desk.sessions()) == 2, what="both calls were closed")
    for session in desk.sessions():
        assert session["ending"] == "settled"
        assert 1_000 <= session["used_ms"] <= 3_000
        assert session["charge"] == CENT * (session["used_ms"] // 1000)


def listens(port: int) -> bool:
    """Tell whether something has a UDP port."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return True
    return False


# --- pyrad ---------------------------------------------------------------------------------------


async def test_an_independent_client_reads_and_proves_our_answers(desk: Set) -> None:
    """It checks the authenticator and the Message-Authenticator of what comes over the wire."""
    theirs = pytest.importorskip("pyrad.packet", reason="pyrad is not installed")
    from pyrad.dictionary import Dictionary

    names = "ATTRIBUTE User-Name 1 string\nATTRIBUTE Message-Authenticator 80 octets\n"
    request = theirs.AuthPacket(
        code=1, secret=SECRET.encode(), id=9, dict=Dictionary(io.StringIO(names))
    )
    for kind, value in desk.call("Y1"):
        request[kind] = [value]
    request.add_message_authenticator()
    nas: Nas = desk.nas
    exchange = await nas.send(request.RequestPacket(), nas.auth)
    reply = request.CreateReply(packet=exchange.answer)
    assert reply.code == Code.ACCESS_ACCEPT
    assert request.VerifyReply(reply, exchange.answer, enforce_ma=True)
    assert text(Type.CLASS, "tk:Y1")[1] in reply[25]
