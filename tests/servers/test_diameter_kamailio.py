"""A real Kamailio charges its calls over Ro (ims_charging, cdp): refused, limited, ended, reported."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from decimal import Decimal
from pathlib import Path

import pytest

from tests.protocols.house import House, add_peer, add_trunk, top_up
from tests.servers.diameter_sip import Telephone
from tests.support import PREMIUM, UK_FIXED, World, free_port, until
from tollkeeper.core.records import Policy

KAMAILIO = shutil.which("kamailio", path=os.environ.get("PATH", "") + ":/usr/sbin")
MODULES = Path("/usr/lib/x86_64-linux-gnu/kamailio/modules")
pytestmark = [
    pytest.mark.skipif(KAMAILIO is None, reason="kamailio is not installed"),
    pytest.mark.skipif(
        not (MODULES / "ims_charging.so").is_file(), reason="kamailio-ims-modules is not installed"
    ),
]

CDP = """<?xml version="1.0" encoding="UTF-8"?>
<DiameterPeer FQDN="kamailio.example" Realm="example" Vendor_Id="10415" Product_Name="CDiameterPeer"
  AcceptUnknownPeers="0" DropUnknownOnDisconnect="1" Tc="1" Workers="2" QueueLength="32"
  ConnectTimeout="3" TransactionTimeout="3" SessionsHashSize="128" DefaultAuthSessionTimeout="3600"
  MaxAuthSessionTimeout="3600">
  <Peer FQDN="localhost" Realm="charging.example" port="{diameter}"/>
  <Acceptor port="{acceptor}" bind="127.0.0.1"/>
  <Auth id="4" vendor="0"/>
  <Auth id="4" vendor="10415"/>
  <SupportedVendor vendor="10415"/>
  <DefaultRoute FQDN="localhost" metric="10"/>
</DiameterPeer>
"""
CONFIG = """#!KAMAILIO
debug=2
log_stderror=yes
children=2
auto_aliases=no
listen=udp:127.0.0.1:{sip}
disable_tcp=yes
dns=no
rev_dns=no
mpath="{modules}/"
loadmodule "kex.so"
loadmodule "tm.so"
loadmodule "tmx.so"
loadmodule "sl.so"
loadmodule "rr.so"
loadmodule "pv.so"
loadmodule "maxfwd.so"
loadmodule "textops.so"
loadmodule "siputils.so"
loadmodule "xlog.so"
loadmodule "ims_dialog.so"
loadmodule "cdp.so"
loadmodule "cdp_avp.so"
loadmodule "ims_charging.so"
modparam("cdp", "config_file", "{folder}/cdp.xml")
modparam("rr", "enable_full_lr", 1)
modparam("rr", "append_fromtag", 1)
modparam("ims_dialog", "dlg_flag", 18)
modparam("ims_dialog", "detect_spirals", 1)
modparam("ims_dialog", "db_mode", 0)
modparam("ims_charging", "origin_host", "kamailio.example")
modparam("ims_charging", "origin_realm", "example")
modparam("ims_charging", "destination_host", "localhost")
modparam("ims_charging", "destination_realm", "charging.example")
modparam("ims_charging", "ro_forced_peer", "localhost")
modparam("ims_charging", "service_context_id_root", "32260@3gpp.org")
modparam("ims_charging", "service_context_id_ext", "ext")
modparam("ims_charging", "service_context_id_mnc", "01")
modparam("ims_charging", "service_context_id_mcc", "001")
modparam("ims_charging", "service_context_id_release", "8")
modparam("ims_charging", "interim_update_credits", 4)
modparam("ims_charging", "timer_buffer", 1)

request_route {{
    if (!mf_process_maxfwd_header("10")) {{ sl_send_reply("483", "Too Many Hops"); exit; }}
    if (has_totag()) {{
        if (loose_route()) {{ t_relay(); exit; }}
        if (is_method("ACK")) {{ if (t_check_trans()) t_relay(); exit; }}
        sl_send_reply("404", "Not here"); exit;
    }}
    t_check_trans();
    if (!is_method("INVITE")) {{ sl_send_reply("405", "Method Not Allowed"); exit; }}
    record_route();
    setflag(18);
    t_newtran();
    $var(r) = Ro_CCR("CHARGED", "orig", "4", "in-trunk-1", "out-trunk-9");
    if ($var(r) < 0) {{ t_reply("500", "Charging Error"); }}
    exit;
}}
route[CHARGED] {{
    switch ($avp(s:cca_return_code)) {{
        case 1: $du = "sip:127.0.0.1:{callee}"; t_relay(); break;
        case -1: t_reply("402", "Payment Required"); break;
        default: t_reply("500", "Charging Error");
    }}
    exit;
}}
"""


class Network:
    """A Kamailio between two telephones, charged by a house."""

    def __init__(self, world: World, house: House, caller: Telephone, callee: Telephone) -> None:
        self.world, self.house = world, house
        self.caller, self.callee = caller, callee


@pytest.fixture
async def network(database_url: str, tmp_path: Path) -> AsyncIterator[Network]:
    diameter, acceptor, sip = free_port(), free_port(), free_port()
    async with AsyncExitStack() as stack:
        world = stack.enter_context(World(database_url))
        house = House(
            database_url,
            policy=Policy(answer_window=10, grace=5),
            diameter_listen=f"127.0.0.1:{diameter}",
            # Kamailio looks its peer up by its name, and localhost is one that is known everywhere.
            diameter_host="localhost",
            diameter_realm="charging.example",
        )
        await house.start()
        stack.push_async_callback(house.stop)
        add_peer(
            world, "kam", "diameter", addresses=["127.0.0.1"],
            options={"origin_host": "kamailio.example", "slice": 4},
        )  # fmt: skip
        caller, callee = Telephone(("127.0.0.1", sip)), Telephone(("127.0.0.1", sip))
        for telephone in (caller, callee):
            await telephone.open()
            stack.callback(telephone.close)
        (tmp_path / "cdp.xml").write_text(CDP.format(diameter=diameter, acceptor=acceptor))
        (tmp_path / "kamailio.cfg").write_text(
            CONFIG.format(sip=sip, modules=MODULES, folder=tmp_path, callee=callee.port)
        )
        log = stack.enter_context((tmp_path / "kamailio.log").open("wb"))
        assert KAMAILIO is not None
        process = await asyncio.create_subprocess_exec(
            KAMAILIO, "-DD", "-E", "-f", str(tmp_path / "kamailio.cfg"), "-m", "64", "-M", "8",
            "-Y", str(tmp_path), "-P", str(tmp_path / "pid"), stdout=log, stderr=log,
        )  # fmt: skip
        stack.push_async_callback(_end, process)
        await until(
            lambda: house.board.reach.has("kam", "diameter"), seconds=20,
            what=f"Kamailio connected; see {tmp_path}/kamailio.log",
        )  # fmt: skip
        yield Network(world, house, caller, callee)


async def _end(process: asyncio.subprocess.Process) -> None:
    process.terminate()
    try:
        await asyncio.wait_for(process.wait(), 8)
    except TimeoutError:
        process.kill()
        await process.wait()


async def test_calls_through_kamailio_are_charged_limited_and_refused(network: Network) -> None:
    """One is hung up, one is cut when its money ends, one refused with 402, one ended by us."""
    world, house = network.world, network.house
    acme = world.customer("acme", balance="0.07")
    add_trunk(world, "acme-in", acme)
    world.sql("UPDATE peer SET trunk = 'acme-in' WHERE code = 'kam'")
    world.notify("peer:1")
    await until(lambda: house.board.book.peers["kam"].trunk == "acme-in")

    assert await network.caller.call(UK_FIXED) == 200
    await asyncio.sleep(1.2)  # the call itself
    network.caller.hang_up()
    await until(lambda: world.one("SELECT count(*) FROM closed_session") == 1, what="reported")
    (first,) = world.sql("SELECT charge, ending FROM closed_session")
    assert first["ending"] == "settled"
    assert Decimal("0.01") <= first["charge"] <= Decimal("0.02")

    # Five or six seconds are left: one slice of four, then the rest, then the end.
    assert await network.caller.call(UK_FIXED) == 200
    await asyncio.wait_for(network.caller.ended.wait(), 15)
    lasted = network.caller.ended_at - network.caller.answered_at
    assert 3.5 <= lasted <= 7.5, lasted
    await until(lambda: world.one("SELECT count(*) FROM live_session") == 0, what="settled")
    wallet = world.wallet(acme)
    assert wallet.held == 0
    assert Decimal("-0.01") <= wallet.balance <= Decimal("0.03")

    # A second towards this destination costs more than all that there was.
    assert await network.caller.call(PREMIUM) == 402
    assert world.one("SELECT count(*) FROM live_session") == 0

    # It does not answer Abort-Session, so that a call that we want ended ends when it asks for more.
    top_up(world, acme, "1")
    assert await network.caller.call(UK_FIXED) == 200
    key = world.one("SELECT key FROM live_session")
    network.caller.ended.clear()
    await house.parts.charging.kill(switch="kam", session_id=key.partition("/")[2], why="operator")
    await asyncio.wait_for(network.caller.ended.wait(), 10)
    await until(lambda: world.one("SELECT count(*) FROM live_session") == 0, what="settled")
    assert world.wallet(acme).held == 0
