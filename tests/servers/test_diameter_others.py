"""Independent Diameter elements on real sockets: python-diameter as a client, freeDiameter as a relay, TLS."""

from __future__ import annotations

import asyncio
import os
import shutil
import ssl
import subprocess
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.protocols.diameter_client import Client
from tests.protocols.house import add_peer
from tests.servers.diameter_desk import open_desk
from tests.support import UK_FIXED, free_port, until
from tollkeeper.wire.diameter.codes import Kind
from tollkeeper.wire.diameter.credit import Control, Units
from tollkeeper.wire.diameter.service import ServiceInformation

PATH = os.environ.get("PATH", "") + ":/usr/sbin:/usr/bin"
FREEDIAMETER = shutil.which("freeDiameterd", path=PATH)
OPENSSL = shutil.which("openssl", path=PATH)
needs_openssl = pytest.mark.skipif(OPENSSL is None, reason="openssl is not installed")
SCRIPT = """
import sys, logging
logging.disable(logging.CRITICAL)
from diameter.node import Node
from diameter.node.application import SimpleThreadingApplication
from diameter.message.commands import CreditControlRequest
from diameter.message.avp.grouped import (
    MultipleServicesCreditControl, RequestedServiceUnit, UsedServiceUnit, ServiceInformation,
    ImsInformation, SubscriptionId,
)
port = int(sys.argv[1])
node = Node("lib.example", "example", ip_addresses=["127.0.0.1"], vendor_ids=[10415])
peer = node.add_peer(f"aaa://ocs.example:{port}", "example", ip_addresses=["127.0.0.1"],
                     is_persistent=True)
app = SimpleThreadingApplication(4, is_auth_application=True)
node.add_application(app, [peer])
node.start()
app.wait_for_ready(10)
def say(kind, number, used=None):
    m = CreditControlRequest()
    m.session_id = "lib.example;1;1"
    m.origin_host = b"lib.example"
    m.origin_realm = b"example"
    m.destination_realm = b"example"
    m.auth_application_id = 4
    m.service_context_id = "32260@3gpp.org"
    m.cc_request_type = kind
    m.cc_request_number = number
    m.subscription_id = [SubscriptionId(0, "12025550100")]
    m.service_information = ServiceInformation(
        ims_information=ImsInformation(called_party_address="tel:+" + sys.argv[2]))
    unit = MultipleServicesCreditControl(rating_group=1)
    if kind != 3:
        unit.requested_service_unit = RequestedServiceUnit(cc_time=30)
    if used is not None:
        unit.used_service_unit = [UsedServiceUnit(cc_time=used)]
    m.multiple_services_credit_control = [unit]
    answer = app.send_request(m, timeout=5)
    control = answer.multiple_services_credit_control[0]
    grant = control.granted_service_unit
    print(answer.result_code, control.result_code, grant.cc_time if grant else None, flush=True)
say(1, 0); say(2, 1, 30); say(3, 2, 12)
import os
os._exit(0)
"""


async def _run(*command: str, seconds: float = 40) -> str:
    process = await asyncio.create_subprocess_exec(
        *command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    try:
        out, _ = await asyncio.wait_for(process.communicate(), seconds)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return out.decode()


async def _ended(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.terminate()
        try:
            await asyncio.wait_for(process.wait(), 5)
        except TimeoutError:
            process.kill()
            await process.wait()


async def test_an_independent_client_charges_a_call(database_url: str) -> None:
    """python-diameter: CER, CCR-I, CCR-U, CCR-T, each read by the other side."""
    pytest.importorskip("diameter", reason="python-diameter is not installed")
    import sys

    async with AsyncExitStack() as stack:
        desk = await open_desk(database_url, stack)
        add_peer(desk.world, "lib.example", "diameter", addresses=["127.0.0.1"], trunk="acme-in")
        await until(lambda: "lib.example" in desk.house.board.book.peers)
        out = await _run(sys.executable, "-c", SCRIPT, str(desk.address[1]), UK_FIXED)
        assert out.splitlines()[:3] == ["2001 2001 30", "2001 2001 30", "2001 2001 None"], out
        assert str(desk.balance()) == "9.58000000"
        await desk.proven()


# --- freeDiameter ---------------------------------------------------------------------------------

RELAY = """
Identity = "dra.example";
Realm = "example";
Port = {port};
SecPort = 0;
No_SCTP;
No_IPv6;
ListenOn = "127.0.0.1";
TcTimer = 6;
TwTimer = 6;
TLS_Cred = "{folder}/cert.pem", "{folder}/key.pem";
TLS_CA = "{folder}/cert.pem";
LoadExtension = "/usr/lib/freeDiameter/dict_nasreq.fdx";
LoadExtension = "/usr/lib/freeDiameter/dict_dcca.fdx";
LoadExtension = "/usr/lib/freeDiameter/dict_dcca_3gpp.fdx";
LoadExtension = "/usr/lib/freeDiameter/acl_wl.fdx" : "{folder}/acl.conf";
ConnectPeer = "ocs.example" {{ No_TLS; No_SCTP; ConnectTo = "127.0.0.1"; Port = {ocs}; Realm = "example"; TcTimer = 6; }};
"""


def certificate(folder: Path, name: str, *, signer: str = "") -> None:
    """A key and a certificate for a name, its own authority or signed by one made before."""
    assert OPENSSL is not None
    by = [] if not signer else ["-CA", f"{folder}/{signer}.pem", "-CAkey", f"{folder}/{signer}.key"]
    subprocess.run(
        [OPENSSL, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
         "-keyout", f"{folder}/{name}.key", "-out", f"{folder}/{name}.pem", "-days", "2",
         "-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:{name}", *by],
        check=True, capture_output=True, timeout=30,
    )  # fmt: skip


@needs_openssl
@pytest.mark.skipif(FREEDIAMETER is None, reason="freeDiameterd is not installed")
async def test_a_relay_carries_requests_of_its_clients(database_url: str, tmp_path: Path) -> None:
    """It connects to us and passes on what a gateway behind it asks, and our ASR to it."""
    assert FREEDIAMETER is not None
    certificate(tmp_path, "dra.example")
    (tmp_path / "dra.example.pem").rename(tmp_path / "cert.pem")
    (tmp_path / "dra.example.key").rename(tmp_path / "key.pem")
    async with AsyncExitStack() as stack:
        desk = await open_desk(database_url, stack)
        port = free_port()
        add_peer(
            desk.world, "dra.example", "diameter", addresses=["127.0.0.1"], trunk="acme-in",
            options={"relay": True},
        )  # fmt: skip
        await until(lambda: "dra.example" in desk.house.board.book.peers)
        (tmp_path / "acl.conf").write_text("ALLOW_IPSEC far.example ocs.example\n")
        (tmp_path / "fd.conf").write_text(
            RELAY.format(port=port, ocs=desk.address[1], folder=tmp_path)
        )
        log = stack.enter_context((tmp_path / "fd.log").open("wb"))
        process = await asyncio.create_subprocess_exec(
            FREEDIAMETER, "-c", str(tmp_path / "fd.conf"), stdout=log, stderr=log
        )
        stack.push_async_callback(_ended, process)
        await until(
            lambda: desk.house.board.reach.has("dra.example", "diameter"),
            seconds=15,
            what=f"freeDiameter connected; see {tmp_path}/fd.log",
        )
        client = Client("far.example")
        stack.push_async_callback(client.close)
        await client.connect(("127.0.0.1", port))
        assert (await client.hello(vendor_id=0)).result == 2001
        about: dict[str, Any] = {
            "destination_realm": "example",
            "information": ServiceInformation(called=f"tel:+{UK_FIXED}"),
            "multiple": True,
        }
        asked = (Control(rating_group=1, requested=Units(time=20)),)
        answer = await client.credit(
            client.request("far.example;1;1", Kind.INITIAL, 0, controls=asked, **about)
        )
        assert (answer.result, answer.origin_host) == (2001, "ocs.example")
        assert answer.controls[0].granted == Units(time=20)
        (key,) = (row["key"] for row in desk.world.sql("SELECT key FROM live_session"))
        await desk.house.board.end("dra.example", key.partition("/")[2], "test")
        assert client.asked[0].session_id == "far.example;1;1"
        used = (Control(rating_group=1, used=(Units(time=9),)),)
        answer = await client.credit(
            client.request("far.example;1;1", Kind.TERMINATION, 1, controls=used, **about)
        )
        assert answer.result == 2001
        assert str(desk.balance()) == "9.91000000"
        await desk.proven()


# --- TLS ------------------------------------------------------------------------------------------


@needs_openssl
async def test_over_tls_a_certificate_says_who_it_is(database_url: str, tmp_path: Path) -> None:
    """A peer without addresses is let in by a certificate of its name, and by none else."""
    certificate(tmp_path, "ca")
    for name in ("ocs.example", "gw.example", "thief.example"):
        certificate(tmp_path, name, signer="ca")
    port = free_port()
    async with AsyncExitStack() as stack:
        desk = await open_desk(
            database_url, stack,
            diameter_tls_listen=f"127.0.0.1:{port}",
            tls_certificate=tmp_path / "ocs.example.pem",
            tls_key=tmp_path / "ocs.example.key",
            tls_client_ca=tmp_path / "ca.pem",
        )  # fmt: skip
        desk.world.sql("UPDATE peer SET addresses = '{}', options = options || '{\"tls\": true}'")
        desk.world.notify("peer:1")
        await until(lambda: not desk.house.board.book.peers["gw"].addresses)
        for name, result in (("gw.example", 2001), ("thief.example", 3010)):
            context = ssl.create_default_context(cafile=str(tmp_path / "ca.pem"))
            context.check_hostname = False
            context.load_cert_chain(tmp_path / f"{name}.pem", tmp_path / f"{name}.key")
            client = Client("gw.example")
            stack.push_async_callback(client.close)
            await client.connect(("127.0.0.1", port), ssl=context)
            assert (await client.hello()).result == result
        plain = Client("gw.example")
        stack.push_async_callback(plain.close)
        await plain.connect(desk.address)
        assert (await plain.hello()).result == 3010
